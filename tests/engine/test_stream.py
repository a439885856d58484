"""Streams: who comes in the middle has a picture at once, who is slow loses whole GOPs and harms nobody."""

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from engine import stream
from engine.errors import AlreadyExists, InvalidSpec, NotFound
from engine.packet import Packet, Track
from engine.stream import END, GOP_PACKETS, Hub, Publisher, check_name

VIDEO = Track(kind="video", codec="h264", width=64, height=36)
AUDIO = Track(kind="audio", codec="aac", rate=48_000, channels=2)
MS = 1_000_000


class World:
    """A hub on a clock that stands still."""

    def __init__(self):
        self.time = 0
        self.changes = []
        self.hub = Hub(lambda: self.time, changed=lambda stream: self.changes.append((stream.name, stream.publication)))

    def publish(self, name="live/cam", **options):
        return self.hub.publish(name, Publisher(kind="rtmp", peer="here", **options))


def picture(n, *, key=False, size=10, arrival=0):
    return Packet(VIDEO, bytes(size), pts=n, dts=n, arrival=arrival, keyframe=key)


def sound(n, *, arrival=0):
    return Packet(AUDIO, b"aac", pts=n, dts=n, arrival=arrival)


def names(items):
    return ["end" if item is END else f"{item.track.kind[0]}{item.pts}" for item in items]


def now_in(reader):
    """What waits in a reader's queue."""
    return names(reader._items)


async def test_a_reader_who_comes_in_the_middle_gets_the_packets_since_the_last_keyframe():
    world = World()
    publication = world.publish()
    for packet in (sound(0), picture(0, key=True), picture(1), picture(2, key=True), sound(1), picture(3)):
        publication.send(packet)
    with world.hub.read("live/cam") as reader:
        publication.send(picture(4))
        assert names(await reader.receive()) == ["v2", "a1", "v3", "v4"]


async def test_a_reader_who_comes_in_the_middle_of_a_gop_larger_than_its_queue_has_all_of_it():
    world = World()
    publication = world.publish()
    for n in range(30):
        publication.send(picture(n, key=n == 0, size=1 << 20))
    with world.hub.read("live/cam") as reader:
        publication.send(picture(30))
        assert names(await reader.receive()) == [f"v{n}" for n in range(31)]
        assert reader.dropped == 0


async def test_a_stream_is_the_same_for_those_who_wait_before_between_and_after_publishers():
    world = World()
    with world.hub.read("live/cam") as reader:
        for n in range(2):
            publication = world.publish()
            publication.send(picture(n, key=True))
            publication.close()
            publication.close()
            publication.send(picture(99, key=True))
        assert names(await reader.receive()) == ["v0", "end", "v1", "end"]
        assert reader.stream.status().publications == 2
    assert world.hub.streams() == []
    assert [(name, publication is None) for name, publication in world.changes] == [
        ("live/cam", False),
        ("live/cam", True),
    ] * 2


async def test_after_an_end_the_first_picture_is_a_keyframe_again():
    world = World()
    with world.hub.read("live/cam") as reader:
        for _ in range(2):
            publication = world.publish()
            publication.send(picture(0))
            publication.send(picture(1, key=True))
            publication.send(picture(2))
            publication.close()
        assert names(await reader.receive()) == ["v1", "v2", "end"] * 2


async def test_a_slow_reader_loses_what_waits_and_goes_on_at_a_keyframe_the_others_lose_nothing(monkeypatch):
    monkeypatch.setattr(stream, "QUEUE_PACKETS", 4)
    world = World()
    publication = world.publish()
    with world.hub.read("live/cam") as slow, world.hub.read("live/cam") as quick:
        for n in range(8):
            publication.send(picture(n, key=n in (0, 6)))
            publication.send(sound(n))
            assert names(await quick.receive()) == [f"v{n}", f"a{n}"]
        assert now_in(slow) == ["v6", "a6", "v7", "a7"]
        assert (
            slow.dropped == 10 + 2
        )  # the pictures and sounds before, but for the sounds that came when nothing waited
        assert quick.dropped == 0
        assert world.hub.streams()[0].status().dropped == slow.dropped


async def test_to_who_was_slow_nothing_is_lost_of_the_next_publisher_before_its_first_keyframe(monkeypatch):
    monkeypatch.setattr(stream, "QUEUE_PACKETS", 2)
    world = World()
    with world.hub.read("live/cam") as reader:
        publication = world.publish()
        for n in range(4):
            publication.send(picture(n, key=n == 0))
        publication.close()
        assert (now_in(reader), reader.dropped) == (["end"], 4)
        publication = world.publish()
        for n in range(4):
            publication.send(picture(n, key=n == 3))
        assert (now_in(reader), reader.dropped) == (["end", "v3"], 4)


