"""A transition begins and ends exactly at its trees, moves what is the same thing in both, and dissolves from the one
picture to the other.
"""

import math
from fractions import Fraction
from itertools import pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import plan
from engine.compositor import Compositor
from engine.frame import VideoFrame
from engine.morph import EASINGS, MAX_SCENES, Morph
from engine.program import Held, Switch, names_in
from engine.spec import AudioFormat, MixerSpec, Raster
from engine.tree import (
    AudioSourceNode,
    CompositorNode,
    ImageSourceNode,
    RenderTree,
    ShapeNode,
    SolidColorNode,
    SumNode,
    TextNode,
    VideoSourceNode,
    walk,
)
from tests.strategies import GRID, GRID_PICTURE, all_trees, grid_leaves, grid_trees

HD = Raster(1280, 720)
GROUND = SolidColorNode(id=" ground of a scene")
TIMES = st.fractions(-10, 10)


def source(name, rect=(0, 0, 1280, 720), **fields):
    """A VideoSourceNode; rect = (x, y, width, height)."""
    dest = dict(zip(("dest_x", "dest_y", "dest_width", "dest_height"), rect, strict=True))
    return VideoSourceNode(stream_guid=name, **dest, **fields)


def video(*nodes, **fields):
    return RenderTree(root_video_node=CompositorNode(nodes=nodes, **fields))


def sound(*voices, **fields):
    return RenderTree(root_audio_node=SumNode(nodes=voices, **fields))


def voice(name="a", gain=0.0, **fields):
    return AudioSourceNode(stream_guid=name, gain=gain, **fields)


def morph(old, new, *, start=0, duration=1, easing="linear", raster=HD):
    return Morph(old, new, Fraction(start), Fraction(duration), raster, easing)


def half(old, new):
    """(pictures, voices) in the middle of a transition."""
    tree = morph(old, new).tree_at(Fraction(1, 2))
    return tree.root_video_node.nodes, tree.root_audio_node.nodes


def rect(node):
    if isinstance(node, CompositorNode):
        return ()
    return (node.dest_x, node.dest_y, node.dest_width, node.dest_height)


def scenes(nodes):
    """What is mixed: the nodes of the lowest scene, then those of each that comes over it, their black ground aside."""
    over = [node for node in nodes if isinstance(node, CompositorNode) and node.nodes[:1] == (GROUND,)]
    return [tuple(node for node in nodes if node not in over), *(node.nodes[1:] for node in over)]


def faded(nodes):
    """[(name, opacity)] of pictures."""
    return [(node.stream_guid, node.opacity) for node in nodes]


# --- beginning and end -----------------------------------------------------------------------------------------------

OLD, NEW = video(source("a")), video(source("b"))


@pytest.mark.parametrize(
    ("t", "tree"),
    [(-1, OLD), (Fraction(29, 10), OLD), (3, OLD), (5, NEW), (Fraction(51, 10), NEW), (10**9, NEW)],
)
def test_morph_begins_and_ends_with_the_very_trees(t, tree):
    assert morph(OLD, NEW, start=3, duration=2).tree_at(Fraction(t)) is tree


def test_morph_of_no_duration_is_a_cut():
    cut = morph(OLD, NEW, start=3, duration=0)
    assert (cut.tree_at(Fraction(299, 100)), cut.tree_at(Fraction(3))) == (OLD, NEW)


def test_negative_duration_is_refused():
    with pytest.raises(ValueError, match="duration -1 s is negative"):
        morph(OLD, NEW, duration=-1)


def test_a_morph_brings_its_new_tree_and_cuts_no_sound():
    program = morph(OLD, NEW, start=2)
    assert program.coming(Fraction(1), Fraction(3)) == ((2, NEW),)
    assert program.coming(Fraction(21, 10), Fraction(3)) == ()
    assert not program.edges(Fraction(0), Fraction(9))


@pytest.mark.parametrize(
    ("start", "stop", "names"),
    [(0, 3, {"a"}), (2, 4, {"a", "b"}), (3, 5, {"a", "b"}), (4, 9, {"a", "b"}), (5, 6, {"b"}), (2, 6, {"a", "b"})],
)
def test_sources_are_those_of_what_is_on(start, stop, names):
    assert morph(OLD, NEW, start=3, duration=2).sources_in(Fraction(start), Fraction(stop)) == names


