"""The commands of `mashtun`, and that none of its doors loads more than it needs."""

import io
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from api.commands import main
from api.moviemasher.users import is_password, read_users
from api.serve import take_folder
from engine.errors import InvalidSpec

SENTENCE = 'mashtun: document "nosuch.json": no such file or directory\n'
PROBE = """
import sys
from api.commands import main
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


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["worker", "--server", "http://h:99999"], 'server "http://***": its host or its port cannot be read'),
        (["worker", "--server", "ftp://h"], 'server "ftp://h" is not an http: or https: URL'),
        (["worker", "--server", "http://h", "--slots", "0"], "slots 0 is not within 1…256"),
        (["worker", "--server", "http://h", "--name", "a\nb"], "name has characters that cannot be sent"),
        (["worker", "--server", "http://h", "--tags", "é"], "tags 'é' has none of the letters A…Z and digits of tags"),
        (["serve", "--worker", "-3"], "worker is '-3': Expected `int` >= 0"),
        (["serve"], "MASHTUN_QUOTA is 'nan': Expected `float` >= 0.0"),
    ],
)
def test_a_setting_that_makes_no_sense_is_one_sentence_and_exit_code_two(tmp_path, arguments, sentence):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    environment |= {"MASHTUN_QUOTA": "nan"} if arguments == ["serve"] else {}
    result = subprocess.run(
        [sys.executable, "-m", "api", *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert (result.returncode, result.stderr) == (2, f"mashtun: {sentence}\n")


@pytest.mark.parametrize(
    ("command", "name", "value"),
    [
        ("serve", "MASHTUN_PASSWORD", b"p\xe4ss"),
        ("serve", "MASHTUN_PASSWORD", b"pass\n"),
        ("serve", "MASHTUN_MASHER_PASSWORD", b"pass\r"),
        ("serve", "MASHTUN_USERNAME", b"ada:x"),
        ("serve", "MASHTUN_SECRET", b"s\xe9cret"),
        ("serve", "MASHTUN_SECRET", b"secret\n"),
        ("serve", "MASHTUN_CLUSTER_SECRET", b"s\xe9cret"),
        ("worker", "MASHTUN_SECRET", b"s\xe9cret"),
    ],
)
def test_what_nobody_can_send_is_refused_before_anybody_is_asked_for_it(tmp_path, command, name, value):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), name: os.fsdecode(value)}
    arguments = {"serve": ["--host", "192.0.2.1"], "worker": ["--server", "http://192.0.2.1", "--slots", "0"]}[command]
    result = subprocess.run(
        [sys.executable, "-m", "api", command, *arguments],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2
    assert result.stderr.startswith(f"mashtun: {name} ")
    assert result.stderr.count("\n") == 1
    assert os.fsdecode(value).encode(errors="backslashreplace").decode().strip() not in result.stderr


def catches(process, number):
    """Whether a process has a handler for a signal."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.partition("SigCgt:")[2].split()[0], 16) >> (number - 1) & 1


def test_a_server_that_does_not_serve_yet_ends_at_once(tmp_path):
    """Also as the first process of a container, where a signal without a handler does nothing."""
    command = [sys.executable, "-m", "api", "serve", "--port", "0", "--rtmp-port", "-1", "--data", str(tmp_path)]
    with take_folder(tmp_path), subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as server:
        try:
            while not catches(server, signal.SIGTERM):
                assert server.poll() is None  # at the latest when it does not get the folder
            server.terminate()
            said, _ = server.communicate(timeout=60)
        finally:
            server.kill()
    assert (server.returncode, said) == (143, b"")


def test_a_data_folder_whose_path_no_json_can_have_is_refused(tmp_path):
    with pytest.raises(InvalidSpec, match="its path is not UTF-8"):
        take_folder(tmp_path / os.fsdecode(b"d\xe4ta"))
    assert list(tmp_path.iterdir()) == []


