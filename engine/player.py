"""One clip on one raster: where it is k frames after it began, what is seen and heard of it, which readers it needs.

It refuses to know which other clips are on.

* Places. The rectangles of a clip's first frame and of its end are computed in whole pixels and what is between is
  their interpolation: its size is cut to whole pixels, its position to even ones. 4:2:0 pictures are placed there by
  the pipeline that mashes were made for. A plain colour ends on even pixels too: its chroma reaches so far there.
* The container decides where, how large and in which shape; the content fills it. A colour in the form of a shape or
  a text is that shape or text in its colour; everything else is the content with the form as a mask.
* Identity. A clip's film and its sound carry the clip's `id`: with the name it says which reader goes on reading. Two
  clips of one film at once are two readers. `at` jumps back where a clip begins its medium again. A clip that goes on
  where the one before it ended, as after a split, has that one's reader: at another speed, another reader's sound would
  not fit to the sample. Where its volume begins as another it has its own: that of one reader slides.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any, Final, Literal, NamedTuple

import msgspec

from engine.clip import WHITE, Clip, Colour, ColourTween, Container, Medium, Shape, Text, Tween, between
from engine.color import hex_of
from engine.rounding import round_half_up
from engine.spec import MAX_HEIGHT, MAX_WIDTH, Raster
from engine.tree import (
    MAX_FONT_SIZE,
    MAX_MEDIA_TIME,
    AudioSourceNode,
    CompositorNode,
    Fit,
    ImageSourceNode,
    ShapeNode,
    SolidColorNode,
    TextNode,
    VideoNode,
    VideoSourceNode,
    decibels_of,
)

_EM: Final = 1000  # pixels: the font size that an ink box was measured at
_TILE: Final = 4096  # pixels of a text that is drawn in parts
_MONO_DB: Final = -3.0103  # of a sound of one channel in two: its power stays, as FFmpeg has it
_NOISE: Final = 1e-6  # of a pixel: what floats add to a whole number must not count as another pixel


class _Box(NamedTuple):
    """A container's rectangle in pixels of the output."""

    x: float
    y: float
    width: float
    height: float

    @property
    def dest(self) -> dict[str, Any]:
        return {"dest_x": self.x, "dest_y": self.y, "dest_width": self.width, "dest_height": self.height}


class _Window(NamedTuple):
    """A content scaled to width × height, and where in it the container's rectangle begins."""

    width: float
    height: float
    x: float
    y: float


class _Moment(NamedTuple):
    """A clip k frames after it began: its rectangle in whole pixels, the content's window, fractions allowed.

    turn   of the mash, 0 the first.
    whole  the rectangle of which `box` is the part that can be seen.
    """

    k: Fraction
    turn: int
    progress: float
    box: _Box
    window: _Window
    whole: _Box

    @classmethod
    def on(cls, raster: Raster, k: Fraction, turn: int, progress: float, box: _Box, window: _Window) -> _Moment:
        """The whole rectangle; where a tree does not allow that, the part of it that is on the frame."""
        x, width, right = _on_frame(box.x, box.width, raster.width, MAX_WIDTH)
        y, height, down = _on_frame(box.y, box.height, raster.height, MAX_HEIGHT)
        moved = window._replace(x=window.x + right, y=window.y + down)
        return cls(k, turn, progress, _Box(x, y, width, height), moved, box)

    @property
    def even(self) -> _Moment:
        """The same with width and height rounded up to even pixels."""
        x, y, width, height = self.box
        return self._replace(box=_Box(x, y, (int(width) + 1) & ~1, (int(height) + 1) & ~1))

    @property
    def dest(self) -> dict[str, Any]:
        return self.box.dest


