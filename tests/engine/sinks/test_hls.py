"""A playlist that a client can follow, and segments that PyAV plays: cut at keyframes, whole, in step, for ever."""

import re
from fractions import Fraction
from functools import partial
from itertools import pairwise

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from engine import fmp4
from engine.errors import InvalidSpec, NotFound, SinkRejected, SourceUnavailable
from engine.packet import Packet, Track
from engine.sinks import hls
from engine.sinks.hls import Hls, Segmenter, playlist
from engine.stream import Hub, Publisher
from tests.engine.clips import (
    NS,
    decode_times,
    inside,
    interrupted,
    packets,
    pictures,
    publish,
    sounds,
    unseen,
    until_the_second_keyframe,
)
from tests.media import Audio, Video, encode

MS = Fraction(1, 1000)


@pytest.fixture
def hub():
    return Hub(lambda: 7)


@pytest.fixture(scope="module")
def two_seconds(tmp_path_factory):
    """A film as a mix is: no reordered pictures, a keyframe every two seconds."""
    path = tmp_path_factory.mktemp("hls") / "a.mp4"
    return encode(path, Video(gop=60, options={"bf": "0"}), Audio(), seconds=4)


async def settle():
    await trio.testing.wait_all_tasks_blocked()


def segmented(film):
    segmenter = Segmenter()
    for packet in film:
        segmenter.push(packet)
    return segmenter


def durations(text):
    return [Fraction(each) for each in re.findall(r"#EXTINF:([\d.]+),", text)]


def dates(text):
    return re.findall(r"#EXT-X-PROGRAM-DATE-TIME:(.+)", text)


def uris(text, kind):
    """What the playlist names: "init", "seg" or "part", as numbers."""
    return [tuple(map(int, each.split("_"))) for each in re.findall(rf"{kind}_([\d_]+)\.m", text)]


# --- cutting ----------------------------------------------------------------------------------------------------------


def test_segments_begin_with_keyframes_and_are_two_seconds_long(two_seconds):
    segmenter = segmented(packets(two_seconds, times=2))
    assert [segment.duration for segment in segmenter.closed] == [2, 2, 2]
    assert all(segment.parts[0].independent for segment in segmenter.segments)
    assert segmenter.target == 2


def test_short_gops_make_segments_of_a_second(media):
    segmenter = segmented(packets(media.path("plain"), times=2))
    assert [segment.duration for segment in segmenter.closed] == [1, 1, 1]


def test_long_gops_are_cut_all_the_same(tmp_path):
    path = encode(tmp_path / "a.mp4", Video(gop=800), None, seconds=25)
    segmenter = segmented(packets(path))
    assert [segment.duration for segment in segmenter.closed] == [12, 12]
    assert segmenter.target == 12


@pytest.mark.parametrize("rate", [24, 25, 30])
def test_a_keyframe_in_250_pictures_makes_a_segment_of_each_gop(tmp_path, rate):
    path = encode(tmp_path / "a.mp4", Video(rate=Fraction(rate), gop=250), None, seconds=24)
    segmenter = segmented(packets(path))
    assert [segment.duration for segment in segmenter.closed] == [Fraction(250, rate)] * 2
    assert all(segment.parts[0].independent for segment in segmenter.segments)


@pytest.mark.parametrize(("rate", "expected"), [(25, 5), (Fraction(30_000, 1001), 6), (24, 5), (50, 10), (60, 12)])
def test_parts_are_whole_pictures_and_a_fifth_of_a_second(tmp_path, rate, expected):
    path = encode(tmp_path / "a.mp4", Video(rate=Fraction(rate), gop=400), None, seconds=2)
    for units in (None, MS):
        segmenter = segmented(packets(path, units=units, durations=False))
        parts = [part for segment in segmenter.segments for part in segment.parts]
        assert len(parts) == 2 * rate // expected - (2 * rate % expected == 0)  # the last picture waits for its end
        assert all(abs(part.duration - expected / Fraction(rate)) <= MS for part in parts)


def test_sound_alone_is_cut_every_two_seconds(tmp_path):
    path = encode(tmp_path / "a.m4a", None, Audio(rate=44_100), seconds=9)
    segmenter = segmented(packets(path))
    assert len(segmenter.closed) == 4
    assert all(2 <= segment.duration < Fraction(205, 100) for segment in segmenter.closed)
    parts = [part for segment in segmenter.closed[1:] for part in segment.parts]
    assert all(part.independent and part.duration <= hls.PART_TARGET for part in parts)


