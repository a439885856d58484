"""JSON text → values, strictly, and what msgspec says of values, in JSON's words.

It decides what is JSON at all, and how deep; it refuses to know what the values mean.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from itertools import accumulate
from typing import Any, Final

from engine.errors import InvalidTree

DEEPEST: Final = 512  # levels of any JSON that is taken; Python's own limit differs from version to version
SLICE: Final = 256 << 10  # bytes of JSON that are looked through before others have their turn, some ms; even
_LEVELS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")  # 1 and -1
_NO_BRACKETS = bytes(set(range(256)) - set(b"[{]}"))
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")  # either half; only a whole pair is a character


def parse_json(document: bytes | str, *, limit_bytes: int) -> Any:
    """The value of a JSON text, strictly: UTF-8, no duplicate keys, no NaN, no infinities, not too deep.

    Raises InvalidTree.
    """
    try:
        raw = document if isinstance(document, bytes) else document.encode()
        if len(raw) > limit_bytes:
            raise InvalidTree(f"$: {len(raw)} bytes of JSON, more than {limit_bytes}", where="$")
        if is_deeper(raw, DEEPEST):
            raise InvalidTree(f"$: nested deeper than {DEEPEST} levels", where="$")
        text = raw.decode().removeprefix("\ufeff")
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_refuse_constant)
        if _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except UnicodeEncodeError:
        raise InvalidTree("$: a string holds half a surrogate pair", where="$") from None
    except UnicodeDecodeError as err:
        raise InvalidTree(f"$: not UTF-8 at byte {err.start}", where="$") from None
    except json.JSONDecodeError as err:
        reason = err.msg.removesuffix(" at")
        raise InvalidTree(f"$: not JSON: {reason} at line {err.lineno} column {err.colno}", where="$") from None
    except ValueError:  # an integer of thousands of digits
        raise InvalidTree("$: not JSON: a number is too long", where="$") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        keys = Counter(key for key, _ in pairs)
        twice = _printable(next(key for key, count in keys.items() if count > 1))
        raise InvalidTree(f'$: the key "{twice}" stands twice in one object', where="$")
    return value


def _refuse_constant(name: str) -> None:
    raise InvalidTree(f"$: {name} is not a number in JSON", where="$")


def _printable(text: str) -> str:
    return text[:100].encode(errors="replace").decode()


_WORDS = (  # msgspec's words → JSON's words
    (re.compile(r"`int(?: \| null)?`, got `float`"), "a whole number, got a fraction"),
    (re.compile(r"`int \| float \| str`"), "a number or a string"),
    (re.compile(r"`(?:int|float|int \| float)(?: \| null)?`"), "a number"),
    (re.compile(r"`str(?: \| null)?`"), "a string"),
    (re.compile(r"`(?:array|tuple|list)(?: \| null)?`"), "an array"),
    (re.compile(r"`object(?: \| null)?`"), "an object"),
    (re.compile(r"`bool(?: \| null)?`"), "a boolean"),
    (re.compile(r"`null`"), "null"),
    (re.compile(r">="), "≥"),
    (re.compile(r"<="), "≤"),
    (re.compile(r"(\d)\.0\b"), r"\1"),
)


def in_json_words(message: str) -> tuple[str, str]:
    """msgspec's message → (JSON path, what is wrong there in JSON's words).

    "Expected `int` <= 7680 - at `$.width`" → ("$.width", "expected a number ≤ 7680")
    """
    head, _, tail = message.rpartition(" - at `")  # the last one: before it the caller's own words may stand
    problem, path = (head, tail.removesuffix("`")) if head else (tail, "$")
    problem = problem[:1].lower() + problem[1:300]
    for pattern, word in _WORDS:
        problem = pattern.sub(word, problem)
    return path, problem


def json_type(value: object) -> str:
    """What a JSON value is, for a sentence."""
    names = {type(None): "null", bool: "a boolean", str: "a string", list: "an array", dict: "an object"}
    return names.get(type(value), "a number")


def digits_of(value: str | int | float) -> str:
    """A number as a text without an exponent, which neither the command line knows nor readers; a text as it is."""
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else f"{Decimal(repr(value)):f}"
    return str(value)


def is_deeper(text: bytes, levels: int) -> bool:
    """Whether objects and arrays of JSON are in each other more than so many levels deep, up to where it is none."""
    if text.count(b"[") + text.count(b"{") <= levels:
        return False
    level = 0
    for part in outside_strings(text):
        brackets = part.translate(_LEVELS, _NO_BRACKETS)
        opened = brackets.count(b"\x01")
        if level + opened > levels and max(accumulate(memoryview(brackets).cast("b"), initial=level)) > levels:
            return True
        level += 2 * opened - len(brackets)
    return False


def outside_strings(text: bytes) -> Iterator[bytes]:
    """JSON without its strings, up to where it is none: a part at a time, so that other threads have their turn."""
    is_within, at = False, 0
    while at < len(text):
        part = text[at : at + SLICE]
        if len(part) == SLICE:  # the first half of an escape goes with the other one
            part = part[: SLICE - (SLICE - len(part.rstrip(b"\\"))) % 2]
        at += len(part)
        pieces = part.replace(rb"\\", b"").replace(rb"\"", b"").split(b'"')
        yield b"".join(pieces[is_within::2])
        is_within ^= len(pieces) % 2 == 0
