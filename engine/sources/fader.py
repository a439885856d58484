"""Fader: the sound of one live source for one mixer, by absolute sample index, without clicks at the edges of holes.

It decides where sound fades in and out; it refuses to know why there is a hole, and gains, which the compositor ramps.
"""

from __future__ import annotations

from collections import deque
from fractions import Fraction
from typing import Final

import numpy as np

from engine.frame import AudioFrame
from engine.framequeue import Piece, SampleQueue

FADE_IN: Final = Fraction(20, 1000)  # TIMING 10
FADE_OUT: Final = Fraction(5, 1000)
TAIL: Final = Fraction(1, 1000)  # sound that stops within this is faded before it stops: there is no room later


class Fader:
    """Sound of one source for one mixer: what is there, without clicks at the edges of holes."""

    def __init__(self, rate: int) -> None:
        self._samples: SampleQueue[AudioFrame] = SampleQueue()
        self._in, self._out, self._tail = (int(part * rate) for part in (FADE_IN, FADE_OUT, TAIL))
        self._holes: deque[int] = deque()  # where sound stops, in order, but for the last
        self._heard = -1  # where the sound that was taken last ended, if it was not faded out
        self._began = 0  # where it began

    @property
    def missing(self) -> int:
        """Samples that were not there."""
        return self._samples.statistics().missing

    def push(self, first: int, block: AudioFrame) -> None:
        """Sound from sample `first` on."""
        if first > self._samples.stop:
            self._holes.append(self._samples.stop)
        self._samples.push(first, len(block), block)

    def clear(self) -> None:
        """Forgets all sound: nobody has listened for a while."""
        self._samples.clear()
        self._holes.clear()
        self._heard = -1

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
        if first != self._heard:
            self._began = first
        fades_out = end < stop or self._stops_at(stop)
        self._heard = -1 if fades_out else end
        if first >= self._began + self._in and not fades_out:
            return run
        n = np.arange(first, end)
        gain = np.minimum(1.0, (n - self._began + 1) / self._in)
        if fades_out:
            gain = np.minimum(gain, (end - n - 1) / self._out)
        gains = gain.astype(np.float32)
        out = []
        for block, skip, count, offset in run:
            part = gains[start + offset - first :][:count]
            out.append(Piece(AudioFrame(block.samples[:, skip : skip + count] * part), 0, count, offset))
        return out

    def _stops_at(self, stop: int) -> bool:
        """Whether sound stops here or so soon that there is no room to fade it then."""
        ends = [hole for hole in self._holes if hole >= stop][:1] or [self._samples.stop]
        return ends[0] < stop + self._tail


def _runs(pieces: list[Piece[AudioFrame]]) -> list[list[Piece[AudioFrame]]]:
    """Pieces that follow each other without a hole, together."""
    runs: list[list[Piece[AudioFrame]]] = []
    for piece in pieces:
        if runs and runs[-1][-1].offset + runs[-1][-1].count == piece.offset:
            runs[-1].append(piece)
        else:
            runs.append([piece])
    return runs
