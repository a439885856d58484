"""An effect's name and parameters mean what Movie Masher's definitions and FFmpeg's filters say; see test_tree for what
is refused.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.effects import Convolve, Cut, Fade, Key, Recolour, Tint, step_of
from engine.errors import InvalidTree

SAME = ((1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1))


@pytest.mark.parametrize(
    ("name", "parameters", "step"),
    [
        ("blur", {}, Convolve((0.11,) * 9)),
        ("sharpen", {}, Convolve((0, -1, 0, -1, 5, -1, 0, -1, 0))),
        ("emboss", {}, Convolve((-2, -1, 0, -1, 1, 1, 0, 1, 2))),
        ("convolution", {}, Convolve((0, 0, 0, 0, 1, 0, 0, 0, 0))),
        ("convolution", {"matrix": "1,1,1,1,1,1,1,1,1", "multiplier": "0.5"}, Convolve((0.5,) * 9)),
        (
            "convolution",
            {"matrix": " 0 -1 .5 +2 1e1 0 0 0 0 ", "bias": 3},
            Convolve((0, -1, 0.5, 2, 10, 0, 0, 0, 0), 3),
        ),
        ("colorchannelmixer", {}, Recolour(*SAME)),
        ("colorchannelmixer", {"rg": "0.25", "aa": 0.5}, Recolour((1, 0.25, 0, 0), *SAME[1:3], (0, 0, 0, 0.5))),
        ("colorize", {}, Tint((235, 128, 128))),
        ("colorize", {"color": "#ff000080"}, Tint((63, 102, 240))),
        ("opacity", {"opacity": 0.25}, Fade(0.25)),
        ("crop", {}, Cut(0, 0, None, None)),
        ("crop", {"x": "5", "y": 2.5, "width": "", "height": 9}, Cut(5, 2.5, None, 9)),
        ("chromakey", {}, Key(44, 21, 0.9, 0)),  # of #00FF00, as FFmpeg counts it
        ("chromakey", {"color": "0xFF0000", "similarity": 0.5, "blend": "0.1"}, Key(85, 255, 0.5, 0.1)),
        ("chromakey", {"color": "#808080"}, Key(128, 128, 0.9, 0)),
    ],
)
def test_effect_is_the_step_that_its_parameters_say(name, parameters, step):
    assert step_of(name, parameters) == step


def test_grey_and_sepia_are_weighted_sums():
    grey, sepia = step_of("grayscale", {}), step_of("sepia", {})
    assert grey.red == grey.green == grey.blue == (0.3, 0.4, 0.3, 0)
    assert (sepia.red, sepia.alpha) == ((0.393, 0.769, 0.189, 0), (0, 0, 0, 1))


NAMES = st.sampled_from(
    ("blur", "convolution", "colorchannelmixer", "colorize", "chromakey", "opacity", "crop", "", "x" * 500)
)
KEYS = st.sampled_from(("matrix", "multiplier", "bias", "rr", "color", "similarity", "blend", "opacity", "x", "width"))
VALUES = st.integers() | st.floats(allow_nan=False) | st.text(max_size=30) | st.sampled_from(("#fff", "1 " * 9, "0.5"))


@given(NAMES, st.dictionaries(KEYS | st.text(max_size=3), VALUES, max_size=4))
def test_any_effect_is_a_step_or_one_sentence(name, parameters):
    try:
        step_of(name, parameters)
    except InvalidTree as err:
        assert str(err).startswith(f"{err.where}: ")
        assert len(str(err)) < 400
