"""Uploaded images: whole or not at all, never outside their folder, loaded when a tree names them."""

from contextlib import asynccontextmanager

import numpy as np
import pytest
import trio

from engine.errors import InvalidSpec, NotFound
from engine.frame import black
from engine.images import MAX_BYTES, Images
from engine.sinks.still import encode_still

PNG, JPEG = encode_still(black(16, 10)), encode_still(black(8, 8), "mjpeg")


@asynccontextmanager
async def images(folder):
    async with trio.open_nursery() as nursery:
        made = Images(folder, limiter=trio.CapacityLimiter(1))
        nursery.start_soon(made.run)
        yield made
        nursery.cancel_scope.cancel()


async def loaded(made, filename):
    with trio.fail_after(30):
        while (frame := made.get(filename)) is None:
            await trio.sleep(0.001)
    return frame


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


@pytest.mark.parametrize("filename", ["../secret.png", "none.png", "", "a/b"])
async def test_a_tree_may_name_what_is_not_there(tmp_path, filename):
    (tmp_path / "secret.png").write_bytes(PNG)
    async with images(tmp_path / "images") as made:
        for _ in range(3):
            assert made.get(filename) is None
            await trio.sleep(0.01)
