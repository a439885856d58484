"""The process that draws one SVG: standard input to standard output, as PNG, or a sentence and an exit code.

It decides what an SVG may say, since the library that draws would read any file that one refers to; it refuses to know
whose it is. It runs by its path and imports nothing of the engine: that takes a few hundredths of a second.

Arguments: the longest side in pixels, bytes of memory and seconds of work; the family of the default font; font files.
"""

from __future__ import annotations

import re
import resource
import sys
from typing import Final, NoReturn
from xml.parsers import expat

import resvg_py

MALFORMED: Final = 3
UNSUPPORTED: Final = 4
DPI: Final = 96  # CSS 2.1 §4.3.2: a pixel is 1/96 inch
EM: Final = 16.0  # pixels of a font that nobody gives a size
NOWHERE: Final = "/dev/null"  # the folder of files that are referred to: one may be called "#a" or "data:a"
_UNITS: Final = {"": 1, "px": 1, "in": DPI, "cm": DPI / 2.54, "mm": DPI / 25.4, "pt": DPI / 72, "pc": DPI / 6}
_LENGTH: Final = re.compile(r"\s*([+-]?[\d.]+(?:[eE][+-]?\d+)?)\s*([a-z]{0,2}|%)\s*")


class Refused(Exception):  # noqa: N818 - the end of this process, and not of anything else
    """Exit code and sentence."""


def main(arguments: list[str]) -> None:
    """Draws. Raises Refused."""
    max_side, memory, seconds = map(int, arguments[:3])
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    family, *fonts = arguments[3:]
    try:
        text = sys.stdin.buffer.read().decode("utf-8-sig")
        check(text, max_side)
        png = resvg_py.svg_to_bytes(
            svg_string=text,
            dpi=DPI,
            font_size=EM,
            resources_dir=NOWHERE,
            skip_system_fonts=True,
            font_files=fonts,
            font_family=family,
            serif_family=family,
            sans_serif_family=family,
            cursive_family=family,
            fantasy_family=family,
            monospace_family=family,
        )
    except UnicodeDecodeError as err:
        raise Refused(MALFORMED, "an SVG that is not UTF-8") from err
    except expat.ExpatError as err:
        raise Refused(MALFORMED, f"an SVG that is broken: {err}") from err
    except ValueError as err:
        raise Refused(MALFORMED, f"an SVG that cannot be drawn: {' '.join(str(err).split())[:200]}") from err
    sys.stdout.buffer.write(png)


def check(text: str, max_side: int) -> None:
    """Raises Refused: it refers to something else, declares entities, or is too large; ExpatError: it is no XML."""
    elements = 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal elements
        elements += 1
        if elements == 1:
            _check_root(name, attributes, max_side)
        for attribute, value in attributes.items():  # what entities stand for is in it by now
            if attribute.rpartition(":")[2].lower() == "href" and not value.startswith(("#", "data:")):
                raise Refused(UNSUPPORTED, f"an SVG may only refer to what is in it, and not to {value[:80]!r}")

    def doctype(_name: str, _system: str | None, _public: str | None, declares: bool) -> None:
        if declares:
            raise Refused(UNSUPPORTED, "an SVG whose DOCTYPE declares entities or the like")

    parser = expat.ParserCreate()
    parser.StartElementHandler = start
    parser.StartDoctypeDeclHandler = doctype
    parser.Parse(text, True)


def _check_root(name: str, attributes: dict[str, str], max_side: int) -> None:
    if name.rpartition(":")[2] != "svg":
        raise Refused(MALFORMED, "not an SVG")
    width, height = size_of(attributes)
    if max(width, height) > max_side:
        raise Refused(UNSUPPORTED, f"{width:.0f}×{height:.0f}, more than {max_side} pixels on a side")


def size_of(attributes: dict[str, str]) -> tuple[float, float]:
    """Width and height in pixels as a root says them; 0 for what it does not, which is as large as what is drawn."""
    try:
        _, _, *box = map(float, re.split(r"[\s,]+", attributes.get("viewBox", "").strip()))
    except ValueError:
        box = []
    box_width, box_height = box if len(box) == 2 and min(box) > 0 else (0.0, 0.0)
    width = _length(attributes.get("width", ""), box_width)
    height = _length(attributes.get("height", ""), box_height)
    if width is None:
        width = box_width if height is None or not box_height else height * box_width / box_height
    if height is None:
        height = width * box_height / box_width if box_width else 0.0
    return width, height


def _length(text: str, whole: float) -> float | None:
    """Pixels; None where there is nothing that can be read."""
    match = _LENGTH.fullmatch(text)
    if match is None:
        return None
    try:
        number = float(match[1])
    except ValueError:
        return None
    return number * (whole / 100 if match[2] == "%" else _UNITS.get(match[2], EM))


def _end(refused: Refused) -> NoReturn:
    code, sentence = refused.args
    sys.stdout.buffer.write(sentence.encode())
    sys.stdout.buffer.flush()
    raise SystemExit(code)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except Refused as refused:
        _end(refused)
