"""A field of a document has the nearest value that is allowed, or its default."""

import pytest

from api.moviemasher.fields import Fields
from engine.clip import WHITE, Tween


@pytest.mark.parametrize(
    ("color", "rgb"),
    [
        ("#FF8000", (255, 128, 0)),
        ("#f80", (255, 136, 0)),
        ("#FF800080", (255, 128, 0)),
        ("red", (255, 255, 255)),
        ("#12345", (255, 255, 255)),
        (5, (255, 255, 255)),
    ],
)
def test_colours_and_the_default_for_what_is_none(color, rgb):
    start = Fields({"color": color}, "$").colours("color", WHITE).start
    assert [round(255 * part) for part in start[:3]] == list(rgb)


@pytest.mark.parametrize(
    ("value", "opacity"),
    [(0.5, 0.5), ("0.5", 0.5), (7, 1), (-1, 0), (True, 1), (None, 1), ([], 1), ("x", 1), (10**400, 1)],
)
def test_a_number_is_within_its_range_or_the_default(value, opacity):
    assert Fields({"opacity": value}, "$").tween("opacity", 1, 0, 1) == Tween(opacity, opacity)


@pytest.mark.parametrize(
    ("value", "text"), [("Ada", "Ada"), (2026, "2026"), (2.0, "2"), (1e-7, "0.0000001"), (True, "none"), ([], "none")]
)
def test_a_number_for_a_text_is_its_digits(value, text):
    assert Fields({"string": value}, "$").text("string", "none", 20) == text
