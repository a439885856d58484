"""A plan paints what its tree says: the same pixels as painting the tree node by node, nothing off the canvas, nothing
in vain, every gain and rectangle where the documents put it.
"""

import math
from collections.abc import Mapping

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.color import yuv_of
from engine.effects import Convolve, Fade
from engine.plan import (
    REACH,
    Crop,
    Pass,
    Picture,
    PictureSize,
    Place,
    Plan,
    Rect,
    Voice,
    compile,  # noqa: A004 - the field's verb
    moments,
    pan_gains,
    pictures_named,
)
from engine.spec import Raster
from engine.tree import (
    AudioSourceNode,
    CompositorNode,
    Effect,
    ImageSourceNode,
    RenderTree,
    ShapeNode,
    SolidColorNode,
    SumNode,
    TextNode,
    VideoSourceNode,
    walk,
)
from tests.strategies import GRID, GRID_PICTURE, all_trees, grid_trees

HD = Raster(1280, 720)
CANVAS = Rect(0, 0, 1280, 720)
A = Picture("a")
SIZES = {A: PictureSize(100, 50)}


def video(*nodes, **fields):
    return RenderTree(root_video_node=CompositorNode(nodes=nodes, **fields))


def source(name="a", rect=None, **fields):
    """A VideoSourceNode; rect = (x, y, width, height)."""
    dest = dict(zip(("dest_x", "dest_y", "dest_width", "dest_height"), rect or (), strict=False))
    return VideoSourceNode(stream_guid=name, **dest, **fields)


def colour(rect=None, **fields):
    dest = dict(zip(("dest_x", "dest_y", "dest_width", "dest_height"), rect or (), strict=False))
    return SolidColorNode(**dest, **fields)


def planned(*nodes, raster=HD, sizes=SIZES, **fields) -> Plan:
    return compile(video(*nodes, **fields), raster, sizes)


def one(node, **arguments):
    """The only layer of a tree of one node, or None."""
    layers = planned(node, **arguments).layers
    assert len(layers) <= 1
    return layers[0] if layers else None


def names(plan, each=-1):
    """What a pass paints, groups as their number."""
    return [layer.picture.name if layer.picture else layer.group for layer in plan.passes[each].layers]


# --- rectangles ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rect", "dest"),
    [
        (None, (0, 0, 1280, 720)),
        ((10, 20), (10, 20, 1280, 720)),
        ((10, 20, 30, 40), (10, 20, 30, 40)),
        ((-10, -20, 30, 40), (-10, -20, 30, 40)),
        ((0.5, 1.5, 2.5, 3.49), (1, 2, 3, 3)),
        ((-0.5, -1.5, 2.4, 3.6), (0, -1, 2, 4)),
        ((10, 20, -30, -40), (10, 20, 30, 40)),
        ((10, 20, -2.5, -3.5), (10, 20, 3, 4)),
    ],
)
def test_destination_is_rounded_half_up_and_starts_at_its_corner(rect, dest):
    assert one(source(rect=rect)).dest == Rect(*dest)
    assert one(colour(rect=rect)).dest == Rect(*dest)


@pytest.mark.parametrize(
    ("width", "height", "mirrored"),
    [
        (4, 4, (False, False)),
        (-4, 4, (True, False)),
        (4, -4, (False, True)),
        (-4, -4, (True, True)),
        (None, None, (False, False)),
    ],
)
def test_negative_size_mirrors(width, height, mirrored):
    layer = one(VideoSourceNode(stream_guid="a", dest_width=width, dest_height=height))
    assert (layer.mirror_x, layer.mirror_y) == mirrored


@pytest.mark.parametrize(
    "fields",
    [
        {"rect": (0, 0, 0, 10)},
        {"rect": (0, 0, 10, 0)},
        {"rect": (0, 0, 0.4, 10)},
        {"rect": (0, 0, -0.4, 10)},
        {"rect": (1280, 0, 10, 10)},
        {"rect": (-10, 0, 10, 10)},
        {"rect": (0, 720, 10, 10)},
        {"rect": (0, -10, 10, 10)},
        {"opacity": 0},
        {"opacity": 0.001},
    ],
)
def test_what_cannot_be_seen_is_gone(fields):
    assert one(source(**fields)) is None
    assert one(colour(**fields)) is None


@pytest.mark.parametrize(
    "fields",
    [
        {"source_width": 0},
        {"source_height": 0},
        {"source_x": 100},
        {"source_x": 100, "source_width": -1},
        {"source_x": 100, "source_width": 50},
        {"source_y": 7000, "source_height": 10},
        {"source_x": 99.99999999},
        {"source_width": 0.00001},
    ],
)
@pytest.mark.parametrize("fit", ["fill", "contain", "cover"])
def test_nothing_of_a_picture_draws_nothing(fields, fit):
    assert one(source(fit=fit, **fields)) is None


def test_black_that_is_transparent_is_gone():
    assert one(colour(alpha=0)) is None
    assert one(colour(alpha=0.5, opacity=0.5)).alpha == 64


def test_picture_that_is_not_there_draws_nothing():
    assert one(source("b")) is None
    assert one(source(at=3)) is None
    assert one(ImageSourceNode(filename="a")) is None
    assert one(source(at=3), sizes={Picture("a", 3.0): PictureSize(4, 4)}).picture == Picture("a", 3.0)
    assert one(ImageSourceNode(filename="a"), sizes={Picture("a", image=True): PictureSize(4, 4)}).picture.image


