"""A mash answers at any time: the right clips in the right order, at the right pixels, at the right moment of their
media; and what does not move is made once.
"""

import sys
from fractions import Fraction

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import InvalidTree
from engine.program import Held, Stack, names_in
from engine.spec import Raster
from engine.timebase import Stretch
from engine.timeline import (
    Clip,
    ColourTween,
    Container,
    Filter,
    Ink,
    Mash,
    Medium,
    Scale,
    Shape,
    Text,
    Tween,
)
from engine.tree import (
    Effect,
    ImageSourceNode,
    RenderTree,
    ShapeNode,
    SolidColorNode,
    TextNode,
    VideoSourceNode,
)

SMALL = Raster(320, 180)
RED, BLUE = (1.0, 0.0, 0.0, 1.0), (0.0, 0.0, 1.0, 1.0)
PHOTO = Medium(kind="image", name="photo", size=(400, 300))
FILM = Medium(kind="film", name="film", size=(320, 180), length=30, gain=((0, 1),))
HEART = Shape("M0 0L10 0L5 10Z", 24, 24)
HELLO = Text("Hello", "sans", Ink(0, 0, 2600, 1000))


def still(value):
    return Tween.still(value)


def colour(start=RED, end=None):
    return ColourTween(start, end or start)


def clip(content=None, *, frame=0, frames=10, container=None, name="0.0", scale=None, **more):
    """A clip; `more` goes to its container, `container=False` leaves that out."""
    if container is None:
        container = Container(**more)
    return Clip(
        id=name,
        frame=frame,
        frames=frames,
        content=content or colour(),
        scale=scale or Scale(),
        container=container or None,
    )


def mash(*tracks, **more):
    return Mash(tracks, raster=SMALL, **more)


def pictures(program, t):
    """The nodes of the video branch."""
    node = program.tree_at(Fraction(t)).root_video_node
    return [] if node is None else list(node.nodes)


def voices(program, t):
    node = program.tree_at(Fraction(t)).root_audio_node
    return [] if node is None else list(node.nodes)


def picture(*args, t=0, **more):
    """The only node of a mash of one clip."""
    (node,) = pictures(mash([clip(*args, **more)]), t)
    return node


def box(node):
    return (node.dest_x, node.dest_y, node.dest_width, node.dest_height)


def crop(node):
    """What is shown of the picture; -1 where nothing is said."""
    fields = (node.source_x, node.source_y, node.source_width, node.source_height)
    return tuple(-1 if value is None else value for value in fields)


