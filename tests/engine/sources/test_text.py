"""Text stands where its node says, broken into lines, in any language and any font; no string and no font breaks it."""

import gc
import logging
import math
import struct
import subprocess
import sys
import unicodedata
import weakref
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import astuple

from engine.clip import Ink
from engine.errors import SourceUnavailable
from engine.sources import fonts as fonts_module
from engine.sources import text as module
from engine.sources.fonts import BUILT_IN, DEFAULT, Font, Fonts
from engine.sources.outline import Intricate, Pen
from engine.sources.text import draw_text, measure
from engine.tree import TextNode
from tests.fontfile import FIRST, intricate_font

PACKAGES = Path(fonts_module._packaged("fontpkg_heebo")).parents[2]
HEEBO = str(PACKAGES / "fontpkg_heebo/files/Heebo[wght].ttf")
FONTS = Fonts({"hebrew": HEEBO}, folders=())
SIZE = 40


def alpha(string, width=400, height=80, fonts=FONTS, **fields):
    frame = draw_text(TextNode(string=string, size=fields.pop("size", SIZE), **fields), width, height, fonts)
    assert (frame.width, frame.height) == (width, height)
    return np.full(frame.y.shape, 255, np.uint8) if frame.a is None else frame.a


def ink(made):
    """(left, top, right, bottom) of what is painted; None when nothing is."""
    rows, columns = np.nonzero(made.max(axis=1))[0], np.nonzero(made.max(axis=0))[0]
    return (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1) if len(rows) else None


def scaled(string, font=None, size=SIZE):
    return [number * size / 1000 for number in astuple(measure(string, font, FONTS))]


# --- place -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("string", ["Hello", "gypsum", "1", "ÅÄÖ", "- -", "two\nlines", "\nbelow a line"])
@pytest.mark.parametrize("font", [None, "hebrew", "com.moviemasher.font.oleo-script"])
def test_ink_begins_at_the_top_and_is_as_large_as_measured(string, font):
    left, top, right, bottom = ink(alpha(string, font=font, height=200))
    x, width, height = scaled(string, font)
    assert abs(left + x) < 1 or (x > 0 and left == 0)  # what reaches left of the pen is cut off
    assert top == 0
    assert abs(right - (width - x)) <= 1
    assert abs(bottom - height) <= 1


def test_vertical_says_where_the_ink_is():
    tops = {each: ink(alpha("Hxg", vertical=each))[1::2] for each in ("top", "middle", "bottom")}
    height = scaled("Hxg")[2]
    assert tops["top"][0] == 0
    assert abs(tops["middle"][0] - (80 - height) / 2) <= 1
    assert tops["bottom"][1] == 80


def test_line_stands_at_the_same_place_whatever_its_letters():
    made = [ink(alpha(string, vertical="line")) for string in ("x", "xx", "xÅx", "xgx")]
    assert len({box[3] for box in made[:3]}) == 1  # the baseline
    assert made[2][1] < made[0][1]


def test_align_says_where_lines_begin_end_or_have_their_middle():
    wide = alpha("mmmm\ni", align="left", height=120)
    assert ink(wide[:20])[0] <= 6
    assert ink(wide[40:])[0] <= 6
    right = alpha("mmmm\ni", align="right", height=120)
    assert ink(right[:20])[2] >= 390
    assert ink(right[40:])[2] >= 390
    centre = ink(alpha("mmmm", align="center"))
    assert abs(centre[0] + centre[2] - 400) <= 3


def test_fill_stretches_the_ink_to_the_rectangle():
    for string in ("I", "Hello", "two\nlines"):
        made = alpha(string, width=123, height=45, fit="fill", align="center")
        assert ink(made) == (0, 0, 123, 45)
    wide, narrow = alpha("H", 200, 40, fit="fill", size=1), alpha("H", 200, 40, fit="fill", size=1000)
    assert np.array_equal(wide, narrow)


def test_what_does_not_fit_is_cut_off():
    whole, part = alpha("Hello", 400, 80), alpha("Hello", 30, 12)
    assert np.array_equal(whole[:12, :30], part)


def test_parts_of_a_text_side_by_side_are_the_whole_of_it():
    text = "a line that is drawn in three"
    parts = [alpha(text, width=200, offset=offset) for offset in (0, 200, 400)]
    assert np.array_equal(np.concatenate(parts, axis=1), alpha(text, width=600))


