"""What a client wants rendered is a job: uploads become what it shows, mashes films, and failures end its polling."""

import importlib.util
import io
import json
import os
import re
from fractions import Fraction
from pathlib import Path
from urllib.parse import quote

import av
import numpy as np
import pytest
import trio

from engine.frame import VideoFrame
from engine.sinks.still import encode_still
from engine.sources.fonts import DEFAULT, carried
from tests.api.moviemasher.asking import Client, masher, masher_beside
from tests.media import Video, encode, lengthless, numbers

POLL = 0.05  # seconds; the stock client waits for two
PATIENCE = 30


def colour(value, frames=10, **content):
    return {
        "contentId": "com.moviemasher.content.default",
        "content": {"color": value, **content},
        "timing": "custom",
        "frames": frames,
    }


def mash_of(*clips, **members):
    return {"id": "m1", "quantize": 10, "tracks": [{"dense": True, "clips": list(clips)}], **members}


SMALL = {"width": 64, "height": 36, "videoRate": 10}


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """The folder and the port of a server that renders."""
    folder = tmp_path_factory.mktemp("masher")
    with masher_beside(folder, works=True, preview_size="160x90", output_size="64x36") as port:
        yield folder, port


@pytest.fixture
def server(running, request):
    """That server for somebody who is nobody else."""
    folder, port = running
    return Server(folder, Client(port, user=re.sub(r"\W", "-", request.node.name)[:60]))


class Server:
    """A server that renders, and somebody who asks it."""

    def __init__(self, folder, client):
        self.folder, self.client = folder, client
        self.media = folder / "media" / client.user

    async def job(self, **body):
        """A job of nexrender's API as it is when it is over."""
        headers = {"Content-Type": "application/json"}
        made = (await self.client.ask("POST", "/api/v1/jobs", body=json.dumps(body), headers=headers)).json
        with trio.fail_after(PATIENCE):
            while made["state"] not in ("finished", "error"):
                await trio.sleep(POLL)
                made = (await self.client.get(f"/api/v1/jobs/{made['uid']}")).json
        return made

    async def finish(self, answer):
        """Executes callbacks as the client does until one is of another kind, or there is an error; all answers."""
        answers = [answer]
        with trio.fail_after(PATIENCE):
            while "error" not in answers[-1]:
                callback = answers[-1]["apiCallback"]
                if callback["endpoint"]["prefix"] != "/rendering/status":
                    break
                await trio.sleep(POLL)
                answers.append((await self.client.execute(callback)).json)
        return answers

    async def render(self, mash, *outputs, definitions=()):
        """The last answer of a rendering."""
        request = {"mash": mash, "definitions": list(definitions), "outputs": list(outputs)}
        return (await self.finish((await self.client.post("/rendering/start", **request)).json))[-1]

    async def upload(self, kind, path, name=None):
        """The definition that a file becomes."""
        data = path if isinstance(path, bytes) else path.read_bytes()
        name = name or path.name
        told = await self.client.call("/rendering/upload", name=name, type=kind, size=len(data))
        assert (await self.client.execute(told["fileApiCallback"], (name, data))).json == {}
        started = (await self.client.execute(told["apiCallback"])).json
        last = (await self.finish(started))[-1]
        assert "error" not in last, last
        assert last["apiCallback"]["endpoint"]["prefix"] == "/data/definition/put"
        return last["apiCallback"]["request"]["body"]["definition"]

    async def fetch(self, name):
        answer = await self.client.get(f"/media/{self.client.user}/{name}")
        assert answer.status == 200, name
        return answer.body


