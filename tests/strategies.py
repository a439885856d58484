"""What hypothesis draws for the engine: legal RenderTrees, trees on a small pixel grid, and any JSON at all."""

from typing import Any

import msgspec
from hypothesis import strategies as st

from engine.spec import Raster
from engine.tree import (
    AudioNode,
    AudioSourceNode,
    CompositorNode,
    Effect,
    ImageSourceNode,
    RenderTree,
    ShapeNode,
    SolidColorNode,
    SumNode,
    TextNode,
    VideoNode,
    VideoSourceNode,
)

Strategy = st.SearchStrategy

NAMES = st.sampled_from(("live/cam1", "live/cam2", "b", "ü 漢 🎥", '"\\'))
IDS = st.none() | st.sampled_from(("one", "two", "three"))


def numbers(low: int, high: int) -> Strategy[float]:
    """Integers and fractions within [low, high], its ends and simple values often."""
    simple = st.sampled_from([n for n in (low, high, 0, 1, 0.5) if low <= n <= high])
    return simple | st.integers(low, high) | st.floats(low, high)


def absent(values: Strategy[Any]) -> Strategy[Any]:
    """Half of the time the value, half of the time nothing."""
    return st.none() | values


UNIT = st.just(1) | numbers(0, 1)
PLACED = {
    "id": IDS,
    "opacity": UNIT,
    "dest_x": absent(numbers(-7680, 7680)),
    "dest_y": absent(numbers(-4320, 4320)),
    "dest_width": absent(numbers(-7680, 7680)),
    "dest_height": absent(numbers(-4320, 4320)),
}
COLOURS = st.sampled_from(("#fff", "#1234", "#c0ffee", "#00FF0080"))
MATRICES = st.lists(st.integers(-9, 9), min_size=9, max_size=9).map(lambda numbers: " ".join(map(str, numbers)))
EFFECTS: Strategy[Effect] = st.one_of(
    st.sampled_from(("blur", "sharpen", "emboss", "grayscale", "sepia")).map(lambda name: Effect(effect=name)),
    st.fixed_dictionaries({"matrix": MATRICES, "bias": numbers(0, 100)}).map(
        lambda parameters: Effect(effect="convolution", parameters=parameters)
    ),
    st.fixed_dictionaries({"rg": numbers(-2, 2), "aa": numbers(0, 1)}).map(
        lambda parameters: Effect(effect="colorchannelmixer", parameters=parameters)
    ),
    st.fixed_dictionaries({"color": COLOURS}).map(lambda found: Effect(effect="colorize", parameters=found)),
    st.fixed_dictionaries({"color": COLOURS, "similarity": numbers(0, 1), "blend": numbers(0, 1)}).map(
        lambda parameters: Effect(effect="chromakey", parameters=parameters)
    ),
    st.fixed_dictionaries({"opacity": numbers(0, 1)}).map(lambda found: Effect(effect="opacity", parameters=found)),
    st.fixed_dictionaries({"x": numbers(0, 50), "width": numbers(0, 500)}).map(
        lambda parameters: Effect(effect="crop", parameters=parameters)
    ),
)
CROPPED = {
    **PLACED,
    "source_x": absent(numbers(0, 7680)),
    "source_y": absent(numbers(0, 4320)),
    "source_width": absent(st.just(-1) | numbers(0, 7680)),
    "source_height": absent(st.just(-1) | numbers(0, 4320)),
    "fit": st.sampled_from(("fill", "contain", "cover")),
}
SHARED = CROPPED | {name: absent(numbers(0, 1)) for name in CROPPED if name.startswith("source_")}
SHARED["source_unit"] = st.just("share")
PATHS = st.sampled_from(("M0 0h100v100z", "M50 0A50 50 0 1 1 50 100z", "M 1", ""))
VIDEO_LEAVES: Strategy[VideoNode] = st.one_of(
    st.builds(SolidColorNode, **PLACED, red=UNIT, green=UNIT, blue=UNIT, alpha=UNIT),
    st.builds(
        VideoSourceNode,
        **CROPPED,
        stream_guid=NAMES,
        at=absent(numbers(0, 10_000_000)),
        until=absent(numbers(0, 10_000_000)),
        hold=st.booleans(),
    ),
    st.builds(VideoSourceNode, **SHARED, stream_guid=NAMES),
    st.builds(ImageSourceNode, **CROPPED, filename=NAMES),
)
ALL_LEAVES: Strategy[VideoNode] = st.one_of(
    VIDEO_LEAVES,
    st.builds(VideoSourceNode, **CROPPED, stream_guid=NAMES, effects=st.lists(EFFECTS, max_size=2).map(tuple)),
    st.builds(ImageSourceNode, **CROPPED, filename=NAMES, effects=st.lists(EFFECTS, max_size=2).map(tuple)),
    st.builds(TextNode, **PLACED, string=NAMES, size=numbers(1, 100), color=COLOURS, wrap=st.booleans()),
    st.builds(ShapeNode, **PLACED, path=PATHS, color=COLOURS),
)
VOICES = st.builds(
    AudioSourceNode,
    id=IDS,
    stream_guid=NAMES,
    pan=numbers(-100, 100),
    gain=numbers(-100, 20),
)


def groups(children: Strategy[VideoNode]) -> Strategy[VideoNode]:
    """A CompositorNode of a few of the children."""
    nodes = st.lists(children, max_size=4).map(tuple)
    return st.builds(CompositorNode, id=IDS, opacity=UNIT, nodes=nodes)


