"""The door of jobs: what nexrender's client and worker send is answered as they expect, and better where it may be."""

import base64
import json
import os
import re
import resource
import socket
import sqlite3
import threading
import time
from contextlib import closing, contextmanager, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import trio
from sqlalchemy import select

import api.nexrender
import api.queue
import api.schema
import api.webhooks
from api.app import create_app
from api.nexrender import Door
from api.queue import JobQueue
from api.schema import jobs
from engine import Engine
from engine.config import Settings, from_env
from engine.errors import Overloaded
from engine.jobdocument import DOCUMENT
from engine.jobs import Queue
from tests.api.auditing import audit, new_database
from tests.api.clients import serving

TEMPLATE = {"src": "file:///a.aepx", "composition": "main"}
BODY = {"template": TEMPLATE}
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
NOW = 1_700_000_000.0


class Answer:
    """What came back."""

    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self):
        assert self.status == 200, self.body
        assert self.headers["content-type"] == "application/json; charset=utf-8"
        assert self.headers["content-length"] == str(len(self.body))
        return json.loads(self.body)

    @property
    def text(self):
        assert self.headers["content-type"] == "text/plain; charset=utf-8"
        text = self.body.decode()
        assert 0 < len(text) < 500
        assert "\n" not in text
        assert "Traceback" not in text
        return text


class Client:
    """Asks the door directly, path and headers as they are; a worker and a client have fewer words then."""

    def __init__(self, door):
        self.door = door

    async def ask(self, method, path, body=b"", headers=(), gone=None, peer="10.0.0.9", meanwhile=None):
        """gone: an event; the client hangs up then. meanwhile: what is awaited before the body is over."""
        raw, _, query = path.partition("?")
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        scope = {
            "type": "http",
            "method": method,
            "path": raw,
            "raw_path": raw.encode(),
            "query_string": query.encode(),
            "headers": [
                (name.lower().encode(), value if isinstance(value, bytes) else value.encode())
                for name, value in dict(headers).items()
            ],
            "client": (peer, 5555),
        }
        pieces = [content[at : at + 65536] for at in range(0, len(content), 65536)]
        messages = [{"type": "http.request", "body": each, "more_body": True} for each in pieces]
        messages.append({"type": "http.request", "body": b"", "more_body": False})
        hung_up = trio.Event() if gone is None else gone
        sent = []

        async def receive():
            await trio.lowlevel.checkpoint()
            if meanwhile is not None and len(messages) == 1:
                await meanwhile()
            if messages:
                return messages.pop(0)
            await hung_up.wait()
            return {"type": "http.disconnect"}

        async def send(message):
            sent.append(message)
            await trio.lowlevel.checkpoint()

        with trio.fail_after(30):
            await self.door(scope, receive, send)
        start, *rest = sent
        assert [each.get("more_body", False) for each in rest][-1:] == [False]
        found = {name.decode(): value.decode() for name, value in start["headers"]}
        return Answer(start["status"], found, b"".join(each["body"] for each in rest))

    async def add(self, **fields):
        return (await self.ask("POST", "/api/v1/jobs", {**BODY, **fields})).json

    async def job(self, uid):
        return (await self.ask("GET", f"/api/v1/jobs/{uid}")).json

    async def status(self, uid):
        return (await self.ask("GET", f"/api/v1/jobs/{uid}/status")).json

    async def put(self, uid, /, **fields):
        return (await self.ask("PUT", f"/api/v1/jobs/{uid}", fields)).json

    async def pickup(self, tags="", query="", name="w"):
        path = "/api/v1/jobs/pickup" + (f"/{tags}" if tags else "") + query
        return (await self.ask("GET", path, headers={"nexrender-name": name})).json

    async def uids(self, query=""):
        return [each["uid"] for each in (await self.ask("GET", f"/api/v1/jobs{query}")).json]


class Clock:
    """The time of day, set by hand."""

    now = NOW

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def start(tmp_path, nursery, clock):
    """Gives (client, queue) over a running queue with these settings."""
    queues = []

    async def started(*, data=tmp_path, **settings):
        new_database(tmp_path / "mashtun.db")
        configured = Settings(data=str(data), **settings)
        queue = JobQueue(configured, wall=clock, steady=clock)
        await nursery.start(queue.run)
        queues.append(queue)
        return Client(Door(queue, configured)), queue

    yield started
    for queue in queues:
        audit(queue._store)


@pytest.fixture
async def client(start):
    return (await start())[0]


# --- who may ask -----------------------------------------------------------------------------------------------------

SECRET = {"nexrender-secret": "s3cret"}
ELSEWHERE = [  # what browsers say of a page of another site
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Host": "mixer.test", "Origin": "http://evil.example"},
    {"Host": "mixer.test", "Origin": "null"},
]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/api/v1/jobs", b""),
        ("POST", "/api/v1/jobs", b"{broken"),
        ("GET", "/api/v1/jobs/pickup", b""),
        ("GET", "/api/v1/nosuch", b""),
        ("GET", "/api/v1/health?x", b""),
        ("HEAD", "/api/v1/health", b""),
        ("POST", "/api/v1/health", b""),
        ("GET", "/api/v1/jobs?nexrender-secret=s3cret", b""),
        ("GET", "/api/v1/workers", b""),
        ("GET", "/api/v1/events", b""),
    ],
)
async def test_without_the_secret_everything_is_403(start, method, path, body):
    client, _ = await start(secret="s3cret")
    for headers in ({}, {"nexrender-secret": "wrong"}, {"nexrender-secret": ""}, {"nexrender-secret": "é"},
                    {"Authorization": "s3cret"}, {"Authorization": "Bearer s3cret"}):  # fmt: skip
        answer = await client.ask(method, path, body, headers)
        assert answer.status == 403
        assert method == "HEAD" or "nexrender-secret" in answer.text
        assert "www-authenticate" not in answer.headers


async def test_the_secret_opens_the_door(start):
    client, _ = await start(secret="s3cret")
    for name in ("nexrender-secret", "Nexrender-Secret", "NEXRENDER-SECRET"):
        assert (await client.ask("GET", "/api/v1/jobs", headers={name: "s3cret"})).json == []
    assert (await client.ask("GET", "/api/v1/nosuch", headers=SECRET)).status == 404


async def test_health_and_preflights_need_no_secret(start):
    client, _ = await start(secret="s3cret")
    answer = await client.ask("GET", "/api/v1/health")
    assert (answer.status, answer.body) == (200, b"ok")
    for path in ("/api/v1/jobs", "/api/v1/jobs/pickup", "/api/v1/nosuch"):
        answer = await client.ask("OPTIONS", path)
        assert (answer.status, answer.body) == (200, b"ok")


async def test_without_a_configured_secret_none_is_looked_at(client):
    assert (await client.ask("GET", "/api/v1/jobs", headers={"nexrender-secret": "whatever"})).json == []


async def test_without_a_secret_a_server_with_a_password_asks_for_that(start):
    client, _ = await start(username="ada", password="pw")
    assert (await client.ask("GET", "/api/v1/health")).status == 200
    answer = await client.ask("GET", "/api/v1/jobs")
    assert answer.status == 401
    assert answer.headers["www-authenticate"].lower().startswith("basic")
    basic = {"Authorization": "Basic " + base64.b64encode(b"ada:pw").decode()}
    assert (await client.ask("GET", "/api/v1/jobs", headers=basic)).json == []
    for elsewhere in ELSEWHERE:
        assert (await client.ask("POST", "/api/v1/jobs", BODY, basic | elsewhere)).status == 403
    here = {"Host": "mixer.test", "Origin": "http://mixer.test"}
    assert (await client.ask("POST", "/api/v1/jobs", BODY, basic | here)).status == 200


@pytest.mark.parametrize("elsewhere", ELSEWHERE, ids=str)
@pytest.mark.parametrize("insecure", [False, True])
async def test_pages_of_other_sites_do_nothing_without_a_secret(start, elsewhere, insecure):
    client, _ = await start(insecure=insecure)
    made = await client.add(uid="a")
    headers = elsewhere | {"Content-Type": "text/plain"}
    asked = [("POST", ""), ("GET", ""), ("GET", "/pickup"), ("GET", "/a"), ("PUT", "/a"), ("DELETE", "/a")]
    for method, path in asked:
        answer = await client.ask(method, f"/api/v1/jobs{path}", BODY | {"state": "error"}, headers)
        assert (answer.status, answer.text) == (403, "pages of other sites may only ask with a secret")
    assert (await client.ask("GET", "/api/v1/jobs")).json == [made]


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "127.0.0.1:8570", "Origin": "http://127.0.0.1:8570", "Content-Type": "text/plain"},
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},  # an address that the user has typed
        {"Sec-Fetch-Mode": "cors", "User-Agent": "node"},  # what fetch of Node sends
        {},
    ],
    ids=str,
)
async def test_programs_and_pages_of_its_own_need_no_secret_where_there_is_none(client, headers):
    assert (await client.ask("POST", "/api/v1/jobs", BODY, headers)).status == 200


@pytest.mark.parametrize("elsewhere", ELSEWHERE, ids=str)
async def test_with_the_secret_pages_of_other_sites_may_ask(start, elsewhere):
    client, _ = await start(secret="s3cret")
    assert (await client.ask("POST", "/api/v1/jobs", BODY, SECRET | elsewhere)).status == 200


async def test_with_a_secret_no_password_is_asked_for(start):
    client, _ = await start(username="ada", password="pw", secret="s3cret")
    assert (await client.ask("GET", "/api/v1/jobs", headers=SECRET)).json == []


