"""The sound kernel equals its oracle to the bit, and its door refuses what the room could not survive."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine_ext.mix import Block, mix, use_simd
from tests import reference

SPECIAL = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 1e-45, -1e-40, 3e38, -3e38], np.float32)
UNITY = ((1.0,), (1.0,))


def sound(*values, channels=1):
    return np.tile(np.array(values, np.float32), (channels, 1))


def mixed(n, *blocks, channels=1):
    """The kernel's output for an array that held garbage, and its count of clipped samples."""
    out = np.full((channels, n), np.nan, np.float32)
    clipped = mix(out, [Block(*block) for block in blocks])
    return out, clipped


@st.composite
def scenes(draw):
    """(output shape, blocks): samples of every kind of float, cut out of larger arrays with odd channel strides."""
    outputs, n = draw(st.integers(1, 2)), draw(st.integers(0, 70))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    gain = st.sampled_from((0.0, -0.0, 1.0, 0.5)) | st.floats(-4, 4, width=32)
    gain |= st.floats(width=32, allow_nan=False, allow_infinity=False)
    blocks = []
    for _ in range(draw(st.integers(0, 6))):
        inputs, length = draw(st.integers(1, 2)), draw(st.integers(0, n))
        store = rng.uniform(-1, 1, (4, length + 3)).astype(np.float32)
        strange = rng.random(store.shape) < draw(st.sampled_from((0.0, 0.1, 1.0)))
        store[strange] = rng.choice(SPECIAL, np.count_nonzero(strange))
        store.flags.writeable = draw(st.booleans())
        channels = slice(3, None if inputs == 2 else 2, -2) if draw(st.booleans()) else slice(0, inputs)
        samples = store[channels, 2 : 2 + length]
        kind = draw(st.sampled_from(("float", "planar", "interleaved")))
        if kind != "float":
            store = rng.integers(-32768, 32768, (4, length + 3), np.int16)
            samples = store[channels, 2 : 2 + length]
        if kind == "interleaved":
            samples = np.ascontiguousarray(store[:2, 2 : 2 + length].T).T[:inputs]
        matrix = st.tuples(*[gain] * (inputs * outputs))
        blocks.append(
            (
                samples,
                draw(st.integers(0, n - length)),
                draw(st.tuples(matrix, matrix)),
                draw(st.integers(0, 2 * n)),
            )
        )
    return (outputs, n), blocks


@pytest.fixture(autouse=True, scope="module")
def rows_as_at_import():
    yield
    use_simd(True)


@settings(max_examples=150, deadline=None)
@given(scenes(), st.booleans())
def test_mix_equals_its_oracle_to_the_bit(scene, simd):
    use_simd(simd)
    (outputs, n), blocks = scene
    want, want_clipped = reference.mix((outputs, n), blocks)
    got, clipped = mixed(n, *blocks, channels=outputs)
    np.testing.assert_array_equal(got.view(np.uint32), want.view(np.uint32))
    assert clipped == want_clipped


@pytest.mark.parametrize("simd", [True, False])
@pytest.mark.parametrize("kind", ["float", "planar", "interleaved"])
def test_long_ramp_equals_its_oracle_to_the_bit(simd, kind):
    use_simd(simd)
    samples = np.random.default_rng(5).uniform(-1, 1, (2, 48_001)).astype(np.float32)
    if kind != "float":
        samples = (samples * 32767).astype(np.int16)
    if kind == "interleaved":
        samples = np.ascontiguousarray(samples.T).T
    block = (samples, 0, ((0.1, 0.7, 0.0, 0.0), (0.9, 0.0, 0.3, 0.0)), 47_777)
    want, want_clipped = reference.mix(samples.shape, [block])
    got, clipped = mixed(48_001, block, channels=2)
    np.testing.assert_array_equal(got.view(np.uint32), want.view(np.uint32))
    assert clipped == want_clipped


def test_no_blocks_make_silence():
    out, clipped = mixed(5, channels=2)
    assert out.tolist() == [[0.0] * 5] * 2
    assert clipped == 0


