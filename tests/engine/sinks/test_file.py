"""Every kind of file plays back as it was mixed; whole or not at all, whatever happens while it is written."""

import errno
import os
import re
import resource
import wave
from contextlib import suppress
from fractions import Fraction

import av
import numpy as np
import outcome
import pytest
import trio

from engine.errors import SinkError, SinkRejected, SinkUnavailable
from engine.frame import AudioFrame, VideoFrame, i420_views
from engine.sinks import file as sinks
from engine.sinks import pictures
from engine.sinks.encode import Encoding
from engine.sinks.file import FORMATS, NULL, QUEUE, check_output, open_sink
from engine.spec import AudioFormat, EncoderSpec, MixerSpec, OutputSpec, Raster
from engine.timebase import first_sample
from tests.media import numbers, paint_number, plane, read_number

NTSC = Fraction(30_000, 1001)
SMALL = MixerSpec(raster=Raster(64, 36))
FILMS = [suffix for suffix, encoding in FORMATS.items() if encoding.video]
SOUNDS = [suffix for suffix, encoding in FORMATS.items() if not encoding.video]


def picture(n, width=64, height=36):
    buffer = np.full((height * 3 // 2, width), 128, np.uint8)
    planes = i420_views(buffer, width, height)
    paint_number(planes[0], n)
    return VideoFrame(*planes, buffer=buffer)


def sound(n, mixer):
    """Tick n of a 500 Hz tone."""
    first, stop = (first_sample(k, rate=mixer.audio.rate, fps=mixer.fps) for k in (n, n + 1))
    tone = 0.5 * np.sin(2 * np.pi * 500 * np.arange(first, stop) / mixer.audio.rate)
    return AudioFrame(np.tile(tone.astype(np.float32), (mixer.audio.channels, 1)))


def opened(path, mixer=SMALL, **spec):
    output = OutputSpec(path=str(path), encoder=EncoderSpec(**spec))
    return open_sink([output], mixer, limiter=trio.CapacityLimiter(1))


async def write(path, ticks=30, mixer=SMALL, **spec):
    """A file of so many ticks, pictures numbered from 1 on. Raises the sink's error."""
    sink = opened(path, mixer, **spec)

    async def mix():
        with suppress(SinkError):  # `run` raises it too
            for n in range(ticks):
                await sink.put(n, picture(n + 1, mixer.raster.width, mixer.raster.height), sound(n, mixer))
        sink.end()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(mix)
        result = await outcome.acapture(sink.run)
    result.unwrap()
    return path


def names(folder):
    return [each.name for each in folder.iterdir()]


def decoded_sound(path):
    """(C, N) float32 and the rate."""
    with av.open(str(path)) as container:
        layout = container.streams.audio[0].layout.name
        resampler = av.AudioResampler("fltp", layout, container.streams.audio[0].rate)
        frames = [each for frame in container.decode(audio=0) for each in resampler.resample(frame)]
    return np.concatenate([frame.to_ndarray() for frame in frames], axis=1), frames[0].sample_rate


# --- every format plays back ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fps", [Fraction(30), NTSC, Fraction(25), Fraction(60)], ids=str)
@pytest.mark.parametrize("suffix", FILMS)
async def test_a_film_has_every_picture_at_its_time(tmp_path, suffix, fps):
    mixer = MixerSpec(raster=Raster(64, 36), fps=fps)
    path = await write(tmp_path / f"film{suffix}", 40, mixer, preset="ultrafast")
    assert numbers(path) == list(range(1, 41))
    grid = Fraction(1, 1000) if suffix in (".mkv", ".webm") else Fraction(0)  # Matroska counts milliseconds
    with av.open(str(path)) as film:
        for n, frame in enumerate(film.decode(video=0)):
            assert abs(frame.pts * frame.time_base - n / fps) <= grid / 2
        assert abs(Fraction(film.duration, av.time_base) - 40 / fps) <= Fraction(1024 + 480, 48_000)
        assert film.streams.video[0].average_rate == pytest.approx(fps, rel=0.001)


@pytest.mark.parametrize("suffix", [each for each in FILMS if each != ".webm"])
async def test_the_sound_of_a_film_lies_under_its_picture_to_the_sample(tmp_path, suffix):
    path = await write(tmp_path / f"film{suffix}", 60)
    samples, rate = decoded_sound(path)
    assert rate == 48_000
    tone = 0.5 * np.sin(2 * np.pi * 500 * np.arange(96_000) / 48_000)
    with av.open(str(path)) as film:
        first = next(film.decode(audio=0))
        offset = round(first.pts * first.time_base * 48_000)
    assert abs(offset) <= 48 if suffix == ".mkv" else offset == 0
    middle = samples[0, 10_000 - offset : 80_000 - offset]
    assert np.abs(middle - tone[10_000:80_000]).max() < 0.02


@pytest.mark.parametrize("suffix", FILMS)
async def test_colours_are_tagged_bt709_limited(tmp_path, suffix):
    path = await write(tmp_path / f"film{suffix}", 2)
    with av.open(str(path)) as film:
        context = film.streams.video[0].codec_context
        tags = [context.colorspace, context.color_primaries, context.color_trc, context.color_range]
        assert [int(tag) for tag in tags] == [1, 1, 1, 1]
        assert context.pix_fmt == "yuv420p"


@pytest.mark.parametrize("suffix", [".mp4", ".m4v", ".mov", ".m4a"])
async def test_a_player_finds_the_index_before_the_media(tmp_path, suffix):
    data = (await write(tmp_path / f"film{suffix}")).read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")


@pytest.mark.parametrize("suffix", SOUNDS)
@pytest.mark.parametrize(("rate", "channels"), [(48_000, 2), (44_100, 1)])
async def test_sound_alone(tmp_path, suffix, rate, channels):
    mixer = MixerSpec(raster=Raster(64, 36), audio=AudioFormat(rate, channels))
    samples, told = decoded_sound(await write(tmp_path / f"sound{suffix}", 60, mixer))
    assert told == rate
    assert samples.shape[0] == channels
    padding = {".wav": 0, ".m4a": 1024, ".mp3": 2304}[suffix]
    assert 0 <= samples.shape[1] - 2 * rate <= padding
    middle = samples[0, rate // 2 : 3 * rate // 2]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    assert np.argmax(spectrum) == 500
    level = 0.95 if suffix == ".mp3" else 1  # LAME lowers what it encodes by that
    assert np.sqrt(np.mean(middle**2)) == pytest.approx(level * 0.5 / 2**0.5, rel=0.01)


async def test_the_last_samples_of_a_wav_are_there(tmp_path):
    mixer = MixerSpec(raster=Raster(64, 36), fps=NTSC, audio=AudioFormat(48_000, 2))
    samples, _ = decoded_sound(await write(tmp_path / "sound.wav", 31, mixer))
    expected = np.concatenate([sound(n, mixer).samples for n in range(31)], axis=1)
    assert samples.shape == expected.shape
    assert np.abs(samples - expected).max() <= 1 / 32768


async def test_a_wav_has_room_for_sizes_of_64_bits_and_is_a_plain_one_as_long_as_it_needs_none(tmp_path):
    path = await write(tmp_path / "sound.wav", 30, SMALL)
    data = path.read_bytes()
    size = len(data) - 8
    room = b"JUNK" + (28).to_bytes(4, "little") + bytes(28)  # becomes "ds64" in a file of more than 4 GiB
    assert data.startswith(b"RIFF" + size.to_bytes(4, "little") + b"WAVE" + room + b"fmt ")
    with wave.open(str(path)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getnframes()) == (48_000, 2, 48_000)


@pytest.mark.parametrize("size", [(64, 36), (62, 38), (2, 2)], ids=str)
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".jpeg"])
async def test_a_still_is_the_first_picture(tmp_path, suffix, size):
    mixer = MixerSpec(raster=Raster(*size))
    path = await write(tmp_path / f"still{suffix}", 3, mixer)
    with av.open(str(path)) as container:
        (frame,) = container.decode(video=0)
    assert (frame.width, frame.height) == size
    if size != (2, 2):
        assert read_number(plane(frame.reformat(format="gray"))) == 1


@pytest.mark.parametrize("size", [(2, 2), (6, 270), (1920, 2), (318, 182)], ids=str)
@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
async def test_any_even_size(tmp_path, suffix, size):
    path = await write(tmp_path / f"film{suffix}", 2, MixerSpec(raster=Raster(*size)), preset="ultrafast")
    with av.open(str(path)) as film:
        assert [(frame.width, frame.height) for frame in film.decode(video=0)] == [size] * 2


async def test_null_takes_everything_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    await write(NULL)
    assert names(tmp_path) == []


# --- whole or not at all ----------------------------------------------------------------------------------------------


async def test_until_it_is_whole_it_has_another_name(tmp_path):
    path = tmp_path / "film.mp4"
    path.write_bytes(b"the old film")
    sink = opened(path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sink.run)
        await sink.put(0, picture(1), sound(0, SMALL))
        (hidden,) = (each for each in tmp_path.iterdir() if each != path)
        assert hidden.name.startswith(".mashtun-")
        assert hidden.suffix == ".part"
        assert path.read_bytes() == b"the old film"
        sink.end()
    assert list(tmp_path.iterdir()) == [path]
    assert numbers(path) == [1]


async def test_two_into_one_name_do_not_meet(tmp_path):
    path = tmp_path / "film.mp4"
    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(write, path, 20)
    assert list(tmp_path.iterdir()) == [path]
    assert numbers(path) == list(range(1, 21))


async def test_a_name_may_be_as_long_as_a_name_can_be(tmp_path):
    path = await write(tmp_path / f"{'x' * 251}.mp4", 1)
    assert path.exists()


async def test_a_file_has_the_usual_permissions(tmp_path):
    old = os.umask(0o027)
    try:
        path = await write(tmp_path / "film.mkv", 1)
    finally:
        os.umask(old)
    assert path.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("suffix", [*FORMATS, ".png", ".jpg"])
async def test_what_is_cancelled_leaves_nothing(tmp_path, suffix):
    sink = opened(tmp_path / f"film{suffix}")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sink.run)
        for n in range(20):
            await sink.put(n, picture(n), sound(n, SMALL))
        nursery.cancel_scope.cancel()
    assert list(tmp_path.iterdir()) == []


