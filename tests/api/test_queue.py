"""The queue of jobs for who is in its process: workers learn what becomes of their jobs, and no clock ends one."""

import json
import re
import sqlite3
import sys
import time
from collections import Counter
from contextlib import ExitStack, aclosing, closing
from functools import partial
from random import Random

import pytest
import trio
from sqlalchemy import event, select

import api.queue
import api.schema
import api.transaction
import engine.threads
from api.nexrender import Door
from api.queue import JobQueue
from api.schema import jobs
from api.transaction import Change
from engine.config import Settings
from engine.errors import Overloaded
from engine.jobdocument import DOCUMENT, read
from engine.jobs import Queue
from tests.api.auditing import audit, created, new_database
from tests.api.door import BODY, NOW, Client, Clock
from tests.threads import no_threads


async def test_a_worker_in_this_process(start, clock):
    client, queue = await start()
    worker: Queue = queue
    await client.add(uid="theirs")
    await client.add(uid="ours", type="mash")
    held = await worker.pick("slot 1", [DOCUMENT])
    assert (held.uid, json.loads(held.job)["state"]) == ("ours", "picked")
    assert await worker.pick("slot 2", [DOCUMENT]) is None
    assert await worker.report(held, {"state": "started", "startedAt": "2026-01-01T00:00:00.000Z"})
    assert await worker.report(held, {"state": "render:dorender", "renderProgress": 7})
    assert await worker.report(held, {})
    assert (await client.status("ours"))["renderProgress"] == 7
    assert await worker.finish(held, output="ours/film.mp4")
    job = await client.job("ours")
    assert (job["state"], job["output"], job["finishedAt"]) == ("finished", "ours/film.mp4", "2023-11-14T22:13:20.000Z")
    assert not await worker.report(held, {"state": "render:dorender"})


async def test_a_failure_in_this_process(start):
    client, queue = await start()
    await client.add(uid="a", type="mash", maxAttempts=2)
    for state in ("queued", "error"):
        held = await queue.pick("slot", [DOCUMENT])
        assert await queue.fail(held, "boom")
        assert (await client.status("a"))["state"] == state
    assert (await client.job("a"))["error"] == "boom"


@pytest.mark.parametrize("how", ["cancel", "queue", "remove", "finish"])
async def test_a_worker_learns_at_once_that_a_job_is_no_longer_its_own(start, nursery, how):
    client, queue = await start()
    await client.add(uid="a", type="mash")
    held = await queue.pick("slot", [DOCUMENT])
    revoked = trio.Event()

    async def wait():
        await queue.revoked(held)
        revoked.set()

    nursery.start_soon(wait)
    await queue.report(held, {"state": "render:dorender", "renderProgress": 1})
    await trio.testing.wait_all_tasks_blocked(0.02)
    assert not revoked.is_set()
    if how == "remove":
        await client.ask("DELETE", "/api/v1/jobs/a")
    else:
        await client.put("a", state={"cancel": "error", "queue": "queued", "finish": "finished"}[how])
    with trio.fail_after(30):
        await revoked.wait()
        await queue.revoked(held)  # also for who asks later
    assert not await queue.report(held, {"state": "finished"})


async def test_a_lease_that_is_reported_on_lasts(start, clock, monkeypatch):
    monkeypatch.setattr(api.queue, "SWEEP_EVERY", 0.01)
    client, queue = await start()
    await client.add(uid="a", type="mash")
    held = await queue.pick("slot", [DOCUMENT], lease=10)
    for _ in range(3):
        clock.now += 9
        await trio.sleep(0.03)
        assert await queue.report(held, {})
    clock.now += 11
    with trio.fail_after(30):
        await queue.revoked(held)
    assert not await queue.finish(held, output="x")
    assert (await client.status("a"))["state"] == "queued"


def lease_of(queue, uid):
    with queue._store._database.read() as connection:
        return connection.scalar(select(jobs.c.lease).where(jobs.c.uid == uid))


async def heard_again(queue, uid):
    """Returns when whoever holds a job has time to report."""
    with trio.fail_after(30):
        while (lease := lease_of(queue, uid)) is not None and lease <= queue.now():
            await trio.sleep(0.01)


