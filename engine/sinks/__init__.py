"""Things that eat frames or packets: files, streams, players, playlists, recordings, servers elsewhere.

`open_sink` knows which name of a file means which.
"""

from engine.sinks.file import open_sink

__all__ = ["open_sink"]
