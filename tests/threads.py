"""A system that has no more threads, for a while: the limit of a container is reached, or memory is."""

import threading
from contextlib import asynccontextmanager

import trio

TOO_LARGE = 1 << 47  # bytes of a thread's stack: more than a process may address, so that none begins
IN_VAIN = 50  # attempts in a row, until those at work have come back and are taken too


@asynccontextmanager
async def no_threads():
    """No thread begins, and those that wait for work are taken; what has one of its own keeps it."""
    usual, over = threading.stack_size(), threading.Event()
    in_vain = 0

    async def take():
        nonlocal in_vain
        try:
            await trio.to_thread.run_sync(over.wait, limiter=trio.CapacityLimiter(1))
        except RuntimeError:
            in_vain += 1

    async with trio.open_nursery() as nursery:
        threading.stack_size(TOO_LARGE)
        try:
            while in_vain < IN_VAIN:
                nursery.start_soon(take)
                await trio.sleep(0.001)
            yield
        finally:
            threading.stack_size(usual)
            over.set()
