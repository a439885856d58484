"""HTTP/1.1 and WebSockets, as Hypercorn speaks them: what its clients could do to it is mended here.

It decides how long clients are heard, what of theirs is refused, and how many there are; it refuses to know any route.
Hypercorn has no settings for most of it, so its classes have heirs here, which `serve_http` puts in their place.
"""

from __future__ import annotations

import logging
import os
import resource
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import h11
import hypercorn.protocol
import hypercorn.trio.run
import hypercorn.trio.tcp_server
import msgspec
import trio
from h11._receivebuffer import ReceiveBuffer
from hypercorn.config import Config
from hypercorn.events import Closed
from hypercorn.events import Event as ConnectionEvent
from hypercorn.protocol.events import Body, Data, EndBody, Event, Request, Response, StreamClosed
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.protocol.ws_stream import WSStream
from hypercorn.trio import serve
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.typing import AppWrapper, ASGIReceiveEvent, ASGISendEvent, Scope
from quart_trio import QuartTrio

from api.asgi import STALL_LIMIT, limit_stall
from engine import link

log = logging.getLogger(__name__)

HTTP_GRACE: Final = 1.0  # seconds that requests have to finish, when all streams have ended
HEAD_LINES: Final = 100  # of a request; proxies and browsers together send 40. A line of four bytes costs 10 us
LENGTHS: Final = {b"content-length", b"transfer-encoding"}
LISTS: Final = {b"connection", b"sec-websocket-extensions", b"sec-websocket-protocol"}  # of words, of a handshake
STALL: Final = 60.0  # seconds in which a client may take nothing, as a player that is paused; nginx's
VIEWER_BYTES: Final = 512  # that are heard of a WebSocket's client at once: 85 empty frames, or 3 ms
VIEWER_PAUSE: Final = 0.1  # seconds between two looks at what it says
HANDSHAKE: Final = "a WebSocket needs HTTP/1.1, a Sec-WebSocket-Key and Sec-WebSocket-Version: 13"


def config_of(listener: socket.socket) -> Config:
    """How clients of a socket that listens are served."""
    config = Config()
    config.bind = [f"fd://{listener.fileno()}"]
    config.graceful_timeout = HTTP_GRACE
    config.accesslog = None
    config.errorlog = logging.getLogger("hypercorn")
    config.websocket_max_message_size = 1 << 16
    return config


async def serve_http(app: QuartTrio, config: Config, stop: trio.Event, served: trio.Event) -> None:
    """Answers the clients of an application until `stop`, and says by `served` that it has ended."""
    hypercorn.protocol.H11Protocol = Http1  # type: ignore[attr-defined]  # no setting says so
    hypercorn.protocol.h11.WSStream = Viewer  # type: ignore[attr-defined]  # nor this
    hypercorn.protocol.ws_stream.server_extensions_handshake = _no_extension  # type: ignore[attr-defined]  # nor this
    # A third of all descriptors: each may read a file besides, and the last third is for cameras, recordings and jobs.
    room = link.Room("http", resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 3)
    hypercorn.trio.run.TCPServer = partial(Connection, room)  # type: ignore[attr-defined, assignment]  # nor this
    hypercorn.trio.tcp_server.TaskGroup = Apps  # type: ignore[attr-defined]  # nor this
    await serve(app, config, shutdown_trigger=stop.wait)
    served.set()


def _no_extension(requested: Iterable[str], supported: Sequence[object]) -> None:
    """WebSockets are not deflated: film becomes no smaller, and all viewers together would stop the thread of all."""


def cut_connections(port: int) -> None:
    """Ends what was accepted at that port: Hypercorn shields what it sends, and would wait for who takes nothing."""
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            if not str(entry.readlink()).startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(entry.name))) as connection:
                is_tcp = connection.family in (socket.AF_INET, socket.AF_INET6)
                if is_tcp and connection.getsockname()[1] == port and connection.getpeername():
                    connection.shutdown(socket.SHUT_RDWR)


class _Lines(ReceiveBuffer):
    """What came of a request; a head, or a tail behind the body, of very many lines would stop everybody else.

    A body whose length is told in both ways is refused: where it ends a proxy before us may see otherwise, and what
    follows must not be heard (RFC 9112 6.1).
    """

    def maybe_extract_lines(self) -> list[bytearray] | None:
        """As in h11. Raises h11.RemoteProtocolError."""
        lines = super().maybe_extract_lines()
        if lines and len(lines) > HEAD_LINES:
            raise h11.RemoteProtocolError(f"a head of {len(lines)} lines", error_status_hint=431)
        if {bytes(line).partition(b":")[0].lower() for line in lines or ()} >= LENGTHS:
            raise h11.RemoteProtocolError("a body with two lengths", error_status_hint=400)
        return lines


