"""The queue of jobs as everybody in the process sees it: steps in threads, who waits is woken, what is over is swept.

It decides in which thread what is done and who hears of it; it refuses to know the rules (`engine.jobs`), the database
(`api.store`) and HTTP. It is an `engine.jobs.Queue` for workers in this process.

Time. Leases, timeouts and pauses are kept as times of day, but none of them ends because that was set: `now` goes with
a clock that nobody sets, and at each sweep follows the time of day, with all that is kept. A machine that slept is the
same. Before the start the time of day may have been another one, which nobody saw change: at the start what is kept is
brought as near as if it were set now, else a worker that is gone could keep its job for a year. Nor does a worker lose
its job because we did not hear it: after a sweep that is late (the process was stopped) and after a write that failed
(somebody else has the database), everybody has `GRACE` to report.

Waiting. A look for a job is a write, and many workers wait. Of those who wait for the same (the same pools) one looks
whenever something is queued, and the others wait for its turn, which it gives up however it leaves: with a job, without
one in time, or because its client hung up. The next one looks then if anything was queued since it looked last.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final, TypeVar
from weakref import WeakValueDictionary

import trio

from api.schema import READERS
from api.store import PAUSE, Delivery, Filter, LeftOut, Picked, Store
from api.transaction import Change
from api.webhooks import LONGEST_PAUSE, Courier
from engine.config import Settings
from engine.errors import EngineError, NotFound, Overloaded
from engine.jobdocument import KEPT, Document, kind_of, raw, tags_of
from engine.jobs import OLDEST, ORDERINGS, QUEUED, Assignment, Job, Rules, failed, finished, is_held, pools_asked
from engine.newest import Newest
from engine.threads import in_thread

log = logging.getLogger(__name__)

SWEEP_EVERY: Final = 1.0  # seconds
GRACE: Final = 30_000  # ms in which workers report again, after the start or whatever else kept them from it
LATE: Final = 5.0  # seconds between two sweeps, after which nobody may have been heard
JUMP: Final = 1.0  # seconds that the clock is set by; less is followed without a word
FILE: Final = "mashtun.db"
T = TypeVar("T")


def rules_of(settings: Settings) -> Rules:
    """The rules that settings ask for."""
    return Rules(
        pick_lease=round(settings.pick_lease * 1000),
        silence=round(settings.silence * 1000),
        unique_workers=settings.unique_workers,
    )


class JobQueue:
    """The jobs of one data folder. All is called in the Trio thread, while `run` runs.

    wall    seconds since 1970.
    steady  seconds of a clock that nobody sets.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        wall: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        # given
        self.outputs = Path(settings.data).resolve() / "outputs"  # what is said of it must be true elsewhere
        self._path = Path(settings.data) / FILE
        self._ordering = settings.ordering if settings.ordering in ORDERINGS else OLDEST
        if self._ordering != settings.ordering:
            log.warning('ordering "%s" is none of %s: %s', settings.ordering[:80], ", ".join(ORDERINGS), OLDEST)
        self._rules = rules_of(settings)
        self._has_workers = settings.worker > 0
        self._wall = wall
        self._steady = steady
        # owned by run()
        self._store: Store | None = None
        self._writer = trio.CapacityLimiter(1)
        self._disk = trio.CapacityLimiter(4)
        self._readers = trio.CapacityLimiter(READERS)
        # Who may post jobs is on this machine or has a password, but where the server was told to do without.
        self._courier = Courier(self, allow_private=settings.allow_private or not settings.insecure)
        self._feeds: dict[Newest[str, Change], str | None] = {}  # each of one job, or of every one
        self._queued = trio.Event()  # another one each time
        self._turns = WeakValueDictionary[frozenset[str], trio.Lock]()  # pools that are asked for → who looks there
        self._offset = wall() - steady()
        self._is_deaf = False  # somebody may not have been heard

    def now(self) -> int:
        """ms since 1970."""
        return round((self._steady() + self._offset) * 1000)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Opens the database, and keeps the queue going until cancelled. Raises InvalidSpec, SourceMalformed."""
        began = time.time()
        opened = partial(Store, self._path, rules=self._rules, ordering=self._ordering)
        self._store = await in_thread(opened, limiter=self._writer)
        try:
            await self._write(partial(Store.bring_near, now=self.now(), pause=round(LONGEST_PAUSE * 1000)))
            await self._write(lambda store: store.resume(until=self.now() + GRACE))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._sweep)
                nursery.start_soon(self._courier.run)
                nursery.start_soon(partial(self.forget_parts, self.outputs, before=began))
                task_status.started()
        finally:
            store, self._store = self._store, None
            with trio.CancelScope(shield=True):
                await in_thread(store.close, limiter=self._writer)

    async def _sweep(self) -> None:
        last = trio.current_time()
        while True:
            now = self.now()  # the same for all of it: we may be stopped anywhere
            self._is_deaf |= trio.current_time() - last > LATE
            last = trio.current_time()
            pause = SWEEP_EVERY
            try:
                now = await self._catch_up(now)
                if await self._read(partial(Store.is_due, now=now)):
                    lost, changes = await self._write(partial(Store.sweep, now=now))
                    for change in lost:
                        log.info("job %s: %s: its worker is gone", change.uid, change.state)
                    self._tell(changes)
                    pause = PAUSE  # there may be more
            except EngineError as err:
                log.warning("jobs: %s", err)
            await trio.sleep(pause)

    async def _catch_up(self, now: int) -> int:
        """Follows the time of day, and lets those report who may not have been heard. Returns what `now` is then."""
        ahead = self._wall() - self._steady() - self._offset
        by = 0 if abs(ahead) < JUMP else round(ahead * 1000)

        def resume(store: Store) -> None:
            store.resume(until=now + by + GRACE, by=by)
            self._offset += ahead  # before anybody else writes

        if by or self._is_deaf:
            await self._write(resume)
            self._is_deaf = False
        else:
            self._offset += ahead
        if by:
            log.info("jobs: the clock was set by %g s", by / 1000)
        return now + by

    async def _write(self, step: Callable[[Store], T]) -> T:
        if self._store is None:
            raise Overloaded("the queue is not running")
        try:
            return await in_thread(step, self._store, limiter=self._writer)
        except Overloaded:
            self._is_deaf = True
            raise

    async def _read(self, step: Callable[[Store], T]) -> T:
        if self._store is None:
            raise Overloaded("the queue is not running")
        return await in_thread(step, self._store, limiter=self._readers)

    def _tell(self, changes: Sequence[Change]) -> None:
        news: dict[str, Change] = {}
        for change in changes:
            news.pop(change.uid, None)
            news[change.uid] = change
        for feed, uid in self._feeds.items():
            if uid is None:
                feed.put_all(news)
            elif uid in news:
                feed.put(uid, news[uid])
        if any(change.state == QUEUED for change in changes):
            self._wake()
        if changes:
            self._courier.wake()

    def _wake(self) -> None:
        self._queued.set()
        self._queued = trio.Event()

    @contextmanager
    def follow(self, uid: str | None = None) -> Iterator[Newest[str, Change]]:
        """What changes from now on, of one job or of all."""
        feed = Newest[str, Change]()
        self._feeds[feed] = uid
        try:
            yield feed
        finally:
            del self._feeds[feed]

    # Clients

    async def create(
        self, bodies: Sequence[Document], *, creator: str, key: tuple[str, bytes] | None = None
    ) -> list[bytes]:
        """Makes jobs, as `Store.made`, and queues them, as `Store.add`.

        Raises Overloaded, too: nobody will ever be given one of them, see `check_workers`.
        """
        made = await self._read(lambda store: self._made(store, bodies, creator))
        texts, changes = await self._write(lambda store: store.add(made, now=self.now(), key=key))
        self._tell(changes)
        return texts

    def _made(self, store: Store, bodies: Sequence[Document], creator: str) -> list[tuple[Job, Document]]:
        """Worker thread. Raises InvalidJob, Overloaded."""
        made = store.made(bodies, creator=creator, now=self.now())
        if not self._has_workers and any(kind_of(body) == KEPT for body in bodies):
            self.check_workers()
        return made

    async def put(self, uid: str, change: Document, *, run: int | None = None) -> Picked:
        """As `Store.put`."""
        put, changes = await self._write(lambda store: store.put(uid, change, now=self.now(), run=run))
        self._tell(changes)
        return put

    async def remove(self, uid: str) -> None:
        """As `Store.remove`."""
        self._tell(await self._write(lambda store: store.remove(uid, now=self.now())))

    async def whole(self, uid: str) -> bytes:
        """As `Store.whole`."""
        return await self._read(lambda store: store.whole(uid))

    async def record(self, uid: str) -> Change:
        """As `Store.record`."""
        return await self._read(lambda store: store.record(uid))

    async def output(self, uid: str) -> object:
        """As `Store.output`."""
        return await self._read(lambda store: store.output(uid))

    async def page(
        self, which: Filter, *, after: int | None, limit: int, limit_bytes: int
    ) -> tuple[list[bytes], int | None]:
        """As `Store.page`."""
        return await self._read(lambda store: store.page(which, after=after, limit=limit, limit_bytes=limit_bytes))

    async def held(self) -> list[tuple[str, str]]:
        """As `Store.held`."""
        return await self._read(lambda store: store.held())

    def check_workers(self) -> None:
        """Whether this server has workers: no others are given what is kept here. Raises Overloaded."""
        if not self._has_workers:
            raise Overloaded("nothing is rendered here: the server has no workers of its own (--worker 0)")

    # Outputs

    async def forget_parts(self, folder: Path, *, before: float = math.inf) -> None:
        """Removes what is left in a folder of outputs that did not come whole.

        before  seconds since 1970: only what nobody has written to since.
        """
        forget = partial(_forget_parts, folder, before=before)
        try:
            await in_thread(forget, limiter=self._disk, abandon_on_cancel=True)
        except Overloaded as err:
            log.warning("jobs: parts of outputs stay: %s", err)

    # Workers: engine.jobs.Queue

    async def pick(
        self,
        worker: str,
        kinds: Collection[str] | None,
        *,
        tags: str = "",
        lease: float | None = 30.0,
        wait: float = 0.0,
    ) -> Assignment | None:
        """As `engine.jobs.Queue.pick`.

        kinds  None: any.
        lease  None: who picks promises nothing; see `engine.jobs.Rules`.
        """
        words = tags_of(tags) if tags else None
        renew = None if lease is None else round(lease * 1000)
        until = trio.current_time() + wait
        queued = self._queued  # before it looks: what is queued from now on counts
        look = partial(Store.pick, worker=worker, kinds=kinds, tags=words, renew=renew)
        found = await self._look(look)
        if found is not None or wait <= 0:
            return found
        with trio.move_on_at(until) as waiting:
            turn = self._turns.setdefault(frozenset(pools_asked(kinds, words)), trio.Lock())
            await turn.acquire()
        if waiting.cancelled_caught:
            return None
        try:
            while True:
                with trio.move_on_at(until):
                    await queued.wait()
                if trio.current_time() >= until:
                    return None
                queued = self._queued
                found = await self._look(look)
                if found is not None:
                    return found
        finally:
            turn.release()  # whatever it leaves for, the next one looks whether there is more

    async def _look(self, look: Callable[..., tuple[Picked | None, list[Change]]]) -> Assignment | None:
        picked, changes = await self._write(lambda store: look(store, now=self.now()))
        self._tell(changes)
        return None if picked is None else Assignment(picked.uid, picked.run, picked.job)

    async def report(self, assignment: Assignment, change: Mapping[str, object]) -> bool:
        """As `engine.jobs.Queue.report`."""
        try:
            document = {key: raw(value) for key, value in change.items()}
            _, changes = await self._write(
                lambda store: store.put(assignment.uid, document, now=self.now(), run=assignment.run)
            )
        except NotFound:
            return False
        self._tell(changes)
        return bool(changes)

    async def finish(self, assignment: Assignment, *, output: str) -> bool:
        """As `engine.jobs.Queue.finish`."""
        return await self.report(assignment, finished(output, self.now()))

    async def fail(self, assignment: Assignment, error: str) -> bool:
        """As `engine.jobs.Queue.fail`."""
        return await self.report(assignment, failed(error, self.now()))

    async def give_back(self, assignment: Assignment) -> bool:
        """Queues a job again that nobody has begun; that was no attempt."""
        return await self.report(assignment, {"state": QUEUED})

    async def revoked(self, assignment: Assignment) -> None:
        """As `engine.jobs.Queue.revoked`."""
        with self.follow(assignment.uid) as feed:
            try:
                changes = [await self.record(assignment.uid)]
            except NotFound:
                return
            while changes[-1].run == assignment.run and is_held(changes[-1].state):
                changes = await feed.take()

    # Webhooks: api.webhooks.Ledger

    def passed(self) -> int:
        """ms of a clock that nobody sets."""
        return round(self._steady() * 1000)

    async def undelivered(self, besides: Collection[int], limit: int, left_out: LeftOut) -> list[Delivery]:
        """As `Store.undelivered`."""
        due = partial(Store.undelivered, besides=besides, limit=limit, now=self.now(), left_out=left_out)
        return await self._read(due)

    async def delivered(self, delivery: Delivery) -> None:
        """As `Store.delivered`."""
        await self._write(lambda store: store.delivered(delivery, now=self.now()))

    async def deliver_again(self, delivery: Delivery, due: int) -> None:
        """As `Store.deliver_again`."""
        await self._write(lambda store: store.deliver_again(delivery, due=due, now=self.now()))


def _forget_parts(folder: Path, *, before: float) -> None:
    """Worker thread."""
    with suppress(OSError):  # a folder that goes meanwhile
        for path in folder.rglob(".*.part"):
            with suppress(OSError):
                if path.stat().st_mtime < before:
                    path.unlink()
