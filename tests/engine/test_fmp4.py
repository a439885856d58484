"""What PyAV reads from our fragments is what went in: every picture at its time, sound beside it, however it is cut."""

import io
from fractions import Fraction
from itertools import pairwise

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import bitstream, boxes, fmp4
from engine.errors import SinkRejected
from engine.packet import Packet, Track
from tests.engine.clips import NS, decode_times, inside, packets, pictures, sounds, unseen
from tests.media import Audio, Video, encode

MS = Fraction(1, 1000)
SOUND = Track(kind="audio", codec="aac", extradata=bytes.fromhex("1190"), time_base=Fraction(1, 48000))
AVCC = bytes.fromhex("0142000affe1000867 42000af80f1190 0a01000468ce3c80".replace(" ", ""))
PICTURE = Track(kind="video", codec="h264", extradata=AVCC, time_base=Fraction(1, 30))


def tracks_of(film):
    return sorted({each.track.kind: each.track for each in film}.values(), key=lambda track: track.kind, reverse=True)


def muxed(film, *, every=1, hold=True):
    """Init segment and fragments, cut behind every so many packets."""
    tracks = tracks_of(film)
    fragmenter, fragments = fmp4.Fragmenter(tracks), []
    for n, packet in enumerate(film):
        fragmenter.push(packet)
        if n % every == every - 1:
            fragments.append(fragmenter.cut(hold=hold))
    fragments.append(fragmenter.cut(hold=False))
    return boxes.init_segment(tracks), [each for each in fragments if each]


def whole(init, fragments):
    return init + b"".join(each.data for each in fragments)


@pytest.fixture
def reordered(tmp_path):
    """A film with B-frames."""
    return encode(tmp_path / "b.mp4", Video(bframes=2), Audio(), seconds=1)


@pytest.fixture
def reordered_long(tmp_path):
    """A longer one, with a keyframe a second."""
    return encode(tmp_path / "l.mp4", Video(gop=30, bframes=2), Audio(), seconds=12)


# --- what is played ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("every", [1, 7, 1000])
@pytest.mark.parametrize("hold", [True, False], ids=["exact", "at once"])
@pytest.mark.parametrize("name", ["plain", "fps2997", "fps25", "video_only"])
def test_every_picture_is_there_at_its_time(media, name, every, hold):
    film = packets(media.path(name))
    expected = pictures(media.path(name).read_bytes())
    found = pictures(whole(*muxed(film, every=every, hold=hold)))
    start = min(map(fmp4.seconds, film))
    assert found == [(t - start, number) for t, number in expected]


def test_pictures_in_another_order_than_decoded(media, reordered):
    film = packets(reordered)
    assert any(each.pts != each.dts for each in film)
    found = pictures(whole(*muxed(film)))
    start = min(map(fmp4.seconds, film))
    assert [number for _, number in found] == list(range(30))
    assert [t for t, _ in found] == [n / Fraction(30) - start for n in range(30)]


@pytest.mark.parametrize("durations", [True, False])
def test_sound_keeps_its_distance_from_the_picture(media, durations):
    film = packets(media.path("plain"), durations=durations)
    data = whole(*muxed(film, every=5))
    theirs = media.path("plain").read_bytes()
    (picture, _), sound = pictures(data)[0], sounds(data)
    assert sound[-1][0] - picture == sounds(theirs)[-1][0] - pictures(theirs)[0][0]
    assert len(sound) == sum(not each.is_video for each in film)


def test_sound_alone(media):
    film = packets(media.path("audio_only"))
    init, fragments = muxed(film, every=10)
    assert len(sounds(whole(init, fragments))) == len(film)
    assert all(each.keyframe for each in fragments)
    assert fragments[0].start == 0
    assert fmp4.mime(tracks_of(film)) == 'audio/mp4; codecs="mp4a.40.2"'


def test_opus_and_hevc(tmp_path):
    path = encode(tmp_path / "a.mkv", Video("libx265"), Audio("libopus"), seconds=1)
    film = packets(path)
    data = whole(*muxed(film, every=4))
    assert [number for _, number in pictures(data)] == list(range(30))
    assert len(sounds(data)) == sum(not each.is_video for each in film)


def test_milliseconds_and_no_durations_as_rtmp_has_them(media):
    film = packets(media.path("plain"), units=MS, durations=False, start=3600)
    init, fragments = muxed(film, every=3)
    found = pictures(whole(init, fragments))
    assert [number for _, number in found] == list(range(60))
    assert all(abs(t - found[0][0] - n / Fraction(30)) <= MS for n, (t, _) in enumerate(found))
    assert fragments[0].start == 0


# --- time -------------------------------------------------------------------------------------------------------------


