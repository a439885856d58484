"""How packets of a stream are framed in its container → as a track says it: H.264 and HEVC behind lengths, AAC raw.

It decides what a packet of another framing becomes, and when that is another track; it refuses to know when a packet is
shown.

Theory of operation
-------------------
* Annex B (MPEG-TS, RTSP) carries parameter sets among the pictures, each in whichever packet it likes. All that hold at
  a keyframe are the track's extradata, so that one can begin there; other ones than before are a new track. Those that
  come later are left in their packets: up to the next keyframe the decoder that is there goes on with them.
* ADTS headers of AAC become an AudioSpecificConfig, with the layout of channels (program_config_element) that a block
  has in it where the header names none.
* In MPEG-TS a stream may become one of another codec, and libav does not say so: only its packets look otherwise
  (`strange`). What others make of those is of no use to anybody. Where none of its own came before (it is scrambled,
  or called what it is not) nothing has become another one.
* AVI, ASF, some MXF and raw H.264 and HEVC have no presentation times, and libav gives reordered pictures such as they
  are not, as it does in a packed bitstream of MPEG-4: their track says so. A decoder gives such pictures in the right
  order; players and recordings may not.
"""

from __future__ import annotations

import io
from contextlib import suppress
from fractions import Fraction
from typing import Any, Final, Literal

import av

from engine.bitstream import aac_format, avc_size, avcc, hevc_size, hvcc, nal_units, pps_numbers, program_config
from engine.packet import Look, Track, Variant
from engine.sources.container import LIBAV_ERRORS, AvPacket, settle_layout
from engine.sources.tracks import NEW_SETS, is_packed, is_unordered, lacks_order

_SETS: Final = {"h264": (7, 8), "hevc": (32, 33, 34)}  # kinds of parameter sets, each building on those before it
_DELIMITERS: Final = {"h264": 9, "hevc": 35}  # of access units
_MOST_SETS: Final = 256  # of pictures (H.264 7.4.2.2); HEVC has fewer
_ADTS_RATES: Final = 13
# What packets begin with: which of the first 16 bits say it, and what they say (ETSI TS 102 366, ISO 11172-3 with its
# three layers, of which libav guesses one where nothing has come yet, and ISO 14496-3).
_AC3: Final = 0xFFFF, (0x0B77,)
_MPEG: Final = 0xFFE6, (0xFFE2, 0xFFE4, 0xFFE6)
_HEADS: Final = {"ac3": _AC3, "eac3": _AC3, "mp2": _MPEG, "mp3": _MPEG, "aac_latm": (0xFFE0, (0x56E0,))}


class Framing:
    """How packets of one stream are framed: as they should be."""

    def __init__(self, stream: Any, before: Framing | None, look: Look, time_base: Fraction) -> None:
        context = stream.codec_context
        self.time_base = time_base
        self.strange = 0  # packets in a row that are of another codec than those that came
        self._was_ours = self._has_come = False  # the last packet; any two in a row
        self.track: Track | None = None if before is None else before.track
        self._kind: Literal["video", "audio"] = stream.type
        self._codec: str = context.codec.canonical_name
        is_video = stream.type == "video"
        self._size: tuple[int, int] = (context.width, context.height) if is_video else (0, 0)
        self._layout = "" if is_video else settle_layout(context)
        self._sound: tuple[int, int] = (0, 0) if is_video else (context.sample_rate, context.channels)
        self._look = look
        self._is_unordered = is_video and is_unordered(stream)
        self.is_packed = is_video and is_packed(stream)
        self._block = (0, 0) if is_video else _block(stream)
        self._variant = _variant(context) if is_video else Variant()
        self._configure(bytes(context.extradata or b""))

    def _configure(self, extradata: bytes) -> None:
        """The track from here on: the same one while nothing has changed."""
        (width, height), (rate, channels) = self._size, self._sound
        if self._codec == "mp3" or self._codec.startswith("pcm_"):
            extradata = b""  # what AVI and WAV have there is their own, and nobody else wants it
        if self._codec in ("h264", "hevc"):
            width, height = (avc_size if self._codec == "h264" else hevc_size)(extradata) or self._size
        if self._codec == "aac":
            rate, channels = aac_format(extradata) or self._sound
        made = Track(
            kind=self._kind,
            codec=self._codec,
            extradata=extradata,
            time_base=self.time_base,
            width=width,
            height=height,
            rate=rate,
            channels=channels,
            layout=self._layout,
            unordered=self._is_unordered,
            block=self._block,
            variant=self._variant,
            look=self._look,
        )
        if self.track is None or not _same(made, self.track):
            self.track = made

    def unwrapped(self, packet: AvPacket) -> bytes:
        """What a packet carries, as the track says; b"" when it cannot be used."""
        if packet.has_sidedata(NEW_SETS):
            self._configure(bytes(packet.get_sidedata(NEW_SETS)))
        data = bytes(packet)
        mask, heads = _HEADS.get(self._codec, (0, (0,)))
        self._count(is_ours=int.from_bytes(data[:2]) & mask in heads)
        return data

    def _count(self, *, is_ours: bool) -> None:
        self._has_come |= is_ours and self._was_ours  # one alone may be noise
        self._was_ours = is_ours
        self.strange = 0 if is_ours or not self._has_come else self.strange + 1


