"""RenderTree: what one output frame looks and sounds like, as an immutable tree that is also its own JSON.

It decides what a legal tree is and says in one sentence why another is not; it refuses to know time, sockets and
pixels. The five nodes of Red5's Brew Mixer keep their exact JSON names; all that we add is optional and means "as plain
Brew Mixer" when it is absent, so a tree that uses none of it reads back as it was put.

Numbers may come as strings (the vendor's pages send them so) and with fractions. A destination rectangle is rounded to
whole pixels by the compiler (`plan.py`); a source rectangle is honoured to 1/65536 pixel, so that a slow pan is smooth.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from engine.color import rgba
from engine.effects import step_of
from engine.errors import InvalidTree
from engine.spec import MAX_HEIGHT, MAX_WIDTH
from engine.strictjson import in_json_words, json_type, parse_json
from engine.structs import ready

MUTE_DB: Final = -100.0  # a gain of this is silence, not a very small factor
MAX_NODES: Final = 256
MAX_DEPTH: Final = 16
MAX_EFFECTS: Final = 16  # of one node
MAX_BYTES: Final = 1 << 20
MAX_MEDIA_TIME: Final = 10_000_000  # seconds
ROUNDING: Final = 1e-6  # what a share may be more than the whole
MAX_FONT_SIZE: Final = 100_000  # pixels

# A bound is set on both: a number may come as an integer or with a fraction.
_UNIT, _SECONDS = Meta(ge=0, le=1), Meta(ge=0, le=MAX_MEDIA_TIME)
_X, _Y = Meta(ge=0, le=MAX_WIDTH), Meta(ge=0, le=MAX_HEIGHT)
_SPAN_X, _SPAN_Y = Meta(ge=-1, le=MAX_WIDTH), Meta(ge=-1, le=MAX_HEIGHT)
_DEST_X, _DEST_Y = Meta(ge=-MAX_WIDTH, le=MAX_WIDTH), Meta(ge=-MAX_HEIGHT, le=MAX_HEIGHT)
_DB, _PAN, _SIZE = Meta(ge=-100, le=20), Meta(ge=-100, le=100), Meta(gt=0, le=MAX_FONT_SIZE)
_PATH = Meta(ge=-MAX_FONT_SIZE, le=MAX_FONT_SIZE)

Number = int | float
Unit = Annotated[int, _UNIT] | Annotated[float, _UNIT]
SourceX = Annotated[int, _X] | Annotated[float, _X]
SourceY = Annotated[int, _Y] | Annotated[float, _Y]
SourceWidth = Annotated[int, _SPAN_X] | Annotated[float, _SPAN_X]  # -1 or absent: to the source's edge
SourceHeight = Annotated[int, _SPAN_Y] | Annotated[float, _SPAN_Y]
DestX = Annotated[int, _DEST_X] | Annotated[float, _DEST_X]
DestY = Annotated[int, _DEST_Y] | Annotated[float, _DEST_Y]
DestWidth = DestX  # negative: mirrored; absent: the whole frame
DestHeight = DestY
MediaTime = Annotated[int, _SECONDS] | Annotated[float, _SECONDS]
Decibels = Annotated[int, _DB] | Annotated[float, _DB]
Pan = Annotated[int, _PAN] | Annotated[float, _PAN]
Speed = Annotated[int, Meta(ge=1, le=2)] | Annotated[float, Meta(ge=0.1, le=2)]
Size = Annotated[int, _SIZE] | Annotated[float, _SIZE]
PathX = Annotated[int, _PATH] | Annotated[float, _PATH]
PathY = PathX
Guid = Annotated[str, Meta(min_length=1, max_length=1024)]
Name = Annotated[str, Meta(min_length=1, max_length=256)]
Fit = Literal["fill", "contain", "cover"]
Direction = Literal["auto", "ltr", "rtl"]


def _no_nodes() -> tuple[Any, ...]:
    """A default that is written out all the same: clients read `nodes` without asking whether it is there."""
    return ()


class _Node(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", tag_field="node"):
    """A node of either branch; `id` lets a transition or a job find it again."""

    id: Name | None = None


class _Painted(_Node, frozen=True, kw_only=True):
    """A node that covers a part of the frame.

    opacity  0…1, of the node as a whole.
    mask     the luma of another node, painted over black at its own place in the frame, decides how much shows: white
             all, black and where it paints nothing none. Luma as stills have it (BT.601), whatever the node is.
    """

    opacity: Unit = 1
    mask: VideoNode | None = None


class _Placed(_Painted, frozen=True, kw_only=True):
    """A node with a rectangle of its own in the frame; pixels, absent = the whole frame."""

    dest_x: DestX | None = None
    dest_y: DestY | None = None
    dest_width: DestWidth | None = None
    dest_height: DestHeight | None = None


class Effect(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """A filter on a source's picture, cropped and scaled to its rectangle: its name and parameters, see effects.py."""

    effect: Name
    parameters: dict[str, Number | str] = {}


