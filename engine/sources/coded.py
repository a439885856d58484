"""Films as they are coded: an index of their packets, and the packets themselves, for copying instead of encoding.

It decides whose packets an output can take as they are; it refuses to know which of them it takes, and where they go.
Worker threads only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from fractions import Fraction
from typing import Any, Final, TypeAlias

import av
from av.container import InputContainer
from av.stream import Discard, Disposition
from av.video.reformatter import ColorRange, Colorspace

from engine import smart
from engine.bitstream import (
    avc_sets,
    interchangeable,
    pps_numbers,
    prefixed_kinds,
    read_sps,
    renumbered_pps,
    renumbered_slices,
    renumbered_sps,
)
from engine.config import Settings
from engine.errors import SourceError, SourceMalformed
from engine.program import Held, Program
from engine.smart import Copy, Index, Run, Unseen
from engine.sources.avfile import open_container
from engine.sources.convert import UPRIGHT, orientation_of, tags_of
from engine.spec import RenderSpec
from engine.timebase import seconds, tick_count

Packet: TypeAlias = "av.Packet[Any]"

_FORMATS: Final = ("mov", "matroska", "flv")  # whose H.264 comes with all that opens a decoder, and times for each
_KINDS: Final = frozenset((1, 5, 6, 9, 12))  # NAL units: slices, SEI, delimiters, filler; no parameter sets among them
_IDR: Final = 5
_COLOURS: Final = (Colorspace.ITU709, ColorRange.MPEG)
_NUMBERS: Final = range(32)  # of sequence parameter sets
_PPS_NUMBERS: Final = 256
_OPEN: Final = 8  # files at once
_BACK: Final = 12  # seconds; a demuxer's idea of a keyframe may be another one
_ERRORS: Final = (av.error.FFmpegError, OSError, ValueError, IndexError)


class CodedFilm:
    """The picture of one opened file, packet by packet.

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
        self._zero = max(Fraction(0), Fraction(container.start_time or 0, av.time_base))
        self._time_base = stream.time_base or Fraction(1, av.time_base)

    @property
    def is_open(self) -> bool:
        """Whether its file is."""
        return self._opened is not None

    def open(self) -> tuple[InputContainer, av.VideoStream]:
        """Its file, opened unless it is open, and the picture in it. Raises as when it is made."""
        if self._opened is None:
            container = open_container(self.guid, self._url, self._settings, glance=True)
            best = container.streams.best("video")
            if not isinstance(best, av.VideoStream) or best.disposition & Disposition.attached_pic:
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
        context, aspect = stream.codec_context, stream.sample_aspect_ratio
        if context.name != "h264" or container.format.name.split(",")[0] not in _FORMATS:
            raise ValueError("not in H.264")
        tags = int(context.colorspace), int(context.color_range)
        context.thread_type = "NONE"
        picture = _first(container, stream)
        if picture is None or picture.format.name != "yuv420p" or tags_of(picture, tags) != _COLOURS:
            raise ValueError("not in the working format")
        if aspect not in (None, 0, 1) or orientation_of(picture) != UPRIGHT:
            raise ValueError("not upright with square pixels")

    def _read_sets(self) -> None:
        avcc = bytes(self.open()[1].codec_context.extradata or b"")
        sets = avc_sets(avcc) if avcc[:1] == b"\1" and avcc[4:5] and avcc[4] & 3 == 3 else None
        if sets is None:
            raise ValueError("no parameter sets, or other lengths than of four bytes")
        sps = {unit: read_sps(unit) for unit in sets[0]}
        pps = {unit: pps_numbers(unit) for unit in sets[1]}
        read = [each for each in sps.values() if each is not None]
        same = all((each.width, each.height) == (self.width, self.height) and each.progressive for each in read)
        if not same or len(read) < len(sps) or not all(pps.values()):
            raise ValueError("fields, several sizes, or parameter sets that cannot be read")
        self.profiles = {each.profile for each in read}
        self.reorders = all(each.reorder is not None for each in read)
        self._numbered = (
            {each.number: unit for unit, each in sps.items() if each is not None},
            {each[0]: unit for unit, each in pps.items() if each is not None},
        )

    def number(self, numbering: Numbering) -> bool:
        """Gives its parameter sets numbers beside those of other films; False when there are not enough."""
        numbers = numbering.take(*self._numbered)
        self._numbers = {old: new for old, new in (numbers or {}).items() if old != new}
        return numbers is not None

    def index(self, start: Fraction, stop: Fraction) -> Index:
        """The pictures from the IDR picture at or before `start` to the last one shown at `stop`, and a few more.

        Raises ValueError when there is something among them that cannot be copied.
        """
        index = Index(self._time_base, self._zero, [], [])
        last = index.unit(stop)
        beyond = 0
        for packet in self._from(index.unit(start)):
            kinds = prefixed_kinds(memoryview(packet))
            if kinds is None or not _KINDS.issuperset(kinds) or packet.pts is None or packet.is_discard:
                raise ValueError("a packet that is not one plain picture")
            if not index.pts and _IDR not in kinds:
                continue
            index.pts.append(packet.pts)
            index.idr.append(_IDR in kinds)
            beyond += packet.pts > last
            if beyond > smart.MAX_REORDER:
                break
        if len(set(index.pts)) < len(index.pts):
            raise ValueError("two pictures at one time")
        return index

    def packets(self, key: int, count: int) -> Iterator[Packet]:
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
        except _ERRORS as err:
            raise self._broken(key) from err
        raise self._broken(key)

    def _renumbered(self, packet: Packet) -> Packet:
        made: Packet = av.Packet(renumbered_slices(bytes(packet), self._numbers))
        made.pts, made.is_keyframe = packet.pts, packet.is_keyframe
        return made

    def _broken(self, key: int) -> SourceError:
        at = float(seconds(key, self._time_base) - self._zero)
        return SourceMalformed(f'source "{self.guid}": breaks off after {at:.3f} s', where=self.guid)

    def _from(self, pts: int) -> Iterator[Packet]:
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