def test_size_is_in_pixels_per_em():
    small, large = ink(alpha("Hello", size=20)), ink(alpha("Hello", size=40))
    assert [2 * side for side in small] == pytest.approx(list(large), abs=2)


# --- lines -----------------------------------------------------------------------------------------------------------


def lines(string, room, font=None):
    """The lines of a wrapped text as strings."""
    found = FONTS.named(font)
    broken = []
    for each in module._LINE_ENDS.split(string):
        paragraph = module._Paragraph(module._cleaned(each), found, FONTS)
        broken += [paragraph._text[start:stop] for start, stop in paragraph.broken(room)]
    return broken


def room_for(string):
    """Just as wide as a string that Heebo is asked for, in ems."""
    return module._lines(string, FONTS.named("hebrew"), FONTS, None)[0].width + 1e-6


def test_lines_are_broken_where_they_get_too_wide():
    assert lines("one two three four", 5.5) == ["one two", "three four"]
    assert lines("one two three four", 1e9) == ["one two three four"]
    assert lines("one two three four", None) == ["one two three four"]
    assert lines("one  two   three", 2.5) == ["one", "two", "three"]
    assert lines("  one", 9) == ["  one"]


def test_line_ends_always_count():
    assert lines("one\ntwo\r\nthree\u2028\nfour", 1e9) == ["one", "two", "three", "", "four"]
    assert lines("", 3) == [""]
    assert lines("\n", 3) == ["", ""]


@pytest.mark.parametrize("glue", ["\xa0", "\u2007", "\u202f", "\u2060", "\ufeff"])
def test_no_line_is_broken_at_what_says_so(glue):
    assert lines(f"in all 100{glue}000{glue}€ net", 5.2) == ["in all", f"100{glue}000{glue}€", "net"]
    assert lines(f"漢字漢{glue}字", room_for(f"漢字漢{glue}"), "hebrew") == ["漢字", f"漢{glue}字"]
    assert lines(f"ab cd{glue}", 5) == [f"ab cd{glue}"]


def test_blank_without_a_width_is_where_a_line_may_end():
    assert lines("one\u200btwo\u200b33", 2.2) == ["one", "two", "33"]


def test_hyphens_and_ideographs_may_end_a_line():
    assert lines("well-known", 3.2) == ["well-", "known"]
    assert lines("10-20", 2) != ["10-", "20"]  # a number is not two
    assert lines("漢字漢字。漢", 2.9, "hebrew")[0] in ("漢字漢", "漢字", "漢")
    assert not any(line.startswith("。") for line in lines("漢字漢字。漢", 2.2, "hebrew"))


@pytest.mark.parametrize(("font", "hyphen"), [("com.moviemasher.font.butcherman", "\u2010"), ("hebrew", "-")])
def test_line_that_is_broken_at_a_soft_hyphen_ends_with_a_hyphen(font, hyphen):
    assert FONTS.named(font).has("\u2010") == (hyphen == "\u2010")
    fields = {"font": font, "height": 160, "vertical": "line"}
    room = int(SIZE * module._lines("Donau-", FONTS.named(font), FONTS, None)[0].width) + 2
    broken = alpha("Donau\u00addampf", width=room, wrap=True, **fields)
    assert np.array_equal(broken, alpha(f"Donau{hyphen}\ndampf", width=room, **fields))


def test_soft_hyphen_is_not_seen_where_no_line_is_broken_at_it():
    assert np.array_equal(alpha("so\u00adfar\u00ad", wrap=True), alpha("sofar", wrap=True))
    fields = {"width": int(room_for("sofar--") * SIZE), "font": "hebrew", "height": 160, "wrap": True}
    assert np.array_equal(alpha("so\u00adfar\u00ad so\u00ad\nfar", **fields), alpha("sofar\nso\nfar", **fields))


def test_line_has_room_for_the_hyphen_that_is_shown():
    assert lines("in Do\u00adnau", room_for("in Do-"), "hebrew") == ["in Do\u00ad", "nau"]
    assert lines("in Do\u00adu", room_for("in Do"), "hebrew") == ["in", "Do\u00adu"]
    assert lines("Do\u00adnau", room_for("Do"), "hebrew") == ["Do", "na", "u"]  # broken anywhere


