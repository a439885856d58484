"""A drawn picture is there when a render needs it, a little later when live; drawn once, and not kept for ever."""

import logging
import subprocess
import sys
from fractions import Fraction

import msgspec
import numpy as np
import pytest
import trio

from engine.color import yuv_of
from engine.errors import SourceError
from engine.frame import VideoFrame, flat
from engine.offline import render
from engine.plan import pictures_named
from engine.program import Held
from engine.sources import drawing as module
from engine.sources.drawing import Drawings
from engine.spec import Raster, RenderSpec
from engine.tree import CompositorNode, RenderTree, ShapeNode, SolidColorNode, TextNode
from tests.engine.test_event import SPEC, studio

RASTER = Raster(64, 36)
SQUARE = ShapeNode(path="M0 0h50v50h-50z", dest_width=20, dest_height=10)
TITLE = TextNode(string="Hello", size=20)


def tree(*nodes, **fields):
    return RenderTree(root_video_node=CompositorNode(nodes=nodes, **fields))


def drawn(node):
    (picture,) = pictures_named(tree(node))
    return picture.drawn


def sized(node, width, height, **fields):
    return msgspec.structs.replace(node, dest_width=width, dest_height=height, **fields)


@pytest.fixture
async def drawings(nursery):
    made = Drawings(RASTER)
    nursery.start_soon(made.run)
    return made


def counted(monkeypatch, drawings):
    calls = []
    draw = drawings._draw
    monkeypatch.setattr(drawings, "_draw", lambda *arguments: (calls.append(arguments), draw(*arguments))[1])
    return calls


async def test_what_a_tree_names_is_drawn_before_its_picture_is(drawings):
    with trio.fail_after(30):
        await drawings.prepare(tree(SQUARE, SolidColorNode(mask=TITLE)))
    square, title = drawings.get(drawn(SQUARE)), drawings.get(drawn(TITLE))
    assert (square.width, square.height) == (20, 10)
    assert (title.width, title.height) == (64, 36)  # no rectangle: the whole frame
    assert title.a.max() == 255


async def test_each_is_drawn_once_for_every_size(drawings, monkeypatch):
    calls = counted(monkeypatch, drawings)
    sizes = [SQUARE, ShapeNode(path=SQUARE.path, dest_width=21, dest_height=10)]
    with trio.fail_after(30):
        for x in range(3):
            moved = ShapeNode(path=SQUARE.path, dest_x=x, dest_width=20, dest_height=10, opacity=0.5, id=str(x))
            await drawings.prepare(tree(*sizes, moved))
    assert len(calls) == 2
    assert drawings.get(drawn(moved)) is drawings.get(drawn(SQUARE))


async def test_a_live_tick_does_not_wait_for_what_takes_long(drawings, monkeypatch):
    free = trio.Event()

    async def slow(*arguments):
        await free.wait()
        return VideoFrame(*module_frame(drawings).planes)

    monkeypatch.setattr(drawings, "_made", slow)
    with trio.fail_after(30):
        await drawings.prepare(tree(SQUARE), patience=0.001)
        assert drawings.get(drawn(SQUARE)) is None
        await drawings.prepare(tree(SQUARE), patience=0.001)
        free.set()
        await drawings.prepare(tree(SQUARE))
        assert drawings.get(drawn(SQUARE)) is not None


def module_frame(drawings):
    return drawings._draw(drawn(SQUARE), 20, 10)


async def test_what_is_no_longer_wanted_is_not_drawn_any_more(drawings, monkeypatch):
    calls = counted(monkeypatch, drawings)
    many = [TextNode(string=str(n)) for n in range(50)]
    with trio.fail_after(30):
        for each in many:
            await drawings.prepare(tree(each), patience=0)
        await drawings.prepare(tree(SQUARE))
    assert drawings.get(drawn(SQUARE)) is not None
    assert len(calls) < 10


async def test_what_comes_is_drawn_whenever_it_comes(drawings):
    titles = [TextNode(string=f"title {n}") for n in range(4)]
    with trio.fail_after(30):
        drawings.expect([(Fraction(1), tree(titles[0])), (Fraction(1), tree(titles[1]))])  # of two layers
        drawings.expect([(Fraction(2), tree(titles[2]))])
        await drawings.prepare(tree(titles[3]), Fraction(0), patience=0)
        await drawings.idle()
    assert all(drawings.get(drawn(title)) for title in titles)


