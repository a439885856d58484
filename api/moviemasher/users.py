"""Who the users of Movie Masher's servers are: which names may be, whose password is right.

It decides in whose name a request is made, from its Authorization header; it refuses to know what is asked for. A name
is a folder's too, so that it is a word without a path in it.

To check a password is meant to be slow, and wrong ones of one name must not keep others out: of each, whether somebody
has it or not, one password is checked at a time, in turn with those of other names.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final
from weakref import WeakValueDictionary

import msgspec
import trio

from api.asgi import Refusal
from api.auth import read_basic
from api.whole import alone, write_whole
from engine.config import Settings, check_password
from engine.errors import InvalidSpec, reason_of
from engine.threads import in_thread

NAME: Final = re.compile(r"[A-Za-z0-9_@+-][A-Za-z0-9_@+.-]{0,63}")
WORD: Final = "1 to 64 letters, digits, dots or any of _ @ + - with no dot first, or it is reserved"
SHARED: Final = "shared"  # a folder of media that everybody's renderings may read, so no user's name
CHALLENGE: Final = (("WWW-Authenticate", 'Basic realm="moviemasher", charset="UTF-8"'),)
COST: Final = (1 << 14, 8, 1)  # of scrypt: 16 MiB and about 50 ms
WAITING: Final = 50  # requests in one name, until its password is known: more than a page makes at once
RETRY: Final = (("Retry-After", "5"),)  # seconds; that many passwords take about as long
REMEMBERED: Final = 1000  # right passwords: every request has one, and scrypt is meant to be slow


class Users:
    """Knows everybody who may enter."""

    def __init__(self, settings: Settings) -> None:
        """Raises InvalidSpec: no such way to ask, a name that may not be, a file that cannot be read."""
        if settings.masher_auth not in ("basic", "none"):
            raise InvalidSpec(f'masher_auth "{settings.masher_auth}" is neither basic nor none', where="masher_auth")
        self._only = check_name(settings.masher_user) if settings.masher_auth == "none" else ""
        self._password = settings.masher_password or settings.password
        self._hashes = read_users(Path(settings.users)) if settings.users else None
        self._key = secrets.token_bytes(32)
        self._right: dict[bytes, None] = {}  # a set in order, the last seen last
        self._turns: WeakValueDictionary[str, trio.Lock] = WeakValueDictionary()  # of names that are being checked
        self._limiter = trio.CapacityLimiter(1)

    @property
    def have_passwords(self) -> bool:
        """Whether they are known by them: else any will do, or none is asked for."""
        return not self._only and (self._hashes is not None or bool(self._password))

    async def of(self, header: str | None) -> str:
        """The user of a request with this Authorization header. Raises Refusal: 401; too many would be one (429)."""
        if self._only:
            return self._only
        name, password = read_basic(header)
        if not (name and password):
            raise Refusal(401, "a user name and a password are required", CHALLENGE)
        if not _may_be(name):
            raise Refusal(401, f"the user name is not {WORD}", CHALLENGE)
        if not await self._is_right(name, password):
            raise Refusal(401, "the user name or the password is wrong", CHALLENGE)
        return name

    async def _is_right(self, name: str, password: str) -> bool:
        if self._hashes is None:
            wanted = self._password
            return not wanted or hmac.compare_digest(password.encode(), wanted.encode())
        seen = hmac.digest(self._key, f"{name}:{password}".encode(), "sha256")
        known = self._hashes.get(name, NOBODY)
        if seen not in self._right and not await self._in_turn(name, seen, partial(is_password, password, known)):
            return False
        self._right.pop(seen, None)
        if len(self._right) >= REMEMBERED:
            del self._right[next(iter(self._right))]
        self._right[seen] = None
        return True

    async def _in_turn(self, name: str, seen: bytes, check: Callable[[], bool]) -> bool:
        """What it finds, unless another request has found it to be right meanwhile. Raises Refusal (429)."""
        turn = self._turns.setdefault(name, trio.Lock())
        if turn.statistics().tasks_waiting >= WAITING:
            raise Refusal(429, "too many passwords of this user wait to be checked", RETRY)
        async with turn:
            return seen in self._right or await in_thread(check, limiter=self._limiter)


def check_name(name: str) -> str:
    """The name. Raises InvalidSpec when no user may have it."""
    if not _may_be(name):
        raise InvalidSpec(f"user name {name[:80]!r} is not {WORD}", where="user")
    return name


def _may_be(name: str) -> bool:
    return NAME.fullmatch(name) is not None and name != SHARED


def read_users(path: Path) -> dict[str, str]:
    """The users of a file and their hashed passwords. Raises InvalidSpec."""
    try:
        users = msgspec.json.decode(path.read_bytes(), type=dict[str, str])
    except OSError as err:
        raise InvalidSpec(f"{path}: {reason_of(err)}", where="users") from err
    except (msgspec.DecodeError, UnicodeDecodeError) as err:
        raise InvalidSpec(f"{path}: not a JSON object of names and hashed passwords", where="users") from err
    for name, known in users.items():
        if not _may_be(name):
            raise InvalidSpec(f"{path}: user name {name[:80]!r} is not {WORD}", where="users")
        if _parts(known) is None:
            raise InvalidSpec(f'{path}: the password of "{name}" is not hashed', where="users")
    return users


def write_user(path: Path, name: str, password: str) -> None:
    """Puts a user with this password into a file, which is made when it is not there. Raises InvalidSpec.

    Waits for who else does that. The file's owner and mode stay; of a symbolic link, the file it leads to is written.
    """
    if not password:
        raise InvalidSpec(f'the password of "{name}" is empty', where="password")
    check_password(f'the password of "{name}"', password)
    hashed = {check_name(name): hash_password(password)}
    file = Path(os.path.realpath(path))
    try:
        with alone(file, waits=True):
            users: Mapping[str, str] = read_users(file) if file.exists() else {}
            write_whole(file, msgspec.json.format(msgspec.json.encode({**users, **hashed})) + b"\n")
    except OSError as err:
        raise InvalidSpec(f"{err.filename or path}: {reason_of(err)}", where="users") from err


def hash_password(password: str) -> str:
    """What is kept of a password: ``scrypt$n$r$p$salt$hash``. Takes 50 ms."""
    salt = secrets.token_bytes(16)
    words = (base64.b64encode(each).decode() for each in (salt, _scrypt(password, salt, COST)))
    return "$".join(("scrypt", *map(str, COST), *words))


def is_password(password: str, known: str) -> bool:
    """Whether it is the password that this was kept of."""
    parts = _parts(known)
    if parts is None:
        return False
    cost, salt, wanted = parts
    return hmac.compare_digest(_scrypt(password, salt, cost), wanted)


def _parts(known: str) -> tuple[tuple[int, int, int], bytes, bytes] | None:
    try:
        word, *numbers, salt, wanted = known.split("$")
        n, r, p = map(int, numbers)
        found = (n, r, p), base64.b64decode(salt, validate=True), base64.b64decode(wanted, validate=True)
    except (ValueError, binascii.Error):
        return None
    possible = 1 < n <= 1 << 17 and n & (n - 1) == 0 and 0 < r <= 8 and 0 < p <= 8
    return found if word == "scrypt" and possible and len(found[2]) == 32 else None


def _scrypt(password: str, salt: bytes, cost: tuple[int, int, int]) -> bytes:
    n, r, p = cost
    return hashlib.scrypt(password.encode(), salt=salt, n=n, r=r, p=p, maxmem=256 << 20, dklen=32)


# Who is not there takes as long as who is.
NOBODY: Final = "$".join(("scrypt", *map(str, COST), "bm9ib2R5", base64.b64encode(bytes(32)).decode()))
