"""The demonstration: a 2×2 grid of moving patterns with sound, and a fifth, half transparent, in the middle.

It needs no camera and no file, so that anyone can see the engine work.
"""

from __future__ import annotations

from engine.spec import Raster
from engine.tree import AudioSourceNode, CompositorNode, RenderTree, SumNode, VideoSourceNode

GAIN_DB = -6.0


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
