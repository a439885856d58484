"""Pace: the one object in which live and offline differ: the clock, what a missing frame means, how much goes at once.

It decides what happens when we are late; nothing else in the engine may ask "are we live?".

Theory of operation
-------------------
* Times come from a counter: tick n of a mixer is at epoch + n / fps on the engine's clock, and due `latency` later: so
  long sources may be late. The engine's clock is monotonic ns; a step of the system's clock changes nothing.
* A tick that is late by less than CATCH_UP is given at once: a busy scheduler costs nothing, the latency absorbs it.
* A tick that is later is skipped with all others that are due by now; the newest one is given. The mixer sees the
  gap in the numbers, counts it as lagged, and lets the sound of the next tick cover the whole of it.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from fractions import Fraction
from typing import Final, NamedTuple, Protocol

import msgspec
import trio

from engine.timebase import SECOND, nanoseconds, tick_time

CATCH_UP: Final = SECOND // 10  # a scheduler is busy for less; longer, and a backlog would only grow
STRIDE: Final = 64  # offline; a tick costs a hop to a thread and back, which is more than summing its sound


class Tick(NamedTuple):
    """The n-th output frame interval of a mixer; `time` = n / fps; it comes `late` ns after it was due."""

    n: int
    time: Fraction
    late: int = 0


class Missing(Enum):
    """What to do when the frame for a tick is not there."""

    WAIT = "wait"  # until it is, or the source ended
    HOLD = "hold"  # show the last one


class Clock(Protocol):
    """Says which tick is due."""

    async def tick(self, n: int, fps: Fraction) -> Tick:
        """Waits until tick n is due and gives it; or a later one, when n could not be in time."""


class VirtualClock:
    """Every tick is due at once: time passes as fast as the work is done."""

    async def tick(self, n: int, fps: Fraction) -> Tick:
        """Tick n, after others had a chance to run."""
        await trio.lowlevel.checkpoint()
        return Tick(n, tick_time(n, fps))


class WallClock:
    """Ticks in real time.

    now      ns on the engine's clock.
    epoch    when tick 0 is, on that clock; latency: how much later it is due, ns.
    """

    def __init__(self, now: Callable[[], int], *, epoch: int, latency: int) -> None:
        self._now = now
        self._start = epoch + latency

    async def tick(self, n: int, fps: Fraction) -> Tick:
        """Tick n when it is due; when that is CATCH_UP ago, the newest one that is due now."""
        late = self._now() - self._due(n, fps)
        if late >= CATCH_UP:
            n += int(Fraction(late, SECOND) * fps)
            late = self._now() - self._due(n, fps)
        if late >= 0:
            await trio.lowlevel.checkpoint()
        while late < 0:
            await trio.sleep(-late / SECOND)
            late = self._now() - self._due(n, fps)
        return Tick(n, tick_time(n, fps), late)

    def _due(self, n: int, fps: Fraction) -> int:
        return self._start + nanoseconds(n, 1 / fps)


class Pace(msgspec.Struct, frozen=True):
    """What distinguishes a live mixer from an offline one, and nothing else does.

    stride  how many ticks may be mixed in one go where only sound is mixed.
    """

    clock: Clock
    missing: Missing
    stride: int

    @classmethod
    def offline(cls) -> Pace:
        """Next tick at once; wait for every frame."""
        return cls(VirtualClock(), Missing.WAIT, stride=STRIDE)

    @classmethod
    def live(cls, clock: Clock) -> Pace:
        """Every tick when it is due; hold what is missing."""
        return cls(clock, Missing.HOLD, stride=1)
