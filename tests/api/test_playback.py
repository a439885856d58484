"""Playback on a real engine: what comes out of each address is decoded again; who does not read is let go."""

import io
import json
import re

import av
import pytest
import trio
from quart.testing.connections import WebsocketDisconnectError, WebsocketResponseError

from api import playback
from api.app import create_app
from engine import Engine, EventSpec, MixerSpec, PullSpec, Raster, Settings, stream
from engine.packet import Packet, Track
from engine.sinks.flow import FlvFlow
from engine.sources.rtmp import Limits
from engine.stream import Hub, Publisher
from tests.api.clients import followed, serving
from tests.engine.clips import NS, packets
from tests.media import Audio, Video, encode, plane, read_cells

NAME = "live/a/cam"  # names may have any number of segments
PATTERN = PullSpec(pattern="count?size=128x72&rate=25")
ENDLESS = 30  # s; longer than any of these tests takes


@pytest.fixture
async def engine(tmp_path, nursery):
    made = Engine(Settings(data=str(tmp_path), rtmp_port=-1), strict=True)
    await nursery.start(made.run)
    await made.put_source(NAME, PATTERN)
    with trio.fail_after(30):
        while not any(each.video and each.audio for each in made.streams()):
            await trio.sleep(0.01)
    return made


@pytest.fixture
def client(engine):
    return create_app(engine).test_client()


def numbers(data, form=None):
    """The frame numbers that a film's pictures carry, and how many blocks of sound it has."""
    with av.open(io.BytesIO(data), format=form) as container:
        frames = list(container.decode())
    pictures = [frame for frame in frames if isinstance(frame, av.VideoFrame)]
    return [read_cells(plane(frame)) for frame in pictures], len(frames) - len(pictures)


async def no_readers(engine):
    while any(each.readers for each in engine.streams()):
        await trio.sleep(0.01)


async def test_flv(client, engine):
    data = b""
    with trio.fail_after(ENDLESS):
        async with followed(client, f"/{NAME}.flv") as connection:
            while len(data) < 15_000:
                data += await connection.receive()
            assert connection.status_code == 200
            assert connection.headers["Content-Type"] == "video/x-flv"
            assert connection.headers["Cache-Control"] == "no-store"
        await no_readers(engine)
    shown, sounds = numbers(data, "flv")
    assert len(shown) > 5
    assert shown == list(range(shown[0], shown[0] + len(shown)))
    assert sounds > 5


async def test_flv_ends_with_its_stream(client, engine):
    with trio.fail_after(ENDLESS):
        async with followed(client, f"/{NAME}.flv") as connection:
            await connection.receive()
            await engine.remove_stream(NAME)
        assert (await connection.as_response()).status_code == 200


async def test_a_client_that_takes_nothing_is_let_go(client, engine, monkeypatch):
    monkeypatch.setattr(playback, "STALL", 0.1)
    with trio.fail_after(ENDLESS):
        async with followed(client, f"/{NAME}.flv") as connection:
            await connection.receive()
            while connection._client_send.statistics().tasks_waiting_send == 0:
                await trio.sleep(0.01)
            await trio.sleep(2 * playback.STALL)
            with pytest.raises(trio.EndOfChannel):
                while True:
                    await connection.receive()
        async with client.websocket(f"/{NAME}.ws") as socket:
            await socket.receive()
            await no_readers(engine)


def test_who_plays_over_rtmp_may_take_nothing_for_as_long_as_over_http():
    assert Limits().stall == playback.STALL == 10


async def test_a_slow_client_that_takes_something_all_the_time_is_not_let_go(media, autojump_clock, monkeypatch):
    monkeypatch.setattr(stream, "QUEUE_PACKETS", 9999)
    hub = Hub(lambda: 0)
    publication = hub.publish(NAME, Publisher(kind="pattern"))
    body = playback.FlowBody(lambda: FlvFlow(hub.read(NAME)))
    taken, times = b"", 0
    async with body:
        for packet in packets(media.path("plain"), times=20):
            publication.send(packet)
        publication.close()
        async for data in body:
            assert 0 < len(data) <= playback.SLICE
            taken, times = taken + data, times + 1
            await trio.sleep(0.9 * playback.STALL)
    assert times > 2
    assert len(numbers(taken, "flv")[0]) == 1200


