"""Still images: PNG, JPEG, GIF and TIFF (their first picture), BMP, WebP, AVIF, HEIC, SVG, with their alpha, which of
AVIF and HEIC libav does not give, and their orientation.

It decides what the colour of a see-through pixel is; it refuses to know where the image is shown. Worker threads only.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import av
import numpy as np
from av.container import InputContainer
from numpy.typing import NDArray

from engine.errors import SourceMalformed, SourceUnavailable, SourceUnsupported, reason_of
from engine.frame import VideoFrame
from engine.packet import Orientation
from engine.plan import PictureSize
from engine.sources.avfile import Batch
from engine.sources.container import LIBAV_ERRORS, MEDIA, best_stream, is_special, refuse_tiles
from engine.sources.convert import PictureConverter, has_alpha, orientation_of, tags_of
from engine.sources.png import SIGNATURE, png_chunk, with_palette
from engine.sources.svg import HEAD, draw_svg, is_svg
from engine.sources.tracks import MAX_PIXELS, check_sides

MAX_BYTES: Final = 256 << 20
# The first bytes of what is a still wherever it is used; a GIF may move, so as a stream it is a film, as an APNG is.
_TIFF: Final = (b"II*\0", b"MM\0*")
MAGIC: Final = (SIGNATURE, b"\xff\xd8\xff", b"BM", *_TIFF)
_PHOTOS: Final = (b"ftypavif", b"ftypheic", b"ftypheix", b"ftypmif1")  # ISO 23008-12; those that move are called others
_GIF: Final = (b"GIF87a", b"GIF89a")
_SAYING_SIZE: Final = (SIGNATURE, b"\xff\xd8\xff", *_GIF)  # by what comes first in them
_EXIF: Final = (b"Exif\0\0", b"eXIf", b"Raw profile type")  # where there is something for libav to turn a picture by
_MOVING: Final = (".mjpeg", ".mjpg")  # names of films that are JPEGs one after the other, and begin as one does
_AVCOL_SPC_UNSPECIFIED: Final = 2
_AVCOL_SPC_BT470BG: Final = 5  # what untagged stills of any size have (ISO 23000-22 Amd 2 7.3.6.4, TIFF 6.0 section 21)
_BAND: Final = 16  # rows that are made at a time where colours are spread: what they need stays small
_EXIF_ORIENTATION: Final = 0x112
_ORIENTATIONS: Final = {  # Exif 2.32 4.6.4: which corner of the picture is stored first, and in which direction
    2: Orientation(flip_x=True),
    3: Orientation(flip_x=True, flip_y=True),
    4: Orientation(flip_y=True),
    5: Orientation(transposed=True),
    6: Orientation(transposed=True, flip_x=True),
    7: Orientation(transposed=True, flip_x=True, flip_y=True),
    8: Orientation(transposed=True, flip_y=True),
}


def is_still(path: str) -> bool:
    """Whether the file begins as an image of one picture does, and its name says nothing else."""
    try:
        if path.lower().endswith(_MOVING) or not Path(path).is_file():  # a pipe would wait for ever
            return False
        with Path(path).open("rb") as file:
            head = file.read(HEAD)
            return (_is_image(head) and not _is_apng(head)) or is_svg(head)
    except (OSError, ValueError):
        return False


def _is_image(head: bytes) -> bool:
    return head.startswith(MAGIC) or head[4:12] in _PHOTOS or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")


def _is_apng(head: bytes) -> bool:
    """Whether a PNG has several pictures, as it says before the first one (PNG 3 11.3.6.1)."""
    count = head.partition(b"IDAT")[0].partition(b"acTL")[2][:4]
    return head.startswith(b"\x89PNG") and int.from_bytes(count, "big") > 1


def _is_moving_webp(data: bytes) -> bool:
    """Whether a WebP has several pictures, which libav does not read, as it says first (RFC 9649 2.7.1)."""
    return data[8:16] == b"WEBPVP8X" and bool(int.from_bytes(data[20:21]) & 0x02)


def load_still(name: str, path: str) -> VideoFrame:
    """The image of a file as a frame. Raises SourceUnavailable, SourceMalformed, SourceUnsupported."""
    return _decoded(name, _image(name, path))


def check_still(name: str, path: str) -> None:
    """Raises what `load_still` raises of a file that is not there, may not be read, or does not begin as an image."""
    _check_head(name, _read(name, path, HEAD))


def still_size(name: str, path: str) -> tuple[int, int]:
    """Width and height of the image of a file, upright. Raises what load_still raises; a damaged one may pass.

    For a PNG, JPEG or GIF what libav knows when it has opened it will do: a tenth of the work, or a third.
    """
    data = _image(name, path)
    orientation = exif_orientation(data)
    is_clear = orientation in range(1, 9) or not any(mark in data for mark in _EXIF)  # else libav may turn it
    if data.startswith(_SAYING_SIZE) and is_clear:
        with _opened(name, data) as (_, stream):
            size = stream.width, stream.height
        if all(size):
            turned = _ORIENTATIONS.get(orientation, Orientation())
            return size[::-1] if turned.transposed else size
    frame = _decoded(name, data)
    return frame.width, frame.height


def _image(name: str, path: str) -> bytes:
    """The bytes of an image that libav may know."""
    data = _read(name, path)
    _check_head(name, data[:HEAD])
    return draw_svg(name, data) if is_svg(data[:HEAD]) else data


def _check_head(name: str, head: bytes) -> None:
    if not is_svg(head) and not _is_image(head) and not head.startswith(_GIF):
        raise SourceMalformed(f'image "{name}": not an image that can be read', where=name)
    if _is_moving_webp(head):
        raise SourceUnsupported(f'image "{name}": a WebP of several pictures is not supported', where=name)


@contextmanager
def _opened(name: str, data: bytes) -> Iterator[tuple[InputContainer, av.VideoStream]]:
    """An image and its picture, not decoded yet; errors of libav within become SourceMalformed."""
    try:
        pixels = io.BytesIO(with_palette(data))
        with av.open(pixels, "r", container_options=MEDIA, metadata_errors="replace") as container:
            refuse_tiles(container, f'image "{name}"', where=name)
            stream = best_stream(container, "video")
            if stream is None:
                raise SourceMalformed(f'image "{name}": no picture in it', where=name)
            check_sides(f'image "{name}"', stream.codec_context, where=name)
            yield container, stream
    except LIBAV_ERRORS as err:
        raise SourceMalformed(f'image "{name}": not an image that can be read', where=name) from err


def _decoded(name: str, data: bytes) -> VideoFrame:
    with _opened(name, data) as (container, stream):
        stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}  # the header may say less than the picture has
        matrix = int(stream.codec_context.colorspace)  # the container's, until something is decoded
        frame = next(container.decode(stream), None)
    if frame is None:
        raise SourceMalformed(f'image "{name}": no picture in it', where=name)
    check_sides(f'image "{name}"', frame, where=name)
    orientation = _ORIENTATIONS.get(exif_orientation(data)) or orientation_of(frame)  # AVIF and HEIC have boxes for it
    tags = (_AVCOL_SPC_BT470BG if matrix == _AVCOL_SPC_UNSPECIFIED else matrix, 0)
    if has_alpha(frame.format):
        frame = _spread(frame, tags)
    return PictureConverter(tags=tags).convert(frame, orientation)


def _read(name: str, path: str, most: int = -1) -> bytes:
    """The first bytes of a file, or all of it."""
    try:
        status = Path(path).stat()
        if is_special(status):
            raise SourceUnsupported(f'image "{name}": not a file', where=name)
        if status.st_size > MAX_BYTES:
            raise SourceUnsupported(f'image "{name}": {status.st_size} bytes, more than {MAX_BYTES}', where=name)
        with Path(path).open("rb") as file:
            return file.read(most)
    except (OSError, ValueError) as err:
        raise SourceUnavailable(f'image "{name}": {reason_of(err)}', where=name) from err


def exif_orientation(data: bytes) -> int:
    """The EXIF orientation, 1…8, of a JPEG, PNG, TIFF or WebP file; 0 where it says none.

    libav's display matrix would do for the turned ones, but PyAV cannot show the mirrored.
    """
    try:
        return _tiff_orientation(_exif(data))
    except (struct.error, IndexError):
        return 0


def _exif(data: bytes) -> bytes:
    """The TIFF block of a file, or nothing."""
    if data.startswith(_TIFF):
        return data
    if data.startswith(b"\xff\xd8"):  # JPEG: marker, big-endian length with itself, content
        at = 2
        while data[at] == 0xFF and data[at + 1] not in (0xD9, 0xDA):
            (size,) = struct.unpack_from(">H", data, at + 2)
            if data[at + 1] == 0xE1 and data[at + 4 : at + 10] == b"Exif\0\0":
                return data[at + 10 : at + 2 + size]
            at += 2 + size
    elif data.startswith(b"\x89PNG"):
        at = png_chunk(data, b"eXIf")
        return data[at + 8 : at + 8 + int.from_bytes(data[at : at + 4], "big")]
    elif data[8:12] == b"WEBP":  # type, little-endian length, content, padded to an even length
        at = 12
        while data[at : at + 4] not in (b"EXIF", b""):
            size = int.from_bytes(data[at + 4 : at + 8], "little")
            at += 8 + size + size % 2
        block = data[at + 8 : at + 8 + int.from_bytes(data[at + 4 : at + 8], "little")]
        return block.removeprefix(b"Exif\0\0")
    return b""


def _tiff_orientation(tiff: bytes) -> int:
    order = "<" if tiff.startswith(b"II") else ">"
    (directory,) = struct.unpack_from(order + "I", tiff, 4)
    (count,) = struct.unpack_from(order + "H", tiff, directory)
    for n in range(count):
        tag, _, _, value = struct.unpack_from(order + "HHIH", tiff, directory + 2 + 12 * n)
        if tag == _EXIF_ORIENTATION:
            return int(value)
    return 0


def _spread(frame: av.VideoFrame, tags: tuple[int, int]) -> av.VideoFrame:
    """Gives hidden pixels the colour of the visible ones near them: scaling would mix theirs into the edge else.

    The picture is halved until there is colour everywhere in it, then what is blank at any size has its colour from the
    next smaller one (pull and push: Gortler et al., The Lumigraph, 1996). So all of it gets one, however many pixels
    are averaged where the picture is shown small; what is visible stays as it is.
    """
    matrix, color_range = tags_of(frame, tags)
    rgba = frame.reformat(format="rgba", src_colorspace=matrix, src_color_range=color_range).to_ndarray()
    blank = rgba[..., 3] == 0
    if not blank.any() or blank.all():
        return frame
    sizes = [(rgba, blank)]  # the first may be the memory of the frame itself, which nobody else reads
    while sizes[-1][1].any():
        sizes.append(_halved(sizes[-1][0]))
    half, _ = sizes.pop()
    while sizes:
        rgba, blank = sizes.pop()
        _fill(rgba, blank, half)
        half = rgba
    return av.VideoFrame.from_ndarray(rgba, "rgba")


def _halved(rgba: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """A picture of half the size, rounded up, and which of its pixels are blank.

    A pixel is the mean of two by two, by their alpha. Where these are hidden it is hidden, with the colour of those
    around them, so that the very edge's is next to it; where these are too, it is blank.
    """
    height, width = ((side + 1) // 2 for side in rgba.shape[:2])
    half, blank = np.empty((height, width, 4), np.uint8), np.empty((height, width), np.bool_)
    for top in range(0, height, _BAND):
        count, above = min(_BAND, height - top), 1 if top else 0
        rows = rgba[2 * top - above : 2 * (top + count) + 1]
        sums = np.zeros((4, 2 * count + 2, 2 * width + 2), np.float32)  # colours by alpha, alpha; around them nothing
        inside = sums[:, 1 - above :, 1 : rgba.shape[1] + 1][:, : len(rows)]
        inside[3] = rows[..., 3]
        for n in range(3):
            np.multiply(rows[..., n], inside[3], out=inside[n])
        own = sums[:, 1:-1:2] + sums[:, 2::2]
        near = own + sums[:, :-2:2] + sums[:, 3::2]
        own = own[..., 1:-1:2] + own[..., 2::2]
        near = near[..., 1:-1:2] + near[..., 2::2] + near[..., :-2:2] + near[..., 3::2]
        band = half[top : top + count]
        band[..., 3] = np.ceil(own[3] / 4)
        blank[top : top + count] = near[3] == 0
        near = np.where(own[3] > 0, own, near)
        for n in range(3):
            band[..., n] = near[n] / np.maximum(near[3], 1) + np.float32(0.5)
    return half, blank


def _fill(rgba: NDArray[Any], blank: NDArray[np.bool_], half: NDArray[Any]) -> None:
    """Gives what is blank in a picture the colour it has at half the size, which loses its alpha."""
    half[..., 3] = 0
    for top in range(0, len(half), _BAND):
        rows = rgba[2 * top : 2 * (top + _BAND)]
        near = half[top : top + _BAND].repeat(2, axis=0).repeat(2, axis=1)[: rows.shape[0], : rows.shape[1]]
        np.copyto(rows, near, where=blank[2 * top : 2 * (top + _BAND), :, np.newaxis])


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

    def ease(self) -> None:
        """There is nothing to save."""

    def seek(self, t: Fraction) -> None:
        """Every time is the same."""
        self._given = False

    def close(self) -> None:
        """Nothing is open."""


_FOR_EVER: Final = Fraction(10**9)
