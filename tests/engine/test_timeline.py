"""A mash answers at any time: the right clips in the right order, those that will be needed soon; and what does not
move is made once.
"""

import sys
from fractions import Fraction

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.clip import Container, Filter, Medium, Scale, Tween
from engine.program import Held, Stack, names_in
from engine.timebase import Stretch
from engine.timeline import Mash
from engine.tree import RenderTree, SolidColorNode
from tests.engine.mashes import (
    BLUE,
    FILM,
    HEART,
    HELLO,
    PHOTO,
    RED,
    SMALL,
    clip,
    colour,
    mash,
    pictures,
    still,
    voices,
)

# --- who is on the air -----------------------------------------------------------------------------------------------


def test_duration_is_the_end_of_the_last_clip_of_any_track():
    assert mash().duration == 0
    assert mash([clip(frames=10)], [clip(frame=25, frames=10)], []).duration == Fraction(35, 10)
    assert Mash([[clip(frames=10)]], raster=SMALL, quantize=30).duration == Fraction(1, 3)


@pytest.mark.parametrize(
    ("t", "reds"),
    [
        ("-1", []),
        ("0.999", []),
        ("1", [1]),
        ("1.999", [1]),
        ("2", []),
        ("2.99", []),
        ("3", [0.5]),
        ("4", []),
        ("99", []),
    ],
)
def test_gaps_at_the_start_between_clips_and_after_the_end_stay_empty(t, reds):
    program = mash([], [clip(colour(RED), frame=10), clip(colour((0.5, 0.0, 0.0, 1.0)), frame=30)])
    assert [node.red for node in pictures(program, t)] == reds


@pytest.mark.parametrize("count", range(1, 12))
def test_of_many_clips_each_is_on_in_its_time_and_painted_in_the_order_of_tracks(count):
    tracks = [[clip(FILM, frame=7 * n + a, frames=7, name=f"{a}.{n}") for n in range(count)] for a in (4, 0, 2)]
    program = mash(*tracks)
    for frame in range(7 * count + 5):
        on = [each.id for clips in tracks for each in clips if each.frame <= frame < each.stop]
        assert [node.id for node in pictures(program, Fraction(frame, 10))] == on


def test_tracks_are_painted_bottom_first_over_the_background():
    program = mash([clip(colour(RED))], [clip(colour(BLUE))], background=(0.0, 1.0, 0.0, 1.0))
    assert [(node.red, node.green, node.blue) for node in pictures(program, 0)] == [(0, 1, 0), (1, 0, 0), (0, 0, 1)]
    assert len(pictures(program, 5)) == 1  # the background stays


def test_nothing_at_all_is_the_empty_tree():
    assert mash().tree_at(Fraction(0)) == RenderTree()


def test_clip_without_container_is_heard_but_not_seen():
    program = mash([clip(FILM, container=False)])
    assert pictures(program, 0) == []
    assert [voice.stream_guid for voice in voices(program, 0)] == ["film"]
    assert (program.seen, program.heard) == (False, True)


def test_what_does_not_move_is_the_same_tree_until_somebody_comes_or_goes():
    program = mash([clip(frames=10), clip(frame=10)], [clip(PHOTO, frames=20)])
    first = program.tree_at(Fraction(0))
    assert program.tree_at(Fraction(99, 100)) is first
    assert program.tree_at(Fraction(1)) is not first
    assert mash([clip(FILM)]).tree_at(Fraction(0)) != mash([clip(FILM)]).tree_at(Fraction(1, 30))


def test_what_stands_still_beside_a_film_is_made_once():
    program = mash([clip(FILM)], [clip(PHOTO)])
    first, second = pictures(program, 0), pictures(program, Fraction(1, 30))
    assert first[0] is not second[0]
    assert first[1] is second[1]


