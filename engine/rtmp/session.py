"""One RTMP connection as a state machine: bytes in, events out; events in, bytes out. It knows no socket and no clock.

It decides what may be said when, answers what the protocol answers by itself, and unwraps timestamps; it refuses to
know which names exist and who may use them: that is asked by an event and answered with `Accepted` or `Rejected`.

Theory of operation
-------------------
The caller owns the socket and does, on either side::

    session = Session("server")
    while True:
        session.receive_data(await socket.receive_some())          # b"" means end of file
        while (event := session.next_event()) is not NEED_DATA:
            match event:
                case Connect(): await socket.send_all(session.send(Accepted()))
                case Publish(name=name): await socket.send_all(session.send(Accepted()))
                case Video() | Audio() | Metadata(): ...
                case Closed(): return
        await socket.send_all(session.data_to_send())

* **What the protocol says by itself** (handshake, acknowledgements, pongs, the answers to createStream and its kin)
  waits in the session. `data_to_send()` takes it; `send()` puts it in front of its own bytes. So bytes are in order
  as long as they go to the socket in the order of these calls.
* **Our turn.** While a Connect, Publish or Play waits for our answer, `next_event` gives NEED_DATA and bytes are kept,
  up to the message limit, since a peer may talk on. After the answer, call it again before waiting for more bytes.
* **States** are of the connection and of its one stream; TRANSITIONS holds all of them, for both sides: a step that a
  peer must not take is a RemoteProtocolError, and the session is closed; a step that we must not take is a
  LocalProtocolError, and nothing has changed. One stream is published or played at a time, one after the other as often
  as wanted; who asks for a second beside it gets an error status (7.2.2), the first one is unharmed.
* **The client** says in one event what takes several commands: `Publish` sends releaseStream, FCPublish, createStream,
  and when that is answered, publish. That is FMLE's order, and FFmpeg's and OBS's, so every server knows it.
* **Late media**, after StreamEnded or a refusal, is still under way when the peer learns of it: it is not an error, it
  is counted in `ignored`. So are commands that we do not know, as nginx-rtmp does; an `_error` would end FFmpeg.
* **Values** are decoded only of commands that we know and of data that belong to the stream that is on, and what that
  costs is counted with the small chunks, as are the tags of aggregates: see `chunk`.
* **Timestamps** are 32 bits of ms and wrap after 49.7 days; some encoders' are 31 and wrap after 24.9. Each one is
  placed nearest to the last packet's, in either direction: so a wrap goes on upwards, a small step back stays one, and
  a restart at 0 stays a jump (for whoever consumes the packets). A jump that would end below 0, where no clock is, is
  one ahead; a small step back may end there. Sound and picture share one base. Extradata and metadata have a time but
  do not move the base: encoders send them with 0 at any time. A new stream on the connection starts anew.
* **Digest handshakes** (Flash, FFmpeg) are accepted by echoing C1 and announcing version 0, which they take for a
  server of the old kind (5.2.3 knows only that kind). RTMPE is refused.
* **The end.** b"" ends a stream that is on, with StreamEnded, and then gives Closed for ever. A message that was cut
  off is no error: that is how publishers die.

Specification: "Adobe's Real Time Messaging Protocol" 1.0, 2012; numbers in brackets are its sections. What it leaves
out (FMLE's commands) is as FFmpeg, OBS and nginx-rtmp do it.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from engine.errors import LocalProtocolError, RemoteProtocolError
from engine.rtmp import (
    TRANSITIONS,
    Accepted,
    Closed,
    Connect,
    Event,
    Metadata,
    Opened,
    Ping,
    Play,
    Pong,
    Publish,
    Rejected,
    Side,
    State,
    StreamEnded,
    amf,
    chunk,
    flv,
)
from engine.rtmp.chunk import Limits, Message
from engine.rtmp.flv import Audio, Video


class NeedData(enum.Enum):
    """The type of `NEED_DATA`."""

    NEED_DATA = "need data"


NEED_DATA: Final = NeedData.NEED_DATA

_ASKED = (State.CONNECTING, State.PUBLISH_ASKED, State.PLAY_ASKED)
_STREAMING = (State.PUBLISHING, State.PLAYING)

_VERSION: Final = 3  # C0 and S0 (5.2.2); 6 and 8 are RTMPE
_HANDSHAKE_BYTES: Final = 1536  # of C1, C2, S1, S2
_GREETING: Final = bytes(_HANDSHAKE_BYTES)  # C1 or S1: time 0, version 0; what should be random nobody looks at
BACK_MS: Final = 1000  # encoders interleave, and some count backwards for a few frames; more is a new beginning
ON_MS: Final = 60_000  # a camera that stood still for so long goes on; more may be another beginning
_WINDOW_BYTES: Final = 2_500_000  # Flash Media Server's, and what librtmp assumes
_CHUNK_BYTES: Final = 65536  # ours: nearly every packet is one chunk; the largest that every server takes
_DYNAMIC: Final = b"\x02"  # the limit type of SetPeerBandwidth (5.4.5)
_LIVE: Final = -2000  # play's start: live, else recorded. The specification says -2, but FFmpeg and librtmp send ms
_BUFFER_MS: Final = 1000  # what our player announces; live servers do not care
_PROPERTIES: Final = {"fmsVer": "FMS/3,0,1,123", "capabilities": 31.0}  # what clients look for in the answer to connect
_FOURCC_LIST: Final = ["hvc1", "av01", "vp09"]
_WORTH: Final = 8  # small chunks that an event pays for: encoders send one or two with each; it costs what these cost
VALUES: Final = 50  # of data messages that cost as much as a small chunk; a list of keyframes must delay nobody
_REFUSALS: Final = {
    State.CONNECTING: "NetConnection.Connect.Rejected",
    State.PUBLISH_ASKED: "NetStream.Publish.BadName",
    State.PLAY_ASKED: "NetStream.Play.StreamNotFound",
}
_STARTED: Final = {State.PUBLISH_ASKED: "NetStream.Publish.Start", State.PLAY_ASKED: "NetStream.Play.Start"}
_NEEDED: Final = {  # our command → where an _error for an answer to it is a refusal
    "connect": (State.CONNECTING,),
    "createStream": _ASKED,
    "publish": (State.PUBLISH_ASKED,),
}
_CLOSING: Final = "NetConnection.Connect.Closed"  # a server says why it will hang up
_OVER: Final = {
    State.PUBLISHING: ("NetStream.Unpublish.Success",),
    State.PLAYING: ("NetStream.Play.Stop", "NetStream.Play.Complete", "NetStream.Play.UnpublishNotify"),
}


class Shared:
    """A packet for many peers: its chunks are made once for all whose message stream has the same number.

    That is 1 for everybody who has one stream, since all sessions of ours use the same chunk size. `Session.send` takes
    it like the packet itself.
    """

    __slots__ = ("_chunks", "media")

    def __init__(self, media: Video | Audio) -> None:
        self.media = media
        self._chunks: dict[int, bytes] = {}

    def chunks(self, stream: int) -> bytes:
        """The bytes for a message stream."""
        found = self._chunks.get(stream)
        if found is None:
            found = _media_chunks(self.media, stream)
            if len(self._chunks) < 4:  # the number is the peer's choice
                self._chunks[stream] = found
        return found


def _media_chunks(media: Video | Audio, stream: int) -> bytes:
    on = chunk.ON_VIDEO if media.tag_kind == flv.VIDEO else chunk.ON_AUDIO
    message = Message(media.tag_kind, stream, media.dts, media.body)
    return chunk.encode(message, on=on, chunk_size=_CHUNK_BYTES)


class _Command(NamedTuple):
    """What the peer asks for, or answers: on which message stream, and what comes behind the name and the number."""

    stream: int
    transaction: float
    values: list[object]


class Session:
    """One end of one connection; see the module for how it is driven.

    role    which end we are.
    limits  what the peer may make us keep.
    """

    def __init__(self, role: Side, *, limits: Limits | None = None) -> None:
        # given
        self.role: Final[Side] = role
        self._peer: Final[Side] = "server" if role == "client" else "client"
        self._limits = limits or Limits()
        # read by anyone
        self.state = State.HANDSHAKE
        self.received_bytes = 0  # in all
        self.ignored = 0  # messages that meant nothing to us
        self.complaint = ""  # why the server ends what it had accepted, as it said since our last request
        # what came in
        self._reader = chunk.Reader(self._limits)
        self._events: deque[Event] = deque()
        self._aggregate: Iterator[Message] = iter(())
        self._ended = False
        self._error = ""
        self._greeted = False
        self._window_bytes = _WINDOW_BYTES
        self._last_ack = 0
        # what goes out
        self._out: list[bytes] = []
        self._chunk_size = chunk.FIRST_CHUNK_SIZE
        self._announced_window = 0
        self._transaction = 0.0
        # the stream
        self._stream = 0  # number of the message stream that is asked for or on
        self._created = 0  # streams that this server has handed out
        self._request: Publish | Play | None = None
        self._asked: dict[float, str] = {}  # transaction → our command that waits for its answer
        self._answer_to = 0.0  # transaction of the peer's connect
        self._fourcc = False  # whether the peer's connect spoke of FourCCs
        self._dts: int | None = None  # of the last packet, unwrapped
        if role == "client":
            self._out.append(bytes((_VERSION,)) + _GREETING)

    # ---- bytes in, events out ----

    @property
    def held_bytes(self) -> int:
        """What has come and is no whole message yet, or waits for our answer."""
        return self._reader.held_bytes

    @property
    def small_chunks(self) -> int:
        """How many small chunks, or what costs as much, came last, less those that media and new states paid for."""
        return self._reader.small_chunks

    def receive_data(self, data: bytes | bytearray | memoryview) -> None:
        """Takes what the socket gave; b"" says that it has ended."""
        if self.state is State.CLOSED or self._ended:
            return
        if not data:
            self._ended = True
            return
        self._reader.receive(data)
        self.received_bytes += len(data)
        if self.state is not State.HANDSHAKE and self.received_bytes - self._last_ack >= self._window_bytes:
            self._last_ack = self.received_bytes
            self._say(chunk.control(chunk.ACKNOWLEDGEMENT, self.received_bytes))

    def next_event(self) -> Event | NeedData:
        """The next thing the peer said, or NEED_DATA: no more until bytes come, or until we answer.

        Raises  RemoteProtocolError: the peer broke the protocol; the session is closed and will say so again.
        """
        try:
            if self._error:
                raise RemoteProtocolError(self._error)
            return self._next_event()
        except RemoteProtocolError as error:
            self.state = State.CLOSED
            self._error = str(error)
            raise

    def _next_event(self) -> Event | NeedData:
        while not self._events:
            if self.state is State.CLOSED:
                return Closed()
            if self._read_on():
                continue
            if not self._ended:
                return NEED_DATA
            self._end_stream()
            self._happen(Closed(), self._peer)
        return self._events.popleft()

    def _read_on(self) -> bool:
        """One step through what came in, whether it made an event or not; False = need more, or it is our turn."""
        if self.state is State.HANDSHAKE:
            return self._shake_hands()
        if self.role == "server" and self.state in _ASKED:
            if len(self._reader) > self._limits.message_bytes:
                raise RemoteProtocolError(f"{len(self._reader)} bytes before we answered")
            return False
        message = next(self._aggregate, None)
        if message is None:
            message = self._reader.next_message()
        elif len(message.payload) < chunk.SMALL_BYTES:
            self._reader.charge(1)
        if message is None:
            return False
        self._hear(message)
        return True

    def _shake_hands(self) -> bool:
        """One step of the handshake (5.2); False = need more.

        Both sides alike: the peer's version and first block, to which we answer; then its second block, which is the
        echo of our first one, and of which nothing is believed.
        """
        if not self._greeted:
            version = self._reader.first_byte()
            if version not in (None, _VERSION):
                raise RemoteProtocolError(f"an RTMP version of {version}")
            block = self._reader.take(1 + _HANDSHAKE_BYTES)
            if block is None:
                return False
            if self.role == "server":
                self._out.append(block[:1] + _GREETING)
            self._out.append(block[1:])
            self._greeted = True
            return True
        if self._reader.take(_HANDSHAKE_BYTES) is None:
            return False
        self._happen(Opened(), "nobody")
        return True

    # ---- events in, bytes out ----

    def data_to_send(self) -> bytes:
        """What the protocol has to say by itself since the last call; b"" when that is nothing."""
        if not self._out:
            return b""
        data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
        self._out.clear()
        return data

    def send(self, event: Event | Shared) -> bytes:
        """The bytes that say it, after those that data_to_send() would have given.

        Raises  LocalProtocolError: the state or our role does not allow it, or RTMP cannot carry it; nothing changed.
        """
        said = type(event.media) if isinstance(event, Shared) else type(event)
        by, after = TRANSITIONS[self.state].get(said, ("nobody", self.state))
        if by not in (self.role, "either"):
            raise LocalProtocolError(f'a {self.role} must not send {said.__name__} in state "{self.state.value}"')
        if isinstance(event, Shared):
            self._out.append(event.chunks(self._stream))
        elif isinstance(event, Video | Audio):
            self._out.append(_media_chunks(event, self._stream))
        else:
            self._encode(event)
        self.state = after
        return self.data_to_send()

    def _encode(self, event: Event) -> None:
        match event:
            case Metadata():
                self._say_metadata(event)
            case Ping():
                self._say(chunk.user_control(chunk.PING, event.number))
            case Pong():
                self._say(chunk.user_control(chunk.PONG, event.number))
            case Connect():
                self._say_connect(event)
            case Publish() | Play():
                self._say_request(event)
            case Accepted():
                self._say_accepted()
            case Rejected():
                self._say_rejected(event)
            case StreamEnded():
                self._say_end()
            case _:
                pass

    def _say(self, message: Message, on: int = chunk.ON_CONTROL) -> None:
        self._out.append(chunk.encode(message, on=on, chunk_size=self._chunk_size))

    def _command(self, name: str, transaction: float, *values: object, stream: int = 0) -> None:
        message = Message(chunk.COMMAND, stream, 0, amf.encode(name, transaction, *values))
        self._say(message, chunk.ON_COMMAND)

    def _ask(self, name: str, *values: object, stream: int = 0) -> None:
        """A command that may be answered with _result or _error."""
        self._transaction += 1
        self._asked[self._transaction] = name
        self._command(name, self._transaction, *values, stream=stream)

    def _status(self, code: str, description: str = "", *, level: str = "status", stream: int | None = None) -> None:
        """onStatus (7.2.2) on the stream."""
        fields = {"level": level, "code": code, "description": description or code}
        self._command("onStatus", 0, None, fields, stream=self._stream if stream is None else stream)

    def _say_metadata(self, event: Metadata) -> None:
        head = ("@setDataFrame", event.name) if self.role == "client" else (event.name,)
        body = amf.encode(*head, amf.EcmaArray(event.fields))
        self._say(Message(chunk.DATA, self._stream, event.dts, body), chunk.ON_DATA)

    def _say_chunk_size(self) -> None:
        self._say(chunk.control(chunk.SET_CHUNK_SIZE, _CHUNK_BYTES))
        self._chunk_size = _CHUNK_BYTES

    def _say_window(self) -> None:
        self._announced_window = _WINDOW_BYTES
        self._say(chunk.control(chunk.WINDOW_SIZE, _WINDOW_BYTES))

    def _say_connect(self, event: Connect) -> None:
        fields = {
            "app": _with_query(event.app, event.query),
            "type": "nonprivate",
            "flashVer": event.agent or "FMLE/3.0 (compatible; Mashtun)",
            "tcUrl": event.url,
            **event.properties,
        }
        body = amf.encode("connect", 1, fields)  # may raise: before anything is said
        self._say_chunk_size()
        self._transaction = 1.0
        self._asked[1.0] = "connect"
        self._say(Message(chunk.COMMAND, 0, 0, body), chunk.ON_COMMAND)

    def _say_request(self, event: Publish | Play) -> None:
        self._request = event
        self._dts = None
        self._asked.clear()  # a late answer to an earlier request says nothing about this one
        self.complaint = ""
        if isinstance(event, Publish):
            name = _with_query(event.name, event.query)
            self._ask("releaseStream", None, name)
            self._ask("FCPublish", None, name)
        self._ask("createStream", None)

    def _say_accepted(self) -> None:
        if self.state is State.CONNECTING:
            self._say_window()
            self._say(chunk.control(chunk.PEER_BANDWIDTH, _WINDOW_BYTES, _DYNAMIC))
            self._say_chunk_size()
            self._say(chunk.user_control(chunk.STREAM_BEGIN, 0))
            more = {"fourCcList": _FOURCC_LIST} if self._fourcc else {}
            code = "NetConnection.Connect.Success"
            info = {"level": "status", "code": code, "description": "Connection succeeded.", "objectEncoding": 0}
            self._command("_result", self._answer_to, {**_PROPERTIES, **more}, info)
            return
        self._dts = None
        if self.state is State.PUBLISH_ASKED:
            self._say(chunk.user_control(chunk.STREAM_BEGIN, self._stream))
            self._status("NetStream.Publish.Start")
            return
        self._say(chunk.user_control(chunk.STREAM_BEGIN, self._stream))
        self._status("NetStream.Play.Reset")
        self._status("NetStream.Play.Start")
        access = amf.encode("|RtmpSampleAccess", True, True)
        self._say(Message(chunk.DATA, self._stream, 0, access), chunk.ON_DATA)

    def _say_rejected(self, event: Rejected) -> None:
        code = event.code or _REFUSALS[self.state]
        if self.state is State.CONNECTING:
            info = {"level": "error", "code": code, "description": event.description or code}
            self._command("_error", self._answer_to, None, info)
        else:
            self._status(code, event.description, level="error")

    def _say_end(self) -> None:
        """A client deletes its stream, as FMLE does; a server says that there will be no more."""
        if self.role == "client":
            if isinstance(self._request, Publish):
                self._ask("FCUnpublish", None, _with_query(self._request.name, self._request.query))
            self._command("deleteStream", 0, None, self._stream)
        elif self.state is State.PUBLISHING:
            self._status("NetStream.Unpublish.Success")
        else:
            self._say(chunk.user_control(chunk.STREAM_EOF, self._stream))
            self._status("NetStream.Play.UnpublishNotify")
            self._status("NetStream.Play.Stop")

    # ---- messages ----

    def _happen(self, event: Event, by: str) -> None:
        """The peer (or nobody) says something: it must be allowed now, and becomes an event."""
        who, after = TRANSITIONS[self.state].get(type(event), ("", self.state))
        if who not in (by, "either"):
            raise RemoteProtocolError(f'the {by} sent {type(event).__name__} in state "{self.state.value}"')
        if after is self.state:
            self._events.append(event)
        else:
            self.state = after
            self._give(event)

    def _give(self, event: Event) -> None:
        """An event that was worth a few chunks; a Pong is not, which anybody can send at any time."""
        self._reader.small_chunks = max(0, self._reader.small_chunks - _WORTH)
        self._events.append(event)

    def _hear(self, message: Message) -> None:
        kind, _, _, payload = message
        if kind in (chunk.VIDEO, chunk.AUDIO):
            self._hear_media(message)
        elif kind in (chunk.COMMAND, chunk.COMMAND_AMF3):
            self._hear_command(message)
        elif kind in (chunk.DATA, chunk.DATA_AMF3):
            self._hear_data(message)
        elif kind == chunk.AGGREGATE:
            self._aggregate = _split(message)
        elif kind == chunk.USER_CONTROL:
            self._hear_user_control(payload)
        elif kind == chunk.ACKNOWLEDGEMENT:
            chunk.number(payload)  # how much the peer has had changes nothing
        elif kind == chunk.WINDOW_SIZE:
            self._window_bytes = chunk.number(payload) or _WINDOW_BYTES
        elif kind == chunk.PEER_BANDWIDTH:
            if chunk.number(payload) and not self._announced_window:
                self._say_window()  # the answer that 5.4.5 wants
        else:
            self.ignored += 1

    def _media_is_expected(self, stream: int) -> bool:
        """Whether the peer is sending the stream that is on; some encoders put 0 for its number."""
        by = TRANSITIONS[self.state].get(Video, ("", None))[0]
        return by == self._peer and stream in (self._stream, 0)

    def _hear_media(self, message: Message) -> None:
        if not self._media_is_expected(message.stream) or not message.payload:
            self.ignored += 1
            return
        dts = self._unwrapped(message.timestamp)
        parse = flv.video if message.kind == chunk.VIDEO else flv.audio
        media = parse(dts, message.payload)
        if media.kind == "packet":
            self._dts = dts
        self._give(media)

    def _unwrapped(self, timestamp: int) -> int:
        """The time nearest to the last packet's that has these 32 bits, and is not below 0 after a jump.

        That has these 31 bits where it goes on by that: some encoders send no more, and wrap after 25 days.
        """
        if self._dts is None:
            return timestamp
        step = ((timestamp - self._dts + BACK_MS) & 0x7FFFFFFF) - BACK_MS
        if -BACK_MS < step < ON_MS:
            return self._dts + step
        step = (timestamp - self._dts) & 0xFFFFFFFF
        placed = self._dts + step - ((step & 0x80000000) << 1)
        return timestamp if placed < 0 else placed

    def _values(self, message: Message, most: int) -> amf.Values:
        """The AMF values of a command or data message; those of AMF3's types are AMF0 after a zero byte."""
        view = memoryview(message.payload)
        if message.kind in (chunk.COMMAND_AMF3, chunk.DATA_AMF3) and message.payload[:1] == b"\0":
            view = view[1:]
        return amf.Values(view, depth=self._limits.amf_depth, values=most)

    def _hear_data(self, message: Message) -> None:
        if not self._media_is_expected(message.stream) or len(message.payload) > self._limits.amf_bytes:
            self.ignored += 1
            return
        found = self._values(message, self._limits.data_values)
        try:
            values = list(found)
        except RemoteProtocolError:  # some encoders' AMF3; the stream is whole without it
            values = []
        self._reader.charge(found.count // VALUES)
        if values[:1] == ["@setDataFrame"]:
            del values[0]
        match values:
            case [str(name), dict(fields), *_]:
                self._give(Metadata(fields, self._unwrapped(message.timestamp), name))
            case _:
                self.ignored += 1

    def _hear_user_control(self, payload: bytes) -> None:
        if len(payload) < 2:
            raise RemoteProtocolError(f"a user control message of {len(payload)} bytes")
        event = int.from_bytes(payload[:2], "big")  # of those that mean nothing to us, some are no more than that
        if event == chunk.PING:
            self._say(chunk.user_control(chunk.PONG, chunk.number(payload, 2)))
        elif event == chunk.PONG:
            self._happen(Pong(chunk.number(payload, 2)), self._peer)
        elif event == chunk.STREAM_EOF and self._media_is_expected(chunk.number(payload, 2)):
            self._end_stream()

    def _end_stream(self) -> None:
        """The peer, or the end of the connection, ends the stream that is on, if one is."""
        if self.state in _STREAMING:
            self._happen(StreamEnded(), self._peer)

    # ---- commands ----

    def _hear_command(self, message: Message) -> None:
        size, most = len(message.payload), self._limits.amf_bytes
        if size > most:
            raise RemoteProtocolError(f"an AMF message of {size} bytes is above the limit of {most}")
        found = self._values(message, self._limits.command_values)
        name = next(found, None)
        if not isinstance(name, str):
            raise RemoteProtocolError("a command without a name")
        hear = _COMMANDS[self.role].get(name)
        values = [] if hear is None else list(found)
        self._reader.charge(found.count)
        if hear is None:
            self.ignored += 1
            return
        transaction = values[0] if values and isinstance(values[0], float) else 0.0
        hear(self, _Command(message.stream, transaction, values[1:]))

    def _on_connect(self, command: _Command) -> None:
        values = command.values
        fields = values[0] if values and isinstance(values[0], dict) else {}
        rest = {name: value for name, value in fields.items() if name not in ("app", "tcUrl", "flashVer", "type")}
        app, query = _without_query(_text(fields.get("app")))
        self._answer_to = command.transaction
        self._fourcc = "fourCcList" in rest
        url, agent = _text(fields.get("tcUrl")), _text(fields.get("flashVer"))
        self._happen(Connect(app.strip("/"), query, url, agent, rest), "client")

    def _on_create_stream(self, command: _Command) -> None:
        self._must_be_connected("createStream")
        self._created += 1
        self._command("_result", command.transaction, None, self._created)

    def _on_publish(self, command: _Command) -> None:
        match command.values:
            case [_, str(key), *more]:
                name, query = _without_query(key)
                kind = more[0] if more and isinstance(more[0], str) else "live"
                self._on_request(command.stream, Publish(name, query, kind))
            case _:
                raise RemoteProtocolError("a publish without a name")

    def _on_play(self, command: _Command) -> None:
        match command.values:
            case [_, str(key), *_]:
                name, query = _without_query(key)
                self._on_request(command.stream, Play(name, query))
            case _:
                raise RemoteProtocolError("a play without a name")

    def _on_request(self, stream: int, request: Publish | Play) -> None:
        """Publish or play: asked of the caller, unless another stream is on."""
        if self.state in _STREAMING:
            asked = State.PUBLISH_ASKED if isinstance(request, Publish) else State.PLAY_ASKED
            self._status(_REFUSALS[asked], "another stream is on", level="error", stream=stream)
            self.ignored += 1
            return
        self._happen(request, "client")
        self._stream, self._request = stream, request

    def _on_release(self, command: _Command) -> None:
        """FMLE's commands around publish; it waits for an answer to each."""
        self._must_be_connected("releaseStream")
        self._command("_result", command.transaction, None, amf.UNDEFINED)

    def _on_fc_publish(self, command: _Command) -> None:
        self._on_release(command)
        fields = {"level": "status", "code": "NetStream.Publish.Start", "description": "FCPublish"}
        self._command("onFCPublish", 0, None, fields)

    def _on_fc_unpublish(self, command: _Command) -> None:
        self._on_release(command)
        fields = {"level": "status", "code": "NetStream.Unpublish.Success", "description": "FCUnpublish"}
        self._command("onFCUnpublish", 0, None, fields)
        if self.state is State.PUBLISHING and self._is_named(command.values):
            self._end_stream()

    def _is_named(self, values: list[object]) -> bool:
        """Whether a command is about the stream that is on: another may be that of a publish that was refused."""
        match values:
            case [_, str(key), *_]:
                return self._request is not None and _without_query(key)[0].strip("/") == self._request.name.strip("/")
        return True

    def _on_fc_subscribe(self, _: _Command) -> None:
        fields = {"level": "status", "code": "NetStream.Play.Start", "description": "FCSubscribe"}
        self._command("onFCSubscribe", 0, None, fields)

    def _on_stream_length(self, command: _Command) -> None:
        self._command("_result", command.transaction, None, 0)  # a live stream has none

    def _on_delete_stream(self, command: _Command) -> None:
        values = command.values
        deleted = values[1] if len(values) > 1 and isinstance(values[1], float) else command.stream
        if deleted == self._stream:
            self._end_stream()

    def _on_close_stream(self, command: _Command) -> None:
        if command.stream == self._stream:
            self._end_stream()

    def _must_be_connected(self, command: str) -> None:
        if self.state is State.OPEN:
            raise RemoteProtocolError(f'the client sent {command} in state "{self.state.value}"')

    # ---- answers to our own commands ----

    def _on_result(self, command: _Command) -> None:
        asked = self._asked.pop(command.transaction, "")
        if asked == "connect" and self.state is State.CONNECTING:
            self._happen(Accepted(), "server")
        elif asked == "createStream" and self.state in _ASKED:
            self._stream = _stream_number(command.values)
            self._say_stream_command()

    def _say_stream_command(self) -> None:
        """The publish or play for which the stream was made; what we send it on is the stream itself."""
        request = self._request
        assert request is not None
        key = _with_query(request.name, request.query)
        if isinstance(request, Publish):
            self._ask("publish", None, key, request.kind, stream=self._stream)
        else:
            self._command("play", 0, None, key, _LIVE, stream=self._stream)
            self._say(chunk.user_control(chunk.SET_BUFFER_LENGTH, self._stream, _BUFFER_MS))

    def _on_error(self, command: _Command) -> None:
        asked = self._asked.pop(command.transaction, "")
        if self.state in _NEEDED.get(asked, ()):
            _, rejected = _outcome(command.values)
            self._happen(rejected, "server")

    def _on_status(self, command: _Command) -> None:
        bad, rejected = _outcome(command.values)
        if bad or rejected.code == _CLOSING:
            self.complaint = rejected.description or rejected.code
        if self.state in _STREAMING:
            if bad or rejected.code in _OVER[self.state]:
                self._end_stream()
        elif self.state in _STARTED:
            if bad:
                self._happen(rejected, "server")
            elif rejected.code == _STARTED[self.state]:
                self._happen(Accepted(), "server")


Hear = Callable[[Session, _Command], None]

# What each side understands; anything else is counted and ignored.
_COMMANDS: Final[dict[Side, dict[str, Hear]]] = {
    "server": {
        "connect": Session._on_connect,
        "createStream": Session._on_create_stream,
        "publish": Session._on_publish,
        "play": Session._on_play,
        "releaseStream": Session._on_release,
        "FCPublish": Session._on_fc_publish,
        "FCUnpublish": Session._on_fc_unpublish,
        "FCSubscribe": Session._on_fc_subscribe,
        "getStreamLength": Session._on_stream_length,
        "deleteStream": Session._on_delete_stream,
        "closeStream": Session._on_close_stream,
    },
    "client": {
        "_result": Session._on_result,
        "_error": Session._on_error,
        "onStatus": Session._on_status,
    },
}


def _split(message: Message) -> Iterator[Message]:
    """The messages of an aggregate (7.1.6), whose first tag has the time of the aggregate."""
    shift: int | None = None
    for tag in flv.tags(message.payload):
        if shift is None:
            shift = message.timestamp - tag.timestamp
        if tag.kind in (flv.AUDIO, flv.VIDEO, flv.SCRIPT):
            yield Message(tag.kind, message.stream, (tag.timestamp + shift) & 0xFFFFFFFF, tag.body)


def _stream_number(values: list[object]) -> int:
    match values:
        case [_, float(number), *_] if number.is_integer() and 0 < number <= 0xFFFFFFFF:
            return int(number)
        case _:
            raise RemoteProtocolError("createStream was answered without a stream")


def _outcome(values: list[object]) -> tuple[bool, Rejected]:
    """Of an _error or onStatus: whether its level is "error", and its code and description as far as there are any."""
    fields = values[1] if len(values) > 1 and isinstance(values[1], dict) else {}
    return fields.get("level") == "error", Rejected(_text(fields.get("code")), _text(fields.get("description")))


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _with_query(name: str, query: str) -> str:
    return f"{name}?{query}" if query else name


def _without_query(key: str) -> tuple[str, str]:
    name, _, query = key.partition("?")
    return name, query