def test_unknown_easing_is_refused_and_the_known_are_named():
    with pytest.raises(ValueError, match='easing "bounce" is not one of linear, easeIn, easeOut, easeInOut, smooth'):
        morph(OLD, NEW, easing="bounce")


@pytest.mark.parametrize("name", EASINGS)
def test_easing_goes_from_0_to_1_and_never_back(name):
    steps = [EASINGS[name](n / 64) for n in range(65)]
    assert (steps[0], steps[-1]) == (pytest.approx(0), pytest.approx(1))
    assert all(a <= b for a, b in pairwise(steps))


@pytest.mark.parametrize(
    ("easing", "x"), [("linear", 160), ("easeIn", 40), ("easeOut", 280), ("easeInOut", 100), ("smooth", 93.73)]
)
def test_easing_says_how_far_a_quarter_of_the_time_goes(easing, x):
    tree = morph(video(source("a")), video(source("a", (640, 0, 1280, 720))), easing=easing).tree_at(Fraction(1, 4))
    assert tree.root_video_node.nodes[0].dest_x == pytest.approx(x, abs=0.01)


# --- pictures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "middle"),
    [
        ((0, 0, 1280, 720), (640, 360, 640, 360), (320, 180, 960, 540)),
        ((-100, 0, 100, 100), (100, 50, 201, 100), (0, 25, 150.5, 100)),
        ((0, 0, 100, 100), (0, 0, -100, 50), (0, 0, 0, 75)),
    ],
)
def test_the_same_stream_moves(old, new, middle):
    (node,), _ = half(video(source("a", old)), video(source("a", new)))
    assert (rect(node), node.opacity) == (middle, 1)


@pytest.mark.parametrize("kind", [{"stream_guid": "a"}, {"filename": "a"}, {}])
def test_full_frame_without_numbers_moves_to_a_quarter_smoothly(kind):
    make = VideoSourceNode if "stream_guid" in kind else ImageSourceNode if kind else SolidColorNode
    whole, quarter = make(**kind), make(**kind, dest_x=640, dest_y=360, dest_width=640, dest_height=360)
    for old, new in ((whole, quarter), (quarter, whole)):
        (node,), _ = half(video(old), video(new))
        assert rect(node) == (320, 180, 960, 540)


@pytest.mark.parametrize(
    ("old", "new", "middle"),
    [
        ({"opacity": 1}, {"opacity": 0.5}, {"opacity": 0.75}),
        ({}, {"source_x": 100, "source_y": 50}, {"source_x": 50, "source_y": 25}),
        ({"source_width": 100}, {"source_width": 50}, {"source_width": 75}),
    ],
)
def test_opacity_and_crop_move(old, new, middle):
    (node,), _ = half(video(source("a", **old)), video(source("a", **new)))
    assert {name: getattr(node, name) for name in middle} == middle


def test_a_crop_in_pixels_dissolves_to_one_in_shares():
    old, new = {"source_width": 100}, {"source_width": 0.5, "source_unit": "share"}
    nodes, _ = half(video(source("a", **old)), video(source("a", **new)))
    before, (after,) = scenes(nodes)[0][0], scenes(nodes)[1]
    assert [(node.source_width, node.source_unit) for node in (before, after)] == [(100, "pixel"), (0.5, "share")]


@pytest.mark.parametrize("width", [None, -1, 0])
def test_crop_to_the_edge_or_of_nothing_dissolves_to_one_of_a_size(width):
    nodes, _ = half(video(source("a", source_width=width)), video(source("a", (640, 0, 640, 720), source_width=50)))
    old, (new,) = scenes(nodes)[0][0], scenes(nodes)[1]
    assert (old.source_width, new.source_width) == (width, 50)
    assert rect(old) == rect(new) == (320, 0, 960, 720)


def test_what_is_only_old_dissolves_to_what_is_only_new():
    a, b, c, d = source("a"), source("b"), source("c", opacity=0.25), source("d")
    nodes, _ = half(video(a, b, d), video(a, c, d))
    assert scenes(nodes) == [(a, b, d), (a, c)]
    assert [node.opacity for node in nodes] == [1, 1, 0.5, 1]


def test_what_both_scenes_begin_or_end_with_is_painted_once():
    a, b, c, d, e, f = (source(name) for name in "abcdef")
    nodes, _ = half(video(a, b, c, e, f), video(a, b, d, e, f))
    assert nodes == (a, b, c, CompositorNode(nodes=(GROUND, a, b, d), opacity=0.5), e, f)


