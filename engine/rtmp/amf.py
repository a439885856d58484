"""AMF0, the value format of RTMP's commands and of FLV's script tags: bytes ↔ plain Python values.

It decides which bytes are a value and how many and how deep they may be; it refuses to know what a value is for.

Theory of operation
-------------------
A number is a float (an int is taken too), a string is a str, null is None, an object is a dict, an ECMA array is the
dict subclass `EcmaArray`, a strict array is a list; undefined, dates and typed objects have names of their own here.
The length that an ECMA array announces is a hint that many encoders get wrong (FFmpeg writes 0 when it does not know),
so it is skipped: the array ends where an object ends.

Bytes come from strangers. A value of n bytes costs at most a small multiple of n in time and memory, because every
value is at least one byte, nesting stops at `depth`, the values of a message are counted (`Values` tells how many were
decoded, 0.5 to 5 µs each), and nothing is allocated on the word of a length field. References (2.9) are refused: a few
bytes of them make a value that is endless to walk. Text that is not UTF-8 is kept with replacement characters, since
old encoders send their locale's bytes in titles.

Specification: "Action Message Format – AMF 0", 2007; numbers in brackets are its sections.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator, Mapping
from typing import Final, Literal, NamedTuple

from engine.errors import LocalProtocolError, RemoteProtocolError

DEPTH: Final = 32  # onMetaData of the wildest encoders is 4 deep

_NUMBER, _BOOLEAN, _STRING, _OBJECT, _NULL, _UNDEFINED, _REFERENCE = 0, 1, 2, 3, 5, 6, 7
_ECMA_ARRAY, _END, _STRICT_ARRAY, _DATE, _LONG_STRING, _UNSUPPORTED, _XML, _TYPED = 8, 9, 10, 11, 12, 13, 15, 16

_DOUBLE = struct.Struct(">d")
_DATE_BODY = struct.Struct(">dh")


class Undefined(enum.Enum):
    """The type of `UNDEFINED`, which is not null (2.8)."""

    UNDEFINED = "undefined"


UNDEFINED: Final = Undefined.UNDEFINED


class EcmaArray(dict[str, object]):
    """A dict that travels as an ECMA array (2.10): what onMetaData traditionally is."""


class Date(NamedTuple):
    """Milliseconds since 1970 (UTC) and a time zone that everybody should ignore (2.13)."""

    unix_ms: float
    zone: int = 0


class TypedObject(NamedTuple):
    """An object with the name of its class (2.18)."""

    name: str
    fields: dict[str, object]


def encode(*values: object) -> bytes:
    """The bytes of the values, one after the other.

    Raises  LocalProtocolError: a value that AMF0 cannot carry.
    """
    out = bytearray()
    for value in values:
        _write(out, value, 0)
    return bytes(out)


class _CutOff(Exception):  # noqa: N818
    """The bytes end within a value; never leaves this module."""


class Values:
    """The values of a whole message, one after the other; what is not asked for is not decoded.

    depth   of values within others, at most.
    values  at most, with those within others.
    count   values decoded so far, with those within others.
    Raises  RemoteProtocolError: a type that AMF0 does not have, more or deeper values than allowed, or one cut off.
    """

    __slots__ = ("_depth", "_given", "_most", "_rest", "_size_bytes", "count")

    def __init__(self, view: bytes | memoryview, *, depth: int, values: int) -> None:
        self.count = 0
        self._rest = memoryview(view)
        self._size_bytes = len(view)
        self._depth, self._most = depth, values
        self._given = 0

    def __iter__(self) -> Values:
        return self

    def __next__(self) -> object:
        if not self._rest:
            raise StopIteration
        try:
            value = self._value(0)
        except _CutOff:
            which = f"AMF value {self._given} of a message of {self._size_bytes} bytes"
            raise RemoteProtocolError(f"{which} is cut off") from None
        self._given += 1
        return value

    def _value(self, level: int) -> object:
        """The value at the cursor, `level` containers deep."""
        if self.count >= self._most:
            raise RemoteProtocolError("an AMF message has too many values")
        self.count += 1
        kind = self._take(1)[0]
        if kind == _NUMBER:
            return _DOUBLE.unpack(self._take(8))[0]
        if kind == _STRING:
            return self._text(2)
        if kind == _BOOLEAN:
            return self._take(1)[0] != 0
        if kind == _NULL:
            return None
        if kind in (_UNDEFINED, _UNSUPPORTED):
            return UNDEFINED
        if kind in (_LONG_STRING, _XML):
            return self._text(4)
        if kind == _DATE:
            return Date(*_DATE_BODY.unpack(self._take(10)))
        return self._container(kind, level + 1)

    def _container(self, kind: int, level: int) -> object:
        if level > self._depth:
            raise RemoteProtocolError(f"an AMF value is more than {self._depth} deep")
        if kind == _OBJECT:
            return dict(self._pairs(level))
        if kind == _ECMA_ARRAY:
            self._take(4)
            return EcmaArray(self._pairs(level))
        if kind == _TYPED:
            return TypedObject(self._text(2), dict(self._pairs(level)))
        if kind == _STRICT_ARRAY:
            return [self._value(level) for _ in range(self._length(4))]
        raise RemoteProtocolError(f"AMF type {kind} is not a value" if kind != _REFERENCE else "AMF has a reference")

    def _pairs(self, level: int) -> Iterator[tuple[str, object]]:
        """Names and values up to the end marker, 00 00 09 (2.11)."""
        while True:
            name = self._text(2)
            if not name and self._look() == _END:
                self._take(1)
                return
            yield name, self._value(level)

    def _text(self, size_bytes: int) -> str:
        return str(self._take(self._length(size_bytes)), "utf-8", "replace")

    def _length(self, size_bytes: int) -> int:
        return int.from_bytes(self._take(size_bytes), "big")

    def _look(self) -> int:
        if not self._rest:
            raise _CutOff
        return self._rest[0]

    def _take(self, count: int) -> memoryview:
        if len(self._rest) < count:
            raise _CutOff
        taken, self._rest = self._rest[:count], self._rest[count:]
        return taken


def _write(out: bytearray, value: object, level: int) -> None:
    if level > DEPTH:
        raise LocalProtocolError(f"AMF cannot carry a value more than {DEPTH} deep")
    if value is None:
        out.append(_NULL)
    elif value is UNDEFINED:
        out.append(_UNDEFINED)
    elif isinstance(value, bool):
        out += bytes((_BOOLEAN, value))
    elif isinstance(value, int | float):
        out += _pack(_NUMBER, _DOUBLE, value)
    elif isinstance(value, str):
        text = value.encode("utf-8", "replace")
        out += _head(_STRING, len(text), 2) if len(text) <= 0xFFFF else _head(_LONG_STRING, len(text), 4)
        out += text
    elif isinstance(value, Date):
        out += _pack(_DATE, _DATE_BODY, *value)
    else:
        _write_container(out, value, level)


def _write_container(out: bytearray, value: object, level: int) -> None:
    if isinstance(value, TypedObject):
        out.append(_TYPED)
        _write_name(out, value.name)
        _write_pairs(out, value.fields, level + 1)
    elif isinstance(value, EcmaArray):
        out += _head(_ECMA_ARRAY, len(value), 4)
        _write_pairs(out, value, level + 1)
    elif isinstance(value, Mapping):
        out.append(_OBJECT)
        _write_pairs(out, value, level + 1)
    elif isinstance(value, list | tuple):
        out += _head(_STRICT_ARRAY, len(value), 4)
        for item in value:
            _write(out, item, level + 1)
    else:
        raise LocalProtocolError(f"AMF cannot carry a {type(value).__name__}")


def _write_pairs(out: bytearray, fields: Mapping[str, object], level: int) -> None:
    for name, value in fields.items():
        _write_name(out, name)
        _write(out, value, level)
    out += b"\0\0\x09"


def _write_name(out: bytearray, name: str) -> None:
    text = name.encode("utf-8", "replace")
    if len(text) > 0xFFFF:
        raise LocalProtocolError(f"an AMF name of {len(text)} bytes is too long")
    out += len(text).to_bytes(2, "big") + text


def _head(kind: int, length: int, size_bytes: Literal[2, 4]) -> bytes:
    return bytes((kind,)) + length.to_bytes(size_bytes, "big")


def _pack(kind: int, form: struct.Struct, *values: float) -> bytes:
    try:
        return bytes((kind,)) + form.pack(*values)
    except (OverflowError, struct.error):
        raise LocalProtocolError(f"AMF type {kind} has no room for such a number") from None
