"""What is copied is what would have been shown: the right pictures at their ticks, and a decoder can begin there."""

from fractions import Fraction

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import smart
from engine.clip import Clip, Container, Medium, Tween
from engine.program import Held
from engine.smart import LEAST, LONGEST, Copy, Index, Run, Unseen
from engine.spec import EncoderSpec, MixerSpec, Raster
from engine.timeline import Mash
from engine.tree import (
    AudioSourceNode,
    CompositorNode,
    Effect,
    RenderTree,
    SolidColorNode,
    TextNode,
    VideoSourceNode,
)

RASTER = Raster(320, 180)
FPS = Fraction(30)
UNIT = Fraction(1, 15360)
FRAME = 512  # of those units


def film(**fields):
    return VideoSourceNode(stream_guid="film", **fields)


def group(*nodes, **fields):
    return CompositorNode(nodes=nodes, **fields)


def order_of(gops):
    """Numbers of pictures in the order of decoding: GOPs as lists of runs, each a P with the B before it in pairs."""
    order, begin = [], 0
    for gop in gops:
        order.append(begin)
        shown = begin + 1
        for run in gop:
            order += [shown + run - 1, *range(shown, shown + run - 1)]
            shown += run
        begin = shown
    return order, [0, *(1 + sum(gop) for gop in gops)]


def index_of(gops, *, zero=0):
    order, lengths = order_of(gops)
    firsts = {sum(lengths[: n + 1]) for n in range(len(gops))}
    pts = [zero * 15360 + n * FRAME for n in order]
    idr = [n in firsts for n in order]
    return Index(UNIT, Fraction(zero), pts, idr)


def run_of(first, count, *, tick=0, step=1):
    """Ticks that show pictures first, first + step, …"""
    return Run("film", tick, [Fraction(first + step * n) / FPS for n in range(count)])


def spans(copies):
    return [(copy.first, copy.stop) for copy in copies]


def copies(run, index, **settings):
    return smart.copies(run, index, fps=FPS, spec=EncoderSpec(**settings))


GOP = [3] * 6 + [1]  # 20 pictures: I BBP BBP BBP BBP BBP BBP P


# --- what is untouched -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "node",
    [
        film(),
        film(at=2.5, id="clip"),
        film(dest_x=0, dest_y=0, dest_width=320, dest_height=180),
        film(source_x=0, source_y=0, source_width=320, source_height=180, fit="cover"),
        group(SolidColorNode(), film()),
        group(film(dest_x=5), group(TextNode(string="below"), film())),
    ],
)
def test_a_film_alone_on_top_is_untouched(node):
    assert smart.untouched(node, RASTER).stream_guid == "film"


@pytest.mark.parametrize(
    "node",
    [
        None,
        SolidColorNode(),
        group(),
        film(opacity=0.99),
        film(dest_x=2),
        film(dest_width=318),
        film(dest_width=-320),
        film(source_y=1),
        film(source_height=90),
        film(source_width=320, source_unit="share"),
        film(mask=SolidColorNode()),
        film(effects=(Effect(effect="grayscale"),)),
        group(film(), TextNode(string="above")),
        group(film(), group()),
        group(film(), opacity=0.5),
        group(film(), mask=SolidColorNode()),
    ],
)
def test_anything_done_to_it_or_above_it_touches_it(node):
    assert smart.untouched(node, RASTER) is None


def test_a_timeline_is_cut_into_runs_of_one_film():
    def clip(n, name, frame, **more):
        medium = Medium(kind="film", name=name, size=(320, 180), trim=30 * n, gain=((0, 1),))
        return Clip(id=str(n), frame=frame, frames=30, content=medium, container=Container(**more))

    tracks = [[clip(0, "one", 0), clip(1, "one", 30), clip(2, "two", 60), clip(0, "two", 90)]]
    program = Mash(tracks, raster=RASTER, quantize=30, background=(0, 0, 0, 1))
    found = list(smart.runs(program, start=Fraction(1, 2), ticks=105, fps=FPS, raster=RASTER))
    assert [(run.name, run.first, len(run.times)) for run in found] == [
        ("one", 0, 45),
        ("two", 45, 30),
        ("two", 75, 30),
    ]
    assert [run.until for run in found] == [2, 3, 0.5 + 0.5]
    assert found[0].times[:2] == [Fraction(0.5), Fraction(float(Fraction(16, 30)))]
    assert found[0].times[15] == 1  # where the second clip begins, and as it happens goes on


class Asked(Mash):
    """Counts how often it is asked for a tree."""

    asked = 0

    def tree_at(self, t):
        self.asked += 1
        return super().tree_at(t)


class Plain:
    """A program that promises nothing of what comes."""

    def __init__(self, program):
        self.tree_at = program.tree_at


