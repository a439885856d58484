"""FLV: the file header and tags, and the bodies of its audio, video and script tags, which RTMP carries as messages.

It decides what a tag body is (extradata, a packet, an end) and where the codec's own bytes begin; it refuses to know
what a codec's bytes mean, and never changes or refuses a body: what it cannot name is kind "other" and can be relayed.

Theory of operation
-------------------
A body is kept as it came, with an offset to the codec's bytes, so relaying a packet copies nothing. H.264 and AAC
have the classic headers of FLV 10.1 Annex E (E.4.2.1, E.4.3.1), G.711 and MP3 too at the rates that it has for them.
Newer codecs have a FourCC and the headers of Enhanced RTMP v2 ("ExVideoTagHeader", "ExAudioTagHeader"); of those, the
parts that change nothing for a single track (ModEx, such as a nanosecond offset) are stepped over, and multitrack
bodies are "other".

Times are integer milliseconds: `dts` is the tag's, `pts = dts + composition`. Composition time is 24 bits and signed;
HEVC and AVC under a FourCC have it in CodedFrames and not in CodedFramesX, the other codecs never.

Specification: Adobe Flash Video File Format 10.1, Annex E; Veovera Enhanced RTMP v2.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Final, Literal, NamedTuple

import msgspec

from engine.errors import LocalProtocolError, RemoteProtocolError

AUDIO: Final = 8
VIDEO: Final = 9
SCRIPT: Final = 18

Kind = Literal["extradata", "packet", "end", "other"]

_WRAP = 0xFFFFFFFF
_TAG_BYTES = 11
_VIDEO_CODECS = {2: "flv1", 4: "vp6f", 7: "h264", 12: "hevc"}  # 12 is no standard, but Asian encoders send it
_AUDIO_CODECS = {2: "mp3", 7: "pcm_alaw", 8: "pcm_mulaw", 10: "aac", 11: "speex", 14: "mp3"}
_FOURCC = {
    b"avc1": "h264",
    b"hvc1": "hevc",
    b"vvc1": "vvc",
    b"av01": "av1",
    b"vp08": "vp8",
    b"vp09": "vp9",
    b"mp4a": "aac",
    b"Opus": "opus",
    b"fLaC": "flac",
    b"ac-3": "ac3",
    b"ec-3": "eac3",
    b".mp3": "mp3",
}
_FOURCC_OF = {codec: fourcc for fourcc, codec in _FOURCC.items()}
_CODEC_IDS = {"flv1": 2, "vp6f": 4, "h264": 7, "mp3": 2, "pcm_alaw": 7, "pcm_mulaw": 8, "aac": 10, "speex": 11}
# E.4.2.1: SoundFormat and SoundRate, by codec and rate.
_SOUND_HEADERS = {
    ("pcm_alaw", 8000): 0x70,
    ("pcm_mulaw", 8000): 0x80,
    ("mp3", 8000): 0xE0,
    ("mp3", 11_025): 0x24,
    ("mp3", 22_050): 0x28,
    ("mp3", 44_100): 0x2C,
}
_16_BITS: Final = 2
RELAYED: Final = ("flv1", "vp6f", "speex")  # no body of these is made here: they go on as they came, or not at all
_CLASSIC_KINDS: dict[int, Kind] = {0: "extradata", 1: "packet", 2: "end"}  # AVCPacketType
_ENHANCED_KINDS: dict[int, Kind] = {0: "extradata", 1: "packet", 2: "end", 3: "packet"}  # 3: CodedFramesX
_MOD_EX: Final = 7
_EX_AUDIO: Final = 9  # the SoundFormat that announces a FourCC
_WITH_COMPOSITION = ("h264", "hevc", "vvc")


class Video(msgspec.Struct, frozen=True, gc=False):
    """The body of one video tag.

    dts          ms; within a session it never wraps.
    codec        FFmpeg's name, or "" when the tag does not tell.
    kind         "extradata": `data` is what a decoder is opened with (avcC, hvcC, av1C, vpcC); "packet"; "end": of the
                 sequence; "other": a body without a picture.
    composition  ms from dts to pts.
    offset       where the codec's bytes begin in the body.
    """

    dts: int
    body: bytes
    codec: str = ""
    kind: Kind = "other"
    keyframe: bool = False
    composition: int = 0
    offset: int = 0

    tag_kind: ClassVar[int] = VIDEO

    @property
    def pts(self) -> int:
        """When the picture is shown, ms."""
        return self.dts + self.composition

    @property
    def data(self) -> bytes:
        """The codec's bytes: length-prefixed NAL units, OBUs, extradata. A copy."""
        return self.body[self.offset :]


