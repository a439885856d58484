"""Fragmented MP4: which bytes a player, a browser or a file gets for a stream's packets.

It decides which packets are in it, when they are on and for how long; it refuses to know how that is written (`boxes`),
when a fragment is cut and where it goes.

Theory of operation
-------------------
* An **init segment** says how the tracks are coded; every **fragment** (moof and mdat) brings samples with the decode
  time of its first, so any fragment that begins with a keyframe can follow any init segment of the same tracks.
* **Time** is counted in each track's own units: exact, no rounding, however long it lasts. Packets are moved by one
  shift, the same for both tracks up to half a unit, so that the first fragment starts at a time that the caller says.
* **The last sample of a track** is held back as *open* until the next packet shows how long it is: so `cut()` makes
  fragments that join without gaps. A player that cannot wait gets open samples too (`cut(hold=False)`). Their length is
  the packet's own or, where it says none, a guess: that of the last one, for a picture twice that. Too
  long is harmless, since the next fragment states its own time; but Media Source Extensions throw pictures away, up to
  the next keyframe, when one comes later than twice the announced length of the last ("coded frame processing", 6).
* **Sound that stops**: players show no picture where a track that they were told of has nothing. So when pictures have
  come for SILENT seconds, and no sound, its track goes on with packets of silence, as far as the picture had come that
  long ago; what comes after all where silence was given is left out. What stalls with the line has not stopped. A
  codec of which no silence is known has a gap.
* **A picture that stops** while sound goes on (a camera is off, its microphone is not): nor do players let sound be
  heard where they have no picture. So those who play as it comes call `hold_picture()`: the last picture lasts longer,
  and where its length was given already, the last keyframe is shown once more. Nothing decodes what refers to pictures
  from before that, so an Opening leaves pictures out up to the next keyframe. Slides are pictures that have not
  stopped, so all that begins ALONE seconds late. A recording needs none of it: its last picture may become longer.
* **The end**, or a picture that has stopped: `finish()` gives all that waits, and no guess is needed.
* **Broken time**: a decode time that does not grow is moved behind the last one. A jump (back, or more than MAX_GAP
  ahead of both tracks) is taken out: what follows joins on, behind as long a pause as its track had while
  the other one went on: arrivals tell. Sound and picture jump at different packets, so two shifts are kept, and every
  packet takes the one that brings it nearest to there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Final, NamedTuple

from engine import bitstream
from engine.boxes import Run, Sample, fragment, time_scale
from engine.errors import SinkRejected
from engine.packet import Kind, Packet, Refused, Track
from engine.timebase import SECOND

OPENING: Final = Fraction(1, 2)  # seconds after its first packet until a stream has all tracks that it will have
SOON: Final = Fraction(1, 5)  # seconds that a keyframe of another track waits for the sound of its time, at most
SILENT: Final = Fraction(1, 2)  # seconds without sound until it has stopped; Opus that saves bits speaks every 0.4 s
ALONE: Final = Fraction(9, 2)  # seconds of sound alone until the picture has stopped; slides come every 4 s
MAX_GAP: Final = Fraction(10)  # seconds; a longer one is a jump
MAX_BACK: Final = Fraction(1, 2)  # seconds that decode times may go back without being a jump
_ALONE: Final = int(ALONE * SECOND)
_AWAY: Final = 2 * SECOND  # without a packet of either kind
_LIKELY: Final = Fraction(1, 40)  # seconds of a sample, when nothing is known yet

_I32: Final = 0x7FFFFFFF
_OPUS_HEAD: Final = 19

Tracks = tuple[Track, ...]  # one or two, the picture first


def is_muxable(track: Track) -> bool:
    """Whether a track can be in an MP4: H.264, HEVC, AAC or Opus with what opens its decoder."""
    if track.codec == "opus":
        return len(track.extradata) >= _OPUS_HEAD
    return bool(bitstream.codec_string(track.codec, track.extradata))


def mime(tracks: Sequence[Track]) -> str:
    """What MediaSource calls it: 'video/mp4; codecs="avc1.64001f, mp4a.40.2"'."""
    kind = "video" if any(track.kind == "video" for track in tracks) else "audio"
    names = ", ".join(bitstream.codec_string(track.codec, track.extradata) for track in tracks)
    return f'{kind}/mp4; codecs="{names}"'


class Opening:
    """Which tracks of a stream are muxed, as packets show them.

    `tracks` is () until both kinds have come or OPENING has passed since the first packet; then a new tuple when one is
    new, or coded in another way. Where there are pictures this waits for a keyframe, from which a player can begin
    anew: until then, packets of the new track are left out. So are packets of tracks that are not accepted, and what
    cannot begin: pictures before a keyframe, and sound from before the first picture.

    Where one film follows another (an advertisement) both tracks are other ones, and muxers put a picture before the
    sound of its time. So a keyframe of another track waits, and pictures behind it with it, until that sound has come,
    or SOON has passed; `rest` gives it at the end. No other keyframe waits: parts of HLS would come later for it.

    accepts  whether the sink can carry a packet's track, as this packet shows it.
    holds    whether the sink holds a picture that has stopped, which goes on at a keyframe then.
    """

    def __init__(
        self, accepts: Callable[[Packet], bool] = lambda packet: is_muxable(packet.track), *, holds: bool = False
    ) -> None:
        self.tracks: Tracks = ()
        self.refused = Refused()
        self.is_alone = False  # sound, for ALONE seconds and until the next keyframe; only where pictures are held
        self._accepts = accepts
        self._holds = holds
        self._shown: Packet | None = None  # the last picture
        self._heard: Packet | None = None  # the last sound that came
        self._held_back: list[Packet] = []  # a keyframe that waits for its sound, and what waits behind it
        self._came = self._since = 0  # arrival of the last packet, and since when there has been sound alone, ns
        self._last: dict[Kind, Track] = {}  # accepted
        self._waiting: list[Packet] = []
        self._needs_keyframe = True
        self._refused: int | None = None  # when the first packet that was not accepted came, ns

    def take(self, packet: Packet) -> list[Packet]:
        """The packets that can be muxed now, under `tracks` as it is afterwards; in order.

        Raises  SinkRejected: for OPENING seconds, none of the packets was accepted.
        """
        if not self._accepted(packet):
            return []
        if not self.tracks:
            return self._open(packet)
        if not packet.is_video:
            self._heard = packet
        if self._held_back:
            return self._take_behind(packet)
        if packet.starts_gop:
            self._held_back = [packet]
            return [] if self._awaits_sound(packet) else self.rest()
        if not packet.is_video and self.tracks[0].kind == "audio":
            self._change({"audio": packet.track})
        return self._begun([packet])

    def rest(self) -> list[Packet]:
        """What waits behind a keyframe, and the keyframe, as `take` gives it: its sound has come, or will not come."""
        packets, self._held_back = self._held_back, []
        if packets:
            self._change({**self._last, "video": packets[0].track})
        return self._begun(packets)

    def _awaits_sound(self, keyframe: Packet) -> bool:
        """Whether sound goes on, in the format it had, that will soon have come as far, or jump back as that did."""
        shown, sound = self._shown, self._heard
        if shown is None or sound is None or len(self.tracks) < 2 or _same(keyframe.track, self.tracks[0]):
            return False
        has_jumped = seconds(shown) - seconds(keyframe) > MAX_BACK
        is_near = 0 < keyframe.pts_ns - sound.dts_ns <= SOON * SECOND
        goes_on = _same(sound.track, self.tracks[1]) and keyframe.arrival - sound.arrival < SOON * SECOND
        return goes_on and (is_near or has_jumped)

    def _take_behind(self, packet: Packet) -> list[Packet]:
        """Takes what comes while a keyframe waits. Sound from before it goes first; another track waits anew."""
        keyframe = self._held_back[0]
        if packet.starts_gop and not _same(packet.track, keyframe.track):
            begun, self._held_back = self.rest(), [packet]
            return begun
        is_over = packet.arrival - keyframe.arrival >= SOON * SECOND
        is_before = packet.dts_ns < keyframe.pts_ns and _same(packet.track, self.tracks[1])
        if not packet.is_video and is_before and not is_over:
            return self._begun([packet])
        self._held_back.append(packet)
        return self.rest() if is_over or not packet.is_video else []

    def _change(self, tracks: Mapping[Kind, Track]) -> None:
        """Other tracks, unless the same decoders go on with them."""
        changed = _ordered(tracks)
        if len(changed) != len(self.tracks) or not all(map(_same, self.tracks, changed)):
            self.tracks = changed

    def _accepted(self, packet: Packet) -> bool:
        if packet.track is self._last.get(packet.track.kind):
            return True
        if self._accepts(packet):
            self._last[packet.track.kind] = packet.track
            self.refused.pop(packet.track.kind, None)
            return True
        if self._refused is None:
            self._refused = packet.arrival
        what = self.refused[packet.track.kind] = f"{packet.track.kind} in {packet.track.codec}"
        if not self.tracks and not self._waiting and packet.arrival - self._refused > OPENING * SECOND:
            raise SinkRejected(f"{what} cannot be sent", where=packet.track.codec)
        return False

    def _open(self, packet: Packet) -> list[Packet]:
        """Waits until the tracks are known, and begins with the first picture."""
        self._waiting.append(packet)
        of = {each.track.kind: each.track for each in self._waiting}
        if len(of) < 2 and packet.arrival - self._waiting[0].arrival < OPENING * SECOND:
            return []
        packets, self._waiting = self._waiting, []
        if "video" in of:
            start = next((n for n, each in enumerate(packets) if each.starts_gop), len(packets))
            early = [each for each in packets[:start] if each.track.kind == "audio"]
            packets = packets[start:]
            if not packets:
                return []
            packets = [each for each in early if seconds(each) >= seconds(packets[0])] + packets
        self.tracks = _ordered(of)
        return self._begun(packets)

    def _begun(self, packets: list[Packet]) -> list[Packet]:
        begun = []
        for packet in packets:
            known = any(_same(track, packet.track) for track in self.tracks)
            if packet.is_video:
                self._needs_keyframe = not known or (self._needs_keyframe and not packet.starts_gop)
            if known and not (packet.is_video and self._needs_keyframe):
                begun.append(packet)
                self._see(packet)
        return begun

    def _see(self, packet: Packet) -> None:
        """Finds sound alone: that has gone on so long, since a picture, or since both were away."""
        if packet.is_video or packet.arrival - self._came >= _AWAY:
            self._since = packet.arrival
        self._came = packet.arrival
        if packet.is_video:
            self._shown, self.is_alone = packet, False
            return
        is_new = self._holds and not self.is_alone and packet.arrival - self._since >= _ALONE
        if is_new and self._shown is not None and _is_behind(packet, self._shown):
            self.is_alone = self._needs_keyframe = True


def seconds(packet: Packet) -> Fraction:
    """When a packet is decoded, on its publisher's clock."""
    return packet.dts * packet.track.time_base


