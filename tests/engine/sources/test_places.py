"""Places: what is on the air and soon will be is open, at the right moment of its medium; nothing else is."""

from contextlib import asynccontextmanager
from fractions import Fraction

import pytest
import trio
import trio.testing

from engine.clip import Clip, Container, Medium
from engine.config import Settings
from engine.errors import SourceUnavailable
from engine.plan import Place
from engine.program import Held, Stack
from engine.sources.pattern import PatternSource
from engine.sources.places import MAX_COMING, Places, Use, uses
from engine.sources.reader import Reader, decode_ahead
from engine.sources.still import load_still
from engine.spec import AudioFormat, Raster
from engine.timeline import Mash
from engine.tree import (
    AudioSourceNode,
    CompositorNode,
    ImageSourceNode,
    RenderTree,
    SumNode,
    TextNode,
    VideoSourceNode,
)
from tests.media import read_cells

RATE = 8000
AUDIO = AudioFormat(RATE)


class Closed(PatternSource):
    """A pattern that counts those which are open."""

    def __init__(self, desk, name):
        super().__init__(name, "pattern:count?size=128x72", sound=AUDIO)
        self.desk = desk
        self.sought = []

    def seek(self, t):
        self.sought.append(t)
        super().seek(t)

    def close(self):
        self.desk.open.remove(self)


class Desk:
    """Opens patterns; `open` are those that are open."""

    def __init__(self, nursery):
        self.open = []
        self.asked = []
        self.gate = None
        self.places = Places(read=self.read, load=self.load, rate=RATE, nursery=nursery)

    async def read(self, place):
        self.asked.append(place)
        if self.gate is not None:
            await self.gate.wait()
        await trio.lowlevel.checkpoint()
        if place.name == "broken":
            raise SourceUnavailable('source "broken": no such file', where="broken")
        steps = Closed(self, place.name)
        self.open.append(steps)
        return Reader(steps, rate=RATE, ahead=4, limiter=trio.CapacityLimiter(1))

    async def load(self, name):
        self.asked.append(name)
        return load_still(name, name)

    def expect(self, coming):
        self.places.expect((t, uses(tree)) for t, tree in coming)

    async def show(self, tree):
        """As a mixer does offline."""
        self.places.name(uses(tree))
        await self.places.settle()

    async def closed(self, count):
        with trio.fail_after(30):
            while len(self.open) > count:
                await trio.sleep(0)


@asynccontextmanager
async def desk():
    async with trio.open_nursery() as nursery:
        made = Desk(nursery)
        with trio.fail_after(30):
            yield made
        nursery.cancel_scope.cancel()
    assert made.open == []


def film(name="film", *, clip=None, at=None, **more):
    return VideoSourceNode(stream_guid=name, id=clip, at=at, **more)


def tree_of(*pictures, sounds=()):
    return RenderTree(root_video_node=CompositorNode(nodes=pictures), root_audio_node=SumNode(nodes=sounds))


def test_what_a_tree_uses():
    tree = tree_of(
        film(clip="a", at=2, mask=film(clip="a.container", at=3)),
        film("live"),
        film(at=5),
        film(at=6),
        ImageSourceNode(filename="logo.png"),
        TextNode(string="x"),
        sounds=(
            AudioSourceNode(stream_guid="film", id="a", at=2),
            AudioSourceNode(stream_guid="film", id="b", at=1, speed=0.5),
            AudioSourceNode(stream_guid="live", id="cam"),
        ),
    )
    assert uses(tree) == {
        Place("film", "a"): Use(True, True, 2.0),
        Place("film", "a.container"): Use(True, False, 3.0),
        Place("live"): Use(True, True),
        Place("film", at=5.0): Use(True, False, 5.0),
        Place("film", at=6.0): Use(True, False, 6.0),
        "logo.png": Use(True),
        Place("film", "b", speed=0.5): Use(False, True, 1.0),
    }


async def test_one_place_is_one_reader_however_its_time_moves():
    async with desk() as made:
        for n in range(20):
            await made.show(tree_of(film(clip="a", at=n), film(clip="b", at=n)))
        assert sorted(made.asked) == [Place("film", "a"), Place("film", "b")]
        assert made.places.reader(Place("film", "a")) is not made.places.reader(Place("film", "b"))
        assert set(made.places.active()) == {Place("film", "a"), Place("film", "b")}


async def test_what_is_over_is_closed_but_for_what_has_no_media_time():
    async with desk() as made:
        await made.show(tree_of(film(clip="a", at=0), film("stream"), film(at=5)))
        assert len(made.open) == 3
        await made.show(RenderTree())
        await made.closed(1)
        assert set(made.places.active()) == {Place("stream")}
        assert made.places.reader(Place("film", "a")) is None


async def test_what_comes_is_open_and_decoded_before_its_time_and_the_mixer_does_not_know_it():
    clips = [
        Clip(
            id=str(n), frame=10 * n, frames=10, content=Medium(kind="film", name="film", trim=70), container=Container()
        )
        for n in range(3)
    ]
    mash = Mash([clips], raster=Raster(64, 36))
    async with desk() as made:
        await made.show(mash.tree_at(Fraction(0)))
        made.expect(mash.coming(Fraction(1, 30), Fraction(3, 2)))
        assert set(made.places.active()) == {Place("film", "0")}
        with trio.fail_after(30):
            while len(made.open) < 2 or not made.open[1].sought:
                await trio.sleep(0)
        assert made.open[1].sought == [7]
        await made.show(mash.tree_at(Fraction(1)))
        await made.closed(1)
        reader = made.places.reader(Place("film", "1"))
        reader.attend(picture=Fraction(7), sound=None)
        await reader.settle(picture=Fraction(7), sound=None)
        assert read_cells(reader.pick(Fraction(7), Fraction(0)).frame.y) == 210
        assert made.open[0].sought == [7]  # it was there already


