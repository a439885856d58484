"""Uploaded images: whole or not at all, never outside their folder, loaded when a tree names them."""

from contextlib import asynccontextmanager, suppress
from functools import partial

import numpy as np
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from engine.errors import InvalidSpec, NotFound
from engine.frame import black
from engine.images import AGAIN, LINGER, MAX_BYTES, MAX_COMING, Images
from engine.sinks.still import encode_still
from engine.sources import still
from engine.sources.still import load_still
from tests.engine.slowdisk import slow_image

PNG, JPEG = encode_still(black(16, 10)), encode_still(black(8, 8), "mjpeg")


@asynccontextmanager
async def images(folder):
    async with trio.open_nursery() as nursery:
        made = Images(folder)
        nursery.start_soon(made.run)
        yield made
        nursery.cancel_scope.cancel()


async def loaded(made, filename):
    """The image. No deadline: a clock that jumps would be there before the thread that loads it."""
    for _ in range(100_000):
        if (frame := made.get(filename)) is not None:
            return frame
        await trio.sleep(0.001)
    raise AssertionError(filename)


async def test_what_was_uploaded_is_listed_and_there_after_a_restart(tmp_path):
    async with images(tmp_path / "images") as made:
        assert await made.infos() == []
        assert await made.add("logo.png", PNG) == "logo.png"
        assert await made.add("photo", JPEG) == "photo.jpg"  # the name says what it is
        assert [(info.filename, info.width, info.height) for info in await made.infos()] == [
            ("logo.png", 16, 10),
            ("photo.jpg", 8, 8),
        ]
        assert made.get("logo.png").width == 16
    async with images(tmp_path / "images") as made:
        assert made.get("logo.png") is None  # asks for it
        assert np.array_equal((await loaded(made, "logo.png")).y, black(16, 10).y)


async def test_an_image_of_the_same_name_takes_the_place_of_the_first(tmp_path):
    async with images(tmp_path) as made:
        await made.add("a.png", PNG)
        await made.add("a.png", encode_still(black(20, 20)))
        assert made.get("a.png").width == 20
        assert len(await made.infos()) == 1


async def test_a_removed_image_is_gone(tmp_path):
    async with images(tmp_path) as made:
        await made.add("a.png", PNG)
        await made.remove("a.png")
        assert await made.infos() == []
        assert made.get("a.png") is None
        with pytest.raises(NotFound, match=r"a\.png"):
            await made.remove("a.png")


async def test_of_images_uploaded_and_removed_at_once_under_one_name_the_one_that_is_kept_is_shown(tmp_path):
    made = Images(tmp_path)
    datas = [encode_still(black(size, size)) for size in (16, 20, 24, 28)]

    async def remove():
        with suppress(NotFound):
            await made.remove("a.png")

    for _ in range(40):
        async with trio.open_nursery() as nursery:
            for data in datas:
                nursery.start_soon(made.add, "a.png", data)
            nursery.start_soon(remove)
        frame, kept = made.get("a.png"), [info.width for info in await made.infos()]
        assert kept == ([] if frame is None else [frame.width])
        assert [load_still("a.png", str(path)).width for path in tmp_path.iterdir()] == kept


async def test_an_upload_whose_sender_hangs_up_is_shown_if_it_is_kept(tmp_path):
    async with images(tmp_path) as made:
        await made.add("a.png", PNG)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(made.add, "a.png", encode_still(black(20, 20)))
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert made.get("a.png").width == load_still("a.png", str(tmp_path / "a.png")).width == 20
        await made.remove("a.png")  # others may change it


async def test_a_list_looks_at_an_image_once_until_it_is_another(tmp_path, monkeypatch):
    looked = []
    monkeypatch.setattr(still, "_read", lambda *file, read=still._read: (looked.append(file[0]), read(*file))[1])
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(PNG)
    async with images(tmp_path) as made:
        for _ in range(3):
            assert [info.width for info in await made.infos()] == [16, 16]
        assert looked == ["a.png", "b.png"]
        await made.add("b.png", encode_still(black(20, 20)))
        (tmp_path / "c.jpg").write_bytes(JPEG)  # by another hand
        looked.clear()
        for _ in range(3):
            assert [info.width for info in await made.infos()] == [16, 20, 8]
        assert looked == ["b.png", "c.jpg"]


