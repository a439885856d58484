"""Fonts by name: files that are given, the built-in ones, those installed on the machine; and which has a character.

It decides which file a name means and what stands in for a font that is not there; it refuses to know what is written
with it. Worker threads only. Nothing is fetched: the built-in fonts are packages, others come from Debian's.
"""

from __future__ import annotations

import importlib.util
import itertools
import logging
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from itertools import chain, islice, starmap
from pathlib import Path
from typing import Final, NamedTuple

import uharfbuzz as hb  # type: ignore[import-untyped]

from engine.errors import SourceUnavailable
from engine.sources.container import is_special
from engine.sources.outline import Intricate, Outline, Pen, placed

log = logging.getLogger(__name__)

DEFAULT: Final = "com.moviemasher.font.default"
BUILT_IN: Final = {  # Movie Masher's, plain ones first, and the packages with the font itself or with the nearest one
    DEFAULT: "fontpkg_league_spartan",
    "com.moviemasher.font.rubik-dirt": "fontpkg_rubik",
    "com.moviemasher.font.butcherman": "fontpkg_bungee",
    "com.moviemasher.font.croissant-one": "fontpkg_lobster",
    "com.moviemasher.font.kenia": "fontpkg_black_ops_one",
    "com.moviemasher.font.germania-one": "fontpkg_russo_one",
    "com.moviemasher.font.luckiest-guy": "fontpkg_luckiest_guy",
    "com.moviemasher.font.monoton": "fontpkg_righteous",
    "com.moviemasher.font.oleo-script": "fontpkg_oleo_script",
    "com.moviemasher.font.shojumaru": "fontpkg_permanent_marker",
}
FOLDERS: Final = (Path("/usr/share/fonts"), Path("/usr/local/share/fonts"))
PREFERRED: Final = ("dejavusans", "notosans")  # where a character is not in the font that was asked for
MAX_FILES: Final = 4096  # that are looked at in a folder of fonts
MAX_FACES: Final = 64  # that are looked at in a collection
MAX_BYTES: Final = 64 << 20  # of a font; the largest for Chinese have 20 MB
MAX_GLYPHS: Final = 1 << 15  # of one font whose boxes are kept
MAX_OUTLINES: Final = 64 << 20  # bytes of outlines that are kept of all fonts together
MAX_PARTS: Final = 1 << 14  # lines and curves of one letter: eight times those of the densest in Debian's fonts
MAX_DRAWN: Final = 2_000_000  # lines and curves of all letters of a text, each counted once: some seconds
MAX_LETTERS: Final = 1 << 15  # of which it is kept who has them: more than one text can have, and their bare letters
SAMPLE: Final = 64  # characters of a font, the first ones, of which one at least must be there to see
BRAILLE_BLANK: Final = "\u2800"  # the one symbol with nothing to see, as wide as the others of its font
_SUFFIXES: Final = (".ttf", ".otf", ".ttc", ".otc")
_NAMES: Final = (4, 6, 16, 1)  # OpenType `name`: full name, PostScript name, families
_REGULAR: Final = 400.0


Box = tuple[float, float, float, float]


class Glyph(NamedTuple):
    """What is known of an outline.

    box    in ems, y up: left, bottom, right, top; None when there is nothing to see.
    parts  how many lines and curves it has.
    """

    box: Box | None
    parts: int


class Outlines:
    """What was drawn of fonts, MAX_OUTLINES bytes of it at most, and how much more may be.

    left  so many more lines and curves, of letters that were not drawn before.
    """

    def __init__(self) -> None:
        self.left = MAX_DRAWN
        self._kept: dict[tuple[Face, int], Outline] = {}  # a Font would keep itself, and its file's bytes, alive
        self._bytes = 0

    def get(self, face: Face, number: int) -> Outline | None:
        """The outline of a glyph, if it is there still."""
        return self._kept.get((face, number))

    def keep(self, face: Face, number: int, outline: Outline) -> None:
        """Keeps it until there is no room for another one."""
        size = outline.lines.nbytes + outline.curves.nbytes
        if self._bytes + size > MAX_OUTLINES:
            self._kept.clear()
            self._bytes = 0
        self._kept[face, number] = outline
        self._bytes += size


class Face(NamedTuple):
    """Where a font is: its file, and its number in there, which is not 0 only in a collection (.ttc, .otc)."""

    path: Path
    number: int = 0