def _first(container: InputContainer, stream: av.VideoStream) -> av.VideoFrame | None:
    """The first picture."""
    packet = next(container.demux(stream), None)
    pictures = [] if packet is None else stream.decode(packet) + stream.decode(None)
    return next((picture for picture in pictures if isinstance(picture, av.VideoFrame)), None)


class Splice:
    """What of a render is copied, from which films, and how their coded pictures and the encoder's are told apart.

    program   what is left to be mixed.
    copies    in order.
    films     by name; `close` closes them.
    sps, pps  all parameter sets of the films, by number.
    number    of the encoder's own parameter sets: no film's.
    """

    def __init__(self, program: Program, spec: RenderSpec, copies: list[Copy], films: dict[str, CodedFilm]) -> None:
        numbering = Numbering()
        copied = Counter[str]()
        for copy in copies:
            copied[copy.name] += len(copy.ticks)
        self.films = {name: films[name] for name, _ in copied.most_common() if films[name].number(numbering)}
        self.copies = [copy for copy in copies if copy.name in self.films]
        self.program = Unseen(program, self.copies, start=spec.start, fps=spec.mixer.fps)
        self.sps, self.pps, self.number = numbering.sps, numbering.pps, numbering.free or 0

    @property
    def template(self) -> av.VideoStream:
        """A stream such as the copies come from."""
        return self.films[self.copies[0].name].open()[1]

    def packets(self, copy: Copy) -> Iterator[Packet]:
        """The packets of a copy, in the order of decoding. Raises SourceError."""
        return _opened(copy.name, self.films).packets(copy.key, len(copy.ticks))

    def close(self) -> None:
        """Lets go of the films."""
        for film in self.films.values():
            film.close()


