"""RTMP peers of our own, for exact cases: a client that publishes or plays, over a real socket.

It decides nothing about the engine: it says what the test tells it to, and shows what it heard.
"""

import socket
import time
from contextlib import asynccontextmanager
from functools import partial

import trio

from engine.link import Link
from engine.rtmp import Accepted, Closed, Connect, Metadata, Opened, Play, Publish, StreamEnded, flv
from engine.rtmp.session import Session
from engine.sources.rtmp import serve_rtmp
from engine.stream import Hub

AVCC = bytes.fromhex(  # x264's for 64×36
    "0164000affe100166764000aacb423fcf080000003008000001e0789135001000568ef023cb0fdf8f800"
)
ASC = bytes.fromhex("1190")  # AAC LC, 48 kHz, stereo
OPENING = flv.video_extradata(AVCC, dts=0)
SOUND_OPENING = flv.audio_extradata(ASC, dts=0)


def picture(n, *, keyframe=False, size=100):
    """The n-th picture of 25 a second."""
    return flv.video_packet(n.to_bytes(4, "big") + bytes(size), dts=40 * n, pts=40 * n + 40, keyframe=keyframe)


def sound(n):
    """The n-th block of sound, 20 ms each."""
    return flv.audio_packet(b"sound%d" % n, dts=20 * n)


def new_hub():
    """A hub on the machine's clock."""
    return Hub(time.monotonic_ns)


@asynccontextmanager
async def listening(hub, **options):
    """A listener on a free port, as a Server; clients are closed at the end."""
    async with trio.open_nursery() as nursery:
        serve = partial(serve_rtmp, hub, **{"host": "127.0.0.1", "port": 0, **options})
        server = Server(await nursery.start(serve))
        yield server
        for client in server.clients:
            await trio.aclose_forcefully(client.stream)
        nursery.cancel_scope.cancel()


class Server:
    """Where clients can connect; `app` may have a query."""

    def __init__(self, port):
        self.port = port
        self.clients = []

    async def dial(self, *, receive_bytes=None):
        """A bare stream. receive_bytes: how much its kernel takes before it reads."""
        sock = trio.socket.socket()
        if receive_bytes is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        await sock.connect(("127.0.0.1", self.port))
        self.clients.append(Client(trio.SocketStream(sock)))
        return self.clients[-1].stream

    async def connect(self, app="live", **options):
        await self.dial(**options)
        client = self.clients[-1]
        assert await client.hear() == Opened()
        app, _, query = app.partition("?")
        assert await client.ask(Connect(app, query, f"rtmp://127.0.0.1/{app}")) == Accepted()
        return client

    async def publishing(self, name="x", **options):
        client = await self.connect(**options)
        assert await client.ask(Publish(name)) == Accepted()
        return client

    async def playing(self, name="x", **options):
        client = await self.connect(**options)
        assert await client.ask(Play(name)) == Accepted()
        return client


class Client:
    """One end of a connection."""

    def __init__(self, stream):
        self.stream = stream
        self.link = Link(stream, Session("client"), stall=5)
        self.address = "{}:{}".format(*stream.socket.getsockname())

    async def say(self, *events):
        assert await self.link.say(*events)

    async def hear(self):
        return await self.link.hear()

    async def ask(self, request):
        await self.say(request)
        return await self.hear()

    async def hear_media(self, count):
        """So many audio and video events; what is no packet of them is left out."""
        found = []
        while len(found) < count:
            event = await self.hear()
            assert not isinstance(event, StreamEnded | Closed), found
            if not isinstance(event, Metadata) and event.kind == "packet":
                found.append(event)
        return found

    async def hear_end(self):
        """All up to the end of the connection, or of the bytes that came before it broke."""
        found = []
        try:
            while (event := await self.hear()) != Closed():
                found.append(event)
        except trio.BrokenResourceError:
            pass  # reset: the other end had not read everything
        return found

    async def reset(self):
        """Dies without a word: RST."""
        self.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        await trio.aclose_forcefully(self.stream)

    async def close(self):
        """FIN."""
        await self.stream.aclose()