class Font:
    """A font of a file, its numbers in ems.

    Raises OSError, ValueError: no file, or too large, or it has no letters, or they are cut off, or pictures.
    """

    def __init__(self, path: Path, number: int = 0, outlines: Outlines | None = None) -> None:
        face = hb.Face(hb.Blob(_bytes_of(path)), number)
        if face.glyph_count == 0 or not face.unicodes:
            raise ValueError("no font that can be read")
        self._face = Face(path, number)
        self._units = float(face.upem)
        self._font = hb.Font(face)
        if any(axis.tag == "wght" for axis in face.axis_infos):
            self._font.set_variations({"wght": _REGULAR})
        self._glyphs: dict[int, Glyph] = {}
        self._outlines = outlines or Outlines()
        extents = self._font.get_font_extents("ltr")
        self.ascender = extents.ascender / self._units
        self.line_height = (extents.ascender - extents.descender + extents.line_gap) / self._units
        sample = map(self._font.get_nominal_glyph, islice(face.unicodes, SAMPLE))
        if not any(number is not None and self.outline(number).parts for number in sample):
            raise ValueError("its letters have no outlines")

    def check_letters(self) -> None:
        """Counts the lines and curves of all its letters. Raises Intricate: there are too many of them in one."""
        count, before = itertools.count(), -1
        for number in range(self._font.face.glyph_count):
            self._font.draw_glyph(number, _COUNTING, count)
            after = next(count)
            _check_parts(after - before - 1)
            before = after

    def has(self, letter: str) -> bool:
        """Whether it can write a character and the marks on it. Raises Intricate."""
        return _can_write(letter, self._shows)

    def _shows(self, character: str) -> bool:
        """Whether there is a glyph for it with something to see: those of colour emoji are bitmaps, with no outline."""
        number = self._font.get_nominal_glyph(ord(character))
        return number is not None and (character == BRAILLE_BLANK or self.glyph(number).box is not None)

    def shape(self, text: str, start: int, stop: int, *, leftwards: bool) -> list[tuple[int, int, float, float, float]]:
        """text[start:stop] as glyphs from left to right: glyph, character, advance, x and y offset.

        What is around it counts for how its letters join.
        """
        buffer = hb.Buffer()
        buffer.add_str(text, start, stop - start)
        buffer.direction = "rtl" if leftwards else "ltr"
        buffer.language = "und"  # the machine's own would make pictures differ
        buffer.guess_segment_properties()
        hb.shape(self._font, buffer)
        units = self._units
        return [
            (info.codepoint, info.cluster, at.x_advance / units, at.x_offset / units, at.y_offset / units)
            for info, at in zip(buffer.glyph_infos or (), buffer.glyph_positions or (), strict=True)
        ]

    def glyph(self, number: int) -> Glyph:
        """What is known of the outline of a glyph. Raises Intricate: it is too much work, or one letter too many is."""
        found = self._glyphs.get(number)
        if found is None:
            if len(self._glyphs) >= MAX_GLYPHS:
                self._glyphs.clear()
            outline = self.outline(number)
            found = self._glyphs[number] = Glyph(outline.box(), outline.parts)
            self._outlines.left -= found.parts
        _check_parts(found.parts)
        if self._outlines.left < 0:
            raise Intricate(f"has letters of more than {MAX_DRAWN} different lines and curves")
        return found

    def outline(self, number: int) -> Outline:
        """The outline of a glyph in ems, y up, however intricate it is."""
        found = self._outlines.get(self._face, number)
        if found is None:
            pen = Pen()
            self._font.draw_glyph(number, _DRAWING, pen)
            found = placed([pen.outline()], (1 / self._units, 1 / self._units), [(0.0, 0.0)])
            self._outlines.keep(self._face, number, found)
        return found


def _can_write(letter: str, shows: Callable[[str], bool]) -> bool:
    """Whether a letter can be written with the characters that `shows` says: as it is, or as HarfBuzz may write it.

    That puts together and takes apart what Unicode does, and has the plain hyphen stand in for the one without a break.
    """
    plain = letter.replace("\u2011", "\u2010")
    forms = {letter, plain, unicodedata.normalize("NFC", plain)}
    return any(all(_whole_or_apart(character, shows) for character in form) for form in forms)


