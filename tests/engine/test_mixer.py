"""The whole mixer on the virtual clock: which frame of which source is on at every tick, and which samples.

Sources are scripts: numbered pictures at given times, samples that tell their own index. What is asserted are lists of
(tick, number, held) and sample values, exactly. Number 0 is what black reads as, so numbers start at 1.
"""

import itertools
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.clock import Pace, Tick
from engine.compositor import Compositor
from engine.errors import SinkUnavailable, SourceMalformed
from engine.frame import AudioFrame, VideoFrame
from engine.mixer import Mixer
from engine.plan import PictureSize, Place
from engine.program import Held
from engine.sources.avfile import Batch
from engine.sources.reader import Reader
from engine.spec import AudioFormat, MixerSpec, Raster
from engine.timebase import first_sample, tick_time
from engine.tree import (
    AudioSourceNode,
    CompositorNode,
    ImageSourceNode,
    RenderTree,
    SolidColorNode,
    SumNode,
    VideoSourceNode,
)
from tests.media import paint_number, read_number

SIZE = (64, 36)
RATE = 8000
NTSC = Fraction(30_000, 1001)


class Script:
    """A source that plays a script of (start, stop, number); sample i of its sound has the value (i % 997) / 1000."""

    def __init__(
        self, guid, frames=(), *, sound=None, size=SIZE, duration=None, endless=False, breaks_at=None, opaque=True
    ):
        self.guid = guid
        self.frames = list(frames)
        self.sound = sound  # range of sample indices
        self.size, self.opaque = size, opaque
        self.duration = duration if duration is not None else (self.frames[-1][1] if self.frames else None)
        self.endless = endless
        self.breaks_at = breaks_at
        self.seeks, self.painted, self.closed = [], [], False
        self._n = 0
        self._sample = sound.start if sound else 0

    @property
    def picture_size(self):
        return PictureSize(*self.size, self.opaque) if self.frames else None

    @property
    def has_sound(self):
        return self.sound is not None

    def step(self, *, pictures, sounds, start):
        batch = Batch([], [])
        while self._n < len(self.frames) and len(batch.pictures) < (pictures or 0):
            begin, stop, number = self.frames[self._n]
            if self.breaks_at is not None and begin >= self.breaks_at:
                if batch.pictures:
                    break
                raise SourceMalformed(f'source "{self.guid}": breaks off at {float(begin):.3f} s', where=self.guid)
            self._n += 1
            if stop > start:
                batch.pictures.append((begin, stop, numbered(number, self.size)))
                self.painted.append(number)
        if sounds and self.sound and self._sample < self.sound.stop:
            stop = min(self._sample + 500, self.sound.stop)
            batch.sounds.append((self._sample, AudioFrame(tell_tale(self._sample, stop)[np.newaxis])))
            self._sample = stop
        batch.pictures_end = self._n == len(self.frames)
        batch.sounds_end = self.sound is None or self._sample >= self.sound.stop
        return batch

    def seek(self, t):
        self.seeks.append(t)
        self._n = max([n for n, (begin, _, _) in enumerate(self.frames) if begin <= t], default=0)
        self._sample = max(self.sound.start, int(t * RATE)) if self.sound else 0

    def close(self):
        self.closed = True