class _Cropped(_Placed, frozen=True, kw_only=True):
    """A picture from elsewhere: which part of it, and how it fits its rectangle.

    source_unit  what the part is said in: pixels of the picture, or shares of its width and height.
    """

    source_x: SourceX | None = None
    source_y: SourceY | None = None
    source_width: SourceWidth | None = None
    source_height: SourceHeight | None = None
    source_unit: Literal["pixel", "share"] = "pixel"
    fit: Fit = "fill"
    effects: tuple[Effect, ...] = ()


class CompositorNode(_Painted, frozen=True, kw_only=True, tag=True):
    """A group: its nodes are painted first to last; with opacity below 1 the group fades as one picture."""

    nodes: tuple[VideoNode, ...] = msgspec.field(default_factory=_no_nodes)


class SolidColorNode(_Placed, frozen=True, kw_only=True, tag=True):
    """A colour over the whole frame or a rectangle; non-linear R'G'B' 0…1, alpha blends over what is below."""

    red: Unit = 0.0
    green: Unit = 0.0
    blue: Unit = 0.0
    alpha: Unit = 1.0


class VideoSourceNode(_Cropped, frozen=True, kw_only=True, tag=True):
    """The picture of a stream.

    at     media time in seconds: the picture nearest to that; absent = whatever is current.
    until  media time in seconds: one that begins then or later is not shown for an earlier `at`, however near it is.
    hold   of a file: before its first picture, by a minute at most, that one is shown, even if it begins after `until`,
           and after its last one that; otherwise nothing is. The last one is not looked for behind minutes of sound,
           but in an MP4.
    """

    stream_guid: Guid
    at: MediaTime | None = None
    until: MediaTime | None = None
    hold: bool = False


class ImageSourceNode(_Cropped, frozen=True, kw_only=True, tag=True):
    """An uploaded image."""

    filename: Guid


class TextNode(_Placed, frozen=True, kw_only=True, tag=True):
    """Text in its rectangle; what does not fit in there is cut off.

    font      an uploaded or installed font by its name; absent, or where there is none of that name: the default one.
    size      of the font, in pixels per em.
    color     #rgb, #rgba, #rrggbb or #rrggbbaa.
    direction where a line's words begin: "ltr" at its left, "rtl" at its right, "auto" as its first letter's script
              does.
    align     every line begins at the rectangle's left, has its middle in its middle, or ends at its right.
    vertical  what is painted (the ink, not the line) touches the rectangle's top, is in its middle, touches its
              bottom; or "line": the first line touches the top, wherever its letters reach.
    wrap      whether lines are broken where they get wider than the rectangle; line breaks in `string` always count.
    fit       "fill" stretches the ink to the whole rectangle, whatever `align` and `vertical` say.
    offset    pixels that the text lies to the left of where it would be: of a text that is too wide for one rectangle
              each of several shows a part.
    """

    string: Annotated[str, Meta(max_length=10_000)]
    font: Name | None = None
    size: Size = 48
    color: Name = "#ffffff"
    direction: Direction = "auto"
    align: Literal["left", "center", "right"] = "left"
    vertical: Literal["top", "middle", "bottom", "line"] = "top"
    wrap: bool = False
    fit: Literal["none", "fill"] = "none"
    offset: Annotated[int, Meta(ge=-1_000_000_000, le=1_000_000_000)] = 0


