"""Every failure is JSON and one sentence, nothing redirects, who may enter is asked once, and connections end."""

import json
import logging
import math
from base64 import b64encode

import pytest
import trio
from quart import request

from api import asgi
from api.app import create_app
from engine.config import Settings
from engine.core import Engine
from engine.errors import InvalidSpec, Overloaded, SourceUnavailable
from tests.api.clients import serving
from tests.api.moviemasher.asking import Client, masher

BASIC = {"auth": ("ada", "secret")}


@pytest.fixture
async def start(tmp_path, nursery):
    """Gives an app over a running engine with these settings."""
    engines = []

    async def started(**settings):
        engine = Engine(Settings(data=str(tmp_path), rtmp_port=-1, **settings), strict=True)
        await nursery.start(engine.run)
        engines.append(engine)
        return create_app(engine)

    yield started
    for engine in engines:
        await engine.close()


async def ask(app, method, path, **options):
    with trio.fail_after(30):
        return await app.test_client().open(path, method=method, **options)


async def failure(app, method, path, **options):
    answer = await ask(app, method, path, **options)
    assert answer.content_type == "application/json"
    content = json.loads(await answer.get_data())
    assert content.keys() == {"error"}
    return answer.status_code, content["error"]


# --- failures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/nosuch"),
        ("GET", "/brewmixer"),
        ("GET", "/brewmixer/3.0/"),
        ("GET", "/brewmixer/1.0/a/b"),
        ("GET", "/brewmixer//1.0"),
        ("GET", "/brewmixer/2.0"),
        ("POST", "/brewmixer/2.0/images/a/b"),
    ],
)
async def test_what_is_not_there_is_404(start, method, path):
    assert await failure(await start(), method, path) == (404, f"no route {method} {path}")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PATCH", "/brewmixer/1.0/show", {"POST", "GET", "PUT", "DELETE", "HEAD", "OPTIONS"}),
        ("PUT", "/brewmixer/1.0/", {"GET", "HEAD", "OPTIONS"}),
        ("POST", "/brewmixer/2.0/mixers", {"GET", "HEAD", "OPTIONS"}),
        ("DELETE", "/brewmixer/2.0/images", {"POST", "GET", "HEAD", "OPTIONS"}),
        ("GET", "/brewmixer/2.0/images/a.png", {"DELETE", "OPTIONS"}),
        ("POST", "/healthz", {"GET", "HEAD", "OPTIONS"}),
    ],
)
async def test_a_wrong_method_is_405_and_says_which_are_right(start, method, path, allowed):
    app = await start()
    assert await failure(app, method, path) == (405, f"no route {method} {path}")
    answer = await ask(app, method, path)
    assert {each.strip() for each in answer.headers["Allow"].split(",")} == allowed


async def test_long_addresses_do_not_make_long_sentences(start):
    _, sentence = await failure(await start(), "GET", "/x" * 2000)
    assert len(sentence) < 250


async def test_a_bug_is_500_and_its_trace_is_in_the_log_only(start, caplog):
    app = await start()

    @app.get("/broken")
    async def broken():
        raise RuntimeError("a secret of ours")

    @app.get("/broken/twice")
    async def broken_twice():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(broken)
            nursery.start_soon(broken)

    for path in ("/broken", "/broken/twice"):
        caplog.clear()
        with caplog.at_level(logging.ERROR):
            assert await failure(app, "GET", path) == (500, "internal error")
        assert caplog.records[0].getMessage() == f"GET {path}: a bug"
        assert "a secret of ours" in caplog.text


@pytest.mark.parametrize(
    ("error", "status"), [(InvalidSpec("x is 5"), 400), (Overloaded("x is 5"), 503), (SourceUnavailable("x is 5"), 502)]
)
async def test_errors_of_the_engine_have_their_status(start, error, status):
    app = await start()

    @app.get("/raises")
    async def raises():
        raise error

    assert await failure(app, "GET", "/raises") == (status, "x is 5")


async def test_a_websocket_is_refused_in_json_too(start):
    app = await start()
    for path, status in (("/nosuch.thing", 404), ("/live/nosuch.ws", 404)):
        with trio.fail_after(30):
            async with serving(app) as port, await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(
                    f"GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
                )
                answer = b"".join([data async for data in stream])
        assert answer.startswith(f"HTTP/1.1 {status} ".encode())
        assert b'{"error":"' in answer


# --- methods and origins ---------------------------------------------------------------------------------------------


