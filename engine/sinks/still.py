"""One picture as the bytes of an image: PNG, which keeps it as it is, or JPEG, which is small.

It decides the colours of an image; it refuses to know what is done with it. Worker threads only.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any, Final

import av

from engine.frame import VideoFrame
from engine.sinks.encode import picture_frame

_FULL: Final = 2  # range
_BT601: Final = 5  # what the colours of a JPEG are, always (JFIF 1.02)
_FORMATS: Final = {"png": "rgb24", "mjpeg": "yuvj420p"}


def encode_still(picture: VideoFrame, codec: str = "png") -> bytes:
    """A picture of any size as the bytes of a PNG, or of a JPEG (codec "mjpeg"); alpha is left out.

    Raises av.error.FFmpegError.
    """
    context: Any = av.CodecContext.create(codec, "w")
    frame = picture_frame(picture).reformat(
        format=_FORMATS[codec], src_color_range=1, dst_color_range=_FULL, dst_colorspace=_BT601, threads=1
    )
    context.width, context.height, context.pix_fmt = frame.width, frame.height, _FORMATS[codec]
    context.time_base, context.color_range = Fraction(1), _FULL
    frame.pts = 0
    return b"".join(bytes(packet) for packet in [*context.encode(frame), *context.encode(None)])
