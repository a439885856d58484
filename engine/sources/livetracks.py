"""The two kinds of a live stream: packets that carry their server time → frames in the working format with theirs.

They decide what of a damaged stream is shown and where sound lies; they refuse to know where server time comes from and
who wants the frames. Worker threads only, one call at a time.

Theory of operation
-------------------
* A packet goes into its decoder with its server time in ns as its pts, so a frame comes out with its own.
* A picture is converted only when it may be seen: not when the next one replaces it before the time that somebody looks
  at, or at once. So joining in the middle of a GOP costs the decoding of it, and one conversion.
* After a jump in time, a new configuration and a damaged picture nothing is shown up to the next keyframe: the last
  picture holds, nobody sees green or torn ones.
* Where time stamps do not say in which order pictures are shown, the decoder's order does: each picture that comes out
  takes the earliest time of those that have gone in, or in a packed bitstream of MPEG-4 that of the packet that brought
  it out. None is left out then: nobody could tell whose time it had.
* **Sound is counted.** Blocks follow each other without holes; the stamps say where the count should be. The difference
  is averaged, since stamps are whole milliseconds or worse. Within `DEAD_BAND` nothing happens; beyond, blocks are
  stretched or squeezed by at most `BEND` until the count is right, short ones by a sample now and then; beyond
  `RESYNC`, and after anything that breaks the flow, the sound is placed anew, at least one sample behind what there
  was: that hole tells everybody to fade.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Sequence
from enum import Enum
from fractions import Fraction
from typing import Final, NamedTuple, TypeAlias

import av
import numpy as np

from engine.frame import AudioFrame, Samples, VideoFrame
from engine.packet import Look, Packet, Track
from engine.plan import PictureSize
from engine.sources.container import LIBAV_ERRORS
from engine.sources.convert import PictureConverter, SoundConverter
from engine.sources.fader import BACK
from engine.sources.tracks import (
    ALPHA,
    MAX_PIXELS,
    MAX_RATE,
    MIN_RATE,
    Inside,
    Packed,
    alpha_decoder,
    aspect_of,
    inside_of,
    pictures_of,
)
from engine.spec import AudioFormat
from engine.stream import END, End
from engine.timebase import SECOND

log = logging.getLogger(__name__)

USUAL: Final = SECOND // 25  # how long a picture lasts before there is a second one
DEAD_BAND: Final = Fraction(2, 1000)
RESYNC: Final = Fraction(36, 1000)  # less than what `Sync` moves at once, so that sound comes along with the picture
HOPELESS: Final = 100  # packets without a frame: libvpx, frame threads and B-frames hold back fewer
BEND: Final = 200  # one sample in 200: 0.5 %
SHORTEST: Final = 8  # samples that a block must have to be one longer or shorter
MEAN: Final = 16  # blocks that a difference is averaged over: a third of a second of AAC
_DECODERS: Final = {"av1": "libdav1d"}  # libav's own needs hardware
_NS: Final = Fraction(1, SECOND)


class Stamped(NamedTuple):
    """A packet, the server time at which it is on in ns, and whether a new line of time stamps begins with it."""

    packet: Packet
    time: int
    began: bool


Item: TypeAlias = Stamped | End
Shown: TypeAlias = tuple[int, int, VideoFrame]  # on screen within [start, stop) ns of server time
Sounds: TypeAlias = list[tuple[int, AudioFrame]]  # index of the first sample, counted from server time 0


class _Decoded(NamedTuple):
    start: int
    stop: int
    frame: av.VideoFrame
    look: Look
    aspect: Fraction  # of a pixel


class Care(Enum):
    """How well pictures are decoded."""

    FULL = "exactly"
    SMALL = "shown at half its size or less: pictures between others stay unsmoothed, which saves a tenth"
    TINY = "shown at a third of its size or less: all but keyframes stay unsmoothed, which saves a sixth"
    HURRY = "late: those that no other refers to are left out, until it has caught up"


_UNSMOOTHED: Final = {Care.SMALL: "bidir", Care.TINY: "nokey"}  # at those sizes 50 dB from exact, and 43 at worst


class _Hope:
    """Whether anything comes out of the decoder of a track; says it once where nothing does."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._track: Track | None = None
        self._vain = 0  # packets from which nothing has come

    def count(self, track: Track, frames: int) -> None:
        """Notes a packet, and how many frames came with it."""
        if track is not self._track:
            self._track, self._vain = track, 0
        if frames:
            self._vain = HOPELESS + 1
        self._vain += self._vain <= HOPELESS
        if self._vain == HOPELESS:
            log.warning('source "%s": nothing of its %s in %s can be decoded', self._name, track.kind, track.codec)


