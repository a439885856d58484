"""Whole pictures, exact to the bit before any lossy codec: what a person looked at once and found right.

`pytest tests/test_golden.py --golden=write` makes them anew; look at them before you commit them.
"""

from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from api.demo import demo_sources, demo_tree
from engine.offline import render
from engine.program import Held
from engine.spec import MixerSpec, Raster, RenderSpec
from engine.tree import (
    CompositorNode,
    Effect,
    RenderTree,
    ShapeNode,
    SolidColorNode,
    TextNode,
    VideoNode,
    VideoSourceNode,
)

GOLDEN = Path(__file__).parent / "golden"


def source(guid: str, x: int, y: int, width: int, height: int, **more: Any) -> VideoSourceNode:
    return VideoSourceNode(stream_guid=guid, dest_x=x, dest_y=y, dest_width=width, dest_height=height, **more)


def colour(x: int, y: int, width: int, height: int, **more: Any) -> SolidColorNode:
    return SolidColorNode(dest_x=x, dest_y=y, dest_width=width, dest_height=height, **more)


PLACES = RenderTree(
    root_video_node=CompositorNode(
        nodes=(
            SolidColorNode(red=0.2, green=0.2, blue=0.3),
            source("count", 10, 10, 140, 80),
            source("count", 170, 10, -140, 80),  # mirrored across
            source("count", 330, 10, 140, -80),  # mirrored down
            source("count", 490, 10, 140, 80, source_x=80.5, source_y=45, source_width=160, source_height=90),
            source("grid", 10, 110, 100, 140, fit="contain"),
            source("grid", 130, 110, 100, 140, fit="cover"),
            source("grid", 250, 110, 100, 140),
            source("bars", -60, 270, 201, 101),  # odd, and partly off the frame
            source("bars", 600, 300, 201, 101, opacity=0.5),
            CompositorNode(  # fades as one picture: the red must not shine through the blue
                opacity=0.6, nodes=(colour(380, 120, 120, 100, red=1.0), colour(440, 160, 120, 100, blue=1.0))
            ),
            colour(200, 280, 300, 60, green=1.0, alpha=0.25),
            source("black", 380, 250, 90, 50, at=2.5),  # the picture of that moment
        )
    )
)


def placed(x: int, y: int, width: int, height: int) -> dict[str, int]:
    return {"dest_x": x, "dest_y": y, "dest_width": width, "dest_height": height}


def group(*nodes: VideoNode, **more: Any) -> CompositorNode:
    return CompositorNode(nodes=nodes, **more)


OLEO, GUY, RUBIK = (f"com.moviemasher.font.{name}" for name in ("oleo-script", "luckiest-guy", "rubik-dirt"))
TEXTS = RenderTree(
    root_video_node=group(
        source("grid", 0, 0, 640, 360, opacity=0.4),
        TextNode(string="Hamburgefonstiv AVAT", size=40, **placed(10, 10, 620, 50)),
        TextNode(string="Ligatures: affine, fjord", font=OLEO, size=40, color="#ffcc00", **placed(10, 60, 620, 50)),
        colour(10, 120, 200, 100, red=0.2, green=0.2, blue=0.5),
        TextNode(
            string="Lines that are too wide are broken.\nThese are not.",
            font=RUBIK,
            size=19,
            wrap=True,
            align="center",
            vertical="middle",
            **placed(10, 120, 200, 100),
        ),
        TextNode(string="line", font=RUBIK, size=40, vertical="line", **placed(230, 120, 80, 60)),
        TextNode(string="LINÉ", font=RUBIK, size=40, vertical="line", color="#0f08", **placed(310, 120, 110, 60)),
        TextNode(
            string="right\nbelow", font=RUBIK, size=20, align="right", vertical="bottom", **placed(430, 120, 200, 100)
        ),
        TextNode(string="fill", font=GUY, fit="fill", color="#ff4040", **placed(230, 190, 250, 30)),
        TextNode(string="mirrored", font=GUY, size=24, **placed(500, 130, -130, 40)),
        TextNode(string="cut off", size=60, **placed(10, 240, 120, 30)),
        TextNode(string="Hebrew שלום (12) עולם", font="hebrew", size=30, **placed(150, 240, 330, 40)),
        TextNode(string="Half", font=GUY, size=80, opacity=0.5, **placed(10, 285, 200, 70)),
        TextNode(string="tiny text is legible too: 0123456789", font=RUBIK, size=9, **placed(230, 300, 300, 20)),
    )
)
HEART = (
    "M16.5 3C19.538 3 22 5.5 22 9c0 7-7.5 11-10 12.5C9.5 20 2 16 2 9"
    "c0-3.5 2.5-6 5.5-6C9.36 3 11 4 12 5c1-1 2.64-2 4.5-2z"
)
RING = "M50 5a45 45 0 100 90 45 45 0 100-90zM50 30a20 20 0 110 40 20 20 0 110-40z"
STAR = "M50 2 L79 95 L4 37 H96 L21 95 Z"
ROUND = "M0 30A30 30 0 0 1 30 0H170A30 30 0 0 1 200 30V82A30 30 0 0 1 170 112H30A30 30 0 0 1 0 82Z"


