"""Jobs through a whole server: what it has answered outlives it; what is asked of it is rendered, and can be ended."""

import json
import os
import re
import resource
import shutil
import signal
import socket
import sqlite3
import subprocess
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import av
import numpy as np
import pytest

from api.commands import main
from tests.engine.processes import renders, warm
from tests.flows.killing import kill_again_and_again
from tests.flows.live import PATIENCE, SMALL_DISK, Film, Process, Server, can_mount, shoot, until
from tests.media import plane, read_number
from tests.web import WebRequest, web_server

pytestmark = pytest.mark.flow

RED = {"rootVideoNode": {"node": "SolidColorNode", "id": "box", "red": 1}}
SMALL = {"composition": "main", "width": 64, "height": 36, "frameRate": 10, "duration": 0.3}
FINAL = ("finished", "error")


def src(document):
    return {"src": "data:application/json," + quote(json.dumps(document))}


def template(tree, **more):
    return src(tree) | SMALL | more


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with Server(tmp_path_factory.mktemp("server"), MASHTUN_WORKER="2") as found:
        yield found


def add(server, tree=RED, **fields):
    """The uid of a new job."""
    more = fields.pop("template", {})
    return server.done("POST", "/api/v1/jobs", {"template": template(tree, **more), **fields})["uid"]


def job(server, uid):
    return server.done("GET", f"/api/v1/jobs/{uid}")


def when(server, uid, *states):
    """The job as soon as it is in one of these states."""
    return until(lambda: found if (found := job(server, uid))["state"] in states else None)


def states(server):
    """Of the processes that render, as the kernel calls them."""
    return [state for _, state, _ in renders(server.process.pid)]


# --- films -----------------------------------------------------------------------------------------------------------

# The upper half shows a source, the lower one a colour.
HALVES = {
    "rootVideoNode": {
        "node": "CompositorNode",
        "nodes": [
            {"node": "VideoSourceNode", "id": "shot", "streamGuid": "", "destWidth": 64, "destHeight": 36},
            {"node": "SolidColorNode", "id": "box", "destY": 36, "destWidth": 64, "destHeight": 36},
        ],
    }
}
LUMA = {"red": 63, "green": 173, "blue": 32}  # BT.709, limited


def test_every_film_of_many_has_its_own_source_and_colour(server, tmp_path):
    asked = {}
    for n in range(12):
        base, colour = 100 * (n % 3 + 1), list(LUMA)[n % 4 % 3]
        film = tmp_path / f"{base}.flv"
        if not film.exists():
            shoot(film, Film(base=base, audio=None), 1)
        assets = [
            {"type": "video", "layerName": "shot", "src": film.as_uri()},
            {"type": "data", "layerName": "box", "property": colour, "value": 1},
        ]
        uid = add(server, HALVES, template={"height": 72, "frameRate": 30}, assets=assets)
        asked[uid] = [(base + number, LUMA[colour]) for number in range(9)]
    found = {uid: when(server, uid, *FINAL) for uid in asked}
    assert {each["state"] for each in found.values()} == {"finished"}, found
    assert len({each["executor"] for each in found.values()}) == 2
    assert {uid: pictures(each["output"]) for uid, each in found.items()} == asked


def pictures(path):
    """(number in the upper half, luma of the lower one) of every picture."""
    with av.open(path) as container:
        lumas = [plane(frame) for frame in container.decode(video=0)]
    return [(read_number(luma[:36]), round(float(np.median(luma[40:])))) for luma in lumas]


# --- ends ------------------------------------------------------------------------------------------------------------


def test_a_cancelled_render_ends_and_leaves_nothing(server):
    uid = add(server, template={"duration": 100_000})
    when(server, uid, "render:dorender")
    until(lambda: states(server))
    server.done("PUT", f"/api/v1/jobs/{uid}", {"state": "error", "error": "cancelled"})
    until(lambda: not states(server), 4)  # less than until it would be killed
    assert (job(server, uid)["state"], job(server, uid)["error"]) == ("error", "cancelled")
    until(lambda: not list((server.folder / "data" / "work").iterdir()))
    assert not list((server.folder / "data" / "outputs" / uid).iterdir())


def test_a_render_without_memory_is_an_error_and_the_next_one_works(server):
    when(server, add(server), "finished")
    parents = until(lambda: warm(server.process.pid))
    for pid in parents:
        size = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()
        resource.prlimit(pid, resource.RLIMIT_AS, (size + (300 << 20), resource.RLIM_INFINITY))
    found = when(server, add(server, template={"width": 7680, "height": 4320}), *FINAL)
    assert found["state"] == "error"
    assert "\n" not in found["error"]
    assert when(server, add(server), *FINAL)["state"] == "finished"