class ShapeNode(_Placed, frozen=True, kw_only=True, tag=True):
    """A filled SVG path, a box of its plane stretched to the rectangle; nothing shows outside.

    path_x, path_y, path_width, path_height say which box, as an SVG's viewBox does.

    path   the `d` of an SVG path (SVG 1.1 §8.3), filled by the nonzero rule; from an error on nothing more is drawn.
    color  #rgb, #rgba, #rrggbb or #rrggbbaa.
    """

    path: Annotated[str, Meta(max_length=100_000)]
    path_x: PathX = 0
    path_y: PathY = 0
    path_width: Size = 100
    path_height: Size = 100
    color: Name = "#ffffff"


class AudioSourceNode(_Node, frozen=True, kw_only=True, tag=True):
    """The sound of a stream: gain in dB (-100 is mute), pan -100 left … 100 right.

    at         media time in seconds where it is when the tree comes on: while it stays on, or another says the same,
               the sound goes on by itself. Absent = whatever is current.
    speed      of the sound of a file, its pitch kept.
    mono_gain  in dB, besides, where a sound of one channel goes to two.
    """

    stream_guid: Guid
    pan: Pan = 0.0
    gain: Decibels = 0.0
    at: MediaTime | None = None
    speed: Speed = 1
    mono_gain: Decibels = 0


class SumNode(_Node, frozen=True, kw_only=True, tag=True):
    """A plain sum of its nodes, with a gain in dB of its own."""

    nodes: tuple[AudioNode, ...] = msgspec.field(default_factory=_no_nodes)
    gain: Decibels = 0


VideoNode = CompositorNode | SolidColorNode | VideoSourceNode | ImageSourceNode | TextNode | ShapeNode
AudioNode = AudioSourceNode | SumNode
Node = VideoNode | AudioNode


