"""What a job names is brought here: files, ``http(s):`` and ``data:`` URLs; and what it made is sent where it says.

It decides which addresses may be talked to, how much may come and how long it may take; it refuses to know what the
bytes are.

Theory of operation
-------------------
A job is written by somebody who may not see what this machine sees. So a name is resolved once, each of its addresses
is judged, and the connection goes to an address that was judged; a redirect is a new name. Only addresses that are
reachable from everywhere pass, unless private ones are allowed; one that has an IPv4 address inside is judged by that.

What came by HTTP is kept in a cache: with a checksum it is taken from there without a question, without one the server
is asked whether it has changed. Files of the cache appear whole and are never written to again; who may need one takes
a link of its own before it asks, so any can go at any time, and one that is replaced goes at once. What is known of a
file is there before the file is, so a file that nothing is known of is nobody's. The disk is others' too: what is kept
leaves as much room as it takes, and all of it goes for a download that finds none.

A URL's user and password are HTTP Basic; they and the headers of a job go to the origin that the job names and, as soon
as a redirect leads elsewhere, nowhere. A copy that came with headers is kept for those who have the same.

A transfer blocks in a thread. It is ended from outside by closing its line, from when that begins to connect, so no
peer's pace outlasts the deadline, nor any peer's silence who waits for it. The deadline is that of a stretch of it, and
moves on with each: a film has the hours that it takes, a peer that drips has not, however much came before.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import http.client
import ipaddress
import mimetypes
import os
import re
import shutil
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final, TypeVar
from urllib.parse import quote, unquote, unquote_to_bytes, urljoin, urlsplit

import msgspec
import trio

from engine.dial import Line, answer_of
from engine.errors import (
    InvalidJob,
    SinkRejected,
    SinkUnavailable,
    SourceMalformed,
    SourceUnavailable,
    SourceUnsupported,
    reason_of,
)
from engine.spec import LISTS
from engine.structs import ready
from engine.threads import in_thread
from engine.urls import before_query, credentials, parts_of, scheme_of, shown

REDIRECTS: Final = 5
SILENCE: Final = 15.0  # seconds without a byte
PIECE: Final = 1 << 18
BLOCK: Final = 8192  # bytes of a file that are sent at a time, and taken within SILENCE
STRETCH: Final = 64 << 20  # bytes that have a time of their own: with that of `Limits`, 0.6 Mbit/s at least
UNKNOWN_LIFE: Final = 1800.0  # seconds; what still comes is written to within the time of a stretch
HASHES: Final = ("md5", "sha1", "sha256", "sha512")
_PUBLIC_SCHEMES: Final = ("http", "https")
MAX_STYLE: Final = 1 << 20
_STYLE_URL: Final = re.compile(r"url\(\s*['\"]?([^'\")]+)")
_MOVED: Final = (301, 302, 303, 307, 308)
_AS_IT_IS: Final = "!#$%&'()*+,/:;=?@[]"  # in a URL; also letters, digits and -._~ (RFC 3986 §2); % of what is quoted
_PACKED: Final = ("gzip", "x-gzip", "deflate")  # as Content-Encoding says it
_EITHER: Final = 32 + zlib.MAX_WBITS  # a header of gzip or of zlib
_FROM_URLS: Final = bytes.maketrans(b"-_", b"+/")
_SEALED: Final = ("br", "zstd", "compress", "x-compress")  # which nothing here unpacks
_OURS: Final = frozenset(  # headers of what is fetched: how it comes, whether it does, and that all of it does
    (
        *("If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since", "If-Range"),
        *("Host", "Range", "Accept-Encoding", "Content-Length", "Expect", "Proxy-Authorization"),
        *("Connection", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade"),
    )
)
_HEADER_NAME: Final = re.compile(r"[\w!#$%&'*+.^`|~-]+", re.ASCII)  # RFC 9110 §5.1
_HEADER_VALUE: Final = re.compile(r"[\t -~\xa0-\xff]*")
_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT)
_ERRORS: Final = (OSError, http.client.HTTPException, ValueError)
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
T = TypeVar("T")


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How much and how long."""

    max_bytes: int = 8 << 30  # of what is brought here; a file that is here may be larger
    seconds: float = 900.0  # for each `STRETCH` of a transfer, and for one that has less
    cache_bytes: int = 10 << 30  # less where the disk has not as much room besides
    at_once: int = 4  # transfers; others wait for their turn, which is no part of `seconds`


