"""Mashes, casts and definitions are kept as clients need them, each for its user, and nothing is lost on the way."""

import json
import re
import sqlite3
import threading
from contextlib import closing
from functools import partial

import pytest
import trio
from alembic import command

from api.moviemasher import documents
from api.moviemasher.documents import Documents
from api.schema import Database
from engine.errors import InvalidMash, Overloaded
from tests.api.moviemasher.asking import Client, masher

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
MASH = {
    "label": "2022", "color": "#000000", "createdAt": "", "quantize": 10, "id": "temporary-0",
    "extra": {"kept": [1, 2.5, 10**30, None]},
    "tracks": [{"dense": True, "clips": [{"contentId": "image-1", "content": {}}]}],
}  # fmt: skip
IMAGE = {
    "id": "image-1",
    "type": "image",
    "label": "007",
    "source": "image-1/original.png",
    "url": "image-1/r/image.png",
}


@pytest.fixture
async def client(tmp_path, nursery):
    async with masher(tmp_path) as port:
        yield Client(port)


async def saved(client, **members):
    """The permanent id of a mash."""
    found = await client.call("/data/mash/put", mash={**MASH, **members}, definitionIds=[])
    (name,) = found["temporaryIdLookup"].values()
    return name


# --- mashes ----------------------------------------------------------------------------------------------------------


async def test_a_new_user_has_an_empty_mash_and_no_error(client):
    assert await client.call("/data/mash/default") == {"mash": {}, "definitions": []}
    assert await client.call("/data/cast/default") == {"cast": {}, "definitions": []}
    assert await client.call("/data/mash/retrieve", partial=True) == {"described": []}


async def test_the_preview_size_is_told_when_it_is_set(tmp_path):
    async with masher(tmp_path, preview_size="320x180") as port:
        size = {"width": 320, "height": 180}
        for kind in ("mash", "cast"):
            found = await Client(port).call(f"/data/{kind}/default")
            assert found == {kind: {}, "definitions": [], "previewSize": size}
        name = await saved(Client(port))
        assert "previewSize" not in await Client(port).call("/data/mash/get", id=name)


async def test_a_mash_comes_back_as_it_was_put(client):
    found = await client.call("/data/mash/put", mash=MASH, definitionIds=["com.moviemasher.clip.default"])
    assert found.keys() == {"temporaryIdLookup"}
    (name,) = found["temporaryIdLookup"].values()
    assert found["temporaryIdLookup"] == {"temporary-0": name}
    assert UUID.fullmatch(name)
    mash = (await client.call("/data/mash/get", id=name))["mash"]
    assert TIME.fullmatch(mash.pop("createdAt"))
    assert mash == {**{key: value for key, value in MASH.items() if key != "createdAt"}, "id": name}
    assert mash["label"] == "2022"  # and no number
    described = (await client.call("/data/mash/retrieve", partial=True))["described"]
    assert described == [{"id": name, "label": "2022", "icon": None}]
    assert (await client.call("/data/mash/retrieve"))["described"][0]["tracks"] == MASH["tracks"]
    assert (await client.call("/data/mash/default"))["mash"]["id"] == name


async def test_what_is_kept_is_handed_on_as_it_is_and_decoded_by_nobody(tmp_path):
    """To decode a document holds up everything else for as long as it takes, mixers too."""
    async with masher(tmp_path) as port:
        client = Client(port)
        await client.call("/data/definition/put", definition=IMAGE)
        await client.call("/data/mash/put", mash={"id": "m"}, definitionIds=["image-1"])
        definition, mash = b'{"id" :  "image-1"}', b'{"id" :  "m", "no JSON": }'
        with closing(sqlite3.connect(tmp_path / "mashtun.db")) as database, database:
            for name, text in (("image-1", definition), ("m", mash)):
                database.execute("UPDATE documents SET json = ? WHERE id = ?", (text, name))
        whole = b'{"mash":' + mash + b',"definitions":[' + definition + b"]}"
        assert (await client.post("/data/mash/get", id="m")).body == whole
        assert whole[:-1] in (await client.post("/data/mash/default")).body
        assert (await client.post("/data/mash/retrieve")).body == b'{"described":[' + mash + b"]}"
        assert (await client.post("/data/definition/get", id="image-1")).body == b'{"definition":' + definition + b"}"
        await client.call("/data/cast/put", cast={**cast({"id": "m"}), "id": "c"})
        found = (await client.post("/data/cast/get", id="c")).body
        assert mash in found
        assert found.endswith(b',"definitions":[' + definition + b"]}")


