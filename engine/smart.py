"""Smart rendering: which ticks of a program show a film's coded pictures as they are, so that their packets are copied.

It decides what is copied and what is encoded; it refuses to know files, containers and bits.

Theory of operation
-------------------
* A tick shows a film **untouched** when the topmost thing in its tree is that film, opaque and over the whole frame,
  with nothing done to it. What is below it does not matter.
* Consecutive ticks that show one film, and go on in it, are a **run**. Which of its pictures is on at each tick is
  found as a reader finds it: the newest that starts at or before the tick's media time and a tolerance, and before the
  out point. Where the next tick shows the next picture, one packet is one tick; a picture left out or shown twice ends
  that.
* A copy begins with a picture that resets the decoder (an IDR picture): what comes after it in the order of decoding
  is shown after it and needs nothing from before. It ends after any packet up to which exactly the first pictures in
  the order of showing are there: what follows needs them, they need nothing of what follows. So at the end of a clip
  at most a few pictures are encoded, at its beginning those up to the next IDR picture.
* Everything else is encoded, each stretch beginning with an IDR picture of its own.
* Time stamps: tick n's picture has the pts n; the j-th packet of the whole output has the dts j - `delay`, and the
  delay is the largest that any copy or encoder needs. So both are even over all joints.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import count, pairwise, repeat
from typing import Final, NamedTuple

from engine.framequeue import short_of, tolerance
from engine.program import Program, stretch_of
from engine.spec import EncoderSpec, MixerSpec, Raster
from engine.timebase import Stretch, tick_count, tick_time
from engine.tree import CompositorNode, RenderTree, VideoNode, VideoSourceNode

LEAST: Final = 10  # ticks; a shorter copy saves less than two more joints cost
LONGEST: Final = 20_000  # ticks of a run, so that a long one does not fill the memory; a joint costs less than a GOP
NEAR: Final = 1  # second; beyond it a film's packets are not read through, but looked for
LOOSENESS: Final = Fraction(5, 4)  # how far beyond the bit rate asked for a film's may be: encoders miss by as much
ENCODER_DELAY: Final = 2  # pictures by which x264 decodes ahead of showing, at most
MAX_REORDER: Final = 16  # pictures that any H.264 stream decodes ahead of showing (A.3.1), at most
LEVEL: Final = 41  # level_idc of what plays everywhere,
PIXELS: Final = 8192 * 256  # how many a picture of it has at most (H.264 A.3.1),
PIXELS_A_SECOND: Final = 245_760 * 256  # and how many a second: 1080p at 30 pictures
_PROFILES: Final = {"baseline": (66,), "main": (66, 77), "high": (66, 77, 100), None: (66, 77, 100)}


class Run(NamedTuple):
    """Ticks [first, first + len(times)) show one film untouched, at these media times.

    timed  they are the film's own.
    until  no picture that starts at that media time or later is shown; None = any is.
    """

    name: str
    first: int
    times: list[Fraction]
    timed: bool = False
    until: float | None = None


class Index(NamedTuple):
    """The coded pictures of a part of a film, in the order of decoding: one packet, one frame.

    pts    when each is shown, in units of time_base; none twice.
    zero   what media time 0 is, in seconds of those.
    idr    which of them reset the decoder.
    """

    time_base: Fraction
    zero: Fraction
    pts: list[int]
    idr: list[bool]

    def unit(self, t: Fraction) -> int:
        """The last pts that is not after media time t."""
        return (t + self.zero) // self.time_base


class Copy(NamedTuple):
    """Ticks [first, stop) are as many packets of a film, in the order of decoding, from the one with the pts `key` on.

    ticks  which tick each of them is, counted from `first`.
    """

    name: str
    first: int
    key: int
    ticks: array[int]

    @property
    def stop(self) -> int:
        """The first tick after it."""
        return self.first + len(self.ticks)

    @property
    def delay(self) -> int:
        """By how many pictures it is decoded ahead of showing."""
        return max(n - tick for n, tick in enumerate(self.ticks))


def may_copy(spec: EncoderSpec) -> bool:
    """Whether an encoder's settings leave room for pictures that somebody else has encoded."""
    limits = (spec.quality, spec.max_bit_rate, spec.qp_min, spec.qp_max)
    return all(limit is None for limit in limits)


