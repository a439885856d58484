"""libav frames → frames in the working format: a picture that is in it already is viewed in place, any other converted.

It decides what an untagged picture means; it refuses to know when a frame is shown. Worker threads only; one converter
belongs to one source.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Final, NamedTuple

import av
import numpy as np
from av.video.plane import VideoPlane
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from engine.frame import AudioFrame, Plane, RawSamples, VideoFrame
from engine.packet import UPRIGHT, Orientation
from engine.sources.matrix import Matrix
from engine.spec import MAX_SIDE, AudioFormat

# AVColorSpace (libavutil/pixfmt.h) → the matrix to convert from.
_MATRICES: Final = {
    1: Colorspace.ITU709,
    4: Colorspace.FCC,
    5: Colorspace.ITU601,
    6: Colorspace.SMPTE170M,
    7: Colorspace.SMPTE240M,
    9: Colorspace.BT2020,
    10: Colorspace.BT2020,
}
_AVCOL_RANGE_JPEG: Final = 2
_ONE_BIT_FORMATS: Final = ("monob", "monow")
_FULL_RANGE_FORMATS: Final = ("yuvj420p", "yuvj422p", "yuvj444p", "yuvj440p", "yuvj411p", *_ONE_BIT_FORMATS)
MAX_ASPECT: Final = 16  # of a pixel; anamorphic film has 2, a broken header anything
# What swscale should care for when it converts: rounding, and chroma of 4:2:0 from every pixel of RGB.
_QUALITY: Final = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INP


_TURNS: Final = (  # by counter-clockwise quarter turns
    UPRIGHT,
    Orientation(transposed=True, flip_y=True),
    Orientation(flip_x=True, flip_y=True),
    Orientation(transposed=True, flip_x=True),
)


class _Target(NamedTuple):
    """What a kind of frame becomes; `tags` are its matrix and range, `native`: it is in the working format already."""

    width: int
    height: int
    see_through: bool
    tags: tuple[Colorspace, ColorRange]
    native: bool
    matrix: Matrix | None = None  # where nothing but that has to change


class PictureConverter:
    """Decoded pictures of one source → VideoFrame; see-through formats keep their alpha, straight.

    aspect  of one pixel, width : height.
    tags    the container's AVColorSpace and AVColorRange, for frames that do not say theirs; 2 and 0 = unknown.
    """

    def __init__(self, aspect: Fraction = Fraction(1), *, tags: tuple[int, int] = (2, 0)) -> None:
        self._aspect = aspect
        self._tags = tags
        self._reformatter = VideoReformatter()
        self._kind: tuple[tuple[str, int, int, int, int], _Target] | None = None  # of the last frame
        self._seen: tuple[int, Orientation] | None = None  # rotation, and what its display matrix says

    def convert(self, frame: av.VideoFrame, orientation: Orientation | None = None) -> VideoFrame:
        """The frame as the engine wants it: upright, square pixels, 4:2:0, BT.709 limited. Shares memory if it can.

        orientation  None = what the frame says.
        """
        kind = (frame.format.name, frame.width, frame.height, int(frame.colorspace), int(frame.color_range))
        if self._kind is None or self._kind[0] != kind:
            self._kind = kind, self._target(frame)
        target = self._kind[1]
        planes = frame.planes
        upside_down = any(plane.line_size < 0 for plane in planes)  # as some raw formats store it
        if target.matrix is not None and not upside_down:
            frame = target.matrix.convert(frame)
            planes = frame.planes
        elif not target.native or upside_down:
            if frame.format.name in _ONE_BIT_FORMATS:
                frame = frame.reformat(format="gray")  # libav leaves their black and white at 0 and 255 in any range
            frame = self._reformatter.reformat(
                frame,
                width=target.width,
                height=target.height,
                format="yuva420p" if target.see_through else "yuv420p",
                src_colorspace=target.tags[0],
                dst_colorspace=Colorspace.ITU709,
                src_color_range=target.tags[1],
                dst_color_range=ColorRange.MPEG,
                interpolation=_QUALITY,
                threads=1,
            )
            planes = frame.planes
        views = [_view(plane) for plane in planes[: 4 if target.see_through else 3]]
        turn = self._orientation(frame) if orientation is None else orientation
        return VideoFrame(*views) if turn == UPRIGHT else VideoFrame(*(_turned(view, turn) for view in views))

    def _target(self, frame: av.VideoFrame) -> _Target:
        """What frames like this one become; asked once a kind, not once a picture."""
        width, height = displayed_size(frame.width, frame.height, self._aspect)
        tags = tags_of(frame, self._tags)
        native = frame.format.name in ("yuv420p", "yuva420p") and tags == (Colorspace.ITU709, ColorRange.MPEG)
        native = native and (width, height) == (frame.width, frame.height)
        same = (width, height, "yuv420p") == (frame.width, frame.height, frame.format.name)
        matrix = Matrix(width, height, color_range=tags[1]) if same and Matrix.can(width, height, tags[0]) else None
        return _Target(width, height, has_alpha(frame.format), tags, native, matrix)

    def _orientation(self, frame: av.VideoFrame) -> Orientation:
        """Looks at the matrix only when the angle changes: PyAV ties a frame and its side data into a reference cycle,
        and memory would grow by every picture until the next garbage collection."""
        angle = frame.rotation
        if self._seen is None or self._seen[0] != angle:
            self._seen = angle, orientation_of(frame)
        return self._seen[1]


def tags_of(frame: av.VideoFrame, container: tuple[int, int] = (2, 0)) -> tuple[Colorspace, ColorRange]:
    """Matrix and range of a frame: its own tags, or its container's, or what is usual.

    An untagged picture of a film is BT.709 from 1280 pixels wide or 577 high on, below it BT.601: the rule of most
    players; untagged HD is BT.709 in practice, untagged SD is not.
    """
    matrix = _MATRICES.get(int(frame.colorspace)) or _MATRICES.get(container[0])
    if matrix is None:
        matrix = Colorspace.ITU709 if frame.width >= 1280 or frame.height > 576 else Colorspace.SMPTE170M
    full = frame.format.is_rgb or frame.format.name in _FULL_RANGE_FORMATS
    full = full or (int(frame.color_range) or container[1]) == _AVCOL_RANGE_JPEG
    return matrix, ColorRange.JPEG if full else ColorRange.MPEG


def displayed_size(width: int, height: int, aspect: Fraction) -> tuple[int, int]:
    """Size with square pixels: the width stretched by the pixel's aspect, as a player shows it; never beyond belief."""
    stretched = max(1, round(width * aspect))
    if aspect == 1 or not 1 / MAX_ASPECT <= aspect <= MAX_ASPECT or stretched > MAX_SIDE:
        return width, height
    return stretched, height


