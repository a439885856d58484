"""Our own door to streams: what there is, what the engine pulls or makes itself, what is recorded and pushed.

It decides addresses and answers; it refuses to know how a stream comes and goes. A stream's name may have any number of
segments; below ``NAME/recordings`` and ``NAME/pushes`` are the recordings and pushes of NAME: a stream of a name that
ends in one of these, or in one and an ID, could not be ended here, so none is made. One that is published or mixed
under it plays, and ends as it began.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
import trio
from quart import Blueprint, Response, request
from werkzeug.datastructures import Headers

from api.asgi import file_answer
from api.wire import Route, decode, json_response, read_body
from engine import PullSpec, PullStatus, PushStatus, RecordingStatus, StreamStatus
from engine.errors import InvalidSpec, NotFound
from engine.fetch import file_in
from engine.threads import in_thread

if TYPE_CHECKING:
    from engine import Engine

PREFIX: Final = "/streams/1.0"
STREAM: Final = f"{PREFIX}/<path:name>"
DISK_THREADS: Final = 4
_TAKEN: Final = re.compile(r"(.+)/(recordings|pushes)(/[^/]+)?")  # names that are other routes' addresses


class StreamEntry(StreamStatus, frozen=True, kw_only=True, rename="camel"):
    """A stream, and how it is pulled, recorded and pushed; publisher is null while a pulled one is away."""

    pull: PullStatus | None
    recordings: list[RecordingStatus]
    pushes: list[PushStatus]


class PushRequest(msgspec.Struct, frozen=True):
    """Where to push to: ``rtmp://host/app/name``."""

    url: str


class Nothing(msgspec.Struct, frozen=True):
    """An empty object."""


_ONE: Final = f"{PREFIX}/{{name}}"
ROUTES: Final = [
    Route("GET", f"{PREFIX}/", "Every stream", None, list[StreamEntry]),
    Route("GET", _ONE, "One stream", None, StreamEntry),
    Route(
        "PUT",
        _ONE,
        "Pull it from a URL, or make it as a pattern: 201, or 200 in place of another; not as …/recordings or …/pushes",
        PullSpec,
        StreamEntry,
    ),
    Route("DELETE", _ONE, "End what is pulled, and show who publishes it the door", None, Nothing),
    Route("POST", f"{_ONE}/recordings", "Record it from its next keyframe on", None, RecordingStatus),
    Route("GET", f"{_ONE}/recordings", "Its recordings", None, list[RecordingStatus]),
    Route("DELETE", f"{_ONE}/recordings", "End all of them", None, list[RecordingStatus]),
    Route("DELETE", f"{_ONE}/recordings/{{id}}", "End one; its files are whole then", None, RecordingStatus),
    Route("POST", f"{_ONE}/pushes", "Push it to an RTMP server, for ever", PushRequest, PushStatus),
    Route("GET", f"{_ONE}/pushes", "Where it is pushed to", None, list[PushStatus]),
    Route("DELETE", f"{_ONE}/pushes/{{id}}", "End a push", None, Nothing),
    Route("GET", "/recordings/{file}", "A recorded file, or a range of it", None, "video/mp4"),
]


def blueprint(engine: Engine) -> Blueprint:
    """The routes of this door."""
    routes = Blueprint("streams", __name__)

    @routes.get(f"{PREFIX}/")
    async def every() -> Response:
        return json_response(entries(engine))

    @routes.get(STREAM)
    async def one(name: str) -> Response:
        return json_response(entry(engine, name))

    @routes.put(STREAM)
    async def put(name: str) -> Response:
        if taken := _TAKEN.fullmatch(name):
            sentence = f'no stream can be made as "{name[:80]}": the {taken[2]} of "{taken[1][:80]}" are there'
            raise InvalidSpec(sentence, where="name")
        spec = decode(await read_body(request), PullSpec)
        replaced = any(pull.name == name for pull in engine.pulls())
        await engine.put_source(name, spec)
        return json_response(entry(engine, name), 200 if replaced else 201)

    @routes.delete(STREAM)
    async def remove(name: str) -> Response:
        await engine.remove_stream(name)
        return json_response(Nothing())

    _add_recordings(routes, engine)
    _add_pushes(routes, engine)
    return routes


def _add_recordings(routes: Blueprint, engine: Engine) -> None:
    disk = trio.CapacityLimiter(DISK_THREADS)
    folder = Path(engine.settings.data) / "recordings"

    @routes.post(f"{STREAM}/recordings")
    async def record(name: str) -> Response:
        return json_response(await engine.start_recording(name), 201)

    @routes.get(f"{STREAM}/recordings")
    async def recordings(name: str) -> Response:
        return json_response(engine.recordings(name))

    @routes.delete(f"{STREAM}/recordings")
    async def stop_all(name: str) -> Response:
        async with trio.open_nursery() as nursery:
            for each in engine.recordings(name):
                nursery.start_soon(engine.stop_recording, name, each.id)
        return json_response(engine.recordings(name))

    @routes.delete(f"{STREAM}/recordings/<id>")
    async def stop(name: str, id: str) -> Response:  # noqa: A002
        return json_response(await engine.stop_recording(name, id))

    @routes.get("/recordings/<file>")
    async def fetch(file: str) -> Response:
        path = await in_thread(file_in, [folder], file, limiter=disk)
        if path is None or file.startswith("."):
            raise NotFound("recording", file)
        answer = await file_answer(request, path, limiter=disk)
        kind = [] if answer.status == 304 else [("Content-Type", answer.kind)]
        response = Response(answer.body, answer.status)
        response.headers = Headers([*answer.headers, *kind])
        response.timeout = None
        return response


def _add_pushes(routes: Blueprint, engine: Engine) -> None:
    @routes.post(f"{STREAM}/pushes")
    async def push(name: str) -> Response:
        asked = decode(await read_body(request), PushRequest)
        return json_response(await engine.add_push(name, asked.url), 201)

    @routes.get(f"{STREAM}/pushes")
    async def pushes(name: str) -> Response:
        return json_response(engine.pushes(name))

    @routes.delete(f"{STREAM}/pushes/<id>")
    async def end(name: str, id: str) -> Response:  # noqa: A002
        await engine.remove_push(name, id)
        return json_response(Nothing())


def entries(engine: Engine) -> list[StreamEntry]:
    """Every stream that somebody publishes, reads, or that is pulled; by name."""
    status = engine.status()
    streams = {each.name: each for each in status.streams}
    pulls = {each.name: each for each in status.pulls}
    return [
        StreamEntry(
            **msgspec.structs.asdict(streams.get(name) or _away(name)),
            pull=pulls.get(name),
            recordings=[each for each in status.recordings if each.stream == name],
            pushes=[each for each in status.pushes if each.stream == name],
        )
        for name in sorted(streams.keys() | pulls.keys())
    ]


def _away(name: str) -> StreamStatus:
    """A stream that is pulled and not there, and that nobody waits for."""
    return StreamStatus(
        name=name,
        publisher=None,
        peer="",
        uptime_ms=0,
        video=None,
        audio=None,
        age_ms=None,
        readers=0,
        dropped=0,
        waiting=0,
        publications=0,
    )


def entry(engine: Engine, name: str) -> StreamEntry:
    """One of them. Raises NotFound."""
    found = [each for each in entries(engine) if each.name == name]
    if not found:
        raise NotFound("stream", name)
    return found[0]
