"""A RenderTree is read leniently where the vendor's pages are lax, refused with one sentence and the JSON path where it
has no meaning, and reads back as it was put.
"""

import copy
import json
import math

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import tree as module
from engine.errors import InvalidTree
from engine.tree import (
    AudioSourceNode,
    CompositorNode,
    ImageSourceNode,
    RenderTree,
    SolidColorNode,
    SumNode,
    VideoSourceNode,
    check,
    decibels_of,
    factor_of,
    nodes_of,
    trees_from_json,
    voices_of,
    walk,
)
from tests.strategies import JSON, all_trees, damaged, numbers

COLOUR = {"node": "SolidColorNode"}
EFFECTS = "blur, chromakey, colorchannelmixer, colorize, convolution, crop, emboss, grayscale, opacity, sepia, sharpen"
VOICE = {"node": "AudioSourceNode", "streamGuid": "a"}


def picture(**fields):
    return {"rootVideoNode": {"node": "VideoSourceNode", "streamGuid": "live/stream1", **fields}}


def image(**fields):
    return {"rootVideoNode": {"node": "ImageSourceNode", "filename": "logo.png", **fields}}


def colour(**fields):
    return {"rootVideoNode": {**COLOUR, **fields}}


def text(**fields):
    return {"rootVideoNode": {"node": "TextNode", "string": "Hello", **fields}}


def shape(**fields):
    return {"rootVideoNode": {"node": "ShapeNode", "path": "M0 0h9v9z", **fields}}


def effect(name, **parameters):
    return picture(effects=[{"effect": "blur"}, {"effect": name, "parameters": parameters}])


def voice(**fields):
    return {"rootAudioNode": {**VOICE, **fields}}


def group(*nodes, **fields):
    return {"rootVideoNode": {"node": "CompositorNode", "nodes": list(nodes), **fields}}


def sound_sum(*nodes, **fields):
    return {"rootAudioNode": {"node": "SumNode", "nodes": list(nodes), **fields}}


def nested(depth, kind="CompositorNode"):
    """A root of `depth` groups within each other."""
    node = {"node": kind, "nodes": []}
    for _ in range(depth - 1):
        node = {"node": kind, "nodes": [node]}
    return {"rootVideoNode" if kind == "CompositorNode" else "rootAudioNode": node}


def read(document):
    return RenderTree.from_json(document if isinstance(document, bytes | str) else json.dumps(document))


def refusal(document):
    """(sentence, path) of the InvalidTree that reading the document raises."""
    with pytest.raises(InvalidTree) as caught:
        trees_from_json(document if isinstance(document, bytes | str) else json.dumps(document))
    return str(caught.value), caught.value.where


# --- numbers ---------------------------------------------------------------------------------------------------------

LIMITS = [
    *[(make, name, 0, high) for make in (picture, image) for name, high in (("sourceX", 7680), ("sourceY", 4320))],
    *[
        (make, name, -1, high)
        for make in (picture, image)
        for name, high in (("sourceWidth", 7680), ("sourceHeight", 4320))
    ],
    *[
        (make, name, -high, high)
        for make in (picture, image, colour, text, shape)
        for name, high in (("destX", 7680), ("destY", 4320), ("destWidth", 7680), ("destHeight", 4320))
    ],
    *[(colour, name, 0, 1) for name in ("red", "green", "blue", "alpha", "opacity")],
    *[(make, "opacity", 0, 1) for make in (picture, image, group, text, shape)],
    *[(picture, name, 0, 10_000_000) for name in ("at", "until")],
    (voice, "pan", -100, 100),
    (voice, "gain", -100, 20),
    (voice, "monoGain", -100, 20),
    (sound_sum, "gain", -100, 20),
]


def root(tree):
    return tree.root_video_node or tree.root_audio_node


def snake(name):
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


@pytest.mark.parametrize(("make", "name", "low", "high"), LIMITS)
def test_number_is_taken_at_its_limits_and_refused_beyond(make, name, low, high):
    for value in (low, high, float(low), float(high)):
        assert getattr(root(read(make(**{name: value}))), snake(name)) == value
    (branch,) = make()
    for value in (low - 1, low - 1e-9, -1e308, -(10**400)):
        assert refusal(make(**{name: value})) == (f"$.{branch}.{name}: expected a number ≥ {low}", f"$.{branch}.{name}")
    for value in (high + 1, high + 1e-8, 1e308, 10**400):
        assert refusal(make(**{name: value})) == (
            f"$.{branch}.{name}: expected a number ≤ {high}",
            f"$.{branch}.{name}",
        )


