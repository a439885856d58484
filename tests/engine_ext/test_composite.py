"""The picture kernel: what composite() promises, by example, and bit for bit against tests.reference.composite."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine_ext.composite import MAX_LAYERS, MAX_SIDE, MAX_THREADS, Layer, composite, simd_level, use_simd
from tests.reference import composite as oracle

ROWS = ["plain", "simd"]


@pytest.fixture(params=ROWS)
def rows(request):
    """Runs a test with the plain rows and with the processor's."""
    use_simd(request.param == "simd")
    yield request.param
    use_simd(True)


def picture(width, height, *, alpha=False, group=False, seed=0):
    """Random planes of a picture: y, u, v, then alpha, then the coverage at chroma."""
    random = np.random.default_rng(seed)
    chroma = (height + 1) // 2, (width + 1) // 2
    shapes = [(height, width), chroma, chroma]
    if alpha or group:
        shapes.append((height, width))
    if group:
        shapes.append(chroma)
    return [random.integers(0, 256, shape, np.uint8) for shape in shapes]


def flat(width, height, y, u, v):
    chroma = (height + 1) // 2, (width + 1) // 2
    return [np.full((height, width), y, np.uint8), np.full(chroma, u, np.uint8), np.full(chroma, v, np.uint8)]


def black(width, height):
    return flat(width, height, 16, 128, 128)


def painted(width, height, layers, **options):
    canvas = black(width, height)
    composite(*canvas, layers, **options)
    return canvas


def same(got, want):
    for plane, (one, other) in enumerate(zip(got, want, strict=True)):
        np.testing.assert_array_equal(one, other, err_msg=f"plane {plane}")


# --- by example -------------------------------------------------------------------------------------------------------


def test_copy_is_bit_exact(rows):
    source = picture(70, 38)
    same(painted(70, 38, [Layer(source, (0, 0, 70, 38))]), source)


def test_part_of_a_source_is_copied_to_the_bit(rows):
    source = picture(70, 38)
    got = painted(40, 20, [Layer(source, (0, 0, 40, 20), (6, 4, 40, 20))])
    same(got, [source[0][4:24, 6:46], source[1][2:12, 3:23], source[2][2:12, 3:23]])


