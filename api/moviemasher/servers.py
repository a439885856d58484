"""Movie Masher's servers as one thing: what they are made of, and the two requests that are about themselves.

It decides which requests there are and who answers them; it refuses to know how they are answered.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

import trio

from api.asgi import Message, Receive, Send
from api.moviemasher.door import SERVERS, Door, Handler, Object, is_ours
from api.moviemasher.options import EXTENSIONS, read_options
from api.moviemasher.users import Users
from engine.errors import InvalidSpec

if TYPE_CHECKING:
    from api.queue import JobQueue
    from engine import Engine

TEMPORARY: Final = "temporary-"  # what the ids of a client's new objects begin with


class Servers:
    """All of them, over an engine and a queue of jobs. Requests are answered while `run` runs."""

    def __init__(self, engine: Engine, queue: JobQueue) -> None:
        """Raises InvalidSpec: settings that make no sense."""
        self._options = read_options(engine.settings)
        handlers: dict[str, Handler] = {"/api/callbacks": self._callbacks, "/api/servers": self._servers}
        self._active = {"web", *(path.split("/")[1] for path in handlers)}
        self._door = Door(Users(engine.settings), handlers, {})

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keeps what is stored open until cancelled."""
        task_status.started()
        await trio.sleep_forever()

    def in_front_of(self, app: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
        """An application whose requests for these servers go there."""

        async def both(scope: Message, receive: Receive, send: Send) -> None:
            is_request = scope["type"] == "http" and is_ours(scope["method"], scope["raw_path"].decode("latin-1"))
            await (self._door if is_request else app)(scope, receive, send)

        return both

    async def _callbacks(self, user: str, request: Object) -> Object:
        """Where to send requests of a kind: its id is its path."""
        path = request.get("id")
        if not isinstance(path, str):
            raise InvalidSpec("id is required", where="id")
        server = path.split("/")[1] if path.startswith("/") else ""
        return {"apiCallbacks": {path: {"endpoint": {"prefix": path}}} if server in self._active else {}}

    async def _servers(self, user: str, request: Object) -> Object:
        members: dict[str, dict[str, Any]] = {name: {} for name in (*SERVERS, "web") if name in self._active}
        if "data" in members:
            members["data"] = {"temporaryIdPrefix": TEMPORARY}
        if "file" in members:
            kinds = ("audio", "image", "video")  # the client has no chooser for fonts
            members["file"] = {
                "prefix": f"/media/{user}/",
                "extensions": {kind: EXTENSIONS[kind] for kind in kinds},
                "uploadLimits": {kind: self._options.limits[kind] for kind in kinds},
            }
        return members