@pytest.mark.parametrize(("make", "name", "low", "high"), LIMITS)
def test_numeric_string_is_a_number_with_the_same_limits(make, name, low, high):
    for value in (low, high):
        node = root(read(make(**{name: str(value)})))
        assert getattr(node, snake(name)) == value
        assert not isinstance(getattr(node, snake(name)), str)
    assert refusal(make(**{name: str(low - 1)}))[0].endswith(f".{name}: expected a number ≥ {low}")
    assert refusal(make(**{name: str(high + 1)}))[0].endswith(f".{name}: expected a number ≤ {high}")


@pytest.mark.parametrize(("make", "name", "low", "high"), LIMITS)
@pytest.mark.parametrize(
    ("value", "got"),
    [(True, "a boolean"), (False, "a boolean"), ([], "an array"), ({}, "an object"), ("x", "a string")],
)
def test_other_types_are_no_numbers(make, name, low, high, value, got):
    (branch,) = make()
    assert refusal(make(**{name: value})) == (f"$.{branch}.{name}: expected a number, got {got}", f"$.{branch}.{name}")


@pytest.mark.parametrize(
    ("text", "value"), [("10", 10), ("10.5", 10.5), ("-3", -3), ("1e3", 1000), ("0", 0), ("-0.25", -0.25)]
)
def test_string_is_read_as_the_number_it_writes(text, value):
    assert root(read(picture(destX=text))).dest_x == value


@pytest.mark.parametrize("text", ["", " 10 ", "10px", "0x10", "1_000", "true", "10,5", "٣", "1" * 5000])
def test_string_that_writes_no_number_is_refused(text):
    sentence, path = refusal(picture(destX=text))
    assert sentence.startswith("$.rootVideoNode.destX: ")
    assert path == "$.rootVideoNode.destX"


@pytest.mark.parametrize("text", ["NaN", "nan", "Infinity", "-inf", "1e999"])
@pytest.mark.parametrize(("make", "name", "low", "high"), LIMITS)
def test_no_string_becomes_nan_or_infinite(make, name, low, high, text):
    sentence = refusal(make(**{name: text}))[0].split(": ")[1]
    assert sentence.startswith(("expected a number ≥", "expected a number ≤", "number out of range"))


def test_fractions_are_kept():
    node = root(read(picture(destX=10.5, sourceWidth=99.25)))
    assert (node.dest_x, node.source_width) == (10.5, 99.25)


def test_absent_null_and_minus_one_are_kept_apart():
    absent, null, minus_one = (root(read(picture(**f))) for f in ({}, {"sourceWidth": None}, {"sourceWidth": -1}))
    assert (absent.source_width, null.source_width, minus_one.source_width) == (None, None, -1)


@pytest.mark.parametrize("name", ["opacity", "fit"])
def test_null_is_no_opacity_and_no_fit(name):
    assert refusal(picture(**{name: None}))[1] == f"$.rootVideoNode.{name}"


# --- strings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "name", "longest"),
    [(picture, "streamGuid", 1024), (voice, "streamGuid", 1024), (image, "filename", 1024), (colour, "id", 256)],
)
def test_name_is_1_to_its_limit_long(make, name, longest):
    (branch,) = make()
    path = f"$.{branch}.{name}"
    assert getattr(root(read(make(**{name: "é" * longest}))), snake(name)) == "é" * longest
    assert refusal(make(**{name: "é" * (longest + 1)})) == (f"{path}: expected a string of length ≤ {longest}", path)
    assert refusal(make(**{name: ""})) == (f"{path}: expected a string of length ≥ 1", path)
    assert refusal(make(**{name: 5})) == (f"{path}: expected a string, got a number", path)
    assert refusal(make(**{name: True})) == (f"{path}: expected a string, got a boolean", path)


def test_name_that_looks_like_a_number_stays_a_name():
    assert root(read(picture(streamGuid="007"))).stream_guid == "007"


def test_unknown_fit_is_refused():
    assert refusal(picture(fit="squeeze")) == (
        "$.rootVideoNode.fit: invalid enum value 'squeeze'",
        "$.rootVideoNode.fit",
    )


