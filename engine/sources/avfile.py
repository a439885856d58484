"""Anything libav opens, file or URL: demuxed, decoded and stamped with media time, one bounded step at a time.

It decides what media time is and what a broken file does; it refuses to know who shows the frames and when. All of it is
for worker threads: libav objects are touched by one thread at a time. `reader.py` calls the steps.

Theory of operation
-------------------
* Media time 0 is where the container starts (a start before 0, an encoder's priming, is cut off). One offset holds for
  picture and sound, so that lip sync inside a source survives.
* Picture and sound come interleaved. A step decodes what is wanted; packets of the other kind wait undecoded, and at
  most `MAX_WAITING_BYTES` of them.
* Formats whose time may jump (MPEG-TS, FLV: `ts_discont`) are straightened at the packet: a jump back by more than 1 s or
  ahead by more than 10 s gets a new offset so that time goes on; packets around the splice that still belong to the old
  epoch keep the old offset. Wraps are libav's business and no jumps.
* A packet that a decoder refuses is counted, and the next one goes on. A demuxer that fails ends the source with
  an error that names the time.
"""

from __future__ import annotations

import os
from collections import deque
from fractions import Fraction
from typing import Final

import av
import msgspec
from av.container import InputContainer

from engine.config import Settings
from engine.errors import SourceError, SourceMalformed, SourceUnavailable, SourceUnsupported
from engine.frame import AudioFrame, VideoFrame
from engine.plan import PictureSize
from engine.sources.convert import PictureConverter, SoundConverter, displayed_size, has_alpha
from engine.spec import AudioFormat
from engine.timebase import sample_at, seconds

MAX_WAITING_BYTES: Final = 256 << 20  # picture and sound further apart than this are not one programme
MAX_BACK: Final = Fraction(1)  # B-frames and interleaving reorder by less
MAX_AHEAD: Final = Fraction(10)
SNAP: Final = Fraction(1, 10)  # a first picture this late is shown from the start: encoders delay it against the sound
RESYNC: Final = Fraction(1, 50)  # sound whose stamps are this far from its sample count is placed anew
SOUND_AHEAD: Final = Fraction(1, 4)
_PACKETS_A_STEP: Final = 1024
_LOCAL_ERRORS: Final = (av.error.FFmpegError, OSError, ValueError)


class Batch(msgspec.Struct):
    """What one step gave: pictures as (start, stop, frame), sound as (first sample, frame), and what has ended."""

    pictures: list[tuple[Fraction, Fraction, VideoFrame]] = []
    sounds: list[tuple[int, AudioFrame]] = []
    pictures_end: bool = False
    sounds_end: bool = False


