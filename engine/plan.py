"""Compiles a RenderTree to a flat plan: what to paint where, in order, and what to sum how loud.

It decides every rectangle, crop, opacity and gain; it refuses to know pixels, samples and time. The compositor only
carries a plan out, so a question "why is this layer at that pixel?" is answered here.

Theory of operation
-------------------
* The tree is walked once, first to last, and every node gives *drafts*: layers whose opacity still counts from that
  node. A group of opacity 1 is dissolved into its parent: painting its children straight onto the canvas is the same
  picture. A group below 1 is dissolved too while its drafts do not overlap (its opacity is multiplied onto them), those
  aside that others cover wholly; where they do, they are painted off screen first, as a *pass* of its own, and become
  one draft: so a crossfade of two scenes fades scenes, not their parts.
* A mask is a pass over black of its own, and what it masks a pass beside it at the same place: where both show, no
  larger. The compositor weighs the one with the luma of the other. So masked things never hide what is below them.
* Effects work on a picture that is cropped and scaled to its rectangle already, as an `Altered` picture: the part of
  it that shows, and as much around it as its effects look at.
* A picture that is not there (`sizes` does not name it) draws nothing. So a plan holds for one set of present pictures
  and their sizes; the mixer compiles anew when that changes.
* Rectangles: destination numbers are rounded half up to whole pixels, each for itself. A source rectangle that reaches
  beyond its picture is cut at the picture's edge, and the destination shrinks by the same share, on the mirrored side
  when mirrored. 0 wide or high, fully off the canvas, opacity 0, less than 1/65536 pixel of a picture: gone.
* Last, back to front, a layer is dropped when later opaque ones cover its visible part wholly. What only dropped
  layers show is not even decoded.
* Sound: gains in dB add up along the path and become linear; -100 dB and below is silence, and is gone, unless it has
  a media time: then it goes on unheard.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Final, NamedTuple, TypeVar

import msgspec

from engine.color import yuv_of
from engine.effects import Convolve, Cut, Fade, Key, Recolour, Step, step_of
from engine.rounding import round_half_up
from engine.spec import Raster
from engine.tree import (
    MUTE_DB,
    AudioSourceNode,
    CompositorNode,
    ImageSourceNode,
    RenderTree,
    ShapeNode,
    SolidColorNode,
    TextNode,
    VideoNode,
    VideoSourceNode,
    factor_of,
    nodes_of,
    voices_of,
)

MAX_PIECES: Final = 64  # a layer covered in more pieces than this counts as visible: looking on would cost more
FINEST: Final = 1 / 65536  # of a pixel: what the kernel counts a crop in
REACH: Final = 2  # pixels that an effect looks at around each: one of chroma

Drawn = TextNode | ShapeNode
_SHOWN: Final = (VideoSourceNode, ImageSourceNode, TextNode, ShapeNode)


class Place(NamedTuple):
    """Where somebody reads: leaves of one place in a source are served by one reader.

    clip   the `id` of a leaf that has a media time: the time moves on, the place stays. Leaves that have name and id in
           common show one moment.
    at     the media time of a leaf without an id: every other time is another place. Neither: whatever is current.
    speed  of its sound; at another speed it is read by itself.
    """

    name: str
    clip: str | None = None
    at: float | None = None
    speed: float = 1.0

    @property
    def timed(self) -> bool:
        """Whether it has a media time of its own."""
        return self.clip is not None or self.at is not None


class Moment(NamedTuple):
    """Which picture of a place is on: that at a media time, seconds, and none that begins at `until` or later.

    at    None = that of the mix's time.
    hold  before the first picture and after the last one these are.
    """

    at: Fraction | None
    until: Fraction | None = None
    hold: bool = False


class Picture(msgspec.Struct, frozen=True):
    """Which picture a layer shows: a stream's (a clip's, at a media time, or the current one), an image's, a drawn one.

    clip   see Place; where it is given, the time is not part of the picture.
    drawn  a text or shape with nothing in it but what its picture depends on; its size is its dest_width and
           dest_height, in whole pixels, absent = the whole frame's.
    """

    name: str
    at: float | None = None
    image: bool = False
    drawn: Drawn | None = None
    clip: str | None = None

    @property
    def place(self) -> Place:
        """Where it is read, unless it is still."""
        return Place(self.name, self.clip, self.at)

    @property
    def still(self) -> bool:
        """Whether it is the same at all times."""
        return self.image or self.drawn is not None


class PictureSize(msgspec.Struct, frozen=True):
    """What the compiler must know of a present picture: its size in pixels, and whether it can be seen through."""

    width: int
    height: int
    opaque: bool = True


class Rect(msgspec.Struct, frozen=True):
    """A rectangle in whole pixels: [x, x + width) × [y, y + height)."""

    x: int
    y: int
    width: int
    height: int

    def clipped(self, to: Rect) -> Rect:
        """The common part; width or height 0 when there is none."""
        x, y = max(self.x, to.x), max(self.y, to.y)
        right, bottom = min(self.right, to.right), min(self.bottom, to.bottom)
        return Rect(x, y, max(0, right - x), max(0, bottom - y))

    @property
    def right(self) -> int:
        """The first column beyond."""
        return self.x + self.width

    @property
    def bottom(self) -> int:
        """The first row beyond."""
        return self.y + self.height

    def overlaps(self, other: Rect) -> bool:
        """Whether they have a pixel in common; each has some."""
        return self.x < other.right and other.x < self.right and self.y < other.bottom and other.y < self.bottom

    @property
    def empty(self) -> bool:
        """Whether it has no pixel."""
        return self.width <= 0 or self.height <= 0


class Crop(msgspec.Struct, frozen=True):
    """A part of a picture in its own pixels, fractions allowed, within the picture."""

    x: float
    y: float
    width: float
    height: float


class Altered(msgspec.Struct, frozen=True, kw_only=True):
    """A picture that effects change before it is painted.

    It is cropped, scaled to `width` × `height` and mirrored first; then `part` of that goes through the steps: it lies
    on even pixels but for where the picture ends.
    """

    picture: Picture
    crop: Crop
    width: int
    height: int
    mirror_x: bool
    mirror_y: bool
    part: Rect
    steps: tuple[Step, ...]


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """One blit: a picture, an altered one, a colour (Y, Cb, Cr), or the result of an earlier pass, into a rectangle.

    dest     not clipped: sampling positions follow from the whole rectangle; the kernel clips.
    alpha    1…255, constant opacity.
    opaque   whether it hides everything below its rectangle.
    """

    dest: Rect
    picture: Picture | None = None
    altered: Altered | None = None
    colour: tuple[int, int, int] | None = None
    group: int | None = None
    crop: Crop = Crop(0, 0, 0, 0)
    mirror_x: bool = False
    mirror_y: bool = False
    alpha: int = 255
    opaque: bool = False

    @property
    def source(self) -> Picture | None:
        """The picture that it shows, altered or not."""
        return self.altered.picture if self.altered is not None else self.picture


class Pass(msgspec.Struct, frozen=True):
    """One target and what is painted onto it, first to last. `bounds`: its place on the canvas, on even pixels.

    veils  it is painted over black, and its luma is the mask of a later pass.
    mask   the earlier pass, of the same bounds, whose luma says how much of this one shows.
    """

    bounds: Rect
    layers: tuple[Layer, ...]
    veils: bool = False
    mask: int | None = None


class Voice(msgspec.Struct, frozen=True):
    """One source in the sum: linear gain and pan -100…100, of the source's current sound or from media time `at`.

    mono  a factor besides, where its sound has one channel and the mix two.

    A voice with a media time is one also while its gain is 0: its sound goes on meanwhile.
    """

    place: Place
    at: float | None
    gain: float
    pan: float
    mono: float = 1.0


class Plan(msgspec.Struct, frozen=True):
    """What one frame needs. The last pass is the picture; earlier ones are groups painted off screen.

    full  whether opaque layers hide the whole canvas, so that nothing needs to be painted under them.
    """

    passes: tuple[Pass, ...]
    voices: tuple[Voice, ...]
    pictures: frozenset[Picture]
    full: bool

    @property
    def layers(self) -> tuple[Layer, ...]:
        """What is painted onto the canvas itself."""
        return self.passes[-1].layers


Sizes = Mapping[Picture, PictureSize]


def compile(tree: RenderTree, raster: Raster, sizes: Sizes) -> Plan:  # noqa: A001 - the field's verb, used qualified
    """The plan of a tree on a canvas.

    sizes    the pictures that are there now; a picture that is not listed draws nothing.
    Returns  layers clipped away, see-through to nothing or wholly covered are not in it.
    Raises   InvalidTree: an effect that there is not; nothing for a tree that `tree.check` let pass.
    """
    canvas = Rect(0, 0, raster.width, raster.height)
    compiler = _Compiler(canvas, sizes)
    drafts = compiler.drafts(tree.root_video_node) if tree.root_video_node is not None else []
    compiler.passes.append(Pass(canvas, _uncovered(_finished(drafts), canvas)))
    passes = _used(compiler.passes)
    pictures = frozenset(layer.source for each in passes for layer in each.layers if layer.source is not None)
    voices = voices_named(tree)
    full = _hidden(canvas, [layer.dest.clipped(canvas) for layer in passes[-1].layers if layer.opaque])
    return Plan(passes, voices, pictures, full)


def pictures_named(tree: RenderTree) -> list[Picture]:
    """Every picture that a tree names, in painting order, masks after what they mask, whether it can be seen or not."""
    return [_picture(node) for node in nodes_of(tree) if isinstance(node, _SHOWN)]


def place_of(node: VideoSourceNode | AudioSourceNode) -> Place:
    """Where a leaf reads."""
    clip = None if node.at is None else node.id
    at = None if node.at is None or clip is not None else float(node.at)
    return Place(node.stream_guid, clip, at, float(node.speed) if isinstance(node, AudioSourceNode) else 1.0)


def moments(tree: RenderTree) -> dict[Place, Moment]:
    """The moment of every place that the tree's pictures have in sources, where more is said than to show it.

    Of a place that several leaves show, the last one says it; one that holds goes before those that do not.
    """
    shown = sorted((node for node in nodes_of(tree) if isinstance(node, VideoSourceNode)), key=lambda node: node.hold)
    return {
        place_of(node): Moment(_fraction(node.at), _fraction(node.until), node.hold)
        for node in shown
        if node.at is not None or node.hold
    }


def _fraction(t: float | None) -> Fraction | None:
    return None if t is None else Fraction(t)


def voices_named(tree: RenderTree) -> tuple[Voice, ...]:
    """What the tree sums; those that are silent, and do not go on meanwhile, are not in it."""
    return tuple(
        _voice(node, gain_db)
        for node, gain_db in voices_of(tree.root_audio_node)
        if gain_db > MUTE_DB or node.at is not None
    )


def _voice(node: AudioSourceNode, gain_db: float) -> Voice:
    at = None if node.at is None else float(node.at)
    return Voice(place_of(node), at, factor_of(gain_db), float(node.pan), factor_of(node.mono_gain))


def pan_gains(gain: float, pan: float) -> tuple[float, float]:
    """Linear gains of the left and the right output for a pan of -100 (left) … 100 (right).

    Constant power, 0 dB at the centre: left = √2·cos θ, right = √2·sin θ, θ from 0 to 90°. A mono source goes to both
    outputs with these gains; a stereo source keeps its channels and has them weighted alike (a balance), so that the
    centre leaves both unchanged. Hard to one side is +3 dB there, and exactly 0 on the other.
    """
    if pan == 0:
        return gain, gain
    theta = (min(max(pan, -100.0), 100.0) + 100.0) / 200.0 * (math.pi / 2)
    left = 0.0 if pan >= 100 else math.sqrt(2) * math.cos(theta)
    right = 0.0 if pan <= -100 else math.sqrt(2) * math.sin(theta)
    return gain * left, gain * right


class _Draft(NamedTuple):
    """A layer as it is at opacity 1, the part of it on the canvas, and its opacity as seen from a node above it."""

    layer: Layer
    visible: Rect
    opacity: float


class _Compiler:
    """Walks one tree; `passes` are the off-screen groups found so far, children before parents."""

    def __init__(self, canvas: Rect, sizes: Sizes) -> None:
        self.canvas = canvas
        self.sizes = sizes
        self.passes: list[Pass] = []

    def drafts(self, node: VideoNode) -> list[_Draft]:
        """What a node paints, first to last, with the opacities from that node on."""
        opacity = float(node.opacity)
        if opacity <= 0:
            return []
        drafts = self._unmasked(node, opacity)
        return drafts if node.mask is None else self._masked(drafts, node.mask)

    def _unmasked(self, node: VideoNode, opacity: float) -> list[_Draft]:
        if isinstance(node, CompositorNode):
            return self._composite(node, opacity)
        if isinstance(node, SolidColorNode):
            return self._draft(_colour(node, self.canvas), float(node.alpha) * opacity)
        return self._draft(_shown(node, self.canvas, self.sizes), opacity)

    def _draft(self, layer: Layer | None, opacity: float) -> list[_Draft]:
        if layer is None or opacity <= 0:
            return []
        visible = layer.dest.clipped(self.canvas)
        return [] if visible.empty else [_Draft(layer, visible, opacity)]

    def _composite(self, node: CompositorNode, opacity: float) -> list[_Draft]:
        drafts = [draft for child in node.nodes for draft in self.drafts(child)]
        if opacity >= 1:
            return drafts
        drafts = _in_sight(drafts, [(draft.visible, draft.layer.opaque and draft.opacity >= 1) for draft in drafts])
        if _overlapping(drafts):
            drafts = self._off_screen(drafts)
        return [draft._replace(opacity=draft.opacity * opacity) for draft in drafts]

    def _off_screen(self, drafts: list[_Draft]) -> list[_Draft]:
        """Drafts as a pass of their own, and that as one draft."""
        layers = _finished(drafts)
        if not layers:
            return []
        bounds = _even(_around([layer.dest.clipped(self.canvas) for layer in layers]))
        return [self._pass(bounds, layers)]

    def _masked(self, drafts: list[_Draft], mask: VideoNode) -> list[_Draft]:
        """Drafts as a pass of their own that the luma of another weighs, and that as one draft."""
        layers = _finished(drafts)
        veils = _finished(self.drafts(mask)) if layers else []
        if not veils:
            return []
        seen, shown = (_around([layer.dest.clipped(self.canvas) for layer in each]) for each in (veils, layers))
        if not seen.overlaps(shown):
            return []
        bounds = _even(seen.clipped(shown))
        self._pass(bounds, veils, veils=True)
        return [self._pass(bounds, layers, mask=len(self.passes) - 1)]

    def _pass(self, bounds: Rect, layers: list[Layer], *, veils: bool = False, mask: int | None = None) -> _Draft:
        """Another pass, the last one by now, and a layer that shows it where it belongs."""
        target = Rect(0, 0, bounds.width, bounds.height)
        layers = [_moved(layer, -bounds.x, -bounds.y) for layer in layers if layer.dest.overlaps(bounds)]
        self.passes.append(Pass(bounds, _uncovered(layers, target), veils, mask))
        crop = Crop(0, 0, bounds.width, bounds.height)
        return _Draft(Layer(dest=bounds, group=len(self.passes) - 1, crop=crop), bounds, 1.0)


def _finished(drafts: list[_Draft]) -> list[Layer]:
    """The layers of a target that nothing is multiplied onto any more; those of which nothing is left are gone."""
    layers = []
    for layer, _, opacity in drafts:
        alpha = round_half_up(opacity * 255)
        if alpha == 255:
            layers.append(layer)
        elif alpha > 0:
            layers.append(msgspec.structs.replace(layer, alpha=alpha, opaque=False))
    return layers


def _colour(node: SolidColorNode, canvas: Rect) -> Layer:
    dest, _, _ = _destination(node, canvas)
    return Layer(dest=dest, colour=yuv_of(float(node.red), float(node.green), float(node.blue)), opaque=True)


def _shown(node: VideoSourceNode | ImageSourceNode | Drawn, canvas: Rect, sizes: Sizes) -> Layer | None:
    picture = _picture(node)
    size = sizes.get(picture)
    if size is None:
        return None
    dest, mirror_x, mirror_y = _destination(node, canvas)
    if isinstance(node, Drawn):
        crop = Crop(0, 0, size.width, size.height)
    else:
        placed = _fitted(node, dest, mirror=(mirror_x, mirror_y), size=size)
        if placed is None:
            return None
        dest, crop = placed
    layer = Layer(dest=dest, picture=picture, crop=crop, mirror_x=mirror_x, mirror_y=mirror_y, opaque=size.opaque)
    return layer if isinstance(node, Drawn) or not node.effects else _altered(layer, node, canvas)


def _altered(layer: Layer, node: VideoSourceNode | ImageSourceNode, canvas: Rect) -> Layer | None:
    """The layer with its node's effects; None when they leave nothing to see."""
    steps = tuple(step_of(each.effect, each.parameters) for each in node.effects)
    dest, seen = layer.dest, layer.dest.clipped(canvas)
    if seen.empty or layer.picture is None:
        return None
    margin = REACH * sum(isinstance(step, Convolve | Key) for step in steps)
    around = Rect(seen.x - dest.x - margin, seen.y - dest.y - margin, seen.width + 2 * margin, seen.height + 2 * margin)
    part = _even(around).clipped(Rect(0, 0, dest.width, dest.height))
    altered = Altered(
        picture=layer.picture,
        crop=layer.crop,
        width=dest.width,
        height=dest.height,
        mirror_x=layer.mirror_x,
        mirror_y=layer.mirror_y,
        part=part,
        steps=steps,
    )
    return Layer(
        dest=Rect(dest.x + part.x, dest.y + part.y, part.width, part.height),
        altered=altered,
        crop=Crop(0, 0, part.width, part.height),
        opaque=layer.opaque and not any(_sees_through(step) for step in steps),
    )