async def test_of_many_trees_for_one_moment_only_the_last_is_drawn_and_nothing_of_the_others_is_kept(
    drawings, monkeypatch
):
    calls = counted(monkeypatch, drawings)
    with trio.fail_after(30):
        for n in range(1000):
            drawings.expect([(Fraction(1), tree(TextNode(string=str(n))))])
        await drawings.idle()
    assert drawings.get(drawn(TextNode(string="999"))) is not None
    assert len(calls) == 1
    assert [len(names) for names in drawings._coming.values()] == [1]


async def test_what_has_not_been_drawn_when_its_moment_is_over_is_not_drawn_any_more(drawings, monkeypatch):
    calls = counted(monkeypatch, drawings)
    with trio.fail_after(30):
        for n in range(50):
            drawings.expect([(Fraction(n), tree(TextNode(string=str(n))))])
        await drawings.prepare(tree(SQUARE), Fraction(50))
        await drawings.idle()
    assert len(calls) == 1
    assert not drawings._coming


async def test_old_pictures_are_dropped_and_those_on_are_kept(drawings, monkeypatch):
    monkeypatch.setattr(module, "MAX_BYTES", 5 * 64 * 36)
    titles = [TextNode(string=f"title {n}") for n in range(8)]
    with trio.fail_after(30):
        for title in titles:
            await drawings.prepare(tree(titles[0], title))
    kept = [title for title in titles if drawings.get(drawn(title)) is not None]
    assert kept == [titles[0], *titles[4:]]


async def test_what_comes_is_drawn_however_much_is_on_that_goes(drawings, monkeypatch, caplog):
    monkeypatch.setattr(module, "MAX_BYTES", 3000)
    with trio.fail_after(30):
        await drawings.prepare(tree(TITLE))
        more = TextNode(string="more")
        drawings.expect([(Fraction(1), tree(more))])
        await drawings.idle()
        await drawings.prepare(tree(more), Fraction(1))
    assert drawings.get(drawn(more)) is not None
    assert caplog.messages == []


async def test_too_many_pixels_are_refused_in_a_render_and_left_out_live(drawings, monkeypatch, caplog):
    monkeypatch.setattr(module, "MAX_BYTES", 3000)
    with trio.fail_after(30), caplog.at_level(logging.WARNING):
        await drawings.prepare(tree(TITLE, SQUARE), patience=5)
        assert drawings.get(drawn(TITLE)) is not None
        both = tree(TITLE, TextNode(string="more"))
        await drawings.prepare(both, patience=5)
        assert drawings.get(drawn(TITLE)) is not None
        with pytest.raises(SourceError, match='text "more": 64×36 pixels are too many'):
            await drawings.prepare(both)
    assert [record.getMessage() for record in caplog.records] == [
        'text "more": 64×36 pixels are too many; it is not drawn'
    ]


async def test_too_intricate_texts_and_shapes_are_refused_in_a_render_and_left_out_live(nursery, caplog):
    drawings = Drawings(Raster(1920, 1080))
    nursery.start_soon(drawings.run)
    path = "M" + "0 0 9 99 " * 9_000
    straight, curved = (ShapeNode(path=each) for each in (path, "M0 0Q9 90 99 50T" + "0 0 9 99 " * 9_000))
    letters = TextNode(string="o" * 10_000, fit="fill")
    refused = (
        (straight, r'shape "M0 0 .*": its path crosses \d+ rows and columns of pixels, more than 8000000'),
        (curved, r'shape "M0 0Q.*": its path has curves of \d+ straight edges, more than 3000000'),
        (letters, r'text "o.*": its string has curves of \d+ straight edges, more than 3000000'),
    )
    await drawings.prepare(tree(SQUARE, *(node for node, _ in refused)), patience=30)
    assert drawings.get(drawn(SQUARE)) is not None
    assert caplog.messages[0].endswith("more than 8000000; it is not drawn")
    for node, sentence in refused:
        assert drawings.get(drawn(node)) is None
        with pytest.raises(SourceError, match=sentence):
            await drawings.prepare(tree(node))


