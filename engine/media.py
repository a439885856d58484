"""Media without a mix: what is in a file, how large a text is, an image made smaller.

It decides nothing about how media are shown; it refuses to know who asks. Everything blocks: worker threads only.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Final, Literal

import msgspec
from uharfbuzz import HarfBuzzError  # type: ignore[import-untyped]

from engine.clip import Ink
from engine.config import Settings
from engine.errors import SourceMalformed, SourceUnavailable, SourceUnsupported, reason_of
from engine.sinks.pictures import save_still
from engine.sources import load_still, open_source
from engine.sources.avfile import MediaFile
from engine.sources.container import DEMUX_ERRORS, open_container
from engine.sources.fonts import Font, Fonts
from engine.sources.outline import Intricate
from engine.sources.still import StillSource
from engine.sources.svg import HEAD, is_svg
from engine.sources.text import measure
from engine.spec import AudioFormat

MICROSECONDS: Final = 6  # digits of a second
OPAQUE: Final = 255  # alpha


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What is in a media file: an image, a film with or without sound, or sound alone.

    size      width and height as displayed, in pixels; None = no picture.
    duration  whole microseconds in seconds: no container says more exactly when it begins; None = an image, or nobody
              knows.
    opaque    nothing of its first picture can be seen through.
    """

    kind: Literal["image", "film", "sound"]
    size: tuple[int, int] | None = None
    duration: Fraction | None = None
    has_sound: bool = False
    opaque: bool = True


def look_into(path: str, *, name: str) -> Facts:
    """What a file is. `name` is what it is called in an error. Raises SourceError."""
    steps = open_source(name, path, sound=AudioFormat(), settings=Settings())
    try:
        frames = []
        if steps.picture_size is not None:  # how it is turned, its first picture says
            frames = [frame for _, _, frame in steps.step(pictures=1, sounds=None, start=Fraction(0)).pictures]
        size = steps.picture_size
        if isinstance(steps, MediaFile):
            steps.look_at_end()
        kind: Literal["image", "film", "sound"] = "sound" if size is None else "film"
        return Facts(
            kind="image" if isinstance(steps, StillSource) else kind,
            size=None if size is None else (size.width, size.height),
            duration=None if steps.duration is None else round(steps.duration, MICROSECONDS),
            has_sound=steps.has_sound,
            opaque=all(frame.a is None or frame.a.min() == OPAQUE for frame in frames),
        )
    finally:
        steps.close()


def read_through(path: str, *, name: str) -> None:
    """Reads all packets of a film or sound, as far as it is whole, and decodes none: it takes all the memory then that
    reading it may ever take, since the list of its packets is longest at the end. Raises SourceError.
    """
    with open_container(name, path, Settings(), glance=True) as container, suppress(*DEMUX_ERRORS):
        deque(container.demux(), maxlen=0)


def check_font(path: str, *, name: str) -> None:
    """Raises SourceMalformed where no font can be read, none of its first letters has an outline, or one a huge one."""
    try:
        Font(Path(path)).check_letters()
    except ValueError as err:
        raise SourceMalformed(f'font "{name}": {err}', where=name) from err
    except (OSError, HarfBuzzError) as err:
        raise SourceMalformed(f'font "{name}": not a font that can be read', where=name) from err


def check_drawing(path: str, *, name: str) -> None:
    """Raises SourceError where no SVG can be drawn."""
    try:
        with Path(path).open("rb") as file:
            head = file.read(HEAD)
    except OSError as err:
        raise SourceUnavailable(f'image "{name}": {reason_of(err)}', where=name) from err
    if not is_svg(head):
        raise SourceMalformed(f'image "{name}": not an SVG', where=name)
    load_still(name, path)


def shrink_image(path: str, images: Mapping[str, tuple[int, int]], *, name: str) -> None:
    """Makes images of an image: where they go → their sizes; a PNG keeps what can be seen through.

    Raises SourceError, SinkError.
    """
    frame = load_still(name, path)
    for target, size in images.items():
        save_still(frame, target, size)


def ink_measure(files: Mapping[str, str]) -> Callable[[str, str], Ink]:
    """What measures texts: (string, font) → its ink. `files` are the fonts that are not built in.

    It raises SourceError: there is no font, or so many intricate letters in all texts that it would take long.
    """
    fonts = Fonts(files)

    def ink(string: str, font: str) -> Ink:
        try:
            return measure(string, font, fonts)
        except Intricate as err:
            called = f'text "{string[:40]}"'
            raise SourceUnsupported(f"{called}: its string {err}", where=called) from err

    return ink


def length_of(path: str, *, name: str) -> Fraction:
    """Seconds, whole microseconds, of a film or sound, found by decoding all of it: for those that do not say.

    Raises SourceError.
    """
    steps = open_source(name, path, sound=AudioFormat(), settings=Settings())
    looks, listens = steps.picture_size is not None, steps.has_sound
    stop = Fraction(0)
    try:
        while True:
            batch = steps.step(pictures=8 if looks else None, sounds=True if listens else None, start=stop)
            if batch.error is not None:
                raise batch.error
            ends = [end for _, end, _ in batch.pictures]
            ends += [Fraction(first + len(block), AudioFormat().rate) for first, block in batch.sounds]
            stop = max([stop, *ends])
            if (batch.pictures_end or not looks) and (batch.sounds_end or not listens):
                return round(stop, MICROSECONDS)
    finally:
        steps.close()