# --- nodes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("document", "sentence", "path"),
    [
        (group(COLOUR, {"node": "X"}), "invalid value 'X'", "$.rootVideoNode.nodes[1].node"),
        (group(VOICE), "invalid value 'AudioSourceNode'", "$.rootVideoNode.nodes[0].node"),
        (
            sound_sum({"node": "SumNode", "nodes": [{"node": "X"}]}),
            "invalid value 'X'",
            "$.rootAudioNode.nodes[0].nodes[0].node",
        ),
        ({"rootVideoNode": {"node": "SumNode"}}, "invalid value 'SumNode'", "$.rootVideoNode.node"),
        ({"rootVideoNode": {"node": 5}}, "expected a string, got a number", "$.rootVideoNode.node"),
        ({"rootVideoNode": {}}, "object missing required field `node`", "$.rootVideoNode"),
        ({"rootVideoNode": []}, "expected an object, got an array", "$.rootVideoNode"),
        (group(None), "expected an object, got null", "$.rootVideoNode.nodes[0]"),
        (group(nodes={}), "expected an array, got an object", "$.rootVideoNode.nodes"),
        (group(nodes=None), "expected an array, got null", "$.rootVideoNode.nodes"),
        (group({"node": "VideoSourceNode"}), "object missing required field `streamGuid`", "$.rootVideoNode.nodes[0]"),
        (group({"node": "ImageSourceNode"}), "object missing required field `filename`", "$.rootVideoNode.nodes[0]"),
        (group({"node": "TextNode"}), "object missing required field `string`", "$.rootVideoNode.nodes[0]"),
        (group({"node": "ShapeNode"}), "object missing required field `path`", "$.rootVideoNode.nodes[0]"),
        (group(mask=VOICE), "invalid value 'AudioSourceNode'", "$.rootVideoNode.mask.node"),
        (group(mask={**COLOUR, "red": 2}), "expected a number ≤ 1", "$.rootVideoNode.mask.red"),
        (colour(effects=[{"effect": "x"}], mask=effect("x")["rootVideoNode"]), f'"x" is not one of {EFFECTS}',
         "$.rootVideoNode.mask.effects[1].effect"),
        (text(string="x" * 10_001), "expected a string of length ≤ 10000", "$.rootVideoNode.string"),
        (shape(path="x" * 100_001), "expected a string of length ≤ 100000", "$.rootVideoNode.path"),
        (text(size=0.0), "expected a number > 0", "$.rootVideoNode.size"),
        (text(size=100_001), "expected a number ≤ 100000", "$.rootVideoNode.size"),
        (shape(pathX=-100_001), "expected a number ≥ -100000", "$.rootVideoNode.pathX"),
        (shape(pathWidth=-0.5), "expected a number > 0", "$.rootVideoNode.pathWidth"),
        (text(font=""), "expected a string of length ≥ 1", "$.rootVideoNode.font"),
        (text(align="justify"), "invalid enum value 'justify'", "$.rootVideoNode.align"),
        (text(vertical="left"), "invalid enum value 'left'", "$.rootVideoNode.vertical"),
        (text(fit="cover"), "invalid enum value 'cover'", "$.rootVideoNode.fit"),
        (text(wrap="perhaps"), "expected a boolean, got a string", "$.rootVideoNode.wrap"),
        (text(color="red"), '"red" is no colour like "#rrggbb"', "$.rootVideoNode.color"),
        (shape(color="#12345"), '"#12345" is no colour like "#rrggbb"', "$.rootVideoNode.color"),
        (voice(speed=0.05), "expected a number ≥ 0.1", "$.rootAudioNode.speed"),
        (voice(speed=2.5), "expected a number ≤ 2", "$.rootAudioNode.speed"),
        ([{}, group(COLOUR, {**COLOUR, "red": 2})], "expected a number ≤ 1", "$[1].rootVideoNode.nodes[1].red"),
        ({"rootNodes": [{}, voice(gain=30)]}, "expected a number ≤ 20", "$.rootNodes[1].rootAudioNode.gain"),
        ({"rootVideoNode": {"node": "X - at `$.y`"}}, "invalid value 'X - at `$.y`'", "$.rootVideoNode.node"),
    ],
)  # fmt: skip
def test_wrong_node_is_refused_where_it_stands(document, sentence, path):
    assert refusal(document) == (f"{path}: {sentence}", path)