async def test_a_bug_in_drawing_one_thing_ends_a_render_and_leaves_a_live_mix_the_others(drawings, monkeypatch, caplog):
    draw = drawings._draw
    monkeypatch.setattr(
        drawings, "_draw", lambda node, *size: 1 // 0 if isinstance(node, ShapeNode) else draw(node, *size)
    )
    with trio.fail_after(30):
        await drawings.prepare(tree(SQUARE, TITLE), patience=5)
        assert drawings.get(drawn(SQUARE)) is None
        assert drawings.get(drawn(TITLE)) is not None
        with pytest.raises(SourceError, match='shape "M0 0h50v50h-50z": a bug in drawing it'):
            await drawings.prepare(tree(SQUARE))
    assert caplog.messages == ['shape "M0 0h50v50h-50z": a bug in drawing it; it is not drawn']
    assert "ZeroDivisionError" in caplog.text


async def test_until_a_size_is_drawn_the_nearest_one_stands_in(drawings):
    drawn_once, far, wanted = SQUARE, sized(SQUARE, 60, 30), sized(SQUARE, 22, 11)
    with trio.fail_after(30):
        await drawings.prepare(tree(drawn_once, far))
        await drawings.prepare(tree(wanted), patience=0)
        assert drawings.get(drawn(wanted)).a is drawings.get(drawn(drawn_once)).a
        await drawings.idle()
        assert drawings.get(drawn(wanted)).width == 22
        other = ShapeNode(path="M0 0h50v50z", dest_width=22, dest_height=11)
        await drawings.prepare(tree(other), patience=0)
        assert drawings.get(drawn(other)) is None  # another thing


async def test_what_shows_nearly_the_same_part_of_a_shape_stands_in(drawings):
    def part(x, width=20):
        return msgspec.structs.replace(SQUARE, path_x=x, path_width=width)

    with trio.fail_after(30):
        await drawings.prepare(tree(part(0), part(15)))
        await drawings.prepare(tree(part(11)), patience=0)
        assert drawings.get(drawn(part(11))).a is drawings.get(drawn(part(15))).a
        await drawings.prepare(tree(part(35), part(80), part(0, width=4)), patience=0)
        assert drawings.get(drawn(part(35))) is None  # the part beside one
        assert drawings.get(drawn(part(80))) is None  # another part of it
        assert drawings.get(drawn(part(0, width=4))) is None  # stretched beyond recognition


@pytest.mark.parametrize("node", [SQUARE, sized(TITLE, 51, 27)])
async def test_a_colour_is_there_at_once_and_takes_no_drawing(drawings, monkeypatch, node):
    calls = counted(monkeypatch, drawings)
    with trio.fail_after(30):
        await drawings.prepare(tree(node))
        for red in range(0, 256, 5):
            coloured = msgspec.structs.replace(node, color=f"#{red:02x}8040")
            await drawings.prepare(tree(coloured), patience=0)
            got = drawings.get(drawn(coloured))
            assert_same(got, drawings._draw(drawn(coloured), got.width, got.height))
            calls.pop()  # ours
        assert len(calls) == 1
        await drawings.prepare(tree(coloured, SolidColorNode()))
        assert drawings.get(drawn(coloured)) is got  # the very same while it stays: nothing is painted anew for it


async def test_what_can_be_seen_through_more_or_less_stands_in_and_is_drawn_for_itself(drawings):
    whole, half = (sized(SQUARE, 40, 20, path_width=50, path_height=50, color=each) for each in ("#f00", "#00f8"))
    with trio.fail_after(30):
        await drawings.prepare(tree(whole))
        assert drawings.get(drawn(whole)).a is None
        await drawings.prepare(tree(half), patience=0)
        assert_same(drawings.get(drawn(half)), flat(yuv_of(0, 0, 1), 40, 20))
        await drawings.idle()
    assert_same(drawings.get(drawn(half)), drawings._draw(drawn(half), 40, 20))


def assert_same(got, expected):
    for ours, theirs in zip(got.planes, expected.planes, strict=True):
        assert np.array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("wanted", "stands_in"),
    [
        (sized(TITLE, 128, 72, size=40), True),
        (sized(TITLE, 128, 72), True),
        (sized(TITLE, 200, 36), False),
        (sized(TITLE, 200, 36, fit="fill"), True),
    ],
)
async def test_letters_are_not_distorted_by_more_than_twice(drawings, wanted, stands_in):
    with trio.fail_after(30):
        await drawings.prepare(tree(msgspec.structs.replace(TITLE, fit=wanted.fit)))
        await drawings.prepare(tree(wanted), patience=0)
    assert (drawings.get(drawn(wanted)) is not None) == stands_in


