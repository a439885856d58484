"""What a job's child renders: RenderTrees as ever, and Movie Masher's mashes. `python -m api.child` is that child.

It decides which of both a document is; it refuses to know who asked, and what a document means. What renders mashes is
imported with the first one: no RenderTree waits for it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Final

from api.moviemasher.fields import is_document
from engine import child, command
from engine.errors import EngineError
from engine.strictjson import parse_json

MAX_BYTES: Final = 32 << 20


def main(argv: Sequence[str] | None = None) -> int:
    """Renders a document file as the arguments say; returns the exit code."""
    parser = command.Parser(prog="mashtun render", description="Render a RenderTree or a mash into a film.")
    command.add_document_arguments(parser)
    return run_document(parser.parse_args(argv))


def run_document(arguments: argparse.Namespace) -> int:
    """Renders a document: a mash by `api.mashes`, everything else by `engine.command`.

    It is read once: standard input and pipes are empty then.
    """
    try:
        text = command.read_document(arguments.document, MAX_BYTES)
    except OSError:
        return command.run_document(arguments)  # which says what is wrong
    if not is_document(text):
        return command.run_document(arguments, text)
    with command.loading():
        from api.mashes import run_mash
    try:
        return run_mash(parse_json(text, limit_bytes=MAX_BYTES), arguments)
    except EngineError as err:
        return command.fail(str(err))


if __name__ == "__main__":
    sys.exit(child.main(main, (*child.LOADED, "api.mashes")))
