"""Renders in a process of their own: started, listened to, stopped and continued, ended.

It decides how a render is kept apart from who asked for it, so that no crash of one reaches the other; it refuses to
know what is rendered and why.

Theory of operation
-------------------
`python -m engine.child`, or a module of somebody who can render more and calls `main`, loads what renders once and then
forks a process for each render, which costs 20 ms instead of half a second. It has one thread, or forking would not be
safe. Who uses it talks JSON lines: ``{"arguments": […], "log": path}`` begins a render as `engine.command.main` would,
``{"signal": n}`` is for the one that runs. Back come its reports and, when it is over, ``{"exit": status}``, negative
for a signal; or ``{"refused": why}``: there is no process to be had for it. Only this process sends signals to its
renders and only it waits for them, so none can reach a stranger of the same number. When who uses it is gone, the
render is killed, and when this process is gone itself, the kernel does it: nobody could end the render any more. All of
it yields to everybody else: niced, and the first to go when memory is short.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import msgspec
import trio

from engine import command
from engine.errors import Exhausted, reason_of

NICENESS: Final = 10
OOM_SCORE: Final = b"800"  # of 1000
GRACE: Final = 2.0  # seconds between SIGTERM and SIGKILL; a server is to end within 5
MAX_LINE: Final = 1 << 24
PR_SET_PDEATHSIG: Final = 1  # prctl(2)
LOADED: Final = ("engine.offline", "engine.sinks", "engine.sources")

Report = Callable[[dict[str, Any]], None]
Render = Callable[[Sequence[str]], int]


class Child:
    """One render after the other, in processes of their own. `run` may be called again when it has returned.

    module  what the process runs: it calls `main` with what renders.
    """

    def __init__(self, module: str = "engine.child") -> None:
        self._module = module
        self._process: trio.Process | None = None
        self._pending = bytearray()  # of a line that is not whole
        self._ordering = trio.Lock()

    async def run(self, arguments: Sequence[str], *, log: Path, report: Report) -> int:
        """Renders; returns the exit code, negative when a signal ended it.

        log     where its standard error goes.
        report  is called with each report of progress.
        Cancelled, it ends the render: SIGTERM, and after `GRACE` SIGKILL. Raises Exhausted: no process to be had.
        """
        async with self._ordering:
            await self._start()
            with trio.CancelScope(shield=True):  # an order of which half was sent cannot be taken back
                await self._send({"arguments": list(arguments), "log": str(log)})
        try:
            last = await self._until_exit(report)
        except BaseException:
            with trio.CancelScope(shield=True):
                await self._end()
            raise
        if "refused" in last:
            raise Exhausted(f"no process for a render: {last['refused']}")
        return int(last["exit"])

    async def signal(self, number: signal.Signals) -> None:
        """For the render that runs, or is being started; none: nothing happens."""
        async with self._ordering:
            await self._send({"signal": int(number)})

    async def close(self) -> None:
        """Ends the process that waits for the next render; `run` starts another one."""
        process, self._process = self._process, None
        self._pending.clear()
        if process is not None:
            with trio.CancelScope(shield=True):
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
                assert process.stdin is not None
                assert process.stdout is not None
                await trio.aclose_forcefully(process.stdin)
                await trio.aclose_forcefully(process.stdout)

    async def _start(self) -> None:
        if self._process is not None and self._process.poll() is None:
            return
        await self.close()
        # It imports from where we do, and not from whatever folder we were started in, which may have a queue.py.
        environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
        starting = partial(
            trio.lowlevel.open_process, stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0, env=environment
        )
        try:
            self._process = await starting([sys.executable, "-P", "-m", self._module])
        except OSError as err:
            raise Exhausted(f"no process for a render: {reason_of(err)}") from err

    async def _send(self, order: dict[str, Any]) -> None:
        if self._process is not None and self._process.stdin is not None:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):  # seen where it is read from
                await self._process.stdin.send_all(msgspec.json.encode(order) + b"\n")

    async def _until_exit(self, report: Report) -> dict[str, Any]:
        """The last word about a render."""
        while (line := await self._line()) is not None:
            if "exit" in line or "refused" in line:
                return line
            report(line)
        process = self._process
        assert process is not None
        await self.close()
        return {"exit": process.returncode or -int(signal.SIGKILL)}

    async def _line(self) -> dict[str, Any] | None:
        """The next object; None when the process is gone. What is no object is skipped."""
        assert self._process is not None
        assert self._process.stdout is not None
        while True:
            text, newline, rest = self._pending.partition(b"\n")
            if newline:
                self._pending = rest
                with suppress(msgspec.DecodeError):
                    return msgspec.json.decode(text, type=dict[str, Any])
                continue
            piece = await self._process.stdout.receive_some()
            if not piece or len(self._pending) > MAX_LINE:
                return None
            self._pending += piece

    async def _end(self) -> None:
        for number in (signal.SIGTERM, signal.SIGCONT):  # a stopped process hears nothing else
            await self.signal(number)
        with trio.move_on_after(GRACE):
            await self._until_exit(lambda _: None)
            return
        await self.signal(signal.SIGKILL)
        with trio.move_on_after(GRACE):
            await self._until_exit(lambda _: None)
            return
        await self.close()


# --- the process -----------------------------------------------------------------------------------------------------


class _Orders:
    """What comes on standard input. `waiting` are those that have come; `is_over` when no more will."""

    def __init__(self) -> None:
        self.waiting: deque[dict[str, Any]] = deque()
        self.is_over = False
        self._pending = b""

    def read(self) -> None:
        """Waits for some more."""
        piece = os.read(0, 1 << 16)
        self.is_over = not piece
        *lines, self._pending = (self._pending + piece).split(b"\n")
        self.waiting += [msgspec.json.decode(line, type=dict[str, Any]) for line in lines]


def main(render: Render = command.main, loaded: Sequence[str] = LOADED) -> int:
    """Renders what is asked for on standard input, one after the other, until that is closed.

    render  arguments → exit code.
    loaded  the modules that it needs: imported before the first, and not by each again.
    """
    os.nice(NICENESS)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_bytes(OOM_SCORE)
    with command.loading():
        for name in loaded:
            import_module(name)
    orders = _Orders()
    while not orders.is_over:
        while orders.waiting:
            order = orders.waiting.popleft()
            if "arguments" in order:
                _render(order, orders, render)
        orders.read()
    return 0


def _render(order: dict[str, Any], orders: _Orders, render: Render) -> None:
    """From the beginning to the end; ended as well when nobody is there any more."""
    forking = os.getpid()
    try:
        pid = os.fork()
    except OSError as err:
        _tell({"refused": reason_of(err)})
        return
    if pid == 0:
        _die_with(forking)
        _become(order, render)
    over = os.pidfd_open(pid)
    while not orders.is_over:
        while orders.waiting:
            os.kill(pid, orders.waiting.popleft().get("signal", 0))
        ready = select.select([0, over], [], [])[0]
        if over in ready:
            break
        orders.read()
    else:
        os.kill(pid, signal.SIGKILL)
    os.close(over)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if not orders.is_over:
        _tell({"exit": status})


def _tell(last: dict[str, Any]) -> None:
    """The last word about a render."""
    os.write(1, msgspec.json.encode(last) + b"\n")


def _die_with(parent: int) -> None:
    """This process is killed when the thread that forked it ends, which is all that its parent has."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))
    if os.getppid() != parent:  # it was gone before
        os._exit(1)


def _become(order: dict[str, Any], render: Render) -> None:
    """The render. Never returns."""
    code = 1
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), 2)
        code = render(order["arguments"])
    except SystemExit as err:
        code = err.code if isinstance(err.code, int) else 1
    finally:
        with suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    raise SystemExit(main())
