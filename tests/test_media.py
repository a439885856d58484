"""The test media are what they claim: numbers read back from every decodable file, rates, colours, tones and damage."""

import contextlib
import os
from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import media
from tests.media import COLOUR, FLASH, SURROUND_HZ, VFR_MS, Audio, Media, Video, encode, flash_beep, numbers

WHOLE = {  # every recipe whose video decodes without loss of frames or turning, and its number of frames
    "plain": 60,
    "fps25": 25,
    "fps2997": 30,
    "fps60": 60,
    "vfr": len(VFR_MS),
    "odd": 30,
    "ten_bit": 30,
    "alpha": 30,
    "video_only": 30,
    "transport": 60,
}
CODECS = {
    "hevc.mp4": (Video("libx265"), Audio()),
    "hevc.flv": (Video("libx265"), Audio()),
    "vp8.webm": (Video("libvpx"), Audio("libopus")),
    "vp9_alpha.webm": (Video("libvpx-vp9", pix_fmt="yuva420p"), Audio("libopus")),
    "av1.mp4": (Video("libsvtav1"), Audio()),
    "mpeg4.avi": (Video("mpeg4"), Audio("libmp3lame")),
    "mpeg2.ts": (Video("mpeg2video", bframes=2), Audio("ac3")),
    "mjpeg.avi": (Video("mjpeg", full_range=True), Audio("pcm_s16le")),
    "h264.flv": (Video(bframes=2), Audio()),
    "sorenson.flv": (Video("flv"), Audio("libmp3lame", rate=44_100)),
    "prores.mov": (Video("prores_ks", pix_fmt="yuv422p10le"), Audio("pcm_s16le")),
    "png.mov": (Video("png", pix_fmt="rgba"), None),
    "h264_444.mkv": (Video(pix_fmt="yuv444p", size=(65, 37)), Audio("flac")),
    "h264_high10.mkv": (Video(pix_fmt="yuv420p10le"), None),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return Media(tmp_path_factory.mktemp("media"))


def video(path):
    """(stream facts, frames) of the first video stream."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return (stream.average_rate, stream.codec_context.has_b_frames), list(container.decode(stream))


def heard(path):
    """(rate, (C, n) float samples) of the first audio stream, cut and filled on its own clock from 0."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        resampler = av.AudioResampler("fltp", stream.layout, stream.rate)
        frames = [out for frame in container.decode(stream) for out in resampler.resample(frame)]
        return stream.rate, np.concatenate([frame.to_ndarray() for frame in frames], axis=1)


def pitch(rate, samples):
    """The strongest frequency, in Hz."""
    return np.argmax(np.abs(np.fft.rfft(samples[:rate]))) * rate / len(samples[:rate])


@settings(deadline=None)
@given(st.integers(0, 65535), st.integers(16, 90), st.integers(4, 50), st.integers(1, 3), st.sampled_from((8, 10, 12)))
def test_painted_number_reads_back_at_any_size_and_scale(n, width, height, scale, bits):
    y = np.zeros((height, width), np.uint16)
    media.paint_number(y, n, 16 << bits - 8, 235 << bits - 8)
    assert media.read_number(np.kron(y, np.ones((scale, scale), np.uint16)), bits) == n


@settings(deadline=None)
@given(st.integers(0, 65535))
def test_painted_number_survives_halving_full_range_and_a_thin_frame(n):
    y = np.zeros((36, 64), np.uint8)
    media.paint_number(y, n, 0, 255)
    assert media.read_number(y[::2, ::2]) == media.read_number(y[1:, 1:-1]) == n


@settings(deadline=None)
@given(st.integers(0, 65535))
def test_smallest_picture_holds_a_number(n):
    y = np.zeros((2, 8), np.uint8)
    media.paint_number(y, n)
    assert media.read_number(y) == n


def test_grey_blends_and_specks_are_no_number():
    one, other = np.zeros((2, 36, 64), np.uint8)
    media.paint_number(one, 12)
    media.paint_number(other, 13)
    assert media.read_number(np.full((36, 64), 126, np.uint8)) is None
    assert media.read_number(one // 2 + other // 2) is None
    assert media.read_number(one[:1]) is media.read_number(one[:, :7]) is None


@pytest.mark.parametrize("name", WHOLE)
def test_numbers_read_back(files, name):
    assert numbers(files.path(name)) == list(range(WHOLE[name]))


@pytest.mark.parametrize("name", CODECS)
def test_numbers_read_back_from_every_codec(tmp_path, name):
    assert numbers(encode(tmp_path / name, *CODECS[name])) == list(range(30))


def test_who_encodes_av1_is_no_more_urgent_than_before(tmp_path):
    before = os.sched_getscheduler(0)
    encode(tmp_path / "a.mp4", Video("libsvtav1"), None)
    assert os.sched_getscheduler(0) == before


@pytest.mark.parametrize(
    ("name", "rate"), [("plain", 30), ("fps25", 25), ("fps2997", Fraction(30_000, 1001)), ("fps60", 60)]
)
def test_frames_are_on_the_grid_of_their_rate_behind_b_frames(files, name, rate):
    (average_rate, b_frames), frames = video(files.path(name))
    assert average_rate == rate
    assert b_frames
    assert [frame.pts * frame.time_base for frame in frames] == [n / Fraction(rate) for n in range(len(frames))]


def test_plain_has_its_index_first_and_a_tone(files):
    path = files.path("plain")
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    rate, samples = heard(path)
    assert (rate, len(samples)) == (48_000, 2)
    assert pitch(rate, samples[0]) == 440
    assert np.abs(samples[:, 4800:]).max() == pytest.approx(0.5, abs=0.05)


def test_irregular_times_are_kept(files):
    _, frames = video(files.path("vfr"))
    assert [frame.pts * frame.time_base * 1000 for frame in frames] == list(VFR_MS)


def test_sizes_and_formats(files):
    assert [(f.width, f.height) for f in video(files.path("odd"))[1][:1]] == [(65, 37)]
    assert video(files.path("ten_bit"))[1][0].format.name == "yuv420p10le"


@pytest.mark.parametrize(
    ("name", "matrix", "full_range", "tags"),
    [
        ("bt601", "bt601", False, (6, 6, 6, 1)),
        ("bt709", "bt709", False, (1, 1, 1, 1)),
        ("full_range", "bt709", True, (1, 1, 1, 2)),
    ],
)
def test_colours_are_tagged_and_known(files, name, matrix, full_range, tags):
    _, frames = video(files.path(name))
    for n, frame in enumerate(frames):
        assert (frame.colorspace, frame.color_primaries, frame.color_trc, frame.color_range) == tags
        assert media.read_number(media.number_part(media.plane(frame))) == n
        below = [media.plane(frame, index)[-4:].mean() for index in range(3)]
        assert below == pytest.approx(media.colour_yuv(COLOUR, matrix, full_range), abs=2)


def test_known_colour_follows_the_standards():
    assert media.colour_yuv((255, 255, 255), "bt709") == pytest.approx((235, 128, 128))
    assert media.colour_yuv((255, 0, 0), "bt601") == pytest.approx((81.48, 90.2, 240), abs=0.01)
    assert media.colour_yuv((0, 0, 255), "bt709", full_range=True) == pytest.approx((18.4, 255.5, 116.3), abs=0.1)


def test_rotated_frames_read_when_turned_by_their_rotation(files):
    _, frames = video(files.path("rotated"))
    assert {(frame.width, frame.height, frame.rotation) for frame in frames} == {(36, 64, 90)}
    assert [media.read_number(np.rot90(media.plane(frame))) for frame in frames] == list(range(30))


def test_alpha_is_opaque_left_and_clear_right(files):
    _, frames = video(files.path("alpha"))
    alpha = media.plane(frames[0], 3)
    full = (1 << frames[0].format.components[3].bits) - 1
    assert alpha[:, :32].min() > full * 0.99
    assert alpha[:, 32:].max() == 0


@pytest.mark.parametrize(
    ("name", "rate", "channels"),
    [("audio_only", 44_100, 1), ("hz8000", 8_000, 1), ("hz96000", 96_000, 2)],
)
def test_sound_files_hold_one_second_of_a_tone(files, name, rate, channels):
    got, samples = heard(files.path(name))
    assert (got, len(samples)) == (rate, channels)
    assert rate <= samples.shape[1] < rate + 1024
    assert pitch(rate, samples[0]) == 440


def test_surround_has_a_tone_of_its_own_in_every_channel(files):
    rate, samples = heard(files.path("surround"))
    assert tuple(pitch(rate, channel) for channel in samples) == SURROUND_HZ


def test_flash_and_beep_share_every_full_second(tmp_path):
    path = flash_beep(tmp_path / "long.mkv", seconds=3, size=(32, 18))
    flashes = [n for n, number in enumerate(numbers(path)) if number == FLASH]
    rate, samples = heard(path)
    loud = np.flatnonzero(samples[0]) // 1600
    assert flashes == sorted(set(loud)) == [0, 30, 60]
    assert pitch(1600, samples[0, 48_000:49_600]) * rate / 1600 == 990  # 1000 Hz between bins 30 Hz apart


def test_truncated_files_start_well_and_lose_their_end(files):
    for name in ("truncated", "truncated_ts"):
        found = numbers(files.path(name))
        assert found[:20] == list(range(20))
        assert 20 < len(found) < 60


def test_corrupt_file_starts_well_and_has_damage(files):
    found = []
    with av.open(str(files.path("corrupt"))) as container:
        for packet in container.demux(video=0):
            with contextlib.suppress(av.error.InvalidDataError):
                found += [media.read_number(media.plane(frame)) for frame in packet.decode()]
    assert found[:5] == list(range(5))
    assert found != list(range(60))
    assert len(found) > 30


@pytest.mark.parametrize("name", ["empty", "text"])
def test_what_is_no_media_does_not_open(files, name):
    with pytest.raises(av.error.InvalidDataError):
        av.open(str(files.path(name)))


def test_bytes_are_the_same_every_time(files, tmp_path):
    again = Media(tmp_path)
    for name in ("plain", "vfr", "ten_bit", "flash_beep", "corrupt"):
        assert again.path(name).read_bytes() == files.path(name).read_bytes(), name


def test_all_files_are_made_once_and_small(files):
    everything = media.make_all(files.folder)
    made = {path.name: path.stat() for path in files.folder.iterdir()}
    assert len(made) == len(media.RECIPES)
    assert sum(stat.st_size for stat in made.values()) < 1_000_000
    assert everything.path("plain").stat().st_mtime_ns == made["plain.mp4"].st_mtime_ns
