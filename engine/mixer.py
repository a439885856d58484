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
from engine.plan import Picture, PictureSize, Plan
from engine.program import Program
from engine.sources.reader import Reader
from engine.spec import MixerSpec
from engine.timebase import first_sample
from engine.tree import RenderTree

log = logging.getLogger(__name__)


class Sink(Protocol):
    """Eats a mix, tick by tick."""

    async def put(self, n: int, picture: VideoFrame, sound: AudioFrame) -> None:
        """Takes the n-th picture and its sound; waits while it is full. Raises SinkError."""


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
        self._plans: dict[frozenset[tuple[Picture, PictureSize]], Plan] = {}  # of the present tree, by what is there
        self._broken: set[Reader] = set()
        # read by anyone (snapshot)
        self.ticks_done = 0

    async def run(self, ticks: int | None = None) -> None:
        """Mixes. Raises SourceError, SinkError."""
        async for tick in self._pace.clock.ticks(self._spec.fps):
            if ticks is not None and tick.n >= ticks:
                return
            t = self._start + tick.time
            tree = self._program.tree_at(t)
            if tree is not self._tree:
                await self._readers.prepare(tree)
                self._tree, self._plans = tree, {}
            media = await self._gather(tree, tick, t)
            if ticks is None and self._all_over(tree, t):
                return
            picture, sound = await trio.to_thread.run_sync(self._compose, media)
            await self._sink.put(tick.n, picture, sound)
            self.ticks_done = tick.n + 1

    def _compose(self, media: _Media) -> tuple[VideoFrame, AudioFrame]:
        picture = self._compositor.paint(media.plan, media.frames)
        return picture, self._compositor.sum(media.heard, media.samples)

    async def _gather(self, tree: RenderTree, tick: Tick, t: Fraction) -> _Media:
        """Frames and sound of a tick. A picture that turns out absent, or of another size, changes the plan: again."""
        rate, fps = self._spec.audio.rate, self._spec.fps
        base = first_sample(0, rate=rate, fps=fps) + int(self._start * rate)
        first, stop = (base + first_sample(n, rate=rate, fps=fps) for n in (tick.n, tick.n + 1))
        sizes = self._sizes(tree)
        while True:
            plan = self._compile(tree, sizes)
            await self._settle(plan, t, first=first, stop=stop)
            frames = self._pick(plan, t)
            changed = {p: _size(frames.get(p)) for p in plan.pictures if _size(frames.get(p)) != sizes[p]}
            if not changed:
                break
            for picture, size in changed.items():
                if size is None:
                    del sizes[picture]
                else:
                    sizes[picture] = size
        heard = []
        for voice in plan.voices:
            reader = self._readers.reader(voice.name, None)
            if reader is not None:
                heard.append((voice, reader))
        taken = {reader: reader.take(first, stop) for _, reader in heard}
        return _Media(plan, frames, [Heard(voice, taken[reader]) for voice, reader in heard], stop - first)

    def _sizes(self, tree: RenderTree) -> dict[Picture, PictureSize]:
        """The pictures of a tree that are thought to be there, by what is known before decoding."""
        sizes = {}
        for picture in planner.pictures_named(tree):
            if picture.image:
                size = _size(self._readers.still(picture))
            else:
                reader = self._readers.reader(picture.name, picture.at)
                size = None if reader is None else reader.steps.picture_size
            if size is not None:
                sizes[picture] = size
        return sizes

    def _compile(self, tree: RenderTree, sizes: dict[Picture, PictureSize]) -> Plan:
        present = frozenset(sizes.items())
        plan = self._plans.get(present)
        if plan is None:
            plan = self._plans[present] = planner.compile(tree, self._spec.raster, sizes)
        return plan

    async def _settle(self, plan: Plan, t: Fraction, *, first: int, stop: int) -> None:
        """Waits until everything that the plan needs is known; tells the other readers that they may rest."""
        looked = {(p.name, p.at): _media_time(p, t) for p in plan.pictures if not p.image}
        listened = {(voice.name, None) for voice in plan.voices}
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

    def _pick(self, plan: Plan, t: Fraction) -> dict[Picture, VideoFrame]:
        frames = {}
        for picture in plan.pictures:
            if picture.image:
                frame = self._readers.still(picture)
            else:
                reader = self._readers.reader(picture.name, picture.at)
                frame = None if reader is None else reader.pick(_media_time(picture, t), self._tolerance).frame
            if frame is not None:
                frames[picture] = frame
        return frames

    def _all_over(self, tree: RenderTree, t: Fraction) -> bool:
        """Whether no source has anything left at t: the end of a render that was given no duration."""
        shown = {picture.name for picture in planner.pictures_named(tree)}
        readers = [(key, reader) for key, reader in self._readers.active().items() if key[1] is None]
        until = t + self._tolerance
        return all(reader in self._broken or reader.over(until, picture=key[0] in shown) for key, reader in readers)


def _media_time(picture: Picture, t: Fraction) -> Fraction:
    return t if picture.at is None else Fraction(picture.at)


def _size(frame: VideoFrame | None) -> PictureSize | None:
    return None if frame is None else PictureSize(frame.width, frame.height, frame.a is None)
