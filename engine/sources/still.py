"""Still images: PNG, JPEG, GIF (its first picture), BMP, WebP, with their alpha and their EXIF orientation.

It decides what the colour of a see-through pixel is; it refuses to know where the image is shown. Worker threads only.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Final

import av
import numpy as np
from av.video.reformatter import Colorspace
from numpy.typing import NDArray

from engine.errors import SourceMalformed, SourceUnavailable, SourceUnsupported
from engine.frame import VideoFrame
from engine.plan import PictureSize
from engine.sources.avfile import Batch
from engine.sources.convert import PictureConverter, has_alpha

MAX_BYTES: Final = 256 << 20
MAX_PIXELS: Final = 16384 * 16384
# The first bytes of what is a still wherever it is used; a GIF may move, so as a stream it is a film.
MAGIC: Final = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM")
_REACH: Final = 4  # pixels that a colour is spread into the see-through: more than any scaler's kernel reaches


def is_still(path: str) -> bool:
    """Whether the file begins as an image of one picture does."""
    try:
        with open(path, "rb") as file:
            head = file.read(16)
    except (OSError, ValueError):
        return False
    return head.startswith(MAGIC) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")


def load_still(name: str, path: str) -> VideoFrame:
    """The image of a file as a frame. Raises SourceUnavailable, SourceMalformed, SourceUnsupported."""
    try:
        size = Path(path).stat().st_size
        if size > MAX_BYTES:
            raise SourceUnsupported(f'image "{name}": {size} bytes, more than {MAX_BYTES}', where=name)
        with av.open(path, "r", metadata_errors="replace") as container:
            if not container.streams.video:
                raise SourceMalformed(f'image "{name}": not an image', where=name)
            context = container.streams.video[0].codec_context
            if context.width * context.height > MAX_PIXELS:
                sentence = f'image "{name}": {context.width}×{context.height} is more than {MAX_PIXELS} pixels'
                raise SourceUnsupported(sentence, where=name)
            frame = next(container.decode(video=0), None)
    except (FileNotFoundError, PermissionError, IsADirectoryError) as err:
        raise SourceUnavailable(f'image "{name}": {(err.strerror or "unreadable").lower()}', where=name) from err
    except (av.error.FFmpegError, OSError, ValueError) as err:
        raise SourceMalformed(f'image "{name}": not an image that can be read', where=name) from err
    if frame is None:
        raise SourceMalformed(f'image "{name}": no picture in it', where=name)
    if has_alpha(frame.format):
        frame = _spread(frame)
    return PictureConverter(None).convert(frame)


def _spread(frame: av.VideoFrame) -> av.VideoFrame:
    """Gives see-through pixels the colour of their visible neighbours: scaling would mix theirs into the edge else."""
    rgba = frame.reformat(format="rgba", src_colorspace=Colorspace.ITU709).to_ndarray()
    hidden = rgba[..., 3] == 0
    if not hidden.any() or hidden.all():
        return frame
    colour = rgba[..., :3].astype(np.uint16)
    known = ~hidden
    for _ in range(_REACH):
        if known.all():
            break
        total, count = _neighbours(colour, known)
        grown = ~known & (count > 0)
        colour[grown] = (total[grown] + count[grown, np.newaxis] // 2) // count[grown, np.newaxis]
        known |= grown
    rgba[..., :3] = colour
    spread = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgba), "rgba")
    if frame.rotation:
        turns = round(frame.rotation / 90) % 4
        spread = av.VideoFrame.from_ndarray(np.ascontiguousarray(np.rot90(rgba, turns)), "rgba")
    return spread


def _neighbours(
    colour: NDArray[np.uint16], known: NDArray[np.bool_]
) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """Sum of the known ones among each pixel's four neighbours, and how many they are."""
    padded = np.pad(np.where(known[..., np.newaxis], colour, 0), ((1, 1), (1, 1), (0, 0)))
    there = np.pad(known.astype(np.uint16), 1)
    rows, columns = slice(1, -1), slice(1, -1)
    around = ((slice(0, -2), columns), (slice(2, None), columns), (rows, slice(0, -2)), (rows, slice(2, None)))
    total: NDArray[np.uint16] = np.add.reduce([padded[each] for each in around], dtype=np.uint16)
    count: NDArray[np.uint16] = np.add.reduce([there[each] for each in around], dtype=np.uint16)
    return total, count


class StillSource:
    """A still image read as a source: the same picture at every time, no sound, no end."""

    def __init__(self, guid: str, path: str) -> None:
        """Raises what load_still raises."""
        self.guid = guid
        self._frame = load_still(guid, path)
        self._given = False

    @property
    def picture_size(self) -> PictureSize:
        """Size as displayed."""
        return PictureSize(self._frame.width, self._frame.height, self._frame.a is None)

    has_sound = False
    duration = None
    endless = True

    def step(self, *, pictures: int | None, sounds: bool | None, start: Fraction) -> Batch:
        """The one picture, on screen from time 0 on, for ever: nothing after it can change that."""
        given, self._given = self._given, self._given or bool(pictures)
        shown = [(Fraction(0), _FOR_EVER, self._frame)] if pictures and not given else []
        return Batch(shown, [], pictures_end=self._given, sounds_end=True)

    def seek(self, t: Fraction) -> None:
        """Every time is the same."""
        self._given = False

    def close(self) -> None:
        """Nothing is open."""


_FOR_EVER: Final = Fraction(10**9)
