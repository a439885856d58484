"""Webhooks: who wants to hear of a job does, in order, whatever goes wrong on the way."""

import json
import socket
import sqlite3
import threading
import time
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import trio

import api.queue
import api.schema
import api.webhooks
import engine.fetch
from api.nexrender import Door
from api.queue import JobQueue
from api.store import LeftOut, Store
from engine.config import Settings
from tests.api.auditing import new_database
from tests.api.door import NOW, Client, Clock


class Receiver:
    """Takes webhooks on a port of its own; `status` is what it answers, but 500 at / and /broken, nothing at /mute."""

    def __init__(self, port=0):
        self.told, self.status = [], 200
        receiver = self

        class Taking(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                path = self.path.partition("?")[0]
                if path == "/mute":
                    return
                status = 500 if path in ("/", "/broken") else receiver.status
                if path not in ("/", "/broken"):
                    receiver.told.append((status, dict(self.headers), body))
                self.send_response(status)
                if receiver.status == 302:
                    self.send_header("Location", "/other")
                self.end_headers()

            def log_message(self, *_):
                pass

        self._server = HTTPServer(("127.0.0.1", port), Taking)
        self.host = f"http://127.0.0.1:{self._server.server_port}"
        self.url = f"{self.host}/hook?x=1"
        self._thread = threading.Thread(target=partial(self._server.serve_forever, 0.01), daemon=True)
        self._thread.start()

    def events(self):
        return [json.loads(body)["event"] for status, _, body in self.told if status == 200]

    async def until(self, count, clock=None):
        """clock: time goes by meanwhile."""
        with trio.fail_after(30):
            while len(self.told) < count:
                await trio.sleep(0.01)
                if clock is not None:
                    clock.now += 0.1

    def close(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def receiver(monkeypatch):
    monkeypatch.setattr(api.webhooks, "POLL", 0.02)
    made = Receiver()
    yield made
    made.close()


async def due(queue, most=10):
    """What is to be told now."""
    return await queue.undelivered([], most, LeftOut())


async def test_webhooks_are_told_and_signed(start, receiver):
    client, queue = await start()
    hooks = [{"url": receiver.url, "secret": "shh", "events": ["queued", "finished"]}]
    uid = (await client.add(webhooks=hooks))["uid"]
    await client.put(uid, state="started")
    await client.put(uid, state="finished")
    await receiver.until(2)
    assert receiver.events() == ["queued", "finished"]
    for _, headers, body in receiver.told:
        assert headers["X-Hub-Signature-256"] == api.webhooks.signature("shh", body)
        assert headers["X-Mashtun-Event"] == json.loads(body)["event"]
        assert headers["Content-Type"] == "application/json"
    assert json.loads(receiver.told[1][2])["job"] == await client.status(uid)
    with trio.fail_after(30):
        while await due(queue):
            await trio.sleep(0.01)


def test_a_signature_is_the_hmac_of_the_body():
    known = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    assert api.webhooks.signature("It's a Secret to Everybody", b"Hello, World!") == known


@pytest.mark.parametrize("status", [500, 404, 302])
async def test_what_is_not_taken_is_told_again_in_order(start, receiver, clock, status):
    client, _ = await start()
    receiver.status = status
    uid = (await client.add(webhooks=[{"url": receiver.url}]))["uid"]
    await client.put(uid, state="finished")
    await receiver.until(2, clock)
    receiver.status = 200
    await receiver.until(4, clock)
    assert receiver.events() == ["queued", "finished"]
    numbers = [headers["X-Mashtun-Delivery"] for _, headers, _ in receiver.told]
    assert len(set(numbers)) == 2
    assert numbers == sorted(numbers)


async def test_a_receiver_that_is_away_hears_it_after_a_restart(tmp_path, receiver, clock, nursery):
    settings = Settings(data=str(tmp_path))
    new_database(tmp_path / "mashtun.db")
    away = socket.create_server(("127.0.0.1", 0))
    port = away.getsockname()[1]
    away.close()
    async with trio.open_nursery() as first:
        queue = JobQueue(settings, wall=clock, steady=clock)
        await first.start(queue.run)
        client = Client(Door(queue, settings))
        hooks = [{"url": f"http://127.0.0.1:{port}/"}, {"url": receiver.url}]
        await client.add(webhooks=hooks)
        await receiver.until(1)
        with trio.fail_after(30):
            while [each for each in await due(queue) if not each.tries]:
                await trio.sleep(0.01)
        first.cancel_scope.cancel()
    clock.now += 60
    queue = JobQueue(settings, wall=clock, steady=clock)
    await nursery.start(queue.run)
    other = HTTPServer(("127.0.0.1", port), BaseHTTPRequestHandler)
    other.timeout = 5
    await trio.to_thread.run_sync(other.handle_request)
    other.server_close()
    assert len(receiver.told) == 1


async def test_a_receiver_that_is_down_for_a_minute_hears_everything_in_order(start, receiver, clock, monkeypatch):
    monkeypatch.setattr(api.webhooks, "POLL", 0.005)
    client, queue = await start()
    away = socket.create_server(("127.0.0.1", 0))
    port = away.getsockname()[1]
    away.close()
    uid = (await client.add(webhooks=[{"url": f"http://127.0.0.1:{port}/hook"}]))["uid"]
    begun = clock.now
    for state in ("picked", "started", "render:dorender", "finished"):
        await client.put(uid, state=state)
    tries = 0
    with trio.fail_after(30):
        while clock.now < begun + 60:
            clock.now += 0.5
            await trio.sleep(0.01)
        while not tries:  # the first one holds up the others, and is tried now and then
            clock.now += 1
            tries = max([each.tries for each in await due(queue)], default=0)
    assert 3 < tries < 10
    back = Receiver(port)
    await back.until(5, clock)
    back.close()
    assert back.events() == ["queued", "picked", "started", "render:dorender", "finished"]


@pytest.fixture
def away():
    """A port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as there:
        return there.getsockname()[1]


async def noted(queue):
    """Returns when all that is due has been tried once: what failed is due later."""
    with trio.fail_after(30):
        while await due(queue, 1):
            await trio.sleep(0.01)


async def tried_of_twenty(client, queue, receiver, url):
    """Of twenty jobs whose webhooks fail, how many have been tried when all of several later ones are told theirs.

    What has been due longer is told first: with each of the later ones it was looked for.
    """
    for n in range(20):
        await client.add(webhooks=[{"url": url.format(n)}])
    with trio.fail_after(30):
        while len(await due(queue, 20)) == 20:
            await trio.sleep(0.01)
    for n in range(5):
        await client.add(webhooks=[{"url": receiver.url}])
        await receiver.until(n + 1)
    return 20 - len([each for each in await due(queue, 30) if each.url != receiver.url])


async def test_a_receiver_that_is_away_is_not_tried_for_all_that_it_is_to_be_told(start, receiver, clock, away):
    client, queue = await start()
    tried = await tried_of_twenty(client, queue, receiver, f"http://127.0.0.1:{away}/{{}}")
    assert 1 <= tried <= api.webhooks.SHARE
    back = Receiver(away)
    clock.now += 1  # as long as its first pause
    await back.until(20)
    back.close()


async def test_a_url_that_is_answered_with_errors_is_not_tried_for_all_that_it_is_to_be_told(start, receiver):
    client, queue = await start()
    tried = await tried_of_twenty(client, queue, receiver, f"{receiver.host}/broken?n={{}}")
    assert 1 <= tried <= api.webhooks.SHARE


async def test_a_receiver_that_took_something_begins_anew_when_it_is_away_again(start, clock, away, monkeypatch):
    monkeypatch.setattr(api.webhooks, "POLL", 0.02)
    client, queue = await start()
    for _ in range(3):
        await client.add(webhooks=[{"url": f"http://127.0.0.1:{away}/hook"}])
        await noted(queue)
        back = Receiver(away)
        clock.now += 1  # as long as its first pause
        await back.until(1)
        back.close()
        await noted(queue)


async def test_a_url_that_took_something_begins_anew_when_it_fails_again(start, receiver, clock):
    client, queue = await start()
    for n in range(3):
        receiver.status = 500
        await client.add(webhooks=[{"url": receiver.url}])
        await noted(queue)
        receiver.status = 200
        clock.now += 1  # as long as its first pause
        await receiver.until(2 * n + 2)
        await noted(queue)


def lengths(pauses, tries, now):
    """s that each pause lasts when every try fails as soon as it may be; and when the last is over, ms."""
    found = []
    for _ in range(tries):
        pauses.begin("a", now)
        begun = now
        while "a" in pauses.lasting(now):
            now += 500
        found.append((now - begun) / 1000)
    return found, now


def test_a_pause_is_twice_as_long_as_the_one_before_up_to_the_longest():
    pauses = api.webhooks.Pauses()
    assert lengths(pauses, 11, 0)[0] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]


def test_a_try_that_fails_in_a_pause_does_not_make_it_longer():
    pauses = api.webhooks.Pauses()
    for now in (0, 0, 999):
        pauses.begin("a", now)
    assert pauses.lasting(999) == {"a"}
    assert pauses.lasting(1000) == set()
    assert lengths(pauses, 1, 1000)[0] == [2]


def test_who_fails_long_after_its_pause_fails_for_the_first_time():
    pauses = api.webhooks.Pauses()
    _, over = lengths(pauses, 3, 0)
    found, over = lengths(pauses, 1, over + 300_000)
    assert found == [8]
    assert lengths(pauses, 1, over + 300_001)[0] == [1]


def test_who_has_taken_something_is_left_alone_no_more_and_fails_for_the_first_time():
    pauses = api.webhooks.Pauses()
    _, over = lengths(pauses, 3, 0)
    pauses.begin("a", over)
    pauses.end("a")
    assert pauses.lasting(over) == set()
    assert lengths(pauses, 1, over)[0] == [1]
    pauses.end("b")


def test_of_more_that_are_away_than_can_be_known_the_first_is_forgotten():
    pauses = api.webhooks.Pauses()
    for n in range(api.webhooks.MAX_AWAY):
        pauses.begin(str(n), 0)
    pauses.begin("0", 0)  # not the first any more
    pauses.begin("another", 0)
    assert pauses.lasting(0) == {str(n) for n in range(api.webhooks.MAX_AWAY) if n != 1} | {"another"}


async def test_a_clock_that_is_set_back_leaves_nobody_alone_for_longer(tmp_path, receiver, clock, nursery, monkeypatch):
    monkeypatch.setattr(api.queue, "SWEEP_EVERY", 0.01)
    new_database(tmp_path / "mashtun.db")
    settings, wall = Settings(data=str(tmp_path)), Clock()
    queue = JobQueue(settings, wall=wall, steady=clock)
    await nursery.start(queue.run)
    receiver.status = 500
    await Client(Door(queue, settings)).add(webhooks=[{"url": receiver.url}])
    await noted(queue)
    wall.now -= 60
    with trio.fail_after(30):
        while queue.now() > wall.now * 1000:
            await trio.sleep(0.01)
    receiver.status = 200
    for each in (wall, clock):
        each.now += 1  # as long as its first pause
    await receiver.until(2)


@pytest.mark.parametrize("failing", ["/broken", "/mute", "/", "", "?x=1"])
@pytest.mark.parametrize("other", ["/hook", "/broken/hook"])
async def test_a_url_that_fails_does_not_hold_up_another_one_of_its_host(start, receiver, failing, other):
    client, queue = await start()
    await client.add(webhooks=[{"url": receiver.host + failing}])
    await noted(queue)
    await client.add(webhooks=[{"url": receiver.host + other}])
    await receiver.until(1)


async def test_all_that_a_receiver_has_not_taken_for_a_day_is_given_up(start, clock, away, monkeypatch):
    monkeypatch.setattr(api.webhooks, "POLL", 0.02)
    client, queue = await start()
    for _ in range(3 * api.webhooks.SHARE):
        await client.add(webhooks=[{"url": f"http://127.0.0.1:{away}"}])
    await tried(queue)
    clock.now = NOW + 86_401
    for later in (0, 86_400):
        clock.now += later
        with trio.fail_after(30):
            while await due(queue, 1):
                await trio.sleep(0.01)


@contextmanager
def listening(answer):
    """The port of a receiver each of whose connections is given to a function, in a thread."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as server:

        def take():
            with suppress(OSError):
                while True:
                    threading.Thread(target=answer, args=(server.accept()[0],), daemon=True).start()

        threading.Thread(target=take, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def hang(connection):
    with connection, suppress(OSError):
        while connection.recv(1 << 16):
            pass


def drip(connection):
    with connection, suppress(OSError):
        connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
        while True:
            connection.sendall(b"y")
            time.sleep(0.05)


async def tried(queue):
    """Returns when one that is not taken yet has been tried."""
    with trio.fail_after(30):
        while not any(each.tries for each in await due(queue)):
            queue._wall.now += 1
            await trio.sleep(0.02)


@pytest.fixture
def looks(monkeypatch):
    """What the ledger was asked for, each time with these words."""
    asked, undelivered = [], Store.undelivered

    def counted(store, **words):
        asked.append(words)
        return undelivered(store, **words)

    monkeypatch.setattr(Store, "undelivered", counted)
    return asked


async def test_what_is_due_at_once_is_begun_at_once(start, looks, monkeypatch):
    monkeypatch.setattr(api.webhooks, "TIMEOUT", 3600)
    monkeypatch.setattr(api.webhooks, "SHARE", 20)
    client, _ = await start()
    connections = []
    with listening(connections.append) as port:
        await client.add(webhooks=[{"url": f"http://127.0.0.1:{port}/{n}"} for n in range(20)])
        with trio.fail_after(30):
            while len(connections) < 20:
                await trio.sleep(0.01)
    assert len(looks) < 20
    for each in connections:
        each.close()


async def test_last_tries_are_not_looked_for_with_all_news(start, receiver, away, looks, monkeypatch):
    monkeypatch.setattr(api.webhooks, "POLL", 3600)
    client, queue = await start()
    await tried_of_twenty(client, queue, receiver, f"http://127.0.0.1:{away}/{{}}")
    assert len([each for each in looks if each["left_out"].after is not None]) == 1


async def test_one_receiver_that_hangs_does_not_hold_up_others(start, receiver, monkeypatch):
    monkeypatch.setattr(api.webhooks, "TIMEOUT", 3600)
    client, _ = await start()
    with listening(hang) as port:
        for n in range(2 * api.webhooks.AT_ONCE):
            await client.add(webhooks=[{"url": f"http://127.0.0.1:{port}{'/?#'[n % 3]}{n}"}])
        await client.add(webhooks=[{"url": receiver.url}])
        await receiver.until(1)


async def test_a_few_receivers_that_hang_do_not_hold_up_others(start, receiver, monkeypatch):
    monkeypatch.setattr(api.webhooks, "TIMEOUT", 3600)
    monkeypatch.setattr(engine.fetch, "SILENCE", 3600)
    client, _ = await start()
    with ExitStack() as stack:
        ports = [stack.enter_context(listening(hang)) for _ in range(5)]
        for _ in range(api.webhooks.SHARE):
            await client.add(webhooks=[{"url": f"http://127.0.0.1:{port}"} for port in ports])
        await client.add(webhooks=[{"url": receiver.url}])
        await receiver.until(1)


async def test_many_receivers_that_hung_leave_half_of_the_places_to_others(start, receiver, clock, monkeypatch):
    monkeypatch.setattr(api.webhooks, "TIMEOUT", 0.2)
    monkeypatch.setattr(api.webhooks, "AT_ONCE", 4)
    client, queue = await start()
    with ExitStack() as stack:
        hooks = [{"url": f"http://127.0.0.1:{stack.enter_context(listening(hang))}"} for _ in range(5)]
        for hook in hooks:
            await client.add(webhooks=[hook])
        with trio.fail_after(30):
            while not all(each.tries for each in await due(queue)):
                await trio.sleep(0.02)
        for _ in range(20):
            await client.add(webhooks=hooks)
        clock.now += 5
        await client.add(webhooks=[{"url": receiver.url}])
        await receiver.until(1)
        untried = [each for each in await due(queue, 200) if not each.tries]
        assert len(untried) > 80  # of 100 that were due before it


async def test_a_name_that_is_not_resolved_keeps_no_more_than_its_receivers_share(start, receiver, clock, monkeypatch):
    monkeypatch.setattr(api.webhooks, "TIMEOUT", 0.05)
    resolve, waiting, over = socket.getaddrinfo, [], threading.Event()

    def unanswered(host, *args, **kwargs):
        if host != "silent.test":
            return resolve(host, *args, **kwargs)
        waiting.append(host)
        over.wait(30)
        raise socket.gaierror(socket.EAI_AGAIN, "no answer")

    monkeypatch.setattr(socket, "getaddrinfo", unanswered)
    client, _ = await start()
    try:
        for n in range(1, 21):
            await client.add(webhooks=[{"url": "http://silent.test/"}, {"url": receiver.url}])
            await receiver.until(n, clock)
            await trio.sleep(0.03)
            clock.now += 300
        assert len(waiting) <= api.webhooks.SHARE
    finally:
        over.set()


async def test_a_receiver_that_drips_is_given_so_much_time_and_no_more(start, monkeypatch):
    monkeypatch.setattr(api.webhooks, "TIMEOUT", 0.5)
    client, queue = await start()
    with listening(drip) as port:
        await client.add(webhooks=[{"url": f"http://127.0.0.1:{port}"}])
        await tried(queue)


async def test_private_addresses_are_told_nothing_of_jobs_that_strangers_may_post(start, receiver, caplog):
    client, queue = await start(insecure=True)
    caplog.set_level("INFO", "api.webhooks")
    await client.add(webhooks=[{"url": receiver.url}])
    await tried(queue)
    assert not receiver.told
    assert "127.0.0.1 is a private address" in caplog.text


async def test_a_receiver_may_have_an_address_of_version_6_and_no_port(start, caplog):
    client, queue = await start()
    caplog.set_level("INFO", "api.webhooks")
    await client.add(webhooks=[{"url": "http://[::1]/hook"}])
    await tried(queue)
    assert '"http://[::1]/hook": ' in caplog.text
    assert "not known" not in caplog.text


async def test_what_is_not_taken_for_a_day_is_given_up(start, receiver, clock):
    client, queue = await start()
    receiver.status = 500
    await client.add(webhooks=[{"url": receiver.url}])
    with trio.fail_after(30):
        while (clock.now < NOW + 86_400) or await due(queue):
            clock.now += 1800
            await trio.sleep(0.02)
    told = len(receiver.told)
    assert told > 1
    clock.now += 86_400
    assert not await due(queue)
    receiver.status = 200
    uid = (await client.add(webhooks=[{"url": receiver.url}]))["uid"]
    await receiver.until(told + 1)
    assert [json.loads(body)["job"]["uid"] for _, _, body in receiver.told[told:]] == [uid]


@contextmanager
def busy(ledger):
    """Nothing can be written to it."""
    with closing(sqlite3.connect(ledger, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


async def taken_but_not_noted(start, receiver, clock, caplog, times):
    """(client, queue): what was not taken at first is taken, and so often the ledger has refused to note it."""
    client, queue = await start()
    receiver.status = 500
    await client.add(webhooks=[{"url": receiver.url}])
    await receiver.until(1)
    await noted(queue)
    receiver.status = 200
    with busy(queue._path), trio.fail_after(30):
        clock.now += 1
        while caplog.text.count("the database does not take it") < times:
            await trio.sleep(0.01)
    return client, queue


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(api.schema, "BUSY_MS", 10)
    monkeypatch.setattr(api.webhooks, "FIRST_PAUSE", 0.01)


@pytest.mark.usefixtures("impatient")
async def test_what_is_taken_is_not_told_again_while_that_cannot_be_noted(start, receiver, clock, caplog):
    _, queue = await taken_but_not_noted(start, receiver, clock, caplog, times=3)
    await noted(queue)
    assert [status for status, *_ in receiver.told] == [500, 200]


@pytest.mark.usefixtures("impatient")
async def test_what_could_not_be_noted_is_when_anything_else_is(start, receiver, clock, caplog, monkeypatch):
    monkeypatch.setattr(api.webhooks, "_pause", lambda failures: 1000 if caplog.text == "" else 3_600_000)
    client, queue = await taken_but_not_noted(start, receiver, clock, caplog, times=1)
    await client.add()
    await noted(queue)
    assert [status for status, *_ in receiver.told] == [500, 200]
