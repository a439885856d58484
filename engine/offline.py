"""An offline render: a program on a virtual clock into a file.

It decides what is opened for a render, and when a render is over; it refuses to know who asked for it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
import trio

from engine.clock import Pace
from engine.compositor import Compositor
from engine.config import Settings
from engine.errors import EngineError, InvalidSpec, SinkRejected, first_error
from engine.frame import VideoFrame
from engine.mixer import Mixer
from engine.plan import Picture, Place
from engine.program import Coming, Held, Program
from engine.sinks import open_sink
from engine.sinks.file import check_output, has_h264
from engine.sinks.pictures import IMAGE_CODECS, is_numbered, is_one_of
from engine.sources import Reader, Steps, check_source, check_still, load_still, open_source
from engine.sources.drawing import Drawings
from engine.sources.places import Places, Use, uses
from engine.sources.reader import decode_ahead
from engine.sources.splice import Splice, find_splice
from engine.spec import RenderSpec
from engine.threads import in_thread
from engine.timebase import tick_count
from engine.tree import RenderTree

log = logging.getLogger(__name__)

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
    copied: int = 0  # ticks whose pictures are packets of a film


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
    began = trio.current_time()
    await in_thread(check, program, spec, abandon_on_cancel=True)

    def tell(done: int, total: int | None) -> None:
        if report is not None:
            report(Progress(done, total, trio.current_time() - began))

    splice = await _find_splice(program, spec, settings)
    try:
        async with trio.open_nursery() as nursery:
            ticks, clipped = await _render(program, spec, settings=settings, tell=tell, nursery=nursery, splice=splice)
            nursery.cancel_scope.cancel()
        tell(ticks, ticks)
    except BaseExceptionGroup as group:  # no except*: up to Python 3.11.3 what is raised there comes out in a group
        ours, others = group.split(EngineError)
        if ours is None or others is not None:
            raise
        raise first_error(ours) from None
    finally:
        if splice is not None:
            with trio.CancelScope(shield=True):
                await in_thread(splice.close)
    copied = 0 if splice is None else sum(len(copy.ticks) for copy in splice.copies)
    return Rendered(spec.made[0].path, ticks, trio.current_time() - began, clipped, copied)


def check(program: Program, spec: RenderSpec) -> None:
    """Looks for what would be refused before the first picture is mixed, as far as that is seen without opening media.

    Worker thread. Raises SinkRejected: what an output cannot be, or SourceError: of local files that are needed.
    """
    for output in spec.made:
        check_output(output, spec.mixer)
    _check_files(program, spec)


def _check_files(program: Program, spec: RenderSpec) -> None:
    """Looks at the local files that a render opens at its start and, where its length is known, at all that it comes
    to, so that none is missed when half is done.

    Raises SourceError, that of whatever comes first on the air; SinkRejected: an output is one of them.
    """
    trees = [program.tree_at(spec.start)]
    if spec.length is not None:
        ticks = 1 if _is_still(spec) else tick_count(spec.length, spec.mixer.fps)
        trees += [tree for _, tree in program.coming(spec.start, spec.start + ticks / spec.mixer.fps)]
    images, streams = set[str](), set[str]()
    for key in (key for tree in trees for key in uses(tree)):
        looked_at, name = (images, key) if isinstance(key, str) else (streams, key.name)
        if name in looked_at:
            continue
        looked_at.add(name)
        if isinstance(key, str):
            path = _image_path(name, spec)
            check_still(name, path)
        else:
            path = spec.sources.get(name, name)
            check_source(name, path)
        _check_not_replaced(name, path, spec)


def _check_not_replaced(name: str, path: str, spec: RenderSpec) -> None:
    """Raises SinkRejected: an output would take the place of what is mixed."""
    source = Path(path.removeprefix("file:"))
    for output in spec.made:
        made = Path(output.path)
        made = made.with_name(source.name) if is_one_of(source.name, output.path) else made
        with suppress(OSError, ValueError):  # one of them is no file, or not there
            if source.samefile(made):
                raise SinkRejected(f'output "{output.path}": it is the file of source "{name}"', where=output.path)


def _image_path(name: str, spec: RenderSpec) -> str:
    return spec.sources.get(name) or str(Path(spec.images) / name)


async def _find_splice(program: Program, spec: RenderSpec, settings: Settings) -> Splice | None:
    """What of the pictures is copied, when there is one output and it is a film in H.264, of the mix's size."""
    output, *others = spec.made
    if spec.smart == "never" or others or output.size is not None or not has_h264(output):
        return None
    finding = partial(find_splice, program, spec, settings, encoder=output.encoder)
    # It may read an hour's program: nobody waits for it once the render is given up.
    return await in_thread(finding, abandon_on_cancel=True)


async def _render(
    program: Program,
    spec: RenderSpec,
    *,
    settings: Settings,
    tell: _Tell,
    nursery: trio.Nursery,
    splice: Splice | None,
) -> tuple[int, int]:
    """Ticks done and samples clipped. Everything started in `nursery` may be cancelled then."""
    may_ease = isinstance(program, Held) and not spec.exact
    program = program if splice is None else splice.program
    sources = _Sources(spec, settings, nursery=nursery, may_ease=may_ease)
    await sources.prepare(program.tree_at(spec.start), spec.start)
    finite = sources.finite()
    ticks = _ticks(spec, endless=not finite)
    most = None if spec.limit is None else tick_count(spec.limit, spec.mixer.fps)
    total = _expected(spec, finite, most) if ticks is None else ticks
    opening = partial(open_sink, spec.made, spec.mixer, limiter=trio.CapacityLimiter(1), splice=splice)
    sink = await in_thread(opening)
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
        await mixer.run(ticks, most=most)
        if mixer.ticks_done == 0:
            raise InvalidSpec(f"every source is over at {float(spec.start):g} s: nothing to render", where="start")
        sink.end()
    return mixer.ticks_done, compositor.clipped


