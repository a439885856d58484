"""Jobs go through a real queue, a real child and a real render; what goes wrong is a sentence, never the worker."""

import errno
import json
import os
import signal
import stat
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote

import av
import msgspec
import pytest
import trio

import engine.jobrun
import engine.sinks.partial
import engine.worker
from api.queue import JobQueue
from engine.config import Settings
from engine.errors import Overloaded
from engine.jobdocument import raw, read
from engine.jobrun import PAUSED, RENDERING
from engine.jobs import FINAL
from engine.threads import in_thread
from engine.worker import Lag, Worker
from tests.descriptors import no_descriptors
from tests.engine.processes import renders
from tests.media import numbers
from tests.web import WebRequest, web_server

RED = {"rootVideoNode": {"node": "SolidColorNode", "id": "back", "red": 1}}
SMALL = {"width": 64, "height": 36, "frameRate": 10, "duration": 0.5}


def inline(tree):
    return "data:application/json," + quote(json.dumps(tree))


def job(tree=RED, *, assets=(), actions=None, **template):
    """A job; `template` over a small raster and half a second."""
    given = {"src": inline(tree), "composition": "*"} | SMALL | template
    body = {"template": given, "assets": list(assets), "actions": actions or {"prerender": [], "postrender": []}}
    return read(json.dumps(body).encode())


class Bench:
    """A queue on a folder, and workers."""

    def __init__(self, folder, queue, nursery):
        self.folder = folder
        self.queue = queue
        self.nursery = nursery

    def work(self, name="w1", **options):
        worker = Worker(self.queue, name, data=self.folder, **options)
        self.nursery.start_soon(worker.run)
        return worker

    async def add(self, body):
        (made,) = await self.queue.create([body], creator="test")
        return json.loads(made)["uid"]

    async def get(self, uid):
        return json.loads(await self.queue.whole(uid))

    async def until(self, uid, state):
        """The job as soon as its state is that, or one of those."""
        wanted = (state,) if isinstance(state, str) else state
        with trio.fail_after(60), self.queue.follow(uid) as feed:
            while (found := await self.get(uid))["state"] not in wanted:
                await feed.take()
        return found

    async def done(self, body):
        return await self.until(await self.add(body), FINAL)


@asynccontextmanager
async def bench_in(folder):
    queue = JobQueue(Settings(data=str(folder)))
    async with trio.open_nursery() as nursery:
        await nursery.start(queue.run)
        async with trio.open_nursery() as workers:
            yield Bench(folder, queue, workers)
            workers.cancel_scope.cancel()
        nursery.cancel_scope.cancel()


@pytest.fixture
async def bench(tmp_path):
    async with bench_in(tmp_path) as found:
        yield found


async def test_a_job_goes_all_the_way(bench):
    bench.work()
    found = await bench.done(job())
    assert (found["state"], found["renderProgress"], found["executor"]) == ("finished", 100, "w1")
    assert found["output"] == str(bench.folder / "outputs" / found["uid"] / "result.mp4")
    assert len(numbers(found["output"])) == 5
    assert {"render:setup", "render:download", RENDERING, "render:postrender"} <= found["timings"].keys()
    assert found["startedAt"] <= found["finishedAt"]
    assert not list((bench.folder / "work").iterdir())


async def test_assets_replace_sources_and_properties(bench, media):
    picture = {"node": "VideoSourceNode", "id": "shot", "streamGuid": "placeholder"}
    sound = {"node": "AudioSourceNode", "streamGuid": "placeholder"}
    tree = {"rootVideoNode": {"node": "CompositorNode", "nodes": [picture]}, "rootAudioNode": sound}
    assets = [
        {"type": "video", "layerName": "placeholder", "src": media.path("plain").as_uri()},
        {"type": "data", "layerName": "shot", "property": "destX", "value": 0},
    ]
    bench.work()
    found = await bench.done(job(tree, assets=assets, frameRate=30, frameStart=6, frameEnd=11))
    assert found["state"] == "finished", found.get("error")
    assert numbers(found["output"]) == [6, 7, 8, 9, 10, 11]


