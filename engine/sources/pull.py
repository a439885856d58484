"""Pull: a stream that the engine fetches: a URL that libav opens, its packets published under a name, again and again.

It decides when packets are sent and when to try again; it refuses to know what is in them (`demux` does).

Theory of operation
-------------------
* Two tasks: one reads packets, the other sends them. What comes in its own time is read by one thread all the time, and
  sent at once. What has to be paced is read in batches, a second ahead. A packet *arrives* when its dts is due, counted
  from the first packet; it is sent before that by up to `LEAD`, so that decoders have time and a disk may pause, and
  with what is due within the same `BURST`: other servers know of a packet only when it reached them, so a burst must be
  much shorter than the latency of their mixes. What is late by more than `SLIP` makes everything after it later: no
  backlog is sent in one burst.
* A live playlist goes on meanwhile: who reads it that much later finds segments gone from it, and waiting out the hole
  that they leave, the next ones as well. So behind a leap of time stamps packets come at once, but never sooner than if
  nothing had been late since the URL was asked for: a hole of the publisher's own is waited out, or what was in reserve
  would be used up.
* What ends or breaks is tried again after 1 s, 2 s … 30 s; having been on air for `SETTLED` begins with 1 s again.
  A file that came to its end is over, and so is a live playlist that is a film's when it is opened again. What can
  never work is given up.
* A thread that reads is left alone on cancellation: it ends by its time-out, and its container is closed when nobody
  holds it any more, never under its feet. libav's time-out is one of silence; where data come and none of them is of
  the streams that were there when it was opened, the thread is left alone as well, and the URL opened anew. Nothing
  ends such a thread but its peer, so no more than `MOST_LEFT` are left: then the next try waits for one to end.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from contextlib import suppress
from functools import partial
from typing import Final, Literal

import msgspec
import trio

from engine.config import Settings
from engine.errors import (
    AlreadyExists,
    EngineError,
    InvalidSpec,
    SourceMalformed,
    SourceUnavailable,
)
from engine.packet import Packet
from engine.sources.demux import READ_MOST, REMOTE, Demuxer, ReadBefore
from engine.spec import PullSpec
from engine.stream import Hub, Publication, Publisher, check_name
from engine.threads import in_thread
from engine.timebase import SECOND
from engine.urls import shown_url

log = logging.getLogger(__name__)

LEAD: Final = SECOND * 3 // 10
SLIP: Final = SECOND * 3 // 10
LEAP: Final = SECOND // 2  # from one packet to the next, and twice the last step; more than jitter, less than a segment
BURST: Final = SECOND // 10  # all films send at these beats: to wake once for all costs less
BATCHES: Final = 4  # that wait to be sent
RETRY: Final = 1.0
RETRY_MOST: Final = 30.0
SETTLED: Final = 10 * SECOND
LEEWAY: Final = SECOND  # libav's own time-out, and its better sentence, come first
MOST_LEFT: Final = 3

PullState = Literal["connecting", "publishing", "retrying", "ended", "failed"]


class PullStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A pulled source at a moment. The url is without password and query; error is the last one."""

    name: str
    url: str
    state: PullState
    error: str
    retries: int


