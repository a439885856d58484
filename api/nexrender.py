"""Door 3, jobs: what ``@nexrender/api`` and ``@nexrender/worker`` send, and what they may expect, under ``/api/v1``.

It decides routes, who may ask, and how answers look; it refuses to know what becomes of jobs (`engine.jobs`,
`api.queue`). It stands in front of the framework: paths are not decoded before they are matched, nothing redirects, and
what is not known is 404 or 405 with a sentence, because clients cannot read nexrender's own empty 204.

Beyond the dialect, unseen by its clients: filters and pages of the lists (``state``, ``type``, ``tag``, ``order``,
``limit``, ``cursor``), ``Idempotency-Key``, an array of jobs at once, pickups that wait, that are for a kind of jobs,
that give a lease of some seconds (``wait``, ``kind``, ``lease``; answered with the job's name and the run's number in
``Mashtun-Job``, percent-encoded, and ``Mashtun-Run``, which reports carry as ``run``: these are answered with the
status record alone), server-sent events, workers, output files.
"""

from __future__ import annotations

import codecs
import logging
import os
import re
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from email.message import Message as Head
from functools import partial
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Final, Literal
from urllib.parse import quote, unquote, urlencode, urlsplit

import msgspec
import trio
from werkzeug.exceptions import HTTPException

from api.asgi import (
    JSON,
    Answer,
    Headers,
    Message,
    Receive,
    Refusal,
    Request,
    Send,
    file_answer,
    json_answer,
    respond,
    text_answer,
    text_of,
    until_gone,
)
from api.auth import check_basic, is_from_elsewhere, is_same
from api.errors import status_of
from api.queue import JobQueue
from api.sse import COMMENT_EVERY, EVENT_STREAM, RETRY, STILL_HERE, message
from api.store import Filter, digest_of
from api.transaction import Change
from api.wire import Natural, Parameter, Route, whole_number
from engine.config import Settings
from engine.errors import EngineError, InvalidJob, NotFound, reason_of
from engine.fetch import file_in
from engine.jobdocument import DOCUMENT, PROJECT, Document, output_folder, read, stamp, tags_of, value_of, word
from engine.jobs import Assignment, is_held
from engine.strictjson import outside_strings
from engine.template import is_file_name
from engine.threads import in_thread

log = logging.getLogger(__name__)

PREFIX: Final = "/api/v1"
BINARY: Final = "application/octet-stream"
SECRET: Final = "nexrender-secret"
NAME: Final = "nexrender-name"
NOT_FOR_PAGES: Final = "pages of other sites may only ask with a secret"
MAX_BODY: Final = 100 << 20
MAX_JOBS: Final = 5000  # in one array: they are written in one go, some 0.2 ms each, while no other job is
# A job's JSON is read in one go, while nothing else runs, no mixer either: a million values take 0.1 s.
MAX_VALUES: Final = 1_000_000
MAX_OUTPUT: Final = 64 << 30
BODY_SECONDS: Final = 600.0
LARGE: Final = 256 << 10  # bytes; JSON of this size takes longer to read than a way to a thread
LIST_BYTES: Final = 16 << 20  # a longer list is sent as it is read
PAGE: Final = 1000
PAGE_BYTES: Final = 4 << 20
MESSAGES: Final = 100  # in one piece, 0.2 ms: all who follow make theirs before a live mix has its turn
LONGEST_WAIT: Final = 25.0  # seconds; a worker forgets a pickup after a minute, and loses what comes later
LEASES: Final = (1.0, 3600.0)
MAX_KEY: Final = 255
WORKERS: Final = 1000  # that are remembered
FOLDERS: Final = 1000  # of outputs, whose last run is remembered
# As nexrender's worker is called; up to 1.10 it has no name of its own, but that of what Node asks with.
WORKERS_AGENT: Final = re.compile(r".*nexrender-worker/|node-fetch/|(node|undici)$")
ALLOWED_HEADERS: Final = (
    "X-Requested-With,Access-Control-Allow-Origin,X-HTTP-Method-Override,Content-Type,Authorization,Accept,"
    f"{SECRET},{NAME}"
)
CORS: Final = (
    ("Access-Control-Allow-Origin", "*"),
    ("Access-Control-Allow-Credentials", "true"),
    ("Access-Control-Expose-Headers", "Link,Mashtun-Job,Mashtun-Run"),
)
# Text in any of these is text; Python knows codecs that are none, or slow.
CHARSETS: Final = re.compile(r"utf-|iso8859|ascii|cp\d+|koi8|gb|big5|euc_|shift_jis|latin")


