"""The listener over real sockets: who is let in, what players get, and that nobody's end or malice harms another."""

import os
import socket
import subprocess
import sys
from contextlib import contextmanager, suppress

import av
import pytest
import trio

from engine.errors import SourceUnavailable
from engine.rtmp import Accepted, Metadata, Play, Publish, Rejected, StreamEnded, amf, chunk, flv
from engine.rtmp.chunk import Message
from engine.rtmp.session import Session
from engine.sources.rtmp import Limits, serve_rtmp
from engine.stream import END
from tests.engine.peers import (
    AVCC,
    OPENING,
    SOUND_OPENING,
    listening,
    new_hub,
    picture,
    sound,
)
from tests.media import plane, read_number
from tests.waiting import until

PUBLISHER = """
import av, sys
with av.open(sys.argv[1]) as film, av.open(sys.argv[2], "w", format="flv") as out:
    streams = {stream.index: out.add_stream_from_template(stream) for stream in film.streams}
    packets = [packet for packet in film.demux() if packet.dts is not None]
    for n, packet in enumerate(sorted(packets, key=lambda each: each.dts * each.time_base)):
        if n == len(packets) // 2:
            sys.stdin.readline()
        packet.stream = streams[packet.stream_index]
        out.mux(packet)
"""


@pytest.fixture(autouse=True)
def no_bugs(caplog):
    """A connection that ends by a bug of ours only says so in the log."""
    caplog.set_level("INFO")
    yield
    assert not [record for record in caplog.records if record.exc_info]


@contextmanager
def patience(seconds=30):
    with trio.fail_after(seconds):
        yield


def frames(url):
    """The numbers of all pictures, and how many samples of sound, that a player of FFmpeg's library finds."""
    seen, samples = [], 0
    with av.open(url, timeout=(5, 5)) as container:
        assert [stream.type for stream in container.streams] == ["video", "audio"]
        for frame in container.decode(video=0, audio=0):
            if isinstance(frame, av.VideoFrame):
                seen.append(read_number(plane(frame)))
            else:
                samples += frame.samples
    return seen, samples


async def test_what_ffmpeg_publishes_ffmpeg_plays_to_the_end(media):
    hub = new_hub()
    with patience():
        async with listening(hub) as server, trio.open_nursery() as nursery:
            url = f"rtmp://127.0.0.1:{server.port}/live/film"
            film = str(media.path("plain"))
            publisher = await trio.lowlevel.open_process(
                [sys.executable, "-c", PUBLISHER, film, url], stdin=subprocess.PIPE, stderr=subprocess.PIPE
            )
            await until(lambda: "live/film" in [stream.name for stream in hub.streams()])
            stream = hub.published("live/film")
            await until(lambda: stream.gop)
            found = []

            async def play():
                found.extend(await trio.to_thread.run_sync(frames, url))

            nursery.start_soon(play)
            await until(lambda: stream.status().readers == 1)
            status = stream.status()
            await publisher.stdin.send_all(b"\n")
            await publisher.wait()
    seen, samples = found
    assert seen == list(range(seen[0], 60))
    assert seen[0] % 15 == 0  # begins with a keyframe
    assert samples > 48_000
    assert (status.video.codec, status.video.width, status.video.height) == ("h264", 64, 36)
    assert (status.audio.codec, status.audio.sample_rate, status.audio.channels) == ("aac", 48_000, 2)
    assert publisher.returncode == 0


