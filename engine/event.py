"""A live event: a mixer for each of its sub-mixes, on the same slots, each with one encoder that publishes a stream.

It decides when a change takes effect and what an event's health is; it refuses to know which dialect asked for it.
"""

from __future__ import annotations

import logging
from collections.abc import Container, Mapping, Sequence
from fractions import Fraction
from typing import Final, NamedTuple, Protocol

import msgspec
import trio

from engine.clock import Clock, Pace
from engine.compositor import Compositor
from engine.config import Settings
from engine.errors import EngineError, InvalidTree, NotFound, first_error
from engine.frame import VideoFrame
from engine.images import Images
from engine.mixer import AHEAD, Mixer, MixerStatistics, Reader
from engine.morph import EASING, EASINGS, Morph
from engine.plan import Picture, Place
from engine.program import Coming, Held, Program, Stack, Switch
from engine.sinks.encode import lead_of
from engine.sinks.publish import SinkStatistics, StreamSink
from engine.sources.decode import NICE, Decoders
from engine.sources.live import LiveSource, SourceStatistics
from engine.sources.own import OwnSource
from engine.sources.places import uses
from engine.sources.reel import Reel
from engine.spec import EventSpec
from engine.stream import Hub, Publisher
from engine.threads import Threads
from engine.timebase import SECOND, nanoseconds, tick_count
from engine.tree import AudioSourceNode, RenderTree, VideoSourceNode, walk

log = logging.getLogger(__name__)

LINGER: Final = 5 * SECOND  # a source that no tree names stays open for this long: operators go back and forth
DRAWING: Final = 0.02  # seconds that a tick waits for new texts and shapes; those that take longer come later
LEAD: Final = SECOND // 2  # that a program with files comes on later: to open some, and decode their first pictures
FILE_THREADS: Final = 8  # of one sub-mix: some may wait for slow disks
FORESIGHT: Final = Fraction(1, 2)  # how much later than its slot somebody may look
FLUSH: Final = 2.0  # seconds that the outputs of an event have to take what is left
FOREVER: Final = 1 << 62  # ticks
AAC_DELAY: Final = 3072  # samples: a packet of sound is there three frames after its first sample at the latest
ENCODING: Final = Fraction(3, 100)  # seconds that encoding a picture may take without its mix becoming later for others


class MakeClock(Protocol):
    """Makes the clock of a mixer; `epoch` and `latency` in ns."""

    def __call__(self, *, epoch: int, latency: int) -> Clock: ...


class Surroundings(NamedTuple):
    """What the events of an engine share. limiter: of the threads that encode; clock: makes that of each mixer."""

    hub: Hub
    decoders: Decoders
    images: Images
    settings: Settings
    limiter: trio.CapacityLimiter
    clock: MakeClock


class SubMixStatus(msgspec.Struct, frozen=True, rename="camel"):
    """One sub-mix: the stream it publishes, and how its mixer, its encoder and its sources are doing."""

    stream: str
    mixer: MixerStatistics
    encoder: SinkStatistics
    sources: dict[str, SourceStatistics]


class EventStatus(msgspec.Struct, frozen=True, rename="camel"):
    """An event at a moment. state: "on air", "failed" (with the error), "closed"."""

    name: str
    state: str
    error: str
    width: int
    height: int
    frame_rate: float
    latency_ms: int  # that it has, which may be more than was asked for: see EventSpec.latency
    slots: int  # since it was made
    sub_mixes: list[SubMixStatus]