def _is_behind(sound: Packet, shown: Packet) -> bool:
    """Whether sound came, and is heard, ALONE seconds after a picture: what stalls with the line has not stopped."""
    late = ALONE + shown.duration * shown.track.time_base
    return sound.arrival - shown.arrival >= late * SECOND and abs(seconds(sound) - seconds(shown)) >= late


def _same(one: Track | None, other: Track) -> bool:
    """Whether a decoder of one decodes the other."""
    return one is other or (one is not None and _config(one) == _config(other))


def _config(track: Track) -> tuple[object, ...]:
    return track.codec, track.extradata, track.time_base, track.look


def _ordered(tracks: Mapping[Kind, Track]) -> Tracks:
    kinds: tuple[Kind, ...] = ("video", "audio")
    return tuple(tracks[kind] for kind in kinds if kind in tracks)


class Fragment(NamedTuple):
    """A moof and its mdat.

    start, stop  decode times in s, half-open, of its pictures; of its sound where it has none.
    keyframe     whether a player can begin with it.
    """

    data: bytes
    start: Fraction
    stop: Fraction
    keyframe: bool


class _Lane:
    """The samples of one track that wait for a fragment, in units of its time scale."""

    def __init__(self, number: int, track: Track) -> None:
        self.number, self.track = number, track
        self.scale, self._factor = time_scale(track.time_base)
        self.closed: list[Sample] = []
        self.shifts = [0]  # what may be added to its packets' times, the newest last
        self.shift = 0  # the one that the last packet took
        self.zero = 0  # the dts that becomes decode time 0
        self._open: Sample | None = None  # its duration is what its packet says, 0 = it does not
        self._taken: int | None = None  # end of what was taken
        self._last: int | None = None  # dts
        self._came: tuple[int, int] | None = None  # dts, and arrival in ns, of the last packet; silence does not come
        self._length = self.units(_LIKELY)  # between the last two
        self._back, self._gap = self.units(MAX_BACK), self.units(MAX_GAP)
        self._silence = bitstream.silence(track.codec, track.extradata)
        self._heard: int | None = None  # until when the last packet lasts, as far as it says so; silence is not heard
        self.is_silent = False  # what was pushed last was silence …
        self._hushed = 0  # … from here on
        self._keyframe: Sample | None = None  # the last one, of pictures
        self.is_held = False  # it was shown once more since
        self._paused: int | None = None  # dts of the last one before that, until others are later than what was held

    def units(self, t: Fraction) -> int:
        """A time in units, rounded."""
        return round(t * self.scale)

    def fits(self, packet: Packet, *, late: int = 0) -> bool:
        """Whether a packet can follow, by the shift taken.

        late  how far another track is ahead of this one: this one has paused. What was held meanwhile is no reason not
              to be decoded before it: encoders that reorder pictures stamp the first ones behind a pause so.
        """
        if self._last is None:
            return True
        first = self._last if self._paused is None else self._paused
        return first - self._back <= self.when(packet) <= self._last + self._gap + late

    @property
    def now(self) -> Fraction:
        """When the last packet is decoded, in s."""
        return Fraction(self._last or 0, self.scale)

    def joining(self, packet: Packet, furthest: Fraction) -> Fraction:
        """The shift, in s, by which a packet is as much later than the last one as it came later, or follows at once.

        furthest  when the last packet of all tracks is decoded, in s: it is no later than that. What stalled together
                  was not away. A track of which only silence was given is there.
        """
        if self._came is not None:
            dts, arrival = self._came
            furthest = min(furthest, Fraction(dts, self.scale) + Fraction(packet.arrival - arrival, SECOND))
        return max(Fraction((self._last or 0) + self._length, self.scale), furthest) - seconds(packet)

    def choose(self, t: Fraction) -> None:
        """Takes the shift nearest to t, in s; the first packet takes the newest one."""
        near = self.units(t)
        self.shift = self.shifts[-1] if self._last is None else min(self.shifts, key=lambda shift: abs(shift - near))

    def when(self, packet: Packet) -> int:
        """When a packet is decoded, by the shift taken."""
        return packet.dts * self._factor + self.shift

    def shown(self, packet: Packet) -> int:
        """When a picture is shown, as a time until which to hold the one before it."""
        return packet.pts * self._factor + self.shift - self._behind

    def push(self, packet: Packet) -> None:
        """Closes the open sample; the packet is the next one."""
        dts, pts = self.when(packet), packet.pts * self._factor + self.shift
        data = bitstream.spliced(self.track.codec, packet.data) if self.is_held else packet.data
        if self._last is not None and dts > self._last:
            self._paused = None
        self._push(Sample(data, dts, pts - dts, packet.keyframe, packet.duration * self._factor))
        self._came = self._last or 0, packet.arrival
        self._heard = (self._last or 0) + min(packet.duration * self._factor, self.units(SILENT))
        self.is_silent = self.is_held = False
        if packet.is_video and packet.keyframe:
            self._keyframe = self._open

    def is_late(self, packet: Packet) -> bool:
        """Whether silence was given in its place."""
        times = (packet.dts * self._factor + shift for shift in self.shifts)
        return self.is_silent and any(self._hushed <= t <= (self._last or 0) for t in times)

    def fill(self, until: int) -> None:
        """Silence, as whole packets, up to `until` at most; a longer gap than MAX_GAP stays one."""
        if self._silence is None:
            return
        data, length = self._silence[0], self._silence[1] * self.scale
        start = until - length if self._last is None else self._last + length
        if self._heard is not None:
            start = max(start, Fraction(self._heard))
        for n in range(int((until - start) / length) if until - start <= self._gap else 0):
            self._hushed = self._hushed if self.is_silent else round(start)
            self._push(Sample(data, round(start + n * length), 0, keyframe=True, duration=round(length)))
            self.is_silent = True

    def _push(self, sample: Sample) -> None:
        dts = sample.dts
        if self._last is not None:
            dts = max(dts, self._last + 1)
            if dts - self._last <= self.scale:  # not a gap
                self._length = dts - self._last
            self._close(dts - self._last)
        composition = max(-_I32, min(_I32, sample.composition + sample.dts - dts))
        self._open = sample._replace(dts=dts, composition=composition)
        self._last = dts

    @property
    def _behind(self) -> int:
        """How long after it is decoded the last keyframe is shown, as long as that is usual."""
        return 0 if self._keyframe is None else max(0, min(self._back, self._keyframe.composition))

    def close(self) -> None:
        """The open sample becomes as long as its packet says, or as is likely."""
        if self._open is not None:
            self._close(self._open.duration or self._length * (2 if self.track.kind == "video" else 1))

    def finish(self, until: int) -> None:
        """The open sample lasts until `until`, where that is SILENT seconds or more, or as long as is usual.

        So does a picture that is held.
        """
        if self._open is not None:
            own, rest = self._open.duration or self._length, until - self._open.dts
            self._close(rest if rest >= self.units(SILENT) else own)
        elif self.is_held:
            self.hold(until)

    def hold(self, until: int, *, ahead: int = 0) -> None:
        """The last keyframe is shown once more, from where samples end up to `until`, and for as long again as `ahead`.

        Nothing where samples last until then.
        """
        keyframe, end = self._keyframe, self._end
        if keyframe is not None and end is not None and end < until:
            data = bitstream.spliced(self.track.codec, keyframe.data)
            duration = min(_I32, until + ahead - end)
            self.closed.append(Sample(data, end, self._behind, keyframe=True, duration=duration))
            self._paused = self._last if self._paused is None else self._paused
            self._last, self.is_held = end, True

    def _close(self, duration: int) -> None:
        if self._open is not None:
            self.closed.append(self._open._replace(duration=min(_I32, duration)))
            self._open = None

    @property
    def _end(self) -> int | None:
        """Until when all closed samples last, those that were taken too."""
        return self.closed[-1].dts + self.closed[-1].duration if self.closed else self._taken

    @property
    def is_open(self) -> bool:
        """Whether the last sample's length is not known yet."""
        return self._open is not None

    @property
    def first(self) -> Fraction | None:
        """When the first sample that waits is decoded."""
        sample = self.closed[0] if self.closed else self._open
        return None if sample is None else Fraction(sample.dts, self.scale)

    @property
    def span(self) -> Fraction:
        """How long all closed samples are, in s."""
        last = self.closed[-1] if self.closed else None
        return Fraction(0) if last is None else Fraction(last.dts + last.duration - self.closed[0].dts, self.scale)

    def take(self) -> list[Sample]:
        """The closed samples; those from before zero are lost.

        A picture that comes later than the one before it seemed to last is decoded at once and shown when it should be:
        browsers drop all pictures up to the next keyframe where decode times have a hole.
        """
        samples, self.closed = self.closed, []
        if samples and samples[0].dts < self.zero:
            samples = [each for each in samples if each.dts >= self.zero]
        if not samples:
            return samples
        late = 0 if self._taken is None else samples[0].dts - self._taken
        first = samples[0]
        if 0 < late <= min(self._gap, _I32 - first.composition, _I32 - first.duration) and self.track.kind == "video":
            samples[0] = first._replace(
                dts=first.dts - late, composition=first.composition + late, duration=first.duration + late
            )
        self._taken = samples[-1].dts + samples[-1].duration
        return samples


