"""Which frame, and which samples, answer time t: the two media queues between one producer and one consumer.

They decide what is shown, held, dropped; they refuse to know what a frame contains, so tests use integers.

Theory of operation
-------------------
* Times are on the consumer's clock; all of a queue's are Fractions of seconds, or all whole numbers of ns. A source has
  ONE offset for its picture and its sound; it is applied before push.
* A frame is on screen from its start until the next frame's start. `pick(t)` gives the newest frame with
  start ≤ t + tolerance; the tolerance (a quarter of an output tick) keeps equal rates from juddering 2-3-2 when their
  time stamps are rounded. It ends before an out point (`short_of`): a frame from beyond would flash.
  Every older frame is dropped, and counted when it was never shown.
* The answer is *known* (`ready`) once a frame beyond t is there, or the end, or the producer's word that none will come
  before a time beyond t (`expect_none_before`). Offline waits for that; live does not.
* After `end()` the last frame lasts for its own duration; then there is nothing. Without an end it is held for ever:
  how long a held frame may be shown is the mixer's patience, not the queue's. With `hold`, the first frame is on before
  its start too, by `FAR` at most, and the last one for ever: while there is none, it is waited for as far as that.
* Samples have absolute indices. `take(start, stop)` gives what is there as pieces and leaves the rest silent, counted;
  a block that overlaps what is queued already gives only its new part.
"""

from __future__ import annotations

from collections import deque
from fractions import Fraction
from typing import Final, Generic, NamedTuple, TypeAlias, TypeVar

F = TypeVar("F")
Time: TypeAlias = Fraction | int

FAR: Final = 60  # seconds: a frame is not held before its start for longer, nor is one sought behind so much of nothing
STAMP: Final = Fraction(1, 1000)  # seconds that time stamps are off where they are whole milliseconds


def tolerance(fps: Fraction, *, timed: bool) -> Fraction:
    """How much later than asked for a picture may start, seconds; of what has a media time the nearest one is shown."""
    quarter = 1 / fps / 4
    return max(quarter, 1 / fps / 2 - STAMP) if timed else quarter


def short_of(left: Fraction, tolerance: Fraction) -> Fraction:
    """That tolerance where a picture that starts `left` seconds after the time asked for may not be shown."""
    return max(Fraction(0), min(tolerance, left - STAMP))


class _Entry(NamedTuple, Generic[F]):
    start: Time
    stop: Time
    frame: F


class Pick(NamedTuple, Generic[F]):
    """What is on screen: the frame (None = nothing), when it started, and whether its duration is over."""

    frame: F | None
    start: Time | None
    held: bool


class FrameQueue(Generic[F]):
    """Frames of one source for one consumer, in order of their start.

    capacity  how many frames may wait; a push onto a full queue drops the oldest, and counts it: that is live. None:
              nothing is dropped, the producer stops by itself when enough wait: that is offline.
    dropped   how many frames were dropped unseen, since it was made.
    """

    def __init__(self, capacity: int | None = None) -> None:
        self.capacity = capacity
        self.dropped = 0
        self._entries: deque[_Entry[F]] = deque()
        self._shown = False  # whether the first entry has been picked before
        self._ended = False
        self._none_before: Time | None = None

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def ended(self) -> bool:
        """Whether the last frame has been pushed."""
        return self._ended

    @property
    def first_start(self) -> Time | None:
        """Start of the oldest frame that waits."""
        return self._entries[0].start if self._entries else None

    @property
    def last_stop(self) -> Time | None:
        """End of the newest frame that waits."""
        return self._entries[-1].stop if self._entries else None

    def push(self, start: Time, stop: Time, frame: F) -> None:
        """Adds a frame on screen within [start, stop). One that does not start later than the newest is dropped."""
        if self._entries and start <= self._entries[-1].start:
            self.dropped += 1
            return
        if self.capacity is not None and len(self._entries) >= self.capacity:
            self._drop_first()
        self._entries.append(_Entry(start, stop, frame))

    def cut(self, at: Time) -> None:
        """Drops the frames that start at `at` or later: others come in their place."""
        while self._entries and self._entries[-1].start >= at:
            self._entries.pop()
            self.dropped += bool(self._entries) or not self._shown
        self._shown = self._shown and bool(self._entries)

    def end(self) -> None:
        """No more frames will come."""
        self._ended = True

    def clear(self) -> None:
        """Forgets all frames and the end, after a seek. Nothing is counted: they were not lost."""
        self._entries.clear()
        self._shown = self._ended = False
        self._none_before = None

    def expect_none_before(self, t: Time) -> None:
        """No further frame starts before t."""
        self._none_before = t

    def absent(self, t: Time, *, hold: bool = False) -> bool:
        """Whether the producer said that no further frame counts at t."""
        far = FAR if hold and not self._entries else 0
        return self._none_before is not None and self._none_before > t + far

    def ready(self, t: Time, *, hold: bool = False) -> bool:
        """Whether `pick(t)` can no longer change by what is still to come."""
        if self._ended or self.absent(t, hold=hold):
            return True
        return bool(self._entries) and self._entries[-1].start > t

    def skip_to(self, t: Time) -> None:
        """Drops the frames that are over at t, those that a later one has replaced by then."""
        while len(self._entries) > 1 and self._entries[1].start <= t:
            self._drop_first()

    def pick(self, t: Time, tolerance: Time = 0, *, hold: bool = False) -> Pick[F]:
        """What is on screen at t; t must not decrease between calls, except after `clear`.

        hold  before the first frame, if it is not too far, and after the last one these are.
        """
        until = t + tolerance
        self.skip_to(until)
        if not self._entries:
            return Pick(None, None, False)
        entry = self._entries[0]
        over = entry.stop <= t
        is_last = over and self._ended and len(self._entries) == 1
        if entry.start > until + (FAR if hold else 0) or (is_last and not hold):
            return Pick(None, None, False)
        self._shown = True
        return Pick(entry.frame, entry.start, over and not is_last)

    def _drop_first(self) -> None:
        self._entries.popleft()
        self.dropped += not self._shown
        self._shown = False


