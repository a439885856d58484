"""Feed: what somebody who receives FLV over RTMP is told before and between packets: metadata and extradata.

It decides when a decoder must be opened anew and what cannot be told in FLV; it refuses to know who is told, and how.
"""

from __future__ import annotations

from collections.abc import Iterable

from engine.errors import SinkRejected
from engine.packet import Kind, Packet, Refused, Track, flv_extradata
from engine.rtmp import Metadata, flv
from engine.rtmp.flv import Audio, Video
from engine.rtmp.session import Shared

Said = Metadata | Video | Audio | Shared


class Feed:
    """Follows the packets of one stream for one receiver."""

    def __init__(self) -> None:
        self.refused = Refused()  # what FLV cannot carry
        self._tracks: dict[Kind, Track] = {}

    def tell(self, packet: Packet, present: Iterable[Track | None] = ()) -> list[Said]:
        """What to send for a packet: itself, after what opens its decoder if that is new; [] for a foreign codec.

        present  the tracks that the stream has now; asked at the first packet, so that all are announced at once.
        """
        track = packet.track
        said = [] if self._tracks.get(track.kind) is track else self._open(packet, present)
        if track.kind not in self.refused:
            try:
                said.append(packet.shared)
            except SinkRejected as err:
                self.refused[track.kind] = str(err)
        return said

    def _open(self, packet: Packet, present: Iterable[Track | None]) -> list[Said]:
        fresh = {track.kind: track for track in present if track is not None} if not self._tracks else {}
        fresh[packet.track.kind] = packet.track
        self._tracks |= fresh
        said: list[Said] = []
        for kind, track in fresh.items():
            self.refused.pop(kind, None)
            try:
                first = packet if track is packet.track else Packet(track, b"", pts=0, dts=0, arrival=0)
                said += _opening(first, packet.dts_ms)
            except SinkRejected as err:
                self.refused[kind] = str(err)
        if fresh.keys() <= self.refused.keys():
            return []
        return [metadata(track for kind, track in self._tracks.items() if kind not in self.refused), *said]


def _opening(packet: Packet, dts_ms: int) -> list[Said]:
    """What opens the decoder of a packet. Raises SinkRejected for a packet that FLV cannot carry."""
    if packet.track.codec not in flv.RELAYED:
        _ = packet.shared
    return [flv_extradata(packet.track, dts_ms)] if packet.track.extradata else []


def metadata(tracks: Iterable[Track]) -> Metadata:
    """onMetaData for a stream of these tracks (FLV 10.1 E.5); what is not known is left out.

    Its time is 0, whenever it is sent: FFmpeg takes one with another time for subtitles, and waits for more of them.
    """
    fields: dict[str, object] = {"encoder": "Mashtun"}
    for track in tracks:
        fields[f"{track.kind}codecid"] = flv.codec_id(track.codec)
        if track.kind == "video":
            fields |= {"width": track.width, "height": track.height}
        else:
            fields |= {"audiosamplerate": track.rate, "audiochannels": track.channels}
            fields |= {"stereo": track.channels == 2} if track.channels else {}
    return Metadata({name: value for name, value in fields.items() if value is False or value != 0})
