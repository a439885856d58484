"""A mix into a stream: encoded in worker threads, published in the Trio thread.

It decides what is left out when encoding is too slow (pictures, never sound), and when a keyframe is made; it refuses
to know who reads the stream.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple, TypeVar

import av
import msgspec
import trio

from engine.errors import ActorGone, SinkError, SinkRejected, reason_of
from engine.frame import AudioFrame, VideoFrame
from engine.packet import Packet
from engine.sinks.encode import PacketEncoder, check_picture
from engine.spec import AAC_RATES, EncoderSpec, MixerSpec
from engine.stream import Publication
from engine.threads import in_thread
from engine.timebase import SECOND

QUEUE: Final = 8  # pictures between the mixer and the encoder, 0.27 s at 30 fps; decoders in a hurry keep it waiting
_ERRORS: Final = (av.error.FFmpegError, OSError, ValueError, OverflowError)

T = TypeVar("T")


class SinkStatistics(msgspec.Struct, frozen=True, rename="camel"):
    """Pictures encoded, and skipped because the encoder was too slow, since it was made; what one of the last second
    took on average and at most, in ms; how many wait; how many were keyframes."""

    encoded: int
    skipped: int
    keyframes: int
    encode_ms: float
    encode_max_ms: float
    waiting: int


class _Item(NamedTuple):
    """Ticks [n, n + span): the picture of the last one, None when it was skipped, and the sound of all."""

    n: int
    picture: VideoFrame | None
    sound: AudioFrame
    span: int


class _Encoded(NamedTuple):
    packets: list[Packet]
    times: list[tuple[int, int]]  # when a picture was done, and how long it took, ns


class StreamSink:
    """A mixer's sink that publishes what it gets. `run` is its actor; it ends after `end`, when all is published.

    Promises: pictures are published in order, a skipped one is counted, sound is never left out; the publication is
    closed when `run` ends, in whatever way.

    due      when time stamp 0 is due on the engine's clock, ns: what comes before its time has arrived at its time, so
             that who mixes the stream finds the same offset whatever encoding takes; None = it arrives as it comes.
    now      the engine's clock, ns; called in worker threads too.
    limiter  of the threads that encode.
    """

    def __init__(
        self,
        publication: Publication,
        mixer: MixerSpec,
        spec: EncoderSpec,
        *,
        now: Callable[[], int],
        limiter: trio.CapacityLimiter,
        due: int | None = None,
    ) -> None:
        # given
        self._publication = publication
        self._due = due
        self._mixer = mixer
        self._spec = spec
        self._now = now
        self._limiter = limiter
        # owned by run() and put()
        self._items: deque[_Item] = deque()
        self._waiting = 0  # pictures
        self._ended = self._gone = self._keyframe = False
        self._broken = ""  # why; no exception is kept, it would keep pictures
        self._news = trio.lowlevel.ParkingLot()
        self._encoded = self._keyframes = 0
        self._times: deque[tuple[int, int]] = deque()
        # read by anyone (snapshot)
        self.skipped = 0  # pictures
        self.last_picture: VideoFrame | None = None

    async def put(self, n: int, picture: VideoFrame, sound: AudioFrame, span: int = 1) -> None:
        """Takes the picture of ticks [n, n + span), shown from the last of them on, and their sound.

        It never waits for room: of QUEUE pictures that wait already the oldest is skipped. Raises SinkError when the
        encoder broke, ActorGone when `run` was cancelled.
        """
        await trio.lowlevel.checkpoint()
        if self._broken:
            raise SinkRejected(self._broken, where=self._name)
        if self._gone:
            raise ActorGone(f'the encoder of stream "{self._name}" has ended', where=self._name)
        if self._waiting >= QUEUE:
            self._skip_oldest()
        self._items.append(_Item(n, picture, sound, span))
        self._waiting += 1
        self.last_picture = picture
        self._news.unpark_all()

    def end(self) -> None:
        """No more ticks will come."""
        self._ended = True
        self._news.unpark_all()

    def request_keyframe(self) -> None:
        """The next picture is a keyframe; or one half a second after the last keyframe, where that is later."""
        self._keyframe = True

    def statistics(self) -> SinkStatistics:
        """How it is doing now."""
        self._forget_times()
        spent = [took for _, took in self._times]
        return SinkStatistics(
            encoded=self._encoded,
            skipped=self.skipped,
            keyframes=self._keyframes,
            encode_ms=sum(spent) / max(1, len(spent)) / 1e6,
            encode_max_ms=max(spent, default=0) / 1e6,
            waiting=self._waiting,
        )

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Encodes and publishes until `end`; started when the encoder is open. Raises SinkError."""
        try:
            encoder = await self._in_thread(partial(open_encoder, self._name, self._mixer, self._spec))
            task_status.started()
            while items := await self._take():
                keyframe, self._keyframe = self._keyframe, False
                encoded = await self._in_thread(partial(self._encode, encoder, items, keyframe))
                self._times.extend(encoded.times)
                self._forget_times()
                self._publish(encoded.packets)
            self._publish(await self._in_thread(encoder.flush))
        except SinkError as err:
            self._broken = str(err)
            raise
        finally:
            self._gone = True
            self._items.clear()
            self._waiting, self.last_picture = 0, None
            self._publication.close()

    @property
    def _name(self) -> str:
        return self._publication.stream.name

    async def _take(self) -> list[_Item]:
        """All that waits; nothing when no more will come."""
        while not self._items and not self._ended:
            await self._news.park()
        items = list(self._items)
        self._items.clear()
        self._waiting = 0
        return items

    def _skip_oldest(self) -> None:
        at = next(n for n, item in enumerate(self._items) if item.picture is not None)
        self._items[at] = self._items[at]._replace(picture=None)
        self._waiting -= 1
        self.skipped += 1

    def _encode(self, encoder: PacketEncoder, items: list[_Item], keyframe: bool) -> _Encoded:
        """Worker threads only."""
        packets: list[Packet] = []
        times = []
        for n, picture, sound, span in items:
            began = self._now()
            packets += encoder.encode(n, picture, sound, span, keyframe=keyframe)
            keyframe = False  # asked for once
            if picture is not None:
                done = self._now()
                times.append((done, done - began))
        return _Encoded(packets, times)

    def _publish(self, packets: list[Packet]) -> None:
        for packet in packets:
            self._encoded += packet.is_video
            self._keyframes += packet.starts_gop
        send_packets(self._publication, packets, self._now(), self._due)

    def _forget_times(self) -> None:
        while self._times and self._times[0][0] <= self._now() - SECOND:
            self._times.popleft()

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await in_encoder_thread(call, name=self._name, limiter=self._limiter)


