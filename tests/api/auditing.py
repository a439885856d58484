"""Databases of jobs for tests: new ones quickly, jobs in one, and whether one is sound.

Sound is: every column is what the document says, and the queue is what may be picked.
"""

import functools
import tempfile
from pathlib import Path

import msgspec
from sqlalchemy import select

from api.schema import Database, contents, ended, jobs, queue, waits
from engine.jobdocument import kind_of, priority_of, read, tags_of, terms_of, uid_of, value_of, word
from engine.jobs import pools_of


@functools.cache
def _empty():
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "jobs.db"
        Database(path).close()
        return path.read_bytes()


def new_database(path):
    """An empty one, where there is none: a copy, because making one takes longer than most tests."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_empty())


def created(store, bodies, *, now, key=None):
    """Jobs of these documents, all of them or none, and what changed, as `Store.add` gives them."""
    return store.add(store.made(bodies, creator="c", now=now), now=now, key=key)


def audit(store):
    """The state of every job by its name. Raises AssertionError."""
    with store._database.read() as connection:
        assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
        rows = connection.execute(select(jobs)).all()
        content = dict(tuple(row) for row in connection.execute(select(contents.c.seq, contents.c.content)))
        lines = {tuple(row) for row in connection.execute(select(queue.c.seq, queue.c.pool, queue.c.priority))}
        waiting = {tuple(row) for row in connection.execute(select(waits.c.seq, waits.c.uid))}
        going_on = set(connection.scalars(select(ended.c.seq)))
    states = {row.uid: row.state for row in rows}
    assert set(content) == {row.seq for row in rows}
    expected = set()
    for row in rows:
        head = read(row.head)
        tags = tags_of(value_of(head, "tags"))
        assert (uid_of(head), word(head["state"])) == (row.uid, row.state)
        assert row.tags == (f",{','.join(tags)}," if tags else "")
        assert row.kind == kind_of(head | msgspec.json.decode(content[row.seq], type=dict[str, msgspec.Raw]))
        mine = {uid for seq, uid in waiting if seq == row.seq}
        if row.state != "queued":
            assert not mine
            assert row.seq not in going_on
            assert row.due is None
        else:
            after = terms_of(head).after
            assert mine == {uid for uid in after if states.get(uid, "finished") != "finished"}
            if row.due is None and not mine and row.seq not in going_on:
                priority = priority_of(value_of(head, "priority"))
                expected |= {(row.seq, pool, priority) for pool in pools_of(row.kind, tags)}
    assert lines == expected
    return states
