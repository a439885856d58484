"""Streams, recordings and pushes through the door, on a real engine: real packets, real files, a real RTMP push."""

import io

import av
import pytest
import trio

from api.app import create_app
from engine import Engine, EventSpec, MixerSpec, Raster, Settings
from tests.media import plane, read_cells

CAM = "/streams/1.0/live/cam"
PATTERN = {"pattern": "count?size=128x72&rate=25"}
SOON = 30  # s; longer than any of these tests takes


@pytest.fixture
async def engine(tmp_path, nursery):
    made = Engine(Settings(data=str(tmp_path), rtmp_port=0), strict=True)
    await nursery.start(made.run)
    return made


@pytest.fixture
def client(engine):
    return create_app(engine).test_client()


async def json_of(request, status=200):
    """The body of an answer with that status."""
    with trio.fail_after(SOON):
        answer = await request
    assert answer.content_type == "application/json"
    body = await answer.get_json()
    assert answer.status_code == status, body
    return body


async def published(engine, name):
    """Until a stream has pictures and sound."""
    with trio.fail_after(SOON):
        while not any(each.name == name and each.video and each.audio for each in engine.streams()):
            await trio.sleep(0.01)


async def test_nothing_is_there(client, engine):
    assert await json_of(client.get("/streams/1.0/")) == []
    assert await json_of(client.get("/streams/1.0")) == []
    assert await json_of(client.get(CAM), 404) == {"error": 'no stream "live/cam"'}
    assert await json_of(client.delete(CAM), 404) == {"error": 'no stream "live/cam"'}


async def test_a_pattern_comes_and_goes(client, engine):
    made = await json_of(client.put(CAM, json=PATTERN), 201)
    assert made["name"] == "live/cam"
    await published(engine, "live/cam")
    there = await json_of(client.get(CAM))
    assert (there["publisher"], there["peer"]) == ("pattern", PATTERN["pattern"])
    assert (there["video"]["codec"], there["video"]["width"], there["video"]["height"]) == ("h264", 128, 72)
    assert there["audio"]["codec"] == "aac"
    assert there["ageMs"] < 5000
    assert there["readers"] == there["dropped"] == 0
    assert there["pull"]["name"] == "live/cam"
    assert there["recordings"] == there["pushes"] == []
    assert [each["name"] for each in await json_of(client.get("/streams/1.0/"))] == ["live/cam"]
    await json_of(client.put(CAM, json={"pattern": "bars?size=64x36"}), 200)
    await published(engine, "live/cam")
    assert (await json_of(client.get(CAM)))["peer"] == "bars?size=64x36"
    assert await json_of(client.delete(CAM)) == {}
    await json_of(client.get(CAM), 404)


async def test_a_file_is_pulled(client, engine, media):
    made = await json_of(client.put(CAM, json={"url": str(media.path("plain")), "loop": True}), 201)
    assert made["pull"]["name"] == "live/cam"
    await published(engine, "live/cam")
    there = await json_of(client.get(CAM))
    assert there["publisher"] == "pull"
    assert (there["video"]["width"], there["video"]["height"]) == (64, 36)


async def test_a_source_that_is_away_is_listed_with_the_reason(client, engine, tmp_path):
    await json_of(client.put(CAM, json={"url": str(tmp_path / "nosuch.mp4")}), 201)
    with trio.fail_after(SOON):
        while not (there := await json_of(client.get(CAM)))["pull"]["error"]:
            await trio.sleep(0.01)
    assert there["publisher"] is None
    assert there["video"] is None
    assert [each["name"] for each in await json_of(client.get("/streams/1.0/"))] == ["live/cam"]
    assert await json_of(client.delete(CAM)) == {}


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ("{}", "url"),
        ('{"url": "a.mp4", "pattern": "bars"}', "url"),
        ('{"url": ""}', "url"),
        ('{"url": 7}', "url"),
        (r'{"url": "film.mp4\u0000.txt"}', "url has a NUL character"),
        ('{"pattern": "bars", "loop": "often"}', "loop"),
        ("[]", "object"),
        ("{", "JSON"),
        ("", "JSON"),
        ('{"pattern": "bars", "pattern": "count"}', "pattern"),
        ('{"pattern": "count?size=16x16&rate=240"}', "pattern: frame rate 240 is not within 1…120"),
    ],
)
async def test_a_wrong_body(client, engine, body, word):
    told = await json_of(client.put(CAM, data=body), 400)
    assert word in told["error"]
    assert await json_of(client.get("/streams/1.0/")) == []


