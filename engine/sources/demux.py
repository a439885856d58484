"""A file or URL that libav opens → packets of a stream: H.264 and HEVC length-prefixed, AAC raw, time stamps upwards.

It decides which packets are given on and how their time stamps are put right; it refuses to know when they are sent and
to whom. Worker threads only, one call at a time.

Theory of operation
-------------------
* Time stamps begin at `BEGINNING`, so that sound that begins before its picture is not negative. One shift holds for
  picture and sound. Jumps and wraps of formats whose clock may jump (MPEG-TS, FLV) are straightened out; a missing dts
  is one step after the last one, one that does not rise is the last one and a little more; of sound, two may be equal.
  A pts that is `TORN` from its dts is damaged, and FLV could not hold it: its packet is shown when it is decoded. Of
  FLV whose pictures are shown before they are decoded, the dts are earlier by that much (`engine.sources.ingest`).
* At the end of a file that is to be repeated it is opened again, and time goes on where it ended, without a seam: that
  is where its picture ended, and its sound too when that is only an encoder's padding longer; a still lasts `STILL`.
  Priming and padding are left out where they would lie on other sound.
* What was cut away from an MP4 or a Matroska without coding it anew is in it still, as far as decoders need it: such
  pictures come just before the first one that is shown, all within the tick before it, and are no part of the film's
  length; sound before the first that is heard is left out but for the last `PRIMING`. In Matroska such pictures are
  those without a stamp before the first one that libav knows a dts of: with B-frames some come after the first that has
  a pts. An MP4 may consist of several parts (an edit list): between them libav reads on behind the one, and then goes
  back to the keyframe before the other, by seconds. Sound from between them is left out, and pictures from behind a
  part. Those before a part come just before the earliest one of it: with B-frames that is not the first one decoded, so
  that some pictures wait. Where a film's unit of time is as long as a picture, they have no room, and are seen.
* A file, and whatever else has an end, comes as fast as it can be read, and HLS in segments: who sends it paces it
  (`is_paced`). Its packets are given in the order of their dts, whatever their order in the file: when all kinds have
  come that far. A segment of fragmented MP4 has all its pictures in front of all its sound. A kind that has ended, or
  pauses, is waited for until the others lead by twice as much as a packet was late before, and by `LATE` at least; one
  that never came may be behind a whole first segment, so it is waited for until `FIRST` is over.
* Other URLs come in their own time, and so they are given; where these have no time stamps (MJPEG of cameras, raw
  H.264), their arrival is one. What states a duration has an end, and what has a length in bytes: many files say
  nothing of their duration (a browser's WebM, raw H.264). A playlist's length is not that of its segments.
* A film in HLS that ends clearly before the length that its playlist states has broken off: libav passes over segments
  that cannot be fetched.
* Of a programme of MPEG-TS that goes on in another codec under the PIDs it had, nothing can be used any more, while its
  other kind comes as before. A live one is to be opened again then; a file's rest is read as far as it can be. Of
  FLV libav makes another stream then, whose packets PyAV does not give: where a kind stays away and has another stream,
  a live one is to be opened again too. What is merely off has none.
* A live playlist that is opened again begins with its last segments, which may have been read before, all of them where
  it stands still. So packets with stamps and sizes of some that were read before are left out, within `AGAIN` of
  opening it: an encoder that begins the same film anew is not left out for longer.
* Of fragmented MP4 libav keeps where each packet was for as long as it is open. So a live playlist of it is opened
  again when that is `INDEXED` packets, some hours, and goes on as it was. It begins `BEFORE` segments from the newest
  one then, which is behind where it was, as libav began three from it; who has fallen back since catches up.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from fractions import Fraction
from heapq import heapify, heappop, heappush
from itertools import chain
from typing import Any, Final, NamedTuple, TypeAlias

import av
from av.container import InputContainer
from av.stream import Discard

from engine.config import Settings
from engine.errors import SourceMalformed, SourceUnavailable, SourceUnsupported, reason_of
from engine.packet import Look, Orientation, Packet
from engine.sources.avfile import MAX_APART, MAX_WAITING_BYTES, SOUND_TAIL
from engine.sources.container import (
    LIBAV_ERRORS,
    AvPacket,
    best_stream,
    expect_streams,
    has_new_stream,
    is_flv,
    is_from_mp4,
    open_container,
)
from engine.sources.convert import orientation_of
from engine.sources.framing import Framing, framing_of
from engine.sources.tracks import (
    ALPHA,
    MAX_PIXELS,
    Straightener,
    end_with_stream,
    falls_short,
    hides_early,
    look_of,
    may_jump,
    zero_of,
)
from engine.timebase import SECOND, nanoseconds, units

log = logging.getLogger(__name__)

BEGINNING: Final = SECOND
BACK: Final = SECOND  # a dts that goes back by more has jumped, which is left to whoever reads
PACED_BATCH: Final = SECOND // 4  # of media in one step; a hop to a thread costs 0.1-0.3 ms
LATE: Final = SECOND  # of media; files with sound and picture in turns have chunks of less
FIRST: Final = 5 * SECOND  # from opening; to fetch a segment takes less, and patience is longer
FAR: Final = 1 << 63
AGAIN: Final = 5 * SECOND
ANEW: Final = 30 * SECOND  # the same, to fetch `BEFORE` segments
READ_MOST: Final = 8192  # packets that are known again: of `BEFORE` segments, of 10 s at most
INDEXED: Final = 1 << 20  # libav keeps 43 bytes of each
BEFORE: Final = 5
TORN: Final = 60 * SECOND  # slides that last 20 s and are reordered may be decoded so long before they are shown
REORDERED: Final = Fraction(1, 5)  # seconds that pictures are decoded before they are shown, where nobody says it
_ARRIVAL_BASE: Final = Fraction(1, 90_000)  # seconds of a stamp that is an arrival
PRIMING: Final = SECOND // 20  # encoders have about as much
STILL: Final = SECOND  # of a film of one picture, round by round: nothing is new in it, and patience is longer
STEP: Final = Fraction(1, 25)  # seconds from one packet without time stamps to the next
_APART: Final = int(MAX_APART * SECOND)
_TAIL: Final = int(SOUND_TAIL * SECOND)
ANALYSED: Final = "2000000"  # µs of media that are looked through when a URL is opened; libav's 5 s are a long wait
REMOTE: Final = ("http", "https", "rtmp", "rtmps", "rtsp", "rtsps")
# What a playlist may name; never files, which the engine can read and the one who wrote the playlist can not.
_PROTOCOLS: Final = "http,https,httpproxy,tcp,tls,udp,rtp,rtmp,rtmps,rtsp,crypto,data"
_TURNING: Final = ("mov", "matroska")  # that may say that pictures are to be turned
_MOST_BEFORE: Final = 1000  # packets that may come before the first picture
# All but lists of files to be read one after the other: one that names itself is opened without an end. This counts for
# URLs, and for files that are called lists; of other files `container` takes fewer.
_FORMATS: Final = ",".join(sorted(av.formats_available - {"concat"}))
_SEGMENTED: Final = ("hls", "dash")
_RECODED: Final = ("mpegts", "hls")  # that may go on in another codec
ABSENT: Final = SECOND  # of media, in which none of a kind came while another stream of it did: no damage lasts so
MOST_STRANGE: Final = 50  # packets of another codec in a row: two seconds of pictures, one of sound; no damage lasts so
_AVFMT_NOTIMESTAMPS: Final = 0x80  # libavformat/avformat.h
ReadBefore: TypeAlias = deque[tuple[str, int | None, int]]  # each packet's kind, dts (pts, where it has none), size


class Demuxer:
    """One opened URL. Raises SourceUnavailable, SourceMalformed, SourceUnsupported, here and in `read`.

    now   the engine's clock, ns.
    loop  begin again at the end of what has one.
    read_before  what was read of a live playlist, by others of that URL and by this one.
    """

    def __init__(
        self,
        guid: str,
        url: str,
        settings: Settings,
        *,
        now: Callable[[], int],
        loop: bool = False,
        read_before: ReadBefore | None = None,
    ) -> None:
        self.ended = False
        self.repaired = 0  # time stamps
        self._guid, self._url, self._settings, self._now = guid, url, settings, now
        self._lines: dict[str, _Line] = {}
        self._held: list[tuple[int, int, Packet]] = []  # a heap, by dts
        self._late = LATE  # by how much of media a packet may come behind another kind's
        self._serial, self._at_end = 0, False
        self._shift: int | None = None  # ns from time stamps as they come to those given on
        self._rounds = self._round_began = 0
        self._turn: Orientation | None = None  # as it was the first time
        self._is_unordered = False  # whether packets have come whose pts do not say in which order pictures are shown
        self._open()
        scheme = url.partition("://")[0].lower() if "://" in url else "file"
        in_segments = self._container.format.name.split(",")[0] in _SEGMENTED
        has_length = self._container.size > 0 and not in_segments  # in bytes: a file's, or as a server states it
        is_live = scheme in ("rtmp", "rtmps", "rtsp", "rtsps")
        self.has_end = not is_live and ((self._container.duration or 0) > 0 or has_length)
        self.is_paced = self.has_end or in_segments
        self._is_unstamped = bool(self._container.format.flags & _AVFMT_NOTIMESTAMPS) and not self.is_paced
        if self._is_unstamped:
            for stream in self._used:
                self._lines[stream.type].begin(stream, Look(), _ARRIVAL_BASE)
        self._may_grow = is_flv(self._container) and not self.has_end
        if self._may_grow:
            expect_streams(self._container)
        self._loop = loop and self.has_end
        is_growing = in_segments and not self.has_end and read_before is not None
        self._read_before = read_before if is_growing else None
        self._keeps_index = is_growing and any(is_from_mp4(stream) for stream in self._used)
        self._opened = now()
        self._remember(AGAIN)

    def _open(self, **options: str) -> None:
        self._container = _opened(self._guid, self._url, self._settings, options)
        self._came = 0  # packets
        video = best_stream(self._container, "video")
        streams = [video, best_stream(self._container, "audio", beside=video)]
        self._used = [stream for stream in streams if stream is not None]
        if not self._used:
            self._container.close()
            raise SourceUnsupported(f'source "{self._guid}": no picture and no sound in it', where=self._guid)
        for stream in self._container.streams:
            stream.discard = Discard.default if stream in self._used else Discard.all  # HLS does not even fetch these
        self._packets = iter(self._container.demux(self._used))
        for stream in self._used:
            line = self._lines.setdefault(stream.type, _Line())
            line.begin(stream, self._look(stream))
        self._straightener = Straightener() if may_jump(self._container) else None
        self._zero = int(zero_of(self._container) * SECOND)

    def _open_anew(self) -> None:
        """Opens a live playlist again; its time is the one it was."""
        self._container.close()
        straightener, zero = self._straightener, self._zero
        self._open(live_start_index=str(-BEFORE))
        if straightener is not None:
            straightener.begin_file()
        self._straightener, self._zero = straightener, zero
        self._remember(ANEW)
        self._at_end = (self._container.duration or 0) > 0  # it ended meanwhile, and is a whole film now

    def _remember(self, within: int) -> None:
        """Leaves out what was read before, for so many ns from now on."""
        self._known, self._known_until = frozenset(self._read_before or ()), self._now() + within

    def _look(self, stream: Any) -> Look:
        """How its pictures are to be shown, where they do not say it. Reads up to the first of them.

        What a picture is to be turned by is not known before one is decoded, which forgets the container's colours.
        """
        if stream.type != "video":
            return Look()
        look = look_of(stream)
        if self._turn is None and self._container.format.name.split(",")[0] in _TURNING:
            self._turn = self._decoded_turn(stream)
        return look._replace(orientation=self._turn)

    def _decoded_turn(self, stream: Any) -> Orientation | None:
        came: list[AvPacket] = []
        while len(came) < _MOST_BEFORE and not (came and came[-1].stream is stream):
            if (packet := self._next()) is None:
                break
            came.append(packet)
        self._packets = chain(came, self._packets)
        stream.codec_context.thread_type = "NONE"
        stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
        try:
            coded = [packet for packet in came if packet.stream is stream]
            pictures = [picture for packet in (*coded, None) for picture in stream.decode(packet)]
        except LIBAV_ERRORS:
            return None
        return orientation_of(pictures[0]) if pictures else None

    def read(self) -> list[Packet]:
        """The next packet, or where they are to be paced some; nothing more after those that come with `ended`."""
        size = sum(len(held.data) for _, _, held in self._held)
        if self._keeps_index and self._came >= INDEXED:
            self._open_anew()
        while not self._at_end and self._lacks_some(size):
            packet = self._next()
            if packet is None:
                self._finish()
                continue
            for made in self._made(packet, self._now()):
                size += len(made.data)
                self._hold(made)
            if self._may_grow:
                self._check_codecs()
        until = self._held[0][0] + PACED_BATCH if self._held else 0
        out: list[Packet] = []
        while self._held and self._held[0][0] < until:
            out.append(heappop(self._held)[2])
        self.ended = self._at_end and not self._held
        return out

    def _lacks_some(self, size: int) -> bool:
        """Whether there may be more that comes before the end of the next batch; what is held has so many bytes."""
        if not self._held or not self.is_paced:
            return not self._held
        newest = [line.newest for line in self._lines.values()]
        stop = self._held[0][0] + PACED_BATCH
        most = self._late
        if min(newest) == -FAR and self._now() - self._opened < FIRST:
            most = _APART
        if size > MAX_WAITING_BYTES:
            most = LATE
        return min(newest) < stop and max(newest) < stop + most

    def _hold(self, packet: Packet) -> None:
        newest = max(line.newest for line in self._lines.values())
        self._late = max(self._late, min(2 * (newest - packet.dts_ns), _APART))  # segments differ in length
        self._serial += 1
        heappush(self._held, (packet.dts_ns, self._serial, packet))

    def close(self) -> None:
        """Closes it; not while another thread reads."""
        self._container.close()

    def _next(self) -> AvPacket | None:
        """The next packet with something in it, None at the end. Raises SourceError."""
        try:
            for packet in self._packets:
                self._came += 1
                if packet.size:
                    return packet
        except IndexError:
            pass  # PyAV at the end of a file in which another stream turned up on the way
        except LIBAV_ERRORS as err:
            sentence = f'source "{self._guid}": {reason_of(err)}'
            if isinstance(err, av.error.ExitError):
                sentence = f'source "{self._guid}": nothing more came for {self._settings.read_timeout:g} s'
            raise SourceUnavailable(sentence, where=self._guid) from err
        return None

    def _finish(self) -> None:
        for line in self._lines.values():
            if line.joins:
                for made in self._given(line):
                    self._hold(made)
        if self._shift is None or self._serial == self._round_began:
            raise SourceMalformed(f'source "{self._guid}": no packets in it', where=self._guid)
        if falls_short(self._container, self._straightener):
            raise SourceUnavailable(f'source "{self._guid}": it ends before its playlist does', where=self._guid)
        if not self._loop:
            self._at_end = True
            return
        self._container.close()
        is_still = self._serial - self._round_began == 1 and "audio" not in self._lines
        length = max(STILL if is_still else int(STEP * SECOND), self._length())
        sound = self._lines.get("audio")
        if sound is not None:
            over = self._shift + length + sound.start
            padding = [each for each in self._held if not each[2].is_video and each[0] >= over]
            if padding:
                self._held = [each for each in self._held if each not in padding]
                heapify(self._held)
                sound.last = min(packet.dts for _, _, packet in padding) - 1
        self._open()
        self._shift += length
        self._rounds += 1
        self._round_began = self._serial

    def _length(self) -> int:
        """ns from the beginning to where it begins again."""
        picture, sound = self._lines.get("video"), self._lines.get("audio")
        if picture is not None and (sound is None or sound.stop - sound.start <= picture.stop - picture.start + _TAIL):
            return picture.stop - picture.start
        lines = self._lines.values()
        return max(line.stop for line in lines) - min(line.start for line in lines)

    def _was_read_before(self, packet: AvPacket, arrival: int) -> bool:
        if self._read_before is None:
            return False
        stamp = (
            packet.pts if packet.dts is None else packet.dts
        )  # pts of fragmented MP4 are others each time it is opened
        mark = packet.stream.type, stamp, packet.size
        if mark in self._known and arrival < self._known_until:
            return True
        self._read_before.append(mark)
        return False

    def _made(self, packet: AvPacket, arrival: int) -> list[Packet]:
        """What a packet becomes: itself in its place, behind the pictures that wait unseen for one that is shown."""
        if self._was_read_before(packet, arrival):
            return []
        if self._is_unstamped:
            packet.pts = packet.dts = units(arrival, _ARRIVAL_BASE)
            packet.duration = 0
        straight = packet if self._straightener is None else self._straightener.apply(packet)
        if straight is None:
            return []
        packet = straight
        end_with_stream(packet)
        line = self._lines[packet.stream.type]
        data = self._unwrapped(line, packet)
        track = line.framing.track
        if track is None or not data:
            return []
        if track.unordered and not self._is_unordered:
            self._is_unordered = True
            log.warning('source "%s": does not say in which order its pictures are shown: only mixes know', self._guid)
        if line.hides(packet):
            given = self._given(line) if line.joins and packet.is_keyframe else []
            line.hide(data, packet, arrival)
            return given
        pts, dts = line.stamps(packet)
        time_base = track.time_base
        if abs(pts - dts) > units(TORN, time_base):
            self.repaired += 1
            pts = dts
        if line.lacks_keyframe(packet) or not self._is_heard_or_seen(line, packet, pts):
            return []
        if self._shift is None:
            self._shift = BEGINNING - nanoseconds(dts, time_base)
        alpha = bytes(packet.get_sidedata(ALPHA)) if track.look.see_through else b""
        line.keep(_Waiting(data, packet.is_keyframe, arrival, pts, dts, packet.duration or 0, alpha))
        return [] if line.joins and dts < line.earliest else self._given(line)

    def _given(self, line: _Line) -> list[Packet]:
        """What waits, up to the last one that is shown; those that are not come just before the first one that is."""
        assert self._shift is not None
        ticks = units(self._shift, line.framing.time_base)
        latest_unseen = (line.earliest if line.joins else units(self._zero, line.framing.time_base)) + ticks - 1
        given = []
        for each in line.taken():
            dts = each.dts + ticks
            if not each.shown and line.last is not None:
                dts = max(dts, line.last + 1)  # they rise, whatever went back
            given.append(self._packet(line, each, each.pts + ticks if each.shown else max(dts, latest_unseen), dts))
        return given

    def _check_codecs(self) -> None:
        """Raises SourceUnavailable: a kind goes on in a stream that was not there when the FLV was opened."""
        newest = max(line.newest for line in self._lines.values())
        for stream in self._used:
            if newest - self._lines[stream.type].newest > ABSENT and has_new_stream(stream):
                raise self._recoded(stream.type)

    def _recoded(self, kind: str) -> SourceUnavailable:
        what = "picture" if kind == "video" else "sound"
        return SourceUnavailable(f'source "{self._guid}": its {what} is of another codec now', where=self._guid)

    def _unwrapped(self, line: _Line, packet: AvPacket) -> bytes:
        """What a packet carries. Raises SourceUnavailable: it is of another codec than those before, and stays so."""
        data = line.framing.unwrapped(packet)
        if line.framing.strange > MOST_STRANGE and not self.has_end and self._container.format.name in _RECODED:
            raise self._recoded(packet.stream.type)
        return data

    def _is_heard_or_seen(self, line: _Line, packet: AvPacket, pts: int) -> bool:
        """Whether a packet is given on; notes where it lies, if it is no priming."""
        time_base = line.framing.time_base
        start = nanoseconds(pts, time_base)
        stop = nanoseconds(pts + (packet.duration or line.step), time_base)
        if packet.stream.type == "audio" and packet.is_discard and line.shows:
            return False
        if packet.stream.type == "audio" and stop <= self._zero:
            return not self._rounds and stop > self._zero - PRIMING
        line.start, line.stop, line.shows = min(start, line.start), max(stop, line.stop), True
        return True

    def _packet(self, line: _Line, came: _Waiting, pts: int, dts: int) -> Packet:
        """A packet of the line's track; its dts is made to rise, or where packets of sound are short not to fall."""
        track = line.framing.track
        assert track is not None
        if track.kind == "video" and is_flv(self._container) and dts - pts <= units(BACK, track.time_base):
            line.earlier = max(line.earlier, dts - pts)
        dts -= line.earlier
        if line.last is not None:
            least = line.last + 1 if track.kind == "video" else line.last  # those of TrueHD in Matroska are 0.83 units
            if line.last - units(BACK, track.time_base) < dts < least:
                self.repaired += 1
                pts, dts = max(pts, least), least
        line.last = dts
        return Packet(
            track,
            came.data,
            pts=pts,
            dts=dts,
            arrival=came.arrival,
            keyframe=came.keyframe,
            duration=came.duration,
            alpha=came.alpha,
        )