def orientation_of(frame: av.VideoFrame) -> Orientation:
    """What the display matrix of a decoded frame says, in quarter turns and mirrorings."""
    try:
        matrix = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV does not know the type of another side data
        return _TURNS[round(frame.rotation / 90) % 4]
    if matrix is None:
        return UPRIGHT
    a, b, _, c, d, *_ = (int(number) for number in np.frombuffer(matrix, np.int32))  # type: ignore[call-overload]
    # x' = a·x + c·y, y' = b·x + d·y (ISO 14496-12 6.2.2)
    transposed = abs(b) + abs(c) > abs(a) + abs(d)
    return Orientation(transposed, (c if transposed else a) < 0, (b if transposed else d) < 0)


def has_alpha(pixel_format: av.VideoFormat) -> bool:
    """Whether pictures of this pixel format can be seen through."""
    return pixel_format.name == "pal8" or any(component.is_alpha for component in pixel_format.components)


def _view(plane: VideoPlane) -> Plane:
    rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)  # type: ignore[call-overload]
    view: Plane = rows[: plane.height, : plane.width]
    return view


def _turned(plane: Plane, orientation: Orientation) -> Plane:
    rows = plane.T if orientation.transposed else plane
    step_x, step_y = (-1 if flip else 1 for flip in (orientation.flip_x, orientation.flip_y))
    return np.ascontiguousarray(rows[::step_y, ::step_x])


class SoundConverter:
    """Decoded sound of one source → the mixer's rate, mono or stereo; others are down-mixed.

    Float32 comes out, and 16 bits where those came in at that rate: the sum kernel takes both.

    A change of rate, layout or format in mid-stream starts a new resampler, after the old one's last samples.
    """

    def __init__(self, wanted: AudioFormat) -> None:
        self._rate = wanted.rate
        self._resampler: av.AudioResampler | None = None
        self._given: tuple[str, int, str] | None = None

    def convert(self, frame: av.AudioFrame | None) -> list[AudioFrame]:
        """What comes out for one decoded frame, or at the end (None) what the resampler still holds."""
        if frame is None:
            return self._flush()
        given = (frame.format.name, frame.sample_rate, frame.layout.name)
        out: list[AudioFrame] = []
        if given != self._given:
            out = self._flush()
            self._given = given
            self._resampler = None if self._ready(frame) else self._new_resampler(frame)
        if self._resampler is None:
            out.append(AudioFrame(_sound(frame)))
            return out
        frame.pts = None  # the resampler counts samples by itself; time stamps are the caller's
        out.extend(AudioFrame(_sound(each)) for each in self._resampler.resample(frame))
        return out

    def reset(self) -> None:
        """Forgets what the resampler holds, after a seek."""
        self._resampler, self._given = None, None

    def _flush(self) -> list[AudioFrame]:
        if self._resampler is None:
            return []
        last = [AudioFrame(_sound(each)) for each in self._resampler.resample(None)]
        self._resampler, self._given = None, None
        return last

    def _ready(self, frame: av.AudioFrame) -> bool:
        return (
            frame.format.name in ("fltp", "s16", "flt", "s16p")
            and frame.sample_rate == self._rate
            and frame.layout.nb_channels <= 2
        )

    def _new_resampler(self, frame: av.AudioFrame) -> av.AudioResampler:
        layout = "mono" if frame.layout.nb_channels == 1 else "stereo"
        return av.AudioResampler(format="fltp", layout=layout, rate=self._rate)


def silence(like: av.AudioFrame, count: int) -> av.AudioFrame:
    """That many samples of silence, in the format, layout and rate of a decoded frame."""
    layout, rate = like.layout, like.sample_rate
    zeros = np.zeros((1, count * layout.nb_channels), np.float32)  # packed: PyAV goes beyond the last of 8 planes
    packed = av.AudioFrame.from_ndarray(zeros, "flt", layout.name)
    packed.sample_rate = rate
    (frame,) = av.AudioResampler(like.format, layout, rate).resample(packed)
    return frame


def _sound(frame: av.AudioFrame) -> RawSamples:
    """(C, N) float32 or int16 of a fltp, flt, s16 or s16p frame, in place where it lies as the mixer takes it."""
    channels, count = frame.layout.nb_channels, frame.samples
    name = frame.format.name
    dtype = np.dtype(np.int16 if name.startswith("s16") else np.float32)
    if name.endswith("p"):
        rows = [np.frombuffer(plane, dtype)[:count] for plane in frame.planes]  # type: ignore[call-overload]
        return rows[0][np.newaxis] if channels == 1 else np.stack(rows)
    raw = np.frombuffer(frame.planes[0], dtype)[: count * channels].reshape(count, channels).T  # type: ignore[call-overload]
    return raw if dtype == np.int16 else np.ascontiguousarray(raw)
