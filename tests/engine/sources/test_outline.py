"""How much of a pixel an outline covers is its exact area, whatever it is drawn of and wherever it lies."""

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.color import yuv_of
from engine.sources import outline as module
from engine.sources.outline import Pen, coverage, painted, placed


def polygon(*points):
    pen = Pen()
    pen.move(points[0])
    for point in points[1:]:
        pen.line(point)
    return pen.outline()


def rectangle(left, top, right, bottom, *, backwards=False):
    points = [(left, top), (right, top), (right, bottom), (left, bottom)]
    return polygon(*(reversed(points) if backwards else points))


def ellipse(x, y, rx, ry):
    k = 4 / 3 * math.tan(math.pi / 8)
    pen = Pen()
    pen.move((x + rx, y))
    pen.cubic((x + rx, y + k * ry), (x + k * rx, y + ry), (x, y + ry))
    pen.cubic((x - k * rx, y + ry), (x - rx, y + k * ry), (x - rx, y))
    pen.cubic((x - rx, y - k * ry), (x - k * rx, y - ry), (x, y - ry))
    pen.cubic((x + k * rx, y - ry), (x + rx, y - k * ry), (x + rx, y))
    return pen.outline()


def all_of(*outlines):
    return placed(outlines, (1, 1), [(0, 0)] * len(outlines))


def overlap(a, b, low):
    """How much of [low, low + 1) lies in [a, b)."""
    return max(0.0, min(b, low + 1) - max(a, low))


@settings(deadline=None)
@given(st.tuples(*[st.floats(-20, 40)] * 4), st.booleans())
def test_rectangle_covers_what_it_covers(edges, backwards):
    left, right = sorted(edges[:2])
    top, bottom = sorted(edges[2:])
    made = coverage(rectangle(left, top, right, bottom, backwards=backwards), 20, 12)
    exact = [[255 * overlap(left, right, x) * overlap(top, bottom, y) for x in range(20)] for y in range(12)]
    assert np.abs(made - np.array(exact)).max() <= 0.51


@settings(deadline=None, max_examples=50)
@given(st.tuples(*[st.floats(-30, 60)] * 6))
@example((0.0, 0.0, 0.0, 0.0, 1.0, 5e-324))
def test_triangle_covers_as_much_as_many_small_samples_say(numbers):
    points = [(numbers[n], numbers[n + 1]) for n in (0, 2, 4)]
    made = coverage(polygon(*points), 24, 16)
    fine = 16
    y, x = (np.mgrid[: 16 * fine, : 24 * fine] + 0.5) / fine
    sides = [
        (b[0] - a[0]) * (y - a[1]) - (b[1] - a[1]) * (x - a[0])
        for a, b in zip(points, points[1:] + points[:1], strict=True)
    ]
    inside = np.all([side > 0 for side in sides], axis=0) | np.all([side < 0 for side in sides], axis=0)
    sampled = inside.reshape(16, fine, 24, fine).mean(axis=(1, 3)) * 255
    assert np.abs(made - sampled).max() <= 255 * 2.5 / fine


@pytest.mark.parametrize(("rx", "ry"), [(1, 1), (8, 8), (60, 25), (200, 200), (3000, 20)])
def test_curves_cover_the_area_of_their_shape(rx, ry):
    made = coverage(ellipse(rx + 0.3, ry + 0.7, rx, ry), 2 * rx + 1, 2 * ry + 2)
    assert made.sum() / 255 == pytest.approx(math.pi * rx * ry, rel=2e-2 if rx == 1 else 2e-3)


def test_hole_goes_the_other_way_round():
    whole, hole = rectangle(2, 2, 18, 10), rectangle(5, 4, 15, 8, backwards=True)
    made = coverage(all_of(whole, hole), 20, 12)
    assert made[6, 10] == 0
    assert made[3, 10] == made[6, 3] == 255
    same_way = coverage(all_of(whole, rectangle(5, 4, 15, 8)), 20, 12)
    assert same_way[6, 10] == 255


