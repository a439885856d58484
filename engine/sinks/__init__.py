"""Things that eat frames: a media file, an image of one picture, nothing. `open_sink` knows which name means which."""

from __future__ import annotations

from engine.sinks.encode import Encoding
from engine.sinks.file import FileSink, open_sink

__all__ = ["Encoding", "FileSink", "open_sink"]
