"""Jobs on disk: every step of a job as one transaction, which is over when it is answered.

It decides what is read and written, and in which order; it refuses to know the rules of the queue (`engine.jobs`), who
asks, and in which thread. Blocking: worker threads only. Writing methods must be called one at a time; the reading ones
may be called beside them and each other, up to `api.schema.READERS`.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
from sqlalchemy import (
    BindParameter,
    CompoundSelect,
    Connection,
    bindparam,
    delete,
    false,
    func,
    select,
    union_all,
    update,
)

from api.schema import Database, contents, deliveries, jobs
from api.transaction import SWEEP, Change, Transaction, is_due
from engine.errors import AlreadyExists, InvalidJob, NotFound
from engine.jobdocument import Document, check_content, kind_of, raw, read, split, tags_of, uid_of, value_of
from engine.jobs import OLDEST, QUEUED, Job, Rules, create, pick, pools_asked, put, status_of, take_over

UID_LENGTH: Final = 21  # as clients know it; 126 random bits
RECORDS: Final = 1 << 14  # kept; most have a kilobyte with their head
KEPT_BYTES: Final = 2048  # of a head whose record is kept: with errors of programs it has any number of them
RUN_BITS: Final = 20  # runs of a job are numbered from its place on; a million later would be those of the next one
PAUSE: Final = 0.15  # seconds between two transactions of many: who waits for SQLite looks every 0.1 s
MAX_ASKED: Final = 64  # tags, or states, asked for at once: each is a look-up of its own

_document: Final = msgspec.json.Decoder(Document)
_encode: Final = msgspec.json.Encoder().encode


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


class LeftOut(NamedTuple):
    """Deliveries that are not asked for.

    hosts  those to these: URLs up to their end, a /, ? or #.
    urls   those to these: URLs up to their end, a ? or #.
    after  what happened later than then, ms; None: nothing.
    """

    hosts: Collection[str] = ()
    urls: Collection[str] = ()
    after: int | None = None


# Made once: to build a statement costs more than to run it.
_UID: Final[BindParameter[str]] = bindparam("the_uid")
_NOW: Final[BindParameter[int]] = bindparam("now")
_HEADS = select(jobs.c.seq.label("place"), jobs.c.head)
_EVERY = _HEADS.add_columns(contents.c.content).join(contents, contents.c.seq == jobs.c.seq)
_WHOLE = _EVERY.where(jobs.c.uid == _UID)
_RECORD = select(jobs.c.state, jobs.c.run, jobs.c.head).where(jobs.c.uid == _UID)
_HELD = select(jobs.c.executor, jobs.c.uid).where(jobs.c.lease.is_not(None))
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
        """Opens it. Raises InvalidSpec, SourceMalformed as `api.schema.Database`."""
        self._rules = rules
        self._ordering = ordering
        self._chance = chance
        self._new_uid = new_uid
        self._database = Database(path)

    def close(self) -> None:
        """Closes its connections."""
        self._database.close()

    @contextmanager
    def _write(self, now: int) -> Iterator[Transaction]:
        with self._database.write() as connection:
            step = Transaction(connection, self._rules, now)
            yield step
            if step.has_ended:
                step.settle()

    # Steps

    def made(self, bodies: Sequence[Document], *, creator: str, now: int) -> list[tuple[Job, Document]]:
        """Jobs that may be added: meanwhile others may write. Raises InvalidJob."""
        return [create(body, uid=self._new_uid(), creator=creator, now=now) for body in bodies]

    def add(
        self, made: Sequence[tuple[Job, Document]], *, now: int, key: tuple[str, bytes] | None = None
    ) -> tuple[list[bytes], list[Change]]:
        """The jobs as they are queued, all of them or none.

        key     (Idempotency-Key, digest of the request): the second time, the jobs that it made then, as they are.
        Raises  AlreadyExists (a uid; a key with another digest, or whose jobs are deleted), Conflict (one
                waits for a failed job, or for itself).
        """
        with self._write(now) as write:
            known = None if key is None else write.created_under(*key)
            if key is not None and known is not None:
                try:
                    return [_whole(write.connection, uid) for uid in known], []
                except NotFound as err:
                    sentence = f'Idempotency-Key "{key[0][:80]}" was used for a job that is deleted: {err}'
                    raise AlreadyExists(sentence, where="Idempotency-Key") from None
            write.add(made)
            if key is not None:
                write.keep_key(*key, [job.uid for job, _ in made])
            return [_join(_encode(job.head), _encode(content)) for job, content in made], write.changes

    def take(self, document: bytes, *, now: int) -> tuple[int, int]:
        """(jobs taken, jobs left out) of the database file of another server: an array of jobs in their states.

        Of several jobs with one uid the last counts; what is here already stays as it is. A part of them at a time, so
        that others may write meanwhile: when it is cut off, a second time takes what is missing, and what waits for
        jobs that have finished there or are gone since goes on. Raises InvalidJob.
        """
        found = read(document.strip() or b"[]")  # its file is empty before the first job
        if not isinstance(found, list):
            raise InvalidJob("expected an array of jobs", where="$")
        named: dict[str, tuple[Job, Document]] = {}
        for body in _with_uids(found):
            named.pop(uid_of(body), None)
            whole = {"state": raw(QUEUED), "type": raw("default"), **body}
            named[uid_of(body)] = take_over(whole, now=now, rules=self._rules)
        states = {uid: job.state for uid, (job, _) in named.items()}
        names, taken = list(named), 0
        for start in range(0, len(names), SWEEP):
            if start:
                time.sleep(PAUSE)
            with self._write(now) as write:
                new = [named[uid] for uid in names[start : start + SWEEP] if write.state(uid) is None]
                write.add(new, coming=states)
            taken += len(new)
        with self._write(now) as write:
            write.release_stranded()
        return taken, len(found) - taken

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
                is_whole = "template" in new  # its state is what was read, not what is wanted
                if run is None and job.state == changed.state == QUEUED and "state" in head and not is_whole:
                    write.queue_again(seq)
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
        Raises       InvalidJob: too many tags.
        """
        _check_few(tags, "tags")
        with self._write(now) as write:
            if renew is not None or self._rules.unique_workers:
                write.lose_all_of(worker)
            write.promote()
            seq = write.first(pools_asked(kinds, tags), ordering=self._ordering, chance=self._chance)
            if seq is None:
                return None, write.changes
            kind, job, content = write.all_of(seq)
            job = msgspec.structs.replace(job, run=max(job.run, seq << RUN_BITS))
            picked = pick(job, worker=worker, now=now, rules=self._rules, renew=renew)
            write.save(seq, job, picked, kind=kind)
            return Picked(picked.uid, picked.run, _join(_encode(picked.head), content)), write.changes

    def sweep(self, *, now: int) -> tuple[list[Change], list[Change]]:
        """Takes jobs away from workers that are gone and queues those whose time has come, some of many at a time.

        Those go on, too, that waited for what is over. Returns (what was taken away, all that has changed).
        """
        with self._write(now) as write:
            write.expire()
            lost = list(write.changes)
            write.promote()
            write.forget_keys()
            write.has_ended = True  # maybe before
            return lost, write.changes

    def bring_near(self, *, now: int, pause: int) -> None:
        """At the start: what a clock that was ahead of this one has set is as near as if it were set now.

        pause  the longest one before a webhook is tried again, ms.
        """
        with self._write(now) as write:
            write.bring_near(pause)

    def resume(self, *, until: int, by: int = 0) -> None:
        """Nobody could report while nobody listened: what is held is held at least until then.

        by  ms that the clock was set by: leases, timeouts, pauses before another try and keys end as much later.
        """
        with self._write(until) as write:
            if by:
                write.move(by)
            write.hold()

    def is_due(self, *, now: int) -> bool:
        """Whether a sweep has anything to do: it costs others nothing to ask."""
        with self._database.read() as connection:
            return is_due(connection, now)

    # Telling

    def whole(self, uid: str) -> bytes:
        """A job as JSON. Raises NotFound."""
        with self._database.read() as connection:
            return _whole(connection, uid)

    def record(self, uid: str) -> Change:
        """A job's state. Raises NotFound."""
        state, run, head = self._found(uid)
        return Change(uid, state, run, _record(head))

    def output(self, uid: str) -> object:
        """What a job says that its output is; None: nothing. Raises NotFound."""
        _, _, head = self._found(uid)
        return value_of(_document.decode(head), "output")

    def page(self, which: Filter, *, after: int | None, limit: int, limit_bytes: int) -> tuple[list[bytes], int | None]:
        """(jobs as JSON, behind which place the next page begins or None), in the order of creation.

        after  behind this place; None: from the beginning.
        limit  so many at most, and no more than one that begins behind `limit_bytes`.
        Raises InvalidJob: too many states.
        """
        _check_few(which.states, "states")
        found: list[bytes] = []
        size = 0
        with self._database.read() as connection:
            for seq, head, *content in connection.execute(_filtered(which, after).limit(limit + 1)):
                if len(found) == limit or size > limit_bytes:
                    return found, after
                text = _join(head, *content) if content else _record(head)
                found.append(text)
                size += len(text)
                after = seq
        return found, None

    def held(self) -> list[tuple[str, str]]:
        """(worker, uid) of every job that somebody holds."""
        with self._database.read() as connection:
            return [(executor or "", uid) for executor, uid in connection.execute(_HELD)]

    def _found(self, uid: str) -> tuple[str, int, bytes]:
        """(state, run, head)"""
        with self._database.read() as connection:
            row = connection.execute(_RECORD, {"the_uid": uid}).one_or_none()
        if row is None:
            raise NotFound("job", uid)
        return row.state, row.run, row.head

    # Webhooks

    def undelivered(self, besides: Collection[int], limit: int, *, now: int, left_out: LeftOut) -> list[Delivery]:
        """What is due, the longest due first; without those of these ids, which are under way."""
        begins = defaultdict[int, list[str]](list)  # by length, one term each: what one query may have is limited
        for who, ends in [(each, "/?#") for each in left_out.hosts] + [(each, "?#") for each in left_out.urls]:
            begins[len(who) + 1] += [who, *(who + end for end in ends)]
        wanted = _UNDELIVERED.limit(limit + len(besides))
        if left_out.after is not None:
            wanted = wanted.where(deliveries.c.created <= left_out.after)
        for length, those in begins.items():
            wanted = wanted.where(func.substr(deliveries.c.url, 1, length).not_in(those))
        with self._database.read() as connection:
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
            after = write.in_line(delivery.uid, delivery.url)
            if after is not None:
                write.connection.execute(_DELIVER, {"the_id": after, "due": now})