def test_of_a_clip_that_only_goes_on_one_tick_is_asked_for():
    medium = Medium(kind="film", name="film", size=(320, 180), length=400)
    clips = [Clip(id=str(n), frame=1000 * n, frames=900, content=medium, container=Container()) for n in range(10)]
    program = Asked([clips], raster=RASTER, quantize=10)
    (first, *_, last) = smart.runs(program, start=Fraction(0), ticks=29_700, fps=FPS, raster=RASTER)
    assert (first.first, len(first.times), last.first, len(last.times)) == (0, 1200, 29_400, 300)
    assert program.asked == 39  # three turns of each, and the gaps between


@st.composite
def films(draw):
    return Clip(
        id="a",
        frame=draw(st.integers(0, 60)),
        frames=draw(st.integers(1, 60)),
        content=Medium(
            kind="film",
            name=draw(st.sampled_from("ab")),
            live=draw(st.sampled_from((False, False, True))),
            size=(320, 180),
            trim=draw(st.integers(0, 9)),
            speed=draw(st.sampled_from((Fraction(1), Fraction(2, 3), Fraction(31)))),
            length=draw(st.none() | st.integers(1, 30)),
        ),
        container=Container(opacity=Tween(1, draw(st.sampled_from((1, 1, 1, 0.5))))),
    )


@settings(deadline=None, max_examples=100)
@given(
    tracks=st.lists(st.lists(films(), max_size=4), max_size=3),
    start=st.fractions(-1, 5, max_denominator=1001),
    fps=st.sampled_from((FPS, Fraction(30000, 1001), Fraction(60))),
    loop=st.booleans(),
)
def test_runs_are_those_of_every_tick_asked_for(tracks, start, fps, loop):
    program = Mash(tracks, raster=RASTER, quantize=10, background=(0, 0, 0, 1), loop=loop)
    found, plain = (
        list(smart.runs(each, start=start, ticks=400, fps=fps, raster=RASTER)) for each in (program, Plain(program))
    )
    assert found == plain


def test_a_film_without_a_media_time_runs_with_the_program():
    (run,) = smart.runs(Held(RenderTree(root_video_node=film())), start=Fraction(2), ticks=10, fps=FPS, raster=RASTER)
    assert run.times == [2 + Fraction(n, 30) for n in range(10)]


def test_a_long_run_is_cut_and_goes_on():
    program = Held(RenderTree(root_video_node=film(at=None)))
    found = list(smart.runs(program, start=Fraction(0), ticks=2 * LONGEST + 5 + LEAST, fps=FPS, raster=RASTER))
    assert [(run.first, len(run.times)) for run in found] == [
        (0, LONGEST),
        (LONGEST, LONGEST),
        (2 * LONGEST, 5 + LEAST),
    ]
    assert found[1].times[0] == Fraction(LONGEST, 30)


# --- what is copied --------------------------------------------------------------------------------------------------


def test_whole_gops_are_copied_as_they_are():
    (copy,) = copies(run_of(20, 40, tick=7), index_of([GOP] * 4))
    assert (copy.name, copy.first, copy.stop, copy.key) == ("film", 7, 47, 20 * FRAME)
    assert sorted(copy.ticks) == list(range(40))
    assert list(copy.ticks[:4]) == [0, 3, 1, 2]
    assert copy.delay == 1


def test_a_cut_anywhere_begins_at_the_next_idr_and_ends_with_the_last_picture_that_needs_no_later_one():
    assert spans(copies(run_of(5, 40), index_of([GOP] * 4))) == [(15, 39)]  # pictures 20…43, 44 would need 46
    assert spans(copies(run_of(0, 12), index_of([GOP]))) == [(0, 10)]


def test_a_picture_twice_or_left_out_ends_a_copy():
    times = [*run_of(0, 20).times, *run_of(19, 21).times]
    assert spans(copies(Run("film", 0, times), index_of([GOP] * 2))) == [(0, 20), (21, 41)]
    assert copies(run_of(0, 20, step=2), index_of([GOP] * 2)) == []


def test_times_are_looked_up_as_a_reader_does():
    quarter = Fraction(1, 4) / FPS
    early = [t - quarter for t in run_of(20, 20).times[1:]]
    assert spans(copies(Run("film", 0, [Fraction(20) / FPS, *early]), index_of([GOP] * 3))) == [(0, 20)]
    late = [t - quarter - Fraction(1, 10_000) for t in run_of(20, 20).times]
    assert spans(copies(Run("film", 0, late), index_of([GOP] * 3))) == [(1, 20)]


def test_of_the_films_own_times_the_nearest_picture_is_copied_as_it_is_shown():
    third = Fraction(1, 3) / FPS
    run = Run("film", 0, [t - third for t in run_of(20, 20).times], timed=True)
    assert spans(copies(run, index_of([GOP] * 3))) == [(0, 20)]
    assert spans(copies(run._replace(timed=False), index_of([GOP] * 3))) != [(0, 20)]


def test_no_picture_is_copied_from_beyond_an_out_point():
    third = Fraction(1, 3) / FPS
    run = Run("film", 0, [t - third for t in run_of(0, 40).times], timed=True)
    index = index_of([[1] * 19] * 3)
    assert spans(copies(run, index)) == [(0, 40)]
    assert spans(copies(run._replace(until=39 / 30), index)) == [(0, 39)]
    assert spans(copies(run._replace(until=40 / 30), index)) == [(0, 40)]