async def test_a_secret_beyond_ascii_is_taken_as_clients_send_it(start):
    client, _ = await start(secret="geheimnüs")
    for sent, status in (("geheimnüs", 200), ("geheimnüs".encode("latin-1"), 200), ("geheimn?s", 403)):
        answer = await client.ask("GET", "/api/v1/jobs", headers={"nexrender-secret": sent})
        assert answer.status == status


# --- common rules ----------------------------------------------------------------------------------------------------


async def test_pages_of_other_sites_may_read_every_answer(start, monkeypatch):
    client, queue = await start(secret="s3cret")
    monkeypatch.setattr(queue, "held", None)  # a bug
    asked = [("GET", "/api/v1/jobs", 200), ("GET", "/api/v1/jobs/x", 404), ("POST", "/api/v1/jobs", 400)]
    asked += [("PATCH", "/api/v1/jobs", 405), ("OPTIONS", "/api/v1/x", 200), ("GET", "/api/v1/workers", 500)]
    for method, path, status in asked:
        answer = await client.ask(method, path, headers=SECRET)
        assert answer.status == status
        assert answer.headers["access-control-allow-origin"] == "*"
        assert answer.headers["access-control-allow-credentials"] == "true"
    assert (await client.ask("GET", "/api/v1/jobs")).headers["access-control-allow-origin"] == "*"


async def test_preflights(client):
    asked = {"Access-Control-Request-Headers": "user-agent,nexrender-name"}
    answer = await client.ask("OPTIONS", "/api/v1/jobs/pickup", headers=asked)
    assert answer.text == "ok"
    assert answer.headers["access-control-allow-methods"] == "POST,GET,PUT,PATCH,DELETE,OPTIONS"
    assert answer.headers["access-control-allow-headers"] == (
        "X-Requested-With,Access-Control-Allow-Origin,X-HTTP-Method-Override,Content-Type,Authorization,Accept,"
        "nexrender-secret,nexrender-name,user-agent"
    )
    assert answer.headers["access-control-max-age"] == "86400"


async def test_json_is_compact(client):
    await client.add(mine={"a": [1, 2]})
    for path in ("", "/status"):
        body = (await client.ask("GET", f"/api/v1/jobs{path}")).body
        assert body == json.dumps(json.loads(body), separators=(",", ":")).encode()


@pytest.mark.parametrize(
    "kind",
    [None, "application/json", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "nonsense/;;",
     "", "application/json; charset=UTF-8", "application/json; charset=utf8", 'text/x; charset="utf-8"'],
)  # fmt: skip
async def test_a_body_is_json_whatever_its_type(client, kind):
    headers = {} if kind is None else {"Content-Type": kind}
    answer = await client.ask("POST", "/api/v1/jobs", json.dumps({**BODY, "mine": "é"}).encode(), headers)
    assert answer.json["mine"] == "é"


@pytest.mark.parametrize("charset", ["iso-8859-1", "utf-16", "utf-16le", "windows-1252"])
async def test_the_charset_of_a_body_is_honoured(client, charset):
    body = json.dumps({**BODY, "mine": "é"}, ensure_ascii=False).encode(charset)
    headers = {"Content-Type": f"application/json; charset={charset}"}
    assert (await client.ask("POST", "/api/v1/jobs", body, headers)).json["mine"] == "é"


@pytest.mark.parametrize("charset", ["nosuch", "rot13", "idna", "unicode_escape", "zlib", "ascii", "a\0b"])
async def test_an_unknown_charset_is_400(client, charset):
    body = json.dumps({**BODY, "mine": "é"}, ensure_ascii=False).encode()
    headers = {"Content-Type": f"application/json; charset={charset}"}
    answer = await client.ask("POST", "/api/v1/jobs", body, headers)
    assert (answer.status, charset in answer.text) == (400, True)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"{broken}", b"null", b"5", b'"x"', b"true", b"[]", b"{}", b"[5]", b'{"a":NaN}', b'{"a":1e400}',
     b'{"a":"\\ud800"}', b'{"a":"\xff"}', b"\xef\xbb\xbf{}", b"[" * 3000 + b"]" * 3000,
     b'{"template":' + b'{"x":' * 3000 + b"1" + b"}" * 3001],
)  # fmt: skip
async def test_what_is_no_job_is_400_and_leaves_no_trace(client, body):
    uid = (await client.add())["uid"]
    for method, path in (("POST", "/api/v1/jobs"), ("PUT", f"/api/v1/jobs/{uid}")):
        if (method, body) != ("PUT", b"{}"):
            answer = await client.ask(method, path, body)
            assert (answer.status, bool(answer.text)) == (400, True)
    assert await client.uids() == [uid]


async def test_odd_values_do_not_break_lists(client):
    body = b'{"template":{"src":"a","composition":"b"},"a":1e300,"b":"\\ud83d\\ude00\\u0000","c":' + b"[" * 400
    added = (await client.ask("POST", "/api/v1/jobs", body + b"]" * 400 + b',"priority":-1e999}')).status
    assert added == 400
    await client.ask("POST", "/api/v1/jobs", body + b"]" * 400 + b',"priority":"high","error":[{}],"tags":{"a":1}}')
    listed = (await client.ask("GET", "/api/v1/jobs")).json
    assert listed[0]["b"] == "😀\0"
    assert (await client.ask("GET", "/api/v1/jobs/status")).json[0]["tags"] == {"a": 1}
    assert (await client.pickup())["uid"] == listed[0]["uid"]


async def test_twenty_megabytes_are_taken(client):
    src = "data:image/png;base64," + "A" * (20 << 20)
    made = await client.add(assets=[{"type": "image", "layerName": "x", "src": src}])
    assert made["assets"][0]["src"] == src
    picked = await client.pickup()
    picked["state"] = "started"
    assert (await client.ask("PUT", f"/api/v1/jobs/{made['uid']}", picked)).json["state"] == "started"


async def test_more_than_100_mib_are_413(start):
    client, _ = await start(secret="s3cret")
    answer = await client.ask("POST", "/api/v1/jobs", b"{}", {**SECRET, "Content-Length": str((100 << 20) + 1)})
    assert (answer.status, answer.text) == (413, "the body has more than 104857600 bytes")
    answer = await client.ask("POST", "/api/v1/jobs", b"{}", {"Content-Length": str((100 << 20) + 1)})
    assert answer.status == 403


async def test_a_body_of_unknown_length_has_the_same_limit(client, monkeypatch):
    monkeypatch.setattr(api.nexrender, "MAX_BODY", 1 << 20)
    assert (await client.ask("POST", "/api/v1/jobs", b" " * ((1 << 20) + 1))).status == 413
    fitting = json.dumps(BODY).encode().ljust(1 << 20)
    assert (await client.ask("POST", "/api/v1/jobs", fitting)).status == 200


async def test_who_hangs_up_within_a_body_made_nothing(client):
    async def receive():
        return {"type": "http.disconnect"}

    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "raw_path": b"/api/v1/jobs", "query_string": b"", "headers": []}
    with trio.fail_after(30):
        await client.door(scope, receive, send)
    assert sent[0]["status"] == 400
    assert await client.uids() == []


@pytest.mark.parametrize("path", ["", "/status", "/pickup"])
async def test_what_stands_behind_a_question_mark_does_not_matter(client, path):
    uid = (await client.add())["uid"]
    answer = (await client.ask("GET", f"/api/v1/jobs{path}?_=17&foo[]=bar&%zz")).json
    assert (answer if isinstance(answer, dict) else answer[0])["uid"] == uid


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/v1", 404), ("GET", "/api/v1/", 404), ("GET", "/api/v1/jobs/", 404), ("GET", "/api/v1/job", 404),
        ("GET", "/api/v1//jobs", 404), ("GET", "/api/v1/health/", 404), ("POST", "/api/v1/jobs/", 404),
        ("PUT", "/api/v1/jobs", 405), ("DELETE", "/api/v1/jobs", 405), ("PATCH", "/api/v1/jobs/x", 405),
        ("POST", "/api/v1/jobs/x", 405), ("PATCH", "/api/v1/jobs", 405), ("HEAD", "/api/v1/jobs", 405),
        ("HEAD", "/api/v1/jobs/x", 405), ("PUT", "/api/v1/health", 405),
    ],
)  # fmt: skip
async def test_what_is_no_route_says_so_and_never_redirects(client, method, path, status):
    answer = await client.ask(method, path, b"{}")
    assert answer.status == status
    assert method == "HEAD" or answer.text == f"no route {method} {path}"
    assert ("allow" in answer.headers) == (status == 405)


async def test_only_get_picks(client):
    await client.add(tags="a")
    for method in ("HEAD", "OPTIONS", "POST"):
        for path in ("/api/v1/jobs/pickup", "/api/v1/jobs/pickup/a"):
            assert (await client.ask(method, path)).status == (200 if method == "OPTIONS" else 405)
    assert (await client.pickup("a"))["state"] == "picked"


async def test_a_bug_is_500_and_says_nothing(start, monkeypatch, caplog):
    client, queue = await start()

    async def broken(uid):
        raise RuntimeError("a secret of ours")

    monkeypatch.setattr(queue, "whole", broken)
    answer = await client.ask("GET", "/api/v1/jobs/x")
    assert (answer.status, answer.text) == (500, "Internal Server Error")
    assert "a secret of ours" in caplog.text


