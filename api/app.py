"""The web application: all doors in one Quart app on Trio, who may enter, and what every failure looks like.

It decides that an error is JSON ``{"error": sentence}`` and nothing redirects; it refuses to know what doors do.

Pages of other sites (CORS): anybody's page may use ``/brewmixer`` (the vendor's pages run elsewhere) and read playback;
the rest is for the server's own page and for programs. A page elsewhere that needs credentials sends them itself, in an
Authorization header: what the browser knows by itself is never sent along, nor taken (`api.auth`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING

import msgspec
import trio
from hypercorn.typing import ASGIReceiveCallable, ASGIReceiveEvent, ASGISendCallable, ASGISendEvent
from quart import Request, Response, Websocket, has_request_context, request, websocket
from quart.asgi import ASGIHTTPConnection
from quart.typing import ResponseTypes
from quart.wrappers.response import DataBody
from quart_trio import QuartTrio
from quart_trio.asgi import TrioASGIHTTPConnection
from werkzeug.exceptions import BadRequest, Forbidden, HTTPException, MethodNotAllowed, NotFound

from api import asgi, brewmixer, health, nexrender, pages, playback, streams
from api.auth import Signatures, allows_origins, check_exposure, check_host, check_request
from api.errors import status_of
from api.wire import MAX_UPLOAD, json_response
from engine.errors import EngineError

if TYPE_CHECKING:
    from api.moviemasher.servers import Servers
    from api.queue import JobQueue
    from engine import Engine
    from engine.config import Settings

log = logging.getLogger(__name__)


def create_app(
    engine: Engine,
    *,
    queue: JobQueue | None = None,
    servers: Servers | None = None,
    wall: Callable[[], float] = time.time,
) -> QuartTrio:
    """The application over a running engine.

    queue   the jobs, running as well; None: there is no door to them.
    servers Movie Masher's, running as well; None: there are none.
    wall    seconds since 1970, for signed requests.
    Raises  InvalidSpec when it would be open to other machines without credentials.
    """
    check_exposure(engine.settings)
    app = QuartTrio("api", static_folder=None)
    app.asgi_http_class = Connection
    app.url_map.strict_slashes = False  # with a slash or without, never a redirect
    app.url_map.merge_slashes = False
    app.config["MAX_CONTENT_LENGTH"] = MAX_UPLOAD + (1 << 20)  # of what nobody reads; who reads has limits of its own
    app.config["BODY_TIMEOUT"] = None  # as above
    app.config["RESPONSE_TIMEOUT"] = None  # playback lasts as long as its stream
    _guard(app, engine)
    _answer_failures(app)
    app.register_blueprint(brewmixer.blueprint(engine, Signatures(engine.settings.cluster_secret, wall)))
    for door in (streams, playback, health, pages):
        app.register_blueprint(door.blueprint(engine))
    if servers is not None:
        app.asgi_app = servers.in_front_of(app.asgi_app)  # type: ignore[assignment, method-assign]
    if queue is not None:
        made = None if servers is None else servers.rendering.made
        jobs = nexrender.Door(queue, engine.settings, made)
        app.asgi_app = nexrender.in_front_of(app.asgi_app, jobs)  # type: ignore[assignment, method-assign]
    app.asgi_app = _asked_rightly(app.asgi_app, engine.settings)  # type: ignore[assignment, method-assign]
    return app


def _asked_rightly(app: Callable[..., Awaitable[None]], settings: Settings) -> Callable[..., Awaitable[None]]:
    """An application that answers, at all doors, only who asks for a path, by a name that may be this machine's."""

    async def checked(scope: asgi.Message, receive: asgi.Receive, send: asgi.Send) -> None:
        scope = asgi.with_real_dates(asgi.in_origin_form(scope))
        hosts = [value.decode("latin-1") for name, value in scope.get("headers", ()) if name == b"host"]
        target = scope.get("raw_path", b"/").decode("latin-1")
        try:
            check_host(settings, "".join(hosts))
            if not target.startswith("/"):  # "*" and the like (RFC 9112 3.2), or nothing: no door knows any
                raise NotFound(f"no route {scope.get('method', 'GET')} {target[:200]}")
        except (BadRequest, Forbidden, NotFound) as err:
            answer = asgi.json_answer(msgspec.json.encode({"error": err.description}), status=err.code)
            prefix = "websocket." if scope["type"] == "websocket" else ""

            async def refuse(message: asgi.Message) -> None:
                await send({**message, "type": prefix + message["type"]})

            await asgi.respond(asgi.Request({"method": "GET", **scope}, receive), answer, refuse)
        else:
            await app(scope, receive, send)

    return checked


