"""Pushes to servers that take, refuse, stall, hang up and come back: what arrives, what is told, what others lose."""

import ctypes
import math
import random
import signal
import socket
import ssl
import struct
import subprocess
import sys
import time
from contextlib import asynccontextmanager, suppress
from fractions import Fraction
from functools import partial
from itertools import count, pairwise
from pathlib import Path

import pytest
import trio

from engine.errors import InvalidSpec
from engine.link import PINGS, Link
from engine.packet import Packet, Track
from engine.rtmp import Accepted, Closed, Connect, Metadata, Publish, Rejected, StreamEnded, amf, chunk
from engine.rtmp.chunk import Message
from engine.rtmp.session import Session
from engine.sinks.push import APART_MS, BACK_MS, MAX_ERROR, Patience, Push, Rebase, parse_url
from engine.stream import END, Publisher
from tests.engine.clips import packets
from tests.engine.peers import ASC, AVCC, listening, new_hub
from tests.waiting import until

QUICK = Patience(connect=0.3, stall=0.3, retry=0.02, retry_most=0.04)
CERTIFICATE = Path(__file__).parents[1] / "localhost.pem"
VIDEO = Track(kind="video", codec="h264", extradata=AVCC, width=64, height=36)
AUDIO = Track(kind="audio", codec="aac", extradata=ASC, rate=48_000, channels=2)


def picture(n, *, keyframe=False, size=100):
    return Packet(
        VIDEO,
        n.to_bytes(4, "big") + bytes(size),
        pts=40 * n + 40,
        dts=40 * n,
        arrival=40_000_000 * n,
        keyframe=keyframe,
    )


def sound(n):
    return Packet(AUDIO, b"sound%d" % n, pts=20 * n, dts=20 * n, arrival=20_000_000 * n)


def publish(hub, name="live/x"):
    return hub.publish(name, Publisher(kind="test"))


@asynccontextmanager
async def pushing(hub, url, *, name="live/x", patience=QUICK, **options):
    """A push that runs."""
    push = Push(hub, name, url, id="1", patience=patience, **options)
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(push.run)
            yield push
            nursery.cancel_scope.cancel()


async def received(reader, count):
    """So many packets."""
    found = []
    while len(found) < count:
        found += await reader.receive()
    assert END not in found
    return found


# --- URLs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "address", "app", "key", "tc_url"),
    [
        ("rtmp://h/live/x", "h:1935", "live", "x", "rtmp://h/live"),
        ("rtmp://h:1936/a/b/c?k=1&z=/2", "h:1936", "a/b", "c?k=1&z=/2", "rtmp://h:1936/a/b"),
        ("rtmps://u:p@h/live/x", "h:443", "live", "x", "rtmps://h/live"),
        ("rtmps://h:443//live/x/", "h:443", "live", "x", "rtmps://h/live"),
        ("rtmp://[::1]/live/x#1", "[::1]:1935", "live", "x#1", "rtmp://[::1]/live"),
        ("RTMP://Host:1/live/é%20", "host:1", "live", "é%20", "rtmp://host:1/live"),
    ],
)
def test_a_url_names_server_app_and_stream(url, address, app, key, tc_url):
    target = parse_url(url)
    assert (target.address, target.app, target.key, target.tc_url) == (address, app, key, tc_url)


def test_a_url_has_a_user_whose_password_is_not_shown_nor_is_the_query():
    target = parse_url("rtmp://m%40e:s%2Fecret@h:7/live/x?token=abc")
    assert (target.user, target.password) == ("m@e", "s/ecret")
    assert target.shown == "rtmp://m%40e:***@h:7/live/x?***"
    assert parse_url("rtmps://h/live/x").shown == "rtmps://h/live/x"
    assert parse_url("rtmp://h/live2/abcd-efgh-ijkl-mnop").shown == "rtmp://h/live2/abcd***"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("app/live_9f8e+7d6c%2F5b4a?k=to%2Fken&1 is taken", "app/live***?*** is taken"),
        ("no stream live_9f8e+7d6c/5b4a", "no stream live***"),
        ("no stream live_9f8e 7d6c/5b4a", "no stream live***"),
        ("no stream live_9f8e%2B7d6c/5b4a", "no stream live***"),
        ("no stream live_9f8e%2B7d6c%2F5b4a", "no stream live***"),
        ('token "to/ken" of &amp;k=to%2Fken is over', 'token "***" of &amp;k=*** is over'),
        ("k: p/word is not me's", "k: *** is not me's"),
        ("live 1 is not on air, live_9f8e is", "live 1 is not on air, live_9f8e is"),
    ],
)
def test_what_a_server_says_is_told_without_what_is_not_shown_of_the_url(said, told):
    target = parse_url("rtmp://me:p%2Fword@h/app/live_9f8e+7d6c%2F5b4a?k=to%2Fken&1")
    assert target.veil(said) == told