async def test_an_id_is_kept_unless_it_is_temporary_or_missing(client):
    put = "/data/mash/put"
    assert await client.call(put, mash={"id": "mine-1", "label": "a"}) == {"temporaryIdLookup": {}}
    assert await client.call(put, mash={"label": "b"}) == {"temporaryIdLookup": {}}
    assert await client.call(put, mash={"id": "", "label": "c"}) == {"temporaryIdLookup": {}}
    first, second, third = (await client.call("/data/mash/retrieve"))["described"]
    assert (first["id"], second["label"], third["label"]) == ("mine-1", "b", "c")
    assert UUID.fullmatch(second["id"])
    for name in ("../x", "a/b", "", ".x", 5, None, ["x"], "x" * 129, "ä", "a b"):
        answer = await client.post(put, mash={"id": name, "label": "d"})
        assert ("error" in answer.json) == (name not in ("", None)), name


async def test_a_put_merges_and_keeps_when_it_was_made(client):
    name = await saved(client)
    before = (await client.call("/data/mash/get", id=name))["mash"]
    await client.call("/data/mash/put", mash={"id": name, "rendering": f"{name}/r/video.mp4"})
    await client.call(
        "/data/mash/put", mash={"id": name, "createdAt": "", "label": "other", "userId": "bob", "icon": "i"}
    )
    await client.call("/data/mash/put", mash={"id": name, "createdAt": "2001-01-01T00:00:00.000Z"})
    after = (await client.call("/data/mash/get", id=name))["mash"]
    assert after == {**before, "rendering": f"{name}/r/video.mp4", "label": "other", "icon": "i"}
    assert len((await client.call("/data/mash/retrieve"))["described"]) == 1


async def test_the_newest_is_the_default(client):
    for name, created in (("b", "2021"), ("c", "2023"), ("a", "2022")):
        await client.call("/data/mash/put", mash={"id": name, "createdAt": f"{created}-01-01T00:00:00.000Z"})
    assert (await client.call("/data/mash/default"))["mash"]["id"] == "c"
    described = (await client.call("/data/mash/retrieve", partial=True))["described"]
    assert [each["id"] for each in described] == ["b", "c", "a"]  # as they came
    await client.call("/data/mash/put", mash={"id": "d", "createdAt": "yesterday"})  # is now
    assert (await client.call("/data/mash/default"))["mash"]["id"] == "d"


async def test_what_is_not_there_is_said(client):
    answer = await client.post("/data/mash/get", id="nosuch")
    assert answer.json == {"mash": {}, "definitions": [], "error": "Could not find mash nosuch"}
    answer = await client.post("/data/cast/get", id="nosuch")
    assert answer.json == {"cast": {}, "definitions": [], "error": "Could not find cast nosuch"}
    answer = await client.post("/data/definition/get", id="nosuch")
    assert answer.json == {"definition": {}, "error": "Could not find definition nosuch"}
    for kind in ("mash", "cast", "definition"):
        answer = await client.post(f"/data/{kind}/delete", id="nosuch")
        assert answer.json == {"error": f"Could not find {kind.capitalize()} with id: nosuch"}


