"""A job's document becomes options and a tree, or one sentence that names the field."""

import json

import pytest

from engine.errors import Invalid, InvalidJob
from engine.template import file_name, is_file_name, locate, place, read_order, unlocated

PICTURE = {"node": "VideoSourceNode", "id": "shot", "streamGuid": "cam", "at": 3}
BACK = {"node": "ImageSourceNode", "filename": "back.png", "opacity": 0.5}
TEXT = {"node": "TextNode", "id": "title", "string": "none"}
GROUP = {"node": "CompositorNode", "id": "main", "nodes": [BACK, PICTURE, TEXT]}
SOUND = {"node": "AudioSourceNode", "streamGuid": "cam"}
MUSIC = {"node": "AudioSourceNode", "id": "music", "streamGuid": "song"}
TREE = {"rootVideoNode": GROUP, "rootAudioNode": {"node": "SumNode", "nodes": [SOUND, MUSIC]}}


def order_of(*assets, **template):
    return read_order({"template": {"src": "x.json", "composition": "main"} | template, "assets": list(assets)})


def filled(*assets, tree=None, **template):
    """(picture nodes, sound nodes, sources) with the assets in place; each media asset's file is its src."""
    order = order_of(*assets, **template)
    files = [None if asset.type == "data" else asset.src for asset in order.assets]
    scene = place(json.dumps(tree or TREE).encode(), order, files)
    value = json.loads(scene.tree)
    return value["rootVideoNode"]["nodes"], value["rootAudioNode"]["nodes"], scene.sources


def media(kind="video", **fields):
    return {"type": kind, "src": "new"} | fields


def data(name, to, **fields):
    return {"type": "data", "property": name, "value": to, "layerName": "title"} | fields


@pytest.mark.parametrize("name", ["shot", "cam"])
def test_a_video_replaces_the_source_named_so(name):
    pictures, sounds, sources = filled(media(layerName=name))
    assert pictures[1] == PICTURE | {"streamGuid": "assets[0]"}
    assert sounds[0]["streamGuid"] == ("assets[0]" if name == "cam" else "cam")
    assert sources == {"assets[0]": "new"}


def test_an_image_may_take_the_place_of_a_video_and_the_other_way_round():
    pictures, _, _ = filled(media("image", layerName="shot"), media(layerName="back.png"))
    assert pictures[1] == {"node": "ImageSourceNode", "id": "shot", "filename": "assets[0]"}
    assert pictures[0] == {"node": "VideoSourceNode", "streamGuid": "assets[1]", "opacity": 0.5}


def test_several_assets_may_be_for_the_same_layer():
    film, music = media(layerName="cam"), media("audio", layerName="cam")
    gain = data("gain", -6, layerName=None, layerIndex=4)  # counted in the tree as it came
    for assets in ([film, music, gain], [gain, music, film]):
        pictures, sounds, _ = filled(*assets)
        assert pictures[1]["streamGuid"] == f"assets[{assets.index(film)}]"
        assert sounds[0] == SOUND | {"streamGuid": f"assets[{max(map(assets.index, (film, music)))}]", "gain": -6}
    pictures, _, _ = filled(media("image", layerName="back.png"), data("opacity", 0.2, layerName="back.png"))
    assert pictures[0] == BACK | {"filename": "assets[0]", "opacity": 0.2}


def test_media_find_their_place_in_what_data_make_of_the_tree():
    new = data("nodes", [PICTURE | {"id": "other"}, TEXT], layerName="main")
    for assets in ([new, media(layerName="other")], [media(layerName="other"), new]):
        pictures, _, _ = filled(*assets)
        assert pictures[0] == PICTURE | {"id": "other", "streamGuid": f"assets[{1 - assets.index(new)}]"}
    with pytest.raises(InvalidJob, match="no layer 'shot'"):
        filled(media(layerName="shot"), new)
    pictures, _, _ = filled(data("id", "first"), data("string", "then", layerName="first"))
    assert pictures[2] == TEXT | {"id": "first", "string": "then"}


@pytest.mark.parametrize("index", [2, "2"])
def test_a_layer_index_counts_sources_of_the_kind(index):
    pictures, sounds, _ = filled(media(layerIndex=index), media("audio", layerIndex=index))
    assert (pictures[0], pictures[1]["streamGuid"]) == (BACK, "assets[0]")
    assert [each["streamGuid"] for each in sounds] == ["assets[0]", "assets[1]"]


def test_a_video_that_is_counted_takes_along_the_sound_of_what_it_replaces_and_no_other():
    _, sounds, _ = filled(media(layerIndex=2))
    assert sounds == [SOUND | {"streamGuid": "assets[0]"}, MUSIC]


