"""Chunks: the specification's examples, every form of header, and limits that hold whatever the peer announces."""

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import LocalProtocolError, RemoteProtocolError
from engine.rtmp import chunk
from engine.rtmp.chunk import Limits, Message, Reader, control, encode, user_control

PATIENT = settings(deadline=None)
SMALL = Limits(message_bytes=10_000, partial_bytes=20_000, chunk_streams=8, small_chunks=20_000)


def basic(fmt, on):
    """A basic header (5.3.1.1) in its shortest form."""
    if on < 64:
        return bytes((fmt << 6 | on,))
    if on < 320:
        return bytes((fmt << 6, on - 64))
    return bytes((fmt << 6 | 1,)) + (on - 64).to_bytes(2, "little")


def head(fmt, on, *, time=0, length=0, kind=9, stream=1, extended=None):
    """A chunk header; `extended` is the four bytes of an extended timestamp."""
    fields = time.to_bytes(3, "big") + length.to_bytes(3, "big") + bytes((kind,)) + stream.to_bytes(4, "little")
    tail = b"" if extended is None else extended.to_bytes(4, "big")
    return basic(fmt, on) + fields[: (11, 7, 3, 0)[fmt]] + tail


def read(*pieces, limits=SMALL):
    """All the messages in some bytes."""
    reader = Reader(limits)
    reader.receive(b"".join(pieces))
    return list(messages(reader))


def messages(reader):
    while (message := reader.next_message()) is not None:
        yield message


def bodies(found):
    return [message.payload for message in found]


def times(found):
    return [message.timestamp for message in found]


def test_first_example_of_the_specification():
    """5.3.2.1: four sounds of 32 bytes, 20 ms apart, in chunks of 44, 36, 33 and 33 bytes."""
    sound = bytes(range(32))
    chunks = [
        head(0, 3, time=1000, length=32, kind=8, stream=12345) + sound,
        head(2, 3, time=20) + sound,
        head(3, 3) + sound,
        head(3, 3) + sound,
    ]
    assert [len(piece) for piece in chunks] == [44, 36, 33, 33]
    assert read(*chunks) == [Message(8, 12345, time, sound) for time in (1000, 1020, 1040, 1060)]


def test_second_example_of_the_specification():
    """5.3.2.2: a picture of 307 bytes in chunks of 140, 129 and 52 bytes; written just so by us."""
    picture = bytes(index % 256 for index in range(307))
    chunks = [
        head(0, 4, time=1000, length=307, kind=9, stream=12346) + picture[:128],
        head(3, 4) + picture[128:256],
        head(3, 4) + picture[256:],
    ]
    assert [len(piece) for piece in chunks] == [140, 129, 52]
    message = Message(9, 12346, 1000, picture)
    assert read(*chunks) == [message]
    assert encode(message, on=4, chunk_size=128) == b"".join(chunks)


@pytest.mark.parametrize("on", [2, 3, 63, 64, 65, 255, 256, 319, 320, 1000, 65599])
def test_every_chunk_stream_number_is_read(on):
    assert bodies(read(head(0, on, length=3), b"abc", head(3, on), b"def")) == [b"abc", b"def"]


def test_long_forms_of_small_numbers_are_the_same_chunk_stream():
    first, again = bytes((0, 6)), bytes((1 | 3 << 6, 6, 0))  # both 70
    assert bodies(read(first, head(0, 2, length=2)[1:], b"ab", again, b"cd")) == [b"ab", b"cd"]


def test_headers_inherit_what_they_leave_out():
    found = read(
        *(head(0, 5, time=100, length=2, kind=8, stream=7), b"ab"),
        *(head(1, 5, time=10, length=3, kind=9), b"cde"),
        *(head(2, 5, time=5), b"fgh"),
        *(head(3, 5), b"ijk"),
    )
    assert [tuple(message) for message in found] == [
        (8, 7, 100, b"ab"),
        (9, 7, 110, b"cde"),
        (9, 7, 115, b"fgh"),
        (9, 7, 120, b"ijk"),
    ]


def test_a_delta_after_an_absolute_time_is_that_time():
    """5.3.1.2.4: a fmt 3 message after a fmt 0 one adds the absolute time once more."""
    assert times(read(head(0, 5, time=100, length=1), b"a", head(3, 5), b"b")) == [100, 200]


