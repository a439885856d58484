"""Sessions: two of them back to back through whole flows, real encoders' orders of commands, and any bytes at all."""

import json
import selectors
import socket
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from engine.errors import LocalProtocolError, RemoteProtocolError
from engine.rtmp import (
    TRANSITIONS,
    Accepted,
    Closed,
    Connect,
    Metadata,
    Opened,
    Ping,
    Play,
    Pong,
    Publish,
    Rejected,
    State,
    StreamEnded,
    amf,
    chunk,
    flv,
)
from engine.rtmp.chunk import Limits, Message
from engine.rtmp.flv import Audio, Video
from engine.rtmp.session import NEED_DATA, Session, Shared

PATIENT = settings(deadline=None)
SMALL = Limits(message_bytes=20_000, partial_bytes=40_000, chunk_streams=16, amf_bytes=2000, command_values=100)
OPENING = flv.video_extradata(b"avcC", dts=0)
SOUND_OPENING = flv.audio_extradata(b"\x12\x10", dts=0)
PICTURE = flv.video_packet(b"keyframe" * 100, dts=0, pts=40, keyframe=True)
SOUND = flv.audio_packet(b"sound", dts=23)
TITLE = Metadata({"width": 640.0, "encoder": "OBS"})
NUMBERS = amf.encode([float(n) for n in range(60_000)])
CONNECT = Connect("live", "token=1", "rtmp://host/live?token=1", "test")


def heard(session):
    """What has been said, one at a time, to the end if there is one."""
    while (event := session.next_event()) is not NEED_DATA:
        yield event
        if event == Closed():
            return


def events_of(session):
    """What has been said up to a request, which is left unanswered."""
    return list(heard(session))


class Pair:
    """A client and a server, joined by nothing but bytes; `server_answers` False leaves requests to the test."""

    def __init__(self, *, server_answers=True, limits=None):
        self.client, self.server = Session("client"), Session("server", limits=limits)
        self.answers = server_answers
        self.wire = {"client": b"", "server": b""}  # all that each side has said
        self.heard = {"client": [], "server": []}

    def say(self, session, event):
        self.carry(session, session.send(event))
        self.run()

    def carry(self, session, data):
        self.wire[session.role] += data
        if data:
            (self.server if session is self.client else self.client).receive_data(data)

    def run(self):
        """Until neither has anything more to say by itself."""
        while any([self.step(self.client), self.step(self.server)]):
            pass

    def step(self, session):
        found = []
        for event in heard(session):
            found.append(event)
            if self.answers and isinstance(event, Connect | Publish | Play):
                self.carry(session, session.send(Accepted()))
        data = session.data_to_send()
        self.carry(session, data)
        known = self.heard[session.role]
        fresh = [event for event in found if event != Closed() or Closed() not in known]
        known += fresh
        return bool(fresh or data)

    def connected(self):
        self.run()
        self.say(self.client, CONNECT)
        return self

    def publishing(self):
        self.connected().say(self.client, Publish("x", "key=2"))
        self.heard["server"].clear()
        self.heard["client"].clear()
        return self

    def playing(self):
        self.connected().say(self.client, Play("x"))
        self.heard["server"].clear()
        self.heard["client"].clear()
        return self


def test_a_publisher_from_handshake_to_end():
    pair = Pair().connected()
    pair.say(pair.client, Publish("x", "key=2"))
    sent = [TITLE, OPENING, SOUND_OPENING, PICTURE, SOUND]
    for event in sent:
        pair.say(pair.client, event)
    pair.say(pair.client, StreamEnded())
    pair.say(pair.client, Publish("y"))
    pair.client.receive_data(b"")
    pair.server.receive_data(b"")
    pair.run()
    assert pair.heard["server"] == [
        *(Opened(), CONNECT, Publish("x", "key=2"), *sent, StreamEnded(), Publish("y"), StreamEnded(), Closed()),
    ]
    assert pair.heard["client"] == [Opened(), Accepted(), Accepted(), Accepted(), StreamEnded(), Closed()]
    assert pair.server.ignored == 0
    assert pair.client.ignored == 3  # onFCPublish twice, onFCUnpublish


def test_a_player_from_handshake_to_end():
    pair = Pair().connected()
    pair.say(pair.client, Play("x", "a=b"))
    sent = [TITLE, OPENING, SOUND_OPENING, PICTURE, SOUND]
    for event in sent:
        pair.say(pair.server, event)
    pair.say(pair.server, StreamEnded())
    assert pair.heard["server"] == [Opened(), CONNECT, Play("x", "a=b")]
    assert pair.heard["client"] == [Opened(), Accepted(), Accepted(), *sent, StreamEnded()]
    assert pair.client.state is pair.server.state is State.CONNECTED


def test_a_player_may_leave_and_come_back():
    pair = Pair().playing()
    pair.say(pair.client, StreamEnded())
    assert pair.heard["server"] == [StreamEnded()]
    pair.say(pair.client, Play("y"))
    assert pair.heard["server"] == [StreamEnded(), Play("y")]
    pair.say(pair.server, SOUND)
    assert pair.heard["client"] == [Accepted(), SOUND]


def test_a_server_may_end_a_publisher():
    pair = Pair().publishing()
    pair.say(pair.server, StreamEnded())
    assert pair.heard["client"] == [StreamEnded()]
    pair.carry(pair.client, chunk.encode(Message(9, 1, 0, PICTURE.body), on=6, chunk_size=65536))
    pair.run()
    assert pair.heard["server"] == []
    assert pair.server.ignored == 1


