"""Exact time: seconds are Fractions, ticks and samples are integers, and one is computed from the other by counting.

Nothing here adds intervals up, so 29.97 fps beside 48 kHz stays exact for days: slots come from a counter.
"""

from __future__ import annotations

from datetime import UTC, datetime
from fractions import Fraction
from typing import Final, NamedTuple

from engine.rounding import rounded

SECOND: Final = 1_000_000_000  # ns, in which the engine's clock counts
MAX_DENOMINATOR: Final = 100_000  # of a rate; 30000/1001 divided out is itself again, and encoders count in 32 bits

NTSC = {
    Fraction(n * 1000, 1001): names
    for n, names in {
        24: ("23.976", "23.98"),
        30: ("29.97",),
        48: ("47.952", "47.95"),
        60: ("59.94",),
        120: ("119.88",),
    }.items()
}
_NTSC_BY_NAME = {Fraction(name): rate for rate, names in NTSC.items() for name in names}


class Stretch(NamedTuple):
    """Before `stop` nothing changes but a media time: from `at` on it goes on evenly, `speed` times as fast as time.

    at  seconds, exactly; a tree has the nearest float. None = there is no media time.
    """

    stop: Fraction
    at: Fraction | None = None
    speed: Fraction = Fraction(1)


def frame_rate(number: float | str | Fraction) -> Fraction:
    """The exact rate that a number stands for: 29.97 means 30000/1001, ``"30000/1001"`` itself, 25 means 25/1.

    Raises ValueError when it is not a finite positive number.
    """
    text = str(number)
    try:
        # By way of float: Fraction("1e999999999") would count all its digits.
        exact = Fraction(text) if "/" in text else Fraction(str(float(text)))
        rate = exact.limit_denominator(MAX_DENOMINATOR)
    except (ValueError, ZeroDivisionError):
        rate = Fraction(0)
    if rate <= 0:
        raise ValueError(f"{text[:40]} is not a frame rate")
    return _NTSC_BY_NAME.get(rate, rate)


def seconds(pts: int, time_base: Fraction) -> Fraction:
    """The time of a timestamp, exactly."""
    return pts * time_base


def nanoseconds(pts: int, time_base: Fraction) -> int:
    """The time of a timestamp in ns, rounded down."""
    return pts * time_base.numerator * SECOND // time_base.denominator


def units(ns: int, time_base: Fraction) -> int:
    """The timestamp of a time in ns, rounded to the nearest."""
    return rounded(ns * time_base.denominator, SECOND * time_base.numerator)


def tick_time(n: int, fps: Fraction) -> Fraction:
    """When tick n starts: n / fps seconds."""
    return n / fps


def tick_count(duration: Fraction, fps: Fraction) -> int:
    """How many ticks begin within [0, duration)."""
    return -((-duration * fps) // 1)


def first_sample(n: int, *, rate: int, fps: Fraction) -> int:
    """The index of the first sample of tick n; tick n owns [first_sample(n), first_sample(n + 1)).

    floor(n · rate / fps), so the ticks share all samples out with none left over.
    """
    return n * rate * fps.denominator // fps.numerator


def sample_at(t: Fraction, rate: int) -> int:
    """The index of the sample that is sounding at t seconds."""
    return (t.numerator * rate) // t.denominator


def utc(ms: int) -> str:
    """ms since 1970 as "2026-11-21T01:44:55.824Z"."""
    return f"{datetime.fromtimestamp(ms // 1000, UTC):%Y-%m-%dT%H:%M:%S}.{ms % 1000:03d}Z"
