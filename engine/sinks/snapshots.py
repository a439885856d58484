"""Snapshots of streams, for however many ask: one is made at a time, in a thread that gives way to what is live.

They decide what those get who have to wait; they refuse to know where a picture comes from.
"""

from __future__ import annotations

from functools import partial
from typing import Final
from weakref import WeakValueDictionary

import trio

from engine.errors import ActorGone
from engine.frame import VideoFrame
from engine.sinks.still import encode_still
from engine.threads import Threads

NICE: Final = 5  # a third of the processor that a mixer's encoder gets, where there is not enough for both


class _Snapshot:
    """What those share who ask for the picture of one stream."""

    def __init__(self) -> None:
        self.picture: VideoFrame | None = None  # the newest that was asked for …
        self.number = 0  # … which is so many pictures after the first
        self.made = 0  # the number of the one that `jpeg` shows
        self.jpeg = b""


class Snapshots:
    """JPEGs of what streams show. It must be closed; it is used in the Trio thread."""

    def __init__(self) -> None:
        self._threads = Threads(1, name="snapshots", nice=NICE)
        self._turn = trio.Lock()  # who waits for it can still go away
        self._is_closed = False
        self._asked: WeakValueDictionary[str, _Snapshot] = WeakValueDictionary()  # gone with the last who asks

    async def jpeg(self, stream: str, picture: VideoFrame) -> bytes:
        """A stream's picture, or a newer one of it that somebody has asked for meanwhile: all who wait share that one.

        Raises ActorGone when it was closed, av.error.FFmpegError.
        """
        snapshot = self._asked.setdefault(stream, _Snapshot())
        if picture is not snapshot.picture:
            snapshot.picture, snapshot.number = picture, snapshot.number + 1
        wanted = snapshot.number
        async with self._turn:
            if snapshot.made < wanted:
                if self._is_closed:
                    raise ActorGone("no more snapshots are made", where=stream)
                encode, number = partial(encode_still, snapshot.picture, "mjpeg"), snapshot.number
                snapshot.jpeg = await self._threads.run(encode)
                snapshot.made = number
            return snapshot.jpeg

    def close(self) -> None:
        """Ends the thread; a snapshot that is being made is finished."""
        self._is_closed = True
        self._threads.close()
