"""What a job's child renders: RenderTrees as ever, mashes into a file, or into a folder what they say themselves."""

import json
import os
import subprocess
import sys
import wave

import av
import pytest

from api.child import main
from engine.sources.fonts import DEFAULT, carried
from tests.media import Audio, Video, encode, lengthless, numbers

COLOUR = "com.moviemasher.content.default"
SIZE = ("--size", "64x36", "--fps", "10", "--progress", "json")


def coloured(value="#FF0000", frames=5, **members):
    return {"contentId": COLOUR, "content": {"color": value}, "timing": "custom", "frames": frames, **members}


def mash_of(*clips):
    return {"tracks": [{"dense": True, "clips": list(clips)}]}


@pytest.fixture
def render(tmp_path, monkeypatch, capsys):
    """A function: document → (exit code, where it went, what was said on standard error, the last line told)."""
    monkeypatch.chdir(tmp_path)

    def run(document, out="film.mp4", *arguments):
        (tmp_path / "document.json").write_text(json.dumps(document))
        code = main(["document.json", out, *(SIZE if out != "out" else SIZE[-2:]), *arguments])
        said = capsys.readouterr()
        lines = [json.loads(line) for line in said.out.splitlines()]
        return code, tmp_path / out, said.err, lines[-1] if lines else None

    return run


def streams(path):
    with av.open(str(path)) as container:
        return sorted(stream.type for stream in container.streams)


def pictures(path):
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_a_tree_is_rendered_as_ever(render):
    code, path, _, last = render({"rootVideoNode": {"node": "SolidColorNode", "red": 1}}, "a.mp4", "--duration", "0.5")
    assert (code, last["done"], last["total"]) == (0, 5, 5)
    assert len(pictures(path)) == 5


@pytest.mark.parametrize("document", [mash_of(coloured()), {"mash": mash_of(coloured())}])
def test_a_mash_is_as_long_as_its_clips(render, document):
    code, path, _, last = render(document)
    assert (code, last["done"]) == (0, 5)
    assert pictures(path)[-1][18, 32].argmax() == 0
    assert streams(path) == ["video"]


def test_a_cast_is_its_mashes_over_one_another(render):
    layers = [{"type": "mash", "mash": mash_of(coloured(colour))} for colour in ("#0000FF", "#FF0000")]
    code, path, _, _ = render({"cast": {"layers": layers}})
    assert code == 0
    assert pictures(path)[0][18, 32].argmax() == 2


def test_its_sources_lie_beside_it_or_where_the_arguments_say(render, media):
    film = {"id": "f", "type": "video", "source": str(media.path("plain"))}
    beside = media.path("plain").with_name("beside.json")
    clips = mash_of({"contentId": "f", "content": {}})
    code, path, _, _ = render({"mash": clips, "definitions": [film]}, "a.mp4", "--fps", "30")
    assert (code, streams(path)) == (0, ["audio", "video"])
    assert numbers(path)[:3] == [0, 1, 2]
    beside.write_text(json.dumps({"mash": clips, "definitions": [{**film, "source": media.path("plain").name}]}))
    assert main([str(beside), str(path), *SIZE]) == 0
    assert main([str(beside), str(path), "--source", f"f={media.path('fps25')}", *SIZE]) == 0
    assert len(pictures(path)) == 10


