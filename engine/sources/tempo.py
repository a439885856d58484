"""The sound of a source at another speed, its pitch kept: libav's atempo over what the source gives.

It decides which sample of the faster or slower sound is which of the source's; it refuses to know what the source is.
Worker threads only, as everything that steps.

Theory of operation
-------------------
* Time here is that of the result: its sample n is the source's sample n · speed. So whoever reads it needs no speed.
  It is rounded outwards where it begins and ends: not one sample is missing.
* Atempo lays windows of 20…40 ms over one another, each from a little beside its place, where it fits best: the sound
  stays that near to its picture, and does not drift away.
* One filter goes down to half the speed; several in a row go further.
* At an end atempo keeps back what fills no window. It is given some more, the last sound backwards, and what comes out
  is cut where that begins: the result ends where its source does, without a gap before what follows.
* A hole in the sound, another number of channels, or a seek begins anew.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Final

import av
import av.filter
import numpy as np

from engine.frame import AudioFrame, Samples
from engine.plan import PictureSize
from engine.sources.avfile import Batch
from engine.sources.reader import Steps

_LEAST: Final = 0.5  # of one atempo
_LAYOUTS: Final = {1: "mono", 2: "stereo"}
_BEYOND: Final = Fraction(1, 10)  # seconds of the source; up to 90 ms were kept back, at 0.1 to twice its speed


class Tempo:
    """A source's sound at `speed`; its picture is left out. Owns the source."""

    picture_size: PictureSize | None = None

    def __init__(self, steps: Steps, speed: float, *, rate: int) -> None:
        self._steps = steps
        self._speed = speed
        self._rate = rate
        self.guid = steps.guid
        self._filter: _Filter | None = None

    @property
    def has_sound(self) -> bool:
        """Whether there is sound."""
        return self._steps.has_sound

    @property
    def duration(self) -> Fraction | None:
        """Seconds of the result."""
        return None if self._steps.duration is None else self._steps.duration / Fraction(self._speed)

    @property
    def endless(self) -> bool:
        """Whether it never ends."""
        return self._steps.endless

    def step(self, *, pictures: int | None, sounds: bool | None, start: Fraction) -> Batch:
        """What a step of the source becomes."""
        del pictures
        batch = self._steps.step(pictures=None, sounds=sounds, start=start * Fraction(self._speed))
        given, batch.sounds = batch.sounds, []
        for first, block in given:
            batch.sounds += self._played(first, block)
        if batch.sounds_end:
            batch.sounds += self._ended()
        if batch.no_sound_before is not None:
            batch.no_sound_before = int(batch.no_sound_before / self._speed)
        batch.no_picture_before = None
        return batch

    def _played(self, first: int, block: AudioFrame) -> list[tuple[int, AudioFrame]]:
        out: list[tuple[int, AudioFrame]] = []
        if self._filter is None or not self._filter.goes_on(first, block):
            out = self._ended()
            self._filter = _Filter(first, block.channels, speed=self._speed, rate=self._rate)
        return out + self._filter.play(block)

    def _ended(self) -> list[tuple[int, AudioFrame]]:
        last, self._filter = self._filter, None
        return [] if last is None else last.play(None)

    def ease(self) -> None:
        """There is nothing to save."""

    def seek(self, t: Fraction) -> None:
        """Goes on from time t of the result."""
        self._filter = None
        self._steps.seek(t * Fraction(self._speed))

    def close(self) -> None:
        """Closes the source."""
        self._steps.close()


class _Filter:
    """One run of sound without a hole."""

    def __init__(self, first: int, channels: int, *, speed: float, rate: int) -> None:
        self._channels = channels
        self._rate = rate
        self._next_in, self._next_out = first, math.floor(first / speed)
        self._speed = speed
        self._pushed = 0
        self._beyond = int(_BEYOND * rate)
        self._last: Samples = np.zeros((channels, 0), np.float32)  # as many samples as go beyond the end
        self._graph = av.filter.Graph()
        layout = _LAYOUTS[channels]
        chain = [
            self._graph.add_abuffer(sample_rate=rate, format="flt", layout=layout, time_base=Fraction(1, rate)),
            *(self._graph.add("atempo", repr(each)) for each in _tempos(speed)),
            self._graph.add("abuffersink"),
        ]
        self._graph.link_nodes(*chain).configure()
        self._source, self._sink = chain[0], chain[-1]

    def goes_on(self, first: int, block: AudioFrame) -> bool:
        """Whether a block follows what has been played."""
        return first == self._next_in and block.channels == self._channels

    def play(self, block: AudioFrame | None) -> list[tuple[int, AudioFrame]]:
        """What comes out for a block, or at the end (None) what was held back."""
        if block is None:
            self._push(np.pad(self._last, ((0, 0), (0, self._beyond)), "symmetric")[:, -self._beyond :])
            self._source.push(None)
        else:
            self._next_in += len(block)
            self._push(block.samples)
            self._last = np.concatenate((self._last, block.samples), axis=1)[:, -self._beyond :]
        out: list[tuple[int, AudioFrame]] = []
        stop = math.ceil(self._next_in / self._speed)
        while (samples := self._pull()) is not None:
            if self._next_out < stop:
                out.append((self._next_out, AudioFrame(samples[:, : stop - self._next_out])))
            self._next_out += samples.shape[1]
        return out

    def _push(self, samples: Samples) -> None:
        packed = np.ascontiguousarray(samples.T).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(packed, format="flt", layout=_LAYOUTS[self._channels])
        frame.sample_rate, frame.time_base, frame.pts = self._rate, Fraction(1, self._rate), self._pushed
        self._pushed += samples.shape[1]
        self._source.push(frame)

    def _pull(self) -> Samples | None:
        try:
            frame = self._sink.pull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return None
        assert isinstance(frame, av.AudioFrame)
        return np.ascontiguousarray(frame.to_ndarray().reshape(-1, self._channels).T, np.float32)


def _tempos(speed: float) -> list[float]:
    """Speeds of filters in a row, each one allowed."""
    tempos = []
    while speed < _LEAST:
        tempos.append(_LEAST)
        speed /= _LEAST
    return [*tempos, speed]
