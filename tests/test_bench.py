"""What the benchmarks take for done: an engine that did nothing must not look fast."""

import shutil

import pytest

from bench import measure, peers
from bench.measure import RunError
from bench.peers import Layer, Mix


def mix_of(film, folder, *, seconds):
    layer = Layer(file=film, width=64, height=36)
    return Mix(layers=(layer,), width=64, height=36, seconds=seconds, folder=folder)


@pytest.mark.parametrize("engine", [peers.decode_alone, lambda mix: peers.ours(mix, peers.NULL)])
def test_what_is_thrown_away_is_counted(media, tmp_path, engine):
    command = engine(mix_of(media.path("plain"), tmp_path, seconds=2))
    measure.run(command, timeout=60)
    command.check('{"done":60}\nframes: 60 of 1 files')
    with pytest.raises(RunError, match="30 of 60 frames"):
        command.check('{"done":30}\nframes: 30 of 1 files')
    with pytest.raises(RunError, match="no of 60 frames"):
        command.check("")


def test_a_film_that_ends_early_is_no_floor(media, tmp_path):
    with pytest.raises(RunError, match="60 of 90 frames"):
        measure.run(peers.decode_alone(mix_of(media.path("plain"), tmp_path, seconds=3)), timeout=60)


@pytest.mark.skipif(shutil.which("melt") is None, reason="no melt")
def test_melt_does_not_count_where_it_goes_on_without_a_film(tmp_path):
    with pytest.raises(RunError, match="Failed to load"):
        measure.run(peers.melt(mix_of(tmp_path / "none.mp4", tmp_path, seconds=1), peers.NULL), timeout=60)
