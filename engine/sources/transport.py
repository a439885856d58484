"""The clock of an MPEG-TS file in a few dozen places: whether it goes back, as where files were joined end to end.

It decides where to look; it refuses to know what follows from it. Worker threads only.

Places lie evenly, and from the start on each a quarter further than the one before it: of a short part that a long one
follows, the last place is nearly as far from its start as the part is long, and the next place soon behind the joint.
What is between two places, and is over at both, is not seen.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import count, takewhile
from pathlib import Path
from typing import Final

_PLACES: Final = 32
_FIRST: Final = 1 << 14  # bytes
_FURTHER: Final = 1.25
_LOOK: Final = 1 << 17  # bytes at each place; the clock is there every 100 ms (ISO 13818-1 2.7.2): up to 10 Mbit/s
_SIZES: Final = (188, 192, 204)  # bytes of a packet: plain, with a time of arrival, with a checksum
_SYNC: Final = b"\x47"
_SURE: Final = 8  # packets in a row that begin with it
_HZ: Final = 90_000
_WRAP: Final = 1 << 33


def goes_back(path: str) -> bool:
    """Whether the clock of any programme is earlier at a place than at one before it, or than just before, by more than
    a second.

    Not where it wraps. Raises OSError.
    """
    clocks: dict[int, int] = {}  # at the beginning of the place before: places may overlap
    with Path(path).open("rb") as file:
        for place in _places(os.fstat(file.fileno()).st_size):
            file.seek(place)
            first: dict[int, int] = {}
            last: dict[int, int] = {}
            for pid, clock in _clocks(file.read(_LOOK)):
                before = last.get(pid, clocks.get(pid, clock))
                if _HZ < (before - clock) % _WRAP < _WRAP // 2:
                    return True
                last[pid] = clock
                first.setdefault(pid, clock)
            clocks |= first
    return False


def _places(size: int) -> list[int]:
    near = takewhile(lambda place: place < size, (int(_FIRST * _FURTHER**n) for n in count()))
    even = [size * n // _PLACES for n in range(_PLACES)]
    return sorted({*near, *even, max(0, size - _LOOK)})


def _clocks(data: bytes) -> Iterator[tuple[int, int]]:
    """PID and programme_clock_reference_base of the packets that have one (ISO 13818-1 2.4.3.4)."""
    grids = [slice(at, at + _SURE * size, size) for size in _SIZES for at in range(size)]
    grid = next((each for each in grids if data[each] == _SYNC * _SURE), slice(len(data), None, 1))
    for at in range(grid.start, len(data) - 11, grid.step):
        sync, high, low, control, length, flags = data[at : at + 6]
        is_whole = sync == _SYNC[0] and not high & 0x80
        if is_whole and control & 0x20 and length >= 7 and flags & 0x10:
            yield (high & 31) << 8 | low, int.from_bytes(data[at + 6 : at + 11]) >> 7
