"""Live sources: which frame is on in which slot, and which sound, whatever publishers do. On a virtual clock."""

import itertools
import os
import threading
from fractions import Fraction
from functools import partial

import numpy as np
import pytest
import trio
import trio.testing

from engine.config import Settings
from engine.packet import Packet, Track
from engine.plan import PictureSize
from engine.sources.decode import Decoders
from engine.spec import AudioFormat
from engine.stream import Hub, Publisher
from engine.timebase import first_sample, tick_time
from tests.engine.clips import packets
from tests.media import TONE, Audio, Video, encode, read_number
from tests.threads import no_threads

MS = 10**6
NS = 10**9
FPS = Fraction(30)
LATENCY = 200 * MS
NAME = "live/cam"


class Studio:
    """A hub on a clock that stands still, a publisher on it, and mixers' views of its stream."""

    def __init__(self):
        self.time = 0
        self.hub = Hub(lambda: self.time)
        self.decoders = Decoders(self.hub, Settings(), strict=True)
        self.begin()

    def begin(self):
        self.publication = self.hub.publish(NAME, Publisher(kind="pattern"))

    async def open(self, name=NAME, **options):
        viewer = Viewer(self, name, **options)
        await viewer.source.idle()
        return viewer

    def send(self, *items):
        """Sends packets; each at its arrival."""
        for packet in items:
            self.time = max(self.time, packet.arrival)
            self.publication.send(packet)


class Viewer:
    """A mixer as far as a source sees it, with one channel of what it heard."""

    def __init__(self, studio, name, *, epoch=Fraction(0), rate=48_000, latency=LATENCY):
        self.studio, self.epoch, self.rate, self.latency = studio, epoch, rate, latency
        self.source = studio.decoders.open(name, AudioFormat(rate), epoch=epoch, latency=latency)
        self.heard = np.zeros(0, np.float32)

    def due(self, n):
        return int((self.epoch + tick_time(n, FPS)) * NS) + self.latency

    async def slots(self, first, stop, waiting=(), *, look=True, listen=True):
        """(slot, frame number, held) of some slots; of the packets that wait, those that arrive before are sent."""
        seen, heard = [], [self.heard]
        for n in range(first, stop):
            while waiting and waiting[0].arrival <= self.due(n):
                self.studio.send(waiting.pop(0))
            self.studio.time = max(self.studio.time, self.due(n))
            picture, sound = await self.slot(n, look=look, listen=listen)
            seen.append((n, None if picture.frame is None else read_number(picture.frame.y), picture.held))
            heard.append(sound)
        self.heard = np.concatenate(heard)
        return seen

    async def slot(self, n, *, look, listen):
        t = tick_time(n, FPS)
        start, stop = (first_sample(k, rate=self.rate, fps=FPS) for k in (n, n + 1))
        self.source.attend(picture=t if look else None, sound=start if listen else None)
        with trio.fail_after(30):
            await self.source.idle()
        sound = np.zeros(stop - start, np.float32)
        for block, skip, count, offset in self.source.take(start, stop) if listen else ():
            sound[offset : offset + count] = block.samples[0, skip : skip + count]
        return self.source.pick(t, 1 / FPS / 4), sound

    @property
    def counts(self):
        return self.source.statistics()


@pytest.fixture
async def studio(nursery):
    made = Studio()
    await nursery.start(made.decoders.run)
    return made


def moved(film, ns):
    """Packets that arrive that much later."""
    return [copied(packet, arrival=packet.arrival + ns) for packet in film]


def copied(packet, **changes):
    fields = {name: getattr(packet, name) for name in ("pts", "dts", "arrival", "keyframe", "duration")}
    track, data = changes.pop("track", packet.track), changes.pop("data", packet.data)
    return Packet(track, data, **fields | changes)


def restamped(film, seconds):
    """The same packets with other time stamps."""

    def shift(packet):
        ticks = int(seconds / packet.track.time_base)
        return copied(packet, pts=packet.pts + ticks, dts=packet.dts + ticks)

    return [shift(packet) for packet in film]


