"""The last of each key, for one reader who may be slow: what a follower of news has still to hear.

It decides what is left out when somebody does not keep up; it refuses to know what the news are about.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, TypeVar

import trio

K = TypeVar("K")
V = TypeVar("V")


class Newest(Generic[K, V]):
    """At most one value of each key waits: the last one, in the order of these."""

    def __init__(self) -> None:
        self._waiting: dict[K, V] = {}
        self._parked = trio.lowlevel.ParkingLot()

    def put(self, key: K, value: V) -> None:
        """In place of what waits of that key."""
        self.put_all({key: value})

    def put_all(self, news: Mapping[K, V]) -> None:
        """Puts each, in their order: at once, since there may be thousands for each of many followers."""
        for key in news.keys() & self._waiting.keys():
            del self._waiting[key]
        self._waiting.update(news)
        if news:
            self._parked.unpark_all()

    async def take(self) -> list[V]:
        """What was put since the last call; waits until something is."""
        while not self._waiting:
            await self._parked.park()
        taken = list(self._waiting.values())
        self._waiting.clear()
        return taken