class Audio(msgspec.Struct, frozen=True, gc=False):
    """The body of one audio tag; its fields are as in Video. AAC's extradata is its AudioSpecificConfig."""

    dts: int
    body: bytes
    codec: str = ""
    kind: Kind = "other"
    offset: int = 0

    tag_kind: ClassVar[int] = AUDIO

    @property
    def pts(self) -> int:
        """When the sound is heard, ms."""
        return self.dts

    @property
    def data(self) -> bytes:
        """The codec's bytes. A copy."""
        return self.body[self.offset :]


class Tag(NamedTuple):
    """One tag of an FLV stream: its type, its 32-bit timestamp in ms, its body."""

    kind: int
    timestamp: int
    body: bytes


def video(dts: int, body: bytes) -> Video:
    """What a video tag's body is. Raises nothing."""
    if not body:
        return Video(dts, body)
    first = body[0]
    if first & 0x80:
        return _enhanced_video(dts, body)
    codec = _VIDEO_CODECS.get(first & 15, "")
    frame = first >> 4
    if frame == 5 or not codec:  # 5: a command for Flash's player, no picture
        return Video(dts, body, codec)
    if codec not in _WITH_COMPOSITION:
        return Video(dts, body, codec, "packet", frame == 1, 0, 1)
    if len(body) < 5:
        return Video(dts, body, codec)
    kind = _CLASSIC_KINDS.get(body[1], "other")
    if kind != "packet":
        return Video(dts, body, codec, kind, False, 0, 5)
    return Video(dts, body, codec, kind, frame == 1, int.from_bytes(body[2:5], "big", signed=True), 5)


def _enhanced_video(dts: int, body: bytes) -> Video:
    """E-RTMP v2: 1 bit ExHeader, 3 bits frame type, 4 bits packet type, [ModEx …], FourCC."""
    frame = (body[0] >> 4) & 7
    packet, at = _skip_mod_ex(body)
    codec = _FOURCC.get(body[at : at + 4], "")
    kind = _ENHANCED_KINDS.get(packet, "other")
    if not codec or frame == 5:
        return Video(dts, body, codec)
    if kind != "packet":
        return Video(dts, body, codec, kind, False, 0, at + 4)
    if packet == 3 or codec not in _WITH_COMPOSITION:
        return Video(dts, body, codec, kind, frame == 1, 0, at + 4)
    if len(body) < at + 7:
        return Video(dts, body, codec)
    composition = int.from_bytes(body[at + 4 : at + 7], "big", signed=True)
    return Video(dts, body, codec, kind, frame == 1, composition, at + 7)


def audio(dts: int, body: bytes) -> Audio:
    """What an audio tag's body is. Raises nothing."""
    if not body:
        return Audio(dts, body)
    sound = body[0] >> 4
    if sound == _EX_AUDIO:
        packet, at = _skip_mod_ex(body)
        codec = _FOURCC.get(body[at : at + 4], "")
        kind = _ENHANCED_KINDS.get(packet, "other") if codec and packet != 3 else "other"
        return Audio(dts, body, codec, kind, at + 4 if codec else 0)
    codec = _AUDIO_CODECS.get(sound, "")
    if not codec:
        return Audio(dts, body)
    if codec != "aac":
        return Audio(dts, body, codec, "packet", 1)
    if len(body) < 2 or body[1] > 1:
        return Audio(dts, body, codec)
    return Audio(dts, body, codec, _CLASSIC_KINDS[body[1]], 2)


def _skip_mod_ex(body: bytes) -> tuple[int, int]:
    """The packet type and where the FourCC begins.

    Each ModEx is: size − 1 (a byte; when that gives 256, two bytes), so many bytes, then 4 bits of its own type and
    4 bits of the packet type that follows.
    """
    packet, at = body[0] & 15, 1
    while packet == _MOD_EX and at < len(body):
        size = body[at] + 1
        at += 1
        if size == 256:
            size = int.from_bytes(body[at : at + 2], "big") + 1
            at += 2
        at += size
        if at >= len(body):
            return -1, at
        packet = body[at] & 15
        at += 1
    return packet, at


def video_extradata(extradata: bytes, *, dts: int, codec: str = "h264") -> Video:
    """The tag that opens a decoder: avcC for h264, hvcC, av1C or vpcC for the others.

    Raises  LocalProtocolError: a codec without a FourCC.
    """
    if codec == "h264":
        return video(dts, b"\x17\0\0\0\0" + extradata)
    return video(dts, b"\x90" + _fourcc(codec) + extradata)


