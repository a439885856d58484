"""Mashes, casts and definitions on disk, each its user's: merged, related, found again; every step one transaction.

It decides what is read and written; it refuses to know HTTP, files and what a document shows. Blocking: worker threads
only. `put_…` and `delete` one at a time, the others beside them and each other, up to `api.schema.READERS`.

An object is kept whole, as it came; the columns beside it are for finding it. What a mash needs is kept as ids in the
order they were given, also of definitions that are nobody's: clients name built-in ones too.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import msgspec
from msgspec import Raw
from sqlalchemy import ColumnElement, Connection, Select, delete, exists, func, insert, or_, select, update

from api.moviemasher.fields import Object
from api.moviemasher.mash import MAX_FOLDERS
from api.schema import Database, documents, relations
from engine.errors import AlreadyExists, Conflict, InvalidMash, NotFound, Overloaded
from engine.timebase import utc

Kind = Literal["mash", "cast", "definition"]

TEMPORARY: Final = "temporary-"  # what the ids of a client's new objects begin with
ID: Final = re.compile(r"[A-Za-z0-9_@+-][A-Za-z0-9_@+.:-]{0,127}")
TYPES: Final = (  # that the client can construct; one other blanks its whole picker
    "audio", "clip", "container", "content", "effect", "filter", "font", "image", "video", "videosequence",
)  # fmt: skip
MAX_BYTES: Final = 8 << 20  # of one document
MAX_ANSWER: Final = 64 << 20  # of all that are read at once
MAX_RELATED: Final = 10_000  # definitions of a mash
MAX_LAYERS: Final = 1000  # mashes in a cast
_CREATED: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
_PARENTS: Final[Mapping[Kind, Kind]] = {"definition": "mash", "mash": "cast"}
_OUR_KEYS: Final = ("id", "createdAt", "userId")


class Found(NamedTuple):
    """A document as JSON, a cast with its mashes in it; and the definitions that it needs, as JSON each."""

    text: Raw
    needed: list[Raw]

    @property
    def document(self) -> Object:
        """What the JSON says."""
        return msgspec.json.decode(self.text, type=Object)

    @property
    def definitions(self) -> list[Object]:
        """What theirs says."""
        return [msgspec.json.decode(text, type=Object) for text in self.needed]


class Documents:
    """Those of one database.

    quota  bytes of one user's documents; 0: as many as there is room for.
    """

    def __init__(self, path: Path, *, quota: int = 0) -> None:
        """Opens it. Raises InvalidSpec, SourceMalformed as `api.schema.Database`."""
        self._quota = quota
        self.database = Database(path)

    def close(self) -> None:
        """Closes its connections."""
        self.database.close()

    # Reading

    def get(self, kind: Kind, user: str, name: str) -> Found:
        """The user's document of this id; a definition may be everybody's. Raises NotFound."""
        with self.database.read() as connection:
            reader = _Reader(connection, user)
            document = reader.get(kind, name)
            if document is None:
                raise NotFound(kind, name)
            return reader.found(kind, name, document)

    def owner(self, name: str) -> str:
        """Whose mash or cast this id is. Raises NotFound."""
        which = select(documents.c.user).where(documents.c.kind.in_(("mash", "cast")), documents.c.id == name)
        with self.database.read() as connection:
            user = connection.scalar(which)
        if user is None:
            raise NotFound("mash", name[:80])
        return str(user)

    def default(self, kind: Kind, user: str) -> Found | None:
        """The user's newest mash that is in no cast, or newest cast; None: there is none."""
        newest = (documents.c.created.desc(), documents.c.seq.desc())
        which = select(documents.c.id, documents.c.json).where(*_listed(kind, user)).order_by(*newest).limit(1)
        with self.database.read() as connection:
            reader = _Reader(connection, user)
            found = next(reader.texts(which), None)
            return None if found is None else reader.found(kind, *found)

    def retrieve(
        self, kind: Kind, user: str, *, types: Sequence[str] | None = None, partial: bool = False
    ) -> list[Raw] | list[Object]:
        """The user's documents in the order of their creation: mashes that are in no cast, definitions of these types.

        partial  only id, label and icon of each; else all that is in each, as JSON.
        Raises Overloaded when they are too long together.
        """
        columns = (documents.c.id, *((documents.c.label, documents.c.icon) if partial else (documents.c.json,)))
        which = select(*columns).where(*_listed(kind, user)).order_by(documents.c.seq)
        if types is not None:
            which = which.where(documents.c.type.in_(types))
        with self.database.read() as connection:
            if partial:
                return [dict(row._mapping) for row in connection.execute(which)]
            return [text for _, text in _Reader(connection, user).texts(which)]

    # Writing

    def put_mash(self, user: str, mash: Object, needed: Sequence[str] | None = None) -> dict[str, str]:
        """Lays its members over the user's mash of this id, or makes it; returns temporary id → permanent one.

        needed  ids of its definitions; None: as before.
        Raises InvalidMash, AlreadyExists: the id is another user's.
        """
        with self.database.write() as connection:
            name = self._put(connection, "mash", user, mash)
            if needed is not None:
                _relate(connection, "mash", name, needed)
        return _renamed(mash, name)

    def put_cast(self, user: str, cast: Object, needed: Mapping[str, Sequence[str]] | None = None) -> dict[str, str]:
        """As `put_mash` for a cast and the mashes in its layers, which are kept as mashes.

        needed  ids of definitions by the mash's id, as it is in the cast.
        Raises InvalidMash, AlreadyExists; NotFound: a mash is an id only, and of none of the user's.
        """
        lookup: dict[str, str] = {}
        mashes: list[str] = []
        layers = cast.get("layers")

        def keep(mash: Object) -> Object:
            given = str(mash.get("id"))
            name = lookup.get(given) or self._put_layer(connection, user, mash)
            lookup.update(_renamed(mash, name))
            ids = (needed or {}).get(given, (needed or {}).get(name))
            if ids is not None:
                _relate(connection, "mash", name, ids)
            mashes.append(name)
            if len(mashes) > MAX_LAYERS:
                raise InvalidMash(f"$.cast.layers: more than {MAX_LAYERS} mashes", where="$.cast.layers")
            return {"id": name}

        with self.database.write() as connection:
            kept = {**cast, "layers": with_mashes(layers, keep)} if layers is not None else cast
            name = self._put(connection, "cast", user, kept)
            if layers is not None:
                _relate(connection, "cast", name, mashes)
        return _renamed(cast, name) | lookup

    def put_definition(self, user: str, definition: Object) -> str:
        """As `put_mash`; returns its id. Raises InvalidMash, Conflict ("403"): it is another user's."""
        with self.database.write() as connection:
            try:
                return self._put(connection, "definition", user, definition)
            except AlreadyExists as err:
                raise Conflict("403", where=err.where) from None

    def delete(self, kind: Kind, user: str, name: str) -> list[str]:
        """Removes it, if no other document of the user needs it; returns the ids of those that do.

        Raises NotFound; Conflict ("403"): it is another user's.
        """
        mine = (documents.c.kind == kind, documents.c.id == name)
        with self.database.write() as connection:
            owner = connection.scalar(select(documents.c.user).where(*mine))
            if owner is None:
                raise NotFound(kind, name)
            if owner != user:
                raise Conflict("403", where=name)
            users = _users_of(connection, kind, user, name)
            if not users:
                connection.execute(delete(documents).where(*mine))
                connection.execute(delete(relations).where(relations.c.kind == kind, relations.c.parent == name))
        return users

    def _put_layer(self, connection: Connection, user: str, mash: Object) -> str:
        """The id of a mash in a cast: kept now, or already where there is only an id."""
        name = mash.get("id")
        if mash.keys() != {"id"} or not isinstance(name, str) or _is_temporary(name):
            return self._put(connection, "mash", user, mash)
        if _Reader(connection, user).get("mash", name) is None:
            raise NotFound("mash", name[:80])
        return name

    def _put(self, connection: Connection, kind: Kind, user: str, given: Object) -> str:
        """The id of the document, when it is in the table."""
        name = given.get("id")
        if name in (None, "") or _is_temporary(name):
            name = str(uuid.uuid4())
        if not isinstance(name, str) or not ID.fullmatch(name):
            raise InvalidMash(f"$.{kind}.id: {str(name)[:80]!r} is no id", where=f"$.{kind}.id")
        which = (documents.c.kind == kind, documents.c.id == name)
        row = connection.execute(select(documents.c.user, documents.c.created, documents.c.json).where(*which)).first()
        if row is not None and row.user != user:
            raise AlreadyExists(f'{kind} "{name}" is another user\'s', where=name)
        before = msgspec.json.decode(row.json) if row is not None else {}
        created = row.created if row is not None else self._created(given)
        merged = {**before, **{key: value for key, value in given.items() if key not in _OUR_KEYS}}
        columns = _columns(kind, {**merged, "id": name, "createdAt": created})
        if self._quota:
            self._check_quota(connection, user, len(columns["json"]) - (0 if row is None else len(row.json)))
        if row is not None:
            connection.execute(update(documents).where(*which).values(columns))
        else:
            connection.execute(insert(documents).values(kind=kind, id=name, user=user, created=created, **columns))
        return name

    def _check_quota(self, connection: Connection, user: str, more: int) -> None:
        used = connection.scalar(select(func.sum(func.length(documents.c.json))).where(documents.c.user == user)) or 0
        if more > 0 and used + more > self._quota:
            raise Overloaded(f"Your documents would have more than {self._quota >> 20} MB", where="quota")

    def _created(self, given: Object) -> str:
        """When a new document was made: what it says itself, or now."""
        told = given.get("createdAt")
        if isinstance(told, str) and _CREATED.fullmatch(told):
            return told
        return utc(time.time_ns() // 1_000_000)


def _is_temporary(name: object) -> bool:
    return isinstance(name, str) and name.startswith(TEMPORARY)


def _renamed(given: Object, name: str) -> dict[str, str]:
    return {given["id"]: name} if _is_temporary(given.get("id")) else {}


def _columns(kind: Kind, document: Object) -> Object:
    """The columns that change with the document. Raises InvalidMash."""
    texts = {
        name: value if isinstance(value := document.get(name), str) else None for name in ("label", "icon", "type")
    }
    if kind == "definition" and texts["type"] not in TYPES:
        problem = "is required" if texts["type"] is None else f"{texts['type'][:40]!r} is no type of definitions"
        raise InvalidMash(f"$.definition.type: {problem}", where="$.definition.type")
    json = msgspec.json.encode(document)
    if len(json) > MAX_BYTES:
        raise InvalidMash(f"$.{kind}: {len(json)} bytes, more than {MAX_BYTES}", where=f"$.{kind}")
    return {**texts, "type": texts["type"] or "" if kind == "definition" else "", "json": json}


def _listed(kind: Kind, user: str) -> list[ColumnElement[bool]]:
    """Which documents a user is shown in lists."""
    conditions = [documents.c.kind == kind, _visible(kind, user)]
    if kind == "mash":
        in_cast = exists().where(relations.c.kind == "cast", relations.c.child == documents.c.id)
        conditions.append(~in_cast)
    return conditions


def _visible(kind: Kind, user: str) -> ColumnElement[bool]:
    own = documents.c.user == user
    return or_(own, documents.c.user == "") if kind == "definition" else own


class _Reader:
    """What one user reads in one transaction; all together has an end. Raises Overloaded."""

    def __init__(self, connection: Connection, user: str) -> None:
        self._connection = connection
        self._user = user
        self._rest = MAX_ANSWER  # bytes

    def texts(self, which: Select[Any]) -> Iterator[tuple[str, Raw]]:
        """(id, JSON) of a statement that selects them. Nothing is decoded: nothing else runs meanwhile, no mixer."""
        for name, json in self._connection.execute(which):
            self._rest -= len(json)
            if self._rest < 0:
                raise Overloaded(f"what is asked for has more than {MAX_ANSWER} bytes: ask for less, or partial ones")
            yield name, Raw(json)

    def get(self, kind: Kind, name: str) -> Raw | None:
        """The document of this id, if the user may see it."""
        mine = (documents.c.kind == kind, documents.c.id == name, _visible(kind, self._user))
        found = next(self.texts(select(documents.c.id, documents.c.json).where(*mine)), None)
        return None if found is None else found[1]

    def found(self, kind: Kind, name: str, document: Raw) -> Found:
        """A document with what it needs; a cast with its mashes."""
        if kind == "definition":
            return Found(document, [])
        if kind == "mash":
            return Found(document, self._needed([name]))
        which = (relations.c.kind == "cast", relations.c.parent == name)
        mashes = self._connection.scalars(select(relations.c.child).where(*which).order_by(relations.c.place)).all()
        cast: Object = msgspec.json.decode(document)
        if "layers" in cast:
            cast["layers"] = with_mashes(cast["layers"], self._filled)
        return Found(Raw(msgspec.json.encode(cast)), self._needed(mashes))

    def _filled(self, mash: Object) -> Raw | Object:
        return self.get("mash", str(mash.get("id"))) or mash

    def _needed(self, mashes: Sequence[str]) -> list[Raw]:
        """The definitions of these mashes, each once."""
        found: dict[str, Raw] = {}
        for name in mashes:
            which = (
                select(documents.c.id, documents.c.json)
                .join(relations, relations.c.child == documents.c.id)
                .where(relations.c.kind == "mash", relations.c.parent == name)
                .where(documents.c.kind == "definition", _visible("definition", self._user))
                .order_by(relations.c.place)
            )
            for definition, text in self.texts(which):
                found.setdefault(definition, text)
        return list(found.values())


def _relate(connection: Connection, kind: Kind, parent: str, children: Sequence[str]) -> None:
    """Makes these the parent's, in this order."""
    if len(children) > MAX_RELATED:
        raise InvalidMash(f"{len(children)} definitions of one mash, more than {MAX_RELATED}", where="definitionIds")
    connection.execute(delete(relations).where(relations.c.kind == kind, relations.c.parent == parent))
    rows = [
        {"kind": kind, "parent": parent, "place": place, "child": child}
        for place, child in enumerate(dict.fromkeys(children))
    ]
    if rows:
        connection.execute(insert(relations), rows)


def _users_of(connection: Connection, kind: Kind, user: str, name: str) -> list[str]:
    """The user's documents that need this one."""
    parents = _PARENTS.get(kind)
    if parents is None:
        return []
    which = (
        select(documents.c.id)
        .join(relations, relations.c.parent == documents.c.id)
        .where(relations.c.kind == parents, relations.c.child == name)
        .where(documents.c.kind == parents, documents.c.user == user)
        .order_by(documents.c.seq)
    )
    return list(connection.scalars(which))


def with_mashes(layers: object, change: Callable[[Object], Raw | Object], depth: int = 0) -> list[Any]:
    """A cast's layers with every mash changed, in folders too."""
    if not isinstance(layers, list):
        raise InvalidMash("$.cast.layers: expected an array", where="$.cast.layers")
    if depth > MAX_FOLDERS:
        raise InvalidMash(f"$.cast.layers: more than {MAX_FOLDERS} folders within one another", where="$.cast.layers")
    changed: list[Any] = []
    for layer in layers:
        if isinstance(layer, dict) and isinstance(layer.get("mash"), dict):
            layer = {**layer, "mash": change(layer["mash"])}
        elif isinstance(layer, dict) and "layers" in layer:
            layer = {**layer, "layers": with_mashes(layer["layers"], change, depth + 1)}
        changed.append(layer)
    return changed
