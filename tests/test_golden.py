"""Whole pictures, exact to the bit before any lossy codec: what a person looked at once and found right.

`pytest tests/test_golden.py --golden=write` makes them anew; look at them before you commit them.
"""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from api.demo import demo_sources, demo_tree
from engine.program import Held
from engine.render import render
from engine.spec import MixerSpec, Raster, RenderSpec
from engine.tree import CompositorNode, RenderTree, SolidColorNode, VideoSourceNode

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
CASES = {
    "demo": (demo_tree(Raster(1280, 720)), demo_sources(Raster(1280, 720)), Raster(1280, 720), Fraction(3, 2)),
    "places": (
        PLACES,
        {kind: f"pattern:{kind}?size=320x180" for kind in ("count", "grid", "bars", "black")},
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