def test_what_only_comes_or_only_goes_fades_where_it_is():
    a, b, c = source("a"), source("b", opacity=0.5), source("c")
    hidden = msgspec.structs.replace(b, opacity=0)
    for some, opacity in ((video(a, c), 0.25), (video(a, hidden, c), 0.25)):
        for old, new in ((some, video(a, b, c)), (video(a, b, c), some)):
            nodes, _ = half(old, new)
            assert faded(nodes) == [("a", 1), ("b", opacity), ("c", 1)]


def test_several_that_come_fade_as_one_picture():
    nodes, _ = half(video(source("a")), video(source("a"), source("b"), source("c")))
    assert nodes == (source("a"), CompositorNode(nodes=(source("b"), source("c")), opacity=0.5))


def test_nothing_fades_to_something_and_back():
    for trees_, opacities in (((RenderTree(), NEW), [("b", 0.5)]), ((NEW, RenderTree()), [("b", 0.5)])):
        assert faded(half(*trees_)[0]) == opacities
    assert half(RenderTree(), RenderTree()) == ((), ())


def test_same_id_is_the_same_thing_whatever_it_shows():
    nodes, _ = half(video(source("a", id="x")), video(source("b", (0, 0, 640, 360), id="x")))
    (old,), (new,) = scenes(nodes)
    assert (old.stream_guid, new.stream_guid) == ("a", "b")
    assert rect(old) == rect(new) == (0, 0, 960, 540)


def test_id_wins_over_the_order():
    old = video(source("a", (0, 0, 100, 100), id="one"), source("a", (200, 0, 100, 100), id="two"))
    new = video(source("a", (200, 0, 100, 100), id="two"), source("a", (0, 0, 100, 100), id="one"))
    for scene in scenes(half(old, new)[0]):
        assert {node.id: node.dest_x for node in scene} == {"one": 0, "two": 200}


def test_same_id_of_another_kind_is_another_thing():
    old, new = source("a", (0, 0, 10, 10), id="x"), SolidColorNode(id="x")
    assert scenes(half(video(old), video(new))[0]) == [(old,), (new,)]


def test_same_stream_is_matched_n_th_with_n_th():
    old = video(source("a", (0, 0, 10, 10)), source("b"), source("a", (100, 0, 10, 10)))
    new = video(source("a", (50, 0, 10, 10)), source("a", (150, 0, 10, 10)), source("a", (7, 0, 10, 10)))
    first, second = scenes(half(old, new)[0])
    assert [(node.stream_guid, node.dest_x) for node in first] == [("a", 25), ("b", 0), ("a", 125)]
    assert [(node.stream_guid, node.dest_x) for node in second] == [("a", 25), ("a", 125), ("a", 7)]


def test_stream_and_image_of_one_name_are_two_things():
    old, new = VideoSourceNode(stream_guid="a"), ImageSourceNode(filename="a", dest_width=10)
    assert scenes(half(video(old), video(new))[0]) == [(old,), (new,)]


def test_another_order_dissolves():
    a, b, c = source("a"), source("b"), source("c")
    assert scenes(half(video(a, b, c), video(c, a))[0]) == [(a, b, c), (c, a)]


def test_what_is_in_groups_moves_and_each_scene_keeps_its_groups():
    left, right = source("a", (0, 0, 640, 720)), source("a", (640, 0, 640, 720))
    group = CompositorNode(nodes=(left, source("b")), opacity=0.5)
    first, second = scenes(half(video(group), video(right))[0])
    assert first == (CompositorNode(nodes=(source("a", (320, 0, 640, 720)), source("b")), opacity=0.5),)
    assert second == (source("a", (320, 0, 640, 720)),)


def test_texts_move_and_their_looks_dissolve():
    old = TextNode(string="x", dest_x=0, dest_width=100, size=20, color="#000000")
    new = TextNode(string="x", dest_x=50, dest_width=200, size=40, color="#ff0000")
    (first,), (second,) = scenes(half(video(old), video(new))[0])
    assert (first.dest_x, first.dest_width, first.size, first.color) == (25, 150, 30, "#000000")
    assert (second.dest_x, second.dest_width, second.size, second.color) == (25, 150, 30, "#ff0000")