async def test_its_sound_is_decoded_before_its_time_too():
    node = AudioSourceNode(stream_guid="film", id="a", at=3, speed=2)
    async with desk() as made:
        made.expect([(Fraction(1), tree_of(film(clip="p", at=9), sounds=(node,)))])
        with trio.fail_after(30):
            while sorted(steps.sought for steps in made.open) != [[Fraction(3, 2)], [9]]:
                await trio.sleep(0)


async def test_no_more_than_a_few_are_open_before_their_time_and_what_no_longer_comes_is_closed():
    coming = [(Fraction(n), tree_of(film(clip=str(n), at=0))) for n in range(3 * MAX_COMING)]
    async with desk() as made:
        made.expect(coming)
        made.expect(coming)
        with trio.fail_after(30):
            while len(made.open) < MAX_COMING:
                await trio.sleep(0)
        assert sorted(made.asked) == [Place("film", str(n)) for n in range(MAX_COMING)]
        made.expect(coming[1:2])
        await made.closed(1)
        assert made.places.active() == {}


async def test_all_that_begins_next_is_open_before_its_time_however_many():
    first = tree_of(*(film(clip=f"a{n}", at=0) for n in range(2 * MAX_COMING)))
    on_air, then = tree_of(film(clip="on air", at=0)), tree_of(film(clip="b", at=0))
    async with desk() as made:
        await made.show(on_air)
        made.expect([(Fraction(1), on_air), (Fraction(2), first), (Fraction(3), then)])
        with trio.fail_after(30):
            while len(made.open) < 1 + 2 * MAX_COMING:
                await trio.sleep(0)
        await trio.testing.wait_all_tasks_blocked()
        assert Place("film", "b") not in made.asked


async def test_all_layers_of_a_cast_that_begin_again_almost_at_once_are_open_before():
    layers = []
    for n in range(MAX_COMING + 4):
        content = Medium(kind="film", name="film")
        clip = Clip(id=str(n), frame=0, frames=20 + n % 3, content=content, container=Container())
        layers.append(Mash([[clip]], raster=Raster(128, 72), loop=True))
    async with desk() as made:
        made.expect(Stack(layers).coming(Fraction(1, 30), Fraction(5, 2)))
        with trio.fail_after(30):
            while len(made.open) < len(layers):
                await trio.sleep(0)
        assert {place.clip for place in made.asked} == {f"{n}~1" for n in range(len(layers))}  # their second turns


async def test_what_is_closed_while_it_is_opened_leaves_nothing():
    async with desk() as made:
        made.gate = trio.Event()
        made.expect([(Fraction(1), tree_of(film(clip="a", at=0)))])
        await trio.testing.wait_all_tasks_blocked()
        made.expect([])
        made.gate.set()
        await trio.testing.wait_all_tasks_blocked()
        assert (made.open, len(made.places)) == ([], 0)


async def test_what_cannot_be_opened_is_an_error_when_it_is_due(caplog):
    async with desk() as made:
        broken = tree_of(film("broken", clip="a", at=0))
        made.expect([(Fraction(1), broken)])
        await made.show(tree_of(film(clip="b", at=0)))
        with pytest.raises(SourceUnavailable, match="no such file"):
            await made.show(broken)
        made.places.warn()
        made.places.warn()
        assert [record.getMessage() for record in caplog.records] == ['source "broken": no such file']


async def test_what_is_not_there_is_said_once_until_it_was_there(tmp_path, caplog):
    path = tmp_path / "x.png"
    tree = tree_of(ImageSourceNode(filename=str(path)))
    async with desk() as made:
        for is_there in (False, False, True, False, False):
            path.write_bytes(ONE_PIXEL) if is_there else path.unlink(missing_ok=True)
            made.places.name(uses(tree))
            await made.places.idle()
            made.places.warn()
            made.expect([])
            made.places.name({})
        assert len(caplog.records) == 2


async def test_stills_come_and_go_as_films_do(tmp_path):
    async with desk() as made:
        (tmp_path / "x.png").write_bytes(ONE_PIXEL)
        name = str(tmp_path / "x.png")
        tree = tree_of(ImageSourceNode(filename=name))
        assert made.places.still(name) is None
        made.expect([(Fraction(1), tree)])
        await made.show(tree)
        assert made.places.still(name).width == 1
        assert made.asked == [name]
        made.expect([])
        await made.show(RenderTree())
        assert made.places.still(name) is None


ONE_PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b550000000a49444154789c63f80f0001010100"
    "1bb6ee560000000049454e44ae426082"
)


def test_few_frames_wait_where_they_are_large_and_many():
    steps = PatternSource("a", "pattern:count?size=1920x1080", sound=AUDIO)
    settings = Settings(decode_ahead=6, decode_ahead_bytes=20_000_000)
    assert [decode_ahead(steps, settings, readers=n) for n in (1, 2, 3, 50)] == [6, 3, 2, 2]


def test_nothing_comes_in_a_tree_that_is_held():
    assert Held(RenderTree()).coming(Fraction(0), Fraction(9)) == ()