@pytest.mark.parametrize(
    ("fields", "crop"),
    [
        ({}, (0, 0, 100, 50)),
        ({"source_width": -1, "source_height": -1}, (0, 0, 100, 50)),
        ({"source_x": 25, "source_y": 10}, (25, 10, 75, 40)),
        ({"source_x": 25, "source_width": -1}, (25, 0, 75, 50)),
        ({"source_x": 0.25, "source_y": 0.5, "source_width": 10.5, "source_height": 20.25}, (0.25, 0.5, 10.5, 20.25)),
        ({"source_x": 50, "source_width": 50, "source_height": 50}, (50, 0, 50, 50)),
        ({"source_x": 0.25, "source_width": 0.5, "source_unit": "share"}, (25, 0, 50, 50)),
        ({"source_y": 0.2, "source_height": 0.3, "source_width": -1, "source_unit": "share"}, (0, 10, 100, 15)),
        ({"source_x": 0.25, "source_y": 0.2, "source_unit": "share"}, (25, 10, 75, 40)),
        ({"source_unit": "share"}, (0, 0, 100, 50)),
    ],
)
def test_source_rectangle_within_the_picture_is_taken_as_it_is(fields, crop):
    layer = one(source(rect=(3, 5, 60, 30), **fields))
    assert (layer.crop, layer.dest) == (Crop(*crop), Rect(3, 5, 60, 30))


@pytest.mark.parametrize(
    ("width", "height", "dest"),
    [  # the picture is 100 × 50: of a source rectangle 50 … 150 and 0 … 100 half is there
        (200, 100, (10, 20, 100, 50)),
        (-200, 100, (110, 20, 100, 50)),
        (200, -100, (10, 70, 100, 50)),
        (-200, -100, (110, 70, 100, 50)),
        (3, 3, (10, 20, 2, 2)),  # 1.5 pixels, rounded half up
        (-3, -3, (12, 22, 1, 1)),  # from 11.5 to 13
    ],
)
def test_source_beyond_the_picture_is_cut_and_the_destination_shrinks_alike(width, height, dest):
    layer = one(source(rect=(10, 20, width, height), source_x=50, source_width=100, source_height=100))
    assert (layer.dest, layer.crop) == (Rect(*dest), Crop(50, 0, 50, 50))


@pytest.mark.parametrize(
    ("fit", "rect", "dest", "crop"),
    [  # the picture is 100 × 50
        ("contain", (0, 0, 100, 100), (0, 25, 100, 50), (0, 0, 100, 50)),
        ("contain", (0, 0, 200, 50), (50, 0, 100, 50), (0, 0, 100, 50)),
        ("contain", (0, 0, -200, 50), (50, 0, 100, 50), (0, 0, 100, 50)),
        ("contain", (7, 9, 200, 100), (7, 9, 200, 100), (0, 0, 100, 50)),
        ("cover", (0, 0, 100, 100), (0, 0, 100, 100), (25, 0, 50, 50)),
        ("cover", (0, 0, 200, 50), (0, 0, 200, 50), (0, 12.5, 100, 25)),
        ("cover", (7, 9, 200, 100), (7, 9, 200, 100), (0, 0, 100, 50)),
    ],
)
def test_fit_keeps_the_aspect_about_the_centre(fit, rect, dest, crop):
    layer = one(source(rect=rect, fit=fit))
    assert (layer.dest, layer.crop) == (Rect(*dest), Crop(*crop))


@pytest.mark.parametrize("fit", ["contain", "cover"])
def test_fit_counts_only_what_is_there_of_the_source(fit):
    layer = one(source(rect=(0, 0, 100, 100), fit=fit, source_x=50, source_width=500))
    assert (layer.dest, layer.crop) == (Rect(0, 0, 100, 100), Crop(50, 0, 50, 50))


@pytest.mark.parametrize(
    ("a", "b", "common"),
    [
        (Rect(0, 0, 4, 4), Rect(0, 0, 4, 4), Rect(0, 0, 4, 4)),
        (Rect(0, 0, 4, 4), Rect(1, 1, 2, 2), Rect(1, 1, 2, 2)),
        (Rect(0, 0, 4, 4), Rect(3, 3, 4, 4), Rect(3, 3, 1, 1)),
        (Rect(0, 0, 4, 4), Rect(4, 0, 4, 4), None),
        (Rect(0, 0, 4, 4), Rect(0, 4, 4, 4), None),
    ],
)
def test_rectangles_are_half_open(a, b, common):
    assert a.overlaps(b) is b.overlaps(a) is (common is not None)
    assert a.clipped(b).empty is (common is None)
    if common is not None:
        assert a.clipped(b) == b.clipped(a) == common


# --- what is dropped, and in which order the rest is painted ---------------------------------------------------------


def test_layers_are_painted_in_the_order_of_the_tree():
    sizes = {Picture(name): PictureSize(8, 8) for name in "abcd"}
    nodes = (
        source("a", (0, 0, 8, 8)),
        CompositorNode(nodes=(source("b", (4, 0, 8, 8)), source("c", (8, 0, 8, 8)))),
        source("d", (12, 0, 8, 8)),
    )
    assert names(planned(*nodes, sizes=sizes)) == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("above", "covered"),
    [
        (colour(), True),
        (colour((10, 10, 20, 20)), True),
        (source("over", (10, 10, 20, 20)), True),
        (colour((11, 10, 20, 20)), False),
        (colour((10, 10, 20, 19)), False),
        (colour(alpha=0.5), False),
        (colour(opacity=0.99), False),
        (source("glass"), False),
        (source("away"), False),
        (CompositorNode(nodes=(colour(),)), True),
        (CompositorNode(nodes=(colour(),), opacity=0.5), False),
    ],
)
def test_layer_under_one_later_opaque_layer_is_gone(above, covered):
    sizes = {
        Picture("under"): PictureSize(8, 8),
        Picture("over"): PictureSize(8, 8),
        Picture("glass"): PictureSize(8, 8, opaque=False),
    }
    plan = planned(source("under", (10, 10, 20, 20)), above, sizes=sizes)
    assert (Picture("under") in plan.pictures) is not covered


QUARTERS = [(x, y, 640, 360) for y in (0, 360) for x in (0, 640)]


@pytest.mark.parametrize(
    ("above", "covered"),
    [
        (QUARTERS, True),
        (QUARTERS[:3], False),
        ([*QUARTERS[:3], (640, 360, 640, 359)], False),  # one row is free
        ([(0, 0, 700, 720), (600, 0, 700, 720)], True),  # they overlap
        ([(-50, -50, 700, 900), (650, 0, 630, 300), (650, 300, 700, 420)], True),
    ],
)
def test_layer_under_several_opaque_ones_that_cover_it_together_is_gone(above, covered):
    plan = planned(source("under"), *(source("a", rect) for rect in above), sizes=SIZES | {Picture("under"): SIZES[A]})
    assert (Picture("under") in plan.pictures) is not covered
    assert plan.full is True  # hidden by those above, or by the one below them


