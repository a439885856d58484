"""The rules of the render queue: what a job is, which steps it may take, who holds it and for how long.

It decides what a job looks like after each step; it refuses to know what else its document says (`engine.jobdocument`),
where jobs are kept, who asks, and what time it is.

Theory of operation
-------------------
States are words of a foreign dialect. ``queued → picked → started → render:… → finished | error`` is the usual way,
but clients may put any word at any time: only our own steps (`pick`, `expire`) can be illegal. Whatever is ``picked``,
``started`` or ``render:…`` is *held* by a worker.

Run. Each pick begins a new run of the job, with a number (`run`) and, as soon as the worker has told it, a time
(`begun`, the worker's ``startedAt``). Who keeps jobs sees to it that no run has the number of one of a removed job of
the same name, whose worker may not know yet. What a worker reports is taken only for the present run of a job that is
not over; everything else is answered with the job as it is, never with an error: that would kill some workers. A report
is known by its run's number, or, from workers that know no numbers, by being a status record: it has ``jobExecutor``
and, unlike a whole job, no ``template``; its ``startedAt`` says of which run. They begin with the whole job, as they
picked it: who says that he has ``started`` what somebody else has begun, or has only picked under another `executor`,
is late. All other changes are a client's, and taken as they are.

Lease. Who holds a job holds it until `lease`, and every change renews it: for `renew` ms if the worker promised to
report that often, else as the `Rules` say. A job whose lease is over is queued again, or, after too many attempts, ends
in ``error``. A job whose `deadline` is over has failed, as if its worker had said so.

Attempts count picks since a client last queued the job. Failed jobs are tried again only if they say so
(``maxAttempts``); between two attempts a job is ``queued``, because clients take ``error`` for the end.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final, Protocol

import msgspec
from msgspec import Raw

from engine.errors import IllegalTransition, InvalidJob
from engine.jobdocument import (
    KEPT,
    NULL,
    Document,
    check_content,
    check_terms,
    cleaned_tags,
    created_of,
    raw,
    require,
    split,
    stamp,
    terms_of,
    uid_of,
    value_of,
    word,
)

QUEUED, PICKED, STARTED, FINISHED, ERROR = "queued", "picked", "started", "finished", "error"
FINAL: Final = frozenset((FINISHED, ERROR))
OLDEST, NEWEST, PRIORITY, RANDOM = "oldest-first", "newest-first", "priority", "random"
ORDERINGS: Final = (OLDEST, NEWEST, PRIORITY, RANDOM)


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for workers that promise nothing; times in ms."""

    pick_lease: int = 90_000  # from the pick to the first report: nobody renders yet
    silence: int = 3_600_000  # between reports: workers encode and upload without a word; 0 = for ever
    lost_attempts: int = 5  # picks of a job that is lost each time
    unique_workers: bool = False  # who picks holds nothing any more


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A job as the rules see it: its head, and what clients never see. Times are ms since 1970."""

    head: Document
    run: int = 0
    attempts: int = 0
    begun: bytes | None = None  # ``startedAt`` of the run, as JSON
    lease: int | None = None
    renew: int | None = None
    deadline: int | None = None
    due: int | None = None  # not to be picked before

    @property
    def state(self) -> str:
        """Its word."""
        return word(self.head.get("state", NULL))

    @property
    def uid(self) -> str:
        """Its name."""
        return uid_of(self.head)


class Assignment(msgspec.Struct, frozen=True):
    """A picked job: `job` is the whole document, as JSON; `run` is the number that reports must carry."""

    uid: str
    run: int
    job: bytes


class Queue(Protocol):
    """What a worker needs of the queue, the same in the server's process and over HTTP.

    A name belongs to one slot that renders: who picks under a name holds nothing any more under it. After a pick the
    holder must report (`report`, with or without news) well within the lease, or the job goes to somebody else. Every
    report answers whether it was taken: once the job is no longer this run's (cancelled, removed, given away), none is,
    and the render should end.
    """

    async def pick(
        self, worker: str, kinds: Collection[str], *, tags: str = "", lease: float = 30.0, wait: float = 0.0
    ) -> Assignment | None:
        """The next job of one of these kinds, or None when there is none for `wait` seconds.

        tags   comma separated; only jobs with one of them. Empty: any.
        lease  seconds; every report renews it.
        """

    async def report(self, assignment: Assignment, change: Mapping[str, object]) -> bool:
        """Lays keys over the job: state, renderProgress, timings, startedAt …; an empty change is a sign of life.

        Returns whether it was taken.
        """

    async def finish(self, assignment: Assignment, *, output: str) -> bool:
        """The film is at `output`: a path below the outputs folder of the server, or a URL. Returns as `report`."""

    async def fail(self, assignment: Assignment, error: str) -> bool:
        """It has failed; tried again if the job says so. Returns as `report`."""

    async def revoked(self, assignment: Assignment) -> None:
        """Returns as soon as the job is no longer this run's: within 2 s of a cancellation."""


