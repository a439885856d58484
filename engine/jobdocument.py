"""What a job's document says: JSON that stays as it came, and what some of its keys mean.

It decides which documents are jobs, and what is asked for in them; it refuses to know what becomes of a job
(`engine.jobs`) and where it is kept.

A job is an open JSON document. Nobody but its owner knows all of its fields, so every value stays the text that came
in, key by key (`Document`), and only what the rules need is ever read. The keys that change during a job's life or
that the rules read are its *head*; the rest (template, assets, actions, whatever the client likes) is its *content*.
So a worker's sign of life costs a small write, whatever was posted.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
from msgspec import Raw

from engine.errors import InvalidJob
from engine.strictjson import DEEPEST, is_deeper
from engine.structs import ready
from engine.timebase import utc
from engine.urls import before_query, without_query

Document = dict[str, Raw]  # key → the JSON text of its value, compact

TERMS: Final = ("maxAttempts", "retryDelay", "timeout", "notBefore", "after", "parentUid", "webhooks")
HEAD: Final = frozenset(
    (
        *("uid", "type", "state", "output", "tags", "priority", "timings", "creator", "createdAt", "updatedAt"),
        *("executor", "startedAt", "finishedAt", "errorAt", "renderProgress", "error", "jobCreator", "jobExecutor"),
        *("attempts", "lastError"),
        *TERMS,
    )
)
DOCUMENT, PROJECT = "document", "project"  # kinds: a JSON document of ours; a project of another program
KEPT = "kept"  # a kind, too: what only workers of the server itself can read
MAX_UID: Final = 512
MAX_AFTER: Final = 1000
MAX_WEBHOOKS: Final = 32
NULL: Final = Raw(b"null")
LONGEST: Final = 366 * 86400.0  # seconds; longer is a mistake of units

_ONE: Final = msgspec.json.Decoder(Document)
_ITEMS: Final = msgspec.json.Decoder(list[Raw])


class Webhook(msgspec.Struct, frozen=True):
    """Who wants to hear of a job: at `url`, of the states `events` (all if None), signed with `secret`."""

    url: str
    events: tuple[str, ...] | None = None
    secret: str = ""


ready(Webhook)


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What a job asks for beyond the dialect; times in ms."""

    max_attempts: int | None = None
    retry_delay: int = 0
    timeout: int | None = None
    not_before: int | None = None
    after: tuple[str, ...] = ()  # uids of the jobs that it waits for
    webhooks: tuple[Webhook, ...] = ()


# --- reading ---------------------------------------------------------------------------------------------------------


def read(text: bytes) -> Document | list[Document]:
    """A job, or several, from JSON. Raises InvalidJob: no JSON, NaN, half surrogates, too deep, no object."""
    if is_deeper(text, DEEPEST):  # what is taken can be read again by anybody, under any Python
        raise InvalidJob(f"the JSON is nested deeper than {DEEPEST} levels", where="$")
    try:
        if text.lstrip()[:1] == b"[":
            return [_document(item) for item in _ITEMS.decode(text)]  # one by one: between two others have their turn
        return _document(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        problem = _problem(text)
    raise InvalidJob(problem, where="$")


def _document(text: bytes | Raw) -> Document:
    """Raises msgspec.DecodeError, UnicodeDecodeError."""
    msgspec.json.decode(text)  # all of it, once: what stays text is sound
    return _ONE.decode(msgspec.json.format(text, indent=-1))


def _problem(text: bytes) -> str:
    """What is wrong with it, and where in all of it."""
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError) as err:
        return f"the body is not JSON: {err}"
    return "the body is not a JSON object"


def value_of(document: Mapping[str, Raw], key: str) -> Any:
    """The value of a key; None where there is none."""
    raw = document.get(key)
    return None if raw is None else msgspec.json.decode(raw)


def raw(value: object) -> Raw:
    """A value as its JSON text."""
    return Raw(msgspec.json.encode(value))


def created_of(document: Mapping[str, Raw]) -> int | None:
    """When it says that it was made, in ms since 1970; None where there is no such time."""
    try:
        return _moment(value_of(document, "createdAt"))
    except ValueError:
        return None


