"""Reader: the right frame and the right samples at every time, by as little decoding as that takes."""

from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
import trio

from engine.config import Settings
from engine.errors import SourceMalformed, SourceUnavailable
from engine.frame import AudioFrame
from engine.sources.avfile import Batch, MediaFile
from engine.sources.pattern import PatternSource
from engine.sources.reader import Reader
from engine.spec import AudioFormat
from engine.timebase import first_sample, frame_rate
from tests.media import VFR_MS, Audio, Video, encode, read_cells, read_number

RATE = 48_000


class Counted:
    """A source whose calls are counted, and which says whether it was closed."""

    def __init__(self, steps):
        self._steps = steps
        self.calls = Counter()
        self.kinds = []

    def __getattr__(self, name):
        return getattr(self._steps, name)

    def step(self, **wishes):
        self.calls["step"] += 1
        batch = self._steps.step(**wishes)
        self.calls["pictures"] += len(batch.pictures)
        self.calls["sounds"] += len(batch.sounds)
        return batch

    def seek(self, t):
        self.calls["seek"] += 1
        self._steps.seek(t)

    def close(self):
        self.calls["close"] += 1
        self._steps.close()


def opened(path):
    return Counted(MediaFile("cam", str(path), sound=AudioFormat(RATE), settings=Settings()))


class Consumer:
    """A mixer as far as a reader sees it: one tick after the other."""

    def __init__(self, steps, *, fps=Fraction(30), ahead=6):
        self.steps = steps
        self.fps = fps
        self.reader = Reader(steps, rate=RATE, ahead=ahead, limiter=trio.CapacityLimiter(1), tick=1 / fps)

    async def picture(self, t, *, listening=None, hold=False):
        """The frame at t, or None; listening: the sample range to settle besides."""
        tolerance = 1 / self.fps / 4
        first, stop = listening or (None, None)
        self.reader.attend(picture=t, sound=first, hold=hold)
        await self.reader.settle(picture=t + tolerance, sound=stop)
        return self.reader.pick(t, tolerance).frame

    async def number(self, t, **options):
        frame = await self.picture(Fraction(t), **options)
        return None if frame is None else read_number(frame.y)

    async def sound(self, first, stop):
        self.reader.attend(picture=None, sound=first)
        await self.reader.settle(picture=None, sound=stop)
        return self.taken(first, stop)

    def taken(self, first, stop):
        out = np.zeros(stop - first, np.float32)
        for piece in self.reader.take(first, stop):
            samples = piece.block.samples[0, piece.skip : piece.skip + piece.count]
            out[piece.offset : piece.offset + piece.count] = samples
        return out


async def during(steps, test, **options):
    async with trio.open_nursery() as nursery:
        consumer = Consumer(steps, **options)
        nursery.start_soon(consumer.reader.run)
        with trio.fail_after(30):
            result = await test(consumer)
        nursery.cancel_scope.cancel()
    return result


FILES = {"fps25": 25, "fps2997": frame_rate("29.97"), "plain": 30, "fps60": 60}


@pytest.mark.parametrize("ahead", [2, 6])
@pytest.mark.parametrize("fps", ["24", "25", "29.97", "30", "60"])
@pytest.mark.parametrize("name", FILES)
async def test_every_conversion_of_rates_is_exact_to_the_frame(media, name, fps, ahead):
    fps, rate = frame_rate(fps), Fraction(FILES[name])
    total = 60 if name == "plain" else 60 if name == "fps60" else round(rate)
    steps = opened(media.path(name))

    async def run(consumer):
        found, n = [], 0
        while (number := await consumer.number(n / fps)) is not None:
            found.append(number)
            n += 1
        return found

    found = await during(steps, run, fps=fps, ahead=ahead)
    slack = 1 / fps / 4
    stamp = Fraction(1, 12_800)  # an MP4's stamps are rounded to its time scale
    for n, number in enumerate(found):
        t = n / fps + slack
        assert number in {min(total - 1, int((t - stamp) * rate)), min(total - 1, int((t + stamp) * rate))}, n
    assert abs(len(found) - total / rate * fps) <= 1
    assert steps.calls["seek"] == 0
    assert steps.calls["pictures"] == total  # one pass


