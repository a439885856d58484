"""A form comes in pieces of any size, and is the same; what is none is refused or has no end, whatever its bytes."""

from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.forms import MAX_HEAD, MAX_PARTS, FormReader, Part
from engine.errors import InvalidSpec

CONTENT = st.lists(st.sampled_from([b"\r\n--xy", b"\r", b"\n", b"\r\n", b"--", b"--xyz", b"z", b"\0a"])).map(b"".join)
FIELD = st.tuples(st.sampled_from(["id", "file"]), st.sampled_from([None, "a.png"]), CONTENT)


def written(parts):
    form = b"anything before\r\n"
    for field, filename, content in parts:
        name = "" if filename is None else f'; filename="{filename}"'
        form += f'--xyz\r\nContent-Disposition: form-data; name="{field}"{name}\r\n\r\n'.encode() + content + b"\r\n"
    return form + b"--xyz--\r\nand behind"


def read(pieces):
    """(parts with what is in them, whether the end has come)."""
    reader = FormReader("xyz")
    parts = []
    for piece in pieces:
        for event in reader.receive(piece):
            if isinstance(event, Part):
                parts.append((*event, b""))
            else:
                parts[-1] = (*parts[-1][:2], parts[-1][2] + event)
    return parts, reader.is_over


@given(st.lists(FIELD, min_size=1, max_size=5), st.lists(st.integers(0, 400), max_size=20))
def test_pieces_make_no_difference(parts, cuts):
    parts = [each for each in parts if b"\r\n--xyz" not in b"\r\n" + each[2]]
    form = written(parts)
    places = [0, *sorted(min(cut, len(form)) for cut in cuts), len(form)]
    pieces = [form[start:stop] for start, stop in pairwise(places)]
    assert read(pieces) == read([form]) == read(form[n : n + 1] for n in range(len(form))) == (parts, True)


@given(st.lists(st.sampled_from([b"--xyz", b"\r\n", b"--", b"\r", b"a: b", b"x", b"\xff"]), max_size=30))
def test_any_bytes_are_read_or_refused(words):
    with suppress(InvalidSpec):
        read([b"--xyz", *words])


def test_the_end_is_seen_only_when_it_has_come():
    form = written([("id", None, b"1"), ("file", "a", b"2")])
    end = form.index(b"--xyz--") + len(b"--xyz--")
    for place in range(end):
        assert not read([form[:place]])[1]
    assert read([form[:end]])[1]


def test_parts_and_heads_have_limits():
    with pytest.raises(InvalidSpec):
        read([written([("a", None, b"")] * (MAX_PARTS + 1))])
    reader = FormReader("xyz")
    reader.receive(b"--xyz\r\n")
    with pytest.raises(InvalidSpec):
        reader.receive(b"x" * (MAX_HEAD + 3))


def test_little_is_kept():
    reader = FormReader("xyz")
    reader.receive(written([("file", "a", b"")]).partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
    size = sum(len(event) for _ in range(100) for event in reader.receive(b"\r\n--xy" * 1000))
    assert 0 <= 600_000 - size < len(b"\r\n--xyz")