async def test_there_may_be_a_number_sign_and_a_question_mark_in_the_names_of_files(bench, media):
    document, take = bench.folder / "title #2?.json", bench.folder / "take #1?.mp4"
    document.write_text(json.dumps({"rootVideoNode": {"node": "VideoSourceNode", "streamGuid": "cam"}}))
    take.write_bytes(media.path("plain").read_bytes())
    assets = [{"type": "video", "layerName": "cam", "src": f"file://{take}"}]
    films = [
        {"module": "@nexrender/action-encode", "output": name, "params": {"-r": fps}}
        for name, fps in (("take #1?.mp4", 10), ("take #2?.mp4", 4))
    ]
    copy = {"module": "@nexrender/action-copy", "input": "take #1?.mp4"}
    copies = [copy | {"output": name} for name in ("final #1?.mp4", f"file://{bench.folder}/outputs/%231.mp4")]
    bench.work(writable=[bench.folder])
    found = await bench.done(job(src=f"file://{document}", assets=assets, actions={"postrender": [*films, *copies]}))
    assert found["state"] == "finished", found.get("error")
    folder = Path(found["output"]).parent
    assert sorted(each.name for each in folder.iterdir()) == ["final #1?.mp4", "take #1?.mp4", "take #2?.mp4"]
    assert [len(numbers(path)) for path in (folder / "final #1?.mp4", bench.folder / "outputs" / "#1.mp4")] == [5, 5]


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (job({"rootVideoNode": {"node": "Nothing"}}), "$.rootVideoNode"),
        (job({"rootVideoNode": {"node": "VideoSourceNode", "streamGuid": "cam"}}), 'source "cam" is neither an asset'),
        (job(frameRate=1000), "frame rate 1000 is not within"),
        (job(outputExt="avi"), ".avi"),
        (job(src="scene.json"), 'source "scene.json": no such file'),
        (job(assets=[{"type": "image", "layerName": "x", "src": "data:,x"}]), "no layer 'x' in the template"),
        (job(assets=[{"type": "script", "src": "file:///x.jsx"}]), "only runs in After Effects"),
        (job(actions={"postrender": [{"module": "left-pad"}], "prerender": []}), "module 'left-pad' is not one of"),
        (
            job(actions={"postrender": [{"module": "@nexrender/action-copy", "output": "/etc/x"}], "prerender": []}),
            "may not be written to",
        ),
        *(
            (
                job(actions={"postrender": [{"module": "@nexrender/action-copy", "output": name}], "prerender": []}),
                "is no path",
            )
            for name in ("x" * 300, "a\0b")
        ),
        *(
            (
                job({"rootVideoNode": {"node": "VideoSourceNode", "streamGuid": name}}),
                "is neither an asset of the job nor a file",
            )
            for name in ("x" * 300, "a\0b")
        ),
    ],
)
async def test_what_cannot_be_done_is_one_sentence(bench, body, sentence):
    bench.work()
    found = await bench.done(body)
    assert found["state"] == "error"
    assert sentence in found["error"]
    assert "\n" not in found["error"]


LONG = partial(job, duration=100_000)


async def test_a_killed_render_is_an_error_and_the_next_one_works(bench):
    bench.work()
    uid = await bench.add(LONG())
    await bench.until(uid, RENDERING)
    with trio.fail_after(60):
        while not renders():
            await trio.sleep(0.01)
    os.kill(renders()[0][0], signal.SIGKILL)
    found = await bench.until(uid, FINAL)
    assert (found["state"], found["error"]) == ("error", "the render was ended by SIGKILL")
    assert (await bench.done(job()))["state"] == "finished"


async def test_a_cancelled_job_ends_its_render(bench):
    bench.work()
    uid = await bench.add(LONG())
    await bench.until(uid, RENDERING)
    await bench.queue.put(uid, read(b'{"state": "error", "error": "cancelled"}'))
    with trio.fail_after(60):
        while renders():
            await trio.sleep(0.02)
    assert (await bench.get(uid))["error"] == "cancelled"
    assert (await bench.done(job()))["state"] == "finished"
    assert [each.name for each in (bench.folder / "outputs" / uid).iterdir()] == []


async def test_a_job_that_takes_too_long_is_ended(bench):
    bench.work()
    body = LONG()
    body["timeout"] = msgspec.Raw(b"1")
    found = await bench.done(body)
    assert "did not finish within 1 s" in found["error"]
    with trio.fail_after(60):
        while renders():
            await trio.sleep(0.02)


