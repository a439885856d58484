"""What the stock client sends is understood, and what it gets it can read, also when something is wrong."""

import json
from itertools import product

import pytest

from api.moviemasher.mash import MAX_CLIPS
from api.moviemasher.users import Users, write_user
from engine.config import Settings
from engine.errors import InvalidSpec
from tests.api.moviemasher.asking import Client, masher

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("masher")


@pytest.fixture
async def client(folder, nursery):
    async with masher(folder) as port:
        yield Client(port)


# --- requests --------------------------------------------------------------------------------------------------------


async def test_a_slash_or_none_a_body_or_none(client):
    bodies = [None, b"", b" \n", b"{}", b'{"version": "5.1.1", "other": 1}', b"\xef\xbb\xbf{}"]
    for slash, headers, body in product(("", "/"), (JSON, {}, {"Content-Type": "text/plain"}), bodies):
        answer = await client.ask("POST", f"/api/servers{slash}", body=body, headers=headers)
        assert answer.status == 200
        assert answer.json["web"] == {}


async def test_what_is_no_object_is_refused_in_json(client):
    for body in (b"{", b"[]", b"1", b"null", b'"x"', b'{"a":NaN}', b"\xff", b'{"a":1,"a":2}', b"{}{}", b"[" * 100_000):
        answer = await client.ask("POST", "/api/callbacks/", body=body, headers=JSON)
        assert answer.status == 400
        assert answer.json.keys() == {"apiCallbacks", "error"}


async def test_bodies_have_up_to_8_mib(client):
    start, end = b'{"id": "/api/servers", "x": "', b'"}'
    room = (8 << 20) - len(start) - len(end)
    answer = await client.ask("POST", "/api/callbacks", body=start + b"x" * room + end, headers=JSON)
    assert answer.json["apiCallbacks"]
    answer = await client.ask("POST", "/api/callbacks", body=start + b"x" * (room + 1) + end, headers=JSON)
    assert (answer.status, answer.json["error"]) == (413, f"the body has more than {8 << 20} bytes")


CLIP = {
    "id": "temporary-123456",
    "label": "A clip",
    "track": 0,
    "frame": 100,
    "frames": 30,
    "timing": "custom",
    "contentId": "com.moviemasher.content.default",
    "containerId": "com.moviemasher.container.default",
    "content": {"color": "#ff0000", "x": 0.5, "xEnd": 0.25, "y": 0.5, "yEnd": 0, "lock": "H", "width": 1, "height": 1},
    "container": {"x": 0.5, "y": 0.5, "width": 0.5, "height": 0.5, "opacity": 1, "opacityEnd": 0, "offN": True},
    "effects": [{"id": "com.moviemasher.effect.blur", "label": "Blur"}],
}


async def test_json_that_would_keep_others_waiting_is_refused_and_the_longest_mash_is_not(client):
    for values in (b"0", b"[]", b'{"a":1}', b'"a"'):
        body = b'{"id": "/api/servers", "x": [' + b",".join([values] * 500_001) + b"]}"
        answer = await client.ask("POST", "/api/callbacks", body=body, headers=JSON)
        assert (answer.status, answer.json["apiCallbacks"]) == (400, {})
        assert "more than 500000" in answer.json["error"]
    body = b'{"id": "/api/servers", "x": [' + b",".join([b"[]"] * 50_000) + b"]}"
    answer = await client.ask("POST", "/api/callbacks", body=body, headers=JSON)
    assert answer.json["error"] == "the JSON has 50001 lists, more than 50000"
    body = json.dumps({"id": "/api/servers", "x": dict.fromkeys(map(str, range(20_001)))}, separators=(",", " : "))
    answer = await client.ask("POST", "/api/callbacks", body=body.encode(), headers=JSON)
    assert "more than 20000" in answer.json["error"]
    mash = {"tracks": [{"clips": [CLIP] * MAX_CLIPS}]}
    body = json.dumps({"id": "/api/servers", "mash": mash, "path": "M 1,2 3,4" * 20_000}).encode()
    assert (await client.ask("POST", "/api/callbacks", body=body, headers=JSON)).json["apiCallbacks"]