async def test_a_websocket_gets_its_film_in_slices(client, engine, monkeypatch):
    monkeypatch.setattr(playback, "SLICE", 500)
    data, sizes = b"", []
    with trio.fail_after(ENDLESS):
        async with client.websocket(f"/{NAME}.ws") as socket:
            assert "mime" in json.loads(await socket.receive())
            while len(data) < 20_000:
                data += await socket.receive()
                sizes.append(len(data) - sum(sizes))
    assert max(sizes) == 500
    shown, _ = numbers(data[: data.rindex(b"moof") - 4], "mp4")
    assert shown == list(range(shown[0], shown[0] + len(shown)))


async def test_head_of_a_film_without_an_end(client, engine):
    with trio.fail_after(30):
        async with client.request(f"/{NAME}.flv", method="HEAD") as connection:
            await connection.send_complete()
            assert await connection.receive() == b""
            assert connection.status_code == 200
            assert connection.headers["Content-Type"] == "video/x-flv"
            assert "Content-Length" not in connection.headers


async def test_who_asks_for_no_websocket_is_told_so(client):
    for method in ("GET", "HEAD"):
        answer = await client.open("/live/a.ws", method=method)
        assert (answer.status_code, answer.headers["Upgrade"], answer.headers["Connection"]) == (
            426,
            "websocket",
            "Upgrade",
        )
    assert await (await client.get("/live/a.ws")).get_json() == {"error": "this is a WebSocket"}


async def test_websocket(client, engine):
    data = b""
    with trio.fail_after(ENDLESS):
        async with client.websocket(f"/{NAME}.ws") as socket:
            told = json.loads(await socket.receive())
            assert re.fullmatch(r'video/mp4; codecs="avc1\.[0-9a-f]{6}, ?mp4a\.40\.2"', told["mime"])
            assert told["leftOut"] == ""
            for _ in range(15):
                data += await socket.receive()
        await no_readers(engine)
    shown, sounds = numbers(data, "mp4")
    assert len(shown) > 5
    assert shown == list(range(shown[0], shown[0] + len(shown)))
    assert sounds > 5


async def test_websocket_tells_what_is_left_out(client, engine, tmp_path):
    encode(tmp_path / "av1.mp4", Video("libsvtav1"), Audio(), seconds=1)
    await engine.put_source("live/av1", PullSpec(url=str(tmp_path / "av1.mp4"), loop=True))
    with trio.fail_after(ENDLESS):
        while not any(each.name == "live/av1" and each.video and each.audio for each in engine.streams()):
            await trio.sleep(0.01)
        async with client.websocket("/live/av1.ws") as socket:
            told = json.loads(await socket.receive())
            assert told == {"mime": 'audio/mp4; codecs="mp4a.40.2"', "leftOut": "video in av1"}
            assert numbers(await socket.receive(), "mp4")[0] == []


async def test_websocket_tells_what_is_left_out_later(client, engine, media, tmp_path):
    """The MIME type is told again with a new beginning only; here the sound goes on beside another picture."""
    other = encode(tmp_path / "av1.mp4", Video("libsvtav1"), Audio(), seconds=1)
    publication = engine._hub.publish("live/turn", Publisher(kind="rtmp"))
    with trio.fail_after(ENDLESS):
        async with client.websocket("/live/turn.ws") as socket:
            while not any(each.readers for each in engine.streams() if each.name == "live/turn"):
                await trio.sleep(0.01)
            for packet in packets(media.path("plain")):
                publication.send(packet)
            first = json.loads(await socket.receive())
            for packet in packets(other, start=3):
                publication.send(packet)
            publication.close()
            while not isinstance(later := await socket.receive(), str):
                pass
    assert (list(first), first["leftOut"]) == (["mime", "leftOut"], "")
    assert json.loads(later) == {"leftOut": "video in libdav1d"}