def test_the_parts_of_a_segment_are_the_segment(two_seconds):
    segmenter = segmented(packets(two_seconds))
    for segment in segmenter.closed:
        assert len(segment.parts) == 10
        assert b"".join(part.data for part in segment.parts) == segment.data
        assert sum(part.duration for part in segment.parts) == segment.duration


def test_all_segments_together_are_the_film(two_seconds):
    film = packets(two_seconds)
    segmenter = segmented(film)
    segmenter.end()
    data = segmenter.inits[0] + b"".join(segment.data for segment in segmenter.segments)
    assert [number for _, number in pictures(data)] == list(range(120))
    assert len(sounds(data)) == sum(not each.is_video for each in film if each.dts >= 0)


def test_each_segment_plays_by_itself(two_seconds):
    segmenter = segmented(packets(two_seconds, times=2))
    first, second, third = segmenter.closed
    assert [number for _, number in pictures(segmenter.inits[0] + second.data)] == list(range(60, 120))
    start = decode_times(second.data)[0] - decode_times(first.data)[0]
    assert decode_times(third.data)[0] - decode_times(second.data)[0] == start


def test_what_is_kept_is_bounded(media):
    segmenter = segmented(packets(media.path("plain"), times=20))
    assert len(segmenter.closed) == 6 + 8  # listed, and those that a playlist of seven had, for its time and their own
    assert all(part.data.obj is segment.data for segment in segmenter.closed for part in segment.parts)
    assert len(segmenter.inits) == 1


# --- the playlist -----------------------------------------------------------------------------------------------------


