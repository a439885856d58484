"""The queue of another server, over HTTP: what a worker on another machine talks to.

It decides how each step of a worker is asked for, and that a server that is away is an error that may go; it refuses to
know what a worker does between the steps. A job that takes long to come is held by signs of life meanwhile, and films
are sent before their job is finished.
"""

from __future__ import annotations

import http.client
import math
import os
import time
from collections.abc import Collection, Mapping
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote, urlencode

import msgspec
import trio

from engine.config import check_header
from engine.dial import Line, answer_of
from engine.errors import EngineError, InvalidJob, InvalidSpec, NotFound, SinkRejected, SinkUnavailable, reason_of
from engine.jobs import Assignment, failed, finished, is_held
from engine.threads import in_thread
from engine.urls import clear_parts, credentials, shown

PATIENCE: Final = 30.0  # seconds until there must be an answer
PICK_PATIENCE: Final = 1800.0  # until all of a job is here: 100 MiB at half a megabit a second
UPLOAD_SILENCE: Final = 600.0  # seconds in which nothing of a film is taken
UPLOAD_PATIENCE: Final = 21_600.0
MAX_ANSWER: Final = 128 << 20  # bytes; the server takes jobs of 100 MiB
LONGEST_WAIT: Final = 25.0  # seconds that the server keeps a pickup
LOOK_EVERY: Final = 1.0  # seconds between two looks whether a job is still ours


