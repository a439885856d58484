"""One mix becomes several outputs in one pass: films, sounds, images, numbered images, waves; all of them or none."""

import errno
import os
from contextlib import suppress
from fractions import Fraction

import av
import numpy as np
import outcome
import pytest
import trio

from engine.errors import InvalidSpec, SinkError, SinkRejected, SinkUnavailable
from engine.frame import AudioFrame, VideoFrame, i420_views
from engine.sinks import pictures
from engine.sinks.file import open_sink
from engine.sinks.partial import PartialFolder
from engine.sinks.still import encode_still
from engine.spec import AudioFormat, MixerSpec, OutputSpec, Raster
from engine.timebase import first_sample
from tests.media import numbers, paint_number, plane

MIXER = MixerSpec(raster=Raster(64, 36), fps=Fraction(30), audio=AudioFormat(44_100))


def picture(n):
    buffer = np.full((54, 64), 128, np.uint8)
    planes = i420_views(buffer, 64, 36)
    paint_number(planes[0], n)
    return VideoFrame(*planes, buffer=buffer)


def sound(n, level=0.5):
    first, stop = (first_sample(k, rate=44_100, fps=MIXER.fps) for k in (n, n + 1))
    tone = level * np.sin(2 * np.pi * 441 * np.arange(first, stop) / 44_100)
    return AudioFrame(np.tile(tone.astype(np.float32), (2, 1)))


async def write(*outputs, ticks=30, level=lambda n: 0.5, span=1):
    """The outputs of so many ticks, pictures numbered from 1 on. Raises the sink's error."""
    sink = open_sink(outputs, MIXER, limiter=trio.CapacityLimiter(1))

    async def mix():
        with suppress(SinkError):  # `run` raises it too
            for n in range(0, ticks, span):
                samples = np.concatenate([sound(k, level(k)).samples for k in range(n, n + span)], axis=1)
                await sink.put(n, picture(n + 1), AudioFrame(samples), span)
        sink.end()

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(mix)
            result = await outcome.acapture(sink.run)
    result.unwrap()


def names(folder):
    return sorted(each.name for each in folder.iterdir())


def streams(path):
    with av.open(str(path)) as container:
        return [stream.type for stream in container.streams]


def rgba(path):
    with av.open(str(path)) as container:
        return next(container.decode(video=0)).to_ndarray(format="rgba")


async def test_one_pass_makes_them_all(tmp_path):
    wave = OutputSpec(path=str(tmp_path / "waveform.png"), waveform=("#ff0000", "#00000000"), size=(80, 20))
    await write(
        OutputSpec(path=str(tmp_path / "video.mp4")),
        OutputSpec(path=str(tmp_path / "audio.mp3")),
        OutputSpec(path=str(tmp_path / "image.png")),
        OutputSpec(path=str(tmp_path / "%02d.jpg"), every=3),
        wave,
    )
    sequence = [f"{n:02}.jpg" for n in range(1, 11)]
    assert names(tmp_path) == [*sequence, "audio.mp3", "image.png", "video.mp4", "waveform.png"]
    assert numbers(tmp_path / "video.mp4") == list(range(1, 31))
    assert numbers(tmp_path / "image.png") == [1]
    assert [numbers(tmp_path / name) for name in sequence] == [[n] for n in range(1, 31, 3)]
    with av.open(str(tmp_path / "audio.mp3")) as container:
        assert container.duration / av.time_base == pytest.approx(1, abs=0.08)


@pytest.mark.parametrize(("at", "found"), [(0, 1), (0.5, 16), (0.51, 17), (0.96, 30), (0.99, 30), (9, 30)])
async def test_an_image_of_a_moment(tmp_path, at, found):
    await write(OutputSpec(path=str(tmp_path / "a.png"), at=Fraction(at)))
    assert numbers(tmp_path / "a.png") == [found]


@pytest.mark.parametrize(("path", "size"), [("a.jpg", (33, 19)), ("a.png", (128, 72)), ("%d.jpg", (31, 17))])
async def test_images_of_another_size(tmp_path, path, size):
    await write(OutputSpec(path=str(tmp_path / path), size=size), ticks=1)
    made = tmp_path / path.replace("%d", "1")
    with av.open(str(made)) as container:
        frame = next(container.decode(video=0))
    assert (frame.width, frame.height) == size
    assert numbers(made) == [1]


async def test_a_film_without_sound_or_picture(tmp_path):
    await write(
        OutputSpec(path=str(tmp_path / "mute.mp4"), sound=False),
        OutputSpec(path=str(tmp_path / "a.mp4"), picture=False),
    )
    assert (streams(tmp_path / "mute.mp4"), streams(tmp_path / "a.mp4")) == (["video"], ["audio"])


async def test_several_ticks_with_one_picture_are_as_many_numbered_images(tmp_path):
    await write(OutputSpec(path=str(tmp_path / "%03d.png"), every=2), ticks=12, span=6)
    assert [numbers(tmp_path / f"{n:03}.png") for n in range(1, 7)] == [[1], [1], [1], [7], [7], [7]]