class MediaFile:
    """One opened file or URL. Every method blocks for at most one bounded step; call them from one thread at a time."""

    def __init__(self, guid: str, url: str, *, sound: AudioFormat, settings: Settings, threads: int = 1) -> None:
        """Opens and probes. Raises SourceUnavailable, SourceMalformed or SourceUnsupported, each within the deadline."""
        self.guid = guid
        self._settings = settings
        self._container = _open(guid, url, settings)
        try:
            self._choose_streams(sound, threads)
        except BaseException:
            self._container.close()
            raise

    def _choose_streams(self, sound: AudioFormat, threads: int) -> None:
        streams = self._container.streams
        self._video = streams.best("video")
        self._audio = streams.best("audio")
        if self._video is None and self._audio is None:
            raise SourceUnsupported(f'source "{self.guid}": no picture and no sound in it', where=self.guid)
        start = self._container.start_time
        self._zero = max(Fraction(0), Fraction(start, av.time_base)) if start is not None else Fraction(0)
        self._straighten = _Straighten() if av.format.Flags.ts_discont in self._container.format.flags else None
        self._interest: dict[av.stream.Stream, int | None] = {}
        self._waiting: dict[int, deque[av.Packet]] = {}
        self._waiting_bytes = 0
        self._at_end = False
        self._corrupt = 0
        self._picture = _PictureTrack(self.guid, self._video, threads) if self._video is not None else None
        self._sound = _SoundTrack(self._audio, sound) if self._audio is not None else None
        self._used = [stream for stream in (self._video, self._audio) if stream is not None]
        for stream in streams:
            if stream not in self._used:
                stream.discard = "all"
        self._packets = self._container.demux(self._used)

    @property
    def picture_size(self) -> PictureSize | None:
        """Size as displayed, None when there is no picture."""
        return None if self._picture is None else self._picture.size

    @property
    def has_sound(self) -> bool:
        """Whether there is sound."""
        return self._sound is not None

    @property
    def endless(self) -> bool:
        """A file has an end."""
        return False

    @property
    def corrupt(self) -> int:
        """Packets that a decoder refused so far."""
        return self._corrupt

    @property
    def duration(self) -> Fraction | None:
        """The picture's duration, or the sound's where there is no picture; None when the container does not say."""
        stream = self._video if self._video is not None else self._audio
        if stream is not None and stream.duration is not None and stream.time_base is not None:
            first = seconds(stream.start_time or 0, stream.time_base)
            return max(Fraction(0), first + seconds(stream.duration, stream.time_base) - self._zero)
        if self._container.duration is not None and self._container.duration > 0:
            return Fraction(self._container.duration, av.time_base)
        return None

    def step(self, *, pictures: int | None, sounds: bool | None, start: Fraction) -> Batch:
        """Decodes on until `pictures` frames are there and, if sounds, a quarter of a second of sound, or the end.

        0 or False means enough for now: packets of that kind wait. None means that nobody is interested: they are thrown
        away undecoded.
        start  media time; a picture that is over before it is decoded but neither converted nor returned.
        Raises SourceError when the container breaks.
        """
        batch = Batch([], [])
        self._interest = {stream: wish for stream, wish in ((self._video, pictures), (self._audio, sounds)) if stream}
        self._drop_unwanted()
        heard = 0
        for _ in range(_PACKETS_A_STEP):
            need_picture = self._picture is not None and not self._picture.ended and (pictures or 0) > len(batch.pictures)
            enough = self._sound is None or heard >= self._sound.rate * SOUND_AHEAD
            need_sound = self._sound is not None and bool(sounds) and not enough and not self._sound.ended
            if not need_picture and not need_sound:
                break
            packet = self._next(need_picture=need_picture, need_sound=need_sound)
            if packet is not None and packet.stream is self._video:
                self._decode_picture(packet, batch, start)
            elif packet is not None:
                heard += self._decode_sound(packet, batch)
            else:
                self._drain(batch, start)
                break
        batch.pictures_end = self._picture is None or self._picture.ended
        batch.sounds_end = self._sound is None or self._sound.ended
        return batch

    def seek(self, t: Fraction) -> None:
        """Goes to the keyframe at or before media time t. Raises SourceUnavailable when the source cannot go back."""
        offset = int((t + self._zero) * av.time_base)
        try:
            self._container.seek(max(0, offset), backward=True, any_frame=False)
        except _LOCAL_ERRORS as err:
            raise SourceUnavailable(f'source "{self.guid}": cannot seek to {float(t):.3f} s', where=self.guid) from err
        self._waiting.clear()
        self._waiting_bytes = 0
        self._at_end = False
        if self._picture is not None:
            self._picture.reset()
        if self._sound is not None:
            self._sound.reset()
        if self._straighten is not None:
            self._straighten = _Straighten()
        self._packets = self._container.demux(self._used)

    def close(self) -> None:
        """Closes the container; not while a step runs."""
        self._container.close()

    def _next(self, *, need_picture: bool, need_sound: bool) -> av.Packet | None:
        """The next packet of a kind that is needed; others wait. None at the end."""
        for stream, need in ((self._video, need_picture), (self._audio, need_sound)):
            if stream is not None and need and (waiting := self._waiting.get(stream.index)):
                packet = waiting.popleft()
                self._waiting_bytes -= packet.size
                return packet
        while not self._at_end:
            packet = self._demux()
            if packet is None:
                break
            if need_picture if packet.stream is self._video else need_sound:
                return packet
            if self._interest[packet.stream] is None:
                continue
            self._waiting.setdefault(packet.stream.index, deque()).append(packet)
            self._waiting_bytes += packet.size
            if self._waiting_bytes > MAX_WAITING_BYTES:
                limit = MAX_WAITING_BYTES >> 20
                raise SourceMalformed(
                    f'source "{self.guid}": picture and sound are more than {limit} MiB apart', where=self.guid
                )
        return None

    def _drop_unwanted(self) -> None:
        for stream, wish in self._interest.items():
            if wish is None and (waiting := self._waiting.pop(stream.index, None)):
                self._waiting_bytes -= sum(packet.size for packet in waiting)

    def _demux(self) -> av.Packet | None:
        try:
            for packet in self._packets:
                if packet.size == 0:  # the demuxer's own flush packet: the end
                    continue
                if self._straighten is not None:
                    self._straighten.apply(packet)
                return packet
        except _LOCAL_ERRORS as err:
            raise _broken(self.guid, self._position(), err) from err
        self._at_end = True
        return None

    def _position(self) -> Fraction:
        reached = [track.reached for track in (self._picture, self._sound) if track is not None]
        return max([Fraction(0), *reached])

    def _decode_picture(self, packet: av.Packet | None, batch: Batch, start: Fraction) -> None:
        assert self._picture is not None
        try:
            batch.pictures.extend(self._picture.decode(packet, zero=self._zero, start=start))
        except _LOCAL_ERRORS:
            self._corrupt += 1

    def _decode_sound(self, packet: av.Packet | None, batch: Batch) -> int:
        assert self._sound is not None
        try:
            blocks = self._sound.decode(packet, zero=self._zero)
        except _LOCAL_ERRORS:
            self._corrupt += 1
            return 0
        batch.sounds.extend(blocks)
        return sum(len(block) for _, block in blocks)

    def _drain(self, batch: Batch, start: Fraction) -> None:
        """At the end: what still waits in a decoder comes out, once nothing of its kind waits undecoded."""
        if self._picture is not None and not self._picture.ended and not self._has_waiting(self._video):
            self._decode_picture(None, batch, start)
        if self._sound is not None and not self._sound.ended and not self._has_waiting(self._audio):
            self._decode_sound(None, batch)

    def _has_waiting(self, stream: av.stream.Stream | None) -> bool:
        return stream is not None and bool(self._waiting.get(stream.index))


