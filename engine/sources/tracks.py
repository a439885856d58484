"""The tracks of an opened container: packets of one kind → frames stamped with media time, in the working format.

They decide which time stamp is believed; they refuse to know where packets come from and in which order they are asked
for. Worker threads only.

Theory of operation
-------------------
* A picture starts where its stamp says, or where the one before it ended. A first picture that is a little late against
  the sound is on screen from the start: encoders delay it. In Matroska first pictures without a stamp are over by then:
  libav leaves out stamps that are before 0.
* MP4 says how long it is from one packet to the next in the order of decoding. So a picture that is decoded before a
  pause and shown behind it seems to last for as long as the pause. None lasts beyond where its stream is said to end.
* The aspect of pixels is what the container says, where it is not the codec's, and else the decoder's, which
  is that of the last picture decoded: it is taken where a keyframe comes out, for all up to the next one.
* Where packets only say when they are decoded (H.264 and HEVC in AVI, ASF, and as Matroska has what was made for AVI),
  the decoder knows the order: each picture takes the earliest time of those in the decoder (`Inside`). What was decoded
  after a keyframe is shown after all from before it, so that the times of pictures that never came out are forgotten
  there. MXF may be so, too, which only its packets tell (`lacks_order`).
* In a packed bitstream of MPEG-4 (DivX's and Xvid's in AVI) a packet has two pictures in it, and a later one none. What
  libav makes of the times of such packets is wrong; but the decoder gives one picture for each of them, so that a
  picture is on when the packet is decoded that brought it out (`Packed`).
* Sound is counted, not stamped: only the first block after the start or a seek is placed by its stamp, and one whose
  stamp is more than `RESYNC` away from the count, a gap or a jump. Every other difference is rounding.
* Where sound is placed anew by less than `DRIFTED`, what there was goes on as its own end backwards, and fades out,
  while what follows fades in: stamps that drift make no click. What overlaps is heard as it was first.
* Stamps of Matroska and FLV are whole milliseconds, so after a seek a block could be off by half of one. Blocks of one
  size lie on a grid: the block begins at the point of the grid that is nearest, where that is within the rounding. The
  grid is learnt from the first blocks of the file, which must be decoded before the first seek: they also use up the
  priming that an Opus decoder cuts off what it decodes first.
* A resampler starts where a sample of the file and one that comes out are of the same time, so that from wherever it
  starts it gives the same samples. From there to the first block it is given silence, which comes out before the block.
"""

from __future__ import annotations

import re
from fractions import Fraction
from heapq import heappop, heappush
from math import gcd
from typing import Any, Final, TypeAlias

import av
import numpy as np
from av.codec.context import Flags
from av.container import Container, InputContainer

from engine.errors import SourceMalformed, SourceUnsupported
from engine.frame import AudioFrame, Samples, VideoFrame
from engine.packet import Look
from engine.plan import PictureSize
from engine.rounding import rounded
from engine.sources.container import AvPacket, is_flv, settle_layout
from engine.sources.convert import PictureConverter, SoundConverter, displayed_size, has_alpha, silence
from engine.sources.png import SIGNATURE, with_palette
from engine.spec import MAX_SIDE, AudioFormat
from engine.timebase import seconds

