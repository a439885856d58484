"""The process of a server: its memory, and its end."""

import subprocess
import sys

import pytest

from api.http import HTTP_GRACE
from engine.child import GRACE
from engine.worker import LAST_WORDS

# In the process of a server that could not begin: the C library, and what it says of its memory.
PROBE = """
import ctypes, sys
from threading import Barrier, Thread
from api.commands import main

assert main(["serve", "--data", sys.argv[1]]) == 1
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
info = type("mallinfo2", (ctypes.Structure,), {"_fields_": [(name, ctypes.c_size_t) for name in names]})
libc.mallinfo2.restype = info
"""

# What it does with 8 MiB when 16 have been free once: how many blocks are the system's own.
LARGE = """
libc.free(libc.malloc(16 << 20))
before = libc.mallinfo2().hblks
libc.malloc(8 << 20)
print(libc.mallinfo2().hblks - before)
"""

# Eight threads, each of which in its turn has 16 MiB, and keeps one: whether the others have what it no longer has.
TURNS = """
def take_turn(n):
    for turn in range(8):
        barrier.wait()
        if turn == n:
            blocks = [libc.malloc(1 << 20) for _ in range(16)]
            libc.malloc(1 << 20)
            for block in blocks:
                libc.free(block)

barrier, before = Barrier(8), libc.mallinfo2().arena
threads = [Thread(target=take_turn, args=(n,)) for n in range(8)]
for each in threads:
    each.start()
for each in threads:
    each.join()
print(int(libc.mallinfo2().arena - before < 48 << 20))
"""


@pytest.mark.parametrize("does", [LARGE, TURNS], ids=["large blocks", "in turn"])
def test_what_is_free_goes_back_to_the_system_or_to_other_threads(tmp_path, does):
    (tmp_path / "file").touch()
    command = [sys.executable, "-c", PROBE + does, str(tmp_path / "file")]
    assert subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout == "1\n"


def test_requests_renders_and_last_words_together_have_less_than_the_time_in_which_a_server_ends():
    assert HTTP_GRACE + GRACE + LAST_WORDS < 5
