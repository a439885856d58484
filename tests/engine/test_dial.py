"""Of a server's addresses the first that answers is taken, over real sockets; who waits for it can be told to go."""

import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from engine import dial
from engine.dial import AT_ONCE, Line, answer_of
from tests.engine.silent import HOST, named, silent
from tests.web import WebRequest, web_server

FOR_EVER = 3600.0  # seconds
SOON = 30  # seconds; longer than any of these tests takes


class _Here(WebRequest):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.headers["Host"].encode())


@pytest.fixture
def web():
    with web_server(_Here) as server:
        yield server


@pytest.fixture
def nobody():
    """A port of HOST."""
    with silent() as port:
        yield port


@pytest.fixture
def call():
    """Calls in a thread."""
    with ThreadPoolExecutor() as threads:
        yield threads.submit


@pytest.fixture
def sockets(monkeypatch):
    """Those that are made from now on: `begun` counts them, `most` is how many there were at a time."""

    class Counted(socket.socket):
        made, most, begun = [], 0, threading.Semaphore(0)

        def __init__(self, *given, fileno=None):
            super().__init__(*given, fileno=fileno)
            if fileno is None:  # else it was accepted
                Counted.made.append(self)
                Counted.most = max(Counted.most, sum(each.fileno() >= 0 for each in Counted.made))
                Counted.begun.release()

    monkeypatch.setattr(socket, "socket", Counted)
    return Counted


def line_to(port, host="two.test"):
    return Line(host, port, secure=False, timeout=FOR_EVER)


def addresses(host, port):
    return line_to(port, host).addresses()


def asked(line):
    """What the server says."""
    connection = line.open(line.addresses())
    try:
        return answer_of(connection, "GET", "/", None, {}).read().decode()
    finally:
        connection.close()


def heard(call, port):
    """The same of a server called two.test, soon or not at all."""
    line = line_to(port)
    answer = call(asked, line)
    try:
        return answer.result(SOON)
    finally:
        line.close()


def test_an_address_that_swallows_everything_does_not_keep_from_the_next_one(web, call, monkeypatch):
    named(monkeypatch, **{"two.test": [HOST, "127.0.0.1"]})
    with silent(web.server_port):
        assert heard(call, web.server_port) == f"two.test:{web.server_port}"


@pytest.mark.parametrize("first", [HOST, pytest.param("255.255.255.255", id="no way there, which is known at once")])
def test_after_an_address_that_refuses_the_next_one_is_tried_at_once(first, web, call, monkeypatch):
    monkeypatch.setattr(dial, "START", FOR_EVER)
    named(monkeypatch, **{"two.test": [first, "127.0.0.1"]})
    assert heard(call, web.server_port) == f"two.test:{web.server_port}"


def test_who_is_told_to_go_while_several_addresses_are_silent_goes(call, nobody, sockets, monkeypatch):
    monkeypatch.setattr(dial, "START", 0.01)
    line = line_to(nobody)
    opened = call(line.open, addresses(HOST, nobody) * 3)
    try:
        for _ in range(3):
            assert sockets.begun.acquire(timeout=SOON)
    finally:
        line.close()
    with pytest.raises(OSError, match=r"given up|reset"):
        opened.result(SOON)
    assert [each.fileno() for each in sockets.made] == [-1] * 3


def test_of_many_addresses_the_last_is_tried_too_and_only_a_few_have_a_socket(web, call, nobody, sockets, monkeypatch):
    monkeypatch.setattr(dial, "START", 0.01)
    many = addresses(HOST, nobody) * 3 * AT_ONCE
    line = line_to(nobody)
    opened = call(line.open, [*many, *addresses("127.0.0.1", web.server_port)])
    try:
        opened.result(SOON).close()
    finally:
        line.close()
    assert sockets.most == AT_ONCE


def test_where_no_address_answers_the_error_says_why(nobody):
    with socket.create_server((HOST, 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(ConnectionRefusedError):
        line_to(port).open(addresses(HOST, port) * 2)
    with pytest.raises(TimeoutError, match="timed out"):
        Line(HOST, nobody, secure=False, timeout=0.05).open(addresses(HOST, nobody) * 2)


@pytest.mark.parametrize("silent_first", [True, False])
def test_where_one_address_refuses_and_the_other_is_silent_the_error_says_that_it_was_refused(silent_first, nobody):
    with socket.create_server((HOST, 0)) as server:
        port = server.getsockname()[1]
    both = [*addresses(HOST, nobody), *addresses(HOST, port)]
    with pytest.raises(ConnectionRefusedError):
        Line(HOST, port, secure=False, timeout=0.05).open(both if silent_first else both[::-1])


def test_a_server_that_takes_the_line_and_says_nothing_has_a_limited_time():
    with socket.create_server((HOST, 0)) as server:
        line = Line(HOST, server.getsockname()[1], secure=False, timeout=0.05)
        connection = line.open(line.addresses())
        with closing(connection), pytest.raises(TimeoutError):
            answer_of(connection, "GET", "/", None, {})


def test_a_line_that_is_closed_is_not_opened(web):
    line = line_to(web.server_port, "127.0.0.1")
    line.close()
    with pytest.raises(OSError, match="given up"):
        line.open(line.addresses())