def test_renders_wait_while_a_live_mix_lags(server):
    server.done("POST", "/brewmixer/2.0/mixers/mix", {"path": "live", "streamName": "mix", "width": 64, "height": 36})
    uid = add(server, template={"duration": 100_000})
    when(server, uid, "render:dorender")
    server.signal(signal.SIGSTOP)  # the mix misses its slots
    with suppress(subprocess.TimeoutExpired):
        server.process.wait(0.7)
    server.signal(signal.SIGCONT)
    when(server, uid, "render:paused")
    until(lambda: states(server) == ["T"])
    when(server, uid, "render:dorender")
    server.done("DELETE", f"/api/v1/jobs/{uid}")
    server.ask("DELETE", "/brewmixer/2.0/mixers/mix")
    until(lambda: not states(server))


# --- what is lost, and what is not -----------------------------------------------------------------------------------


def test_what_was_answered_outlives_the_server(tmp_path):
    """One kill; `python -m tests.flows.killing` does as many as are wanted."""
    assert kill_again_and_again(tmp_path, trials=1, seed=2).startswith("1 kills in ")


def test_a_data_folder_has_one_server_and_the_next_waits_for_the_end_of_the_last(tmp_path):
    arguments = ["-m", "api", "serve", "--port", 0, "--rtmp-port", 0, "--data", tmp_path / "data"]
    with Server(tmp_path) as server, (tmp_path / "log").open("wb") as log:
        with Process(*arguments, log=log) as second:
            assert second.wait() == 1
        assert (tmp_path / "log").read_text().endswith('data" is in use by a server\n')
        with Process(*arguments, log=log) as third:
            server.signal(signal.SIGTERM)
            assert server.wait() == 0
            assert third.line().startswith("mashtun: http://")
            third.signal(signal.SIGKILL)  # takes nothing along
            third.wait()
            with Server(tmp_path) as fourth:
                assert fourth.done("GET", "/api/v1/jobs") == []


QUICK = """
import sys
import engine.worker
from api.commands import main
engine.worker.LEASE = 1.0
sys.exit(main())
"""


def test_a_job_of_a_worker_elsewhere_that_is_killed_comes_back(tmp_path):
    with Server(tmp_path / "there", MASHTUN_WORKER="0") as server:
        uid = add(server, template={"duration": 100_000})
        with Process(
            "-c", QUICK, "worker", "--server", server.http, "--name", "far", "--data", tmp_path / "far"
        ) as far:
            assert when(server, uid, "render:dorender")["executor"] == "far"
            far.signal(signal.SIGKILL)
        assert when(server, uid, "queued")["state"] == "queued"


@pytest.fixture(scope="module")
def mountable():
    """For tests of what only a small disk shows."""
    if not can_mount():
        pytest.skip("no disk can be mounted here")


def test_a_full_disk_takes_no_job_and_loses_none(tmp_path):
    with Server(tmp_path, before=SMALL_DISK.format(data=str(tmp_path / "data"), size=2 << 20)) as server:
        taken = []
        while True:
            body = {"template": {"src": "file:///a.aepx", "composition": "x"}, "mine": "x" * 50_000}
            status, answer = server.ask("POST", "/api/v1/jobs", body)
            if status != 200:
                break
            taken.append(answer["uid"])
        assert (status, b"\n" in answer) == (503, False)
        assert [each["uid"] for each in server.done("GET", "/api/v1/jobs")] == taken
        assert len(taken) > 3
        assert server.ask("GET", "/api/v1/jobs/pickup?kind=project")[0] in (200, 503)
        server.process.kill()
        server.wait()
    copy = sqlite3.connect(tmp_path / "data" / "mashtun.db") if (tmp_path / "data" / "mashtun.db").exists() else None
    if copy is not None:  # where the disk is more than the process that mounted it
        assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        copy.close()


def test_a_render_for_which_the_disk_has_no_room_says_so(tmp_path, mountable):
    data = tmp_path / "data"
    with Server(tmp_path, before=SMALL_DISK.format(data=str(data), size=40 << 20)) as server:
        seen = Path(f"/proc/{server.process.pid}/root{data}")  # by the process that mounted it
        tree = {"rootVideoNode": {"node": "VideoSourceNode", "streamGuid": "pattern:count"}}
        big = template(tree, width=640, height=360, duration=1000, quality=5)
        uid = server.done("POST", "/api/v1/jobs", {"template": big})["uid"]
        when(server, uid, "render:dorender")
        with (seen / "full").open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
            while True:
                file.write(bytes(65536))
        until(lambda: f"job {uid}: the worker's disk: no space" in server.log.read_text())
        (seen / "full").unlink()
        found = when(server, uid, "error", "finished")
        assert (found["state"], "no space left on device" in found["error"].splitlines()[-1]) == ("error", True)


