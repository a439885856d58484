"""Jobs on disk: what is answered is kept, the queue gives the right job, and several things at once do not disturb."""

import itertools
import json
import os
import resource
import sqlite3
import subprocess
import sys
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

import api.store
import api.transaction
from api import schema
from api.schema import Database, backup, jobs
from api.store import Filter, LeftOut, Store, digest_of
from api.transaction import KEY_LIFE
from api.webhooks import AT_ONCE, MAX_AWAY
from engine.errors import AlreadyExists, Conflict, InvalidJob, InvalidSpec, NotFound, Overloaded, SourceMalformed
from engine.jobdocument import DOCUMENT, PROJECT, read
from engine.jobs import ORDERINGS, Rules
from tests.api.auditing import audit, created, new_database

NOW = 1_700_000_000_000
TEMPLATE = {"src": "file:///a.aepx", "composition": "main"}
ROOT = Path(__file__).parents[2]


def body(**fields):
    return read(json.dumps({"template": TEMPLATE, **fields}).encode())


class Bench:
    """A store, with fewer words."""

    def __init__(self, path, **options):
        numbers = itertools.count(1)
        options = {"rules": Rules(), "new_uid": lambda: f"j{next(numbers)}", **options}
        self.path, self.now, self.changes = path, NOW, []
        new_database(path)
        self.store = Store(path, **options)

    def note(self, answer):
        self.changes += answer[1]
        return answer[0]

    def add(self, **fields):
        """The uid of a new job."""
        return json.loads(self.note(created(self.store, [body(**fields)], now=self.now))[0])["uid"]

    def pick(self, worker="w", **asked):
        """The uid of the next job."""
        picked = self.note(self.store.pick(worker, now=self.now, **asked))
        self.run = picked and picked.run
        return picked and picked.uid

    def put(self, uid, /, run=None, **fields):
        return json.loads(self.note(self.store.put(uid, read(json.dumps(fields).encode()), now=self.now, run=run)).job)

    def job(self, uid):
        return json.loads(self.store.whole(uid))

    def state(self, uid):
        return self.store.record(uid).state

    def sweep(self):
        """Whether a job can be picked that could not before."""
        changes = self.store.sweep(now=self.now)[1]
        self.changes += changes
        return any(change.state == "queued" for change in changes)

    def sweep_all(self):
        """How often, until nothing is due."""
        for times in range(100):
            if not self.store.is_due(now=self.now):
                return times
            self.sweep()
        raise AssertionError("something is due for ever")

    def listed(self, after=None, limit=1000, **which):
        rows, self.more = self.store.page(Filter(**which), after=after, limit=limit, limit_bytes=1 << 20)
        return [json.loads(row) for row in rows]

    def uids(self, **which):
        return [each["uid"] for each in self.listed(**which)]


def plan_of(bench, statement):
    """What SQLite would do, step by step."""
    with bench.store._database.read() as connection:
        text = str(statement.compile(connection.engine))
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", (0,) * text.count("?"))
        return [row.detail for row in plan]


@pytest.fixture
def opened(tmp_path):
    """Makes benches on one database, and looks at it in the end."""
    made = []

    def bench(**options):
        made.append(Bench(tmp_path / "jobs.db", **options))
        return made[-1]

    yield bench
    for each in made:
        audit(each.store)
        each.store.close()


@pytest.fixture
def bench(opened):
    return opened()


# --- documents -------------------------------------------------------------------------------------------------------


def test_a_job_reads_back_as_it_was_made(bench):
    fields = {"mine": {"deep": [1, None, "é"]}, "priority": "high", "tags": "a, b", "error": {}}
    uid = bench.add(**fields)
    job = bench.job(uid)
    assert {key: job[key] for key in fields} == fields
    assert job["template"] == TEMPLATE


def test_numbers_keep_their_digits(bench):
    made = read(b'{"template":{"src":"a","composition":"b"},"x":1.50,"y":123456789012345678901234567890,"uid":5}')
    assert b'"x":1.50,"y":123456789012345678901234567890' in bench.note(created(bench.store, [made], now=NOW))[0]
    assert bench.job("5")["uid"] == 5


def test_what_was_made_is_there_after_opening_again(opened):
    first = opened()
    uid = first.add(mine=1)
    first.pick()
    first.store.close()
    again = opened()
    assert (again.state(uid), again.job(uid)["mine"]) == ("picked", 1)


def test_content_changes_by_whole_keys(bench):
    uid = bench.add(mine={"a": 1}, other=2)
    bench.put(uid, mine={"b": 2}, template={"src": "x.json", "composition": "c", "new": True})
    job = bench.job(uid)
    assert (job["mine"], job["other"], job["template"]["new"]) == ({"b": 2}, 2, True)


def test_a_change_that_makes_no_sense_changes_nothing(bench):
    uid = bench.add()
    before = bench.store.whole(uid)
    for fields in ({"template": {"composition": "x"}}, {"assets": [{"type": "film"}]}, {"state": ""}, {"uid": "b"}):
        with pytest.raises(InvalidJob):
            bench.put(uid, **fields)
    assert bench.store.whole(uid) == before


def test_what_is_not_there_is_not_found(bench):
    for ask in (bench.job, bench.state, bench.put, lambda uid: bench.store.remove(uid, now=NOW)):
        with pytest.raises(NotFound):
            ask("nosuch")


def test_a_name_is_given_once(bench):
    bench.add(uid="a")
    with pytest.raises(AlreadyExists):
        bench.add(uid="a")
    bench.add(uid="A")
    bench.store.remove("a", now=NOW)
    bench.add(uid="a")
    assert bench.uids() == ["A", "a"]


def test_several_are_made_or_none(bench):
    with pytest.raises(AlreadyExists):
        created(bench.store, [body(uid="a"), body(uid="b"), body(uid="a")], now=NOW)
    with pytest.raises(InvalidJob):
        created(bench.store, [body(uid="a"), body(uid="")], now=NOW)
    assert bench.uids() == []
    made = bench.note(created(bench.store, [body(uid="a"), body(uid="b", after="a")], now=NOW))
    assert [json.loads(each)["uid"] for each in made] == ["a", "b"]


def test_names_that_are_given_have_21_characters(tmp_path):
    new_database(tmp_path / "jobs.db")
    store = Store(tmp_path / "jobs.db", rules=Rules())
    made, _ = created(store, [body(), body()], now=NOW)
    names = {json.loads(each)["uid"] for each in made}
    assert len(names) == 2
    assert {len(name) for name in names} == {21}
    store.close()


# --- the next job ----------------------------------------------------------------------------------------------------


def number(value):
    """JavaScript's Number(), of what the test uses."""
    return {None: 0, "high": 0, "7": 7, True: 1}.get(value, value)