@pytest.mark.parametrize("name", ["cam/recordings", "cam/recordings/1", "cam/pushes", "a/b/pushes/7"])
async def test_no_stream_is_made_where_no_route_could_end_it(client, name):
    told = await json_of(client.put(f"/streams/1.0/{name}", json=PATTERN), 400)
    assert f'as "{name}"' in told["error"]
    assert await json_of(client.get("/streams/1.0/")) == []


@pytest.mark.parametrize("name", ["recordings", "pushes/7", "cam/recordings2", "cam/recordings/1/x"])
async def test_a_stream_is_made_where_a_route_can_end_it(client, name):
    await json_of(client.put(f"/streams/1.0/{name}", json=PATTERN), 201)
    assert (await json_of(client.get(f"/streams/1.0/{name}")))["name"] == name
    assert await json_of(client.delete(f"/streams/1.0/{name}")) == {}


@pytest.mark.parametrize("name", ["live/%2e%2e/cam", "live//cam", "live/a%5cb", "live/" + 1100 * "x"])
async def test_a_wrong_name(client, engine, name):
    assert "name" in (await json_of(client.put(f"/streams/1.0/{name}", json=PATTERN), 400))["error"]


async def test_a_mix_is_not_replaced_and_not_removed(client, engine):
    event = EventSpec(name="show", path="live", stream_name="mix", mixer=MixerSpec(raster=Raster(64, 36)))
    await engine.create_event(event)
    assert "mix" in (await json_of(client.put("/streams/1.0/live/mix", json=PATTERN), 409))["error"]
    assert "show" in (await json_of(client.delete("/streams/1.0/live/mix"), 409))["error"]
    assert (await json_of(client.get("/streams/1.0/live/mix")))["publisher"] == "mix"


async def recorded(client, engine, name="live/cam"):
    """A recording of some pictures that has ended."""
    path = f"/streams/1.0/{name}"
    await json_of(client.put(path, json=PATTERN), 201)
    await published(engine, name)
    begun = await json_of(client.post(f"{path}/recordings"), 201)
    assert begun["stream"] == name
    with trio.fail_after(SOON):
        while (await json_of(client.get(f"{path}/recordings")))[0]["bytes"] < 2000:
            await trio.sleep(0.02)
    return await json_of(client.delete(f"{path}/recordings/{begun['id']}"))


async def test_a_recording(client, engine):
    done = await recorded(client, engine)
    assert done["state"] == "done"
    assert done["error"] == ""
    assert done["durationMs"] > 0
    assert await json_of(client.get(f"{CAM}/recordings")) == [done]
    assert (await json_of(client.get(CAM)))["recordings"] == [done]
    answer = await client.get(f"/recordings/{done['file']}")
    assert answer.status_code == 200
    assert answer.content_type == "video/mp4"
    data = await answer.get_data()
    assert len(data) == done["bytes"] == answer.content_length
    with av.open(io.BytesIO(data)) as film:
        shown = [read_cells(plane(frame)) for frame in film.decode(video=0)]
    assert shown
    assert shown == list(range(shown[0], shown[0] + len(shown)))


async def test_ranges_of_a_recording(client, engine):
    path = f"/recordings/{(await recorded(client, engine))['file']}"
    whole = await (await client.get(path)).get_data()
    size = len(whole)
    for given, start, stop in (
        ("0-0", 0, 1),
        ("10-19", 10, 20),
        ("10-", 10, size),
        ("-7", size - 7, size),
        (f"{size - 1}-", size - 1, size),
        (f"5-{size + 1000}", 5, size),
        (f"-{size + 1000}", 0, size),
    ):
        answer = await client.get(path, headers={"Range": f"bytes={given}"})
        assert answer.status_code == 206, given
        assert await answer.get_data() == whole[start:stop], given
        assert answer.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{size}"
        assert answer.content_length == stop - start
    for given in (f"bytes={size}-", f"bytes={size + 5}-{size + 9}", "bytes=-0"):
        answer = await client.get(path, headers={"Range": given})
        assert answer.content_type == "application/json"
        assert (answer.status_code, answer.headers["Content-Range"]) == (416, f"bytes */{size}"), given
    for given in ("bytes=9-2", "bytes=0-1,3-4", "lines=0-1", "bytes=abc", "nonsense"):
        answer = await client.get(path, headers={"Range": given})
        assert (answer.status_code, await answer.get_data()) == (200, whole), given
    async with client.request(path, method="HEAD") as connection:
        await connection.send_complete()
    assert connection.status_code == 200
    assert connection.headers["Content-Length"] == str(size)
    assert connection.headers["Accept-Ranges"] == "bytes"
    assert connection.response_data == b""
    changed, tag = (connection.headers[name] for name in ("Last-Modified", "ETag"))
    for unchanged in ({"If-Modified-Since": changed}, {"If-None-Match": tag}):
        answer = await client.get(path, headers=unchanged)
        assert (answer.status_code, await answer.get_data()) == (304, b"")