def shown(*spans):
    """What slots() gives: from each (slot, stop, frame number of that slot, held); a held number does not count on."""
    return [
        (n, frame if held or frame is None else frame + n - a, held) for a, b, frame, held in spans for n in range(a, b)
    ]


def spikes(sound):
    """How much larger the largest step between two samples is than the mean one around it."""
    steps = np.abs(np.diff(sound))
    mean = np.convolve(steps, np.full(480, 1 / 480), "same")
    return float((steps / np.maximum(mean, 1e-3)).max())


def onsets(sound, level=0.1, apart=4800):
    """The samples where sound begins after silence."""
    loud = np.flatnonzero(np.abs(sound) > level)
    return [int(n) for n, before in zip(loud, [-apart, *loud], strict=False) if n - before >= apart]


@pytest.fixture(scope="module")
def long_gop(tmp_path_factory):
    """Six seconds with a keyframe every two, no B-frames: what encoders send."""
    return encode(tmp_path_factory.mktemp("live") / "long.mp4", Video(gop=60), seconds=6)


# --- on time ----------------------------------------------------------------------------------------------------------


async def test_a_source_on_time_shows_every_frame_in_its_slot(studio, media):
    viewer = await studio.open()
    seen = await viewer.slots(0, 64, packets(media.path("plain")))
    assert seen == shown((0, 58, 0, False), (58, 64, 57, True))  # two B-frames are still in the decoder
    assert (viewer.counts.shown, viewer.counts.held, viewer.counts.dropped) == (58, 6, 0)


async def test_sound_of_a_source_on_time_is_whole(studio, media):
    viewer = await studio.open()
    await viewer.slots(0, 60, packets(media.path("plain")))
    sound = viewer.heard[1024:-1024]
    tone = 0.5 * np.sin(2 * np.pi * 440 * (np.arange(len(sound)) + 1024) / 48_000)
    assert np.abs(sound - tone).max() < 0.02
    assert viewer.counts.missing == 0


@pytest.mark.parametrize("listens_before", [True, False])
async def test_sound_does_not_wait_for_pictures_that_wait_for_a_processor(studio, media, nursery, listens_before):
    viewer, threads = await studio.open(), studio.decoders._threads
    film, free, came, push = packets(media.path("plain")), threading.Event(), [0], viewer.source.push_sound
    all_of_them = len(os.sched_getaffinity(0)) + 1

    def note(first, block):
        came.append(first + len(block))
        push(first, block)

    viewer.source.push_sound = note
    await viewer.slots(0, 10, film, listen=listens_before)
    for _ in range(all_of_them):
        nursery.start_soon(threads.run, partial(free.wait, 30))
    while threads._busy < all_of_them:
        await trio.sleep(0.005)
    try:
        for n in range(10, 40):
            studio.send(*(packet for packet in film if viewer.due(n - 1) < packet.arrival <= viewer.due(n)))
            studio.time = viewer.due(n)
            start, stop = (first_sample(k, rate=48_000, fps=FPS) for k in (n, n + 1))
            listens = listens_before or n > 12
            viewer.source.attend(picture=tick_time(n, FPS), sound=start if listens else None)
            with trio.fail_after(30):
                while (listens and came[-1] < stop) or threads._busy == all_of_them:
                    await trio.sleep(0.005)
            if listens:
                viewer.source.take(start, stop)
            assert viewer.counts.shown <= 10
    finally:
        free.set()
    assert viewer.counts.missing == 0


async def test_the_first_picture_waits_until_there_is_a_thread(studio, media):
    viewer, seen = await studio.open(), []

    async def look():
        seen.extend(await viewer.slots(0, 40, packets(media.path("plain")), listen=False))

    async with trio.open_nursery() as nursery, no_threads():
        nursery.start_soon(look)
        await trio.testing.wait_all_tasks_blocked()
        assert not seen
    assert seen == shown((0, 40, 0, False))