class LivePicture:
    """Decodes the pictures of one stream."""

    def __init__(self, name: str) -> None:
        self.corrupt = 0  # packets refused and pictures damaged
        self.late = 0  # pictures that were over before they could be given
        self.expected = 0  # server time from which on that counts, in ns
        self.size: PictureSize | None = None  # of the last picture
        self._name = name
        self._track: Track | None = None
        self._context: av.VideoCodecContext | None = None  # None beside a track: there is no decoder for it
        self._aspect: Fraction | None = None  # of the last picture decoded
        self._made_for: tuple[Look, Fraction] | None = None  # what the converter was
        self._waiting: _Decoded | None = None  # decoded, not converted
        self._inside: Inside | Packed | None = None  # where the track is unordered
        self._hope = _Hope(name)
        self._needs_keyframe = True
        self._care = Care.FULL  # that the decoder was made for
        self._last_start: int | None = None
        self._lengths: deque[int] = deque(maxlen=2)  # how long the last two pictures were on, ns

    @property
    def is_open(self) -> bool:
        """Whether there is a decoder."""
        return self._context is not None

    @property
    def usual(self) -> int:
        """How long a picture lasts, ns."""
        return self._lengths[-1] if self._lengths else USUAL

    def decode(self, items: Sequence[Item], *, wanted: int, more: bool = False, care: Care = Care.FULL) -> list[Shown]:
        """The pictures of some packets that may be on at `wanted` ns of server time or later.

        more  whether others follow at once: the last picture waits, until it is known when it is over.
        """
        shown: list[Shown] = []
        came: list[int] = []
        for item in items:
            frames = self._frames(item, care)
            if item is not END and self._context is not None:
                self._hope.count(item.packet.track, len(frames))
            came += [decoded.start for decoded in frames]
            for decoded in frames:
                self._pass(decoded, shown, wanted)
        if care is Care.HURRY:
            self.late += self._expects(item.time for item in items if item is not END)
            self.late -= self._expects(came)  # evens out where pictures are reordered
        if not more:
            self._pass(None, shown, wanted)
        return shown

    def _pass(self, following: _Decoded | None, shown: list[Shown], wanted: int) -> None:
        waiting, self._waiting = self._waiting, following
        if waiting is None:
            return
        if following is None or (following.start > wanted and following.start != waiting.start):
            shown.append(self._converted(waiting))
        else:
            self.count_late([waiting.start])

    def count_late(self, times: Iterable[int]) -> None:
        """Counts pictures of those times that were over before they could be given."""
        self.late += self._expects(times)

    def _expects(self, times: Iterable[int]) -> int:
        """How many pictures of those times anybody waited for."""
        return sum(time >= self.expected for time in times)

    def close(self) -> None:
        """Lets the decoder go; the next picture must be a keyframe."""
        self._track = self._context = self._waiting = None

    def _frames(self, item: Item, care: Care) -> list[_Decoded]:
        """The undamaged ones among the frames that a packet brings out of the decoder."""
        frames: list[_Decoded] = []
        if item is END:
            frames += self._decode(None)
            self._track = self._context = None
            return frames
        packet = item.packet
        resized = packet.keyframe and care not in (Care.HURRY, self._care)
        if item.began or packet.track is not self._track or resized:
            frames += self._decode(None)
            self._open(packet.track, self._care if care is Care.HURRY else care)
        if self._context is not None:
            skips = care is Care.HURRY and not packet.track.unordered
            self._context.skip_frame = "NONREF" if skips else "DEFAULT"
        if self._needs_keyframe and not packet.keyframe:
            return frames
        self._needs_keyframe = False
        return frames + self._decode(_coded(item))

    def _decode(self, packet: av.Packet[av.stream.Stream] | None) -> list[_Decoded]:
        context = self._context
        if context is None or (packet is None and not context.is_open):
            return []
        decoded: list[_Decoded] = []
        try:
            frames = pictures_of(context, packet, self._inside)
        except LIBAV_ERRORS:
            self._damaged()
            return []
        for frame in frames:
            if frame.is_corrupt:
                self._damaged()
                break
            look = Look() if self._track is None else self._track.look
            if frame.key_frame or self._aspect is None:
                self._aspect = aspect_of(look, context)
            decoded.append(self._timed(frame, look, self._aspect))
        return decoded

    def _damaged(self) -> None:
        self.corrupt += 1
        self._needs_keyframe = True
        if self._inside is not None:
            self._inside.clear()
        if self._context is not None and self._context.is_open:
            self._context.flush_buffers()  # what waits in it may be damaged too

    def _open(self, track: Track, care: Care) -> None:
        self._track, self._context, self._care, self._aspect = track, None, care, None
        self._needs_keyframe, self._last_start = True, None
        self._lengths.clear()
        self._inside = inside_of(track.codec) if track.unordered else None
        try:
            context = _picture_decoder(track)
        except LIBAV_ERRORS:
            context = None
        if not isinstance(context, av.VideoCodecContext):
            log.warning('source "%s": no decoder for its picture, %s', self._name, track.codec)
            return
        context.thread_type, context.thread_count = "NONE", 1
        context.options = {"max_pixels": str(MAX_PIXELS), "skip_loop_filter": _UNSMOOTHED.get(care, "default")}
        if track.extradata:
            context.extradata = track.extradata
        if track.width and track.height:
            context.width, context.height = track.width, track.height
        self._context = context

    def _timed(self, frame: av.VideoFrame, look: Look, aspect: Fraction) -> _Decoded:
        start = frame.pts
        if start is None:
            start = 0 if self._last_start is None else self._last_start + self.usual
        if self._last_start is not None and start > self._last_start:
            self._lengths.append(start - self._last_start)
        self._last_start = start
        length = max(self._lengths, default=USUAL)  # of films at 24/s, long and short ones in turn
        stop = start + length - min(length, USUAL) // 16  # rounded stamps: at the next one's time it is over
        return _Decoded(start, stop, frame, look, aspect)

    def _converted(self, decoded: _Decoded) -> Shown:
        look, aspect = decoded.look, decoded.aspect
        if (look, aspect) != self._made_for:
            self._made_for, self._converter = (look, aspect), PictureConverter(aspect, tags=look.tags)
        picture = self._converter.convert(decoded.frame, look.orientation)
        self.size = PictureSize(picture.width, picture.height, picture.a is None)
        return decoded.start, decoded.stop, picture