def test_a_variable_that_is_empty_is_not_set(tmp_path):
    (tmp_path / "data").mkdir()
    with closing(sqlite3.connect(tmp_path / "data" / "mashtun.db")) as made:
        made.execute("create table t (x)")
    command = [sys.executable, "-m", "api", "backup", "copy.db"]
    environment = os.environ | {"MASHTUN_DATA": "", "PYTHONPATH": str(Path(__file__).parents[2])}
    assert subprocess.run(command, cwd=tmp_path, env=environment, check=False).returncode == 0
    assert (tmp_path / "copy.db").exists()


def test_a_worker_that_may_not_write_its_folder_says_so_and_ends():
    command = [sys.executable, "-m", "api", "worker", "--server", "http://127.0.0.1:1", "--data", "/proc"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (1, "", 1)
    assert result.stderr.startswith('mashtun: data folder "/proc": ')


INTERRUPTED = """
import os, signal, sys
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == module:
            os.kill(os.getpid(), signal.SIGINT)
module = sys.argv.pop()
sys.meta_path.insert(0, Interrupt())
from api.__main__ import run
run()
"""


@pytest.mark.parametrize("module", ["argparse", "engine.command", "msgspec", "trio", "av"])
def test_an_interrupt_while_it_is_loaded_ends_it_without_a_word(tmp_path, module):
    result = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, "demo", "out.mp4", module],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "")
    assert list(tmp_path.iterdir()) == []


def test_a_backup_that_is_interrupted_tidies_up(tmp_path):
    begins = """
import os, signal, api.schema
from api.__main__ import run
def backup(*_):
    try:
        os.kill(os.getpid(), signal.SIGINT)
    finally:
        print("tidied up", flush=True)
api.schema.backup = backup
run()
"""
    words = [sys.executable, "-c", begins, "backup", str(tmp_path / "file")]
    result = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (130, "tidied up\n", "")


def test_a_worker_that_does_not_work_yet_ends_at_once():
    words = ["worker", "--server", "http://127.0.0.1:1"]
    begins = "import os, signal, api.worker\nfrom api.__main__ import run\napi.worker.run_worker = KILL\nrun()"
    kill = "lambda arguments: os.kill(os.getpid(), signal.SIGTERM)"
    result = subprocess.run([sys.executable, "-c", begins.replace("KILL", kill), *words], timeout=60, check=False)
    assert result.returncode == 143


def test_a_render_whose_document_does_not_come_ends_at_once(tmp_path):
    command = [sys.executable, "-m", "api", "render", "-", "film.mp4"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdin=subprocess.PIPE) as render:
        try:
            while not catches(render, signal.SIGTERM):
                assert render.poll() is None
            render.terminate()
            assert render.wait(timeout=60) == 143
        finally:
            render.kill()


