"""Requests and answers without a framework: paths as they came, bodies with real limits, files by ranges, streams.

It decides how bytes of HTTP are taken and given; it refuses to know what they mean. It is for doors whose dialect a
framework would bend: nothing is decoded, redirected or answered by itself, and a large body waits in the client, not
here, until it is read.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from email.utils import formatdate
from pathlib import Path
from typing import Any, BinaryIO, Final
from urllib.parse import parse_qs, unquote

import msgspec
import trio
from werkzeug.http import parse_date, parse_etags, parse_range_header
from werkzeug.sansio.http import is_resource_modified
from werkzeug.sansio.request import Request as SansIoRequest

from api.mediatypes import media_type
from engine.errors import EngineError
from engine.threads import in_thread

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = Sequence[tuple[str, str]]

JSON: Final = "application/json; charset=utf-8"
TEXT: Final = "text/plain; charset=utf-8"
PIECE: Final = 256 << 10
SILENCE: Final = 30.0  # seconds in which nothing of a body comes: its client is gone
# A client that still sends does not hear our answer: so much more is read and thrown away while it is given.
DRAIN_BYTES: Final = 256 << 20
DRAIN_SECONDS: Final = 5.0
STALL_LIMIT: Final = "mashtun.stall"  # in a scope's state: sets how long its client may take nothing
_ABSOLUTE: Final = re.compile(rb"[a-z][a-z0-9+.-]*://([^/]*@)?(?P<host>[^/@]*)(?P<path>/.*)?", re.IGNORECASE)
_DATED: Final = (b"if-modified-since", b"if-unmodified-since")
_LAST_NONE: Final = re.compile(r"bytes=[ \t]*-0+[ \t]*", re.IGNORECASE)  # of a file, which is no nonsense to RFC 9110


def in_origin_form(scope: Message) -> Message:
    """A request as if its target had come without scheme and authority, and that as Host (RFC 9112 3.2.2)."""
    found = _ABSOLUTE.fullmatch(scope.get("raw_path", b""))
    if found is None:
        return scope
    raw = found["path"] or b"/"
    others = (each for each in scope["headers"] if each[0] != b"host")
    headers = [(b"host", found["host"]), *others]
    return {**scope, "raw_path": raw, "path": unquote(raw.decode("ascii")), "headers": headers}


def with_real_dates(scope: Message) -> Message:
    """A request without the conditions whose date is none: they say nothing (RFC 9110 13.1.3, 13.1.4)."""
    headers = scope.get("headers", ())
    odd = [each for each in headers if each[0] in _DATED and not _is_date(each[1].decode("latin-1"))]
    return {**scope, "headers": [each for each in headers if each not in odd]} if odd else scope


def _is_date(text: str) -> bool:
    try:
        return parse_date(text) is not None
    except OverflowError:  # of the year 99999999999999999999: whoever reads it later would stumble over it
        return False


def limit_stall(scope: Any, seconds: float) -> None:
    """Says that a client that takes nothing for so long is not there any more, for what is watched as it happens.

    The kernel ends its connection then, as nothing else can: Hypercorn shields what it sends.
    """
    if limit := scope.get("state", {}).get(STALL_LIMIT):  # another server has its own rules
        limit(seconds)


class Refusal(Exception):  # noqa: N818 - it is called after what happened
    """The answer is this status and this sentence."""

    def __init__(self, status: int, sentence: str, headers: Headers = ()) -> None:
        super().__init__(sentence)
        self.status = status
        self.headers = headers


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What is answered; a body that is not bytes is sent as it comes, until the client goes away."""

    status: int = 200
    body: bytes | AsyncGenerator[bytes] = b""
    kind: str = TEXT
    headers: Headers = ()


