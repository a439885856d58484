"""A clip is at the right pixels in the right form, and sounds as loud as its curve says."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.clip import ColourTween, Container, Filter, Ink, Medium, Scale, Shape, Text, Tween
from engine.spec import Raster
from engine.timeline import Mash
from engine.tree import Effect, ImageSourceNode, RenderTree, ShapeNode, SolidColorNode, TextNode
from tests.engine.mashes import (
    BLUE,
    FILM,
    HEART,
    HELLO,
    PHOTO,
    RED,
    box,
    clip,
    colour,
    crop,
    mash,
    picture,
    pictures,
    still,
    voices,
)

# --- geometry --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("left", [0, 500])
def test_a_text_wider_than_a_tree_allows_is_drawn_in_parts_that_can_be_seen(left):
    long = Text("a long line", "sans", Ink(left, 100_000, 1000))  # 18000 pixels at the height of the frame
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
    assert [crop(node, page.size)[1::2] for node in shown] == [(0, 405), (pytest.approx(1297.5), 405)]  # 8000 rows high


@pytest.mark.parametrize("x", [-8, 9])
def test_a_picture_too_large_for_a_tree_may_be_off_the_frame(x):
    wide = Medium(kind="image", name="wide", size=(9000, 20))
    scale = Scale(x=still(x), width=still(40), lock="V")
    node = pictures(mash([clip(wide, container=Container(scale=scale, natural=(9000, 20)))]), 0)[0]
    assert (node.dest_x, node.dest_width) == (320, 2)
    assert 0 <= node.source_x < node.source_x + node.source_width <= 1


WIDE = Shape("M0 0H400V100Z", 400, 100)


def wide(content=None, **scale):
    """A shape of 400×100 units on a frame of 320×180, by what is shown of it."""
    container = Container(form=WIDE, scale=Scale(**scale), natural=(400, 100), off="EW")
    return mash([clip(content or colour(), container=container)])


def view(node):
    return node.path_x, node.path_y, node.path_width, node.path_height


def test_a_shape_larger_than_a_tree_allows_is_cut_to_what_is_on_the_frame():
    node = pictures(wide(height=still(30)), 0)[0]  # 21600×5400 at (-10640, -2610)
    assert box(node) == (0, 0, 320, 180)
    assert view(node) == pytest.approx([part / 54 for part in (10_640, 2610, 320, 180)])
    node = pictures(wide(height=still(20), y=still(0)), 0)[0]  # only too wide: 14400×3600 at (-7040, 0)
    assert box(node) == (0, 0, 320, 3600)
    assert view(node) == pytest.approx([7040 / 36, 0, 320 / 36, 100])


def test_a_mask_is_cut_as_what_it_masks():
    node = pictures(wide(PHOTO, height=still(30)), 0)[0]
    assert box(node) == box(node.mask) == (0, 0, 320, 180)
    # The photo covers 21600×5400: it is 16200 high, its middle 5400 rows are in the shape.
    assert crop(node) == pytest.approx([part / 54 for part in (10_640, 5400 + 2610, 320, 180)], rel=1e-4)
    assert view(node.mask) == pytest.approx([part / 54 for part in (10_640, 2610, 320, 180)])


def test_a_shape_that_is_cut_and_only_moves_is_of_parts_that_stay_the_same():
    program = wide(height=still(30), x=Tween(0, 1))  # from x -21600 to 320
    found = [pictures(program, Fraction(n, 100))[0].nodes for n in range(1, 100)]
    for n, parts in enumerate(found, 1):
        x = int(-21_600 + 21_920 * n / 100) & ~1
        assert min(part.dest_x for part in parts) <= max(0, x)
        assert max(part.dest_x + part.dest_width for part in parts) >= min(320, x + 21_600)
        assert sum(part.dest_width * part.dest_height for part in parts) <= 4 * 320 * 180
        for part in parts:
            assert part.path_x * 54 == pytest.approx(part.dest_x - x)
            assert (part.path_width * 54, part.path_height * 54) == pytest.approx(box(part)[2:])
    assert len({view(part) for parts in found for part in parts}) <= 2 * (21_600 // 320 + 1)
    found = [pictures(program, Fraction(n, 1000))[0].nodes for n in range(500, 510)]  # 219 pixels
    assert len({view(part) for parts in found for part in parts}) <= 6 < sum(map(len, found))


def test_a_shape_too_large_for_a_tree_may_be_off_the_frame():
    node = pictures(wide(height=still(30), x=still(0)), 0)[0]
    assert (node.dest_x, node.dest_width) == (320, 2)
    assert pictures(wide(height=still(30), x=Tween(2, 9)), 0)[0].nodes == ()


def test_a_film_of_unknown_size_as_container_is_cut_too():
    unknown = Medium(kind="film", name="film")
    container = Container(form=unknown, scale=Scale(height=still(40)))  # 12800×7200 at (-6240, -3510)
    node = pictures(mash([clip(colour(), container=container)]), 0)[0]
    assert box(node) == box(node.mask) == (0, 0, 320, 180)
    assert crop(node.mask, (12_800, 7200)) == pytest.approx((6240, 3510, 320, 180))


def test_box_moves_between_whole_pixels_cut_to_even_ones():
    # The recorded film of this mash has these boxes, the last row of 133 with the chroma of 134.
    size = Tween(0.2, 0.8)
    scale = Scale(width=size, height=size, lock="")
    boxes = [box(picture(scale=None, container=Container(scale=scale), t=Fraction(n, 10))) for n in (0, 5, 9)]
    assert boxes == [(128, 72, 64, 36), (80, 44, 160, 90), (40, 22, 236, 134)]


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
    for start, length in ((node.source_x, node.source_width), (node.source_y, node.source_height)):
        assert (start is None) == (length is None)
        assert start is None or (start >= -1e-9 and length > 0 and start + length <= 1 + 1e-9)


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
    assert node.direction == "ltr"  # as a browser's SVG draws it
    assert box(node) == (32, 40, 257, 99)  # as wide as its letters: round(2.6 · 99)


def test_text_grows_with_its_box():
    container = Container(form=HELLO, natural=(2600, 1000), scale=text_scale((0.4, 0.8)))
    node = picture(colour(), container=container, t=Fraction(9, 10))
    assert node.size == pytest.approx(50 + 49 * 0.9)
    assert box(node)[:2] == (38, 42)


def test_ink_that_reaches_left_of_the_pen_is_shown():
    text = Text("j", "sans", Ink(100, 200, 1000))
    container = Container(form=text, natural=(200, 1000), scale=Scale(height=still(0.5)))
    node = picture(colour(), container=container)
    assert (node.fit, box(node)) == ("fill", (150, 44, 18, 90))  # what reaches left of the pen is shown too


def test_text_without_lock_is_stretched_to_its_box():
    node = picture(colour(), container=Container(form=HELLO, natural=(2600, 1000), scale=text_scale(lock="")))
    assert (node.fit, box(node)) == ("fill", (32, 62, 256, 54))


def test_text_that_was_not_measured_is_as_high_as_its_box():
    node = picture(colour(), container=Container(form=Text("x", "sans", Ink(0, 0, 0)), scale=text_scale()))
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