def truthy(value: object) -> bool:
    """Truth as JavaScript has it: ``{}`` and ``[]`` are true."""
    if isinstance(value, bool | int | float | str):
        return bool(value)
    return value is not None


def word(text: Raw) -> str:
    """A string; of anything else its JSON."""
    value = msgspec.json.decode(text)
    return value if isinstance(value, str) else bytes(text).decode()


def stamp(now: int) -> Raw:
    """ms since 1970 as a job's document has it: ``"2026-11-21T01:44:55.824Z"``."""
    return raw(utc(now))


def uid_of(document: Mapping[str, Raw]) -> str:
    """A job's name: a string, or the digits of a number. Raises InvalidJob."""
    value = value_of(document, "uid")
    if not truthy(value):
        raise InvalidJob("uid is missing", where="$.uid")
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise InvalidJob("uid is not a string", where="$.uid")
    text = value if isinstance(value, str) else bytes(document["uid"]).decode()
    if len(text) > MAX_UID:
        raise InvalidJob(f"uid has {len(text)} characters, more than {MAX_UID}", where="$.uid")
    return text


def split(document: Mapping[str, Raw]) -> tuple[Document, Document]:
    """(head, content)."""
    head = {key: value for key, value in document.items() if key in HEAD}
    return head, {key: value for key, value in document.items() if key not in HEAD}


def cleaned_tags(text: str) -> str:
    """Comma-separated tags without what no tag has: nexrender leaves it out of jobs and of what its worker asks for."""
    return re.sub(r"[^A-Za-z0-9, ]", "", text)


def tags_of(tags: object) -> tuple[str, ...]:
    """The items of a comma-separated string or of an array, cleaned and trimmed, without empty and repeated ones."""
    items = [tags] if isinstance(tags, str) else tags if isinstance(tags, list) else []
    text = cleaned_tags(",".join(item for item in items if isinstance(item, str)))
    return tuple(dict.fromkeys(item.strip() for item in text.split(",") if item.strip()))


_NUMBER: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def priority_of(value: object) -> float:
    """A priority as JavaScript's Number() takes it; what is no number is 0."""
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        value = float(value)
    return float(value) if isinstance(value, int | float) and abs(value) < 1e308 else 0.0


def kind_of(document: Mapping[str, Raw]) -> str:
    """Whether a job is a document of ours: its type says so, or its template is JSON, or plain text."""
    template = value_of(document, "template")
    src = template.get("src") if isinstance(template, dict) else None
    if isinstance(src, str) and src[:5].lower() == "mash:":
        return KEPT
    if value_of(document, "type") in ("rendertree", "mash"):
        return DOCUMENT
    if not isinstance(src, str):
        return PROJECT
    if src[:5].lower() == "data:":
        return DOCUMENT if re.match(r"(text/plain|[^,]*json|[;,])", src[5:100], re.IGNORECASE) else PROJECT
    names = (without_query(src), before_query(src))  # a file: URL may have a query, too
    return DOCUMENT if any(name.lower().endswith(".json") for name in names) else PROJECT


def output_folder(uid: str) -> str:
    """Where the output files of a job are, below the outputs folder: its name, or a digest where that is none."""
    safe = re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}", uid)
    return uid if safe else hashlib.sha256(uid.encode()).hexdigest()


# --- checking --------------------------------------------------------------------------------------------------------


def check_content(document: Mapping[str, Raw]) -> None:
    """Raises InvalidJob, naming the first field that is missing or impossible."""
    template = value_of(document, "template")
    require(template, "template")
    for field in ("src", "composition"):
        require(_field(template, field), f"template.{field}")
    assets = value_of(document, "assets")
    if not isinstance(assets, list):
        raise InvalidJob("assets is not an array", where="$.assets")
    for n, asset in enumerate(assets):
        _check_asset(asset, f"assets[{n}]")
    actions = value_of(document, "actions")
    require(actions, "actions")
    if not isinstance(actions, dict) and actions != []:  # PHP writes {} so
        raise InvalidJob("actions is not an object", where="$.actions")
    for phase in ("prerender", "postrender"):
        found = _field(actions, phase)
        listed = found if isinstance(found, list) else [found] if truthy(found) else []
        for n, action in enumerate(listed):
            require(_field(action, "module"), f"actions.{phase}[{n}].module")


