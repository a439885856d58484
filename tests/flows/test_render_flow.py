"""`mashtun render` as a whole process, with real files: what it makes, what it says, and what it leaves behind."""

import json
import os
import pty
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from engine_ext.composite import Layer
from tests import reference
from tests.media import Audio, Video, encode, flash_beep, numbers, plane

pytestmark = pytest.mark.flow

ROOT = Path(__file__).resolve().parents[2]
SIZE = (128, 72)
TONES = (400, 700, 1100, 1700)


def command(*arguments):
    return [sys.executable, "-m", "api", *map(str, arguments)]


def environment():
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def mashtun(*arguments, cwd, **options):
    """Runs a command to its end."""
    options = {"capture_output": True, "text": True, "timeout": 60, "env": environment()} | options
    return subprocess.run(command(*arguments), cwd=cwd, check=False, **options)


def made(result):
    assert (result.returncode, result.stderr) == (0, "")
    return result


def shown(guid, **fields):
    return {"node": "VideoSourceNode", "streamGuid": guid, **fields}


def document(folder, *video, sound=(), name="scene.json", gain=0):
    tree = {"rootVideoNode": {"node": "CompositorNode", "nodes": list(video)}}
    voices = [{"node": "AudioSourceNode", "streamGuid": guid, "gain": gain} for guid in sound]
    if voices:
        tree["rootAudioNode"] = {"node": "SumNode", "nodes": voices}
    (folder / name).write_text(json.dumps(tree))
    return name


def pictures(path):
    """Every decoded picture of a film in 4:2:0, as (y, u, v)."""
    with av.open(str(path)) as film:
        return [tuple(plane(frame, n).copy() for n in range(3)) for frame in film.decode(video=0)]


def samples(path):
    with av.open(str(path)) as film:
        resampler = av.AudioResampler("fltp", "stereo", 48_000)
        blocks = [each for frame in film.decode(audio=0) for each in resampler.resample(frame)]
    return np.concatenate([block.to_ndarray() for block in blocks], axis=1)


def psnr(planes, expected):
    errors = [np.square(a.astype(float) - b) for a, b in zip(planes, expected, strict=True)]
    mean = sum(error.sum() for error in errors) / sum(error.size for error in errors)
    return 99.0 if mean == 0 else 10 * np.log10(255**2 / mean)


