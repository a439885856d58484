"""Things that eat frames or packets: files, streams, players, playlists, recordings, servers elsewhere.

`open_sink` knows which name of a file means which.
"""

from __future__ import annotations

from engine.sinks.encode import Encoding
from engine.sinks.file import FileSink, open_sink

__all__ = ["Encoding", "FileSink", "open_sink"]