def digest_of(body: bytes) -> bytes:
    """What tells two requests under one Idempotency-Key apart."""
    return hashlib.sha256(body).digest()


def _with_uids(found: Sequence[Document]) -> Iterator[Document]:
    """Jobs of another server; one without a uid is named by what it says and its place among those alike: a digest."""
    alike: Counter[bytes] = Counter()
    for each in found:
        if value_of(each, "uid"):
            yield each
        else:
            text = _encode(each)
            alike[text] += 1
            uid = hashlib.sha256(b"%d %b" % (alike[text], text)).hexdigest()[:UID_LENGTH]
            yield each | {"uid": raw(uid)}


def _check_few(words: Collection[str] | None, name: str) -> None:
    if words is not None and len(set(words)) > MAX_ASKED:
        raise InvalidJob(f"{len(set(words))} {name}, more than {MAX_ASKED}", where=name)


def _whole(connection: Connection, uid: str) -> bytes:
    row = connection.execute(_WHOLE, {"the_uid": uid}).one_or_none()
    if row is None:
        raise NotFound("job", uid)
    return _join(row.head, row.content)


def _join(head: bytes, content: bytes) -> bytes:
    """One JSON object of two; a head is never empty."""
    return head if content == b"{}" else head[:-1] + b"," + content[1:]


