"""The demonstration: a 2×2 grid of moving patterns with sound, and one of them, or a fifth, on top of their middle.

It needs no camera and no file, so that anyone can see the engine work: as a film, or live.
"""

from __future__ import annotations

from contextlib import suppress
from fractions import Fraction
from itertools import cycle
from typing import TYPE_CHECKING, Final

import trio

from engine.errors import NotFound
from engine.spec import EventSpec, MixerSpec, PullSpec, Raster
from engine.tree import AudioSourceNode, CompositorNode, RenderTree, SolidColorNode, SumNode, VideoSourceNode

if TYPE_CHECKING:
    from engine import Engine

GAIN_DB = -6.0
EVENT: Final = "demo"


def demo_sources(raster: Raster) -> dict[str, str]:
    """streamGuid → pattern, each of a quarter of the raster, with a tone of its own."""
    size = f"{max(2, raster.width // 2)}x{max(2, raster.height // 2)}"
    looks = (("bars", 220, 0.6), ("count", 277, 0.08), ("grid", 330, 0.75), ("count", 440, 0.42), ("grid", 554, 0.95))
    return {
        f"demo/{n}": f"pattern:{kind}?size={size}&tone={tone}&hue={hue}" for n, (kind, tone, hue) in enumerate(looks, 1)
    }


def demo_tree(raster: Raster) -> RenderTree:
    """Four quarters, the fifth source over their middle at half opacity; every sound at -6 dB, panned to its side."""
    width, height = raster.width // 2, raster.height // 2
    quarters = tuple(
        VideoSourceNode(
            stream_guid=f"demo/{n + 1}",
            dest_x=n % 2 * width,
            dest_y=n // 2 * height,
            dest_width=width,
            dest_height=height,
        )
        for n in range(4)
    )
    middle = VideoSourceNode(
        stream_guid="demo/5",
        dest_x=raster.width * 3 // 10,
        dest_y=raster.height * 3 // 10,
        dest_width=raster.width * 2 // 5,
        dest_height=raster.height * 2 // 5,
        opacity=0.5,
    )
    pans = (-60, 60, -30, 30, 0)
    voices = tuple(AudioSourceNode(stream_guid=f"demo/{n}", gain=GAIN_DB, pan=pan) for n, pan in enumerate(pans, 1))
    return RenderTree(root_video_node=CompositorNode(nodes=(*quarters, middle)), root_audio_node=SumNode(nodes=voices))


async def run_demo(engine: Engine) -> None:
    """Four pattern streams demo/1 … demo/4, and an event that mixes them as demo/mix, with one of them on the move."""
    raster = Raster(1280, 720)
    for name, pattern in list(demo_sources(raster).items())[:4]:
        await engine.put_source(name, PullSpec(pattern=pattern.removeprefix("pattern:")))
    spec = EventSpec(name=EVENT, path="demo", stream_name="mix", mixer=MixerSpec(raster=raster))
    event = await engine.create_event(spec)
    corners = cycle(((60, 60), (820, 60), (820, 460), (60, 460)))
    event.put([_with_inset(raster, *next(corners))])
    with suppress(NotFound):  # somebody has deleted it
        for corner in corners:
            await trio.sleep(MOVE_EVERY)
            event.put([_with_inset(raster, *corner)], transition=MOVE_TIME, easing="smooth")


MOVE_EVERY: Final = 3.0  # seconds
MOVE_TIME: Final = Fraction(3, 2)


def _with_inset(raster: Raster, x: int, y: int) -> RenderTree:
    tree = demo_tree(raster)
    assert isinstance(tree.root_video_node, CompositorNode)
    assert isinstance(tree.root_audio_node, SumNode)
    quarters, voices = tree.root_video_node.nodes[:4], tree.root_audio_node.nodes[:4]
    frame = SolidColorNode(
        red=1, green=1, blue=1, alpha=1, id="frame", dest_x=x - 4, dest_y=y - 4, dest_width=408, dest_height=233
    )
    inset = VideoSourceNode(
        stream_guid="demo/2", id="inset", dest_x=x, dest_y=y, dest_width=400, dest_height=225, opacity=0.9
    )
    return RenderTree(
        root_video_node=CompositorNode(nodes=(*quarters, frame, inset)), root_audio_node=SumNode(nodes=voices)
    )
