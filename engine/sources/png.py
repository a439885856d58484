"""PNG files as bytes: where their chunks lie, and one kind rewritten that libav reads as opaque.

It decides which files are rewritten; it refuses to know what their pixels are.
"""

from __future__ import annotations

import struct
import zlib
from typing import Final

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"


def png_chunk(data: bytes, name: bytes) -> int:
    """Where a chunk of a PNG begins: big-endian length, name, content, checksum. The file's end: there is none."""
    at = 8
    while data[at + 4 : at + 8] not in (name, b""):
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    return at


def with_palette(data: bytes) -> bytes:
    """A PNG of 2, 4 or 16 greys, one of them see-through, as one with a palette of these; any other file as it is.

    libav shows that grey in the former, and the pixels are written alike (PNG 3 11.2.1, 11.3.1.1). What stands before
    the pictures is enough.
    """
    depth, kind = data[24:25], data[25:26]
    if not data.startswith(SIGNATURE) or kind != b"\0" or depth not in (b"\1", b"\2", b"\4"):
        return data
    key, pixels = png_chunk(data, b"tRNS"), png_chunk(data, b"IDAT")
    if key >= pixels:
        return data
    greys = range(1 << depth[0])
    hidden = int.from_bytes(data[key + 8 : key + 10], "big") & greys[-1]
    chunks = {
        b"IHDR": data[16:25] + b"\3" + data[26:29],
        b"PLTE": bytes(255 * grey // greys[-1] for grey in greys for _ in "rgb"),
        b"tRNS": bytes(0 if grey == hidden else 255 for grey in greys),
    }
    written = [
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks.items()
    ]
    return b"".join([data[:8], *written, data[pixels:]])
