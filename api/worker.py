"""The worker command: slots that render the jobs of a server on another machine, until a signal.

It decides what the slots are called and when they end; it refuses to know what a slot does.
"""

from __future__ import annotations

import argparse
import logging
import os
import secrets
import signal
import socket
from functools import partial
from pathlib import Path
from typing import Final

import trio

from api.logs import log_to_stderr
from api.moviemasher import template
from api.remote import RemoteQueue
from engine.command import USAGE, fail, heeded_signals, say
from engine.config import check_header, read_settings
from engine.errors import InvalidSpec, reason_of
from engine.jobdocument import tags_of
from engine.worker import Worker, try_folder

log = logging.getLogger(__name__)

MAX_SLOTS: Final = 256


def run_worker(arguments: argparse.Namespace) -> int:
    """Works until SIGTERM, SIGINT or SIGHUP; returns the exit code."""
    log_to_stderr()
    # Containers on one machine may all have its name, and each a process 1.
    name = arguments.name or f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}"
    try:
        settings = read_settings(os.environ, vars(arguments))
        check_header("name", name)
        if not 1 <= arguments.slots <= MAX_SLOTS:
            raise InvalidSpec(f"slots {arguments.slots} is not within 1…{MAX_SLOTS}", where="slots")
        if arguments.tags and not tags_of(arguments.tags):
            raise InvalidSpec(
                f"tags {arguments.tags[:80]!r} has none of the letters A…Z and digits of tags", where="tags"
            )
        queue = RemoteQueue(arguments.server, secret=arguments.secret)
    except InvalidSpec as err:
        return fail(str(err), USAGE)
    try:
        try_folder(Path(arguments.data))
    except OSError as err:
        return fail(f'data folder "{arguments.data}": {reason_of(err)}')
    slots = [
        Worker(
            queue,
            f"{name}-{n}" if arguments.slots > 1 else name,
            data=Path(arguments.data),
            tags=arguments.tags,
            allow_private=settings.allow_private,
            writable=None,  # who may put jobs there is the server's to say
            child="api.child",
            dialects=(template,),
            keeps=False,
        )
        for n in range(1, arguments.slots + 1)
    ]
    trio.run(partial(_work, slots))
    return 0


async def _work(slots: list[Worker]) -> None:
    with trio.open_signal_receiver(*heeded_signals()) as signals:
        async with trio.open_nursery() as nursery:
            for slot in slots:
                nursery.start_soon(slot.run)
            say(f"mashtun: {len(slots)} slots")
            async for number in signals:
                log.info("worker: %s: stopping", signal.Signals(number).name)
                break
            nursery.cancel_scope.cancel()