def pools_of(kind: str, tags: Collection[str]) -> list[str]:
    """Where a job waits: a pool for every way in which it may be asked for."""
    asked = (kind,) if kind == KEPT else ("", kind)
    return [f"{each}:{tag}" for each in asked for tag in ("", *tags)]


def pools_asked(kinds: Collection[str] | None, tags: Collection[str] | None) -> list[str]:
    """The pools that answer who asks for these kinds and tags; None: any."""
    return [f"{kind}:{tag}" for kind in ([""] if kinds is None else kinds) for tag in ([""] if tags is None else tags)]


# --- steps -----------------------------------------------------------------------------------------------------------

_DEFAULTS: Final[Document] = {
    "uid": NULL,
    "type": raw("default"),
    "state": raw(QUEUED),
    "output": raw(""),
    "tags": raw(""),
    "priority": raw(0),
    "timings": raw({}),
    "template": raw({"src": "", "composition": "", "continueOnMissing": False, "imageSequence": False}),
    "assets": raw([]),
    "actions": raw({"prerender": [], "postrender": []}),
}


def create(body: Document, *, uid: str, creator: str, now: int) -> tuple[Job, Document]:
    """(job, content) of what a client posts. `uid` is its name if the body has none. Raises InvalidJob."""
    tags = value_of(body, "tags")
    cleaned = {"tags": raw(cleaned_tags(tags))} if isinstance(tags, str) else {}
    time = stamp(now)
    ours = {"state": raw(QUEUED), "creator": raw(creator), "createdAt": time, "updatedAt": time}
    document = _DEFAULTS | {"uid": raw(uid)} | body | cleaned | ours
    uid_of(document)
    check_content(document)
    check_terms(document)
    head, content = split(document)
    return Job(head=head, begun=_begun(head), due=_due(head, now)), content


def take_over(document: Document, *, now: int, rules: Rules) -> tuple[Job, Document]:
    """(job, content) of a job of another server, in whatever state it is; what is held has a lease from now on."""
    head, content = split(document)
    return _renewed(Job(head=head, begun=_begun(head), due=_due(head, now)), now=now, rules=rules), content


def pick(job: Job, *, worker: str, now: int, rules: Rules, renew: int | None = None) -> Job:
    """The job in the hands of a worker, who holds it for `renew` ms (as the rules say if None) after each report.

    Raises IllegalTransition when it is not queued.
    """
    if job.state != QUEUED:
        raise IllegalTransition(f'job "{job.uid}" is {job.state}, not queued', where=job.uid)
    timeout = terms_of(job.head).timeout
    changes = {"state": raw(PICKED), "executor": raw(worker), "updatedAt": stamp(now)}
    if "maxAttempts" in job.head:
        changes["attempts"] = raw(job.attempts + 1)
    picked = msgspec.structs.replace(
        job,
        head=job.head | changes,
        run=job.run + 1,
        attempts=job.attempts + 1,
        begun=None,
        renew=renew,
        deadline=None if timeout is None else now + timeout,
        due=None,
    )
    return _renewed(picked, now=now, rules=rules)


def put(job: Job, change: Document, *, now: int, rules: Rules, run: int | None = None) -> Job:
    """The job after a change; the same object where the change is not taken (see theory: run).

    change  keys laid over the document; those of the content only tell what kind of change it is.
    run     the run that reports; None: a client, or a worker that knows no numbers.
    Raises  InvalidJob: another uid, no state, impossible terms.
    """
    record = "jobExecutor" in change and "template" not in change
    by_worker = record or run is not None
    if by_worker and (job.state in FINAL or not _is_of_present_run(job, change, run)):
        return job
    if _is_late(job, change):
        return job
    head = job.head | split(change)[0] | {"updatedAt": stamp(now)}
    if uid_of(head) != job.uid:
        raise InvalidJob(f'uid "{uid_of(head)}" is not that of job "{job.uid}"', where="$.uid")
    require(value_of(head, "state"), "state")
    check_terms({key: value for key, value in change.items() if job.head.get(key) != value})
    merged = msgspec.structs.replace(job, head=head, begun=_begun(change) or job.begun)
    if merged.state == QUEUED:
        return _queue(job, merged, change, now=now, by_worker=by_worker)
    if merged.state == ERROR and by_worker:
        return _fail(merged, now=now)
    if job.state == QUEUED and is_held(merged.state) and not by_worker:  # somebody took it without asking for a pick
        merged = msgspec.structs.replace(merged, attempts=job.attempts + 1, due=None)
    return _renewed(merged, now=now, rules=rules)