class _PictureTrack:
    """The picture of one file: decoder, converter and the last time stamp."""

    def __init__(self, guid: str, stream: av.VideoStream, threads: int) -> None:
        self._stream = stream
        self._context = _video_decoder(guid, stream)
        self._context.thread_type = "FRAME" if threads > 1 else "NONE"
        self._context.thread_count = threads
        aspect = stream.sample_aspect_ratio or Fraction(1)
        self._converter = PictureConverter(aspect)
        width, height = displayed_size(self._context.width, self._context.height, aspect)
        if width < 1 or height < 1:
            raise SourceMalformed(f'source "{guid}": a picture of {width}×{height} pixels', where=guid)
        see_through = self._context.pix_fmt is not None and has_alpha(av.VideoFormat(self._context.pix_fmt))
        self.size = PictureSize(width, height, opaque=not see_through)  # until a frame says otherwise: rotated, changed
        rate = stream.average_rate or stream.guessed_rate or Fraction(25)
        self._usual = 1 / Fraction(rate) if rate > 0 else Fraction(1, 25)
        self.reset()

    def reset(self) -> None:
        """Forgets everything decoded, after a seek."""
        if self._context.is_open:
            self._context.flush_buffers()
        self.ended = False
        self.reached = Fraction(0)
        self._first = True
        self._passed: tuple[Fraction, Fraction, av.VideoFrame] | None = None

    def decode(
        self, packet: av.Packet | None, *, zero: Fraction, start: Fraction
    ) -> list[tuple[Fraction, Fraction, VideoFrame]]:
        """Frames of one packet (None: the last ones), each with its media time [start, stop)."""
        if packet is None:
            self.ended = True
        out = []
        for frame in self._context.decode(packet):
            begin, stop = self._times(frame, zero)
            if stop <= start:
                self._passed = (begin, stop, frame)
                continue
            if self._passed is not None and begin > start:  # a gap: what is over is still on screen at `start`
                out.append(self._converted(*self._passed))
            self._passed = None
            out.append(self._converted(begin, stop, frame))
        return out

    def _converted(
        self, begin: Fraction, stop: Fraction, frame: av.VideoFrame
    ) -> tuple[Fraction, Fraction, VideoFrame]:
        picture = self._converter.convert(frame)
        self.size = PictureSize(picture.width, picture.height, picture.a is None)
        return begin, stop, picture

    def _times(self, frame: av.VideoFrame, zero: Fraction) -> tuple[Fraction, Fraction]:
        time_base = frame.time_base or self._stream.time_base
        if frame.pts is None or time_base is None:
            begin = self.reached
        else:
            begin = seconds(frame.pts, time_base) - zero
        length = seconds(frame.duration, time_base) if frame.duration and time_base else self._usual
        if self._first and 0 < begin < SNAP:
            length, begin = begin + length, Fraction(0)
        self._first = False
        self.reached = begin + length
        return begin, self.reached