class TestAnswers:
    def test_nothing_is_heard_while_it_is_our_turn(self):
        pair = Pair(server_answers=False)
        pair.connected()
        assert pair.heard["server"] == [Opened(), CONNECT]
        pair.carry(pair.client, chunk.encode(chunk.user_control(chunk.PONG, 9), on=2, chunk_size=128))
        assert pair.server.next_event() is NEED_DATA
        pair.say(pair.server, Accepted())
        assert pair.heard["server"] == [Opened(), CONNECT, Pong(9)]

    def test_a_peer_that_talks_on_while_it_is_our_turn_has_a_limit(self):
        pair = Pair(server_answers=False, limits=SMALL).connected()
        pair.server.receive_data(bytes(20_001))
        with pytest.raises(RemoteProtocolError, match="before we answered"):
            pair.server.next_event()

    def test_the_end_may_come_while_it_is_our_turn(self):
        pair = Pair(server_answers=False).connected()
        pair.server.receive_data(b"")
        assert pair.server.next_event() == Closed()

    def test_a_refused_connect_closes(self):
        pair = Pair(server_answers=False).connected()
        pair.say(pair.server, Rejected(description="who are you"))
        assert pair.heard["client"][1:] == [
            Rejected("NetConnection.Connect.Rejected", "who are you"),
            Closed(),
        ]
        assert pair.server.next_event() == Closed()

    @pytest.mark.parametrize(
        ("request_", "code"),
        [(Publish("x"), "NetStream.Publish.BadName"), (Play("x"), "NetStream.Play.StreamNotFound")],
    )
    def test_a_refused_stream_may_be_asked_for_again(self, request_, code):
        pair = Pair().connected()
        pair.answers = False
        pair.say(pair.client, request_)
        pair.say(pair.server, Rejected())
        assert pair.heard["client"][-1] == Rejected(code, code)
        pair.answers = True
        pair.say(pair.client, request_)
        assert pair.heard["client"][-1] == Accepted()

    def test_the_code_of_a_refusal_is_ours_to_choose(self):
        pair = Pair().connected()
        pair.answers = False
        pair.say(pair.client, Play("x"))
        pair.say(pair.server, Rejected("NetStream.Play.Failed", "no"))
        assert pair.heard["client"][-1] == Rejected("NetStream.Play.Failed", "no")


def asking(request):
    """A client that has asked a server for a stream, and the server, whose answers the test makes up."""
    pair = Pair(server_answers=False).connected()
    pair.say(pair.server, Accepted())
    pair.carry(pair.client, pair.client.send(request))
    return pair.client


def answer(client, *values, stream=0):
    """What a client makes of a server's command."""
    message = Message(chunk.COMMAND, stream, 0, amf.encode(*values))
    client.receive_data(chunk.encode(message, on=3, chunk_size=65536))
    return events_of(client)


class TestClient:
    """Servers that are not ours."""

    def test_a_connect_waits_for_its_own_answer(self):
        client = Pair(server_answers=False).connected().client
        assert answer(client, "_result", 99, None) == []
        assert answer(client, "_error", 99, None, {"code": "NetConnection.Call.Failed"}) == []
        assert answer(client, "_result", 1, {}, {"code": "NetConnection.Connect.Success"}) == [Accepted()]
        assert answer(client, "_result", 1, {}, {}) == []

    def test_a_publish_waits_for_its_stream(self):
        client = asking(Publish("x", "k=1"))
        assert answer(client, "_result", 4, None, 7) == []
        assert said(client.data_to_send()) == [(chunk.COMMAND, 7, ["publish", 5.0, None, "x?k=1", "live"])]
        assert answer(client, "onStatus", 0, None, {"code": "NetStream.Publish.Start"}, stream=7) == [Accepted()]
        (sent,) = said(client.send(SOUND))
        assert sent == (chunk.AUDIO, 7, SOUND.body)

    def test_a_play_announces_its_buffer(self):
        client = asking(Play("x"))
        answer(client, "_result", 2, None, 1)
        assert said(client.data_to_send()) == [
            (chunk.COMMAND, 1, ["play", 0.0, None, "x", -2000.0]),
            (chunk.USER_CONTROL, 0, bytes.fromhex("0003 00000001 000003e8")),
        ]

    def test_refused_names_are_no_reason_to_stop(self):
        """Some servers answer FMLE's commands with _error."""
        client = asking(Publish("x"))
        assert answer(client, "_error", 2, None, {"level": "error"}) == []
        assert client.state is State.PUBLISH_ASKED

    def test_no_stream_is_a_refusal(self):
        client = asking(Publish("x"))
        assert answer(client, "_error", 4, None, {"code": "NetConnection.Call.Failed", "description": "full"}) == [
            Rejected("NetConnection.Call.Failed", "full")
        ]
        assert client.state is State.CONNECTED

    def test_an_error_for_an_answer_to_publish_is_a_refusal(self):
        client = asking(Publish("x"))
        answer(client, "_result", 4, None, 1)
        refusal = {"level": "error", "code": "NetStream.Publish.BadName", "description": "the key is wrong"}
        assert answer(client, "_error", 5, None, refusal) == [Rejected("NetStream.Publish.BadName", "the key is wrong")]
        assert client.state is State.CONNECTED

    def test_an_error_for_an_answer_to_publish_that_comes_late_refuses_nothing_that_was_asked_for_since(self):
        client = asking(Publish("x"))
        answer(client, "_result", 4, None, 1)
        refusal = {"level": "error", "code": "NetStream.Publish.BadName"}
        assert answer(client, "onStatus", 0, None, refusal, stream=1) == [Rejected("NetStream.Publish.BadName")]
        client.send(Publish("y"))
        answer(client, "_result", 8, None, 1)
        assert answer(client, "_error", 5, None, refusal) == []
        assert client.state is State.PUBLISH_ASKED
        assert answer(client, "_error", 9, None, refusal) == [Rejected("NetStream.Publish.BadName")]

    def test_an_error_for_an_answer_to_publish_changes_nothing_once_the_server_has_accepted(self):
        client = asking(Publish("x"))
        answer(client, "_result", 4, None, 1)
        assert answer(client, "onStatus", 0, None, {"code": "NetStream.Publish.Start"}, stream=1) == [Accepted()]
        assert answer(client, "_error", 5, None, {"level": "error"}) == []
        assert client.state is State.PUBLISHING

    @pytest.mark.parametrize(
        "values", [(), (None,), (None, "1"), (None, 0), (None, 1.5), (None, float("inf")), (None, -1)]
    )
    def test_a_stream_without_a_number_closes(self, values):
        client = asking(Play("x"))
        with pytest.raises(RemoteProtocolError, match="without a stream"):
            answer(client, "_result", 2, *values)

    def test_a_server_that_changes_its_mind_ends_the_stream(self):
        client = Pair().publishing().client
        assert answer(client, "onStatus", 0, None, {"level": "error", "code": "NetStream.Publish.Denied"}) == [
            StreamEnded()
        ]
        assert client.complaint == "NetStream.Publish.Denied"

    @pytest.mark.parametrize(
        ("fields", "complaint"),
        [
            ({"level": "error", "code": "NetStream.Publish.Denied", "description": "too fast"}, "too fast"),
            ({"level": "status", "code": "NetConnection.Connect.Closed", "description": "bye"}, "bye"),
            ({"level": "error"}, ""),
            ({"level": "warning", "code": "NetStream.Publish.Slow", "description": "hurry"}, ""),
            ({"level": "status", "code": "NetStream.Unpublish.Success", "description": "x is now unpublished"}, ""),
        ],
    )
    def test_what_a_server_complains_of_can_be_read_until_another_stream_is_asked_for(self, fields, complaint):
        client = Pair().publishing().client
        answer(client, "onStatus", 0, None, fields)
        assert client.complaint == complaint
        if client.state is State.PUBLISHING:
            client.send(StreamEnded())
        client.send(Publish("y"))
        assert client.complaint == ""

    @pytest.mark.parametrize(
        "code", ["NetStream.Play.Stop", "NetStream.Play.Complete", "NetStream.Play.UnpublishNotify"]
    )
    def test_every_way_a_server_ends_a_stream(self, code):
        client = Pair().playing().client
        assert answer(client, "onStatus", 0, None, {"level": "status", "code": "NetStream.Data.Start"}) == []
        assert answer(client, "onStatus", 0, None, {"level": "status", "code": code}) == [StreamEnded()]
        assert answer(client, "onStatus", 0, None, {"level": "status", "code": code}) == []

    def test_a_stream_that_ends_at_its_server_ends_and_what_else_is_said_of_it_ends_nothing(self):
        client = Pair().playing().client
        for event, stream in ((chunk.STREAM_BEGIN, 1), (2, 1), (31, 1), (32, 1), (chunk.STREAM_EOF, 2)):
            client.receive_data(chunk.encode(chunk.user_control(event, stream), on=2, chunk_size=65536))
        assert events_of(client) == []
        client.receive_data(chunk.encode(chunk.user_control(chunk.STREAM_EOF, 1), on=2, chunk_size=65536))
        assert events_of(client) == [StreamEnded()]

    def test_stray_answers_mean_nothing(self):
        client = Pair().connected().client
        for values in (
            ("_result", 99),
            ("_error", 99),
            ("onStatus", 0),
            ("onStatus", 0, None, 7),
            ("onBWDone", 0, None),
        ):
            assert answer(client, *values) == []


