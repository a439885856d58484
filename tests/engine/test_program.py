"""A program answers at any time: a held tree for ever, and a transition that begins and ends exactly at its trees and
moves what is the same thing in both, fades what is not.
"""

import math
from fractions import Fraction
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import plan
from engine.program import EASINGS, Held, Morph, Stack, Switch, names_in
from engine.spec import Raster
from engine.tree import (
    AudioSourceNode,
    CompositorNode,
    ImageSourceNode,
    RenderTree,
    SolidColorNode,
    SumNode,
    TextNode,
    VideoSourceNode,
    walk,
)
from tests.strategies import all_trees

HD = Raster(1280, 720)
TIMES = st.fractions(-10, 10)


def source(name, rect=(0, 0, 1280, 720), **fields):
    """A VideoSourceNode; rect = (x, y, width, height)."""
    dest = dict(zip(("dest_x", "dest_y", "dest_width", "dest_height"), rect, strict=True))
    return VideoSourceNode(stream_guid=name, **dest, **fields)


def tree(n):
    """A tree that shows stream n."""
    return RenderTree(root_video_node=source(f"cam{n}"))


def video(*nodes, **fields):
    return RenderTree(root_video_node=CompositorNode(nodes=nodes, **fields))


def sound(*voices, **fields):
    return RenderTree(root_audio_node=SumNode(nodes=voices, **fields))


def voice(name="a", gain=0.0, **fields):
    return AudioSourceNode(stream_guid=name, gain=gain, **fields)


def morph(old, new, *, start=0, duration=1, easing="linear"):
    return Morph(old, new, Fraction(start), Fraction(duration), HD, easing)


def half(old, new):
    """(pictures, voices) in the middle of a transition."""
    tree = morph(old, new).tree_at(Fraction(1, 2))
    return tree.root_video_node.nodes, tree.root_audio_node.nodes


def rect(node):
    if isinstance(node, CompositorNode):
        return ()
    return (node.dest_x, node.dest_y, node.dest_width, node.dest_height)


def crop(node):
    return (node.source_x, node.source_y, node.source_width, node.source_height)


def faded(nodes):
    """[(name, opacity)] of pictures."""
    return [(node.stream_guid, node.opacity) for node in nodes]


# --- held ------------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(all_trees(), TIMES)
def test_held_tree_is_itself_for_ever(tree, t):
    assert Held(tree).tree_at(t) is tree
    assert Held(tree).sources_in(t, t + 1) == names_in(tree)


def test_names_are_streams_and_images_of_both_branches():
    nodes = (source("v"), CompositorNode(nodes=(ImageSourceNode(filename="i"), SolidColorNode())))
    tree = RenderTree(
        root_video_node=CompositorNode(nodes=nodes),
        root_audio_node=SumNode(nodes=(voice("a"), SumNode(nodes=(voice("v"),)))),
    )
    assert names_in(tree) == {"v", "i", "a"}
    assert names_in(RenderTree()) == set()


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
        ({}, {"source_width": 50}, {"source_width": 50}),  # where the edge is, only the compiler knows: a jump halfway
        ({"source_width": -1, "source_height": 9}, {"source_width": 50}, {"source_width": 50, "source_height": None}),
    ],
)
def test_opacity_and_crop_move(old, new, middle):
    (node,), _ = half(video(source("a", **old)), video(source("a", **new)))
    assert {name: getattr(node, name) for name in middle} == middle


def test_crop_to_the_edge_stays_until_halfway():
    at = morph(video(source("a")), video(source("a", source_width=50))).tree_at
    widths = [at(t).root_video_node.nodes[0].source_width for t in (Fraction(49, 100), Fraction(51, 100))]
    assert widths == [None, 50]


def test_colours_of_the_same_place_in_the_order_go_over():
    old = video(SolidColorNode(red=1), SolidColorNode(blue=1, alpha=0.5))
    new = video(SolidColorNode(green=1), SolidColorNode(blue=0.5))
    (one, two), _ = half(old, new)
    assert (one.red, one.green, one.blue, one.alpha) == (0.5, 0.5, 0, 1)
    assert (two.red, two.green, two.blue, two.alpha) == (0, 0, 0.75, 0.75)


def test_what_is_only_old_fades_out_and_only_new_fades_in():
    nodes, _ = half(video(source("a"), source("b", opacity=0.5)), video(source("c", opacity=0.25), source("a")))
    assert faded(nodes) == [("c", 0.125), ("a", 1), ("b", 0.25)]


def test_nothing_fades_to_something_and_back():
    for trees_, opacities in (((RenderTree(), NEW), [("b", 0.5)]), ((NEW, RenderTree()), [("b", 0.5)])):
        assert faded(half(*trees_)[0]) == opacities
    assert half(RenderTree(), RenderTree()) == ((), ())


def test_same_id_is_the_same_thing_whatever_it_shows():
    (node,), _ = half(video(source("a", id="x")), video(source("b", (0, 0, 640, 360), id="x")))
    assert (node.stream_guid, rect(node), node.opacity) == ("b", (0, 0, 960, 540), 1)


