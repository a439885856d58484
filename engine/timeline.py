"""A mash: clips on tracks, as a function of time; it decides what is where at t, and which moment of its medium.

It refuses to know the documents that mashes come from, files, pixels and samples.

Theory of operation
-------------------
* Time. A clip is on the air for frames [frame, frame + frames) of the mash, at `quantize` frames a second. Every output
  frame asks anew, so motion is as smooth as the output. k counts frames since the clip began, fractions included.
* Tween. A value goes from `start` to `end` as start + (end - start) · k / frames: it would reach `end` one frame past
  the last. Progress is a float, so that a value which falls on a whole pixel is cut to the same one as FFmpeg cuts it.
* Media time. k frames on, a medium shows (k · speed mod length + trim) / quantize seconds, length being what the trims
  leave of it: a clip longer than its medium begins again. What is live has no media time.
* Places. The rectangles of a clip's first frame and of its end are computed in whole pixels and what is between is
  their interpolation: its size is cut to whole pixels, its position to even ones. 4:2:0 pictures are placed there by
  the pipeline that mashes were made for. A plain colour ends on even pixels too: its chroma reaches so far there.
* The container decides where, how large and in which shape; the content fills it. A colour in the form of a shape or
  a text is that shape or text in its colour; everything else is the content with the form as a mask.
* Identity. A clip's film and its sound carry the clip's `id`: with the name it says which reader goes on reading. Two
  clips of one film at once are two readers. `at` jumps back where a clip begins its medium again.
* A tree is made once as long as nothing in it moves, and handed out again as the same object.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import chain
from typing import Any, Final, Literal, NamedTuple

import msgspec

from engine.effects import step_of
from engine.spec import Raster
from engine.timebase import Stretch
from engine.tree import (
    MUTE_DB,
    AudioNode,
    AudioSourceNode,
    CompositorNode,
    Effect,
    Fit,
    ImageSourceNode,
    RenderTree,
    ShapeNode,
    SolidColorNode,
    SumNode,
    TextNode,
    VideoNode,
    VideoSourceNode,
)

Colour = tuple[float, float, float, float]  # non-linear R'G'B' and alpha, 0…1
Lock = Literal["H", "V", ""]
Kind = Literal["image", "film", "sound"]

WHITE: Final[Colour] = (1.0, 1.0, 1.0, 1.0)
_EM: Final = 1000  # pixels: the font size that an ink box was measured at
_LONGEST: Final = 10_000_000.0  # seconds of media time; more a tree does not allow
_LARGEST: Final = (7680, 4320)  # pixels; a wider or higher rectangle a tree does not allow
_LARGEST_FONT: Final = 100_000.0  # pixels; the same
_TILE: Final = 4096  # pixels of a text that is drawn in parts
LONG_TURN: Final = 1  # seconds of a mash, or medium, that loops; shorter turns share a reader, none is open so soon
MONO_DB: Final = -3.0103  # of a sound of one channel in two: its power stays, as FFmpeg has it
_NOISE: Final = 1e-6  # of a pixel: what floats add to a whole number must not count as another pixel


class Tween(msgspec.Struct, frozen=True):
    """A number that goes evenly from `start` towards `end` while its clip lasts."""

    start: float
    end: float

    @classmethod
    def still(cls, value: float) -> Tween:
        """A number that does not change."""
        return cls(value, value)

    def at(self, progress: float) -> float:
        """The number at 0…1 of the clip."""
        return self.start + (self.end - self.start) * progress


class ColourTween(msgspec.Struct, frozen=True):
    """A colour that goes evenly, per channel, from `start` towards `end`."""

    start: Colour
    end: Colour

    def at(self, progress: float) -> Colour:
        """The colour at 0…1 of the clip."""
        red, green, blue, alpha = _between(self.start, self.end, progress)
        return red, green, blue, alpha


class Scale(msgspec.Struct, frozen=True, kw_only=True):
    """How large a thing is and where, as fractions; `lock` says which of its two sizes follows from the other."""

    x: Tween = Tween(0.5, 0.5)
    y: Tween = Tween(0.5, 0.5)
    width: Tween = Tween(1, 1)
    height: Tween = Tween(1, 1)
    lock: Lock = "H"


class Filter(msgspec.Struct, frozen=True):
    """An effect on a medium's own picture, its parameters as they change while the clip lasts."""

    effect: str
    parameters: dict[str, Tween | ColourTween | str]

    @property
    def still(self) -> bool:
        """Whether it is the same all the time."""
        return all(isinstance(value, str) or value.start == value.end for value in self.parameters.values())

    def at(self, progress: float) -> Effect:
        """The effect at 0…1 of the clip."""
        parameters: dict[str, float | str] = {}
        for name, value in self.parameters.items():
            if isinstance(value, Tween):
                parameters[name] = value.at(progress)
            else:
                parameters[name] = _hex(value.at(progress)) if isinstance(value, ColourTween) else value
        return Effect(effect=self.effect, parameters=parameters)

    def check(self) -> None:
        """Raises InvalidTree, `where` counted from the effect, when there is no such effect or parameter."""
        for progress in (0, 1):
            effect = self.at(progress)
            step_of(effect.effect, effect.parameters)


