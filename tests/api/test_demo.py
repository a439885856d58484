"""The demonstration shows five patterns in their places, and each is heard."""

import av
import numpy as np
import pytest

from api.commands import main
from api.demo import demo_sources, demo_tree
from engine import plan as planner
from engine.plan import Picture, PictureSize, Rect
from engine.spec import Raster
from engine.tree import check
from tests.media import plane, read_cells


def test_the_tree_is_legal_and_names_its_sources():
    for raster in (Raster(1280, 720), Raster(2, 2), Raster(7680, 4320), Raster(62, 38)):
        check(demo_tree(raster))
        assert len(demo_sources(raster)) == 5


def test_four_quarters_and_a_fifth_over_their_middle():
    raster = Raster(640, 360)
    sizes = {Picture(name): PictureSize(320, 180) for name in demo_sources(raster)}
    plan = planner.compile(demo_tree(raster), raster, sizes)
    places = {layer.picture.name: (layer.dest, layer.alpha) for layer in plan.layers}
    assert places == {
        "demo/1": (Rect(0, 0, 320, 180), 255),
        "demo/2": (Rect(320, 0, 320, 180), 255),
        "demo/3": (Rect(0, 180, 320, 180), 255),
        "demo/4": (Rect(320, 180, 320, 180), 255),
        "demo/5": (Rect(192, 108, 256, 144), 128),
    }
    assert [voice.place.name for voice in plan.voices] == list(demo_sources(raster))


def test_every_pattern_moves_in_its_place(tmp_path, capsys):
    path = tmp_path / "demo.mkv"
    assert main(["demo", str(path), "--size", "640x360", "--duration", "0.5", "--quality", "0"]) == 0
    assert capsys.readouterr() == ("", "")
    with av.open(str(path)) as film:
        pictures = np.stack([plane(frame).copy() for frame in film.decode(video=0)])
    assert len(pictures) == 15
    for x in (0, 320):  # the lower quarters: their cells are not under the fifth
        assert [read_cells(luma[180:, x : x + 320]) for luma in pictures] == list(range(15))
    moved = np.ptp(pictures, axis=0) > 30
    for y, x in ((0, 0), (0, 320), (180, 0), (180, 320)):
        assert moved[y : y + 108, x : x + 192].any()
    assert moved[108:252, 192:448].any()


@pytest.mark.parametrize("size", ["2x2", "62x38", "1280x720"])
def test_one_picture_of_it(tmp_path, size):
    path = tmp_path / "demo.png"
    assert main(["demo", str(path), "--size", size]) == 0
    with av.open(str(path)) as container:
        (frame,) = container.decode(video=0)
    assert f"{frame.width}x{frame.height}" == size


def test_every_tone_is_heard(tmp_path):
    path = tmp_path / "demo.wav"
    assert main(["demo", str(path), "--size", "64x36", "--duration", "1"]) == 0
    with av.open(str(path)) as container:
        sound = np.concatenate([frame.to_ndarray().reshape(-1, 2) for frame in container.decode(audio=0)]) / 32768
    levels = np.abs(np.fft.rfft(sound.sum(axis=1) / 2)) / len(sound) * 2
    assert sorted(np.argsort(levels)[-5:].tolist()) == [220, 277, 330, 440, 554]