class _AnnexB(Framing):
    """H.264 and HEVC with start codes, their parameter sets among the pictures."""

    def __init__(self, stream: Any, before: Framing | None, look: Look, time_base: Fraction) -> None:
        # What a decoder that had all packets knows: picture parameter sets by their number, others by themselves.
        self._sets: dict[tuple[int, int | bytes], bytes] = before._sets if isinstance(before, _AnnexB) else {}
        super().__init__(stream, before, look, time_base)

    def _configure(self, extradata: bytes) -> None:
        self._ahead = nal_units(extradata)  # of the next packet

    def unwrapped(self, packet: AvPacket) -> bytes:
        units = nal_units(bytes(packet))
        kept = [unit for unit in units if self._kind_of(unit) not in (*_SETS[self._codec], _DELIMITERS[self._codec])]
        has_picture = any(map(self._is_slice, kept))
        self._count(is_ours=has_picture)
        if not has_picture:
            self._ahead = [*self._ahead, *units][-_MOST_SETS:]
            return b""
        fresh = [*self._learn(self._ahead), *self._learn(units)]
        self._ahead = []
        known = self.track
        if packet.is_keyframe or known is None:
            self._is_unordered |= lacks_order(packet)
            self._take()
        if self.track is known:
            kept = fresh + kept
        return b"".join(len(unit).to_bytes(4, "big") + unit for unit in kept)

    def _learn(self, units: list[bytes]) -> list[bytes]:
        """Notes the parameter sets of a packet. Returns those that were not known so.

        A new one makes all of its kind forgotten, and what builds on them: a decoder does so where it has their number,
        and streams with several numbers in turns repeat them.
        """
        came = {}
        for unit in units:
            kind, number = self._kind_of(unit), self._number_of(unit)
            if kind in _SETS[self._codec] and number is not None:
                came[kind, number] = unit
        last = _SETS[self._codec][-1]
        first = min((name[0] for name, unit in came.items() if self._sets.get(name) != unit), default=last)
        if first < last:
            self._sets = {name: unit for name, unit in self._sets.items() if name[0] < first}
        fresh = [unit for name, unit in came.items() if self._sets.get(name) != unit]
        self._sets |= came
        return fresh

    def _take(self) -> None:
        """Takes what is known for the track's extradata."""
        made = (avcc if self._codec == "h264" else hvcc)(list(self._sets.values()))
        if made:
            super()._configure(made)

    def _is_slice(self, unit: bytes) -> bool:
        """Whether it is a slice of a picture; none of the other codec's seems to be one: the last bit differs."""
        return unit[0] & 0x9F in (1, 5) if self._codec == "h264" else unit[0] & 0xC1 == 0

    def _kind_of(self, unit: bytes) -> int:
        return unit[0] & 31 if self._codec == "h264" else unit[0] >> 1 & 63

    def _number_of(self, unit: bytes) -> int | bytes | None:
        """What a parameter set is known by; None for one of pictures that cannot be read."""
        if self._kind_of(unit) != _SETS[self._codec][-1]:
            return unit
        numbers = pps_numbers(unit if self._codec == "h264" else unit[1:])  # HEVC: a header of two bytes
        return numbers[0] if numbers is not None and numbers[0] < _MOST_SETS else None


class _Adts(Framing):
    """AAC with a header before each block (ISO 14496-3 1.A.2.2.1)."""

    def _configure(self, extradata: bytes) -> None:
        pass  # the first header says it, or where that names no layout of channels, the block behind it

    def unwrapped(self, packet: AvPacket) -> bytes:
        data = bytes(packet)
        is_ours = len(data) >= 7 and data[0] == 0xFF and data[1] & 0xF6 == 0xF0
        self._count(is_ours=is_ours)
        if not is_ours:
            return b""
        kind, rate = (data[2] >> 6) + 1, data[2] >> 2 & 15
        channels = (data[2] & 1) << 2 | data[3] >> 6
        if rate >= _ADTS_RATES:
            return b""
        block = data[7:] if data[1] & 1 else data[9:]
        program = b"" if channels else program_config(block)
        if channels or program:  # others go on as those before them
            super()._configure(bytes((kind << 3 | rate >> 1, (rate & 1) << 7 | channels << 3)) + program)
        return block


def framing_of(stream: Any, before: Framing | None, look: Look, time_base: Fraction) -> Framing:
    """How a stream of a container comes, in a time base that may be another one.

    before  of the packets before, whose track goes on while nothing of it changes.
    """
    codec, extradata = stream.codec_context.codec.canonical_name, bytes(stream.codec_context.extradata or b"")
    if codec in ("h264", "hevc") and extradata[:1] != b"\1":
        return _AnnexB(stream, before, look, time_base)
    if codec == "aac" and not extradata:
        return _Adts(stream, before, look, time_base)
    return Framing(stream, before, look, time_base)


def _block(stream: Any) -> tuple[int, int]:
    """Bytes of a block of sound and bits of a coded sample, which PyAV does not tell but the head of a WAV does."""
    file = io.BytesIO()
    try:
        with av.open(file, "w", format="wav") as container:
            container.add_stream_from_template(stream)
            container.start_encoding()
    except LIBAV_ERRORS:
        return 0, 0  # nothing that a WAV can have
    head = file.getvalue()
    at = head.find(b"fmt ") + 20  # WAVEFORMAT.nBlockAlign
    return int.from_bytes(head[at : at + 2], "little"), int.from_bytes(head[at + 2 : at + 4], "little")


def _variant(context: av.VideoCodecContext) -> Variant:
    variant = Variant(pix_fmt=context.pix_fmt or "", bits=context.bits_per_coded_sample)
    with suppress(UnicodeDecodeError):  # MPEG-TS has numbers there
        variant = variant._replace(tag=context.codec_tag)
    return variant


def _same(one: Track, other: Track) -> bool:
    return all(getattr(one, name) == getattr(other, name) for name in ("codec", "extradata", "time_base", "unordered"))