def _record(head: bytes) -> bytes:
    """The status record of a job, as JSON; kept, since lists are asked for again and again while few jobs change."""
    return _kept_record(head) if len(head) <= KEPT_BYTES else _made_record(head)


def _made_record(head: bytes) -> bytes:
    return _encode(status_of(_document.decode(head)))


_kept_record: Final = lru_cache(RECORDS)(_made_record)


def _filtered(which: Filter, after: int | None) -> CompoundSelect[Any]:
    """Those of several states are merged as they are read: to sort them, all would have to be read for each page."""
    wanted = _HEADS if which.records else _EVERY
    if which.type is not None:
        wanted = wanted.where(jobs.c.type == which.type)
    if which.tag is not None:  # a search that knows upper and lower case in every database
        tag = f",{','.join(tags_of(which.tag))},"
        wanted = wanted.where(func.replace(jobs.c.tags, tag, "") != jobs.c.tags)
    if after is not None:
        wanted = wanted.where(jobs.c.seq < after if which.newest_first else jobs.c.seq > after)
    every = [wanted]
    if which.states is not None:
        every = [wanted.where(jobs.c.state == state) for state in sorted(set(which.states))] or [wanted.where(false())]
    merged = union_all(*every)
    place = merged.selected_columns.place
    return merged.order_by(place.desc() if which.newest_first else place)
