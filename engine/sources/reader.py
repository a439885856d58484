"""Reader: one consumer's place in one source; decodes ahead of it, seeks when it jumps, and answers what is on at t.

It decides when to decode and when to seek; it refuses to know who asks. Anything with `step` and `seek` can be read:
a MediaFile or a pattern.

Theory of operation
-------------------
* Few frames wait, and many may pass between one tick and the next: 12 of a film of 60 a second in a cast of 5. Who does
  not wait would see an old one. So the time that is asked for next is guessed: later by the least it ever was, since a
  tick may lag. Once the present picture is known, and those that wait are over by then, it goes on there; frames that
  are over before are not converted. Before that is known well enough, more frames wait.
* The present picture is kept meanwhile, for who asks for the same time again. Another time before the guessed one makes
  it seek.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import Final, Protocol, TypeVar

import trio

from engine.config import Settings
from engine.errors import EngineError
from engine.frame import AudioFrame, VideoFrame
from engine.framequeue import FAR, STAMP, FrameQueue, Pick, Piece, SampleQueue
from engine.plan import PictureSize
from engine.sources.avfile import SOUND_TAIL, Batch
from engine.threads import Threads, in_thread

JUMP: Final = Fraction(2)  # further ahead than this, going on from a keyframe is cheaper than decoding up to it
FRAMES_A_STEP: Final = 2  # a hop to a thread costs 0.1-0.3 ms: several frames share one
SOUND_AHEAD: Final = 0.5  # seconds; the next step then gives another second

MIN_AHEAD: Final = 2
FASTEST: Final = 2  # times media time passes, of films that are played faster; until it is seen, each may be one
SURE: Final = 2  # moves after which the least of them is what the next one is at least
MORE: Final = 8  # times as many frames may wait before: nothing is thrown away for a mere guess
PADDING: Final = Fraction(1, 20)  # seconds; of the last block of a sound

T = TypeVar("T")


class Steps(Protocol):
    """What a Reader reads; every method blocks for a bounded time and is called in worker threads, one at a time."""

    guid: str

    @property
    def picture_size(self) -> PictureSize | None:
        """Size as displayed, None when there is no picture."""

    @property
    def has_sound(self) -> bool:
        """Whether there is sound."""

    @property
    def duration(self) -> Fraction | None:
        """Seconds, None when there is no end or nobody knows."""

    @property
    def endless(self) -> bool:
        """Whether it never ends."""

    def step(self, *, pictures: int | None, sounds: bool | None, start: Fraction) -> Batch:
        """Decodes on; see MediaFile.step."""

    def ease(self) -> None:
        """Decodes pictures with less care, as is enough at half their size or less; before the first step."""

    def seek(self, t: Fraction) -> None:
        """Goes on from media time t."""

    def close(self) -> None:
        """Lets go."""


class Reader:
    """Reads one source for one consumer. `run` is its actor; everything else is called by the consumer.

    Each tick the consumer says with `attend` what it needs, waits for it with `settle`, and gets it with `pick` and
    `take`. Promises: `settle` returns once the answer can no longer change, or raises the source's error; a kind that
    is not attended to is not decoded.

    tick  seconds after which the consumer asks for the next picture: of media time, at speed 1, until it is seen how
          much that moves on.
    """

    def __init__(
        self,
        steps: Steps,
        *,
        rate: int,
        ahead: int,
        limiter: trio.CapacityLimiter | Threads,
        tick: Fraction = Fraction(0),
        may_ease: bool = False,
    ) -> None:
        # given
        self._may_ease = may_ease  # nothing will be shown bigger than it is at first
        self.steps = steps
        self._rate = rate
        self._sound_ahead = int(SOUND_AHEAD * rate)
        self._sound_jump = int(JUMP * rate)
        self._ahead = ahead
        self._most_a_step = min(ahead, FRAMES_A_STEP)
        self._limiter = limiter
        # owned by run()
        self._frames: FrameQueue[VideoFrame] = FrameQueue()
        self._samples: SampleQueue[AudioFrame] = SampleQueue()
        self._last: Pick[VideoFrame] = Pick(None, None, False)
        self._error: EngineError | None = None
        self._no_more_pictures = self._no_more_sounds = False  # to decode from here on
        self._gone = self._given_up = False
        self._a_step = 1  # pictures; grows from one, so that the first one is there soon
        # asked for by the consumer
        self._begun = self._looking = self._listening = self._hold = False
        self._at = Fraction(0)  # nothing that is over before this is wanted
        self._answered: Fraction | None = None  # the time that was asked for last, until another one is attended to
        self._slack = tick / 2  # its tolerance; no tolerance is more
        self._moves = 0  # how often it was later than the one before
        self._stride = tick  # how much later the next one will be at least: the least seen; a tick may lag
        self._heard = self._taken = 0
        self._look_until, self._hear_until = Fraction(0), 0  # what somebody waits for now
        self._seek_to: Fraction | None = None
        self._asked = trio.lowlevel.ParkingLot()
        self._news = trio.lowlevel.ParkingLot()

    @property
    def picture_size(self) -> PictureSize | None:
        """Size as displayed, None when there is no picture."""
        return self.steps.picture_size

    @property
    def has_sound(self) -> bool:
        """Whether there is sound."""
        return self.steps.has_sound

    @property
    def error(self) -> EngineError | None:
        """Why it broke off, where it did."""
        return self._error

    async def run(self) -> None:
        """Decodes as far ahead as the queue allows, until cancelled; a source that breaks leaves its error behind."""
        try:
            while True:
                if self._seek_to is not None:
                    await self._seek(self._seek_to)
                pictures, sounds = self._room()
                if not pictures and not sounds:  # nothing wanted, or enough of it
                    self._news.unpark_all()
                    await self._asked.park()
                    continue
                step = partial(self.steps.step, pictures=pictures, sounds=sounds, start=self._at)
                self._take_in(await self._in_thread(step))
                self._a_step = min(self._a_step * 2, self._most_a_step) if pictures else self._a_step
                self._news.unpark_all()
        except EngineError as err:
            self._error, self._gone = err, True
            self._news.unpark_all()
        finally:
            with trio.CancelScope(shield=True):
                await self._in_thread(self.steps.close)

    async def _in_thread(self, call: Callable[[], T]) -> T:
        if isinstance(self._limiter, Threads):
            return await self._limiter.run(call)
        return await in_thread(call, limiter=self._limiter)

    def _room(self) -> tuple[int | None, bool | None]:
        """How many pictures to decode in the next step, and whether sound; None = nobody is interested."""
        pictures: int | None = None
        sounds: bool | None = None
        if self._looking:
            self._frames.skip_to(self._at)
            room = self._ahead - len(self._frames)
            wanted = not self._frames.ready(self._look_until, hold=self._hold)
            if not self._frames.absent(self._look_until + FAR):  # what comes too late for its place is found, too
                wanted = wanted or room >= self._a_step or self._skips_to_next()
            pictures = self._a_step if wanted and not self._no_more_pictures else 0
        if self._listening:
            until = max(self._hear_until, self._heard + self._sound_ahead)
            sounds = not self._no_more_sounds and not self._samples.ready(until)
        return pictures, sounds

    def _skips_to_next(self) -> bool:
        """Goes on where the next picture is asked for, if those that wait are over by then; whether more are wanted."""
        now, stop = self._answered, self._frames.last_stop
        if now is None or stop is None or self._stride > JUMP or not self._frames.ready(now + self._slack):
            return False
        next_one = now + self._stride * (1 if self._moves else FASTEST)
        if stop > next_one + self._slack:
            return False
        if self._moves < SURE:
            return len(self._frames) < MORE * self._ahead
        if not self._has_skipped:
            self._last = self._frames.pick(now, self._slack)  # known by now, which it may not have been
        self._at = max(self._at, now + self._stride - STAMP)
        self._frames.skip_to(self._at)
        return True

    @property
    def _has_skipped(self) -> bool:
        """Whether what is on at the time asked for last, and follows it, may not wait any more."""
        return self._answered is not None and self._at > self._answered

    def _take_in(self, batch: Batch) -> None:
        if self._seek_to is not None:
            return  # it was decoded for a place that nobody looks at any more
        for start, stop, frame in batch.pictures:
            self._frames.push(start, stop, frame)
        for first, block in batch.sounds:
            self._samples.push(first, len(block), block)
        if batch.no_picture_before is not None:
            self._frames.expect_none_before(batch.no_picture_before)
        if batch.no_sound_before is not None:
            self._samples.expect_none_before(batch.no_sound_before)
        self._error = batch.error
        self._no_more_pictures, self._no_more_sounds = batch.pictures_end, batch.sounds_end
        if batch.error is None:
            if batch.pictures_end and self._looking:
                self._frames.end()
            if batch.sounds_end and self._listening:
                self._samples.end()

    async def _seek(self, t: Fraction) -> None:
        self._a_step = 1
        self._frames.clear()
        self._samples.clear(self._heard)
        self._no_more_pictures = self._no_more_sounds = False
        await self._in_thread(partial(self.steps.seek, t))
        if self._seek_to == t:
            self._seek_to = None

    def attend(self, *, picture: Fraction | None, sound: int | None, shrink: int = 1, hold: bool = False) -> None:
        """Says what will be asked for next: the picture at a media time, the sound from a sample on, or neither.

        shrink  how many times smaller than it is the picture is shown, wherever it is: where that stays so, half its
                size or less may be decoded with less care.
        hold    before its first picture, by a minute at most, and after its last one these are what is on.

        A kind that was not attended to before, and a time that is not near, make the reader seek.
        """
        jump = False
        if picture is not None and picture != self._answered:
            jump = self._is_jump(picture)
            if self._answered is not None and picture > self._answered:
                moved = picture - self._answered
                self._stride, self._moves = min(self._stride, moved) if self._moves else moved, self._moves + 1
            self._at, self._look_until = picture, picture + self._slack
            self._answered = None
        if sound is not None:
            jump = self._is_jump_in_sound(sound) or jump
            self._heard = self._hear_until = sound
        self._looking, self._listening, self._hold = picture is not None, sound is not None, hold
        if picture is None:
            self._last, self._answered = Pick(None, None, False), None
        if jump:
            self._taken = self._heard
            times = (picture, None if sound is None else Fraction(sound, self._rate))
            self._seek_to = min(t for t in times if t is not None)
        if shrink > 1 and self._may_ease and not self._begun:
            self.steps.ease()
        self._begun = self._begun or self._looking or self._listening
        self._wake()

    async def settle(self, *, picture: Fraction | None, sound: int | None) -> None:
        """Waits until the picture at that media time and all samples before that index are known, as far as they come.

        Raises SourceError where the source breaks off before; the other kind, as far as it comes, is known by then.
        """
        self._look_until = self._look_until if picture is None else picture
        self._hear_until = self._hear_until if sound is None else sound
        while True:
            sought = self._seek_to is not None
            lacks_picture = picture is not None and (sought or not self._frames.ready(picture, hold=self._hold))
            lacks_sound = sound is not None and (sought or not self._samples.ready(sound))
            broken = self._error is not None and not sought
            picture_may_come = lacks_picture and not (broken and self._no_more_pictures)
            sound_may_come = lacks_sound and not (broken and self._no_more_sounds)
            if self._gone or not (picture_may_come or sound_may_come):
                break
            self._wake()
            await self._news.park()
        if self._error is not None and (lacks_picture or lacks_sound):
            self._given_up = True
            raise self._error.with_traceback(None)  # who goes on all the same would make it longer with every tick

    def pick(self, t: Fraction, tolerance: Fraction) -> Pick[VideoFrame]:
        """What is on screen at media time t, as far as it is known: until it is, what was on before."""
        if self._has_skipped and t == self._answered:
            return self._last
        picked = self._frames.pick(t, tolerance, hold=self._hold and self._seek_to is None)
        known = self._seek_to is None and self._frames.ready(t + tolerance, hold=self._hold)
        if picked.frame is None and not known:
            picked = self._last._replace(held=self._last.frame is not None)
        self._last = picked
        self._answered, self._slack = t, tolerance
        self._wake()
        return picked

    async def idle(self) -> None:
        """Waits until as much is decoded ahead as may be, or it broke."""
        while not self._gone and (self._seek_to is not None or any(self._room())):
            self._wake()
            await self._news.park()

    def take(self, start: int, stop: int) -> list[Piece[AudioFrame]]:
        """The samples of [start, stop) that are there."""
        self._taken = stop
        return self._samples.take(start, stop)

    def over(self, t: Fraction, *, picture: bool, beside: bool) -> bool:
        """Whether nothing of it is left at media time t.

        picture  whether its picture is shown anywhere; beside: whether that of any source is.

        What never ends keeps nothing going either: a pattern and a still last as long as what they are mixed with.
        A little sound after its last picture, as encoders leave it, does not count; beside pictures of others, nor does
        what is left of the block of sound in which it ends by the container's word. Right at the time that was settled;
        of a kind that is not attended to only that word is known.
        """
        if self.steps.endless:
            return True
        nothing = not (self.has_sound or (picture and self.picture_size is not None))
        if nothing or self._given_up:
            return self.steps.duration is None or self.steps.duration <= t
        shown = picture and self.steps.picture_size is not None
        if (shown and not self._looking) or not (shown or self._listening):
            return self.steps.duration is None or self.steps.duration <= t
        picture_stop = (self._frames.last_stop or Fraction(0)) if shown else None
        if picture_stop is not None and not (self._frames.ended and picture_stop <= t):
            return False
        if not self._listening:
            return True
        sound_stop = Fraction(self._samples.stop, self._rate)
        end, tail = (self.steps.duration, PADDING) if beside and not shown else (picture_stop, SOUND_TAIL)
        is_tail = end is not None and end <= t and sound_stop <= end + tail
        return self._samples.ended and (is_tail or sound_stop <= t)

    def _wake(self) -> None:
        """Lets run() go on when there is something to do: most ticks find enough decoded."""
        if self._seek_to is not None or any(self._room()):
            self._asked.unpark_all()

    def _is_jump(self, t: Fraction) -> bool:
        if not self._looking:
            return self._begun or t > 0
        if t < self._at:
            first = self._frames.first_start
            return self._has_skipped or first is None or t < first
        last = self._frames.last_stop
        return last is not None and not self._no_more_pictures and t > last + JUMP

    def _is_jump_in_sound(self, n: int) -> bool:
        if not self._listening:
            return self._begun or n > 0
        return n < max(self._heard, self._taken) or n > max(self._samples.stop, self._heard) + self._sound_jump


def decode_ahead(steps: Steps, settings: Settings, *, readers: int) -> int:
    """Frames that one of some readers decodes ahead: few where frames are large and readers many."""
    size = steps.picture_size
    frame_bytes = size.width * size.height * 3 // 2 if size is not None else 1
    room = settings.decode_ahead_bytes // max(1, readers) // max(1, frame_bytes)
    return max(MIN_AHEAD, min(settings.decode_ahead, room))
