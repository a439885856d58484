"""Every effect kernel computes what its oracle says, to the bit, and refuses what does not fit."""

from fractions import Fraction

import av
import numpy as np
import pytest
from av.filter import Graph
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.color import yuv_of
from engine_ext import effect
from tests import reference

SIZES = st.tuples(st.integers(1, 40), st.integers(1, 24))
EVEN = st.tuples(st.integers(1, 20), st.integers(1, 12)).map(lambda size: (size[0] * 2, size[1] * 2))
SEEDS = st.integers(0, 2**32 - 1)
FACTORS = st.sampled_from((0.0, 1.0, -1.0, 0.11, 5.0)) | st.floats(-1000, 1000, width=32)
UNITS = st.sampled_from((0.0, 1.0, 0.5, 0.0001, 0.1)) | st.floats(0, 1, width=32)


@pytest.fixture(autouse=True, scope="module", params=["wide", "plain"])
def rows(request):
    """Every test with the rows made for this processor, and with those for any."""
    effect.use_simd(request.param == "wide")
    yield
    effect.use_simd(True)


def plane(seed, width, height):
    """Noise; in some planes only the extremes."""
    random = np.random.default_rng(seed)
    values = random.integers(0, 256, (height, width), dtype=np.uint8)
    return values if seed % 3 else np.where(values > 127, 255, 0).astype(np.uint8)


def picture(seed, width, height, *, alpha=True):
    half = (width + 1) // 2, (height + 1) // 2
    planes = [plane(seed + n, *(half if n in (1, 2) else (width, height))) for n in range(4)]
    return (*planes[:3], planes[3] if alpha else None)


def same(made, expected):
    np.testing.assert_array_equal(made, expected)


@settings(deadline=None)
@given(
    SIZES, SEEDS, st.lists(FACTORS, min_size=9, max_size=9), st.sampled_from((16, 128)), st.floats(-300, 300, width=32)
)
def test_convolve_is_what_the_oracle_says(size, seed, matrix, zero, bias):
    source = plane(seed, *size)
    out = np.empty_like(source)
    effect.convolve(out, source, matrix, zero, bias)
    same(out, reference.effect("convolve", source, matrix, zero, bias))


@pytest.mark.parametrize("size", [(41, 23), (40, 24), (1, 9), (9, 1), (1, 1), (2, 2), (33, 2)])
@pytest.mark.parametrize("matrix", [range(-4, 5), (1, 0, 0, 0, 0, 0, 0, 0, 0), (0, -1, 0, -1, 5, -1, 0, -1, 0)])
def test_convolve_is_what_ffmpeg_makes_of_it_up_to_every_edge(size, matrix):
    source = plane(7, *size)
    graph = Graph()
    frame = av.VideoFrame.from_ndarray(source, "gray")
    numbers = " ".join(map(str, matrix))
    graph.link_nodes(
        graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 25)),
        graph.add("convolution", f"0m={numbers}:0rdiv=1"),
        graph.add("buffersink"),
    ).configure()
    graph.push(frame)
    out = np.empty_like(source)
    effect.convolve(out, source, matrix, 0, 0)
    same(out, graph.pull().to_ndarray())


@settings(deadline=None)
@given(SIZES, SEEDS, st.booleans(), st.lists(FACTORS, min_size=16, max_size=16), st.booleans())
def test_recolour_is_what_the_oracle_says(size, seed, alpha, numbers, wanted):
    matrix = [numbers[n : n + 4] for n in range(0, 16, 4)]
    planes = picture(seed, *size, alpha=alpha)
    out = tuple(np.empty_like(each) for each in picture(0, *size))
    effect.recolour(out if wanted else (*out[:3], None), planes, matrix)
    for made, expected in zip(out[: 4 if wanted else 3], reference.effect("recolour", planes, matrix), strict=False):
        same(made, expected)


@settings(deadline=None)
@given(SIZES, SEEDS, st.integers(0, 255), st.integers(0, 255), UNITS, UNITS)
def test_key_is_what_the_oracle_says(size, seed, cb, cr, similarity, blend):
    _, u, v, a = picture(seed, *size)
    expected = reference.effect("key", a, u, v, cb, cr, similarity, blend)
    effect.key(a, u, v, cb, cr, similarity, blend)
    same(a, expected)


@settings(deadline=None)
@given(EVEN, SEEDS)
def test_luma_is_what_the_oracle_says(size, seed):
    y, u, v, _ = picture(seed, *size)
    out, half = np.empty_like(y), np.empty_like(u)
    effect.luma(out, half, y, u, v)
    same(out, reference.effect("luma", y, u, v)[0])
    same(half, reference.effect("luma", y, u, v)[1])