async def test_requests_that_make_no_sense_have_one_sentence(client):
    for path, members, empty in (
        ("/data/mash/put", {}, {"temporaryIdLookup": {}}),
        ("/data/mash/put", {"mash": []}, {"temporaryIdLookup": {}}),
        ("/data/mash/put", {"mash": {}, "definitionIds": {}}, {"temporaryIdLookup": {}}),
        ("/data/mash/put", {"mash": {}, "definitionIds": [1]}, {"temporaryIdLookup": {}}),
        ("/data/cast/put", {"cast": 5}, {"temporaryIdLookup": {}}),
        ("/data/cast/put", {"cast": {"layers": {}}}, {"temporaryIdLookup": {}}),
        ("/data/cast/put", {"cast": {}, "definitionIds": []}, {"temporaryIdLookup": {}}),
        ("/data/mash/get", {}, {"mash": {}, "definitions": []}),
        ("/data/mash/get", {"id": 5}, {"mash": {}, "definitions": []}),
        ("/data/mash/delete", {}, {}),
        ("/data/mash/retrieve", {"partial": "yes"}, {"described": []}),
        ("/data/definition/retrieve", {"types": "image"}, {"definitions": []}),
        ("/data/definition/put", {"definition": {"id": "a"}}, {"id": ""}),
        ("/data/definition/put", {"definition": {"id": "a", "type": "theme"}}, {"id": ""}),
        ("/data/definition/put", {"definition": {"id": "a", "type": 5}}, {"id": ""}),
    ):
        answer = await client.post(path, **members)
        assert answer.error
        assert {key: value for key, value in answer.json.items() if key != "error"} == empty
        if path == "/data/definition/put":
            assert "." not in answer.error


async def test_a_mash_that_nests_deep_is_kept_up_to_a_limit(client):
    def nested(levels):
        return json.loads("[" * levels + '"x"' + "]" * levels)

    await client.call("/data/mash/put", mash={"id": "deep", "nested": nested(510)}, definitionIds=[])
    assert (await client.call("/data/mash/get", id="deep"))["mash"]["nested"] == nested(510)
    answer = await client.post("/data/mash/put", mash={"id": "deeper", "nested": nested(511)}, definitionIds=[])
    assert (answer.status, answer.json["error"]) == (400, "$: nested deeper than 512 levels")


# --- definitions -----------------------------------------------------------------------------------------------------


async def test_a_mash_comes_with_its_definitions_in_their_order(client):
    for number in (3, 1, 2):
        await client.call("/data/definition/put", definition={**IMAGE, "id": f"image-{number}"})
    built_in = "com.moviemasher.clip.default"
    put = "/data/mash/put"
    await client.call(put, mash={**MASH, "id": "m"}, definitionIds=["image-2", built_in, "image-1", "image-2"])
    assert await needed(client, "m") == ["image-2", "image-1"]
    await client.call(put, mash={"id": "m", "label": "other"})
    assert await needed(client, "m") == ["image-2", "image-1"]
    await client.call(put, mash={"id": "m"}, definitionIds=["image-1", "image-3"])
    assert await needed(client, "m") == ["image-1", "image-3"]
    assert await needed(client, "m", "/data/mash/default") == ["image-1", "image-3"]
    await client.call(put, mash={"id": "m"}, definitionIds=[])
    assert await needed(client, "m") == []


async def needed(client, name, path="/data/mash/get"):
    return [each["id"] for each in (await client.call(path, id=name))["definitions"]]


async def test_definitions_are_put_and_found_by_type(client):
    put, retrieve = "/data/definition/put", "/data/definition/retrieve"
    assert await client.call(put, definition=IMAGE) == {"id": "image-1"}
    made = (await client.call(put, definition={**IMAGE, "id": "temporary-7", "type": "audio"}))["id"]
    assert UUID.fullmatch(made)
    found = (await client.call(retrieve, types=["image", "video"]))["definitions"]
    assert [{key: each[key] for key in IMAGE} for each in found] == [IMAGE]
    found = (await client.call(retrieve, types=["audio", "image"]))["definitions"]
    assert [each["id"] for each in found] == ["image-1", made]
    assert await client.call(retrieve, types=[]) == await client.call(retrieve) == {"definitions": []}
    partial = (await client.call(retrieve, types=["image"], partial=True))["definitions"]
    assert partial == [{"id": "image-1", "label": "007", "icon": None}]


async def test_a_definition_is_updated_without_type_and_date(client):
    put, get = "/data/definition/put", "/data/definition/get"
    await client.call(put, definition=IMAGE)
    before = (await client.call(get, id="image-1"))["definition"]
    assert await client.call(put, definition={"id": "image-1", "url": "other", "createdAt": ""}) == {"id": "image-1"}
    assert (await client.call(get, id="image-1"))["definition"] == {**before, "url": "other"}
    await client.call(put, definition={"id": "image-1", "type": "video"})
    assert (await client.call("/data/definition/retrieve", types=["video"]))["definitions"][0]["url"] == "other"


