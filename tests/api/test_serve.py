"""The HTTP server as it is set up here, with what clients do to it."""

import subprocess
import sys

import trio
from hypercorn.config import Config

from api.serve import _serve_http
from engine.link import listen

HELLO = (
    b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
CLIENTS = 15

# What a server that could not begin does with 8 MiB when 16 have been free once: how many blocks are the system's own.
PROBE = """
import ctypes, sys
from api.__main__ import main

assert main(["serve", "--data", sys.argv[1]]) == 1
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
info = type("mallinfo2", (ctypes.Structure,), {"_fields_": [(str(n), ctypes.c_size_t) for n in range(10)]})
libc.mallinfo2.restype = info
libc.free(libc.malloc(16 << 20))
before = getattr(libc.mallinfo2(), "3")
libc.malloc(8 << 20)
print(getattr(libc.mallinfo2(), "3") - before)
"""


async def test_a_client_that_sends_what_is_no_frame_is_gone_and_no_bug(nursery):
    ends = []

    async def tell(send):
        while True:
            await send({"type": "websocket.send", "bytes": b"film"})
            await trio.lowlevel.checkpoint()

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            assert await receive() == {"type": "lifespan.startup"}
            await send({"type": "lifespan.startup.complete"})
            await receive()
            return
        await send({"type": "websocket.accept"})
        try:
            async with trio.open_nursery() as telling:
                telling.start_soon(tell, send)
                while (await receive())["type"] != "websocket.disconnect":
                    pass
                telling.cancel_scope.cancel()
        except* trio.BusyResourceError as group:
            ends.append(group)
        else:
            ends.append(None)

    stop, config = trio.Event(), Config()
    listener = listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    with trio.fail_after(30):
        config.errorlog = None
        config.bind = [f"fd://{listener.detach()}"]
        nursery.start_soon(_serve_http, app, config, stop, trio.Event())
        for n in range(CLIENTS):
            async with await trio.open_tcp_stream("127.0.0.1", port) as client:
                await client.send_all(HELLO)
                await client.receive_some()
                await client.send_all(b"\xff" * 50)
                while len(ends) == n:
                    await trio.sleep(0.001)
        stop.set()
    assert ends == [None] * CLIENTS


def test_large_blocks_that_are_free_go_back_to_the_system(tmp_path):
    (tmp_path / "file").touch()
    command = [sys.executable, "-c", PROBE, str(tmp_path / "file")]
    assert subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout == "1\n"