@settings(deadline=None)
@given(st.lists(st.tuples(*[st.integers(-3, 7)] * 2, *[st.integers(1, 9)] * 2), max_size=7), st.integers(1, 6))
def test_layer_is_kept_just_when_a_pixel_of_it_is_free(rects, opaque_from):
    sizes = {Picture(str(n)): PictureSize(8, 8, opaque=n >= opaque_from) for n in range(len(rects))}
    plan = planned(*(source(str(n), rect) for n, rect in enumerate(rects)), raster=GRID, sizes=sizes)
    canvas = {(x, y) for x in range(GRID.width) for y in range(GRID.height)}
    wanted, hidden = [], set()
    for n, (x, y, width, height) in reversed(list(enumerate(rects))):
        pixels = canvas & {(i, j) for i in range(x, x + width) for j in range(y, y + height)}
        wanted[:0] = [str(n)] if pixels - hidden else []
        hidden |= pixels if n >= opaque_from else set()
    assert names(plan) == wanted
    assert plan.full is (hidden == canvas)


def test_canvas_is_full_when_opaque_layers_leave_no_pixel_of_it():
    assert planned(*(source("a", rect) for rect in QUARTERS)).full
    assert not planned(*(source("a", rect) for rect in QUARTERS[:3])).full
    assert not planned(*(source("a", rect, opacity=0.5) for rect in QUARTERS)).full


def test_only_the_visible_part_must_be_covered():
    sizes = {Picture(name): PictureSize(8, 8) for name in "ab"}
    assert names(planned(source("a", (-50, -50, 60, 60)), source("b", (0, 0, 10, 10)), sizes=sizes)) == ["b"]
    assert names(planned(source("a", (0, 0, 10, 10)), source("b", (-50, -50, 60, 60)), sizes=sizes)) == ["b"]


def test_later_layer_covers_earlier_ones_only():
    sizes = {Picture(name): PictureSize(8, 8) for name in "ab"}
    assert names(planned(source("b"), source("a", (0, 0, 10, 10)), sizes=sizes)) == ["b", "a"]


def test_empty_tree_is_one_empty_pass():
    assert compile(RenderTree(), HD, {}) == Plan((Pass(CANVAS, ()),), (), frozenset(), full=False)


def test_pictures_named_are_all_in_painting_order_seen_or_not():
    tree = video(
        source("b"), CompositorNode(nodes=(source("a", at=2), ImageSourceNode(filename="i")), opacity=0), colour()
    )
    assert pictures_named(tree) == [Picture("b"), Picture("a", 2.0), Picture("i", image=True)]
    assert pictures_named(RenderTree()) == []


# --- groups ----------------------------------------------------------------------------------------------------------

TOP, BOTTOM = (0, 0, 1280, 360), (0, 360, 1280, 360)
LEFT, RIGHT, MIDDLE = (0, 0, 640, 720), (640, 0, 640, 720), (323, 103, 641, 201)
ABC = {Picture(name): PictureSize(8, 8) for name in "abcdef"}


@pytest.mark.parametrize(("one", "other"), [(LEFT, RIGHT), (TOP, BOTTOM)])
def test_faded_group_without_overlap_is_dissolved(one, other):
    plan = planned(source("a", one, opacity=0.5), source("b", other), opacity=0.5, sizes=ABC)
    assert len(plan.passes) == 1
    assert [(layer.picture.name, layer.alpha, layer.opaque) for layer in plan.layers] == [
        ("a", 64, False),
        ("b", 128, False),
    ]


def test_overlap_off_the_canvas_does_not_count():
    assert len(planned(source("a", (-20, 0, 20, 9)), source("b", (-10, 0, 20, 9)), opacity=0.5, sizes=ABC).passes) == 1


def test_faded_group_with_overlap_is_painted_off_screen():
    plan = planned(source("a", MIDDLE), source("b", (400, 200, 10, 10), opacity=0.5), opacity=0.25, sizes=ABC)
    group, picture = plan.passes
    assert group.bounds == Rect(322, 102, 642, 202)  # on even pixels
    assert [(layer.picture.name, layer.dest, layer.alpha) for layer in group.layers] == [
        ("a", Rect(1, 1, 641, 201), 255),
        ("b", Rect(78, 98, 10, 10), 128),
    ]
    (layer,) = picture.layers
    assert (layer.group, layer.dest, layer.crop, layer.alpha, layer.opaque) == (
        0,
        group.bounds,
        Crop(0, 0, 642, 202),
        64,
        False,
    )


@pytest.mark.parametrize("rect", [(9, 9, 5, 5), (9, 0, 5, 5), (0, 9, 5, 5), (4, 4, 1, 1), (-5, 9, 15, 1)])
def test_one_pixel_of_overlap_is_enough(rect):
    seen_through = colour(rect, alpha=0.5), colour((0, 0, 10, 10), alpha=0.5)
    for nodes in (seen_through, seen_through[::-1]):
        assert len(planned(*nodes, opacity=0.5).passes) == 2


def test_what_others_of_a_faded_group_cover_wholly_is_no_overlap():
    ground, left, right = colour(), colour((0, 0, 640, 720)), source(rect=(640, 0, 640, 720))
    plan = planned(ground, left, right, opacity=0.5)
    assert len(plan.passes) == 1
    assert [(layer.dest.x, layer.alpha) for layer in plan.layers] == [(0, 128), (640, 128)]
    dim = msgspec.structs.replace(right, opacity=0.5)
    assert len(planned(ground, left, dim, opacity=0.5).passes) == 2


def test_group_of_full_opacity_needs_no_pass():
    assert len(planned(source("a", LEFT), source("b", MIDDLE), sizes=ABC).passes) == 1