def may_have(spec: EncoderSpec, *, profile: int, bit_rate: int) -> bool:
    """Whether the output may have pictures of an H.264 profile (profile_idc) and bit rate; 0 = nobody knows it."""
    return profile in _PROFILES[spec.profile] and (spec.bit_rate is None or 0 < bit_rate <= LOOSENESS * spec.bit_rate)


def may_ask(spec: EncoderSpec, mixer: MixerSpec, *, level: int) -> bool:
    """Whether the output may ask as much of a decoder as a film of an H.264 level (level_idc).

    Where a profile is asked for, it should play everywhere, as far as its size and rate let it.
    """
    pixels = mixer.raster.width * mixer.raster.height
    return spec.profile is None or level <= LEVEL or pixels > PIXELS or pixels * mixer.fps > PIXELS_A_SECOND


def runs(program: Program, *, start: Fraction, ticks: int, fps: Fraction, raster: Raster) -> Iterator[Run]:
    """The runs of a program's ticks [0, ticks), tick 0 being at `start`; those too short to copy are left out."""
    run = Run("", 0, [])
    for n, (node, at) in enumerate(_films(program, start=start, ticks=ticks, fps=fps, raster=raster)):
        if node is None or not _goes_on_in(run, node, at):
            if len(run.times) >= LEAST:
                yield run
            run = Run("" if node is None else node.stream_guid, n, [], node is not None and node.at is not None)
        if node is not None:
            run.times.append(at)
            if node.until != run.until:
                run = run._replace(until=node.until)
    if len(run.times) >= LEAST:
        yield run


def _films(
    program: Program, *, start: Fraction, ticks: int, fps: Fraction, raster: Raster
) -> Iterator[tuple[VideoSourceNode | None, Fraction]]:
    """The film that each tick shows untouched, and its media time."""
    tree: RenderTree | None = None
    node: VideoSourceNode | None = None
    n = 0
    while n < ticks:
        t = start + tick_time(n, fps)
        before, tree = tree, program.tree_at(t)
        if tree is not before:
            node = untouched(tree.root_video_node, raster)
        stretch = stretch_of(program, t)
        if stretch is None:
            yield node, t if node is None or node.at is None else Fraction(node.at)
            n += 1
        else:
            alike = min(ticks - n, tick_count(stretch.stop - t, fps))
            yield from zip(repeat(node, alike), _times(t, stretch, fps), strict=False)
            n += alike


def _times(t: Fraction, stretch: Stretch, fps: Fraction) -> Iterator[Fraction]:
    """The media times from t on, tick by tick, as trees have them; the ticks' own where there are none."""
    at, step = (t, 1 / fps) if stretch.at is None else (stretch.at, stretch.speed / fps)
    unit = at.denominator * step.denominator
    numbers = count(at.numerator * step.denominator, step.numerator * at.denominator)
    if stretch.at is None:
        return (Fraction(number, unit) for number in numbers)
    return (Fraction(number / unit) for number in numbers)  # the nearest float, as every media time


def _goes_on_in(run: Run, node: VideoSourceNode, at: Fraction) -> bool:
    same = run.name == node.stream_guid and run.until in (None, node.until)
    return same and 0 < len(run.times) < LONGEST and 0 <= at - run.times[-1] < NEAR


def untouched(node: VideoNode | None, raster: Raster) -> VideoSourceNode | None:
    """The film that alone is seen, as it is, when it is as large as the raster; None when there is no such."""
    while isinstance(node, CompositorNode):
        if node.opacity != 1 or node.mask is not None or not node.nodes:
            return None
        node = node.nodes[-1]
    if not isinstance(node, VideoSourceNode) or node.opacity != 1 or node.mask is not None or node.effects:
        return None
    places = (node.dest_x, node.dest_y, node.source_x, node.source_y)
    across, down = (node.dest_width, node.source_width), (node.dest_height, node.source_height)
    whole = (
        all(place in (None, 0) for place in places)
        and all(size in (None, raster.width) for size in across)
        and all(size in (None, raster.height) for size in down)
        and (node.source_unit == "pixel" or node.source_width is node.source_height is None)
    )
    return node if whole else None


