"""Threads that give way: calls come back to who asked, in order of asking, and are never abandoned."""

import os
import threading

import pytest
import trio

from engine.threads import Threads


async def test_a_call_gives_what_it_returns_and_what_it_raises():
    threads = Threads(2, nice=0)
    assert await threads.run(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        await threads.run(lambda: 1 // 0)
    threads.close()


async def test_there_are_at_most_so_many_and_they_give_way():
    threads, seen, together = Threads(2, nice=3), set(), threading.Barrier(2)

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
    threads, done = Threads(1, nice=0), []
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
    threads, release = Threads(1, nice=0), threading.Event()

    async def leave():
        with trio.CancelScope() as scope:
            scope.cancel()
            await threads.run(release.wait)

    trio.run(leave)
    release.set()
    threads.close()