def test_a_plain_name_stays_in_what_a_server_says():
    assert parse_url("rtmp://h/app/x").veil("app/x is on Xtra: ?x") == "app/x is on Xtra: ?x"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "live/x",
        "http://h/live/x",
        "rtmp:///live/x",
        "rtmp://h",
        "rtmp://h/x",
        "rtmp://h/x/",
        "rtmp://h:0/live/x",
        "rtmp://h:99999/live/x",
        "rtmp://h:port/live/x",
        "rtmp://[::1/live/x",
        "rtmp://h/live/x y",
        "rtmp://u:12/34secret@h/live/x",
        "rtmp://u:/secret@h/live/x",
        "rtmp://h/live/x\n",
        "rtmp://h/live/" + "x" * 4096,
    ],
)
def test_other_urls_are_refused(url):
    with pytest.raises(InvalidSpec) as caught:
        Push(new_hub(), "live/x", url, id="1")
    assert caught.value.where == "url"


def test_a_bad_stream_name_is_refused():
    with pytest.raises(InvalidSpec):
        Push(new_hub(), "live//x", "rtmp://h/live/x", id="1")


# --- time stamps -----------------------------------------------------------------------------------------------------


def placed(*stamps):
    """The dts of packets with these (dts, arrival) in ms."""
    rebase = Rebase()
    return [rebase.place(Packet(VIDEO, b"", pts=dts, dts=dts, arrival=at * 1_000_000)) for dts, at in stamps]


def test_time_stamps_begin_at_zero_and_run_as_the_streams():
    assert placed((5000, 0), (4990, 0), (5040, 40), (5020, 41), (5080, 80)) == [0, 0, 40, 20, 80]


def test_sound_from_before_the_first_picture_is_left_out():
    rebase = Rebase()
    placed = [
        rebase.place(packet) for packet in (picture(50), sound(80), sound(99), sound(100), picture(51), sound(103))
    ]
    assert placed == [0, None, None, 0, 40, 60]


def test_after_a_silence_they_go_on_as_the_streams():
    assert placed((0, 0), (60_000, 60_000)) == [0, 60_000]


def test_segments_that_come_at_once_are_no_jump():
    assert placed((0, 0), (10_000, 1), (20_000, 2)) == [0, 10_000, 20_000]


def test_where_the_stream_jumps_they_go_on_by_the_time_that_passed():
    assert placed((3_600_000, 0), (3_600_040, 40), (0, 80), (40, 120)) == [0, 40, 80, 120]
    assert placed((0, 0), (86_400_000, 40), (86_400_040, 80)) == [0, 40, 80]


def test_sound_comes_with_old_stamps_for_a_while_when_pictures_have_jumped():
    rebase = Rebase()
    stamps = [(VIDEO, 5000, 0), (AUDIO, 5010, 5), (VIDEO, 0, 40), (AUDIO, 5030, 41), (AUDIO, 20, 60), (VIDEO, 40, 80)]
    packets = [Packet(track, b"", pts=dts, dts=dts, arrival=at * 1_000_000) for track, dts, at in stamps]
    assert [rebase.place(packet) for packet in packets] == [0, 10, 45, 30, 65, 85]


def as_stamped(kind, t):
    return t


def shifts(stamp=as_stamped, *, late=0, seconds=30):
    """By how many ms each packet is given later than it was made, in order of sending: (kind, made at, later).

    stamp  the dts of the packet of a kind that is made at t, ms; None: there is none.
    late   how much later than pictures of the same time sound is sent, ms; below 0: earlier.
    """
    made = [(t, track) for t in range(0, 1000 * seconds, 40) for track in (VIDEO, AUDIO)]
    made.sort(key=lambda each: each[0] + (late if each[1] is AUDIO else 0))
    rebase, found = Rebase(), []
    for t, track in made:
        arrival, dts = 20_000 + t + (late if track is AUDIO else 0), stamp(track.kind, t)
        if dts is not None:
            dts += 3_600_000
            at = rebase.place(Packet(track, b"", pts=dts, dts=dts, arrival=arrival * 1_000_000))
            found += [] if at is None else [(track.kind, t, at - t)]
    return found


def last_shifts(found):
    """By how many ms the last picture and the last sound are given later than they were made."""
    later = {kind: later for kind, _, later in found}
    return later["video"], later["audio"]


LATE = pytest.mark.parametrize("late", [0, 300, -300, 1500, -1500, 5000, -5000])


@LATE
def test_sound_that_is_sent_far_from_its_pictures_is_in_step_with_them(late):
    found = shifts(late=late)
    assert len({later for _, _, later in found}) == 1


@LATE
@pytest.mark.parametrize("by", [-3_600_000, -12_000, -5000, -1200, 5000, 20_000, 86_400_000])
def test_sound_and_picture_are_in_step_again_when_both_have_jumped(late, by):
    found = shifts(lambda kind, t: t + (by if t >= 10_000 else 0), late=late)
    assert len({later for _, t, later in found if t < 10_000}) == 1
    assert len({later for _, t, later in found if t >= 10_000}) == 1
    for kind in ("video", "audio"):
        given = [t + later for each, t, later in found if each == kind]
        assert given == sorted(given)


@pytest.mark.parametrize("away", ["video", "audio"])
@pytest.mark.parametrize("by", [0, -3_600_000, -5000, -1200, 20_000])
@pytest.mark.parametrize("pause", [(5000, 20_000), (9000, 10_100), (9900, 12_000), (10_000, 25_000)])
def test_sound_or_picture_that_pauses_while_the_other_jumps_comes_back_in_step(away, by, pause):
    def stamp(kind, t):
        return None if kind == away and pause[0] <= t < pause[1] else t + (by if t >= 10_000 else 0)

    picture, sound = last_shifts(shifts(stamp))
    assert picture == pytest.approx(sound, abs=1)


