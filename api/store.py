"""Jobs on disk: every step of a job as one transaction, which is over when it is answered.

It decides what is read and written, and in which order; it refuses to know the rules of the queue (`engine.jobs`), who
asks, and in which thread. Blocking: worker threads only. Writing methods must be called one at a time; the reading ones
may be called beside them and each other, up to `api.schema.READERS`.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
from sqlalchemy import BindParameter, Connection, Select, bindparam, case, delete, exists, func, insert, select, update
from sqlalchemy.exc import DBAPIError, IntegrityError

from api.schema import contents, deliveries, jobs, keys, open_database, queue, waits
from engine.errors import AlreadyExists, Conflict, InvalidJob, NotFound, Overloaded
from engine.jobdocument import (
    Document,
    check_content,
    kind_of,
    priority_of,
    raw,
    read,
    split,
    stamp,
    tags_of,
    terms_of,
    uid_of,
    value_of,
    word,
)
from engine.jobs import (
    ERROR,
    FINISHED,
    NEWEST,
    OLDEST,
    PRIORITY,
    QUEUED,
    RANDOM,
    Job,
    Rules,
    abandon,
    create,
    expire,
    lose,
    pick,
    pools_asked,
    pools_of,
    put,
    status_of,
    take_over,
)

KEY_LIFE: Final = 86_400_000  # ms until an Idempotency-Key is forgotten
SWEEP: Final = 500  # jobs in one transaction of the sweep: others wait meanwhile
UID_LENGTH: Final = 21  # as clients know it; 126 random bits
RECORDS: Final = 1 << 14  # kept; each has a kilobyte with its head
RUN_BITS: Final = 20  # runs of a job are numbered from its place on; a million later would be those of the next one
MAX_TAGS: Final = 64  # asked for at once: each is a look-up of its own

_document: Final = msgspec.json.Decoder(Document)
_encode: Final = msgspec.json.Encoder().encode


class Change(NamedTuple):
    """What everybody may hear of a job once it is committed; `record` is its status, None when it was removed."""

    uid: str
    state: str
    run: int
    record: bytes | None


class Picked(NamedTuple):
    """A job in the hands of who asked, or the status record of one that is there."""

    uid: str
    run: int
    job: bytes


class Filter(NamedTuple):
    """Which jobs are listed, and how; None: any."""

    states: Collection[str] | None = None
    type: str | None = None
    tag: str | None = None
    newest_first: bool = False
    records: bool = False  # status records instead of whole jobs


class Delivery(NamedTuple):
    """What a webhook is to be told; `tries` so far."""

    id: int
    uid: str
    url: str
    secret: str
    event: str
    body: bytes
    created: int
    tries: int


# Made once: to build a statement costs more than to run it.
_SEQ: Final[BindParameter[int]] = bindparam("the_seq")
_UID: Final[BindParameter[str]] = bindparam("the_uid")
_NOW: Final[BindParameter[int]] = bindparam("now")
_STATE = (jobs.c.run, jobs.c.attempts, jobs.c.begun, jobs.c.lease, jobs.c.renew, jobs.c.deadline, jobs.c.due)
_ROW = select(jobs.c.seq, jobs.c.kind, jobs.c.head, *_STATE).with_for_update()
_JOB_AT = _ROW.where(jobs.c.seq == _SEQ)
_ALL_AT = _JOB_AT.add_columns(contents.c.content).join(contents, contents.c.seq == jobs.c.seq)
_JOB = _ROW.where(jobs.c.uid == _UID)
_STATE_OF = select(jobs.c.state).where(jobs.c.uid == _UID)
_SAVE = update(jobs).where(jobs.c.seq == _SEQ)
_EVERY = select(jobs.c.seq, jobs.c.head, contents.c.content).join(contents, contents.c.seq == jobs.c.seq)
_WHOLE = _EVERY.where(jobs.c.uid == _UID)
_RECORD = select(jobs.c.state, jobs.c.run, jobs.c.head).where(jobs.c.uid == _UID)
_HELD = select(jobs.c.executor, jobs.c.uid).where(jobs.c.lease.is_not(None))
_EXPIRED = select(jobs.c.seq).where(jobs.c.lease <= _NOW).limit(SWEEP)
_DUE = select(jobs.c.seq).where(jobs.c.due <= _NOW).limit(SWEEP)
_RESUME = (
    update(jobs).where(jobs.c.lease < _NOW).values(lease=case((jobs.c.deadline < _NOW, jobs.c.deadline), else_=_NOW))
)
_MOVE_HELD = (
    update(jobs)
    .where(jobs.c.lease.is_not(None))
    .values(lease=jobs.c.lease + bindparam("by"), deadline=jobs.c.deadline + bindparam("by"))
)
_MOVE_DELIVERIES = update(deliveries).values(
    due=deliveries.c.due + bindparam("by"), created=deliveries.c.created + bindparam("by")
)
_MOVE_KEYS = update(keys).values(created=keys.c.created + bindparam("by"))
_DUE_AGAIN = select(jobs.c.seq).where(jobs.c.due.is_not(None), jobs.c.attempts > 0)
_HELD_BY = select(jobs.c.seq).where(jobs.c.executor == bindparam("worker"), jobs.c.lease.is_not(None)).limit(SWEEP)
_CONTENT = select(contents.c.content).where(contents.c.seq == _SEQ)
_SAVE_CONTENT = update(contents).where(contents.c.seq == _SEQ)
_FORGET = [delete(table).where(table.c.seq == _SEQ) for table in (jobs, contents, queue, waits)]
_LEAVE = delete(queue).where(queue.c.seq == _SEQ)
_ORDERS = {PRIORITY: (queue.c.priority.desc(), queue.c.seq), NEWEST: (queue.c.seq.desc(),)}
_FIRST = {  # SQLite has one writer anyway, and no words for what is locked
    order: select(queue.c.priority, queue.c.seq)
    .where(queue.c.pool == bindparam("the_pool"))
    .order_by(*_ORDERS.get(order, (queue.c.seq,)))
    .limit(1)
    .with_for_update(skip_locked=True)
    for order in (OLDEST, NEWEST, PRIORITY)
}
_WAITS = select(exists().where(waits.c.seq == _SEQ))
_WAIT_NO_MORE = delete(waits).where(waits.c.seq == _SEQ)
_WAITING_FOR = select(waits.c.seq).where(waits.c.uid == _UID)
_WHO_WAITS = select(jobs.c.uid).join(waits, waits.c.seq == jobs.c.seq).where(waits.c.uid == _UID)
_RELEASE = delete(waits).where(waits.c.uid == _UID)
_MADE_UNDER = select(keys.c.digest, keys.c.uids).where(keys.c.key == bindparam("the_key"))
_OLD_KEYS = keys.c.created < _NOW
_LINE = (deliveries.c.uid == _UID, deliveries.c.url == bindparam("the_url"))
_IN_LINE = select(func.min(deliveries.c.id)).where(*_LINE)
_UNDELIVERED = (
    select(*(deliveries.c[name] for name in Delivery._fields))
    .where(deliveries.c.due <= _NOW)
    .order_by(deliveries.c.due, deliveries.c.id)
)
_DELIVER = update(deliveries).where(deliveries.c.id == bindparam("the_id"))
_DELIVERED = delete(deliveries).where(deliveries.c.id == bindparam("the_id"))


class Store:
    """The jobs of one database.

    ordering  one of `engine.jobs.ORDERINGS`.
    chance    a random number below its argument, for the ordering "random".
    new_uid   a name for a job that has none.
    """

    def __init__(
        self,
        path: Path,
        *,
        rules: Rules,
        ordering: str = OLDEST,
        chance: Callable[[int], int] = secrets.randbelow,
        new_uid: Callable[[], str] = lambda: secrets.token_urlsafe(16)[:UID_LENGTH],
    ) -> None:
        """Opens it. Raises InvalidSpec, SourceMalformed as `api.schema.open_database`."""
        self._rules = rules
        self._ordering = ordering
        self._chance = chance
        self._new_uid = new_uid
        self._writing, self._reading = open_database(path)

    def close(self) -> None:
        """Closes its connections."""
        self._writing.dispose()
        self._reading.dispose()

    @contextmanager
    def _write(self, now: int) -> Iterator[_Transaction]:
        with _translated(), self._writing.begin() as connection:
            yield _Transaction(connection, self._rules, now)

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        with _translated(), self._reading.begin() as connection:
            yield connection

    # Steps

    def create(
        self,
        bodies: Sequence[Document],
        *,
        creator: str,
        now: int,
        key: tuple[str, bytes] | None = None,
    ) -> tuple[list[bytes], list[Change]]:
        """The jobs as they are queued, all of them or none.

        key     (Idempotency-Key, digest of the request): the second time, the jobs that it made then, as they are.
        Raises  InvalidJob, AlreadyExists (a uid; a key with another digest, or whose jobs are deleted), Conflict (one
                waits for a failed job, or for itself).
        """
        made = [create(body, uid=self._new_uid(), creator=creator, now=now) for body in bodies]
        with self._write(now) as write:
            known = None if key is None else write.created_under(*key)
            if key is not None and known is not None:
                try:
                    return [write.whole(uid) for uid in known], []
                except NotFound as err:
                    sentence = f'Idempotency-Key "{key[0][:80]}" was used for a job that is deleted: {err}'
                    raise AlreadyExists(sentence, where="Idempotency-Key") from None
            write.add(made)
            if key is not None:
                write.keep_key(*key, [job.uid for job, _ in made])
            return [_join(_encode(job.head), _encode(content)) for job, content in made], write.changes

    def take(self, document: bytes, *, now: int) -> tuple[int, int]:
        """(jobs taken, jobs left out) of the database file of another server: an array of jobs in their states.

        Of several jobs with one uid the last counts; what is here already stays as it is. Raises InvalidJob.
        """
        found = read(document.strip() or b"[]")  # its file is empty before the first job
        if not isinstance(found, list):
            raise InvalidJob("expected an array of jobs", where="$")
        named: dict[str, Document] = {}
        for each in found:
            body = each if value_of(each, "uid") else each | {"uid": raw(self._new_uid())}
            named.pop(uid_of(body), None)
            named[uid_of(body)] = body
        with self._write(now) as write:
            new = [body for uid, body in named.items() if write.state(uid) is None]
            whole = [{"state": raw(QUEUED), "type": raw("default"), **body} for body in new]
            write.add([take_over(each, now=now, rules=self._rules) for each in whole], told=False)
        return len(new), len(found) - len(new)

    def put(self, uid: str, change: Document, *, now: int, run: int | None = None) -> tuple[Picked, list[Change]]:
        """The job after a change, or as it was where the change is not taken; with a run, only its status record.

        Raises NotFound, InvalidJob, Conflict (it would wait, as it did not before, for a failed job or for itself).
        """
        with self._write(now) as write:
            seq, kind, job = write.load(uid)
            head, new = split(change)
            content = write.content(seq) if run is None or new or "type" in head else b"{}"
            changed = put(job, change, now=now, rules=self._rules, run=run)
            if changed is not job:
                merged = _document.decode(content) | new if new else {}
                if new and (text := _encode(merged)) != content:
                    check_content(merged)
                    write.save_content(seq, text)
                    content = text
                if new or "type" in head:
                    kind = kind_of(changed.head | (merged or _document.decode(content)))
                write.save(seq, job, changed, kind=kind)
            told = _join(_encode(changed.head), content) if run is None else _encode(status_of(changed.head))
            return Picked(uid, changed.run, told), write.changes

    def remove(self, uid: str, *, now: int) -> list[Change]:
        """Forgets a job, whatever its state; what waits for it waits no more. Raises NotFound."""
        with self._write(now) as write:
            write.remove(uid)
            return write.changes

    def pick(
        self,
        worker: str,
        *,
        kinds: Collection[str] | None = None,
        tags: Collection[str] | None = None,
        renew: int | None = None,
        now: int,
    ) -> tuple[Picked | None, list[Change]]:
        """The next job, in the hands of a worker.

        kinds, tags  only these; None: any.
        renew        ms that each report renews its lease by; a worker that promises so holds nothing else.
        """
        if tags is not None and len(tags) > MAX_TAGS:
            raise InvalidJob(f"{len(tags)} tags, more than {MAX_TAGS}", where="tags")
        with self._write(now) as write:
            if renew is not None or self._rules.unique_workers:
                write.lose_all_of(worker)
            write.promote()
            seq = self._first(write.connection, pools_asked(kinds, tags))
            if seq is None:
                return None, write.changes
            row = write.connection.execute(_ALL_AT, {"the_seq": seq}).one()
            job = msgspec.structs.replace(_job(row), run=max(row.run, seq << RUN_BITS))
            picked = pick(job, worker=worker, now=now, rules=self._rules, renew=renew)
            write.save(seq, job, picked, kind=row.kind)
            return Picked(picked.uid, picked.run, _join(_encode(picked.head), row.content)), write.changes

    def _first(self, connection: Connection, pools: Sequence[str]) -> int | None:
        if self._ordering == RANDOM:
            choice = select(queue.c.seq).where(queue.c.pool.in_(pools)).distinct()
            count = connection.scalar(select(func.count()).select_from(choice.subquery())) or 0
            chosen = choice.order_by(queue.c.seq).offset(self._chance(count)).limit(1) if count else None
            return None if chosen is None else connection.scalar(chosen)
        first = _FIRST[self._ordering]
        found = [row for pool in pools for row in connection.execute(first, {"the_pool": pool})]
        if self._ordering == PRIORITY:
            return min(((-priority, seq) for priority, seq in found), default=(0, None))[1]
        return (max if self._ordering == NEWEST else min)((seq for _, seq in found), default=None)

    def sweep(self, *, now: int) -> tuple[bool, list[Change]]:
        """Takes jobs away from workers that are gone and queues those whose time has come.

        Returns whether any job can be picked that could not before, and what has changed.
        """
        with self._write(now) as write:
            for seq in write.some(_EXPIRED, now=now):
                kind, job = write.at(seq)
                write.save(seq, job, expire(job, now=now, rules=self._rules), kind=kind)
            changes = list(write.changes)
            due = write.promote()
            write.connection.execute(delete(keys).where(_OLD_KEYS), {"now": now - KEY_LIFE})
            return due or any(change.state == QUEUED for change in changes), changes

    def resume(self, *, until: int, by: int = 0) -> None:
        """Nobody could report while nobody listened: what is held is held at least until then.

        by  ms that the clock was set by: leases, timeouts, pauses before another try and keys end as much later.
        """
        with self._write(until) as write:
            if by:
                write.move(by)
            write.connection.execute(_RESUME, {"now": until})

    def is_due(self, *, now: int) -> bool:
        """Whether a sweep has anything to do: it costs others nothing to ask."""
        with self._read() as connection:
            questions = ((_EXPIRED, now), (_DUE, now), (select(keys.c.created).where(_OLD_KEYS), now - KEY_LIFE))
            return any(connection.scalar(each.limit(1), {"now": then}) is not None for each, then in questions)

    # Telling

    def whole(self, uid: str) -> bytes:
        """A job as JSON. Raises NotFound."""
        with self._read() as connection:
            return _whole(connection, uid)

    def record(self, uid: str) -> Change:
        """A job's state. Raises NotFound."""
        with self._read() as connection:
            row = connection.execute(_RECORD, {"the_uid": uid}).one_or_none()
        if row is None:
            raise NotFound("job", uid)
        return Change(uid, row.state, row.run, _record(row.head))

    def page(self, which: Filter, *, after: int | None, limit: int, limit_bytes: int) -> tuple[list[bytes], int | None]:
        """(jobs as JSON, behind which place the next page begins or None), in the order of creation.

        after  behind this place; None: from the beginning.
        limit  so many at most, and no more than one that begins behind `limit_bytes`.
        """
        wanted = select(jobs.c.seq, jobs.c.head) if which.records else _EVERY
        found: list[bytes] = []
        size = 0
        with self._read() as connection:
            for seq, head, *content in connection.execute(_filtered(wanted, which, after).limit(limit + 1)):
                if len(found) == limit or size > limit_bytes:
                    return found, after
                text = _join(head, *content) if content else _record(head)
                found.append(text)
                size += len(text)
                after = seq
        return found, None

    def held(self) -> list[tuple[str, str]]:
        """(worker, uid) of every job that somebody holds."""
        with self._read() as connection:
            return [(executor or "", uid) for executor, uid in connection.execute(_HELD)]

    # Webhooks

    def undelivered(
        self, *, now: int, besides: Collection[int], limit: int, busy: Collection[str] = ()
    ) -> list[Delivery]:
        """What is due, the longest due first; without those of these ids, which are under way.

        busy  scheme, host and port of URLs that are left out.
        """
        wanted = _UNDELIVERED.limit(limit + len(besides))
        for receiver in busy:
            begin = func.substr(deliveries.c.url, 1, len(receiver) + 1)
            wanted = wanted.where(begin.not_in([receiver + end for end in ("", "/", "?", "#")]))
        with self._read() as connection:
            rows = connection.execute(wanted, {"now": now})
            return [Delivery(*row) for row in rows if row.id not in besides][:limit]

    def deliver_again(self, delivery: Delivery, *, due: int, now: int) -> None:
        """It was not taken: once more then."""
        with self._write(now) as write:
            again = {"the_id": delivery.id, "tries": delivery.tries + 1, "due": due}
            write.connection.execute(_DELIVER, again)

    def delivered(self, delivery: Delivery, *, now: int) -> None:
        """It was taken, or is given up: the next one of this job and url is due."""
        with self._write(now) as write:
            write.connection.execute(_DELIVERED, {"the_id": delivery.id})
            after = write.connection.scalar(_IN_LINE, {"the_uid": delivery.uid, "the_url": delivery.url})
            if after is not None:
                write.connection.execute(_DELIVER, {"the_id": after, "due": now})


