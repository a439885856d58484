"""A live event in slots, exactly: changes, absence, lag, own output; on a clock that the test moves."""

import gc
import weakref
from contextlib import asynccontextmanager
from fractions import Fraction
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import av
import msgspec
import numpy as np
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from engine.clip import Clip, ColourTween, Container, Ink, Medium, Scale, Text, Tween
from engine.clock import CATCH_UP, Tick
from engine.color import yuv_of
from engine.config import Settings
from engine.errors import AlreadyExists, InvalidTree, NotFound
from engine.event import ENCODING, LINGER, Event, Surroundings
from engine.frame import VideoFrame
from engine.images import Images
from engine.offline import render
from engine.program import Held
from engine.sinks.still import encode_still
from engine.sources.avfile import MediaFile
from engine.sources.decode import Decoders
from engine.spec import EventSpec, MixerSpec, Raster, RenderSpec
from engine.stream import END, Hub, Publisher
from engine.timebase import SECOND, first_sample, tick_time
from engine.timeline import Mash
from engine.tree import (
    AudioSourceNode,
    CompositorNode,
    ImageSourceNode,
    RenderTree,
    SolidColorNode,
    SumNode,
    TextNode,
    VideoSourceNode,
)
from tests.engine.clips import packets
from tests.media import Audio, Video, encode, read_number

FPS = Fraction(30)
RASTER = Raster(64, 36)
SPEC = EventSpec(name="show", path="live", stream_name="mix", mixer=MixerSpec(raster=RASTER, fps=FPS))
RED, GREEN, BLUE = (1, 0, 0), (0, 1, 0), (0, 0, 1)


def colour(rgb, **fields):
    red, green, blue = rgb
    return SolidColorNode(red=red, green=green, blue=blue, alpha=1, **fields)


def showing(*nodes, sound=()):
    voices = tuple(AudioSourceNode(stream_guid=name) for name in sound)
    return RenderTree(root_video_node=CompositorNode(nodes=nodes), root_audio_node=SumNode(nodes=voices))


class Slots:
    """A mixer's clock that gives a slot when it is told to."""

    def __init__(self, *, epoch, latency):
        self.start = epoch + latency
        self.send, self.receive = trio.open_memory_channel(0)

    async def tick(self, n, fps):
        return await self.receive.receive()


class NoImages:
    def get(self, filename):
        return None

    def expect(self, filename):
        """There is none."""


class Studio:
    """A hub and an event on one clock that stands still between slots."""

    def __init__(self, spec, nursery, images):
        self.time = SECOND
        self.images = images
        self.fps = spec.mixer.fps
        self.nursery = nursery
        self.hub = Hub(lambda: self.time)
        self.decoders = Decoders(self.hub, Settings(), strict=True)
        self.clocks = []
        self.film = []
        self.publication = None
        self.n = -1
        self.events = []
        self.event = self.add(spec)

    def add(self, spec):
        around = Surroundings(
            self.hub, self.decoders, self.images, Settings(), limiter=trio.CapacityLimiter(2), clock=self.clock
        )
        event = Event(spec, around)
        self.nursery.start_soon(event.run)
        self.events.append(event)
        return event

    def clock(self, *, epoch, latency):
        self.clocks.append(Slots(epoch=epoch, latency=latency))
        return self.clocks[-1]

    def play(self, film, name="live/cam"):
        """From now on these packets are published when they arrive."""
        self.publication = self.publication or self.hub.publish(name, Publisher(kind="pattern"))
        self.film = [*film]

    async def rest(self):
        """Waits until streams are decoded as far as may be."""
        for decoder in list(self.decoders._decoders.values()):
            await decoder.idle()

    async def slot(self, n=None, *, late=0):
        """Mixes the next slot, or slot n; what arrives before is published. Returns the pictures of all mixes."""
        self.n = self.n + 1 if n is None else n
        due = max(clock.start for clock in self.clocks) + int(tick_time(self.n, self.fps) * SECOND) + late
        while self.film and self.film[0].arrival <= due:
            self.time = max(self.time, self.film[0].arrival)
            self.publication.send(self.film.pop(0))
        self.time = max(self.time, due)
        with trio.fail_after(30):
            await self.rest()
            for sub in (sub for event in self.events for sub in event._subs):
                await sub._readers.idle()
            for clock in self.clocks:
                await clock.send.send(Tick(self.n, tick_time(self.n, self.fps), late))
            for sub in (sub for event in self.events for sub in event._subs):
                while sub.mixer.ticks_done <= self.n:
                    await trio.sleep(0.0005)
        return [sub.sink.last_picture for event in self.events for sub in event._subs]


@asynccontextmanager
async def studio(spec=SPEC, images=None):
    async with trio.open_nursery() as nursery:
        made = Studio(spec, nursery, images or NoImages())
        await nursery.start(made.decoders.run)
        yield made
        with trio.fail_after(30):
            for event in made.events:
                await event.close()
        nursery.cancel_scope.cancel()


def is_colour(frame, rgb):
    return all(abs(int(plane[3, 5]) - value) <= 1 for plane, value in zip(frame.planes, yuv_of(*rgb), strict=True))


async def drained(reader, count):
    """That many items of a reader."""
    items = []
    with trio.fail_after(30):
        while len(items) < count:
            items += await reader.receive()
    return items


