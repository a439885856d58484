"""Kills a real server at a random moment, again and again, and looks at what is left.

`python -m tests.flows.killing [--trials 200] [--seed 1] [--folder DIR]`

Clients create, pick, report on, finish and remove jobs over HTTP, and note what they were answered; a worker in the
server renders some. Then the server is killed, its database looked through, and it is started again on the same folder.
Nothing that was answered may be lost; what has changed besides must be a request that was on its way. Jobs in the hands
of who is gone must come back when their lease is over, and all films are finished in the end.
"""

import argparse
import contextlib
import http.client
import json
import os
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import msgspec
from sqlalchemy import select

from api.schema import contents, jobs
from api.store import RUN_BITS, Store
from engine.jobs import Rules
from tests.api.auditing import audit
from tests.flows.live import PATIENCE, Server

CLIENTS = 4
LEASE = 1.0  # seconds
LONGEST = 0.3  # seconds from the first answers to the kill
FILM_LIMIT = 12  # so many at most: they outlive trials
QUEUED, PICKED, RENDERING, FINISHED, REMOVED = "queued", "picked", "render:dorender", "finished", "removed"
HELD = (PICKED, RENDERING)
RED = {"rootVideoNode": {"node": "SolidColorNode", "red": 1}}
FILM = {"src": "data:application/json," + quote(json.dumps(RED)), "composition": "*", "outputExt": "mp4"}
FILM |= {"width": 64, "height": 36, "frameRate": 10, "duration": 0.2}
PROJECT = {"src": "file:///a.aepx", "composition": "main"}


class Known(NamedTuple):
    """What was answered of a job, or found; `mark` is a number that its reports carry."""

    run: int
    state: str
    mark: int
    at: float  # when; of `time.monotonic`


class Asked(NamedTuple):
    """A request on its way: which job and what it is then, or who picks."""

    what: str
    uid: str = ""
    worker: str = ""
    known: Known | None = None


class Client(threading.Thread):
    """Asks until nobody answers any more; `asked` is then what nobody answered."""

    def __init__(self, number: int, port: int, seed: float, trial: int) -> None:
        super().__init__(daemon=True)
        self.name = f"{trial}-{number}"
        self.answered: list[tuple[str, Known]] = []
        self.counts: Counter[str] = Counter()
        self.asked: Asked | None = None
        self._chance = random.Random(seed)
        self._held: list[tuple[str, int]] = []
        self._films = 0
        self._count = 0
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        self.fault: BaseException | None = None

    def run(self) -> None:
        try:
            while True:
                steps = [self._create, self._create, self._pick, self._report, self._finish, self._remove]
                self._chance.choice(steps)()
        except (OSError, http.client.HTTPException):
            pass  # killed
        except BaseException as err:  # noqa: BLE001 - it is the main thread that fails
            self.fault = err
        finally:
            self._connection.close()

    def _ask(self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None):
        data = None if body is None else json.dumps(body).encode()
        self._connection.request(method, f"/api/v1{path}", data, headers or {})
        response = self._connection.getresponse()
        answer = json.loads(response.read() or b"null")
        assert response.status == 200, (method, path, response.status, answer)
        return answer, int(response.headers.get("Mashtun-Run", 0))

    def _note(self, what: str, uid: str, run: int, state: str, mark: int) -> None:
        self.answered.append((uid, Known(run, state, mark, time.monotonic())))
        self.counts[what] += 1
        self.asked = None

    def _create(self) -> None:
        self._count += 1
        uid = f"{self.name}-{self._count}"
        is_film = self._films * CLIENTS < FILM_LIMIT and self._chance.random() < 0.1
        self._films += is_film
        uid = f"film-{uid}" if is_film else uid
        self.asked = Asked("create", uid, known=Known(0, QUEUED, 0, 0))
        body = {"uid": uid, "template": FILM if is_film else PROJECT, "mark": 0, "maxAttempts": 1000, "mine": uid * 20}
        self._ask("POST", "/jobs", body)
        self._note("create", uid, 0, QUEUED, 0)

    def _pick(self) -> None:
        self._count += 1
        worker = f"{self.name}-{self._count}"
        promise = f"&lease={LEASE}" if self._chance.random() < 0.5 else ""
        self.asked = Asked("pick", worker=worker)
        job, run = self._ask("GET", f"/jobs/pickup?kind=project{promise}", headers={"nexrender-name": worker})
        if job:
            assert job["mine"] == job["uid"] * 20
            self._held.append((job["uid"], run))
            self._note("pick", job["uid"], run, job["state"], job["mark"])
        self.asked = None

    def _report(self) -> None:
        if self._held:
            self._put("report", *self._held[-1], RENDERING)

    def _finish(self) -> None:
        if self._held:
            self._put("finish", *self._held.pop(self._chance.randrange(len(self._held))), FINISHED)

    def _put(self, what: str, uid: str, run: int, state: str) -> None:
        self._count += 1
        self.asked = Asked(what, uid, known=Known(run, state, self._count, 0))
        job, now = self._ask("PUT", f"/jobs/{uid}?run={run}", {"state": state, "mark": self._count})
        if (now, job["state"]) == (run, state):
            self._note(what, uid, run, state, self._count)
        else:  # its lease was over before
            self._held = [each for each in self._held if each != (uid, run)]
        self.asked = None

    def _remove(self) -> None:
        if self._held and self._chance.random() < 0.3:
            uid, run = self._held.pop()
            self.asked = Asked("remove", uid)
            self._ask("DELETE", f"/jobs/{uid}")
            self._note("remove", uid, run, REMOVED, 0)