JOB = st.fixed_dictionaries(
    {
        "tags": st.sampled_from(["", "a", "a,b", " b ,c", "A", ["a", "c"]]),
        "priority": st.sampled_from([0, 1, -1, 2.5, "7", "high", None, True]),
        "src": st.sampled_from(["x.json", "x.aepx"]),
    }
)
ASK = st.fixed_dictionaries(
    {
        "tags": st.none() | st.sets(st.sampled_from("abcA"), max_size=3),
        "kinds": st.none() | st.sampled_from([[DOCUMENT], [PROJECT], [DOCUMENT, PROJECT], []]),
    }
)


@pytest.mark.parametrize("ordering", ORDERINGS)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(added=st.lists(JOB, max_size=8), asked=st.lists(ASK, max_size=10), seed=st.randoms(use_true_random=False))
def test_a_pick_gives_the_first_job_that_fits(tmp_path_factory, ordering, added, asked, seed):
    bench = Bench(tmp_path_factory.mktemp("pick") / "jobs.db", ordering=ordering, chance=seed.randrange)
    left = {}
    for each in added:
        uid = bench.add(tags=each["tags"], priority=each["priority"], template={**TEMPLATE, "src": each["src"]})
        tags = each["tags"] if isinstance(each["tags"], list) else [item.strip() for item in each["tags"].split(",")]
        left[uid] = (set(tags) - {""}, number(each["priority"]), DOCUMENT if "json" in each["src"] else PROJECT)
    for ask in asked:
        fitting = [
            uid
            for uid, (tags, _, kind) in left.items()
            if (ask["tags"] is None or tags & ask["tags"]) and (ask["kinds"] is None or kind in ask["kinds"])
        ]
        picked = bench.pick(**ask)
        if ordering == "random" and fitting:
            assert picked in fitting
        elif ordering == "priority":
            assert picked == max(fitting, key=lambda uid: left[uid][1], default=None)
        else:
            assert picked == (fitting[-1 if ordering == "newest-first" else 0] if fitting else None)
        left.pop(picked, None)
    audit(bench.store)
    bench.store.close()


def test_random_picks_reach_every_job(opened):
    chances = iter([2, 0, 1, 0])
    asked = []
    bench = opened(ordering="random", chance=lambda below: asked.append(below) or next(chances))
    names = [bench.add(tags="a,b") for _ in range(4)]
    picked = [bench.pick(tags=["a", "b"]) for _ in range(4)]
    assert asked == [4, 3, 2, 1]
    assert picked == [names[2], names[0], names[3], names[1]]


def test_queueing_again_does_not_move_a_job(bench):
    first, second = bench.add(), bench.add()
    assert bench.pick() == first
    bench.put(first, state="queued")
    assert [bench.pick(), bench.pick(), bench.pick()] == [first, second, None]


def test_what_is_changed_is_picked_as_what_it_is_now(opened):
    bench = opened(ordering="priority")
    first, second = bench.add(), bench.add()
    bench.put(second, priority=5, tags="x", template={**TEMPLATE, "src": "y.json"})
    assert bench.pick(tags=["x"], kinds=[DOCUMENT]) == second
    bench.put(second, state="queued", type="mash")
    bench.put(first, type="mash")
    assert [bench.pick(kinds=[DOCUMENT]) for _ in range(2)] == [second, first]


def test_a_pick_has_few_tags(bench):
    with pytest.raises(InvalidJob):
        bench.pick(tags=[str(n) for n in range(65)])


def test_many_at_once_get_different_jobs(bench):
    names = {bench.add() for _ in range(20)}
    lock = threading.Lock()

    def pick(_):
        with lock:  # as the limiter of one writer
            return bench.pick()

    with ThreadPoolExecutor(8) as pool:
        picked = list(pool.map(pick, range(30)))
    assert picked.count(None) == 10
    assert {each for each in picked if each} == names


def test_two_processes_share_one_database(opened):
    """Two stores on one file; each has a writer of its own."""
    first, second = opened(), opened(new_uid=lambda: "unused")
    names = {first.add() for _ in range(40)}
    with ThreadPoolExecutor(2) as pool:
        halves = pool.map(lambda bench: [bench.pick() for _ in range(20)], (first, second))
    picked = [uid for half in halves for uid in half]
    assert set(picked) == names


# --- later, after ----------------------------------------------------------------------------------------------------


def test_a_job_for_later_is_not_picked_before(bench):
    uid = bench.add(notBefore=NOW + 5000)
    assert bench.pick() is None
    bench.now += 4999
    assert not bench.store.is_due(now=bench.now)
    bench.now += 1
    assert bench.store.is_due(now=bench.now)
    assert bench.sweep() is True
    assert not bench.store.is_due(now=bench.now)
    assert bench.pick() == uid


def test_a_pick_sees_by_itself_that_the_time_has_come(bench):
    uid = bench.add(notBefore=NOW + 5000)
    bench.now += 5000
    assert bench.pick() == uid


def test_a_pick_that_sees_it_tells_those_who_wait_for_the_others(bench):
    uids = [bench.add(notBefore=NOW + 5000) for _ in range(3)]
    bench.now += 5000
    told = len(bench.changes)
    assert bench.pick() == uids[0]
    assert {change.uid for change in bench.changes[told:] if change.state == "queued"} >= set(uids[1:])


def test_a_failed_job_waits_before_it_is_tried_again(bench):
    uid = bench.add(maxAttempts=2, retryDelay=3)
    bench.pick()
    assert bench.put(uid, run=bench.run, state="error", error="x")["state"] == "queued"
    assert bench.pick() is None
    bench.now += 3000
    assert bench.pick() == uid


def test_a_job_waits_for_others(bench):
    first, second = bench.add(), bench.add()
    child = bench.add(after=[first, second], parentUid="nosuch")
    assert [bench.pick(), bench.pick(), bench.pick()] == [first, second, None]
    bench.put(first, state="finished")
    assert bench.pick() is None
    bench.put(second, state="finished")
    assert bench.changes[-1].uid == child
    assert bench.pick() == child


def test_a_job_that_waits_fails_with_what_it_waits_for(bench):
    names = [bench.add()]
    for _ in range(3):
        names.append(bench.add(after=names[-1]))
    bench.put(names[0], state="error")
    assert [bench.state(uid) for uid in names] == ["error"] * 4
    assert bench.job(names[3])["error"] == f'job "{names[2]}", which it waits for, has failed'
    with pytest.raises(Conflict):
        bench.add(parentUid=names[0])


def test_a_long_line_of_jobs_fails(bench):
    made = [body(uid=f"n{n}", after=f"n{n - 1}") for n in range(1200)]
    created(bench.store, made, now=NOW)
    bench.put("n0", state="error")
    assert bench.sweep_all() == 2
    assert bench.state("n1199") == "error"


