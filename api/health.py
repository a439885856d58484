"""Health: is it alive, what is the state of everything, what changes, and figures for Prometheus.

It decides how state is told to whom; it refuses to know what makes it good or bad.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, aclosing
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Final, NamedTuple, Self

import msgspec
import trio
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from quart import Blueprint, Response, request
from quart.wrappers.response import ResponseBody

from api.sse import COMMENT_EVERY, EVENT_STREAM, RETRY, STILL_HERE, message
from api.wire import Parameter, Route, json_response, whole_number
from engine import EngineStatus, News
from engine.errors import InvalidSpec
from engine.threads import in_thread

if TYPE_CHECKING:
    from engine import Engine

SHORTEST: Final = 100  # ms between two full states
PROMETHEUS: Final = "text/plain; version=0.0.4; charset=utf-8"


class Health(msgspec.Struct, frozen=True, rename="camel"):
    """Whether it serves. status: "ok" or "stopping"."""

    status: str
    uptime_ms: int


ROUTES: Final = [
    Route("GET", "/healthz", "200 while it serves, 503 while it stops", None, Health),
    Route("GET", "/status", "The state of everything", None, EngineStatus),
    Route(
        "GET",
        "/events",
        "Server-sent events: the state of everything (status), then what changes: stream (published, gone), event "
        "(on air), recording (recording), push (waiting, connecting, pushing, retrying); in the end event, recording, "
        "push and pull (failed, or else ended)",
        None,
        EVENT_STREAM,
        (Parameter("status", Annotated[int, msgspec.Meta(ge=SHORTEST)], "Repeats the state every so many ms"),),
    ),
    Route("GET", "/metrics", "Figures for Prometheus", None, "text/plain"),
]


def blueprint(engine: Engine) -> Blueprint:
    """The routes of this door."""
    routes = Blueprint("health", __name__)
    scraping = trio.CapacityLimiter(1)  # a scrape waits for the last one

    @routes.get("/healthz")
    async def health() -> Response:
        told = Health("stopping" if engine.stopping else "ok", engine.now() // 1_000_000)
        return json_response(told, 503 if engine.stopping else 200)

    @routes.get("/status")
    async def status() -> Response:
        return json_response(engine.status())

    @routes.get("/events")
    async def events() -> Response:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        every = _status_every()
        body = NewsBody(engine, status_every=every) if request.method == "GET" else b""
        response = Response(body, content_type=EVENT_STREAM, headers=headers)
        response.timeout = None
        return response

    @routes.get("/metrics")
    async def metrics() -> Response:
        text = await in_thread(partial(exposition, engine.status()), limiter=scraping)
        return Response(text, content_type=PROMETHEUS)

    return routes


def _status_every() -> float:
    """Seconds between two full states. Raises InvalidSpec."""
    every = whole_number(request.args.get, "status")
    if every is not None and every < SHORTEST:
        raise InvalidSpec(f"status {every} is not a number of ms from {SHORTEST} on", where="status")
    return float("inf") if every is None else every / 1000


# --- server-sent events ----------------------------------------------------------------------------------------------


class NewsBody(ResponseBody):
    """The state of everything, then what changes; a comment where nothing has for a while.

    A client that reads slowly holds nothing: the engine keeps the last news of each thing only. Ends when the engine
    stops.
    """

    def __init__(self, engine: Engine, *, status_every: float) -> None:
        self._engine = engine
        self._status_every = status_every
        self._stack = AsyncExitStack()
        self._send, self._receive = trio.open_memory_channel[News](0)
        self._status_at = self._comment_at = 0.0

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:  # a client that has gone by now leaves nothing behind
            nursery = await stack.enter_async_context(trio.open_nursery())
            stack.callback(nursery.cancel_scope.cancel)
            await nursery.start(self._follow)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, exc_type: type[BaseException], exc_value: BaseException, tb: TracebackType) -> None:
        await self._stack.__aexit__(exc_type, exc_value, tb)

    async def _follow(self, *, task_status: trio.TaskStatus[None]) -> None:
        """In a task of its own: who gives up waiting for an async generator's next item has ended it."""
        async with aclosing(self._engine.news()) as news:
            task_status.started()  # no pause from here to the subscription: nothing is missed after the first state
            async for each in news:
                await self._send.send(each)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._engine.stopping:
            raise StopAsyncIteration
        begins = self._comment_at == 0
        news = None if begins else await self._next_news()
        now = trio.current_time()
        self._comment_at = now + COMMENT_EVERY
        if news is not None:
            return message(news.subject, news)
        if begins or now >= self._status_at:
            self._status_at = now + self._status_every
            return (RETRY if begins else b"") + message("status", self._engine.status())
        return STILL_HERE

    async def _next_news(self) -> News | None:
        """None when it is time for the state or a comment."""
        with trio.move_on_at(min(self._status_at, self._comment_at)):
            return await self._receive.receive()
        return None