def test_a_server_does_not_mind_that_nobody_reads_where_it_is(tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "api", "serve", "--port", "0", "--rtmp-port", "-1", "--data", str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "MASHTUN_ORDERING": "wrong"}
    with subprocess.Popen(command, env=environment, stdout=writing, stderr=subprocess.PIPE, text=True) as process:
        os.close(writing)
        try:
            assert 'ordering "wrong" is none of' in process.stderr.readline()
            end = time.monotonic() + 60
            while not (tmp_path / "mashtun.db").exists() and time.monotonic() < end:
                time.sleep(0.05)
            process.send_signal(signal.SIGTERM)
            _, said = process.communicate(timeout=60)
        finally:
            process.kill()
    assert "Traceback" not in said
    assert "stopping" in said
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "ignored", "ends"),
    [
        (["serve", "--port", "0", "--rtmp-port", "-1"], [], "SIGHUP"),
        (["worker", "--server", "http://127.0.0.1:1"], [], "SIGHUP"),
        (["worker", "--server", "http://127.0.0.1:1"], [signal.SIGHUP], "SIGTERM"),
    ],
)
def test_a_terminal_that_is_closed_ends_it_in_order_unless_it_should_not_care(tmp_path, arguments, ignored, ends):
    """It should not care when it was started with nohup."""
    process = subprocess.Popen(
        [sys.executable, "-m", "api", *arguments, "--data", str(tmp_path)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: [signal.signal(each, signal.SIG_IGN) for each in ignored],
    )
    with process:
        try:
            assert process.stdout.readline().startswith("mashtun: ")
            for each in (signal.SIGHUP, *([signal.SIGTERM] if ignored else [])):
                process.send_signal(each)
            _, said = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 0
    assert [line.split()[3] for line in said.splitlines() if "stopping" in line] == [f"{ends}:"]


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


def test_a_render_tree_waits_for_nothing_that_it_does_not_need(tmp_path):
    (tmp_path / "tree.json").write_text('{"rootVideoNode": {"node": "VideoSourceNode", "streamGuid": "pattern:bars"}}')
    names = "'uharfbuzz', 'engine.media', 'engine.sources.text', 'engine.template', 'api.moviemasher.renders'"
    probe = PROBE.replace('"av", "trio", "numpy"', names)
    arguments = ["tree.json", "out.png", "--size", "64x36", "--progress", "none"]
    command = [sys.executable, "-c", probe, "render", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert result.stderr.split("\n") == ["0 []", ""]
    assert (tmp_path / "out.png").exists()


def test_leaving_keeps_what_was_said_and_the_exit_code():
    program = "from engine.command import leave; import sys; print('one'); print('two', file=sys.stderr); leave(3)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (3, "one\n", "two\n")


@pytest.mark.parametrize(
    ("closed", "said"),
    [("<&-", ("", SENTENCE)), (">&-", ("", SENTENCE)), ("2>&-", ("", "")), ("<&- >&- 2>&-", ("", ""))],
)
def test_what_was_closed_before_the_start_is_nowhere_and_no_other_file_gets_what_is_meant_for_it(
    tmp_path, closed, said
):
    command = ["sh", "-c", f'"$@" {closed}', "sh", sys.executable, "-m", "api", "render", "nosuch.json", "out.mp4"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run(
        [*command, "--progress", "json"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert (result.returncode, result.stdout, result.stderr) == (1, *said)


def test_a_child_of_whoever_was_started_without_standard_error_has_one():
    child = "[sys.executable, '-c', 'import os; os.fstat(0), os.fstat(2)']"
    program = f"import subprocess, sys; from engine.command import begin; begin(); sys.exit(subprocess.call({child}))"
    command = ["sh", "-c", '"$@" <&- 2>&-', "sh", sys.executable, "-c", program]
    assert subprocess.run(command, check=False).returncode == 0


def test_leaving_without_having_said_it_is_an_error():
    program = "from engine.command import leave; print('one'); leave(0)"
    with Path("/dev/full").open("w") as full:
        environment = os.environ | {"PYTHONUNBUFFERED": ""}
        assert subprocess.run([sys.executable, "-c", program], stdout=full, env=environment).returncode == 1


@pytest.mark.parametrize("password", [b"p\xe4ss\n", b"pa\tss\n"])
@pytest.mark.parametrize("locale", ["C.UTF-8", "C"])
def test_a_password_that_nobody_can_send_is_not_put_into_a_file(tmp_path, password, locale):
    path = tmp_path / "users.json"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "LC_ALL": locale}
    command = [sys.executable, "-m", "api", "user", "ada", str(path)]
    result = subprocess.run(command, env=environment, input=password, capture_output=True)
    assert (result.returncode, path.exists()) == (1, False)
    assert re.fullmatch(
        rb'mashtun: the password of "ada" (is not UTF-8|has characters that cannot be sent)\n', result.stderr
    )


def test_a_user_is_put_into_a_file(tmp_path, capsys, monkeypatch):
    path = tmp_path / "users.json"
    for name, password, code in (
        ("ada", "one\r\n", 0),
        ("bob", "two", 0),
        ("ada", "three\n", 0),
        ("eve", "\n", 1),
        ("..", "x", 1),
    ):
        monkeypatch.setattr("sys.stdin", io.StringIO(password))
        assert main(["user", name, str(path)]) == code
        assert capsys.readouterr().err.startswith("mashtun: ") == bool(code)
    known = read_users(path)
    assert known.keys() == {"ada", "bob"}
    assert [is_password(given, known["ada"]) for given in ("three", "one")] == [True, False]