async def test_a_player_gets_metadata_extradata_and_every_packet_as_it_came():
    hub = new_hub()
    sent = [picture(0, keyframe=True), sound(0), sound(1), picture(1), sound(2)]
    with patience():
        async with listening(hub) as server:
            publisher = await server.publishing()
            await publisher.say(Metadata({"width": 1.0}), OPENING, SOUND_OPENING, *sent[:2])
            await until(lambda: hub.published("live/x").audio is not None)
            player = await server.playing()
            title = await player.hear()
            openings = [await player.hear(), await player.hear()]
            await publisher.say(*sent[2:])
            played = await player.hear_media(5)
            await publisher.say(StreamEnded())
            last = await player.hear()
    assert title.fields == {
        "encoder": "Mashtun",
        "width": 64,
        "height": 36,
        "videocodecid": 7,
        "audiosamplerate": 48_000,
        "audiochannels": 2,
        "stereo": True,
        "audiocodecid": 10,
    }
    assert openings == [OPENING, SOUND_OPENING]
    assert played == sent
    assert last == StreamEnded()


async def test_new_extradata_in_mid_stream_comes_before_its_first_packet_and_the_same_again_does_not():
    other = flv.video_extradata(AVCC + b"\0", dts=0)
    hub = new_hub()
    with patience():
        async with listening(hub) as server:
            publisher = await server.publishing()
            await publisher.say(OPENING, picture(0, keyframe=True))
            await until(lambda: hub.published("live/x").gop)
            player = await server.playing()
            await publisher.say(OPENING, picture(1), other, picture(2, keyframe=True), picture(3), StreamEnded())
            heard = []
            while (event := await player.hear()) != StreamEnded():
                heard.append(event)
    assert [event.dts for event in heard if event == flv.video_extradata(AVCC, dts=event.dts)] == [0]
    assert [event.dts for event in heard if event == flv.video_extradata(AVCC + b"\0", dts=event.dts)] == [80]
    assert [event for event in heard if not isinstance(event, Metadata) and event.kind == "packet"] == [
        picture(0, keyframe=True),
        picture(1),
        picture(2, keyframe=True),
        picture(3),
    ]


async def test_second_publisher_is_refused_and_the_first_unharmed():
    hub = new_hub()
    with patience():
        async with listening(hub) as server:
            first = await server.publishing()
            second = await server.connect()
            assert await second.ask(Publish("x")) == Rejected(
                "NetStream.Publish.BadName", 'stream "live/x" is already published (rtmp)'
            )
            with hub.read("live/x") as reader:
                await first.say(OPENING, picture(0, keyframe=True))
                (packet,) = await reader.receive()
            assert packet.keyframe
            assert await second.ask(Publish("y")) == Accepted()


ABSENT = Limits(handshake=600, silence=600, pause=100)


async def asks_for(server, name="x"):
    """What somebody is answered who wants to publish a name."""
    client = await server.connect()
    return client, await client.ask(Publish(name))


async def test_a_publisher_who_is_absent_gives_way_to_the_next_one(caplog, mock_clock):
    mock_clock.rate = 1
    hub = new_hub()
    with patience(3600):
        async with listening(hub, limits=ABSENT) as server:
            first = await server.publishing()
            await first.say(OPENING, picture(0, keyframe=True))
            with hub.read("live/x") as reader:
                assert len(await reader.receive()) == 1
                mock_clock.jump(60)
                _, refused = await asks_for(server)
                assert refused == Rejected("NetStream.Publish.BadName", 'stream "live/x" is already published (rtmp)')
                mock_clock.jump(50)
                second, answer = await asks_for(server)
                assert answer == Accepted()
                assert await reader.receive() == [END]
                assert await first.hear_end() == [StreamEnded()]
                await second.say(OPENING, picture(7, keyframe=True))
                (packet,) = await reader.receive()
            assert packet.dts == 280
            assert hub.published("live/x").status().peer == second.address
            assert hub.published("live/x").status().publications == 2
            told = {
                f"live/x: {first.address} is absent, {second.address} takes its place",
                f"live/x: {first.address} was sent away",
            }
            await until(lambda: told < {record.getMessage() for record in caplog.records})


