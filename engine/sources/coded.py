"""Films as they are coded: an index of their packets, and the packets themselves, for copying instead of encoding.

It decides whose packets an output can take as they are; it refuses to know which of them it takes, and where they go.
Worker threads only.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Final

import av
from av.container import InputContainer
from av.stream import Discard
from av.video.reformatter import ColorRange, Colorspace

from engine.bitstream import Sps, avc_sets, pps_numbers, prefixed_kinds, read_sps, renumbered_slices
from engine.config import Settings
from engine.errors import SourceError, SourceMalformed
from engine.packet import UPRIGHT
from engine.smart import MAX_REORDER, Index
from engine.sources.container import DEMUX_ERRORS, AvPacket, best_stream, is_flv, open_container
from engine.sources.convert import orientation_of, tags_of
from engine.sources.tracks import NEW_SETS, is_unordered, zero_of
from engine.timebase import seconds

_FORMATS: Final = ("mov", "matroska", "flv")  # whose H.264 comes with all that opens a decoder, and times for each
_KINDS: Final = frozenset((1, 5, 6, 9, 12))  # NAL units: slices, SEI, delimiters, filler; no parameter sets among them
_IDR: Final = 5
_COLOURS: Final = (Colorspace.ITU709, ColorRange.MPEG)
_UPRIGHT: Final = (0x10000, 0, 0, 0, 0x10000)  # the first five numbers of a matrix
_MAX_MOOV: Final = 256 << 20  # bytes
_BACK: Final = 12  # seconds; a demuxer's idea of a keyframe may be another one


class CodedFilm:
    """The picture of one opened file, packet by packet.

    sps, pps  its parameter sets by their numbers.
    reorders  whether it says how many pictures are decoded ahead of showing: where several films are spliced, a decoder
              that has to guess leaves pictures out.
    """

    def __init__(self, guid: str, url: str, *, settings: Settings) -> None:
        """Raises SourceError when it cannot be opened, ValueError when its packets cannot be copied; and libav's."""
        self.guid, self._url, self._settings = guid, url, settings
        self._opened: tuple[InputContainer, av.VideoStream] | None = None
        self._numbers: dict[int, int] = {}  # of picture parameter sets, as they are and as they shall be
        container, stream = self.open()
        try:
            self._check_picture()
            self.width, self.height = stream.codec_context.width, stream.codec_context.height
            self.bit_rate = stream.codec_context.bit_rate or container.bit_rate
            self._read_sets()
        except BaseException:
            self.close()
            raise
        self._zero = zero_of(container)
        self._time_base = stream.time_base or Fraction(1, av.time_base)

    @property
    def is_open(self) -> bool:
        """Whether its file is."""
        return self._opened is not None

    def open(self) -> tuple[InputContainer, av.VideoStream]:
        """Its file, opened unless it is open, and the picture in it. Raises as when it is made."""
        if self._opened is None:
            container = open_container(self.guid, self._url, self._settings, glance=True)
            best = best_stream(container, "video")
            if best is None:
                container.close()
                raise ValueError("no picture")
            for each in container.streams:
                each.discard = Discard.default if each is best else Discard.all
            self._opened = container, best
        return self._opened

    def close(self) -> None:
        """Closes its file; it can be opened again."""
        opened, self._opened = self._opened, None
        if opened is not None:
            opened[0].close()

    def _check_picture(self) -> None:
        """Whether it is H.264 in the working format, upright, with square pixels. Raises ValueError."""
        container, stream = self.open()
        if stream.codec_context.name != "h264" or container.format.name.split(",")[0] not in _FORMATS:
            raise ValueError("not in H.264")
        if is_unordered(stream):
            raise ValueError("no presentation times")
        head = moov_of(self._url.removeprefix("file:")) if container.format.name.startswith("mov") else None
        if stream.sample_aspect_ratio not in (None, 0, 1) or not self._is_upright(head):
            raise ValueError("not upright with square pixels")
        if self._changes(head):
            raise ValueError("parameter sets that change")

    def _is_upright(self, head: bytes | None) -> bool:
        """As the head of an MP4 says; in Matroska only a decoded picture does."""
        container, stream = self.open()
        if head is not None:
            return is_upright(head)
        stream.codec_context.thread_type = "NONE"
        packet = next(container.demux(stream), None)
        pictures = [] if packet is None else stream.decode(packet) + stream.decode(None)
        upright = [orientation_of(picture) == UPRIGHT for picture in pictures if isinstance(picture, av.VideoFrame)]
        return upright[:1] == [True]

    def _changes(self, head: bytes | None) -> bool:
        """Whether other parameter sets come later: an MP4's head has them all, an FLV's stand among its packets."""
        container, stream = self.open()
        if head is not None:
            return has_several_formats(head)
        if not is_flv(container):
            return False
        first = bytes(stream.codec_context.extradata or b"")
        sets = (each.get_sidedata(NEW_SETS) for each in container.demux(stream) if each.has_sidedata(NEW_SETS))
        return any(bytes(each) != first for each in sets)

    def _read_sets(self) -> None:
        avcc = bytes(self.open()[1].codec_context.extradata or b"")
        sets = avc_sets(avcc) if avcc[:1] == b"\1" and avcc[4:5] and avcc[4] & 3 == 3 else None
        if sets is None:
            raise ValueError("no parameter sets, or other lengths than of four bytes")
        sps = {unit: read_sps(unit) for unit in sets[0]}
        pps = {unit: pps_numbers(unit) for unit in sets[1]}
        read = [each for each in sps.values() if each is not None]
        if len(read) < len(sps) or not all(pps.values()) or not all(self._is_plain(each) for each in read):
            raise ValueError("parameter sets that cannot be read, fields, several sizes, or other formats and colours")
        self.profiles = {each.profile for each in read}
        self.level = max(each.level for each in read)
        self.reorders = all(each.reorder is not None for each in read)
        self.sps = {each.number: unit for unit, each in sps.items() if each is not None}
        self.pps = {each[0]: unit for unit, each in pps.items() if each is not None}

    def _is_plain(self, sps: Sps) -> bool:
        """Whether its pictures are in the working format and all of one size."""
        context = self.open()[1].codec_context
        picture = av.VideoFrame(sps.width, sps.height, "yuv420p")
        picture.colorspace = 2 if sps.matrix is None else sps.matrix
        picture.color_range = 0 if sps.full_range is None else 1 + sps.full_range
        tags = tags_of(picture, (int(context.colorspace), int(context.color_range)))
        form = sps.chroma, sps.luma_depth, sps.chroma_depth, sps.progressive, sps.width, sps.height
        return form == (1, 8, 8, True, self.width, self.height) and tags == _COLOURS

    def renumber(self, numbers: Mapping[int, int]) -> None:
        """From now on its packets name other picture parameter sets: numbers as they are → as they shall be."""
        self._numbers = {old: new for old, new in numbers.items() if old != new}

    def index(self, start: Fraction, stop: Fraction) -> Index:
        """The pictures from the IDR picture at or before `start` to the last one shown at `stop`, and a few more.

        Whole GOPs only where a packet comes between that is not one plain picture, or not to be shown.
        """
        index = Index(self._time_base, self._zero, [], [])
        last = index.unit(stop)
        beyond = 0
        for packet in self._from(index.unit(start)):
            kinds = _plain_kinds(packet)
            if not kinds:
                _drop_gop(index)
                if index.pts:
                    break
            elif index.pts or _IDR in kinds:
                index.pts.append(packet.pts or 0)
                index.idr.append(_IDR in kinds)
                beyond += index.pts[-1] > last
            if beyond > MAX_REORDER:
                break
        return index if len(set(index.pts)) == len(index.pts) else Index(self._time_base, self._zero, [], [])

    def packets(self, key: int, count: int) -> Iterator[AvPacket]:
        """So many packets, in the order of decoding, from the one with the pts `key` on. Raises SourceError."""
        left = count
        try:
            for packet in self._from(key):
                if left == count and packet.pts != key:
                    continue
                yield self._renumbered(packet) if self._numbers else packet
                left -= 1
                if not left:
                    return
        except DEMUX_ERRORS as err:
            raise self._broken(key) from err
        raise self._broken(key)

    def _renumbered(self, packet: AvPacket) -> AvPacket:
        made: AvPacket = av.Packet(renumbered_slices(bytes(packet), self._numbers))
        made.pts, made.is_keyframe = packet.pts, packet.is_keyframe
        return made

    def _broken(self, key: int) -> SourceError:
        at = float(seconds(key, self._time_base) - self._zero)
        return SourceMalformed(f'source "{self.guid}": breaks off after {at:.3f} s', where=self.guid)

    def _from(self, pts: int) -> Iterator[AvPacket]:
        """The packets from a keyframe at or before `pts` on, as near as can be."""
        container, stream = self.open()
        for back in (0, int(_BACK / self._time_base), None):
            container.seek(0 if back is None else max(0, pts - back), stream=stream)
            packets = (packet for packet in container.demux(stream) if packet.size)
            first = next(packets, None)
            if first is not None and (back is None or (first.pts is not None and first.pts <= pts)):
                yield first
                yield from packets
                return


