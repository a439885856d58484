"""Converters: every matrix, range and format becomes BT.709 limited; native pictures are not copied; sound is whole."""

import gc
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest

from engine.config import Settings
from engine.packet import UPRIGHT, Orientation
from engine.plan import PictureSize
from engine.sources.avfile import MediaFile
from engine.sources.convert import (
    PictureConverter,
    SoundConverter,
    displayed_size,
    orientation_of,
    silence,
)
from engine.spec import MAX_SIDE, AudioFormat
from tests.media import COLOUR, Media, Video, colour_yuv, encode, number_part, plane, read_number

WANTED = colour_yuv(COLOUR, "bt709")
MATRIX_CODES = {"bt601": 6, "bt709": 1}


def coloured(pix_fmt, matrix, full_range, size=(64, 36)):
    """A decoded frame of COLOUR in any planar YUV format."""
    frame = av.VideoFrame(*size, pix_fmt)
    for index, level in enumerate([*colour_yuv(COLOUR, matrix, full_range), 255][: len(frame.format.components)]):
        bits = frame.format.components[index].bits
        plane(frame, index)[...] = round(level * (1 << bits - 8)) if index < 3 else (1 << bits) - 1
    frame.colorspace = MATRIX_CODES[matrix]
    frame.color_range = 2 if full_range else 1
    return frame


def levels(picture, rows=slice(None)):
    return tuple(float(each[rows].mean()) for each in (picture.y, picture.u, picture.v))


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("matrix", ["bt601", "bt709"])
@pytest.mark.parametrize(
    "pix_fmt",
    ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le", "yuv444p12le", "yuva420p", "yuva444p10le"],
)
def test_a_colour_is_the_same_in_every_matrix_range_and_format(pix_fmt, matrix, full_range):
    picture = PictureConverter().convert(coloured(pix_fmt, matrix, full_range))
    assert levels(picture) == pytest.approx(WANTED, abs=1.5)
    assert (picture.a is not None) == pix_fmt.startswith("yuva")
    if picture.a is not None:
        assert picture.a.min() == 255


@pytest.mark.parametrize("pix_fmt", ["rgb24", "bgra", "gbrp", "rgb48le", "rgba64le", "gbrp10le", "gbrap"])
def test_rgb_becomes_the_same_colour(pix_fmt):
    rgb = np.empty((36, 64, 3), np.uint8)
    rgb[:] = COLOUR
    frame = av.VideoFrame.from_ndarray(rgb, "rgb24").reformat(format=pix_fmt)
    picture = PictureConverter().convert(frame)
    assert levels(picture) == pytest.approx(WANTED, abs=1.5)
    assert (picture.a is None) == (pix_fmt in ("rgb24", "gbrp", "rgb48le", "gbrp10le"))


@pytest.mark.parametrize("name", ["bt601", "bt709", "full_range"])
def test_colours_of_files_are_right(media, name):
    picture = first_picture(media.path(name))
    assert levels(picture, slice(-10, -4) if picture.y.shape[0] == 36 else slice(None))[0] == pytest.approx(
        WANTED[0], abs=2
    )
    assert levels(picture, slice(-4, -1))[1:] == pytest.approx(WANTED[1:], abs=2)
    assert read_number(number_part(picture.y)) == 0


@pytest.mark.parametrize("size", [(64, 36), (65, 37)])
@pytest.mark.parametrize("pix_fmt", ["monob", "monow"])
def test_black_and_white_of_one_bit_are_the_range_of_luma(pix_fmt, size):
    frame = av.VideoFrame(*size, pix_fmt)
    bits = np.zeros((size[1], frame.planes[0].line_size), np.uint8)
    bits[:, 4:] = 255
    frame.planes[0].update((bits if pix_fmt == "monob" else ~bits).tobytes())
    picture = PictureConverter().convert(frame)
    assert (picture.width, picture.height) == size
    assert (set(picture.y[:, :32].flat), set(picture.y[:, 32:].flat)) == ({16}, {235})
    assert {*picture.u.flat, *picture.v.flat} == {128}


