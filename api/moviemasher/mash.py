"""Movie Masher's mash and cast documents → the engine's timelines, as the 5.1 core reads them.

It decides what a document means: defaults, lengths, what an id stands for. It refuses to know where documents, media
and fonts are kept; what a name in a tree stands for it only tells (`Film.sources`).

A property with an invalid value has its default, one outside its range the nearest that is allowed. What has no such
answer is an error with the JSON path within ``{"mash": …, "definitions": […]}`` (or ``"cast": …``): something else
where an object or an array must be, an id that stands for nothing.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import abc
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Final, NamedTuple

import msgspec

from api.moviemasher.fields import Fields, colour_of, number_of, quoted, source_of, well_formed
from engine.clip import (
    WHITE,
    Clip,
    Colour,
    ColourTween,
    Container,
    Filter,
    Ink,
    Kind,
    Medium,
    Scale,
    Shape,
    Text,
    Tween,
)
from engine.errors import InvalidMash, InvalidTree
from engine.program import Stack
from engine.spec import MAX_SECONDS, Raster
from engine.strictjson import json_type
from engine.timeline import Mash
from engine.tree import MAX_EFFECTS, SolidColorNode

COLOUR_ID: Final = "com.moviemasher.content.default"
RECTANGLE_ID: Final = "com.moviemasher.container.default"
TEXT_ID: Final = "com.moviemasher.container.text"
FONT_ID: Final = "com.moviemasher.font.default"
FONT: Final = "font"  # the type of its definitions
EFFECT_PREFIX: Final = "com.moviemasher.effect."
FILTER_PREFIX: Final = "com.moviemasher.filter."

MAX_CLIPS: Final = 10_000
MAX_FRAME: Final = 1_000_000_000
MAX_FOLDERS: Final = 32  # of a cast, within one another
DEFAULT_SECONDS: Final = 3  # of a clip whose length nothing says
ROUNDING: Final = Fraction(1, 1000)  # seconds: in which containers count; a frame that lacks no more is a whole one
WIDER: Final = 1.02  # times as wide as a client measured it: from there on a text is in another font here
EFFECTS: Final = ("blur", "sharpen", "emboss", "grayscale", "sepia", "chromakey")
_NO_FILTERS: Final = (
    "fps",
    "setpts",
    "setsar",
    "trim",
)  # about time and pixel shape: nothing to do on a tree's picture

# What a client sends with every request that uses it, and a hand-written document need not: the plain ones.
SHAPES: Final = {
    "com.moviemasher.container.rounded-rect": Shape(
        "M358 980A258 258 0 0 1 100 722V358A258 258 0 0 1 358 100H1562A258 258 0 0 1 1820 358V722A258 258 0 0 1 1562 "
        "980Z",
        1920,
        1080,
    ),
    "com.moviemasher.container.oval": Shape("M0 12A12 12 0 1 1 24 12A12 12 0 1 1 0 12Z", 24, 24),
    # Remix Icon's heart-3-fill, Apache License 2.0.
    "com.remixicon.container.heart": Shape(
        "M16.5 3C19.538 3 22 5.5 22 9c0 7-7.5 11-10 12.5C9.5 20 2 16 2 9c0-3.5 2.5-6 5.5-6C9.36 3 11 4 12 5c1-1 2.64-2 "
        "4.5-2z",
        24,
        24,
    ),
}

_KINDS: Final[dict[str, Kind]] = {
    "image": "image",
    "audio": "sound",
    "video": "film",
    "videosequence": "film",
}

Measure = Callable[[str, str], Ink]  # (string, font id) → where its ink is at 1000 px


class Film(NamedTuple):
    """A document as something to show.

    start    seconds: where its playhead stands, and a render of it begins.
    sources  what the names in its trees stand for: the `source` of the definition, as it was given.
    fonts    the same for the fonts of its texts; built-in ones are not in it.
    seen     whether there is any picture, heard: any sound; colours are seen too.
    """

    program: Mash | Stack
    duration: Fraction
    start: Fraction
    sources: dict[str, str]
    fonts: dict[str, str]
    seen: bool
    heard: bool


def read_mash(
    mash: object,
    definitions: object = (),
    *,
    raster: Raster,
    measure: Measure | None = None,
) -> Film:
    """The film of a mash.

    definitions  those it uses, beside the built-in ones; of two with one id the first counts.
    raster       the output's size: every rectangle follows from it.
    measure      measures texts; their `intrinsic` counts where it is there, and has room for their letters or is that
                 of a font whose file is there. Without either they fill their box's height.
    Raises InvalidMash.
    """
    reader = _Reader(definitions, raster=raster, streams=(), measure=measure)
    document = Fields.of(mash, "$.mash")
    program = reader.mash(document)
    start = Fraction(document.whole("frame", 0, 0, MAX_FRAME), program.quantize)
    return reader.film(program, [program], start if start < program.duration else Fraction(0))


def read_cast(
    cast: object,
    definitions: object = (),
    *,
    raster: Raster,
    streams: abc.Container[str] = (),
    measure: Measure | None = None,
) -> Film:
    """The film of a cast: its mashes over one another, the first layer on top, each beginning again at its end.

    The mashes must be whole, not just their ids. Other arguments and errors as for `read_mash`.

    streams  names of live streams: a video or sound with one of these as its source has no media time.
    """
    reader = _Reader(definitions, raster=raster, streams=streams, measure=measure)
    document = Fields.of(cast, "$.cast")
    layers = list(_layers(document, 0))
    mashes = [reader.mash(layer, prefix=f"{n}/", cast=True) for n, layer in enumerate(layers)]
    background = _background(document)
    colour = None if background is None else SolidColorNode(red=background[0], green=background[1], blue=background[2])
    return reader.film(Stack(mashes[::-1], background=colour), mashes, Fraction(0))


def _layers(folder: Fields, depth: int) -> Iterator[Fields]:
    """The mashes of a folder, topmost first."""
    if depth > MAX_FOLDERS:
        raise InvalidMash(f"{folder.path}: folders within one another more than {MAX_FOLDERS} times", where=folder.path)
    for layer in folder.objects("layers"):
        kind = layer.choice("type", ("mash", "folder"), "")
        if not kind:
            layer.refuse("type", "neither mash nor folder")
        if kind == "folder":
            yield from _layers(layer, depth + 1)
        else:
            yield Fields.of(layer.value.get("mash"), f"{layer.path}.mash")


def _background(document: Fields) -> Colour | None:
    """The colour under everything; black is what is there anyway."""
    red, green, blue, _ = colour_of(document.value.get("color")) or (0, 0, 0, 1)
    return (red, green, blue, 1.0) if red or green or blue else None


# --- documents -------------------------------------------------------------------------------------------------------


class _Nature(NamedTuple):
    """What is natural to a clip's content or container: its size, and how many frames of the mash it lasts."""

    is_default: bool = False
    size: tuple[float, float] | None = None
    timed: bool = False
    frames: int | None = None


