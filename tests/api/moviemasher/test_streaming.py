"""A cast is a real stream: it plays as HLS, cuts go on in the same playlist, with sound, until it is deleted."""

import base64
import io
import json
import os
import re
import threading
from contextlib import asynccontextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
import trio

import api.moviemasher.streaming as streaming
from engine.fetch import Limits
from engine.frame import VideoFrame
from engine.sinks.still import encode_still
from tests.api.moviemasher.asking import Client, masher, masher_beside
from tests.media import read_number
from tests.threads import no_threads
from tests.web import WebRequest, web_server

PATIENCE = 30
SMALL = {"width": 64, "height": 36, "videoRate": 10}
_PLANES = (((36, 64), 63), ((18, 32), 102), ((18, 32), 240))
RED = encode_still(VideoFrame(*(np.full(size, level, np.uint8) for size, level in _PLANES)))


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """The folder and the port of a server."""
    folder = tmp_path_factory.mktemp("masher")
    with pytest.MonkeyPatch.context() as patch, masher_beside(folder) as port:
        patch.setattr(streaming, "READY", 1)  # shorter segments, so that less is waited for
        yield folder, port


@pytest.fixture
async def viewer(running, request):
    folder, port = running
    found = Viewer(folder, Client(port, user=re.sub(r"\W", "-", request.node.name)[:60]))
    yield found
    for each in (await found.client.call("/streaming/list"))["streams"]:
        await found.client.call("/streaming/delete", id=each["id"])


class Viewer:
    """Somebody with streams, who watches them."""

    def __init__(self, folder, client):
        self.client = client
        self.media = folder / "media" / client.user

    async def start(self, **asked):
        """The id of a stream, when it can be played."""
        started = await self.client.call("/streaming/start", **{**SMALL, **asked})
        with trio.fail_after(PATIENCE):
            while not await self.client.call("/streaming/status", id=started["id"]):
                await trio.sleep(0.1)
        return started["id"]

    async def playlist(self, name, file="index"):
        answer = await self.client.get(f"/hls/{name}/{file}.m3u8")
        assert answer.status == 200, answer.body
        assert answer.headers["content-type"] == "application/vnd.apple.mpegurl"
        return answer.body.decode()

    async def newest(self, name, after=-1):
        """(number, bytes of an MP4) of the newest segment, one after that number."""
        with trio.fail_after(PATIENCE):
            while True:
                text = await self.playlist(name)
                assert "#EXT-X-DISCONTINUITY\n" not in text
                listed = [int(each) for each in re.findall(r"^seg_(\d+)\.m4s", text, re.MULTILINE)]
                if listed and listed[-1] > after:
                    break
                await trio.sleep(0.2)
        (init,) = set(re.findall(r'URI="(init_\d+\.mp4)"', text))
        parts = [await self.client.get(f"/hls/{name}/{each}") for each in (init, f"seg_{listed[-1]}.m4s")]
        assert [part.status for part in parts] == [200, 200]
        return listed[-1], b"".join(part.body for part in parts)

    async def until(self, name, is_right):
        """Watches until a segment is as it should be; how many there were."""
        seen, number = 0, -1
        with trio.fail_after(PATIENCE):
            while True:
                number, data = await self.newest(name, after=number)
                seen += 1
                if is_right(data):
                    return seen