def test_id_wins_over_the_order():
    old = video(source("a", (0, 0, 100, 100), id="one"), source("a", (200, 0, 100, 100), id="two"))
    new = video(source("a", (200, 0, 100, 100), id="two"), source("a", (0, 0, 100, 100), id="one"))
    nodes, _ = half(old, new)
    assert [(node.id, node.dest_x) for node in nodes] == [("two", 200), ("one", 0)]


def test_same_id_of_another_kind_is_another_thing():
    (old, new), _ = half(video(source("a", id="x")), video(SolidColorNode(id="x")))
    assert (type(old), old.opacity, type(new), new.opacity) == (VideoSourceNode, 0.5, SolidColorNode, 0.5)


def test_same_stream_is_matched_n_th_with_n_th():
    old = video(source("a", (0, 0, 10, 10)), source("b"), source("a", (100, 0, 10, 10)))
    new = video(source("a", (50, 0, 10, 10)), source("a", (150, 0, 10, 10)), source("a", (7, 0, 10, 10)))
    nodes, _ = half(old, new)
    assert [(node.stream_guid, node.dest_x, node.opacity) for node in nodes] == [
        ("a", 25, 1),
        ("b", 0, 0.5),  # just above what it was above
        ("a", 125, 1),
        ("a", 7, 0.5),
    ]


def test_stream_and_image_of_one_name_are_two_things():
    nodes, _ = half(video(VideoSourceNode(stream_guid="a")), video(ImageSourceNode(filename="a")))
    assert [node.opacity for node in nodes] == [0.5, 0.5]


def test_new_tree_gives_the_order():
    nodes, _ = half(video(source("a"), source("b"), source("c")), video(source("c"), source("a")))
    assert faded(nodes) == [("c", 1), ("a", 1), ("b", 0.5)]


def test_groups_are_dissolved_into_their_leaves():
    old = video(CompositorNode(nodes=(source("a", opacity=0.5),), opacity=0.5))
    (node,), _ = half(old, video(source("a", opacity=0.75)))
    assert node.opacity == 0.5


def test_texts_and_shapes_move_and_change_their_colour():
    old = TextNode(string="x", dest_x=0, dest_width=100, size=20, color="#000000")
    new = TextNode(string="x", dest_x=50, dest_width=200, size=40, color="#ff0000")
    (node,), _ = half(video(old), video(new))
    assert (node.dest_x, node.dest_width, node.size, node.color) == (25, 150, 30, "#800000ff")
    nodes, _ = half(video(old), video(msgspec.structs.replace(old, string="y")))
    assert [(node.string, node.opacity) for node in nodes] == [("x", 0.5), ("y", 0.5)]


def test_masked_group_fades_as_one():
    group = CompositorNode(nodes=(SolidColorNode(),), mask=SolidColorNode(red=1.0))
    (node,), _ = half(video(group), video())
    assert node == msgspec.structs.replace(group, opacity=0.5)
    assert half(video(group), video(group))[0] == (msgspec.structs.replace(group, opacity=1.0),)


def test_mask_moves_with_its_node_or_the_new_one_comes_over_the_old():
    film = VideoSourceNode(stream_guid="a")
    left, right = (SolidColorNode(red=1.0, dest_x=x, dest_width=100) for x in (0, 100))
    (node,), _ = half(video(msgspec.structs.replace(film, mask=left)), video(msgspec.structs.replace(film, mask=right)))
    assert (node.mask.dest_x, node.mask.dest_width) == (50, 100)
    (node,), _ = half(video(film), video(msgspec.structs.replace(film, mask=right)))
    white, front = node.mask.nodes
    assert (white.red, white.dest_x) == (1.0, None)
    assert (front.opacity, front.nodes) == (0.5, (SolidColorNode(), right))


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
    kept = {node.id for _, _, node in walk(old)} & {node.id for _, _, node in walk(new)} - {None}
    assert names_in(new) <= names_in(tree) <= names_in(old) | names_in(new)
    if not kept:  # a node that keeps its id shows its new source from the first moment
        assert names_in(tree) == names_in(old) | names_in(new)
    assert all(0 <= node.opacity <= 1 for node in tree.root_video_node.nodes)
    assert all(node.gain >= -100 and abs(node.pan) <= 100 for node in tree.root_audio_node.nodes)


@settings(deadline=None, max_examples=60)
@given(all_trees(), all_trees())
def test_morph_goes_nowhere_but_between_its_trees(old, new):
    """Just after the beginning all is where it was, just before the end all is where it will be."""
    program, moment = morph(old, new), Fraction(1, 10**9)
    for tree, t in ((old, moment), (new, 1 - moment)):
        still = morph(tree, tree).tree_at(Fraction(1, 2))
        now = program.tree_at(t)
        wanted = [_look(node) for node in still.root_video_node.nodes if node.opacity > 1e-6]
        assert sorted(_look(node) for node in now.root_video_node.nodes if node.opacity > 1e-6) == sorted(wanted)
        heard = [node.gain for node in now.root_audio_node.nodes if node.gain > -80]
        assert sorted(heard) == pytest.approx(
            sorted(n.gain for n in still.root_audio_node.nodes if n.gain > -80), abs=0.01
        )