class Connection(TrioASGIHTTPConnection):
    """A request and its answer.

    A client that sends no more may still read. The server says the same of it as of one that is gone, and as at the
    answer's end, before it closes a connection that is not kept alive; Quart cancels its tasks then. Here that ends
    only a request that did not come whole, and an answer that is made piece by piece: but for its last message, or
    clients that wait for the end of the connection would wait for ever.

    A client that still sends does not hear its answer where the connection is closed behind it: so what comes is read,
    and thrown away, before the last message, within the limits of all doors. What comes with a method that has no body
    is thrown away from the beginning: nobody reads it, and it would be kept for as long as a stream is played.
    """

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Handles the request."""
        self._listened_to = trio.CancelScope()
        self._asked = trio.Event()  # it has come whole, or more than is read for nothing
        self._is_answered = False
        rest = asgi.DRAIN_BYTES
        has_body = self.scope["method"] not in ("GET", "HEAD", "OPTIONS")

        async def take() -> ASGIReceiveEvent:
            nonlocal rest
            message = await receive()
            if message["type"] == "http.request":
                if self._is_answered:
                    rest -= len(message["body"])
                if self._is_answered or not has_body:
                    message["body"] = b""
                if rest < 0 or not message.get("more_body", False):
                    self._asked.set()
            return message

        await super().__call__(take, send)

    async def handle_messages(self, nursery: trio.Nursery, request: Request, receive: ASGIReceiveCallable) -> None:  # type: ignore[override]
        """Until no more comes from the client."""
        await ASGIHTTPConnection.handle_messages(self, request, receive)
        (self._listened_to if self._asked.is_set() else nursery.cancel_scope).cancel()

    async def _send_response(self, send: ASGISendCallable, response: ResponseTypes) -> None:
        is_whole = isinstance(response.response, DataBody)

        async def send_whole(message: ASGISendEvent) -> None:
            is_last = message["type"] == "http.response.body" and not message.get("more_body", False)
            if is_last and is_whole:
                self._is_answered = True
                with trio.move_on_after(asgi.DRAIN_SECONDS):
                    await self._asked.wait()
            with trio.CancelScope(shield=is_last):
                await send(message)

        with nullcontext() if is_whole else self._listened_to:
            await super()._send_response(send_whole, response)


def _guard(app: QuartTrio, engine: Engine) -> None:
    # All are async although none waits: Quart runs a plain function in a thread, and the way there costs 0.2 ms.
    @app.before_request
    async def check() -> None:
        check_request(engine.settings, request)

    @app.before_websocket
    async def check_websocket() -> None:
        check_request(engine.settings, websocket)

    @app.after_request
    async def let_pages_read(response: Response) -> Response:
        if allows_origins(request):
            response.headers["Access-Control-Allow-Origin"] = "*"
            if request.method == "OPTIONS":
                response.headers["Access-Control-Allow-Methods"] = response.headers.get("Allow", "")
                response.headers["Access-Control-Allow-Headers"] = (
                    "Authorization, Content-Type, Range, X-Requested-With"
                )
                response.headers["Access-Control-Max-Age"] = "86400"
        return response


def _answer_failures(app: QuartTrio) -> None:
    @app.errorhandler(EngineError)
    async def refuse(error: EngineError) -> Response:
        status = status_of(error)
        if status >= 500:
            log.warning("%s %s: %s", *_asked(), error)
        return json_response({"error": str(error)}, status)

    @app.errorhandler(asgi.Refusal)
    async def refuse_file(error: asgi.Refusal) -> Response:
        response = json_response({"error": str(error)}, error.status)
        response.headers.extend(error.headers)
        return response

    @app.errorhandler(HTTPException)
    async def refuse_plainly(error: HTTPException) -> Response:
        response = json_response({"error": _sentence(error)}, error.code or 500)
        for name, value in error.get_headers():
            if name != "Content-Type":  # Allow, WWW-Authenticate, Content-Range
                response.headers.add(name, value)
        return response

    @app.errorhandler(Exception)
    async def hide(error: Exception) -> Response:
        log.error("%s %s: a bug", *_asked(), exc_info=error)
        return json_response({"error": "internal error"}, 500)


def _asked() -> tuple[str, str]:
    asked: Request | Websocket = request if has_request_context() else websocket
    return asked.method, asked.path[:200]


def _sentence(error: HTTPException) -> str:
    if isinstance(error, NotFound | MethodNotAllowed):
        return "no route {} {}".format(*_asked())
    return error.description or error.name
