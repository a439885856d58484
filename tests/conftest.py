"""Fixtures that many tests need: the test media, made once a session, and whether golden pictures are written anew."""

from pathlib import Path

import pytest
from hypothesis import settings

from tests.media import Media

# The same examples every time, so that a red test means a change; `--hypothesis-profile default` looks for new ones.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden", choices=("check", "write"), default="check", help="write: make the golden pictures anew"
    )


@pytest.fixture(scope="session")
def media(tmp_path_factory: pytest.TempPathFactory) -> Media:
    """The test media; a file is made when its path is first asked for."""
    folder: Path = tmp_path_factory.mktemp("media")
    return Media(folder)