async def test_a_database_that_takes_nothing_is_503(start):
    client, queue = await start()
    uid = (await client.add())["uid"]
    with queue._store._writing.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
    answer = await client.ask("POST", "/api/v1/jobs", {**BODY, "mine": "x" * 100_000})
    assert (answer.status, "full" in answer.text) == (503, True)
    assert await client.uids() == [uid]


# --- create ----------------------------------------------------------------------------------------------------------


async def test_a_created_job_is_the_whole_job_with_defaults(client):
    made = await client.add()
    assert re.fullmatch(r"[A-Za-z0-9_-]{21}", made["uid"])
    assert TIME.fullmatch(made["createdAt"])
    assert made == {
        "uid": made["uid"],
        "type": "default",
        "state": "queued",
        "output": "",
        "tags": "",
        "priority": 0,
        "timings": {},
        "template": TEMPLATE,
        "assets": [],
        "actions": {"prerender": [], "postrender": []},
        "creator": "10.0.0.9",
        "createdAt": "2023-11-14T22:13:20.000Z",
        "updatedAt": "2023-11-14T22:13:20.000Z",
    }
    assert await client.job(made["uid"]) == made


async def test_unknown_fields_are_kept(client):
    fields = {"mine": {"deep": [1, 1.5, None, True, "é"]}, "priority": "high", "onChange": "x", "attempts": "no"}
    made = await client.add(template={**TEMPLATE, "frames": {"a": []}}, **fields)
    job = await client.job(made["uid"])
    assert {key: job[key] for key in fields} == fields
    assert job["template"]["frames"] == {"a": []}


async def test_the_creator_is_who_asked(client):
    answer = await client.ask("POST", "/api/v1/jobs", {**BODY, "creator": "me"}, {"X-Forwarded-For": "1.2.3.4, 5.6"})
    assert answer.json["creator"] == "1.2.3.4, 5.6"
    assert (await client.status(answer.json["uid"]))["jobCreator"] == "1.2.3.4, 5.6"


async def test_tags_are_cleaned(client):
    assert (await client.add(tags="a, b!#,c-d_e"))["tags"] == "a, b,cde"


async def test_a_uid_that_is_taken_is_409(client):
    await client.add(uid="a")
    answer = await client.ask("POST", "/api/v1/jobs", {**BODY, "uid": "a"})
    assert (answer.status, '"a"' in answer.text) == (409, True)
    assert await client.uids() == ["a"]


async def test_several_jobs_at_once(client):
    answer = await client.ask("POST", "/api/v1/jobs", [{**BODY, "uid": "a"}, {**BODY, "uid": "b"}])
    assert [each["uid"] for each in answer.json] == ["a", "b"]
    answer = await client.ask("POST", "/api/v1/jobs", [{**BODY, "uid": "c"}, {"uid": "d"}])
    assert (answer.status, "template" in answer.text) == (400, True)
    assert await client.uids() == ["a", "b"]


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"template": {"composition": "x"}}, "template.src"),
        ({"template": {"src": "x"}}, "composition"),
        ({"uid": ""}, "uid"),
        ({"uid": None}, "uid"),
        ({"uid": 0}, "uid"),
        ({"uid": False}, "uid"),
        ({"assets": {}}, "assets"),
        ({"assets": [{"type": "image", "src": "x"}]}, "layer"),
        ({"assets": [{"type": "data", "layerName": "x", "property": "y"}]}, "value"),
        ({"assets": [{"type": "data", "layerName": "x", "value": None}]}, "property"),
        ({"assets": [{"type": "hologram"}]}, "hologram"),
        ({"actions": {"prerender": [{}]}}, "module"),
        ({"maxAttempts": "x"}, "maxAttempts"),
    ],
)
async def test_what_is_missing_is_named(client, fields, name):
    answer = await client.ask("POST", "/api/v1/jobs", {**BODY, **fields})
    assert (answer.status, name in answer.text) == (400, True)


async def test_a_key_makes_a_job_once(client):
    headers = {"Idempotency-Key": "k1"}
    first = (await client.ask("POST", "/api/v1/jobs", BODY, headers)).json
    assert (await client.ask("POST", "/api/v1/jobs", BODY, headers)).json == first
    other = await client.ask("POST", "/api/v1/jobs", {**BODY, "x": 1}, headers)
    assert (other.status, "Idempotency-Key" in other.text) == (409, True)
    assert (await client.ask("POST", "/api/v1/jobs", BODY, {"Idempotency-Key": "k2"})).json["uid"] != first["uid"]
    assert len(await client.uids()) == 2
    assert (await client.ask("POST", "/api/v1/jobs", BODY, {"Idempotency-Key": "k" * 256})).status == 400
    await client.ask("DELETE", f"/api/v1/jobs/{first['uid']}")
    again = await client.ask("POST", "/api/v1/jobs", BODY, headers)
    assert (again.status, "deleted" in again.text) == (409, True)  # it was done once, and is not to be done again
    assert len(await client.uids()) == 1


# --- read ------------------------------------------------------------------------------------------------------------


async def test_lists_are_empty_arrays_first(client):
    assert (await client.ask("GET", "/api/v1/jobs")).json == []
    assert (await client.ask("GET", "/api/v1/jobs/status")).json == []


async def test_lists_are_whole_jobs_in_the_order_of_creation(client):
    made = [await client.add(uid=uid) for uid in ("c", "a", "b")]
    assert (await client.ask("GET", "/api/v1/jobs")).json == made
    listed = (await client.ask("GET", "/api/v1/jobs/status")).json
    assert listed == [await client.status(uid) for uid in ("c", "a", "b")]


async def test_a_status_record(client):
    uid = (await client.add(tags=""))["uid"]
    assert await client.status(uid) == {
        "uid": uid,
        "state": "queued",
        "type": "default",
        "tags": None,
        "renderProgress": 0,
        "error": None,
        "createdAt": "2023-11-14T22:13:20.000Z",
        "updatedAt": "2023-11-14T22:13:20.000Z",
        "startedAt": None,
        "finishedAt": None,
        "errorAt": None,
        "jobCreator": "10.0.0.9",
        "jobExecutor": None,
        "timings": {},
    }


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "x"), ("GET", "x/status"), ("PUT", "x"), ("DELETE", "x"), ("GET", "x/events"), ("GET", "x/output")],
)
async def test_an_unknown_job_is_404(client, method, path):
    body = {**BODY, "uid": "x", "state": "queued", "assets": [], "actions": {}}
    answer = await client.ask(method, f"/api/v1/jobs/{path}", body)
    assert (answer.status, '"x"' in answer.text) == (404, True)
    assert await client.uids() == []


@pytest.mark.parametrize(
    ("uid", "path"),
    [("a.b:c@d+e=f,g_h-i", "a.b:c@d+e=f,g_h-i"), ("a b~é", "a%20b~%C3%A9"), ("a+b", "a%2Bb"), ("a/b", "a/b"),
     ("50%", "50%25"), ("a;b", "a;b"), ("[x]^\\", "[x]^\\"), ("a.jpg", "a.jpg"), ("pickups", "pickups")],
)  # fmt: skip
async def test_odd_names_can_be_asked_for(client, uid, path):
    await client.add(uid=uid)
    assert (await client.ask("PUT", f"/api/v1/jobs/{path}", {"x": 1})).json["uid"] == uid
    assert (await client.status(path))["uid"] == uid
    assert (await client.job(path))["x"] == 1
    assert (await client.ask("DELETE", f"/api/v1/jobs/{path}")).json == {"id": uid, "removed": True}


async def test_filters_and_pages(client):
    names = [(await client.add(uid=f"j{n}", tags="a" if n % 2 else "b", type="x" if n < 4 else "y"))["uid"]
             for n in range(7)]  # fmt: skip
    await client.put("j3", state="finished")
    assert await client.uids("?state=finished") == ["j3"]
    assert await client.uids("?state=finished,queued&tag=a") == ["j1", "j3", "j5"]
    assert await client.uids("?type=y&order=newest") == ["j6", "j5", "j4"]
    seen, path = [], "/api/v1/jobs?limit=3&tag=b"
    while path:
        answer = await client.ask("GET", path)
        seen += [each["uid"] for each in answer.json]
        found = re.fullmatch('<(.*)>; rel="next"', answer.headers.get("link", ""))
        path = found and found[1]
    assert seen == names[::2]
    records = await client.ask("GET", "/api/v1/jobs/status?limit=2&state=queued")
    assert [each["uid"] for each in records.json] == ["j0", "j1"]
    assert "/api/v1/jobs/status?state=queued&limit=2&cursor=" in records.headers["link"]
    assert records.headers["access-control-expose-headers"] == "Link,Mashtun-Job,Mashtun-Run"


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "limit=-1", "limit=99999", "cursor=x", "order=up", "limit=²"])
async def test_impossible_pages_are_400(client, query):
    answer = await client.ask("GET", f"/api/v1/jobs?{query.replace('²', '%C2%B2')}")
    assert (answer.status, query.partition("=")[0] in answer.text) == (400, True)


async def test_a_list_that_is_too_long_for_memory_is_sent_as_it_is_read(client, monkeypatch):
    monkeypatch.setattr(api.nexrender, "LIST_BYTES", 2000)
    monkeypatch.setattr(api.nexrender, "PAGE", 3)
    names = [(await client.add())["uid"] for _ in range(20)]
    answer = await client.ask("GET", "/api/v1/jobs")
    assert "content-length" not in answer.headers
    assert [each["uid"] for each in json.loads(answer.body)] == names


# --- change ----------------------------------------------------------------------------------------------------------


