"""What goes over the wire: bodies read within limits, JSON read strictly and lent a type, numbers of queries,
JSON answers.

It decides how large, how slow and how broken a request may be; it refuses to know what is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from typing import Annotated, Any, Final, NamedTuple, TypeVar

import msgspec
import trio
from quart import Request, Response
from werkzeug.exceptions import RequestEntityTooLarge, RequestTimeout

from api.forms import FormReader, Part
from engine.errors import InvalidSpec, InvalidTree
from engine.strictjson import in_json_words, parse_json
from engine.threads import in_thread

MAX_BODY: Final = 1 << 20
MAX_UPLOAD: Final = 32 << 20
BODY_SECONDS: Final = 30.0  # a body that takes longer keeps its connection for nothing
UPLOAD_SECONDS: Final = 600.0  # enough for MAX_UPLOAD over 0.5 Mbit/s
CASTS: Final = "cast"  # what the names of casts' streams begin with
FILE: Final = "file"  # the field of a form that holds one

Natural = Annotated[int, msgspec.Meta(ge=0)]
T = TypeVar("T")


class Parameter(NamedTuple):
    """What a route reads beside its path and body, for the API's description; kind: a type that msgspec understands."""

    name: str
    kind: Any
    says: str
    place: str = "query"  # or "header"
    required: bool = False


class FormBody(NamedTuple):
    """A multipart form as a request's body, for the API's description: these fields of text, then `file`, the file."""

    fields: tuple[str, ...] = ()


class Route(NamedTuple):
    """A route for the API's description; path with ``{names}``.

    request, response  a type that msgspec understands, sent as JSON; a media type; a FormBody; None = no body.
    success            the status of what is no failure.
    """

    method: str
    path: str
    summary: str
    request: Any
    response: Any
    parameters: tuple[Parameter, ...] = ()
    needs_body: bool = True
    success: str = "2XX"


def json_response(value: object, status: int = 200) -> Response:
    """An answer with anything that msgspec can encode."""
    return Response(msgspec.json.encode(value), status, content_type="application/json")


def created_response() -> Response:
    """The answer 201 without a body."""
    response = Response(b"", 201)
    del response.headers["Content-Type"]
    return response


async def read_body(request: Request, *, limit_bytes: int = MAX_BODY, seconds: float = BODY_SECONDS) -> bytes:
    """The whole body. Raises InvalidSpec when it is larger, RequestTimeout (408) when it takes longer."""
    body = bytearray()
    with trio.move_on_after(seconds):
        try:
            async for data in request.body:
                body += data
                if len(body) > limit_bytes:
                    break
            else:
                return bytes(body)
        except RequestEntityTooLarge:
            pass  # Quart's own limit: announced as larger than anything that is ever taken
        raise InvalidSpec(f"the body has more than {limit_bytes} bytes", where="$")
    raise RequestTimeout(f"the body did not come within {seconds:g} s")


async def read_upload(request: Request, *, limiter: trio.CapacityLimiter) -> tuple[str, bytes]:
    """(file name, bytes) of the first file called `file` of a multipart form of at most MAX_UPLOAD bytes.

    Raises InvalidSpec: no form, no such file, a broken form, too large. RequestTimeout (408).
    """
    boundary = request.mimetype_params.get("boundary", "")
    if request.mimetype != "multipart/form-data" or not boundary:
        raise InvalidSpec(f'expected multipart/form-data with a file "{FILE}"', where=FILE)
    form = await read_body(request, limit_bytes=MAX_UPLOAD, seconds=UPLOAD_SECONDS)
    return await in_thread(file_of_form, form, boundary, limiter=limiter)


def file_of_form(form: bytes, boundary: str) -> tuple[str, bytes]:
    """As `read_upload`, of a form that is there (RFC 7578). Worker thread: forms are large."""
    reader = FormReader(boundary)
    events = reader.receive(form)
    if not reader.is_over or not events:
        raise InvalidSpec("the multipart form is broken", where=FILE)
    for event, content in pairwise([*events, b""]):
        if isinstance(event, Part) and event.field == FILE and event.filename is not None:
            return event.filename, content if isinstance(content, bytes) else b""
    raise InvalidSpec(f'the form has no file "{FILE}"', where=FILE)


def decode(document: bytes, kind: type[T], *, limit_bytes: int = MAX_BODY) -> T:
    """A JSON document as a type: strict JSON (no duplicate keys, no NaN), lenient values ("1920" is 1920).

    Raises InvalidSpec with the field's name and its limit.
    """
    try:
        return msgspec.convert(parse_json(document, limit_bytes=limit_bytes), kind, strict=False)
    except InvalidTree as err:
        raise InvalidSpec(str(err), where=err.where) from None
    except msgspec.ValidationError as err:
        field, problem = explain(str(err))
        raise InvalidSpec(f"{field}: {problem}" if field else problem, where=field) from None


def whole_number(argument: Callable[[str], str | None], name: str) -> int | None:
    """A parameter of a query, a whole number ≥ 0 of up to 15 digits; None when it is not there. Raises InvalidSpec."""
    text = argument(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 15):
        raise InvalidSpec(f"{name} {text[:80]!r} is not a whole number", where=name)
    return int(text)


_MISSING: Final = re.compile(r"object missing required field `(.*?)`$")


def explain(message: str) -> tuple[str, str]:
    """msgspec's message → (the field's name, what is wrong with it in JSON's words).

    "Expected `int` <= 7680 - at `$.width`" → ("width", "expected a number ≤ 7680")
    """
    path, problem = in_json_words(message)
    field = path.removeprefix("$").removeprefix(".")
    missing = _MISSING.match(problem)
    if missing:
        return ".".join(filter(None, (field, missing[1]))), "is required"
    return field, problem
