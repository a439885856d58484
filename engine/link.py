"""Link: an RTMP session on a Trio stream: events heard and said by any task, bytes whole and in order, with a watchdog.

It decides when a peer is dead, how much it may make us keep, what we listen on, and how many may be there at once; it
refuses to know what is said.

Theory of operation
-------------------
One task hears, any task says. What is to be sent goes into an outbox in the order in which the session made it; whoever
has the turn sends all of it, in slices. A slice that is not taken within `stall` seconds is a dead peer. The kernel
notices a peer that takes nothing, or whose host is gone, by itself in the same time (`limit_stall`), also while bytes
wait in its own buffer. A program that stopped on a host that is there is noticed by neither before all buffers are
full, as they never are of little media: a `Watch` asks it. A `say` that is cancelled may have sent half a message:
after it the link can only be closed.

A peer that says next to nothing in many small chunks is heard slowly: each costs as much time as a picture. So is one
that sends many values, which are decoded. It fills what the kernel holds for it, and ends by the session's limit on how
many may come at once.
"""

from __future__ import annotations

import logging
import math
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Final, NamedTuple

import trio

from engine.errors import RemoteProtocolError, reason_of
from engine.rtmp import Event, Ping, State
from engine.rtmp.session import NEED_DATA, Session, Shared

SLICE_BYTES: Final = 65536  # a peer that takes less within `stall` is not worth waiting for
RECEIVE_BYTES: Final = 65536
BACKLOG: Final = 512
TURN: Final = 64  # events; then others have theirs, as one piece of bytes may make 20 000
# For each small chunk that says nothing. Players acknowledge every 250 kB, which is 100 a second at 200 Mbit/s.
SMALL_CHUNK: Final = 0.005  # seconds
CREDIT: Final = 1.0  # seconds of these that are free at once: what is said around connect and publish
HABIT: Final = 0.99  # of a peer's usual pause, what is left of it at the next bytes; regular ones make us forget a hole
PINGS: Final = 8  # within the silence after which a peer is dead
TCP_INFO: Final = struct.Struct("=24x I 92x Q 16x I")  # linux/tcp.h: tcpi_unacked, tcpi_bytes_acked, tcpi_notsent_bytes
SELDOM: Final = 60.0  # seconds between two entries that say that connections are refused

log = logging.getLogger(__name__)


