"""What codecs say of themselves in their extradata: sizes, sound formats, names for players; and H.264's framing.

It decides what bytes of a codec's configuration mean; it refuses to decode pictures or sound, and never raises: what
cannot be read is None or "".

Specifications: ITU-T H.264 7.3.2.1 and Annex B; ITU-T H.265 7.3.2.2; ISO/IEC 14496-15 5.3.3 and 8.3.3 (avcC, hvcC);
ISO/IEC 14496-3 1.6.2.1 (AudioSpecificConfig); RFC 6381 and ISO/IEC 14496-15 Annex E (names).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

_SPS: Final = 7
_PPS: Final = 8
_HEVC_SPS: Final = 33
_HIGH_PROFILES: Final = (44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 244)  # H.264 7.3.2.1.1
_WITHOUT_FORMAT: Final = (66, 77, 88)  # profiles whose avcC ends with the PPS (ISO/IEC 14496-15 5.3.3.1.2)
_CHROMA_UNITS: Final = ((1, 1), (2, 2), (2, 1), (1, 1))  # luma samples of a chroma sample, by chroma_format_idc
_MAX_SIDE: Final = 1 << 16
_RATES: Final = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)
_CHANNELS: Final = {**{n: n for n in range(1, 7)}, 7: 8, 11: 7, 12: 8, 13: 24, 14: 8}
_SBR: Final = 5
_PS: Final = 29
_ESCAPE: Final = 31


class _Bits:
    """Reads bits, the highest first. Raises EOFError beyond the end, and for numbers of more than 32 bits."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data, "big"), 8 * len(data)

    @classmethod
    def of_nal(cls, nal: bytes) -> _Bits:
        """Without emulation prevention (H.264 7.4.1, H.265 7.4.2). Sizes come early: the rest is not looked at."""
        return cls(nal[:2048].replace(b"\0\0\3", b"\0\0"))

    def u(self, count: int) -> int:
        if count > self._left:
            raise EOFError
        self._left -= count
        return (self._value >> self._left) & ((1 << count) - 1)

    def ue(self) -> int:
        zeros = 0
        while not self.u(1):
            zeros += 1
            if zeros > 32:
                raise EOFError
        return (1 << zeros) - 1 + self.u(zeros)

    def se(self) -> int:
        code = self.ue()
        return (code + 1) // 2 if code % 2 else -(code // 2)


class _Sps(NamedTuple):
    width: int
    height: int
    chroma: int  # chroma_format_idc
    luma_depth: int
    chroma_depth: int


def avc_size(avcc: bytes) -> tuple[int, int] | None:
    """Width and height of an avcC's pictures, cropped; None when it cannot be read."""
    if len(avcc) < 8 or not avcc[5] & 31:
        return None
    sps = _avc_sps(avcc[8 : 8 + int.from_bytes(avcc[6:8], "big")])
    return sps and (sps.width, sps.height)


def _avc_sps(nal: bytes) -> _Sps | None:
    """A sequence parameter set, with its one header byte."""
    bits = _Bits.of_nal(nal[1:])
    try:
        profile = bits.u(8)
        bits.u(16)
        bits.ue()
        chroma, planes, depths = 1, False, (8, 8)
        if profile in _HIGH_PROFILES:
            chroma = bits.ue()
            planes = chroma == 3 and bool(bits.u(1))
            depths = (8 + bits.ue(), 8 + bits.ue())
            bits.u(1)
            _skip_scaling_lists(bits, 12 if chroma == 3 else 8)
        bits.ue()
        _skip_picture_order(bits)
        bits.ue()
        bits.u(1)
        size = _avc_frame(bits, 0 if planes else chroma)
    except (EOFError, IndexError):
        return None
    return None if size is None or max(depths) > 14 else _Sps(*size, chroma, *depths)