class _Transaction:
    """Steps within one transaction, and what is to be told when it is committed."""

    def __init__(self, connection: Connection, rules: Rules, now: int) -> None:
        self.connection = connection
        self.changes: list[Change] = []
        self._rules = rules
        self._now = now

    # Reading

    def load(self, uid: str) -> tuple[int, str, Job]:
        """(seq, kind, job). Raises NotFound."""
        row = self.connection.execute(_JOB, {"the_uid": uid}).one_or_none()
        if row is None:
            raise NotFound("job", uid)
        return row.seq, row.kind, _job(row)

    def at(self, seq: int) -> tuple[str, Job]:
        """(kind, job)."""
        row = self.connection.execute(_JOB_AT, {"the_seq": seq}).one()
        return row.kind, _job(row)

    def state(self, uid: str) -> str | None:
        """Of a job; None when there is none of that name."""
        return self.connection.scalar(_STATE_OF, {"the_uid": uid})

    def content(self, seq: int) -> bytes:
        """Its content, as JSON."""
        return self.connection.scalar(_CONTENT, {"the_seq": seq}) or b"{}"

    def whole(self, uid: str) -> bytes:
        """A job as JSON. Raises NotFound."""
        return _whole(self.connection, uid)

    def some(self, which: Select[int], **parameters: object) -> Sequence[int]:
        """The places of these jobs."""
        return self.connection.scalars(which, parameters).all()

    # Jobs

    def add(self, made: Sequence[tuple[Job, Document]], *, told: bool = True) -> None:
        """New jobs, which may wait for each other in any order.

        told    they are a client's: everybody hears of them, and what they wait for must come.
        Raises  AlreadyExists; Conflict when one waits for one that has failed, or for itself.
        """
        places = [self._insert(job, content) for job, content in made]
        if told:
            _check_order([job for job, _ in made])
        for (job, _), (seq, kind) in zip(made, places, strict=True):
            if job.state == QUEUED:
                waiting = self._wait(seq, job, strict=told)
                self._line_up(seq, job, kind, waiting=waiting)
            if told:
                self._tell(None, job)

    def _insert(self, job: Job, content: Document) -> tuple[int, str]:
        """(seq, kind) of a new row."""
        kind = kind_of(job.head | content)
        try:
            done = self.connection.execute(insert(jobs), _columns(job, kind))
        except IntegrityError as err:
            raise AlreadyExists(f'job "{job.uid}" exists', where=job.uid) from err
        assert done.inserted_primary_key is not None
        seq: int = done.inserted_primary_key[0]
        self.connection.execute(insert(contents), {"seq": seq, "content": _encode(content)})
        return seq, kind

    def save(self, seq: int, old: Job, new: Job, *, kind: str) -> None:
        """A job after a step. Raises Conflict when what it is to wait for from now on has failed or waits for it."""
        self.connection.execute(_SAVE, {"the_seq": seq, **_columns(new, kind)})
        if old.state == QUEUED:
            self.connection.execute(_LEAVE, {"the_seq": seq})
            if terms_of(old.head).after:
                self.connection.execute(_WAIT_NO_MORE, {"the_seq": seq})
        if new.state == QUEUED:
            after = terms_of(new.head).after
            behind = self._behind(new.uid) if after else ()
            waiting = self._wait(seq, new, strict=terms_of(old.head).after != after, behind=behind)
            self._line_up(seq, new, kind, waiting=waiting)
        self._tell(old, new)
        if old.state != new.state:
            self._settle(new.uid, new.state)

    def save_content(self, seq: int, content: bytes) -> None:
        """Its content after a change, as JSON."""
        self.connection.execute(_SAVE_CONTENT, {"the_seq": seq, "content": content})

    def remove(self, uid: str) -> None:
        """A job and all that hangs on it. Raises NotFound."""
        seq, _, job = self.load(uid)
        for statement in _FORGET:
            self.connection.execute(statement, {"the_seq": seq})
        self.changes.append(Change(uid, "removed", job.run, None))
        self._release(uid)

    def lose_all_of(self, worker: str) -> None:
        """Who asks for a job holds none."""
        for seq in self.some(_HELD_BY, worker=worker):
            kind, job = self.at(seq)
            how = "asked for another job while it had this one: it was started again, or two have its name"
            self.save(seq, job, lose(job, now=self._now, rules=self._rules, how=how), kind=kind)

    # Queue

    def move(self, by: int) -> None:
        """Moves every moment that is our own; not those that users gave, by the time of day."""
        for statement in (_MOVE_HELD, _MOVE_DELIVERIES, _MOVE_KEYS):
            self.connection.execute(statement, {"by": by})
        for seq in self.some(_DUE_AGAIN):
            _, job = self.at(seq)
            if job.due is not None and job.due != terms_of(job.head).not_before:
                self.connection.execute(_SAVE, {"the_seq": seq, "due": job.due + by})

    def promote(self) -> bool:
        """Queues jobs whose time has come; whether there were any."""
        found = self.some(_DUE, now=self._now)
        for seq in found:
            self.connection.execute(_SAVE, {"the_seq": seq, "due": None})
            kind, job = self.at(seq)
            if job.state == QUEUED:  # a database of before may have others
                self._line_up(seq, job, kind, waiting=self._waits(seq))
                self.changes.append(_change(job))  # others wait for it too
        return bool(found)

    def _line_up(self, seq: int, job: Job, kind: str, *, waiting: bool) -> None:
        """Puts a queued job where it may be picked from, if it may."""
        if job.due is None and not waiting:
            priority = priority_of(value_of(job.head, "priority"))
            pools = pools_of(kind, tags_of(value_of(job.head, "tags")))
            rows = [{"pool": pool, "seq": seq, "priority": priority} for pool in pools]
            self.connection.execute(insert(queue), rows)

    def _waits(self, seq: int) -> bool:
        return bool(self.connection.scalar(_WAITS, {"the_seq": seq}))

    def _wait(self, seq: int, job: Job, *, strict: bool, behind: Collection[str] = ()) -> bool:
        """Notes which jobs have to finish first, if any; one that is not there counts as finished.

        strict  raises Conflict for one that has failed, which may be queued again otherwise, and for one of `behind`.
        behind  jobs that wait for this one, so that it does not for them.
        """
        found = [(uid, self.state(uid)) for uid in terms_of(job.head).after]
        for uid, state in found if strict else ():
            if state == ERROR or uid in behind:
                why = "has failed" if state == ERROR else "waits for it"
                raise Conflict(f'job "{job.uid}" would wait for job "{uid}", which {why}', where=uid)
        states = [(uid, state) for uid, state in found if uid not in behind]
        rows = [{"seq": seq, "uid": uid} for uid, state in states if state not in (None, FINISHED)]
        if rows:
            self.connection.execute(insert(waits), rows)
        return bool(rows)

    def _behind(self, uid: str) -> set[str]:
        """The jobs that wait for one, or for one of those."""
        found: set[str] = set()
        new = [uid]
        for each in new:  # grows
            waiting = set(self.connection.scalars(_WHO_WAITS, {"the_uid": each})) - found
            found |= waiting
            new += waiting
        return found

    def _settle(self, uid: str, state: str) -> None:
        """Where a job is over, those that wait for it go on, or fail with it."""
        if state == FINISHED:
            self._release(uid)
        failed = [uid] if state == ERROR else []
        for parent in failed:  # grows: a child that fails has children
            for seq in self.connection.scalars(_WAITING_FOR, {"the_uid": parent}).all():
                kind, job = self.at(seq)
                lost = abandon(job, f'job "{parent}", which it waits for, has failed', now=self._now)
                self.connection.execute(_SAVE, {"the_seq": seq, **_columns(lost, kind)})
                self.connection.execute(_WAIT_NO_MORE, {"the_seq": seq})
                self._tell(job, lost)
                failed.append(lost.uid)

    def _release(self, uid: str) -> None:
        released = self.connection.scalars(_WAITING_FOR, {"the_uid": uid}).all()
        self.connection.execute(_RELEASE, {"the_uid": uid})
        for seq in released:
            kind, job = self.at(seq)
            if not self._waits(seq):
                self._line_up(seq, job, kind, waiting=False)
                self.changes.append(_change(job))

    # Telling

    def _tell(self, old: Job | None, new: Job) -> None:
        change = _change(new)
        self.changes.append(change)
        if old is not None and old.state == new.state:
            return
        for hook in terms_of(new.head).webhooks:
            if hook.events is None or new.state in hook.events:
                self._enlist(change, hook.url, hook.secret)

    def _enlist(self, change: Change, url: str, secret: str) -> None:
        told = {"event": change.state, "time": stamp(self._now), "job": msgspec.Raw(change.record or b"null")}
        behind = self.connection.scalar(_IN_LINE, {"the_uid": change.uid, "the_url": url}) is not None
        made = {"uid": change.uid, "url": url, "secret": secret, "event": change.state, "body": _encode(told)}
        due = None if behind else self._now
        self.connection.execute(insert(deliveries), {**made, "created": self._now, "tries": 0, "due": due})

    # Idempotency-Key

    def created_under(self, key: str, digest: bytes) -> list[str] | None:
        """The uids made under a key. Raises AlreadyExists when it was for something else."""
        row = self.connection.execute(_MADE_UNDER, {"the_key": key}).one_or_none()
        if row is None:
            return None
        if row.digest != digest:
            raise AlreadyExists(f'Idempotency-Key "{key[:80]}" was used for another body', where="Idempotency-Key")
        return msgspec.json.decode(row.uids, type=list[str])

    def keep_key(self, key: str, digest: bytes, uids: list[str]) -> None:
        """Notes what was made under a key."""
        row = {"key": key, "digest": digest, "uids": _encode(uids), "created": self._now}
        self.connection.execute(insert(keys), row)


