"""A client of Movie Masher's servers as tests need it: over a real socket, in somebody's name."""

import base64
import http.client
import json
import queue
import secrets
import threading
from contextlib import asynccontextmanager, contextmanager

import trio

from api.app import create_app
from api.moviemasher.servers import Servers
from api.queue import JobQueue
from api.serve import workers_of
from engine import Engine
from engine.config import Settings
from tests.api.clients import serving

PATIENCE = 30  # seconds


class Answer:
    """What came back."""

    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, {name.lower(): value for name, value in headers}, body

    @property
    def json(self):
        assert self.headers["content-type"] == "application/json; charset=utf-8", self.body
        found = json.loads(self.body)
        assert isinstance(found, dict)
        return found

    @property
    def error(self):
        """The sentence of a failure that the client can show."""
        assert self.status == 200, self.body
        sentence = self.json["error"]
        assert isinstance(sentence, str)
        assert 0 < len(sentence) < 500
        return sentence


class Client:
    """Somebody who asks."""

    def __init__(self, port, user="ada", password="pass"):
        self.port, self.user = port, user
        known = base64.b64encode(f"{user}:{password}".encode()).decode()
        self.headers = {"Authorization": f"Basic {known}"} if user is not None else {}

    async def ask(self, method, path, *, body=None, headers=None):
        def exchange():
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
            try:
                connection.request(method, path, body, {**self.headers, **(headers or {})})
                answer = connection.getresponse()
                return Answer(answer.status, answer.getheaders(), answer.read())
            finally:
                connection.close()

        with trio.fail_after(PATIENCE):
            return await trio.to_thread.run_sync(exchange)

    async def get(self, path, **headers):
        return await self.ask("GET", path, headers=headers)

    async def post(self, path, **members):
        """As the stock client asks: a slash at the end, no body where nothing is asked for."""
        body = json.dumps({**members, "version": "5.1.1"}).encode() if members else None
        return await self.ask("POST", f"{path}/", body=body, headers={"Content-Type": "application/json"})

    async def call(self, path, **members):
        """The answer of a request that succeeds."""
        found = (await self.post(path, **members)).json
        assert "error" not in found, found
        return found

    async def execute(self, callback, file=None):
        """Does what a callback says, as the stock client does: JSON, or a form with the members in their order."""
        prefix, request = callback["endpoint"]["prefix"], callback["request"]
        headers, body = (
            request.get("headers", {"Content-Type": "application/json"}),
            json.dumps(request["body"]).encode(),
        )
        if headers["Content-Type"] == "multipart/form-data":
            headers, body = form(request["body"], file)
        return await self.ask("POST", f"{prefix}/", body=body, headers=headers)


def form(fields, file=None, *, name="file"):
    """Headers and body of a form; file: (file name, bytes)."""
    boundary = secrets.token_hex(8)
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"\r\n\r\n{value}\r\n'.encode()
        for field, value in fields.items()
    ]
    if file is not None:
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{file[0]}"\r\n'
        parts += [head.encode(), b"Content-Type: application/octet-stream\r\n\r\n", file[1], b"\r\n"]
    body = b"".join(parts) + f"--{boundary}--\r\n".encode()
    return {"Content-Type": f"multipart/form-data; boundary={boundary}"}, body


@asynccontextmanager
async def masher(folder, *, works=False, **settings):
    """The port of a server in this folder with these settings; its workers begin only if it `works`."""
    engine = Engine(Settings(**{"data": str(folder), "rtmp_port": -1} | settings), strict=True)
    queue = JobQueue(engine.settings)
    servers = Servers(engine, queue)
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        await nursery.start(queue.run)
        await nursery.start(servers.run)
        async with trio.open_nursery() as workers:
            for worker in workers_of(engine.settings, engine, queue, servers) if works else ():
                workers.start_soon(worker.run)
            async with serving(create_app(engine, queue=queue, servers=servers)) as port:
                yield port
            workers.cancel_scope.cancel()
        await engine.close()
        nursery.cancel_scope.cancel()


@contextmanager
def masher_beside(folder, **settings):
    """As `masher`, in a thread of its own: for many tests one after the other."""
    ready = queue.SimpleQueue()

    async def serve():
        stop = trio.Event()
        async with masher(folder, **settings) as port:
            ready.put((port, trio.lowlevel.current_trio_token(), stop))
            await stop.wait()

    thread = threading.Thread(target=trio.run, args=(serve,))
    thread.start()
    port, token, stop = ready.get(timeout=PATIENCE)
    try:
        yield port
    finally:
        token.run_sync_soon(stop.set)
        thread.join()
