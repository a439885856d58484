"""Files that users send: announced first, then stored where renderings and players find them, or not at all.

It decides who may store what, and where it lies; it refuses to know HTTP and what is made of the files. Blocking:
worker threads only. What a user calls a file is a label: paths are made of the user's name and ids of ours.

A file that comes is written where nobody looks, and moved when it is whole and what it should be. What was announced
has room kept for it for as long as a file may take to come, or until it was refused or broke off; it may still be sent
then, if there is room when it has come, and is forgotten after a day.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from sqlalchemy import ColumnElement, Connection, delete, func, insert, or_, select, update

from api.moviemasher.documents import ID, Documents
from api.moviemasher.options import EXTENSIONS, MB, Options
from api.moviemasher.users import check_name
from api.schema import uploads
from engine.errors import AlreadyExists, InvalidSpec, Overloaded, reason_of

UPLOAD_SECONDS: Final = 3600.0  # that a file may take to come, and that room is kept for it
LIFE_MS: Final = 86_400_000  # until what was announced and did not come is forgotten
MAX_ANNOUNCED: Final = 1000  # of one user: with room kept for them, and remembered at all
MAX_NAME: Final = 255
SETTLED_NS: Final = 10_000_000_000  # after a change the next one has another time, on any disk; no copy pauses so long
SPOOL: Final = ".spool"  # among the users' folders, so that a move never leaves their disk; no name of a user
PART: Final = ".part"


class Upload(NamedTuple):
    """A file that was announced.

    type    audio, font, image or video.
    name    as the user calls it.
    size    bytes, as announced; stored: as they came, None before.
    """

    id: str
    user: str
    type: str
    name: str
    extension: str
    size: int
    stored: int | None

    @property
    def source(self) -> str:
        """Where it is stored, relative to the user's folder."""
        return f"{self.id}/original.{self.extension}"


@contextmanager
def kept_on_disk() -> Iterator[None]:
    """While something is written. Raises Overloaded where the disk does not take it."""
    try:
        yield
    except OSError as err:
        raise Overloaded(f"the disk does not take it: {reason_of(err)}", where="data") from err


class _Counted(NamedTuple):
    """What was found in a folder.

    changed  when it had changed before, ns since 1970; None: it, or a file of it, so shortly before that it might
             change unnoticed.
    size     bytes of its own files.
    folders  its own.
    """

    changed: int | None
    size: int
    folders: list[Path]


class _Usage:
    """How much lies below a user's folder. `lock`: of whoever counts, and of what depends on it.

    A folder is looked through again when files came or went since it was counted: then it has another time of change.
    That is enough, since files get their names when they are whole, and are never written to again. One that somebody
    at the disk copies there is looked at until it has come; one that is written to in its place, or goes on coming
    after a pause of SETTLED_NS, counts as it was until its folder changes or the server is started again.
    """

    def __init__(self, folder: Path) -> None:
        self.lock = threading.Lock()
        self._folder = folder
        self._known: dict[Path, _Counted] = {}

    def count(self) -> int:
        """Bytes."""
        counted: dict[Path, _Counted] = {}
        waiting = [self._folder]
        while waiting:
            path = waiting.pop()
            with suppress(OSError):  # it is gone meanwhile
                counted[path] = self._counted(path)
                waiting += counted[path].folders
        self._known = counted
        return sum(each.size for each in counted.values())

    def _counted(self, path: Path) -> _Counted:
        now, changed = time.time_ns(), path.stat().st_mtime_ns
        known = self._known.get(path)
        if known is not None and known.changed == changed:
            return known
        size, folders, newest = 0, list[Path](), changed
        with os.scandir(path) as entries:
            for each in entries:
                with suppress(OSError):
                    if each.is_dir(follow_symlinks=False):
                        folders.append(path / each.name)
                    elif each.is_file():
                        status = each.stat()
                        size += status.st_size
                        if status.st_mtime_ns <= now:  # of a time that is yet to come nothing is known
                            newest = max(newest, status.st_mtime_ns)
        return _Counted(changed if now - newest > SETTLED_NS else None, size, folders)