def test_data_sets_a_property():
    pictures, sounds, _ = filled(
        data("string", "Grüße"),
        data("destX", 12),
        data("gain", -6, layerName="music"),
        data("Source Text.fontSize", 20),
        data("opacity", None, layerName=None, layerIndex=1),
    )
    assert pictures[2] == TEXT | {"string": "Grüße", "destX": 12, "size": 20}
    assert sounds[1]["gain"] == -6
    assert "opacity" not in pictures[0]


@pytest.mark.parametrize(
    ("name", "to", "changed"),
    [
        *(("opacity", 0.5, 1), ("fit", "contain", 1), ("destX", 10, 1), ("effects", [{"effect": "sepia"}], 1)),
        *(("gain", -6, 2), ("pan", 50, 2), ("at", 1, 3)),  # 1: the picture, 2: the sound
    ],
)
def test_a_property_of_the_picture_or_the_sound_alone_is_set_where_it_is(name, to, changed):
    pictures, sounds, _ = filled(data(name, to, layerName="cam"))
    assert pictures[1] == PICTURE | ({name: to} if changed & 1 else {})
    assert sounds[0] == SOUND | ({name: to} if changed & 2 else {})


@pytest.mark.parametrize(
    ("number", "text"), [(2026, "2026"), (-1.5, "-1.5"), (2.0, "2"), (1e-7, "0.0000001"), (0, "0")]
)
def test_a_number_for_a_text_is_its_digits(number, text):
    assert filled(data("Source Text", number))[0][2]["string"] == text


def test_data_reaches_into_effects():
    tree = {"rootVideoNode": {"node": "CompositorNode", "nodes": [PICTURE | {"mask": TEXT}]}, "rootAudioNode": MUSIC}
    order = order_of(data("mask.string", "x", layerName="shot"))
    value = json.loads(place(json.dumps(tree).encode(), order, [None]).tree)
    assert value["rootVideoNode"]["nodes"][0]["mask"]["string"] == "x"


def test_a_composition_is_the_part_below_the_node_of_that_id():
    side = {"node": "CompositorNode", "id": "side", "nodes": [TEXT | {"string": "side"}]}
    tree = TREE | {"rootVideoNode": GROUP | {"nodes": [TEXT, side]}}
    for composition, found in (("side", ("none", "x")), ("main->side", ("none", "x")), ("*", ("x", "x"))):
        pictures, _, _ = filled(data("string", "x", composition=composition), tree=tree)
        assert (pictures[0]["string"], pictures[1]["nodes"][0]["string"]) == found


@pytest.mark.parametrize(
    ("asset", "sentence"),
    [
        (media(layerName="nobody"), r"assets\[0\]: no layer 'nobody' in the template"),
        (media(layerIndex=9), r"assets\[0\]: no layer '9'"),
        (media("audio", layerName="shot"), "no layer 'shot'"),
        (data("strnig", "x"), "property 'strnig' is none of TextNode"),
        (data("string", "x", layerName="cam"), "property 'string' is none of VideoSourceNode"),
        (data("node", "x"), "property 'node'"),
        (data("string.length", 1), r"property 'string\.length'"),
        (data("string", True), "string"),
        (data("color", 5), "color"),
        (data("opacity", 2), "opacity"),
        ({"type": "data", "layerName": "title", "property": "string", "expression": "time"}, "only runs in After"),
        ({"type": "script", "src": "x.jsx"}, "only runs in After Effects"),
        ({"type": "font", "src": "x"}, "is unknown"),
        (media("image", layerName="shot", sequence=True), r"assets\[0\]\.sequence is not supported"),
        (media(layerName="shot", sequence=1), r"assets\[0\]\.sequence is not supported"),
        ({"type": "video"}, r"assets\[0\]\.src is missing"),
        ({"type": 5}, r"assets\[0\]"),
        (None, "is not an object"),
    ],
)
def test_an_asset_that_cannot_be_placed(asset, sentence):
    with pytest.raises(Invalid, match=sentence):
        filled(asset)


@pytest.mark.parametrize("sequence", [None, False, 0, ""])
def test_an_asset_may_say_that_it_is_no_sequence(sequence):
    pictures, _, _ = filled(media("image", layerName="shot", sequence=sequence))
    assert pictures[1]["filename"] == "assets[0]"


def test_missing_layers_may_be_left_out():
    assert filled(media(layerName="nobody", continueOnMissing=True))[2] == {}
    assert filled(media(layerName="nobody"), continueOnMissing=True)[2] == {}


def test_other_sources_are_located_and_patterns_stay():
    tree = {"rootVideoNode": PICTURE | {"streamGuid": "http://x/?a=b"}, "rootAudioNode": MUSIC}
    scene = place(json.dumps(tree).encode(), order_of(), [])
    assert unlocated(scene) == ["http://x/?a=b", "song"]
    found = locate(scene, {"http://x/?a=b": "/tmp/a.mp4"})
    assert found.sources == {"source 0": "/tmp/a.mp4"}
    assert json.loads(found.tree)["rootVideoNode"]["streamGuid"] == "source 0"
    assert unlocated(found) == ["song"]


