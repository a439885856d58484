"""What is on air, as a function of time: anything with `tree_at(t)` that gives the RenderTree of that moment.

It decides what a transition between two trees looks like; it refuses to know who plays the program, and when.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Final, Protocol, TypeVar

import msgspec

from engine.color import rgba, round_half_up
from engine.spec import Raster
from engine.tree import (
    MUTE_DB,
    AudioNode,
    AudioSourceNode,
    CompositorNode,
    ImageSourceNode,
    RenderTree,
    ShapeNode,
    SolidColorNode,
    SumNode,
    TextNode,
    VideoNode,
    VideoSourceNode,
    walk,
)


class Program(Protocol):
    """What a mixer shows. Pure: the same t gives the same tree; t in Fraction seconds on the program's own clock."""

    def tree_at(self, t: Fraction) -> RenderTree:
        """The tree of the frame that starts at t. An unchanged tree should be the same object: its plan is kept."""

    def sources_in(self, start: Fraction, stop: Fraction) -> frozenset[str]:
        """The streamGuids and image names that some tree within [start, stop) uses."""

    def coming(self, start: Fraction, stop: Fraction) -> Sequence[Coming]:
        """What comes on the air within [start, stop), in order of time: it should be open by then."""

    def edges(self, start: Fraction, stop: Fraction) -> Sequence[Fraction]:
        """The moments within (start, stop), in order, at which sound begins or ends that is cut to the sample."""


Coming = tuple[Fraction, RenderTree]  # the moment at which something comes on the air, and the tree of that moment


def names_in(tree: RenderTree) -> frozenset[str]:
    """The streamGuids and image file names of a tree."""
    names: set[str] = set()
    for _, _, node in walk(tree):
        if isinstance(node, VideoSourceNode | AudioSourceNode):
            names.add(node.stream_guid)
        elif isinstance(node, ImageSourceNode):
            names.add(node.filename)
    return frozenset(names)


class Held(msgspec.Struct, frozen=True):
    """One tree, for ever."""

    tree: RenderTree

    def tree_at(self, t: Fraction) -> RenderTree:
        """The tree."""
        return self.tree

    def sources_in(self, start: Fraction, stop: Fraction) -> frozenset[str]:
        """All of its sources."""
        return names_in(self.tree)

    def coming(self, start: Fraction, stop: Fraction) -> Sequence[Coming]:
        """Nothing: all of it is on already."""
        return ()

    def edges(self, start: Fraction, stop: Fraction) -> Sequence[Fraction]:
        """None."""
        return ()


def _ease_in_out(x: float) -> float:
    return x * x * (3 - 2 * x)


EASINGS: Final[Mapping[str, Callable[[float], float]]] = {
    "linear": lambda x: x,
    "easeIn": lambda x: x * x,
    "easeOut": lambda x: 1 - (1 - x) ** 2,
    "easeInOut": _ease_in_out,
    "smooth": lambda x: (1 - math.cos(math.pi * x)) / 2,
}


class Morph(msgspec.Struct, frozen=True):
    """A movement from one tree to another over [start, start + duration).

    A leaf of the old tree and a leaf of the new one are the same thing when they have the same `id`, or else when they
    are the n-th of their kind showing the same stream, image or (colours) position. Of the same thing, rectangles,
    opacity, colour, gain and pan go from old to new; what is only old fades out, what is only new fades in. The new
    tree gives the painting order; leaving nodes stay just above what they were above.
    """

    old: RenderTree
    new: RenderTree
    start: Fraction
    duration: Fraction
    raster: Raster
    easing: str = "easeInOut"

    def __post_init__(self) -> None:
        """Raises ValueError: an unknown easing, or a negative duration."""
        if self.duration < 0:
            raise ValueError(f"duration {self.duration} s is negative")
        if self.easing not in EASINGS:
            raise ValueError(f'easing "{self.easing}" is not one of {", ".join(EASINGS)}')

    def tree_at(self, t: Fraction) -> RenderTree:
        """The old tree up to `start`, the new one from `start + duration` on, what is between them between."""
        if t >= self.start + self.duration:
            return self.new
        if t <= self.start:
            return self.old
        x = EASINGS[self.easing](float((t - self.start) / self.duration))
        return _between(self.old, self.new, x, self.raster)

    def sources_in(self, start: Fraction, stop: Fraction) -> frozenset[str]:
        """Those of whichever tree is on within [start, stop)."""
        if start >= self.start + self.duration:
            return names_in(self.new)
        if stop <= self.start:
            return names_in(self.old)
        return names_in(self.old) | names_in(self.new)

    def coming(self, start: Fraction, stop: Fraction) -> Sequence[Coming]:
        """The new tree, unless it is on."""
        return ((self.start, self.new),) if start <= self.start < stop else ()

    def edges(self, start: Fraction, stop: Fraction) -> Sequence[Fraction]:
        """None: its sound ramps."""
        return ()


