"""Jobs go through a real queue, a real child and a real render; what goes wrong is a sentence, never the worker."""

import json
import os
import signal
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from urllib.parse import quote

import msgspec
import pytest
import trio

from api.queue import JobQueue
from engine.config import Settings
from engine.fetch import Fetcher
from engine.jobs import FINAL, read
from engine.worker import PAUSED, RENDERING, Worker
from tests.media import numbers

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
        fetcher = Fetcher(base=self.folder, cache=self.folder / "cache", allow_private=True)
        worker = Worker(self.queue, name, data=self.folder, **{"fetcher": fetcher} | options)
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
        with trio.fail_after(20), self.queue.follow(uid) as feed:
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
    ],
)
async def test_what_cannot_be_done_is_one_sentence(bench, body, sentence):
    bench.work()
    found = await bench.done(body)
    assert found["state"] == "error"
    assert sentence in found["error"]
    assert "\n" not in found["error"]


def renders():
    """Processes of renders that this process's workers run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = path.read_text()
            pid, parent, state = (
                int(text.split()[0]),
                int(text.rpartition(")")[2].split()[1]),
                text.rpartition(")")[2][1],
            )
            above = Path(f"/proc/{parent}/cmdline").read_bytes()
            if b"engine.child" in above and Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()[
                1
            ] == str(os.getpid()):
                found.append((pid, state))
        except (OSError, IndexError):
            continue
    return found


LONG = partial(job, duration=100_000)


async def test_a_killed_render_is_an_error_and_the_next_one_works(bench):
    bench.work()
    uid = await bench.add(LONG())
    await bench.until(uid, RENDERING)
    with trio.fail_after(10):
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
    with trio.fail_after(10):
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
    with trio.fail_after(10):
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


async def test_a_render_waits_while_live_mixers_lag(bench):
    lagging = False
    bench.work(busy=lambda: lagging)
    uid = await bench.add(LONG())
    await bench.until(uid, RENDERING)
    lagging = True
    await bench.until(uid, PAUSED)
    assert [state for _, state in renders()] in (["T"], [])
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
        {"module": "@nexrender/action-upload", "provider": "file", "params": {"path": "copies/again.mp4"}},
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


async def test_two_slots_share_many_jobs(bench):
    for name in ("w1", "w2"):
        bench.work(name)
    uids = [await bench.add(job(duration=0.2)) for _ in range(12)]
    found = [await bench.until(uid, FINAL) for uid in uids]
    assert {each["state"] for each in found} == {"finished"}
    assert {each["executor"] for each in found} == {"w1", "w2"}
