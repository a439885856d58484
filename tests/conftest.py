"""Fixtures that many tests need: the test media, made once a session."""

from pathlib import Path

import pytest

from tests.media import Media


@pytest.fixture(scope="session")
def media(tmp_path_factory: pytest.TempPathFactory) -> Media:
    """The test media; a file is made when its path is first asked for."""
    folder: Path = tmp_path_factory.mktemp("media")
    return Media(folder)