def digest_of(body: bytes) -> bytes:
    """What tells two requests under one Idempotency-Key apart."""
    return hashlib.sha256(body).digest()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except DBAPIError as err:
        raise Overloaded(f"the database does not take it: {err.orig}", where="database") from err


def _check_order(made: Sequence[Job]) -> None:
    """Raises Conflict when new jobs wait for each other in a circle: nobody else waits for them yet."""
    try:
        TopologicalSorter({job.uid: terms_of(job.head).after for job in made}).prepare()
    except CycleError as err:
        first, second = err.args[1][:2]
        raise Conflict(f'job "{second}" would wait for job "{first}", which waits for it', where=second) from None


def _columns(job: Job, kind: str) -> dict[str, object]:
    tags = tags_of(value_of(job.head, "tags"))
    executor = value_of(job.head, "executor")
    return {
        "uid": job.uid,
        "state": job.state,
        "type": word(job.head.get("type", raw(""))),
        "tags": "".join(f",{tag}" for tag in tags) + "," if tags else "",
        "kind": kind,
        "executor": executor if isinstance(executor, str) else None,
        "head": _encode(job.head),
        **{column.name: getattr(job, column.name) for column in _STATE},
    }


def _job(row: Any) -> Job:
    """row: of `_ROW`."""
    return Job(head=_document.decode(row.head), **{column.name: row._mapping[column] for column in _STATE})