class _Requests(h11.Connection):
    """What a client says, without what means nothing: blank lines before a request, anything behind the last one.

    Old clients end a body with a blank line (RFC 9112 2.2), for which h11 refuses what is being answered.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(h11.SERVER, max_incomplete_event_size=config.h11_max_incomplete_size)
        self._receive_buffer = _Lines()

    def forget(self) -> None:
        """Throws away what has come and was not heard yet."""
        self._receive_buffer.maybe_extract_at_most(len(self._receive_buffer))

    def next_event(self) -> Any:
        """As in h11."""
        if self.their_state in (h11.IDLE, h11.DONE, h11.MUST_CLOSE):
            waiting, _ = self.trailing_data
            kept = b"" if self.their_state is h11.MUST_CLOSE else waiting.lstrip(b"\r\n")
            self._receive_buffer.maybe_extract_at_most(len(waiting) - len(kept))
        event = super().next_event()
        if isinstance(event, h11.Request):  # "head" is "HEAD" for Hypercorn: its answer has no body here either
            self._request_method = event.method.upper()
        return event


class Http1(H11Protocol):
    """A connection that stays with HTTP/1.1: who offers HTTP/2 is answered as if it had not.

    Hypercorn's HTTP/2 waits for ever for the window of a stream that is reset, or whose client is gone. It would also
    wait so with what is behind a request whose answer nobody takes: that is not heard any more.
    """

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.connection = _Requests(self.config)

    async def handle(self, event: ConnectionEvent) -> None:
        """As in Hypercorn."""
        await super().handle(event)
        if isinstance(event, Closed) and isinstance(self.connection, _Requests):
            self.connection.forget()
            await self.can_read.set()

    async def _check_protocol(self, event: h11.Request) -> None:
        """Nothing that is asked for changes the protocol."""


class Viewer(WSStream):
    """A WebSocket whose client is heard slowly, as all it has to say is that it is there, or goes.

    Hypercorn lets nobody else have a turn for a Pong, or for a part of a message that is empty. Who speaks before the
    answer is sent away: Hypercorn would refuse it, beside the answer that is on its way.
    """

    async def handle(self, event: Event) -> None:
        """As in Hypercorn."""
        if isinstance(event, Request) and not all(value.isascii() for name, value in event.headers if name in LISTS):
            self.closed = True  # as of one that is not valid; Hypercorn would end at it
            await self._send_error_response(400)
            return
        if not isinstance(event, Data):
            await super().handle(event)
            return
        if not self.handshake.accepted:
            await self.send(StreamClosed(self.stream_id))
            return
        for at in range(0, len(event.data), VIEWER_BYTES):
            await super().handle(Data(event.stream_id, event.data[at : at + VIEWER_BYTES]))
            if self.closed:
                return
            await trio.sleep(VIEWER_PAUSE)

    async def _send_error_response(self, status_code: int) -> None:
        """As in Hypercorn, with a sentence and the version that is spoken (RFC 6455 4.2.2); the connection ends."""
        body = msgspec.json.encode({"error": HANDSHAKE if status_code == 400 else HTTPStatus(status_code).phrase})
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"sec-websocket-version", b"13"),
            (b"connection", b"close"),
        ]
        await self.send(Response(self.stream_id, headers=headers, status_code=status_code))
        await self.send(Body(self.stream_id, body))
        await self.send(EndBody(self.stream_id))
        await self.send(StreamClosed(self.stream_id))


class Apps(TaskGroup):
    """The applications of a connection. What its client says waits for them, but not that it has gone.

    In Hypercorn that waits too, where ten messages already do: whoever says so may be an application that reads nothing
    more, and its connection would stay for good.
    """

    async def spawn_app(
        self, app: AppWrapper, config: Config, scope: Scope, send: Callable[[ASGISendEvent | None], Awaitable[None]]
    ) -> Callable[[ASGIReceiveEvent], Awaitable[None]]:
        """As in Hypercorn."""
        limit_stall(scope, STALL)  # until the application says otherwise; whatever the one before it said
        put, take = trio.open_memory_channel[ASGIReceiveEvent](config.max_app_queue_size)
        last: ASGIReceiveEvent | None = None

        async def heard() -> ASGIReceiveEvent:
            try:
                return await take.receive()
            except trio.EndOfChannel:
                assert last is not None
                return last

        async def tell(message: ASGIReceiveEvent) -> None:
            nonlocal last
            if message["type"] in ("http.disconnect", "websocket.disconnect"):
                last = message
                put.close()
                return
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):  # nobody reads it any more
                await put.send(message)

        async def run(scope: Scope, receive: Any, send: Any, sync_spawn: Any, call_soon: Any) -> None:
            with take:
                await app(scope, heard, send, sync_spawn, call_soon)

        await super().spawn_app(run, config, scope, send)
        return tell


def _limit_stall(stream: Any, seconds: float) -> None:
    with suppress(OSError):  # it has been closed
        link.limit_stall(stream, seconds)


class Connection(TCPServer):
    """A connection whose end is at once: whoever still sends finds it closed, which is no error.

    Hypercorn says that nothing more will come first, and waits for that; who sends meanwhile gets BusyResourceError.
    Of a client that has gone, it would wait for another request, as long as of one that is there.

    A bug ends the connection that meets it, and not all that is on air.

    room  for all of them; who finds no place in it is sent away without a word.
    """

    def __init__(self, room: link.Room, *given: Any) -> None:
        super().__init__(*given)
        self._room = room
        self.state = {**self.state, STALL_LIMIT: partial(_limit_stall, self.stream)}
        self._is_heard = True  # until nothing more can come

    async def run(self) -> None:
        """As in Hypercorn."""
        with self._room.place() as is_free:
            if is_free:
                try:
                    await super().run()
                except* Exception as group:
                    log.error("http: a connection: a bug", exc_info=group)

    async def _read_data(self) -> None:
        await super()._read_data()
        self._is_heard = False
        await self.idle_task.stop()

    async def _idle_timeout(self) -> None:
        if self._is_heard:  # or its last request was still being answered
            await super()._idle_timeout()

    async def _close(self) -> None:
        await self.stream.aclose()