async def test_head_is_get_without_a_body(start):
    app = await start()
    async with serving(app) as port:
        for path in ("/brewmixer/1.0/", "/healthz", "/brewmixer/2.0/images/"):
            head, body = (await exchange(port, f"HEAD {path} HTTP/1.1")).split(b"\r\n\r\n", 1)
            assert head.startswith(b"HTTP/1.1 200 ")
            assert body == b""


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("path", ["/brewmixer/1.0", "/brewmixer/2.0/mixers", "/brewmixer/2.0/images"])
async def test_browsers_are_told_the_methods(start, path, slash):
    answer = await ask(await start(), "OPTIONS", path + slash)
    assert (answer.status_code, await answer.get_data()) == (200, b"")
    assert "GET" in answer.headers["Access-Control-Allow-Methods"] == answer.headers["Allow"]


@pytest.mark.parametrize("method", ["POST", "PUT", "GET", "DELETE"])
async def test_pages_of_other_sites_may_use_the_vendors_routes(start, method):
    app = await start(username="ada", password="secret")
    headers = {"Origin": "https://example.org", "Access-Control-Request-Method": method}
    answer = await ask(app, "OPTIONS", "/brewmixer/1.0/show", headers=headers)  # a browser asks without credentials
    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert method in answer.headers["Access-Control-Allow-Methods"]
    for header in ("Authorization", "Content-Type"):
        assert header in answer.headers["Access-Control-Allow-Headers"]
    answer = await ask(app, method, "/brewmixer/1.0/show", headers={"Origin": "https://example.org"})
    assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (401, "*")  # they may read why not
    answer = await ask(app, "GET", "/brewmixer/1.0/", headers={"Sec-Fetch-Site": "cross-site"}, **BASIC)
    assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (200, "*")
    assert "Access-Control-Allow-Credentials" not in answer.headers


async def test_pages_of_other_sites_may_play(start):
    answer = await ask(await start(), "GET", "/live/nosuch.jpg", headers={"Origin": "https://example.org"})
    assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (404, "*")


async def test_pages_of_other_sites_may_do_nothing_else(start):
    app = await start()
    for path in ("/healthz", "/streams/1.0/", "/status"):
        answer = await ask(app, "GET", path)
        assert (answer.status_code, "Access-Control-Allow-Origin" in answer.headers) == (200, False)
    headers = {"Sec-Fetch-Site": "cross-site"}
    for method, path in (
        ("POST", "/streams/1.0/live/a/recordings"),
        ("PUT", "/streams/1.0/a"),
        ("DELETE", "/streams/1.0/a"),
    ):
        status, sentence = await failure(app, method, path, headers=headers)
        assert (status, sentence) == (403, "pages of other sites may only use /brewmixer and playback")
        assert (await ask(app, method, path, headers={"Sec-Fetch-Site": "same-origin"})).status_code != 403


ELSEWHERE = {"Host": "mixer.test:8570", "Origin": "http://evil.example"}  # as browsers send to a plain http: address


@pytest.mark.parametrize(
    ("headers", "is_taken"),
    [
        ({"Content-Type": "text/plain"}, False),
        ({"Content-Type": "text/plain", "Origin": "null"}, False),
        ({"Content-Type": "text/plain; application/json"}, False),
        ({"Content-Type": "text/plain", "Origin": "http://mixer.test:8570"}, True),
        ({"Content-Type": "text/plain", "Origin": "http://mixer.test:8571", "Sec-Fetch-Site": "same-site"}, False),
        ({"Content-Type": "text/plain", "Sec-Fetch-Site": "same-origin"}, True),  # a proxy has changed Host
        ({"Content-Type": "application/json; charset=utf-8"}, True),
        ({"Content-Type": "text/plain", "X-Requested-With": "fetch"}, True),
    ],
)
async def test_a_form_of_another_site_does_nothing_with_the_password_that_a_browser_knows(start, headers, is_taken):
    app = await start(username="ada", password="secret")
    body = json.dumps({"path": "live", "streamName": "evil"})
    answer = await ask(app, "POST", "/brewmixer/1.0/evil", headers=ELSEWHERE | headers, data=body, **BASIC)
    assert answer.status_code == (201 if is_taken else 403)
    answer = await ask(app, "POST", "/streams/1.0/live/a/recordings", headers=ELSEWHERE | headers, **BASIC)
    assert answer.status_code == (404 if headers.keys() & {"Sec-Fetch-Site", "Origin"} and is_taken else 403)