async def test_a_publisher_who_always_pauses_does_not_give_way_for_it(mock_clock):
    mock_clock.rate = 1
    hub = new_hub()
    with patience(36_000):
        async with listening(hub, limits=ABSENT) as server:
            first = await server.publishing()
            with hub.read("live/x") as reader:
                for n in range(4):
                    await first.say(OPENING, picture(25 * n, keyframe=True))
                    await reader.receive()
                    mock_clock.jump(150)
                _, answer = await asks_for(server)
                assert isinstance(answer, Rejected)
                mock_clock.jump(120)
                _, answer = await asks_for(server)
                assert answer == Accepted()


async def test_a_publisher_whose_encoder_looks_ahead_does_not_give_way_for_it(mock_clock):
    mock_clock.rate = 1
    hub = new_hub()
    with patience(3600):
        async with listening(hub, limits=ABSENT) as server:
            first = await server.publishing()
            mock_clock.jump(200)
            _, answer = await asks_for(server)
            assert isinstance(answer, Rejected)
            with hub.read("live/x") as reader:
                await first.say(OPENING, picture(0, keyframe=True))
                (packet,) = await reader.receive()
            assert packet.dts == 0


async def test_a_publisher_whom_we_have_not_heard_out_does_not_give_way(mock_clock):
    mock_clock.rate = 1
    hub = new_hub()
    small = chunk.encode(chunk.user_control(chunk.PONG, 1), on=chunk.ON_CONTROL, chunk_size=65536)
    with patience(3600):
        async with listening(hub, limits=Limits(handshake=600, silence=600, pause=1)) as server:
            first = await server.publishing()
            with hub.read("live/x") as reader:
                await first.stream.send_all(small * 900)  # for which nothing is heard for 3.5 s
                await first.say(OPENING, picture(0, keyframe=True))
                await reader.receive()
                await first.say(picture(1))
                mock_clock.jump(2)
                _, answer = await asks_for(server)
                assert isinstance(answer, Rejected)
                (packet,) = await reader.receive()
            assert packet.dts == 40


async def test_only_who_has_the_key_takes_the_place_of_an_absent_publisher(mock_clock):
    mock_clock.rate = 1
    hub = new_hub()
    with patience(3600):
        async with listening(hub, limits=ABSENT, publish_key="k") as server:
            first = await server.publishing("x?key=k")
            await first.say(OPENING, picture(0, keyframe=True))
            await until(lambda: hub.published("live/x").gop)
            mock_clock.jump(110)
            _, answer = await asks_for(server, "x?key=no")
            assert answer == Rejected("NetStream.Publish.Denied", "the publish key is not right")
            assert hub.published("live/x").status().peer == first.address
            _, answer = await asks_for(server, "x?key=k")
            assert answer == Accepted()


@pytest.mark.parametrize("end", ["unpublish", "close", "reset", "silence", "garbage"])
async def test_a_publisher_who_ends_in_any_way_frees_the_name(end):
    hub = new_hub()
    limits = Limits(silence=0.2 if end == "silence" else 60)
    with patience():
        async with listening(hub, limits=limits) as server:
            first = await server.publishing()
            await first.say(OPENING, picture(0, keyframe=True))
            with hub.read("live/x") as reader:
                assert len(await reader.receive()) == 1
                if end == "unpublish":
                    await first.say(StreamEnded())
                elif end == "garbage":
                    await first.stream.send_all(b"\xff" * 100)
                elif end != "silence":
                    await getattr(first, end)()
                assert await reader.receive() == [END]
                second = await server.publishing()
                await second.say(OPENING, picture(7, keyframe=True))
                (packet,) = await reader.receive()
    assert packet.dts == 280


@pytest.mark.parametrize(
    ("app", "name"),
    [("live?key=se+cr%26et", "x"), ("live", "x?key=se+cr%26et"), ("live?key=", "x?a=b&key=se%2Bcr%26et")],
)
async def test_the_publish_key_comes_behind_the_app_or_the_name(app, name):
    hub = new_hub()
    with patience():
        async with listening(hub, publish_key="se+cr&et") as server:
            await server.publishing(name, app=app)
            assert hub.published("live/x").publication.publisher.kind == "rtmp"


