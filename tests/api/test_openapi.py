"""The description of the API: every route of every door is in it, and what it says can be followed."""

import re
from pathlib import Path

import pytest

from api import brewmixer, health, nexrender, pages, playback, streams
from api.app import create_app
from api.moviemasher import routes
from api.moviemasher.servers import Servers
from api.queue import JobQueue
from engine import Engine, Settings
from engine.morph import EASING, EASINGS

DOORS = (brewmixer, health, pages, playback, streams, nexrender, routes)


@pytest.fixture
def app(tmp_path):
    return create_app(Engine(Settings(data=str(tmp_path), rtmp_port=-1)))


@pytest.fixture
async def described(app):
    answer = await app.test_client().get("/openapi.json")
    assert answer.status_code == 200
    assert answer.content_type == "application/json"
    return await answer.get_json()


def references(value):
    """All $refs below a value."""
    if isinstance(value, dict):
        for key, each in value.items():
            if key == "$ref":
                yield each
            else:
                yield from references(each)
    elif isinstance(value, list):
        for each in value:
            yield from references(each)


async def test_it_is_an_openapi_document(described):
    assert described["openapi"].startswith("3.1.")
    assert set(described["info"]) >= {"title", "version"}
    for path, operations in described["paths"].items():
        assert path.startswith("/")
        for method, operation in operations.items():
            assert method in ("get", "put", "post", "delete")
            assert operation["summary"]
            assert all("description" in response for response in operation["responses"].values())
            names = [each["name"] for each in operation.get("parameters", ()) if each["in"] == "path"]
            assert names == re.findall(r"{(\w+)}", path)
            for body in [operation.get("requestBody"), *operation["responses"].values()]:
                assert all("/" in media for media in (body or {}).get("content", {}))
    ids = [each["operationId"] for operations in described["paths"].values() for each in operations.values()]
    assert len(ids) == len(set(ids))


async def test_every_route_of_every_door_is_described(described):
    listed = [(route.method, route.path) for door in DOORS for route in door.ROUTES]
    assert len(listed) == len(set(listed))
    there = {(method.upper(), path) for path, operations in described["paths"].items() for method in operations}
    assert there == set(listed)


async def test_what_the_door_of_jobs_takes_and_answers_is_described(described):
    jobs = described["paths"]["/api/v1/jobs"]["post"]
    for told in (jobs["requestBody"], jobs["responses"]["2XX"]):
        kinds = told["content"]["application/json"]["schema"]["anyOf"]
        assert {kind["type"] for kind in kinds} == {"object", "array"}
    assert set(jobs["responses"]["default"]["content"]) == {"text/plain"}
    assert set(described["paths"]["/status"]["get"]["responses"]["default"]["content"]) == {"application/json"}


async def test_trees_are_described_in_every_shape_that_is_taken(described):
    tree, vendors = {"$ref": "#/components/schemas/RenderTree"}, {"$ref": "#/components/schemas/PutTrees"}
    for prefix in brewmixer.PREFIXES:
        told = described["paths"][f"{prefix}/{{event}}"]["put"]["requestBody"]["content"]["application/json"]
        assert told["schema"]["anyOf"] == [tree, {"type": "array", "items": tree}, vendors]


def described_parameters(described, place):
    """{name: (method, path) of each operation that reads it}."""
    found = {}
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            for each in operation.get("parameters", ()):
                if each["in"] == place:
                    assert each["description"]
                    assert "enum" in each["schema"] or each["schema"]["type"] in ("string", "integer", "number")
                    found.setdefault(each["name"], []).append((method, path))
    return found


async def test_what_is_uploaded_has_a_schema(described):
    def body(method, path):
        ((media, told),) = described["paths"][path][method]["requestBody"]["content"].items()
        return media, told["schema"]

    file = {"type": "string", "format": "binary"}
    media, form = body("post", "/brewmixer/2.0/images/")
    assert (media, form["required"], form["properties"]) == ("multipart/form-data", ["file"], {"file": file})
    media, form = body("post", "/file/store")
    assert (media, form["required"]) == ("multipart/form-data", ["id", "file"])
    assert form["properties"] == {"id": {"type": "string"}, "file": file}
    assert body("put", "/api/v1/jobs/{uid}/output") == ("application/octet-stream", file)