def test_hyphen_of_a_line_to_the_left_is_at_its_left_end():
    room = int(SIZE * room_for("אבג-")) + 1
    made = alpha("אבג\u00adדה", width=room, font="hebrew", wrap=True, vertical="line", height=160)
    assert np.array_equal(made, alpha("אבג-\nדה", width=room, font="hebrew", vertical="line", height=160))


@pytest.mark.parametrize("opening", "「『（［｛〈《【“‘｢«([{￥$€₩№")
def test_no_line_ends_in_an_opening_bracket_or_before_a_price(opening):
    assert lines(f"漢字{opening}漢字", room_for(f"漢字{opening}"), "hebrew") == ["漢字", f"{opening}漢字"]


@pytest.mark.parametrize("closing", "」』）］｝〉》】”’｣»｠〙〗)]}、。､｡･…‥ー々ゝゞヽヾっッｯ％℃!/-")
def test_no_line_begins_with_a_closing_bracket_or_what_goes_on(closing):
    found = lines(f"漢字漢{closing}字", room_for("漢字漢"), "hebrew")
    assert found[0] == "漢字"
    assert "".join(found[1:]) == f"漢{closing}字"


@pytest.mark.parametrize("quote", "\"'")
def test_straight_quote_stays_with_what_is_on_both_its_sides(quote):
    assert lines(f"漢字漢{quote}字", room_for(f"漢字漢{quote}"), "hebrew") == ["漢字", f"漢{quote}字"]
    assert lines(f"漢字漢{quote}字", room_for("漢字漢"), "hebrew") == ["漢字", f"漢{quote}字"]


def test_line_may_begin_with_half_width_letters_as_with_wide_ones():
    assert lines("半角ｶﾀｶﾅ", room_for("半角ｶﾀ"), "hebrew") == ["半角ｶﾀ", "ｶﾅ"]


def test_word_that_is_wider_than_a_line_is_broken_anywhere():
    found = lines("Donaudampfschiff", 2)
    assert "".join(found) == "Donaudampfschiff"
    assert len(found) > 3
    assert lines("abc", 0) == ["a", "b", "c"]


def test_marks_stay_with_their_letters():
    assert lines("e\u0301e\u0301e\u0301", 0) == ["e\u0301"] * 3


@settings(deadline=None, max_examples=60)
@given(st.text(st.sampled_from("ab cd-é漢。\u0301 \u05d0"), max_size=30), st.floats(0, 6))
def test_lines_hold_all_that_is_no_blank_in_its_order(string, room):
    found = lines(string, room)
    assert "".join("".join(found).split()) == "".join(string.split())
    assert all(found) or not string.strip() or string[0].isspace()


def test_wrapped_lines_stand_below_each_other():
    box = ink(alpha("one two three four", 240, 200, wrap=True))
    assert box[3] > 1.5 * scaled("one")[2]
    assert box[2] <= 240


# --- letters ---------------------------------------------------------------------------------------------------------


def test_right_to_left_text_reads_from_the_right():
    hebrew = alpha("אב", font="hebrew")
    first, second = alpha("א", font="hebrew"), alpha("ב", font="hebrew")
    width = ink(hebrew)[2] - ink(hebrew)[0]
    assert width > ink(first)[2] - ink(first)[0]
    start = ink(hebrew)[0]
    left_letter = second[:, ink(second)[0] : ink(second)[2] - 1]
    assert np.array_equal(hebrew[:, start : start + left_letter.shape[1]], left_letter)


def test_runs_of_both_directions_stand_in_their_order():
    mixed = alpha("ab אב 12", font="hebrew", width=600)
    parts = [ink(alpha(each, font="hebrew"))[2] for each in ("ab", "אב", "12")]
    assert ink(mixed)[2] > sum(parts) * 0.8
    assert np.array_equal(mixed[:, : parts[0] - 2], alpha("ab", font="hebrew", width=600)[:, : parts[0] - 2])


@pytest.mark.parametrize(("direction", "first"), [("auto", "b"), ("ltr", "א"), ("rtl", "b")])
def test_line_begins_where_its_first_letter_or_its_direction_says(direction, first):
    line = alpha("א b", font="hebrew", direction=direction, vertical="line")
    letter = alpha(first, font="hebrew", vertical="line")
    left, right = ink(letter)[0], ink(letter)[2]
    assert np.array_equal(line[:, left : right - 1], letter[:, left : right - 1])