def test_shapes_that_overlap_cover_no_more_than_all():
    made = coverage(all_of(rectangle(2, 2, 12, 10), rectangle(6.5, 4, 18, 11)), 20, 12)
    assert (made[5, 3:17] == 255).all()


@pytest.mark.parametrize("turned", [0, 0.2, 1, math.pi / 2])
@pytest.mark.parametrize("split", [0, 0.25, 0.5])
@pytest.mark.parametrize("row", [0, 15, 29])
def test_pieces_that_meet_within_a_pixel_leave_no_slit_whichever_way_round_each_goes(row, split, turned):
    def corner(across, down):
        return (
            20 + split + across * math.cos(turned) - down * math.sin(turned),
            row + split + across * math.sin(turned) + down * math.cos(turned),
        )

    one = polygon(corner(-90, -90), corner(0, -90), corner(0, 90), corner(-90, 90))
    other = polygon(corner(90, -90), corner(0, -90), corner(0, 90), corner(90, 90))
    assert (coverage(all_of(one, other), 40, 30) == 255).all()


@pytest.mark.parametrize("shape", [ellipse(20.3, 15.2, 17.7, 11.1), rectangle(3, 10.55, 30, 11.45)])
def test_what_is_drawn_twice_covers_what_it_covers_once(shape):
    once, twice = (coverage(all_of(*[shape] * count), 40, 30).astype(int) for count in (1, 2))
    assert np.abs(twice - once).max() <= 255 / module.LINES


def test_what_is_drawn_both_ways_round_elsewhere_changes_no_other_pixel():
    shape = ellipse(20.3, 15.2, 17.7, 11.1)
    beside = rectangle(45, 0, 50.5, 30), rectangle(50.5, 0, 60, 30, backwards=True)
    made = coverage(all_of(shape, *beside), 70, 30)
    assert np.array_equal(made[:, :40], coverage(shape, 40, 30))
    assert (made[:, 45:60] == 255).all()


def test_what_lies_beyond_the_picture_counts_where_it_reaches_in():
    made = coverage(polygon((-5000, -3000), (5000, -3000), (5000, 6), (-5000, 6)), 20, 12)
    assert (made[:6] == 255).all()
    assert (made[6:] == 0).all()
    slanted = coverage(polygon((-100, 0), (10, 0), (10, 12), (-100, 12)), 20, 12)
    assert (slanted[:, :10] == 255).all()
    assert not slanted[:, 10:].any()


@pytest.mark.parametrize("seed", range(4))
def test_what_crosses_itself_many_times_covers_as_much_as_many_small_samples_say(seed):
    points = np.random.default_rng(seed).uniform(-10, 50, (40, 2))
    made = coverage(polygon(*points.tolist()), 40, 30)
    fine = 16
    y, x = (np.mgrid[: 30 * fine, : 40 * fine] + 0.5) / fine
    rounds = np.zeros(y.shape)
    for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0), strict=True):
        crossed = ((y0 <= y) != (y1 <= y)) & (x0 + (y - y0) / (y1 - y0) * (x1 - x0) < x)
        rounds += crossed * np.sign(y1 - y0)
    off = np.abs(made - (rounds != 0).reshape(30, fine, 40, fine).mean(axis=(1, 3)) * 255)
    assert off.mean() < 2
    assert off.max() < 64  # what is thinner than a quarter of a row


@pytest.mark.parametrize("many", [False, True])
def test_bands_change_nothing(monkeypatch, many):
    shape = all_of(ellipse(40, 30, 33.3, 28.8), rectangle(3, 20.3, 50.2, 44, backwards=True))
    if many:
        shape = polygon(*np.random.default_rng(1).uniform(-20, 90, (60, 2)).tolist())
    whole = coverage(shape, 80, 60)
    monkeypatch.setattr(module, "_BAND", 700)
    assert np.array_equal(coverage(shape, 80, 60), whole)


def test_too_many_crossings_are_refused_wherever_they_are():
    level = polygon(*((x, 5 + n / 1e5) for n in range(2_500) for x in (-3, 4_000)))
    with pytest.raises(module.Intricate, match=r"crosses 1[0-9]{7} rows and columns of pixels, more than 8000000"):
        coverage(level, 4_000, 10)
    coverage(placed([level], (1, 1), [(0, -50)]), 4_000, 10)  # above the picture
    coverage(placed([level], (1, 1), [(-5_000, 0)]), 4_000, 10)  # beside it