async def test_websocket_tells_why_it_ends(client, engine):
    with trio.fail_after(ENDLESS):
        async with client.websocket(f"/{NAME}.ws") as socket:
            await socket.receive()
            await engine.remove_stream(NAME)
            with pytest.raises(WebsocketDisconnectError) as caught:
                while True:
                    await socket.receive()
    assert caught.value.args == (1000,)


async def answered(port, path):
    """All that a WebSocket gets, until the server has refused or closed it."""
    handshake = "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\n{handshake}\r\n\r\n".encode()
        )
        found = b""
        async for piece in stream:
            found += piece
            if b"\x88" in found or not found.startswith(b"HTTP/1.1 101 "):
                break
    return found


async def test_who_plays_what_mp4_cannot_carry_is_told_so_whether_it_has_come_already_or_not(engine, caplog):
    publication = engine._hub.publish("live/odd", Publisher(kind="rtmp"))
    track = Track(kind="video", codec="vp9")
    answers = []
    with trio.fail_after(ENDLESS):
        async with serving(create_app(engine)) as port, trio.open_nursery() as nursery:

            async def follow():
                answers.append(await answered(port, "/live/odd.ws"))

            nursery.start_soon(follow)
            while not any(each.readers for each in engine.streams() if each.name == "live/odd"):
                await trio.sleep(0.01)
            for n in range(30):
                publication.send(Packet(track, b"x", pts=n, dts=n, arrival=n * NS // 30, keyframe=not n))
            nursery.start_soon(follow)
    for answer in answers:
        head, _, said = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        assert said[2:] == b"\x03\xebvideo in vp9 cannot be sent"
    assert len(answers) == 2
    assert not [record for record in caplog.records if record.exc_info]


async def test_websocket_that_says_much_is_still_missed_when_it_goes(client, engine):
    with trio.fail_after(ENDLESS):
        async with client.websocket(f"/{NAME}.ws") as socket:
            await socket.receive()
            for _ in range(50):
                await socket.send("?")
        await no_readers(engine)


async def test_low_latency_hls(client, engine):
    with trio.fail_after(ENDLESS):
        answer = await client.get(f"/{NAME}/index.m3u8")
        assert answer.status_code == 200
        assert answer.content_type == "application/vnd.apple.mpegurl"
        assert answer.headers["Cache-Control"] == "no-cache"
        text = await answer.get_data(as_text=True)
        init = re.search(r'EXT-X-MAP:URI="(init_\d+\.mp4)"', text)[1]
        segment = re.search(r"^(seg_(\d+)\.m4s)$", text, re.M)
        hint = re.search(r'PRELOAD-HINT:TYPE=PART,URI="(part_(\d+)_(\d+)\.m4s)"', text)
        data = b""
        for file in (init, segment[1]):
            answer = await client.get(f"/{NAME}/{file}")
            assert answer.status_code == 200
            assert answer.content_type == "video/mp4"
            assert "max-age" in answer.headers["Cache-Control"]
            data += await answer.get_data()
        shown, sounds = numbers(data, "mp4")
        assert len(shown) >= 25
        assert sounds
        answer = await client.get(f"/{NAME}/{hint[1]}")
        assert answer.status_code == 200
        assert (await answer.get_data())[4:8] in (b"moof", b"styp")
        answer = await client.get(f"/{NAME}/index.m3u8?_HLS_msn={hint[2]}&_HLS_part={hint[3]}")
        assert hint[1] in (await answer.get_data(as_text=True))


async def test_hls_of_a_stream_whose_app_is_called_hls(client, engine):
    """What has such a name does not take a cast's address away."""
    for name in ("hls/cam", "hls/7", "cast/7"):
        await engine.put_source(name, PATTERN)
    with trio.fail_after(ENDLESS):
        while not all(each.video and each.audio for each in engine.streams()):
            await trio.sleep(0.01)
        for key in ("cam", "7"):
            answer = await client.get(f"/hls/{key}/index.m3u8")
            assert answer.status_code == 200
            for file in re.findall(r"(?:init|seg)_\d+\.m(?:p4|4s)", await answer.get_data(as_text=True)):
                assert (await client.get(f"/hls/{key}/{file}")).status_code == 200
        assert (await client.get("/hls/7/whatever.m3u8")).status_code == 200
        assert {each.name for each in engine.streams() if each.readers} == {"hls/cam", "cast/7"}
        assert (await client.get("/hls/none/index.m3u8")).status_code == 404


async def test_silly_questions(client, engine):
    for query in ("_HLS_msn=x", "_HLS_msn=-1", "_HLS_msn=1e3", "_HLS_msn=999999999999"):
        with trio.fail_after(ENDLESS):
            answer = await client.get(f"/{NAME}/index.m3u8?{query}")
        assert answer.status_code == 400
        assert "_HLS_" in (await answer.get_json())["error"]


async def test_still_picture(client, engine):
    with trio.fail_after(ENDLESS):
        answer = await client.get(f"/{NAME}.jpg")
    assert answer.status_code == 200
    assert answer.content_type == "image/jpeg"
    assert answer.headers["Cache-Control"] == "no-store"
    with av.open(io.BytesIO(await answer.get_data())) as container:
        (frame,) = container.decode()
    assert (frame.width, frame.height) == (128, 72)


async def test_a_mix_plays_like_any_stream(client, engine):
    with trio.fail_after(ENDLESS):
        await engine.create_event(
            EventSpec(name="show", path="live", stream_name="mix", mixer=MixerSpec(raster=Raster(64, 36)))
        )
        async with client.websocket("/live/mix.ws") as socket:
            assert "mime" in json.loads(await socket.receive())
            assert (await socket.receive())[4:8] == b"ftyp"


async def test_what_is_not_there(client, engine):
    nothing = [
        f"/live/none{end}" for end in (".flv", ".jpg", "/index.m3u8", "/init_0.mp4", "/seg_0.m4s", "/part_0_0.m4s")
    ]
    neither = [f"/{NAME}{end}" for end in ("/init_99.mp4", "/seg_99999.m4s", "/part_99999_0.m4s", "/seg_x.m4s", "")]
    odd = ["/live/%2e%2e/none.flv", "/live//none.flv", "/.flv", "/live/%00.flv", "/live/%0a.jpg"]
    for path in (*nothing, *neither, *odd):
        with trio.fail_after(ENDLESS):
            answer = await client.get(path)
        assert answer.status_code == 404, path
        assert answer.content_type == "application/json"
        assert set(await answer.get_json()) == {"error"}


async def test_a_websocket_to_what_is_not_there(client, engine):
    with trio.fail_after(30):
        async with client.websocket("/live/none.ws") as socket:
            with pytest.raises(WebsocketResponseError) as caught:
                await socket.receive()
    assert caught.value.response.status_code == 404
    assert json.loads(await caught.value.response.get_data()) == {"error": 'no stream "live/none"'}


@pytest.mark.parametrize(
    ("method", "path", "endpoint"),
    [
        ("GET", "/brewmixer/1.0/show.flv", "brewmixer."),
        ("GET", "/brewmixer/1.0/show.jpg", "brewmixer."),
        ("DELETE", "/brewmixer/2.0/images/logo.jpg", "brewmixer."),
        ("GET", "/streams/1.0/live/cam.flv", "streams."),
        ("GET", "/streams/1.0/live/cam/index.m3u8", "streams."),
        ("GET", "/recordings/cam.flv", "streams."),
        ("GET", "/console/icon.jpg", "pages."),
        ("GET", "/live/cam.flv", "playback.flv"),
        ("GET", "/live/index.m3u8/x.jpg", "playback.picture"),
        ("GET", "/live/x.flv/index.m3u8", "playback.playlist"),
        ("GET", "/cam.jpg", "playback.picture"),
    ],
)
async def test_no_name_hides_another_door(tmp_path, method, path, endpoint):
    app = create_app(Engine(Settings(data=str(tmp_path))))
    adapter = app.url_map.bind("localhost")
    assert adapter.match(path, method)[0].startswith(endpoint)
