"""The door of jobs over sockets: whole requests, connections that stay, events as they happen."""

import gc
import json
import re
import weakref

import pytest
import trio

import api.asgi
import api.nexrender
from api.app import create_app
from api.asgi import Refusal, Request
from engine import Engine
from engine.config import Settings
from tests.api.clients import serving
from tests.api.door import BODY


async def exchange(port, head, body=b""):
    """The whole answer: everything until the server ends the connection."""
    with trio.fail_after(30):
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(f"{head}\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            for at in range(0, len(body), 1 << 20):
                await stream.send_all(body[at : at + (1 << 20)])
            return b"".join([data async for data in stream])


@pytest.fixture
async def app(start, tmp_path):
    """The whole application, with the door in front of it."""
    _, queue = await start(secret="s3cret")
    return create_app(Engine(Settings(data=str(tmp_path), rtmp_port=-1, secret="s3cret")), queue=queue)


async def test_the_door_is_in_front_of_the_application(app):
    secret = "nexrender-secret: s3cret"
    async with serving(app) as port:
        assert (await exchange(port, "GET /api/v1/health HTTP/1.1")).endswith(b"\r\n\r\nok")
        assert b" 403 " in await exchange(port, "GET /api/v1/jobs/a.jpg HTTP/1.1")  # which playback would answer
        assert b" 404 " in await exchange(port, f"GET /api/v1/jobs/a.jpg HTTP/1.1\r\n{secret}")
        body = json.dumps({**BODY, "uid": "a+b c"}).encode()
        made = await exchange(port, f"POST /api/v1/jobs HTTP/1.1\r\n{secret}\r\nContent-Length: {len(body)}", body)
        assert made.startswith(b"HTTP/1.1 200 ")
        found = await exchange(port, f"GET /api/v1/jobs/a+b%20c HTTP/1.1\r\n{secret}")
        assert json.loads(found.partition(b"\r\n\r\n")[2])["uid"] == "a+b c"
        head, _, rest = (await exchange(port, f"HEAD /api/v1/jobs/pickup HTTP/1.1\r\n{secret}")).partition(b"\r\n\r\n")
        assert (b" 405 " in head, rest) == (True, b"")
        assert (await exchange(port, "GET /healthz HTTP/1.1")).startswith(b"HTTP/1.1 200 ")
        assert (await exchange(port, "GET /api/v2 HTTP/1.1")).startswith(b"HTTP/1.1 404 ")


async def test_who_sends_too_much_hears_why(start):
    """A client that does not look for answers before it has sent everything."""
    client, _ = await start()
    body = bytes(101 << 20)
    async with serving(client.door) as port:
        answer = await exchange(port, f"POST /api/v1/jobs HTTP/1.1\r\nContent-Length: {len(body)}", body)
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert answer.endswith(b"the body has more than 104857600 bytes")
        assert (await exchange(port, "GET /api/v1/jobs HTTP/1.1")).endswith(b"[]")


async def test_a_refused_body_is_gone_with_its_refusal():
    """What is left for the garbage collector stays for minutes where little goes on, and may be 100 MiB each time."""

    async def receive():
        return {"type": "http.request", "body": bytes(1 << 16), "more_body": True}

    request = Request({"method": "POST", "raw_path": b"/", "query_string": b"", "headers": []}, receive)
    gc.disable()
    try:
        with pytest.raises(Refusal, match="more than 1048576 bytes") as caught:
            await request.body(limit_bytes=1 << 20, seconds=60)
        refusal = weakref.ref(caught.value)
        del caught
        assert refusal() is None
    finally:
        gc.enable()


async def test_who_announces_too_much_hears_why_at_once(start):
    client, _ = await start()
    with trio.fail_after(30):
        async with serving(client.door) as port, await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(b"POST /api/v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n")
            answer = b""
            while not answer.endswith(b"bytes"):
                answer += await stream.receive_some()
            assert answer.startswith(b"HTTP/1.1 413 ")


async def test_of_a_worker_that_vanishes_while_it_sends_its_film_nothing_stays(start, monkeypatch):
    """Without a word: its machine has lost its power, or its network."""
    monkeypatch.setattr(api.asgi, "SILENCE", 0.2)
    monkeypatch.setattr(api.asgi, "DRAIN_SECONDS", 0)
    client, queue = await start()
    await client.add(uid="a", type="mash")
    picked = await client.ask("GET", "/api/v1/jobs/pickup?kind=document&lease=30")
    target = "/api/v1/jobs/a/output?name=film.mp4&run=" + picked.headers["mashtun-run"]
    with trio.fail_after(30):
        async with serving(client.door) as port, await trio.open_tcp_stream("127.0.0.1", port) as stream:
            head = f"PUT {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 99999\r\n\r\n"
            await stream.send_all(head.encode() + bytes(1000))
            answer = b"".join([data async for data in stream])
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert answer.endswith(b"nothing of the body came for 0.2 s")
    assert list((queue.outputs / "a").iterdir()) == []


async def test_connections_are_kept_alive(start):
    client, _ = await start()
    with trio.fail_after(30):
        async with serving(client.door) as port, await trio.open_tcp_stream("127.0.0.1", port) as stream:
            for _ in range(3):
                await stream.send_all(b"GET /api/v1/jobs HTTP/1.1\r\nHost: x\r\n\r\n")
                answer = b""
                while not answer.endswith(b"[]"):
                    answer += await stream.receive_some()
                assert answer.startswith(b"HTTP/1.1 200 ")


async def test_pickups_over_sockets(start):
    client, _ = await start()
    names = {(await client.add())["uid"] for _ in range(20)}
    answers = []

    async def pick(port):
        answer = await exchange(port, "GET /api/v1/jobs/pickup HTTP/1.1")
        answers.append(json.loads(answer.partition(b"\r\n\r\n")[2]))

    async with serving(client.door) as port, trio.open_nursery() as picking:
        for _ in range(30):
            picking.start_soon(pick, port)
    assert answers.count({}) == 10
    assert {each["uid"] for each in answers if each} == names


class Messages:
    """Server-sent events of a connection."""

    ONE = re.compile(r"event: (\w+)\ndata: (.*)\n\n")

    def __init__(self, stream):
        self._stream, self._text, self._at = stream, "", 0

    async def next(self):
        while (found := self.ONE.search(self._text, self._at)) is None:
            self._text += (await self._stream.receive_some()).decode()
        self._at = found.end()
        return found[1], json.loads(found[2])


async def test_events_of_a_job(start):
    client, queue = await start()
    await client.add(uid="a")
    await client.add(uid="b")
    with trio.fail_after(30):
        async with serving(client.door) as port:
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(b"GET /api/v1/jobs/a/events HTTP/1.1\r\nHost: x\r\n\r\n")
                messages = Messages(stream)
                event, told = await messages.next()
                assert (event, told) == ("status", await client.status("a"))
                await client.put("b", state="error")
                await client.put("a", state="started")
                assert (await messages.next())[1]["state"] == "started"
                await client.ask("DELETE", "/api/v1/jobs/a")
                assert await messages.next() == ("removed", {"uid": "a"})
            while queue._feeds:
                await trio.sleep(0.01)


async def test_events_of_all_jobs(start):
    client, queue = await start()
    with trio.fail_after(30):
        async with serving(client.door) as port:
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(b"GET /api/v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
                while not queue._feeds:
                    await trio.sleep(0.01)
                messages = Messages(stream)
                for uid in "ab":
                    await client.add(uid=uid)
                    event, told = await messages.next()
                    assert (event, told["uid"], told["state"]) == ("status", uid, "queued")
            while queue._feeds:
                await trio.sleep(0.01)


async def test_a_line_on_which_nothing_comes_is_kept_open(start, monkeypatch):
    monkeypatch.setattr(api.nexrender, "COMMENT_EVERY", 0.02)
    client, _ = await start()
    with trio.fail_after(30):
        async with serving(client.door) as port, await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(b"GET /api/v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
            seen = b""
            while seen.count(b": still here\n\n") < 2:
                seen += await stream.receive_some()