def fade(x: int, y: int, width: int, height: int) -> CompositorNode:
    """From black at the left to white at the right, in steps."""
    step = width // 20
    return group(*(colour(x + n * step, y, step, height, red=n / 19, green=n / 19, blue=n / 19) for n in range(20)))


SHAPES = RenderTree(
    root_video_node=group(
        SolidColorNode(red=0.9, green=0.9, blue=0.85),
        ShapeNode(path=HEART, path_width=24, path_height=24, color="#d00020", **placed(10, 10, 110, 110)),
        ShapeNode(path=RING, color="#2060c0c0", **placed(90, 10, 110, 110)),
        ShapeNode(path=STAR, color="#208020", **placed(210, 10, 201, 101)),
        ShapeNode(path=STAR, color="#208020", **placed(430, 10, -90, -90)),
        ShapeNode(path=HEART, path_width=24, path_height=24, color="#000", **placed(540, 10, 9, 9)),
        ShapeNode(path=RING, color="#000", **placed(560, 10, 23, 23)),
        source(
            "count",
            10,
            130,
            200,
            112,
            mask=ShapeNode(path=ROUND, path_width=200, path_height=112, **placed(10, 130, 200, 112)),
        ),
        source("bars", 220, 130, 200, 112, mask=fade(220, 130, 200, 112)),
        source("bars", 430, 130, 200, 112, mask=source("grid", 430, 130, 200, 112)),
        source(
            "count", 10, 250, 200, 100, mask=TextNode(string="MASK", font=GUY, fit="fill", **placed(15, 255, 190, 90))
        ),
        group(  # a mask on a group that fades: the red must not shine through the blue
            colour(230, 260, 110, 80, red=1.0),
            colour(280, 280, 110, 70, blue=1.0),
            opacity=0.7,
            mask=ShapeNode(path=RING, **placed(230, 250, 160, 100)),
        ),
        colour(
            430,
            250,
            200,
            100,
            green=0.5,
            mask=group(ShapeNode(path=STAR, mask=fade(430, 250, 200, 100), **placed(480, 250, 100, 100))),
        ),
    )
)


def effects(*found: tuple[str, dict[str, float | str]]) -> tuple[Effect, ...]:
    return tuple(Effect(effect=name, parameters=parameters) for name, parameters in found)


EDGES: dict[str, float | str] = {"matrix": "-1 -1 -1 -1 8 -1 -1 -1 -1", "multiplier": 2, "bias": 20}
EFFECTS = RenderTree(
    root_video_node=group(
        SolidColorNode(red=0.3, green=0.1, blue=0.3),
        *(
            source("bars" if n < 5 else "count", 10 + n % 4 * 158, 10 + n // 4 * 116, 148, 106, effects=effects(*each))
            for n, each in enumerate(
                (
                    [("blur", {})] * 6,
                    [("sharpen", {})],
                    [("emboss", {})],
                    [("grayscale", {})],
                    [("sepia", {})],
                    [("convolution", EDGES)],
                    [("colorchannelmixer", {"rr": 0, "rb": 1, "bb": 0, "br": 1})],
                    [("chromakey", {"color": "#0000ff", "similarity": 0.3, "blend": 0.2})],
                    [("opacity", {"opacity": 0.4})],
                    [("crop", {"x": 20, "y": 10, "width": 80, "height": 60})],
                    [("crop", {"x": 20}), ("sepia", {}), ("opacity", {"opacity": 0.8})],
                )
            )
        ),
        source("bars", 484, 242, 200, 150, effects=effects(("sharpen", {}), ("blur", {}))),  # partly off the frame
    )
)
PATTERNS = {kind: f"pattern:{kind}?size=320x180" for kind in ("count", "grid", "bars", "black")}
HEBREW = next(
    Path(folder, "files", "Heebo[wght].ttf") for folder in find_spec("fontpkg_heebo").submodule_search_locations
)
CASES = {
    "texts": (TEXTS, {**PATTERNS, "hebrew": str(HEBREW)}, Raster(640, 360), Fraction(7, 3)),
    "shapes": (SHAPES, PATTERNS, Raster(640, 360), Fraction(7, 3)),
    "effects": (EFFECTS, PATTERNS, Raster(640, 360), Fraction(7, 3)),
    "demo": (demo_tree(Raster(1280, 720)), demo_sources(Raster(1280, 720)), Raster(1280, 720), Fraction(3, 2)),
    "places": (
        PLACES,
        PATTERNS,
        Raster(640, 360),
        Fraction(7, 3),
    ),
}


def pixels(path: Path) -> np.ndarray[Any, Any]:
    with av.open(str(path)) as container:
        return next(container.decode(video=0)).to_ndarray(format="rgb24")


@pytest.mark.parametrize("case", CASES)
async def test_the_picture_is_the_golden_one(case: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    tree, sources, raster, start = CASES[case]
    actual, golden = tmp_path / f"{case}.png", GOLDEN / f"{case}.png"
    target = golden if request.config.getoption("--golden") == "write" else actual
    spec = RenderSpec(output=str(target), mixer=MixerSpec(raster=raster), sources=sources, start=start)
    await render(Held(tree), spec)
    difference = np.abs(pixels(target).astype(int) - pixels(golden)).max(axis=2)
    assert difference.max() == 0, f"{np.count_nonzero(difference)} pixels differ; see {actual}"
