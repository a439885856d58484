"""The database of jobs while something is done to it: the statements of a transaction, and who is told afterwards.

It decides what else happens when a job changes: who waits for it, in which pools it is, which webhooks hear of it; it
refuses to know what was asked for (`api.store`) and the rules of the queue (`engine.jobs`). Blocking: worker threads
only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Any, Final, NamedTuple

import msgspec
from sqlalchemy import (
    BindParameter,
    Connection,
    Select,
    Text,
    bindparam,
    case,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    update,
)

from api.schema import contents, deliveries, ended, jobs, keys, queue, waits
from engine.errors import AlreadyExists, Conflict, NotFound
from engine.jobdocument import Document, kind_of, priority_of, raw, stamp, tags_of, terms_of, value_of, word
from engine.jobs import (
    ERROR,
    FINAL,
    FINISHED,
    NEWEST,
    OLDEST,
    PRIORITY,
    QUEUED,
    RANDOM,
    Job,
    Rules,
    abandon,
    expire,
    lose,
    near,
    pools_of,
    status_of,
)

KEY_LIFE: Final = 86_400_000  # ms until an Idempotency-Key is forgotten
SWEEP: Final = 500  # jobs in one transaction, of the sweep, an import or those that waited: others wait meanwhile

_document: Final = msgspec.json.Decoder(Document)
_encode: Final = msgspec.json.Encoder().encode


class Change(NamedTuple):
    """What everybody may hear of a job once it is committed; `record` is its status, None when it was removed."""

    uid: str
    state: str
    run: int
    record: bytes | None


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
_INSERT = insert(jobs).returning(jobs.c.seq, sort_by_parameter_order=True)  # of many jobs in a statement
_INSERT_CONTENT = insert(contents)
_LINE_UP = insert(queue)
_NAMED = select(jobs.c.uid).where(jobs.c.uid.in_(bindparam("names", expanding=True)))
_SAVE = update(jobs).where(jobs.c.seq == _SEQ)
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
_HELD_AHEAD = _ROW.where(jobs.c.lease > _NOW)
_DUE_AHEAD = _ROW.where(jobs.c.due > _NOW, jobs.c.attempts > 0)
_NEAR_DUE = update(deliveries).where(deliveries.c.due > bindparam("last")).values(due=bindparam("last"))
_NEAR_MADE = [update(table).where(table.c.created > _NOW).values(created=_NOW) for table in (deliveries, keys)]
_DUE_AGAIN = select(jobs.c.seq).where(jobs.c.due.is_not(None), jobs.c.attempts > 0)
_HELD_BY = select(jobs.c.seq).where(jobs.c.executor == bindparam("worker"), jobs.c.lease.is_not(None)).limit(SWEEP)
_CONTENT = select(contents.c.content).where(contents.c.seq == _SEQ)
_SAVE_CONTENT = update(contents).where(contents.c.seq == _SEQ)
_FORGET = [delete(table).where(table.c.seq == _SEQ) for table in (jobs, contents, queue, waits, ended)]
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
_WAITS = select(or_(exists().where(waits.c.seq == _SEQ), exists().where(ended.c.seq == _SEQ)))
_WAIT_NO_MORE = delete(waits).where(waits.c.seq == _SEQ)
_WHO_WAITS = select(jobs.c.uid).join(waits, waits.c.seq == jobs.c.seq).where(waits.c.uid == _UID)
_WAITED = select(waits.c.seq, waits.c.uid, bindparam("the_state", type_=Text)).where(waits.c.uid == _UID)
_END = insert(ended).from_select(("seq", "uid", "state"), _WAITED.order_by(waits.c.seq))
_RELEASE = delete(waits).where(waits.c.uid == _UID)
_ENDED = select(ended).order_by(ended.c.id).limit(bindparam("most"))
_GO_ON = delete(ended).where(ended.c.id <= bindparam("the_id"))
_GO_ON_NO_MORE = delete(ended).where(ended.c.seq == _SEQ)
_IN_VAIN = select(waits.c.uid).distinct().where(~exists().where(jobs.c.uid == waits.c.uid, jobs.c.state != FINISHED))
_MADE_UNDER = select(keys.c.digest, keys.c.uids).where(keys.c.key == bindparam("the_key"))
_OLD_KEYS = keys.c.created < _NOW
_LINE = (deliveries.c.uid == _UID, deliveries.c.url == bindparam("the_url"))
_IN_LINE = select(func.min(deliveries.c.id)).where(*_LINE)


class Transaction:
    """Steps within one transaction, and what is to be told when it is committed."""

    def __init__(self, connection: Connection, rules: Rules, now: int) -> None:
        self.connection = connection
        self.changes: list[Change] = []
        self.has_ended = False  # something that others wait for: they `settle` before it is committed
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

    def all_of(self, seq: int) -> tuple[str, Job, bytes]:
        """(kind, job, its content as JSON)."""
        row = self.connection.execute(_ALL_AT, {"the_seq": seq}).one()
        return row.kind, _job(row), row.content

    def _some(self, which: Select[int], **parameters: object) -> Sequence[int]:
        """The places of these jobs."""
        return self.connection.scalars(which, parameters).all()

    def first(self, pools: Sequence[str], *, ordering: str, chance: Callable[[int], int]) -> int | None:
        """The place of the job that is next in these pools; see `api.store.Store`."""
        if ordering == RANDOM:
            choice = select(queue.c.seq).where(queue.c.pool.in_(pools)).distinct()
            count = self.connection.scalar(select(func.count()).select_from(choice.subquery())) or 0
            chosen = choice.order_by(queue.c.seq).offset(chance(count)).limit(1) if count else None
            return None if chosen is None else self.connection.scalar(chosen)
        first = _FIRST[ordering]
        found = [row for pool in pools for row in self.connection.execute(first, {"the_pool": pool})]
        if ordering == PRIORITY:
            return min(((-priority, seq) for priority, seq in found), default=(0, None))[1]
        return (max if ordering == NEWEST else min)((seq for _, seq in found), default=None)

    # Jobs

    def add(self, made: Sequence[tuple[Job, Document]], *, coming: Mapping[str, str] | None = None) -> None:
        """New jobs, which may wait for each other in any order.

        coming  states by name of all that another server had, of which these are a part: nobody hears of them. None:
                they are a client's, and what they wait for must come.
        Raises  AlreadyExists; Conflict when one waits for one that has failed, or for itself.
        """
        told = coming is None
        kinds = [kind_of(job.head | content) for job, content in made]
        places = self._insert(made, kinds)
        if told:
            _check_order([job for job, _ in made])
        free: list[dict[str, object]] = []
        for (job, _), seq, kind in zip(made, places, kinds, strict=True):
            if job.state == QUEUED and not self._wait(seq, job, strict=told, coming=coming):
                free += _places(seq, job, kind)
            if told:
                self._tell(None, job)
        if free:
            self.connection.execute(_LINE_UP, free)

    def _insert(self, made: Sequence[tuple[Job, Document]], kinds: Sequence[str]) -> Sequence[int]:
        """The seq of each new row. Raises AlreadyExists."""
        if not made:
            return []
        named = Counter(job.uid for job, _ in made)
        there = set(self.connection.scalars(_NAMED, {"names": list(named)}))
        for uid, times in named.items():
            if times > 1 or uid in there:
                raise AlreadyExists(f'job "{uid}" exists', where=uid)
        rows = [_columns(job, kind) for (job, _), kind in zip(made, kinds, strict=True)]
        places = self.connection.scalars(_INSERT, rows).all()
        texts = [{"seq": seq, "content": _encode(content)} for seq, (_, content) in zip(places, made, strict=True)]
        self.connection.execute(_INSERT_CONTENT, texts)
        return places

    def save(self, seq: int, old: Job, new: Job, *, kind: str) -> None:
        """A job after a step. Raises Conflict when what it is to wait for from now on has failed or waits for it."""
        self.connection.execute(_SAVE, {"the_seq": seq, **_columns(new, kind)})
        if old.state == QUEUED:
            self.connection.execute(_LEAVE, {"the_seq": seq})
            if new.state != QUEUED:
                self.connection.execute(_GO_ON_NO_MORE, {"the_seq": seq})
            if terms_of(old.head).after:
                self.connection.execute(_WAIT_NO_MORE, {"the_seq": seq})
        if new.state == QUEUED:
            after = terms_of(new.head).after
            behind = self._behind(new.uid) if after else ()
            self._wait(seq, new, strict=terms_of(old.head).after != after, behind=behind)
            self._line_up(seq, new, kind, waiting=self._waits(seq))
        self._tell(old, new)
        if old.state != new.state and new.state in FINAL:
            self._end(new.uid, new.state)

    def save_content(self, seq: int, content: bytes) -> None:
        """Its content after a change, as JSON."""
        self.connection.execute(_SAVE_CONTENT, {"the_seq": seq, "content": content})

    def remove(self, uid: str) -> None:
        """A job and all that hangs on it. Raises NotFound."""
        seq, _, job = self.load(uid)
        for statement in _FORGET:
            self.connection.execute(statement, {"the_seq": seq})
        self.changes.append(Change(uid, "removed", job.run, None))
        self._end(uid, FINISHED)

    def lose_all_of(self, worker: str) -> None:
        """Who asks for a job holds none."""
        for seq in self._some(_HELD_BY, worker=worker):
            kind, job = self.at(seq)
            how = "asked for another job while it had this one: it was started again, or two have its name"
            self.save(seq, job, lose(job, now=self._now, rules=self._rules, how=how), kind=kind)

    # Queue

    def expire(self) -> None:
        """Takes jobs away from workers that are gone."""
        for seq in self._some(_EXPIRED, now=self._now):
            kind, job = self.at(seq)
            self.save(seq, job, expire(job, now=self._now, rules=self._rules), kind=kind)

    def hold(self) -> None:
        """What is held is held until now at least."""
        self.connection.execute(_RESUME, {"now": self._now})

    def bring_near(self, pause: int) -> None:
        """No moment that is our own lies later than if it were set now; `pause` is the longest of deliveries, ms."""
        for ahead in (_HELD_AHEAD, _DUE_AHEAD):
            for row in self.connection.execute(ahead, {"now": self._now}).all():
                job = near(_job(row), now=self._now, rules=self._rules)
                times = {"lease": job.lease, "deadline": job.deadline, "due": job.due}
                self.connection.execute(_SAVE, {"the_seq": row.seq, **times})
        self.connection.execute(_NEAR_DUE, {"last": self._now + pause})
        for statement in _NEAR_MADE:
            self.connection.execute(statement, {"now": self._now})

    def move(self, by: int) -> None:
        """Moves every moment that is our own; not those that users gave, by the time of day."""
        for statement in (_MOVE_HELD, _MOVE_DELIVERIES, _MOVE_KEYS):
            self.connection.execute(statement, {"by": by})
        for seq in self._some(_DUE_AGAIN):
            _, job = self.at(seq)
            if job.due is not None and job.due != terms_of(job.head).not_before:
                self.connection.execute(_SAVE, {"the_seq": seq, "due": job.due + by})

    def promote(self) -> None:
        """Queues jobs whose time has come."""
        for seq in self._some(_DUE, now=self._now):
            self.connection.execute(_SAVE, {"the_seq": seq, "due": None})
            kind, job = self.at(seq)
            if job.state == QUEUED:  # a database of before may have others
                self._line_up(seq, job, kind, waiting=self._waits(seq))
                self.changes.append(_change(job))  # others wait for it too

    def _line_up(self, seq: int, job: Job, kind: str, *, waiting: bool) -> None:
        """Puts a queued job where it may be picked from, if it may."""
        if not waiting and (rows := _places(seq, job, kind)):
            self.connection.execute(_LINE_UP, rows)

    def _waits(self, seq: int) -> bool:
        return bool(self.connection.scalar(_WAITS, {"the_seq": seq}))

    def _wait(
        self, seq: int, job: Job, *, strict: bool, behind: Collection[str] = (), coming: Mapping[str, str] | None = None
    ) -> bool:
        """Notes which jobs have to finish first, if any; one that is not there counts as finished.

        strict  raises Conflict for one that has failed, which may be queued again otherwise, and for one of `behind`.
        behind  jobs that wait for this one, so that it does not for them.
        coming  states of jobs that are not there yet.
        """
        coming = coming or {}
        found = [(uid, self.state(uid) or coming.get(uid)) for uid in terms_of(job.head).after]
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

    def _end(self, uid: str, state: str) -> None:
        """Where a job is over, those that wait for it go on, or fail with it, in `settle`: what happens then is set."""
        if self.connection.execute(_END, {"the_uid": uid, "the_state": state}).rowcount:
            self.connection.execute(_RELEASE, {"the_uid": uid})
            self.has_ended = True

    def release_stranded(self) -> None:
        """Those go on that wait for what has finished elsewhere, or never came: an import that was cut off has such."""
        for uid in self.connection.scalars(_IN_VAIN).all():
            self._end(uid, FINISHED)

    def queue_again(self, seq: int) -> None:
        """A queued job that its client queues: what has ended before no longer counts, but how its parents are now."""
        self.connection.execute(_GO_ON_NO_MORE, {"the_seq": seq})

    def settle(self) -> None:
        """Those that waited for what is over go on, or fail with it, as those do that wait for them: `SWEEP` of all."""
        done = 0
        while done < SWEEP and (rows := self.connection.execute(_ENDED, {"most": SWEEP - done}).all()):
            self.connection.execute(_GO_ON, {"the_id": rows[-1].id})
            failed = {row.seq: row.uid for row in reversed(rows) if row.state == ERROR}
            for seq in dict.fromkeys(row.seq for row in rows):
                self._go_on(seq, failed.get(seq))
            done += len(rows)

    def _go_on(self, seq: int, failed: str | None) -> None:
        """A queued job, one less of whose parents it waits for; `failed` if that one has."""
        kind, job = self.at(seq)
        if failed is not None:
            lost = abandon(job, f'job "{failed}", which it waits for, has failed', now=self._now)
            self.save(seq, job, lost, kind=kind)
        elif not self._waits(seq):
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
        behind = self.in_line(change.uid, url) is not None
        made = {"uid": change.uid, "url": url, "secret": secret, "event": change.state, "body": _encode(told)}
        due = None if behind else self._now
        self.connection.execute(insert(deliveries), {**made, "created": self._now, "tries": 0, "due": due})

    def in_line(self, uid: str, url: str) -> int | None:
        """The first that this receiver is to be told of this job."""
        found: int | None = self.connection.scalar(_IN_LINE, {"the_uid": uid, "the_url": url})
        return found

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

    def forget_keys(self) -> None:
        """Those that are too old."""
        self.connection.execute(delete(keys).where(_OLD_KEYS), {"now": self._now - KEY_LIFE})


def is_due(connection: Connection, now: int) -> bool:
    """Whether any job expires, can be promoted or goes on, or any key is to be forgotten."""
    old_keys = select(keys.c.created).where(_OLD_KEYS)
    questions = ((_EXPIRED, now), (_DUE, now), (select(ended.c.id), now), (old_keys, now - KEY_LIFE))
    return any(connection.scalar(each.limit(1), {"now": then}) is not None for each, then in questions)


def _check_order(made: Sequence[Job]) -> None:
    """Raises Conflict when new jobs wait for each other in a circle: nobody else waits for them yet."""
    try:
        TopologicalSorter({job.uid: terms_of(job.head).after for job in made}).prepare()
    except CycleError as err:
        first, second = err.args[1][:2]
        raise Conflict(f'job "{second}" would wait for job "{first}", which waits for it', where=second) from None


def _places(seq: int, job: Job, kind: str) -> list[dict[str, object]]:
    """Rows of the queue, for a queued job that waits for no other."""
    if job.due is not None:
        return []
    priority = priority_of(value_of(job.head, "priority"))
    pools = pools_of(kind, tags_of(value_of(job.head, "tags")))
    return [{"pool": pool, "seq": seq, "priority": priority} for pool in pools]


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
