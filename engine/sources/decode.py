"""Live sources: one decoder per stream, shared by all mixers of one latency, and each mixer's view of what it gives.

It decides what is decoded for whom and when; it refuses to know when packets are on (`engine.sync` does) and how they
are decoded (`livetracks`).

Theory of operation
-------------------
* The decoder of a stream is started when the first mixer opens it and ends after the last one has closed it. It puts
  every packet in its place in server time, whether somebody looks or not, so the place is right when somebody does.
  Mixers that ask for other times have decoders of their own: decoded pictures of seconds would be gigabytes.
* **Who looks?** Mixers say so at every tick (`attend`). When nobody has looked at the picture for `REST`, its decoder
  is dropped; when somebody looks again, it begins anew with the stream's packets since the last keyframe. Sound that
  nobody hears waits undecoded for `UNHEARD`, so it is there at once when somebody listens.
* Pictures are decoded `AHEAD` of the time that is asked for, small ones further: who has decoded ahead is in time when
  processors are busy for a moment. Beyond that, where a mixer is late by seconds or a source early, packets wait, not
  pictures. A decoder that cannot keep up goes on at the next keyframe.
* **Hops are dear** (0.1-0.3 ms each), so a decoder collects packets for a part of the time that mixers leave it, unless
  somebody waits for a first picture.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Sequence
from fractions import Fraction
from functools import partial
from typing import Final

import trio

from engine.config import Settings
from engine.errors import InvalidSpec
from engine.frame import AudioFrame
from engine.packet import Packet
from engine.plan import PictureSize
from engine.sources.live import LiveSource, queue_capacity
from engine.sources.livetracks import Care, Item, LivePicture, LiveSound, Shown, Sounds, Stamped
from engine.spec import MAX_HEIGHT, MAX_WIDTH, AudioFormat
from engine.stream import END, Hub, Reader, check_name
from engine.stream import Item as Received
from engine.sync import Sync
from engine.threads import Pending, Threads
from engine.timebase import SECOND

log = logging.getLogger(__name__)

NICE: Final = 5  # a third of the processor that a mixer's encoder gets, where there is not enough for both
REST: Final = 2 * SECOND  # nobody looks: a cut away and back is shorter
UNHEARD: Final = SECOND
PAUSE: Final = 1.0  # seconds until it is tried again after a bug
LINGER: Final = 0.04  # seconds; 25 hops a second are 0.5 % of a core
LINGER_PART: Final = 5  # of the time that mixers leave
LINGER_ALONE: Final = 0.25  # where nobody attends
STEP_PICTURES: Final = 8  # bounds what sound, and a cancellation, waits for
NEVER: Final = 1 << 63
LAG: Final = SECOND // 30  # behind what is asked for; a decoder that is later catches up by leaving pictures out
CALM: Final = 2 * SECOND  # for which a decoder that was late goes on to leave pictures out; it would be late again
AHEAD: Final = 3 * SECOND // 10  # that pictures are decoded before they are asked for; further ahead packets wait
AHEAD_MOST: Final = SECOND  # for pictures so small that there are …
AHEAD_BYTES: Final = 32 << 20  # … no more of them
UNKNOWN: Final = PictureSize(MAX_WIDTH, MAX_HEIGHT, opaque=False)  # of a picture that may come: no crop lies outside


class Decoders:
    """The decoders of an engine, by stream name. They run while `run` does.

    strict  whether a bug in one decoder ends all (tests), or makes only that one begin anew (live).
    """

    def __init__(self, hub: Hub, settings: Settings, *, strict: bool = False) -> None:
        self._hub = hub
        self._strict = strict
        self._settings = settings
        # One more than processors: each waits for the interpreter now and then.
        self._threads = Threads(len(os.sched_getaffinity(0)) + 1, name="pictures", nice=NICE)
        # A block of sound is decoded in 0.2 ms: two threads would wait for the interpreter for longer than that.
        self._sounding = Threads(max(1, len(os.sched_getaffinity(0)) // 4), name="sound", nice=0, together=True)
        self._decoders: dict[tuple[str, int], _Decoder] = {}  # by stream and latency
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Runs the decoders until cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                for key, decoder in self._decoders.items():
                    nursery.start_soon(self._run, key, decoder)
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._threads.close()
            self._sounding.close()

    def open(self, name: str, sound: AudioFormat, *, epoch: Fraction, latency: int = 0) -> LiveSource:
        """One mixer's view of a stream, published or not yet; `epoch` is the server time of its t = 0, in seconds.

        latency  how much later it asks, ns. Who asks at other times has a decoder of his own: pictures do not wait
                 decoded for the one until the other wants them.

        A name that no stream can have gives a source that never has anything.
        """
        try:
            check_name(name)
        except InvalidSpec:
            return LiveSource(None, sound, epoch=epoch, settings=self._settings, hub=self._hub)
        key = name, latency
        decoder = self._decoders.get(key)
        if decoder is None or decoder.is_over:
            decoder = self._decoders[key] = _Decoder(
                name, self._hub, threads=self._threads, sounding=self._sounding, strict=self._strict
            )
            if self._nursery is not None:
                self._nursery.start_soon(self._run, key, decoder)
        source = LiveSource(decoder, sound, epoch=epoch, settings=self._settings, hub=self._hub)
        decoder.sources[source] = None
        return source

    async def _run(self, key: tuple[str, int], decoder: _Decoder) -> None:
        try:
            await decoder.run()
        finally:
            if self._decoders.get(key) is decoder:
                del self._decoders[key]


class _Decoder:
    """Decodes one stream for all who opened it."""

    def __init__(self, name: str, hub: Hub, *, threads: Threads, sounding: Threads, strict: bool) -> None:
        # given
        self.name = name
        self._strict = strict
        self._hub = hub
        self._threads, self._sounding = threads, sounding
        # owned by run()
        self._scope = trio.CancelScope()
        self._reader: Reader | None = None
        self._picture = LivePicture(name)
        self._sound = LiveSound(name)
        self._ahead: deque[Item] = deque()  # pictures not decoded yet
        self._unheard: deque[Stamped] = deque()  # sound not decoded yet
        self._pictures: deque[Shown] = deque()  # given, and not over yet
        self._sounds: dict[AudioFormat, deque[tuple[int, AudioFrame]]] = {}
        self._seeing = self._hearing = False
        self._looked = 0  # when somebody last did
        self._hurries = 0  # until when
        self._last_picture: Packet | None = None
        self._whole = False  # whether time has not jumped since the last keyframe
        self._busy = False
        self._rested = trio.lowlevel.ParkingLot()
        self._receiving = trio.CancelScope()
        # set by sources
        self.sources: dict[LiveSource, None] = {}
        self._call = trio.Event()
        # read by anyone
        self.sync = Sync()
        self.newest: int | None = None  # server time of the newest picture that came, whether or not anybody looks

    async def run(self) -> None:
        """Decodes until nobody is left; begins anew after a bug, unless it is to be strict."""
        with self._scope:
            while True:
                try:
                    await self._follow()
                except Exception:
                    log.exception('source "%s": a bug; decoding begins anew', self.name)
                    if self._strict:
                        raise
                self._picture, self._sound = LivePicture(self.name), LiveSound(self.name)
                self._seeing = self._hearing = False
                self._last_picture = None
                self.sync.restart()
                await trio.sleep(PAUSE)

    async def _follow(self) -> None:
        with self._hub.read(self.name) as reader:
            self._reader = reader
            try:
                while True:
                    items = await self._receive(reader)
                    await self._take_in(reader, items)
                    self._busy = False
                    self._rested.unpark_all()
                    await self._linger()
            finally:
                with trio.CancelScope(shield=True):
                    await self._threads.run(self._close)

    @property
    def is_over(self) -> bool:
        """Whether its last source has left."""
        return self._scope.cancel_called

    def leave(self, source: LiveSource) -> None:
        """One source less; the last one ends the decoder."""
        self.sources.pop(source, None)
        if not self.sources:
            self._scope.cancel()

    def call(self, source: LiveSource, *, looks: bool, listens: bool) -> None:
        """A source has said what it wants; one that begins gets what is there and not over yet."""
        if looks:
            for picture in self._pictures:
                source.push_picture(*picture)
        if listens:
            for first, block in self._sounds.get(source.format, ()):
                source.push_sound(first, block)
        is_due = source.looking and bool(self._ahead) and _turn(self._ahead[0]) <= source.wanted + self._reach // 2
        if looks or listens or is_due:
            self._hurry()

    async def idle(self) -> None:
        """Waits until every packet that was sent so far has been taken in, and what is due has been given."""
        self._hurry()
        while not self.is_over and (self._busy or self._call.is_set() or self._reader is None or self._reader.waiting):
            await self._rested.park()

    @property
    def picture_size(self) -> PictureSize:
        """Of the last picture; before it, what the publisher says; before that, a guess."""
        if self._picture.size is not None:
            return self._picture.size
        track = None if self._reader is None else self._reader.stream.video
        if track is None or not track.width or not track.height:
            return UNKNOWN
        return PictureSize(track.width, track.height)

    @property
    def corrupt(self) -> int:
        """Packets and pictures that were damaged."""
        return self._picture.corrupt + self._sound.corrupt

    @property
    def late(self) -> int:
        """Pictures that were over before they could be given."""
        return self._picture.late

    def _hurry(self) -> None:
        self._call.set()
        self._receiving.cancel()

    async def _receive(self, reader: Reader) -> list[Received]:
        """What has come; nothing when a source calls meanwhile."""
        items: list[Received] = []
        if not self._call.is_set():
            with trio.CancelScope() as self._receiving:
                items = await reader.receive()
        else:
            items = await self._waiting(reader)
        self._busy, self._call = True, trio.Event()
        return items

    async def _take_in(self, reader: Reader, items: Sequence[Received]) -> None:
        """Puts packets in their places in time, decodes what is due and gives it to all."""
        joins = False
        while True:  # for as long as pictures are due, which is for ever where they come faster than they are decoded
            begins_to_see = self._begins_to_see()
            if begins_to_see:
                joins = True
                self._ahead = deque(self._since_keyframe())
            sounds = self._come(items)
            if not self._seeing:
                self._ahead.clear()
                self._pictures.clear()
            wanted = self._wanted()
            if begins_to_see:
                self._picture.expected = wanted
            newest_at_once = self._is_behind(wanted) and not joins  # late: the newest is better than none
            pictures = self._due(wanted)
            may_rest = self._picture.is_open and not self._seeing
            if not pictures and not may_rest:
                await self._hear(sounds)
                return
            see = partial(
                self._see,
                pictures,
                wanted=wanted,
                more=self._is_due(wanted) and not newest_at_once,
                care=self._care(pictures, wanted, joins=joins),
            )
            self._show(await self._meanwhile(reader, sounds, await self._threads.begin(see)))
            items = await self._waiting(reader)

    async def _meanwhile(self, reader: Reader, sounds: Sequence[Item], seeing: Pending[list[Shown]]) -> list[Shown]:
        """Pictures, when they are decoded, which may take long: sound that is there or comes does not wait for them."""
        try:
            while True:
                await self._hear(sounds)
                with trio.move_on_after(LINGER):
                    await seeing.over.wait()
                if seeing.over.is_set():
                    break
                sounds = self._come(await self._waiting(reader))
        finally:
            shown = await seeing.result()  # before its decoder may be closed
        return shown

    async def _hear(self, sounds: Sequence[Item]) -> None:
        """Decodes sound and gives it; lets the decoder rest when nobody listens."""
        if not self._hearing:
            if self._sound.is_open:
                await self._sounding.run(self._sound.close)
        elif sounds:
            formats = list({source.format for source in self.sources if source.listens})
            self._sound_out(await self._sounding.run(partial(self._sound.decode, sounds, formats)))

    async def _waiting(self, reader: Reader) -> list[Received]:
        return await reader.receive() if reader.waiting else []

    def _come(self, items: Sequence[Received]) -> list[Item]:
        """Puts what has come in its place in time; returns the sound to decode, if somebody listens."""
        begins_to_hear = not self._hearing
        self._hearing = any(source.listens for source in self.sources)
        sounds: list[Item] = list(self._unheard) if self._hearing and begins_to_hear else []
        for item in items:
            self._place(item, sounds)
        self._keep_unheard(sounds)
        return sounds

    def _is_behind(self, wanted: int) -> bool:
        return bool(self._ahead) and wanted - _time(self._ahead[0]) > LAG

    def _care(self, pictures: Sequence[Item], wanted: int, *, joins: bool) -> Care:
        """How well pictures must be decoded: all of them while there is time, each exactly where it is large.

        What is over when it joins was nobody's fault: it hurries through that, and is as exact as ever behind it.
        """
        now = self._hub.now()
        is_late = bool(pictures) and wanted - _time(pictures[-1 if joins else 0]) > LAG
        if is_late and not joins:
            self._hurries = now + CALM
        if is_late or now < self._hurries:
            return Care.HURRY
        looking = [source for source in self.sources if source.looking]
        shrink = min((source.shrink for source in looking), default=1)
        return Care.TINY if shrink >= 3 else Care.SMALL if shrink == 2 else Care.FULL

    def _begins_to_see(self) -> bool:
        """Notes whether somebody looks; returns whether the first one has begun to."""
        now, saw = self._hub.now(), self._seeing
        if any(source.looks for source in self.sources):
            self._seeing, self._looked = True, now
        elif self._seeing and now - self._looked > REST:
            self._seeing = False
        return self._seeing and not saw

    def _place(self, item: Received, sounds: list[Item]) -> None:
        if item is END:
            self.sync.restart()
            self._last_picture = None
            self._ahead.append(END)
            sounds.append(END)
            return
        placed = self.sync.place(item.track.kind, pts=item.pts_ns, dts=item.dts_ns, arrival=item.arrival)
        stamped = Stamped(item, placed.time, placed.began)
        if not item.is_video:
            sounds.append(stamped)
            return
        self._last_picture, self.newest = item, placed.time
        self._whole = item.keyframe or (self._whole and not placed.began)
        self._ahead.append(stamped)

    def _since_keyframe(self) -> list[Stamped]:
        """The pictures since the last keyframe that have gone by already."""
        assert self._reader is not None
        gop = [packet for packet in self._reader.stream.gop if packet.is_video]
        if not self._whole or self._last_picture is None or self._last_picture not in gop:
            return []
        out = []
        for packet in gop[: gop.index(self._last_picture) + 1]:
            time = self.sync.time("video", packet.pts_ns)
            assert time is not None
            out.append(Stamped(packet, time, False))
        return out

    def _wanted(self) -> int:
        """The earliest server time that anybody looks at, or did."""
        attending = [source for source in self.sources if source.attends] or self.sources
        return min((source.wanted for source in attending), default=self._hub.now())

    def _due(self, wanted: int) -> list[Item]:
        """The next pictures to decode. A decoder that lags behind goes on at a keyframe."""
        skip = 0
        for place, item in enumerate(self._ahead):
            if item is not END and item.packet.keyframe and item.time <= wanted:
                skip = place
        if skip:
            passed = [self._ahead.popleft() for _ in range(skip)]
            self._picture.count_late(item.time for item in passed if item is not END)
            first = self._ahead[0]
            assert first is not END
            self._ahead[0] = first._replace(began=True)
        due: list[Item] = []
        while len(due) < STEP_PICTURES and self._is_due(wanted):
            due.append(self._ahead.popleft())
        return due

    def _is_due(self, wanted: int) -> bool:
        if not self._ahead:
            return False
        newest = max((source.wanted for source in self.sources if source.looking), default=wanted)
        return _turn(self._ahead[0]) <= newest + self._reach

    @property
    def _reach(self) -> int:
        """How far ahead pictures are decoded, ns."""
        size = self._picture.size
        if size is None:
            return AHEAD
        count = AHEAD_BYTES * 2 // (3 * size.width * size.height)
        fits = (queue_capacity(size.width, size.height) - 2) * self._picture.usual  # beside the one on, and rounding
        return min(fits, max(AHEAD, min(AHEAD_MOST, count * self._picture.usual)))

    def _keep_unheard(self, sounds: Sequence[Item]) -> None:
        """Sound that nobody listens to waits for as long as somebody who begins to might want it."""
        if self._hearing:
            self._unheard.clear()
            return
        for item in sounds:
            if item is END or item.began:
                self._unheard.clear()
            if item is not END:
                self._unheard.append(item)
        kept = UNHEARD + max((source.slack for source in self.sources), default=0)
        while self._unheard and self._unheard[-1].packet.arrival - self._unheard[0].packet.arrival > kept:
            self._unheard.popleft()

    def _see(self, pictures: Sequence[Item], *, wanted: int, more: bool, care: Care) -> list[Shown]:
        if not self._seeing:
            self._picture.close()
        return self._picture.decode(pictures, wanted=wanted, more=more, care=care)

    def _close(self) -> None:
        self._picture.close()
        self._sound.close()

    def _show(self, pictures: Sequence[Shown]) -> None:
        """Gives pictures to all who look; keeps what is not over yet for those who begin to."""
        for source in self.sources:
            for picture in pictures if source.looking else ():
                source.push_picture(*picture)
        wanted = self._wanted()
        self._pictures.extend(pictures)
        while len(self._pictures) > 1 and self._pictures[1][0] <= wanted:
            self._pictures.popleft()

    def _sound_out(self, sounds: dict[AudioFormat, Sounds]) -> None:
        """Gives sound to all who listen; keeps what is not over yet for those who begin to."""
        for source in self.sources:
            for first, block in sounds.get(source.format, ()) if source.listening else ():
                source.push_sound(first, block)
        wanted = self._wanted()
        self._sounds = {sound: self._sounds.get(sound, deque()) for sound in sounds}
        for sound, blocks in sounds.items():
            kept = self._sounds[sound]
            for given in blocks:
                while kept and kept[-1][0] >= given[0]:  # sound has gone back: what was ahead of it is withdrawn
                    kept.pop()
                kept.append(given)
            while kept and kept[0][0] + len(kept[0][1]) <= wanted * sound.rate // SECOND:
                kept.popleft()

    async def _linger(self) -> None:
        """Lets packets gather, unless somebody waits for a first picture, or calls."""
        if self._last_picture is not None and any(source.looking and source.waits for source in self.sources):
            return
        slack = min((source.slack for source in self.sources if source.attends), default=None)
        pause = LINGER_ALONE if slack is None else min(LINGER, slack / SECOND / LINGER_PART)
        if pause > 0:
            beat = (trio.current_time() // pause + 1) * pause  # the same for all: what wakes together costs less
            with trio.CancelScope(deadline=beat):
                await self._call.wait()


def _time(item: Item) -> int:
    """When it is on, ns of server time; an end is never late."""
    return NEVER if item is END else item.time


def _turn(item: Item) -> int:
    """When it must be decoded for those that are on next: by its dts; what other pictures need comes before them."""
    return 0 if item is END else item.time - item.packet.pts_ns + item.packet.dts_ns