async def test_a_queue_is_bounded_in_bytes_too(monkeypatch):
    monkeypatch.setattr(stream, "QUEUE_BYTES", 1000)
    world = World()
    publication = world.publish()
    with world.hub.read("live/cam") as reader:
        for n in range(100):
            publication.send(picture(n, key=n % 10 == 0, size=300))
            assert sum(len(item.data) for item in reader._items) <= 1000


@given(st.lists(st.tuples(st.sampled_from("kva"), st.integers(1, 40)), max_size=60), st.integers(1, 8))
def test_every_packet_is_given_or_counted_and_pictures_begin_with_keyframes(packets, limit):
    world = World()
    publication = world.publish()
    with pytest.MonkeyPatch.context() as patch, world.hub.read("live/cam") as reader:
        patch.setattr(stream, "QUEUE_PACKETS", limit)
        unbegun = 0
        begun = False
        for n, (kind, size) in enumerate(packets):
            begun = begun or kind == "k"
            unbegun += kind == "v" and not begun
            publication.send(sound(n) if kind == "a" else picture(n, key=kind == "k", size=size))
        given_items = [item for item in reader._items if item is not END]
        lost_before = unbegun if not reader.dropped else None
        pictures = [item for item in given_items if item.is_video]
        if pictures and (reader.dropped or unbegun):
            assert pictures[0].keyframe or not reader.dropped
        if lost_before is not None:
            assert len(given_items) + unbegun == len(packets)
        assert len(given_items) <= limit
        assert [item.pts for item in given_items] == sorted(item.pts for item in given_items)


async def test_who_wants_no_more_than_so_much_has_it_in_portions_and_the_rest_waits():
    world = World()
    publication = world.publish()
    for n in range(3):
        publication.send(picture(n, key=n == 0, size=10))
    with world.hub.read("live/cam") as reader:
        for n in range(3, 6):
            publication.send(picture(n, size=10))
        publication.close()
        portions = []
        while END not in portions[-1:]:
            items = await reader.receive(most=20)
            portions += [names(items), *(item for item in items if item is END)]
    assert portions == [["v0", "v1"], ["v2", "v3"], ["v4", "v5"], ["end"], END]


async def test_a_packet_larger_than_a_portion_comes_whole():
    world = World()
    publication = world.publish()
    with world.hub.read("live/cam") as reader:
        for n in range(2):
            publication.send(picture(n, key=n == 0, size=100))
        assert names(await reader.receive(most=20)) == ["v0"]
        assert names(await reader.receive()) == ["v1"]


@pytest.mark.parametrize("gop", [1, 30])
async def test_who_takes_portions_has_room_for_as_much_as_others(monkeypatch, gop):
    """Whatever it began with, which is the stream's, and whatever it has taken: it is slow when so much more waits."""
    monkeypatch.setattr(stream, "QUEUE_BYTES", 1000)
    world = World()
    publication = world.publish()
    for n in range(gop):
        publication.send(picture(n, key=n == 0, size=100))
    with world.hub.read("live/cam") as reader:
        for n in range(10):
            publication.send(picture(gop + n, size=100))
        while len(now_in(reader)) > 5:
            await reader.receive(most=100)
        for n in range(5):
            publication.send(picture(gop + 10 + n, size=100))
        assert (reader.dropped, reader.waiting) == (0, 10)
        publication.send(picture(gop + 15, size=100))
        assert (reader.dropped, reader.waiting) == (11, 0)


async def test_of_what_a_reader_began_with_nothing_is_owed_when_it_was_thrown_away(monkeypatch):
    monkeypatch.setattr(stream, "QUEUE_BYTES", 1000)
    world = World()
    publication = world.publish()
    for n in range(5):
        publication.send(picture(n, key=n == 0, size=100))
    with world.hub.read("live/cam") as reader:
        for n in range(11):
            publication.send(picture(5 + n, key=n == 10, size=100))
        assert (now_in(reader), reader.dropped) == (["v15"], 15)
        for n in range(9):
            publication.send(picture(16 + n, size=100))
        await reader.receive(most=500)
        for n in range(5):
            publication.send(picture(25 + n, size=100))
        assert (reader.dropped, reader.waiting) == (15, 10)
        publication.send(picture(30, size=100))
        assert reader.waiting == 0


async def test_a_second_publisher_is_refused_and_the_first_unharmed():
    world = World()
    first = world.publish()
    with world.hub.read("live/cam") as reader:
        with pytest.raises(AlreadyExists, match="live/cam"):
            world.publish()
        first.send(picture(0, key=True))
        assert names(await reader.receive()) == ["v0"]


async def test_a_reader_that_waits_is_woken_by_a_packet_and_by_its_closing():
    world = World()
    publication = world.publish()
    got = []
    reader = world.hub.read("live/cam")

    async def follow():
        while END not in (items := await reader.receive()):
            got.extend(items)

    with trio.fail_after(2):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow)
            await trio.testing.wait_all_tasks_blocked()
            publication.send(sound(0))
            await trio.testing.wait_all_tasks_blocked()
            assert names(got) == ["a0"]
            reader.close()
            reader.close()