def _queue(job: Job, merged: Job, change: Document, *, now: int, by_worker: bool) -> Job:
    """Queued by a client: from the beginning. By its worker, who gives it back: that was no attempt."""
    if job.state == QUEUED:
        return msgspec.structs.replace(merged, due=_due(merged.head, now)) if "notBefore" in change else merged
    anew = {key: value for key, value in _ANEW.items() if key in merged.head and (key not in change or by_worker)}
    return msgspec.structs.replace(
        _over(merged),
        head=merged.head | anew,
        run=job.run + 1,
        attempts=max(0, job.attempts - 1) if by_worker else 0,
        begun=None,
        due=_due(merged.head, now),
    )


def finished(output: str, now: int) -> dict[str, object]:
    """What a run reports whose film is at `output`."""
    return {"state": FINISHED, "finishedAt": stamp(now), "renderProgress": 100, "output": output}


def failed(error: str, now: int) -> dict[str, object]:
    """What a run reports that has failed."""
    return {"state": ERROR, "errorAt": stamp(now), "error": error}


def expire(job: Job, *, now: int, rules: Rules) -> Job:
    """The job after its lease or its deadline. Raises IllegalTransition when neither is over."""
    if job.lease is None or job.lease > now:
        raise IllegalTransition(f'the lease of job "{job.uid}" is not over', where=job.uid)
    if job.deadline is not None and job.deadline <= now:
        timeout = terms_of(job.head).timeout or 0
        late = f'worker "{_worker(job)}" did not finish within {timeout / 1000:g} s'
        return _fail(_with_error(job, late, now), now=now)
    return lose(job, now=now, rules=rules)


def near(job: Job, *, now: int, rules: Rules) -> Job:
    """The job with no time of ours later than if it were set now: a clock that was ahead may have set it.

    What its user gave by the time of day, `notBefore`, stays.
    """
    terms = terms_of(job.head)
    if job.lease is None:
        is_retry = job.due is not None and job.due != terms.not_before
        return msgspec.structs.replace(job, due=_earlier(job.due, now + terms.retry_delay)) if is_retry else job
    last = None if terms.timeout is None else now + terms.timeout
    deadline = None if job.deadline is None else _earlier(job.deadline, last)
    fresh = _renewed(msgspec.structs.replace(job, deadline=deadline), now=now, rules=rules)
    return msgspec.structs.replace(fresh, lease=_earlier(job.lease, fresh.lease))


def _earlier(*times: int | None) -> int | None:
    return min((each for each in times if each is not None), default=None)


def lose(job: Job, *, now: int, rules: Rules, how: str = "is gone") -> Job:
    """The job of a worker that is gone: queued again, or in error after too many picks.

    A worker that promised nothing may only have been silent: its run may come back until somebody else picks the job.

    how  what the worker did, as the error says it.
    """
    again = _fail(_with_error(job, f'worker "{_worker(job)}" {how}', now), now=now, limit=rules.lost_attempts)
    if again.state == QUEUED and job.renew is None:
        again = msgspec.structs.replace(again, run=job.run, begun=job.begun)
    return again if again.state == ERROR else msgspec.structs.replace(again, due=None)


def _worker(job: Job) -> str:
    return word(job.head.get("executor", NULL))


def abandon(job: Job, error: str, *, now: int) -> Job:
    """The job in error for good, whatever it was."""
    return _over(_with_error(job, error, now))


_ANEW: Final[Document] = {"renderProgress": raw(0), "error": NULL, "errorAt": NULL, "finishedAt": NULL}


def _with_error(job: Job, error: str, now: int) -> Job:
    told = {"state": raw(ERROR), "error": raw(error), "errorAt": stamp(now), "updatedAt": stamp(now)}
    return msgspec.structs.replace(job, head=job.head | told)


def _over(job: Job) -> Job:
    return msgspec.structs.replace(job, lease=None, renew=None, deadline=None, due=None)