async def test_a_put_lays_keys_over_the_job(client, clock):
    made = await client.add(timings={"a": 1}, mine={"x": 1})
    clock.now += 1.5
    fields = {"timings": {"b": 2}, "mine": None, "tags": "a!b", "type": 5, "createdAt": "t", "priority": None}
    fields |= {"creator": "me", "executor": {"odd": 1}, "output": "/x"}
    put = await client.put(made["uid"], **fields, updatedAt="ignored")
    assert put == {**made, **fields, "updatedAt": "2023-11-14T22:13:21.500Z"}
    assert await client.job(made["uid"]) == put
    clock.now += 1
    assert (await client.put(made["uid"])) == {**put, "updatedAt": "2023-11-14T22:13:22.500Z"}


@pytest.mark.parametrize(
    "fields",
    [{"template": {"composition": "x"}}, {"state": ""}, {"state": None}, {"uid": ""}, {"uid": "b"}, {"assets": [{}]},
     {"actions": None}, {"webhooks": 5}],
)  # fmt: skip
async def test_an_impossible_put_changes_nothing(client, clock, fields):
    made = await client.add()
    clock.now += 1
    assert (await client.ask("PUT", f"/api/v1/jobs/{made['uid']}", fields)).status == 400
    assert await client.job(made["uid"]) == made


async def test_a_put_of_an_array_is_400(client):
    uid = (await client.add())["uid"]
    assert (await client.ask("PUT", f"/api/v1/jobs/{uid}", [{"state": "error"}])).status == 400


@pytest.mark.parametrize("old", ["picked", "started", "render:dorender", "finished", "error", "created", "whatever"])
async def test_a_job_can_be_queued_again_from_any_state(client, old):
    uid = (await client.add())["uid"]
    await client.put(uid, state=old)
    assert (await client.put(uid, state="queued"))["state"] == "queued"
    assert (await client.pickup())["uid"] == uid


async def test_puts_at_once_of_different_keys_all_survive(client, nursery):
    uid = (await client.add())["uid"]
    async with trio.open_nursery() as asking:
        for n in range(20):
            asking.start_soon(partial(client.put, uid, **{f"key{n}": n, "x" * n: n}))
    job = await client.job(uid)
    assert [job[f"key{n}"] for n in range(20)] == list(range(20))


async def test_delete(client):
    uid = (await client.add())["uid"]
    await client.pickup()
    assert (await client.ask("DELETE", f"/api/v1/jobs/{uid}")).json == {"id": uid, "removed": True}
    assert (await client.ask("GET", f"/api/v1/jobs/{uid}")).status == 404
    assert (await client.ask("DELETE", f"/api/v1/jobs/{uid}")).status == 404


# --- pickup ----------------------------------------------------------------------------------------------------------


async def test_a_pickup_writes_state_executor_and_time(client, clock):
    made = await client.add(mine=1)
    clock.now += 1
    picked = await client.pickup(name="render box")
    changes = {"state": "picked", "executor": "render box", "updatedAt": "2023-11-14T22:13:21.000Z"}
    assert picked == {**made, **changes}
    assert await client.job(made["uid"]) == picked


async def test_an_empty_queue_is_an_empty_object(client):
    answer = await client.ask("GET", "/api/v1/jobs/pickup")
    assert (answer.json, answer.body) == ({}, b"{}")
    assert await client.pickup("a,b") == {}


async def test_who_picks_without_a_name_is_its_address(client):
    await client.add()
    await client.add()
    assert (await client.ask("GET", "/api/v1/jobs/pickup", peer="1.1.1.1")).json["executor"] == "1.1.1.1"
    forwarded = {"X-Forwarded-For": "2.2.2.2"}
    assert (await client.ask("GET", "/api/v1/jobs/pickup", headers=forwarded)).json["executor"] == "2.2.2.2"


@pytest.mark.parametrize(
    ("tags", "asked", "fits"),
    [
        ("gpu, slow", "slow", True), ("gpu,slow", "slow,fast", True), ("gpu,slow", "SLOW", False), ("", "gpu", False),
        ("gpu", "gp", False), ("gpu", "gpus", False), ("x, y", "x,%20y", True), ("y", "x,%20y", True),
        ("a b", "a%20b", True), ("a", "%20", False), ("a", ",", False), ("gpu", "", True), (["gpu", "x"], "x", True),
        ("status", "status", True), (5, "5", False), (None, "null", False),
    ],
)  # fmt: skip
async def test_tags(client, tags, asked, fits):
    await client.add(tags=tags)
    assert bool(await client.pickup(asked)) == fits
    assert bool(await client.pickup()) != fits  # and without tags any job


def test_the_ordering_may_be_set_as_for_nexrender():
    assert from_env({"NEXRENDER_ORDERING": "priority"}) == {"ordering": "priority"}
    assert from_env({"NEXRENDER_ORDERING": "x", "MASHTUN_ORDERING": "random"}) == {"ordering": "random"}


@pytest.mark.parametrize(
    ("ordering", "expected"),
    [("oldest-first", "abcd"), ("", "abcd"), ("Priority", "abcd"), ("newest-first", "dcba"), ("priority", "bdac")],
)
async def test_orderings(start, ordering, expected):
    client, _ = await start(ordering=ordering)
    for uid, priority in zip("abcd", (0, "7", "high", True), strict=True):
        await client.add(uid=uid, priority=priority)
    assert "".join([(await client.pickup())["uid"] for _ in "abcd"]) == expected


async def test_thirty_pickups_at_once_of_twenty_jobs(client):
    names = {(await client.add())["uid"] for _ in range(20)}
    picked = []

    async def pick():
        picked.append(await client.pickup())

    async with trio.open_nursery() as picking:
        for _ in range(30):
            picking.start_soon(pick)
    assert picked.count({}) == 10
    assert {each["uid"] for each in picked if each} == names


async def test_a_pickup_may_wait(client, nursery):
    found = []

    async def pick():
        found.append(await client.pickup(query="?wait=20", tags="a"))

    nursery.start_soon(pick)
    await trio.testing.wait_all_tasks_blocked(0.02)
    await client.add(tags="b")
    made = await client.add(tags="a")
    with trio.fail_after(30):
        while not found:
            await trio.sleep(0.01)
    assert found[0]["uid"] == made["uid"]


async def test_a_pickup_waits_as_long_as_it_says_and_no_longer(client):
    with trio.fail_after(30):
        assert await client.pickup(query="?wait=0.05") == {}


async def test_who_hangs_up_while_waiting_gets_nothing(client, nursery):
    gone = trio.Event()
    nursery.start_soon(partial(client.ask, "GET", "/api/v1/jobs/pickup?wait=20", gone=gone))
    await trio.testing.wait_all_tasks_blocked(0.02)
    gone.set()
    await trio.testing.wait_all_tasks_blocked(0.02)
    uid = (await client.add())["uid"]
    assert (await client.status(uid))["state"] == "queued"


async def test_who_has_hung_up_already_leaves_the_job_queued(client):
    uid = (await client.add(maxAttempts=1))["uid"]
    gone = trio.Event()
    gone.set()
    await client.ask("GET", "/api/v1/jobs/pickup", gone=gone)
    assert (await client.status(uid))["state"] == "queued"
    assert (await client.pickup())["uid"] == uid


@pytest.mark.parametrize("query", ["wait=x", "lease=-1", "kind=film", "wait=1e3"])
async def test_impossible_pickups_are_400_and_pick_nothing(client, query):
    await client.add()
    assert (await client.ask("GET", f"/api/v1/jobs/pickup?{query}")).status == 400
    assert (await client.pickup())["state"] == "picked"


async def test_a_pickup_for_a_kind(client):
    await client.add(uid="ours", template={"src": "a.json", "composition": "x"})
    await client.add(uid="theirs")
    assert (await client.pickup(query="?kind=project"))["uid"] == "theirs"
    assert await client.pickup(query="?kind=project") == {}
    assert (await client.pickup(query="?kind=document"))["uid"] == "ours"


# --- the worker's protocol -------------------------------------------------------------------------------------------


class Worker:
    """What nexrender's worker does."""

    def __init__(self, client, name="box"):
        self.client, self.name = client, name

    async def pickup(self):
        self.job = await self.client.pickup(name=self.name)
        return self.job

    async def begin(self, at="2026-01-01T00:00:00.000Z"):
        """The whole job."""
        self.job |= {"state": "started", "startedAt": at}
        return await self.client.put(self.job["uid"], **self.job)

    async def tell(self, **fields):
        """A status record."""
        keys = ("uid", "state", "type", "tags", "renderProgress", "error", "createdAt", "updatedAt", "startedAt")
        record = {key: self.job.get(key) for key in (*keys, "finishedAt", "errorAt", "timings")}
        record |= {"jobCreator": self.job.get("creator"), "jobExecutor": self.job.get("executor"), **fields}
        self.job |= fields
        return await self.client.put(self.job["uid"], **record)


async def test_a_job_from_pickup_to_the_end(client):
    made = await client.add(tags="", mine=[1])
    worker = Worker(client)
    assert (await worker.pickup())["uid"] == made["uid"]
    assert (await worker.begin())["state"] == "started"
    for percent in (0, 50, 100, 104):
        told = await worker.tell(state="render:dorender", renderProgress=percent)
        assert (told["state"], told["renderProgress"]) == ("render:dorender", percent)
    assert (await client.status(made["uid"]))["jobExecutor"] == "box"
    told = await worker.tell(state="finished", finishedAt="2026-01-01T00:01:00.000Z", timings={"render:setup": 1})
    assert told["state"] == "finished"
    status = await client.status(made["uid"])
    assert (status["state"], status["startedAt"], status["finishedAt"], status["timings"]) == (
        "finished", "2026-01-01T00:00:00.000Z", "2026-01-01T00:01:00.000Z", {"render:setup": 1}
    )  # fmt: skip
    assert (await client.job(made["uid"]))["mine"] == [1]


