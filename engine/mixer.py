"""The mixer: at every tick it asks its program for the tree, gathers frames and sound, and hands the mix to its sink.

It decides what one tick is made of; it refuses to know who made the program, and whether it is live: that is `Pace`.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import chain, zip_longest
from typing import Final, NamedTuple, Protocol

import msgspec
import numpy as np
import trio

from engine import plan as planner
from engine.clock import Missing, Pace, Tick
from engine.compositor import Compositor, Heard
from engine.errors import SourceError
from engine.frame import AudioFrame, VideoFrame
from engine.framequeue import Pick, Piece, short_of, tolerance
from engine.plan import Moment, Picture, PictureSize, Place, Plan, Voice
from engine.program import Coming, Program
from engine.spec import MixerSpec
from engine.threads import in_thread
from engine.timebase import first_sample, sample_at, tick_time
from engine.tree import RenderTree, SumNode

log = logging.getLogger(__name__)

MAX_LAG: Final = Fraction(2)  # seconds; a mixer that stood still for longer goes on without the sound of that time
REMEMBERED: Final = 300  # ticks whose lateness is in the statistics
AHEAD: Final = Fraction(2)  # seconds before something comes on the air that it is opened: files on slow disks take one
LOOK_EVERY: Final = Fraction(1, 2)  # seconds
SAME: Final = 1e-6  # seconds that floats may be off
TRUE: Final = 2  # samples that a voice may be off: what is more is a jump
_Samples = dict[Place, tuple[int, int]]  # [first, stop) of every place
_NOTHING: Final[Pick[VideoFrame]] = Pick(None, None, False)


class Sink(Protocol):
    """Eats a mix, tick by tick."""

    async def put(self, n: int, picture: VideoFrame, sound: AudioFrame, span: int) -> None:
        """Takes the picture of ticks [n, n + span) and their sound; may wait while it is full. Raises SinkError."""


class Reader(Protocol):
    """One mixer's place in one source; times are the mixer's. See sources.reader.Reader and sources.live.LiveSource."""

    @property
    def picture_size(self) -> PictureSize | None:
        """Size as far as known, None when there is no picture and will be none."""

    def attend(self, *, picture: Fraction | None, sound: int | None, shrink: int = 1, hold: bool = False) -> None:
        """Says what is looked at and listened to from now on; `shrink`: at a whole part of its size, or less; `hold`:
        before its first picture and after its last one at these.
        """

    async def settle(self, *, picture: Fraction | None, sound: int | None) -> None:
        """Waits until that is known. Raises SourceError."""

    def pick(self, t: Fraction, tolerance: Fraction) -> Pick[VideoFrame]:
        """What is on screen at t."""

    def take(self, start: int, stop: int) -> list[Piece[AudioFrame]]:
        """The samples of [start, stop) that are there."""

    def over(self, t: Fraction, *, picture: bool, beside: bool) -> bool:
        """Whether nothing of it is left at t; `picture`: its picture is shown, `beside`: that of any source is."""


class Readers(Protocol):
    """Gives the reader of a place in a source; the same place gives the same reader."""

    def expect(self, coming: Sequence[Coming]) -> None:
        """Opens what comes on the air soon, if it can."""

    async def prepare(self, tree: RenderTree, t: Fraction) -> None:
        """Opens what the tree that is on from t on names and is not open yet. Raises SourceError."""

    def reader(self, place: Place) -> Reader | None:
        """The reader, or None where there is no such source."""

    def still(self, picture: Picture) -> VideoFrame | None:
        """The image of that name, or the drawn picture; None where there is none, or not yet."""

    def active(self) -> Mapping[Place, Reader]:
        """All readers that have been asked for."""


class _Block(NamedTuple):
    """Ticks [first, stop) that are mixed in one go; their picture and their tree are those of tick n, at t.

    edges  the moments within it at which sound begins or ends or its gain bends, and the trees of these moments.
    """

    first: int
    n: int
    stop: int
    t: Fraction
    edges: tuple[Coming, ...]


class _Stretch(NamedTuple):
    """Samples [first, stop) of the mix with the same voices; `lead` of them are before the time these speak of."""

    voices: tuple[Voice, ...]
    first: int
    stop: int
    lead: int


class _Played(NamedTuple):
    """How far a voice with a media time has been played: the time last said, and the next sample."""

    at: float | None
    next: int


class _Media(NamedTuple):
    plan: Plan
    frames: dict[Picture, VideoFrame]
    stretches: list[_Stretch]
    samples: list[_Samples]  # of each stretch


class MixerStatistics(msgspec.Struct, frozen=True, rename="camel"):
    """Counters of a mixer: ticks mixed, ticks lagged (missed by us, all together), pictures held because nothing newer
    was there; how late the ticks of the last seconds began, ms."""

    mixed: int
    lagged: int
    held: int
    late_p50_ms: float
    late_p99_ms: float
    mix_ms: float  # of the last tick: from its beginning to the hand-over


class Mixer:
    """Mixes one program. `run` is its actor; it ends when `ticks` are done or, without that, when every source is over.

    on_error  "fail": a source that breaks raises its error. "hold": its last picture stays, its sound is silence.

    Ticks that the clock left out are covered by the next one: its picture is the newest, its sound the whole of them.
    """

    def __init__(
        self,
        spec: MixerSpec,
        *,
        program: Program,
        pace: Pace,
        readers: Readers,
        sink: Sink,
        start: Fraction = Fraction(0),
        on_error: str = "fail",
        compositor: Compositor | None = None,
    ) -> None:
        # given
        self._spec = spec
        self._program = program
        self._pace = pace
        self._readers = readers
        self._sink = sink
        self._start = start
        self._tolerance = tolerance(spec.fps, timed=False)
        self._nearest = tolerance(spec.fps, timed=True)
        self._on_error = on_error
        self._compositor = compositor or Compositor(spec)
        self._thread = trio.CapacityLimiter(1)  # its own: threads that all share may be taken by others for seconds
        # owned by run()
        self._tree: RenderTree | None = None
        self._named: tuple[Picture, ...] = ()  # by that tree
        self._plan: Plan | None = None  # of that tree, for the sizes below
        self._sizes: dict[Picture, PictureSize | None] = {}  # as last seen; None = not there
        self._shrinks: dict[Place, int] = {}  # how many times smaller the plan shows it
        self._moments: dict[Place, Moment] = {}  # of that tree: the media times of its pictures
        self._played: dict[Place, _Played] = {}
        self._look_at = start  # when to look ahead next
        self._broken: set[Reader] = set()  # that it has been said of
        self._late: deque[int] = deque(maxlen=REMEMBERED)
        self._held = 0
        self._mix_ns = 0
        # read by anyone (snapshot)
        self.ticks_done = 0  # those before this one are mixed, or lagged
        self.lagged = 0

    def statistics(self) -> MixerStatistics:
        """Counters since it was made."""
        late = sorted(self._late) or [0]
        return MixerStatistics(
            mixed=self.ticks_done - self.lagged,
            lagged=self.lagged,
            held=self._held,
            late_p50_ms=late[len(late) // 2] / 1e6,
            late_p99_ms=late[len(late) * 99 // 100] / 1e6,
            mix_ms=self._mix_ns / 1e6,
        )

    async def run(self, ticks: int | None = None, *, most: int | None = None) -> None:
        """Mixes so many ticks; where none are said until all sources are over, and `most` at most.

        Raises SourceError, SinkError.
        """
        last = most if ticks is None else ticks
        while last is None or self.ticks_done < last:
            tick = await self._pace.clock.tick(self.ticks_done, self._spec.fps)
            began = self._count(tick)
            t = self._start + tick.time
            tree = self._program.tree_at(t)
            is_new = tree is not self._tree
            if is_new:
                self._show(tree)
            stop = tick.n + self._span(tree, tick, last)
            block = _Block(began, tick.n, stop, t, self._edges(t, self._time(stop)))
            if is_new or block.edges:
                await self._readers.prepare(_with_sound(tree, block.edges), t)
            if t >= self._look_at:
                self._readers.expect(self._program.coming(t, t + AHEAD))
                self._look_at = t + LOOK_EVERY
            media = await self._gather(tree, block)
            if ticks is None and self._all_over(block.t):
                return
            while ticks is None and block.stop > tick.n + 1 and self._all_over(self._time(block.stop - 1)):
                stop = tick.n + (block.stop - tick.n) // 2  # the end is within
                edges = tuple(each for each in block.edges if each[0] < self._time(stop))
                block = block._replace(stop=stop, edges=edges)
                stretches = self._stretches(media.plan, block)
                media = media._replace(stretches=stretches, samples=self._samples(stretches))
            heard = self._take(media, block)
            entered = time.perf_counter_ns()
            picture, sound = await in_thread(self._compose, media, heard, block, limiter=self._thread)
            await self._sink.put(block.first, picture, sound, block.stop - block.first)
            self._mix_ns = time.perf_counter_ns() - entered
            self.ticks_done = block.stop

    def _show(self, tree: RenderTree) -> None:
        self._tree, self._plan = tree, None
        self._named = tuple(planner.pictures_named(tree))
        self._moments = planner.moments(tree)
        if len(self._sizes) > 2 * len(self._named):  # what moved or was on before
            self._sizes = {picture: self._sizes[picture] for picture in self._named if picture in self._sizes}

    def _count(self, tick: Tick) -> int:
        """The first tick that this one covers: those that were left out since the last one are lagged."""
        first = max(self.ticks_done, tick.n - int(MAX_LAG * self._spec.fps))
        self.lagged += tick.n - self.ticks_done
        self.ticks_done = tick.n  # at once with those that are lagged: the others are mixed, and never get fewer
        self._late.append(tick.late)
        return first

    def _span(self, tree: RenderTree, tick: Tick, ticks: int | None) -> int:
        """How many ticks are mixed in one go: several while there is only sound to mix, and it just goes on.

        A gain that has moved at a tick has moved within the one before, which is not one of several then.
        """
        span = 0
        most = self._pace.stride if not self._named else 1
        while 1 < most > span and (ticks is None or tick.n + span < ticks):
            after = self._program.tree_at(self._time(tick.n + span + 1))
            if after is not tree and not _goes_on(tree, after, (span + 1) / self._spec.fps):
                break
            span += 1
        return max(1, span)

    def _edges(self, start: Fraction, stop: Fraction) -> tuple[Coming, ...]:
        return tuple((t, self._program.tree_at(t)) for t in self._program.edges(start, stop))

    def _time(self, n: int) -> Fraction:
        return self._start + tick_time(n, self._spec.fps)

    def _compose(
        self, media: _Media, heard: list[tuple[list[Heard], int]], block: _Block
    ) -> tuple[VideoFrame, AudioFrame]:
        picture = self._compositor.paint(media.plan, media.frames)
        sounds = [self._compositor.sum(voices, samples) for voices, samples in heard]
        if len(sounds) == 1:
            return picture, sounds[0]
        return picture, AudioFrame(np.concatenate([sound.samples for sound in sounds], axis=1))

    async def _gather(self, tree: RenderTree, block: _Block) -> _Media:
        """Plan and frames of a block. A picture that came, went, or has another size changes the plan: again."""
        self._look_again()
        while True:
            plan = self._compiled(tree)
            watched = plan.pictures.union(picture for picture in self._named if self._may_come(picture))
            stretches = self._stretches(plan, block)
            samples = self._samples(stretches)
            await self._settle(watched, samples, block)
            frames = self._pick(watched, block.t)
            changed = {p: _size(frames.get(p)) for p in watched if _size(frames.get(p)) != self._sizes[p]}
            if not changed:
                return _Media(plan, frames, stretches, samples)
            self._sizes |= changed
            self._plan = None

    def _look_again(self) -> None:
        """What no layer shows, as its picture was, may be seen as it is now: a crop lay beyond the old one's edge."""
        shown = () if self._plan is None else self._plan.pictures
        for picture in self._named:
            seen = self._sizes.get(picture)
            if seen is not None and picture not in shown and (size := self._stated_size(picture)) not in (None, seen):
                self._sizes[picture], self._plan = size, None

    def _take(self, media: _Media, block: _Block) -> list[tuple[list[Heard], int]]:
        """The sound of a block stretch by stretch, from each source once, however many voices it has; and how long."""
        heard: list[tuple[list[Heard], int]] = []
        for stretch, samples in zip(media.stretches, media.samples, strict=True):
            readers = {place: self._readers.reader(place) for place in samples}
            taken = {place: reader.take(*samples[place]) for place, reader in readers.items() if reader is not None}
            pairs = zip_longest(stretch.voices, self._until(stretch))
            voices = [Heard(voice, taken[voice.place], until) for voice, until in pairs if voice.place in taken]
            heard.append((voices, stretch.stop - stretch.first))
        said, last = media.stretches[-1].voices, self._time(block.stop - 1)
        if block.stop > block.n + 1 and not any(t >= last for t, _ in block.edges):
            said = planner.voices_named(self._program.tree_at(last))
        self._played = {voice.place: _Played(voice.at, samples[voice.place][1]) for voice in said if voice.place.timed}
        return heard

    def _until(self, stretch: _Stretch) -> list[float]:
        """The gains that the voices with a media time, which are its first, have at its last sample.

        Moving there, a curve is in time; moving to where they are at its beginning, it would be a tick behind.
        """
        places = [voice.place for voice in stretch.voices if voice.place.timed]
        if not places:
            return []
        last = self._program.tree_at(Fraction(stretch.stop - 1, self._spec.audio.rate))
        voices = [voice for voice in planner.voices_named(last) if voice.place.timed]
        return [voice.gain for voice in voices] if [voice.place for voice in voices] == places else []

    def _stretches(self, plan: Plan, block: _Block) -> list[_Stretch]:
        """A block's samples, cut where sound with a media time begins, ends or bends; the other changes at ticks."""
        first, stop = self._first_sample(block.first), self._first_sample(block.stop)
        lasting = [voice for voice in plan.voices if not voice.place.timed] + self._compositor.leaving(plan.voices)
        cuts = [(first, self._first_sample(block.n) - first, plan.voices)]
        for t, tree in block.edges:
            if (cut := sample_at(t, self._spec.audio.rate)) < stop:
                cuts.append((cut, 0, planner.voices_named(tree)))
        ends = [*(begin for begin, _, _ in cuts[1:]), stop]
        return [
            _Stretch((*(voice for voice in voices if voice.place.timed), *lasting), begin, end, lead)
            for (begin, lead, voices), end in zip(cuts, ends, strict=True)
        ]

    def _samples(self, stretches: Sequence[_Stretch]) -> list[_Samples]:
        """The samples that each stretch needs.

        What has a media time begins there and goes on by itself, so that no sample is lost or heard twice by rounding;
        it goes elsewhere when another time is said that is not where it is.
        """
        found: list[_Samples] = []
        played = dict(self._played)
        for stretch in stretches:
            samples: _Samples = {}
            for voice in stretch.voices:
                begin, before = stretch.first, played.get(voice.place)
                if voice.at is not None:
                    begin = round(voice.at * self._spec.audio.rate / voice.place.speed) - stretch.lead
                    if before is not None and (before.at == voice.at or abs(before.next - begin) <= TRUE):
                        begin = before.next
                samples[voice.place] = begin, begin + stretch.stop - stretch.first
            for voice in stretch.voices:
                played[voice.place] = _Played(voice.at, samples[voice.place][1])
            found.append(samples)
        return found

    def _first_sample(self, n: int) -> int:
        rate = self._spec.audio.rate
        return sample_at(self._start, rate) + first_sample(n, rate=rate, fps=self._spec.fps)

    def _compiled(self, tree: RenderTree) -> Plan:
        """The plan for what is there: as last seen, or what a source says of itself where nothing was seen yet."""
        if self._plan is None:
            for picture in self._named:
                if picture not in self._sizes:
                    self._sizes[picture] = self._stated_size(picture)
            sizes = {picture: size for picture in self._named if (size := self._sizes[picture]) is not None}
            self._plan = planner.compile(tree, self._spec.raster, sizes)
            self._shrinks = _shrinks(self._plan)
        return self._plan

    def _stated_size(self, picture: Picture) -> PictureSize | None:
        if picture.still:
            return _size(self._readers.still(picture))
        reader = self._readers.reader(picture.place)
        return None if reader is None else reader.picture_size

    def _may_come(self, picture: Picture) -> bool:
        """Whether a picture is absent now, and not for ever: one that starts late."""
        return self._sizes[picture] is None and self._stated_size(picture) is not None

    async def _settle(self, watched: frozenset[Picture], samples: Sequence[_Samples], block: _Block) -> None:
        """Tells every reader what is watched and heard, and the others that they may rest; offline, waits for that."""
        looked = {picture.place: self._media_time(picture, block.t) for picture in watched if not picture.still}
        listened: _Samples = {}
        for place, (begin, end) in chain.from_iterable(each.items() for each in samples):
            listened[place] = listened.get(place, (begin, end))[0], end
        nothing = (None, None)
        active = self._readers.active()
        # What begins within the block is heard before it is seen: were its picture not asked for, it would seek again.
        begun = {place: each.at for _, tree in block.edges for place, each in planner.moments(tree).items()}
        for place, reader in active.items():
            sound, _ = listened.get(place, nothing)
            picture = looked.get(place, begun.get(place) if sound is not None else None)
            hold = place in self._moments and self._moments[place].hold
            reader.attend(picture=picture, sound=sound, shrink=self._shrinks.get(place, 1), hold=hold)
        for place, reader in active.items() if self._pace.missing is Missing.WAIT else ():
            if place not in looked and place not in listened:
                continue
            picture = looked[place] + self._slack(place) if place in looked else None
            try:
                await reader.settle(picture=picture, sound=listened.get(place, nothing)[1])
            except SourceError as err:
                if self._on_error != "hold":
                    raise
                if reader not in self._broken:
                    log.warning("%s; its last picture is held", err)
                self._broken.add(reader)

    def _pick(self, watched: frozenset[Picture], t: Fraction) -> dict[Picture, VideoFrame]:
        frames = {}
        for picture in watched:
            if picture.still:
                frame = self._readers.still(picture)
            else:
                reader, place = self._readers.reader(picture.place), picture.place
                pick = _NOTHING if reader is None else reader.pick(self._media_time(picture, t), self._slack(place))
                frame = pick.frame
                self._held += pick.held
            if frame is not None:
                frames[picture] = frame
        return frames

    def _all_over(self, t: Fraction) -> bool:
        """Whether no source has anything left at t: the end of a render that was given no duration."""
        shown = {picture.name for picture in self._named}
        until = t + self._tolerance
        return all(
            reader.over(until, picture=place.name in shown, beside=bool(shown))
            for place, reader in self._readers.active().items()
            if not place.timed
        )

    def _media_time(self, picture: Picture, t: Fraction) -> Fraction:
        moment = self._moments.get(picture.place)
        return t if moment is None or moment.at is None else moment.at

    def _slack(self, place: Place) -> Fraction:
        """How much later than asked for a frame may start: of what has a media time the nearest one is shown, but none
        from beyond its out point.
        """
        moment = self._moments.get(place)
        if moment is None or moment.at is None:
            return self._tolerance
        return self._nearest if moment.until is None else short_of(moment.until - moment.at, self._nearest)


