"""Carries a plan out: pictures onto a canvas, voices into a sum. Synchronous; the only importer of the kernels.

It decides which memory is painted and how a gain moves to its new value; it refuses to know where frames came from.
Worker threads only, one call at a time.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Final, NamedTuple

import msgspec
import numpy as np

from engine.frame import AudioFrame, Plane, VideoFrame, black, i420_views
from engine.framequeue import Piece
from engine.plan import Layer, Pass, Picture, Plan, Voice, pan_gains
from engine.pool import BufferPool
from engine.spec import MixerSpec
from engine_ext import composite as kernel
from engine_ext import mix as sum_kernel

RAMP_PER_SECOND: Final = 50  # a gain moves within 1/50 s: shorter clicks, longer lags behind the hand
MUTE_RAMP: Final = Fraction(3, 100)  # seconds, down to silence: the ear hears a shorter end as a click
_BLACK: Final = (16, 128, 128)

Pair = tuple[float, float]


class Heard(NamedTuple):
    """One voice of a tick and the sound that is there for it."""

    voice: Voice
    pieces: Sequence[Piece[AudioFrame]]


class CompositorStatistics(msgspec.Struct, frozen=True):
    """Pictures painted, pictures shown again because nothing changed, and samples clipped at full scale."""

    painted: int
    repeated: int
    clipped: int


class Compositor:
    """Paints and sums for one mixer. Keeps the last picture, and the gain each voice had last."""

    def __init__(self, spec: MixerSpec, *, threads: int = 1) -> None:
        self._spec = spec
        self._threads = threads
        self._pool = BufferPool(spec.raster.frame_bytes)
        self._last: tuple[Plan, tuple[VideoFrame, ...], VideoFrame] | None = None
        self._gains: dict[tuple[str, int], _Gain] = {}
        self._begun = False
        self._painted = self._repeated = self._clipped = 0

    @property
    def pool(self) -> BufferPool:
        """Where the canvases come from."""
        return self._pool

    def statistics(self) -> CompositorStatistics:
        """Counters since it was made."""
        return CompositorStatistics(self._painted, self._repeated, self._clipped)

    def paint(self, plan: Plan, frames: Mapping[Picture, VideoFrame]) -> VideoFrame:
        """The picture of a plan; the very same frame again while plan and frames are the same.

        frames  one for every picture that a layer shows.
        """
        used = tuple(frames[picture] for picture in plan.pictures)
        if self._last is not None:
            last_plan, last_used, picture = self._last
            if last_plan is plan and all(a is b for a, b in zip(used, last_used, strict=True)):
                self._repeated += 1
                return picture
        picture = self._paint(plan, frames)
        self._painted += 1
        self._last = (plan, used, picture)
        return picture

    def _paint(self, plan: Plan, frames: Mapping[Picture, VideoFrame]) -> VideoFrame:
        if not plan.layers:
            return black(self._spec.raster.width, self._spec.raster.height)
        groups: list[tuple[Plane, ...]] = []
        for each in plan.passes[:-1]:
            groups.append(self._paint_group(each, frames, groups))
        width, height = self._spec.raster.width, self._spec.raster.height
        buffer = self._pool.take().reshape(height * 3 // 2, width)
        y, u, v = i420_views(buffer, width, height)
        layers = [self._layer(layer, frames, groups) for layer in plan.layers]
        if not plan.full:
            layers.insert(0, kernel.Layer(_BLACK, (0, 0, width, height)))
        kernel.composite(y, u, v, layers, threads=self._threads)
        return VideoFrame(y, u, v, buffer=buffer)

    def _paint_group(
        self, each: Pass, frames: Mapping[Picture, VideoFrame], groups: list[tuple[Plane, ...]]
    ) -> tuple[Plane, ...]:
        """Five planes: colour premultiplied by coverage, coverage at luma and at chroma positions."""
        size = (each.bounds.height, each.bounds.width)
        half = (size[0] // 2, size[1] // 2)
        y, u, v, a, ac = (np.zeros(shape, np.uint8) for shape in (size, half, half, size, half))
        layers = [self._layer(layer, frames, groups) for layer in each.layers]
        kernel.composite(y, u, v, layers, coverage=(a, ac), threads=self._threads)
        return y, u, v, a, ac

    def _layer(
        self, layer: Layer, frames: Mapping[Picture, VideoFrame], groups: list[tuple[Plane, ...]]
    ) -> kernel.Layer:
        dest = (layer.dest.x, layer.dest.y, layer.dest.width, layer.dest.height)
        if layer.colour is not None:
            return kernel.Layer(layer.colour, dest, alpha=layer.alpha)
        crop = (layer.crop.x, layer.crop.y, layer.crop.width, layer.crop.height)
        if layer.group is not None:
            return kernel.Layer(groups[layer.group], dest, crop, alpha=layer.alpha)
        assert layer.picture is not None
        planes = frames[layer.picture].planes
        return kernel.Layer(planes, dest, crop, mirror_x=layer.mirror_x, mirror_y=layer.mirror_y, alpha=layer.alpha)

    def sum(self, heard: Sequence[Heard], count: int) -> AudioFrame:
        """`count` samples: every voice with its gain and pan; a change moves there within 20 ms, to silence within 30.

        A voice that was not there in the last call fades in over 20 ms, but for the very first call.
        """
        out = np.empty((self._spec.audio.channels, count), np.float32)
        blocks: list[sum_kernel.Block] = []
        seen: dict[tuple[str, int], _Gain] = {}
        ordinals: dict[str, int] = defaultdict(int)
        for voice, pieces in heard:
            key = (voice.name, ordinals[voice.name])
            ordinals[voice.name] += 1
            target = pan_gains(voice.gain, voice.pan)
            gain = self._gains.get(key) or _Gain((0.0, 0.0) if self._begun else target)
            gain.aim(target, self._ramp(target))
            blocks.extend(self._block(piece, gain) for piece in pieces)
            gain.advance(count)
            gain.voice = voice
            seen[key] = gain
        self._gains, self._begun = seen, True
        self._clipped += sum_kernel.mix(out, blocks)
        return AudioFrame(out)

    def leaving(self, voices: Sequence[Voice]) -> list[Voice]:
        """The voices of the last sum that are audible still and not among these, muted: summed, they fade out."""
        counts = Counter(voice.name for voice in voices)
        last = sorted(self._gains.items(), key=lambda item: item[0][1])
        gone = [gain for (name, ordinal), gain in last if ordinal >= counts[name] and gain.now != (0.0, 0.0)]
        return [msgspec.structs.replace(gain.voice, gain=0.0) for gain in gone if gain.voice is not None]

    def _ramp(self, target: Pair) -> int:
        rate = self._spec.audio.rate
        return int(MUTE_RAMP * rate) if target == (0.0, 0.0) else rate // RAMP_PER_SECOND

    def _block(self, piece: Piece[AudioFrame], gain: _Gain) -> sum_kernel.Block:
        samples = piece.block.samples[:, piece.skip : piece.skip + piece.count]
        inputs = samples.shape[0]
        ramp = max(0, min(piece.count, gain.left - piece.offset))
        pairs = (gain.at(piece.offset), gain.at(piece.offset + ramp))
        begin, end = (_matrix(pair, inputs, self._spec.audio.channels) for pair in pairs)
        return sum_kernel.Block(samples, piece.offset, (begin, end), ramp)


def _matrix(pair: Pair, inputs: int, outputs: int) -> tuple[float, ...]:
    """Gains [output][input] for a left and a right gain; a stereo source in a mono mix is the mean of its channels."""
    left, right = pair
    if outputs == 1:
        return ((left + right) / 2,) if inputs == 1 else (left / 2, right / 2)
    return (left, right) if inputs == 1 else (left, 0.0, 0.0, right)


class _Gain:
    """Left and right gain of one voice, on their way from one value to another within `left` samples."""

    __slots__ = ("left", "now", "target", "voice")

    def __init__(self, now: Pair) -> None:
        self.now, self.target, self.left = now, now, 0
        self.voice: Voice | None = None  # that it was last heard as

    def aim(self, target: Pair, ramp: int) -> None:
        """A new value to reach within `ramp` samples; the old one goes on when it is the same."""
        if target != self.target:
            self.target, self.left = target, ramp

    def at(self, n: int) -> Pair:
        """The gains n samples from now."""
        if n >= self.left:
            return self.target
        share = n / self.left
        return tuple(a + (b - a) * share for a, b in zip(self.now, self.target, strict=True))  # type: ignore[return-value]

    def advance(self, n: int) -> None:
        """n samples have passed."""
        self.now = self.at(n)
        self.left = max(0, self.left - n)