async def test_without_a_password_any_page_may_use_the_vendors_routes(start):
    headers = ELSEWHERE | {"Content-Type": "text/plain", "Host": "mixer"}
    answer = await ask(await start(), "POST", "/brewmixer/1.0/a", headers=headers, data='{"path":"a","streamName":"b"}')
    assert answer.status_code == 201


# --- names -----------------------------------------------------------------------------------------------------------

REBOUND = {"Host": "evil.example", "Origin": "http://evil.example", "Sec-Fetch-Site": "same-origin"}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("PUT", "/streams/1.0/a", 400),
        ("GET", "/brewmixer/1.0/", 200),
        ("GET", "/live/a.jpg", 404),
        ("GET", "/api/v1/jobs", 200),
        ("GET", "/api/v1/health", 200),
        ("POST", "/api/servers", 200),
        ("GET", "/media/ada/a/a.png", 404),
        ("GET", "/", 200),
        ("GET", "/healthz", 200),
        ("OPTIONS", "/brewmixer/1.0/", 200),
    ],
)
async def test_no_door_is_open_to_a_page_whose_name_was_made_to_lead_here(tmp_path, method, path, status):
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "index.html").write_text("ours")
    async with masher(tmp_path, web=str(tmp_path / "web")) as port:
        client = Client(port)
        answer = await client.ask(method, path, body=b"{}", headers=REBOUND)
        assert answer.status == 403
        assert 'asked as "evil.example"' in answer.json["error"]
        assert "access-control-allow-origin" not in answer.headers
        assert (await client.ask(method, path, body=b"{}")).status == status


@pytest.mark.parametrize("settings", [{"username": "ada", "password": "secret"}, {"insecure": True}])
async def test_any_name_is_right_with_a_password_or_where_nothing_is_asked_for(start, settings):
    app = await start(**settings)
    assert (await ask(app, "GET", "/status", headers={"Host": "mixer.example"}, **BASIC)).status_code == 200


async def test_a_websocket_is_refused_by_name_too(start):
    handshake = "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
    async with serving(await start()) as port:
        for host, status in (("evil.example", b"403"), ("localhost", b"404")):
            answer = await exchange(port, "GET /live/a.ws HTTP/1.1", handshake, connection="Upgrade", host=host)
            assert answer.startswith(b"HTTP/1.1 " + status)
            assert b'{"error":"' in answer


# --- credentials -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/brewmixer/1.0/"),
        ("POST", "/brewmixer/1.0/show"),
        ("PUT", "/brewmixer/2.0/mixers/show"),
        ("DELETE", "/brewmixer/1.0/show"),
        ("POST", "/brewmixer/2.0/images/"),
        ("GET", "/streams/1.0/"),
        ("PUT", "/streams/1.0/live/a"),
        ("GET", "/status"),
        ("GET", "/events"),
        ("GET", "/metrics"),
        ("GET", "/"),
        ("GET", "/nosuch"),
        ("PATCH", "/nosuch"),
    ],
)
async def test_everything_that_controls_needs_credentials(start, method, path):
    app = await start(username="ada", password="secret")
    sentence = "user name or password is missing or wrong"
    for headers in ({}, {"Authorization": "Basic"}, {"Authorization": "Basic !"}, {"Authorization": "Bearer ada"}):
        assert await failure(app, method, path, headers=headers) == (401, sentence)
    answer = await ask(app, method, path, auth=("ada", "wrong"))
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].lower().startswith("basic realm=")


@pytest.mark.parametrize("given", [b"Basic \xc3\xa9", b"Basic YQ=\xff", b"Basic \x80", b"Basic /w==", b"\xe9 x"])
@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/status"), ("GET", "/"), ("GET", "/api/v1/jobs"), ("POST", "/data/mash/put")]
)
async def test_credentials_that_cannot_be_read_are_wrong_at_every_door(tmp_path, method, path, given):
    async with masher(tmp_path, username="ada", password="secret") as port:
        answer = await Client(port, user=None).ask(method, path, body=b"", headers={"Authorization": given})
    assert answer.status == 401
    assert answer.headers["www-authenticate"].lower().startswith("basic realm=")


async def test_credentials_that_cannot_be_read_do_not_matter_where_none_are_asked_for(start):
    app = await start()
    assert (await ask(app, "GET", "/status", headers={"Authorization": "Basic é"})).status_code == 200