async def test_irregular_times_are_shown_at_theirs(media):
    async def run(consumer):
        return [await consumer.number(Fraction(n, 100)) for n in range(100)]

    found = await during(opened(media.path("vfr")), run, fps=Fraction(1000))
    assert found == [sum(ms <= 10 * n for ms in VFR_MS) - 1 for n in range(100)]


async def test_any_jump_gives_the_frame_of_sequential_reading(media):
    rng = np.random.default_rng(3)
    for name in ("plain", "transport"):
        steps = opened(media.path(name))

        async def sequential(consumer):
            return [await consumer.number(Fraction(n, 30)) for n in range(60)]

        expected = await during(steps, sequential)

        async def jumping(consumer, expected=expected):
            for n in (int(n) for n in rng.integers(0, 60, 25)):
                assert await consumer.number(Fraction(n, 30)) == expected[n], n

        await during(opened(media.path(name)), jumping)


async def test_sequential_reading_and_small_steps_ahead_do_not_seek(media):
    steps = opened(media.path("plain"))

    async def run(consumer):
        for n in (0, 1, 1, 2, 10, 40, 59):
            assert await consumer.number(Fraction(n, 30)) == n

    await during(steps, run)
    assert steps.calls["seek"] == 0
    assert steps.calls["close"] == 1


async def test_a_step_back_seeks_once_and_a_far_jump_does_not_decode_between(tmp_path):
    steps = opened(encode(tmp_path / "a.mp4", Video(bframes=2), None, seconds=20))

    async def run(consumer):
        assert await consumer.number(1) == 30
        assert await consumer.number(Fraction(1, 2)) == 15
        assert steps.calls["seek"] == 2
        assert await consumer.number(18) == 540
        assert steps.calls["seek"] == 3

    await during(steps, run)
    assert steps.calls["pictures"] < 80


async def test_a_step_back_within_what_waits_does_not_seek(media):
    steps = opened(media.path("plain"))

    async def run(consumer):
        assert await consumer.number(Fraction(10, 30) + Fraction(1, 50)) == 10
        assert await consumer.number(Fraction(10, 30) + Fraction(1, 100)) == 10

    await during(steps, run)
    assert steps.calls["seek"] == 1  # to the first one


async def test_beyond_the_end_there_is_nothing_and_before_it_there_is_again(media):
    async def run(consumer):
        assert await consumer.number(Fraction(59, 30)) == 59
        assert await consumer.number(2) is None
        assert consumer.reader.over(Fraction(2), picture=True, beside=True)
        assert await consumer.number(100) is None
        assert await consumer.number(Fraction(3, 30)) == 3
        assert not consumer.reader.over(Fraction(3, 30), picture=True, beside=True)

    await during(opened(media.path("video_only")), lambda consumer: nothing_beyond(consumer, 30))
    await during(opened(media.path("plain")), run)


async def nothing_beyond(consumer, total):
    assert await consumer.number(Fraction(50)) is None
    assert await consumer.number(Fraction(total - 1, 30)) == total - 1


@pytest.fixture(scope="module")
def sixty(tmp_path_factory):
    """Two seconds of 60 pictures each."""
    return encode(tmp_path_factory.mktemp("sixty") / "a.mp4", Video(rate=Fraction(60), gop=30), None, seconds=2)


@pytest.mark.parametrize("ahead", [2, 5])
@pytest.mark.parametrize("passing", [Fraction(1, 2), 1, 2, Fraction(5, 2), 3, 4, 6, 12])
@pytest.mark.parametrize("speed", [1, 2])
async def test_who_does_not_wait_sees_the_picture_of_now_however_many_pass_in_a_tick(sixty, speed, passing, ahead):
    steps = opened(sixty)
    step, ticks = Fraction(passing) / 60, int(118 / passing)
    most = 0

    async def run(consumer):
        nonlocal most
        found = []
        for n in range(ticks):
            consumer.reader.attend(picture=n * step, sound=None)
            if n == 0:
                await consumer.reader.idle()  # what comes on the air is decoded before
            found.append(read_number(consumer.reader.pick(n * step, step / 4).frame.y))
            await consumer.reader.idle()
            most = max(most, len(consumer.reader._frames))
        return found

    found = await during(steps, run, fps=speed / step, ahead=ahead)  # of media time nobody knows how fast it goes yet
    assert found == [int((n + Fraction(1, 4)) * passing) for n in range(ticks)]
    assert steps.calls["seek"] == 0
    assert most <= max(ahead + passing / 4, 2 * passing) + 3  # as many wait at first as pass at twice the speed
    assert steps.calls["pictures"] <= (ahead + 5) * (ticks + 1) + passing  # the others are not converted