@pytest.mark.parametrize("left", [0, 500])
def test_a_text_wider_than_a_tree_allows_is_drawn_in_parts_that_can_be_seen(left):
    long = Text("a long line", "sans", Ink(left, 0, 100_000, 1000))  # 18000 pixels at the height of the frame
    container = Container(form=long, scale=Scale(x=Tween(0, 1)), natural=(100, 1), off="EW")
    program = mash([clip(colour(), container=container, frames=100)])
    found = [pictures(program, t)[0].nodes for t in (Fraction(1, 10), 5, Fraction(99, 10))]
    for parts, x in zip(found, (-17_817, -8840, 137), strict=True):
        assert parts[0].dest_x <= max(0, x)
        assert parts[-1].dest_x + parts[-1].dest_width >= min(320, x + 18_000)
        for part in parts:
            assert abs(part.dest_x - part.offset - left * 180 // 1000 - x) <= 1
            assert -4096 < part.dest_x < 320
            assert (0 < part.dest_width <= 4096, part.fit) == (True, "none")
    assert len({part.offset for parts in found for part in parts}) > 1


def test_a_picture_higher_than_a_tree_allows_is_scrolled_from_its_first_row_to_its_last():
    page = Medium(kind="image", name="page", size=(720, 3000))
    scale = Scale(y=Tween(0, 1), width=still(1), lock="V")
    program = Mash([[clip(page, container=Container(scale=scale, natural=(720, 3000)))]], raster=Raster(1920, 1080))
    shown = [pictures(program, t)[0] for t in ("0", "0.5")]
    assert [box(node) for node in shown] == [(0, 0, 1920, 1080)] * 2
    assert [crop(node)[1::2] for node in shown] == [(0, 405), (pytest.approx(1297.5), 405)]  # 8000 rows high


@pytest.mark.parametrize("x", [-8, 9])
def test_a_picture_too_large_for_a_tree_may_be_off_the_frame(x):
    wide = Medium(kind="image", name="wide", size=(9000, 20))
    scale = Scale(x=still(x), width=still(40), lock="V")
    node = pictures(mash([clip(wide, container=Container(scale=scale, natural=(9000, 20)))]), 0)[0]
    assert (node.dest_x, node.dest_width) == (320, 2)
    assert 0 <= node.source_x < node.source_x + node.source_width <= 9000


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
    first, again, third = (pictures(program, t)[0] for t in (Fraction(1, 2), Fraction(3, 2), Fraction(5, 2)))
    assert first.at == again.at == third.at
    assert len({first.id, again.id, third.id}) == 3


def test_each_turn_of_a_looped_medium_has_a_place_of_its_own_unless_it_is_short():
    film = Medium(kind="film", name="film", length=20, speed=Fraction(2), gain=((0, 1),))  # a turn is a second
    program = mash([clip(film, frame=5, frames=30, name="c")])
    shown = [pictures(program, t)[0] for t in ("0.5", "1.4", "1.5", "3.4")]
    assert [(node.id, node.at) for node in shown] == [("c", 0), ("c", 1.8), ("c*1", 0), ("c*2", 1.8)]
    assert [voices(program, t)[0].id for t in ("1.4", "1.5")] == ["c", "c*1"]
    short = mash([clip(msgspec.structs.replace(film, length=19), frames=30, name="c")])
    assert {pictures(short, t)[0].id for t in (0, 1, 2)} == {"c"}


# --- tweens ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("t", "opacity"), [("0", 0), ("0.5", 0.5), ("0.9", 0.9), ("0.95", 0.95)])
def test_tween_would_reach_its_end_one_frame_past_the_last(t, opacity):
    assert picture(opacity=Tween(0, 1), t=Fraction(t)).opacity == pytest.approx(opacity)


def test_tween_counts_from_its_own_clip():
    program = mash([clip(frame=30, frames=20, opacity=Tween(1, 0))])
    assert pictures(program, "3.5")[0].opacity == pytest.approx(0.75)


def test_colours_tween_per_channel():
    node = picture(colour(RED, BLUE), t=Fraction(1, 4))
    assert (node.red, node.green, node.blue) == pytest.approx((0.75, 0, 0.25))


def test_box_moves_between_whole_pixels_cut_to_even_ones():
    # The recorded film of this mash has these boxes, the last row of 133 with the chroma of 134.
    size = Tween(0.2, 0.8)
    scale = Scale(width=size, height=size, lock="")
    boxes = [box(picture(scale=None, container=Container(scale=scale), t=Fraction(n, 10))) for n in (0, 5, 9)]
    assert boxes == [(128, 72, 64, 36), (80, 44, 160, 90), (40, 22, 236, 134)]


# --- geometry --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("natural", "fields", "expected"),
    [
        ((400, 300), {}, (40, 0, 240, 180)),
        (None, {}, (0, 0, 320, 180)),
        ((0, 300), {}, (0, 0, 320, 180)),
        ((24, 24), {}, (70, 0, 180, 180)),
        ((400, 300), {"height": still(0.5), "width": still(0.1)}, (100, 44, 120, 90)),  # H: width is not used
        ((2600, 1000), {"width": still(0.8), "height": still(0.1), "lock": "V"}, (32, 40, 256, 99)),
        ((400, 300), {"width": still(0.5), "height": still(0.25), "lock": ""}, (80, 68, 160, 45)),
        ((400, 300), {"width": still(0), "height": still(0), "lock": ""}, (158, 88, 2, 2)),
        ((400, 300), {"x": still(0)}, (0, 0, 240, 180)),
        ((400, 300), {"x": still(1)}, (80, 0, 240, 180)),
        ((400, 300), {"height": still(2), "y": still(1)}, (-80, -180, 480, 360)),
        ((1000, 1), {}, (0, 0, 320, 180)),  # wider than a tree allows: what is on the frame
    ],
)
def test_container_rectangle(natural, fields, expected):
    assert box(picture(PHOTO, natural=natural, scale=None, container=_container(natural, fields))) == expected


def _container(natural, fields, off=""):
    return Container(natural=natural, scale=Scale(**fields), off=off)


