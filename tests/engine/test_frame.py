"""Frames: shapes everybody relies on, read-only, alive as long as one view is."""

import numpy as np
import pytest

from engine.frame import AudioFrame, VideoFrame, black, flat, i420_views


def test_planes_of_a_contiguous_buffer_are_views_that_do_not_overlap():
    buffer = np.zeros((6, 8), np.uint8)
    y, u, v = i420_views(buffer, 8, 4)
    assert (y.shape, u.shape, v.shape) == ((4, 8), (2, 4), (2, 4))
    y[:], u[:], v[:] = 1, 2, 3
    assert buffer.reshape(-1).tolist() == [1] * 32 + [2] * 8 + [3] * 8


def test_video_frame_is_read_only_and_knows_its_size():
    y, u, v, a = np.zeros((3, 5), np.uint8), *np.zeros((2, 2, 3), np.uint8), np.zeros((3, 5), np.uint8)
    frame = VideoFrame(y, u, v, a)
    assert (frame.width, frame.height) == (5, 3)
    assert len(frame.planes) == 4
    assert len(VideoFrame(y, u, v).planes) == 3
    for plane in frame.planes:
        with pytest.raises(ValueError, match="read-only"):
            plane[0, 0] = 1


def test_audio_frame_is_read_only_and_as_long_as_its_samples():
    frame = AudioFrame(np.zeros((2, 7), np.float32))
    assert (frame.channels, len(frame)) == (2, 7)
    with pytest.raises(ValueError, match="read-only"):
        frame.samples[0, 0] = 1


def test_black_is_video_black_in_one_piece():
    frame = black(8, 4)
    assert set(frame.y.flat) == {16}
    assert set(frame.u.flat) == set(frame.v.flat) == {128}
    assert frame.buffer.shape == (6, 8)
    assert np.shares_memory(frame.buffer, frame.v)


def test_a_flat_picture_of_any_sides_takes_a_row_of_each_plane():
    a = np.zeros((3, 5), np.uint8)
    frame = flat((1, 2, 3), 5, 3, a)
    assert [plane.tolist() for plane in frame.planes[:3]] == [[[1] * 5] * 3, [[2] * 3] * 2, [[3] * 3] * 2]
    assert frame.a is a
    assert {plane.strides for plane in frame.planes[:3]} == {(0, 1)}