class Player:
    """One clip on one raster: its rectangles computed, and its picture made once where it does not change.

    before  the player of the clip before it on its track.
    after   the clip after it.
    """

    def __init__(
        self, clip: Clip, raster: Raster, quantize: int, *, before: Player | None = None, after: Clip | None = None
    ) -> None:
        self.clip = clip
        self.id = clip.id  # of the clip whose reader it has
        if before is not None and clip.continues(before.clip) and clip.begins_as_loud_as(before.clip):
            self.id = before.id
        self.goes_on = after is not None and after.container is not None and after.continues(clip)
        self.raster = raster
        self.quantize = quantize
        self.seen = clip.container is not None and not (
            isinstance(clip.content, Medium) and clip.content.kind == "sound"
        )
        self.voices = [each for each in clip.media if each.gain]
        self.used = clip.media if self.seen else self.voices
        self.drawn = self.seen and isinstance(clip.form, Text | Shape)
        highest = MAX_HEIGHT if clip.container is not None and isinstance(clip.container.form, Text) else math.inf
        largest = (math.inf, highest) if clip.may_be_cut else (MAX_WIDTH, MAX_HEIGHT)
        self.boxes = [_box(clip.container, end, raster, largest) for end in (0, 1)]
        self.windows = [_window(clip, end, box) for end, box in enumerate(self.boxes)]
        self.steady = self._is_steady()
        self.still = self.steady and not any(medium.timed or len(medium.gain) > 1 for medium in self.used)
        self._effects = {  # of media whose effects do not change
            id(medium): tuple(each.at(0) for each in medium.filters)
            for medium in clip.media
            if all(each.still for each in medium.filters)
        }
        self._picture: VideoNode | None = None
        # What is another turn's, of the mash or of the medium, has another reader, open when that begins.
        periods = {id(medium): medium.period(quantize) for medium in self.used}
        self.periods = {key: each for key, each in periods.items() if each is not None and each < clip.frames}
        self._bends = self._bends_of_gains()

    def _is_steady(self) -> bool:
        """Whether nothing changes in its picture but the media time of its content."""
        clip = self.clip
        for medium in self.used:
            longest = (medium.trim + clip.frames * medium.speed) / self.quantize
            if medium.timed and (medium is clip.form or longest > MAX_MEDIA_TIME):
                return False
        values: list[Tween | ColourTween] = [clip.content] if isinstance(clip.content, ColourTween) else []
        values += [clip.container.opacity] if clip.container is not None else []
        moved = self.boxes[0] != self.boxes[1] or self.windows[0] != self.windows[1]
        return (
            not moved
            and all(each.still for medium in clip.media for each in medium.filters)
            and all(value.start == value.end for value in values)
        )

    def picture(self, k: Fraction, turn: int) -> VideoNode:
        """What is seen of it k frames after it began, in that turn of the mash."""
        if self._picture is not None:
            return self._picture
        progress = self._progress(k)
        x, y, width, height = (int(value) for value in between(self.boxes[0], self.boxes[1], progress))
        box = _Box(x & ~1, y & ~1, max(2, width), max(2, height))
        window = _Window(*between(self.windows[0], self.windows[1], progress))
        node = self._paint(_Moment.on(self.raster, k, turn, progress, box, window))
        if self.still:
            self._picture = node
        return node

    def sounds(self, k: Fraction, turn: int) -> Iterator[AudioSourceNode]:
        """What is heard of it; a voice at media time `at` sounds from there on, at its speed, until the next tree."""
        for medium in self.voices:
            yield AudioSourceNode(
                id=self._identity(medium, k, turn),
                stream_guid=medium.name,
                gain=decibels_of(_on_curve(medium.gain, self._progress(k))),
                at=medium.media_time(k, self.quantize),
                speed=float(medium.speed) if medium.timed else 1,
                mono_gain=_MONO_DB,
            )

    def _progress(self, k: Fraction) -> float:
        return k.numerator / (k.denominator * self.clip.frames)

    def turns_in(self, start: Fraction, stop: Fraction) -> Iterator[Fraction]:
        """The frames of the mash within [start, stop) at which a medium of it begins again."""
        first, last = self.clip.frame, min(stop, Fraction(self.clip.stop))
        for period in self.periods.values():
            frame = first + max(1, math.ceil((start - first) / period)) * period
            while frame < last:
                yield frame
                frame += period

    def bends_in(self, start: Fraction, stop: Fraction) -> Sequence[Fraction]:
        """The frames of the mash within [start, stop) at which a gain of it begins to move in another way.

        Around each point of a curve it goes straight for 2 ms: a step takes so long, and 1000 in a second are enough.
        """
        low, high = (bisect_left(self._bends, edge) for edge in (start, stop))
        return self._bends[low:high]

    def _bends_of_gains(self) -> list[Fraction]:
        first, stop, a_ms = self.clip.frame, self.clip.stop, Fraction(self.quantize, 1000)
        curves = [medium.gain for medium in self.voices if medium.timed]
        points = {round(x * self.clip.frames / a_ms) for curve in curves for x, _ in curve if 0 < x < 1}
        bends = {first + ms * a_ms for point in points for ms in (point - 1, point + 1)}
        return sorted(bend for bend in bends if first < bend < stop)

    def _identity(self, medium: Medium, k: Fraction, turn: int) -> str | None:
        if not medium.timed:
            return None
        period = self.periods.get(id(medium))
        again = 0 if period is None else k // period
        is_content = medium is self.clip.content
        name = self.id if is_content else self.clip.id
        name = f"{name}~{turn}" if turn else name
        name = f"{name}*{again}" if again else name
        return name if is_content else name + ".container"

    def _paint(self, moment: _Moment) -> VideoNode:
        content, container = self.clip.content, self.clip.container
        assert container is not None
        form = container.form
        opacity = min(1.0, max(0.0, container.opacity.at(moment.progress)))
        if isinstance(content, ColourTween) and isinstance(form, Shape | Text):
            colour = content.at(moment.progress)
            return msgspec.structs.replace(self._form(form, moment, colour), opacity=opacity * colour[3])
        mask = None if form is None else self._form(form, moment, WHITE)
        if isinstance(content, ColourTween):
            dest = moment.dest if mask is not None else moment.even.dest
            node: VideoNode = msgspec.structs.replace(solid(content.at(moment.progress)), **dest)
        else:
            node = self._shown(content, moment, fit="cover" if content.size is None else "fill")
        return msgspec.structs.replace(node, opacity=opacity, mask=mask)

    def _form(self, form: Shape | Text | Medium, moment: _Moment, colour: Colour) -> VideoNode:
        if isinstance(form, Text):
            return self._text(form, moment, colour)
        if isinstance(form, Shape):
            return self._shape(form, moment, colour)
        whole, box = moment.whole, moment.box
        window = _Window(whole.width, whole.height, box.x - whole.x, box.y - whole.y)  # the whole of it, stretched
        return self._shown(form, moment._replace(window=window), fit="fill")

    def _shape(self, shape: Shape, moment: _Moment, colour: Colour) -> VideoNode:
        """It in its box; where that is cut and only moves, in parts as large as the frame, each of which is drawn once,
        and not anew for every place.
        """
        whole, (begin, end) = moment.whole, self.boxes
        parts = [moment.box]
        if moment.box != whole and begin != end and begin[2:] == end[2:]:
            parts = _tiles(whole, self.raster)
        nodes = tuple(
            ShapeNode(path=shape.path, color=hex_of(colour), **_view(shape, whole, part), **part.dest) for part in parts
        )
        return nodes[0] if len(nodes) == 1 else CompositorNode(nodes=nodes)

    def _text(self, text: Text, moment: _Moment, colour: Colour) -> VideoNode:
        """Its ink at the box's top, at the left as far as it was measured; or stretched to the box."""
        moment = moment._replace(box=moment.whole)
        ink, dest, width, offset = text.ink, moment.dest, moment.box.width, 0
        stretched = self.clip.container is not None and not self.clip.container.scale.lock
        fit: Literal["none", "fill"] = "fill" if stretched else "none"
        first, last = (
            round_half_up(box.height * _EM / ink.height) if ink.height > 0 else box.height for box in self.boxes
        )
        size = Tween(first, last).at(moment.progress)
        if not stretched and ink.width > 0 and ink.height > 0:
            if ink.x > 0:  # it reaches left of the pen, where a rectangle that begins at the pen would cut it off
                fit, offset = "fill", -round_half_up(ink.x * size / _EM)
                dest["dest_width"] = max(2, round_half_up(ink.width * size / _EM))
            else:
                shift = round_half_up(ink.x * width / ink.width)
                width = max(width, round_half_up(ink.width / ink.height * size))  # as wide as its letters
                dest |= {"dest_x": moment.box.x + shift, "dest_width": max(2, width - shift)}
        size = min(max(1.0, size), float(MAX_FONT_SIZE))
        look: dict[str, Any] = {"font": text.font, "size": size, "color": hex_of(colour), "fit": fit}
        return self._parts(TextNode(string=text.string, direction="ltr", **look, **dest), offset)

    def _parts(self, text: TextNode, offset: int = 0) -> VideoNode:
        """A text that is wider, or farther off, than a tree allows as those parts of it that are on the frame."""
        x, width = int(text.dest_x or 0), int(text.dest_width or 0)
        if width <= MAX_WIDTH and abs(x) <= MAX_WIDTH:
            return text
        begin = max(0, -x // _TILE)
        stop = min(-(-width // _TILE), -(-(self.raster.width - x) // _TILE))
        parts = [
            {"dest_x": x + left, "dest_width": min(_TILE, width - left), "offset": offset + left}
            for left in range(begin * _TILE, stop * _TILE, _TILE)
        ]
        return CompositorNode(nodes=tuple(msgspec.structs.replace(text, fit="none", **part) for part in parts))

    def _shown(self, medium: Medium, moment: _Moment, *, fit: Fit) -> ImageSourceNode | VideoSourceNode:
        effects = self._effects.get(id(medium)) or tuple(each.at(moment.progress) for each in medium.filters)
        crop = {} if fit == "cover" else _crop(moment)
        endless = medium is self.clip.content and self.goes_on
        if medium.kind == "image":
            return ImageSourceNode(filename=medium.name, fit=fit, effects=effects, **moment.dest, **crop)
        return VideoSourceNode(
            id=self._identity(medium, moment.k, moment.turn),
            stream_guid=medium.name,
            at=medium.media_time(moment.k, self.quantize),
            until=None if endless else medium.until(moment.k, self.clip.frames, self.quantize),
            hold=medium.timed,
            fit=fit,
            effects=effects,
            **moment.dest,
            **crop,
        )


# --- geometry --------------------------------------------------------------------------------------------------------


def _box(container: Container | None, end: int, raster: Raster, largest: tuple[float, float]) -> _Box:
    """The container's rectangle at the clip's first frame (0) or at its end (1); no larger than that."""
    if container is None:
        return _Box(0, 0, 2, 2)
    natural, scale, off = container.natural, container.scale, container.off
    ratio = natural[0] / natural[1] if natural and natural[0] > 0 and natural[1] > 0 else raster.width / raster.height
    wide, high = raster.width * scale.width.at(end), raster.height * scale.height.at(end)
    if scale.lock == "H":
        wide = high * ratio
    elif scale.lock == "V":
        high = wide / ratio
    width, height = min(_ceil2(wide), largest[0]), min(_ceil2(high), largest[1])
    x = _along(scale.x.at(end), raster.width, width, before="E" in off, after="W" in off)
    y = _along(scale.y.at(end), raster.height, height, before="N" in off, after="S" in off)
    return _Box(x, y, width, height)


def _on_frame(begin: float, size: float, room: int, limit: int) -> tuple[float, float, float]:
    """Where a span is seen: the whole of it, or where that is longer or farther off than the limit the part within
    [0, room); and how far into the span that begins.
    """
    if size <= limit and abs(begin) <= limit:
        return begin, size, 0
    low, high = max(begin, 0), min(begin + size, room)
    if high - low < 2:  # nothing of it
        return room, 2, min(max(-begin, 0), size - 2)
    return low, high - low, low - begin


def _along(fraction: float, room: int, size: float, *, before: bool, after: bool) -> int:
    """Where a thing of that size begins: at 0 it touches the near edge or lies just beyond it, at 1 the far one."""
    return round_half_up((room - size + size * (before + after)) * fraction - size * before)


def _window(clip: Clip, end: int, box: _Box) -> _Window:
    """The content at the clip's first frame or at its end: scaled to cover its container, and enlarged."""
    size = clip.content.size if isinstance(clip.content, Medium) else None
    if size is None:
        return _Window(box.width, box.height, 0, 0)
    scale = clip.scale
    wider, higher = scale.width.at(end), scale.height.at(end)
    if scale.lock == "H":
        wider = higher
    elif scale.lock == "V":
        higher = wider
    cover = max(box.width / size[0], box.height / size[1])
    width, height = _ceil2(_ceil2(size[0] * cover) * wider), _ceil2(_ceil2(size[1] * cover) * higher)
    return _Window(width, height, scale.x.at(end) * (width - box.width), scale.y.at(end) * (height - box.height))


def _crop(moment: _Moment) -> dict[str, Any]:
    """The part of a picture which shows in the box; an axis that shows whole is not in it.

    In shares: the size that a document gives a medium is good for its proportions, but need not be the file's.
    """
    box, window = moment.box, moment.window
    crop: dict[str, Any] = {}
    if window.width - box.width > _NOISE:
        crop |= {"source_x": window.x / window.width, "source_width": box.width / window.width}
    if window.height - box.height > _NOISE:
        crop |= {"source_y": window.y / window.height, "source_height": box.height / window.height}
    return crop | {"source_unit": "share"} if crop else crop


def _view(shape: Shape, whole: _Box, part: _Box) -> dict[str, Any]:
    """The box of a shape's own plane which is in that part of its rectangle."""
    view: dict[str, Any] = {"path_width": shape.width, "path_height": shape.height}
    if part.width < whole.width:
        unit = shape.width / whole.width
        view |= {"path_x": (part.x - whole.x) * unit, "path_width": part.width * unit}
    if part.height < whole.height:
        unit = shape.height / whole.height
        view |= {"path_y": (part.y - whole.y) * unit, "path_height": part.height * unit}
    return view


def _tiles(whole: _Box, raster: Raster) -> list[_Box]:
    """The parts of a rectangle that are on the frame; each begins a multiple of the frame's size from its corner, on
    even pixels as it does: they share no chroma.
    """
    across = _steps(whole.x, whole.width, (raster.width + 1) & ~1)
    down = _steps(whole.y, whole.height, (raster.height + 1) & ~1)
    return [_Box(x, y, width, height) for y, height in down for x, width in across]


def _steps(begin: float, size: float, room: int) -> list[tuple[int, int]]:
    """Where parts of a span begin that are on [0, room), and how long they are."""
    first, stop = int(begin), int(begin + size)
    seen = range(first + max(0, -first // room) * room, min(stop, room), room)
    return [(start, min(room, stop - start)) for start in seen]


def _ceil2(value: float) -> int:
    return max(2, math.ceil(value - _NOISE))


# --- values ----------------------------------------------------------------------------------------------------------


def solid(colour: Colour) -> SolidColorNode:
    """A colour as a node."""
    red, green, blue, alpha = colour
    return SolidColorNode(red=red, green=green, blue=blue, alpha=alpha)


def _on_curve(curve: Sequence[tuple[float, float]], position: float) -> float:
    """The factor at a position: linear between the points, level before the first and after the last."""
    before = curve[0]
    for point in curve:
        if point[0] > position:
            if point is curve[0]:
                return point[1]
            return before[1] + (point[1] - before[1]) * (position - before[0]) / (point[0] - before[0])
        before = point
    return before[1]
