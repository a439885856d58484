"""What codecs say of themselves in their extradata: sizes, sound formats, names for players; and H.264's framing.

It decides what bytes of a codec's configuration mean; it refuses to decode pictures or sound, and never raises: what
cannot be read is None or "".

Specifications: ITU-T H.264 7.3.2.1 and Annex B; ITU-T H.265 7.3.2.2; ISO/IEC 14496-15 5.3.3 and 8.3.3 (avcC, hvcC);
ISO/IEC 14496-3 1.6.2.1 (AudioSpecificConfig); RFC 6381 and ISO/IEC 14496-15 Annex E (names).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Final, NamedTuple

_SLICES: Final = (1, 5)
_SLICE_HEAD: Final = 33  # bytes within which a slice names its picture parameter set
_TO_ESCAPE: Final = re.compile(rb"\0\0(?=[\0-\3])")
_SPS: Final = 7
_PPS: Final = 8
_HEVC_VPS: Final = 32
_HEVC_SPS: Final = 33
_HEVC_PPS: Final = 34
_HEVC_CRA: Final = 21
_HEVC_BLA: Final = 16  # BLA_W_LP: leading pictures behind it, which refer to some before it, are left out by decoders
_HIGH_PROFILES: Final = (44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 244)  # H.264 7.3.2.1.1
_WITHOUT_FORMAT: Final = (66, 77, 88)  # profiles whose avcC ends with the PPS (ISO/IEC 14496-15 5.3.3.1.2)
_CHROMA_UNITS: Final = ((1, 1), (2, 2), (2, 1), (1, 1))  # luma samples of a chroma sample, by chroma_format_idc
_MAX_SIDE: Final = 1 << 16
_RATES: Final = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)
_CHANNELS: Final = {**{n: n for n in range(1, 7)}, 7: 8, 11: 7, 12: 8, 13: 24, 14: 8}
_SBR: Final = 5
_PS: Final = 29
_LC: Final = 2
_ESCAPE: Final = 31
_PAIR: Final = 1
_PROGRAM_CONFIG: Final = 5
# The elements of a channelConfiguration: 0 is a channel, 1 a pair, 3 the low frequencies.
_ELEMENTS: Final = {1: (0,), 2: (1,), 3: (0, 1), 4: (0, 1, 0), 5: (0, 1, 1), 6: (0, 1, 1, 3)}
_SILENT_CHANNEL: Final = 22  # bits, all 0: global_gain, ics_info of one long window, no pulse, TNS or gain control
_OPUS_SILENCE: Final = (b"\xf8\xff\xfe", Fraction(1, 50))  # CELT, full band, 20 ms, one or two channels
_EXTENDED_ASPECT: Final = 255
_UNRESTRICTED: Final = "1111" + "000010000" * 2  # bitstream_restriction without limits, up to the reordering
_SAYS_NOTHING: Final = "1" + "0" * 8 + _UNRESTRICTED  # vui_parameters


class _Bits:
    """Reads bits, the highest first. Raises EOFError beyond the end, and for numbers of more than 32 bits."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data, "big"), 8 * len(data)

    @classmethod
    def of_nal(cls, nal: bytes) -> _Bits:
        """Without emulation prevention (H.264 7.4.1, H.265 7.4.2). Sizes come early: the rest is not looked at."""
        return cls(nal[:2048].replace(b"\0\0\3", b"\0\0"))

    @property
    def left(self) -> int:
        """Bits not yet read."""
        return self._left

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


class Sps(NamedTuple):
    """What a sequence parameter set of H.264 says.

    width, height  of its pictures, cropped. chroma: chroma_format_idc; 1 = 4:2:0.
    progressive    whether every picture is a whole frame.
    full_range     whether its samples go from 0 to 255; matrix: that of its colours (H.273). None = it does not say.
    reorder        how many pictures may come before one that is shown before them; None = it does not say.
    kept           how many pictures a decoder keeps, to be referred to or to be shown later.
    """

    number: int  # seq_parameter_set_id
    profile: int  # profile_idc
    level: int  # level_idc: ten times the level
    width: int
    height: int
    chroma: int
    luma_depth: int
    chroma_depth: int
    progressive: bool
    full_range: bool | None
    matrix: int | None
    reorder: int | None
    kept: int


