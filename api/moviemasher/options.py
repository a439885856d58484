"""What Movie Masher's servers were started with: sizes of pictures, limits and kinds of uploads.

It decides what settings mean there; it refuses to know who asks for them.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final, NamedTuple

from engine.config import Settings
from engine.errors import InvalidSpec
from engine.spec import Raster

PREVIEW: Final = Raster(480, 270)  # where nobody says another
OUTPUT: Final = Raster(1920, 1080)
MB: Final = 1 << 20
# What is read here and browsers play, so that an import can be seen at once.
EXTENSIONS: Final = MappingProxyType(
    {
        "audio": ("aac", "aif", "aiff", "flac", "m4a", "mp3", "oga", "ogg", "opus", "wav"),
        "font": ("otf", "ttf"),
        "image": ("gif", "jpeg", "jpg", "png", "svg", "webp"),
        "video": ("m4v", "mkv", "mov", "mp4", "mpeg", "mpg", "ogv", "webm"),
    }
)


class Options(NamedTuple):
    """The settings of these servers, understood.

    preview      of products that the client shows; icons have half of it.
    has_preview  whether it was asked for: only then the client is told.
    limits       MB of one upload, of each kind.
    quota        bytes of one user's files, and as many of documents; 0: as much as there is room.
    """

    preview: Raster
    has_preview: bool
    output: Raster
    limits: dict[str, float]
    quota: int

    @property
    def icon(self) -> Raster:
        """The size of icons: images, which may have odd sizes."""
        return Raster(self.preview.width // 2, self.preview.height // 2)


def read_options(settings: Settings) -> Options:
    """What settings mean. Raises InvalidSpec."""
    return Options(
        preview=_size(settings.preview_size, "preview_size") or PREVIEW,
        has_preview=bool(settings.preview_size),
        output=_size(settings.output_size, "output_size") or OUTPUT,
        limits={kind: getattr(settings, f"upload_{kind}") for kind in EXTENSIONS},
        quota=round(settings.quota * MB),
    )


def _size(text: str, where: str) -> Raster | None:
    if not text:
        return None
    try:
        return Raster.parse(text)
    except InvalidSpec as err:
        raise InvalidSpec(f"{where}: {err}", where=where) from None