class RemoteQueue:
    """An `engine.jobs.Queue`. Every method raises SinkUnavailable while the server is away.

    url     of the server, ``http://host:port``, where it asks for them with its user and password; InvalidSpec if it
            is none.
    secret  of the server; InvalidSpec if no header can have it.
    """

    def __init__(self, url: str, *, secret: str = "") -> None:
        parts = clear_parts(url) if url.isprintable() else None
        if parts is None:
            raise InvalidSpec(f'server "{shown(url)}": its host or its port cannot be read', where="server")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidSpec(f'server "{shown(url)}" is not an http: or https: URL', where="server")
        check_header("secret", secret)
        self._host, self._secure = parts.hostname, parts.scheme == "https"
        self._port = parts.port or (443 if self._secure else 80)
        self._shown = f"[{self._host}]:{self._port}" if ":" in self._host else f"{self._host}:{self._port}"
        self._prefix = f"{parts.path.rstrip('/')}/api/v1"
        self._secret, self._credentials = secret, credentials(url)
        self._names: dict[tuple[str, int], str] = {}  # who picked a run of a job
        self._limiter = trio.CapacityLimiter(math.inf)  # the slots are few, and each asks for one thing at a time

    async def pick(
        self, worker: str, kinds: Collection[str], *, tags: str = "", lease: float = 30.0, wait: float = 0.0
    ) -> Assignment | None:
        """As `engine.jobs.Queue.pick`, but of one kind: the server is asked so."""
        (kind,) = kinds
        query = urlencode({"kind": kind, "lease": f"{lease:g}", "wait": f"{min(wait, LONGEST_WAIT):g}"})
        path = f"/jobs/pickup/{quote(tags)}" if tags else "/jobs/pickup"
        answer = await self._pick(f"{path}?{query}", worker, lease=lease, silence=wait + PATIENCE)
        job = self._object(answer)
        if "uid" not in job:
            return None
        assignment = Assignment(str(job["uid"]), int(answer.headers.get("mashtun-run", 0)), answer.body)
        self._names = {assignment_of: name for assignment_of, name in self._names.items() if name != worker}
        self._names[assignment.uid, assignment.run] = worker
        return assignment

    async def _pick(self, path: str, worker: str, *, lease: float, silence: float) -> _Answer:
        """The answer; from its head on the job in it is reported on."""
        head: dict[str, str] = {}
        failure: EngineError | None = None
        async with trio.open_nursery() as nursery:

            async def hold() -> None:
                while True:
                    await trio.sleep(lease / 3)
                    if "mashtun-job" in head:
                        coming = Assignment(unquote(head["mashtun-job"]), int(head["mashtun-run"]), b"")
                        with suppress(EngineError):  # what is wrong is heard by who asked for the job
                            await self.report(coming, {})

            nursery.start_soon(hold)
            try:
                asked = partial(self._ask, name=worker, patience=PICK_PATIENCE, silence=silence, head=head)
                answer = await asked("GET", path)
            except EngineError as err:  # a nursery would wrap it
                failure = err
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
        return answer

    async def report(self, assignment: Assignment, change: Mapping[str, object]) -> bool:
        """As `engine.jobs.Queue.report`."""
        path = f"/jobs/{quote(assignment.uid, safe='')}?run={assignment.run}"
        try:
            answer = await self._ask("PUT", path, body=msgspec.json.encode(change))
        except NotFound:
            return False
        state = str(self._object(answer).get("state"))
        is_ours = answer.headers.get("mashtun-run") == str(assignment.run)
        return is_ours and (is_held(state) or state == change.get("state"))

    async def finish(self, assignment: Assignment, *, output: str) -> bool:
        """As `engine.jobs.Queue.finish`; a film of this machine is sent there, after all that lies beside it.

        output  may be a folder too: of many files, none is the film.
        Raises  SinkRejected: a file is not here, or not for us.
        """
        if Path(output).is_absolute():
            film = Path(output)
            try:
                folder, files = await in_thread(_files_of, film)
            except OSError as err:
                raise _unread(film, err) from err
            for file in files:
                name = file.relative_to(folder).as_posix()
                place = await self._send(assignment, file, name)
                if place is None:
                    return False
                output = place if folder != film else place.removesuffix(f"/{name}")
        return await self.report(assignment, finished(output, self._now()))

    async def _send(self, assignment: Assignment, file: Path, name: str) -> str | None:
        """The place that a file has on the server now; None when the job is no longer ours."""
        query = urlencode({"run": assignment.run, "name": name})
        path = f"/jobs/{quote(assignment.uid, safe='')}/output?{query}"
        try:
            answer = await self._ask("PUT", path, body=file, patience=UPLOAD_PATIENCE)
        except NotFound:
            return None
        return None if answer.status == 409 else str(self._object(answer).get("output"))

    async def fail(self, assignment: Assignment, error: str) -> bool:
        """As `engine.jobs.Queue.fail`."""
        return await self.report(assignment, failed(error, self._now()))

    async def revoked(self, assignment: Assignment) -> None:
        """As `engine.jobs.Queue.revoked`."""
        name = self._names.get((assignment.uid, assignment.run))
        escaped = "".join(f"%{byte:02X}" for byte in assignment.uid.encode())  # "pickup" as it is would pick a job
        while True:
            await trio.sleep(LOOK_EVERY)
            try:
                answer = await self._ask("GET", f"/jobs/{escaped}/status")
            except NotFound:
                return
            status = self._object(answer)
            if status.get("jobExecutor") != name or not is_held(str(status.get("state"))):
                return

    def _object(self, answer: _Answer) -> dict[str, Any]:
        try:
            return msgspec.json.decode(answer.body, type=dict[str, Any])
        except msgspec.DecodeError as err:
            raise SinkUnavailable(f'server "{self._shown}" answers what is no JSON', where=self._shown) from err

    def _now(self) -> int:
        return round(time.time() * 1000)

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        body: bytes | Path | None = None,
        name: str = "",
        patience: float = PATIENCE,
        silence: float = UPLOAD_SILENCE,
        head: dict[str, str] | None = None,
    ) -> _Answer:
        """An answer that is whole within `patience`, never silent for longer than `silence`.

        head    is filled with the answer's headers as soon as they are here.
        Raises  NotFound, InvalidJob (the server does not take it), SinkUnavailable, SinkRejected (a file that is not
                here, or not for us); Overloaded: there is no thread.
        """
        headers = {"User-Agent": b"mashtun", "Connection": b"close", "Content-Type": b"application/json"}
        headers |= {name: value.encode() for name, value in self._credentials.items()}
        headers |= {"nexrender-secret": self._secret.encode()} if self._secret else {}
        headers |= {"nexrender-name": name.encode()} if name else {}
        line = Line(self._host, self._port, secure=self._secure, timeout=min(patience, silence))
        call = _Call(line, self._shown, method, self._prefix + path, headers, {} if head is None else head)
        try:
            with trio.fail_after(patience):
                answer = await in_thread(call.run, body, limiter=self._limiter, abandon_on_cancel=True)
        except trio.TooSlowError:
            sentence = f'server "{self._shown}": no answer within {patience:g} s'
            raise SinkUnavailable(sentence, where=self._shown) from None
        finally:
            call.close()
        if answer.status == 404:
            raise NotFound("job", path.split("/")[2].partition("?")[0])
        if answer.status in (400, 401, 403, 405, 413):
            raise InvalidJob(f"the server answers {answer.status}: {answer.body[:200].decode(errors='replace')}")
        if not (200 <= answer.status < 300 or answer.status == 409):
            raise SinkUnavailable(f'server "{self._shown}" answers {answer.status}', where=self._shown)
        return answer