class WorkerStatus(msgspec.Struct, rename="camel"):
    """Somebody who asked for jobs; `jobs` are the uids that it holds."""

    name: str
    address: str = ""
    user_agent: str = ""
    seen_at: str | None = None
    jobs: list[str] = []


class Uploaded(msgspec.Struct):
    """Where an output was put: what the job's `output` should be."""

    output: str
    bytes: int


Handler = Callable[[Request, str], Awaitable[Answer]]
AnyJob = dict[str, Any]
OneOrMore = AnyJob | list[AnyJob]
_JOB: Final = "/jobs/{uid}"
_WHICH: Final = (
    Parameter("state", str, "Of these states, with commas between them"),
    Parameter("type", str, "Of this type"),
    Parameter("tag", str, "With this tag"),
    Parameter("order", Literal["oldest", "newest"], "Which come first; the oldest if it is not said"),
    Parameter("limit", Annotated[int, msgspec.Meta(ge=1, le=10 * PAGE)], "So many; the header Link has the next ones"),
    Parameter("cursor", Natural, "Where they begin, from a header Link"),
)
_TAKING: Final = (
    Parameter("wait", float, f"So many seconds for a job, {LONGEST_WAIT:g} at most"),
    Parameter(
        "lease",
        float,
        "After so many seconds without a word from its worker it is queued again; "
        f"brought within {LEASES[0]:g}…{LEASES[1]:g}",
    ),
    Parameter(
        "kind",
        Literal[DOCUMENT, PROJECT],
        "Of this kind; if it is not said any, for nexrender's worker, and who asks by fetch of Node, a project",
    ),
    Parameter(NAME, str, "Who takes it", "header"),
)
_RUN: Final = Parameter("run", Natural, "The number of the worker's run, from the header Mashtun-Run")
_PUT_SAYS: Final = 'Lay keys over it; {"state": "queued"} renders it again, "error" cancels it'
_SENDING: Final = (
    _RUN._replace(required=True),
    Parameter("name", str, "Its path from the job's folder; output if it is not said"),
)
_KEY: Final = Parameter(
    "Idempotency-Key",
    Annotated[str, msgspec.Meta(max_length=MAX_KEY)],
    f"Asked again with the same one, of up to {MAX_KEY} characters, no job is made twice",
    "header",
)
# method, below the prefix, who answers, summary, request, response, parameters; of paths that fit, the first
_ROUTES: Final[tuple[tuple[Any, ...], ...]] = (
    ("GET", "/health", "_health", "ok", None, "text/plain"),
    ("POST", "/jobs", "_create", f"Queue a job, or an array of up to {MAX_JOBS}", OneOrMore, OneOrMore, (_KEY,)),
    ("GET", "/jobs", "_list", "Every job", None, list[AnyJob], _WHICH),
    ("GET", "/jobs/status", "_list", "Every job's state", None, list[AnyJob], _WHICH),
    ("GET", "/jobs/pickup", "_pickup", "Take the next job, or {}", None, AnyJob, _TAKING),
    ("GET", "/jobs/pickup/{tags}", "_pickup", "Take the next job with one of these tags", None, AnyJob, _TAKING),
    ("GET", "/events", "_events", "Server-sent events: what changes", None, EVENT_STREAM),
    ("GET", "/workers", "_list_workers", "Who asked for jobs, and who holds some", None, list[WorkerStatus]),
    ("GET", f"{_JOB}/status", "_status", "Its state", None, AnyJob),
    ("GET", f"{_JOB}/events", "_events", "Server-sent events: its state, and what changes", None, EVENT_STREAM),
    ("GET", f"{_JOB}/output", "_output", "Its film, or a range of it", None, "*/*"),
    ("PUT", f"{_JOB}/output", "_upload", "A remote worker's file, its film last", BINARY, Uploaded, _SENDING),
    ("GET", _JOB, "_fetch", "One job", None, AnyJob),
    ("PUT", _JOB, "_put", _PUT_SAYS, AnyJob, AnyJob, (_RUN,)),
    ("DELETE", _JOB, "_remove", "Forget it; its films stay", None, AnyJob),
)
_ALSO_HEAD: Final = ("_health", "_output")
ROUTES: Final = [Route(row[0], PREFIX + row[1], *row[3:]) for row in _ROUTES]


