"""What the database looks like, and how it is opened, brought to the present version and copied while in use.

It decides tables, indexes and everything that differs between databases; it refuses to know what rows mean.

SQLite is opened so that what was committed survives a power cut (WAL, ``synchronous=FULL``). One connection writes, and
begins its transactions as a writer (``BEGIN IMMEDIATE``): two processes on one file wait for each other instead of
failing halfway. Readers see the last commit and never wait.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Final

from sqlalchemy import (
    URL,
    BigInteger,
    Column,
    Connection,
    Engine,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    create_engine,
    event,
    inspect,
    select,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import QueuePool

from api.whole import PRIVATE, alone, part_of
from engine.errors import InvalidSpec, Overloaded, SourceMalformed, reason_of

log = logging.getLogger(__name__)

VERSION: Final = "0003"  # of the tables below: the newest of api/migrations/versions
READERS: Final = 4
BUSY_MS: Final = 10_000  # until a writer gives up waiting for another process
ROOM: Final = 1 << 18  # bytes; SQLite writes 32 KiB beside a database that it opens, 140 beside one that it makes

OTHERS: Final = 0o007
_NOT_WRITTEN: Final = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_FSYNC)

_Id: Final = BigInteger().with_variant(Integer, "sqlite")  # only an Integer counts by itself there
metadata = MetaData()

jobs = Table(
    "jobs",
    metadata,
    Column("seq", _Id, primary_key=True),  # the order of creation
    Column("uid", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("tags", Text, nullable=False),  # ",a,b,", or "" without any
    Column("kind", Text, nullable=False),
    Column("executor", Text),
    Column("run", BigInteger, nullable=False),  # see api.store.RUN_BITS
    Column("attempts", Integer, nullable=False),
    Column("begun", LargeBinary),
    Column("lease", BigInteger),  # ms since 1970, as every time here
    Column("renew", BigInteger),
    Column("deadline", BigInteger),
    Column("due", BigInteger),
    Column("head", LargeBinary, nullable=False),  # JSON
    sqlite_autoincrement=True,  # the number of a removed job never comes again: cursors stay right
)
Index("jobs_uid", jobs.c.uid, unique=True)
Index("jobs_state", jobs.c.state, jobs.c.seq)
for _name, _column in (("lease", jobs.c.lease), ("due", jobs.c.due)):
    Index(f"jobs_{_name}", _column, sqlite_where=_column.is_not(None), postgresql_where=_column.is_not(None))
Index("jobs_held", jobs.c.executor, sqlite_where=jobs.c.lease.is_not(None), postgresql_where=jobs.c.lease.is_not(None))

contents = Table(  # apart from the head: it may have megabytes, and heads change with every percent
    "contents",
    metadata,
    Column("seq", _Id, primary_key=True, autoincrement=False),
    Column("content", LargeBinary, nullable=False),  # JSON
)

queue = Table(  # what may be picked now, in every pool where it may be asked for
    "queue",
    metadata,
    Column("pool", Text, primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("priority", Float, nullable=False),
)
Index("queue_priority", queue.c.pool, queue.c.priority.desc(), queue.c.seq)
Index("queue_seq", queue.c.seq)

waits = Table(  # which queued job waits for which other one
    "waits",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("uid", Text, primary_key=True),
)
Index("waits_uid", waits.c.uid)

ended = Table(  # which queued job waited for which one that is over, until it has gone on, or failed with that
    "ended",
    metadata,
    Column("id", _Id, primary_key=True),  # the order in which they ended
    Column("seq", BigInteger, nullable=False),
    Column("uid", Text, nullable=False),
    Column("state", Text, nullable=False),  # finished or error
)
Index("ended_seq", ended.c.seq)

keys = Table(  # what was created under an Idempotency-Key
    "keys",
    metadata,
    Column("key", Text, primary_key=True),
    Column("digest", LargeBinary, nullable=False),
    Column("uids", LargeBinary, nullable=False),  # JSON
    Column("created", BigInteger, nullable=False),
)
Index("keys_created", keys.c.created)

deliveries = Table(  # what webhooks have not taken yet
    "deliveries",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("uid", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("secret", Text, nullable=False),
    Column("event", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("due", BigInteger),  # none behind another one of the same job and url
    sqlite_autoincrement=True,
)
Index(
    "deliveries_due",
    deliveries.c.due,
    sqlite_where=deliveries.c.due.is_not(None),
    postgresql_where=deliveries.c.due.is_not(None),
)
Index("deliveries_order", deliveries.c.uid, deliveries.c.url, deliveries.c.id)

documents = Table(  # Movie Masher's mashes, casts and definitions
    "documents",
    metadata,
    Column("seq", _Id, primary_key=True),  # the order of creation
    Column("kind", Text, nullable=False),  # mash, cast or definition
    Column("id", Text, nullable=False),
    Column("user", Text, nullable=False),  # "": everybody may read it
    Column("type", Text, nullable=False),  # of a definition, or ""
    Column("label", Text),
    Column("icon", Text),
    Column("created", Text, nullable=False),  # ISO 8601 with milliseconds and Z
    Column("json", LargeBinary, nullable=False),  # the whole object
    sqlite_autoincrement=True,
)
Index("documents_id", documents.c.kind, documents.c.id, unique=True)
Index("documents_user", documents.c.user, documents.c.kind, documents.c.seq)

relations = Table(  # which definitions a mash needs, which mashes are in a cast
    "relations",
    metadata,
    Column("kind", Text, primary_key=True),  # of the parent: mash or cast
    Column("parent", Text, primary_key=True),
    Column("place", Integer, primary_key=True, autoincrement=False),
    Column("child", Text, nullable=False),  # may be an id that nothing has yet
)
Index("relations_child", relations.c.kind, relations.c.child)

uploads = Table(  # files of users: announced, and what came
    "uploads",
    metadata,
    Column("id", Text, primary_key=True),
    Column("user", Text, nullable=False),
    Column("type", Text, nullable=False),  # audio, font, image or video
    Column("name", Text, nullable=False),  # as the user calls it
    Column("extension", Text, nullable=False),
    Column("size", BigInteger, nullable=False),  # bytes, as announced
    Column("created", BigInteger, nullable=False),  # of one that was refused or broke off: see Files.release
    Column("stored", BigInteger),  # bytes that came; none before
)
Index("uploads_user", uploads.c.user)

_version = Table("alembic_version", MetaData(), Column("version_num", Text))


class Database:
    """The connections of a SQLite file: one that writes, several that read."""

    def __init__(self, path: Path) -> None:
        """Makes it or brings it to `VERSION` when it is not there or older.

        Raises InvalidSpec: the folder cannot be made, a newer version. SourceMalformed: no database, or no room for it.
        """
        self._writing = _open(path)
        self._reading = _engine(path, readers=READERS)

    def close(self) -> None:
        """Closes its connections."""
        self._writing.dispose()
        self._reading.dispose()

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that may write. Raises Overloaded."""
        with _translated(), self._writing.begin() as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that reads. Raises Overloaded."""
        with _translated(), self._reading.begin() as connection:
            yield connection


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except DBAPIError as err:
        raise Overloaded(f"the database does not take it: {err.orig}", where="database") from err


def _open(path: Path) -> Engine:
    """For writing, with its tables."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _close_to_others(path)
        writing = _engine(path, readers=0)
        try:
            with writing.begin() as connection:
                migrate(connection)
        except BaseException:
            writing.dispose()
            raise
    except OSError as err:
        raise InvalidSpec(f"{path.parent}: {reason_of(err)}", where="data") from err
    except DBAPIError as err:
        raise SourceMalformed(f"{path}: {_reason_in(path.parent, err)}", where="data") from err
    return writing