def numbered(number, size=SIZE):
    y = np.empty(size[::-1], np.uint8)
    paint_number(y, number)
    chroma = np.full((size[1] // 2, size[0] // 2), 128, np.uint8)
    return VideoFrame(y, chroma, chroma)


def tell_tale(start, stop):
    return (np.arange(start, stop) % 997 / 1000).astype(np.float32)


def at_rate(fps, count, *, offset=Fraction(0), base=1):
    """The first frames of a source of constant rate, numbered from base on."""
    return [(offset + n / Fraction(fps), offset + (n + 1) / Fraction(fps), base + n) for n in range(count)]


def whole(guid, **fields):
    return VideoSourceNode(stream_guid=guid, **fields)


def tree_of(*video, sound=()):
    audio = SumNode(nodes=tuple(AudioSourceNode(stream_guid=guid) for guid in sound)) if sound else None
    return RenderTree(root_video_node=CompositorNode(nodes=video), root_audio_node=audio)


class Watched(Reader):
    """A reader that remembers what was picked last, and how often samples were taken."""

    def pick(self, t, tolerance):
        picked = super().pick(t, tolerance)
        self.held = picked.held
        return picked


class Bench:
    """Readers of scripts, and a sink that keeps what came: `seen` is [(tick, number, held of the first source)]."""

    def __init__(self, *scripts, stills=None, ahead=3):
        self.scripts = {script.guid: script for script in scripts}
        self.stills = stills or {}
        self.ahead = ahead
        self.readers = {}
        self.places = None
        self.prepared = []
        self.pictures, self.seen, self.sounds, self.spans = [], [], [], []

    def expect(self, coming):
        pass

    async def prepare(self, tree, t):
        self.prepared.append(tree)

    def reader(self, place):
        return self.readers.get(place)

    def still(self, picture):
        return self.stills.get(picture.name)

    def active(self):
        return self.readers

    async def put(self, n, picture, sound, span):
        first = next(iter(self.readers.values()), None)
        self.spans.append(span)
        self.pictures.extend([picture] * span)
        self.seen.extend((n + k, read_number(picture.y), getattr(first, "held", False)) for k in range(span))
        self.sounds.append(sound.samples.copy())

    async def run(self, program, *, ticks=None, fps=30, raster=SIZE, rate=RATE, channels=1, ats=(None,), **options):
        program = Held(program) if isinstance(program, RenderTree) else program
        spec = MixerSpec(raster=Raster(*raster), fps=Fraction(fps), audio=AudioFormat(rate, channels))
        self.compositor = Compositor(spec)
        limiter = trio.CapacityLimiter(2)
        async with trio.open_nursery() as nursery:
            for guid, script in self.scripts.items():
                for place in self.places or [Place(guid, at=at) for at in ats]:
                    reader = Watched(script, rate=rate, ahead=self.ahead, limiter=limiter)
                    self.readers[place] = reader
                    nursery.start_soon(reader.run)
            options = {"pace": Pace.offline(), "sink": self, "compositor": self.compositor} | options
            self.mixer = Mixer(spec, program=program, readers=self, **options)
            try:
                await self.mixer.run(ticks)
            finally:
                nursery.cancel_scope.cancel()
        assert all(script.closed for script in self.scripts.values())
        return self

    @property
    def numbers(self):
        return [number for _, number, _ in self.seen]

    @property
    def sound(self):
        return np.concatenate(self.sounds, axis=1)


def newest(frames, fps, n, start=Fraction(0)):
    """The rule: the newest frame that started at most a quarter of a tick after the tick; none when over."""
    t = start + n / Fraction(fps)
    begun = [frame for frame in frames if frame[0] <= t + 1 / Fraction(fps) / 4]
    if not begun or (begun[-1] is frames[-1] and begun[-1][1] <= t):
        return 0
    return begun[-1][2]


# --- which frame ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("out", [30, NTSC, 25, 60], ids=str)
@pytest.mark.parametrize("rate", [25, NTSC, 30, 50, 60], ids=str)
async def test_every_rate_into_every_rate(rate, out):
    frames = at_rate(rate, int(Fraction(rate)) + 1)
    bench = await Bench(Script("cam", frames)).run(tree_of(whole("cam")), fps=out)
    ticks = len(bench.seen)
    assert bench.numbers == [newest(frames, out, n) for n in range(ticks)]
    assert 0 not in bench.numbers
    assert abs(ticks / Fraction(out) - frames[-1][1]) <= 1 / Fraction(out)  # the render is as long as its source


@pytest.mark.parametrize(
    ("rate", "out", "expected"),
    [
        (25, 30, [1, 2, 2, 3, 4, 5, 6, 7, 7, 8, 9, 10]),
        (60, 25, [1, 4, 6, 8, 11, 13, 16, 18, 20, 23, 25, 28]),
        (50, 30, [1, 3, 4, 6, 8, 9, 11, 13, 14, 16, 18, 19]),
        (30, 60, [1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6]),
        (NTSC, 30, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]),
        (30, NTSC, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]),
    ],
    ids=str,
)
async def test_the_usual_conversions_written_out(rate, out, expected):
    bench = await Bench(Script("cam", at_rate(rate, 40))).run(tree_of(whole("cam")), fps=out, ticks=12)
    assert bench.seen == [(n, number, False) for n, number in enumerate(expected)]


