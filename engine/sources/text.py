"""Text as a picture: lines are broken, letters shaped and placed, and their outlines filled.

It decides where every letter stands; it refuses to know where the picture is shown and where fonts come from. Worker
threads only.

Theory of operation
-------------------
* Everything is in ems until the end; without hinting a text is the same at every size.
* A line is cut into runs of one direction, font and script. HarfBuzz shapes a run (ligatures, kerning, marks, the
  joined letters of Arabic); runs stand in the order that UAX #9 gives. A letter that the font lacks, or lacks a mark
  of, is taken with its marks from another one that has them, or shown as the font's empty box.
* Where a line is too wide it is broken after its last blank that fits, or between two characters where people write
  without blanks (Chinese, Japanese), but not at a no-break blank or a word joiner; a word that is wider than a line is
  broken anywhere. Where it is broken after a soft hyphen, which is not seen otherwise, a hyphen is shown and counts.
* Control characters but line breaks and tabs are not there; a tab is four blanks, Hangul's filler a wide one.
* HarfBuzz because it comes as one small wheel with nothing to install beside it. Pillow takes FriBidi from the system,
  skia-python libEGL and libGL; without them the one does not reorder and shape and the other does not start.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Final, NamedTuple

from engine.clip import Ink
from engine.frame import VideoFrame
from engine.sources.bidi import levels, reordered
from engine.sources.fonts import Box, Font, Fonts
from engine.sources.outline import Point, check_parts, painted, placed
from engine.tree import Direction, TextNode

MEASURED_AT: Final = 1000.0  # pixels per em
_LINE_ENDS: Final = re.compile(r"\r\n|[\n\v\f\r\x85\u2028\u2029]")
_SEEN_AS: Final = str.maketrans({"\t": "    ", "\u3164": "\u3000"})  # the latter is Hangul's filler, in no usual font
_BLANKS: Final = (  # that a line may end at: all there are but no-break ones, and the one of no width
    " \u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2008\u2009\u200a\u200b\u205f\u3000"
)
_GLUE: Final = "\xa0\u2007\u2011\u202f\u2060\ufeff"  # UAX #14 GL and WJ: neither is a line broken beside these
_SOFT_HYPHEN: Final = "\u00ad"  # UAX #14 SHY
_IDEOGRAPHS: Final = ("W", "F", "H")  # East Asian widths of what may stand at the beginning of a line
# What is kept from beginning a line, and from ending one, between characters that may do both (UAX #14 CL, CJ, NS, EX,
# IS, IN, PO, HY; OP, PR), beside brackets, which Unicode's categories tell; straight quotes are kept from either.
_NO_START: Final = frozenset(
    _GLUE + "\"'-‐–/.,!?:;%‰°′″℃℉…‥‼⁇⁈⁉、。，．：；？！％￠・･｡､゠ー〜〻ｰ々ゝゞヽヾ゛゜ﾞﾟ"
    "ぁぃぅぇぉっゃゅょゎゕゖァィゥェォッャュョヮヵヶㇰㇱㇲㇳㇴㇵㇶㇷㇸㇹㇺㇻㇼㇽㇾㇿｧｨｩｪｫｬｭｮｯ"
)
_NO_END: Final = frozenset(_GLUE + "\"'№")
_CLOSING: Final = ("Pe", "Pf")  # brackets and quotes
_OPENING: Final = ("Ps", "Pi", "Sc")  # and currencies, whose number follows
_BASE: Final = {"auto": None, "ltr": 0, "rtl": 1}  # levels of a paragraph
_LEAST: Final = 1e-6  # ems; ink that is thinner is not stretched any further
_MARKS: Final = ("M", "Cf")  # categories of what belongs to the character before
_JAMO: Final = re.compile("[\u1160-\u11ff\ud7b0-\ud7ff]")  # Hangul's vowels and finals: these belong to it as well
_UNSEEN: Final = re.compile("[\u034f\u17b4\u17b5\u180b-\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef]")  # marks without ink
_Shaped = tuple[int, int, float, float, float]  # see Font.shape


class _Placed(NamedTuple):
    """A glyph where it stands: ems right of the beginning of the first line, and down from its baseline."""

    font: Font
    glyph: int
    x: float
    y: float


class _Line(NamedTuple):
    glyphs: list[_Placed]
    width: float


def draw_text(node: TextNode, width: int, height: int, fonts: Fonts) -> VideoFrame:
    """The text of a node in a picture of that size; straight alpha.

    Raises SourceUnavailable: there is no font; ValueError: a colour that is none; Intricate.
    """
    fonts.begin()
    size, font = float(node.size), fonts.named(node.font)
    lines = _lines(node.string, font, fonts, width / size if node.wrap else None, node.direction)
    room = width / size if node.fit == "none" else max((line.width for line in lines), default=0.0)
    glyphs = list(_stacked(lines, font, node.align, room))
    scale, shift = _placing(node, font, _box(glyphs), width, height)
    seen: list[tuple[Font, int]] = []
    at: list[Point] = []
    parts = 0
    for drawing, glyph, x, y in glyphs:
        origin = x * scale[0] + shift[0], y * scale[1] + shift[1]
        known = drawing.glyph(glyph)
        if known.box is not None and _seen(known.box, scale, origin, width, height):
            seen.append((drawing, glyph))
            at.append(origin)
            parts += known.parts
    check_parts(parts)
    drawn = {each: each[0].outline(each[1]) for each in dict.fromkeys(seen)}  # once, even if they are not kept so long
    outlines = [drawn[each] for each in seen]
    return painted(placed(outlines, (scale[0], -scale[1]), at), node.color, width, height)


def _placing(node: TextNode, font: Font, box: Box | None, width: int, height: int) -> tuple[Point, Point]:
    """Pixels per em, and where the beginning of the first line is."""
    size = float(node.size)
    if box is None:
        return (size, size), (0.0, 0.0)
    left, top, right, bottom = box
    if node.fit == "fill":
        scale = width / max(right - left, _LEAST), height / max(bottom - top, _LEAST)
        return scale, (-left * scale[0], -top * scale[1])
    free = height - (bottom - top) * size
    down = {"top": 0.0, "middle": free / 2, "bottom": free}
    first = font.ascender * size if node.vertical == "line" else down[node.vertical] - top * size
    return (size, size), (-float(node.offset), first)


def measure(string: str, font: str | None, fonts: Fonts) -> Ink:
    """The ink of a text at 1000 pixels per em, not wrapped, left to right, as a browser's canvas measures it.

    Nothing to see is 0 × 0. Raises SourceUnavailable: there is no font; Intricate, also where all that was measured
    with these fonts is too much together.
    """
    found = fonts.named(font)
    lines = _lines(string, found, fonts, None, "ltr")
    box = _box(list(_stacked(lines, found, "left", 0.0)))
    if box is None:
        return Ink(0.0, 0.0, 0.0)
    left, top, right, bottom = (number * MEASURED_AT for number in box)
    return Ink(-left, right - left, bottom - top)


def _stacked(lines: list[_Line], font: Font, align: str, room: float) -> Iterator[_Placed]:
    """The glyphs of all lines, aligned in a room of that width."""
    share = {"left": 0.0, "center": 0.5, "right": 1.0}[align]
    for n, line in enumerate(lines):
        x, y = (room - line.width) * share, n * font.line_height
        for drawing, glyph, right, down in line.glyphs:
            yield _Placed(drawing, glyph, x + right, y + down)


def _box(glyphs: list[_Placed]) -> Box | None:
    """Left, top, right, bottom of the ink, y down; None where there is none."""
    inks = ((font.glyph(glyph).box, x, y) for font, glyph, x, y in glyphs)
    boxes = [(box[0] + x, y - box[3], box[2] + x, y - box[1]) for box, x, y in inks if box is not None]
    if not boxes:
        return None
    left, top, right, bottom = zip(*boxes, strict=True)
    return min(left), min(top), max(right), max(bottom)


def _seen(box: Box, scale: Point, at: Point, width: int, height: int) -> bool:
    """Whether a glyph's box (y up) is within the picture, its origin being there."""
    across = at[0] + box[2] * scale[0] > 0 and at[0] + box[0] * scale[0] < width
    return across and at[1] - box[1] * scale[1] > 0 and at[1] - box[3] * scale[1] < height