def test_mjpeg_is_full_range_and_bt601(tmp_path):
    video = Video("mjpeg", pix_fmt="yuvj420p", matrix="bt601", full_range=True, size=(128, 96))
    picture = first_picture(encode(tmp_path / "a.avi", video, None))
    assert levels(picture, slice(-10, -2)) == pytest.approx(WANTED, abs=2)


def test_tags_of_the_container_count_where_the_frames_have_none(tmp_path):
    video = Video("prores_ks", pix_fmt="yuv422p10le", matrix="bt709", size=(128, 96))
    picture = first_picture(encode(tmp_path / "a.mov", video, None))
    assert levels(picture, slice(-10, -2)) == pytest.approx(WANTED, abs=2)


@pytest.mark.parametrize(("size", "matrix"), [((1280, 720), "bt709"), ((720, 576), "bt601"), ((640, 640), "bt709")])
def test_untagged_picture_is_bt709_from_hd_on(size, matrix):
    frame = coloured("yuv420p", matrix, False, size)
    frame.colorspace = 2
    assert levels(PictureConverter().convert(frame)) == pytest.approx(WANTED, abs=1.5)


def first_picture(path):
    source = MediaFile("cam", str(path), sound=AudioFormat(), settings=Settings())
    (_, _, picture), *_ = source.step(pictures=1, sounds=None, start=Fraction(0)).pictures
    source.close()
    return picture


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuva420p"])
def test_native_picture_is_seen_in_place_and_read_only(pix_fmt):
    frame = coloured(pix_fmt, "bt709", False)
    picture = PictureConverter().convert(frame)
    for index, view in enumerate(picture.planes):
        assert np.shares_memory(view, np.frombuffer(frame.planes[index], np.uint8))
        assert not view.flags.writeable
    del frame
    assert levels(picture) == pytest.approx(WANTED, abs=1)  # the view keeps the decoder's memory alive


