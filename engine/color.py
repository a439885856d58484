"""Colours: as people write them, and as the working format holds them.

It decides what a written colour is and which Y'CbCr it becomes; it refuses to know what is painted with it.
"""

from __future__ import annotations

import re
from typing import Final

from engine.rounding import round_half_up

_HEX: Final = re.compile(r"#([0-9a-fA-F]{3,4}|[0-9a-fA-F]{6}|[0-9a-fA-F]{8})", re.ASCII)


def rgba(color: str) -> tuple[float, float, float, float]:
    """Non-linear R'G'B' and alpha, 0…1, of ``#rgb``, ``#rgba``, ``#rrggbb`` or ``#rrggbbaa``.

    Raises ValueError: anything else.
    """
    match = _HEX.fullmatch(color)
    if match is None:
        raise ValueError(f'"{color[:40]}" is no colour like "#rrggbb"')
    digits = match[1] if len(match[1]) > 4 else "".join(digit * 2 for digit in match[1])
    red, green, blue, alpha = (int(pair, 16) / 255 for pair in re.findall("..", digits + "ff")[:4])
    return red, green, blue, alpha


def hex_of(color: tuple[float, float, float, float]) -> str:
    """``#rrggbb`` of what `rgba` says; alpha goes its own way."""
    red, green, blue = (round_half_up(255 * channel) for channel in color[:3])
    return f"#{red:02x}{green:02x}{blue:02x}"


def yuv_of(red: float, green: float, blue: float) -> tuple[int, int, int]:
    """Non-linear R'G'B' 0…1 → 8-bit limited-range Y'CbCr, rounded half up. ITU-R BT.709-6 §3."""
    luma = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    cb, cr = (blue - luma) / 1.8556, (red - luma) / 1.5748
    return round_half_up(16 + 219 * luma), round_half_up(128 + 224 * cb), round_half_up(128 + 224 * cr)
