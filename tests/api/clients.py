"""Clients of the web application as tests need them: over a real socket, and one that goes away in mid-answer."""

import logging
import socket
from contextlib import asynccontextmanager
from functools import partial

import trio
from hypercorn.config import Config
from hypercorn.trio import serve


@asynccontextmanager
async def serving(app):
    """The port where an app is served."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    config = Config()
    config.bind = [f"fd://{listener.detach()}"]  # the server closes it
    config.errorlog = logging.getLogger(__name__)
    config.graceful_timeout = 1
    config.keep_alive_timeout = 60  # what ends sooner was ended by an answer
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(serve, app, config, shutdown_trigger=stop.wait))
        yield port
        stop.set()


@asynccontextmanager
async def followed(client, path):
    """A request whose answer has no end: the client goes away at the end of the block."""
    async with client.request(path) as connection:
        yield connection
        await connection.disconnect()
        sender, connection._client_receive = trio.open_memory_channel(0)  # Quart's own would wait for the answer's end
        sender.close()