def test_mirrored_copy_reverses_luma(rows):
    source = picture(70, 38)
    got = painted(70, 38, [Layer(source, (0, 0, 70, 38), mirror_x=True, mirror_y=True)])
    np.testing.assert_array_equal(got[0], source[0][::-1, ::-1])
    turned = source[1][::-1, ::-1].astype(
        int
    )  # chroma sat on the left of its luma pair, and still does: half a step on
    np.testing.assert_array_equal(got[1][:, 1:], (turned[:, :-1] + turned[:, 1:] + 1) // 2)


def test_mirrored_crop_shows_the_same_part(rows):
    source = picture(100, 60)
    got = painted(50, 30, [Layer(source, (0, 0, 50, 30), (20, 10, 50, 30), mirror_x=True)])
    np.testing.assert_array_equal(got[0], source[0][10:40, 20:70][:, ::-1])


def test_half_size_of_a_checkerboard_is_grey(rows):
    source = flat(128, 64, 0, 128, 128)
    source[0][::2, ::2] = source[0][1::2, 1::2] = 200
    got = painted(64, 32, [Layer(source, (0, 0, 64, 32))])
    assert (got[0] == 100).all()


@pytest.mark.parametrize("ratio", [4, 8, 16])
def test_shrinking_averages_stripes_and_skips_none(rows, ratio):
    source = flat(64 * ratio, 16 * ratio, 0, 128, 128)
    source[0][:, ::2] = 200
    got = painted(64, 16, [Layer(source, (0, 0, 64, 16))])
    assert (got[0] == 100).all()


def test_enlarged_ramp_stays_even(rows):
    source = flat(64, 4, 0, 128, 128)
    source[0][:] = np.arange(64) * 3
    got = painted(192, 8, [Layer(source, (0, 0, 192, 8))])
    assert set(np.diff(got[0][0].astype(int))[2:-2]) == {1}


@pytest.mark.parametrize("cut", [31, 32, 33, 1, 63])
def test_adjoining_rectangles_leave_no_gap_and_do_not_overlap(rows, cut):
    colour = (200, 90, 40)
    rectangles = [(0, 0, cut, 33), (cut, 0, 64 - cut, 33), (0, 33, cut, 15), (cut, 33, 64 - cut, 15)]
    got = painted(64, 48, [Layer(colour, rectangle) for rectangle in rectangles])
    same(got, flat(64, 48, *colour))
    count = [np.zeros((48, 64), np.uint8), np.zeros((24, 32), np.uint8), np.zeros((24, 32), np.uint8)]
    for rectangle in rectangles:
        part = [np.zeros_like(plane) for plane in count]
        composite(*part, [Layer((1, 1, 1), rectangle)])
        count = [total + plane for total, plane in zip(count, part, strict=True)]
    assert all((plane == 1).all() for plane in count)


def test_layer_beyond_the_canvas_is_cut_and_outside_it_is_nothing(rows):
    source = picture(40, 40)
    got = painted(
        20, 20, [Layer(source, (-10, -10, 40, 40)), Layer(source, (20, 0, 40, 40)), Layer(source, (0, -40, 40, 40))]
    )
    same(got, [source[0][10:30, 10:30], source[1][5:15, 5:15], source[2][5:15, 5:15]])


def test_source_of_one_pixel_fills_its_rectangle(rows):
    got = painted(64, 48, [Layer(flat(1, 1, 77, 88, 99), (0, 0, 64, 48))])
    same(got, flat(64, 48, 77, 88, 99))


def test_alpha_is_rounded_half_up(rows):
    got = painted(64, 2, [Layer((255, 128, 128), (0, 0, 64, 2), alpha=128)])
    assert (got[0] == (255 * 128 + 16 * 127 + 127) // 255).all()


def test_alpha_0_changes_nothing_and_255_replaces(rows):
    source = picture(64, 48, alpha=True)
    source[3][:] = 255
    same(painted(64, 48, [Layer(source, (0, 0, 64, 48), alpha=0)]), black(64, 48))
    same(painted(64, 48, [Layer(source, (0, 0, 64, 48))]), source[:3])
    source[3][:] = 0
    same(painted(64, 48, [Layer(source, (0, 0, 64, 48))]), black(64, 48))


def test_later_layers_are_painted_over_earlier_ones(rows):
    got = painted(64, 48, [Layer((50, 60, 70), (0, 0, 64, 48)), Layer((80, 90, 100), (0, 0, 64, 48))])
    same(got, flat(64, 48, 80, 90, 100))


def test_crossfade_in_one_pass_equals_two(rows):
    one, two = picture(66, 34, seed=1), picture(66, 34, seed=2)
    layers = [Layer(one, (0, 0, 66, 34)), Layer(two, (0, 0, 66, 34), alpha=77)]
    got, want = painted(66, 34, layers), black(66, 34)
    for layer in layers:
        composite(*want, [layer])
    same(got, want)


def test_group_of_one_opaque_layer_is_that_layer(rows):
    source = picture(64, 48)
    group = [np.zeros_like(plane) for plane in picture(64, 48, group=True)]
    composite(*group[:3], [Layer(source, (0, 0, 64, 48))], coverage=(group[3], group[4]))
    assert (group[3] == 255).all()
    assert (group[4] == 255).all()
    same(painted(64, 48, [Layer(group, (0, 0, 64, 48))]), source)


def test_group_faded_shows_no_seam_between_its_layers(rows):
    group = [np.zeros_like(plane) for plane in picture(64, 48, group=True)]
    layers = [Layer((200, 128, 128), (0, 0, 64, 48)), Layer((100, 128, 128), (10, 10, 20, 20))]
    composite(*group[:3], layers, coverage=(group[3], group[4]))
    got = painted(64, 48, [Layer(group, (0, 0, 64, 48), alpha=128)])
    assert got[0][15, 15] == (100 * 128 + 16 * 127 + 127) // 255  # nothing of the 200 below
    assert got[0][0, 0] == (200 * 128 + 16 * 127 + 127) // 255


def test_interleaved_chroma_planes_are_no_overlap(rows):
    """Some decoders put u and v rows side by side in one buffer."""
    source, both = picture(64, 48), np.zeros((24, 64), np.uint8)
    y = np.zeros((48, 64), np.uint8)
    composite(y, both[:, :32], both[:, 32:], [Layer(source, (0, 0, 64, 48))])
    same([y, both[:, :32], both[:, 32:]], source)


def test_crop_rounded_over_the_edge_is_taken_up_to_the_edge(rows):
    """Start and size both end in half a unit of 1/65536 px, and both are rounded up."""
    source, unit = picture(8, 8), 1 / 65536
    crop = (2.5 * unit, 0, 8 - 2.5 * unit, 8)
    whole = (3 * unit, 0, 8 - 3 * unit, 8)
    same(painted(8, 8, [Layer(source, (0, 0, 8, 8), crop)]), painted(8, 8, [Layer(source, (0, 0, 8, 8), whole)]))


def test_64_inputs_side_by_side(rows):
    sources = [picture(101, 57, seed=seed) for seed in range(64)]
    layers = [Layer(source, (n % 8 * 24, n // 8 * 13, 24, 13)) for n, source in enumerate(sources)]
    got, want = painted(192, 104, layers, threads=3), black(192, 104)
    oracle(*want, layers)
    same(got, want)


def test_widest_source_is_shrunk_right(rows):
    source = picture(MAX_SIDE, 8)
    layers = [Layer(source, (0, 0, 100, 8)), Layer(source, (100, 0, 3, 1)), Layer(source, (104, 0, 1, 8), alpha=99)]
    got, want = painted(128, 8, layers), black(128, 8)
    oracle(*want, layers)
    same(got, want)


def test_8k_of_one_colour_in_one_pixel_overflows_nothing(rows):
    got = painted(2, 2, [Layer(flat(MAX_SIDE, MAX_SIDE, 255, 255, 255), (0, 0, 1, 1))])
    assert got[0].tolist() == [[255, 16], [16, 16]]


def test_reading_stops_at_the_end_of_a_plane(rows):
    """Widths around every vector size; the bounds themselves are proved by a build with -fsanitize=address."""
    for width in (*range(1, 40), 63, 64, 65, 127, 128, 129):
        source = picture(width, 3, alpha=True)
        layers = [
            Layer(source[:3], (0, 0, width, 3)),
            Layer(source, (1, 1, 2 * width, 5), alpha=200),
            Layer(source[:3], (0, 2, max(1, width // 2), 2), mirror_x=True),
        ]
        got, want = painted(130, 8, layers), black(130, 8)
        oracle(*want, layers)
        same(got, want)


def test_planes_are_given_back(rows):
    source = picture(8, 8)
    layer = Layer(source, (0, 0, 8, 8))
    del layer
    for plane in source:
        plane.resize((1, 1), refcheck=False)  # raises BufferError while somebody holds the buffer


# --- against the oracle -----------------------------------------------------------------------------------------------


@st.composite
def planes(draw, shapes):
    """Random planes of these shapes; rows padded, or upside down in memory, or neither."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    pad, flipped = draw(st.integers(0, 40)), draw(st.booleans())
    made = []
    for height, width in shapes:
        plane = random.integers(0, 256, (height, width + pad), np.uint8)[:, :width]
        made.append(plane[::-1] if flipped else plane)
    return made


def shapes_of(width, height, count):
    chroma = (height + 1) // 2, (width + 1) // 2
    return [(height, width), chroma, chroma, (height, width), chroma][:count]


SIZES = st.one_of(st.integers(1, 12), st.integers(1, 70), st.integers(1, 300))
ALPHAS = st.one_of(st.just(255), st.integers(0, 255))


@st.composite
def rectangles(draw, width, height):
    """Anywhere on or off a canvas of this size, mostly on it."""
    x, y = draw(st.integers(-width, width + 2)), draw(st.integers(-height, height + 2))
    return x, y, draw(SIZES), draw(SIZES)


@st.composite
def crops(draw, width, height, dest):
    """Everything, whole pixels of the size of dest or twice it where they fit, or any fractions."""
    kind = draw(st.sampled_from(["all", "copy", "half", "any"]))
    if kind == "all":
        return None
    crop = []
    for limit, size in ((width, dest[2]), (height, dest[3])):
        wanted = size * (2 if kind == "half" else 1)
        if kind == "any" or wanted > limit:
            start = draw(st.floats(0, limit - 0.1))
            crop.append((start, draw(st.floats(0.01, max(0.01, limit - start)))))
        else:
            crop.append((draw(st.integers(0, 4 * (limit - wanted))) / 4, wanted))
    (x, w), (y, h) = crop
    return x, y, min(w, width - x), min(h, height - y)


@st.composite
def layer_lists(draw, width, height):
    """Up to four layers; some repeat the rectangle of the one before, which may be painted with it in one go."""
    layers = []
    for _ in range(draw(st.integers(0, 4))):
        dest = draw(rectangles(width, height))
        if layers and draw(st.booleans()):
            dest = layers[-1].dest
        kind = draw(st.sampled_from(["colour", "picture", "picture", "masked", "group"]))
        if kind == "colour":
            colour = tuple(draw(st.integers(0, 255)) for _ in range(3))
            layers.append(Layer(colour, dest, alpha=draw(ALPHAS)))
        elif kind == "group":
            left, top = draw(st.integers(0, 5)), draw(st.integers(0, 5))
            group = draw(planes(shapes_of(dest[2] + left, dest[3] + top, 5)))
            layers.append(Layer(group, dest, (left, top, *dest[2:]), alpha=draw(ALPHAS)))
        else:
            size = draw(st.one_of(st.tuples(SIZES, SIZES), st.just(dest[2:])))
            source = draw(planes(shapes_of(*size, 3 if kind == "picture" else 4)))
            mirrors = {"mirror_x": draw(st.booleans()), "mirror_y": draw(st.booleans())}
            layers.append(Layer(source, dest, draw(crops(*size, dest)), alpha=draw(ALPHAS), **mirrors))
    return layers


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_every_sample_equals_the_oracle(data):
    width, height = 2 * data.draw(st.integers(1, 70)), 2 * data.draw(st.integers(1, 40))
    layers = data.draw(layer_lists(width, height))
    canvas = data.draw(planes(shapes_of(width, height, 5)))
    grouped, threads = data.draw(st.booleans()), data.draw(st.integers(1, 4))
    want = [plane.copy() for plane in canvas]
    oracle(*want[:3], layers, coverage=tuple(want[3:]) if grouped else None)
    try:
        for simd in (False, True):
            use_simd(simd)
            got = [plane.copy() for plane in canvas]
            composite(*got[:3], layers, coverage=tuple(got[3:]) if grouped else None, threads=threads)
            same(got, want)
    finally:
        use_simd(True)


def test_rows_can_be_chosen():
    assert use_simd(False) is False
    assert simd_level() == "plain"
    assert use_simd(True) is (simd_level() != "plain")


# --- the door ---------------------------------------------------------------------------------------------------------

GOOD = picture(8, 6)


@pytest.mark.parametrize(
    ("message", "planes", "options"),
    [
        ("2 planes", GOOD[:2], {}),
        ("4x3", [GOOD[0], GOOD[0], GOOD[2]], {}),
        ("must be 8x6", [*GOOD, GOOD[1]], {}),
        ("1..8192", [np.zeros((0, 0), np.uint8)] * 3, {}),
        ("1..8192", [np.zeros((1, MAX_SIDE + 1), np.uint8), *[np.zeros((1, MAX_SIDE // 2 + 1), np.uint8)] * 2], {}),
        ("2 bytes apart", [np.zeros((6, 16), np.uint8)[:, ::2], *GOOD[1:]], {}),
        ("dtype", [GOOD[0].astype(np.int16), *GOOD[1:]], {}),
        ("dimensions", [GOOD[0][0], *GOOD[1:]], {}),
        ("colour", (0, 0, 256), {}),
        ("alpha 256", GOOD, {"alpha": 256}),
        ("alpha -1", GOOD, {"alpha": -1}),
        ("dest", GOOD, {"dest": (0, 0, 0, 5)}),
        ("dest", GOOD, {"dest": (0, 0, 5)}),
        ("dest", GOOD, {"dest": (-32769, 0, 5, 5)}),
        ("crop", GOOD, {"crop": (0, 0, 8.1, 6)}),
        ("crop", GOOD, {"crop": (-0.1, 0, 8, 6)}),
        ("crop", GOOD, {"crop": (8, 0, 1, 6)}),
        ("crop", GOOD, {"crop": (0, 0, 8, 0)}),
        ("crop", GOOD, {"crop": (0, 0, 8, 1e-9)}),
        ("crop", GOOD, {"crop": (0, float("nan"), 8, 6)}),
        ("crop", GOOD, {"crop": (0, 0, 8, float("inf"))}),
        ("crop", GOOD, {"crop": (0, 0, 8)}),
        ("group", picture(8, 6, group=True), {"dest": (0, 0, 4, 3)}),
        ("group", picture(8, 6, group=True), {"dest": (0, 0, 4, 3), "crop": (0.5, 0, 4, 3)}),
        ("mirrored", picture(8, 6, group=True), {"mirror_x": True}),
    ],
)
def test_wrong_layer_is_refused_with_the_numbers(message, planes, options):
    options = {"dest": (0, 0, 8, 6), **options}
    with pytest.raises(ValueError, match=message):
        Layer(planes, options.pop("dest"), options.pop("crop", None), **options)


def test_wrong_canvas_is_refused_and_stays_unpainted():
    y, u, v = black(8, 6)
    layers = [Layer((1, 2, 3), (0, 0, 8, 6))]
    frozen = y.copy()
    frozen.flags.writeable = False
    wrong = [
        ("even", (y[:, :7], u, v), {}),
        ("must be 4x3", (y, u[:2], v), {}),
        ("share memory", (y, u, u), {}),
        ("share memory", (y, u, v), {"coverage": (y, u)}),
        ("must be 8x6", (y, u, v), {"coverage": (np.zeros((4, 8), np.uint8), np.zeros((3, 4), np.uint8))}),
        ("read-only", (frozen, u, v), {}),
        ("threads 0", (y, u, v), {"threads": 0}),
        ("threads", (y, u, v), {"threads": MAX_THREADS + 1}),
    ]
    for message, canvas, options in wrong:
        with pytest.raises(ValueError, match=message):
            composite(*canvas, layers, **options)
    with pytest.raises(ValueError, match=f"{MAX_LAYERS + 1} layers"):
        composite(y, u, v, layers * (MAX_LAYERS + 1))
    with pytest.raises(TypeError):
        composite(y, u, v, [*layers, None])
    same([y, u, v], black(8, 6))


def test_layer_reading_the_canvas_is_refused():
    y, u, v = black(8, 6)
    for planes in ([y, GOOD[1], GOOD[2]], [GOOD[0], GOOD[1], v], [GOOD[0], GOOD[1], GOOD[2], y[::-1]]):
        with pytest.raises(ValueError, match=r"layers\[1\].*shares memory"):
            composite(y, u, v, [Layer((1, 2, 3), (0, 0, 8, 6)), Layer(planes, (0, 0, 8, 6))])


def test_read_only_sources_are_taken():
    source = picture(8, 6)
    for plane in source:
        plane.flags.writeable = False
    same(painted(8, 6, [Layer(source, (0, 0, 8, 6))]), source)


def test_most_layers_at_once():
    same(painted(8, 6, [Layer((n % 256, 5, 6), (0, 0, 8, 6)) for n in range(MAX_LAYERS)]), flat(8, 6, 255, 5, 6))