async def test_credentials_open_the_door(start):
    app = await start(username="ada", password="secret")
    for path in ("/brewmixer/1.0/", "/streams/1.0/", "/status", "/metrics", "/", "/openapi.json"):
        assert (await ask(app, "GET", path, **BASIC)).status_code == 200


async def test_playback_and_health_are_open(start):
    app = await start(username="ada", password="secret")
    assert (await ask(app, "GET", "/healthz")).status_code == 200
    for path in ("/live/a.flv", "/live/a.jpg", "/live/a/index.m3u8", "/live/a/seg_1.m4s"):
        assert (await failure(app, "GET", path))[0] == 404  # and not 401


async def test_a_websocket_of_playback_is_open(start):
    app = await start(username="ada", password="secret")
    handshake = "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
    async with serving(app) as port:
        for path, status in (("/live/a.ws", b"404"), ("/other", b"401")):
            answer = await exchange(port, f"GET {path} HTTP/1.1", handshake, connection="Upgrade")
            assert answer.startswith(b"HTTP/1.1 " + status)


async def test_no_app_is_open_to_other_machines_by_mistake():
    with pytest.raises(InvalidSpec):
        create_app(Engine(Settings(host="0.0.0.0")))


# --- connections -----------------------------------------------------------------------------------------------------


async def exchange(port, request, header="X: x", body=b"", *, connection="close", host="x"):
    """The whole answer: everything until the server ends the connection."""
    with trio.fail_after(30):
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            head = f"{request}\r\nHost: {host}\r\nConnection: {connection}\r\n{header}\r\n\r\n"
            await stream.send_all(head.encode() + body)
            return b"".join([data async for data in stream])


@pytest.mark.parametrize("path", ["/healthz", "/brewmixer/1.0/", "/nosuch"])
async def test_a_connection_that_is_not_kept_alive_ends_with_its_answer(start, path):
    async with serving(await start()) as port:
        assert (await exchange(port, f"GET {path} HTTP/1.1")).endswith((b"}", b"]"))
        assert (await exchange(port, f"GET {path} HTTP/1.0")).endswith((b"}", b"]"))


async def test_a_connection_is_kept_alive_otherwise(start):
    with trio.fail_after(30):
        async with serving(await start()) as port, await trio.open_tcp_stream("127.0.0.1", port) as stream:
            for _ in range(3):
                await stream.send_all(b"GET /brewmixer/1.0/ HTTP/1.1\r\nHost: x\r\n\r\n")
                answer = b""
                while not answer.endswith(b"[]"):
                    answer += await stream.receive_some()
                assert answer.startswith(b"HTTP/1.1 200 ")


async def last_words(port, words):
    """All that is answered to who says nothing more."""
    with trio.fail_after(30):
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(words)
            await stream.send_eof()
            return b"".join([data async for data in stream])


@pytest.mark.parametrize(
    "path", ["/healthz", "/api/v1/jobs?limit=1", "/api/servers", "/media/ada/1/a%20b.png", "", "?a"]
)
async def test_a_target_may_be_absolute_at_every_door(tmp_path, path):
    film = tmp_path / "media" / "ada" / "1" / "a b.png"
    film.parent.mkdir(parents=True)
    film.write_bytes(b"a film")
    method = "POST" if path == "/api/servers" else "GET"
    async with masher(tmp_path) as port:
        client = Client(port)
        found = await client.ask(method, path if path.startswith("/") else f"/{path}")
        # What counts is whose address it is, and no header Host.
        absolute = f"HTTP://u@localhost:80{path}"
        same = await client.ask(method, absolute, headers={"Host": "evil.example"})
        assert (found.status, same.status, same.body[:12]) == (200, 200, found.body[:12])
        absolute = f"http://localhost@evil.example:80{path}"
        refused = await client.ask(method, absolute, headers={"Host": "localhost"})
        assert (refused.status, 'asked as "evil.example"' in refused.json["error"]) == (403, True)


@pytest.mark.parametrize("request_line", ["GET /status", "GET /docs", "GET /nosuch", "POST /brewmixer/1.0/show"])
async def test_who_only_listens_after_the_request_hears_the_whole_answer(start, request_line):
    async with serving(await start()) as port:
        for _ in range(5):
            words = f"{request_line} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{{}}"
            head, _, body = (await last_words(port, words.encode())).partition(b"\r\n\r\n")
            assert f"content-length: {len(body)}" in head.decode()
            assert body