def test_a_file_that_does_not_begin_at_zero_is_copied_by_its_media_time():
    (copy,) = copies(run_of(20, 20), index_of([GOP] * 3, zero=5))
    assert (copy.first, copy.stop, copy.key) == (0, 20, 5 * 15360 + 20 * FRAME)


def test_nothing_is_copied_without_an_idr_picture_or_for_a_moment_only():
    assert copies(run_of(1, 19), index_of([GOP] * 2)) == []
    assert copies(run_of(0, LEAST - 1), index_of([GOP])) == []


def test_a_picture_shown_before_the_idr_picture_it_comes_after_makes_that_no_beginning():
    index = index_of([[1] * 19, [1] * 19])
    pts = index.pts.copy()
    pts[19], pts[20], pts[21] = pts[20], pts[21], pts[19]  # decoded after the picture that says it is an IDR
    broken = index._replace(pts=pts, idr=[n in (0, 20) for n in range(40)])
    assert spans(copies(run_of(0, 40), broken)) == [(0, 40)]
    assert copies(run_of(20, 20), broken) == []


def test_gops_are_no_longer_than_asked_for():
    assert spans(copies(run_of(0, 40), index_of([GOP] * 2), gop=20)) == [(0, 40)]
    assert copies(run_of(0, 40), index_of([GOP] * 2), gop=19) == []


def test_settings_that_a_copy_cannot_keep():
    assert smart.may_copy(EncoderSpec())
    assert smart.may_copy(EncoderSpec(bit_rate=5_000_000, gop=60, profile="high"))
    for limits in ({"quality": 30}, {"qp_max": 40}, {"bit_rate": 10**6, "max_bit_rate": 10**6}):
        assert not smart.may_copy(EncoderSpec(**limits))
    profiles = {None: (66, 77, 100), "high": (66, 77, 100), "main": (66, 77), "baseline": (66,)}
    for profile, fit in profiles.items():
        spec = EncoderSpec(profile=profile)
        assert [n for n in (66, 77, 100, 110, 244) if smart.may_have(spec, profile=n, bit_rate=0)] == list(fit)
    spec = EncoderSpec(bit_rate=1_000_000)
    rates = (0, 100_000, 1_250_000, 1_250_001)
    assert [smart.may_have(spec, profile=100, bit_rate=rate) for rate in rates] == [False, True, True, False]


def test_a_profile_is_asked_for_what_plays_everywhere():
    high, large = MixerSpec(raster=Raster(1920, 1080)), MixerSpec(raster=Raster(3840, 2160))
    asked = EncoderSpec(profile="high")
    assert [smart.may_ask(asked, high, level=n) for n in (30, 41, 42, 51)] == [True, True, False, False]
    assert smart.may_ask(asked, msgspec.structs.replace(high, fps=Fraction(60)), level=42)
    assert smart.may_ask(asked, large, level=51)
    assert smart.may_ask(asked, msgspec.structs.replace(large, fps=Fraction(5)), level=51)
    assert smart.may_ask(EncoderSpec(), high, level=51)


@given(
    gops=st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=9), min_size=1, max_size=6),
    cuts=st.lists(st.tuples(st.integers(0, 100), st.integers(1, 100)), min_size=1, max_size=4),
)
def test_every_packet_is_the_picture_of_its_tick_and_can_be_decoded(gops, cuts):
    """Against a decoder of our own: one that begins with the copy has what each picture needs, and shows no others."""
    index, (order, _) = index_of(gops), order_of(gops)
    total = len(order)
    shown = [number % total for begin, count in cuts for number in range(begin, begin + count)]
    run = Run("film", 0, [Fraction(number) / FPS for number in shown])
    stop = 0
    for copy in copies(run, index):
        assert copy.first >= stop
        stop = copy.stop
        begin = index.pts.index(copy.key)
        assert index.idr[begin]
        assert sorted(copy.ticks) == list(range(len(copy.ticks)))
        assert [shown[copy.first + tick] for tick in copy.ticks] == order[begin : begin + len(copy.ticks)]
        assert copy.delay == max(n - tick for n, tick in enumerate(copy.ticks)) >= 0


# --- what is left to mix ---------------------------------------------------------------------------------------------


def test_of_what_is_copied_only_the_sound_is_mixed():
    tree = RenderTree(root_video_node=film(), root_audio_node=AudioSourceNode(stream_guid="film"))
    unseen = Unseen(Held(tree), [Copy("film", 30, 0, list(range(15)))], start=Fraction(1), fps=FPS)
    seen = [unseen.tree_at(1 + Fraction(n, 30)).root_video_node is not None for n in range(60)]
    assert seen == [n not in range(30, 45) for n in range(60)]
    assert unseen.tree_at(Fraction(2)).root_audio_node is tree.root_audio_node
    assert unseen.sources_in(Fraction(0), Fraction(1)) == {"film"}