def test_sound_whose_clock_stood_still_in_a_long_pause_comes_back_with_the_pictures():
    def stamp(kind, t):
        if kind == "video" or t < 5000:
            return t
        return t - 20_000 if t >= 25_000 else None

    found = shifts(stamp)
    picture, sound = last_shifts(found)
    assert picture == 0
    assert sound == pytest.approx(0, abs=1)


def test_sound_and_picture_whose_clocks_never_agree_go_on_beside_each_other():
    found = shifts(lambda kind, t: t - 3_000_000 if kind == "audio" else t, seconds=20)
    assert len(found) == 2 * 20 * 25
    assert {later for kind, _, later in found if kind == "video"} == {0}
    assert {later for kind, _, later in found if kind == "audio"} == {1}


@pytest.mark.parametrize("most", [1100, 4000, 12_000])
def test_sound_that_is_held_up_once_is_in_step(most):
    """Sound comes 700 ms behind its pictures; once it is `most` ms behind, and then all that waited comes at once."""
    rebase, found = Rebase(), []
    made = [(max(t + 700, 10_000 + most if t >= 10_000 else 0), AUDIO, t) for t in range(0, 30_000, 40)]
    for arrival, track, t in sorted(made + [(t, VIDEO, t) for t in range(0, 30_000, 40)], key=lambda each: each[0]):
        found.append(rebase.place(Packet(track, b"", pts=t, dts=t, arrival=arrival * 1_000_000)) - t)
    assert set(found) == {0}


@pytest.mark.parametrize("late", [0, 1500, -1500])
@pytest.mark.parametrize("lost", ["video", "audio"])
@pytest.mark.parametrize("by", [-3_600_000, -1200, 1200, 14_000])
@pytest.mark.parametrize("length", [40, 2000])
def test_sound_and_picture_are_in_step_again_when_one_of_them_alone_had_wrong_stamps(late, lost, by, length):
    found = shifts(lambda kind, t: t + (by if kind == lost and 10_000 <= t < 10_000 + length else 0), late=late)
    assert len({later for _, t, later in found if t >= 10_000 + length + APART_MS + 1000 + abs(late)}) == 1


@pytest.mark.parametrize("reset", ["video", "audio"])
@pytest.mark.parametrize("at", [6000, 12_000, 20_000])
def test_sound_or_picture_whose_clock_begins_again_is_in_step(reset, at):
    found = shifts(lambda kind, t: t - at if kind == reset and t >= at else t)
    assert {later for _, t, later in found if t < at} == {0}
    assert {later for _, _, later in found} <= {0, 1}


@pytest.mark.parametrize("added", ["video", "audio"])
@pytest.mark.parametrize("at", [6000, 10_000, 20_000])
def test_sound_or_picture_that_is_added_with_a_clock_of_its_own_is_in_step(added, at):
    def stamp(kind, t):
        if kind != added:
            return t
        return t - at if t >= at else None

    found = shifts(stamp)
    assert any(kind == added for kind, _, _ in found)
    assert {later for _, _, later in found} <= {0, 1}


@pytest.mark.parametrize("seed", range(20))
def test_time_stamps_of_a_kind_never_go_far_back_however_both_jump(seed):
    chance = random.Random(seed)
    jumps = [
        (chance.randrange(30_000), kind, chance.randint(-most, most))
        for most in (3000, 16_000, 40_000)
        for kind in ("video", "audio")
    ]
    late = chance.randint(-6000, 6000)
    found = shifts(lambda kind, t: t + sum(by for at, each, by in jumps if each == kind and t >= at), late=late)
    for kind in ("video", "audio"):
        given = [t + later for each, t, later in found if each == kind]
        assert all(b >= a - BACK_MS for a, b in pairwise(given))


# --- servers ---------------------------------------------------------------------------------------------------------


async def test_all_packets_arrive_from_the_last_keyframe_on_with_times_from_zero():
    here, there = new_hub(), new_hub()
    with there.read("app/y") as reader:
        async with listening(there) as server:
            publication = publish(here)
            for packet in (picture(100), picture(101, keyframe=True), sound(203), picture(102)):
                publication.send(packet)
            async with pushing(here, f"rtmp://127.0.0.1:{server.port}/app/y?token=1") as push:
                first = await received(reader, 3)
                publication.send(sound(204))
                publication.send(picture(103))
                rest = await received(reader, 2)
                await until(lambda: push.status().packets == 5)
                status = push.status()
    arrived = [(packet.track.codec, packet.dts, packet.pts, packet.keyframe) for packet in first + rest]
    assert arrived == [
        ("h264", 0, 40, True),
        ("aac", 20, 20, True),
        ("h264", 40, 80, False),
        ("aac", 40, 40, True),
        ("h264", 80, 120, False),
    ]
    assert [packet.data for packet in first] == [picture(101).data, sound(203).data, picture(102).data]
    assert first[0].track.extradata == AVCC
    assert (first[1].track.extradata, first[1].track.rate) == (ASC, 48_000)
    assert (status.state, status.error, status.connects, status.dropped) == ("pushing", "", 1, 0)
    assert status.url == f"rtmp://127.0.0.1:{server.port}/app/y?***"
    assert status.bytes > 3000