def test_kerning_brings_letters_together():
    shape = FONTS.named(None).shape
    kerned, plain = (shape(string, 0, 2, leftwards=False)[0] for string in ("AV", "AA"))
    assert kerned[0] == plain[0]
    assert kerned[2] < plain[2]


def test_tab_is_four_blanks_and_other_controls_are_nothing():
    assert np.array_equal(alpha("a\tb"), alpha("a    b"))
    assert np.array_equal(alpha("a\x00\x07\x1b\x7fb"), alpha("ab"))
    assert np.array_equal(alpha("a\ud800b"), alpha("ab"))


def test_letter_that_the_font_lacks_comes_from_another_one():
    fonts = Fonts(folders=(PACKAGES / "fontpkg_heebo",))
    assert not fonts.named(None).has("א")
    assert np.array_equal(alpha("א", fonts=fonts), alpha("א", font="Heebo", fonts=fonts))
    assert ink(alpha("א", fonts=FONTS)) is not None  # nobody has it: the box of the font


@pytest.mark.parametrize(
    ("name", "letter"), [("oleo-script", "č"), ("shojumaru", "ş"), ("germania-one", "й"), ("luckiest-guy", "ệ")]
)
def test_letter_and_its_marks_are_the_letter_that_has_them(name, letter):
    apart, font = unicodedata.normalize("NFD", letter), f"com.moviemasher.font.{name}"
    assert np.array_equal(alpha(f"a {apart} b", font=font), alpha(f"a {letter} b", font=font))


@pytest.mark.parametrize(
    ("name", "letter", "another"),
    [
        (DEFAULT, "o\u0338", "Rubik"),
        ("com.moviemasher.font.germania-one", "и\u0301", "Lobster"),
        ("com.moviemasher.font.oleo-script", "O\u0323\u0300", DEFAULT),
        ("com.moviemasher.font.oleo-script", "\u00a0\u0323", DEFAULT),
    ],
)
def test_letter_of_which_the_font_lacks_a_mark_comes_with_it_from_another_one(name, letter, another):
    assert ink(alpha(letter, font=name))
    assert np.array_equal(alpha(letter, font=name), alpha(letter, font=another))


@pytest.mark.parametrize("letter", ["ấ", "ễ", "\u212b", "a\u0302\u0301", "â\u0301"])
def test_letter_that_the_font_has_in_parts_is_written_with_it(letter):
    rubik = FONTS.named("com.moviemasher.font.rubik-dirt")
    assert FONTS.having(letter, rubik) is rubik
    assert 0 not in [glyph[0] for glyph in rubik.shape(letter, 0, len(letter), leftwards=False)]
    apart = unicodedata.normalize("NFD", letter)
    assert np.array_equal(alpha(letter, font="Rubik"), alpha(apart, font="Rubik"))


def test_hyphen_without_a_break_is_the_plain_one(tmp_path):
    fonts = Fonts({"x": str(intricate_font(tmp_path / "x.ttf", curves=8, letters=1, first=0x2010))}, folders=())
    assert np.array_equal(alpha("A\u2011B", fonts=fonts, font="x"), alpha("A\u2010B", fonts=fonts, font="x"))
    assert fonts.named("x").has("\u2011")


def test_hangul_in_parts_is_as_hangul_in_whole(tmp_path):
    fonts = Fonts({"x": str(intricate_font(tmp_path / "x.ttf", curves=8, letters=11_172, first=0xAC00))}, folders=())
    text = "한국 감각"
    apart = unicodedata.normalize("NFD", text)
    fields = {"fonts": fonts, "font": "x", "height": 300}
    assert np.array_equal(alpha(apart, **fields), alpha(text, **fields))
    narrow = {**fields, "wrap": True, "width": 50}
    assert np.array_equal(alpha(apart, **narrow), alpha(text, **narrow))
    assert lines(apart, 0) == [unicodedata.normalize("NFD", each) for each in text.replace(" ", "")]