def newer(old: Known | None, new: Known) -> bool:
    """Whether an answer is of a later step of a job than another: two clients may tell theirs in any order."""
    order = [QUEUED, PICKED, RENDERING, FINISHED, REMOVED]
    places = [(each.state == REMOVED, each.run, order.index(each.state), each.at) for each in (old, new) if each]
    return len(places) == 1 or places[1] > places[0]


def found_in(path: Path) -> dict[str, tuple[Known, str]]:
    """(what it is, who has it) of every job of a database, which must be sound."""
    store = Store(path, rules=Rules())
    try:
        audit(store)
        with store._database.read() as connection:
            query = select(jobs.c.uid, jobs.c.run, jobs.c.state, jobs.c.executor, contents.c.content)
            rows = connection.execute(query.join(contents, contents.c.seq == jobs.c.seq)).all()
    finally:
        store.close()
    now, there = time.monotonic(), {}
    for uid, run, state, executor, content in rows:
        fields = msgspec.json.decode(content)
        assert fields["mine"] == uid * 20, uid
        there[uid] = Known(run, state, fields["mark"], now), executor or ""
    return there


def explained(uid: str, known: Known | None, found: Known | None, who: str, asked: list[Asked]) -> bool:
    """Whether a job may be as it was found: as was answered, or one step further that was on its way."""
    if found is None:
        return known is None or known.state == REMOVED or any(each[:2] == ("remove", uid) for each in asked)
    if known is None:
        return any(each[:2] == ("create", uid) for each in asked) and (uid[:5] == "film-" or nth(found.run) <= 1)
    if known.state == REMOVED:
        return False
    if uid.startswith("film-"):  # what its worker has done was told to nobody, but what was over stays so
        return known.state != FINISHED or found.state == FINISHED
    if known[:3] == found[:3]:
        return True
    if any(each.uid == uid and each.known is not None and each.known[:3] == found[:3] for each in asked):
        return True
    is_over = known.state in HELD and time.monotonic() - known.at >= LEASE
    if is_over and found.state == QUEUED:
        return True
    picked = found.state == PICKED and any(each.worker == who for each in asked if each.what == "pick")
    is_next = known.state == QUEUED and nth(found.run) == nth(known.run) + 1
    return picked and found.mark == known.mark and (is_over or is_next)


def nth(run: int) -> int:
    """Which one of its job a run is; 0: none yet."""
    return run % (1 << RUN_BITS)


