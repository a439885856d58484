"""Encoder settings reach the encoder: what a decoder, or x264's own note in the stream, says of them.

What is encoded for a stream decodes to the pictures and samples that were mixed, each at its time.
"""

import re
from fractions import Fraction

import av
import numpy as np
import pytest

from engine.frame import AudioFrame, VideoFrame, i420_views
from engine.sinks.encode import Encoder, Encoding, PacketEncoder, picture_frame, vp9_options, x264_options
from engine.spec import PROFILES, AudioFormat, EncoderSpec, MixerSpec, Raster
from engine.timebase import first_sample
from tests.engine.clips import numbered
from tests.media import plane, read_cells

SIZE = (128, 72)
NTSC = Fraction(30_000, 1001)
SMALL = MixerSpec(raster=Raster(128, 72))
FAST = EncoderSpec(preset="ultrafast")
NOISE = np.random.default_rng(3).normal(0, 0.1, 1 << 18).astype(np.float32)


def canvas(width, height, seed=None):
    """A canvas in one piece: noise of a seed, or every plane a ramp."""
    rows = height * 3 // 2
    if seed is None:
        buffer = (np.arange(rows * width) % 251).astype(np.uint8).reshape(rows, width)
    else:
        buffer = np.random.default_rng(seed).integers(16, 235, (rows, width), np.uint8)
    return VideoFrame(*i420_views(buffer, width, height), buffer=buffer)


def encoded(path, spec, *, frames=60, size=SIZE, fps=Fraction(30)):
    """A film of noise: in VP9 where its name says so."""
    encoding = Encoding("webm", "libvpx-vp9", None) if path.suffix == ".webm" else Encoding("mp4", "libx264", None)
    mixer = MixerSpec(raster=Raster(*size), fps=fps)
    with av.open(str(path), "w") as container:
        encoder = Encoder(container, encoding, mixer, spec)
        silence = AudioFrame(np.zeros((2, 0), np.float32))
        pictures = [canvas(*size, seed=seed) for seed in range(8)]
        for n in range(frames):
            encoder.encode(n, pictures[n % 8], silence)
        encoder.flush()
    return path


def x264_settings(path):
    note = re.search(rb"x264 - core.*?options: ([^\0]*)", path.read_bytes())[1].decode(errors="replace")
    return dict(re.findall(r"(\w+)=(\S+)", note))


@pytest.mark.parametrize("size", [(2, 2), (4, 6), (64, 36), (62, 38), (6, 270), (480, 90)], ids=str)
def test_a_canvas_becomes_the_same_picture_whatever_its_height(size):
    picture = canvas(*size)
    frame = picture_frame(picture)
    assert (frame.width, frame.height) == size
    for n, expected in enumerate(picture.planes):
        assert np.array_equal(plane(frame, n), expected)


