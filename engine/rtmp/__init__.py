"""RTMP without sockets: what can be said on a connection, by whom and when.

This is the vocabulary: the events, the states, the one table of transitions, which holds for both sides. It refuses to
know how any of it is written in bytes: that is `session.Session`. Audio and video are events too; they come from
`flv`, as their bodies are FLV's.

Specification: "Adobe's Real Time Messaging Protocol" 1.0, 2012; numbers in brackets are its sections.
"""

from __future__ import annotations

import enum
from typing import Final, Literal

import msgspec

from engine.rtmp.flv import Audio, Video

Side = Literal["client", "server"]


class Opened(msgspec.Struct, frozen=True):
    """The handshake is over; a client may now send Connect."""


class Connect(msgspec.Struct, frozen=True):
    """A client asks for an application (7.2.1.1). In ``rtmp://host/live?token=1`` app is "live", query is "token=1".

    url         the whole tcUrl.
    agent       flashVer: what the client calls itself.
    properties  what else the command object has.
    """

    app: str
    query: str = ""
    url: str = ""
    agent: str = ""
    properties: dict[str, object] = {}  # msgspec copies it


class Publish(msgspec.Struct, frozen=True):
    """A client wants to send a stream (7.2.2.6). A stream key of "x?token=1" is name "x" and query "token=1"."""

    name: str
    query: str = ""
    kind: str = "live"


class Play(msgspec.Struct, frozen=True):
    """A client wants to receive a stream (7.2.2.1); name and query as in Publish."""

    name: str
    query: str = ""


class Accepted(msgspec.Struct, frozen=True):
    """The server's yes to the last Connect, Publish or Play."""


class Rejected(msgspec.Struct, frozen=True):
    """The server's no. Without a code it is the usual one: Connect.Rejected, Publish.BadName, Play.StreamNotFound."""

    code: str = ""
    description: str = ""


class Metadata(msgspec.Struct, frozen=True):
    """A data message (7.1.3) with an object: onMetaData as a rule, else a cue point or text."""

    fields: dict[str, object]
    dts: int = 0
    name: str = "onMetaData"


class StreamEnded(msgspec.Struct, frozen=True):
    """The stream that was published or played is over; the connection lives on."""


class Ping(msgspec.Struct, frozen=True):
    """Asks the peer for a Pong with the same number (7.1.7). Pings of the peer are answered by the session."""

    number: int


class Pong(msgspec.Struct, frozen=True):
    """The peer's answer to our Ping."""

    number: int


class Closed(msgspec.Struct, frozen=True):
    """Nothing more is said or heard."""


Request = Connect | Publish | Play
Media = Video | Audio | Metadata
Event = Opened | Request | Accepted | Rejected | Media | StreamEnded | Ping | Pong | Closed


class State(enum.Enum):
    """Where a connection stands, seen alike from both sides."""

    HANDSHAKE = "handshake"
    OPEN = "open"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    PUBLISH_ASKED = "publish asked"
    PLAY_ASKED = "play asked"
    PUBLISHING = "publishing"
    PLAYING = "playing"
    CLOSED = "closed"


_S = State
_END: dict[type, tuple[str, State]] = {Closed: ("either", _S.CLOSED)}


def _alive(state: State) -> dict[type, tuple[str, State]]:
    return {Ping: ("either", state), Pong: ("either", state), **_END}


def _media(state: State, by: Side) -> dict[type, tuple[str, State]]:
    return {Video: (by, state), Audio: (by, state), Metadata: (by, state)}


# State → what may be said in it → by whom, and the state after it.
TRANSITIONS: Final[dict[State, dict[type, tuple[str, State]]]] = {
    _S.HANDSHAKE: {Opened: ("nobody", _S.OPEN), **_END},
    _S.OPEN: {Connect: ("client", _S.CONNECTING), **_alive(_S.OPEN)},
    _S.CONNECTING: {
        Accepted: ("server", _S.CONNECTED),
        Rejected: ("server", _S.CLOSED),
        **_alive(_S.CONNECTING),
    },
    _S.CONNECTED: {
        Publish: ("client", _S.PUBLISH_ASKED),
        Play: ("client", _S.PLAY_ASKED),
        **_alive(_S.CONNECTED),
    },
    _S.PUBLISH_ASKED: {
        Accepted: ("server", _S.PUBLISHING),
        Rejected: ("server", _S.CONNECTED),
        **_alive(_S.PUBLISH_ASKED),
    },
    _S.PLAY_ASKED: {
        Accepted: ("server", _S.PLAYING),
        Rejected: ("server", _S.CONNECTED),
        **_alive(_S.PLAY_ASKED),
    },
    _S.PUBLISHING: {
        StreamEnded: ("either", _S.CONNECTED),
        **_media(_S.PUBLISHING, "client"),
        **_alive(_S.PUBLISHING),
    },
    _S.PLAYING: {
        StreamEnded: ("either", _S.CONNECTED),
        **_media(_S.PLAYING, "server"),
        **_alive(_S.PLAYING),
    },
    _S.CLOSED: {Closed: ("either", _S.CLOSED)},
}