def test_two_halves_make_one():
    tone = sound(*np.sin(np.arange(20)))
    whole, _ = mixed(20, (tone, 0, UNITY))
    halves, _ = mixed(20, (tone[:, :9], 0, UNITY), (tone[:, 9:], 9, UNITY))
    assert halves.tolist() == whole.tolist() == tone.tolist()


def test_block_lands_on_its_offset_with_silence_around():
    out, _ = mixed(5, (sound(0.5, 0.25), 2, UNITY))
    assert out.tolist() == [[0, 0, 0.5, 0.25, 0]]


def test_matrix_rows_are_outputs():
    stereo = np.array([[0.5], [0.25]], np.float32)
    matrix = (1.0, 2.0, 0.0, -1.0)
    assert mixed(1, (stereo, 0, (matrix, matrix)), channels=2)[0].tolist() == [[1.0], [-0.25]]
    assert mixed(1, (stereo, 0, ((1, 1), (1, 1))))[0].tolist() == [[0.75]]
    assert mixed(1, (sound(0.5), 0, ((1, 0.5), (1, 0.5))), channels=2)[0].tolist() == [[0.5], [0.25]]


def test_full_scale_of_16_bits_is_one():
    samples = np.array([[-32768, 16384, 32767]], np.int16)
    assert mixed(3, (samples, 0, UNITY))[0].tolist() == [[-1.0, 0.5, 32767 / 32768]]


def test_ramp_starts_at_from_and_reaches_to_exactly():
    out, _ = mixed(6, (sound(*[1.0] * 6), 0, ((0.0,), (0.7,)), 4))
    assert out[0, 0] == 0.0
    assert out[0, :5] == pytest.approx([0, 0.175, 0.35, 0.525, 0.7])
    assert out[0, 4] == out[0, 5] == np.float32(0.7)


def test_ramp_longer_than_its_block_stops_on_the_way():
    out, _ = mixed(2, (sound(1.0, 1.0), 0, ((0.0,), (1.0,)), 4))
    assert out.tolist() == [[0.0, 0.25]]


def test_without_ramp_only_the_end_gain_is_heard():
    out, _ = mixed(2, (sound(1.0, 1.0), 0, ((9.0,), (0.5,)), 0))
    assert out.tolist() == [[0.5, 0.5]]


def test_ramp_split_over_two_blocks_equals_one_within_rounding():
    ones = sound(*[1.0] * 1600)
    whole, _ = mixed(1600, (ones, 0, ((0.2,), (0.9,)), 1600))
    middle = 0.2 + (0.9 - 0.2) * 700 / 1600
    parts, _ = mixed(1600, (ones[:, :700], 0, ((0.2,), (middle,)), 700), (ones[:, 700:], 700, ((middle,), (0.9,)), 900))
    # each ramp rounds its ends, its step and its products to float32: a few 2^-24, -134 dB
    np.testing.assert_allclose(parts, whole, rtol=0, atol=2e-7)


def test_not_a_number_and_infinity_become_silence():
    out, clipped = mixed(4, (sound(np.nan, np.inf, -np.inf, 0.5), 0, UNITY))
    assert out.tolist() == [[0, 0, 0, 0.5]]
    assert clipped == 0


def test_sum_is_clipped_once_at_the_end():
    loud, other = sound(0.8, 0.8), sound(-0.8, 0.8)
    out, clipped = mixed(2, (loud, 0, UNITY), (loud, 0, UNITY), (other, 0, UNITY))
    assert out[0].tolist() == pytest.approx([0.8, 1.0])
    assert clipped == 1


def test_clipped_samples_are_counted_in_both_channels():
    out, clipped = mixed(3, (sound(1.0, 1.1, -7.0, channels=2), 0, ((1, 0, 0, 1), (1, 0, 0, 1))), channels=2)
    assert out.tolist() == [[1, 1, -1]] * 2
    assert clipped == 4


def test_sum_that_overflows_both_ways_is_silent_and_counted():
    huge = sound(3e38)
    out, clipped = mixed(1, (huge, 0, ((9.0,), (9.0,))), (huge, 0, ((-9.0,), (-9.0,))))
    assert out.tolist() == [[0.0]]
    assert clipped == 1