class Event:
    """Mixes until it is closed. `run` is its actor; made in the Trio thread, it publishes from its making on.

    Raises, when made, AlreadyExists (one of its streams is published), InvalidSpec.
    """

    def __init__(self, spec: EventSpec, around: Surroundings) -> None:
        # given
        self.spec = spec
        self._now = around.hub.now
        # owned by run()
        self._epoch = _slot_time(Fraction(self._now(), SECOND), spec.mixer.fps)
        self._subs: list[_SubMix] = []
        self._ending = trio.Event()
        self._ended = trio.Event()
        # read by anyone (snapshot)
        self.trees = (RenderTree(),) * spec.sub_mixes
        self.state, self.error = "on air", ""
        try:
            for n in range(spec.sub_mixes):
                self._subs.append(_SubMix(spec, spec.stream(n), around, epoch=self._epoch))
        except Exception:
            for sub in self._subs:
                sub.close()
            raise

    async def run(self) -> None:
        """Mixes until `close`, or until it fails: then its streams end, and the state says why. Raises only bugs."""
        try:
            async with trio.open_nursery() as nursery:
                for sub in self._subs:
                    nursery.start_soon(sub.run)
                await self._ending.wait()
                for sub in self._subs:
                    sub.end()
        except* EngineError as group:
            self.state, self.error = "failed", str(first_error(group))
            log.error("event %s: failed: %s", self.spec.name, self.error)
        except* Exception:
            self.state, self.error = "failed", "ended by a bug, which the log tells"
            raise
        finally:
            if self.state == "on air":
                self.state = "closed"
            for sub in self._subs:
                sub.close()
            self._ended.set()

    async def close(self) -> None:
        """Ends it; returns when what was mixed is encoded and published, after FLUSH at the latest."""
        self._ending.set()
        with trio.move_on_after(FLUSH):
            await self._ended.wait()

    def put(self, trees: Sequence[RenderTree], *, transition: Fraction = Fraction(0), easing: str = EASING) -> int:
        """Shows trees from the next slot on, the first sub-mixes' ones, all at that slot; returns its number.

        transition  seconds that the picture takes to move there.
        Raises      InvalidTree: more trees than sub-mixes, an unknown easing, `at` or `speed` of what is no file.
                    NotFound: it is over.
        """
        slot = self._next_slot()
        if len(trees) > self.spec.sub_mixes:
            sentence = f"{len(trees)} trees for {self.spec.sub_mixes} sub-mixes of event {self.spec.name}"
            raise InvalidTree(sentence, where=f"$[{self.spec.sub_mixes}]")
        if easing not in EASINGS:
            raise InvalidTree(f'easing "{easing[:40]}" is not one of {", ".join(EASINGS)}', where="easing")
        at = slot / self.spec.mixer.fps
        for n, tree in enumerate(trees):
            _check_live(tree, n, files=self._subs[n].files(at))
        for sub, tree in zip(self._subs, trees, strict=False):
            if transition > 0:
                old = sub.switch.peek(at)
                sub.switch.take(Morph(old, tree, at, transition, self.spec.mixer.raster, easing), at)
            else:
                sub.switch.take(Held(tree), at)
            sub.foresee(tree, at)
        self.trees = (*trees, *self.trees[len(trees) :])
        return slot

    def play(self, program: Program, *, sources: Mapping[str, str], fonts: Mapping[str, str] | None = None) -> int:
        """Shows a program on the first sub-mix; returns the slot at which it takes over and which is its time 0.

        That is LEAD from now, so that its first files are open. Its films and sounds must have a media time.

        sources  files or URLs of names; every other name is a live stream, or an uploaded image.
        fonts    files of font names.
        Raises   NotFound: it is over.
        """
        slot, fps = self._next_slot(LEAD), self.spec.mixer.fps
        self._subs[0].play(program, slot / fps, sources=dict(sources), fonts=dict(fonts or {}))
        self.trees = (program.tree_at(Fraction(0)), *self.trees[1:])
        return slot

    def files_used(self) -> frozenset[str]:
        """The files and URLs of programs that are on, or will be, and of their fonts: nobody opens others any more."""
        return frozenset[str]().union(*(sub.files_used() for sub in self._subs))

    def _next_slot(self, lead: int = 0) -> int:
        if self._ending.is_set() or self._ended.is_set():
            raise NotFound("event", self.spec.name)
        return max(0, tick_count(Fraction(self._now() + lead - self._epoch, SECOND), self.spec.mixer.fps))

    def picture(self, stream: str) -> VideoFrame | None:
        """The last picture of a sub-mix, by the stream it publishes; None before the first."""
        for sub in self._subs:
            if sub.stream == stream:
                return sub.sink.last_picture
        return None

    def lost(self) -> dict[str, int]:
        """What was lost since it was made, by the names of its counters, all mixers together.

        Of what sources dropped only the pictures that came too late, or were decoded too late: who sends more than
        there are slots drops some in every second, and nothing is wrong.
        """
        return {
            "lagged": self.lagged,
            "skipped": sum(sub.sink.skipped for sub in self._subs),
            "dropped": sum(sub.late for sub in self._subs),
        }

    @property
    def lagged(self) -> int:
        """Slots that its mixers have missed, all together."""
        return sum(sub.mixer.lagged for sub in self._subs)

    def status(self) -> EventStatus:
        """How it is doing now."""
        raster, fps = self.spec.mixer.raster, self.spec.mixer.fps
        return EventStatus(
            name=self.spec.name,
            state=self.state,
            error=self.error,
            width=raster.width,
            height=raster.height,
            frame_rate=float(fps),
            latency_ms=int(self.spec.latency * 1000),
            slots=tick_count(Fraction(max(0, self._now() - self._epoch), SECOND), fps),
            sub_mixes=[sub.status() for sub in self._subs],
        )