async def test_a_stopped_worker_gives_its_job_back(tmp_path):
    queue = JobQueue(Settings(data=str(tmp_path)))
    async with trio.open_nursery() as nursery:
        await nursery.start(queue.run)
        async with trio.open_nursery() as workers:
            bench = Bench(tmp_path, queue, workers)
            bench.work()
            uid = await bench.add(LONG())
            await bench.until(uid, RENDERING)
            workers.cancel_scope.cancel()
        assert (await bench.get(uid))["state"] == "queued"
        assert not renders()
        nursery.cancel_scope.cancel()


async def test_a_run_removes_what_earlier_runs_of_its_job_left(bench):
    uid = await bench.add(job())
    picked = await bench.queue.pick("killed", None)
    left = [bench.folder / "work" / name for name in (f"{uid}.{picked.run}", f"{uid}.1.{picked.run}", f"{uid}.film")]
    left.insert(0, bench.folder / "outputs" / uid / f".{uid}.{picked.run}")  # films on their way to another disk
    for folder in left:
        (folder / "films").mkdir(parents=True)
    await bench.queue.give_back(picked)
    bench.work()
    await bench.until(uid, FINAL)
    assert [folder.exists() for folder in left] == [False, False, True, True]


async def test_what_nobody_uses_goes_after_days_and_a_render_goes_on_when_the_clock_is_set(bench):
    work = bench.folder / "work"
    (work / "killed.1" / "films").mkdir(parents=True)
    bench.work()
    uid = await bench.add(LONG())
    await bench.until(uid, RENDERING)
    with trio.fail_after(60):
        while not (made := list(work.glob(f"{uid}.*/log"))):  # after which its folder stays as it is
            await trio.sleep(0.02)
    mine = made[0].parent
    for folder in work.iterdir():
        os.utime(folder, (0, 0))
    await trio.to_thread.run_sync(engine.jobrun.forget_old_runs, work)  # as any slot does, of any process
    assert list(work.iterdir()) == [mine]
    assert {"scene.json", "films"} <= {each.name for each in mine.iterdir()}


async def test_a_disk_without_locks_is_good_enough(bench, monkeypatch):
    def fails(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(engine.jobrun.fcntl, "flock", fails)
    left = bench.folder / "work" / "killed.1"
    left.mkdir(parents=True)
    os.utime(left, (0, 0))
    bench.work()
    assert (await bench.done(job()))["state"] == "finished"
    engine.jobrun.forget_old_runs(left.parent)
    assert left.exists()  # as far as anybody can tell it is in use


async def test_a_job_made_anew_under_the_name_of_a_removed_one_is_rendered(bench):
    for name in ("w1", "w2"):
        bench.work(name)
    for _ in range(3):
        uid = await bench.add({**LONG(), "uid": raw("same")})
        await bench.until(uid, RENDERING)
        await bench.queue.remove(uid)
        found = await bench.done({**job(), "uid": raw("same")})
        assert (found["state"], found.get("error")) == ("finished", None)
        assert len(numbers(found["output"])) == 5
        await bench.queue.remove(uid)


async def test_a_render_waits_while_live_mixers_lag(bench):
    lagging = False
    bench.work(busy=lambda: lagging)
    uid = await bench.add(LONG())
    await bench.until(uid, RENDERING)
    lagging = True
    await bench.until(uid, PAUSED)
    assert [state for _, state, _ in renders()] in (["T"], [])
    lagging = False
    await bench.until(uid, RENDERING)


async def test_actions_encode_copy_and_tell(bench):
    post = [
        {
            "module": "@nexrender/action-encode",
            "preset": "mp4",
            "output": "small.mp4",
            "params": {"-r": 5, "-b:v": "200k"},
        },
        {"module": "@nexrender/action-copy", "input": "small.mp4", "output": "copies/film.mp4"},
        {
            "module": "@nexrender/action-upload",
            "input": "small.mp4",
            "provider": "file",
            "params": {"path": "copies/again.mp4"},
        },
        {"module": "@nexrender/action-encode", "preset": "m4a", "output": "sound.m4a"},
    ]
    bench.work()
    found = await bench.done(job(actions={"prerender": [], "postrender": post}))
    assert found["state"] == "finished", found.get("error")
    folder = bench.folder / "outputs" / found["uid"]
    assert found["output"] == str(folder / "sound.m4a")
    assert sorted(str(each.relative_to(folder)) for each in folder.rglob("*") if each.is_file()) == [
        "copies/again.mp4",
        "copies/film.mp4",
        "small.mp4",
        "sound.m4a",
    ]


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        ({"-crf": 60}, "quality 60.0 is not within 0…51"),
        ({"-ar": 44100}, 'output "b.webm": libopus has no rate of 44100 Hz'),
        ({"-profile:v": "ultra"}, 'profile "ultra" is not one of'),
        ({"-preset": "slowest"}, 'preset "slowest" is not one of'),
        ({"-qmin": 50, "-qmax": 5}, "qpMin 50 is more than qpMax 5"),
        ({"-s": "0x0"}, "-s: width 0 is not within"),
        ({"-t": "00:00:05"}, '-t: "00:00:05" is not a number of seconds'),
        ({"-b:v": "fast"}, "-b:v: invalid int value: 'fast'"),
    ],
)
async def test_what_is_wrong_with_the_second_film_is_told_before_the_first_is_rendered(bench, params, sentence):
    films = {"b.webm": params, "a.mp4": {}}  # the last one is the job's output, and comes first
    encode = [{"module": "@nexrender/action-encode", "output": name, "params": films[name]} for name in films]
    bench.work()
    found = await bench.done(job(actions={"prerender": [], "postrender": encode}))
    assert (found["state"], found["renderProgress"]) == ("error", 0)
    assert found["error"].startswith(sentence)
    assert not list((bench.folder / "outputs" / found["uid"]).iterdir())


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        ({"frameRate": "fast"}, "template.frameRate: "),
        ({"width": 0}, "template: width 0 is not within"),
        ({"height": 0}, "template: height 0 is not within"),
        ({"audioChannels": "two"}, "template.audioChannels: invalid int value: 'two'"),
    ],
)
async def test_what_is_wrong_with_a_setting_is_told_by_the_name_that_it_has_in_the_job(bench, template, sentence):
    bench.work()
    found = await bench.done(job(**template))
    assert found["error"].startswith(sentence)


