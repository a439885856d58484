"""Encoder settings reach the encoder: what a decoder, or x264's own note in the stream, says of them."""

import re
from fractions import Fraction

import av
import numpy as np
import pytest

from engine.frame import AudioFrame, VideoFrame, i420_views
from engine.sinks.encode import Encoder, Encoding, picture_frame, vp9_options, x264_options
from engine.spec import PROFILES, EncoderSpec, MixerSpec, Raster
from tests.media import plane

SIZE = (128, 72)


def canvas(width, height, seed=None):
    """A canvas in one piece: noise of a seed, or every plane a ramp."""
    rows = height * 3 // 2
    if seed is None:
        buffer = (np.arange(rows * width) % 251).astype(np.uint8).reshape(rows, width)
    else:
        buffer = np.random.default_rng(seed).integers(16, 235, (rows, width), np.uint8)
    return VideoFrame(*i420_views(buffer, width, height), buffer=buffer)


def encoded(path, spec, *, frames=60, size=SIZE, fps=Fraction(30)):
    """A film of noise."""
    mixer = MixerSpec(raster=Raster(*size), fps=fps)
    with av.open(str(path), "w") as container:
        encoder = Encoder(container, Encoding("mp4", "libx264", None), mixer, spec)
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


def test_presets_become_speeds_of_vp9():
    assert [vp9_options(EncoderSpec(preset=name))["cpu-used"] for name in ("ultrafast", "medium", "placebo")] == [
        "5",
        "3",
        "1",
    ]