def test_a_job_waits_for_those_that_are_made_with_it_in_any_order(bench):
    made = [body(uid="film", after=["one", "two"]), body(uid="one", parentUid="two"), body(uid="two")]
    bench.note(created(bench.store, made, now=NOW))
    for uid in ("two", "one", "film"):
        assert [bench.pick(), bench.pick()] == [uid, None]
        bench.put(uid, state="finished")
    many = [body(uid=f"n{n}", after=f"n{n + 1}") for n in range(1200)]
    bench.note(created(bench.store, many, now=NOW))
    assert [bench.pick(), bench.pick()] == ["n1199", None]


def test_of_jobs_that_would_wait_for_each_other_none_is_kept(bench):
    made = [body(uid="fine"), body(uid="a", after="b"), body(uid="b", after=["fine", "c"]), body(uid="c", after="a")]
    with pytest.raises(Conflict, match=r'^job "." would wait for job ".", which waits for it$'):
        created(bench.store, made, now=NOW)
    assert bench.uids() == []
    assert bench.add(uid="a", after="a") == bench.pick()  # who names itself means nothing


@pytest.mark.parametrize("at_once", [1, 2])
def test_imported_jobs_wait_for_each_other_in_any_order(bench, monkeypatch, at_once):
    monkeypatch.setattr(api.store, "SWEEP", at_once)
    whole = {"template": TEMPLATE, "assets": [], "actions": {}, "state": "queued"}
    theirs = [{**whole, "uid": "film", "after": ["part", "done"]}, {**whole, "uid": "part"}]
    theirs.append({**whole, "uid": "done", "state": "finished"})
    assert bench.store.take(json.dumps(theirs).encode(), now=NOW) == (3, 0)
    assert [bench.pick(), bench.pick()] == ["part", None]
    bench.put("part", state="finished")
    assert bench.pick() == "film"


def test_a_retry_is_no_failure_for_those_who_wait(bench):
    parent = bench.add(maxAttempts=2)
    child = bench.add(after=parent)
    bench.pick()
    bench.put(parent, run=bench.run, state="error")
    assert bench.state(child) == "queued"
    assert bench.pick() == parent
    bench.put(parent, state="finished")
    assert bench.pick() == child


def family(bench, monkeypatch):
    """A parent, whose five children go on two at a time, and a child of those."""
    monkeypatch.setattr(api.transaction, "SWEEP", 2)
    children = [f"child{n}" for n in range(5)]
    made = [{"uid": "parent"}, *({"uid": uid, "after": "parent"} for uid in children)]
    for fields in [*made, {"uid": "last", "after": children}]:
        bench.add(**fields)
    assert bench.pick() == "parent"
    return children


@pytest.mark.parametrize("is_removed", [False, True])
def test_others_write_while_many_go_on_that_waited_for_one_job(bench, monkeypatch, is_removed):
    children = family(bench, monkeypatch)
    if is_removed:
        bench.store.remove("parent", now=NOW)
    else:
        bench.put("parent", state="finished")
    assert [bench.pick() for _ in range(3)] == [*children[:2], None]
    mine = bench.add()
    assert bench.sweep() is True
    assert [bench.pick() for _ in range(4)] == [*children[2:4], mine, None]
    assert bench.sweep_all() == 1
    assert [bench.pick(), bench.pick()] == [children[4], None]
    for uid in children:
        bench.put(uid, state="finished")
    assert bench.pick() == "last"


@pytest.mark.parametrize("is_lost", [False, True])
def test_others_write_while_many_fail_that_waited_for_one_job(opened, monkeypatch, is_lost):
    bench = opened(rules=Rules(lost_attempts=1))
    children = family(bench, monkeypatch)
    if is_lost:
        bench.now += 90_000
        bench.sweep()
    else:
        bench.put("parent", state="error")
    seen = []
    for others in range(4):
        seen.append([uid for uid in [*children, "last"] if bench.state(uid) == "error"])
        assert bench.add(uid=f"other{others}") == bench.pick()
        bench.sweep()
    assert seen == [children[:2], children[:4], [*children, "last"], [*children, "last"]]
    assert [change.uid for change in bench.changes if change.state == "error"] == ["parent", *children, "last"]
    assert bench.job("child4")["error"] == 'job "parent", which it waits for, has failed'
    assert not bench.store.is_due(now=bench.now)


@pytest.mark.parametrize("state", ["finished", "error"])
def test_those_who_wait_for_a_job_that_is_over_go_on_after_a_restart(opened, monkeypatch, state):
    first = opened()
    children = family(first, monkeypatch)
    first.put("parent", state=state)
    first.store.close()
    again = opened()
    assert again.sweep_all() == 2
    picked = [again.pick() for _ in range(6)]
    assert picked == ([*children, None] if state == "finished" else [None] * 6)
    assert {again.state(uid) for uid in children} == {"picked" if state == "finished" else "error"}


@pytest.mark.parametrize("then", ["queued", "removed", "made anew"])
@pytest.mark.parametrize("state", ["finished", "error"])
def test_who_waited_for_a_job_that_is_over_does_not_wait_for_its_next_run(bench, monkeypatch, state, then):
    children = family(bench, monkeypatch)
    bench.put("parent", state=state)
    if then == "queued":
        bench.put("parent", state="queued")
    else:
        bench.store.remove("parent", now=NOW)
    if then == "made anew":
        bench.add(uid="parent")
    later = None if then == "removed" else bench.add(after="parent")
    bench.sweep_all()
    assert {bench.state(uid) for uid in children} == {"queued" if state == "finished" else "error"}
    picked = {bench.pick() for _ in range(8)}
    assert picked == {None, *(children if state == "finished" else ()), *(() if later is None else ("parent",))}


def test_all_are_queued_again_with_what_they_wait_for_however_many_have_failed_by_then(bench, monkeypatch):
    children = family(bench, monkeypatch)
    bench.put("parent", state="error")
    for uid in ("parent", *children):
        bench.put(uid, state="queued")
    bench.sweep_all()
    assert {bench.state(uid) for uid in children} == {"queued"}
    assert [bench.pick(), bench.pick()] == ["parent", None]
    bench.put("parent", state="finished")
    bench.sweep_all()
    assert [bench.pick() for _ in range(6)] == [*children, None]


def test_who_waited_longest_goes_on_first_also_when_it_was_changed(bench, monkeypatch):
    children = family(bench, monkeypatch)
    bench.put(children[0], priority=5)
    bench.put("parent", state="finished")
    bench.put(children[-1], mine=1)
    assert [bench.pick() for _ in range(3)] == [*children[:2], None]
    bench.sweep_all()
    assert [bench.pick() for _ in range(4)] == [*children[2:], None]


