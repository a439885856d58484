"""What a job's child renders: RenderTrees as ever, and Movie Masher's mashes. `python -m api.child` is that child.

It decides which of both a document is; it refuses to know who asked, and what a document means.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from api.moviemasher.fields import Object
from api.moviemasher.renders import (
    complete,
    film_of,
    fonts_of,
    is_document,
    length,
    renders_of,
    whole,
)
from engine import child, command
from engine.errors import EngineError, InvalidMash
from engine.media import ink_measure
from engine.program import halved
from engine.spec import OutputSpec
from engine.tree import parse_json

MAX_BYTES: Final = 32 << 20
SOUNDS: Final = (".mp3", ".m4a", ".wav")


def main(argv: Sequence[str] | None = None) -> int:
    """Renders a document file as the arguments say; returns the exit code."""
    parser = command.Parser(prog="mashtun render", description="Render a RenderTree or a mash into a film.")
    command.add_document_arguments(parser)
    return run_document(parser.parse_args(argv))


def run_document(arguments: argparse.Namespace) -> int:
    """Renders a document: a mash here, everything else as `engine.command.run_document`.

    It is read once: standard input and pipes are empty then.
    """
    try:
        text = command.read_document(arguments.document, MAX_BYTES)
    except OSError:
        return command.run_document(arguments)  # which says what is wrong
    try:
        document = _decoded(text, Path(arguments.document).parent)
        if document is None:
            return command.run_document(arguments, text)
        return _render(document, arguments)
    except EngineError as err:
        return command.fail(str(err))


def _decoded(text: bytes, folder: Path) -> Object | None:
    """A mash and what belongs to it, which lies in a folder; None: it is something else."""
    try:
        value: Any = msgspec.json.decode(text)
    except (ValueError, RecursionError):
        return None  # who reads it then says what is wrong
    if not is_document(value):
        return None
    parse_json(text, limit_bytes=MAX_BYTES)  # strictly
    return _resolved(whole(value), folder)


def _resolved(document: Object, folder: Path) -> Object:
    """With sources that are paths counted from the document's folder."""
    definitions = document.get("definitions") or []
    if not isinstance(definitions, list):
        raise InvalidMash("$.definitions: expected an array", where="$.definitions")
    for each in definitions:
        if isinstance(each, dict) and isinstance(each.get("source"), str) and ":" not in each["source"]:
            each["source"] = str(folder / each["source"])
    return {**document, "definitions": definitions}


def _render(document: Object, arguments: argparse.Namespace) -> int:
    if document.get("outputs") and Path(arguments.out).is_dir():
        several = renders_of(document, arguments.out)
        code = command.run_renders(several.renders, arguments) if several.renders else 0
        if code == 0:
            result = several.finish()
            if arguments.progress == "json":
                print(msgspec.json.encode({"result": result}).decode(), flush=True)
        return code
    return _render_one(document, arguments)


def _render_one(document: Object, arguments: argparse.Namespace) -> int:
    """Into the file, of the size and rate, that the arguments name."""
    for name, place in arguments.source:
        for each in document["definitions"]:
            if isinstance(each, dict) and each.get("id") == name:
                each["source"] = place
    document = complete(document)
    spec = command.read_spec(arguments)
    film = film_of(document, spec.mixer.raster, measure=ink_measure(fonts_of(document)))
    suffix = Path(spec.output).suffix.lower()
    seen, heard = film.seen and suffix not in SOUNDS, film.heard
    start = spec.start or film.start
    changes: dict[str, Any] = {"start": start, "sources": film.sources | film.fonts}
    changes["duration"] = spec.duration or max(length(film) + film.start - start, 1 / spec.mixer.fps)
    if seen != heard:
        changes["outputs"] = (OutputSpec(path=spec.output, encoder=spec.encoder, picture=seen, sound=heard),)
    spec = msgspec.structs.replace(spec, **changes)
    return command.run_renders([(halved(film.program, picture=seen, sound=heard), spec)], arguments)


if __name__ == "__main__":
    sys.exit(child.main(main))
