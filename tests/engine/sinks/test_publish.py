"""What a mixer hands over comes out of its stream: every sample, and every picture that there was time for.

Each has the time of its tick.
"""

import time
from contextlib import asynccontextmanager
from fractions import Fraction

import numpy as np
import pytest
import trio

from engine import stream
from engine.errors import ActorGone, SinkError, SinkRejected
from engine.frame import AudioFrame, VideoFrame, i420_views
from engine.sinks.publish import QUEUE, StreamSink
from engine.spec import AudioFormat, EncoderSpec, MixerSpec, Raster
from engine.stream import END, Hub, Publisher
from engine.timebase import first_sample
from tests.engine.clips import decoded, numbered, shown

NAME = "live/mix"
SMALL = MixerSpec(raster=Raster(64, 36))
MEDIUM = MixerSpec(raster=Raster(640, 360))
FAST = EncoderSpec(preset="ultrafast")
SLOW = EncoderSpec(preset="medium", quality=5)


def ns():
    return time.monotonic_ns()


@pytest.fixture
def hub():
    return Hub(ns)


def noise(mixer, seed):
    width, height = mixer.raster.width, mixer.raster.height
    buffer = np.random.default_rng(seed).integers(16, 235, (height * 3 // 2, width), np.uint8)
    return VideoFrame(*i420_views(buffer, width, height), buffer=buffer)


def tone(n, mixer=SMALL, span=1):
    """Ticks [n, n + span) of 500 Hz."""
    first, stop = (first_sample(k, rate=mixer.audio.rate, fps=mixer.fps) for k in (n, n + span))
    wave = 0.25 * np.sin(2 * np.pi * 500 * np.arange(first, stop) / mixer.audio.rate)
    return AudioFrame(np.tile(wave.astype(np.float32), (mixer.audio.channels, 1)))


class Paced(StreamSink):
    """Gets no tick before there is room for its picture."""

    async def put(self, *tick):
        while self.statistics().waiting >= QUEUE:
            await trio.sleep(0.001)
        await super().put(*tick)


@asynccontextmanager
async def running(hub, mixer=SMALL, spec=FAST, kind=Paced):
    """A sink whose encoder is open; its stream ends, or is cancelled, with the block."""
    sinks = []
    publisher = Publisher(kind="mix", request_keyframe=lambda: sinks[0].request_keyframe())
    publication = hub.publish(NAME, publisher)
    sinks.append(kind(publication, mixer, spec, now=hub.now, limiter=trio.CapacityLimiter(1)))
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            await nursery.start(sinks[0].run)
            yield sinks[0]
            nursery.cancel_scope.cancel()


async def to_end(reader):
    """All packets up to END."""
    items = []
    while not items or items[-1] is not END:
        items += await reader.receive()
    return items[:-1]


def assert_whole(packets, ticks, mixer=SMALL):
    """The sound of so many ticks is there without a gap, and sounds as the tone."""
    frames = decoded(packets, "audio")
    starts = [pts for pts, _ in frames]
    assert set(np.diff(starts)) == {1024}
    wave = np.concatenate([frame.to_ndarray()[0] for _, frame in frames])[1024:]
    count = first_sample(ticks, rate=mixer.audio.rate, fps=mixer.fps)
    assert len(wave) >= count
    assert np.std(wave[:count] - tone(0, mixer, ticks).samples[0]) < 0.01


async def test_a_mix_comes_out_of_its_stream_whole(hub):
    with hub.read(NAME) as reader:
        async with running(hub) as sink:
            for n in range(40):
                await sink.put(n, numbered(n, SMALL), tone(n))
            sink.end()
            packets = await to_end(reader)
    assert shown(packets) == [(n + 1, n) for n in range(40)]  # sooner than that is only what AAC begins with
    assert_whole(packets, 40)
    statistics = sink.statistics()
    assert (statistics.encoded, statistics.skipped, statistics.keyframes, statistics.waiting) == (40, 0, 1, 0)
    assert 0 < statistics.encode_ms <= statistics.encode_max_ms


async def test_a_late_mixers_picture_is_the_last_ticks(hub):
    with hub.read(NAME) as reader:
        async with running(hub) as sink:
            for n, span in ((0, 1), (1, 5), (6, 1), (7, 20), (27, 1)):
                await sink.put(n, numbered(n, SMALL), tone(n, span=span), span)
            sink.end()
            packets = await to_end(reader)
    assert shown(packets) == [(1, 0), (6, 1), (7, 6), (27, 7), (28, 27)]
    assert_whole(packets, 28)


async def test_packets_arrive_when_they_are_published(hub):
    with hub.read(NAME) as reader:
        async with running(hub) as sink:
            before = ns()
            for n in range(10):
                await sink.put(n, numbered(n, SMALL), tone(n))
            sink.end()
            packets = await to_end(reader)
    arrivals = [packet.arrival for packet in packets]
    assert arrivals == sorted(arrivals)
    assert before < arrivals[0]
    assert arrivals[-1] < ns()


async def test_readers_get_the_same_and_one_who_comes_late_gets_the_present_pictures(hub):
    with hub.read(NAME) as first:
        async with running(hub) as sink:
            for n in range(70):
                await sink.put(n, numbered(n, SMALL), tone(n))
            seen = []
            while sum(packet.is_video for packet in seen) < 70:
                seen += await first.receive()
            with hub.read(NAME) as second:
                for n in range(70, 80):
                    await sink.put(n, numbered(n, SMALL), tone(n))
                sink.end()
                late, rest = await to_end(second), await to_end(first)
    assert shown(late) == [(n + 1, n) for n in range(60, 80)]
    assert [id(packet) for packet in late] == [id(packet) for packet in (seen + rest)[-len(late) :]]


async def test_an_encoder_that_is_too_slow_skips_pictures_and_no_sound(hub, monkeypatch):
    monkeypatch.setattr(stream, "QUEUE_BYTES", 1 << 30)
    ticks = 60
    pictures = [noise(MEDIUM, seed) for seed in range(3)]
    with hub.read(NAME) as reader:
        async with running(hub, MEDIUM, SLOW, StreamSink) as sink:
            for n in range(ticks):
                await sink.put(n, pictures[n % 3], tone(n, MEDIUM))
                assert sink.statistics().waiting <= QUEUE
            sink.end()
            packets = await to_end(reader)
    statistics = sink.statistics()
    assert statistics.skipped > 0
    assert statistics.encoded + statistics.skipped == ticks
    assert statistics.encoded == sum(packet.is_video for packet in packets)
    times = [packet.pts for packet in packets if packet.is_video]
    assert times == sorted(set(times))
    assert times[-1] == ticks  # the newest pictures are those that are kept
    assert_whole(packets, ticks, MEDIUM)


async def test_a_keyframe_comes_when_a_reader_asks_for_it(hub):
    with hub.read(NAME) as reader:
        async with running(hub) as sink:
            packets = []
            for n in range(40):
                if n == 20:
                    hub.published(NAME).request_keyframe()
                await sink.put(n, numbered(n, SMALL), tone(n))
                while sum(packet.is_video for packet in packets) <= n:
                    packets += await reader.receive()
            sink.end()
    assert [packet.pts - 1 for packet in packets if packet.starts_gop] == [0, 20]


async def test_the_last_picture_can_be_looked_at(hub):
    async with running(hub) as sink:
        assert sink.last_picture is None
        picture = numbered(5, SMALL)
        await sink.put(0, picture, tone(0))
        assert sink.last_picture is picture
    assert sink.last_picture is None  # and its memory is free


@pytest.mark.parametrize(
    ("mixer", "spec", "sentence"),
    [
        (MixerSpec(raster=Raster(64, 36), audio=AudioFormat(9000)), FAST, "AAC has no rate of 9000 Hz"),
        (MixerSpec(raster=Raster(64, 36), fps=Fraction("30.1234567891")), FAST, "too many digits"),
        (SMALL, EncoderSpec(quality=0, profile="main"), "quality 0 is lossless, which profile main is not"),
    ],
)
async def test_what_no_encoder_can_do_ends_the_stream_with_a_sentence(hub, mixer, spec, sentence):
    publication = hub.publish(NAME, Publisher(kind="mix"))
    sink = StreamSink(publication, mixer, spec, now=ns, limiter=trio.CapacityLimiter(1))
    with hub.read(NAME) as reader, trio.fail_after(30):
        with pytest.raises(SinkRejected, match=sentence) as caught:
            await sink.run()
        assert await reader.receive() == [END]
        with pytest.raises(SinkError, match=sentence):
            await sink.put(0, numbered(0, SMALL), tone(0))
    assert caught.value.where == NAME
    assert NAME in str(caught.value)


async def test_an_encoder_that_breaks_ends_run_and_who_puts_hears_of_it(hub):
    publication = hub.publish(NAME, Publisher(kind="mix"))
    limiter = trio.CapacityLimiter(1)
    sink = Paced(publication, SMALL, FAST, now=ns, limiter=limiter)
    errors = []

    async def mix():
        crooked = AudioFrame(np.zeros((3, 1600), np.float32))
        try:
            for n in range(100):
                await sink.put(n, numbered(n, SMALL), crooked)
        except SinkError as err:
            errors.append(err)

    with trio.fail_after(30), hub.read(NAME) as reader:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(mix)
            with pytest.raises(SinkRejected, match=f'stream "{NAME}": '):
                await sink.run()
        assert await to_end(reader) == []
    assert len(errors) == 1
    assert hub.streams() == []


async def test_cancelling_closes_the_publication(hub):
    with hub.read(NAME) as reader:
        async with running(hub) as sink:
            await sink.put(0, numbered(0, SMALL), tone(0))
        await to_end(reader)
    assert hub.streams() == []
    with pytest.raises(ActorGone, match=NAME):
        await sink.put(1, numbered(1, SMALL), tone(1))


async def test_an_end_before_the_first_tick(hub):
    with hub.read(NAME) as reader:
        async with running(hub) as sink:
            sink.end()
            assert await to_end(reader) == []
