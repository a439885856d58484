"""A render in a process of its own ends when it should, however that is, and nothing stays behind."""

import os
import signal
import subprocess
import sys

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import engine.child
from engine.child import Child
from engine.errors import Exhausted
from tests.engine.processes import renders
from tests.waiting import until

GRACE = 30  # seconds: what ends sooner was not killed
RED = '{"rootVideoNode": {"node": "SolidColorNode", "red": 1}}'


@pytest.fixture
def render(tmp_path):
    """A function: (child, seconds) → exit status."""
    (tmp_path / "scene.json").write_text(RED)

    async def run(child, seconds=0.1, *, out="film.mp4", report=lambda _: None):
        arguments = [str(tmp_path / "scene.json"), str(tmp_path / out), "--size=64x36", f"--duration={seconds}"]
        with trio.fail_after(GRACE - 5):
            return await child.run([*arguments, "--progress=json"], log=tmp_path / "log", report=report)

    return run


@pytest.fixture
async def child():
    made = Child()
    yield made
    await made.close()


async def test_one_render_after_the_other(render, child, tmp_path):
    told = []
    assert [await render(child, out=f"{n}.mp4", report=told.append) for n in range(3)] == [0, 0, 0]
    assert told[-1]["done"] == told[-1]["total"] == 3
    assert await render(child, out="film.avi") == 1
    assert "film.avi" in (tmp_path / "log").read_text()
    assert await render(child, seconds="x") == 2
    await child.close()
    assert await render(child) == 0


async def test_modules_of_the_folder_it_is_started_in_are_not_ours(render, child, tmp_path, monkeypatch):
    """Ours are found also where they are not installed, but only on the path of who starts it."""
    for name in ("queue.py", "engine/__init__.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("raise RuntimeError('somebody else is imported')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    assert await render(child) == 0


@pytest.mark.parametrize("delay", [0, 0.01, 0.03, 0.3])
async def test_cancelling_ends_the_render_at_once_and_leaves_nothing(render, child, tmp_path, delay, monkeypatch):
    monkeypatch.setattr(engine.child, "GRACE", GRACE)
    await render(child)
    with trio.fail_after(GRACE - 5):
        with trio.move_on_after(delay) as scope:
            await render(child, 100_000, out="long.mp4")
        assert scope.cancelled_caught
    assert not renders()
    assert not (tmp_path / "long.mp4").exists()
    assert not list(tmp_path.glob(".mashtun-*"))
    assert await render(child) == 0


async def test_a_stopped_render_is_ended_too(render, child, monkeypatch):
    monkeypatch.setattr(engine.child, "GRACE", GRACE)
    await render(child)
    with trio.fail_after(GRACE - 5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(render, child, 100_000)
            await until(renders)
            await child.signal(signal.SIGSTOP)
            await until(lambda: [state for _, state, _ in renders()] == ["T"])
            nursery.cancel_scope.cancel()
    assert not renders()


@pytest.mark.parametrize("is_warm", [True, False])
async def test_signals_that_come_at_once_reach_a_render_that_is_started_too(render, child, is_warm):
    if is_warm:
        await render(child)
    async with trio.open_nursery() as nursery:

        async def kill():
            await wait_all_tasks_blocked()
            for _ in range(3):
                nursery.start_soon(child.signal, signal.SIGKILL)

        nursery.start_soon(kill)
        assert await render(child, 100_000) == -signal.SIGKILL
    assert await render(child) == 0


async def test_a_render_that_does_not_listen_is_killed(render, child, monkeypatch):
    monkeypatch.setattr(engine.child, "GRACE", 0.2)
    heard = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # what is ignored stays so in a new process
    try:
        await render(child)
    finally:
        signal.signal(signal.SIGTERM, heard)
    with trio.fail_after(GRACE - 5), trio.move_on_after(0.3):
        await render(child, 100_000)
    assert not renders()
    assert await render(child) == 0


@pytest.mark.parametrize("victim", ["render", "parent"])
async def test_a_kill_is_a_status(render, child, victim):
    await render(child)
    async with trio.open_nursery() as nursery:

        async def kill():
            while not (found := renders()):
                await trio.sleep(0.01)
            pid, _, parent = found[0]
            os.kill(parent if victim == "parent" else pid, signal.SIGKILL)

        nursery.start_soon(kill)
        assert await render(child, 100_000) == -signal.SIGKILL
    assert await render(child) == 0


async def test_a_render_that_gets_no_process_has_not_begun(render, tmp_path):
    child = Child("tests.engine.crowded")
    try:
        for _ in range(2):
            with pytest.raises(Exhausted, match="no process for a render: resource temp"):
                await render(child)
    finally:
        await child.close()
    assert not (tmp_path / "log").exists()


def test_who_is_gone_has_no_renders(tmp_path):
    (tmp_path / "scene.json").write_text(RED)
    order = (
        f'{{"arguments": ["{tmp_path}/scene.json", "{tmp_path}/x.mp4", "--duration=100000"], "log": "{tmp_path}/log"}}'
    )
    command = [sys.executable, "-m", "engine.child"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdin.write(order.encode() + b"\n")
        process.stdin.flush()
        process.stdin.close()
        assert process.stdout.read() == b""
        assert process.wait(10) == 0
    assert not (tmp_path / "x.mp4").exists()