class _SoundTrack:
    """The sound of one file: decoder, converter and the sample count."""

    def __init__(self, stream: av.AudioStream, wanted: AudioFormat) -> None:
        self._stream = stream
        self._context = stream.codec_context
        self._converter = SoundConverter(wanted)
        self.rate = wanted.rate
        self.reset()

    def reset(self) -> None:
        """Forgets everything decoded, after a seek."""
        if self._context.is_open:
            self._context.flush_buffers()
        self._converter.reset()
        self._next: int | None = None  # index of the next sample that comes out of the converter
        self.ended = False

    @property
    def reached(self) -> Fraction:
        """Media time decoded so far."""
        return Fraction(self._next or 0, self.rate)

    def decode(self, packet: av.Packet | None, *, zero: Fraction) -> list[tuple[int, AudioFrame]]:
        """Blocks of one packet (None: the last ones), each with the index of its first sample."""
        out: list[tuple[int, AudioFrame]] = []
        for frame in self._context.decode(packet):
            self._place(frame, zero, out)
            self._append(self._converter.convert(frame), out)
        if packet is None:
            self._append(self._converter.convert(None), out)
            self.ended = True
        return out

    def _place(self, frame: av.AudioFrame, zero: Fraction, out: list[tuple[int, AudioFrame]]) -> None:
        """Puts the count right by the stamp at the start and after a jump; small differences are only rounding."""
        time_base = frame.time_base or self._stream.time_base
        if frame.pts is None or time_base is None:
            self._next = self._next or 0
            return
        t = seconds(frame.pts, time_base) - zero
        if self._next is None:
            self._next = sample_at(t, self.rate)
            self._expected = t
        elif abs(t - self._expected) > RESYNC:
            self._append(self._converter.convert(None), out)
            self._next = sample_at(t, self.rate)
            self._expected = t
        self._expected += Fraction(frame.samples, frame.sample_rate)

    def _append(self, blocks: list[AudioFrame], out: list[tuple[int, AudioFrame]]) -> None:
        assert self._next is not None or not blocks
        for block in blocks:
            out.append((self._next or 0, block))
            self._next = (self._next or 0) + len(block)