class RenderTree(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """One output frame: a video branch and an audio branch; an absent one is black, or silence."""

    root_video_node: VideoNode | None = None
    root_audio_node: AudioNode | None = None

    @classmethod
    def from_json(cls, document: bytes | str) -> RenderTree:
        """The tree of a JSON document. Raises InvalidTree with one sentence and the JSON path."""
        (tree,) = trees_from_json(document, single=True)
        return tree

    def to_json(self) -> bytes:
        """The JSON document of this tree; what is at its default and was not put is left out."""
        return msgspec.json.encode(self)


ready(RenderTree)


def walk(tree: RenderTree) -> Iterator[tuple[str, int, Node]]:
    """Every node with its JSON path and depth (a root has 1), masks too: parents first, in painting order."""
    if tree.root_video_node is not None:
        yield from _walk("$.rootVideoNode", 1, tree.root_video_node)
    if tree.root_audio_node is not None:
        yield from _walk("$.rootAudioNode", 1, tree.root_audio_node)


def nodes_of(tree: RenderTree) -> list[Node]:
    """The nodes that `walk` gives, in a quarter of its time: where nobody asks for their paths."""
    found: list[Node] = []
    waiting: list[Node] = [root for root in (tree.root_audio_node, tree.root_video_node) if root is not None]
    while waiting:
        node = waiting.pop()
        found.append(node)
        if isinstance(node, _Painted) and node.mask is not None:
            waiting.append(node.mask)
        if isinstance(node, CompositorNode | SumNode):
            waiting.extend(reversed(node.nodes))
    return found


def voices_of(node: AudioNode | None, gain_db: float = 0.0) -> Iterator[tuple[AudioSourceNode, float]]:
    """The sources in an audio branch, in order, and the gain along the path of each, dB; -inf = muted on its way."""
    if node is None:
        return
    gain_db = -math.inf if node.gain <= MUTE_DB else gain_db + float(node.gain)
    if isinstance(node, AudioSourceNode):
        yield node, gain_db
    else:
        for child in node.nodes:
            yield from voices_of(child, gain_db)


def factor_of(gain_db: float) -> float:
    """What samples are multiplied by; 0 = mute."""
    factor: float = 0.0 if gain_db <= MUTE_DB else 10 ** (gain_db / 20)
    return factor


def decibels_of(factor: float) -> float:
    """The gain, dB, of a factor; at least MUTE_DB."""
    return MUTE_DB if factor <= 1e-5 else 20 * math.log10(factor)


def check(tree: RenderTree) -> None:
    """Raises InvalidTree when a caller's tree has too many nodes, is too deep, or asks for what there is not.

    Trees that the engine makes itself, a transition between two full ones for example, may be larger.
    """
    for count, (path, depth, node) in enumerate(walk(tree), 1):
        if depth > MAX_DEPTH:
            raise InvalidTree(f"{path}: deeper than {MAX_DEPTH} nodes", where=path)
        if count > MAX_NODES:
            raise InvalidTree(f"{path}: more than {MAX_NODES} nodes", where=path)
        if isinstance(node, TextNode | ShapeNode):
            _check_color(path, node.color)
        elif isinstance(node, _Cropped):
            _check_shares(path, node)
            _check_effects(path, node.effects)


def _walk(path: str, depth: int, node: Node) -> Iterator[tuple[str, int, Node]]:
    yield path, depth, node
    if isinstance(node, CompositorNode | SumNode):
        for n, child in enumerate(node.nodes):
            yield from _walk(f"{path}.nodes[{n}]", depth + 1, child)
    if isinstance(node, _Painted) and node.mask is not None:
        yield from _walk(f"{path}.mask", depth + 1, node.mask)


def _check_color(path: str, color: str) -> None:
    try:
        rgba(color)
    except ValueError as err:
        raise InvalidTree(f"{path}.color: {err}", where=f"{path}.color") from None


def _check_shares(path: str, node: _Cropped) -> None:
    shares = (node.source_x, node.source_y, node.source_width, node.source_height)
    for name, share in zip(("X", "Y", "Width", "Height"), shares, strict=True):
        if node.source_unit == "share" and share is not None and share > 1 + ROUNDING:
            where = f"{path}.source{name}"
            raise InvalidTree(f"{where}: {share} is more than 1, the whole of a share", where=where)


def _check_effects(path: str, effects: tuple[Effect, ...]) -> None:
    if len(effects) > MAX_EFFECTS:
        raise InvalidTree(f"{path}.effects: more than {MAX_EFFECTS} effects", where=f"{path}.effects")
    for n, each in enumerate(effects):
        try:
            step_of(each.effect, each.parameters)
        except InvalidTree as err:
            where = f"{path}.effects[{n}]"
            raise InvalidTree(f"{where}{err}", where=where + err.where) from None


def trees_from_json(document: bytes | str, *, single: bool = False) -> tuple[RenderTree, ...]:
    """The trees of a JSON document: one RenderTree, an array of them, or ``{"rootNodes": [tree, …]}``.

    single  exactly one tree is wanted; an array of one is accepted.

    An object without either branch is taken for some other document, unless it is empty; in an array of trees, of
    which any number is wanted, it is a black and silent one, whatever other fields it has.
    Raises InvalidTree: over 1 MiB, broken JSON, duplicate keys, NaN, unknown nodes, wrong types, numbers out of range,
    over 256 nodes or 16 levels. One sentence, with the JSON path.
    """
    value = parse_json(document, limit_bytes=MAX_BYTES)
    prefix = "$"
    if isinstance(value, dict) and "rootNodes" in value:
        value, prefix = value["rootNodes"], "$.rootNodes"
        if not isinstance(value, list):
            raise InvalidTree(f"{prefix}: expected an array, got {json_type(value)}", where=prefix)
    if isinstance(value, list):
        if single and len(value) != 1:
            raise InvalidTree(f"{prefix}: {len(value)} RenderTrees where one is wanted", where=prefix)
        return tuple(_convert(item, f"{prefix}[{n}]", alone=single) for n, item in enumerate(value))
    return (_convert(value, prefix, alone=True),)


def _convert(value: object, prefix: str, *, alone: bool) -> RenderTree:
    if not isinstance(value, dict):
        raise InvalidTree(f"{prefix}: expected a RenderTree object, got {json_type(value)}", where=prefix)
    if alone and value and not ({"rootVideoNode", "rootAudioNode"} & value.keys()):
        raise InvalidTree(f"{prefix}: neither rootVideoNode nor rootAudioNode", where=prefix)
    try:
        tree = msgspec.convert(value, RenderTree, strict=False)
        check(tree)
        return tree
    except InvalidTree as err:
        where = prefix + err.where[1:]
        raise InvalidTree(prefix + str(err)[1:], where=where) from None
    except msgspec.ValidationError as err:
        path, problem = in_json_words(str(err))
        where = prefix + path[1:]
        raise InvalidTree(f"{where}: {problem}", where=where) from None
