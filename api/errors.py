"""Which answer an error gets in which dialect: one row per class of error, one column per dialect.

It decides status codes and nothing else; it refuses to know why an error was raised and how an answer is written.
A class without a row has its parent's.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

from engine.errors import (
    ActorGone,
    Conflict,
    EngineError,
    Invalid,
    NotFound,
    Overloaded,
    ProtocolError,
    RemoteProtocolError,
    SinkError,
    SourceError,
)

Dialect = Literal["brewmixer", "nexrender", "moviemasher"]


class Answer(NamedTuple):
    """The status in each dialect.

    brewmixer    also of our own routes; the body is ``{"error": sentence}``.
    nexrender    the body is the sentence as plain text.
    moviemasher  always 200; the body has a field `error`.
    """

    brewmixer: int
    nexrender: int
    moviemasher: int = 200


ANSWERS: Final[Mapping[type[EngineError], Answer]] = MappingProxyType(
    {
        EngineError: Answer(500, 500),
        Invalid: Answer(400, 400),
        NotFound: Answer(404, 404),
        Conflict: Answer(409, 409),
        SourceError: Answer(502, 502),
        SinkError: Answer(502, 502),
        ProtocolError: Answer(500, 500),
        RemoteProtocolError: Answer(502, 502),
        Overloaded: Answer(503, 503),
        ActorGone: Answer(503, 503),
    }
)


def status_of(error: type[EngineError] | EngineError, dialect: Dialect = "brewmixer") -> int:
    """The status code of an error, or of a class of errors, in a dialect."""
    kind = error if isinstance(error, type) else type(error)
    answer = next(ANSWERS[each] for each in kind.__mro__ if each in ANSWERS)
    status: int = getattr(answer, dialect)
    return status