def _files_of(output: Path) -> tuple[Path, list[Path]]:
    """(the folder of an output, every file in it, the output last); it may be the folder itself."""
    folder = output if output.is_dir() else output.parent
    beside = [path for path in sorted(folder.rglob("*")) if path.is_file() and path != output]
    return folder, beside if folder == output else [*beside, output]


def _unread(file: Path, err: OSError) -> SinkRejected | SinkUnavailable:
    """What to raise of a file of ours: SinkRejected where it is not there or not for us; whatever else it is may go, as
    a disk that hiccups and a process out of descriptors."""
    final = isinstance(err, FileNotFoundError | IsADirectoryError | PermissionError)
    return (SinkRejected if final else SinkUnavailable)(f'output "{file.name}": {reason_of(err)}', where=file.name)


class _Answer(msgspec.Struct, frozen=True):
    status: int
    headers: dict[str, str]
    body: bytes


class _Call:
    """One request. Worker thread, but `close`."""

    def __init__(
        self,
        line: Line,
        server: str,
        method: str,
        path: str,
        headers: Mapping[str, bytes],
        head: dict[str, str],
    ) -> None:
        self._line = line
        self._server = server  # as sentences call it: host:port
        self._method = method
        self._path = path
        self._headers = headers
        self._head = head

    def run(self, body: bytes | Path | None) -> _Answer:
        """Raises SinkUnavailable; SinkRejected as `_unread`."""
        if not isinstance(body, Path):
            return self._ask(body, {})
        try:
            file = body.open("rb")
        except OSError as err:
            raise _unread(body, err) from err
        with file:
            return self._ask(file, {"Content-Length": b"%d" % os.fstat(file.fileno()).st_size})

    def _ask(self, body: Any, headers: Mapping[str, bytes]) -> _Answer:
        try:
            return self._request(body, headers)
        except (OSError, http.client.HTTPException) as err:
            raise SinkUnavailable(f'server "{self._server}": {reason_of(err)}', where=self._server) from err

    def _request(self, body: Any, headers: Mapping[str, bytes]) -> _Answer:
        with (
            closing(self._line.open(self._line.addresses())) as connection,
            answer_of(connection, self._method, self._path, body, {**self._headers, **headers}) as answer,
        ):
            self._head |= {name.lower(): value for name, value in answer.getheaders()}
            content = answer.read(MAX_ANSWER + 1)
        if len(content) > MAX_ANSWER:
            raise OSError(f"answers more than {MAX_ANSWER} bytes")
        return _Answer(answer.status, self._head, content)

    def close(self) -> None:
        """Hangs up: the server keeps nothing for who does not listen."""
        self._line.close()