# --- Prometheus ------------------------------------------------------------------------------------------------------


Labels = dict[str, str]


class Figure(NamedTuple):
    """One metric: its name behind ``mashtun_``, what it says, and where it stands in a status struct.

    A name that ends in ``_total`` is a counter. scale: from the struct's unit to the metric's.
    """

    name: str
    says: str
    field: str
    scale: float = 1.0


_MS: Final = 0.001
STREAM: Final = (
    Figure("stream_uptime_seconds", "Since somebody began to publish; 0: nobody does", "uptime_ms", _MS),
    Figure("stream_age_seconds", "Since the last picture or, without pictures, sound", "age_ms", _MS),
    Figure("stream_readers", "Who follows it", "readers"),
    Figure("stream_dropped_total", "Packets that slow readers lost", "dropped"),
    Figure("stream_waiting", "Packets in the longest of its readers' queues", "waiting"),
    Figure("stream_publications_total", "How often somebody began to publish", "publications"),
)
TRACK: Final = (
    Figure("stream_packets_total", "Packets since it was last published", "packets"),
    Figure("stream_bytes_total", "Bytes since it was last published", "bytes"),
    Figure("stream_bits_per_second", "Over the last second", "bit_rate"),
    Figure("stream_packets_per_second", "Over the last second; of video, its frame rate", "frame_rate"),
)
STATE: Final = "state"  # of an event, pull, push or recording: a label, with 1 as its value
EVENT: Final = (
    Figure("event_state", "1 for the state that it is in", STATE),
    Figure("event_slots_total", "Slots since it was made", "slots"),
    Figure("event_latency_seconds", "From a slot's time to its mixing", "latency_ms", _MS),
)
MIXER: Final = (
    Figure("mixer_mixed_total", "Slots that were mixed", "mixed"),
    Figure("mixer_lagged_total", "Slots that were missed", "lagged"),
    Figure("mixer_held_total", "Pictures of sources shown again because nothing newer was there", "held"),
    Figure("mixer_late_p50_seconds", "How late the slots of the last seconds began, median", "late_p50_ms", _MS),
    Figure("mixer_late_p99_seconds", "How late the slots of the last seconds began, 99 %", "late_p99_ms", _MS),
    Figure("mixer_mix_seconds", "What the last slot took to mix", "mix_ms", _MS),
)
ENCODER: Final = (
    Figure("encoder_encoded_total", "Pictures encoded", "encoded"),
    Figure("encoder_skipped_total", "Pictures not encoded because the encoder was too slow", "skipped"),
    Figure("encoder_keyframes_total", "Keyframes among them", "keyframes"),
    Figure("encoder_encode_seconds", "What a picture of the last second took, mean", "encode_ms", _MS),
    Figure("encoder_encode_max_seconds", "What a picture of the last second took at most", "encode_max_ms", _MS),
    Figure("encoder_waiting", "Pictures waiting to be encoded", "waiting"),
)
SOURCE: Final = (
    Figure("source_shown_total", "Different pictures shown", "shown"),
    Figure("source_held_total", "Slots that showed a picture again whose time was over", "held"),
    Figure("source_dropped_total", "Pictures never shown: too many, or too late", "dropped"),
    Figure("source_missing_total", "Samples that were not there when they were asked for", "missing"),
    Figure("source_corrupt_total", "Packets that could not be decoded", "corrupt"),
    Figure("source_resyncs_total", "How often its clock was taken anew", "resyncs"),
    Figure("source_age_seconds", "Since its newest picture", "age_ms", _MS),
)
PULL: Final = (
    Figure("pull_state", "1 for the state that it is in", STATE),
    Figure("pull_retries_total", "How often the source was opened again", "retries"),
)
PUSH: Final = (
    Figure("push_state", "1 for the state that it is in", STATE),
    Figure("push_bytes_total", "Bytes sent", "bytes"),
    Figure("push_dropped_total", "Packets lost because the server was slow", "dropped"),
    Figure("push_waiting", "Packets waiting to be sent", "waiting"),
    Figure("push_connects_total", "How often it connected", "connects"),
)
RECORDING: Final = (
    Figure("recording_state", "1 for the state that it is in", STATE),
    Figure("recording_bytes", "Bytes in its files", "bytes"),
    Figure("recording_dropped_total", "Packets lost because the disk was slow", "dropped"),
    Figure("recording_waiting", "Packets waiting to be written", "waiting"),
    Figure("recording_duration_seconds", "Seconds in its files", "duration_ms", _MS),
)


