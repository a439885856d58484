"""Push: one stream, sent to one RTMP or RTMPS server for as long as it runs: waits, connects, sends, tries again.

It decides when the server is dead and when to try again; it refuses to know what is sent: packets go as they come.

Theory of operation
-------------------
* While nobody publishes the stream there is no connection. With the first packet there is one, and what it gets begins
  with the last keyframe. When the publisher goes, the stream is ended and the connection closed.
* The queue is a reader's: a slow server loses packets to the next keyframe, counted, and nobody else notices. A server
  that takes nothing for `stall` seconds is dead; so is one that has answered pings and says nothing for `silence`
  seconds. One that ends a connection at a ping, or soon answers none any more, gets no more of them.
* After a failure it tries again, each time twice as long after the last time, from `retry` to `retry_most` seconds; a
  connection that has lasted `settled` seconds makes it begin with `retry` again. A refusal is a failure like others:
  servers keep the name of a publisher whom they have not missed yet.
* Time stamps begin at 0 for each connection, since servers take a publisher's first one for granted. They run as the
  stream's; where those jump, they go on by the time that has passed, picture and sound by the same.
"""

from __future__ import annotations

import errno
import logging
import os
import secrets
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final, Literal, NamedTuple
from urllib.parse import quote, unquote, unquote_plus, urlsplit

import msgspec
import trio

from engine.errors import (
    InvalidSpec,
    NotFound,
    RemoteProtocolError,
    SinkError,
    SinkRejected,
    SinkUnavailable,
    one_line,
    reason_of,
)
from engine.feed import Feed, Said
from engine.link import Link, Watch, limit_stall, race
from engine.packet import Kind, Packet
from engine.rtmp import (
    Accepted,
    Closed,
    Connect,
    Metadata,
    Opened,
    Pong,
    Publish,
    Rejected,
    State,
    StreamEnded,
    auth,
    flv,
)
from engine.rtmp.session import Session, Shared
from engine.stream import END, PORTION, Hub, Reader, check_name
from engine.threads import in_thread
from engine.urls import clear_parts, has_spaces

BACK_MS: Final = 1000  # time stamps that far behind the last ones of their kind, or …
AHEAD_MS: Final = 15_000  # … that far from the latest of all, not counting the time that has passed, have jumped
APART_MS: Final = 5000  # sound that comes up to that much behind the pictures of its time, or ahead of them, is kept so
LINGER: Final = 1.0  # seconds that a server has to read to the end; closing at once could make it lose the last packets
MAX_URL: Final = 4096
MAX_ERROR: Final = 500  # letters of what went wrong that are told; servers may say more
PLAIN_NAME: Final = 12  # letters of a stream name that is shown whole; keys of platforms have 16 and more
KEPT_OF_NAME: Final = 4
ROUNDS: Final = 3  # connections that it takes to be let in with a password
PORTS: Final = {"rtmp": 1935, "rtmps": 443}

_Stream = trio.SocketStream | trio.SSLStream[trio.SocketStream]
_State = Literal["waiting", "connecting", "pushing", "retrying", "failed"]

log = logging.getLogger(__name__)


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """How long a push waits for what; seconds."""

    connect: float = 5.0  # for TCP and TLS, and again for the server's yes
    stall: float = 5.0
    silence: float = 4.0  # of a server that answers pings
    retry: float = 1.0
    retry_most: float = 30.0
    settled: float = 10.0


class PushStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A push at a moment. The url is without its secrets, see Target.shown; so is the last error, see Target.veil.

    dropped  packets lost because the server was slow.
    waiting  packets that wait to be sent; those of the last quarter of a megabyte are on their way.
    """

    id: str
    url: str
    stream: str
    state: _State
    error: str
    bytes: int
    packets: int
    dropped: int
    waiting: int
    connects: int  # how often a server said yes


class Target(NamedTuple):
    """What an RTMP URL names; key is the stream's name with its query."""

    scheme: str
    host: str
    port: int
    app: str
    key: str
    user: str = ""
    password: str = ""

    @property
    def address(self) -> str:
        """host:port."""
        return f"{self._bracketed}:{self.port}"

    @property
    def tc_url(self) -> str:
        """The URL of the app, as servers are told it."""
        host = self._bracketed if self.port == PORTS[self.scheme] else self.address
        return f"{self.scheme}://{host}/{self.app}"

    @property
    def shown(self) -> str:
        """The URL without password and query; of a name that is long, as platforms' secret keys are, the beginning."""
        name, _, query = self.key.partition("?")
        name = _shown_name(name)
        scheme, _, rest = self.tc_url.partition("://")
        secret = ":***" if self.password else ""
        user = f"{quote(self.user)}{secret}@" if self.user or secret else ""
        return f"{scheme}://{user}{rest}/{name}" + ("?***" if query else "")

    def veil(self, sentence: str) -> str:
        """What a server says, without what `shown` leaves out; that may be decoded there, or encoded otherwise.

        Words of up to KEPT_OF_NAME letters stay, which are parts of other words too.
        """
        name, _, query = self.key.partition("?")
        hidden = {query, self.password, *(each.partition("=")[2] or each for each in query.split("&"))}
        veils = {form: "***" for each in hidden if len(unquote(each)) > KEPT_OF_NAME for form in _forms(each)}
        if len(name) > PLAIN_NAME:
            veils |= dict.fromkeys(_forms(name), _shown_name(name))
        for form in sorted(veils, key=len, reverse=True):
            sentence = sentence.replace(form, veils[form])
        return sentence

    @property
    def _bracketed(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host


def parse_url(url: str) -> Target:
    """What ``rtmp[s]://[user:password@]host[:port]/app[/more]/name[?query]`` names. Raises InvalidSpec."""
    if len(url) > MAX_URL or has_spaces(url):
        raise InvalidSpec(f"a URL of {len(url)} characters is longer than {MAX_URL} or has spaces", where="url")
    if clear_parts(url) is None:
        raise InvalidSpec("a URL whose host, port or password cannot be read", where="url")
    parts = urlsplit(url, allow_fragments=False)
    host, port = parts.hostname, parts.port
    app, _, name = parts.path.strip("/").rpartition("/")
    if parts.scheme not in PORTS or not host or port == 0:
        raise InvalidSpec('a URL to push to is not like "rtmp://host/app/name" or "rtmps://…"', where="url")
    if not app or not name:
        raise InvalidSpec("a URL to push to has no app or no stream name: rtmp://host/app/name", where="url")
    key = f"{name}?{parts.query}" if parts.query else name
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    return Target(parts.scheme, host, port or PORTS[parts.scheme], app, key, user, password)


def _shown_name(name: str) -> str:
    return name if len(name) <= PLAIN_NAME else name[:KEPT_OF_NAME] + "***"


def _forms(part: str) -> set[str]:
    """How a server may write a part of a URL: as it stands there, decoded, and that encoded by one rule or another."""
    plain = unquote(part)
    return {part, plain, unquote_plus(part), *(quote(plain, safe, errors="replace") for safe in ("", "/"))}


class _Run(NamedTuple):
    """How the packets of one kind are placed; times are those that are given, in ms, arrivals in ns."""

    zero: int  # the stream's ms that is 0 here
    began: int  # arrival of the first packet with this zero
    last: int  # the latest time
    arrival: int  # of the last packet


class Rebase:
    """The time stamps of one connection: from 0 on, without the stream's jumps.

    Those of one kind never go back by more than `BACK_MS`.

    Sound that comes up to `APART_MS` behind the pictures of its time, or ahead of them, is kept with them for as long
    as the stream lasts; so each kind is judged by its own last stamp. When one has jumped, the other one comes with old
    stamps for a while, and stays on the old zero until it jumps, too. Where it has not done so within `APART_MS`, and
    would be no farther than that from the other one on the newest zero, only one of them had wrong stamps: both are on
    the newest zero then. Else their clocks have nothing to do with each other, and each has its own zero.

    Not mended: a kind that alone goes ahead by less than `AHEAD_MS` looks like one whose segments come at once, as the
    10 s of HLS do, and is ahead of the other one for as long as its stamps are.

    What is from before the beginning is shown there, as later pictures may need it; sound is left out: receivers that
    count samples would play all that follows later by as much.
    """

    def __init__(self) -> None:
        self._runs: dict[Kind, _Run] = {}

    def place(self, packet: Packet) -> int | None:
        """The dts of a packet, ms; None: it is left out."""
        kind, arrival = packet.track.kind, packet.arrival
        zero = self._zero(packet)
        at = packet.dts_ms - zero
        own = self._runs.get(kind)
        last = at if own is None else max(own.last, at)
        began = arrival if own is None or own.zero != zero else own.began
        self._runs[kind] = _Run(zero, began, last, arrival)
        return None if at < 0 and kind == "audio" else max(0, at)

    def _zero(self, packet: Packet) -> int:
        """The stream's ms that is 0 for a packet: one that is in use, if the packet fits there, else a new one."""
        dts, own, runs = packet.dts_ms, self._runs.get(packet.track.kind), self._runs.values()
        if not runs:
            return dts
        newest = max(runs, key=lambda run: run.began)
        if own is not None and own.zero != newest.zero and _is_lost(packet, own, newest):
            return newest.zero
        latest, passed = max(run.last for run in runs), min(_passed(packet, run) for run in runs)
        near, least, most = latest, latest - APART_MS, latest + AHEAD_MS + passed
        if own is not None:
            near = min(latest, own.last + _passed(packet, own))
            least = max(latest - AHEAD_MS, own.last - BACK_MS)
        fitting = [run.zero for run in runs if least <= dts - run.zero <= most]
        return min(fitting, key=lambda zero: abs(dts - zero - near), default=dts - near - max(1, passed))


def _passed(packet: Packet, run: _Run) -> int:
    """How many ms after the last one of a kind a packet has come."""
    return max(0, packet.arrival - run.arrival) // 1_000_000


def _is_lost(packet: Packet, own: _Run, newest: _Run) -> bool:
    """Whether a packet on an old zero should be on the newest one, which another kind has had for long."""
    at = packet.dts_ms - newest.zero
    waited = packet.arrival - newest.began > APART_MS * 1_000_000
    return waited and at >= own.last - BACK_MS and abs(at - newest.last) <= APART_MS


class Push:
    """Sends one stream to one server; see the module.

    url      as parse_url takes it. The constructor raises InvalidSpec for a bad one, and for a bad name.
    tls      what checks an rtmps server; None = the system's authorities.
    changed  called whenever the state has.
    """

    def __init__(
        self,
        hub: Hub,
        name: str,
        url: str,
        *,
        id: str,  # noqa: A002
        patience: Patience | None = None,
        tls: ssl.SSLContext | None = None,
        changed: Callable[[], None] | None = None,
    ) -> None:
        check_name(name)
        # given
        self._hub = hub
        self._name = name
        self._target = parse_url(url)
        self._id = id
        self._patience = patience or Patience()
        self._tls = tls if self._target.scheme == "rtmps" else None
        self._changed = changed or (lambda: None)
        # owned by run()
        self._link: Link | None = None
        self._reader: Reader | None = None
        self._accepted_at = 0.0
        self._may_ping = True
        # read by anyone (snapshot)
        self._state: _State = "waiting"
        self._error = ""
        self._bytes = self._packets = self._dropped = self._connects = 0

    def __str__(self) -> str:
        return f"{self._name}: push {self._id}"

    def status(self) -> PushStatus:
        """The push as it is now."""
        return PushStatus(
            id=self._id,
            url=self._target.shown,
            stream=self._name,
            state=self._state,
            error=self._error,
            bytes=self._bytes + (self._link.sent_bytes if self._link is not None else 0),
            packets=self._packets,
            dropped=self._dropped + (self._reader.dropped if self._reader is not None else 0),
            waiting=0 if self._reader is None else self._reader.waiting,
            connects=self._connects,
        )

    async def run(self) -> None:
        """Pushes until cancelled. Raises nothing but bugs, with which its state is "failed"."""
        delay = self._patience.retry
        try:
            while True:
                await self._wait_for_publisher()
                try:
                    await self._push()
                    delay = self._patience.retry
                except SinkError as err:
                    if self._state == "pushing" and self._has_settled():
                        delay = self._patience.retry
                    self._enter("retrying", str(err))
                    await trio.sleep(delay)
                    delay = min(2 * delay, self._patience.retry_most)
        except Exception as err:
            self._enter("failed", f"{type(err).__name__}: {err}")
            raise

    def _enter(self, state: _State, error: str = "") -> None:
        if state == "pushing":
            log.info("%s: to %s", self, self._target.address)
            self._error = ""
        if error:
            self._complain(error)
        self._state = state
        self._changed()

    def _complain(self, error: str) -> None:
        """One line in the log for every new error, without the target's secrets: servers say what they were told."""
        error = one_line(self._target.veil(error))  # a secret that is cut or escaped would not be found
        error = error if len(error) <= MAX_ERROR else error[:MAX_ERROR] + "…"
        if error != self._error:
            log.warning("%s: %s", self, error)
        self._error = error

    async def _wait_for_publisher(self) -> None:
        """Until there are packets to send."""
        with self._hub.read(self._name) as reader:
            if not reader.waiting:
                self._enter("waiting")
            while all(item is END for item in await reader.receive()):
                pass

    async def _push(self) -> None:
        """One connection, until the publisher has gone. Raises SinkError."""
        self._enter("connecting")
        query = ""
        for _ in range(ROUNDS):
            async with self._connection() as stream:
                link = Link(stream, Session("client"), stall=self._patience.stall)
                refused = await self._ask(link, query)
                if refused is None:
                    await self._deliver(stream, link)
                    return
            query = self._authorised(refused)
        raise SinkRejected(f"{self._target.address} asks for a password again and again", where=self._id)

    # ---- connecting ----

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[_Stream]:
        """A stream to the server, closed at the end; what happens to it is told as SinkUnavailable."""
        address = self._target.address
        stream = await self._dial()
        try:
            yield stream
        except trio.TooSlowError as err:
            raise SinkUnavailable(f"{address} took nothing for {self._patience.stall:g} s", where=self._id) from err
        except (trio.BrokenResourceError, RemoteProtocolError) as err:
            raise SinkUnavailable(f"{address}: {_reason(err)}", where=self._id) from err
        finally:
            await trio.aclose_forcefully(stream)

    async def _dial(self) -> _Stream:
        target, seconds = self._target, self._patience.connect
        try:
            with trio.fail_after(seconds):
                if target.scheme == "rtmps" and self._tls is None:
                    self._tls = await in_thread(ssl.create_default_context)
                tcp = await trio.open_tcp_stream(target.host, target.port)
                limit_stall(tcp, self._patience.stall)
                return tcp if self._tls is None else await _secured(tcp, self._tls, target.host)
        except trio.TooSlowError as err:
            raise SinkUnavailable(f"{target.address}: no connection within {seconds:g} s", where=self._id) from err
        except (OSError, UnicodeError, trio.BrokenResourceError) as err:
            raise SinkUnavailable(f"{target.address} cannot be reached: {_reason(err)}", where=self._id) from err

    async def _ask(self, link: Link, query: str) -> Rejected | None:
        """Connects and publishes; returns the refusal to connect, if there was one. Raises SinkError."""
        with trio.move_on_after(self._patience.connect):
            return await self._request(link, query)
        sentence = f"{self._target.address} did not answer within {self._patience.connect:g} s"
        raise SinkUnavailable(sentence, where=self._id)

    async def _request(self, link: Link, query: str) -> Rejected | None:
        target = self._target
        await self._answer(link)  # the handshake is over
        url = f"{target.tc_url}?{query}" if query else target.tc_url
        await link.say(Connect(target.app, query, url, properties=self._properties()))
        answer = await self._answer(link)
        if isinstance(answer, Rejected):
            return answer
        await link.say(Publish(target.key))
        answer = await self._answer(link)
        if isinstance(answer, Rejected):
            raise SinkRejected(f"{target.address} refuses: {answer.description or answer.code}", where=self._id)
        return None

    async def _answer(self, link: Link) -> Opened | Accepted | Rejected:
        while True:
            match await link.hear():
                case Opened() | Accepted() | Rejected() as answer:
                    return answer
                case Closed():
                    raise self._ended("the connection", link)

    def _properties(self) -> dict[str, object]:
        """What connect announces: the FourCCs of the codecs, if they have no older name (Enhanced RTMP)."""
        try:
            stream = self._hub.published(self._name)
        except NotFound:
            return {}
        numbers = [flv.codec_id(track.codec) for track in (stream.video, stream.audio) if track is not None]
        names = [number.to_bytes(4, "big").decode() for number in numbers if number > 255]
        return {"fourCcList": names} if names else {}

    def _authorised(self, refused: Rejected) -> str:
        """The query that a refused connect wants. Raises SinkRejected."""
        target, text = self._target, refused.description
        query = auth.query(text, user=target.user, password=target.password, random=secrets.token_hex(4))
        if query is None:
            raise SinkRejected(f"{target.address} refuses: {text or refused.code}", where=self._id)
        return query

    # ---- sending ----

    async def _deliver(self, stream: _Stream, link: Link) -> None:
        """Sends until the publisher has gone. Raises SinkError, and what Link raises."""
        try:
            reader = self._hub.read(self._name, must_exist=True)
        except NotFound:
            return
        self._link, self._reader, self._accepted_at = link, reader, trio.current_time()
        self._connects += 1
        self._enter("pushing")
        try:
            with reader:
                await self._exchange(stream, link, reader)
            await _finish(stream, link)
        finally:
            self._bytes += link.sent_bytes
            self._dropped += reader.dropped
            self._link = self._reader = None

    async def _exchange(self, stream: _Stream, link: Link, reader: Reader) -> None:
        """Sends and listens, and watches whether the server is there."""
        tcp = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
        watch = Watch(link, tcp, silence=self._patience.silence)
        watches = (watch.ask, partial(self._watch, watch)) if self._may_ping else ()
        try:
            await race(partial(self._send, link, reader), partial(self._listen, link, watch), *watches)
        except (SinkUnavailable, trio.BrokenResourceError):
            if watch.is_asked and not watch.is_answered:  # it may be the ping that it does not like
                self._may_ping = False
            raise

    async def _watch(self, watch: Watch) -> None:
        """Until the server is dead, which is a failure."""
        await watch.until_silent()
        if not self._has_settled():  # it may be one that answers some pings only, and would be left again and again
            self._may_ping = False
        sentence = f"{self._target.address} said nothing for {self._patience.silence:g} s"
        raise SinkUnavailable(sentence, where=self._id)

    def _has_settled(self) -> bool:
        return trio.current_time() - self._accepted_at >= self._patience.settled

    async def _send(self, link: Link, reader: Reader) -> None:
        feed, rebase, stream = Feed(), Rebase(), reader.stream
        while True:
            said: list[Said | StreamEnded] = []
            for item in await reader.receive(most=PORTION):
                if item is END:
                    said.append(StreamEnded())
                    break
                at = rebase.place(item)
                if at is None:
                    continue
                said += [_at(each, at) for each in feed.tell(item, (stream.video, stream.audio))]
                self._packets += 1
            if feed.refused:
                self._complain("; ".join(feed.refused.values()))
            await link.say(*said, state=State.PUBLISHING)
            if link.session.state is not State.PUBLISHING:
                return

    async def _listen(self, link: Link, watch: Watch) -> None:
        """Until the server ends it, which is a failure."""
        while not isinstance(event := await link.hear(), StreamEnded | Closed):
            watch.is_answered |= isinstance(event, Pong)
        what = "the connection" if link.session.state is State.CLOSED else "the stream"
        raise self._ended(what, link)

    def _ended(self, what: str, link: Link) -> SinkUnavailable:
        """The failure that the server has ended something; with its reason, if it gave one."""
        why = f": {link.session.complaint}" if link.session.complaint else ""
        return SinkUnavailable(f"{self._target.address} ended {what}{why}", where=self._id)


def _at(said: Said, dts: int) -> Said:
    """The same at another time; metadata have none."""
    if isinstance(said, Metadata):
        return said
    return msgspec.structs.replace(said.media if isinstance(said, Shared) else said, dts=dts)


async def _secured(tcp: trio.SocketStream, context: ssl.SSLContext, host: str) -> _Stream:
    """TLS on a connection. Raises trio.BrokenResourceError."""
    stream = trio.SSLStream(tcp, context, server_hostname=host)
    try:
        await stream.do_handshake()
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return stream


async def _finish(stream: _Stream, link: Link) -> None:
    """Waits until the server has read that the stream is over. Raises nothing."""
    with trio.move_on_after(LINGER):
        try:
            if isinstance(stream, trio.SocketStream):
                await stream.send_eof()
            while not isinstance(await link.hear(), Closed):
                pass
        except (trio.BrokenResourceError, trio.ClosedResourceError, RemoteProtocolError):
            pass  # it is over either way
    with trio.move_on_after(LINGER):
        await stream.aclose()  # TLS has a word for it


def _reason(err: BaseException) -> str:
    """Why something with a socket went wrong, in words."""
    while err.__cause__ is not None or isinstance(err, BaseExceptionGroup):
        err = err.exceptions[0] if isinstance(err, BaseExceptionGroup) else err.__cause__ or err
    if isinstance(err, OSError) and not isinstance(err, ssl.SSLError) and err.errno in errno.errorcode:
        err = OSError(err.errno, os.strerror(err.errno or 0))
    return reason_of(err)
