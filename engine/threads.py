"""Threads of one kind of work, which give way to others: decoders must not keep a mixer or its encoder waiting.

They decide in which thread a call runs and how much of a busy processor it gets, and that the one with the clock need
not wait for it; they refuse to know what it does.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Final, NamedTuple, TypeVar

import outcome
import trio

T = TypeVar("T")

SLICE_NS: Final = 100_000  # the shortest there is
_SCHED_SETATTR: Final = {"x86_64": 314, "aarch64": 274}  # numbers of the system call, which libc has no function for
_SCHED_ATTR: Final = struct.Struct("=IIQiIQQQ")  # size, policy, flags, nice, priority, runtime, deadline, period
_SCHED_OTHER: Final = 0
_RESET_ON_FORK: Final = 1


def be_punctual() -> bool:
    """Lets the calling thread run as soon as it has something to do, though only for a moment at a time.

    Linux 6.12 and later take a thread's time slice (sched_setattr(2), sched_runtime), and who has a shorter one comes
    before those who are at work. It needs no privilege and gives no larger share of the processor. Threads that this
    one starts have the usual slice. Returns whether the system has taken it; others go on as they are.
    """
    number = _SCHED_SETATTR.get(platform.machine())
    if number is None or platform.system() != "Linux":
        return False
    nice = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    wanted = _SCHED_ATTR.pack(_SCHED_ATTR.size, _SCHED_OTHER, _RESET_ON_FORK, nice, 0, SLICE_NS, 0, 0)
    return bool(ctypes.CDLL(None, use_errno=True).syscall(number, 0, wanted, 0) == 0)


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