async def test_a_film_with_reordered_pictures_arrives_whole(media):
    here, there = new_hub(), new_hub()
    film = packets(media.path("plain"))
    with there.read("app/y") as reader:
        async with listening(there) as server:
            publication = publish(here)
            publication.send(film[0])
            async with pushing(here, f"rtmp://127.0.0.1:{server.port}/app/y") as push:
                await until(lambda: push.status().state == "pushing")
                for packet in film[1:]:
                    publication.send(packet)
                arrived = await received(reader, len(film))
    zero = film[0].dts_ms
    assert [packet.data for packet in arrived] == [packet.data for packet in film]
    assert all(abs(b.dts - (a.dts_ms - zero)) <= 1 for a, b in zip(film, arrived, strict=True) if a.dts_ms >= zero)
    assert [b.pts - b.dts for b in arrived] == [a.pts_ms - a.dts_ms for a in film]


async def test_sound_that_is_sent_far_behind_its_pictures_arrives_in_step_with_them():
    here, there = new_hub(), new_hub()
    behind = 38  # pictures, of 40 ms
    with there.read("app/y") as reader:
        async with listening(there) as server:
            publication = publish(here)
            publication.send(picture(0, keyframe=True))
            async with pushing(here, f"rtmp://127.0.0.1:{server.port}/app/y") as push:
                await until(lambda: push.status().state == "pushing")
                for n in range(1, 100):
                    publication.send(picture(n))
                    if n >= behind:
                        publication.send(sound(2 * (n - behind)))
                arrived = await received(reader, 100 + 100 - behind)
    assert [packet.dts for packet in arrived if packet.track.kind == "video"] == [40 * n for n in range(100)]
    assert [packet.dts for packet in arrived if packet.track.kind == "audio"] == [40 * n for n in range(100 - behind)]


async def test_it_waits_for_a_publisher_and_for_the_next_one():
    here, there = new_hub(), new_hub()
    states = []
    with there.read("app/y") as reader:
        async with listening(there) as server:
            url = f"rtmp://127.0.0.1:{server.port}/app/y"
            async with pushing(here, url, changed=lambda: states.append(push.status().state)) as push:
                for n in (0, 1000):
                    await until(lambda: states[-1:] == ["waiting"])
                    publication = publish(here)
                    publication.send(picture(n, keyframe=True))
                    (packet,) = await received(reader, 1)
                    assert packet.dts == 0
                    publication.close()
                    assert await reader.receive() == [END]
                await until(lambda: states[-1:] == ["waiting"])
            assert push.status().connects == 2
    assert states == ["waiting", "connecting", "pushing"] * 2 + ["waiting"]


async def test_a_server_that_refuses_connections_is_tried_until_it_appears(caplog):
    here, there = new_hub(), new_hub()
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    publication = publish(here)
    publication.send(picture(0, keyframe=True))
    states = []
    url = f"rtmp://127.0.0.1:{port}/live/y"
    async with pushing(here, url, changed=lambda: states.append(push.status().state)) as push:
        await until(lambda: states.count("retrying") >= 3)
        assert push.status().error == f"127.0.0.1:{port} cannot be reached: connection refused"
        async with listening(there, port=port):
            await until(lambda: push.status().state == "pushing")
            assert push.status().error == ""
        await until(lambda: push.status().state == "retrying")  # gone again
        async with listening(there, port=port):
            await until(lambda: push.status().state == "pushing")
    assert push.status().connects == 2
    assert sum("cannot be reached" in record.getMessage() for record in caplog.records) <= 2


async def test_a_refused_name_is_told_and_tried_again():
    here, there = new_hub(), new_hub()
    other = there.publish("app/y", Publisher(kind="test"))
    publication = publish(here)
    publication.send(picture(0, keyframe=True))
    async with listening(there) as server, pushing(here, f"rtmp://127.0.0.1:{server.port}/app/y") as push:
        await until(lambda: push.status().state == "retrying")
        sentence = f'127.0.0.1:{server.port} refuses: stream "app/y" is already published (test)'
        assert push.status().error == sentence
        other.close()
        await until(lambda: push.status().state == "pushing")


async def test_a_secret_key_that_a_server_refuses_is_neither_told_nor_logged(caplog):
    here, there = new_hub(), new_hub()
    key = "live_9f8e7d6c5b4a39281706"
    there.publish(f"app/{key}", Publisher(kind="test"))
    publication = publish(here)
    publication.send(picture(0, keyframe=True))
    async with listening(there) as server, pushing(here, f"rtmp://127.0.0.1:{server.port}/app/{key}?token=1") as push:
        await until(lambda: push.status().state == "retrying")
    sentence = f'127.0.0.1:{server.port} refuses: stream "app/live***" is already published (test)'
    assert push.status().error == sentence
    assert [each.getMessage() for each in caplog.records if each.name == "engine.sinks.push"] == [
        f"live/x: push 1: {sentence}"
    ]