def exposition(status: EngineStatus) -> bytes:
    """A status as Prometheus reads it, with the process's own figures. Worker thread: it reads /proc."""
    registry = CollectorRegistry()
    registry.register(StatusCollector(status))
    ProcessCollector(registry=registry)
    return generate_latest(registry)


class StatusCollector(Collector):
    """The figures of one status."""

    def __init__(self, status: EngineStatus) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        """All of them; those of things that are not there have no samples."""
        status = self._status
        yield GaugeMetricFamily("mashtun_uptime_seconds", "Since the engine was made", status.uptime_ms * _MS)
        streams = [({"stream": each.name}, each) for each in status.streams]
        kinds = [(name | {"kind": kind}, getattr(each, kind)) for name, each in streams for kind in ("video", "audio")]
        mixes = [({"event": each.name, "stream": mix.stream}, mix) for each in status.events for mix in each.sub_mixes]
        tables: list[tuple[tuple[Figure, ...], list[tuple[Labels, object]]]] = [
            (STREAM, list(streams)),
            (TRACK, [(labels, track) for labels, track in kinds if track is not None]),
            (EVENT, [({"event": each.name}, each) for each in status.events]),
            (MIXER, [(labels, mix.mixer) for labels, mix in mixes]),
            (ENCODER, [(labels, mix.encoder) for labels, mix in mixes]),
            (SOURCE, [(labels | {"source": name}, s) for labels, mix in mixes for name, s in mix.sources.items()]),
            (PULL, [({"stream": each.name}, each) for each in status.pulls]),
            (PUSH, [({"stream": each.stream, "id": each.id}, each) for each in status.pushes]),
            (RECORDING, [({"stream": each.stream, "id": each.id}, each) for each in status.recordings]),
        ]
        for figures, rows in tables:
            for figure in figures if rows else ():
                yield family(figure, rows)


def family(figure: Figure, rows: Sequence[tuple[Labels, object]]) -> Metric:
    """One metric with a sample for each struct that has it (not None)."""
    kind = CounterMetricFamily if figure.name.endswith("_total") else GaugeMetricFamily
    names = [*rows[0][0], *((STATE,) if figure.field == STATE else ())]
    made = kind(f"mashtun_{figure.name}", figure.says, labels=names)
    for labels, row in rows:
        value = getattr(row, figure.field)
        if figure.field == STATE:
            made.add_metric([*labels.values(), value], 1.0)
        elif value is not None:
            made.add_metric(list(labels.values()), value * figure.scale)
    return made
