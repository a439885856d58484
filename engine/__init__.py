"""Mashtun's engine: RenderTrees and media in, mixed pictures and sound out. It knows nothing of HTTP.

The public names are here, each loaded when it is first used: who only needs a RenderTree does not pay for libav.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.config import Settings
    from engine.core import Engine, EngineStatus, News
    from engine.errors import EngineError
    from engine.images import ImageInfo
    from engine.morph import Morph
    from engine.offline import Progress, Rendered, render
    from engine.program import Held, Program
    from engine.sinks.flow import Flow, Fmp4Flow
    from engine.sinks.push import PushStatus
    from engine.sinks.record import RecordingStatus
    from engine.sources.pull import PullStatus
    from engine.spec import AudioFormat, EncoderSpec, EventSpec, MixerSpec, PullSpec, Raster, RenderSpec
    from engine.stream import StreamStatus
    from engine.tree import RenderTree

__all__ = [
    "AudioFormat",
    "EncoderSpec",
    "Engine",
    "EngineError",
    "EngineStatus",
    "EventSpec",
    "Flow",
    "Fmp4Flow",
    "Held",
    "ImageInfo",
    "MixerSpec",
    "Morph",
    "News",
    "Program",
    "Progress",
    "PullSpec",
    "PullStatus",
    "PushStatus",
    "Raster",
    "RecordingStatus",
    "RenderSpec",
    "RenderTree",
    "Rendered",
    "Settings",
    "StreamStatus",
    "render",
]

_HOMES = {
    "config": ("Settings",),
    "core": ("Engine", "EngineStatus", "News"),
    "errors": ("EngineError",),
    "images": ("ImageInfo",),
    "morph": ("Morph",),
    "offline": ("Progress", "Rendered", "render"),
    "program": ("Held", "Program"),
    "sinks.flow": ("Flow", "Fmp4Flow"),
    "sinks.push": ("PushStatus",),
    "sinks.record": ("RecordingStatus",),
    "sources.pull": ("PullStatus",),
    "spec": ("AudioFormat", "EncoderSpec", "EventSpec", "MixerSpec", "PullSpec", "Raster", "RenderSpec"),
    "stream": ("StreamStatus",),
    "tree": ("RenderTree",),
}


def __getattr__(name: str) -> object:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"engine.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
