"""An SVG path is drawn as SVG 1.1 says; a broken one up to where it breaks; any text is a path."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.sources.outline import coverage
from engine.sources.shape import draw_shape, path_outline
from engine.tree import ShapeNode


def drawn(path, size=100):
    return coverage(path_outline(path), size, size)


def area(path, size=100):
    return drawn(path, size).sum() / 255


SQUARE = "M10 20H60V70H10Z"
ABSURD = ["A1e-300 1 0 0 0 1e9 1e9Z", "A1e300 1e300 0 1 1 1e-20 0.5", "A.5 .5 -1.5e308 1 1 1.5e308 1e308"]


@pytest.mark.parametrize(
    "path",
    [
        "m10,20 h50 v50 h-50 z",
        "M10 20L60 20L60 70L10 70",  # a fill closes it
        "M 10 20 60 20 60 70 10 70 Z",  # further pairs of a move are lines
        "m10 20 50 0 0 50 -50 0z",
        "M1e1 2.e1H6E+1V.7e2h-50.0z",
        "M+10+20h50v50h-50z",
        "M10 20C10 20 60 20 60 20S60 70 60 70 10 70 10 70Z",  # curves without a bend
        "M10 20Q35 20 60 20T60 20L60 70 10 70z",
        "M10 20zm0 0h50v50h-50z",  # closing goes back to the start
        "M0 0M10 20H60V70H10Z",
        "M10 20H60V70H10ZZ",
        "\n M \t10,20\r\nH 60,V 70 , H10Z ",
    ],
)
def test_one_square_is_written_in_many_ways(path):
    assert np.array_equal(drawn(path), drawn(SQUARE))
    assert area(SQUARE) == 2500


@pytest.mark.parametrize(
    ("path", "covered"),
    [
        ("M50 50m-40,0a40,40 0 1,0 80,0a40,40 0 1,0 -80,0z", math.pi * 1600),
        ("M10 50A40 40 0 0 1 90 50z", math.pi * 800),
        ("M10 50A40 40 0 0 0 90 50z", math.pi * 800),
        ("M10 50a40 20 0 01 80 0z", math.pi * 400),  # flags need no space
        ("M10 50a40 20 0 0180 0z", math.pi * 400),
        ("M50 10A40 20 90 0 1 50 90z", math.pi * 400),
        ("M10 50A4 4 0 0 1 90 50z", math.pi * 800),  # too small: enlarged
        ("M20 20A30 30 0 0 1 50 50L20 50z", math.pi * 900 / 4),
        ("M40 40A30 30 0 1 1 70 70L40 70z", math.pi * 675 + 900),
        ("M10 10A0 30 0 0 1 60 10V60H10z", 2500),  # no radius: a line
        ("M10 10H60V60H10z A", 2500),
    ],
)
def test_arcs_enclose_what_they_should(path, covered):
    assert area(path) == pytest.approx(covered, rel=3e-3)


def test_arc_goes_the_way_its_flags_say():
    over, under = drawn("M10 50A40 40 0 0 1 90 50z"), drawn("M10 50A40 40 0 0 0 90 50z")
    assert over[30, 50] == 255
    assert under[30, 50] == 0
    assert under[70, 50] == 255


@pytest.mark.parametrize(
    ("left", "top", "width", "height"), [(30, 25, 35, 60), (-50, -100, 200, 400), (20.5, 5, 1, 90)]
)
def test_a_part_of_the_plane_is_drawn_as_in_a_larger_one(left, top, width, height):
    star = {"path": "M50 10L90 90 10 40H90L10 90zM10 50a40 20 0 01 80 0z", "color": "#fff"}
    whole = draw_shape(ShapeNode(**star, path_x=-50, path_y=-100, path_width=200, path_height=400), 800, 800)
    box = {"path_x": left, "path_y": top, "path_width": width, "path_height": height}
    part = draw_shape(ShapeNode(**star, **box), width * 4, height * 2)
    rows, columns = slice((top + 100) * 2, (top + 100 + height) * 2), slice(int((left + 50) * 4), None)
    expected = whole.a[rows, columns][:, : width * 4]
    assert 0 < part.a.mean() < 255
    assert np.abs(part.a.astype(int) - expected).max() <= 1  # sums of other numbers, rounded


def test_smooth_curves_mirror_the_control_point_before():
    smooth = drawn("M10 50C10 20 40 20 40 50S70 80 70 50z")
    written = drawn("M10 50C10 20 40 20 40 50C40 80 70 80 70 50z")
    assert np.array_equal(smooth, written)
    smooth = drawn("M10 50Q25 10 40 50T70 50L70 90 10 90z")
    written = drawn("M10 50Q25 10 40 50Q55 90 70 50L70 90 10 90z")
    assert np.array_equal(smooth, written)
    alone = drawn("M10 50L10 20S40 20 40 50z")  # nothing to mirror: the pen itself
    assert np.array_equal(alone, drawn("M10 50L10 20C10 20 40 20 40 50z"))


def test_relative_curves_count_from_the_pen():
    assert np.array_equal(drawn("M10 50c0 -30 30 -30 30 0s30 30 30 0z"), drawn("M10 50C10 20 40 20 40 50S70 80 70 50z"))
    assert np.array_equal(drawn("M10 50q15 -40 30 0t30 0l0 40 -60 0z"), drawn("M10 50Q25 10 40 50T70 50L70 90 10 90z"))


def test_hole_is_a_contour_the_other_way_round():
    made = drawn("M10 10h80v80h-80z M30 30v40h40v-40z")
    assert (made[50, 50], made[20, 20]) == (0, 255)


@pytest.mark.parametrize(
    ("path", "as_if"),
    [
        (SQUARE + "Q1", SQUARE),
        (SQUARE + "L 5 x", SQUARE),
        (SQUARE + "5 5", SQUARE),
        (SQUARE + "M", SQUARE),
        (SQUARE + "a 1 1 0 2 0 5 5", SQUARE),
        (SQUARE + "L1e999 5 M80 80h9v9z", SQUARE),
        *((SQUARE + f"M0 0{arc} M80 80h9v9z", SQUARE) for arc in ABSURD),
        ("M10 20H60V70H10 # Z M80 80h9v9z", SQUARE),
        ("M10 20H60V70H10 é", SQUARE),
        ("L10 20H60V70H10Z", ""),
        ("5 5 M10 20H60V70H10Z", ""),
        ("z", ""),
        ("", ""),
        (" ", ""),
        ("M", ""),
        ("M٣ 3h9v9z", ""),
    ],
)
def test_path_is_drawn_up_to_its_error(path, as_if):
    assert np.array_equal(drawn(path), drawn(as_if))


def test_point_that_is_too_far_away_for_a_number_is_no_warning():
    draw_shape(ShapeNode(path="M0 0 L1e308 5 L7 1e308", path_width=1, path_height=1), 32, 18)


def test_box_is_stretched_to_the_picture():
    frame = draw_shape(ShapeNode(path="M0 0h12v24h-12z", path_width=24, path_height=24), 31, 7)
    assert frame.a[3].tolist() == [255] * 15 + [128] + [0] * 15
    half = draw_shape(ShapeNode(path="M0 0h1v1h-1z", path_width=0.5, path_height=0.5), 8, 8)
    assert half.a is None  # larger than its box: cut off


NUMBERS = [*"0123456789.-+eE, \n", "1e9", "1e-9", "1e300", "1e-300", "99999"]
TOKENS = st.sampled_from([*"MmLlHhVvCcSsQqTtAaZz", *NUMBERS, "#", "\u0000", "é"])


@settings(deadline=None)
@given(st.lists(TOKENS, max_size=60).map("".join) | st.text(max_size=30))
def test_any_text_is_a_path(text):
    assert drawn("M5 5" + text, 16).shape == (16, 16)
    assert drawn(text, 16).shape == (16, 16)


def test_a_path_as_long_as_allowed_is_drawn():
    path = "M0 0" + "h9v9h-9z" * 12_000
    assert drawn(path[:100_000]).max() == 255