def test_what_is_covered_within_a_group_is_gone():
    plan = planned(source("a", MIDDLE), source("b", MIDDLE), source("c", (330, 120, 8, 8)), opacity=0.5, sizes=ABC)
    assert names(plan, 0) == ["b", "c"]
    assert Picture("a") not in plan.pictures


@pytest.mark.parametrize("above", [(1, 0, 9, 10), (0, 0, 9, 10), (0, 1, 10, 9), (0, 0, 10, 9)])
def test_one_row_or_column_that_is_not_covered_is_seen_within_a_group_too(above):
    group, _ = planned(colour((0, 0, 10, 10)), colour(above), opacity=0.5).passes
    assert [layer.dest for layer in group.layers] == [Rect(0, 0, 10, 10), Rect(*above)]


def test_covered_group_vanishes_with_its_pass():
    faded = CompositorNode(nodes=(source("a", LEFT), source("b", MIDDLE)), opacity=0.5)
    plan = planned(faded, source("c"), sizes=ABC)
    assert (len(plan.passes), names(plan), plan.pictures) == (1, ["c"], {Picture("c")})


def test_invisible_group_has_no_pass():
    for opacity in (0, 0.001):
        plan = planned(source("c"), CompositorNode(nodes=(source("a"), source("b")), opacity=opacity), sizes=ABC)
        assert (len(plan.passes), names(plan)) == (1, ["c"])
    dim = (source("a", opacity=0.001), source("b", opacity=0.001))
    assert planned(*dim, opacity=0.5, sizes=ABC) == compile(RenderTree(), HD, {})


def test_passes_left_over_are_numbered_anew():
    groups = [
        CompositorNode(nodes=(source(a, MIDDLE), source(b, (400, 200, 10, 10))), opacity=0.5)
        for a, b in ("ab", "cd", "ef")
    ]
    plan = planned(groups[0], colour(), groups[1], groups[2], sizes=ABC)
    assert [names(plan, n) for n in range(2)] == [["c", "d"], ["e", "f"]]
    assert [layer.group for layer in plan.layers] == [None, 0, 1]


def test_a_mask_is_found_behind_passes_that_are_left_out():
    covered, seen = (source(name, mask=source(mask)) for name, mask in ("ab", "cd"))
    plan = planned(covered, colour(), seen, sizes=ABC)
    assert [names(plan, n) for n in range(2)] == [["d"], ["c"]]
    assert [(each.veils, each.mask) for each in plan.passes] == [(True, None), (False, 0), (False, None)]


def test_groups_in_groups_come_before_what_shows_them():
    inner = CompositorNode(nodes=(source("a", MIDDLE), source("b", (400, 200, 10, 10))), opacity=0.5)
    plan = planned(source("c", LEFT), inner, CompositorNode(nodes=(inner,), opacity=0.5), opacity=0.5, sizes=ABC)
    assert [names(plan, n) for n in range(4)] == [["a", "b"], ["a", "b"], ["c", 0, 1], [2]]
    outer = plan.passes[2]
    assert [layer.alpha for layer in outer.layers] == [255, 128, 64]
    assert outer.bounds == Rect(0, 0, 964, 720)
    assert [layer.dest for layer in outer.layers[1:]] == [Rect(322, 102, 642, 202)] * 2
    assert plan.layers[0].alpha == 128


def test_faded_group_of_faded_groups_without_overlap_is_dissolved_whole():
    halves = [CompositorNode(nodes=(source(name, rect),), opacity=0.5) for name, rect in (("a", LEFT), ("b", RIGHT))]
    plan = planned(*halves, opacity=0.5, sizes=ABC)
    assert (len(plan.passes), [layer.alpha for layer in plan.layers]) == (1, [64, 64])


class Counted(Mapping):
    """Sizes that count how often they are asked."""

    def __init__(self, sizes):
        self.sizes, self.asked = sizes, 0

    def __getitem__(self, key):
        self.asked += 1
        return self.sizes[key]

    def __iter__(self):
        return iter(self.sizes)

    def __len__(self):
        return len(self.sizes)


def test_every_node_is_looked_at_once_however_deep_faded_groups_nest():
    node = CompositorNode(nodes=(source("a", LEFT), source("b", MIDDLE)), opacity=0.9)
    for _ in range(14):
        node = CompositorNode(nodes=(node, source("a", LEFT)), opacity=0.9)
    sizes = Counted(ABC)
    plan = compile(RenderTree(root_video_node=node), HD, sizes)
    assert (len(plan.passes), sizes.asked) == (16, 16)


# --- sound -----------------------------------------------------------------------------------------------------------


# --- masks -----------------------------------------------------------------------------------------------------------

WHITE = {"red": 1.0, "green": 1.0, "blue": 1.0}


def masked_passes(node, mask, **arguments):
    """(mask, what is masked, canvas) of a plan of one masked node."""
    passes = planned(msgspec.structs.replace(node, mask=mask), **arguments).passes
    assert [(each.veils, each.mask) for each in passes] == [(True, None), (False, 0), (False, None)]
    return passes


def test_mask_and_masked_are_passes_where_both_show():
    mask, masked, canvas = masked_passes(source(rect=(10, 10, 100, 50)), colour((41, 0, 200, 45), **WHITE))
    assert mask.bounds == masked.bounds == Rect(40, 10, 70, 36)
    assert [layer.dest for layer in mask.layers] == [Rect(1, -10, 200, 45)]
    assert [layer.dest for layer in masked.layers] == [Rect(-30, 0, 100, 50)]
    (layer,) = canvas.layers
    assert (layer.group, layer.dest, layer.crop, layer.alpha) == (1, mask.bounds, Crop(0, 0, 70, 36), 255)


def test_masked_layer_hides_nothing_below_it():
    plan = planned(source("under", (0, 0, 100, 50)), source("a", mask=colour(**WHITE)), sizes=ABC | SIZES | UNDER)
    assert Picture("under") in plan.pictures
    assert not plan.full


UNDER = {Picture("under"): PictureSize(8, 8)}


