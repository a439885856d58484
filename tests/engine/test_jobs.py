"""The rules of the queue: each step is the right one, and only the present run counts."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from engine.errors import IllegalTransition, InvalidJob
from engine.jobdocument import DOCUMENT, HEAD, PROJECT, split, terms_of
from engine.jobs import (
    FINAL,
    Rules,
    abandon,
    create,
    expire,
    is_held,
    lose,
    pick,
    pools_asked,
    pools_of,
    put,
    status_of,
    take_over,
)
from tests.engine.jobbodies import BODY, NOW, TEMPLATE, document, made, values

RULES = Rules()


def changed(job, now=NOW, run=None, **fields):
    return put(job, document(**fields), now=now, rules=RULES, run=run)


def record(job, started="2026-01-01T00:00:00.000Z", **fields):
    """A status record as a worker sends it."""
    told = {**values(status_of(job.head)), "jobExecutor": "w", "startedAt": started}
    return document(**{**told, **fields})


def started(job, started_at="2026-01-01T00:00:00.000Z"):
    """Picked, and begun as a worker does: with the whole job."""
    picked = pick(job, worker="w", now=NOW, rules=RULES)
    whole = {**values(picked.head), **BODY, "state": "started", "startedAt": started_at}
    return put(picked, document(**whole), now=NOW, rules=RULES)


# --- creation --------------------------------------------------------------------------------------------------------


def test_defaults_lie_under_the_body():
    job, content = create(document(**BODY), uid="u1", creator="10.0.0.1", now=NOW)
    time = "2023-11-14T22:13:20.000Z"
    assert values(job.head) == {
        "uid": "u1",
        "type": "default",
        "state": "queued",
        "output": "",
        "tags": "",
        "priority": 0,
        "timings": {},
        "creator": "10.0.0.1",
        "createdAt": time,
        "updatedAt": time,
    }
    assert values(content) == {"template": TEMPLATE, "assets": [], "actions": {"prerender": [], "postrender": []}}


def test_keys_that_are_there_win_even_when_they_are_null():
    job = made(type=None, output=None, timings=None, priority=None, tags=None, uid="mine")
    assert values(job.head).items() >= {
        ("type", None), ("output", None), ("timings", None), ("priority", None), ("tags", None), ("uid", "mine"),
    }  # fmt: skip


def test_what_the_server_writes_is_not_the_clients():
    job = made(state="finished", creator="me", createdAt="x", updatedAt="y")
    told = values(job.head)
    assert (told["state"], told["creator"]) == ("queued", "10.0.0.1")
    assert told["createdAt"] == told["updatedAt"] == "2023-11-14T22:13:20.000Z"


@pytest.mark.parametrize(
    ("tags", "cleaned"), [("a, b!#,c-d_e", "a, b,cde"), ("é", ""), (["a!"], ["a!"]), (5, 5), ("\n", "")]
)
def test_tags_are_cleaned_when_they_are_a_string(tags, cleaned):
    assert values(made(tags=tags).head)["tags"] == cleaned


def test_head_and_content_are_the_document():
    body = document(**BODY, mine={"deep": [1]}, error="x", assets=[])
    head, content = split(body)
    assert head | content == body
    assert set(head) <= HEAD
    assert set(content) == {"template", "mine", "assets"}


def test_a_job_may_be_for_later():
    assert made(notBefore="2023-11-14T22:13:21.5Z").due == NOW + 1500
    assert made(notBefore="2023-11-14T23:13:21+01:00").due == NOW + 1000
    assert made(notBefore=NOW + 7).due == NOW + 7
    assert made(notBefore=NOW).due is None


def test_a_job_of_another_server_stays_in_its_state():
    job, _ = take_over(document(uid="a", state="render:dorender", startedAt="x"), now=NOW, rules=RULES)
    assert (job.state, job.begun, job.lease) == ("render:dorender", b'"x"', NOW + RULES.silence)
    assert take_over(document(uid="a", state="finished"), now=NOW, rules=RULES)[0].lease is None


# --- picking ---------------------------------------------------------------------------------------------------------


@given(
    kind=st.sampled_from([DOCUMENT, PROJECT]),
    tags=st.sets(st.sampled_from("abc")),
    kinds=st.none() | st.sets(st.sampled_from([DOCUMENT, PROJECT])),
    wanted=st.none() | st.sets(st.sampled_from("abcd")),
)
def test_a_job_is_in_a_pool_that_is_asked_for_exactly_when_it_fits(kind, tags, kinds, wanted):
    fits = (kinds is None or kind in kinds) and (wanted is None or bool(tags & wanted))
    assert bool(set(pools_of(kind, tags)) & set(pools_asked(kinds, wanted))) == fits


def test_a_pick_writes_three_keys_and_nothing_else():
    job = made(custom=1)
    picked = pick(job, worker="w", now=NOW + 5, rules=RULES)
    before, after = values(job.head), values(picked.head)
    assert after == before | {"state": "picked", "executor": "w", "updatedAt": "2023-11-14T22:13:20.005Z"}
    assert (picked.run, picked.attempts, picked.lease) == (1, 1, NOW + 5 + 90_000)


@pytest.mark.parametrize("state", ["picked", "started", "render:dorender", "finished", "error", "created", "cancelled"])
def test_only_queued_jobs_are_picked(state):
    with pytest.raises(IllegalTransition, match=state):
        pick(changed(made(), state=state), worker="w", now=NOW, rules=RULES)


def test_attempts_are_shown_to_those_who_limit_them():
    assert values(pick(made(maxAttempts=2), worker="w", now=NOW, rules=RULES).head)["attempts"] == 1


def test_a_worker_that_promises_to_report_has_the_lease_that_it_promises():
    picked = pick(made(), worker="w", now=NOW, rules=RULES, renew=5000)
    assert picked.lease == NOW + 5000
    assert changed(picked, now=NOW + 4000, run=1, state="render:dorender").lease == NOW + 9000
    assert changed(picked, now=NOW + 4000, run=1).lease == NOW + 9000


# --- changes ---------------------------------------------------------------------------------------------------------


def test_a_change_lays_its_keys_over_the_job():
    job = changed(made(timings={"a": 1}), now=NOW + 1, timings={"b": 2}, priority="x", tags="a!", type=None, output="o")
    told = values(job.head)
    assert told["timings"] == {"b": 2}
    assert (told["priority"], told["tags"], told["type"], told["output"]) == ("x", "a!", None, "o")
    assert told["updatedAt"] == "2023-11-14T22:13:20.001Z"


def test_an_empty_change_touches_the_job():
    job = made()
    assert values(changed(job, now=NOW + 1).head) == values(job.head) | {"updatedAt": "2023-11-14T22:13:20.001Z"}


def test_updated_at_is_ours_and_created_at_theirs():
    told = values(changed(made(), now=NOW + 1, updatedAt="x", createdAt="y", creator="z").head)
    assert (told["updatedAt"], told["createdAt"], told["creator"]) == ("2023-11-14T22:13:20.001Z", "y", "z")


@pytest.mark.parametrize("fields", [{"uid": "other"}, {"uid": ""}, {"uid": None}, {"uid": 5}])
def test_a_job_keeps_its_name(fields):
    with pytest.raises(InvalidJob) as caught:
        changed(made(), **fields)
    assert caught.value.where == "$.uid"


@pytest.mark.parametrize("state", ["", None, 0, False])
def test_a_job_keeps_a_state(state):
    with pytest.raises(InvalidJob, match="state"):
        changed(made(), state=state)


WORDS = ["queued", "picked", "started", "render:dorender", "render:cleanup", "finished", "error", "created", "whatever"]


@pytest.mark.parametrize("old", WORDS)
@pytest.mark.parametrize("new", WORDS)
def test_a_client_may_put_any_state_after_any_other(old, new):
    job = changed(changed(made(), state=old), state=new)
    assert job.state == new
    assert (job.lease is not None) == is_held(new)


def test_a_state_may_be_no_string():
    assert changed(made(), state=["a", 1]).state == '["a",1]'


def test_terms_are_checked_where_they_change():
    job, _ = take_over(document(uid="a", state="queued", timeout="5m"), now=NOW, rules=RULES)
    assert changed(job, timeout="5m", state="started").state == "started"  # a worker sends the whole job
    with pytest.raises(InvalidJob, match="timeout"):
        changed(job, timeout="6m")


def test_a_client_queues_again_from_the_beginning():
    job = started(made())
    job = put(job, record(job, state="error", error="boom", errorAt="t", renderProgress=57), now=NOW, rules=RULES)
    again = changed(job, state="queued")
    assert (again.attempts, again.run, again.begun, again.lease) == (0, 2, None, None)
    told = values(again.head)
    assert (told["renderProgress"], told["error"], told["errorAt"]) == (0, None, None)
    assert told["startedAt"] == "2026-01-01T00:00:00.000Z"
    assert values(changed(job, state="queued", error="kept").head)["error"] == "kept"


def test_queueing_a_queued_job_changes_nothing():
    assert changed(made(notBefore=NOW + 5), state="queued").due == NOW + 5
    assert changed(made(), notBefore=NOW + 5).due == NOW + 5
    assert changed(made(notBefore=NOW + 5), notBefore=None).due is None


def test_a_job_taken_without_a_pick_is_an_attempt_and_has_a_lease():
    job = changed(made(), state="started", startedAt="t")
    assert (job.attempts, job.lease, job.begun) == (1, NOW + RULES.silence, b'"t"')


# --- runs ------------------------------------------------------------------------------------------------------------


def test_reports_of_the_present_run_are_taken():
    job = started(made())
    job = put(job, record(job, state="render:dorender", renderProgress=40), now=NOW + 1, rules=RULES)
    assert (job.state, values(job.head)["renderProgress"]) == ("render:dorender", 40)
    assert job.lease == NOW + 1 + RULES.silence
    job = put(job, record(job, state="finished", finishedAt="t"), now=NOW + 2, rules=RULES)
    assert (job.state, job.lease) == ("finished", None)
    assert values(job.head).items() >= {("jobExecutor", "w"), ("jobCreator", "10.0.0.1")}


def test_reports_of_another_run_are_not():
    job = started(made())
    for told in (record(job, started="other", state="finished"), record(job, started=None, state="error", error="x")):
        assert put(job, told, now=NOW + 1, rules=RULES) is job


def test_an_old_run_does_not_disturb_a_new_pick():
    old = started(made())
    again = pick(changed(old, state="queued"), worker="w2", now=NOW, rules=RULES)
    assert put(again, record(old, state="render:dorender"), now=NOW, rules=RULES) is again
    assert put(again, document(state="finished"), now=NOW, rules=RULES, run=1) is again


@pytest.mark.parametrize("is_picked", [False, True])
@pytest.mark.parametrize("begins", [False, True])
def test_the_worker_of_a_removed_job_says_nothing_of_the_next_one_of_its_uid(is_picked, begins):
    (old, _), (new, _) = (create(document(**BODY), uid="a", creator="c", now=now) for now in (NOW, NOW + 1000))
    old = pick(old, worker="w1", now=NOW, rules=RULES)
    new = pick(new, worker="w2", now=NOW + 1001, rules=RULES) if is_picked else new
    whole = document(**{**values(old.head), **BODY, "state": "started", "startedAt": "s1"})
    told = whole if begins else record(put(old, whole, now=NOW, rules=RULES), state="finished", started="s1")
    assert put(new, told, now=NOW + 1002, rules=RULES) is new


@pytest.mark.parametrize("stored", [None, "2020-01-01T00:00:00.000Z", "2023-11-14T22:13:20Z", "yesterday", 5])
def test_reports_are_taken_whatever_a_client_makes_of_the_time_when_the_job_was_made(stored):
    job = started(made())
    told = record(job, state="finished")
    assert put(changed(job, createdAt=stored), told, now=NOW + 1, rules=RULES).state == "finished"


def test_a_worker_and_a_client_may_write_times_otherwise_than_they_have_read_them():
    made_then, _ = create(document(**BODY), uid="a", creator="c", now=NOW + 824)
    job = pick(made_then, worker="w", now=NOW + 900, rules=RULES)
    told = {**values(job.head), **BODY, "state": "started", "startedAt": "s", "createdAt": "2023-11-14T22:13:20Z"}
    job = put(job, document(**told), now=NOW + 901, rules=RULES)
    assert (job.state, job.begun) == ("started", b'"s"')
    assert values(put(job, document(**{**told, "priority": 7}), now=NOW + 902, rules=RULES).head)["priority"] == 7


def test_a_worker_that_begins_late_does_not_take_the_job_back():
    first = pick(made(), worker="w1", now=NOW, rules=RULES)
    late = document(**{**values(first.head), **BODY, "state": "started", "startedAt": "s1"})
    assert put(first, late, now=NOW + 1, rules=RULES).begun == b'"s1"'
    assert put(changed(first, priority=1, now=NOW + 1), late, now=NOW + 2, rules=RULES).begun == b'"s1"'
    lost = lose(first, now=NOW + 1, rules=RULES)
    assert put(lost, late, now=NOW + 2, rules=RULES).state == "started"
    picked = pick(lost, worker="w2", now=NOW + 2, rules=RULES)
    begun = changed(picked, now=NOW + 3, state="started", startedAt="s2")
    over = changed(begun, now=NOW + 4, state="finished")
    for job in (picked, begun, over):
        assert put(job, late, now=NOW + 5, rules=RULES) is job


def test_a_late_worker_is_known_by_when_it_began_where_two_have_one_name():
    first = pick(made(), worker="10.0.0.2", now=NOW, rules=RULES)
    late = document(**{**values(first.head), **BODY, "state": "started", "startedAt": "s1"})
    picked = pick(lose(first, now=NOW + 1, rules=RULES), worker="10.0.0.2", now=NOW + 2, rules=RULES)
    mine = document(**{**values(picked.head), **BODY, "state": "started", "startedAt": "s2"})
    begun = put(picked, mine, now=NOW + 3, rules=RULES)
    assert begun.begun == b'"s2"'
    assert values(put(begun, mine, now=NOW + 4, rules=RULES).head)["state"] == "started"  # again: an answer was lost
    over = changed(begun, now=NOW + 4, state="finished")
    for job, again in ((begun, late), (over, late), (over, mine)):
        assert put(job, again, now=NOW + 5, rules=RULES) is job


def test_a_worker_may_say_what_it_is_called_when_it_begins():
    picked = pick(made(), worker="10.0.0.2", now=NOW, rules=RULES)
    mine = document(**{**values(picked.head), **BODY, "state": "started", "startedAt": "s1", "executor": "w"})
    assert values(put(picked, mine, now=NOW + 1, rules=RULES).head)["executor"] == "w"


def test_a_client_may_put_a_whole_job_that_it_read_before():
    before = changed(started(made()), state="error")
    again = pick(changed(before, state="queued"), worker="w2", now=NOW + 1, rules=RULES)
    for state in ("queued", "error", "finished"):
        whole = document(**{**values(before.head), **BODY, "state": state})
        assert put(again, whole, now=NOW + 2, rules=RULES).state == state


def test_a_worker_that_knows_no_numbers_does_not_begin_what_one_that_knows_them_has_picked():
    job = pick(made(), worker="w", now=NOW, rules=RULES, renew=30_000)
    assert put(job, record(job, state="render:dorender"), now=NOW, rules=RULES) is job
    assert changed(job, run=job.run, state="render:dorender").state == "render:dorender"


def test_a_run_may_begin_with_a_status_record():
    for job in (made(), pick(made(), worker="w", now=NOW, rules=RULES)):
        begun = put(job, record(job, started="s1", state="started"), now=NOW, rules=RULES)
        assert (begun.state, begun.begun) == ("started", b'"s1"')
        again = pick(changed(begun, state="queued"), worker="w2", now=NOW, rules=RULES)
        assert put(again, record(again, started="s1", state="finished"), now=NOW, rules=RULES) is again
        assert put(again, record(again, started="s2", state="started"), now=NOW, rules=RULES).begun == b'"s2"'


def test_a_job_for_later_that_is_begun_before_is_not_due_any_more():
    job = msgspec.structs.replace(made(), due=NOW + 5000)
    assert put(job, record(job, started="s1", state="started"), now=NOW, rules=RULES).due is None


def test_a_report_that_does_not_say_of_which_run_is_of_the_present_one():
    job = started(made())
    told = document(jobExecutor="w", state="render:dorender", renderProgress=3)
    job = put(job, told, now=NOW, rules=RULES)
    assert (job.state, job.begun) == ("render:dorender", b'"2026-01-01T00:00:00.000Z"')
    over = changed(job, state="finished")
    assert put(over, told, now=NOW, rules=RULES) is over


def test_whole_jobs_are_not_status_records():
    """They have jobExecutor too, once a worker has reported and the job was queued again."""
    job = started(made())
    job = changed(put(job, record(job, state="error", error="x"), now=NOW, rules=RULES), state="queued")
    assert "jobExecutor" in job.head
    assert started(job, started_at="2026-02-02T00:00:00.000Z").begun == b'"2026-02-02T00:00:00.000Z"'


@pytest.mark.parametrize("final", sorted(FINAL))
@pytest.mark.parametrize("late", ["started", "render:dorender", "queued", "error", "finished"])
def test_late_reports_do_not_change_a_job_that_is_over(final, late):
    job = started(made())
    over = put(job, record(job, state=final, error="x"), now=NOW, rules=RULES)
    assert put(over, record(over, state=late, renderProgress=1), now=NOW + 1, rules=RULES) is over
    assert put(over, document(state=late), now=NOW + 1, rules=RULES, run=over.run) is over


def test_a_bare_state_is_a_clients():
    job = started(made())
    over = put(job, record(job, state="finished"), now=NOW, rules=RULES)
    assert changed(over, state="queued").state == "queued"


def test_a_cancelled_job_stays_cancelled():
    job = changed(started(made(maxAttempts=5)), state="error", error="cancelled")
    assert (job.state, job.lease) == ("error", None)
    assert put(job, record(job, state="render:dorender"), now=NOW, rules=RULES) is job


def test_a_worker_gives_a_job_back():
    job = started(made())
    back = put(job, record(job, state="queued"), now=NOW, rules=RULES)
    assert (back.state, back.attempts, back.lease) == ("queued", 0, None)
    assert back.run != job.run


# --- failing, expiring -----------------------------------------------------------------------------------------------


def test_a_failure_is_the_end_where_nothing_else_is_said():
    job = started(made())
    over = put(job, record(job, state="error", error="boom"), now=NOW, rules=RULES)
    assert (over.state, values(over.head)["error"]) == ("error", "boom")


def test_a_failure_of_a_job_that_nobody_picked_is_the_end():
    assert put(made(), record(made(), started=None, state="error", error="x"), now=NOW, rules=RULES).state == "error"


def test_failures_are_tried_again_as_often_as_the_job_says():
    job = made(maxAttempts=3, retryDelay=2)
    for attempt in (1, 2):
        job = started(job)
        job = put(job, record(job, state="error", error=f"boom {attempt}", errorAt="t"), now=NOW, rules=RULES)
        assert (job.state, job.attempts, job.due, job.lease) == ("queued", attempt, NOW + 2000, None)
        told = values(job.head)
        assert (told["error"], told["lastError"], told["errorAt"]) == (None, f"boom {attempt}", None)
    job = started(job)
    job = put(job, record(job, state="error", error="boom 3"), now=NOW, rules=RULES)
    assert (job.state, values(job.head)["error"], job.attempts) == ("error", "boom 3", 3)


def test_a_lease_that_is_not_over_does_not_expire():
    job = pick(made(), worker="w", now=NOW, rules=RULES)
    with pytest.raises(IllegalTransition):
        expire(job, now=NOW + 89_999, rules=RULES)
    with pytest.raises(IllegalTransition):
        expire(made(), now=NOW, rules=RULES)


def test_a_job_of_a_worker_that_is_gone_is_queued_again():
    again = expire(pick(made(), worker="w", now=NOW, rules=RULES), now=NOW + 90_000, rules=RULES)
    assert (again.state, again.attempts, again.lease, again.due) == ("queued", 1, None, None)
    assert pick(again, worker="w2", now=NOW, rules=RULES).attempts == 2


def test_a_job_that_is_lost_each_time_ends():
    job = made()
    for _ in range(RULES.lost_attempts):
        assert job.state == "queued"
        job = expire(pick(job, worker="w", now=NOW, rules=RULES), now=NOW + 90_000, rules=RULES)
    assert (job.state, values(job.head)["error"]) == ("error", 'worker "w" is gone')


def test_max_attempts_counts_lost_ones():
    job = expire(pick(made(maxAttempts=1), worker="w", now=NOW, rules=RULES), now=NOW + 90_000, rules=RULES)
    assert job.state == "error"


def test_a_silent_worker_may_come_back_until_somebody_else_has_the_job():
    lost = expire(started(made()), now=NOW + RULES.silence, rules=RULES)
    back = put(lost, record(lost, state="render:dorender"), now=NOW, rules=RULES)
    assert (back.state, back.attempts) == ("render:dorender", 1)
    taken = pick(lost, worker="w2", now=NOW, rules=RULES)
    assert put(taken, record(lost, state="finished"), now=NOW, rules=RULES) is taken


def test_a_worker_that_promised_to_report_may_not():
    lost = lose(pick(made(), worker="w", now=NOW, rules=RULES, renew=1000), now=NOW, rules=RULES)
    assert put(lost, document(state="finished"), now=NOW, rules=RULES, run=1) is lost


def test_silence_may_be_for_ever():
    rules = Rules(silence=0)
    picked = pick(made(), worker="w", now=NOW, rules=rules)
    assert picked.lease is not None
    assert put(picked, document(state="started", startedAt="t"), now=NOW, rules=rules).lease is None


def test_a_timeout_is_a_failure_whatever_is_reported():
    job = pick(made(timeout=10), worker="w", now=NOW, rules=RULES, renew=4000)
    assert job.lease == NOW + 4000
    job = changed(job, now=NOW + 8000, run=1, state="render:dorender")
    assert job.lease == NOW + 10_000
    over = expire(job, now=NOW + 10_000, rules=RULES)
    assert (over.state, values(over.head)["error"]) == ("error", 'worker "w" did not finish within 10 s')
    job = pick(made(timeout=10, maxAttempts=2), worker="w", now=NOW, rules=RULES)
    again = expire(job, now=NOW + 10_000, rules=RULES)
    assert again.state == "queued"
    assert put(again, document(state="finished"), now=NOW, rules=RULES, run=1) is again


def test_a_job_can_be_abandoned():
    job = abandon(made(maxAttempts=5), "no", now=NOW)
    assert (job.state, values(job.head)["error"]) == ("error", "no")


class Life(RuleBasedStateMachine):
    """One job, its clients, and workers of which some are slow."""

    @initialize(attempts=st.none() | st.integers(1, 3), timeout=st.none() | st.integers(1, 100))
    def begin(self, attempts, timeout):
        self.now, self.serial, self.reports = NOW, 0, []
        self.rules = Rules(pick_lease=20_000, silence=60_000, lost_attempts=3)
        self.job = made(maxAttempts=attempts, timeout=timeout)

    def put(self, change, run=None):
        old, self.job = self.job, put(self.job, change, now=self.now, rules=self.rules, run=run)
        return self.job is not old

    @rule(seconds=st.integers(1, 30))
    def wait(self, seconds):
        self.now += seconds * 1000
        if self.job.lease is not None and self.job.lease <= self.now:
            self.job = expire(self.job, now=self.now, rules=self.rules)
            assert self.job.state in ("queued", "error")

    @precondition(lambda self: self.job.state == "queued")
    @rule(renew=st.none() | st.integers(5, 40))
    def pick(self, renew):
        self.job = pick(self.job, worker="w", now=self.now, rules=self.rules, renew=renew and renew * 1000)
        self.serial += 1
        if renew is None:
            time = f"t{self.serial}"
            assert self.put(document(**{**values(self.job.head), **BODY, "state": "started", "startedAt": time}))
            self.reports.append((None, time))
        else:
            self.reports.append((self.job.run, None))

    @precondition(lambda self: self.reports)
    @rule(data=st.data(), state=st.sampled_from(["render:dorender", "finished", "error", "queued"]))
    def report(self, data, state):
        run, time = data.draw(st.sampled_from(self.reports))
        before, last = self.job, (run, time) == self.reports[-1]
        taken = self.put(document(state=state) if run else record(self.job, started=time, state=state), run=run)
        if taken:
            assert last
            assert before.state not in FINAL
        elif last and is_held(before.state):
            raise AssertionError("the present run of a held job was not heard")

    @rule(state=st.sampled_from(["queued", "error", "finished", "whatever"]))
    def client(self, state):
        was = self.job.state
        assert self.put(document(state=state))
        assert self.job.state == state
        if state == "queued" != was:
            self.reports = []  # none of them counts any more

    @invariant()
    def holds(self):
        job = getattr(self, "job", None)
        if job is not None:
            assert (job.lease is not None) == is_held(job.state)
            assert is_held(job.state) or (job.renew is None and job.deadline is None)
            assert job.lease is None or job.deadline is None or job.lease <= job.deadline
            assert job.attempts <= job.run
            assert job.attempts <= max(3, terms_of(job.head).max_attempts or 0)
            assert set(values(status_of(job.head))) == RECORD


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


# --- telling ---------------------------------------------------------------------------------------------------------

RECORD = {
    *("uid", "state", "type", "tags", "renderProgress", "error", "createdAt", "updatedAt", "startedAt", "finishedAt"),
    *("errorAt", "jobCreator", "jobExecutor", "timings"),
}


def test_a_status_record_has_fourteen_keys():
    told = values(status_of(made(tags="").head))
    assert set(told) == RECORD
    assert (told["tags"], told["renderProgress"], told["error"], told["timings"]) == (None, 0, None, {})
    assert (told["startedAt"], told["jobExecutor"], told["jobCreator"]) == (None, None, "10.0.0.1")


@pytest.mark.parametrize(
    ("field", "key", "value", "shown"),
    [
        ("error", "error", ["a", "b"], "a\n\nb"), ("error", "error", [], None), ("error", "error", {}, {}),
        ("error", "error", "x", "x"), ("error", "error", "", None), ("error", "error", [None, 1], "null\n\n1"),
        ("renderProgress", "renderProgress", None, 0), ("renderProgress", "renderProgress", 104, 104),
        ("renderProgress", "renderProgress", 5, 5), ("renderProgress", "renderProgress", -1, -1),
        ("tags", "tags", ["a"], ["a"]), ("timings", "timings", 0, None), ("timings", "timings", -0.0, None),
        ("executor", "jobExecutor", "w", "w"), ("jobExecutor", "jobExecutor", "other", None),
        ("creator", "jobCreator", None, None), ("jobCreator", "jobCreator", "x", "10.0.0.1"),
        ("type", "type", None, None), ("startedAt", "startedAt", "t", "t"),
    ],
)  # fmt: skip
def test_a_status_record_shows(field, key, value, shown):
    assert values(status_of(made().head | document(**{field: value})))[key] == shown


def test_nobody_made_a_job_of_another_server():
    assert "jobCreator" not in status_of(document(uid="a", state="queued", type="x"))
