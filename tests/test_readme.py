"""The README's commands that render do so, as they stand there, and its Python runs."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from tests.media import TONE, Video, encode

pytestmark = pytest.mark.flow

README = Path(__file__).parent.parent.joinpath("README.md").read_text()
PART = README[README.index("**Render a film offline**") : README.index("## The RenderTree")]
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PART, re.DOTALL)
SHELL = [text for kind, text in BLOCKS if kind == "sh"] + re.findall(r"`(mashtun render [^`]*\$cameras)`", PART)
CAMERAS = next(line for text in SHELL for line in text.splitlines() if line.startswith("cameras="))
SMALL = Video(size=(320, 180))


@pytest.fixture
def folder(tmp_path):
    """Where the README's files are: two seconds each."""
    for name in ("a.mp4", "b.mkv", "c.mov", "film.mp4"):
        encode(tmp_path / name, SMALL, TONE, seconds=2)
    av.VideoFrame.from_ndarray(np.full((90, 160, 3), 200, np.uint8)).save(str(tmp_path / "logo.png"))
    (grid,) = (text for kind, text in BLOCKS if kind == "json")
    (tmp_path / "grid.json").write_text(grid)
    (tmp_path / "mashtun").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m api "$@"\n')
    (tmp_path / "mashtun").chmod(0o755)
    return tmp_path


def run(folder, *command):
    root = str(Path(__file__).parent.parent)
    found = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}", "PYTHONPATH": root}
    subprocess.run(command, cwd=folder, env=found, check=True, timeout=120)


def test_the_readme_has_commands_that_render():
    assert len(SHELL) == 5
    assert {"grid.mp4", "out.mp4", "out.webm", "still.png"} <= set(re.findall(r"[a-z]+\.(?:mp4|webm|png)", str(SHELL)))


@pytest.mark.parametrize("command", SHELL, ids=range(len(SHELL)))
def test_a_command_renders(folder, command):
    before = set(folder.iterdir())
    run(folder, "bash", "-euo", "pipefail", "-c", f"{CAMERAS}\n{command}")
    (made,) = set(folder.iterdir()) - before
    with av.open(str(made)) as container:
        picture = next(container.decode(video=0))
    assert (picture.width, picture.height) == (1280, 720)


def test_the_python_renders(folder):
    (script,) = (text for kind, text in BLOCKS if kind == "python")
    run(folder, sys.executable, "-c", script)
    with av.open(str(folder / "grid.mp4")) as container:
        assert container.streams.video[0].frames == 300


def test_effects_are_asked_for_as_it_says(folder):
    found = re.search(r"`effects` \(`(\[.*?\])`: ([a-z,\s]+)\)", README)
    named = [{"effect": name} for name in re.split(r",\s+", found[2])]
    assert len(named) == 11
    pictures = []
    for effects in ([], json.loads(found[1]), named):
        node = {"node": "VideoSourceNode", "streamGuid": "pattern:bars", "effects": effects}
        (folder / "tree.json").write_text(json.dumps({"rootVideoNode": node}))
        run(folder, "mashtun", "render", "tree.json", "still.png", "--start", "1")
        pictures.append((folder / "still.png").read_bytes())
    assert len(set(pictures)) == 3