@pytest.mark.parametrize("name", ["x", "x?key=", "x?key=secre", "x?Key=secret", "x?key=secret%00", "x?key=é"])
async def test_without_the_publish_key_nobody_publishes_but_plays(name):
    hub = new_hub()
    with patience():
        async with listening(hub, publish_key="secret") as server:
            client = await server.connect()
            denied = Rejected("NetStream.Publish.Denied", "the publish key is not right")
            assert await client.ask(Publish(name)) == denied
            assert hub.streams() == []
            await server.publishing("y?key=secret")
            assert await client.ask(Play("y")) == Accepted()


@pytest.mark.parametrize(
    ("app", "name", "stream"),
    [("live/", "x", "live/x"), ("a/b", "c/d", "a/b/c/d"), ("", "x", "x"), ("live", "/x/", "live/x"), ("é", "x", "é/x")],
)
async def test_a_stream_is_called_app_and_name(app, name, stream):
    hub = new_hub()
    with patience():
        async with listening(hub) as server:
            client = await server.publishing(name, app=app)
            assert [each.name for each in hub.streams()] == [stream]
            assert hub.published(stream).status().peer == client.address


@pytest.mark.parametrize("name", ["", "..", "a//b", "a\nb", "x" * 1020])
async def test_a_bad_name_is_refused(name):
    with patience():
        async with listening(new_hub()) as server:
            client = await server.connect()
            refused = await client.ask(Publish(name))
            assert isinstance(refused, Rejected) == (name != "")
            assert refused == (Accepted() if name == "" else Rejected("NetStream.Publish.BadName", refused.description))


async def test_who_plays_what_nobody_publishes_is_told_so_and_sent_away():
    with patience():
        async with listening(new_hub(), limits=Limits(handshake=0.3)) as server:
            player = await server.connect()
            refused = await player.ask(Play("none"))
            assert refused == Rejected("NetStream.Play.StreamNotFound", 'no stream "live/none"')
            assert await player.hear_end() == []


async def test_a_player_that_takes_nothing_is_dropped_and_the_others_lose_nothing():
    hub = new_hub()
    sent = [picture(n, keyframe=n % 10 == 0, size=100_000) for n in range(40)]
    with patience():
        async with listening(hub, limits=Limits(stall=0.3)) as server:
            publisher = await server.publishing()
            await publisher.say(OPENING, sent[0])
            await until(lambda: hub.published("live/x").gop)
            await server.playing(receive_bytes=4096)
            player = await server.playing()
            stream = hub.published("live/x")
            played = await player.hear_media(1)
            assert stream.status().readers == 2
            for n in range(1, len(sent)):
                await publisher.say(sent[n])
                played += await player.hear_media(1)
            await until(lambda: stream.status().readers == 1)
            assert stream.publication is not None
    assert played == sent


