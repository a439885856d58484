"""A mix as images: one picture of it, or every n-th as numbered files.

It decides which pictures are taken and what their files are called; it refuses to know how an image is encoded.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePath
from types import MappingProxyType
from typing import Final

from engine.errors import SinkRejected
from engine.frame import VideoFrame
from engine.sinks.partial import ERRORS, Item, Partial, PartialFolder, error_of
from engine.sinks.still import encode_still

IMAGE_CODECS: Final = MappingProxyType({".png": "png", ".jpg": "mjpeg", ".jpeg": "mjpeg"})
MAX_DIGITS: Final = 999
_NUMBER: Final = re.compile(r"%0?(\d*)d")

Size = tuple[int, int]


def is_numbered(path: str) -> bool:
    """Whether a name stands for many: ``%03d.jpg`` is 001.jpg, 002.jpg …"""
    return _NUMBER.search(PurePath(path).name) is not None


def is_one_of(name: str, path: str) -> bool:
    """Whether a file of that name is one of those that a name stands for."""
    parts = _NUMBER.split(PurePath(path).name, maxsplit=1)
    return len(parts) > 1 and re.fullmatch(rf"{re.escape(parts[0])}\d+{re.escape(parts[-1])}", name) is not None


def _encode(path: str, picture: VideoFrame, size: Size | None) -> bytes:
    try:
        return encode_still(picture, IMAGE_CODECS[Path(path).suffix.lower()], size)
    except ERRORS as err:
        raise error_of(path, err) from err


def check_digits(path: str) -> None:
    """Raises SinkRejected: a number of more digits than any name has."""
    found = _NUMBER.search(PurePath(path).name)
    if found is not None and len(found[1]) > len(str(MAX_DIGITS)):
        raise SinkRejected(f'output "{path:.200}": a number of more than {MAX_DIGITS} digits', where=path)


class Single:
    """A `Writing` (see sinks.partial): the picture of tick `n`, or the last one there is, as an image.

    size  of the image; None = the picture's own.
    """

    def __init__(self, path: str, *, n: int = 0, size: Size | None = None) -> None:
        self._partial = Partial(path)
        self._n = n
        self._size = size
        self._last: VideoFrame | None = None
        self._data: bytes | None = None

    def write(self, items: list[Item]) -> None:
        """As `Writing.write`. Raises SinkError."""
        for n, picture, _, span in items:
            self._last = picture
            if self._data is None and self._n < n + span:
                self._data = _encode(self._partial.path, picture, self._size)

    def finish(self) -> None:
        """As `Writing.finish`. Raises SinkError."""
        if self._data is None and self._last is not None:
            self._data = _encode(self._partial.path, self._last, self._size)
        self._last = None
        self._partial.write(self._data or b"")

    def keep(self) -> None:
        """As `Writing.keep`. Raises SinkError."""
        self._partial.keep()

    def discard(self) -> None:
        """As `Writing.discard`."""
        self._last = None
        self._partial.remove()


class Numbered:
    """A `Writing`: of every `every` pictures the first, as images ``%03d.jpg`` numbered from 1."""

    def __init__(self, path: str, *, every: int = 1, size: Size | None = None) -> None:
        self._path = path
        self._folder = PartialFolder(path)
        self._every = every
        self._size = size
        self._made = 0

    def write(self, items: list[Item]) -> None:
        """As `Writing.write`. Raises SinkError."""
        for n, picture, _, span in items:
            data: bytes | None = None  # the same for all of its ticks
            while self._made * self._every < n + span:
                data = data or _encode(self._path, picture, self._size)
                self._made += 1
                self._folder.write(self._name(self._made), data)

    def _name(self, number: int) -> str:
        return _NUMBER.sub(lambda found: str(number).zfill(int(found[1] or 0)), PurePath(self._path).name, count=1)

    def finish(self) -> None:
        """Everything is there."""

    def keep(self) -> None:
        """As `Writing.keep`. Raises SinkError."""
        self._folder.keep()

    def discard(self) -> None:
        """As `Writing.discard`."""
        self._folder.remove()


def save_still(picture: VideoFrame, path: str, size: Size) -> None:
    """Writes a picture as an image; a PNG keeps its alpha. Raises SinkError."""
    target = Partial(path)
    try:
        target.write(encode_still(picture, IMAGE_CODECS[Path(path).suffix.lower()], size, alpha=True))
        target.keep()
    except ERRORS as err:
        raise target.error(err) from err
    finally:
        target.remove()