async def shown_at(numbers, steps, *, fps=60, **options):
    """The newest picture within a quarter of a tick at each time, when as much is decoded ahead as may be."""

    async def run(consumer):
        for number in numbers:
            assert await consumer.number(Fraction(number, 60)) == number + 60 // fps // 4
            await consumer.reader.idle()

    await during(steps, run, fps=Fraction(fps), **options)


LAGS = [0, 2, 10, 12, 20, 28, 30, 38, 46, 48, 54, 60, 62, 64, 90, 116]


@pytest.mark.parametrize("ahead", [2, 5])
@pytest.mark.parametrize(
    ("fps", "numbers"),
    [(60, [0, 12, 24, 24, 24, 36, 60, 72, 96, 108]), (30, LAGS), (30, [0, 8, *LAGS[2:]]), (5, range(0, 60, 3))],
    ids=["more than a tick", "lags", "lags at first", "slow motion"],
)
async def test_ticks_that_lag_are_of_slow_motion_or_ask_for_the_same_again_do_not_seek(sixty, fps, numbers, ahead):
    steps = opened(sixty)
    await shown_at(numbers, steps, fps=fps, ahead=ahead)
    assert steps.calls["seek"] == 0


async def test_any_pace_gives_the_frame_of_sequential_reading(sixty):
    paces = [12, 12, 1, 1, 0, 7, 7, 0, 3, 3, 9, 9, 2, 12, 5, 5]
    for ahead in (2, 5):
        await shown_at([sum(paces[:n]) for n in range(len(paces))], opened(sixty), ahead=ahead)


async def test_who_does_not_listen_has_no_sound_decoded_and_the_other_way_round(media):
    steps = opened(media.path("plain"))

    async def look(consumer):
        for n in range(60):
            await consumer.number(Fraction(n, 30))

    await during(steps, look)
    assert steps.calls["sounds"] == 0
    steps = opened(media.path("plain"))

    async def listen(consumer):
        return np.concatenate([await consumer.sound(n * 1600, (n + 1) * 1600) for n in range(60)])

    tone = await during(steps, listen)
    assert steps.calls["pictures"] == 0
    assert abs(np.abs(tone[4800:-4800]).max() - 0.5) < 0.03
    assert steps.calls["seek"] == 0


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
async def test_resuming_after_looking_away_goes_on_in_place_and_the_sound_is_seamless(tmp_path, suffix):
    path = encode(tmp_path / f"a.{suffix}", Video(bframes=2), Audio(), seconds=4)
    steps = opened(path)
    source = MediaFile("cam", str(path), sound=AudioFormat(RATE), settings=Settings())
    blocks = []
    while not (batch := source.step(pictures=None, sounds=True, start=Fraction(0))).sounds_end:
        blocks += batch.sounds
    source.close()
    expected = np.zeros(5 * RATE, np.float32)
    for first, block in blocks:
        expected[max(first, 0) : first + len(block)] = block.samples[0, max(0, -first) :]

    async def run(consumer):
        numbers, tone = [], []
        for n in range(100):
            first, stop = n * 1600, (n + 1) * 1600
            if 20 <= n < 80:
                tone.append(await consumer.sound(first, stop))
            else:
                numbers.append(await consumer.number(Fraction(n, 30), listening=(first, stop)))
                tone.append(consumer.taken(first, stop))
        return numbers, np.concatenate(tone)

    numbers, tone = await during(steps, run)
    shift = 1 if suffix == "ts" else 0  # its picture is delayed by the priming of AAC
    assert numbers == [max(0, n - shift) for n in [*range(20), *range(80, 100)]]
    assert steps.calls["seek"] == 1
    assert np.abs(tone - expected[: len(tone)]).max() < 0.02