async def test_uploads_and_what_a_tree_names_do_not_wait_for_lists(tmp_path, monkeypatch):
    (tmp_path / "slow.png").write_bytes(PNG)
    with slow_image(monkeypatch, "slow.png") as slow:
        async with images(tmp_path) as made, trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(made.infos)
            await slow.begun.wait()
            await made.add("a.png", PNG)
            (tmp_path / "b.png").write_bytes(PNG)
            assert (await loaded(made, "b.png")).width == 16
            await made.remove("a.png")
            assert slow.readers == 1  # of eight lists
            slow.release()


async def test_the_end_waits_for_no_image_that_is_read_for_a_list_or_a_tree(tmp_path, monkeypatch):
    (tmp_path / "slow.png").write_bytes(PNG)
    with slow_image(monkeypatch, "slow.png") as slow:
        for asks in (Images.infos, partial(loaded, filename="slow.png")):
            slow.begun = trio.Event()
            async with images(tmp_path) as made, trio.open_nursery() as nursery:
                nursery.start_soon(asks, made)
                await slow.begun.wait()
                nursery.cancel_scope.cancel()
        assert slow.readers == 2


@pytest.mark.parametrize(
    ("filename", "data"),
    [
        ("a.png", b""),
        ("a.png", b"hello"),
        ("a.png", PNG[:40]),
        ("a.svg", b"<svg/>"),
        ("../a.png", PNG),
        ("a/b.png", PNG),
        (".hidden.png", PNG),
        ("a\0.png", PNG),
        ("x" * 300 + ".png", PNG),
        ("a.png", b"\x89PNG\r\n\x1a\n" + bytes(MAX_BYTES)),
    ],
)
async def test_what_is_no_image_or_no_name_is_refused_and_nothing_is_left(tmp_path, filename, data):
    async with images(tmp_path / "images") as made:
        with pytest.raises(InvalidSpec):
            await made.add(filename, data)
        assert await made.infos() == []
    assert not (tmp_path / "images").exists() or list((tmp_path / "images").iterdir()) == []


async def test_an_image_that_comes_after_it_was_named_is_shown(tmp_path, caplog, autojump_clock):
    async with images(tmp_path) as made:
        for _ in range(100_000):
            assert made.get("late.png") is None
            if caplog.records:
                break
            await trio.sleep(0.001)
        for _ in range(3):
            await trio.sleep(AGAIN)
            assert made.get("late.png") is None
        (tmp_path / "late.png").write_bytes(PNG)
        assert (await loaded(made, "late.png")).width == 16
    assert len(caplog.records) == 1


async def test_images_that_nobody_names_any_more_leave_the_memory_but_no_others(tmp_path, monkeypatch, autojump_clock):
    monkeypatch.setattr("engine.images.MAX_LOADED", 3 * 240)  # an image of 16×10 has 240 bytes
    async with images(tmp_path) as made:
        for n in range(3):
            await made.add(f"{n}.png", PNG)
        await trio.sleep(LINGER + 1)
        assert made.get("0.png") is not None
        await made.add("3.png", PNG)
        await made.add("4.png", PNG)
        await made.add("5.png", PNG)  # too much, but all of it was named just now
        assert [made.get(f"{n}.png") is not None for n in range(6)] == [True, False, False, True, True, True]
        assert (await loaded(made, "1.png")).width == 16


@pytest.mark.parametrize("filename", ["../secret.png", "none.png", "", "a/b"])
async def test_a_tree_may_name_what_is_not_there(tmp_path, filename):
    (tmp_path / "secret.png").write_bytes(PNG)
    async with images(tmp_path / "images") as made:
        for _ in range(3):
            assert made.get(filename) is None
            await trio.sleep(0.01)


async def test_what_comes_is_loaded_before_its_time_but_not_too_much_at_once(tmp_path):
    names = [f"{n}.png" for n in range(3 * MAX_COMING)]
    for name in names:
        (tmp_path / name).write_bytes(PNG)
    async with images(tmp_path) as made:
        for name in names:
            made.expect(name)
        assert made.get(names[-1]) is None  # what is on is asked for however much comes
        for name in (*names[:MAX_COMING], names[-1]):
            assert await loaded(made, name)
        assert made._known.keys() == {*names[:MAX_COMING], names[-1]}
