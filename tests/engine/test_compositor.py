"""A plan carried out equals the oracle to the bit; gains move within 20 ms and nothing clicks."""

import weakref

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import plan as planner
from engine.color import yuv_of
from engine.compositor import Compositor, Heard
from engine.effects import Convolve, Fade, Key, Recolour, Tint
from engine.frame import AudioFrame, VideoFrame
from engine.framequeue import Piece
from engine.plan import Picture, PictureSize, Place, Voice
from engine.rounding import round_half_up
from engine.spec import MAX_SIDE, AudioFormat, MixerSpec, Raster
from engine.tree import CompositorNode, Effect, RenderTree, SolidColorNode, VideoSourceNode
from engine_ext import composite, effect
from engine_ext.composite import Layer
from tests import reference
from tests.strategies import EFFECTS

SPEC = MixerSpec(raster=Raster(64, 36), audio=AudioFormat(8000, 2))
RAMP = 160  # samples of 20 ms at 8 kHz


def noise(seed, width, height, *, alpha=False):
    rng = np.random.default_rng(seed)
    half = ((height + 1) // 2, (width + 1) // 2)
    shapes = [(height, width), half, half, (height, width)][: 4 if alpha else 3]
    return VideoFrame(*(rng.integers(0, 256, shape, np.uint8) for shape in shapes))


def test_sources_give_pictures_as_large_as_the_kernels_take():
    assert composite.MAX_SIDE == effect.MAX_SIDE == MAX_SIDE


def compiled(frames, *nodes):
    sizes = {picture: PictureSize(frame.width, frame.height, frame.a is None) for picture, frame in frames.items()}
    return planner.compile(RenderTree(root_video_node=CompositorNode(nodes=nodes)), SPEC.raster, sizes)


def oracle(plan, frames):
    """The canvas (y, u, v) of a plan, painted pass by pass by the reference."""
    groups = []
    for each in plan.passes:
        height, width = each.bounds.height, each.bounds.width
        opaque = each is plan.passes[-1] or each.veils
        canvas = blank(width, height, (16, 128, 128) if opaque else (0, 0, 0))
        coverage = None if opaque else blank(width, height, (0, 0, 0))[:2]
        layers = []
        for layer in each.layers:
            planes = layer.colour if layer.colour is not None else None
            if planes is None:
                planes = groups[layer.group] if layer.group is not None else pictured(layer, frames)
            crop = (layer.crop.x, layer.crop.y, layer.crop.width, layer.crop.height)
            dest = (layer.dest.x, layer.dest.y, layer.dest.width, layer.dest.height)
            mirrors = {"mirror_x": layer.mirror_x, "mirror_y": layer.mirror_y}
            crop = None if layer.colour is not None else crop
            layers.append(Layer(planes, dest, crop, alpha=layer.alpha, **mirrors))
        reference.composite(*canvas, layers, coverage=coverage)
        made = (*canvas, *(coverage or ()))
        if each.veils:
            made = reference.effect("luma", *canvas)
        elif each.mask is not None:
            made = [reference.effect("veil", plane, groups[each.mask][n in (1, 2, 4)]) for n, plane in enumerate(made)]
        groups.append(made)
    return groups[-1]


def blank(width, height, colour):
    shapes = ((height, width), (height // 2, width // 2), (height // 2, width // 2))
    return [np.full(shape, value, np.uint8) for shape, value in zip(shapes, colour, strict=True)]


def pictured(layer, frames):
    """The planes that a layer shows; of an altered picture the part, cut from the whole of it."""
    if layer.picture is not None:
        return frames[layer.picture].planes
    altered, part = layer.altered, layer.altered.part
    planes = stepped(placed(altered, frames[altered.picture]), altered.steps)
    bottom, right = part.y + part.height, part.x + part.width
    rows, columns = slice(part.y, bottom), slice(part.x, right)
    half_rows, half_columns = slice(part.y // 2, (bottom + 1) // 2), slice(part.x // 2, (right + 1) // 2)
    return [p[half_rows, half_columns] if n in (1, 2) else p[rows, columns] for n, p in enumerate(planes)]


def placed(altered, frame):
    """The whole picture, cropped, scaled and mirrored, with its alpha, 255 where it has none."""
    alpha = np.full_like(frame.y, 255) if frame.a is None else frame.a
    crop = tuple(getattr(altered.crop, name) for name in ("x", "y", "width", "height"))
    mirrors = {"mirror_x": altered.mirror_x, "mirror_y": altered.mirror_y}
    planes = (*frame.planes[:3], alpha)
    return reference.scaled(Layer(planes, (0, 0, altered.width, altered.height), crop, **mirrors))


def stepped(planes, steps):
    for step in steps:
        y, u, v, a = planes
        if isinstance(step, Convolve):
            bias = step.bias * 219 / 255
            planes = [
                *(
                    reference.effect("convolve", plane, step.matrix, zero, bias if zero == 16 else 0)
                    for plane, zero in ((y, 16), (u, 128), (v, 128))
                ),
                a,
            ]
        elif isinstance(step, Recolour):
            planes = reference.effect("recolour", planes, (step.red, step.green, step.blue, step.alpha))
        elif isinstance(step, Tint):
            planes = [*(np.full_like(plane, value) for plane, value in zip((y, u, v), step.yuv, strict=True)), a]
        elif isinstance(step, Key):
            a = reference.effect("key", a, u, v, step.cb, step.cr, step.similarity, step.blend)
            planes = [y, u, v, a]
        elif isinstance(step, Fade):
            planes = [y, u, v, reference.effect("veil", a, np.full_like(a, round_half_up(step.opacity * 255)))]
        else:
            rows, columns = np.mgrid[: len(a), : len(a[0])]
            right, bottom = (
                10**6 if size is None else round_half_up(start + size)
                for start, size in ((step.x, step.width), (step.y, step.height))
            )
            inside = (columns >= round_half_up(step.x)) & (columns < right)
            inside &= (rows >= round_half_up(step.y)) & (rows < bottom)
            planes = [y, u, v, np.where(inside, a, 0).astype(np.uint8)]
    return planes


def assert_painted(picture, expected):
    for plane, wanted in zip(picture.planes, expected, strict=True):
        assert np.array_equal(plane, wanted)


FRAMES = {
    Picture("a"): noise(1, 64, 36),
    Picture("b"): noise(2, 41, 23, alpha=True),
    Picture("c"): noise(3, 130, 70),
}


def shown(name, **fields):
    return VideoSourceNode(stream_guid=name, **fields)


def effects(*found):
    return tuple(Effect(effect=name, parameters=parameters) for name, parameters in found)


KEYED = ("chromakey", {"color": "#8040c0", "similarity": 0.2, "blend": 0.3})
SCENES = {
    "a masked picture": (shown("a", mask=shown("c")),),
    "a mask beside": (shown("a", dest_width=30, mask=SolidColorNode(red=1, dest_x=29)),),
    "a masked group over a picture": (
        shown("c"),
        CompositorNode(
            opacity=0.6,
            nodes=(shown("a", dest_x=5, dest_width=40), shown("b", dest_x=21, dest_y=9)),
            mask=CompositorNode(
                nodes=(shown("c", dest_x=11, dest_width=31, dest_height=21), SolidColorNode(red=1, green=1, alpha=0.3))
            ),
        ),
    ),
    "a mask with a mask": (
        shown("a", mask=SolidColorNode(red=1, green=1, blue=1, dest_x=3, dest_width=41, mask=shown("c", dest_y=7))),
    ),
    "one mask for two": (
        shown("a", dest_width=30, mask=SolidColorNode(green=0.7, dest_width=30)),
        SolidColorNode(blue=1, dest_x=30, mask=SolidColorNode(green=0.7)),
    ),
    "blurred and sharpened": (
        shown("a", dest_width=31, dest_height=33, effects=effects(("blur", {}), ("sharpen", {}))),
        shown("b", dest_x=33, dest_y=3, dest_width=29, dest_height=-31, effects=effects(("emboss", {}))),
    ),
    "recoloured": (
        shown("a", effects=effects(("sepia", {}))),
        shown("b", dest_x=7, dest_y=5, effects=effects(("grayscale", {}), ("opacity", {"opacity": 0.7}))),
        shown("c", dest_y=20, dest_height=9, effects=effects(("colorchannelmixer", {"ar": 0.5, "aa": 0.2, "ra": 0.3}))),
    ),
    "tinted": (
        shown("a", dest_width=31, effects=effects(("colorize", {"color": "#e04020"}))),
        shown("b", dest_x=7, dest_y=5, effects=effects(("blur", {}), ("colorize", {"color": "#2040e0"}))),
    ),
    "keyed": (shown("a"), shown("c", effects=effects(KEYED)), shown("b", dest_x=9, effects=effects(KEYED))),
    "cut and biased": (
        shown("a"),
        shown("c", effects=effects(("crop", {"x": 5, "y": 2.5, "width": 21}), ("convolution", {"bias": 40}))),
    ),
    "larger than the canvas": (
        shown("a", dest_x=-31, dest_y=-17, dest_width=127, dest_height=73, effects=effects(("blur", {}), KEYED)),
        CompositorNode(
            opacity=0.5,
            nodes=(
                shown("c", dest_x=-101, dest_y=-55, dest_width=203, dest_height=111, effects=effects(("sharpen", {}))),
                shown("b", dest_x=40, dest_y=20, effects=effects(("emboss", {}), ("crop", {"x": 3, "height": 9}))),
            ),
        ),
    ),
    "nothing": (),
    "one to one": (shown("a"),),
    "smaller than the canvas": (shown("c", dest_x=7, dest_y=5, dest_width=31, dest_height=17),),
    "see-through over it": (shown("a"), shown("b", dest_x=3, dest_y=3, dest_width=40, dest_height=30)),
    "half a colour": (shown("c"), SolidColorNode(red=1, alpha=0.5, dest_x=10, dest_width=20)),
    "mirrored and cropped": (shown("c", source_x=20.5, source_width=60.25, dest_width=-64, dest_height=-36),),
    "a group that fades": (
        shown("a"),
        CompositorNode(
            opacity=0.4,
            nodes=(shown("c", dest_width=40), shown("b", dest_x=20, dest_width=40), SolidColorNode(alpha=0.2)),
        ),
    ),
    "a group in a group": (
        CompositorNode(
            opacity=0.7,
            nodes=(
                shown("a"),
                CompositorNode(opacity=0.5, nodes=(shown("c"), shown("b"))),
                SolidColorNode(blue=1, alpha=0.1),
            ),
        ),
    ),
}


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("scene", SCENES)
def test_a_plan_is_painted_as_the_oracle_says(scene, threads):
    plan = compiled(FRAMES, *SCENES[scene])
    assert_painted(Compositor(SPEC, threads=threads).paint(plan, FRAMES), oracle(plan, FRAMES))


RECTANGLES = st.fixed_dictionaries(
    {},
    optional={
        "dest_x": st.integers(-40, 70),
        "dest_y": st.integers(-30, 40),
        "dest_width": st.integers(-90, 90),
        "dest_height": st.integers(-50, 50),
        "opacity": st.sampled_from((0.1, 0.5, 1)),
    },
)
LEAVES = st.builds(lambda name, fields: shown(name, **fields), st.sampled_from("abc"), RECTANGLES)
LEAVES |= st.builds(lambda fields: SolidColorNode(green=0.5, alpha=0.75, **fields), RECTANGLES)
LEAVES |= st.builds(
    lambda name, fields, some: shown(name, effects=tuple(some), **fields),
    st.sampled_from("abc"),
    RECTANGLES,
    st.lists(EFFECTS, max_size=3),
)
GROUPS = st.builds(CompositorNode, nodes=st.lists(LEAVES, max_size=4).map(tuple), opacity=st.sampled_from((0.3, 1)))
NODES = st.one_of(
    LEAVES,
    GROUPS,
    st.builds(lambda node, mask: msgspec.structs.replace(node, mask=mask), LEAVES | GROUPS, LEAVES | GROUPS),
)


@settings(max_examples=80, deadline=None)
@given(st.lists(NODES, max_size=4))
def test_any_scene_is_painted_as_the_oracle_says(nodes):
    plan = compiled(FRAMES, *nodes)
    assert_painted(Compositor(SPEC).paint(plan, FRAMES), oracle(plan, FRAMES))


@pytest.mark.parametrize("y", [4, 5, -7, 30])
@pytest.mark.parametrize("height", [1, -1, 2, 3, 20, 21, -21])
def test_a_keyed_colour_is_gone_to_the_last_row_whatever_the_height(height, y):
    frames = {Picture("green"): VideoFrame(*blank(64, 36, yuv_of(0, 1, 0)))}
    back = SolidColorNode(red=0.2, green=0.2, blue=0.8)
    key = effects(("chromakey", {"color": "#00FF00", "similarity": 0.1, "blend": 0.05}))
    keyed = shown("green", dest_x=4, dest_y=y, dest_width=40, dest_height=height, effects=key)
    assert_painted(painted(frames, back, keyed), painted(frames, back).planes)


SAME = (("opacity", {"opacity": 1}), ("convolution", {}), ("crop", {}))
ANYWHERE = {"dest_x": st.integers(-40, 60), "dest_y": st.integers(-22, 35)}
OF_ITS_OWN_SIZE = st.fixed_dictionaries(ANYWHERE | {"dest_width": st.just(41), "dest_height": st.just(23)})
# Scaled pictures on even pixels only: on odd ones chroma, and what shows of it, is interpolated once more.
SCALED = st.fixed_dictionaries(
    {name: numbers.map(lambda n: n // 2 * 2) for name, numbers in ANYWHERE.items()}
    | {"dest_width": st.integers(-90, 90).filter(bool), "dest_height": st.integers(-50, 50).filter(bool)}
)
OPAQUE, SEE_THROUGH = noise(4, 41, 23), noise(2, 41, 23, alpha=True)
PLACED = st.tuples(st.sampled_from((OPAQUE, SEE_THROUGH)), OF_ITS_OWN_SIZE) | st.tuples(st.just(OPAQUE), SCALED)


@settings(max_examples=60, deadline=None)
@given(PLACED, st.sampled_from(SAME), st.booleans())
def test_effects_that_change_nothing_leave_every_sample_as_it_is(placed, same, masked):
    frame, place = placed
    frames = FRAMES | {Picture("d"): frame}
    mask = shown("c") if masked else None
    with_effect, plain = (
        painted(frames, shown("a"), shown("d", effects=effects(*some), mask=mask, **place)) for some in ((same,), ())
    )
    assert_painted(with_effect, plain.planes)


@pytest.mark.parametrize("name", ["b", "d"])
def test_a_tinted_picture_is_one_colour_and_as_see_through_as_before(name):
    frames = FRAMES | {Picture("d"): OPAQUE}
    frame = frames[Picture(name)]
    flat = [np.full_like(plane, value) for plane, value in zip(frame.planes, yuv_of(0, 0, 1), strict=False)]
    frames[Picture("flat")] = VideoFrame(*flat, *frame.planes[3:])
    place = {"dest_x": 5, "dest_y": 3, "dest_width": 41, "dest_height": 23}
    tinted = shown(name, effects=effects(("colorize", {"color": "#0000ff"})), **place)
    assert_painted(painted(frames, shown("a"), tinted), painted(frames, shown("a"), shown("flat", **place)).planes)


def painted(frames, *nodes):
    return Compositor(SPEC).paint(compiled(frames, *nodes), frames)


def test_as_many_layers_as_a_tree_may_have():
    colours = tuple(
        SolidColorNode(red=n / 255, alpha=0.5, dest_x=n % 16 * 4, dest_y=n // 16 * 2, dest_width=9, dest_height=7)
        for n in range(255)
    )
    plan = compiled({}, *colours)
    assert_painted(Compositor(SPEC).paint(plan, {}), oracle(plan, {}))


def test_more_layers_than_the_kernel_takes_at_once():
    places = [(n % 32 * 2, n // 32) for n in range(32 * 36)]
    nodes = [
        SolidColorNode(red=n % 2, alpha=0.5, dest_x=x, dest_y=y, dest_width=2, dest_height=1)
        for n, (x, y) in enumerate(places)
    ]
    plan = compiled({}, *nodes)
    assert len(plan.layers) > 1024
    assert_painted(Compositor(SPEC).paint(plan, {}), oracle(plan, {}))


def test_the_same_again_is_the_same_picture_and_anything_new_is_not(monkeypatch):
    painted = counted(monkeypatch, composite, "composite")
    compositor = Compositor(SPEC)
    frames = {Picture("a"): noise(1, 64, 36)}
    plan = compiled(frames, shown("a", dest_width=32))
    first = compositor.paint(plan, frames)
    assert compositor.paint(plan, dict(frames)) is first
    assert compositor.paint(plan, {Picture("a"): noise(1, 64, 36)}) is not first
    assert compositor.paint(compiled(frames, shown("a")), frames) is not first
    assert len(painted) == 3


def counted(monkeypatch, module, name):
    """Counts the calls of a kernel."""
    calls = []
    made = getattr(module, name)
    monkeypatch.setattr(module, name, lambda *arguments, **more: (calls.append(name), made(*arguments, **more))[1])
    return calls


def test_what_stays_the_same_below_a_film_is_made_once(monkeypatch):
    """A mask, a group and a picture with effects are static while a film goes on, though the tree is another one."""
    blurs, masks = counted(monkeypatch, effect, "convolve"), counted(monkeypatch, effect, "luma")
    compositor = Compositor(SPEC)
    for seed in range(4):
        frames = FRAMES | {Picture("film"): noise(seed, 64, 36)}
        nodes = (
            shown("film"),
            shown("film", dest_x=20, mask=shown("c")),
            shown("a", dest_x=seed, dest_width=30, effects=effects(("blur", {}))),
        )
        plan = compiled(frames, *nodes)
        assert_painted(compositor.paint(plan, frames), oracle(plan, frames))
    assert (len(blurs), len(masks)) == (3, 1)


def test_nothing_is_kept_that_the_last_picture_did_not_show():
    compositor = Compositor(SPEC)
    plan = compiled(FRAMES, shown("a", mask=shown("c"), effects=effects(("blur", {}))))
    compositor.paint(plan, FRAMES)
    kept = [weakref.ref(planes[0]) for planes in compositor._kept.values()]
    assert len(kept) == 3  # the altered picture, the mask, what it shows
    compositor.paint(compiled(FRAMES, shown("a")), FRAMES)
    assert not any(reference() is not None for reference in kept)


def test_another_frame_makes_everything_anew_that_shows_it():
    compositor = Compositor(SPEC)
    for seed in (1, 2):
        frames = FRAMES | {Picture("c"): noise(seed, 50, 40), Picture("a"): noise(seed + 5, 50, 40)}
        group = CompositorNode(opacity=0.5, nodes=(shown("c"), shown("a", effects=effects(("blur", {})))))
        plan = compiled(frames, shown("b", mask=group))
        assert_painted(compositor.paint(plan, frames), oracle(plan, frames))


def test_a_picture_cannot_be_written_and_is_in_one_piece():
    picture = Compositor(SPEC).paint(compiled(FRAMES, shown("a")), FRAMES)
    assert not any(plane.flags.writeable for plane in picture.planes)
    assert picture.buffer.shape == (54, 64)
    assert np.array_equal(picture.buffer[:36], picture.y)


def test_canvases_are_used_again():
    compositor = Compositor(SPEC)
    plan = compiled(FRAMES, shown("a"))
    for seed in range(20):
        compositor.paint(plan, {Picture("a"): noise(seed, 64, 36)})
    assert len(compositor._pool._free) == 1  # beside that of the last picture


# --- sound ------------------------------------------------------------------------------------------------------------


def heard(name, count, *, gain=1.0, pan=0.0, value=0.25, channels=1, offset=0):
    block = AudioFrame(np.full((channels, count), value, np.float32))
    return Heard(Voice(Place(name), None, gain, pan), [Piece(block, 0, count, offset)])


def test_what_is_there_from_the_start_is_at_its_level_from_the_first_sample():
    out = Compositor(SPEC).sum([heard("a", 300), heard("b", 300, value=0.5, gain=0.5)], 300)
    assert np.array_equal(out.samples, np.full((2, 300), 0.5, np.float32))


def spread(channels, **more):
    block = AudioFrame(np.full((channels, 100), 0.5, np.float32))
    return Heard(Voice(Place("a"), None, 1.0, 0.0, mono=0.7, **more), [Piece(block, 0, 100, 0)])


@pytest.mark.parametrize(("given", "wanted", "level"), [(1, 2, 0.35), (2, 2, 0.5), (1, 1, 0.5), (2, 1, 0.5)])
def test_one_channel_that_goes_to_two_has_a_gain_of_its_own(given, wanted, level):
    spec = MixerSpec(raster=SPEC.raster, audio=AudioFormat(48_000, wanted))
    assert Compositor(spec).sum([spread(given)], 100).samples == pytest.approx(level)


def timed(gain, *, clip="a", value=0.5):
    block = AudioFrame(np.full((1, 100), value, np.float32))
    return Heard(Voice(Place("film", clip), 1.0, gain, 0.0), [Piece(block, 0, 100, 0)])


def test_what_has_a_media_time_begins_and_ends_at_once_and_moves_through_the_whole_call():
    compositor = Compositor(SPEC)
    assert compositor.sum([timed(1.0)], 100).samples == pytest.approx(0.5)
    assert compositor.sum([timed(1.0, clip="b")], 100).samples == pytest.approx(0.5)  # another one, at once
    assert compositor.leaving([]) == []
    out = compositor.sum([timed(0.0, clip="b")], 100).samples[0]
    assert out == pytest.approx(0.5 - 0.005 * np.arange(100), abs=1e-6)
    assert not compositor.sum([timed(0.0, clip="b")], 100).samples.any()


def test_a_gain_moves_evenly_to_its_new_value_across_calls():
    compositor = Compositor(SPEC)
    compositor.sum([heard("a", 100)], 100)
    out = np.concatenate([compositor.sum([heard("a", 50, gain=0.5)], 50).samples[0] for _ in range(5)])
    expected = 0.25 * np.where(np.arange(250) < RAMP, 1 - 0.5 * np.arange(250) / RAMP, 0.5)
    assert np.abs(out - expected).max() < 1e-6


def test_a_gain_that_changes_on_its_way_goes_on_from_where_it_is():
    compositor = Compositor(SPEC)
    compositor.sum([heard("a", 10, gain=0.0)], 10)
    compositor.sum([heard("a", RAMP // 2, gain=1.0)], RAMP // 2)
    out = compositor.sum([heard("a", RAMP, gain=0.5)], RAMP).samples[0]
    assert out[0] == pytest.approx(0.125, abs=1e-3)
    assert np.abs(out - 0.125).max() < 1e-6
    out = compositor.sum([heard("a", 3 * RAMP // 2, gain=0.0)], 3 * RAMP // 2).samples[0]
    assert out[RAMP // 2] == pytest.approx(0.125 * 2 / 3, abs=1e-3)  # down to silence within 30 ms


def test_a_voice_that_leaves_fades_out_and_is_gone():
    compositor = Compositor(SPEC)
    voices = [heard("a", 100), heard("b", 100), heard("a", 100)]
    compositor.sum(voices, 100)
    leaving = compositor.leaving([voices[0].voice])
    assert [(voice.place.name, voice.gain) for voice in leaving] == [("b", 0.0), ("a", 0.0)]
    outs = []
    while leaving:
        now = [heard("a", 10), *(heard(voice.place.name, 10, gain=0.0) for voice in leaving)]
        outs.append(compositor.sum(now, 10).samples[0])
        leaving = compositor.leaving([voices[0].voice])
    out = np.concatenate(outs)
    assert len(out) == 3 * RAMP // 2
    assert np.abs(np.diff(out, prepend=0.75)).max() <= 0.5 / (3 * RAMP / 2) + 1e-6
    assert compositor.sum([heard("a", 10)], 10).samples[0] == pytest.approx(0.25)


def test_a_voice_that_was_muted_leaves_at_once():
    compositor = Compositor(SPEC)
    compositor.sum([heard("a", 10, gain=0.0)], 10)
    assert compositor.leaving([]) == []


def test_who_comes_later_fades_in():
    compositor = Compositor(SPEC)
    compositor.sum([], 50)
    out = compositor.sum([heard("a", 300)], 300).samples
    assert out[0, 0] == 0
    assert out[0, RAMP // 2] == pytest.approx(0.125)
    assert np.array_equal(out[:, RAMP:], np.full((2, 300 - RAMP), 0.25, np.float32))


def test_a_ramp_does_not_begin_anew_after_a_gap_in_the_sound():
    compositor = Compositor(SPEC)
    compositor.sum([], 50)
    out = compositor.sum([heard("a", 100, offset=200)], 300).samples[0]
    assert not out[:200].any()
    assert np.array_equal(out[200:], np.full(100, 0.25, np.float32))


def test_two_voices_of_one_source_keep_gains_of_their_own():
    compositor = Compositor(SPEC)
    for _ in range(2):
        out = compositor.sum([heard("a", 10, pan=-100), heard("a", 10, pan=100, gain=0.5)], 10).samples
    assert out[:, 0] == pytest.approx([0.25 * 2**0.5, 0.125 * 2**0.5])


@pytest.mark.parametrize(
    ("outputs", "inputs", "expected"), [(1, 1, [0.5]), (1, 2, [0.5]), (2, 1, [0.5, 0.5]), (2, 2, [0.5, 0.5])]
)
def test_mono_and_stereo_into_mono_and_stereo_keep_their_level(outputs, inputs, expected):
    compositor = Compositor(MixerSpec(raster=Raster(2, 2), audio=AudioFormat(8000, outputs)))
    out = compositor.sum([heard("a", 4, value=0.5, channels=inputs)], 4).samples
    assert out[:, 0] == pytest.approx(expected)


def test_stereo_keeps_its_sides():
    block = AudioFrame(np.array([[0.5], [-0.25]], np.float32))
    out = Compositor(SPEC).sum([Heard(Voice(Place("a"), None, 1.0, 0.0), [Piece(block, 0, 1, 0)])], 1).samples
    assert out[:, 0].tolist() == [0.5, -0.25]


def test_clipped_samples_are_counted():
    compositor = Compositor(SPEC)
    out = compositor.sum([heard("a", 7, value=0.8), heard("b", 7, value=0.8)], 7).samples
    assert out.max() == 1
    assert compositor.clipped == 14


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 700), min_size=1, max_size=6), st.lists(st.floats(0, 2), min_size=1, max_size=4))
def test_however_it_is_cut_into_calls_no_step_is_steeper_than_a_ramp(cuts, gains):
    compositor = Compositor(SPEC)
    out = [np.zeros(1, np.float32)]
    compositor.sum([], 1)
    for n, count in enumerate(cuts):
        out.append(compositor.sum([heard("a", count, gain=gains[n % len(gains)])], count).samples[0])
    steps = np.abs(np.diff(np.concatenate(out)))
    assert steps.max(initial=0) <= 0.25 * 2 / RAMP + 1e-6


def test_a_tick_may_have_no_sample():
    assert Compositor(SPEC).sum([heard("a", 0)], 0).samples.shape == (2, 0)
