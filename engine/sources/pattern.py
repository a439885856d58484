"""Test patterns: moving pictures with a readable frame number, and a tone. For demos, slates and tests.

``pattern:bars``, ``pattern:count``, ``pattern:grid``, ``pattern:black``, with options as in a URL:
``pattern:bars?size=640x360&rate=25&tone=440&hue=0.6``. Every picture carries its frame number twice: as digits for the
eye, and as 16 cells, black or white, most significant first in two rows of eight along the bottom, for a test.
"""

from __future__ import annotations

import colorsys
from fractions import Fraction
from math import isnan
from typing import Final
from urllib.parse import parse_qsl

import numpy as np
from numpy.typing import NDArray

from engine.color import yuv_of
from engine.errors import InvalidSpec, SourceUnsupported
from engine.frame import AudioFrame, Plane, VideoFrame, i420_views
from engine.plan import PictureSize
from engine.pool import BufferPool
from engine.sources.avfile import Batch
from engine.spec import AudioFormat, Raster
from engine.timebase import first_sample, frame_rate, tick_time

KINDS: Final = ("bars", "count", "grid", "black")
CELLS: Final = 16
GRADIENT: Final = 48  # steps from top to bottom
LEVEL: Final = 0.25  # of full scale: -12 dB
_BLACK, _WHITE = 16, 235
_SEGMENTS: Final = {  # of a seven-segment digit: top, upper left and right, middle, lower left and right, bottom
    "0": "1110111",
    "1": "0010010",
    "2": "1011101",
    "3": "1011011",
    "4": "0111010",
    "5": "1101011",
    "6": "1101111",
    "7": "1010010",
    "8": "1111111",
    "9": "1111011",
}
_RECTANGLES: Final = (  # of each segment within a digit 5 wide and 9 high: x, y, width, height
    (0, 0, 5, 1),
    (0, 0, 1, 5),
    (4, 0, 1, 5),
    (0, 4, 5, 1),
    (0, 4, 1, 5),
    (4, 4, 1, 5),
    (0, 8, 5, 1),
)
Planes = tuple[Plane, Plane, Plane]


