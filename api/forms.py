"""Forms with files (RFC 7578) in pieces of any size: which parts begin, what is in them, whether the end has come.

It decides where a part begins and ends, strictly; it refuses to know who sends it and what becomes of it. Nothing is
kept but the few bytes that may be the beginning of a boundary.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from werkzeug.http import parse_options_header

from engine.errors import InvalidSpec

MAX_HEAD: Final = 8 << 10  # bytes of one part's headers
MAX_PARTS: Final = 16


class Part(NamedTuple):
    """A part begins: its field, or "", and the name of the file if it is one."""

    field: str
    filename: str | None


class FormReader:
    """Takes a form, gives what is in it. Theory: a part ends where a line break, two hyphens and the boundary stand.

    The first boundary has no line break before it; it is given one, so that all are alike.
    """

    def __init__(self, boundary: str) -> None:
        self._delimiter = b"\r\n--" + boundary.encode("latin-1", "replace")
        self._buffer = bytearray(b"\r\n")
        self._parts = 0
        self._state = self._skip
        self.is_over = False

    def receive(self, piece: bytes) -> list[Part | bytes]:
        """What has come: parts, and after each what is in it. Raises InvalidSpec: it is no form."""
        self._buffer += piece
        events: list[Part | bytes] = []
        while self._state(events):
            pass
        return events

    # Each step returns whether there may be another one with what is there.

    def _skip(self, events: list[Part | bytes]) -> bool:
        """Before the first boundary."""
        return self._data([])

    def _data(self, events: list[Part | bytes]) -> bool:
        place = self._buffer.find(self._delimiter)
        end = place if place >= 0 else max(0, len(self._buffer) - len(self._delimiter) + 1)
        if end:
            events.append(bytes(self._buffer[:end]))
        del self._buffer[: end if place < 0 else end + len(self._delimiter)]
        if place >= 0:
            self._state = self._after_boundary
        return place >= 0

    def _after_boundary(self, events: list[Part | bytes]) -> bool:
        if len(self._buffer) < 2:
            return False
        if self._buffer.startswith(b"--"):
            self.is_over = True
            self._state = self._ignore
        elif self._buffer.startswith(b"\r\n") and self._parts < MAX_PARTS:
            self._parts += 1  # its line break stays: a head may be empty
            self._state = self._head
        else:
            raise _broken()
        return True

    def _head(self, events: list[Part | bytes]) -> bool:
        place = self._buffer.find(b"\r\n\r\n")
        if place < 0 and len(self._buffer) <= MAX_HEAD:
            return False
        if not 0 <= place <= MAX_HEAD:
            raise _broken()
        events.append(_part(bytes(self._buffer[:place]).decode(errors="replace")))
        del self._buffer[: place + 4]
        self._state = self._data
        return True

    def _ignore(self, events: list[Part | bytes]) -> bool:
        """Behind the last boundary."""
        self._buffer.clear()
        return False


def _part(head: str) -> Part:
    for line in head.split("\r\n"):
        name, _, value = line.partition(":")
        if name.strip().lower() == "content-disposition":
            _, options = parse_options_header(value)
            return Part(options.get("name", ""), options.get("filename"))
    return Part("", None)


def _broken() -> InvalidSpec:
    return InvalidSpec("the multipart form is broken", where="form")