@pytest.mark.parametrize(
    ("off", "x", "y", "place"),
    [
        ("E", 0, 0.5, (-120, 44)),
        ("E", 1, 0.5, (200, 44)),
        ("W", 0, 0.5, (0, 44)),
        ("W", 1, 0.5, (320, 44)),
        ("EW", 0, 0.5, (-120, 44)),
        ("EW", 1, 0.5, (320, 44)),
        ("EW", 0.5, 0.5, (100, 44)),
        ("N", 0.5, 0, (100, -90)),
        ("S", 0.5, 1, (100, 180)),
        ("NS", 0.5, 0, (100, -90)),
    ],
)
def test_an_off_flag_lets_a_box_go_beyond_one_edge(off, x, y, place):
    container = _container((400, 300), {"height": still(0.5), "x": still(x), "y": still(y)}, off)
    assert box(picture(PHOTO, container=container)) == (*place, 120, 90)


@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        ({}, (-1, 37.5, -1, 225)),  # covers: 320 × 240, its middle 180 rows
        ({"y": still(0)}, (-1, 0, -1, 225)),
        ({"y": still(1)}, (-1, 75, -1, 225)),
        # 480 × 360: the left 320 columns, the bottom 180 rows.
        ({"width": still(1.5), "height": still(1.5), "x": still(0), "y": still(1)}, (0, 150, 266.6667, 150)),
        ({"width": still(1), "height": still(2), "lock": "V"}, (-1, 37.5, -1, 225)),
        ({"width": still(1), "height": still(2), "lock": ""}, (-1, 93.75, -1, 112.5)),
    ],
)
def test_content_covers_its_container_and_is_enlarged_and_moved_within(scale, expected):
    node = picture(PHOTO, natural=None, scale=Scale(**scale))
    assert box(node) == (0, 0, 320, 180)
    assert crop(node) == pytest.approx(expected, rel=1e-4)


def test_content_pans_and_zooms_smoothly():
    scale = Scale(width=Tween(1, 2), height=Tween(1, 2), x=Tween(0, 1))
    crops = [crop(picture(PHOTO, natural=None, scale=scale, t=Fraction(n, 10))) for n in (0, 5)]
    assert crops[0] == (-1, 37.5, -1, 225)
    # Half way: 480 × 360, from (160, 90) on: the middle of (0, 30) and (320, 150).
    assert crops[1] == pytest.approx((160 / 1.2, 90 / 1.2, 320 / 1.2, 180 / 1.2))


def test_picture_that_fits_is_shown_whole():
    node = picture(FILM, natural=(320, 180))
    assert (box(node), crop(node), node.fit) == ((0, 0, 320, 180), (-1,) * 4, "fill")


def test_picture_of_unknown_size_covers():
    node = picture(Medium(kind="image", name="i"))
    assert (box(node), crop(node), node.fit) == ((0, 0, 320, 180), (-1,) * 4, "cover")


@settings(deadline=None, max_examples=100)
@given(
    natural=st.none() | st.tuples(st.floats(1, 5000), st.floats(1, 5000)),
    sizes=st.lists(st.floats(0, 2), min_size=4, max_size=4),
    places=st.lists(st.floats(0, 1), min_size=8, max_size=8),
    zooms=st.lists(st.floats(1, 2), min_size=4, max_size=4),
    locks=st.tuples(st.sampled_from(("H", "V", "")), st.sampled_from(("H", "V", ""))),
    off=st.sampled_from(("", "E", "NESW", "SW")),
    t=st.fractions(0, 1),
)
def test_any_place_is_legal_and_crops_within_the_picture(natural, sizes, places, zooms, locks, off, t):
    def scale(n, sizes, lock):
        x, y = Tween(*places[n : n + 2]), Tween(*places[n + 2 : n + 4])
        return Scale(x=x, y=y, width=Tween(*sizes[:2]), height=Tween(*sizes[2:]), lock=lock)

    container = Container(natural=natural, scale=scale(0, sizes, locks[0]), off=off)
    program = mash([clip(PHOTO, container=container, scale=scale(4, zooms, locks[1]), frames=11)])
    tree = program.tree_at(t)
    (node,) = tree.root_video_node.nodes
    assert RenderTree.from_json(tree.to_json()) == tree
    assert node.dest_x % 2 == node.dest_y % 2 == 0
    assert node.dest_width >= 2 <= node.dest_height
    for start, length, limit in ((node.source_x, node.source_width, 400), (node.source_y, node.source_height, 300)):
        assert (start is None) == (length is None)
        assert start is None or (start >= -1e-6 and length > 0 and start + length <= limit + 1e-6)


# --- forms -----------------------------------------------------------------------------------------------------------


