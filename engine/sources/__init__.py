"""Things that make frames: files and URLs, stills, patterns. `open_source` knows which name means which."""

from __future__ import annotations

from engine.config import Settings
from engine.sources.avfile import MediaFile
from engine.sources.container import check_file
from engine.sources.pattern import PatternSource
from engine.sources.reader import Reader, Steps
from engine.sources.still import StillSource, check_still, is_still, load_still
from engine.sources.tempo import Tempo
from engine.spec import AudioFormat

__all__ = ["Reader", "Steps", "check_source", "check_still", "load_still", "open_source"]


def check_source(guid: str, url: str) -> None:
    """Raises the SourceError that `open_source` raises of a local file that is not there, empty, or may not be read.

    A look at the file and no more, some 20 µs; nothing else is opened.
    """
    if not url.startswith("pattern:"):
        check_file(guid, url)


def open_source(
    guid: str, url: str, *, sound: AudioFormat, settings: Settings, threads: int = 1, speed: float = 1
) -> Steps:
    """Opens what a URL names: ``pattern:…``, a still image, or anything libav opens. Blocks: worker threads only.

    threads  for decoding the picture of a file.
    speed    other than 1: only the sound, that much faster, its pitch kept.
    Raises   SourceError.
    """
    if speed != 1:
        steps = open_source(guid, url, sound=sound, settings=settings)
        return Tempo(steps, speed, rate=sound.rate)
    if url.startswith("pattern:"):
        return PatternSource(guid, url, sound=sound)
    if is_still(url.removeprefix("file:")):
        return StillSource(guid, url.removeprefix("file:"))
    return MediaFile(guid, url, sound=sound, settings=settings, threads=threads)
