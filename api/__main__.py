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
    parser = command.Parser(prog="mashtun", description="Mixes live streams, and renders films, as RenderTrees say.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    render = commands.add_parser("render", help="render a RenderTree into a film")
    command.add_document_arguments(render)
    render.set_defaults(run=command.run_document)
    demo = commands.add_parser("demo", help="render a demonstration that needs no camera")
    demo.add_argument("out", metavar="OUT", help="the film, or a .png of one picture")
    command.add_render_arguments(demo)
    demo.set_defaults(run=_demo, duration="10")
    serve = commands.add_parser("serve", help="mix live: the server with its APIs, RTMP and a page")
    _add_serve_arguments(serve)
    serve.set_defaults(run=_serve)
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


def _add_serve_arguments(parser: argparse.ArgumentParser) -> None:
    """What `mashtun serve` takes; what is not given comes from MASHTUN_… variables."""
    parser.add_argument("--host", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, help="of HTTP (8570); 0 = a free one")
    parser.add_argument("--rtmp-port", type=int, help="of RTMP (1935); 0 = a free one, -1 = none")
    parser.add_argument("--data", metavar="DIR", help="folder of images, recordings, documents (./data)")
    parser.add_argument("--username", help="of HTTP Basic authentication, together with MASHTUN_PASSWORD")
    parser.add_argument("--insecure", action="store_true", default=None, help="listen openly without credentials")
    parser.add_argument("--demo", action="store_true", help="four moving patterns and an event that mixes them")
    parser.add_argument("--log", choices=("text", "json"), default="text", help="how the log is written")


def _serve(arguments: argparse.Namespace) -> int:
    from api.serve import run_serve

    return run_serve(arguments)


if __name__ == "__main__":
    sys.exit(main())