def in_front_of(
    app: Callable[..., Awaitable[None]], door: Callable[..., Awaitable[None]]
) -> Callable[..., Awaitable[None]]:
    """An application whose requests below `PREFIX` go to the door."""

    async def both(scope: Any, receive: Any, send: Any) -> None:
        asked = scope.get("path", "") if scope["type"] == "http" else ""
        await (door if asked == PREFIX or asked.startswith(f"{PREFIX}/") else app)(scope, receive, send)

    return both


class Door:
    """The routes, as an ASGI application."""

    def __init__(
        self, queue: JobQueue, settings: Settings, made: Callable[[str, str], Path | None] | None = None
    ) -> None:
        """made: gives the file that a job's `output` names, where the server made it elsewhere. In worker threads."""
        self._queue = queue
        self._settings = settings
        self._made = made
        self._disk = trio.CapacityLimiter(4)
        self._parsing = trio.CapacityLimiter(1)  # large bodies one after the other: each is in memory several times
        self._workers: dict[str, WorkerStatus] = {}  # the last seen last
        self._looked_through: dict[str, int] = {}  # uid → the run that has uploaded last
        self._routes: list[tuple[str, re.Pattern[str], Handler]] = [
            (method, re.compile(re.sub(r"{\w+}", "(.+)", path)), getattr(self, name))
            for given, path, name, *_ in _ROUTES
            for method in ([given, "HEAD"] if name in _ALSO_HEAD else [given])
        ]

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answers a request."""
        request = Request(scope, receive)
        answer = await self._answer(request)
        await respond(request, msgspec.structs.replace(answer, headers=[*CORS, *answer.headers]), send)

    async def _answer(self, request: Request) -> Answer:
        try:
            if request.method == "OPTIONS":
                return _preflight(request)
            if request.method != "GET" or request.path != f"{PREFIX}/health" or request.query:
                self._check(request)
            return await self._route(request)
        except Refusal as err:
            return text_answer(str(err), err.status, err.headers)
        except HTTPException as err:
            headers = [(name, value) for name, value in err.get_headers() if name != "Content-Type"]
            return text_answer(err.description or err.name, err.code or 500, headers)
        except EngineError as err:
            status = status_of(err, "nexrender")
            if status >= 500:
                log.warning("%s %s: %s", request.method, request.path[:200], err)
            return text_answer(str(err), status)
        except Exception:
            log.exception("%s %s: a bug", request.method, request.path[:200])
            return text_answer("Internal Server Error", 500)

    def _check(self, request: Request) -> None:
        """The secret, or where there is none, what all doors ask for, and that no page of another site asks.

        Such a page has no proof of its own then: a browser adds the password that it knows, or there is none.
        """
        secret = self._settings.secret
        if not secret:
            check_basic(self._settings, request.headers.get("authorization"))
            if is_from_elsewhere(request.headers):
                raise Refusal(403, NOT_FOR_PAGES)
        elif not is_same(request.headers.get(SECRET, ""), secret):
            raise Refusal(403, f"the header {SECRET} is missing or wrong")

    async def _route(self, request: Request) -> Answer:
        path = request.path.removeprefix(PREFIX)
        found = [(method, match, handle) for method, to, handle in self._routes if (match := to.fullmatch(path))]
        for method, match, handle in found:
            if method == request.method:
                return await handle(request, unquote(match[1]) if match.re.groups else "")
        missing = f"no route {request.method} {request.path[:200]}"
        if not found:
            raise Refusal(404, missing)
        raise Refusal(405, missing, [("Allow", ", ".join(dict.fromkeys(["OPTIONS", *(each[0] for each in found)])))])

    async def _health(self, request: Request, _: str) -> Answer:
        return text_answer("ok")

    # Clients

    async def _create(self, request: Request, _: str) -> Answer:
        key = request.headers.get("idempotency-key", "")
        if len(key) > MAX_KEY:
            raise InvalidJob(f"Idempotency-Key has {len(key)} characters, more than {MAX_KEY}", where="Idempotency-Key")
        found, digest = await self._read(request, is_named=bool(key))
        bodies = found if isinstance(found, list) else [found]
        if not bodies:
            raise InvalidJob("template is missing", where="$")
        if len(bodies) > MAX_JOBS:
            raise InvalidJob(f"{len(bodies)} jobs at once, more than {MAX_JOBS}", where="$")
        named = (key, digest) if key else None
        made = await self._queue.create(bodies, creator=_creator(request), key=named)
        return json_answer(b"[" + b",".join(made) + b"]" if isinstance(found, list) else made[0])

    async def _list(self, request: Request, _: str) -> Answer:
        which, after, limit = _asked(request)
        if limit is not None:
            rows, more = await self._queue.page(which, after=after, limit=limit, limit_bytes=LIST_BYTES)
            return json_answer(b"[" + b",".join(rows) + b"]", headers=_link(request, more))
        begin: list[bytes] = []
        size = 0
        while size < LIST_BYTES:
            rows, more = await self._queue.page(which, after=after, limit=PAGE, limit_bytes=PAGE_BYTES)
            begin += rows
            size += sum(map(len, rows))
            if more is None:
                return json_answer(b"[" + b",".join(begin) + b"]")
            after = more
        return Answer(body=self._rest(begin, which, after), kind=JSON)

    async def _rest(self, begin: list[bytes], which: Filter, after: int | None) -> AsyncGenerator[bytes]:
        """A list that is too long for memory: each job as it is when its turn comes."""
        yield b"[" + b",".join(begin)
        while after is not None:
            rows, after = await self._queue.page(which, after=after, limit=PAGE, limit_bytes=PAGE_BYTES)
            yield b"".join(b"," + row for row in rows)
        yield b"]"

    async def _fetch(self, request: Request, uid: str) -> Answer:
        return json_answer(await self._queue.whole(uid))

    async def _status(self, request: Request, uid: str) -> Answer:
        return json_answer((await self._queue.record(uid)).record or b"null")

    async def _put(self, request: Request, uid: str) -> Answer:
        change, _ = await self._read(request)
        if isinstance(change, list):
            raise InvalidJob("the body is not a JSON object", where="$")
        if "jobExecutor" in change:
            self._see(request, str(value_of(change, "jobExecutor")))
        put = await self._queue.put(uid, change, run=whole_number(request.argument, "run"))
        return json_answer(put.job, headers=[("Mashtun-Run", str(put.run))])

    async def _remove(self, request: Request, uid: str) -> Answer:
        await self._queue.remove(uid)
        await self._queue.forget_parts(self._queue.outputs / output_folder(uid))
        return json_answer(msgspec.json.encode({"id": uid, "removed": True}))

    async def _read(self, request: Request, *, is_named: bool = False) -> tuple[Document | list[Document], bytes]:
        """(what the body says, its digest if it `is_named` by a key). Raises Refusal: 400, 408, 413; InvalidJob."""
        body = await request.body(limit_bytes=MAX_BODY, seconds=BODY_SECONDS)
        reading = partial(_read, body, request.headers.get("content-type", ""), is_named=is_named)
        return reading() if len(body) < LARGE else await in_thread(reading, limiter=self._parsing)

    # Workers

    async def _pickup(self, request: Request, tags: str) -> Answer:
        # A GET that takes something: for an image, browsers do not tell a plain http: address whose page has it.
        if not self._settings.secret and request.headers.get("user-agent", "").startswith("Mozilla/"):
            raise Refusal(403, NOT_FOR_PAGES)
        worker = text_of(request.headers.get(NAME, "")) or _creator(request)
        self._see(request, worker)
        wait, lease = _seconds(request, "wait", 0, LONGEST_WAIT), _seconds(request, "lease", *LEASES)
        kinds = _kinds(request)
        if tags and not tags_of(tags):
            return json_answer(b"{}")
        found: Assignment | None = None
        is_told = False

        async def pick() -> None:
            nonlocal found, is_told
            found = await self._queue.pick(worker, kinds, tags=tags, lease=lease, wait=wait or 0)
            await trio.lowlevel.checkpoint()  # here a client that has hung up is noticed
            is_told = True

        await until_gone(request, pick)
        if found is None:
            return json_answer(b"{}")
        if not is_told:
            await self._queue.give_back(found)
        headers = [("Mashtun-Job", quote(found.uid, safe="")), ("Mashtun-Run", str(found.run))]
        return json_answer(found.job, headers=headers)

    def _see(self, request: Request, name: str) -> None:
        self._workers.pop(name, None)
        if len(self._workers) >= WORKERS:
            del self._workers[next(iter(self._workers))]
        agent = request.headers.get("user-agent", "")
        self._workers[name] = WorkerStatus(name, request.peer, agent, word(stamp(self._queue.now())))

    async def _list_workers(self, request: Request, _: str) -> Answer:
        """Who asked for jobs since the server began, and who holds some."""
        listed = {name: msgspec.structs.replace(worker, jobs=[]) for name, worker in self._workers.items()}
        for name, uid in await self._queue.held():
            listed.setdefault(name, WorkerStatus(name, jobs=[])).jobs.append(uid)
        return json_answer(msgspec.json.encode(sorted(listed.values(), key=lambda worker: worker.name)))

    # Events

    async def _events(self, request: Request, uid: str) -> Answer:
        if uid:
            await self._queue.record(uid)
        headers = [("Cache-Control", "no-store"), ("X-Accel-Buffering", "no")]
        return Answer(body=self._news(uid or None), kind=EVENT_STREAM, headers=headers)

    async def _news(self, uid: str | None) -> AsyncGenerator[bytes]:
        """The job's state and then what changes, or only what changes of all jobs; ends when the job is removed."""
        with self._queue.follow(uid) as feed:
            yield RETRY
            if uid is not None:
                try:
                    yield _message(await self._queue.record(uid))
                except NotFound:
                    return
            while True:
                changes: list[Change] = []
                with trio.move_on_after(COMMENT_EVERY):
                    changes = await feed.take()
                if not changes:
                    yield STILL_HERE
                for at in range(0, len(changes), MESSAGES):
                    yield b"".join(map(_message, changes[at : at + MESSAGES]))
                if uid is not None and any(change.record is None for change in changes):
                    return

    # Outputs

    async def _output(self, request: Request, uid: str) -> Answer:
        output = await self._queue.output(uid)
        path = await in_thread(_path_of, output, uid, self._queue.outputs, limiter=self._disk)
        if path is None and self._made is not None and isinstance(output, str):
            path = await in_thread(self._made, uid, output, limiter=self._disk)
        if path is None:
            raise NotFound("output of job", uid)
        return await file_answer(request, path, limiter=self._disk)

    async def _upload(self, request: Request, uid: str) -> Answer:
        """A file of a worker on another machine, by its path from the job's folder."""
        name = request.argument("name") or "output"
        asked = whole_number(request.argument, "run")
        if not all(map(is_file_name, name.split("/"))):
            raise InvalidJob(f"name {name[:80]!r} is no file name", where="name")
        run = await self._check_run(uid, asked)
        folder = self._queue.outputs / output_folder(uid)
        await self._forget_parts(uid, run, folder)
        # While it came the job may have been given to somebody else, or made anew under its name.
        size = await self._save(request, folder / name, check=partial(self._check_run, uid, run))
        return json_answer(msgspec.json.encode(Uploaded(str(folder / name), size)))

    async def _forget_parts(self, uid: str, run: int, folder: Path) -> None:
        """What the runs before left in the folder. Once in a run, which may have a file for each of its frames."""
        if self._looked_through.get(uid) == run:
            return
        if len(self._looked_through) >= FOLDERS:
            del self._looked_through[next(iter(self._looked_through))]
        self._looked_through[uid] = run
        await self._queue.forget_parts(folder)

    async def _check_run(self, uid: str, run: int | None) -> int:
        """The run that a job is in. Raises Refusal (409) when that is not this one, or no longer; NotFound."""
        change = await self._queue.record(uid)
        if run is None or run != change.run or not is_held(change.state):
            raise Refusal(409, f'job "{uid}" is {change.state} in its run {change.run}')
        return run

    async def _save(self, request: Request, path: Path, *, check: Callable[[], Awaitable[object]]) -> int:
        """The body as a file that appears when it is whole, if `check` lets it. Raises Refusal: 400, 408, 413, 507."""
        size = 0
        part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")  # of one that was cut off nothing is touched
        on_disk = partial(in_thread, limiter=self._disk)
        try:
            file = await on_disk(_create, part)
            try:
                async with aclosing(request.pieces(limit_bytes=MAX_OUTPUT)) as pieces:
                    async for piece in pieces:
                        size += await on_disk(file.write, piece)
                await check()
                await on_disk(_keep, file, part, path)
            finally:
                with trio.CancelScope(shield=True):
                    await on_disk(_drop, file, part)
        except OSError as err:
            raise Refusal(507, f"the output cannot be kept: {reason_of(err)}") from err
        return size