def test_what_a_mask_hides_needs_no_picture():
    mask = colour((0, 0, 10, 10), **WHITE)
    beside = CompositorNode(nodes=(source("a", (0, 0, 20, 20)), source("b", (40, 0, 20, 20))), mask=mask)
    assert planned(beside, sizes=ABC).pictures == {A}


def test_covered_masked_layer_vanishes_with_both_its_passes():
    plan = planned(source("a", mask=source("b")), source("c", (0, 0, 1280, 720)), sizes=ABC)
    assert (len(plan.passes), plan.pictures) == (1, {Picture("c")})


@pytest.mark.parametrize(
    "mask",
    [
        colour((200, 200, 10, 10), **WHITE),  # beside it
        colour((2000, 0, 10, 10), **WHITE),  # off the canvas
        source("away"),
        colour(opacity=0, **WHITE),
        CompositorNode(),
        colour(mask=CompositorNode(), **WHITE),
    ],
)
def test_mask_that_shows_nothing_where_the_node_is_hides_it(mask):
    plan = planned(source(rect=(0, 0, 100, 50), mask=mask))
    assert (len(plan.passes), plan.layers) == (1, ())


def test_opacity_counts_once_on_a_masked_node():
    _, masked, canvas = masked_passes(source(opacity=0.5), colour(**WHITE))
    assert (masked.layers[0].alpha, canvas.layers[0].alpha) == (128, 255)


def test_masks_have_masks_and_groups_of_their_own():
    inner = colour(mask=source("b"), **WHITE)
    faded = CompositorNode(opacity=0.5, nodes=(source("c"), source("d", (0, 0, 50, 50))))
    plan = planned(source("a", mask=CompositorNode(nodes=(inner, faded))), sizes=ABC)
    assert [(each.veils, each.mask) for each in plan.passes] == [
        (True, None),  # b
        (False, 0),  # white, as b shows it
        (False, None),  # the group that fades
        (True, None),  # both of them
        (False, 3),  # a
        (False, None),
    ]
    assert [layer.group for layer in plan.passes[3].layers] == [1, 2]


# --- effects ---------------------------------------------------------------------------------------------------------


def effects(*found):
    return tuple(Effect(effect=name, parameters=parameters) for name, parameters in found)


def test_effects_work_on_the_placed_picture():
    layer = one(
        source(rect=(10, 20, -51, 31), source_x=5, effects=effects(("blur", {}), ("opacity", {"opacity": 0.5})))
    )
    altered = layer.altered
    assert (layer.picture, layer.source, altered.picture) == (None, A, A)
    assert (altered.crop, altered.mirror_x, altered.mirror_y) == (Crop(5, 0, 95, 50), True, False)
    assert (altered.width, altered.height, altered.part) == (51, 31, Rect(0, 0, 51, 31))
    assert altered.steps == (Convolve((0.11,) * 9), Fade(0.5))
    assert (layer.dest, layer.crop, layer.mirror_x) == (Rect(10, 20, 51, 31), Crop(0, 0, 51, 31), False)


@pytest.mark.parametrize(
    ("names", "part"),
    [
        (("grayscale",), Rect(100, 0, 182, 90)),
        (("blur",), Rect(98, 0, 186, 92)),
        (("blur", "grayscale", "blur"), Rect(96, 0, 190, 94)),
    ],
)
def test_effects_cost_only_what_shows_and_what_they_look_at(names, part):
    layer = one(source(rect=(-101, 2, 400, 200), effects=effects(*((n, {}) for n in names))), raster=Raster(180, 92))
    assert layer.altered.part == part
    assert layer.dest == Rect(part.x - 101, part.y + 2, part.width, part.height)


@pytest.mark.parametrize(
    ("found", "hides"),
    [
        (("blur", {}), True),
        (("sepia", {}), True),
        (("colorize", {"color": "#f00"}), True),
        (("colorchannelmixer", {"rr": 0.5}), True),
        (("colorchannelmixer", {"aa": 0.5}), False),
        (("chromakey", {}), False),
        (("opacity", {"opacity": 1}), False),
        (("crop", {"x": 1}), False),
    ],
)
def test_picture_hides_what_is_below_just_when_its_effects_keep_it_opaque(found, hides):
    sizes = UNDER | {A: PictureSize(8, 8)}
    plan = planned(source("under"), source("a", effects=effects(found)), sizes=sizes)
    assert (Picture("under") not in plan.pictures) is hides
    assert plan.full is hides or Picture("under") in plan.pictures


def test_see_through_picture_stays_so():
    sizes = {A: PictureSize(8, 8, opaque=False)}
    assert not one(source("a", effects=effects(("blur", {}))), sizes=sizes).opaque


def test_altered_picture_off_the_canvas_is_gone():
    assert one(source(rect=(2000, 0, 10, 10), effects=effects(("blur", {})))) is None


# --- texts and shapes ------------------------------------------------------------------------------------------------


def drawn(node):
    (picture,) = pictures_named(RenderTree(root_video_node=node))
    return picture


TEXTS = TextNode(string="x", dest_x=3, dest_y=4, dest_width=50, dest_height=20)


def test_drawn_picture_is_the_same_wherever_it_is():
    moved = msgspec.structs.replace(TEXTS, dest_x=9, dest_y=-1, opacity=0.5, id="a", mask=SolidColorNode())
    assert drawn(moved) == drawn(TEXTS)
    assert hash(drawn(moved)) == hash(drawn(TEXTS))
    assert drawn(msgspec.structs.replace(TEXTS, dest_width=-50.4)) == drawn(TEXTS)
    for change in ({"string": "y"}, {"dest_width": 51}, {"dest_height": None}, {"size": 9}, {"color": "#000"}):
        assert drawn(msgspec.structs.replace(TEXTS, **change)) != drawn(TEXTS)
    assert drawn(TEXTS).still
    assert (drawn(TEXTS).drawn.dest_width, drawn(TEXTS).drawn.dest_height) == (50, 20)


