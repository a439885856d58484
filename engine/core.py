"""Engine: everything that runs in a server, by name: streams, events, what is pulled, recorded, pushed; and its health.

It decides who owns what and what ends it; it refuses to know HTTP. The doors hold this object and nothing below it.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import closing
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Final, Generic, Protocol, TypeVar

import msgspec
import trio

from engine.clock import WallClock
from engine.config import Settings
from engine.errors import AlreadyExists, EngineError, InUse, NotFound, Overloaded, SourceUnavailable
from engine.event import Event, EventStatus, Surroundings
from engine.frame import VideoFrame
from engine.images import ImageInfo, Images
from engine.losses import Counted, Losses
from engine.newest import Newest
from engine.patternstream import PatternStream
from engine.resolver import Resolver
from engine.sinks.flow import FlvFlow, Fmp4Flow
from engine.sinks.hls import Hls
from engine.sinks.push import Push, PushStatus
from engine.sinks.record import Recording, RecordingStatus
from engine.sinks.snapshots import Snapshots
from engine.sources.decode import Decoders
from engine.sources.pull import Pull, PullStatus
from engine.sources.rtmp import serve_rtmp
from engine.spec import AudioFormat, EventSpec, PullSpec
from engine.stream import Hub, Stream, StreamStatus, check_name
from engine.threads import be_punctual
from engine.timebase import SECOND

log = logging.getLogger(__name__)

HLS_IDLE: Final = 60 * SECOND  # a playlist that nobody asks for is no longer made; longer than a request waits
# A second, more than there are segments of who publishes in real time: a playlist made later has higher ones, and …
HLS_NUMBERS: Final = 2
HLS_EPOCH: Final = 1_735_689_600  # … 2025, s: so has one of a server that was started again; 31 bits last until 2059
PICTURE_WAIT: Final = 5.0  # seconds for the first picture of a stream that nobody decodes
DISK_THREADS: Final = 8
KEPT: Final = 200  # recordings that are over and still listed
LOSSES_EVERY: Final = 1.0  # seconds between two looks at what was lost


class News(msgspec.Struct, frozen=True, rename="camel"):
    """Something has changed.

    subject, state  "stream": published, gone. "event": on air. "recording": recording. "push": waiting, connecting,
                    pushing, retrying. All of these but streams, and "pull", at the end: failed, or else ended.
    id              the name of a stream, pull or event; the id of a recording or push.
    stream          what is recorded or pushed; "" with the others.
    error           why it failed, or is tried again; "" otherwise.
    """

    subject: str
    id: str
    state: str
    stream: str = ""
    error: str = ""


class EngineStatus(msgspec.Struct, frozen=True, rename="camel"):
    """All of it at a moment."""

    uptime_ms: int
    events: list[EventStatus]
    streams: list[StreamStatus]
    pulls: list[PullStatus]
    recordings: list[RecordingStatus]
    pushes: list[PushStatus]


_Status = EventStatus | PullStatus | RecordingStatus | PushStatus


class _Actor(Protocol):
    async def run(self) -> None: ...

    def status(self) -> _Status: ...


A = TypeVar("A")
Reporting = TypeVar("Reporting", bound=_Actor)


class _Running(Generic[A]):
    """An actor in a task of its own: it can be cancelled, and waited for."""

    def __init__(self, actor: A) -> None:
        self.actor = actor
        self.scope = trio.CancelScope()
        self.ended = trio.Event()

    async def stop(self) -> None:
        """Cancels it and waits until it is gone."""
        self.scope.cancel()
        await self.ended.wait()


class Engine:
    """The root actor: `run` owns every other one. All else is called in the Trio thread, while it runs.

    strict  whether a bug in one actor ends the engine (tests), or only that actor (live).
    """

    def __init__(self, settings: Settings | None = None, *, strict: bool = False) -> None:
        # given
        self.settings = settings or Settings()
        self._strict = strict
        self._began = time.monotonic_ns()
        self._began_at = max(HLS_EPOCH * SECOND, time.time_ns())  # ns since 1970; the former: that clock is not set
        # owned by run()
        self._hub = Hub(self.now, changed=self._stream_changed)
        self._encoding = trio.CapacityLimiter(64)
        self._snapshots = Snapshots()
        self._disk = trio.CapacityLimiter(DISK_THREADS)  # for recordings alone: who writes later loses packets
        self._nursery: trio.Nursery | None = None
        self._decoders = Decoders(self._hub, self.settings, strict=strict)
        self._images = Images(Path(self.settings.data) / "images")
        self._around = Surroundings(
            self._hub, self._decoders, self._images, self.settings, self._encoding, partial(WallClock, self.now)
        )
        self._events: dict[str, _Running[Event]] = {}
        self._pulls: dict[str, _Running[Pull | PatternStream]] = {}
        self._recordings: dict[str, _Running[Recording]] = {}
        self._pushes: dict[str, _Running[Push]] = {}
        self._forwards: dict[str, list[PushStatus]] = {}  # of events, by name: the pushes that they asked for
        self._hls: dict[str, _Running[Hls]] = {}
        self._news: set[Newest[tuple[str, str], News]] = set()  # of subjects and ids
        self._serial = 0
        # read by anyone (snapshot)
        self.rtmp_port = 0
        self.stopping = False

    def now(self) -> int:
        """ns since the engine was made; monotonic."""
        return time.monotonic_ns() - self._began

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Runs until cancelled; what is open then is cut off: call `close` before."""
        be_punctual()
        trio.socket.set_custom_hostname_resolver(Resolver())
        with closing(self._snapshots):
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._decoders.run)
                nursery.start_soon(self._images.run)
                nursery.start_soon(self._end_idle_playlists)
                nursery.start_soon(self._log_losses)
                if self.settings.rtmp_port >= 0:
                    self.rtmp_port = await nursery.start(self._serve_rtmp)
                task_status.started()

    async def _serve_rtmp(self, *, task_status: trio.TaskStatus[int]) -> None:
        await serve_rtmp(
            self._hub,
            host=self.settings.host,
            port=self.settings.rtmp_port,
            publish_key=self.settings.publish_key,
            task_status=task_status,
        )

    async def close(self) -> None:
        """Ends events and recordings in good order, within a few seconds; then `run` may be cancelled."""
        self.stopping = True
        async with trio.open_nursery() as nursery:
            for event in self.events():
                nursery.start_soon(event.close)
        async with trio.open_nursery() as nursery:
            for running in list(self._recordings.values()):
                running.actor.stop()
                nursery.start_soon(running.ended.wait)

    def _start(self, subject: str, name: str, actor: Reporting) -> _Running[Reporting]:
        """Runs an actor beside the others; how it ended is news."""

        async def run() -> None:
            try:
                await actor.run()
            finally:
                self._tell_of(subject, name, actor.status(), "ended")

        return self._run(subject, name, actor, run)

    def _run(self, subject: str, name: str, actor: A, run: Callable[[], Awaitable[None]]) -> _Running[A]:
        running = _Running(actor)
        self._root(name).start_soon(self._guard, subject, name, run, running)
        return running

    def _root(self, name: str) -> trio.Nursery:
        """Where actors run. Raises Overloaded while none may begin."""
        if self._nursery is None or self.stopping:
            raise Overloaded("the engine is not running", where=name)
        return self._nursery

    async def _guard(self, subject: str, name: str, run: Callable[[], Awaitable[None]], running: _Running[A]) -> None:
        try:
            with running.scope:
                await run()
        except EngineError as err:
            log.warning("%s %s: %s", subject, name, err)
        except Exception:  # a bug in one actor must not end the show of the others
            log.exception("%s %s: ended by a bug", subject, name)
            if self._strict:
                raise
        finally:
            running.ended.set()

    def _next_id(self) -> str:
        self._serial += 1
        return str(self._serial)

    # Events

    async def create_event(self, spec: EventSpec) -> Event:
        """Begins to mix: black and silence until the first `put`. Raises AlreadyExists, InvalidSpec, Overloaded."""
        self._root(spec.name)  # what is made publishes at once, also if nothing may run it
        if spec.name in self._events:
            raise AlreadyExists(f'event "{spec.name}" exists', where=spec.name)
        event = Event(spec, self._around)
        self._events[spec.name] = self._start("event", spec.name, event)
        log.info("event %s: on air as %s", spec.name, spec.stream())
        self._tell(News("event", spec.name, event.state))
        if spec.forward is not None:
            forwards = self._forwards[spec.name] = []
            try:
                for stream in (spec.stream(n) for n in range(spec.sub_mixes)):
                    url = f"rtmp://{spec.forward}:{self.settings.forward_port}/{stream}"
                    forwards.append(await self.add_push(stream, url))
            except EngineError:
                await self.delete_event(spec.name)
                raise
        await trio.lowlevel.checkpoint()
        return event

    def event(self, name: str) -> Event:
        """Raises NotFound."""
        if name not in self._events:
            raise NotFound("event", name)
        return self._events[name].actor

    def events(self) -> list[Event]:
        """All of them, in the order they were made."""
        return [running.actor for running in self._events.values()]

    async def delete_event(self, name: str) -> None:
        """Ends it; returns when what was mixed is published, and its pushes had their chance. Raises NotFound."""
        running = self._events.get(name)
        if running is None:
            raise NotFound("event", name)
        with trio.CancelScope(shield=True):  # who asked may hang up; it ends all the same
            await running.actor.close()
            await running.stop()
            if self._events.get(name) is not running:  # somebody else has ended it
                return
            del self._events[name]
            for push in self._forwards.pop(name, ()):
                if push.id in self._pushes:  # nobody else has removed it
                    await self.remove_push(push.stream, push.id)
            log.info("event %s: over", name)

    # Streams

    def streams(self) -> list[StreamStatus]:
        """Every stream that somebody publishes or reads."""
        return [stream.status() for stream in self._hub.streams()]

    def check_published(self, stream: str) -> None:
        """Raises NotFound when nobody publishes it."""
        self._hub.published(stream)

    def pulls(self) -> list[PullStatus]:
        """Every source that is fetched or made by the engine itself."""
        return [running.actor.status() for _, running in sorted(self._pulls.items())]

    async def put_source(self, name: str, spec: PullSpec) -> None:
        """Fetches or makes a stream from now on, in place of the source of that name, if there was one.

        Raises InvalidSpec, AlreadyExists (somebody else publishes it), Overloaded.
        """
        check_name(name)
        actor = (
            Pull(self._hub, name, spec, self.settings)
            if spec.pattern is None
            else PatternStream(self._hub, name, spec.pattern, limiter=self._encoding)
        )
        self._check_room(name)  # before: what is refused ends nothing
        while name in self._pulls:  # somebody else may put one while this waits
            await self._end_pull(name)
            self._check_room(name)
        self._pulls[name] = self._start("pull", name, actor)

    def _check_room(self, name: str) -> None:
        """Whether a source may begin, in place of that of its name. Raises AlreadyExists, Overloaded."""
        self._root(name)
        old = self._pulls.get(name)
        if self._hub.is_published(name) and (old is None or old.actor.status().state != "publishing"):
            raise AlreadyExists(f'stream "{name}" is already published', where=name)
        if old is None and len(self._pulls) >= self.settings.max_streams:
            raise Overloaded(f"there are {len(self._pulls)} sources already", where=name)

    async def remove_stream(self, name: str) -> None:
        """Ends a source, and shows who else publishes its name the door.

        Raises NotFound; InUse for a mix that no source has the name of: its event must be deleted.
        """
        is_source = name in self._pulls
        if self._hub.is_published(name) or not is_source:  # looked at before the source ends: the next may come then
            publication = self._hub.published(name).publication
            assert publication is not None
            publisher = publication.publisher
            if publisher.stop is not None:  # it came by RTMP
                publisher.stop()
            elif not is_source:  # who pulls, or makes a pattern, is among _pulls meanwhile
                raise InUse(f'stream "{name}" is the mix of event "{publisher.peer}"', where=name)
        if is_source:
            await self._end_pull(name)

    async def _end_pull(self, name: str) -> None:
        found = self._pulls[name]
        with trio.CancelScope(shield=True):  # who asked may hang up; it ends all the same
            await found.stop()
        if self._pulls.get(name) is found:  # nobody else has ended it, and put another
            del self._pulls[name]

    # Outputs

    async def start_recording(self, stream: str) -> RecordingStatus:
        """Writes a stream into a file of the data folder from the next keyframe on. Raises NotFound, Overloaded."""
        self._hub.published(stream)
        active = [running for running in self._recordings.values() if not running.ended.is_set()]
        if len(active) >= self.settings.max_recordings:
            raise Overloaded(f"there are {len(active)} recordings running", where=stream)
        number = self._next_id()
        name = re.sub(r"[^A-Za-z0-9._-]+", "_", stream)[:100].lstrip(".")  # a hidden file is fetched by nobody
        path = (
            Path(self.settings.data)
            / "recordings"
            / f"{name}_{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}_{number}.mp4"
        )
        recording = Recording(self._hub, stream, path, id=number, limiter=self._disk)
        self._recordings[number] = self._start("recording", number, recording)
        self._tell_of("recording", number, recording.status(), "recording")
        over = [key for key, running in self._recordings.items() if running.ended.is_set()]
        for key in over[:-KEPT]:
            del self._recordings[key]
        return recording.status()

    async def stop_recording(self, stream: str, id: str) -> RecordingStatus:  # noqa: A002
        """Ends a recording; returns when the file is whole. Raises NotFound."""
        found = self._recordings.get(id)
        if found is None or found.actor.status().stream != stream:
            raise NotFound("recording", f"{stream}/{id}")
        found.actor.stop()
        await found.ended.wait()
        return found.actor.status()

    def recordings(self, stream: str | None = None) -> list[RecordingStatus]:
        """Of one stream or all; the last ones that are over too."""
        states = [running.actor.status() for running in self._recordings.values()]
        return [status for status in states if stream in (None, status.stream)]

    async def add_push(self, stream: str, url: str) -> PushStatus:
        """Sends a stream to an RTMP server, for ever. Raises InvalidSpec, Overloaded; a stream may come later."""
        check_name(stream)
        if len(self._pushes) >= self.settings.max_pushes:
            raise Overloaded(f"there are {len(self._pushes)} pushes already", where=stream)
        number = self._next_id()
        push = Push(self._hub, stream, url, id=number, changed=lambda: self._tell_of("push", number, push.status()))
        self._pushes[number] = self._start("push", number, push)
        return push.status()

    async def remove_push(self, stream: str, id: str) -> None:  # noqa: A002
        """Ends it. Raises NotFound."""
        found = self._pushes.get(id)
        if found is None or found.actor.status().stream != stream:
            raise NotFound("push", f"{stream}/{id}")
        await found.stop()
        self._pushes.pop(id, None)

    def pushes(self, stream: str | None = None) -> list[PushStatus]:
        """Of one stream or all."""
        states = [running.actor.status() for running in self._pushes.values()]
        return [status for status in states if stream in (None, status.stream)]

    async def picture(self, stream: str) -> bytes:
        """A JPEG of the current picture. Raises NotFound; SourceUnavailable when none comes for a while."""
        self._hub.published(stream)
        frame = next((shown for event in self.events() if (shown := event.picture(stream)) is not None), None)
        frame = frame or await self._decoded(stream)
        return await self._snapshots.jpeg(stream, frame)

    async def _decoded(self, stream: str) -> VideoFrame:
        source = self._decoders.open(stream, AudioFormat(), epoch=Fraction(0))
        try:
            with trio.move_on_after(PICTURE_WAIT):
                while True:
                    t = Fraction(self.now(), SECOND)
                    source.attend(picture=t, sound=None)
                    frame = source.pick(t, Fraction(0)).frame
                    if frame is not None:
                        return frame
                    await trio.sleep(0.02)
        finally:
            source.close()
        raise SourceUnavailable(f'stream "{stream}": no picture for {PICTURE_WAIT:g} s', where=stream)

    def has_hls(self, stream: str) -> bool:
        """Whether `hls` would find it."""
        return stream in self._hls or self._hub.is_published(stream)

    def hls(self, stream: str) -> Hls:
        """The playlist of a stream; made from the first call on, until nobody asks for it. Raises NotFound.

        One that has ended, since nobody publishes any more, says so until then, or until somebody publishes again.
        """
        found = self._hls.get(stream)
        if found is None or (found.ended.is_set() and self._hub.is_published(stream)):
            self._hub.published(stream)
            since = self._began_at + self.now() - HLS_EPOCH * SECOND
            made = Hls(self._hub, stream, first=since * HLS_NUMBERS // SECOND, zero=self._began_at)
            found = self._hls[stream] = self._run("playlist", stream, made, made.run)
        return found.actor

    async def _end_idle_playlists(self) -> None:
        while True:
            await trio.sleep(HLS_IDLE / SECOND / 6)
            for name, running in list(self._hls.items()):
                if self.now() - running.actor.last_used > HLS_IDLE:
                    running.scope.cancel()
                    del self._hls[name]

    def flv(self, stream: str) -> FlvFlow:
        """A stream as FLV; a context manager. Raises NotFound."""
        return FlvFlow(self._hub.read(stream, must_exist=True))

    def fmp4(self, stream: str) -> Fmp4Flow:
        """A stream as fragmented MP4; a context manager. Raises NotFound."""
        return Fmp4Flow(self._hub.read(stream, must_exist=True))

    # Images

    async def add_image(self, filename: str, data: bytes) -> str:
        """Keeps an uploaded image; returns its name. Raises InvalidSpec, Overloaded."""
        return await self._images.add(filename, data)

    async def images(self) -> list[ImageInfo]:
        """All of them."""
        return await self._images.infos()

    async def remove_image(self, filename: str) -> None:
        """Raises NotFound."""
        await self._images.remove(filename)

    # Health

    def status(self) -> EngineStatus:
        """Everything, now."""
        return EngineStatus(
            uptime_ms=self.now() // 1_000_000,
            events=[event.status() for event in self.events()],
            streams=self.streams(),
            pulls=self.pulls(),
            recordings=self.recordings(),
            pushes=self.pushes(),
        )

    async def _log_losses(self) -> None:
        """Of what loses something, one line a second for as long as it does."""
        losses, looked = Losses(), trio.current_time()
        while True:
            await trio.sleep(LOSSES_EVERY)
            now = trio.current_time()
            for lost in losses.since(self._counted()):
                log.warning("%s in %.0f s", lost, max(1.0, now - looked))
            looked = now

    def _counted(self) -> Counted:
        counted = {f"event {event.spec.name}": event.lost() for event in self.events()}
        counted |= {
            f"stream {stream.name}": {"packets lost by slow readers": stream.dropped} for stream in self._hub.streams()
        }
        counted |= {f"{push.stream}: push {push.id}": {"packets dropped": push.dropped} for push in self.pushes()}
        counted |= {
            f"{each.stream}: recording {each.id}": {"packets dropped": each.dropped} for each in self.recordings()
        }
        return counted

    async def news(self) -> AsyncGenerator[News]:
        """What changes from now on; of several changes of one thing that were not read yet the last one counts."""
        newest = Newest[tuple[str, str], News]()
        self._news.add(newest)
        try:
            while True:
                for each in await newest.take():
                    yield each
        finally:
            self._news.discard(newest)

    def _stream_changed(self, stream: Stream) -> None:
        if stream.publication is None:
            state = "gone"
            log.info("stream %s: gone", stream.name)
        else:
            state, publisher = "published", stream.publication.publisher
            log.info("stream %s: published (%s)", stream.name, f"{publisher.kind} {publisher.peer}".strip())
        self._tell(News("stream", stream.name, state))

    def _tell_of(self, subject: str, name: str, status: _Status, state: str = "") -> None:
        """Tells the state of an actor: "failed", or else what it is called here."""
        state = status.state if status.state == "failed" else state or status.state
        stream = status.stream if isinstance(status, RecordingStatus | PushStatus) else ""
        self._tell(News(subject, name, state, stream, status.error if state in ("failed", "retrying") else ""))

    def _tell(self, news: News) -> None:
        for newest in self._news:
            newest.put((news.subject, news.id), news)