def test_chunk_streams_interleave():
    one, two = bytes(300), bytes((1,)) * 300
    found = read(
        *(head(0, 5, length=300), one[:128]),
        *(head(0, 6, length=300), two[:128]),
        *(head(3, 5), one[:128], head(3, 6), two[:128]),
        *(head(3, 6), two[:44], head(3, 5), one[:44]),
    )
    assert bodies(found) == [two, one]


def test_a_hundred_chunk_streams_at_once():
    streams = range(2, 102)
    rounds = [head(0, on, length=200, stream=on) + bytes((on,)) * 128 for on in streams]
    rounds += [head(3, on) + bytes((on,)) * 72 for on in reversed(streams)]
    found = read(*rounds, limits=Limits())
    assert [(message.stream, message.payload) for message in found] == [
        (on, bytes((on,)) * 200) for on in reversed(streams)
    ]


def test_too_many_chunk_streams_are_refused():
    with pytest.raises(RemoteProtocolError, match="more than 8 chunk streams"):
        read(*(head(0, on) for on in range(2, 20)))


class TestExtendedTimestamps:
    FAR = 0x01234567

    def test_absolute(self):
        assert times(read(head(0, 5, time=0xFFFFFF, length=1, extended=self.FAR), b"a")) == [self.FAR]

    def test_the_last_that_needs_none_and_the_first_that_does(self):
        for time in (0xFFFFFE, 0xFFFFFF, 0xFFFFFFFF):
            message = Message(9, 1, time, bytes(300))
            assert read(encode(message, on=6, chunk_size=128)) == [message]

    def test_repeated_in_continuations_as_ffmpeg_and_obs_do(self):
        body = bytes(range(200))
        found = read(
            *(head(0, 5, time=0xFFFFFF, length=200, extended=self.FAR), body[:128]),
            *(head(3, 5, extended=self.FAR), body[128:]),
        )
        assert found == [Message(9, 1, self.FAR, body)]

    def test_left_out_of_continuations_as_old_encoders_do(self):
        body = bytes(range(200))
        found = read(head(0, 5, time=0xFFFFFF, length=200, extended=self.FAR), body[:128], head(3, 5), body[128:])
        assert found == [Message(9, 1, self.FAR, body)]

    def test_delta(self):
        found = read(
            *(head(0, 5, time=10, length=200), bytes(128), head(3, 5), bytes(72)),
            *(head(2, 5, time=0xFFFFFF, extended=self.FAR), bytes(128)),
            *(head(3, 5, extended=self.FAR), bytes(72)),
            *(head(3, 5, extended=self.FAR), bytes(128), head(3, 5, extended=self.FAR), bytes(72)),
            *(head(2, 5, time=3), bytes(128), head(3, 5), bytes(72)),
        )
        assert times(found) == [10, 10 + self.FAR, 10 + 2 * self.FAR, 13 + 2 * self.FAR]
        assert all(body == bytes(200) for body in bodies(found))

    def test_absolute_time_in_the_continuation_of_a_delta(self):
        found = read(
            *(head(0, 5, time=10, length=200), bytes(128), head(3, 5), bytes(72)),
            *(head(1, 5, time=0xFFFFFF, length=200, extended=self.FAR), bytes(128)),
            *(head(3, 5, extended=10 + self.FAR), b"x" * 72),
        )
        assert found[-1] == Message(9, 1, 10 + self.FAR, bytes(128) + b"x" * 72)

    def test_time_wraps_at_32_bits(self):
        found = read(head(0, 5, time=0xFFFFFF, length=1, extended=0xFFFFFFF0), b"a", head(2, 5, time=0x20), b"b")
        assert times(found) == [0xFFFFFFF0, 0x10]