async def test_it_ticks_while_all_threads_that_others_share_are_taken():
    shared = trio.to_thread.current_default_thread_limiter()
    for n in range(int(shared.total_tokens)):
        shared.acquire_on_behalf_of_nowait(n)
    with trio.fail_after(10):
        bench = await Bench(Script("cam", at_rate(30, 10))).run(tree_of(whole("cam")), ticks=5)
    assert bench.numbers == [1, 2, 3, 4, 5]


async def test_an_hour_into_it_nothing_has_drifted():
    for rate, out in ((NTSC, 30), (30, NTSC), (25, NTSC), (60, 25)):
        hour = int(3600 * Fraction(rate))
        frames = [(n / Fraction(rate), (n + 1) / Fraction(rate), n % 60_000 + 1) for n in range(hour - 90, hour + 90)]
        bench = await Bench(Script("cam", frames)).run(tree_of(whole("cam")), fps=out, ticks=30, start=Fraction(3599))
        assert bench.numbers == [newest(frames, out, n, Fraction(3599)) for n in range(30)]


async def test_rounded_time_stamps_of_the_same_rate_do_not_judder():
    frames = [
        (Fraction(round(n * 1000 / 30), 1000), Fraction(round((n + 1) * 1000 / 30), 1000), n + 1) for n in range(60)
    ]
    bench = await Bench(Script("cam", frames)).run(tree_of(whole("cam")), ticks=60)
    assert bench.numbers == list(range(1, 61))


@pytest.mark.parametrize("out", [30, NTSC, 25, 60], ids=str)
async def test_variable_rate(out):
    starts = [Fraction(ms, 1000) for ms in (0, 33, 50, 90, 140, 157, 257, 290, 420, 440, 700, 733, 750, 990, 1023)]
    frames = [(a, b, n + 1) for n, (a, b) in enumerate(pairwise(starts))]
    bench = await Bench(Script("phone", frames)).run(tree_of(whole("phone")), fps=out)
    assert bench.numbers == [newest(frames, out, n) for n in range(len(bench.seen))]
    if out == 30:
        assert bench.numbers == [1, 2, 3, 4, 5, 6, 6, 6, 7, 8, 8, 8, 8, *[10] * 8, 11, 12, *[13] * 7, 14]


async def test_a_gap_is_held_until_the_next_frame():
    frames = [(Fraction(0), Fraction(1, 30), 1), (Fraction(1, 10), Fraction(4, 30), 2)]
    bench = await Bench(Script("cam", frames)).run(tree_of(whole("cam")), ticks=5)
    assert bench.seen == [(0, 1, False), (1, 1, True), (2, 1, True), (3, 2, False), (4, 0, False)]


async def test_a_source_that_starts_late_appears_then():
    script = Script("late", at_rate(30, 5, offset=Fraction(1, 10), base=11))
    bench = await Bench(script).run(tree_of(whole("late")))
    assert bench.numbers == [0, 0, 0, 11, 12, 13, 14, 15]
    assert script.seeks == []


async def test_a_source_that_ends_early_vanishes_and_what_lies_under_it_shows():
    under, over = Script("under", at_rate(30, 9, base=101)), Script("over", at_rate(30, 4), opaque=False)
    bench = await Bench(over, under).run(tree_of(whole("under"), whole("over")))
    assert bench.numbers == [1, 2, 3, 4, 105, 106, 107, 108, 109]


async def test_the_end_of_an_opaque_cover_uncovers_the_right_frame_with_one_seek():
    under, over = Script("under", at_rate(30, 12, base=101)), Script("over", at_rate(30, 4))
    bench = await Bench(over, under).run(tree_of(whole("under"), whole("over")))
    assert bench.numbers == [1, 2, 3, 4, *range(105, 113)]
    assert len(under.seeks) == 1
    assert under.painted == list(range(105, 113))  # nothing of it was decoded before it could be seen


