"""The command line: what every command takes and calls, and the only place that reads the environment."""

from __future__ import annotations

import argparse
import getpass
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

# Nothing here solves equations: numpy's threads for that would only cost time at the start, and memory.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from api.signals import raise_interrupts
from engine import command
from engine.errors import EngineError, reason_of
from engine.jobs import ORDERINGS
from engine.program import Held


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit code."""
    parser = command.Parser(prog="mashtun", description="Mixes live streams, and renders films, as RenderTrees say.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    render = commands.add_parser("render", help="render a RenderTree or a mash into a film")
    command.add_document_arguments(render)
    render.set_defaults(run=_render)
    demo = commands.add_parser("demo", help="render a demonstration that needs no camera")
    demo.add_argument("out", metavar="OUT", help="the film, or a .png of one picture")
    command.add_render_arguments(demo)
    demo.set_defaults(run=_demo, duration="10")
    serve = commands.add_parser("serve", help="mix live: the server with its APIs, RTMP and a page")
    _add_serve_arguments(serve)
    serve.set_defaults(run=_serve)
    worker = commands.add_parser("worker", help="render the jobs of a server on another machine")
    _add_worker_arguments(worker)
    worker.set_defaults(run=_worker)
    backup = commands.add_parser("backup", help="copy the database of jobs, also while the server runs")
    _add_data_argument(backup)
    backup.add_argument("file", metavar="FILE", help="where to")
    backup.set_defaults(run=_backup)
    restore = commands.add_parser("restore", help="put a backup in the database's place, while no server runs")
    _add_data_argument(restore)
    restore.add_argument("file", metavar="FILE", help="the backup")
    restore.set_defaults(run=_restore)
    user = commands.add_parser("user", help="put a user and a password into a file for serve --users")
    user.add_argument("name", metavar="NAME", help="letters, digits, dots and _ @ + -")
    user.add_argument("file", metavar="FILE", help="made when it is not there")
    user.set_defaults(run=_user)
    taking = commands.add_parser("import-nexrender", help="take in what is missing of a nexrender server's jobs")
    _add_data_argument(taking)
    taking.add_argument("file", metavar="FILE", help="its database.js")
    taking.set_defaults(run=_import_nexrender)
    try:
        arguments = parser.parse_args(argv)
        if arguments.run in (_backup, _restore, _user, _import_nexrender):  # the others heed signals themselves
            raise_interrupts()
        code: int = arguments.run(arguments)
    except KeyboardInterrupt:
        return command.INTERRUPTED
    return code


def _render(arguments: argparse.Namespace) -> int:
    if arguments.document != "-" and not Path(arguments.document).exists():  # said at once, without loading anything
        return command.run_document(arguments)
    with command.loading():
        from api.child import run_document

    return run_document(arguments)


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
    parser.add_argument("--secret", help="of the jobs API, in the header nexrender-secret (MASHTUN_SECRET)")
    parser.add_argument("--ordering", choices=ORDERINGS, help="of jobs (oldest-first)")
    parser.add_argument("--worker", type=int, metavar="N", help="jobs rendered here at a time (1); 0 = none")
    parser.add_argument("--allow-private", action="store_true", default=None, help="let jobs use private addresses")
    parser.add_argument("--web", metavar="DIR", help="a site to serve at / (our own page)")
    parser.add_argument("--users", metavar="FILE", help="who may use Movie Masher's servers: see the command user")
    parser.add_argument("--masher-auth", choices=("basic", "none"), help="none: everybody is one user there (basic)")
    parser.add_argument(
        "--private-media", action="store_true", default=None, help="media only under addresses with a signature"
    )
    parser.add_argument("--insecure", action="store_true", default=None, help="listen openly without credentials")
    parser.add_argument("--demo", action="store_true", help="four moving patterns and an event that mixes them")
    parser.add_argument("--log", choices=("text", "json"), default="text", help="how the log is written")


def _serve(arguments: argparse.Namespace) -> int:
    with command.loading():
        from api.serve import run_serve

    return run_serve(arguments)


def _add_data_argument(parser: argparse.ArgumentParser) -> None:
    data = os.environ.get("MASHTUN_DATA") or "data"
    parser.add_argument("--data", default=data, metavar="DIR", help="the server's folder (./data)")


def _backup(arguments: argparse.Namespace) -> int:
    from api.queue import FILE
    from api.schema import backup

    try:
        backup(Path(arguments.data) / FILE, Path(arguments.file))
    except EngineError as err:
        return command.fail(str(err))
    return 0


def _restore(arguments: argparse.Namespace) -> int:
    with command.loading():
        from api.queue import FILE
        from api.restore import restore
        from api.serve import take_folder

    folder = Path(arguments.data)
    try:
        with take_folder(folder):
            kept = restore(Path(arguments.file), folder / FILE)
    except EngineError as err:
        return command.fail(str(err))
    if kept is not None:
        print(f"what was there is {kept}")
    return 0


def _import_nexrender(arguments: argparse.Namespace) -> int:
    from api.queue import FILE, rules_of
    from api.store import Store
    from engine.config import read_settings

    try:
        document = Path(arguments.file).read_bytes()
        Path(arguments.data).mkdir(parents=True, exist_ok=True)
        store = Store(Path(arguments.data) / FILE, rules=rules_of(read_settings(os.environ, {})))
        try:
            taken, left = store.take(document, now=time.time_ns() // 1_000_000)
        finally:
            store.close()
    except EngineError as err:
        return command.fail(str(err))
    except OSError as err:
        return command.fail(f'"{err.filename or arguments.file}": {reason_of(err)}')
    print(f"{taken} jobs taken, {left} left out")
    return 0


def _user(arguments: argparse.Namespace) -> int:
    from api.moviemasher.users import write_user

    try:
        if sys.stdin.isatty():
            password = getpass.getpass(f"password of {arguments.name}: ")
        else:
            password = sys.stdin.readline().rstrip("\r\n")
        write_user(Path(arguments.file), arguments.name, password)
    except UnicodeDecodeError:
        return command.fail(f'the password of "{arguments.name}" is not UTF-8')
    except EngineError as err:
        return command.fail(str(err))
    return 0


def _add_worker_arguments(parser: argparse.ArgumentParser) -> None:
    """What `mashtun worker` takes."""
    secret = os.environ.get("MASHTUN_SECRET") or os.environ.get("NEXRENDER_SECRET") or ""
    parser.add_argument("--server", required=True, metavar="URL", help="whose jobs: http://[user:password@]host:port")
    parser.add_argument("--secret", default=secret, help="of the server (MASHTUN_SECRET)")
    parser.add_argument("--name", default="", help="of this worker and nobody else (host, process, chance)")
    parser.add_argument("--slots", type=int, default=1, metavar="N", help="renders at a time (1)")
    parser.add_argument("--tags", default="", metavar="A,B", help="only jobs with one of these (any)")
    parser.add_argument("--data", default="./worker", metavar="DIR", help="folder of films and copies (./worker)")
    parser.add_argument("--allow-private", action="store_true", default=None, help="let jobs use private addresses")


def _worker(arguments: argparse.Namespace) -> int:
    with command.loading():
        from api.worker import run_worker

    return run_worker(arguments)