async def test_what_is_farthest_from_what_it_should_be_is_drawn_first(drawings, monkeypatch):
    sizes = [SQUARE, sized(TITLE, 64, 36)]
    with trio.fail_after(30):
        await drawings.prepare(tree(*sizes))
        calls = counted(monkeypatch, drawings)
        new = ShapeNode(path="M0 0h9v9z", dest_width=7, dest_height=7)
        await drawings.prepare(tree(sized(SQUARE, 22, 10), sized(TITLE, 90, 50, size=28), new), patience=0)
        await drawings.idle()
    assert [width for _, width, _ in calls] == [7, 90, 22]


async def test_what_stands_in_is_not_dropped(drawings, monkeypatch):
    monkeypatch.setattr(module, "MAX_PICTURES", 2)
    with trio.fail_after(30):
        await drawings.prepare(tree(SQUARE))
        await drawings.prepare(tree(TITLE))
        await drawings.prepare(tree(sized(SQUARE, 22, 10)), patience=0)
        await drawings.idle()
    assert drawings.get(drawn(SQUARE)) is not None
    assert drawings.get(drawn(TITLE)) is None


@pytest.mark.parametrize("kind", ["shape", "mask", "text"])
async def test_what_changes_its_size_is_there_throughout_a_transition_though_it_is_drawn_slowly(monkeypatch, kind):
    """No slot waits: each picture is drawn when its slot has passed."""
    monkeypatch.setattr("engine.event.DRAWING", 0)

    def scene(width, height):
        place = {"dest_x": (64 - width) // 2, "dest_y": (36 - height) // 2}
        if kind == "text":
            dashes = TextNode(string="—" * 9, size=height, align="center", vertical="middle", **place)
            return tree(sized(dashes, width, height))
        shape = sized(ShapeNode(path="M0 0h100v100h-100z", **place), width, height)
        return tree(shape if kind == "shape" else SolidColorNode(red=1, green=1, blue=1, mask=shape))

    async with studio() as made:
        made.event.put([scene(60, 30)])
        for _ in range(5):
            (before,) = await made.slot()
        start = made.event.put([scene(40, 18)], transition=Fraction(1, 3))
        while made.n < start + 12:
            (picture,) = await made.slot()
            assert picture.y[14:22, 28:36].max() > 100, made.n - start
    assert (before.y > 150).sum() > (picture.y > 150).sum() > 0


async def test_nothing_wide_or_high_is_never_drawn(drawings):
    with trio.fail_after(30):
        await drawings.prepare(tree(ShapeNode(path="M0 0h9v9z", dest_width=0), TextNode(string="x", dest_height=0.2)))


def test_without_text_no_font_and_no_shaper_is_loaded():
    code = (
        "import sys, engine.command, engine.offline, engine.event;"
        "names = {'uharfbuzz', *(f'engine.sources.{name}' for name in ('fonts', 'text', 'shape', 'outline'))};"
        "assert not names & set(sys.modules), names & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


class Kept:
    """A sink that keeps the last picture."""

    async def run(self):
        """Nothing to do."""

    async def put(self, n, picture, sound, span):
        self.picture = picture

    def end(self):
        """Nothing to do."""


async def test_live_and_rendered_pictures_are_the_same(monkeypatch):
    """Texts, shapes, masks and effects; a title that grows is another picture in every slot."""
    titles = [tree(SolidColorNode(blue=1.0, mask=msgspec.structs.replace(TITLE, size=10 + n))) for n in range(3)]
    scenes = [tree(SQUARE, TITLE), *titles, tree(SolidColorNode(red=0.7, mask=SQUARE), SQUARE)]
    async with studio() as made:
        await made.slot()
        drawings = made.event._subs[0]._readers._reels[0].drawings
        for scene in scenes:
            slot = made.event.put([scene])
            with trio.fail_after(30):  # the first one waits for HarfBuzz to be loaded
                while made.n <= slot or not all(drawings.get(picture.drawn) for picture in pictures_named(scene)):
                    (live,) = await made.slot()
            (live,) = await made.slot()
            kept = Kept()
            monkeypatch.setattr(sys.modules[render.__module__], "open_sink", lambda *_, kept=kept, **__: kept)
            await render(Held(scene), RenderSpec(output="offline.png", mixer=SPEC.mixer))
            assert_same(live, kept.picture)