async def test_a_definition_in_use_stays(client):
    await client.call("/data/definition/put", definition=IMAGE)
    for name in ("m1", "m2"):
        await client.call("/data/mash/put", mash={"id": name}, definitionIds=["image-1"])
    answer = await client.post("/data/definition/delete", id="image-1")
    assert answer.json == {"mashIds": ["m1", "m2"], "error": "Referenced by 2 mash(es)"}
    for name in ("m1", "m2"):
        assert await client.call("/data/mash/delete", id=name) == {}
    assert await client.call("/data/definition/delete", id="image-1") == {}
    assert "error" in (await client.post("/data/definition/get", id="image-1")).json


# --- casts -----------------------------------------------------------------------------------------------------------


def cast(*layers):
    return {
        "id": "temporary-9",
        "label": "Cast",
        "layers": [{"type": "mash", "triggers": [], "mash": each} for each in layers],
    }


async def test_a_new_cast_keeps_its_mashes_and_their_definitions(client):
    await client.call("/data/definition/put", definition=IMAGE)
    deep = {"type": "folder", "layers": [{"type": "mash", "mash": {**MASH, "id": "temporary-2", "label": "deep"}}]}
    document = cast({**MASH, "id": "temporary-1", "label": "top"}, {**MASH, "id": "third", "label": "third"})
    document["layers"].insert(1, deep)
    lists = {"temporary-1": ["image-1"], "temporary-2": ["com.moviemasher.clip.default", "image-1"], "third": []}
    lookup = (await client.call("/data/cast/put", cast=document, definitionIds=lists))["temporaryIdLookup"]
    assert lookup.keys() == {"temporary-9", "temporary-1", "temporary-2"}
    for path in ("/data/cast/get", "/data/cast/default"):
        found = await client.call(path, id=lookup["temporary-9"])
        first, folder, third = found["cast"]["layers"]
        assert (first["mash"]["id"], first["mash"]["tracks"]) == (lookup["temporary-1"], MASH["tracks"])
        assert folder["layers"][0]["mash"]["label"] == "deep"
        assert third["mash"]["label"] == "third"
        assert [each["id"] for each in found["definitions"]] == ["image-1"]
    assert await needed(client, lookup["temporary-2"]) == ["image-1"]
    bare = (await client.call("/data/cast/retrieve"))["described"][0]
    assert [layer.get("mash") for layer in bare["layers"]] == [{"id": lookup["temporary-1"]}, None, {"id": "third"}]
    described = (await client.call("/data/cast/retrieve", partial=True))["described"]
    assert described == [{"id": lookup["temporary-9"], "label": "Cast", "icon": None}]


async def test_mashes_of_a_cast_are_listed_there_only(client):
    name = await saved(client)
    document = cast({"id": name}, {"id": name})
    lookup = (await client.call("/data/cast/put", cast=document))["temporaryIdLookup"]
    assert lookup.keys() == {"temporary-9"}
    assert (await client.call("/data/mash/retrieve", partial=True))["described"] == []
    assert (await client.call("/data/mash/default"))["mash"] == {}
    assert (await client.call("/data/mash/get", id=name))["mash"]["tracks"] == MASH["tracks"]
    answer = await client.post("/data/mash/delete", id=name)
    assert answer.json == {"castIds": [lookup["temporary-9"]], "error": "Referenced by 1 cast(s)"}
    await client.call("/data/cast/put", cast={"id": lookup["temporary-9"], "label": "other"})  # without layers
    assert (await client.call("/data/mash/retrieve", partial=True))["described"] == []
    assert await client.call("/data/cast/delete", id=lookup["temporary-9"]) == {}
    assert [each["id"] for each in (await client.call("/data/mash/retrieve"))["described"]] == [name]
    assert await client.call("/data/mash/delete", id=name) == {}


async def test_a_cast_that_is_put_again_has_the_mashes_it_says(client):
    first, second = await saved(client, label="1"), await saved(client, label="2")
    name = (await client.call("/data/cast/put", cast=cast({"id": first}, {"id": second})))["temporaryIdLookup"][
        "temporary-9"
    ]
    await client.call("/data/cast/put", cast={**cast({"id": second, "label": "new"}), "id": name})
    assert [each["id"] for each in (await client.call("/data/mash/retrieve"))["described"]] == [first]
    layers = (await client.call("/data/cast/get", id=name))["cast"]["layers"]
    assert [(each["mash"]["id"], each["mash"]["label"]) for each in layers] == [(second, "new")]


