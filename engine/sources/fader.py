"""Fader: the sound of one live source for one mixer, by absolute sample index, without clicks at the edges of holes.

It decides where sound fades in and out; it refuses to know why there is a hole, and gains, which the compositor ramps.
Sound whose end comes near fades out; when it goes on after all it fades in from where it is.
"""

from __future__ import annotations

from collections import deque
from fractions import Fraction
from typing import Final

import numpy as np

from engine.frame import AudioFrame
from engine.framequeue import Piece, SampleQueue

FADE_IN: Final = Fraction(20, 1000)  # seconds
FADE_OUT: Final = Fraction(5, 1000)
BACK: Final = Fraction(1, 2)  # sound that goes back by more takes the place of what there is


class Fader:
    """Sound of one source for one mixer: what is there, without clicks at the edges of holes."""

    def __init__(self, rate: int) -> None:
        self._samples: SampleQueue[AudioFrame] = SampleQueue()
        self._in, self._out = int(FADE_IN * rate), int(FADE_OUT * rate)
        self._back = int(BACK * rate)
        self._holes: deque[int] = deque()  # where sound stops, in order, but for the last
        self._next, self._gain = 0, 0.0  # after the last sample that was taken, and its gain

    @property
    def missing(self) -> int:
        """Samples that were not there."""
        return self._samples.missing

    def push(self, first: int, block: AudioFrame) -> None:
        """Sound from sample `first` on."""
        if first < self._samples.stop - self._back:  # they belong to a new offset
            self._samples.cut(first - 1)
            while self._holes and self._holes[-1] >= first - 1:
                self._holes.pop()
        if first > self._samples.stop:
            self._holes.append(self._samples.stop)
        self._samples.push(first, len(block), block)

    def clear(self) -> None:
        """Forgets all sound: nobody has listened for a while."""
        self._samples.clear()
        self._holes.clear()
        self._gain = 0.0

    def take(self, start: int, stop: int) -> list[Piece[AudioFrame]]:
        """The samples of [start, stop) that are there."""
        while self._holes and self._holes[0] < start:
            self._holes.popleft()
        out: list[Piece[AudioFrame]] = []
        for run in _runs(self._samples.take(start, stop)):
            out += self._faded(run, start, stop)
        return out

    def _faded(self, run: list[Piece[AudioFrame]], start: int, stop: int) -> list[Piece[AudioFrame]]:
        first, end = start + run[0].offset, start + run[-1].offset + run[-1].count
        gain = self._gain if first == self._next else 0.0
        ends = self._end(stop) if end == stop else end
        self._gain, self._next = 1.0, end
        if gain == 1 and ends - end >= self._out:
            return run
        n = np.arange(first, end)
        gains = np.minimum(1.0, gain + (n - first + 1) / self._in)
        if ends - end < self._out:
            gains = np.minimum(gains, (ends - n - 1) / self._out)
        self._gain = float(gains[-1])
        out = []
        for block, skip, count, offset in run:
            part = gains[start + offset - first :][:count].astype(np.float32)
            out.append(Piece(AudioFrame(block.samples[:, skip : skip + count] * part), 0, count, offset))
        return out

    def _end(self, stop: int) -> int:
        """Where sound that goes on at `stop` ends, as far as is known."""
        return next((hole for hole in self._holes if hole >= stop), max(stop, self._samples.stop))


def _runs(pieces: list[Piece[AudioFrame]]) -> list[list[Piece[AudioFrame]]]:
    """Pieces that follow each other without a hole, together."""
    runs: list[list[Piece[AudioFrame]]] = []
    for piece in pieces:
        if runs and runs[-1][-1].offset + runs[-1][-1].count == piece.offset:
            runs[-1].append(piece)
        else:
            runs.append([piece])
    return runs