class TestChunkSize:
    def test_a_new_size_counts_from_the_next_chunk(self):
        body = bytes(1000)
        size = encode(control(chunk.SET_CHUNK_SIZE, 1000), on=2, chunk_size=128)
        assert bodies(read(size, head(0, 5, length=1000), body)) == [body]

    def test_it_may_change_in_the_middle_of_a_message(self):
        body = bytes(range(250))
        size = encode(control(chunk.SET_CHUNK_SIZE, 4), on=2, chunk_size=128)
        tail = [head(3, 5) + body[at : at + 4] for at in range(128, 250, 4)]
        assert bodies(read(head(0, 5, length=250), body[:128], size, *tail)) == [body]

    @pytest.mark.parametrize("size", [0, 0x80000000, 0xFFFFFFFF])
    def test_impossible_sizes_are_refused(self, size):
        with pytest.raises(RemoteProtocolError, match="a chunk size of"):
            read(encode(control(chunk.SET_CHUNK_SIZE, size), on=2, chunk_size=128))

    def test_a_huge_size_is_fine(self):
        size = encode(control(chunk.SET_CHUNK_SIZE, 0x7FFFFFFF), on=2, chunk_size=128)
        assert bodies(read(size, head(0, 5, length=9000), bytes(9000))) == [bytes(9000)]

    def test_a_control_message_that_is_too_short_is_refused(self):
        with pytest.raises(RemoteProtocolError, match="3 bytes"):
            read(head(0, 2, kind=1, length=3), b"abc")


def test_abort_drops_the_unfinished_message():
    found = read(
        *(head(0, 5, length=200), bytes(128)),
        encode(control(chunk.ABORT, 5), on=2, chunk_size=128),
        encode(control(chunk.ABORT, 77), on=2, chunk_size=128),
        *(head(0, 5, length=2), b"ab"),
    )
    assert bodies(found) == [b"ab"]


def test_empty_messages_are_messages():
    assert bodies(read(head(0, 5), head(3, 5), head(0, 5, length=1), b"a")) == [b"", b"", b"a"]


def test_a_fresh_chunk_stream_may_begin_with_a_delta_as_librtmps_ping_does():
    assert read(head(1, 2, time=7, length=6, kind=4), bytes(6)) == [Message(4, 0, 7, bytes(6))]


@pytest.mark.parametrize("fmt", [2, 3])
def test_a_fresh_chunk_stream_needs_a_header(fmt):
    with pytest.raises(RemoteProtocolError, match=f"begins with a header of type {fmt}"):
        read(head(fmt, 5))


@pytest.mark.parametrize("fmt", [0, 1, 2])
def test_a_header_within_a_message_is_refused(fmt):
    with pytest.raises(RemoteProtocolError, match="before the last one is whole"):
        read(head(0, 5, length=200), bytes(128), head(fmt, 5, length=200))


def test_a_message_above_the_limit_is_refused_by_its_header():
    assert bodies(read(encode(Message(9, 1, 0, bytes(10_000)), on=5, chunk_size=128))) == [bytes(10_000)]
    with pytest.raises(RemoteProtocolError, match="10001 bytes is above the limit of 10000"):
        read(head(0, 5, length=10_001))


def test_unfinished_messages_have_a_limit_together():
    chunks = [head(0, 5 + n, length=9000) + bytes(128) + (head(3, 5 + n) + bytes(128)) * 60 for n in range(3)]
    with pytest.raises(RemoteProtocolError, match="more than 20000 bytes"):
        read(*chunks)
    aborted = [piece + encode(control(chunk.ABORT, 5 + n), on=2, chunk_size=128) for n, piece in enumerate(chunks)]
    assert read(*aborted, *aborted) == []


SMALLEST = encode(control(chunk.SET_CHUNK_SIZE, 1), on=2, chunk_size=128)


@pytest.mark.parametrize(
    ("begin", "small"),
    [
        (head(0, 5), head(3, 5)),
        (SMALLEST + head(0, 5, length=10_000) + b"x", head(3, 5) + b"x"),
        (b"", encode(control(chunk.ABORT, 5), on=2, chunk_size=128)),
    ],
    ids=["empty messages", "bytes", "messages that are not given out"],
)
def test_small_chunks_have_a_limit_unless_they_are_good_for_something(begin, small):
    reader = Reader(Limits(small_chunks=100))
    reader.receive(begin + small * 98)
    for _ in range(5):
        list(messages(reader))
        reader.receive(small * 100)
    list(messages(reader))
    assert reader.small_chunks == 100
    reader.receive(small * 101)
    with pytest.raises(RemoteProtocolError, match="more than 100 small chunks that say nothing"):
        list(messages(reader))


def test_nothing_is_allocated_on_the_word_of_a_header():
    announced = [head(0, on, length=8 << 20) + bytes(128) for on in range(3, 103)]
    tracemalloc.start()
    assert read(*announced, limits=Limits()) == []
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


