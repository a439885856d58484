"""Movie Masher's stock client at a whole server: start, import, save, reload, render, cast; two users at once.

The client here does what the one in browsers does, in its order: a slash behind every path, no body where nothing is
asked for, callbacks done as they are told, files fetched as a page fetches them.
"""

import base64
import http.client
import io
import json
import math
import re
import secrets
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import av
import numpy as np
import pytest

from tests.flows.live import PATIENCE, Server
from tests.media import Audio, Video, encode

pytestmark = pytest.mark.flow

JSON = {"Content-Type": "application/json"}
BETWEEN = 0.1  # seconds; the client waits 2 between one callback and the next
PREVIEW_HEIGHT = 108
SETTINGS = {"MASHTUN_PREVIEW_SIZE": f"192x{PREVIEW_HEIGHT}", "MASHTUN_OUTPUT_SIZE": "320x180", "MASHTUN_WORKER": "2"}


class Masher:
    """One page of the client in one user's browser."""

    def __init__(self, port, user, password="pass"):
        self.port = port
        known = base64.b64encode(f"{user}:{password}".encode()).decode()
        self.credentials = {"Authorization": f"Basic {known}"}
        self.callbacks = {}

    def exchange(self, method, path, body=None, headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def post(self, path, body, headers):
        """The browser answers the challenge; then every answer is JSON."""
        status, told, _ = self.exchange("POST", f"{path}/", body, headers)
        assert (status, told["www-authenticate"][:5]) == (401, "Basic")
        status, told, answer = self.exchange("POST", f"{path}/", body, headers | self.credentials)
        assert (status, told["content-type"]) == (200, "application/json; charset=utf-8")
        return json.loads(answer)

    def ask(self, path, **request):
        """A request that the client composes: it first asks where to send it, once a page."""
        if path not in self.callbacks:
            asked = json.dumps({"id": path, "version": "5.1.1"})
            self.callbacks |= self.post("/api/callbacks", asked, JSON)["apiCallbacks"]
        body = json.dumps({**request, "version": "5.1.1"}) if request else None
        return self.post(self.callbacks[path]["endpoint"]["prefix"], body, JSON)

    def execute(self, callback, file=None):
        """A request that an answer told to do, exactly as told."""
        request = callback["request"]
        headers = request.get("headers", JSON)
        body = json.dumps(request["body"])
        if headers["Content-Type"] == "multipart/form-data":
            headers, body = multipart(request["body"], file)
        return self.post(callback["endpoint"]["prefix"], body, headers)

    def follow(self, callback):
        """All that follows: (the last callback that was done and what it gave, all totals that were told)."""
        told = []
        while True:
            answer = self.execute(callback)
            told.append({key: value for key, value in answer.items() if isinstance(value, dict) and "total" in value})
            if "error" in answer or "apiCallback" not in answer:
                return callback, answer, [each for each in told if each]
            callback = answer["apiCallback"]
            time.sleep(BETWEEN)

    def load(self):
        """The start of a page: what it shows."""
        self.servers = self.ask("/api/servers")
        assert self.servers["data"]["temporaryIdPrefix"] == "temporary-"
        assert self.servers["file"]["prefix"].startswith("/media/")
        self.ask("/data/definition/retrieve", types=["container"])
        found = self.ask("/data/mash/default")
        self.ask("/data/mash/retrieve", partial=True)
        return found

    def media(self, url):
        """A file as a page fetches it: without credentials."""
        path = self.servers["file"]["prefix"] + url
        status, headers, content = self.exchange("GET", path)
        assert status == 200, path
        return headers["content-type"], content

    def bring(self, name, kind, content):
        """Imports a file: the definition that is saved for it."""
        told = self.ask("/rendering/upload", name=name, type=kind, size=len(content))
        assert self.execute(told["fileApiCallback"], (told["fileProperty"], name, content)) == {}
        last, answer, _ = self.follow(told["apiCallback"])
        assert last["endpoint"]["prefix"] == "/data/definition/put", answer
        assert answer == {"id": told["id"]}
        return last["request"]["body"]["definition"]


def multipart(fields, file):
    boundary = f"----WebKitFormBoundary{secrets.token_hex(8)}"
    head = "".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    )
    field, filename, content = file
    head += f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"; filename="{filename}"\r\n'
    head += "Content-Type: application/octet-stream\r\n\r\n"
    body = head.encode() + content + f"\r\n--{boundary}--\r\n".encode()
    return {"Content-Type": f"multipart/form-data; boundary={boundary}"}, body