def _look(node):
    return tuple(round(value, 2) for value in (*rect(node), node.opacity))


def test_a_switch_changes_at_the_first_tick_at_or_after_its_time():
    switch = Switch(Held(tree(1)))
    switch.take(Held(tree(2)), Fraction(1, 3))
    assert switch.tree_at(Fraction(0)) == tree(1)
    assert switch.tree_at(Fraction(1, 3)) == tree(2)
    switch.take(Held(tree(3)), Fraction(7, 10))
    assert switch.tree_at(Fraction(2, 3)) == tree(2)
    assert switch.tree_at(Fraction(1)) == tree(3)


def test_of_many_changes_before_one_tick_the_last_counts_and_the_others_are_forgotten():
    switch = Switch(Held(tree(0)))
    for n in range(1000):
        switch.take(Held(tree(n % 7)), Fraction(1, 30))
    assert switch.sources_in(Fraction(0), Fraction(1)) == names_in(tree(0)) | names_in(tree(999 % 7))
    assert switch.tree_at(Fraction(1, 30)) == tree(999 % 7)


def test_a_change_takes_back_those_that_were_to_come_later():
    switch = Switch(Held(tree(1)))
    switch.take(Held(tree(2)), Fraction(2))
    switch.take(Held(tree(3)), Fraction(1))
    assert switch.tree_at(Fraction(5)) == tree(3)


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


def test_a_switch_asks_a_program_for_the_mixers_time():
    old, new = tree(1), tree(2)
    switch = Switch(Held(old))
    morph = Morph(old=old, new=new, start=Fraction(1), duration=Fraction(1), easing="linear", raster=HD)
    switch.take(morph, Fraction(1))
    assert switch.tree_at(Fraction(1, 2)) is old
    assert switch.tree_at(Fraction(1)) == old
    assert switch.tree_at(Fraction(3, 2)) not in (old, new)
    assert switch.tree_at(Fraction(2)) is new


# --- what comes -------------------------------------------------------------------------------------------------------


class Cued:
    """Something begins at every whole second."""

    def __init__(self, name):
        self.name = name

    def tree_at(self, t):
        return RenderTree(root_video_node=VideoSourceNode(stream_guid=f"{self.name}{int(t)}", at=0))

    def sources_in(self, start, stop):
        return frozenset()

    def coming(self, start, stop):
        return [(Fraction(n), self.tree_at(Fraction(n))) for n in range(-9, 99) if start <= n < stop]

    def edges(self, start, stop):
        return [Fraction(n) for n in range(-9, 99) if start < n < stop]


def coming(program, start, stop):
    found = program.coming(Fraction(start), Fraction(stop))
    return [(t, tree.root_video_node.stream_guid) for t, tree in found]


def test_what_comes_of_programs_that_take_over():
    switch = Switch(Cued("a"))
    switch.take(Stack([Cued("b")], start=Fraction(5, 2)), Fraction(5, 2))
    assert coming(switch, 1, 2) == [(1, "a1")]
    found = switch.coming(Fraction(1), Fraction(5))
    times = [t for t, _ in found]
    assert times == [1, 2, Fraction(5, 2), Fraction(5, 2), Fraction(7, 2), Fraction(9, 2)]
    assert found[2][1] == switch.peek(Fraction(5, 2))
    assert [each for each in found if each[0] >= Fraction(5, 2)] == switch.coming(Fraction(5, 2), Fraction(5))


def test_sound_is_cut_where_the_programs_on_air_say_so():
    switch = Switch(Stack([Cued("a"), Cued("b")], start=Fraction(1, 2)))
    switch.take(Cued("c"), Fraction(9, 4))
    assert switch.edges(Fraction(1, 2), Fraction(5)) == [Fraction(3, 2)]
    assert switch.edges(Fraction(9, 4), Fraction(4)) == [3]
    tree = Cued("a").tree_at(0)
    assert not Held(tree).edges(Fraction(0), Fraction(9))
    assert not Morph(tree, tree, Fraction(2), Fraction(1), HD).edges(Fraction(0), Fraction(9))


def test_what_comes_of_programs_over_one_another_is_in_order_of_time():
    assert coming(Stack([Cued("a"), Cued("b")], start=Fraction(1)), 2, 4) == [
        (2, "a1"),
        (2, "b1"),
        (3, "a2"),
        (3, "b2"),
    ]


def test_a_morph_brings_its_new_tree_and_what_is_held_nothing():
    old, new = Cued("a").tree_at(0), Cued("b").tree_at(0)
    morph = Morph(old, new, Fraction(2), Fraction(1), HD)
    assert coming(morph, 1, 3) == [(2, "b0")]
    assert coming(morph, "21/10", 3) == []
    assert Held(old).coming(Fraction(0), Fraction(9)) == ()