def test_who_is_removed_before_it_could_go_on_is_in_nobodys_way(bench, monkeypatch):
    *children, last = family(bench, monkeypatch)
    bench.put("parent", state="finished")
    bench.store.remove(last, now=NOW)
    bench.sweep_all()
    assert [bench.pick() for _ in range(5)] == [*children, None]


@pytest.mark.parametrize("ends", [("finished", "finished"), ("error", "error"), ("finished", "error")])
def test_who_waits_for_two_that_end_at_once_goes_on_once(bench, monkeypatch, ends):
    bench.add(uid="a")
    bench.add(uid="b")
    bench.add(uid="both", after=["a", "b"])
    with monkeypatch.context() as nobody_goes_on:
        nobody_goes_on.setattr(api.transaction, "SWEEP", 0)
        for uid, state in zip("ab", ends, strict=True):
            bench.put(uid, state=state)
    bench.sweep_all()
    if "error" in ends:
        assert bench.job("both")["error"] == f'job "{"ab"[ends.index("error")]}", which it waits for, has failed'
    else:
        assert [bench.pick(), bench.pick()] == ["both", None]


@pytest.mark.parametrize(
    ("change", "then"),
    [
        ({"mine": 1, "tags": "x"}, "error"),
        ({"notBefore": NOW + 5000}, "error"),
        ({"after": []}, "error"),
        ({"state": "queued", "priority": 5, "template": TEMPLATE}, "error"),  # all of it, as it was read
        ({"state": "finished"}, "finished"),
    ],
)
def test_a_job_that_is_changed_fails_all_the_same_with_what_it_waited_for(bench, monkeypatch, change, then):
    children = family(bench, monkeypatch)
    bench.put("parent", state="error")
    bench.put(children[-1], **change)
    if then == "finished":
        bench.put(children[-1], state="queued")  # again, as clients do: not failed by what was before
    bench.sweep_all()
    assert bench.state(children[-1]) == ("queued" if then == "finished" else "error")
    assert bench.pick() is None


def test_a_removed_job_is_not_waited_for(bench):
    parent = bench.add()
    child = bench.add(after=parent)
    bench.store.remove(parent, now=NOW)
    assert bench.pick() == child


def test_what_a_job_waits_for_can_be_changed(bench):
    parent, child = bench.add(), bench.add()
    bench.put(child, after=[parent])
    assert [bench.pick(), bench.pick()] == [parent, None]
    bench.put(child, after=[])
    assert bench.pick() == child


def test_a_change_that_makes_a_job_wait_for_a_failed_one_is_refused(bench):
    failed, child = bench.add(), bench.add()
    bench.put(failed, state="error")
    for change in ({"after": [failed]}, {"parentUid": failed}, {"after": failed, "state": "queued"}):
        with pytest.raises(Conflict, match="which has failed"):
            bench.put(child, **change)
    assert "after" not in bench.job(child)
    assert bench.pick() == child


def test_a_change_that_makes_jobs_wait_for_each_other_is_refused(bench):
    names = [bench.add()]
    for _ in range(3):
        names.append(bench.add(after=names[-1]))
    with pytest.raises(Conflict, match=f'"{names[3]}", which waits for it'):
        bench.put(names[0], after=names[3])
    for uid in names:
        assert [bench.pick(), bench.pick()] == [uid, None]
        bench.put(uid, state="finished")


def test_jobs_that_are_queued_again_do_not_wait_for_those_that_wait_for_them(bench):
    first, second = bench.add(uid="first"), bench.add(uid="second", after="first")
    for uid in (first, second):
        bench.put(uid, state="finished")
    bench.put(first, after=second)
    for uid in (second, first):
        bench.put(uid, state="error")
    bench.put(second, state="queued")  # as clients do with all that has failed, in any order
    assert bench.pick() is None
    bench.put(first, state="queued")
    assert [bench.pick(), bench.pick()] == [first, None]
    bench.put(first, state="finished")
    assert bench.pick() == second
    bench.put(second, state="finished")


def test_a_job_that_is_queued_again_waits_again(bench):
    parent = bench.add()
    child = bench.add(after=parent)
    bench.put(child, state="finished")
    bench.put(child, state="queued")
    assert [bench.pick(), bench.pick()] == [parent, None]


# --- workers that are gone -------------------------------------------------------------------------------------------


def test_a_job_of_a_worker_that_is_gone_comes_back(bench):
    uid = bench.add()
    bench.pick()
    bench.now += 89_999
    assert bench.sweep() is False
    assert bench.pick() is None
    bench.now += 1
    assert bench.sweep() is True
    assert [change.state for change in bench.changes[-1:]] == ["queued"]
    assert bench.pick("w2") == uid


def test_nobody_is_gone_who_could_not_report(bench):
    uid = bench.add()
    bench.pick()
    bench.now += 3_600_000  # nobody listened
    bench.store.resume(until=bench.now + 30_000)
    assert (bench.sweep(), bench.pick("w2")) == (False, None)
    bench.now += 30_000
    assert bench.sweep() is True
    assert bench.pick("w2") == uid


@pytest.mark.parametrize("by", [7_200_000, -7_200_000])
def test_a_job_is_held_as_long_also_when_the_clock_is_set(bench, by):
    bench.add()
    uid = bench.pick(renew=30_000)
    bench.store.resume(until=NOW + by, by=by)
    bench.now += by + 29_999
    assert bench.sweep() is False
    bench.now += 1
    assert bench.sweep() is True
    assert bench.pick("w2") == uid


YEAR = 365 * 86_400_000


@pytest.mark.parametrize("renew", [None, 30_000])
def test_what_a_clock_that_was_ahead_has_set_ends_as_if_it_were_set_at_the_start(bench, renew):
    bench.now = NOW + YEAR
    held, failed = bench.add(timeout=100), bench.add(maxAttempts=2, retryDelay=5, webhooks={"url": "http://a/"})
    assert bench.pick(renew=renew) == held
    assert bench.pick("w2") == failed
    assert bench.put(failed, run=bench.run, state="error", error="x")["state"] == "queued"
    (told,) = bench.store.undelivered((), 9, now=bench.now, left_out=LeftOut())
    bench.store.deliver_again(told, due=bench.now + 300_000, now=bench.now)
    created(bench.store, [body(uid="later", maxAttempts=2)], now=bench.now, key=("k", b"digest"))
    assert bench.pick("w2") == "later"
    bench.put("later", run=bench.run, state="error", error="x")
    bench.put("later", notBefore=NOW + YEAR + 60_000)

    bench.now = NOW
    bench.store.bring_near(now=NOW, pause=300_000)
    lease = renew or 90_000
    for when, due in ((5000, False), (lease, True)):
        bench.now = NOW + when - 1
        assert bench.store.is_due(now=bench.now) is due  # the failed one is ready from 5 s on
        bench.now += 1
        assert bench.store.is_due(now=bench.now)
    bench.sweep_all()
    assert bench.state(held) == "queued"
    assert {bench.pick(), bench.pick()} == {held, failed}
    (again,) = bench.store.undelivered((), 9, now=NOW + 300_000, left_out=LeftOut())
    assert (again.id, again.created) == (told.id, NOW)
    assert bench.pick() is None
    bench.store.sweep(now=NOW + KEY_LIFE + 1)
    assert created(bench.store, [body(uid="new")], now=bench.now, key=("k", b"other"))
    assert (bench.pick(), bench.pick()) == ("new", None)
    bench.now = NOW + YEAR + 60_000
    assert bench.pick("w2") == "later"  # as its user said, by the time of day