def beside(path: Path) -> list[Path]:
    """What SQLite may have written beside a database, and takes for a part of whatever has the database's name."""
    return [path.with_name(path.name + ending) for ending in ("-wal", "-shm", "-journal")]


def _close_to_others(path: Path) -> None:
    """Makes the file, for its owner alone; of one that is there, a group keeps what it was given and others nothing.

    Jobs have passwords, tokens and webhooks' secrets. SQLite gives what it writes beside a database the mode of that,
    so what an older version, or a killed server, has left there is closed as well. Raises OSError.
    """
    if not path.exists():
        path.touch(mode=PRIVATE)
    for each in (path, *beside(path)):
        # Gone with the last connection of another process; another user's; or a file system has no modes.
        with suppress(OSError):
            mode = each.stat().st_mode
            if each.is_file() and mode & OTHERS:
                each.chmod(mode & ~OTHERS)


def _reason_in(folder: Path, err: DBAPIError) -> str:
    """Why: where a disk is full, SQLite may say no more than "disk I/O error"."""
    try:
        with TemporaryFile(dir=folder) as file:
            file.write(bytes(ROOM))
    except OSError as problem:
        return reason_of(problem)
    return str(err.orig)


def _engine(path: Path, *, readers: int) -> Engine:
    """Connections of one kind to a SQLite file: for one writer, or for so many readers."""
    url = URL.create("sqlite", database=str(path))  # a path may have what means something in the text of a URL
    made = create_engine(url, poolclass=QueuePool, pool_size=readers or 1, max_overflow=0, pool_reset_on_return=None)
    begin = "BEGIN" if readers else "BEGIN IMMEDIATE"

    @event.listens_for(made, "connect")
    def configure(connection: sqlite3.Connection, _: object) -> None:
        connection.isolation_level = None  # we say BEGIN; Python's module would say it too late
        for pragma in (f"busy_timeout={BUSY_MS}", "journal_mode=WAL", "synchronous=FULL"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(made, "begin")
    def start(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return made


def migrate(connection: Connection) -> None:
    """Brings the tables to `VERSION`, in the connection's transaction. Raises InvalidSpec when they are newer."""
    known = inspect(connection).has_table("alembic_version")
    found = connection.scalar(select(_version.c.version_num)) if known else None
    if found == VERSION:
        return
    log.info("database: from version %s to %s", found or "none", VERSION)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    from alembic import command  # a quarter of a second that nobody needs otherwise
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", "api:migrations")
    try:
        command.upgrade(config, "head")
    except CommandError as err:
        raise InvalidSpec(f"the database has version {found}, newer than {VERSION}", where="data") from err


def backup(path: Path, target: Path) -> None:
    """Copies a database that may be in use, as of one moment, into a file that appears when it is whole.

    Nobody but its owner may read that. Of a target that is a symbolic link, the file it leads to is written. Raises
    InvalidSpec: it cannot be written, is no file, or another backup is being written there; SourceMalformed: the
    database cannot be read.
    """
    file = Path(os.path.realpath(target))
    try:
        if not path.is_file():
            raise InvalidSpec(f"{path}: no such database", where="data")
        if file.is_symlink() or (target.exists() and (not target.is_file() or _is_descriptor(target))):
            raise InvalidSpec(f"{target}: is not a file", where="backup")
        if file.exists() and file.samefile(path):
            raise InvalidSpec(f"{target}: the database itself", where="backup")
        with alone(part_of(file)):
            _copy(path, file)
    except BlockingIOError as err:
        raise InvalidSpec(f"{target}: another backup is being written to it", where="backup") from err
    except OSError as err:
        raise InvalidSpec(f"{target}: {reason_of(err)}", where="backup") from err
    except sqlite3.Error as err:
        if getattr(err, "sqlite_errorcode", None) in _NOT_WRITTEN:  # the database is only read
            raise InvalidSpec(f"{target}: {err}", where="backup") from err
        raise SourceMalformed(f"{path}: {err}", where="data") from err


def _copy(path: Path, file: Path) -> None:
    """Makes the backup, or leaves what is there. Raises OSError, sqlite3.Error."""
    part = part_of(file)
    try:
        part.unlink(missing_ok=True)  # of a backup that was killed
        part.touch(mode=PRIVATE)  # the file's own errors, before there are SQLite's, which name no file
        reading = f"{path.absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(reading, uri=True)) as source, closing(sqlite3.connect(part)) as copy:
            source.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")  # one file, that can be read where nothing can be written
        for each in beside(file):  # of a backup that had its name
            each.unlink(missing_ok=True)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def _is_descriptor(name: Path) -> bool:
    """Whether it is what a process has open, as /dev/stdout is: that stays the file it was when another takes its name.

    Nothing but a file that exists may be asked about: links may lead round in a circle.
    """
    while name.is_symlink():
        if Path(os.path.realpath(name.parent)).is_relative_to("/proc"):
            return True
        name = name.parent / name.readlink()
    return False