def _preflight(request: Request) -> Answer:
    asked = request.headers.get("access-control-request-headers", "")
    listed = {name.strip().lower(): name.strip() for name in f"{ALLOWED_HEADERS},{asked}".split(",") if name.strip()}
    headers = [
        ("Access-Control-Allow-Methods", "POST,GET,PUT,PATCH,DELETE,OPTIONS"),
        ("Access-Control-Allow-Headers", ",".join(listed.values())),
        ("Access-Control-Max-Age", "86400"),
    ]
    return text_answer("ok", headers=headers)


def _read(body: bytes, content_type: str, *, is_named: bool) -> tuple[Document | list[Document], bytes]:
    """See `Door._read`. Worker thread, if it is large."""
    text = _in_utf8(body, content_type)
    if text.count(b",") + text.count(b"[") + text.count(b"{") > MAX_VALUES:  # else it is not looked at more closely
        values = sum(part.count(b",") + part.count(b"[") + part.count(b"{") for part in outside_strings(text))
        if values > MAX_VALUES:
            raise InvalidJob(f"the JSON has {values} commas and brackets, more than {MAX_VALUES}", where="$")
    return read(text), digest_of(text) if is_named else b""


def _in_utf8(body: bytes, content_type: str) -> bytes:
    """The body, whatever its content type. Raises Refusal (400)."""
    head = Head()
    head["Content-Type"] = content_type
    charset = head.get_content_charset("utf-8")
    if charset in ("utf-8", "utf8"):
        return body
    try:
        codec = codecs.lookup(charset).name
        if CHARSETS.match(codec):
            return body.decode(codec).encode()
    except (LookupError, ValueError):  # of a codec, of text; of a name with NUL
        pass  # the same answer as for any other
    raise Refusal(400, f"the body is no text in charset {charset[:80]}")