def test_a_colour_in_a_form_is_the_form_in_its_colour():
    node = picture(colour(RED, BLUE), natural=(24, 24), form=HEART, opacity=still(0.5), t=Fraction(1, 2))
    assert isinstance(node, ShapeNode)
    assert (node.path, node.path_width, node.color, node.opacity) == (HEART.path, 24, "#800080", 0.5)
    assert (box(node), node.mask) == ((70, 0, 180, 180), None)


def test_a_picture_in_a_form_has_the_form_in_white_as_its_mask():
    node = picture(PHOTO, natural=(24, 24), form=HEART)
    assert isinstance(node, ImageSourceNode)
    assert isinstance(node.mask, ShapeNode)
    assert (node.mask.color, box(node.mask), box(node)) == ("#ffffff", (70, 0, 180, 180), (70, 0, 180, 180))


def test_an_image_as_container_masks_with_the_whole_of_it_stretched():
    node = picture(colour(), form=PHOTO, scale=None, container=Container(form=PHOTO, scale=Scale(lock="")))
    assert isinstance(node, SolidColorNode)
    assert isinstance(node.mask, ImageSourceNode)
    assert (box(node.mask), crop(node.mask), node.mask.fit) == ((0, 0, 320, 180), (-1,) * 4, "fill")


def test_a_film_as_container_has_its_own_time_and_identity_and_is_heard():
    program = mash([clip(PHOTO, form=FILM, name="3.7")])
    node = pictures(program, Fraction(1, 2))[0]
    assert (node.mask.stream_guid, node.mask.at, node.mask.id) == ("film", 0.5, "3.7.container")
    assert [voice.id for voice in voices(program, 0)] == ["3.7.container"]


def text_scale(width=(0.8, 0.8), lock="V"):
    return Scale(width=Tween(*width), height=still(0.3), lock=lock)


def test_text_has_the_size_that_puts_its_ink_into_the_box():
    node = picture(colour(), container=Container(form=HELLO, natural=(2600, 1000), scale=text_scale()))
    assert isinstance(node, TextNode)
    assert (node.string, node.font, node.size, node.fit) == ("Hello", "sans", 99, "none")
    assert box(node) == (32, 40, 257, 99)  # as wide as its letters: round(2.6 · 99)


def test_text_grows_with_its_box():
    container = Container(form=HELLO, natural=(2600, 1000), scale=text_scale((0.4, 0.8)))
    node = picture(colour(), container=container, t=Fraction(9, 10))
    assert node.size == pytest.approx(50 + 49 * 0.9)
    assert box(node)[:2] == (38, 42)


def test_ink_that_reaches_left_of_the_pen_is_shown():
    text = Text("j", "sans", Ink(100, 700, 200, 1000))
    container = Container(form=text, natural=(200, 1000), scale=Scale(height=still(0.5)))
    node = picture(colour(), container=container)
    assert (node.fit, box(node)) == ("fill", (150, 44, 18, 90))  # what reaches left of the pen is shown too


def test_text_without_lock_is_stretched_to_its_box():
    node = picture(colour(), container=Container(form=HELLO, natural=(2600, 1000), scale=text_scale(lock="")))
    assert (node.fit, box(node)) == ("fill", (32, 62, 256, 54))


def test_text_that_was_not_measured_is_as_high_as_its_box():
    node = picture(colour(), container=Container(form=Text("x", "sans", Ink(0, 0, 0, 0)), scale=text_scale()))
    assert (node.size, box(node)) == (144, (32, 18, 256, 144))


# --- effects ---------------------------------------------------------------------------------------------------------


def test_effects_are_in_order_with_their_parameters_of_the_moment():
    filters = (
        Filter("chromakey", {"color": ColourTween(RED, BLUE), "similarity": Tween(0, 1)}),
        Filter("convolution", {"matrix": "0 0 0 0 1 0 0 0 0"}),
    )
    medium = Medium(kind="image", name="photo", filters=filters)
    assert picture(medium, t=Fraction(1, 2)).effects == (
        Effect(effect="chromakey", parameters={"color": "#800080", "similarity": 0.5}),
        Effect(effect="convolution", parameters={"matrix": "0 0 0 0 1 0 0 0 0"}),
    )


def test_a_filter_that_there_is_not_is_refused_at_either_end():
    Filter("opacity", {"opacity": Tween(0, 1)}).check()
    with pytest.raises(InvalidTree, match=r"\.parameters\.opacity: 2 is not within 0…1"):
        Filter("opacity", {"opacity": Tween(0, 2)}).check()
    with pytest.raises(InvalidTree, match="swirl"):
        Filter("swirl", {}).check()


