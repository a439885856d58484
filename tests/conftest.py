"""Fixtures that many tests need: the test media, made once a session, and whether golden pictures are written anew.

How the tests share a machine: files run at once, in a few more processes than there are processors, since many wait for
a clock or a socket. The longest begin. What must keep up with the clock is marked "live": all other tests are niced.
"""

import os
import signal
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.media import Media

# The same examples every time, so that a red test means a change; `--hypothesis-profile default` looks for new ones.
# Neither looks at the clock: a busy machine is no error.
settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("repeatable", settings.get_profile("default"), derandomize=True, max_examples=50)
settings.load_profile("repeatable")

# Hundreds of processes are started, and without this each may have to compile the whole code anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# What is started here heeds signals, also where the tests themselves were started in the background or by nohup.
for number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, lambda *_: None)  # unlike ignoring it, nobody inherits that


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden", choices=("check", "write"), default="check", help="write: make the golden pictures anew"
    )


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Of `-n auto`; single files are run where one is, in the process that was started."""
    is_whole = any(Path(argument).is_dir() for argument in config.args)
    return len(os.sched_getaffinity(0)) + 2 if is_whole else 0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: [item.get_closest_marker(name) is None for name in ("live", "flow")])


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("live") is None:
        _give_way()


@cache  # once a process, for good
def _give_way() -> None:
    os.nice(10)


@pytest.fixture(scope="session")
def media(tmp_path_factory: pytest.TempPathFactory) -> Media:
    """The test media; a file is made when its path is first asked for."""
    folder: Path = tmp_path_factory.mktemp("media")
    return Media(folder)
