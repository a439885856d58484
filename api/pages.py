"""The server's own pages: the operator's console, and the description of the API, for programs and for people.

It decides what is described and how it is laid out; it refuses to know what routes do: every door lists its own.
"""

from __future__ import annotations

import hashlib
import re
from functools import cache
from html import escape
from importlib import resources
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final

import msgspec
from quart import Blueprint, Response, request

from api import brewmixer, health, nexrender, playback, streams
from api.mediatypes import KINDS
from api.moviemasher import routes
from api.openapi import JSON, SCHEMAS, Failure, description
from api.wire import Route, json_response

if TYPE_CHECKING:
    from engine import Engine

# Everything comes from here; the player's film is made by the page itself.
POLICY: Final = (
    "default-src 'self'; media-src 'self' blob:; object-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
HTML: Final = KINDS[".html"]
FILES: Final = ("console.css", "console.js", "player.js", "icon.svg")
ROUTES: Final = [
    Route("GET", "/", "The operator's page", None, "text/html"),
    Route("GET", "/docs", "This description, to read", None, "text/html"),
    Route("GET", "/openapi.json", "This description, for programs", None, dict[str, Any]),
]
DOORS: Final = (
    ("Events (BrewMixer)", brewmixer.ROUTES),
    ("Streams", streams.ROUTES),
    ("Jobs (nexrender)", nexrender.ROUTES),
    ("Movie Masher", routes.ROUTES),
    ("Playback", playback.ROUTES),
    ("Health", health.ROUTES),
    ("Pages", ROUTES),
)


def blueprint(engine: Engine) -> Blueprint:
    """The routes of this door."""
    pages = Blueprint("pages", __name__)
    folder = resources.files("api") / "console"
    console = _Page((folder / "index.html").read_bytes(), HTML)
    files = {name: _Page((folder / name).read_bytes(), KINDS[PurePath(name).suffix]) for name in FILES}
    described = _described()
    docs = _Page(page(described).encode(), HTML)
    docs_below = _Page(page(described, "../").encode(), HTML)  # asked for with a slash at the end

    @pages.get("/")
    async def index() -> Response:
        return await console.response()

    @pages.get("/console/<file>")
    async def asset(file: str) -> Response:
        if file not in files:
            return json_response(Failure(f'no file "{file}"'), 404)
        return await files[file].response()

    @pages.get("/docs")
    async def read() -> Response:
        return await (docs_below if request.path.endswith("/") else docs).response()

    @pages.get("/openapi.json")
    async def openapi() -> Response:
        return json_response(described)

    return pages


class _Page:
    """Bytes that stay the same while the server runs; asked for again, they are not sent again."""

    def __init__(self, data: bytes, kind: str) -> None:
        self._data = data
        self._kind = kind
        self._etag = hashlib.sha256(data).hexdigest()[:32]

    async def response(self) -> Response:
        headers = {
            "Cache-Control": "no-cache",
            "Content-Security-Policy": POLICY,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
        }
        response = Response(self._data, content_type=self._kind, headers=headers)
        response.set_etag(self._etag)
        await response.make_conditional(request)
        return response


@cache
def _described() -> dict[str, Any]:
    """All routes of all doors as an OpenAPI document, which is the same as long as the process lives."""
    return description(DOORS)


# --- the description, to read ----------------------------------------------------------------------------------------


def page(described: dict[str, Any], root: str = "") -> str:
    """An OpenAPI document as one HTML page.

    root  the way to the server's own page: a proxy may have it below a path.
    """
    sections = "".join(_section(tag["name"], described["paths"]) for tag in described["tags"])
    components = sorted(described["components"]["schemas"].items())
    structs = "".join(_struct(name, schema) for name, schema in components)
    links = "".join(f'<a href="#{_anchor(tag["name"])}">{escape(tag["name"])}</a>' for tag in described["tags"])
    return f"""<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <meta name="color-scheme" content="dark">
  <title>Mashtun: API</title>
  <link rel="icon" href="{root}console/icon.svg" type="image/svg+xml">
  <link rel="stylesheet" href="{root}console/console.css">
</head>
<body class="docs">
<header>
  <h1><img src="{root}console/icon.svg" alt="" width="24" height="24"> Mashtun</h1>
  <p class="quiet">API {escape(described["info"]["version"])}</p>
  <nav aria-label="Documents"><a href="{root or "."}">Console</a> <a href="{root}openapi.json">OpenAPI</a></nav>
</header>
<main>
<nav aria-label="Contents">{links}<a href="#structs">Structs</a></nav>
<div>
{sections}<section id="structs"><h2>Structs</h2>
{structs}</section>
</div>
</main>
</body>
</html>
"""


def _section(tag: str, paths: dict[str, Any]) -> str:
    rows = ""
    for path, operations in paths.items():
        for method, operation in operations.items():
            if tag in operation["tags"]:
                sent, got = operation.get("requestBody", {}), next(iter(operation["responses"].values()))
                says = f"<code>{escape(path)}</code><p>{escape(operation['summary'])}</p>"
                says += "".join(map(_parameter, operation.get("parameters", ())))
                bodies = f"<td>{_body(sent)}</td><td>{_body(got)}</td>"
                rows += f"<tr><td><b>{method.upper()}</b> {says}</td>{bodies}</tr>\n"
    head = "<tr><th>Route</th><th>Body</th><th>Answer</th></tr>"
    return f'<section id="{_anchor(tag)}"><h2>{escape(tag)}</h2><table>{head}\n{rows}</table></section>\n'


def _parameter(told: dict[str, Any]) -> str:
    """What is read beside path and body, a line each."""
    if told["in"] == "path":
        return ""
    name, says = escape(told["name"]), escape(told["description"])
    kind = _kind(told["schema"]) + (", required" if told["required"] else "")
    return f"<p><code>{'?' if told['in'] == 'query' else ''}{name}</code> {kind}: {says}</p>"


def _struct(name: str, schema: dict[str, Any]) -> str:
    required = schema.get("required", ())
    rows = "".join(
        f"<tr><td><code>{escape(field)}</code></td><td>{_kind(kind)}</td>"
        f"<td>{'required' if field in required else _default(kind)}</td></tr>\n"
        for field, kind in schema.get("properties", {}).items()
    )
    says = f"<p>{escape(schema.get('description', ''))}</p>" if "description" in schema else ""
    return f'<article id="{escape(name)}"><h3>{escape(name)}</h3>{says}<table>{rows}</table></article>\n'


def _default(kind: dict[str, Any]) -> str:
    value = kind.get("default")
    return "" if value is None else f"default <code>{escape(msgspec.json.encode(value).decode())}</code>"


def _body(told: dict[str, Any]) -> str:
    parts = []
    for media, content in told.get("content", {}).items():
        fields = " ".join(content["schema"].get("properties", ()))
        parts.append(_kind(content["schema"]) if media == JSON else f"<code>{escape(media)}</code> {escape(fields)}")
    return ", ".join(parts) or "–"


def _kind(schema: dict[str, Any]) -> str:
    """A type in a few words, with links to structs."""
    if "$ref" in schema:
        name = escape(schema["$ref"].removeprefix(SCHEMAS))
        return f'<a href="#{name}">{name}</a>'
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(map(_kind, schema["anyOf"])))
    if "enum" in schema or "const" in schema:
        return ", ".join(f"<code>{escape(str(each))}</code>" for each in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array" and isinstance(schema.get("items"), dict):
        return f"list of {_kind(schema['items'])}"
    limits = [f"{sign} {schema[word]:g}" for word, sign in (("minimum", "≥"), ("maximum", "≤")) if word in schema]
    return escape(" ".join([schema.get("type", "anything"), *limits]))


def _anchor(tag: str) -> str:
    return re.sub(r"\W+", "-", tag.lower()).strip("-")
