"""VideoFrame and AudioFrame: pictures and sound as numpy views in the working format, read-only once made.

It decides the shapes everybody relies on; it refuses to know where the memory came from. A frame keeps its memory
alive: a decoder's buffer or a pool's slot goes home when the last view dies, and nobody calls release.
"""

from __future__ import annotations

from typing import Final, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

Plane: TypeAlias = NDArray[np.uint8]
Samples: TypeAlias = NDArray[np.float32]
RawSamples: TypeAlias = Samples | NDArray[np.int16]

_S16_SCALE: Final = np.float32(1 / 32768)


class VideoFrame:
    """One picture: planar YUV 4:2:0, 8 bit, BT.709 limited range, straight alpha.

    y, u, v  (H, W) and (⌈H/2⌉, ⌈W/2⌉) uint8, any row stride, pixels of a row contiguous, not writable.
    a        (H, W) uint8 or None when opaque.
    buffer   (H·3/2, W) uint8, the three planes in one piece, where they are so (canvases): as an encoder takes it.
    """

    __slots__ = ("__weakref__", "a", "buffer", "u", "v", "y")

    def __init__(self, y: Plane, u: Plane, v: Plane, a: Plane | None = None, *, buffer: Plane | None = None) -> None:
        for plane in (y, u, v, a, buffer):
            if plane is not None:
                plane.flags.writeable = False
        self.y, self.u, self.v, self.a, self.buffer = y, u, v, a, buffer

    @property
    def width(self) -> int:
        """Pixels across."""
        return int(self.y.shape[1])

    @property
    def height(self) -> int:
        """Pixels down."""
        return int(self.y.shape[0])

    @property
    def planes(self) -> tuple[Plane, ...]:
        """(y, u, v) or (y, u, v, a)."""
        return (self.y, self.u, self.v) if self.a is None else (self.y, self.u, self.v, self.a)


class AudioFrame:
    """A run of sound: planar float32, full scale ±1, at the mixer's rate.

    raw  (C, N), C = 1 or 2, as the sum kernel takes it and not writable: float32, samples of a channel contiguous, or
         int16 with full scale 32768 as a decoder gave them, interleaved or not.
    """

    __slots__ = ("__weakref__", "raw")

    def __init__(self, raw: RawSamples) -> None:
        raw.flags.writeable = False
        self.raw = raw

    @property
    def samples(self) -> Samples:
        """(C, N) float32, samples of a channel contiguous, not writable; made anew where they are not so already."""
        if self.raw.dtype == np.float32:
            return cast(Samples, self.raw)
        scaled: Samples = np.empty(self.raw.shape, np.float32)
        scaled[:] = self.raw
        scaled *= _S16_SCALE
        scaled.flags.writeable = False
        return scaled

    @property
    def channels(self) -> int:
        """1 or 2."""
        return int(self.raw.shape[0])

    def __len__(self) -> int:
        return int(self.raw.shape[1])


def i420_views(buffer: Plane, width: int, height: int) -> tuple[Plane, Plane, Plane]:
    """Views of the three planes of a contiguous 4:2:0 buffer of width × height, both even."""
    flat = buffer.reshape(-1)
    luma, chroma = width * height, width * height // 4
    half = (height // 2, width // 2)
    return (
        flat[:luma].reshape(height, width),
        flat[luma : luma + chroma].reshape(half),
        flat[luma + chroma : luma + 2 * chroma].reshape(half),
    )


def black(width: int, height: int) -> VideoFrame:
    """An opaque black picture, even sizes."""
    buffer = np.full((height * 3 // 2, width), 128, np.uint8)
    y, u, v = i420_views(buffer, width, height)
    y[:] = 16
    return VideoFrame(y, u, v, buffer=buffer)


def flat(yuv: tuple[int, int, int], width: int, height: int, a: Plane | None = None) -> VideoFrame:
    """A picture of one colour, of any sides: one row of each plane, seen as all of them.

    a  (height, width), not copied; None: opaque.
    """
    luma, chroma = (height, width), ((height + 1) // 2, (width + 1) // 2)
    y, u, v = (
        np.broadcast_to(np.full(side[1], value, np.uint8), side)
        for value, side in zip(yuv, (luma, chroma, chroma), strict=True)
    )
    return VideoFrame(y, u, v, a)