def test_fragments_join_without_gaps(media):
    film = [each for each in packets(media.path("fps2997"), durations=False) if each.is_video]
    _, fragments = muxed(film, every=7)
    for one, other in pairwise(fragments):
        assert one.stop == other.start
    assert fragments[-1].stop == 31 * Fraction(1001, 30_000)  # the last one is guessed to be twice as long as it is


def test_a_known_length_is_not_guessed(media):
    _, fragments = muxed(packets(media.path("fps2997")), every=1, hold=False)
    assert all(each.stop - each.start in (Fraction(1001, 30_000), Fraction(1024, 48_000)) for each in fragments[:-2])


def picture(n, *, keyframe=False, duration=0, dts=None, track=PICTURE, arrival=None):
    dts, arrival = n if dts is None else dts, n / 30 if arrival is None else arrival
    came = round(arrival * NS)
    return Packet(track, b"picture%d" % n, pts=dts, dts=dts, arrival=came, keyframe=keyframe, duration=duration)


def sound(n, *, dts=None, arrival=None):
    came = round((n * 1024 / 48_000 if arrival is None else arrival) * NS)
    return Packet(SOUND, b"sound%d" % n, pts=n, dts=1024 * n if dts is None else dts, arrival=came)


def test_the_first_fragment_starts_at_zero_for_both_tracks_together():
    fragmenter = fmp4.Fragmenter([PICTURE, SOUND])
    fragmenter.push(picture(0, dts=-3))
    fragmenter.push(sound(0, dts=0))
    fragment = fragmenter.cut(hold=False)
    assert decode_times(fragment.data) == [0, 4800]
    fragmenter.push(picture(1, dts=-2))
    assert decode_times(fragmenter.cut(hold=False).data) == [34]


def test_a_picture_that_comes_later_than_it_seemed_is_decoded_at_once_and_shown_in_time():
    fragmenter = fmp4.Fragmenter([PICTURE])
    fragmenter.push(picture(0))
    first = fragmenter.cut(hold=False)
    fragmenter.push(picture(1, dts=30))
    second = fragmenter.cut(hold=False)
    assert second.start == first.stop < Fraction(30, 30)  # browsers drop pictures after a hole in decode times
    with av.open(io.BytesIO(boxes.init_segment([PICTURE]) + first.data + second.data)) as container:
        shown = [packet.pts * packet.time_base for packet in container.demux() if packet.pts is not None]
    assert [t - shown[0] for t in shown] == [0, 1]


def test_sound_from_before_zero_is_left_out():
    fragmenter = fmp4.Fragmenter([PICTURE, SOUND])
    fragmenter.push(picture(0))
    fragmenter.cut(hold=False)
    fragmenter.push(sound(0, dts=-2000))
    assert fragmenter.cut(hold=False) is None
    fragmenter.push(sound(1, dts=-976))
    fragmenter.push(sound(2, dts=48))
    assert decode_times(fragmenter.cut(hold=False).data) == [48]


def test_a_gap_stays_a_gap():
    fragmenter = fmp4.Fragmenter([PICTURE])
    for n, dts in enumerate((0, 1, 91, 92)):
        fragmenter.push(picture(n, dts=dts))
    assert fragmenter.cut(hold=False).stop == Fraction(94, 30)


@pytest.mark.parametrize("away", [-3600, 86_400, -5, 11])
def test_a_jump_is_taken_out_and_sound_follows(away):
    fragmenter = fmp4.Fragmenter([PICTURE, SOUND])
    jump_picture, jump_sound = 30 * away, 48_000 * away
    starts = []
    for n in range(30):
        fragmenter.push(picture(n, dts=n + (jump_picture if n >= 10 else 0)))
        fragmenter.push(sound(n, dts=1600 * n + (jump_sound if n >= 14 else 0)))  # sound jumps later
        starts.append(decode_times(fragmenter.cut(hold=False).data))
    assert starts == [[34 * n, 1600 * n] for n in range(30)]


