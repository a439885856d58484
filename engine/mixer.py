"""The mixer: at every tick it asks its program for the tree, gathers frames and sound, and hands the mix to its sink.

It decides what one tick is made of; it refuses to know who made the program, and whether it is live: that is `Pace`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from fractions import Fraction
from typing import NamedTuple, Protocol

import trio

from engine import plan as planner
from engine.clock import Pace, Tick
from engine.compositor import Compositor, Heard
from engine.errors import SourceError
from engine.frame import AudioFrame, VideoFrame
from engine.plan import Picture, PictureSize, Plan, Voice
from engine.program import Program
from engine.sources.reader import Reader
from engine.spec import MixerSpec
from engine.timebase import first_sample, sample_at, tick_time
from engine.tree import RenderTree

log = logging.getLogger(__name__)


class Sink(Protocol):
    """Eats a mix, tick by tick."""

    async def put(self, n: int, picture: VideoFrame, sound: AudioFrame, span: int) -> None:
        """Takes the picture of ticks [n, n + span) and their sound; waits while it is full. Raises SinkError."""


class Readers(Protocol):
    """Gives the reader of a source; the same name and `at` give the same reader."""

    async def prepare(self, tree: RenderTree) -> None:
        """Opens what a tree names and is not open yet. Raises SourceError."""

    def reader(self, name: str, at: float | None) -> Reader | None:
        """The reader, or None where there is no such source."""

    def still(self, picture: Picture) -> VideoFrame | None:
        """The image of that name, or None where there is none."""

    def active(self) -> Mapping[tuple[str, float | None], Reader]:
        """All readers that have been asked for."""


class _Media(NamedTuple):
    plan: Plan
    frames: dict[Picture, VideoFrame]
    heard: list[Heard]
    samples: int
    span: int  # ticks


class Mixer:
    """Mixes one program. `run` is its actor; it ends when `ticks` are done or, without that, when every source is over.

    on_error  "fail": a source that breaks raises its error. "hold": its last picture stays, its sound is silence.
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
        self._tolerance = 1 / spec.fps / 4
        self._on_error = on_error
        self._compositor = compositor or Compositor(spec)
        # owned by run()
        self._tree: RenderTree | None = None
        self._named: tuple[Picture, ...] = ()  # by that tree
        self._plan: Plan | None = None  # of that tree, for the sizes below
        self._sizes: dict[Picture, PictureSize | None] = {}  # as last seen; None = not there
        self._broken: set[Reader] = set()
        # read by anyone (snapshot)
        self.ticks_done = 0

    async def run(self, ticks: int | None = None) -> None:
        """Mixes. Raises SourceError, SinkError."""
        async for tick in self._pace.clock.ticks(self._spec.fps):
            if ticks is not None and tick.n >= ticks:
                return
            if tick.n < self.ticks_done:
                continue
            t = self._start + tick.time
            tree = self._program.tree_at(t)
            if tree is not self._tree:
                await self._readers.prepare(tree)
                self._tree, self._plan = tree, None
                self._named = tuple(planner.pictures_named(tree))
            media = await self._gather(tree, tick, ticks)
            if ticks is None and self._all_over(t):
                return
            picture, sound = await trio.to_thread.run_sync(self._compose, media)
            await self._sink.put(tick.n, picture, sound, media.span)
            self.ticks_done = tick.n + media.span

    def _span(self, tree: RenderTree, tick: Tick, ticks: int | None) -> int:
        """How many ticks are mixed in one go: several while there is only sound to mix and the tree stays the same."""
        span = 1
        most = self._pace.stride if not self._named else 1
        while span < most and (ticks is None or tick.n + span < ticks) and self._tree_at(tick.n + span) is tree:
            span += 1
        return span

    def _tree_at(self, n: int) -> RenderTree:
        return self._program.tree_at(self._start + tick_time(n, self._spec.fps))

    def _compose(self, media: _Media) -> tuple[VideoFrame, AudioFrame]:
        picture = self._compositor.paint(media.plan, media.frames)
        return picture, self._compositor.sum(media.heard, media.samples)

    async def _gather(self, tree: RenderTree, tick: Tick, ticks: int | None) -> _Media:
        """Frames and sound of a tick. A picture that came, went, or has another size changes the plan: again."""
        t, span = self._start + tick.time, self._span(tree, tick, ticks)
        first, stop = self._first_sample(tick.n), self._first_sample(tick.n + span)
        while True:
            plan = self._compiled(tree)
            watched = plan.pictures.union(picture for picture in self._named if self._may_come(picture))
            await self._settle(watched, plan.voices, t, first=first, stop=stop)
            frames = self._pick(watched, t)
            changed = {p: _size(frames.get(p)) for p in watched if _size(frames.get(p)) != self._sizes[p]}
            if not changed:
                break
            self._sizes |= changed
            self._plan = None
        if ticks is None and span > 1 and self._all_over(t + tick_time(span - 1, self._spec.fps)):
            span, stop = 1, self._first_sample(tick.n + 1)  # the end is within: tick by tick up to it
        heard = []
        for voice in plan.voices:
            reader = self._readers.reader(voice.name, None)
            if reader is not None:
                heard.append((voice, reader))
        taken = {reader: reader.take(first, stop) for _, reader in heard}
        return _Media(plan, frames, [Heard(voice, taken[reader]) for voice, reader in heard], stop - first, span)

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
        return self._plan

    def _stated_size(self, picture: Picture) -> PictureSize | None:
        if picture.image:
            return _size(self._readers.still(picture))
        reader = self._readers.reader(picture.name, picture.at)
        return None if reader is None else reader.steps.picture_size

    def _may_come(self, picture: Picture) -> bool:
        """Whether a picture is absent now, and not for ever: one that starts late."""
        return self._sizes[picture] is None and not picture.image and self._stated_size(picture) is not None

    async def _settle(
        self, watched: frozenset[Picture], voices: tuple[Voice, ...], t: Fraction, *, first: int, stop: int
    ) -> None:
        """Waits until what is watched and heard is known; tells the other readers that they may rest."""
        looked = {(p.name, p.at): _media_time(p, t) for p in watched if not p.image}
        listened = {(voice.name, None) for voice in voices}
        active = self._readers.active()
        for key, reader in active.items():
            reader.attend(picture=looked.get(key), sound=first if key in listened else None)
        for key, reader in active.items():
            if reader in self._broken or (key not in looked and key not in listened):
                continue
            picture = looked[key] + self._tolerance if key in looked else None
            try:
                await reader.settle(picture=picture, sound=stop if key in listened else None)
            except SourceError as err:
                if self._on_error != "hold":
                    raise
                log.warning("%s; its last picture is held", err)
                self._broken.add(reader)

    def _pick(self, watched: frozenset[Picture], t: Fraction) -> dict[Picture, VideoFrame]:
        frames = {}
        for picture in watched:
            if picture.image:
                frame = self._readers.still(picture)
            else:
                reader = self._readers.reader(picture.name, picture.at)
                frame = None if reader is None else reader.pick(_media_time(picture, t), self._tolerance).frame
            if frame is not None:
                frames[picture] = frame
        return frames

    def _all_over(self, t: Fraction) -> bool:
        """Whether no source has anything left at t: the end of a render that was given no duration."""
        shown = {picture.name for picture in self._named}
        until = t + self._tolerance
        return all(
            self._over(reader, until, shown=name in shown)
            for (name, at), reader in self._readers.active().items()
            if at is None
        )

    def _over(self, reader: Reader, until: Fraction, *, shown: bool) -> bool:
        steps = reader.steps
        if reader in self._broken or not (steps.has_sound or (shown and steps.picture_size is not None)):
            return not steps.endless and (steps.duration is None or steps.duration <= until)
        return reader.over(until, picture=shown)


def _media_time(picture: Picture, t: Fraction) -> Fraction:
    return t if picture.at is None else Fraction(picture.at)


def _size(frame: VideoFrame | None) -> PictureSize | None:
    return None if frame is None else PictureSize(frame.width, frame.height, frame.a is None)
