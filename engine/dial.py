"""A line to a server, as HTTP needs it: opened and used in a thread, and ended from any other.

It decides which of a server's addresses is taken, and that an answer is the final one; it refuses to know which
addresses may be talked to, and what is said.

Theory of operation
-------------------
A name may have an address that swallows every packet: that of version 6 in a network that only seems to have it. So
addresses are not tried one after the other, but each has a start before the next one is tried as well; the first that
connects is taken (RFC 8305 §5). One that refuses gives way at once.

A socket that connects, or is connected, is shut down by whoever ends the line. What is not connecting yet cannot be. So
that is begun before `_closed` is looked at: who sets it later shuts down what connects.
"""

from __future__ import annotations

import errno
import http.client
import os
import select
import socket
import ssl
from collections import deque
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, BinaryIO, Final

START: Final = 0.25  # seconds (RFC 8305 §8)
AT_ONCE: Final = 8  # addresses; of more, the one that has been silent for longest is left
MAX_INTERIM: Final = 100  # answers: one every 10 s for a quarter of an hour

Address = tuple[int, int, int, str, tuple[Any, ...]]


class _FinalAnswer(http.client.HTTPResponse):
    """What a server answers at last: http.client itself passes over no other interim answer than 100."""

    def begin(self) -> None:
        for _ in range(MAX_INTERIM + 1):
            super().begin()
            if self.status >= 200 or self.status == http.HTTPStatus.SWITCHING_PROTOCOLS:  # RFC 9110 §15.2
                return
            self.headers = None  # type: ignore[assignment]  # so another answer is read
        raise http.client.HTTPException(f"more than {MAX_INTERIM} interim answers")


def answer_of(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: bytes | BinaryIO | Iterable[bytes] | None,
    headers: Mapping[str, str | bytes],
) -> http.client.HTTPResponse:
    """What the server of an open connection says; of a body that it refuses before all of it is there, too.

    Raises OSError, HTTPException. Worker thread.
    """
    try:
        connection.request(method, path, body, headers)
    except (ConnectionError, ssl.SSLEOFError):  # it listens no more, but may have answered before (RFC 9112 §9.5)
        with suppress(OSError, http.client.HTTPException):
            return connection.getresponse()
        raise
    return connection.getresponse()


class Line:
    """A line to a server, which is opened once. Worker thread, but `close`.

    secure   it speaks TLS, with a certificate for `host`.
    timeout  seconds without a byte.
    """

    def __init__(self, host: str, port: int, *, secure: bool, timeout: float) -> None:
        self._host = host
        self._port = port
        self._secure = secure
        self._timeout = timeout
        self._sockets: list[socket.socket] = []  # all that connect, the oldest first; then the one that is connected
        self._closed = False

    def close(self) -> None:
        """Ends it, from any thread; what was not open yet will not be."""
        self._closed = True
        for each in self._sockets.copy():
            with suppress(OSError):  # an SSLSocket's own shutdown would pull the rug from under its reader
                socket.socket.shutdown(each, socket.SHUT_RDWR)

    def addresses(self) -> list[Address]:
        """Where the server is, in the order in which they are tried. Raises OSError, ValueError: no such name."""
        return list(dict.fromkeys(socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)))

    def open(self, addresses: Iterable[Address]) -> http.client.HTTPConnection:
        """A connection to the first of these that answers; it is the caller's to close. Its answers are final ones.

        Raises OSError (none answers, nor may it by this certificate; `close` was called), ValueError.
        """
        made = self._first(addresses)
        connection: http.client.HTTPConnection
        if self._secure:  # which closes it when it cannot; hands are shaken when `close` can reach it
            context = ssl.create_default_context()
            context.set_alpn_protocols(["http/1.1"])
            made = context.wrap_socket(made, server_hostname=self._host, do_handshake_on_connect=False)
            connection = http.client.HTTPSConnection(self._host, self._port, timeout=self._timeout, context=context)
        else:
            connection = http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)
        connection.response_class = _FinalAnswer
        connection.sock = made
        self._sockets = [made]
        try:
            if self._closed:
                raise OSError("given up")
            if isinstance(made, ssl.SSLSocket):
                made.do_handshake()
        except (OSError, ValueError):
            connection.close()
            raise
        return connection

    def _first(self, addresses: Iterable[Address]) -> socket.socket:
        """The socket that is connected first; the others are closed. Raises OSError."""
        try:
            found = self._race(deque(addresses))
            self._sockets.remove(found)
        finally:
            for each in self._sockets:
                each.close()
        found.settimeout(self._timeout)
        return found

    def _race(self, waiting: deque[Address]) -> socket.socket:
        error: OSError = TimeoutError("timed out")  # unless one has failed before
        while waiting or self._sockets:
            try:
                if waiting:
                    self._begin(*waiting.popleft())
            except OSError as err:
                error = err
                continue
            if self._closed:
                raise OSError("given up")
            heard = self._heard(START if waiting else self._timeout)
            if not heard and not waiting:
                break
            for each in heard:
                failure = each.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if not failure:
                    return each
                error = OSError(failure, os.strerror(failure))
                self._sockets.remove(each)
                each.close()
        raise error

    def _begin(self, family: int, kind: int, protocol: int, _: str, address: tuple[Any, ...]) -> None:
        """Begins to connect to an address. Raises OSError."""
        if len(self._sockets) == AT_ONCE:
            self._sockets.pop(0).close()
        made = socket.socket(family, kind, protocol)
        self._sockets.append(made)
        made.setblocking(False)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # a body does not wait until its head has arrived
        error = made.connect_ex(address)
        if error not in (0, errno.EINPROGRESS):
            self._sockets.remove(made)
            made.close()
            raise OSError(error, os.strerror(error))

    def _heard(self, seconds: float) -> list[socket.socket]:
        """Those that have connected or failed; none within this time: []."""
        connecting = select.poll()
        for each in self._sockets:
            connecting.register(each, select.POLLOUT)
        heard = {number for number, _ in connecting.poll(seconds * 1000)}
        return [each for each in self._sockets if each.fileno() in heard]