MAX_PIXELS: Final = MAX_SIDE * MAX_SIDE  # of one picture; what a broken header asks for beyond is not allocated
MAX_BACK: Final = Fraction(1)  # B-frames and interleaving reorder by less
MAX_AHEAD: Final = Fraction(10)
SNAP: Final = Fraction(1, 10)  # a first picture this late is shown from the start
MIN_RATE, MAX_RATE = 1_000, 1_000_000  # of sound; a broken header's 1 Hz would make a few bytes into hours
# A film in HLS may be shorter than the sum of lengths that its playlist states by so many seconds, or by such a share:
# of segments of 9.6 s some say that they are 10; of those of 1.6 s all whose playlists state whole seconds, that they
# are 2, as was the rule before version 3 of the protocol.
_SHORTER: Final = Fraction(1)
_SHARE, _SHARE_OF_WHOLE = Fraction(1, 20), Fraction(1, 4)
_WHOLE: Final = Fraction(1, 100)  # a sum with less than that behind the point: libav takes a segment of 0 s for 1 ms
RESYNC: Final = 50  # sound whose stamp is 1/50 s away from its count is placed anew
DRIFTED: Final = 10  # 1/10 s; a longer gap is meant
FADE: Final = 200  # over 1/200 s, as sound that ends in a live mix
_TURN: Final = 8  # in the first eighth of that its end backwards begins as it would have gone on
_EASED: Final = {"skip_loop_filter": "bidir"}
_UNORDERED: Final = ("avi", "asf", "h264", "hevc")
_PACKED: Final = re.compile(rb"DivX\d+(b|Build)\d+p")  # user data of MPEG-4; decoders go by it, too
_AVFMT_TS_DISCONT: Final = 0x200  # libavformat/avformat.h
NEW_SETS: Final = "new_extradata"  # the side data in which libav names parameter sets that hold from a packet on
PALETTE: Final = "palette"  # the one in which AVI and MOV name the colours that hold from a packet on
ALPHA: Final = "matroska_block_additional"  # the one in which it gives what lies beside pictures of VP8 and VP9
Picture: TypeAlias = tuple[Fraction, Fraction, VideoFrame]


class PictureTrack:
    """The picture of one file: decoder, converter and the last time stamp.

    zero   the container's time that is media time 0.
    eased  B-frames are not deblocked: a tenth of the work, and at half size nobody sees it (50 dB and more).
    """

    def __init__(self, guid: str, stream: av.VideoStream, *, zero: Fraction, threads: int, eased: bool = False) -> None:
        self._time_base = stream.time_base or Fraction(1, av.time_base)
        self._zero = zero
        look = look_of(stream)
        self._context = stream.codec_context
        if look.see_through:
            own = self._context
            self._context = alpha_decoder(own.codec.canonical_name, own.extradata, (own.width, own.height))
        self._context.thread_type = "FRAME" if threads > 1 else "NONE"
        self._context.thread_count = threads
        self._context.options = {"max_pixels": str(MAX_PIXELS), **(_EASED if eased else {})}
        if self._context.name == "apng":  # what its file has before the pictures is here, without the signature
            self._context.extradata = with_palette(SIGNATURE + (self._context.extradata or b""))[len(SIGNATURE) :]
        self._look = look
        width, height = displayed_size(self._context.width, self._context.height, aspect_of(look, self._context))
        if width < 1 or height < 1:
            raise SourceMalformed(f'source "{guid}": a picture of {width}×{height} pixels', where=guid)
        check_sides(f'source "{guid}"', self._context, where=guid)
        self._made_for: Fraction | None = None  # the aspect of the converter
        see_through = self._context.pix_fmt is not None and has_alpha(av.VideoFormat(self._context.pix_fmt))
        self.size = PictureSize(width, height, opaque=not see_through)  # until a frame says otherwise: rotated, changed
        rate = stream.average_rate or stream.guessed_rate or Fraction(25)
        self._usual = 1 / Fraction(rate) if rate > 0 else Fraction(1, 25)
        self._late = seconds(stream.start_time or 0, self._time_base) - zero
        self._inside: Inside | Packed | None = None
        if is_unordered(stream):
            self._order()
        self._hides_early = hides_early(stream.container)
        self.reset()
        self._is_first = True  # what is decoded next is the first picture of all

    def _order(self) -> None:
        """From here on the decoder's order counts: times of packets are not those of their pictures."""
        self._inside = inside_of(self._context.name)
        self._context.flags |= Flags.output_corrupt  # what lacks pictures from before a seek takes its time along

    def reset(self) -> None:
        """Forgets everything decoded, after a seek."""
        if self._context.is_open:
            self._context.flush_buffers()
        if self._inside is not None:
            self._inside.clear()
        self.ended = self._is_first = False
        self.began: Fraction | None = None  # when the first picture since then is on
        self.reached = Fraction(0)
        self._aspect: Fraction | None = None  # of the last picture
        self._passed: tuple[Fraction, Fraction, av.VideoFrame, Fraction] | None = None
        # By the container's time: when what went into the decoder is shown, at the latest; and when what came out last
        # is, or, until something does, what went in, at the earliest.
        self._fed: Fraction | None = None
        self._out: Fraction | None = None
        self._is_out = False

    @property
    def inside(self) -> Fraction | None:
        """The media time before which nothing begins that is still in the decoder; None where nothing is."""
        if self._fed is None or self._out is None or (self._is_out and self._out >= self._fed):
            return None
        return self._out - self._zero

    def passed(self) -> list[Picture]:
        """The last picture that is over, where nothing has come after it."""
        passed, self._passed = self._passed, None
        return [] if passed is None else [self._converted(*passed)]

    def decode(self, packet: AvPacket | None, *, start: Fraction) -> list[Picture]:
        """Frames of one packet (None: the last ones), each with its media time [start, stop).

        start  what is over before it is not converted; the last of it is still returned where a gap or nothing follows.
        """
        self.ended = packet is None
        out = []
        if packet is not None:
            if self._inside is None and lacks_order(packet):
                self._order()
            self._feed(packet)
        for frame in pictures_of(self._context, packet, self._inside):
            if frame.pts is not None:
                self._out, self._is_out = seconds(frame.pts, self._time_base), True
            if self._inside is not None and self.began is None and frame.is_corrupt:
                continue  # it had its time
            begin, stop = self._times(frame)
            self.began = begin if self.began is None else self.began
            if frame.key_frame or self._aspect is None:
                self._aspect = aspect_of(self._look, self._context)
            if stop <= start:
                self._passed = (begin, stop, frame, self._aspect)
                continue
            if self._passed is not None and begin > start:
                out.append(self._converted(*self._passed))
            self._passed = None
            out.append(self._converted(begin, stop, frame, self._aspect))
        if self.ended:
            out.extend(self.passed())
        return out

    def _feed(self, packet: AvPacket) -> None:
        stamp = packet.dts if packet.pts is None or self._inside is not None else packet.pts
        if stamp is None:
            return
        fed = seconds(stamp, self._time_base)
        self._fed = fed if self._fed is None else max(self._fed, fed)
        if not self._is_out:
            self._out = fed if self._out is None else min(self._out, fed)

    def _converted(self, begin: Fraction, stop: Fraction, frame: av.VideoFrame, aspect: Fraction) -> Picture:
        if aspect != self._made_for:
            self._made_for, self._converter = aspect, PictureConverter(aspect, tags=self._look.tags)
        picture = self._converter.convert(frame)
        self.size = PictureSize(picture.width, picture.height, picture.a is None)
        return begin, stop, picture

    def _times(self, frame: av.VideoFrame) -> tuple[Fraction, Fraction]:
        stamp = frame.pts if frame.pts is not None else frame.dts
        length = seconds(frame.duration, self._time_base) if frame.duration else self._usual
        if stamp is None and self._is_first and self._hides_early:
            self._late = Fraction(0)
            return -length, Fraction(0)
        begin = self.reached if stamp is None else seconds(stamp, self._time_base) - self._zero
        self.reached = begin + length
        if self._is_first:  # some containers do not say when it begins, or say when its decoding does
            self._late, self._is_first = max(self._late, begin), False
        if 0 < begin <= self._late < SNAP:
            begin = Fraction(0)
        return begin, self.reached