def test_masked_group_fades_as_one_and_moves_with_its_mask():
    def badge(x, **fields):
        place = {"dest_x": x, "dest_width": 100}
        mask = ShapeNode(path="M0 0h100v100z", **place)
        return CompositorNode(nodes=(VideoSourceNode(stream_guid="a", **place),), mask=mask, **fields)

    assert half(video(badge(0)), video())[0] == (badge(0, opacity=0.5),)
    assert half(video(badge(0)), video(badge(100)))[0] == (badge(50),)


def test_mask_moves_with_its_node_or_each_scene_keeps_its_own():
    film = VideoSourceNode(stream_guid="a")
    left, right = (SolidColorNode(red=1.0, dest_x=x, dest_width=100) for x in (0, 100))
    masked = msgspec.structs.replace(film, mask=right)
    (node,), _ = half(video(msgspec.structs.replace(film, mask=left)), video(masked))
    assert (node.mask.dest_x, node.mask.dest_width) == (50, 100)
    assert scenes(half(video(film), video(masked))[0]) == [(film,), (masked,)]


# --- what is seen ----------------------------------------------------------------------------------------------------

SMALL = MixerSpec(raster=GRID, audio=AudioFormat(8000, 2))
SHARES = st.fractions(Fraction(1, 100), Fraction(99, 100))


def grey(value, **fields):
    return SolidColorNode(red=value, green=value, blue=value, **fields)