class Medium(msgspec.Struct, frozen=True, kw_only=True):
    """An image, a film (with or without sound) or a sound, as one clip plays it.

    name    what the tree names: a streamGuid, or an image.
    live    it has no media time: whatever is current.
    size    natural width and height in pixels; None = not known.
    length  frames of the mash after which it begins again; None = never.
    trim    frames of the mash cut from its beginning.
    gain    (position, factor) in order of position, 0…1 of the clip, linear between; none = it is not heard.
    """

    kind: Kind
    name: str
    live: bool = False
    size: tuple[float, float] | None = None
    length: int | None = None
    trim: int = 0
    speed: Fraction = Fraction(1)
    gain: tuple[tuple[float, float], ...] = ()
    filters: tuple[Filter, ...] = ()

    @property
    def timed(self) -> bool:
        """Whether every moment of it is another one."""
        return self.kind != "image" and not self.live

    def period(self, quantize: int) -> Fraction | None:
        """After how many frames of the mash another turn of it begins; None = never, or too soon for a reader each."""
        if not self.timed or self.length is None:
            return None
        period = self.length / self.speed
        return period if period >= LONG_TURN * quantize else None

    def media_time(self, k: Fraction, quantize: int) -> float | None:
        """Which second of it is on k frames into its clip; None = whatever is current."""
        if not self.timed:
            return None
        # In whole numbers over one denominator: a tenth of what Fractions cost, and as exact.
        played, unit = k.numerator * self.speed.numerator, k.denominator * self.speed.denominator
        if self.length is not None:
            played %= self.length * unit
        return min((played + self.trim * unit) / (unit * quantize), _LONGEST)


class Shape(msgspec.Struct, frozen=True):
    """An SVG path in a box of width × height units."""

    path: str
    width: float
    height: float


class Ink(msgspec.Struct, frozen=True):
    """Where a text's ink is at a font size of 1000 px: how far left of the pen and above the line, and its size."""

    x: float
    y: float
    width: float
    height: float


class Text(msgspec.Struct, frozen=True):
    """A line of text in a font."""

    string: str
    font: str
    ink: Ink


class Container(msgspec.Struct, frozen=True, kw_only=True):
    """Where a clip is seen and in which form: a whole rectangle, a shape, a text, or what is bright in a picture.

    off      which edges it may go beyond, of N E S W; as documents have it, E opens the left edge and W the right one.
    natural  width and height that give the rectangle its proportions; None = the output's.
    """

    form: Shape | Text | Medium | None = None
    scale: Scale = Scale()
    off: str = ""
    opacity: Tween = Tween(1, 1)
    natural: tuple[float, float] | None = None


class Clip(msgspec.Struct, frozen=True, kw_only=True):
    """Content in a container for frames [frame, frame + frames) of the mash; without a container it is not seen."""

    id: str
    frame: int
    frames: int
    content: ColourTween | Medium
    scale: Scale = Scale()  # of the content within its container
    container: Container | None = None

    @property
    def stop(self) -> int:
        """The first frame after it."""
        return self.frame + self.frames

    @property
    def form(self) -> Shape | Text | Medium | None:
        """In which it is seen; None = a whole rectangle, or not at all."""
        return None if self.container is None else self.container.form

    @property
    def media(self) -> list[Medium]:
        """What it needs from elsewhere."""
        return [each for each in (self.content, self.form) if isinstance(each, Medium)]

    @property
    def may_be_cut(self) -> bool:
        """Whether a part of its rectangle can be painted alone: not of a shape, of what is stretched without being
        measured, or of what has an unknown size.
        """
        form = self.form
        if isinstance(form, Text) and self.container is not None and not (self.container.scale.lock and form.ink.width):
            return False
        return not isinstance(form, Shape) and all(each.size is not None for each in self.media)