async def test_what_is_cancelled_while_it_is_finished_leaves_nothing(tmp_path):
    sink = opened(tmp_path / "film.mp4")
    finish = sink._writing.finish
    async with trio.open_nursery() as nursery:

        def finish_cancelled():
            finish()
            trio.from_thread.run_sync(nursery.cancel_scope.cancel)

        sink._writing.finish = finish_cancelled
        nursery.start_soon(sink.run)
        await sink.put(0, picture(1), sound(0, SMALL))
        sink.end()
    assert list(tmp_path.iterdir()) == []


class Breaking:
    """A writer that fails at the n-th tick, or when it finishes."""

    def __init__(self, at=None):
        self.at, self.discarded = at, 0

    def write(self, items):
        if any(n == self.at for n, *_ in items):
            raise SinkUnavailable("full")

    def finish(self):
        raise SinkRejected("cannot be finished")

    def keep(self):
        raise AssertionError

    def discard(self):
        self.discarded += 1


@pytest.mark.parametrize("at", [0, 2, None])
async def test_an_error_of_the_writer_comes_out_and_nothing_is_kept(at):
    writing = Breaking(at)
    sink = sinks.FileSink(writing, limiter=trio.CapacityLimiter(1))

    async def mix():
        for n in range(3):
            await sink.put(n, picture(n), sound(n, SMALL))
        sink.end()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(mix)
        with pytest.raises(SinkRejected if at is None else SinkUnavailable):
            await sink.run()
    assert writing.discarded == 1