async def test_who_must_find_a_stream_is_told_that_there_is_none():
    world = World()
    with pytest.raises(NotFound, match="live/cam"):
        world.hub.read("live/cam", must_exist=True)
    with world.hub.read("live/cam"), pytest.raises(NotFound):
        world.hub.published("live/cam")
    assert world.hub.streams() == []


def test_the_gop_cache_is_bounded_and_empty_without_a_keyframe():
    world = World()
    publication = world.publish()
    publication.send(picture(0, key=True))
    for n in range(1, GOP_PACKETS):
        publication.send(picture(n))
    stream = publication.stream
    assert len(stream.gop) == GOP_PACKETS
    publication.send(picture(GOP_PACKETS))
    assert stream.gop == []
    with world.hub.read("live/cam") as reader:
        publication.send(sound(1))
        publication.send(picture(1))
        publication.send(picture(2, key=True))
        assert now_in(reader) == ["a1", "v2"]
        assert reader.dropped == 0


def test_the_gop_cache_is_bounded_in_bytes_too(monkeypatch):
    monkeypatch.setattr(stream, "GOP_BYTES", 1000)
    publication = World().publish()
    for key in (True, False):
        publication.send(picture(0, key=True, size=400))
        publication.send(picture(1, size=600))
        assert len(publication.stream.gop) == 2
        publication.send(picture(2, key=key, size=400))
        assert len(publication.stream.gop) == key


def test_who_comes_while_a_camera_is_off_and_its_microphone_is_not_hears_what_is_said_now():
    world = World()
    publication = world.publish()
    for packet in (picture(0, key=True), picture(1), *(sound(n, arrival=n * 1000 * MS) for n in range(13))):
        publication.send(packet)
    with world.hub.read("live/cam") as reader:  # as long as keyframes may be apart: a slide, and what is said about it
        assert now_in(reader)[:3] == ["v0", "v1", "a0"]
    publication.send(sound(13, arrival=13_000 * MS))
    with world.hub.read("live/cam") as reader:
        for packet in (sound(14), picture(2), picture(3, key=True)):
            publication.send(packet)
        assert now_in(reader) == ["a14", "v3"]


def test_a_status_tells_rates_over_the_last_second_and_the_age_of_the_last_picture():
    world = World()
    asked = []
    publication = world.publish(request_keyframe=lambda: asked.append(1))
    for n in range(90):
        world.time = n * 40 * MS
        publication.send(picture(n, key=n % 50 == 0, size=1000, arrival=world.time))
        publication.send(sound(n, arrival=world.time))
    world.time += 70 * MS
    status = publication.stream.status()
    assert (status.publisher, status.peer, status.age_ms, status.uptime_ms) == ("rtmp", "here", 70, 89 * 40 + 70)
    assert (status.video.frame_rate, status.video.bit_rate, status.video.packets) == (24, 8 * 24_000, 90)
    assert (status.video.width, status.video.height, status.audio.sample_rate, status.audio.channels) == (
        64,
        36,
        48_000,
        2,
    )
    publication.stream.request_keyframe()
    assert asked == [1]
    world.time += 5_000 * MS
    assert publication.stream.status().video.bit_rate == 0


def test_of_a_stream_that_nobody_publishes_a_status_tells_who_waits_and_nothing_else():
    world = World()
    world.time = 5_000 * MS
    with world.hub.read("live/cam") as reader:
        status = reader.stream.status()
        assert (status.publisher, status.peer, status.uptime_ms, status.age_ms) == (None, "", 0, None)
        assert (status.video, status.audio, status.readers, status.publications) == (None, None, 1, 0)


@pytest.mark.parametrize("ahead", [500, 1900])
def test_rates_do_not_count_what_is_sent_ahead_of_its_time(ahead):
    world = World()
    publication = world.publish()
    for n in range(90):
        world.time = n * 40 * MS
        publication.send(picture(n, key=n % 50 == 0, size=1000, arrival=world.time + ahead * MS))
    status = publication.stream.status()
    assert (status.video.frame_rate, status.video.bit_rate, status.age_ms) == (25, 8 * 25_000, 0)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "0 characters"),
        ("a" * 1025, "1025 characters"),
        ("live//cam", "empty"),
        ("/live", "empty"),
        ("live/", "empty"),
        ("live/../cam", '".."'),
        (".", '"."'),
        ("live/c\nam", "control"),
        ("live\\cam", "backslash"),
    ],
)
def test_a_name_that_could_mislead_is_refused(name, why):
    with pytest.raises(InvalidSpec, match=why.replace(".", r"\.")):
        check_name(name)
    with pytest.raises(InvalidSpec):
        World().hub.read(name)


@pytest.mark.parametrize("name", ["live/stream1", "a", "live/eins/zwei", "лайв/камера 1", "a" * 1024])
def test_other_names_are_taken(name):
    assert World().publish(name).stream.name == name
