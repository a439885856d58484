"""A JSON object, its path, and the nearest value that is allowed: how the fields of Movie Masher's documents are read.

It decides what counts as a number, a colour, a text or a source; it refuses to know what a field means.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any, Final, NoReturn

import msgspec

from engine.clip import Colour, ColourTween, Tween
from engine.color import rgba
from engine.errors import InvalidMash
from engine.strictjson import digits_of, json_type

BUILT_IN: Final = "com.moviemasher.font."  # ids of fonts
LEAST_SIDE: Final = 1e-3  # of a size: proportions beyond 1 : 10⁹ would lead out of what a number holds

Object = dict[str, Any]


def is_document(text: bytes) -> bool:
    """Whether it is JSON of a mash or a cast with what belongs to it, or of either of them alone."""
    try:
        value = msgspec.json.decode(text)
    except (ValueError, RecursionError):
        return False  # who reads it then says what is wrong
    return isinstance(value, dict) and any(
        isinstance(value.get(name), kind) for name, kind in (("mash", dict), ("cast", dict), ("tracks", list))
    )


class Fields:
    """A JSON object and its path."""

    def __init__(self, value: Object, path: str) -> None:
        self.value = value
        self.path = path

    @classmethod
    def of(cls, value: object, path: str) -> Fields:
        """Raises InvalidMash when it is no object."""
        if not isinstance(value, dict):
            raise InvalidMash(f"{path}: expected an object, got {json_type(value)}", where=path)
        return cls(value, path)

    def refuse(self, name: str, problem: str) -> NoReturn:
        """Raises InvalidMash about a field."""
        where = f"{self.path}.{name}"
        raise InvalidMash(f"{where}: {problem}", where=where)

    def inner(self, name: str) -> Fields:
        """An object within; an absent one is empty."""
        value = self.value.get(name)
        return Fields.of({} if value is None else value, f"{self.path}.{name}")

    def objects(self, name: str) -> list[Fields]:
        """An array of objects within; an absent one is empty."""
        value = self.value.get(name)
        if value is not None and not isinstance(value, list):
            self.refuse(name, f"expected an array, got {json_type(value)}")
        return [Fields.of(each, f"{self.path}.{name}[{n}]") for n, each in enumerate(value or ())]

    def number(self, name: str, low: float = -math.inf, high: float = math.inf) -> float | None:
        """A number within its range; None when there is none."""
        number = number_of(self.value.get(name))
        return None if number is None else min(max(number, low), high)

    def whole(self, name: str, default: int, low: int, high: int) -> int:
        """A number without its fraction."""
        number = self.number(name, low, high)
        return default if number is None else int(number)

    def positive(self, name: str) -> Fraction | None:
        """A number above 0, in its decimals."""
        number = self.number(name, high=10_000_000)
        return Fraction(repr(number)) if number is not None and number > 0 else None

    def side(self, name: str, high: float) -> float | None:
        """A width or a height within `LEAST_SIDE`…high; None when there is none, or none above 0."""
        number = self.number(name, high=high)
        return max(number, LEAST_SIDE) if number is not None and number > 0 else None

    def size(self, name: str) -> tuple[float, float] | None:
        """Width and height of a size object, both above 0."""
        value = self.value.get(name)
        fields = Fields(value, "") if isinstance(value, dict) else None
        width, height = (fields.side(side, 1e6) if fields else None for side in ("width", "height"))
        return (width, height) if width and height else None

    def tween(self, name: str, default: float, low: float, high: float) -> Tween:
        """A number and what it becomes."""
        start = self.number(name, low, high)
        start = default if start is None else start
        end = self.number(name + "End", low, high)
        return Tween(start, start if end is None else end)

    def colours(self, name: str, default: Colour) -> ColourTween:
        """A colour and what it becomes."""
        start = colour_of(self.value.get(name)) or default
        return ColourTween(start, colour_of(self.value.get(name + "End")) or start)

    def flag(self, name: str) -> bool:
        """A boolean, false unless it says true."""
        return self.value.get(name) in (True, 1, "true", "1")

    def text(self, name: str, default: str, most: int) -> str:
        """A string; a number is its digits. Raises InvalidMash when it is longer than `most`."""
        value = self.value.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and number_of(value) is not None:
            value = digits_of(value)
        text = value if isinstance(value, str) else default
        if len(text) > most:
            self.refuse(name, f"{len(text)} characters, more than {most}")
        return well_formed(text)

    def choice(self, name: str, choices: tuple[str, ...], default: str) -> str:
        """One of some words."""
        value = self.value.get(name)
        return value if isinstance(value, str) and value in choices else default


def source_of(definition: Object) -> str:
    """Where the file of a definition is: `source`, else what the client plays; nothing where it does not say."""
    found = (definition.get(name) for name in ("source", "url", "audioUrl"))
    return next((each for each in found if isinstance(each, str) and each), "")


def is_built_in(definition: Object) -> bool:
    """Whether it is a font that is built in here, whose address would be fetched."""
    return str(definition.get("id")).startswith(BUILT_IN)


def well_formed(text: str) -> str:
    """A text without halves of surrogate pairs, which are no characters."""
    return text.encode(errors="replace").decode()


def quoted(name: str) -> str:
    """A name for a sentence, of which 100 characters are enough."""
    return f'"{well_formed(name[:100])}"'


def number_of(value: object) -> float | None:
    """A finite number, also from a string of digits."""
    if isinstance(value, bool) or not isinstance(value, int | float | str) or (isinstance(value, str) and "_" in value):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def colour_of(value: object) -> Colour | None:
    """``#RGB``, ``#RGBA``, ``#RRGGBB``, ``#RRGGBBAA``."""
    try:
        return rgba(value) if isinstance(value, str) else None
    except ValueError:
        return None
