"""Media and sites: the file that is meant, of the right kind, in ranges, to whom it may go; and nothing beside it."""

import os
import re
import subprocess
import sys
from urllib.parse import urljoin

import pytest
import trio

from api.moviemasher.servers import Servers
from api.moviemasher.users import Users
from api.moviemasher.web import HOUR, Media
from api.queue import JobQueue
from engine import Engine
from engine.config import Settings
from engine.errors import InvalidSpec
from tests.api.moviemasher.asking import Client, masher
from tests.threads import no_threads

CONTENT = bytes(range(256)) * 4


@pytest.fixture
def folder(tmp_path):
    """A data folder with media of ada, and things beside them that nobody may have."""
    media = tmp_path / "data" / "media"
    for name in (
        "ada/1/r/icon.jpg",
        "ada/1/r/video.mp4",
        "ada/1/original.svg",
        "ada/1/.hidden",
        ".spool/1.jpg",
        "ada/1/a b.png",
        "bob/2/x.jpg",
    ):
        (media / name).parent.mkdir(parents=True, exist_ok=True)
        (media / name).write_bytes(CONTENT)
    (media / "ada" / "1" / "empty.txt").touch()
    (tmp_path / "data" / "secret.jpg").write_bytes(b"secret")
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    (media / "ada" / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    (media / "ada" / "out").symlink_to(tmp_path)
    return tmp_path / "data"


@pytest.fixture
async def client(folder, nursery):
    async with masher(folder) as port:
        yield Client(port, None)


# --- media -----------------------------------------------------------------------------------------------------------


async def test_media_are_open_and_of_the_right_kind(client):
    for name, kind in (
        ("1/r/icon.jpg", "image/jpeg"),
        ("1/r/video.mp4", "video/mp4"),
        ("1/a%20b.png", "image/png"),
        ("1/original.svg", "image/svg+xml"),
    ):
        answer = await client.get(f"/media/ada/{name}")
        assert (answer.status, answer.body, answer.headers["content-type"]) == (200, CONTENT, kind)
        assert answer.headers["access-control-allow-origin"] == "*"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert ("content-security-policy" in answer.headers) == name.endswith("svg")  # it may have scripts
        head = await client.ask("HEAD", f"/media/ada/{name}")
        assert (head.status, head.body, head.headers["content-length"]) == (200, b"", str(len(CONTENT)))


async def test_media_come_in_ranges(client):
    for asked, expected in (
        ("0-0", (0, 1)),
        ("5-9", (5, 10)),
        ("1000-", (1000, 1024)),
        ("-24", (1000, 1024)),
        ("5-9999", (5, 1024)),
        ("-1024", (0, 1024)),
        ("-5000", (0, 1024)),
    ):
        answer = await client.get("/media/ada/1/r/video.mp4", Range=f"bytes={asked}")
        start, stop = expected
        assert (answer.status, answer.body) == (206, CONTENT[start:stop])
        assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/1024"
    for asked in ("1024-", "5000-6000", "-0", " -00 "):
        answer = await client.get("/media/ada/1/r/video.mp4", Range=f"bytes={asked}")
        assert (answer.status, answer.headers["content-range"]) == (416, "bytes */1024")
        assert answer.json["error"]
    head = await client.ask("HEAD", "/media/ada/1/r/video.mp4", headers={"Range": "bytes=5-9"})  # only GET has ranges
    assert (head.status, head.headers["content-length"]) == (200, "1024")
    for asked in ("-1", "0-"):  # nothing of nothing
        answer = await client.get("/media/ada/1/empty.txt", Range=f"bytes={asked}")
        assert (answer.status, answer.headers["content-range"]) == (416, "bytes */0")


async def test_media_that_are_known_are_not_sent_again(client):
    first = await client.get("/media/ada/1/r/icon.jpg")
    tag, changed = first.headers["etag"], first.headers["last-modified"]
    for known in ({"If-None-Match": tag}, {"If-None-Match": f'"x", W/{tag}'}, {"If-Modified-Since": changed}):
        answer = await client.get("/media/ada/1/r/icon.jpg", **known)
        assert (answer.status, answer.body, answer.headers["etag"]) == (304, b"", tag)
    for other in ({"If-None-Match": '"x"'}, {"If-Modified-Since": "Mon, 01 Jan 2001 00:00:00 GMT"}):
        assert (await client.get("/media/ada/1/r/icon.jpg", **other)).status == 200
    answer = await client.get("/media/ada/1/r/icon.jpg", Range="bytes=0-1", **{"If-Range": '"x"'})
    assert answer.status == 200


@pytest.mark.parametrize("path", ["/media/ada/1/r/icon.jpg", "/"])
@pytest.mark.parametrize("condition", ["If-Modified-Since", "If-Unmodified-Since"])
async def test_a_date_that_is_none_is_no_condition(client, path, condition):
    whole = await client.get(path)
    for date in ("Mon, 01 Jan 99999999999999999999 00:00:00 GMT", "Mon, 99 Jan 2001 00:00:00 GMT", "", "\xff"):
        answer = await client.get(path, **{condition: date})
        assert (answer.status, answer.body) == (200, whole.body), date


async def test_who_goes_on_with_another_file_is_told_so(client):
    async def ask(**given):
        return await client.get("/media/ada/1/r/video.mp4", Range="bytes=1000-", **given)

    first = await ask()
    tag, changed = first.headers["etag"], first.headers["last-modified"]
    before, other = "Mon, 01 Jan 2001 00:00:00 GMT", '"x"'
    for same in (
        {"If-Match": tag},
        {"If-Match": f'"x", {tag}'},
        {"If-Match": "*"},
        {"If-Match": tag, "If-Unmodified-Since": before},  # the date counts without a tag only
        {"If-Unmodified-Since": changed},
        {"If-Unmodified-Since": "yesterday"},  # no date at all
    ):
        answer = await ask(**same)
        assert (answer.status, answer.body) == (206, CONTENT[1000:]), same
    for changed_since in (
        {"If-Match": other},
        {"If-Match": f"W/{tag}"},  # about as good is not the same bytes
        {"If-Match": other, "If-Unmodified-Since": changed},
        {"If-Match": other, "If-None-Match": tag},
        {"If-Unmodified-Since": before},
        {"If-Unmodified-Since": "Monday, 01-Jan-01 00:00:00 GMT"},
        {"If-Unmodified-Since": "Mon Jan  1 00:00:00 2001"},
    ):
        answer = await ask(**changed_since)
        assert (answer.status, answer.headers["etag"]) == (412, tag), changed_since
        assert answer.json["error"] == "the file is not the one that is asked for: it has changed"


@pytest.mark.parametrize("user", ["ada", "%61da"])
async def test_nothing_else_is_there(client, user):
    names = [
        "1/", "", "1", "1/r/", "1/r/icon.jpg/", "1//r/icon.jpg", "nosuch/a.jpg", "../eve/1/r/icon.jpg", "../secret.jpg",
        "%2e%2e/bob/2/x.jpg", "1/../../../secret.jpg", "..%2f..%2fsecret.jpg", "1/%2e%2e/%2e%2e/%2e%2e/secret.jpg",
        "link.jpg", "out/secret.jpg", "1/.hidden", "1/..%5cx", "./1/r/icon.jpg", "%2e/1/r/icon.jpg", "1/r/icon.jpg%00",
        "1/" + "x" * 256, "1/" + "x" * 256 + "/icon.jpg", "1/" + "x" * 5000, "1/%ff",
    ]  # fmt: skip
    beside = ("../secret.jpg", ".spool/1.jpg", "./ada/1/r/icon.jpg", "eve/1/r/icon.jpg")
    for path in (*(f"{user}/{name}" for name in names), *beside):
        answer = await client.get(f"/media/{path}")
        assert (answer.status, "error" in answer.json) == (404, True), path
        assert b"secret" not in answer.body
    assert (await client.get(f"/media/{user}/1/r/icon.jpg")).status == 200


async def test_who_asks_while_there_is_no_thread_is_told_to_come_again(client, monkeypatch):
    monkeypatch.setattr("engine.threads.PATIENCE", 0.05)
    known = Client(client.port)
    await known.call("/api/servers")
    async with no_threads():
        for asked, status in (("GET /media/ada/1/r/icon.jpg", 503), ("POST /api/servers", 200)):
            head = [f"{asked} HTTP/1.1", "Host: here", "Connection: close", "Content-Length: 0"]
            head += [f"{name}: {value}" for name, value in known.headers.items()]
            async with await trio.open_tcp_stream("127.0.0.1", client.port) as stream:
                await stream.send_all("\r\n".join([*head, "\r\n"]).encode())
                said = b"".join([piece async for piece in stream])
            assert said.startswith(f"HTTP/1.1 {status} ".encode())
            assert b'"error":"no thread to be had"' in said


async def test_pages_elsewhere_may_ask_for_ranges(client):
    asks = {"Origin": "https://example.org", "Access-Control-Request-Headers": "range"}
    answer = await client.ask("OPTIONS", "/media/ada/1/r/icon.jpg", headers=asks)
    assert (answer.status, answer.headers["access-control-allow-headers"]) == (204, "range")
    assert "GET" in answer.headers["access-control-allow-methods"]


async def test_a_server_with_a_password_leaves_media_open(folder):
    async with masher(folder, username="ann", password="s3cret") as port:
        assert (await Client(port, None).get("/media/ada/1/r/icon.jpg")).status == 200
        assert (await Client(port, None).get("/media/ada/1/r/nosuch.jpg")).status == 404


# --- private media ---------------------------------------------------------------------------------------------------


async def test_private_media_are_for_who_was_told_their_address(folder):
    async with masher(folder, private_media=True) as port:
        ada, nobody = Client(port), Client(port, None)
        prefix = (await ada.call("/api/servers"))["file"]["prefix"]
        assert re.fullmatch(r"/media/ada/~\d+-[0-9a-f]{32}/", prefix)
        assert (await nobody.get(f"{prefix}1/r/icon.jpg")).body == CONTENT
        assert (await nobody.get(f"{prefix}1/r/video.mp4", Range="bytes=5-6")).body == CONTENT[5:7]
        assert (await ada.get("/media/ada/1/r/icon.jpg")).status == 200
        token = prefix.split("/")[3]
        wrong = f"{token[:-1]}{'0' if token[-1] != '0' else '1'}"
        later = f"~9{token[1:]}"
        for path in (
            "ada/1/r/icon.jpg",
            f"bob/{token}/2/x.jpg",
            f"ada/{wrong}/1/r/icon.jpg",
            f"ada/{later}/1/r/icon.jpg",
        ):
            answer = await nobody.get(f"/media/{path}")
            assert (answer.status, answer.body.count(CONTENT)) == (401, 0)
            assert answer.headers["www-authenticate"].startswith("Basic")
        assert (await Client(port, "bob").get("/media/ada/1/r/icon.jpg")).status == 401
        assert (await nobody.get(f"{prefix}../../bob/2/x.jpg")).status == 404


def test_private_addresses_end_and_outlive_a_restart(tmp_path):
    now = [1_000_000.0]

    def media():
        settings = Settings(data=str(tmp_path), private_media=True, media_life=7200)
        made = Media(settings, Users(settings), wall=lambda: now[0])
        made.open()
        return made

    prefix = media().prefix("ada")
    end = int(re.search(r"~(\d+)", prefix)[1])
    assert 7200 <= end - now[0] <= 7200 + HOUR
    now[0] += 1
    assert media().prefix("ada") == prefix  # pages need not load everything again
    assert media().prefix("bob").split("-")[1] != prefix.split("-")[1]
    assert (tmp_path / "media.key").stat().st_mode & 0o077 == 0
    now[0] = end + 1
    assert media().prefix("ada") != prefix


# In a process of its own, that can write no byte of any file.
ON_A_FULL_DISK = """
import resource, sys
from api.moviemasher.users import Users
from api.moviemasher.web import Media
from engine.config import Settings
from engine.errors import InvalidSpec

settings = Settings(data=sys.argv[1], private_media=True)
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
try:
    Media(settings, Users(settings)).open()
except InvalidSpec as err:
    print(err)
"""


def test_the_key_of_private_addresses_is_there_whole_or_not_at_all(tmp_path):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", ON_A_FULL_DISK, str(tmp_path)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (result.stdout, result.stderr) == (f"{tmp_path}/media.key: file too large\n", "")
    assert list(tmp_path.iterdir()) == []


def test_a_broken_key_of_private_addresses_is_said_with_what_to_do(tmp_path):
    settings = Settings(data=str(tmp_path), private_media=True)
    (tmp_path / "media.key").touch()
    with pytest.raises(InvalidSpec, match=r"media.key: 0 bytes and not 32; if it is removed another one is made"):
        Media(settings, Users(settings)).open()
    (tmp_path / "media.key").unlink()
    Media(settings, Users(settings)).open()


async def test_an_address_that_has_ended_is_closed(folder):
    async with masher(folder, private_media=True, media_life=-10 * HOUR) as port:
        prefix = (await Client(port).call("/api/servers"))["file"]["prefix"]
        assert (await Client(port, None).get(f"{prefix}1/r/icon.jpg")).status == 401


# --- a site ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def site(tmp_path):
    root = tmp_path / "site"
    for folder in ("js/a:b c", "c:d"):
        (root / folder).mkdir(parents=True)
    for name, text in (
        ("index.html", "the site"), ("caster/index.html", "the caster"), ("js/app.js", "script"),
        ("style.css", "style"),
        ("status", "not this"), ("api/x.json", "nor this"), (".env", "secret"), ("live/a.jpg", "a picture"),
    ):  # fmt: skip
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (tmp_path / "outside.txt").write_text("secret")
    (root / "link.txt").symlink_to(tmp_path / "outside.txt")
    return root


async def test_a_site_is_served(tmp_path, site):
    async with masher(tmp_path / "data", web=str(site), username="ann", password="s3cret") as port:
        client = Client(port, None)
        for path, text, kind in (
            ("/", b"the site", "text/html; charset=utf-8"),
            ("/index.html", b"the site", "text/html; charset=utf-8"),
            ("/caster/", b"the caster", "text/html; charset=utf-8"),
            ("/js/app.js?v=1", b"script", "text/javascript; charset=utf-8"),
            ("/style.css", b"style", "text/css; charset=utf-8"),
            ("/live/a.jpg", b"a picture", "image/jpeg"),
        ):
            answer = await client.get(path)
            assert (answer.status, answer.body, answer.headers["content-type"]) == (200, text, kind)
            assert (await client.get(path, **{"If-None-Match": answer.headers["etag"]})).status == 304
            assert (await client.get(path, Range="bytes=1-2")).body == text[1:3]
        for asked in ("/caster?a=b", "/js/a%3Ab%20c", "/c:d"):
            path, question, query = asked.partition("?")
            answer = await client.get(asked)
            found = urljoin(f"http://h/mashtun{asked}", answer.headers["location"])  # below a proxy's path
            assert (answer.status, found) == (308, f"http://h/mashtun{path}/{question}{query}")


async def test_what_a_site_does_not_have_other_doors_have(tmp_path, site):
    async with masher(tmp_path / "data", web=str(site)) as port:
        client = Client(port)
        for path in ("/status", "/brewmixer/1.0/", "/api/v1/jobs", "/openapi.json", "/healthz"):
            answer = await client.get(path)
            assert (answer.status, b"not this" in answer.body) == (200, False)
        for path in (
            "/.env",
            "/../outside.txt",
            "/%2e%2e/outside.txt",
            "/link.txt",
            "/js/",
            "//js/app.js",
            "/js//app.js",
            f"/{'x' * 256}",
            f"/js/{'x' * 256}/app.js",
            f"/{'%C3%A4' * 128}",
            f"/{'x/' * 3000}",
        ):
            answer = await client.get(path)
            assert (answer.status, b"secret" in answer.body) == (404, False)
        assert (await client.ask("POST", "/index.html")).status == 404


async def test_what_is_no_path_is_not_there(tmp_path, site):
    for settings in ({}, {"web": str(site)}):
        async with masher(tmp_path / "data", **settings, username="ann", password="s3cret") as port:
            for method in ("GET", "HEAD", "POST", "OPTIONS"):
                for target in ("x", "*", "?", "?a=b", "%2fx", "http:", "127.0.0.1:80"):
                    answer = await Client(port, None).ask(method, target)
                    assert answer.status == 404, (settings, method, target)
                    assert method == "HEAD" or answer.json["error"].startswith(f"no route {method} ")


async def test_without_a_site_there_is_our_own_page(client):
    answer = await client.get("/")
    assert (answer.status, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")


def test_a_site_that_is_not_there_is_refused(tmp_path):
    settings = Settings(data=str(tmp_path), rtmp_port=-1, web=str(tmp_path / "nosuch"))
    with pytest.raises(InvalidSpec, match="nosuch"):
        Servers(Engine(settings), JobQueue(settings))