def pictures(data):
    with av.open(io.BytesIO(data)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def is_colour(channel, data, place=(18, 32)):
    """Whether the last picture is red, green or blue in its middle, or in another (row, column)."""
    pixel = pictures(data)[-1][place].astype(int)
    return pixel[channel] > 200 and sorted(pixel)[1] < 60


def level(data):
    """The root mean square of the sound."""
    with av.open(io.BytesIO(data)) as container:
        blocks = [frame.to_ndarray() for frame in container.decode(audio=0)]
    return float(np.sqrt(np.mean(np.concatenate(blocks, axis=1) ** 2)))


def coloured(value, **clip):
    content = {"contentId": "com.moviemasher.content.default", "content": {"color": value}}
    return {"tracks": [{"dense": True, "clips": [{**content, "timing": "custom", "frames": 20, **clip}]}]}


async def test_a_stream_begins_black_and_a_cut_goes_on_in_the_same_playlist(viewer):
    started = await viewer.client.call("/streaming/start", **SMALL)
    name = started["id"]
    assert started == {
        "id": name,
        "width": 64,
        "height": 36,
        "videoRate": 10,
        "format": "hls",
        "stream": f"cast/{name}",
        "readySeconds": streaming.READY,
    }
    with trio.fail_after(PATIENCE):
        while (found := await viewer.client.call("/streaming/status", id=name)) == {}:
            await trio.sleep(0.1)
    assert found == {"streamUrl": f"/hls/{name}/index.m3u8"}
    assert (await viewer.playlist(name, "whatever")).startswith("#EXTM3U")
    _, data = await viewer.newest(name)
    assert max(picture.max() for picture in pictures(data)) < 10
    with av.open(io.BytesIO(data)) as container:
        assert sorted(stream.type for stream in container.streams) == ["audio", "video"]
    assert (await viewer.client.get(f"/cast/{name}.jpg")).status == 200
    small = {"container": {"width": 0.5, "height": 0.5, "lock": ""}}
    cut = {"id": name, "mashObjects": [coloured("#0000FF"), coloured("#00FF00", **small)], "definitionObjects": []}
    assert await viewer.client.call("/streaming/cut", **cut) == {}
    await viewer.until(name, partial(is_colour, 1))  # the last one is on top
    _, data = await viewer.newest(name)
    assert pictures(data)[-1][1, 1].argmax() == 2


async def test_what_is_saved_comes_on_by_its_id(viewer):
    mash = {**coloured("#FF0000"), "id": f"m-{viewer.client.user}"}
    cast = {"id": f"c-{viewer.client.user}", "layers": [{"type": "mash", "mash": mash}]}
    await viewer.client.call("/data/cast/put", cast=cast, definitionIds={})
    name = await viewer.start(cast={"id": cast["id"]})
    await viewer.until(name, partial(is_colour, 0))
    await viewer.client.call("/streaming/cut", id=name, mashObjects=[{"id": mash["id"]}])
    assert "nosuch" in (await viewer.client.post("/streaming/cut", id=name, mashObjects=[{"id": "nosuch"}])).error


async def test_the_lowest_of_saved_mashes_that_come_on_by_their_ids_has_its_background(viewer):
    small = {"container": {"width": 0.5, "height": 0.5, "lock": ""}}
    colours = {f"{colour}-{viewer.client.user}": f"#{colour}" for colour in ("0000FF", "00FF00")}
    for mash, colour in colours.items():
        saved = {**coloured("#FF0000", **small), "id": mash, "color": colour}
        await viewer.client.call("/data/mash/put", mash=saved, definitionIds=[])
    blue, green = ({"id": mash} for mash in colours)
    name = await viewer.start(mashObjects=[blue, green])
    await viewer.until(name, lambda data: is_colour(0, data) and is_colour(2, data, (1, 1)))
    await viewer.client.call("/streaming/cut", id=name, mashObjects=[green, blue])
    await viewer.until(name, lambda data: is_colour(0, data) and is_colour(1, data, (1, 1)))


async def test_a_mash_in_a_folder_of_a_cast_comes_on_by_its_id(viewer):
    mash = {**coloured("#FF0000"), "id": f"m-{viewer.client.user}"}
    await viewer.client.call("/data/mash/put", mash=mash, definitionIds=[])
    inner = {"type": "mash", "mash": {"id": mash["id"]}}
    name = await viewer.start(cast={"id": "c", "layers": [{"type": "folder", "layers": [inner]}]})
    await viewer.until(name, partial(is_colour, 0))


async def test_without_a_word_it_has_the_default_size(viewer):
    started = await viewer.client.call("/streaming/start")
    assert (started["width"], started["height"], started["videoRate"]) == (320, 240, 30)


async def test_files_play_with_their_sound(viewer, media):
    viewer.media.mkdir(parents=True)
    (viewer.media / "film.mp4").write_bytes(media.path("plain").read_bytes())
    film = {"id": "f", "type": "video", "source": "film.mp4"}
    mash = {"tracks": [{"clips": [{"contentId": "f", "content": {}}]}]}
    name = await viewer.start(mashObjects=[mash], definitionObjects=[film])
    await viewer.until(name, lambda data: level(data) > 0.2)
    with trio.fail_after(PATIENCE):
        found = set()
        while len(found) < 12:  # it is read on, and begins again at its end
            _, data = await viewer.newest(name)
            found |= {read_number(picture[:, :, 1]) for picture in pictures(data)} - {None, 0}
    assert found <= set(range(60))


async def test_images_texts_and_live_streams_are_shown(viewer):
    pattern, headers = json.dumps({"pattern": "bars"}).encode(), {"Content-Type": "application/json"}
    put = await viewer.client.ask("PUT", "/streams/1.0/live/bars", body=pattern, headers=headers)
    assert put.status in (200, 201), put.body
    viewer.media.mkdir(parents=True)
    (viewer.media / "red.png").write_bytes(RED)
    photo = {"id": "p", "type": "image", "source": "red.png"}
    text = {"container": {"string": "I", "width": 1, "height": 0.5}, "containerId": "com.moviemasher.container.text"}
    camera = {"id": "c", "type": "video", "source": "live/bars"}
    corner = {"contentId": "c", "content": {}, "container": {"x": 1, "y": 1, "width": 0.3, "height": 0.3, "lock": ""}}
    mashes = [{"tracks": [{"clips": [{"contentId": "p"}]}]}, coloured("#FFFFFF", **text)]
    mashes.append({"tracks": [{"clips": [{**corner, "frames": 100}]}]})
    name = await viewer.start(mashObjects=mashes, definitionObjects=[photo, camera])

    def is_right(data):
        picture = pictures(data)[-1].astype(int)
        has_bars = picture[30, 50:].std(axis=0).max() > 30
        return picture[2, 2].argmax() == 0 and picture[:20].min(axis=2).max() > 150 and has_bars

    await viewer.until(name, is_right)


class Slow(WebRequest):
    """Gives a picture when the server is told to, but at once at /quick.png."""

    def do_GET(self):
        self.server.asked.append(self.path)
        self.server.is_asked.set()
        if self.path != "/quick.png":
            self.server.over.wait(PATIENCE)
        self.send_response(200)
        self.send_header("Content-Length", str(len(RED)))
        self.end_headers()
        self.wfile.write(RED)


@pytest.fixture
def slow():
    with web_server(Slow) as server:
        server.asked, server.is_asked = [], threading.Event()
        yield server


async def test_a_cut_that_a_later_one_overtook_does_not_come_on(tmp_path, slow, monkeypatch):
    monkeypatch.setattr(streaming, "READY", 1)
    photo = {"id": "p", "type": "image", "source": f"{slow.url}/red.png"}
    late = {"mashObjects": [{"tracks": [{"clips": [{"contentId": "p"}]}]}], "definitionObjects": [photo]}
    answers = []
    async with masher(tmp_path, allow_private=True) as port, trio.open_nursery() as nursery:
        viewer = Viewer(tmp_path, Client(port))
        name = await viewer.start()

        async def cut():
            answers.append(await viewer.client.call("/streaming/cut", id=name, **late))

        nursery.start_soon(cut)
        assert await trio.to_thread.run_sync(slow.is_asked.wait, PATIENCE)
        assert await viewer.client.call("/streaming/cut", id=name, mashObjects=[coloured("#00FF00")]) == {}
        await viewer.until(name, partial(is_colour, 1))
        slow.over.set()
        with trio.fail_after(PATIENCE):
            while not answers:
                await trio.sleep(0.05)
        number, _ = await viewer.newest(name)
        for _ in range(2):
            number, data = await viewer.newest(name, after=number)
            assert is_colour(1, data)
        assert answers == [{"overtaken": True}]
        assert await viewer.client.call("/streaming/cut", id=name, **late) == {}  # what comes after it does
        await viewer.until(name, partial(is_colour, 0))


@asynccontextmanager
async def waiting(client, slow):
    """(id, answers) of a stream that asks for as much as can be fetched at once, of which nothing comes."""
    name = (await client.call("/streaming/start", **SMALL))["id"]
    answers = []

    async def preload(n):
        answers.append(await client.post("/streaming/preload", id=name, files=[f"{slow.url}/{n}.png"]))

    async with trio.open_nursery() as nursery:
        for n in range(Limits().at_once):
            nursery.start_soon(preload, n)
        with trio.fail_after(PATIENCE):
            while len(slow.asked) < Limits().at_once:
                await trio.sleep(0.01)
        yield name, answers


async def test_what_one_stream_waits_for_does_not_hold_up_another(tmp_path, slow):
    async with masher(tmp_path, allow_private=True) as port, waiting(Client(port, user="bob"), slow) as (_, answers):
        viewer = Viewer(tmp_path, Client(port))
        name = await viewer.start()
        assert await viewer.client.call("/streaming/cut", id=name, **cut_to(f"{slow.url}/quick.png", "image")) == {}
        assert not answers
        slow.over.set()


async def test_what_a_stream_waits_for_is_given_up_when_it_ends(tmp_path, slow):
    async with masher(tmp_path, allow_private=True) as port:
        client = Client(port)
        async with waiting(client, slow) as (name, answers):
            assert (tmp_path / "casts" / name).exists()
            await client.call("/streaming/delete", id=name)
        assert [each.error for each in answers] == ["stream not found"] * Limits().at_once
        assert not (tmp_path / "casts" / name).exists()
        assert not slow.over.is_set()


async def test_a_cut_that_is_read_while_its_stream_ends_finds_no_stream(tmp_path, monkeypatch):
    begun, go, complete = threading.Event(), threading.Event(), streaming.complete

    def read_slowly(document):
        begun.set()
        assert go.wait(PATIENCE)
        return complete(document)

    monkeypatch.setattr(streaming, "complete", read_slowly)  # as from a disk that takes its time
    answers = []
    async with masher(tmp_path) as port, trio.open_nursery() as nursery:
        client = Client(port)
        name = (await client.call("/streaming/start", **SMALL))["id"]

        async def cut():
            answers.append(await client.post("/streaming/cut", id=name, mashObjects=[coloured("#00FF00")]))

        nursery.start_soon(cut)
        assert await trio.to_thread.run_sync(begun.wait, PATIENCE)
        await client.call("/streaming/delete", id=name)
        go.set()
    assert [each.error for each in answers] == ["stream not found"]


async def test_of_what_came_for_cuts_only_that_on_the_air_stays(tmp_path, slow, media, monkeypatch):
    """Which is read on, and begins again at its end."""
    monkeypatch.setattr(streaming, "LOOK_EVERY", 0.05)
    slow.over.set()
    picture, film = (data_url(kind, content) for kind, content in (("image/png", RED), ("video/mp4", media_of(media))))
    async with masher(tmp_path, allow_private=True) as port:
        viewer = Viewer(tmp_path, Client(port))
        name = await viewer.start(**cut_to(picture, "image"))
        await viewer.until(name, partial(is_colour, 0))
        (first,) = await copies(tmp_path, name, 1)
        for _ in range(4):
            assert await viewer.client.call("/streaming/cut", id=name, **cut_to(picture, "image")) == {}
        failing = cut_to("nosuch.png", "image")
        failing["definitionObjects"].insert(0, {"id": "y", "type": "image", "source": picture})
        failing["mashObjects"][0]["tracks"][0]["clips"].insert(0, {"contentId": "y"})
        assert "nosuch" in (await viewer.client.post("/streaming/cut", id=name, **failing)).error
        assert await viewer.client.call("/streaming/preload", id=name, files=[f"{slow.url}/red.png"]) == {}
        assert await viewer.client.call("/streaming/cut", id=name, **cut_to(film)) == {}
        (last,) = await copies(tmp_path, name, 1)
        assert (last.read_bytes(), first.exists()) == (media_of(media), False)
        seen = []

        def has_begun_again(data):
            seen.extend(number for each in pictures(data) if (number := read_number(each[:, :, 1])))
            return any(later < earlier for earlier, later in pairwise(seen))

        await viewer.until(name, has_begun_again)
        assert await copies(tmp_path, name, 1) == [last]
        assert len(list((tmp_path / "casts" / name).iterdir())) == 1


async def copies(folder, name, count):
    """The files on the disk that came for a stream, when there are so many."""
    with trio.fail_after(PATIENCE):
        while len(found := files_in(folder / "casts" / name)) != count:
            await trio.sleep(0.05)
    return found


def files_in(folder):
    """Unlike rglob, also while folders in it go."""
    return [Path(each, name) for each, _, names in os.walk(folder) for name in names]


def data_url(kind, content):
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def media_of(media):
    return media.path("plain").read_bytes()


async def test_a_stream_whose_event_somebody_deleted_is_given_up_when_it_is_asked_for(tmp_path, slow):
    async with masher(tmp_path, allow_private=True) as port:
        client = Client(port)
        async with waiting(client, slow) as (name, answers):
            assert (await client.ask("DELETE", f"/brewmixer/1.0/cast-{name}")).status == 200
            assert (await client.post("/streaming/status", id=name)).error == "stream not found"
        assert [each.error for each in answers] == ["stream not found"] * Limits().at_once
        assert not (tmp_path / "casts" / name).exists()


def cut_to(source, kind="video"):
    mash = {"tracks": [{"clips": [{"contentId": "x"}]}]}
    return {"mashObjects": [mash], "definitionObjects": [{"id": "x", "type": kind, "source": source}]}


@pytest.mark.parametrize(
    ("path", "asked", "sentence"),
    [
        ("cut", {"mashObjects": []}, "there are no mashes"),
        ("cut", {"mashObjects": [3]}, "expected an object"),
        ("cut", {"mashObjects": [None]}, "expected an object"),
        ("cut", {"cast": {"id": "nosuch", "label": "x"}}, "$.cast.layers: expected an array"),
        ("cut", {"cast": {"layers": "x"}}, "$.cast.layers: expected an array"),
        ("cut", {"cast": {"layers": [{"type": "mash", "mash": None}]}}, "$.cast.layers[0].mash: expected an object"),
        ("start", {"mashObjects": [None]}, "expected an object"),
        ("start", {"cast": {"layers": {}}}, "$.cast.layers: expected an array"),
        ("cut", {"mashObjects": [{"tracks": [{"clips": [{"contentId": "x"}]}]}]}, 'no definition "x"'),
        ("cut", cut_to("../other/film.mp4"), "is no live stream and no file"),
        ("cut", cut_to("film\0.mp4"), "is no live stream and no file"),
        ("cut", cut_to("x" * 5000), "is no live stream and no file"),
        ("cut", cut_to(["a"]), "$.definitions[0].source: missing"),
        ("start", cut_to({"url": "a"}), "$.definitions[0].source: missing"),
        ("start", {"format": "mdash"}, "is not one of hls, flv"),
        ("start", {"format": "rtmp"}, "this server does not listen to RTMP"),
        ("start", {"width": 100_000}, "width 100000 is not within"),
        ("start", {"videoRate": 0}, "not a frame rate"),
    ],
)
async def test_what_cannot_be_shown_is_said_and_what_is_on_stays(viewer, path, asked, sentence):
    asked = asked if path == "start" else {"id": (await viewer.client.call("/streaming/start", **SMALL))["id"], **asked}
    answer = await viewer.client.post(f"/streaming/{path}", **asked)
    assert sentence in answer.error
    listed = (await viewer.client.call("/streaming/list"))["streams"]
    assert len(listed) == (path == "cut")


@pytest.mark.parametrize(
    ("asked_as", "host"), [("127.0.0.1:8570", "127.0.0.1"), ("localhost", "localhost"), ("[::1]:80", "[::1]")]
)
async def test_a_stream_may_be_asked_for_as_rtmp_and_plays_where_its_address_says(asked_as, host, tmp_path):
    async with masher(tmp_path, rtmp_port=0) as port:
        viewer = Viewer(tmp_path, Client(port))
        viewer.client.headers["Host"] = asked_as
        name = await viewer.start(format="rtmp", mashObjects=[coloured("#FF0000")])
        url = (await viewer.client.call("/streaming/status", id=name))["streamUrl"]
        found = re.fullmatch(rf"rtmp://{re.escape(host)}:(\d+)/cast/{name}", url)
        assert found is not None, url
        picture = await trio.to_thread.run_sync(first_picture, f"rtmp://127.0.0.1:{found[1]}/cast/{name}")
        assert picture.shape == (36, 64, 3)


def first_picture(url):
    with av.open(url, timeout=PATIENCE) as container:
        return next(container.decode(video=0)).to_ndarray(format="rgb24")


async def test_a_stream_that_says_no_rate_and_size_has_those_of_the_settings(tmp_path):
    async with masher(tmp_path, output_rate=29.97, output_size="64x36") as port:
        client = Client(port)
        started = await client.call("/streaming/start")
        assert [started[name] for name in ("width", "height", "videoRate")] == [64, 36, 30_000 / 1001]
        assert (await client.call("/streaming/start", videoRate=10))["videoRate"] == 10


async def test_a_live_stream_may_be_heard_alone(viewer):
    pattern, headers = json.dumps({"pattern": "bars?tone=440"}).encode(), {"Content-Type": "application/json"}
    await viewer.client.ask("PUT", "/streams/1.0/live/radio", body=pattern, headers=headers)
    asked = cut_to("live/radio")
    asked["definitionObjects"][0]["type"] = "audio"
    asked["mashObjects"][0]["tracks"][0]["clips"][0]["frames"] = 100
    name = await viewer.start(**asked)
    await viewer.until(name, lambda data: level(data) > 0.01)


async def test_no_image_is_a_live_stream(viewer):
    pattern, headers = json.dumps({"pattern": "bars"}).encode(), {"Content-Type": "application/json"}
    await viewer.client.ask("PUT", "/streams/1.0/live/still", body=pattern, headers=headers)
    name = (await viewer.client.call("/streaming/start", **SMALL))["id"]
    asked = cut_to("live/still")
    asked["definitionObjects"][0]["type"] = "image"
    assert "is a stream, which is no image" in (await viewer.client.post("/streaming/cut", id=name, **asked)).error


async def test_streams_are_listed_and_deleted_by_their_own_user(viewer):
    name = (await viewer.client.call("/streaming/start", **SMALL))["id"]
    other = Client(viewer.client.port, user="somebody-else")
    assert (await other.call("/streaming/list")) == {"streams": []}
    for client, asked in ((other, name), (viewer.client, "nosuch")):
        for path in ("status", "delete", "cut", "preload"):
            assert (await client.post(f"/streaming/{path}", id=asked, mashObjects=[coloured("#fff")])).error
    assert await viewer.client.call("/streaming/preload", id=name, files=["a.mp4"]) == {}
    assert await viewer.client.call("/streaming/delete", id=name) == {}
    assert (await viewer.client.get(f"/cast/{name}.jpg")).status == 404  # its playlist comes to its end
    assert (await viewer.client.post("/streaming/status", id=name)).error == "stream not found"
    assert (await viewer.client.call("/streaming/list")) == {"streams": []}


async def test_there_are_not_too_many(viewer):
    for _ in range(streaming.MAX_OF_ONE):
        await viewer.client.call("/streaming/start", **SMALL)
    assert "yours" in (await viewer.client.post("/streaming/start", **SMALL)).error


async def test_a_server_that_has_no_thread_for_a_while_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(streaming, "IDLE", 0.1)
    monkeypatch.setattr(streaming, "LOOK_EVERY", 0.01)
    monkeypatch.setattr("api.moviemasher.rendering.FORGET_EVERY", 0.01)
    monkeypatch.setattr("engine.threads.PATIENCE", 0.05)
    monkeypatch.setattr("engine.core.HLS_IDLE", 100_000_000)
    async with masher(tmp_path) as port:
        client = Client(port)
        await client.call("/streaming/start", **SMALL)
        with trio.fail_after(PATIENCE):
            async with no_threads():
                await trio.sleep(0.5)  # the stream that nobody watches ends, requests are looked through
            while (await client.call("/streaming/list"))["streams"]:
                await trio.sleep(0.1)


async def test_what_nobody_watches_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(streaming, "IDLE", 0.3)
    monkeypatch.setattr(streaming, "LOOK_EVERY", 0.1)
    monkeypatch.setattr("engine.core.HLS_IDLE", 100_000_000)
    async with masher(tmp_path) as port:
        client = Client(port)
        name = (await client.call("/streaming/start", **SMALL))["id"]
        with trio.fail_after(PATIENCE):
            while (await client.call("/streaming/list"))["streams"]:
                await trio.sleep(0.1)
        assert (await client.get(f"/cast/{name}.jpg")).status == 404