def ending(description):
    """A server that accepts a stream, and then says so why it ends it."""

    async def complain(stream):
        await accept(stream)
        await command(stream, "onStatus", 0, level="error", code="x", description=description)
        await trio.sleep_forever()

    return complain


def warned(caplog):
    return {each.getMessage() for each in caplog.records if each.levelname == "WARNING"}


async def test_a_secret_key_in_the_reason_why_a_server_ends_a_stream_is_neither_told_nor_logged(caplog):
    key = "live_9f8e7d6c5b4a39281706"
    here = new_hub()
    publication = publish(here)
    publication.send(picture(0, keyframe=True))
    server = served(ending(f"{key} is over, token one+two"))
    async with server as port, pushing(here, f"rtmp://127.0.0.1:{port}/app/{key}?token=one+two") as push:
        await until(lambda: push.status().state == "retrying")
    sentence = f"127.0.0.1:{port} ended the stream: live*** is over, token ***"
    assert push.status().error == sentence
    assert warned(caplog) == {f"live/x: push 1: {sentence}"}


async def test_what_a_server_says_is_told_and_logged_in_one_line_of_bounded_length(caplog):
    key = "live_9f8e7d6c5b4a39281706"
    description = f"bye\nWARNING: \x1b[2J{'x' * 400}" + key * 400
    here = new_hub()
    publication = publish(here)
    publication.send(picture(0, keyframe=True))
    async with served(ending(description)) as port, pushing(here, f"rtmp://127.0.0.1:{port}/app/{key}") as push:
        await until(lambda: push.status().state == "retrying")
    whole = f"127.0.0.1:{port} ended the stream: bye\\nWARNING: \\x1b[2J{'x' * 400}" + "live***" * 400
    assert push.status().error == whole[:MAX_ERROR] + "…"
    assert warned(caplog) == {f"live/x: push 1: {push.status().error}"}


@asynccontextmanager
async def served(handler, *, receive_bytes=None, tls=None):
    """A server of one's own making; gives its port."""
    sock = trio.socket.socket()
    if receive_bytes is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    await sock.bind(("127.0.0.1", 0))
    sock.listen(8)
    listener = trio.SocketListener(sock)

    async def serve(stream):
        async with stream:
            with suppress(trio.BrokenResourceError):  # reset, or no belief in our certificate
                await handler(trio.SSLStream(stream, tls, server_side=True) if tls else stream)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(trio.serve_listeners, serve, [listener]))
        yield sock.getsockname()[1]
        nursery.cancel_scope.cancel()


async def accept(stream):
    """A server's side of the talk up to publishing."""
    link = Link(stream, Session("server"), stall=5)
    while True:
        match await link.hear():
            case Connect():
                await link.say(Accepted())
            case Publish():
                await link.say(Accepted())
                return link
            case Closed():
                raise trio.BrokenResourceError


async def stop_reading(stream):
    await accept(stream)
    await trio.sleep_forever()


async def say_nothing(stream):
    await trio.sleep_forever()


async def hang_up(stream):
    await accept(stream)


async def end_the_stream(stream):
    link = await accept(stream)
    await link.say(StreamEnded())
    await trio.sleep_forever()


async def talk_nonsense(stream):
    await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    await trio.sleep_forever()


async def command(stream, name, transaction, *, level, code, description):
    """A server says how something has gone."""
    fields = {"level": level, "code": code, "description": description}
    message = Message(chunk.COMMAND, 0, 0, amf.encode(name, transaction, None, fields))
    await stream.send_all(chunk.encode(message, on=chunk.ON_COMMAND, chunk_size=65536))


async def refuse_with_an_error(stream):
    link = Link(stream, Session("server"), stall=5)
    while not isinstance(event := await link.hear(), Publish):
        if isinstance(event, Connect):
            await link.say(Accepted())
    code = "NetStream.Publish.BadName"
    await command(stream, "_error", 5, level="error", code=code, description="stream key is wrong")
    await trio.sleep_forever()


async def change_its_mind(stream):
    await accept(stream)
    code = "NetStream.Publish.Denied"
    await command(stream, "onStatus", 0, level="error", code=code, description="bitrate above your plan")
    await trio.sleep_forever()


async def say_why_and_hang_up(stream):
    link = await accept(stream)
    code = "NetConnection.Connect.Closed"
    await command(stream, "onStatus", 0, level="status", code=code, description="subscription has expired")
    await stream.send_eof()
    while await link.hear() != Closed():
        pass


async def say_why_and_accept_nothing(stream):
    link = Link(stream, Session("server"), stall=5)
    while not isinstance(await link.hear(), Connect):
        pass
    code = "NetConnection.Connect.Rejected"
    await command(stream, "onStatus", 0, level="error", code=code, description="the house is full")


@pytest.mark.parametrize(
    ("handler", "error"),
    [
        (say_nothing, "did not answer within 0.3 s"),
        (refuse_with_an_error, "refuses: stream key is wrong"),
        (change_its_mind, "ended the stream: bitrate above your plan"),
        (say_why_and_hang_up, "ended the connection: subscription has expired"),
        (say_why_and_accept_nothing, "ended the connection: the house is full"),
        (hang_up, "ended the connection"),
        (end_the_stream, "ended the stream"),
        (talk_nonsense, "an RTMP version of 72"),
    ],
)
async def test_a_server_that_does_not_do_its_part_is_told_and_tried_again(handler, error):
    here = new_hub()
    publication = publish(here)
    publication.send(picture(0, keyframe=True))
    errors = set()
    async with served(handler) as port, pushing(here, f"rtmp://127.0.0.1:{port}/app/y") as push:
        for _ in range(2):
            await until(lambda: push.status().state == "retrying")
            errors.add(push.status().error.partition(" ")[2])
            await until(lambda: push.status().state != "retrying")
    assert errors == {error}