async def test_picture_and_sound_are_together(studio, media):
    viewer = await studio.open()
    seen = await viewer.slots(0, 60, packets(media.path("flash_beep")))
    assert [n for n, number, _ in seen if number == 0xFFFF] == [0, 30]
    assert [round(n / 1600) for n in onsets(viewer.heard)] == [0, 30]


async def test_a_mixer_that_began_earlier_or_later_sees_the_same_at_its_own_times(studio, media):
    early, late = await studio.open(), await studio.open(epoch=Fraction(1, 2))
    film = packets(media.path("plain"))
    assert await early.slots(0, 15, film) == shown((0, 15, 0, False))
    for n in range(15, 45):
        assert await early.slots(n, n + 1, film) == [(n, n, False)]
        assert await late.slots(n - 15, n - 14, film) == [(n - 15, n, False)]
    assert np.array_equal(early.heard[26_000:], late.heard[26_000 - 24_000 :])


@pytest.mark.parametrize(
    ("rate", "expected"), [(15, [0, 0, 1, 1, 2, 2]), (60, [0, 2, 4, 6, 8, 10]), (25, [0, 1, 1, 2, 3, 4])]
)
async def test_other_frame_rates_repeat_and_drop(studio, tmp_path, rate, expected):
    film = packets(encode(tmp_path / "film.mp4", Video(rate=Fraction(rate)), None))
    seen = await (await studio.open()).slots(0, 6, film)
    assert [number for _, number, _ in seen] == expected


async def test_stamps_of_whole_milliseconds_do_not_judder_where_frames_come_just_in_time(studio, tmp_path):
    film = packets(encode(tmp_path / "film.mp4", Video(), None, seconds=4), units=Fraction(1, 1000))
    film = moved(film, 8_333_333)  # a quarter of a frame: exactly the tolerance
    seen = await (await studio.open()).slots(1, 110, film)
    steps = {after[1] - before[1] for before, after in itertools.pairwise(seen)}
    assert steps == {1}


@pytest.mark.parametrize("foreseen", [False, True])
async def test_a_picture_that_is_foreseen_is_there_at_the_first_look(studio, long_gop, foreseen):
    viewer = await studio.open()
    film = packets(long_gop)
    await viewer.slots(0, 100, film, look=False)
    studio.time = int(tick_time(100, FPS) * NS) + NS // 60  # the look itself is later by the latency
    if foreseen:
        viewer.source.foresee(
            tick_time(100, FPS) - Fraction(LATENCY, NS), within=Fraction(1, 2), looks=True, listens=False
        )
        with trio.fail_after(30):
            await viewer.source.idle()
    studio.time = viewer.due(100)
    viewer.source.attend(picture=tick_time(100, FPS), sound=None)
    frame = viewer.source.pick(tick_time(100, FPS), 1 / FPS / 4).frame
    assert (frame is not None and read_number(frame.y) == 100) is foreseen


# --- late, early, gone, back ------------------------------------------------------------------------------------------


async def test_late_within_the_latency_changes_nothing(studio, long_gop):
    film = packets(long_gop)
    for n in range(40, len(film)):
        late = max(film[n].arrival + n % 10 * 12 * MS, film[n - 1].arrival)
        film[n] = copied(film[n], arrival=late)
    viewer = await studio.open()
    assert await viewer.slots(0, 60, film) == shown((0, 60, 0, False))
    assert viewer.counts.missing == 0


async def test_late_frames_are_dropped_and_counted_and_the_last_one_is_held(studio, long_gop):
    film = packets(long_gop)
    stalled = [
        copied(packet, arrival=max(packet.arrival, 2000 * MS)) if packet.arrival >= NS else packet for packet in film
    ]
    viewer = await studio.open()
    seen = await viewer.slots(0, 90, stalled)
    # Slot 54 is mixed at 2.0 s. Until then frame 29 is the last one that came.
    assert seen == shown((0, 30, 0, False), (30, 54, 29, True), (54, 90, 54, False))
    assert viewer.counts.held == 24
    assert viewer.counts.dropped == 24 >= viewer.source.late > 16  # but the last of every step
    assert viewer.counts.resyncs == 0
    assert (await studio.open()).source.late == 0  # it was not there then
    assert viewer.counts.missing == pytest.approx(24 * 1600, abs=2048)


