"""Small files that are there whole or not at all, whatever happens while they are written, and to one writer at a time.

It decides names, whose a file is that takes another one's place, and when it is on the disk for sure; it refuses to
know what is in it. Blocking.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

PRIVATE: Final = 0o600  # the mode of a file that is made


def part_of(target: Path) -> Path:
    """Where a file is until it is whole."""
    return target.with_name(target.name + ".part")


@contextmanager
def alone(path: Path, *, waits: bool = False) -> Iterator[None]:
    """Until its end nobody else writes that file. Raises BlockingIOError: somebody does, unless it waits; OSError.

    What is locked is a file of its own: on network drives a lock is one on all bytes, even against SQLite's own locks.
    """
    name = path.with_name(path.name + ".lock")
    while True:
        with name.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))  # goes with the process, however it ends
            if os.fstat(file.fileno()).st_nlink > 0:
                try:
                    yield
                finally:
                    name.unlink(missing_ok=True)
                return
        if not waits:  # who had it has just ended, and the next one locks another file
            raise BlockingIOError


def write_whole(path: Path, data: bytes) -> None:
    """Puts a file in the place of what is there, which hands its owner and its mode on, else for its owner alone.

    What a link leads to must have been found before, and nobody else may write that file meanwhile. Raises OSError.
    """
    part = part_of(path)
    try:
        part.unlink(missing_ok=True)  # of one who was killed
        part.touch(mode=PRIVATE, exist_ok=False)
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            if path.exists():
                _hand_on(path.stat(), file.fileno())
            os.fsync(file.fileno())
        part.replace(path)
        sync_names(path.parent)
    finally:
        part.unlink(missing_ok=True)


def _hand_on(old: os.stat_result, file: int) -> None:
    new = os.fstat(file)
    if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid):
        try:
            os.fchown(file, old.st_uid, old.st_gid)
        except PermissionError as err:
            raise PermissionError(err.errno, "it belongs to another user or group: only they may write it") from err
    if old.st_mode != new.st_mode:
        os.fchmod(file, old.st_mode & 0o777)


def sync_names(folder: Path) -> None:
    """Which names are in a folder outlives a power cut from now on, as far as its file system can that."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