def test_the_playlist_of_a_running_stream(two_seconds):
    segmenter = segmented(packets(two_seconds, times=5)[: -len(packets(two_seconds)) // 3])
    text = playlist(segmenter)
    lines = text.splitlines()
    assert lines[:7] == [
        "#EXTM3U",
        "#EXT-X-VERSION:9",
        "#EXT-X-TARGETDURATION:2",
        "#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK=0.660",
        "#EXT-X-PART-INF:PART-TARGET=0.220",
        "#EXT-X-MEDIA-SEQUENCE:3",
        "#EXT-X-DISCONTINUITY-SEQUENCE:0",
    ]
    assert lines[7:9] == ['#EXT-X-MAP:URI="init_0.mp4"', "#EXT-X-PROGRAM-DATE-TIME:1970-01-01T00:00:06.000Z"]
    assert uris(text, "seg") == [(n,) for n in range(3, 9)]
    assert durations(text) == [2] * 6
    parts = uris(text, "part")
    assert parts[:30] == [(n, k) for n in (6, 7, 8) for k in range(10)]
    assert parts[-1] == (9, len(segmenter.open.parts))
    assert '#EXT-X-PART:DURATION=0.20000,URI="part_6_0.m4s",INDEPENDENT=YES' in lines
    assert lines[-1].startswith("#EXT-X-PRELOAD-HINT:TYPE=PART,URI=")
    assert "ENDLIST" not in text


def test_each_segment_tells_when_it_came(two_seconds):
    segmenter = Segmenter(zero=1_700_000_000_123_456_789)  # 2023-11-14T22:13:20.123456789Z
    for packet in packets(two_seconds, times=2, arrival=5 * NS):
        segmenter.push(packet)
    assert dates(playlist(segmenter)) == [f"2023-11-14T22:13:{n}.123Z" for n in (25, 27, 29, 31)]
    lines = playlist(segmenter).splitlines()
    begins = [lines[n + 1] for n, line in enumerate(lines) if line.startswith("#EXT-X-PROGRAM-DATE-TIME")]
    assert begins == [f'#EXT-X-PART:DURATION=0.20000,URI="part_{n}_0.m4s",INDEPENDENT=YES' for n in range(4)]


@pytest.mark.parametrize(("back", "date"), [(7, "07"), (4, "04"), (3, "04")], ids=["away", "at once", "too early"])
def test_a_publisher_that_returns_has_the_date_when_it_came_and_none_from_before(two_seconds, back, date):
    segmenter = segmented(packets(two_seconds))
    segmenter.end()
    for packet in packets(two_seconds, arrival=back * NS):
        segmenter.push(packet)
    assert dates(playlist(segmenter))[:3] == [f"1970-01-01T00:00:{n}.000Z" for n in ("00", "02", date)]


def test_the_target_never_shrinks(tmp_path, two_seconds):
    long = encode(tmp_path / "a.mp4", Video(gop=180), Audio(), seconds=6)
    segmenter = segmented(packets(long) + packets(two_seconds, times=5, start=6, arrival=6 * NS))
    assert "#EXT-X-TARGETDURATION:6" in playlist(segmenter)
    assert durations(playlist(segmenter))[-1] == 2


@pytest.fixture(scope="module")
def uneven(tmp_path_factory):
    """Segments of 1 s, and now and then two of 6 s that bring another picture."""
    short, long = (tmp_path_factory.mktemp("hls") / name for name in ("a.mp4", "b.mp4"))
    encode(short, Video(rate=Fraction(10), gop=10, options={"bf": "0"}), None, seconds=2)
    encode(long, Video(size=(128, 72), rate=Fraction(10), gop=60, options={"bf": "0"}), None, seconds=12)
    film, start = [], 0
    for path, times, seconds in ((short, 11, 22), (long, 1, 12), (short, 15, 30), (long, 1, 12), (short, 25, 50)):
        film += packets(path, times=times, start=start, arrival=start * NS)
        start += seconds
    return film


def playlists(film):
    """The segmenter behind each of its playlists as packets come, but for the shorter ones at the beginning."""
    segmenter = Segmenter()
    for packet in film:
        if segmenter.push(packet) and segmenter.closed and segmenter.closed[-1].number > hls.LISTED:
            yield segmenter


def test_a_playlist_is_never_shorter_than_three_target_durations_once_it_was_longer(uneven):
    first, told, left = 0, 0, []
    for segmenter in playlists(uneven):
        text = playlist(segmenter)
        (number,) = uris(text, "seg")[0]
        assert number >= first
        if number > first:
            assert sum(durations(text)) >= 3 * segmenter.target
            left.append(number - first)
        now = segmenter.discontinuities + text.count("#EXT-X-DISCONTINUITY\n")
        first, told = number, max(now, told)
        assert now == told
    assert set(left[1:]) == {1, 6}  # a long segment replaces many
    assert told == segmenter.discontinuities == 4
    assert 18 <= len(segmenter.listed) <= 19


def test_what_left_the_playlist_can_be_had_as_long_as_the_playlist_lasted(uneven):
    seen, longest, left = {}, {}, {}
    for segmenter in playlists(uneven):
        listed = {segment.number: segment.duration for segment in segmenter.listed if segment.data}
        seen |= listed
        now = sum(seen.values())
        for number in listed:
            longest[number] = max(longest.get(number, 0), sum(listed.values()))
        for number in seen.keys() - listed.keys():
            left.setdefault(number, now)
        kept = {segment.number: segment for segment in segmenter.closed}
        for number, since in left.items():
            if now < since + seen[number] + longest[number]:
                assert kept[number].map_number in segmenter.inits
    assert len(kept) < len(seen)


def test_other_tracks_are_a_discontinuity_with_a_map_of_their_own(tmp_path, two_seconds):
    larger = encode(tmp_path / "a.mp4", Video(size=(128, 72)), Audio(), seconds=3)
    segmenter = segmented(packets(two_seconds) + packets(larger, start=4))
    text = playlist(segmenter)
    assert uris(text, "init")[0] == (0,)
    assert text.count("#EXT-X-DISCONTINUITY\n") == text.count("#EXT-X-MAP") - 1 >= 1
    last = uris(text, "init")[-1][0]
    segment = segmenter.closed[-1]
    assert segment.map_number == last
    assert len(pictures(segmenter.inits[last] + segment.data)) == 30


@pytest.mark.parametrize("bframes", [0, 2])
def test_sound_that_changes_with_the_picture_is_there_from_its_first_packet_on(tmp_path, bframes):
    film = interrupted(tmp_path, bframes=bframes)
    segmenter = segmented(film)
    segmenter.end()
    maps = sorted({segment.map_number for segment in segmenter.closed})
    assert len(maps) == 2
    for number, shot in zip(maps, [(0, 1), (1, 2)], strict=True):
        segments = [segment for segment in segmenter.closed if segment.map_number == number]
        data = segmenter.inits[number] + b"".join(segment.data for segment in segments)
        own = [each for each in film if not each.is_video and shot[0] <= fmp4.seconds(each) < shot[1]]
        assert len(pictures(data)) == 30
        assert len(sounds(data)) == len(own)


def test_a_keyframe_that_waits_for_its_sound_is_in_the_last_segment(tmp_path):
    segmenter = segmented(until_the_second_keyframe(tmp_path))
    segmenter.end()
    last = segmenter.closed[-1]
    assert len(pictures(segmenter.inits[last.map_number] + last.data)) == 1


def test_discontinuities_that_are_gone_are_counted(two_seconds):
    segmenter = Segmenter()
    for n in range(9):
        for packet in packets(two_seconds, start=4 * n)[:150]:
            segmenter.push(packet)
        segmenter.end()
        listed = segmenter.listed
        assert segmenter.discontinuities + sum(each.discontinuous for each in listed) == n
    assert len(segmenter.inits) <= hls.KEPT
    assert f"#EXT-X-DISCONTINUITY-SEQUENCE:{segmenter.discontinuities}" in playlist(segmenter)


def test_a_picture_that_stood_still_is_a_discontinuity_and_no_long_part(media):
    film = packets(media.path("video_only"), times=2)
    later = packets(media.path("video_only"), times=2, start=8, arrival=0)
    segmenter = segmented([*film, *later])
    assert playlist(segmenter).count("#EXT-X-DISCONTINUITY\n") == 1
    assert segmenter.target == 2


@pytest.mark.parametrize("audio", [Audio(), None], ids=["sound", "picture alone"])
def test_a_picture_that_stood_still_within_its_group_goes_on_in_the_same_map(tmp_path, audio):
    """Without a keyframe nobody can begin anew: browsers would drop all pictures up to the next one."""
    times = [*range(0, 2000, 40), *range(5000, 7000, 40), *range(10_000, 12_000, 40)]
    film = encode(tmp_path / "a.mp4", Video(gop=100, pts_ms=tuple(times), options={"bf": "0"}), audio, seconds=12)
    segmenter = segmented(packets(film))
    segmenter.end()
    first = segmenter.inits[0] + b"".join(each.data for each in segmenter.closed if each.map_number == 0)
    shown = pictures(first)
    assert [number for _, number in shown] == list(range(len(shown)))
    assert [round(1000 * at) for at, _ in shown] == times[: len(shown)]
    assert len(shown) == 100


@pytest.mark.parametrize("still", [3, 8, 30])
def test_time_is_counted_once_where_a_picture_stood_still_while_its_sound_went_on(tmp_path, still):
    times = [*range(0, 2000, 40), *range(2000 + 1000 * still, 4000 + 1000 * still, 40)]
    film = encode(tmp_path / "a.mp4", Video(gop=100, pts_ms=tuple(times), options={"bf": "0"}), seconds=4 + still)
    segmenter = segmented(packets(film))
    segmenter.end()
    assert float(sum(each.duration for each in segmenter.closed)) == pytest.approx(4 + still, abs=0.1)
    assert sum(each.map_number == 0 for each in segmenter.closed) == len(segmenter.closed)


@pytest.mark.parametrize("stop", [1.5, 2, 3.9])
def test_sound_goes_on_while_the_picture_has_stopped(two_seconds, stop):
    film = packets(two_seconds, times=15)
    segmenter = segmented([each for each in film if not each.is_video or each.arrival < stop * NS])
    assert segmenter.closed[-1].number > 10
    assert sum(segment.duration for segment in segmenter.closed) > 15
    assert segmenter.target <= 2 + hls.GAP


@pytest.mark.parametrize("config", [None, "1194"], ids=["silence", "gap"])
def test_sound_that_pauses_changes_no_length(two_seconds, config):
    film = packets(two_seconds, times=3)
    pause = [each for each in film if each.is_video or not 3 * NS <= each.arrival < 5.6 * NS]
    if config:
        track = Track(kind="audio", codec="aac", extradata=bytes.fromhex(config), time_base=Fraction(1, 48_000))
        pause = [each if each.is_video else copied(each, track) for each in pause]
    segmenter = segmented(pause)
    assert [segment.duration for segment in segmenter.closed] == [2] * 5
    assert "PART-TARGET=0.220" in playlist(segmenter)
    assert "DISCONTINUITY\n" not in playlist(segmenter)


def test_a_burst_with_sound_long_before_its_picture_changes_no_length(two_seconds):
    """As who joins late gets it: what has not come yet is no picture that stands still."""
    film = sorted(packets(two_seconds, times=3), key=lambda each: (each.arrival // (3 * NS), each.is_video))
    segmenter = segmented([copied(each, each.track, keyframe=each.keyframe, arrival=0) for each in film])
    assert "DISCONTINUITY\n" not in playlist(segmenter)
    assert [float(segment.duration) for segment in segmenter.closed] == pytest.approx([2] * 5, abs=0.01)


def copied(packet, track, *, keyframe=True, arrival=None):
    """A packet of another track, or another arrival."""
    arrival = packet.arrival if arrival is None else arrival
    return Packet(track, packet.data, pts=packet.pts, dts=packet.dts, arrival=arrival, keyframe=keyframe)


def test_while_the_picture_stands_still_the_playlist_is_as_long_as_the_sound(two_seconds):
    back = 6
    segmenter = segmented(unseen(packets(two_seconds, times=3), 3, back))
    segmenter.end()
    assert playlist(segmenter, ended=True).count("#EXT-X-DISCONTINUITY\n") == 1
    before = [segment for segment in segmenter.closed if segment.map_number == 0]
    assert abs(float(sum(segment.duration for segment in before)) - back) < 0.1
    data = segmenter.inits[0] + b"".join(segment.data for segment in before)
    assert sounds(data)[-1][0] > back - 0.1
    assert pictures(data)[-1][0] < 3


@pytest.mark.parametrize("back", [8, 12, 14, 18])
def test_a_picture_that_has_stopped_is_in_every_part_until_it_returns_in_the_same_map(two_seconds, back):
    segmenter = segmented(unseen(packets(two_seconds, times=5), 3, back))
    segmenter.end()
    assert "#EXT-X-DISCONTINUITY\n" not in playlist(segmenter, ended=True)
    assert all(segment.parts[0].independent for segment in segmenter.closed)
    assert float(sum(segment.duration for segment in segmenter.closed)) == pytest.approx(20, abs=0.1)
    parts = [part for segment in segmenter.closed for part in segment.parts]
    assert all(len(inside(bytes(part.data), "moof", "traf")) == 2 for part in parts)
    shown = pictures(segmenter.inits[0] + b"".join(segment.data for segment in segmenter.closed))
    held = [at for at, _ in shown if 2.9 < at < back - 0.01]
    assert all(later - at < 2.6 for at, later in pairwise([*held, back]))
    returned = [(float(at), number) for at, number in shown if at > back - 0.01]
    assert returned == [(pytest.approx(back + n / 30), (n + 30 * back) % 120) for n in range(30 * (20 - back))]


def test_a_hinted_part_comes_whenever_the_picture_returns(two_seconds):
    film = packets(two_seconds, times=3)
    stalled = [each for each in film if each.arrival < 8 * NS and not (each.is_video and each.arrival > 3 * NS)]
    back = [each for each in film if each.arrival >= 8 * NS]
    for count in range(len(stalled) - 50, len(stalled)):
        segmenter, hinted, index = Segmenter(), None, 0
        for packet in stalled[:count] + back:
            segmenter.push(packet)
            assert hinted is None or hinted is segmenter.open or len(hinted.parts) > index
            hinted, index = segmenter.open, len(segmenter.open.parts) if segmenter.open else 0


def test_the_last_part_of_a_publisher_is_no_longer_than_the_others(media):
    for count in range(100, 120):
        segmenter = segmented(packets(media.path("plain"), durations=False, units=MS)[:count])
        segmenter.end()
        assert "PART-TARGET=0.220" in playlist(segmenter)


@pytest.mark.parametrize("returns", [False, True])
def test_what_comes_next_is_told_to_be_discontinuous_before_it_comes(two_seconds, returns):
    segmenter = segmented(packets(two_seconds)[:150])
    segmenter.end()
    if returns:
        for packet in packets(two_seconds)[:4]:
            segmenter.push(packet)
        assert not segmenter.open.parts
    lines = playlist(segmenter).splitlines()
    assert lines.count("#EXT-X-DISCONTINUITY") == 1
    assert lines[-1] == "#EXT-X-DISCONTINUITY"
    assert "#EXT-X-DISCONTINUITY\n" not in playlist(segmenter, ended=True)


PICTURE = Track(
    kind="video", codec="h264", extradata=bytes.fromhex("0142000affe100046742000a01000468ce3c80"), time_base=MS
)
SOUND = Track(kind="audio", codec="aac", extradata=bytes.fromhex("1190"), time_base=Fraction(1, 48_000))
STEPS = st.tuples(
    st.sampled_from(["key", "picture", "sound", "end"]),
    st.integers(0, 400) | st.integers(0, 20_000) | st.integers(-(2**40), 2**40),  # ms since the last
    st.integers(0, 400) | st.integers(0, 2**40),  # ms since the last arrival
)


@given(st.lists(STEPS, max_size=60))
def test_whatever_comes_the_playlist_is_in_order(steps):
    segmenter, t, arrival = Segmenter(), 0, 0
    for kind, step, later in steps:
        t, arrival = t + step, arrival + later
        if kind == "end":
            segmenter.end()
            continue
        track, units = (SOUND, 48) if kind == "sound" else (PICTURE, 1)
        keyframe = kind != "picture"
        segmenter.push(
            Packet(track, b"x", pts=t * units, dts=t * units, arrival=arrival * 1_000_000, keyframe=keyframe)
        )
        if segmenter.listed:
            text = playlist(segmenter)
            numbers = [number for (number,) in uris(text, "seg")]
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers))) if numbers else True
            assert all(segment.data for segment in segmenter.closed)
            assert all(segment.map_number in segmenter.inits for segment in segmenter.listed)
            assert all(int(each + Fraction(1, 2)) <= segmenter.target for each in durations(text))
            assert len(segmenter.segments) <= hls.KEPT
            assert sorted(dates(text)) == dates(text)
            for one, next_ in pairwise(segmenter.listed):
                assert next_.date - one.date == one.duration or next_.discontinuous


# --- clients ----------------------------------------------------------------------------------------------------------


async def test_a_client_follows(hub, two_seconds, nursery, autojump_clock):
    server, publication = Hls(hub, "live/cam"), publish(hub)
    nursery.start_soon(server.run)
    await settle()
    nursery.start_soon(partial(play, publication, packets(two_seconds, times=2)))
    hints = []
    with trio.fail_after(20):
        text = await server.playlist()
        assert uris(text, "seg") == [(0,)]
        while len(hints) < 15:
            hint = uris(text, "part")[-1]
            hints.append(hint)
            assert (await server.part(*hint))[4:8] == b"moof"  # the hinted part always comes
            text = await server.playlist(msn=hint[0], part=hint[1])
            assert hint in uris(text, "part")[:-1]
    assert hints == [(1, k) for k in range(10)] + [(2, k) for k in range(5)]
    assert [number for _, number in pictures(server.init(0) + server.segment(0))] == list(range(60))
    assert server.last_used == 7


async def play(publication, film):
    """Sends packets when they arrive."""
    start = trio.current_time()
    for packet in film:
        await trio.sleep_until(start + packet.arrival / NS)
        publication.send(packet)


async def test_a_part_can_be_had_for_three_target_durations_after_it_left_the_playlist(hub, two_seconds, nursery):
    server, publication = Hls(hub, "live/cam"), publish(hub)
    nursery.start_soon(server.run)
    await settle()
    film = packets(two_seconds, times=10)
    left, listed = {}, {}
    with trio.fail_after(30):
        for packet in film:
            publication.send(packet)
            if not (packet.is_video and packet.keyframe):
                continue
            await settle()
            now = packet.arrival / NS
            had = set(uris(await server.playlist(), "part")[:-1]) if server.is_ready() else set()
            listed |= {each: await server.part(*each) for each in had - listed.keys()}
            left |= dict.fromkeys(listed.keys() - had - left.keys(), now)
            for each, data in listed.items():
                if now <= left.get(each, now) + 3 * 2:
                    assert await server.part(*each) == data
    assert len(left) > 100
    nursery.cancel_scope.cancel()


async def test_a_playlist_waits_for_a_segment_but_not_for_ever(hub, two_seconds, nursery, autojump_clock):
    server, publication = Hls(hub, "live/cam"), publish(hub)
    nursery.start_soon(server.run)
    await settle()
    for packet in packets(two_seconds)[:60]:
        publication.send(packet)
    with trio.fail_after(hls.FIRST_SEGMENT + 1):
        text = await server.playlist()  # no segment will come
    assert uris(text, "seg") == []
    assert uris(text, "part")[0] == (0, 0)


async def test_the_first_playlist_has_a_whole_segment_and_tells_how_long_they_are(
    hub, tmp_path, nursery, autojump_clock
):
    film = encode(tmp_path / "a.mp4", Video(rate=Fraction(12), gop=125), None, seconds=33)
    server, publication = Hls(hub, "live/cam"), publish(hub)
    nursery.start_soon(server.run)
    await settle()
    nursery.start_soon(partial(play, publication, packets(film)))
    with trio.fail_after(40):
        first = await server.playlist()
        assert uris(first, "seg") == [(0,)]
        later = await server.playlist(msn=2)
    assert uris(later, "seg") == [(0,), (1,), (2,)]
    assert [re.findall(r"TARGETDURATION:(\d+)", each) for each in (first, later)] == [["10"], ["10"]]


async def test_a_stream_that_shows_nothing_is_given_up(hub, nursery, autojump_clock):
    server = Hls(hub, "live/cam")
    publish(hub)
    nursery.start_soon(server.run)
    with trio.fail_after(15), pytest.raises(SourceUnavailable, match='"live/cam": nothing to play for 10 s'):
        await server.playlist()


async def test_a_reload_wakes_up_with_its_part_and_waits_within_bounds(hub, two_seconds, nursery, autojump_clock):
    server, publication = Hls(hub, "live/cam"), publish(hub)
    nursery.start_soon(server.run)
    await settle()
    film = packets(two_seconds)
    send = [publication.send(packet) for packet in film if packet.arrival < 2.5 * NS]
    assert send
    text = await server.playlist()
    hint = uris(text, "part")[-1]
    answers = []

    async def ask(**wanted):
        answers.append((wanted, await server.playlist(**wanted)))

    async with trio.open_nursery() as asking:
        asking.start_soon(partial(ask, msn=hint[0], part=hint[1]))
        asking.start_soon(partial(ask, msn=hint[0]))
        await settle()
        assert answers == []
        for packet in film:
            if 2.5 * NS <= packet.arrival < 2.8 * NS:
                publication.send(packet)
        await settle()
        assert [wanted for wanted, _ in answers] == [{"msn": 1, "part": hint[1]}]
        for packet in packets(two_seconds, start=4):
            publication.send(packet)
        await settle()
        assert uris(answers[1][1], "seg")[-1] >= (1,)
    with trio.fail_after(7), pytest.raises(SourceUnavailable, match="nothing new for 6 s"):
        await server.playlist(msn=server._segmenter.open.number + 1)


async def test_a_reload_at_a_discontinuity_has_what_it_asked_for(hub, tmp_path, two_seconds, nursery):
    server, publication = Hls(hub, "live/cam"), publish(hub)
    nursery.start_soon(server.run)
    await settle()
    larger = encode(tmp_path / "a.mp4", Video(size=(128, 72)), Audio(), seconds=1)
    for packet in packets(two_seconds):
        publication.send(packet)
    await settle()
    hint = uris(await server.playlist(), "part")[-1]
    for packet in packets(larger, start=4)[:3]:  # what was growing is whole, and nothing of the next one is there
        publication.send(packet)
    await settle()
    with trio.fail_after(30):
        text = await server.playlist(msn=hint[0], part=hint[1])
    assert hint in uris(text, "part")
    assert uris(text, "seg")[-1] == hint[:1]
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("wanted", [{"part": 1}, {"msn": -1}, {"msn": 10}, {"msn": 0, "part": -1}])
async def test_silly_reloads_are_refused(hub, two_seconds, nursery, wanted):
    server, publication = Hls(hub, "live/cam"), publish(hub)
    nursery.start_soon(server.run)
    await settle()
    for packet in packets(two_seconds):
        publication.send(packet)
    with trio.fail_after(30), pytest.raises(InvalidSpec):
        await server.playlist(**wanted)
    publication.close()
    nursery.cancel_scope.cancel()


async def test_what_is_not_there_is_not_found(hub, two_seconds, nursery):
    server, publication = Hls(hub, "live/cam"), publish(hub)
    nursery.start_soon(server.run)
    await settle()
    for packet in packets(two_seconds):
        publication.send(packet)
    with trio.fail_after(30):
        await server.playlist()
        for number, index in ((0, 10), (0, -1), (7, 0), (1, 30)):
            with pytest.raises(NotFound):
                await server.part(number, index)
    for call in (server.init, server.segment):
        with pytest.raises(NotFound):
            call(5)
    with pytest.raises(NotFound):
        server.segment(1)  # it grows still
    nursery.cancel_scope.cancel()


async def test_a_publisher_that_returns_is_a_discontinuity_and_one_that_does_not_the_end(
    hub, two_seconds, nursery, autojump_clock
):
    server, publication = Hls(hub, "live/cam"), publish(hub)
    nursery.start_soon(server.run)
    await settle()
    film = packets(two_seconds)
    for packet in film:
        publication.send(packet)
    await settle()
    publication.close()
    await settle()
    away = await server.playlist()
    assert "ENDLIST" not in away
    assert "PRELOAD" not in away
    await trio.sleep(hls.PATIENCE - 1)
    publication = publish(hub)
    for packet in film:
        publication.send(packet)
    await settle()
    back = await server.playlist()
    assert back.count("#EXT-X-DISCONTINUITY\n") == 1
    assert '#EXT-X-DISCONTINUITY\n#EXT-X-MAP:URI="init_1.mp4"\n' in back
    publication.close()
    await trio.sleep(hls.PATIENCE - 1)
    with trio.fail_after(2):
        over = await server.playlist(msn=uris(back, "seg")[-1][0] + 2)
    assert over.endswith("#EXT-X-ENDLIST\n")
    assert server.ended


async def test_a_stream_that_ended_before_anything_came_is_gone(hub, nursery, autojump_clock):
    server, publication = Hls(hub, "live/cam"), publish(hub)
    nursery.start_soon(server.run)
    await settle()
    publication.close()
    with trio.fail_after(hls.PATIENCE + 1), pytest.raises((NotFound, SourceUnavailable)):
        await server.playlist()
    await trio.sleep(hls.PATIENCE)
    with pytest.raises(NotFound):
        await server.playlist()


async def test_waiting_requests_are_answered_when_it_is_stopped(hub, two_seconds, nursery):
    server, publication = Hls(hub, "live/cam"), publish(hub)
    texts = []

    async def ask():
        texts.append(await server.playlist(msn=2))

    async with trio.open_nursery() as running:
        running.start_soon(server.run)
        await settle()
        for packet in packets(two_seconds):
            publication.send(packet)
        nursery.start_soon(ask)
        await settle()
        running.cancel_scope.cancel()
    await settle()
    assert texts[0].endswith("#EXT-X-ENDLIST\n")
    assert hub.published("live/cam").status().readers == 0


async def test_sound_that_mp4_cannot_hold_is_left_out_and_that_is_said_once(hub, two_seconds, nursery, caplog):
    server, publication = Hls(hub, "live/cam"), publish(hub)
    nursery.start_soon(server.run)
    await settle()
    track = Track(kind="audio", codec="pcm_mulaw", rate=8000, channels=1)
    for packet in packets(two_seconds):
        publication.send(packet)
        publication.send(Packet(track, bytes(160), pts=0, dts=0, arrival=packet.arrival))
        await settle()
    assert caplog.messages == ["live/cam: audio in pcm_mulaw is left out of its HLS"]


async def test_a_stream_that_mp4_cannot_hold_says_so(hub, nursery):
    server, publication = Hls(hub, "live/cam"), publish(hub)
    nursery.start_soon(server.run)
    await settle()
    track = Track(kind="audio", codec="speex")
    for n in range(60):
        publication.send(Packet(track, b"x", pts=n, dts=n, arrival=n * NS // 50))
    with trio.fail_after(30), pytest.raises(SinkRejected, match="speex"):
        await server.playlist()


async def test_a_keyframe_is_asked_for_when_there_is_none(hub, nursery):
    asked = []
    hub.publish("live/cam", Publisher(kind="mix", request_keyframe=lambda: asked.append(1)))
    nursery.start_soon(Hls(hub, "live/cam").run)
    await settle()
    assert asked == [1]
    nursery.cancel_scope.cancel()
