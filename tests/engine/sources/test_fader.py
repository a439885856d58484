"""Fader: sound comes out as it went in, but for its edges; holes have none."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.frame import AudioFrame
from engine.sources.fader import Fader

RATE = 48_000
OUT = 240  # samples of a fade


def tone(start, count):
    """Samples [start, start + count) of one that never ends, in two channels."""
    i = np.arange(start, start + count)
    return AudioFrame(np.stack([np.full(count, 0.5), 0.5 * np.cos(2 * np.pi * 300 * i / RATE)]).astype(np.float32))


def taken(fader, start, stop, tick):
    """(2, stop - start) of what is taken tick by tick."""
    out = np.zeros((2, stop - start), np.float32)
    for at in range(start, stop, tick):
        for block, skip, count, offset in fader.take(at, min(at + tick, stop)):
            first = at - start + offset
            out[:, first : first + count] += block.samples[:, skip : skip + count]
    return out


def test_sound_is_given_on_as_it_is():
    fader, block = Fader(RATE), tone(0, 9600)
    fader.push(0, block)
    taken(fader, 0, 1600, 1600)
    (piece,) = fader.take(1600, 3200)
    assert piece.block is block
    assert (piece.skip, piece.count, piece.offset) == (1600, 1600, 0)


@pytest.mark.parametrize("tick", [400, 1600, 1601])
def test_it_fades_in_over_20_ms_and_out_over_5(tick):
    fader = Fader(RATE)
    fader.push(1000, tone(1000, 5000))
    out = taken(fader, 0, 8000, tick)[0]
    assert not out[:1000].any()
    assert np.allclose(out[1000:1960], 0.5 * np.arange(1, 961) / 960)
    assert np.allclose(out[1960:5700], 0.5)
    assert (np.diff(out[5700:6000]) <= 0).all()
    assert not out[6000:].any()


def test_sound_that_stops_at_the_end_of_a_tick_is_faded_before():
    fader = Fader(RATE)
    fader.push(0, tone(0, 4800))
    out = taken(fader, 0, 6400, 1600)[0]
    assert out[4799] == 0
    assert out[4700] == pytest.approx(0.5 * 99 / 240)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3000), st.integers(1, 5000)), min_size=1, max_size=8),
    st.integers(100, 2000),
)
def test_no_holes_and_blocks_make_a_click(blocks, tick):
    fader, at = Fader(RATE), 0
    for hole, count in blocks:
        fader.push(at + hole, tone(at + hole, count))
        at += hole + count
    out = taken(fader, 0, at + 1000, tick)
    steepest = 0.5 * 2 * np.pi * 300 / RATE + 0.5 / OUT  # of the tone, and of a fade
    assert np.abs(np.diff(out, axis=1)).max() <= 1.01 * steepest
    assert np.abs(out).max() <= 0.5


def test_sound_that_goes_on_after_all_rises_again():
    fader = Fader(RATE)
    fader.push(0, tone(0, 3250))
    first = taken(fader, 0, 3200, 1600)[0]
    assert first[-1] == pytest.approx(0.5 * 50 / 240)
    fader.push(3250, tone(3250, 9600))
    second = taken(fader, 3200, 6400, 1600)[0]
    assert second[0] == pytest.approx(first[-1] + 0.5 / 960)
    assert np.allclose(second[960:], 0.5)


def test_sound_that_goes_back_far_takes_the_place_of_what_there_is():
    fader = Fader(RATE)
    fader.push(0, tone(0, 2 * RATE))
    other = AudioFrame(np.full((2, RATE), 0.25, np.float32))
    fader.push(RATE, other)
    sound = taken(fader, 0, 2 * RATE, 480)[0]
    assert np.abs(sound[RATE + RATE // 10 : -RATE // 10] - 0.25).max() < 1e-6
    assert np.abs(np.diff(sound)).max() < 0.1


def test_after_a_clear_everything_begins_anew():
    fader = Fader(RATE)
    fader.push(0, tone(0, 48_000))
    taken(fader, 0, 1600, 1600)
    fader.clear()
    fader.push(20_000, tone(20_000, 9600))
    out = taken(fader, 19_200, 22_400, 1600)[0]
    assert not out[:800].any()
    assert np.allclose(out[800:1760], 0.5 * np.arange(1, 961) / 960)
