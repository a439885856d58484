"""RTMP listener: who connects may publish a stream or play one, in an app of any name: ``rtmp://host/live/stream1``.

It decides who is let in, and when a peer is given up; it refuses to know what is published: packets go as they come.

Theory of operation
-------------------
One task for each connection, and while it plays, one more; whatever goes wrong ends that connection alone.

* A connection that neither publishes nor plays is closed after `handshake` seconds, or after LINGER if it was refused
  or has played: time enough to read why. Until it publishes it may make us keep no more than EARLY_BYTES.
* A stream's name is the app and the name: ``live`` + ``stream1`` is ``live/stream1``. A publish key, if there is one,
  comes as ``?key=…`` behind either. Playing needs none.
* A publisher that sends nothing for `silence` seconds is gone: its name is free again. If somebody else asks for the
  name, it is gone after `pause` seconds more than it is used to pause: mostly that is the same camera, whose line was
  cut and which has a new one. What it wakes up to is the end of its connection. Who has sent no packet yet does not
  give way: encoders look ahead for seconds, and two of them would take the name from each other for ever.
* Players take three quarters of the places at most: who comes to publish, or nobody knows yet what for, has the others.
* A player gets the packets since the last keyframe, then all that come, until the publisher has gone. A slow one loses
  packets to the next keyframe, as every reader; one that takes nothing for `stall` seconds is dropped.
"""

from __future__ import annotations

import hmac
import logging
import math
import select
from collections.abc import Iterator
from functools import partial
from typing import Final
from urllib.parse import unquote

import msgspec
import trio

from engine.errors import EngineError, RemoteProtocolError, SourceUnavailable
from engine.feed import Feed, Said
from engine.link import Link, Room, limit_stall, listen, race
from engine.rtmp import (
    Accepted,
    Closed,
    Connect,
    Metadata,
    Play,
    Publish,
    Rejected,
    State,
    StreamEnded,
    chunk,
)
from engine.rtmp.flv import Audio, Video
from engine.rtmp.session import Session
from engine.sources.ingest import Ingest
from engine.stream import END, PORTION, Hub, Publication, Publisher, Reader

EARLY_BYTES: Final = 1 << 18  # handshake and commands are 5 kB, and bytes come in pieces of up to 64 kB
# Seconds between two looks at what a publisher sent; without it four of them cost a quarter of a core.
REST: Final = 0.03
LINGER: Final = 2.0  # OBS learns of a refusal only by the end of the connection, and should not retry at once

log = logging.getLogger(__name__)


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What peers may cost; seconds."""

    connections: int = 512  # of which players take three quarters at most
    handshake: float = 10.0  # from the first byte to publish or play
    silence: float = 10.0  # of a publisher
    pause: float = 2.0  # of a publisher whose name another one asks for, beyond the pauses that it makes anyway
    stall: float = 10.0  # of a peer that is sent something; behind a hole of 4 s, TCP tries again 6.2 s after it began
    session: chunk.Limits = chunk.Limits()


async def serve_rtmp(
    hub: Hub,
    *,
    host: str,
    port: int,
    publish_key: str = "",
    limits: Limits | None = None,
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Listens until cancelled; starts with the port, which is a free one if 0 was asked for.

    publish_key  what publishers must give as ?key=…; "" = nothing.
    Raises       SourceUnavailable: host and port are not ours to listen on.
    """
    try:
        listening = trio.SocketListener(trio.socket.from_stdlib_socket(listen(host, port)))
    except OSError as err:
        raise SourceUnavailable(f"RTMP {err}", where=f"{host}:{port}") from err
    listener = _Listener(hub, publish_key, limits or Limits())
    task_status.started(listening.socket.getsockname()[1])
    await trio.serve_listeners(listener.serve, [listening])


