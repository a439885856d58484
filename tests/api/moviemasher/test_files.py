"""What a user sends is stored when it was announced, whole and what it should be; of anything else nothing is left."""

import gzip
import os
import resource
import shutil
import struct
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import trio

import api.asgi
import engine.child
from api.moviemasher.documents import Documents
from api.moviemasher.files import LIFE_MS, UPLOAD_SECONDS, Files
from api.moviemasher.options import MB, read_options
from api.moviemasher.uploads import Form
from engine.config import Settings
from engine.errors import AlreadyExists, EngineError, InvalidSpec, Overloaded
from tests.api.moviemasher.asking import Client, form, masher
from tests.media import Audio, encode


def png(width=8, height=6):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = zlib.compress((b"\0" + b"\x80\x40\x20" * width) * height)
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


PNG = png()
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="5" height="5"><use href="#r"/><rect id="r" width="3"/></svg>'


@pytest.fixture
async def client(tmp_path, nursery):
    async with masher(tmp_path) as port:
        yield Client(port)


async def announced(client, name="a.png", kind="image", size=None):
    size = len(PNG) if size is None else size
    return await client.call("/rendering/upload", name=name, type=kind, size=size)


async def store(client, name, content=PNG, filename="a.png", **options):
    headers, body = form({"id": name}, (filename, content), **options)
    return await client.ask("POST", "/file/store/", body=body, headers=headers)


def files_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def left(tmp_path):
    """What is on disk of users' files."""
    return files_in(tmp_path / "media")


# --- announcing ------------------------------------------------------------------------------------------------------


async def test_an_image_is_announced(client):
    found = await client.call("/rendering/upload", name="My Photo.PNG", type="image", size=1000)
    name = found["id"]
    assert found.keys() == {"id", "loadType", "fileProperty", "fileApiCallback", "apiCallback"}
    assert (found["loadType"], found["fileProperty"]) == ("image", "file")
    request = {"body": {"id": name}, "headers": {"Content-Type": "multipart/form-data"}}
    assert found["fileApiCallback"] == {"endpoint": {"prefix": "/file/store"}, "request": request}
    assert found["apiCallback"]["endpoint"] == {"prefix": "/rendering/start"}
    clip = {"definitionId": "com.moviemasher.clip.default", "contentId": name, "content": {}}
    clip |= {"timing": "custom", "frames": 1}
    assert found["apiCallback"]["request"]["body"] == {
        "mash": {"id": name, "tracks": [{"dense": True, "clips": [clip]}]},
        "definitions": [{"id": name, "type": "image", "source": f"{name}/original.png", "label": "My Photo.PNG"}],
        "outputs": [
            {"outputType": "image", "width": 480, "height": 270},
            {"outputType": "image", "width": 240, "height": 135, "basename": "icon"},
        ],
        "upload": True,
    }


async def test_sound_and_film_are_announced(client):
    body = (await announced(client, "b.mp3", "audio"))["apiCallback"]["request"]["body"]
    assert body["mash"]["tracks"][0]["clips"][0]["containerId"] == ""
    assert [each["outputType"] for each in body["outputs"]] == ["audio"]
    body = (await announced(client, "b.mp4", "video"))["apiCallback"]["request"]["body"]
    assert body["definitions"][0]["type"] == "video"
    assert [each["outputType"] for each in body["outputs"]] == ["audio", "image", "imagesequence"]
    assert body["outputs"][0]["optional"]


async def test_the_kind_is_told_by_type_or_name(client):
    for kind, name, expected in (
        ("image/png", "a.png", "image"),
        ("application/x", "a.mov", "video"),
        ("", "a.ttf", "font"),
        ("a/audio", "b.wav", "audio"),
    ):
        assert (await announced(client, name, kind))["loadType"] == expected


