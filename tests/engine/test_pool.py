"""BufferPool: a slot comes home by itself, when the last view of it dies, in whichever thread that is."""

import gc
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

import engine.pool
from engine.pool import KEEP, BufferPool


def test_a_slot_comes_home_with_the_last_view_and_is_used_again():
    pool = BufferPool(24)
    array = pool.take()
    assert array.shape == (24,)
    assert array.flags.writeable
    array[:] = 7
    view = array.reshape(4, 6)[1:, ::2]
    raw = memoryview(view)
    address = array.ctypes.data
    del array
    assert not pool._free
    del view
    assert not pool._free
    raw.release()
    del raw
    gc.collect()
    assert len(pool._free) == 1
    assert pool.take().ctypes.data == address


def test_read_only_frame_comes_home_writable():
    pool = BufferPool(8)
    array = pool.take()
    array.flags.writeable = False
    del array
    assert pool.take().flags.writeable


def test_slots_that_are_out_never_share_memory():
    pool = BufferPool(8)
    arrays = [pool.take() for _ in range(40)]
    for n, array in enumerate(arrays):
        array[:] = n
    assert [int(array[3]) for array in arrays] == list(range(40))
    assert not any(np.shares_memory(arrays[0], other) for other in arrays[1:])


def test_no_more_than_a_few_are_kept():
    pool = BufferPool(8)
    arrays = [pool.take() for _ in range(KEEP + 7)]
    del arrays
    gc.collect()
    assert len(pool._free) == KEEP


def test_many_threads_take_and_drop_at_once(monkeypatch):
    monkeypatch.setattr(engine.pool, "KEEP", 100)
    pool, seen = BufferPool(64), set()

    def work(n):
        for _ in range(300):
            one, other = pool.take(), pool.take()  # while those of the round before are still out: four at most
            seen.update((one.ctypes.data, other.ctypes.data))
            one[:], other[:] = n, 255
            time.sleep(0)
            assert (one == n).all()

    with ThreadPoolExecutor(6) as threads:
        for done in [threads.submit(work, n) for n in range(6)]:
            done.result()
    gc.collect()
    assert len(pool._free) == len(seen) <= 6 * 4
    assert {slot.ctypes.data for slot in pool._free} == seen
