"""Jobs through a whole server: what it has answered outlives it, and what is asked of it is rendered."""

import pytest

from tests.flows.killing import kill_again_and_again

pytestmark = pytest.mark.flow


def test_what_was_answered_outlives_the_server(tmp_path):
    """A few kills; `python -m tests.flows.killing` does as many as are wanted."""
    assert kill_again_and_again(tmp_path, trials=3, seed=2).startswith("3 kills in ")
