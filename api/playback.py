"""Playback: every stream as FLV, HLS, fragmented MP4 over a WebSocket and a still picture, for players on HTTP.

It decides addresses, types, caching, and when a client that takes nothing is given up; it refuses to know what is in a
stream.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import msgspec
import trio
from quart import Blueprint, Response, request, websocket
from quart.wrappers.response import ResponseBody

from api.asgi import Refusal, limit_stall
from api.wire import CASTS, Natural, Parameter, Route, whole_number
from engine.errors import EngineError, SinkRejected

if TYPE_CHECKING:
    from engine import Engine, Flow, Fmp4Flow

STALL: Final = 10.0  # seconds; a client that takes nothing for so long is not watching any more
SLICE: Final = 1 << 16  # bytes that are sent at a time: whoever takes these within STALL is watching, slow or not
ENDED, UNPLAYABLE, TOO_SLOW = 1000, 1003, 1008  # RFC 6455 7.4.1
MAX_REASON: Final = 60  # characters; a WebSocket's reason has at most 123 bytes of UTF-8
PLAYLIST: Final = "application/vnd.apple.mpegurl"
MP4: Final = "video/mp4"
FLV: Final = "video/x-flv"
_NO_STORE: Final = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
# Enough for a cache in front of many players.
_SEGMENT: Final = {"Cache-Control": "max-age=5"}

_BLOCKING: Final = (
    Parameter("_HLS_msn", Natural, "Waits for the segment of this number"),
    Parameter("_HLS_part", Natural, "Waits for this part of it"),
)
ROUTES: Final = [
    Route("GET", "/{name}.flv", "The stream as FLV, from its last keyframe on, until it ends", None, FLV),
    Route("GET", "/{name}/index.m3u8", "Low-latency HLS", None, PLAYLIST, _BLOCKING),
    Route("GET", "/{name}/init_{k}.mp4", "The k-th initialisation segment of its HLS", None, MP4),
    Route("GET", "/{name}/seg_{n}.m4s", "Segment n of its HLS", None, MP4),
    Route("GET", "/{name}/part_{n}_{k}.m4s", "Part k of segment n; waits for the next one", None, MP4),
    Route("GET", "/{name}.jpg", "What the stream shows now", None, "image/jpeg"),
    Route(
        "GET",
        "/{name}.ws",
        'A WebSocket: {"mime": …, "leftOut": …}, then slices of fragmented MP4; 426 to who asks for none',
        None,
        None,
        success="101",
    ),
]


class FlowBody(ResponseBody):
    """The body of a response, in slices, that ends with its stream, or when its client has taken nothing for STALL.

    The flow is opened when the response is sent, so that a client that is gone by then leaves nothing behind.
    """

    def __init__(self, opened: Callable[[], Flow]) -> None:
        self._opened = opened
        self._flow: Flow | None = None
        self._slices: Iterator[bytes] = iter(())
        self._given = trio.current_time()

    async def __aenter__(self) -> Self:
        try:
            self._flow = self._opened().__enter__()
        except EngineError:  # the stream ended since it was looked up
            self._flow = None
        self._given = trio.current_time()
        return self

    async def __aexit__(self, exc_type: type[BaseException], exc_value: BaseException, tb: TracebackType) -> None:
        if self._flow is not None:
            self._flow.__exit__(exc_type, exc_value, tb)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._flow is None or trio.current_time() - self._given > STALL:
            raise StopAsyncIteration
        data = next(self._slices, b"")
        if not data:
            try:
                self._slices = _sliced(await self._flow.receive())
            except (trio.EndOfChannel, SinkRejected):
                raise StopAsyncIteration from None
            data = next(self._slices)
        self._given = trio.current_time()
        return data


def _sliced(data: bytes) -> Iterator[bytes]:
    return (data[at : at + SLICE] for at in range(0, len(data), SLICE))


def blueprint(engine: Engine) -> Blueprint:
    """The routes of this door. They come last: a static first segment (``/streams/…``) always wins over a name."""
    routes = Blueprint("playback", __name__)

    @routes.get("/<path:name>.flv")
    async def flv(name: str) -> Response:
        engine.check_published(name)
        if request.method == "GET":
            limit_stall(request.scope, STALL)
            response = Response(FlowBody(lambda: engine.flv(name)), content_type=FLV, headers=_NO_STORE)
        else:  # HEAD: a body without an end would never be over, nor has it a length
            response = Response(b"", content_type=FLV, headers=_NO_STORE)
            del response.content_length
        response.timeout = None
        return response

    @routes.get("/<path:name>.jpg")
    async def picture(name: str) -> Response:
        return Response(await engine.picture(name), content_type="image/jpeg", headers=_NO_STORE)

    @routes.get("/<path:name>.ws")
    async def plainly(name: str) -> Response:
        raise Refusal(426, "this is a WebSocket", [("Upgrade", "websocket"), ("Connection", "Upgrade")])

    @routes.websocket("/<path:name>.ws")
    async def fmp4(name: str) -> None:
        limit_stall(websocket.scope, STALL)
        with engine.fmp4(name) as flow:
            await websocket.accept()  # by hand: what is closed before its first message would be refused
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_ignore_messages)
                code, reason = await _send_flow(flow)
                with trio.move_on_after(STALL):
                    await websocket.close(code, reason)
                nursery.cancel_scope.cancel()

    _add_hls(routes, engine)
    return routes


def _add_hls(routes: Blueprint, engine: Engine) -> None:
    """Also of casts, at addresses of their own: ``/hls/ID/index.m3u8``, whatever the playlist is called there.

    Streams of an RTMP app that is called hls have the same addresses, and come second: publishers choose their names.
    """

    def stream(name: str) -> str:
        if not request.path.startswith("/hls/"):
            return name
        key = name.removeprefix("hls/")
        cast = f"{CASTS}/{key}"
        return cast if engine.has_hls(cast) else f"hls/{key}"

    async def playlist(name: str, file: str = "") -> Response:
        msn, part = whole_number(request.args.get, "_HLS_msn"), whole_number(request.args.get, "_HLS_part")
        text = await engine.hls(stream(name)).playlist(msn=msn, part=part)
        return Response(text, content_type=PLAYLIST, headers={"Cache-Control": "no-cache"})

    async def init(name: str, k: int) -> Response:
        return Response(engine.hls(stream(name)).init(k), content_type=MP4, headers=_SEGMENT)

    async def segment(name: str, n: int) -> Response:
        return Response(engine.hls(stream(name)).segment(n), content_type=MP4, headers=_SEGMENT)

    async def part(name: str, n: int, k: int) -> Response:
        return Response(await engine.hls(stream(name)).part(n, k), content_type=MP4, headers=_SEGMENT)

    routes.get("/<path:name>/index.m3u8")(playlist)
    routes.get("/<path:name>/init_<int:k>.mp4")(init)
    routes.get("/<path:name>/seg_<int:n>.m4s")(segment)
    routes.get("/<path:name>/part_<int:n>_<int:k>.m4s")(part)
    routes.get("/hls/<name>/<file>.m3u8", endpoint="cast_playlist")(playlist)


async def _ignore_messages() -> None:
    """Reads on, so that a client's going away is noticed behind whatever it sent."""
    while True:
        await websocket.receive()


async def _send_flow(flow: Fmp4Flow) -> tuple[int, str]:
    """Sends until the stream ends or the client takes nothing for too long; returns what it is closed with."""
    mime = left_out = ""
    while True:
        try:
            data = await flow.receive()
        except trio.EndOfChannel:
            return ENDED, "the stream has ended"
        except SinkRejected as err:
            return UNPLAYABLE, str(err)[:MAX_REASON]
        messages: list[str | bytes] = list(_sliced(data))
        if flow.mime != mime:
            mime, left_out = flow.mime, flow.left_out
            messages.insert(0, msgspec.json.encode({"mime": mime, "leftOut": left_out}).decode())
        elif flow.left_out != left_out:  # without a MIME type: what follows does not begin anew
            left_out = flow.left_out
            messages.insert(0, msgspec.json.encode({"leftOut": left_out}).decode())
        for message in messages:
            with trio.move_on_after(STALL) as scope:
                await websocket.send(message)
            if scope.cancel_called:
                return TOO_SLOW, f"nothing was taken for {STALL:g} s"
