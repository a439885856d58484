"""TrueType fonts as small as they can be, of letters as intricate as a test wants them. ISO 14496-22."""

import struct
from pathlib import Path

import numpy as np

UNITS = 1000  # per em
FIRST = 0x4E00  # of the intricate letters


def intricate_font(path: Path, *, curves: int, letters: int, first: int = FIRST) -> Path:
    """A font whose A to Z are squares; from `first` on come letters of so many curves each, all of one glyph."""
    square = _contour(np.array([(0, 0), (0, 700), (500, 700), (500, 0)]), on_curve=range(4))
    turn = np.arange(curves) * (2 * np.pi / curves)
    far = 200 + np.arange(curves) % 2 * 40
    round_about = np.stack((250 + far * np.cos(turn), 350 + far * np.sin(turn)), axis=1).astype(int)
    placed = struct.pack(">h4hHHhh", -1, 0, 0, 500, 700, 0x0003, 27, 0, 0)  # ARG_1_AND_2_ARE_WORDS, ARGS_ARE_XY_VALUES
    glyphs = [square] * 27 + [_contour(round_about, on_curve=())] + [placed] * letters
    data = b"".join(glyph + bytes(-len(glyph) % 4) for glyph in glyphs)
    ends = np.cumsum([0] + [len(glyph) + -len(glyph) % 4 for glyph in glyphs])
    groups = ((0x41, 0x5A, 1), (first, first + letters - 1, 28))
    count = len(glyphs)
    tables = {
        b"cmap": struct.pack(">HHHHIHHIII", 0, 1, 3, 10, 12, 12, 0, 16 + 12 * len(groups), 0, len(groups))
        + b"".join(struct.pack(">III", *group) for group in groups),
        b"glyf": data,
        b"head": struct.pack(">4I2H2Q4h2H3h", 1 << 16, 0, 0, 0x5F0F3CF5, 0, UNITS, 0, 0, 0, 0, 500, 700, 0, 8, 2, 1, 0),
        b"hhea": struct.pack(">I3hH11hH", 0x10000, 800, -200, 0, 520, *[0] * 11, 1),
        b"hmtx": struct.pack(">Hh", 520, 0) + bytes(2 * (count - 1)),
        b"loca": ends.astype(">u4").tobytes(),
        b"maxp": struct.pack(">IH13H", 0x10000, count, *[0] * 13),
    }
    path.write_bytes(_file_of(tables))
    return path


def _contour(points: np.ndarray, *, on_curve: range | tuple[()]) -> bytes:
    """A glyph of one contour, of these points, of which some are on it and others bend it."""
    flags = bytes(n in on_curve for n in range(len(points)))
    steps = np.diff(points, axis=0, prepend=np.zeros((1, 2), int)).T.astype(">i2").tobytes()
    return struct.pack(">h4hHH", 1, 0, 0, 500, 700, len(points) - 1, 0) + flags + steps


def _file_of(tables: dict[bytes, bytes]) -> bytes:
    head, body = struct.pack(">I4H", 0x10000, len(tables), 0, 0, 0), b""
    for tag, table in tables.items():
        head += struct.pack(">4sIII", tag, 0, 12 + 16 * len(tables) + len(body), len(table))
        body += table + bytes(-len(table) % 4)
    return head + body
