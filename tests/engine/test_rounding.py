"""Whole numbers: the nearest one, and a half goes up, below zero too."""

import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.rounding import round_half_up, rounded


@pytest.mark.parametrize(
    ("value", "nearest"), [(0.5, 1), (1.5, 2), (2.5, 3), (-0.5, 0), (-1.5, -1), (0.49, 0), (-0.51, -1)]
)
def test_halves_go_up(value, nearest):
    assert round_half_up(value) == nearest


@settings(deadline=None)
@given(st.integers(-(10**18), 10**18), st.integers(1, 10**9))
def test_a_quotient_is_rounded_to_the_nearest_half_up(number, divisor):
    assert rounded(number, divisor) == math.floor(Fraction(number, divisor) + Fraction(1, 2))