def test_a_render_for_which_the_disk_has_one_file_too_few_says_so(tmp_path, mountable):
    data = tmp_path / "data"
    disk = SMALL_DISK.format(data=str(data), size=20 << 20).replace("size=", "nr_inodes=40,size=")
    with Server(tmp_path, before=disk) as server:
        seen = Path(f"/proc/{server.process.pid}/root{data}")  # by the process that mounted it
        assert when(server, add(server), *FINAL)["state"] == "finished"
        made = []
        for free in range(4, 20):  # each of them is the last one for another step
            while os.statvfs(seen).f_ffree > free:
                made.append(seen / f"more{len(made)}")
                made[-1].touch()
            while os.statvfs(seen).f_ffree < free:
                made.pop().unlink()
            if "error" not in (found := when(server, add(server), *FINAL)):
                break
            assert "no space left" in found["error"], free
        assert 4 < free < 19


FULL = """
import sys
import engine.worker
from api.commands import main
engine.worker.AGAIN = 0.05, 0.05
if mounted:
    open({file!r}, "wb").write(bytes({size}))
sys.exit(main())
"""


def test_a_worker_whose_disk_is_full_takes_no_job_until_there_is_room(tmp_path, mountable):
    """And ends at once when it is told to."""
    data, log = tmp_path / "bad", tmp_path / "log"
    disk = SMALL_DISK.format(data=str(data), size=8 << 20) + FULL.format(file=str(data / "full"), size=8 << 20)
    with Server(tmp_path, MASHTUN_WORKER="0") as server, log.open("wb") as file:
        uids = [add(server) for _ in range(2)]
        work = ["worker", "--server", server.http, "--name", "bad", "--slots", 2, "--data", data]
        with Process("-c", disk, *work, log=file) as bad:
            assert bad.line() == "mashtun: 2 slots"
            seen = Path(f"/proc/{bad.process.pid}/root{data}")  # by the process that mounted it
            for sentence in (f"worker bad-{n}: {data}/work: no space left on device\n" for n in (1, 2)):
                until(lambda sentence=sentence: sentence in log.read_text())
            assert [job(server, uid)["state"] for uid in uids] == ["queued"] * 2
            (seen / "full").unlink()
            assert [when(server, uid, *FINAL)["state"] for uid in uids] == ["finished"] * 2
            (seen / "full").write_bytes(bytes(os.statvfs(seen).f_bavail * os.statvfs(seen).f_bsize))
            bad.signal(signal.SIGTERM)
            assert bad.wait() == 0


class _Answers(WebRequest):
    """``/N/…`` is a file of N MiB."""

    def do_GET(self):
        self.server.asked.append(self.path)
        size = int(self.path.split("/")[1]) << 20
        self.send_response(200)
        self.send_header("Content-Length", str(size))
        self.end_headers()
        self.wfile.write(bytes(size))


@pytest.fixture
def small(tmp_path, mountable):
    """A server whose data folder is a disk of 48 MiB, that disk, what renders with a download of so many MiB, and the
    addresses that were asked for.
    """
    disk = SMALL_DISK.format(data=str(tmp_path / "data"), size=48 << 20)
    with Server(tmp_path, before=disk, MASHTUN_ALLOW_PRIVATE="1") as server, web_server(_Answers) as web:
        web.asked = []
        seen = Path(f"/proc/{server.process.pid}/root{tmp_path}/data")  # by the process that mounted it

        def download(size, name):
            asset = {"type": "static", "src": f"{web.url}/{size}/{name}", "name": name}
            return when(server, add(server, assets=[asset]), *FINAL)

        yield server, seen, download, web.asked


def test_downloads_that_are_kept_leave_as_much_room_as_they_take(small):
    _, seen, download, _ = small
    for size, name in ((6, "a"), (6, "b"), (6, "c"), (6, "d"), (26, "e"), (6, "f")):  # e is more than may be kept
        assert download(size, name)["state"] == "finished"
        kept = sum(each.stat().st_size for each in (seen / "cache").iterdir())
        assert (6 << 20) < kept < shutil.disk_usage(seen).free


