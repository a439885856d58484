"""What an effect's name and parameters mean: one step over the pixels of a placed picture.

It decides which names and parameters there are, and the numbers behind them; it refuses to know pixels. Names and
meanings are those of FFmpeg's filters where there is one, so that what was made with those looks the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from engine.color import rgba, yuv_of
from engine.errors import InvalidTree
from engine.rounding import round_half_up

MAX_FACTOR: Final = 1000.0  # of a matrix; far beyond what shows anything
Parameters = Mapping[str, float | str]
Row = tuple[float, float, float, float]


class Convolve(msgspec.Struct, frozen=True):
    """Every sample becomes the weighted sum of its 3×3 neighbours, row by row, plus `bias` (of 255); alpha stays."""

    matrix: tuple[float, ...]
    bias: float = 0.0


class Recolour(msgspec.Struct, frozen=True):
    """R', G', B' and alpha become weighted sums of all four, by a row of weights each, cut at 0 and 1."""

    red: Row
    green: Row
    blue: Row
    alpha: Row = (0.0, 0.0, 0.0, 1.0)


class Tint(msgspec.Struct, frozen=True):
    """All of it has one colour, 8-bit limited-range Y'CbCr of BT.709; alpha stays."""

    yuv: tuple[int, int, int]


class Key(msgspec.Struct, frozen=True):
    """What is near a colour becomes see-through: up to a distance of `similarity` wholly, within `blend` beyond partly.

    cb, cr  of the colour, full-range BT.601, as FFmpeg's chromakey takes it.
    """

    cb: int
    cr: int
    similarity: float
    blend: float


class Fade(msgspec.Struct, frozen=True):
    """Alpha times `opacity`."""

    opacity: float


class Cut(msgspec.Struct, frozen=True):
    """See-through outside a rectangle, in pixels of the placed picture; None: to its edge."""

    x: float
    y: float
    width: float | None
    height: float | None


Step = Convolve | Recolour | Tint | Key | Fade | Cut


def step_of(effect: str, parameters: Parameters) -> Step:
    """The step that an effect is.

    Raises InvalidTree, `where` counted from the effect: an unknown name or parameter, a number out of range.
    """
    if effect in _FIXED:
        _Given(effect, parameters).end()
        return _FIXED[effect]
    if effect not in _MADE:
        known = ", ".join(sorted([*_FIXED, *_MADE]))
        raise InvalidTree(f'.effect: "{effect[:80]}" is not one of {known}', where=".effect")
    given = _Given(effect, parameters)
    step = _MADE[effect](given)
    given.end()
    return step


_SAME: Final = (0, 0, 0, 0, 1, 0, 0, 0, 0)
_NUMBER: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


class _Given:
    """The parameters of one effect, taken one by one; what is left at the end is unknown."""

    def __init__(self, effect: str, parameters: Parameters) -> None:
        self._effect = effect
        self._left = dict(parameters)

    def number(self, name: str, default: float, low: float, high: float) -> float:
        value = self._left.pop(name, default)
        if isinstance(value, str):
            if not _NUMBER.fullmatch(value.strip()):
                raise _wrong(name, f'"{value[:40]}" is no number')
            value = float(value)
        if not low <= value <= high:
            raise _wrong(name, f"{max(-1e300, min(value, 1e300)):g} is not within {low:g}…{high:g}")
        return float(value)

    def length(self, name: str) -> float | None:
        """Pixels; None where it is absent, empty or 0."""
        if self._left.get(name) == "":
            del self._left[name]
        return self.number(name, 0, 0, 100_000) or None

    def color(self, name: str, default: str) -> Row:
        value = str(self._left.pop(name, default))
        try:
            return rgba(re.sub("^0x", "#", value))
        except ValueError as err:
            raise _wrong(name, str(err)) from None

    def matrix(self, name: str) -> tuple[float, ...]:
        """Nine numbers, with spaces or commas between."""
        words = re.split(r"[\s,|]+", str(self._left.pop(name, " ".join(map(str, _SAME)))).strip())
        if len(words) != 9 or not all(_NUMBER.fullmatch(word) for word in words):
            raise _wrong(name, "not nine numbers")
        return tuple(map(float, words))

    def end(self) -> None:
        """Raises InvalidTree for a parameter that nobody took."""
        for name in self._left:
            raise _wrong(name[:80], f"{self._effect} has no such parameter")


def _wrong(name: str, problem: str) -> InvalidTree:
    return InvalidTree(f".parameters.{name}: {problem}", where=f".parameters.{name}")


def _convolution(given: _Given) -> Convolve:
    matrix, multiplier = given.matrix("matrix"), given.number("multiplier", 1, 0, 100)
    factors = tuple(number * multiplier for number in matrix)
    if not all(abs(factor) <= MAX_FACTOR for factor in factors):
        raise _wrong("matrix", f"a factor is beyond ±{MAX_FACTOR:g}")
    return Convolve(factors, given.number("bias", 0, 0, 100))


def _colorchannelmixer(given: _Given) -> Recolour:
    rows = [[given.number(out + of, float(out == of), -2, 2) for of in "rgba"] for out in "rgba"]
    red, green, blue, alpha = ((row[0], row[1], row[2], row[3]) for row in rows)
    return Recolour(red, green, blue, alpha)


def _colorize(given: _Given) -> Tint:
    return Tint(yuv_of(*given.color("color", "#FFFFFF")[:3]))


def _chromakey(given: _Given) -> Key:
    red, green, blue = (round_half_up(part * 255) for part in given.color("color", "#00FF00")[:3])
    similarity, blend = given.number("similarity", 0.9, 0, 1), given.number("blend", 0, 0, 1)
    # libavutil/colorspace.h, RGB_TO_U and RGB_TO_V: 10-bit fixed point.
    cb = ((-173 * red - 339 * green + 512 * blue + 511) >> 10) + 128
    cr = ((512 * red - 429 * green - 83 * blue + 511) >> 10) + 128
    return Key(cb, cr, similarity, blend)


def _opacity(given: _Given) -> Fade:
    return Fade(given.number("opacity", 1, 0, 1))


def _crop(given: _Given) -> Cut:
    x, y = given.number("x", 0, 0, 100_000), given.number("y", 0, 0, 100_000)
    return Cut(x, y, given.length("width"), given.length("height"))


_GREY: Final = (0.3, 0.4, 0.3, 0.0)
_FIXED: Final[Mapping[str, Step]] = {
    "blur": Convolve((0.11,) * 9),
    "sharpen": Convolve((0, -1, 0, -1, 5, -1, 0, -1, 0)),
    "emboss": Convolve((-2, -1, 0, -1, 1, 1, 0, 1, 2)),
    "grayscale": Recolour(_GREY, _GREY, _GREY),
    "sepia": Recolour((0.393, 0.769, 0.189, 0.0), (0.349, 0.686, 0.168, 0.0), (0.272, 0.534, 0.131, 0.0)),
}
_MADE: Final[Mapping[str, Callable[[_Given], Step]]] = {
    "convolution": _convolution,
    "colorchannelmixer": _colorchannelmixer,
    "colorize": _colorize,
    "chromakey": _chromakey,
    "opacity": _opacity,
    "crop": _crop,
}