@pytest.mark.parametrize("field", ["sourceX", "sourceY", "sourceWidth", "sourceHeight"])
def test_a_share_is_no_more_than_the_whole(field):
    whole = read(picture(sourceUnit="share", **{field: 1 + 1e-9}))
    assert root(whole).source_unit == "share"
    path = f"$.rootVideoNode.{field}"
    sentence = f"{path}: 160 is more than 1, the whole of a share"
    assert refusal(picture(sourceUnit="share", **{field: 160})) == (sentence, path)


@pytest.mark.parametrize(
    ("document", "sentence", "path"),
    [
        (effect("bluur"), f'"bluur" is not one of {EFFECTS}', ".effect"),
        (effect("blur", matrix="1"), "blur has no such parameter", ".parameters.matrix"),
        (effect("chromakey", similarity=1.5), "1.5 is not within 0…1", ".parameters.similarity"),
        (effect("chromakey", blend="-1"), "-1 is not within 0…1", ".parameters.blend"),
        (effect("chromakey", blend="much"), '"much" is no number', ".parameters.blend"),
        (effect("chromakey", blend="1e999"), "1e+300 is not within 0…1", ".parameters.blend"),
        (effect("chromakey", blend=10**400), "1e+300 is not within 0…1", ".parameters.blend"),
        (effect("chromakey", color="green"), '"green" is no colour like "#rrggbb"', ".parameters.color"),
        (effect("chromakey", color=5), '"5" is no colour like "#rrggbb"', ".parameters.color"),
        (effect("convolution", matrix="1 2 3"), "not nine numbers", ".parameters.matrix"),
        (effect("convolution", matrix="1 2 3 4 5 6 7 8 x"), "not nine numbers", ".parameters.matrix"),
        (effect("convolution", matrix="0 0 0 0 99 0 0 0 0", multiplier=99), "a factor is beyond ±1000",
         ".parameters.matrix"),
        (effect("colorchannelmixer", rr=3), "3 is not within -2…2", ".parameters.rr"),
        (effect("colorchannelmixer", rx=1), "colorchannelmixer has no such parameter", ".parameters.rx"),
        (effect("crop", x=-1), "-1 is not within 0…100000", ".parameters.x"),
        (effect("opacity", opacity=[]), "expected a number or a string, got an array", ".parameters[...]"),
    ],
)  # fmt: skip
def test_wrong_effect_is_refused_where_it_stands(document, sentence, path):
    where = "$.rootVideoNode.effects[1]" + path
    assert refusal(document) == (f"{where}: {sentence}", where)


def test_effects_of_a_node_are_16_at_most():
    assert read(picture(effects=[{"effect": "blur"}] * 16))
    where = "$.rootVideoNode.effects"
    assert refusal(image(effects=[{"effect": "blur"}] * 17)) == (f"{where}: more than 16 effects", where)


def test_a_long_wrong_name_does_not_make_a_long_sentence():
    sentence, path = refusal({"rootVideoNode": {"node": "x" * 100_000}})
    assert len(sentence) < 400
    assert path == "$.rootVideoNode.node"


def test_unknown_fields_are_ignored():
    document = {**picture(zIndex=7, sourceXX=[None]), "comment": {"any": ["thing"]}}
    assert read(document) == read(picture())
    assert json.loads(read(document).to_json()) == picture()


@pytest.mark.parametrize("kind", ["CompositorNode", "SumNode"])
def test_tree_is_16_nodes_deep_at_most(kind):
    branch = "rootVideoNode" if kind == "CompositorNode" else "rootAudioNode"
    assert json.loads(read(nested(16, kind)).to_json()) == nested(16, kind)
    path = f"$.{branch}" + ".nodes[0]" * 16
    for depth in (17, 100, 250):
        assert refusal(nested(depth, kind)) == (f"{path}: deeper than 16 nodes", path)


def test_what_is_deeper_than_512_levels_is_refused_by_that_and_no_deeper_limit_of_python():
    masks = '{"node":"SolidColorNode","mask":' * 511 + "{}" + "}" * 511
    assert refusal('{"rootVideoNode":' + masks + "}") == ("$: nested deeper than 512 levels", "$")
    values = {"node": "SolidColorNode", "mask": json.loads("[" * 508 + "]" * 508)}
    assert refusal({"rootVideoNode": values})[1] == "$.rootVideoNode.mask"
    values["mask"] = [[values["mask"]]]
    assert refusal({"rootVideoNode": values})[1] == "$.rootVideoNode.mask"
    values["mask"] = [values["mask"]]
    assert refusal({"rootVideoNode": values}) == ("$: nested deeper than 512 levels", "$")


