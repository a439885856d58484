"""Threads of one kind of work, which give way to others: decoders must not keep a mixer or its encoder waiting.

They decide in which thread a call runs and how much of a busy processor it gets, and that the one with the clock need
not wait for it; they refuse to know what it does. A system that has no more threads has some again when others end:
whoever needs one to go on waits here for it.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Final, Generic, TypeVar, TypeVarTuple

import outcome
import trio

from engine.errors import Exhausted

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

PATIENCE: Final = 10.0  # seconds without any thread: others have ended some by then, or there is no hope
AGAIN: Final = 0.01  # seconds; a thread that another call has done with is there after less than a picture
NO_THREAD: Final = "can't start new thread"  # what Python's RuntimeError says; it has no class of its own

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


async def in_thread(
    call: Callable[[*Ts], T],
    *arguments: *Ts,
    limiter: trio.CapacityLimiter | None = None,
    abandon_on_cancel: bool = False,
) -> T:
    """As `trio.to_thread.run_sync`, for what must not end because there is no thread to be had for a moment.

    Raises Exhausted: there was none for PATIENCE.
    """
    hop = partial(trio.to_thread.run_sync, limiter=limiter, abandon_on_cancel=abandon_on_cancel)
    return await _when_there_is_one(lambda: hop(call, *arguments))


async def _when_there_is_one(run: Callable[[], Awaitable[T]]) -> T:
    until = trio.current_time() + PATIENCE
    while True:
        try:
            return await run()
        except RuntimeError as err:
            if str(err) != NO_THREAD:
                raise
            if trio.current_time() > until:
                raise Exhausted("no thread to be had") from err
        await trio.sleep(AGAIN)


class Pending(Generic[T]):
    """A call that waits for a thread, or runs in one. `over` is set when there is a result."""

    def __init__(self, call: Callable[[], T]) -> None:
        self.over = trio.Event()
        self._call: Callable[[], T] | None = call
        self._outcome: outcome.Outcome[T] | None = None

    async def result(self) -> T:
        """What the call returns or raises. It is never abandoned: a cancellation waits for it."""
        with trio.CancelScope(shield=True):
            await self.over.wait()
        assert self._outcome is not None
        return self._outcome.unwrap()

    def _run(self) -> None:
        call, self._call = self._call, None  # frames die with the last who knows them
        assert call is not None
        self._outcome = outcome.capture(call)


class Threads:
    """At most `count` threads, started when they are needed; what they do not come to waits, first in, first out.

    name      of each of them, for whoever looks at the process.
    nice      how much they give way: each step is a share of the processor that is a fifth smaller, where others want
              it.
    together  a thread takes all calls that wait and gives their results together: for short ones, whose way to the
              thread and back is most of the cost, and more where several threads want the interpreter.

    It must be closed; calls that run then are finished.
    """

    def __init__(self, count: int, *, name: str, nice: int, together: bool = False) -> None:
        self._count, self._name, self._nice, self._together = count, name, nice, together
        self._waiting: SimpleQueue[Pending[Any] | None] = SimpleQueue()
        self._started = self._busy = 0
        self._token: trio.lowlevel.TrioToken

    async def run(self, call: Callable[[], T]) -> T:
        """What `call` returns or raises, in one of the threads. It is never abandoned: a cancellation waits for it.

        Raises Exhausted: there was none for PATIENCE.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        return await (await self.begin(call)).result()

    async def begin(self, call: Callable[[], T]) -> Pending[T]:
        """Has it called as soon as a thread is free; waits only while there is none, and none can be started.

        Raises Exhausted: there was none for PATIENCE.
        """
        await _when_there_is_one(self._start)
        pending = Pending(call)
        self._busy += 1
        self._waiting.put(pending)
        return pending

    async def _start(self) -> None:
        """One more thread, if all are busy and there may be more. Raises RuntimeError: there is none at all."""
        if self._started >= min(self._busy + 1, self._count):
            return
        self._token = trio.lowlevel.current_trio_token()
        try:
            threading.Thread(target=self._work, name=self._name, daemon=True).start()
        except RuntimeError:
            if not self._started:
                raise
        else:
            self._started += 1

    def close(self) -> None:
        """Lets the threads end."""
        for _ in range(self._started):
            self._waiting.put(None)

    def _work(self) -> None:
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + self._nice)
        while taken := self._take():
            for pending in taken:
                pending._run()
            try:
                self._token.run_sync_soon(self._finish, taken)
            except trio.RunFinishedError:
                return
            del taken, pending

    def _take(self) -> list[Pending[Any]]:
        """One call, or all that wait; [] at the end."""
        taken = [self._waiting.get()]
        with suppress(Empty):
            while self._together and taken[-1] is not None:
                taken.append(self._waiting.get_nowait())
        if taken[-1] is None and len(taken) > 1:
            self._waiting.put(None)  # for the next time
        return [pending for pending in taken if pending is not None]

    def _finish(self, done: list[Pending[Any]]) -> None:
        for pending in done:
            pending.over.set()
        self._busy -= len(done)
