"""Doors 2 and 3: how Movie Masher's browser client asks, and what it can read.

It decides what a request and an answer look like and in whose name is asked; it refuses to know what is done: every
path has a handler. It stands in front of the framework, at POST below /api /data /file /rendering /streaming: a path
may end in a slash, a body may be empty, nothing redirects.

The client reads every answer as JSON and looks at ``error`` only, so that errors come with status 200 and in JSON, and
what is wrong with the request itself in JSON as well. In the activity panel of its imports a text with a full stop
blanks the whole page: there it is written as another sign that looks like it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import msgspec
import trio

from api.asgi import JSON, Answer, Headers, Message, Receive, Refusal, Request, Send, respond
from api.auth import LEAVE, is_by_leave, is_from_elsewhere, is_of_this_machine
from api.moviemasher.fields import Object
from api.moviemasher.users import Users
from api.wire import decode
from engine.errors import EngineError
from engine.threads import in_thread

log = logging.getLogger(__name__)

Handler = Callable[[str, Object], Awaitable[Object]]
Placed = Callable[[str, Object, str], Awaitable[Object]]  # is told the host besides, as the client calls it
Taking = Callable[[str, Request], Awaitable[Object]]  # reads the body itself

SERVERS: Final = ("api", "data", "file", "rendering", "streaming")  # first components of paths
JOBS: Final = "/api/v1"  # another door's
MAX_BODY: Final = 8 << 20
# JSON is read in one go up to the end of an object, in which nothing else runs, no mixer either: four million numbers
# take 0.5 s, half a million members 0.7 s. A mash of 8 MB may have so many values, and its objects are small.
MAX_VALUES: Final = 500_000
MAX_LISTS: Final = 50_000  # each costs as much as ten numbers
MAX_MEMBERS: Final = 20_000
BODY_SECONDS: Final = 60.0
CORS: Final = (("Access-Control-Allow-Origin", "*"),)
METHODS: Final = "GET,HEAD,PUT,PATCH,POST,DELETE"
# Where the client shows errors in its activity panel.
IMPORTING: Final = ("/rendering/upload", "/rendering/start", "/rendering/status", "/file/store", "/data/definition/put")
DOT: Final = "\N{ONE DOT LEADER}"
# What an answer has beside its error.
DEFAULTS: Final[Mapping[str, Object]] = {
    "/api/callbacks": {"apiCallbacks": {}},
    "/data/mash/default": {"mash": {}, "definitions": []},
    "/data/mash/get": {"mash": {}, "definitions": []},
    "/data/mash/put": {"temporaryIdLookup": {}},
    "/data/mash/retrieve": {"described": []},
    "/data/cast/default": {"cast": {}, "definitions": []},
    "/data/cast/get": {"cast": {}, "definitions": []},
    "/data/cast/put": {"temporaryIdLookup": {}},
    "/data/cast/retrieve": {"described": []},
    "/data/definition/get": {"definition": {}},
    "/data/definition/put": {"id": ""},
    "/data/definition/retrieve": {"definitions": []},
}


def is_ours(method: str, path: str) -> bool:
    """Whether a request is for this door: GET is left to sites and players, there is nothing to get here."""
    parts = path.split("/")
    is_jobs = path == JOBS or path.startswith(f"{JOBS}/")
    return len(parts) > 2 and parts[1] in SERVERS and not is_jobs and method not in ("GET", "HEAD")


class Door:
    """The routes, as an ASGI application.

    handlers  of JSON requests: path → what answers.
    placed    of those whose answers may say where this machine is.
    uploads   of those that are no JSON.
    """

    def __init__(
        self,
        users: Users,
        handlers: Mapping[str, Handler],
        placed: Mapping[str, Placed],
        uploads: Mapping[str, Taking],
    ) -> None:
        self._users = users
        self._handlers = handlers
        self._placed = placed
        self._uploads = uploads
        self._parsing = trio.CapacityLimiter(2)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answers a request."""
        request = Request(scope, receive)
        answer = await self._answer(request, request.path.removesuffix("/"))
        await respond(request, msgspec.structs.replace(answer, headers=[*CORS, *answer.headers]), send)

    async def _answer(self, request: Request, path: str) -> Answer:
        status, error = 200, None
        headers: Headers = ()
        try:
            if request.method == "OPTIONS":
                return preflight(request)
            self._check_origin(request, is_upload=path in self._uploads)
            user = await self._users.of(request.headers.get("authorization"))
            found = await self._handle(user, request, path)
            body = await in_thread(_written, path, found, limiter=self._parsing)
        except Refusal as err:
            status, headers, error = err.status, err.headers, str(err)
        except EngineError as err:
            if err.fault != "caller":
                log.warning("%s: %s", path[:200], err)
            error = str(err)
        except Exception:
            log.exception("%s: a bug", path[:200])
            status, error = 500, "internal error"
        if error is not None:
            body = _written(path, {**DEFAULTS.get(path, {}), "error": error})
        return Answer(status=status, body=body, kind=JSON, headers=[*headers, ("Cache-Control", "no-store")])

    def _check_origin(self, request: Request, *, is_upload: bool) -> None:
        """Raises Refusal (403) where a browser sends what a page of another site could not ask for by itself.

        Pages anywhere may ask with credentials of their own; those that the browser knows go only with requests that
        need no leave. A form with a file is one: it counts only with an id that has been given out, which no other page
        knows. Where credentials prove nothing only pages that this machine serves, at any port, may ask at all.
        """
        if not is_from_elsewhere(request.headers):
            return
        if not self._users.have_passwords and not is_of_this_machine(request.headers):
            raise Refusal(403, "pages of other sites may only ask where there is a password")
        if not is_upload and not is_by_leave(request.method, request.headers):
            raise Refusal(403, f"pages of other sites must send {LEAVE}")

    async def _handle(self, user: str, request: Request, path: str) -> Object:
        if request.method == "POST" and (path in self._handlers or path in self._placed):
            body = await request.body(limit_bytes=MAX_BODY, seconds=BODY_SECONDS)
            asked = await in_thread(_read, body, limiter=self._parsing) if body.strip() else {}
            if path in self._placed:
                return await self._placed[path](user, asked, re.sub(r":\d*$", "", request.headers.get("host", "")))
            return await self._handlers[path](user, asked)
        if request.method == "POST" and path in self._uploads:
            return await self._uploads[path](user, request)
        raise Refusal(404, f"no route {request.method} {path[:200]}")


