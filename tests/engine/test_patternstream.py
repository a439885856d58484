"""A pattern is published as if somebody pushed it, says how it is doing, and is refused where no stream can be so."""

import pytest
import trio

from engine.errors import AlreadyExists, InvalidSpec
from engine.patternstream import PatternStream
from engine.stream import Publisher
from tests.engine.peers import new_hub


def stream(hub, pattern):
    return PatternStream(hub, "live/p", pattern, limiter=trio.CapacityLimiter(2))


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
            with hub.read("live/p") as reader:
                nursery.start_soon(made.run)
                while kinds != {"video", "audio"}:
                    kinds |= {packet.track.kind for packet in await reader.receive()}
            assert made.status().state == "publishing"
            nursery.cancel_scope.cancel()
    assert not hub.is_published("live/p")


async def test_one_whose_name_is_taken_fails_and_says_so():
    hub = new_hub()
    made = stream(hub, "bars?size=64x36")
    hub.publish("live/p", Publisher(kind="rtmp"))
    with pytest.raises(AlreadyExists):
        await made.run()
    assert (made.status().state, made.status().error) == ("failed", 'stream "live/p" is already published (rtmp)')
