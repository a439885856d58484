"""A worker on another machine: the same worker, and nothing but the door between it and the queue."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from urllib.parse import quote

import pytest
import trio
from hypercorn.config import Config
from hypercorn.trio import serve

from api.nexrender import Door
from api.queue import JobQueue
from api.remote import RemoteQueue
from engine.config import Settings
from engine.errors import InvalidJob, InvalidSpec, Overloaded, SinkRejected, SinkUnavailable
from engine.jobdocument import DOCUMENT, read
from engine.jobs import FINAL, Assignment, Queue
from engine.worker import Worker
from tests.descriptors import no_descriptors
from tests.engine.silent import HOST, named, silent
from tests.media import numbers
from tests.threads import no_threads
from tests.web import WebRequest, web_server

TREE = {"rootVideoNode": {"node": "SolidColorNode", "red": 1}}
BROKEN = trio.BrokenResourceError, trio.ClosedResourceError
SMALL = {"width": 64, "height": 36, "frameRate": 10, "duration": 0.5, "composition": "*"}


def job(*, actions=None, **fields):
    template = {"src": "data:application/json," + quote(json.dumps(TREE))} | SMALL | fields
    return read(json.dumps({"template": template, "actions": actions or {}}).encode())


@asynccontextmanager
async def server_in(folder, wall=time.time, **asked):
    """(queue, url) of a server that asks for the secret "s", or for what is given."""
    settings = Settings(data=str(folder), **(asked or {"secret": "s"}))
    queue = JobQueue(settings, wall=wall)
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    config = Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.accesslog = config.errorlog = None
    config.graceful_timeout = 0.2
    over = trio.Event()
    async with trio.open_nursery() as nursery:
        await nursery.start(queue.run)
        nursery.start_soon(partial(serve, Door(queue, settings), config, mode="asgi", shutdown_trigger=over.wait))
        yield queue, url
        over.set()
        nursery.cancel_scope.cancel()


@pytest.fixture
async def server(tmp_path):
    async with server_in(tmp_path / "there") as found:
        yield found


async def add(queue, body):
    (made,) = await queue.create([body], creator="test")
    return json.loads(made)["uid"]


async def until(queue, uid, states):
    with trio.fail_after(30), queue.follow(uid) as feed:
        while (found := json.loads(await queue.whole(uid)))["state"] not in states:
            await feed.take()
    return found


async def test_a_worker_elsewhere_sends_its_film(server, tmp_path):
    queue, url = server
    remote: Queue = RemoteQueue(url, secret="s")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Worker(remote, "far", data=tmp_path / "here", keeps=False).run)
        found = await until(queue, await add(queue, job()), FINAL)
        assert (found["state"], found["executor"], found["renderProgress"]) == ("finished", "far", 100)
        assert Path(found["output"]).is_relative_to(tmp_path / "there" / "outputs")
        assert len(numbers(found["output"])) == 5
        named = {"module": "@nexrender/action-encode", "preset": "mp4", "output": "promo (ä).mp4"}
        found = await until(queue, await add(queue, job(actions={"postrender": [named]})), FINAL)
        assert (found["state"], Path(found["output"]).name) == ("finished", "promo (ä).mp4")
        found = await until(queue, await add(queue, job(outputExt="avi")), FINAL)
        assert found["state"] == "error"
        uid = await add(queue, job(duration=100_000))
        await until(queue, uid, ("render:dorender",))
        await queue.put(uid, read(b'{"state": "error", "error": "cancelled"}'))
        found = await until(queue, await add(queue, job()), FINAL)
        assert found["state"] == "finished"
        nursery.cancel_scope.cancel()


async def test_a_worker_in_the_servers_own_folder_leaves_the_film_there(server, tmp_path):
    queue, url = server
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Worker(RemoteQueue(url, secret="s"), "near", data=tmp_path / "there", keeps=False).run)
        found = await until(queue, await add(queue, job()), FINAL)
        assert len(numbers(found["output"])) == 5
        nursery.cancel_scope.cancel()


def files_in(folder):
    """Also while folders in it are removed."""
    return {os.path.relpath(Path(at, name), folder) for at, _, names in os.walk(folder) for name in names}


async def test_every_film_of_a_worker_elsewhere_is_sent_and_none_stays_there(server, tmp_path):
    queue, url = server
    here = tmp_path / "here"

    async def left():
        with trio.fail_after(30):
            while files_in(here) or list((here / "work").iterdir()):
                await trio.sleep(0.02)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(Worker(RemoteQueue(url, secret="s"), "far", data=here, keeps=False).run)
        long = "映" * 65 + ".webm"
        actions = [
            {"module": "@nexrender/action-encode", "preset": "mp4", "output": "a.mp4"},
            {"module": "@nexrender/action-encode", "preset": "webm", "output": "映" * 75 + ".webm"},
            {"module": "@nexrender/action-copy", "input": "a.mp4", "output": "more/ä b.mp4"},
        ]
        found = await until(queue, await add(queue, job(actions={"postrender": actions})), FINAL)
        assert (found["state"], Path(found["output"]).name) == ("finished", long), found.get("error")
        assert files_in(Path(found["output"]).parent) == {"a.mp4", long, "more/ä b.mp4"}
        await left()
        upload = {"module": "@nexrender/action-upload", "provider": "http", "params": {"url": "http://127.0.0.1:1/x"}}
        found = await until(queue, await add(queue, job(actions={"postrender": [upload]})), FINAL)
        assert found["state"] == "error"
        await left()
        actions = [{"module": "@nexrender/action-encode", "preset": "mp4", "output": "b.mp4"},
                   {"module": "@nexrender/action-encode", "params": {"-t": "0.5"}, "output": "a.mp4"}]  # fmt: skip
        uid = await add(queue, job(duration=100_000, actions={"postrender": actions}))
        with trio.fail_after(30):
            while not list(here.glob("work/*/outputs/a.mp4")):
                await trio.sleep(0.02)
        await queue.put(uid, read(b'{"state": "error", "error": "cancelled"}'))
        await left()
        nursery.cancel_scope.cancel()


async def test_many_files_without_a_film_have_their_folder_as_output(server, tmp_path):
    queue, url = server
    remote = RemoteQueue(url, secret="s")
    await add(queue, job())
    held = await remote.pick("far", (DOCUMENT,), wait=1)
    for name in ("00.png", "01.png", "more/x.json"):
        (tmp_path / "here" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "here" / name).write_text(name)
    assert await remote.finish(held, output=str(tmp_path / "here"))
    folder = Path(json.loads(await queue.whole(held.uid))["output"])
    assert folder.parent == tmp_path / "there" / "outputs"
    assert files_in(folder) == {"00.png", "01.png", "more/x.json"}
    assert (folder / "01.png").read_text() == "01.png"


async def test_a_film_on_which_the_server_gave_up_is_sent_again(server, tmp_path, monkeypatch):
    queue, url = server
    remote = RemoteQueue(url, secret="s")
    uid = await add(queue, job())
    held = await remote.pick("far", (DOCUMENT,))
    film = tmp_path / "film.mp4"
    film.write_bytes(b"film" * 1000)
    with monkeypatch.context() as impatient, pytest.raises(SinkUnavailable, match="answers 408") as refused:
        impatient.setattr("api.asgi.SILENCE", 0)
        await remote.finish(held, output=str(film))
    assert refused.value.retry
    assert await remote.finish(held, output=str(film))
    assert Path(json.loads(await queue.whole(uid))["output"]).read_bytes() == film.read_bytes()


async def test_a_film_that_is_not_there_is_the_worker_s_fault_and_not_sent_again(server, tmp_path):
    queue, url = server
    remote = RemoteQueue(url, secret="s")
    await add(queue, job())
    held = await remote.pick("far", (DOCUMENT,))
    with pytest.raises(SinkRejected, match=r'^output "film\.mp4": no such file or directory$') as refused:
        await remote.finish(held, output=str(tmp_path / "film.mp4"))
    assert not refused.value.retry


async def test_a_film_for_which_there_is_no_descriptor_is_sent_again_and_the_server_not_blamed(server, tmp_path):
    queue, url = server
    remote = RemoteQueue(url, secret="s")
    uid = await add(queue, job())
    held = await remote.pick("far", (DOCUMENT,))
    film = tmp_path / "film.mp4"
    film.write_bytes(b"film")
    for say in (partial(remote.finish, output=str(film)), partial(remote._send, file=film, name="film.mp4")):
        with no_descriptors(), pytest.raises(SinkUnavailable) as refused:
            await say(held)
        assert (str(refused.value), refused.value.retry) == ('output "film.mp4": too many open files', True)
    assert await remote.finish(held, output=str(film))
    assert Path(json.loads(await queue.whole(uid))["output"]).read_bytes() == b"film"


async def test_reports_of_a_run_that_is_over_are_not_taken(server):
    queue, url = server
    remote = RemoteQueue(url, secret="s")
    uid = await add(queue, job())
    held = await remote.pick("far", (DOCUMENT,), wait=1)
    assert held.uid == uid
    assert await remote.report(held, {"state": "started"})
    assert await remote.report(held, {})
    await queue.put(uid, read(b'{"state": "queued"}'))
    with trio.fail_after(30):
        await remote.revoked(held)
    assert not await remote.report(held, {})
    assert not await remote.finish(held, output=__file__)
    assert not await remote.fail(held, "x")
    await queue.remove(uid)
    assert not await remote.report(held, {})
    assert not await remote.finish(held, output=__file__)


async def test_a_job_may_be_called_as_a_route(server, monkeypatch):
    queue, url = server
    remote = RemoteQueue(url, secret="s")
    monkeypatch.setattr("api.remote.LOOK_EVERY", 0.01)
    await add(queue, job() | read(b'{"uid": "pickup"}'))
    held = await remote.pick("w", (DOCUMENT,))
    other = await add(queue, job() | read(b'{"tags": "status"}'))
    with trio.move_on_after(0.3) as looking:
        await remote.revoked(held)
    assert looking.cancelled_caught
    await until(queue, other, ("queued",))
    await queue.put("pickup", read(b'{"state": "error"}'))
    with trio.fail_after(30):
        await remote.revoked(held)


async def test_a_pick_that_is_given_up_takes_no_job(server):
    queue, url = server
    remote = RemoteQueue(url, secret="s")
    with trio.move_on_after(0.3):
        await remote.pick("far", (DOCUMENT,), wait=20)
    uid = await add(queue, job())
    assert (await until(queue, uid, ("queued",)))["uid"] == uid
    assert (await remote.pick("other", (DOCUMENT,), wait=5)).uid == uid
    assert await remote.pick("other", (DOCUMENT,), tags="a, b") is None


async def test_a_server_with_an_address_that_swallows_everything_is_asked(server, monkeypatch):
    queue, url = server
    port = int(url.rpartition(":")[2])
    named(monkeypatch, **{"two.test": [HOST, "127.0.0.1"]})
    remote = RemoteQueue(f"http://two.test:{port}", secret="s")
    uid = await add(queue, job())
    with silent(port), trio.fail_after(10):
        held = await remote.pick("far", (DOCUMENT,))
        assert held.uid == uid
        assert await remote.report(held, {"state": "started"})


async def test_a_pick_that_is_given_up_while_the_server_does_not_even_answer_leaves_no_thread_behind():
    with silent() as port, trio.fail_after(10):
        remote = RemoteQueue(f"http://{HOST}:{port}")
        for n in range(20):  # at any moment: before it connects, and while it does
            with trio.move_on_after(n / 2000):
                await remote.pick("far", (DOCUMENT,))
        while remote._limiter.borrowed_tokens:
            await trio.sleep(0.01)


class Line:
    """A line to a server on which the answer to a pickup comes slowly: its last part when `rest` is set."""

    def __init__(self, url):
        self.rest = trio.Event()
        self.reports = 0
        self._port = int(url.rpartition(":")[2])

    async def carry(self, client):
        asked = await client.receive_some()
        self.reports += asked.startswith(b"PUT ")
        server = await trio.open_tcp_stream("127.0.0.1", self._port)
        async with client, server, trio.open_nursery() as nursery:

            async def send():
                with suppress(*BROKEN):
                    await server.send_all(asked)
                    async for piece in client:
                        await server.send_all(piece)

            nursery.start_soon(send)
            size = 0
            with suppress(*BROKEN):
                async for piece in server:
                    size += len(piece)
                    if asked.startswith(b"GET ") and size > 1 << 20:
                        await self.rest.wait()
                    await client.send_all(piece)
            nursery.cancel_scope.cancel()


async def test_a_job_that_takes_long_to_come_is_held_and_does_not_come_again(tmp_path):
    now = [1e9]
    async with server_in(tmp_path, wall=lambda: now[0]) as (queue, url), trio.open_nursery() as nursery:
        line = Line(url)
        listeners = await nursery.start(partial(trio.serve_tcp, line.carry, 0, host="127.0.0.1"))
        remote = RemoteQueue(f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}", secret="s")
        uid = await add(queue, job() | read(json.dumps({"note": "x" * (2 << 20)}).encode()))
        held = []

        async def pick():
            held.append(await remote.pick("far", (DOCUMENT,), lease=1, wait=1))

        nursery.start_soon(pick)
        with trio.fail_after(30):
            for told in range(1, 5):
                while line.reports < told:
                    await trio.sleep(0.02)
                await until(queue, uid, ("picked",))
                now[0] += 0.5  # of a second that it is leased for
            line.rest.set()
            while not held:
                await trio.sleep(0.02)
        assert (held[0].uid, len(held[0].job) > 2 << 20) == (uid, True)
        assert await remote.report(held[0], {"state": "started"})
        nursery.cancel_scope.cancel()


async def test_the_worker_command_works_until_it_is_told_to_stop(server, tmp_path):
    queue, url = server
    command = [
        sys.executable,
        "-m",
        "api",
        "worker",
        "--server",
        url,
        "--name",
        "far",
        "--data",
        str(tmp_path / "here"),
    ]
    starting = partial(trio.lowlevel.open_process, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    process = await starting(command, env=os.environ | {"MASHTUN_SECRET": "s"})
    found = await until(queue, await add(queue, job()), FINAL)
    assert (found["state"], found["executor"]) == ("finished", "far")
    uid = await add(queue, job(duration=100_000))
    await until(queue, uid, ("render:dorender",))
    process.send_signal(signal.SIGTERM)
    with trio.fail_after(30):
        assert await process.wait() == 0
    assert json.loads(await queue.whole(uid))["state"] == "queued"


async def test_a_worker_without_a_name_has_one_that_no_process_of_the_same_host_and_number_has(server, tmp_path):
    queue, url = server
    command = [sys.executable, "-m", "api", "worker", "--server", url, "--data", str(tmp_path / "here"), "--slots", "2"]
    starting = partial(trio.lowlevel.open_process, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    process = await starting(command, env=os.environ | {"MASHTUN_SECRET": "s"})
    found = await until(queue, await add(queue, job()), FINAL)
    process.terminate()
    await process.wait()
    assert re.fullmatch(f"{re.escape(socket.gethostname())}-{process.pid}-[0-9a-f]{{4}}-[12]", found["executor"])


@pytest.mark.parametrize("secret", ["geheimnüs", "秘密"])
async def test_secrets_and_names_may_have_any_letters(tmp_path, secret):
    async with server_in(tmp_path, secret=secret) as (queue, url):
        uid = await add(queue, job())
        remote = RemoteQueue(url, secret=secret)
        held = await remote.pick("Rechnär ☃", (DOCUMENT,), wait=1)
        assert json.loads(await queue.whole(uid))["executor"] == "Rechnär ☃"
        with trio.move_on_after(1.5):  # a look or two
            await remote.revoked(held)
            raise AssertionError("it is still ours")
        for wrong in ("", "?" * len(secret)):
            with pytest.raises(InvalidJob, match="403"):
                await RemoteQueue(url, secret=wrong).pick("far", (DOCUMENT,))


async def test_a_worker_that_has_no_thread_for_its_report_says_so_and_may_ask_again(server, monkeypatch):
    queue, url = server
    remote = RemoteQueue(url, secret="s")
    uid = await add(queue, job())
    held = await remote.pick("far", (DOCUMENT,))
    monkeypatch.setattr("engine.threads.PATIENCE", 0.05)
    async with no_threads():
        with pytest.raises(Overloaded, match="no thread"):
            await remote.report(held, {})
    assert held.uid == uid
    assert await remote.report(held, {"state": "started"})


@pytest.mark.parametrize("answer", [b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\n\r\n"], ids=("head", "body"))
async def test_a_server_that_drips_or_floods_is_away(monkeypatch, answer):
    monkeypatch.setattr("api.remote.PICK_PATIENCE", 1)
    monkeypatch.setattr("api.remote.MAX_ANSWER", 100)

    async def drip(stream):
        with suppress(trio.BrokenResourceError):
            await stream.send_all(answer)
            while True:
                await stream.send_all(b"y")
                await trio.sleep(0.005)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, drip, 0, host="127.0.0.1"))
        remote = RemoteQueue(f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}")
        with trio.fail_after(30), pytest.raises(SinkUnavailable, match=r"no answer within 1 s|more than 100 bytes"):
            await remote.pick("far", (DOCUMENT,))
        nursery.cancel_scope.cancel()


async def test_interim_answers_of_a_proxy_are_no_servers_answer():
    async def answer(stream):
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 103 Early Hints\r\nMashtun-Run: 1\r\n\r\n")
        await stream.send_all(b'HTTP/1.1 200 OK\r\nMashtun-Run: 2\r\nContent-Length: 11\r\n\r\n{"uid":"a"}')

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, answer, 0, host="127.0.0.1"))
        remote = RemoteQueue(f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}")
        with trio.fail_after(30):
            found = await remote.pick("far", (DOCUMENT,))
        nursery.cancel_scope.cancel()
    assert (found.uid, found.run) == ("a", 2)


class _Refusing(WebRequest):
    """A proxy that takes no large body, and reads none."""

    def do_PUT(self):
        self.send_error(413)


async def test_why_a_film_is_refused_before_it_is_through_is_heard(tmp_path):
    with (tmp_path / "film.mp4").open("wb") as film:
        film.truncate(32 << 20)  # more than the buffers of any two sockets
    with web_server(_Refusing) as web, trio.fail_after(30), pytest.raises(InvalidJob, match="answers 413"):
        await RemoteQueue(web.url).finish(Assignment("a", 1, b""), output=film.name)


async def test_user_and_password_of_the_url_open_a_server_that_asks_for_them(tmp_path):
    async with server_in(tmp_path, username="ann", password="p@ss wörd") as (queue, url):
        uid = await add(queue, job())
        opened = url.replace("//", "//ann:p%40ss%20w%C3%B6rd@")
        assert (await RemoteQueue(opened).pick("far", (DOCUMENT,))).uid == uid
        with pytest.raises(InvalidJob, match="401"):
            await RemoteQueue(url).pick("far", (DOCUMENT,))


@pytest.mark.parametrize(
    "url",
    ["http://ann:12@h:port", "ftp://ann:12@h", "http://ann:pw/12@h", "http://ann:12/34@h", "http://ann:12\udcff@h"],
)
def test_a_server_that_cannot_be_asked_is_refused_without_its_password(url):
    with pytest.raises(InvalidSpec) as refused:
        RemoteQueue(url)
    assert "12" not in str(refused.value)


async def test_what_is_wrong_with_the_server(server):
    with pytest.raises(InvalidSpec, match="is not an http"):
        RemoteQueue("localhost:80")
    for url, secret, sentence in (
        ("http://h:99999", "", "its port cannot be read"),
        ("http://[::1", "", "its host or its port cannot be read"),
        ("http://h", "a\nb", "cannot be sent"),
    ):
        with pytest.raises(InvalidSpec, match=sentence):
            RemoteQueue(url, secret=secret)
    with pytest.raises(SinkUnavailable, match=r"refused|assign"):  # and not a name that is not known
        await RemoteQueue("http://[::1]").pick("far", (DOCUMENT,))
    with pytest.raises(InvalidJob, match="403"):
        await RemoteQueue(server[1], secret="wrong").pick("far", (DOCUMENT,))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(SinkUnavailable, match=f'^server "{place}": connection refused$'):
            await RemoteQueue(f"http://{place}").pick("far", (DOCUMENT,))
