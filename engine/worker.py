"""A worker: takes jobs whose template is a RenderTree, one after the other, and says how it goes.

It decides when a job is taken, held and given back, and what its queue hears; it refuses to know where that is
(`engine.jobs.Queue`) and how a job is done (`engine.jobrun`).

Theory of operation
-------------------
A slot has a name of its own and one job at a time. From the pick on it reports every `LEASE`/3 seconds, news or not.
As soon as a report is not taken, or the queue says that the job is revoked, everything that runs for it is cancelled,
and nobody is told. A job that cannot be done is failed with one sentence; what a queue does not hear because it is
away is said again until it is back. When the worker itself is stopped, it gives its job back to the queue.

A job for which there is no room is failed too, since its own films may be what is too large. But no job is taken before
its folders could be written: a disk that is full, or not ours, would fail a whole queue within seconds, while others
could do it. What is on the way at that moment is failed; the rest stays queued, and the log says why. A job for which
the system has no process or no thread is given back, and the next one taken after a pause.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Final

import trio

from engine.child import Child
from engine.errors import EngineError, first_error, reason_of
from engine.fetch import Fetcher
from engine.jobdocument import DOCUMENT, KEPT
from engine.jobrun import JobRun, Library, Workshop, forget_old_runs
from engine.jobs import QUEUED, Assignment, Queue
from engine.template import Dialect
from engine.threads import in_thread

log = logging.getLogger(__name__)

LEASE: Final = 30.0  # seconds
WAIT: Final = 20.0  # seconds that a pick waits
AGAIN: Final = 1.0, 30.0  # seconds between two tries to reach a queue that is away, first and longest
GIVE_UP: Final = 3600.0  # seconds that the end of a job is told to a queue that is away
LAST_WORDS: Final = 1.0  # seconds to give a job back when the worker is stopped
SETTLED: Final = 2.0  # seconds without a missed tick until live mixers count as well again
TIDY_EVERY: Final = 600.0  # seconds, while there is always a job
TRIAL: Final = 1 << 20  # bytes; what a failed job has left free again must not do for the next one


class Worker:
    """One slot. `run` goes on until it is cancelled.

    name           its name in the queue, nobody else's.
    data           its folder: outputs/, work/, cache/, images/.
    busy           whether renders should wait: live mixers lag.
    tags           only jobs with one of these; "" = any.
    allow_private  fetch from private addresses too, and send there.
    writable       folders beside outputs/ that actions may write to; None: anywhere.
    child          the module that renders: see engine.child.
    dialects       of documents that are no RenderTrees; the child must know them.
    keeps          whether films stay in outputs/; else the queue's `finish` must have taken them.
    library        opens the documents that are kept here, ``mash:ID``; None: their jobs are not picked.
    """

    def __init__(
        self,
        queue: Queue,
        name: str,
        *,
        data: Path,
        allow_private: bool = False,
        busy: Callable[[], bool] = lambda: False,
        tags: str = "",
        writable: Sequence[Path] | None = (),
        child: str = "engine.child",
        dialects: Sequence[Dialect] = (),
        library: Library | None = None,
        keeps: bool = True,
    ) -> None:
        # given
        self.name = name
        self._queue = queue
        self._tags = tags
        data = data.resolve()  # what is said of it must be true elsewhere
        # outputs/ may be a disk of its own, and small: any room at all
        self._tried = {data / "work": TRIAL} | ({data / "outputs": 1} if keeps else {})
        # owned by run()
        self._tidied = -math.inf
        self._shop = Workshop(
            data=data,
            fetcher=Fetcher(base=data, cache=data / "cache", allow_private=allow_private),
            child=Child(child),
            threads=trio.CapacityLimiter(1),
            busy=busy,
            writable=None if writable is None else (data / "outputs", *writable),
            dialects=dialects,
            library=library,
            keeps=keeps,
        )

    async def run(self) -> None:
        """Takes jobs until cancelled; whatever goes wrong, it goes on."""
        pause = AGAIN[0]
        try:
            while True:
                try:
                    await self._take()
                    pause = AGAIN[0]
                    continue
                except Exception as err:
                    known = first_error(err)
                    if isinstance(known, EngineError | OSError):  # of its disk, or of a system that is out of something
                        place = getattr(known, "filename", None)
                        log.warning("worker %s: %s%s", self.name, f"{place}: " if place else "", reason_of(known))
                    else:
                        log.exception("worker %s: a bug", self.name)
                await trio.sleep(pause)
                pause = min(pause * 2, AGAIN[1])
        finally:
            await self._shop.child.close()

    async def _take(self) -> None:
        """The next job, if there is one soon. Raises OSError, first of all if none could be done here."""
        try:
            for folder, size in self._tried.items():
                await in_thread(try_folder, folder, size, limiter=self._shop.threads)
        except OSError:
            with suppress(OSError):  # what is said is why nothing can be written
                await self._tidy()  # it may be old copies that have filled it
            raise
        kinds = (DOCUMENT,) if self._shop.library is None else (DOCUMENT, KEPT)
        found = await self._queue.pick(self.name, kinds, tags=self._tags, lease=LEASE, wait=WAIT)
        if found is None:
            await self._shop.child.close()  # what it has loaded is not worth its memory
        else:
            await self._hold(found)
            if trio.current_time() < self._tidied + TIDY_EVERY:
                return
        await self._tidy()

    async def _tidy(self) -> None:
        """Removes copies that nobody wants any more, and what killed workers left. Raises OSError."""
        self._tidied = trio.current_time()
        await self._shop.fetcher.tidy()
        await in_thread(forget_old_runs, self._shop.data / "work", limiter=self._shop.threads)

    async def _hold(self, assignment: Assignment) -> None:
        """One job, from the pick to the last word."""
        is_over = False
        with trio.CancelScope() as holding:
            async with trio.open_nursery() as nursery:

                async def until_revoked() -> None:
                    while True:
                        with suppress(EngineError):  # the queue is away: what it wants is heard later
                            await self._queue.revoked(assignment)
                            break
                        await trio.sleep(AGAIN[0])
                    holding.cancel()

                async def live() -> None:
                    await trio.sleep(LEASE / 3)
                    while await self._reported(assignment, {}):
                        await trio.sleep(LEASE / 3)
                    holding.cancel()

                nursery.start_soon(until_revoked)
                nursery.start_soon(live)
                try:
                    await self._do(assignment)
                    is_over = True
                except Exception:  # the worker goes on: it must not ask for another job while it has this one
                    await self._insist(lambda: self._queue.report(assignment, {"state": QUEUED}))
                    is_over = True
                    raise
                finally:
                    if not is_over and not holding.cancel_called:
                        await self._give_back(assignment)
                nursery.cancel_scope.cancel()
        if not is_over:
            log.info("job %s: no longer ours", assignment.uid)

    async def _do(self, assignment: Assignment) -> None:
        """One job, and how it ended is told. Raises as `JobRun.run`."""
        job = JobRun(assignment, self._shop, tell=partial(self._reported, assignment))
        try:
            made = await job.run()
            problem = made if isinstance(made, str) else await self._finish(assignment, made)
            if problem:
                log.info("job %s: %s", assignment.uid, problem)
                await self._insist(lambda: self._queue.fail(assignment, problem))
        finally:
            await job.clear()

    async def _finish(self, assignment: Assignment, film: Path) -> str:
        """Tells it; returns why the queue does not take it."""
        return await self._insist(lambda: self._queue.finish(assignment, output=str(film)))

    async def _give_back(self, assignment: Assignment) -> None:
        with trio.CancelScope(shield=True), trio.move_on_after(LAST_WORDS), suppress(EngineError):
            await self._queue.report(assignment, {"state": QUEUED})  # or its lease will end

    async def _reported(self, assignment: Assignment, change: Mapping[str, object]) -> bool:
        """Whether the job is still ours, as far as is known."""
        try:
            return await self._queue.report(assignment, change)
        except EngineError as err:
            log.warning("job %s: not reported: %s", assignment.uid, err)
            return True

    async def _insist(self, say: Callable[[], Awaitable[Any]]) -> str:
        """Says it until the queue is there to hear it; returns why it will not."""
        pause, until = AGAIN[0], trio.current_time() + GIVE_UP
        while True:
            try:
                await say()
                return ""
            except EngineError as err:
                if not err.retry or trio.current_time() > until:
                    log.warning("worker %s: given up: %s", self.name, err)
                    return str(err)
                if pause == AGAIN[0]:
                    log.warning("worker %s: %s; again in %g s", self.name, err, pause)
                await trio.sleep(pause)
                pause = min(pause * 2, AGAIN[1])


def try_folder(folder: Path, size: int = 0) -> None:
    """Makes a folder and writes so many bytes there, which are gone again. Raises OSError: of that folder."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with TemporaryFile(dir=folder) as file:
            file.write(bytes(size))
    except OSError as err:
        raise OSError(err.errno, err.strerror, str(folder)) from err  # not of a file that nobody knows


class Lag:
    """Whether live mixers lag: what a `Worker` asks by `busy`.

    lagged  how many ticks they have missed so far, all together.
    """

    def __init__(self, lagged: Callable[[], int]) -> None:
        self._lagged = lagged
        self._last = lagged()
        self._until = -math.inf

    def __call__(self) -> bool:
        """True for `SETTLED` after a tick was missed; it must be asked more often than that to know."""
        now = trio.current_time()
        lagged = self._lagged()
        if lagged > self._last:
            self._until = now + SETTLED
        self._last = lagged  # less when a mixer has gone
        return now < self._until
