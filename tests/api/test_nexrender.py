"""The door of jobs: what nexrender's client and worker send is answered as they expect, and better where it may be."""

import base64
import json
import os
import re
import resource
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path
from urllib.parse import urljoin

import pytest
import trio

import api.nexrender
import api.queue
from api.nexrender import MAX_JOBS
from api.queue import JobQueue
from engine.config import Settings, from_env
from tests.api.door import BODY, TEMPLATE, TIME

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


async def test_an_image_of_another_site_takes_no_job_away(start):
    """Asked for one at a plain http: address browsers send neither Origin nor Sec-Fetch-Site."""
    image = {"Host": "mixer.test", "User-Agent": "Mozilla/5.0 (X11; Linux x86_64)", "Accept": "image/*"}
    client, _ = await start(insecure=True)
    await client.add(uid="a", tags="x")
    for path in ("/api/v1/jobs/pickup", "/api/v1/jobs/pickup/x"):
        answer = await client.ask("GET", path, headers=image)
        assert (answer.status, answer.text) == (403, "pages of other sites may only ask with a secret")
    assert (await client.status("a"))["state"] == "queued"
    agent = {"User-Agent": "nexrender-api/1.63.3 nexrender-worker/1.63.3"}
    assert (await client.ask("GET", "/api/v1/jobs/pickup", headers=agent)).json["uid"] == "a"
    client, _ = await start(secret="s3cret")
    assert (await client.ask("GET", "/api/v1/jobs/pickup", headers=image | SECRET)).json == {}


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
    with queue._store._database.write() as connection:
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


async def test_of_more_jobs_at_once_than_are_written_in_one_go_none_is_taken(client):
    answer = await client.ask("POST", "/api/v1/jobs", [BODY] * (MAX_JOBS + 1))
    assert (answer.status, answer.text) == (400, f"{MAX_JOBS + 1} jobs at once, more than {MAX_JOBS}")
    assert await client.uids() == []


async def test_values_are_limited_and_commas_of_texts_are_none(client, monkeypatch):
    monkeypatch.setattr(api.nexrender, "MAX_VALUES", 100)
    text = await client.ask("POST", "/api/v1/jobs", {**BODY, "mine": "a,[" * 200})
    assert text.json["mine"] == "a,[" * 200
    for body in ({**BODY, "mine": [1] * 101}, [{**BODY, "mine": [1] * 60}] * 2):
        answer = await client.ask("POST", "/api/v1/jobs", body)
        assert (answer.status, answer.text.endswith("commas and brackets, more than 100")) == (400, True)


@pytest.mark.parametrize("taken", ["first", "second"])
async def test_many_jobs_are_all_taken_or_none_and_the_answer_names_who_was_there(client, taken):
    assert await client.uids() == []
    await client.add(uid=taken)
    many = [{**BODY, "uid": f"n{n}", "tags": "a,b"} for n in range(1200)]
    answer = await client.ask("POST", "/api/v1/jobs", [{**BODY, "uid": "first"}, *many, {**BODY, "uid": "second"}])
    assert (answer.status, answer.text) == (409, f'job "{taken}" exists')
    assert await client.uids() == [taken]
    answer = await client.ask("POST", "/api/v1/jobs", many)
    assert [each["uid"] for each in answer.json] == [each["uid"] for each in many]
    assert (await client.pickup("b"))["uid"] == "n0"


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
        path = found and urljoin(path, found[1])
    assert seen == names[::2]
    records = await client.ask("GET", "/api/v1/jobs/status?limit=2&state=queued")
    assert [each["uid"] for each in records.json] == ["j0", "j1"]
    assert records.headers["link"].startswith("<?state=queued&limit=2&cursor=")  # good below any path of a proxy's
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
        ("status", "status", True), (5, "5", False), (None, "null", False), ("gpu-1", "gpu-1", True),
        ("a-b", "a,b", False), ("größe", "gr%C3%B6%C3%9Fe", True), ("é", "%C3%A9", False), (["gpu_2"], "x,gpu_2", True),
        (["gpu_2"], "gpu2", True),
    ],
)  # fmt: skip
async def test_tags(client, tags, asked, fits):
    await client.add(tags=tags)
    assert bool(await client.pickup(asked)) == fits
    assert bool(await client.pickup()) != fits  # and without tags any job


async def test_tags_that_are_put_are_asked_for_as_those_that_are_posted(client):
    uids = [(await client.add(tags="gpu-1"))["uid"], (await client.add())["uid"]]
    assert (await client.put(uids[1], tags="gpu-1"))["tags"] == "gpu-1"
    assert await client.uids("?tag=gpu-1") == await client.uids("?tag=gpu1") == uids
    assert await client.uids("?tag=-") == await client.uids("?tag=gpu") == []
    assert [(await client.pickup("gpu-1"))["uid"] for _ in uids] == uids


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


async def test_a_job_of_a_mash_is_refused_where_nobody_would_ever_be_given_it(start):
    client, _ = await start(worker=0)
    mash = BODY | {"template": {"src": "mash:m1", "composition": "video"}}
    for body in (mash, [BODY, mash]):
        answer = await client.ask("POST", "/api/v1/jobs", body)
        assert (answer.status, answer.text) == (
            503,
            "nothing is rendered here: the server has no workers of its own (--worker 0)",
        )
    assert await client.uids() == []
    await client.add(uid="film", template={"src": "data:application/json,{}", "composition": "*"})
    assert (await client.pickup(query="?kind=document"))["uid"] == "film"  # of workers elsewhere