def avc_size(avcc: bytes) -> tuple[int, int] | None:
    """Width and height of an avcC's pictures, cropped; None when it cannot be read."""
    if len(avcc) < 8 or not avcc[5] & 31:
        return None
    sps = read_sps(avcc[8 : 8 + int.from_bytes(avcc[6:8], "big")])
    return sps and (sps.width, sps.height)


def read_sps(nal: bytes) -> Sps | None:
    """A sequence parameter set, with its one header byte; None when it cannot be read."""
    bits = _Bits.of_nal(nal[1:])
    try:
        number, profile, chroma, depths, references, progressive, size = _sequence(bits)
        full_range, matrix, reorder, kept = _usability(bits)
    except (EOFError, IndexError):
        return None
    if size is None or max(depths) > 14:
        return None
    kept = max(kept, references)
    return Sps(number, profile, nal[3], *size, chroma, *depths, progressive, full_range, matrix, reorder, kept)


def _sequence(bits: _Bits) -> tuple[int, int, int, tuple[int, int], int, bool, tuple[int, int] | None]:
    """What comes before the vui_parameters; among it how many pictures others may refer to, and what is of a frame."""
    profile = bits.u(8)
    bits.u(16)
    number = bits.ue()
    chroma, planes, depths = 1, False, (8, 8)
    if profile in _HIGH_PROFILES:
        chroma = bits.ue()
        planes = chroma == 3 and bool(bits.u(1))
        depths = (8 + bits.ue(), 8 + bits.ue())
        bits.u(1)
        _skip_scaling_lists(bits, 12 if chroma == 3 else 8)
    bits.ue()
    _skip_picture_order(bits)
    references = bits.ue()
    bits.u(1)
    return number, profile, chroma, depths, references, *_avc_frame(bits, 0 if planes else chroma)


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


def _avc_frame(bits: _Bits, chroma: int) -> tuple[bool, tuple[int, int] | None]:
    """Whether there are no fields; macroblocks and cropping (7.4.2.1.1): with fields, height and crops count twice."""
    width, height = 16 * (bits.ue() + 1), 16 * (bits.ue() + 1)
    lines = 2 - bits.u(1)
    if lines == 2:
        bits.u(1)
    bits.u(1)
    across, down = _CHROMA_UNITS[chroma]
    return lines == 1, _cropped(bits, width, height * lines, (across, down * lines))


def _usability(bits: _Bits) -> tuple[bool | None, int | None, int | None, int]:
    """Range, matrix, max_num_reorder_frames and max_dec_frame_buffering of vui_parameters (E.1.1).

    As far as they can be read; 0 for the last one, where it is not there.
    """
    full_range = matrix = reorder = None
    kept = 0
    try:
        if bits.u(1):
            full_range, matrix = _colours(bits)
            if _skip_to_reorder(bits):
                reorder, kept = bits.ue(), bits.ue()
    except EOFError:
        pass  # what comes after is not known
    return full_range, matrix, reorder, kept


def _colours(bits: _Bits) -> tuple[bool | None, int | None]:
    full_range = matrix = None
    if bits.u(1) and bits.u(8) == _EXTENDED_ASPECT:
        bits.u(32)
    if bits.u(1):
        bits.u(1)
    if bits.u(1):
        bits.u(3)
        full_range = bool(bits.u(1))
        matrix = bits.u(24) & 255 if bits.u(1) else None
    return full_range, matrix


def _skip_to_reorder(bits: _Bits) -> bool:
    """Past the colours up to max_num_reorder_frames; whether it is there."""
    if bits.u(1):
        bits.ue()
        bits.ue()
    if bits.u(1):
        bits.u(65)
    timed = [_skip_hrd(bits) for _ in range(2)]
    bits.u(1 + any(timed))
    if not bits.u(1):
        return False
    bits.u(1)
    for _ in range(4):
        bits.ue()
    return True


def _skip_hrd(bits: _Bits) -> bool:
    """hrd_parameters (E.1.2), where they are there."""
    if not bits.u(1):
        return False
    count = bits.ue() + 1
    bits.u(8)
    for _ in range(min(count, 32)):
        bits.ue()
        bits.ue()
        bits.u(1)
    bits.u(20)
    return True


def _cropped(bits: _Bits, width: int, height: int, unit: tuple[int, int]) -> tuple[int, int] | None:
    if bits.u(1):
        left, right, top, bottom = (bits.ue() for _ in range(4))
        width, height = width - unit[0] * (left + right), height - unit[1] * (top + bottom)
    return (width, height) if 0 < width < _MAX_SIDE and 0 < height < _MAX_SIDE else None