async def test_a_cast_is_put_whole_or_not_at_all(client):
    document = cast({**MASH, "id": "temporary-1"}, {"id": "nosuch"})
    answer = await client.post("/data/cast/put", cast=document)
    assert answer.error == 'no mash "nosuch"'
    assert await client.call("/data/mash/retrieve") == await client.call("/data/cast/retrieve") == {"described": []}
    deep = {"layers": []}
    for _ in range(40):
        deep = {"layers": [deep]}
    assert "folders" in (await client.post("/data/cast/put", cast=deep)).error


# --- users -----------------------------------------------------------------------------------------------------------


async def test_users_see_their_own_only(client):
    bob = Client(client.port, "bob")
    await client.call("/data/definition/put", definition=IMAGE)
    await client.call("/data/mash/put", mash={**MASH, "id": "m"}, definitionIds=["image-1"])
    await client.call("/data/cast/put", cast={**cast({"id": "m"}), "id": "c"})
    for kind, name in (("mash", "m"), ("cast", "c"), ("definition", "image-1")):
        assert "Could not find" in (await bob.post(f"/data/{kind}/get", id=name)).error
        assert (await bob.post(f"/data/{kind}/delete", id=name)).json == {"error": "403"}
    answer = await bob.post("/data/definition/put", definition={**IMAGE, "label": "mine"})
    assert answer.json == {"id": "", "error": "403"}
    assert (await bob.post("/data/mash/put", mash={"id": "m", "label": "mine"})).error
    assert (await bob.post("/data/cast/put", cast={"id": "c", "label": "mine"})).error
    assert (await bob.post("/data/cast/put", cast=cast({"id": "m"}))).error == 'no mash "m"'
    for path, empty in (("mash/default", {"mash": {}, "definitions": []}), ("cast/retrieve", {"described": []})):
        assert await bob.call(f"/data/{path}") == empty
    assert await bob.call("/data/definition/retrieve", types=["image"]) == {"definitions": []}
    await bob.call("/data/mash/put", mash={"id": "b"}, definitionIds=["image-1"])  # names what is not his
    assert await needed(bob, "b") == []
    await client.call("/data/cast/delete", id="c")
    await client.call("/data/mash/delete", id="m")
    assert await client.call("/data/definition/delete", id="image-1") == {}  # bob's mash does not keep it
    assert (await client.call("/data/mash/retrieve"))["described"] == []


async def test_many_users_at_once_have_their_own(client):
    async def work(number):
        user = Client(client.port, f"user-{number}")
        for step in range(4):
            await user.call("/data/mash/put", mash={**MASH, "label": f"{number}-{step}"}, definitionIds=[])
        labels = [each["label"] for each in (await user.call("/data/mash/retrieve", partial=True))["described"]]
        assert labels == [f"{number}-{step}" for step in range(4)]

    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(work, number)


# --- on disk ---------------------------------------------------------------------------------------------------------


async def test_what_is_answered_is_on_disk(tmp_path):
    async with masher(tmp_path) as port:
        name = await saved(Client(port))
    async with masher(tmp_path) as port:
        assert (await Client(port).call("/data/mash/default"))["mash"]["id"] == name


async def test_a_mash_of_several_mb_is_kept(client):
    clips = [{"contentId": f"image-{number}", "label": "x" * 1000} for number in range(5000)]
    name = await saved(client, tracks=[{"clips": clips}])
    assert (await client.call("/data/mash/get", id=name))["mash"]["tracks"] == [{"clips": clips}]


@pytest.fixture
def kept(tmp_path):
    found = Documents(tmp_path / "mashtun.db")
    yield found
    found.close()


def test_a_document_does_not_grow_without_end(kept, monkeypatch):
    monkeypatch.setattr(documents, "MAX_BYTES", 1000)
    kept.put_mash("ada", {"id": "m", "a": "x" * 600})
    with pytest.raises(InvalidMash, match="1000"):
        kept.put_mash("ada", {"id": "m", "b": "x" * 600})
    assert "b" not in kept.get("mash", "ada", "m").document