_PLAIN: Final = _Nature(is_default=True)
_Form = Shape | Text | Medium | None


class _Reader:
    """Reads documents against one set of definitions; notes which sources and fonts they use."""

    def __init__(
        self, definitions: object, *, raster: Raster, streams: abc.Container[str], measure: Measure | None
    ) -> None:
        if not isinstance(definitions, list | tuple):
            raise InvalidMash(f"$.definitions: expected an array, got {json_type(definitions)}", where="$.definitions")
        self._raster = raster
        self._streams = streams
        self._measure = measure
        self._sources: dict[str, str] = {}
        self._fonts: dict[str, str] = {}
        self._definitions: dict[str, Fields] = {}
        for n, value in enumerate(definitions):
            fields = Fields.of(value, f"$.definitions[{n}]")
            name = fields.value.get("id")
            if isinstance(name, str):
                self._definitions.setdefault(name, fields)

    def film(self, program: Mash | Stack, mashes: list[Mash], start: Fraction) -> Film:
        """All that is known of it."""
        duration = max((mash.duration for mash in mashes), default=Fraction(0))
        seen, heard = any(mash.seen for mash in mashes), any(mash.heard for mash in mashes)
        return Film(program, duration, start, self._sources, self._fonts, seen, heard)

    def mash(self, mash: Fields, *, prefix: str = "", cast: bool = False) -> Mash:
        """The timeline of a mash; in a cast it has no colour of its own, and begins again at its end."""
        quantize = mash.number("quantize", high=1000)
        quantize = int(quantize) if quantize is not None and quantize >= 1 else 10
        fields = mash.objects("tracks")
        if sum(len(each.objects("clips")) for each in fields) > MAX_CLIPS:
            mash.refuse("tracks", f"more than {MAX_CLIPS} clips")
        tracks: list[tuple[int, list[Clip]]] = []
        for n, track in enumerate(fields):
            index = track.whole("index", n, 0, MAX_FRAME)
            dense = track.flag("dense") if track.value.get("dense") is not None else index == 0
            clips = [self._clip(clip, f"{prefix}{n}.{m}", quantize) for m, clip in enumerate(track.objects("clips"))]
            tracks.append((index, _arranged(clips, dense=dense)))
        tracks.sort(key=lambda each: each[0])
        program = Mash(
            [clips for _, clips in tracks],
            raster=self._raster,
            quantize=quantize,
            background=None if cast else _background(mash),
            loop=cast,
        )
        if program.duration > MAX_SECONDS:
            mash.refuse("tracks", f"{float(program.duration):g} s long, more than {MAX_SECONDS}")
        return program

    def _clip(self, clip: Fields, name: str, quantize: int) -> Clip:
        what, nature = self._content(clip, quantize)
        container, form = None, _PLAIN
        if clip.value.get("containerId") != "":
            shown, form = self._form(clip, quantize)
            container = _container(clip.inner("container"), shown, _natural(clip, nature, form))
        frames = clip.whole("frames", -1, -1, MAX_FRAME)
        return Clip(
            id=name,
            frame=clip.whole("frame", 0, 0, MAX_FRAME),
            frames=frames if frames >= 1 else _length(clip, nature, form, quantize),
            content=what,
            scale=_scale(clip.inner("content"), low=1, size=(1, 1), lock="H"),
            container=container,
        )

    # --- what ids stand for ------------------------------------------------------------------------------------------

    def _content(self, clip: Fields, quantize: int) -> tuple[ColourTween | Medium, _Nature]:
        name, fields = _id(clip, "contentId", COLOUR_ID), clip.inner("content")
        if name == COLOUR_ID:
            return fields.colours("color", WHITE), _PLAIN
        found = self._medium(self._definition(clip, "contentId", name), fields, name, quantize)
        if found is None:
            clip.refuse("contentId", f"{quoted(name)} is no image, video or audio")
        return found

    def _form(self, clip: Fields, quantize: int) -> tuple[_Form, _Nature]:
        name, fields = _id(clip, "containerId", RECTANGLE_ID), clip.inner("container")
        if name == RECTANGLE_ID:
            return None, _PLAIN
        if name == TEXT_ID:
            text = self._text(fields)
            return text, _Nature(size=(text.ink.width, text.ink.height))
        shape = SHAPES.get(name)
        if shape is None or name in self._definitions:
            definition = self._definition(clip, "containerId", name)
            found = self._medium(definition, fields, name, quantize)
            if found is not None and found[0].kind != "sound":
                return found
            if definition.value.get("type") != "container":
                clip.refuse("containerId", f"{quoted(name)} is no shape and no picture")
            shape = _shape(definition)
        return shape, _Nature(size=(shape.width, shape.height))

    def _definition(self, clip: Fields, field: str, name: str) -> Fields:
        if name not in self._definitions:
            clip.refuse(field, f"no definition {quoted(name)}")
        return self._definitions[name]

    def _text(self, fields: Fields) -> Text:
        string, font = fields.text("string", "Text", 10_000), _id(fields, "fontId", FONT_ID)
        _check_name(fields, "fontId", font, 256)
        definition = self._definitions.get(font)
        if definition is not None and definition.value.get("type") == FONT and (source := source_of(definition.value)):
            self._fonts[font] = source
        return Text(string, font, self._ink(fields, string, font))

    def _ink(self, fields: Fields, string: str, font: str) -> Ink:
        """The ink box that the client measured; ours where it did not, or in a narrower font than stands in here.

        A font whose file the document brings is the one that the client measured in.
        """
        said = self._intrinsic(fields)
        if said is not None and font in self._fonts:
            return said
        own = Ink(0, 0, 0) if self._measure is None else self._measure(string, font)
        return own if said is None or own.width * said.height > WIDER * said.width * own.height else said

    def _intrinsic(self, fields: Fields) -> Ink | None:
        """The ink box that the client measured; None when it did not, or to nothing."""
        box = fields.value.get("intrinsic")
        size = fields.size("intrinsic")
        if size is None or not isinstance(box, dict):
            return None
        return Ink(min(max(number_of(box.get("x")) or 0, -1e6), 1e6), *size)

    def _medium(self, definition: Fields, fields: Fields, name: str, quantize: int) -> tuple[Medium, _Nature] | None:
        """An image, film or sound with what the clip does to it; None when the definition is of no medium."""
        kind = _KINDS.get(definition.choice("type", tuple(_KINDS), ""))
        if kind is None:
            return None
        source = source_of(definition.value)
        if not source:
            definition.refuse("source", "missing")
        live = source in self._streams
        if live and kind == "image":
            definition.refuse("source", f"{quoted(source)} is a stream, which is no image")
        shown_as = source if live else name
        _check_name(definition, "id", shown_as, 1024)
        if self._sources.setdefault(shown_as, source) != source:
            definition.refuse("source" if live else "id", f"{quoted(shown_as)} is a live stream and the id of a file")
        duration = None if live or kind == "image" else definition.positive("duration")
        timing = _timing(definition, fields, duration, quantize)
        size = definition.size("sourceSize")
        medium = Medium(
            kind=kind,
            name=shown_as,
            live=live,
            size=size,
            length=timing.length,
            trim=timing.trim,
            speed=timing.speed,
            gain=_gain(fields) if _audible(definition, fields, kind=kind, unknown=duration is None) else (),
            filters=self._filters(fields) if kind != "sound" else (),
        )
        natural = None if kind == "sound" else size or definition.size("previewSize")
        return medium, _Nature(size=natural, timed=kind != "image", frames=timing.frames)

    # --- effects -----------------------------------------------------------------------------------------------------

    def _filters(self, fields: Fields) -> tuple[Filter, ...]:
        filters: list[Filter] = []
        for effect in fields.objects("effects"):
            name = _id(effect, "definitionId", "")
            short = name.removeprefix(EFFECT_PREFIX)
            if name.startswith(EFFECT_PREFIX) and short in EFFECTS:
                filters.append(Filter(short, _chromakey(effect) if short == "chromakey" else {}))
            elif name in self._definitions:
                filters += _custom(self._definitions[name], effect)
        if len(filters) > MAX_EFFECTS:
            fields.refuse("effects", f"more than {MAX_EFFECTS} filters")
        return tuple(filters)