def _sees_through(step: Step) -> bool:
    """Whether it may change alpha."""
    return isinstance(step, Key | Fade | Cut) or (isinstance(step, Recolour) and step.alpha != (0, 0, 0, 1))


def _picture(node: VideoSourceNode | ImageSourceNode | Drawn) -> Picture:
    if isinstance(node, Drawn):
        width, height = (
            None if each is None else round_half_up(abs(each)) for each in (node.dest_width, node.dest_height)
        )
        bare = msgspec.structs.replace(
            node, id=None, opacity=1, mask=None, dest_x=None, dest_y=None, dest_width=width, dest_height=height
        )
        return Picture("", drawn=bare)
    if isinstance(node, ImageSourceNode):
        return Picture(node.filename, image=True)
    place = place_of(node)
    return Picture(place.name, place.at, clip=place.clip)


def _destination(
    node: SolidColorNode | VideoSourceNode | ImageSourceNode | Drawn, canvas: Rect
) -> tuple[Rect, bool, bool]:
    """The rectangle in whole pixels, and whether it is mirrored; a negative size spans its absolute from destX."""
    x = round_half_up(node.dest_x) if node.dest_x is not None else 0
    y = round_half_up(node.dest_y) if node.dest_y is not None else 0
    width = round_half_up(abs(node.dest_width)) if node.dest_width is not None else canvas.width
    height = round_half_up(abs(node.dest_height)) if node.dest_height is not None else canvas.height
    mirror_x = node.dest_width is not None and node.dest_width < 0
    mirror_y = node.dest_height is not None and node.dest_height < 0
    return Rect(x, y, width, height), mirror_x, mirror_y


