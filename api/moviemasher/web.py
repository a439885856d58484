"""The web server: users' media as players and pages fetch them, and a site of the operator's.

It decides which file an address means, of what kind it is, and who may have it; it refuses to know what is in files.
There are no lists of folders, and nothing is ever outside the folder that was meant.

Media are open to everybody who knows their address, as the client expects. Private ones have an address with an end
and a signature behind the user's name, good for all the user's media: what the client puts before every file's name.
"""

from __future__ import annotations

import hmac
import re
import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import unquote

import msgspec
import trio

from api.asgi import Answer, Refusal, Request, file_answer, text_answer
from api.mediatypes import KINDS, UNKNOWN
from api.moviemasher.users import CHALLENGE, NAME, Users
from api.whole import write_whole
from engine.config import Settings
from engine.errors import InvalidSpec, reason_of
from engine.threads import in_thread

PREFIX: Final = "/media"
ALONE: Final = "default-src 'none'; style-src 'unsafe-inline'; sandbox"
FOR_GOOD: Final = "private, max-age=86400, immutable"  # no address of media ever means another file
SIGNED: Final = re.compile(r"~(\d{1,12})-([0-9a-f]{32})")
HOUR: Final = 3600  # addresses that are given out within one are the same, and pages need not fetch all again
KEY_BYTES: Final = 32
# Where other doors answer GET: nothing of a site's.
TAKEN: Final = ("api", "brewmixer", "events", "healthz", "hls", "media", "metrics", "status", "streams")


def is_media(path: str) -> bool:
    """Whether an address is of users' media: with a user's name and a file's; a stream's may be shorter."""
    return path.startswith(f"{PREFIX}/") and path.count("/") > 2


class Media:
    """The files of all users, below a folder."""

    def __init__(self, settings: Settings, users: Users, *, wall: Callable[[], float] = time.time) -> None:
        self._folder = Path(settings.data).absolute() / "media"
        self._users = users
        self._private = settings.private_media
        self._life = settings.media_life
        self._wall = wall
        self._key = b""
        self._key_file = Path(settings.data) / "media.key"
        self._disk = trio.CapacityLimiter(8)

    def open(self) -> None:
        """Reads the key that addresses are signed with, or makes one. Blocks. Raises InvalidSpec."""
        if not self._private:
            return
        try:
            if not self._key_file.exists():
                write_whole(self._key_file, secrets.token_bytes(KEY_BYTES))
            self._key = self._key_file.read_bytes()
        except OSError as err:
            raise InvalidSpec(f"{self._key_file}: {reason_of(err)}", where="data") from err
        if len(self._key) != KEY_BYTES:
            raise InvalidSpec(
                f"{self._key_file}: {len(self._key)} bytes and not {KEY_BYTES}; if it is removed another one is made, "
                "and addresses of media that were given out are good no more",
                where="data",
            )

    def prefix(self, user: str) -> str:
        """What stands before the names of a user's files; it begins and ends with a slash."""
        if not self._private:
            return f"{PREFIX}/{user}/"
        end = round(self._wall() + self._life) // HOUR * HOUR + HOUR
        return f"{PREFIX}/{user}/~{end}-{self._sign(user, end)}/"

    def _sign(self, user: str, end: int) -> str:
        return hmac.digest(self._key, f"{user}\n{end}".encode(), "sha256").hex()[:32]

    async def answer(self, request: Request) -> Answer:
        """The file that is asked for. Raises Refusal: 401, 404, 412, 416."""
        user, *names = _components(request.path)[1:]
        signature = SIGNED.fullmatch(names[0]) if names else None
        names = names[1:] if signature else names
        if not NAME.fullmatch(user) or not all(map(_is_name, names)) or not names:
            raise Refusal(404, "no such file")
        if self._private and not self._is_signed(user, signature):
            await self._check_user(request, user)
        folder = self._folder / user
        path = await in_thread(_below, folder, names, limiter=self._disk)
        return await _answer(request, path, limiter=self._disk, cache=FOR_GOOD)

    async def _check_user(self, request: Request, user: str) -> None:
        if await self._users.of(request.headers.get("authorization")) != user:
            raise Refusal(401, "these media are somebody else's", CHALLENGE)

    def _is_signed(self, user: str, signature: re.Match[str] | None) -> bool:
        if signature is None or int(signature[1]) < self._wall():
            return False
        return hmac.compare_digest(signature[2], self._sign(user, int(signature[1])))


class Site:
    """The files of a folder, from the root of addresses on."""

    def __init__(self, folder: str) -> None:
        """Raises InvalidSpec: there is no such folder."""
        self._folder = Path(folder).absolute()
        if not self._folder.is_dir():
            raise InvalidSpec(f"{folder}: no such folder", where="web")
        self._disk = trio.CapacityLimiter(8)

    async def answer(self, request: Request) -> Answer | None:
        """The file that is asked for; None: there is none, and others may know the address."""
        *names, last = _components(request.path)
        if (names or [last])[0] in TAKEN or not all(map(_is_name, [*names, last] if last else names)):
            return None
        found = await in_thread(self._find, names, last, limiter=self._disk)
        if found is None:
            return None
        path, is_folder = found
        if is_folder:
            query = f"?{request.query}" if request.query else ""
            asked = request.path.rpartition("/")[2]  # from here: below a proxy's path, all of it is longer
            return text_answer("", 308, [("Location", f"./{asked}/{query}")])
        return await _answer(request, path, limiter=self._disk, cache="no-cache")

    def _find(self, names: Sequence[str], last: str) -> tuple[Path, bool] | None:
        try:
            path = _below(self._folder, [*names, last or "index.html"])
            return (path, path.is_dir()) if path.exists() else None
        except (Refusal, OSError):  # a name that is too long
            return None


def _components(path: str) -> list[str]:
    return [unquote(each) for each in path.split("/")[1:]]


def _is_name(name: str) -> bool:
    return name != "" and not name.startswith(".") and not re.search(r"[/\\\0]", name)


def _below(folder: Path, names: Sequence[str]) -> Path:
    """The file of these names, which may be absent. Raises Refusal (404): it would be elsewhere."""
    try:
        root = folder.resolve()
        path = root.joinpath(*names).resolve()
    except (OSError, ValueError, RuntimeError) as err:  # names that are too long, links in a ring
        raise Refusal(404, "no such file") from err
    if not path.is_relative_to(root):
        raise Refusal(404, "no such file")
    return path


async def _answer(request: Request, path: Path, *, limiter: trio.CapacityLimiter, cache: str) -> Answer:
    suffix = path.suffix.lower()
    found = await file_answer(request, path, limiter=limiter, kind=KINDS.get(suffix, UNKNOWN), cache=cache)
    if suffix == ".svg":  # by itself a page with scripts, as far as browsers know
        return msgspec.structs.replace(found, headers=[*found.headers, ("Content-Security-Policy", ALONE)])
    return found
