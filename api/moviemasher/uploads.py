"""How a client brings a file: it is told where to send it and what to ask next, and what it sends is taken as it comes.

It decides what a form may look like and how long it may take; it refuses to know where files lie (`files`) and what is
made of them: the next request, to ``/rendering/start``, says what the client needs to show the file.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import aclosing, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
import trio
from werkzeug.http import parse_options_header

from api.asgi import Refusal, Request
from api.forms import FormReader, Part
from api.moviemasher.child import Checks
from api.moviemasher.data import wanted
from api.moviemasher.door import Handler, Taking
from api.moviemasher.fields import Object
from api.moviemasher.files import UPLOAD_SECONDS, Files, Upload, kept_on_disk
from api.moviemasher.mash import FONT
from api.moviemasher.options import EXTENSIONS, MB, Options
from engine.errors import InvalidSpec
from engine.threads import in_thread

if TYPE_CHECKING:
    from api.queue import JobQueue

CLIP: Final = "com.moviemasher.clip.default"
FORM_ROOM: Final = 64 << 10  # of a form beside its file
MAX_ID: Final = 128
AT_A_TIME: Final = 4  # forms in threads


class Announcement(msgspec.Struct):
    """A file that somebody wants to bring."""

    name: str
    type: str
    size: int = 0


class Uploads:
    """Answers the requests."""

    def __init__(self, queue: JobQueue, files: Callable[[], Files], options: Options) -> None:
        self._queue = queue
        self._files = files
        self._options = options
        self._disk = trio.CapacityLimiter(AT_A_TIME)
        self._checks = Checks()

    async def run(self) -> None:
        """Keeps ready what looks into files, until cancelled."""
        try:
            await trio.sleep_forever()
        finally:
            await self._checks.close()

    def handlers(self) -> dict[str, Handler]:
        """What answers JSON."""
        return {"/rendering/upload": self._announce}

    def uploads(self) -> dict[str, Taking]:
        """What reads forms."""
        return {"/file/store": self._store}

    async def _announce(self, user: str, request: Object) -> Object:
        asked = wanted(request, Announcement)
        last = asked.type.rpartition("/")[2]
        extension = asked.name.rpartition(".")[2].lower()
        by_name = next((kind for kind, extensions in EXTENSIONS.items() if extension in extensions), asked.type)
        kind = last if last in EXTENSIONS else by_name
        if kind != FONT:  # of which nothing is rendered
            self._queue.check_workers()
        reserve = partial(self._files().reserve, user, asked.name, kind, asked.size)
        upload = await in_thread(reserve, limiter=self._disk)
        store: Object = {"body": {"id": upload.id}, "headers": {"Content-Type": "multipart/form-data"}}
        return {
            "id": upload.id,
            "loadType": upload.type,
            "fileProperty": "file",
            "fileApiCallback": {"endpoint": {"prefix": "/file/store"}, "request": store},
            "apiCallback": {
                "endpoint": {"prefix": "/rendering/start"},
                "request": {"body": products_of(upload, self._options)},
            },
        }

    async def _store(self, user: str, request: Request) -> Object:
        boundary = parse_options_header(request.headers.get("content-type", ""))[1].get("boundary", "")
        if not boundary:
            raise InvalidSpec("No file supplied", where="file")
        on_disk = partial(in_thread, limiter=self._disk)
        form = Form(self._files(), user, boundary)
        await on_disk(form.open)
        try:
            await self._receive(request, form)
            upload = await on_disk(form.finish)
            await self._checks.check(upload.type, upload.extension, form.path)
            await on_disk(self._files().keep, upload, form.path)
        finally:
            with trio.CancelScope(shield=True):
                await on_disk(form.close)
        return {}

    async def _receive(self, request: Request, form: Form) -> None:
        limit = round(max(self._options.limits.values()) * MB) + FORM_ROOM
        with trio.move_on_after(UPLOAD_SECONDS):
            async with aclosing(request.pieces(limit_bytes=limit)) as pieces:
                async for piece in pieces:
                    await in_thread(form.take, piece, limiter=self._disk)
            return
        raise Refusal(408, "the file did not come in time")


class Form:
    """One form with a file while it comes: the field `id`, then the file. Worker threads only, one at a time."""

    def __init__(self, files: Files, user: str, boundary: str) -> None:
        self._files = files
        self._user = user
        self._reader = FormReader(boundary)
        self._part = ""  # the field that comes now, if it is one that is read
        self._id = bytearray()
        self._upload: Upload | None = None
        self._size = 0

    def open(self) -> None:
        """Begins. Raises Overloaded."""
        self._file = self._files.open_part()
        self.path = Path(self._file.name)

    def close(self) -> None:
        """Ends; what came is gone, if it was not kept, and so is the room for it. Raises Overloaded."""
        with suppress(OSError):  # what waits to be written, on a full disk: nobody wants it any more
            self._file.close()
        if not self.path.exists():
            return
        self.path.unlink()
        if self._upload is not None:
            self._files.release(self._upload)

    def take(self, piece: bytes) -> None:
        """Some more of the form. Raises InvalidSpec, AlreadyExists, Overloaded."""
        with kept_on_disk():
            for event in self._reader.receive(piece):
                if isinstance(event, Part):
                    self._begin(event)
                elif self._part == "id":
                    self._id += event
                    if len(self._id) > MAX_ID:
                        raise InvalidSpec("Invalid argument id", where="id")
                elif self._part == "file" and self._upload is not None:
                    self._write(event, self._upload.size)

    def finish(self) -> Upload:
        """What has come. Raises InvalidSpec: there is no file, or not all of it; Overloaded."""
        if not self._reader.is_over:
            raise InvalidSpec("the multipart form did not come to its end", where="file")
        if self._upload is None:
            raise InvalidSpec("No file supplied", where="file")
        with kept_on_disk():
            self._file.flush()
            os.fsync(self._file.fileno())
        return self._upload

    def _begin(self, part: Part) -> None:
        is_read = (part.field == "id" and part.filename is None) or (part.field == "file" and part.filename is not None)
        self._part = part.field if is_read else ""
        if self._part == "file":
            if self._upload is not None:
                raise InvalidSpec("more than one file", where="file")
            self._upload = self._files.expect(self._user, self._id.decode(errors="replace"))

    def _write(self, piece: bytes, announced: int) -> None:
        self._size += len(piece)
        if self._size > announced:
            raise InvalidSpec(f"the file has more than the {announced} bytes that were announced", where="file")
        self._file.write(piece)


def products_of(upload: Upload, options: Options) -> Object:
    """What the client asks for next, without reading it: a rendering of all that it needs to show the file."""
    clip: Object = {"definitionId": CLIP, "contentId": upload.id, "content": {}}
    preview = {"width": options.preview.width, "height": options.preview.height}
    icon = {"outputType": "image", "width": options.icon.width, "height": options.icon.height, "basename": "icon"}
    outputs: list[Object] = []
    if upload.type == "image":
        clip |= {"timing": "custom", "frames": 1}
        outputs = [{"outputType": "image", **preview}, icon]
    elif upload.type == "audio":
        clip |= {"containerId": ""}
        outputs = [{"outputType": "audio"}]
    elif upload.type == "video":
        outputs = [{"outputType": "audio", "optional": True}, icon, {"outputType": "imagesequence", **preview}]
    tracks = [{"dense": True, "clips": [clip]}] if outputs else []
    definition = {"id": upload.id, "type": upload.type, "source": upload.source, "label": upload.name}
    return {
        "mash": {"id": upload.id, "tracks": tracks},
        "definitions": [definition],
        "outputs": outputs,
        "upload": True,
    }