# --- media -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def brought(tmp_path_factory):
    """What a user has on the disk: (name, kind, content) of an image, a sound and a film with sound."""
    folder = tmp_path_factory.mktemp("brought")
    with av.open(str(folder / "photo.png"), "w", format="image2", options={"update": "1"}) as container:
        stream = container.add_stream("png")
        stream.width, stream.height, stream.pix_fmt = 40, 30, "rgb24"
        picture = np.zeros((30, 40, 3), np.uint8)
        picture[...] = (200, 40, 40)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode(None))
    encode(folder / "music.wav", None, Audio("pcm_s16le", rate=44_100), seconds=2)
    encode(folder / "clip.mp4", Video(size=(64, 36), rate=Fraction(30)), Audio(hz=(1000,)), seconds=2)
    kinds = {"photo.png": "image", "music.wav": "audio", "clip.mp4": "video"}
    return [(name, kind, (folder / name).read_bytes()) for name, kind in kinds.items()]


def decoded(content):
    """(pictures, their format, seconds of sound, loudest sample) of a file."""
    with av.open(io.BytesIO(content)) as container:
        pictures, samples, loudest = [], 0, 0.0
        rate = container.streams.audio[0].rate if container.streams.audio else 1
        for frame in container.decode():
            if isinstance(frame, av.VideoFrame):
                pictures.append(frame)
            else:
                samples += frame.samples
                loudest = max(loudest, float(np.abs(frame.to_ndarray()).max()))
        return pictures, samples / rate, loudest