@pytest.mark.parametrize(
    "agent",
    [
        "nexrender-api/1.63.3 nexrender-worker/1.63.3",
        *("node", "undici", "node-fetch/1.0 (+https://github.com/bitinn/node-fetch)"),  # of 1.10, as its Node is
    ],
)
async def test_nexrenders_worker_is_given_no_document_that_it_cannot_render(client, agent):
    agent = {"User-Agent": agent}
    await client.add(uid="ours", template={"src": "a.json", "composition": "x"})
    assert (await client.ask("GET", "/api/v1/jobs/pickup", headers=agent)).json == {}
    await client.add(uid="theirs")
    assert (await client.ask("GET", "/api/v1/jobs/pickup", headers=agent)).json["uid"] == "theirs"
    assert (await client.ask("GET", "/api/v1/jobs/pickup?kind=document", headers=agent)).json["uid"] == "ours"


@pytest.mark.parametrize("agent", [{}, {"User-Agent": "curl/8.5.0"}, {"User-Agent": "nexrender-api/1.62.0"}], ids=str)
async def test_who_is_no_worker_of_nexrenders_is_given_any_job(client, agent):
    await client.add(uid="ours", template={"src": "a.json", "composition": "x"})
    assert (await client.ask("GET", "/api/v1/jobs/pickup", headers=agent)).json["uid"] == "ours"


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
    held = 89 if step == "picked" else 599
    due = (await client.add(notBefore=(clock.now + held) * 1000))["uid"]
    clock.now += held
    with trio.fail_after(30):
        while (await client.status(due))["state"] != "queued":  # by a sweep, which takes jobs away first
            await trio.sleep(0.01)
    assert (await client.ask("DELETE", f"/api/v1/jobs/{due}")).status == 200
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


async def test_the_workers_that_asked_last_are_remembered(client, monkeypatch):
    monkeypatch.setattr(api.nexrender, "WORKERS", 2)
    for name in ("a", "b", "a", "c"):
        await client.pickup(name=name)
    assert [each["name"] for each in (await client.ask("GET", "/api/v1/workers")).json] == ["a", "c"]


# --- workers of ours elsewhere ---------------------------------------------------------------------------------------


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


async def test_the_folder_of_a_run_with_many_files_is_looked_through_for_what_was_left_before_the_first_one(start):
    client, queue = await start()
    await client.add(uid="a", type="mash")
    left = queue.outputs / "a" / "frames" / ".0.png.0.part"
    left.parent.mkdir(parents=True)
    for worker in ("one", "another"):
        headers = {"nexrender-name": worker}
        picked = await client.ask("GET", "/api/v1/jobs/pickup?kind=document&lease=30", headers=headers)
        run = picked.headers["mashtun-run"]
        for n in range(2):
            left.write_bytes(b"x")
            path = f"/api/v1/jobs/a/output?name=frames/{n}.png&run={run}"
            assert (await client.ask("PUT", path, b"film")).status == 200
            assert left.exists() == (n > 0)
        assert (await client.ask("PUT", f"/api/v1/jobs/a?run={run}", {"state": "queued"})).status == 200


async def test_what_uploads_left_that_a_server_before_did_not_end_goes(tmp_path, nursery):
    left, film = (tmp_path / "outputs" / "a" / name for name in (".film.mp4.1.part", "film.mp4"))
    left.parent.mkdir(parents=True)
    for path in (left, film):
        path.write_bytes(b"x")
        os.utime(path, (1e9, 1e9))
    await nursery.start(JobQueue(Settings(data=str(tmp_path))).run)
    with trio.fail_after(30):
        while left.exists():
            await trio.sleep(0.01)
    assert film.exists()


@pytest.mark.parametrize("piece", [1000, 65536])
async def test_an_output_that_the_disk_does_not_hold_is_507(start, tmp_path, piece):
    client, _ = await start()
    await client.add(uid="a", type="mash")
    picked = await client.ask("GET", "/api/v1/jobs/pickup?kind=document&lease=30")
    upload = "/api/v1/jobs/a/output?name=film.mp4&run=" + picked.headers["mashtun-run"]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 20, hard))  # to who writes, a full disk
    try:
        answer = await client.ask("PUT", upload, bytes(3 << 20), piece=piece)
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


async def test_an_output_is_called_what_it_is_wherever_the_server_runs(start):
    client, queue = await start()
    (queue.outputs / "a").mkdir(parents=True)
    (queue.outputs / "a" / "sound.m4a").write_bytes(b"sound")
    await client.add(uid="a", output="a/sound.m4a")
    assert (await client.ask("GET", "/api/v1/jobs/a/output")).headers["content-type"] == "audio/mp4"


async def test_of_a_job_whose_film_is_asked_for_nothing_is_read_but_where_that_is(start, tmp_path):
    client, queue = await start()
    film = queue.outputs / "a" / "film.mp4"
    film.parent.mkdir(parents=True)
    film.write_bytes(b"film")
    await client.add(uid="a", output="a/film.mp4")
    with closing(sqlite3.connect(tmp_path / "mashtun.db")) as database, database:
        (content,) = database.execute("SELECT content FROM contents").fetchone()
        database.execute("UPDATE contents SET content = X'00'")  # what whoever reads it stumbles over
    assert (await client.ask("GET", "/api/v1/jobs/a/output")).body == b"film"
    with closing(sqlite3.connect(tmp_path / "mashtun.db")) as database, database:
        database.execute("UPDATE contents SET content = ?", (content,))
    assert (await client.job("a"))["output"] == "a/film.mp4"


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