def avc_sets(avcc: bytes) -> tuple[list[bytes], list[bytes]] | None:
    """The sequence and the picture parameter sets of an avcC; None when it cannot be read or has none."""
    found: tuple[list[bytes], list[bytes]] = ([], [])
    at = 5
    for n, units in enumerate(found):
        count = avcc[at] & (255 if n else 31) if at < len(avcc) else 0
        at += 1
        for _ in range(count):
            size = int.from_bytes(avcc[at : at + 2], "big")
            units.append(avcc[at + 2 : at + 2 + size])
            at += 2 + size
        if not count or at > len(avcc) or not all(units):
            return None
    return found


def pps_numbers(nal: bytes) -> tuple[int, int] | None:
    """A picture parameter set's own number and that of its sequence parameter set; None when it cannot be read."""
    bits = _Bits.of_nal(nal[1:])
    try:
        return bits.ue(), bits.ue()
    except EOFError:
        return None


def joined_avcc(sps: list[bytes], pps: list[bytes]) -> bytes:
    """An avcC for pictures of several encoders: of the highest profile and level among them (14496-15 5.3.3.1.2).

    Each sequence parameter set has the level, and the numbers of pictures to be reordered and kept, that any of them
    needs. Readers of Matroska, which has no dts, work it out by the first of them; and where the number kept changes, a
    decoder may drop pictures that it has not yet shown (H.264 C.4.4). A set that does not say is of pictures that are
    not reordered.
    """
    read = [each for each in map(read_sps, sps) if each is not None]
    reorder = max((each.reorder or 0 for each in read), default=0)
    kept = max((each.kept for each in read), default=0)
    level = max(unit[3] for unit in sps)
    sps = [_reordered(unit[:3] + bytes((level,)) + unit[4:], reorder, max(reorder, kept)) for unit in sps]
    highest = max(sps, key=lambda unit: unit[1])
    made = bytearray(avcc([highest, *(unit for unit in sps if unit is not highest), *pps]))
    for unit in sps:
        made[2] &= unit[2] if unit[1] == highest[1] else 0
    return bytes(made)