async def _report(mixer: Mixer, total: int | None, tell: _Tell) -> None:
    while True:
        await trio.sleep(REPORT_EVERY)
        done = mixer.ticks_done
        tell(done, None if total is None else max(done, total))  # a container's word may be a tick short


def _is_still(spec: RenderSpec) -> bool:
    """Whether the first picture is all that is made."""
    output, *others = spec.made
    is_image = Path(output.path).suffix.lower() in IMAGE_CODECS and not is_numbered(output.path)
    return is_image and not others and output.waveform is None and output.at == 0


def _ticks(spec: RenderSpec, *, endless: bool) -> int | None:
    """How many ticks are made in any case; None where the sources end it. Raises InvalidSpec when nothing ever ends.

    endless  no source has an end.
    """
    if _is_still(spec):
        return 1
    length = spec.limit if spec.length is None and endless else spec.length
    if length is not None:
        return tick_count(length, spec.mixer.fps)
    if endless:
        raise InvalidSpec("no source here has an end: a duration is needed", where="duration")
    return None


def _expected(spec: RenderSpec, finite: Sequence[Steps], most: int | None) -> int | None:
    """How many ticks there are until these are over, `most` at most; None while only they know."""
    if any(steps.duration is None for steps in finite):
        return None
    longest = max(steps.duration or Fraction(0) for steps in finite)
    ticks = max(0, round((longest - spec.start) * spec.mixer.fps))
    return ticks if most is None else min(ticks, most)


class _Sources:
    """The sources of one render: opened when a tree names them first, or soon will; closed with the nursery."""

    def __init__(self, spec: RenderSpec, settings: Settings, *, nursery: trio.Nursery, may_ease: bool) -> None:
        self._spec = spec
        self._settings = settings
        self._may_ease = may_ease
        self._cores = len(os.sched_getaffinity(0))
        self._limiter = trio.CapacityLimiter(max(2, self._cores))
        self._places = Places(read=self._read, load=self._load, rate=spec.mixer.audio.rate, nursery=nursery)
        self._drawings = Drawings(spec.mixer.raster, spec.sources)
        nursery.start_soon(self._drawings.run)
        self._warned: set[str] = set()

    def expect(self, coming: Sequence[Coming]) -> None:
        """Opens and draws what comes on the air soon."""
        self._drawings.expect(coming)
        self._places.expect((t, uses(tree)) for t, tree in coming)

    async def prepare(self, tree: RenderTree, t: Fraction) -> None:
        """Opens what the tree names and is not open yet, all at once; warns of what is lacking. Raises SourceError."""
        used = uses(tree)
        self._places.name(used)
        await self._places.settle()
        await self._drawings.prepare(tree, t)
        lacking = sorted(
            {each for key, use in used.items() if isinstance(key, Place) for each in self._lacks(key, use)}
        )
        for warning in lacking:
            if warning not in self._warned:
                log.warning(warning)
        self._warned.update(lacking)

    def _lacks(self, place: Place, use: Use) -> Iterator[str]:
        reader = self._places.reader(place)
        if use.looked and (reader is None or reader.picture_size is None):
            yield f'source "{place.name}" has no picture: it is not drawn'
        if use.listened and (reader is None or not reader.has_sound):
            yield f'source "{place.name}" has no sound: it is silent'

    async def _read(self, place: Place) -> Reader:
        opened = len(self._places)
        audio = self._spec.mixer.audio
        opening = partial(
            open_source,
            place.name,
            self._spec.sources.get(place.name, place.name),
            sound=audio,
            settings=self._settings,
            threads=1 if opened >= self._cores else self._cores,
            speed=place.speed,
        )
        # Nobody waits for a silent peer's deadline once the render is given up.
        steps: Steps = await in_thread(opening, abandon_on_cancel=True)
        ahead = decode_ahead(steps, self._settings, readers=opened)
        return Reader(steps, rate=audio.rate, ahead=ahead, limiter=self._limiter, may_ease=self._may_ease)

    async def _load(self, name: str) -> VideoFrame:
        return await in_thread(load_still, name, _image_path(name, self._spec), abandon_on_cancel=True)

    def reader(self, place: Place) -> Reader | None:
        """The reader of a place."""
        return self._places.reader(place)

    def still(self, picture: Picture) -> VideoFrame | None:
        """The image of that name, or the drawn picture."""
        return self._places.still(picture.name) if picture.drawn is None else self._drawings.get(picture.drawn)

    def finite(self) -> list[Steps]:
        """What is read of the sources that come to an end, and so end a render without a duration."""
        readers = [reader for place, reader in self.active().items() if not place.timed]
        return [reader.steps for reader in readers if not reader.steps.endless]

    def active(self) -> Mapping[Place, Reader]:
        """All readers that a tree has named."""
        return self._places.active()