async def test_it_begins_black_and_silent_without_a_put():
    async with studio() as made:
        with made.hub.read("live/mix") as reader:
            for _ in range(4):
                (picture,) = await made.slot()
                assert is_colour(picture, (0, 0, 0))
            items = await drained(reader, 4)
        pictures = [item for item in items if item.is_video]
        assert pictures[0].keyframe
        assert made.event.trees == (RenderTree(),)


async def test_a_put_takes_effect_at_the_slot_it_says_in_all_sub_mixes():
    async with studio(EventSpec(name="show", path="live", stream_name="mix", mixer=SPEC.mixer, sub_mixes=3)) as made:
        assert {stream.name for stream in made.hub.streams()} == {"live/mix", "live/mix_1", "live/mix_2"}
        await made.slot()
        slot = made.event.put([showing(colour(RED)), showing(colour(GREEN))])
        shown = {}
        while made.n < slot + 1:
            shown[made.n] = await made.slot()
        for n, pictures in shown.items():
            wanted = [RED, GREEN, (0, 0, 0)] if n >= slot else [(0, 0, 0)] * 3
            assert [is_colour(picture, rgb) for picture, rgb in zip(pictures, wanted, strict=True)] == [True] * 3, n
        made.event.put([showing(colour(BLUE))])
        assert made.event.trees == (showing(colour(BLUE)), showing(colour(GREEN)), RenderTree())


async def test_the_slot_of_a_put_is_the_first_at_or_after_its_time():
    async with studio() as made:
        epoch = made.time
        assert made.event.put([showing(colour(RED))]) == 0
        made.time = epoch + 1
        assert made.event.put([showing(colour(RED))]) == 1
        made.time = epoch + SECOND
        assert made.event.put([showing(colour(RED))]) == 30


async def test_of_a_thousand_puts_before_a_slot_the_last_is_shown():
    async with studio() as made:
        slots = {made.event.put([showing(colour((n % 5 / 5, 0, 0)))]) for n in range(1000)}
        made.event.put([showing(colour(BLUE))])
        assert slots == {0}
        (picture,) = await made.slot()
        assert is_colour(picture, BLUE)


async def test_a_text_is_there_in_the_first_picture_of_its_put_though_no_slot_waits_for_it(monkeypatch):
    monkeypatch.setattr("engine.event.DRAWING", 0)
    async with studio() as made:
        for n in range(4):
            made.event.put([showing(TextNode(string=f"{n}" * 4, size=30))])
            (picture,) = await made.slot()
            assert picture.y.max() > 100, n


async def test_an_uploaded_image_is_loaded_from_its_put_on(tmp_path, nursery):
    grey, chroma = np.full((36, 64), 200, np.uint8), np.full((18, 32), 128, np.uint8)
    (tmp_path / "a.png").write_bytes(encode_still(VideoFrame(grey, chroma, chroma)))
    images = Images(tmp_path)
    nursery.start_soon(images.run)
    async with studio(images=images) as made:
        made.event.put([showing(ImageSourceNode(filename="a.png"))])
        with trio.fail_after(30):
            while not (images._known and images._known["a.png"].frame):
                await trio.sleep(0.001)
        (picture,) = await made.slot()
        assert picture.y.min() > 190


async def test_a_transition_moves_there_and_a_second_one_goes_on_from_where_it_is():
    left, right = colour(RED, id="box", dest_x=0, dest_width=8), colour(RED, id="box", dest_x=48, dest_width=8)
    async with studio() as made:
        made.event.put([showing(left)])
        start = made.event.put([showing(right)], transition=Fraction(1), easing="linear")
        found = []
        while made.n < start + 15:
            (picture,) = await made.slot()
            found.append(int(np.flatnonzero(picture.y[18] > 30)[0]))
        assert found == sorted(found)
        assert found[start] == 0
        assert 20 <= found[-1] <= 28
        made.time = made.clocks[0].start - int(SPEC.latency * SECOND) + int(tick_time(made.n, FPS) * SECOND)
        made.event.put([showing(left)], transition=Fraction(1), easing="linear")
        (picture,) = await made.slot()
        assert abs(int(np.flatnonzero(picture.y[18] > 30)[0]) - found[-1]) <= 4


@pytest.mark.parametrize(
    ("trees", "options", "where"),
    [
        ([RenderTree(), RenderTree()], {}, "$[1]"),
        ([RenderTree()], {"easing": "bouncy"}, "easing"),
        ([showing(VideoSourceNode(stream_guid="a", at=3.2))], {}, "$[0].rootVideoNode.nodes[0].at"),
        ([RenderTree(root_audio_node=AudioSourceNode(stream_guid="a", speed=2))], {}, "$[0].rootAudioNode.speed"),
    ],
)
async def test_a_put_that_is_refused_changes_nothing(trees, options, where):
    async with studio() as made:
        made.event.put([showing(colour(RED))])
        with pytest.raises(InvalidTree) as caught:
            made.event.put(trees, **options)
        assert caught.value.where == where
        assert made.event.trees == (showing(colour(RED)),)
        (picture,) = await made.slot()
        assert is_colour(picture, RED)