def video_packet(data: bytes, *, dts: int, pts: int, keyframe: bool, codec: str = "h264") -> Video:
    """A coded picture; NAL units have 4-byte lengths before them. pts counts only where frames are reordered.

    Raises  LocalProtocolError: a codec without a FourCC, or pts too far from dts.
    """
    frame = 1 if keyframe else 2
    if codec == "h264":
        return video(dts, bytes((frame << 4 | 7, 1)) + _composition(pts - dts) + data)
    if codec in _WITH_COMPOSITION and pts != dts:
        return video(dts, bytes((0x80 | frame << 4 | 1,)) + _fourcc(codec) + _composition(pts - dts) + data)
    return video(dts, bytes((0x80 | frame << 4 | 3,)) + _fourcc(codec) + data)


def audio_extradata(extradata: bytes, *, dts: int, codec: str = "aac") -> Audio:
    """The tag that opens a decoder: the AudioSpecificConfig for aac, an OpusHead for opus.

    Raises  LocalProtocolError: a codec without a FourCC.
    """
    if codec == "aac":
        return audio(dts, b"\xaf\0" + extradata)
    return audio(dts, b"\x90" + _fourcc(codec) + extradata)


def audio_packet(data: bytes, *, dts: int, codec: str = "aac", rate: int = 0, channels: int = 0) -> Audio:
    """A coded block of sound. For AAC the header always says 44.1 kHz stereo; decoders ask the extradata (E.4.2.1).

    rate, channels  0 = unknown.
    Raises          LocalProtocolError: a codec that has no FourCC, and at this rate and with these channels no header.
    """
    if codec == "aac":
        return audio(dts, b"\xaf\x01" + data)
    if channels in (1, 2) and (codec, rate) in _SOUND_HEADERS:
        return audio(dts, bytes((_SOUND_HEADERS[codec, rate] | _16_BITS | channels - 1,)) + data)
    return audio(dts, b"\x91" + _fourcc(codec) + data)


def _composition(offset: int) -> bytes:
    if not -0x800000 <= offset <= 0x7FFFFF:
        raise LocalProtocolError(f"pts is {offset} ms from dts")
    return offset.to_bytes(3, "big", signed=True)


def _fourcc(codec: str) -> bytes:
    fourcc = _FOURCC_OF.get(codec)
    if fourcc is None:
        raise LocalProtocolError(f'codec "{codec}" has no FourCC')
    return fourcc


def codec_id(codec: str) -> int:
    """What onMetaData calls a codec: FLV's number, else its FourCC as one (Enhanced RTMP v2); 0 = it has neither."""
    number = _CODEC_IDS.get(codec)
    return int.from_bytes(_FOURCC_OF.get(codec, b""), "big") if number is None else number


def header(audio: bool = True, video: bool = True) -> bytes:
    """How an FLV stream begins (E.2), with the size of the tag before the first one: 13 bytes."""
    return b"FLV\x01" + bytes((audio << 2 | video,)) + b"\0\0\0\x09" + b"\0\0\0\0"


def tag(kind: int, timestamp: int, body: bytes) -> bytes:
    """One tag with its size after it (E.3, E.4.1). The timestamp, ms, wraps at 32 bits.

    Raises  LocalProtocolError: a body that the tag cannot announce.
    """
    size = len(body)
    if size > 0xFFFFFF:
        raise LocalProtocolError(f"a tag of {size} bytes")
    when = (timestamp & _WRAP).to_bytes(4, "big")
    head = bytes((kind,)) + size.to_bytes(3, "big") + when[1:] + when[:1] + b"\0\0\0"
    return b"".join((head, body, (size + _TAG_BYTES).to_bytes(4, "big")))


def tags(body: bytes) -> Iterator[Tag]:
    """The tags in a row of them, each followed by its size: an FLV file after its header, an aggregate message.

    The last size may be missing. Lazy: only the tag asked for is copied.
    Raises  RemoteProtocolError: a tag is cut off.
    """
    at, end = 0, len(body)
    while at < end:
        start = at + _TAG_BYTES
        stop = start + int.from_bytes(body[at + 1 : at + 4], "big")
        if start > end or stop > end:
            raise RemoteProtocolError(f"a tag at byte {at} of {end} is cut off")
        timestamp = body[at + 7] << 24 | int.from_bytes(body[at + 4 : at + 7], "big")
        yield Tag(body[at] & 31, timestamp, body[start:stop])
        at = stop + 4
