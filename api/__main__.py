"""The command line: where the process starts, and the only place that reads the environment."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

# Nothing here solves equations: numpy's threads for that would only cost time at the start, and memory.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from engine import command
from engine.program import Held


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit code."""
    parser = command.Parser(prog="mashtun", description="Mixes streams and renders films from RenderTrees.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    render = commands.add_parser("render", help="render a RenderTree into a film")
    command.add_document_arguments(render)
    render.set_defaults(run=command.run_document)
    demo = commands.add_parser("demo", help="render a demonstration that needs no camera")
    demo.add_argument("out", metavar="OUT", help="the film, or a .png of one picture")
    command.add_render_arguments(demo)
    demo.set_defaults(run=_demo, duration="10")
    try:
        arguments = parser.parse_args(argv)
        code: int = arguments.run(arguments)
    except KeyboardInterrupt:
        return command.INTERRUPTED
    return code


def _demo(arguments: argparse.Namespace) -> int:
    from api.demo import demo_sources, demo_tree

    raster = arguments.size
    return command.run_program(Held(demo_tree(raster)), arguments, sources=demo_sources(raster))


if __name__ == "__main__":
    sys.exit(main())
