"""Pattern streams: pictures and a tone that the engine publishes itself, as if somebody pushed them.

It decides which raster and rate such a stream has, and when its pictures are made; it refuses to know what is in them
(`sources.pattern`) and who may have its name.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import Final

import numpy as np
import trio

from engine.errors import InvalidSpec, SourceUnsupported, reason_of
from engine.frame import AudioFrame, VideoFrame
from engine.framequeue import FrameQueue, SampleQueue, tolerance
from engine.packet import Packet
from engine.sinks.encode import PacketEncoder
from engine.sinks.publish import in_encoder_thread, open_encoder, send_packets
from engine.sources.pattern import PatternSource
from engine.sources.pull import PullState, PullStatus
from engine.spec import AudioFormat, EncoderSpec, MixerSpec
from engine.stream import Hub, Publication, Publisher
from engine.threads import in_thread
from engine.timebase import SECOND, first_sample, nanoseconds, tick_time

ENCODER: Final = EncoderSpec(preset="ultrafast", quality=28, audio_bit_rate=64_000)
STEP: Final = Fraction(1, 8)  # seconds of a pattern for one hop to a thread
MAX_LAG: Final = Fraction(2)  # seconds; a pattern that stood still for longer goes on from now


class PatternStream:
    """A pattern as a stream. `run` is its actor; like a Pull it says how it is doing.

    Raises, when made, InvalidSpec: an unknown pattern, option or value, or a rate that no stream has.
    """

    def __init__(self, hub: Hub, name: str, pattern: str, *, limiter: trio.CapacityLimiter) -> None:
        try:
            self._source = PatternSource(name, f"pattern:{pattern}", sound=AudioFormat())
            self._mixer = MixerSpec(raster=self._source.raster, fps=self._source.rate, audio=AudioFormat(channels=1))
        except SourceUnsupported as err:
            raise InvalidSpec(str(err), where="pattern") from err
        except InvalidSpec as err:
            raise InvalidSpec(f"pattern: {err}", where="pattern") from err
        self._hub, self._name, self._pattern, self._limiter = hub, name, pattern, limiter
        self._state: PullState = "connecting"
        self._error = ""

    def status(self) -> PullStatus:
        """How it is doing."""
        url = f"pattern:{self._pattern}"
        return PullStatus(name=self._name, url=url, state=self._state, error=self._error, retries=0)

    async def run(self) -> None:
        """Publishes until cancelled. Raises AlreadyExists, SinkError; with any error its state is "failed"."""
        try:
            publication = self._hub.publish(self._name, Publisher(kind="pattern", peer=self._pattern))
            self._state = "publishing"
            now, limiter = self._hub.now, self._limiter
            await publish_pattern(publication, self._source, mixer=self._mixer, now=now, limiter=limiter)
        except Exception as err:
            self._state, self._error = "failed", reason_of(err)
            raise


async def publish_pattern(
    publication: Publication,
    source: PatternSource,
    *,
    mixer: MixerSpec,
    now: Callable[[], int],
    limiter: trio.CapacityLimiter,
) -> None:
    """Publishes a pattern in real time until cancelled: the picture of n / fps, n / fps after the start.

    The publication is closed and `source` too at the end, in whatever way. Raises SinkError.

    mixer  what is published; pictures and sound of another rate are shown again or left out.
    """
    name = publication.stream.name
    try:
        feed = await in_encoder_thread(partial(_open_feed, name, source, mixer), name=name, limiter=limiter)
        fps, n = mixer.fps, 0
        ticks = await in_encoder_thread(partial(feed.ticks, n), name=name, limiter=limiter)
        start = now()
        while True:
            for packets in ticks:
                wait = start + nanoseconds(n, 1 / fps) - now()
                await trio.sleep(max(0, wait) / SECOND)
                send_packets(publication, packets, now())
                n += 1
            due = int((now() - start) * fps / SECOND)
            n = due if due - n > MAX_LAG * fps else n
            ticks = await in_encoder_thread(partial(feed.ticks, n), name=name, limiter=limiter)
    finally:
        publication.close()
        with trio.CancelScope(shield=True):
            await in_thread(source.close, limiter=limiter)


class _Feed:
    """Makes and encodes a pattern's ticks ahead of their time. Worker threads only."""

    def __init__(self, source: PatternSource, mixer: MixerSpec, encoder: PacketEncoder) -> None:
        self._source = source
        self._mixer = mixer
        self._encoder = encoder
        self._at_once = max(1, int(STEP * mixer.fps))
        self._tolerance = tolerance(mixer.fps, timed=False)
        self._frames: FrameQueue[VideoFrame] = FrameQueue()
        self._samples: SampleQueue[AudioFrame] = SampleQueue()
        self._next = 0

    def ticks(self, n: int) -> list[list[Packet]]:
        """The packets of tick n, and of some that follow it."""
        if n != self._next:
            t = tick_time(n, self._mixer.fps)
            self._source.seek(t)
            self._frames.clear()
            self._samples.clear(self._first_sample(n))
        self._next = n + self._at_once
        return [self._encoder.encode(each, self._picture(each), self._sound(each)) for each in range(n, self._next)]

    def _picture(self, n: int) -> VideoFrame | None:
        t = tick_time(n, self._mixer.fps)
        while not self._frames.ready(t + self._tolerance):
            for start, stop, frame in self._source.step(pictures=1, sounds=None, start=t).pictures:
                self._frames.push(start, stop, frame)
        return self._frames.pick(t, self._tolerance).frame

    def _sound(self, n: int) -> AudioFrame:
        first, stop = self._first_sample(n), self._first_sample(n + 1)
        while not self._samples.ready(stop):
            for start, block in self._source.step(pictures=None, sounds=True, start=Fraction(0)).sounds:
                self._samples.push(start, len(block), block)
        out = np.zeros((self._mixer.audio.channels, stop - first), np.float32)
        for piece in self._samples.take(first, stop):
            samples = piece.block.samples[:, piece.skip : piece.skip + piece.count]
            out[:, piece.offset : piece.offset + piece.count] = samples
        return AudioFrame(out)

    def _first_sample(self, n: int) -> int:
        return first_sample(n, rate=self._mixer.audio.rate, fps=self._mixer.fps)


def _open_feed(name: str, source: PatternSource, mixer: MixerSpec) -> _Feed:
    return _Feed(source, mixer, open_encoder(name, mixer, ENCODER))