def _creator(request: Request) -> str:
    return request.headers.get("x-forwarded-for") or request.peer


def _message(change: Change) -> bytes:
    """Not named after the state: EventSource takes an event called error for one of its own."""
    if change.record is None:
        return message("removed", {"uid": change.uid})
    return message("status", msgspec.Raw(change.record))


# --- query strings ---------------------------------------------------------------------------------------------------


def _seconds(request: Request, name: str, least: float, most: float) -> float | None:
    """Within its limits."""
    text = request.argument(name)
    if text is None:
        return None
    if not re.fullmatch(r"\d{1,9}(\.\d{1,9})?", text):
        raise InvalidJob(f"{name} {text[:80]!r} is not a number of seconds", where=name)
    return min(max(float(text), least), most)


def _kinds(request: Request) -> list[str] | None:
    """Those that are asked for. nexrender's own worker knows no others than projects, and would fail all documents."""
    text = request.argument("kind")
    if text is None:
        return [PROJECT] if WORKERS_AGENT.match(request.headers.get("user-agent", "")) else None
    if text not in (DOCUMENT, PROJECT):
        raise InvalidJob(f'kind {text[:80]!r} is neither "{DOCUMENT}" nor "{PROJECT}"', where="kind")
    return [text]


def _asked(request: Request) -> tuple[Filter, int | None, int | None]:
    """(which jobs, behind which place, how many) of a list."""
    order = request.argument("order") or "oldest"
    if order not in ("oldest", "newest"):
        raise InvalidJob(f'order {order[:80]!r} is neither "oldest" nor "newest"', where="order")
    limit = whole_number(request.argument, "limit")
    if limit is not None and not 1 <= limit <= 10 * PAGE:
        raise InvalidJob(f"limit {limit} is not within 1…{10 * PAGE}", where="limit")
    states = request.argument("state")
    which = Filter(
        states=None if states is None else states.split(","),
        type=request.argument("type"),
        tag=request.argument("tag"),
        newest_first=order == "newest",
        records=request.path.endswith("/status"),
    )
    return which, whole_number(request.argument, "cursor"), limit


