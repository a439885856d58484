"""A written colour is read as CSS reads it, and is in Y'CbCr what BT.709 says."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.color import hex_of, rgba, yuv_of


@pytest.mark.parametrize(
    ("text", "color"),
    [
        ("#000000", (0, 0, 0, 1)),
        ("#FFffFF", (1, 1, 1, 1)),
        ("#f00", (1, 0, 0, 1)),
        ("#0f08", (0, 1, 0, 0x88 / 255)),
        ("#33669980", (0.2, 0.4, 0.6, 0x80 / 255)),
    ],
)
def test_colour_is_red_green_blue_and_alpha(text, color):
    assert rgba(text) == pytest.approx(color)
    assert rgba(hex_of(color)) == pytest.approx((*color[:3], 1))


@pytest.mark.parametrize(
    "text", ["", "#", "#12", "#12345", "#1234567", "#123456789", "red", "123456", "#12345g", "#١٢٣"]
)
def test_what_is_no_colour_is_refused(text):
    with pytest.raises(ValueError, match="is no colour"):
        rgba(text)


@given(st.text())
def test_any_text_is_a_colour_or_refused(text):
    try:
        assert all(0 <= part <= 1 for part in rgba(text))
    except ValueError as err:
        assert len(str(err)) < 100


@pytest.mark.parametrize(
    ("rgb", "yuv"),
    [  # ITU-R BT.709-6, 75 % and 100 % bars
        ((0, 0, 0), (16, 128, 128)),
        ((1, 1, 1), (235, 128, 128)),
        ((1, 0, 0), (63, 102, 240)),
        ((0, 1, 0), (173, 42, 26)),
        ((0, 0, 1), (32, 240, 118)),
        ((0.75, 0.75, 0), (168, 44, 136)),
        ((0.5, 0.5, 0.5), (126, 128, 128)),
    ],
)
def test_colour_is_bt709_limited_range(rgb, yuv):
    assert yuv_of(*rgb) == yuv


@settings(deadline=None)
@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_any_colour_is_within_limited_range(red, green, blue):
    luma, cb, cr = yuv_of(red, green, blue)
    assert 16 <= luma <= 235
    assert 16 <= min(cb, cr) <= max(cb, cr) <= 240