def test_a_font_may_be_a_file_of_the_job():
    tree = {"rootVideoNode": {"node": "CompositorNode", "nodes": [TEXT, TEXT | {"font": "my.ttf"}]}}
    scene = place(json.dumps(tree).encode(), order_of(), [])
    assert unlocated(scene) == []
    assert locate(scene, {"my.ttf": "/tmp/f.ttf", "": "/tmp/x"}).sources == {"my.ttf": "/tmp/f.ttf"}


@pytest.mark.parametrize(
    ("template", "options"),
    [
        ({}, {}),
        ({"width": 64, "height": 36.0, "frameRate": 29.97}, {"--size": "64x36", "--fps": "29.97"}),
        ({"outputSettings": {"bitRate": 5, "duration": "1/2"}}, {"--bit-rate": "5", "--duration": "1/2"}),
        ({"outputModule": "slow"}, {"--preset": "slow"}),
        ({"outputModule": "Lossless"}, {"--quality": "0"}),
        ({"outputModule": "High Quality"}, {"--quality": "12"}),
        (
            {"outputModule": "H.264 - Match Render Settings - 15 Mbps"},
            {"--bit-rate": "15000000", "--max-bit-rate": "30000000"},
        ),
        ({"frameStart": 30, "frameEnd": 59}, {"--start": "1/1", "--duration": "1/1"}),
        ({"duration": 100 / 30}, {"--duration": "3.3333333333333335"}),
        ({"duration": 5e-05}, {"--duration": "0.00005"}),
        ({"frameEnd": 0, "frameRate": 25}, {"--fps": "25", "--start": "0/1", "--duration": "1/25"}),
        ({"frameStart": 15, "duration": 2}, {"--duration": "3/2", "--start": "1/2"}),
    ],
)
def test_settings_become_options(template, options):
    assert order_of(**template).options == options


@pytest.mark.parametrize(
    ("template", "where"),
    [
        ({"src": 5}, "src"),
        ({"width": 64}, "width"),
        ({"duration": True}, "duration"),
        ({"outputModule": "ProRes"}, "outputModule"),
        ({"outputSettings": {"widht": 5}}, "outputSettings.widht"),
        ({"outputExt": "../x"}, "outputExt"),
        ({"imageSequence": True}, "imageSequence"),
        ({"incrementFrame": 2}, "incrementFrame"),
        ({"frameStart": 1.5}, "frameStart"),
        ({"frameStart": 5, "frameEnd": 4}, "frameEnd"),
        ({"frameStart": 5, "frameRate": "x"}, "template"),
    ],
)
def test_settings_without_a_meaning(template, where):
    with pytest.raises(InvalidJob) as caught:
        order_of(**template)
    assert where in caught.value.where


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("https://x.org/a/b.mp4?x/y#z", "b.mp4"),
        ("a/b #1?.mp4", "b #1?.mp4"),
        ("file:///a/b #1?.mp4", "b #1?.mp4"),
        ("..", "f"),
        ("", "f"),
        ("c:\\x.mov", "c:_x.mov"),
        ("a\x7f.mov", "a_.mov"),
        ("x" * 300, "x" * 200),
        ("映" * 75 + ".mp4", "映" * 65 + ".mp4"),
    ],
)
def test_names_of_files(text, name):
    assert file_name(text, "f") == name
    assert is_file_name(name)


@pytest.mark.parametrize("text", ["", ".", "..", "a/b.mp4", "a\\b.mp4", "a\0", "a\n", "x" * 201, "映" * 67])
def test_what_is_no_name_of_a_file(text):
    assert not is_file_name(text)


def test_params_are_the_headers_of_an_http_request():
    headers = {"Authorization": "Bearer x"}
    order = order_of(media(params={"headers": headers, "agent": 1}), media(), params={"headers": headers})
    assert [each.params.headers for each in (order, *order.assets)] == [headers, headers, {}]
    for params in ("x", {"headers": "s3cret"}, {"headers": {"a": ["s3cret"]}}):
        with pytest.raises(InvalidJob, match=r"assets\[0\]: Expected .*params") as error:
            order_of(media(params=params))
        assert "s3cret" not in str(error.value)
        with pytest.raises(InvalidJob, match=r"template\.params: Expected"):
            order_of(params=params)


@pytest.mark.parametrize("params", [[], None, {}, {"headers": []}, {"headers": None}, {"headers": {}}])
def test_params_that_say_nothing_are_none_also_as_php_writes_them(params):
    order = order_of(media(params=params), params=params)
    assert [each.params.headers for each in (order, *order.assets)] == [{}, {}]