async def test_whoever_mixes_after_the_error_is_told():
    sink = sinks.FileSink(Breaking(0), limiter=trio.CapacityLimiter(1))

    async def mix():
        with pytest.raises(SinkUnavailable, match="full"):
            for n in range(100):
                await sink.put(n, picture(n), sound(n, SMALL))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(mix)
        with pytest.raises(SinkUnavailable, match="full"):
            await sink.run()


async def test_whoever_mixes_waits_while_the_queue_is_full():
    writing = Breaking()
    writing.finish = writing.keep = lambda: None
    sink = sinks.FileSink(writing, limiter=trio.CapacityLimiter(1))
    taken = []

    async def mix():
        for n in range(3 * QUEUE):
            await sink.put(n, picture(n), sound(n, SMALL))
            taken.append(n)
        sink.end()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(mix)
        await trio.testing.wait_all_tasks_blocked()
        assert len(taken) == QUEUE
        nursery.start_soon(sink.run)
    assert len(taken) == 3 * QUEUE


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "mixer", "spec", "sentence"),
    [
        ("a.avi", {}, {}, 'extension ".avi" is not one of .mp4'),
        ("a", {}, {}, 'extension "" is not one of'),
        ("a%01000d.png", {}, {}, "a number of more than 999 digits"),
        ("a.webm", {"audio": AudioFormat(44_100)}, {}, "libopus has no rate of 44100 Hz"),
        ("a.mp4", {"audio": AudioFormat(12_345)}, {}, "aac has no rate of 12345 Hz"),
        ("a.mp3", {"audio": AudioFormat(96_000)}, {}, "libmp3lame has no rate of 96000 Hz"),
        ("a.mp4", {"fps": Fraction(2_997_000_001, 10**8)}, {}, "has too many digits"),
        ("a.mkv", {}, {"quality": 0, "profile": "high"}, "quality 0 is lossless, which profile high is not"),
    ],
)
def test_what_a_format_cannot_do(name, mixer, spec, sentence):
    with pytest.raises(SinkRejected, match=f'output "{name}": ') as caught:
        check_output(OutputSpec(path=name, encoder=EncoderSpec(**spec)), MixerSpec(**mixer))
    assert sentence in str(caught.value)
    assert caught.value.where == name


@pytest.mark.parametrize("digits", ["0999999999999", "9" * 5000])
def test_digits_without_end_are_refused_in_a_sentence_that_has_one(digits):
    with pytest.raises(SinkRejected, match="a number of more than 999 digits") as caught:
        check_output(OutputSpec(path=f"a%{digits}d.png"), MixerSpec())
    assert len(str(caught.value)) < 300