def stamped(clock, *, seconds, ahead=None):
    """A film whose packets have the time that a clock says when they come, in s; one kind is half a second ahead."""
    film = [(each, 30) for each in map(picture, range(30 * seconds))]
    film += [(each, 48_000) for each in map(sound, range(48_000 * seconds // 1024))]
    for each, rate in film:
        each.dts = each.pts = round((clock(each.arrival / NS) + (each.track.kind == ahead) / 2) * rate)
    return sorted((each for each, _ in film), key=lambda each: each.arrival)


def played(film):
    """When the packets that are in it are decoded, in s, by kind."""
    fragmenter, times = fmp4.Fragmenter([PICTURE, SOUND]), {"video": [], "audio": []}
    for each in film:
        fragmenter.push(each)
        if (fragment := fragmenter.cut(hold=False)) is None:
            continue  # from before the first picture
        starts = decode_times(fragment.data)
        times[each.track.kind].append(starts[0] / 1020 if each.is_video else starts[-1] / 48_000)
    return times


@pytest.mark.parametrize(
    ("first", "seconds", "back"),
    [(kind, *each) for kind in ("video", "audio") for each in ((1, 3600), (5, 3600), (5, 6))] + [("audio", 5, 5.2)],
)
@pytest.mark.parametrize("away", ["video", "audio"])
def test_sound_and_picture_stay_together_where_one_was_away_until_both_jump(away, first, seconds, back):
    at = (1 + seconds) * NS
    film = stamped(lambda t: t if t < 1 + seconds else t - back, seconds=8)
    film = [each for each in film if each.track.kind != away or not NS <= each.arrival < at]
    after = next(each for each in film if each.arrival >= at and each.track.kind == first)
    times = played(sorted(film, key=lambda each: at - 1 if each is after else each.arrival))
    picture_off, sound_off = times["video"][-1] - 239 / 30, times["audio"][-1] - 374 * 1024 / 48_000
    assert abs(picture_off - sound_off) < 0.001
    assert abs(picture_off) < 0.06


@pytest.mark.parametrize("ahead", ["video", "audio"])
def test_jumps_make_no_hole_where_sound_or_picture_is_ahead_by_its_stamps(ahead):
    film = stamped(lambda t: t - 4 * int(t / 5.01), seconds=26, ahead=ahead)  # five of them
    times = played(film)
    for kind, stop in (("video", 26), ("audio", 26.5 if ahead == "audio" else 25.5)):
        assert max(later - one for one, later in pairwise(times[kind])) < 0.05
        assert abs(times[kind][-1] - stop) < 0.05


def test_a_gap_stays_a_gap_behind_a_jump():
    times = played(stamped(lambda t: t if t < 3 else t - 5 if t < 5 else t - 1, seconds=7))
    assert times["video"][-1] == pytest.approx(4 + 209 / 30, abs=0.06)
    assert times["audio"][-1] == pytest.approx(4 + 327 * 1024 / 48_000, abs=0.06)


def test_a_jump_behind_a_pause_makes_no_hole_where_silence_was_given_and_the_picture_is_ahead():
    film = stamped(lambda t: t if t < 5 else t - 3600, seconds=7, ahead="video")
    film = [each for each in film if each.is_video or not NS <= each.arrival < 5 * NS]
    after = next(each for each in film if each.arrival >= 5 * NS and not each.is_video)
    times = played(sorted(film, key=lambda each: 5 * NS - 1 if each is after else each.arrival))
    assert max(later - one for one, later in pairwise(times["video"])) < 0.05


def test_sound_that_begins_behind_a_jump_is_with_the_picture():
    film = stamped(lambda t: t + (9000 if t < 4 else 8980), seconds=6)
    film = [each for each in film if each.is_video or each.arrival >= 4 * NS]
    first = next(each for each in film if not each.is_video)
    fragmenter = fmp4.Fragmenter([PICTURE, SOUND])
    for each in sorted(film, key=lambda each: 4 * NS - 1 if each is first else each.arrival):
        fragmenter.push(each)
        fragmenter.cut()
    fragmenter.push(picture(180, dts=30 * 8986))
    fragmenter.push(sound(281, dts=48_000 * 8986))
    picture_at, sound_at = decode_times(fragmenter.cut(hold=False).data)
    assert abs(picture_at / 1020 - sound_at / 48_000) < 0.05


def test_decode_times_that_stand_still_or_step_back_grow_nevertheless():
    fragmenter = fmp4.Fragmenter([PICTURE])
    starts = []
    for n, dts in enumerate((5, 6, 6, 4, 7, 8)):
        fragmenter.push(picture(n, dts=dts))
        starts += decode_times(fragmenter.cut(hold=False).data)
    assert starts == sorted(set(starts))
    assert starts[-1] == 3 * 34


@given(
    st.lists(st.tuples(st.booleans(), st.integers(-(2**40), 2**40), st.integers(-(2**40), 2**40)), max_size=30),
    st.booleans(),
)
def test_any_times_give_decode_times_that_grow(times, hold):
    fragmenter = fmp4.Fragmenter([PICTURE, SOUND])
    last = {}
    for is_video, dts, pts in times:
        track = PICTURE if is_video else SOUND
        fragmenter.push(Packet(track, b"", pts=pts, dts=dts, arrival=0))
        fragment = fragmenter.cut(hold=hold)
        for traf in inside(fragment.data, "moof", "traf") if fragment else ():
            (head,), (start,) = inside(traf, "tfhd"), inside(traf, "tfdt")
            when = int.from_bytes(start[4:], "big")
            assert when > last.get(head, -1)
            last[head] = when


def sound_times(fragment):
    """(start, stop) of the second track's samples in a fragment, in its units; None where it has none."""
    for traf in inside(fragment.data, "moof", "traf"):
        (head,), (start,), (trun,) = inside(traf, "tfhd"), inside(traf, "tfdt"), inside(traf, "trun")
        if head[-1] == 2:
            first = int.from_bytes(start[4:], "big")
            return first, first + sum(int.from_bytes(trun[at : at + 4], "big") for at in range(12, len(trun), 8))
    return None


@pytest.mark.parametrize("hold", [True, False], ids=["exact", "at once"])
def test_sound_that_stops_is_silent_half_a_second_behind_the_picture_until_it_returns(hold):
    fragmenter, end, stop = fmp4.Fragmenter([PICTURE, SOUND]), 0, Fraction(0)
    film = sorted([picture(n) for n in range(120)] + [sound(n) for n in range(188)], key=lambda each: each.arrival)
    for each in film:
        if not each.is_video and NS <= each.arrival < 3 * NS:
            continue
        fragmenter.push(each)
        fragment = fragmenter.cut(hold=hold)
        if fragment is None:
            continue
        if (times := sound_times(fragment)) is not None:
            assert times[0] < end + 1024  # no player meets a hole
            end = times[1]
        stop = max(stop, fragment.stop if inside(fragment.data, "moof", "traf", "trun") else 0)
        assert stop - Fraction(end, 48_000) < Fraction(2, 3)
    assert end >= 187 * 1024


def test_silence_is_what_is_heard_while_sound_is_away():
    fragmenter = fmp4.Fragmenter([PICTURE, SOUND])
    fragmenter.push(sound(0))
    for n in range(31):
        fragmenter.push(picture(n))
    silence, length = bitstream.silence(SOUND.codec, SOUND.extradata)
    (body,) = inside(fragmenter.cut().data, "mdat")
    assert body.endswith(b"sound0" + silence * (int(Fraction(15, 30) / length) - 2))


@pytest.mark.parametrize("hold", [True, False], ids=["exact", "at once"])
def test_silence_begins_where_a_packet_ends_that_is_longer_than_one_of_silence(hold):
    head = b"OpusHead\1\2" + bytes(9)
    opus = Track(kind="audio", codec="opus", extradata=head, time_base=Fraction(1, 48_000))
    fragmenter = fmp4.Fragmenter([PICTURE, opus])
    film = [Packet(opus, b"long", pts=0, dts=0, duration=5760, arrival=0), *(picture(n) for n in range(31))]  # 120 ms
    times = []
    for each in film:
        fragmenter.push(each)
        fragment = fragmenter.cut(hold=hold)
        times += [found] if fragment is not None and (found := sound_times(fragment)) is not None else []
    assert times[0][0] == 0
    assert all(one[1] == other[0] for one, other in pairwise(times))
    assert (times[-1][1] - 5760) % 960 == 0


def test_there_is_silence_beside_pictures_from_before_zero():
    fragmenter = fmp4.Fragmenter([PICTURE, SOUND])
    for n in range(31):
        fragmenter.push(picture(n, dts=n - 300))
    start, stop = sound_times(fragmenter.cut())
    assert stop - start >= 48_000 // 3


def test_sound_and_picture_that_stall_together_are_not_silent():
    fragmenter = fmp4.Fragmenter([PICTURE, SOUND])
    fragmenter.push(picture(0))
    fragmenter.push(sound(0))
    late = 3 * NS
    for n in range(1, 90):  # all that was under way comes at once, the picture first
        fragmenter.push(Packet(PICTURE, b"", pts=n, dts=n, arrival=late))
    for n in range(1, 140):
        fragmenter.push(Packet(SOUND, b"heard", pts=1024 * n, dts=1024 * n, arrival=late))
    assert inside(fragmenter.cut().data, "mdat")[0].endswith(b"sound0" + 138 * b"heard")


def arriving(packet, at):
    """The same packet, later."""
    return Packet(packet.track, packet.data, pts=packet.pts, dts=packet.dts, arrival=at, keyframe=packet.keyframe)


@pytest.mark.parametrize(
    "arrival",
    [
        lambda at: max(at, 3 * NS) if at >= NS else at,  # it stalls, and comes with the times that it should have had
        lambda at: at + 3 * NS // 2 if not NS <= at < 3 * NS else None,  # it is always late, and away for a while
    ],
    ids=["stalls", "late"],
)
def test_sound_that_comes_where_silence_was_given_stays_in_step(arrival):
    sounds = [(each, arrival(each.arrival)) for each in (sound(n) for n in range(420))]
    film = [arriving(each, at) for each, at in sounds if at is not None] + [picture(n) for n in range(270)]
    fragmenter, ends = fmp4.Fragmenter([PICTURE, SOUND]), [0]
    for each in sorted(film, key=lambda each: each.arrival):
        fragmenter.push(each)
        if (fragment := fragmenter.cut()) is not None:
            ends += (sound_times(fragment) or (0, 0))[1:]
    assert 418 * 1024 <= max(ends) <= 420 * 1024


@pytest.mark.parametrize("phase", range(0, 280, 40))
def test_a_line_that_stalls_puts_no_silence_in_the_place_of_sound_on_its_way(phase):
    fast = Track(kind="video", codec="h264", extradata=AVCC, time_base=Fraction(1, 60))
    film = [Packet(fast, b"", pts=n, dts=n, arrival=n * NS // 60) for n in range(360)]
    film += [arriving(each, each.arrival + 3 * NS // 10) for each in (sound(n) for n in range(270))]
    begin = 3 * NS + phase * NS // 1000
    stalled = [(begin + 7 * NS // 10 if begin < each.arrival < begin + 7 * NS // 10 else each.arrival) for each in film]
    fragmenter = fmp4.Fragmenter([fast, SOUND])
    order = sorted(zip(film, stalled, strict=True), key=lambda pair: (pair[1], pair[0].arrival))
    for each, at in order:
        fragmenter.push(arriving(each, at))
    silence, _ = bitstream.silence(SOUND.codec, SOUND.extradata)
    assert silence not in fragmenter.cut().data


def test_sound_of_which_no_silence_is_known_has_a_gap():
    rare = Track(kind="audio", codec="aac", extradata=bytes.fromhex("1194"), time_base=Fraction(1, 48000))
    fragmenter = fmp4.Fragmenter([PICTURE, rare])
    fragmenter.push(Packet(rare, b"sound", pts=0, dts=0, arrival=0))
    for n in range(60):
        fragmenter.push(picture(n))
    assert b"sound" not in fragmenter.cut().data
    fragmenter.push(Packet(rare, b"again", pts=96_000, dts=96_000, arrival=2 * NS))
    assert inside(fragmenter.cut().data, "mdat") == [b"sound"]


def test_the_last_picture_stays_as_long_as_there_is_sound():
    fragmenter = fmp4.Fragmenter([PICTURE, SOUND])
    for each in (picture(0), picture(1), *(sound(n) for n in range(100))):
        fragmenter.push(each)
    fragment = fragmenter.finish()
    assert fragment.stop - Fraction(100 * 1024, 48_000) < Fraction(1, 30)
    assert sound_times(fragment) == (0, 100 * 1024)
    assert fragmenter.finish() is None


def test_what_ends_is_not_guessed_to_be_longer_than_usual():
    fragmenter = fmp4.Fragmenter([PICTURE, SOUND])
    for each in (picture(0), picture(1), *(sound(n) for n in range(10))):
        fragmenter.push(each)
    assert fragmenter.finish().stop == Fraction(2, 30)


def watched(film):
    """Init segment and fragments for somebody who watches as it comes, and the last picture's end at each sound."""
    opening, tracks = fmp4.Opening(holds=True), tracks_of(film)
    fragmenter, fragments, ends, stop = fmp4.Fragmenter(tracks), [], [], Fraction(0)
    for packet in (each for came in film for each in opening.take(came)):
        fragmenter.push(packet)
        if opening.is_alone:
            fragmenter.hold_picture(ahead=Fraction(1))
        fragment = fragmenter.cut(hold=False)
        fragments.append(fragment)
        if len(inside(fragment.data, "moof", "traf")) == 2 or packet.is_video:
            stop = fragment.stop
        ends.append((fmp4.seconds(packet), stop, opening.is_alone))
    return boxes.init_segment(tracks), fragments, ends


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_a_picture_that_has_stopped_is_there_as_long_as_sound_until_a_keyframe(tmp_path, codec):
    path = encode(tmp_path / "a.mp4", Video(codec, gop=30, bframes=2), Audio(), seconds=12)
    film = packets(path)
    start = min(map(fmp4.seconds, film))
    init, fragments, ends = watched(unseen(film, 3, 9))
    shown = pictures(whole(init, fragments))
    alone = [(t - start, stop) for t, stop, is_alone in ends if is_alone]
    assert 7.4 < alone[0][0] < 7.7
    assert all(t <= stop < t + 2 for t, stop in alone)
    assert {number for at, number in shown if 3.1 < at < 9} == {60}  # the last keyframe
    back = [each for each in shown if each[0] >= 9 - start]
    assert back == [(at - start, n) for at, n in pictures(path.read_bytes()) if at >= 9]
    assert len(sounds(whole(init, fragments))) == len([each for each in film if not each.is_video])


def test_pictures_stamped_as_decoded_before_a_pause_are_shown_in_step_behind_it(reordered_long):
    """Encoders that reorder pictures stamp each as decoded when the one two before it is shown."""
    film = unseen(packets(reordered_long), 3, 9)
    video = [each for each in film if each.is_video]
    own, shown = [each.dts for each in video], sorted(each.pts for each in video)
    for each, dts in zip(video, own[:2] + shown, strict=False):
        each.dts = dts
    assert max(each.pts - each.dts for each in video) * video[0].track.time_base > 6
    init, fragments, _ = watched(film)
    start = min(map(fmp4.seconds, film))
    back = [each for each in pictures(whole(init, fragments)) if each[0] >= 9 - start]
    assert back == [(at - start, n) for at, n in pictures(reordered_long.read_bytes()) if at >= 9]


def test_the_last_picture_itself_stays_where_its_length_was_not_given_yet():
    fragmenter = fmp4.Fragmenter([PICTURE, SOUND])
    for each in (picture(0, keyframe=True), picture(1), *(sound(n) for n in range(100))):
        fragmenter.push(each)
    fragmenter.hold_picture(ahead=Fraction(1))
    fragment = fragmenter.cut(hold=False)
    assert inside(fragment.data, "mdat")[0].startswith(b"picture0picture1sound0")
    assert fragment.stop == pytest.approx(99 * 1024 / 48_000 + 1, abs=0.01)


# --- what is cut -----------------------------------------------------------------------------------------------------


def test_fragments_are_numbered():
    fragmenter = fmp4.Fragmenter([PICTURE])
    numbers = []
    for n in range(3):
        fragmenter.push(picture(n))
        numbers += inside(fragmenter.cut(hold=False).data, "moof", "mfhd")
    assert [int.from_bytes(each, "big") for each in numbers] == [1, 2, 3]


def test_nothing_waits_nothing_is_cut():
    fragmenter = fmp4.Fragmenter([PICTURE])
    assert fragmenter.cut(hold=False) is None
    fragmenter.push(picture(0))
    assert fragmenter.cut() is None
    assert fragmenter.waiting == 0
    fragmenter.push(picture(1))
    assert fragmenter.waiting == Fraction(1, 30)
    assert fragmenter.cut().stop == Fraction(1, 30)


# --- which tracks -----------------------------------------------------------------------------------------------------


def test_tracks_are_known_when_both_kinds_have_come():
    opening = fmp4.Opening()
    key = picture(0, keyframe=True)
    assert opening.take(key) == []
    assert opening.tracks == ()
    first = sound(0)
    assert opening.take(first) == [key, first]
    assert opening.tracks == (PICTURE, SOUND)


def test_a_stream_of_one_kind_opens_after_half_a_second():
    opening = fmp4.Opening()
    taken = [opening.take(picture(n, keyframe=n == 0)) for n in range(16)]
    assert list(map(len, taken)) == [0] * 15 + [16]
    assert opening.tracks == (PICTURE,)


def test_sound_from_before_the_picture_is_left_out():
    opening = fmp4.Opening()
    for n in range(10):
        assert opening.take(sound(n)) == []
    key = picture(6, keyframe=True)
    assert opening.take(key) == [key]


def test_another_configuration_gives_new_tracks_at_its_keyframe():
    opening = fmp4.Opening()
    opening.take(picture(0, keyframe=True))
    opening.take(sound(0))
    before = opening.tracks
    other = Track(kind="video", codec="h264", extradata=AVCC[:-1] + b"\1", time_base=Fraction(1, 30))
    assert opening.take(picture(1, track=other)) == []
    assert opening.tracks is before
    key = picture(2, track=other, keyframe=True)
    assert opening.take(key) == [key]
    assert opening.tracks == (other, SOUND)


def test_pictures_that_miss_some_before_them_are_left_out():
    opening = fmp4.Opening()
    opening.take(picture(0, keyframe=True))
    opening.take(sound(0))
    other = Track(kind="video", codec="h264", extradata=AVCC[:-1] + b"\1", time_base=Fraction(1, 30))
    assert opening.take(picture(1, track=other)) == []
    assert opening.take(picture(2)) == []
    key = picture(3, keyframe=True)
    assert opening.take(key) == [key]


def alone(pictures_at, sounds_at, *, holds=True):
    """What an Opening gives of pictures and sounds at (s of media, s of arrival, keyframe), and when it was alone."""
    film = [picture(round(30 * t), keyframe=key, arrival=came) for t, came, key in pictures_at]
    film += [sound(round(t * 48_000 / 1024), arrival=came) for t, came in sounds_at]
    opening, taken, alone = fmp4.Opening(holds=holds), [], []
    for each in sorted(film, key=lambda packet: packet.arrival):
        taken += opening.take(each)
        alone += [round(each.arrival / NS, 1)] if opening.is_alone else []
    return [each for each in taken if each.is_video], alone


def steady(start, stop, *, step, late=0):
    return [(n * step, n * step + late) for n in range(round(start / step), round(stop / step))]


def test_sound_is_alone_when_the_picture_has_stopped_and_pictures_go_on_at_a_keyframe():
    shown = [(0, 0, True), (1, 1, False), (8, 8, False), (9, 9, True), (10, 10, False)]
    taken, times = alone(shown, steady(0, 12, step=0.02))
    assert [round(fmp4.seconds(each)) for each in taken] == [0, 1, 9, 10]
    assert (times[0], times[-1]) == (5.5, 9)
    taken, times = alone(shown, steady(0, 12, step=0.02), holds=False)
    assert (len(taken), times) == (5, [])


def test_sound_is_not_alone_between_slides_nor_behind_a_line_that_stalled():
    slides = [(t, t, t == 0) for t in range(0, 30, 4)]
    taken, times = alone(slides, steady(0, 30, step=0.02))
    assert (len(taken), times) == (len(slides), [])
    before, after = steady(0, 3, step=0.1), steady(3, 9, step=0.1, late=8)
    taken, times = alone([(*at, at[0] == 0) for at in before + after], before + after)
    assert (len(taken), times) == (90, [])


def test_sound_that_returns_before_the_picture_that_was_away_too_is_not_alone():
    heard = steady(0, 3, step=0.02) + steady(11, 14, step=0.02)
    shown = [(at + 0.01, arrival + 0.01, at == 0) for at, arrival in heard]
    taken, times = alone(shown, heard)
    assert (len(taken), times) == (300, [])


def test_the_same_configuration_again_changes_nothing():
    opening = fmp4.Opening()
    opening.take(picture(0, keyframe=True))
    opening.take(sound(0))
    before = opening.tracks
    again = Track(kind="video", codec="h264", extradata=AVCC, time_base=Fraction(1, 30))
    assert len(opening.take(picture(1, track=again))) == 1
    assert opening.tracks is before


def test_sound_that_comes_later_is_there_from_a_keyframe_on_and_costs_no_picture():
    opening = fmp4.Opening()
    shown = [each for n in range(16) for each in opening.take(picture(n, keyframe=n == 0))]
    assert opening.tracks == (PICTURE,)
    for n in range(16, 30):
        assert opening.take(sound(n)) == []
        shown += opening.take(picture(n))
    assert len(shown) == 30
    assert opening.tracks == (PICTURE,)
    key, first = picture(30, keyframe=True), sound(48)
    assert opening.take(key) == [key]
    assert opening.tracks == (PICTURE, SOUND)
    assert opening.take(first) == [first]


def test_sound_in_another_format_is_there_from_a_keyframe_on():
    opening = fmp4.Opening()
    opening.take(picture(0, keyframe=True))
    opening.take(sound(0))
    other = Track(kind="audio", codec="aac", extradata=bytes.fromhex("1188"), time_base=Fraction(1, 48000))
    first = Packet(other, b"", pts=1024, dts=1024, arrival=0)
    assert opening.take(first) == []
    assert opening.take(picture(1)) != []
    opening.take(picture(2, keyframe=True))
    assert opening.tracks == (PICTURE, other)
    assert opening.take(first) == [first]


MONO = Track(kind="audio", codec="aac", extradata=bytes.fromhex("1188"), time_base=Fraction(1, 48000))
OTHER = Track(kind="video", codec="h264", extradata=AVCC[:-1] + b"\1", time_base=Fraction(1, 30))


def opened(*, sounds):
    """An Opening that was given pictures 0 and 1, and so many sounds of 21 ms."""
    opening = fmp4.Opening()
    for each in (picture(0, keyframe=True), sound(0), picture(1), *(sound(n) for n in range(1, sounds))):
        opening.take(each)
    return opening


def test_a_keyframe_of_another_track_waits_for_the_sound_of_its_time_which_may_be_in_another_format():
    opening, key, following = opened(sounds=3), picture(2, track=OTHER, keyframe=True), picture(3, track=OTHER)
    assert opening.take(key) == opening.take(following) == []
    assert opening.tracks == (PICTURE, SOUND)
    late = sound(3)  # at 64 ms, before the keyframe
    assert opening.take(late) == [late]
    first = Packet(MONO, b"", pts=3600, dts=3600, arrival=NS // 10)
    assert opening.take(first) == [key, following, first]
    assert opening.tracks == (OTHER, MONO)


def test_a_keyframe_of_the_same_track_does_not_wait():
    opening, key = opened(sounds=3), picture(2, keyframe=True)
    assert opening.take(key) == [key]


def test_a_keyframe_does_not_wait_for_sound_that_is_too_late_to_come_soon():
    opening, key = opened(sounds=3), picture(9, track=OTHER, keyframe=True)
    assert opening.take(key) == [key]


def test_a_keyframe_of_a_third_track_that_comes_while_one_waits_waits_anew():
    opening, key = opened(sounds=3), picture(2, track=OTHER, keyframe=True)
    next_key, first = picture(3, keyframe=True), sound(5)
    assert opening.take(key) == []
    assert opening.take(next_key) == [key]
    assert opening.tracks == (OTHER, SOUND)
    assert opening.take(first) == [next_key, first]
    assert opening.tracks == (PICTURE, SOUND)


def test_where_all_pictures_are_keyframes_those_whose_sound_has_stopped_wait_only_once():
    opening = opened(sounds=3)
    taken = [opening.take(picture(n, track=OTHER, keyframe=True)) for n in range(2, 15)]
    assert list(map(len, taken)) == [0] * 6 + [7] + [1] * 6


def test_a_keyframe_does_not_wait_for_sound_that_is_there():
    opening, key = opened(sounds=5), picture(2, track=OTHER, keyframe=True)
    assert opening.take(key) == [key]


def test_a_keyframe_does_not_wait_for_sound_that_has_stopped():
    opening, key = opened(sounds=3), picture(2, track=OTHER, keyframe=True)
    assert opening.take(key) == []
    assert [opening.take(picture(n, track=OTHER)) for n in (3, 4, 5, 6, 7)] == [[]] * 5
    assert len(opening.take(picture(8, track=OTHER))) == 7  # a fifth of a second later
    again = picture(9, keyframe=True)
    assert opening.take(again) == [again]


def test_a_keyframe_whose_clock_has_begun_anew_waits_for_sound_that_does_so_too():
    opening = opened(sounds=3)
    for n in range(2, 60):
        opening.take(picture(n))
        opening.take(sound(2 * n))
    key = picture(0, track=OTHER, keyframe=True, arrival=2)
    first = Packet(MONO, b"", pts=0, dts=0, arrival=2 * NS)
    assert opening.take(key) == []
    assert opening.take(first) == [key, first]
    assert opening.tracks == (OTHER, MONO)


def test_sound_alone_in_another_format_goes_on_at_once():
    opening = fmp4.Opening()
    for n in range(30):
        opening.take(sound(n))
    assert opening.tracks == (SOUND,)
    other = Track(kind="audio", codec="aac", extradata=bytes.fromhex("1188"), time_base=Fraction(1, 48000))
    first = Packet(other, b"", pts=30 * 1024, dts=30 * 1024, arrival=NS)
    assert opening.take(first) == [first]
    assert opening.tracks == (other,)


def test_a_picture_that_comes_later_is_there_from_its_keyframe_on():
    opening = fmp4.Opening()
    for n in range(30):
        opening.take(sound(n))
    assert opening.take(picture(20)) == []
    assert len(opening.take(sound(31))) == 1
    assert opening.tracks == (SOUND,)
    key = picture(21, keyframe=True)
    assert opening.take(key) == [key]
    assert opening.tracks == (PICTURE, SOUND)


def test_what_mp4_cannot_hold_is_left_out():
    speech = Track(kind="audio", codec="speex")
    opening = fmp4.Opening()
    for n in range(20):
        opening.take(Packet(speech, b"", pts=n, dts=n, arrival=n * NS // 50))
        opening.take(picture(n, keyframe=n == 0))
    assert opening.tracks == (PICTURE,)


@pytest.mark.parametrize("began", [0, 90_000 * NS])  # how long the server had run
def test_a_stream_of_which_mp4_can_hold_nothing_is_refused_after_half_a_second(began):
    speech = Track(kind="audio", codec="speex")
    opening = fmp4.Opening()
    spoken = [Packet(speech, b"", pts=n, dts=n, arrival=began + n * NS // 50) for n in range(27)]
    for packet in spoken[:-1]:
        assert opening.take(packet) == []
    with pytest.raises(SinkRejected, match="speex"):
        opening.take(spoken[-1])