def _whole_or_apart(character: str, shows: Callable[[str], bool]) -> bool:
    """As itself, or its last mark beside all before it: ấ may be â and a mark, and that a and a mark."""
    if shows(character):
        return True
    apart = unicodedata.normalize("NFD", character)
    if len(apart) == 1:
        return False
    before = unicodedata.normalize("NFC", apart[:-1])
    return shows(apart[-1]) and all(_whole_or_apart(each, shows) for each in before)


def _bytes_of(path: Path) -> bytes:
    """A font file's bytes: one that is mapped kills the process when it is written over. Raises OSError, ValueError."""
    status = path.stat()
    if is_special(status):  # it may never come to its end
        raise ValueError("not a file")
    if status.st_size > MAX_BYTES:
        raise ValueError(f"{status.st_size} bytes, more than {MAX_BYTES}")
    with path.open("rb") as file:
        return file.read(MAX_BYTES)


def _check_parts(parts: int) -> None:
    """Raises Intricate: these are too many lines and curves for a letter."""
    if parts > MAX_PARTS:
        raise Intricate(f"has a letter of {parts} lines and curves, more than {MAX_PARTS}")


def _drawing() -> hb.DrawFuncs:
    """Calls a Pen."""
    functions = hb.DrawFuncs()
    functions.set_move_to_func(lambda x, y, pen: pen.move((x, y)))
    functions.set_line_to_func(lambda x, y, pen: pen.line((x, y)))
    functions.set_quadratic_to_func(lambda x1, y1, x, y, pen: pen.quadratic((x1, y1), (x, y)))
    functions.set_cubic_to_func(lambda x1, y1, x2, y2, x, y, pen: pen.cubic((x1, y1), (x2, y2), (x, y)))
    functions.set_close_path_func(lambda pen: pen.close())
    return functions


def _counting() -> hb.DrawFuncs:
    """Takes a number of a count for each line and curve."""
    functions = hb.DrawFuncs()
    functions.set_line_to_func(lambda x, y, count: next(count))
    functions.set_quadratic_to_func(lambda x1, y1, x, y, count: next(count))
    functions.set_cubic_to_func(lambda x1, y1, x2, y2, x, y, count: next(count))
    return functions


_DRAWING: Final = _drawing()
_COUNTING: Final = _counting()