class Fragmenter:
    """Packets of some tracks → fragments. Decode times begin with `start`, and never go back.

    tracks  one or two, as `Opening` tells them; packets of `push` are theirs.
    start   s, to go on where another one ended.
    """

    def __init__(self, tracks: Sequence[Track], *, start: Fraction = Fraction(0)) -> None:
        self._start = start
        self._lanes = {track.kind: _Lane(number, track) for number, track in enumerate(tracks, 1)}
        self._leading = self._lanes[tracks[0].kind]
        self._shown = deque[tuple[int, Fraction]]()  # arrival and time, in s, of the pictures since the last sound
        self._arrival = 0  # of the last picture, ns
        self._stalled = 0  # for how long the line had stalled until then, which does not count, ns
        self._number = 0

    def push(self, packet: Packet) -> None:
        """Takes the next packet of one of the tracks."""
        lane = self._lanes[packet.track.kind]
        if lane.is_late(packet):
            self._shown.clear()
            return
        if len(lane.shifts) > 1:
            lane.choose(lane.joining(packet, self._now))
        if not lane.fits(packet) and not lane.fits(packet, late=lane.units(self._now - lane.now)):
            self._shift(lane.joining(packet, self._now))
            lane.shift = lane.shifts[-1]
        if lane.is_silent:
            lane.fill(lane.when(packet))
        if lane.is_held:
            lane.hold(lane.shown(packet))
        lane.push(packet)
        self._hush(packet)
        if len(lane.shifts) > 1 and all(each.shift == each.shifts[-1] for each in self._lanes.values()):
            for each in self._lanes.values():
                del each.shifts[:-1]

    def _hush(self, packet: Packet) -> None:
        """Sound that has stopped goes on in silence."""
        if not packet.is_video:
            self._shown.clear()
            return
        now, until = self._leading.now, None
        if self._shown:
            stalled = packet.arrival - self._arrival - int((now - self._shown[-1][1]) * SECOND)
            self._stalled += stalled if stalled > SILENT * SECOND / 2 else 0
        self._arrival = packet.arrival
        while self._shown and packet.arrival - self._stalled - self._shown[0][0] >= SILENT * SECOND:
            _, until = self._shown.popleft()
        self._shown.append((packet.arrival - self._stalled, now))
        if until is not None and "audio" in self._lanes:
            sound = self._lanes["audio"]
            sound.fill(sound.units(until))

    def _shift(self, t: Fraction) -> None:
        for lane in self._lanes.values():
            lane.shifts = [lane.shift, lane.units(t)]

    @property
    def _now(self) -> Fraction:
        return max(lane.now for lane in self._lanes.values())

    @property
    def waiting(self) -> Fraction:
        """How much of the first track `cut` would give, in s."""
        return self._leading.span

    @property
    def longest(self) -> Fraction:
        """As `waiting`, of the track of which most waits: the first one may have paused."""
        return max(lane.span for lane in self._lanes.values())

    @property
    def picture_ends(self) -> bool:
        """Whether the last picture's length was given already: only once more can it stay."""
        return not self._leading.is_open

    def hold_picture(self, *, ahead: Fraction = Fraction(0)) -> None:
        """The last picture stays for as long as there is sound; `cut` gives it.

        ahead  s for which it stays besides, where it had come to its end.
        """
        lane = self._leading
        until = lane.units(self._now)
        if lane.is_open:
            lane.finish(until + lane.units(ahead))
        else:
            lane.hold(until, ahead=lane.units(ahead))

    def finish(self) -> Fragment | None:
        """All samples, as nothing follows soon; None when there are none.

        The last picture stays as long as there is sound, where that has gone on for SILENT seconds or more.
        """
        for lane in self._lanes.values():
            lane.finish(lane.units(self._now))
        return self.cut()

    def cut(self, *, hold: bool = True) -> Fragment | None:
        """All samples whose length is known, and without `hold` the others too; None when there are none."""
        lanes = list(self._lanes.values())
        if not hold:
            for lane in lanes:
                lane.close()
        if not any(lane.closed for lane in lanes):
            return None
        if not self._number:
            zero = min(lane.first for lane in lanes if lane.first is not None) - self._start
            for lane in lanes:
                lane.zero = lane.units(zero)
        taken = [(lane, samples) for lane in lanes if (samples := lane.take())]
        if not taken:
            return None
        self._number += 1
        runs = [Run(lane.number, lane.track.kind, samples[0].dts - lane.zero, samples) for lane, samples in taken]
        lane, samples = taken[0]
        return Fragment(
            data=fragment(self._number, runs),
            start=Fraction(samples[0].dts - lane.zero, lane.scale),
            stop=Fraction(samples[-1].dts + samples[-1].duration - lane.zero, lane.scale),
            keyframe=lane is self._leading and samples[0].keyframe,
        )