class Switch:
    """Programs that take over from one another: what a live mixer has on air. Not pure: `take` changes it.

    A change takes effect at the first tick at or after its time; of several before one tick the last one counts, so any
    number of changes costs no more than one a tick.
    """

    def __init__(self, program: Program) -> None:
        self._programs: list[tuple[Fraction | None, Program]] = [(None, program)]

    def take(self, program: Program, at: Fraction) -> None:
        """`program` is on from `at` on; what was to take over then or later is not."""
        while (start := self._programs[-1][0]) is not None and start >= at:
            self._programs.pop()
        self._programs.append((at, program))

    def tree_at(self, t: Fraction) -> RenderTree:
        """The tree of whichever program is on at t; t must not decrease between calls."""
        while len(self._programs) > 1 and (self._programs[1][0] or t) <= t:
            del self._programs[0]
        return self._programs[0][1].tree_at(t)

    def peek(self, t: Fraction) -> RenderTree:
        """What will be on at t as things are now; may be asked for any time."""
        program = next(each for start, each in reversed(self._programs) if start is None or start <= t)
        return program.tree_at(t)

    def sources_in(self, start: Fraction, stop: Fraction) -> frozenset[str]:
        """Those of every program that is on within [start, stop)."""
        names: set[str] = set()
        for n, (begin, program) in enumerate(self._programs):
            end = self._programs[n + 1][0] if n + 1 < len(self._programs) else None
            if (begin is None or begin < stop) and (end is None or end > start):
                names |= program.sources_in(start, stop)
        return frozenset(names)

    def coming(self, start: Fraction, stop: Fraction) -> Sequence[Coming]:
        """That of every program while it is on, and the first tree of those that take over."""
        coming: list[Coming] = []
        for n, (begin, program) in enumerate(self._programs):
            end = self._programs[n + 1][0] if n + 1 < len(self._programs) else None
            low, high = max(start, start if begin is None else begin), min(stop, stop if end is None else end)
            if begin is not None and start <= begin < high:
                coming.append((begin, program.tree_at(begin)))
            if low < high:
                coming += program.coming(low, high)
        return coming

    def edges(self, start: Fraction, stop: Fraction) -> Sequence[Fraction]:
        """Those of the program that is on at `start`, until the next one takes over."""
        n = max(n for n, (begin, _) in enumerate(self._programs) if begin is None or begin <= start)
        end = self._programs[n + 1][0] if n + 1 < len(self._programs) else None
        return self._programs[n][1].edges(start, stop if end is None else min(stop, end))


class Stack:
    """Programs over one another, the first lowest; their sound is summed.

    background  a colour under them all; None = black.
    start       the time at which theirs is 0.
    """

    def __init__(
        self, programs: Sequence[Program], *, background: SolidColorNode | None = None, start: Fraction = Fraction(0)
    ) -> None:
        self._programs = tuple(programs)
        self._background = background
        self._start = start
        self._last: tuple[tuple[RenderTree, ...], RenderTree] | None = None

    def tree_at(self, t: Fraction) -> RenderTree:
        """The trees of that moment as one; the same object while theirs are the same objects."""
        trees = tuple(program.tree_at(t - self._start) for program in self._programs)
        if self._last is None or any(a is not b for a, b in zip(trees, self._last[0], strict=True)):
            self._last = trees, self._stacked(trees)
        return self._last[1]

    def sources_in(self, start: Fraction, stop: Fraction) -> frozenset[str]:
        """Those of all of them."""
        begin, end = start - self._start, stop - self._start
        return frozenset[str]().union(*(program.sources_in(begin, end) for program in self._programs))

    def coming(self, start: Fraction, stop: Fraction) -> Sequence[Coming]:
        """That of all of them."""
        begin, end = start - self._start, stop - self._start
        coming = [each for program in self._programs for each in program.coming(begin, end)]
        return [(t + self._start, tree) for t, tree in sorted(coming, key=lambda each: each[0])]

    def edges(self, start: Fraction, stop: Fraction) -> Sequence[Fraction]:
        """Those of all of them."""
        begin, end = start - self._start, stop - self._start
        return sorted({t + self._start for program in self._programs for t in program.edges(begin, end)})

    def _stacked(self, trees: tuple[RenderTree, ...]) -> RenderTree:
        pictures: list[VideoNode] = [] if self._background is None else [self._background]
        pictures += [tree.root_video_node for tree in trees if tree.root_video_node is not None]
        sounds = [tree.root_audio_node for tree in trees if tree.root_audio_node is not None]
        return RenderTree(
            root_video_node=CompositorNode(nodes=tuple(pictures)) if pictures else None,
            root_audio_node=SumNode(nodes=tuple(sounds)) if sounds else None,
        )