async def test_a_cover_that_starts_late_covers_then():
    under, over = Script("under", at_rate(30, 8, base=101)), Script("over", at_rate(30, 2, offset=Fraction(1, 10)))
    bench = await Bench(over, under).run(tree_of(whole("under"), whole("over")))
    assert bench.numbers == [101, 102, 103, 1, 2, 106, 107, 108]


async def test_covers_upon_covers_end_one_after_the_other():
    scripts = [Script(str(n), at_rate(30, count, base=100 * n)) for n, count in ((1, 9), (2, 6), (3, 3))]
    bench = await Bench(*scripts).run(tree_of(*(whole(str(n)) for n in (1, 2, 3))))
    assert bench.numbers == [300, 301, 302, 203, 204, 205, 106, 107, 108]


async def test_what_changes_its_size_in_the_middle_keeps_its_rectangle():
    class Changing(Script):
        def step(self, **wishes):
            batch = super().step(**wishes)
            batch.pictures = [(a, b, numbered(n, (128, 72)) if n > 2 else f) for (a, b, f), n in self._numbered(batch)]
            return batch

        def _numbered(self, batch):
            return zip(batch.pictures, self.painted[len(self.painted) - len(batch.pictures) :], strict=True)

    bench = await Bench(Changing("cam", at_rate(30, 4))).run(tree_of(whole("cam")))
    assert bench.numbers == [1, 2, 3, 4]


async def test_a_media_time_of_its_own_stands_still():
    bench = Bench(Script("cam", at_rate(30, 30)))
    await bench.run(tree_of(whole("cam", at=0.5)), ticks=4, ats=(0.5,))
    assert bench.numbers == [16] * 4


async def test_the_start_of_a_render_is_that_time_of_the_sources():
    script = Script("cam", at_rate(30, 30), sound=range(RATE))
    bench = await Bench(script).run(tree_of(whole("cam"), sound=["cam"]), ticks=3, start=Fraction(1, 2))
    assert bench.numbers == [16, 17, 18]
    assert np.array_equal(bench.sound[0], tell_tale(4000, 4800))


class Cue:
    """One tree after another, each from its time on."""

    def __init__(self, *cues):
        self.cues = cues

    def tree_at(self, t):
        return next(tree for start, tree in reversed(self.cues) if start <= t)

    def coming(self, start, stop):
        return ()

    def edges(self, start, stop):
        return ()


async def test_another_tree_is_on_from_its_tick_and_old_sources_rest():
    a, b = Script("a", at_rate(30, 30, base=1)), Script("b", at_rate(30, 30, base=101))
    first, second = tree_of(whole("a")), tree_of(whole("b"))
    program = Cue((0, first), (Fraction(1, 10), second), (Fraction(1, 5), first))
    bench = await Bench(a, b).run(program, ticks=9)
    assert bench.numbers == [1, 2, 3, 104, 105, 106, 7, 8, 9]
    assert bench.prepared == [first, second, first]
    assert len(b.painted) < 12  # it rests while it is not shown


async def test_trees_that_are_new_at_every_tick_do_not_make_a_covered_source_seek_each_time():
    under, over = Script("under", at_rate(30, 12, base=101)), Script("over", at_rate(30, 4))

    class Moving(Cue):
        def tree_at(self, t):
            return tree_of(whole("under"), whole("over"))

    bench = await Bench(over, under).run(Moving(), ticks=12)
    assert bench.numbers == [1, 2, 3, 4, *range(105, 113)]
    assert len(under.seeks) == 1


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from((25, 30, 60, 7)), st.integers(0, 20), st.integers(1, 30), st.booleans()),
        min_size=1,
        max_size=4,
    ),
    st.sampled_from((30, 25, NTSC)),
)
def test_whatever_starts_and_ends_whenever_the_topmost_is_seen(sources, out):
    scripts = [
        Script(str(k), at_rate(rate, count, offset=Fraction(late, 40), base=k * 1000 + 1), opaque=opaque)
        for k, (rate, late, count, opaque) in enumerate(sources)
    ]
    bench = Bench(*scripts)
    trio.run(lambda: bench.run(tree_of(*(whole(script.guid) for script in scripts)), fps=out, ticks=30))
    expected = [[newest(script.frames, out, n) for n in range(30)] for script in scripts]
    assert bench.numbers == [next((n for n in reversed(layers) if n), 0) for layers in zip(*expected, strict=True)]