async def test_a_source_that_is_gone_is_held_for_the_patience_and_silent_at_once(studio, long_gop):
    film = [packet for packet in packets(long_gop) if packet.arrival < NS]
    back = [packet for packet in packets(long_gop) if packet.arrival >= 4 * NS]
    back = moved(restamped(back, 1), NS)
    viewer = await studio.open()
    seen = await viewer.slots(0, 175, film + back)
    # Frame 29 began at 29/30 s: it is there until 3 s later.
    assert seen == shown((0, 30, 0, False), (30, 119, 29, True), (119, 150, None, False), (150, 175, 120, False))
    assert np.abs(viewer.heard[50_000 : 5 * 48_000 - 3000]).max() == 0
    assert spikes(viewer.heard) <= 7


@pytest.mark.parametrize("look", [True, False])
async def test_the_age_of_a_source_is_that_of_its_newest_picture_looked_at_or_not(studio, long_gop, look):
    viewer = await studio.open()
    assert viewer.counts.age_ms is None
    await viewer.slots(0, 60, [packet for packet in packets(long_gop) if packet.arrival < NS], look=look)
    assert viewer.counts.age_ms == 1200  # it is 59/30 + 0.2 s, and frame 29 was the last


async def test_a_publisher_that_comes_back_is_shown_from_its_first_keyframe(studio, long_gop):
    viewer = await studio.open()
    assert await viewer.slots(0, 20, packets(long_gop)) == shown((0, 20, 0, False))
    studio.publication.close()
    last = (await viewer.slots(20, 40))[-1]
    assert last[2]
    studio.begin()
    again = moved(restamped(packets(long_gop), 4000), 2 * NS)
    seen = await viewer.slots(40, 90, again)
    assert seen[:20] == shown((40, 60, last[1], True))
    assert seen[20:] == shown((60, 90, 0, False))
    assert viewer.counts.jumps == 0
    assert spikes(viewer.heard) <= 7


