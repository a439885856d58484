"""A reader who is slow hears the last of each thing, and nothing twice."""

import trio

from engine.newest import Newest


async def test_of_each_key_the_last_value_waits_in_the_order_of_these():
    newest = Newest()
    for key, value in (("a", 1), ("b", 2), ("a", 3), ("c", 4)):
        newest.put(key, value)
    assert await newest.take() == [2, 3, 4]
    newest.put("b", 5)
    assert await newest.take() == [5]


async def test_many_are_put_as_one_after_the_other():
    newest = Newest()
    newest.put_all({"a": 1, "b": 2})
    newest.put_all({"c": 3, "a": 4})
    newest.put_all({})
    assert await newest.take() == [2, 3, 4]


async def test_who_takes_waits_until_something_is_put(autojump_clock):
    newest = Newest()

    async def put_later():
        await trio.sleep(1)
        newest.put("a", 1)

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(put_later)
            assert await newest.take() == [1]