async def test_what_a_slow_player_has_not_taken_waits_where_it_is_shared():
    hub = new_hub()
    with patience():
        async with listening(hub) as server:
            publisher = await server.publishing()
            await publisher.say(OPENING, *[picture(n, keyframe=n == 0, size=100_000) for n in range(200)])
            await until(lambda: len(hub.published("live/x").gop) == 200)
            player = await server.playing(receive_bytes=4096)
            assert isinstance(await player.hear(), Metadata)
            (reader,) = hub.published("live/x")._readers
            assert reader.waiting > 50  # the kernel has some
            assert [event.dts // 40 for event in await player.hear_media(200)] == list(range(200))


async def test_a_player_may_stop_and_play_another_stream():
    hub = new_hub()
    with patience():
        async with listening(hub) as server:
            for name in ("x", "y"):
                publisher = await server.publishing(name)
                await publisher.say(OPENING, picture(0, keyframe=True))
            await until(lambda: len(hub.streams()) == 2 and all(stream.gop for stream in hub.streams()))
            player = await server.playing("x")
            assert await player.hear_media(1)
            await player.say(StreamEnded())
            await until(lambda: hub.published("live/x").status().readers == 0)
            assert await player.ask(Play("y")) == Accepted()
            assert await player.hear_media(1)


def request(size, kind=chunk.VIDEO):
    """The beginning of a message of that size: all but its last byte."""
    return chunk.encode(Message(kind, 1, 0, bytes(size)), on=6, chunk_size=size)[:-1]


HANDSHAKE = b"\3" + bytes(1536) + bytes(1536)


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\3" + os.urandom(5000),
        HANDSHAKE + b"\xff" * 64,
        HANDSHAKE + chunk.encode(chunk.control(chunk.SET_CHUNK_SIZE, 1 << 20), on=2, chunk_size=128) + request(600_000),
        HANDSHAKE + b"\6\0\0\0\xff\xff\xff\x09\0\0\0\0",  # a message of 16 MB
        HANDSHAKE + chunk.encode(Message(chunk.COMMAND, 0, 0, b"\2\0\4pub"), on=3, chunk_size=128),
        HANDSHAKE + chunk.encode(Message(chunk.AUDIO, 1, 0, b""), on=4, chunk_size=128) + b"\xc4" * 65536,
        HANDSHAKE + chunk.encode(chunk.user_control(chunk.PONG, 1), on=2, chunk_size=128) * 4000,
        b"",
    ],
    ids=["http", "noise", "bytes", "much unpublished", "oversize", "cut off value", "nothing", "pongs", "silence"],
)
async def test_a_peer_that_says_nonsense_is_closed_and_others_are_served(said):
    hub = new_hub()
    with patience():
        async with listening(hub, limits=Limits(handshake=0.3 if said == b"" else 60)) as server:
            stream = await server.dial()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send, stream, said)
                await end_of(stream)
                nursery.cancel_scope.cancel()
            await server.publishing()


async def send(stream, data):
    with suppress(trio.BrokenResourceError):  # it closes before it has read all
        await stream.send_all(data)


async def end_of(stream):
    with suppress(trio.BrokenResourceError):
        while await stream.receive_some():
            pass


async def test_a_handshake_that_never_ends_is_ended():
    with patience():
        async with listening(new_hub(), limits=Limits(handshake=0.4)) as server:
            stream = await server.dial()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(drip, stream)
                await end_of(stream)
                nursery.cancel_scope.cancel()


async def drip(stream):
    while True:
        await send(stream, b"\3")
        await trio.sleep(0.02)


async def test_connections_beyond_the_limit_are_closed_and_there_is_room_again():
    with patience():
        async with listening(new_hub(), limits=Limits(connections=2)) as server:
            first, second = [await server.connect() for _ in range(2)]
            stream = await server.dial()
            await end_of(stream)
            await first.close()
            await second.close()
            while True:
                try:
                    await server.connect()
                    break
                except (AssertionError, trio.BrokenResourceError):
                    await trio.sleep(0.01)


async def test_however_many_play_there_is_room_for_publishers():
    hub = new_hub()
    with patience():
        async with listening(hub, limits=Limits(connections=8)) as server:
            await server.publishing()
            players = [await server.playing() for _ in range(6)]
            seventh = await server.connect()
            refused = Rejected("NetStream.Play.Failed", "the server is full: 6 play already")
            assert await seventh.ask(Play("x")) == refused
            assert await seventh.hear_end() == []
            await server.publishing("y")
            await players[0].say(StreamEnded())
            await until(lambda: hub.published("live/x").status().readers == 5)
            assert await players[0].ask(Play("y")) == Accepted()