async def test_a_publisher_that_is_back_soon_is_not_late(studio, tmp_path):
    path = encode(tmp_path / "reordered.mp4", Video(gop=60, bframes=2), None, seconds=3)
    first = [packet for packet in packets(path) if packet.arrival < 2 * NS]
    again = moved(packets(path), 5 * NS // 2)
    viewer = await studio.open()
    await viewer.slots(0, 53, first, listen=False)
    studio.send(*first)
    studio.publication.close()
    studio.begin()
    seen = await viewer.slots(53, 140, again, listen=False)
    numbers = [number for _, number, held in seen if not held]
    assert numbers[numbers.index(0) :] == list(range(len(numbers) - numbers.index(0)))
    assert viewer.counts.dropped == 0


async def test_pictures_ahead_of_their_time_are_shown_until_those_of_the_next_publisher(studio, long_gop):
    film = packets(long_gop)
    early = [copied(packet, arrival=min(packet.arrival, max(3 * NS, packet.arrival - 400 * MS))) for packet in film]
    viewer = await studio.open()
    assert await viewer.slots(0, 120, early) == shown((0, 120, 0, False))
    studio.publication.close()
    studio.begin()
    again = moved(film, viewer.due(120))
    assert await viewer.slots(120, 150, again) == shown((120, 126, 120, False), (126, 150, 0, False))


@pytest.mark.parametrize("latency", [LATENCY, NS])
async def test_a_source_that_comes_earlier_again_is_shown_up_to_where_it_is_set_earlier(studio, tmp_path, latency):
    film = packets(encode(tmp_path / "film.mp4", Video(gop=300, size=(64, 36)), None, seconds=10))
    soon = [700 * MS - max(0, packet.arrival - 5 * NS) * 7 // 20 for packet in film]  # a path that drains within 2 s
    drained = [copied(packet, arrival=packet.arrival + max(0, late)) for packet, late in zip(film, soon, strict=True)]
    viewer = await studio.open(latency=latency)
    seen = await viewer.slots(-30, 270, drained, listen=False)
    numbers = [number for _, number, _ in seen if number is not None]
    steps = [after - before for before, after in itertools.pairwise(numbers)]
    assert viewer.counts.resyncs == 1
    assert [step for step in steps if step != 1] == [max(steps)]  # no picture twice, one leap
    assert viewer.counts.dropped == max(steps) - 1 > 10


async def test_sound_ahead_of_its_time_ends_with_its_publisher(studio, tmp_path):
    first = packets(encode(tmp_path / "first.mp4", None, Audio(hz=(440,)), seconds=10))
    first = [copied(packet, arrival=packet.arrival // 10) for packet in first if packet.arrival < 20 * NS]
    second = moved(packets(encode(tmp_path / "second.mp4", None, Audio(hz=(1500,)), seconds=4)), 3 * NS // 2)
    viewer = await studio.open()
    await viewer.slots(0, 36, first, look=False)
    studio.send(*first)
    studio.publication.close()
    studio.begin()
    await viewer.slots(36, 120, second, look=False)
    sound = viewer.heard[-48_000:]
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound))))
    assert spectrum.argmax() == pytest.approx(1500, abs=2)


async def test_the_frames_that_wait_in_the_decoder_are_shown_at_the_end(studio, media):
    viewer = await studio.open()
    film = packets(media.path("plain"))
    await viewer.slots(0, 40, film)
    studio.send(*film)
    studio.publication.close()
    assert await viewer.slots(40, 64) == shown((40, 60, 40, False), (60, 64, 59, True))


async def test_a_burst_at_the_beginning_is_passed_over(studio, long_gop):
    film = packets(long_gop)
    film = [copied(packet, arrival=max(0, packet.arrival - NS // 2)) for packet in film]
    seen = await (await studio.open()).slots(0, 60, film)
    assert seen[2:] == shown((2, 60, 17, False))


async def test_a_mixer_late_by_seconds_beside_another_shows_every_frame(studio, long_gop):
    film, soon = packets(long_gop), await studio.open()
    late, behind = await studio.open(latency=LATENCY + 3 * NS), 90
    seen = []
    for n in range(160):
        assert await soon.slots(n, n + 1, film, listen=False) == shown((n, n + 1, n, False))
        seen += await late.slots(n - behind, n - behind + 1, listen=False)
    assert seen[behind:] == shown((0, 70, 0, False))


async def test_no_more_is_decoded_ahead_than_is_kept(studio, tmp_path):
    film = packets(encode(tmp_path / "fast.mp4", Video(rate=Fraction(120)), None, seconds=2))
    viewer = await studio.open(latency=NS)
    seen = await viewer.slots(0, 50, film, listen=False)
    assert seen == [(n, 4 * n + 1, False) for n in range(50)]  # the newest within a quarter of a slot


async def test_a_mixer_late_by_seconds_shows_every_frame(studio, long_gop):
    viewer = await studio.open(latency=3 * NS)
    assert (await viewer.slots(-90, 80, packets(long_gop)))[90:] == shown((0, 80, 0, False))
    assert viewer.counts.dropped == 0


async def test_packets_that_waited_for_a_late_mixer_are_shown_after_their_publisher_has_gone(studio, long_gop):
    viewer = await studio.open(latency=3 * NS)
    film = packets(long_gop)
    await viewer.slots(-90, 2, film)
    studio.publication.close()
    assert await viewer.slots(2, 80) == shown((2, 80, 2, False))


# --- who looks, who listens -------------------------------------------------------------------------------------------


async def test_joining_in_the_middle_of_a_gop_shows_the_picture_at_once(studio, long_gop):
    film = packets(long_gop)
    studio.send(*(packet for packet in film if packet.arrival < 3.5 * NS))
    viewer = await studio.open()
    rest = [packet for packet in film if packet.arrival >= 3.5 * NS]
    assert await viewer.slots(99, 130, rest) == shown((99, 130, 99, False))
    assert viewer.counts.dropped <= 1  # of a hundred that are over


async def test_joining_leaves_out_no_picture_that_others_do_not_refer_to(studio, tmp_path):
    film = packets(encode(tmp_path / "b.mp4", Video(bframes=2, gop=60), None, seconds=6))
    studio.send(*(packet for packet in film if packet.arrival < 3.5 * NS))
    viewer = await studio.open()
    rest = [packet for packet in film if packet.arrival >= 3.5 * NS]
    seen = await viewer.slots(100, 160, rest)
    assert [number for _, number, _ in seen] == [*range(seen[0][1], seen[0][1] + 60)]
    assert not any(held for _, _, held in seen)


async def test_what_nobody_looks_at_is_not_decoded(studio, long_gop):
    film = packets(long_gop)
    viewer = await studio.open()
    await viewer.slots(0, 10, film)
    await viewer.slots(10, 160, film, look=False)
    assert not viewer.source._decoder._picture.is_open
    assert viewer.counts.age_ms < 300  # it comes all the same
    assert await viewer.slots(160, 174, film) == shown((160, 174, 160, False))


async def test_a_short_look_away_costs_nothing(studio, long_gop):
    film = packets(long_gop)
    viewer = await studio.open()
    await viewer.slots(0, 10, film)
    await viewer.slots(10, 50, film, look=False)
    assert await viewer.slots(50, 80, film) == shown((50, 80, 50, False))


async def test_sound_is_there_at_once_when_somebody_begins_to_listen(studio, long_gop):
    film = packets(long_gop)
    viewer, other = await studio.open(), await studio.open()
    await viewer.slots(0, 60, film, listen=False)
    await viewer.slots(60, 63, film)
    await other.slots(62, 65, film)
    for each in (viewer, other):
        assert each.counts.missing == 0
        assert np.abs(each.heard[1600:]).max() == pytest.approx(0.5, abs=0.03)
        assert np.abs(each.heard[:10]).max() < 0.02
        assert spikes(each.heard) <= 7


async def test_sound_is_there_at_once_beside_a_mixer_that_only_listens(studio, long_gop):
    film = packets(long_gop)
    viewer, other = await studio.open(), await studio.open()
    await viewer.slots(0, 60, film, look=False)
    await other.slots(60, 63, film, look=False)
    assert other.counts.missing == 0


async def test_the_decoder_ends_with_its_last_source_and_a_new_one_begins(studio, long_gop):
    film = packets(long_gop)
    first = await studio.open()
    second = await studio.open()
    await first.slots(0, 10, film)
    first.source.close()
    await second.slots(0, 10)
    assert studio.hub.streams()[0].status().readers == 1
    second.source.close()
    third = await studio.open()
    assert await third.slots(10, 30, film) == shown((10, 30, 10, False))
    third.source.close()
    await trio.testing.wait_all_tasks_blocked()
    with trio.fail_after(30):
        while studio.hub.streams()[0].status().readers:
            await trio.sleep(0.01)


async def test_a_decoder_that_lags_goes_on_at_a_keyframe(studio, long_gop):
    film = packets(long_gop)
    viewer = await studio.open()
    await viewer.slots(0, 10, film)
    studio.send(*(packet for packet in film if packet.arrival < 5 * NS))
    film = [packet for packet in film if packet.arrival >= 5 * NS]
    assert await viewer.slots(144, 170, film) == shown((144, 170, 144, False))
    assert viewer.counts.dropped == pytest.approx(130, abs=10)


# --- what streams may do ----------------------------------------------------------------------------------------------


async def test_picture_alone(studio, media):
    viewer = await studio.open()
    await viewer.slots(0, 20, packets(media.path("video_only")))
    assert np.abs(viewer.heard).max() == 0
    assert viewer.counts.shown == 20


async def test_sound_alone(studio, media):
    viewer = await studio.open()
    assert await viewer.slots(0, 20, packets(media.path("audio_only"))) == shown((0, 20, None, False))
    assert np.abs(viewer.heard).max() == pytest.approx(0.5, abs=0.03)
    assert viewer.source.picture_size is not None  # one may come


async def test_sound_ten_seconds_after_the_picture(studio, tmp_path):
    beep = Audio(hz=(1000,), beep=Fraction(1, 30))
    film = packets(encode(tmp_path / "film.mp4", Video(flash=True), beep, seconds=12))
    film = [packet for packet in film if packet.is_video or packet.dts * packet.track.time_base >= 10]
    viewer = await studio.open()
    await viewer.slots(290, 295, film)
    seen = await viewer.slots(295, 345, film)
    assert [n for n, number, _ in seen if number == 0xFFFF] == [300, 330]
    assert [round(290 + n / 1600) for n in onsets(viewer.heard)] == [300, 330]


@pytest.mark.parametrize("keeps_track", [False, True], ids=["new track", "in-band"])
async def test_size_may_change_in_mid_stream(studio, tmp_path, keeps_track):
    small = packets(encode(tmp_path / "small.mp4", Video(), None))
    options = {"x264-params": "repeat-headers=1:annexb=0"}
    large = moved(packets(encode(tmp_path / "large.mp4", Video(size=(128, 72), options=options), None)), NS)
    large = restamped(large, 1)
    if keeps_track:
        large = [copied(packet, track=small[0].track) for packet in large]
    viewer = await studio.open()
    film = small + large
    assert await viewer.slots(0, 24, film) == shown((0, 24, 0, False))
    assert viewer.source.picture_size == PictureSize(64, 36)
    assert await viewer.slots(24, 58, film) == shown((24, 30, 24, False), (30, 58, 0, False))
    assert viewer.source.picture_size == PictureSize(128, 72)


@pytest.mark.parametrize("jump", [-3600, 86_400, -5, 8])
async def test_a_jump_of_time_holds_the_picture_until_a_keyframe(studio, long_gop, jump):
    film = [packet for packet in packets(long_gop) if packet.arrival < 5 * NS]
    film = [packet if packet.arrival < NS else restamped([packet], 20 + jump)[0] for packet in restamped(film, 0)]
    film = restamped(film, 3600)
    viewer = await studio.open()
    seen = await viewer.slots(0, 100, film)
    assert seen == shown((0, 30, 0, False), (30, 60, 29, True), (60, 100, 60, False))
    assert viewer.counts.jumps == 1
    assert spikes(viewer.heard) <= 7


async def test_damaged_packets_hold_the_picture_until_a_keyframe(studio, long_gop):
    film = packets(long_gop)
    hurt = [packet for packet in film if packet.is_video][40]
    at = film.index(hurt)
    film[at] = copied(hurt, data=hurt.data[:4] + bytes([hurt.data[4], 0xFF, 0xFF]) + b"\xff" * (len(hurt.data) - 7))
    viewer = await studio.open()
    seen = await viewer.slots(0, 90, film)
    assert seen == shown((0, 40, 0, False), (40, 60, 39, True), (60, 90, 60, False))
    assert viewer.counts.corrupt == 1


@pytest.mark.parametrize("data", [b"", b"\0", b"\0\0\0\xff\x65", bytes(200)])
async def test_packets_that_are_nothing_do_no_harm(studio, long_gop, data):
    film = packets(long_gop)
    film = [copied(packet, data=data) if n % 50 == 49 else packet for n, packet in enumerate(film)]
    viewer = await studio.open()
    seen = await viewer.slots(0, 150, film)
    assert seen[:10] == shown((0, 10, 0, False))
    assert all(number is None or held or number == n for n, number, held in seen)
    assert np.abs(viewer.heard).max() < 1


@pytest.mark.parametrize("kind", ["video", "audio"])
async def test_a_codec_that_is_unknown_is_not_there(studio, long_gop, kind):
    film = packets(long_gop)
    tracks = {packet.track: Track(kind=kind, codec="none", time_base=packet.track.time_base) for packet in film}
    film = [packet if packet.track.kind != kind else copied(packet, track=tracks[packet.track]) for packet in film]
    viewer = await studio.open()
    seen = await viewer.slots(0, 20, film)
    assert (seen == shown((0, 20, None, False))) == (kind == "video")
    assert (np.abs(viewer.heard).max() < 0.1) == (kind == "audio")


async def test_a_name_that_no_stream_can_have_never_has_anything(studio):
    viewer = await studio.open("../secret")
    assert await viewer.slots(0, 3) == shown((0, 3, None, False))
    assert viewer.source.picture_size is None
    assert viewer.counts.age_ms is None
    viewer.source.close()


# --- sound ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [8_000, 44_100, 96_000])
async def test_sound_of_another_rate_has_the_right_pitch(studio, tmp_path, rate):
    film = packets(encode(tmp_path / "film.mkv", None, Audio("flac", rate=rate, layout="mono"), seconds=2))
    viewer = await studio.open()
    await viewer.slots(0, 56, film)
    sound = viewer.heard[4800 : 4800 + 76_800]
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound))))
    assert np.argmax(spectrum) * 48_000 / len(sound) == pytest.approx(440, abs=1)
    assert np.abs(sound).max() == pytest.approx(0.5, abs=0.03)
    assert viewer.counts.missing < 1500
    assert spikes(viewer.heard) <= 7