def test_looped_mash_begins_again_at_its_end_and_not_before_its_beginning():
    program = mash([clip(colour(RED)), clip(colour(BLUE), frame=10)], loop=True)
    assert [node.blue for t in (0, 1, 2, 3, 2001) for node in pictures(program, t)] == [0, 1, 0, 1, 1]
    assert pictures(program, -1) == []
    assert mash(loop=True).tree_at(Fraction(5)) == RenderTree()


def test_each_turn_of_a_looped_mash_has_places_of_its_own():
    program = mash([clip(FILM)], loop=True)
    first, again, third = ([pictures(program, turn + Fraction(n, 10))[0] for n in range(10)] for turn in range(3))
    assert [each.at for each in first] == [each.at for each in again] == [each.at for each in third]
    places = [{each.id for each in turn} for turn in (first, again, third)]
    assert [len(ids) for ids in places] == [1, 1, 1]
    assert len(set.union(*places)) == 3


def test_each_turn_of_a_looped_medium_has_a_place_of_its_own_unless_it_is_short():
    film = Medium(kind="film", name="film", length=20, speed=Fraction(2), gain=((0, 1),))  # a turn is a second
    program = mash([clip(film, frame=5, frames=30, name="c")])
    shown = [pictures(program, t)[0] for t in ("0.5", "1.4", "1.5", "3.4")]
    assert [(node.id, node.at) for node in shown] == [("c", 0), ("c", 1.8), ("c*1", 0), ("c*2", 1.8)]
    assert [voices(program, t)[0].id for t in ("1.4", "1.5")] == ["c", "c*1"]
    short = mash([clip(msgspec.structs.replace(film, length=4), frames=30, name="c")])
    assert {pictures(short, t)[0].id for t in (0, 1, 2)} == {"c"}


def test_sound_clips_add_up_in_track_order():
    sounds = [Medium(kind="sound", name=name, gain=((0, 1),)) for name in "ab"]
    program = mash([clip(sounds[0], container=False)], [clip(sounds[1])])
    assert [voice.stream_guid for voice in voices(program, 0)] == ["a", "b"]
    assert pictures(program, 0) == []  # a sound in a container is still not seen


# --- sources ---------------------------------------------------------------------------------------------------------


def test_sources_are_those_of_clips_that_overlap_the_range():
    program = mash([clip(PHOTO, frames=10), clip(FILM, frame=10)], [clip(frames=20)])
    for start, stop, names in [
        ("0", "1", {"photo"}),
        ("0.99", "1.01", {"photo", "film"}),
        ("1", "2", {"film"}),
        ("2", "9", set()),
        ("-5", "0.1", {"photo"}),
    ]:
        assert program.sources_in(Fraction(start), Fraction(stop)) == names


def test_sources_of_a_looped_mash_go_over_its_end():
    between = msgspec.structs.replace(PHOTO, name="between")
    program = mash([clip(PHOTO, frames=10), clip(between, frame=10, frames=10), clip(FILM, frame=20)], loop=True)
    assert program.sources_in(Fraction(25, 10), Fraction(31, 10)) == {"film", "photo"}
    assert program.sources_in(Fraction(33, 10), Fraction(34, 10)) == {"photo"}
    assert program.sources_in(Fraction(0), Fraction(100)) == {"film", "photo", "between"}


MEDIA = st.sampled_from(
    [
        colour(),
        colour(RED, BLUE),
        PHOTO,
        FILM,
        Medium(kind="sound", name="sound", gain=((0, 0), (1, 1))),
        Medium(kind="film", name="live", live=True),
        Medium(kind="film", name="slow", speed=Fraction(1, 10), length=1, gain=((0, 1),)),
    ]
)
FORMS = st.sampled_from([None, HEART, HELLO, PHOTO, FILM])


@st.composite
def clips(draw):
    container = draw(st.sampled_from((Container(form=draw(FORMS)), Container(opacity=Tween(0, 1)), False)))
    frame, frames = draw(st.integers(0, 40)), draw(st.integers(1, 20))
    return clip(draw(MEDIA), frame=frame, frames=frames, container=container)


