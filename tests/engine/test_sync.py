"""Sync: exact places in server time, for every kind of clock, path and time stamp. On a virtual clock."""

import random
from itertools import pairwise

import pytest

from engine.sync import MS, Sync
from engine.timebase import SECOND

HOUR = 3600 * SECOND


class Path:
    """Packets of one source on their way to a Sync; times in ms, as the publisher's clock says."""

    def __init__(self, *, ppm=0, delay=0):
        self.sync = Sync()
        self.ppm, self.delay = ppm, delay
        self.placed = []  # (arrival, time) in ns

    def arrival(self, dts):
        """When a packet arrives that is sent at dts."""
        return dts * MS + dts * self.ppm + self.delay * MS

    def send(self, dts, *, kind="video", pts=None, at=None, late=0):
        """Places a packet; returns its time in ms after its arrival, negative = it is late, and whether it began."""
        arrival = (self.arrival(dts) if at is None else at * MS) + late * MS
        placed = self.sync.place(kind, pts=(dts if pts is None else pts) * MS, dts=dts * MS, arrival=arrival)
        self.placed.append((arrival, placed.time))
        return (placed.time - arrival) / MS, placed.began

    def run(self, start, stop, *, step=40, **how):
        """Packets from start to stop; returns the last one's place."""
        found = None
        for dts in range(start, stop, step):
            found = self.send(dts, **how)
        return found


def test_first_packet_is_on_when_it_arrives():
    path = Path(delay=70)
    assert path.send(5000) == (0, True)
    assert path.send(5040) == (0, False)