async def test_what_is_not_there_is_404_in_json(client):
    for path in ("/data/stream/get", "/api/nosuch", "/data/", "/data/mash", "/data/mash/get//", "/api/"):
        answer = await client.ask("POST", path, body=b"{}", headers=JSON)
        assert (answer.status, answer.json) == (404, {"error": f"no route POST {path.removesuffix('/')}"})


async def test_other_methods_are_404_in_json(client):
    for method, path in product(("PUT", "DELETE", "PATCH", "GET"), ("/api/servers", "/data/mash/get/")):
        answer = await client.ask(method, path)
        assert answer.status == 404
        assert json.loads(answer.body)["error"].startswith(f"no route {method} /")


# --- who asks --------------------------------------------------------------------------------------------------------


async def asked(port, user, password="pass"):
    answer = await Client(port, user, password).post("/api/servers")
    if answer.status != 200:
        assert answer.status == 401
        assert answer.headers["www-authenticate"].startswith('Basic realm="moviemasher"')
        assert answer.json.keys() == {"error"}
        assert "." not in answer.json["error"]
        return None
    assert "error" not in answer.json
    return user


async def test_without_a_password_everybody_may_enter_under_any_name(tmp_path):
    async with masher(tmp_path) as port:
        for user in ("ada", "Bob.2", "ada@example.org", "a" * 64):
            assert await asked(port, user) == user
        assert await asked(port, None) is None
        assert await asked(port, "ada", "") is None


async def test_names_are_words(tmp_path):
    async with masher(tmp_path) as port:
        for user in ("", ".", "..", "../x", "a/b", "/", "a\\b", ".hidden", "a" * 65, "ä", "a b", "shared", "%2e"):
            assert await asked(port, user) is None, user


async def test_one_password_is_everybodys(tmp_path):
    for settings in ({"masher_password": "s3cret"}, {"username": "ann", "password": "s3cret"}):
        async with masher(tmp_path, **settings) as port:
            assert await asked(port, "ada", "s3cret") == "ada"
            for wrong in ("s3cre", "s3crets", "S3cret", ""):
                assert await asked(port, "ada", wrong) is None


async def test_none_is_one_user_without_a_question(tmp_path):
    async with masher(tmp_path, masher_auth="none", masher_user="guest") as port:
        for user, password in ((None, ""), ("", ""), ("ada", "pass"), ("..", "x")):
            assert (await Client(port, user, password).post("/api/servers")).json["api"] == {}
    for wrong in ({"masher_auth": "nonsense"}, {"masher_auth": "none", "masher_user": "../x"}):
        with pytest.raises(InvalidSpec):
            Users(Settings(**wrong))


async def test_users_of_a_file_have_their_own_passwords(tmp_path):
    path = tmp_path / "users.json"
    write_user(path, "ada", "one: two")
    write_user(path, "bob", "three")
    assert "three" not in path.read_text()
    assert path.stat().st_mode & 0o077 == 0
    async with masher(tmp_path, users=str(path), masher_password="of nobody") as port:
        for _ in range(2):  # the second time it is remembered
            assert await asked(port, "ada", "one: two") == "ada"
            assert await asked(port, "bob", "three") == "bob"
            for user, wrong in (("ada", "three"), ("ada", "one"), ("bob", ""), ("eve", "three"), ("eve", "of nobody")):
                assert await asked(port, user, wrong) is None


@pytest.mark.parametrize("text", ["", "[]", '{"ada": "plain"}', '{"../x": "scrypt$1$1$1$$"}', '{"ada": 1}', "\xff"])
def test_a_file_of_users_that_makes_no_sense_is_refused(tmp_path, text):
    path = tmp_path / "users.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(InvalidSpec, match="users"):
        Users(Settings(users=str(path)))


# --- pages of other sites --------------------------------------------------------------------------------------------


FORM = {"Content-Type": "multipart/form-data"}


