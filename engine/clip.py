"""The clips of a mash: content in a container, and how their values change while a clip lasts.

It decides what such a value is at a moment, and which moment of a medium that is; it refuses to know rasters and what
else is on.

* Tween. A value goes from `start` to `end` as start + (end - start) · k / frames: it would reach `end` one frame past
  the last. Progress is a float, so that a value which falls on a whole pixel is cut to the same one as FFmpeg cuts it.
* Media time. k frames on, a medium shows (k · speed mod length + trim) / quantize seconds, length being what the trims
  leave of it: a clip longer than its medium begins again. What is live has no media time.
* A film whose picture begins after its sound, or ends before it, shows its first, or last, picture meanwhile.
* Out point. Where the clip ends, or its medium begins again, another picture may be the nearest one: it is not shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Final, Literal

import msgspec

from engine.color import hex_of
from engine.effects import step_of
from engine.tree import MAX_MEDIA_TIME, Effect

Colour = tuple[float, float, float, float]  # non-linear R'G'B' and alpha, 0…1
Lock = Literal["H", "V", ""]
Kind = Literal["image", "film", "sound"]

WHITE: Final[Colour] = (1.0, 1.0, 1.0, 1.0)
# Seconds of a mash, or medium, that loops. Shorter turns share a reader: with one each, too many would be open at once.
LONG_TURN: Final = Fraction(1, 4)


class Tween(msgspec.Struct, frozen=True):
    """A number that goes evenly from `start` towards `end` while its clip lasts."""

    start: float
    end: float

    def at(self, progress: float) -> float:
        """The number at 0…1 of the clip."""
        return self.start + (self.end - self.start) * progress


class ColourTween(msgspec.Struct, frozen=True):
    """A colour that goes evenly, per channel, from `start` towards `end`."""

    start: Colour
    end: Colour

    def at(self, progress: float) -> Colour:
        """The colour at 0…1 of the clip."""
        red, green, blue, alpha = between(self.start, self.end, progress)
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
                parameters[name] = hex_of(value.at(progress)) if isinstance(value, ColourTween) else value
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
    size    natural width and height, of which the proportions count; None = not known.
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
        return self._second(played, unit, quantize)

    def until(self, k: Fraction, frames: int, quantize: int) -> float | None:
        """The second of it at which ends what is on k frames into a clip of so many: the clip's end, or another turn's
        beginning; None = it has no media time.
        """
        if not self.timed:
            return None
        played, unit = frames * self.speed.numerator, self.speed.denominator
        if self.length is not None:
            turn = self.length * unit
            begun = k.numerator * self.speed.numerator // (k.denominator * turn) * turn
            played = min(played - begun, turn)
        return self._second(played, unit, quantize)

    def _second(self, played: int, unit: int, quantize: int) -> float:
        return min((played + self.trim * unit) / (unit * quantize), float(MAX_MEDIA_TIME))


class Shape(msgspec.Struct, frozen=True):
    """An SVG path in a box of width × height units."""

    path: str
    width: float
    height: float


class Ink(msgspec.Struct, frozen=True):
    """Where a text's ink is at a font size of 1000 px: how far left of the pen, and its size."""

    x: float
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

    def continues(self, before: Clip) -> bool:
        """Whether its content goes on where that of a clip ended: one medium at one speed, not begun again."""
        first, second = before.content, self.content
        if not isinstance(first, Medium) or not isinstance(second, Medium) or before.stop != self.frame:
            return False
        played = before.frames * first.speed
        return (
            second.timed
            and (first.name, first.speed) == (second.name, second.speed)
            and first.trim + played == second.trim
            and (first.length is None or played <= first.length)
            and (second.length is None or self.frames * second.speed <= second.length)
        )

    def begins_as_loud_as(self, before: Clip) -> bool:
        """Whether the volume of its content is at its beginning what that of a clip was at its end."""
        first, second = before.content, self.content
        if not isinstance(first, Medium) or not isinstance(second, Medium):
            return False
        return [factor for _, factor in first.gain[-1:]] == [factor for _, factor in second.gain[:1]]

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
        """Whether a part of its rectangle can be painted alone: not of a text that is stretched, or was not measured,
        or of content of an unknown size.
        """
        form = self.form
        if isinstance(form, Text) and self.container is not None and not (self.container.scale.lock and form.ink.width):
            return False
        return not isinstance(self.content, Medium) or self.content.size is not None


def between(start: Sequence[float], end: Sequence[float], progress: float) -> Sequence[float]:
    """Numbers that go evenly from `start` towards `end`, at 0…1 of the way."""
    if start == end:
        return start
    return [a + (b - a) * progress for a, b in zip(start, end, strict=True)]
