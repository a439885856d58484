"""ISO boxes: which bytes say how tracks are coded (an init segment), and which bring their samples (a fragment).

It decides how tracks and samples are written; it refuses to know when a fragment is cut and when its samples are on.

Specifications: ISO/IEC 14496-12 (boxes), 14496-14 (esds), 14496-15 (avcC, hvcC), "Encapsulation of Opus in ISOBMFF".
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from typing import Final, NamedTuple

from engine import bitstream
from engine.packet import UPRIGHT, Kind, Orientation, Track

_LEAST_SCALE: Final = 1000
_U32: Final = 0xFFFFFFFF
_SYNC: Final = 0x02000000  # depends on no other sample
_NON_SYNC: Final = 0x01010000
_UNDEFINED: Final = b"\x55\xc4"  # language "und"


class Sample(NamedTuple):
    """A packet of a track, in units of its time scale.

    composition  how long after it is decoded it is shown.
    """

    data: bytes
    dts: int
    composition: int
    keyframe: bool
    duration: int


class Run(NamedTuple):
    """The samples of one track in a fragment, at least one.

    number       of the track: 1 for the first of the init segment.
    decode_time  of the first sample, in units of its time scale.
    """

    number: int
    kind: Kind
    decode_time: int
    samples: Sequence[Sample]


def time_scale(time_base: Fraction) -> tuple[int, int]:
    """A time scale of at least 1000 in which all times of a time base are whole, and how many units one of it is."""
    times = -(-_LEAST_SCALE // time_base.denominator)
    return time_base.denominator * times, time_base.numerator * times


def fragment(number: int, runs: Sequence[Run]) -> bytes:
    """moof and mdat, the samples of a track behind one another (ISO/IEC 14496-12 8.8)."""
    head = _full_box(b"mfhd", 0, 0, struct.pack(">I", number))
    trafs = [_traf(run, 0) for run in runs]  # only their sizes are right
    offset = 8 + len(head) + sum(map(len, trafs)) + 8
    bodies = []
    for n, run in enumerate(runs):
        trafs[n] = _traf(run, offset)
        bodies += [sample.data for sample in run.samples]
        offset += sum(len(sample.data) for sample in run.samples)
    return _box(b"moof", head, *trafs) + _box(b"mdat", *bodies)


def _traf(run: Run, offset: int) -> bytes:
    return _box(
        b"traf",
        _full_box(b"tfhd", 0, 0x020000, struct.pack(">I", run.number)),  # offsets count from the moof
        _full_box(b"tfdt", 1, 0, struct.pack(">Q", run.decode_time)),
        _trun(run.samples, offset) if run.kind == "video" else _sound_trun(run.samples, offset),
    )


def _trun(samples: Sequence[Sample], offset: int) -> bytes:
    """Of each sample: length, bytes, flags, signed composition offset."""
    numbers: list[int] = []
    for sample in samples:
        flags = _SYNC if sample.keyframe else _NON_SYNC
        numbers += (sample.duration, len(sample.data), flags, sample.composition & _U32)
    return _full_box(b"trun", 1, 0xF01, struct.pack(f">Ii{len(numbers)}I", len(samples), offset, *numbers))


def _sound_trun(samples: Sequence[Sample], offset: int) -> bytes:
    """Of each sample: length, bytes; all are as trex says."""
    numbers = [number for sample in samples for number in (sample.duration, len(sample.data))]
    return _full_box(b"trun", 1, 0x301, struct.pack(f">Ii{len(numbers)}I", len(samples), offset, *numbers))


def init_segment(tracks: Sequence[Track]) -> bytes:
    """ftyp and moov of one or two tracks, each of which `fmp4.is_muxable`."""
    brands = b"iso6" + struct.pack(">I", 0) + b"iso6mp41dash"
    times = struct.pack(">4I", 0, 0, 1000, 0)
    rest = struct.pack(">IH10x", 0x10000, 0x100) + _turning(None) + bytes(24) + struct.pack(">I", len(tracks) + 1)
    moov = _box(
        b"moov",
        _full_box(b"mvhd", 0, 0, times + rest),
        *(_trak(number, track) for number, track in enumerate(tracks, 1)),
        _box(b"mvex", *(_trex(number, track) for number, track in enumerate(tracks, 1))),
    )
    return _box(b"ftyp", brands) + moov


def _trex(number: int, track: Track) -> bytes:
    flags = _NON_SYNC if track.kind == "video" else _SYNC
    return _full_box(b"trex", 0, 0, struct.pack(">5I", number, 1, 0, 0, flags))


def _trak(number: int, track: Track) -> bytes:
    is_video = track.kind == "video"
    width, height = _size(track) if is_video else (0, 0)
    volume = 0 if is_video else 0x100
    head = struct.pack(">5I8x4H", 0, 0, number, 0, 0, 0, 0, volume, 0) + _turning(track.look.orientation)
    wide = round((width << 16) * (track.look.aspect or 1))
    times = struct.pack(">4I", 0, 0, time_scale(track.time_base)[0], 0)
    name = b"vide" if is_video else b"soun"
    media = _full_box(b"vmhd", 0, 1, bytes(8)) if is_video else _full_box(b"smhd", 0, 0, bytes(4))
    tables = [_full_box(kind, 0, 0, bytes(size)) for kind, size in ((b"stts", 4), (b"stsc", 4), (b"stsz", 8))]
    entry = _picture_entry(track) if is_video else _sound_entry(track)
    return _box(
        b"trak",
        _full_box(b"tkhd", 0, 3, head + struct.pack(">2I", min(_U32, wide), height << 16)),
        _box(
            b"mdia",
            _full_box(b"mdhd", 0, 0, times + _UNDEFINED + bytes(2)),
            _full_box(b"hdlr", 0, 0, bytes(4) + name + bytes(12) + name + b"\0"),
            _box(
                b"minf",
                media,
                _box(b"dinf", _full_box(b"dref", 0, 0, struct.pack(">I", 1), _full_box(b"url ", 0, 1))),
                _box(
                    b"stbl",
                    _full_box(b"stsd", 0, 0, struct.pack(">I", 1), entry),
                    *tables,
                    _full_box(b"stco", 0, 0, bytes(4)),
                ),
            ),
        ),
    )


def _turning(orientation: Orientation | None) -> bytes:
    """The matrix of a header that makes its picture upright (ISO/IEC 14496-12 8.3.2)."""
    transposed, flip_x, flip_y = orientation or UPRIGHT
    x, y = (0xFFFF0000 if flip else 0x10000 for flip in (flip_x, flip_y))
    a, b, c, d = (0, y, x, 0) if transposed else (x, 0, 0, y)
    return struct.pack(">9I", a, b, 0, c, d, 0, 0, 0, 0x40000000)


def _size(track: Track) -> tuple[int, int]:
    read = bitstream.avc_size if track.codec == "h264" else bitstream.hevc_size
    return read(track.extradata) or (track.width & 0xFFFF, track.height & 0xFFFF)


def _picture_entry(track: Track) -> bytes:
    """avc1 with avcC, or hvc1 with hvcC, and the pixel's aspect; 72 dots an inch, 24 bits a pixel."""
    width, height = _size(track)
    entry, config = (b"avc1", b"avcC") if track.codec == "h264" else (b"hvc1", b"hvcC")
    head = struct.pack(">6xH16x2H2I4xH32xHh", 1, width, height, 0x480000, 0x480000, 1, 24, -1)
    aspect = track.look.aspect
    shape = b"" if aspect is None else _box(b"pasp", struct.pack(">2I", aspect.numerator, aspect.denominator))
    return _box(entry, head, _box(config, track.extradata), shape)