async def test_a_name_is_never_a_path(client, engine, tmp_path):
    (tmp_path / "recordings" / "folder").mkdir(parents=True)
    (tmp_path / "secret.mp4").write_bytes(b"secret")
    (tmp_path / "recordings" / ".hidden").write_bytes(b"secret")
    (tmp_path / "recordings" / "link.mp4").symlink_to(tmp_path / "secret.mp4")
    for name in ("nosuch.mp4", "..%2fsecret.mp4", "%2e%2e/secret.mp4", "folder", ".hidden", "link.mp4", "%00", "."):
        assert set(await json_of(client.get(f"/recordings/{name}"), 404)) == {"error"}


@pytest.mark.parametrize("name", [".studio/cam", "..."])
async def test_a_stream_whose_name_begins_with_a_dot_is_recorded_into_a_file_that_can_be_fetched(client, engine, name):
    done = await recorded(client, engine, name)
    answer = await client.get(f"/recordings/{done['file']}")
    assert (answer.status_code, len(await answer.get_data())) == (200, done["bytes"])


async def test_all_recordings_of_a_stream_end_at_once(client, engine):
    await json_of(client.put(CAM, json=PATTERN), 201)
    await published(engine, "live/cam")
    begun = [await json_of(client.post(f"{CAM}/recordings"), 201) for _ in range(2)]
    assert begun[0]["id"] != begun[1]["id"]
    ended = await json_of(client.delete(f"{CAM}/recordings"))
    assert [each["id"] for each in ended] == [each["id"] for each in begun]
    assert {each["state"] for each in ended} <= {"done", "failed"}
    assert await json_of(client.delete(f"{CAM}/recordings")) == ended


async def test_what_cannot_be_recorded(client, engine):
    await json_of(client.post(f"{CAM}/recordings"), 404)
    await json_of(client.delete(f"{CAM}/recordings/7"), 404)
    assert await json_of(client.get(f"{CAM}/recordings")) == []


async def test_a_push_arrives(client, engine):
    await json_of(client.put(CAM, json=PATTERN), 201)
    url = f"rtmp://127.0.0.1:{engine.rtmp_port}/copy/cam"
    begun = await json_of(client.post(f"{CAM}/pushes", json={"url": url}), 201)
    assert (begun["stream"], begun["url"]) == ("live/cam", url)
    await published(engine, "copy/cam")
    there = await json_of(client.get(f"{CAM}/pushes"))
    assert [each["id"] for each in there] == [begun["id"]]
    assert there[0]["state"] == "pushing"
    assert (await json_of(client.get(CAM)))["pushes"][0]["id"] == begun["id"]
    assert await json_of(client.delete(f"{CAM}/pushes/{begun['id']}")) == {}
    assert await json_of(client.get(f"{CAM}/pushes")) == []
    await json_of(client.delete(f"{CAM}/pushes/{begun['id']}"), 404)


@pytest.mark.parametrize("body", ["{}", '{"url": "http://host/app/name"}', '{"url": "rtmp://host"}', '{"url": null}'])
async def test_where_nothing_can_be_pushed_to(client, engine, body):
    assert "url" in (await json_of(client.post(f"{CAM}/pushes", data=body), 400))["error"].lower()
    assert await json_of(client.get(f"{CAM}/pushes")) == []


async def test_long_names_and_their_outputs(client, engine):
    long = "/streams/1.0/a/b/recordings/c/d"
    await json_of(client.put(long, json=PATTERN), 201)
    await published(engine, "a/b/recordings/c/d")
    assert (await json_of(client.get(long)))["name"] == "a/b/recordings/c/d"
    begun = await json_of(client.post(f"{long}/recordings"), 201)
    assert begun["stream"] == "a/b/recordings/c/d"
    assert "/" not in begun["file"]
    await json_of(client.delete(f"{long}/recordings/{begun['id']}"))
