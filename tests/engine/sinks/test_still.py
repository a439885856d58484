"""A picture as an image has the colours it was mixed with, whatever its size and wherever its planes are."""

import os
import subprocess
import sys

import av
import numpy as np
import pytest

from engine.frame import VideoFrame, i420_views
from engine.sinks.still import encode_still
from engine.sources.pattern import paint_cells
from tests.media import plane, read_cells

RED = (63, 102, 240)  # BT.709, limited range
RED_OF_JPEG = (76, 85, 255)  # BT.601, full range: JFIF knows no other


def coloured(width, height, colour=RED):
    buffer = np.empty((height * 3 // 2, width), np.uint8)
    planes = i420_views(buffer, width, height)
    for each, value in zip(planes, colour, strict=True):
        each[:] = value
    return VideoFrame(*planes, buffer=buffer)


def apart(width, height, alpha=False):
    """A numbered picture whose planes are windows of larger ones, as a decoder's."""
    y = np.full((height + 3, width + 7), 16, np.uint8)[:height, :width]
    paint_cells(y, 0xA5C3)
    u, v = (np.full((height, width), 128, np.uint8)[: (height + 1) // 2, : (width + 1) // 2] for _ in range(2))
    return VideoFrame(y, u, v, np.zeros((height, width), np.uint8) if alpha else None)


def opened(data, codec):
    (frame,) = av.CodecContext.create(codec, "r").decode(av.Packet(data))
    return frame


def test_the_colours_of_a_png_are_those_of_bt709():
    frame = opened(encode_still(coloured(64, 36)), "png")
    assert np.abs(frame.to_ndarray(format="rgb24")[18, 32].astype(int) - (255, 0, 0)).max() <= 2


def test_the_colours_of_a_jpeg_are_those_that_every_viewer_takes_it_for():
    frame = opened(encode_still(coloured(64, 36), "mjpeg"), "mjpeg")
    found = [int(plane(frame, n)[9, 16]) for n in range(3)]
    assert np.abs(np.subtract(found, RED_OF_JPEG)).max() <= 2


@pytest.mark.parametrize("level", [16, 126, 235])
def test_grey_is_of_full_range(level):
    frame = opened(encode_still(coloured(64, 36, (level, 128, 128)), "mjpeg"), "mjpeg")
    assert int(plane(frame)[18, 32]) == pytest.approx((level - 16) * 255 / 219, abs=2)


ALONE = """
import os, resource, sys
import numpy as np
from engine.frame import VideoFrame
from engine.sinks.still import encode_still
picture = VideoFrame(*(np.zeros(size, np.uint8) for size in ((360, 640), (180, 320), (180, 320))))
if not os.getuid():
    os.setuid(54321)  # the limit is not for root, and counts what else a user runs
resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
assert encode_still(picture, sys.argv[1])
"""


@pytest.mark.parametrize("codec", ["png", "mjpeg"])
def test_a_picture_needs_no_thread_where_none_is_to_be_had(codec):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", ALONE, codec], env=environment, check=True, timeout=60)


@pytest.mark.parametrize("codec", ["png", "mjpeg"])
@pytest.mark.parametrize("size", [(64, 36), (65, 37), (320, 181), (1919, 1079)], ids=str)
@pytest.mark.parametrize("alpha", [False, True])
def test_any_picture(codec, size, alpha):
    frame = opened(encode_still(apart(*size, alpha=alpha), codec), codec)
    assert (frame.width, frame.height) == size
    assert read_cells(plane(frame.reformat(format="gray"))) == 0xA5C3


@pytest.mark.parametrize("width", [*range(16, 33, 2), 64])
def test_a_png_with_alpha_has_its_colours_up_to_the_edge(width):
    red = coloured(width, 36)
    picture = VideoFrame(red.y, red.u, red.v, np.full((36, width), 200, np.uint8))
    found = opened(encode_still(picture, alpha=True), "png").to_ndarray(format="rgba")
    assert np.abs(found.astype(int) - (255, 0, 0, 200)).max() <= 2


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 1), (1, 5)], ids=str)
@pytest.mark.parametrize("codec", ["png", "mjpeg"])
def test_the_smallest(codec, size):
    frame = opened(encode_still(apart(*size), codec), codec)
    assert (frame.width, frame.height) == size
