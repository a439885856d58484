"""Track and Packet: what flows through a stream: coded pictures and sound, and how they are coded.

They decide how time stamps and codec configurations are carried; they refuse to know who makes packets, and who eats
them.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Final, Literal, NamedTuple

import msgspec

from engine.errors import LocalProtocolError, SinkRejected
from engine.rounding import rounded
from engine.rtmp import flv
from engine.rtmp.session import Shared
from engine.timebase import nanoseconds

Kind = Literal["video", "audio"]


class Orientation(NamedTuple):
    """How a stored picture becomes an upright one: first its axes are exchanged, then it is mirrored."""

    transposed: bool = False
    flip_x: bool = False
    flip_y: bool = False


UPRIGHT: Final = Orientation()


class Look(NamedTuple):
    """How pictures are to be shown, as a container says it and they themselves do not.

    orientation  None = as each picture says.
    aspect       of one pixel, width : height; None = as their codec says.
    tags         AVColorSpace and AVColorRange, for pictures that do not say theirs; 2 and 0 = unknown.
    see_through  their alpha comes beside them, as in VP8 and VP9.
    """

    orientation: Orientation | None = None
    aspect: Fraction | None = None
    tags: tuple[int, int] = (2, 0)
    see_through: bool = False


class Variant(NamedTuple):
    """Which variant of a codec pictures are in, for decoders that must be told (raw, QuickTime RLE, HAP, Ut Video).

    tag      the container's four characters for it, zeros = none.
    pix_fmt  FFmpeg's name of how pixels are laid out; "" = unknown.
    bits     of a coded pixel, 0 = unknown.
    """

    tag: str = "\0\0\0\0"
    pix_fmt: str = ""
    bits: int = 0


class Track(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """How packets of one kind are coded, from here on. Compared by identity.

    codec      FFmpeg's name: "h264", "aac", …
    extradata  what a decoder is opened with: avcC for H.264, AudioSpecificConfig for AAC; b"" where there is none.
               H.264 and HEVC packets are length-prefixed NAL units as it says, AAC packets are raw.
    time_base  seconds of one unit of pts and dts.
    layout     FFmpeg's name of what the channels are: "5.1", "quad"; "" = as is usual for so many.
    unordered  whether pts do not say in which order pictures are shown: only a decoder knows it.
    block      bytes of a block of sound and bits of a coded sample, for decoders that must be told (WMA, ADPCM).
    """

    kind: Kind
    codec: str
    extradata: bytes = b""
    time_base: Fraction = Fraction(1, 1000)
    width: int = 0  # 0 = unknown, as the rest
    height: int = 0
    rate: int = 0
    channels: int = 0
    layout: str = ""
    unordered: bool = False
    block: tuple[int, int] = (0, 0)
    variant: Variant = Variant()
    look: Look = Look()


class Refused(dict[Kind, str]):
    """What a receiver cannot be given of a stream, in words, by kind; it is left out."""

    def __init__(self) -> None:
        super().__init__()
        self._reported: dict[Kind, str] = {}

    def report(self) -> list[str]:
        """What is left out that was not when this was last asked."""
        news = [words for kind, words in self.items() if self._reported.get(kind) != words]
        self._reported |= self
        return news


class Packet:
    """One coded picture or block of sound. Not changed once published.

    pts, dts        in the track's time base; pts_ns, dts_ns: the same in ns, rounded down.
    duration        in the track's time base, 0 = unknown.
    arrival         ns on the engine's clock.
    is_video        whether it is a picture.
    alpha           of a picture whose track is see-through: Matroska's BlockAdditional, with its id before it.
    """

    __slots__ = (
        "_shared",
        "alpha",
        "arrival",
        "data",
        "dts",
        "dts_ns",
        "duration",
        "is_video",
        "keyframe",
        "pts",
        "pts_ns",
        "track",
    )

    def __init__(
        self,
        track: Track,
        data: bytes,
        *,
        pts: int,
        dts: int,
        arrival: int,
        keyframe: bool = True,
        duration: int = 0,
        alpha: bytes = b"",
        shared: Shared | None = None,
    ) -> None:
        self.track, self.data, self.pts, self.dts = track, data, pts, dts
        self.arrival, self.keyframe, self.duration = arrival, keyframe, duration
        self._shared, self.alpha = shared, alpha
        self.is_video = track.kind == "video"
        self.dts_ns = nanoseconds(dts, track.time_base)
        self.pts_ns = self.dts_ns if pts == dts else nanoseconds(pts, track.time_base)

    @property
    def starts_gop(self) -> bool:
        """Whether a picture can be decoded from here on."""
        return self.keyframe and self.is_video

    @property
    def dts_ms(self) -> int:
        """dts in ms, rounded."""
        return to_ms(self.dts, self.track.time_base)

    @property
    def pts_ms(self) -> int:
        """pts in ms, rounded."""
        return to_ms(self.pts, self.track.time_base)

    @property
    def shared(self) -> Shared:
        """The packet as RTMP and FLV carry it; made once for all readers. Raises SinkRejected for a foreign codec."""
        if self._shared is None:
            self._shared = Shared(flv_media(self))
        return self._shared


def to_ms(units: int, time_base: Fraction) -> int:
    """A time stamp in ms, rounded to the nearest."""
    return rounded(1000 * units * time_base.numerator, time_base.denominator)


def flv_media(packet: Packet) -> flv.Video | flv.Audio:
    """A packet as an FLV body. Raises SinkRejected for a codec that FLV does not know."""
    track = packet.track
    try:
        if packet.is_video:
            return flv.video_packet(
                packet.data, dts=packet.dts_ms, pts=packet.pts_ms, keyframe=packet.keyframe, codec=track.codec
            )
        return flv.audio_packet(
            packet.data, dts=packet.dts_ms, codec=track.codec, rate=track.rate, channels=track.channels
        )
    except LocalProtocolError as err:
        raise SinkRejected(f"{track.kind} in {track.codec} cannot be sent as FLV: {err}", where=track.codec) from err


def flv_extradata(track: Track, dts_ms: int) -> flv.Video | flv.Audio:
    """The body that opens a decoder for a track. Raises SinkRejected for a codec that FLV does not know."""
    make = flv.video_extradata if track.kind == "video" else flv.audio_extradata
    try:
        return make(track.extradata, dts=dts_ms, codec=track.codec)
    except LocalProtocolError as err:
        raise SinkRejected(f"{track.kind} in {track.codec} cannot be sent as FLV: {err}", where=track.codec) from err
