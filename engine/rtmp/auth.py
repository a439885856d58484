"""Adobe's authentication of publishers, in the query of connect's app: what Flash Media Server, Wowza, Akamai ask for.

It decides what answers a refusal that asks for a user and password; it refuses to know connections: every answer needs
a new one. Not in the RTMP specification; it is as librtmp and FFmpeg do it.

Theory of operation
-------------------
1. A plain connect is refused with a description that contains ``code=403 need auth; authmod=adobe``.
2. One with ``?authmod=adobe&user=U`` is refused with ``?reason=needauth&user=U&salt=S&challenge=C&opaque=O``.
3. One with ``…&challenge=R&response=H&opaque=O`` is let in. With MD5 in base64: H = md5(md5(U S password) + O + R), or
   C for O where there is none; R is random.
"""

from __future__ import annotations

import base64
import hashlib
from urllib.parse import quote

_ASKED = "?reason=needauth&"


def query(description: str, *, user: str, password: str, random: str) -> str | None:
    """What to put behind the app when a connect was refused with this description; None: it asks for nothing we have.

    random  some letters or digits.
    """
    name = quote(user, safe="")
    if "authmod=adobe" not in description or not user:
        return None
    _, asked, text = description.partition(_ASKED)
    if not asked:
        return None if "?reason=" in description else f"authmod=adobe&user={name}"
    fields = dict(part.partition("=")[::2] for part in text.split("&"))
    salt, challenge, opaque = (fields.get(field, "").strip() for field in ("salt", "challenge", "opaque"))
    response = _md5(_md5(user + salt + password) + (opaque or challenge) + random)
    answer = f"authmod=adobe&user={name}&challenge={random}&response={response}"
    return f"{answer}&opaque={opaque}" if opaque else answer


def _md5(text: str) -> str:
    return base64.b64encode(hashlib.md5(text.encode(), usedforsecurity=False).digest()).decode()