async def test_what_may_not_be_stored_is_refused_before_it_is_sent(client):
    for members, word in (
        ({"name": "a.exe", "type": "application/x", "size": 1}, "type"),
        ({"name": "a.exe", "type": "image", "size": 1}, "extension"),
        ({"name": "a.png", "type": "video", "size": 1}, "extension"),
        ({"name": "png", "type": "image", "size": 1}, "extension"),
        ({"name": "a.png", "type": "image", "size": 0}, "size"),
        ({"name": "a.png", "type": "image", "size": -1}, "size"),
        ({"name": "a.png", "type": "image"}, "size"),
        ({"name": "a.png", "type": "image", "size": 5 * MB}, "size"),
        ({"name": "a.mp3", "type": "audio", "size": 50 * MB}, "size"),
        ({"name": "a.mp4", "type": "video", "size": 100 * MB}, "size"),
        ({"name": "a.png", "type": "image", "size": 1.5}, "size"),
        ({"name": "a" * 300 + ".png", "type": "image", "size": 1}, "name"),
        ({"name": 5, "type": "image", "size": 1}, "name"),
        ({"type": "image", "size": 1}, "name"),
    ):
        sentence = (await client.post("/rendering/upload", **members)).error
        assert word in sentence
        assert "." not in sentence


async def test_limits_are_set(tmp_path):
    async with masher(tmp_path, upload_image=0.001, upload_video=2000.5) as port:
        client = Client(port)
        assert (await client.call("/api/servers"))["file"]["uploadLimits"] == {
            "audio": 50,
            "image": 0.001,
            "video": 2000.5,
        }
        assert "size" in (await client.post("/rendering/upload", name="a.png", type="image", size=1049)).error
        await announced(client, size=1048)


# --- storing ---------------------------------------------------------------------------------------------------------


async def test_what_was_announced_is_stored_and_served(client, tmp_path):
    found = await announced(client)
    answer = await client.execute(found["fileApiCallback"], ("a.png", PNG))
    assert answer.json == {}
    assert left(tmp_path) == [f"ada/{found['id']}/original.png"]
    prefix = (await client.call("/api/servers"))["file"]["prefix"]
    source = found["apiCallback"]["request"]["body"]["definitions"][0]["source"]
    answer = await Client(client.port, None).get(prefix + source)
    assert (answer.status, answer.body, answer.headers["content-type"]) == (200, PNG, "image/png")


@pytest.mark.parametrize(("name", "kind", "medium"), [("b.mp4", "video", "plain"), ("b.m4a", "audio", "audio_only")])
async def test_media_are_looked_into(client, tmp_path, media, name, kind, medium):
    content = media.path(medium).read_bytes()
    made = (await announced(client, name, kind, len(content)))["id"]
    assert (await store(client, made, content)).json == {}
    assert len(left(tmp_path)) == 1


async def test_fonts_are_stored_too(client, tmp_path):
    path = next(
        each for each in resources.files("fontpkg_righteous").joinpath("files").iterdir() if each.name.endswith(".ttf")
    )
    made = (await announced(client, "r.ttf", "font", len(path.read_bytes())))["id"]
    assert (await store(client, made, path.read_bytes())).json == {}
    answer = await client.get(f"/media/ada/{made}/original.ttf")
    assert answer.headers["content-type"].startswith("font/")
    assert answer.headers["access-control-allow-origin"] == "*"
    made = (await announced(client, "r.ttf", "font"))["id"]
    assert "font" in (await store(client, made)).error


async def test_an_svg_is_stored_and_a_svgz_is_not_announced(client):
    made = (await announced(client, "a.svg", size=len(SVG)))["id"]
    assert (await store(client, made, SVG)).json == {}
    answer = await client.get(f"/media/ada/{made}/original.svg")
    assert (answer.body, answer.headers["content-type"]) == (SVG, "image/svg+xml")
    assert (await client.call("/rendering/upload", name="a.svg", type="image/svg+xml", size=9))["loadType"] == "image"
    assert "extension" in (await client.post("/rendering/upload", name="a.svgz", type="image", size=9)).error


