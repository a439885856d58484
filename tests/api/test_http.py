"""HTTP and WebSockets as they are spoken here, with what clients do to them."""

import json
import socket
import struct
from pathlib import Path

import pytest
import trio
import trio.testing
from hypercorn.config import Config

from api.asgi import limit_stall
from api.http import HANDSHAKE, HEAD_LINES, VIEWER_BYTES, VIEWER_PAUSE, serve_http
from engine.link import listen

HELLO = (
    b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
CLIENTS = 15


def start(nursery, app, config=None):
    """A server of an ASGI application, as ours is set up: its port, and what stops it."""

    async def alive(scope, receive, send):
        if scope["type"] != "lifespan":
            await app(scope, receive, send)
            return
        assert await receive() == {"type": "lifespan.startup"}
        await send({"type": "lifespan.startup.complete"})
        await receive()

    stop, config, listener = trio.Event(), config or Config(), listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    config.errorlog = None
    config.keep_alive_timeout = 1000.0  # nobody is sent away meanwhile
    config.bind = [f"fd://{listener.detach()}"]
    nursery.start_soon(serve_http, alive, config, stop, trio.Event())
    return port, stop


async def unasked(scope, receive, send):
    """An application whose server answers by itself."""
    raise AssertionError("asked")


async def test_a_client_that_sends_what_is_no_frame_is_gone_and_no_bug(nursery):
    ends = []

    async def tell(send):
        while True:
            await send({"type": "websocket.send", "bytes": b"film"})
            await trio.lowlevel.checkpoint()

    async def app(scope, receive, send):
        await send({"type": "websocket.accept"})
        try:
            async with trio.open_nursery() as telling:
                telling.start_soon(tell, send)
                while (await receive())["type"] != "websocket.disconnect":
                    pass
                telling.cancel_scope.cancel()
        except* trio.BusyResourceError as group:
            ends.append(group)
        else:
            ends.append(None)

    with trio.fail_after(30):
        port, stop = start(nursery, app)
        for n in range(CLIENTS):
            async with await trio.open_tcp_stream("127.0.0.1", port) as client:
                await client.send_all(HELLO)
                await client.receive_some()
                await client.send_all(b"\xff" * 50)
                while len(ends) == n:
                    await trio.sleep(0.001)
        stop.set()
    assert ends == [None] * CLIENTS


def frame(kind, payload=b"", *, end=True):
    """A WebSocket's frame, as a client sends it."""
    return bytes((end << 7 | kind, 0x80 | len(payload))) + bytes(4) + payload


@pytest.mark.parametrize("nothing", [frame(10), frame(0, end=False)], ids=["pongs", "empty parts"])
async def test_who_says_nothing_over_a_websocket_is_heard_slowly_and_others_meanwhile(nursery, nothing):
    heard = []

    async def app(scope, receive, send):
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] != "websocket.disconnect":
            heard.append((message.get("text"), trio.current_time()))

    with trio.fail_after(30):
        port, stop = start(nursery, app)
        async with await trio.open_tcp_stream("127.0.0.1", port) as client:
            await client.send_all(HELLO)
            await client.receive_some()
            much = nothing * (3 * VIEWER_BYTES // len(nothing))
            await client.send_all(frame(1, b"begin") + frame(1, end=False) + much + frame(0, b"end"))
            while len(heard) < 3:
                await trio.sleep(0.001)
        stop.set()
    (_, _), (begin, began), (end, ended) = heard
    assert (begin, end) == ("begin", "end")
    assert ended - began >= 3 * VIEWER_PAUSE


@pytest.mark.parametrize("answers", [False, True], ids=["not yet", "just then"])
async def test_who_speaks_before_a_websocket_is_answered_is_sent_away_and_the_server_goes_on(nursery, answers):
    gone = trio.Event()

    async def app(scope, receive, send):
        if answers:
            await send({"type": "websocket.http.response.start", "status": 404, "headers": [(b"content-length", b"2")]})
            await send({"type": "websocket.http.response.body", "body": b"no"})
        while (await receive())["type"] != "websocket.disconnect":
            pass
        gone.set()

    with trio.fail_after(30):
        port, stop = start(nursery, app)
        for _ in range(CLIENTS):
            gone = trio.Event()
            async with await trio.open_tcp_stream("127.0.0.1", port) as client:
                await client.send_all(HELLO + frame(1, b"early"))
                async for _ in client:
                    pass
            await gone.wait()
        stop.set()


@pytest.mark.parametrize(
    "change",
    [
        (b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n", b""),
        (b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Version: 8"),
        (b"HTTP/1.1", b"HTTP/1.0"),
    ],
    ids=["no key", "another version", "an old protocol"],
)
async def test_a_handshake_that_is_refused_says_why_and_keeps_no_connection(nursery, change):
    with trio.fail_after(30):
        port, stop = start(nursery, unasked)
        async with await trio.open_tcp_stream("127.0.0.1", port) as client:
            await client.send_all(HELLO.replace(*change))
            head, _, body = b"".join([data async for data in client]).partition(b"\r\n\r\n")
        stop.set()
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"\r\nsec-websocket-version: 13\r\n" in head.lower()
    assert json.loads(body) == {"error": HANDSHAKE}


async def test_a_bug_at_one_connection_ends_that_one_and_is_logged(nursery, caplog):
    config = Config()
    config.alt_svc_headers = ["\n"]  # no answer can be made with that
    with trio.fail_after(30):
        port, stop = start(nursery, unasked, config)
        for n in range(3):
            async with await trio.open_tcp_stream("127.0.0.1", port) as client:
                await client.send_all(b"nonsense\r\n\r\n")
                assert [data async for data in client] == []
            assert [each.getMessage() for each in caplog.records] == ["http: a connection: a bug"] * (n + 1)
        stop.set()
    assert all("LocalProtocolError" in each.exc_text for each in caplog.records)


@pytest.mark.parametrize("name", [b"Sec-WebSocket-Protocol", b"Sec-WebSocket-Extensions", b"Connection"])
async def test_a_handshake_with_what_is_no_word_is_refused_and_no_bug(nursery, caplog, name):
    with trio.fail_after(30):
        port, stop = start(nursery, unasked)
        async with await trio.open_tcp_stream("127.0.0.1", port) as client:
            await client.send_all(HELLO[:-2] + name + b": Upgrade, caf\xe9\r\n\r\n")
            head, _, body = b"".join([data async for data in client]).partition(b"\r\n\r\n")
        stop.set()
    assert head.startswith(b"HTTP/1.1 400 ")
    assert json.loads(body) == {"error": HANDSHAKE}
    assert not caplog.records


async def test_a_method_in_small_letters_is_that_in_capitals(nursery):
    async def app(scope, receive, send):
        asked.append(scope["method"])
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
        await send({"type": "http.response.body", "body": b"whole"})

    asked = []
    with trio.fail_after(30):
        port, stop = start(nursery, app)
        async with await trio.open_tcp_stream("127.0.0.1", port) as client:
            await client.send_all(
                b"head / HTTP/1.1\r\nHost: h\r\n\r\nget / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
            )
            answers = b"".join([data async for data in client])
        stop.set()
    assert asked == ["HEAD", "GET"]
    assert (answers.count(b"HTTP/1.1 200"), answers.count(b"whole"), answers[-5:]) == (2, 1, b"whole")


@pytest.mark.parametrize(
    "behind", [b"", b"x", b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"], ids=["nothing", "a byte", "a request"]
)
async def test_a_client_that_leaves_in_the_middle_of_an_answer_keeps_no_connection(nursery, behind):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        async with trio.open_nursery() as answering:
            answering.start_soon(stream, send)
            while (await receive())["type"] != "http.disconnect":
                pass
            answering.cancel_scope.cancel()

    async def stream(send):
        while True:
            await send({"type": "http.response.body", "body": bytes(1000), "more_body": True})
            await trio.sleep(0.001)

    with trio.fail_after(30):
        port, stop = start(nursery, app)
        await trio.testing.wait_all_tasks_blocked()
        before = descriptors()
        for _ in range(3):
            async with await trio.open_tcp_stream("127.0.0.1", port) as client:
                await client.send_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n" + behind)
                assert await client.receive_some()
        while descriptors() > before:
            await trio.sleep(0.001)
        stop.set()


async def test_a_client_that_takes_nothing_is_let_go_sooner_where_the_application_says_so_and_only_there(nursery):
    size, gone = 10_000_000, trio.Event()

    async def app(scope, receive, send):
        if scope["path"] != "/film":
            limit_stall(scope, 0.2)
        if scope["path"] == "/ended":
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(size // 10_000):
            await send({"type": "http.response.body", "body": bytes(10_000), "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        if scope["path"] == "/live":
            assert (await receive(), await receive())[1]["type"] == "http.disconnect"
            gone.set()

    with trio.fail_after(60):
        port, stop = start(nursery, app)
        async with await trio.open_tcp_stream("127.0.0.1", port) as paused:
            await paused.send_all(b"GET /ended HTTP/1.1\r\nHost: h\r\n\r\n")
            assert b" 204 " in await paused.receive_some()
            await paused.send_all(b"GET /film HTTP/1.0\r\n\r\n")
            async with await trio.open_tcp_stream("127.0.0.1", port) as client:
                await client.send_all(b"GET /live HTTP/1.0\r\n\r\n")
                await gone.wait()
            head, _, film = b"".join([data async for data in paused]).partition(b"\r\n\r\n")
        stop.set()
    assert (head[:12], len(film)) == (b"HTTP/1.1 200", size)


@pytest.mark.parametrize("fails", [False, True], ids=["answers", "fails"])
async def test_a_client_that_says_much_to_who_does_not_listen_keeps_no_connection_when_it_has_gone(nursery, fails):
    async def app(scope, receive, send):
        await said.wait()
        assert not fails
        await send({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"no"})

    head = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    said = trio.Event()
    with trio.fail_after(30):
        port, stop = start(nursery, app)
        await trio.testing.wait_all_tasks_blocked()
        before = descriptors()
        async with await trio.open_tcp_stream("127.0.0.1", port) as client:
            await client.send_all(head + 100 * b"1\r\nx\r\n")
            await trio.testing.wait_all_tasks_blocked(0.1)  # no more of it fits between them
            said.set()
            await client.receive_some()
        while descriptors() > before:
            await trio.sleep(0.001)
        stop.set()


@pytest.mark.parametrize("body", [False, True], ids=["head", "tail"])
async def test_a_request_of_very_many_lines_is_refused(nursery, body):
    asked = []

    async def app(scope, receive, send):
        while (message := await receive()).get("more_body"):
            pass
        if message["type"] == "http.request":
            asked.append(message)
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body"})

    async def answer(lines):
        async with await trio.open_tcp_stream("127.0.0.1", port) as client:
            head = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n"
            await client.send_all(head + (b"\r\n0\r\n" if body else b"") + b"a:\r\n" * lines)
            await client.send_all(b"\r\n" if body else b"\r\n0\r\n\r\n")
            return (await client.receive_some())[:12]

    with trio.fail_after(30):
        port, stop = start(nursery, app)
        assert await answer(HEAD_LINES - 3) == b"HTTP/1.1 204"
        assert await answer(HEAD_LINES + 1) == b"HTTP/1.1 431"
        stop.set()
    assert len(asked) == 1


async def test_a_body_with_two_lengths_is_refused_and_what_follows_is_not_heard(nursery):
    asked = []

    async def app(scope, receive, send):
        asked.append(scope["path"])
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    with trio.fail_after(30):
        port, stop = start(nursery, app)
        async with await trio.open_tcp_stream("127.0.0.1", port) as client:
            lengths = b"Content-Length: 5\r\ntransfer-encoding: chunked\r\n"
            follows = b"GET /follows HTTP/1.1\r\nHost: h\r\n\r\n"
            await client.send_all(b"POST / HTTP/1.1\r\nHost: h\r\n" + lengths + b"\r\n0\r\n\r\n" + follows)
            answer = b"".join([data async for data in client])
        stop.set()
    assert (answer[:12], answer.count(b"HTTP/1.1"), asked) == (b"HTTP/1.1 400", 1, [])


@pytest.mark.parametrize("when", ["before it asked", "after its answer", "before its answer"])
@pytest.mark.parametrize("how", ["closed", "reset"])
async def test_a_client_that_has_gone_keeps_no_connection(nursery, when, how):
    asked, answered = trio.Event(), trio.Event()

    async def app(scope, receive, send):
        asked.set()
        while when == "before its answer" and (await receive())["type"] != "http.disconnect":
            pass
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})
        answered.set()

    with trio.fail_after(10):
        port, stop = start(nursery, app)
        before = descriptors()
        client = await trio.open_tcp_stream("127.0.0.1", port)
        while descriptors() < before + 2:
            await trio.sleep(0.001)
        if when != "before it asked":
            await client.send_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            await asked.wait()
        if when == "after its answer":
            await answered.wait()
        if how == "reset":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await client.aclose()
        while descriptors() > before:
            await trio.sleep(0.001)
        stop.set()


def descriptors():
    """How many this process has."""
    return len(list(Path("/proc/self/fd").iterdir()))