class TestTransitions:
    """The table is what is obeyed, for every state, event and side."""

    EVENTS = (
        *(Opened(), CONNECT, Publish("x"), Play("x"), Accepted(), Rejected(), PICTURE, SOUND, TITLE),
        *(StreamEnded(), Ping(1), Pong(1), Closed()),
    )

    @pytest.mark.parametrize("role", ["client", "server"])
    @pytest.mark.parametrize("state", State)
    def test_what_we_may_send(self, state, role):
        for event in self.EVENTS:
            session = Session(role)
            session.state = state
            session.data_to_send()
            session._request = Publish("x")
            by, after = TRANSITIONS[state].get(type(event), ("nobody", None))
            if by in (role, "either"):
                session.send(event)
                assert session.state is after
            else:
                with pytest.raises(LocalProtocolError, match=f"must not send {type(event).__name__} in state"):
                    session.send(event)
                assert (session.state, session.data_to_send()) == (state, b"")

    def test_every_state_has_a_row_and_leads_to_a_state(self):
        assert set(TRANSITIONS) == set(State)
        assert {after for row in TRANSITIONS.values() for _, after in row.values()} == set(State) - {State.HANDSHAKE}

    def test_what_cannot_be_encoded_changes_nothing(self):
        pair = Pair().publishing()
        with pytest.raises(LocalProtocolError):
            pair.client.send(Metadata({"x": object()}))
        assert (pair.client.state, pair.client.data_to_send()) == (State.PUBLISHING, b"")

    @pytest.mark.parametrize(
        "commands",
        [
            [("publish", 5, None, "x")],
            [("createStream", 5, None)],
            [("FCPublish", 5, None, "x")],
            [("connect", 1, {"app": "a"}), ("connect", 2, {"app": "b"})],
            [("connect", 1, {"app": "a"}), ("publish", 2, None)],
            [("connect", 1, {"app": "a"}), ("play", 2, None, 7)],
            [(7,)],
            [()],
        ],
    )
    def test_what_a_client_must_not_say_closes(self, commands):
        server = opened()
        for values in commands:
            server.receive_data(command(*values))
        with pytest.raises(RemoteProtocolError) as first:
            for _ in range(9):
                if isinstance(server.next_event(), Connect):
                    server.send(Accepted())
        with pytest.raises(RemoteProtocolError, match=str(first.value).replace("(", ".").replace(")", ".")):
            server.next_event()
        assert server.state is State.CLOSED
        with pytest.raises(LocalProtocolError):
            server.send(Accepted())


def opened(limits=None):
    """A server after the handshake with a client that says no more."""
    server = Session("server", limits=limits)
    server.receive_data(b"\x03" + bytes(3072))
    assert server.next_event() == Opened()
    server.data_to_send()
    return server


def connected(limits=None):
    """A server after connect."""
    server = opened(limits)
    server.receive_data(command("connect", 1, {"app": "live"}))
    assert server.next_event() == Connect("live")
    server.send(Accepted())
    return server


def published(limits=None):
    """A server that is being published to."""
    server = connected(limits)
    server.receive_data(command("publish", 5, None, "x", stream=1))
    assert server.next_event() == Publish("x")
    server.send(Accepted())
    return server


def command(*values, stream=0, kind=chunk.COMMAND, head=b""):
    """A command as a client with chunks of 128 bytes sends it."""
    return chunk.encode(Message(kind, stream, 0, head + amf.encode(*values)), on=3, chunk_size=128)


def media(timestamp, body=SOUND.body, kind=8, stream=1):
    """A media message as a client with chunks of 128 bytes sends it."""
    return chunk.encode(Message(kind, stream, timestamp, body), on=4, chunk_size=128)


def said(data):
    """What a server said after the handshake: (type, stream, AMF values or payload)."""
    reader = chunk.Reader(Limits())
    reader.chunk_size = 65536
    reader.receive(data)
    found = []
    while (message := reader.next_message()) is not None:
        spoken = message.kind in (chunk.COMMAND, chunk.DATA)
        told = list(amf.Values(message.payload, depth=amf.DEPTH, values=100)) if spoken else message.payload
        found.append((message.kind, message.stream, told))
    return found


class TestHandshake:
    def test_the_server_answers_c1_with_its_echo(self):
        server = Session("server")
        first = bytes(range(256)) * 6
        server.receive_data(b"\x03" + first)
        assert server.next_event() is NEED_DATA
        assert server.data_to_send() == b"\x03" + bytes(1536) + first
        server.receive_data(bytes(1536))
        assert server.next_event() == Opened()
        assert server.data_to_send() == b""

    def test_the_client_speaks_first_and_echoes_s1(self):
        client = Session("client")
        assert client.data_to_send() == b"\x03" + bytes(1536)
        client.receive_data(b"\x03" + b"\x01" * 1536)
        assert client.next_event() is NEED_DATA
        assert client.data_to_send() == b"\x01" * 1536
        client.receive_data(b"\x02" * 1536)
        assert client.next_event() == Opened()

    @pytest.mark.parametrize("version", [0, 2, 6, 8, ord("G")])
    def test_other_protocols_are_refused_at_their_first_byte(self, version):
        server = Session("server")
        server.receive_data(bytes((version,)))
        with pytest.raises(RemoteProtocolError, match=f"version of {version}"):
            server.next_event()

    def test_commands_may_come_with_the_end_of_the_handshake(self):
        server = Session("server")
        server.receive_data(b"\x03" + bytes(3072) + command("connect", 1, {"app": "live/"}))
        assert events_of(server) == [Opened(), Connect("live")]