async def test_what_is_something_else_is_refused(client, tmp_path, media):
    for name, kind, content in (
        ("a.png", "image", b"<html><script>alert(1)</script></html>"),
        ("a.png", "image", b""),
        ("a.png", "image", PNG[:40]),
        ("a.png", "image", "audio_only"),
        ("a.png", "image", "plain"),
        ("a.gif", "image", "text"),
        ("a.png", "image", SVG),
        ("a.svg", "image", PNG),
        ("a.svg", "image", "plain"),
        ("a.svg", "image", b"#EXTM3U\n#EXTINF:10,\n/etc/hostname\n#EXT-X-ENDLIST\n"),
        ("a.svg", "image", SVG[:-3]),
        ("a.svg", "image", gzip.compress(SVG)),
        ("a.svg", "image", SVG.replace(b'"#r"', b'"file:///etc/hostname"')),
        ("a.svg", "image", SVG.replace(b'"5"', b'"1e6"')),
        ("a.mp4", "video", PNG),
        ("a.mp4", "video", "text"),
        ("a.mp4", "video", "audio_only"),
        ("a.mp3", "audio", "plain"),
        ("a.mp3", "audio", b"\0" * 5000),
        ("a.mp4", "video", b"#EXTM3U\n#EXTINF:10,\n/etc/hostname\n#EXT-X-ENDLIST\n"),
        ("a.mp4", "video", b"ffconcat version 1.0\nfile original.mp4\n"),
    ):
        sent = media.path(content).read_bytes() if isinstance(content, str) else content
        made = (await announced(client, name, kind, max(1, len(sent))))["id"]
        assert "." not in (await store(client, made, sent)).error
        assert left(tmp_path) == []


def vast_list(film):
    """An MP4 whose tracks say that they have 40 million samples of one byte, all in one chunk."""
    data = bytearray(film)
    for kind, numbers in ((b"stsz", (1, 40_000_000)), (b"stsc", (1, 1, 40_000_000))):
        at = data.find(kind)
        while at >= 0:
            data[at + 8 : at + 8 + 4 * len(numbers)] = struct.pack(f">{len(numbers)}I", *numbers)
            at = data.find(kind, at + 4)
    return bytes(data)


def vast_end(path):
    """A fragmented MP4 whose last fragment says that it has 40 million samples; only who comes there reads it."""
    options = {"movflags": "empty_moov+default_base_moof+global_sidx", "frag_duration": "1000000"}
    data = bytearray(encode(path, None, Audio("pcm_s16le"), seconds=4, **options).read_bytes())
    at = data.rindex(b"trun")
    data[at + 5 : at + 12] = struct.pack(">I", 1)[1:] + struct.pack(">I", 40_000_000)
    return bytes(data)


async def test_a_small_file_that_takes_much_memory_to_read_is_refused_and_takes_none_of_ours(client, tmp_path, media):
    film = media.path("plain").read_bytes()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name, kind, content in (
        ("a.mp4", "video", vast_list(film)),
        ("a.m4a", "audio", vast_end(tmp_path / "end.mov")),
    ):
        made = (await announced(client, name, kind, len(content)))["id"]
        assert "MiB" in (await store(client, made, content)).error
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 256 << 10  # kB
    assert left(tmp_path) == []
    made = (await announced(client, "a.mp4", "video", len(film)))["id"]
    assert (await store(client, made, film)).json == {}


@pytest.mark.parametrize(
    ("module", "what"), [("tests.engine.crowded", "no process"), ("tests.api.moviemasher.crowded", "no thread")]
)
async def test_a_file_is_not_called_bad_where_nothing_can_look_into_it(tmp_path, monkeypatch, module, what):
    """And may be sent again."""
    child = engine.child.Child(module)
    with monkeypatch.context() as crowded:
        crowded.setattr(engine.child, "Child", lambda _: child)
        async with masher(tmp_path) as port:
            made = (await announced(Client(port)))["id"]
            assert what in (await store(Client(port), made)).error
    async with masher(tmp_path) as port:
        assert (await store(Client(port), made)).json == {}


async def test_only_ids_that_were_given_out_may_be_used(client, tmp_path):
    bob = Client(client.port, "bob")
    others = (await announced(bob))["id"]
    for name in ("", "nosuch", "../x", "../../etc/passwd", "a/b", "..", others, "x" * 1000, "\N{SNOWMAN}"):
        assert (await store(client, name)).error.startswith("Invalid argument id")
    assert left(tmp_path) == []
    assert (await store(bob, others)).json == {}


async def test_names_of_files_are_never_paths(client, tmp_path):
    made = (await announced(client, "../../x/../a.png"))["id"]
    assert (await store(client, made, filename="../../../evil.png")).json == {}
    assert left(tmp_path) == [f"ada/{made}/original.png"]