def test_what_the_right_clock_has_set_is_at_the_start_as_it_was(bench):
    held, silent = bench.add(timeout=100), bench.add()
    failed = bench.add(maxAttempts=2, retryDelay=50, webhooks={"url": "http://a/"})
    assert [bench.pick("a", renew=60_000), bench.pick("b"), bench.pick("c")] == [held, silent, failed]
    assert bench.put(failed, run=bench.run, state="error", error="x")["state"] == "queued"
    everything = [select(table) for table in (jobs, schema.queue, schema.deliveries)]

    def seen():
        with bench.store._database.read() as connection:
            return [connection.execute(each).all() for each in everything]

    before = seen()
    for now in (NOW, NOW + 20_000, NOW + YEAR):
        bench.store.bring_near(now=now, pause=300_000)
        assert seen() == before


@pytest.mark.parametrize("by", [7_200_000, -7_200_000])
def test_a_time_of_day_that_a_job_is_for_stays_also_after_a_try_when_the_clock_is_set(bench, by):
    uid = bench.add(maxAttempts=2)
    bench.pick()
    assert bench.put(uid, run=bench.run, state="error", error="x")["state"] == "queued"
    bench.put(uid, notBefore=NOW + 60_000)
    bench.store.resume(until=NOW + by, by=by)
    bench.now = NOW + 59_999 if by < 0 else NOW + by
    assert bench.pick() == (None if by < 0 else uid)
    bench.now = NOW + 60_000
    assert bench.pick() == (uid if by < 0 else None)


def test_who_promised_to_report_and_picks_again_has_nothing(bench):
    first, second = bench.add(), bench.add()
    assert bench.pick("slot", renew=30_000) == first
    assert bench.pick("slot", renew=30_000) == first  # the queue's order: it is the oldest again
    assert bench.pick("other", renew=30_000) == second
    assert bench.store.held() == [("slot", first), ("other", second)]


def test_a_job_that_two_of_one_name_take_from_each_other_says_so(bench):
    uid = bench.add()
    for _ in range(5):
        assert bench.pick("slot", renew=30_000) == uid
    assert bench.pick("slot", renew=30_000) is None
    assert bench.job(uid)["state"] == "error"
    assert "two have its name" in bench.job(uid)["error"]


def test_workers_with_unique_names_have_nothing_when_they_pick(opened):
    bench = opened(rules=Rules(unique_workers=True))
    bench.add(uid="a", maxAttempts=1)
    other = bench.add()
    assert bench.pick("x") == "a"
    assert bench.pick("x") == other
    assert bench.state("a") == "error"


def test_without_that_a_worker_may_have_several(bench):
    first, second = bench.add(), bench.add()
    assert [bench.pick("x"), bench.pick("x")] == [first, second]


# --- lists -----------------------------------------------------------------------------------------------------------


def test_lists_are_in_the_order_of_creation_whatever_happens_to_jobs(bench):
    names = [bench.add() for _ in range(5)]
    bench.pick()
    bench.put(names[3], state="finished")
    assert bench.uids() == names
    assert bench.uids(newest_first=True) == names[::-1]
    assert [each["state"] for each in bench.listed(records=True)] == [
        "picked", "queued", "queued", "finished", "queued"
    ]  # fmt: skip


def test_lists_by_state_type_and_tag(bench):
    a = bench.add(type="x", tags="gpu, slow")
    b = bench.add(tags="gpu")
    c = bench.add(type="x", tags="GPU,slowest")
    bench.put(b, state="error")
    assert bench.uids(states=["queued"]) == [a, c]
    assert bench.uids(states=["error", "nosuch"]) == [b]
    assert bench.uids(states=[]) == []
    assert bench.uids(type="x", states=["queued"]) == [a, c]
    assert bench.uids(tag="gpu") == [a, b]
    assert bench.uids(tag="slow") == [a]
    assert bench.uids(tag="%") == bench.uids(tag="") == []
    assert bench.uids(tag="GPU", type="x") == [c]


@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize("limit", [1, 2, 3, 7, 8])
def test_pages_hold_every_job_once_while_others_come_and_go(bench, limit, newest_first):
    names = [bench.add() for _ in range(7)]
    seen, after = [], None
    for _ in range(10):
        seen += bench.uids(newest_first=newest_first, after=after, limit=limit)
        if bench.more is None:
            break
        after = bench.more
        if len(seen) == 1:
            bench.store.remove(names[1] if newest_first else names[5], now=NOW)
    expected = [uid for uid in names if limit != 1 or uid != names[1 if newest_first else 5]]
    assert seen == (expected[::-1] if newest_first else expected)


def test_lists_of_several_states_are_those_of_each_in_the_order_of_creation(bench):
    every = itertools.product("xy", "ab", ("queued", "error", "picked"))
    found = [(bench.add(type=kind, tags=tag), state, kind, tag) for kind, tag, state in every]
    for uid, state, _, _ in found:
        bench.put(uid, state=state)
    twice = ["error", "picked", "error", "nosuch"]
    lists = (["queued", "error"], twice, ["picked", "queued", "error"], ["error"], [], None)
    asked = itertools.product(lists, (None, "x"), (None, "b"), (False, True), (False, True))
    for states, kind, tag, newest_first, records in asked:
        which = {"states": states, "type": kind, "tag": tag, "newest_first": newest_first, "records": records}
        expected = [
            uid
            for uid, state, its_kind, its_tag in found
            if (states is None or state in states) and kind in (None, its_kind) and tag in (None, its_tag)
        ]
        seen, after = bench.uids(limit=2, **which), bench.more
        while after is not None:
            seen, after = seen + bench.uids(limit=2, after=after, **which), bench.more
        assert seen == (expected[::-1] if newest_first else expected), which