# --- media time ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "t", "at"),
    [
        ({}, "0", 0),
        ({}, "0.5", 0.5),
        ({}, "2.99", 2.99),
        ({}, "3", 0),  # 30 frames, and again
        ({}, "7.25", 1.25),
        ({"trim": 5}, "1", 1.5),
        ({"trim": 5, "length": 20}, "1.99", 2.49),
        ({"trim": 5, "length": 20}, "2", 0.5),
        ({"speed": Fraction(2)}, "1", 2),
        ({"speed": Fraction(2)}, "1.5", 0),
        ({"speed": Fraction(1, 2), "trim": 10}, "5", 3.5),
        ({"speed": Fraction(11, 10)}, "1/3", 11 / 30),
        ({"length": None}, "9", 9),
        ({"length": None, "trim": 10**9}, "0", 10_000_000),
    ],
)
def test_media_time(fields, t, at):
    medium = Medium(**{"kind": "film", "name": "film", "length": 30, "gain": ((0, 1),)} | fields)
    program = mash([clip(medium, frames=100)])
    (node,), (voice,) = pictures(program, t), voices(program, t)
    assert node.at == voice.at == pytest.approx(at)
    assert isinstance(node, VideoSourceNode)
    assert node.id == voice.id


def test_media_time_counts_from_the_clip():
    assert pictures(mash([clip(FILM, frame=20)]), "2.5")[0].at == 0.5


def test_ticks_hand_over_without_a_gap_in_media_time():
    medium = Medium(kind="sound", name="s", length=10**6, gain=((0, 1),), speed=Fraction(5, 4))
    program = mash([clip(medium, container=False, frames=10**6)])
    fps = Fraction(30000, 1001)
    ats = [voices(program, n / fps)[0].at for n in range(3000)]
    assert [round(at * 48000) for at in ats] == [round(n / fps * Fraction(5, 4) * 48000) for n in range(3000)]


def test_what_is_live_has_no_media_time_no_identity_and_no_speed():
    medium = Medium(kind="film", name="live/cam", live=True, gain=((0, 1),), speed=Fraction(2), trim=5)
    program = mash([clip(medium)])
    (node,), (voice,) = pictures(program, "0.5"), voices(program, "0.5")
    assert (node.at, node.id, voice.at, voice.id, voice.speed) == (None, None, None, None, 1)
    assert program.tree_at(Fraction(0)) is program.tree_at(Fraction(1, 2))


# --- sound -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("curve", "t", "gain_db"),
    [
        (((0, 1),), "0", 0),
        (((0, 2),), "0.7", 6.0206),
        (((0, 0.5),), "0.7", -6.0206),
        (((0, 0), (0.2, 1), (1, 0)), "0", -100),
        (((0, 0), (0.2, 1), (1, 0)), "0.1", -6.0206),
        (((0, 0), (0.2, 1), (1, 0)), "0.2", 0),
        (((0, 0), (0.2, 1), (1, 0)), "0.6", -6.0206),
        (((0.5, 1), (1, 0)), "0.1", 0),  # level before the first point
        (((0, 0), (0.5, 1)), "0.9", 0),  # and after the last
        (((0.5, 0), (0.5, 1)), "0.5", 0),  # a jump
        (((0.5, 0), (0.5, 1)), "0.49", -100),
    ],
)
def test_gain_follows_its_curve(curve, t, gain_db):
    medium = Medium(kind="sound", name="s", gain=curve)
    assert voices(mash([clip(medium, container=False)]), t)[0].gain == pytest.approx(gain_db, abs=1e-3)


@pytest.mark.parametrize("speed", ["1/10", "1/2", "2"])
def test_a_voice_says_its_speed(speed):
    medium = Medium(kind="film", name="f", gain=((0, 1),), speed=Fraction(speed))
    program = mash([clip(medium)])
    assert [voice.speed for voice in voices(program, 0)] == [float(Fraction(speed))]
    assert len(pictures(program, 0)) == 1


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
    program = mash([clip(PHOTO, frames=10), clip(FILM, frame=20)], loop=True)
    assert program.sources_in(Fraction(25, 10), Fraction(31, 10)) == {"film", "photo"}
    assert program.sources_in(Fraction(33, 10), Fraction(34, 10)) == {"photo"}
    assert program.sources_in(Fraction(0), Fraction(100)) == {"film", "photo"}


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
