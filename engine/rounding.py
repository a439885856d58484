"""Whole numbers: the nearest one, of a float and of a quotient; a half goes up.

It decides what becomes of a half, below zero too; it refuses to know what is counted.
"""

from __future__ import annotations

import math


def round_half_up(value: float) -> int:
    """The nearest integer; halves go up, so that neighbours at x.5 stay neighbours."""
    return math.floor(value + 0.5)


def rounded(number: int, divisor: int) -> int:
    """A quotient, rounded to the nearest; half up."""
    return (2 * number + divisor) // (2 * divisor)