@settings(deadline=None, max_examples=100)
@given(
    tracks=st.lists(st.lists(clips(), max_size=4), max_size=3),
    times=st.lists(st.fractions(-1, 8), min_size=2, max_size=4),
    loop=st.booleans(),
)
def test_every_source_of_a_moment_is_known_beforehand_and_asking_changes_nothing(tracks, times, loop):
    program = mash(*tracks, loop=loop)
    for t in times:
        tree = program.tree_at(t)
        assert names_in(tree) <= program.sources_in(t, t + Fraction(1, 1000))
        assert mash(*tracks, loop=loop).tree_at(t) == tree


SPEEDS = st.sampled_from([Fraction(1), Fraction(2, 3), Fraction(7, 2), Fraction(1, 10)])
LENGTHS = st.none() | st.integers(1, 25)
FADE, HALF = ((Filter("opacity", {"opacity": each}),) for each in (Tween(0, 1), still(0.5)))
MOVES = st.sampled_from(
    [
        {},
        {"opacity": Tween(0, 1)},
        {"form": FILM},
        {"form": HEART},
        {"scale": Scale(width=Tween(1, 2))},
        {"scale": Scale(x=Tween(0, 1), height=still(0.5))},
    ]
)


@st.composite
def films(draw):
    medium = Medium(
        kind="film",
        name=draw(st.sampled_from("ab")),
        size=(320, 180),
        trim=draw(st.integers(0, 9) | st.just(99_999_990)),
        speed=draw(SPEEDS),
        length=draw(LENGTHS),
        filters=draw(st.sampled_from(((), FADE, HALF))),
    )
    frame, frames = draw(st.integers(0, 40)), draw(st.integers(1, 40))
    return clip(medium, frame=frame, frames=frames, container=Container(**draw(MOVES)))


@settings(deadline=None, max_examples=200)
@given(
    tracks=st.lists(st.lists(films() | clips(), min_size=1, max_size=4), min_size=1, max_size=3),
    times=st.lists(st.fractions(-1, 9), min_size=1, max_size=4),
    parts=st.lists(st.fractions(Fraction(1, 9), 1), min_size=1, max_size=8),
    loop=st.booleans(),
)
def test_a_stretch_is_what_its_moments_are(tracks, times, parts, loop):
    program = mash(*tracks, loop=loop)
    for t in times:
        stretch = program.stretch(t)
        for part in parts if stretch else ():
            assert stretch.stop > t
            later = t + (stretch.stop - t) * min(part, Fraction(999_999, 1_000_000))
            (first, then) = (pictures(program, each)[-1:] for each in (t, later))
            if stretch.at is not None:
                first = [msgspec.structs.replace(first[0], at=float(stretch.at + (later - t) * stretch.speed))]
            assert then == first


def test_a_stretch_ends_where_clips_come_or_go_and_where_a_film_begins_again():
    program = mash([clip(FILM, frame=5, frames=50)], [clip(frame=40)])
    assert program.stretch(Fraction(-1)) == Stretch(Fraction(1, 2))
    assert program.stretch(Fraction(1)) == Stretch(Fraction(7, 2), Fraction(1, 2), Fraction(1))
    assert program.stretch(Fraction(7, 2)) == Stretch(Fraction(4), Fraction(0), Fraction(1))
    assert program.stretch(Fraction(4)) == Stretch(Fraction(5))
    assert program.stretch(Fraction(11, 2)) is None
    for moving in ({"opacity": Tween(0, 1)}, {"form": FILM}, {"scale": Scale(x=Tween(0, 1), height=still(0.5))}):
        assert mash([clip(PHOTO, **moving)]).stretch(Fraction(0)) is None


# --- mashes over one another -----------------------------------------------------------------------------------------