class Piece(NamedTuple, Generic[F]):
    """A part of a block: its samples [skip, skip + count) belong at `offset` of what was taken."""

    block: F
    skip: int
    count: int  # type: ignore[assignment]  # a tuple has a method of that name
    offset: int


class _Run(NamedTuple, Generic[F]):
    """Samples [start, stop) are those of the block from `skip` on."""

    start: int
    stop: int
    skip: int
    block: F


class SampleQueue(Generic[F]):
    """Blocks of sound of one source for one consumer, by absolute sample index; those before index 0 are dropped.

    dropped, missing  how many samples were dropped, and were not there when they were taken, since it was made.
    """

    def __init__(self) -> None:
        self.dropped = self.missing = 0
        self._runs: deque[_Run[F]] = deque()  # in order, not overlapping
        self._stop = 0
        self._ended = False

    @property
    def ended(self) -> bool:
        """Whether the last block has been pushed."""
        return self._ended

    @property
    def stop(self) -> int:
        """The index before which no further sample comes: that after the newest one, or beyond."""
        return self._stop

    def push(self, start: int, count: int, block: F) -> None:
        """Adds samples [start, start + count); those that are there already are dropped and counted."""
        stop = start + count
        fresh = min(max(start, self._stop), stop)
        self.dropped += fresh - start
        if fresh < stop:
            self._runs.append(_Run(fresh, stop, fresh - start, block))
            self._stop = stop

    def cut(self, at: int) -> None:
        """Forgets the samples from `at` on: others come in their place."""
        while self._runs and self._runs[-1].start >= at:
            self._runs.pop()
        if self._runs and self._runs[-1].stop > at:
            self._runs[-1] = self._runs[-1]._replace(stop=at)
        self._stop = min(self._stop, at)

    def end(self) -> None:
        """No more samples will come."""
        self._ended = True

    def expect_none_before(self, start: int) -> None:
        """No further samples before `start` will come; those that do are dropped and counted."""
        self._stop = max(self._stop, start)

    def clear(self, at: int = 0) -> None:
        """Forgets all samples and the end, after a seek to sample `at`."""
        self._runs.clear()
        self._stop = at
        self._ended = False

    def ready(self, stop: int) -> bool:
        """Whether every sample before `stop` that will ever come is there."""
        return self._ended or self._stop >= stop

    def take(self, start: int, stop: int) -> list[Piece[F]]:
        """The samples of [start, stop) that are there; forgets everything before `stop`."""
        pieces: list[Piece[F]] = []
        found = 0
        while self._runs and self._runs[0].start < stop:
            run = self._runs[0]
            low, high = max(run.start, start), min(run.stop, stop)
            if low < high:
                pieces.append(Piece(run.block, low - run.start + run.skip, high - low, low - start))
                found += high - low
            if run.stop > stop:
                break
            self._runs.popleft()
        self.missing += stop - start - found
        return pieces
