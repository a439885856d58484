"""LiveSource: one mixer's view of one live stream: which picture is on at t, and which sound.

It decides how long a picture is held and what a mixer is given twice or not at all; it refuses to know packets, and
what else is done with what its decoder gives.

Theory of operation
-------------------
* A mixer's time t is server time epoch + t; it asks for that its latency later. What comes later still is not shown.
* **Holding.** The last picture stays while the source says nothing, for the patience; so it does when the publisher has
  gone, or time has jumped. Sound that is not there is silence at once.
* **Leaning.** Where pictures come just when they are asked for, jitter of a millisecond would make one show twice and
  the next not at all, again and again. So a source leans to what it did before: a picture that came just in time may
  come a little later, one that came just too late must come a little earlier.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Final, Protocol

import msgspec

from engine.config import Settings
from engine.frame import AudioFrame, VideoFrame
from engine.framequeue import FrameQueue, Pick, Piece
from engine.plan import PictureSize
from engine.sources.fader import Fader
from engine.spec import AudioFormat
from engine.stream import Hub
from engine.sync import Sync
from engine.timebase import SECOND, sample_at

MAX_FRAMES: Final = 64
MIN_FRAMES: Final = 8
MAX_BYTES: Final = 128 << 20  # of one queue
LEAN: Final = 2 * SECOND // 1000  # more than stamps of whole milliseconds are off
BACK: Final = SECOND // 10  # a picture this much before the newest one belongs to a new offset


def queue_capacity(width: int, height: int) -> int:
    """Pictures of that size that one source keeps."""
    return max(MIN_FRAMES, min(MAX_FRAMES, MAX_BYTES * 2 // (3 * width * height)))


class SourceStatistics(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """How a live source is doing, as one mixer sees it; counters since it was opened, of the decoder since it runs.

    shown, held  different pictures shown, and ticks that showed one again whose time was over.
    dropped      pictures never shown: too many, or too late.
    missing      samples that were not there when they were asked for.
    age_ms       of the newest picture that came, looked at or not, None before the first one.
    """

    shown: int
    held: int
    dropped: int
    missing: int
    age_ms: int | None
    corrupt: int
    resyncs: int
    jumps: int
    correction_ms: float


class Decoding(Protocol):
    """What a source sees of the decoder of its stream."""

    sync: Sync
    newest: int | None  # server time of the newest picture that came, whether or not anybody looks

    @property
    def picture_size(self) -> PictureSize:
        """Of the last picture, or a guess."""

    @property
    def corrupt(self) -> int:
        """Packets and pictures that were damaged."""

    @property
    def late(self) -> int:
        """Pictures that were over before they could be given."""

    def call(self, source: LiveSource, *, looks: bool, listens: bool) -> None:
        """A source has said what it wants; it begins to look, or to listen."""

    def leave(self, source: LiveSource) -> None:
        """One source less."""

    async def idle(self) -> None:
        """Waits until all that was sent so far has been given."""


class LiveSource:
    """One mixer's view of a stream. Times and sample indices are the mixer's, counted from its epoch."""

    def __init__(
        self, decoder: Decoding | None, sound: AudioFormat, *, epoch: Fraction, settings: Settings, hub: Hub
    ) -> None:
        self.format = sound
        self.looking = self.listening = False
        self.shrink = 1  # how many times smaller every look makes it
        self.slack = 0  # ns from the time that is asked for to now
        self._looks_until = self._listens_until = 0  # decoded until then although nobody looks or listens yet, ns
        self._decoder = decoder
        self._hub = hub
        self._epoch = epoch
        self._base = sample_at(epoch, sound.rate)
        self._patience = int(Fraction(settings.patience) * SECOND)
        # Pictures and their times are kept in ns of server time, as they come.
        self._frames: FrameQueue[VideoFrame] = FrameQueue(MAX_FRAMES)
        self._newest: int | None = None  # start of the newest picture
        self._last: Pick[VideoFrame] = Pick(None, None, False)
        self._asked: int | None = None  # when pick was last called for
        self._usual = 0  # how long a picture lasts
        self._lean = 0
        self._shown = self._held = 0
        self._passed = 0 if decoder is None else decoder.late  # by the decoder, as it was last looked up
        self._voice = Fader(sound.rate)
        # read by anyone (snapshot)
        self.late = 0  # pictures that came, or were decoded, too late, while somebody looked

    @property
    def picture_size(self) -> PictureSize | None:
        """As last seen, or a guess: a picture may always come. None: never."""
        return None if self._decoder is None else self._decoder.picture_size

    @property
    def attends(self) -> bool:
        """Whether somebody looks or listens, or soon will."""
        return self.looks or self.listens

    @property
    def looks(self) -> bool:
        """Whether somebody looks, or soon will."""
        return self.looking or self._hub.now() < self._looks_until

    @property
    def listens(self) -> bool:
        """Whether somebody listens, or soon will."""
        return self.listening or self._hub.now() < self._listens_until

    @property
    def waits(self) -> bool:
        """Whether there is no picture yet."""
        return self._newest is None

    @property
    def wanted(self) -> int:
        """The server time that will be asked for next, in ns."""
        return self._hub.now() - self.slack

    def attend(self, *, picture: Fraction | None, sound: int | None, shrink: int = 1, hold: bool = False) -> None:
        """Says at every tick what will be asked for: the picture at a time, the sound from a sample on, or neither.

        shrink  how many times smaller than it is the picture is shown, wherever it is.
        hold    is for files: here the last picture is held for the patience anyway.
        """
        self.shrink = shrink
        self._count_late()
        looks, listens = picture is not None and not self.looking, sound is not None and not self.listening
        self.looking, self.listening = picture is not None, sound is not None
        if picture is not None:
            self.slack = self._hub.now() - self._server_time(picture)
        elif sound is not None:
            self.slack = self._hub.now() - (self._base + sound) * SECOND // self.format.rate
        if looks or picture is None:
            self._frames.clear()
            self._newest = None
        if listens:
            self._voice.clear()
        if self._decoder is not None:
            self._decoder.call(self, looks=looks, listens=listens)

    def _count_late(self) -> None:
        if self._decoder is not None:
            before, self._passed = self._passed, self._decoder.late
            self.late += self._passed - before if self.looking else 0

    def foresee(self, t: Fraction, *, within: Fraction, looks: bool, listens: bool) -> None:
        """Somebody looks or listens within so many seconds, who would be at t now: it is decoded from there on."""
        if self._decoder is None:
            return
        if not self.attends:
            self.slack = self._hub.now() - self._server_time(t)
        until = self._hub.now() + int(within * SECOND)
        looks, listens = looks and not self.looking, listens and not self.listening
        if looks:
            self._looks_until = until
        if listens:
            self._listens_until = until
        if looks or listens:
            self._decoder.call(self, looks=looks, listens=listens)

    async def settle(self, *, picture: Fraction | None, sound: int | None) -> None:
        """Returns at once: nobody waits for a live source."""

    def pick(self, t: Fraction, tolerance: Fraction) -> Pick[VideoFrame]:
        """What is on screen at t: the newest picture, held for the patience; t must not decrease."""
        at, slack = self._server_time(t), int(tolerance * SECOND)
        picked = self._frames.pick(at, slack + self._lean)
        if picked.frame is None and self._last.frame is not None:  # its followers have been withdrawn
            picked = self._last._replace(held=True)
        if picked.start is None or at - picked.start >= self._patience:
            return Pick(None, None, False)
        if at != self._asked:
            self._shown += picked.start != self._last.start
            self._held += picked.held
        self._last, self._asked = picked, at
        half_over = (at + slack - picked.start) * 2 > self._usual
        lean = min(self._usual // 16, LEAN)
        self._lean = -lean if half_over else lean
        return picked

    def _server_time(self, t: Fraction) -> int:
        return int((self._epoch + t) * SECOND)

    def take(self, start: int, stop: int) -> list[Piece[AudioFrame]]:
        """The samples of [start, stop) that are there, faded where they begin and end."""
        return self._voice.take(start, stop)

    def over(self, t: Fraction, *, picture: bool, beside: bool) -> bool:
        """Never: a live source may always go on."""
        return False

    async def idle(self) -> None:
        """Waits until all that was published so far has been decoded."""
        if self._decoder is not None:
            await self._decoder.idle()

    def close(self) -> None:
        """Lets go; the decoder ends with its last source. Any number of times."""
        if self._decoder is not None:
            self._decoder.leave(self)

    def statistics(self) -> SourceStatistics:
        """How it is doing."""
        decoder = self._decoder
        newest = None if decoder is None else decoder.newest
        return SourceStatistics(
            shown=self._shown,
            held=self._held,
            dropped=self._frames.dropped + (0 if decoder is None else decoder.late),
            missing=self._voice.missing,
            age_ms=None if newest is None else max(0, self._hub.now() - newest) * 1000 // SECOND,
            corrupt=0 if decoder is None else decoder.corrupt,
            resyncs=0 if decoder is None else decoder.sync.resyncs,
            jumps=0 if decoder is None else decoder.sync.jumps,
            correction_ms=0.0 if decoder is None else decoder.sync.correction * 1000 / SECOND,
        )

    def push_picture(self, start: int, stop: int, frame: VideoFrame) -> None:
        """A picture on screen within [start, stop) ns of server time."""
        if self._newest is not None and start < self._newest - BACK:
            self._frames.cut(start)  # those before it are still to be shown
        self._newest, self._usual = start, stop - start
        self._frames.capacity = queue_capacity(frame.width, frame.height)
        self._frames.push(start, stop, frame)

    def push_sound(self, first: int, block: AudioFrame) -> None:
        """Sound from a sample on, counted from server time 0."""
        self._voice.push(first - self._base, block)