class TestEncoders:
    """The orders of commands that were seen on the wire."""

    def test_ffmpeg_publishes(self):
        """FFmpeg 5.1: -f flv rtmp://host/live/x"""
        server = opened()
        fields = {
            "app": "live",
            "type": "nonprivate",
            "flashVer": "FMLE/3.0 (compatible; Lavf59.27.100)",
            "tcUrl": "rtmp://host/live",
        }
        server.receive_data(command("connect", 1, fields))
        assert events_of(server) == [Connect("live", "", fields["tcUrl"], fields["flashVer"])]
        kinds = [kind for kind, _, _ in said(server.send(Accepted()))]
        assert kinds == [chunk.WINDOW_SIZE, chunk.PEER_BANDWIDTH, chunk.USER_CONTROL, chunk.COMMAND]
        server.receive_data(
            command("releaseStream", 2, None, "x")
            + command("FCPublish", 3, None, "x")
            + command("createStream", 4, None)
        )
        assert events_of(server) == []
        assert [values for _, _, values in said(server.data_to_send())] == [
            ["_result", 2.0, None, amf.UNDEFINED],
            ["_result", 3.0, None, amf.UNDEFINED],
            [
                "onFCPublish",
                0.0,
                None,
                {"level": "status", "code": "NetStream.Publish.Start", "description": "FCPublish"},
            ],
            ["_result", 4.0, None, 1.0],
        ]
        server.receive_data(command("publish", 5, None, "x", "live", stream=1))
        assert events_of(server) == [Publish("x")]
        *_, (kind, stream, values) = said(server.send(Accepted()))
        assert (kind, stream, values[:3]) == (chunk.COMMAND, 1, ["onStatus", 0.0, None])
        assert (values[3]["level"], values[3]["code"]) == ("status", "NetStream.Publish.Start")

    def test_obs_stops(self):
        """OBS 30 (librtmp): FCUnpublish, deleteStream, then the socket."""
        server = published()
        server.receive_data(command("FCUnpublish", 6, None, "x") + command("deleteStream", 7, None, 1.0))
        server.receive_data(b"")
        assert events_of(server) == [StreamEnded(), Closed()]

    def test_ffmpeg_plays(self):
        """FFmpeg 5.1 asks for the length between createStream and play."""
        server = connected()
        server.receive_data(command("createStream", 2, None) + command("_checkbw", 3, None))
        server.receive_data(command("getStreamLength", 4, None, "x") + command("play", 5, None, "x", -2000.0, stream=1))
        server.receive_data(chunk.encode(chunk.user_control(chunk.SET_BUFFER_LENGTH, 1, 3000), on=2, chunk_size=128))
        assert events_of(server) == [Play("x")]
        assert server.ignored == 1  # _checkbw
        told = [(kind, stream, values) for kind, stream, values in said(server.send(Accepted()))]
        assert told[:3] == [
            (chunk.COMMAND, 0, ["_result", 2.0, None, 1.0]),
            (chunk.COMMAND, 0, ["_result", 4.0, None, 0.0]),
            (chunk.USER_CONTROL, 0, bytes.fromhex("0000 00000001")),
        ]
        assert [values[3]["code"] for _, _, values in told[3:5]] == ["NetStream.Play.Reset", "NetStream.Play.Start"]
        assert told[5:] == [(chunk.DATA, 1, ["|RtmpSampleAccess", True, True])]

    def test_akamais_players_subscribe(self):
        server = connected()
        server.receive_data(command("FCSubscribe", 4, None, "x"))
        assert events_of(server) == []
        ((_, _, values),) = said(server.data_to_send())
        assert (values[0], values[3]["code"]) == ("onFCSubscribe", "NetStream.Play.Start")

    def test_flash_speaks_of_amf3(self):
        server = opened()
        for values in (("connect", 1, {"app": "live", "objectEncoding": 3.0}), ("createStream", 2, None)):
            server.receive_data(command(*values, kind=chunk.COMMAND_AMF3, head=b"\0"))
        assert server.next_event() == Connect("live", properties={"objectEncoding": 3.0})
        server.send(Accepted())
        assert server.next_event() is NEED_DATA
        assert said(server.data_to_send()) == [(chunk.COMMAND, 0, ["_result", 2.0, None, 1.0])]

    def test_librtmps_ping_is_a_delta_on_a_fresh_chunk_stream(self):
        server = opened()
        server.receive_data(bytes.fromhex("42 000000 000006 04 0006 0000002a"))
        assert events_of(server) == []
        assert server.data_to_send() == bytes.fromhex("02 000000 000006 04 00000000 0007 0000002a")

    def test_metadata_comes_with_and_without_its_wrapper(self):
        server = published()
        fields = amf.EcmaArray(TITLE.fields)
        for values in (("@setDataFrame", "onMetaData", fields), ("onMetaData", fields), ("onCuePoint", {"a": None})):
            server.receive_data(command(*values, stream=1, kind=chunk.DATA))
        server.receive_data(command("onMetaData", fields, stream=1, kind=chunk.DATA_AMF3, head=b"\0"))
        assert events_of(server) == [TITLE, TITLE, Metadata({"a": None}, name="onCuePoint"), TITLE]

    def test_data_that_is_no_metadata_is_counted(self):
        server = published()
        for values in ((), ("@clearDataFrame", "onMetaData"), (7.0, {}), ("|RtmpSampleAccess", True, True)):
            server.receive_data(command(*values, stream=1, kind=chunk.DATA))
        server.receive_data(command("onMetaData", stream=1, kind=chunk.DATA, head=b"\x11"))
        assert events_of(server) == []
        assert server.ignored == 5

    def test_fourccs_are_offered_to_who_speaks_of_them(self):
        for fields, offered in (({}, None), ({"fourCcList": ["hvc1"]}, ["hvc1", "av01", "vp09"])):
            server = opened()
            server.receive_data(command("connect", 1, {"app": "live", **fields}))
            server.next_event()
            *_, (_, _, values) = said(server.send(Accepted()))
            assert values[2].get("fourCcList") == offered

    @pytest.mark.parametrize("end", ["deleteStream", "closeStream", "FCUnpublish"])
    def test_every_way_to_end_a_stream(self, end):
        values = {"deleteStream": (0, None, 1.0), "closeStream": (0, None), "FCUnpublish": (6, None, "x")}[end]
        server = published()
        server.receive_data(command(end, *values, stream=1 if end == "closeStream" else 0))
        assert events_of(server) == [StreamEnded()]
        server.receive_data(command(end, *values, stream=1 if end == "closeStream" else 0) + media(1))
        assert events_of(server) == []

    def test_a_stream_may_be_deleted_on_itself(self):
        server = published()
        server.receive_data(command("deleteStream", 0, None, stream=1))
        assert events_of(server) == [StreamEnded()]

    def test_who_stops_publishing_is_answered(self):
        server = published()
        server.receive_data(command("FCUnpublish", 6, None, "x"))
        assert events_of(server) == [StreamEnded()]
        fields = {"level": "status", "code": "NetStream.Unpublish.Success", "description": "FCUnpublish"}
        assert [values for _, _, values in said(server.data_to_send())] == [
            ["_result", 6.0, None, amf.UNDEFINED],
            ["onFCUnpublish", 0.0, None, fields],
        ]

    def test_the_end_of_another_stream_is_not_ours(self):
        server = published()
        server.receive_data(command("deleteStream", 0, None, 2.0) + command("closeStream", 0, None, stream=2))
        server.receive_data(command("FCUnpublish", 6, None, "y"))
        assert events_of(server) == []

    @pytest.mark.parametrize("values", [("x?key=1",), ("/x",), ()])
    def test_the_end_of_a_stream_is_ours_with_a_query_a_slash_or_without_a_name(self, values):
        server = published()
        server.receive_data(command("FCUnpublish", 6, None, *values))
        assert events_of(server) == [StreamEnded()]

    def test_a_second_stream_is_refused_and_the_first_unharmed(self):
        server = published()
        server.receive_data(command("publish", 6, None, "y", stream=2) + command("play", 0, None, "z", stream=3))
        server.receive_data(media(40, stream=2) + media(50))
        assert [event.dts for event in events_of(server)] == [50]
        assert [(stream, values[3]["code"]) for _, stream, values in said(server.data_to_send())] == [
            (2, "NetStream.Publish.BadName"),
            (3, "NetStream.Play.StreamNotFound"),
        ]

    def test_media_without_a_stream_number_is_taken(self):
        server = published()
        server.receive_data(media(40, stream=0))
        assert [event.dts for event in events_of(server)] == [40]

    def test_empty_media_and_unknown_messages_are_counted(self):
        server = published()
        server.receive_data(media(40, b"") + media(40, kind=19) + media(50))
        assert [event.dts for event in events_of(server)] == [50]
        assert server.ignored == 2