class _Axis(msgspec.Struct):
    """One axis of a placement: source span [start, start + length) of `limit` onto destination [to, to + size)."""

    start: float
    length: float
    limit: int
    to: float
    size: float
    mirrored: bool

    def is_empty(self) -> bool:
        """Whether there is nothing to show, or nowhere."""
        return self.length < FINEST or self.size <= 0

    def cut(self) -> None:
        """Cuts what reaches beyond [0, limit) of the source, and the same share of the destination."""
        kept = min(self.length, max(0.0, self.limit - self.start))
        size = self.size * kept / self.length
        if self.mirrored:
            self.to += self.size - size
        self.size, self.length = size, kept


def _fitted(
    node: VideoSourceNode | ImageSourceNode, dest: Rect, *, mirror: tuple[bool, bool], size: PictureSize
) -> tuple[Rect, Crop] | None:
    """Where the picture goes and which part of it, both within bounds; None when nothing is left."""
    shares = node.source_unit == "share"
    start, length = _source_span(node.source_x, node.source_width, size.width, shares=shares)
    across = _Axis(start, length, size.width, dest.x, dest.width, mirror[0])
    start, length = _source_span(node.source_y, node.source_height, size.height, shares=shares)
    down = _Axis(start, length, size.height, dest.y, dest.height, mirror[1])
    if across.is_empty() or down.is_empty():
        return None
    if node.fit == "fill":
        across.cut()
        down.cut()
    else:
        _keep_aspect(across, down, cover=node.fit == "cover")
    if across.is_empty() or down.is_empty():
        return None
    left, top = round_half_up(across.to), round_half_up(down.to)
    right, bottom = round_half_up(across.to + across.size), round_half_up(down.to + down.size)
    crop = Crop(across.start, down.start, across.length, down.length)
    return Rect(left, top, right - left, bottom - top), crop