class Mash:
    """A program (see engine.program): tracks of clips, the first track lowest, each track's clips in order of frame.

    quantize    frames per second of every frame number.
    background  drawn under everything; None = nothing is.
    loop        whether it begins again at its end; otherwise only the background is left.
    """

    def __init__(
        self,
        tracks: Sequence[Sequence[Clip]],
        *,
        raster: Raster,
        quantize: int = 10,
        background: Colour | None = None,
        loop: bool = False,
    ) -> None:
        self.tracks = tuple(tuple(clips) for clips in tracks)
        self.raster = raster
        self.quantize = quantize
        self.background = background
        self.loop = loop
        clips = [clip for clips in self.tracks for clip in clips]
        self._players = [_Player(clip, raster, quantize) for clip in clips]
        self._timetable = _Timetable(self._players)
        self._frames = max((clip.stop for clip in clips), default=0)
        self._edges = sorted({edge for clip in clips for edge in (clip.frame, clip.stop)})
        self._begins = sorted({player.clip.frame for player in self._players if player.used})
        heard = [player.clip for player in self._players if player.voices]
        self._sounds = sorted({edge for clip in heard for edge in (clip.frame, clip.stop)})
        self._on_air = _OnAir(0, 0, (), None)

    @property
    def duration(self) -> Fraction:
        """Seconds to the end of the last clip."""
        return Fraction(self._frames, self.quantize)

    @property
    def seen(self) -> bool:
        """Whether any clip has a picture."""
        return any(player.seen for player in self._players)

    @property
    def heard(self) -> bool:
        """Whether any clip has sound."""
        return any(player.voices for player in self._players)

    def tree_at(self, t: Fraction) -> RenderTree:
        """What is on at t: from the first clip to the last, gaps included; before and after, the background."""
        wrapped = self._wrapped(t)
        frame = wrapped * self.quantize
        turn = int((t - wrapped) / self.duration) if wrapped != t and self.duration >= LONG_TURN else 0
        on_air = self._at(frame)
        if on_air.tree is not None:
            return on_air.tree
        return self._tree(on_air.players, frame, turn)

    def stretch(self, t: Fraction) -> Stretch | None:
        """Until clips come or go, or the topmost film begins again; None while the topmost moves, and after all."""
        frame = self._wrapped(t) * self.quantize
        on_air = self._at(frame)
        top = next((player for player in reversed(on_air.players) if player.seen), None)
        if on_air.stop == math.inf or (top is not None and not top.steady):
            return None
        left, at, speed = Fraction(on_air.stop) - frame, None, Fraction(1)
        if top is not None and isinstance(medium := top.clip.content, Medium) and medium.timed:
            played, speed = (frame - top.clip.frame) * medium.speed, medium.speed
            if medium.length is not None:
                played %= medium.length
                left = min(left, (medium.length - played) / speed)
            at = (played + medium.trim) / self.quantize
        return Stretch(t + left / self.quantize, at, speed)

    def sources_in(self, start: Fraction, stop: Fraction) -> frozenset[str]:
        """The names that some tree within [start, stop) has."""
        begin = self._wrapped(start)
        end = begin + (stop - start)
        ranges = [(begin, end)]
        if self.loop and end > self.duration:
            ranges = [(begin, self.duration), (Fraction(0), end - self.duration)]
        return frozenset(
            medium.name
            for low, high in ranges
            for player in self._timetable.within(low * self.quantize, high * self.quantize)
            for medium in player.used
        )

    def coming(self, start: Fraction, stop: Fraction) -> Sequence[tuple[Fraction, RenderTree]]:
        """The moments within [start, stop) at which clips, or turns of them, begin that need something from elsewhere,
        and their trees.
        """
        return [(t, self.tree_at(t)) for t in self._moments(self._begins, start, stop)]

    def edges(self, start: Fraction, stop: Fraction) -> Sequence[Fraction]:
        """The moments within (start, stop) at which what is heard of clips, or turns of 1 s or more, begins or ends."""
        return [t for t in self._moments(self._sounds, start, stop, heard=True) if t > start]

    def _moments(self, marks: Sequence[int], start: Fraction, stop: Fraction, *, heard: bool = False) -> list[Fraction]:
        """The moments within [start, stop), in order, of frames of each turn and of turns within clips."""
        found: set[Fraction] = set()
        for first in self._turns_in(start, stop) if marks else ():
            begin, end = (edge * self.quantize - first for edge in (start, stop))
            low, high = (bisect_left(marks, edge) for edge in (begin, end))
            on_air = (each for each in self._timetable.within(begin, end) if each.voices or not heard)
            frames: Iterator[Fraction | int] = chain(
                marks[low:high], *(player.turns_in(begin, end) for player in on_air)
            )
            found.update(Fraction(first + frame) / self.quantize for frame in frames)
        return sorted(found)

    def _turns_in(self, start: Fraction, stop: Fraction) -> range:
        """The frames at which the turns of the mash begin that are on within [start, stop)."""
        if not self.loop or not self._frames:
            return range(1)
        first = max(0, math.floor(start / self.duration))
        return range(first * self._frames, max(0, math.ceil(stop / self.duration)) * self._frames, self._frames)

    def _wrapped(self, t: Fraction) -> Fraction:
        return t % self.duration if self.loop and t >= 0 and self._frames else t

    def _at(self, frame: Fraction) -> _OnAir:
        if not self._on_air.start <= math.floor(frame) < self._on_air.stop:
            self._on_air = self._look(frame)
        return self._on_air

    def _look(self, frame: Fraction) -> _OnAir:
        """Who is on at a frame, and from when to when nobody comes or goes."""
        now = math.floor(frame)  # clips come and go at whole frames
        players = self._timetable.within(now, now + 1)
        n = bisect_right(self._edges, now)
        start = self._edges[n - 1] if n > 0 else -math.inf
        stop = self._edges[n] if n < len(self._edges) else math.inf
        tree = self._tree(players, frame, 0) if all(player.still for player in players) else None
        return _OnAir(start, stop, tuple(players), tree)

    def _tree(self, players: Sequence[_Player], frame: Fraction, turn: int) -> RenderTree:
        pictures: list[VideoNode] = []
        sounds: list[AudioNode] = []
        if self.background is not None:
            pictures.append(_solid(self.background))
        for player in players:
            k = frame - player.clip.frame
            player.turn = turn
            if player.seen:
                pictures.append(player.picture(k))
            sounds += player.sounds(k)
        return RenderTree(
            root_video_node=CompositorNode(nodes=tuple(pictures)) if pictures else None,
            root_audio_node=SumNode(nodes=tuple(sounds)) if sounds else None,
        )