class _Waiting(NamedTuple):
    """A packet to be given on, in the time base of its track; where time stamps of one not shown are missing: -FAR."""

    data: bytes
    keyframe: bool
    arrival: int
    pts: int
    dts: int
    duration: int = 0
    alpha: bytes = b""
    shown: bool = True


class _Line:
    """Packets of one kind: their framing, and where their time stamps are."""

    def __init__(self) -> None:
        self.last: int | None = None  # dts as it was given on
        self.earlier = 0  # by how much pictures are decoded earlier than it was said
        self.start, self.stop = FAR, -FAR  # of what is shown in this round, as it came, ns
        self.step = 1
        self.shows = False  # something that is shown has come in this round
        self.joins = False  # a keyframe that is not shown has come since something was given: a part may begin
        self._waiting: list[_Waiting] = []
        self._waiting_bytes = 0
        self._lacks_keyframe = False  # more than `MAX_WAITING_BYTES` waited for a picture that is shown: they are gone
        self.framing: Framing
        self._is_early = False  # packets without time stamps are before 0
        self._came: int | None = None  # dts as it came
        self._lead = 0  # of a pts whose dts is missing

    @property
    def newest(self) -> int:
        """dts of the last packet that was made, ns; -FAR = there is none."""
        return -FAR if self.last is None else nanoseconds(self.last, self.framing.time_base)

    def begin(self, stream: Any, look: Look, time_base: Fraction | None = None) -> None:
        """Goes on with the stream of a container just opened, in its time base or another one."""
        self.shows = self.joins = self._lacks_keyframe = False
        self._forget()
        self.start, self.stop = FAR, -FAR
        self._is_early = hides_early(stream.container)
        before = self.framing if self.last is not None else None
        self.framing = framing_of(stream, before, look, time_base or stream.time_base)
        self.step = max(1, round(STEP / self.framing.time_base))
        self._came = None
        reordered = stream.type == "video" and stream.codec_context.has_b_frames
        self._lead = round(REORDERED / self.framing.time_base) if reordered else 0
        if before is not None and before.time_base != self.framing.time_base:
            self.last = None

    def hides(self, packet: AvPacket) -> bool:
        """Whether it is a picture that is only there for others to be decoded."""
        self._is_early = self._is_early and packet.dts is None
        is_before = self._is_early and packet.pts is None
        return packet.stream.type == "video" and (packet.is_discard or is_before)

    def lacks_keyframe(self, packet: AvPacket) -> bool:
        """Whether it is a picture that cannot be decoded, because those before it were left out."""
        self._lacks_keyframe = self._lacks_keyframe and not packet.is_keyframe
        return self._lacks_keyframe

    def hide(self, data: bytes, packet: AvPacket, arrival: int) -> None:
        """Keeps a picture that is not shown for the next one that is, but not what lies behind a part of a film."""
        pts, dts = (-FAR if stamp is None else stamp for stamp in (packet.pts, packet.dts))
        if packet.is_keyframe:
            self.joins, self._lacks_keyframe = self.shows, False
            if self.shows:
                self._forget()
        elif self.shows and not self.joins and nanoseconds(dts, self.framing.time_base) >= self.stop:
            return
        if not self._lacks_keyframe:
            self.keep(_Waiting(data, packet.is_keyframe, arrival, pts, dts, shown=False))
        if self._waiting_bytes > MAX_WAITING_BYTES:
            self._forget()
            self.joins, self._lacks_keyframe = False, True

    def keep(self, packet: _Waiting) -> None:
        """Lets a packet wait until it is taken."""
        self._waiting.append(packet)
        self._waiting_bytes += len(packet.data)

    def _forget(self) -> None:
        self._waiting, self._waiting_bytes = [], 0

    @property
    def earliest(self) -> int:
        """pts of the earliest picture that waits and is shown; FAR: there is none."""
        return min((each.pts for each in self._waiting if each.shown), default=FAR)

    def taken(self) -> list[_Waiting]:
        """What waits, up to the last one that is shown, without pictures that none of these needs.

        A picture that is not shown has another dts now: they come just before the next one that is.
        """
        waiting = self._needed()
        self._forget()
        self.joins = False
        dts = 0
        taken: list[_Waiting] = []
        for each in reversed(waiting):
            dts = each.dts if each.shown else dts - 1
            if taken or each.shown:
                taken.append(each._replace(dts=dts))
        return taken[::-1]

    def _needed(self) -> list[_Waiting]:
        """What waits, without what came before a keyframe where another part begins that needs no more than that."""
        first = next((n for n, each in enumerate(self._waiting) if each.shown), 0)
        begins = self.joins and self._waiting[first].keyframe
        if begins and all(each.pts >= self._waiting[first].pts for each in self._waiting[first:]):
            return self._waiting[first:]
        return self._waiting

    def stamps(self, packet: AvPacket) -> tuple[int, int]:
        """pts and dts in the track's time base, where they are missing guessed."""
        pts, dts = packet.pts, packet.dts
        if dts is None and pts is not None and (self._came is None or pts - self._lead > self._came):
            dts = pts - self._lead
        elif dts is None:
            dts = 0 if self._came is None else self._came + (self.step if pts is None else 1)
        elif self._came is not None and dts > self._came:
            self.step = dts - self._came
        self._came = dts
        return dts if pts is None or self.framing.is_packed else pts, dts


def _opened(guid: str, url: str, settings: Settings, options: dict[str, str]) -> InputContainer:
    scheme, colon, _ = url.lower().partition("://")
    options = {"format_whitelist": _FORMATS, **options}
    if colon and scheme in REMOTE:
        options |= {"protocol_whitelist": _PROTOCOLS, "analyzeduration": ANALYSED}
        if scheme.startswith("rtsp"):
            options["rtsp_transport"] = "tcp"  # over UDP a lost packet is a damaged picture
    return open_container(guid, url, settings, options=options)