async def test_pages_of_other_sites_may_ask_with_credentials_of_their_own(tmp_path):
    asks = {"Origin": "https://example.org", "Access-Control-Request-Headers": "authorization,content-type"}
    async with masher(tmp_path, masher_password="pass") as port:
        client = Client(port)
        answer = await Client(port, None).ask("OPTIONS", "/data/mash/put/", headers=asks)
        assert (answer.status, answer.body) == (204, b"")
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "POST" in answer.headers["access-control-allow-methods"]
        assert answer.headers["access-control-allow-headers"] == "authorization,content-type"
        for elsewhere in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "http://evil.example"}):
            for headers in (JSON, {}, {"Content-Type": "text/plain"}, FORM):
                answer = await client.ask("POST", "/api/servers/", body=b"{}", headers=elsewhere | headers)
                assert answer.status == (200 if headers is JSON else 403)  # the browser's own go without asking
                assert answer.headers["access-control-allow-origin"] == "*"
                assert "access-control-allow-credentials" not in answer.headers
            assert (await client.ask("POST", "/file/store/", body=b"", headers=elsewhere | FORM)).status == 200


@pytest.mark.parametrize("settings", [{}, {"masher_auth": "none", "masher_password": "pass"}], ids=["any", "none"])
async def test_where_credentials_prove_nothing_only_pages_of_this_machine_may_ask(tmp_path, settings):
    """Of a developer at another port, say; a preflight is answered as always, and so is a program."""
    async with masher(tmp_path, **settings) as port:
        client = Client(port)
        for origin, status in (
            ("http://evil.example", 403),
            ("https://localhost.evil.example:8570", 403),
            ("http://127.0.0.1.evil.example", 403),
            ("null", 403),
            ("", 403),
            ("http://localhost:5173", 200),
            ("http://127.0.0.1:3000", 200),
            ("https://[::1]", 200),
            (f"http://127.0.0.1:{port}", 200),
        ):
            for path, kind in (("/data/mash/retrieve", JSON), ("/file/store", FORM)):
                headers = {**kind, "Origin": origin, "Sec-Fetch-Site": "cross-site"}
                answer = await client.ask("POST", path, body=b"", headers=headers)
                assert (answer.status, answer.headers["access-control-allow-origin"]) == (status, "*"), origin
                if status == 403:
                    assert "may only ask where there is a password" in answer.json["error"]
        asks = {"Origin": "http://evil.example", "Access-Control-Request-Headers": "content-type"}
        assert (await client.ask("OPTIONS", "/data/mash/retrieve/", headers=asks)).status == 204
        assert (await client.post("/data/mash/retrieve")).status == 200


# --- other doors -----------------------------------------------------------------------------------------------------


async def test_other_doors_are_as_they_were(tmp_path):
    async with masher(tmp_path) as port:
        nobody = Client(port, None)
        assert (await nobody.get("/brewmixer/1.0/")).status == 200
        assert (await nobody.get("/api/v1/jobs")).body == b"[]"
        assert (await nobody.get("/")).headers["content-type"].startswith("text/html")


# --- callbacks -------------------------------------------------------------------------------------------------------


async def test_a_request_goes_to_the_path_that_is_its_id(client):
    for path in ("/api/servers", "/data/mash/put", "/file/store", "/rendering/start", "/streaming/cut", "/web/x"):
        found = await client.call("/api/callbacks", id=path)
        assert found == {"apiCallbacks": {path: {"endpoint": {"prefix": path}}}}


async def test_a_server_that_is_not_there_has_no_callbacks(client):
    for path in ("", "/", "api", "/nosuch/x", "//api", "/ap"):
        assert await client.call("/api/callbacks", id=path) == {"apiCallbacks": {}}


async def test_a_callback_needs_an_id(client):
    for members in ({}, {"id": 1}, {"id": None}, {"id": []}):
        found = await client.post("/api/callbacks", **members)
        assert found.error == "id is required"
        assert found.json["apiCallbacks"] == {}


async def test_there_are_all_servers(client):
    found = await client.call("/api/servers")
    assert found.keys() == {"api", "data", "file", "rendering", "streaming", "web"}
    assert found["data"] == {"temporaryIdPrefix": "temporary-"}
    assert found["file"]["prefix"] == "/media/ada/"
    assert found["file"]["uploadLimits"] == {"audio": 50, "image": 5, "video": 100}
    for kind, extension in (("audio", "mp3"), ("image", "png"), ("video", "mp4")):
        assert extension in found["file"]["extensions"][kind]