class _Listener:
    """What all connections share."""

    def __init__(self, hub: Hub, publish_key: str, limits: Limits) -> None:
        self.hub = hub
        self.publish_key = publish_key.encode()
        self.limits = limits
        self._room = Room("rtmp", limits.connections)
        self.seats = Room("rtmp players", limits.connections * 3 // 4)

    async def serve(self, stream: trio.SocketStream) -> None:
        """One connection, from beginning to end. Raises nothing."""
        async with stream:
            with self._room.place() as is_free:
                if is_free:
                    await _Connection(self, stream).run()


class _Connection:
    """One peer."""

    def __init__(self, listener: _Listener, stream: trio.SocketStream) -> None:
        # given
        self._hub = listener.hub
        self._key = listener.publish_key
        self._limits = listener.limits
        self._seats = listener.seats
        self._stream = stream
        # owned by run()
        self._link = Link(stream, Session("server", limits=self._limits.session), stall=self._limits.stall)
        self._app = Connect("")
        self._subject = "rtmp"  # what the log calls us: the stream, once there is one
        self._peer = ""
        self._scope = trio.CancelScope()

    async def run(self) -> None:
        """Until either side ends it. Raises nothing."""
        reason = "left"
        try:
            self._peer = _address(self._stream)
            limit_stall(self._stream, self._limits.stall)
            self._allow(self._limits.handshake)
            with self._scope:
                await self._converse()
            if self._scope.cancelled_caught:
                reason = "was sent away"
        except RemoteProtocolError as err:
            reason = str(err)
        except trio.TooSlowError:
            reason = "was silent or too slow"
        except (OSError, trio.BrokenResourceError) as err:
            reason = f"lost: {err.__cause__ or err}"
        except Exception:
            log.exception("%s: connection of %s", self._subject, self._peer)
            return
        log.info("%s: %s %s", self._subject, self._peer, reason)

    def _allow(self, seconds: float) -> None:
        self._scope.deadline = trio.current_time() + seconds

    async def _converse(self) -> None:
        while True:
            match await self._link.hear(at_most=EARLY_BYTES):
                case Connect(app=app, query=query):
                    self._app = Connect(app, query)  # without what else there is, which may be large
                    await self._link.say(Accepted())
                case Publish() as request:
                    await self._publish(request)
                case Play() as request:
                    await self._play(request)
                case Closed():
                    return

    def _name(self, request: Publish | Play) -> str:
        return "/".join(part for part in (self._app.app.strip("/"), request.name.strip("/")) if part)

    async def _refuse(self, name: str, asked: str, rejected: Rejected) -> None:
        log.info("%r: %s may not %s: %r", name[:80], self._peer, asked, rejected.description)
        self._scope.deadline = min(self._scope.deadline, trio.current_time() + LINGER)
        await self._link.say(rejected)

    # ---- publishing ----

    async def _publish(self, request: Publish) -> None:
        name = self._name(request)
        if not self._has_key(request):
            await self._refuse(name, "publish", Rejected("NetStream.Publish.Denied", "the publish key is not right"))
            return
        await self._replace_absent(name)
        publisher = Publisher(kind="rtmp", peer=self._peer, stop=self._scope.cancel, is_absent=self._is_absent)
        try:
            publication = self._hub.publish(name, publisher)
        except EngineError as err:
            await self._refuse(name, "publish", Rejected(description=str(err)))
            return
        self._subject = name
        self._scope.deadline = math.inf
        ingest = Ingest(name, self._hub.now)
        try:
            await self._link.say(Accepted())
            await self._receive(publication, ingest)
        finally:
            publication.close()
            if ingest.repaired or ingest.ignored:
                log.warning("%s: %d dts repaired, %d bodies ignored", name, ingest.repaired, ingest.ignored)
        self._allow(self._limits.handshake)

    async def _replace_absent(self, name: str) -> None:
        """Ends the publication of a name whose publisher is absent; readers see what they see when one goes."""
        if self._absent(name) is None:
            return
        await trio.sleep(REST)  # what was being read at that moment is heard by now
        publication = self._absent(name)
        if publication is not None:
            publisher = publication.publisher
            log.warning("%s: %s is absent, %s takes its place", name, publisher.peer, self._peer)
            publication.close()
            if publisher.stop is not None:
                publisher.stop()

    def _absent(self, name: str) -> Publication | None:
        """The publication of a name, if its publisher has sent something and is absent."""
        stream = self._hub.published(name) if self._hub.is_published(name) else None
        if stream is None or stream.publication is None or (stream.video is None and stream.audio is None):
            return None
        is_absent = stream.publication.publisher.is_absent
        return stream.publication if is_absent is not None and is_absent() else None

    def _is_absent(self) -> bool:
        return self._link.silence >= self._limits.pause and not _has_bytes(self._stream)

    def _has_key(self, request: Publish) -> bool:
        if not self._key:
            return True
        given = [*_keys(self._app.query), *_keys(request.query)]
        return any(hmac.compare_digest(key.encode(), self._key) for key in given)

    async def _receive(self, publication: Publication, ingest: Ingest) -> None:
        self._link.rest = REST
        while True:
            match await self._link.hear(timeout=self._limits.silence):
                case Video() | Audio() | Metadata() as media:
                    packet = ingest.take(media)
                    if packet is not None:
                        publication.send(packet)
                case StreamEnded() | Closed():
                    return

    # ---- playing ----

    async def _play(self, request: Play) -> None:
        name = self._name(request)
        with self._seats.place() as is_free:
            if not is_free:
                full = f"the server is full: {self._seats.most} play already"
                await self._refuse(name, "play", Rejected("NetStream.Play.Failed", full))
                return
            try:
                reader = self._hub.read(name, must_exist=True)
            except EngineError as err:
                await self._refuse(name, "play", Rejected(description=str(err)))
                return
            await self._follow(name, reader)
        self._allow(LINGER)

    async def _follow(self, name: str, reader: Reader) -> None:
        self._subject = name
        self._scope.deadline = math.inf
        log.info("%s: played by %s", name, self._peer)
        with reader:
            await self._link.say(Accepted())
            await race(partial(self._send, reader), partial(self._listen, reader))
        if reader.dropped:
            log.warning("%s: %s lost %d packets", name, self._peer, reader.dropped)

    async def _send(self, reader: Reader) -> None:
        """Packets, until the publisher or the player ends it."""
        feed, stream = Feed(), reader.stream
        while self._link.session.state is State.PLAYING:
            said: list[Said | StreamEnded] = []
            for item in await reader.receive(most=PORTION):
                if item is END:
                    said.append(StreamEnded())
                    break
                said += feed.tell(item, (stream.video, stream.audio))
            for why in feed.refused.report():
                log.warning("%s: left out for %s: %s", stream.name, self._peer, why)
            await self._link.say(*said, state=State.PLAYING)

    async def _listen(self, reader: Reader) -> None:
        """Until the player ends it; then `_send` has to, which may be within a message."""
        while not isinstance(await self._link.hear(at_most=EARLY_BYTES), StreamEnded | Closed):
            pass
        reader.close()
        await trio.sleep_forever()


def _has_bytes(stream: trio.SocketStream) -> bool:
    """Whether something waits to be heard, be it the end."""
    poll = select.poll()
    poll.register(stream.socket.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _keys(query: str) -> Iterator[str]:
    """What "key" is in a query. A plus is a plus."""
    for part in query.split("&"):
        name, _, value = part.partition("=")
        if name == "key":
            yield unquote(value)


def _address(stream: trio.SocketStream) -> str:
    host, port = stream.socket.getpeername()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