class _Timetable:
    """The players of a mash, found by time, however many others there are and however long.

    They are sorted by their beginnings. `_stops[level][n]` is the last stop of the n-th 2 ** level of them: where it
    is too early, none of them needs to be looked at.
    """

    def __init__(self, players: Sequence[_Player]) -> None:
        self._players = players
        self._order = sorted(range(len(players)), key=lambda n: players[n].clip.frame)
        self._begins = [players[n].clip.frame for n in self._order]
        self._stops = [[players[n].clip.stop for n in self._order]]
        while len(self._stops[-1]) > 1:
            below = self._stops[-1]
            self._stops.append([max(below[n : n + 2]) for n in range(0, len(below), 2)])

    def within(self, start: Fraction | int, stop: Fraction | int) -> list[_Player]:
        """Who is on at some time of [start, stop), in frames of the mash; in order of painting."""
        begin, begun = math.floor(start), bisect_left(self._begins, math.ceil(stop))
        found: list[int] = []
        places = [(len(self._stops) - 1, 0)]
        while places:
            level, n = places.pop()
            if n << level < begun and self._stops[level][n] > begin:
                if level == 0:
                    found.append(self._order[n])
                else:
                    places += ((level - 1, 2 * n), (level - 1, 2 * n + 1))
        return [self._players[n] for n in sorted(found)]


class _OnAir(NamedTuple):
    """Who is on from `start` to `stop`, in frames of the mash; the tree, where it is the same all that time."""

    start: float
    stop: float
    players: tuple[_Player, ...]
    tree: RenderTree | None


class _Box(NamedTuple):
    """A container's rectangle in pixels of the output."""

    x: float
    y: float
    width: float
    height: float


class _Window(NamedTuple):
    """A content scaled to width × height, and where in it the container's rectangle begins."""

    width: float
    height: float
    x: float
    y: float


