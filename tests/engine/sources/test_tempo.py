"""Sound at another speed: as long as it should be, at the same pitch, beside its picture."""

import math
from fractions import Fraction

import numpy as np
import pytest

from engine.config import Settings
from engine.frame import AudioFrame
from engine.sources import open_source
from engine.sources.avfile import Batch
from engine.sources.pattern import PatternSource
from engine.sources.tempo import Tempo
from engine.spec import AudioFormat

RATE = 48_000
SPEEDS = [0.1, 0.3, 0.5, 0.8, 1.25, 2]


class Tape:
    """Sound by the second, given in blocks of 1000 samples; `holes` are blocks that are not there."""

    guid, endless, picture_size, has_sound = "tape", False, None, True

    def __init__(self, samples, *, holes=(), block=1000):
        self.samples, self.holes, self.block = np.atleast_2d(samples).astype(np.float32), holes, block
        self.n = 0
        self.closed = False

    @property
    def duration(self):
        return Fraction(self.samples.shape[1], RATE)

    def step(self, *, pictures, sounds, start):
        assert pictures is None
        batch = Batch([], [], pictures_end=True)
        for _ in range(48):
            first = self.n * self.block
            if first >= self.samples.shape[1]:
                batch.sounds_end = True
                break
            if self.n not in self.holes:
                part = np.ascontiguousarray(self.samples[:, first : first + self.block])
                batch.sounds.append((first, AudioFrame(part)))
            self.n += 1
        return batch

    def seek(self, t):
        self.n = int(t * RATE) // self.block

    def close(self):
        self.closed = True


def tone(seconds, hz=440):
    return np.sin(2 * np.pi * hz * np.arange(int(seconds * RATE)) / RATE) / 2


def played(source):
    """All of it, as one sound from index 0 on, and which of its samples are there."""
    blocks, batch = [], Batch()
    while not batch.sounds_end:
        batch = source.step(pictures=4, sounds=True, start=Fraction(0))
        blocks += batch.sounds
    length = max(first + len(block) for first, block in blocks)
    out, there = np.zeros((blocks[0][1].channels, length)), np.zeros(length, int)
    for first, block in blocks:
        out[:, first : first + len(block)] = block.samples
        there[first : first + len(block)] += 1
    return out, there


@pytest.mark.parametrize("speed", SPEEDS)
def test_it_is_as_long_as_it_should_be_and_has_the_pitch_it_had(speed):
    out, there = played(Tempo(Tape(tone(3)), speed, rate=RATE))
    assert out.shape[1] == 3 * RATE / speed
    assert (there == 1).all()
    middle = out[0][RATE // 2 : RATE]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    assert spectrum.argmax() * RATE / len(middle) == pytest.approx(440, abs=3)
    assert np.sqrt((middle**2).mean()) == pytest.approx(0.5 / np.sqrt(2), rel=0.05)


@pytest.mark.parametrize("speed", SPEEDS)
def test_it_stays_beside_its_picture(speed):
    """The pitch of a rising tone says which moment of the source is heard."""
    t = np.arange(4 * RATE) / RATE
    out, _ = played(Tempo(Tape(np.sin(2 * np.pi * (300 * t + 135 * t**2)) / 2), speed, rate=RATE))
    span = RATE // 20
    window, late = np.hanning(span), []
    for middle in range(span, out.shape[1] - 2 * span, span):  # the very end holds some of it backwards
        spectrum = np.abs(np.fft.rfft(out[0, middle - span // 2 :][:span] * window, 8 * span))
        moment = (spectrum.argmax() * RATE / (8 * span) - 300) / 270
        late.append(middle * speed / RATE - moment)
    assert abs(np.mean(late)) < 0.005
    assert np.abs(late).max() < 0.04


@pytest.mark.parametrize("speed", [0.1, 0.7, 0.9, 1.3, 1.9, 2])
@pytest.mark.parametrize("length", [10, 30_011, 48_000])
def test_it_ends_where_its_source_does_and_sounds_until_then(speed, length):
    source = Tempo(Tape(np.full(length, 0.5)), speed, rate=RATE)
    for start in (0, length // 2):
        source.seek(Fraction(start, RATE) / Fraction(speed))
        out, there = played(source)
        assert out.shape[1] == math.ceil(length / speed)
        begin = np.flatnonzero(there)[0]
        assert begin <= start / speed
        assert (there[begin:] == 1).all()
        assert np.abs(out[0, begin:] - 0.5).max() < 0.01


def test_a_tone_is_as_loud_at_its_end():
    out, _ = played(Tempo(Tape(tone(1)), 0.7, rate=RATE))
    assert np.sqrt((out[0, -480:] ** 2).mean()) == pytest.approx(0.5 / np.sqrt(2), rel=0.15)


def test_a_hole_stays_where_it_is():
    out, there = played(Tempo(Tape(tone(4), holes=range(48, 96)), 2, rate=RATE))
    assert np.array_equal(np.flatnonzero(there == 0), np.arange(RATE // 2, RATE))
    assert np.abs(out[0, RATE * 6 // 10 : RATE * 9 // 10]).max() == 0
    assert np.abs(out[0, RATE * 11 // 10 : RATE * 12 // 10]).max() > 0.4


def test_a_seek_goes_to_the_time_of_the_result():
    rising = np.linspace(0, 1, 4 * RATE)
    source = Tempo(Tape(rising), 0.5, rate=RATE)
    source.step(pictures=None, sounds=True, start=Fraction(0))
    source.seek(Fraction(4))
    first, block = source.step(pictures=None, sounds=True, start=Fraction(4)).sounds[2]
    assert 4 * RATE <= first < 4.2 * RATE
    n = np.arange(first, first + len(block)) / (8 * RATE)
    assert np.abs(block.samples[0] - n).max() < 0.01


def test_stereo_stays_stereo():
    left, right = tone(1), np.zeros(RATE)
    out, _ = played(Tempo(Tape(np.stack([left, right])), 1.5, rate=RATE))
    assert np.abs(out[0]).max() > 0.4
    assert not out[1].any()


def test_a_source_in_which_the_channels_change():
    class Changing(Tape):
        def step(self, **wishes):
            batch = super().step(**wishes)
            batch.sounds = [
                (first, AudioFrame(np.repeat(block.samples, 2, axis=0)) if first >= RATE else block)
                for first, block in batch.sounds
            ]
            return batch

    source = Tempo(Changing(tone(2)), 2, rate=RATE)
    found = [
        (first, block.channels)
        for _ in range(2)
        for first, block in source.step(pictures=None, sounds=True, start=Fraction(0)).sounds
    ]
    assert [channels for _, channels in found] == sorted(channels for _, channels in found)
    assert abs(next(first for first, channels in found if channels == 2) - RATE // 2) < RATE // 50


def test_what_it_says_of_itself():
    tape = Tape(tone(3))
    source = Tempo(tape, 1.5, rate=RATE)
    assert (source.guid, source.has_sound, source.picture_size, source.duration) == ("tape", True, None, 2)
    assert source.endless is False
    source.close()
    assert tape.closed
    assert Tempo(PatternSource("p", "pattern:bars", sound=AudioFormat()), 2, rate=RATE).duration is None


def test_a_file_is_opened_so(media):
    source = open_source("cam", str(media.path("plain")), sound=AudioFormat(RATE), settings=Settings(), speed=2)
    out, _ = played(source)
    source.close()
    assert abs(out.shape[1] - RATE) < RATE / 10