def find_splice(program: Program, spec: RenderSpec, settings: Settings) -> Splice | None:
    """What can be copied of a render; None when nothing can be. What is wrong with a source the mix itself will tell.

    It reads the program, tick by tick, and of the films that it shows untouched the packets that it shows.
    """
    if spec.duration is None or not smart.may_copy(spec.encoder):
        return None
    fps, raster = spec.mixer.fps, spec.mixer.raster
    if isinstance(program, Held) and smart.untouched(program.tree.root_video_node, raster) is None:
        return None  # nor will it be later
    runs = smart.runs(program, start=spec.start, ticks=tick_count(spec.duration, fps), fps=fps, raster=raster)
    films = _films(runs, spec, settings)
    copies = [copy for run in runs if run.name in films for copy in _copies(run, films, spec)]
    splice = Splice(program, spec, copies, films)
    for name in films.keys() - splice.films.keys():
        films[name].close()
    return splice if splice.copies else None


def _films(runs: list[Run], spec: RenderSpec, settings: Settings) -> dict[str, CodedFilm]:
    """The films of some runs that are local files, and whose packets the output can take; by name."""
    films: dict[str, CodedFilm] = {}
    for name in dict.fromkeys(run.name for run in runs):
        url = spec.sources.get(name, name)
        if url.startswith("pattern:") or "://" in url:
            continue
        with suppress(SourceError, *_ERRORS):
            film = CodedFilm(name, url, settings=settings)
            same = (film.width, film.height) == (spec.mixer.raster.width, spec.mixer.raster.height)
            profiles = film.profiles if same else ()
            if profiles and all(smart.may_have(spec.encoder, profile=n, bit_rate=film.bit_rate) for n in profiles):
                films[name] = film
                _opened(name, films)
            else:
                film.close()
    return films


def _opened(name: str, films: Mapping[str, CodedFilm]) -> CodedFilm:
    """The film of that name; of those that are open, one is closed when they are too many."""
    film = films[name]
    others = [each for each in films.values() if each.is_open and each is not film]
    if len(others) >= _OPEN:
        others[0].close()
    return film


def _copies(run: Run, films: Mapping[str, CodedFilm], spec: RenderSpec) -> list[Copy]:
    film = _opened(run.name, films)
    try:
        index = film.index(run.times[0], run.times[-1] + 1 / spec.mixer.fps)
    except (SourceError, *_ERRORS):
        return []
    found = smart.copies(run, index, fps=spec.mixer.fps, spec=spec.encoder)
    return [copy for copy in found if film.reorders or not copy.delay]


class Numbering:
    """Numbers for the parameter sets of several films: each content has its own, and one is left for an encoder's.

    sps, pps  the sets by their new numbers.
    """

    def __init__(self) -> None:
        self.sps: dict[int, bytes] = {}
        self.pps: dict[int, bytes] = {}

    @property
    def free(self) -> int | None:
        """The first number that no set of either kind has; None when there is none."""
        return _free(self.sps, self.pps)

    def take(self, sps: Mapping[int, bytes], pps: Mapping[int, bytes]) -> dict[int, int] | None:
        """A film's sets by their own numbers → the new numbers of those of pictures; None when numbers run out."""
        all_sps, all_pps = dict(self.sps), dict(self.pps)
        parents: dict[int, int] = {}
        numbers: dict[int, int] = {}
        for old, unit in sps.items():
            places = ((n, renumbered_sps(unit, n)) for n in (old, *_NUMBERS))
            if not _place(old, places, all_sps, parents):
                return None
        for old, unit in pps.items():
            parent = parents.get((pps_numbers(unit) or (0, -1))[1])
            if parent is None:
                return None
            others = (n for n in (old, *range(_PPS_NUMBERS)) if interchangeable(old, n))
            if not _place(old, ((n, renumbered_pps(unit, n, parent)) for n in others), all_pps, numbers):
                return None
        if _free(all_sps, all_pps) is None:
            return None
        self.sps, self.pps = all_sps, all_pps
        return numbers


def _place(old: int, places: Iterable[tuple[int, bytes]], taken: dict[int, bytes], numbers: dict[int, int]) -> bool:
    """Puts a set where nothing is, or the very same."""
    for number, unit in places:
        if taken.setdefault(number, unit) == unit:
            numbers[old] = number
            return True
    return False


def _free(sps: Mapping[int, bytes], pps: Mapping[int, bytes]) -> int | None:
    return min(set(_NUMBERS) - sps.keys() - pps.keys(), default=None)