def _source_span(start: float | None, length: float | None, limit: int, *, shares: bool) -> tuple[float, float]:
    """Where a source rectangle, given in shares of `limit` or in pixels, starts and how long it is, in pixels; from a
    start beyond the picture's edge to it is nothing.
    """
    unit = float(limit if shares else 1)
    begin = (start or 0) * unit
    return begin, max(0.0, limit - begin) if length is None or length < 0 else length * unit


def _keep_aspect(across: _Axis, down: _Axis, *, cover: bool) -> None:
    """`contain`: the destination shrinks about its centre. `cover`: the source is cropped about its centre."""
    for axis in (across, down):
        axis.length = min(axis.length, axis.limit - axis.start)
    if across.is_empty() or down.is_empty():
        return
    scale_x, scale_y = across.size / across.length, down.size / down.length
    scale = max(scale_x, scale_y) if cover else min(scale_x, scale_y)
    for axis in (across, down):
        if cover:
            length = axis.size / scale
            axis.start, axis.length = axis.start + (axis.length - length) / 2, length
        else:
            size = axis.length * scale
            axis.to, axis.size = axis.to + (axis.size - size) / 2, size


def _overlapping(drafts: list[_Draft]) -> bool:
    rects = sorted((draft.visible for draft in drafts), key=lambda rect: rect.x)
    for n, rect in enumerate(rects, 1):
        for other in rects[n:]:
            if other.x >= rect.right:
                break
            if rect.overlaps(other):
                return True
    return False