def _plain_kinds(packet: AvPacket) -> list[int]:
    """What NAL units it has; none when it is anything but one picture that is shown."""
    kinds = prefixed_kinds(memoryview(packet))
    plain = kinds is not None and _KINDS.issuperset(kinds) and packet.pts is not None and not packet.is_discard
    return kinds if kinds is not None and plain else []


def _drop_gop(index: Index) -> None:
    """Takes away the last GOP, which is not whole."""
    first = max((n for n, idr in enumerate(index.idr) if idr), default=0)
    del index.pts[first:], index.idr[first:]


def has_several_formats(moov: bytes) -> bool:
    """Whether an MP4 has a track whose samples are not all described alike (ISO 14496-12 8.5.2)."""
    boxes = [moov]
    for name in (b"trak", b"mdia", b"minf", b"stbl", b"stsd"):
        boxes = [body for box in boxes for kind, body in _boxes(box) if kind == name]
    return any(int.from_bytes(body[4:8], "big") > 1 for body in boxes)


def moov_of(path: str) -> bytes:
    """The head of an MP4; nothing where there is none."""
    with Path(path).open("rb") as file:
        while len(head := file.read(16)) == 16:
            size, kind = int.from_bytes(head[:4], "big"), head[4:8]
            body = 8
            if size == 1:
                size, body = int.from_bytes(head[8:], "big"), 16
            if size < body:
                break
            if kind == b"moov":
                file.seek(body - 16, 1)
                return file.read(min(size - body, _MAX_MOOV))
            file.seek(size - 16, 1)
    return b""


def is_upright(moov: bytes) -> bool:
    """Whether an MP4's pictures are shown as they are stored, not turned and not mirrored; False when it is unclear.

    Of all its tracks: what comes after their times (ISO 14496-12 8.2.2, 8.3.2).
    """
    heads = [(body, 36) for kind, body in _boxes(moov) if kind == b"mvhd"]
    tracks = [body for kind, body in _boxes(moov) if kind == b"trak"]
    heads += [(body, 40) for track in tracks for kind, body in _boxes(track) if kind == b"tkhd"]
    matrices = [body[at + 12 * body[0] :][:36] for body, at in heads if body]
    return bool(matrices) and all(struct.unpack(">5I", each[:20]) == _UPRIGHT for each in matrices if len(each) == 36)


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while 8 <= (size := int.from_bytes(data[at : at + 4], "big")) <= len(data) - at:
        yield data[at + 4 : at + 8], data[at + 8 : at + size]
        at += size
