"""What a job names is fetched within its limits, and never from where the one who wrote the job could not reach."""

import base64
import gzip
import hashlib
import os
import socket
import ssl
import threading
import time
import zlib
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import trio

from engine.errors import (
    InvalidJob,
    SinkRejected,
    SinkUnavailable,
    SourceMalformed,
    SourceUnavailable,
    SourceUnsupported,
)
from engine.fetch import PIECE, Fetcher, Limits, file_in, is_public
from tests.engine.silent import HOST, named, silent
from tests.web import WebRequest, web_server

FILM = bytes(range(256)) * 500
PART = 32 << 20  # bytes; much more than the buffers of two sockets have room for
CERTIFICATE = Path(__file__).with_name("localhost.pem")
PACKED = gzip.compress(FILM)
ENCODED = {  # path → how it is said to be packed, what comes
    "/gzip": ("gzip", PACKED),
    "/gzips": ("X-GZip", gzip.compress(FILM[:999]) + gzip.compress(FILM[999:])),
    "/deflate": ("aws-chunked, deflate", zlib.compress(FILM)),
    "/as-it-is": ("aws-chunked", FILM),
    "/bomb": ("gzip", gzip.compress(bytes(2 << 20))),
    "/half": ("gzip", PACKED[:-20]),
    "/no-gzip": ("gzip", FILM),
    "/br": ("br", FILM),
    "/twice": ("gzip, gzip", gzip.compress(PACKED)),
}
STYLES = {
    "/fonts/css": b"@font-face {src: url(none.woff)} @font-face {src: local('x'), url( '../plain' ) format('ttf')}",
    "/nothing.css": b"body {color: red}",
    "/sly.css": b"@font-face {src: url(file:///etc/passwd)}",
}