class Link:
    """One RTMP connection.

    stream  is not closed here.
    stall   seconds within which the peer must take what is sent.
    rest    seconds between two looks for bytes: a peer that sends all the time in small pieces is heard a few of them
            at a time, as each look costs 0.2 ms. 0: every byte at once.
    """

    def __init__(self, stream: trio.abc.Stream, session: Session, *, stall: float) -> None:
        self.session = session
        self.rest = 0.0
        self._heard = 0  # events
        self._more = False  # whether more bytes wait already
        self._heard_at = trio.current_time()  # when the last bytes came
        self._usual_pause = 0.0  # between bytes
        self._due = -math.inf  # when all small chunks that said nothing have had their time
        self.sent_bytes = 0
        self._stream = stream
        self._stall = stall
        self._outbox: list[bytes] = []
        self._turn = trio.Lock()

    async def hear(self, *, timeout: float = math.inf, at_most: float = math.inf) -> Event:
        """The next event; what the session has to say by itself is sent meanwhile. For one task.

        timeout  seconds without a byte.
        at_most  bytes that the peer may make us keep.
        Raises   trio.TooSlowError; RemoteProtocolError; trio.BrokenResourceError: the peer is gone.
        """
        self._heard += 1
        if self._heard % TURN == 0:
            await trio.lowlevel.checkpoint()
        while (event := self.session.next_event()) is NEED_DATA:
            await self._send(self.session.data_to_send())
            if self.session.held_bytes > at_most:
                raise RemoteProtocolError(f"an unfinished message of more than {at_most} bytes")
            await self._pause()
            with trio.fail_after(timeout):
                data = await self._stream.receive_some(RECEIVE_BYTES)
            self._more = len(data) == RECEIVE_BYTES
            self._note_pause()
            self.session.receive_data(data)
        return event

    @property
    def silence(self) -> float:
        """For how many seconds longer than the peer usually pauses nothing was heard; below 0 within its pace."""
        return trio.current_time() - self._heard_at - self._usual_pause

    def _note_pause(self) -> None:
        now = trio.current_time()
        self._usual_pause = max(now - self._heard_at, self._usual_pause * HABIT)
        self._heard_at = now

    async def _pause(self) -> None:
        """Until the peer is to be heard again."""
        now = trio.current_time()
        self._due = until = max(self._due, now - CREDIT) + self.session.small_chunks * SMALL_CHUNK
        if self.rest and not self._more:
            # At the same moments for all links: what wakes together costs less.
            until = max(until, (now // self.rest + 1) * self.rest)
        if until > now:
            await trio.sleep_until(until)

    async def say(self, *events: Event | Shared, state: State | None = None) -> bool:
        """Sends events, together.

        state    what the session must be in; if it is not any more, nothing is sent.
        Returns  whether it was sent.
        Raises   trio.TooSlowError: the peer takes nothing; trio.BrokenResourceError: it is gone; LocalProtocolError.
        """
        if state not in (None, self.session.state):
            return False
        await self._send(b"".join([self.session.send(event) for event in events]))
        return True

    async def _send(self, data: bytes) -> None:
        if not data:
            return
        self._outbox.append(data)
        async with self._turn:
            waiting = memoryview(b"".join(self._outbox))
            self._outbox.clear()
            for at in range(0, len(waiting), SLICE_BYTES):
                with trio.fail_after(self._stall):
                    await self._stream.send_all(waiting[at : at + SLICE_BYTES])
            self.sent_bytes += len(waiting)


class _Flow(NamedTuple):
    """How what is sent goes: packets under way, bytes that the peer's host has taken so far, and bytes not sent yet."""

    under_way: int
    taken: int
    waiting: int

    @classmethod
    def of(cls, tcp: trio.SocketStream) -> _Flow:
        """That of a connection; all 0 where the kernel does not tell."""
        if not hasattr(socket, "TCP_INFO"):
            return cls(0, 0, 0)
        told = tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO.size)
        return cls._make(TCP_INFO.unpack(told)) if len(told) == TCP_INFO.size else cls(0, 0, 0)


class Watch:
    """Asks the peer of a link again and again whether it is there, and notices when it is not there any more.

    tcp          what is below the link.
    silence      seconds without a word after which a peer is dead, if it has answered before. Others are not judged:
                 only servers are bound to ask and clients to answer (7.1.7), though most servers answer, too.
    is_answered  set by who hears a Pong.

    It counts its own rounds, not the time, so that nobody's silence grows while our process stands still. A slow line
    brings the questions late: while bytes wait here all the time, it counts as a word that the peer takes some. A round
    in which nothing of what is under way arrives does not count: behind a hole TCP tries again late; the kernel judges.
    """

    def __init__(self, link: Link, tcp: trio.SocketStream, *, silence: float) -> None:
        self.is_asked = self.is_answered = False
        self._link = link
        self._tcp = tcp
        self._round = silence / PINGS

    async def ask(self) -> None:
        """Sends pings while the link publishes, until cancelled. Raises what Link.say does."""
        for number in count():
            await trio.sleep(self._round)
            self.is_asked |= await self._link.say(Ping(number), state=State.PUBLISHING)

    async def until_silent(self) -> None:
        """Returns when the peer is dead; see the class."""
        heard, flow, silent = self._link.session.received_bytes, _Flow.of(self._tcp), 0
        while silent < PINGS:
            await trio.sleep(self._round)
            heard_before, flow_before = heard, flow
            heard, flow = self._link.session.received_bytes, _Flow.of(self._tcp)
            takes = flow.taken > flow_before.taken
            is_slow = takes and flow_before.waiting and flow.waiting
            if heard > heard_before or is_slow or not self.is_answered:
                silent = 0
            elif takes or not flow.under_way:  # else it is the line that is silent
                silent += 1


class Room:
    """For so many connections at once; that more are refused is logged now and then, with how many were.

    door  what the log calls it.
    """

    def __init__(self, door: str, most: int) -> None:
        self.most = most
        self._door = door
        self._connections = self._refused = 0
        self._quiet_until = -math.inf

    @contextmanager
    def place(self) -> Iterator[bool]:
        """While a connection lasts: whether there is a place for it."""
        is_free = self._connections < self.most
        if not is_free:
            self._refuse()
        self._connections += is_free
        try:
            yield is_free
        finally:
            self._connections -= is_free

    def _refuse(self) -> None:
        self._refused += 1
        if (now := trio.current_time()) >= self._quiet_until:
            self._quiet_until = now + SELDOM
            log.warning("%s: %d connections, more are refused: %d so far", self._door, self.most, self._refused)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises OSError.

    host  "::" is every address of this machine, of either version of IP.
    port  0: a free one.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as err:
        listener.close()
        raise OSError(f"cannot listen on {host}:{port}: {reason_of(err)}") from err
    return listener


def limit_stall(stream: trio.SocketStream | socket.socket, seconds: float) -> None:
    """Makes the kernel break a connection whose peer acknowledges, or takes, nothing for so long (RFC 5482)."""
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * seconds))


async def race(*works: Callable[[], Awaitable[None]]) -> None:
    """Runs all until one returns or raises: that is the outcome, the others are cancelled."""
    raised: list[Exception] = []

    async def run(work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except Exception as err:  # noqa: BLE001 – raised again below
            raised.append(err)
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for work in works:
            nursery.start_soon(run, work)
    try:
        if raised:
            raise raised[0]
    finally:
        raised.clear()  # else what was raised, and all that was being sent, would stay until the garbage is collected