def test_a_source_with_a_colon_in_its_name_lies_beside_the_mash(render, media, tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/take 12:30.mp4").write_bytes(media.path("plain").read_bytes())
    document = {"mash": mash_of({"contentId": "f", "content": {}}), "definitions": [{"id": "f", "type": "video"}]}
    document["definitions"][0]["source"] = "take 12:30.mp4"
    (tmp_path / "sub/mash.json").write_text(json.dumps(document))
    assert main(["sub/mash.json", "a.mp4", *SIZE]) == 0
    assert streams(tmp_path / "a.mp4") == ["audio", "video"]


@pytest.mark.parametrize("clip", [{"content": {"width": 2, "height": 2}}, {"container": {"lock": ""}}])
def test_an_enlarged_or_cropped_picture_shows_the_same_part_whatever_size_its_definition_says(render, tmp_path, clip):
    encode(tmp_path / "film.mkv", Video(size=(160, 120), codec="ffv1", matrix="bt709"), None)
    film = {"id": "f", "type": "video", "source": "film.mkv", "duration": 1}

    def shown(width, height):
        definition = film | {"sourceSize": {"width": width, "height": height}}
        assert render({"mash": mash_of({"contentId": "f", **clip}), "definitions": [definition]})[0] == 0
        return pictures(tmp_path / "film.mp4")[5].astype(int)

    own = shown(160, 120)
    assert own.std() > 20
    for said in ((80, 60), (800, 600), (4000, 3000)):
        assert abs(shown(*said) - own).mean() < 1  # it was encoded


def test_the_picture_of_an_upload_is_there_before_it_begins_and_after_it_ends(render, tmp_path):
    late = Video(size=(160, 90), pts_ms=(500, 700, 900), matrix="bt709")
    source = str(encode(tmp_path / "late.mp4", late, seconds=2))
    (tmp_path / "out").mkdir()
    icon = {"outputType": "image", "width": 160, "height": 90, "basename": "icon"}
    document = {"mash": {}, "upload": "video", "definitions": [{"id": "f", "type": "video", "source": source}]}
    document["outputs"] = [icon, {"outputType": "imagesequence", "width": 160, "height": 90}]
    assert render(document, "out")[0] == 0
    shown = [pictures(path)[0] for path in sorted((tmp_path / "out").glob("*.jpg"))]
    assert len(shown) == 21  # an icon and ten in a second
    assert all(each[80, 80, 0] > 150 for each in shown)  # its lower third is coloured


def test_a_text_is_measured_where_nobody_has(render):
    text = {"containerId": "com.moviemasher.container.text", "container": {"string": "I", "fontId": DEFAULT}}
    code, path, _, _ = render(mash_of(coloured("#FFFFFF", **text)))
    assert code == 0
    assert pictures(path)[0].max() > 200


def test_a_built_in_font_is_there_although_its_definition_says_where_it_is_on_the_web(render):
    def shown(font, source, *arguments):
        text = {"containerId": "com.moviemasher.container.text", "container": {"string": "Hello", "fontId": font}}
        web = {"id": font, "type": "font", "source": source, "url": "https://fonts.googleapis.com/css2?family=Oleo"}
        document = {"mash": mash_of(coloured("#FFFFFF", frames=1, **text)), "definitions": [web] if source else []}
        code, path, said, _ = render(document, "out.png", *arguments)
        assert (code, said) == (0, "")
        return pictures(path)[0]

    oleo, web = "com.moviemasher.font.oleo-script", "https://fonts.googleapis.com/css2?family=Oleo"
    built_in, plain = shown(oleo, ""), shown(DEFAULT, "")
    assert not (built_in == plain).all()
    assert (shown(oleo, web) == built_in).all()
    file = str(carried()[0])  # that of the default font
    assert (shown(oleo, file) == plain).all()
    assert (shown(oleo, web, "--source", f"{oleo}={file}") == plain).all()


@pytest.mark.parametrize("outputs", [[], [{"outputType": "image", "width": 160, "height": 90, "extension": "png"}]])
def test_a_title_that_was_measured_in_a_narrower_font_is_seen_to_its_last_letter(render, tmp_path, outputs):
    def shown(**more):
        text = {"string": "Summer film", "fontId": "com.moviemasher.font.germania-one", **more}
        clip = coloured("#FFFFFF", frames=1, containerId="com.moviemasher.container.text", container=text)
        assert render({"mash": mash_of(clip), "outputs": outputs}, out, *arguments)[0] == 0
        return pictures(tmp_path / (out if not outputs else "out/image.png"))[0]

    out, arguments = ("out", ()) if outputs else ("out.png", ("--size", "160x90"))
    (tmp_path / "out").mkdir()
    as_it_is = shown()
    assert as_it_is.max() > 200
    assert (shown(intrinsic={"x": 0, "y": 700, "width": 3500, "height": 900}) == as_it_is).all()
    assert not (shown(intrinsic={"x": 0, "y": 700, "width": 9000, "height": 900}) == as_it_is).all()


@pytest.mark.parametrize("document", [mash_of(coloured()), {"rootVideoNode": {"node": "SolidColorNode", "red": 1}}])
@pytest.mark.parametrize("source", ["-", "/dev/stdin"])
def test_standard_input_and_pipes_are_read_as_files_are(tmp_path, document, source):
    result = subprocess.run(
        [sys.executable, "-m", "api", "render", source, "out.png", *SIZE],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        input=json.dumps(document).encode(),
        capture_output=True,
        timeout=60,
    )
    assert (result.returncode, result.stderr) == (0, b"")
    assert pictures(tmp_path / "out.png")[0][18, 32].argmax() == 0


@pytest.mark.parametrize(
    ("arguments", "count", "red"), [((), 5, 0), (("--start", "0"), 10, 5), (("--start", "0.3"), 7, 2)]
)
def test_a_mash_begins_where_its_playhead_stands_unless_a_start_is_said(render, arguments, count, red):
    document = {"mash": mash_of(coloured(), coloured("#0000FF")) | {"quantize": 10, "frame": 5}}
    code, path, _, _ = render(document, "film.mp4", *arguments)
    shown = ["red" if picture[0, 0, 0] > picture[0, 0, 2] else "blue" for picture in pictures(path)]
    assert (code, shown) == (0, ["red"] * red + ["blue"] * (count - red))


def test_a_start_beyond_the_end_of_a_mash_is_refused(render):
    mash = mash_of(coloured()) | {"quantize": 10}
    assert render(mash, "film.mp4", "--start", "0.45")[0] == 0
    code, path, said, _ = render(mash, "late.mp4", "--start", "0.5")
    assert (code, said) == (1, "mashtun: the mash is over at 0.5 s: nothing to render\n")
    assert not path.exists()


def test_a_mash_without_clips_is_rendered_as_long_as_it_is_told(render):
    code, path, _, _ = render(mash_of(), "film.mp4", "--duration", "0.5")
    assert (code, len(pictures(path))) == (0, 5)


def test_a_mash_is_laid_out_on_the_frame_that_it_is_scaled_to(render):
    code, path, _, _ = render(mash_of(coloured()), "film.mp4", "--scale", "32x36")
    assert (code, {picture.shape for picture in pictures(path)}) == (0, {(36, 32, 3)})


@pytest.mark.parametrize(("limit", "count"), [("0.3", 3), ("9", 5)])
def test_a_limit_ends_a_mash_sooner_and_makes_none_longer(render, limit, count):
    code, path, _, last = render(mash_of(coloured()), "film.mp4", "--limit", limit)
    assert (code, len(pictures(path)), last["total"]) == (0, count, count)


def test_a_sound_whose_length_nobody_says_is_whole(render, tmp_path):
    sound = {"id": "s", "type": "audio", "source": str(lengthless(tmp_path / "a.aac"))}
    clip = {"contentId": "s", "containerId": "", "content": {}}
    code, path, _, _ = render({"mash": {"tracks": [{"clips": [clip]}]}, "definitions": [sound]}, "a.wav")
    assert code == 0
    with wave.open(str(path)) as file:
        assert file.getnframes() / file.getframerate() == pytest.approx(5, abs=0.11)  # in whole pictures


@pytest.mark.parametrize("out", ["a.mp3", "a.png"])
def test_a_sound_or_an_image_of_a_mash(render, media, out):
    sound = {"id": "s", "type": "audio", "source": str(media.path("hz8000"))}
    tracks = [{"clips": [coloured()]}, {"clips": [{"contentId": "s", "containerId": "", "content": {}, "frames": 5}]}]
    code, path, _, _ = render({"mash": {"tracks": tracks}, "definitions": [sound]}, out)
    assert (code, streams(path)) == (0, ["audio" if out == "a.mp3" else "video"])


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        (mash_of(), "there are no clips"),
        (mash_of({"contentId": "x"}), 'no definition "x"'),
        ({"mash": mash_of({"contentId": "f"}), "definitions": [{"id": "f", "type": "video", "source": "no.mp4"}]}, "f"),
        ({"mash": mash_of(coloured()), "definitions": 3}, "expected an array"),
    ],
)
def test_what_cannot_be_rendered_is_one_sentence(render, document, sentence):
    code, path, said, _ = render(document)
    assert code == 1
    assert sentence in said
    assert said.count("\n") == 1
    assert not path.exists()


