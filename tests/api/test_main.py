"""The commands of `mashtun`, and that none of its doors loads more than it needs."""

import os
import subprocess
import sys

import pytest

from api.__main__ import main

PROBE = """
import sys
from api.__main__ import main
try:
    code = main(sys.argv[1:])
except SystemExit as ended:
    code = ended.code
loaded = {"av", "trio", "numpy"} & sys.modules.keys()
print(code, sorted(loaded), file=sys.stderr)
"""


@pytest.mark.parametrize("arguments", [["--help"], ["render", "--help"], ["demo", "--help"]])
def test_help(capsys, arguments):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("usage: mashtun")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "mashtun: the following arguments are required: COMMAND"),
        (["brew"], "invalid choice: 'brew'"),
        (["demo"], "mashtun demo: the following arguments are required: OUT"),
        (["demo", "out.mp4", "--size", "huge"], 'mashtun demo: argument --size: "huge" is not WIDTHxHEIGHT'),
        (["render", "a", "b", "c"], "mashtun: unrecognized arguments: c"),
    ],
)
def test_usage_is_one_line_and_exit_code_two(capsys, arguments, sentence):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1


def test_an_interrupt_is_130(tmp_path, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("engine.command.run_program", interrupt)
    assert main(["demo", str(tmp_path / "out.mp4")]) == 130


@pytest.mark.parametrize("arguments", [["--help"], ["render", "nosuch.json", "out.mp4"], ["demo", "o", "--fps", "x"]])
def test_what_renders_nothing_loads_no_libav(tmp_path, arguments):
    result = subprocess.run(
        [sys.executable, "-c", PROBE, *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stderr.splitlines()[-1].endswith("[]")
