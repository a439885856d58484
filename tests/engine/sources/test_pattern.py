"""Patterns: the number is read by a test at any size and rate, the picture moves, the tone is one wave."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import SourceUnsupported
from engine.plan import PictureSize
from engine.sources.pattern import KINDS, PatternSource, paint_cells
from engine.spec import AudioFormat
from engine.timebase import first_sample, frame_rate
from tests.media import read_cells


def pattern(url, rate=48_000):
    return PatternSource("bars", url, sound=AudioFormat(rate))


@settings(deadline=None)
@given(st.integers(0, 65535), st.integers(8, 300), st.integers(8, 200))
def test_number_survives_at_every_size(number, width, height):
    plane = np.full((height, width), 99, np.uint8)
    paint_cells(plane, number)
    assert read_cells(plane) == number


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", ["64x36", "640x360", "1280x720", "66x38", "16x16", "360x640"])
def test_every_picture_carries_its_number_and_is_legal(kind, size):
    source = pattern(f"pattern:{kind}?size={size}")
    width, height = (int(each) for each in size.split("x"))
    assert source.picture_size == PictureSize(width, height)
    for n in (0, 1, 59, 70_000):
        frame = source.picture(n)
        assert (frame.width, frame.height) == (width, height)
        assert read_cells(frame.y) == n % 65536
        assert frame.y.min() >= 16
        assert frame.y.max() <= 235


def test_pictures_and_tone_of_a_rate_lie_on_the_grid_of_the_mixer():
    rate = frame_rate("29.97")
    source = pattern("pattern:bars?size=64x36&rate=29.97&tone=1000")
    batch = source.step(pictures=7, sounds=True, start=Fraction(0))
    assert [(start, stop) for start, stop, _ in batch.pictures] == [(n / rate, (n + 1) / rate) for n in range(7)]
    assert [first for first, _ in batch.sounds] == [
        first_sample(n, rate=48_000, fps=rate) for n in range(len(batch.sounds))
    ]
    assert not batch.pictures_end
    assert not batch.sounds_end


def test_tone_is_the_same_wave_however_it_is_sought():
    source = pattern("pattern:bars?size=64x36&tone=441&rate=25", rate=44_100)
    for t in (0, 3, 1):
        source.seek(Fraction(t))
        (first, block), *_ = source.step(pictures=None, sounds=True, start=Fraction(t)).sounds
        assert first == t * 44_100
        wave = 0.25 * np.sin(2 * np.pi * 441 * np.arange(first, first + len(block)) / 44_100)
        assert np.abs(block.samples - wave).max() < 1e-6


def test_step_skips_to_what_is_wanted():
    source = pattern("pattern:count?size=64x36")
    batch = source.step(pictures=2, sounds=None, start=Fraction(5))
    assert [read_cells(frame.y) for _, _, frame in batch.pictures] == [150, 151]
    assert batch.sounds == []


def test_silence_is_silent():
    source = pattern("pattern:black?size=64x36&tone=0")
    batch = source.step(pictures=1, sounds=True, start=Fraction(0))
    assert not any(block.samples.any() for _, block in batch.sounds)


def test_bars_are_seven_colours_and_digits_are_seen():
    frame = pattern("pattern:bars?size=640x360").picture(0)
    column = [(int(frame.y[20, x]), int(frame.u[10, x // 2]), int(frame.v[10, x // 2])) for x in range(70, 630, 91)]
    assert len(set(column)) == 7
    digits = [pattern("pattern:black?size=640x360").picture(n).y[100:300] for n in (0, 8)]
    assert 0 < np.count_nonzero(digits[0] != digits[1]) < 1000


@pytest.mark.parametrize(
    "url",
    [
        "pattern:stripes",
        "pattern:bars?size=0x0",
        "pattern:bars?size=big",
        "pattern:bars?size=99999x99999",
        "pattern:bars?rate=0",
        "pattern:bars?rate=nan",
        "pattern:bars?rate=1e9",
        "pattern:bars?tone=-1",
        "pattern:bars?tone=nan",
        "pattern:bars?hue=inf",
        "pattern:bars?colour=red",
        "pattern:",
    ],
)
def test_what_is_no_pattern_is_refused_with_one_sentence(url):
    with pytest.raises(SourceUnsupported) as caught:
        pattern(url)
    assert str(caught.value).startswith('source "bars": ')
    assert "\n" not in str(caught.value)