async def test_an_answer_without_an_end_ends_for_who_says_nothing_more(start):
    async with serving(await start()) as port:
        await last_words(port, b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")


async def test_a_request_that_does_not_come_whole_does_nothing(start):
    async with serving(await start()) as port:
        words = b"PUT /streams/1.0/live/x HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{"
        assert b" 200 " not in await last_words(port, words)


@pytest.mark.parametrize(
    ("method", "kept"), [("GET", 0), ("HEAD", 0), ("OPTIONS", 0), ("POST", 1000), ("PUT", 1000), ("DELETE", 1000)]
)
async def test_of_a_body_that_no_route_reads_nothing_is_kept(start, method, kept):
    app = await start()

    @app.route("/asked", methods=[method], provide_automatic_options=False)
    async def measure():
        return "", 200, {"X-Kept": str(len(await request.get_data()))}

    async with serving(app) as port:
        answer = await exchange(port, f"{method} /asked HTTP/1.1", "Content-Length: 1000", bytes(1000))
    assert f"x-kept: {kept}\r\n".encode() in answer


@pytest.mark.parametrize("size", [1_048_577, 3_000_000])
@pytest.mark.parametrize("chunked", [False, True])
async def test_who_sends_too_much_hears_why(start, size, chunked):
    """A client that does not look for answers before it has sent everything."""
    body = b"%x\r\n%s\r\n0\r\n\r\n" % (size, b"x" * size) if chunked else b"x" * size
    length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {size}"
    async with serving(await start()) as port:
        answer = await exchange(port, "POST /brewmixer/1.0/show HTTP/1.1", length, body)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.endswith(b'{"error":"the body has more than 1048576 bytes"}')


@pytest.mark.parametrize(
    ("request_line", "size", "status"),
    [
        ("POST /brewmixer/2.0/images/", 20_000_000, b"401"),
        ("POST /nosuch", 40_000_000, b"401"),
        ("PUT /brewmixer/1.0/nosuch", 8_000_000, b"404"),
        ("POST /brewmixer/2.0/images/", 40_000_000, b"400"),
    ],
)
async def test_who_is_refused_while_it_sends_hears_why(start, request_line, size, status):
    """A client that does not look for answers before it has sent everything."""
    app = await start(username="ada", password="secret")
    secret = b"wrong" if status == b"401" else b"secret"
    header = f"Content-Length: {size}\r\nAuthorization: Basic {b64encode(b'ada:' + secret).decode()}"
    async with serving(app) as port:
        answer = await exchange(port, f"{request_line} HTTP/1.1", header, b" " * size)
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert b'{"error":"' in answer


async def test_who_announces_far_too_much_hears_why_at_once(start, monkeypatch):
    monkeypatch.setattr(asgi, "DRAIN_SECONDS", math.inf)
    answer = b""
    with trio.fail_after(30):
        async with serving(await start()) as port, await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(b"POST /brewmixer/1.0/show HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999999\r\n\r\n")
            async for data in stream:
                answer += data
                if answer.endswith(b'{"error":"the body has more than 1048576 bytes"}'):
                    break
            else:
                pytest.fail(f"the connection ended after {answer!r}")


@pytest.mark.parametrize("target", ["/nosuch", "*"])  # one that Quart answers, and one that is refused before it
async def test_who_is_refused_and_never_sends_what_it_announced_is_not_waited_for(start, monkeypatch, target):
    monkeypatch.setattr(asgi, "DRAIN_SECONDS", 0)
    async with serving(await start()) as port:
        answer = await exchange(port, f"POST {target} HTTP/1.1", "Content-Length: 100")
    assert answer.startswith(b"HTTP/1.1 404 ")


@pytest.mark.parametrize("target", ["/nosuch", "*"])
async def test_who_is_refused_and_sends_without_an_end_is_cut_off(start, monkeypatch, target):
    monkeypatch.setattr(asgi, "DRAIN_SECONDS", math.inf)
    monkeypatch.setattr(asgi, "DRAIN_BYTES", 1 << 20)
    chunk = b"10000\r\n%s\r\n" % bytes(1 << 16)
    with trio.fail_after(30):
        async with serving(await start()) as port, await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(f"POST {target} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
            with pytest.raises(trio.BrokenResourceError):
                for _ in range(1000):  # far more than sockets hold beside what is read
                    await stream.send_all(chunk)
