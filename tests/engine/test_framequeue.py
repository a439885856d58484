"""FrameQueue and SampleQueue: what answers time t, against a list that remembers everything."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.framequeue import FrameQueue, Pick, SampleQueue, short_of, tolerance


def queue_of(*frames, ended=False, capacity=None):
    queue = FrameQueue(capacity)
    for start, stop in frames:
        queue.push(Fraction(start), Fraction(stop), start)
    if ended:
        queue.end()
    return queue


def test_a_frame_is_on_screen_from_its_start_until_the_next():
    queue = queue_of((0, 1), (1, 2), (5, 6))
    assert queue.pick(Fraction(0)) == (0, 0, False)
    assert queue.pick(Fraction(3, 2)) == (1, 1, False)
    assert queue.pick(Fraction(4)) == (1, 1, True)
    assert queue.pick(Fraction(5)) == (5, 5, False)
    assert queue.dropped == 0


def test_before_the_first_frame_there_is_nothing():
    queue = queue_of((1, 2))
    assert queue.pick(Fraction(1, 2)) == Pick(None, None, False)
    assert queue.pick(Fraction(99, 100), Fraction(1, 100)).frame == 1


def test_after_the_end_the_last_frame_lasts_for_its_duration():
    queue = queue_of((0, 1), (1, 2))
    assert queue.pick(Fraction(9)) == (1, 1, True)
    queue.end()
    assert queue.pick(Fraction(9)) == Pick(None, None, False)


def test_the_first_frame_and_the_last_one_stay_where_they_are_held():
    queue = queue_of((1, 2), (2, 3))
    assert queue.pick(Fraction(0), hold=True) == (1, 1, False)
    assert queue.pick(Fraction(2), hold=True) == (2, 2, False)
    queue.end()
    assert queue.pick(Fraction(9), hold=True) == (2, 2, False)
    assert queue_of(ended=True).pick(Fraction(0), hold=True) == Pick(None, None, False)


def test_a_frame_that_is_held_before_its_start_is_waited_for():
    queue = queue_of()
    queue.expect_none_before(Fraction(60))
    assert queue.ready(Fraction(0))
    assert not queue.ready(Fraction(0), hold=True)
    queue.push(Fraction(60), Fraction(61), 9)
    assert queue.ready(Fraction(0), hold=True)
    assert queue.pick(Fraction(0), hold=True).frame == 9


def test_a_frame_that_is_more_than_a_minute_away_is_neither_held_nor_waited_for():
    queue = queue_of()
    queue.expect_none_before(Fraction(61))
    assert queue.ready(Fraction(0), hold=True)
    queue.push(Fraction(61), Fraction(62), 9)
    assert [queue.pick(Fraction(t), hold=True).frame for t in (0, 1)] == [None, 9]


def test_end_without_a_frame_is_known_and_nothing():
    queue = queue_of(ended=True)
    assert queue.ready(Fraction(0))
    assert queue.pick(Fraction(0)).frame is None


def test_equal_rates_with_rounded_stamps_do_not_judder():
    queue = queue_of(*((Fraction(round(n * 1000 / 30), 1000), Fraction(n + 1, 30)) for n in range(30)))
    starts = [queue.pick(Fraction(n, 30), Fraction(1, 120)).start for n in range(30)]
    assert starts == [Fraction(round(n * 1000 / 30), 1000) for n in range(30)]
    assert queue.dropped == 0


@pytest.mark.parametrize(
    ("behind", "timed", "shown"), [("0.2", False, 5), ("0.3", False, 4), ("0.4", True, 5), ("0.6", True, 4)]
)
def test_a_picture_a_quarter_of_a_tick_late_is_on_and_of_what_has_a_media_time_the_nearest_one(behind, timed, shown):
    queue = queue_of(*((n + Fraction(behind), n + 1) for n in range(9)))
    found = queue.pick(Fraction(5), tolerance(Fraction(30), timed=timed) * 30)
    assert found.start == shown + Fraction(behind)


def test_a_picture_that_begins_at_an_out_point_is_not_shown_before_it_however_its_stamp_is_rounded():
    slack = tolerance(Fraction(30), timed=True)
    for left in (Fraction(n, 3000) for n in range(3, 60)):
        queue = queue_of((-1, 0), (Fraction(int(left * 1000), 1000), 1))  # whole milliseconds, rounded down
        assert queue.pick(Fraction(0), short_of(left, slack)).frame == -1


def test_frame_that_does_not_start_later_is_dropped_and_counted():
    queue = queue_of((0, 1), (0, 1), (-1, 0), (1, 2))
    assert len(queue) == 2
    assert queue.dropped == 2


def test_full_queue_drops_its_oldest_and_counts_what_was_never_shown():
    queue = queue_of((0, 1), (1, 2), capacity=2)
    queue.pick(Fraction(0))
    queue.push(Fraction(2), Fraction(3), 2)
    assert queue.dropped == 0
    queue.push(Fraction(3), Fraction(4), 3)
    assert (queue.dropped, queue.first_start) == (1, 2)


def test_answer_is_known_with_a_later_frame_the_end_or_the_word():
    queue = queue_of((0, 1))
    assert not queue.ready(Fraction(0))
    queue.expect_none_before(Fraction(3))
    assert queue.ready(Fraction(2))
    assert not queue.ready(Fraction(3))
    assert queue.pick(Fraction(2)) == (0, 0, True)
    queue.push(Fraction(4), Fraction(5), 4)
    assert queue.ready(Fraction(3))
    assert not queue.ready(Fraction(4))
    queue.clear()
    assert not queue.ready(Fraction(0))
    assert (queue.first_start, queue.last_stop) == (None, None)
    assert queue.pick(Fraction(9)).frame is None


times = st.integers(0, 60).map(lambda n: Fraction(n, 4))
acts = st.lists(st.tuples(st.sampled_from(["push", "pick", "skip", "cut"]), times, st.integers(1, 8)), max_size=40)


@settings(deadline=None, max_examples=100)
@given(acts, st.booleans())
def test_any_order_of_pushes_and_picks_loses_only_what_is_counted(acts, ends):
    queue, model, shown, dropped, now = FrameQueue(), [], set(), 0, Fraction(0)
    for n, (act, t, length) in enumerate(acts):
        if act == "push":
            queue.push(t, t + Fraction(length, 4), n)
            if model and t <= model[-1][0]:
                dropped += 1
            else:
                model.append((t, t + Fraction(length, 4), n))
            continue
        if act == "cut":
            queue.cut(t)
            dropped += sum(start >= t and frame not in shown for start, _, frame in model)
            model = [each for each in model if each[0] < t]
            continue
        now = max(now, t)
        started = [each for each in model if each[0] <= now]
        dropped += sum(each[2] not in shown for each in started[:-1])
        model = started[-1:] + model[len(started) :]
        if act == "skip":
            queue.skip_to(now)
        else:
            found = queue.pick(now)
            assert found.frame == (started[-1][2] if started else None)
            assert found.held == bool(started and started[-1][1] <= now)
            shown.update(each[2] for each in started[-1:])
        assert queue.ready(now) == bool(model and model[-1][0] > now)
    assert len(queue) == len(model)
    assert queue.dropped == dropped
    if ends:
        queue.end()
        assert queue.ready(Fraction(100))
        assert queue.pick(Fraction(100)).frame is None


def samples_of(pieces, count):
    """Which sample of which block is at each place, None where there is silence."""
    out = [None] * count
    for block, skip, length, offset in pieces:
        for n in range(length):
            assert out[offset + n] is None
            out[offset + n] = (block, skip + n)
    return out


def test_samples_come_back_where_they_belong():
    queue = SampleQueue()
    queue.push(0, 4, "a")
    queue.push(4, 4, "b")
    assert queue.take(0, 3) == [("a", 0, 3, 0)]
    assert queue.take(3, 6) == [("a", 3, 1, 0), ("b", 0, 2, 1)]
    assert queue.take(6, 10) == [("b", 2, 2, 0)]
    assert queue.missing == 2


def test_sound_before_zero_is_dropped():
    queue = SampleQueue()
    queue.push(-5, 3, "a")
    queue.push(-2, 4, "b")
    assert queue.take(0, 4) == [("b", 2, 2, 0)]
    assert queue.dropped == 5


def test_word_that_nothing_comes_makes_silence_known_and_drops_what_comes_after_all():
    queue = SampleQueue()
    queue.push(0, 4, "a")
    queue.expect_none_before(10)
    assert queue.ready(10)
    queue.push(8, 4, "b")
    assert queue.take(0, 12) == [("a", 0, 4, 0), ("b", 2, 2, 10)]
    queue.expect_none_before(3)
    assert queue.stop == 12


def test_other_sound_takes_the_place_of_what_is_cut_off():
    queue = SampleQueue()
    for name in "abc":
        queue.push(queue.stop, 4, name)
    queue.cut(6)
    assert queue.stop == 6
    queue.push(6, 3, "d")
    assert queue.take(0, 12) == [("a", 0, 4, 0), ("b", 0, 2, 4), ("d", 0, 3, 6)]
    assert (queue.dropped, queue.missing) == (0, 3)


@pytest.mark.parametrize(("at", "left"), [(9, [("a", 0, 4, 0)]), (4, [("a", 0, 4, 0)]), (0, []), (-5, [])])
def test_a_cut_behind_all_sound_takes_nothing_and_one_before_it_everything(at, left):
    queue = SampleQueue()
    queue.push(0, 4, "a")
    queue.cut(at)
    assert queue.stop == min(at, 4)
    assert queue.take(0, 12) == left


@pytest.mark.parametrize("before", [0, 1000])
def test_clear_begins_anew_at_a_sample_before_or_behind_what_there_was(before):
    queue = SampleQueue()
    queue.push(before, 4, "a")
    queue.end()
    queue.clear(100)
    assert (queue.ready(100), queue.ready(101)) == (True, False)
    queue.push(90, 20, "b")
    assert queue.take(100, 110) == [("b", 10, 10, 0)]
    assert queue.dropped == 10


blocks = st.lists(st.tuples(st.integers(-5, 60), st.integers(0, 12), st.integers(0, 9)), max_size=30)


@settings(deadline=None, max_examples=100)
@given(blocks)
def test_samples_against_a_list_that_remembers_everything(blocks):
    queue, known, newest, at, dropped, missing = SampleQueue(), {}, 0, 0, 0, 0
    for name, (start, count, taken) in enumerate(blocks):
        queue.push(start, count, name)
        for n in range(count):
            if start + n >= newest:
                known[start + n] = (name, n)
            else:
                dropped += 1
        newest = max(newest, start + count) if count else newest
        assert queue.stop == newest
        assert queue.ready(at + taken) == (newest >= at + taken)
        expected = [known.get(at + n) for n in range(taken)]
        assert samples_of(queue.take(at, at + taken), taken) == expected
        missing += expected.count(None)
        at += taken
    assert (queue.dropped, queue.missing) == (dropped, missing)


@pytest.mark.parametrize("count", [0, 1])
def test_block_of_nothing_changes_nothing(count):
    queue = SampleQueue()
    queue.push(7, count, "a")
    assert queue.stop == 7 * count + count
    assert queue.take(0, 9) == [("a", 0, 1, 7)] * count