def test_picture_of_odd_size_keeps_its_last_row_and_column():
    frame = coloured("yuv420p", "bt709", False, (65, 37))
    picture = PictureConverter().convert(frame)
    assert (picture.width, picture.height) == (65, 37)
    assert picture.u.shape == picture.v.shape == (19, 33)
    assert np.shares_memory(picture.y, np.frombuffer(frame.planes[0], np.uint8))
    assert levels(PictureConverter().convert(coloured("yuv444p", "bt601", True, (65, 37)))) == pytest.approx(
        WANTED, abs=1.5
    )


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (2, 2), (3, 5)])
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv444p", "yuva420p"])
def test_smallest_pictures_are_converted(size, pix_fmt):
    picture = PictureConverter().convert(coloured(pix_fmt, "bt601", False, size))
    assert (picture.width, picture.height) == size
    assert picture.u.shape == ((size[1] + 1) // 2, (size[0] + 1) // 2)
    assert levels(picture) == pytest.approx(WANTED, abs=2)


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("size", [(64, 36), (65, 37)])
def test_rotated_picture_stands_upright(tmp_path, rotation, size):
    video = Video("libx264", pix_fmt="yuv444p", size=size, rotation=rotation)
    picture = first_picture(encode(tmp_path / "a.mp4", replace(video, gop=1), None))
    assert (picture.width, picture.height) == size
    assert picture.u.shape == ((size[1] + 1) // 2, (size[0] + 1) // 2)
    assert read_number(picture.y) == 0
    source = MediaFile("cam", str(tmp_path / "a.mp4"), sound=AudioFormat(), settings=Settings())
    numbers = [read_number(frame.y) for _, _, frame in source.step(pictures=9, sounds=None, start=Fraction(0)).pictures]
    assert source.picture_size == PictureSize(*size, opaque=True)
    source.close()
    assert numbers[:9] == list(range(9))


class Turned:
    """A frame as far as orientation_of looks at it."""

    def __init__(self, *matrix, known=True):
        self._matrix, self._known, self.rotation = np.array(matrix, np.int32), known, 90

    @property
    def side_data(self):
        if not self._known:
            raise ValueError("31 is not a valid Type")
        return {"DISPLAYMATRIX": self._matrix} if len(self._matrix) else {}


ONE = 1 << 16


@pytest.mark.parametrize(
    ("matrix", "orientation"),
    [
        ((), UPRIGHT),
        ((ONE, 0, 0, 0, ONE, 0, 0, 0, 1 << 30), UPRIGHT),
        ((-ONE, 0, 0, 0, ONE, 0, 0, 0, 1 << 30), Orientation(flip_x=True)),
        ((ONE, 0, 0, 0, -ONE, 0, 0, 0, 1 << 30), Orientation(flip_y=True)),
        ((-ONE, 0, 0, 0, -ONE, 0, 0, 0, 1 << 30), Orientation(flip_x=True, flip_y=True)),
        ((0, ONE, 0, -ONE, 0, 0, 0, 0, 1 << 30), Orientation(transposed=True, flip_x=True)),
        ((0, -ONE, 0, ONE, 0, 0, 0, 0, 1 << 30), Orientation(transposed=True, flip_y=True)),
        ((0, ONE, 0, ONE, 0, 0, 0, 0, 1 << 30), Orientation(transposed=True)),
    ],
)
def test_display_matrix_says_how_a_picture_stands(matrix, orientation):
    assert orientation_of(Turned(*matrix)) == orientation


def test_rotation_counts_where_side_data_cannot_be_read():
    assert orientation_of(Turned(known=False)) == Orientation(transposed=True, flip_y=True)


@pytest.mark.parametrize("turn", [Orientation(t, x, y) for t in (0, 1) for x in (0, 1) for y in (0, 1)])
def test_turned_picture_is_the_same_with_and_without_conversion(turn):
    native, other = (av.VideoFrame(16, 8, pix_fmt) for pix_fmt in ("yuv420p", "yuv420p10le"))
    for index in range(3):
        ramp = np.arange(plane(native, index).size).reshape(plane(native, index).shape) % 200 + 16
        plane(native, index)[...] = ramp
        plane(other, index)[...] = ramp * 4
    for frame in (native, other):
        frame.colorspace = frame.color_range = 1
    a, b = (PictureConverter().convert(frame, turn) for frame in (native, other))
    expected = plane(native).T if turn.transposed else plane(native)
    expected = np.fliplr(expected) if turn.flip_x else expected
    assert np.array_equal(a.y, np.flipud(expected) if turn.flip_y else expected)
    assert all(np.abs(x.astype(int) - y).max() <= 1 for x, y in zip(a.planes, b.planes, strict=True))


@pytest.mark.parametrize(
    ("aspect", "size"),
    [("1", (64, 36)), ("4/3", (85, 36)), ("1/2", (32, 36)), ("12/11", (70, 36)), ("1000", (64, 36)), ("0", (64, 36))],
)
def test_pixels_become_square_within_reason(aspect, size):
    assert displayed_size(64, 36, Fraction(aspect)) == size
    picture = PictureConverter(Fraction(aspect)).convert(coloured("yuv420p", "bt709", False))
    assert (picture.width, picture.height) == size
    assert levels(picture) == pytest.approx(WANTED, abs=1.5)


def test_pixels_that_would_make_too_long_a_side_are_square():
    assert displayed_size(MAX_SIDE // 16, 36, Fraction(16)) == (MAX_SIDE, 36)
    assert displayed_size(MAX_SIDE // 16 + 1, 36, Fraction(16)) == (MAX_SIDE // 16 + 1, 36)
    assert displayed_size(0, 0, Fraction(1)) == (0, 0)


def test_anamorphic_file_is_as_wide_as_shown(tmp_path):
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 36, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(2)
        frame = coloured("yuv420p", "bt709", False)
        out.mux([*stream.encode(frame), *stream.encode(None)])
    assert first_picture(path).y.shape == (36, 128)


def block(first, count, *, rate, layout="stereo", fmt="fltp", hz=440):
    channels = av.AudioLayout(layout).nb_channels
    wave = 0.5 * np.sin(2 * np.pi * hz * np.arange(first, first + count) / rate)
    samples = np.tile(wave, (channels, 1))
    samples = np.round(samples * 32767).astype(np.int16) if fmt[0] == "s" else samples.astype(np.float32)
    if not fmt.endswith("p"):
        samples = samples.T.reshape(1, -1)
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), fmt, layout)
    frame.rate, frame.pts, frame.time_base = rate, first, Fraction(1, rate)
    return frame


@pytest.mark.parametrize("fmt", ["fltp", "flt", "s16", "s16p"])
@pytest.mark.parametrize("layout", ["mono", "stereo"])
def test_sound_at_the_mixers_rate_is_sample_exact(fmt, layout):
    (sound,) = SoundConverter(AudioFormat(48_000)).convert(block(7, 1000, rate=48_000, layout=layout, fmt=fmt))
    wave = 0.5 * np.sin(2 * np.pi * 440 * np.arange(7, 1007) / 48_000)
    assert sound.samples.shape == (1 if layout == "mono" else 2, 1000)
    assert sound.samples.dtype == np.float32
    assert sound.samples.flags.c_contiguous
    assert not sound.samples.flags.writeable
    assert np.abs(sound.samples - wave).max() < 1e-4


@pytest.mark.parametrize("rate", [8_000, 22_050, 32_000, 44_100, 96_000])
def test_resampled_sound_lies_in_place_and_none_is_lost(rate):
    converter = SoundConverter(AudioFormat(48_000))
    sounds = [each for n in range(10) for each in converter.convert(block(n * 1000, 1000, rate=rate))]
    sounds += converter.convert(None)
    tone = np.concatenate([sound.samples for sound in sounds], axis=1)[0]
    assert abs(len(tone) - 10_000 * 48_000 / rate) <= 2
    wave = 0.5 * np.sin(2 * np.pi * 440 * np.arange(len(tone)) / 48_000)
    assert np.abs(tone - wave)[500:-500].max() < 0.01


@pytest.mark.parametrize("rate", [44_100, 48_000])
@pytest.mark.parametrize("layouts", [("mono", "stereo"), ("stereo", "mono"), ("5.1", "stereo"), ("stereo", "5.1")])
def test_layout_that_changes_in_mid_stream_makes_no_click(layouts, rate):
    converter = SoundConverter(AudioFormat(48_000))
    sounds = []
    for n in range(20):
        frame = block(n * 1000, 1000, rate=rate, layout=layouts[n >= 10])
        if frame.layout.nb_channels == 6:  # only front left and right: the level of the mix stays
            for each in frame.planes[2:]:
                np.frombuffer(each, np.float32)[:] = 0
        sounds += converter.convert(frame)
    sounds += converter.convert(None)
    tone = np.concatenate([sound.samples[0] for sound in sounds])
    assert abs(len(tone) - 20_000 * 48_000 / rate) <= 2
    step = np.abs(np.diff(tone))
    assert step[200:-200].max() <= 7 * step.mean()
    level = np.abs(tone[200:-200])
    assert level.max() < 0.53


def test_no_picture_waits_for_the_garbage_collection(media: Media) -> None:
    """A reference cycle through a decoder's frame would keep 3 MB a picture until some later collection."""
    converter = PictureConverter()

    def count() -> int:
        return sum(isinstance(each, av.VideoFrame) for each in gc.get_objects())

    gc.collect()
    gc.disable()
    before = count()  # tests may have left some to their fixtures
    try:
        with av.open(str(media.path("plain"))) as container:
            for frame in container.decode(video=0):
                converter.convert(frame)
        del frame
        assert count() <= before + 1  # the first, whose matrix was read
    finally:
        gc.enable()


@pytest.mark.parametrize("fmt", ["u8", "u8p", "s16", "fltp"])
@pytest.mark.parametrize("layout", ["mono", "5.1", "6 channels", "7.1", "12 channels"])
def test_silence_goes_through_the_resampler_of_the_sound_it_is_made_for(fmt, layout):
    like = av.AudioFrame(fmt, layout, 7)
    like.sample_rate = 44_100
    made = silence(like, 147)
    assert (made.format.name, made.layout.name, made.sample_rate) == (fmt, like.layout.name, 44_100)
    converter = SoundConverter(AudioFormat(48_000))
    blocks = converter.convert(made) + converter.convert(None)
    assert abs(sum(len(block) for block in blocks) - 160) <= 1
    assert not any(block.samples.any() for block in blocks)
