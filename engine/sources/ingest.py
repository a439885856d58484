"""Ingest: what a publisher's RTMP media are as packets of a stream: their tracks, and time stamps that can be used.

It decides what cannot be used and is counted; it refuses to know connections, and never refuses a publisher.

Theory of operation
-------------------
* A track begins with new extradata, or at the first packet of a codec that needs none. The same extradata again, which
  encoders send with every keyframe, is the same track.
* Time stamps are ms, as they came, if they can be used: from 0 on, and upwards for each kind. Others are repaired:

  - repeated: as much later as the packet came later, so that a publisher without time stamps has some;
  - back by less than BACK_MS, or below 0: 1 ms after the last one;
  - back by more is a jump, which is left to whoever reads.

  Composition times (pts − dts) stay as they came, but for those below 0, of encoders that say when a picture was coded
  and not when it must be decoded. Readers of MP4 show all pictures later then, and not the sound; players of RTMP say
  that the dts is wrong. So by the most that a dts was behind its pts, all dts from there on are *earlier*; pts stay.
  Where that grows, dts go on by 1 ms until they are so much earlier, and a picture or two that should be shown before
  they are decoded now are shown then. What is more than BACK_MS behind is damaged, or on a clock of its own: it stays.
* A body that is written as we would write it is relayed as it is, once for all readers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from engine.bitstream import aac_format, avc_size, hevc_size
from engine.packet import Kind, Packet, Track
from engine.rtmp import Media, Metadata
from engine.rtmp.flv import Audio, Video
from engine.rtmp.session import BACK_MS, Shared

_NEEDS_EXTRADATA: Final = ("h264", "hevc", "vvc", "aac", "flac")
_RATES: Final = {"pcm_alaw": 8000, "pcm_mulaw": 8000, "speex": 16_000}  # FLV 10.1 E.4.2.1: whatever the header says
_MOST: Final = 1 << 20  # of a width, height or sample rate

log = logging.getLogger(__name__)


class _Line:
    """One kind of media: its track, and where its time stamps are."""

    def __init__(self) -> None:
        self.track: Track | None = None
        self.came: int | None = None  # dts of the last packet as it came, ms …
        self.dts = 0  # … as it was given on …
        self.base = self.began = 0  # the first of those repeated: as it was given on, and when it came, ns
        self.earlier = 0  # by how much pictures are decoded earlier than their publisher says, ms
        self.decoded = -1  # when the last one is

    def repaired(self, dts: int, arrival: int) -> int:
        """A dts that can be used."""
        if self.came is None:
            usable = max(dts, 0)
        elif dts == self.came:
            usable = max(self.dts + 1, self.base + (arrival - self.began) // 1_000_000)
        elif dts < 0 or self.dts - BACK_MS < dts <= self.dts:
            usable = self.dts + 1
        else:
            usable = dts
        if dts != self.came:
            self.base, self.began = usable, arrival
        self.came, self.dts = dts, usable
        return usable

    def placed(self, dts: int, pts: int) -> tuple[int, int]:
        """When a packet with stamps that can be used is decoded and shown."""
        is_near = dts - pts <= BACK_MS
        if is_near:
            self.earlier = max(self.earlier, dts - pts)
        at = max(0, dts - self.earlier)
        if self.decoded - BACK_MS < at <= self.decoded:
            at = self.decoded + 1
        self.decoded = at
        return at, max(pts, at) if is_near else pts


class Ingest:
    """One publication of an RTMP publisher.

    name  of the stream.
    now   the engine's clock, ns.
    """

    def __init__(self, name: str, now: Callable[[], int]) -> None:
        self.repaired = 0  # time stamps
        self.ignored = 0  # bodies that are no picture and no sound, or came before their extradata
        self._name = name
        self._now = now
        self._lines: dict[Kind, _Line] = {"video": _Line(), "audio": _Line()}
        self._metadata: Mapping[str, object] = {}

    def take(self, media: Media) -> Packet | None:
        """The packet that an event is; None for anything else, which is remembered or counted."""
        if isinstance(media, Metadata):
            self._metadata = media.fields if media.name == "onMetaData" else self._metadata
            return None
        kind: Kind = "video" if isinstance(media, Video) else "audio"
        line = self._lines[kind]
        if media.kind == "extradata":
            self._open(line, kind, media)
        elif media.kind == "packet":
            return self._packet(line, kind, media)
        else:
            self.ignored += media.kind == "other"
        return None

    def _open(self, line: _Line, kind: Kind, media: Video | Audio) -> None:
        extradata, track = media.data, line.track
        if not extradata:
            self.ignored += 1
        elif track is None or (track.codec, track.extradata) != (media.codec, extradata):
            line.track = self._track(kind, media, extradata)

    def _packet(self, line: _Line, kind: Kind, media: Video | Audio) -> Packet | None:
        track, data = line.track, media.data
        if track is None or track.codec != media.codec:
            if media.codec in _NEEDS_EXTRADATA:
                self.ignored += 1
                return None
            track = line.track = self._track(kind, media, b"")
        if not data:
            self.ignored += 1
            return None
        arrival = self._now()
        usable, was_earlier = line.repaired(media.dts, arrival), line.earlier
        if usable != media.dts:
            self._count_repair(kind, media.dts, usable)
            media = msgspec.structs.replace(media, dts=usable)
        dts, pts = line.placed(usable, media.pts)
        if line.earlier and not was_earlier:
            log.warning("%s: pictures are shown before their dts, which are taken as earlier from now on", self._name)
        return Packet(
            track,
            data,
            pts=pts,
            dts=dts,
            arrival=arrival,
            keyframe=media.keyframe if isinstance(media, Video) else True,
            shared=Shared(media) if (dts, pts) == (usable, media.pts) and _is_as_ours(media) else None,
        )

    def _count_repair(self, kind: Kind, came: int, usable: int) -> None:
        self.repaired += 1
        if self.repaired == 1:
            log.warning("%s: dts %d ms of %s is taken as %d; others are counted", self._name, came, kind, usable)

    def _track(self, kind: Kind, media: Video | Audio, extradata: bytes) -> Track:
        if kind == "video":
            size = {"h264": avc_size, "hevc": hevc_size}.get(media.codec)
            found = size(extradata) if size is not None else None
            width, height = found or (self._number("width"), self._number("height"))
            return Track(kind=kind, codec=media.codec, extradata=extradata, width=width, height=height)
        rate, channels = self._sound(media, extradata)
        return Track(kind=kind, codec=media.codec, extradata=extradata, rate=rate, channels=channels)

    def _sound(self, media: Video | Audio, extradata: bytes) -> tuple[int, int]:
        """Rate and channels: of the extradata, the metadata, or the header, which cannot say 48 kHz."""
        if media.codec == "aac" and (found := aac_format(extradata)) is not None:
            return found
        rate, channels = self._number("audiosamplerate"), self._number("audiochannels")
        if media.body[0] >> 4 != 9:  # a header of FLV's own
            rate = _RATES.get(media.codec) or rate or 44_100 >> 3 - (media.body[0] >> 2 & 3)
            channels = 1 + (media.body[0] & 1)
        elif media.codec == "opus":
            rate, channels = 48_000, channels or (extradata[9] if len(extradata) > 9 else 2)  # RFC 7845 5.1
        return rate, channels

    def _number(self, name: str) -> int:
        """A number of the metadata; 0 = none that makes sense."""
        value = self._metadata.get(name)
        return int(value) if isinstance(value, int | float) and 0 < value < _MOST else 0


def _is_as_ours(media: Video | Audio) -> bool:
    """Whether a body has the kind of header that `flv_extradata` gives the extradata of its codec."""
    classic = media.body[0] < 0x80 if isinstance(media, Video) else media.body[0] >> 4 != 9
    return classic if media.codec in ("h264", "aac") else not (classic and media.codec == "hevc")
