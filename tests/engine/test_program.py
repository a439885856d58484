"""A program answers at any time: a held tree for ever, and several one after the other or over one another."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.morph import Morph
from engine.program import Held, Stack, Switch, halved, names_in, stretch_of
from engine.spec import Raster
from engine.tree import (
    AudioSourceNode,
    CompositorNode,
    ImageSourceNode,
    RenderTree,
    SolidColorNode,
    SumNode,
    VideoSourceNode,
)
from tests.engine.mashes import clip, mash
from tests.strategies import all_trees

HD = Raster(1280, 720)
TIMES = st.fractions(-10, 10)


def source(name):
    return VideoSourceNode(stream_guid=name)


def tree(n):
    """A tree that shows stream n."""
    return RenderTree(root_video_node=source(f"cam{n}"))


def voice(name):
    return AudioSourceNode(stream_guid=name)


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


# --- one after the other ---------------------------------------------------------------------------------------------


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


def test_what_comes_of_programs_over_one_another_is_in_order_of_time():
    assert coming(Stack([Cued("a"), Cued("b")], start=Fraction(1)), 2, 4) == [
        (2, "a1"),
        (2, "b1"),
        (3, "a2"),
        (3, "b2"),
    ]


def test_what_is_held_brings_nothing():
    assert Held(Cued("a").tree_at(0)).coming(Fraction(0), Fraction(9)) == ()


@pytest.mark.parametrize("seen", [True, False])
def test_half_of_a_program_has_its_picture_or_its_sound(seen):
    whole = RenderTree(root_video_node=source("a"), root_audio_node=voice("a"))
    switch = Switch(Held(RenderTree()))
    switch.take(Held(whole), Fraction(2))
    part = halved(switch, picture=seen, sound=not seen)
    ((t, tree),) = part.coming(Fraction(1), Fraction(3))
    assert (t, tree.root_video_node is not None, tree.root_audio_node is not None) == (2, seen, not seen)
    assert part.tree_at(Fraction(2)) is part.tree_at(Fraction(3)) is tree
    assert list(halved(Cued("a"), picture=seen, sound=not seen).edges(Fraction(0), Fraction(3))) == [1, 2][2 * seen :]


def test_a_program_that_is_not_heard_promises_of_its_picture_what_it_would_with_sound():
    program = mash([clip(frames=10)])
    still = program.stretch(Fraction(0))
    assert still is not None
    assert [
        stretch_of(halved(program, picture=seen, sound=heard), Fraction(0))
        for seen, heard in ((True, True), (True, False), (False, True))
    ] == [still, still, None]
