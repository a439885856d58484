"""The uploaded images: files in one folder, loaded when a tree first names them.

It decides which bytes are an image and what it is called; it refuses to know where it is drawn.
"""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from pathlib import Path
from typing import Final

import msgspec
import trio

from engine.errors import EngineError, InvalidSpec, NotFound, Overloaded, SinkUnavailable, reason_of
from engine.frame import VideoFrame
from engine.sources.png import SIGNATURE
from engine.sources.still import load_still, still_size
from engine.threads import in_thread

log = logging.getLogger(__name__)

MAX_BYTES: Final = 32 << 20
MAX_IMAGES: Final = 1000
MAX_NAME: Final = 200
MAX_LOADED: Final = 1 << 30  # bytes of decoded images; those not named for longest go first …
LINGER: Final = 10.0  # … but for what was named within so many seconds
MAX_COMING: Final = 8  # that wait to be loaded before their time: what is on does not wait for more
AGAIN: Final = 2.0  # seconds until what could not be loaded is tried again
_SIGNATURES: Final = {  # what a file begins with → the extension it gets when its name has none
    SIGNATURE: ".png",
    b"\xff\xd8\xff": ".jpg",
    b"GIF87a": ".gif",
    b"GIF89a": ".gif",
    b"BM": ".bmp",
}
_EXTENSIONS: Final = (".png", ".jpg", ".jpeg", ".gif", ".bmp")


class ImageInfo(msgspec.Struct, frozen=True, rename="camel"):
    """An uploaded image; size in pixels as drawn, upright."""

    filename: str
    width: int
    height: int
    size_bytes: int


class _Known:
    """A name that a tree has, or an upload: its image, None while there is none."""

    def __init__(self, frame: VideoFrame | None = None) -> None:
        self.frame = frame
        self.used = trio.current_time()
        self.retry_at: float | None = None  # set where it could not be loaded

    @property
    def size(self) -> int:
        """Bytes."""
        return 0 if self.frame is None else sum(plane.nbytes for plane in self.frame.planes)


