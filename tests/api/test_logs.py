"""What a client has put into a log stays in its line."""

import json
import subprocess
import sys

import pytest

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