class Fetcher:
    """Fetches and sends. `base` is the folder that a path begins in; `cache` is where copies are kept."""

    def __init__(self, *, base: Path, cache: Path, allow_private: bool = False, limits: Limits | None = None) -> None:
        self._base = base
        self._limits = limits or Limits()
        self._cache = _Cache(cache, self._limits.cache_bytes)
        self._allow_private = allow_private
        self._limiter = trio.CapacityLimiter(self._limits.at_once)
        self._disk = trio.CapacityLimiter(2)

    async def fetch(
        self,
        src: str,
        folder: Path,
        name: str,
        *,
        extension: str = "",
        checksum: str = "",
        headers: Mapping[str, str] | None = None,
        max_bytes: int | None = None,
    ) -> Path:
        """The file that `src` names: itself if it is one here, else a copy `folder`/`name` with an extension.

        extension  its; "" = as the URL or the server says.
        checksum   of what the file is, however it came: "sha256:…", also md5, sha1, sha512; "" = any.
        headers    to ask an HTTP server with; those in `_OURS` are left out.
        max_bytes  that it may have; what has to be brought, never more than the limit.
        Raises InvalidJob (no such scheme, a refused address, headers that are none), SourceUnavailable,
               SourceMalformed (too large, checksum, an encoding that cannot be read), SourceUnsupported (a playlist).
        """
        if checksum and not re.fullmatch(rf"({'|'.join(HASHES)}):[0-9a-fA-F]+", checksum):
            raise InvalidJob(f"checksum {checksum[:80]!r} is not ALGORITHM:HEX with one of {', '.join(HASHES)}")
        scheme = src[:8].partition(":")[0].lower()
        if scheme not in (*_PUBLIC_SCHEMES, "data"):
            path = self.path_of(src)
            if scheme == "file" and not await in_thread(
                os.path.exists, path, limiter=self._disk, abandon_on_cancel=True
            ):
                path = self.path_of(before_query(src))  # what stands there was no part of its name
            await in_thread(_check_file, path, src, checksum, max_bytes, limiter=self._disk, abandon_on_cancel=True)
            return path
        limit = min(max_bytes or self._limits.max_bytes, self._limits.max_bytes)
        if scheme in _PUBLIC_SCHEMES:
            download = _Download(
                src,
                folder / name,
                extension=_dotted(extension),
                checksum=checksum,
                limit=limit,
                headers=headers or {},
                cache=self._cache,
                allow_private=self._allow_private,
            )
            path = await self._in_thread(download, src, download.run)
        else:
            unpacking = partial(_unpack, src, folder, name, extension, checksum, limit)
            path = await in_thread(unpacking, limiter=self._disk)
        if path.name.lower().endswith(LISTS):  # what somebody else says must not lead to files here
            raise SourceUnsupported(f'source "{shown(src)}" lists other files, which are not fetched', where=shown(src))
        return path

    async def fetch_media(self, src: str, folder: Path, name: str) -> Path:
        """As `fetch`; of a style sheet the font that it names last. Raises SourceMalformed, too: it names none."""
        path = await self.fetch(src, folder, name)
        if path.suffix != ".css":
            return path
        style = await in_thread(_read_style, path, limiter=self._disk)
        fonts = _STYLE_URL.findall(style.decode(errors="replace"))
        if not fonts:
            raise SourceMalformed(f'source "{shown(src)}" names no font', where=shown(src))
        font = urljoin(src, fonts[-1])
        if not re.match("(https?|data):", font, re.IGNORECASE):  # what a server says must not lead to files here
            raise InvalidJob(f'source "{shown(font)}" is not an http:, https: or data: URL', where=shown(src))
        return await self.fetch(font, folder, f"{name}-font")

    def path_of(self, src: str) -> Path:
        """Where a ``file:`` URL, "?" and "#" and all, or a path is. Raises InvalidJob: another scheme, no URL."""
        scheme, colon, rest = src.partition(":")
        if colon and scheme.lower() == "file":
            try:
                host = urlsplit(src).netloc
            except ValueError as err:
                raise InvalidJob(f'source "{shown(src)}": {reason_of(err)}') from None
            if host not in ("", "localhost"):
                raise InvalidJob(f'source "{shown(src)}": a file of another machine')
            return self._base / unquote(rest.removeprefix(f"//{host}"))
        if scheme_of(src):
            raise InvalidJob(f'source "{shown(src)}": {scheme[:20]}: is not one of file:, http:, https:, data:')
        return self._base / src

    async def send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | Path,
        limiter: trio.CapacityLimiter | None = None,
    ) -> None:
        """Sends bytes or a file. Raises InvalidJob (also: no headers), SinkUnavailable, SinkRejected (4xx).

        limiter  instead of `Limits.at_once`; its place is taken until the thread has ended, which may be later.
        """
        sending = _Sending(method, url, headers, body, allow_private=self._allow_private)
        status = await self._in_thread(sending, url, sending.run, limiter)
        if not 200 <= status < 300:
            error = SinkRejected if 400 <= status < 500 else SinkUnavailable
            raise error(f'"{shown(url)}" answers {status}', where=shown(url))

    async def tidy(self) -> None:
        """Takes the oldest away where the cache is too large."""
        await in_thread(self._cache.tidy, self._limits.cache_bytes, limiter=self._disk)

    async def _in_thread(
        self, transfer: _Transfer, url: str, run: Callable[[], T], limiter: trio.CapacityLimiter | None = None
    ) -> T:
        seconds, limiter = self._limits.seconds, limiter or self._limiter
        with trio.CancelScope() as scope:

            def renew() -> None:
                scope.deadline = trio.current_time() + seconds

            def started() -> T:
                transfer.renew = partial(trio.from_thread.run_sync, renew)
                transfer.renew()
                return run()

            try:
                return await in_thread(started, limiter=limiter, abandon_on_cancel=True)
            finally:
                transfer.close()
        least = f" for the last {STRETCH >> 20} MiB" if transfer.is_long else ""
        raise transfer.unavailable(f'"{shown(url)}" took longer than {seconds:g} s{least}', where=shown(url))