def _slot_time(t: Fraction, fps: Fraction) -> int:
    """The first slot at or after t, in ns. All mixes of a rate have theirs at whole slots of the engine's clock: so one
    shows the pictures of another just when they are, and a mix of mixes keeps lip sync."""
    return nanoseconds(tick_count(t, fps), 1 / fps)


def _due(spec: EventSpec, epoch: int) -> int:
    """When time stamp 0 of its streams is due, ns: no later than the latest sound is there, but for whole slots."""
    mixer = spec.mixer
    there = spec.latency + Fraction(AAC_DELAY, mixer.audio.rate) + ENCODING
    return epoch + _slot_time(there - lead_of(mixer) / mixer.fps, mixer.fps)


def _check_live(tree: RenderTree, n: int, *, files: Container[str]) -> None:
    for path, _, node in walk(tree):
        if not isinstance(node, VideoSourceNode | AudioSourceNode) or node.stream_guid in files:
            continue
        times = {"at": node.at}
        if isinstance(node, VideoSourceNode):
            times |= {"until": node.until, "hold": node.hold or None}
        for field in (name for name, t in times.items() if t is not None):
            where = f"$[{n}]{path[1:]}.{field}"
            raise InvalidTree(f"{where}: a live stream has no media time, only files have", where=where)
        if isinstance(node, AudioSourceNode) and node.speed != 1:
            where = f"$[{n}]{path[1:]}.speed"
            raise InvalidTree(f"{where}: a live stream has the speed it has, only files have another", where=where)


class _SubMix:
    """One mixer, its sources, its encoder; it has its stream's name from its making on.

    Raises, when made, AlreadyExists, InvalidSpec.
    """

    def __init__(self, spec: EventSpec, stream: str, around: Surroundings, *, epoch: int) -> None:
        self.stream = stream
        self.switch = Switch(Held(RenderTree()))
        self._mixing = trio.CancelScope()
        publisher = Publisher(kind="mix", peer=spec.name, request_keyframe=lambda: self.sink.request_keyframe())
        self._publication = around.hub.publish(stream, publisher)
        try:
            pace = Pace.live(around.clock(epoch=epoch, latency=int(spec.latency * SECOND)))
            self.sink = StreamSink(
                self._publication,
                spec.mixer,
                spec.encoder,
                due=_due(spec, epoch),
                now=around.hub.now,
                limiter=around.limiter,
            )
            compositor = Compositor(spec.mixer, threads=around.settings.composite_threads)
            self._readers = _LiveReaders(spec, around, epoch=epoch, sink=self.sink, stream=stream)
            self.mixer = Mixer(
                spec.mixer, program=self.switch, pace=pace, readers=self._readers, sink=self.sink, compositor=compositor
            )
        except Exception:
            self._publication.close()
            raise

    async def run(self) -> None:
        """Mixes and encodes until `end`. Raises SinkError."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.sink.run)
            with self._mixing:
                async with trio.open_nursery() as reading:
                    self._readers.begin(reading)
                    await self.mixer.run(FOREVER)
            self.sink.end()

    def end(self) -> None:
        """The mixer stops, and the encoder gives out what it has."""
        self._mixing.cancel()

    def play(self, program: Program, at: Fraction, *, sources: Mapping[str, str], fonts: Mapping[str, str]) -> None:
        """A program is on from `at` on."""
        begins = Stack((program,), start=at)
        self.switch.take(begins, at)
        self._readers.bring(begins, at, sources=sources, fonts=fonts)

    def files(self, at: Fraction) -> Container[str]:
        """The names that are files at that time."""
        return self._readers.files(at)

    def files_used(self) -> frozenset[str]:
        """The files of programs that are on, or will be."""
        return self._readers.files_used()

    def foresee(self, tree: RenderTree, at: Fraction) -> None:
        """Has open, and decoded, what the tree names, which is on from `at` on."""
        self._readers.foresee(tree, at)

    @property
    def late(self) -> int:
        """Pictures of its sources that came too late, or were decoded too late."""
        return self._readers.late

    def close(self) -> None:
        """Lets go of sources and of the stream's name."""
        self._readers.close()
        self._publication.close()

    def status(self) -> SubMixStatus:
        return SubMixStatus(self.stream, self.mixer.statistics(), self.sink.statistics(), self._readers.statistics())


