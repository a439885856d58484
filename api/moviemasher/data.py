"""The data server: what clients ask about mashes, casts and definitions, and the words they are answered with.

It decides how requests and answers are written; it refuses to know how documents are kept.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Final, TypeVar

import msgspec
import trio

from api.moviemasher.documents import Documents, Found, Kind
from api.moviemasher.door import Handler
from api.moviemasher.fields import Object
from api.moviemasher.options import Options
from api.schema import READERS
from api.wire import explain
from engine.errors import InvalidSpec, NotFound
from engine.threads import in_thread

T = TypeVar("T")
KINDS: Final[tuple[Kind, ...]] = ("mash", "cast", "definition")
EMPTY: Final = msgspec.Raw(b"{}")
USERS: Final[Mapping[Kind, tuple[str, str]]] = {"definition": ("mashIds", "mash(es)"), "mash": ("castIds", "cast(s)")}


class Named(msgspec.Struct):
    """A request for one document, or one stream."""

    id: str


class Retrieval(msgspec.Struct):
    """A request for many."""

    partial: bool = False
    types: list[str] = []


class PutMash(msgspec.Struct, rename="camel"):
    """A mash, and the ids of all definitions that it uses; None: as before."""

    mash: Object
    definition_ids: list[str] | None = None


class PutCast(msgspec.Struct, rename="camel"):
    """A cast, and the same for each of its mashes."""

    cast: Object
    definition_ids: dict[str, list[str]] | None = None


class PutDefinition(msgspec.Struct):
    """A definition."""

    definition: Object


def wanted(request: Object, kind: type[T]) -> T:
    """A request as what it should be. Raises InvalidSpec with the member's name."""
    try:
        return msgspec.convert(request, kind)
    except msgspec.ValidationError as err:
        member, problem = explain(str(err))
        raise InvalidSpec(f"{member}: {problem}", where=member) from None


class DataServer:
    """Answers the requests.

    discard  removes the files of a user's document of a kind; returns whether there were any.
    """

    def __init__(
        self,
        documents: Callable[[], Documents],
        options: Options,
        discard: Callable[[Kind, str, str], Awaitable[bool]],
    ) -> None:
        self._documents = documents
        self._options = options
        self._discard = discard
        self._writer = trio.CapacityLimiter(1)
        self._readers = trio.CapacityLimiter(READERS)

    def handlers(self) -> dict[str, Handler]:
        """What answers each path."""
        found: dict[str, Handler] = {
            "/data/mash/put": self._put_mash,
            "/data/cast/put": self._put_cast,
            "/data/definition/put": self._put_definition,
        }
        for kind in KINDS:
            found[f"/data/{kind}/get"] = partial(self._get, kind)
            found[f"/data/{kind}/retrieve"] = partial(self._retrieve, kind)
            found[f"/data/{kind}/delete"] = partial(self._delete, kind)
            if kind != "definition":
                found[f"/data/{kind}/default"] = partial(self._default, kind)
        return found

    async def _read(self, step: Callable[[Documents], T]) -> T:
        return await in_thread(step, self._documents(), limiter=self._readers)

    async def _write(self, step: Callable[[Documents], T]) -> T:
        return await in_thread(step, self._documents(), limiter=self._writer)

    async def _get(self, kind: Kind, user: str, request: Object) -> Object:
        name = wanted(request, Named).id
        try:
            found = await self._read(lambda documents: documents.get(kind, user, name))
        except NotFound:
            raise InvalidSpec(f"Could not find {kind} {name[:80]}", where="id") from None
        return {kind: found.text} | ({} if kind == "definition" else {"definitions": found.needed})

    async def _default(self, kind: Kind, user: str, request: Object) -> Object:
        found = await self._read(lambda documents: documents.default(kind, user)) or Found(EMPTY, [])
        size = self._options.preview
        preview = {"previewSize": {"width": size.width, "height": size.height}} if self._options.has_preview else {}
        return {kind: found.text, "definitions": found.needed, **preview}

    async def _retrieve(self, kind: Kind, user: str, request: Object) -> Object:
        asked = wanted(request, Retrieval)
        types = asked.types if kind == "definition" else None
        found = await self._read(
            lambda documents: documents.retrieve(kind, user, types=types, partial=asked.partial),
        )
        return {"definitions" if kind == "definition" else "described": found}

    async def _put_mash(self, user: str, request: Object) -> Object:
        asked = wanted(request, PutMash)
        lookup = await self._write(lambda documents: documents.put_mash(user, asked.mash, asked.definition_ids))
        return {"temporaryIdLookup": lookup}

    async def _put_cast(self, user: str, request: Object) -> Object:
        asked = wanted(request, PutCast)
        lookup = await self._write(lambda documents: documents.put_cast(user, asked.cast, asked.definition_ids))
        return {"temporaryIdLookup": lookup}

    async def _put_definition(self, user: str, request: Object) -> Object:
        asked = wanted(request, PutDefinition)
        return {"id": await self._write(lambda documents: documents.put_definition(user, asked.definition))}

    async def _delete(self, kind: Kind, user: str, request: Object) -> Object:
        name = wanted(request, Named).id
        try:
            users = await self._write(lambda documents: documents.delete(kind, user, name))
        except NotFound:
            if kind == "definition" and await self._discard(kind, user, name):
                return {}  # what was imported and never saved
            raise InvalidSpec(f"Could not find {kind.capitalize()} with id: {name[:80]}", where="id") from None
        if users:
            member, word = USERS[kind]
            return {member: users, "error": f"Referenced by {len(users)} {word}"}
        await self._discard(kind, user, name)
        return {}