def _chromakey(effect: Fields) -> dict[str, Tween | ColourTween | str]:
    return {
        "color": effect.colours("color", (0.0, 1.0, 0.0, 1.0)),
        "similarity": effect.tween("similarity", 0.9, 0, 1),
        "blend": effect.tween("blend", 0, 0, 1),
    }


def _custom(definition: Fields, effect: Fields) -> Iterator[Filter]:
    """The filters of an effect's definition, with the values of the effect's own properties."""
    values: dict[str, object] = {}
    for each in definition.objects("properties"):
        name = each.text("name", "", 256)
        values[name] = effect.value.get(name, each.value.get("defaultValue"))
        if effect.value.get(name + "End") is not None:
            values[name + "End"] = effect.value[name + "End"]
    for each in definition.objects("filters"):
        name = each.text("id", "", 256)
        short = name.removeprefix(FILTER_PREFIX)
        if short not in _NO_FILTERS:
            filter_ = Filter(short, _parameters(each, values))
            try:
                filter_.check()
            except InvalidTree as err:
                problem = str(err).removeprefix(err.where + ": ")
                each.refuse("id" if err.where == ".effect" else err.where[1:], problem)
            yield filter_


def _parameters(each: Fields, values: dict[str, object]) -> dict[str, Tween | ColourTween | str]:
    given: dict[str, object] = {}
    for parameter in each.objects("parameters"):
        name, value = parameter.text("name", "", 256), parameter.value.get("value")
        if not name or not isinstance(value, int | float | str) or isinstance(value, bool):
            parameter.refuse("value", f"expected a name with a number or a string, got {json_type(value)}")
        given[name] = values.get(value) if isinstance(value, str) and value in values else value
        if isinstance(value, str) and value + "End" in values:
            given[name + "End"] = values[value + "End"]
    return {
        name: _changing(value, given.get(name + "End"))
        for name, value in given.items()
        if isinstance(value, int | float | str) and not (name.endswith("End") and name.removesuffix("End") in given)
    }