def _written(path: str, found: Object) -> bytes:
    if path in IMPORTING and "error" in found:
        found["error"] = str(found["error"]).replace(".", DOT)
    return msgspec.json.encode(found)


def _read(body: bytes) -> Object:
    values = sum(map(body.count, (b",", b"[", b"}")))  # about as many as there are; texts may have some too
    if values > MAX_VALUES:
        raise Refusal(400, f"the JSON has {values} commas and brackets, more than {MAX_VALUES}")
    lists = body.count(b"[")
    if lists > MAX_LISTS:
        raise Refusal(400, f"the JSON has {lists} lists, more than {MAX_LISTS}")
    members = max(part.count(b":") for part in body.split(b"}"))
    if members > MAX_MEMBERS:
        raise Refusal(400, f"an object of the JSON has {members} members, more than {MAX_MEMBERS}")
    try:
        return decode(body, Object, limit_bytes=MAX_BODY)
    except EngineError as err:
        raise Refusal(400, str(err)) from None


def preflight(request: Request) -> Answer:
    """What a browser is told before it asks for a page of another site."""
    asked = request.headers.get("access-control-request-headers", "Authorization,Content-Type")
    headers = [("Access-Control-Allow-Methods", METHODS), ("Access-Control-Allow-Headers", asked)]
    return Answer(status=204, headers=[*headers, ("Access-Control-Max-Age", "86400"), ("Vary", "Origin")])