def _skip_scaling_lists(bits: _Bits, count: int) -> None:
    """seq_scaling_matrix (7.3.2.1.1.1): a list ends where the next scale is 0."""
    if not bits.u(1):
        return
    for n in range(count):
        if bits.u(1):
            scale, entries = 8, 16 if n < 6 else 64
            while entries and scale:
                scale = (scale + bits.se()) % 256
                entries -= 1


def _skip_picture_order(bits: _Bits) -> None:
    kind = bits.ue()
    if kind == 0:
        bits.ue()
    elif kind == 1:
        bits.u(1)
        bits.se()
        bits.se()
        for _ in range(min(bits.ue(), 256)):
            bits.se()


def _avc_frame(bits: _Bits, chroma: int) -> tuple[int, int] | None:
    """Macroblocks and cropping (7.4.2.1.1); of fields, height and crop units count twice."""
    width, height = 16 * (bits.ue() + 1), 16 * (bits.ue() + 1)
    lines = 2 - bits.u(1)
    if lines == 2:
        bits.u(1)
    bits.u(1)
    across, down = _CHROMA_UNITS[chroma]
    return _cropped(bits, width, height * lines, (across, down * lines))


def _cropped(bits: _Bits, width: int, height: int, unit: tuple[int, int]) -> tuple[int, int] | None:
    if bits.u(1):
        left, right, top, bottom = (bits.ue() for _ in range(4))
        width, height = width - unit[0] * (left + right), height - unit[1] * (top + bottom)
    return (width, height) if 0 < width < _MAX_SIDE and 0 < height < _MAX_SIDE else None


def hevc_size(hvcc: bytes) -> tuple[int, int] | None:
    """Width and height of an hvcC's pictures, cropped; None when it cannot be read."""
    return next((_hevc_size(nal) for kind, nal in _hvcc_units(hvcc) if kind == _HEVC_SPS), None)


def _hvcc_units(hvcc: bytes) -> Iterator[tuple[int, bytes]]:
    """The parameter sets with their NAL unit types."""
    at, arrays = 23, hvcc[22] if len(hvcc) > 22 else 0
    for _ in range(arrays):
        kind, count = hvcc[at : at + 1], int.from_bytes(hvcc[at + 1 : at + 3], "big")
        at += 3
        for _ in range(count):
            size = int.from_bytes(hvcc[at : at + 2], "big")
            nal = hvcc[at + 2 : at + 2 + size]
            at += 2 + size
            if not nal:  # the end, or garbage
                return
            yield kind[0] & 63, nal


def _hevc_size(nal: bytes) -> tuple[int, int] | None:
    bits = _Bits.of_nal(nal[2:])
    try:
        bits.u(4)
        layers = bits.u(3)  # sps_max_sub_layers_minus1
        bits.u(1 + 96)
        present = [bits.u(2) for _ in range(8 if layers else 0)][:layers]
        for flags in present:
            bits.u(88 * (flags >> 1) + 8 * (flags & 1))
        bits.ue()
        chroma = bits.ue()
        unit = _CHROMA_UNITS[chroma]
        if chroma == 3:
            bits.u(1)
        return _cropped(bits, bits.ue(), bits.ue(), unit)
    except (EOFError, IndexError):
        return None


def aac_format(asc: bytes) -> tuple[int, int] | None:
    """Rate in Hz and channels that an AudioSpecificConfig gives when decoded; None when it cannot be read."""
    aac = _aac(asc)
    return aac and aac[1:]


def _aac(asc: bytes) -> tuple[int, int, int] | None:
    """The object type as signalled (2 = AAC-LC, 5 = with SBR, 29 = with SBR and PS), rate, channels."""
    bits = _Bits(asc[:512])
    try:
        kind, rate, layout = _aac_kind(bits), _aac_rate(bits), bits.u(4)
        if kind in (_SBR, _PS):  # the rate before is the core's
            rate = _aac_rate(bits)
            _aac_kind(bits)
        channels = _CHANNELS.get(layout, 0) if layout else _aac_elements(bits)
    except (EOFError, IndexError):
        return None
    if kind == _PS and channels == 1:
        channels = 2
    return (kind, rate, channels) if rate and channels else None