# --- geometry ---------------------------------------------------------------------------------------------------------


async def test_sixty_four_sources_each_in_its_place():
    scripts = [Script(f"cam{k}", at_rate(30, 3, base=100 * k + 1)) for k in range(64)]
    nodes = [whole(f"cam{k}", dest_x=k % 8 * 64, dest_y=k // 8 * 36, dest_width=64, dest_height=36) for k in range(64)]
    bench = await Bench(*scripts, ahead=2).run(tree_of(*nodes), raster=(512, 288))
    for n, picture in enumerate(bench.pictures):
        cells = [picture.y[k // 8 * 36 :, k % 8 * 64 :][:36, :64] for k in range(64)]
        assert [read_number(cell) for cell in cells] == [100 * k + 1 + n for k in range(64)]
    assert len(bench.pictures) == 3


async def test_eight_thousand_pixels():
    scripts = [Script("a", at_rate(30, 1, base=21), size=(7680, 4320)), Script("b", at_rate(30, 1, base=22))]
    half = {"dest_y": 0, "dest_width": 3840, "dest_height": 4320}
    tree = tree_of(whole("a", dest_x=0, **half), whole("b", dest_x=3840, **half))
    bench = await Bench(*scripts).run(tree, raster=(7680, 4320))
    (picture,) = bench.pictures
    assert [read_number(picture.y[:, :3840]), read_number(picture.y[:, 3840:])] == [21, 22]


@pytest.mark.parametrize(
    "rectangle",
    [
        {"dest_width": 0},
        {"dest_height": 0},
        {"dest_x": 64},
        {"dest_x": -64},
        {"dest_y": -36},
        {"source_x": 64},
        {"source_width": 0},
        {"opacity": 0},
    ],
    ids=str,
)
async def test_what_cannot_be_seen_is_not_decoded(rectangle):
    hidden = Script("hidden", at_rate(30, 30))
    bench = await Bench(Script("cam", at_rate(30, 3)), hidden).run(
        tree_of(whole("cam"), whole("hidden", **rectangle)), ticks=3
    )
    assert bench.numbers == [1, 2, 3]
    assert hidden.painted == []


async def test_an_unchanged_picture_is_the_same_object():
    tree = tree_of(SolidColorNode(red=1), ImageSourceNode(filename="logo.png", dest_width=16, dest_height=18))
    bench = await Bench(stills={"logo.png": numbered(5)}).run(tree, ticks=5)
    assert len({id(picture) for picture in bench.pictures}) == 1


async def test_an_image_that_is_not_there_is_not_drawn():
    bench = await Bench().run(tree_of(ImageSourceNode(filename="nosuch.png")), ticks=2)
    assert bench.numbers == [0, 0]


async def test_every_canvas_comes_home():
    bench = await Bench(Script("cam", at_rate(30, 16))).run(tree_of(whole("cam")), fps=30)
    pool = bench.compositor._pool
    assert len({picture.buffer.ctypes.data for picture in bench.pictures}) == 16
    assert not pool._free
    bench.pictures.clear()
    bench.compositor = bench.mixer = None
    assert len(pool._free) == 16  # as many as it keeps


# --- sound ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fps", [30, NTSC, 25, 60, Fraction(120), Fraction(7, 3)], ids=str)
async def test_sound_is_whole_and_every_tick_has_its_share(fps):
    bench = await Bench(Script("mic", sound=range(RATE))).run(tree_of(sound=["mic"]), fps=fps)
    shares = [samples.shape[1] for samples in bench.sounds]
    borders = [first_sample(n, rate=RATE, fps=fps) for n in [0, *itertools.accumulate(bench.spans)]]
    assert shares == [stop - start for start, stop in itertools.pairwise(borders)]
    assert max(bench.spans) > 1 or fps < 20  # only sound: several ticks in one go, but for the last ones
    sound = bench.sound[0]
    assert np.array_equal(sound[:RATE], tell_tale(0, RATE)[: len(sound)])
    assert not sound[RATE:].any()
    assert len(sound) >= RATE * (1 - 1 / Fraction(fps) / 4)


class Playing(Cue):
    """From sample `trim` on, a second at a gain, and another at half of it."""

    def __init__(self, trim):
        self.trim = trim

    def tree_at(self, t):
        at = float(self.trim + t if t < 2 else t)
        voice = AudioSourceNode(stream_guid="mic", id="a", at=at, gain=0 if t < 1 else -6.0206, mono_gain=-3)
        return RenderTree(root_audio_node=SumNode(nodes=(voice,)))


async def test_sound_that_just_goes_on_is_mixed_in_one_go_though_its_trees_are_new_at_every_tick():
    bench = Bench(Script("mic", sound=range(3 * RATE)))
    bench.places = [Place("mic", "a")]
    await bench.run(Playing(Fraction(1, 2)), ticks=75)
    assert bench.spans == [29, 1, 29, 1, 15]  # another gain, another time: what comes before may move there
    expected = tell_tale(RATE // 2, RATE // 2 + 2 * RATE)
    tick = RATE // 30 + 1
    assert np.array_equal(bench.sound[0, :RATE], expected[:RATE])
    assert bench.sound[0, RATE + tick : 2 * RATE] == pytest.approx(expected[RATE + tick :] / 2, abs=1e-5)
    assert bench.sound[0, 2 * RATE :] == pytest.approx(tell_tale(2 * RATE, 5 * RATE // 2) / 2, abs=1e-5)


async def test_sound_that_starts_late_and_ends_early_is_silence_around():
    script = Script("cam", at_rate(30, 30), sound=range(1234, 4321))
    bench = await Bench(script).run(tree_of(whole("cam"), sound=["cam"]))
    sound = bench.sound[0]
    assert len(sound) == RATE
    assert not sound[:1234].any()
    assert not sound[4321:].any()
    assert np.array_equal(sound[1234:4321], tell_tale(1234, 4321))


async def test_a_picture_without_sound_and_sound_without_a_picture_mix():
    video, audio = Script("video", at_rate(30, 15)), Script("audio", sound=range(RATE))
    bench = await Bench(video, audio).run(tree_of(whole("video"), whole("audio"), sound=["video", "audio"]))
    assert bench.numbers == [*range(1, 16), *[0] * 15]
    assert np.array_equal(bench.sound[0], tell_tale(0, RATE))


async def test_a_source_heard_twice_is_twice_as_loud():
    bench = await Bench(Script("mic", sound=range(400))).run(tree_of(sound=["mic", "mic"]), ticks=1)
    assert np.array_equal(bench.sound[0], np.minimum(2 * tell_tale(0, 266), 1))


async def test_without_an_audio_branch_there_is_silence():
    bench = await Bench(Script("cam", at_rate(30, 3), sound=range(800))).run(tree_of(whole("cam")))
    assert bench.sound.shape == (1, 800)
    assert not bench.sound.any()


# --- ticks that are left out ------------------------------------------------------------------------------------------


class Hurried:
    """A clock that leaves out some ticks."""

    async def tick(self, n, fps):
        n = {0: 4, 6: 20, 21: 200}.get(n, n)
        return Tick(n, tick_time(n, fps))


async def test_what_is_mixed_never_gets_less_and_with_what_lagged_it_is_every_tick_so_far():
    bench = Bench(Script("cam", at_rate(30, 300)))
    told = []

    class Told(Cue):
        def tree_at(self, t):
            told.append((30 * t, bench.mixer.statistics()))
            return super().tree_at(t)

    await bench.run(Told((0, tree_of(whole("cam")))), ticks=203, pace=Pace.live(Hurried()))
    assert [n for n, _ in told] == [4, 5, 20, 200, 201, 202]
    assert [(each.mixed, each.lagged) for _, each in told] == [(0, 4), (1, 4), (2, 18), (3, 197), (4, 197), (5, 197)]
    assert (bench.mixer.statistics().mixed, bench.mixer.lagged) == (6, 197)


# --- the end, and what breaks -----------------------------------------------------------------------------------------


async def test_given_ticks_are_made_however_short_the_sources():
    bench = await Bench(Script("cam", at_rate(30, 2))).run(tree_of(whole("cam")), ticks=5)
    assert bench.numbers == [1, 2, 0, 0, 0]
    assert bench.mixer.ticks_done == 5


async def test_the_longest_source_ends_it_and_an_endless_one_keeps_nothing_going():
    short, long = Script("short", at_rate(30, 3)), Script("long", at_rate(30, 7, base=101))
    endless = Script("endless", at_rate(30, 60), sound=range(16_000), endless=True)
    left = {"dest_width": 32}
    tree = tree_of(whole("endless"), whole("long"), whole("short", **left), sound=["endless"])
    bench = await Bench(short, long, endless).run(tree)
    assert len(bench.seen) == 7


async def test_a_source_that_is_only_named_for_what_it_lacks_still_lasts():
    video, audio = Script("video", at_rate(30, 6)), Script("audio", sound=range(1600), duration=Fraction(1, 5))
    assert len((await Bench(video).run(tree_of(sound=["video"]))).seen) == 6
    assert (await Bench(audio).run(tree_of(whole("audio")))).numbers == [0] * 6


async def test_nothing_to_show_at_all_is_over_at_once():
    assert (await Bench().run(tree_of())).seen == []


async def test_a_source_that_breaks_fails_the_mix_after_what_was_good():
    bench = Bench(Script("cam", at_rate(30, 30), breaks_at=Fraction(1, 3)))
    with pytest.RaisesGroup(pytest.RaisesExc(SourceMalformed, match=r'"cam": breaks off at 0\.333 s')):
        await bench.run(tree_of(whole("cam")))
    assert bench.numbers == list(range(1, 10))  # the tenth is on screen until the one that never came


async def test_a_broken_source_is_held_as_long_as_it_would_have_lasted(caplog):
    script = Script("cam", at_rate(30, 30), sound=range(RATE), breaks_at=Fraction(1, 3))
    bench = await Bench(script).run(tree_of(whole("cam")), on_error="hold")
    assert bench.numbers == [*range(1, 11), *[10] * 20]
    assert [held for _, _, held in bench.seen] == [False] * 10 + [True] * 20
    assert [record.getMessage() for record in caplog.records] == [
        'source "cam": breaks off at 0.333 s; its last picture is held'
    ]


async def test_one_broken_source_does_not_hold_up_the_others():
    broken, fine = (
        Script("broken", at_rate(30, 30), breaks_at=Fraction(1, 10)),
        Script("fine", at_rate(30, 6, base=101)),
    )
    left, right = ({"dest_x": x, "dest_width": 64} for x in (0, 64))
    bench = Bench(broken, fine)
    await bench.run(
        tree_of(whole("broken", **left), whole("fine", **right)), raster=(128, 36), on_error="hold", ticks=8
    )
    halves = [[read_number(picture.y[:, x : x + 64]) for picture in bench.pictures] for x in (0, 64)]
    assert halves == [[1, 2, 3, 3, 3, 3, 3, 3], [101, 102, 103, 104, 105, 106, 0, 0]]


async def test_a_sink_that_refuses_ends_the_mix():
    class Full(Bench):
        async def put(self, n, picture, sound, span):
            if n == 2:
                raise SinkUnavailable("full")
            await super().put(n, picture, sound, span)

    bench = Full(Script("cam", at_rate(30, 9)))
    with pytest.RaisesGroup(SinkUnavailable):
        await bench.run(tree_of(whole("cam")))
    assert bench.mixer.ticks_done == 2


@pytest.mark.parametrize(("seconds", "ticks"), [(3, 90), (Fraction(5, 4), 30), (Fraction(4, 3), 40)], ids=str)
async def test_mix_lasts_as_long_as_the_sound_but_for_a_short_tail(seconds, ticks):
    script = Script("cam", at_rate(30, 30), sound=range(int(seconds * RATE)))
    bench = await Bench(script).run(tree_of(whole("cam"), sound=["cam"]))
    assert bench.numbers[:30] == list(range(1, 31))
    assert bench.numbers[30:] == [0] * (ticks - 30)