def copies(run: Run, index: Index, *, fps: Fraction, spec: EncoderSpec) -> list[Copy]:
    """What can be copied of a run, in order."""
    shown = sorted(index.pts)
    slack = tolerance(fps, timed=run.timed)
    until = None if run.until is None else Fraction(run.until)
    latest = (t + (slack if until is None else short_of(until - t, slack)) for t in run.times)
    pictures = [bisect_right(shown, index.unit(t)) - 1 for t in latest]
    places = _Places(index, shown)
    found: list[Copy] = []
    begin = 0
    for n in range(1, len(pictures) + 1):
        if n == len(pictures) or pictures[n] != pictures[n - 1] + 1:
            copy = _copy(run, begin, range(pictures[begin], pictures[n - 1] + 1), places)
            if copy is not None and _is_wanted(copy, places, spec):
                found.append(copy)
            begin = n
    return found


class _Places:
    """Where pictures are in the order of decoding; numbers count in both orders from the index's first picture.

    starts  numbers of pictures with which a copy can begin; they are the same in both orders.
    stops   counts of packets after which one can end.
    """

    def __init__(self, index: Index, shown: Sequence[int]) -> None:
        self.index = index
        number = {pts: n for n, pts in enumerate(shown)}
        self.order = [number[pts] for pts in index.pts]
        self.starts: list[int] = []
        self.stops: list[int] = []
        highest = -1
        for n, each in enumerate(self.order):
            if highest == n - 1:
                self.stops.append(n)
                if index.idr[n] and each == n:
                    self.starts.append(n)
            highest = max(highest, each)
        if highest == len(self.order) - 1:
            self.stops.append(len(self.order))


def _copy(run: Run, begin: int, pictures: range, places: _Places) -> Copy | None:
    """The longest copy among consecutive pictures, the first of which is the one of the run's tick `begin`."""
    after = [start for start in places.starts if start in pictures]
    stops = places.stops[: bisect_right(places.stops, pictures.stop)]
    if not after or not stops or stops[-1] - after[0] < LEAST:
        return None
    first, stop = after[0], stops[-1]
    tick = run.first + begin + first - pictures.start
    return Copy(
        run.name, tick, places.index.pts[first], array("i", (number - first for number in places.order[first:stop]))
    )


def _is_wanted(copy: Copy, places: _Places, spec: EncoderSpec) -> bool:
    """Whether it has an IDR picture as often as was asked for."""
    first = places.index.pts.index(copy.key)
    stop = first + len(copy.ticks)
    marks = [*(n for n in places.starts if first <= n < stop), stop]
    return spec.gop is None or all(after - before <= spec.gop for before, after in pairwise(marks))


class Unseen:
    """A program without the pictures of what is copied: only sound is left of those ticks."""

    def __init__(self, program: Program, copied: Sequence[Copy], *, start: Fraction, fps: Fraction) -> None:
        self._program = program
        self._copied = copied
        self._start = start
        self._fps = fps
        self._firsts = [copy.first for copy in copied]

    def tree_at(self, t: Fraction) -> RenderTree:
        """The program's tree; its sound only, where its picture is copied."""
        tree = self._program.tree_at(t)
        tick = (t - self._start) * self._fps // 1
        n = bisect_right(self._firsts, tick) - 1
        return tree if n < 0 or tick >= self._copied[n].stop else RenderTree(root_audio_node=tree.root_audio_node)

    def sources_in(self, start: Fraction, stop: Fraction) -> frozenset[str]:
        """The program's."""
        return self._program.sources_in(start, stop)

    def coming(self, start: Fraction, stop: Fraction) -> list[tuple[Fraction, RenderTree]]:
        """The program's, as it is seen and heard then."""
        return [(t, self.tree_at(t)) for t, _ in self._program.coming(start, stop)]

    def edges(self, start: Fraction, stop: Fraction) -> Sequence[Fraction]:
        """The program's."""
        return self._program.edges(start, stop)