def test_a_download_has_the_room_of_all_that_are_kept(small):
    _, _, download, asked = small
    for size, name in ((6, "a"), (6, "b"), (6, "c"), (36, "d")):
        assert download(size, name).get("error") is None
    assert download(80, "e")["error"].endswith("no space left on device")
    assert asked.count("/36/d") == 2  # there was room for it behind the others
    assert asked.count("/80/e") == 1


def test_a_disk_that_has_filled_up_has_room_again_in_the_place_of_downloads(small):
    server, seen, download, _ = small
    for name in "ab":
        assert download(6, name)["state"] == "finished"
    with (seen / "full").open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(bytes(65536))
    os.truncate(seen / "full", (seen / "full").stat().st_size - (512 << 10))  # enough for jobs, and not to take one
    assert [when(server, add(server), *FINAL)["state"] for _ in range(2)] == ["finished"] * 2  # one is waited for now


COLOUR = {"contentId": "com.moviemasher.content.default", "timing": "custom", "frames": 20, "content": {}}


def test_a_disk_of_their_own_that_has_no_room_for_films_has_none_of_them(tmp_path, mountable):
    outputs = tmp_path / "data" / "outputs"
    outputs.parent.mkdir()
    with Server(tmp_path, before=SMALL_DISK.format(data=str(outputs), size=32 << 10)) as server:
        seen = Path(f"/proc/{server.process.pid}/root{outputs}")  # by the process that mounted it
        pictures = {"mash": {"quantize": 10, "tracks": [{"clips": [COLOUR]}]}, "definitions": []}
        for big in (template(RED, outputExt="wav"), src(pictures) | {"composition": "imagesequence"}):
            uid = server.done("POST", "/api/v1/jobs", {"template": big})["uid"]
            assert when(server, uid, *FINAL).get("error") == "the worker's disk: no space left on device"
            assert list((seen / uid).iterdir()) == []
        uid = add(server)
        assert when(server, uid, *FINAL)["state"] == "finished"
        assert [each.name for each in (seen / uid).iterdir()] == ["result.mp4"]


# --- commands --------------------------------------------------------------------------------------------------------


NEXT = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize(
    ("head", "pieces", "answers"),
    [
        ("Connection: close\r\n", (b"\r\n",), 1),
        ("Connection: close\r\n", (NEXT,), 1),
        ("", (b"\r\n" + NEXT,), 2),
        ("", (b"\n", b"\r\n\r", b"\n", NEXT), 2),
    ],
    ids=("at-once", "more-than-the-last", "keep-alive", "keep-alive-in-pieces"),
)
def test_a_blank_line_behind_a_body_means_nothing(server, head, pieces, answers):
    body = json.dumps({"uid": "old-client", "template": {"src": "file:///x.aep", "composition": "c"}})
    said = f"POST /api/v1/jobs HTTP/1.1\r\nHost: x\r\n{head}Content-Length: {len(body)}\r\n\r\n{body}"
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.sendall(said.encode() + pieces[0])
        for piece in pieces[1:]:
            client.sendall(piece)
        heard = client.makefile("rb").read()
    assert re.findall(rb"HTTP/1.1 (\d+)", heard) == [b"200"] * answers
    assert server.done("DELETE", "/api/v1/jobs/old-client")["removed"]


def test_a_backup_and_an_import_need_no_stop(server, tmp_path, capsys):
    uid = add(server)
    data = str(server.folder / "data")
    theirs = [
        {"uid": "from-there", "state": "queued", "template": {"src": "file:///a.aep", "composition": "c"}, "x": 1}
    ]
    (tmp_path / "database.js").write_text(json.dumps(theirs))
    assert main(["import-nexrender", "--data", data, str(tmp_path / "database.js")]) == 0
    assert capsys.readouterr().out == "1 jobs taken, 0 left out\n"
    assert job(server, "from-there")["x"] == 1
    assert server.done("GET", "/api/v1/jobs/pickup?kind=project")["uid"] == "from-there"
    assert main(["backup", "--data", data, str(tmp_path / "copy.db")]) == 0
    copy = sqlite3.connect(tmp_path / "copy.db")
    assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert {"from-there", uid} <= {each for (each,) in copy.execute("SELECT uid FROM jobs")}
    copy.close()
    nowhere = str(tmp_path / "nosuch")
    for arguments in (["backup", "--data", nowhere, nowhere], ["import-nexrender", "--data", data, nowhere]):
        assert main(arguments) == 1
        sentence = capsys.readouterr().err
        assert (sentence[:9], sentence.count("\n")) == ("mashtun: ", 1)
        assert ": no such " in sentence