def _around(rects: list[Rect]) -> Rect:
    """The smallest rectangle with all of them in it."""
    x, y = min(rect.x for rect in rects), min(rect.y for rect in rects)
    right, bottom = max(rect.right for rect in rects), max(rect.bottom for rect in rects)
    return Rect(x, y, right - x, bottom - y)


def _even(rect: Rect) -> Rect:
    """The rectangle with its edges moved out to even pixels."""
    x, y = rect.x & ~1, rect.y & ~1
    return Rect(x, y, (rect.right - x + 1) & ~1, (rect.bottom - y + 1) & ~1)


def _moved(layer: Layer, dx: int, dy: int) -> Layer:
    dest = Rect(layer.dest.x + dx, layer.dest.y + dy, layer.dest.width, layer.dest.height)
    return msgspec.structs.replace(layer, dest=dest)


def _uncovered(layers: list[Layer], canvas: Rect) -> tuple[Layer, ...]:
    """The layers without those that later opaque ones cover wholly, one alone or several together."""
    return tuple(_in_sight(layers, [(layer.dest.clipped(canvas), layer.opaque) for layer in layers]))


T = TypeVar("T", _Draft, Layer)


def _in_sight(painted: list[T], shown: list[tuple[Rect, bool]]) -> list[T]:
    """Those of what is painted first to last that is not covered; `shown` says where each is, and whether opaque."""
    kept: list[T] = []
    covers: list[Rect] = []
    for each, (visible, opaque) in reversed(list(zip(painted, shown, strict=True))):
        if _hidden(visible, covers):
            continue
        kept.append(each)
        if opaque:
            covers.append(visible)
    return kept[::-1]