class PatternSource:
    """A pattern as a source: frames n at n / rate, endless; its tone is the same however it is cut into blocks."""

    def __init__(self, guid: str, url: str, *, sound: AudioFormat) -> None:
        """Raises SourceUnsupported: an unknown pattern, option or value."""
        self.guid = guid
        kind, _, query = url.removeprefix("pattern:").partition("?")
        options = dict(parse_qsl(query))
        try:
            self._kind = kind if kind in KINDS else _refuse(f"no pattern {kind!r}; there are {', '.join(KINDS)}")
            self.raster = Raster.parse(options.pop("size", "640x360"))
            self.rate = frame_rate(options.pop("rate", "30"))
            self._tone = float(options.pop("tone", "440"))
            self._hue = float(options.pop("hue", "0.6")) % 1
            if not 0 <= self._tone <= 20_000 or not 1 <= self.rate <= 240 or isnan(self._hue):
                _refuse("tone is 0…20000 Hz, rate 1…240, hue a number")
            if options:
                _refuse(f"no option {next(iter(options))!r}")
        except (ValueError, InvalidSpec) as err:
            raise SourceUnsupported(f'source "{guid}": {url[:200]}: {err}', where=guid) from err
        self._sound = sound
        self._pool = BufferPool(self.raster.frame_bytes)
        self._background = self._paint_background()
        self._frame_n = 0
        self._block_n = 0

    @property
    def picture_size(self) -> PictureSize:
        """Its raster."""
        return PictureSize(self.raster.width, self.raster.height)

    has_sound = True
    duration = None
    endless = True

    def step(self, *, pictures: int | None, sounds: bool | None, start: Fraction) -> Batch:
        """The next pictures and a quarter of a second of sound."""
        batch = Batch([], [])
        self._frame_n = max(self._frame_n, int(start * self.rate))
        for _ in range(pictures or 0):
            n, self._frame_n = self._frame_n, self._frame_n + 1
            batch.pictures.append((tick_time(n, self.rate), tick_time(n + 1, self.rate), self.picture(n)))
        for _ in range(int(self.rate / 4) + 1 if sounds else 0):
            n, self._block_n = self._block_n, self._block_n + 1
            batch.sounds.append(self._block(n))
        return batch

    def ease(self) -> None:
        """There is nothing to save."""

    def seek(self, t: Fraction) -> None:
        """Goes on from the frame at t."""
        self._frame_n = self._block_n = int(t * self.rate)

    def close(self) -> None:
        """Nothing is open."""

    def picture(self, n: int) -> VideoFrame:
        """Frame n."""
        width, height = self.raster.width, self.raster.height
        buffer = self._pool.take().reshape(height * 3 // 2, width)
        buffer[:] = self._background
        planes = i420_views(buffer, width, height)
        if self._kind != "black":
            self._paint_mover(planes, n)
        self._paint_digits(planes, n)
        paint_cells(planes[0], n)
        _, y, _, cell = _cell(width, height, 0)
        for chroma in planes[1:]:
            chroma[y // 2 : (y + 2 * cell + 1) // 2] = 128
        return VideoFrame(*planes, buffer=buffer)

    def _block(self, n: int) -> tuple[int, AudioFrame]:
        rate = self._sound.rate
        first, stop = (first_sample(k, rate=rate, fps=self.rate) for k in (n, n + 1))
        if not self._tone:
            return first, AudioFrame(np.zeros((1, stop - first), np.float32))
        phase = np.arange(first, stop, dtype=np.float64) * (2 * np.pi * self._tone / rate)
        tone: NDArray[np.float32] = (LEVEL * np.sin(phase)).astype(np.float32)
        return first, AudioFrame(tone[np.newaxis])

    def _paint_background(self) -> Plane:
        width, height = self.raster.width, self.raster.height
        buffer: Plane = np.empty((height * 3 // 2, width), np.uint8)
        planes = i420_views(buffer, width, height)
        for row in range(GRADIENT):
            shade = yuv_of(*colorsys.hsv_to_rgb(self._hue, 0.75, 0.55 - 0.4 * row / GRADIENT))
            top, bottom = (height * n // GRADIENT & ~1 for n in (row, row + 1))
            _fill(planes, (0, top, width, bottom - top + 2), shade)
        if self._kind == "black":
            _fill(planes, (0, 0, width, height), (16, 128, 128))
        elif self._kind == "bars":
            colours = ((0.75, 0.75, 0.75), (0.75, 0.75, 0), (0, 0.75, 0.75), (0, 0.75, 0), (0.75, 0, 0.75))
            for n, colour in enumerate((*colours, (0.75, 0, 0), (0, 0, 0.75))):
                _fill(planes, (width * n // 7, 0, width // 7 + 2, height), yuv_of(*colour))
        elif self._kind == "grid":
            step = max(4, height // 12 & ~1)
            for x in range(0, width, step):
                _fill(planes, (x, 0, max(2, step // 12), height), (160, 128, 128))
            for y in range(0, height, step):
                _fill(planes, (0, y, width, max(2, step // 12)), (160, 128, 128))
        return buffer

    def _paint_mover(self, planes: Planes, n: int) -> None:
        """A bright column that crosses the picture in two seconds, and a square that bounces beside it."""
        width, height = self.raster.width, self.raster.height
        span = max(1, int(2 * self.rate))
        x = (n % span) * width // span & ~1
        bright = yuv_of(*colorsys.hsv_to_rgb((self._hue + 0.5) % 1, 0.6, 1.0))
        _fill(planes, (x, 0, max(2, width // 40), height), bright)
        side = max(2, height // 6)
        room = max(1, height - side)
        y = abs((n * height // span * 2) % (2 * room) - room)
        _fill(planes, (width - 2 * side, y, side, side), bright)

    def _paint_digits(self, planes: Planes, n: int) -> None:
        text = f"{n:05d}"
        unit = max(1, self.raster.height // 40) & ~1 or 1
        left = (self.raster.width - 6 * unit * len(text)) // 2
        top = self.raster.height // 3
        _fill(planes, (left - unit, top - unit, 6 * unit * len(text) + unit, 11 * unit), (16, 128, 128))
        for place, digit in enumerate(text):
            for lit, (x, y, width, height) in zip(_SEGMENTS[digit], _RECTANGLES, strict=True):
                if lit == "1":
                    at = (left + (6 * place + x) * unit, top + y * unit, width * unit, height * unit)
                    _fill(planes, at, (235, 128, 128))


def _refuse(reason: str) -> str:
    raise ValueError(reason)


def _fill(planes: Planes, rect: tuple[int, int, int, int], colour: tuple[int, int, int]) -> None:
    x, y, width, height = rect
    right, bottom = max(0, x + width), max(0, y + height)
    x, y = max(0, x), max(0, y)
    planes[0][y:bottom, x:right] = colour[0]
    for plane, value in zip(planes[1:], colour[1:], strict=True):
        plane[y // 2 : (bottom + 1) // 2, x // 2 : (right + 1) // 2] = value


def _cell(width: int, height: int, n: int) -> tuple[int, int, int, int]:
    """x, y, width and height of the n-th cell: two rows of eight, each 1/18 of the height, at the bottom."""
    row, column = divmod(n, CELLS // 2)
    cell = max(2, height // 18)
    left, right = column * width // 8, (column + 1) * width // 8
    return left, height - 2 * cell + row * cell, right - left, cell


def paint_cells(y_plane: Plane, n: int) -> None:
    """Writes n mod 65536 into a luma plane, as 16 black or white cells."""
    height, width = y_plane.shape
    for k in range(CELLS):
        x, y, across, down = _cell(width, height, k)
        y_plane[y : y + down, x : x + across] = _WHITE if n >> (CELLS - 1 - k) & 1 else _BLACK
