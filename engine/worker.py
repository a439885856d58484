"""A worker: takes jobs whose template is a RenderTree, renders each in a child process, and says how it goes.

It decides in which order a job's steps come and what a failure of each means; it refuses to know where the queue is
(`engine.jobs.Queue`), what a job's fields mean (`engine.template`, `engine.actions`), and how a render works.

Theory of operation
-------------------
A slot has a name of its own and one job at a time. From the pick on it reports every `LEASE`/3 seconds, news or not.
As soon as a report is not taken, or the queue says that the job is revoked, everything that runs for it is cancelled,
and nobody is told. A job that cannot be done is failed with one sentence; what a queue does not hear because it is
away is said again until it is back. When the worker itself is stopped, it gives its job back to the queue.

While `busy` says so, renders are stopped, for `LEAST_PAUSE` at least: their state is ``render:paused`` then.

What a job needs on the way is in ``work/RUN`` folders, and gone afterwards; its films are in ``outputs/UID``, or where
a kept document says. Where the queue takes the films away they are on the way too, and gone when it has them, when the
job has failed, and when it is no longer ours.
"""

from __future__ import annotations

import logging
import math
import re
import shutil
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import trio

from engine import template
from engine.actions import Actions, Film
from engine.child import Child
from engine.errors import EngineError, InvalidJob, Overloaded, SourceUnavailable
from engine.fetch import Fetcher, file_in, shown
from engine.jobs import DOCUMENT, KEPT, QUEUED, STARTED, Assignment, Queue, output_folder, stamp
from engine.template import EXTENSION, Dialect, Kept, Order, Scene, file_name, read_order

log = logging.getLogger(__name__)

LEASE: Final = 30.0  # seconds
WAIT: Final = 20.0  # seconds that a pick waits
AGAIN: Final = 1.0, 30.0  # seconds between two tries to reach a queue that is away, first and longest
GIVE_UP: Final = 3600.0  # seconds that the end of a job is told to a queue that is away
LAST_WORDS: Final = 1.0  # seconds to give a job back when the worker is stopped
LOOK_EVERY: Final = 0.2  # seconds between two looks whether live mixers lag
LEAST_PAUSE: Final = 1.0
SETTLED: Final = 2.0  # seconds without a missed tick until live mixers count as well again
LOG_TAIL: Final = 2000  # characters of a child's last words
LOG_LINES: Final = 5
BLOCK: Final = 4096  # bytes that a disk gives to a file at a time
TIDY_EVERY: Final = 600.0  # seconds, while there is always a job
OLDEST_WORK: Final = 8 * 86400.0  # seconds; no render takes longer
FILMS: Final = "films"  # a folder for what is being made
RENDERING: Final = "render:dorender"
PAUSED: Final = "render:paused"
MAX_BYTES: Final = 16 << 20  # of a document; a RenderTree may have less
T = TypeVar("T")
Library = Callable[[str], Awaitable[Kept]]


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
    wall           seconds since 1970.
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
        wall: Callable[[], float] = time.time,
    ) -> None:
        # given
        self.name = name
        self._dialects = dialects
        self._library = library
        self._keeps = keeps
        self._queue = queue
        self._data = data = data.resolve()  # what is said of it must be true elsewhere
        self._fetcher = Fetcher(base=data, cache=data / "cache", allow_private=allow_private)
        self._busy = busy
        self._tags = tags
        self._writable = None if writable is None else (data / "outputs", *writable)
        self._wall = wall
        # owned by run()
        self._child = Child(child)
        self._tidied = -math.inf
        self._threads = trio.CapacityLimiter(1)  # disk, and JSON that is large

    async def run(self) -> None:
        """Takes jobs until cancelled; whatever goes wrong, it goes on."""
        pause = AGAIN[0]
        try:
            while True:
                try:
                    await self._take()
                    pause = AGAIN[0]
                    continue
                except EngineError as err:
                    log.warning("worker %s: %s", self.name, err)
                except Exception:
                    log.exception("worker %s: a bug", self.name)
                await trio.sleep(pause)
                pause = min(pause * 2, AGAIN[1])
        finally:
            await self._child.close()

    async def _take(self) -> None:
        """The next job, if there is one soon."""
        kinds = (DOCUMENT,) if self._library is None else (DOCUMENT, KEPT)
        found = await self._queue.pick(self.name, kinds, tags=self._tags, lease=LEASE, wait=WAIT)
        if found is None:
            await self._child.close()  # what it has loaded is not worth its memory
        else:
            await self._hold(found)
            if trio.current_time() < self._tidied + TIDY_EVERY:
                return
        self._tidied = trio.current_time()
        await self._fetcher.tidy()
        await self._in_thread(_tidy, self._data / "work")

    async def _in_thread(self, call: Callable[..., T], *arguments: Any, **named: Any) -> T:
        return await trio.to_thread.run_sync(partial(call, *arguments, **named), limiter=self._threads)

    async def _hold(self, assignment: Assignment) -> None:
        """One job, from the pick to the last word."""
        task = _Task(self, assignment)
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
                    await task.run()
                finally:
                    if not task.is_over and not holding.cancel_called:
                        await self._give_back(assignment)
                nursery.cancel_scope.cancel()
        if not task.is_over:
            log.info("job %s: no longer ours", assignment.uid)

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
                await trio.sleep(pause)
                pause = min(pause * 2, AGAIN[1])


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


