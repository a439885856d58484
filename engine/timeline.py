"""A mash: clips on tracks, as a function of time; it decides what is on at t, and what will be needed soon.

It refuses to know the documents that mashes come from, where on the frame a clip is, files, pixels and samples.

Theory of operation
-------------------
* Time. A clip is on the air for frames [frame, frame + frames) of the mash, at `quantize` frames a second. Every output
  frame asks anew, so motion is as smooth as the output. k counts frames since the clip began, fractions included.
* A tree is made once as long as nothing in it moves, and handed out again as the same object.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import chain, zip_longest
from typing import NamedTuple

from engine.clip import LONG_TURN, Clip, Colour, Medium
from engine.player import Player, solid
from engine.spec import Raster
from engine.timebase import Stretch
from engine.tree import AudioNode, CompositorNode, RenderTree, SumNode, VideoNode


class Mash:
    """A program (see engine.program): tracks of clips, the first track lowest, each track's clips in order of frame.

    quantize    frames per second of every frame number.
    background  drawn under everything; None = nothing is.
    loop        whether it begins again at its end; otherwise only the background is left.
    """

    def __init__(
        self,
        tracks: Sequence[Sequence[Clip]],
        *,
        raster: Raster,
        quantize: int = 10,
        background: Colour | None = None,
        loop: bool = False,
    ) -> None:
        self.tracks = tuple(tuple(clips) for clips in tracks)
        self.raster = raster
        self.quantize = quantize
        self.background = background
        self.loop = loop
        clips = [clip for clips in self.tracks for clip in clips]
        self._players = [player for clips in self.tracks for player in _players(clips, raster, quantize)]
        self._timetable = _Timetable(self._players)
        self._frames = max((clip.stop for clip in clips), default=0)
        self._edges = sorted({edge for clip in clips for edge in (clip.frame, clip.stop)})
        self._begins = sorted({player.clip.frame for player in self._players if player.used or player.drawn})
        heard = [player.clip for player in self._players if player.voices]
        self._sounds = sorted({edge for clip in heard for edge in (clip.frame, clip.stop)})
        self._on_air = _OnAir(0, 0, (), None)

    @property
    def duration(self) -> Fraction:
        """Seconds to the end of the last clip."""
        return Fraction(self._frames, self.quantize)

    @property
    def seen(self) -> bool:
        """Whether any clip has a picture."""
        return any(player.seen for player in self._players)

    @property
    def heard(self) -> bool:
        """Whether any clip has sound."""
        return any(player.voices for player in self._players)

    def tree_at(self, t: Fraction) -> RenderTree:
        """What is on at t: from the first clip to the last, gaps included; before and after, the background."""
        wrapped = self._wrapped(t)
        frame = wrapped * self.quantize
        turn = int((t - wrapped) / self.duration) if wrapped != t and self.duration >= LONG_TURN else 0
        on_air = self._at(frame)
        if on_air.tree is not None:
            return on_air.tree
        return self._tree(on_air.players, frame, turn)

    def stretch(self, t: Fraction) -> Stretch | None:
        """Until clips come or go, or the topmost film begins again; None while the topmost moves, and after all."""
        frame = self._wrapped(t) * self.quantize
        on_air = self._at(frame)
        top = next((player for player in reversed(on_air.players) if player.seen), None)
        if on_air.stop == math.inf or (top is not None and not top.steady):
            return None
        left, at, speed = Fraction(on_air.stop) - frame, None, Fraction(1)
        if top is not None and isinstance(medium := top.clip.content, Medium) and medium.timed:
            played, speed = (frame - top.clip.frame) * medium.speed, medium.speed
            if medium.length is not None:
                played %= medium.length
                left = min(left, (medium.length - played) / speed)
            at = (played + medium.trim) / self.quantize
        return Stretch(t + left / self.quantize, at, speed)

    def sources_in(self, start: Fraction, stop: Fraction) -> frozenset[str]:
        """The names that some tree within [start, stop) has."""
        begin = self._wrapped(start)
        end = begin + (stop - start)
        ranges = [(begin, end)]
        if self.loop and end > self.duration:
            ranges = [(begin, self.duration), (Fraction(0), end - self.duration)]
        return frozenset(
            medium.name
            for low, high in ranges
            for player in self._timetable.within(low * self.quantize, high * self.quantize)
            for medium in player.used
        )

    def coming(self, start: Fraction, stop: Fraction) -> Sequence[tuple[Fraction, RenderTree]]:
        """The moments within [start, stop) at which clips, or turns of them, begin that need something from elsewhere
        or are to be drawn, and their trees.
        """
        return [(t, self.tree_at(t)) for t in self._moments(self._begins, start, stop)]

    def edges(self, start: Fraction, stop: Fraction) -> Sequence[Fraction]:
        """The moments within (start, stop) at which what is heard of clips, or turns of 1/4 s or more, begins or ends,
        or its gain bends.
        """
        return [t for t in self._moments(self._sounds, start, stop, heard=True) if t > start]

    def _moments(self, marks: Sequence[int], start: Fraction, stop: Fraction, *, heard: bool = False) -> list[Fraction]:
        """The moments within [start, stop), in order, of frames of each turn and of turns, or bends, within clips."""
        found: set[Fraction] = set()
        for first in self._turns_in(start, stop) if marks else ():
            begin, end = (edge * self.quantize - first for edge in (start, stop))
            low, high = (bisect_left(marks, edge) for edge in (begin, end))
            on_air = [each for each in self._timetable.within(begin, end) if each.voices or not heard]
            frames: Iterator[Fraction | int] = chain(
                marks[low:high],
                *(player.turns_in(begin, end) for player in on_air),
                *(player.bends_in(begin, end) for player in on_air if heard),
            )
            found.update(Fraction(first + frame) / self.quantize for frame in frames)
        return sorted(found)

    def _turns_in(self, start: Fraction, stop: Fraction) -> range:
        """The frames at which the turns of the mash begin that are on within [start, stop)."""
        if not self.loop or not self._frames:
            return range(1)
        first = max(0, math.floor(start / self.duration))
        return range(first * self._frames, max(0, math.ceil(stop / self.duration)) * self._frames, self._frames)

    def _wrapped(self, t: Fraction) -> Fraction:
        return t % self.duration if self.loop and t >= 0 and self._frames else t

    def _at(self, frame: Fraction) -> _OnAir:
        if not self._on_air.start <= math.floor(frame) < self._on_air.stop:
            self._on_air = self._look(frame)
        return self._on_air

    def _look(self, frame: Fraction) -> _OnAir:
        """Who is on at a frame, and from when to when nobody comes or goes."""
        now = math.floor(frame)  # clips come and go at whole frames
        players = self._timetable.within(now, now + 1)
        n = bisect_right(self._edges, now)
        start = self._edges[n - 1] if n > 0 else -math.inf
        stop = self._edges[n] if n < len(self._edges) else math.inf
        tree = self._tree(players, frame, 0) if all(player.still for player in players) else None
        return _OnAir(start, stop, tuple(players), tree)

    def _tree(self, players: Sequence[Player], frame: Fraction, turn: int) -> RenderTree:
        pictures: list[VideoNode] = []
        sounds: list[AudioNode] = []
        if self.background is not None:
            pictures.append(solid(self.background))
        for player in players:
            k = frame - player.clip.frame
            if player.seen:
                pictures.append(player.picture(k, turn))
            sounds += player.sounds(k, turn)
        return RenderTree(
            root_video_node=CompositorNode(nodes=tuple(pictures)) if pictures else None,
            root_audio_node=SumNode(nodes=tuple(sounds)) if sounds else None,
        )


def _players(clips: Sequence[Clip], raster: Raster, quantize: int) -> Iterator[Player]:
    """Those of a track."""
    player = None
    for clip, after in zip_longest(clips, clips[1:]):
        player = Player(clip, raster, quantize, before=player, after=after)
        yield player


class _Timetable:
    """The players of a mash, found by time, however many others there are and however long.

    They are sorted by their beginnings. `_stops[level][n]` is the last stop of the n-th 2 ** level of them: where it
    is too early, none of them needs to be looked at.
    """

    def __init__(self, players: Sequence[Player]) -> None:
        self._players = players
        self._order = sorted(range(len(players)), key=lambda n: players[n].clip.frame)
        self._begins = [players[n].clip.frame for n in self._order]
        self._stops = [[players[n].clip.stop for n in self._order]]
        while len(self._stops[-1]) > 1:
            below = self._stops[-1]
            self._stops.append([max(below[n : n + 2]) for n in range(0, len(below), 2)])

    def within(self, start: Fraction | int, stop: Fraction | int) -> list[Player]:
        """Who is on at some time of [start, stop), in frames of the mash; in order of painting."""
        begin, begun = math.floor(start), bisect_left(self._begins, math.ceil(stop))
        found: list[int] = []
        places = [(len(self._stops) - 1, 0)]
        while places:
            level, n = places.pop()
            if n << level < begun and self._stops[level][n] > begin:
                if level == 0:
                    found.append(self._order[n])
                else:
                    places += ((level - 1, 2 * n), (level - 1, 2 * n + 1))
        return [self._players[n] for n in sorted(found)]


class _OnAir(NamedTuple):
    """Who is on from `start` to `stop`, in frames of the mash; the tree, where it is the same all that time."""

    start: float
    stop: float
    players: tuple[Player, ...]
    tree: RenderTree | None