def test_letter_with_a_mark_that_no_font_has_is_where_it_is_without():
    oleo = FONTS.named("com.moviemasher.font.oleo-script")
    assert FONTS.having("a\u0489", oleo) is oleo
    assert FONTS.having("Ж\u0489", oleo) is FONTS.having("Ж", oleo) is not oleo


@pytest.mark.parametrize("unseen", ["\ufe0f", "\u034f", "\u200d", "\u00ad"])
def test_what_is_not_seen_changes_no_font(unseen):
    for name in (DEFAULT, "com.moviemasher.font.oleo-script"):
        assert np.array_equal(alpha(f"{unseen}a{unseen} b", font=name), alpha("a b", font=name))


def test_letter_of_which_there_is_nothing_to_see_comes_from_another_font(tmp_path):
    path = without_outlines(tmp_path / "a.ttf", "א")
    fonts = Fonts({"mine": str(path)}, folders=(PACKAGES / "fontpkg_heebo",))
    assert np.array_equal(alpha("א", font="mine", fonts=fonts), alpha("א", font="Heebo", fonts=fonts))


def test_blank_that_is_no_space_is_blank_and_no_box(tmp_path):
    assert np.array_equal(alpha("a\u3164b"), alpha("a\u3000b"))
    with_braille_blank(tmp_path / "a.ttf")
    assert ink(alpha("\u2800")) is not None  # no font has it: the box of the font
    assert ink(alpha("\u2800", fonts=Fonts(folders=(tmp_path,)))) is None


def test_font_without_outlines_stands_in_for_none_and_another_one_for_it(tmp_path, caplog):
    path = without_outlines(tmp_path / "a.ttf")
    fonts = Fonts({"mine": str(path)}, folders=(tmp_path, PACKAGES / "fontpkg_heebo"))
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert np.array_equal(alpha("א", fonts=fonts), alpha("א", font="Heebo", fonts=fonts))
            assert np.array_equal(alpha("Hello", font="mine", fonts=fonts), alpha("Hello"))
    assert [record.getMessage() for record in caplog.records] == [
        "font a.ttf: its letters have no outlines",
        'font "mine": none of that name, another one stands in',
    ]


# --- fonts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_fonts_are_there(name):
    assert FONTS.named(name).has("A")
    assert ink(alpha("Hamburg", font=name)) is not None


def test_fonts_of_one_file_are_one():
    assert FONTS.named(None) is FONTS.named(DEFAULT)
    assert len({id(FONTS.named(name)) for name in BUILT_IN}) == len(BUILT_IN)


@pytest.mark.parametrize("name", ["Heebo", "heebo", "HEEBO", "Heebo[wght]", "hee bo"])
def test_installed_font_is_found_by_any_of_its_names(name):
    fonts = Fonts(folders=(PACKAGES / "fontpkg_heebo",))
    assert fonts.named(name).has("א")


def collection(path, *files):
    """Fonts as one file. ISO 14496-22: a head with the places of the fonts, whose tables' places are the file's."""
    made = bytearray(struct.pack(">4sII", b"ttcf", 0x10000, len(files)) + bytes(4 * len(files)))
    for n, file in enumerate(files):
        data, at = bytearray(Path(file).read_bytes()), len(made)
        struct.pack_into(">I", made, 12 + 4 * n, at)
        for place in range(20, 12 + 16 * struct.unpack_from(">H", data, 4)[0], 16):
            struct.pack_into(">I", data, place, struct.unpack_from(">I", data, place)[0] + at)
        made += data + bytes(-len(data) % 4)
    path.write_bytes(made)


def test_every_font_of_a_collection_is_found_by_its_names(tmp_path, caplog):
    collection(tmp_path / "All.ttc", fonts_module._packaged(BUILT_IN[DEFAULT]), HEEBO)
    fonts = Fonts(folders=(tmp_path,))
    with caplog.at_level(logging.WARNING):
        assert np.array_equal(alpha("Hello אב", font="Heebo", fonts=fonts), alpha("Hello אב", font="hebrew"))
        for name in ("League Spartan", "All"):
            assert np.array_equal(alpha("Hello", font=name, fonts=fonts), alpha("Hello"))
    assert np.array_equal(alpha("א", fonts=fonts), alpha("א", font="hebrew"))  # the second stands in too
    assert caplog.records == []