def _changing(start: float | str, end: object) -> Tween | ColourTween | str:
    first, last = number_of(start), number_of(end)
    if first is not None:
        return Tween(first, first if last is None else last)
    colour = colour_of(start)
    if colour is not None:
        return ColourTween(colour, colour_of(end) or colour)
    return well_formed(str(start)[:10_000])


# --- clips -----------------------------------------------------------------------------------------------------------


class _Timing(NamedTuple):
    """How a medium runs in its clip, in frames of the mash; `frames` is the clip's length by it."""

    speed: Fraction
    trim: int
    length: int | None
    frames: int | None


def _timing(definition: Fields, fields: Fields, duration: Fraction | None, quantize: int) -> _Timing:
    """Both lengths count whole frames, `frames` as the client does; a fast clip is a short one.

    The client rounds `length`, but where a film does not fill it its last picture would stay, at every turn.
    """
    number = fields.number("speed", 0.1, 2)
    speed = Fraction(1) if number is None else Fraction(repr(number))
    trim = fields.whole("startTrim", 0, 0, MAX_FRAME)
    if duration is None:
        return _Timing(speed, trim, None, None)
    trims = trim + fields.whole("endTrim", 0, 0, MAX_FRAME)
    length = max(1, math.floor((duration + ROUNDING) * quantize) - trims)
    loops = fields.whole("loops", 1, 1, MAX_FRAME) if definition.flag("loop") else 1
    frames = math.floor((math.floor(duration * quantize) - trims) * loops / speed)
    return _Timing(speed, trim, length, min(MAX_FRAME, max(1, frames)))


