"""What the benchmarks take for done: an engine that did nothing must not look fast."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench import edits, kernel, measure, painters, peers
from bench.edits import Blend, Shot
from bench.measure import RunError
from bench.peers import Layer, Mix
from tests.media import Video, encode

CASES = {case.name: case for case in kernel.CASES}
HALF = 2  # the sizes of bench.kernel divided by this are still even everywhere


def mix_of(film, folder, *, seconds, **more):
    layer = Layer(file=film, width=64, height=36, **more)
    return Mix(layers=(layer,), width=64, height=36, seconds=seconds, folder=folder)


@pytest.mark.parametrize("engine", [peers.decode_alone, lambda mix: peers.ours(mix, peers.NULL)])
def test_what_is_thrown_away_is_counted(media, tmp_path, engine):
    command = engine(mix_of(media.path("plain"), tmp_path, seconds=2))
    measure.run(command, timeout=20)
    command.check('{"done":60}\nframes: 60 of 1 files')
    with pytest.raises(RunError, match="30 of 60 frames"):
        command.check('{"done":30}\nframes: 30 of 1 files')
    with pytest.raises(RunError, match="no of 60 frames"):
        command.check("")


def test_a_film_that_ends_early_is_no_floor(media, tmp_path):
    with pytest.raises(RunError, match="60 of 90 frames"):
        measure.run(peers.decode_alone(mix_of(media.path("plain"), tmp_path, seconds=3)), timeout=20)


@pytest.mark.skipif(shutil.which("melt") is None, reason="no melt")
def test_melt_does_not_count_where_it_goes_on_without_a_film(tmp_path):
    with pytest.raises(RunError, match="Failed to load"):
        measure.run(peers.melt(mix_of(tmp_path / "none.mp4", tmp_path, seconds=1), peers.NULL), timeout=20)


@pytest.mark.parametrize(
    ("made", "sentence"),
    [
        ({"width": 32, "height": 18}, "a film of 32×18 pixels, not 64×36"),
        ({"gain_db": -100}, "not the sum of its sources: a loudness of 0.000"),
    ],
)
def test_a_mix_of_another_size_or_without_its_sound_is_another_one(media, tmp_path, made, sentence):
    wanted = mix_of(media.path("plain"), tmp_path, seconds=1)
    mix = replace(wanted, layers=tuple(replace(layer, **{"gain_db": 0.0} | made) for layer in wanted.layers))
    mix = replace(mix, **{name: value for name, value in made.items() if name != "gain_db"})
    out = tmp_path / "mix.mp4"
    measure.run(peers.ours(wanted, out), timeout=20)
    with pytest.raises(RunError, match=sentence):
        measure.run(replace(peers.ours(mix, out), check=peers.checked(wanted, out)), timeout=20)


def test_a_timeline_whose_inset_or_middle_is_another_one_is_refused(media, tmp_path):
    encode(tmp_path / "other.mp4", Video(matrix="bt709"), seconds=3)
    film, other = (
        Shot(file=media.path("plain"), trim=0, length=45),
        Shot(file=tmp_path / "other.mp4", trim=0, length=75),
    )
    wanted = Blend(
        name="blend",
        width=64,
        height=36,
        bit_rate=500_000,
        folder=tmp_path,
        shots=(film, other, film),
        inset=replace(film, length=20),
        inset_at=50,
    )
    out = tmp_path / "blend.mp4"
    measure.run(edits.ours(wanted, out), timeout=20)
    for made in (replace(wanted, inset_at=0), replace(wanted, shots=(film, replace(other, trim=9), film))):
        with pytest.raises(RunError, match="is another one"):
            measure.run(replace(edits.ours(made, out), check=edits.checked(wanted, out)), timeout=20)


def test_sigterm_ends_a_benchmark_with_its_children(tmp_path):
    program = (
        "import sys\nfrom bench import measure\nfrom bench.onair import Child\nmeasure.arguments('')\n"
        "with Child(sys.executable, '-c', 'import time; time.sleep(60)') as child:\n"
        "    print(child._process.pid, flush=True)\n    child._process.wait()\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=measure.ROOT) as bench:
        child = int(bench.stdout.readline())
        bench.terminate()
        assert bench.wait(20) == 143
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("compose", ["--only", "grid"], "no row grid; there are: grid2, grid2-null, pip, pip-null, grid3, grid3-null"),
        ("live", ["--peers", "ff8"], "no peer ff8; there are: ours, ours-files, ff9, gst, codecs"),
        ("effect", ["--peers", "ff9"], "no peer ff9; there are: libav"),
        ("kernel", ["--only", "grid", "--peers", "melt"], "no row grid; there are: " + ", ".join(CASES)),
        ("trees", ["--only", "tree"], "no row tree; there are: none"),
        ("trees", ["--rounds", "0"], "0 is no number of rounds: at least 1"),
    ],
)
def test_what_a_benchmark_does_not_have_is_refused(name, options, sentence):
    program = [sys.executable, "-m", f"bench.{name}", *options]
    done = subprocess.run(program, capture_output=True, text=True, cwd=measure.ROOT, timeout=20)
    assert done.returncode in (1, 2)
    assert done.stderr.splitlines()[-1].endswith(sentence)


def test_without_an_ffmpeg_a_benchmark_ends_with_a_sentence(tmp_path):
    (tmp_path / "imageio_ffmpeg.py").write_text("raise ImportError\n")
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "PATH": str(tmp_path)}
    program = [sys.executable, "-m", "bench.compose", "--smoke", "--cache", str(tmp_path / "cache")]
    done = subprocess.run(program, capture_output=True, text=True, cwd=measure.ROOT, env=environment, timeout=20)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "no FFmpeg to make media with: install the extra `bench`, or ffmpeg"
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.libav])
def test_libavfilter_paints_the_picture_that_the_kernel_paints(name):
    case, pictures = CASES[name], [smooth(*place.source, n) for n, place in enumerate(CASES[name].places)]
    canvas = smooth(1920, 1080, 99)
    kernel.engine(case, canvas, HALF)(pictures)
    mix = kernel.mix_of(case, Path(), HALF)
    for text in [painters.filters(mix)] + ([painters.xfade(mix)] if name == "crossfade" else []):
        graph = painters.FilterGraph(text, [kernel.sized(place.source, HALF) for place in case.places])
        for _ in range(3):
            frame = graph.paint([kernel.frame_of(picture) for picture in pictures])
        assert frame.format.name == "yuv420p"
        painted = frame.to_ndarray()[: frame.height]
        rows, columns = (min(sizes) for sizes in zip(painted.shape, canvas[0].shape, strict=True))
        off = np.abs(painted[:rows, :columns].astype(int) - canvas[0][:rows, :columns])
        assert np.mean(off) < 2, text


def smooth(width, height, n):
    """A picture of waves without edges, another one for every n, at half the size."""
    width, height = kernel.sized((width, height), HALF)
    rows, columns = np.mgrid[:height, :width]
    luma = 128 + 100 * np.sin(columns / width * 3 + n) * np.cos(rows / height * 2 + n)
    chroma = np.full(height * width // 2, 128)
    memory = np.concatenate([luma.ravel(), chroma]).astype(np.uint8)
    y, u, v = np.split(memory, [height * width, height * width * 5 // 4])
    return [y.reshape(height, width), u.reshape(height // 2, -1), v.reshape(height // 2, -1)]


@pytest.mark.skipif(shutil.which("gst-launch-1.0") is None, reason="no GStreamer")
def test_gstreamer_paints_every_picture_of_the_grid(tmp_path):
    mix = kernel.mix_of(CASES["2×2 of 1080p"], tmp_path / "none", HALF)
    command = painters.gst(mix, 5, source=(960, 540))
    out = tmp_path / "out.yuv"
    argv = [each.replace("fakesink", "filesink") for each in command.argv]
    argv.insert(argv.index("filesink") + 1, f"location={out}")
    measure.run(replace(command, argv=tuple(argv)), timeout=20)
    pictures = np.fromfile(out, np.uint8).reshape(5, 540 * 3 // 2, 960)
    parts = [pictures[:, y : y + 270, x : x + 480].astype(int) for y in (0, 270) for x in (0, 480)]
    assert parts[0].std() > 30
    assert all(np.abs(part - parts[0]).mean() < 5 for part in parts)


def test_a_program_that_paints_fewer_pictures_than_asked_is_no_figure(tmp_path):
    mix = kernel.mix_of(CASES["crossfade"], tmp_path / "none", HALF)
    command = painters.moviepy(mix, 5, source=(960, 540), python=sys.executable)
    if command.absent:
        pytest.skip(command.absent)
    measure.run(command, timeout=60)
    with pytest.raises(RunError, match="2 of 5 frames"):
        command.check("painted: 2")


def test_the_kernels_figures_are_kept_with_those_of_its_peers_and_who_is_absent(tmp_path):
    environment = os.environ | {"PATH": str(tmp_path)}
    options = ["--smoke", "--only", "crossfade", "--peers", "xfade", "melt", "gst"]
    program = [sys.executable, "-m", "bench.kernel", *options]
    done = subprocess.run(program, capture_output=True, text=True, cwd=measure.ROOT, env=environment, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "melt: absent: no melt (Debian: melt)\n" in done.stdout
    (row,) = json.loads((measure.RESULTS / "kernel-smoke.json").read_text())["rows"]
    assert row["name"] == "crossfade"
    assert row["cells"]["xfade"]["ratio"] == row["cells"]["xfade"]["ms"][0] / row["cells"]["cold"]["ms"][0]
    assert row["cells"]["gst"]["ratio"] is None