def _hidden(rect: Rect, covers: Iterable[Rect]) -> bool:
    """Whether no pixel of `rect` is outside all of `covers`."""
    left = [rect]
    for cover in (each for each in covers if each.overlaps(rect)):
        left = [piece for each in left for piece in _without(each, cover)]
        if not left or len(left) > MAX_PIECES:
            break
    return not left


def _without(rect: Rect, cover: Rect) -> list[Rect]:
    """What is left of `rect` outside `cover`: the parts above, below, left and right of it."""
    if not cover.overlaps(rect):
        return [rect]
    cut = cover.clipped(rect)
    parts = (
        Rect(rect.x, rect.y, rect.width, cut.y - rect.y),
        Rect(rect.x, cut.bottom, rect.width, rect.bottom - cut.bottom),
        Rect(rect.x, cut.y, cut.x - rect.x, cut.height),
        Rect(cut.right, cut.y, rect.right - cut.right, cut.height),
    )
    return [part for part in parts if not part.empty]


def _used(passes: list[Pass]) -> tuple[Pass, ...]:
    """The passes that the picture needs, renumbered: a covered group needs no painting."""
    needed: set[int] = {len(passes) - 1}
    for n in reversed(range(len(passes))):
        if n in needed:
            needed.update(layer.group for layer in passes[n].layers if layer.group is not None)
            if (mask := passes[n].mask) is not None:
                needed.add(mask)
    if len(needed) == len(passes):
        return tuple(passes)
    number = {old: new for new, old in enumerate(sorted(needed))}
    return tuple(_renumbered(passes[n], number) for n in number)


def _renumbered(each: Pass, number: Mapping[int, int]) -> Pass:
    layers = tuple(
        layer if layer.group is None else msgspec.structs.replace(layer, group=number[layer.group])
        for layer in each.layers
    )
    return Pass(each.bounds, layers, each.veils, None if each.mask is None else number[each.mask])