Leaf = VideoNode  # a CompositorNode only where it has a mask: what that shows is one thing
Key = tuple[str, str, int]  # kind, name, n-th of these
_RECTANGLES: Final = ("dest_x", "dest_y", "dest_width", "dest_height")
UNSEEN: Final = 1 / 510  # an opacity below it is painted as nothing
_CROPS: Final = ("source_x", "source_y", "source_width", "source_height")


def _between(old: RenderTree, new: RenderTree, x: float, raster: Raster) -> RenderTree:
    before, after = _flat(old.root_video_node, 1.0, raster), _flat(new.root_video_node, 1.0, raster)
    video = _between_pictures(before, after, x, raster)
    audio = _between_sounds(_voices(old.root_audio_node, 0.0), _voices(new.root_audio_node, 0.0), x)
    return RenderTree(root_video_node=CompositorNode(nodes=tuple(video)), root_audio_node=SumNode(nodes=tuple(audio)))


T = TypeVar("T", bound=msgspec.Struct)


def _keyed(nodes: list[T], name: Callable[[T], str]) -> dict[Key, T]:
    counts: dict[tuple[str, str], int] = defaultdict(int)
    keyed: dict[Key, T] = {}
    for node in nodes:
        own_id: str | None = None if isinstance(node, CompositorNode) else getattr(node, "id", None)
        kind = type(node).__name__ if own_id is None else "#"
        label = name(node) if own_id is None else own_id
        keyed[kind, label, counts[kind, label]] = node
        counts[kind, label] += 1
    return keyed


def _flat(node: VideoNode | None, opacity: float, raster: Raster) -> list[Leaf]:
    """The leaves in painting order, groups dissolved, their opacities multiplied in, their rectangles written out."""
    if node is None:
        return []
    opacity *= float(node.opacity)
    if isinstance(node, CompositorNode):
        if node.mask is not None:
            return [msgspec.structs.replace(node, opacity=opacity)]
        return [leaf for child in node.nodes for leaf in _flat(child, opacity, raster)]
    whole = {"dest_x": 0, "dest_y": 0, "dest_width": raster.width, "dest_height": raster.height}
    absent = {name: value for name, value in whole.items() if getattr(node, name) is None}
    return [msgspec.structs.replace(node, opacity=opacity, **absent)]


def _leaf_name(leaf: Leaf) -> str:
    """What makes a leaf the same thing as another: what it shows. Of a masked group that is all that is in it."""
    if isinstance(leaf, VideoSourceNode):
        return leaf.stream_guid
    if isinstance(leaf, ImageSourceNode):
        return leaf.filename
    if isinstance(leaf, TextNode):
        return leaf.string
    if isinstance(leaf, ShapeNode):
        return leaf.path
    if isinstance(leaf, CompositorNode):
        return msgspec.json.encode(msgspec.structs.replace(leaf, id=None, opacity=1)).decode()
    return ""


def _between_pictures(old: list[Leaf], new: list[Leaf], x: float, raster: Raster) -> list[Leaf]:
    before, after = _keyed(old, _leaf_name), _keyed(new, _leaf_name)
    leaving: dict[Key | None, list[Leaf]] = defaultdict(list)  # below which surviving leaf they stand
    anchor: Key | None = None
    for key, leaf in before.items():
        if key in after and type(after[key]) is type(leaf):
            anchor = key
        elif (opacity := float(leaf.opacity) * (1 - x)) >= UNSEEN:
            leaving[anchor].append(msgspec.structs.replace(leaf, opacity=opacity))
    result: list[Leaf] = list(leaving[None])
    for key, leaf in after.items():
        was = before.get(key)
        if was is not None and type(was) is type(leaf):
            result.append(_moved(was, leaf, x, raster))
        else:
            result.append(msgspec.structs.replace(leaf, opacity=float(leaf.opacity) * x))
        result.extend(leaving[key])
    return result