async def test_a_server_that_stops_reading_is_dropped_and_another_loses_nothing():
    here, there = new_hub(), new_hub()
    count = 400
    patience = Patience(connect=1, stall=0.3, retry=0.02)
    arrived = []
    with there.read("app/y") as reader:
        async with listening(there) as server, served(stop_reading, receive_bytes=4096) as port:
            publication = publish(here)
            publication.send(picture(0, keyframe=True))
            good, bad = f"rtmp://127.0.0.1:{server.port}/app/y", f"rtmp://127.0.0.1:{port}/app/y"
            async with pushing(here, good, patience=Patience()) as push, pushing(here, bad, patience=patience) as stuck:
                await until(lambda: push.status().state == stuck.status().state == "pushing")
                arrived += await received(reader, 1)
                for n in range(1, count):
                    publication.send(picture(n, keyframe=n % 25 == 0, size=10_000))
                    if n % 20 == 19:
                        arrived += await received(reader, n + 1 - len(arrived))
                await until(lambda: stuck.status().error)
                error = stuck.status().error
                await until(lambda: stuck.status().connects >= 2)
                assert push.status().state == "pushing"
                assert push.status().dropped == 0
    assert error in (f"127.0.0.1:{port} took nothing for 0.3 s", f"127.0.0.1:{port}: Connection timed out")
    assert [packet.dts for packet in arrived] == [40 * n for n in range(count)]


SILENCE = 0.5  # seconds
WATCHFUL = Patience(stall=60, silence=SILENCE, retry=0.02)

PEER = """
import time, trio
from functools import partial
from engine.sources.rtmp import serve_rtmp
from engine.stream import Hub

async def main():
    async with trio.open_nursery() as nursery:
        print(await nursery.start(partial(serve_rtmp, Hub(time.monotonic_ns), host="127.0.0.1", port=0)), flush=True)

trio.run(main)
"""


@asynccontextmanager
async def peer_process():
    """A server that is a process of its own, and its port."""
    async with trio.open_nursery() as nursery:
        run = partial(trio.run_process, [sys.executable, "-c", PEER], stdout=subprocess.PIPE, check=False)
        process = await nursery.start(run)
        try:
            yield process, int(await process.stdout.receive_some())
        finally:
            process.kill()


async def talk(publication):
    """Little media all the time, far less than buffers take."""
    for n in count():
        publication.send(sound(n))
        await trio.sleep(0.02)


@asynccontextmanager
async def talking(hub, url):
    """A push of little media that watches its server."""
    publication = publish(hub)
    publication.send(picture(0, keyframe=True))
    async with pushing(hub, url, patience=WATCHFUL) as push, trio.open_nursery() as nursery:
        nursery.start_soon(talk, publication)
        yield push
        nursery.cancel_scope.cancel()


async def test_a_server_process_that_stopped_is_noticed_however_little_it_is_sent():
    async with peer_process() as (process, port), talking(new_hub(), f"rtmp://127.0.0.1:{port}/app/y") as push:
        await until(lambda: push.status().packets > 100)
        connects = push.status().connects
        process.send_signal(signal.SIGSTOP)
        await until(lambda: push.status().state == "retrying")
        assert push.status().error == f"127.0.0.1:{port} said nothing for {SILENCE:g} s"
        process.send_signal(signal.SIGCONT)
        await until(lambda: push.status().connects > connects)


async def test_a_server_is_not_blamed_while_our_own_process_stands_still():
    async with listening(new_hub()) as server, talking(new_hub(), f"rtmp://127.0.0.1:{server.port}/app/y") as push:
        await until(lambda: push.status().packets > 50)
        for _ in range(3):
            time.sleep(2 * SILENCE)
            await trio.sleep(0)
        sent = push.status().packets
        await until(lambda: push.status().packets > sent + 50)
        assert (push.status().connects, push.status().error) == (1, "")


def ping(number):
    return chunk.encode(chunk.user_control(chunk.PING, number), on=chunk.ON_CONTROL, chunk_size=65536)


async def answer_pings(link, pings):
    """Listens until so many pings are answered."""
    answered = link.sent_bytes + pings * len(ping(0))
    async with trio.open_nursery() as nursery:

        async def hear():
            while True:
                await link.hear()

        nursery.start_soon(hear)
        await until(lambda: link.sent_bytes >= answered)
        nursery.cancel_scope.cancel()


async def test_a_server_that_stopped_is_noticed_behind_tls():
    async def fall_silent(stream):
        await answer_pings(await accept(stream), 3)
        await trio.sleep_forever()

    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs.load_cert_chain(CERTIFICATE)
    here = new_hub()
    publish(here).send(picture(0, keyframe=True))
    ours = ssl.create_default_context(cafile=CERTIFICATE)
    async with (
        served(fall_silent, tls=theirs) as port,
        pushing(here, f"rtmps://127.0.0.1:{port}/app/y", tls=ours, patience=WATCHFUL) as push,
    ):
        await until(lambda: push.status().state == "retrying")
        assert push.status().error == f"127.0.0.1:{port} said nothing for {SILENCE:g} s"