def test_what_a_document_says_itself_goes_into_a_folder(render, tmp_path):
    (tmp_path / "out").mkdir()
    small = {"width": 64, "height": 36, "videoRate": 10}
    outputs = [
        {"outputType": "video", **small},
        {"outputType": "audio", "optional": True},
        {"outputType": "image", **small},
    ]
    code, path, _, last = render({"mash": mash_of(coloured()), "outputs": outputs}, "out")
    assert code == 0
    assert sorted(each.name for each in path.iterdir()) == ["image.jpg", "video.mp4"]
    assert last["result"] == {
        "outputs": [
            {"type": "video", "file": "video.mp4", "width": 64, "height": 36},
            {"type": "audio", "file": "audio.mp3", "width": 480, "height": 270, "warning": "found no audio"},
            {"type": "image", "file": "image.jpg", "width": 64, "height": 36},
        ],
        "duration": 0.5,
    }


def test_an_upload_that_does_not_say_how_long_it_is(render, tmp_path):
    (tmp_path / "out").mkdir()
    encode(tmp_path / "live.mkv", Video(rate=10), Audio(), live="1")
    outputs = [{"outputType": "audio", "optional": True}, {"outputType": "imagesequence", "width": 64, "height": 36}]
    definition = {"id": "u", "type": "video", "source": "live.mkv"}
    document = {"mash": mash_of({"contentId": "u"}), "definitions": [definition], "outputs": outputs, "upload": "video"}
    code, path, _, last = render(document, "out")
    assert code == 0
    assert last["result"]["duration"] == pytest.approx(1, abs=0.1)
    assert {"1.jpg", "9.jpg", "audio.mp3"} <= {each.name for each in path.iterdir()}
