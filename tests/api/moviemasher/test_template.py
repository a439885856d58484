"""A mash is a template: assets find their clips by label, properties go where they belong, outputs are chosen."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from api.moviemasher.mash import COLOUR_ID
from api.moviemasher.renders import film_of, fonts_of
from api.moviemasher.template import MEDIA, clips_of, locate, located, place, reads, unlocated, without_built_in
from engine.clip import Ink
from engine.errors import EngineError, InvalidJob, InvalidMash
from engine.spec import Raster
from engine.template import read_order

TEXT = "com.moviemasher.container.text"


def clip(label="", content="com.moviemasher.content.default", **members):
    return {"label": label, "contentId": content, "content": {}, "container": {}, **members}


def document(*clips, definitions=(), **members):
    mash = {"id": "m", "label": "card", "tracks": [{"clips": list(clips)}]}
    return json.dumps({"mash": mash, "definitions": list(definitions), **members}).encode()


def order(*assets, **template):
    given = {"src": "mash:m", "composition": "video"} | template
    return read_order({"template": given, "assets": list(assets)})


def placed(text, *assets, files=None, **template):
    """(scene, its document)."""
    scene = place(text, order(*assets, **template), files or [None] * len(assets))
    return scene, json.loads(scene.tree)


def put(text, layer, prop, value):
    """The first clip after a data asset."""
    asset = {"type": "data", "layerName": layer, "property": prop, "value": value}
    return next(clips_of(placed(text, asset)[1]))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (document(), True),
        (json.dumps({"cast": {"layers": []}}).encode(), True),
        (json.dumps({"tracks": []}).encode(), True),
        (b'{"rootVideoNode": {"node": "SolidColorNode"}}', False),
        (b"[1]", False),
        (b"{", False),
        (b"\xff", False),
    ],
)
def test_what_is_a_mash(text, expected):
    assert reads(text) is expected


@pytest.mark.parametrize(
    ("prop", "value", "where"),
    [
        ("color", "#ff0000", ("content", "color")),
        ("colorEnd", "#ff0000", ("content", "colorEnd")),
        ("content.color", "#ff0000", ("content", "color")),
        ("opacity", 0.5, ("container", "opacity")),
        ("x", 0.25, ("container", "x")),
        ("content.x", 0.25, ("content", "x")),
        ("string", "Ada", ("container", "string")),
        ("Source Text", "Ada", ("container", "string")),
        ("gain", 0, ("content", "gain")),
        ("frames", 30, ("frames",)),
        ("containerId", "heart", ("containerId",)),
    ],
)
def test_a_property_goes_where_it_belongs(prop, value, where):
    found = put(document(clip("name")), "name", prop, value)
    for key in where:
        found = found[key]
    assert found == value


def test_an_effects_parameter_is_reached_by_its_path():
    text = document(clip("name", content="f") | {"content": {"effects": [{"similarity": 1}]}})
    assert put(text, "name", "effects[0].similarity", 0.3)["content"]["effects"] == [{"similarity": 0.3}]


def test_null_gives_a_property_its_default():
    assert (
        "color"
        not in put(document(clip("name", content="c") | {"content": {"color": "#fff"}}), "name", "color", None)[
            "content"
        ]
    )


def test_a_new_text_is_measured_anew():
    text = document(clip("name", containerId=TEXT, container={"string": "A", "intrinsic": {"width": 1}}))
    assert put(text, "name", "string", "Ada")["container"] == {"string": "Ada"}


@pytest.mark.parametrize(
    ("asset", "sentence"),
    [
        ({"layerName": "nosuch", "property": "color", "value": 1}, "assets[0]: no clip 'nosuch' in the template"),
        ({"layerIndex": 3, "property": "color", "value": 1}, "assets[0]: no clip '3'"),
        ({"layerName": "name", "property": "tracks", "value": 1}, "assets[0].property 'tracks' is none of a clip"),
        ({"layerName": "name", "property": "content.nosuch", "value": 1}, "is none of a clip"),
        ({"layerName": "name", "property": "effects[7].x", "value": 1}, "is not there"),
        ({"layerName": "name", "property": "effects[²].x", "value": 1}, "is not there"),
    ],
)
def test_what_has_no_place(asset, sentence):
    with pytest.raises(InvalidJob) as caught:
        placed(document(clip("name") | {"content": {"effects": [{}]}}), {"type": "data", **asset})
    assert sentence in str(caught.value)


def test_what_may_be_missing_is_left_out():
    asset = {"type": "data", "layerName": "nosuch", "property": "color", "value": 1, "continueOnMissing": True}
    assert list(clips_of(placed(document(clip("name")), asset)[1])) == [clip("name")]


def test_the_mash_has_a_background():
    asset = {"type": "data", "layerName": "card", "property": "color", "value": "#00ff00"}
    assert placed(document(clip("name")), asset)[1]["mash"]["color"] == "#00ff00"


def test_media_become_a_clips_content_and_its_properties_stay():
    text = document(clip("a", content="old") | {"content": {"x": 0.1}}, clip("a"), clip("b"))
    asset = {"type": "image", "layerName": "a", "src": "face.png"}
    scene, value = placed(text, asset, files=["/tmp/face.png"])
    first, second, third = clips_of(value)
    assert (first["contentId"], first["content"]) == ("assets[0]", {"x": 0.1})
    assert (second["contentId"], third["contentId"]) == ("assets[0]", clip()["contentId"])
    (definition,) = value["definitions"]
    assert (definition["id"], definition["type"], definition["source"]) == ("assets[0]", "image", "/tmp/face.png")
    assert unlocated(scene) == []


def test_a_layer_may_be_a_definition_or_a_number():
    film = {"id": "f", "type": "video", "source": "f.mp4", "label": "holiday"}
    text = document(clip("a"), clip("b", content="f"), definitions=[film])
    for layer in ({"layerName": "f"}, {"layerName": "holiday"}, {"layerIndex": 2}, {"layerIndex": "2"}):
        _, value = placed(text, {"type": "video", "src": "x", **layer}, files=["/x.mp4"])
        assert [each["contentId"] for each in clips_of(value)] == [clip()["contentId"], "assets[0]"]


def test_several_assets_may_be_for_the_same_layer():
    text = document(clip("a", content="f"), definitions=[{"id": "f", "type": "video", "source": "f.mp4"}])
    data = {"type": "data", "layerName": "f", "property": "opacity", "value": 0.5}
    film = {"type": "video", "layerName": "f", "src": "x"}
    for assets in ([film, data], [data, film]):
        _, value = placed(text, *assets, files=[None if each is data else "/x.mp4" for each in assets])
        (found,) = clips_of(value)
        assert (found["contentId"], found["container"]) == (f"assets[{assets.index(film)}]", {"opacity": 0.5})
    named = data | {"layerName": "a", "property": "label", "value": "new"}
    _, value = placed(text, film | {"layerName": "new"}, named, files=["/x.mp4", None])  # data first
    assert [each["contentId"] for each in clips_of(value)] == ["assets[0]"]


def test_a_definition_that_masks_is_replaced_as_the_mask():
    shape = {"id": "g", "type": "image", "source": "g.png", "label": "shape"}
    clips = clip("a", content="red", containerId="g"), clip("b", content="g", containerId="g"), clip("c")
    text = document(*clips, definitions=[shape])
    for name in ("g", "shape"):
        _, value = placed(text, {"type": "image", "src": "x", "layerName": name}, files=["/x.png"])
        first, second, third = clips_of(value)
        assert (first["contentId"], first["containerId"]) == ("red", "assets[0]")
        assert (second["contentId"], second["containerId"]) == ("assets[0]", "assets[0]")
        assert third == clip("c")
    _, value = placed(text, {"type": "image", "src": "x", "layerName": "a"}, files=["/x.png"])
    assert [next(clips_of(value))[key] for key in ("contentId", "containerId")] == ["assets[0]", "g"]


def test_a_cast_is_counted_from_its_lowest_layer():
    layers = [{"type": "mash", "mash": {"tracks": [{"clips": [clip(label)]}]}} for label in ("top", "middle")]
    folder = {"type": "folder", "layers": [{"type": "mash", "mash": {"tracks": [{"clips": [clip("low")]}]}}]}
    cast = {"cast": {"layers": [*layers, folder]}}
    assert [each["label"] for each in clips_of(cast)] == ["low", "middle", "top"]


def test_only_what_is_used_is_looked_for():
    definitions = [
        {"id": "f", "type": "video", "source": "f.mp4"},
        {"id": "g", "type": "image", "url": "g.jpg"},
        {"id": "unused", "type": "image", "source": "u.jpg"},
        {"id": "heart", "type": "container", "path": "M0 0Z"},
        {"id": "com.moviemasher.font.default", "type": "font", "source": "https://fonts.example/css"},
        {"id": "own", "type": "font", "source": "own.ttf"},
        {"id": "sly", "type": "image", "source": "/etc/passwd", "located": True},
    ]
    fonts = [{"fontId": name} for name in ("com.moviemasher.font.default", "own")]
    clips = [clip(content=name) for name in ("f", "g", "sly", "f")] + [clip(container=each) for each in fonts]
    scene, _ = placed(document(*clips, definitions=definitions))
    assert unlocated(scene) == ["f.mp4", "g.jpg", "own.ttf", "/etc/passwd"]
    found = locate(scene, {"f.mp4": "/d/f.mp4", "g.jpg": "/d/g.jpg", "own.ttf": "/d/o.ttf", "/etc/passwd": "/d/p"})
    sources = {each["id"]: each.get("source") for each in json.loads(found.tree)["definitions"]}
    assert (sources["f"], sources["g"]) == ("/d/f.mp4", "/d/g.jpg")
    assert "unused" not in sources
    assert unlocated(found) == []


IDS = st.sampled_from(("f", "5", 5, 5.0, True, None, "", "?", "\ud800", ["f"]))
DEFINITION = st.fixed_dictionaries(
    {"id": IDS, "type": st.sampled_from((*MEDIA, "effect", "container", "clip", "theme", None, ["font"]))},
    optional={name: st.sampled_from(("/theirs", 5)) for name in ("source", "url", "audioUrl")}
    | {"located": st.booleans(), "duration": st.just(1), "path": st.just("M0 0Z")},
)
CLIP = st.fixed_dictionaries(
    {"contentId": IDS | st.just(COLOUR_ID), "containerId": IDS | st.just(TEXT)},
    optional={"fontId": IDS, "container": st.fixed_dictionaries({"fontId": IDS})},
)


@given(st.lists(DEFINITION, max_size=3), st.lists(CLIP, min_size=1, max_size=2))
@example([{"id": "f", "type": "effect", "source": "/theirs"}], [clip(containerId=TEXT, container={"fontId": "f"})])
@example([{"id": "5", "type": "font", "source": "/theirs"}], [clip(containerId=TEXT, container={"fontId": 5})])
@example([{"id": "?", "type": "font", "source": "/theirs"}], [clip(containerId=TEXT, container={"fontId": "\ud800"})])
def test_no_file_is_read_that_was_not_looked_for(definitions, clips):
    mash = {"tracks": [{"clips": clips}]}
    found = located({"mash": mash, "definitions": without_built_in(definitions)}, {"/theirs": "/mine"})
    try:
        film = film_of(found, Raster(64, 36), measure=lambda string, font: Ink(0, 9, 9))
    except InvalidMash:
        return
    files = {**fonts_of(found), **film.sources, **film.fonts}
    assert set(files.values()) <= {"/mine"}


@pytest.mark.parametrize(
    ("composition", "extension", "several"),
    [("video", "mp4", False), ("audio", "mp3", False), ("image", "jpg", False), ("*", "mp4", False),
     ("card", "mp4", False), ("imagesequence", "", True), ("waveform", "", True)],
)  # fmt: skip
def test_a_composition_is_a_kind_of_output(composition, extension, several):
    scene, value = placed(document(clip()), composition=composition)
    assert (scene.extension, scene.several) == (extension, several)
    assert bool(value["outputs"]) is several


def test_a_film_has_the_dialects_settings():
    options = placed(document(clip()))[0].options
    assert options["--size"] == "1920x1080"
    assert (options["--fps"], options["--audio-rate"], options["--gop"]) == ("30", "44100", "60")


@pytest.mark.parametrize(("extension", "rate"), [("webm", "48000"), ("mov", "44100")])
def test_a_film_of_another_extension_has_settings_that_it_can_have(extension, rate):
    scene, _ = placed(document(clip()), outputExt=extension)
    assert (scene.extension, scene.options["--audio-rate"]) == (extension, rate)


def test_the_documents_own_outputs():
    outputs = [{"outputType": "video", "basename": "film"}, {"outputType": "image", "basename": "cover"}]
    text = document(clip(), outputs=outputs)
    assert placed(text, composition="*")[1]["outputs"] == outputs
    scene, value = placed(text, composition="cover")
    assert (scene.several, value["outputs"]) == (True, outputs[1:])
    assert placed(text, composition="audio")[0].extension == "mp3"
    with pytest.raises(InvalidJob, match=r"'nosuch' is not one of video, .*, film, cover"):
        placed(text, composition="nosuch")
    with pytest.raises(InvalidMash, match="hologram"):
        placed(document(clip(), outputs=[{"outputType": "hologram"}]))


KEYS = [
    *("mash", "cast", "layers", "tracks", "clips", "content", "container", "contentId", "id", "label", "type"),
    *("definitions", "source", "outputs", "outputType", "effects", "string", "url", "fontId", "basename"),
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["a", "video", "f", "", "com.moviemasher.x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=25,
)


@given(
    JSON, st.sampled_from(["a", "f", "mash"]), st.sampled_from(["color", "string", "effects[0].x", "content", "x.y"])
)
def test_whatever_it_is_there_is_a_scene_or_a_sentence(mash, layer, prop):
    text = json.dumps({"mash": mash, **(mash if isinstance(mash, dict) else {})}).encode()
    if not reads(text):
        return
    data = {"type": "data", "layerName": layer, "property": prop, "value": 1, "continueOnMissing": True}
    film = {"type": "video", "layerIndex": 1, "src": "x", "continueOnMissing": True}
    try:
        scene, _ = placed(text, data, film, files=[None, "/x.mp4"], composition="*")
        found = locate(scene, {name: f"/{name}" for name in unlocated(scene)})
        assert unlocated(found) == []
    except EngineError as err:
        assert "\n" not in str(err)