def _field(value: object, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def require(value: object, name: str) -> None:
    """Raises InvalidJob where a field has no value."""
    if not truthy(value):
        raise InvalidJob(f"{name} is missing", where=f"$.{name}")


def _check_asset(asset: object, name: str) -> None:
    kind = _field(asset, "type")
    require(kind, f"{name}.type")
    if kind not in ("image", "audio", "video", "data", "script", "static"):
        raise InvalidJob(f"{name}.type {str(kind)[:80]!r} is unknown", where=f"$.{name}.type")
    if kind != "data":
        require(_field(asset, "src"), f"{name}.src")
    if kind in ("image", "audio", "video", "data") and not (
        truthy(_field(asset, "layerName")) or truthy(_field(asset, "layerIndex"))
    ):
        raise InvalidJob(f"{name}.layerName and layerIndex are missing", where=f"$.{name}.layerName")
    if kind == "data":
        if not (isinstance(asset, dict) and "value" in asset) and not truthy(_field(asset, "expression")):
            raise InvalidJob(f"{name}.value and expression are missing", where=f"$.{name}.value")
        require(_field(asset, "property"), f"{name}.property")


# --- terms -----------------------------------------------------------------------------------------------------------


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value) or not 1 <= value <= 1000:
        raise ValueError("is not a whole number within 1…1000")
    return int(value)


def _span(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LONGEST:
        raise ValueError(f"is not a number of seconds within 0…{LONGEST:.0f}")
    return round(value * 1000)


def _moment(value: Any) -> int:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e14:
        return int(value)
    try:
        time = datetime.fromisoformat(value)
        return round((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * 1000)
    except (TypeError, ValueError, OverflowError):
        raise ValueError("is neither an ISO 8601 time nor ms since 1970") from None


def _uids(value: Any) -> tuple[str, ...]:
    listed = value if isinstance(value, list) else [value]
    if len(listed) > MAX_AFTER or any(isinstance(each, bool) or not isinstance(each, str | int) for each in listed):
        raise ValueError(f"is not a uid or an array of at most {MAX_AFTER} of them")
    return tuple(dict.fromkeys(str(each) for each in listed if each != ""))


def _webhooks(value: Any) -> tuple[Webhook, ...]:
    try:
        hooks = msgspec.convert(value if isinstance(value, list) else [value], tuple[Webhook, ...])
    except msgspec.ValidationError as err:
        raise ValueError(f"is not an array of {{url, events, secret}}: {err}") from None
    if len(hooks) > MAX_WEBHOOKS:
        raise ValueError(f"has {len(hooks)} items, more than {MAX_WEBHOOKS}")
    for hook in hooks:
        parts = urlsplit(hook.url)
        if not re.fullmatch("https?://[!-~]+", hook.url) or not parts.hostname or parts.port == 0:
            raise ValueError(f"has a url {hook.url[:80]!r} that is not http:// or https:// and a place there")
    return hooks


_PARSERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "maxAttempts": _whole,
    "retryDelay": _span,
    "timeout": _span,
    "notBefore": _moment,
    "after": _uids,
    "parentUid": _uids,
    "webhooks": _webhooks,
}


def check_terms(change: Mapping[str, Raw]) -> None:
    """Raises InvalidJob where one of `TERMS` has no meaning; null has: none."""
    for name in TERMS:
        value = value_of(change, name)
        if value is not None:
            try:
                _PARSERS[name](value)
            except ValueError as err:
                raise InvalidJob(f"{name} {err}", where=f"$.{name}") from None


def terms_of(head: Mapping[str, Raw]) -> Terms:
    """What a job asks for; what has no meaning there (jobs of other servers may have anything) is left out."""
    found: dict[str, Any] = {}
    for name in TERMS:
        value = value_of(head, name)
        try:
            found[name] = None if value is None else _PARSERS[name](value)
        except ValueError:
            found[name] = None
    after = (*(found["parentUid"] or ()), *(found["after"] or ()))
    return Terms(
        max_attempts=found["maxAttempts"],
        retry_delay=found["retryDelay"] or 0,
        timeout=found["timeout"] or None,
        not_before=found["notBefore"],
        after=tuple(each for each in dict.fromkeys(after) if each != word(head["uid"])),
        webhooks=found["webhooks"] or (),
    )