class Request:
    """One request; `path` and `query` are as they came, header names in lower case."""

    def __init__(self, scope: Message, receive: Receive) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["raw_path"].decode("latin-1")
        self.query: str = scope["query_string"].decode("latin-1")
        self.headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        self.peer: str = (scope.get("client") or ("", 0))[0]
        self.is_read = False  # its body, to the end
        self._receive = receive

    def argument(self, name: str) -> str | None:
        """The last value of a name in the query string."""
        return parse_qs(self.query, keep_blank_values=True).get(name, [None])[-1]

    async def pieces(self, *, limit_bytes: int) -> AsyncGenerator[bytes]:
        """The body as it comes.

        Raises Refusal: more than `limit_bytes` (413), the client hung up (400), or is silent (408).
        """
        size = 0
        too_large = f"the body has more than {limit_bytes} bytes"  # an error that is kept here keeps what has come
        declared = self.headers.get("content-length", "")
        if declared.isdigit() and int(declared) > limit_bytes:
            raise Refusal(413, too_large)
        while not self.is_read:
            try:
                with trio.fail_after(SILENCE):
                    message = await self._receive()
            except trio.TooSlowError:
                raise Refusal(408, f"nothing of the body came for {SILENCE:g} s") from None
            if message["type"] != "http.request":
                self.is_read = True
                raise Refusal(400, "the body did not come to its end")
            self.is_read = not message.get("more_body", False)
            size += len(message.get("body", b""))
            if size > limit_bytes:
                raise Refusal(413, too_large)
            yield message.get("body", b"")

    async def body(self, *, limit_bytes: int, seconds: float) -> bytes:
        """The whole body. Raises Refusal as `pieces`; when it takes too long (408)."""
        found = bytearray()
        with trio.move_on_after(seconds):
            async for piece in self.pieces(limit_bytes=limit_bytes):
                found += piece
            return bytes(found)
        raise Refusal(408, f"the body did not come within {seconds:g} s")

    async def drain(self) -> None:
        """Reads the rest of the body, within limits."""
        rest = 0
        with trio.move_on_after(DRAIN_SECONDS):
            while not self.is_read and rest < DRAIN_BYTES:
                message = await self._receive()
                rest += len(message.get("body", b""))
                self.is_read = message["type"] != "http.request" or not message.get("more_body", False)

    async def gone(self) -> None:
        """Returns when the client has hung up; the body must have been read."""
        await self.drain()
        while (await self._receive())["type"] != "http.disconnect":
            pass  # a client may say that its empty body is over


def text_of(header: str) -> str:
    """A header's value in UTF-8 if it is that, else in Latin-1, which everything is."""
    try:
        return header.encode("latin-1").decode()
    except UnicodeDecodeError:
        return header


async def respond(request: Request, answer: Answer, send: Send) -> None:
    """Sends an answer."""
    headers = [(name.lower().encode(), value.encode("latin-1", "replace")) for name, value in answer.headers]
    has_body = answer.status not in (204, 304)
    if has_body:
        headers.append((b"content-type", answer.kind.encode()))
    if has_body and isinstance(answer.body, bytes) and all(name != b"content-length" for name, _ in headers):
        headers.append((b"content-length", b"%d" % len(answer.body)))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    if not isinstance(answer.body, bytes):
        await _stream(request, answer.body, send)
    else:
        body = b"" if request.method == "HEAD" else answer.body
        await send({"type": "http.response.body", "body": body, "more_body": not request.is_read})
        if not request.is_read:
            await request.drain()
            await send({"type": "http.response.body", "body": b""})


async def _stream(request: Request, body: AsyncGenerator[bytes], send: Send) -> None:
    async def give() -> None:
        async with aclosing(body):
            async for piece in body:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    await until_gone(request, give)


async def until_gone(request: Request, work: Callable[[], Awaitable[None]]) -> None:
    """Does it, or as much of it as it can until the client hangs up. Raises what it raises."""
    failure: EngineError | Refusal | None = None
    async with trio.open_nursery() as nursery:

        async def watch() -> None:
            await request.gone()
            nursery.cancel_scope.cancel()

        nursery.start_soon(watch)
        try:
            await work()
        except (EngineError, Refusal) as err:  # a nursery would wrap it
            failure = err
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


# --- files -----------------------------------------------------------------------------------------------------------