class LiveSound:
    """Decodes the sound of one stream, for any number of formats."""

    def __init__(self, name: str) -> None:
        self.corrupt = 0  # packets refused
        self._name = name
        self._track: Track | None = None
        self._context: av.AudioCodecContext | None = None
        self._voices: dict[AudioFormat, _Voice] = {}
        self._hope = _Hope(name)

    @property
    def is_open(self) -> bool:
        """Whether there is a decoder."""
        return self._context is not None

    def decode(self, items: Iterable[Item], formats: Sequence[AudioFormat]) -> dict[AudioFormat, Sounds]:
        """The sound of some packets, in each format."""
        self._voices = {wanted: self._voices.get(wanted) or _Voice(wanted) for wanted in formats}
        out: dict[AudioFormat, Sounds] = {wanted: [] for wanted in formats}
        for item in items:
            for frame in self._frames(item):
                time = frame.pts
                for wanted, voice in self._voices.items():
                    try:
                        out[wanted] += voice.add(frame, time)
                    except LIBAV_ERRORS:  # so many channels that nobody knows what they are
                        self.corrupt += 1
                        voice.broken = True
            if item is END:
                for wanted, voice in self._voices.items():
                    out[wanted] += voice.interrupt()
        return out

    def close(self) -> None:
        """Lets the decoder go; what comes next is a new beginning."""
        self._track = self._context = None
        self._voices.clear()

    def _frames(self, item: Item) -> list[av.AudioFrame]:
        if item is END:
            self._track = self._context = None
            return []
        packet = item.packet
        if item.began or packet.track is not self._track:
            self._open(packet.track)
        if self._context is None:
            return []
        try:
            frames = self._context.decode(_coded(item))
            if any(not MIN_RATE <= frame.sample_rate <= MAX_RATE for frame in frames):
                raise ValueError("a sample rate beyond belief")
        except LIBAV_ERRORS:
            self.corrupt += 1
            self._break()
            frames = []
        self._hope.count(packet.track, len(frames))
        return frames

    def _break(self) -> None:
        for voice in self._voices.values():
            voice.broken = True

    def _open(self, track: Track) -> None:
        self._track, self._context = track, None
        self._break()
        try:
            context = av.CodecContext.create(track.codec, "r")
        except LIBAV_ERRORS:
            context = None
        if not isinstance(context, av.AudioCodecContext):
            log.warning('source "%s": no decoder for its sound, %s', self._name, track.codec)
            return
        extradata = track.extradata
        if track.codec == "opus":
            # Its pre-skip (RFC 7845 5.1) would be cut off whatever is decoded first, which then lies too early.
            extradata = extradata[:10] + bytes(2) + extradata[12:]
        if track.extradata:
            context.extradata = extradata
        if track.rate and track.channels:
            context.sample_rate = track.rate
            context.layout = track.layout or f"{track.channels} channels"  # which are the usual ones when converted
        size, bits = track.block
        context.options = {"block_align": str(size), "bits_per_coded_sample": str(bits)} if size else {}
        self._context = context