def check_image(page, definition):
    assert definition.keys() >= {"id", "type", "label", "source", "url", "icon"}
    assert definition["sourceSize"] == {"width": 40, "height": 30}
    assert definition["previewSize"] == {"width": 144, "height": PREVIEW_HEIGHT}
    for url, size in ((definition["url"], (144, PREVIEW_HEIGHT)), (definition["icon"], (72, PREVIEW_HEIGHT // 2))):
        kind, content = page.media(url)
        ((picture,), _, _) = decoded(content)
        assert (kind, picture.width, picture.height) == ("image/png", *size)


def check_sound(page, definition):
    assert (definition["audio"], definition["duration"]) == (True, pytest.approx(2, abs=0.05))
    kind, content = page.media(definition["url"])
    _, seconds, loudest = decoded(content)
    assert kind == "audio/mpeg"
    assert seconds == pytest.approx(2, abs=0.1)
    assert loudest > 0.3


def check_film(page, definition):
    """Every picture that the client will ask for is there, under the name that it computes."""
    assert (definition["type"], definition["fps"], definition["audio"]) == ("videosequence", 10, True)
    assert definition["previewSize"] == {"width": 192, "height": PREVIEW_HEIGHT}
    assert definition["url"].endswith("/")
    last = math.floor(definition["fps"] * definition["duration"]) - 2
    padding = definition.get("padding") or len(str(last))
    for frame in range(last + 1):
        kind, content = page.media(f"{definition['url']}{frame + 1:0{padding}d}.jpg")
        assert kind == "image/jpeg"
    ((picture,), _, _) = decoded(content)
    assert (picture.width, picture.height) == (192, PREVIEW_HEIGHT)
    assert page.media(definition["icon"])[0] == "image/jpeg"
    _, seconds, loudest = decoded(page.media(definition["audioUrl"])[1])
    assert (seconds > 1.9, loudest > 0.3) == (True, True)


# --- what the client does --------------------------------------------------------------------------------------------


def mash_of(image, sound, film, label):
    """A photo for a second, then the film, with music below both, as the client writes it."""
    clip = {"definitionId": "com.moviemasher.clip.default", "type": "clip", "content": {}, "container": {}}
    shown = [
        {**clip, "contentId": image, "frames": 10, "timing": "custom"},
        {**clip, "contentId": film, "frames": 10, "timing": "custom"},
    ]
    heard = [{**clip, "contentId": sound, "containerId": "", "frames": 20, "timing": "custom", "frame": 0}]
    return {
        "label": label, "color": "#000000", "createdAt": "", "quantize": 10, "id": "temporary-0",
        "tracks": [{"dense": True, "clips": shown}, {"dense": False, "clips": heard}],
    }  # fmt: skip


def save(page, definitions, label):
    ids = [each["id"] for each in definitions]
    mash = mash_of(*ids, label)
    built_in = ["com.moviemasher.clip.default", "com.moviemasher.container.default"]
    lookup = page.ask("/data/mash/put", mash=mash, definitionIds=[*ids, *built_in])["temporaryIdLookup"]
    assert lookup.keys() == {"temporary-0"}
    return {**mash, "id": lookup["temporary-0"]}


def render(page, mash, definitions):
    """The address of the film, when it is there and the mash knows it."""
    told = page.ask("/rendering/start", mash=mash, definitions=definitions, outputs=[{"outputType": "video"}])
    last, answer, totals = page.follow(told["apiCallback"])
    assert last["endpoint"]["prefix"] == "/data/mash/put", answer
    assert totals[-1] == {"video": {"total": 1, "completed": 1}}
    rendered = last["request"]["body"]["mash"]
    assert rendered.keys() == {"id", "rendering"}
    assert page.ask("/data/mash/get", id=mash["id"])["mash"]["rendering"] == rendered["rendering"]
    return rendered["rendering"]


def check_rendering(page, url):
    kind, content = page.media(url)
    pictures, seconds, loudest = decoded(content)
    assert kind == "video/mp4"
    assert len(pictures) == 60
    assert {(each.width, each.height, each.format.name) for each in pictures} == {(320, 180, "yuv420p")}
    assert seconds == pytest.approx(2, abs=0.1)
    assert loudest > 0.3
    red, _, blue = pictures[10].to_ndarray(format="rgb24")[90, 160]
    assert (red > 150, blue < 90) == (True, True)  # the photo


def session(server, user, brought):
    """Everything that a user does with a server's Masher page."""
    page = Masher(server.port, user)
    size = {"width": 192, "height": PREVIEW_HEIGHT}
    assert page.load() == {"mash": {}, "definitions": [], "previewSize": size}
    with ThreadPoolExecutor(3) as pool:  # the client brings all at once
        definitions = list(pool.map(lambda file: page.bring(*file), brought))
    for check, definition in zip((check_image, check_sound, check_film), definitions, strict=True):
        check(page, definition)
    label = f"2022 {user}"
    mash = save(page, definitions, label)
    url = render(page, mash, definitions)
    again = Masher(server.port, user)
    found = again.load()
    assert (found["mash"]["label"], found["mash"]["rendering"]) == (label, url)
    assert found["mash"]["tracks"] == mash["tracks"]
    assert [each["id"] for each in found["definitions"]] == [each["id"] for each in definitions]
    assert [each["url"] for each in found["definitions"]] == [each["url"] for each in definitions]
    check_rendering(again, url)
    return again, mash, definitions


def check_own_only(page, mash, definitions):
    """A user's lists have what is the user's; the other's things are not there, by their ids either."""
    described = page.ask("/data/mash/retrieve", partial=True)["described"]
    assert [each["id"] for each in described] == [mash["id"]]
    for definition in definitions:
        found = page.ask("/data/definition/retrieve", types=[definition["type"]])["definitions"]
        assert [each["id"] for each in found] == [definition["id"]]


def check_others_are_closed(page, mash, definitions):
    assert "error" in page.ask("/data/mash/get", id=mash["id"])
    assert page.ask("/data/mash/delete", id=mash["id"]) == {"error": "403"}
    assert page.ask("/data/definition/delete", id=definitions[0]["id"]) == {"error": "403"}
    assert "error" in page.ask("/data/mash/put", mash={"id": mash["id"], "label": "mine"})
    told = page.ask("/rendering/start", mash=mash, definitions=definitions, outputs=[{"outputType": "video"}])
    answer = page.follow(told["apiCallback"])[1] if "apiCallback" in told else told
    assert "error" in answer


def check_cast(page, mash):
    """The Caster page: a mash of old and a new one in a folder, saved and loaded again."""
    new = {"label": "new", "color": "#112233", "quantize": 10, "id": "temporary-2", "tracks": [{"clips": [{}]}]}
    folder = {"type": "folder", "label": "f", "triggers": [], "layers": [{"type": "mash", "triggers": [], "mash": new}]}
    cast = {"id": "temporary-1", "label": "Cast", "layers": [{"type": "mash", "triggers": [], "mash": mash}, folder]}
    needed = {mash["id"]: [clip["contentId"] for track in mash["tracks"] for clip in track["clips"]], "temporary-2": []}
    lookup = page.ask("/data/cast/put", cast=cast, definitionIds=needed)["temporaryIdLookup"]
    assert lookup.keys() == {"temporary-1", "temporary-2"}
    found = page.ask("/data/cast/default")
    assert found["cast"]["id"] == lookup["temporary-1"]
    assert found["cast"]["layers"][0]["mash"]["tracks"] == mash["tracks"]
    assert found["cast"]["layers"][1]["layers"][0]["mash"]["color"] == "#112233"
    assert {each["id"] for each in found["definitions"]} == set(needed[mash["id"]])
    assert page.ask("/data/mash/retrieve", partial=True) == {"described": []}  # they are the cast's now


def check_failures(page, mash, definitions, brought):
    """What fails is told, in words that do not blank the page, and nobody asks on."""
    missing = [{**each, "source": f"{each['id']}/nosuch.mp4"} for each in definitions]
    told = page.ask("/rendering/start", mash=mash, definitions=missing, outputs=[{"outputType": "video"}])
    answer = page.follow(told["apiCallback"])[1] if "apiCallback" in told else told
    assert "." not in answer["error"]
    told = page.ask("/rendering/start", mash=mash, definitions=[], outputs=[{"outputType": "hologram"}])
    assert "hologram" in told["error"]
    _, _, content = brought[1]
    told = page.ask("/rendering/upload", name="no film.mp4", type="video", size=len(content))
    answer = page.execute(told["fileApiCallback"], ("file", "no film.mp4", content))
    assert re.fullmatch(r"[^.]+", answer["error"])
    assert "." not in page.execute(told["apiCallback"])["error"]


def test_two_users_do_what_the_client_does(tmp_path, brought):
    with Server(tmp_path, **SETTINGS) as server:
        with ThreadPoolExecutor(2) as pool:
            done = list(pool.map(lambda user: session(server, user, brought), ("ada", "bob")))
        (page, mash, definitions), (other, *others) = done
        check_own_only(page, mash, definitions)
        check_own_only(other, *others)
        check_others_are_closed(other, mash, definitions)
        check_failures(page, mash, definitions, brought)
        check_cast(page, mash)
        check_own_only(other, *others)
        assert not list((tmp_path / "data" / "media" / ".spool").iterdir())
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
    with Server(tmp_path, **SETTINGS) as server:  # all of it is on disk
        again = Masher(server.port, "ada")
        assert again.load()["mash"] == {}
        assert again.ask("/data/cast/default")["cast"]["layers"][0]["mash"]["id"] == mash["id"]
        check_film(again, definitions[2])