def _fail(job: Job, *, now: int, limit: int = 0) -> Job:
    """A job whose head says error: over, or queued again when it has attempts left; `limit` where it names none."""
    terms = terms_of(job.head)
    job = _over(job)
    if job.attempts >= (terms.max_attempts or limit):
        return job
    head = job.head | {key: value for key, value in _ANEW.items() if key in job.head} | {"state": raw(QUEUED)}
    if terms.max_attempts is not None:
        head["lastError"] = job.head.get("error", NULL)
    due = now + terms.retry_delay if terms.retry_delay else None
    return msgspec.structs.replace(job, head=head, run=job.run + 1, begun=None, due=due)


def _renewed(job: Job, *, now: int, rules: Rules) -> Job:
    if not is_held(job.state):
        return _over(job)
    span = job.renew or (rules.pick_lease if job.state == PICKED else rules.silence)
    return msgspec.structs.replace(job, lease=_earlier(now + span if span else None, job.deadline), due=None)


def is_held(state: str) -> bool:
    """Whether a worker has a job in this state."""
    return state in (PICKED, STARTED) or state.startswith("render:")


def _is_of_present_run(job: Job, change: Document, run: int | None) -> bool:
    """Whether a report is. One that begins a run may tell any time but the last run's, which is still there."""
    if run is not None:
        return run == job.run
    if _is_of_namesake(job, change):
        return False
    if "startedAt" not in change:
        return True
    told = _begun(change)
    begins = job.begun is None and job.renew is None and (job.state == PICKED or job.run == 0)
    return told == job.begun or (begins and told != _begun(job.head))


def _is_late(job: Job, change: Document) -> bool:
    """Whether a worker begins with a whole job what somebody else has begun, or picked, since.

    Nobody has picked it since it was read, if it has not changed: some are called otherwise when they begin.
    """
    told = _begun(change)
    if "template" not in change or told is None or value_of(change, "state") != STARTED:
        return False
    if _is_of_namesake(job, change):
        return True
    if not is_held(job.state) and job.state not in FINAL:
        return False
    if job.begun is not None:
        return told != job.begun or job.state in FINAL
    is_anothers = change.get("executor", job.head.get("executor")) != job.head.get("executor")
    return is_anothers and change.get("updatedAt") != job.head.get("updatedAt")


def _is_of_namesake(job: Job, change: Document) -> bool:
    """Whether a worker tells of another job of this uid, which was removed while it had it: that was made before.

    By the second: some write a time otherwise than they have read it.
    """
    told, ours = created_of(change), created_of(job.head)
    return told is not None and ours is not None and told // 1000 < ours // 1000


def _begun(document: Mapping[str, Raw]) -> bytes | None:
    text = bytes(document.get("startedAt", NULL))
    return None if text == b"null" else text


def _due(head: Mapping[str, Raw], now: int) -> int | None:
    not_before = terms_of(head).not_before
    return not_before if not_before is not None and not_before > now else None


# --- telling ---------------------------------------------------------------------------------------------------------


_FALSY: Final = frozenset((b"null", b"false", b"0", b'""'))
_AS_THEY_ARE: Final = frozenset(("uid", "state", "type", "creator"))
_RECORD: Final[Mapping[str, str]] = {  # key of the head → of the status record, in this order
    **{key: key for key in ("uid", "state", "type", "tags", "renderProgress", "error")},
    **{key: key for key in ("createdAt", "updatedAt", "startedAt", "finishedAt", "errorAt")},
    "creator": "jobCreator",
    "executor": "jobExecutor",
    "timings": "timings",
}
_BLANK: Final[Document] = dict.fromkeys(_RECORD.values(), NULL) | {"renderProgress": raw(0)}


def status_of(head: Mapping[str, Raw]) -> Document:
    """The status record of a job: fourteen keys, thirteen where nobody knows who made it."""
    record = _BLANK.copy()
    for key, text in head.items():  # lists are made of many: what is absent costs nothing
        told = _RECORD.get(key)
        if told is not None and (key in _AS_THEY_ARE or not _is_falsy(bytes(text))):
            record[told] = text
    for key in _AS_THEY_ARE:
        if key not in head:
            del record[_RECORD[key]]
    if record["error"] is not NULL:
        record["error"] = _joined(record["error"])
    return record


def _is_falsy(text: bytes) -> bool:
    return text in _FALSY or (text[0] in b"-0" and not msgspec.json.decode(text))


def _joined(text: Raw) -> Raw:
    """An array of errors as one text."""
    if not bytes(text).startswith(b"["):
        return text
    parts = [
        each if isinstance(each, str) else msgspec.json.encode(each).decode() for each in msgspec.json.decode(text)
    ]
    return raw("\n\n".join(parts) or None)