def test_a_list_is_of_few_states(bench):
    bench.add()
    assert len(bench.uids(states=["queued"] * 100)) == 1
    assert len(bench.uids(states=["queued", *map(str, range(63))])) == 1
    with pytest.raises(InvalidJob, match="65 states, more than 64"):
        bench.uids(states=["queued", *map(str, range(64))])


@pytest.mark.parametrize("states", [None, ["a"], ["a", "b"], ["a", "b", "c"]])
def test_no_list_is_sorted(bench, states):
    """A page must not cost what all of its list has."""
    for newest_first, records, kind, tag in itertools.product((False, True), (False, True), (None, "x"), (None, "y")):
        which = Filter(states, type=kind, tag=tag, newest_first=newest_first, records=records)
        plan = plan_of(bench, api.store._filtered(which, 1).limit(10))
        assert not [each for each in plan if "TEMP B-TREE" in each or each.startswith("SCAN")], (which, plan)


def test_pages_end_behind_so_many_bytes(bench):
    for _ in range(4):
        bench.add(mine="x" * 1000)
    rows, more = bench.store.page(Filter(), after=None, limit=10, limit_bytes=1500)
    assert len(rows) == 2
    assert len(bench.store.page(Filter(), after=more, limit=10, limit_bytes=1 << 20)[0]) == 2


def test_readers_are_not_held_up_by_a_writer(bench):
    uid = bench.add()
    with bench.store._database.write() as connection:
        connection.execute(jobs.delete())
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(bench.state, [uid] * 8)) == ["queued"] * 8
        connection.rollback()


# --- Idempotency-Key -------------------------------------------------------------------------------------------------


def test_a_key_makes_jobs_once(opened):
    bench = opened()
    key = ("k", digest_of(b"1"))
    first = bench.note(created(bench.store, [body(), body()], now=NOW, key=key))
    bench.pick()
    bench.store.close()
    bench = opened()
    again = bench.note(created(bench.store, [body(), body()], now=NOW, key=key))
    assert [json.loads(each)["uid"] for each in again] == [json.loads(each)["uid"] for each in first]
    assert json.loads(again[0])["state"] == "picked"
    assert len(bench.uids()) == 2


def test_a_key_is_for_one_thing(bench):
    created(bench.store, [body()], now=NOW, key=("k", digest_of(b"1")))
    with pytest.raises(AlreadyExists, match="Idempotency-Key"):
        created(bench.store, [body()], now=NOW, key=("k", digest_of(b"2")))
    assert len(bench.uids()) == 1


def test_a_key_is_forgotten_after_a_day(bench):
    created(bench.store, [body()], now=NOW, key=("k", b"1"))
    bench.now += 86_400_001
    assert bench.store.is_due(now=bench.now)
    bench.sweep()
    created(bench.store, [body()], now=bench.now, key=("k", b"2"))


def test_what_fails_leaves_no_key(bench):
    with pytest.raises(InvalidJob):
        created(bench.store, [body(uid="")], now=NOW, key=("k", b"1"))
    assert len(created(bench.store, [body()], now=NOW, key=("k", b"2"))[0]) == 1


def test_a_key_of_a_removed_job_does_not_make_it_again(bench):
    created(bench.store, [body(uid="a")], now=NOW, key=("k", b"1"))
    bench.store.remove("a", now=NOW)
    with pytest.raises(AlreadyExists, match="deleted"):
        created(bench.store, [body(uid="a")], now=NOW, key=("k", b"1"))


# --- webhooks --------------------------------------------------------------------------------------------------------

HOOKS = [{"url": "http://a/x", "secret": "s"}, {"url": "http://b", "events": ["finished", "error"]}]


def due(bench, besides=()):
    return bench.store.undelivered(now=bench.now, besides=besides, limit=10, left_out=LeftOut())


def test_webhooks_hear_of_each_state_that_they_want_in_order(bench):
    uid = bench.add(webhooks=HOOKS)
    bench.pick()
    bench.put(uid, run=bench.run, state="render:dorender", renderProgress=1)
    bench.put(uid, run=bench.run, state="render:dorender", renderProgress=2)
    bench.put(uid, run=bench.run, state="finished")
    heard = []
    while found := due(bench):
        assert len({each.url for each in found}) == len(found)  # one of each line
        for each in found:
            told = json.loads(each.body)
            assert told["event"] == each.event == told["job"]["state"]
            assert (told["job"]["uid"], told["time"], each.created) == (uid, "2023-11-14T22:13:20.000Z", NOW)
            heard.append((each.url, each.event, each.secret))
            bench.store.delivered(each, now=bench.now)
    assert [event for url, event, _ in heard if url == "http://a/x"] == [
        "queued", "picked", "render:dorender", "finished"
    ]  # fmt: skip
    assert [each for each in heard if each[0] == "http://b"] == [("http://b", "finished", "")]


def test_what_was_not_taken_is_due_later_and_holds_up_its_line_only(bench):
    uid = bench.add(webhooks=HOOKS)
    bench.put(uid, state="error")
    first, other = due(bench)
    assert due(bench, besides=[first.id]) == [other]
    bench.store.deliver_again(first, due=NOW + 1000, now=NOW)
    assert due(bench) == [other]
    bench.now += 1000
    again = due(bench)[-1]
    assert (again.id, again.tries) == (first.id, 1)
    bench.store.delivered(again, now=bench.now)
    assert [each.event for each in due(bench) if each.url == first.url] == ["error"]


def test_thousands_of_receivers_may_be_busy(bench):
    bench.add(webhooks=HOOKS[0])
    bench.add(webhooks={"url": "http://a1/x"})
    busy = {f"http://a{n}" for n in range(3000)}
    found = bench.store.undelivered(now=bench.now, besides=[], limit=10, left_out=LeftOut(busy))
    assert [each.url for each in found] == [HOOKS[0]["url"]]


def test_as_many_hosts_and_urls_as_a_courier_knows_may_be_left_out_whatever_their_lengths(bench):
    bench.add(webhooks=HOOKS[0])
    hosts = [f"http://a{'b' * n}" for n in range(1, MAX_AWAY + AT_ONCE)]
    urls = [f"http://{'c' * 1000}/{'d' * n}" for n in range(MAX_AWAY)]
    found = bench.store.undelivered(now=bench.now, besides=[], limit=10, left_out=LeftOut(hosts, urls))
    assert [each.url for each in found] == [HOOKS[0]["url"]]