def test_stack_paints_the_first_program_lowest_and_sums_their_sound():
    lower, upper = mash([clip(FILM)]), mash([clip(PHOTO)], [clip(FILM, container=False, name="1.0")])
    stack = Stack((lower, upper), background=SolidColorNode(green=1.0))
    base, *groups = pictures(stack, 0)
    assert base == SolidColorNode(green=1.0)
    assert groups == [each.tree_at(Fraction(0)).root_video_node for each in (lower, upper)]
    assert names_in(stack.tree_at(Fraction(0))) == stack.sources_in(Fraction(0), Fraction(1)) == {"film", "photo"}
    assert len(voices(stack, 0)) == 2


def test_stack_of_still_trees_is_the_same_object():
    stack = Stack((mash([clip(PHOTO)]), Held(RenderTree())))
    assert stack.tree_at(Fraction(0)) is stack.tree_at(Fraction(1, 2))
    assert stack.tree_at(Fraction(1, 2)) is not stack.tree_at(Fraction(3, 2))


def test_stack_counts_its_programs_time_from_its_start():
    stack = Stack((mash([clip(FILM)]),), start=Fraction(100))
    assert pictures(stack, "100.5")[0].nodes[0].at == 0.5
    assert (pictures(stack, "99"), pictures(stack, "101")) == ([], [])
    assert stack.sources_in(Fraction(90), Fraction(100)) == frozenset()
    assert stack.sources_in(Fraction(90), Fraction(1001, 10)) == {"film"}


def test_empty_stack_is_the_empty_tree():
    assert Stack(()).tree_at(Fraction(0)) == RenderTree()


# --- what comes -------------------------------------------------------------------------------------------------------


def begins(program, start, stop):
    found = program.coming(Fraction(start), Fraction(stop))
    assert [tree for _, tree in found] == [program.tree_at(t) for t, _ in found]
    return [t for t, _ in found]


def test_what_begins_within_a_stretch_comes_in_order_of_time():
    program = mash([clip(FILM), clip(FILM, frame=25, name="0.1")], [clip(FILM, frame=13, name="1.0"), clip(frame=20)])
    assert begins(program, 0, 3) == [0, Fraction(13, 10), Fraction(5, 2)]  # colours need nothing
    assert begins(program, "1/100", "5/2") == [Fraction(13, 10)]
    assert begins(program, 3, 9) == []
    assert begins(program, 1, 1) == []


def test_texts_and_shapes_in_a_colour_come_too_for_they_are_to_be_drawn():
    title, heart = Container(form=HELLO), Container(form=HEART)
    program = mash([clip(frame=5, container=title), clip(frame=20, container=heart)], [clip(frame=30)])
    assert begins(program, 0, 9) == [Fraction(1, 2), 2]


def test_what_is_only_heard_comes_too_and_what_nobody_sees_or_hears_does_not():
    sound, unseen = (Medium(kind="sound", name="s", gain=gain) for gain in (((0, 1),), ()))
    assert begins(mash([clip(sound, frame=5, container=False)]), 0, 3) == [Fraction(1, 2)]
    assert begins(mash([clip(unseen, frame=5, container=False)]), 0, 3) == []


def test_every_turn_of_a_looped_medium_comes():
    film = Medium(kind="film", name="film", length=15)
    program = mash([clip(film, frame=10, frames=50)], [clip(film, frame=10, frames=15, name="0.1")])
    assert begins(program, 0, 9) == [1, Fraction(5, 2), 4, Fraction(11, 2)]
    assert begins(program, "26/10", 4) == []
    again = mash([clip(film, frame=10, frames=20)], loop=True)
    assert begins(again, 3, 6) == [4, Fraction(11, 2)]


