"""The door of jobs as tests ask it: requests as they are, and a clock that is set by hand."""

import json
import re

import trio

TEMPLATE = {"src": "file:///a.aepx", "composition": "main"}
BODY = {"template": TEMPLATE}
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
NOW = 1_700_000_000.0


class Answer:
    """What came back."""

    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self):
        assert self.status == 200, self.body
        assert self.headers["content-type"] == "application/json; charset=utf-8"
        assert self.headers["content-length"] == str(len(self.body))
        return json.loads(self.body)

    @property
    def text(self):
        assert self.headers["content-type"] == "text/plain; charset=utf-8"
        text = self.body.decode()
        assert 0 < len(text) < 500
        assert "\n" not in text
        assert "Traceback" not in text
        return text


class Client:
    """Asks the door directly, path and headers as they are; a worker and a client have fewer words then."""

    def __init__(self, door):
        self.door = door

    async def ask(self, method, path, body=b"", headers=(), gone=None, peer="10.0.0.9", meanwhile=None, piece=65536):
        """gone: an event; the client hangs up then. meanwhile: what is awaited before the body is over.
        piece: how many bytes of the body come at once."""
        raw, _, query = path.partition("?")
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        scope = {
            "type": "http",
            "method": method,
            "path": raw,
            "raw_path": raw.encode(),
            "query_string": query.encode(),
            "headers": [
                (name.lower().encode(), value if isinstance(value, bytes) else value.encode())
                for name, value in dict(headers).items()
            ],
            "client": (peer, 5555),
        }
        pieces = [content[at : at + piece] for at in range(0, len(content), piece)]
        messages = [{"type": "http.request", "body": each, "more_body": True} for each in pieces]
        messages.append({"type": "http.request", "body": b"", "more_body": False})
        hung_up = trio.Event() if gone is None else gone
        sent = []

        async def receive():
            await trio.lowlevel.checkpoint()
            if meanwhile is not None and len(messages) == 1:
                await meanwhile()
            if messages:
                return messages.pop(0)
            await hung_up.wait()
            return {"type": "http.disconnect"}

        async def send(message):
            sent.append(message)
            await trio.lowlevel.checkpoint()

        with trio.fail_after(30):
            await self.door(scope, receive, send)
        start, *rest = sent
        assert [each.get("more_body", False) for each in rest][-1:] == [False]
        found = {name.decode(): value.decode() for name, value in start["headers"]}
        return Answer(start["status"], found, b"".join(each["body"] for each in rest))

    async def add(self, **fields):
        return (await self.ask("POST", "/api/v1/jobs", {**BODY, **fields})).json

    async def job(self, uid):
        return (await self.ask("GET", f"/api/v1/jobs/{uid}")).json

    async def status(self, uid):
        return (await self.ask("GET", f"/api/v1/jobs/{uid}/status")).json

    async def put(self, uid, /, **fields):
        return (await self.ask("PUT", f"/api/v1/jobs/{uid}", fields)).json

    async def pickup(self, tags="", query="", name="w"):
        path = "/api/v1/jobs/pickup" + (f"/{tags}" if tags else "") + query
        return (await self.ask("GET", path, headers={"nexrender-name": name})).json

    async def uids(self, query=""):
        return [each["uid"] for each in (await self.ask("GET", f"/api/v1/jobs{query}")).json]


class Clock:
    """The time of day, set by hand."""

    now = NOW

    def __call__(self):
        return self.now
