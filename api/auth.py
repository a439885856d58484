"""Who may ask: HTTP Basic for people and programs, signed creations for clusters, and no open door by mistake.

It decides whether a request may go on; it refuses to know what it asks for. Without a configured user name everybody
may ask; that is why a server without one listens on loopback only, unless told otherwise.

Open even then: preflights, ``/healthz``, and GET of everything in the playback door (players send no credentials). The
door of jobs, ``/api/v1``, checks by itself: its clients know a secret of their own, and pages of other sites, which may
read what it answers, ask nothing without it.

Pages of other sites must not do with the credentials that a browser knows what its user did not ask for. So a page's
request that changes something counts only where it comes from our own page, or where the browser has asked us for leave
first: then it carries no credentials but the page's own. Programs are no pages: they send no Origin.

A page's own address may be made to lead here (DNS rebinding): then it is our own page as far as its browser knows. It
has no password, and where none is asked for, what counts is by which name we are asked.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import socket
from collections.abc import Callable, Mapping
from typing import Final

from quart import Request, Websocket
from werkzeug.datastructures import Authorization, Headers, WWWAuthenticate
from werkzeug.exceptions import BadRequest, Forbidden, Unauthorized

from engine.config import Settings
from engine.errors import InvalidSpec

PLAYBACK: Final = "playback"  # the blueprint that needs no credentials
READING: Final = ("GET", "HEAD", "OPTIONS")
LEAVE: Final = "JSON as application/json, or the header X-Requested-With"  # so that browsers ask for leave
# Names that lead where their owner likes have a dot in them.
OUR_HOST: Final = re.compile(r"\[[0-9a-f:.]+\]|[0-9.]+|[^.]*|.+\.localhost|host\.docker\.internal")
LABEL: Final = 63  # letters between two dots (RFC 1035 2.3.4)
PORTS: Final = {"http": ":80", "https": ":443"}
WINDOW_MS: Final = 60_000  # a signature's time may be so far from ours: clocks differ, requests wait


def check_exposure(settings: Settings) -> None:
    """Raises InvalidSpec when the server would be open to other machines without credentials, or has half of them."""
    if bool(settings.username) != bool(settings.password):
        present, absent = ("username", "password") if settings.username else ("password", "username")
        raise InvalidSpec(f"a {present} is set and no {absent}", where=absent)
    if settings.insecure or _is_loopback(settings.host):
        return
    if settings.masher_auth != "basic":
        raise InvalidSpec(
            f'host "{settings.host}" is open to other machines, masher_auth is "{settings.masher_auth}", and insecure '
            "is not set",
            where="masher_auth",
        )
    if not settings.username:
        sentence = (
            f'host "{settings.host}" is open to other machines, and neither username and password nor insecure is set'
        )
        raise InvalidSpec(sentence, where="host")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_host(settings: Settings, host: str) -> None:
    """Lets a request with this Host header go on, or raises Forbidden (403): no such name is surely this machine's.

    With a user name any is right, and where everybody may ask by any name (`insecure`). Raises BadRequest (400): no
    machine can have it.
    """
    name = re.sub(r":\d*$", "", host.lower())
    labels = name.partition(":")[0].split(".")
    if name.isascii() and not (all(labels[:-1]) and max(map(len, labels)) <= LABEL):  # the application would end at it
        raise BadRequest(f'the server is asked as "{name[:200]}", which is no name of a machine')
    if settings.username or settings.insecure or OUR_HOST.fullmatch(name) or name == socket.gethostname().lower():
        return
    raise Forbidden(
        f'the server is asked as "{name[:200]}", which need not be this machine: where it is, start it with --username '
        "and MASHTUN_PASSWORD, or with --insecure"
    )


def check_request(settings: Settings, request: Request | Websocket) -> None:
    """Lets a request go on, or raises Unauthorized (401) or Forbidden (403)."""
    method = request.method
    if method == "OPTIONS" or request.path == "/healthz":
        return
    if request.blueprint == PLAYBACK and method in READING:
        return
    check_basic(settings, request.headers.get("authorization"))
    if method in READING or not is_from_elsewhere(request.headers):
        return
    if not allows_origins(request):
        raise Forbidden("pages of other sites may only use /brewmixer and playback")
    if settings.username and not is_by_leave(method, request.headers):
        raise Forbidden(f"pages of other sites must send {LEAVE}")


def is_from_elsewhere(headers: Mapping[str, str] | Headers) -> bool:
    """Whether a page of another site asks. Browsers send Sec-Fetch-Site to https: and localhost only, Origin to all."""
    site, origin = headers.get("sec-fetch-site", ""), headers.get("origin")
    if site in ("same-origin", "none"):
        return False
    if origin is None:
        return bool(site)
    scheme, _, here = origin.lower().rpartition("://")
    port = PORTS.get(scheme, "")  # browsers leave it out (RFC 6454 6.2), proxies may not
    return here.removesuffix(port) != headers.get("host", "").lower().removesuffix(port)


def is_of_this_machine(headers: Mapping[str, str] | Headers) -> bool:
    """Whether the page that asks says it was served, at any port, by the machine on which its browser runs."""
    host = re.sub(r":\d*$", "", headers.get("origin", "").lower().rpartition("/")[2])
    return host.endswith(".localhost") or _is_loopback(host.strip("[]"))


def is_by_leave(method: str, headers: Mapping[str, str] | Headers) -> bool:
    """Whether it is a request that no browser makes for a page of another site before it has asked for leave."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    return method not in ("GET", "HEAD", "POST") or kind == "application/json" or "x-requested-with" in headers


