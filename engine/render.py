"""An offline render: a program on a virtual clock into a file. `python -m engine.render` is what a job's child runs.

It decides what is opened for a render, and when a render is over; it refuses to know who asked for it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
import trio

from engine.clock import Pace
from engine.compositor import Compositor
from engine.config import Settings
from engine.errors import EngineError, InvalidSpec
from engine.frame import VideoFrame
from engine.mixer import Mixer
from engine.plan import Picture
from engine.program import Held, Program
from engine.sinks import open_sink, open_sinks
from engine.sinks.file import check_output
from engine.sinks.pictures import STILLS
from engine.sources import Reader, Steps, load_still, open_source
from engine.sources.drawing import Drawings
from engine.spec import OutputSpec, RenderSpec
from engine.timebase import tick_count
from engine.tree import AudioSourceNode, ImageSourceNode, RenderTree, VideoSourceNode, walk

log = logging.getLogger(__name__)

MIN_AHEAD: Final = 2
REPORT_EVERY: Final = 0.2  # seconds between two reports of progress


class Progress(msgspec.Struct, frozen=True):
    """How far a render is: ticks done, ticks there will be (None = nobody knows), seconds since it began."""

    done: int
    total: int | None
    elapsed: float


class Rendered(msgspec.Struct, frozen=True):
    """What a render made."""

    output: str
    ticks: int
    elapsed: float
    clipped: int  # samples cut off at full scale


Report = Callable[[Progress], None]
_Tell = Callable[[int, int | None], None]


async def render(
    program: Program, spec: RenderSpec, *, settings: Settings | None = None, report: Report | None = None
) -> Rendered:
    """Renders `program` as `spec` says; the same twice gives the same pictures and sound.

    report  is called a few times a second; what it raises ends the render. And once when the output is whole, with all
            ticks done: what it raises then comes out, and the output stays.
    Raises  Invalid, SourceError, SinkError; then no output is left. Cancelling leaves none either.
    """
    settings = settings or Settings()
    for output in spec.outputs or (OutputSpec(path=spec.output, encoder=spec.encoder),):
        check_output(output.path, spec.mixer, output.encoder)
    began = trio.current_time()

    def tell(done: int, total: int | None) -> None:
        if report is not None:
            report(Progress(done, total, trio.current_time() - began))

    try:
        async with trio.open_nursery() as nursery:
            ticks, clipped = await _render(program, spec, settings=settings, tell=tell, nursery=nursery)
            nursery.cancel_scope.cancel()
        tell(ticks, ticks)
    except* EngineError as group:
        raise _first(group) from None
    return Rendered(spec.output, ticks, trio.current_time() - began, clipped)


def _first(group: BaseExceptionGroup[EngineError]) -> EngineError:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, EngineError)
    return error


async def _render(
    program: Program, spec: RenderSpec, *, settings: Settings, tell: _Tell, nursery: trio.Nursery
) -> tuple[int, int]:
    """Ticks done and samples clipped. Everything started in `nursery` may be cancelled then."""
    names = program.sources_in(spec.start, spec.start + (spec.duration or Fraction(1)))
    may_ease = isinstance(program, Held) and not spec.exact
    sources = _Sources(spec, settings, nursery=nursery, expected=len(names), may_ease=may_ease)
    await sources.prepare(program.tree_at(spec.start))
    total = _total(spec, sources)
    limiter = trio.CapacityLimiter(1)
    opening = (
        partial(open_sinks, spec.outputs, spec.mixer, limiter=limiter)
        if spec.outputs
        else partial(open_sink, spec.output, spec.mixer, spec.encoder, limiter=limiter)
    )
    sink = await trio.to_thread.run_sync(opening)
    compositor = Compositor(spec.mixer, threads=settings.composite_threads)
    mixer = Mixer(
        spec.mixer,
        program=program,
        pace=Pace.offline(),
        readers=sources,
        sink=sink,
        start=spec.start,
        on_error=spec.on_error,
        compositor=compositor,
    )
    async with trio.open_nursery() as writing:
        writing.start_soon(sink.run)
        nursery.start_soon(_report, mixer, total, tell)
        exact = spec.duration is not None or _is_still(spec)
        await mixer.run(total if exact else None)
        if mixer.ticks_done == 0:
            raise InvalidSpec(f"every source is over at {float(spec.start):g} s: nothing to render", where="start")
        sink.end()
    return mixer.ticks_done, compositor.statistics().clipped


async def _report(mixer: Mixer, total: int | None, tell: _Tell) -> None:
    while True:
        await trio.sleep(REPORT_EVERY)
        done = mixer.ticks_done
        tell(done, None if total is None else max(done, total))  # a container's word may be a tick short


def _is_still(spec: RenderSpec) -> bool:
    return not spec.outputs and Path(spec.output).suffix.lower() in STILLS


def _total(spec: RenderSpec, sources: _Sources) -> int | None:
    """How many ticks; None while only the sources know. Raises InvalidSpec when nothing ever ends."""
    if _is_still(spec):
        return 1
    if spec.duration is not None:
        return tick_count(spec.duration, spec.mixer.fps)
    finite = [reader.steps for (_, at), reader in sources.active().items() if at is None and not reader.steps.endless]
    if not finite:
        raise InvalidSpec("no source here has an end: a duration is needed", where="duration")
    if any(steps.duration is None for steps in finite):
        return None
    longest = max(steps.duration or Fraction(0) for steps in finite)
    return max(0, round((longest - spec.start) * spec.mixer.fps))


Key = tuple[str, float | None]


class _Sources:
    """The sources of one render: opened when a tree names them first, closed with the nursery."""

    def __init__(
        self, spec: RenderSpec, settings: Settings, *, nursery: trio.Nursery, expected: int, may_ease: bool
    ) -> None:
        self._spec = spec
        self._settings = settings
        self._nursery = nursery
        self._expected = max(1, expected)
        self._may_ease = may_ease
        self._cores = len(os.sched_getaffinity(0))
        self._limiter = trio.CapacityLimiter(max(2, self._cores))
        self._readers: dict[Key, Reader] = {}
        self._stills: dict[str, VideoFrame] = {}
        self._drawings = Drawings(spec.mixer.raster, spec.sources)
        nursery.start_soon(self._drawings.run)
        self._warned: set[str] = set()

    async def prepare(self, tree: RenderTree) -> None:
        """Opens what the tree names and is not open yet, all at once; warns of what is lacking. Raises SourceError."""
        looked: set[Key] = set()
        listened: set[Key] = set()
        images: set[str] = set()
        for _, _, node in walk(tree):
            if isinstance(node, ImageSourceNode):
                images.add(node.filename)
            elif isinstance(node, VideoSourceNode | AudioSourceNode):
                used = looked if isinstance(node, VideoSourceNode) else listened
                used.add((node.stream_guid, None if node.at is None else float(node.at)))
        wanted = looked | listened
        async with trio.open_nursery() as nursery:
            for key in sorted(wanted - self._readers.keys(), key=str):
                nursery.start_soon(self._open, key)
            for name in sorted(images - self._stills.keys()):
                nursery.start_soon(self._load, name)
        await self._drawings.prepare(tree)
        lacking = [f'source "{k[0]}" has no picture: it is not drawn' for k in looked if not self._has_picture(k)]
        lacking += [
            f'source "{k[0]}" has no sound: it is silent' for k in listened if not self._readers[k].steps.has_sound
        ]
        for warning in sorted(set(lacking) - self._warned):
            log.warning(warning)
        self._warned.update(lacking)

    def _has_picture(self, key: Key) -> bool:
        return self._readers[key].steps.picture_size is not None

    async def _open(self, key: Key) -> None:
        name, _ = key
        url = self._spec.sources.get(name, name)
        threads = 1 if self._expected >= self._cores else self._cores
        audio = self._spec.mixer.audio
        opening = partial(open_source, name, url, sound=audio, settings=self._settings, threads=threads)
        # Nobody waits for a silent peer's deadline once the render is given up.
        steps: Steps = await trio.to_thread.run_sync(opening, abandon_on_cancel=True)
        ahead = self._ahead(steps)
        reader = Reader(steps, rate=audio.rate, ahead=ahead, limiter=self._limiter, may_ease=self._may_ease)
        self._readers[key] = reader
        self._nursery.start_soon(reader.run)

    def _ahead(self, steps: Steps) -> int:
        """Frames to decode ahead: few where frames are large and sources many."""
        size = steps.picture_size
        frame_bytes = size.width * size.height * 3 // 2 if size is not None else 1
        room = self._settings.decode_ahead_bytes // self._expected // max(1, frame_bytes)
        return max(MIN_AHEAD, min(self._settings.decode_ahead, room))

    async def _load(self, name: str) -> None:
        path = self._spec.sources.get(name) or str(Path(self._spec.images) / name)
        self._stills[name] = await trio.to_thread.run_sync(load_still, name, path)

    def reader(self, name: str, at: float | None) -> Reader | None:
        """The reader of a source at a media time, or of what is current."""
        return self._readers.get((name, at))

    def still(self, picture: Picture) -> VideoFrame | None:
        """The image of that name, or the drawn picture."""
        return self._stills.get(picture.name) if picture.drawn is None else self._drawings.get(picture.drawn)

    def active(self) -> Mapping[Key, Reader]:
        """All readers."""
        return self._readers


if __name__ == "__main__":
    from engine.command import main

    raise SystemExit(main())
