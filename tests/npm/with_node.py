"""What needs node: nexrender's own client from npm, unmodified, against a real server, and our page.

Each ``*.test.js`` here is one test.

It needs node and what ``npm ci`` puts into this folder, so it is not collected with the others; it is run by its name:
``cd tests/npm && npm ci && cd ../.. && pytest tests/npm/with_node.py``.
"""

import subprocess
from pathlib import Path

import pytest

from tests.flows.live import Server, environment

HERE = Path(__file__).resolve().parent
SCRIPTS = sorted(each.name for each in HERE.glob("*.test.js"))


@pytest.mark.parametrize("script", SCRIPTS)
def test_what_node_runs_finds_what_it_expects(tmp_path, script):
    with Server(tmp_path, MASHTUN_SECRET="s3cret") as server:
        found = subprocess.run(
            ["node", "--test", "--test-reporter=spec", script],
            cwd=HERE, env=environment(MASHTUN_URL=server.http.rstrip("/"), MASHTUN_SECRET="s3cret"),
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
    print(found.stdout)
    assert found.returncode == 0, found.stdout + found.stderr