async def test_sound_follows_jumps_to_the_sample(tmp_path):
    steps = opened(encode(tmp_path / "a.mkv", None, Audio("flac"), seconds=6))

    async def run(consumer):
        for first in (0, 4 * RATE + 17, RATE + 5, RATE + 1605, 3 * RATE, 100):
            tone = await consumer.sound(first, first + 1600)
            wave = 0.5 * np.sin(2 * np.pi * 440 * np.arange(first, first + 1600) / RATE)
            assert np.abs(tone - wave).max() < 1e-3, first

    await during(steps, run)


async def test_memory_is_bounded_while_the_other_kind_is_far_ahead(tmp_path):
    steps = opened(encode(tmp_path / "a.mkv", Video(size=(32, 18)), Audio("flac"), seconds=10))
    most = 0

    async def run(consumer):
        nonlocal most
        for n in range(300):
            await consumer.number(Fraction(n, 30), listening=(n * 1600, (n + 1) * 1600))
            consumer.taken(n * 1600, (n + 1) * 1600)
            most = max(most, len(consumer.reader._frames), sum(map(len, steps._waiting.values())))

    await during(steps, run)
    assert steps.calls["seek"] == 0
    assert most < 60


class Script:
    """A source that gives prepared batches."""

    guid = "cam"
    picture_size = (2, 2, True)
    has_sound = True
    duration = None
    endless = False

    def __init__(self, *batches):
        self._batches = list(batches)

    def step(self, **_):
        given = self._batches.pop(0)
        if isinstance(given, Exception):
            raise given
        return given

    def seek(self, t):
        raise SourceUnavailable('source "cam": gone', where="cam")

    def close(self):
        pass


def pictures(*numbers):
    return [(Fraction(n, 30), Fraction(n + 1, 30), n) for n in numbers]


BROKEN = SourceMalformed('source "cam": breaks off at 0.100 s', where="cam")


async def test_good_frames_are_shown_before_the_error_of_a_broken_source():
    script = Script(Batch(pictures(0, 1), []), Batch(pictures(2), [], pictures_end=True, sounds_end=True, error=BROKEN))

    async def run(consumer):
        for n in range(2):
            assert await consumer.picture(Fraction(n, 30)) == n
        with pytest.raises(SourceMalformed, match=r"breaks off at 0\.100 s"):
            await consumer.picture(Fraction(2, 30))
        assert consumer.reader.pick(Fraction(2, 30), Fraction(0)).frame == 2  # for who holds it
        assert consumer.reader.pick(Fraction(9), Fraction(0)) == (2, Fraction(2, 30), True)

    await during(script, run)


async def test_error_of_one_kind_waits_until_that_kind_is_asked_for():
    sound = AudioFrame(np.zeros((1, 1600), np.float32))
    script = Script(
        Batch(pictures(0, 1, 2, 3), [(0, sound)], sounds_end=True, error=BROKEN),
        Batch(pictures(4, 5), [], pictures_end=True, sounds_end=True, error=BROKEN),
    )

    async def run(consumer):
        assert await consumer.picture(Fraction(0), listening=(0, 1600)) == 0
        for n in range(1, 5):
            assert await consumer.picture(Fraction(n, 30)) == n
        with pytest.raises(SourceMalformed):
            await consumer.sound(1600, 3200)

    script.seek = lambda t: None
    script._batches.append(Batch([], [], pictures_end=True, sounds_end=True, error=BROKEN))
    await during(script, run)