def _goes_on(tree: RenderTree, after: RenderTree, seconds: Fraction) -> bool:
    """Whether another tree, that much later, looks the same and plays on what this one plays."""
    if after.root_video_node != tree.root_video_node:
        return False
    now, then = planner.voices_named(tree), planner.voices_named(after)
    return len(now) == len(then) and all(
        _timeless(a) == _timeless(b)
        and (a.at is None or abs((b.at or 0.0) - (a.at + float(seconds) * a.place.speed)) < SAME)
        for a, b in zip(now, then, strict=True)
    )


def _timeless(voice: Voice) -> Voice:
    return msgspec.structs.replace(voice, at=None, place=voice.place._replace(at=None))


def _with_sound(tree: RenderTree, edges: Sequence[Coming]) -> RenderTree:
    """A tree with the sound of others too."""
    if not edges:
        return tree
    sounds = (each.root_audio_node for each in (tree, *(later for _, later in edges)))
    nodes = tuple(sound for sound in sounds if sound is not None)
    return msgspec.structs.replace(tree, root_audio_node=SumNode(nodes=nodes))


def _size(frame: VideoFrame | None) -> PictureSize | None:
    return None if frame is None else PictureSize(frame.width, frame.height, frame.a is None)


def _shrinks(plan: Plan) -> dict[Place, int]:
    """How many times smaller than it is each place is shown wherever it is, in width and height; 1 = large.

    What effects change counts as large, since its layer is as large as what they made: they may bring out every fault.
    """
    shrinks: dict[Place, int] = {}
    for layer in (layer for each in plan.passes for layer in each.layers):
        if layer.source is not None:
            place, crop, dest = layer.source.place, layer.crop, layer.dest
            shrink = max(1, int(min(crop.width / dest.width, crop.height / dest.height)))
            shrinks[place] = min(shrink, shrinks.get(place, shrink))
    return shrinks
