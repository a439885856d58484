"""The render command of mashes: a document and arguments → films → an exit code and at most one sentence.

It decides where a document's media lie and which of its outputs are made; it refuses to know what a mash means.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Final

import msgspec

from api.moviemasher.fields import Object, is_built_in, source_of
from api.moviemasher.renders import complete, film_of, fonts_of, length, renders_of, whole
from engine import command
from engine.errors import InvalidMash, InvalidSpec
from engine.media import ink_measure
from engine.program import halved
from engine.spec import OutputSpec
from engine.urls import scheme_of

WEB: Final = ("http", "https")
SOUNDS: Final = (".mp3", ".m4a", ".wav")


def run_mash(document: Object, arguments: argparse.Namespace) -> int:
    """Renders a mash or a cast: into a folder what it asks for itself, or else one film. Raises EngineError."""
    document = _resolved(whole(document), Path(arguments.document).parent)
    if not document.get("outputs") or not Path(arguments.out).is_dir():
        return _run_one(document, arguments)
    several = renders_of(document, arguments.out)
    code = command.run_renders(several.renders, arguments) if several.renders else 0
    if code == 0 and not arguments.check:
        result = several.finish()
        if arguments.progress == "json":
            print(msgspec.json.encode({"result": result}).decode(), flush=True)
    return code


def _resolved(document: Object, folder: Path) -> Object:
    """With sources that are paths counted from the document's folder, and built-in fonts not from the web."""
    definitions = document.get("definitions") or []
    if not isinstance(definitions, list):
        raise InvalidMash("$.definitions: expected an array", where="$.definitions")
    for each in definitions:
        if isinstance(each, dict) and is_built_in(each) and scheme_of(source_of(each)) in WEB:
            each |= {"source": None, "url": None}
        elif isinstance(each, dict) and isinstance(each.get("source"), str) and not scheme_of(each["source"]):
            each["source"] = str(folder / each["source"])
    return {**document, "definitions": definitions}


def _run_one(document: Object, arguments: argparse.Namespace) -> int:
    """Into the file, of the size and rate, that the arguments name."""
    for name, place in arguments.source:
        for each in document["definitions"]:
            if isinstance(each, dict) and each.get("id") == name:
                each["source"] = place
    document = complete(document)
    if arguments.scale is not None:  # it is laid out on a frame of any size
        arguments.size, arguments.scale = arguments.scale, None
    spec = command.read_spec(arguments)
    film = film_of(document, spec.mixer.raster, measure=ink_measure(fonts_of(document)))
    suffix = Path(spec.output).suffix.lower()
    seen, heard = film.seen and suffix not in SOUNDS, film.heard
    start = film.start if arguments.start is None else spec.start
    duration = spec.duration
    if duration is None:
        left = film.start + length(film) - start
        if left <= 0:
            raise InvalidSpec(f"the mash is over at {float(start):g} s: nothing to render", where="start")
        duration = max(left, 1 / spec.mixer.fps)
    changes: dict[str, Any] = {"start": start, "duration": duration, "sources": film.sources | film.fonts}
    if seen != heard:
        changes["outputs"] = (OutputSpec(path=spec.output, encoder=spec.encoder, picture=seen, sound=heard),)
    spec = msgspec.structs.replace(spec, **changes)
    return command.run_renders([(halved(film.program, picture=seen, sound=heard), spec)], arguments)