def test_a_huge_chunk_does_not_pile_up_in_the_buffer():
    reader = Reader(Limits())
    reader.receive(encode(control(chunk.SET_CHUNK_SIZE, 1 << 24), on=2, chunk_size=128) + head(0, 5, length=8 << 20))
    for _ in range(128):
        assert reader.next_message() is None
        assert len(reader) == 0
        reader.receive(bytes(65536))
    assert bodies(messages(reader)) == [bytes(8 << 20)]


def test_the_handshake_takes_bytes_as_they_are():
    reader = Reader(SMALL)
    assert reader.first_byte() is None
    reader.receive(b"abc")
    assert reader.first_byte() == ord("a")
    assert reader.take(4) is None
    assert (reader.take(2), len(reader), reader.take(1), len(reader)) == (b"ab", 1, b"c", 0)


@pytest.mark.parametrize(
    ("message", "written"),
    [
        (control(chunk.SET_CHUNK_SIZE, 4096), "000004 01 00000000 00001000"),
        (control(chunk.ACKNOWLEDGEMENT, 1 << 32 | 5), "000004 03 00000000 00000005"),
        (control(chunk.WINDOW_SIZE, 7), "000004 05 00000000 00000007"),
        (control(chunk.PEER_BANDWIDTH, 9, b"\x02"), "000005 06 00000000 00000009 02"),
        (user_control(chunk.SET_BUFFER_LENGTH, 1, 1000), "00000a 04 00000000 0003 00000001 000003e8"),
    ],
)
def test_control_messages_are_as_the_specification_has_them(message, written):
    assert encode(message, on=chunk.ON_CONTROL, chunk_size=128) == bytes.fromhex("02 000000" + written)


def test_a_message_that_no_header_can_announce_is_our_fault():
    with pytest.raises(LocalProtocolError, match="16777216 bytes"):
        encode(Message(9, 1, 0, bytes(1 << 24)), on=5, chunk_size=128)


message = st.builds(
    Message,
    st.sampled_from((8, 9, 15, 17, 18, 20, 22)),
    st.integers(0, 0xFFFFFFFF),
    st.integers(0, 0xFFFFFFFF) | st.sampled_from((0, 0xFFFFFE, 0xFFFFFF, 0x1000000)),
    st.binary(max_size=600) | st.integers(0, 9000).map(bytes),
)


@PATIENT
@given(st.lists(st.tuples(message, st.integers(2, 9)), max_size=6), st.integers(1, 9000))
def test_messages_read_back_as_they_were_written(written, size):
    first = encode(control(chunk.SET_CHUNK_SIZE, size), on=2, chunk_size=128)
    wire = b"".join(encode(message, on=on, chunk_size=size) for message, on in written)
    assert read(first, wire) == [message for message, _ in written]


@PATIENT
@given(st.lists(st.tuples(message, st.integers(2, 9)), max_size=3), st.lists(st.integers(1, 50), min_size=1))
def test_bytes_in_any_pieces_are_the_same_messages(written, sizes):
    wire = b"".join(encode(message, on=on, chunk_size=128) for message, on in written)
    reader, found, at, turn = Reader(SMALL), [], 0, 0
    while at < len(wire):
        size = sizes[turn % len(sizes)]
        reader.receive(wire[at : at + size])
        found += messages(reader)
        at, turn = at + size, turn + 1
    assert found == [message for message, _ in written]
    assert len(reader) == 0


@PATIENT
@given(st.lists(st.binary(max_size=300), max_size=6))
def test_garbage_is_messages_or_the_peers_fault(pieces):
    reader = Reader(SMALL)
    try:
        for piece in pieces:
            reader.receive(piece)
            for found in messages(reader):
                assert len(found.payload) <= SMALL.message_bytes
    except RemoteProtocolError:
        pass


def test_what_a_peer_makes_us_keep_is_known():
    bytes_of = chunk.encode(Message(chunk.VIDEO, 1, 0, bytes(1000)), on=6, chunk_size=400)
    reader = Reader(Limits())
    reader.chunk_size = 400
    reader.receive(bytes_of[:5])
    assert reader.next_message() is None
    assert reader.held_bytes == 5
    reader.receive(bytes_of[5:900])
    assert reader.next_message() is None
    assert reader.held_bytes == 900 - 12 - 2  # without the headers that were read
    reader.receive(bytes_of[900:])
    assert len(reader.next_message().payload) == 1000
    assert reader.held_bytes == 0
