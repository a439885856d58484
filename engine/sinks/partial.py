"""What is written under a temporary name until it is whole: then it gets its own, or is taken away.

It decides names, when something is on the disk for sure, and what libav's and the system's errors are in one sentence;
it refuses to know what is written.
Worker threads only.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

import av
import trio
from av.codec.codec import UnknownCodecError

from engine.errors import SinkError, SinkRejected, SinkUnavailable, reason_of
from engine.frame import AudioFrame, VideoFrame

ERRORS: Final = (av.error.FFmpegError, OSError, ValueError)
PIECE: Final = 8 << 20  # bytes that are copied at a time: a slow disk writes as much within seconds
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)

Item = tuple[int, VideoFrame, AudioFrame, int]  # of ticks [n, n + span)


class Writing(Protocol):
    """What a FileSink drives; blocking, worker threads only."""

    def write(self, items: list[Item]) -> None:
        """Takes ticks in order."""

    def finish(self) -> None:
        """All ticks are there: makes the output whole, still under its temporary name."""

    def keep(self) -> None:
        """Gives the whole output its name."""

    def discard(self) -> None:
        """Leaves nothing behind."""


def error_of(path: str, err: Exception) -> SinkError:
    """libav's or the system's error about an output in one sentence."""
    number = getattr(err, "errno", None)
    if number in _FULL:
        return SinkUnavailable(f'output "{path}": no space left', where=path)
    if isinstance(err, UnknownCodecError):
        return SinkRejected(f'output "{path}": there is no encoder {err} here', where=path)
    return SinkRejected(f'output "{path}": {reason_of(err)}', where=path)


class Partial:
    """A file under a temporary name of its own, in the same folder so that the rename is atomic. Raises SinkError.

    Of a path that is a symbolic link, the file it leads to is written. A file that is replaced hands its mode on; what
    exists and is no file is refused.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            _check_folder(path)
            self._target = Path(os.path.realpath(path))
            self._mode = _mode_of_file(path)
            self.temporary = _beside(self._target)
            mode = 0o666 if self._mode is None else 0o600  # nobody reads now who may not read it then
            os.close(os.open(self.temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode))
        except (OSError, ValueError) as err:
            raise self.error(err) from err

    def error(self, err: Exception) -> SinkError:
        """As `error_of` this file."""
        return error_of(self.path, err)

    def write(self, data: bytes) -> None:
        """All of it at once. Raises SinkError."""
        try:
            Path(self.temporary).write_bytes(data)
        except OSError as err:
            raise self.error(err) from err

    def keep(self) -> None:
        """Gives it its name. Raises SinkError."""
        try:
            if self._mode is not None:
                with suppress(OSError):  # some file systems have no modes
                    Path(self.temporary).chmod(self._mode)
            Path(self.temporary).replace(self._target)
        except OSError as err:
            raise self.error(err) from err

    def remove(self) -> None:
        """Takes it away, as far as that is possible: a file system may have become read-only."""
        with suppress(OSError):
            Path(self.temporary).unlink()


class PartialFolder:
    """Files that appear together in the folder of `path`: until then they are in one of their own there."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._folder = Path(_beside(Path(path)))
        try:
            _check_folder(path)
            self._folder.mkdir()
        except (OSError, ValueError) as err:
            raise error_of(path, err) from err

    def write(self, name: str, data: bytes) -> None:
        """One file. Raises SinkError, at once where what has its name is no file."""
        try:
            _mode_of_file(str(self._folder.parent / name))
            (self._folder / name).write_bytes(data)
        except OSError as err:
            raise error_of(self._path, err) from err

    def keep(self) -> None:
        """Gives them their places, in order of name.

        Raises SinkError: those that got there are taken away again, but for any in the place of an older file, which is
        lost: it stays.
        """
        new: list[Path] = []
        try:
            for each in sorted(self._folder.iterdir()):
                target = self._folder.parent / each.name
                new += [] if os.path.lexists(target) else [target]
                each.replace(target)
            self._folder.rmdir()
        except OSError as err:
            for target in new:
                with suppress(OSError):
                    target.unlink()
            raise error_of(self._path, err) from err

    def remove(self) -> None:
        """Takes them away, as far as that is possible."""
        shutil.rmtree(self._folder, ignore_errors=True)


def copy(found: str | Path, target: str | Path) -> None:
    """Writes what is in a file into another one, which outlives a power cut from then on. Raises OSError.

    In a thread of `in_thread`: when its task is cancelled it breaks off, and what there is has to be removed.
    """
    with Path(found).open("rb") as source, Path(target).open("wb") as copied:
        while piece := source.read(PIECE):
            trio.from_thread.check_cancelled()
            copied.write(piece)
            copied.flush()
            os.fsync(copied.fileno())  # each time: nothing stops one that has gigabytes to write
        os.fsync(copied.fileno())  # of an empty one, too


def sync(path: Path) -> None:
    """What is in a file, or which names are in a folder, outlives a power cut from now on. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_names(folder: Path) -> None:
    """As `sync` a folder, as far as that is possible: some file systems cannot, some folders nobody may read."""
    with suppress(OSError):
        sync(folder)


def _beside(target: Path) -> str:
    """A name of its own, not made of the target's: that may be as long as a name can be."""
    return str(target.with_name(f".mashtun-{os.urandom(8).hex()}.part"))


def _mode_of_file(path: str) -> int | None:
    """The permissions of a file that exists; None where nothing does. Raises SinkRejected, OSError, ValueError."""
    try:
        mode = Path(path).stat().st_mode
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(mode):
        raise SinkRejected(f'output "{path}": is a directory', where=path)
    if not stat.S_ISREG(mode):
        raise SinkRejected(f'output "{path}": is not a file', where=path)
    return mode & 0o777


def _check_folder(path: str) -> None:
    folder = Path(path).parent
    if not folder.is_dir():
        raise SinkRejected(f'output "{path}": there is no folder "{folder}"', where=path)
