"""One run of one job: what it names is fetched, rendered in a child process, and given to its actions.

It decides in which order a job's steps come and what a failure of each means; it refuses to know where the queue is
(`engine.worker`), what a job's fields mean (`engine.template`, `engine.actions`), and how a render works.

While `busy` says so, renders are stopped, for `LEAST_PAUSE` at least: their state is ``render:paused`` then.

What a job needs on the way is in ``work/RUN`` folders, and gone afterwards; its films are in ``outputs/UID``, or where
a kept document says. Where the queue takes the films away they are on the way too, and gone when it has them, when the
job has failed, and when it is no longer ours. A folder is locked as long as its run has it: whose lock is free belongs
to nobody any more.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import re
import shutil
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import trio

from engine import template
from engine.actions import RESULT, Actions, Film, over
from engine.child import Child
from engine.errors import (
    TRY_AGAIN,
    EngineError,
    Exhausted,
    InvalidJob,
    Overloaded,
    SourceUnavailable,
    first_error,
    reason_of,
)
from engine.fetch import Fetcher, file_in
from engine.jobdocument import output_folder, stamp
from engine.jobs import STARTED, Assignment
from engine.sinks.file import sound_rates
from engine.sinks.partial import copy, sync, sync_names
from engine.template import EXTENSION, MAX_DOCUMENT, NAMES, Dialect, Kept, Order, Scene, read_order
from engine.threads import in_thread
from engine.urls import scheme_of, shown

log = logging.getLogger(__name__)

LOOK_EVERY: Final = 0.2  # seconds between two looks whether live mixers lag
LEAST_PAUSE: Final = 1.0
LOG_TAIL: Final = 2000  # characters of a child's last words
LOG_LINES: Final = 5
BLOCK: Final = 4096  # bytes that a disk gives to a file at a time
FILMS: Final = "films"  # a folder for what is being made
LOCK: Final = "lock"  # a file that is held while the folder is in use, by whatever process
OLDEST_WORK: Final = 8 * 86400.0  # seconds; no render takes longer
RENDERING: Final = "render:dorender"
PAUSED: Final = "render:paused"
T = TypeVar("T")
Library = Callable[[str], Awaitable[Kept]]


class Workshop(msgspec.Struct, frozen=True, kw_only=True):
    """What the jobs of one slot are done with, one after the other; see `engine.worker.Worker`."""

    data: Path
    fetcher: Fetcher
    child: Child
    threads: trio.CapacityLimiter  # disk, and JSON that is large
    busy: Callable[[], bool]
    writable: Sequence[Path] | None  # folders that actions may write to
    dialects: Sequence[Dialect]
    library: Library | None
    keeps: bool


class JobRun:
    """One run of one job; `clear` is called when all is over.

    tell  reports keys that change.
    """

    def __init__(
        self, assignment: Assignment, shop: Workshop, *, tell: Callable[[dict[str, object]], Awaitable[object]]
    ) -> None:
        self._assignment = assignment
        self._shop = shop
        self._report = tell
        self._job: dict[str, Any] = {}
        folder = output_folder(assignment.uid)
        self._work = shop.data / "work" / f"{folder}.{assignment.run}"
        self._outputs = shop.data / "outputs" / folder if shop.keeps else self._work / "outputs"
        self._results = self._outputs
        self._held = ExitStack()  # the lock of the folder

    async def run(self) -> Path | str:
        """The film, or why there is none. Raises OSError: nothing can be tidied before it, or after; Exhausted."""
        await self._in_thread(_forget_runs_before, self._work)
        made = await self._attempt()
        if self._shop.keeps or isinstance(made, str):
            await self.clear()  # before it is told: a queue on the same disk may need the room
        return made

    async def clear(self) -> None:
        """Removes what it needed on the way."""
        with trio.CancelScope(shield=True):
            self._held.close()  # first: some disks keep the folder of a file that is open
            await self._in_thread(shutil.rmtree, self._work, ignore_errors=True)

    async def _in_thread(self, call: Callable[..., T], *arguments: Any, **named: Any) -> T:
        return await in_thread(partial(call, *arguments, **named), limiter=self._shop.threads)

    async def _attempt(self) -> Path | str:
        try:
            return await self._do()
        except BaseException as err:
            known = first_error(err)
            if isinstance(known, Exhausted):  # which is no fault of the job's
                raise known from err
            if isinstance(known, EngineError):
                return str(known) or known.code
            if isinstance(known, OSError):
                subject = "the worker" if known.errno in (errno.EMFILE, errno.ENFILE) else "the worker's disk"
                return f"{subject}: {reason_of(known)}"
            if not isinstance(known, Exception):
                raise
            log.exception("job %s: a bug", self._assignment.uid)  # which must not end the worker
            return f"a bug of the worker: {type(known).__name__}"

    async def _do(self) -> Path:
        now = stamp(round(time.time() * 1000))
        await self._tell({"state": STARTED, "startedAt": now, "renderProgress": 0})
        await self._enter("render:setup")
        order, actions, films = await self._in_thread(self._read)
        await self._enter("render:predownload")
        await actions.run("predownload")
        await self._enter("render:download")
        scene = await self._download(order)
        if scene.several:
            actions.check_several(numbered=scene.numbered)
            films = films[:1]
        else:
            films = [_completed(film, scene) for film in films]
            actions.check_inputs(films)
        await self._enter("render:postdownload")
        await actions.run("postdownload")
        await self._enter("render:prerender")
        await actions.run("prerender")
        await self._enter(RENDERING)
        made = await self._render(films, scene)
        await self._enter("render:postrender")
        self._job["output"] = str(made)
        await actions.run("postrender", made)
        await self._enter("render:cleanup")
        return made

    def _read(self) -> tuple[Order, Actions, list[Film]]:
        """What is to be done, and folders to do it in. Worker thread."""
        self._job = msgspec.json.decode(self._assignment.job, type=dict[str, Any]) | self._job
        order = read_order(self._job)
        actions = Actions(
            self._job,
            order,
            folder=self._outputs,
            fetcher=self._shop.fetcher,
            writable=self._shop.writable,
        )
        films = actions.films(order)
        for folder in (self._work / FILMS, self._outputs):
            folder.mkdir(parents=True, exist_ok=True)
        lock = self._held.enter_context((self._work / LOCK).open("a+"))
        with suppress(OSError):  # there are disks without locks: what is left on them stays
            fcntl.flock(lock, fcntl.LOCK_SH)  # goes with the process, however that ends
        return order, actions, films

    async def _tell(self, change: dict[str, object]) -> None:
        self._job |= change
        await self._report(change)

    async def _enter(self, phase: str) -> None:
        """Notes when a phase began. Only that of rendering is told at once: of the others nobody is waiting to hear."""
        timings = self._job.get("timings", {}) | {phase: round(time.time() * 1000)}
        self._job |= {"state": phase, "timings": timings}
        if phase == RENDERING:
            await self._tell({"state": phase, "renderProgress": 0, "timings": timings})
        elif phase == "render:cleanup":
            await self._tell({"timings": timings})

    # Sources

    async def _download(self, order: Order) -> Scene:
        """The document and everything that it shows, here."""
        fetcher = self._shop.fetcher
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
        static = self._static(order, files)
        places = dict(static)
        for n, name in enumerate(await self._in_thread(reading.unlocated, scene)):
            found = None if name in static else await self._find(name, n, kept, beside)
            if found is not None:
                places[name] = found
        return await self._in_thread(reading.locate, scene, places)

    def _static(self, order: Order, files: Sequence[str | None]) -> dict[str, str]:
        """Where the ``static`` assets are, by all names of each; a file of the user's has its own, too."""
        found: dict[str, str] = {}
        for asset, path in zip(order.assets, files, strict=True):
            if asset.type == "static" and path is not None:
                lies = Path(path)
                names = asset.names() if lies.parent == self._work else (*asset.names(), lies.name)
                found |= dict.fromkeys(names, path)
        return found

    def _dialect(self, document: bytes) -> Dialect:
        return next((each for each in self._shop.dialects if each.reads(document)), template)

    async def _document(self, order: Order) -> tuple[bytes, Kept | None, Path | None]:
        """The document; how it is kept, or the folder that it lies in. Raises NotFound."""
        if order.src[:5].lower() == "mash:" and self._shop.library is not None:
            kept = await self._shop.library(order.src)
            if kept.results is not None:
                self._results = Path(kept.results)
            return kept.document, kept, None
        path = await self._shop.fetcher.fetch(
            order.src,
            self._work,
            "template",
            extension="json",
            checksum=order.checksum,
            headers=order.params.headers,
            max_bytes=MAX_DOCUMENT,
        )
        beside = path.parent if path.parent != self._work else None
        return await self._in_thread(path.read_bytes), None, beside

    async def _find(self, name: str, n: int, kept: Kept | None, beside: Path | None) -> str | None:
        """Where a source is that the document names itself. None: a pattern."""
        if name.startswith("pattern:"):
            return None
        if scheme_of(name):
            if kept is not None and not re.match("(https?|data):", name, re.IGNORECASE):
                raise SourceUnavailable(f'source "{shown(name)}" is no URL that may be fetched', where=shown(name))
            return str(await self._shop.fetcher.fetch_media(name, self._work, f"source-{n}"))
        data = self._shop.data
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
        orders: list[list[str]] = []
        for film in films:
            options = [f"{key}={value}" for key, value in film.options.items()]
            target = folder if scene.several else folder / film.name
            orders.append([str(document), str(target), "--progress", "json", *options, *sources])
        for n in range(1, len(films)):  # the first tells at once what is wrong with it, the others when it is done
            await self._render_one(films[n], [*orders[n], "--check"], done=0, of=len(films))
        made: list[Path] = []
        for n, film in enumerate(films):
            await self._render_one(film, orders[n], done=n, of=len(films))
            made += await self._in_thread(_move_all, self._work, self._results)
        if scene.several:
            return self._results / str(self._job["result"]["outputs"][0]["file"])  # of many, their folder
        return made[0]

    async def _render_one(self, film: Film, arguments: Sequence[str], *, done: int, of: int) -> None:
        child = self._shop.child
        words = self._work / "log"
        progress = _Progress(before=done, of=of)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._follow, progress)
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
        if status == TRY_AGAIN:
            raise Exhausted(last)
        raise InvalidJob(_in_its_words(last, film) or f"the render ended with {status}")

    async def _follow(self, progress: _Progress) -> None:
        """Tells every new whole percent; the slower the queue, the fewer."""
        while True:
            await self._tell({"state": RENDERING, "renderProgress": await progress.take()})

    async def _pause(self, child: Child) -> None:
        """Stops the render while live mixers lag."""
        while True:
            await trio.sleep(LOOK_EVERY)
            if not self._shop.busy():
                continue
            await child.signal(signal.SIGSTOP)
            log.info("job %s: paused: live mixers lag", self._assignment.uid)
            before = self._job.get("state")
            await self._tell({"state": PAUSED})
            await trio.sleep(LEAST_PAUSE)
            while self._shop.busy():
                await trio.sleep(LOOK_EVERY)
            await child.signal(signal.SIGCONT)
            await self._tell({"state": before})