def allows_origins(request: Request | Websocket) -> bool:
    """Whether pages of other sites may read the answer: players, and the vendor's pages, which run elsewhere."""
    return request.path.startswith("/brewmixer") or request.blueprint == PLAYBACK


def read_basic(header: str | None) -> tuple[str, str]:
    """User name and password of an Authorization header; both are empty where it has none that can be read."""
    try:
        given = Authorization.from_header(header)
    except ValueError:  # what is not ASCII is no base64
        return "", ""
    if given is None or given.type != "basic":
        return "", ""
    return given.username or "", given.password or ""


def check_basic(settings: Settings, header: str | None) -> None:
    """Lets a request with this Authorization go on, or raises Unauthorized (401); without a user name everybody."""
    if not settings.username:
        return
    name, password = read_basic(header)
    right = is_same(name, settings.username) & is_same(password, settings.password)
    if not right:
        realm = WWWAuthenticate("basic", {"realm": "mashtun", "charset": "UTF-8"})
        raise Unauthorized("user name or password is missing or wrong", www_authenticate=realm)


def is_same(given: str, wanted: str) -> bool:
    """Whether they are the same, in a time that tells nothing; what is given may be UTF-8 read as Latin-1."""
    found, sought = given.encode(errors="replace"), wanted.encode()
    return hmac.compare_digest(found, sought) | hmac.compare_digest(found, sought.decode("latin-1").encode())


def sign(secret: str, parts: tuple[str, ...], timestamp_ms: int) -> str:
    """The lower-case hex HMAC-SHA256 of ``part|part|…|timestamp``."""
    message = "|".join((*parts, str(timestamp_ms)))
    return hmac.new(secret.encode(), message.encode(), hashlib.sha256).hexdigest()


class Signatures:
    """Checks signed requests: each within WINDOW_MS of now, each good once, as long as this process knows of it.

    One that is started anew takes again what has not run out. To refuse what was signed before the start would keep out
    signers whose clocks are behind, everybody where our own clock is set back later, and not stop who is ahead.

    wall  seconds since 1970, as the signer's clock counts them.
    """

    def __init__(self, secret: str, wall: Callable[[], float]) -> None:
        self._secret = secret
        self._wall = wall
        self._used: dict[str, int] = {}  # digest → until when it could be used again, ms; only right ones come here

    @property
    def required(self) -> bool:
        """Whether a secret is configured."""
        return bool(self._secret)

    def check(self, parts: tuple[str, ...], *, timestamp_ms: int | None, digest: str | None) -> None:
        """Lets a request go on if the digest is right, and uses it up. Raises Unauthorized (401)."""
        if timestamp_ms is None or digest is None:
            raise _unsigned("digest and timestamp are required")
        now = round(self._wall() * 1000)
        if abs(now - timestamp_ms) > WINDOW_MS:
            raise _unsigned(f"timestamp {timestamp_ms} is not within {WINDOW_MS} ms of {now}")
        right = sign(self._secret, parts, timestamp_ms)
        if any("|" in part for part in parts) or not is_same(digest.lower(), right):
            raise _unsigned("digest is wrong")
        self._used = {each: until for each, until in self._used.items() if until >= now}
        if right in self._used:
            raise _unsigned("digest was used before")
        self._used[right] = timestamp_ms + WINDOW_MS


def _unsigned(sentence: str) -> Unauthorized:
    return Unauthorized(sentence, www_authenticate=WWWAuthenticate("hmac-sha256", {"realm": "mashtun"}))