class Images:
    """The images in a folder. `run` loads what `get` asks for; the rest is called in the Trio thread.

    Promises: a file is there whole or not at all; a name never leaves the folder; what is shown is what is kept;
    what only reads keeps nobody waiting who ends it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._loading, self._listing = trio.CapacityLimiter(1), trio.CapacityLimiter(1)
        self._changing = trio.CapacityLimiter(1)  # so that what one change did is known before the next one begins
        self._found: dict[tuple[str, int, int, int], ImageInfo] = {}  # by the last list: by name and state of a file
        self._known: OrderedDict[str, _Known] = OrderedDict()  # the one not named for longest first
        self._send, self._receive = trio.open_memory_channel[str](MAX_IMAGES)

    async def run(self) -> None:
        """Loads what is asked for, until cancelled."""
        async for filename in self._receive:
            known = self._known.get(filename)
            if known is None:
                continue
            try:
                frame = await in_thread(self._load, filename, limiter=self._loading, abandon_on_cancel=True)
            except EngineError as err:
                if known.retry_at is None:
                    log.warning("image %s: %s", filename, err)
                known.retry_at = trio.current_time() + AGAIN
                continue
            if self._known.get(filename) is known:  # neither replaced nor removed meanwhile
                self._know(filename, frame)

    def get(self, filename: str) -> VideoFrame | None:
        """The image, or None: there is none, or it is not loaded yet. Asks for it, now and then again."""
        known, now = self._known.get(filename), trio.current_time()
        if known is not None:
            known.used = now
            self._known.move_to_end(filename)
            if known.retry_at is None or now < known.retry_at:
                return known.frame
        try:
            self._path(filename)
            self._send.send_nowait(filename)
        except (EngineError, trio.WouldBlock):
            return None
        if known is None:
            self._know(filename)
        else:
            known.retry_at = now + AGAIN
        return None

    def expect(self, filename: str) -> None:
        """Asks for an image that comes on the air soon, unless many wait to be loaded: then it is when it is on."""
        if self._receive.statistics().current_buffer_used < MAX_COMING:
            self.get(filename)

    def _know(self, filename: str, frame: VideoFrame | None = None) -> None:
        """Remembers a name, and forgets others where they are too many."""
        self._known[filename] = _Known(frame)
        self._known.move_to_end(filename)
        held = sum(known.size for known in self._known.values())
        while len(self._known) > MAX_IMAGES or held > MAX_LOADED:
            oldest = next(iter(self._known))
            if self._known[oldest].used > trio.current_time() - LINGER:
                return
            held -= self._known.pop(oldest).size

    async def add(self, filename: str, data: bytes) -> str:
        """Keeps an image, in place of one with the same name; returns the name.

        Raises InvalidSpec: not a PNG, JPEG, GIF or BMP, or too large, or a bad name. Overloaded: too many.
        """
        if len(data) > MAX_BYTES:
            raise InvalidSpec(f"an image of {len(data)} bytes is more than {MAX_BYTES}", where="file")
        extension = next((ext for start, ext in _SIGNATURES.items() if data.startswith(start)), None)
        if extension is None:
            raise InvalidSpec("the file is no PNG, JPEG, GIF or BMP", where="file")
        if Path(filename).suffix.lower() not in _EXTENSIONS:
            filename += extension
        path = self._path(filename)
        frame = await in_thread(self._store, path, data, limiter=self._changing)
        self._know(filename, frame)
        return filename

    async def infos(self) -> list[ImageInfo]:
        """All images, by name."""
        return await in_thread(self._list, limiter=self._listing, abandon_on_cancel=True)

    async def remove(self, filename: str) -> None:
        """Forgets an image; trees that name it draw nothing there. Raises NotFound."""
        try:
            path = self._path(filename)
            await in_thread(path.unlink, limiter=self._changing)
        except (InvalidSpec, OSError) as err:
            raise NotFound("image", filename) from err
        self._known.pop(filename, None)

    def _path(self, filename: str) -> Path:
        bad = filename in ("", ".", "..") or any(c in "/\\" or ord(c) < 32 or ord(c) == 127 for c in filename)
        if bad or filename.startswith(".") or len(filename.encode()) > MAX_NAME:
            raise InvalidSpec(
                f'filename "{filename[:80]}" is not a plain name of at most {MAX_NAME} bytes', where="file"
            )
        return self._folder / filename

    def _store(self, path: Path, data: bytes) -> VideoFrame:
        """Written beside, tried, then renamed."""
        beside = path.with_name(f".{path.name}.{os.urandom(4).hex()}{path.suffix}")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            if not path.exists() and sum(1 for _ in self._folder.iterdir()) >= MAX_IMAGES:
                raise Overloaded(f"there are {MAX_IMAGES} images already", where="file")
            beside.write_bytes(data)
            try:
                frame = load_still(path.name, str(beside))
            except EngineError as err:
                raise InvalidSpec(f"the image cannot be read: {err}", where="file") from err
            beside.replace(path)
        except OSError as err:
            raise SinkUnavailable(f'image "{path.name}" cannot be written: {reason_of(err)}', where="file") from err
        finally:
            beside.unlink(missing_ok=True)
        return frame

    def _load(self, filename: str) -> VideoFrame:
        return load_still(filename, str(self._path(filename)))

    def _list(self) -> list[ImageInfo]:
        if not self._folder.is_dir():
            return []
        found = {}
        for path in sorted(self._folder.iterdir()):
            if path.name.startswith("."):
                continue
            try:
                status = path.stat()
                file = path.name, status.st_ino, status.st_mtime_ns, status.st_size
                info = self._found.get(file)
                found[file] = info or ImageInfo(path.name, *still_size(path.name, str(path)), status.st_size)
            except (EngineError, OSError) as err:
                log.warning("image %s: %s", path.name, err)
        self._found = found
        return list(found.values())
