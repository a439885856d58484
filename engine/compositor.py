"""Carries a plan out: pictures onto a canvas, voices into a sum. Synchronous; the only importer of the kernels.

It decides which memory is painted and how a gain moves to its new value; it refuses to know where frames came from.
Worker threads only, one call at a time.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from fractions import Fraction
from math import ceil
from typing import Final, NamedTuple

import msgspec
import numpy as np

from engine.effects import Convolve, Cut, Fade, Key, Recolour, Step, Tint
from engine.frame import AudioFrame, Plane, VideoFrame, black, i420_views
from engine.framequeue import Piece
from engine.plan import Altered, Layer, Pass, Picture, Place, Plan, Rect, Voice, pan_gains
from engine.pool import BufferPool
from engine.rounding import round_half_up
from engine.spec import MixerSpec
from engine_ext import composite as kernel
from engine_ext import effect as effect_kernel
from engine_ext import mix as sum_kernel

RAMP_PER_SECOND: Final = 50  # a gain moves within 1/50 s: shorter clicks, longer lags behind the hand
MUTE_RAMP: Final = Fraction(3, 100)  # seconds, down to silence: the ear hears a shorter end as a click
_BLACK: Final = (16, 128, 128)

Frames = Mapping[Picture, VideoFrame]
Planes = tuple[Plane, ...]
Pair = tuple[float, float]


class Heard(NamedTuple):
    """One voice of a tick and the sound that is there for it; `until`: the gain it has at the end, where it moves."""

    voice: Voice
    pieces: Sequence[Piece[AudioFrame]]
    until: float | None = None


class Compositor:
    """Paints and sums for one mixer. Keeps the last picture, and the gain each voice had last.

    clipped  samples clipped at full scale, since it was made.
    """

    def __init__(self, spec: MixerSpec, *, threads: int = 1) -> None:
        self._spec = spec
        self._threads = threads
        self._pool = BufferPool(spec.raster.frame_bytes)
        self._last: tuple[Plan, Frames, VideoFrame] | None = None
        self._kept: dict[Hashable, Planes] = {}  # passes and altered pictures of the last picture, by what they show
        self._gains: dict[tuple[Place, int], _Gain] = {}
        self._begun = False
        self._tick = ceil(spec.audio.rate / spec.fps)  # samples
        self.clipped = 0

    def paint(self, plan: Plan, frames: Mapping[Picture, VideoFrame]) -> VideoFrame:
        """The picture of a plan; the very same frame again while plan and frames are the same.

        frames  one for every picture that a layer shows.
        """
        used = {picture: frames[picture] for picture in plan.pictures}
        if self._last is not None:
            last_plan, last_used, picture = self._last
            if used == last_used and (last_plan is plan or last_plan.passes == plan.passes):
                return picture
        picture = self._paint(plan, frames)
        self._last = (plan, used, picture)
        return picture

    def _paint(self, plan: Plan, frames: Frames) -> VideoFrame:
        if not plan.layers:
            return black(self._spec.raster.width, self._spec.raster.height)
        painting = _Painting(frames, before=self._kept, threads=self._threads)
        for each in plan.passes[:-1]:
            painting.add(each)
        width, height = self._spec.raster.width, self._spec.raster.height
        buffer = self._pool.take().reshape(height * 3 // 2, width)
        y, u, v = i420_views(buffer, width, height)
        layers = painting.layers(plan.passes[-1])
        if not plan.full:
            layers.insert(0, kernel.Layer(_BLACK, (0, 0, width, height)))
        _composite((y, u, v), layers, threads=self._threads)
        self._kept = painting.kept
        return VideoFrame(y, u, v, buffer=buffer)

    def sum(self, heard: Sequence[Heard], count: int) -> AudioFrame:
        """`count` samples: every voice with its gain and pan; a change moves there within 20 ms, to silence within 30.

        A voice that was not there in the last call fades in over 20 ms, but for the very first call. One with a media
        time begins and ends at once, as it was cut, and moves evenly through the whole tick to where it is at its end.
        """
        out = np.empty((self._spec.audio.channels, count), np.float32)
        blocks: list[sum_kernel.Block] = []
        seen: dict[tuple[Place, int], _Gain] = {}
        ordinals: dict[Place, int] = defaultdict(int)
        for voice, pieces, until in heard:
            key = (voice.place, ordinals[voice.place])
            ordinals[voice.place] += 1
            begin, timed = pan_gains(voice.gain, voice.pan), voice.place.timed
            target = begin if until is None else pan_gains(until, voice.pan)
            gain = self._gains.get(key) or _Gain((0.0, 0.0) if self._begun and not timed else begin)
            gain.aim(target, min(count, self._tick) if timed else self._ramp(target))
            blocks.extend(self._block(piece, gain, voice.mono) for piece in pieces)
            gain.advance(count)
            gain.voice = voice
            seen[key] = gain
        self._gains, self._begun = seen, True
        self.clipped += sum_kernel.mix(out, blocks)
        return AudioFrame(out)

    def leaving(self, voices: Sequence[Voice]) -> list[Voice]:
        """The voices of the last sum that are audible still and not among these, muted: summed, they fade out."""
        counts = Counter(voice.place for voice in voices)
        last = sorted(self._gains.items(), key=lambda item: item[0][1])
        gone = [gain for (place, n), gain in last if n >= counts[place] and gain.now != (0.0, 0.0) and not place.timed]
        return [msgspec.structs.replace(gain.voice, gain=0.0) for gain in gone if gain.voice is not None]

    def _ramp(self, target: Pair) -> int:
        rate = self._spec.audio.rate
        return int(MUTE_RAMP * rate) if target == (0.0, 0.0) else rate // RAMP_PER_SECOND

    def _block(self, piece: Piece[AudioFrame], gain: _Gain, mono: float) -> sum_kernel.Block:
        samples = piece.block.raw[:, piece.skip : piece.skip + piece.count]
        inputs = samples.shape[0]
        factor = mono if inputs < self._spec.audio.channels else 1.0
        ramp = max(0, min(piece.count, gain.left - piece.offset))
        pairs = (gain.at(piece.offset), gain.at(piece.offset + ramp))
        begin, end = (
            _matrix((left * factor, right * factor), inputs, self._spec.audio.channels) for left, right in pairs
        )
        return sum_kernel.Block(samples, piece.offset, (begin, end), ramp)


class _Painting:
    """The passes and altered pictures of one picture.

    What was made for the picture before from the very same frames is taken from there: a mask, a title, a picture with
    effects is made once while it stays as it is. `kept` is what the next picture may take.
    """

    def __init__(self, frames: Frames, *, before: Mapping[Hashable, Planes], threads: int) -> None:
        self.kept: dict[Hashable, Planes] = {}
        self._frames = frames
        self._before = before
        self._threads = threads
        self._passes: list[Planes] = []
        self._keys: list[Hashable] = []  # of those

    def add(self, each: Pass) -> None:
        """Paints the next pass."""
        shown = tuple(self._frames[layer.source] for layer in each.layers if layer.source is not None)
        numbers = [each.mask, *(layer.group for layer in each.layers)]
        key = (each, shown, tuple(self._keys[n] for n in numbers if n is not None))
        planes = self.kept.get(key) or self._before.get(key)
        if planes is None:
            planes = self._mask(each) if each.veils else self._group(each)
        self.kept[key] = planes
        self._passes.append(planes)
        self._keys.append(key)

    def layers(self, each: Pass) -> list[kernel.Layer]:
        """What a pass paints, for the kernel."""
        return [self._layer(layer) for layer in each.layers]

    def _group(self, each: Pass) -> Planes:
        """Five planes: colour premultiplied by coverage, coverage at luma and at chroma positions."""
        size = (each.bounds.height, each.bounds.width)
        half = (size[0] // 2, size[1] // 2)
        y, u, v, a, ac = (np.zeros(shape, np.uint8) for shape in (size, half, half, size, half))
        _composite((y, u, v), self.layers(each), coverage=(a, ac), threads=self._threads)
        if each.mask is not None:
            at_luma, at_chroma = self._passes[each.mask]
            for plane, mask in ((y, at_luma), (u, at_chroma), (v, at_chroma), (a, at_luma), (ac, at_chroma)):
                effect_kernel.veil(plane, mask)
        return y, u, v, a, ac

    def _mask(self, each: Pass) -> Planes:
        """Two planes: how much shows, at luma and at chroma positions."""
        y, u, v = _canvas(each.bounds.width, each.bounds.height)
        _composite((y, u, v), self.layers(each), threads=self._threads)
        at_luma, at_chroma = np.empty_like(y), np.empty_like(u)
        effect_kernel.luma(at_luma, at_chroma, y, u, v)
        return at_luma, at_chroma

    def _layer(self, layer: Layer) -> kernel.Layer:
        dest = (layer.dest.x, layer.dest.y, layer.dest.width, layer.dest.height)
        if layer.colour is not None:
            return kernel.Layer(layer.colour, dest, alpha=layer.alpha)
        crop = (layer.crop.x, layer.crop.y, layer.crop.width, layer.crop.height)
        if layer.group is not None:
            return kernel.Layer(self._passes[layer.group], dest, crop, alpha=layer.alpha)
        if layer.altered is not None:
            return kernel.Layer(self._altered(layer.altered), dest, crop, alpha=layer.alpha)
        assert layer.picture is not None
        planes = self._frames[layer.picture].planes
        return kernel.Layer(planes, dest, crop, mirror_x=layer.mirror_x, mirror_y=layer.mirror_y, alpha=layer.alpha)

    def _altered(self, altered: Altered) -> Planes:
        frame = self._frames[altered.picture]
        key = (altered, frame)
        planes = self.kept.get(key) or self._before.get(key)
        if planes is None:
            planes = self._placed(altered, frame)
            for step in altered.steps:
                planes = _stepped(planes, step, altered.part)
        self.kept[key] = planes
        return planes

    def _placed(self, altered: Altered, frame: VideoFrame) -> Planes:
        """The part of the cropped, scaled and mirrored picture: y, u, v and, where it can be seen through, a."""
        part = altered.part
        colours = self._scaled(altered, (frame.y, frame.u, frame.v))
        if frame.a is None:
            return tuple(_cut(plane, part, half=n > 0) for n, plane in enumerate(colours))
        grey = np.broadcast_to(np.zeros(frame.u.shape[1], np.uint8), frame.u.shape)
        alpha, _, _ = self._scaled(altered, (frame.a, grey, grey))
        return tuple(_cut(plane, part, half=0 < n < 3) for n, plane in enumerate((*colours, alpha)))

    def _scaled(self, altered: Altered, planes: Planes) -> Planes:
        part = altered.part
        canvas = _canvas(part.width + part.width % 2, part.height + part.height % 2)
        kernel.composite(*canvas, [_placed_layer(altered, planes, -part.y)], threads=self._threads)
        if part.height % 2:
            # It ends within a row of chroma, of which a layer does not own the last one, but the first: so upside down.
            turned = msgspec.structs.replace(altered, mirror_y=not altered.mirror_y)
            edge = _canvas(part.width + part.width % 2, 2)
            kernel.composite(*edge, [_placed_layer(turned, planes, 1)])
            for chroma, row in zip(canvas[1:], edge[1:], strict=True):
                chroma[-1] = row[0]
        return canvas


def _placed_layer(altered: Altered, planes: Planes, y: int) -> kernel.Layer:
    """A picture, cropped, scaled and mirrored, on a canvas that begins at the left of its part. y: its top there."""
    crop = (altered.crop.x, altered.crop.y, altered.crop.width, altered.crop.height)
    dest = (-altered.part.x, y, altered.width, altered.height)
    return kernel.Layer(planes, dest, crop, mirror_x=altered.mirror_x, mirror_y=altered.mirror_y)


def _composite(
    canvas: tuple[Plane, Plane, Plane],
    layers: list[kernel.Layer],
    *,
    coverage: tuple[Plane, Plane] | None = None,
    threads: int,
) -> None:
    """Any number of layers: transitions one upon the other may have more than the kernel takes at once."""
    for n in range(0, len(layers), kernel.MAX_LAYERS):
        kernel.composite(*canvas, layers[n : n + kernel.MAX_LAYERS], coverage=coverage, threads=threads)


def _canvas(width: int, height: int) -> tuple[Plane, Plane, Plane]:
    """A black picture of even sides, to paint on."""
    half = (height // 2, width // 2)
    return np.full((height, width), 16, np.uint8), np.full(half, 128, np.uint8), np.full(half, 128, np.uint8)


def _cut(plane: Plane, part: Rect, *, half: bool) -> Plane:
    """A plane of the part's own size, which may be odd, in one piece."""
    height, width = ((n + 1) // 2 if half else n for n in (part.height, part.width))
    return np.ascontiguousarray(plane[:height, :width])


def _stepped(planes: Planes, step: Step, part: Rect) -> Planes:
    """The planes of a placed picture after one more step. y, u, v stay what they are where it only changes alpha."""
    y, u, v = planes[:3]
    if isinstance(step, Convolve):
        made = tuple(np.empty_like(plane) for plane in (y, u, v))
        bias = step.bias * 219 / 255
        for out, plane, zero in zip(made, (y, u, v), _BLACK, strict=True):
            effect_kernel.convolve(out, plane, step.matrix, zero, bias if zero == _BLACK[0] else 0.0)
        return (*made, *planes[3:])
    if isinstance(step, Recolour):
        return _recoloured(planes, step)
    if isinstance(step, Tint):
        filled = tuple(np.full_like(plane, value) for plane, value in zip((y, u, v), step.yuv, strict=True))
        return (*filled, *planes[3:])
    if isinstance(step, Fade):
        alpha = np.full_like(y, round_half_up(step.opacity * 255))
        if len(planes) > 3:
            effect_kernel.veil(alpha, planes[3])
        return y, u, v, alpha
    alpha = planes[3].copy() if len(planes) > 3 else np.full_like(y, 255)
    if isinstance(step, Key):
        effect_kernel.key(alpha, u, v, step.cb, step.cr, step.similarity, step.blend)
    else:
        alpha *= _within(step, part)
    return y, u, v, alpha


def _recoloured(planes: Planes, step: Recolour) -> Planes:
    y, u, v = planes[:3]
    alpha = planes[3] if len(planes) > 3 else None
    matrix = (step.red, step.green, step.blue, step.alpha)
    kept = step.alpha == (0, 0, 0, 1)
    made = np.empty_like(y), np.empty_like(u), np.empty_like(v)
    new_alpha = None if kept else np.empty_like(y)
    effect_kernel.recolour((*made, new_alpha), (y, u, v, alpha), matrix)
    last = alpha if kept else new_alpha
    return made if last is None else (*made, last)


def _within(step: Cut, part: Rect) -> Plane:
    """1 inside the rectangle, 0 outside, of the part's size."""
    sides = []
    for start, length, first, count in (
        (step.y, step.height, part.y, part.height),
        (step.x, step.width, part.x, part.width),
    ):
        at = np.arange(first, first + count)
        stop = float("inf") if length is None else round_half_up(start + length)
        sides.append((at >= round_half_up(start)) & (at < stop))
    return np.outer(*sides).astype(np.uint8)


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