async def test_a_server_that_answers_no_more_but_takes_something_is_only_slow():
    answered, taken = trio.Event(), trio.Event()

    async def take_slowly(stream):
        await answer_pings(await accept(stream), 3)
        answered.set()
        for _ in range(400):
            await stream.receive_some(2048)
            await trio.sleep(0.01)
        taken.set()
        await trio.sleep_forever()

    here = new_hub()
    publication = publish(here)
    publication.send(picture(0, keyframe=True))
    async with (
        served(take_slowly, receive_bytes=4096) as port,
        pushing(here, f"rtmp://127.0.0.1:{port}/app/y", patience=WATCHFUL) as push,
    ):
        await answered.wait()
        for n in range(1, 1000):
            publication.send(picture(n, size=10_000))
        await taken.wait()
        assert (push.status().connects, push.status().error) == (1, "")
        await until(lambda: push.status().state == "retrying")
        assert push.status().error == f"127.0.0.1:{port} said nothing for {SILENCE:g} s"


SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27  # asm-generic/socket.h
NOTHING = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))  # linux/filter.h: takes no byte of any packet


async def test_a_hole_in_the_line_is_not_the_silence_of_a_server():
    whole, heard_again = trio.Event(), trio.Event()

    async def behind_a_hole(stream):
        link = await accept(stream)
        await answer_pings(link, 3)
        stream.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", 1, ctypes.addressof(NOTHING)))
        await whole.wait()
        stream.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)
        await answer_pings(link, 3)
        heard_again.set()
        await answer_pings(link, math.inf)

    async with served(behind_a_hole) as port, talking(new_hub(), f"rtmp://127.0.0.1:{port}/app/y") as push:
        await until(lambda: push.status().packets > 100)
        whole.set()
        await heard_again.wait()
        assert (push.status().connects, push.status().error) == (1, "")


async def test_a_server_that_never_answers_a_ping_is_not_judged_by_it():
    asked = trio.Event()

    async def read_on(stream):
        await accept(stream)
        heard = b""
        while ping(3 * PINGS) not in heard:
            heard += await stream.receive_some()
        asked.set()
        await trio.sleep_forever()

    async with served(read_on) as port, talking(new_hub(), f"rtmp://127.0.0.1:{port}/app/y") as push:
        await asked.wait()
        assert (push.status().connects, push.status().error) == (1, "")


async def test_a_server_that_ends_the_connection_at_a_ping_is_not_asked_again():
    connections = []

    async def dislike_pings(stream):
        await accept(stream)
        connections.append(b"")
        while ping(0) not in connections[-1]:
            connections[-1] += await stream.receive_some()

    async with served(dislike_pings) as port, talking(new_hub(), f"rtmp://127.0.0.1:{port}/app/y") as push:
        await until(lambda: len(connections) == 2)
        await until(lambda: connections[1].count(b"sound") > 100)
        assert push.status().state == "pushing"
    assert len(connections) == 2


async def test_a_server_that_answers_its_first_ping_only_is_left_once_and_not_asked_again():
    connections = []

    async def answer_one(stream):
        connections.append(b"")
        link = await accept(stream)
        if len(connections) == 1:
            await answer_pings(link, 1)
        while True:
            connections[-1] += await stream.receive_some()

    async with served(answer_one) as port, talking(new_hub(), f"rtmp://127.0.0.1:{port}/app/y") as push:
        await until(lambda: len(connections) == 2)
        await until(lambda: connections[1].count(b"sound") > 100)
        assert push.status().state == "pushing"
        assert ping(0) not in connections[1]
    assert len(connections) == 2


async def test_a_password_is_given_as_adobe_asks():
    heard = []
    needed = "[ AccessManager.Reject ] : [ code=403 need auth; authmod=adobe ] : "
    challenge = "[ AccessManager.Reject ] : [ authmod=adobe ] : ?reason=needauth&user=me&salt=s&challenge=c&opaque=o"

    async def ask(stream):
        link = Link(stream, Session("server"), stall=5)
        while (event := await link.hear()) != Closed():
            if isinstance(event, Connect):
                heard.append(event)
                description = challenge if event.query else needed
                await link.say(Accepted() if "response=" in event.query else Rejected(description=description))
            elif isinstance(event, Publish):
                await link.say(Accepted())

    here = new_hub()
    publication = publish(here)
    publication.send(picture(0, keyframe=True))
    async with served(ask) as port, pushing(here, f"rtmp://me:secret@127.0.0.1:{port}/app/y") as push:
        await until(lambda: push.status().state == "pushing")
    assert [event.query.partition("&challenge")[0] for event in heard] == ["", *["authmod=adobe&user=me"] * 2]
    assert heard[2].url == f"rtmp://127.0.0.1:{port}/app?{heard[2].query}"
    async with served(ask) as port, pushing(here, f"rtmp://127.0.0.1:{port}/app/y") as push:
        await until(lambda: push.status().state == "retrying")
        assert push.status().error == f"127.0.0.1:{port} refuses: {needed}"


