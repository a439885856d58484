"""BT.601 in 4:2:0 becomes BT.709 sample by sample: what two matrices make of one colour, at every edge too."""

import av
import numpy as np
import pytest
from av.video.reformatter import ColorRange, Colorspace

from engine.sources.convert import PictureConverter
from engine.sources.matrix import Matrix
from tests.media import matrix_of, plane

CHANGE = matrix_of("bt709") @ np.linalg.inv(matrix_of("bt601"))


def expected(planes, *, full_range):
    """Of every pixel, its chroma the one that covers it."""
    y, u, v = (each.astype(float) for each in planes)
    luma, chroma, black = (255, 255, 0) if full_range else (219, 224, 16)
    values = [(y - black) / luma, *(np.repeat(np.repeat((c - 128) / chroma, 2, 0), 2, 1) for c in (u, v))]
    y, u, v = np.tensordot(CHANGE, np.stack(values), axes=1)
    return 16 + 219 * y, 128 + 224 * u[::2, ::2], 128 + 224 * v[::2, ::2]


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("size", [(64, 36), (720, 576), (2, 2), (34, 6), (366, 206)])
def test_every_sample_is_what_the_formula_says(size, full_range):
    width, height = size
    rng = np.random.default_rng(1)
    frame = av.VideoFrame(width, height, "yuv420p")
    for n in range(3):
        target = plane(frame, n)
        low, high = ((60, 190) if n == 0 else (100, 156)) if full_range else ((70, 180) if n == 0 else (105, 150))
        target[...] = rng.integers(low, high, target.shape)
    color_range = ColorRange.JPEG if full_range else ColorRange.MPEG
    found = Matrix(width, height, color_range=color_range).convert(frame)
    wanted = expected([plane(frame, n) for n in range(3)], full_range=full_range)
    for n in range(3):
        assert np.abs(plane(found, n) - wanted[n]).max() <= 1.5, n


def test_only_what_it_can_do_is_asked_of_it():
    assert Matrix.can(64, 36, Colorspace.ITU601)
    assert Matrix.can(64, 36, Colorspace.SMPTE170M)
    assert not Matrix.can(63, 36, Colorspace.ITU601)
    assert not Matrix.can(64, 35, Colorspace.ITU601)
    assert not Matrix.can(64, 36, Colorspace.ITU709)


def test_sharp_edges_of_colour_stay_where_they_are():
    frame = av.VideoFrame(64, 36, "yuv420p")
    planes = [plane(frame, n) for n in range(3)]
    planes[0][...] = 100
    planes[1][...] = np.where(np.arange(32) % 8 < 4, 60, 190)
    planes[2][...] = np.where(np.arange(32) % 8 < 4, 200, 70)
    picture = PictureConverter().convert(frame)
    for each in (picture.u, picture.v):
        assert len(np.unique(each)) == 2
        assert (np.diff(each[0].astype(int)) != 0).sum() == 7