def test_pictures_with_b_frames_are_on_by_their_pts():
    sync = Sync()
    times = []
    for n, pts in enumerate((80, 200, 120, 160)):
        placed = sync.place("video", pts=pts * MS, dts=n * 40 * MS, arrival=SECOND + n * 40 * MS)
        times.append(placed.time // MS)
    assert times == [1080, 1200, 1120, 1160]


def test_picture_and_sound_have_one_offset():
    sync = Sync()
    sync.place("video", pts=SECOND, dts=SECOND, arrival=7 * SECOND)
    placed = sync.place("audio", pts=SECOND, dts=SECOND, arrival=7 * SECOND + 30 * MS)
    assert placed.time == 7 * SECOND
    assert placed.began


def test_sound_ten_seconds_after_the_picture_is_on_the_same_line():
    path = Path()
    path.run(0, 10_000)
    assert path.send(10_000, kind="audio") == (0, True)
    assert path.sync.jumps == 0


def test_late_packets_stay_where_they_belong():
    path = Path()
    path.run(0, 3000)
    assert path.send(3000, late=30) == (-30, False)
    assert path.send(3040, late=150) == (-150, False)
    assert path.send(3080) == (0, False)


def test_jitter_does_not_move_anything():
    path, chance = Path(), random.Random(1)
    path.send(0)
    for dts in range(20, 60_000, 20):
        path.send(dts, late=chance.randrange(0, 35))
    assert path.sync.resyncs == 0
    assert abs(path.sync.correction) <= 2 * MS


def test_burst_at_the_beginning_is_taken_up_at_once():
    path = Path()
    for dts in range(0, 500, 40):
        path.send(dts, at=1000)
    for dts in range(520, 8500, 40):
        place, _ = path.send(dts, at=500 + dts)
        assert 0 <= place <= 40
    assert place == 0
    assert (path.sync.correction, path.sync.resyncs) == (0, 0)


def test_nothing_moves_faster_at_the_beginning_than_sound_can_follow_unless_it_must_jump():
    path, chance = Path(), random.Random(3)
    path.send(0, late=30)
    for dts in range(40, 20_000, 40):
        path.send(dts, late=chance.randrange(30))
    assert path.placed[0][1] == 30 * MS
    assert path.sync.time("video", 0) < 3 * MS
    for (a, s), (b, t) in pairwise(path.placed):
        assert abs((t - s) - 40 * MS) <= (b - a) * 0.005 + 1


@pytest.mark.parametrize(("bundle", "late"), [(360, 40), (180, 40), (40, 40), (20, 20), (0, 0)])
def test_sound_that_comes_in_bundles_is_on_when_the_first_of_each_is_there(bundle, late):
    path = Path()
    for dts in range(0, 20_000, 20):
        path.send(dts, pts=dts)
        last = dts - dts % (bundle + 20) + bundle
        place, _ = path.send(dts, kind="audio", at=last)
        assert place >= -late or dts < 1000  # both kinds are there, and the beginning is over
    assert path.send(20_000)[0] == bundle - late
    assert (path.sync.resyncs, path.sync.correction) == (0, 0)


def test_a_burst_at_the_beginning_does_not_hide_that_sound_comes_in_bundles():
    path = Path()
    for dts in range(0, 20_000, 20):
        path.send(dts, at=max(2000, dts))
        place, _ = path.send(dts, kind="audio", at=max(2000, dts - dts % 360 + 340))
        assert place >= -40 or dts < 2160  # the first bundle after the burst
    assert path.sync.resyncs == 0


def test_a_bundle_that_comes_in_two_pieces_moves_nothing_by_more_than_was_between_them():
    path = Path()
    for bundle in range(0, 20_000, 360):
        for n in range(18):
            place, _ = path.send(bundle + 20 * n, at=bundle + 340 + (15 if n > 9 else 0))
            assert place >= -40 - 15 or bundle < 1000
    assert path.sync.resyncs == 0


def test_a_radio_link_that_bundles_now_more_and_now_less_is_not_set_anew_again_and_again():
    path, chance = Path(), random.Random(0)
    edge = 0
    for dts in range(0, 120_000, 10):
        while edge < dts:
            edge += chance.randrange(20, 150)
        path.send(dts, at=edge, kind="audio" if dts % 20 else "video")
    assert path.sync.resyncs == 0
    assert path.sync.correction < 60 * MS


def test_sound_that_begins_to_come_in_bundles_is_soon_heard_without_holes():
    path = Path()
    for dts in range(0, 40_000, 20):
        path.send(dts)
        bundled = dts >= 10_080
        place, _ = path.send(dts, kind="audio", at=dts - dts % 360 + 340 if bundled else dts)
        assert place >= -40 or 10_000 < dts < 16_000
    assert path.sync.resyncs == 1


def test_slow_first_keyframe_does_not_make_the_source_late():
    path = Path()
    path.send(0, late=160)
    path.run(40, 400)
    assert path.send(400) == (0, False)


def test_packets_of_the_past_give_the_same_place_to_all_who_come():
    first, second = Path(delay=20), Path(delay=20)
    first.run(0, 4000)
    assert second.run(2000, 4000)[0] == 0
    assert first.send(4000)[0] == second.send(4000)[0] == 0


@pytest.mark.parametrize("ppm", [-200, 200, 0])
def test_a_clock_that_drifts_is_followed_for_an_hour(ppm):
    path = Path(ppm=ppm)
    worst = 0
    for dts in range(0, 3_600_000, 40):
        for kind in ("video", "audio"):
            place, _ = path.send(dts, kind=kind)
        worst = max(worst, abs(place))
    assert worst < 3.5
    assert (path.sync.resyncs, path.sync.jumps) == (0, 0)
    assert abs(path.sync.correction - HOUR * ppm // 1_000_000) < 4 * MS
    (_, video), (_, audio) = path.placed[-2:]
    assert abs(audio - video) < MS / 10


def test_corrections_are_slow_enough_to_be_unheard():
    path = Path(ppm=200)
    path.run(0, 600_000)
    for (a, s), (b, t) in zip(path.placed, path.placed[1:], strict=False):
        if a > 2 * SECOND:
            assert abs((t - s) / (b - a) - 1) <= 0.00521  # half a per cent, and the drift


def test_a_correction_takes_two_seconds_or_more_however_small_it_is():
    path = Path()
    path.run(0, 5000)
    path.run(5000, 20_000, late=5)
    moving = [b - a != 40 * MS for (_, a), (_, b) in pairwise(path.placed)]
    assert sum(moving) * 40 >= 2000
    assert path.sync.correction == 5 * MS


def test_a_path_that_became_longer_by_thirty_ms_is_followed_slowly():
    path = Path()
    path.run(0, 5000)
    assert path.send(5000, late=30)[0] == -30
    path.run(5040, 10_000, late=30)  # the minimum of four seconds is still the old one for a while
    place, _ = path.run(10_000, 24_000, late=30)
    assert -2 <= place <= 0
    assert path.sync.resyncs == 0


def test_a_path_that_became_longer_by_a_hundred_ms_is_followed_within_two_seconds():
    path = Path()
    path.run(0, 5000)
    assert path.run(5000, 7200, late=100)[0] == 0
    assert path.sync.resyncs == 1
    assert path.send(7200, late=100) == (0, False)


def test_a_path_that_became_shorter_by_a_second_is_followed_within_a_second():
    path = Path(delay=1000)
    path.run(0, 5000)
    path.delay = 0
    assert path.run(5000 + 1000, 7200)[0] == 0
    assert path.sync.resyncs == 1


def test_a_stall_and_the_burst_after_it_change_nothing():
    path = Path()
    path.run(0, 5000)
    for dts in range(5000, 6500, 40):
        path.send(dts, at=6500)
    assert path.run(6520, 12_000) == (0, False)
    assert (path.sync.resyncs, path.sync.jumps, path.sync.correction) == (0, 0, 0)


def test_a_pause_in_which_the_clock_goes_on_is_no_jump():
    path = Path()
    path.run(0, 5000)
    assert path.send(65_000) == (0, False)
    assert path.sync.jumps == 0


def test_a_pause_in_which_the_clock_stands_is_followed_within_two_seconds():
    path = Path()
    path.run(0, 5000)
    path.delay = 60_000
    assert path.send(5000)[0] == -60_000
    assert path.run(5040, 7200)[0] == 0
    assert (path.sync.resyncs, path.sync.jumps) == (1, 0)


@pytest.mark.parametrize("began", [0, 90_000_000])  # how long the server had run, ms
@pytest.mark.parametrize("jump", [-3_600_000, 86_400_000, -1001 - 40, 2001 + 40, -(1 << 33) // 90, (1 << 32)])
def test_jump_of_time_stamps_begins_a_new_line(jump, began):
    path = Path(delay=began)
    for dts in range(0, 5000, 20):
        path.send(dts)
        path.send(dts, kind="audio")
    path.delay = began - jump
    assert path.send(5000 + jump) == (0, True)
    assert path.send(5000 + jump, kind="audio") == (0, True)
    assert path.send(5040 + jump) == (0, False)
    assert path.send(5040 + jump, kind="audio") == (0, False)
    assert (path.sync.resyncs, path.sync.jumps) == (0, 1)


def test_sound_that_jumps_a_little_later_than_the_picture_stays_on_its_line_until_then():
    path = Path()
    for dts in range(0, 3000, 20):
        path.send(dts)
        path.send(dts, kind="audio")
    assert path.send(0, at=3000) == (0, True)
    assert path.send(3000, kind="audio", at=3010) == (-10, False)
    assert path.send(40, at=3040) == (0, False)
    assert path.send(50, kind="audio", at=3050) == (0, True)
    assert path.sync.jumps == 1


def test_picture_and_sound_that_never_agree_keep_lines_of_their_own():
    path = Path()
    for dts in range(0, 20_000, 40):
        _, picture_began = path.send(dts)
        place, sound_began = path.send(dts + 10**7, kind="audio", at=dts)
        assert (place, picture_began, sound_began) == (0, dts == 0, dts == 0)
    assert path.sync.jumps == 0


@pytest.mark.parametrize("jump", [-900, 1900, 700])
def test_a_small_jump_is_over_within_two_seconds(jump):
    path = Path()
    path.run(0, 5000)
    path.delay = -jump
    assert path.run(5000 + jump, 7200 + jump)[0] == 0
    assert (path.sync.resyncs, path.sync.jumps) == (1, 0)


def test_a_source_that_sends_the_picture_later_than_the_sound_is_in_time_with_both():
    path = Path()
    for dts in range(0, 10_000, 20):
        sound, _ = path.send(dts, kind="audio")
        picture, _ = path.send(dts, late=120)
    assert (sound, picture) == (120, 0)


def test_a_slide_show_beside_sound_does_not_disturb_it():
    path, chance = Path(), random.Random(2)
    for dts in range(0, 60_000, 20):
        place, _ = path.send(dts, kind="audio")
        if dts % 2000 == 0:
            path.send(dts, late=chance.randrange(0, 200))
        assert dts < 200 or place == 0
    assert (path.sync.resyncs, path.sync.correction) == (0, 0)


def test_a_publisher_that_comes_back_begins_anew_without_a_jump():
    path = Path()
    path.run(0, 5000)
    path.sync.restart()
    assert path.sync.time("video", 0) is None
    assert path.sync.correction == 0
    assert path.send(0, at=9000) == (0, True)
    assert path.sync.jumps == 0


def test_time_of_a_past_packet_is_by_the_present_offset():
    path = Path(delay=15)
    path.run(0, 5000)
    assert path.sync.time("video", 4 * SECOND) == 4015 * MS
    assert path.sync.time("audio", 4 * SECOND) is None


def test_a_publisher_faster_than_time_is_kept_near_now():
    path = Path()
    for dts in range(0, 60_000, 40):
        place, _ = path.send(dts, at=dts // 2)
        assert dts < 6000 or -1 <= place <= 2100
    assert path.sync.jumps == 0