class _Task:
    """One run of one job."""

    def __init__(self, worker: Worker, assignment: Assignment) -> None:
        self.is_over = False
        self._worker = worker
        self._in_thread = worker._in_thread
        self._assignment = assignment
        self._job: dict[str, Any] = {}
        self._timings: dict[str, int] = {}
        folder = output_folder(assignment.uid)
        self._work = worker._data / "work" / f"{folder}.{assignment.run}"
        self._outputs = worker._data / "outputs" / folder if worker._keeps else self._work / "outputs"
        self._results = self._outputs

    async def run(self) -> None:
        """Does it and tells how it ended. Raises nothing but Cancelled."""
        queue, assignment = self._worker._queue, self._assignment
        await self._in_thread(_forget_runs_before, self._work)
        try:
            output, problem = await self._attempt()
            if self._worker._keeps or output is None:
                await self._clear()  # before it is told: a queue on the same disk may need the room
            if output is not None:
                problem = await self._worker._insist(lambda: queue.finish(assignment, output=str(output)))
            if problem:
                log.info("job %s: %s", assignment.uid, problem)
                await self._worker._insist(lambda: queue.fail(assignment, problem))
            self.is_over = True
        finally:
            await self._clear()

    async def _clear(self) -> None:
        with trio.CancelScope(shield=True):
            await self._in_thread(shutil.rmtree, self._work, ignore_errors=True)

    async def _attempt(self) -> tuple[Path | None, str]:
        """(the film, "") or (None, why there is none)."""
        try:
            return await self._do(), ""
        except BaseException as err:
            known = _first(err)
            if isinstance(known, EngineError):
                return None, str(known) or known.code
            if isinstance(known, OSError):
                return None, f"the worker's disk: {known.strerror or known}"
            if not isinstance(known, Exception):
                raise
            log.exception("job %s: a bug", self._assignment.uid)  # which must not end the worker
            return None, f"a bug of the worker: {type(known).__name__}"

    async def _do(self) -> Path:
        now = stamp(round(self._worker._wall() * 1000))
        await self._tell({"state": STARTED, "startedAt": now, "renderProgress": 0})
        await self._enter("render:setup")
        order, actions, films = await self._in_thread(self._read)
        await self._enter("render:predownload")
        await actions.run("predownload")
        await self._enter("render:download")
        scene = await self._download(order)
        await self._enter("render:postdownload")
        await actions.run("postdownload")
        await self._enter("render:prerender")
        await actions.run("prerender")
        await self._enter(RENDERING)
        made = await self._render(films, scene)
        await self._enter("render:postrender")
        self._job["output"] = str(made)
        output = await actions.run("postrender", made)
        await self._enter("render:cleanup")
        return output or made

    def _read(self) -> tuple[Order, Actions, list[Film]]:
        """What is to be done, and folders to do it in. Worker thread."""
        self._job = msgspec.json.decode(self._assignment.job, type=dict[str, Any]) | self._job
        order = read_order(self._job)
        actions = Actions(
            self._job,
            order,
            folder=self._outputs,
            fetcher=self._worker._fetcher,
            writable=self._worker._writable,
        )
        films = actions.films(order)
        for folder in (self._work / FILMS, self._outputs):
            folder.mkdir(parents=True, exist_ok=True)
        return order, actions, films

    async def _tell(self, change: dict[str, object]) -> None:
        self._job |= change
        await self._worker._reported(self._assignment, change)

    async def _enter(self, phase: str) -> None:
        """Notes when a phase began. Only that of rendering is told at once: of the others nobody is waiting to hear."""
        self._timings[phase] = round(self._worker._wall() * 1000)
        if phase == RENDERING:
            await self._tell({"state": phase, "renderProgress": 0, "timings": dict(self._timings)})
        elif phase == "render:cleanup":
            await self._tell({"timings": dict(self._timings)})

    # Sources

    async def _download(self, order: Order) -> Scene:
        """The document and everything that it shows, here."""
        fetcher = self._worker._fetcher
        document, kept, beside = await self._document(order)
        files: list[str | None] = [None] * len(order.assets)
        async with trio.open_nursery() as nursery:

            async def fetch(n: int) -> None:
                asset = order.assets[n]
                extension = asset.extension or Path(asset.name).suffix
                path = await fetcher.fetch(
                    asset.src,
                    self._work,
                    f"asset-{n}",
                    extension=extension,
                    checksum=asset.checksum,
                    headers=asset.params.headers,
                )
                files[n] = str(path)

            for n, asset in enumerate(order.assets):
                if asset.src and asset.type != "data":
                    nursery.start_soon(fetch, n)
        reading = await self._in_thread(self._dialect, document)
        scene = await self._in_thread(reading.place, document, order, files)
        static = {
            name: path
            for asset, path in zip(order.assets, files, strict=True)
            if asset.type == "static" and path is not None
            for name in (asset.name, file_name(asset.src, "file"), asset.src)
        }
        places = dict(static)
        for n, name in enumerate(await self._in_thread(reading.unlocated, scene)):
            found = None if name in static else await self._find(name, n, kept, beside)
            if found is not None:
                places[name] = found
        return await self._in_thread(reading.locate, scene, places)

    def _dialect(self, document: bytes) -> Dialect:
        return next((each for each in self._worker._dialects if each.reads(document)), template)

    async def _document(self, order: Order) -> tuple[bytes, Kept | None, Path | None]:
        """The document; how it is kept, or the folder that it lies in. Raises NotFound."""
        if order.src[:5].lower() == "mash:" and self._worker._library is not None:
            kept = await self._worker._library(order.src)
            if kept.results is not None:
                self._results = Path(kept.results)
            return kept.document, kept, None
        path = await self._worker._fetcher.fetch(
            order.src,
            self._work,
            "template",
            extension="json",
            checksum=order.checksum,
            headers=order.params.headers,
            max_bytes=MAX_BYTES,
        )
        beside = path.parent if path.parent != self._work else None
        return await self._in_thread(path.read_bytes), None, beside

    async def _find(self, name: str, n: int, kept: Kept | None, beside: Path | None) -> str | None:
        """Where a source is that the document names itself. None: a pattern."""
        if name.startswith("pattern:"):
            return None
        if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+:", name):
            if kept is not None and not re.match("(https?|data):", name, re.IGNORECASE):
                raise SourceUnavailable(f'source "{shown(name)}" is no URL that may be fetched', where=shown(name))
            return str(await self._worker._fetcher.fetch_media(name, self._work, f"source-{n}"))
        data = self._worker._data
        folders = [Path(each) for each in kept.folders] if kept else [*filter(None, [beside]), data / "images", data]
        if path := await self._in_thread(file_in, folders, name, inside=kept is not None):
            return str(path)
        problem = "no file of its user" if kept else "neither an asset of the job nor a file"
        raise SourceUnavailable(f'source "{name[:200]}" is {problem}', where=name)

    # Rendering

    async def _render(self, films: Sequence[Film], scene: Scene) -> Path:
        """Makes all of it; returns the first of what was made."""
        document, folder = self._work / "scene.json", self._work / FILMS  # what is killed leaves its half here
        await self._in_thread(document.write_bytes, scene.tree)
        sources = [f"--source={name}={path}" for name, path in scene.sources.items()]
        made: list[Path] = []
        films = films[:1] if scene.several else [_named(film, scene) for film in films]
        for n, film in enumerate(films):
            options = [f"{key}={value}" for key, value in (scene.options | film.options).items()]
            target = folder if scene.several else folder / film.name
            arguments = [str(document), str(target), "--progress", "json", *options, *sources]
            await self._render_one(arguments, done=n, of=len(films))
            made += await self._in_thread(_move_all, folder, self._results)
        if scene.several:
            return self._results / str(self._job["result"]["outputs"][0]["file"])  # of many, their folder
        return made[0]

    async def _render_one(self, arguments: Sequence[str], *, done: int, of: int) -> None:
        child = self._worker._child
        words = self._work / "log"
        progress = _Progress()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._follow, progress, done, of)
            nursery.start_soon(self._pause, child)
            status = await child.run(arguments, log=words, report=progress.put)
            nursery.cancel_scope.cancel()
        if status == 0:
            if progress.result is not None:
                await self._tell({"result": progress.result})
            return
        last = await self._in_thread(_tail, words)
        if status < 0:
            how = f"the render was ended by {signal.Signals(-status).name}"
            raise Overloaded(f"{how}: {last}" if last else how)
        raise InvalidJob(last or f"the render ended with {status}")

    async def _follow(self, progress: _Progress, done: int, of: int) -> None:
        """Tells every new whole percent; the slower the queue, the fewer."""
        while True:
            share = await progress.take()
            await self._tell({"state": RENDERING, "renderProgress": math.floor(100 * (done + share) / of)})

    async def _pause(self, child: Child) -> None:
        """Stops the render while live mixers lag."""
        while True:
            await trio.sleep(LOOK_EVERY)
            if not self._worker._busy():
                continue
            await child.signal(signal.SIGSTOP)
            log.info("job %s: paused: live mixers lag", self._assignment.uid)
            before = self._job.get("state")
            await self._tell({"state": PAUSED})
            await trio.sleep(LEAST_PAUSE)
            while self._worker._busy():
                await trio.sleep(LOOK_EVERY)
            await child.signal(signal.SIGCONT)
            await self._tell({"state": before})