def test_output_channels_may_be_parts_of_a_larger_array():
    store = np.full((4, 9), 7, np.float32)
    mix(store[::-2, 1:4], [Block(sound(0.5, 0.5, 0.5), 0, ((1, 0.5), (1, 0.5)))])
    assert store[3, 1:4].tolist() == [0.5] * 3
    assert store[1, 1:4].tolist() == [0.25] * 3
    assert np.count_nonzero(store == 7) == 30


def test_thousands_of_blocks_are_all_heard():
    out, _ = mixed(1, *[(sound(2.0**-14), 0, UNITY)] * 2**14)
    assert out.tolist() == [[1.0]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros((3, 4), np.float32), 0, UNITY), "3 channels"),
        ((np.zeros((0, 4), np.float32), 0, UNITY), "0 channels"),
        ((np.zeros((1, 8), np.float32)[:, ::2], 0, UNITY), "8 bytes apart"),
        ((np.zeros((1, 12), np.int16)[:, ::3], 0, UNITY), "6 bytes apart"),
        ((np.zeros((1, 4), np.float64), 0, UNITY), "dtype"),
        ((np.zeros((1, 4), np.uint16), 0, UNITY), "dtype"),
        ((np.zeros(4, np.float32), 0, UNITY), "dimensions"),
        ((sound(1.0), -1, UNITY), "offset -1"),
        ((sound(1.0), 0, UNITY, -2), "ramp -2"),
        ((sound(1.0), 0, ((1.0,), (1.0, 1.0))), "from 1 to 2 numbers"),
        ((sound(1.0, channels=2), 0, UNITY), "channels want 2 or 4"),
        ((sound(1.0), 0, ((), ())), "channels want 1 or 2"),
        ((sound(1.0), 0, ((np.nan,), (1.0,))), "goes from nan to 1.0"),
        ((sound(1.0), 0, ((1.0,), (np.inf,))), "to inf"),
        ((sound(1.0), 0, ((1.0,), (1e39,))), "1e\\+39: not finite in float32"),
    ],
)
def test_block_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        Block(*arguments)


def test_mix_refuses_what_does_not_fit():
    block = Block(sound(1.0, 1.0), 3, UNITY)
    as_strided = np.lib.stride_tricks.as_strided
    for out, blocks, message in (
        (np.zeros((1, 4), np.float32), [block], r"block 0 covers \[3, 5\) of 4 samples"),
        (np.zeros((1, 1), np.float32), [block], r"block 0 covers \[3, 5\) of 1 samples"),
        (np.zeros((2, 9), np.float32), [block], "gains for 1 outputs, out has 2"),
        (np.zeros((3, 9), np.float32), [], "3 channels"),
        (np.zeros((1, 18), np.float32)[:, ::2], [], "8 bytes apart"),
        (as_strided(np.zeros(12, np.float32), (2, 9), (8, 4)), [], "overlap"),
        (as_strided(np.zeros(1, np.float32), (1, 2**24 + 1), (0, 0)), [], "more than 16777216"),
    ):
        with pytest.raises(ValueError, match=message):
            mix(out, blocks)


def test_mix_refuses_read_only_output_and_strangers():
    with pytest.raises(ValueError, match="read-only"):
        mix(np.frombuffer(bytes(16), np.float32).reshape(1, 4), [])
    for stranger in (None, "block"):
        with pytest.raises(TypeError):
            mix(np.zeros((1, 4), np.float32), [stranger])


def test_mix_refuses_a_block_in_its_own_output():
    store = np.zeros((2, 8), np.float32)
    with pytest.raises(ValueError, match="block 1 shares memory"):
        mix(store[:1, :4], [Block(store[1:, :4], 0, UNITY), Block(store[:1, 3:5], 0, UNITY)])
    with pytest.raises(ValueError, match="block 1 shares memory"):
        mix(store[:1, :4], [Block(store.view(np.int16)[:1, at : at + 4], 0, UNITY) for at in (8, 7)])