def is_public(address: str) -> bool:
    """Whether an IP address is reachable from everywhere, and one machine's."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    return ip.is_global and not ip.is_multicast


def file_in(folders: Iterable[Path], name: str, *, inside: bool = True) -> Path | None:
    """A file by its path from a folder, the first of these that has it. Worker thread.

    inside  it does not lead out of that folder, nor by a link, and there is none in what is returned.
    """
    for folder in folders:
        with suppress(OSError, ValueError, RuntimeError):  # no file: too long a name, one with a NUL, links in a ring
            path = (folder / name).resolve() if inside else folder / name
            if path.is_file() and (not inside or path.is_relative_to(folder.resolve())):
                return path
    return None


class _Transfer:
    """One talk with a server. Worker thread, but `close`.

    unavailable  what is raised when there is none.
    renew        gives it its time anew.
    is_long      whether that was done: it has more than a stretch.
    """

    unavailable: type[SourceUnavailable | SinkUnavailable] = SourceUnavailable
    renew: Callable[[], None]
    is_long = False

    def __init__(self, url: str, *, allow_private: bool) -> None:
        self.url = url
        self._allow_private = allow_private
        self._line: Line | None = None
        self._closed = False

    def close(self) -> None:
        """Ends it, from any thread."""
        self._closed = True
        if self._line is not None:
            self._line.close()

    def _connect(self, url: str) -> tuple[http.client.HTTPConnection, str]:
        """(connection, what to ask there for). Raises InvalidJob, OSError, ValueError."""
        secure, host, port = _origin(url)
        self._line = line = Line(host, port, secure=secure, timeout=SILENCE)
        if self._closed:
            line.close()
        found = line.addresses()
        allowed = [each for each in found if self._allow_private or is_public(str(each[4][0]))]
        if not allowed:
            raise InvalidJob(f'"{shown(url)}": {found[0][4][0]} is a private address', where=shown(url))
        parts = urlsplit(url)
        asked = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return line.open(allowed), quote(asked, safe=_AS_IT_IS)

    def _in_stretches(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """The same; each `STRETCH` of them has its own time."""
        size = 0
        for piece in pieces:
            size += len(piece)
            if size >= STRETCH:
                size, self.is_long = 0, True
                self.renew()
            yield piece


class _Download(_Transfer):
    """From a URL into the cache, and from there to `path` and an extension: "" = as the URL or the server says."""

    def __init__(
        self,
        url: str,
        path: Path,
        *,
        extension: str,
        checksum: str,
        limit: int,
        headers: Mapping[str, str],
        cache: _Cache,
        allow_private: bool,
    ) -> None:
        super().__init__(url, allow_private=allow_private)
        given = _headers(url, headers)
        self._headers = {name: value for name, value in given.items() if name not in _OURS}
        self._key = repr((url, sorted(self._headers.items())))
        self._path = path
        self._extension = extension
        self._checksum = checksum
        self._limit = limit
        self._cache = cache

    def run(self) -> Path:
        """Where it is. Raises as `Fetcher.fetch`."""
        try:
            kept = self._cache.find(self._key, self._path)
            if kept is not None and self._checksum and _matches(self._path, self._checksum):
                extension = kept.extension
            else:
                extension = self._come(None if kept is not None and kept.size > self._limit else kept)
            return self._path.replace(self._path.with_name(self._path.name + (self._extension or extension)))
        except zlib.error as err:
            raise SourceMalformed(f'source "{shown(self.url)}": {reason_of(err)}', where=shown(self.url)) from err
        except _ERRORS as err:
            raise SourceUnavailable(f'source "{shown(self.url)}": {reason_of(err)}', where=shown(self.url)) from err

    def _come(self, kept: _Kept | None) -> str:
        """Its extension. Where there is no room for it, it comes once more, in the place of all that is kept."""
        try:
            return self._follow(kept)
        except OSError as err:
            self._path.unlink(missing_ok=True)  # it may be what was kept
            if err.errno not in _NO_ROOM or not self._cache.tidy(0):
                raise
        return self._follow(None)

    def _follow(self, kept: _Kept | None) -> str:
        url, given = self.url, credentials(self.url) | self._headers
        for _ in range(REDIRECTS + 1):
            connection, path = self._connect(url)
            try:
                ours = {"Accept-Encoding": "identity", "Connection": "close"}
                conditions = {} if self._checksum else _conditions(kept)
                connection.request("GET", path, headers={"User-Agent": "mashtun"} | given | ours | conditions)
                with connection.getresponse() as answer:
                    if answer.status == 304 and kept is not None:
                        return kept.extension
                    if answer.status in (200, 203):  # 203: a proxy has changed something
                        return self._take(answer, url)
                    before, url = url, self._next(answer, url)
                if _origin(url) != _origin(before):
                    given = {}
            finally:
                connection.close()
        raise SourceUnavailable(f'source "{shown(self.url)}": more than {REDIRECTS} redirects', where=shown(self.url))

    def _next(self, answer: http.client.HTTPResponse, url: str) -> str:
        target = answer.getheader("Location")
        if answer.status in _MOVED and target:
            return urljoin(url, quote(target, safe=_AS_IT_IS, encoding="latin-1"))  # the bytes that came
        raise SourceUnavailable(f'source "{shown(url)}": the server answers {answer.status}', where=shown(url))

    def _take(self, answer: http.client.HTTPResponse, url: str) -> str:
        part = self._cache.part()
        try:
            algorithm, _, wanted = self._checksum.lower().partition(":")
            digest = hashlib.new(algorithm) if algorithm else None
            with part.open("wb") as file:
                size = self._copy(answer, file, digest)
            if digest is not None and digest.hexdigest() != wanted:
                raise SourceMalformed(f'source "{shown(url)}": its checksum is not {self._checksum}', where=shown(url))
            kept = _Kept(
                path=part,
                size=size,
                extension=_extension(url, answer.getheader("Content-Type", "")),
                etag=answer.getheader("ETag", ""),
                changed=answer.getheader("Last-Modified", ""),
            )
            _link(part, self._path)
            self._cache.keep(self._key, kept)
            return kept.extension
        finally:
            part.unlink(missing_ok=True)

    def _copy(self, answer: http.client.HTTPResponse, file: BinaryIO, digest: hashlib._Hash | None) -> int:
        """Writes what the answer is, unpacked, and adds it to the digest; returns its size."""
        size = 0
        for piece in self._unpacked(answer):
            size += len(piece)
            if size > self._limit:
                raise _too_large(self.url, self._limit)
            if self._closed:
                raise OSError("given up")
            file.write(piece)
            if digest is not None:
                digest.update(piece)
        return size

    def _unpacked(self, answer: http.client.HTTPResponse) -> Iterator[bytes]:
        """Words for its encoding that nobody knows mean nothing, as to browsers: stores keep what uploads said."""
        words = re.split(r"[\s,]+", answer.getheader("Content-Encoding", "").lower())
        known = [word for word in words if word in _PACKED + _SEALED]
        if known[1:] or set(known) & set(_SEALED):
            sentence = f'source "{shown(self.url)}": its encoding {", ".join(known)} cannot be read'
            raise SourceMalformed(sentence, where=shown(self.url))
        pieces = self._in_stretches(_pieces(answer))
        return _inflated(pieces) if known else pieces


class _Sending(_Transfer):
    """A request with a body; redirects are not followed."""

    unavailable = SinkUnavailable

    def __init__(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | Path, *, allow_private: bool
    ) -> None:
        super().__init__(url, allow_private=allow_private)
        self._method = method
        self._headers = _headers(url, headers)
        self._body = body

    def run(self) -> int:
        """The status. Raises InvalidJob, SinkUnavailable."""
        try:
            connection, path = self._connect(self.url)
            given = credentials(self.url) | self._headers
            headers = {"User-Agent": "mashtun", "Connection": "close"} | given
            try:
                if isinstance(self._body, bytes):
                    answer = answer_of(connection, self._method, path, self._body, headers)
                else:
                    with self._body.open("rb") as file:
                        headers["Content-Length"] = str(self._body.stat().st_size)
                        pieces = self._in_stretches(iter(partial(file.read, BLOCK), b""))
                        answer = answer_of(connection, self._method, path, pieces, headers)
                with answer:
                    return answer.status
            finally:
                connection.close()
        except _ERRORS as err:
            raise SinkUnavailable(f'"{shown(self.url)}": {reason_of(err)}', where=shown(self.url)) from err


class _Kept(msgspec.Struct, kw_only=True):
    path: Path
    size: int = 0
    extension: str = ""
    etag: str = ""
    changed: str = ""


ready(_Kept)


class _Cache:
    """Copies of what was asked for: each a file and, beside it, what is known of it. Worker threads, several.

    limit_bytes  so much may stay; less, where the disk would have less room than what stays.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._folder = folder
        self._limit = limit_bytes

    def part(self) -> Path:
        """A new file to write to."""
        self._folder.mkdir(parents=True, exist_ok=True)
        return self._folder / f"{os.urandom(12).hex()}.part"

    def find(self, key: str, path: Path) -> _Kept | None:
        """What is kept of it, which is at `path` then too."""
        known = self._known(key)
        try:
            kept = self._read(known)
            if kept.path.stat().st_size != kept.size:
                return None
            _link(kept.path, path)
            os.utime(known)
        except (OSError, msgspec.DecodeError, SinkUnavailable):
            return None
        return kept

    def keep(self, key: str, kept: _Kept) -> None:
        """Takes the file in; what was kept before is removed, and what there is too little room for."""
        known = self._known(key)
        before: Path | None = None
        with suppress(OSError, msgspec.DecodeError):
            before = self._read(known).path
        path = kept.path.with_suffix(".bin")
        part = self.part()
        part.write_bytes(msgspec.json.encode(msgspec.structs.replace(kept, path=path), enc_hook=lambda path: path.name))
        part.replace(known)
        kept.path.replace(path)
        if before is not None:
            before.unlink(missing_ok=True)
        if shutil.disk_usage(self._folder).free < self._limit:  # else there is as much room as can be kept
            self.tidy(self._limit)

    def tidy(self, limit_bytes: int) -> bool:
        """Removes what was used the longest time ago, and what no one knows any more. Returns whether anything was."""
        unknown = set(self._folder.glob("*.bin"))  # listed first: one that comes later is none of them
        known: list[tuple[float, Path, Path, int]] = []
        for path in self._folder.glob("*.json"):
            with suppress(OSError, msgspec.DecodeError):
                kept = self._read(path)
                known.append((path.stat().st_mtime, path, kept.path, kept.size))
        if known:
            room = sum(size for *_, size in known) + shutil.disk_usage(self._folder).free
            limit_bytes = min(limit_bytes, room // 2)
        size = 0
        for _, path, content, its in sorted(known, reverse=True):
            if size + its > limit_bytes:
                path.unlink(missing_ok=True)
            else:
                unknown.discard(content)
                size += its
        old = time.time() - UNKNOWN_LIFE
        for path in self._folder.glob("*.part"):
            with suppress(OSError):
                if path.stat().st_mtime < old:
                    unknown.add(path)
        for path in unknown:
            with suppress(OSError):
                path.unlink()
        return bool(unknown)

    def _read(self, known: Path) -> _Kept:
        return msgspec.json.decode(known.read_bytes(), type=_Kept, dec_hook=lambda _, name: self._folder / name)

    def _known(self, key: str) -> Path:
        return self._folder / f"{hashlib.sha256(key.encode(errors='replace')).hexdigest()}.json"


def _origin(url: str) -> tuple[bool, str, int]:
    """(whether TLS, host, port). Raises InvalidJob, ValueError."""
    parts, port = parts_of(url)
    if parts.scheme not in _PUBLIC_SCHEMES or not parts.hostname:
        raise InvalidJob(f'"{shown(url)}" is not an http: or https: URL')
    secure = parts.scheme == "https"
    return secure, parts.hostname, port or (443 if secure else 80)


def _headers(url: str, given: Mapping[str, str]) -> dict[str, str]:
    """Headers, each once whatever its capitals. Raises InvalidJob, with none of them in its sentence."""
    if not all(_HEADER_NAME.fullmatch(name) and _HEADER_VALUE.fullmatch(value) for name, value in given.items()):
        sentence = f'"{shown(url)}": a header is not a word and one line of Latin letters'
        raise InvalidJob(sentence, where=shown(url))
    return {name.title(): value for name, value in given.items()}


def _pieces(answer: http.client.HTTPResponse) -> Iterator[bytes]:
    """What comes, at most `PIECE` at a time. Raises OSError: not all of it came."""
    size = 0
    while piece := answer.read(PIECE):
        size += len(piece)
        yield piece
    declared = answer.getheader("Content-Length", "")
    if declared.isdigit() and int(declared) != size:
        raise OSError(f"{size} of {declared} bytes came")


def _inflated(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """What was packed with gzip or zlib, `PIECE` by `PIECE`. Raises zlib.error, and OSError: it ends too soon."""
    stream = zlib.decompressobj(_EITHER)
    for piece in pieces:
        while piece:
            if stream.eof:  # a gzip file may be several, one after the other
                stream = zlib.decompressobj(_EITHER)
            yield stream.decompress(piece, PIECE)
            piece = stream.unconsumed_tail or stream.unused_data
    if not stream.eof:
        raise OSError("what is packed breaks off")


def _conditions(kept: _Kept | None) -> dict[str, str]:
    if kept is None:
        return {}
    asked = {"If-None-Match": kept.etag, "If-Modified-Since": kept.changed}
    return {name: value for name, value in asked.items() if value}


def _extension(url: str, content_type: str) -> str:
    """With its dot; "" when nobody knows."""
    suffix = Path(unquote(urlsplit(url).path)).suffix
    guessed = mimetypes.guess_extension(content_type.partition(";")[0].strip()) or ""
    return suffix if re.fullmatch(r"\.[A-Za-z0-9]{1,8}", suffix) else guessed


def _dotted(extension: str) -> str:
    return f".{extension.lstrip('.')}" if re.fullmatch(r"\.?[A-Za-z0-9]{1,8}", extension) else ""


def _link(found: Path, path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
        try:
            os.link(found, path)
        except OSError:  # another file system
            shutil.copyfile(found, path)
    except OSError as err:
        raise SinkUnavailable(f'"{path.name}" cannot be kept: {reason_of(err)}') from err


def _unpack(src: str, folder: Path, name: str, extension: str, checksum: str, limit: int) -> Path:
    """A ``data:`` URL as a file (RFC 2397); its base64 may be that of URLs, and without padding (RFC 4648 §5, §3.2)."""
    head, comma, text = src[5:].partition(",")
    if not comma:
        raise SourceMalformed(f'source "{shown(src)}": a data: URL without a comma')
    try:
        content = unquote_to_bytes(text)
        if head.lower().replace(" ", "").endswith(";base64"):
            letters = content.translate(_FROM_URLS, b" \t\n\r\f\v")
            content = base64.b64decode(letters + b"=" * (-len(letters) % 4), validate=True)
    except ValueError as err:
        raise SourceMalformed(f'source "{shown(src)}": {err}') from None
    if len(content) > limit:
        raise _too_large(src, limit)
    path = folder / f"{name}{_dotted(extension) or _extension('', head)}"
    try:
        path.write_bytes(content)
    except OSError as err:
        raise SinkUnavailable(f'"{path.name}" cannot be kept: {reason_of(err)}') from err
    _check_file(path, src, checksum, limit)
    return path


def _check_file(path: Path, src: str, checksum: str, limit: int | None) -> None:
    try:
        if not path.is_file():
            raise SourceUnavailable(f'source "{shown(src)}": no such file', where=shown(src))
        if limit is not None and path.stat().st_size > limit:
            raise _too_large(src, limit)
        if checksum and not _matches(path, checksum):
            raise SourceMalformed(f'source "{shown(src)}": its checksum is not {checksum}', where=shown(src))
    except (OSError, ValueError) as err:
        raise SourceUnavailable(f'source "{shown(src)}": {reason_of(err)}', where=shown(src)) from err


def _read_style(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_STYLE)


def _matches(path: Path, checksum: str) -> bool:
    algorithm, _, wanted = checksum.partition(":")
    digest = hashlib.new(algorithm)
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            trio.from_thread.check_cancelled()  # a film may take minutes
            digest.update(piece)
    return digest.hexdigest() == wanted.lower()


def _too_large(src: str, limit: int) -> SourceMalformed:
    return SourceMalformed(f'source "{shown(src)}": more than {limit} bytes', where=shown(src))