async def test_mono_and_stereo_may_change_in_mid_stream_without_a_click(studio, tmp_path):
    mono = packets(encode(tmp_path / "mono.m4a", None, Audio(layout="mono")))
    stereo = packets(encode(tmp_path / "stereo.m4a", None, TONE))
    again = packets(encode(tmp_path / "again.m4a", None, Audio(layout="mono", rate=44_100)))
    film = mono + moved(restamped(stereo, 1), NS) + moved(restamped(again, 2), 2 * NS)
    viewer = await studio.open()
    await viewer.slots(0, 85, film)
    assert spikes(viewer.heard) <= 7
    loud = np.abs(viewer.heard).reshape(-1, 800).max(axis=1) > 0.45
    assert loud[2:].mean() > 0.92  # the rest are the fades


@pytest.mark.parametrize("ppm", [-2000, 2000])
async def test_picture_and_sound_stay_together_when_the_clock_drifts(studio, tmp_path, ppm):
    beep = Audio(hz=(1000,), beep=Fraction(1, 30))
    film = packets(encode(tmp_path / "film.mp4", Video(flash=True), beep, seconds=10))
    film = [copied(packet, arrival=packet.arrival * (1_000_000 + ppm) // 1_000_000) for packet in film]
    viewer = await studio.open()
    seen = await viewer.slots(0, 290, film)
    flashes = [n for n, number, held in seen if number == 0xFFFF and not held]
    beeps = [n / 1600 for n in onsets(viewer.heard)]
    assert len(flashes) == len(beeps) == 10
    assert [n - flash for n, flash in zip(beeps, flashes, strict=True)] == pytest.approx([0] * len(beeps), abs=1)
    real = [30 * n * (1 + ppm / 1e6) for n in range(len(flashes))]
    assert flashes == pytest.approx(real, abs=1)
    assert viewer.counts.resyncs == 0
    assert viewer.counts.correction_ms == pytest.approx(9.6 * ppm / 1000, abs=12)


async def test_sound_that_stops_and_begins_is_faded(studio, tmp_path):
    tone = packets(encode(tmp_path / "tone.m4a", None, TONE, seconds=4))
    tone = [
        packet for packet in tone if not NS <= packet.arrival < 1.3 * NS and not 2 * NS <= packet.arrival < 2.03 * NS
    ]
    viewer = await studio.open()
    await viewer.slots(0, 100, tone)
    assert spikes(viewer.heard) <= 7
    silent = np.flatnonzero(np.convolve(np.abs(viewer.heard[24_000:-24_000]), np.ones(480), "valid") < 1e-3)
    assert silent.min() > 0.45 * 48_000
    assert 12_000 < len(silent) < 16_000