async def test_late_news_and_a_worker_that_is_stopped_do_not_change_a_finished_job(client):
    await client.add()
    worker = Worker(client)
    await worker.pickup()
    await worker.begin()
    await worker.tell(state="finished", finishedAt="2026-01-01T00:01:00.000Z")
    finished = await client.job(worker.job["uid"])
    assert await worker.tell(state="render:dorender", renderProgress=99) == finished
    assert await worker.tell(state="queued") == finished
    assert await worker.pickup() == {}
    assert (await client.put(finished["uid"], state="queued"))["state"] == "queued"


async def test_a_worker_that_is_stopped_gives_its_job_back(client):
    uid = (await client.add())["uid"]
    worker = Worker(client)
    await worker.pickup()
    await worker.begin()
    assert (await worker.tell(state="queued"))["state"] == "queued"
    assert (await Worker(client, "other").pickup())["uid"] == uid


async def test_an_error_of_the_worker(client):
    await client.add()
    worker = Worker(client)
    await worker.pickup()
    await worker.begin()
    assert (await worker.tell(state="started", error="aerender says no"))["error"] == "aerender says no"
    await worker.tell(state="error", error=["a", "b"], errorAt="2026-01-01T00:01:00.000Z")
    assert (await client.status(worker.job["uid"]))["error"] == "a\n\nb"


async def test_an_old_worker_that_chooses_by_itself(client):
    made = (await client.add())["uid"]
    (listed,) = (await client.ask("GET", "/api/v1/jobs")).json
    for fields in ({"state": "started", "startedAt": "t"}, {"state": "error", "error": {}, "errorAt": "t"}):
        listed |= fields
        assert (await client.put(made, **listed))["state"] == fields["state"]
    assert (await client.status(made))["error"] == {}


@pytest.mark.parametrize("step", ["picked", "started", "rendering"])
async def test_a_worker_that_vanishes_loses_its_job(start, clock, step, monkeypatch):
    monkeypatch.setattr(api.queue, "SWEEP_EVERY", 0.01)
    client, _ = await start(silence=600)
    uid = (await client.add())["uid"]
    gone, next_one = Worker(client, "gone"), Worker(client, "next")
    await gone.pickup()
    if step != "picked":
        await gone.begin()
    if step == "rendering":
        await gone.tell(state="render:dorender", renderProgress=5)
    clock.now += 89 if step == "picked" else 599
    await trio.sleep(0.05)
    assert await next_one.pickup() == {}
    clock.now += 2
    with trio.fail_after(30):
        while not await next_one.pickup():
            await trio.sleep(0.01)
    assert next_one.job["uid"] == uid
    await next_one.begin(at="2026-02-02T00:00:00.000Z")
    now = await client.job(uid)
    if step != "picked":  # it comes back, and is not heard
        assert await gone.tell(state="finished", finishedAt="t") == now
    assert (await next_one.tell(state="finished"))["state"] == "finished"


async def test_unique_workers(start):
    client, _ = await start(unique_workers=True)
    uid = (await client.add())["uid"]
    for _ in range(2):
        assert (await client.pickup(name="box"))["uid"] == uid
    assert await client.pickup(name="other") == {}


async def test_workers_are_listed(client):
    uid = (await client.add())["uid"]
    agent = {"nexrender-name": "box", "User-Agent": "nexrender-api/1 nexrender-worker/1"}
    await client.ask("GET", "/api/v1/jobs/pickup", headers=agent)
    await client.pickup(name="idle")
    box, idle = (await client.ask("GET", "/api/v1/workers")).json
    assert box == {"name": "box", "address": "10.0.0.9", "userAgent": agent["User-Agent"],
                   "seenAt": "2023-11-14T22:13:20.000Z", "jobs": [uid]}  # fmt: skip
    assert (idle["name"], idle["jobs"]) == ("idle", [])


# --- a worker in this process, or one of ours elsewhere --------------------------------------------------------------


async def test_a_worker_in_this_process(start, clock):
    client, queue = await start()
    worker: Queue = queue
    await client.add(uid="theirs")
    await client.add(uid="ours", type="mash")
    held = await worker.pick("slot 1", [DOCUMENT])
    assert (held.uid, json.loads(held.job)["state"]) == ("ours", "picked")
    assert await worker.pick("slot 2", [DOCUMENT]) is None
    assert await worker.report(held, {"state": "started", "startedAt": "2026-01-01T00:00:00.000Z"})
    assert await worker.report(held, {"state": "render:dorender", "renderProgress": 7})
    assert await worker.report(held, {})
    assert (await client.status("ours"))["renderProgress"] == 7
    assert await worker.finish(held, output="ours/film.mp4")
    job = await client.job("ours")
    assert (job["state"], job["output"], job["finishedAt"]) == ("finished", "ours/film.mp4", "2023-11-14T22:13:20.000Z")
    assert not await worker.report(held, {"state": "render:dorender"})


async def test_a_failure_in_this_process(start):
    client, queue = await start()
    await client.add(uid="a", type="mash", maxAttempts=2)
    for state in ("queued", "error"):
        held = await queue.pick("slot", [DOCUMENT])
        assert await queue.fail(held, "boom")
        assert (await client.status("a"))["state"] == state
    assert (await client.job("a"))["error"] == "boom"


@pytest.mark.parametrize("how", ["cancel", "queue", "remove", "finish"])
async def test_a_worker_learns_at_once_that_a_job_is_no_longer_its_own(start, nursery, how):
    client, queue = await start()
    await client.add(uid="a", type="mash")
    held = await queue.pick("slot", [DOCUMENT])
    revoked = trio.Event()

    async def wait():
        await queue.revoked(held)
        revoked.set()

    nursery.start_soon(wait)
    await queue.report(held, {"state": "render:dorender", "renderProgress": 1})
    await trio.testing.wait_all_tasks_blocked(0.02)
    assert not revoked.is_set()
    if how == "remove":
        await client.ask("DELETE", "/api/v1/jobs/a")
    else:
        await client.put("a", state={"cancel": "error", "queue": "queued", "finish": "finished"}[how])
    with trio.fail_after(2):
        await revoked.wait()
        await queue.revoked(held)  # also for who asks later
    assert not await queue.report(held, {"state": "finished"})


async def test_a_lease_that_is_reported_on_lasts(start, clock, monkeypatch):
    monkeypatch.setattr(api.queue, "SWEEP_EVERY", 0.01)
    client, queue = await start()
    await client.add(uid="a", type="mash")
    held = await queue.pick("slot", [DOCUMENT], lease=10)
    for _ in range(3):
        clock.now += 9
        await trio.sleep(0.03)
        assert await queue.report(held, {})
    clock.now += 11
    with trio.fail_after(30):
        await queue.revoked(held)
    assert not await queue.finish(held, output="x")
    assert (await client.status("a"))["state"] == "queued"


def lease_of(queue, uid):
    with queue._store._reading.connect() as connection:
        return connection.scalar(select(jobs.c.lease).where(jobs.c.uid == uid))


async def heard_again(queue, uid):
    """Returns when whoever holds a job has time to report."""
    with trio.fail_after(30):
        while (lease := lease_of(queue, uid)) is not None and lease <= queue.now():
            await trio.sleep(0.01)


def stand_still(seconds):
    """Nothing else is done meanwhile, as if the process were stopped."""
    time.sleep(seconds)


async def test_who_was_not_heard_while_the_server_stood_still_keeps_the_job(start, clock, monkeypatch):
    monkeypatch.setattr(api.queue, "SWEEP_EVERY", 0.01)
    monkeypatch.setattr(api.queue, "LATE", 0.5)
    client, queue = await start()
    await client.add(uid="a", type="mash")
    held = await queue.pick("slot", [DOCUMENT], lease=10)
    clock.now += 42
    stand_still(1)
    await heard_again(queue, "a")
    assert await queue.report(held, {})


