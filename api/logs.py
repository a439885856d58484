"""The log of a process that serves or works: lines on standard error, as text or as JSON.

It decides how a line looks, and that nobody waits until it is read; it refuses to know what is logged. Each entry is
one line, whatever a client has put into it: what is no text is written out as an escape. Only a bug's trace has lines
of its own, indented.
"""

from __future__ import annotations

import json
import logging
import math
import os
import select
import sys
import threading
import time
from contextlib import suppress
from logging.handlers import QueueHandler
from queue import SimpleQueue
from typing import Any, Final, TextIO

from engine.errors import one_line
from engine.timebase import utc

MAX_WAITING: Final = 1000  # entries; hours of an ordinary day
SELDOM: Final = 60.0  # seconds between two entries of who says the same ten times a second
LAST_WORDS: Final = 1.0  # seconds that who reads has at the end for what waits

log = logging.getLogger(__name__)


def log_to_stderr(form: str = "text") -> None:
    """Everything from INFO on. form: "text" or "json"."""
    handler = _Waiting(sys.stderr)
    handler.addFilter(_Seldom())
    handler.setFormatter(_JsonFormatter() if form == "json" else _TextFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("hypercorn").setLevel(logging.WARNING)


class _Seldom(logging.Filter):
    """Of what Trio says of connections that it has no descriptors for, one line now and then, without a trace."""

    def __init__(self) -> None:
        super().__init__()
        self._next = -math.inf

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name != "trio.serve_listeners":
            return True
        record.exc_info = None
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + SELDOM
        return True


class _Waiting(QueueHandler):
    """Entries for who may stop reading (a terminal with Ctrl-S, a pager, a driver of logs): a thread writes them.

    More than MAX_WAITING are left out and counted, which is said when all that waited is written. The thread writes
    past the stream, whose lock the interpreter wants at its end.
    """

    def __init__(self, stream: TextIO) -> None:
        self._waiting: SimpleQueue[str | None] = SimpleQueue()  # None: the end
        super().__init__(self._waiting)
        self._descriptor, self._encoding = stream.fileno(), stream.encoding
        self._left_out = 0  # by whoever logs
        self._told = 0  # by the thread
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def prepare(self, record: logging.LogRecord) -> str:
        """The entry as it will be read: what it speaks of may change."""
        return self.format(record)

    def enqueue(self, record: Any) -> None:
        """Takes what `prepare` made, or leaves it out. Does not wait."""
        if self._waiting.qsize() < MAX_WAITING:
            self._waiting.put(record)
        else:
            self._left_out += 1

    def close(self) -> None:
        """Waits for what can be written soon; the rest is lost."""
        self._waiting.put(None)
        self._thread.join(LAST_WORDS)
        super().close()

    def _run(self) -> None:
        for entry in iter(self._waiting.get, None):
            self._write(entry)
            if self._waiting.empty():
                self._tell()
        self._tell()

    def _tell(self) -> None:
        count = self._left_out - self._told
        if count:
            self._told += count
            words = "log: %d entries left out while nobody read it"
            self._write(self.format(log.makeRecord(log.name, logging.WARNING, "", 0, words, (count,), None)))

    def _write(self, entry: str) -> None:
        data = f"{entry}\n".encode(self._encoding, "backslashreplace")
        with suppress(OSError):  # there is nobody to read it, nor to tell so
            while data:
                select.select([], [self._descriptor], [])  # others may have made it one that does not wait
                with suppress(BlockingIOError):
                    data = data[os.write(self._descriptor, data) :]


class _TextFormatter(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s.%(msecs)03dZ %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S")
        self.converter = time.gmtime

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        return one_line(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802
        return "\n".join(f"  {one_line(line)}" for line in super().formatException(ei).split("\n"))


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": utc(1000 * int(record.created) + int(record.msecs)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)