async def test_rtmps_is_rtmp_in_tls_whose_certificate_is_checked():
    heard = []

    async def take(stream):
        link = await accept(stream)
        while (event := await link.hear()) != Closed():
            heard.append(event)

    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs.load_cert_chain(CERTIFICATE)
    ours = ssl.create_default_context(cafile=CERTIFICATE)
    here = new_hub()
    publication = publish(here)
    publication.send(picture(0, keyframe=True))
    async with served(take, tls=theirs) as port:
        url = f"rtmps://127.0.0.1:{port}/app/y"
        async with pushing(here, url, tls=ours, patience=Patience()) as push:
            await until(lambda: len(heard) == 3)
            publication.send(picture(1))
            await until(lambda: len(heard) == 4)
            publication.close()
            await until(lambda: push.status().state == "waiting")
            assert heard[4:] == [StreamEnded()]
        publication = publish(here)
        publication.send(picture(0, keyframe=True))
        async with pushing(here, url, patience=Patience(retry=0.02)) as push:
            await until(lambda: push.status().state == "retrying")
            assert "CERTIFICATE_VERIFY_FAILED" in push.status().error
    assert isinstance(heard[0], Metadata)


async def test_codecs_without_an_flv_number_are_announced_and_foreign_ones_left_out():
    heard = []

    async def take(stream):
        link = Link(stream, Session("server"), stall=5)
        while (event := await link.hear()) != Closed():
            heard.append(event)
            if isinstance(event, Connect | Publish):
                await link.say(Accepted())

    here = new_hub()
    publication = publish(here)
    hevc = Track(kind="video", codec="hevc", extradata=b"hvcC", time_base=Fraction(1, 90_000))
    mp2 = Track(kind="audio", codec="mp2", rate=48_000, channels=2)
    publication.send(Packet(hevc, b"hevc", pts=9000, dts=9000, arrival=0))
    publication.send(Packet(mp2, b"mp2", pts=100, dts=100, arrival=0))
    async with served(take) as port, pushing(here, f"rtmp://127.0.0.1:{port}/app/y") as push:
        await until(lambda: push.status().error)
        assert push.status().error == 'audio in mp2 cannot be sent as FLV: codec "mp2" has no FourCC'
        assert push.status().state == "pushing"
        await until(lambda: len(heard) >= 6)
    connect = next(event for event in heard if isinstance(event, Connect))
    assert connect.properties["fourCcList"] == ["hvc1"]
    assert [event.codec for event in heard if hasattr(event, "codec")] == ["hevc", "hevc"]


async def test_what_is_slow_loses_packets_to_the_next_keyframe_and_counts():
    """A server that reads nothing for a while, and then all: nothing that it gets refers to what it did not get."""
    here = new_hub()
    gate = trio.Event()
    heard = []

    async def wait_first(stream):
        link = await accept(stream)
        await gate.wait()
        while (event := await link.hear()) != Closed():
            heard.append(event)

    publication = publish(here)
    publication.send(picture(0, keyframe=True))
    async with served(wait_first, receive_bytes=4096) as port:
        url = f"rtmp://127.0.0.1:{port}/app/y"
        async with pushing(here, url, patience=Patience(stall=60)) as push:
            await until(lambda: push.status().state == "pushing")
            last = 6001
            for n in range(1, last + 1):
                publication.send(picture(n, keyframe=n % 100 == 0, size=1000))
                if n % 100 == 0:
                    await trio.sleep(0)
            await until(lambda: push.status().dropped)
            assert here.streams()[0].status().waiting == push.status().waiting > 0
            gate.set()
            await until(lambda: heard and getattr(heard[-1], "dts", 0) == 40 * last)
    got = [event.dts // 40 for event in heard if getattr(event, "kind", "") == "packet"]
    assert len(got) + push.status().dropped == last + 1
    assert push.status().waiting == 0
    gaps = [b for a, b in pairwise(got) if b != a + 1]
    assert gaps
    assert all(n % 100 == 0 for n in gaps)


async def test_it_is_cancelled_whatever_it_does():
    here = new_hub()
    publication = publish(here)
    publication.send(picture(0, keyframe=True))
    async with served(say_nothing) as port:
        url = f"rtmp://127.0.0.1:{port}/app/y"
        async with pushing(here, url, patience=Patience()) as push:
            await until(lambda: push.status().state == "connecting")
    with trio.fail_after(30):
        async with pushing(new_hub(), "rtmp://127.0.0.1:1/app/y") as push:
            await until(lambda: push.status().state == "waiting")


async def test_a_publisher_key_is_given_in_the_query():
    here, there = new_hub(), new_hub()
    publication = publish(here)
    publication.send(picture(0, keyframe=True))
    async with listening(there, publish_key="k") as server:
        async with pushing(here, f"rtmp://127.0.0.1:{server.port}/app/y?key=k") as push:
            await until(lambda: push.status().state == "pushing")
        async with pushing(here, f"rtmp://127.0.0.1:{server.port}/app/z") as push:
            await until(lambda: push.status().state == "retrying")
            assert push.status().error.endswith(" refuses: the publish key is not right")