@pytest.mark.parametrize("size", [(64, 36), (65, 37), (1, 1), (31, 2)], ids=str)
def test_planes_that_lie_apart_become_the_same_picture(size):
    width, height = size
    noise = np.random.default_rng(1).integers(16, 235, (3, height + 2, width + 5), np.uint8)
    half = (slice((height + 1) // 2), slice((width + 1) // 2))
    picture = VideoFrame(noise[0, :height, :width], noise[1][half], noise[2][half])
    frame = picture_frame(picture)
    assert (frame.width, frame.height) == size
    for n, expected in enumerate(picture.planes):
        assert np.array_equal(plane(frame, n), expected)


def test_pictures_are_tagged_bt709_limited():
    frame = picture_frame(canvas(64, 36))
    assert [int(tag) for tag in (frame.colorspace, frame.color_primaries, frame.color_trc, frame.color_range)] == [
        1
    ] * 4


@pytest.mark.parametrize("bit_rate", [400_000, 1_500_000])
def test_the_bit_rate_of_noise_is_what_was_asked_for(tmp_path, bit_rate):
    path = encoded(tmp_path / "a.mp4", EncoderSpec(bit_rate=bit_rate, max_bit_rate=bit_rate), frames=300)
    with av.open(str(path)) as film:
        bits = 8 * sum(packet.size for packet in film.demux(video=0))
    assert bits / 10 == pytest.approx(bit_rate, rel=0.15)


def test_the_settings_are_in_the_stream(tmp_path):
    spec = EncoderSpec(bit_rate=500_000, max_bit_rate=800_000, qp_min=12, qp_max=40, gop=17, preset="fast")
    told = x264_settings(encoded(tmp_path / "a.mp4", spec, frames=40))
    expected = {"rc": "cbr" if spec.bit_rate == spec.max_bit_rate else "abr", "bitrate": "500", "vbv_maxrate": "800"}
    expected |= {"vbv_bufsize": "800", "qpmin": "12", "qpmax": "40", "keyint": "17", "subme": "6"}
    assert {key: told[key] for key in expected} == expected


def test_quality_is_the_rate_factor_and_twenty_without_a_word(tmp_path):
    assert x264_settings(encoded(tmp_path / "a.mp4", EncoderSpec(), frames=1))["crf"] == "20.0"
    assert x264_settings(encoded(tmp_path / "b.mp4", EncoderSpec(quality=31.5), frames=1))["crf"] == "31.5"


@pytest.mark.parametrize(("spec", "most"), [(EncoderSpec(gop=10), 10), (EncoderSpec(), 60), (EncoderSpec(gop=1), 1)])
def test_keyframes_are_never_further_apart(tmp_path, spec, most):
    with av.open(str(encoded(tmp_path / "a.mp4", spec, frames=130))) as film:
        keys = [n for n, frame in enumerate(film.decode(video=0)) if frame.key_frame]
    assert keys[0] == 0
    assert max(np.diff([*keys, 130])) <= most


@pytest.mark.parametrize("profile", PROFILES)
def test_the_profile(tmp_path, profile):
    with av.open(str(encoded(tmp_path / "a.mp4", EncoderSpec(profile=profile), frames=3))) as film:
        assert profile in film.streams.video[0].profile.lower()


def test_quality_zero_is_lossless(tmp_path):
    path = encoded(tmp_path / "a.mp4", EncoderSpec(quality=0), frames=8, size=(64, 38))
    with av.open(str(path)) as film:
        for n, frame in enumerate(film.decode(video=0)):
            for index, expected in enumerate(canvas(64, 38, seed=n).planes):
                assert np.array_equal(plane(frame, index), expected)


def test_what_an_encoder_counts_in_kilobits_is_never_none():
    assert x264_options(EncoderSpec(bit_rate=100, max_bit_rate=100))["maxrate"] == "1000"


def test_qp_ends_where_h264_ends():
    options = x264_options(EncoderSpec(qp_min=60, qp_max=63))
    assert (options["qmin"], options["qmax"]) == ("51", "51")


def size_in_vp9(folder, **fields):
    """Bytes of ten pictures of noise."""
    path = encoded(folder / "a.webm", EncoderSpec(**fields), frames=10)
    with av.open(str(path)) as film:
        return sum(packet.size for packet in film.demux(video=0))


def test_the_limits_of_the_quantizer_hold_for_vp9(tmp_path):
    usual, coarse, coarsest = (size_in_vp9(tmp_path, qp_min=qp) for qp in (None, 50, 63))
    assert coarsest < coarse < usual < size_in_vp9(tmp_path, qp_max=10)
    assert size_in_vp9(tmp_path, bit_rate=100_000_000, qp_min=63) == pytest.approx(coarsest, rel=0.1)
    assert size_in_vp9(tmp_path, qp_min=0, qp_max=63) == usual
    assert size_in_vp9(tmp_path, quality=51, qp_min=51, qp_max=51) < usual
    assert size_in_vp9(tmp_path, quality=20, qp_min=50) == coarse  # as x264 takes it


def test_presets_become_speeds_of_vp9():
    assert [vp9_options(EncoderSpec(preset=name))["cpu-used"] for name in ("ultrafast", "medium", "placebo")] == [
        "5",
        "3",
        "1",
    ]


def samples(first, stop, mixer=SMALL, channels=None):
    """Noise, the same however it is cut: what comes out can be found in it."""
    return AudioFrame(np.tile(NOISE[np.arange(first, stop) % len(NOISE)], (channels or mixer.audio.channels, 1)))


def sound_of(n, mixer=SMALL, span=1, channels=None):
    first, stop = (first_sample(k, rate=mixer.audio.rate, fps=mixer.fps) for k in (n, n + span))
    return samples(first, stop, mixer, channels)


def tone(n, span=1):
    """Ticks of a 500 Hz tone on two channels, 48 kHz, 30 ticks a second."""
    wave = 0.25 * np.sin(2 * np.pi * 500 * np.arange(1600 * n, 1600 * (n + span)) / 48_000)
    return AudioFrame(np.tile(wave.astype(np.float32), (2, 1)))


def streamed(ticks, mixer=SMALL, spec=FAST, **options):
    """An encoder and all its packets; ticks are (n, span) or n."""
    encoder = PacketEncoder(mixer, spec)
    packets = []
    for n, span in ((t, 1) if isinstance(t, int) else t for t in ticks):
        packets += encoder.encode(n, numbered(n, mixer), sound_of(n, mixer, span), span, **options)
    return encoder, packets + encoder.flush()


def decoded(packets, track):
    """(pts, frame) of one track, by a decoder that knows nothing but the track and the packets."""
    context = av.CodecContext.create(track.codec, "r")
    context.extradata = track.extradata
    if track.kind == "audio":
        context.sample_rate, context.layout = track.rate, "mono" if track.channels == 1 else "stereo"
    frames = []
    for each in (packet for packet in packets if packet.track is track):
        packet = av.Packet(each.data)
        packet.pts, packet.dts, packet.time_base = each.pts, each.dts, track.time_base
        frames += context.decode(packet)
    return [(frame.pts, frame) for frame in frames + context.decode(None)]


def heard(packets, track):
    """The first channel and the pts of its first sample, from packets without a hole."""
    frames = decoded(packets, track)
    return frames[0][0], np.concatenate([frame.to_ndarray()[0] for _, frame in frames])


def keyframes(packets):
    return [packet.pts for packet in packets if packet.starts_gop]


def x264_settings_of(packets):
    data = next(packet.data for packet in packets if packet.is_video)
    note = re.search(rb"x264 - core.*?options: ([^\0]*)", data)[1].decode(errors="replace")
    return dict(re.findall(r"([\w-]+)=(\S+)", note))


@pytest.mark.parametrize("fps", [Fraction(30), Fraction(25), NTSC, Fraction(60), Fraction(1)], ids=str)
def test_pictures_of_a_stream_decode_each_at_its_tick(fps):
    mixer = MixerSpec(raster=Raster(*SIZE), fps=fps)
    encoder, packets = streamed(range(12), mixer)
    found = [(pts - encoder.lead, read_cells(plane(frame))) for pts, frame in decoded(packets, encoder.video)]
    assert found == [(n, n) for n in range(12)]
    assert encoder.video.time_base == 1 / fps
    assert {packet.duration for packet in packets if packet.is_video} == {1}


def test_a_picture_comes_out_with_the_tick_it_went_in_with():
    encoder = PacketEncoder(SMALL, FAST)
    for n in range(5):
        packets = encoder.encode(n, numbered(n, SMALL), sound_of(n))
        assert [packet.pts - encoder.lead for packet in packets if packet.is_video] == [n]


def test_configurations_are_those_of_mp4_and_flv():
    encoder, packets = streamed(range(3), MixerSpec(raster=Raster(*SIZE), audio=AudioFormat(44_100, 1)))
    assert encoder.video.extradata[0] == 1  # avcC (ISO 14496-15 5.3.3.1)
    assert encoder.video.extradata[4] & 3 == 3  # lengths of four bytes
    data = next(packet.data for packet in packets if packet.is_video)
    at = 0
    while at < len(data):
        at += 4 + int.from_bytes(data[at : at + 4], "big")
    assert at == len(data)
    config = int.from_bytes(encoder.audio.extradata[:2], "big")
    assert (config >> 11, config >> 7 & 15, config >> 3 & 15) == (2, 4, 1)  # AAC-LC, 44.1 kHz, mono (ISO 14496-3 1.6)
    assert (encoder.audio.rate, encoder.audio.channels, encoder.audio.time_base) == (44_100, 1, Fraction(1, 44_100))
    assert (encoder.video.width, encoder.video.height) == SIZE


def test_a_stream_is_tagged_bt709_limited():
    encoder, packets = streamed(range(2))
    frame = decoded(packets, encoder.video)[0][1]
    assert [int(tag) for tag in (frame.colorspace, frame.color_primaries, frame.color_trc, frame.color_range)] == [
        1
    ] * 4


@pytest.mark.parametrize(
    ("rate", "fps"),
    [(48_000, Fraction(30)), (44_100, NTSC), (48_000, Fraction(60)), (8_000, Fraction(120)), (96_000, Fraction(1))],
    ids=str,
)
@pytest.mark.parametrize("channels", [1, 2])
def test_a_flash_and_its_beep_stay_together_to_the_sample(rate, fps, channels):
    mixer = MixerSpec(raster=Raster(*SIZE), fps=fps, audio=AudioFormat(rate, channels))
    encoder, flash = PacketEncoder(mixer, FAST), 7
    ticks = flash + max(4, int(3 * 1024 * fps / rate) + 1)
    packets = []
    begin = first_sample(flash, rate=rate, fps=fps)
    for n in range(ticks):
        first, stop = (first_sample(k, rate=rate, fps=fps) for k in (n, n + 1))
        block = samples(first, stop, mixer).samples.copy()
        block[:, : max(0, begin - first)] = 0  # silence up to the flash, then noise
        packets += encoder.encode(n, numbered(0xFFFF if n == flash else 0, mixer), AudioFrame(block))
    packets += encoder.flush()
    seen = next(pts for pts, frame in decoded(packets, encoder.video) if read_cells(plane(frame)) == 0xFFFF)
    assert seen == flash + encoder.lead
    first_pts, wave = heard(packets, encoder.audio)
    mixed = samples(begin, begin + 1024, mixer).samples[0]
    found = first_pts + int(np.argmax(np.correlate(wave, mixed, "valid")))
    offset = found * encoder.audio.time_base - seen * encoder.video.time_base
    assert abs(offset) <= Fraction(1, rate)  # sample(n) is rounded down, the lead to the nearest


def test_time_stamps_are_never_negative_and_always_rise():
    for rate, fps in ((48_000, Fraction(30)), (8_000, Fraction(120)), (44_100, NTSC), (96_000, Fraction(50))):
        mixer = MixerSpec(raster=Raster(*SIZE), fps=fps, audio=AudioFormat(rate))
        encoder, packets = streamed(range(40), mixer)
        for track in (encoder.video, encoder.audio):
            dts = [packet.dts for packet in packets if packet.track is track]
            assert dts[0] >= 0
            assert min(np.diff(dts)) > 0
        assert all(packet.pts == packet.dts for packet in packets)
        assert encoder.lead == -(-1024 * fps // rate)  # not more than needed


def test_all_samples_come_out_again():
    encoder = PacketEncoder(SMALL, FAST)
    packets = [packet for n in range(60) for packet in encoder.encode(n, None, tone(n))] + encoder.flush()
    first_pts, wave = heard(packets, encoder.audio)
    zero = encoder.lead * 1600 - first_pts  # where sample 0 is
    assert zero == 1024
    mixed = tone(0, 60).samples[0]
    assert len(wave) - zero >= len(mixed)
    assert np.std(wave[zero : zero + len(mixed)] - mixed) < 0.01


def test_a_late_mixers_picture_is_the_last_ticks_and_its_sound_whole():
    ticks = [0, 1, (2, 4), 6, (7, 30), 37]
    encoder, packets = streamed(ticks)
    found = [(pts - encoder.lead, read_cells(plane(frame))) for pts, frame in decoded(packets, encoder.video)]
    assert found == [(0, 0), (1, 1), (5, 2), (6, 6), (36, 7), (37, 37)]
    assert sound_packets(packets) == sound_packets(streamed(range(38))[1])


def sound_packets(packets):
    return [(packet.pts, packet.duration, packet.data) for packet in packets if not packet.is_video]


def test_a_tick_without_its_picture_leaves_its_sound():
    encoder = PacketEncoder(SMALL, FAST)
    packets = []
    for n in range(30):
        packets += encoder.encode(n, None if 10 <= n < 14 else numbered(n, SMALL), sound_of(n))
    packets += encoder.flush()
    found = [(pts - encoder.lead, read_cells(plane(frame))) for pts, frame in decoded(packets, encoder.video)]
    assert found == [(n, n) for n in range(30) if not 10 <= n < 14]
    assert sound_packets(packets) == sound_packets(streamed(range(30))[1])


def test_a_hole_in_the_ticks_is_a_hole_in_time():
    encoder, packets = streamed([*range(10), *range(1000, 1030)])
    found = [(pts - encoder.lead, read_cells(plane(frame))) for pts, frame in decoded(packets, encoder.video)]
    assert found == [(n, n) for n in (*range(10), *range(1000, 1030))]
    after = [packet for packet in packets if packet.track is encoder.audio and packet.pts > 1_000_000]
    first_pts, wave = heard(after[1:], encoder.audio)  # the first one decodes with what came before the hole
    mixed = sound_of(1010, span=2).samples[0]
    found = first_pts + int(np.argmax(np.correlate(wave, mixed, "valid")))
    assert found == 1010 * 1600 + encoder.lead * 1600


def test_a_day_later_nothing_has_drifted():
    day = int(86_400 * NTSC)
    mixer = MixerSpec(raster=Raster(*SIZE), fps=NTSC, audio=AudioFormat(44_100))
    encoder, packets = streamed(range(day, day + 20), mixer)
    first_video = next(packet for packet in packets if packet.is_video)
    first_sound = next(packet for packet in packets if not packet.is_video)
    apart = (first_sound.pts + 1024) * encoder.audio.time_base - first_video.pts * encoder.video.time_base
    assert abs(apart) <= Fraction(1, 44_100)


def test_one_channel_is_for_all():
    encoder = PacketEncoder(SMALL, FAST)
    packets = [packet for n in range(20) for packet in encoder.encode(n, None, sound_of(n, channels=1))]
    assert sound_packets(packets + encoder.flush()) == sound_packets(streamed(range(20))[1])
    waves = [frame.to_ndarray() for _, frame in decoded(packets, encoder.audio)]
    assert {wave.shape[0] for wave in waves} == {2}


def test_keyframes_come_every_two_seconds():
    encoder, packets = streamed(range(150))
    assert keyframes(packets) == [encoder.lead + n for n in (0, 60, 120)]


def test_keyframes_come_every_two_seconds_also_when_pictures_are_left_out():
    encoder, packets = streamed([(n, 3) for n in range(0, 198, 3)])
    assert keyframes(packets) == [encoder.lead + n for n in (2, 62, 122, 182)]


def test_cuts_make_no_keyframes():
    encoder = PacketEncoder(SMALL, EncoderSpec(gop=40))
    silence = AudioFrame(np.zeros((2, 0), np.float32))
    packets = []
    for n in range(50):
        packets += encoder.encode(n, canvas(*SIZE, seed=n // 5), silence)
    assert keyframes(packets) == [encoder.lead, encoder.lead + 40]


def test_a_keyframe_comes_at_once_when_asked_for():
    encoder = PacketEncoder(SMALL, FAST)
    packets = []
    for n in range(100):
        packets += encoder.encode(n, numbered(n, SMALL), sound_of(n), keyframe=n == 21)
    assert keyframes(packets) == [encoder.lead + n for n in (0, 21, 81)]
    late = [packet for packet in packets if packet.is_video and packet.pts >= encoder.lead + 21]
    found = [(pts - encoder.lead, read_cells(plane(frame))) for pts, frame in decoded(late, encoder.video)]
    assert found == [(n, n) for n in range(21, 100)]  # with nothing before it


def test_keyframes_that_are_asked_for_all_the_time_come_twice_a_second():
    encoder, packets = streamed(range(50), keyframe=True)
    assert keyframes(packets) == [encoder.lead + n for n in (0, 15, 30, 45)]


def test_a_keyframe_that_is_asked_for_with_a_skipped_picture_comes_with_the_next():
    encoder = PacketEncoder(SMALL, FAST)
    packets = []
    for n in range(25):
        packets += encoder.encode(n, None if n == 20 else numbered(n, SMALL), sound_of(n), keyframe=n == 20)
    assert keyframes(packets) == [encoder.lead, encoder.lead + 21]


def test_the_settings_are_in_the_stream_too():
    spec = EncoderSpec(bit_rate=500_000, max_bit_rate=800_000, qp_min=12, qp_max=40, gop=17, preset="fast")
    told = x264_settings_of(streamed(range(3), spec=spec)[1])
    expected = {"rc": "abr", "bitrate": "500", "vbv_maxrate": "800", "vbv_bufsize": "800", "qpmin": "12", "qpmax": "40"}
    expected |= {"keyint": "17", "scenecut": "0", "rc_lookahead": "0", "bframes": "0"}
    assert {key: told[key] for key in expected} == expected
    assert x264_settings_of(streamed(range(1))[1])["crf"] == "20.0"


@pytest.mark.parametrize("bit_rate", [300_000, 1_000_000])
def test_the_bit_rate_of_a_stream_of_noise_is_what_was_asked_for(bit_rate):
    encoder = PacketEncoder(SMALL, EncoderSpec(bit_rate=bit_rate, max_bit_rate=bit_rate))
    silence = AudioFrame(np.zeros((2, 0), np.float32))
    pictures = [canvas(*SIZE, seed=seed) for seed in range(8)]
    packets = [packet for n in range(300) for packet in encoder.encode(n, pictures[n % 8], silence)]
    bits = 8 * sum(len(packet.data) for packet in packets)
    assert bits / 10 == pytest.approx(bit_rate, rel=0.15)
    second = [8 * sum(len(packet.data) for packet in packets[n : n + 30]) for n in range(0, 300, 30)]
    assert max(second) <= 2 * bit_rate  # a second's worth, and a full buffer


@pytest.mark.parametrize("profile", PROFILES)
def test_the_profile_of_a_stream(profile):
    encoder = PacketEncoder(SMALL, EncoderSpec(profile=profile))
    assert encoder.video.extradata[1] == {"baseline": 66, "main": 77, "high": 100}[profile]


def nal_kinds(data):
    """The NAL unit types of a length-prefixed access unit."""
    kinds, at = [], 0
    while at < len(data):
        kinds.append(data[at + 4] & 31)
        at += 4 + int.from_bytes(data[at : at + 4], "big")
    return kinds


def test_a_small_picture_is_one_slice():
    _, packets = streamed(range(1), MixerSpec(raster=Raster(640, 360)))
    assert nal_kinds(next(packet.data for packet in packets if packet.is_video)).count(5) == 1


@pytest.mark.parametrize("size", [(2, 2), (6, 270), (1920, 2), (2, 1080)], ids=str)
def test_a_stream_of_any_even_size(size):
    encoder = PacketEncoder(MixerSpec(raster=Raster(*size)), FAST)
    packets = encoder.encode(0, canvas(*size), AudioFrame(np.zeros((2, 0), np.float32)))
    assert [(frame.width, frame.height) for _, frame in decoded(packets, encoder.video)] == [size]