@pytest.mark.parametrize("node", [TEXTS, ShapeNode(path="M0 0", dest_x=3, dest_y=4, dest_width=50, dest_height=20)])
def test_drawn_picture_is_placed_pixel_by_pixel(node):
    sizes = {drawn(node): PictureSize(50, 20, opaque=False)}
    layer = one(node, sizes=sizes)
    assert (layer.dest, layer.crop, layer.opaque) == (Rect(3, 4, 50, 20), Crop(0, 0, 50, 20), False)
    mirrored = one(msgspec.structs.replace(node, dest_width=-50), sizes=sizes)
    assert (mirrored.dest, mirrored.mirror_x) == (Rect(3, 4, 50, 20), True)


def test_drawn_picture_that_is_not_there_yet_draws_nothing():
    assert one(TEXTS, sizes={}) is None


def test_pictures_of_masks_are_named_after_what_they_mask():
    tree = video(source("a", mask=ImageSourceNode(filename="i")), source("b"), mask=source("c"))
    assert [picture.name for picture in pictures_named(tree)] == ["a", "i", "b", "c"]


# --- sound -----------------------------------------------------------------------------------------------------------


def voices(node):
    return compile(RenderTree(root_audio_node=node), HD, {}).voices


def in_sums(node, *gains):
    for gain in gains:
        node = SumNode(nodes=(node,), gain=gain)
    return node


@pytest.mark.parametrize(
    ("gain", "sums", "linear"),
    [
        (0, (), 1),
        (-20, (), 0.1),
        (20, (20,), 100),
        (-6, (6,), 1),
        (-99.9, (), 10 ** (-99.9 / 20)),
        (-100, (), None),
        (0, (-100,), None),
        (20, (-100, 20), None),  # muted stays muted
        (-60, (-40,), None),
        (20, (20, -60, -60), 10**-4),  # what counts is the whole path
    ],
)
def test_gains_along_the_path_add_up_in_db(gain, sums, linear):
    heard = [voice.gain for voice in voices(in_sums(AudioSourceNode(stream_guid="a", gain=gain), *sums))]
    assert heard == ([] if linear is None else [pytest.approx(linear)])


def test_voices_keep_their_order_pan_and_media_time():
    tree = SumNode(
        nodes=(AudioSourceNode(stream_guid="b", pan=-100), in_sums(AudioSourceNode(stream_guid="a", at=3), 0))
    )
    assert voices(tree) == (Voice(Place("b"), None, 1.0, -100.0), Voice(Place("a", at=3.0), 3.0, 1.0, 0.0))


def test_a_place_is_held_where_any_leaf_holds_it():
    for holds in ((True, False), (False, True)):
        leaves = tuple(VideoSourceNode(stream_guid="a", at=1, hold=hold) for hold in holds)
        (moment,) = moments(RenderTree(root_video_node=CompositorNode(nodes=leaves))).values()
        assert moment.hold


def test_a_clip_is_one_place_whatever_its_time_and_goes_on_while_it_is_silent():
    def place(at, gain=0.0, **more):
        (voice,) = voices(AudioSourceNode(stream_guid="a", id="c", at=at, gain=gain, **more))
        return voice.place, voice.gain

    assert place(1) == place(2) == (Place("a", "c"), 1.0)
    assert place(1, gain=-100) == (Place("a", "c"), 0.0)
    assert place(1, speed=0.5) == (Place("a", "c", speed=0.5), 1.0)
    assert voices(AudioSourceNode(stream_guid="a", id="c", gain=-100)) == ()
    assert voices(AudioSourceNode(stream_guid="a", mono_gain=-100))[0].mono == 0
    first, second = (
        RenderTree(root_video_node=source(at=at, until=2.75, hold=True, id="c", mask=source(at=3, id="d")))
        for at in (1, 2.5)
    )
    assert pictures_named(first) == pictures_named(second) == [Picture("a", clip="c"), Picture("a", clip="d")]
    assert (moments(first), moments(second)) == (
        {Place("a", "c"): (1, 2.75, True), Place("a", "d"): (3, None, False)},
        {Place("a", "c"): (2.5, 2.75, True), Place("a", "d"): (3, None, False)},
    )
    assert compile(first, HD, {}).passes == compile(second, HD, {}).passes


@pytest.mark.parametrize(
    ("pan", "left", "right"),
    [
        (0, 1, 1),
        (-100, math.sqrt(2), 0),
        (100, 0, math.sqrt(2)),
        (50, math.sqrt(2) * math.sin(math.pi / 8), math.sqrt(2) * math.cos(math.pi / 8)),
    ],
)
def test_pan_is_constant_power_with_0_db_at_the_centre(pan, left, right):
    assert pan_gains(0.5, pan) == pytest.approx((left / 2, right / 2))
    assert (pan_gains(1, -100)[1], pan_gains(1, 100)[0], pan_gains(0.7, 0)) == (0, 0, (0.7, 0.7))


@settings(deadline=None)
@given(st.floats(-100, 100), st.floats(0, 10))
def test_pan_keeps_the_power(pan, gain):
    left, right = pan_gains(gain, pan)
    assert min(left, right) >= 0
    assert left * left + right * right == pytest.approx(2 * gain * gain)
    assert (right, left) == pytest.approx(pan_gains(gain, -pan))


# --- any tree --------------------------------------------------------------------------------------------------------


def all_sizes(tree):
    """The pictures of a tree, each of some size."""
    return {p: PictureSize(7 + 61 * n % 700, 1 + 17 * n) for n, p in enumerate(pictures_named(tree))}


def kernel_takes(crop, width, height):
    """Whether the picture kernel's door lets a crop in: to 1/65536 pixel within the picture, and not empty."""
    for start, size, limit in ((crop.x, crop.width, width), (crop.y, crop.height, height)):
        begin, span = (math.floor(value * 65536 + 0.5) for value in (start, size))
        if not (0 <= begin < limit * 65536 and 1 <= span <= limit * 65536 - begin + 1):
            return False
    return True


