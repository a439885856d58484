"""What can be asked for ends exactly at its limits, and one sentence with the field's name says so."""

from fractions import Fraction

import av
import pytest

from engine.errors import InvalidSpec
from engine.spec import (
    AAC_RATES,
    ARRIVAL_MS,
    MP3_RATES,
    OPUS_RATES,
    AudioFormat,
    EncoderSpec,
    EventSpec,
    MixerSpec,
    OutputSpec,
    PullSpec,
    Raster,
    RenderSpec,
)

HUGE = Fraction(10**400)


def rendered(**fields):
    return RenderSpec(output="x.mp4", **fields)


def made(**fields):
    return OutputSpec(path="x.png", **fields)


def shown(**fields):
    return EventSpec(name="show", path="live", stream_name="mix", **fields)


@pytest.mark.parametrize(
    ("asked", "got"),
    [
        ((2, 2), (2, 2)),
        ((3, 5), (2, 4)),
        ((7680, 4320), (7680, 4320)),
        ((7679, 4319), (7678, 4318)),
        ((640, 360), (640, 360)),
    ],
)
def test_raster_is_rounded_down_to_even(asked, got):
    raster = Raster.of(*asked)
    assert (raster.width, raster.height) == got
    assert raster.frame_bytes == got[0] * got[1] * 3 / 2
    for sign in "xX×":
        assert Raster.parse(sign.join(map(str, asked))) == raster


@pytest.mark.parametrize(
    ("size", "sentence", "where"),
    [
        ((1, 2), "width 1 is not within 2…7680", "width"),
        ((7681, 2), "width 7681 is not within 2…7680", "width"),
        ((2, 1), "height 1 is not within 2…4320", "height"),
        ((2, 4321), "height 4321 is not within 2…4320", "height"),
        ((-2, 2), "width -2 is not within 2…7680", "width"),
    ],
)
def test_raster_beyond_its_limits_is_refused(size, sentence, where):
    with pytest.raises(InvalidSpec) as caught:
        Raster.of(*size)
    assert (str(caught.value), caught.value.where) == (sentence, where)


@pytest.mark.parametrize(
    "make",
    [
        lambda: AudioFormat(rate=8000, channels=1),
        lambda: AudioFormat(rate=96000),
        lambda: MixerSpec(fps=Fraction(1)),
        lambda: MixerSpec(fps=Fraction(120)),
        lambda: EncoderSpec(bit_rate=100, max_bit_rate=100),
        lambda: EncoderSpec(bit_rate=1_048_576_000),
        lambda: EncoderSpec(qp_min=0, qp_max=63),
        lambda: EncoderSpec(qp_min=30, qp_max=30),
        lambda: EncoderSpec(qp_min=30),
        lambda: EncoderSpec(qp_max=30),
        lambda: EncoderSpec(quality=0),
        lambda: EncoderSpec(quality=51, preset="placebo", profile="high", gop=1),
        lambda: EncoderSpec(gop=1000, audio_bit_rate=8000),
        lambda: EncoderSpec(audio_bit_rate=512_000),
        lambda: rendered(start=Fraction(0), duration=Fraction(1, 1000)),
        lambda: rendered(duration=Fraction(604800), on_error="hold"),
        lambda: rendered(duration=Fraction(1), outputs=(made(),), smart="never"),
        lambda: made(size=(1, 1), at=Fraction(0), every=1),
        lambda: made(size=(7680, 4320)),
        lambda: shown(sub_mixes=1, latency_ms=0),
        lambda: shown(sub_mixes=10, latency_ms=10_000),
        lambda: PullSpec(url="x" * 4096),
        lambda: PullSpec(pattern="x"),
    ],
)
def test_limits_themselves_are_allowed(make):
    make()