class TestTime:
    def times(self, *timestamps):
        server = published()
        for timestamp in timestamps:
            server.receive_data(media(timestamp))
        return [event.dts for event in events_of(server)]

    def test_a_wrap_goes_on_upwards(self):
        assert self.times(0xFFFFFFF0, 0xFFFFFFFF, 16, 32) == [0xFFFFFFF0, 0xFFFFFFFF, (1 << 32) + 16, (1 << 32) + 32]

    def test_a_step_back_around_a_wrap_stays_one(self):
        assert self.times(0xFFFFFFF0, 16, 0xFFFFFFFA, 20) == [
            *(0xFFFFFFF0, (1 << 32) + 16, 0xFFFFFFFA, (1 << 32) + 20),
        ]

    def test_a_small_step_back_is_no_wrap(self):
        assert self.times(1000, 990, 1010) == [1000, 990, 1010]

    def test_a_restart_stays_a_jump_back(self):
        assert self.times(3_600_000, 0, 40) == [3_600_000, 0, 40]

    @pytest.mark.parametrize("jump", [-3_600_000, -6000, 3_000_000_000])
    def test_a_jump_that_would_end_below_zero_is_one_ahead(self, jump):
        there = 4000 + jump & 0xFFFFFFFF
        assert self.times(3979, 4000, there, there + 21, 0xFFFFFFFF, 20) == [
            *(3979, 4000, there, there + 21, 0xFFFFFFFF, (1 << 32) + 20),
        ]

    def test_a_small_step_back_may_end_below_zero(self):
        assert self.times(900, 0xFFFFFFF0, 20) == [900, -16, 20]

    def test_two_wraps(self):
        third = (1 << 32) // 3
        stamps = [(n * third) & 0xFFFFFFFF for n in range(8)]
        assert self.times(*stamps) == [n * third for n in range(8)]

    def test_31_bits_wrap_too(self):
        last, half = 0x7FFFFFFF, 1 << 31  # libavformat, for one, sends no more
        assert self.times(last - 30, 3, last - 7, 36, 30_036, 30_069) == [
            *(last - 30, half + 3, last - 7, half + 36, half + 30_036, half + 30_069),
        ]

    def test_headers_and_metadata_at_zero_do_not_move_the_base(self):
        server = published()
        late = 0xF0000000
        server.receive_data(media(0, OPENING.body, 9) + media(late))
        server.receive_data(media(0, SOUND_OPENING.body) + command("onMetaData", {}, stream=1, kind=chunk.DATA))
        server.receive_data(media(late + 40))
        found = events_of(server)
        assert (found[0].dts, found[1].dts, found[-1].dts) == (0, late, late + 40)

    def test_a_new_stream_starts_anew(self):
        pair = Pair().publishing()
        pair.say(pair.client, flv.audio_packet(b"", dts=(1 << 33) + 5))
        pair.say(pair.client, StreamEnded())
        pair.say(pair.client, Publish("y"))
        pair.say(pair.client, flv.audio_packet(b"", dts=0xFFFFFFFF))
        assert [event.dts for event in pair.heard["server"] if isinstance(event, Audio)] == [5, 0xFFFFFFFF]

    @PATIENT
    @given(st.lists(st.integers(-(1 << 30), 1 << 30), max_size=8), st.integers(0, 0xFFFFFFFF))
    def test_steps_survive_whatever_the_number_of_wraps(self, steps, start):
        real = [start]
        for step in steps:
            real.append(real[-1] + step)
        assume(min(real) >= 0)
        assert self.times(*(time & 0xFFFFFFFF for time in real)) == real


