"""The virtual clock counts, and Pace holds the only three differences between live and offline."""

from fractions import Fraction

from engine.clock import Full, Missing, Pace, Tick, VirtualClock


async def first_ticks(count, fps):
    ticks = VirtualClock().ticks(fps)
    return [await anext(ticks) for _ in range(count)]


async def test_ticks_are_counted_and_their_times_exact():
    ticks = await first_ticks(3001, Fraction(30_000, 1001))
    assert ticks[:2] == [Tick(0, Fraction(0)), Tick(1, Fraction(1001, 30_000))]
    assert ticks[-1] == Tick(3000, Fraction(1001, 10))


async def test_a_clock_counts_anew_for_each_who_asks():
    clock = VirtualClock()
    assert [await anext(clock.ticks(Fraction(25))) for _ in range(2)] == [Tick(0, Fraction(0))] * 2


async def test_offline_waits_for_frames_and_for_sinks():
    pace = Pace.offline()
    assert isinstance(pace.clock, VirtualClock)
    assert (pace.missing, pace.full) == (Missing.WAIT, Full.WAIT)