class _Progress:
    """How far a render is, for one reader who may be slow: the last word counts.

    Of `of` renders so many as `before` are done already.
    """

    def __init__(self, *, before: int = 0, of: int = 1) -> None:
        self._before, self._of = before, of
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

    async def take(self) -> int:
        """The next percent of all the renders, as soon as this one is a percent further."""
        await self._news.wait()
        self._news = trio.Event()
        self._taken = self._percent
        return (100 * self._before + self._taken) // self._of


def _completed(film: Film, scene: Scene) -> Film:
    """With the extension and the options that are the document's own, where the job says none and the film has them."""
    is_unnamed = scene.extension and film.name == f"{RESULT}.{EXTENSION}"
    name = f"{RESULT}.{scene.extension}" if is_unnamed else film.name
    options = dict(scene.options)
    rates = sound_rates(name)
    if rates and int(options.get("--audio-rate", rates[0])) not in rates:
        del options["--audio-rate"]
    return msgspec.structs.replace(film, name=name, options=over(options, film.options))


def _in_its_words(sentence: str, film: Film) -> str:
    """What the render command says, but an option that it cannot read is called as it is in the job."""
    names = {**NAMES, "--size": "template", **film.parameters}  # which of the two sides it is, the sentence says
    return re.sub("^argument (--[a-z-]+)", lambda found: names.get(found[1], found[0]), sentence)