async def test_who_was_not_heard_while_the_database_was_locked_keeps_the_job(start, clock, monkeypatch, tmp_path):
    monkeypatch.setattr(api.queue, "SWEEP_EVERY", 0.01)
    monkeypatch.setattr(api.schema, "BUSY_MS", 50)
    client, queue = await start()
    await client.add(uid="a", type="mash")
    held = await queue.pick("slot", [DOCUMENT], lease=10)
    with closing(sqlite3.connect(tmp_path / "mashtun.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        clock.now += 9
        with pytest.raises(Overloaded):
            await queue.report(held, {})
        clock.now += 36
        other.execute("ROLLBACK")
    await heard_again(queue, "a")
    assert await queue.report(held, {})


@pytest.mark.parametrize("by", [120, -3600])
async def test_nothing_ends_because_the_clock_was_set(tmp_path, nursery, clock, monkeypatch, by):
    monkeypatch.setattr(api.queue, "SWEEP_EVERY", 0.01)
    steady = Clock()
    new_database(tmp_path / "mashtun.db")
    settings = Settings(data=str(tmp_path))
    queue = JobQueue(settings, wall=clock, steady=steady)
    await nursery.start(queue.run)
    client = Client(Door(queue, settings))

    def pass_by(seconds):
        clock.now += seconds
        steady.now += seconds

    await client.add(uid="held", timeout=100)
    await client.add(uid="failed", maxAttempts=2, retryDelay=5)
    await client.add(uid="later", notBefore=(NOW + 60) * 1000)
    held = await queue.pick("slot", None, lease=30)
    failed = await queue.pick("other", None, lease=30)
    assert await queue.fail(failed, "x")
    clock.now += by
    with trio.fail_after(30):
        while queue.now() != round(clock.now * 1000):
            await trio.sleep(0.01)
    pass_by(4)
    found = await queue.pick("other", None, lease=30)
    assert (found and found.uid) == ("later" if by > 0 else None)  # as its user said, by the time of day
    pass_by(2)
    assert (await queue.pick("third", None, lease=30, wait=20)).uid == "failed"
    for _ in range(4):
        assert await queue.report(held, {})
        pass_by(23)
    assert await queue.report(held, {})
    pass_by(3)
    with trio.fail_after(30):
        await queue.revoked(held)
    assert (await client.job("held"))["error"] == 'worker "slot" did not finish within 100 s'
    audit(queue._store)


async def test_a_worker_of_ours_over_http(start, clock, tmp_path):
    client, queue = await start()
    await client.add(uid="a/ü", type="mash")
    headers = {"nexrender-name": "remote"}
    path = "/api/v1/jobs/a%2F%C3%BC"
    answer = await client.ask("GET", "/api/v1/jobs/pickup?kind=document&lease=30&wait=1", headers=headers)
    assert answer.json["uid"] == "a/ü"
    assert answer.headers["mashtun-job"] == "a%2F%C3%BC"
    run = answer.headers["mashtun-run"]
    answer = await client.ask("PUT", f"{path}?run={run}", {"state": "render:dorender", "renderProgress": 3})
    assert (answer.json["renderProgress"], answer.headers["mashtun-run"]) == (3, run)
    assert answer.json.keys() == (await client.status("a%2F%C3%BC")).keys()
    assert (await client.ask("PUT", f"{path}?run={run}", {"result": 1})).json.keys() == answer.json.keys()
    assert (await client.ask("PUT", path, {"type": "mash"})).json.keys() > {"template", "result", "renderProgress"}
    film = bytes(range(256)) * 4000
    uploaded = (await client.ask("PUT", f"{path}/output?run={run}&name=film.mp4", film)).json
    assert uploaded["bytes"] == len(film)
    assert queue.outputs in (queue.outputs / uploaded["output"]).parents
    assert (await client.ask("PUT", f"{path}/output?run=77&name=film.mp4", b"x")).status == 409
    assert (await client.ask("PUT", f"{path}/output?name=film.mp4", b"x")).status == 409
    for name in ("", "..", ".x", "a%00", "x" * 300):
        assert (await client.ask("PUT", f"{path}/output?run={run}&name={name}", b"x")).status in (200, 400)
    done = {"state": "finished", "output": uploaded["output"]}
    assert (await client.ask("PUT", f"{path}?run={run}", done)).json["state"] == "finished"
    assert (await client.ask("PUT", f"{path}/output?run={run}&name=film.mp4", b"x")).status == 409
    assert (await client.ask("GET", f"{path}/output")).body == film
    answer = await client.ask("PUT", f"{path}?run={run}", {"state": "queued"})
    assert answer.json["state"] == "finished"
    assert not list(tmp_path.rglob("*.part"))
    clock.now += 1


async def test_a_put_that_would_wait_for_a_failed_job_is_409(client):
    await client.add(uid="failed")
    await client.put("failed", state="error")
    await client.add(uid="a")
    answer = await client.ask("PUT", "/api/v1/jobs/a", {"after": ["failed"]})
    assert (answer.status, '"failed", which has failed' in answer.text) == (409, True)


async def test_a_worker_of_a_removed_job_does_nothing_to_one_made_anew_under_its_name(start):
    client, _ = await start()
    runs = []
    for name in ("first", "second"):
        await client.add(uid="a", type="mash")
        headers = {"nexrender-name": name}
        answer = await client.ask("GET", "/api/v1/jobs/pickup?kind=document&lease=30", headers=headers)
        runs.append(answer.headers["mashtun-run"])
        if name == "first":
            await client.ask("DELETE", "/api/v1/jobs/a")
    old, new = runs
    assert (await client.ask("PUT", f"/api/v1/jobs/a/output?run={old}&name=film.mp4", b"film")).status == 409
    answer = await client.ask("PUT", f"/api/v1/jobs/a?run={old}", {"state": "finished", "output": "x"})
    assert (answer.json["state"], answer.headers["mashtun-run"]) == ("picked", new)
    assert (await client.ask("PUT", f"/api/v1/jobs/a?run={new}", {"state": "finished"})).json["state"] == "finished"


@pytest.mark.parametrize("becomes", ["removed", "made anew", "given away", "cancelled"])
async def test_a_film_that_is_still_coming_when_its_job_goes_elsewhere_takes_no_ones_place(start, becomes):
    client, queue = await start()

    async def pick():
        headers = {"nexrender-name": "slot"}  # who picks again has lost what it had
        picked = await client.ask("GET", "/api/v1/jobs/pickup?kind=document&lease=30", headers=headers)
        return "/api/v1/jobs/a/output?name=film.mp4&run=" + picked.headers["mashtun-run"]

    async def become():
        if becomes == "cancelled":
            await client.put("a", state="error")
            return
        if becomes != "given away":
            await client.ask("DELETE", "/api/v1/jobs/a")
        if becomes == "made anew":
            await client.add(uid="a", type="mash")
        if becomes != "removed":
            assert (await client.ask("PUT", await pick(), b"new")).status == 200

    await client.add(uid="a", type="mash")
    answer = await client.ask("PUT", await pick(), b"old", meanwhile=become)
    assert answer.status == (404 if becomes == "removed" else 409)
    left = {path.name: path.read_bytes() for path in (queue.outputs / "a").iterdir()}
    assert left == ({} if becomes in ("removed", "cancelled") else {"film.mp4": b"new"})


async def test_an_upload_that_is_cut_off_late_does_not_harm_the_one_that_was_begun_in_its_place(start):
    client, queue = await start()
    await client.add(uid="a", type="mash")
    picked = await client.ask("GET", "/api/v1/jobs/pickup?kind=document&lease=30")
    upload = "/api/v1/jobs/a/output?name=film.mp4&run=" + picked.headers["mashtun-run"]
    begun, over = trio.Event(), trio.Event()

    async def first():
        async def stall():
            begun.set()
            await again.wait()

        await client.ask("PUT", upload, b"half", meanwhile=stall)
        over.set()

    async def let_the_first_end():
        again.set()
        await over.wait()

    again = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(first)
        await begun.wait()
        assert (await client.ask("PUT", upload, b"whole", meanwhile=let_the_first_end)).status == 200
    assert {path.name: path.read_bytes() for path in (queue.outputs / "a").iterdir()} == {"film.mp4": b"whole"}


async def test_what_an_upload_left_that_was_cut_off_goes(tmp_path, clock, start):
    client, queue = await start()
    await client.add(uid="a", type="mash")
    picked = await client.ask("GET", "/api/v1/jobs/pickup?kind=document&lease=30")
    upload = "/api/v1/jobs/a/output?name=film.mp4&run=" + picked.headers["mashtun-run"]
    (queue.outputs / "a").mkdir(parents=True)

    def leave(name):
        (queue.outputs / "a" / name).write_bytes(b"x")
        return queue.outputs / "a" / name

    left = [leave(".film.mp4.0.part"), leave(".more.mp4.1.part")]
    film = (await client.ask("PUT", upload, b"film")).json["output"]
    assert not any(path.exists() for path in left)
    left = [leave(".film.mp4.1.part")]
    await client.ask("DELETE", "/api/v1/jobs/a")
    assert not left[0].exists()
    assert Path(film).read_bytes() == b"film"


async def test_what_uploads_left_that_a_server_before_did_not_end_goes(tmp_path, nursery):
    left, film = (tmp_path / "outputs" / "a" / name for name in (".film.mp4.1.part", "film.mp4"))
    left.parent.mkdir(parents=True)
    for path in (left, film):
        path.write_bytes(b"x")
        os.utime(path, (1e9, 1e9))
    await nursery.start(JobQueue(Settings(data=str(tmp_path))).run)
    with trio.fail_after(20):
        while left.exists():
            await trio.sleep(0.01)
    assert film.exists()


async def test_an_output_that_the_disk_does_not_hold_is_507(start, tmp_path):
    client, _ = await start()
    await client.add(uid="a", type="mash")
    picked = await client.ask("GET", "/api/v1/jobs/pickup?kind=document&lease=30")
    upload = "/api/v1/jobs/a/output?name=film.mp4&run=" + picked.headers["mashtun-run"]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 20, hard))  # to who writes, a full disk
    try:
        answer = await client.ask("PUT", upload, bytes(3 << 20))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (answer.status, "cannot be kept" in answer.text) == (507, True)
    assert not [each for each in (tmp_path / "outputs").rglob("*") if each.is_file()]
    assert (await client.ask("PUT", upload, b"film")).json["bytes"] == 4


# --- output files ----------------------------------------------------------------------------------------------------


@pytest.fixture
async def film(start):
    """(client, bytes) of a job "a" with a film."""
    client, queue = await start()
    content = bytes(range(200)) * 3
    (queue.outputs / "a").mkdir(parents=True)
    (queue.outputs / "a" / "film.mp4").write_bytes(content)
    await client.add(uid="a", output="a/film.mp4")
    return client, content


