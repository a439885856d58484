"""A stream for one client that plays it as it comes: HTTP-FLV, and fragmented MP4 over a WebSocket.

It decides which bytes a client gets next; it refuses to know how they are sent. A client that is slow loses packets in
the stream's own queue, up to a keyframe: time goes on there with a gap.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import deque
from fractions import Fraction
from typing import ClassVar, Final, Self

import trio

from engine import boxes, fmp4
from engine.errors import SinkRejected
from engine.packet import Kind, Packet, Track, flv_extradata
from engine.rtmp import flv
from engine.stream import END, PORTION, Item, Reader

log = logging.getLogger(__name__)

HELD: Final = Fraction(1)  # s for which a picture that has stopped is shown once more; players keep a few s of what was


class Flow(ABC):
    """Bytes made of a reader's packets. A context manager, which closes the reader."""

    form: ClassVar[str]  # for people

    def __init__(self, reader: Reader, opening: fmp4.Opening) -> None:
        # given
        self._reader = reader
        self._opening = opening
        # owned by receive()
        self._ready = deque[bytes]()
        self._ended = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()

    @property
    def left_out(self) -> str:
        """What of the stream is not in it; "" = nothing. A picture that has stopped is not, though its keyframe is."""
        stopped = ["a picture for now"] if self._opening.is_alone else []
        return "; ".join([*self._opening.refused.values(), *stopped])

    async def receive(self) -> bytes:
        """What is ready, in portions; waits for it. The first call gives how the stream begins, and its first packets.

        Raises  trio.EndOfChannel when the publisher has gone; SinkRejected: no codec of the stream can be sent.
        """
        while not self._ready:
            if self._ended:
                raise trio.EndOfChannel
            self._take(await self._reader.receive(most=PORTION))
        return self._ready.popleft()

    def _take(self, items: list[Item]) -> None:
        for item in items:
            self._ended = item is END
            for packet in self._opening.rest() if item is END else self._opening.take(item):
                self._write(packet)
            if self._ended:
                break
        for what in self._opening.refused.report():
            log.warning("%s: %s is left out for a player of %s", self._reader.stream.name, what, self.form)
        self._flush()

    @abstractmethod
    def _write(self, packet: Packet) -> None:
        """Takes a packet that can be sent."""

    @abstractmethod
    def _flush(self) -> None:
        """Puts what was made of the packets into _ready."""


class FlvFlow(Flow):
    """FLV: the file header, extradata of each track before its first packet and whenever it changes, a tag a packet."""

    form = "FLV"

    def __init__(self, reader: Reader) -> None:
        super().__init__(reader, fmp4.Opening(_has_flv_body))
        self._parts: list[bytes] = []
        self._told: dict[Kind, Track] = {}

    def _write(self, packet: Packet) -> None:
        if not self._told:
            kinds = [track.kind for track in self._opening.tracks]
            self._parts.append(flv.header(audio="audio" in kinds, video="video" in kinds))
        track = packet.track
        if self._told.get(track.kind) is not track:
            self._told[track.kind] = track
            if track.extradata:
                self._tag(flv_extradata(track, packet.dts_ms))
        self._tag(packet.shared.media)

    def _tag(self, media: flv.Video | flv.Audio) -> None:
        self._parts.append(flv.tag(media.tag_kind, media.dts, media.body))

    def _flush(self) -> None:
        if self._parts:
            self._ready.append(b"".join(self._parts))
            self._parts = []


def _has_flv_body(packet: Packet) -> bool:
    try:
        return packet.shared is not None
    except SinkRejected:
        return False


class Fmp4Flow(Flow):
    """Fragmented MP4: an init segment, then one fragment of all that came since the last call.

    When the tracks change, the bytes of a call begin with a new init segment ("ftyp" at 4), time goes on, and `mime` is
    another one: MediaSource wants `changeType` before it. Otherwise an init segment is only in the first call.
    """

    form = "MP4"

    def __init__(self, reader: Reader) -> None:
        super().__init__(reader, fmp4.Opening(holds=True))
        self.mime = ""  # what the bytes of the last call are: 'video/mp4; codecs="avc1.64001f, mp4a.40.2"'
        self._tracks: fmp4.Tracks = ()
        self._mimes = deque[str]()
        self._present = ""  # the mime of the tracks
        self._init = b""
        self._fragmenter: fmp4.Fragmenter | None = None
        self._stop = Fraction(0)

    async def receive(self) -> bytes:
        """As Flow.receive."""
        data = await super().receive()
        self.mime = self._mimes.popleft()
        return data

    def _write(self, packet: Packet) -> None:
        if self._opening.tracks is not self._tracks:
            self._flush()
            self._tracks = self._opening.tracks
            self._init, self._present = boxes.init_segment(self._tracks), fmp4.mime(self._tracks)
            self._fragmenter = fmp4.Fragmenter(self._tracks, start=self._stop)
        assert self._fragmenter is not None
        self._fragmenter.push(packet)
        if self._opening.is_alone:
            self._fragmenter.hold_picture(ahead=HELD)

    def _flush(self) -> None:
        fragment = None if self._fragmenter is None else self._fragmenter.cut(hold=False)
        if fragment is not None:
            self._stop = max(self._stop, fragment.stop)
            self._ready.append(self._init + fragment.data)
            self._mimes.append(self._present)
            self._init = b""