def test_deep_masks_are_refused():
    deep = '{"node":"SolidColorNode","mask":' * 500 + '{"node":"SolidColorNode"}' + "}" * 500
    deepest = "$.rootVideoNode" + ".mask" * 16
    assert refusal('{"rootVideoNode":' + deep + "}") == (f"{deepest}: deeper than 16 nodes", deepest)


def test_masks_count_as_nodes():
    assert sum(1 for _ in walk(read(group(*[{**COLOUR, "mask": COLOUR}] * 127)))) == 255
    path = "$.rootVideoNode.nodes[127].mask"
    assert refusal(group(*[{**COLOUR, "mask": COLOUR}] * 128)) == (f"{path}: more than 256 nodes", path)


def test_tree_has_256_nodes_at_most_in_both_branches_together():
    full = {**group(*[COLOUR] * 127), **sound_sum(*[VOICE] * 127)}
    assert sum(1 for _ in walk(read(full))) == 256
    more = {**group(*[COLOUR] * 127), **sound_sum(*[VOICE] * 128)}
    assert refusal(more) == ("$.rootAudioNode.nodes[127]: more than 256 nodes", "$.rootAudioNode.nodes[127]")
    assert refusal([{}, group(*[COLOUR] * 5000)])[1] == "$[1].rootVideoNode.nodes[255]"


def test_check_holds_for_trees_built_in_python_too():
    check(RenderTree(root_video_node=CompositorNode(nodes=(SolidColorNode(),) * 255)))
    with pytest.raises(InvalidTree, match="more than 256 nodes"):
        check(RenderTree(root_video_node=CompositorNode(nodes=(SolidColorNode(),) * 256)))


def test_walk_names_every_node_parents_first_in_painting_order():
    tree = read({**group(COLOUR, nested(2)["rootVideoNode"], COLOUR, mask=COLOUR), **sound_sum(VOICE)})
    assert [(path, depth, type(node).__name__) for path, depth, node in walk(tree)] == [
        ("$.rootVideoNode", 1, "CompositorNode"),
        ("$.rootVideoNode.nodes[0]", 2, "SolidColorNode"),
        ("$.rootVideoNode.nodes[1]", 2, "CompositorNode"),
        ("$.rootVideoNode.nodes[1].nodes[0]", 3, "CompositorNode"),
        ("$.rootVideoNode.nodes[2]", 2, "SolidColorNode"),
        ("$.rootVideoNode.mask", 2, "SolidColorNode"),
        ("$.rootAudioNode", 1, "SumNode"),
        ("$.rootAudioNode.nodes[0]", 2, "AudioSourceNode"),
    ]


# --- documents -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["{}", '{"rootVideoNode":null}', '{"rootVideoNode":null,"rootAudioNode":null}', b"\xef\xbb\xbf{}", "\ufeff{}"],
)
def test_absent_branches_are_black_and_silence(text):
    assert read(text) == RenderTree()


@pytest.mark.parametrize("text", ['[{"id":"sub1","name":"x"}]', '{"rootNodes":[{"name":"x"}]}'])
def test_a_tree_among_others_may_have_unknown_fields_and_no_branch(text):
    assert trees_from_json(text) == (RenderTree(),)


def test_array_rootnodes_and_a_bare_tree_are_the_same():
    one, two = picture(), voice()
    assert trees_from_json(json.dumps([one, two])) == trees_from_json(json.dumps({"rootNodes": [one, two]}))
    assert trees_from_json(json.dumps(one)) == trees_from_json(json.dumps([one])) == (read(one),)
    assert trees_from_json("[]") == trees_from_json('{"rootNodes":[]}') == ()


@pytest.mark.parametrize(
    ("text", "sentence", "path"),
    [
        ("[]", "0 RenderTrees where one is wanted", "$"),
        ("[{},{}]", "2 RenderTrees where one is wanted", "$"),
        ('{"rootNodes":[{},{}]}', "2 RenderTrees where one is wanted", "$.rootNodes"),
        ('[{"name":"x"}]', "neither rootVideoNode nor rootAudioNode", "$[0]"),
    ],
)
def test_where_one_tree_is_wanted_others_are_refused(text, sentence, path):
    with pytest.raises(InvalidTree) as caught:
        RenderTree.from_json(text)
    assert (str(caught.value), caught.value.where) == (f"{path}: {sentence}", path)