async def test_an_output_file(film):
    client, content = film
    answer = await client.ask("GET", "/api/v1/jobs/a/output")
    assert (answer.status, answer.body) == (200, content)
    assert answer.headers["content-type"] == "video/mp4"
    assert answer.headers["content-length"] == "600"
    assert answer.headers["accept-ranges"] == "bytes"
    head = await client.ask("HEAD", "/api/v1/jobs/a/output")
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", "600")


@pytest.mark.parametrize(
    ("asked", "begin", "end"),
    [
        ("bytes=0-9", 0, 10),
        ("bytes=590-", 590, 600),
        ("bytes=-5", 595, 600),
        ("bytes=-5000", 0, 600),
        ("bytes=10-99999", 10, 600),
    ],
)
async def test_a_range_of_an_output_file(film, asked, begin, end):
    client, content = film
    answer = await client.ask("GET", "/api/v1/jobs/a/output", headers={"Range": asked})
    assert (answer.status, answer.body) == (206, content[begin:end])
    assert answer.headers["content-range"] == f"bytes {begin}-{end - 1}/600"
    assert answer.headers["content-length"] == str(end - begin)


@pytest.mark.parametrize("asked", ["bytes=0-1,3-4", "lines=1-2", "nonsense", "bytes=5-1"])
async def test_a_range_that_says_nothing_is_the_whole_file(film, asked):
    client, content = film
    answer = await client.ask("GET", "/api/v1/jobs/a/output", headers={"Range": asked})
    assert (answer.status, answer.body) == (200, content)


async def test_a_range_behind_the_end_is_416(film):
    client, _ = film
    answer = await client.ask("GET", "/api/v1/jobs/a/output", headers={"Range": "bytes=600-"})
    assert (answer.status, answer.headers["content-range"]) == (416, "bytes */600")


async def test_a_range_of_another_file_than_before_is_the_whole_file(film):
    client, _ = film
    tag = (await client.ask("GET", "/api/v1/jobs/a/output")).headers["etag"]
    for known, status in ((tag, 206), ('"other"', 200)):
        headers = {"Range": "bytes=0-4", "If-Range": known}
        assert (await client.ask("GET", "/api/v1/jobs/a/output", headers=headers)).status == status


@pytest.mark.parametrize(
    "output",
    ["", "nosuch.mp4", "../mashtun.db", "/etc/passwd", "file:///etc/passwd", "a", "a/../../mashtun.db", "a/link", "\0",
     "/gone/outputs/a/../../mashtun.db", "/gone/outputs/a/link", "/gone/outputs/a/", "/gone/outputs/b/film.mp4",
     None, 5, "x" * 5000, "https://x.org/film.mp4", "file://[x"],
)  # fmt: skip
async def test_what_is_no_output_file_is_404(film, output, tmp_path):
    client, _ = film
    (tmp_path / "outputs" / "a" / "link").symlink_to(tmp_path / "mashtun.db")
    await client.put("a", output=output)
    answer = await client.ask("GET", "/api/v1/jobs/a/output")
    assert (answer.status, bool(answer.text)) == (404, True)


@pytest.mark.parametrize("form", ["{}", "file://{}"])
async def test_an_output_may_be_a_whole_path(film, tmp_path, form):
    client, content = film
    await client.put("a", output=form.format(tmp_path.resolve() / "outputs" / "a" / "film.mp4"))
    assert (await client.ask("GET", "/api/v1/jobs/a/output")).body == content


@pytest.mark.parametrize(
    "output",
    [
        "/gone/outputs/a/film.mp4",
        "file:///gone/outputs/a/film.mp4",
        "data/outputs/a/film.mp4",  # of workers elsewhere, while the folder was relative
        "outputs/a/film.mp4",
    ],
)
async def test_a_film_is_served_after_the_data_folder_was_moved(film, output):
    client, content = film
    await client.put("a", output=output)
    assert (await client.ask("GET", "/api/v1/jobs/a/output")).body == content
    assert (await client.job("a"))["output"] == output


async def test_a_film_that_was_sent_is_served_where_the_data_folder_is_relative(start, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path.parent)
    client, _ = await start(data=tmp_path.name)
    await client.add(uid="a", type="mash")
    picked = await client.ask("GET", "/api/v1/jobs/pickup?kind=document&lease=30")
    upload = "/api/v1/jobs/a/output?name=film.mp4&run=" + picked.headers["mashtun-run"]
    place = (await client.ask("PUT", upload, b"film")).json["output"]
    assert place == str(tmp_path / "outputs" / "a" / "film.mp4")
    await client.put("a", state="finished", output=place)
    assert (await client.ask("GET", "/api/v1/jobs/a/output")).body == b"film"


# --- over sockets ----------------------------------------------------------------------------------------------------