async def test_what_is_said_of_bodies_and_answers_is_true(described):
    paths = described["paths"]
    for path in ("/media/{user}/{id}/{file}", "/api/v1/jobs/{uid}/output"):
        assert list(paths[path]["get"]["responses"]["2XX"]["content"]) == ["*/*"]
    playlist = paths["/{name}/index.m3u8"]["get"]["responses"]["2XX"]["content"]
    assert playlist == {"application/vnd.apple.mpegurl": {"schema": {"type": "string"}}}
    assert set(paths["/{name}.ws"]["get"]["responses"]) == {"101", "default"}
    optional = {path for path in paths if not paths[path].get("post", {}).get("requestBody", {}).get("required", True)}
    assert optional == {route.path for route in routes.ROUTES if route.method == "POST"} - {"/file/store"}


async def test_every_parameter_that_is_read_is_described(described):
    reads = re.compile(
        r"""(?:\bargument\(|\bargs\.get, |arguments\.get\(|request\.argument, |_seconds\(request, )"(\w+)\""""
    )
    code = "".join(path.read_text() for path in Path(nexrender.__file__).parent.rglob("*.py"))
    lists = [("get", "/api/v1/jobs"), ("get", "/api/v1/jobs/status")]
    pickups = [("get", "/api/v1/jobs/pickup"), ("get", "/api/v1/jobs/pickup/{tags}")]
    puts = [("put", f"{each}/{{event}}") for each in brewmixer.PREFIXES]
    playlists = [("get", "/{name}/index.m3u8")]
    output = ("put", "/api/v1/jobs/{uid}/output")
    found = described_parameters(described, "query")
    assert set(reads.findall(code)) == set(found)
    assert found == {
        **dict.fromkeys(("state", "type", "tag", "order", "limit", "cursor"), lists),
        **dict.fromkeys(("wait", "lease", "kind"), pickups),
        **dict.fromkeys(("transition", "easing"), puts),
        **dict.fromkeys(("_HLS_msn", "_HLS_part"), playlists),
        "run": [output, ("put", "/api/v1/jobs/{uid}")],
        "name": [output],
        "status": [("get", "/events")],
    }
    found = described_parameters(described, "header")
    assert found == {"Idempotency-Key": [("post", "/api/v1/jobs")], "nexrender-name": pickups}


async def test_what_is_said_of_parameters_is_true(described):
    operations = [each for path in described["paths"].values() for each in path.values()]
    asked = [each for told in operations for each in told.get("parameters", ()) if each["in"] != "path"]
    (run,) = [each for each in asked if each["required"]]
    assert run["name"] == "run"
    assert run in described["paths"]["/api/v1/jobs/{uid}/output"]["put"]["parameters"]  # it is 409 without
    told = {each["name"]: each for each in asked}
    assert set(told["easing"]["schema"]["enum"]) == set(EASINGS)
    assert EASING in told["easing"]["description"]
    assert told["kind"]["schema"]["enum"] == ["document", "project"]
    assert "1…3600" in told["lease"]["description"]
    assert told["Idempotency-Key"]["schema"]["maxLength"] == nexrender.MAX_KEY


async def test_jobs_may_be_asked_with_a_secret(described):
    assert described["components"]["securitySchemes"]["secret"]["name"] == nexrender.SECRET
    for path, operations in described["paths"].items():
        for operation in operations.values():
            allowed = operation.get("security", described["security"])
            assert ({"secret": []} in allowed) == path.startswith("/api/v1/")


async def test_every_rule_of_the_application_is_listed(app):
    def shape(path):
        return re.sub(r"<[^>]+>|{\w+}", "{}", path).rstrip("/") or "/"

    listed = {(route.method, shape(route.path)) for door in DOORS for route in door.ROUTES}
    for rule in app.url_map.iter_rules():
        if rule.rule == "/console/<file>":
            continue  # what the page is made of
        for method in (rule.methods or {"GET"}) - {"HEAD", "OPTIONS"}:
            assert (method, shape(rule.rule)) in listed, rule


def test_every_request_of_movie_masher_is_listed(tmp_path):
    engine = Engine(Settings(data=str(tmp_path), rtmp_port=-1))
    servers = Servers(engine, JobQueue(engine.settings))
    assert servers.paths == {route.path for route in routes.ROUTES if route.method == "POST"}


async def test_every_reference_leads_somewhere(described):
    schemas = described["components"]["schemas"]
    found = set(references(described))
    assert found
    assert {each.removeprefix("#/components/schemas/") for each in found} <= set(schemas)
    assert {"EngineStatus", "StreamEntry", "RecordingStatus", "PushStatus", "PullSpec", "RenderTree"} <= set(schemas)
