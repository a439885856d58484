"""Uploads looked into in processes of their own: a file of two kilobytes may say that it has millions of pictures, and
libav makes a list of them.

It decides what a file should be, and how much memory and time it may take to look into one: one that takes more ends
nothing but its own process. It refuses to know where files lie. `python -m api.moviemasher.child` is what those
processes are forked from; it imports little, since the first upload waits for it.
"""

from __future__ import annotations

import logging
import os
import re
import resource
import sys
import threading
import time
import traceback
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, NoReturn

import msgspec
import trio

from engine import child
from engine.errors import EngineError, Exhausted, Overloaded, SourceMalformed, SourceUnavailable, SourceUnsupported
from engine.media import check_drawing, check_font, look_into, read_through

log = logging.getLogger(__name__)

MAX_MEMORY: Final = 1 << 30  # bytes; a picture of 8192×8192 with 16 bits takes 0.9 GB
SECONDS: Final = 20  # of work; that picture takes 5
PATIENCE: Final = 60.0  # seconds, on a machine that has other work
_LOOK: Final = 0.005  # seconds; libav takes some 2 MB in one millisecond
_PAGE: Final = os.sysconf("SC_PAGESIZE")
_BINARY: Final = re.compile(rb"[\0-\x08\x0e-\x1f]")


class Checks:
    """Looks into one file after the other. `close` when no more come."""

    def __init__(self) -> None:
        self._child = child.Child("api.moviemasher.child")
        self._one = trio.Lock()

    async def check(self, kind: str, extension: str, path: Path) -> None:
        """Whether a file is of the kind that was announced. Raises SourceError, Overloaded: no turn; Exhausted."""
        said: dict[str, Any] = {}
        async with self._turn():
            with trio.move_on_after(PATIENCE) as patience:
                code = await self._child.run([kind, extension, str(path)], log=Path(os.devnull), report=said.update)
        if patience.cancelled_caught:
            raise SourceUnavailable(f"the file was not understood within {PATIENCE:g} s", where="file")
        if "bug" in said:
            raise RuntimeError(said["bug"])
        if "missing" in said:
            raise Exhausted(said["missing"])
        if "error" in said:
            raise SourceMalformed(said["error"], where="file")
        if code != 0:
            log.warning("what looked into an upload ended with %d", code)
            raise SourceUnsupported(f"a file that cannot be read within {SECONDS} s", where="file")

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        with trio.move_on_after(PATIENCE):
            await self._one.acquire()
        if self._one.statistics().owner is not trio.lowlevel.current_task():
            raise Overloaded(f"other files took longer than {PATIENCE:g} s")
        try:
            yield
        finally:
            self._one.release()

    async def close(self) -> None:
        """Ends the process that waits for the next file."""
        await self._child.close()


# --- the process -----------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str]) -> int:
    """Looks into a file and says what is wrong with it: kind, extension, path → exit code."""
    kind, extension, path = arguments
    _, most = resource.getrlimit(resource.RLIMIT_CPU)  # what draws an SVG asks for more than our own
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        threading.Thread(target=_end_when_large, daemon=True).start()
    except RuntimeError:  # the system has no more
        _say(missing="no thread to be had")
        return 1
    try:
        check(kind, extension, Path(path))
    except EngineError as err:
        _say(error=str(err))
    except Exception:
        _say(bug=traceback.format_exc())
        raise
    return 0


def check(announced: str, extension: str, path: Path) -> None:
    """Whether a file is of the kind that was announced. Raises SourceError."""
    if announced == "font":
        check_font(str(path), name="upload")
        return
    if extension == "svg":
        check_drawing(str(path), name="upload")
        return
    with path.open("rb") as file:
        if not _BINARY.search(file.read(1024)):  # a playlist would name other files, and no medium is text
            raise SourceMalformed(f"the file is text and no {announced}", where="file")
    facts = look_into(str(path), name="upload")
    is_image = facts.kind == "image" or extension == "gif"
    found = {"sound": "audio", "film": "video", "image": "image"}[facts.kind]
    if found != announced and not (announced == "image" and is_image):
        raise SourceMalformed(f"the file is {found} and no {announced}", where="file")
    if facts.kind != "image":
        read_through(str(path), name="upload")


def _end_when_large() -> NoReturn:
    """Ends this process when it has grown too large.

    A limit of the kernel's would not do: libav goes on without a list that it gets no memory for, as if all were well.
    """
    begun = _resident()
    while _resident() - begun < MAX_MEMORY:
        time.sleep(_LOOK)
    _say(error=f"a file that takes more than {MAX_MEMORY >> 20} MiB to read")
    os._exit(0)


def _resident() -> int:
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE


def _say(**report: str) -> None:
    os.write(1, msgspec.json.encode(report) + b"\n")


if __name__ == "__main__":
    sys.exit(child.main(main))