async def test_forms_that_make_no_sense_are_refused(client, tmp_path):
    made = (await announced(client))["id"]
    headers, body = form({"id": made}, ("a.png", PNG))
    file_only = form({}, ("a.png", PNG))
    id_only = form({"id": made})
    elsewhere = form({"id": made}, ("a.png", PNG), name="other")
    part = body[body.rindex(b"--" + body[2:18], 0, -30) : -len(b"--" + body[2:18] + b"--\r\n")]
    twice = body.replace(part, part + part)
    for sent, word in (
        (file_only, "Invalid argument id"),
        (id_only, "No file supplied"),
        (elsewhere, "No file supplied"),
        (({"Content-Type": "application/json"}, b"{}"), "No file supplied"),
        (({}, None), "No file supplied"),
        ((headers, twice), "more than one"),
        ((headers, b"nonsense"), "end"),
        ((headers, b""), "end"),
        ((headers, body[:-20]), "end"),
        ((headers, body[: len(body) // 2]), "end"),
        ((headers, body.replace(b"name=", b"nome=")), "No file supplied"),
        ((headers, body.replace(b"\r\n", b"\n")), "broken"),
        ((headers, body.replace(b"Content-Disposition", b"X-Disposition")), "No file supplied"),
        ((headers, b"x" * (5 * MB)), "end"),
    ):
        answer = await client.ask("POST", "/file/store/", body=sent[1], headers=sent[0])
        assert word in answer.error
        assert "." not in answer.error
    assert left(tmp_path) == []
    assert (await store(client, made)).json == {}  # none of it has used up the id


async def test_no_more_comes_than_was_announced(client, tmp_path):
    made = (await announced(client, size=len(PNG) - 1))["id"]
    assert "announced" in (await store(client, made)).error
    assert left(tmp_path) == []


async def test_the_largest_form_has_an_end(tmp_path):
    limits = {f"upload_{kind}": 0.1 for kind in ("audio", "font", "image", "video")}
    async with masher(tmp_path, **limits) as port:
        made = (await announced(Client(port)))["id"]
        answer = await store(Client(port), made, b"x" * MB)
        assert (answer.status, "bytes" in answer.json["error"]) == (413, True)
        assert left(tmp_path) == []


async def test_a_file_is_stored_once(client, tmp_path):
    made = (await announced(client))["id"]
    answers = []

    async def attempt():
        answers.append((await store(client, made)).json)

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(attempt)
    assert sorted(map(len, answers)) == [0, 1, 1, 1]
    assert "already" in (await store(client, made)).error
    assert left(tmp_path) == [f"ada/{made}/original.png"]


async def test_a_file_that_is_refused_leaves_its_room_to_others(tmp_path):
    async with masher(tmp_path, quota=1) as port:
        client = Client(port)
        for content in (b"hello" * 1000, PNG[:40], PNG + b"x" * MB):
            made = (await announced(client, size=MB - 1))["id"]
            assert "1 MB" in (await client.post("/rendering/upload", name="a.png", type="image", size=2)).error
            assert (await store(client, made, content)).error
        assert (await store(client, made)).json == {}  # the last one may still be sent
        await announced(client, size=MB - len(PNG))


async def test_room_is_left_to_others_when_the_client_goes_away(tmp_path):
    async with masher(tmp_path, quota=1) as port:
        client = Client(port)
        await break_off(client, (await announced(client, size=MB))["id"], tmp_path)
        with trio.fail_after(30):
            while "id" not in (await client.post("/rendering/upload", name="a.png", type="image", size=MB)).json:
                await trio.sleep(0.01)


async def test_nothing_is_left_when_the_client_goes_away(client, tmp_path):
    made = (await announced(client, size=MB))["id"]
    await break_off(client, made, tmp_path)
    assert left(tmp_path) == []
    assert (await store(client, made)).json == {}


async def test_nothing_is_left_when_the_client_falls_silent(client, tmp_path, monkeypatch):
    monkeypatch.setattr(api.asgi, "SILENCE", 0.2)
    monkeypatch.setattr(api.asgi, "DRAIN_SECONDS", 0)
    made = (await announced(client, size=MB))["id"]
    with trio.fail_after(30):
        async with await half_sent(client, made) as stream:
            answer = b"".join([data async for data in stream])
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert left(tmp_path) == []
    assert (await store(client, made)).json == {}


async def half_sent(client, made):
    """A connection that has sent half of a file of 1 MB."""
    headers, body = form({"id": made}, ("a.png", b"x" * MB))
    head = f"POST /file/store/ HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in {**client.headers, **headers}.items())
    stream = await trio.open_tcp_stream("127.0.0.1", client.port)
    await stream.send_all(head.encode() + b"\r\n" + body[: MB // 2])
    return stream


async def break_off(client, made, tmp_path):
    """Sends half of a file, and goes away."""
    with trio.fail_after(30):
        stream = await half_sent(client, made)
        while not files_in(tmp_path / "media" / ".spool"):
            await trio.sleep(0.01)
        await stream.aclose()
        while files_in(tmp_path / "media" / ".spool"):
            await trio.sleep(0.01)


async def test_what_an_earlier_process_left_goes_at_the_start(tmp_path):
    (tmp_path / "media" / ".spool").mkdir(parents=True)
    (tmp_path / "media" / ".spool" / "1.part").write_bytes(b"x")
    async with masher(tmp_path):
        assert left(tmp_path) == []


async def test_media_may_lie_on_a_disk_of_their_own(tmp_path):
    with TemporaryDirectory(dir="/dev/shm") as disk:
        if Path(disk).stat().st_dev == tmp_path.stat().st_dev:
            pytest.skip("all of this machine is one disk")
        (tmp_path / "media").symlink_to(disk)
        async with masher(tmp_path) as port:
            made = (await announced(Client(port)))["id"]
            assert (await store(Client(port), made)).json == {}
        assert files_in(Path(disk)) == [f"ada/{made}/original.png"]


async def test_the_files_of_a_deleted_definition_go_with_it(client, tmp_path):
    for is_saved in (True, False):
        made = (await announced(client))["id"]
        await store(client, made)
        if is_saved:
            await client.call("/data/definition/put", definition={"id": made, "type": "image"})
        assert "Could not" in (await Client(client.port, "bob").post("/data/definition/delete", id="x")).error
        assert await client.call("/data/definition/delete", id=made) == {}
        assert left(tmp_path) == []


# --- without a server ------------------------------------------------------------------------------------------------


@pytest.fixture
def opened(tmp_path):
    """Gives files with these settings; `opened.now` is the time, in seconds."""
    made = []

    def open_files(**settings):
        documents = Documents(tmp_path / "mashtun.db")
        made.append(documents)
        wall = lambda: open_files.now  # noqa: E731
        options = read_options(Settings(**settings))
        return Files(documents, tmp_path / "media", options, wall=wall)

    open_files.now = 1000.0
    yield open_files
    for each in made:
        each.close()


def kept(files, user="ada", content=PNG):
    upload = files.reserve(user, "a.png", "image", len(content))
    keep(files, upload, content)
    return upload


def keep(files, upload, content=PNG):
    with files.open_part() as part:
        part.write(content)
    files.keep(upload, Path(part.name))


def test_a_file_is_found_by_its_user_only(opened):
    files = opened()
    upload = kept(files)
    assert files.path("ada", upload.id) == files.folder("ada") / upload.id / "original.png"
    assert files.path("ada", upload.id).read_bytes() == PNG
    assert files.path("bob", upload.id) is None
    assert files.path("ada", files.reserve("ada", "a.png", "image", 5).id) is None
    for name in ("", "..", "a/b", "shared", ".spool"):
        with pytest.raises(InvalidSpec):
            files.folder(name)


def test_a_quota_counts_what_there_is_and_what_was_announced(opened):
    files = opened(quota=1)
    kept(files)
    (files.folder("ada") / "products").mkdir()
    (files.folder("ada") / "products" / "icon.jpg").write_bytes(bytes(MB // 2))
    files.reserve("ada", "a.png", "image", MB // 4)
    with pytest.raises(Overloaded, match="more than 1 MB"):
        files.reserve("ada", "a.png", "image", MB // 4)
    files.reserve("bob", "a.png", "image", MB // 2)


def test_a_quota_that_is_reached_has_no_room_for_what_is_yet_to_be_made(opened):
    files = opened(quota=1)
    files.check_room("ada")
    (files.folder("ada") / "film").mkdir(parents=True)
    (files.folder("ada") / "film" / "video.mp4").write_bytes(bytes(MB - 1))
    files.check_room("ada")
    announced = files.reserve("ada", "a.png", "image", 1)
    with pytest.raises(Overloaded, match="more than 1 MB"):
        files.check_room("ada")
    files.check_room("bob")
    files.release(announced)
    files.check_room("ada")


def test_without_a_quota_there_is_always_room(opened):
    files = opened(quota=0)
    (files.folder("ada") / "film").mkdir(parents=True)
    (files.folder("ada") / "film" / "video.mp4").write_bytes(bytes(2 * MB))
    files.check_room("ada")


LONG_AGO = (0, 0)


def check_used(files, size):
    """Whether this is how much of her 1 MB ada has used."""
    files.release(files.reserve("ada", "a.png", "image", MB - size))
    with pytest.raises(Overloaded, match="more than 1 MB"):
        files.reserve("ada", "a.png", "image", MB - size + 1)


def test_a_quota_follows_what_comes_and_goes(opened, tmp_path):
    files = opened(quota=1)
    check_used(files, 0)
    uploaded, beside = kept(files), len(PNG)
    film = files.folder("ada") / "film"
    rendered, pictures = film / "1" / "video.mp4", film / "2"
    for path, size in ((rendered, 1000), (pictures / "01.jpg", 200), (pictures / "02.jpg", 200)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(size))
    (film / "link").symlink_to(pictures)
    folders = [files.folder("ada"), film, rendered.parent, pictures]
    for is_old in (False, True):
        if is_old:
            for folder in folders:
                os.utime(folder, LONG_AGO)
        check_used(files, beside + 1400)
    (tmp_path / "03.jpg").write_bytes(bytes(50))
    (tmp_path / "03.jpg").replace(pictures / "03.jpg")
    check_used(files, beside + 1450)
    (pictures / "01.jpg").unlink()
    check_used(files, beside + 1250)
    shutil.rmtree(rendered.parent)
    check_used(files, beside + 250)
    assert files.discard("ada", uploaded.id, uploaded=True)
    check_used(files, 250)
    check_used(opened(quota=1), 250)
    assert files.discard("ada", "film", uploaded=False)
    check_used(files, 0)


def test_a_file_that_somebody_at_the_disk_is_copying_counts_with_what_has_come(opened):
    files = opened(quota=1)
    folder = files.folder("ada") / "film"
    folder.mkdir(parents=True)
    with (folder / "film.mp4").open("wb", buffering=0) as film:
        for each in (folder.parent, folder):
            os.utime(each, LONG_AGO)
        for n in (1, 2, 3):
            film.write(bytes(1000))
            check_used(files, 1000 * n)


def test_what_has_not_changed_since_it_was_counted_is_not_looked_through_again(opened, monkeypatch):
    files = opened(quota=1)
    folders = [files.folder("ada") / "film" / each for each in "12"]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "1.jpg").write_bytes(bytes(100))
    for each in (files.folder("ada"), *files.folder("ada").rglob("*")):
        os.utime(each, LONG_AGO)
    os.utime(folders[0] / "1.jpg", (4e9, 4e9))  # by a camera whose clock is wrong
    check_used(files, 200)
    looked_through, scandir = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: (looked_through.append(Path(path)), scandir(path))[1])
    check_used(files, 200)
    assert looked_through == []
    (folders[0] / "2.jpg").write_bytes(bytes(100))
    check_used(files, 300)
    assert set(looked_through) == {folders[0]}


def test_while_the_files_of_one_user_are_counted_another_does_not_wait(opened, monkeypatch):
    files = opened(quota=1)
    kept(files)
    counts, goes_on, scandir = threading.Event(), threading.Event(), os.scandir

    def slow(path):
        if Path(path) == files.folder("ada"):
            counts.set()
            goes_on.wait(30)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", slow)
    with ThreadPoolExecutor(2) as pool:
        mine = pool.submit(files.reserve, "ada", "a.png", "image", 5)
        assert counts.wait(30)
        try:
            assert pool.submit(files.reserve, "bob", "a.png", "image", 5).result(timeout=10).user == "bob"
            assert not mine.done()
        finally:
            goes_on.set()
        assert mine.result(timeout=30).user == "ada"


def test_what_was_announced_and_did_not_come_is_forgotten(opened):
    files = opened(quota=1)
    first = files.reserve("ada", "a.png", "image", MB)
    with pytest.raises(Overloaded):
        files.reserve("ada", "a.png", "image", MB)
    opened.now += UPLOAD_SECONDS
    second = files.reserve("ada", "a.png", "image", MB)
    assert files.expect("ada", first.id) == first
    opened.now += LIFE_MS / 1000
    files.reserve("ada", "a.png", "image", MB)
    assert files.expect("ada", second.id) == second
    with pytest.raises(InvalidSpec):
        files.expect("ada", first.id)


def test_a_quota_is_asked_again_when_a_file_has_come(opened):
    files = opened(quota=1)
    first, second = (files.reserve("ada", "a.png", "image", MB // 2) for _ in range(2))
    files.release(first)
    third = files.reserve("ada", "a.png", "image", MB // 2)
    with pytest.raises(Overloaded, match="more than 1 MB"):
        keep(files, first, bytes(MB // 2))
    keep(files, second, bytes(MB // 2))
    files.release(third)
    keep(files, first, bytes(MB // 2))
    with pytest.raises(Overloaded, match="more than 1 MB"):
        keep(files, third)
    with pytest.raises(AlreadyExists):
        keep(files, first)
    assert [files.path("ada", each.id) is None for each in (first, second, third)] == [False, False, True]


@pytest.mark.parametrize("size", [1000, 65536])
def test_of_a_file_that_the_disk_does_not_hold_nothing_is_left(opened, tmp_path, size):
    files = opened(quota=1)
    headers, body = form({"id": files.reserve("ada", "a.png", "image", MB).id}, ("a.png", bytes(MB)))
    coming = Form(files, "ada", headers["Content-Type"].partition("boundary=")[2])
    coming.open()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MB // 2, hard))  # to who writes, a full disk
    try:
        with pytest.raises(Overloaded, match="the disk does not take it"):
            for at in range(0, len(body), size):
                coming.take(body[at : at + size])
        coming.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert left(tmp_path) == []
    files.reserve("ada", "a.png", "image", MB)  # there is room for it again


def test_two_files_that_come_at_once_do_not_both_find_the_last_room(opened):
    files = opened(quota=1)
    made = []
    for _ in range(8):
        made.append(files.reserve("ada", "a.png", "image", MB // 2))
        files.release(made[-1])
    with ThreadPoolExecutor(len(made)) as pool:
        errors = [each.exception() for each in [pool.submit(keep, files, one, bytes(MB // 2)) for one in made]]
    assert errors.count(None) == 2
    assert {type(each) for each in errors if each is not None} == {Overloaded}


def test_only_files_that_may_come_are_too_many(opened, monkeypatch):
    monkeypatch.setattr("api.moviemasher.files.MAX_ANNOUNCED", 8)
    files = opened()
    made = [files.reserve("ada", "a.png", "image", 1) for _ in range(8)]
    with pytest.raises(Overloaded, match="did not come"):
        files.reserve("ada", "a.png", "image", 1)
    files.release(made[5])
    files.reserve("ada", "a.png", "image", 1)
    assert files.expect("ada", made[4].id) == made[4]
    with pytest.raises(InvalidSpec):  # no more than so many are remembered
        files.expect("ada", made[5].id)


def test_a_form_may_come_in_any_pieces(opened):
    files = opened()
    content = PNG + b"\r\n--almost\r\n\r\n--" + bytes(range(256))
    headers, body = form({"other": "x", "id": "ID", "more": "y"}, ("a.png", content))
    boundary = headers["Content-Type"].partition("boundary=")[2]
    for size in (1, 2, 3, 7, 64, len(body)):
        upload = files.reserve("ada", "a.png", "image", len(content))
        sent = body.replace(b"\r\n\r\nID\r\n", f"\r\n\r\n{upload.id}\r\n".encode())
        taken = Form(files, "ada", boundary)
        taken.open()
        try:
            for start in range(0, len(sent), size):
                taken.take(sent[start : start + size])
            assert taken.finish() == upload
            assert taken.path.read_bytes() == content
        finally:
            taken.close()
        assert not taken.path.exists()


def test_no_bytes_are_more_than_refused(opened):
    files = opened()
    upload = files.reserve("ada", "a.png", "image", 1000)
    headers, body = form({"id": upload.id}, ("a.png", PNG))
    boundary = headers["Content-Type"].partition("boundary=")[2]
    for place in range(len(body) - len(PNG) + 30):
        taken = Form(files, "ada", boundary)
        taken.open()
        try:
            taken.take(body[:place] + b"\xff" + body[place + 1 :])
            taken.finish()
        except EngineError as err:
            assert str(err)
        finally:
            taken.close()