class _Spans:
    """Frames that are taken, as spans [start, stop) in order, apart from one another."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []

    def has(self, frame: int) -> bool:
        """Whether it is taken."""
        n = bisect_right(self._starts, frame) - 1
        return n >= 0 and frame < self._stops[n]

    def add(self, start: int, stop: int) -> None:
        """Takes a span, which may lie over others."""
        first, last = bisect_left(self._stops, start), bisect_right(self._starts, stop)
        if first < last:
            start, stop = min(start, self._starts[first]), max(stop, self._stops[last - 1])
        self._starts[first:last] = [start]
        self._stops[first:last] = [stop]


def _arranged(clips: list[Clip], *, dense: bool) -> list[Clip]:
    """Dense: one after the other. Otherwise what begins within an earlier one goes to the end of the one before it."""
    arranged: list[Clip] = []
    spans = _Spans()
    stop = 0
    for clip in clips:
        moved = clip.frame != stop if dense else spans.has(clip.frame)
        frame = stop if moved else clip.frame
        stop = frame + clip.frames
        spans.add(frame, stop)
        arranged.append(msgspec.structs.replace(clip, frame=frame))
    return sorted(arranged, key=lambda each: each.frame)


def _id(fields: Fields, name: str, default: str) -> str:
    value = fields.value.get(name)
    return value if isinstance(value, str) and value else default


def _check_name(fields: Fields, field: str, name: str, most: int) -> None:
    if not 1 <= len(name) <= most or well_formed(name) != name:
        fields.refuse(field, f"{quoted(name)} is no name of 1…{most} characters")


def _audible(definition: Fields, fields: Fields, *, kind: Kind, unknown: bool) -> bool:
    """Whether it can be heard; a film of unknown length is thought to have sound."""
    if kind == "image" or fields.flag("muted"):
        return False
    return kind == "sound" or unknown or definition.flag("audio") or bool(definition.value.get("audioUrl"))


def _gain(fields: Fields) -> tuple[tuple[float, float], ...]:
    """Points of a gain curve; none when nothing can be heard."""
    value = fields.value.get("gain")
    curve: list[tuple[float, float]] = []
    if isinstance(value, str) and "," in value:
        numbers = [number_of(each) for each in value.split(",")]
        known = [each for each in numbers if each is not None]
        if len(known) == len(numbers):
            curve = [(min(max(a, 0), 1), min(max(b, 0), 2)) for a, b in zip(known[::2], known[1::2], strict=False)]
    if not curve:
        number = fields.number("gain", 0, 2)
        curve = [(0, 1.0 if number is None else number)]
    curve.sort(key=lambda point: point[0])
    level = all(factor == curve[0][1] for _, factor in curve)
    return () if level and not curve[0][1] else tuple(curve[:1] if level else curve)


def _shape(definition: Fields) -> Shape:
    path = definition.text("path", "", 100_000)
    if not path:
        definition.refuse("path", "missing")
    width, height = (definition.side(name, 100_000) for name in ("pathWidth", "pathHeight"))
    if width is None or height is None:
        definition.refuse("pathWidth", "width and height of the path's box must be more than 0")
    return Shape(path, width, height)


def _scale(fields: Fields, *, low: float, size: tuple[float, float], lock: str) -> Scale:
    value = fields.choice("lock", ("H", "V", ""), lock)
    return Scale(
        x=fields.tween("x", 0.5, 0, 1),
        y=fields.tween("y", 0.5, 0, 1),
        width=fields.tween("width", size[0], low, 2),
        height=fields.tween("height", size[1], low, 2),
        lock="H" if value == "H" else "V" if value == "V" else "",
    )


def _container(fields: Fields, form: _Form, natural: tuple[float, float] | None) -> Container:
    """The container, with the defaults of its form."""
    text = isinstance(form, Text)
    film = isinstance(form, Medium) and form.kind == "film"
    return Container(
        form=form,
        scale=_scale(fields, low=0, size=(0.8, 0.3) if text else (1, 1), lock="V" if text else "" if film else "H"),
        off="".join(letter for letter in "NESW" if fields.flag("off" + letter)),
        opacity=fields.tween("opacity", 1, 0, 1),
        natural=natural,
    )


def _length(clip: Fields, content: _Nature, form: _Nature, quantize: int) -> int:
    """Frames of a clip that does not say: as long as its content or container, or three seconds."""
    chosen = next((part for part in _parts(clip, "timing", "custom", content, form) if part.timed), None)
    frames = None if chosen is None else chosen.frames
    return DEFAULT_SECONDS * quantize if frames is None else frames


def _natural(clip: Fields, content: _Nature, form: _Nature) -> tuple[float, float] | None:
    """The size that gives the container its proportions; None = the output's."""
    parts = _parts(clip, "sizing", "preview", content, form)
    return next((part.size for part in parts if part.size is not None), None)


def _parts(clip: Fields, field: str, own: str, content: _Nature, form: _Nature) -> Sequence[_Nature]:
    """The parts of a clip in the order a field asks them; none where it says `own`, or nothing but the default."""
    word = clip.choice(field, ("content", "container", own), "content")
    if word == "content" and not content.is_default:
        return content, form
    if word != own and not form.is_default:
        return form, content
    return ()