def _moved(old: Leaf, new: Leaf, x: float, raster: Raster) -> Leaf:
    changes: dict[str, object] = {"opacity": _mix(float(old.opacity), float(new.opacity), x)}
    changes["mask"] = _between_masks(old.mask, new.mask, x, raster)
    names: tuple[str, ...] = () if isinstance(new, CompositorNode) else _RECTANGLES
    if isinstance(new, VideoSourceNode | ImageSourceNode):
        names += _CROPS
        changes["effects"] = new.effects if x >= 0.5 or not isinstance(old, type(new)) else old.effects
    for name in names:
        a, b = getattr(old, name), getattr(new, name)
        if name in ("source_x", "source_y"):
            a, b = a or 0, b or 0
        # A source size that is absent means the source's edge, which only the compiler knows: it jumps halfway.
        changes[name] = _mix(a, b, x) if _comparable(name, a, b) else (a if x < 0.5 else b)
    if isinstance(new, SolidColorNode):
        for name in ("red", "green", "blue", "alpha"):
            changes[name] = _mix(float(getattr(old, name)), float(getattr(new, name)), x)
    if isinstance(old, TextNode | ShapeNode) and isinstance(new, TextNode | ShapeNode):
        changes["color"] = _mix_color(old.color, new.color, x)
    if isinstance(old, TextNode) and isinstance(new, TextNode):
        changes["size"] = _mix(float(old.size), float(new.size), x)
    return msgspec.structs.replace(new, **changes)


def _between_masks(old: VideoNode | None, new: VideoNode | None, x: float, raster: Raster) -> VideoNode | None:
    """A mask that moves as what it masks does, or else the one in front of the other as one picture: evenly."""
    if old == new:
        return new
    before, after = _flat(old, 1.0, raster), _flat(new, 1.0, raster)
    if [_kind(leaf) for leaf in before] == [_kind(leaf) for leaf in after] and len(before) == 1:
        return _moved(before[0], after[0], x, raster)
    white = SolidColorNode(red=1.0, green=1.0, blue=1.0)
    front = CompositorNode(opacity=x, nodes=(SolidColorNode(), new or white))
    return CompositorNode(nodes=(old or white, front))


def _kind(leaf: Leaf) -> tuple[type, str]:
    return type(leaf), _leaf_name(leaf)


def _mix_color(old: str, new: str, x: float) -> str:
    parts = zip(rgba(old), rgba(new), strict=True)
    return "#" + "".join(f"{round_half_up(255 * _mix(a, b, x)):02x}" for a, b in parts)


def _comparable(name: str, a: float | None, b: float | None) -> bool:
    if a is None or b is None:
        return False
    return name in _RECTANGLES or min(a, b) >= 0  # a source size of -1 is the source's edge


def _mix(a: float, b: float, x: float) -> float:
    return a + (b - a) * x


def _voices(node: AudioNode | None, gain_db: float) -> list[AudioSourceNode]:
    if node is None:
        return []
    gain_db = -math.inf if node.gain <= MUTE_DB else gain_db + float(node.gain)
    if isinstance(node, SumNode):
        return [voice for child in node.nodes for voice in _voices(child, gain_db)]
    return [msgspec.structs.replace(node, gain=max(MUTE_DB, gain_db))]


def _between_sounds(old: list[AudioSourceNode], new: list[AudioSourceNode], x: float) -> list[AudioSourceNode]:
    before, after = _keyed(old, lambda v: v.stream_guid), _keyed(new, lambda v: v.stream_guid)
    result = []
    for key in [*before, *(key for key in after if key not in before)]:
        a, b = before.get(key), after.get(key)
        known = b or a
        assert known is not None
        gain = _mix_db(a.gain if a else MUTE_DB, b.gain if b else MUTE_DB, x)
        if b is None and gain <= MUTE_DB:
            continue  # it has gone
        pan = _mix(float((a or known).pan), float((b or known).pan), x)
        result.append(msgspec.structs.replace(known, gain=gain, pan=pan))
    return result


def _mix_db(a: float, b: float, x: float) -> float:
    """Loudness goes evenly in amplitude: dB would be silent for most of a fade to or from mute."""
    low = [0.0 if v <= MUTE_DB else 10 ** (v / 20) for v in (a, b)]
    amplitude = _mix(low[0], low[1], x)
    return MUTE_DB if amplitude <= 1e-5 else 20 * math.log10(amplitude)
