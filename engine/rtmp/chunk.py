"""RTMP chunks: the bytes of many interleaved messages ↔ whole messages, and the messages that govern the chunks.

It decides where a message begins and ends and what it costs at most; it refuses to know what a message says.

Theory of operation
-------------------
Reading. Bytes go into one buffer with a cursor. A chunk's header is read only when all of it is there; it then sets
the fields of its chunk stream, once, and the chunk becomes the *current* one. Payload moves from the buffer to the
message as it comes, so the buffer stays as small as what the socket gave, and a chunk of 16 MB costs no rereading.
A message that arrives in one piece is copied once. Nothing is allocated on the word of a header: a partial message is
as large as what has been sent of it, and all partial messages together have a limit.

Timestamps are 32 bits and wrap (5.3.1.2). fmt 0 is absolute; fmt 1 and 2 add a delta; fmt 3 at the start of a message
adds the same delta again, where a fmt 0 counts as a delta of its own absolute time. Unwrapping is the session's.

Extended timestamps (5.3.1.3) stand where the 24-bit field is FFFFFF. The continuation chunks (fmt 3) of such a message
repeat the four bytes: FFmpeg, OBS (librtmp), nginx-rtmp do, some old encoders do not. So on a continuation the four
bytes are skipped only when they are the ones expected, else they are payload; at the start of a message they count.

What peers do, and is let through: a fresh chunk stream beginning with fmt 1 (librtmp's pings), chunk sizes below 128,
empty messages. What is refused: fmt 2 and 3 on a fresh chunk stream, a new header within an unfinished message (the
bytes have lost their frame), a message above the limit, too many chunk streams.

Time. A chunk costs much the same whether it holds a picture or nothing: 64 kB of empty ones cost half a second. So
small ones are counted, until new bytes come, less those of which the reader's owner says that they were good for
something, and too many at once are refused. That bounds what one piece of bytes costs; whoever has a clock can bound
the rest.

Writing. A message is one fmt 0 chunk and fmt 3 chunks: eleven bytes of header that depend on nothing sent before, so
the same bytes serve every player. fmt 1 would save four bytes a message.

Specification: "Adobe's Real Time Messaging Protocol" 1.0, 2012; numbers in brackets are its sections.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from engine.errors import LocalProtocolError, RemoteProtocolError
from engine.rtmp import amf

# The message types (5.4, 7.1).
SET_CHUNK_SIZE: Final = 1
ABORT: Final = 2
ACKNOWLEDGEMENT: Final = 3
USER_CONTROL: Final = 4
WINDOW_SIZE: Final = 5
PEER_BANDWIDTH: Final = 6
AUDIO: Final = 8
VIDEO: Final = 9
DATA_AMF3: Final = 15
COMMAND_AMF3: Final = 17
DATA: Final = 18
COMMAND: Final = 20
AGGREGATE: Final = 22

# The user control events (7.1.7).
STREAM_BEGIN: Final = 0
STREAM_EOF: Final = 1
SET_BUFFER_LENGTH: Final = 3
PING: Final = 6
PONG: Final = 7

# Our chunk streams. One for each kind of media keeps a large picture's header from disturbing the sound's.
ON_CONTROL: Final = 2
ON_COMMAND: Final = 3
ON_AUDIO: Final = 4
ON_DATA: Final = 5
ON_VIDEO: Final = 6

FIRST_CHUNK_SIZE: Final = 128  # until SetChunkSize (5.4.1)
_TOP: Final = 0xFFFFFF  # of a 24-bit field; no message is longer
_WRAP: Final = 0xFFFFFFFF
SMALL_BYTES: Final = 32  # acknowledgements and pings have 4 and 6, commands more; nobody cuts messages so small
_HEADER_BYTES: Final = (11, 7, 3, 0)  # by fmt (5.3.1.2)


class Limits(msgspec.Struct, frozen=True):
    """What a peer may make us keep, and do."""

    message_bytes: int = 8 << 20  # a 4K keyframe at 200 Mbit/s is 1 to 3 MB
    partial_bytes: int = 16 << 20  # all messages that are not whole yet, together; ≥ message_bytes
    chunk_streams: int = 128  # encoders use three to six
    small_chunks: int = 1000  # that made no event, and values of commands, in one piece of bytes: 8 ms
    amf_bytes: int = 1 << 20  # a command or a data message; commands are some hundred bytes
    amf_depth: int = amf.DEPTH
    command_values: int = 1000  # connect has thirty at most
    data_values: int = 10_000  # a recording's list of keyframes; what has more is ignored


class Message(NamedTuple):
    """One RTMP message (6.1): its type, its message stream, its 32-bit timestamp in ms, its payload."""

    kind: int
    stream: int
    timestamp: int
    payload: bytes


class _ChunkStream:
    """What the last header of a chunk stream said, and the message that is being filled."""

    __slots__ = ("body", "delta", "extended", "filling", "kind", "length", "stream", "timestamp")

    def __init__(self) -> None:
        self.timestamp = self.delta = self.length = self.kind = self.stream = 0
        self.extended = self.filling = False
        self.body = bytearray()


class Reader:
    """Bytes in, messages out. SetChunkSize and Abort take effect here and are not given out."""

    def __init__(self, limits: Limits) -> None:
        self.chunk_size = FIRST_CHUNK_SIZE
        self.small_chunks = 0  # in what came last; to be lowered when what they said was worth it
        self._limits = limits
        self._buffer = bytearray()
        self._cursor = 0
        self._streams: dict[int, _ChunkStream] = {}
        self._current: _ChunkStream | None = None  # whose chunk the cursor is in …
        self._left = 0  # … and how much payload of that chunk is still to come
        self._partial_bytes = 0

    def __len__(self) -> int:
        """Bytes received and not read."""
        return len(self._buffer) - self._cursor

    @property
    def held_bytes(self) -> int:
        """Bytes received and not given out."""
        return len(self) + self._partial_bytes

    def receive(self, data: bytes | bytearray | memoryview) -> None:
        """Adds what the socket gave."""
        if self._cursor:
            del self._buffer[: self._cursor]
            self._cursor = 0
        self.small_chunks = 0
        self._buffer += data

    def first_byte(self) -> int | None:
        """The byte at the cursor, left where it is; None = need more."""
        return self._buffer[self._cursor] if len(self) else None

    def take(self, size: int) -> bytes | None:
        """The next bytes as they are, for the handshake; None = need more."""
        if len(self) < size:
            return None
        self._cursor += size
        return bytes(self._buffer[self._cursor - size : self._cursor])

    def next_message(self) -> Message | None:
        """The next whole message; None = need more.

        Raises  RemoteProtocolError: the bytes are not chunks, or beyond the limits.
        """
        while self._current is not None or self._read_header():
            message = self._read_payload()
            if message is None:
                if self._left:
                    return None
            elif message.kind == SET_CHUNK_SIZE:
                self._set_chunk_size(message.payload)
            elif message.kind == ABORT:
                self._abort(number(message.payload))
            else:
                return message
        return None

    def _read_header(self) -> bool:
        """Makes the chunk at the cursor the current one; False = need more, and nothing has changed."""
        buffer, at, end = self._buffer, self._cursor, len(self._buffer)
        if at >= end:
            return False
        fmt, chunk_stream = buffer[at] >> 6, buffer[at] & 63
        at += 1
        if chunk_stream < 2:  # 0: one more byte, 1: two more, the low one first (5.3.1.1)
            width = chunk_stream + 1
            if at + width > end:
                return False
            chunk_stream = 64 + int.from_bytes(buffer[at : at + width], "little")
            at += width
        stop = at + _HEADER_BYTES[fmt]
        if stop > end:
            return False
        stream = self._streams.get(chunk_stream) or self._fresh(chunk_stream, fmt)
        field = int.from_bytes(buffer[at : at + 3], "big") if fmt < 3 else 0
        extended = stream.extended if fmt == 3 else field == _TOP
        if extended:
            if stop + 4 > end:
                return False
            field = int.from_bytes(buffer[stop : stop + 4], "big")
            if not stream.filling or field in (stream.delta, stream.timestamp):
                stop += 4
        elif fmt == 3:
            field = stream.delta
        if not stream.filling:
            stream.extended = extended
            self._begin(stream, fmt, field, buffer[at : at + 11])
        elif fmt != 3:
            raise RemoteProtocolError(f"chunk stream {chunk_stream}: a message begins before the last one is whole")
        self._cursor = stop
        self._current = stream
        self._left = min(self.chunk_size, stream.length - len(stream.body))
        if self._left < SMALL_BYTES:
            self.charge(1)
        return True

    def charge(self, count: int) -> None:
        """Counts small chunks, or what costs as much. Raises RemoteProtocolError: too many in one piece of bytes."""
        self.small_chunks += count
        if self.small_chunks > self._limits.small_chunks:
            raise RemoteProtocolError(f"more than {self._limits.small_chunks} small chunks that say nothing")

    def _fresh(self, chunk_stream: int, fmt: int) -> _ChunkStream:
        if fmt > 1:
            raise RemoteProtocolError(f"chunk stream {chunk_stream} begins with a header of type {fmt}")
        if len(self._streams) >= self._limits.chunk_streams:
            raise RemoteProtocolError(f"more than {self._limits.chunk_streams} chunk streams")
        stream = self._streams[chunk_stream] = _ChunkStream()
        return stream

    def _begin(self, stream: _ChunkStream, fmt: int, field: int, header: bytearray) -> None:
        """A new message: the header's fields become those of its chunk stream (5.3.1.2)."""
        if fmt < 2:
            length = int.from_bytes(header[3:6], "big")
            if length > self._limits.message_bytes:
                raise RemoteProtocolError(
                    f"a message of {length} bytes is above the limit of {self._limits.message_bytes}"
                )
            stream.length = length
            stream.kind = header[6]
        if fmt == 0:
            stream.stream = int.from_bytes(header[7:11], "little")
        stream.timestamp = field if fmt == 0 else (stream.timestamp + field) & _WRAP
        stream.delta = field
        stream.filling = True

    def _read_payload(self) -> Message | None:
        """Moves what is there of the current chunk; a message, if that made one whole."""
        stream = self._current
        assert stream is not None
        at = self._cursor
        count = min(self._left, len(self._buffer) - at)
        body = stream.body
        self._cursor += count
        self._left -= count
        if count == stream.length:  # the whole message at once
            payload = bytes(memoryview(self._buffer)[at : at + count])
        else:
            body += memoryview(self._buffer)[at : at + count]
            self._partial_bytes += count
            if self._partial_bytes > self._limits.partial_bytes:
                raise RemoteProtocolError(f"unfinished messages hold more than {self._limits.partial_bytes} bytes")
            if self._left:
                return None
            self._current = None
            if len(body) < stream.length:
                return None
            payload = bytes(body)
            self._drop_body(stream)
        self._current = None
        stream.filling = False
        return Message(stream.kind, stream.stream, stream.timestamp, payload)

    def _drop_body(self, stream: _ChunkStream) -> None:
        self._partial_bytes -= len(stream.body)
        stream.body = bytearray()
        stream.filling = False

    def _set_chunk_size(self, payload: bytes) -> None:
        size = number(payload)
        if not 1 <= size <= 0x7FFFFFFF:
            raise RemoteProtocolError(f"a chunk size of {size}")
        self.chunk_size = min(size, _TOP)

    def _abort(self, chunk_stream: int) -> None:
        if (stream := self._streams.get(chunk_stream)) is not None:
            self._drop_body(stream)