class TestAggregates:
    def test_its_tags_are_messages_with_their_own_times(self):
        """7.1.6: the first tag has the aggregate's time, the others are as far from it as they say."""
        tags = [(8, 500, SOUND.body), (9, 540, PICTURE.body), (18, 540, b""), (8, 523, SOUND.body)]
        server = published()
        server.receive_data(media(1000, b"".join(flv.tag(*fields) for fields in tags), chunk.AGGREGATE) + media(1100))
        assert [(type(event), event.dts) for event in events_of(server)] == [
            *((Audio, 1000), (Video, 1040), (Audio, 1023), (Audio, 1100)),
        ]

    def test_aggregates_and_commands_within_are_dropped(self):
        inner = flv.tag(20, 0, amf.encode("deleteStream", 0, None, 1))
        server = published()
        server.receive_data(media(0, inner + flv.tag(22, 0, inner), chunk.AGGREGATE) + media(1))
        assert [event.dts for event in events_of(server)] == [1]

    def test_a_broken_one_closes(self):
        server = published()
        server.receive_data(media(0, b"\x08" * 20, chunk.AGGREGATE))
        with pytest.raises(RemoteProtocolError, match="cut off"):
            server.next_event()


class TestControl:
    def test_pings_are_answered_and_pongs_told(self):
        pair = Pair().connected()
        for session, peer in ((pair.server, "client"), (pair.client, "server")):
            pair.say(session, Ping(77))
            assert pair.heard[session.role][-1] == Pong(77)
            assert Ping(77) not in pair.heard[peer]

    def test_bytes_are_acknowledged_once_a_window(self):
        server = published()
        server.receive_data(chunk.encode(chunk.control(chunk.WINDOW_SIZE, 5000), on=2, chunk_size=128))
        server.data_to_send()
        acks = []
        for n in range(40):
            server.receive_data(media(n, SOUND.body + bytes(1000)))
            events_of(server)
            acks += said(server.data_to_send())
        assert {kind for kind, _, _ in acks} == {chunk.ACKNOWLEDGEMENT}
        counts = [int.from_bytes(payload, "big") for _, _, payload in acks]
        assert len(counts) == 8
        assert counts[-1] <= server.received_bytes
        assert all(5000 <= later - earlier < 6200 for earlier, later in pairwise(counts))

    def test_the_peers_acknowledgements_change_nothing(self):
        server = published()
        server.receive_data(chunk.encode(chunk.control(chunk.ACKNOWLEDGEMENT, 12345), on=2, chunk_size=128))
        assert events_of(server) == []

    def test_a_peer_bandwidth_is_answered_once(self):
        server = opened()
        wish = chunk.encode(chunk.control(chunk.PEER_BANDWIDTH, 9, b"\x02"), on=2, chunk_size=128)
        server.receive_data(wish + wish)
        events_of(server)
        assert said(server.data_to_send()) == [(chunk.WINDOW_SIZE, 0, (2_500_000).to_bytes(4, "big"))]

    @pytest.mark.parametrize(
        ("kind", "payload"),
        [
            (chunk.ACKNOWLEDGEMENT, "6162"),
            (chunk.WINDOW_SIZE, "6162"),
            (chunk.ABORT, "6162"),
            (chunk.USER_CONTROL, "00"),
            (chunk.USER_CONTROL, "0006 000000"),  # a ping
            (chunk.USER_CONTROL, "0007"),
            (chunk.USER_CONTROL, "0001 0000"),
        ],
    )
    def test_a_control_message_that_is_too_short_closes(self, kind, payload):
        server = opened()
        server.receive_data(chunk.encode(Message(kind, 0, 0, bytes.fromhex(payload)), on=2, chunk_size=128))
        with pytest.raises(RemoteProtocolError, match="control message of"):
            server.next_event()

    @pytest.mark.parametrize("payload", ["001a", "001a 01", "0003", "0100 00000001 0002"])
    def test_an_event_of_no_account_has_any_length(self, payload):
        """Such as a server's wish to see the hash of a Flash player, of which a publisher has none."""
        client = Pair().publishing().client
        message = Message(chunk.USER_CONTROL, 0, 0, bytes.fromhex(payload))
        client.receive_data(chunk.encode(message, on=2, chunk_size=65536))
        assert events_of(client) == []
        assert client.state is State.PUBLISHING
        assert client.data_to_send() == b""


class TestSharing:
    def test_the_same_bytes_serve_every_player(self):
        shared, pairs = Shared(PICTURE), [Pair().playing() for _ in range(3)]
        sent = [pair.server.send(shared) for pair in pairs]
        assert sent[0] is sent[1] is sent[2]
        for pair in pairs:
            pair.carry(pair.server, sent[0])
            pair.run()
            assert pair.heard["client"] == [PICTURE]

    def test_they_are_what_the_packet_alone_would_be(self):
        large = flv.video_packet(bytes(200_000), dts=1 << 24, pts=1 << 24, keyframe=True)
        one, other = Pair().playing(), Pair().playing()
        assert one.server.send(Shared(large)) == other.server.send(large)

    def test_another_stream_number_has_its_own_bytes(self):
        shared, pair = Shared(SOUND), Pair().playing()
        pair.say(pair.client, StreamEnded())
        pair.say(pair.client, Play("y"))
        pair.say(pair.server, shared)
        assert pair.heard["client"][-1] == SOUND
        assert shared.chunks(1) != shared.chunks(2) == shared.chunks(2)

    def test_a_peer_cannot_make_it_keep_many(self):
        shared = Shared(SOUND)
        for stream in range(100):
            shared.chunks(stream)
        assert len(shared._chunks) == 4

    def test_it_needs_the_state_that_the_packet_needs(self):
        with pytest.raises(LocalProtocolError, match="must not send Audio"):
            Session("server").send(Shared(SOUND))