def _sound_entry(track: Track) -> bytes:
    """mp4a with esds, or Opus with dOps."""
    if track.codec == "opus":
        rate, channels, config = 48000, track.extradata[9], _box(b"dOps", _opus_config(track.extradata))
    else:
        rate, channels = bitstream.aac_format(track.extradata) or (track.rate, track.channels)
        config = _full_box(b"esds", 0, 0, _aac_config(track.extradata))
    head = struct.pack(">6xH8x2H4xI", 1, channels, 16, rate << 16 if rate < 1 << 16 else 0)
    return _box(b"mp4a" if track.codec == "aac" else b"Opus", head, config)


def _aac_config(asc: bytes) -> bytes:
    """An ES_Descriptor (ISO/IEC 14496-1 7.2.6.5) of MPEG-4 audio, 0x40, in an audio stream, 5 << 2 | 1."""
    decoder = struct.pack(">2B3x2I", 0x40, 0x15, 0, 0) + _descriptor(5, asc)
    return _descriptor(3, struct.pack(">HB", 0, 0) + _descriptor(4, decoder) + _descriptor(6, b"\2"))


def _descriptor(tag: int, body: bytes) -> bytes:
    size = len(body)
    return bytes((tag, 0x80 | size >> 21 & 127, 0x80 | size >> 14 & 127, 0x80 | size >> 7 & 127, size & 127)) + body


def _opus_config(head: bytes) -> bytes:
    """OpusHead (RFC 7845 5.1) has the same fields in the other byte order, after a magic number and its version."""
    channels, skip, rate, gain = struct.unpack("<BHIh", head[9:18])
    return struct.pack(">2BHIh", 0, channels, skip, rate, gain) + head[18:]


def _box(kind: bytes, *parts: bytes) -> bytes:
    return b"".join(((8 + sum(map(len, parts))).to_bytes(4, "big"), kind, *parts))


def _full_box(kind: bytes, version: int, flags: int, *parts: bytes) -> bytes:
    return _box(kind, (version << 24 | flags).to_bytes(4, "big"), *parts)