class Files:
    """The files below a folder of media.

    wall  seconds since 1970.
    """

    def __init__(
        self,
        documents: Documents,
        media: Path,
        options: Options,
        *,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Makes the folders and removes what an earlier process left in the spool. Raises InvalidSpec."""
        self._database = documents.database
        self._media = media.absolute()
        self._spool = self._media / SPOOL
        self._options = options
        self._wall = wall
        self._usages: dict[str, _Usage] = {}
        try:
            self._spool.mkdir(parents=True, exist_ok=True)
            for part in self._spool.glob(f"*{PART}"):
                part.unlink()
        except OSError as err:
            raise InvalidSpec(f"{err.filename}: {reason_of(err)}", where="data") from err

    def folder(self, user: str) -> Path:
        """The folder of a user's media, absolute; it need not be there."""
        return self._media / check_name(user)

    def reserve(self, user: str, name: str, kind: str, size: int) -> Upload:
        """Announces a file. Raises InvalidSpec: kind, name or size may not be; Overloaded: the user has too much."""
        if kind not in EXTENSIONS:
            raise InvalidSpec(f"Invalid property type {kind[:40]}", where="type")
        limit = self._options.limits[kind]
        if not 0 < size < limit * MB:
            raise InvalidSpec(f"Invalid size {size} of {kind}, which may have less than {limit:g} MB", where="size")
        extension = name.rpartition(".")[2].lower() if "." in name else ""
        if extension not in EXTENSIONS[kind]:
            raise InvalidSpec(f"Invalid extension {extension[:20]} of {kind}", where="name")
        if len(name) > MAX_NAME:
            raise InvalidSpec(f"Invalid name of {len(name)} characters, more than {MAX_NAME}", where="name")
        upload = Upload(str(uuid.uuid4()), check_name(user), kind, name, extension, size, None)
        now = round(self._wall() * 1000)
        mine = (uploads.c.user == user, uploads.c.stored.is_(None))
        oldest = select(uploads.c.id).where(*mine).order_by(uploads.c.created.desc()).offset(MAX_ANNOUNCED - 1)
        with self._booking(user) as used, self._database.write() as connection:
            coming = connection.scalar(select(func.count()).where(*self._coming(user))) or 0
            if coming >= MAX_ANNOUNCED:
                raise Overloaded(f"{coming} files of yours are announced and did not come", where="uploads")
            self._check_quota(connection, user, used + size)
            old = or_(uploads.c.created < now - LIFE_MS, uploads.c.id.in_(oldest))
            connection.execute(delete(uploads).where(*mine, old))
            connection.execute(insert(uploads).values(created=now, **upload._asdict()))
        return upload

    def check_room(self, user: str) -> None:
        """Whether the user may have anything more, however small, made of what is there. Raises Overloaded."""
        with self._booking(user) as used, self._database.read() as connection:
            self._check_quota(connection, user, used + 1)

    def release(self, upload: Upload) -> None:
        """Keeps no more room for what did not come: it is as one that was announced too long ago. Raises Overloaded."""
        with self._database.write() as connection:
            mine = (uploads.c.id == upload.id, uploads.c.stored.is_(None))
            connection.execute(update(uploads).where(*mine).values(created=self._too_long_ago()))

    def _too_long_ago(self) -> int:
        """When that was announced for which no room is kept any more, at the latest; ms since 1970."""
        return round((self._wall() - UPLOAD_SECONDS) * 1000)

    def _coming(self, user: str) -> tuple[ColumnElement[bool], ...]:
        """Which files room is kept for."""
        return (uploads.c.user == user, uploads.c.stored.is_(None), uploads.c.created > self._too_long_ago())

    def _check_quota(self, connection: Connection, user: str, used: int) -> None:
        """Whether a user may have so many bytes beside those that room is kept for. Raises Overloaded."""
        coming = connection.scalar(select(func.sum(uploads.c.size)).where(*self._coming(user))) or 0
        if self._options.quota and used + coming > self._options.quota:
            raise Overloaded(f"Your files would have more than {self._options.quota // MB} MB", where="quota")

    @contextmanager
    def _booking(self, user: str) -> Iterator[int]:
        """One at a time for a user, as two would both find the last room.

        Gives how much the user has, with what was made of it; 0 where nobody asks.
        """
        usage = self._usages.setdefault(user, _Usage(self.folder(user)))
        with usage.lock:
            yield usage.count() if self._options.quota else 0

    def find(self, user: str, name: str) -> Upload | None:
        """What the user announced under this id."""
        which = select(*(uploads.c[field] for field in Upload._fields)).where(uploads.c.id == name)
        with self._database.read() as connection:
            row = connection.execute(which.where(uploads.c.user == user)).first()
        return None if row is None else Upload(*row)

    def path(self, user: str, name: str) -> Path | None:
        """Where the user's file of this id is stored; None: it is not."""
        upload = self.find(user, name)
        return None if upload is None or upload.stored is None else self.folder(user) / upload.source

    def begin_products(self, user: str, name: str, products: str) -> None:
        """Makes a folder for what is made of the user's file of this id: the first, or where there is room for more.

        Raises Overloaded.
        """
        folder = self.folder(user) / name
        with kept_on_disk(), self._booking(user) as used, self._database.read() as connection:
            if any(each.is_dir() for each in folder.iterdir()):
                self._check_quota(connection, user, used + 1)
            (folder / products).mkdir()

    def open_part(self) -> BinaryIO:
        """A new file in the spool, to write what comes. Raises Overloaded."""
        with kept_on_disk():
            return (self._spool / f"{uuid.uuid4()}{PART}").open("xb")

    def expect(self, user: str, name: str) -> Upload:
        """What may be stored now under this id. Raises InvalidSpec: nothing may; AlreadyExists: it is there."""
        upload = self.find(user, name)
        if upload is None:
            raise InvalidSpec(f"Invalid argument id {name[:80]}", where="id")
        if upload.stored is not None:
            raise AlreadyExists("the file is stored already", where="id")
        return upload

    def keep(self, upload: Upload, part: Path) -> None:
        """Stores what came.

        Raises AlreadyExists: another one was first; Overloaded: the user has too much, the disk does not take it.
        """
        path = self.folder(upload.user) / upload.source
        with kept_on_disk():
            size = part.stat().st_size
            with self._booking(upload.user) as used, self._database.write() as connection:
                mine = (uploads.c.id == upload.id, uploads.c.stored.is_(None))
                done = connection.execute(update(uploads).where(*mine).values(stored=size))
                if done.rowcount != 1:
                    raise AlreadyExists("the file is stored already", where="id")
                self._check_quota(connection, upload.user, used + size)
                path.parent.mkdir(parents=True, exist_ok=True)
                part.replace(path)

    def discard(self, user: str, name: str, *, uploaded: bool) -> bool:
        """Removes the user's folder of this id; returns whether there was any.

        uploaded  of a file that was sent, and not of anything else.
        """
        found = self.find(user, name)
        if uploaded != (found is not None) or not ID.fullmatch(name):
            return False
        folder = self.folder(user) / name
        there = found is not None or folder.is_dir()
        with self._database.write() as connection:
            connection.execute(delete(uploads).where(uploads.c.id == name, uploads.c.user == user))
        shutil.rmtree(folder, ignore_errors=True)
        return there
