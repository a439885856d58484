"""A written colour is read as CSS reads it; see test_plan for Y'CbCr."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.color import rgba


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
