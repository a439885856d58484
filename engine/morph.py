"""The movement from one tree to another: a program whose trees are those between.

It decides what a transition between two trees looks like; it refuses to know who plays the program, and when.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Final, TypeVar

import msgspec

from engine.program import Coming, names_in
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
    decibels_of,
    factor_of,
    voices_of,
)


def _ease_in_out(x: float) -> float:
    return x * x * (3 - 2 * x)


EASINGS: Final[Mapping[str, Callable[[float], float]]] = {
    "linear": lambda x: x,
    "easeIn": lambda x: x * x,
    "easeOut": lambda x: 1 - (1 - x) ** 2,
    "easeInOut": _ease_in_out,
    "smooth": lambda x: (1 - math.cos(math.pi * x)) / 2,
}
EASING: Final = "easeInOut"  # where none is said


class Morph(msgspec.Struct, frozen=True):
    """A movement from one tree to another over [start, start + duration).

    The picture dissolves: at every pixel 1 - x of the old scene and x of the new one, x from 0 to 1 as `easing` says,
    each with its own order, groups, opacities, masks, colours and effects. So nothing dips, and nothing hidden shows.
    What is the same thing in both moves meanwhile: in both scenes its rectangles, and the size of a text, are those
    between. Two leaves are the same thing when they have the same `id`, or else when they are the n-th of their kind
    showing the same stream, image, text or shape, or of the colours. A group with a mask is one thing, the same when
    all that it shows is; then what is in it moves, and its mask.

    Of the same voice gain and pan go from old to new; what is only old fades out, what is only new fades in.
    """

    old: RenderTree
    new: RenderTree
    start: Fraction
    duration: Fraction
    raster: Raster
    easing: str = EASING

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


Thing = VideoNode  # what moves as one: a leaf, or a group that has a mask
Key = tuple[str, str, int]  # kind, name, n-th of these
Shares = tuple[float, float]  # of a thing's own place and of the other's: their sum is the same both ways round
_RECTANGLE: Final = ("dest_x", "dest_y", "dest_width", "dest_height")
_CROP: Final = ("source_x", "source_y", "source_width", "source_height")
_GROUND: Final = SolidColorNode(id=" ground of a scene")  # black over the whole frame: a scene hides what is below
UNSEEN: Final = 1 / 510  # an opacity below it is painted as nothing
MAX_SCENES: Final = 8  # mixed in one picture: each is painted whole


def _between(old: RenderTree, new: RenderTree, x: float, raster: Raster) -> RenderTree:
    before, after = _thinned(_flat(old.root_video_node)), _flat(new.root_video_node)
    first, second = _known(before), _known(after)
    video = _dissolved(_met(before, second, (1 - x, x), raster), _met(after, first, (x, 1 - x), raster), x)
    audio = _between_sounds(_voices(old.root_audio_node), _voices(new.root_audio_node), x)
    return RenderTree(root_video_node=CompositorNode(nodes=tuple(video)), root_audio_node=SumNode(nodes=tuple(audio)))


T = TypeVar("T", bound=msgspec.Struct)


def _keyed(nodes: Sequence[T], name: Callable[[T], str]) -> dict[Key, T]:
    counts: dict[tuple[str, str], int] = defaultdict(int)
    keyed: dict[Key, T] = {}
    for node in nodes:
        own_id: str | None = getattr(node, "id", None)
        kind = type(node).__name__ if own_id is None else "#"
        label = name(node) if own_id is None else own_id
        keyed[kind, label, counts[kind, label]] = node
        counts[kind, label] += 1
    return keyed


def _flat(node: VideoNode | None) -> list[VideoNode]:
    """The same picture without groups that change nothing."""
    if node is None:
        return []
    if isinstance(node, CompositorNode) and node.mask is None and node.opacity >= 1:
        return [each for child in node.nodes for each in _flat(child)]
    return [node]


def _is_scene(node: VideoNode) -> bool:
    """Whether a transition made it of a whole scene that comes over another."""
    return isinstance(node, CompositorNode) and node.nodes[:1] == (_GROUND,)


def _things(nodes: Sequence[VideoNode]) -> list[Thing]:
    """All things in painting order, but those of scenes that come over this one."""
    found: list[Thing] = []
    for node in nodes:
        if not isinstance(node, CompositorNode) or node.mask is not None:
            found.append(node)
        elif not _is_scene(node):
            found += _things(node.nodes)
    return found


def _known(nodes: Sequence[VideoNode]) -> dict[Key, Thing]:
    """The things of all scenes: what is in several is at the same place in each."""
    keyed = _keyed(_things(nodes), _thing_name)
    for node in nodes:
        if isinstance(node, CompositorNode) and _is_scene(node):
            keyed |= _known(node.nodes[1:])
    return keyed


def _met(nodes: Sequence[VideoNode], others: Mapping[Key, Thing], shares: Shares, raster: Raster) -> list[VideoNode]:
    """The nodes as they are, but what the others have too is at the place between."""
    things = (
        _moved(thing, other, shares, raster) if type(other := others.get(key)) is type(thing) else thing
        for key, thing in _keyed(_things(nodes), _thing_name).items()
    )
    met: list[VideoNode] = []
    for node in _rebuilt(nodes, things):
        if isinstance(node, CompositorNode) and _is_scene(node):
            scene = _met(node.nodes[1:], others, shares, raster)
            node = msgspec.structs.replace(node, nodes=(_GROUND, *scene))
        met.append(node)
    return met


def _rebuilt(nodes: Sequence[VideoNode], things: Iterator[Thing]) -> list[VideoNode]:
    """The same groups of other things."""
    found: list[VideoNode] = []
    for node in nodes:
        if not isinstance(node, CompositorNode) or node.mask is not None:
            node = next(things)
        elif not _is_scene(node):
            node = msgspec.structs.replace(node, nodes=tuple(_rebuilt(node.nodes, things)))
        found.append(node)
    return found


def _thing_name(thing: Thing) -> str:
    """What it shows. Of a group with a mask that is what all in it show."""
    if isinstance(thing, VideoSourceNode):
        return thing.stream_guid
    if isinstance(thing, ImageSourceNode):
        return thing.filename
    if isinstance(thing, TextNode):
        return thing.string
    if isinstance(thing, ShapeNode):
        return thing.path
    if isinstance(thing, CompositorNode):
        return repr([(type(each).__name__, _thing_name(each)) for each in _things(thing.nodes)])
    return ""


def _moved(thing: Thing, other: Thing, shares: Shares, raster: Raster) -> Thing:
    """The thing at the place between its own and the other's, and so its mask."""
    changes: dict[str, object] = {}
    if isinstance(thing, CompositorNode) and isinstance(other, CompositorNode):
        changes["nodes"] = tuple(_met(thing.nodes, _known(other.nodes), shares, raster))
    else:
        changes.update(_place_between(thing, other, shares, raster))
    if thing.mask is not None and other.mask is not None:
        (changes["mask"],) = _met((thing.mask,), _known((other.mask,)), shares, raster)
    return msgspec.structs.replace(thing, **changes) if changes else thing