class _LiveReaders:
    """The sources of one sub-mix: opened when a tree names them, closed when none has for a while.

    Names are those of streams and of uploaded images, but for those that the last program brought its own files for.

    sink    has the last picture of `stream`, which is the sub-mix's own.
    """

    def __init__(self, spec: EventSpec, around: Surroundings, *, epoch: int, sink: StreamSink, stream: str) -> None:
        self._decoders = around.decoders
        self._images = around.images
        self._spec = spec.mixer
        self._latency = spec.latency
        self._settings = around.settings
        self._epoch = Fraction(epoch, SECOND)
        self._now = around.hub.now
        self._threads = Threads(FILE_THREADS, name="files", nice=NICE)
        self._nursery: trio.Nursery | None = None  # until it runs
        self._sink, self._stream = sink, stream
        self._sources: dict[Place, LiveSource | OwnSource] = {}
        self._late = 0  # pictures of those that are closed
        self._unnamed: dict[Place, int] = {}  # since when; where a tree that comes names it: until when it should be on
        self._reels = [self._reel(Fraction(0), {}, {})]  # in order of their start; the first one is on
        self._beginnings: dict[Reel, Sequence[Coming]] = {}  # of those that do not run yet

    def _reel(self, start: Fraction, sources: Mapping[str, str], fonts: Mapping[str, str]) -> Reel:
        return Reel(
            self._spec, start=start, sources=sources, fonts=fonts, settings=self._settings, threads=self._threads
        )

    def begin(self, nursery: trio.Nursery) -> None:
        """Files are read in this nursery from now on."""
        self._nursery = nursery
        for reel in self._reels:
            nursery.start_soon(reel.run, self._beginnings.pop(reel, ()))

    def bring(self, program: Program, at: Fraction, *, sources: Mapping[str, str], fonts: Mapping[str, str]) -> None:
        """The files of a program that is on from `at` on, in place of one that was to begin then or later."""
        while len(self._reels) > 1 and self._reels[-1].start >= at:
            last = self._reels.pop()
            self._beginnings.pop(last, None)
            last.close()
        reel = self._reel(at, sources, fonts)
        self._reels.append(reel)
        coming = [(at, program.tree_at(at)), *program.coming(at, at + AHEAD)]
        if self._nursery is not None:
            self._nursery.start_soon(reel.run, coming)
        else:
            self._beginnings[reel] = coming

    def files(self, at: Fraction) -> Container[str]:
        """The names that are files at that time."""
        return self._reel_at(at).sources

    def files_used(self) -> frozenset[str]:
        """The files of programs that are on, or will be."""
        return frozenset(file for reel in self._reels for file in (*reel.sources.values(), *reel.fonts.values()))

    def _reel_at(self, t: Fraction) -> Reel:
        return next(reel for reel in reversed(self._reels) if reel.start <= t)

    def expect(self, coming: Sequence[Coming]) -> None:
        """Opens the files and the streams that come on the air soon, so that they are there at their first slot."""
        for reel in self._reels:
            reel.expect([each for each in coming if self._reel_at(each[0]) is reel])
        for at, tree in coming:
            self._open_soon(tree, at)

    async def prepare(self, tree: RenderTree, t: Fraction) -> None:
        """Opens what the tree names; waits a moment for its texts and shapes, and for nothing else."""
        while len(self._reels) > 1 and self._reels[1].start <= t:
            self._reels.pop(0).close()
        reel, used = self._reels[0], uses(tree)
        reel.name(used)
        named = {key for key in used if isinstance(key, Place) and key.name not in reel.sources}
        for filename in (key for key in used if isinstance(key, str) and key not in reel.sources):
            self._images.get(filename)  # begins to load it
        self._open(named)
        await reel.drawings.prepare(tree, t, patience=DRAWING)
        now = self._now()
        self._unnamed = {place: self._unnamed.get(place, now) for place in self._sources.keys() - named}

    def _open(self, named: set[Place]) -> None:
        for place in named - self._sources.keys():
            source = self._decoders.open(
                place.name, self._spec.audio, epoch=self._epoch, latency=int(self._latency * SECOND)
            )
            is_own = place.name == self._stream
            self._sources[place] = OwnSource(source, self._sink, self._spec.raster) if is_own else source

    def foresee(self, tree: RenderTree, at: Fraction) -> None:
        """Opens and draws now what the tree names from `at` on, so that nothing of it is missing then.

        What nobody looks at or listens to yet is decoded: the mixer's latency is time enough.
        """
        self._reel_at(at).drawings.expect([(at, tree)])
        self._open_soon(tree, at)

    def _open_soon(self, tree: RenderTree, at: Fraction) -> None:
        """The streams and the uploaded images of a tree."""
        files, named = self.files(at), uses(tree)
        for filename in (key for key in named if isinstance(key, str) and key not in files):
            self._images.expect(filename)
        used = {key: use for key, use in named.items() if isinstance(key, Place) and key.name not in files}
        on_air = self._sources.keys() - self._unnamed.keys()
        self._open(set(used))
        now = self._now()
        ahead = self._epoch + at + self._latency - Fraction(now, SECOND)  # seconds, until the mixer is there
        for place, use in used.items():
            if place not in on_air:
                self._unnamed[place] = now + int(ahead * SECOND)
            source = self._sources[place]
            source.foresee(at - ahead, within=ahead + FORESIGHT, looks=use.looked, listens=use.listened)

    def reader(self, place: Place) -> Reader | None:
        """The source of that name, where a tree named it."""
        return self._sources.get(place) or self._reels[0].active().get(place)

    def still(self, picture: Picture) -> VideoFrame | None:
        """The image of that name once it is loaded, or the drawn picture once it is drawn."""
        reel = self._reels[0]
        if picture.drawn is not None:
            return reel.drawings.get(picture.drawn)
        return reel.still(picture.name) if picture.name in reel.sources else self._images.get(picture.name)

    def active(self) -> Mapping[Place, Reader]:
        """All that are open; streams that no tree has named for a while no longer are."""
        for place, since in list(self._unnamed.items()):
            if self._now() - since > LINGER:
                del self._unnamed[place]
                source = self._sources.pop(place)
                self._late += source.late
                source.close()
        return {**self._sources, **self._reels[0].active()}

    @property
    def late(self) -> int:
        """Pictures of streams, closed ones too, that came too late, or were decoded too late."""
        return self._late + sum(source.late for source in self._sources.values())

    async def idle(self) -> None:
        """Waits until the files are decoded as far ahead as may be."""
        for reel in self._reels:
            await reel.idle()

    def statistics(self) -> dict[str, SourceStatistics]:
        """Of the streams that the present tree names."""
        return {key.name: s.statistics() for key, s in sorted(self._sources.items()) if key not in self._unnamed}

    def close(self) -> None:
        """Closes all."""
        for source in self._sources.values():
            source.close()
        self._sources.clear()
        self._threads.close()