def test_variable_font_is_regular():
    assert scaled("Hamburg", "hebrew")[1] > 0
    thin = FONTS.named("hebrew")
    assert 0.05 < thin.glyph(thin.shape("l", 0, 1, leftwards=False)[0][0]).box[2] < 0.25


def test_font_that_is_not_there_is_replaced_and_said_once(caplog):
    fonts = Fonts(folders=())
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert np.array_equal(alpha("Hello", font="Comic Sans", fonts=fonts), alpha("Hello"))
    assert [record.getMessage() for record in caplog.records] == [
        'font "Comic Sans": none of that name, another one stands in'
    ]


def without_outlines(path, letters=""):
    """Heebo as a file in which these letters, or all, look like nothing: colour emoji and cut-off fonts are such."""
    data = bytearray(Path(HEEBO).read_bytes())
    where = tables_of(data)
    begin, size = where[b"loca"]
    if not letters:
        data[begin : begin + size] = bytes(size)
    wide = 4 if data[where[b"head"][0] + 51] else 2
    for letter in letters:
        at = begin + wide * Fonts({"x": HEEBO}).named("x").shape(letter, 0, 1, leftwards=False)[0][0]
        data[at : at + wide] = data[at + wide : at + 2 * wide]  # what is before it is longer, which does no harm
    path.write_bytes(data)
    return path


def tables_of(data):
    """Offset and size of each table of a font."""
    tables = (struct.unpack_from(">4sIII", data, 12 + 16 * n) for n in range(struct.unpack_from(">H", data, 4)[0]))
    return {tag: (offset, size) for tag, _, offset, size in tables}


def with_braille_blank(path):
    """Heebo as a file in which the ligature fi gave its place to Braille's blank, which looks as a space does.

    OpenType `cmap` 4: ends of ranges of characters, 2 bytes, their beginnings, what makes a glyph of a character, 0.
    """
    data = bytearray(Path(HEEBO).read_bytes())
    at = tables_of(data)[b"cmap"][0] + 20
    size = struct.unpack_from(">H", data, at + 6)[0]
    n = 2 * struct.unpack_from(f">{size // 2}H", data, at + 14).index(ord("ﬁ"))
    space = FONTS.named("hebrew").shape(" ", 0, 1, leftwards=False)[0][0]
    for k, value in enumerate((0x2800, 0x2800, (space - 0x2800) % 65536, 0)):
        struct.pack_into(">H", data, at + 14 + n + k * size + (2 if k else 0), value)
    path.write_bytes(data)