class _Voice:
    """The sound of a stream in one format: converted, counted, placed."""

    def __init__(self, wanted: AudioFormat) -> None:
        self.broken = True  # the next block is placed by its stamp
        self._rate = wanted.rate
        self._dead_band = int(DEAD_BAND * wanted.rate)
        self._resync = int(RESYNC * wanted.rate)
        self._converter = SoundConverter(wanted)
        self._in_rate = 0
        self._origin = self._fed = 0  # the count: a sample index, and samples given to the converter since
        self._next: int | None = None  # index of the next sample that comes out
        self._skip = 0  # samples to drop, which would lie on earlier ones
        self._off = 0.0  # by how many samples the count should be more, averaged
        self._bending = False
        self._unbent = 0  # samples while bending that were too few to be one more or less

    def add(self, frame: av.AudioFrame, time: int | None) -> Sounds:
        """Blocks that a decoded frame gives, with the index of their first sample."""
        rate, count = frame.sample_rate, frame.samples
        counted = self._origin if not self._in_rate else self._origin + self._fed * self._rate // self._in_rate
        if rate != self._in_rate:
            self._origin, self._fed, self._in_rate = counted, 0, rate
        stated = counted if time is None else time * self._rate // SECOND
        out: Sounds = []
        if self.broken or abs(stated - counted) > self._resync:
            out = self.interrupt()
            self._place(stated)
        else:
            self._off += (stated - counted - self._off) / MEAN
        self._fed += count
        return self._append(self._converter.convert(frame), out)

    def interrupt(self) -> Sounds:
        """The last samples of what there was; the next block is placed by its stamp."""
        self.broken = True
        return self._append(self._converter.convert(None), [])

    def _place(self, at: int) -> None:
        goes_back = self._next is not None and at < self._next - int(BACK * self._rate)  # what it gave is withdrawn
        first = at if self._next is None or goes_back else max(at, self._next + 1)
        self._skip = first - at
        self._origin, self._fed, self._next = at, 0, first
        self._off, self._bending, self.broken = 0.0, False, False

    def _append(self, blocks: list[AudioFrame], out: Sounds) -> Sounds:
        for block in blocks:
            block = self._bent(block)
            if self._skip:
                cut = min(self._skip, len(block))
                self._skip -= cut
                block = AudioFrame(block.samples[:, cut:])
            if len(block) and self._next is not None:
                out.append((self._next, block))
                self._next += len(block)
        return out

    def _bent(self, block: AudioFrame) -> AudioFrame:
        """The block, longer or shorter by what the count is off, but by no more than nobody hears."""
        if abs(self._off) > self._dead_band:
            self._bending = True
        if not self._bending or len(block) < SHORTEST:
            return block
        most, self._unbent = divmod(self._unbent + len(block), BEND)
        more = max(-most, min(most, round(self._off)))
        if not more:
            self._bending = abs(self._off) >= 1
            return block
        self._off -= more
        self._origin += more
        return AudioFrame(stretched(block.samples, len(block) + more))


def _picture_decoder(track: Track) -> av.CodecContext:
    """A decoder that has been told what a container says of pictures. Raises what libav raises."""
    if track.look.see_through:
        return alpha_decoder(track.codec, track.extradata or None, (track.width, track.height))
    context = av.CodecContext.create(_DECODERS.get(track.codec, track.codec), "r")
    if isinstance(context, av.VideoCodecContext):
        context.codec_tag, context.bits_per_coded_sample = track.variant.tag, track.variant.bits
        if track.variant.pix_fmt:
            context.pix_fmt = track.variant.pix_fmt
    return context


def _coded(item: Stamped) -> av.Packet[av.stream.Stream]:
    data, alpha = item.packet.data, item.packet.alpha
    coded = av.Packet(len(data))  # a packet over the bytes themselves would lack the padding that decoders read into
    coded.update(data)
    coded.pts = coded.dts = item.time
    coded.time_base, coded.is_keyframe = _NS, item.packet.keyframe
    if alpha:
        kind = av.packet.packet_sidedata_type_from_literal(ALPHA)
        beside = av.packet.PacketSideData(kind, len(alpha))  # type: ignore[call-arg]
        beside.update(alpha)
        coded.set_sidedata(beside, move=True)
    return coded


def stretched(samples: Samples, count: int) -> Samples:
    """(C, N) → (C, count) float32 with the same first and last sample, by cubic Hermite interpolation; N, count ≥ 4."""
    last = samples.shape[1] - 1
    at = np.arange(count) * (last / (count - 1))
    left = np.minimum(at.astype(np.intp), last - 1)
    x = (at - left).astype(np.float32)
    p0, p1 = samples[:, np.maximum(left - 1, 0)], samples[:, left]
    p2, p3 = samples[:, left + 1], samples[:, np.minimum(left + 2, last)]
    m1, m2 = (p2 - p0) / 2, (p3 - p1) / 2
    out: Samples = ((2 * p1 - 2 * p2 + m1 + m2) * x + (3 * p2 - 3 * p1 - 2 * m1 - m2)) * x
    out += m1
    out *= x
    out += p1
    return np.ascontiguousarray(out)  # indexing columns lays its result out by columns
