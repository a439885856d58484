"""Vector shapes: the `d` of an SVG path as an outline, and that stretched into a rectangle as a picture.

It decides what a path means; it refuses to know where it is shown. Worker threads only. Grammar and arcs: SVG 1.1 §8.3
and appendix F.6; an error ends the path where it stands (appendix F.2), and what was drawn before is shown.
"""

from __future__ import annotations

import cmath
import math
import re
from collections.abc import Callable
from typing import Final

from engine.frame import VideoFrame
from engine.sources.outline import Outline, Pen, Point, check_parts, painted, placed
from engine.tree import ShapeNode

_SPACE: Final = re.compile(r"[\s,]*")
_NUMBER: Final = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_ARGUMENTS: Final = {"M": 2, "L": 2, "H": 1, "V": 1, "C": 6, "S": 4, "Q": 4, "T": 2, "A": 7, "Z": 0}
_FLAGS: Final = (3, 4)  # places among the arguments of an arc that are a single 0 or 1


def draw_shape(node: ShapeNode, width: int, height: int) -> VideoFrame:
    """The path of a node, the box that it says stretched to width × height pixels; straight alpha.

    Raises ValueError: a colour that is none; Intricate.
    """
    scale = (width / float(node.path_width), height / float(node.path_height))
    origin = (-float(node.path_x) * scale[0], -float(node.path_y) * scale[1])
    outline = path_outline(node.path)
    check_parts(outline.parts)
    return painted(placed([outline], scale, [origin]), node.color, width, height)


def path_outline(path: str) -> Outline:
    """The contours of an SVG path, in its own units; of a broken one what comes before the error."""
    drawing = _Drawing()
    for command, arguments in _commands(path):
        if not all(map(math.isfinite, arguments)):
            break
        try:
            drawing.draw(command, arguments)
        except (ArithmeticError, ValueError):  # an arc that is beyond what floats can hold
            break
    return drawing.pen.outline()


def _commands(path: str) -> list[tuple[str, list[float]]]:
    """Letters with their numbers, repeated ones written out, up to the first error."""
    found: list[tuple[str, list[float]]] = []
    at, letter = _after_space(path, 0), ""
    while at < len(path):
        if path[at].isalpha():
            letter = path[at]
            at = _after_space(path, at + 1)
        elif letter in ("", "Z", "z"):
            break
        if letter.upper() not in _ARGUMENTS or (not found and letter not in "Mm"):
            break
        arguments = _arguments(path, at, letter.upper())
        if arguments is None:
            break
        found.append((letter, arguments[0]))
        at = arguments[1]
        letter = {"M": "L", "m": "l"}.get(letter, letter)  # further pairs after a move are lines
    return found


def _arguments(path: str, at: int, command: str) -> tuple[list[float], int] | None:
    """The numbers of one command, and where it goes on after them; None where one is missing."""
    numbers: list[float] = []
    for n in range(_ARGUMENTS[command]):
        if command == "A" and n in _FLAGS:
            if path[at : at + 1] not in ("0", "1"):
                return None
            end = at + 1
        else:
            match = _NUMBER.match(path, at)
            if match is None:
                return None
            end = match.end()
        numbers.append(float(path[at:end]))
        at = _after_space(path, end)
    return numbers, at


def _after_space(path: str, at: int) -> int:
    match = _SPACE.match(path, at)
    return at if match is None else match.end()


class _Drawing:
    """Carries commands out. The pen stands where the last one left it; a control point may be mirrored there."""

    def __init__(self) -> None:
        self.pen = Pen()
        self._control: tuple[str, Point] | None = None  # of the last curve, "C" or "Q"

    def draw(self, letter: str, numbers: list[float]) -> None:
        """One command; lower-case ones count from where the pen stands."""
        command, control = letter.upper(), self._control
        self._control = None
        draw: dict[str, Callable[[list[float], tuple[str, Point] | None], None]] = {
            "C": self._cubic,
            "S": self._cubic,
            "Q": self._quadratic,
            "T": self._quadratic,
        }
        x, y = self.pen.at if letter.islower() else (0.0, 0.0)
        if command in "CSQTML":
            numbers = [number + (y if n % 2 else x) for n, number in enumerate(numbers)]
        if command in draw:
            draw[command](numbers, control)
        elif command == "M":
            self.pen.move((numbers[0], numbers[1]))
        elif command == "L":
            self.pen.line((numbers[0], numbers[1]))
        elif command == "H":
            self.pen.line((numbers[0] + x, self.pen.at[1]))
        elif command == "V":
            self.pen.line((self.pen.at[0], numbers[0] + y))
        elif command == "A":
            self._arc(numbers, (numbers[5] + x, numbers[6] + y))
        else:
            self.pen.close()

    def _cubic(self, numbers: list[float], control: tuple[str, Point] | None) -> None:
        if len(numbers) == 4:
            numbers = [*self._mirrored("C", control), *numbers]
        x1, y1, x2, y2, x, y = numbers
        self.pen.cubic((x1, y1), (x2, y2), (x, y))
        self._control = ("C", (x2, y2))

    def _quadratic(self, numbers: list[float], control: tuple[str, Point] | None) -> None:
        if len(numbers) == 2:
            numbers = [*self._mirrored("Q", control), *numbers]
        x1, y1, x, y = numbers
        self.pen.quadratic((x1, y1), (x, y))
        self._control = ("Q", (x1, y1))

    def _mirrored(self, kind: str, control: tuple[str, Point] | None) -> Point:
        """The last control point, mirrored about the pen; the pen itself where the last was no curve of that kind."""
        x, y = self.pen.at
        return (2 * x - control[1][0], 2 * y - control[1][1]) if control is not None and control[0] == kind else (x, y)

    def _arc(self, numbers: list[float], to: Point) -> None:
        """An arc as cubic curves of at most a quarter each. Points are complex numbers here."""
        begin, end = complex(*self.pen.at), complex(*to)
        rx, ry = abs(numbers[0]), abs(numbers[1])
        if begin == end:
            return
        if rx == 0 or ry == 0:
            self.pen.line(to)
            return
        turn = cmath.exp(1j * math.radians(numbers[2] % 360))
        half = (begin - end) / 2 / turn
        half = complex(half.real / rx, half.imag / ry)  # the ellipse as the unit circle
        grown = max(1.0, abs(half))  # radii too small for the way are enlarged
        half /= grown
        off = math.sqrt(max(0.0, 1 / max(abs(half), 1e-300) ** 2 - 1))
        middle = half * (-1j if bool(numbers[3]) != bool(numbers[4]) else 1j) * off
        first, last = cmath.phase(half - middle), cmath.phase(-half - middle)
        sweep = (last - first) % math.tau if numbers[4] else -((first - last) % math.tau)

        def back(point: complex) -> Point:
            point += middle
            point = complex(point.real * rx, point.imag * ry) * grown * turn + (begin + end) / 2
            return point.real, point.imag

        count = max(1, math.ceil(abs(sweep) / (math.pi / 2) - 1e-9))
        reach = 4 / 3 * math.tan(sweep / count / 4)
        for n in range(count):
            p, q = (cmath.exp(1j * (first + sweep * (n + k) / count)) for k in (0, 1))
            self.pen.cubic(back(p + 1j * reach * p), back(q - 1j * reach * q), to if n + 1 == count else back(q))
