"""Puts a backup in a database's place; whatever happens meanwhile, the one or the other is there, and whole.

It decides what is checked, and what becomes of the database that was there; it refuses to know what rows mean, and who
uses the database: nobody may.

What a killed server left beside its database (``-wal``) SQLite would write into a backup that is merely copied over it,
and destroy that. So what is there is written into the old database first. That is one file then, which gets a second
name; a rename gives its first one to the backup. What lies there even so, of a database that is damaged or gone, goes
along to the second name.
"""

from __future__ import annotations

import itertools
import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

from api.schema import Database, backup, beside, jobs
from api.whole import part_of, sync_names
from engine.errors import EngineError, InvalidSpec, SourceMalformed, reason_of

OURS: Final = {jobs.name, "alembic_version"}
DAMAGED: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def restore(file: Path, path: Path) -> Path | None:
    """Puts the backup `file` in the place of the database `path`, or where none is; owner and mode stay.

    Returns  where the database that was there is now; None: there was none.
    Raises   InvalidSpec: a newer version, there is no such file, or nothing can be written. SourceMalformed: `file` is
             damaged or no database of ours; or the database is in use.
    """
    path = Path(os.path.realpath(path))  # SQLite writes beside what a link leads to
    part = path.with_name(f"{path.name}.restored")
    if Path(os.path.realpath(file)) in (part, part_of(part)):
        raise InvalidSpec(f"{file}: left by a restore that was killed: name the backup itself", where="backup")
    try:
        _remove(part)
        backup(file, part)
        _check(part, file)
        kept = _keep(path, part)
        sync_names(path.parent)  # nothing of the old one may lie beside the new one, not even behind a power cut
        part.replace(path)
        sync_names(path.parent)
    except OSError as err:
        raise InvalidSpec(f"{path}: {reason_of(err)}", where="data") from err
    finally:
        with suppress(OSError):  # nothing can be removed where nothing could be written
            _remove(part)
    return kept


def _remove(path: Path) -> None:
    """A database with what is beside it. Raises OSError."""
    for each in (path, *beside(path)):
        each.unlink(missing_ok=True)


def _check(part: Path, file: Path) -> None:
    """Opens a copy of `file` as the server will. Raises InvalidSpec, SourceMalformed."""
    try:
        with closing(sqlite3.connect(part)) as copy:
            (found,) = copy.execute("PRAGMA integrity_check(1)").fetchone()
            names = {name for (name,) in copy.execute("SELECT name FROM sqlite_master")}
    except sqlite3.Error as err:
        raise SourceMalformed(f"{file}: {err}", where="backup") from err
    if found != "ok":
        raise SourceMalformed(f"{file}: the database is damaged", where="backup")
    if not names >= OURS:
        raise SourceMalformed(f"{file}: no database of jobs", where="backup")
    try:
        Database(part).close()
        _make_one(part)
    except (EngineError, sqlite3.Error) as err:
        raise InvalidSpec(f"{file}: {err}", where="backup") from err


def _keep(path: Path, part: Path) -> Path | None:
    """Gives the database a second name, and what is left beside it; owner and mode to `part`. Raises OSError."""
    names = (path.with_name(f"{path.name}.before-restore-{n}") for n in itertools.count(1))
    kept = next(each for each in names if _is_free(each, path))
    is_there = path.exists()
    if is_there:
        _settle(path)
        status = path.stat()
        os.chown(part, status.st_uid, status.st_gid)
        part.chmod(status.st_mode & 0o770)
        if not kept.exists():
            os.link(path, kept)
    for old, new in zip(beside(path), beside(kept), strict=True):
        if old.exists():
            old.replace(new)
    return kept if is_there else None


def _is_free(name: Path, path: Path) -> bool:
    """Whether nothing has that name or lies beside it: SQLite would take that for a part of what gets it.

    It may be the database's second name already: a restore was killed.
    """
    taken = [each for each in (name, *beside(name)) if each.exists()]
    return not taken or (taken == [name] and path.exists() and name.samefile(path))


def _make_one(path: Path) -> None:
    """Writes what lies beside a database into it. Raises sqlite3.Error: it is damaged or in use, or there is no room.

    Closing it does that too, and does not say when there is no room.
    """
    with closing(sqlite3.connect(path, timeout=0)) as database:
        database.execute("PRAGMA journal_mode=DELETE")


def _settle(path: Path) -> None:
    """Makes one file of a database, unless it is damaged. Raises SourceMalformed: it is in use."""
    try:
        _make_one(path)
    except sqlite3.Error as err:
        if err.sqlite_errorcode & 0xFF not in DAMAGED:
            raise SourceMalformed(f"{path}: {err}", where="data") from err