def open_encoder(name: str, mixer: MixerSpec, spec: EncoderSpec) -> PacketEncoder:
    """What encodes a stream; it takes a while. Raises SinkRejected: what H.264 or AAC does not have."""
    if mixer.audio.rate not in AAC_RATES:
        listed = ", ".join(map(str, AAC_RATES))
        raise SinkRejected(f'stream "{name}": AAC has no rate of {mixer.audio.rate} Hz, only {listed}', where=name)
    check_picture("libx264", mixer, spec, what=f'stream "{name}"', where=name)
    return PacketEncoder(mixer, spec)


def send_packets(publication: Publication, packets: list[Packet], now: int, due: int | None = None) -> None:
    """Publishes what an encoder made, as arriving now; or at its time, with `due` as a StreamSink has it."""
    for packet in packets:
        packet.arrival = now if due is None else max(now, due + packet.dts_ns)
        publication.send(packet)


async def in_encoder_thread(call: Callable[[], T], *, name: str, limiter: trio.CapacityLimiter) -> T:
    """Blocking work of an encoder; what libav says is one sentence of a SinkRejected."""
    try:
        return await in_thread(call, limiter=limiter)
    except _ERRORS as err:
        raise SinkRejected(f'stream "{name}": {reason_of(err)}', where=name) from err