@pytest.mark.parametrize(
    ("text", "sentence", "path"),
    [
        ("null", "expected a RenderTree object, got null", "$"),
        ("5", "expected a RenderTree object, got a number", "$"),
        ("true", "expected a RenderTree object, got a boolean", "$"),
        ('"x"', "expected a RenderTree object, got a string", "$"),
        ("[{},[]]", "expected a RenderTree object, got an array", "$[1]"),
        ('{"rootNodes":[null]}', "expected a RenderTree object, got null", "$.rootNodes[0]"),
        ('{"rootNodes":{}}', "expected an array, got an object", "$.rootNodes"),
        ('{"rootNodes":null}', "expected an array, got null", "$.rootNodes"),
        ('{"nodes":[]}', "neither rootVideoNode nor rootAudioNode", "$"),
    ],
)  # fmt: skip
def test_what_is_no_document_is_refused(text, sentence, path):
    assert refusal(text) == (f"{path}: {sentence}", path)


def test_one_wrong_tree_refuses_them_all():
    assert refusal([picture(), {}, picture(destX=9999)])[1] == "$[2].rootVideoNode.destX"


def test_document_has_1_mib_at_most_in_bytes():
    limit = 1 << 20
    tree = json.dumps(picture(), ensure_ascii=False)
    assert read(tree.ljust(limit)) == read(tree.ljust(limit).encode()) == read(tree)
    for text in (tree.ljust(limit + 1), tree.ljust(limit + 1).encode(), " é" * (limit // 3) + tree):
        size = len(text) if isinstance(text, bytes) else len(text.encode())
        assert refusal(text) == (f"$: {size} bytes of JSON, more than {limit}", "$")


# --- reading back ----------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(all_trees())
def test_tree_is_what_its_json_says(tree):
    assert read(tree.to_json()) == tree
    assert trees_from_json(b"[" + tree.to_json() + b"]") == (tree,)


def test_empty_groups_read_back_with_their_nodes():
    document = {
        "rootVideoNode": {"node": "CompositorNode", "nodes": []},
        "rootAudioNode": {"node": "SumNode", "nodes": []},
    }
    assert json.loads(read(document).to_json()) == document
    without = {branch: {"node": node["node"]} for branch, node in document.items()}
    assert json.loads(read(without).to_json()) == document


def test_extensions_at_their_defaults_are_left_out():
    document = {**picture(opacity=1, fit="fill", effects=[], at=None, id=None), **voice(speed=1, monoGain=0, at=None)}
    assert json.loads(read(document).to_json()) == {**picture(), **voice()}
    assert json.loads(read(sound_sum(gain=0)).to_json()) == sound_sum()


def test_strings_read_back_as_the_numbers_they_write():
    assert json.loads(read(picture(destX="10", sourceWidth="99.5")).to_json()) == picture(destX=10, sourceWidth=99.5)


def test_extensions_that_were_put_read_back():
    found = {"effect": "chromakey", "parameters": {"color": "#00ff00", "blend": 0.1}}
    fields = {"id": "x", "opacity": 0.5, "at": 3.2, "fit": "cover", "mask": COLOUR, "effects": [found]}
    assert json.loads(read(group(picture(**fields)["rootVideoNode"], id="g", opacity=0)).to_json()) == group(
        picture(**fields)["rootVideoNode"], id="g", opacity=0
    )


def test_texts_and_shapes_read_back():
    words = {"font": "DejaVu Sans", "size": 20.5, "color": "#0f08", "align": "right", "vertical": "line"}
    for document in (text(), text(**words, wrap=True, fit="fill", destWidth=-50, mask=COLOUR), text(string="")):
        assert json.loads(read(document).to_json()) == document
    view = {"pathX": -7.5, "pathY": 3, "pathWidth": 24, "pathHeight": 0.5}
    for document in (shape(), shape(**view, color="#123456", opacity=0.5)):
        assert json.loads(read(document).to_json()) == document


def vendor_nodes():
    """(video node, audio node) as JSON, of Brew Mixer's fields only."""
    names = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=20)
    unit, x, y = numbers(0, 1), numbers(0, 7680), numbers(0, 4320)
    rectangle = {
        "sourceX": x, "sourceY": y, "sourceWidth": st.just(-1) | x, "sourceHeight": st.just(-1) | y,
        "destX": x, "destY": y, "destWidth": numbers(-7680, 7680), "destHeight": numbers(-4320, 4320),
    }  # fmt: skip

    def node(kind, required, optional):
        return st.fixed_dictionaries({"node": st.just(kind), **required}, optional=optional)

    leaves = st.one_of(
        node("SolidColorNode", {}, dict.fromkeys(("red", "green", "blue", "alpha"), unit)),
        node("VideoSourceNode", {"streamGuid": names}, rectangle),
        node("ImageSourceNode", {"filename": names}, rectangle),
    )
    video = st.recursive(leaves, lambda inner: node("CompositorNode", {"nodes": st.lists(inner, max_size=4)}, {}))
    voices = node("AudioSourceNode", {"streamGuid": names}, {"pan": numbers(-100, 100), "gain": numbers(-100, 0)})
    audio = st.recursive(voices, lambda inner: node("SumNode", {"nodes": st.lists(inner, max_size=4)}, {}))
    return video, audio


VIDEO, AUDIO = vendor_nodes()


@settings(deadline=None, max_examples=40)
@given(st.fixed_dictionaries({}, optional={"rootVideoNode": VIDEO, "rootAudioNode": AUDIO}))
def test_vendors_tree_reads_back_exactly_as_it_was_put(document):
    put = json.dumps(document, sort_keys=True)
    assert json.dumps(json.loads(read(put).to_json()), sort_keys=True) == put


# --- anything at all -------------------------------------------------------------------------------------------------


def survives(document):
    """Reading it gives trees, or InvalidTree with a printable sentence that begins with its path."""
    try:
        for tree in trees_from_json(document):
            check(tree)
            assert read(tree.to_json()) == tree
    except InvalidTree as err:
        assert err.where.startswith("$")
        assert str(err).startswith(f"{err.where}: ")
        assert str(err).encode()


@settings(deadline=None, max_examples=100)
@given(JSON)
def test_any_json_is_trees_or_invalid(value):
    survives(json.dumps(value))


@settings(deadline=None, max_examples=100)
@given(damaged(st.lists(all_trees(), min_size=1, max_size=2).map(msgspec.to_builtins)))
def test_any_damaged_tree_is_a_tree_or_invalid(value):
    survives(json.dumps(value))
    survives(json.dumps(value, ensure_ascii=False).encode(errors="surrogatepass"))


@settings(deadline=None, max_examples=60)
@given(st.binary() | st.text(), st.binary(max_size=4), all_trees(), st.integers(0))
def test_any_bytes_and_any_text_are_trees_or_invalid(garbage, splice, tree, place):
    survives(garbage)
    good = tree.to_json()
    place %= len(good)
    survives(good[:place] + splice + good[place + len(splice) :])


def test_trees_cannot_be_changed():
    for node in (
        SolidColorNode(),
        VideoSourceNode(stream_guid="a"),
        ImageSourceNode(filename="a"),
        CompositorNode(),
        SumNode(),
    ):
        with pytest.raises(AttributeError):
            node.id = "x"
    tree = RenderTree(root_audio_node=AudioSourceNode(stream_guid="a"))
    with pytest.raises(AttributeError):
        tree.root_audio_node = None
    assert hash(tree) == hash(copy.deepcopy(tree))


def test_limits_are_the_documented_ones():
    assert (module.MAX_NODES, module.MAX_DEPTH, module.MAX_BYTES) == (256, 16, 1048576)


@settings(max_examples=50)
@given(all_trees())
def test_nodes_are_those_of_a_walk(tree):
    assert nodes_of(tree) == [node for _, _, node in walk(tree)]


# --- gains -----------------------------------------------------------------------------------------------------------


def test_gains_add_up_along_the_path_and_what_is_muted_on_its_way_is_silent():
    a, b, c = (AudioSourceNode(stream_guid=name, gain=-3) for name in "abc")
    root = SumNode(gain=-6, nodes=(a, SumNode(gain=2, nodes=(b,)), SumNode(gain=-100, nodes=(c,))))
    assert list(voices_of(root)) == [(a, -9), (b, -7), (c, -math.inf)]
    assert list(voices_of(None)) == []


@pytest.mark.parametrize(("gain_db", "factor"), [(0, 1), (20, 10), (-20, 0.1), (-100, 0), (-math.inf, 0)])
def test_gains_are_factors(gain_db, factor):
    assert factor_of(gain_db) == factor
    assert decibels_of(factor) == max(-100, gain_db)
