"""Pace: the one object in which live and offline differ: the clock, what a missing frame and a full sink mean.

Here is the offline pace; nothing else in the engine may ask "are we live?".
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from enum import Enum
from fractions import Fraction
from typing import Final, NamedTuple, Protocol

import msgspec
import trio

from engine.timebase import tick_time

STRIDE: Final = 16  # offline; a tick costs a hop to a thread and back, which is more than summing its sound


class Tick(NamedTuple):
    """The n-th output frame interval of a mixer; `time` = n / fps."""

    n: int
    time: Fraction


class Missing(Enum):
    """What to do when the frame for a tick is not there."""

    WAIT = "wait"  # until it is, or the source ended
    HOLD = "hold"  # show the last one


class Full(Enum):
    """What to do when a sink's queue is full."""

    WAIT = "wait"
    DROP = "drop"  # the oldest, and count it as skipped


class Clock(Protocol):
    """Says which tick is due."""

    def ticks(self, fps: Fraction) -> AsyncIterator[Tick]:
        """Ticks 0, 1, 2 … at or after their times."""


class VirtualClock:
    """Every tick is due at once: time passes as fast as the work is done."""

    def ticks(self, fps: Fraction) -> AsyncIterator[Tick]:
        """Ticks 0, 1, 2 … without a pause, but with a chance for others to run before each."""
        return _Ticks(fps)


class _Ticks:
    """No generator: a mixer leaves the loop when it is done, and an unfinished generator would have to be closed."""

    def __init__(self, fps: Fraction) -> None:
        self._fps = fps
        self._n = -1

    def __aiter__(self) -> _Ticks:
        return self

    async def __anext__(self) -> Tick:
        await trio.lowlevel.checkpoint()
        self._n += 1
        return Tick(self._n, tick_time(self._n, self._fps))


class Pace(msgspec.Struct, frozen=True):
    """What distinguishes a live mixer from an offline one, and nothing else does.

    stride  how many ticks may be mixed in one go where only sound is mixed.
    """

    clock: Clock
    missing: Missing
    full: Full
    stride: int

    @classmethod
    def offline(cls) -> Pace:
        """Next tick at once; wait for every frame; wait for every sink."""
        return cls(VirtualClock(), Missing.WAIT, Full.WAIT, stride=STRIDE)
