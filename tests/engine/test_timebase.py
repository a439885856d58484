"""Time is exact: no drift in a day, every sample in one tick, and the rates people write mean the exact ones."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.timebase import (
    NTSC,
    first_sample,
    frame_rate,
    nanoseconds,
    sample_at,
    seconds,
    tick_count,
    tick_time,
    units,
    utc,
)

RATES = st.sampled_from((8000, 11025, 44100, 48000, 96000))
FPS = st.sampled_from((*NTSC, Fraction(25), Fraction(1), Fraction(120), Fraction(15, 2), Fraction(2997, 100)))
TICKS = st.integers(0, 20_000_000)


@pytest.mark.parametrize(
    ("written", "rate"),
    [
        (29.97, Fraction(30000, 1001)),
        ("29.97", Fraction(30000, 1001)),
        ("29.970", Fraction(30000, 1001)),
        (23.976, Fraction(24000, 1001)),
        (23.98, Fraction(24000, 1001)),
        (47.952, Fraction(48000, 1001)),
        (59.94, Fraction(60000, 1001)),
        ("119.88", Fraction(120000, 1001)),
        ("30000/1001", Fraction(30000, 1001)),
        (Fraction(30000, 1001), Fraction(30000, 1001)),
        (25, Fraction(25)),
        (25.0, Fraction(25)),
        (" 25 ", Fraction(25)),
        (12.5, Fraction(25, 2)),
        (1, Fraction(1)),
        ("0.1", Fraction(1, 10)),
        ("1e1", Fraction(10)),
        (30000 / 1001, Fraction(30000, 1001)),
        (24000 / 1001, Fraction(24000, 1001)),
        (100 / 3, Fraction(100, 3)),
    ],
)
def test_written_rate_means_the_exact_one(written, rate):
    assert frame_rate(written) == rate


@pytest.mark.parametrize(
    "written",
    [
        0,
        -25,
        "0",
        "-1",
        "nan",
        "inf",
        "-inf",
        float("nan"),
        float("inf"),
        "",
        "x",
        "1/0",
        "0/1",
        "25 fps",
        True,
        "1/2/3",
        "1e999999999",
        "1e-999999999",
        "9" * 5000,
        "9" * 5000 + "/1",
    ],
)
def test_what_is_no_rate_is_refused_in_one_sentence(written):
    with pytest.raises(ValueError, match=r"is not a frame rate$") as caught:
        frame_rate(written)
    assert len(str(caught.value)) < 80


@settings(deadline=None)
@given(st.text() | st.floats() | st.integers())
def test_any_rate_is_positive_or_refused(written):
    try:
        assert frame_rate(written) > 0
    except ValueError as err:
        assert "is not a frame rate" in str(err)


def test_2997_beside_48_khz_has_no_drift_in_a_day():
    fps, rate = frame_rate(29.97), 48000
    ticks = 86400 * 30000 // 1001  # of one day
    assert tick_time(30_000 * 86, fps) == 1001 * 86
    assert first_sample(ticks, rate=rate, fps=fps) == ticks * 8008 // 5
    assert abs(tick_time(ticks, fps) - Fraction(first_sample(ticks, rate=rate, fps=fps), rate)) < Fraction(1, rate)
    blocks = [first_sample(n + 1, rate=rate, fps=fps) - first_sample(n, rate=rate, fps=fps) for n in range(5)]
    assert (blocks, sum(blocks)) == ([1601, 1602, 1601, 1602, 1602], 8008)


@settings(deadline=None)
@given(TICKS, RATES, FPS)
def test_ticks_share_out_all_samples(n, rate, fps):
    start, stop = (first_sample(each, rate=rate, fps=fps) for each in (n, n + 1))
    exact = rate / fps
    assert int(exact) <= stop - start <= int(exact) + 1
    assert 0 <= tick_time(n, fps) * rate - start < 1
    assert start == sample_at(tick_time(n, fps), rate)


@settings(deadline=None)
@given(TICKS, FPS)
def test_ticks_counted_in_the_time_of_n_ticks_are_n(n, fps):
    assert tick_count(tick_time(n, fps), fps) == n
    assert tick_count(tick_time(n, fps) + Fraction(1, 10**9), fps) == n + 1


@settings(deadline=None)
@given(st.fractions(0, 10**6), FPS)
def test_every_counted_tick_begins_before_the_end(duration, fps):
    count = tick_count(duration, fps)
    assert isinstance(count, int)
    assert count == 0 or tick_time(count - 1, fps) < duration
    assert tick_time(count, fps) >= duration


@pytest.mark.parametrize(
    ("pts", "time_base", "t"),
    [
        (0, Fraction(1, 90000), 0),
        (90001, Fraction(1, 90000), Fraction(90001, 90000)),
        (-3, Fraction(1, 30), Fraction(-1, 10)),
    ],
)
def test_timestamp_is_converted_exactly(pts, time_base, t):
    assert seconds(pts, time_base) == t


@pytest.mark.parametrize(
    ("t", "n"), [(0, 0), (Fraction(1, 48000), 1), (Fraction(1, 48001), 0), (Fraction(-1, 96000), -1)]
)
def test_sample_is_the_one_that_sounds(t, n):
    assert sample_at(Fraction(t), 48000) == n


@given(st.integers(-(10**12), 10**12), st.fractions(Fraction(1, 10**7), 1, max_denominator=10**7))
def test_a_timestamp_comes_back_from_nanoseconds(pts, time_base):
    ns = nanoseconds(pts, time_base)
    assert 0 <= seconds(pts, time_base) * 10**9 - ns < 1
    assert units(ns, time_base) == pts


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (1_700_000_000_000, "2023-11-14T22:13:20.000Z"),
        (1_795_225_495_824, "2026-11-21T01:44:55.824Z"),
        (7, "1970-01-01T00:00:00.007Z"),
    ],
)
def test_a_moment_has_three_digits_behind_the_second(ms, text):
    assert utc(ms) == text