async def test_a_name_that_is_taken_is_refused_and_nothing_is_left_of_the_attempt():
    async with studio() as made:
        taken = made.hub.publish("live/other_1", Publisher(kind="pattern"))
        with pytest.raises(AlreadyExists):
            made.add(EventSpec(name="second", path="live", stream_name="mix"))
        with pytest.raises(AlreadyExists):
            made.add(EventSpec(name="second", path="live", stream_name="other", sub_mixes=2))
        assert [stream.name for stream in made.hub.streams()] == ["live/mix", "live/other_1"]
        taken.close()
        del made.clocks[1:]
        assert (await made.slot())[0] is not None


async def test_late_slots_are_counted_their_sound_is_whole_and_time_stays_on_the_grid():
    async with studio() as made:
        with made.hub.read("live/mix") as reader:
            for n in (0, 1, 2, 13, 14):  # 3 … 12 could not be in time
                await made.slot(n, late=0 if n < 13 else CATCH_UP // 2)
            await made.event.close()
            items = []
            while not items or items[-1] is not END:
                items += await reader.receive()
        status = made.event.status().sub_mixes[0].mixer
        assert (status.mixed, status.lagged) == (5, 10)
        pictures = [item.pts for item in items if item is not END and item.is_video]
        assert [pts - pictures[0] for pts in pictures] == [0, 1, 2, 13, 14]
        sounds = [item for item in items if item is not END and not item.is_video]
        assert [b.pts - a.pts for a, b in pairwise(sounds)] == [1024] * (len(sounds) - 1)
        samples = first_sample(15, rate=48_000, fps=FPS)
        assert samples <= sum(packet.duration for packet in sounds) <= samples + 2 * 1024


async def test_what_was_lost_is_counted_and_what_a_faster_camera_has_too_many_of_is_not(tmp_path):
    film = packets(encode(tmp_path / "a.mp4", Video(rate=60, gop=30), Audio(), seconds=4), arrival=SECOND)
    stalled = [each for each in film if each.arrival < 3 * SECOND]
    rest = [each for each in film if each.arrival >= 3 * SECOND]
    for each in rest:
        each.arrival = max(each.arrival, 4 * SECOND)
    async with studio() as made:
        made.event.put([showing(VideoSourceNode(stream_guid="live/cam"))])
        made.play(stalled)
        for _ in range(30):
            await made.slot()
        assert made.event.status().sub_mixes[0].sources["live/cam"].dropped > 20
        assert made.event.lost() == {"lagged": 0, "skipped": 0, "dropped": 0}
        for n in range(40, 90):
            await made.slot(n)
        made.play(rest)
        for _ in range(30):
            await made.slot()
        lost = made.event.lost()
        assert lost["lagged"] == 10
        assert lost["dropped"] > 30
        made.event.put([showing(colour(RED))])
        await made.slot()
        await made.slot(made.n + 1 + int(LINGER / SECOND) * 30 + 30)
        assert made.event.status().sub_mixes[0].sources == {}
        assert made.event.lost()["dropped"] == lost["dropped"]


async def test_what_a_camera_had_sent_before_it_was_cut_to_is_not_lost(tmp_path):
    film = packets(encode(tmp_path / "a.mp4", Video(gop=120, bframes=2), Audio(), seconds=4), arrival=SECOND)
    async with studio() as made:
        made.play(film)
        for _ in range(60):
            await made.slot()
        made.event.put([showing(VideoSourceNode(stream_guid="live/cam"))])
        for _ in range(30):
            await made.slot()
        assert made.event.status().sub_mixes[0].sources["live/cam"].shown > 10
        assert made.event.lost() == {"lagged": 0, "skipped": 0, "dropped": 0}


async def test_pictures_that_come_too_late_are_lost_by_the_mixes_that_look_not_by_one_that_listens(tmp_path):
    film = packets(encode(tmp_path / "a.mp4", Video(gop=30), Audio(), seconds=4), arrival=SECOND)
    for each in film:
        each.arrival = max(each.arrival, 3 * SECOND) if each.arrival >= 2 * SECOND else each.arrival
    async with studio(msgspec.structs.replace(SPEC, sub_mixes=2)) as made:
        camera = VideoSourceNode(stream_guid="live/cam")
        made.event.put([showing(camera), showing(colour(RED), sound=["live/cam"])])
        made.play(film)
        for _ in range(80):
            await made.slot()
        looks, listens = made.event._subs
        assert looks.late > 10
        assert listens.late == 0
        assert made.event.lost()["dropped"] == looks.late


async def test_a_source_that_is_not_there_shows_what_lies_under_it_until_it_comes(tmp_path):
    film = packets(encode(tmp_path / "a.mp4", Video(gop=30), Audio(), seconds=2), arrival=SECOND + SECOND // 2)
    async with studio() as made:
        made.play(film)
        slot = made.event.put([showing(colour(GREEN), VideoSourceNode(stream_guid="live/cam"), sound=["live/cam"])])
        assert slot == 0
        seen = []
        for _ in range(60):
            (picture,) = await made.slot()
            seen.append(None if is_colour(picture, GREEN) else read_number(picture.y))
        first = seen.index(0)
        assert seen[:first] == [None] * first
        assert first in (15, 16)  # half a second later, in step with its own time stamps
        assert seen[first:] == list(range(60 - first))


async def test_of_itself_it_shows_the_picture_of_the_slot_before_just_as_it_was(tmp_path):
    film = packets(encode(tmp_path / "a.mp4", Video(gop=30), Audio(), seconds=2), arrival=SECOND)
    camera = VideoSourceNode(stream_guid="live/cam", dest_x=0, dest_y=0, dest_width=64, dest_height=36)
    itself = {"stream_guid": "live/mix", "source_x": 0, "source_y": 0, "source_width": 64, "source_height": 36}
    wide = EventSpec(name="show", path="live", stream_name="mix", mixer=MixerSpec(raster=Raster(128, 36), fps=FPS))
    async with studio(wide) as made:
        made.play(film)
        inset = VideoSourceNode(**itself, dest_x=64, dest_y=0, dest_width=64, dest_height=36)
        made.event.put([showing(camera, inset, sound=["live/cam", "live/mix"])])
        before = (await made.slot())[0]
        for n in range(1, 50):
            (picture,) = await made.slot(n + 3 if n > 20 else n)  # three are lagged, before the 21st
            assert read_number(picture.y[:, :64]) == made.n
            assert np.array_equal(picture.y[:, 64:], before.y[:, :64])
            before = picture
        (decoder,) = (each for (name, _), each in made.decoders._decoders.items() if name == "live/mix")
        decoder._picture.count_late([made.time])  # that another mix did not get in time
        source = made.event.status().sub_mixes[0].sources["live/mix"]
        assert (source.shown, source.held, source.dropped) == (49, 0, 0)
        assert source.missing < 20 * 1600  # what was published of it is heard


@pytest.mark.parametrize("puts", [10, 1000])
async def test_a_mix_that_shows_itself_keeps_two_pictures_and_one_reader_however_often_it_is_put(puts):
    inset = {"stream_guid": "live/mix", "dest_y": 0, "dest_width": 32, "dest_height": 18}
    async with studio() as made:
        shown = weakref.WeakSet()
        for _ in range(20):
            for x in range(puts // 20 + 1):
                made.event.put([showing(colour(RED), VideoSourceNode(**inset, dest_x=x % 32), sound=["live/mix"])])
            (picture,) = await made.slot()
            shown.add(picture)
            assert made.hub.published("live/mix").status().readers == 1
        with trio.fail_after(30):
            while made.event.status().sub_mixes[0].encoder.waiting:
                await trio.sleep(0.001)
        await wait_all_tasks_blocked()
        assert len(shown) <= 3  # the last, the one that it shows, and this one
        slot = made.event.put([showing(colour(RED))])
        await made.slot(slot)
        await made.slot(slot + int(LINGER / SECOND) * 30 + 30)
        with trio.fail_after(30):
            while made.hub.published("live/mix").status().readers:
                await trio.sleep(0.001)


@pytest.mark.parametrize("fps", [Fraction(30), Fraction(30_000, 1001), Fraction(25), Fraction(60)], ids=str)
async def test_mixes_of_one_rate_show_each_others_pictures_at_their_slots_in_step_with_the_sound(fps):
    mixer = MixerSpec(raster=RASTER, fps=fps)
    spec = EventSpec(name="show", path="live", stream_name="mix", mixer=mixer, latency_ms=213)
    async with studio(spec) as made:
        made.time += SECOND // 7
        other = made.add(EventSpec(name="other", path="live", stream_name="copy", mixer=mixer))
        for clock, latency in zip(made.clocks, (spec.latency, other.spec.latency), strict=True):
            slots = (clock.start - latency * SECOND) * fps / SECOND
            assert abs(slots - round(slots)) < Fraction(1, 1_000_000)
        assert made.time <= made.clocks[1].start - other.spec.latency * SECOND <= made.time + SECOND / fps + 1
        made.event.put([showing(VideoSourceNode(stream_guid="live/copy"), sound=["live/copy"])])
        with trio.fail_after(30):
            for _ in range(int(fps)):
                await made.slot()
                while other.status().sub_mixes[0].encoder.encoded <= made.n:
                    await trio.sleep(0.0005)
            await made.rest()
        (decoder,) = made.decoders._decoders.values()
        slots = decoder.sync.time("video", 0) * fps / SECOND
        assert abs(slots - round(slots)) < Fraction(1, 1_000_000)
        assert decoder.sync.time("video", 0) == decoder.sync.time("audio", 0)


@pytest.mark.parametrize("fps", [1, 5, 10, 30, 60])
async def test_what_a_mix_publishes_is_due_when_its_latest_sound_is_there_whatever_the_rate(fps):
    mixer = MixerSpec(raster=RASTER, fps=Fraction(fps))
    waits, transits = [], set()
    async with studio(EventSpec(name="show", path="live", stream_name="mix", mixer=mixer)) as made:
        with made.hub.read("live/mix") as reader, trio.fail_after(30):
            for _ in range(3 * fps):
                await made.slot()
                while made.event.status().sub_mixes[0].encoder.encoded <= made.n:
                    await trio.sleep(0.0005)
                packets = await reader.receive()
                waits += [packet.arrival - made.time for packet in packets]
                transits |= {packet.arrival - packet.dts_ns for packet in packets}
    assert max(transits) - min(transits) <= 1  # ns: stamps are rounded
    block = Fraction(1024, 48_000)
    assert ENCODING * SECOND - 1 <= min(waits) <= (ENCODING + 1 / Fraction(fps) + block) * SECOND


async def test_two_mixes_can_show_one_another():
    other = EventSpec(name="other", path="live", stream_name="back", mixer=SPEC.mixer)
    async with studio() as made:
        second = made.add(other)
        made.event.put([showing(colour(RED), VideoSourceNode(stream_guid="live/back", dest_x=32, dest_width=32))])
        second.put([showing(colour(BLUE), VideoSourceNode(stream_guid="live/mix", dest_x=32, dest_width=32))])
        for _ in range(30):
            one, two = await made.slot()
        assert is_colour(one, RED)
        assert is_colour(two, BLUE)
        assert abs(int(one.y[4, 36]) - yuv_of(*BLUE)[0]) <= 4
        assert abs(int(two.y[4, 36]) - yuv_of(*RED)[0]) <= 4


async def test_a_source_that_no_tree_names_any_more_is_closed_after_a_while():
    async with studio() as made:
        made.event.put([showing(VideoSourceNode(stream_guid="live/cam"))])
        await made.slot()
        made.event.put([RenderTree()])
        await made.slot(15)
        decoded = made.decoders._decoders
        assert [name for name, _ in decoded] == ["live/cam"]
        await made.slot(15 + int(LINGER / SECOND) * 30 + 30)
        with trio.fail_after(30):
            while decoded:
                await trio.sleep(0.001)


@pytest.mark.parametrize("is_seen", [True, False])
async def test_a_source_that_is_named_long_before_its_slot_is_there_at_its_slot(tmp_path, is_seen):
    patient = EventSpec(name="show", path="live", stream_name="mix", mixer=SPEC.mixer, latency_ms=10_000)
    film = encode(tmp_path / "a.mp4", Video(), Audio(), seconds=6)
    async with studio(patient) as made:
        epoch = made.time
        made.event.put([showing(colour(RED))])
        made.time = epoch + 6 * SECOND
        nodes = [VideoSourceNode(stream_guid="live/cam")] if is_seen else []
        slot = made.event.put([showing(*nodes, sound=["live/cam"])])
        assert slot == 180
        await made.rest()
        made.play(packets(film, arrival=made.time - SECOND))
        for n in (0, 149, 179):  # which takes longer than LINGER
            (picture,) = await made.slot(n)
            assert is_colour(picture, RED)
        shown = [(await made.slot())[0] for _ in range(30)]
        if is_seen:
            assert [read_number(picture.y) for picture in shown] == list(range(30, 60))
        source = made.event.status().sub_mixes[0].sources["live/cam"]
        assert source.missing == 0


@pytest.mark.parametrize(("fps", "latency_ms"), [(1, 200), (4, 200), (30, 0)])
async def test_sound_is_whole_however_long_a_slot_is(tmp_path, fps, latency_ms):
    mixer = MixerSpec(raster=RASTER, fps=Fraction(fps))
    spec = EventSpec(name="show", path="live", stream_name="mix", mixer=mixer, latency_ms=latency_ms)
    film = packets(encode(tmp_path / "a.mp4", Video(), Audio(), seconds=6), arrival=SECOND)
    async with studio(spec) as made:
        made.event.put([showing(VideoSourceNode(stream_guid="live/cam"), sound=["live/cam"])])
        await made.rest()
        made.play(film)
        missing = []
        for _ in range(4 * fps):
            await made.slot()
            missing.append(made.event.status().sub_mixes[0].sources["live/cam"].missing)
        assert missing[-1] == 0


async def test_what_a_tree_named_that_was_never_on_is_closed_after_a_while():
    async with studio() as made:
        made.event.put([showing(VideoSourceNode(stream_guid="live/cam"))])
        made.event.put([showing(colour(RED))])  # at the same slot
        await made.slot()
        await made.slot(int(LINGER / SECOND) * 30 + 30)
        with trio.fail_after(30):
            while made.decoders._decoders:
                await trio.sleep(0.001)


async def test_the_end_flushes_what_was_mixed():
    async with studio() as made:
        with made.hub.read("live/mix") as reader:
            for _ in range(5):
                await made.slot()
            await made.event.close()
            items = await reader.receive()
        assert items[-1] is END
        assert sum(item.is_video for item in items[:-1]) == 5
        assert made.event.state == "closed"
        assert made.hub.streams() == []


@pytest.mark.parametrize(
    "show",
    [lambda event: event.put([RenderTree()]), lambda event: event.play(Held(RenderTree()), sources={})],
    ids=["tree", "program"],
)
async def test_nothing_is_shown_on_an_event_that_ends(show):
    async with studio() as made:
        await made.slot()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(made.event.close)
            for _ in range(2):  # tasks of one round run in any order: in the second one it has begun
                await trio.lowlevel.checkpoint()
            with pytest.raises(NotFound, match="show"):
                show(made.event)
            assert made.event.state == "on air"
        with pytest.raises(NotFound, match="show"):
            show(made.event)
        assert made.event.state == "closed"


async def test_a_cropped_source_that_comes_later_is_drawn_and_so_is_one_that_returns_larger(tmp_path):
    small = encode(tmp_path / "a.mp4", Video(size=(64, 36), gop=10), None, seconds=1)
    large = encode(tmp_path / "b.mp4", Video(size=(256, 144), gop=10), None, seconds=1)
    crop = VideoSourceNode(stream_guid="live/cam", source_x=80, source_y=40, source_width=100, source_height=60)
    async with studio() as made:
        made.event.put([showing(colour(GREEN), crop)])
        for _ in range(5):
            (picture,) = await made.slot()
        assert is_colour(picture, GREEN)
        made.play(packets(small, arrival=made.time))
        for _ in range(30):
            (picture,) = await made.slot()
        assert is_colour(picture, GREEN)  # the crop is beyond its edge
        made.publication.close()
        made.publication = None
        made.play(packets(large, arrival=made.time))
        for _ in range(20):
            (picture,) = await made.slot()
        assert not is_colour(picture, GREEN)


# --- programs with files ----------------------------------------------------------------------------------------------


def clip(name, frame, frames, medium, **container):
    return Clip(id=name, frame=frame, frames=frames, content=medium, container=Container(**container))


def film(name="film", **more):
    return Medium(kind="film", name=name, **more)


def mash(*tracks, **more):
    return Mash(tracks, raster=RASTER, quantize=30, **more)


async def numbers(made, count):
    """What the next pictures read as, with their slots."""
    found = {}
    for _ in range(count):
        (picture,) = await made.slot()
        found[made.n] = read_number(picture.y)
    return found


async def heard(reader):
    """The first channel of a mix, to its end."""
    items = []
    while not items or items[-1] is not END:
        items += await reader.receive()
    sound = [item for item in items if item is not END and not item.is_video]
    context = av.CodecContext.create("aac", "r")
    context.extradata = sound[0].track.extradata
    blocks = [frame.to_ndarray() for item in sound for frame in context.decode(av.Packet(bytes(item.data)))]
    return np.concatenate(blocks, axis=1)[0]


async def test_a_program_is_on_from_its_slot_with_its_files(media):
    program = mash([clip("a", 0, 10, film(trim=30)), clip("b", 10, 10, film(trim=5)), clip("c", 40, 5, film(trim=50))])
    async with studio() as made:
        slot = made.event.play(program, sources={"film": str(media.path("plain"))})
        assert slot == 15  # half a second for opening them
        found = await numbers(made, slot + 50)
    assert [found[n] for n in range(slot)] == [0] * slot
    assert [found[slot + n] for n in range(10)] == [*range(30, 40)]
    assert [found[slot + n] for n in range(10, 20)] == [*range(5, 15)]
    assert [found[slot + n] for n in range(20, 40)] == [0] * 20
    assert [found[slot + n] for n in range(40, 45)] == [*range(50, 55)]


async def test_a_program_cuts_to_another_with_files_of_the_same_names_and_clips(media):
    first, second = mash([clip("a", 0, 90, film())]), mash([clip("a", 0, 90, film(trim=10))])
    async with studio() as made:
        begun = made.event.play(first, sources={"film": str(media.path("plain"))})
        found = await numbers(made, begun + 10)
        cut = made.event.play(second, sources={"film": str(media.path("fps25"))})
        found |= await numbers(made, cut + 10 - made.n)
        assert len(made.event._subs[0]._readers._reels) == 1
    assert [found[n] for n in range(begun, cut)] == [*range(cut - begun)]
    expected = [int((Fraction(10 + n, 30) + Fraction(1, 60)) * 25) for n in range(10)]
    assert [found[cut + n] for n in range(10)] == expected


async def test_of_two_programs_before_a_slot_the_last_is_on(media):
    sources = {"film": str(media.path("plain"))}
    async with studio() as made:
        assert made.event.play(mash([clip("a", 0, 9, film())]), sources=sources) == 15
        assert made.event.play(mash([clip("a", 0, 9, film(trim=40))]), sources=sources) == 15
        found = await numbers(made, 20)
    assert [found[n] for n in range(15, 20)] == [*range(40, 45)]


async def test_the_files_of_a_program_are_used_until_another_is_on(media):
    first, second, third = (str(media.path(name)) for name in ("plain", "fps25", "fps60"))
    async with studio() as made:
        begun = made.event.play(mash([clip("a", 0, 90, film())]), sources={"film": first}, fonts={"f": "font"})
        await numbers(made, begun + 1)
        made.event.play(mash([clip("a", 0, 90, film())]), sources={"film": second})
        assert made.event.files_used() == {first, second, "font"}
        cut = made.event.play(mash([clip("a", 0, 90, film())]), sources={"film": third})
        assert made.event.files_used() == {first, third, "font"}  # the second will not be on
        await numbers(made, cut - made.n - 1)
        assert made.event.files_used() == {first, third, "font"}
        await numbers(made, 1)
        assert made.event.files_used() == {third}


async def test_a_cast_begins_again_at_its_end(media):
    program = mash([clip("a", 0, 20, film(trim=7))], loop=True)
    async with studio() as made:
        slot = made.event.play(program, sources={"film": str(media.path("plain"))})
        found = await numbers(made, slot + 50)
    shown = [found[slot + n] for n in range(50)]
    assert shown[:20] == [*range(7, 27)]
    assert shown[20] in (7, 26)  # it has to go back first
    assert shown[21:40] == [*range(8, 27)]


async def test_a_clip_begins_again_without_a_picture_held(media):
    program = mash([clip("a", 0, 100, film(trim=7, length=35))])
    async with studio() as made:
        slot = made.event.play(program, sources={"film": str(media.path("plain"))})
        found = await numbers(made, slot + 100)
    assert [found[slot + n] for n in range(100)] == [7 + n % 35 for n in range(100)]


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("length", [8, 15, 24])
async def test_what_begins_again_several_times_a_second_has_no_picture_held_and_no_hole(media, length, whole):
    medium = film(trim=7, gain=((0, 1.0),), length=None if whole else length)
    program = mash([clip("a", 0, length if whole else 100, medium)], loop=whole)
    async with studio() as made:
        with made.hub.read("live/mix") as reader:
            slot = made.event.play(program, sources={"film": str(media.path("plain"))})
            found = await numbers(made, slot + 100)
            await made.event.close()
            level = await heard(reader)
    assert [found[slot + n] for n in range(100)] == [7 + n % length for n in range(100)]
    begin, end = (int(Fraction(slot + n, 30) * 48_000) for n in (3, 97))
    loudest = np.abs(level[begin:end]).reshape(-1, 400).max(axis=1)  # of each 120th of a second
    assert loudest.min() > 0.2


@pytest.mark.parametrize(("fps", "speed"), [(10, 1), (5, 1), (30, 2)])
async def test_a_film_of_many_pictures_a_slot_shows_that_of_now(tmp_path, fps, speed):
    path = encode(tmp_path / "a.mp4", Video(rate=Fraction(60), gop=60), None, seconds=4)
    program = mash([clip("a", 0, 45, film(speed=Fraction(speed)))], [clip("b", 60, 30, film(speed=Fraction(speed)))])
    mixer = MixerSpec(raster=RASTER, fps=Fraction(fps))
    async with studio(EventSpec(name="show", path="live", stream_name="mix", mixer=mixer)) as made:
        slot = made.event.play(program, sources={"film": str(path)})
        found = await numbers(made, slot + 3 * fps)
    nearest = 1 / Fraction(2 * fps) - Fraction(1, 1000)
    for begin in (0, 60):
        ticks = [n for n in range(3 * fps) if begin <= Fraction(30 * n, fps) < begin + 30]
        wanted = [int(60 * ((Fraction(n, fps) - Fraction(begin, 30)) * speed + nearest)) for n in ticks]
        assert [found[slot + n] for n in ticks] == wanted


async def test_what_begins_between_two_slots_is_not_sought_again_when_it_is_seen(tmp_path, monkeypatch):
    path = encode(tmp_path / "a.mp4", Video(rate=Fraction(25), gop=25), Audio(), seconds=6)
    sought = []
    seek = MediaFile.seek
    monkeypatch.setattr(MediaFile, "seek", lambda self, t: (sought.append(self), seek(self, t))[1])
    heard = {"gain": ((0, 1.0),)}
    clips = [
        clip("a", 0, 5, film(**heard)),
        clip("b", 5, 10, film(trim=20, **heard)),
        clip("c", 15, 30, film(length=13)),
    ]
    program = Mash([clips], raster=RASTER, quantize=10)
    mixer = MixerSpec(raster=RASTER, fps=Fraction(25))
    async with studio(EventSpec(name="show", path="live", stream_name="mix", mixer=mixer)) as made:
        slot = made.event.play(program, sources={"film": str(path)})
        await numbers(made, slot + 100)
    assert len(set(sought)) == len(sought)  # each to where it begins, at most


async def test_files_and_live_streams_are_mixed(tmp_path, media):
    camera = packets(encode(tmp_path / "a.mp4", Video(gop=30), None, seconds=2), arrival=SECOND)
    right = Scale(x=Tween(1, 1), width=Tween(0.5, 0.5), lock="")
    program = mash(
        [clip("a", 0, 30, film(trim=10))], [clip("b", 0, 30, film("live/cam", live=True, size=(32, 36)), scale=right)]
    )
    async with studio() as made:
        made.play(camera)
        slot = made.event.play(program, sources={"film": str(media.path("plain"))})
        for _ in range(slot + 20):
            (picture,) = await made.slot()
        assert read_number(picture.y[:, 32:]) is not None
        assert abs(read_number(picture.y[:, 32:]) - made.n) <= 2
        assert picture.y[5, 5] > 0


async def test_a_clip_that_is_a_live_stream_is_there_at_its_first_slot(tmp_path):
    camera = packets(encode(tmp_path / "a.mp4", Video(gop=60), Audio(), seconds=4), arrival=SECOND)
    live = Medium(kind="film", name="live/cam", live=True, size=(64, 36), gain=((0, 1.0),))
    program = mash([clip("a", 0, 30, ColourTween((1, 0, 0, 1), (1, 0, 0, 1))), clip("b", 30, 30, live)])
    async with studio() as made:
        made.play(camera)
        slot = made.event.play(program, sources={})
        found = await numbers(made, slot + 60)
        source = made.event.status().sub_mixes[0].sources["live/cam"]
    assert [found[slot + 30 + n] for n in range(30)] == [*range(slot + 30, slot + 60)]
    assert source.missing == 0


async def test_its_sound_is_there_to_the_sample(media):
    program = mash([clip("a", 0, 45, film(trim=3, gain=((0, 1.0),)))])
    async with studio() as made:
        with made.hub.read("live/mix") as reader:
            slot = made.event.play(program, sources={"film": str(media.path("plain"))})
            await numbers(made, slot + 50)
            await made.event.close()
            level = np.abs(await heard(reader))
    begin = np.flatnonzero(level > 0.1)[0] / 48_000
    end = np.flatnonzero(level > 0.1)[-1] / 48_000
    assert begin == pytest.approx(slot / 30, abs=0.05)
    assert end - begin == pytest.approx(1.5, abs=0.05)


async def test_a_file_that_is_broken_or_not_there_stops_nothing(tmp_path, media, caplog):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"\0" * 1000)
    program = mash(
        [clip("a", 0, 30, film(trim=20))],
        [clip("b", 0, 30, film("gone"))],
        [clip("c", 0, 30, film("broken"))],
        [clip("d", 0, 30, Medium(kind="image", name="no.png"))],
    )
    sources = {"film": str(media.path("plain")), "gone": "/nosuch.mp4", "broken": str(broken), "no.png": "/no.png"}
    async with studio() as made:
        slot = made.event.play(program, sources=sources)
        found = await numbers(made, slot + 10)
        assert made.event.state == "on air"
    assert [found[slot + n] for n in range(10)] == [*range(20, 30)]
    said = sorted(record.getMessage() for record in caplog.records)
    assert len(said) == 3
    assert [name in line for name, line in zip(("no.png", "broken", "gone"), said, strict=True)] == [True] * 3


async def test_a_file_that_is_broken_or_not_there_is_said_to_be_so_once_however_often_its_cast_begins_again(
    media, caplog
):
    program = mash([clip("a", 0, 45, film("gone"))], [clip("b", 0, 45, film("broken"))], loop=True)
    async with studio() as made:
        slot = made.event.play(program, sources={"gone": "/nosuch.mp4", "broken": str(media.path("truncated"))})
        await numbers(made, slot + 4 * 45)
    said = sorted(record.getMessage() for record in caplog.records)
    assert [name in line for name, line in zip(("broken", "gone"), said, strict=True)] == [True] * 2


async def test_a_put_may_name_a_moment_of_a_file_while_a_program_is_on(media):
    program = mash([clip("a", 0, 60, film())])
    async with studio() as made:
        with pytest.raises(InvalidTree):
            made.event.put([program.tree_at(Fraction(1))])
        slot = made.event.play(program, sources={"film": str(media.path("plain"))})
        assert made.event.trees == (program.tree_at(Fraction(0)),)
        await numbers(made, slot + 5)
        made.event.put([program.tree_at(Fraction(1))])
        found = await numbers(made, 15)
    assert list(found.values())[-5:] == [30] * 5


async def test_stills_and_fonts_come_with_the_program(tmp_path, media):
    still = tmp_path / "seven.png"
    await render(
        Held(RenderTree(root_video_node=VideoSourceNode(stream_guid="film", at=7 / 30))),
        RenderSpec(output=str(still), mixer=SPEC.mixer, sources={"film": str(media.path("plain"))}),
    )
    text = Text("X", "mine", Ink(0, 600, 700))
    program = mash(
        [clip("a", 0, 30, Medium(kind="image", name="seven.png", size=(64, 36)))],
        [clip("b", 30, 300, ColourTween((1, 1, 1, 1), (1, 1, 1, 1)), form=text)],
    )
    fonts = {"mine": str(Path(find_spec("fontpkg_heebo").submodule_search_locations[0], "files", "Heebo[wght].ttf"))}
    async with studio() as made:
        slot = made.event.play(program, sources={"seven.png": str(still)}, fonts=fonts)
        found = await numbers(made, slot + 30)
        assert [found[slot + n] for n in range(30)] == [7] * 30
        brightest = 0
        while brightest < 200:
            (picture,) = await made.slot()
            brightest = picture.y.max()
        assert made.n < slot + 330


async def test_nothing_is_left_open_when_an_event_ends(media):
    program = mash([clip("a", 0, 60, film())])
    async with studio() as made:
        slot = made.event.play(program, sources={"film": str(media.path("plain"))})
        await numbers(made, slot + 2)
        readers = made.event._subs[0]._readers
        (reader,) = readers._reels[0].active().values()
        await made.event.close()
        assert reader.steps._container is not None
        assert readers._threads._busy == 0


async def test_an_event_that_has_ended_leaves_nothing_for_the_garbage_collector(media):
    gc.collect()
    gc.disable()
    try:
        async with studio() as made:
            slot = made.event.play(mash([clip("a", 0, 60, film())]), sources={"film": str(media.path("plain"))})
            await numbers(made, slot + 2)
            (sub,) = made.event._subs
            (reel,) = sub._readers._reels[-1:]
            kept = [weakref.ref(each) for each in (sub.mixer, sub.mixer._compositor, sub.sink, reel, reel.drawings)]
            await made.event.close()
            await wait_all_tasks_blocked()
            del sub, reel, made.event, made.events[:], made.clocks[:]
            assert [each() for each in kept] == [None] * len(kept)
    finally:
        gc.enable()