async def file_answer(
    request: Request | SansIoRequest,
    path: Path,
    *,
    limiter: trio.CapacityLimiter,
    kind: str = "",
    cache: str = "no-cache",
) -> Answer:
    """A file as long as it is now, or the range of it that is asked for, or that it is as the client has it.

    Asked for anything but one range of bytes it is the whole file (RFC 9110 13, 14). Raises Refusal: 404, 412, 416.
    """
    file, status = await in_thread(_open, path, limiter=limiter)
    size = status.st_size
    tag, changed = f'"{status.st_mtime_ns:x}-{size:x}"', formatdate(status.st_mtime, usegmt=True)
    headers = [
        ("Accept-Ranges", "bytes"),
        ("ETag", tag),
        ("Last-Modified", changed),
        ("Cache-Control", cache),
        ("X-Content-Type-Options", "nosniff"),
    ]
    try:
        if not _is_wanted(request, tag, changed):
            file.close()
            return Answer(status=304, headers=headers)
        asked = _range_of(request, tag, changed, size)
    except Refusal:
        file.close()
        raise
    code, (begin, end) = (200, (0, size)) if asked is None else (206, asked)
    if asked is not None:
        headers.append(("Content-Range", f"bytes {begin}-{end - 1}/{size}"))
    headers.append(("Content-Length", str(end - begin)))
    kind = kind or media_type(path)
    if request.method == "HEAD":
        file.close()
        return Answer(status=code, kind=kind, headers=headers)
    return Answer(status=code, body=_bytes_of(file, begin, end, limiter), kind=kind, headers=headers)


def _is_wanted(request: Request | SansIoRequest, tag: str, changed: str) -> bool:
    """Whether the client does not have the file as it is (RFC 9110 13.2.2). Raises Refusal (412): it has another one.

    Who goes on with what broke off must not get the end of another file.
    """
    given = request.headers.get
    ours, limit, now = given("if-match"), parse_date(given("if-unmodified-since")), parse_date(changed)
    if ours is not None:
        is_other = not parse_etags(ours).contains(tag.strip('"'))
    else:
        is_other = limit is not None and now is not None and limit < now
    if is_other:
        raise Refusal(412, "the file is not the one that is asked for: it has changed", [("ETag", tag)])
    return is_resource_modified(
        http_if_none_match=given("if-none-match"),
        http_if_modified_since=given("if-modified-since"),
        etag=tag,
        last_modified=changed,
    )


def _range_of(request: Request | SansIoRequest, tag: str, changed: str, size: int) -> tuple[int, int] | None:
    """(begin, end) of the range that is asked for; None: the whole file is. Raises Refusal (416).

    Only GET has ranges (RFC 9110 14.2).
    """
    if request.method != "GET" or request.headers.get("if-range", tag) not in (tag, changed):
        return None
    header = request.headers.get("range", "")
    asked = parse_range_header(header)
    first, stop = size, None
    if asked is not None and asked.units == "bytes" and len(asked.ranges) == 1:
        first, stop = asked.ranges[0]
    elif not _LAST_NONE.fullmatch(header):
        return None
    begin, end = max(0, size + first) if first < 0 else first, min(size, stop or size)
    if begin >= end:
        raise Refusal(416, f"the file has {size} bytes", [("Content-Range", f"bytes */{size}")])
    return begin, end


def _open(path: Path) -> tuple[BinaryIO, os.stat_result]:
    try:
        file = path.open("rb")
    except OSError as err:
        raise Refusal(404, f'no file "{path.name}"') from err
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode):
        file.close()
        raise Refusal(404, f'no file "{path.name}"')
    return file, status


async def _bytes_of(file: BinaryIO, begin: int, end: int, limiter: trio.CapacityLimiter) -> AsyncGenerator[bytes]:
    with file:
        file.seek(begin)
        while begin < end:
            piece = await in_thread(file.read, min(PIECE, end - begin), limiter=limiter)
            if not piece:  # it has become shorter: the answer stays short, which the client sees
                return
            begin += len(piece)
            yield piece


# --- JSON and text ---------------------------------------------------------------------------------------------------


def json_answer(body: bytes, *, headers: Headers = (), status: int = 200) -> Answer:
    """JSON that is encoded already."""
    return Answer(status=status, body=body, kind=JSON, headers=headers)


def text_answer(text: str, status: int = 200, headers: Headers = ()) -> Answer:
    """One sentence."""
    return Answer(status=status, body=text.encode(errors="replace"), headers=headers)