def stand_still(seconds):
    """Nothing else is done meanwhile, as if the process were stopped."""
    time.sleep(seconds)


async def test_who_was_not_heard_while_the_server_stood_still_keeps_the_job(start, clock, monkeypatch):
    monkeypatch.setattr(api.queue, "SWEEP_EVERY", 0.01)
    monkeypatch.setattr(api.queue, "LATE", 0.5)
    client, queue = await start()
    await client.add(uid="a", type="mash")
    held = await queue.pick("slot", [DOCUMENT], lease=10)
    clock.now += 42
    stand_still(1)
    await heard_again(queue, "a")
    assert await queue.report(held, {})


async def test_who_was_not_heard_while_the_database_was_locked_keeps_the_job(start, clock, monkeypatch, tmp_path):
    monkeypatch.setattr(api.queue, "SWEEP_EVERY", 0.01)
    monkeypatch.setattr(api.schema, "BUSY_MS", 50)
    client, queue = await start()
    await client.add(uid="a", type="mash")
    held = await queue.pick("slot", [DOCUMENT], lease=10)
    with closing(sqlite3.connect(tmp_path / "mashtun.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        clock.now += 9
        with pytest.raises(Overloaded):
            await queue.report(held, {})
        clock.now += 36
        other.execute("ROLLBACK")
    await heard_again(queue, "a")
    assert await queue.report(held, {})


@pytest.mark.parametrize("by", [120, -3600])
async def test_nothing_ends_because_the_clock_was_set(tmp_path, nursery, clock, monkeypatch, by):
    monkeypatch.setattr(api.queue, "SWEEP_EVERY", 0.01)
    steady = Clock()
    new_database(tmp_path / "mashtun.db")
    settings = Settings(data=str(tmp_path))
    queue = JobQueue(settings, wall=clock, steady=steady)
    await nursery.start(queue.run)
    client = Client(Door(queue, settings))

    def pass_by(seconds):
        clock.now += seconds
        steady.now += seconds

    await client.add(uid="held", timeout=100)
    await client.add(uid="failed", maxAttempts=2, retryDelay=5)
    await client.add(uid="later", notBefore=(NOW + 60) * 1000)
    held = await queue.pick("slot", None, lease=30)
    failed = await queue.pick("other", None, lease=30)
    assert await queue.fail(failed, "x")
    clock.now += by
    with trio.fail_after(30):
        while queue.now() != round(clock.now * 1000):
            await trio.sleep(0.01)
    pass_by(4)
    found = await queue.pick("other", None, lease=30)
    assert (found and found.uid) == ("later" if by > 0 else None)  # as its user said, by the time of day
    pass_by(2)
    assert (await queue.pick("third", None, lease=30, wait=20)).uid == "failed"
    for _ in range(4):
        assert await queue.report(held, {})
        pass_by(23)
    assert await queue.report(held, {})
    pass_by(3)
    with trio.fail_after(30):
        await queue.revoked(held)
    assert (await client.job("held"))["error"] == 'worker "slot" did not finish within 100 s'
    audit(queue._store)


@pytest.mark.parametrize(("before", "at_the_start"), [(3e7, 0), (0, -3e7), (0, 3e7), (-3e7, 0)])
async def test_a_wrong_time_of_day_before_or_at_the_start_keeps_no_job(
    tmp_path, clock, monkeypatch, before, at_the_start
):
    monkeypatch.setattr(api.queue, "SWEEP_EVERY", 0.01)
    steady = Clock()
    new_database(tmp_path / "mashtun.db")
    settings = Settings(data=str(tmp_path))
    clock.now = NOW + before
    async with trio.open_nursery() as nursery:
        queue = JobQueue(settings, wall=clock, steady=steady)
        await nursery.start(queue.run)
        client = Client(Door(queue, settings))
        await client.add(uid="held")
        await client.add(uid="failed", maxAttempts=2, retryDelay=5)
        await queue.pick("slot", None, lease=30)
        assert await queue.fail(await queue.pick("other", None, lease=30), "x")
        nursery.cancel_scope.cancel()

    clock.now = NOW + at_the_start
    async with trio.open_nursery() as nursery:
        queue = JobQueue(settings, wall=clock, steady=steady)
        await nursery.start(queue.run)
        clock.now = NOW  # the network has told it
        with trio.fail_after(30):
            while queue.now() != NOW * 1000:
                await trio.sleep(0.01)
            for each in (clock, steady):
                each.now += 31
            found = {(await queue.pick(name, None, lease=30, wait=20)).uid for name in ("third", "fourth")}
        assert found == {"held", "failed"}
        audit(queue._store)
        nursery.cancel_scope.cancel()


async def test_of_many_workers_who_wait_for_the_same_one_looks_when_something_is_queued(start, nursery):
    client, queue = await start()
    begun = []
    event.listen(queue._store._database._writing, "begin", begun.append)
    for n in range(20):
        nursery.start_soon(partial(queue.pick, f"w{n}", None, tags="other", wait=1000))
    while len(begun) < 20:
        await trio.sleep(0.01)
    for _ in range(5):
        await client.add(tags="mine")
        await trio.testing.wait_all_tasks_blocked(0.02)
        assert await queue.pick("last", None, tags="nobodys") is None  # after all who were woken
    assert len(begun) <= 20 + 5 * 3
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("hung_up", [False, True])
async def test_who_was_woken_leaves_the_turn_to_the_next_one(start, nursery, hung_up):
    _, queue = await start()
    first, found, begun = trio.CancelScope(), [], []
    event.listen(queue._store._database._writing, "begin", begun.append)

    async def wait(name, scope):
        with scope:
            found.append((await queue.pick(name, None, wait=1000)).uid)

    for n, (name, scope) in enumerate((("first", first), ("second", trio.CancelScope())), 1):
        nursery.start_soon(wait, name, scope)
        while len(begun) < n:
            await trio.sleep(0.01)
        await trio.testing.wait_all_tasks_blocked(0.02)
    uids = ["a"] if hung_up else ["a", "b"]
    bodies = [read(json.dumps({**BODY, "uid": uid}).encode()) for uid in uids]
    _, changes = created(queue._store, bodies, now=queue.now())
    queue._tell(changes)
    if hung_up:
        first.cancel()
    with trio.fail_after(30):
        while len(found) < len(uids):
            await trio.sleep(0.01)
    assert sorted(found) == uids


TAGS = ("", "a", "b", "a,b")


@pytest.mark.parametrize("seed", range(6))
async def test_no_job_waits_while_a_worker_waits_who_asks_for_it(start, nursery, seed):
    client, queue = await start()
    random = Random(seed)
    waiting: dict[str, tuple[str, trio.CancelScope]] = {}
    taken = []

    async def work(name, tags, wait):
        with trio.CancelScope() as scope:
            waiting[name] = tags, scope
            found = await queue.pick(name, None, tags=tags, lease=3000, wait=wait)
            taken.extend([found.uid] if found else [])
            del waiting[name]
        waiting.pop(name, None)

    async def idle():
        """Whether each job that is queued is one that nobody waits for."""
        jobs = (await client.ask("GET", "/api/v1/jobs?state=queued")).json
        offered = [{"", *job["tags"].split(",")} for job in jobs]
        return not any(offer & set(tags.split(",")) for offer in offered for tags, _ in list(waiting.values()))

    for n in range(80):
        what = random.random()
        if what < 0.6:
            wait = 1000 if random.random() < 0.8 else 0.01
            nursery.start_soon(work, f"w{n}", random.choice(TAGS), wait)
        elif what < 0.8:
            many = [{**BODY, "tags": random.choice(TAGS)} for _ in range(random.randrange(1, 4))]
            nursery.start_soon(client.ask, "POST", "/api/v1/jobs", many)
        elif waiting:
            waiting[random.choice(sorted(waiting))][1].cancel()
        if random.random() < 0.5:
            await trio.sleep(random.choice((0, 0.002)))
        if n % 4 == 3:
            with trio.fail_after(30):
                while not await idle():
                    await trio.sleep(0.01)
    assert len(taken) == len(set(taken)) > 0
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("state", ["finished", "error"])
async def test_all_go_on_that_waited_for_one_job_while_others_ask(start, monkeypatch, state):
    monkeypatch.setattr(api.queue, "SWEEP_EVERY", 0.01)
    monkeypatch.setattr(api.queue, "PAUSE", 0.01)
    monkeypatch.setattr(api.transaction, "SWEEP", 2)
    client, queue = await start()
    await client.add(uid="parent")
    children = [(await client.add(uid=f"child{n}", after="parent"))["uid"] for n in range(9)]
    heard = []
    with queue.follow() as feed, trio.fail_after(30):
        await client.put("parent", state=state)
        while len(heard) < 10:
            heard += [(each.uid, each.state) for each in await feed.take()]
            await client.job("parent")
    then = "queued" if state == "finished" else "error"
    assert heard == [("parent", state), *((uid, then) for uid in children)]


async def test_slow_readers_hear_the_last_of_each_job(start):
    client, queue = await start()
    with queue.follow() as feed:
        await client.add(uid="a")
        await client.add(uid="b")
        await client.put("a", state="finished")
        with trio.fail_after(30):
            assert [(each.uid, each.state) for each in await feed.take()] == [("b", "queued"), ("a", "finished")]


async def test_the_last_change_of_each_job_is_heard_of_a_step_in_the_order_of_these(start):
    client, queue = await start()
    for uid in ("a", "b"):
        await client.add(uid=uid)
    for _ in range(2):
        assert await queue.pick("slot", None, lease=None)
    with queue.follow() as every, queue.follow("a") as one:
        assert (await queue.pick("slot", None)).uid == "a"  # who promised nothing has lost both by that
        with trio.fail_after(30):
            assert [(each.uid, each.state) for each in await every.take()] == [("b", "queued"), ("a", "picked")]
            assert [(each.uid, each.state) for each in await one.take()] == [("a", "picked")]


async def test_to_tell_one_follower_more_costs_the_same_whatever_the_number_of_changes(start):
    """All are told in one go, in the thread of the live mixes."""
    _, queue = await start()

    def calls(changes, followers):
        """Of functions, to tell them."""
        told = [Change(f"j{n}", "queued", 1, b"{}") for n in range(changes)]
        counts = Counter()
        with ExitStack() as stack:
            for n in range(followers):
                stack.enter_context(queue.follow())
                stack.enter_context(queue.follow(f"j{n}"))
            sys.setprofile(lambda _, event, __: counts.update([event]))
            try:
                queue._tell(told)
            finally:
                sys.setprofile(None)
        return counts["call"] + counts["c_call"]

    few, many = (calls(changes, 20) - calls(changes, 10) for changes in (20, 1020))
    assert many - few < 100  # of ten followers, for a thousand changes: what the interpreter does besides


async def test_a_follower_of_many_changes_gets_them_a_few_at_a_time(start):
    """Between two pieces others have their turn."""
    client, queue = await start()
    async with aclosing(client.door._news(None)) as pieces:
        await anext(pieces)
        queue._tell([Change(f"j{n}", "queued", 1, b'{"uid":"j%d"}' % n) for n in range(250)])
        got = [await anext(pieces) for _ in range(3)]
    assert [piece.count(b"\n\n") for piece in got] == [100, 100, 50]
    assert re.findall(rb"j\d+", b"".join(got)) == [b"j%d" % n for n in range(250)]


async def test_a_queue_without_a_thread_for_a_while_goes_on(start, monkeypatch):
    monkeypatch.setattr(api.queue, "SWEEP_EVERY", 0.01)
    client, queue = await start()
    async with no_threads():
        queue._courier.wake()
        await trio.sleep(0.2)
    assert (await client.add(uid="a"))["uid"] == "a"


async def test_a_queue_that_has_no_thread_at_all_says_so_and_goes_on(start, monkeypatch, caplog):
    monkeypatch.setattr(engine.threads, "PATIENCE", 0.05)
    monkeypatch.setattr(api.queue, "SWEEP_EVERY", 0.01)
    client, queue = await start()
    async with no_threads():
        queue._courier.wake()
        await queue.forget_parts(queue.outputs)
        with pytest.raises(Overloaded, match="no thread"):
            await queue.held()
        await trio.sleep(0.2)
    said = {record.getMessage() for record in caplog.records if record.levelname == "WARNING"}
    assert said == {f"{who}: no thread to be had" for who in ("jobs", "webhooks", "jobs: parts of outputs stay")}
    assert (await client.add(uid="a"))["uid"] == "a"
