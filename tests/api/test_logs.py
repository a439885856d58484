"""What a client has put into a log stays in its line."""

import fcntl
import json
import os
import select
import subprocess
import sys
import threading
import time

import pytest

from api.logs import MAX_WAITING

LOGGING = """
import logging, sys
from api.logs import log_to_stderr
log_to_stderr(sys.argv[1])
log = logging.getLogger("x")
log.info("job %s: done", sys.argv[2])
try:
    raise ValueError(sys.argv[2])
except ValueError:
    log.exception("a bug")
"""
FORGED = "u\n2026-11-21T00:00:00.000Z INFO job v: deleted\x1b[2K\r\x85ü"


@pytest.mark.parametrize("form", ["text", "json"])
def test_nobody_writes_lines_of_his_own(form):
    said = subprocess.run(
        [sys.executable, "-c", LOGGING, form, FORGED],
        capture_output=True,
        check=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    ).stderr.decode()
    lines = said.removesuffix("\n").split("\n")
    if form == "json":
        assert json.loads(lines[0])["message"] == f"job {FORGED}: done"
        assert len(lines) == 2
    else:
        assert lines[0].endswith(r" INFO job u\n2026-11-21T00:00:00.000Z INFO job v: deleted\x1b[2K\r\x85ü: done")
        assert lines[1].endswith(" ERROR a bug")
        assert all(line.startswith("  ") for line in lines[2:])
        assert said.replace("\n", "").isprintable()


FLOOD = """
import logging, sys
from api.logs import log_to_stderr
log_to_stderr()
log = logging.getLogger("x")
for n in range(int(sys.argv[1])):
    if n == 200:  # more than the pipe holds, which is full from now on
        sys.stdin.readline()
    log.info("entry %d", n)
print("on", flush=True)
sys.stdin.readline()
log.info("over")
"""


@pytest.mark.parametrize(
    ("reads", "waits"),
    [(True, True), (True, False), (False, True)],
    ids=["reads again", "reads again where others let nobody wait", "never reads again"],
)
def test_who_does_not_read_the_log_keeps_nobody(reads, waits):
    """What logs goes on and comes to its end; what was left out is counted in its place."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(writing, waits)
    count = MAX_WAITING + 1000
    process = subprocess.Popen(
        [sys.executable, "-c", FLOOD, str(count)],
        env={"PYTHONPATH": ":".join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=writing,
        text=True,
    )
    watch = threading.Timer(30, process.kill)
    watch.start()
    with process, os.fdopen(reading) as log:
        while select.select([], [writing], [], 0)[1] and process.poll() is None:
            time.sleep(0.01)
        os.close(writing)
        process.stdin.write("full\n")
        process.stdin.flush()
        assert process.stdout.readline() == "on\n"
        entries = [next(log) for _ in range(MAX_WAITING)] if reads else []
        while reads and "left out" not in entries[-1]:
            entries.append(next(log))
        process.communicate("end\n")
        watch.cancel()
        assert process.returncode == 0
        if reads:
            kept = [int(line.rpartition("entry ")[2]) for line in entries[:-1]]
            assert kept == list(range(len(kept)))
            assert entries[-1].endswith(f" WARNING log: {count - len(kept)} entries left out while nobody read it\n")
            assert log.read().endswith(" INFO over\n")


CROWD = """
import resource, socket, sys
import trio
from api.logs import log_to_stderr

log_to_stderr(sys.argv[1])

async def main():
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    client = trio.socket.socket()
    usual = resource.getrlimit(resource.RLIMIT_NOFILE)
    over = trio.Event()

    async def serve(stream):
        over.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, usual[1]))
        await client.connect(listener.socket.getsockname())
        await trio.sleep(0.5)
        resource.setrlimit(resource.RLIMIT_NOFILE, usual)
        await over.wait()
        nursery.cancel_scope.cancel()

trio.run(main)
"""


@pytest.mark.parametrize("form", ["text", "json"])
def test_that_there_are_too_many_connections_is_one_line(form):
    said = subprocess.run(
        [sys.executable, "-c", CROWD, form],
        capture_output=True,
        check=True,
        env={"PYTHONPATH": ":".join(sys.path)},
        timeout=30,
    ).stderr.decode()
    (line,) = said.removesuffix("\n").split("\n")
    assert "accept returned EMFILE (Too many open files)" in line