def groups_and_masks(children: Strategy[VideoNode]) -> Strategy[VideoNode]:
    """A group, or one of the children with another as its mask."""
    masked = st.builds(lambda node, mask: msgspec.structs.replace(node, mask=mask), children, children)
    return st.one_of(groups(children), groups(children), masked)


def sums(children: Strategy[AudioNode]) -> Strategy[AudioNode]:
    """A SumNode of a few of the children."""
    return st.builds(SumNode, id=IDS, gain=numbers(-100, 20), nodes=st.lists(children, max_size=4).map(tuple))


PICTURES: Strategy[VideoNode] = st.recursive(VIDEO_LEAVES, groups, max_leaves=8)
ALL_PICTURES: Strategy[VideoNode] = st.recursive(ALL_LEAVES, groups_and_masks, max_leaves=8)
SOUNDS: Strategy[AudioNode] = st.recursive(VOICES, sums, max_leaves=6)


def trees() -> Strategy[RenderTree]:
    """Any tree of streams, images, colours and groups: every field within its limits, empty groups, absent branches."""
    return st.builds(RenderTree, root_video_node=absent(PICTURES), root_audio_node=absent(SOUNDS))


def all_trees() -> Strategy[RenderTree]:
    """Any legal tree: texts, shapes, masks and effects too."""
    return st.builds(RenderTree, root_video_node=absent(ALL_PICTURES), root_audio_node=absent(SOUNDS))


# --- trees on a small grid, whose every edge falls on a pixel --------------------------------------------------------

GRID = Raster(8, 6)
GRID_PICTURE = (5, 4)  # width and height of every stream's picture


@st.composite
def grid_axes(draw: st.DrawFn, name: str, picture: int, canvas: int) -> dict[str, float | None]:
    """One axis of a picture's rectangles: a whole multiple of the source span, mirrored or not, cut or not."""
    begin, end, enlarged = draw(st.integers(0, picture)), draw(st.integers(0, picture + 3)), draw(st.integers(1, 2))
    length = end - begin if end > begin else None
    span = (picture - begin if length is None else length) * enlarged * draw(st.sampled_from((1, 1, -1)))
    x, _, size = name.partition(" ")
    place = draw(st.integers(-2, canvas // 2)) * 2
    return {f"source_{x}": begin, f"source_{size}": length, f"dest_{x}": place, f"dest_{size}": span}


@st.composite
def grid_leaves(draw: st.DrawFn, opacities: Strategy[float]) -> VideoNode:
    """A colour in a rectangle or a stream's picture in one."""
    opacity = draw(opacities)
    if draw(st.booleans()):
        across, down = (draw(st.integers(-2, n // 2)) * 2 for n in (GRID.width, GRID.height))
        width, height = (draw(st.integers(0, n // 2 + 1)) * 2 for n in (GRID.width, GRID.height))
        rectangle = {"dest_x": across, "dest_y": down, "dest_width": width, "dest_height": height}
        grey = draw(st.sampled_from((0.0, 0.5, 1.0)))
        colour = {"red": grey, "green": grey, "blue": grey, "alpha": draw(st.sampled_from((1.0, 1.0, 0.5)))}
        return SolidColorNode(opacity=opacity, **(rectangle if draw(st.integers(0, 3)) else {}), **colour)
    axes = {
        **draw(grid_axes("x width", GRID_PICTURE[0], GRID.width)),
        **draw(grid_axes("y height", GRID_PICTURE[1], GRID.height)),
    }
    name = draw(st.sampled_from(("opaque", "opaque", "seen through", "away")))
    return VideoSourceNode(stream_guid=name, opacity=opacity, **axes)


def grid_trees() -> Strategy[RenderTree]:
    """Trees for a canvas of GRID: groups and leaves of several opacities over one another."""

    def grouped(children: Strategy[VideoNode]) -> Strategy[VideoNode]:
        nodes = st.lists(children, min_size=2, max_size=4).map(tuple)
        group = st.builds(CompositorNode, opacity=st.sampled_from((0.5, 0.75, 1, 0)), nodes=nodes)
        masked = st.builds(lambda node, mask: msgspec.structs.replace(node, mask=mask), group | children, children)
        return st.one_of(group, group, masked)

    leaves = grid_leaves(st.sampled_from((1, 1, 1, 0.5, 0)))
    return st.builds(RenderTree, root_video_node=grouped(st.recursive(leaves, grouped, max_leaves=5)))


# --- JSON ------------------------------------------------------------------------------------------------------------

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(("CompositorNode", "SumNode", "VideoSourceNode", "1", "-1.5", "1e999", "NaN", "null", "\ud800"))
    | st.sampled_from((10**400, -(10**400), -1, 0.5, 1e308, float("nan"), float("inf")))
)
KEYS = st.sampled_from(
    ("rootVideoNode", "rootAudioNode", "rootNodes", "node", "nodes", "streamGuid", "destX", "red", "gain", "at", "id")
)
JSON: Strategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS | st.text(max_size=3), inner, max_size=5),
    max_leaves=12,
)


@st.composite
def damaged(draw: st.DrawFn, documents: Strategy[Any]) -> Any:
    """A JSON value of `documents`, with one value somewhere inside replaced by any other."""
    return _replaced(draw, draw(documents))


def _replaced(draw: st.DrawFn, value: Any) -> Any:
    if isinstance(value, dict) and value and draw(st.integers(0, 5)):
        key = draw(st.sampled_from(sorted(value)))
        return value | {key: _replaced(draw, value[key])}
    if isinstance(value, list) and value and draw(st.integers(0, 5)):
        n = draw(st.integers(0, len(value) - 1))
        return [*value[:n], _replaced(draw, value[n]), *value[n + 1 :]]
    return draw(JSON)
