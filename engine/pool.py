"""BufferPool: memory of one size, used again; a slot comes home by itself when the last view of it dies.

It decides how much memory is kept; it refuses to know what is in it. `take` lays a fresh ndarray over a slot and hangs
a finalizer on it: every slice, view and memoryview made from that ndarray keeps it alive, so nobody calls release.
"""

from __future__ import annotations

import weakref
from collections import deque
from typing import Final

import numpy as np
from numpy.typing import NDArray

KEEP: Final = 16  # slots that are free, of a pool


class BufferPool:
    """Slots of `nbytes` bytes each. Any thread may take; slots come home in whichever thread drops the last view."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        self._free: deque[NDArray[np.uint8]] = deque(maxlen=KEEP)  # a slot too many is freed, the oldest first

    def take(self) -> NDArray[np.uint8]:
        """(nbytes,) uint8, writable, contents undefined; yours until its last view dies."""
        try:
            slot = self._free.pop()
        except IndexError:
            slot = np.empty(self.nbytes, np.uint8)
        array = np.frombuffer(slot.data, np.uint8)
        weakref.finalize(array, self._free.append, slot).atexit = False
        return array