class TestLimits:
    def test_a_message_that_is_too_large_closes(self):
        server = published(SMALL)
        server.receive_data(media(0, bytes(20_001))[:20])
        with pytest.raises(RemoteProtocolError, match="above the limit"):
            server.next_event()

    def test_a_command_that_is_too_large_closes(self):
        server = connected(SMALL)
        server.receive_data(command("publish", 1, None, "x" * 3000))
        with pytest.raises(RemoteProtocolError, match="AMF message of 30"):
            server.next_event()

    def test_a_command_that_nobody_knows_is_not_read_behind_its_name(self):
        server = connected()
        name = amf.encode("what", 0)
        server.receive_data(chunk.encode(Message(chunk.COMMAND, 0, 0, name + NUMBERS + b"\xff"), on=3, chunk_size=128))
        assert events_of(server) == []
        assert server.ignored == 1
        server.receive_data(command("publish", 5, None, "x", stream=1))
        assert server.next_event() == Publish("x")

    @pytest.mark.parametrize("limits", [SMALL, Limits()])
    def test_a_command_of_very_many_values_closes(self, limits):
        server = connected(limits)
        server.receive_data(command("publish", 5, None, "x", *[None] * (limits.command_values - 4)))
        assert server.next_event() == Publish("x")
        server = connected(limits)
        server.receive_data(command("publish", 5, None, "x", *[None] * (limits.command_values - 3)))
        with pytest.raises(RemoteProtocolError, match="too many values"):
            server.next_event()

    def test_commands_of_many_values_close_when_they_come_at_once(self):
        server = connected()
        server.receive_data(command("getStreamLength", 2, *[None] * 500) * 2)
        with pytest.raises(RemoteProtocolError, match="small chunks that say nothing"):
            server.next_event()

    @pytest.mark.parametrize("state", [connected, published], ids=["nobody publishes", "another stream"])
    def test_data_that_belong_to_no_stream_are_not_decoded(self, state):
        server = state()
        body = amf.encode("onMetaData") + NUMBERS
        data = chunk.encode(Message(chunk.DATA, 7, 0, body), on=4, chunk_size=128)
        tracemalloc.start()
        server.receive_data(data)
        assert server.next_event() is NEED_DATA
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert server.ignored == 1
        assert peak < 4 * len(data)  # the numbers as a list would be as much again

    def test_data_of_very_many_values_are_ignored_and_the_stream_goes_on(self):
        server = published()
        server.receive_data(chunk.encode(Message(chunk.DATA, 1, 0, amf.encode("x") + NUMBERS), on=4, chunk_size=128))
        server.receive_data(media(5))
        assert [type(event) for event in events_of(server)] == [Audio]
        assert server.ignored == 1

    def test_tags_that_say_nothing_are_few_at_a_time(self):
        server = published()
        body = flv.tag(9, 0, b"") * 5000
        server.receive_data(chunk.encode(Message(chunk.AGGREGATE, 1, 0, body), on=4, chunk_size=128))
        with pytest.raises(RemoteProtocolError, match="small chunks that say nothing"):
            server.next_event()

    def test_a_hundred_chunk_streams_publish_and_too_many_close(self):
        server = published()
        for on in range(7, 63):
            server.receive_data(chunk.encode(Message(8, 1, on, SOUND.body), on=on, chunk_size=128))
        assert [event.dts for event in events_of(server)] == list(range(7, 63))
        for on in range(64, 200):
            server.receive_data(bytes((0, on - 64)) + media(on)[1:])
        with pytest.raises(RemoteProtocolError, match="more than 128 chunk streams"):
            events_of(server)

    def test_many_tiny_tags_cost_little_at_a_time(self):
        server = published()
        server.receive_data(chunk.encode(chunk.control(chunk.SET_CHUNK_SIZE, 1 << 23), on=2, chunk_size=128))
        body = flv.tag(8, 0, b"\x2f") * 50_000
        server.receive_data(chunk.encode(Message(chunk.AGGREGATE, 1, 0, body), on=4, chunk_size=1 << 23))
        tracemalloc.start()
        count = len(body) // 16
        for _ in range(count):
            assert isinstance(server.next_event(), Audio)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 2 * len(body)
        assert server.next_event() is NEED_DATA


def test_the_end_closes_for_ever_and_says_so():
    for data in (b"", b"\x03", b"\x03" + bytes(3000)):
        server = Session("server")
        if data:
            server.receive_data(data)
        server.receive_data(b"")
        assert [server.next_event() for _ in range(3)] == [Closed()] * 3
        kept = server.held_bytes
        server.receive_data(b"more")
        assert (server.next_event(), server.held_bytes) == (Closed(), kept)


def test_a_message_that_is_cut_off_by_the_end_is_no_error():
    server = published()
    server.receive_data(media(1) + media(2, PICTURE.body, 9)[:-1])
    server.receive_data(b"")
    assert [type(event) for event in events_of(server)] == [Audio, StreamEnded, Closed]


def test_we_may_close_at_any_time():
    server = published()
    assert server.send(Closed()) == b""
    server.receive_data(media(1))
    assert server.next_event() == Closed()


def answered(session) -> Iterator[object]:
    """All that a session hears, as a caller who says yes to everything."""
    for event in heard(session):
        yield event
        if isinstance(event, Connect | Publish | Play):
            session.send(Accepted())
        elif event == Opened() and session.role == "client":
            session.send(CONNECT)
        elif event == Accepted() and session.state is State.CONNECTED:
            session.send(Play("x"))
        session.data_to_send()


def recorded():
    """What a client and a server say in a whole life: the bytes of either side."""
    publisher, player = Pair().publishing(), Pair().playing()
    far = flv.video_packet(bytes(300), dts=1 << 25, pts=1 << 25, keyframe=True)
    for event in (TITLE, OPENING, SOUND_OPENING, PICTURE, SOUND, Ping(5), far, StreamEnded()):
        publisher.say(publisher.client, event)
        player.say(player.server, event)
    return publisher.wire["client"], player.wire["server"]


FROM_CLIENT, FROM_SERVER = recorded()
RECORDINGS = [pytest.param("server", FROM_CLIENT, id="server"), pytest.param("client", FROM_SERVER, id="client")]


@pytest.mark.parametrize(("role", "wire"), RECORDINGS)
@pytest.mark.parametrize("size", [1, 2, 7, 100, 1537])
def test_byte_by_byte_is_all_at_once(role, wire, size):
    whole, pieces = Session(role), Session(role)
    whole.receive_data(wire)
    expected = list(answered(whole))
    assert len(expected) > 8
    found = []
    for at in range(0, len(wire), size):
        pieces.receive_data(wire[at : at + size])
        found += answered(pieces)
    assert found == expected
    assert (pieces.state, pieces.ignored) == (whole.state, whole.ignored)


def survives(role, pieces):
    """Feeds bytes; the one thing that may happen is the peer's fault, and what is kept has a bound."""
    session = Session(role, limits=SMALL)
    try:
        for piece in pieces:
            session.receive_data(piece)
            count = sum(1 for _ in answered(session))
            assert count <= session.received_bytes + 2
            assert len(session._reader) <= SMALL.message_bytes + len(piece)
            assert session._reader._partial_bytes <= SMALL.partial_bytes
    except RemoteProtocolError:
        assert session.state is State.CLOSED


@PATIENT
@given(st.sampled_from(("client", "server")), st.lists(st.binary(min_size=1, max_size=400), max_size=5))
def test_garbage_is_the_peers_fault_at_worst(role, pieces):
    survives(role, pieces)
    survives(role, [b"\x03" + bytes(3072), *pieces])


