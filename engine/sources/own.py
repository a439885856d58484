"""OwnSource: what a mixer sees of the very stream that it publishes: the picture of the slot before, as it painted it.

It decides that this picture is not decoded, but taken from the mixer; it refuses to know sound, which is any stream's:
published, decoded, and later by as much.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Protocol

import msgspec

from engine.frame import AudioFrame, VideoFrame
from engine.framequeue import Pick, Piece
from engine.plan import PictureSize
from engine.sources.live import LiveSource, SourceStatistics
from engine.spec import Raster


class Painted(Protocol):
    """Where a mixer puts its pictures."""

    last_picture: VideoFrame | None  # None before the first; it stays as it is for as long as anybody keeps it


class OwnSource:
    """As a LiveSource is, but for its picture.

    source  gives the sound; closed with this.
    """

    def __init__(self, source: LiveSource, painted: Painted, raster: Raster) -> None:
        self._source = source
        self._painted = painted
        self._asked: Fraction | None = None  # when pick was last called for
        self._shown = 0
        self.picture_size = PictureSize(raster.width, raster.height)

    def attend(self, *, picture: Fraction | None, sound: int | None, shrink: int = 1, hold: bool = False) -> None:
        """Says what is listened to; nothing is done for a look."""
        self._source.attend(picture=None, sound=sound)

    def foresee(self, t: Fraction, *, within: Fraction, looks: bool, listens: bool) -> None:
        """Somebody listens within so many seconds."""
        self._source.foresee(t, within=within, looks=False, listens=listens)

    async def settle(self, *, picture: Fraction | None, sound: int | None) -> None:
        """Returns at once."""

    def pick(self, t: Fraction, tolerance: Fraction) -> Pick[VideoFrame]:
        """The picture of the slot before, whenever that was."""
        frame = self._painted.last_picture
        self._shown += frame is not None and t != self._asked
        self._asked = t
        return Pick(frame, None, False)

    def take(self, start: int, stop: int) -> list[Piece[AudioFrame]]:
        """The samples of [start, stop) that are there."""
        return self._source.take(start, stop)

    def over(self, t: Fraction, *, picture: bool, beside: bool) -> bool:
        """Never."""
        return False

    @property
    def late(self) -> int:
        """None of its pictures is."""
        return 0

    def close(self) -> None:
        """Any number of times."""
        self._source.close()

    def statistics(self) -> SourceStatistics:
        """How it is doing."""
        return msgspec.structs.replace(self._source.statistics(), shown=self._shown, dropped=0)
