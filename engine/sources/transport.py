"""The clock of an MPEG-TS file in a few dozen places: whether it goes back, as where files were joined end to end.

It decides where to look; it refuses to know what follows from it. Worker threads only.

Places lie evenly, and near the start each twice as far as the one before it. So where a short part is followed by a
long one, its last place is further from its start than the next place is from the start of the long one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_PLACES: Final = 32
_FIRST: Final = 1 << 17  # bytes
_LOOK: Final = 1 << 17  # bytes at each place; the clock is there every 100 ms (ISO 13818-1 2.7.2): up to 10 Mbit/s
_SIZES: Final = (188, 192, 204)  # bytes of a packet: plain, with a time of arrival, with a checksum
_SYNC: Final = b"\x47"
_SURE: Final = 8  # packets in a row that begin with it
_HZ: Final = 90_000
_WRAP: Final = 1 << 33


def goes_back(path: str) -> bool:
    """Whether the clock of any programme is earlier at a place than at one before, by more than a second.

    Not where it wraps. Raises OSError.
    """
    clocks: dict[int, int] = {}
    with Path(path).open("rb") as file:
        for place in _places(os.fstat(file.fileno()).st_size):
            file.seek(place)
            # Only the first ones are sure to be in order, for places may be close together.
            first = dict(reversed([*_clocks(file.read(_LOOK))]))
            if any(_HZ < (clocks.get(pid, clock) - clock) % _WRAP < _WRAP // 2 for pid, clock in first.items()):
                return True
            clocks |= first
    return False


def _places(size: int) -> list[int]:
    near = [_FIRST << n for n in range(size.bit_length()) if _FIRST << n < size]
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