async def test_obs_commands_in_obs_order_publish():
    """SetChunkSize, connect, releaseStream, FCPublish, createStream, publish, media; FCUnpublish, deleteStream."""
    hub = new_hub()
    session = Session("client")
    with patience():
        async with listening(hub) as server:
            stream = await server.dial()

            async def command(*values, stream_number=0):
                message = Message(chunk.COMMAND, stream_number, 0, amf.encode(*values))
                await stream.send_all(chunk.encode(message, on=3, chunk_size=4096))

            await stream.send_all(session.data_to_send() + bytes(1536))
            await stream.send_all(chunk.encode(chunk.control(chunk.SET_CHUNK_SIZE, 4096), on=2, chunk_size=128))
            agent = "FMLE/3.0 (compatible; FMSc/1.0)"
            fields = {"app": "live", "type": "nonprivate", "flashVer": agent, "swfUrl": "", "tcUrl": "rtmp://h/live"}
            await command("connect", 1.0, fields)
            await command("releaseStream", 2.0, None, "x")
            await command("FCPublish", 3.0, None, "x")
            await command("createStream", 4.0, None)
            await command("publish", 5.0, None, "x", "live", stream_number=1)
            await until(lambda: hub.streams())
            names = [name for name in await commands(stream) if name]
            for media in (OPENING, SOUND_OPENING, picture(0, keyframe=True)):
                message = Message(media.tag_kind, 1, media.dts, media.body)
                await stream.send_all(chunk.encode(message, on=4, chunk_size=4096))
            await until(lambda: hub.published("live/x").gop)
            await command("FCUnpublish", 6.0, None, "x")
            await command("deleteStream", 7.0, None, 1.0)
            await until(lambda: not hub.streams())
    assert names == ["_result", "_result", "_result", "onFCPublish", "_result", "onStatus"]


async def commands(stream):
    """The names of the commands up to onStatus."""
    reader = chunk.Reader(chunk.Limits())
    reader.receive(await stream.receive_some())
    names = []
    while reader.take(3073) is None:
        reader.receive(await stream.receive_some())
    while "onStatus" not in names:
        message = reader.next_message()
        if message is None:
            reader.receive(await stream.receive_some())
        elif message.kind == chunk.COMMAND:
            names.append(next(amf.Values(message.payload, depth=amf.DEPTH, values=100)))
    return names


async def test_a_stream_that_is_removed_ends_its_publisher():
    hub = new_hub()
    with patience():
        async with listening(hub) as server:
            client = await server.publishing()
            hub.published("live/x").publication.publisher.stop()
            assert await client.hear_end() == [StreamEnded()]
            assert hub.streams() == []


async def test_the_log_has_a_line_for_each_change_name_first(caplog):
    hub = new_hub()
    with patience():
        async with listening(hub) as server:
            publisher = await server.publishing()
            await publisher.say(OPENING, picture(0, keyframe=True))
            await until(lambda: hub.published("live/x").gop)
            player = await server.playing()
            await player.hear_media(1)
            await publisher.close()
            assert await player.hear() == StreamEnded()
            await player.close()
            await until(lambda: len(caplog.records) == 3)
    assert {record.getMessage() for record in caplog.records} == {  # who publishes is told by whom the hub tells
        f"live/x: played by {player.address}",
        f"live/x: {publisher.address} left",
        f"live/x: {player.address} left",
    }


async def test_a_port_that_is_taken_is_told_in_a_sentence():
    with patience():
        async with listening(new_hub()) as server:
            with pytest.raises(SourceUnavailable, match=f"RTMP cannot listen on 127.0.0.1:{server.port}: "):
                await serve_rtmp(new_hub(), host="127.0.0.1", port=server.port)


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
async def test_on_all_addresses_either_version_of_ip_comes_in():
    with patience():
        async with listening(new_hub(), host="::") as server:
            for address in ("127.0.0.1", "::1"):
                await (await trio.open_tcp_stream(address, server.port)).aclose()


async def test_an_app_that_is_asked_for_twice_is_refused():
    with patience():
        async with listening(new_hub()) as server:
            client = await server.connect()
            message = Message(chunk.COMMAND, 0, 0, amf.encode("connect", 1.0, {"app": "live"}))
            await client.stream.send_all(chunk.encode(message, on=3, chunk_size=65536))
            assert await client.hear_end() == []