@PATIENT
@given(st.sampled_from((chunk.COMMAND, chunk.DATA, chunk.AGGREGATE, 1, 2, 3, 4, 5, 6)), st.binary(max_size=100))
def test_garbage_in_a_message_is_the_peers_fault_at_worst(kind, body):
    survives("server", [FROM_CLIENT[:-100], chunk.encode(Message(kind, 1, 0, body), on=9, chunk_size=65536)])
    survives("client", [FROM_SERVER[:-200], chunk.encode(Message(kind, 1, 0, body), on=9, chunk_size=65536)])


@settings(PATIENT, max_examples=200)
@given(st.data())
def test_mutated_conversations_are_the_peers_fault_at_worst(data):
    role, wire = data.draw(st.sampled_from((("server", FROM_CLIENT), ("client", FROM_SERVER))))
    broken = bytearray(wire)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(3073, len(broken) - 1))
        match data.draw(st.sampled_from(("set", "insert", "delete", "repeat"))):
            case "set":
                broken[at] = data.draw(st.integers(0, 255))
            case "insert":
                broken[at:at] = data.draw(st.binary(min_size=1, max_size=20))
            case "delete":
                del broken[at : at + data.draw(st.integers(1, 20))]
                broken += bytes(20)
            case "repeat":
                broken[at:at] = broken[at : at + 200]
    cut = data.draw(st.integers(1, len(broken)))
    survives(role, [bytes(broken[:cut]), bytes(broken[cut:]) or b"\0", b""])


# ---- real peers ----

PUBLISHER = """
import sys
from fractions import Fraction
import av, numpy as np
with av.open(sys.argv[1], "w", format="flv") as container:
    picture = container.add_stream("libx264", rate=25, options={"g": "10", "bf": "2"})
    picture.width, picture.height, picture.pix_fmt = 64, 64, "yuv420p"
    sound = container.add_stream("aac", rate=44100, layout="mono")
    for n in range(50):
        frame = av.VideoFrame.from_ndarray(np.full((96, 64), 16 + n * 4, np.uint8), "yuv420p")
        frame.pts, frame.time_base = n, Fraction(1, 25)
        container.mux(picture.encode(frame))
        block = av.AudioFrame.from_ndarray(np.zeros((1, 1764), np.float32), "fltp", "mono")
        block.pts, block.sample_rate = n * 1764, 44100
        container.mux(sound.encode(block))
    container.mux(picture.encode())
    container.mux(sound.encode())
"""

PLAYER = """
import json, sys
import av
with av.open(sys.argv[1], timeout=(10, 10)) as container:
    packets, pictures, sounds = [], 0, 0
    for packet in container.demux():
        if packet.size:
            packets.append([packet.stream.type, packet.dts, packet.pts, packet.is_keyframe, packet.size])
        for frame in packet.decode():
            if packet.stream.type == "video":
                pictures += 1
            else:
                sounds += frame.samples
print(json.dumps([packets, pictures, sounds]))
"""


class Relay:
    """The smallest server there can be: one stream, kept from its first packet, given to whoever plays it."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"rtmp://127.0.0.1:{self.listener.getsockname()[1]}/live/x"
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.listener, selectors.EVENT_READ)
        self.sessions = {}
        self.players = []
        self.media = []
        self.requests = []
        self.ended = False

    def run_until(self, over, seconds=20.0):
        """Serves until `over()`, and fails at the deadline."""
        deadline = time.monotonic() + seconds
        while not over():
            assert time.monotonic() < deadline
            for key, _ in self.selector.select(0.1):
                if key.fileobj is self.listener:
                    connection, _ = self.listener.accept()
                    self.selector.register(connection, selectors.EVENT_READ)
                    self.sessions[connection] = Session("server")
                else:
                    self.hear(key.fileobj)

    def hear(self, connection):
        session = self.sessions[connection]
        try:
            session.receive_data(connection.recv(65536))
            for event in heard(session):
                self.happened(connection, session, event)
            if session.state is not State.CLOSED:
                connection.sendall(session.data_to_send())
        except ConnectionError:  # a peer that goes without reading all we said
            session.receive_data(b"")
            for event in heard(session):
                self.happened(connection, session, event)

    def happened(self, connection, session, event):
        match event:
            case Connect():
                connection.sendall(session.send(Accepted()))
            case Publish():
                self.requests.append(event)
                connection.sendall(session.send(Accepted()))
            case Play():
                self.requests.append(event)
                connection.sendall(session.send(Accepted()))
                for media in self.media:
                    connection.sendall(session.send(media))
                self.players.append((connection, session))
                if self.ended:
                    connection.sendall(session.send(StreamEnded()))
            case Video() | Audio() | Metadata():
                self.media.append(event)
                shared = event if isinstance(event, Metadata) else Shared(event)
                for player, its in self.players:
                    player.sendall(its.send(shared))
            case StreamEnded() if session.state is not State.PLAYING and not self.ended:
                self.ended = True
                for player, its in self.players:
                    player.sendall(its.send(StreamEnded()))
            case Closed():
                self.selector.unregister(connection)
                connection.close()

    def close(self):
        for key in list(self.selector.get_map().values()):
            key.fileobj.close()
        self.selector.close()


@pytest.fixture
def relay():
    server = Relay()
    yield server
    server.close()


@pytest.fixture
def child():
    """Starts a script in a process of its own: libav holds the GIL while it connects an output."""
    started = []

    def start(script, url):
        process = subprocess.Popen(
            [sys.executable, "-c", script, url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def in_packets(media):
    """What a demuxer should make of media."""
    return [
        [
            "video" if isinstance(event, Video) else "audio",
            event.dts,
            event.pts,
            not isinstance(event, Video) or event.keyframe,
            len(event.data),
        ]
        for event in media
        if not isinstance(event, Metadata) and event.kind == "packet"
    ]


@pytest.mark.flow
@pytest.mark.parametrize("live", [True, False], ids=["while published", "afterwards"])
def test_libav_publishes_and_plays(relay, child, live):
    publisher = child(PUBLISHER, relay.url)
    relay.run_until(lambda: relay.requests if live else relay.ended)
    player = child(PLAYER, relay.url)
    relay.run_until(lambda: publisher.poll() is not None and player.poll() is not None)
    out, errors = player.communicate()
    assert (publisher.returncode, player.returncode, errors) == (0, 0, "")
    assert relay.requests == [Publish("x"), Play("x")]
    packets, pictures, sounds = json.loads(out)
    assert packets == in_packets(relay.media)
    assert [kind for kind, *_ in packets].count("video") == pictures == 50
    assert sounds >= 50 * 1764
    assert {event.kind for event in relay.media if isinstance(event, Video)} == {"extradata", "packet", "end"}
    assert any(event.pts > event.dts for event in relay.media if isinstance(event, Video))
    assert all(session.ignored == 0 for session in relay.sessions.values())