def _place_between(thing: Thing, other: Thing, shares: Shares, raster: Raster) -> dict[str, float]:
    """The fields of a place that differ, but for two source sizes, which stay as they are: to the edge, which only the
    compiler knows, and 0, which hides the thing: between 0 and another it would be a sliver, stretched over all of it.
    So does a source rectangle in another unit.
    """
    names: tuple[str, ...] = _RECTANGLE
    if isinstance(thing, VideoSourceNode | ImageSourceNode):
        names += _CROP if thing.source_unit == getattr(other, "source_unit", "") else ()
    elif isinstance(thing, TextNode):
        names += ("size",)
    absent = {"dest_width": raster.width, "dest_height": raster.height, "source_width": -1, "source_height": -1}
    place: dict[str, float] = {}
    for name in names:
        a, b = getattr(thing, name), getattr(other, name)
        if a == b:
            continue
        a, b = (absent.get(name, 0) if each is None else each for each in (a, b))
        if name not in ("source_width", "source_height") or min(a, b) > 0:
            place[name] = a * shares[0] + b * shares[1]
    return place


def _dissolved(old: list[VideoNode], new: list[VideoNode], x: float) -> list[VideoNode]:
    """1 - x of one picture and x of the other at every pixel; what both begin and end with is painted once."""
    low = _alike(old, new)
    high = _alike(old[low:][::-1], new[low:][::-1])
    below, leaving, above = old[:low], old[low : len(old) - high], old[len(old) - high :]
    coming = new[low : len(new) - high]
    groups = any(isinstance(node, CompositorNode) and node.mask is None for node in leaving)
    if len(leaving) == len(coming) == 1 and _opaque(leaving[0]) == _opaque(coming[0]):
        opacity = _mix(float(leaving[0].opacity), float(coming[0].opacity), x)
        changing = [msgspec.structs.replace(coming[0], opacity=opacity)]
    elif not any(node.opacity for node in leaving):
        changing = [*leaving, *_faded(coming, x)]
    elif not groups and not any(node.opacity for node in coming):
        changing = [*_faded(leaving, 1 - x), *coming]
    else:
        changing = [*leaving, CompositorNode(nodes=(_GROUND, *below, *coming), opacity=x)]
    return [*below, *changing, *above]


def _alike(some: list[VideoNode], others: list[VideoNode]) -> int:
    """How many they begin with alike."""
    pairs = enumerate(zip(some, others, strict=False))
    return next((n for n, (one, other) in pairs if one != other), min(len(some), len(others)))


def _opaque(node: VideoNode) -> VideoNode:
    return msgspec.structs.replace(node, opacity=1)


def _faded(nodes: list[VideoNode], opacity: float) -> list[VideoNode]:
    """Nodes as one picture of an opacity."""
    if len(nodes) > 1:
        return [CompositorNode(nodes=tuple(nodes), opacity=opacity)]
    return [msgspec.structs.replace(node, opacity=node.opacity * opacity) for node in nodes]


def _thinned(nodes: list[VideoNode]) -> list[VideoNode]:
    """Fewer than MAX_SCENES, without those of which least shows: the scene above takes the share of each."""
    over = [n for n, node in enumerate(nodes) if _is_scene(node)]
    if not over:
        return nodes
    opacities = [1.0, *(float(nodes[n].opacity) for n in over)]
    shares = [each * math.prod(1 - above for above in opacities[k:]) for k, each in enumerate(opacities[:-1], 1)]
    k = shares.index(min(shares))
    if shares[k] >= UNSEEN and len(opacities) < MAX_SCENES:
        return nodes
    n, opacity = over[k], 1 - (1 - opacities[k]) * (1 - opacities[k + 1])
    heir = msgspec.structs.replace(nodes[n], opacity=opacity)
    if k == 0:
        return _thinned([*_flat(heir)[1:], *nodes[n + 1 :]])
    return _thinned([*nodes[: over[k - 1]], *nodes[over[k - 1] + 1 : n], heir, *nodes[n + 1 :]])


def _mix(a: float, b: float, x: float) -> float:
    return a + (b - a) * x


def _voices(node: AudioNode | None) -> list[AudioSourceNode]:
    return [msgspec.structs.replace(voice, gain=max(MUTE_DB, gain_db)) for voice, gain_db in voices_of(node)]


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
    return decibels_of(_mix(factor_of(a), factor_of(b), x))
