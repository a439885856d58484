"""What can go wrong, by whose fault, and whether trying again can help; it knows no HTTP.

::

    EngineError(Exception)      code: stable string · fault · retry · where: JSON path or id
    ├─ Invalid        fault=caller   InvalidTree, InvalidMash, InvalidSpec, InvalidJob
    ├─ NotFound       fault=caller   NotFound(kind, id)
    ├─ Conflict       fault=caller   AlreadyExists, InUse, IllegalTransition
    ├─ SourceError    fault=remote   SourceUnavailable (retry), SourceMalformed, SourceUnsupported
    ├─ SinkError      fault=remote   SinkUnavailable (retry), SinkRejected
    ├─ ProtocolError  (abstract)     LocalProtocolError fault=us, RemoteProtocolError fault=remote
    ├─ Overloaded     fault=us       retry; Exhausted
    └─ ActorGone      fault=us       retry

Raised where known; caught only where a source or sink is supervised, where a job is run, and at the doors.
A message is one sentence with the id and the numbers.
"""

# ruff: noqa: N818
# The classes are called after what happened; every one of them is an EngineError.

from __future__ import annotations

import re
from typing import ClassVar, Final, Literal

TRY_AGAIN: Final = 75  # exit code of a command that ends for Exhausted: EX_TEMPFAIL of sysexits.h

Fault = Literal["caller", "remote", "us"]


class EngineError(Exception):
    """The root: everything the engine raises on purpose.

    where  the JSON path of the offending field (``$.rootVideoNode.nodes[3].opacity``) or the id of the thing, or "".
    """

    code: ClassVar[str] = "engine_error"
    fault: ClassVar[Fault] = "us"
    retry: ClassVar[bool] = False

    def __init__(self, message: str, *, where: str = "") -> None:
        super().__init__(message)
        self.where = where


class Invalid(EngineError):
    """The caller asked for something that has no meaning."""

    code = "invalid"
    fault = "caller"


class InvalidTree(Invalid):
    """A RenderTree outside the dialect or its limits."""

    code = "invalid_tree"


class InvalidMash(Invalid):
    """A mash or cast document outside the dialect or its limits."""

    code = "invalid_mash"


class InvalidSpec(Invalid):
    """An impossible raster, rate, encoder setting or output name."""

    code = "invalid_spec"


class InvalidJob(Invalid):
    """A job document that cannot be queued."""

    code = "invalid_job"


class NotFound(EngineError):
    """There is no such thing. ``NotFound("stream", "live/cam1")``."""

    code = "not_found"
    fault = "caller"

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(f'no {kind} "{name}"', where=name)


class Conflict(EngineError):
    """The request contradicts the present state."""

    code = "conflict"
    fault = "caller"


class AlreadyExists(Conflict):
    """The name is taken."""

    code = "already_exists"


class InUse(Conflict):
    """The thing is needed by something that runs."""

    code = "in_use"


class IllegalTransition(Conflict):
    """The state does not allow this step."""

    code = "illegal_transition"


class SourceError(EngineError):
    """A source does not give what it should."""

    code = "source_error"
    fault = "remote"


class SourceUnavailable(SourceError):
    """The source cannot be reached or stopped answering; it may come back."""

    code = "source_unavailable"
    retry = True


class SourceMalformed(SourceError):
    """The source's bytes are not the media they claim to be."""

    code = "source_malformed"


class SourceUnsupported(SourceError):
    """The source is media we cannot decode."""

    code = "source_unsupported"


class SinkError(EngineError):
    """A sink does not take what it should."""

    code = "sink_error"
    fault = "remote"


class SinkUnavailable(SinkError):
    """The sink cannot be reached or is full; it may come back."""

    code = "sink_unavailable"
    retry = True


class SinkRejected(SinkError):
    """The sink refuses what we offer."""

    code = "sink_rejected"


class ProtocolError(EngineError):
    """A peer and we do not agree on the protocol."""

    code = "protocol_error"


class LocalProtocolError(ProtocolError):
    """We tried to send what the protocol does not allow now: a bug of ours."""

    code = "local_protocol_error"
    fault = "us"


class RemoteProtocolError(ProtocolError):
    """The peer sent what the protocol does not allow."""

    code = "remote_protocol_error"
    fault = "remote"


class Overloaded(EngineError):
    """We cannot take more now."""

    code = "overloaded"
    retry = True


class Exhausted(Overloaded):
    """The system has no process or no thread for us now, whatever it is for."""

    code = "exhausted"


class ActorGone(EngineError):
    """The actor that was asked has ended."""

    code = "actor_gone"
    retry = True


def reason_of(err: BaseException) -> str:
    """Why something failed, for the end of a sentence: what the system, libav or a peer says, or the error's name."""
    text = getattr(err, "strerror", None) or str(err) or type(err).__name__
    return text if re.match(r"\S+[A-Z]", text) else text[:1].lower() + text[1:]  # not of URL, nor of a class's name


def one_line(text: str) -> str:
    """The text with whatever would break the line, or cannot be shown, written out as an escape."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def first_error(error: BaseException) -> BaseException:
    """What counts in groups within groups, as nurseries raise them: the first that is no cancellation, if any is."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    found = [first_error(each) for each in error.exceptions]
    return next((each for each in found if isinstance(each, Exception)), found[0])
