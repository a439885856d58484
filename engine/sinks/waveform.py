"""A mix's sound as an image: for each column the lowest and the highest sample of its share of the time.

It decides how a wave is drawn; it refuses to know what sounds.
"""

from __future__ import annotations

from typing import Final

import av
import numpy as np

from engine.color import rgba
from engine.frame import Plane, Samples
from engine.sinks.partial import ERRORS, Item, Partial, error_of
from engine.sinks.still import image_of

BUCKET: Final = 64  # samples that become one pair of extremes: an hour's are 20 MB
_EXTREME: Final = 1.0


class Waveform:
    """A `Writing` (see sinks.partial): a PNG with the wave in one colour on another, ``#rrggbb`` or ``#rrggbbaa``.

    Raises SinkError, when made too: what is no colour.
    """

    def __init__(self, path: str, *, size: tuple[int, int], forecolor: str, backcolor: str) -> None:
        try:
            self._colours = [
                np.array([round(255 * c) for c in rgba(each)], np.uint8) for each in (forecolor, backcolor)
            ]
        except ValueError as err:
            raise error_of(path, err) from err
        self._size = size
        self._partial = Partial(path)
        self._rest = np.zeros((2, 0), np.float32)  # lowest and highest of the channels
        self._extremes: list[Samples] = []

    def write(self, items: list[Item]) -> None:
        """As `Writing.write`. Raises SinkError."""
        for _, _, sound, _ in items:
            both = np.stack((sound.samples.min(axis=0), sound.samples.max(axis=0)))
            self._rest = np.concatenate((self._rest, both), axis=1)
            whole = self._rest.shape[1] // BUCKET * BUCKET
            if whole:
                buckets = self._rest[:, :whole].reshape(2, -1, BUCKET)
                self._extremes.append(np.stack((buckets[0].min(axis=1), buckets[1].max(axis=1))))
                self._rest = self._rest[:, whole:]

    def finish(self) -> None:
        """Raises SinkError."""
        if self._rest.shape[1]:
            self._extremes.append(np.stack((self._rest[0].min(keepdims=True), self._rest[1].max(keepdims=True))))
        wave = np.concatenate(self._extremes, axis=1) if self._extremes else np.zeros((2, 1), np.float32)
        try:
            image = draw_wave(wave, self._size, *self._colours)
            self._partial.write(image_of(av.VideoFrame.from_ndarray(image, "rgba"), "png"))
        except ERRORS as err:
            raise self._partial.error(err) from err

    def keep(self) -> None:
        """As `Writing.keep`. Raises SinkError."""
        self._partial.keep()

    def discard(self) -> None:
        """As `Writing.discard`."""
        self._partial.remove()


def draw_wave(wave: Samples, size: tuple[int, int], fore: Plane, back: Plane) -> Plane:
    """(H, W, 4) uint8 RGBA: a column of `fore` from the lowest to the highest sample, at least one pixel, on `back`.

    wave  (2, N) float32, N ≥ 1: lowest and highest of N equal parts of the time; ±1 are the edges.
    """
    width, height = size
    count = wave.shape[1]
    starts = np.arange(width) * count // width
    low, high = np.minimum.reduceat(wave[0], starts), np.maximum.reduceat(wave[1], starts)
    top, bottom = (np.clip((_EXTREME - each) / 2 * height, 0, height - 1).astype(int) for each in (high, low))
    rows = np.arange(height)[:, None]
    image = np.broadcast_to(back, (height, width, 4)).copy()
    image[(rows >= top) & (rows <= bottom)] = fore
    return image
