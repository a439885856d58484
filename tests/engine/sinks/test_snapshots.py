"""Snapshots of streams: however many ask, a picture is encoded once, who waits gets the newest, and nothing is kept."""

import threading
import weakref
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from engine.errors import ActorGone
from engine.frame import black
from engine.sinks.snapshots import Snapshots


@asynccontextmanager
async def snapshots():
    """Those who ask have two minutes: more than any machine takes, and less than for ever."""
    made = Snapshots()
    with trio.fail_after(120):
        async with trio.open_nursery() as nursery:
            yield made, nursery
    made.close()


async def held(made):
    """Keeps the thread from what is asked for until the event is set."""
    release = threading.Event()
    await made._threads.begin(release.wait)
    return release


async def ask(made, picture, found, stream="live/a"):
    found.append(await made.jpeg(stream, picture))


async def test_a_picture_is_encoded_once_for_all_who_ask_for_it_meanwhile():
    found, picture = [], black(64, 36)
    async with snapshots() as (made, nursery):
        for _ in range(50):
            nursery.start_soon(ask, made, picture, found)
    assert len(found) == 50
    assert found[0].startswith(b"\xff\xd8")
    assert all(each is found[0] for each in found)


async def test_who_waits_gets_the_newest_picture_that_was_asked_for():
    found = []
    async with snapshots() as (made, nursery):
        release = await held(made)
        for width in (64, 80, 96, 112):
            nursery.start_soon(ask, made, black(width, 36), found)
            await wait_all_tasks_blocked()
        release.set()
    first, *others = found
    assert len(others) == 3
    assert all(each is others[0] and each != first for each in others)


async def test_one_stream_is_not_shown_as_another_and_the_next_picture_not_as_the_last():
    found = []
    async with snapshots() as (made, _):
        for width, stream in ((64, "live/a"), (80, "live/a"), (96, "live/b")):
            await ask(made, black(width, 36), found, stream)
    assert len(set(found)) == 3


async def test_no_picture_is_kept_when_nobody_asks():
    picture = black(64, 36)
    known = weakref.ref(picture)
    async with snapshots() as (made, _):
        await made.jpeg("live/a", picture)
        del picture
        assert known() is None
        assert not made._asked


async def test_who_hangs_up_keeps_nobody_waiting():
    found, picture = [], black(64, 36)
    async with snapshots() as (made, nursery):
        release = await held(made)
        async with trio.open_nursery() as impatient:
            impatient.start_soon(ask, made, picture, [])
            await wait_all_tasks_blocked()
            for _ in range(3):
                nursery.start_soon(ask, made, picture, found)
            await wait_all_tasks_blocked()
            impatient.cancel_scope.cancel()
            release.set()
    assert len(found) == 3


async def test_who_waits_behind_the_picture_of_another_stream_can_go_at_once():
    found = []
    async with snapshots() as (made, nursery):
        release = await held(made)
        nursery.start_soon(ask, made, black(64, 36), found)
        await wait_all_tasks_blocked()
        with trio.fail_after(30):
            async with trio.open_nursery() as impatient:
                for n in range(3):
                    impatient.start_soon(ask, made, black(64, 36), found, f"live/{n}")
                await wait_all_tasks_blocked()
                impatient.cancel_scope.cancel()
        assert not found
        release.set()
    assert len(found) == 1


async def test_whose_turn_comes_after_the_end_is_told_so():
    async with snapshots() as (made, _):
        made.close()
        with pytest.raises(ActorGone, match="no more snapshots"):
            await made.jpeg("live/a", black(64, 36))