def test_all_of_them_may_be_too_long_for_one_answer(kept, monkeypatch):
    monkeypatch.setattr(documents, "MAX_ANSWER", 1000)
    for name in ("a", "b"):
        kept.put_mash("ada", {"id": name, "x": "x" * 600})
    with pytest.raises(Overloaded, match="partial"):
        kept.retrieve("mash", "ada")
    assert [each["id"] for each in kept.retrieve("mash", "ada", partial=True)] == ["a", "b"]


def test_a_cast_is_not_longer_than_an_answer_may_be(kept, monkeypatch):
    mashes = [{"id": name, "x": "x" * 600} for name in ("a", "b")]
    kept.put_cast("ada", {**cast(*mashes), "id": "c"}, {"a": ["d"]})
    assert len(kept.get("cast", "ada", "c").document["layers"]) == 2
    monkeypatch.setattr(documents, "MAX_ANSWER", 1000)
    with pytest.raises(Overloaded, match="1000"):
        kept.get("cast", "ada", "c")


def test_documents_have_a_quota(tmp_path):
    kept = Documents(tmp_path / "mashtun.db", quota=1 << 20)
    try:
        for _ in range(3):  # again and again the same
            kept.put_mash("ada", {"id": "m", "x": "x" * 600_000})
        with pytest.raises(Overloaded, match="1 MB"):
            kept.put_mash("ada", {"id": "n", "x": "x" * 600_000})
        kept.put_mash("bob", {"id": "n", "x": "x" * 600_000})
        kept.delete("mash", "ada", "m")
        kept.put_mash("ada", {"id": "o", "x": "x" * 600_000})
    finally:
        kept.close()


def test_everybodys_definitions_are_read_by_all_and_changed_by_none(kept):
    kept.put_definition("", {"id": "com.example.shape", "type": "container"})
    kept.put_mash("ada", {"id": "m"}, ["com.example.shape"])
    (found,) = kept.retrieve("definition", "ada", types=["container"])
    assert json.loads(bytes(found))["id"] == "com.example.shape"
    assert [each["id"] for each in kept.get("mash", "ada", "m").definitions] == ["com.example.shape"]
    for attempt in (
        lambda: kept.put_definition("ada", {"id": "com.example.shape", "label": "mine"}),
        lambda: kept.delete("definition", "ada", "com.example.shape"),
    ):
        with pytest.raises(Exception, match="403"):
            attempt()


def test_a_database_that_has_only_jobs_gets_what_is_missing(tmp_path, monkeypatch):
    path = tmp_path / "mashtun.db"
    monkeypatch.setattr("api.schema.VERSION", "0001")
    monkeypatch.setattr(
        "alembic.command.upgrade", partial(lambda upgrade, config, _: upgrade(config, "0001"), command.upgrade)
    )
    with closing(Database(path)) as database, database.read() as connection:
        assert connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar() == "0001"
    monkeypatch.undo()
    with closing(Documents(path)) as kept:
        kept.put_mash("ada", {"id": "m"})
    with closing(Documents(path)) as kept:
        assert kept.get("mash", "ada", "m").document["id"] == "m"


def test_nothing_is_left_of_what_was_deleted(kept, tmp_path):
    kept.put_definition("ada", IMAGE)
    kept.put_mash("ada", MASH | {"id": "m"}, ["image-1"])
    kept.put_cast("ada", cast({"id": "m"}) | {"id": "c"})
    for kind, name in (("cast", "c"), ("mash", "m"), ("definition", "image-1")):
        assert kept.delete(kind, "ada", name) == []
    with kept.database.read() as connection:
        for table in ("documents", "relations"):
            assert connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar() == 0


def test_readers_see_whole_steps_only(kept):
    kept.put_mash("ada", {"id": "m", "n": 0}, ["d0"])
    for number in range(30):
        kept.put_definition("ada", {"id": f"d{number}", "type": "image"})
    over, wrong = threading.Event(), []

    def read():
        while not over.is_set():
            found = kept.get("mash", "ada", "m")
            wrong.extend([found] if [each["id"] for each in found.definitions] != [f"d{found.document['n']}"] else [])

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(30):
        kept.put_mash("ada", {"id": "m", "n": number}, [f"d{number}"])
    over.set()
    reader.join(10)
    assert not wrong