class _Progress:
    """How far a render is, for one reader who may be slow: the last word counts."""

    def __init__(self) -> None:
        self._percent = self._taken = 0
        self._news = trio.Event()
        self.result: object = None  # what the render says that it made

    def put(self, line: dict[str, Any]) -> None:
        """A report of the child."""
        self.result = line.get("result", self.result)
        done, total = line.get("done"), line.get("total")
        if isinstance(done, int) and isinstance(total, int) and total > 0:
            self._percent = min(100, 100 * done // total)
            if self._percent > self._taken:
                self._news.set()

    async def take(self) -> float:
        """The next share of 1 that is a percent more than the last one."""
        await self._news.wait()
        self._news = trio.Event()
        self._taken = self._percent
        return self._taken / 100


def _named(film: Film, scene: Scene) -> Film:
    """With the extension that is the document's own, where the job says none."""
    if scene.extension and film.name == f"result.{EXTENSION}":
        return Film(f"result.{scene.extension}", film.options)
    return film


def _move_all(folder: Path, target: Path) -> list[Path]:
    """Moves what is in a folder to another one, which is made; returns where it is, in order of name."""
    try:
        target.mkdir(exist_ok=True)
    except FileNotFoundError as err:
        raise InvalidJob("what it was rendered for has been deleted meanwhile") from err
    return [Path(shutil.move(each, target / each.name)) for each in sorted(folder.iterdir())]


def _tidy(folder: Path) -> None:
    """Removes what workers left that were killed."""
    old = time.time() - OLDEST_WORK
    for path in folder.glob("*"):
        with suppress(OSError):
            if path.stat().st_mtime < old:
                shutil.rmtree(path, ignore_errors=True)


def _forget_runs_before(work: Path) -> None:
    """Removes what earlier runs of the same job left in their folders: their workers were killed."""
    job, _, run = work.name.rpartition(".")
    for path in work.parent.glob("*"):
        name, _, number = path.name.rpartition(".")
        if name == job and number.isdecimal() and int(number) < int(run):
            shutil.rmtree(path, ignore_errors=True)


def _first(error: BaseException) -> BaseException:
    """What counts of what went wrong: the first that is no cancellation, if there is one."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    found = [_first(each) for each in error.exceptions]
    return next((each for each in found if isinstance(each, Exception)), found[0])


def _tail(path: Path) -> str:
    """The last words of a render, as one sentence; its files are called as in their folders, which nobody need know.

    URLs are without their users and passwords.

    Raises OSError: there are none, since nothing can be written.
    """
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return ""
    if not text:
        path.write_bytes(bytes(BLOCK))
    for folder in (path.parent / FILMS, path.parent):
        text = text.replace(f"{folder}/", "")
    lines = re.sub(r"//[^/\s]*@", "//", text[-LOG_TAIL:]).splitlines()
    return "; ".join(re.sub("^mashtun( render)?: ", "", line) for line in lines[-LOG_LINES:] if line.strip())