@pytest.mark.parametrize("lacks", ["sound", "picture"])
async def test_kind_that_goes_on_where_the_other_one_broke_off_is_waited_for(lacks):
    sound = [AudioFrame(np.zeros((1, 1600), np.float32)) for _ in range(4)]
    if lacks == "sound":
        first = Batch(pictures(0), [], sounds_end=True, error=BROKEN)
        others = [Batch(pictures(n), [], sounds_end=True, error=BROKEN) for n in range(1, 4)]
    else:
        first = Batch([], [(0, sound[0])], pictures_end=True, error=BROKEN)
        others = [Batch([], [(n * 1600, sound[n])], pictures_end=True, error=BROKEN) for n in range(1, 4)]
    end = Batch([], [], pictures_end=True, sounds_end=True, error=BROKEN)

    async def run(consumer):
        for n in range(4):
            with pytest.raises(SourceMalformed):
                await consumer.picture(Fraction(n, 30), listening=(n * 1600, (n + 1) * 1600))
            assert consumer.reader.pick(Fraction(n, 30), Fraction(0)).frame == (n if lacks == "sound" else None)
            pieces = consumer.reader.take(n * 1600, (n + 1) * 1600)
            assert sum(piece.count for piece in pieces) == (0 if lacks == "sound" else 1600)

    await during(Script(first, *others, end), run, ahead=1)


async def test_source_that_cannot_be_opened_again_fails_every_wait():
    async def run(consumer):
        assert await consumer.picture(Fraction(0)) is None
        assert await consumer.picture(Fraction(1, 30)) == 1
        for t in (Fraction(0), Fraction(1), Fraction(0)):
            with pytest.raises(SourceUnavailable, match='source "cam": gone'):
                await consumer.picture(t)

    await during(Script(Batch(pictures(1, 2), [], pictures_end=True)), run)


def beside_sound(path, *first_ms):
    """A film of a few pictures beside 200 s of sound."""
    return encode(path, Video(pts_ms=first_ms), Audio("aac", 8000, "mono"), seconds=200)


@pytest.mark.parametrize(("suffix", "ms"), [(".mkv", 180_000), (".mp4", 180_000), (".mkv", 61_000)])
async def test_a_picture_that_is_held_is_not_sought_in_the_whole_file(tmp_path, suffix, ms):
    steps = opened(beside_sound(tmp_path / f"late{suffix}", ms, ms + 100))

    async def run(consumer):
        assert await consumer.number(0, listening=(0, RATE), hold=True) is None
        await consumer.reader.idle()
        assert steps.calls["step"] < 30
        assert await consumer.number(ms // 1000 - 50, listening=(RATE, RATE), hold=True) == 0

    await during(steps, run)


async def test_an_mp4_knows_its_last_picture_however_much_sound_comes_after_it(tmp_path):
    steps = opened(beside_sound(tmp_path / "early.mp4", *range(0, 500, 100)))

    async def run(consumer):
        for t in (40, 0, 20):
            second, next_one = ((n * RATE, (n + 1) * RATE) for n in (t, t + 1))
            assert await consumer.number(t, listening=second, hold=True) == (4 if t else 0)
            assert await consumer.number(t + 1, listening=next_one) is None
        await consumer.reader.idle()

    await during(steps, run)
    assert steps.calls["step"] < 100  # a second of sound in each


async def test_word_that_nothing_comes_is_enough_to_go_on():
    script = Script(
        Batch(pictures(0, 1), [], no_sound_before=4000), Batch(pictures(2), [], pictures_end=True, sounds_end=True)
    )

    async def run(consumer):
        assert await consumer.picture(Fraction(0), listening=(0, 1600)) == 0
        assert not consumer.taken(0, 1600).any()
        assert await consumer.picture(Fraction(1, 30), listening=(1600, 3200)) == 1
        assert await consumer.picture(Fraction(2, 30), listening=(3200, 4800)) == 2
        assert not consumer.taken(3200, 4800).any()

    await during(script, run)


async def test_patterns_are_read_the_same_way():
    steps = Counted(PatternSource("bars", "pattern:bars?size=64x36&rate=25", sound=AudioFormat(RATE)))

    async def run(consumer):
        for n in (0, 1, 2, 100, 7, 8):
            frame = await consumer.picture(Fraction(n, 25), listening=(n * 1920, (n + 1) * 1920))
            assert read_cells(frame.y) == n
            tone = consumer.taken(n * 1920, (n + 1) * 1920)
            wave = 0.25 * np.sin(2 * np.pi * 440 * np.arange(n * 1920, (n + 1) * 1920) / RATE)
            assert np.abs(tone - wave).max() < 1e-5

    await during(steps, run, fps=Fraction(25))
    assert first_sample(1, rate=RATE, fps=Fraction(25)) == 1920