@settings(deadline=None, max_examples=80)
@given(all_trees(), st.sampled_from((HD, Raster(2, 2), Raster(64, 36), Raster(7680, 4320))))
def test_every_layer_of_any_tree_can_be_painted(tree, raster):
    sizes = all_sizes(tree)
    plan = compile(tree, raster, sizes)
    canvas = Rect(0, 0, raster.width, raster.height)
    assert plan.passes[-1].bounds == canvas
    for n, each in enumerate(plan.passes):
        assert each.bounds.clipped(canvas) == each.bounds
        assert not each.bounds.empty
        assert not any(value % 2 for value in msgspec.structs.astuple(each.bounds))
        target = Rect(0, 0, each.bounds.width, each.bounds.height)
        for layer in each.layers:
            assert not layer.dest.clipped(target).empty
            assert 1 <= layer.alpha <= 255
            assert [layer.picture, layer.altered, layer.colour, layer.group].count(None) == 3
            if layer.altered is not None:
                assert_altered(layer, sizes)
            if layer.picture is not None:
                assert kernel_takes(layer.crop, sizes[layer.picture].width, sizes[layer.picture].height)
            if layer.group is not None:
                group = plan.passes[layer.group].bounds
                assert layer.group < n
                assert (layer.dest.width, layer.dest.height) == (group.width, group.height)
                assert (layer.dest.x, layer.dest.y) == (group.x - each.bounds.x, group.y - each.bounds.y)
        if each.mask is not None:
            assert each.mask < n
            assert plan.passes[each.mask].bounds == each.bounds
            assert plan.passes[each.mask].veils
    shown = {layer.group for each in plan.passes for layer in each.layers} | {each.mask for each in plan.passes}
    assert shown - {None} == set(range(len(plan.passes) - 1))
    assert plan.pictures == {layer.source for each in plan.passes for layer in each.layers} - {None}


def assert_altered(layer, sizes):
    """An altered picture's part is within it, on even pixels, what its layer shows, and no larger than it must be."""
    altered, part = layer.altered, layer.altered.part
    size = sizes[altered.picture]
    assert kernel_takes(altered.crop, size.width, size.height)
    assert part.clipped(Rect(0, 0, altered.width, altered.height)) == part
    assert part.x % 2 == part.y % 2 == 0
    assert max(part.width, part.height) <= 7680 + 2 * (16 * REACH + 1)
    assert (layer.dest.width, layer.dest.height) == (part.width, part.height)
    assert layer.crop == Crop(0, 0, part.width, part.height)


@settings(deadline=None, max_examples=60)
@given(all_trees())
def test_paint_order_is_the_order_of_the_tree(tree):
    numbered = _named_apart(tree)
    plan = compile(numbered, HD, all_sizes(numbered))

    def painted(n):
        for layer in plan.passes[n].layers:
            if layer.group is not None:
                yield from painted(layer.group)
            elif layer.source is not None:
                yield layer.source

    order = [pictures_named(numbered).index(picture) for picture in painted(len(plan.passes) - 1)]
    assert order == sorted(order)
    assert len(set(order)) == len(order)


def _named_apart(tree):
    """The tree with a different name for every picture."""
    counter = iter(range(10_000))

    fields = {VideoSourceNode: "stream_guid", ImageSourceNode: "filename", TextNode: "string", ShapeNode: "path"}

    def renamed(node):
        if node.mask is not None:
            node = msgspec.structs.replace(node, mask=renamed(node.mask))
        if isinstance(node, CompositorNode):
            return msgspec.structs.replace(node, nodes=tuple(renamed(child) for child in node.nodes))
        name = fields.get(type(node))
        return msgspec.structs.replace(node, **{name: str(next(counter))}) if name else node

    root = tree.root_video_node
    return RenderTree(root_video_node=None if root is None else renamed(root))


@settings(deadline=None)
@given(all_trees())
def test_no_gain_exceeds_the_product_of_its_path(tree):
    wanted = []

    def visit(node, linear):
        linear = 0 if node.gain <= -100 else linear * 10 ** (node.gain / 20)
        if isinstance(node, SumNode):
            for child in node.nodes:
                visit(child, linear)
        elif linear > 1e-5:
            wanted.append((node.stream_guid, linear))

    if tree.root_audio_node is not None:
        visit(tree.root_audio_node, 1)
    heard = compile(tree, HD, {}).voices
    loud = [voice for voice in heard if voice.gain > 1.0001e-5]
    assert [voice.place.name for voice in loud] == [name for name, linear in wanted if linear > 1.0001e-5]
    for voice, (_, linear) in zip(loud, [pair for pair in wanted if pair[1] > 1.0001e-5], strict=True):
        assert voice.gain == pytest.approx(linear)
        assert max(pan_gains(voice.gain, voice.pan)) <= linear * math.sqrt(2) * (1 + 1e-9)


# --- against painting node by node -----------------------------------------------------------------------------------
#
# One channel, in floats: a target is {(x, y): (value · coverage, coverage)}. Both painters know what a leaf looks
# like; the naive one walks the tree and knows no plan, the other one carries a plan out and knows no tree.

GRID_SIZES = {
    Picture("opaque"): PictureSize(*GRID_PICTURE),
    Picture("seen through"): PictureSize(*GRID_PICTURE, opaque=False),
}
NOTHING = (0.0, 0.0)


def pixel(name, x, y):
    """(value, alpha) of a picture of GRID_PICTURE at a pixel of its own; every one has another value."""
    return (x + y * 7) / 40, 1.0 if name == "opaque" else (x + y) % 3 / 2


def blended(target, at, value, alpha):
    """`value` counts `alpha` over what is there."""
    below, coverage = target.get(at, NOTHING)
    target[at] = (value * alpha + below * (1 - alpha), alpha + coverage * (1 - alpha))


def weighed(target, at, value, coverage, weight):
    """A premultiplied value counts `weight` over what is there."""
    below, beneath = target.get(at, NOTHING)
    rest = 1 - coverage * weight
    target[at] = (value * weight + below * rest, coverage * weight + beneath * rest)


def brightness(target, at):
    """How much a mask shows at a pixel: its luma over black, of limited range."""
    value, coverage = target.get(at, NOTHING)
    luma = value * 255 + 16 * (1 - coverage)
    return min(max((luma - 16) / 219, 0), 1)


