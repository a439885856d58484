"""Copied packets and encoded pictures in one file, without a seam: what `smart` has planned, written.

It decides time stamps and how the coded pictures of several encoders stand in one track; it refuses to know why
something is copied. Worker threads only, one call at a time.

Theory of operation
-------------------
* All parameter sets, the films' and our encoder's, stand in the one avcC at the head of the file, each under a number
  of its own; a picture names its set. So the track is plain `avc1`, and nothing is repeated among the pictures. All
  of them ask a decoder for as much as the most demanding one: it goes on over the joints as it was.
* Each stretch between copies has an encoder of its own, flushed at the stretch's end: packets come in the order in
  which they are written, and no picture refers to one beyond a joint.
* Copied packets are read and written as the ticks pass, along with the sound: a file is interleaved as any other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any, Protocol

import av
import msgspec
from av.container import OutputContainer
from av.video.codeccontext import VideoCodecContext

from engine.bitstream import avc_sets, joined_avcc
from engine.frame import AudioFrame, VideoFrame
from engine.sinks.encode import Encoder, Encoding, open_joint, picture_frame, tag_colours
from engine.smart import ENCODER_DELAY, Copy
from engine.spec import EncoderSpec, MixerSpec

AvPacket = Any  # av's


class Splice(Protocol):
    """What is copied; see sources.splice.Splice."""

    copies: list[Copy]
    sps: dict[int, bytes]
    pps: dict[int, bytes]
    number: int

    @property
    def template(self) -> av.VideoStream:
        """The picture of one of the films."""

    def packets(self, copy: Copy) -> Iterator[AvPacket]:
        """The packets of a copy, one a tick, in the order of decoding. Raises SourceError."""


class Splicer:
    """As `Encoder`: a film's picture, encoded or copied, and its sound, into an open muxer."""

    def __init__(
        self, container: OutputContainer, encoding: Encoding, mixer: MixerSpec, spec: EncoderSpec, splice: Splice
    ) -> None:
        self._container = container
        self._mixer = mixer
        self._spec = spec
        self._splice = splice
        self._copies = deque(splice.copies)
        self._packets: Iterator[AvPacket] = iter(())  # of the copy that has begun
        self._frame = 1 / mixer.fps
        self._delay = max(ENCODER_DELAY, *(copy.delay for copy in splice.copies))
        self._written = 0
        self._joint: VideoCodecContext | None = open_joint(mixer, spec, number=splice.number)
        self._encoding = False  # whether it has pictures
        self._video = self._add_video(self._joint)
        self._sound = Encoder(container, msgspec.structs.replace(encoding, video=None), mixer, spec)

    def _add_video(self, joint: VideoCodecContext) -> av.VideoStream:
        stream: Any = self._container.add_stream_from_template(self._splice.template, opaque=True)
        stream.time_base = self._frame
        context = stream.codec_context
        sets = avc_sets(bytes(joint.extradata or b"")) or ([], [])
        sps, pps = ([*has.values(), *own] for has, own in zip((self._splice.sps, self._splice.pps), sets, strict=True))
        context.extradata = joined_avcc(sps, pps)
        context.framerate = self._mixer.fps
        tag_colours(context)
        return stream  # type: ignore[no-any-return]

    def encode(self, n: int, picture: VideoFrame, sound: AudioFrame, span: int = 1) -> None:
        """Ticks [n, n + span): one picture, unless they are copied, and the sound. Raises av.error, SourceError."""
        tick, stop = n, n + span
        while tick < stop:
            copy = self._copies[0] if self._copies else None
            if copy is not None and copy.first <= tick:
                until = min(stop, copy.stop)
                self._copy(copy, tick, until)
            else:
                until = stop if copy is None else min(stop, copy.first)
                self._encode(picture, range(tick, until))
                if copy is not None and until == copy.first:
                    self._end_joint()
            tick = until
        self._sound.encode(n, picture, sound, span)

    def flush(self) -> None:
        """What the encoders still hold. Raises av.error.FFmpegError."""
        self._end_joint()
        self._sound.flush()

    def _copy(self, copy: Copy, tick: int, until: int) -> None:
        if tick == copy.first:
            self._packets = self._splice.packets(copy)
        for n in range(tick - copy.first, until - copy.first):
            packet = next(self._packets)
            self._write(packet, copy.first + copy.ticks[n])
        if until == copy.stop:
            self._copies.popleft()

    def _encode(self, picture: VideoFrame, ticks: range) -> None:
        if self._joint is None:
            self._joint = open_joint(self._mixer, self._spec, number=self._splice.number)
        self._encoding = True
        for tick in ticks:
            frame = picture_frame(picture)
            frame.pts, frame.time_base = tick, self._frame
            for packet in self._joint.encode(frame):
                self._write(packet, packet.pts or 0)

    def _end_joint(self) -> None:
        """No more pictures up to the next copy."""
        if self._joint is not None and self._encoding:
            for packet in self._joint.encode(None):
                self._write(packet, packet.pts or 0)
            self._joint, self._encoding = None, False

    def _write(self, packet: AvPacket, tick: int) -> None:
        packet.stream, packet.time_base = self._video, self._frame
        packet.pts, packet.dts, packet.duration = tick, self._written - self._delay, 1
        self._written += 1
        self._container.mux_one(packet)