def _aac_kind(bits: _Bits) -> int:
    kind = bits.u(5)
    return 32 + bits.u(6) if kind == _ESCAPE else kind


def _aac_rate(bits: _Bits) -> int:
    index = bits.u(4)
    return bits.u(24) if index == 15 else _RATES[index]


def _aac_elements(bits: _Bits) -> int:
    """Channels by a program_config_element (4.4.1.1), after GASpecificConfig's flags."""
    bits.u(1)
    if bits.u(1):
        bits.u(14)
    bits.u(1 + 4 + 2 + 4)
    pairs = bits.u(4) + bits.u(4) + bits.u(4)  # front, side, back: single channels or pairs
    low = bits.u(2)
    bits.u(3 + 4)
    for size in (4, 4, 3):  # mixdowns
        if bits.u(1):
            bits.u(size)
    return low + sum(1 + (bits.u(5) >> 4) for _ in range(pairs))


def codec_string(codec: str, extradata: bytes) -> str:
    """What players call a codec: "avc1.64001f", "hvc1.1.6.L93.90", "mp4a.40.2", "opus"; "" = cannot be told."""
    if codec == "h264" and len(extradata) >= 4 and extradata[0] == 1:
        return f"avc1.{extradata[1:4].hex()}"
    if codec == "hevc" and len(extradata) >= 23:
        return _hevc_string(extradata)
    if codec == "aac" and (aac := _aac(extradata)) is not None:
        return f"mp4a.40.{aac[0]}"
    return "opus" if codec == "opus" else ""


def _hevc_string(hvcc: bytes) -> str:
    """Profile space and profile, compatibility flags (lowest first), tier and level, constraints without end zeros."""
    space, tier, profile = "\0ABC"[hvcc[1] >> 6].strip("\0"), "LH"[hvcc[1] >> 5 & 1], hvcc[1] & 31
    compatible = int(f"{int.from_bytes(hvcc[2:6], 'big'):032b}"[::-1], 2)
    constraints = "".join(f".{byte:X}" for byte in hvcc[6:12].rstrip(b"\0"))
    return f"hvc1.{space}{profile}.{compatible:X}.{tier}{hvcc[12]}{constraints}"


def nal_units(annexb: bytes) -> list[bytes]:
    """The NAL units between start codes (H.264 Annex B), none empty; what is before the first start code is lost."""
    units = (part.rstrip(b"\0") for part in annexb.split(b"\0\0\1")[1:])
    return [unit for unit in units if unit]


def length_prefixed(annexb: bytes) -> bytes:
    """The same NAL units with four bytes of length before each."""
    return b"".join(len(unit).to_bytes(4, "big") + unit for unit in nal_units(annexb))


def avcc(sps: list[bytes], pps: list[bytes]) -> bytes:
    """An avcC for NAL units with four bytes of length; b"" when there is no parameter set of either kind."""
    first = [unit for unit in sps if 4 <= len(unit) < 1 << 16][:31]
    second = [unit for unit in pps if len(unit) < 1 << 16][:255]
    if not first or not second:
        return b""
    made = b"\1" + first[0][1:4] + bytes((0xFF, 0xE0 | len(first))) + _sized(first)
    made += bytes((len(second),)) + _sized(second)
    read = None if first[0][1] in _WITHOUT_FORMAT else _avc_sps(first[0])
    if read is not None:
        made += bytes((0xFC | read.chroma, 0xF8 | read.luma_depth - 8, 0xF8 | read.chroma_depth - 8, 0))
    return made


def _sized(units: list[bytes]) -> bytes:
    return b"".join(len(unit).to_bytes(2, "big") + unit for unit in units)


def avcc_of(annexb: bytes) -> bytes | None:
    """The avcC of a picture that carries its parameter sets; None when one is missing."""
    units = nal_units(annexb)
    of = {kind: [unit for unit in units if unit[0] & 31 == kind] for kind in (_SPS, _PPS)}
    return avcc(of[_SPS], of[_PPS]) or None