class Fonts:
    """The fonts there are, opened when they are first wanted.

    files    what names mean before anything else: path by name.
    folders  where fonts are installed.
    """

    def __init__(self, files: Mapping[str, str] | None = None, *, folders: Iterable[Path] = FOLDERS) -> None:
        self._files = files or {}
        self._folders = tuple(folders)
        self._outlines = Outlines()
        self._opened: dict[Face, Font | None] = {}
        self._named: dict[str | None, Font] = {}
        self._having: dict[tuple[str, Font], Font] = {}
        self._characters: dict[Face, hb.Set] = {}  # of what may stand in
        self._known: dict[str, Face] | None = None  # by plain name
        self._order: list[Face] | None = None  # of what may stand in

    def begin(self) -> None:
        """From here on as much may be drawn as for one text."""
        self._outlines.left = MAX_DRAWN

    def named(self, name: str | None) -> Font:
        """The font of that name, or else the default one, or else any. Raises SourceUnavailable: there is none."""
        found = self._named.get(name)
        if found is None:
            asked = self._asked(name or DEFAULT)
            found = asked or next(filter(None, starmap(self._open, self._others())), None)
            if found is None:
                raise SourceUnavailable("text: no font is installed", where=name or DEFAULT)
            if asked is None:
                log.warning('font "%s": none of that name, another one stands in', name or DEFAULT)
            self._named[name] = found
        return found

    def having(self, letter: str, font: Font) -> Font:
        """`font`, or where that lacks a character or a mark on it the first that has all, or else the character.

        Raises Intricate.
        """
        found = self._having.get((letter, font))
        if found is None:
            if len(self._having) >= MAX_LETTERS:
                self._having.clear()
            likely = (face for face in self._others() if self._lists(face, letter))
            others = filter(None, starmap(self._open, likely))
            found = next((each for each in chain((font,), others) if each.has(letter)), None)
            if found is None:
                found = self.having(letter[0], font) if len(letter) > 1 else font
            self._having[letter, font] = found
        return found

    def _lists(self, face: Face, letter: str) -> bool:
        """Whether a font says that it has a letter. One that does not is not opened: that takes as much as its file."""
        if face not in self._characters:
            self._characters[face] = _characters(face)
        characters = self._characters[face]
        return _can_write(letter, lambda character: ord(character) in characters)

    def _asked(self, name: str) -> Font | None:
        """The font that a name means, if it is there and can be read."""
        given, package = self._files.get(name), BUILT_IN.get(name)
        if given is not None:
            return self._open(Path(given.removeprefix("file:")))
        if package is not None:
            return self._open(_packaged(package))
        installed = self._installed().get(_plain(name))
        return None if installed is None else self._open(*installed)

    def _open(self, path: Path | None, number: int = 0) -> Font | None:
        if path is None:
            return None
        face = Face(path, number)
        if face not in self._opened:
            try:
                self._opened[face] = Font(path, number, self._outlines)
            except (OSError, ValueError, hb.HarfBuzzError) as err:
                log.warning("font %s: %s", path.name, err)
                self._opened[face] = None
        return self._opened[face]

    def likeliest(self) -> list[Face]:
        """What stands in before all else: the default font and the preferred ones, as far as they are there."""
        installed, default = self._installed(), _packaged(BUILT_IN[DEFAULT])
        preferred = [installed[name] for name in PREFERRED if name in installed]
        return preferred if default is None else [Face(default), *preferred]

    def _others(self) -> list[Face]:
        """What may stand in, the likeliest first."""
        if self._order is None:
            faces = set(self._installed().values())
            rest = sorted(faces, key=lambda face: (_slanted_or_bold(face.path), face.path.name, face.number))
            self._order = [*self.likeliest(), *rest]
        return self._order

    def _installed(self) -> dict[str, Face]:
        """Every font by its names and its file's name; of two of a name the first counts, an upright one first."""
        if self._known is None:
            self._known = {}
            packaged = (path for path in map(_packaged, sorted(set(BUILT_IN.values()))) if path is not None)
            found = (path for folder in self._folders for path in islice(folder.rglob("*"), MAX_FILES))
            fonts = [path for path in (*packaged, *found) if path.suffix.lower() in _SUFFIXES and path.is_file()]
            for path in sorted(fonts, key=lambda path: (_slanted_or_bold(path), path.name)):
                for name, face in ((path.stem, Face(path)), *_names(path)):
                    self._known.setdefault(_plain(name), face)
        return self._known


def _plain(name: str) -> str:
    """A name without what people write differently: case, spaces, hyphens."""
    return "".join(filter(str.isalnum, unicodedata.normalize("NFKC", name).casefold()))


def _slanted_or_bold(path: Path) -> bool:
    name = path.stem.lower()
    return any(style in name for style in ("bold", "italic", "oblique", "light", "black", "thin", "condensed", "mono"))


def _names(path: Path) -> list[tuple[str, Face]]:
    """The names in a file and the fonts they mean: full names first, as all of a collection may be of one family."""
    try:
        blob = hb.Blob.from_file_path(str(path))
        faces = [hb.Face(blob, number) for number in range(min(hb.Face(blob).count, MAX_FACES))]
        named = ((face.get_name(kind), Face(path, face.index)) for kind in _NAMES for face in faces)
        return [(name, face) for name, face in named if name]
    except (OSError, ValueError, hb.HarfBuzzError):
        return []  # what cannot be read has no name; whoever asks for it by its file's name is told why


def _characters(face: Face) -> hb.Set:
    """What a font says that it has; nothing where it cannot be read."""
    try:
        return hb.Face(hb.Blob.from_file_path(str(face.path)), face.number).unicodes
    except (OSError, ValueError, hb.HarfBuzzError):
        return hb.Set()


def carried() -> list[Path]:
    """The files of the built-in fonts, the default one and what else is plain first."""
    return [path for package in dict.fromkeys(BUILT_IN.values()) if (path := _packaged(package)) is not None]


def _packaged(package: str) -> Path | None:
    """The upright font of a package, without importing it; None where it is not installed."""
    spec = importlib.util.find_spec(package)
    folders = (spec.submodule_search_locations or []) if spec is not None else []
    files = sorted(path for folder in folders for path in Path(folder, "files").glob("*.ttf"))
    upright = [path for path in files if "italic" not in path.stem.lower() and "bold" not in path.stem.lower()]
    return next(iter(upright or files), None)