def painted(tree):
    """The luma of the picture of a tree on GRID; streams are noise, one of them can be seen through, one is away."""
    frames = {}
    for picture in plan.pictures_named(tree):
        if picture.name != "away":
            noise = np.random.default_rng(len(picture.name))
            width, height = GRID_PICTURE
            luma, alpha = noise.integers(16, 236, (2, height, width), np.uint8)
            chroma = np.full(((height + 1) // 2, (width + 1) // 2), 128, np.uint8)
            frames[picture] = VideoFrame(luma, chroma, chroma, alpha if picture.name == "seen through" else None)
    sizes = {each: plan.PictureSize(*GRID_PICTURE, opaque=frame.a is None) for each, frame in frames.items()}
    return Compositor(SMALL).paint(plan.compile(tree, GRID, sizes), frames).y.astype(int)


def far_from_a_dissolve(old, new, x):
    """By how much a pixel is at most off the straight line between two pictures at x."""
    line = painted(old) * float(1 - x) + painted(new) * float(x)
    return np.abs(painted(morph(old, new, raster=GRID).tree_at(x)) - line).max()


def named(node, prefix):
    """The node with an id for every leaf in it."""
    own = msgspec.structs.replace(node, mask=node.mask and named(node.mask, f"{prefix}m"))
    if not isinstance(node, CompositorNode):
        return msgspec.structs.replace(own, id=prefix)
    return msgspec.structs.replace(own, nodes=tuple(named(each, f"{prefix}{n}") for n, each in enumerate(node.nodes)))


@settings(deadline=None, max_examples=50)
@given(st.floats(0, 1), st.floats(0, 1), SHARES)
def test_colour_goes_straight_to_another_colour_and_to_nothing(one, other, x):
    assert far_from_a_dissolve(video(grey(one)), video(grey(other)), x) <= 1
    assert far_from_a_dissolve(video(grey(one, id="one")), video(grey(other, id="other")), x) <= 1
    assert far_from_a_dissolve(video(grey(one)), RenderTree(), x) <= 1
    assert far_from_a_dissolve(RenderTree(), video(grey(one)), x) <= 1


def test_what_is_hidden_before_and_after_is_hidden_meanwhile():
    hidden, top, new = (source(name, (0, 0, 8, 6)) for name in ("hidden", "top", "new"))
    assert far_from_a_dissolve(video(hidden, top), video(new), Fraction(1, 2)) <= 1
    assert far_from_a_dissolve(video(new), video(hidden, top), Fraction(1, 2)) <= 1


@settings(deadline=None, max_examples=40)
@given(grid_trees(), grid_trees(), SHARES)
def test_trees_with_nothing_in_common_dissolve_at_every_pixel(old, new, x):
    old, new = (
        RenderTree(root_video_node=named(tree.root_video_node, name)) for tree, name in ((old, "o"), (new, "n"))
    )
    assert far_from_a_dissolve(old, new, x) <= 3  # every pass and blend is rounded


@st.composite
def arrangements(draw):
    """Two trees of the same things at the same places, some of them in either, in any order, in groups or not."""
    leaves = [named(leaf, f"{n}") for n, leaf in enumerate(draw(st.lists(grid_leaves(st.just(1)), max_size=5)))]

    def arranged():
        nodes = []
        for leaf in draw(st.permutations(leaves) if draw(st.booleans()) else st.just(leaves)):
            opacity = draw(st.sampled_from((1, 1, 1, 0.5, 0, None)))
            if opacity is not None:
                nodes.append(msgspec.structs.replace(leaf, opacity=opacity))
        begin, end = (draw(st.integers(0, len(nodes))) for _ in range(2))
        group = CompositorNode(nodes=tuple(nodes[begin:end]), opacity=draw(st.sampled_from((0.5, 1))))
        return video(*nodes[:begin], group, *nodes[max(begin, end) :])

    return arranged(), arranged()


@settings(deadline=None, max_examples=100)
@given(arrangements(), SHARES)
def test_what_does_not_move_dissolves_at_every_pixel(trees, x):
    assert far_from_a_dissolve(*trees, x) <= 3


@settings(deadline=None, max_examples=30)
@given(grid_trees(), grid_trees())
def test_picture_just_after_the_beginning_is_the_old_and_just_before_the_end_the_new(old, new):
    program, moment = morph(old, new, raster=GRID), Fraction(1, 10**9)
    for tree, t in ((old, moment), (new, 1 - moment)):
        assert np.abs(painted(program.tree_at(t)) - painted(tree)).max() <= 1


@settings(deadline=None, max_examples=60)
@given(all_trees(), SHARES)
def test_transition_to_the_same_tree_shows_it_all_the_time(tree, x):
    sizes = dict.fromkeys(plan.pictures_named(tree), plan.PictureSize(640, 360))
    still, moving = plan.compile(tree, HD, sizes), plan.compile(morph(tree, tree).tree_at(x), HD, sizes)
    assert moving.passes == still.passes


@settings(deadline=None, max_examples=10)
@given(st.lists(grid_trees(), min_size=4, max_size=4), SHARES)
def test_transition_that_another_takes_over_goes_on_from_where_it_is(trees, x):
    shown = trees[0]
    for new in trees[1:]:
        before = painted(shown)
        program = morph(shown, new, raster=GRID)
        assert np.abs(painted(program.tree_at(Fraction(1, 10**9))) - before).max() <= 2
        shown = program.tree_at(x)


def test_what_moves_goes_on_moving_in_all_scenes_of_a_transition_that_another_takes_over():
    at = [video(source("b"), source("a", (x, 0, 100, 100)), source(c)) for x, c in ((0, "c"), (100, "d"), (250, "e"))]
    shown = morph(at[0], at[1]).tree_at(Fraction(1, 2))
    tree = morph(shown, at[2]).tree_at(Fraction(1, 2))
    places = [node.dest_x for _, _, node in walk(tree) if getattr(node, "stream_guid", "") == "a"]
    assert set(places) == {150}
    mixed = ["".join(node.stream_guid for node in scene) for scene in scenes(tree.root_video_node.nodes)]
    assert mixed == ["bac", "bad", "bae"]
    assert {node for _, _, node in walk(tree) if isinstance(node, SolidColorNode)} == {GROUND}


@pytest.mark.parametrize("step", [Fraction(1, 30), Fraction(1, 10), Fraction(1, 4)])
def test_transitions_one_upon_the_other_mix_no_more_than_some_scenes(step):
    shown = video()
    for n in range(200):
        shown = morph(shown, video(grey(1, id=f"{n}"), source(f"{n}"))).tree_at(step)
        assert len(scenes(shown.root_video_node.nodes)) <= MAX_SCENES
        assert len(list(walk(shown))) <= 4 * MAX_SCENES + 2
    assert f"{n}" in names_in(shown)
    assert "0" not in names_in(shown)


def test_transitions_one_upon_the_other_forget_what_has_gone():
    switch, t = Switch(Held(RenderTree())), Fraction(0)
    for n in range(400):
        new = RenderTree(
            root_video_node=CompositorNode(nodes=(TextNode(string=str(n), dest_width=200, dest_height=60),)),
            root_audio_node=SumNode(nodes=(voice(f"live/{n}"),)),
        )
        switch.take(Morph(switch.peek(t), new, t, Fraction(1, 2), HD, "smooth"), t)
        t += Fraction(1, 10)
        switch.tree_at(t)
    assert len(list(walk(switch.tree_at(t)))) < 150


def test_a_scene_that_is_not_mixed_any_more_leaves_its_share_to_the_one_above():
    shown = video(grey(0, id="black"))
    for n in range(1, 21):
        shown = morph(shown, video(grey(1, id=f"white {n}")), raster=GRID).tree_at(Fraction(1, 30))
        assert painted(shown) == pytest.approx(16 + 219 * (1 - (29 / 30) ** n), abs=4)  # every scene is rounded


# --- sound -----------------------------------------------------------------------------------------------------------


def db(amplitude):
    return pytest.approx(20 * math.log10(amplitude))


@pytest.mark.parametrize(
    ("old", "new", "middle"),
    [
        (sound(voice(gain=0)), sound(voice(gain=-20)), db(0.55)),
        (sound(voice(gain=0)), sound(voice(gain=-100)), db(0.5)),
        (sound(voice(gain=-100)), sound(voice(gain=0)), db(0.5)),
        (sound(voice(gain=0)), sound(), db(0.5)),
        (sound(), sound(voice(gain=0)), db(0.5)),
        (sound(voice(gain=-6), gain=6), sound(voice(gain=0)), db(1)),
        (sound(voice(gain=20), gain=-100), sound(voice(gain=0)), db(0.5)),  # a muted sum is mute, whatever is in it
        (sound(voice(gain=20), gain=20), sound(voice(gain=20), gain=20), db(100)),  # no jump at the beginning
    ],
)
def test_loudness_goes_evenly_in_amplitude(old, new, middle):
    _, (node,) = half(old, new)
    assert node.gain == middle


def test_a_mute_voice_that_leaves_is_gone_at_once():
    assert not half(sound(voice(gain=-100)), sound())[1]


def test_fade_to_mute_is_never_louder_than_before():
    fade = morph(sound(voice(gain=0)), sound(voice(gain=-100)))
    gains = [fade.tree_at(Fraction(n, 1000)).root_audio_node.nodes[0].gain for n in range(1000)]
    assert all(a >= b for a, b in pairwise(gains))


def test_pan_goes_over_where_the_voice_is_in_both():
    _, (node,) = half(sound(voice(pan=-100)), sound(voice(pan=50)))
    assert node.pan == -25
    for trees_ in ((sound(voice(pan=-100)), sound()), (sound(), sound(voice(pan=-100)))):
        assert half(*trees_)[1][0].pan == -100


def test_voices_are_matched_by_id_then_stream_and_order():
    old = sound(voice("a", id="x"), voice("b", 0), voice("b", -20))
    new = sound(voice("b", -20), voice("c", id="x"), voice("b", 0))
    _, nodes = half(old, new)
    assert [(node.stream_guid, node.gain) for node in nodes] == [("c", db(1)), ("b", db(0.55)), ("b", db(0.55))]


# --- any two trees ---------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=80)
@given(all_trees(), all_trees(), st.fractions(0, 3), st.sampled_from(sorted(EASINGS)), TIMES)
def test_morph_of_any_trees_is_a_tree_at_any_time(old, new, duration, easing, t):
    program = morph(old, new, duration=duration, easing=easing)
    tree = program.tree_at(t)
    assert program.tree_at(t) == tree
    assert names_in(tree) <= program.sources_in(t, t + Fraction(1, 10**9))
    plan.compile(tree, HD, {picture: plan.PictureSize(640, 360) for picture in plan.pictures_named(tree)})
    if tree is old or tree is new:
        return
    assert names_in(new) <= names_in(tree) <= names_in(old) | names_in(new)  # what is silent may be gone
    assert all(0 <= node.opacity <= 1 for node in tree.root_video_node.nodes)
    assert all(node.gain >= -100 and abs(node.pan) <= 100 for node in tree.root_audio_node.nodes)


@settings(deadline=None, max_examples=60)
@given(all_trees(), all_trees())
def test_sound_goes_nowhere_but_between_its_trees(old, new):
    """Just after the beginning all is as loud as it was, just before the end as it will be."""
    program, moment = morph(old, new), Fraction(1, 10**9)
    for tree, t in ((old, moment), (new, 1 - moment)):
        still = morph(tree, tree).tree_at(Fraction(1, 2))
        heard, wanted = (
            sorted(node.gain for node in each.root_audio_node.nodes if node.gain > -80)
            for each in (program.tree_at(t), still)
        )
        assert heard == pytest.approx(wanted, abs=0.01)