def number(payload: bytes, at: int = 0) -> int:
    """The 32-bit number that a control message carries at an offset.

    Raises  RemoteProtocolError: the message is too short.
    """
    if len(payload) < at + 4:
        raise RemoteProtocolError(f"a control message of {len(payload)} bytes")
    return int.from_bytes(payload[at : at + 4], "big")


def encode(message: Message, *, on: int, chunk_size: int) -> bytes:
    """The chunks of a message on a chunk stream (2 … 63): bytes that depend on nothing sent before.

    Raises  LocalProtocolError: a payload that no header can announce.
    """
    kind, stream, timestamp, payload = message
    length = len(payload)
    if length > _TOP:
        raise LocalProtocolError(f"a message of {length} bytes")
    timestamp &= _WRAP
    extended = timestamp.to_bytes(4, "big") if timestamp >= _TOP else b""
    head = b"".join(
        (
            bytes((on,)),
            min(timestamp, _TOP).to_bytes(3, "big"),
            length.to_bytes(3, "big"),
            bytes((kind,)),
            stream.to_bytes(4, "little"),
            extended,
        )
    )
    if length <= chunk_size:
        return head + payload
    view = memoryview(payload)
    again = bytes((0xC0 | on,)) + extended
    pieces: list[bytes | memoryview] = [head, view[:chunk_size]]
    for at in range(chunk_size, length, chunk_size):
        pieces += (again, view[at : at + chunk_size])
    return b"".join(pieces)


def control(kind: int, value: int, tail: bytes = b"") -> Message:
    """A protocol control message (5.4) of one number."""
    return Message(kind, 0, 0, (value & _WRAP).to_bytes(4, "big") + tail)


def user_control(event: int, *values: int) -> Message:
    """A user control message (6.2)."""
    payload = event.to_bytes(2, "big") + b"".join((value & _WRAP).to_bytes(4, "big") for value in values)
    return Message(USER_CONTROL, 0, 0, payload)
