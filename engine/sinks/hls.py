"""HLS with fragmented MP4 segments and low-latency parts, kept in memory.

It decides where segments and parts are cut and what the playlist says; it refuses to know HTTP.

Theory of operation
-------------------
* A **segment** begins with a keyframe, or after LONGEST seconds with any picture; one of sound alone is SEGMENT long.
  The first playlist waits for a whole one: by its length players are told how long segments are, and told anew only
  where a longer GOP comes, or the picture stops within one.
  It leaves the playlist when enough stay there, and can be had until players of any playlist that had it are through.
  A **part** is the fewest whole pictures that last NEARLY_PART seconds. A segment is its parts, one behind the other.
* Cuts are exact: a part is made when the first picture behind it has come, so its length is known and a keyframe that
  begins the next segment is seen. So there is always a picture that is in no part yet: the hinted part will come.
* While the picture stands still, parts of its sound are GAP long, and the first one holds the last picture as long;
  without sound, one part is as long as the picture. The second one waits until the picture has stopped: it and all
  that follow begin with the last keyframe, held as long as they are, so no part is without a picture.
* When the tracks change, or the publisher returns, or a keyframe comes after the picture has stood still for GAP
  seconds, time begins again: a discontinuity, with an init segment (a *map*) of its own, behind which a browser plays
  nothing before a keyframe. When the publisher stays away for PATIENCE seconds, the playlist ends.
* Every segment has a **date**: the first of a map has that of its first packet's arrival, any other begins when the one
  before it ends. So players know how long a publisher was away; Shaka plays on behind a discontinuity only by that.
  Dates are of the engine's clock, to which the system's was added when it began: they never go back. Each segment tells
  its own: fewer would do, but any of them is the first one listed in its turn.
* A request for what is not there yet waits (*blocking reload*), but never for ever.

Specification: RFC 8216 and draft-pantos-hls-rfc8216bis (parts, blocking reload 6.2.5.2).
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from fractions import Fraction
from itertools import accumulate
from typing import Final, NamedTuple

import trio

from engine import boxes, fmp4
from engine.errors import EngineError, InvalidSpec, NotFound, SinkRejected, SourceUnavailable
from engine.packet import Packet, Refused
from engine.stream import END, Hub, Reader
from engine.timebase import SECOND, utc

log = logging.getLogger(__name__)

NEARLY_PART: Final = Fraction(19, 100)  # six pictures of 30 a second, counted in whole ms, are 199 ms
PART_TARGET: Final = Fraction(22, 100)  # a part is at least 85 % of it
_LEAST_PART: Final = Fraction(1, 1000)  # s; sound may have been ahead of a picture that returns
LEAST: Final = Fraction(1)
SEGMENT: Final = Fraction(2)
LONGEST: Final = Fraction(12)  # players stop where a segment begins without a keyframe; x264 sends one in 250 pictures
GAP: Final = Fraction(2)
LISTED: Final = 6  # at least, and three target durations: RFC 8216 6.2.2
LISTED_MOST: Final = 36  # of LEAST; that many of less come only where publishers come and go all the time
KEPT: Final = 4 * LISTED_MOST
WITH_PARTS: Final = 3  # whole segments, so no parts are listed behind three target durations; all can be had
# Before the first there are fewer than this, other ones than before a restart. They should only rise; but hls.js goes
# through an array as long as their number at each reload, in 4 ms with so many.
DISCONTINUITIES: Final = 1 << 14
PATIENCE: Final = 10.0  # s until a publisher that has gone will not come back
FIRST_PART: Final = 10.0  # s until a stream without anything to show is given up
FIRST_SEGMENT: Final = float(LONGEST)  # s more for a whole one: many players take nothing else, nor another target


class Part(NamedTuple):
    """A fragment; duration in s; independent: it begins with a keyframe."""

    data: bytes | memoryview
    duration: Fraction
    independent: bool


class Segment:
    """Number `number` since the beginning, open until `close`.

    date  when it begins, s since 1970.
    goes  s of media from the beginning on, when nobody may ask for it any more; None: it is listed still.
    """

    def __init__(self, number: int, *, map_number: int, discontinuous: bool, date: Fraction) -> None:
        self.number, self.map_number, self.discontinuous, self.date = number, map_number, discontinuous, date
        self.parts: list[Part] = []
        self.duration = Fraction(0)
        self.data: bytes | None = None  # None: open
        self.goes: Fraction | None = None

    def add(self, part: Part) -> None:
        """One more part."""
        self.parts.append(part)
        self.duration += part.duration

    def close(self) -> None:
        """No more parts will come; those that have become views into the whole."""
        self.data = b"".join(part.data for part in self.parts)
        whole, stops = memoryview(self.data), accumulate(len(part.data) for part in self.parts)
        self.parts = [
            part._replace(data=whole[stop - len(part.data) : stop])
            for part, stop in zip(self.parts, stops, strict=True)
        ]


class Segmenter:
    """Packets → segments; the newest is open. Knows no time but the packets'.

    first  number of the first segment and of its map; discontinuities before it are as many, but for whole rounds.
    zero   the date when a packet arrives at 0, ns since 1970.
    """

    def __init__(self, first: int = 0, *, zero: int = 0) -> None:
        self.segments = deque[Segment](maxlen=KEPT)
        self.inits: dict[int, bytes] = {}
        self.discontinuities = first % DISCONTINUITIES  # that are no longer listed
        self.target = int(SEGMENT)  # s, as the playlist says it; never shrinks
        self._lasted = Fraction(0)  # s, of all whole segments
        self._longest = Fraction(0)  # s, of any playlist so far
        self._first = first
        self._zero = zero
        self._date = Fraction(0)  # s since 1970; of what is cut next
        self._number = self._map_number = first - 1
        self._restart()

    def _restart(self) -> None:
        self._opening = fmp4.Opening(holds=True)
        self._tracks: fmp4.Tracks = ()
        self._fragmenter: fmp4.Fragmenter | None = None
        self._reached = Fraction(0)  # s; until when the parts of this map last
        self._last: Packet | None = None  # of the first track; or sound, up to which its last keyframe was held

    @property
    def refused(self) -> Refused:
        """What it leaves out of what is published now."""
        return self._opening.refused

    @property
    def open(self) -> Segment | None:
        """The segment that grows; None while nobody publishes."""
        return self.segments[-1] if self.segments and self.segments[-1].data is None else None

    @property
    def closed(self) -> list[Segment]:
        """The whole segments."""
        return [segment for segment in self.segments if segment.data is not None]

    @property
    def listed(self) -> list[Segment]:
        """What a playlist shows: the last whole segments, and an open one that has parts."""
        return [each for each in self.segments if each.goes is None and each.parts]

    def push(self, packet: Packet) -> bool:
        """Takes a packet; whether something new can be shown. Raises SinkRejected: no codec can be in an MP4."""
        news = [self._take(each) for each in self._opening.take(packet)]
        return any(news)

    def end(self) -> None:
        """The publisher has gone; what comes next is discontinuous."""
        for each in self._opening.rest():
            self._take(each)
        self._finish()
        self._close()
        self._restart()

    def _take(self, packet: Packet) -> bool:
        tracks = self._opening.tracks
        leads = packet.track.kind == tracks[0].kind
        begins = self._tracks is not tracks or (leads and packet.keyframe and self._stood_still(packet))
        if begins:
            self._begin(tracks, packet.arrival)
        assert self._fragmenter is not None
        self._fragmenter.push(packet)
        if not leads:
            has_stopped = self._last is None or packet.arrival - self._last.arrival >= GAP * SECOND
            return begins or (has_stopped and self._fragmenter.longest >= GAP and self._cut_stalled(packet))
        self._last = packet
        return begins or self._cut_before(packet)

    def _stood_still(self, packet: Packet) -> bool:
        """Also when it came: times of media alone may jump, which the fragmenter takes out."""
        if self._last is None or packet.arrival - self._last.arrival <= GAP * SECOND:
            return False
        return fmp4.seconds(packet) - fmp4.seconds(self._last) > GAP

    def _begin(self, tracks: fmp4.Tracks, arrival: int) -> None:
        self._finish()
        self._close()
        self._date = max(self._date, Fraction(self._zero + arrival, SECOND))
        self._tracks, self._fragmenter, self._reached = tracks, fmp4.Fragmenter(tracks), Fraction(0)
        self._map_number += 1
        self.inits[self._map_number] = boxes.init_segment(tracks)
        self._open(discontinuous=self._number >= self._first)

    def _open(self, *, discontinuous: bool = False) -> None:
        self._number += 1
        self.segments.append(
            Segment(self._number, map_number=self._map_number, discontinuous=discontinuous, date=self._date)
        )

    def _cut_before(self, packet: Packet) -> bool:
        assert self._fragmenter is not None
        assert self.open is not None
        waiting = self._fragmenter.waiting
        duration = self.open.duration + waiting
        least = LEAST if packet.is_video else SEGMENT
        if (packet.keyframe and duration >= least) or duration >= LONGEST:
            self._cut()
            self._close()
            self._open()
            return True
        return waiting >= NEARLY_PART and self._cut()

    def _cut_stalled(self, sound: Packet) -> bool:
        """There is sound, but no picture: the last one stays. Sound waits still: the hinted part will come."""
        assert self._fragmenter is not None
        if self._opening.is_alone:
            self._last = sound
        elif self._last is not None and self._fragmenter.picture_ends:
            return False
        self._fragmenter.hold_picture()
        self._cut()
        if self.open is not None and self.open.duration >= (SEGMENT if self._opening.is_alone else self.target):
            self._close()
            self._open()
        return True

    def _cut(self) -> bool:
        return self._fragmenter is not None and self._add(self._fragmenter.cut())

    def _finish(self) -> bool:
        return self._fragmenter is not None and self._add(self._fragmenter.finish())

    def _add(self, fragment: fmp4.Fragment | None) -> bool:
        """A part lasts from the end of the one before it: where a picture returns, its sound has been there already."""
        if fragment is not None and self.open is not None:
            duration = max(_LEAST_PART, fragment.stop - self._reached)
            self.open.add(Part(fragment.data, duration, fragment.keyframe))
            self._reached += duration
            self._date += duration
        return fragment is not None

    def _close(self) -> None:
        segment = self.open
        if segment is None:
            return
        if not segment.parts:
            self.segments.pop()
            self._number -= 1
            return
        segment.close()
        self.target = max(self.target, int(segment.duration + Fraction(1, 2)))
        self._lasted += segment.duration
        self._leave()
        self.inits = {k: init for k, init in self.inits.items() if k >= self.segments[0].map_number}

    def _leave(self) -> None:
        """Old segments leave the playlist, and go when the longest that may have had them is over (RFC 8216 6.2.2)."""
        listed = self.listed
        rest = sum((each.duration for each in listed), start=Fraction(0))
        self._longest = max(self._longest, rest)
        for n, old in enumerate(listed[:-LISTED]):
            rest -= old.duration
            if rest < 3 * self.target and len(listed) - n <= LISTED_MOST:
                break
            old.goes = self._lasted + self._longest + old.duration
            self.discontinuities += old.discontinuous
        while self.segments[0].goes is not None and self.segments[0].goes <= self._lasted:
            self.segments.popleft()


class Hls:
    """One stream as HLS; `run` is its actor. Everything else is asked by clients, in the Trio thread.

    Promises: `run` raises no EngineError and ends by itself when the publisher stays away; requests that wait are
    answered then. What is kept is bounded: KEPT segments at most, as a rule twice what is listed.

    first  number of its first segment: above those of a playlist of that name before it, or players wait for it.
    zero   the date when the hub's clock was 0, ns since 1970.
    """

    def __init__(self, hub: Hub, name: str, *, first: int = 0, zero: int = 0) -> None:
        # given
        self._hub = hub
        self._name = name
        # owned by run()
        self._segmenter = Segmenter(first, zero=zero)
        self._error: EngineError | None = None
        self._text: str | None = None  # the playlist, until something changes
        self._news = trio.lowlevel.ParkingLot()
        # read by anyone (snapshot)
        self.ended = False  # `run` is over, the playlist has its end
        self.last_used = hub.now()  # ns; when somebody asked for something

    async def run(self) -> None:
        """Follows the stream until its publisher stays away for PATIENCE seconds."""
        try:
            with self._hub.read(self._name) as reader:
                if not reader.waiting:
                    reader.stream.request_keyframe()
                while await self._follow(reader):
                    pass
        except SinkRejected as err:
            self._error = err
        finally:
            self._segmenter.end()
            self.ended = True
            self._tell()

    async def _follow(self, reader: Reader) -> bool:
        """Takes what is there; False: the publisher does not come back."""
        seconds = PATIENCE if reader.stream.publication is None else float("inf")
        with trio.move_on_after(seconds) as scope:
            items = await reader.receive()
        if scope.cancelled_caught:
            return False
        news = False
        for item in items:
            if item is END:
                self._segmenter.end()
                news = True
            else:
                news |= self._segmenter.push(item)
        for what in self._segmenter.refused.report():
            log.warning("%s: %s is left out of its HLS", self._name, what)
        if news:
            self._tell()
        return True

    def _tell(self) -> None:
        self._text = None
        self._news.unpark_all()

    def is_ready(self) -> bool:
        """Whether a playlist can be had at once, with a whole segment in it."""
        self.last_used = self._hub.now()
        return bool(self._segmenter.closed)

    async def playlist(self, *, msn: int | None = None, part: int | None = None) -> str:
        """The media playlist, when segment `msn`, or its part `part`, is in it; the first one waits for a segment.

        URIs are relative: init_{k}.mp4, seg_{n}.m4s, part_{n}_{k}.m4s.

        Raises  NotFound: the stream has gone. InvalidSpec: a part of no segment, or a segment that is too far ahead.
                SourceUnavailable: nothing came for three target durations. SinkRejected: no codec can be in an MP4.
        """
        self.last_used = self._hub.now()
        segmenter = self._segmenter
        await self._until(lambda: bool(segmenter.listed), FIRST_PART)
        if segmenter.listed and not segmenter.closed and msn is None:
            await self._until(lambda: bool(segmenter.closed), FIRST_SEGMENT)
        self._check()
        if not segmenter.listed:
            raise SourceUnavailable(f'stream "{self._name}": nothing to play for {FIRST_PART:g} s', where=self._name)
        await self._reload(msn, part)
        if self._text is None:
            self._text = playlist(segmenter, ended=self.ended)
        return self._text

    async def _reload(self, msn: int | None, part: int | None) -> None:
        """Waits until the playlist has what a client wants to see."""
        newest = self._segmenter.segments[-1].number
        if msn is None:
            if part is not None:
                raise InvalidSpec(f"_HLS_part {part} comes without _HLS_msn", where="_HLS_part")
        elif not 0 <= msn <= newest + 2:
            raise InvalidSpec(f"_HLS_msn {msn} is not within 0…{newest + 2}", where="_HLS_msn")
        elif part is not None and part < 0:
            raise InvalidSpec(f"_HLS_part {part} is less than 0", where="_HLS_part")
        elif not await self._until(lambda: self._has(msn, part), 3 * self._segmenter.target) and not self.ended:
            seconds = 3 * self._segmenter.target
            raise SourceUnavailable(f'stream "{self._name}": nothing new for {seconds} s', where=self._name)

    def _has(self, msn: int, part: int | None) -> bool:
        newest = self._segmenter.segments[-1]
        if newest.data is not None or msn != newest.number:
            return msn <= newest.number - (newest.data is None)
        return part is not None and part < len(newest.parts)

    async def _until(self, there: Callable[[], bool], seconds: float) -> bool:
        """Waits until something is there, or the end; whether it is."""
        with trio.move_on_after(seconds):
            while not there() and not self.ended:
                await self._news.park()
        return there()

    def _check(self) -> None:
        if self._error is not None:
            raise self._error
        if self.ended and not self._segmenter.listed:
            raise NotFound("stream", self._name)

    def init(self, number: int) -> bytes:
        """The init segment of a map. Raises NotFound."""
        self.last_used = self._hub.now()
        if number not in self._segmenter.inits:
            raise NotFound("map", f"{self._name}/init_{number}.mp4")
        return self._segmenter.inits[number]

    def segment(self, number: int) -> bytes:
        """A whole segment. Raises NotFound."""
        self.last_used = self._hub.now()
        segment = self._find(number)
        if segment is None or segment.data is None:
            raise NotFound("segment", f"{self._name}/seg_{number}.m4s")
        return segment.data

    async def part(self, number: int, index: int) -> bytes:
        """A part of a segment; the hinted next one when it has come. Raises NotFound."""
        self.last_used = self._hub.now()
        segment = self._find(number)
        if segment is not None and segment is self._segmenter.open and index == len(segment.parts):
            grown = segment
            await self._until(lambda: len(grown.parts) > index or grown.data is not None, 3 * self._segmenter.target)
        if segment is None or not 0 <= index < len(segment.parts):
            raise NotFound("part", f"{self._name}/part_{number}_{index}.m4s")
        return bytes(segment.parts[index].data)

    def _find(self, number: int) -> Segment | None:
        return next((segment for segment in self._segmenter.segments if segment.number == number), None)


def playlist(segmenter: Segmenter, *, ended: bool = False) -> str:
    """The media playlist of what a segmenter lists. Parts only of the last segments (draft 4.4.4.9)."""
    listed, growing = segmenter.listed, segmenter.open
    last = [*segmenter.closed[-WITH_PARTS:], growing]
    with_parts = [segment for segment in listed if segment in last]
    target = max([PART_TARGET, *(part.duration for segment in with_parts for part in segment.parts)])
    lines = [
        "#EXTM3U",
        "#EXT-X-VERSION:9",
        f"#EXT-X-TARGETDURATION:{segmenter.target}",
        f"#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK={_up(3 * target)}",
        f"#EXT-X-PART-INF:PART-TARGET={_up(target)}",
        f"#EXT-X-MEDIA-SEQUENCE:{listed[0].number}",
        f"#EXT-X-DISCONTINUITY-SEQUENCE:{segmenter.discontinuities}",
    ]
    map_number = None
    for segment in listed:
        lines += ["#EXT-X-DISCONTINUITY"] if segment.discontinuous else []
        lines += [f'#EXT-X-MAP:URI="init_{segment.map_number}.mp4"'] if segment.map_number != map_number else []
        map_number = segment.map_number
        lines.append(f"#EXT-X-PROGRAM-DATE-TIME:{utc(round(1000 * segment.date))}")
        lines += _part_lines(segment) if segment in with_parts else []
        if segment.data is not None:
            lines += [f"#EXTINF:{float(segment.duration):.5f},", f"seg_{segment.number}.m4s"]
    if ended:
        lines.append("#EXT-X-ENDLIST")
    elif growing is None or (growing.discontinuous and not growing.parts):
        lines.append("#EXT-X-DISCONTINUITY")  # players count it for what comes next, and may not see it change
    else:
        lines.append(f'#EXT-X-PRELOAD-HINT:TYPE=PART,URI="part_{growing.number}_{len(growing.parts)}.m4s"')
    return "\n".join(lines) + "\n"


def _part_lines(segment: Segment) -> list[str]:
    lines = []
    for k, part in enumerate(segment.parts):
        independent = ",INDEPENDENT=YES" if part.independent else ""
        uri = f"part_{segment.number}_{k}.m4s"
        lines.append(f'#EXT-X-PART:DURATION={float(part.duration):.5f},URI="{uri}"{independent}')
    return lines


def _up(t: Fraction) -> str:
    """Seconds, rounded up to ms: no part may be longer than the target."""
    return f"{-(-t * 1000 // 1) / 1000:.3f}"
