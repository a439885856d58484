"""What of a render is copied: which films are opened for it, and how their coded pictures are told apart.

It decides which copies of a program's films go into one output; it refuses to know how that is written. Worker threads
only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Final

import av

from engine import smart
from engine.bitstream import interchangeable, pps_numbers, renumbered_pps, renumbered_sps
from engine.config import Settings
from engine.errors import SourceError
from engine.program import Held, Program
from engine.smart import Copy, Run, Unseen
from engine.sources.coded import CodedFilm
from engine.sources.container import DEMUX_ERRORS, AvPacket
from engine.spec import EncoderSpec, MixerSpec, RenderSpec
from engine.timebase import tick_count

_NUMBERS: Final = range(32)  # of sequence parameter sets
_PPS_NUMBERS: Final = 256
_OPEN: Final = 8  # files at once


class Splice:
    """What of a render is copied, from which films, and how their coded pictures and the encoder's are told apart.

    program   what is left to be mixed.
    copies    in order.
    films     by name; `close` closes them. Those that nothing is copied of are closed at once.
    sps, pps  all parameter sets of the films, by number.
    number    of the encoder's own parameter sets: no film's.
    """

    def __init__(self, program: Program, spec: RenderSpec, copies: list[Copy], films: dict[str, CodedFilm]) -> None:
        numbering = Numbering()
        copied = Counter[str]()
        for copy in copies:
            copied[copy.name] += len(copy.ticks)
        self.films: dict[str, CodedFilm] = {}
        for name, _ in copied.most_common():
            numbers = numbering.take(films[name].sps, films[name].pps)
            if numbers is not None:
                films[name].renumber(numbers)
                self.films[name] = films[name]
        for name in films.keys() - self.films.keys():
            films[name].close()
        self.copies = [copy for copy in copies if copy.name in self.films]
        self.program = Unseen(program, self.copies, start=spec.start, fps=spec.mixer.fps)
        self.sps, self.pps, self.number = numbering.sps, numbering.pps, numbering.free or 0

    @property
    def template(self) -> av.VideoStream:
        """A stream such as the copies come from."""
        return self.films[self.copies[0].name].open()[1]

    def packets(self, copy: Copy) -> Iterator[AvPacket]:
        """The packets of a copy, in the order of decoding. Raises SourceError."""
        film = self.films[copy.name]
        _make_room(film, self.films.values())
        return film.packets(copy.key, len(copy.ticks))

    def close(self) -> None:
        """Lets go of the films."""
        for film in self.films.values():
            film.close()


def find_splice(program: Program, spec: RenderSpec, settings: Settings, *, encoder: EncoderSpec) -> Splice | None:
    """What can be copied of a render; None when nothing can be. What is wrong with a source the mix itself will tell.

    It reads the program, tick by tick, and of the films that it shows untouched the packets that it shows.
    """
    if spec.length is None or not smart.may_copy(encoder):
        return None
    fps, raster = spec.mixer.fps, spec.mixer.raster
    if isinstance(program, Held):
        node = smart.untouched(program.tree.root_video_node, raster)
        if node is None or not _is_file(node.stream_guid, spec):
            return None  # nor will it be later
    ticks = tick_count(spec.length, fps)
    films: dict[str, CodedFilm | None] = {}  # None: one that the output cannot take
    copies: list[Copy] = []
    for run in smart.runs(program, start=spec.start, ticks=ticks, fps=fps, raster=raster):
        if run.name not in films:
            films[run.name] = _film(run.name, spec, settings, encoder)
        film = films[run.name]
        if film is not None:
            _make_room(film, films.values())
            copies += _copies(run, film, spec.mixer, encoder)
    splice = Splice(program, spec, copies, {name: film for name, film in films.items() if film is not None})
    return splice if splice.copies else None


def _film(name: str, spec: RenderSpec, settings: Settings, encoder: EncoderSpec) -> CodedFilm | None:
    """A film that is a local file, and whose packets the output can take."""
    if not _is_file(name, spec):
        return None
    with suppress(SourceError, *DEMUX_ERRORS):
        film = CodedFilm(name, spec.sources.get(name, name), settings=settings)
        fits = (film.width, film.height) == (spec.mixer.raster.width, spec.mixer.raster.height)
        fits = fits and smart.may_ask(encoder, spec.mixer, level=film.level)
        if fits and all(smart.may_have(encoder, profile=n, bit_rate=film.bit_rate) for n in film.profiles):
            return film
        film.close()
    return None


def _is_file(name: str, spec: RenderSpec) -> bool:
    """Whether a source is neither made nor fetched."""
    url = spec.sources.get(name, name)
    return not url.startswith("pattern:") and "://" not in url


def _make_room(film: CodedFilm, films: Iterable[CodedFilm | None]) -> None:
    """Closes another film, when too many are open."""
    others = [each for each in films if each is not None and each.is_open and each is not film]
    if len(others) >= _OPEN:
        others[0].close()


def _copies(run: Run, film: CodedFilm, mixer: MixerSpec, encoder: EncoderSpec) -> list[Copy]:
    try:
        index = film.index(run.times[0], run.times[-1] + 1 / mixer.fps)
    except (SourceError, *DEMUX_ERRORS):
        return []
    found = smart.copies(run, index, fps=mixer.fps, spec=encoder)
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