def _move_all(work: Path, target: Path) -> list[Path]:
    """Moves a run's films to a folder, which is made; returns where they are, in order of name.

    They get their names there when all of them are whole, also where the folder is on another disk; from then on they
    outlive a power cut, as the word that they are there will. Raises InvalidJob, OSError: nothing is left by halves,
    nor where it is cancelled.
    """
    try:
        target.mkdir(exist_ok=True)
    except FileNotFoundError as err:
        raise InvalidJob("what it was rendered for has been deleted meanwhile") from err
    beside = target / f".{work.name}"
    _forget_runs_before(beside)
    try:
        beside.mkdir(exist_ok=True)
        found = sorted((work / FILMS).iterdir())
        films = [Path(shutil.move(each, beside / each.name, copy_function=copy)) for each in found]
        for film in films:
            sync(film)
        made = [film.replace(target / film.name) for film in films]
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    for folder in (target, target.parent):
        sync_names(folder)
    return made


def _in(folder: Path) -> list[Path]:
    """What is in a folder, if there is one. Raises OSError, which `Path.glob` does not any more, since Python 3.13."""
    try:
        return list(folder.iterdir())
    except FileNotFoundError:
        return []


def _forget_runs_before(work: Path) -> None:
    """Removes what earlier runs of the same job left in their folders: their workers were killed."""
    job, _, run = work.name.rpartition(".")
    for path in _in(work.parent):
        name, _, number = path.name.rpartition(".")
        if name == job and number.isdecimal() and int(number) < int(run):
            shutil.rmtree(path, ignore_errors=True)


def forget_old_runs(folder: Path) -> None:
    """Removes what workers left that were killed; not what is in use, however old the time of day makes it.

    On a disk without locks nobody can tell, and all stays.
    """
    old = time.time() - OLDEST_WORK
    for path in _in(folder):
        with suppress(OSError):
            if path.stat().st_mtime < old:
                with (path / LOCK).open("a+") as lock:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)


def _tail(path: Path) -> str:
    """The last words of a render, as one sentence; its files are called as in their folders, which nobody need know.

    URLs are without their users and passwords.

    Raises OSError: there are none, since nothing can be written.
    """
    try:
        text = path.read_text(errors="replace")
    except FileNotFoundError:  # there was no room for a file either
        text = ""
    if not text:
        path.write_bytes(bytes(BLOCK))
    for folder in (path.parent / FILMS, path.parent):
        text = text.replace(f"{folder}/", "")
    lines = re.sub(r"//[^/\s]*@", "//", text)[-LOG_TAIL:].splitlines()  # in this order: a cut may be in a password
    return "; ".join(re.sub("^mashtun( render)?: ", "", line) for line in lines[-LOG_LINES:] if line.strip())