def _reordered(sps: bytes, reorder: int, kept: int) -> bytes:
    """The same sequence parameter set with another max_num_reorder_frames and max_dec_frame_buffering (E.1.1).

    These are its end. Itself, where it cannot be read up to there.
    """
    payload = _unescaped(sps)
    bits = _Bits(payload[1:])
    try:
        _sequence(bits)
        begin, says = bits.left, _SAYS_NOTHING
        if bits.u(1):
            _colours(bits)
            is_there = _skip_to_reorder(bits)
            begin, says = (bits.left, "") if is_there else (bits.left + 1, _UNRESTRICTED)
    except (EOFError, IndexError):
        return sps
    for number in (reorder, kept):
        code, length = _ue_code(number)
        says += f"{code:0{length}b}"
    says += "1"
    value = int.from_bytes(payload, "big") >> begin << len(says) | int(says, 2)
    size = 8 * len(payload) - begin + len(says)
    return _escaped((value << -size % 8).to_bytes((size + 7) // 8, "big"))


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


def silence(codec: str, extradata: bytes) -> tuple[bytes, Fraction] | None:
    """A packet in which nothing is heard, and how long it lasts, in s; None where none is known.

    For AAC-LC, with SBR and PS too, of up to 5.1 channels and 1024 samples a frame, and for Opus.
    """
    if codec == "opus":
        return _OPUS_SILENCE if extradata[18:19] == b"\0" else None  # mapping family 0: one or two channels
    return _aac_silence(extradata) if codec == "aac" else None


def _aac_silence(asc: bytes) -> tuple[bytes, Fraction] | None:
    """A raw_data_block (ISO/IEC 14496-3 4.4.2.1) of elements without a single scale factor band."""
    bits = _Bits(asc[:512])
    try:
        kind, rate, layout = _aac_kind(bits), _aac_rate(bits), bits.u(4)
        if kind in (_SBR, _PS):
            _aac_rate(bits)
            kind = _aac_kind(bits)
        is_short = bits.u(1)
    except (EOFError, IndexError):
        return None
    if kind != _LC or is_short or not rate or layout not in _ELEMENTS:
        return None
    block = ""
    for n, element in enumerate(_ELEMENTS[layout]):
        tag = _ELEMENTS[layout][:n].count(element)
        block += f"{element:03b}{tag:04b}" + "0" * (1 + 2 * _SILENT_CHANNEL if element == _PAIR else _SILENT_CHANNEL)
    block += "111"  # the end
    block += "0" * (-len(block) % 8)
    return int(block, 2).to_bytes(len(block) // 8, "big"), Fraction(1024, rate)


def _aac_kind(bits: _Bits) -> int:
    kind = bits.u(5)
    return 32 + bits.u(6) if kind == _ESCAPE else kind


def _aac_rate(bits: _Bits) -> int:
    index = bits.u(4)
    return bits.u(24) if index == 15 else _RATES[index]


def _aac_elements(bits: _Bits) -> int:
    """Channels by a program_config_element, after GASpecificConfig's flags."""
    bits.u(1)
    if bits.u(1):
        bits.u(14)
    bits.u(1)
    return _program_channels(bits)


def _program_channels(bits: _Bits) -> int:
    """Channels by a program_config_element (4.4.1.1), which is read up to its alignment and comment."""
    bits.u(4 + 2 + 4)
    pairs = bits.u(4) + bits.u(4) + bits.u(4)  # front, side, back: single channels or pairs
    low, beside, coupled = bits.u(2), bits.u(3), bits.u(4)
    for size in (4, 4, 3):  # mixdowns
        if bits.u(1):
            bits.u(size)
    channels = low + sum(1 + (bits.u(5) >> 4) for _ in range(pairs))
    bits.u(4 * low + 4 * beside + 5 * coupled)
    return channels


def program_config(block: bytes) -> bytes:
    """The program_config_element that a block of AAC (raw_data_block, 4.4.2.1) begins with; b"" where there is none.

    It is aligned as it is in an AudioSpecificConfig, whose last part it is.
    """
    head = block[:512]
    bits, again = _Bits(head), _Bits(head)
    try:
        if bits.u(3) != _PROGRAM_CONFIG:
            return b""
        again.u(3)
        _program_channels(bits)
        size = again.left - bits.left
        element = again.u(size) << -size % 8
        bits.u(bits.left % 8)
        comment = len(head) - bits.left // 8
        bits.u(8 * bits.u(8))
    except EOFError:
        return b""
    return element.to_bytes((size + 7) // 8, "big") + head[comment : len(head) - bits.left // 8]


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


def renumbered_sps(nal: bytes, number: int) -> bytes:
    """The same sequence parameter set under another number."""
    payload = _unescaped(nal)
    return _escaped(payload[:4] + _with_ue(payload[4:], 0, number))


def renumbered_pps(nal: bytes, number: int, sps: int) -> bytes:
    """The same picture parameter set under another number, of a sequence parameter set with another number."""
    payload = _unescaped(nal)
    return _escaped(payload[:1] + _with_ue(_with_ue(payload[1:], 0, number), 1, sps))


def interchangeable(one: int, other: int) -> bool:
    """Whether a slice can name one picture parameter set instead of the other by `renumbered_slices`."""
    return (_ue_code(one)[1] - _ue_code(other)[1]) % 8 == 0


def renumbered_slices(data: bytes, numbers: Mapping[int, int]) -> bytes:
    """A picture, its units with four bytes of length each, whose slices name other picture parameter sets.

    numbers  old → new, `interchangeable`: then all that follows moves by whole bytes, and what CABAC has aligned stays.
    """
    made, at = [], 0
    while at + 4 < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        unit = data[at + 4 : at + 4 + size]
        if unit[0] & 31 in _SLICES:
            unit = _renumbered_slice(unit, numbers)
        made += [len(unit).to_bytes(4, "big"), unit]
        at += 4 + size
    return b"".join(made)


def _renumbered_slice(nal: bytes, numbers: Mapping[int, int]) -> bytes:
    """slice_header (7.3.3): the first macroblock, the type, the picture parameter set."""
    payload = _unescaped(nal)
    head, rest = payload[1:_SLICE_HEAD], payload[_SLICE_HEAD:]
    bits = _Bits(head)
    bits.ue()
    bits.ue()
    number = bits.ue()
    return _escaped(payload[:1] + _with_ue(head, 2, numbers.get(number, number)) + rest)


def _with_ue(payload: bytes, skip: int, number: int) -> bytes:
    """Another number in place of the ue(v) after `skip` others.

    What follows moves; where not by whole bytes, the trailing bits (7.3.2.11) are put right, so it must end with them.
    """
    bits = _Bits(payload)
    for _ in range(skip):
        bits.ue()
    begin = bits.left
    bits.ue()
    whole, end = int.from_bytes(payload, "big"), bits.left
    code, length = _ue_code(number)
    value = ((whole >> begin) << length | code) << end | whole & ((1 << end) - 1)
    size = 8 * len(payload) - begin + length + end
    if size % 8:
        zeros = (value & -value).bit_length() - 1
        pad = -(size - zeros) % 8
        value, size = value >> zeros << pad, size - zeros + pad
    return value.to_bytes(size // 8, "big")


def _ue_code(number: int) -> tuple[int, int]:
    """The bits of a ue(v), and how many they are (9.1)."""
    return number + 1, 2 * (number + 1).bit_length() - 1


def _unescaped(nal: bytes) -> bytes:
    """Without emulation prevention (7.4.1)."""
    return nal.replace(b"\0\0\3", b"\0\0")


def _escaped(payload: bytes) -> bytes:
    nal = _TO_ESCAPE.sub(b"\0\0\3", payload)
    return nal + b"\3" if nal.endswith(b"\0") else nal


def prefixed_kinds(data: bytes | memoryview) -> list[int] | None:
    """The H.264 types of the NAL units in a picture whose units have four bytes of length; None when they have not."""
    kinds, at, end = [], 0, len(data)
    while at + 4 < end:
        kinds.append(data[at + 4] & 31)
        at += 4 + int.from_bytes(data[at : at + 4], "big")
    return kinds if at == end else None


def spliced(codec: str, data: bytes) -> bytes:
    """A keyframe, its units with four bytes of length each, as it may follow any picture, once more itself too.

    HEVC's CRA goes on counting pictures from those before it: it becomes a BLA, which begins anew (H.265 7.4.2.2).
    Decoders take H.264's IDR twice, though idr_pic_id is to tell them apart (H.264 7.4.3).
    """
    if codec != "hevc":
        return data
    made, at = bytearray(data), 0
    while at + 4 < len(made):
        kind = made[at + 4] >> 1 & 63
        if kind == _HEVC_CRA:
            made[at + 4] ^= (kind ^ _HEVC_BLA) << 1
        at += 4 + int.from_bytes(made[at : at + 4], "big")
    return bytes(made)


def avcc(units: list[bytes]) -> bytes:
    """The avcC of NAL units with four bytes of length; b"" when there is no parameter set of either kind."""
    first = [unit for unit in units if unit[0] & 31 == _SPS and 4 <= len(unit) < 1 << 16][:31]
    second = [unit for unit in units if unit[0] & 31 == _PPS and len(unit) < 1 << 16][:255]
    if not first or not second:
        return b""
    made = b"\1" + first[0][1:4] + bytes((0xFF, 0xE0 | len(first))) + _sized(first)
    made += bytes((len(second),)) + _sized(second)
    read = None if first[0][1] in _WITHOUT_FORMAT else read_sps(first[0])
    if read is not None:
        made += bytes((0xFC | read.chroma, 0xF8 | read.luma_depth - 8, 0xF8 | read.chroma_depth - 8, 0))
    return made


def hvcc(units: list[bytes]) -> bytes:
    """The hvcC (ISO/IEC 14496-15 8.3.3) of NAL units with parameter sets; b"" when one is missing."""
    arrays = {kind: [unit for unit in units if unit[0] >> 1 & 63 == kind] for kind in (_HEVC_VPS, _HEVC_SPS, _HEVC_PPS)}
    if not all(arrays.values()):
        return b""
    sps = _unescaped(arrays[_HEVC_SPS][0])
    if len(sps) < 15:
        return b""
    layers, nested = (sps[2] >> 1 & 7) + 1, sps[2] & 1
    depth = 2 if sps[3] & 31 == 2 else 0  # Main 10; decoders read the SPS itself
    made = (
        b"\1"
        + sps[3:15]
        + bytes((0xF0, 0, 0xFC, 0xFD, 0xF8 | depth, 0xF8 | depth, 0, 0, layers << 3 | nested << 2 | 3))
    )
    made += bytes((len(arrays),))
    for kind, sets in arrays.items():
        made += bytes((0x80 | kind,)) + len(sets).to_bytes(2, "big") + _sized(sets)
    return made


def _sized(units: list[bytes]) -> bytes:
    return b"".join(len(unit).to_bytes(2, "big") + unit for unit in units)