def paint_tree(node, target):
    """The naive painter: every node at every pixel, groups on a canvas of their own."""
    if node.mask is not None:
        own, mask = {}, {}
        paint_tree(msgspec.structs.replace(node, mask=None), own)
        paint_tree(node.mask, mask)
        for at, (value, coverage) in own.items():
            weighed(target, at, value, coverage, brightness(mask, at))
        return
    if isinstance(node, CompositorNode):
        own = target if node.opacity == 1 else {}
        for child in node.nodes:
            paint_tree(child, own)
        if own is not target:
            for at, (value, coverage) in own.items():
                weighed(target, at, value, coverage, node.opacity)
        return
    for x in range(GRID.width):
        for y in range(GRID.height):
            value, alpha = colour_at(node, x, y) if isinstance(node, SolidColorNode) else picture_at(node, x, y)
            blended(target, (x, y), value, alpha * node.opacity)


def colour_at(node, x, y):
    left, top = node.dest_x or 0, node.dest_y or 0
    width = GRID.width if node.dest_width is None else node.dest_width
    height = GRID.height if node.dest_height is None else node.dest_height
    inside = left <= x < left + width and top <= y < top + height
    return (yuv_of(node.red, node.green, node.blue)[0] / 255, node.alpha) if inside else NOTHING


def picture_at(node, x, y):
    """What the picture shows at a canvas pixel, by the centre of that pixel; beyond the picture nothing."""
    if node.stream_guid == "away":
        return NOTHING
    place = []
    for at, axis, size, limit in ((x, "x", "width", GRID_PICTURE[0]), (y, "y", "height", GRID_PICTURE[1])):
        begin, dest, span = (getattr(node, name) for name in (f"source_{axis}", f"dest_{axis}", f"dest_{size}"))
        length = getattr(node, f"source_{size}")
        length = limit - begin if length is None else length
        if not dest <= at < dest + abs(span):
            return NOTHING
        share = (at - dest + 0.5) / abs(span)
        place.append(math.floor(begin + length * (1 - share if span < 0 else share)))
        if place[-1] >= limit:
            return NOTHING
    return pixel(node.stream_guid, *place)


def paint_plan(plan):
    """The other painter: passes in order, layers in order, groups blended as wholes."""
    targets = []
    for each in plan.passes:
        target = {}
        for layer in each.layers:
            visible = layer.dest.clipped(Rect(0, 0, each.bounds.width, each.bounds.height))
            for x in range(visible.x, visible.right):
                for y in range(visible.y, visible.bottom):
                    paint_layer(layer, x, y, target, targets)
        if each.mask is not None:
            weights = {at: brightness(targets[each.mask], at) for at in target}
            target = {at: (value * weights[at], alpha * weights[at]) for at, (value, alpha) in target.items()}
        targets.append(target)
    return targets[-1]


def paint_layer(layer, x, y, target, targets):
    alpha = layer.alpha / 255
    if layer.colour is not None:
        blended(target, (x, y), layer.colour[0] / 255, alpha)
        return
    place = []
    for at, dest, span, begin, length, mirrored in (
        (x, layer.dest.x, layer.dest.width, layer.crop.x, layer.crop.width, layer.mirror_x),
        (y, layer.dest.y, layer.dest.height, layer.crop.y, layer.crop.height, layer.mirror_y),
    ):
        share = (at - dest + 0.5) / span
        place.append(math.floor(begin + length * (1 - share if mirrored else share)))
    if layer.group is not None:
        weighed(target, (x, y), *targets[layer.group].get(tuple(place), NOTHING), alpha)
    else:
        value, own = pixel(layer.picture.name, *place)
        blended(target, (x, y), value, own * alpha)


@settings(deadline=None, max_examples=60)
@given(grid_trees())
def test_plan_paints_what_its_tree_says(tree):
    wanted, painted = {}, paint_plan(compile(tree, GRID, GRID_SIZES))
    paint_tree(tree.root_video_node, wanted)
    nodes = sum(1 for _ in walk(tree))
    rounding = nodes / 420 + 1e-9  # each alpha is rounded to 1/255, and a mask makes 255 of 219
    for x in range(GRID.width):
        for y in range(GRID.height):
            value, coverage = wanted.get((x, y), NOTHING)
            got, covered = painted.get((x, y), NOTHING)
            assert abs(got - value) <= rounding, (x, y)
            assert abs(covered - coverage) <= rounding, (x, y)


@settings(deadline=None, max_examples=30)
@given(grid_trees())
def test_tree_twice_as_large_makes_a_plan_twice_as_large(tree):
    def doubled(rect):
        return Rect(*(2 * value for value in msgspec.structs.astuple(rect)))

    def larger(node):
        if node.mask is not None:
            node = msgspec.structs.replace(node, mask=larger(node.mask))
        if isinstance(node, CompositorNode):
            return msgspec.structs.replace(node, nodes=tuple(larger(child) for child in node.nodes))
        dest = {name: getattr(node, name) for name in ("dest_x", "dest_y", "dest_width", "dest_height")}
        return msgspec.structs.replace(node, **{name: value and value * 2 for name, value in dest.items()})

    def scaled(each):
        layers = []
        for layer in each.layers:
            crop = layer.crop if layer.group is None else Crop(0, 0, layer.crop.width * 2, layer.crop.height * 2)
            layers.append(msgspec.structs.replace(layer, dest=doubled(layer.dest), crop=crop))
        return msgspec.structs.replace(each, bounds=doubled(each.bounds), layers=tuple(layers))

    even = larger(tree.root_video_node)  # so that no group's bounds are rounded to even pixels
    small, big = (RenderTree(root_video_node=node) for node in (even, larger(even)))
    passes = tuple(map(scaled, compile(small, Raster(GRID.width * 2, GRID.height * 2), GRID_SIZES).passes))
    assert compile(big, Raster(GRID.width * 4, GRID.height * 4), GRID_SIZES).passes == passes