def test_sound_begins_and_ends_where_clips_that_are_heard_do():
    tale = Medium(kind="sound", name="s", gain=((0, 1),), length=12)
    clips = [clip(FILM, frame=3, frames=4), clip(tale, frame=8, frames=30, container=False)]
    silent = [clip(frame=1, frames=44)]
    program = mash(clips, silent)
    assert program.edges(Fraction(0), Fraction(9)) == [Fraction(n, 10) for n in (3, 7, 8, 20, 32, 38)]
    assert program.edges(Fraction(8, 10), Fraction(2)) == []
    assert mash(silent).edges(Fraction(0), Fraction(9)) == []
    again = mash([clip(tale, frame=2, frames=10, container=False)], loop=True)
    assert again.edges(Fraction(1), Fraction(3)) == [Fraction(n, 10) for n in (12, 14, 24, 26)]


def test_sound_bends_around_the_points_of_its_gain():
    curve = ((0, 0), (0.25, 1), (0.25, 0.5), (0.75, 0.5), (1, 0))
    program = mash([clip(Medium(kind="sound", name="s", gain=curve), frame=2, frames=20, container=False)])
    assert program.edges(Fraction(1, 5), Fraction(11, 5)) == [Fraction(n, 1000) for n in (699, 701, 1699, 1701)]
    assert program.edges(Fraction(699, 1000), Fraction(1699, 1000)) == [Fraction(701, 1000)]
    again = mash([clip(Medium(kind="sound", name="s", gain=curve), frame=0, frames=20, container=False)], loop=True)
    assert again.edges(Fraction(5, 2), Fraction(4)) == [Fraction(n, 1000) for n in (2501, 3499, 3501)]
    many = tuple((n / 10_000, n % 2) for n in range(10_000))
    program = mash([clip(Medium(kind="sound", name="s", gain=many), frame=0, frames=10, container=False)])
    assert len(program.edges(Fraction(0), Fraction(1))) < 1000


@settings(deadline=None, max_examples=100)
@given(
    tracks=st.lists(st.lists(clips(), max_size=6), max_size=3),
    start=st.fractions(-1, 7),
    length=st.fractions(0, 3),
)
def test_what_comes_is_what_comes_of_every_clip_alone(tracks, start, length):
    program, stop = mash(*tracks), start + length
    alone = [mash([each]) for track in tracks for each in track]
    assert begins(program, start, stop) == sorted({t for each in alone for t in begins(each, start, stop)})
    assert program.edges(start, stop) == sorted({t for each in alone for t in each.edges(start, stop)})
    assert program.sources_in(start, stop) == {name for each in alone for name in each.sources_in(start, stop)}


def calls(work):
    """How many functions are called, which does not hang on the machine."""
    called = 0

    def count(frame, event, arg):
        nonlocal called
        called += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
    return called


@pytest.mark.parametrize("length", [1000, 15], ids=["played once", "in turns"])
@pytest.mark.parametrize("tracks", [1, 2, None], ids=["one track", "two", "each its own"])
def test_what_comes_is_found_as_fast_among_many_clips_as_among_few(tracks, length):
    film = Medium(kind="film", name="film", length=length, gain=((0, 1),))

    def cost(count):
        many = [clip(film, frame=40 * n, frames=40, name=str(n)) for n in range(count)]
        music = clip(film, frames=40 * count, container=False, name="music")
        program = mash(*(many[n :: tracks or count] for n in range(tracks or count)), [music])
        t = Fraction(81, 10)
        return calls(
            lambda: (program.edges(t, t + Fraction(1, 30)), program.coming(t, t + 2), program.sources_in(t, t))
        )

    assert cost(2000) < 2 * cost(20)


def test_a_mash_that_loops_comes_again():
    program = mash([clip(FILM), clip(FILM, frame=10, frames=5, name="0.1")], loop=True)
    assert begins(program, "7/5", "31/10") == [Fraction(3, 2), Fraction(5, 2), 3]
    assert begins(program, 0, "1/10") == [0]
    assert mash([], loop=True).coming(Fraction(0), Fraction(9)) == []