@pytest.mark.parametrize(
    ("template", "limit", "count"),
    [
        ({}, "5", 5),
        ({}, 999999, 5),
        ({}, "0.2", 2),
        ({"frameStart": 0, "frameEnd": 2}, 5, 3),
        ({"duration": None}, 5, 20),
        ({"duration": None}, 1, 10),
    ],
)
async def test_an_encode_action_may_end_a_film_sooner_and_makes_none_longer(bench, media, template, limit, count):
    tree = {"rootVideoNode": {"node": "VideoSourceNode", "streamGuid": "cam"}}
    assets = [{"type": "video", "layerName": "cam", "src": media.path("plain").as_uri()}]
    encode = {"module": "@nexrender/action-encode", "output": "a.mp4", "params": {"-t": limit}}
    bench.work()
    found = await bench.done(job(tree, assets=assets, actions={"postrender": [encode]}, **template))
    assert found["state"] == "finished", found.get("error")
    assert len(numbers(found["output"])) == count


@pytest.mark.parametrize("name", ["small.mp4", "small.webm", "small.png"])
@pytest.mark.parametrize("size", ["32x18", "128x36"])
async def test_an_encode_action_scales_the_whole_picture(bench, name, size):
    blue = {"node": "SolidColorNode", "blue": 1, "destX": 32, "destY": 0, "destWidth": 32, "destHeight": 36}
    tree = {"rootVideoNode": {"node": "CompositorNode", "nodes": [RED["rootVideoNode"], blue]}}
    encode = {"module": "@nexrender/action-encode", "output": name, "params": {"-s": size}}
    bench.work()
    found = await bench.done(job(tree, actions={"postrender": [encode]}))
    assert found["state"] == "finished", found.get("error")
    with av.open(found["output"]) as container:
        picture = next(container.decode(video=0)).to_ndarray(format="rgb24")
    height, width, _ = picture.shape
    assert f"{width}x{height}" == size
    assert [picture[height // 2, width * n // 8].argmax() for n in (1, 3, 5, 7)] == [0, 0, 2, 2]


async def test_a_film_is_copied_as_it_is_besides_being_encoded(bench):
    encode = {"module": "@nexrender/action-encode", "preset": "mp3", "output": "sound.mp3"}
    copy = {"module": "@nexrender/action-copy", "input": "result.mp4", "output": "master.mp4"}
    bench.work()
    found = await bench.done(job(actions={"prerender": [], "postrender": [encode, copy]}))
    assert found["state"] == "finished", found.get("error")
    folder = bench.folder / "outputs" / found["uid"]
    assert found["output"] == str(folder / "result.mp4")
    assert len(numbers(folder / "master.mp4")) == 5
    copy["input"] = "other.mp4"
    found = await bench.done(job(actions={"prerender": [], "postrender": [encode, copy]}))
    assert found["error"] == 'input "other.mp4" is not an output of this job'
    assert RENDERING not in found["timings"]


async def test_a_finished_film_and_its_copy_outlive_a_power_cut(bench, monkeypatch):
    """What is on the disk for sure is what was synced, as it was then: a file's content, a folder's names."""
    fsync, on_disk = os.fsync, {}

    def note(descriptor):
        fsync(descriptor)
        found = os.fstat(descriptor)
        if stat.S_ISDIR(found.st_mode):
            on_disk[found.st_ino] = {each.name for each in Path(f"/proc/self/fd/{descriptor}").iterdir()}
        else:
            on_disk[found.st_ino] = (found.st_size, found.st_mtime_ns)

    monkeypatch.setattr(os, "fsync", note)
    bench.work(writable=None)
    copies = [
        {"module": "@nexrender/action-copy", "output": str(output)}
        for output in ("copy.mp4", bench.folder / "kept" / "of" / "today" / "copy.mp4")
    ]
    found = await bench.done(job(actions={"prerender": [], "postrender": copies}))
    assert found["state"] == "finished", found.get("error")
    film = Path(found["output"])
    beside, kept = film.with_name("copy.mp4"), Path(copies[1]["output"])
    for path in (film, beside, kept):
        file = path.stat()
        assert on_disk.get(file.st_ino) == (file.st_size, file.st_mtime_ns)
        assert path.name in on_disk.get(path.parent.stat().st_ino, ())
    for folder in (film.parent, *kept.parents[:3]):
        assert folder.name in on_disk.get(folder.parent.stat().st_ino, ())


async def test_films_on_their_way_to_another_disk_are_left_where_they_were_when_that_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(engine.sinks.partial, "PIECE", 1 << 8)
    film = tmp_path / "work" / "a.1" / "films" / "result.mp4"
    film.parent.mkdir(parents=True)
    film.write_bytes(bytes(16 << 20))
    with TemporaryDirectory(dir="/dev/shm") as disk:
        if Path(disk).stat().st_dev == tmp_path.stat().st_dev:
            pytest.skip("all of this machine is one disk")
        outputs = Path(disk) / "a"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(in_thread, engine.jobrun._move_all, tmp_path / "work" / "a.1", outputs)
            with trio.fail_after(30):
                while not list(outputs.glob(".a.1/*")):
                    await trio.sleep(0)
            nursery.cancel_scope.cancel()
        assert not list(outputs.iterdir())
    assert film.stat().st_size == 16 << 20


async def test_two_slots_share_many_jobs(bench):
    for name in ("w1", "w2"):
        bench.work(name)
    uids = [await bench.add(job(duration=0.2)) for _ in range(12)]
    found = [await bench.until(uid, FINAL) for uid in uids]
    assert {each["state"] for each in found} == {"finished"}
    assert {each["executor"] for each in found} == {"w1", "w2"}


class _Listener(WebRequest):
    """Keeps all that it is told."""

    def do_POST(self):
        self.server.told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()


async def test_a_webhook_of_a_phase_is_told_that_phase(bench):
    bench.work(allow_private=True)
    phases = ("predownload", "postdownload", "prerender", "postrender")
    with web_server(_Listener) as server:
        server.told = []
        action = {"module": "@nexrender/action-webhook", "url": server.url}
        action["json"] = ["{job.state}", *(f"{{job.timings.render:{phase}}}" for phase in phases)]
        found = await bench.done(job(actions={phase: [action] for phase in phases}, duration=0.1))
    entered = [str(found["timings"][f"render:{phase}"]) for phase in phases]
    expected = [[f"render:{phase}", *entered[: n + 1], *[""] * (3 - n)] for n, phase in enumerate(phases)]
    assert (found["state"], server.told) == ("finished", expected)


@pytest.mark.parametrize(
    ("copies", "output"), [(["master.mp4"], "result.mp4"), ([], "small.mp4")], ids=["taken", "not taken"]
)
async def test_a_preview_is_no_master_and_all_are_told_the_same_output(bench, copies, output):
    """As with nexrender's own modules an encode action never takes the result's place, if anything takes that."""
    bench.work(allow_private=True)
    with web_server(_Listener) as server:
        server.told = []
        post = [
            {"module": "@nexrender/action-encode", "preset": "m4a", "output": "sound.m4a"},
            {"module": "@nexrender/action-encode", "output": "small.mp4", "params": {"-r": 5}},
            *({"module": "@nexrender/action-copy", "output": name} for name in copies),
            {"module": "@nexrender/action-webhook", "url": server.url, "json": ["{job.output}"]},
        ]
        found = await bench.done(job(actions={"postrender": post}))
    folder = bench.folder / "outputs" / found["uid"]
    assert (found["state"], found["output"]) == ("finished", str(folder / output)), found.get("error")
    assert server.told == [[found["output"]]]
    assert [len(numbers(folder / name)) for name in ("small.mp4", *copies)] == [3, *[5 for _ in copies]]


class _Files(WebRequest):
    """Gives one film, and keeps what it is given."""

    def do_GET(self):
        locked = self.path.startswith("/locked") and self.headers.get("Authorization") != "Bearer s3cret"
        self.send_response(401 if locked else 200)
        self.send_header("Content-Type", "video/mp4")
        self.end_headers()
        self.wfile.write(self.server.files.get(self.path, self.server.film))

    def do_PUT(self):
        self.server.taken[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(204)
        self.end_headers()

    def do_POST(self):
        self.do_PUT()


@pytest.fixture
def web(media):
    with web_server(_Files) as server:
        server.film, server.taken = media.path("plain").read_bytes(), {}
        server.files = {"/text": b"no film"}
        yield server


async def test_sources_come_and_films_go_by_http(bench, web):
    tree = {"rootVideoNode": {"node": "VideoSourceNode", "streamGuid": f"{web.url}/in?size=1"}}
    actions = {
        "predownload": [
            {"module": "@nexrender/action-webhook", "url": f"{web.url}/begin", "json": {"uid": "{job.uid}"}}
        ],
        "postrender": [
            {"module": "@nexrender/action-upload", "provider": "http", "params": {"url": f"{web.url}/out/{{job.uid}}"}},
            {"module": "@nexrender/action-webhook", "url": "http://127.0.0.1:1/nobody"},
        ],
    }
    bench.work(allow_private=True)
    found = await bench.done(job(tree, actions=actions, frameRate=30))
    assert found["state"] == "finished", found.get("error")
    assert numbers(found["output"]) == list(range(15))
    assert json.loads(web.taken["/begin"]) == {"uid": found["uid"]}
    assert web.taken[f"/out/{found['uid']}"] == (bench.folder / "outputs" / found["uid"] / "result.mp4").read_bytes()


async def test_a_document_and_assets_are_fetched_with_the_headers_of_their_params(bench, web):
    web.files["/locked.json"] = json.dumps({"rootVideoNode": {"node": "VideoSourceNode", "id": "shot"}}).encode()
    params = {"headers": {"Authorization": "Bearer s3cret"}, "method": "GET"}
    assets = [{"type": "video", "layerName": "shot", "src": f"{web.url}/locked.mp4", "params": params}]
    bench.work(allow_private=True)
    found = await bench.done(job(src=f"{web.url}/locked.json", params=params, assets=assets, frameRate=30))
    assert found["state"] == "finished", found.get("error")
    assert numbers(found["output"]) == list(range(15))


async def test_what_a_render_says_of_a_url_has_no_password(bench, web):
    url = f"{web.url.replace('//', '//me:s3cret@')}/text"
    bench.work(allow_private=True)
    found = await bench.done(job({"rootVideoNode": {"node": "VideoSourceNode", "streamGuid": url}}))
    assert found["error"] == f'source "{web.url}/text": not media that can be read'


async def test_private_addresses_are_not_asked(bench, web):
    tree = {"rootVideoNode": {"node": "VideoSourceNode", "streamGuid": f"{web.url}/in"}}
    bench.work()
    assert "is a private address" in (await bench.done(job(tree)))["error"]


async def test_static_files_stand_beside_the_document(bench, media):
    tree = {"rootVideoNode": {"node": "VideoSourceNode", "streamGuid": "clip.mp4"}}
    bench.work()
    asset = {"type": "static", "name": "clip.mp4", "src": media.path("plain").as_uri()}
    found = await bench.done(job(tree, assets=[asset], frameRate=30))
    assert found["state"] == "finished", found.get("error")
    (bench.folder / "project").mkdir()
    (bench.folder / "project" / "scene.json").write_text(json.dumps(tree))
    (bench.folder / "project" / "clip.mp4").write_bytes(media.path("plain").read_bytes())
    found = await bench.done(job(src="project/scene.json", frameRate=30, outputExt="png", frameStart=3))
    assert found["state"] == "finished", found.get("error")
    assert numbers(found["output"]) == [3]


@pytest.mark.parametrize("extension", ["mp4", ".mp4"])
async def test_a_static_file_is_called_by_its_name_and_its_extension(bench, media, extension):
    tree = {"rootVideoNode": {"node": "VideoSourceNode", "streamGuid": "brand.mp4"}}
    asset = {"type": "static", "name": "brand", "extension": extension, "src": media.path("plain").as_uri()}
    bench.work()
    found = await bench.done(job(tree, assets=[asset], frameRate=30))
    assert found["state"] == "finished", found.get("error")
    assert numbers(found["output"]) == list(range(15))


@pytest.mark.parametrize("behind", ["?v=1", "#t=1"])
async def test_a_static_file_is_called_as_it_lies_here_whatever_its_url_has_behind_that(bench, media, behind):
    tree = {"rootVideoNode": {"node": "VideoSourceNode", "streamGuid": "plain.mp4"}}
    asset = {"type": "static", "name": "x", "src": media.path("plain").as_uri() + behind}
    bench.work()
    found = await bench.done(job(tree, assets=[asset], frameRate=30))
    assert found["state"] == "finished", found.get("error")
    assert numbers(found["output"]) == list(range(15))


async def test_every_whole_percent_is_told():
    progress = engine.jobrun._Progress()
    for percent in range(1, 101):
        progress.put({"done": percent * 25, "total": 2500})
        assert await progress.take() == percent
    second = engine.jobrun._Progress(before=1, of=2)
    second.put({"done": 58, "total": 100})
    assert await second.take() == 79


async def test_other_jobs_are_never_touched(bench):
    bench.work()
    uid = await bench.add(job(src="file:///project.aepx"))
    assert (await bench.done(job()))["state"] == "finished"
    assert (await bench.get(uid))["state"] == "queued"


async def test_a_failed_job_is_tried_again_if_it_says_so(bench):
    bench.work()
    body = job(src="scene.json")
    body["maxAttempts"] = msgspec.Raw(b"2")
    found = await bench.done(body)
    assert (found["state"], found["attempts"]) == ("error", 2)


async def test_lag_is_over_some_time_after_the_last_missed_tick(autojump_clock):
    missed = 5
    lag = Lag(lambda: missed)
    assert not lag()
    missed = 6
    assert lag()
    await trio.sleep(1.9)
    assert lag()
    await trio.sleep(0.2)
    assert not lag()
    missed = 0
    assert not lag()


class Away:
    """A queue that is away now and then: of every two calls of a kind the first is not answered."""

    def __init__(self, queue):
        self.queue = queue
        self.asked = set()

    def __getattr__(self, name):
        async def ask(*given, **named):
            self.asked ^= {name}
            if name in self.asked:
                raise Overloaded(f"{name}: nobody is there")
            return await getattr(self.queue, name)(*given, **named)

        return ask


async def test_a_queue_that_is_away_now_and_then_hears_everything(bench, monkeypatch, caplog):
    monkeypatch.setattr(engine.worker, "AGAIN", (0.01, 0.02))
    bench.nursery.start_soon(Worker(Away(bench.queue), "w1", data=bench.folder).run)
    for body, state in ((job(), "finished"), (job(outputExt="avi"), "error"), (job(), "finished")):
        assert (await bench.done(body))["state"] == state
    assert "worker w1: finish: nobody is there; again in 0.01 s" in caplog.messages


async def test_a_bug_ends_a_job_and_not_its_worker(bench, monkeypatch, caplog):
    def broken(_):
        raise KeyError("x")

    bench.work()
    with monkeypatch.context() as patch:
        patch.setattr(engine.jobrun, "read_order", broken)
        assert (await bench.done(job()))["error"] == "a bug of the worker: KeyError"
    assert (await bench.done(job()))["state"] == "finished"
    assert "a bug" in caplog.text


async def test_a_worker_without_a_descriptor_says_so_in_one_sentence_and_goes_on(bench, monkeypatch, caplog):
    monkeypatch.setattr(engine.worker, "AGAIN", (0.01, 0.01))
    monkeypatch.setattr(engine.worker, "WAIT", 0.01)
    (bench.folder / "work").mkdir()
    with no_descriptors():
        bench.work()
        with trio.fail_after(30):
            while "w1" not in caplog.text:
                await trio.sleep(0.01)
    assert (await bench.done(job()))["state"] == "finished"
    assert f"worker w1: {bench.folder / 'work'}: too many open files" in caplog.messages
    assert "bug" not in caplog.text


@pytest.mark.parametrize("name", ["work", "outputs"])
async def test_a_worker_that_cannot_write_leaves_its_jobs_to_others_and_says_why(bench, monkeypatch, caplog, name):
    monkeypatch.setattr(engine.worker, "AGAIN", (0.01, 0.01))
    in_the_way = bench.folder / "bad" / name
    in_the_way.parent.mkdir()
    in_the_way.touch()
    uids = [await bench.add(job()) for _ in range(2)]
    bench.nursery.start_soon(Worker(bench.queue, "bad", data=in_the_way.parent).run)
    with trio.fail_after(30):
        while f"worker bad: {in_the_way}: " not in caplog.text:
            await trio.sleep(0.01)
    assert [(await bench.get(uid))["state"] for uid in uids] == ["queued"] * 2
    bench.work("good")
    assert [(await bench.until(uid, FINAL))["executor"] for uid in uids] == ["good"] * 2
    in_the_way.unlink()
    made = [await bench.done(job()) for _ in range(2)]
    assert {each["state"] for each in made} == {"finished"}


async def test_a_worker_that_cannot_write_still_tidies_up(bench):
    (bench.folder / "outputs").touch()
    left = bench.folder / "work" / "left.1"
    left.mkdir(parents=True)
    os.utime(left, (0, 0))
    bench.work()
    with trio.fail_after(30):
        while left.exists():
            await trio.sleep(0.01)


async def test_a_job_for_which_there_is_no_descriptor_does_not_blame_the_disk(bench, monkeypatch):
    def read_without(_):
        with no_descriptors():
            Path(os.devnull).read_bytes()

    monkeypatch.setattr(engine.jobrun, "read_order", read_without)
    bench.work()
    assert (await bench.done(job()))["error"] == "the worker: too many open files"


@pytest.mark.parametrize(
    ("child", "missing", "times"),
    [
        ("tests.engine.crowded", "no process for a render: resource temporarily unavailable", 3),
        ("tests.engine.threadless", "no thread to be had", 1),  # each takes its time
    ],
)
async def test_a_job_for_which_there_is_no_process_stays_in_the_queue_for_others(
    bench, caplog, monkeypatch, child, missing, times
):
    monkeypatch.setattr(engine.worker, "AGAIN", (0.01, 0.01))
    uids = [await bench.add(job() | {"maxAttempts": raw(1)}) for _ in range(2)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Worker(Away(bench.queue), "bad", data=bench.folder, child=child).run)
        with trio.fail_after(60):
            while caplog.text.count(f"worker bad: {missing}\n") < times:
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    assert [(await bench.get(uid))["state"] for uid in uids] == ["queued"] * 2
    assert not list((bench.folder / "work").iterdir())
    bench.work("good")
    found = [await bench.until(uid, FINAL) for uid in uids]
    assert [(each["state"], each["executor"], each["attempts"]) for each in found] == [("finished", "good", 1)] * 2
