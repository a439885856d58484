"""Mashtun's engine: RenderTrees and media in, mixed pictures and sound out. It knows nothing of HTTP.

The public names are here, each loaded when it is first used: who only needs a RenderTree does not pay for libav.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.config import Settings
    from engine.errors import EngineError
    from engine.program import Held, Morph, Program
    from engine.render import Progress, Rendered, render
    from engine.spec import AudioFormat, EncoderSpec, MixerSpec, Raster, RenderSpec
    from engine.tree import RenderTree

__all__ = [
    "AudioFormat",
    "EncoderSpec",
    "EngineError",
    "Held",
    "MixerSpec",
    "Morph",
    "Program",
    "Progress",
    "Raster",
    "RenderSpec",
    "RenderTree",
    "Rendered",
    "Settings",
    "render",
]

_HOMES = {
    "config": ("Settings",),
    "errors": ("EngineError",),
    "program": ("Held", "Morph", "Program"),
    "render": ("Progress", "Rendered", "render"),
    "spec": ("AudioFormat", "EncoderSpec", "MixerSpec", "Raster", "RenderSpec"),
    "tree": ("RenderTree",),
}


def __getattr__(name: str) -> object:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"engine.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class _Package(ModuleType):
    """`engine.render` is the function, also after an import of the module of that name."""

    def __setattr__(self, name: str, value: object) -> None:
        if name == "render" and isinstance(value, ModuleType):
            value = value.render
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
