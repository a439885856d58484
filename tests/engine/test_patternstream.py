"""A pattern is published as if somebody pushed it, says how it is doing, and is refused where no stream can be so."""

import time
from fractions import Fraction

import numpy as np
import pytest
import trio

from engine.errors import AlreadyExists, InvalidSpec, SinkRejected
from engine.patternstream import MAX_LAG, PatternStream, publish_pattern
from engine.sources.pattern import PatternSource
from engine.spec import AudioFormat, MixerSpec, Raster
from engine.stream import Publisher
from tests.engine.clips import decoded, shown
from tests.engine.peers import new_hub

NAME = "live/p"


def stream(hub, pattern):
    return PatternStream(hub, NAME, pattern, limiter=trio.CapacityLimiter(2))


@pytest.mark.parametrize(("pattern", "says"), [("count?rate=240", "240 is not within 1…120"), ("hail", "no pattern")])
async def test_what_no_stream_can_be_is_refused(pattern, says):
    with pytest.raises(InvalidSpec, match=says) as caught:
        stream(new_hub(), pattern)
    assert caught.value.where == "pattern"


async def test_it_publishes_pictures_and_sound_until_it_is_cancelled():
    hub, kinds = new_hub(), set()
    made = stream(hub, "count?size=64x36")
    assert (made.status().state, made.status().url) == ("connecting", "pattern:count?size=64x36")
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            with hub.read(NAME) as reader:
                nursery.start_soon(made.run)
                while kinds != {"video", "audio"}:
                    kinds |= {packet.track.kind for packet in await reader.receive()}
            assert made.status().state == "publishing"
            nursery.cancel_scope.cancel()
    assert not hub.is_published(NAME)


async def test_one_whose_name_is_taken_fails_and_says_so():
    hub = new_hub()
    made = stream(hub, "bars?size=64x36")
    hub.publish(NAME, Publisher(kind="rtmp"))
    with pytest.raises(AlreadyExists):
        await made.run()
    assert (made.status().state, made.status().error) == ("failed", f'stream "{NAME}" is already published (rtmp)')


class Clock:
    """The engine's clock, which a machine that sleeps can make leap."""

    def __init__(self):
        self.leap = 0

    def __call__(self):
        return time.monotonic_ns() + self.leap


async def published(*, count, mixer, url="pattern:count?size=64x36", now=time.monotonic_ns, leap_at=None):
    """The first packets of a pattern, as many pictures; the clock leaps by ten seconds after `leap_at` of them."""
    source = PatternSource("pattern", url, sound=mixer.audio)
    hub = new_hub()
    publication = hub.publish(NAME, Publisher(kind="pattern"))
    packets = []
    limiter = trio.CapacityLimiter(1)
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: publish_pattern(publication, source, mixer=mixer, now=now, limiter=limiter))
            with hub.read(NAME) as reader:
                while sum(packet.is_video for packet in packets) < count:
                    packets += await reader.receive()
                    if leap_at is not None and sum(packet.is_video for packet in packets) >= leap_at:
                        leap_at, now.leap = None, 10 * 10**9
            nursery.cancel_scope.cancel()
    assert hub.streams() == []
    return packets


@pytest.mark.parametrize(
    ("fps", "channels"), [(Fraction(60), 1), (Fraction(30_000, 1001), 2), (Fraction(120), 2)], ids=str
)
async def test_a_pattern_is_published_in_real_time(fps, channels):
    mixer = MixerSpec(raster=Raster(64, 36), fps=fps, audio=AudioFormat(44_100, channels))
    began = time.monotonic_ns()
    packets = await published(count=20, mixer=mixer, url=f"pattern:count?size=64x36&rate={fps}")
    found = shown(packets)
    lead = found[0][0]
    assert found == [(n + lead, n) for n in range(len(found))]
    for packet in packets:
        if packet.is_video:
            assert packet.arrival - began >= int((packet.pts - lead) / fps * 10**9)  # never early
    starts = [pts for pts, _ in decoded(packets, "audio")]
    assert set(np.diff(starts)) == {1024}
    assert {packet.track.channels for packet in packets if not packet.is_video} == {channels}


async def test_a_pattern_of_another_rate_is_shown_again():
    mixer = MixerSpec(raster=Raster(64, 36), fps=Fraction(60))
    packets = await published(count=20, mixer=mixer, url="pattern:count?size=64x36&rate=30")
    assert [number for _, number in shown(packets)][:16] == [n // 2 for n in range(16)]


async def test_a_pattern_that_stood_still_goes_on_from_now():
    mixer = MixerSpec(raster=Raster(64, 36), fps=Fraction(60))
    packets = await published(count=40, mixer=mixer, url="pattern:count?size=64x36&rate=60", now=Clock(), leap_at=10)
    found = shown(packets)
    assert all(pts == number + 2 for pts, number in found)
    (hole,) = (step for step in np.diff([pts for pts, _ in found]) if step != 1)
    assert hole > MAX_LAG * 60
    sounds = [packet for packet in packets if not packet.is_video]
    gaps = np.diff([packet.pts for packet in sounds])
    assert sorted(set(gaps))[0] == 1024
    assert abs(int(gaps.max()) - int(hole) * 800) <= 2048


async def test_a_pattern_that_cannot_be_encoded_says_so():
    hub = new_hub()
    publication = hub.publish(NAME, Publisher(kind="pattern"))
    mixer = MixerSpec(raster=Raster(64, 36), audio=AudioFormat(9000, 1))
    source = PatternSource("pattern", "pattern:bars", sound=mixer.audio)
    with trio.fail_after(30), pytest.raises(SinkRejected, match="AAC has no rate"):
        await publish_pattern(publication, source, mixer=mixer, now=time.monotonic_ns, limiter=trio.CapacityLimiter(1))
    assert hub.streams() == []
