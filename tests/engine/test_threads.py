"""Threads that give way: calls come back to who asked, in order of asking, and are never abandoned."""

import os
import threading
from pathlib import Path

import pytest
import trio

from engine.errors import Overloaded
from engine.threads import SLICE_NS, Threads, be_punctual, in_thread
from tests.threads import no_threads


async def test_a_call_gives_what_it_returns_and_what_it_raises():
    threads = Threads(2, name="test", nice=0)
    assert await threads.run(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        await threads.run(lambda: 1 // 0)
    threads.close()


async def test_there_are_at_most_so_many_and_they_give_way():
    threads, seen, together = Threads(2, name="test", nice=3), set(), threading.Barrier(2)

    def work():
        together.wait(5)
        seen.add((threading.get_native_id(), os.getpriority(os.PRIO_PROCESS, threading.get_native_id())))

    async with trio.open_nursery() as nursery:
        for _ in range(6):
            nursery.start_soon(threads.run, work)
    threads.close()
    own = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    assert len(seen) == 2
    assert {nice for _, nice in seen} == {own + 3}


async def test_a_cancellation_waits_for_the_call():
    threads, done = Threads(1, name="test", nice=0), []
    release = threading.Event()

    def work():
        release.wait(5)
        done.append(1)

    with trio.move_on_after(0) as scope:
        await threads.run(work)  # cancelled before it began: not even asked for
    assert scope.cancelled_caught
    assert not done
    async with trio.open_nursery() as nursery:
        nursery.start_soon(threads.run, work)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        release.set()
    assert done == [1]
    threads.close()


def test_nobody_waits_for_a_run_that_is_over():
    threads, release = Threads(1, name="test", nice=0), threading.Event()

    async def leave():
        with trio.CancelScope() as scope:
            scope.cancel()
            await threads.run(release.wait)

    trio.run(leave)
    release.set()
    threads.close()


def slice_of(thread):
    """The time slice that the kernel says a thread has, ns; None where it does not say."""
    path = Path(f"/proc/self/task/{thread}/sched")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return next((int(float(line.split(":")[1])) for line in lines if line.startswith("se.slice")), None)


def test_the_thread_with_the_clock_has_a_short_slice_and_its_threads_have_not():
    seen = {}

    def note(name):
        seen[name] = slice_of(threading.get_native_id())

    def run(call):
        thread = threading.Thread(target=call)
        thread.start()
        thread.join()

    def clock():
        seen["taken"] = be_punctual()
        note("clock")
        run(lambda: note("worker"))

    run(lambda: note("usual"))
    run(clock)
    if seen["usual"] is None:  # a kernel that does not say: at least nothing has gone wrong
        assert seen["taken"] in (True, False)
        return
    assert seen["clock"] == (SLICE_NS if seen["taken"] else seen["usual"])
    assert seen["worker"] == seen["usual"]


@pytest.mark.parametrize("of_its_own", [False, True])
async def test_who_needs_a_thread_waits_until_there_is_one(of_its_own):
    threads, results = Threads(1, name="test", nice=0), []

    async def ask():
        results.append(await (threads.run(lambda: 7) if of_its_own else in_thread(pow, 2, 3)))

    async with trio.open_nursery() as nursery, no_threads():
        nursery.start_soon(ask)
        await trio.sleep(0.1)
        assert not results
    assert results == [7 if of_its_own else 8]
    threads.close()


async def test_who_waits_for_a_thread_in_vain_is_told_so(autojump_clock):
    threads, limiter = Threads(1, name="test", nice=0), trio.CapacityLimiter(1)
    async with no_threads():
        with pytest.raises(Overloaded, match="no thread to be had"):
            await in_thread(pow, 2, 3, limiter=limiter)
        with pytest.raises(Overloaded, match="no thread to be had"):
            await threads.run(lambda: 7)
    assert limiter.borrowed_tokens == 0
    assert await in_thread(pow, 2, 3, limiter=limiter) == 8
    assert await threads.run(lambda: 7) == 7
    threads.close()


async def test_fewer_threads_than_were_wanted_do_it_all():
    threads, seen = Threads(2, name="test", nice=0), []
    await threads.run(lambda: None)
    async with no_threads(), trio.open_nursery() as nursery:
        for n in range(4):
            nursery.start_soon(threads.run, lambda n=n: seen.append(n))
    assert sorted(seen) == [0, 1, 2, 3]
    threads.close()


async def test_a_runtime_error_of_the_call_is_its_own():
    def call():
        raise RuntimeError("of the call")

    with pytest.raises(RuntimeError, match="of the call"):
        await in_thread(call)