def _change(job: Job) -> Change:
    return Change(job.uid, job.state, job.run, _encode(status_of(job.head)))


def _whole(connection: Connection, uid: str) -> bytes:
    row = connection.execute(_WHOLE, {"the_uid": uid}).one_or_none()
    if row is None:
        raise NotFound("job", uid)
    return _join(row.head, row.content)


def _join(head: bytes, content: bytes) -> bytes:
    """One JSON object of two; a head is never empty."""
    return head if content == b"{}" else head[:-1] + b"," + content[1:]


@lru_cache(RECORDS)
def _record(head: bytes) -> bytes:
    """The status record of a job, as JSON; kept, since lists are asked for again and again while few jobs change."""
    return _encode(status_of(_document.decode(head)))


def _filtered(wanted: Select[Any], which: Filter, after: int | None) -> Select[Any]:
    if which.states is not None:
        wanted = wanted.where(jobs.c.state.in_(which.states))
    if which.type is not None:
        wanted = wanted.where(jobs.c.type == which.type)
    if which.tag is not None:  # a search that knows upper and lower case in every database
        wanted = wanted.where(func.replace(jobs.c.tags, f",{which.tag},", "") != jobs.c.tags)
    if after is not None:
        wanted = wanted.where(jobs.c.seq < after if which.newest_first else jobs.c.seq > after)
    return wanted.order_by(jobs.c.seq.desc() if which.newest_first else jobs.c.seq)