class Trials:
    """All trials on one folder. `known` is what must be there."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.known: dict[str, Known] = {}
        self.counts: Counter[str] = Counter()
        self.late = [0.0]  # seconds that jobs came back after the end of their lease, or of the server's start
        self._chance = random.Random(seed)
        self._path = folder / "data" / "mashtun.db"
        self._killed_at = -LEASE

    def server(self) -> Server:
        """On the folder, with the jobs of who is gone back in the queue."""
        server = Server(self.folder, MASHTUN_PICK_LEASE=str(LEASE), MASHTUN_SILENCE=str(LEASE))
        due = max(self._killed_at + LEASE, time.monotonic())
        while any(not each["uid"].startswith("film-") for each in self._held(server)):
            assert time.monotonic() < due + PATIENCE, "jobs do not come back"
            time.sleep(0.02)
        if self._killed_at > 0:
            self.late.append(max(0.0, time.monotonic() - due))
        return server

    def _held(self, server: Server):
        return server.done("GET", f"/api/v1/jobs/status?state={','.join(HELD)},started")

    def run(self, number: int) -> None:
        """One trial. Raises AssertionError."""
        with self.server() as server:
            self._take_in(found_in(self._path))
            clients = [Client(n, server.port, self._chance.random(), number) for n in range(CLIENTS)]
            for client in clients:
                client.start()
            while not all(client.answered or client.fault for client in clients):
                time.sleep(0.001)
            time.sleep(self._chance.uniform(0, LONGEST))
            server.process.kill()
            self._killed_at = time.monotonic()
            server.wait()
            for client in clients:
                client.join(PATIENCE)
                assert client.fault is None, client.fault
                assert not client.is_alive()
        self._look(number, clients)

    def _take_in(self, there: dict[str, tuple[Known, str]]) -> None:
        """What a server that has begun makes of the jobs: those in the hands of who is gone are queued, no others."""
        for uid, known in self.known.items():
            found = there[uid][0]
            if not uid.startswith("film-"):
                wanted = (QUEUED, known.mark) if known.state in HELD else (known.state, known.mark)
                assert (found.state, found.mark) == wanted, (uid, known, found)
        self.known = {uid: found for uid, (found, _) in there.items()}

    def _look(self, number: int, clients: list[Client]) -> None:
        asked = [client.asked for client in clients if client.asked is not None]
        for client in clients:
            self.counts += client.counts
            for uid, known in client.answered:
                if newer(self.known.get(uid), known):
                    self.known[uid] = known
        there = found_in(self._path)
        for uid in {*self.known, *there}:
            found, who = there.get(uid, (None, ""))
            known = self.known.get(uid)
            if not explained(uid, known, found, who, asked):
                raise AssertionError(f"trial {number}: job {uid}: answered {known}, found {found} {who}; asked {asked}")
            if found is not None and (known is None or found[:3] != known[:3]):
                self.counts["unanswered, done"] += not uid.startswith("film-")
        self.counts["unanswered"] += len(asked)
        self.known = {uid: found for uid, (found, _) in there.items()}

    def finish(self) -> None:
        """All films are finished and whole."""
        with self.server() as server:
            films = [uid for uid in self.known if uid.startswith("film-")]
            end = time.monotonic() + PATIENCE + len(films)
            while any(each["uid"].startswith("film-") for each in self._unfinished(server)):
                assert time.monotonic() < end, "films are not finished"
                time.sleep(0.1)
            for uid in films:
                status, film = server.ask("GET", f"/api/v1/jobs/{uid}/output")
                assert (status, film[4:8]) == (200, b"ftyp"), (uid, status, film[:80])
            self.counts["films"] = len(films)

    def _unfinished(self, server: Server):
        return server.done("GET", "/api/v1/jobs/status?state=queued,picked,started,render:dorender,error")


def leftovers(folder: Path) -> list[int]:
    """Processes of servers of that folder that are gone, a while later."""
    mark = f"{MARK}={folder}".encode()
    end = time.monotonic() + PATIENCE
    while True:
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if mark in path.read_bytes().split(b"\0") and int(path.parent.name) != os.getpid():
                    found.append(int(path.parent.name))
        if not found or time.monotonic() > end:
            return found
        time.sleep(0.1)


MARK = "TRIALS_OF"


def kill_again_and_again(folder: Path, *, trials: int, seed: int) -> str:
    """One sentence of figures. Raises AssertionError when anything is lost."""
    began = time.monotonic()
    os.environ[MARK] = str(folder)  # children have it too
    try:
        all_trials = Trials(folder, seed)
        for number in range(trials):
            all_trials.run(number)
            if sys.stderr.isatty():
                print(f"\r{number + 1} of {trials}", end="", file=sys.stderr, flush=True)
        all_trials.finish()
        assert not (left := leftovers(folder)), left
    finally:
        del os.environ[MARK]
    counts = all_trials.counts
    told = ", ".join(f"{counts[each]} {each}" for each in ("create", "pick", "report", "finish", "remove"))
    took = time.monotonic() - began
    return (
        f"{trials} kills in {took:.0f} s: {told} answered, none lost; {counts['unanswered']} on their"
        f" way, {counts['unanswered, done']} of them done; {len(all_trials.known)} jobs, {counts['films']} films whole;"
        f" jobs came back at most {max(all_trials.late):.2f} s after their lease; no process left"
    )


def main() -> None:
    """From the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where the server's data is (default: a temporary folder)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mashtun-killing-") as folder:
        print(kill_again_and_again(options.folder or Path(folder), trials=options.trials, seed=options.seed))


if __name__ == "__main__":
    main()