# --- lines -----------------------------------------------------------------------------------------------------------


def _lines(string: str, font: Font, fonts: Fonts, room: float | None, direction: Direction = "auto") -> list[_Line]:
    """The lines of a text, broken where they get wider than `room` ems."""
    found = []
    for text in _LINE_ENDS.split(string):
        paragraph = _Paragraph(_cleaned(text), font, fonts, direction)
        found += [paragraph.line(start, stop) for start, stop in paragraph.broken(room)]
    return found


def _cleaned(text: str) -> str:
    text = text.translate(_SEEN_AS)
    return "".join(character for character in text if unicodedata.category(character) not in ("Cc", "Cs"))


class _Paragraph:
    """One line as it was written: shaped whole for its widths, and then again for each line it is broken into."""

    def __init__(self, text: str, font: Font, fonts: Fonts, direction: Direction = "auto") -> None:
        self._text = text
        self._given = font, fonts
        self._levels = levels(text, _BASE[direction])
        self._fonts = _fonts_of(text, font, fonts)
        self._scripts = _scripts_of(text)

    def broken(self, room: float | None) -> list[tuple[int, int]]:
        """The lines: [start, stop) of the text, blanks at the ends of broken ones left out.

        One that is not the last ends in a soft hyphen only where it is broken at that, and shows a hyphen.
        """
        text = self._text
        if room is None or not text:
            return [(0, len(text))]
        advances = self._advances()
        hyphen = sum(glyph[2] for glyph in self._hyphen(0)[1]) if _SOFT_HYPHEN in text else 0.0
        found, start = [], 0
        while start < len(text):
            width, stop, good = 0.0, start, start
            while stop < len(text) and (text[stop] in _BLANKS or width + advances[stop] <= room):
                width += advances[stop]
                stop += 1
                if _may_break(text, stop) and (text[stop - 1] != _SOFT_HYPHEN or width + hyphen <= room):
                    good = stop
            if stop < len(text) and good > start:
                stop = good
            stop = max(stop, start + 1)
            unseen = "" if stop == good and text[stop - 1] == _SOFT_HYPHEN else _BLANKS + _SOFT_HYPHEN
            while stop < len(text) and (text[stop] in _BLANKS or _joins(text[stop])):
                stop += 1
            found.append((start, start + len(text[start:stop].rstrip(unseen))))
            start = stop
        return found

    def _advances(self) -> list[float]:
        """How wide each character is; all of a ligature counts for its first one."""
        advances = [0.0] * len(self._text)
        for start, stop in self._runs(0, len(self._text)):
            for _, cluster, advance, _, _ in self._shaped(start, stop):
                advances[cluster] += advance
        return advances

    def line(self, start: int, stop: int) -> _Line:
        """[start, stop), as `broken` says it, as glyphs from left to right."""
        runs = [(first, self._fonts[first], self._shaped(first, last)) for first, last in self._runs(start, stop)]
        if stop < len(self._text) and self._text[start:stop].endswith(_SOFT_HYPHEN):
            runs.append((stop - 1, *self._hyphen(stop - 1)))
        glyphs: list[_Placed] = []
        x = 0.0
        for n in reordered([self._levels[first] for first, _, _ in runs]):
            _, font, shaped = runs[n]
            for glyph, _, advance, right, up in shaped:
                glyphs.append(_Placed(font, glyph, x + right, -up))
                x += advance
        return _Line(glyphs, x)

    def _shaped(self, start: int, stop: int) -> list[_Shaped]:
        return self._fonts[start].shape(self._text, start, stop, leftwards=self._levels[start] % 2 == 1)

    def _hyphen(self, n: int) -> tuple[Font, list[_Shaped]]:
        """The hyphen beside the n-th character: Unicode's own if the text's font has it."""
        font, fonts = self._given
        hyphen = "\u2010" if font.has("\u2010") else "-"
        font = fonts.having(hyphen, font)
        return font, font.shape(hyphen, 0, 1, leftwards=self._levels[n] % 2 == 1)

    def _runs(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """[start, stop) cut where direction, font or script change."""
        first = start
        for n in range(start + 1, stop + 1):
            if n == stop or any(each[n] != each[first] for each in (self._levels, self._fonts, self._scripts)):
                yield first, n
                first = n


def _fonts_of(text: str, font: Font, fonts: Fonts) -> list[Font]:
    """A font for each character; a letter and the marks on it have one, and blanks that of what is before them."""
    joining = "".join(sorted(filter(_joins, set(text))))
    found: list[Font] = []
    for letter in re.findall(f"(?s:.)[{joining}]*", text) if joining else text:
        inked = "".join(filter(_has_ink, letter)) if joining else letter.strip()
        chosen = fonts.having(inked, font) if inked else found[-1] if found else font
        found += [chosen] * len(letter)
    return found


def _has_ink(character: str) -> bool:
    """Whether a font needs to have it for it to be seen."""
    unseen = character.isspace() or unicodedata.category(character) == "Cf"
    return not unseen and _UNSEEN.match(character) is None


def _joins(character: str) -> bool:
    """Whether it belongs to the character before it."""
    return unicodedata.category(character).startswith(_MARKS) or _JAMO.match(character) is not None


def _scripts_of(text: str) -> list[str]:
    """A word for the script of each character, what is common to all counting as what is before it.

    Python's tables have no scripts, but every letter's name begins with the name of its script.
    """
    found: list[str] = []
    for character in text:
        letter = unicodedata.category(character).startswith("L")
        found.append(unicodedata.name(character, "?").partition(" ")[0] if letter else found[-1] if found else "")
    first = next((script for script in found if script), "")
    return [script or first for script in found]


def _may_break(text: str, n: int) -> bool:
    """Whether a line may end before the n-th character."""
    if n >= len(text):
        return True
    before, after = text[n - 1], text[n]
    if before in _BLANKS:
        return after not in _BLANKS
    if before in "-‐–—/" + _SOFT_HYPHEN:
        return after.isalpha()
    wide = any(unicodedata.east_asian_width(each) in _IDEOGRAPHS for each in (before, after))
    return wide and not _holds_next(before) and not _holds_last(after)


def _holds_next(character: str) -> bool:
    """Whether no line may end with it."""
    return character in _NO_END or unicodedata.category(character) in _OPENING


def _holds_last(character: str) -> bool:
    """Whether no line may begin with it."""
    kept = character in _NO_START or character in _BLANKS or _joins(character)
    return kept or unicodedata.category(character) in _CLOSING
