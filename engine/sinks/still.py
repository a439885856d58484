"""One picture as the bytes of an image: PNG, which keeps it as it is, or JPEG, which is small.

It decides the colours of an image; it refuses to know what is done with it. Worker threads only.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any, Final

import av

from engine.frame import VideoFrame
from engine.sinks.encode import copied, picture_frame

_FULL: Final = 2  # range
_BT709: Final = 1
_BT601: Final = 5  # what the colours of a JPEG are, always (JFIF 1.02)
_FORMATS: Final = {"png": "rgb24", "mjpeg": "yuvj420p"}


def encode_still(
    picture: VideoFrame, codec: str = "png", size: tuple[int, int] | None = None, *, alpha: bool = False
) -> bytes:
    """A picture of any size as the bytes of a PNG, or of a JPEG (codec "mjpeg").

    size   width and height of the image; None = the picture's own.
    alpha  keep it, in a PNG; otherwise it is left out.
    Raises av.error.FFmpegError.
    """
    width, height = size or (picture.width, picture.height)
    form = "rgba" if alpha and picture.a is not None and codec == "png" else _FORMATS[codec]
    frame = (_with_alpha(picture) if form == "rgba" else picture_frame(picture)).reformat(
        width=width,
        height=height,
        format=form,
        src_color_range=1,
        dst_color_range=_FULL,
        dst_colorspace=_BT601,
        interpolation="AREA" if width < picture.width else "BILINEAR",
        threads=1,
    )
    return image_of(frame, codec)


def image_of(frame: av.VideoFrame, codec: str) -> bytes:
    """A libav frame, as the codec takes it, as the bytes of an image. Raises av.error.FFmpegError."""
    context: Any = av.CodecContext.create(codec, "w")
    context.width, context.height, context.pix_fmt = frame.width, frame.height, frame.format.name
    context.time_base, context.color_range = Fraction(1), _FULL
    context.thread_count = 1  # those of its own it would start for each picture, where any are to be had
    frame.pts = 0
    return b"".join(bytes(packet) for packet in [*context.encode(frame), *context.encode(None)])


def _with_alpha(picture: VideoFrame) -> av.VideoFrame:
    frame = copied(picture, "yuva420p")
    frame.colorspace, frame.color_range = _BT709, 1
    return frame.reformat(format="yuva444p")  # libswscale's way from 4:2:0 to rgba leaves columns at the right edge out