async def exchange(port, head, body=b""):
    """The whole answer: everything until the server ends the connection."""
    with trio.fail_after(30):
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(f"{head}\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            for at in range(0, len(body), 1 << 20):
                await stream.send_all(body[at : at + (1 << 20)])
            return b"".join([data async for data in stream])


@pytest.fixture
async def app(start, tmp_path):
    """The whole application, with the door in front of it."""
    _, queue = await start(secret="s3cret")
    return create_app(Engine(Settings(data=str(tmp_path), rtmp_port=-1, secret="s3cret")), queue=queue)


async def test_the_door_is_in_front_of_the_application(app):
    secret = "nexrender-secret: s3cret"
    async with serving(app) as port:
        assert (await exchange(port, "GET /api/v1/health HTTP/1.1")).endswith(b"\r\n\r\nok")
        assert b" 403 " in await exchange(port, "GET /api/v1/jobs/a.jpg HTTP/1.1")  # which playback would answer
        assert b" 404 " in await exchange(port, f"GET /api/v1/jobs/a.jpg HTTP/1.1\r\n{secret}")
        body = json.dumps({**BODY, "uid": "a+b c"}).encode()
        made = await exchange(port, f"POST /api/v1/jobs HTTP/1.1\r\n{secret}\r\nContent-Length: {len(body)}", body)
        assert made.startswith(b"HTTP/1.1 200 ")
        found = await exchange(port, f"GET /api/v1/jobs/a+b%20c HTTP/1.1\r\n{secret}")
        assert json.loads(found.partition(b"\r\n\r\n")[2])["uid"] == "a+b c"
        head, _, rest = (await exchange(port, f"HEAD /api/v1/jobs/pickup HTTP/1.1\r\n{secret}")).partition(b"\r\n\r\n")
        assert (b" 405 " in head, rest) == (True, b"")
        assert (await exchange(port, "GET /healthz HTTP/1.1")).startswith(b"HTTP/1.1 200 ")
        assert (await exchange(port, "GET /api/v2 HTTP/1.1")).startswith(b"HTTP/1.1 404 ")


async def test_who_sends_too_much_hears_why(start):
    """A client that does not look for answers before it has sent everything."""
    client, _ = await start()
    body = bytes(101 << 20)
    async with serving(client.door) as port:
        answer = await exchange(port, f"POST /api/v1/jobs HTTP/1.1\r\nContent-Length: {len(body)}", body)
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert answer.endswith(b"the body has more than 104857600 bytes")
        assert (await exchange(port, "GET /api/v1/jobs HTTP/1.1")).endswith(b"[]")


async def test_who_announces_too_much_hears_why_at_once(start):
    client, _ = await start()
    with trio.fail_after(30):
        async with serving(client.door) as port, await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(b"POST /api/v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n")
            answer = b""
            while not answer.endswith(b"bytes"):
                answer += await stream.receive_some()
            assert answer.startswith(b"HTTP/1.1 413 ")


async def test_connections_are_kept_alive(start):
    client, _ = await start()
    with trio.fail_after(30):
        async with serving(client.door) as port, await trio.open_tcp_stream("127.0.0.1", port) as stream:
            for _ in range(3):
                await stream.send_all(b"GET /api/v1/jobs HTTP/1.1\r\nHost: x\r\n\r\n")
                answer = b""
                while not answer.endswith(b"[]"):
                    answer += await stream.receive_some()
                assert answer.startswith(b"HTTP/1.1 200 ")


async def test_pickups_over_sockets(start):
    client, _ = await start()
    names = {(await client.add())["uid"] for _ in range(20)}
    answers = []

    async def pick(port):
        answer = await exchange(port, "GET /api/v1/jobs/pickup HTTP/1.1")
        answers.append(json.loads(answer.partition(b"\r\n\r\n")[2]))

    async with serving(client.door) as port, trio.open_nursery() as picking:
        for _ in range(30):
            picking.start_soon(pick, port)
    assert answers.count({}) == 10
    assert {each["uid"] for each in answers if each} == names


class Messages:
    """Server-sent events of a connection."""

    ONE = re.compile(r"event: (\w+)\ndata: (.*)\n\n")

    def __init__(self, stream):
        self._stream, self._text, self._at = stream, "", 0

    async def next(self):
        while (found := self.ONE.search(self._text, self._at)) is None:
            self._text += (await self._stream.receive_some()).decode()
        self._at = found.end()
        return found[1], json.loads(found[2])


async def test_events_of_a_job(start):
    client, queue = await start()
    await client.add(uid="a")
    await client.add(uid="b")
    with trio.fail_after(30):
        async with serving(client.door) as port:
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(b"GET /api/v1/jobs/a/events HTTP/1.1\r\nHost: x\r\n\r\n")
                messages = Messages(stream)
                event, told = await messages.next()
                assert (event, told) == ("status", await client.status("a"))
                await client.put("b", state="error")
                await client.put("a", state="started")
                assert (await messages.next())[1]["state"] == "started"
                await client.ask("DELETE", "/api/v1/jobs/a")
                assert await messages.next() == ("removed", {"uid": "a"})
            while queue._feeds:
                await trio.sleep(0.01)


async def test_events_of_all_jobs(start):
    client, queue = await start()
    with trio.fail_after(30):
        async with serving(client.door) as port:
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(b"GET /api/v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
                while not queue._feeds:
                    await trio.sleep(0.01)
                messages = Messages(stream)
                for uid in "ab":
                    await client.add(uid=uid)
                    event, told = await messages.next()
                    assert (event, told["uid"], told["state"]) == ("status", uid, "queued")
            while queue._feeds:
                await trio.sleep(0.01)


async def test_slow_readers_hear_the_last_of_each_job(start):
    client, queue = await start()
    with queue.follow() as feed:
        await client.add(uid="a")
        await client.add(uid="b")
        await client.put("a", state="finished")
        with trio.fail_after(1):
            assert [(each.uid, each.state) for each in await feed.take()] == [("b", "queued"), ("a", "finished")]


async def test_a_line_on_which_nothing_comes_is_kept_open(start, monkeypatch):
    monkeypatch.setattr(api.nexrender, "COMMENT_EVERY", 0.02)
    client, _ = await start()
    with trio.fail_after(30):
        async with serving(client.door) as port, await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(b"GET /api/v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
            seen = b""
            while seen.count(b": still here\n\n") < 2:
                seen += await stream.receive_some()


# --- webhooks --------------------------------------------------------------------------------------------------------


class Receiver:
    """Takes webhooks on a port of its own; `status` is what it answers."""

    def __init__(self, port=0):
        self.told, self.status = [], 200
        receiver = self

        class Taking(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.told.append((receiver.status, dict(self.headers), body))
                self.send_response(receiver.status)
                if receiver.status == 302:
                    self.send_header("Location", "/other")
                self.end_headers()

            def log_message(self, *_):
                pass

        self._server = HTTPServer(("127.0.0.1", port), Taking)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook?x=1"
        self._thread = threading.Thread(target=partial(self._server.serve_forever, 0.01), daemon=True)
        self._thread.start()

    def events(self):
        return [json.loads(body)["event"] for status, _, body in self.told if status == 200]

    async def until(self, count, clock=None):
        """clock: time goes by meanwhile."""
        with trio.fail_after(30):
            while len(self.told) < count:
                await trio.sleep(0.01)
                if clock is not None:
                    clock.now += 0.1

    def close(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def receiver(monkeypatch):
    monkeypatch.setattr(api.webhooks, "POLL", 0.02)
    made = Receiver()
    yield made
    made.close()


async def test_webhooks_are_told_and_signed(start, receiver):
    client, queue = await start()
    hooks = [{"url": receiver.url, "secret": "shh", "events": ["queued", "finished"]}]
    uid = (await client.add(webhooks=hooks))["uid"]
    await client.put(uid, state="started")
    await client.put(uid, state="finished")
    await receiver.until(2)
    assert receiver.events() == ["queued", "finished"]
    for _, headers, body in receiver.told:
        assert headers["X-Hub-Signature-256"] == api.webhooks.signature("shh", body)
        assert headers["X-Mashtun-Event"] == json.loads(body)["event"]
        assert headers["Content-Type"] == "application/json"
    assert json.loads(receiver.told[1][2])["job"] == await client.status(uid)
    with trio.fail_after(30):
        while await queue.undelivered([], 10):
            await trio.sleep(0.01)


def test_a_signature_is_the_hmac_of_the_body():
    known = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    assert api.webhooks.signature("It's a Secret to Everybody", b"Hello, World!") == known


@pytest.mark.parametrize("status", [500, 404, 302])
async def test_what_is_not_taken_is_told_again_in_order(start, receiver, clock, status):
    client, _ = await start()
    receiver.status = status
    uid = (await client.add(webhooks=[{"url": receiver.url}]))["uid"]
    await client.put(uid, state="finished")
    await receiver.until(2, clock)
    receiver.status = 200
    await receiver.until(4, clock)
    assert receiver.events() == ["queued", "finished"]
    numbers = [headers["X-Mashtun-Delivery"] for _, headers, _ in receiver.told]
    assert len(set(numbers)) == 2
    assert numbers == sorted(numbers)


async def test_a_receiver_that_is_away_hears_it_after_a_restart(tmp_path, receiver, clock, nursery):
    settings = Settings(data=str(tmp_path))
    new_database(tmp_path / "mashtun.db")
    away = socket.create_server(("127.0.0.1", 0))
    port = away.getsockname()[1]
    away.close()
    async with trio.open_nursery() as first:
        queue = JobQueue(settings, wall=clock, steady=clock)
        await first.start(queue.run)
        client = Client(Door(queue, settings))
        hooks = [{"url": f"http://127.0.0.1:{port}/"}, {"url": receiver.url}]
        await client.add(webhooks=hooks)
        await receiver.until(1)
        with trio.fail_after(30):
            while [each for each in await queue.undelivered([], 10) if not each.tries]:
                await trio.sleep(0.01)
        first.cancel_scope.cancel()
    clock.now += 60
    queue = JobQueue(settings, wall=clock, steady=clock)
    await nursery.start(queue.run)
    other = HTTPServer(("127.0.0.1", port), BaseHTTPRequestHandler)
    other.timeout = 5
    await trio.to_thread.run_sync(other.handle_request)
    other.server_close()
    assert len(receiver.told) == 1


async def test_a_receiver_that_is_down_for_a_minute_hears_everything_in_order(start, receiver, clock, monkeypatch):
    monkeypatch.setattr(api.webhooks, "POLL", 0.005)
    client, queue = await start()
    away = socket.create_server(("127.0.0.1", 0))
    port = away.getsockname()[1]
    away.close()
    uid = (await client.add(webhooks=[{"url": f"http://127.0.0.1:{port}/hook"}]))["uid"]
    begun = clock.now
    for state in ("picked", "started", "render:dorender", "finished"):
        await client.put(uid, state=state)
    tries = 0
    with trio.fail_after(30):
        while clock.now < begun + 60:
            clock.now += 0.5
            await trio.sleep(0.01)
        while not tries:  # the first one holds up the others, and is tried now and then
            clock.now += 1
            tries = max([each.tries for each in await queue.undelivered([], 10)], default=0)
    assert 3 < tries < 10
    back = Receiver(port)
    await back.until(5, clock)
    back.close()
    assert back.events() == ["queued", "picked", "started", "render:dorender", "finished"]


@contextmanager
def listening(answer):
    """The port of a receiver each of whose connections is given to a function, in a thread."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as server:

        def take():
            with suppress(OSError):
                while True:
                    threading.Thread(target=answer, args=(server.accept()[0],), daemon=True).start()

        threading.Thread(target=take, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def hang(connection):
    with connection, suppress(OSError):
        while connection.recv(1 << 16):
            pass


def drip(connection):
    with connection, suppress(OSError):
        connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
        while True:
            connection.sendall(b"y")
            time.sleep(0.05)


async def tried(queue):
    """Returns when one that is not taken yet has been tried."""
    with trio.fail_after(30):
        while not any(each.tries for each in await queue.undelivered([], 10)):
            queue._wall.now += 1
            await trio.sleep(0.02)


async def test_one_receiver_that_hangs_does_not_hold_up_others(start, receiver, monkeypatch):
    monkeypatch.setattr(api.webhooks, "TIMEOUT", 3600)
    client, _ = await start()
    with listening(hang) as port:
        for n in range(2 * api.webhooks.AT_ONCE):
            await client.add(webhooks=[{"url": f"http://127.0.0.1:{port}{'/?#'[n % 3]}{n}"}])
        await client.add(webhooks=[{"url": receiver.url}])
        await receiver.until(1)


async def test_a_receiver_that_drips_is_given_so_much_time_and_no_more(start, monkeypatch):
    monkeypatch.setattr(api.webhooks, "TIMEOUT", 0.5)
    client, queue = await start()
    with listening(drip) as port:
        await client.add(webhooks=[{"url": f"http://127.0.0.1:{port}"}])
        await tried(queue)


async def test_private_addresses_are_told_nothing_of_jobs_that_strangers_may_post(start, receiver, caplog):
    client, queue = await start(insecure=True)
    await client.add(webhooks=[{"url": receiver.url}])
    caplog.set_level("INFO", "api.webhooks")
    await tried(queue)
    assert not receiver.told
    assert "127.0.0.1 is a private address" in caplog.text


async def test_a_receiver_may_have_an_address_of_version_6_and_no_port(start, caplog):
    client, queue = await start()
    caplog.set_level("INFO", "api.webhooks")
    await client.add(webhooks=[{"url": "http://[::1]/hook"}])
    await tried(queue)
    assert '"http://[::1]/hook": ' in caplog.text
    assert "not known" not in caplog.text


async def test_what_is_not_taken_for_a_day_is_given_up(start, receiver, clock):
    client, queue = await start()
    receiver.status = 500
    await client.add(webhooks=[{"url": receiver.url}])
    with trio.fail_after(30):
        while (clock.now < NOW + 86_400) or await queue.undelivered([], 10):
            clock.now += 1800
            await trio.sleep(0.02)
    told = len(receiver.told)
    assert told > 1
    clock.now += 86_400
    await trio.sleep(0.05)
    assert len(receiver.told) == told