def test_a_host_is_left_out_with_all_of_its_urls_and_a_url_with_any_query(bench):
    ends = ["", "/", "?q", "#f", "/a", "/a?q", "/a#f", "/a/b", "/ab", ":80", "x"]
    bench.add(webhooks=[{"url": f"http://h{end}"} for end in ends])

    def left(**words):
        found = bench.store.undelivered(now=bench.now, besides=[], limit=20, left_out=LeftOut(**words))
        return [each.url.removeprefix("http://h") for each in found]

    assert left() == ends
    assert left(hosts=["http://h"]) == [":80", "x"]
    assert left(urls=["http://h"]) == ["/", "/a", "/a?q", "/a#f", "/a/b", "/ab", ":80", "x"]
    assert left(urls=["http://h/a"]) == ["", "/", "?q", "#f", "/a/b", "/ab", ":80", "x"]


def test_what_is_undelivered_outlives_job_and_process(opened):
    bench = opened()
    uid = bench.add(webhooks=HOOKS[0])
    bench.store.remove(uid, now=NOW)
    bench.store.close()
    assert [each.event for each in due(opened())] == ["queued"]


def test_those_who_fail_with_another_job_tell_it(bench):
    parent = bench.add()
    bench.add(after=parent, webhooks=HOOKS[1])
    bench.put(parent, state="error")
    assert [each.event for each in due(bench)] == ["error"]


# --- the database ----------------------------------------------------------------------------------------------------