@pytest.mark.parametrize(
    "points",
    [
        [(math.nan, 0), (5, 5), (0, 5)],
        [(1e308, 1e308), (-1e308, 0), (0, -1e308)],
        [(math.inf, 3), (3, math.inf), (-math.inf, -3)],
        [(0, 0)],
        [(3, 3), (3, 3), (3, 3)],
    ],
)
def test_numbers_without_sense_cover_something_or_nothing(points):
    assert coverage(polygon(*points), 8, 8).shape == (8, 8)


def test_nothing_covers_nothing():
    assert not coverage(Pen().outline(), 8, 6).any()
    assert Pen().outline().box() is None
    assert placed([], (1, 1), []).box() is None


def test_box_is_what_is_enclosed_and_not_where_control_points_are():
    assert ellipse(40, 30, 20, 10).box() == pytest.approx((20, 20, 60, 40), abs=1e-9)


@given(st.tuples(*[st.floats(-100, 100)] * 8))
@example((0, 0, 9, 3, -9, 3, 0, 0))  # a loop
@example((0, 0, 1, 1, 2, 2, 3, 3))  # straight
@example((0, 0, 2, 4, 4, 4, 6, 0))  # quadratic
def test_box_of_a_curve_is_where_it_is(numbers):
    x0, y0, x1, y1, x2, y2, x3, y3 = numbers
    pen = Pen()
    pen.move((x0, y0))
    pen.cubic((x1, y1), (x2, y2), (x3, y3))
    t = np.linspace(0, 1, 2001)[:, np.newaxis]
    points = np.array(numbers).reshape(4, 2)
    shares = np.concatenate(((1 - t) ** 3, 3 * (1 - t) ** 2 * t, 3 * (1 - t) * t**2, t**3), axis=1)
    where = shares @ points
    exact = (*where.min(axis=0), *where.max(axis=0))
    assert pen.outline().box() == pytest.approx(exact, abs=1e-3)


def test_box_of_curves_that_need_millions_of_edges_is_known_without_them():
    pen = Pen()
    for n in range(30_000):
        pen.quadratic((900_000, n), (0, n + 1))
    with pytest.raises(module.Intricate):
        coverage(pen.outline(), 8, 8)
    assert pen.outline().box() == pytest.approx((0, 0, 450_000, 30_000))


def test_a_pen_closes_what_is_open():
    pen = Pen()
    pen.move((1, 1))
    pen.line((9, 1))
    pen.line((9, 9))
    pen.move((20, 20))
    assert len(pen.outline().lines) == 3


def test_quadratic_curve_is_the_cubic_one_that_it_is():
    pen, other = Pen(), Pen()
    for each in (pen, other):
        each.move((0, 0))
    pen.quadratic((10, 20), (20, 0))
    other.cubic((20 / 3, 40 / 3), (40 / 3, 40 / 3), (20, 0))
    assert np.abs(coverage(pen.outline(), 20, 12).astype(int) - coverage(other.outline(), 20, 12)).max() <= 1


def test_picture_has_one_colour_and_the_coverage_as_alpha():
    frame = painted(rectangle(0, 0, 3.5, 5), "#ff000080", 9, 5)
    assert [plane.shape for plane in frame.planes] == [(5, 9), (3, 5), (3, 5), (5, 9)]
    for plane, value in zip(frame.planes, yuv_of(1, 0, 0), strict=False):
        assert (plane == value).all()
    assert frame.a[0].tolist() == [128, 128, 128, 64, 0, 0, 0, 0, 0]
    assert not frame.a.flags.writeable


def test_picture_that_is_covered_whole_hides_what_is_below():
    assert painted(rectangle(-1, -1, 20, 20), "#fff", 8, 6).a is None
    assert painted(rectangle(-1, -1, 20, 20), "#fffe", 8, 6).a is not None