def test_what_is_left_out_of_a_film_may_be_what_its_format_cannot_do():
    check_output(OutputSpec(path="a.webm", sound=False), MixerSpec(audio=AudioFormat(44_100)))
    lossless = EncoderSpec(quality=0, profile="high")
    check_output(OutputSpec(path="a.mp4", encoder=lossless, picture=False), MixerSpec())


@pytest.mark.parametrize("name", ["film.mp4", "still.png"])
@pytest.mark.parametrize("folder", ["nosuch", "file", "\0"])
def test_where_there_is_no_folder(tmp_path, folder, name):
    (tmp_path / "file").touch()
    with pytest.raises(SinkRejected, match='": there is no folder "'):
        opened(tmp_path / folder / name)
    assert names(tmp_path) == ["file"]


def test_a_folder_is_no_file(tmp_path):
    (tmp_path / "film.mp4").mkdir()
    with pytest.raises(SinkRejected, match="is a directory"):
        opened(tmp_path / "film.mp4")
    assert names(tmp_path) == ["film.mp4"]


@pytest.mark.parametrize("is_link", [False, True])
def test_a_pipe_is_not_replaced(tmp_path, is_link):
    path = tmp_path / "film.mp4"
    os.mkfifo(tmp_path / "pipe.mp4" if is_link else path)
    if is_link:
        path.symlink_to("pipe.mp4")
    with pytest.raises(SinkRejected, match=re.escape(f'output "{path}": is not a file')):
        opened(path)
    assert path.is_fifo()
    assert len(names(tmp_path)) == 1 + is_link


def test_a_link_that_leads_to_itself(tmp_path):
    (tmp_path / "film.mp4").symlink_to("film.mp4")
    with pytest.raises(SinkRejected, match="too many levels of symbolic links"):
        opened(tmp_path / "film.mp4")
    assert names(tmp_path) == ["film.mp4"]


@pytest.mark.parametrize("exists", [False, True])
@pytest.mark.parametrize("name", ["film.mp4", "still.png"])
async def test_a_link_stays_and_what_it_leads_to_is_written(tmp_path, name, exists):
    target, path = tmp_path / "elsewhere" / name, tmp_path / name
    target.parent.mkdir()
    if exists:
        target.write_bytes(b"old")
    path.symlink_to(f"elsewhere/{name}")
    await write(path)
    assert path.is_symlink()
    assert numbers(target)[0] == 1
    assert names(target.parent) == [name]


@pytest.mark.parametrize("mode", [0o600, 0o444, 0o664])
async def test_a_file_that_is_replaced_hands_its_mode_on(tmp_path, mode):
    path = tmp_path / "film.mp4"
    path.write_bytes(b"old")
    path.chmod(mode)
    await write(path)
    assert path.stat().st_mode & 0o777 == mode
    assert len(numbers(path)) == 30


@pytest.mark.parametrize("part", ["muxer", "video", "audio"])
def test_a_build_of_libav_without_a_codec(tmp_path, monkeypatch, part):
    parts = {"muxer": "matroska", "video": "libx264", "audio": "aac"} | {part: "nosuch"}
    monkeypatch.setattr(sinks, "FORMATS", {".mkv": Encoding(**parts)})
    with pytest.raises(SinkRejected, match="nosuch"):
        opened(tmp_path / "film.mkv")
    assert names(tmp_path) == []


@pytest.mark.parametrize(("number", "sentence"), [(errno.ENOSPC, "no space left"), (errno.EIO, "input/output error")])
@pytest.mark.parametrize("name", ["still.png", "film.mkv"])
async def test_what_the_system_says_while_it_is_written(tmp_path, monkeypatch, name, number, sentence):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(pictures, "encode_still", fail)
    monkeypatch.setattr(sinks.Encoder, "encode", fail)
    with pytest.raises(SinkError) as caught:
        await write(tmp_path / name, 1)
    assert sentence in str(caught.value)
    assert names(tmp_path) == []


@pytest.fixture
def disk():
    """A function that limits the size of every file this process writes: to the writer, a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda limit: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("limit", [0, 300, 4096, -10])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".wav", ".png"])
async def test_a_disk_that_is_full_sooner_or_later(tmp_path, disk, suffix, limit):
    """At the first byte, in the middle, or when all but the last ten bytes have found room."""
    path = tmp_path / f"film{suffix}"
    size = (await write(path, 40, preset="ultrafast")).stat().st_size
    path.unlink()
    disk(limit % size)
    with pytest.raises(SinkError) as caught:
        await write(path, 40, preset="ultrafast")
    disk(resource.RLIM_INFINITY)
    assert str(caught.value).endswith('": file too large')
    assert names(tmp_path) == []