class Pull:
    """Fetches one URL. `run` is its actor: it returns at the end of a file, and when it is given up."""

    def __init__(self, hub: Hub, name: str, spec: PullSpec, settings: Settings) -> None:
        """Raises InvalidSpec: a bad name, no URL, or a protocol that is not one of ours."""
        # given
        check_name(name)
        self._hub, self._name, self._settings = hub, name, settings
        self._url = checked_url(spec.url)
        self._loop = spec.loop
        self._shown = shown_url(self._url)
        # owned by run()
        self._limiter = trio.CapacityLimiter(1)  # of one attempt: a thread that is left alone keeps it
        self._left: list[trio.CapacityLimiter] = []  # those that threads keep
        self._reading: int | None = None  # since when, where a read goes on; also set by its thread
        self._demuxer: Demuxer | None = None  # also looked at by its thread
        self._read_before: ReadBefore = deque(maxlen=READ_MOST)  # of a live playlist; also used by its thread
        self._publication: Publication | None = None
        self._began = 0  # to publish
        self._asked = 0  # for the URL
        self._is_live = False  # the publisher does not wait for who reads
        self._origin: int | None = None  # server time of time stamp 0, where packets are paced, …
        self._soonest = 0  # … what it would be if nothing had been late, …
        self._last = 0  # … when the last one is due …
        self._newest = 0  # … the newest dts, …
        self._step = 0  # … and how much newer it was than the one before it
        # read by anyone (snapshot)
        self._state: PullState = "connecting"
        self._error = ""
        self._retries = 0

    def status(self) -> PullStatus:
        """How it is doing."""
        return PullStatus(name=self._name, url=self._shown, state=self._state, error=self._error, retries=self._retries)

    async def run(self) -> None:
        """Publishes until the end, for ever where there is none. Raises only bugs, with which its state is "failed"."""
        pause = RETRY
        while True:
            self._state = "connecting"
            try:
                await self._publish()
                break
            except EngineError as err:
                if not self._may_come_back(err):
                    self._fail(err)
                    return
                self._note(err)
            except Exception as err:
                self._state, self._error = "failed", f"{type(err).__name__}: {err}"
                raise
            finally:
                settled = self._close()
            pause = RETRY if settled else pause
            await trio.sleep(pause)
            await self._wait_for_threads()
            pause = min(RETRY_MOST, 2 * pause)
            self._retries += 1
        self._state = "ended"

    async def _wait_for_threads(self) -> None:
        """Until few are left alone."""
        self._left.append(self._limiter)
        while len(left := [each for each in self._left if each.borrowed_tokens]) >= MOST_LEFT:
            await trio.sleep(RETRY)
        self._left = left

    def _may_come_back(self, err: EngineError) -> bool:
        is_remote = self._url.partition("://")[0].lower() in REMOTE
        return err.retry or isinstance(err, AlreadyExists) or (isinstance(err, SourceMalformed) and is_remote)

    def _fail(self, err: EngineError) -> None:
        self._state, self._error = "failed", str(err)
        log.warning("%s: given up: %s", self._name, err)

    def _note(self, err: EngineError) -> None:
        """Says what is wrong; only once while it stays so."""
        if self._error != str(err) or self._publication is not None:
            log.warning("%s: %s; trying again", self._name, err)
        self._state, self._error = "retrying", str(err)

    def _close(self) -> bool:
        """Ends the publication; returns whether it had lasted."""
        publication, self._publication = self._publication, None
        if publication is None:
            return False
        publication.close()
        return self._hub.now() - self._began > SETTLED

    async def _publish(self) -> None:
        """One attempt. Returns at the end of what has one; raises EngineError."""
        self._limiter = trio.CapacityLimiter(1)
        self._asked = self._hub.now()
        source = self._name, self._url, self._settings
        opening = partial(Demuxer, *source, now=self._hub.now, loop=self._loop, read_before=self._read_before)
        demuxer = await in_thread(opening, limiter=self._limiter, abandon_on_cancel=True)
        self._demuxer = demuxer
        try:
            if not (demuxer.has_end and self._read_before):  # it was live
                await self._relay(demuxer)
        finally:
            self._demuxer = None
            if demuxer.repaired:
                log.warning("%s: time stamps repaired: %d", self._name, demuxer.repaired)
            if not self._limiter.borrowed_tokens:  # no thread of a cancelled step has it
                with trio.CancelScope(shield=True):
                    await in_thread(demuxer.close, limiter=self._limiter)
        if not demuxer.has_end:
            raise SourceUnavailable(f'source "{self._name}": it ended', where=self._name)

    async def _relay(self, demuxer: Demuxer) -> None:
        """Sends what the demuxer gives up to its end. Raises EngineError."""
        self._origin, self._last, self._is_live = None, 0, not demuxer.has_end
        failure: list[EngineError] = []
        send, receive = trio.open_memory_channel[list[Packet]](BATCHES if demuxer.is_paced else math.inf)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read, demuxer, send, failure)
            nursery.start_soon(self._watch, nursery.cancel_scope, failure)
            try:
                async with receive:
                    async for batch in receive:
                        await self._send(batch, paced=demuxer.is_paced)
                await trio.sleep(max(0, self._last - self._hub.now()) / SECOND)
            except EngineError as err:
                failure.append(err)
            nursery.cancel_scope.cancel()
        if failure:
            raise failure[0]

    async def _read(
        self, demuxer: Demuxer, channel: trio.MemorySendChannel[list[Packet]], failure: list[EngineError]
    ) -> None:
        async with channel:
            try:
                if not demuxer.is_paced:
                    follow = partial(self._follow, demuxer, channel, trio.lowlevel.current_trio_token())
                    await in_thread(follow, limiter=self._limiter, abandon_on_cancel=True)
                while not demuxer.ended:
                    self._reading = self._hub.now()
                    batch = await in_thread(demuxer.read, limiter=self._limiter, abandon_on_cancel=True)
                    self._reading = None
                    await channel.send(batch)
            except EngineError as err:
                failure.append(err)
            finally:
                self._reading = None

    async def _watch(self, relaying: trio.CancelScope, failure: list[EngineError]) -> None:
        """Gives up when a read takes longer than silence may."""
        patience = self._settings.read_timeout + (
            self._settings.open_timeout if self._loop else 0
        )  # it is opened again
        limit = int(patience * SECOND) + LEEWAY
        while self._reading is None or self._hub.now() - self._reading < limit:
            await trio.sleep(LEEWAY / SECOND)
        sentence = f'source "{self._name}": none of its streams came for {self._settings.read_timeout:g} s'
        failure.append(SourceUnavailable(sentence, where=self._name))
        relaying.cancel()

    def _follow(
        self, demuxer: Demuxer, channel: trio.MemorySendChannel[list[Packet]], token: trio.lowlevel.TrioToken
    ) -> None:
        """Reads to the end, in a thread; until nobody wants it any more."""
        while not demuxer.ended and self._demuxer is demuxer:
            self._reading = self._hub.now()
            token.run_sync_soon(_offer, channel, demuxer.read())

    async def _send(self, batch: list[Packet], *, paced: bool) -> None:
        if batch and self._publication is None:
            publisher = Publisher(kind="pull", peer=self._shown)
            self._publication = self._hub.publish(self._name, publisher)
            self._began = self._hub.now()
            self._state, self._error = "publishing", ""
        for packet in batch:
            if paced:
                packet.arrival = self._last = await self._turn(packet)
            if self._publication is not None:
                self._publication.send(packet)

    async def _turn(self, packet: Packet) -> int:
        """Waits until a packet may be sent; returns when it is due."""
        due, now = self._due(packet), self._hub.now()
        if due - LEAD > now:
            beat = -((LEAD - due) // BURST) * BURST
            await trio.sleep((beat - now) / SECOND)
        return due

    def _due(self, packet: Packet) -> int:
        """When a packet is due."""
        stamp, now = packet.dts_ns, self._hub.now()
        if self._origin is None:
            self._soonest, self._newest = self._asked - stamp, stamp
        if self._origin is None or now - stamp - self._origin > SLIP:
            self._origin = now - stamp
        elif self._is_live and stamp - self._newest > max(LEAP, 2 * self._step):
            self._origin = max(self._soonest, max(self._last, now) - stamp)
        if stamp > self._newest:
            self._newest, self._step = stamp, stamp - self._newest
        return self._origin + stamp


def _offer(channel: trio.MemorySendChannel[list[Packet]], batch: list[Packet]) -> None:
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):  # cancelled meanwhile
        channel.send_nowait(batch)


def checked_url(url: str | None) -> str:
    """A path, or a URL of a protocol that may be fetched. Raises InvalidSpec."""
    if url is None:
        raise InvalidSpec("there is no url to pull", where="url")
    scheme, colon, _ = url.partition(":")
    named = colon and scheme.isalnum() and len(scheme) > 1
    if named and scheme.lower() != "file" and not ("://" in url and scheme.lower() in REMOTE):
        raise InvalidSpec(f'protocol "{scheme[:20]}" is not one of file, {", ".join(REMOTE)}', where="url")
    return url