class _Straighten:
    """Keeps packet times going on over the jumps of formats that may jump; one offset for all streams."""

    def __init__(self) -> None:
        self._offsets = [Fraction(0)]  # the present one, and the one before it
        self._last: Fraction | None = None

    def apply(self, packet: av.Packet) -> None:
        """Moves the packet's time stamps onto the straight line."""
        stamp = packet.dts if packet.dts is not None else packet.pts
        if stamp is None or packet.time_base is None:
            return
        t = seconds(stamp, packet.time_base)
        offset = self._offset(t)
        ticks = round(offset / packet.time_base)
        if ticks:
            if packet.dts is not None:
                packet.dts += ticks
            if packet.pts is not None:
                packet.pts += ticks
        self._last = max(self._last, t + offset) if self._last is not None else t + offset

    def _offset(self, t: Fraction) -> Fraction:
        if self._last is None:
            return self._offsets[0]
        for offset in self._offsets:
            if -MAX_BACK <= t + offset - self._last <= MAX_AHEAD:
                return offset
        self._offsets = [self._last - t, self._offsets[0]]
        return self._offsets[0]


def _open(guid: str, url: str, settings: Settings) -> InputContainer:
    if "://" not in url and not url.startswith("pipe:"):
        _check_file(guid, url)
    try:
        return av.open(url, "r", timeout=(settings.open_timeout, settings.read_timeout), metadata_errors="replace")
    except (av.error.InvalidDataError, av.error.EOFError, av.error.DemuxerNotFoundError) as err:
        raise SourceMalformed(f'source "{guid}": not media that can be read', where=guid) from err
    except av.error.ExitError as err:
        sentence = f'source "{guid}": no answer within {settings.open_timeout:g} s'
        raise SourceUnavailable(sentence, where=guid) from err
    except av.error.ProtocolNotFoundError as err:
        protocol = url.partition(":")[0][:20]
        raise SourceUnsupported(f'source "{guid}": no such protocol as {protocol}', where=guid) from err
    except _LOCAL_ERRORS as err:
        raise SourceUnavailable(f'source "{guid}": {_reason(err)}', where=guid) from err


def _check_file(guid: str, path: str) -> None:
    """libav's own words for these are unclear or late."""
    name = path.removeprefix("file:")
    try:
        with open(name, "rb") as file:
            size = os.fstat(file.fileno()).st_size
    except (OSError, ValueError) as err:
        raise SourceUnavailable(f'source "{guid}": {_reason(err)}', where=guid) from err
    if size == 0 and os.path.isfile(name):
        raise SourceMalformed(f'source "{guid}": the file is empty', where=guid)


def _broken(guid: str, at: Fraction, err: Exception) -> SourceError:
    if isinstance(err, av.error.ExitError):
        return SourceUnavailable(f'source "{guid}": nothing more came at {float(at):.3f} s', where=guid)
    return SourceMalformed(f'source "{guid}": breaks off at {float(at):.3f} s', where=guid)


def _reason(err: Exception) -> str:
    text = getattr(err, "strerror", None) or str(err) or type(err).__name__
    return text[:1].lower() + text[1:]


def _video_decoder(guid: str, stream: av.VideoStream) -> av.VideoCodecContext:
    context = stream.codec_context
    if context is None or context.codec is None:
        raise SourceUnsupported(f'source "{guid}": no decoder for its picture', where=guid)
    if context.name in ("vp8", "vp9") and stream.metadata.get("alpha_mode") == "1":
        # libav's own VP8/VP9 decoders leave the alpha side channel out; libvpx decodes it.
        codec = av.CodecContext.create(f"libvpx-{context.name}" if context.name == "vp9" else "libvpx", "r")
        codec.extradata = context.extradata
        codec.width, codec.height = context.width, context.height
        codec.pix_fmt = "yuva420p"
        return codec
    return context