def _link(request: Request, more: int | None) -> Headers:
    """Where the next page is (RFC 8288), from this one: below a proxy's path, its address is longer than ours."""
    if more is None:
        return []
    names = ("state", "type", "tag", "order", "limit")
    query = {name: value for name in names if (value := request.argument(name)) is not None}
    return [("Link", f'<?{urlencode(query | {"cursor": more})}>; rel="next"')]


def _create(part: Path) -> BinaryIO:
    part.parent.mkdir(parents=True, exist_ok=True)
    return part.open("wb")


def _keep(file: BinaryIO, part: Path, path: Path) -> None:
    file.flush()
    os.fsync(file.fileno())  # the job is about to be finished
    part.replace(path)


def _drop(file: BinaryIO, part: Path) -> None:
    with suppress(OSError):  # what waits to be written, on a full disk: nobody wants it any more
        file.close()
    part.unlink(missing_ok=True)


def _path_of(output: object, uid: str, folder: Path) -> Path | None:
    """The file that a job's `output` names, if it is in the folder; links are followed first. Worker thread.

    A path to where the folder was when the job was rendered is that of the same file in it now.
    """
    if not isinstance(output, str):
        return None
    try:
        path = unquote(urlsplit(output).path) if output.startswith("file:") else output
    except ValueError:  # a broken URL
        return None
    _, was_here, rest = f"/{path}".rpartition(f"/{folder.name}/{output_folder(uid)}/")
    return file_in([folder], path) or (file_in([folder], f"{output_folder(uid)}/{rest}") if was_here else None)
