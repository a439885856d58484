"""Movie Masher's servers as one thing: what they are made of, and the two requests that are about themselves.

It decides which requests there are and who answers them; it refuses to know how they are answered.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import trio

from api.asgi import Answer, Message, Receive, Refusal, Request, Send, json_answer, respond
from api.errors import status_of
from api.moviemasher.data import DataServer
from api.moviemasher.documents import TEMPORARY, Documents, Kind
from api.moviemasher.door import CORS, SERVERS, Door, Handler, is_ours, preflight
from api.moviemasher.fields import Object
from api.moviemasher.files import Files
from api.moviemasher.options import EXTENSIONS, read_options
from api.moviemasher.rendering import Rendering
from api.moviemasher.streaming import Streaming
from api.moviemasher.uploads import Uploads
from api.moviemasher.users import Users
from api.moviemasher.web import Media, Site, is_media
from api.queue import FILE
from engine.errors import EngineError, InvalidSpec, Overloaded
from engine.threads import in_thread

if TYPE_CHECKING:
    from api.queue import JobQueue
    from engine import Engine

log = logging.getLogger(__name__)

IMPORTED: Final = ("audio", "image", "video")  # the client has no chooser for fonts


class Servers:
    """All of them, over an engine and a queue of jobs. Requests are answered while `run` runs."""

    def __init__(self, engine: Engine, queue: JobQueue) -> None:
        """Raises InvalidSpec: settings that make no sense."""
        settings = engine.settings
        self._settings = settings
        self._options = read_options(settings)
        self._users = Users(settings)
        self._media = Media(settings, self._users)
        self._site = Site(settings.web) if settings.web else None
        self._disk = trio.CapacityLimiter(1)  # opens, closes, removes
        self._stored: tuple[Documents, Files] | None = None  # while `run` runs
        self.data = DataServer(self.documents, self._options, self._discard)
        self.uploads = Uploads(queue, self.files, self._options)
        self.streaming = Streaming(engine, self.documents, self.files, self._options)
        self.rendering = Rendering(queue, self.documents, self.files, self._options, data=Path(settings.data))
        handlers: dict[str, Handler] = {
            "/api/callbacks": self._callbacks,
            "/api/servers": self._servers,
            **self.data.handlers(),
            **self.uploads.handlers(),
            **self.rendering.handlers(),
            **self.streaming.handlers(),
        }
        placed, uploads = self.streaming.placed(), self.uploads.uploads()
        self.paths = {*handlers, *placed, *uploads}
        self._active = {"web", *(path.split("/")[1] for path in self.paths)}
        self._door = Door(self._users, handlers, placed, uploads)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keeps what is stored open until cancelled. Raises InvalidSpec, SourceMalformed."""
        documents, files = await in_thread(self._open, limiter=self._disk)
        self._stored = documents, files
        try:
            task_status.started()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.uploads.run)
                nursery.start_soon(self.rendering.run)
                nursery.start_soon(self.streaming.run)
        finally:
            self._stored = None
            with trio.CancelScope(shield=True):
                await in_thread(documents.close, limiter=self._disk)

    def _open(self) -> tuple[Documents, Files]:
        data = Path(self._settings.data)
        documents = Documents(data / FILE, quota=self._options.quota)
        try:
            self._media.open()
            return documents, Files(documents, data / "media", self._options)
        except BaseException:
            documents.close()
            raise

    def documents(self) -> Documents:
        """What users keep. Raises Overloaded when nothing runs."""
        return self._running()[0]

    def files(self) -> Files:
        """What users sent, and what was made of it. Raises Overloaded when nothing runs."""
        return self._running()[1]

    def _running(self) -> tuple[Documents, Files]:
        if self._stored is None:
            raise Overloaded("the servers are not running")
        return self._stored

    async def _discard(self, kind: Kind, user: str, name: str) -> bool:
        """The files of a document that is no more."""
        discard = partial(self.files().discard, user, name, uploaded=kind == "definition")
        return await in_thread(discard, limiter=self._disk)

    # Requests

    def in_front_of(self, app: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
        """An application whose requests for these servers go there."""

        async def all_of_them(scope: Message, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            request = Request(scope, receive)
            if is_ours(request.method, request.path):
                await self._door(scope, receive, send)
                return
            answer = await self._file(request)
            if answer is None:
                await app(scope, receive, send)
            else:
                await respond(request, answer, send)

        return all_of_them

    async def _file(self, request: Request) -> Answer | None:
        """The file that is asked for, or why there is none; None: others are asked."""
        is_ours = is_media(request.path)
        try:
            if is_ours and request.method == "OPTIONS":
                answer = preflight(request)
            elif request.method not in ("GET", "HEAD"):
                return None
            elif is_ours:
                answer = await self._media.answer(request)
            elif self._site is None or (found := await self._site.answer(request)) is None:
                return None
            else:
                return found
        except Refusal as err:
            answer = json_answer(msgspec.json.encode({"error": str(err)}), headers=err.headers, status=err.status)
        except EngineError as err:
            log.warning("%s: %s", request.path[:200], err)
            answer = json_answer(msgspec.json.encode({"error": str(err)}), status=status_of(err))
        return msgspec.structs.replace(answer, headers=[*CORS, *answer.headers])

    async def _callbacks(self, user: str, request: Object) -> Object:
        """Where to send requests of a kind: its id is its path."""
        path = request.get("id")
        if not isinstance(path, str):
            raise InvalidSpec("id is required", where="id")
        server = path.split("/")[1] if path.startswith("/") else ""
        return {"apiCallbacks": {path: {"endpoint": {"prefix": path}}} if server in self._active else {}}

    async def _servers(self, user: str, request: Object) -> Object:
        members: dict[str, dict[str, Any]] = {name: {} for name in (*SERVERS, "web") if name in self._active}
        members["data"] = {"temporaryIdPrefix": TEMPORARY}
        members["file"] = {
            "prefix": self._media.prefix(user),
            "extensions": {kind: EXTENSIONS[kind] for kind in IMPORTED},
            "uploadLimits": {kind: self._options.limits[kind] for kind in IMPORTED},
        }
        return members