def broken_fonts(folder):
    good = Path(HEEBO).read_bytes()
    damaged = np.frombuffer(good, np.uint8).copy()
    damaged[np.random.default_rng(1).integers(0, len(damaged), 4000)] = 255
    contents = {
        "empty": b"",
        "text": b"this is no font" * 100,
        "half": good[: len(good) // 2],
        "header": good[:64],
        "damaged": damaged.tobytes(),
        "headless": bytes(2000) + good[2000:],
        "tail": good[:12] + bytes(len(good) - 12),
    }
    for name, content in contents.items():
        (folder / f"{name}.ttf").write_bytes(content)
    (folder / "folder.ttf").mkdir()
    return {name: str(folder / f"{name}.ttf") for name in (*contents, "folder", "missing")}


def test_broken_fonts_break_nothing(tmp_path):
    fonts = Fonts(broken_fonts(tmp_path), folders=(tmp_path,))
    for name in (*fonts._files, "Heebo"):
        assert alpha("Hello שלום", font=name, fonts=fonts).shape == (80, 400)
        measure("Hello", name, fonts)


def test_font_file_that_is_written_over_is_the_font_that_was_opened(tmp_path):
    path = tmp_path / "x.ttf"
    path.write_bytes(Path(HEEBO).read_bytes())
    program = f"""
from engine.sources.fonts import Fonts
from engine.sources.text import draw_text
from engine.tree import TextNode
fonts = Fonts({{"x": {str(path)!r}}}, folders=())
draw = lambda string: draw_text(TextNode(string=string, font="x", size=20), 64, 36, fonts).a
before = draw("A§")
open({str(path)!r}, "wb").close()
assert (draw("A§") == before).all() and draw("Qאß").any()
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)  # it was SIGBUS that ended it


def test_fonts_that_lack_a_letter_are_not_opened_for_it():
    fonts = Fonts(folders=(PACKAGES / "fontpkg_heebo",))
    alpha("A\u2603", fonts=fonts)
    assert [face.path.name for face in fonts._opened] == [fonts_module._packaged(BUILT_IN[DEFAULT]).name]
    alpha("א", fonts=fonts)
    assert Path(HEEBO) in [face.path for face in fonts._opened]


def test_a_device_is_no_font_and_is_not_read(caplog):
    with pytest.raises(ValueError, match="not a file"):  # another one than /dev/null would never come to its end
        Font(Path("/dev/null"))
    fonts = Fonts({"x": "/dev/null"}, folders=())
    assert fonts.named("x") is fonts.named(DEFAULT)
    assert caplog.messages[0] == "font null: not a file"


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 90_000), st.integers(0, 255)), max_size=40))
def test_any_damage_to_a_font_breaks_nothing(changes):
    damaged = bytearray(Path(HEEBO).read_bytes())
    for place, value in changes:
        damaged[place % len(damaged)] = value
    path = DAMAGED / "font.ttf"
    path.write_bytes(bytes(damaged))
    alpha("Hello שלום fi", fonts=Fonts({"x": str(path)}, folders=()), font="x")


@pytest.fixture(autouse=True, scope="module")
def _damaged(tmp_path_factory):
    global DAMAGED
    DAMAGED = tmp_path_factory.mktemp("fonts")


def intricate(folder, *, curves, letters=20):
    return Fonts({"x": str(intricate_font(folder / "x.ttf", curves=curves, letters=letters))}, folders=())


def letters_of(start, count):
    return "".join(chr(FIRST + n) for n in range(start, start + count))


def test_letter_of_too_many_curves_is_refused_and_all_others_are_drawn(tmp_path):
    fonts = intricate(tmp_path, curves=20_000)
    for _ in range(2):
        with pytest.raises(Intricate, match=r"^has a letter of 20000 lines and curves, more than 16384$"):
            alpha(f"AB{letters_of(0, 1)}", fonts=fonts, font="x")
    with pytest.raises(Intricate, match="has a letter of 20000"):
        measure(letters_of(1, 1), "x", fonts)
    assert ink(alpha("AB", fonts=fonts, font="x"))


def test_letters_that_have_too_many_curves_together_are_refused_before_all_are_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(fonts_module, "MAX_DRAWN", 10_000)
    fonts = intricate(tmp_path, curves=3_000)
    assert measure(letters_of(0, 3) * 9, "x", fonts) == measure(letters_of(0, 3) * 9, "x", fonts)
    with pytest.raises(Intricate, match=r"^has letters of more than 10000 different lines and curves$"):
        measure(letters_of(3, 1), "x", fonts)  # what is measured with the same fonts counts together
    for start in range(0, 18, 3):
        assert ink(alpha(letters_of(start, 3), fonts=fonts, font="x"))  # each picture counts alone
    with pytest.raises(Intricate):
        alpha(letters_of(0, 20), fonts=intricate(tmp_path, curves=3_000), font="x")


def test_letters_that_have_too_many_curves_where_they_stand_are_refused_before_any_is_placed(tmp_path):
    fonts = intricate(tmp_path, curves=10_000)
    assert ink(alpha(letters_of(0, 1) * 20, fonts=fonts, font="x", size=1))
    with pytest.raises(Intricate, match=r"^has 2010000 lines and curves, more than 2000000$"):
        alpha(letters_of(0, 1) * 201, fonts=fonts, font="x", size=1)
    beyond = letters_of(0, 1) * 20 + " " * 1000 + letters_of(0, 1) * 300  # only what is seen counts
    assert ink(alpha(beyond, fonts=fonts, font="x", size=1))


def test_text_that_is_refused_for_its_letters_was_not_drawn_and_no_letter_is_drawn_twice_for_one(tmp_path, monkeypatch):
    monkeypatch.setattr(fonts_module, "MAX_OUTLINES", 1 << 20)
    fonts, drawn = intricate(tmp_path, curves=10_000), []
    assert ink(alpha(letters_of(0, 10), fonts=fonts, font="x", size=1))
    with monkeypatch.context() as watched:
        watched.setattr(fonts_module, "Pen", lambda: drawn.append(1) or Pen())
        assert ink(alpha(letters_of(0, 10) * 3, fonts=fonts, font="x", size=1))
        assert len(drawn) <= 10
        drawn.clear()
        with pytest.raises(Intricate, match="has 3000000 lines and curves"):
            alpha(letters_of(0, 10) * 30, fonts=fonts, font="x", size=1)
        assert drawn == []


def test_fonts_that_nobody_uses_any_more_are_gone_at_once():
    fonts = Fonts(folders=())
    gone = weakref.ref(fonts.named(None))
    alpha("A", fonts=fonts)
    gc.disable()
    try:
        del fonts
        assert gone() is None  # a font has up to 64 MB
    finally:
        gc.enable()


def test_what_is_kept_of_outlines_has_a_bound_and_letters_are_the_same_when_drawn_again(tmp_path, monkeypatch):
    monkeypatch.setattr(fonts_module, "MAX_OUTLINES", 1 << 20)
    fonts = intricate(tmp_path, curves=3_000)
    before = alpha(letters_of(0, 4), fonts=fonts, font="x")
    for n in range(20):
        alpha(letters_of(n, 1), fonts=fonts, font="x")
        kept = fonts._outlines._kept.values()
        assert sum(outline.lines.nbytes + outline.curves.nbytes for outline in kept) <= 1 << 20
    assert np.array_equal(alpha(letters_of(0, 4), fonts=fonts, font="x"), before)


def test_without_any_font_there_is_no_text(monkeypatch):
    monkeypatch.setattr(fonts_module, "_packaged", lambda package: None)
    with pytest.raises(SourceUnavailable, match="no font is installed"):
        alpha("Hello", fonts=Fonts(folders=()))


# --- any string ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("string", ["", " ", "\n\n", "\t", "\u200b", "\u202e", "\x00"])
def test_nothing_to_see_is_a_see_through_picture(string):
    assert ink(alpha(string)) is None
    assert measure(string, None, FONTS) == Ink(0, 0, 0)
    assert ink(alpha(string, fit="fill", wrap=True)) is None


STRINGS = {
    "emoji": "👩‍👩‍👧‍👦 🏳️‍🌈 😀☃️ 1️⃣",
    "arabic": "السلام عليكم 123",
    "devanagari": "नमस्ते दुनिया",
    "thai": "สวัสดีชาวโลก",
    "hangul": "안녕하세요 세계",
    "zalgo": "Z" + "\u0335\u0321\u034e\u0360" * 300 + "algo",
    "isolates": "\u2066\u2067\u2068" * 300 + "x" + "\u2069" * 900,
    "private": "\ue000\uf8ff\U000f0000\U0010fffd",
    "unassigned": "\u0378\U0003ffff\ufffe",
    "one word": "x" * 10_000,
    "blanks": " " * 10_000,
    "lines": "\n" * 10_000,
    "words": "word אב " * 1250,
}


@pytest.mark.parametrize("name", STRINGS)
@pytest.mark.parametrize("wrap", [False, True])
def test_any_string_is_drawn(name, wrap):
    assert alpha(STRINGS[name], 320, 200, font="hebrew", wrap=wrap).shape == (200, 320)
    assert all(map(math.isfinite, astuple(measure(STRINGS[name][:500], None, FONTS))))


@settings(deadline=None, max_examples=100)
@given(
    st.text(max_size=40) | st.text(st.characters(categories=("Cf", "Mn", "Lo", "Zs", "Nd", "Po", "Sk")), max_size=20),
    st.sampled_from((1, 7.5, 300, 100_000)),
    st.booleans(),
    st.sampled_from(("none", "fill")),
    st.sampled_from(("left", "center", "right")),
    st.sampled_from(("top", "middle", "bottom", "line")),
)
def test_any_text_of_any_size_is_drawn(string, size, wrap, fit, align, vertical):
    fields = {"size": size, "wrap": wrap, "fit": fit, "align": align, "vertical": vertical}
    assert alpha(string, 33, 17, **fields).shape == (17, 33)


def test_scripts_are_told_by_the_names_of_letters():
    found = module._scripts_of("a1 б! א")
    assert found == ["LATIN"] * 3 + ["CYRILLIC"] * 3 + ["HEBREW"]
    assert unicodedata.name("б").startswith("CYRILLIC")