class SoundTrack:
    """The sound of one file: decoder, converter and the sample count.

    zero  the container's time that is media time 0.
    """

    def __init__(self, stream: av.AudioStream, wanted: AudioFormat, *, zero: Fraction) -> None:
        self._context = stream.codec_context
        settle_layout(self._context)
        self._converter = SoundConverter(wanted)
        self._time_base = stream.time_base or Fraction(1, av.time_base)
        self._zero = zero
        self.rate = wanted.rate
        self._in_rate = 0
        self._size = 0  # of the last block
        self._grid: tuple[int, int] | None = None  # where a block began, and the size of it and of the one before
        self.reset()

    def reset(self) -> None:
        """Forgets everything decoded, after a seek."""
        if self._context.is_open:
            self._context.flush_buffers()
        self._converter.reset()
        self._position: int | None = None  # the next sample of the file, in its own rate from the container's time 0
        self._next = 0  # index of the next sample that comes out of the converter
        self._tail: Samples | None = None  # the last ones that came out
        self._joint: tuple[int, Samples, Samples] | None = None  # where sound fades in, from what, and the gains
        self.ended = False

    @property
    def reached(self) -> Fraction:
        """Media time decoded so far."""
        return Fraction(self._next, self.rate)

    @property
    def finds_places(self) -> bool:
        """Whether a block is placed to the sample after a seek: its stamps are as fine, or the grid is known."""
        return self._grid is not None or self._time_base * self._context.sample_rate <= 1

    def decode(self, packet: AvPacket | None) -> list[tuple[int, AudioFrame]]:
        """Blocks of one packet (None: the last ones), each with the index of its first sample."""
        self.ended = packet is None
        out: list[tuple[int, AudioFrame]] = []
        for frame in self._context.decode(packet):
            self._place(frame, out)
            self._append(self._converter.convert(frame), out)
        if packet is None:
            self._append(self._converter.convert(None), out)
        return out

    def _place(self, frame: av.AudioFrame, out: list[tuple[int, AudioFrame]]) -> None:
        """Puts the counts right before a block is converted. Raises ValueError: a rate beyond belief."""
        rate, count, stamp = frame.sample_rate, frame.samples, frame.pts
        if not MIN_RATE <= rate <= MAX_RATE:
            raise ValueError(f"sound at {rate} Hz")
        if rate != self._in_rate:
            self._position = None if self._position is None else self._position * rate // self._in_rate
            self._in_rate, self._size, self._grid = rate, 0, None
        if stamp is not None:
            at = rounded(stamp * self._time_base.numerator * rate, self._time_base.denominator)
        else:
            at = round(self._zero * rate) if self._position is None else self._position
        if self._position is None or abs(at - self._position) * RESYNC > rate:
            self._append(self._converter.convert(None), out)
            self._position = self._on_grid(at)
            inside = self._position - rounded(self._zero.numerator * rate, self._zero.denominator)
            lead = inside % (rate // gcd(rate, self.rate))
            begin = (inside - lead) * self.rate // rate
            self._join(begin, -(-inside * self.rate // rate) - begin, out)
            self._next = begin
            if lead:
                self._append(self._converter.convert(silence(frame, lead)), out)
        if self._grid is None and count == self._size:
            self._grid = self._position, count
        self._size = count
        self._position += count

    def _on_grid(self, at: int) -> int:
        if self._grid is None:
            return at
        origin, size = self._grid
        near = origin + rounded(at - origin, size) * size
        return near if abs(near - at) <= self._in_rate * self._time_base else at

    def _join(self, begin: int, lead: int, out: list[tuple[int, AudioFrame]]) -> None:
        """Lets what there was fade out, and what comes from `begin` on fade in, behind so many samples of nothing."""
        if self._tail is None or abs(begin + lead - self._next) * DRIFTED > self.rate:
            return
        beyond = self._tail[:, -2::-1].copy()
        turned = np.cos(np.linspace(0, np.pi / 2, beyond.shape[1] // _TURN + 2)[1:-1]).astype(np.float32) ** 2
        beyond[:, : len(turned)] += 2 * turned * (self._tail[:, -1:] - beyond[:, : len(turned)])
        rise = np.square(np.sin(np.linspace(0, np.pi / 2, beyond.shape[1] + 2)[1:-1])).astype(np.float32)
        if begin + lead <= self._next:
            self._joint = self._next, beyond, rise
            return
        out.append((self._next, AudioFrame(beyond * (1 - rise))))
        rise = np.pad(rise, (lead, 0))  # a resampler begins to sound a little early
        self._joint = begin, np.zeros((len(beyond), len(rise)), np.float32), rise

    def _append(self, blocks: list[AudioFrame], out: list[tuple[int, AudioFrame]]) -> None:
        count = self.rate // FADE + 1
        for block in blocks:
            out.append((self._next, self._joined(block)))
            self._next += len(block)
            tail = AudioFrame(block.raw[:, -count:]).samples
            if self._tail is not None and len(block) < count and len(tail) == len(self._tail):
                tail = np.concatenate((self._tail, tail), axis=1)[:, -count:]
            self._tail = tail

    def _joined(self, block: AudioFrame) -> AudioFrame:
        """The block, faded in where the joint is in it."""
        if self._joint is None or self._next + len(block) <= self._joint[0]:
            return block
        at, before, rise = self._joint
        first, stop = max(at, self._next), min(at + len(rise), self._next + len(block))
        if first >= stop or len(before) != block.channels:
            self._joint = None
            return block
        here, there = slice(first - self._next, stop - self._next), slice(first - at, stop - at)
        samples = block.samples.copy()
        samples[:, here] = samples[:, here] * rise[there] + before[:, there] * (1 - rise[there])
        return AudioFrame(samples)


class Straightener:
    """Keeps packet times going on over the jumps of formats whose time may jump: MPEG-TS, FLV.

    A stream that jumps back by more than `MAX_BACK` or ahead by more than `MAX_AHEAD` gives all streams a new offset,
    so that time goes on where it was; packets of the others that still belong to the old time keep the old offset.
    The first packet of a stream may be `MAX_AHEAD` behind the others: libav gives a picture of MPEG-TS when the next
    one comes, and keeps some to learn their format. Ahead means ahead of all streams: one that was silent, in a part
    without sound, comes back where the others are. If it jumps back to more than `MAX_AHEAD` behind them, it is the
    first of another part.

    A part with a clock of its own, an advertisement, may stand between two of a programme. Where the clock then goes on
    as it was left, it has jumped, though ahead of the part's by less than `MAX_AHEAD`: there is no hole.

    Of a PID that falls silent, libav gives the last picture only when the PID speaks again: by then another part has
    been and gone under other PIDs. It lies before what came of its stream in the file, and is left out.

    Of fragmented MP4 libav marks what comes behind a jump back as not to be shown; here nothing else has that mark.
    """

    def __init__(self) -> None:
        self._offsets = [Fraction(0)]  # the present one, and the one before it
        self._came: dict[int, Fraction] = {}  # each stream's last packet, by the container's own time …
        self._ends: dict[int, Fraction] = {}  # … and its end on the straight line
        self._places: dict[int, int] = {}  # where it lies in the file, in bytes
        self._left: dict[int, Fraction] = {}  # where each stream was when time jumped, by the container's own time

    @property
    def jumped(self) -> bool:
        """Whether time is no longer the container's own."""
        return len(self._offsets) > 1

    @property
    def end(self) -> Fraction | None:
        """Where the last packets end; None = there was none."""
        return max(self._ends.values(), default=None)

    def begin_file(self) -> None:
        """Goes on with another file: places in the one before say nothing of those in it."""
        self._places.clear()

    def apply(self, packet: AvPacket) -> AvPacket | None:
        """The packet, its time stamps moved onto the straight line; None: it is one of a part that is over."""
        if self._is_left_over(packet):
            return None
        if packet.is_discard:
            packet = _unmarked(packet)
        stamp = packet.dts if packet.dts is not None else packet.pts
        time_base = packet.time_base
        if stamp is None or not time_base:
            return packet
        t = seconds(stamp, time_base)
        offset = self._offset(t, packet.stream_index)
        if offset:
            ticks = round(offset / time_base)
            packet.dts = None if packet.dts is None else packet.dts + ticks
            packet.pts = None if packet.pts is None else packet.pts + ticks
        self._came[packet.stream_index] = t
        self._ends[packet.stream_index] = t + offset + (packet.duration or 0) * time_base
        return packet

    def _is_left_over(self, packet: AvPacket) -> bool:
        """Whether it lies before the last one of its stream and does not follow it in time; else notes its place."""
        index, place, stamp = packet.stream_index, packet.pos, packet.dts
        if place is None:
            return False
        if place < self._places.get(index, 0) and stamp is not None and index in self._came:
            return not 0 <= seconds(stamp, packet.time_base) - self._came[index] <= MAX_BACK
        self._places[index] = place
        return False

    def _offset(self, t: Fraction, index: int) -> Fraction:
        if not self._ends:
            return self._offsets[0]
        newest = max(self._ends.values())
        least = newest - MAX_AHEAD
        if index in self._ends:
            own = self._ends[index] - MAX_BACK
            least = own if t >= self._came[index] - MAX_BACK else max(own, least)
        goes_on = index in self._left and abs(t - self._left[index]) < MAX_BACK
        most = newest + (MAX_BACK if goes_on else MAX_AHEAD)
        for offset in self._offsets:
            if least <= t + offset <= most:
                return offset
        self._left = dict(self._came)
        self._offsets = [newest - t, self._offsets[0]]
        return self._offsets[0]


def _unmarked(packet: AvPacket) -> AvPacket:
    """A copy that a decoder shows."""
    copy: AvPacket = av.Packet(packet.size)  # one over the bytes themselves would lack what decoders read behind them
    copy.update(bytes(packet))
    copy.stream, copy.time_base, copy.is_keyframe = packet.stream, packet.time_base, packet.is_keyframe
    copy.pts, copy.dts, copy.duration = packet.pts, packet.dts, packet.duration
    for each in packet.iter_sidedata():
        copy.set_sidedata(each)
    return copy


def check_sides(name: str, picture: av.VideoFrame | av.VideoCodecContext, *, where: str) -> None:
    """Raises SourceUnsupported where a picture is larger than what is mixed; `name` begins the sentence."""
    if max(picture.width, picture.height) > MAX_SIDE:
        sentence = f"{name}: {picture.width}×{picture.height}, more than {MAX_SIDE} pixels on a side"
        raise SourceUnsupported(sentence, where=where)


class Inside:
    """Times of the packets in a decoder that alone knows their order: each picture gets the earliest.

    A picture that was lost leaves its time to others, until one comes out that was decoded after a later keyframe: what
    is shown before that one is over by then.
    """

    def __init__(self) -> None:
        self._times: list[int] = []  # dts, a heap
        self._keys: list[int] = []  # dts of the keyframes behind which nothing has come out yet
        self._end: int | None = None  # of the last packet

    def push(self, packet: AvPacket) -> None:
        """A packet goes into the decoder."""
        if packet.dts is None:
            packet.dts = self._end  # libav says none of the second one behind a seek in ASF
        packet.pts = packet.dts  # which its picture comes out with
        if packet.dts is not None:
            self._end = packet.dts + (packet.duration or 0)
            heappush(self._times, packet.dts)
            if packet.is_keyframe:
                self._keys.append(packet.dts)

    def time(self, frame: av.VideoFrame) -> None:
        """Gives a picture that came out its time."""
        own = frame.pts
        while own is not None and self._keys and self._keys[0] <= own:
            key = self._keys.pop(0)
            while self._times and self._times[0] < key:
                heappop(self._times)
        frame.pts = heappop(self._times) if self._times else own

    def clear(self) -> None:
        """Nothing is in the decoder any more."""
        self._times.clear()
        self._keys.clear()
        self._end = None


class Packed:
    """Times of the pictures of a packed bitstream: each is on when the packet is decoded that brings it out."""

    def __init__(self) -> None:
        self._end: int | None = None  # of the last packet, where that is known

    def push(self, packet: AvPacket) -> None:
        """A packet goes into the decoder."""
        self._end = packet.dts + packet.duration if packet.dts is not None and packet.duration else None

    def time(self, frame: av.VideoFrame) -> None:
        """Gives a picture that came out its time; the last one of all comes without a packet."""
        frame.pts = self._end if frame.dts is None else frame.dts

    def clear(self) -> None:
        """Nothing is in the decoder any more."""
        self._end = None


def inside_of(codec: str) -> Inside | Packed:
    """What knows the times of pictures whose packets do not, for a codec of which there are such."""
    return Packed() if codec == "mpeg4" else Inside()


def pictures_of(
    context: av.VideoCodecContext, packet: AvPacket | None, inside: Inside | Packed | None = None
) -> list[av.VideoFrame]:
    """The pictures of one packet (None: the last ones). Raises what libav raises; ValueError: one has too long a side.

    They may change in mid-stream, and the options of a decoder only know of `MAX_PIXELS`.

    inside  where pictures get their pts from, if the container has none.
    """
    if packet is not None and inside is not None:
        inside.push(packet)
    frames = context.decode(packet)
    if inside is not None:
        for frame in frames:
            inside.time(frame)
    if any(max(frame.width, frame.height) > MAX_SIDE for frame in frames):
        raise ValueError(f"a picture of more than {MAX_SIDE} pixels on a side")
    return frames


def end_with_stream(packet: AvPacket) -> None:
    """Cuts a picture of an MP4 short where its stream is said to end while it is shown."""
    stream = packet.stream
    if stream.type != "video" or stream.duration is None or not stream.container.format.name.startswith("mov"):
        return
    end = (stream.start_time or 0) + stream.duration
    if packet.pts is not None and packet.pts < end < packet.pts + (packet.duration or 0):
        packet.duration = end - packet.pts


def is_unordered(stream: Any) -> bool:
    """Whether its container has no presentation times and libav does not make up for that.

    It does for MPEG-4, but not in a packed bitstream.
    """
    if is_packed(stream):
        return True
    return _is_reordered(stream) and (stream.container.format.name in _UNORDERED or _was_made_for_avi(stream))


def lacks_order(packet: AvPacket) -> bool:
    """Whether it is a keyframe of an MXF that is shown when it is decoded: where its index has times, it is later."""
    stream = packet.stream
    is_mxf = packet.is_keyframe and stream.container.format.name == "mxf"
    return is_mxf and packet.pts == packet.dts and _is_reordered(stream)


def _is_reordered(stream: Any) -> bool:
    context = stream.codec_context
    return context.name in ("h264", "hevc") and bool(context.has_b_frames)


def _was_made_for_avi(stream: Any) -> bool:
    """Whether it is in Matroska under AVI's name of its codec (V_MS/VFW/FOURCC): libav has no such name for others."""
    is_matroska: bool = stream.container.format.name.startswith("matroska")
    return is_matroska and stream.codec_context.codec_tag != "\0\0\0\0"


def is_packed(stream: Any) -> bool:
    """Whether it is a packed bitstream of MPEG-4."""
    context = stream.codec_context
    return context.name == "mpeg4" and _PACKED.search(context.extradata or b"") is not None


def may_jump(container: InputContainer) -> bool:
    """Whether the time of its format may jump, since its clock wraps: MPEG-TS, HLS, FLV."""
    return bool(container.format.flags & _AVFMT_TS_DISCONT) or is_flv(container)


def hides_early(container: Container) -> bool:
    """Whether first pictures without a stamp are over when it begins: those of Matroska that are before 0."""
    return container.format.name.startswith("matroska")


def zero_of(container: InputContainer) -> Fraction:
    """The container's time that is media time 0: its start; where that is below 0, only if it is a clock's.

    libav gives stamps below 0 to what comes in the last minute before a wrap. In other formats they are priming.
    """
    start = Fraction(container.start_time or 0, av.time_base)
    return start if may_jump(container) else max(Fraction(0), start)


def falls_short(container: InputContainer, straightener: Straightener | None) -> bool:
    """Whether a film in HLS, read from its start, has ended clearly before the length that its playlist states.

    Of a silent one nobody can tell: its last picture may last. Nor where its time jumped: holes are closed then.
    """
    is_told = container.format.name == "hls" and container.streams.audio and container.duration
    if not is_told or straightener is None or straightener.jumped or straightener.end is None:
        return False
    stated = Fraction(container.duration or 0, av.time_base)
    share = _SHARE_OF_WHOLE if stated % 1 < _WHOLE else _SHARE
    return stated - (straightener.end - zero_of(container)) > max(_SHORTER, share * stated)


def look_of(stream: av.VideoStream) -> Look:
    """How a stream's pictures are to be shown; their orientation is theirs to say, once they are decoded by it.

    Its aspect is None where the container and the codec agree: then it is the codec's to say, and may change.
    """
    context = stream.codec_context
    said, own = stream.sample_aspect_ratio or None, context.sample_aspect_ratio
    return Look(
        aspect=None if (said or 1) == (own or 1) else said,
        tags=(int(context.colorspace), int(context.color_range)),
        see_through=context.name in ("vp8", "vp9") and stream.metadata.get("alpha_mode") == "1",
    )


def aspect_of(look: Look, context: av.VideoCodecContext) -> Fraction:
    """The aspect of a pixel from the keyframe on that a decoder has just given, or will give first."""
    return look.aspect or context.sample_aspect_ratio or Fraction(1)


def alpha_decoder(codec: str, extradata: bytes | None, size: tuple[int, int]) -> av.VideoCodecContext:
    """A decoder of VP8 or VP9 with alpha: libvpx. libav's own leave out what lies beside the pictures."""
    context = av.CodecContext.create("libvpx-vp9" if codec == "vp9" else "libvpx", "r")
    context.extradata = extradata
    context.width, context.height = size
    context.pix_fmt = "yuva420p"
    return context