def test_the_versions_make_the_tables_that_are_used(tmp_path):
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    database = Database(tmp_path / "jobs.db")
    with database.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), schema.metadata) == []
        made = dict(connection.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").all())
    database.close()
    plain = tmp_path / "plain.db"
    other = schema._engine(plain, readers=0)
    with other.begin() as connection:
        schema.metadata.create_all(connection)
        expected = dict(connection.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").all())
    other.dispose()
    words = {name: " ".join(sql.split()) for name, sql in expected.items()}  # partial and descending ones too
    assert words == {name: " ".join(sql.split()) for name, sql in made.items() if name != "alembic_version"}


def test_commits_survive_a_power_cut(bench):
    with bench.store._database.write() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL


def test_a_newer_database_is_refused(tmp_path, bench):
    bench.store.close()
    with sqlite3.connect(bench.path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(InvalidSpec, match="9999"):
        Database(bench.path)
    with sqlite3.connect(bench.path) as connection:
        connection.execute(f"UPDATE alembic_version SET version_num = '{schema.VERSION}'")
    connection.close()


def test_what_is_no_database_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "jobs.db"
    path.write_bytes(b"something else\n" * 1000)
    with pytest.raises(SourceMalformed, match="not a database"):
        Database(path)
    assert path.read_bytes() == b"something else\n" * 1000


def test_a_folder_that_cannot_be_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidSpec):
        Database(tmp_path / "file" / "jobs.db")


@pytest.mark.parametrize(("new", "room"), [(False, 1000), (False, 20_000), (True, 20_000), (True, 100_000)])
def test_a_disk_without_room_is_what_the_system_says(tmp_path, new, room):
    if not new:
        new_database(tmp_path / "jobs.db")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        with pytest.raises(SourceMalformed, match=f"^{tmp_path}/jobs.db: file too large$"):
            Database(tmp_path / "jobs.db")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    Bench(tmp_path / "jobs.db").store.close()


@pytest.mark.parametrize("name", ["a?b", "a%20b", "a%b", "é#ü", "file:a", "a?mode=memory&uri=true"])
def test_a_folder_may_have_any_name(tmp_path, name):
    path = tmp_path / name / "jobs.db"
    store = Store(path, rules=Rules())
    created(store, [body(uid="here")], now=NOW)
    store.close()
    backup(path, tmp_path / "copy.db")
    for each in (path, tmp_path / "copy.db"):
        assert each.read_bytes().startswith(b"SQLite format 3")
        copy = Store(each, rules=Rules())
        assert json.loads(copy.whole("here"))["uid"] == "here"
        copy.close()
    assert {each.name for each in tmp_path.iterdir()} == {name, "copy.db"}


@pytest.mark.parametrize("by", [10 * KEY_LIFE, -10 * KEY_LIFE])
def test_a_key_is_kept_as_long_also_when_the_clock_is_set(bench, by):
    key = ("k", b"digest")
    made, _ = created(bench.store, [body()], now=NOW, key=key)
    bench.store.resume(until=NOW + by, by=by)
    bench.store.sweep(now=NOW + by + KEY_LIFE - 1)
    assert created(bench.store, [body()], now=NOW + by, key=key)[0] == made
    bench.store.sweep(now=NOW + by + KEY_LIFE + 1)
    assert created(bench.store, [body()], now=NOW + by, key=key)[0] != made


def test_nothing_is_lost_when_the_disk_is_full(bench):
    names = [bench.add(mine="x" * 5000) for _ in range(5)]
    with bench.store._database.write() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages + 2}")
    with pytest.raises(Overloaded, match="full"):
        for _ in range(50):
            names.append(bench.add(mine="x" * 5000))
    with pytest.raises(Overloaded):
        created(bench.store, [body(mine="x" * 100_000)], now=NOW)
    assert len(bench.uids()) == len(names)
    assert bench.pick() == names[0]  # what needs no more room goes on
    with bench.store._database.write() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count=1000000")
    bench.add(mine="x" * 100_000)


def test_records_with_long_errors_are_not_kept_when_they_have_been_listed(bench):
    for n in range(30):
        bench.put(bench.add(), state="error", error=f"{n} " + "x" * (256 << 10))
    tracemalloc.start()
    try:
        found = bench.store.page(Filter(records=True), after=None, limit=100, limit_bytes=1 << 30)[0]
        size = sum(map(len, found))
        del found
        assert size > 7 << 20
        assert tracemalloc.get_traced_memory()[0] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_backup_is_the_database_as_it_is_now(bench, tmp_path):
    bench.add(uid="a")
    target = tmp_path / "copy.db"
    target.write_bytes(b"an older one")
    stop = threading.Event()
    count = itertools.count()

    def write():
        while not stop.is_set():
            bench.add(uid=f"n{next(count)}")

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        for _ in range(3):
            backup(bench.path, target)
        stop.set()
        writing.result()
    copy = Bench(target)
    found = audit(copy.store)
    assert found["a"] == "queued"
    assert set(found) <= set(bench.uids())
    copy.store.close()
    assert not list(tmp_path.glob("*.part"))


def modes(folder):
    return {each.name: oct(each.stat().st_mode & 0o777) for each in folder.iterdir()}


def test_nobody_else_may_read_the_database_what_lies_beside_it_nor_a_backup(tmp_path):
    path, target = tmp_path / "jobs.db", tmp_path / "copy.db"
    old = os.umask(0)
    try:
        target.with_name("copy.db.part").write_text("of a backup that was killed")
        store = Store(path, rules=Rules())
        created(store, [body(webhooks=[{"url": "http://h/", "secret": "S"}])], now=NOW)
        backup(path, target)
    finally:
        os.umask(old)
    assert modes(tmp_path) == dict.fromkeys(("jobs.db", "jobs.db-wal", "jobs.db-shm", "copy.db"), "0o600")
    store.close()


def test_a_database_that_others_may_read_is_closed_to_them_and_stays_as_it_is_to_a_group(bench, tmp_path):
    bench.add(uid="here")
    left = tmp_path / "left"  # as by a server that was killed
    left.mkdir()
    for ending in ("", "-wal", "-shm"):
        copy = left / f"jobs.db{ending}"
        copy.write_bytes(Path(f"{bench.path}{ending}").read_bytes())
        copy.chmod(0o664)
    store = Store(left / "jobs.db", rules=Rules())
    assert modes(left) == dict.fromkeys(("jobs.db", "jobs.db-wal", "jobs.db-shm"), "0o660")
    assert json.loads(store.whole("here"))["uid"] == "here"
    store.close()


def test_a_backup_of_nothing_or_to_nowhere_is_refused(bench, tmp_path):
    with pytest.raises(InvalidSpec):
        backup(tmp_path / "nosuch.db", tmp_path / "copy.db")
    target = tmp_path / "nosuch" / "copy.db"
    with pytest.raises(InvalidSpec, match=f"^{target}: no such file or directory$"):
        backup(bench.path, target)
    (tmp_path / "text.db").write_text("no database " * 100)
    with pytest.raises(SourceMalformed):
        backup(tmp_path / "text.db", tmp_path / "copy.db")
    assert not (tmp_path / "copy.db").exists()


def test_the_file_of_a_nexrender_server_is_taken(bench):
    bench.add(uid="here")
    whole = {"template": TEMPLATE, "assets": [], "actions": {}, "createdAt": "2020-01-01T00:00:00.000Z", "mine": [1]}
    theirs = [
        {**whole, "uid": "a", "state": "queued", "tags": "x"},
        {**whole, "uid": "b", "state": "render:dorender", "startedAt": "t", "executor": "w"},
        {**whole, "uid": "twice", "state": "queued"},
        {**whole, "uid": "c", "state": "finished", "output": "o"},
        {**whole, "uid": "twice", "state": "error", "error": ["x", "y"]},
        {**whole, "uid": "here", "state": "error"},
        {"uid": "odd", "state": "whatever", "timeout": "5m"},
        {**whole, "state": "created"},
    ]
    assert bench.store.take(json.dumps(theirs).encode(), now=NOW) == (6, 2)
    assert bench.uids()[:-1] == ["here", "a", "b", "c", "twice", "odd"]
    assert bench.job("a") == {"type": "default", **theirs[0]}
    assert [bench.state(uid) for uid in ("here", "b", "twice", "odd")] == [
        "queued", "render:dorender", "error", "whatever"
    ]  # fmt: skip
    assert bench.pick(tags=["x"]) == "a"
    assert ("w", "b") in bench.store.held()
    assert bench.store.take(json.dumps(theirs[:3]).encode(), now=NOW) == (0, 3)
    with pytest.raises(InvalidJob):
        bench.store.take(b'{"uid":"a"}', now=NOW)
    for nothing in (b"[]", b"", b"\n"):
        assert bench.store.take(nothing, now=NOW) == (0, 0)


def cut(_):
    raise KeyboardInterrupt


@pytest.mark.parametrize("then", ["queued", "finished", "gone"])
def test_jobs_of_an_import_that_was_cut_off_do_not_wait_for_ever_after_the_next_one(bench, monkeypatch, then):
    monkeypatch.setattr(api.store, "SWEEP", 1)
    film, part = {"uid": "film", "state": "queued", "after": "part"}, {"uid": "part", "state": "queued"}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(api.store.time, "sleep", cut)
        bench.store.take(json.dumps([film, part]).encode(), now=NOW)
    assert (bench.uids(), bench.pick()) == (["film"], None)
    rest = [] if then == "gone" else [{**part, "state": then}]
    assert bench.store.take(json.dumps(rest).encode(), now=NOW) == (len(rest), 0)
    assert bench.pick() == ("part" if then == "queued" else "film")


def test_jobs_without_a_name_are_taken_once(bench, monkeypatch):
    monkeypatch.setattr(api.store, "SWEEP", 2)
    theirs = json.dumps([{"state": "queued", "mine": mine} for mine in "aabca"]).encode()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(api.store.time, "sleep", cut)
        bench.store.take(theirs, now=NOW)
    assert bench.store.take(theirs, now=NOW) == (3, 2)
    assert [job["mine"] for job in bench.listed()] == [*"aabca"]
    assert {len(uid) for uid in bench.uids()} == {api.store.UID_LENGTH}
    assert bench.store.take(theirs, now=NOW) == (0, 5)


def test_others_write_while_many_are_taken(bench, monkeypatch):
    monkeypatch.setattr(api.store, "SWEEP", 2)
    beside = Bench(bench.path)  # as the server's: a connection of its own
    others = iter(["mine"])
    monkeypatch.setattr(api.store.time, "sleep", lambda _: [beside.add(uid=uid) for uid in others])
    theirs = json.dumps([{"uid": f"old{n}", "state": "queued"} for n in range(6)]).encode()
    assert bench.store.take(theirs, now=NOW) == (6, 0)
    beside.store.close()
    assert bench.uids() == ["old0", "old1", "mine", "old2", "old3", "old4", "old5"]


def test_what_was_answered_survives_a_kill(tmp_path):
    command = [sys.executable, "-W", "error", "tests/api/killing.py", str(tmp_path), "25", "7"]
    done = subprocess.run(command, cwd=ROOT, env={"PYTHONPATH": "."}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("25 trials, ")


def test_every_look_up_of_the_queue_uses_an_index(bench):
    """Cost must not grow with what is there."""
    from api import store, transaction

    constant = [
        transaction._JOB,
        transaction._JOB_AT,
        transaction._ALL_AT,
        store._WHOLE,
        store._RECORD,
        transaction._EXPIRED,
        transaction._DUE,
        transaction._HELD_BY,
    ]
    constant += [
        transaction._CONTENT,
        transaction._WAITS,
        transaction._WAITED,
        transaction._GO_ON_NO_MORE,
        transaction._WHO_WAITS,
        transaction._IN_LINE,
        store._UNDELIVERED,
        store._HELD,
    ]
    constant += [
        transaction._MADE_UNDER,
        *transaction._FIRST.values(),
        transaction._LEAVE,
        select(transaction.keys.c.key).where(transaction._OLD_KEYS),
    ]
    for each in constant:
        plan = plan_of(bench, each)
        scanned = [detail for detail in plan if detail.startswith("SCAN")]
        assert all("CONSTANT" in each or "INDEX jobs_held" in each for each in scanned), (str(each), plan)
