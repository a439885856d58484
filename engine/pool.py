"""BufferPool: memory of one size, used again; a slot comes home by itself when the last view of it dies.

It decides how much memory is kept; it refuses to know what is in it. `take` lays a fresh ndarray over a slot and hangs
a finalizer on it: every slice, view and memoryview made from that ndarray keeps it alive, so nobody calls release.
"""

from __future__ import annotations

import weakref
from collections import deque

import msgspec
import numpy as np
from numpy.typing import NDArray


class PoolStatistics(msgspec.Struct, frozen=True):
    """How a pool stands: slots in use, slots waiting, slots ever made."""

    outstanding: int
    free: int
    made: int


class BufferPool:
    """Slots of `nbytes` bytes each. Any thread may take; slots come home in whichever thread drops the last view."""

    def __init__(self, nbytes: int, *, keep: int = 16) -> None:
        self.nbytes = nbytes
        self._free: deque[NDArray[np.uint8]] = deque(maxlen=keep)  # a slot too many is freed, the oldest first
        self._out: set[int] = set()  # add and discard are atomic under the interpreter lock
        self._made = 0

    def take(self) -> NDArray[np.uint8]:
        """(nbytes,) uint8, writable, contents undefined; yours until its last view dies."""
        try:
            slot = self._free.pop()
        except IndexError:
            slot = np.empty(self.nbytes, np.uint8)
            self._made += 1
        array = np.frombuffer(slot.data, np.uint8)
        self._out.add(id(slot))
        weakref.finalize(array, self._home, slot).atexit = False
        return array

    def _home(self, slot: NDArray[np.uint8]) -> None:
        self._out.discard(id(slot))
        self._free.append(slot)

    def statistics(self) -> PoolStatistics:
        """How many slots are out, waiting, and ever made."""
        return PoolStatistics(len(self._out), len(self._free), self._made)