# --- four films into one ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def quarters(tmp_path_factory):
    """Four films with numbered pictures and a tone each, and the document that puts them side by side at -6 dB."""
    folder = tmp_path_factory.mktemp("quarters")
    for n, tone in enumerate(TONES):
        video = Video(size=SIZE, rate=Fraction(30), matrix="bt709", bframes=2)
        encode(folder / f"{n}.mp4", video, Audio(hz=(tone,)), seconds=2)
    width, height = SIZE[0] // 2, SIZE[1] // 2
    places = [
        {"destX": n % 2 * width, "destY": n // 2 * height, "destWidth": width, "destHeight": height} for n in range(4)
    ]
    guids = [f"{n}.mp4" for n in range(4)]
    document(folder, *(shown(guid, **place) for guid, place in zip(guids, places, strict=True)), sound=guids, gain=-6)
    return folder


def render_quarters(folder, out, *options):
    arguments = ("render", "scene.json", out, "--size", "128x72", "--quality", "0", "--preset", "ultrafast", *options)
    return made(mashtun(*arguments, cwd=folder))


@pytest.fixture(scope="module")
def grid(quarters):
    render_quarters(quarters, "grid.mp4", "--audio-bit-rate", "320000")
    return quarters / "grid.mp4"


def test_every_picture_is_the_composition_of_the_decoded_sources(quarters, grid):
    ours = pictures(grid)
    assert len(ours) == 60
    sources = [pictures(quarters / f"{n}.mp4") for n in range(4)]
    width, height = SIZE[0] // 2, SIZE[1] // 2
    for n, planes in enumerate(ours):
        canvas = [np.zeros_like(plane) for plane in planes]
        layers = [
            Layer(sources[k][n], (k % 2 * width, k // 2 * height, width, height), (0.0, 0.0, *map(float, SIZE)))
            for k in range(4)
        ]
        reference.composite(*canvas, layers)
        assert psnr(planes, canvas) >= 45  # lossless: it is equal
        assert all(np.array_equal(a, b) for a, b in zip(planes, canvas, strict=True))


def test_the_four_tones_are_in_the_sum_at_their_level_and_nothing_else_is(grid):
    sound = samples(grid)[:, 24_000:72_000]
    window = np.blackman(48_000)
    for channel in sound:
        levels = np.abs(np.fft.rfft(channel * window)) / window.sum() * 2  # one bin is 1 Hz
        for tone in TONES:
            assert abs(20 * np.log10(levels[tone] / (0.5 * 10 ** (-6 / 20)))) <= 0.3
            levels[tone - 6 : tone + 7] = 0
        assert 20 * np.log10(levels[20:].max()) < -60


def test_the_same_twice_whatever_the_number_of_threads(quarters, grid):
    outs = [f"threads{n}.mp4" for n in (2, 3)]
    with ThreadPoolExecutor(2) as pool:
        list(
            pool.map(
                lambda out: render_quarters(quarters, out, "--threads", out[7], "--audio-bit-rate", "320000"), outs
            )
        )
    expected, sound = pictures(grid), samples(grid)
    for out in outs:
        assert all(
            np.array_equal(a, b)
            for x, y in zip(pictures(quarters / out), expected, strict=True)
            for a, b in zip(x, y, strict=True)
        )
        assert np.array_equal(samples(quarters / out), sound)


@pytest.mark.parametrize("lossy", [("--quality", "30"), ("--bit-rate", "60000")])
def test_it_does_not_matter_how_many_processors_there_are(quarters, lossy):
    """A lossy encoder that worked in threads must not depend on their number either."""
    one = {min(os.sched_getaffinity(0))}
    for out, affinity in (("one.mp4", one), ("all.mp4", os.sched_getaffinity(0))):
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, affinity)
        try:
            made(mashtun("render", "scene.json", out, "--size", "256x144", *lossy, cwd=quarters))
        finally:
            os.sched_setaffinity(0, before)
    first, second = pictures(quarters / "one.mp4"), pictures(quarters / "all.mp4")
    assert all(np.array_equal(a, b) for x, y in zip(first, second, strict=True) for a, b in zip(x, y, strict=True))


@pytest.mark.parametrize("suffix", ["mp4", "mov", "m4v", "mkv", "webm", "m4a", "mp3", "wav", "png", "jpg"])
def test_every_extension_plays_back(quarters, suffix):
    out = quarters / f"played.{suffix}"
    made(mashtun("render", "scene.json", out.name, "--size", "128x72", "--preset", "ultrafast", cwd=quarters))
    if suffix in ("m4a", "mp3", "wav"):
        assert 96_000 <= samples(out).shape[1] <= 96_000 + 2304
    elif suffix in ("png", "jpg"):
        assert len(numbers(out)) == 1
    else:
        with av.open(str(out)) as film:
            frames = list(film.decode(video=0))
            assert abs(Fraction(film.duration, av.time_base) - 2) <= Fraction(1, 30)
        assert len(frames) == 60
        assert [round(frame.pts * frame.time_base * 30) for frame in frames] == list(range(60))
        assert [int(frames[0].colorspace), int(frames[0].color_range)] == [1, 1]


# --- picture and sound together ---------------------------------------------------------------------------------------


def flashes_and_beeps(path, rate):
    """Seconds at which a white frame, and a beep, begins."""
    with av.open(str(path)) as film:
        flashes = [float(f.pts * f.time_base) for f in film.decode(video=0) if plane(f).mean() > 200]
    with av.open(str(path)) as film:
        resampler = av.AudioResampler("fltp", "mono", rate)
        first, blocks = None, []
        for frame in film.decode(audio=0):
            first = float(frame.pts * frame.time_base) if first is None else first
            blocks += [each.to_ndarray()[0] for each in resampler.resample(frame)]
    loud = np.concatenate(blocks)
    loud = np.abs(loud[: len(loud) // 80 * 80]).reshape(-1, 80).max(axis=1) > 0.2
    starts = np.flatnonzero(np.diff(loud.astype(int), prepend=0) == 1)
    beeps = [first + n * 80 / rate for n in starts]
    return np.array(flashes), np.array(beeps)


def test_ten_minutes_later_picture_and_sound_are_still_together(tmp_path):
    fps, rate, minutes = 2, 8000, 10
    video = Video(rate=Fraction(fps), size=(32, 18), flash=True, gop=8)
    beep = Audio("flac", rate=rate, layout="mono", hz=(1000,), beep=Fraction(1, 8))
    encode(tmp_path / "long.mkv", video, beep, seconds=60 * minutes)
    document(tmp_path, shown("long.mkv"), sound=["long.mkv"])
    options = ["--size", "32x18", "--fps", fps, "--preset", "ultrafast"]
    options += ["--audio-rate", rate, "--channels", 1, "--audio-bit-rate", 24_000]
    made(mashtun("render", "scene.json", "out.mp4", *options, cwd=tmp_path))
    flashes, beeps = flashes_and_beeps(tmp_path / "out.mp4", rate)
    assert len(flashes) == len(beeps) == 60 * minutes
    for second in (0, 60 * minutes // 2, 60 * minutes - 1):
        assert flashes[second] == pytest.approx(second, abs=1e-6)
        assert abs(flashes[second] - beeps[second]) <= 0.02


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov"])
def test_picture_and_sound_are_together_in_every_container(tmp_path, media, suffix):
    document(tmp_path, shown("cam"), sound=["cam"])
    source = ("--source", f"cam={media.path('flash_beep')}")
    made(mashtun("render", "scene.json", f"out.{suffix}", "--size", "64x36", *source, cwd=tmp_path))
    flashes, beeps = flashes_and_beeps(tmp_path / f"out.{suffix}", 48_000)
    assert flashes == pytest.approx([0, 1], abs=1e-6)
    assert beeps == pytest.approx(flashes, abs=1 / 30)


# --- interrupted ------------------------------------------------------------------------------------------------------


def interrupted(folder, out, number):
    """Starts a long render, sends the signal once it has mixed something, and returns the finished process."""
    document(folder, shown("pattern:bars?size=64x36"), sound=["pattern:bars"])
    options = ("--size", "64x36", "--duration", "80000", "--progress", "json")
    with subprocess.Popen(
        command("render", "scene.json", out, *options),
        cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        while json.loads(process.stdout.readline())["done"] == 0:
            pass
        assert len(list(folder.iterdir())) == 1 + (out != "null:")
        process.send_signal(number)
        _, error = process.communicate(timeout=30)
    assert error == ""
    return process


@pytest.mark.parametrize(
    ("out", "number"),
    [("out.mp4", signal.SIGINT), ("out.mp4", signal.SIGTERM), ("out.mkv", signal.SIGHUP), ("out.webm", signal.SIGINT)],
)
def test_a_signal_ends_it_and_leaves_nothing(tmp_path, out, number):
    assert interrupted(tmp_path, out, number).returncode == 128 + number
    assert [each.name for each in tmp_path.iterdir()] == ["scene.json"]


def test_a_signal_does_not_wait_for_a_silent_peer(tmp_path):
    document(tmp_path, shown("cam"))
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/film.mp4"
        arguments = command("render", "scene.json", "out.mp4", "--source", f"cam={url}", "--timeout", "50")
        with subprocess.Popen(arguments, cwd=tmp_path, env=environment(), stderr=subprocess.PIPE) as process:
            peer, _ = server.accept()
            process.send_signal(signal.SIGINT)
            _, error = process.communicate(timeout=30)
            peer.close()
    assert (process.returncode, error) == (130, b"")


# --- bad input --------------------------------------------------------------------------------------------------------


class Server:
    """An HTTP server on loopback that answers every request alike: `head`, then `body`, then end or silence."""

    def __init__(self, body=b"", *, length=None, silent=False, status="200 OK"):
        self.head = f"HTTP/1.1 {status}\r\nContent-Length: {length or len(body)}\r\n\r\n".encode()
        self.body, self.silent = body, silent
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}/film"
        self.peers = []
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                peer, _ = self.listener.accept()
            except OSError:
                return
            self.peers.append(peer)
            peer.recv(4096)
            if not self.silent:
                peer.sendall(self.head + self.body)
                peer.close()

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for peer in self.peers:
            peer.close()


def leaf(**fields):
    return json.dumps({"rootVideoNode": {"node": "SolidColorNode", **fields}})


def nested(depth):
    return '{"rootVideoNode": ' + '{"node": "CompositorNode", "nodes": [' * depth + "]}" * depth + "}"


SCENE = "scene.json"
OUT = "out.mp4"
# name: (arguments, standard input or None, exit code, what the sentence must hold)
BAD = {
    "source missing": ([SCENE, OUT, "--source", "cam=nosuch.mp4"], 1, ['"cam"', "no such file"]),
    "source empty": ([SCENE, OUT, "--source", "cam=empty.mp4"], 1, ['"cam"', "empty"]),
    "source truncated": ([SCENE, OUT, "--source", "cam=torn.mp4"], 1, ['"cam"', "not media"]),
    "source text": ([SCENE, OUT, "--source", "cam=text.mp4"], 1, ['"cam"', "not media"]),
    "source folder": ([SCENE, OUT, "--source", "cam=folder"], 1, ['"cam"', "is a directory"]),
    "source unreadable": ([SCENE, OUT, "--source", "cam=locked.mp4"], 1, ['"cam"', "permission denied"]),
    "source refused": ([SCENE, OUT, "--source", "cam=http://127.0.0.1:1/x"], 1, ['"cam"', "refused"]),
    "source 404": ([SCENE, OUT, "--source", "cam={missing}"], 1, ['"cam"', "404"]),
    "source silent": ([SCENE, OUT, "--source", "cam={silent}", "--timeout", "0.5"], 1, ['"cam"', "within 0.5 s"]),
    "source breaks off": ([SCENE, OUT, "--source", "cam={breaking}"], 1, ['"cam"', "at 0.", " s"]),
    "source protocol": ([SCENE, OUT, "--source", "cam=foo://x"], 1, ['"cam"', "foo"]),
    "source pattern": ([SCENE, OUT, "--source", "cam=pattern:nosuch"], 1, ['"cam"', "nosuch", "bars"]),
    "image missing": (["image.json", OUT, "--duration", "1"], 1, ['"logo.png"', "no such file"]),
    "document missing": (["nosuch.json", OUT], 1, ['"nosuch.json"', "no such file"]),
    "document folder": (["folder", OUT], 1, ['"folder"', "is a directory"]),
    "document unreadable": (["locked.json", OUT], 1, ['"locked.json"', "permission denied"]),
    "document name of two lines": (["no\nsuch.json", OUT], 1, ["no\\nsuch.json"]),
    "json empty": (["-", OUT], 1, ["not JSON"], ""),
    "json broken": (["-", OUT], 1, ["not JSON", "line 1"], '{"rootVideoNode": '),
    "json not UTF-8": (["-", OUT], 1, ["UTF-8"], b'{"\xff": 1}'),
    "json too deep": (["-", OUT], 1, ["16 nodes"], nested(17)),
    "json absurdly deep": (["-", OUT], 1, ["512 levels"], "[" * 100_000),
    "json too large": (["-", OUT], 1, ["1048576"], " " * (1 << 20) + "{}"),
    "json unknown node": (["-", OUT], 1, ["$.rootVideoNode.node", "Nosuch"], '{"rootVideoNode": {"node": "Nosuch"}}'),
    "json wrong type": (["-", OUT], 1, ["$.rootVideoNode.red", "a number"], leaf(red=[])),
    "json out of range": (["-", OUT], 1, ["$.rootVideoNode.red", "≤ 1"], leaf(red=2)),
    "json NaN": (["-", OUT], 1, ["NaN"], leaf(red=float("nan"))),
    "json infinite": (
        ["-", OUT],
        1,
        ["$.rootVideoNode.red"],
        '{"rootVideoNode": {"node": "SolidColorNode", "red": 1e999}}',
    ),
    "json two trees": (["-", OUT], 1, ["2 RenderTrees"], "[{}, {}]"),
    "no end": (["-", OUT], 1, ["duration"], leaf()),
    "start beyond the end": ([SCENE, OUT, "--start", "100"], 1, ["100 s", "over"]),
    "output extension": ([SCENE, "out.xyz"], 1, ['"out.xyz"', '".xyz"', ".mp4"]),
    "output folder missing": ([SCENE, "nosuch/out.mp4"], 1, ['"nosuch/out.mp4"', 'no folder "nosuch"']),
    "output folder locked": ([SCENE, "locked/out.mp4"], 1, ['"locked/out.mp4"', "permission denied"]),
    "output is a folder": ([SCENE, "folder.mp4"], 1, ['"folder.mp4"', "is a directory"]),
    "output disk full": ([SCENE, OUT], 1, [f'"{OUT}"', "file too large"]),
    "still disk full": ([SCENE, "out.png"], 1, ['"out.png"', "file too large"]),
    "audio rate of the format": ([SCENE, OUT, "--audio-rate", "12345"], 1, ["12345 Hz", "48000"]),
    "no command": ([], 2, ["COMMAND"]),
    "no output": ([SCENE], 2, ["OUT"]),
    "option unknown": ([SCENE, OUT, "--nosuch"], 2, ["--nosuch"]),
    "option of two lines": ([SCENE, OUT, "--no\nsuch"], 2, ["--no\\nsuch"]),
    "size": ([SCENE, OUT, "--size", "big"], 2, ["--size", '"big"']),
    "size limit": ([SCENE, OUT, "--size", "9999x2"], 2, ["9999", "7680"]),
    "fps": ([SCENE, OUT, "--fps", "0"], 2, ["--fps"]),
    "duration": ([SCENE, OUT, "--duration", "1e400"], 2, ["--duration", "1e400"]),
    "bit rate": ([SCENE, OUT, "--bit-rate", "5"], 2, ["bitRate 5", "100"]),
    "max without bit rate": ([SCENE, OUT, "--max-bit-rate", "5000"], 2, ["maxBitRate 5000 without a bitRate"]),
    "preset": ([SCENE, OUT, "--preset", "warp"], 2, ['"warp"', "veryfast"]),
    "source without URL": ([SCENE, OUT, "--source", "cam"], 2, ['"cam"', "GUID=URL"]),
    "threads": ([SCENE, OUT, "--threads", "0"], 2, ["0 threads", "64"]),
}


def tree_of_files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# One process for each case, forked from one that has loaded everything: they differ in what they are told. Root is
# denied permission like everybody else (capset: none), and a full disk is a limit on the size of a file.
CHILDREN = """
import ctypes, json, os, resource, struct, sys, traceback
import api.commands, engine.offline
for line in sys.stdin:
    case = json.loads(line)
    child = os.fork()
    if child:
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        continue
    code = 1
    try:
        os.chdir(case["folder"])
        for n, name in enumerate(("stdin", "stdout", "stderr")):
            os.dup2(os.open("../" + name, os.O_RDWR | os.O_CREAT), n)
        if case["full"]:
            resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))
        header, no = struct.pack("Ii", 0x20080522, 0), struct.pack("6I", 0, 0, 0, 0, 0, 0)
        ctypes.CDLL(None).capset(header, no)
        code = api.commands.main(case["arguments"])
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
"""


def bad_folder(folder, media):
    """Everything a bad input may name; whatever is left in `work` afterwards is compared with this."""
    work = folder / "work"
    work.mkdir()
    document(work, shown("cam"), sound=["cam"])
    document(work, {"node": "ImageSourceNode", "filename": "logo.png"}, name="image.json")
    for each in ("folder", "folder.mp4", "locked"):
        (work / each).mkdir()
    (work / "empty.mp4").touch()
    (work / "text.mp4").write_text("this is no film\n" * 64)
    (work / "torn.mp4").write_bytes(media.path("video_only").read_bytes()[:-600])  # the index is at its end
    for each in ("locked.mp4", "locked.json", "locked"):
        (work / each).touch()
        (work / each).chmod(0o500 if each == "locked" else 0)
    return work


@pytest.fixture(scope="module")
def refused(tmp_path_factory, media):
    """A function: name of a bad input → exit code, standard output and error, whether the folder is as before."""
    plain = media.path("transport").read_bytes()
    servers = {
        "missing": Server(status="404 Not Found"),
        "silent": Server(silent=True),
        "breaking": Server(plain[: len(plain) * 2 // 5], length=len(plain)),
    }
    urls = {key: server.url for key, server in servers.items()}
    children = subprocess.Popen(
        [sys.executable, "-c", CHILDREN], env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )

    def run(name):
        arguments, _, _, *given = BAD[name]
        folder = tmp_path_factory.mktemp("bad")
        work = bad_folder(folder, media)
        before = tree_of_files(work)
        arguments = [each.format(**urls) for each in arguments]
        if SCENE in arguments and "--source" not in arguments:
            arguments += ["--source", f"cam={media.path('plain')}"]
        data = given[0] if given else ""
        (folder / "stdin").write_bytes(data if isinstance(data, bytes) else data.encode())
        arguments = ["render", *arguments, "--progress", "none"] if arguments else []
        case = {"arguments": arguments, "folder": str(work), "full": "disk full" in name}
        children.stdin.write(json.dumps(case) + "\n")
        children.stdin.flush()
        code = int(children.stdout.readline())
        return code, (folder / "stdout").read_text(), (folder / "stderr").read_text(), before == tree_of_files(work)

    yield run
    children.stdin.close()
    children.stdout.close()
    children.wait(30)
    for server in servers.values():
        server.close()


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence_and_nothing_is_left(refused, name):
    code, output, error, unchanged = refused(name)
    expected, words = BAD[name][1:3]
    assert error.startswith("mashtun")
    assert error.count("\n") == 1
    assert error.endswith("\n")
    for word in words:
        assert word in error
    assert (code, output) == (expected, "")
    assert unchanged


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        ((SCENE, OUT), 1, 'mashtun: source "cam": no such file or directory\n'),
        ((SCENE,), 2, "mashtun render: the following arguments are required: OUT\n"),
    ],
)
def test_a_process_ends_with_that_code_and_sentence(tmp_path, arguments, code, sentence):
    document(tmp_path, shown("cam"))
    result = mashtun("render", *arguments, cwd=tmp_path)
    assert (result.returncode, result.stdout, result.stderr) == (code, "", sentence)
    assert tree_of_files(tmp_path) == [SCENE]


def test_a_source_that_breaks_off_is_held_when_that_is_asked_for(tmp_path, media):
    data = media.path("transport").read_bytes()
    server = Server(data[: len(data) * 2 // 5], length=len(data))
    document(tmp_path, shown("cam"), sound=["cam"])
    options = ("--size", "64x36", "--duration", "2", "--on-error", "hold")
    result = mashtun("render", SCENE, OUT, "--source", f"cam={server.url}", *options, cwd=tmp_path)
    server.close()
    assert result.returncode == 0
    assert result.stderr.count("\n") == 1
    assert '"cam"' in result.stderr
    assert "held" in result.stderr
    found = numbers(tmp_path / OUT)
    last = max(found)
    assert 10 < last < 50
    assert found == sorted(found)
    assert len(set(found)) >= last  # the picture that was cut in two is lost
    assert found[-60 + last + 2 :] == [last] * (58 - last)


@pytest.mark.parametrize(("source", "word"), [("hz8000", "no picture"), ("video_only", "no sound")])
def test_what_a_source_lacks_is_one_warning_and_no_failure(tmp_path, media, source, word):
    document(tmp_path, shown("cam"), shown("cam", destX=3), sound=["cam", "cam"])
    result = mashtun("render", SCENE, OUT, "--size", "64x36", "--source", f"cam={media.path(source)}", cwd=tmp_path)
    assert result.returncode == 0
    assert result.stderr.startswith('mashtun: source "cam" has ' + word)
    assert result.stderr.count("\n") == 1
    assert len(numbers(tmp_path / OUT)) == 30


# --- in and out -------------------------------------------------------------------------------------------------------


def test_a_document_from_standard_input_and_progress_on_standard_output(tmp_path, media):
    tree = json.dumps({"rootVideoNode": shown("cam")})
    options = ("--size", "64x36", "--progress", "json", "--source", f"cam={media.path('plain')}")
    result = made(mashtun("render", "-", OUT, *options, cwd=tmp_path, input=tree))
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert all(line.keys() == {"done", "total", "elapsed"} for line in lines)
    assert (lines[-1]["done"], lines[-1]["total"]) == (60, 60)
    assert lines[-1]["elapsed"] > 0
    assert [line["done"] for line in lines] == sorted(line["done"] for line in lines)
    assert numbers(tmp_path / OUT) == list(range(60))


def test_an_array_of_one_tree_is_a_tree(tmp_path):
    (tmp_path / SCENE).write_text(f"[{leaf(red=1)}]")
    made(mashtun("render", SCENE, "out.png", cwd=tmp_path))


def test_nobody_who_reads_the_progress_ends_it(tmp_path):
    document(tmp_path, shown("pattern:bars?size=64x36"))
    options = ("--size", "64x36", "--duration", "80000", "--progress", "json")
    with subprocess.Popen(
        command("render", SCENE, OUT, *options),
        cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        process.stdout.readline()
        process.stdout.close()
        error = process.stderr.read()
    assert (process.returncode, error) == (1, "mashtun: progress: broken pipe\n")
    assert [each.name for each in tmp_path.iterdir()] == [SCENE]


def on_a_terminal(folder, *arguments):
    """Exit code and everything shown on a terminal of 100 columns."""
    main, side = pty.openpty()
    try:
        os.set_blocking(main, True)
        size = {"COLUMNS": "100", "LINES": "30"}
        process = subprocess.Popen(
            command(*arguments), cwd=folder, env=environment() | size, stdin=side, stdout=side, stderr=side
        )
    finally:
        os.close(side)
    shown_text = b""
    while True:
        try:
            data = os.read(main, 4096)
        except OSError:  # the other end is closed
            break
        if not data:
            break
        shown_text += data
    os.close(main)
    return process.wait(30), shown_text.decode()


def test_a_terminal_shows_a_bar_and_a_summary(tmp_path, media):
    document(tmp_path, shown("cam"))
    code, text = on_a_terminal(
        tmp_path, "render", SCENE, OUT, "--size", "64x36", "--source", f"cam={media.path('plain')}"
    )
    assert code == 0
    *bars, summary, _ = text.replace("\r\x1b[K", "\n").replace("\r\n", "\n").split("\n")
    assert bars[-1].startswith("█" * 30 + " 100%  60/60 frames  ")
    assert bars[-1].rstrip().endswith("×")
    assert summary.startswith(f"{OUT}: 2.00 s in ")


def test_an_error_on_a_terminal_has_its_own_line(tmp_path):
    document(tmp_path, shown("nosuch.mp4"))
    code, text = on_a_terminal(tmp_path, "render", SCENE, OUT)
    assert (code, text) == (1, 'mashtun: source "nosuch.mp4": no such file or directory\r\n')


# --- memory -----------------------------------------------------------------------------------------------------------


def peak(folder, seconds):
    """Peak memory of a render of so many seconds, in KiB."""
    arguments = ("render", SCENE, f"{seconds}.mp4", "--size", "160x90", "--fps", "25", "--preset", "ultrafast")
    process = subprocess.Popen(command(*arguments, "--duration", seconds), cwd=folder, env=environment())
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_maxrss


def test_memory_does_not_grow_with_the_length(tmp_path):
    document(tmp_path, shown("pattern:bars?size=160x90&rate=25"), sound=["pattern:bars?tone=0"])
    assert peak(tmp_path, 60) <= 1.2 * peak(tmp_path, 10)


# --- images and the demonstration -------------------------------------------------------------------------------------


def test_a_see_through_image_lies_beside_the_document(tmp_path):
    folder = tmp_path / "project"
    folder.mkdir()
    rgba = np.zeros((36, 64, 4), np.uint8)
    rgba[:, :32] = (255, 255, 255, 255)
    rgba[:, 32:] = (255, 255, 255, 0)
    png = av.CodecContext.create("png", "w")
    png.width, png.height, png.pix_fmt, png.time_base = 64, 36, "rgba", Fraction(1)
    packets = [*png.encode(av.VideoFrame.from_ndarray(rgba, "rgba")), *png.encode(None)]
    (folder / "logo.png").write_bytes(b"".join(map(bytes, packets)))
    document(
        folder,
        {"node": "SolidColorNode", "red": 1},
        {
            "node": "ImageSourceNode",
            "filename": "logo.png",
            "destX": 32,
            "destY": 18,
            "destWidth": 64,
            "destHeight": 36,
        },
    )
    made(mashtun("render", "project/scene.json", "out.png", "--size", "128x72", cwd=tmp_path))
    with av.open(str(tmp_path / "out.png")) as container:
        (picture,) = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert np.abs(picture[36, 48].astype(int) - 255).max() <= 2
    assert np.abs(picture[36, 80].astype(int) - (255, 0, 0)).max() <= 2
    assert np.abs(picture[5, 5].astype(int) - (255, 0, 0)).max() <= 2


def test_flash_and_beep_of_the_test_media_are_what_they_say(tmp_path):
    flashes, beeps = flashes_and_beeps(flash_beep(tmp_path / "both.mkv"), 48_000)
    assert flashes.tolist() == beeps.tolist() == [0, 1]
