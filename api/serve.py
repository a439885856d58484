"""The serve command: settings → one Trio run with the engine and the HTTP server in one nursery, until a signal.

It decides the order of starting and stopping; it refuses to know what is served.
"""

from __future__ import annotations

import argparse
import fcntl
import gc
import logging
import os
import resource
import signal
import socket
import sys
import time
from functools import partial
from pathlib import Path
from typing import Final, TextIO

import trio

from api.app import create_app
from api.auth import check_exposure
from api.demo import run_demo
from api.http import HTTP_GRACE, config_of, cut_connections, serve_http
from api.logs import log_to_stderr
from api.moviemasher import template
from api.moviemasher.rendering import UPLOAD
from api.moviemasher.servers import Servers
from api.queue import JobQueue
from engine import Engine
from engine.command import M_ARENA_MAX, M_MMAP_THRESHOLD, USAGE, fail, heeded_signals, say, set_heap
from engine.config import Settings, read_settings
from engine.errors import EngineError, InvalidSpec, first_error, reason_of
from engine.link import listen
from engine.worker import Lag, Worker

log = logging.getLogger(__name__)

SWITCH_INTERVAL: Final = 0.0005  # seconds; decoders wait that long for the interpreter, hundreds of times a second
# All threads allocate from one heap. There would be eight for each processor, and what threads of an event have left
# free in theirs those of the next do not find: 20 small events at once, again and again, took 640 MB at the 30th time
# and more at the next, now 200. One mix costs as much CPU as before, and so do 12.
# Larger blocks go back to the system when they are free. By itself that limit grows to the largest one ever freed, up
# to 32 MiB, and what events leave in the heap is never given back. What comes with every picture is smaller, up to
# 1080p: pages that are new each time would cost more than they save.
HEAP: Final = {M_ARENA_MAX: 1, M_MMAP_THRESHOLD: 4 << 20}
DESCRIPTORS: Final = 1 << 14  # files and connections; a third are viewers of 50 kB each. Systems begin with 1024
LOCK: Final = "serve.lock"
LOCK_PATIENCE: Final = 7.0  # seconds; a server that was told to stop needs up to 5


def run_serve(arguments: argparse.Namespace) -> int:
    """Serves until SIGTERM, SIGINT or SIGHUP; returns the exit code."""
    set_heap(HEAP)  # before the first thread
    log_to_stderr(arguments.log)
    raise_limit()
    sys.setswitchinterval(SWITCH_INTERVAL)
    try:
        settings = read_settings(os.environ, vars(arguments))
    except InvalidSpec as err:
        return fail(str(err), USAGE)
    try:
        check_exposure(settings)
        lock = take_folder(Path(settings.data))
        listener = listen(settings.host, settings.port)
    except (EngineError, OSError) as err:
        return fail(str(err))
    code = 0
    with lock:
        try:
            trio.run(partial(serve, settings, listener, demo=arguments.demo))
        except* EngineError as group:
            logging.shutdown()  # what led to it comes first
            code = fail(str(first_error(group)))
    return code


def raise_limit() -> None:
    """As many open files and connections as this process may have, up to DESCRIPTORS."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, DESCRIPTORS)), hard))


def take_folder(folder: Path) -> TextIO:
    """An open file; while it is, no other server takes the folder. Waits for one that is about to end.

    Two would take jobs from each other. Raises InvalidSpec: another one stays, or there can be no file.
    """
    try:
        str(folder.absolute()).encode()  # paths of films stand in JSON
    except UnicodeEncodeError:
        raise InvalidSpec(f"data folder {str(folder)!r}: its path is not UTF-8", where="data") from None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("w")
    except OSError as err:
        raise InvalidSpec(f'data folder "{folder}": {reason_of(err)}', where="data") from err
    end = time.monotonic() + LOCK_PATIENCE
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # goes with the process, however that ends
        except BlockingIOError:
            if time.monotonic() > end:
                file.close()
                raise InvalidSpec(f'data folder "{folder}" is in use by a server', where="data") from None
            time.sleep(0.1)
        else:
            return file


async def serve(settings: Settings, listener: socket.socket, *, demo: bool = False) -> None:
    """Engine and HTTP side by side, until a signal; then both in good order, within 5 s."""
    engine, queue = Engine(settings), JobQueue(settings)
    servers = Servers(engine, queue)
    port = listener.getsockname()[1]
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_wait_for_signal, stop)
        await nursery.start(engine.run)
        await nursery.start(queue.run)
        await nursery.start(servers.run)
        if demo:
            nursery.start_soon(run_demo, engine)
        gc.collect()
        gc.freeze()  # what is loaded stays; to look through it again and again would stop everybody for 50 ms
        _announce(settings, listener, engine)
        async with trio.open_nursery() as workers:
            for worker in workers_of(settings, engine, queue, servers):
                workers.start_soon(worker.run)
            async with trio.open_nursery() as serving:
                served = trio.Event()
                serving.start_soon(
                    serve_http, create_app(engine, queue=queue, servers=servers), config_of(listener), stop, served
                )
                await stop.wait()
                await engine.close()
                with trio.move_on_after(HTTP_GRACE):
                    await served.wait()
                cut_connections(port)
            workers.cancel_scope.cancel()  # before the queue ends: they give their jobs back
        nursery.cancel_scope.cancel()


def workers_of(settings: Settings, engine: Engine, queue: JobQueue, servers: Servers) -> list[Worker]:
    """Who renders jobs here; renders wait while a live mixer lags. One more only makes what users wait for.

    Where anybody may ask for jobs, what they write stays below the folder of outputs.
    """
    lag = Lag(lambda: sum(event.lagged for event in engine.events()))
    slots = [(str(n + 1), "") for n in range(settings.worker)]
    return [
        Worker(
            queue,
            f"{socket.gethostname()}-{name}",
            data=Path(settings.data),
            busy=lag,
            tags=tags,
            allow_private=settings.allow_private,
            writable=None if settings.secret or settings.username else (),
            child="api.child",
            dialects=(template,),
            library=servers.rendering.library,
        )
        for name, tags in (*slots, *([(UPLOAD, UPLOAD)] if slots else []))
    ]


def _announce(settings: Settings, listener: socket.socket, engine: Engine) -> None:
    host, port = listener.getsockname()[:2]
    name = f"[{host}]" if ":" in host else host
    rtmp = f", rtmp://{name}:{engine.rtmp_port}/" if engine.rtmp_port else ""
    say(f"mashtun: http://{name}:{port}/{rtmp}")


async def _wait_for_signal(stop: trio.Event) -> None:
    with trio.open_signal_receiver(*heeded_signals()) as signals:
        async for number in signals:
            log.info("server: %s: stopping", signal.Signals(number).name)
            stop.set()
