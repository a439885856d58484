"""The description of the API for programs: an OpenAPI document of the routes that the doors list.

It decides what is said of a route; it refuses to know what routes do, and who asks.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from types import UnionType
from typing import Any, Final, get_args

import msgspec

from api import nexrender, playback
from api.wire import FILE, FormBody, Route

VERSION: Final = "1.0"  # of the API
JSON: Final = "application/json"
SCHEMAS: Final = "#/components/schemas/"
TEXT: Final = {"type": "string"}
BYTES: Final = {"type": "string", "format": "binary"}
_PARAMETER: Final = re.compile(r"{(\w+)}")

Doors = Sequence[tuple[str, Sequence[Route]]]  # a heading, and the routes below it


class Failure(msgspec.Struct, frozen=True):
    """Every answer that is no success: one sentence."""

    error: str


def description(doors: Doors) -> dict[str, Any]:
    """All routes of all doors as an OpenAPI document."""
    routes = [route for _, listed in doors for route in listed]
    bodies = [body for route in routes for body in (route.request, route.response, Failure)]
    bodies = [body for body in bodies if body is not None and not isinstance(body, str | FormBody)]
    kinds = list(dict.fromkeys(kind for body in bodies for kind in _kinds_of(body)))
    made, components = msgspec.json.schema_components(kinds, ref_template=SCHEMAS + "{name}")
    schemas = dict(zip(kinds, made, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for tag, listed in doors:
        for route in listed:
            paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, tag, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Mashtun", "version": VERSION, "summary": "RenderTrees and streams in, mixes out"},
        "tags": [{"name": tag} for tag, _ in doors],
        "security": [{}, {"basic": []}],  # nothing, or what the server was started with
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "basic": {"type": "http", "scheme": "basic"},
                "secret": {"type": "apiKey", "in": "header", "name": nexrender.SECRET},
            },
        },
    }


def _kinds_of(body: Any) -> tuple[Any, ...]:
    """The types that a body may have, one by one: of a union with several structs msgspec makes no schema."""
    return get_args(body) if isinstance(body, UnionType) else (body,)


def _operation(route: Route, tag: str, schemas: dict[Any, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {
        "operationId": re.sub(r"\W+", "_", f"{route.method.lower()}{route.path}").strip("_"),
        "tags": [tag],
        "summary": route.summary,
        "responses": {
            route.success: _content("It is done", route.response, schemas),
            "default": _content("It is not", _failure_of(route), schemas),
        },
    }
    names = _PARAMETER.findall(route.path)
    read = [{"name": n, "in": "path", "required": True, "schema": TEXT} for n in names]
    for name, kind, says, place, required in route.parameters:
        told = {"name": name, "in": place, "required": required, "description": says}
        read.append({**told, "schema": msgspec.json.schema(kind)})
    if read:
        made["parameters"] = read
    if _is_of_jobs(route):
        made["security"] = [{}, {"basic": []}, {"secret": []}]
    if route.request is not None:
        made["requestBody"] = {"required": route.needs_body, **_content("", route.request, schemas)}
    return made


def _is_of_jobs(route: Route) -> bool:
    return route.path.startswith(f"{nexrender.PREFIX}/")


def _failure_of(route: Route) -> Any:
    """One sentence in every door: as text to nexrender's clients."""
    return "text/plain" if _is_of_jobs(route) else Failure


def _content(says: str, kind: Any, schemas: dict[Any, Any]) -> dict[str, Any]:
    """What is sent, of a kind as in `Route`."""
    told: dict[str, Any] = {"description": says} if says else {}
    if isinstance(kind, FormBody):
        fields = {**dict.fromkeys(kind.fields, TEXT), FILE: BYTES}
        form = {"type": "object", "required": [*fields], "properties": fields}
        told["content"] = {"multipart/form-data": {"schema": form}}
    elif isinstance(kind, str):
        told["content"] = {kind: {"schema": TEXT if kind.startswith("text/") or kind == playback.PLAYLIST else BYTES}}
    elif kind is not None:
        made = [schemas[each] for each in _kinds_of(kind)]
        told["content"] = {JSON: {"schema": {"anyOf": made} if len(made) > 1 else made[0]}}
    return told