def image(width=40, height=20):
    """A PNG whose right half is clear."""
    y, a = np.full((height, width), 128, np.uint8), np.zeros((height, width), np.uint8)
    a[:, : width // 2] = 255
    u, v = (np.full((height // 2, width // 2), 128, np.uint8) for _ in range(2))
    return encode_still(VideoFrame(y, u, v, a), "png", alpha=True)


def line(width, height, kind):
    """A grey JPEG or PNG, which may be very thin."""
    form = {"jpg": "yuvj420p", "png": "rgb24"}[kind]
    context = av.CodecContext.create({"jpg": "mjpeg"}.get(kind, kind), "w")
    context.width, context.height, context.pix_fmt, context.time_base = width, height, form, Fraction(1)
    frame = av.VideoFrame.from_ndarray(np.full((height, width), 128, np.uint8), "gray").reformat(format=form)
    frame.pts = 0
    return b"".join(bytes(packet) for packet in [*context.encode(frame), *context.encode(None)])


def decoded(data):
    with av.open(io.BytesIO(data)) as container:
        return next(container.decode(video=0))


def facts(data):
    """Types of streams and seconds of a film or sound."""
    with av.open(io.BytesIO(data)) as container:
        return [stream.type for stream in container.streams], container.duration / av.time_base


async def test_a_video_becomes_what_the_client_shows(server, media):
    found = await server.upload("video", media.path("plain"))
    name = found["id"]
    place = found["url"]
    assert found == {
        **found,
        "type": "videosequence",
        "source": f"{name}/original.mp4",
        "label": media.path("plain").name,
        "fps": 10,
        "sourceSize": {"width": 64, "height": 36},
        "previewSize": {"width": 160, "height": 90},
        "icon": f"{place}icon.jpg",
        "audio": True,
        "audioUrl": f"{place}audio.mp3",
    }
    assert place.startswith(f"{name}/")
    assert place.endswith("/")
    assert found["duration"] == pytest.approx(2, abs=0.05)
    icon, first, last = [decoded(await server.fetch(place + each)) for each in ("icon.jpg", "01.jpg", "20.jpg")]
    assert [(each.width, each.height) for each in (icon, first, last)] == [(80, 45), (160, 90), (160, 90)]
    assert facts(await server.fetch(f"{place}audio.mp3"))[0] == ["audio"]
    folder = server.media / place
    assert [numbers(folder / f"{n:02}.jpg") for n in (1, 2, 11, 20)] == [[0], [3], [30], [57]]
    saved = await server.client.call("/data/definition/put", definition=found)
    assert saved["id"] == name


async def test_sound_and_images_become_what_the_client_shows(server, media):
    sound = await server.upload("audio", media.path("audio_only"))
    assert (sound["type"], sound["audio"]) == ("audio", True)
    assert sound["duration"] == pytest.approx(1, abs=0.05)
    kinds, seconds = facts(await server.fetch(sound["url"]))
    assert (kinds, seconds) == (["audio"], pytest.approx(1, abs=0.1))

    picture = await server.upload("image", image(), "photo.png")
    assert picture["sourceSize"] == {"width": 40, "height": 20}
    assert picture["previewSize"] == {"width": 180, "height": 90}
    preview, icon = [decoded(await server.fetch(picture[each])) for each in ("url", "icon")]
    assert ((preview.width, preview.height), (icon.width, icon.height)) == ((180, 90), (90, 45))
    alpha = preview.to_ndarray(format="rgba")[:, :, 3]
    assert (alpha[45, 20], alpha[45, 160]) == (255, 0)

    silent = await server.upload("video", media.path("video_only"))
    assert not {"audio", "audioUrl"} & silent.keys()


async def test_sound_that_does_not_say_how_long_it_is_is_whole_in_the_client(server, tmp_path):
    sound = await server.upload("audio", lengthless(tmp_path / "a.aac"))
    assert sound["duration"] == pytest.approx(5, abs=0.1)
    assert facts(await server.fetch(sound["url"])) == (["audio"], pytest.approx(5, abs=0.1))


@pytest.mark.parametrize(
    ("width", "height", "kind", "preview", "icon"),
    [
        (800, 3, "jpg", (4000, 15), (4000, 15)),
        (600, 2, "jpg", (3900, 13), (3900, 13)),
        (8000, 1, "png", (4096, 1), (4096, 1)),
        (4000, 20, "png", (4000, 20), (4000, 20)),
        (1, 800, "png", (1, 90), (1, 45)),
        (500, 10, "png", (4050, 81), (2250, 45)),
    ],
)
async def test_a_thin_line_becomes_an_image_of_sizes_that_can_be(server, width, height, kind, preview, icon):
    found = await server.upload("image", line(width, height, kind), f"line.{kind}")
    assert found["sourceSize"] == {"width": width, "height": height}
    assert found["previewSize"] == {"width": preview[0], "height": preview[1]}
    shown, small = [decoded(await server.fetch(found[each])) for each in ("url", "icon")]
    assert ((shown.width, shown.height), (small.width, small.height)) == (preview, icon)


async def test_a_flat_film_becomes_a_sequence_of_sizes_that_can_be(server, tmp_path):
    film = encode(tmp_path / "flat.mp4", Video(size=(1600, 4)), None)
    found = await server.upload("video", film)
    assert found["previewSize"] == {"width": 4000, "height": 10}
    first = decoded(await server.fetch(f"{found['url']}1.jpg"))
    assert (first.width, first.height) == (4000, 10)


async def test_an_svg_becomes_png_that_can_be_seen_through_and_is_in_a_mash(server):
    half = b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 80 40"><path fill="#0f0" d="M0 0h40v40h-40z"/></svg>'
    logo = await server.upload("image", half, "Logo.SVG")
    place = logo["url"].removesuffix("image.png")
    assert logo == {
        **logo,
        "type": "image",
        "source": f"{logo['id']}/original.svg",
        "url": f"{place}image.png",
        "icon": f"{place}icon.png",
        "sourceSize": {"width": 80, "height": 40},
        "previewSize": {"width": 180, "height": 90},
    }
    for name, (width, height) in (("url", (180, 90)), ("icon", (90, 45))):
        pixels = decoded(await server.fetch(logo[name])).to_ndarray(format="rgba").astype(int)
        assert pixels.shape == (height, width, 4)
        assert pixels[height // 2, width // 4] == pytest.approx((0, 255, 0, 255), abs=4)
        assert pixels[height // 2, width * 3 // 4, 3] == 0

    mash = mash_of({"contentId": logo["id"], "content": {}, "timing": "custom", "frames": 10})
    last = await server.render(mash, {"outputType": "image", **SMALL}, definitions=[logo])
    rendered = last["apiCallback"]["request"]["body"]["mash"]["rendering"]
    pixels = decoded(await server.fetch(rendered)).to_ndarray(format="rgb24")
    assert (pixels[18, 16, 1] > 200, pixels[18, 48].max() < 40) == (True, True)


@pytest.mark.parametrize("clear", [True, False])
@pytest.mark.parametrize(("suffix", "coder"), [("webp", "libwebp"), ("gif", "gif")])
async def test_what_can_be_seen_through_still_can_in_the_editor(server, tmp_path, suffix, coder, clear):
    path = tmp_path / f"logo.{suffix}"
    frame = decoded(image() if clear else line(40, 20, "png"))
    if suffix == "gif":  # whose pixels are numbers of colours: the second is clear
        colours = np.zeros((256, 4), np.uint8)
        colours[: 1 if clear else 256] = 255
        right = np.repeat([[0] * 20 + [1] * 20], 20, axis=0).astype(np.uint8)
        frame = av.VideoFrame.from_ndarray((right, colours), "pal8")
    else:
        frame = frame.reformat(format="bgra")
    with av.open(str(path), "w", format=suffix) as container:
        stream = container.add_stream(coder, rate=1)
        stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, frame.format.name
        container.mux([*stream.encode(frame), *stream.encode(None)])
    found = await server.upload("image", path, path.name)
    names = ["image.png", "icon.png"] if clear else ["image.jpg", "icon.jpg"]
    assert [Path(found[each]).name for each in ("url", "icon")] == names
    for name in ("url", "icon") if clear else ():
        alpha = decoded(await server.fetch(found[name])).to_ndarray(format="rgba")[:, :, 3]
        assert (alpha[alpha.shape[0] // 2, 4], alpha[alpha.shape[0] // 2, -4]) == (255, 0)


async def test_a_mash_becomes_a_film_and_is_told_where(server, media):
    film = await server.upload("video", media.path("plain"))
    clip = {"contentId": film["id"], "content": {}, "timing": "content"}
    mash = mash_of(colour("#FF0000"), clip)
    last = await server.render(mash, {"outputType": "video"}, definitions=[film])
    callback = last["apiCallback"]
    assert last["video"] == {"total": 1, "completed": 1}
    assert callback["endpoint"]["prefix"] == "/data/mash/put"
    rendered = callback["request"]["body"]["mash"]
    assert rendered["id"] == "m1"
    data = await server.fetch(rendered["rendering"])
    kinds, seconds = facts(data)
    assert (sorted(kinds), seconds) == (["audio", "video"], pytest.approx(3, abs=0.1))
    with av.open(io.BytesIO(data)) as container:
        context = container.streams.video[0].codec_context
        assert (context.profile, context.pix_fmt, context.width, context.height) == ("High", "yuv420p", 64, 36)
    folder = server.media / rendered["rendering"]
    shown = numbers(folder)
    assert len(shown) == 90
    assert shown[30:90:20] == [0, 20, 40]


def packets(film):
    """The coded pictures of a file, or of its bytes."""
    with av.open(io.BytesIO(film) if isinstance(film, bytes) else film) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.size]


@pytest.mark.parametrize("extension", ["mp4", "mov", "mkv"])
async def test_a_film_that_a_mash_shows_untouched_is_copied_where_no_quality_is_asked_for(server, media, extension):
    film = await server.upload("video", media.path("bt709"))
    clips = [{"contentId": film["id"], "content": {"startTrim": trim}, "frames": 15} for trim in (15, 0)]
    coded = packets(media.path("bt709"))
    for asked, copied in ({}, 30), ({"options": {"crf": ""}}, 30), ({"options": {"crf": 20}}, 0):
        wanted = {"outputType": "video", "extension": extension, **asked}
        last = await server.render(mash_of(*clips, quantize=30), wanted, definitions=[film])
        data = await server.fetch(last["apiCallback"]["request"]["body"]["mash"]["rendering"])
        made = packets(data)
        assert len(made) == 30
        assert sum(each in coded for each in made) == copied
        assert extension == "mkv" or 0 < data.index(b"moov") < data.index(b"mdat")
        with av.open(io.BytesIO(data)) as container:
            context = container.streams.video[0].codec_context
            assert (context.profile, context.pix_fmt) == ("High", "yuv420p")
            assert len(list(container.decode(video=0))) == 30


async def test_a_custom_effect_tints_an_image_in_its_own_shape(server):
    photo = await server.upload("image", image(), "photo.png")
    filters = [{"id": "com.moviemasher.filter.colorize", "parameters": [{"name": "color", "value": "#FF0000"}]}]
    tint = {"id": "my.tint", "type": "effect", "label": "Tint", "properties": [], "filters": filters}
    clip = {"contentId": photo["id"], "content": {"effects": [{"definitionId": "my.tint"}]}, "frames": 1}
    last = await server.render(
        mash_of(clip, color="#0000FF"), {"outputType": "image", **SMALL, "extension": "png"}, definitions=[photo, tint]
    )
    picture = decoded(await server.fetch(last["apiCallback"]["request"]["body"]["mash"]["rendering"]))
    shown = picture.to_ndarray(format="rgb24")[18, [16, 48]]
    assert np.abs(shown.astype(int) - [(255, 0, 0), (0, 0, 255)]).max() < 6


@pytest.mark.parametrize(
    ("offset", "rate", "frames", "shown"),
    [
        *((0.5, 25, (11, 11), 2), (0.5, 24, (11, 11), 2), (0.3, 25, (3, 7), 2), (2 / 3, 10, (2, 1), 2)),
        *((10.9 / 22, 10, (11, 11), 0), (0.48, 8, (11, 11), 0)),  # the next picture of the film is behind the cut
    ],
)
async def test_an_image_shows_its_moment_whatever_is_made_beside_it(server, offset, rate, frames, shown):
    """At a cut what begins there."""
    mash = mash_of(*map(colour, ("#FF0000", "#0000FF"), frames))
    wanted = {"outputType": "image", **SMALL, "offset": offset}
    for others in ([], [{"outputType": "video", **SMALL, "videoRate": rate}]):
        last = await server.render(mash, *others, wanted)
        made = server.media / last["apiCallback"]["request"]["body"]["mash"]["rendering"]
        picture = decoded(made.with_name("image.jpg").read_bytes()).to_ndarray(format="rgb24")
        assert picture[9, 16].argmax() == shown


async def test_every_kind_of_output(server, media):
    sound = {"id": "s", "type": "audio", "source": "s.wav", "duration": 1}
    folder = server.media
    folder.mkdir(parents=True)
    (folder / "s.wav").write_bytes(media.path("hz8000").read_bytes())
    clips = (colour("#FF0000"), colour("#0000FF"))
    mash = mash_of(*clips)
    mash["tracks"].append({"clips": [{"contentId": "s", "containerId": "", "content": {}, "frames": 10}]})
    outputs = (
        {"outputType": "imagesequence", **SMALL},
        {"outputType": "video", **SMALL, "mute": True},
        {"outputType": "audio"},
        {"outputType": "image", **SMALL, "offset": 1},
        {"outputType": "image", "width": 32, "height": 18, "basename": "icon"},
        {"outputType": "waveform", "forecolor": "#00ff00"},
    )
    last = await server.render(mash, *outputs, definitions=[sound])
    assert last["image"] == {"total": 2, "completed": 2}
    place = last["apiCallback"]["request"]["body"]["mash"]["rendering"]
    made = {each.name: each for each in (folder / place).iterdir()}
    sequence = {f"{n:02}.jpg" for n in range(1, 21)}
    assert made.keys() == sequence | {"video.mp4", "audio.mp3", "image.jpg", "icon.jpg", "waveform.png"}
    assert facts(made["video.mp4"].read_bytes())[0] == ["video"]
    first, end = (
        decoded(made[name].read_bytes()).to_ndarray(format="rgb24")[9, 16] for name in ("icon.jpg", "image.jpg")
    )
    assert (first.argmax(), end.argmax()) == (0, 2)
    wave = decoded(made["waveform.png"].read_bytes())
    assert (wave.width, wave.height) == (320, 240)


async def test_a_film_of_an_odd_size_is_made_a_pixel_smaller_and_an_image_beside_it_is_not(server):
    wanted = [{"outputType": kind, "width": 41, "height": 73} for kind in ("video", "image")]
    last = await server.render(mash_of(colour("#00FF00")), *wanted)
    assert "error" not in last, last
    film = server.media / last["apiCallback"]["request"]["body"]["mash"]["rendering"]
    with av.open(film) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.width, context.height) == ("h264", 40, 72)
    picture = decoded(film.with_name("image.jpg").read_bytes())
    assert (picture.width, picture.height) == (41, 73)


async def test_sequences_of_one_rendering_do_not_write_over_one_another(server):
    outputs = (
        {"outputType": "imagesequence", **SMALL},
        {"outputType": "imagesequence", "width": 32, "height": 18, "videoRate": 5, "basename": "small"},
        {"outputType": "imagesequence", "width": 16, "height": 16, "videoRate": 5},
    )
    last = await server.render(mash_of(colour("#FF0000", 20)), *outputs)
    assert last["imagesequence"] == {"total": 3, "completed": 3}
    folder = server.media / last["apiCallback"]["request"]["body"]["mash"]["rendering"]
    found = {}
    for each in folder.iterdir():
        picture = decoded(each.read_bytes())
        found.setdefault((picture.width, picture.height), set()).add(each.name)
    assert found == {
        (64, 36): {f"{n:02}.jpg" for n in range(1, 21)},
        (32, 18): {f"small-{n}.jpg" for n in range(1, 11)},
        (16, 16): {f"imagesequence-1-{n}.jpg" for n in range(1, 11)},
    }


@pytest.mark.parametrize(
    ("mash", "outputs", "sentence"),
    [
        (mash_of(colour("#fff")), [{"outputType": "hologram"}], "'hologram' is not one of video"),
        (mash_of(colour("#fff")), [], "expected an array of 1"),
        (mash_of(), [{"outputType": "video"}], "no clips"),
        (
            mash_of(colour("#fff")),
            [{"outputType": "video", "extension": "webm", "audioRate": 44100}],
            "8000, 12000, 16000",
        ),
        ({"id": "m1", "tracks": 3}, [{"outputType": "video"}], "expected an array, got a number"),
        (mash_of({"contentId": "x"}), [{"outputType": "video"}], 'no definition "x"'),
        (None, [{"outputType": "video"}], "mash"),
    ],
)
async def test_what_makes_no_sense_is_said_at_once(server, mash, outputs, sentence):
    answer = await server.client.post("/rendering/start", mash=mash, outputs=outputs, definitions=[])
    assert sentence in answer.error.replace("\N{ONE DOT LEADER}", ".")
    assert "." not in answer.error


async def test_a_rendering_that_fails_ends_the_polling(server, media):
    secret = server.folder / "media" / "eve"
    secret.mkdir(parents=True)
    (secret / "film.mp4").write_bytes(media.path("plain").read_bytes())
    server.media.mkdir()
    (server.media / "link.mp4").symlink_to(secret / "film.mp4")
    elsewhere = ("../eve/film.mp4", str(secret / "film.mp4"), "link.mp4", f"file://{secret}/film.mp4")
    for source in (*elsewhere, "none.mp4", "x" * 300, "a\0b"):
        film = {"id": "f", "type": "video", "source": source, "duration": 1}
        last = await server.render(mash_of({"contentId": "f"}), {"outputType": "video"}, definitions=[film])
        assert "apiCallback" not in last
        assert last["video"] == {"total": 1, "completed": 0}
        assert "is no" in last["error"]
        assert "." not in last["error"]
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nfile:{secret}/film.mp4\n#EXT-X-ENDLIST\n"
    for kind, sentence in (("application/vnd.apple.mpegurl", "lists other files"), ("video/mp4", "not media")):
        film = {"id": "f", "type": "video", "source": f"data:{kind},{quote(playlist)}"}
        last = await server.render(mash_of({"contentId": "f"}), {"outputType": "video"}, definitions=[film])
        assert sentence in last["error"]
    silent = await server.render(mash_of(colour("#fff")), {"outputType": "audio"})
    assert "found no audio" in silent["error"]
    assert not list(server.media.glob("m1/*/*"))


@pytest.mark.parametrize(
    ("name", "definition"),
    [("f", {"id": "f", "type": "effect"}), (5, {"id": "5", "type": "font"}), (5, {"id": 5, "type": "font"})],
)
async def test_nobody_writes_in_a_font_of_somebody_else(server, name, definition):
    (font,) = (path for path in carried() if "permanent_marker" in str(path))
    secret = server.folder / "media" / "eve" / "font.ttf"
    secret.parent.mkdir(parents=True, exist_ok=True)
    secret.write_bytes(font.read_bytes())

    async def written(name, *definitions):
        text = {"string": "Secret", "fontId": name}
        mash = mash_of({**colour("#fff"), "containerId": "com.moviemasher.container.text", "container": text})
        last = await server.render(mash, {"outputType": "image", "extension": "png"}, definitions=definitions)
        assert "error" not in last
        data = await server.fetch(last["apiCallback"]["request"]["body"]["mash"]["rendering"])
        return decoded(data).to_ndarray(format="gray")

    assert np.array_equal(await written(name, {**definition, "source": str(secret)}), await written(DEFAULT))


async def test_why_a_rendering_failed_is_told_without_the_folders_of_the_server(server):
    last = await server.render(mash_of(colour("#fff")), {"outputType": "video", **SMALL, "options": {"crf": 0}})
    sentence = last["error"].replace("\N{ONE DOT LEADER}", ".")
    assert sentence.startswith('output "video.mp4": quality 0 is lossless')


async def test_a_film_of_another_codec_has_a_rate_that_this_has(server, media):
    server.media.mkdir(parents=True)
    (server.media / "s.wav").write_bytes(media.path("hz8000").read_bytes())
    sound = {"id": "s", "type": "audio", "source": "s.wav", "duration": 1}
    mash = mash_of(colour("#fff", 5))
    mash["tracks"].append({"clips": [{"contentId": "s", "containerId": "", "content": {}, "frames": 5}]})
    outputs = (
        {"outputType": "video", **SMALL, "extension": "webm"},
        {"outputType": "video", **SMALL, "extension": "webm", "mute": True, "basename": "mute"},
        {"outputType": "audio"},
    )
    last = await server.render(mash, *outputs, definitions=[sound])
    place = server.media / last["apiCallback"]["request"]["body"]["mash"]["rendering"]
    rates = {}
    for each in place.parent.iterdir():
        with av.open(each) as container:
            rates[each.name] = [stream.rate for stream in container.streams.audio]
    assert rates == {"video.webm": [48_000], "mute.webm": [], "audio.mp3": [44_100]}


async def test_an_optional_output_may_come_to_nothing(server):
    outputs = ({"outputType": "audio", "optional": True}, {"outputType": "video", **SMALL})
    last = await server.render(mash_of(colour("#fff", 3)), *outputs)
    assert last["audio"] == {"total": 1, "completed": 1}
    assert last["apiCallback"]["request"]["body"]["mash"]["rendering"].endswith("/video.mp4")


async def test_a_rendering_that_makes_nothing_leaves_the_one_before(server):
    mash = mash_of(colour("#fff", 3))
    await server.client.call("/data/mash/put", mash=mash)
    last = await server.render(mash, {"outputType": "video", **SMALL})
    await server.client.execute(last["apiCallback"])
    last = await server.render(mash, {"outputType": "audio", "optional": True})
    await server.client.execute(last["apiCallback"])
    kept = await server.client.call("/data/mash/get", id=mash["id"])
    assert kept["mash"]["rendering"].endswith("/video.mp4")


async def test_an_output_does_not_come_to_nothing_with_another_of_its_name(server):
    outputs = (
        {"outputType": "video", "basename": "x", **SMALL},
        {"outputType": "audio", "basename": "x", "optional": True},
    )
    last = await server.render(mash_of(colour("#fff", 3)), *outputs)
    assert last["apiCallback"]["request"]["body"]["mash"]["rendering"].endswith("/x.mp4")


async def test_what_everybody_shares_may_be_used(server, media):
    shared = server.folder / "media" / "shared"
    shared.mkdir(parents=True)
    (shared / "film.mp4").write_bytes(media.path("plain").read_bytes())
    film = {"id": "f", "type": "video", "source": "film.mp4"}
    last = await server.render(mash_of({"contentId": "f"}), {"outputType": "video", **SMALL}, definitions=[film])
    data = await server.fetch(last["apiCallback"]["request"]["body"]["mash"]["rendering"])
    assert facts(data)[1] == pytest.approx(2, abs=0.1)


async def put(client, uid, **change):
    headers = {"Content-Type": "application/json"}
    assert (await client.ask("PUT", f"/api/v1/jobs/{uid}", body=json.dumps(change), headers=headers)).status == 200


async def test_the_film_of_a_rendering_is_the_output_of_its_job(server):
    client = server.client
    last = await server.render(mash_of(colour("#0f0")), {"outputType": "video", **SMALL})
    name = last["apiCallback"]["request"]["body"]["mash"]["rendering"]
    output = f"/api/v1/jobs/{name.split('/')[1]}/output"
    answer = await client.get(output)
    assert (answer.status, answer.headers["content-type"]) == (200, "video/mp4")
    assert answer.body == (server.media / name).read_bytes()
    part = await client.get(output, Range="bytes=4-7")
    assert (part.status, part.body) == (206, b"ftyp")
    (server.media / name).unlink()
    assert (await client.get(output)).status == 404


async def test_whoever_writes_into_a_job_reads_no_file_but_what_was_made_for_it(server, media):
    client = server.client
    image = {"outputType": "image", **SMALL}
    mine, other = [
        server.media
        / (await server.render(mash_of(colour(value)), image))["apiCallback"]["request"]["body"]["mash"]["rendering"]
        for value in ("#0f0", "#00f")
    ]
    uid, made = mine.parent.name, mine.read_bytes()
    film = await server.upload("audio", media.path("hz8000"))
    original = next(server.media.glob(f"{film['id']}/original.*"))
    (mine.parent / "link.jpg").symlink_to(other)
    (mine.parent / "folder").symlink_to(other.parent)
    folder = mine.parents[1]
    refused = [
        str(original),
        str(other),
        str(mine.parent / "link.jpg"),
        str(mine.parent / "folder" / "image.jpg"),
        f"{mine.parent}/../{other.parent.name}/image.jpg",
        f"{mine.parent}/..",
        str(mine.parent),
        f"{folder.parent}/../{folder.parent.name}/{uid}/image.jpg",
        f"bob/m1/{uid}/image.jpg",
        f"../m1/{uid}/image.jpg",
        f"{uid}/image.jpg",
        f"/m1/{uid}/image.jpg",
        "image.jpg",
        "",
        f"{mine}\0",
        str(server.folder / "renderings" / client.user / f"{uid}.json"),
    ]
    for output in refused:
        await put(client, uid, output=output)
        assert (await client.get(f"/api/v1/jobs/{uid}/output")).status == 404, output
    for output in (str(mine), f"/moved/media/{client.user}/m1/{uid}/image.jpg"):
        await put(client, uid, output=output)
        answer = await client.get(f"/api/v1/jobs/{uid}/output")
        assert (answer.status, answer.body) == (200, made)
    template = {"src": f"mash:{client.user}/m1/{uid}", "composition": "*"}
    for name in (film["id"], "m1", client.user):  # jobs that clients make, called as what lies there
        body = json.dumps({"uid": name, "template": {"src": "file:///a.aepx", "composition": "main"}})
        headers = {"Content-Type": "application/json"}
        assert (await client.ask("POST", "/api/v1/jobs", body=body, headers=headers)).status == 200
        for output in (str(mine), str(original)):
            await put(client, name, state="error", template=template, output=output)
            assert (await client.get(f"/api/v1/jobs/{name}/output")).status == 404


async def test_nobody_sees_the_renderings_of_others(server):
    started = await server.client.call(
        "/rendering/start", mash=mash_of(colour("#fff")), outputs=[{"outputType": "image"}]
    )
    body = started["apiCallback"]["request"]["body"]
    other = Client(server.client.port, user="eve")
    for client, asked in (
        (other, body),
        (server.client, body | {"id": "m2"}),
        (server.client, body | {"renderingId": "x"}),
    ):
        assert "error" in (await client.post("/rendering/status", **asked)).json
    assert "apiCallback" in await server.client.call("/rendering/status", **body)


async def test_a_rendering_goes_on_after_a_restart(tmp_path):
    async with masher(tmp_path) as port:
        client = Client(port)
        started = await client.call(
            "/rendering/start", mash=mash_of(colour("#0f0")), outputs=[{"outputType": "video", **SMALL}]
        )
        (job,) = json.loads((await client.get("/api/v1/jobs")).body)
        assert (job["state"], job["type"], job["creator"]) == ("queued", "rendering", "ada")
        untaken = json.loads((await client.get("/api/v1/jobs/pickup")).body)
        assert untaken == {}  # others cannot read it
    async with masher(tmp_path, works=True) as port:
        last = (await Server(tmp_path, Client(port)).finish(started))[-1]
        assert last["video"]["completed"] == 1


async def test_what_is_rendered_for_a_mash_deleted_meanwhile_is_not_left_behind(tmp_path):
    async with masher(tmp_path) as port:
        client = Client(port)
        mash = mash_of(colour("#0f0"))
        await client.call("/data/mash/put", mash=mash, definitionIds=[])
        started = await client.call("/rendering/start", mash=mash, outputs=[{"outputType": "video", **SMALL}])
        assert (tmp_path / "media" / "ada" / "m1").is_dir()
        await client.call("/data/mash/delete", id="m1")
    async with masher(tmp_path, works=True) as port:
        last = (await Server(tmp_path, Client(port)).finish(started))[-1]
        assert "deleted meanwhile" in str(last["error"])
    assert not (tmp_path / "media" / "ada" / "m1").exists()


async def test_a_request_is_forgotten_when_its_job_is_deleted(tmp_path):
    async with masher(tmp_path) as port:
        client = Client(port)
        outputs = [{"outputType": "video", **SMALL}]
        for _ in range(3):
            await client.call("/rendering/start", mash=mash_of(colour("#0f0")), outputs=outputs)
        gone, new, *_ = [job["uid"] for job in json.loads((await client.get("/api/v1/jobs")).body)]
        for uid in (gone, new):
            assert (await client.ask("DELETE", f"/api/v1/jobs/{uid}")).status == 200
    kept = {path.stem: path for path in (tmp_path / "renderings").glob("*/*.json")}
    assert len(kept) == 3
    for uid, path in kept.items():
        if uid != new:
            os.utime(path, (0, 0))
    async with masher(tmp_path):
        with trio.fail_after(PATIENCE):
            while kept[gone].exists():
                await trio.sleep(POLL)
    assert {uid for uid, path in kept.items() if path.exists()} == kept.keys() - {gone}


async def test_an_upload_does_not_wait_for_long_films(server, media):
    long = {"mash": mash_of(colour("#f00", 1_000_000)), "outputs": [{"outputType": "video", **SMALL}]}
    asked = (await server.client.call("/rendering/start", **long))["apiCallback"]["request"]["body"]
    assert (await server.upload("audio", media.path("hz8000")))["audio"]
    assert "apiCallback" in await server.client.call("/rendering/status", **asked)
    assert (await server.client.ask("DELETE", f"/api/v1/jobs/{asked['renderingId']}")).status == 200


async def test_a_font_needs_no_rendering(server):
    spec = importlib.util.find_spec("fontpkg_righteous")
    (path,) = Path(spec.submodule_search_locations[0]).rglob("*.ttf")
    found = await server.upload("font", path)
    assert (found["type"], found["url"]) == ("font", f"{found['id']}/original.ttf")
    assert await server.fetch(found["url"]) == path.read_bytes()


async def test_a_server_that_renders_nothing_says_so_before_a_file_is_sent_and_has_nobody_wait(tmp_path, media):
    data = media.path("hz8000").read_bytes()
    async with masher(tmp_path) as port:
        client = Client(port)
        sent = await client.call("/rendering/upload", name="a.wav", type="audio", size=len(data))
        assert (await client.execute(sent["fileApiCallback"], ("a.wav", data))).json == {}
    async with masher(tmp_path, worker=0) as port:
        server = Server(tmp_path, Client(port))
        film = [{"outputType": "video", **SMALL}]
        answer = await server.client.post("/rendering/start", mash=mash_of(colour("#0f0")), outputs=film)
        assert answer.error == "nothing is rendered here: the server has no workers of its own (--worker 0)"
        for kind, name in (("audio", "a.wav"), ("image", "a.png"), ("video/mp4", "a.mp4"), ("", "b.mp4")):
            told = await server.client.post("/rendering/upload", name=name, type=kind, size=1000)
            assert told.error == answer.error
        assert (await server.client.execute(sent["apiCallback"])).error == answer.error
        assert json.loads((await server.client.get("/api/v1/jobs")).body) == []
        assert not (tmp_path / "renderings").exists()
        assert (await server.upload("font", carried()[0]))["type"] == "font"  # which needs no rendering


async def test_a_job_that_others_have_meddled_with_is_an_error(server):
    body = {"outputs": [{"outputType": "image", **SMALL}], "mash": mash_of(colour("#fff"))}
    asked = (await server.client.call("/rendering/start", **body))["apiCallback"]["request"]["body"]
    name = asked["renderingId"]
    for change in ({"state": "finished", "result": 3}, {"state": 5}, {"state": "finished", "purpose": None}):
        headers = {"Content-Type": "application/json"}
        put = await server.client.ask("PUT", f"/api/v1/jobs/{name}", body=json.dumps(change).encode(), headers=headers)
        assert put.status == 200
        assert "no result" in (await server.client.post("/rendering/status", **asked)).error
    for kind, duration in ((None, 1), ("videosequence", 1e308)):  # what makes no sense is told as it is
        purpose = {"id": "m1", "outputs": ["image"], "kind": "upload", "definition": {"type": kind} if kind else {}}
        change = {"state": "finished", "purpose": purpose, "result": {"outputs": [], "duration": duration}}
        await server.client.ask("PUT", f"/api/v1/jobs/{name}", body=json.dumps(change).encode(), headers=headers)
        told = (await server.client.call("/rendering/status", **asked))["apiCallback"]["request"]["body"]
        assert told["definition"]["duration"] == duration
    assert (await server.client.ask("DELETE", f"/api/v1/jobs/{name}")).status == 200
    assert (await server.client.post("/rendering/status", **asked)).error


async def test_who_is_over_the_quota_renders_no_more_until_something_is_removed(tmp_path, media):
    film = {"outputs": [{"outputType": "image", **SMALL}], "mash": mash_of(colour("#fff"))}
    async with masher(tmp_path, works=True, quota=1) as port:
        ada, bob = (Server(tmp_path, Client(port, user=name)) for name in ("ada", "bob"))
        data = media.path("hz8000").read_bytes()
        told = await ada.client.call("/rendering/upload", name="a.wav", type="audio", size=len(data))
        assert (await ada.client.execute(told["fileApiCallback"], ("a.wav", data))).json == {}
        await ada.render(film["mash"], *film["outputs"])
        (made,) = ada.media.glob("m1/*/image.jpg")
        older = made.parent.parent / "older" / "video.mp4"
        older.parent.mkdir()
        older.write_bytes(bytes(1 << 20))
        answer = await ada.client.post("/rendering/start", **film)
        assert answer.error == "Your files would have more than 1 MB"
        assert len(json.loads((await ada.client.get("/api/v1/jobs")).body)) == 1
        await bob.client.call("/rendering/start", **film)
        last = (await ada.finish((await ada.client.execute(told["apiCallback"])).json))[-1]
        assert last["apiCallback"]["request"]["body"]["definition"]["audio"]  # of what was taken, all is made
        older.unlink()
        assert "error" not in await ada.render(film["mash"], *film["outputs"])


async def test_what_an_upload_was_made_into_is_made_again_only_where_there_is_room(tmp_path, media):
    async with masher(tmp_path, works=True, quota=1) as port:
        ada = Server(tmp_path, Client(port))
        data = media.path("hz8000").read_bytes()
        told = await ada.client.call("/rendering/upload", name="a.wav", type="audio", size=len(data))
        assert (await ada.client.execute(told["fileApiCallback"], ("a.wav", data))).json == {}
        rest = ada.media / "m1" / "video.mp4"
        rest.parent.mkdir()
        rest.write_bytes(bytes(1 << 20))
        asked = [await ada.client.execute(told["apiCallback"]) for _ in range(3)]  # before the first one is done
        assert {each.error for each in asked[1:]} == {"Your files would have more than 1 MB"}
        finished = [(await ada.finish(asked[0].json))[-1]]
        assert (await ada.client.execute(told["apiCallback"])).error == "Your files would have more than 1 MB"
        rest.unlink()
        finished.append((await ada.finish((await ada.client.execute(told["apiCallback"])).json))[-1])
        assert len(json.loads((await ada.client.get("/api/v1/jobs")).body)) == 2
        urls = {last["apiCallback"]["request"]["body"]["definition"]["url"] for last in finished}
        assert len(urls) == 2
        for url in urls:  # a mash may show either
            assert await ada.fetch(url)


async def test_an_upload_that_was_never_sent_is_not_rendered(server):
    told = await server.client.call("/rendering/upload", name="a.mp4", type="video", size=1000)
    answer = await server.client.execute(told["apiCallback"])
    assert "Invalid argument id" in answer.error


async def test_a_saved_mash_is_a_template(server, media):
    text = {"containerId": "com.moviemasher.container.text", "container": {"string": "name"}, "label": "name"}
    saved = mash_of({**colour("#FF0000", 5), "label": "back"}, label="card")
    saved["tracks"].append({"clips": [{**colour("#FFFFFF", 5), **text}]})
    await server.client.call("/data/mash/put", mash={**saved, "id": "card"}, definitionIds=[])
    assets = [
        {"type": "data", "layerName": "back", "property": "color", "value": "#0000FF"},
        {"type": "data", "layerName": "name", "property": "Source Text", "value": "Ada"},
    ]
    template = {"src": "mash:card", "composition": "video", "width": 64, "height": 36, "frameRate": 10}
    made = await server.job(template=template, assets=assets)
    assert made["state"] == "finished", made.get("error")
    assert made["output"].endswith("result.mp4")
    with av.open(made["output"]) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 5
    assert frames[0][1, 1].argmax() == 2
    assert frames[0].max() > 200
    assert abs(Fraction(len(frames), 10) - Fraction(1, 2)) == 0


def inline(**members):
    """A job's template: a red mash of half a second that is its own address."""
    document = {"mash": mash_of(colour("#FF0000", 5)), "definitions": [], **members}
    return {"src": "data:application/json," + quote(json.dumps(document)), "composition": "*"}


FILM = {"width": 64, "height": 36, "frameRate": 10, "preset": "ultrafast"}
ENCODE, COPY = ({"module": f"@nexrender/action-{name}"} for name in ("encode", "copy"))


@pytest.mark.parametrize(
    ("settings", "encode"),
    [
        ({"bitRate": 200_000}, None),
        ({"outputModule": "H.264 - Match Render Settings - 15 Mbps"}, None),
        ({"outputModule": "Lossless"}, None),
        ({"outputExt": "webm", "bitRate": 200_000}, None),
        ({}, {"preset": "webm", "output": "film.webm"}),
        ({}, {"output": "film.webm"}),
        ({}, {"output": "film.mov", "params": {"-b:v": "200k"}}),
    ],
)
async def test_what_a_job_of_a_mash_asks_for_counts_more_than_what_mashes_have(server, media, settings, encode):
    heard = {"id": "heard", "type": "audio", "source": str(media.path("audio_only"))}
    mash = mash_of(colour("#FF0000", 5))
    mash["tracks"].append({"clips": [{"contentId": "heard", "containerId": "", "content": {}, "frames": 5}]})
    actions = {"postrender": [ENCODE | encode] if encode else []}
    made = await server.job(template=inline(mash=mash, definitions=[heard]) | FILM | settings, actions=actions)
    assert made["state"] == "finished", made.get("error")
    with av.open(made["output"]) as container:
        (picture,), (sound,) = container.streams.video, container.streams.audio
        is_webm = made["output"].endswith(".webm")
        assert (picture.codec.name, sound.rate) == (("vp9", 48000) if is_webm else ("h264", 44100))


@pytest.mark.parametrize(
    ("settings", "outputs", "copied"),
    [
        ({"width": 64, "height": 36}, [], 30),
        ({"width": 64, "height": 36, "quality": 20}, [], 0),
        ({}, [{"outputType": "video", "width": 64, "height": 36}], 30),
        ({}, [{"outputType": "video", "width": 64, "height": 36, "options": {"crf": 20}}], 0),
    ],
)
async def test_a_job_of_a_mash_copies_a_film_that_it_shows_untouched(server, media, settings, outputs, copied):
    film = {"id": "f", "type": "video", "source": str(media.path("bt709"))}
    mash = mash_of({"contentId": "f", "content": {}, "frames": 30}, quantize=30)
    made = await server.job(template=inline(mash=mash, definitions=[film], outputs=outputs) | settings)
    assert made["state"] == "finished", made.get("error")
    assert sum(each in packets(media.path("bt709")) for each in packets(made["output"])) == copied


@pytest.mark.parametrize("kind", ["", ";charset=utf-8", "text/plain"])
async def test_a_document_that_is_its_own_address_is_a_template_as_plain_text_too(server, kind):
    made = await server.job(template={**inline(), "src": f"data:{kind},{inline()['src'].partition(',')[2]}"} | FILM)
    assert made["state"] == "finished", made.get("error")


OWN = [{"outputType": "video", **SMALL}, {"outputType": "image", **SMALL}]


@pytest.mark.parametrize(
    ("template", "actions", "sentence"),
    [
        (inline(outputs=OWN) | {"width": 64, "height": 36}, [], "template.width has no meaning: the document or its"),
        (inline(outputs=OWN) | {"frameStart": 3, "frameEnd": 4}, [], "template.frameStart has no meaning"),
        (inline(outputs=OWN) | {"frameRate": 5}, [], "template.frameRate has no meaning"),
        (inline() | {"composition": "waveform", "duration": 1}, [], "template.duration has no meaning"),
        (inline(outputs=OWN), [ENCODE | {"output": "film.mp4"}], "nothing can be encoded: the document"),
        (inline() | {"composition": "imagesequence"}, [COPY | {"output": "x/"}], "action-copy needs an input"),
    ],
)
async def test_what_a_document_does_not_make_as_asked_is_refused_before_it_is_rendered(
    server, template, actions, sentence
):
    made = await server.job(template=template, actions={"postrender": actions})
    assert made["error"].startswith(sentence)
    assert "render:dorender" not in made["timings"]


@pytest.mark.parametrize(
    ("template", "name"), [(inline(outputs=OWN), "image.jpg"), (inline() | {"composition": "imagesequence"}, "1.jpg")]
)
async def test_a_file_that_a_document_makes_itself_is_copied(server, template, name):
    made = await server.job(template=template, actions={"postrender": [COPY | {"input": name, "output": "copies/"}]})
    assert made["state"] == "finished", made.get("error")
    assert (server.folder / "outputs" / made["uid"] / "copies" / name).is_file()