class _Moment(NamedTuple):
    """A clip k frames after it began: its rectangle in whole pixels, the content's window, fractions allowed.

    whole  the rectangle of which `box` is the part that can be seen.
    """

    k: Fraction
    progress: float
    box: _Box
    window: _Window
    whole: _Box

    @classmethod
    def on(cls, raster: Raster, k: Fraction, progress: float, box: _Box, window: _Window) -> _Moment:
        """The whole rectangle; where a tree does not allow that, the part of it that is on the frame."""
        x, width, right = _on_frame(box.x, box.width, raster.width, _LARGEST[0])
        y, height, down = _on_frame(box.y, box.height, raster.height, _LARGEST[1])
        moved = window._replace(x=window.x + right, y=window.y + down)
        return cls(k, progress, _Box(x, y, width, height), moved, box)

    @property
    def even(self) -> _Moment:
        """The same with width and height rounded up to even pixels."""
        x, y, width, height = self.box
        return self._replace(box=_Box(x, y, (int(width) + 1) & ~1, (int(height) + 1) & ~1))

    @property
    def dest(self) -> dict[str, Any]:
        x, y, width, height = self.box
        return {"dest_x": x, "dest_y": y, "dest_width": width, "dest_height": height}


class _Player:
    """One clip on one raster: its rectangles computed, and its picture made once where it does not change."""

    def __init__(self, clip: Clip, raster: Raster, quantize: int) -> None:
        self.clip = clip
        self.raster = raster
        self.quantize = quantize
        self.seen = clip.container is not None and not (
            isinstance(clip.content, Medium) and clip.content.kind == "sound"
        )
        self.voices = [each for each in clip.media if each.gain]
        self.used = clip.media if self.seen else self.voices
        highest = _LARGEST[1] if clip.container is not None and isinstance(clip.container.form, Text) else math.inf
        largest = (math.inf, highest) if clip.may_be_cut else _LARGEST
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
        self.turn = 0  # of the mash
        periods = {id(medium): medium.period(quantize) for medium in self.used}
        self.periods = {key: each for key, each in periods.items() if each is not None and each < clip.frames}

    def _is_steady(self) -> bool:
        """Whether nothing changes in its picture but the media time of its content."""
        clip = self.clip
        for medium in self.used:
            longest = (medium.trim + clip.frames * medium.speed) / self.quantize
            if medium.timed and (medium is clip.form or longest > _LONGEST):
                return False
        values: list[Tween | ColourTween] = [clip.content] if isinstance(clip.content, ColourTween) else []
        values += [clip.container.opacity] if clip.container is not None else []
        moved = self.boxes[0] != self.boxes[1] or self.windows[0] != self.windows[1]
        return (
            not moved
            and all(each.still for medium in clip.media for each in medium.filters)
            and all(value.start == value.end for value in values)
        )

    def picture(self, k: Fraction) -> VideoNode:
        """What is seen of it k frames after it began."""
        if self._picture is not None:
            return self._picture
        progress = self._progress(k)
        x, y, width, height = (int(value) for value in _between(self.boxes[0], self.boxes[1], progress))
        box = _Box(x & ~1, y & ~1, max(2, width), max(2, height))
        window = _Window(*_between(self.windows[0], self.windows[1], progress))
        node = self._paint(_Moment.on(self.raster, k, progress, box, window))
        if self.still:
            self._picture = node
        return node

    def sounds(self, k: Fraction) -> Iterator[AudioSourceNode]:
        """What is heard of it; a voice at media time `at` sounds from there on, at its speed, until the next tree."""
        for medium in self.voices:
            yield AudioSourceNode(
                id=self._identity(medium, k),
                stream_guid=medium.name,
                gain=_decibels(_on_curve(medium.gain, self._progress(k))),
                at=medium.media_time(k, self.quantize),
                speed=float(medium.speed) if medium.timed else 1,
                mono_gain=MONO_DB,
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

    def _identity(self, medium: Medium, k: Fraction) -> str | None:
        if not medium.timed:
            return None
        period = self.periods.get(id(medium))
        turn = 0 if period is None else k // period
        name = f"{self.clip.id}~{self.turn}" if self.turn else self.clip.id
        name = f"{name}*{turn}" if turn else name
        return name if medium is self.clip.content else name + ".container"

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
            node: VideoNode = msgspec.structs.replace(_solid(content.at(moment.progress)), **dest)
        else:
            node = self._shown(content, moment, fit="cover" if content.size is None else "fill")
        return msgspec.structs.replace(node, opacity=opacity, mask=mask)

    def _form(self, form: Shape | Text | Medium, moment: _Moment, colour: Colour) -> VideoNode:
        if isinstance(form, Text):
            return self._text(form, moment, colour)
        if isinstance(form, Shape):
            size: dict[str, Any] = {"path_width": form.width, "path_height": form.height}
            return ShapeNode(path=form.path, color=_hex(colour), **size, **moment.dest)
        whole, box = moment.whole, moment.box
        window = _Window(whole.width, whole.height, box.x - whole.x, box.y - whole.y)  # the whole of it, stretched
        return self._shown(form, moment._replace(window=window), fit="fill")

    def _text(self, text: Text, moment: _Moment, colour: Colour) -> VideoNode:
        """Its ink at the box's top, at the left as far as it was measured; or stretched to the box."""
        moment = moment._replace(box=moment.whole)
        ink, dest, width = text.ink, moment.dest, moment.box.width
        stretched = self.clip.container is not None and not self.clip.container.scale.lock
        first, last = (_round(box.height * _EM / ink.height) if ink.height > 0 else box.height for box in self.boxes)
        size = Tween(first, last).at(moment.progress)
        if not stretched and ink.width > 0 and ink.height > 0:
            if ink.x > 0:  # it reaches left of the pen, where a rectangle that begins at the pen would cut it off
                dest["dest_width"] = max(2, _round(ink.width * size / _EM))
                left = -_round(ink.x * size / _EM)
                size = min(max(1.0, size), _LARGEST_FONT)
                node = TextNode(string=text.string, font=text.font, size=size, color=_hex(colour), fit="fill", **dest)
                return self._parts(node, left)
            shift = _round(ink.x * width / ink.width)
            width = max(width, _round(ink.width / ink.height * size))  # as wide as its letters
            dest |= {"dest_x": moment.box.x + shift, "dest_width": max(2, width - shift)}
        fit: Literal["none", "fill"] = "fill" if stretched else "none"
        size = min(max(1.0, size), _LARGEST_FONT)
        return self._parts(TextNode(string=text.string, font=text.font, size=size, color=_hex(colour), fit=fit, **dest))

    def _parts(self, text: TextNode, offset: int = 0) -> VideoNode:
        """A text that is wider, or farther off, than a tree allows as those parts of it that are on the frame."""
        x, width = int(text.dest_x or 0), int(text.dest_width or 0)
        if width <= _LARGEST[0] and abs(x) <= _LARGEST[0]:
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
        crop = {} if medium.size is None else _crop(moment, medium.size)
        if medium.kind == "image":
            return ImageSourceNode(filename=medium.name, fit=fit, effects=effects, **moment.dest, **crop)
        return VideoSourceNode(
            id=self._identity(medium, moment.k),
            stream_guid=medium.name,
            at=medium.media_time(moment.k, self.quantize),
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
    return _round((room - size + size * (before + after)) * fraction - size * before)


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


def _crop(moment: _Moment, size: tuple[float, float]) -> dict[str, Any]:
    """The part of a picture of that size which shows in the box; an axis that shows whole is not in it."""
    box, window = moment.box, moment.window
    across, down = size[0] / window.width, size[1] / window.height  # pixels of the picture per pixel of the output
    crop: dict[str, Any] = {}
    if window.width - box.width > _NOISE:
        crop |= {"source_x": window.x * across, "source_width": box.width * across}
    if window.height - box.height > _NOISE:
        crop |= {"source_y": window.y * down, "source_height": box.height * down}
    return crop


def _between(start: Sequence[float], end: Sequence[float], progress: float) -> Sequence[float]:
    if start == end:
        return start
    return [a + (b - a) * progress for a, b in zip(start, end, strict=True)]


def _ceil2(value: float) -> int:
    return max(2, math.ceil(value - _NOISE))


def _round(value: float) -> int:
    return math.floor(value + 0.5)


# --- values ----------------------------------------------------------------------------------------------------------


def _solid(colour: Colour) -> SolidColorNode:
    red, green, blue, alpha = colour
    return SolidColorNode(red=red, green=green, blue=blue, alpha=alpha)


def _hex(colour: Colour) -> str:
    """``#rrggbb``; alpha goes its own way."""
    red, green, blue = (_round(255 * channel) for channel in colour[:3])
    return f"#{red:02x}{green:02x}{blue:02x}"


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


def _decibels(factor: float) -> float:
    return MUTE_DB if factor <= 1e-5 else 20 * math.log10(factor)
