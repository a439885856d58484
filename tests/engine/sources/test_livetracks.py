"""Live tracks: damaged, odd and drifting packets → the right frames at the right times."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from engine.packet import Packet, Track, Variant
from engine.sources.livetracks import HOPELESS, Care, LivePicture, LiveSound, Stamped, stretched
from engine.spec import MAX_SIDE, AudioFormat
from engine.stream import END
from tests.engine.clips import packets
from tests.media import Video, encode, read_number

NS = 10**9
MS = 10**6
RATE = 48_000
PCM = Track(kind="audio", codec="pcm_f32le", rate=RATE, channels=1)
MONO = AudioFormat(RATE, 1)


def tone(n, *, count=960, track=PCM, hz=440):
    """Block n of a tone without an end."""
    i = np.arange(n * count, (n + 1) * count)
    wave = (0.5 * np.sin(2 * np.pi * hz * i / track.rate)).astype("<f4")
    return Packet(track, wave.tobytes(), pts=0, dts=0, arrival=0)


def heard(sounds):
    """First sample of all blocks together, and their samples with silence in holes."""
    first = sounds[0][0]
    out = np.zeros(sounds[-1][0] + len(sounds[-1][1]) - first, np.float32)
    for start, block in sounds:
        out[start - first : start - first + len(block)] = block.samples[0]
    return first, out


def holes(sounds):
    """(index, samples) of every hole between blocks."""
    pairs = pairwise(sounds)
    return [(a + len(x), b - a - len(x)) for (a, x), (b, _) in pairs if b != a + len(x)]


@pytest.mark.parametrize("ppm", [-3000, -200, 0, 200, 3000])
def test_sound_follows_its_stamps_without_a_hole_or_a_click(ppm):
    sound, blocks = LiveSound("cam"), []
    for n in range(1500):  # 30 s
        time = NS + n * 20 * MS * (1_000_000 + ppm) // 1_000_000
        new = sound.decode([Stamped(tone(n), time, False)], [MONO])[MONO]
        assert abs(new[0][0] - time * RATE // NS) <= 4 * RATE // 1000
        blocks += new
    assert holes(blocks) == []
    _, samples = heard(blocks)
    assert np.abs(np.diff(samples)).max() < 1.05 * 0.5 * 2 * np.pi * 440 / RATE
    assert np.abs(samples).max() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("ppm", [-3000, 3000])
@pytest.mark.parametrize(("rate", "count"), [(8000, 1024), (8000, 120), (RATE, 120)])
def test_sound_in_short_blocks_follows_its_stamps_too(rate, count, ppm):
    """So short that half a per cent of one is less than a sample."""
    sound, blocks, mono = LiveSound("cam"), [], AudioFormat(rate, 1)
    for n in range(20 * RATE // count):
        time = NS + n * count * NS // RATE * (1_000_000 + ppm) // 1_000_000
        new = sound.decode([Stamped(tone(n, count=count), time, False)], [mono])[mono]
        assert all(abs(start - time * rate // NS) <= 6 * rate // 1000 for start, _ in new)  # 2 ms are in the resampler
        blocks += new
    assert holes(blocks) == []
    _, samples = heard(blocks)
    assert np.abs(np.diff(samples)).max() < 1.15 * 0.5 * 2 * np.pi * 440 / rate


def test_blocks_of_two_samples_are_left_as_they_are():
    sound, blocks = LiveSound("cam"), []
    for n in range(500):
        time = NS + n * 2 * NS // RATE + (10 * MS if n else 0)
        blocks += sound.decode([Stamped(tone(n, count=2), time, False)], [MONO])[MONO]
    assert {len(block) for _, block in blocks} == {2}
    assert holes(blocks) == []


def test_jitter_of_stamps_does_not_touch_the_sound():
    sound = LiveSound("cam")
    blocks = []
    for n in range(500):
        blocks += sound.decode([Stamped(tone(n), NS + (n * 20 + (n * 7 + 5) % 11 - 5) * MS, False)], [MONO])[MONO]
    _, samples = heard(blocks)
    expected = np.concatenate([np.frombuffer(tone(n).data, "<f4") for n in range(500)])
    assert np.array_equal(samples, expected)


@pytest.mark.parametrize("late", [60, 500])
def test_sound_far_from_its_count_is_placed_anew(late):
    sound, blocks = LiveSound("cam"), []
    for n in range(100):
        time = NS + (n * 20 + (late if n >= 50 else 0)) * MS
        blocks += sound.decode([Stamped(tone(n), time, False)], [MONO])[MONO]
    assert holes(blocks) == [(2 * RATE, late * RATE // 1000)]


def test_sound_that_is_placed_before_what_there_was_loses_what_lies_on_it_and_leaves_a_hole():
    sound, blocks = LiveSound("cam"), []
    for n in range(100):
        time = NS + (n * 20 - (300 if n >= 50 else 0)) * MS
        blocks += sound.decode([Stamped(tone(n), time, False)], [MONO])[MONO]
    assert holes(blocks) == [(2 * RATE, 1)]
    assert blocks[-1][0] + len(blocks[-1][1]) == RATE + (100 * 20 - 300) * RATE // 1000


def test_a_new_track_leaves_a_hole():
    sound, blocks = LiveSound("cam"), []
    track = Track(kind="audio", codec="pcm_f32le", rate=RATE, channels=1)
    for n in range(20):
        packet = tone(n, track=PCM if n < 10 else track)
        blocks += sound.decode([Stamped(packet, NS + n * 20 * MS, False)], [MONO])[MONO]
    assert holes(blocks) == [(RATE + 9600, 1)]


def test_each_format_gets_its_own():
    sound = LiveSound("cam")
    formats = [MONO, AudioFormat(44_100), AudioFormat(8_000)]
    lengths = dict.fromkeys(formats, 0)
    for n in range(100):
        given = sound.decode([Stamped(tone(n), NS + n * 20 * MS, False)], formats)
        for wanted, blocks in given.items():
            lengths[wanted] += sum(len(block) for _, block in blocks)
    for wanted, blocks in sound.decode([END], formats).items():
        lengths[wanted] += sum(len(block) for _, block in blocks)
    for wanted, length in lengths.items():
        assert length == pytest.approx(2 * wanted.rate, abs=1)


def test_sound_without_a_usable_rate_is_refused():
    sound = LiveSound("cam")
    track = Track(kind="audio", codec="pcm_f32le", rate=10, channels=1)
    assert sound.decode([Stamped(tone(0, track=track), NS, False)], [MONO]) == {MONO: []}
    assert sound.corrupt == 1


@pytest.mark.parametrize(("decoder", "kind", "codec"), [(LiveSound, "audio", "wmav2"), (LivePicture, "video", "vp8")])
def test_a_track_of_which_nothing_can_be_decoded_is_said_once(caplog, decoder, kind, codec):
    track = Track(kind=kind, codec=codec, rate=RATE, channels=2)
    made = decoder("cam")
    for n in range(3 * HOPELESS):
        item = [Stamped(Packet(track, b"\xff" * 50, pts=0, dts=0, arrival=0), NS + n * 20 * MS, False)]
        made.decode(item, [MONO]) if decoder is LiveSound else made.decode(item, wanted=0)
    assert caplog.messages == [f'source "cam": nothing of its {kind} in {codec} can be decoded']


@pytest.mark.parametrize(
    ("decoder", "kind", "said"), [(LiveSound, "audio", "sound"), (LivePicture, "video", "picture")]
)
def test_a_track_without_a_decoder_is_said_once(caplog, decoder, kind, said):
    track = Track(kind=kind, codec="smell", rate=RATE, channels=2)
    made = decoder("cam")
    for n in range(3 * HOPELESS):
        item = [Stamped(Packet(track, b"\xff" * 50, pts=0, dts=0, arrival=0, keyframe=True), NS + n * 20 * MS, False)]
        made.decode(item, [MONO]) if decoder is LiveSound else made.decode(item, wanted=0)
    assert caplog.messages == [f'source "cam": no decoder for its {said}, smell']


def test_a_track_of_which_something_can_be_decoded_is_not_given_up(caplog):
    sound = LiveSound("cam")
    for n in range(3 * HOPELESS):
        broken = Packet(PCM, b"xx", pts=0, dts=0, arrival=0)
        sound.decode([Stamped(broken if n else tone(0), NS + n * 20 * MS, False)], [MONO])
    assert caplog.messages == []


@pytest.mark.parametrize("more", [-5, -1, 1, 5])
def test_stretched_keeps_both_ends_and_the_shape(more):
    n = np.arange(1024)
    wave = np.stack([np.sin(2 * np.pi * 440 * n / RATE), np.cos(2 * np.pi * 1000 * n / RATE)]).astype(np.float32)
    out = stretched(wave, 1024 + more)
    at = np.arange(1024 + more) * 1023 / (1023 + more)
    assert out.dtype == np.float32
    assert out[:, 0] == pytest.approx(wave[:, 0])
    assert out[:, -1] == pytest.approx(wave[:, -1], abs=1e-6)
    assert np.abs(out[0] - np.sin(2 * np.pi * 440 * at / RATE)).max() < 1e-3
    assert np.abs(out[1] - np.cos(2 * np.pi * 1000 * at / RATE)).max() < 5e-3


def film(tmp_path, **options):
    return packets(encode(tmp_path / "film.mp4", Video(**options), None))


def stamped(made, *, began=False):
    return [Stamped(packet, int(packet.pts * packet.track.time_base * NS), began) for packet in made]


def test_only_what_may_be_seen_is_converted(tmp_path):
    picture = LivePicture("cam")
    shown = picture.decode(stamped(film(tmp_path)), wanted=NS // 2)
    assert [read_number(frame.y) for _, _, frame in shown] == list(range(15, 30))
    assert picture.late == 15
    assert picture.decode([END], wanted=0) == []
    assert not picture.is_open


@pytest.mark.parametrize(("expected", "late"), [(0, 29), (NS // 2, 14), (2 * NS, 0)])
def test_of_what_a_late_decoder_leaves_out_only_what_was_expected_is_late(tmp_path, expected, late):
    picture = LivePicture("cam")
    picture.expected = expected
    shown = picture.decode([*stamped(film(tmp_path, bframes=2, gop=30)), END], wanted=NS, care=Care.HURRY)
    assert len(shown) == 1
    assert picture.late == late


def test_of_pictures_that_begin_at_the_same_time_the_last_is_shown(tmp_path):
    pictures = [p for p in packets(encode(tmp_path / "film.mp4", Video(bframes=0), None)) if p.is_video]
    stamped = [Stamped(p, NS + max(p.pts_ns, NS // 2), False) for p in pictures]
    shown = LivePicture("cam").decode([*stamped, END], wanted=0)
    assert [read_number(frame.y) for _, _, frame in shown] == list(range(15, 30))


def test_nothing_is_shown_before_a_keyframe(tmp_path):
    picture = LivePicture("cam")
    shown = picture.decode(stamped(film(tmp_path))[5:], wanted=0)
    assert [read_number(frame.y) for _, _, frame in shown] == list(range(15, 30))


def test_frames_come_in_the_order_of_presentation_with_their_own_times(tmp_path):
    picture = LivePicture("cam")
    shown = picture.decode([*stamped(film(tmp_path, bframes=2)), END], wanted=0)
    assert [read_number(frame.y) for _, _, frame in shown] == list(range(30))
    assert [start for start, _, _ in shown] == pytest.approx([n * NS / 30 for n in range(30)], abs=2)
    assert all(start < stop <= start + NS // 30 + 2 for start, stop, _ in shown[1:])


def test_of_pictures_that_are_long_and_short_in_turn_none_is_over_before_the_next_one(tmp_path):
    times = [n * NS // 24 + n % 2 * NS // 120 for n in range(30)]  # 2:3, as films at 24/s have in 60
    telecined = [item._replace(time=time) for item, time in zip(stamped(film(tmp_path)), times, strict=True)]
    shown = LivePicture("cam").decode([*telecined, END], wanted=0)
    assert [start for start, _, _ in shown] == times
    assert all(stop > following - NS // 300 for (_, stop, _), (following, _, _) in pairwise(shown[2:]))


@pytest.mark.parametrize("seconds", [1, 4])
def test_pictures_that_come_once_in_seconds_last_until_the_next_one(seconds):
    track = Track(kind="video", codec="rawvideo", variant=Variant(pix_fmt="yuv420p"), width=2, height=2)
    made = [Packet(track, bytes(6), pts=1000 * seconds * n, dts=0, arrival=0) for n in range(4)]
    shown = LivePicture("cam").decode([*stamped(made), END], wanted=0)
    assert [start for start, _, _ in shown] == [seconds * NS * n for n in range(4)]
    assert all(stop - start == pytest.approx(seconds * NS, abs=5 * MS) for start, stop, _ in shown[1:])


def test_pixels_that_are_not_square_are_displayed_square(tmp_path):
    picture = LivePicture("cam")
    made = film(tmp_path, options={"x264-params": "sar=2\\:1"})
    picture.decode(stamped(made)[:3], wanted=0)
    assert picture.size is not None
    assert (picture.size.width, picture.size.height) == (128, 36)


@pytest.mark.parametrize("codec", ["libx265", "libvpx-vp9", "libsvtav1", "libvpx"])
def test_other_codecs_are_decoded(tmp_path, codec):
    suffix = "mp4" if codec == "libx265" else "mkv"
    made = packets(encode(tmp_path / f"film.{suffix}", Video(codec), None))
    shown = LivePicture("cam").decode([*stamped(made), END], wanted=0)
    assert [read_number(frame.y) for _, _, frame in shown] == list(range(30))


def test_pictures_of_too_long_a_side_are_left_out_and_counted(tmp_path, caplog):
    small, large = film(tmp_path), film(tmp_path, size=(MAX_SIDE + 2, 36))
    picture, numbers = LivePicture("cam"), []
    for items in (stamped(small), stamped(large) * 4, stamped(small)):
        numbers += [read_number(frame.y) for _, _, frame in picture.decode(items, wanted=0)]
    assert numbers == [*range(30), *range(30)]
    assert picture.corrupt == 8  # those that begin anew: others wait for them
    assert picture.size is not None
    assert picture.size.width == 64
    assert caplog.messages == ['source "cam": nothing of its video in h264 can be decoded']


def test_a_picture_that_is_decoded_with_damage_is_not_shown_nor_what_follows_up_to_a_keyframe(tmp_path):
    items = stamped(film(tmp_path))
    whole = items[5].packet
    hurt = Packet(whole.track, whole.data[:-20] + bytes(20), pts=whole.pts, dts=whole.dts, arrival=0)
    picture = LivePicture("cam")
    shown = picture.decode([*items[:5], items[5]._replace(packet=hurt), *items[6:], END], wanted=0)
    assert [read_number(frame.y) for _, _, frame in shown] == [*range(5), *range(15, 30)]
    assert picture.corrupt == 1


def test_random_bytes_are_counted_and_nothing_more(tmp_path):
    made = film(tmp_path)
    chance = np.random.default_rng(3)
    picture = LivePicture("cam")
    for packet in made * 4:
        data = bytearray(packet.data)
        for at in chance.integers(0, len(data), 3):
            data[at] = chance.integers(0, 256)
        hurt = Packet(packet.track, bytes(data), pts=packet.pts, dts=packet.dts, arrival=0, keyframe=packet.keyframe)
        picture.decode(stamped([hurt]), wanted=0)
    assert picture.corrupt > 0
    before = picture.corrupt
    shown = picture.decode(stamped(made), wanted=0)
    assert [read_number(frame.y) for _, _, frame in shown][-15:] == list(range(15, 30))
    assert picture.corrupt <= before + 1


def test_time_base_does_not_matter(tmp_path):
    made = packets(encode(tmp_path / "film.mp4", Video(), None), units=Fraction(1, 90_000))
    shown = LivePicture("cam").decode(stamped(made), wanted=0)
    assert len(shown) == 30


def test_the_smaller_a_picture_is_shown_the_less_care_it_takes_and_from_a_keyframe_on_all_of_it(tmp_path):
    film = encode(
        tmp_path / "in.mp4", Video(size=(256, 144), bframes=2, gop=15, options={"crf": "34"}), None, seconds=2
    )
    items = [Stamped(packet, packet.pts * MS, False) for packet in packets(film, units=Fraction(1, 1000))]

    def decoded(cares):
        picture, frames = LivePicture("cam"), []
        for item, care in zip(items, cares, strict=True):
            frames += picture.decode([item], wanted=0, care=care)
        frames += picture.decode([END], wanted=0)
        return np.array([frame.y[:144, :256] for _, _, frame in frames], float)

    def error(cares, shrink):
        a, b = (x.reshape(60, 144 // shrink, shrink, -1, shrink).mean((2, 4)) for x in (exact, decoded(cares)))
        return np.mean((a - b) ** 2)

    exact = decoded([Care.FULL] * 60)
    assert len(exact) == 60
    small, tiny = error([Care.SMALL] * 60, 2), error([Care.TINY] * 60, 4)
    assert 0 < small < 255**2 / 10**4.5  # 45 dB
    assert 0 < tiny < 255**2 / 10**4
    grown = decoded([Care.TINY] * 40 + [Care.FULL] * 20)
    assert not np.array_equal(grown[:45], exact[:45])
    assert np.array_equal(grown[45:], exact[45:])
