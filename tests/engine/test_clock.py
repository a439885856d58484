"""The virtual clock counts, the wall clock skips what is late, Pace holds the differences of live and offline."""

import time
from fractions import Fraction

import pytest

from engine.clock import Missing, Pace, Tick, VirtualClock, WallClock


async def test_ticks_are_counted_and_their_times_exact():
    clock, fps = VirtualClock(), Fraction(30_000, 1001)
    assert [await clock.tick(n, fps) for n in (0, 1)] == [Tick(0, Fraction(0)), Tick(1, Fraction(1001, 30_000))]
    assert await clock.tick(3000, fps) == Tick(3000, Fraction(1001, 10))


async def test_offline_waits_for_frames():
    pace = Pace.offline()
    assert isinstance(pace.clock, VirtualClock)
    assert pace.missing is Missing.WAIT


class Hands:
    """An engine clock that stands where it is put."""

    def __init__(self):
        self.ns = 0

    def now(self):
        return self.ns


async def test_live_ticks_come_when_they_are_due_and_never_before():
    began = time.monotonic_ns()

    def now():
        return time.monotonic_ns() - began

    clock, n = WallClock(now, epoch=0, latency=20_000_000), 0
    for _ in range(3):
        tick = await clock.tick(n, Fraction(100))
        assert tick.n >= n  # later where the machine was away for as long
        assert tick.time == Fraction(tick.n, 100)
        assert now() >= 20_000_000 + tick.n * 10_000_000
        assert tick.late >= 0
        n = tick.n + 1


@pytest.mark.parametrize(
    ("late_ms", "expected"),
    [
        (0, 7),
        (99, 7),  # caught up: nothing is lost
        (101, 9),  # 25 fps: ticks 7 and 8 could not be in time, tick 9 is the newest that is due
        (2000, 57),
        (86_400_000, 2_160_007),
    ],
)
async def test_a_late_tick_is_caught_up_or_skipped_with_all_that_are_due(late_ms, expected):
    hands = Hands()
    clock = WallClock(hands.now, epoch=5_000_000_000, latency=200_000_000)
    hands.ns = 5_480_000_000 + late_ms * 1_000_000
    assert (await clock.tick(7, Fraction(25))).n == expected


async def test_ticks_stay_on_their_grid_for_days():
    hands = Hands()
    clock = WallClock(hands.now, epoch=0, latency=0)
    hands.ns = 86_400_000_000_000
    tick = await clock.tick(0, Fraction(30_000, 1001))
    assert tick.time == tick.n * Fraction(1001, 30_000)
    assert 0 <= tick.late < 33_366_667


async def test_live_holds_what_is_missing():
    pace = Pace.live(WallClock(Hands().now, epoch=0, latency=0))
    assert (pace.missing, pace.stride) == (Missing.HOLD, 1)