async def test_more_images_than_the_digits_say_have_more_digits(tmp_path):
    await write(OutputSpec(path=str(tmp_path / "%01d.jpg")), ticks=11)
    assert names(tmp_path) == sorted(f"{n}.jpg" for n in range(1, 12))


def test_a_numbered_image_that_cannot_get_its_name_is_told_when_it_is_made(tmp_path):
    (tmp_path / "03.png").mkdir()
    numbered = pictures.Numbered(str(tmp_path / "%02d.png"))
    numbered.write([(n, picture(n), sound(n), 1) for n in range(2)])
    with pytest.raises(SinkRejected, match=r'03\.png": is a directory'):
        numbered.write([(2, picture(2), sound(2), 1)])
    numbered.discard()
    assert names(tmp_path) == ["03.png"]


def test_files_that_cannot_all_get_their_places_leave_none_but_what_replaced_another(tmp_path):
    folder = PartialFolder(str(tmp_path / "%d"))
    for name in "3124":
        folder.write(name, b"new")
    (tmp_path / "2").write_bytes(b"old")
    (tmp_path / "3").mkdir()
    with pytest.raises(SinkRejected, match="directory"):
        folder.keep()
    folder.remove()
    assert names(tmp_path) == ["2", "3"]
    assert (tmp_path / "2").read_bytes() == b"new"


async def test_a_wave_is_where_the_sound_is(tmp_path):
    output = OutputSpec(path=str(tmp_path / "w.png"), waveform=("#102030", "#405060"), size=(60, 40))
    await write(output, level=lambda n: 0.5 if n < 15 else 0)
    image = rgba(tmp_path / "w.png")
    heights = (image[:, :, 0] == 0x10).sum(axis=0)
    assert heights[:30].min() >= 19
    assert heights[:30].max() <= 22
    assert list(heights[31:]) == [1] * 29
    assert (image[0] == (0x40, 0x50, 0x60, 255)).all()


async def test_what_is_behind_a_wave_may_be_seen_through(tmp_path):
    await write(OutputSpec(path=str(tmp_path / "w.png"), waveform=("#ffffff80", "#00000000")), ticks=1)
    assert set(rgba(tmp_path / "w.png")[:, :, 3].ravel()) == {0, 128}


@pytest.mark.parametrize("colour", ["red", "", "#12345"])
def test_a_colour_that_is_none(tmp_path, colour):
    with pytest.raises(SinkRejected, match="is no colour"):
        open_sink(
            [OutputSpec(path=str(tmp_path / "w.png"), waveform=(colour, "#000"))],
            MIXER,
            limiter=trio.CapacityLimiter(1),
        )
    assert names(tmp_path) == []


async def test_what_one_output_cannot_leaves_none_of_them(tmp_path, monkeypatch):
    def fail(*_):
        raise SinkUnavailable(os.strerror(errno.ENOSPC))

    outputs = [OutputSpec(path=str(tmp_path / name)) for name in ("video.mp4", "%d.jpg", "image.png")]
    monkeypatch.setattr(pictures.PartialFolder, "write", fail)
    with pytest.raises(SinkError):
        await write(*outputs, ticks=3)
    with pytest.raises(SinkRejected, match="there is no folder"):
        nowhere = OutputSpec(path=str(tmp_path / "no" / "a.png"))
        open_sink([*outputs, nowhere], MIXER, limiter=trio.CapacityLimiter(1))
    assert names(tmp_path) == []


async def test_what_is_cancelled_leaves_nothing(tmp_path):
    outputs = [OutputSpec(path=str(tmp_path / name)) for name in ("a.mp4", "%d.jpg", "b.png")]
    sink = open_sink(outputs, MIXER, limiter=trio.CapacityLimiter(1))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sink.run)
        for n in range(10):
            await sink.put(n, picture(n), sound(n))
        nursery.cancel_scope.cancel()
    assert names(tmp_path) == []


@pytest.mark.parametrize("field", [{"size": (0, 3)}, {"at": Fraction(-1)}, {"every": 0}])
def test_impossible_outputs(field):
    with pytest.raises(InvalidSpec):
        OutputSpec(path="a.png", **field)


def test_a_png_keeps_what_can_be_seen_through():
    y, u, v = np.full((8, 8), 16, np.uint8), np.full((4, 4), 128, np.uint8), np.full((4, 4), 128, np.uint8)
    a = np.zeros((8, 8), np.uint8)
    a[:, :4] = 255
    for codec, alpha, planes in (("png", True, 4), ("png", False, 3)):
        data = encode_still(VideoFrame(y, u, v, a), codec, (16, 16), alpha=alpha)
        (frame,) = av.CodecContext.create(codec, "r").decode(av.Packet(data))
        assert len(frame.format.components) == planes
        if alpha:
            found = frame.to_ndarray()
            assert (found[8, 2, 3], found[8, 13, 3]) == (255, 0)
    assert plane(frame.reformat(format="gray")).max() <= 1
