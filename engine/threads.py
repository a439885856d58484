"""Threads of one kind of work, which give way to others: decoders must not keep a mixer or its encoder waiting.

They decide in which thread a call runs and how much of a busy processor it gets; they refuse to know what it does.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, NamedTuple, TypeVar

import outcome
import trio

T = TypeVar("T")


class _Job(NamedTuple):
    call: Callable[[], Any]
    token: trio.lowlevel.TrioToken
    task: trio.lowlevel.Task


class Threads:
    """At most `count` threads, started when they are needed; what they do not come to waits, first in, first out.

    nice  how much they give way: each step is a share of the processor that is a fifth smaller, where others want it.

    It must be closed; calls that run then are finished.
    """

    def __init__(self, count: int, *, nice: int) -> None:
        self._count, self._nice = count, nice
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._started = self._busy = 0

    async def run(self, call: Callable[[], T]) -> T:
        """What `call` returns or raises, in one of the threads. It is never abandoned: a cancellation waits for it."""
        await trio.lowlevel.checkpoint_if_cancelled()
        self._busy += 1
        if self._started < min(self._busy, self._count):
            self._started += 1
            threading.Thread(target=self._work, name="decode", daemon=True).start()
        try:
            self._jobs.put(_Job(call, trio.lowlevel.current_trio_token(), trio.lowlevel.current_task()))
            result: T = await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.FAILED)
        finally:
            self._busy -= 1
        return result

    @property
    def is_busy(self) -> bool:
        """Whether a call would have to wait."""
        return self._busy >= self._count

    def close(self) -> None:
        """Lets the threads end."""
        for _ in range(self._started):
            self._jobs.put(None)

    def _work(self) -> None:
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + self._nice)
        while (job := self._jobs.get()) is not None:
            result = outcome.capture(job.call)
            try:
                job.token.run_sync_soon(trio.lowlevel.reschedule, job.task, result)
            except trio.RunFinishedError:
                return
            del job, result  # frames die with the last who knows them
