"""goes_back: films joined end to end are told from whole ones, whichever part is the longer one."""

import pytest

from engine.sources.transport import goes_back
from tests.media import Video, encode

SECOND = 40  # packets


def stream(*parts, size=188, rate=SECOND):
    """Parts of a transport stream: each has its clock in seconds at its beginning, and how many seconds it goes on."""
    packets = []
    for start, seconds in parts:
        for n in range(seconds * rate):
            clock = (start * 90_000 + n * 90_000 // rate) % (1 << 33)
            field = bytes((7, 0x10)) + (clock << 7).to_bytes(5) + b"\0"
            packets.append((bytes(size - 188) if size == 192 else b"") + b"\x47\x01\x00\x20" + field + b"\xff" * 176)
            packets[-1] = packets[-1].ljust(size, b"\0")
    return b"".join(packets)


@pytest.mark.parametrize("size", [188, 192, 204])
@pytest.mark.parametrize(
    ("parts", "back"),
    [
        ([(0, 600)], False),
        ([(95_300, 600)], False),  # wraps at 95443.7 s
        ([(0, 100), (5000, 100)], False),
        ([(0, 200), (0, 200), (0, 200)], True),
        ([(0, 30), (0, 1200)], True),
        ([(0, 30), (0, 30), (0, 1200)], True),
        ([(0, 1200), (0, 30)], True),
        ([(0, 600), (0, 10), (0, 600)], True),
        ([(5000, 100), (0, 100)], True),
        ([(0, 10), (0, 600)], True),
        ([(0, 80), (0, 600)], True),
        ([(0, 160), (0, 1200)], True),
    ],
)
def test_clock_that_goes_back_is_seen(tmp_path, parts, back, size):
    path = tmp_path / "film.ts"
    path.write_bytes(stream(*parts, size=size))
    assert goes_back(str(path)) == back


def test_what_libav_writes_does_not_go_back_but_where_it_is_joined(tmp_path):
    film = encode(tmp_path / "film.ts", Video(bframes=2), seconds=2)
    assert not goes_back(str(film))
    (tmp_path / "twice.ts").write_bytes(film.read_bytes() * 2)
    assert goes_back(str(tmp_path / "twice.ts"))


@pytest.mark.parametrize("data", [b"", b"\x47", b"\x47" * 1000, bytes(range(256)) * 100])
def test_any_bytes_are_read(tmp_path, data):
    (tmp_path / "film.ts").write_bytes(data)
    assert not goes_back(str(tmp_path / "film.ts"))
