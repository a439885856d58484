"""URLs: what stands in one, and what of it may be told: never a password, nor a query, which may be a key.

It decides that; it refuses to know what a URL is for, and who may talk to it.
"""

from __future__ import annotations

import base64
import re
from urllib.parse import SplitResult, unquote_to_bytes, urlsplit


def parts_of(url: str) -> tuple[SplitResult, int | None]:
    """A URL's parts, and its port. Raises ValueError, with nothing of the URL in its sentence."""
    try:
        parts = urlsplit(url)
        return parts, parts.port
    except ValueError:
        raise ValueError("its host or its port cannot be read") from None


def scheme_of(place: str) -> str:
    """The scheme that a URL begins with; nothing of a path, although there may be colons in a file's name.

    One letter is none: it is a drive's.
    """
    found = re.match(r"([a-zA-Z][a-zA-Z0-9+.-]+):", place)
    return found[1] if found else ""


def without_query(place: str) -> str:
    """A URL without its query and fragment; in a path, or a ``file:`` URL, "?" and "#" are letters of a file's name."""
    of_network = re.match(r"(?!file:)[a-z][a-z0-9+.-]*://", place, re.IGNORECASE)
    return before_query(place) if of_network else place


def before_query(text: str) -> str:
    """What stands before the first "?" or "#"."""
    return re.split("[?#]", text, maxsplit=1)[0]


def credentials(url: str) -> dict[str, str]:
    """The header for a URL's user and password, RFC 7617. Raises ValueError."""
    user = parts_of(url)[0].netloc.rpartition("@")[0]
    name, _, password = user.partition(":")
    both = unquote_to_bytes(name) + b":" + unquote_to_bytes(password)
    return {"Authorization": f"Basic {base64.b64encode(both).decode()}"} if user else {}


def has_spaces(text: str) -> bool:
    """Whether there is white space or a control character of ASCII in it, which no URL has."""
    return any(ord(letter) <= 32 or letter == "\x7f" for letter in text)


def clear_parts(url: str) -> SplitResult | None:
    """A URL's parts, to be told without password and query; None where nobody knows where its password ends.

    What stands before a "/", "?" or "#" that should have been encoded may look like a host with a port.
    """
    try:
        parts, _ = parts_of(url)
    except ValueError:
        return None
    behind = parts.path + parts.query + parts.fragment
    return None if "@" in behind and re.search("[:@]", parts.netloc) else parts


def _veiled(url: str) -> str:
    """All that may be told of a URL without clear parts."""
    scheme = re.match(r"[a-z][a-z0-9+.-]*:", url, re.IGNORECASE)
    return f"{scheme[0] if scheme else ''}//***"


def shown(url: str) -> str:
    """A URL for people: without password and query, not all of a long one."""
    if url[:5].lower() == "data:":
        return f"{url[:30]}…" if len(url) > 30 else url
    parts = clear_parts(url)
    if parts is None:
        text = _veiled(url)
    else:
        host = parts.netloc.rpartition("@")[2]
        text = parts._replace(netloc=host, query="", fragment="").geturl() if parts.netloc else url
    return text if len(text) <= 200 else f"{text[:200]}…"


def shown_url(url: str) -> str:
    """A URL with *** in the place of its password and of its query."""
    if "://" not in url:
        return url
    parts = clear_parts(url)
    if parts is None:
        return _veiled(url)
    user, at, host = parts.netloc.rpartition("@")
    secret = ":***" if ":" in user else ""
    return f"{parts.scheme}://{user.partition(':')[0]}{secret}{at}{host}{parts.path}" + ("?***" if parts.query else "")