@pytest.mark.parametrize(
    ("make", "sentence", "where"),
    [
        (lambda: AudioFormat(rate=7999), "audio rate 7999 is not within 8000…96000 Hz", "audioSampleRate"),
        (lambda: AudioFormat(rate=96001), "audio rate 96001 is not within 8000…96000 Hz", "audioSampleRate"),
        (lambda: AudioFormat(channels=0), "0 audio channels: only 1 or 2", "audioChannels"),
        (lambda: AudioFormat(channels=3), "3 audio channels: only 1 or 2", "audioChannels"),
        (lambda: MixerSpec(fps=Fraction(1, 2)), "frame rate 0.5 is not within 1…120", "frameRate"),
        (lambda: MixerSpec(fps=Fraction(241, 2)), "frame rate 120.5 is not within 1…120", "frameRate"),
        (lambda: MixerSpec(fps=HUGE), "frame rate 1e+300 is not within 1…120", "frameRate"),
        (lambda: EncoderSpec(bit_rate=99), "bitRate 99 is not within 100…1048576000 bits per second", "bitRate"),
        (
            lambda: EncoderSpec(bit_rate=1_048_576_001),
            "bitRate 1048576001 is not within 100…1048576000 bits per second",
            "bitRate",
        ),
        (
            lambda: EncoderSpec(bit_rate=100, max_bit_rate=99),
            "maxBitRate 99 is not within 100…1048576000 bits per second",
            "maxBitRate",
        ),
        (
            lambda: EncoderSpec(bit_rate=200, max_bit_rate=199),
            "maxBitRate 199 is less than bitRate 200",
            "maxBitRate",
        ),
        (lambda: EncoderSpec(max_bit_rate=200), "maxBitRate 200 without a bitRate", "maxBitRate"),
        (lambda: EncoderSpec(qp_min=-1), "qpMin -1 is not within 0…63", "qpMin"),
        (lambda: EncoderSpec(qp_max=64), "qpMax 64 is not within 0…63", "qpMax"),
        (lambda: EncoderSpec(qp_min=31, qp_max=30), "qpMin 31 is more than qpMax 30", "qpMin"),
        (lambda: EncoderSpec(quality=51.5), "quality 51.5 is not within 0…51", "quality"),
        (
            lambda: EncoderSpec(quality=float("nan")),
            "quality nan is not within 0…51",
            "quality",
        ),
        (
            lambda: EncoderSpec(quality=20, bit_rate=1000),
            "quality 20 and bitRate 1000 exclude each other",
            "quality",
        ),
        (lambda: EncoderSpec(gop=0), "gop 0 is not within 1…1000 frames", "gop"),
        (lambda: EncoderSpec(gop=1001), "gop 1001 is not within 1…1000 frames", "gop"),
        (lambda: EncoderSpec(profile="tall"), 'profile "tall" is not one of baseline, main, high', "profile"),
        (lambda: EncoderSpec(audio_bit_rate=7999), "audio bit rate 7999 is not within 8000…512000", "audioBitRate"),
        (
            lambda: EncoderSpec(audio_bit_rate=512_001),
            "audio bit rate 512001 is not within 8000…512000",
            "audioBitRate",
        ),
        (lambda: rendered(start=Fraction(-1, 2)), "start -0.5 s is negative", "start"),
        (lambda: rendered(start=-HUGE), "start -1e+300 s is negative", "start"),
        (lambda: rendered(duration=Fraction(0)), "duration 0 s is not more than 0 and at most 604800", "duration"),
        (lambda: rendered(duration=HUGE), "duration 1e+300 s is not more than 0 and at most 604800", "duration"),
        (lambda: rendered(on_error="ignore"), 'on_error "ignore" is not fail or hold', "onError"),
        (lambda: rendered(smart="always"), 'smart "always" is not auto or never', "smart"),
        (lambda: rendered(outputs=(made(),)), "several outputs need a duration", "duration"),
        (lambda: made(size=(0, 1)), "size 0x1 is not within 1x1…7680x4320", "size"),
        (lambda: made(size=(1, 4321)), "size 1x4321 is not within 1x1…7680x4320", "size"),
        (lambda: made(at=Fraction(-1, 2)), "offset -0.5 s is negative", "at"),
        (lambda: made(every=0), "every 0 is less than 1", "every"),
        (lambda: shown(sub_mixes=0), "subMixes 0 is not within 1…10", "subMixes"),
        (lambda: shown(sub_mixes=11), "subMixes 11 is not within 1…10", "subMixes"),
        (lambda: shown(latency_ms=-1), "latency -1 ms is not within 0…10000", "latency"),
        (lambda: shown(latency_ms=10_001), "latency 10001 ms is not within 0…10000", "latency"),
        (lambda: PullSpec(), "either url or pattern must be given", "url"),
        (lambda: PullSpec(url="x", pattern="bars"), "either url or pattern must be given", "url"),
        (lambda: PullSpec(url=""), "url must have 1…4096 characters", "url"),
        (lambda: PullSpec(pattern="x" * 4097), "pattern must have 1…4096 characters", "pattern"),
        (lambda: PullSpec(pattern="bars\0"), "pattern has a NUL character", "pattern"),
    ],
)
def test_what_is_beyond_a_limit_is_refused(make, sentence, where):
    with pytest.raises(InvalidSpec) as caught:
        make()
    assert (str(caught.value), caught.value.where) == (sentence, where)