@settings(deadline=None)
@given(SIZES, SEEDS)
def test_veil_is_what_the_oracle_says(size, seed):
    source, mask = plane(seed, *size), plane(seed + 1, *size)
    expected = reference.effect("veil", source, mask)
    effect.veil(source, mask)
    same(source, expected)


def test_every_weight_of_every_value_is_rounded_to_the_nearest():
    values, weights = (np.ascontiguousarray(each, np.uint8) for each in np.mgrid[:256, :256])
    made = values.copy()
    effect.veil(made, weights)
    same(made, np.floor(values.astype(float) * weights / 255 + 0.5))


def test_white_masks_all_and_black_nothing():
    y = np.array([[16, 235], [16, 235]], np.uint8)
    grey = np.array([[128]], np.uint8)
    out, half = np.empty_like(y), np.empty_like(grey)
    effect.luma(out, half, y, grey, grey.copy())
    same(out, [[0, 255], [0, 255]])
    same(half, [[0]])


@pytest.mark.parametrize(
    ("name", "rgb", "luma"), [("red", (1, 0, 0), 76), ("green", (0, 1, 0), 150), ("blue", (0, 0, 1), 29)]
)
def test_luma_of_a_colour_is_that_of_bt601(name, rgb, luma):
    y, u, v = (np.full((2, 2) if n == 0 else (1, 1), value, np.uint8) for n, value in enumerate(yuv_of(*rgb)))
    out, half = np.empty_like(y), np.empty_like(u)
    effect.luma(out, half, y, u, v)
    assert abs(int(out[0, 0]) - luma) <= 1, name


UNCHANGED = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
Y, U, A, OTHER = (np.zeros(shape, np.uint8) for shape in ((4, 6), (2, 3), (4, 6), (4, 5)))
FLAT = np.zeros(96, np.uint8)


def rgb_picture(colours):
    """(y, u, v, None) of 2×2 squares of these colours."""
    u, v = (np.array([[yuv_of(*each)[n] for each in colours]], np.uint8) for n in (1, 2))
    y = np.array([[yuv_of(*each)[0] for each in colours]], np.uint8).repeat(2, axis=0).repeat(2, axis=1)
    return y, u, v, None


def test_colours_stay_what_they_are_when_nothing_is_mixed():
    planes = rgb_picture([(red, green, blue) for red in (0, 0.5, 1) for green in (0, 0.3, 1) for blue in (0, 0.7, 1)])
    out = tuple(np.empty_like(each) for each in planes[:3])
    effect.recolour((*out, None), planes, UNCHANGED)
    for made, was in zip(out, planes, strict=False):
        assert np.abs(made.astype(int) - was).max() <= 1


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: effect.convolve(OTHER, Y, [1] * 9, 16, 0), "out is 5x4, must be 6x4"),
        (lambda: effect.convolve(Y, Y, [1] * 9, 16, 0), "shares memory"),
        (lambda: effect.convolve(Y.copy(), Y, [1] * 8, 16, 0), "8 numbers"),
        (lambda: effect.convolve(Y.copy(), Y, [float("nan")] * 9, 16, 0), "outside"),
        (lambda: effect.convolve(Y[:0].copy(), Y[:0], [1] * 9, 16, 0), "sides must be"),
        (lambda: effect.recolour((Y, U, U.copy(), None), (Y, U, U, None), UNCHANGED), "shares memory"),
        (lambda: effect.recolour((Y, U, None, None), (A, U, U, None), UNCHANGED), "a plane is missing"),
        (lambda: effect.recolour((Y, U, U, None), (A, U.copy(), U.copy(), OTHER), UNCHANGED), "planes is 5x4"),
        (lambda: effect.recolour((Y, U, U, None), (A, U.copy(), U.copy(), None), UNCHANGED), "shares memory"),
        (lambda: effect.recolour((Y, U, U.copy(), None), (A, U.copy(), U.copy(), None), UNCHANGED[:3]), "12 numbers"),
        (lambda: effect.key(A, U, Y, 0, 0, 0.5, 0), "v is 6x4, must be 3x2"),
        (lambda: effect.key(A, U, U, 256, 0, 0.5, 0), "out of range"),
        (lambda: effect.key(A, U, U, 0, 0, float("nan"), 0), "out of range"),
        (lambda: effect.key(FLAT[:24].reshape(4, 6), FLAT[20:26].reshape(2, 3), U, 0, 0, 0.5, 0), "shares memory"),
        (lambda: effect.luma(OTHER, U, OTHER.copy(), U, U), "must be even"),
        (lambda: effect.luma(A, U, Y, U, U), "shares memory"),
        (lambda: effect.veil(A, A), "shares memory"),
        (lambda: effect.veil(A, OTHER), "mask is 5x4"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