class _Answers(WebRequest):
    """Answers by path, and notes what was asked."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.asked.append((self.path, dict(self.headers)))
        name = self.path.partition("?")[0]
        if name == "/film.mp4" and self.headers.get("If-None-Match") == '"1"':
            self._answer(304)
        elif name in ("/film.mp4", "/plain") or name.startswith("/plain/"):
            self._answer(200, FILM, ("ETag", '"1"'), ("Content-Type", "video/mp4"))
        elif name in STYLES:
            self._answer(200, STYLES[name], ("Content-Type", "text/css; charset=utf-8"))
        elif name in ENCODED:
            coding, body = ENCODED[name]
            self._answer(200, body, ("Content-Encoding", coding), ("ETag", '"1"'), ("Content-Type", "video/mp4"))
        elif name == "/no-validators":
            self._answer(200, FILM)
        elif name == "/of-a-proxy":
            self._answer(203, FILM)
        elif name == "/changing":
            self._change()
        elif name == "/moved":
            self._answer(302, b"", ("Location", "/film.mp4"))
        elif name == "/moved-far":
            self._answer(302, b"", ("Location", "/plain/é 1?a=b c".encode().decode("latin-1")))
        elif name == "/leave":
            self._answer(302, b"", ("Location", self.path.partition("?")[2]))
        elif name == "/round":
            self._answer(302, b"", ("Location", "/round"))
        elif name == "/away":
            self._answer(302, b"", ("Location", "file:///etc/passwd"))
        elif name == "/short":
            self._answer(200, FILM[:100], ("Content-Length", "5000"))
            self.close_connection = True
        elif name == "/torn":
            self._answer(200, b"5\r\nabcde\r\n", ("Transfer-Encoding", "chunked"), ("Content-Length", "10"))
            self.close_connection = True
        elif name == "/slow":
            self.send_response(200)
            self.end_headers()
            while not self.server.over.wait(0.05):
                self.wfile.write(b"x")
        elif name == "/by-and-by":
            self.send_response(200)
            self.send_header("Content-Length", str(3 * PIECE))
            self.end_headers()
            for _ in range(3):
                self.server.may_go_on.acquire()
                self.wfile.write(bytes(PIECE))
        elif name == "/silent":
            self.server.over.wait(10)
        elif name == "/early":
            self._hint(99)
            self._answer(200, FILM, ("Content-Type", "video/mp4"))
        elif name == "/early-for-ever":
            self._hint(1000)
        else:
            self._answer(404, b"no")

    def _hint(self, count):
        """Sends interim answers."""
        for n in range(count):
            self.send_response(103 if n else 102)
            self.send_header("Link", f"</{n}>")
            self.end_headers()

    def _change(self):
        """At the first question whether it has changed it has not, but it does before the answer."""
        if not self.headers.get("If-None-Match"):
            self._answer(200, FILM, ("ETag", '"1"'))
        elif self.server.changed.is_set():
            self._answer(200, FILM[::-1], ("ETag", '"2"'))
        else:
            self.server.changed.set()
            self.server.replaced.wait(10)
            self._answer(304)

    def do_PUT(self):
        if self.path in ("/refused", "/hung-up"):  # at the head; nobody reads the body
            self._answer(413, b"too large") if self.path == "/refused" else None
            self.close_connection = True
            return
        size = int(self.headers["Content-Length"])
        body = self._read_by_and_by(size) if self.path == "/by-and-by" else self.rfile.read(size)
        self.server.asked.append((self.path, body))
        self.server.user = self.headers.get("Authorization")
        if self.path == "/early":
            self._hint(2)
        self._answer(403 if self.path == "/no" else 201, b"")

    def _read_by_and_by(self, size):
        body = b""
        for _ in range(0, size, PART):
            self.server.has_come.release()
            self.server.may_go_on.acquire()
            body += self.rfile.read(PART)
        return body

    def _answer(self, status, body=b"", *headers):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        if not any(name == "Content-Length" for name, _ in headers):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def web():
    with web_server(_Answers) as server:
        server.asked = []
        server.may_go_on, server.has_come = threading.Semaphore(0), threading.Semaphore(0)
        yield server
        server.may_go_on.release(3)  # whatever has failed


@pytest.fixture
def fetcher(tmp_path):
    return Fetcher(base=tmp_path, cache=tmp_path / "cache", allow_private=True, limits=Limits(max_bytes=1 << 20))


async def fetch(fetcher, src, folder, **options):
    with trio.fail_after(30):
        return await fetcher.fetch(src, folder, "it", **options)


async def test_a_file_is_used_where_it_is(fetcher, tmp_path):
    (tmp_path / "a b.mp4").write_bytes(FILM)
    for src in ((tmp_path / "a b.mp4").as_uri(), str(tmp_path / "a b.mp4"), "a b.mp4", "file:a%20b.mp4"):
        assert await fetch(fetcher, src, tmp_path) == tmp_path / "a b.mp4"


async def test_a_file_that_is_here_may_be_larger_than_what_may_come(fetcher, tmp_path):
    with (tmp_path / "large.mp4").open("wb") as large:
        large.truncate((8 << 30) + 1)
    for each in (fetcher, Fetcher(base=tmp_path, cache=tmp_path / "cache")):
        assert await fetch(each, "large.mp4", tmp_path) == tmp_path / "large.mp4"
        with pytest.raises(SourceMalformed, match="more than 16 bytes"):
            await fetch(each, "large.mp4", tmp_path, max_bytes=16)


@pytest.mark.parametrize("name", ["take #1.mp4", "why?.mp4", "#", "a?b#c.mp4"])
async def test_a_name_may_have_what_ends_the_path_of_other_urls(fetcher, tmp_path, name):
    (tmp_path / name).write_bytes(FILM)
    (tmp_path / "take ").write_bytes(b"another")
    for src in (f"file://{tmp_path}/{name}", f"file://localhost{tmp_path}/{name}", f"file:{name}", name):
        assert await fetch(fetcher, src, tmp_path) == tmp_path / name


async def test_a_file_url_with_a_query_names_a_file_of_its_path(fetcher, tmp_path):
    (tmp_path / "film.mp4").write_bytes(FILM)
    assert await fetch(fetcher, f"file://{tmp_path}/film.mp4?v=1#t=2", tmp_path) == tmp_path / "film.mp4"
    with pytest.raises(SourceUnavailable, match="no such file"):
        await fetch(fetcher, "film.mp4?v=1", tmp_path)


async def test_a_checksum_that_nobody_waits_for_any_more_is_given_up(tmp_path):
    fetcher = Fetcher(base=tmp_path, cache=tmp_path / "cache")
    with (tmp_path / "large").open("wb") as large:
        large.truncate(8 << 30)
    wanted = f"sha512:{'0' * 128}"
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(fetcher.fetch, "large", tmp_path, "it", checksum=wanted))
            while not fetcher._disk.borrowed_tokens:
                await trio.sleep(0)
            nursery.cancel_scope.cancel()
        while fetcher._disk.borrowed_tokens:  # the thread ends, too
            await trio.sleep(0.01)


@pytest.mark.parametrize(
    ("src", "content", "name"),
    [
        ("data:,a%20b", b"a b", "it"),
        ("data:application/json,{}", b"{}", "it.json"),
        ("data:image/png;base64," + base64.b64encode(FILM[:9]).decode(), FILM[:9], "it.png"),
        ("data:;base64,YQ", b"a", "it"),
        ("data:;base64,YWI", b"ab", "it"),
        ("data:;base64,%2B_/-+A", b"\xfb\xff\xfe\xf8", "it"),
    ],
)
async def test_a_data_url_becomes_a_file(fetcher, tmp_path, src, content, name):
    path = await fetch(fetcher, src, tmp_path)
    assert (path.name, path.read_bytes()) == (name, content)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("YWJjZ", "cannot be 1 more than a multiple of 4"), ("YW*j", "Only base64 data"), ("YQ==YQ", "after padding")],
)
async def test_what_is_no_base64_is_refused(fetcher, tmp_path, text, sentence):
    with pytest.raises(SourceMalformed, match=sentence):
        await fetch(fetcher, f"data:;base64,{text}", tmp_path)


async def test_what_lists_other_files_is_refused(fetcher, tmp_path, web):
    sources = ("data:application/vnd.apple.mpegurl,%23EXTM3U", f"{web.url}/leave?/plain/list.M3U8")
    for src, extension in (*((each, "") for each in sources), (f"{web.url}/film.mp4", "m3u8")):
        with pytest.raises(SourceUnsupported, match=r"lists other files, which are not fetched$"):
            await fetch(fetcher, src, tmp_path, extension=extension)
    (tmp_path / "mine.m3u8").write_bytes(b"#EXTM3U")
    assert await fetch(fetcher, "mine.m3u8", tmp_path) == tmp_path / "mine.m3u8"


async def test_http_is_fetched_once_and_asked_again(fetcher, tmp_path, web):
    for _ in range(2):
        path = await fetch(fetcher, f"{web.url}/film.mp4?x=1", tmp_path)
        assert (path.name, path.read_bytes()) == ("it.mp4", FILM)
    assert [asked.get("If-None-Match") for _, asked in web.asked] == [None, '"1"']


async def test_what_a_proxy_has_changed_is_a_success(fetcher, tmp_path, web):
    assert (await fetch(fetcher, f"{web.url}/of-a-proxy", tmp_path)).read_bytes() == FILM


async def test_with_a_checksum_the_cache_is_not_asked_about(fetcher, tmp_path, web):
    checksum = f"sha256:{hashlib.sha256(FILM).hexdigest()}"
    for _ in range(2):
        assert (await fetch(fetcher, f"{web.url}/plain", tmp_path, checksum=checksum)).suffix == ".mp4"
    assert len(web.asked) == 1
    with pytest.raises(SourceMalformed, match="checksum"):
        await fetch(fetcher, f"{web.url}/plain", tmp_path, checksum="md5:00")
    with pytest.raises(InvalidJob, match="is not ALGORITHM:HEX"):
        await fetch(fetcher, f"{web.url}/plain", tmp_path, checksum="crc:00")


async def test_redirects_are_followed_and_judged(fetcher, tmp_path, web):
    assert (await fetch(fetcher, f"{web.url}/moved", tmp_path)).read_bytes() == FILM
    with pytest.raises(SourceUnavailable, match="more than 5 redirects"):
        await fetch(fetcher, f"{web.url}/round", tmp_path)
    with pytest.raises(InvalidJob, match="is not an http: or https: URL"):
        await fetch(fetcher, f"{web.url}/away", tmp_path)


@pytest.mark.parametrize(
    ("src", "asked"),
    [
        ("/plain/my film.mp4", "/plain/my%20film.mp4"),
        ("/plain/été.mp4?a=b c&d=é#x", "/plain/%C3%A9t%C3%A9.mp4?a=b%20c&d=%C3%A9"),
        ("/plain/a%20b%2Fc+d~(1)[2];e=@f?%C3%A9=%00", "/plain/a%20b%2Fc+d~(1)[2];e=@f?%C3%A9=%00"),
        ("/moved-far", "/plain/%C3%A9%201?a=b%20c"),
    ],
)
async def test_addresses_are_asked_for_as_browsers_do(fetcher, tmp_path, web, src, asked):
    assert (await fetch(fetcher, web.url + src, tmp_path)).read_bytes() == FILM
    assert web.asked[-1][0] == asked


async def test_a_hosts_name_may_have_any_letters(fetcher, tmp_path, web):
    url = f"http://\uff4cocalhost:{web.server_port}/film.mp4"  # which IDNA reads as localhost
    assert (await fetch(fetcher, url, tmp_path)).read_bytes() == FILM
    assert web.asked[-1][1]["Host"] == f"localhost:{web.server_port}"


@pytest.mark.parametrize(
    ("path", "error", "sentence"),
    [
        ("/nosuch", SourceUnavailable, "answers 404"),
        ("/early-for-ever", SourceUnavailable, "more than 100 interim answers"),
        ("/short", SourceUnavailable, "100"),
        ("/torn", SourceUnavailable, "IncompleteRead"),
        ("/bomb", SourceMalformed, "more than 1048576 bytes"),
        ("/half", SourceUnavailable, "what is packed breaks off"),
        ("/no-gzip", SourceMalformed, "incorrect header check"),
        ("/br", SourceMalformed, "its encoding br cannot be read"),
        ("/twice", SourceMalformed, "its encoding gzip, gzip cannot be read"),
    ],
)
async def test_what_a_server_does_wrong(fetcher, tmp_path, web, path, error, sentence):
    with pytest.raises(error, match=sentence):
        await fetch(fetcher, web.url + path, tmp_path)
    assert not list((tmp_path / "cache").glob("*.part"))


@pytest.mark.parametrize("path", ["/gzip", "/gzips", "/deflate", "/as-it-is"])
async def test_what_comes_packed_is_unpacked(fetcher, tmp_path, web, path):
    checksum = f"sha256:{hashlib.sha256(FILM).hexdigest()}"
    for options in ({}, {"checksum": checksum}, {"checksum": checksum}):
        found = await fetch(fetcher, web.url + path, tmp_path, **options)
        assert (found.name, found.read_bytes()) == ("it.mp4", FILM)
    assert len(web.asked) == 1


async def test_limits_of_size_and_time(tmp_path, web):
    fetcher = Fetcher(
        base=tmp_path, cache=tmp_path / "cache", allow_private=True, limits=Limits(max_bytes=1000, seconds=0.3)
    )
    with pytest.raises(SourceMalformed, match="more than 1000 bytes"):
        await fetch(fetcher, f"{web.url}/film.mp4", tmp_path)
    with pytest.raises(SourceMalformed, match="more than 1000 bytes"):
        await fetch(fetcher, "data:," + "x" * 1001, tmp_path)
    for path in ("/slow", "/silent"):
        with pytest.raises(SourceUnavailable, match=r"took longer than 0\.3 s"):
            await fetch(fetcher, web.url + path, tmp_path)


async def has_come(folder, size):
    """Waits until so much of a download has come."""
    while not any(part.stat().st_size >= size for part in (folder / "cache").glob("*.part")):
        await trio.sleep(0)


async def test_what_moves_on_may_take_longer_than_one_stretch_of_it(fetcher, tmp_path, web, monkeypatch, mock_clock):
    monkeypatch.setattr("engine.fetch.STRETCH", PIECE)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fetcher.fetch, f"{web.url}/by-and-by", tmp_path, "it")
        for n in range(3):
            await has_come(tmp_path, n * PIECE)
            mock_clock.jump(0.6 * Limits().seconds)
            web.may_go_on.release()
    assert (tmp_path / "it").stat().st_size == 3 * PIECE


async def test_what_came_before_is_no_time_to_drip_in(fetcher, tmp_path, web, monkeypatch, mock_clock):
    monkeypatch.setattr("engine.fetch.STRETCH", PIECE)
    failed = []

    async def download():
        with pytest.raises(SourceUnavailable, match="took longer than 900 s for the last "):
            await fetcher.fetch(f"{web.url}/by-and-by", tmp_path, "it")
        failed.append("it")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(download)
        for n in range(2):
            web.may_go_on.release()
            await has_come(tmp_path, (n + 1) * PIECE)
        mock_clock.jump(1.1 * Limits().seconds)
    assert failed


async def test_a_film_may_be_sent_for_longer_than_one_stretch_of_it(fetcher, tmp_path, web, monkeypatch, mock_clock):
    monkeypatch.setattr("engine.fetch.STRETCH", PART // 4)
    film = tmp_path / "film"
    with film.open("wb") as file:
        file.truncate(3 * PART)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(fetcher.send, "PUT", f"{web.url}/by-and-by", headers={}, body=film))
        for _ in range(3):
            await trio.to_thread.run_sync(web.has_come.acquire, abandon_on_cancel=True)
            mock_clock.jump(0.6 * Limits().seconds)
            web.may_go_on.release()
    assert web.asked == [("/by-and-by", bytes(3 * PART))]


async def test_private_addresses_are_refused(tmp_path, web):
    fetcher = Fetcher(base=tmp_path, cache=tmp_path / "cache")
    for host in ("127.0.0.1", "localhost", "[::1]", "0x7f.1", "2130706433", "169.254.169.254", "10.0.0.1"):
        with pytest.raises((InvalidJob, SourceUnavailable), match=r"is a private address|not known|unsupported"):
            await fetch(fetcher, f"http://{host}:{web.server_port}/film.mp4", tmp_path)
    assert web.asked == []


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700:4700::1111", "64:ff9b::808:808"])
def test_public_addresses(address):
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        *(
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
        ),
        *("::1", "::", "fe80::1%eth0", "fc00::1", "::ffff:127.0.0.1", "2002:7f00:1::", "64:ff9b::7f00:1", "ff02::1"),
    ],
)
def test_private_addresses(address):
    assert not is_public(address)


@pytest.mark.parametrize(
    "src", ["ftp://x/y", "s3://bucket/x", "gs:x", "javascript:x", "file://host/x", "file://[/a.json"]
)
async def test_other_schemes_are_refused(fetcher, tmp_path, src):
    with pytest.raises(InvalidJob, match="source"):
        await fetch(fetcher, src, tmp_path)


async def test_a_file_is_sent(fetcher, tmp_path, web):
    (tmp_path / "film").write_bytes(FILM)
    await fetcher.send("PUT", f"{web.url}/here", headers={}, body=tmp_path / "film")
    assert web.asked == [("/here", FILM)]
    with pytest.raises(SinkRejected, match="answers 403"):
        await fetcher.send("PUT", f"{web.url}/no", headers={}, body=b"x")


@pytest.mark.parametrize("tls", [False, True], ids=("http", "https"))
async def test_who_refuses_a_body_before_it_is_through_is_heard(fetcher, tmp_path, monkeypatch, tls):
    context = None
    if tls:
        monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(CERTIFICATE)
    film = tmp_path / "film"
    with film.open("wb") as file:
        file.truncate(32 << 20)  # more than the buffers of any two sockets
    with web_server(_Answers, tls=context) as web, trio.fail_after(30):
        for body in (film, bytes(32 << 20)):
            with pytest.raises(SinkRejected, match="answers 413"):
                await fetcher.send("PUT", f"{web.url}/refused", headers={}, body=body)
        with pytest.raises(SinkUnavailable, match=r"(?i)reset|broken pipe|EOF occurred"):  # and not: no answer
            await fetcher.send("PUT", f"{web.url}/hung-up", headers={}, body=film)


async def test_a_server_of_https_is_told_which_http_is_spoken(fetcher, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    context.set_alpn_protocols(["h2", "http/1.1"])

    class Told(WebRequest):
        def do_PUT(self):
            self.send_response(200 if self.connection.selected_alpn_protocol() == "http/1.1" else 421)
            self.end_headers()

    with web_server(Told, tls=context) as web:
        await fetcher.send("PUT", web.url, headers={}, body=b"")


async def test_interim_answers_are_not_taken_for_the_final_one(fetcher, tmp_path, web):
    path = await fetch(fetcher, f"{web.url}/early", tmp_path)
    assert (path.name, path.read_bytes()) == ("it.mp4", FILM)
    await fetcher.send("PUT", f"{web.url}/early", headers={}, body=b"x")
    assert web.asked[1:] == [("/early", b"x")]


async def test_the_time_to_wait_for_others_is_no_part_of_a_transfers(tmp_path, web):
    limits = Limits(seconds=2, at_once=1)
    fetcher = Fetcher(base=tmp_path, cache=tmp_path / "cache", allow_private=True, limits=limits)
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        url = f"http://127.0.0.1:{hanging.getsockname()[1]}/"

        async def hang():
            with pytest.raises(SinkUnavailable, match="took longer than 2 s"):
                await fetcher.send("PUT", url, headers={}, body=b"x")

        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(hang)
                connection, _ = await trio.to_thread.run_sync(hanging.accept)
                with connection:
                    await fetcher.send("PUT", f"{web.url}/here", headers={}, body=b"x")
    assert web.asked == [("/here", b"x")]


async def test_who_is_given_up_while_the_server_does_not_even_answer_leaves_no_thread_behind(
    tmp_path, web, monkeypatch
):
    monkeypatch.setattr("engine.fetch.SILENCE", 300.0)
    fetcher = Fetcher(base=tmp_path, cache=tmp_path / "cache", allow_private=True, limits=Limits(at_once=1))
    with silent() as port, trio.fail_after(30):
        for n in range(200):  # given up at any moment: before it connects, and while it does
            with trio.move_on_after(n / 20_000):
                await fetch(fetcher, f"http://{HOST}:{port}/film.mp4", tmp_path)
        await fetcher.send("PUT", f"{web.url}/here", headers={}, body=b"x")  # its place is a thread's that has ended
    assert web.asked == [("/here", b"x")]


async def test_a_server_with_an_address_that_swallows_everything_is_talked_to(fetcher, tmp_path, web, monkeypatch):
    monkeypatch.setattr("engine.fetch.SILENCE", 300.0)
    named(monkeypatch, **{"two.test": [HOST, "127.0.0.1"]})
    url = f"http://two.test:{web.server_port}"
    with silent(web.server_port), trio.fail_after(10):
        assert (await fetch(fetcher, f"{url}/plain", tmp_path)).read_bytes() == FILM
        await fetcher.send("PUT", f"{url}/here", headers={}, body=b"x")
    assert web.asked[-1] == ("/here", b"x")


async def test_of_a_servers_addresses_only_those_are_tried_that_may_be_talked_to(tmp_path, web, monkeypatch):
    monkeypatch.setattr("engine.fetch.is_public", "127.0.0.1".__eq__)
    named(monkeypatch, **{"two.test": [HOST, "127.0.0.1"]})
    fetcher = Fetcher(base=tmp_path, cache=tmp_path / "cache")
    with socket.create_server((HOST, web.server_port)) as private, trio.fail_after(30):
        await fetcher.send("PUT", f"http://two.test:{web.server_port}/here", headers={}, body=b"x")
        private.setblocking(False)
        with pytest.raises(BlockingIOError):
            private.accept()
    assert web.asked == [("/here", b"x")]


async def test_a_server_that_drips_in_its_tls_handshake_gives_the_place_back(tmp_path, web, monkeypatch):
    monkeypatch.setattr("engine.fetch.SILENCE", 300.0)
    limits = Limits(seconds=0.3, at_once=1)
    fetcher = Fetcher(base=tmp_path, cache=tmp_path / "cache", allow_private=True, limits=limits)

    def drip():
        connection, _ = server.accept()
        with connection, suppress(OSError):
            connection.sendall(b"\x16\x03\x03\x3f\xff\x02\x00\x3f\xfb\x03\x03")  # a long ServerHello begins
            while True:
                connection.sendall(b"\x00")
                time.sleep(0.05)

    with socket.create_server(("127.0.0.1", 0)) as server, trio.fail_after(30):
        threading.Thread(target=drip, daemon=True).start()
        with pytest.raises(SinkUnavailable, match="took longer"):
            await fetcher.send("PUT", f"https://127.0.0.1:{server.getsockname()[1]}/", headers={}, body=b"x")
        await fetcher.send("PUT", f"{web.url}/here", headers={}, body=b"x")
    assert web.asked == [("/here", b"x")]


def kinds_in(folder):
    return sorted(path.suffix for path in folder.iterdir())


async def test_the_cache_keeps_within_its_size(tmp_path, web):
    limits = Limits(cache_bytes=len(FILM))
    fetcher = Fetcher(base=tmp_path, cache=tmp_path / "cache", allow_private=True, limits=limits)
    for query in "abc":
        await fetch(fetcher, f"{web.url}/film.mp4?{query}", tmp_path)
    (tmp_path / "cache" / "forgotten.bin").write_bytes(FILM)
    for name, age in (("old.part", 9999), ("new.part", 9)):
        (tmp_path / "cache" / name).write_bytes(FILM)
        os.utime(tmp_path / "cache" / name, (time.time() - age,) * 2)
    await fetcher.tidy()
    assert kinds_in(tmp_path / "cache") == [".bin", ".json", ".part"]
    assert not (tmp_path / "cache" / "forgotten.bin").exists()
    assert (tmp_path / "cache" / "new.part").exists()


async def test_of_one_address_one_copy_is_kept(fetcher, tmp_path, web):
    for _ in range(3):
        assert (await fetch(fetcher, f"{web.url}/no-validators", tmp_path)).read_bytes() == FILM
        assert kinds_in(tmp_path / "cache") == [".bin", ".json"]


async def test_many_may_fetch_one_address_at_once(fetcher, tmp_path, web):
    found = []

    async def fetch_it(n):
        path = await fetcher.fetch(f"{web.url}/no-validators", tmp_path, f"it-{n}")
        found.append((path.name, path.read_bytes() == FILM))

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for n in range(9):
                nursery.start_soon(fetch_it, n)
                nursery.start_soon(fetcher.tidy)
        await fetcher.tidy()
    assert sorted(found) == [(f"it-{n}", True) for n in range(9)]
    assert kinds_in(tmp_path / "cache") == [".bin", ".json"]


async def test_a_copy_that_is_replaced_while_somebody_needs_it_stays_his(fetcher, tmp_path, web):
    web.changed, web.replaced = threading.Event(), threading.Event()
    await fetch(fetcher, f"{web.url}/changing", tmp_path)
    found = []

    async def fetch_old():
        found.append(await fetcher.fetch(f"{web.url}/changing", tmp_path, "old"))

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fetch_old)
            await trio.to_thread.run_sync(web.changed.wait, 10)
            new = await fetcher.fetch(f"{web.url}/changing", tmp_path, "new")
            assert kinds_in(tmp_path / "cache") == [".bin", ".json"]
            web.replaced.set()
    assert (found[0].read_bytes(), new.read_bytes()) == (FILM, FILM[::-1])
    assert sorted(each.name for each in tmp_path.iterdir()) == ["cache", "it", "new", "old"]


def asked_with(web, name):
    return [(path.partition("?")[0], headers.get(name)) for path, headers in web.asked]


async def test_a_urls_user_and_password_are_told_to_its_own_origin_only(fetcher, tmp_path, web):
    basic = "Basic " + base64.b64encode("mé:s3:cret@".encode()).decode()
    with web_server(_Answers) as other:
        other.asked = []
        for target in ("film.mp4", f"{web.url}/film.mp4?2", f"{other.url}/leave?{web.url}/film.mp4?3"):
            src = f"{web.url.replace('//', '//m%C3%A9:s3:cret%40@')}/leave?{target}"
            assert (await fetch(fetcher, src, tmp_path)).read_bytes() == FILM
    assert asked_with(web, "Authorization") == [
        *[("/leave", basic), ("/film.mp4", basic)] * 2,
        *[("/leave", basic), ("/film.mp4", None)],
    ]
    assert asked_with(other, "Authorization") == [("/leave", None)]


async def test_a_jobs_headers_are_told_to_its_own_origin_only(fetcher, tmp_path, web):
    headers = {"authorization": "Bearer tok", "user-agent": "mine"}
    with web_server(_Answers) as other:
        other.asked = []
        src = f"{web.url.replace('//', '//me:s3cret@')}/leave?{other.url}/film.mp4"
        assert (await fetch(fetcher, src, tmp_path, headers=headers)).read_bytes() == FILM
    assert asked_with(web, "Authorization") == [("/leave", "Bearer tok")]
    assert asked_with(web, "User-Agent") == [("/leave", "mine")]
    assert asked_with(other, "Authorization") == [("/film.mp4", None)]
    assert asked_with(other, "User-Agent") == [("/film.mp4", "mashtun")]


async def test_what_came_with_headers_is_kept_for_who_has_the_same(fetcher, tmp_path, web):
    checksum = f"sha256:{hashlib.sha256(FILM).hexdigest()}"
    for headers in ({"Cookie": "1"}, {"Cookie": "2"}, {}, {"cookie": "2"}):
        await fetch(fetcher, f"{web.url}/film.mp4", tmp_path, checksum=checksum, headers=headers)
    assert [value for _, value in asked_with(web, "Cookie")] == ["1", "2", None]


async def test_headers_of_the_connection_itself_are_not_a_jobs(fetcher, tmp_path, web):
    headers = {
        "host": "other",
        "RANGE": "bytes=5-",
        "connection": "keep-alive",
        "accept-encoding": "br",
        "Content-Length": "5",
        "Transfer-Encoding": "chunked",
        "Expect": "100-continue",
        "te": "x",
        "if-none-match": '"1"',
    }
    assert (await fetch(fetcher, f"{web.url}/film.mp4", tmp_path, headers=headers)).read_bytes() == FILM
    assert web.asked[0][1] == {
        "Host": web.url.removeprefix("http://"),
        "User-Agent": "mashtun",
        "Accept-Encoding": "identity",
        "Connection": "close",
    }


@pytest.mark.parametrize(
    "headers",
    [{"a": "s3cret\r\nb: c"}, {"a": "s3cret\n c"}, {"a\r\nb": "s3cret"}, {"a:": "s3cret"}, {"a": "s3cret\u20ac"}],
)
async def test_headers_that_are_none_are_refused(fetcher, tmp_path, web, headers):
    for call in (
        fetch(fetcher, f"{web.url}/film.mp4", tmp_path, headers=headers),
        fetcher.send("PUT", f"{web.url}/here", headers=headers, body=b""),
    ):
        with pytest.raises(InvalidJob, match="a header is not a word and one line of Latin letters") as error:
            await call
        assert "s3cret" not in str(error.value)
    assert web.asked == []


async def test_who_a_url_names_may_send_there(fetcher, web):
    with trio.fail_after(30):
        for headers, user in (({}, "Basic bWU6czNjcmV0"), ({"authorization": "Bearer tok"}, "Bearer tok")):
            url = f"{web.url.replace('//', '//me:s3cret@')}/here"
            await fetcher.send("PUT", url, headers=headers, body=b"x")
            assert web.user == user
        with pytest.raises(SinkRejected) as error:
            await fetcher.send("PUT", f"{web.url.replace('//', '//me:s3cret@')}/no", headers={}, body=b"x")
    assert "s3cret" not in str(error.value)


@pytest.mark.parametrize("password", ["s3cret/x", "s3cret?x", "s3cret#x", "s3cret\u2100"])
async def test_a_password_that_is_not_encoded_is_not_told(fetcher, tmp_path, password):
    url = f"https://me:{password}@127.0.0.1/x?key=s3cret"
    with pytest.raises(SourceUnavailable) as fetched:
        await fetch(fetcher, url, tmp_path)
    with pytest.raises(SinkUnavailable) as sent:
        await fetcher.send("PUT", url, headers={}, body=b"x")
    sentence = '"https://***": its host or its port cannot be read'
    assert (str(fetched.value), str(sent.value)) == (f"source {sentence}", sentence)


async def test_of_a_style_sheet_the_font_is_fetched_that_it_names_last(fetcher, web, tmp_path):
    with trio.fail_after(30):
        path = await fetcher.fetch_media(f"{web.url}/fonts/css", tmp_path, "it")
        assert path.read_bytes() == FILM
        assert (await fetcher.fetch_media(f"{web.url}/film.mp4", tmp_path, "film")).read_bytes() == FILM
        with pytest.raises(SourceMalformed, match="names no font"):
            await fetcher.fetch_media(f"{web.url}/nothing.css", tmp_path, "none")
        with pytest.raises(InvalidJob):
            await fetcher.fetch_media(f"{web.url}/sly.css", tmp_path, "sly")


async def test_of_a_style_sheet_no_more_is_read_than_one_may_have(tmp_path):
    with (tmp_path / "large.css").open("wb") as large:
        large.write(b"url(https://127.0.0.1/a.woff)")
        large.truncate(1 << 40)
    fetcher = Fetcher(base=tmp_path, cache=tmp_path / "cache")
    with pytest.raises(InvalidJob, match="private address"):  # so the font was found
        await fetcher.fetch_media("large.css", tmp_path, "it")


def test_a_file_is_found_by_its_path_from_the_first_folder_that_has_it(tmp_path):
    mine, shared = tmp_path / "mine", tmp_path / "shared"
    for path in (mine / "a", mine / "deep/b", shared / "a", shared / "c", tmp_path / "secret"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (mine / "out").symlink_to("../secret")
    (mine / "link").symlink_to("a")
    (mine / "ring").symlink_to("ring")
    folders = (mine, shared)
    expected = {"a": mine / "a", "deep/b": mine / "deep/b", "c": shared / "c", "link": mine / "a"}
    refused = (
        "",
        ".",
        "deep",
        "none",
        "../secret",
        "out",
        "ring",
        "ring/a",
        str(tmp_path / "secret"),
        "a\0",
        "a" * 5000,
    )
    for name in (*expected, *refused):
        assert file_in(folders, name) == expected.get(name), name
    for name in ("out", "../secret", "link"):
        assert file_in(folders, name, inside=False) == mine / name