@pytest.mark.parametrize("text", ["", "640", "640x", "x360", "640x360x", "-640x360", "640 x 360", "1e3x360", "6٤x360"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(InvalidSpec, match=f'^"{text}" is not WIDTHxHEIGHT$'):
        Raster.parse(text)


@pytest.mark.parametrize(
    ("codec", "rates"), [("aac", AAC_RATES), ("libmp3lame", MP3_RATES), ("libopus", OPUS_RATES)], ids=str
)
def test_rates_of_sound_are_those_of_the_encoder_that_a_mix_may_have(codec, rates):
    assert list(rates) == sorted(rate for rate in av.codec.Codec(codec, "w").audio_rates if rate >= 8000)


def test_a_mix_is_720p_at_30_pictures_a_second_with_stereo_at_48_khz_unless_it_is_asked_for_otherwise():
    assert MixerSpec() == MixerSpec(raster=Raster(1280, 720), fps=Fraction(30), audio=AudioFormat(48000, 2))


def test_sub_mixes_are_streams_with_their_number_behind_the_name():
    assert [shown().stream(), *(shown(sub_mixes=3).stream(n) for n in range(3))] == [
        *("live/mix", "live/mix", "live/mix_1", "live/mix_2"),
    ]


def test_a_render_makes_its_output_with_picture_and_sound_or_the_outputs_in_its_place():
    (one,) = rendered(encoder=EncoderSpec(quality=1)).made
    assert one == OutputSpec(path="x.mp4", encoder=EncoderSpec(quality=1), picture=True, sound=True)
    assert rendered(duration=Fraction(1), outputs=(made(), made(every=2))).made == (made(), made(every=2))


def test_unknown_preset_is_refused_and_the_known_are_named():
    with pytest.raises(InvalidSpec, match=r'^preset "quick" is not one of ultrafast, .*, placebo$'):
        EncoderSpec(preset="quick")


@pytest.mark.parametrize(
    ("fps", "asked", "got"),
    [
        (30, 200, 200),
        (30, 0, 34 + ARRIVAL_MS),
        (30, 34 + ARRIVAL_MS, 34 + ARRIVAL_MS),
        (120, 20, 9 + ARRIVAL_MS),
        (1, 200, 1000 + ARRIVAL_MS),
        (1, 10_000, 10_000),
    ],
)
def test_latency_is_at_least_a_slot_and_what_arrival_takes(fps, asked, got):
    mixer = MixerSpec(fps=Fraction(fps))
    assert shown(mixer=mixer, latency_ms=asked).latency == Fraction(got, 1000)
