"""Anything libav opens, file or URL: demuxed, decoded and stamped with media time, one bounded step at a time.

It decides what media time is and what a broken file does; it refuses to know who shows the frames and when. All of it
is for worker threads: libav objects are touched by one thread at a time. `reader.py` calls the steps.

Theory of operation
-------------------
* Media time 0 is where the container starts; a start before 0 is an encoder's priming and cut off, but where the clock
  may wrap. One offset holds for picture and sound, so that lip sync inside a source survives.
* Picture and sound come interleaved. A step decodes what is wanted; packets of the other kind wait undecoded. When they
  wait for longer than `MAX_APART` or `MAX_WAITING_BYTES`, the kind that does not come is said to be absent up to the
  middle of them: a sound that starts late, or ended long ago, neither stops the picture nor fills the memory. An MP4's
  index tells then whether the picture is over: its last one may be wanted.
* A kind that nobody wants is discarded in the demuxer.
* A seek goes to a keyframe at or before the time, and before that by `PREROLL` where sound is wanted: most codecs need
  a few packets to get going. Whether the place is right is seen from the packets there; formats without an index land
  anywhere. And it is seen from the first picture, which is decoded at once: from a keyframe that is no more than a
  recovery point of H.264 on, pictures are mended bit by bit, and only whole ones are given. In Ogg libav reckons the
  stamps of the first page of sound from its last packet, as if all its packets were as long. Where the place is wrong
  it tries further back, and at last opens the source again and reads from its start, as it does for time 0 (some
  formats lose their first packets in a seek), where it cannot seek, where time has jumped, and in a WAV that is not
  PCM.
* A local file whose time may jump may be several joined end to end, and libav takes the last part's end for its end.
  What is beyond that is looked for from the start. So is everything once a jump has been read across, and from the
  first seek on where the clock of an MPEG-TS is seen to go back.
* Sound whose stamps are coarser than its samples is decoded at its start before the first seek that wants it, so that
  it is found to the sample later: as far as it begins within the first packets.
* Where an MP4's parameter sets change (two films joined), its packets name the new ones; so the first packet after a
  seek is given those that the demuxer named last, and which these are is found out before the first seek. An FLV names
  them only where it is read through: one that is known to have others is read from its start. It is the same with the
  palette of a film in AVI or MOV, but that in these the first packet has it.
* libav passes over segments of a playlist that cannot be fetched, and says then that this is the end. So a film in HLS
  that is read from its start, picture and sound, and ends clearly before the length that its playlist states, has
  broken off (`tracks.falls_short`). Behind a seek, which may lead into another part's time, nobody can tell.
* A packet that a decoder refuses is counted, and the next one goes on; where no picture or no sound comes any more, the
  source broke off there. When the demuxer fails, what came before is still given; the batch in which a kind comes to
  its end has the error, which names the time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from functools import cached_property
from itertools import chain, islice
from typing import Any, Final, Literal, TypeAlias

import av
import msgspec
from av.container import InputContainer
from av.stream import Discard

from engine.config import Settings
from engine.errors import SourceError, SourceMalformed, SourceUnavailable, SourceUnsupported
from engine.frame import AudioFrame
from engine.plan import PictureSize
from engine.sources.container import (
    DEMUX_ERRORS,
    LIBAV_ERRORS,
    AvPacket,
    best_stream,
    is_flv,
    open_container,
    streams_of,
)
from engine.sources.tracks import (
    MAX_BACK,
    NEW_SETS,
    PALETTE,
    Picture,
    PictureTrack,
    SoundTrack,
    Straightener,
    end_with_stream,
    falls_short,
    may_jump,
    zero_of,
)
from engine.sources.transport import goes_back
from engine.spec import AudioFormat
from engine.timebase import sample_at, seconds

MAX_WAITING_BYTES: Final = 256 << 20
MAX_APART: Final = Fraction(20)  # files interleave by far less
SOUND_TAIL: Final = Fraction(1, 4)  # sound this little longer than the picture is an encoder's padding
PREROLL: Final = Fraction(1, 4)  # Opus asks for 80 ms; two blocks of AAC at 8 kHz are 1/4 s
SOUND_A_STEP: Final = 1  # seconds at most; a hop to a thread costs more than decoding half of it
ONLY_SOUND_A_STEP: Final = 4  # where no picture waits meanwhile
BROKEN: Final = Fraction(1)  # seconds of which nothing can be decoded; less is a damaged end
# Formats of sound without frames of their own: what stands behind it (tags, with pictures in them) looks like packets.
# Their length is nowhere stated but in some MP3s; libav guesses it from the size and the first packets' bit rate.
_BARE: Final = ("mp3", "aac", "ac3", "eac3", "dts", "truehd", "mlp")
_Told: TypeAlias = Literal["new_extradata", "palette"]
_TOLD: Final[tuple[_Told, ...]] = (NEW_SETS, PALETTE)
_BACKS: Final = (0, 2, 12, 60)  # seconds; GOPs are 2 s in streams, 10 s in files of common encoders
_PACKETS_A_STEP: Final = 1024
_FIRST_PACKETS: Final = 32  # sound that starts with the picture is among them, and libav has read them when it opened


class Batch(msgspec.Struct):
    """What one step gave.

    pictures  as (start, stop, frame); sounds as (first sample, frame).
    *_end     no more of that kind will come.
    no_*_before  none will come before that media time, that sample; None = nothing is known.
    error     why the source broke off.
    """

    pictures: list[Picture] = []
    sounds: list[tuple[int, AudioFrame]] = []
    pictures_end: bool = False
    sounds_end: bool = False
    no_picture_before: Fraction | None = None
    no_sound_before: int | None = None
    error: SourceError | None = None


class MediaFile:
    """One opened file or URL. Every method blocks for at most one bounded step; call them from one thread at a time."""

    def __init__(self, guid: str, url: str, *, sound: AudioFormat, settings: Settings, threads: int = 1) -> None:
        """Opens and probes within the deadline. Raises SourceUnavailable, SourceMalformed or SourceUnsupported."""
        self.guid = guid
        self._url = url
        self._wanted = sound
        self._settings = settings
        self._threads = threads
        self._eased = False
        self._looking = self._listening = True
        self._has_jumped = False  # time, somewhere that was read across: the container's own leads nowhere any more
        self._is_recoloured = False  # whether its palette was another one somewhere
        self._has_learnt = False  # where blocks of sound lie, as far as the first ones tell
        self._target: Fraction | None = None  # where the next step starts, after a seek
        self._last_stop = 0  # of the picture, in its time base, where the last packets were looked at
        self._sound_stop: Fraction | None = None  # media time, where sound of a bare format was read to its end
        self._open()

    def _open(self) -> None:
        # Files of these kinds say how large their pictures are; whether they can be seen through, the first one says.
        glance = self._url.lower().endswith((".mp4", ".m4v", ".mov", ".mkv"))
        self._container = open_container(self.guid, self._url, self._settings, glance=glance)
        try:
            self._choose_streams()
        except BaseException:
            self._container.close()
            raise

    def _choose_streams(self) -> None:
        container = self._container
        self._video: av.VideoStream | None = _choose(self.guid, container, "video")
        self._audio: av.AudioStream | None = _choose(self.guid, container, "audio", beside=self._video)
        if self._video is None and self._audio is None:
            raise SourceUnsupported(f'source "{self.guid}": no picture and no sound in it', where=self.guid)
        self._straightener = Straightener() if may_jump(container) else None
        self._zero = zero_of(container)
        self._picture: PictureTrack | None = None
        self._sound: SoundTrack | None = None
        if self._video is not None:
            self._picture = self._track_picture(self._video)
        if self._audio is not None:
            self._sound = SoundTrack(self._audio, self._wanted, zero=self._zero)
        self._used = [stream for stream in (self._video, self._audio) if stream is not None]
        self._discard()
        # Of each stream: the parameter sets and the palette that the demuxer named last.
        self._sets: dict[tuple[int, _Told], av.packet.PacketSideData] = {}
        self._begin()
        self._has_read = self._has_sought = False
        self._read_to = 0  # bytes: the furthest place of a packet that came since it was opened

    def _track_picture(self, video: av.VideoStream) -> PictureTrack:
        return PictureTrack(self.guid, video, zero=self._zero, threads=self._threads, eased=self._eased)

    def _begin(self) -> None:
        """Nothing has been read from here on."""
        self._waiting: dict[int, deque[AvPacket]] = {stream.index: deque() for stream in self._used}
        self._waiting_bytes = 0
        self._said = Fraction(0)  # nothing is absent again before what waits goes on by `MAX_APART` from here
        self._entered: set[int] = set()  # streams of which a packet has been read
        self._latest: dict[int, int | None] = {}  # of each stream, when its latest packet is decoded
        self._at_end = False
        self._failure: Exception | None = None  # of the demuxer, or of a kind of which nothing is decoded any more
        # When the packets are that a track refused, and gave nothing later: the first, the latest.
        self._refused: dict[PictureTrack | SoundTrack, list[Fraction]] = {}
        self._packets = self._container.demux(self._used)

    @property
    def picture_size(self) -> PictureSize | None:
        """Size as displayed, None when there is no picture."""
        return None if self._picture is None else self._picture.size

    @property
    def has_sound(self) -> bool:
        """Whether there is sound."""
        return self._sound is not None

    @property
    def endless(self) -> bool:
        """A file has an end."""
        return False

    @property
    def duration(self) -> Fraction | None:
        """The longer one of picture and sound, None when the container does not say."""
        lengths = [self._length(stream) for stream in (self._video, self._audio) if stream is not None]
        known = [length for length in lengths if length is not None]
        if len(known) == 2 and 0 < known[1] - known[0] <= SOUND_TAIL:
            return known[0]
        if len(known) == len(lengths):
            return max(known)
        if self._container.duration is not None and self._container.duration > 0:
            return Fraction(self._container.duration, av.time_base)
        return None

    def _length(self, stream: av.stream.Stream) -> Fraction | None:
        """When a stream ends, in media time."""
        if stream is self._audio and self._sound_stop is not None:
            return self._sound_stop
        if stream.duration is None or stream.time_base is None:
            return None
        stop = (stream.start_time or 0) + stream.duration
        if stream is self._video:
            stop = max(stop, self._last_stop)
        return max(Fraction(0), seconds(stop, stream.time_base) - self._zero)

    def look_at_end(self) -> None:
        """Reads what `duration` may be wrong without; to read on takes a seek.

        The last pictures of an MP4, and all packets of a bare format of which an end is in sight.
        """
        if self._sound is not None and self._container.format.name in _BARE and self._container.size > 0:
            self._sound_stop = self._end_of_sound(self._sound)
        elif self._video is not None and self._container.format.name.startswith("mov"):
            self._look_at_end_of_picture(self._video)

    def _end_of_sound(self, sound: SoundTrack) -> Fraction | None:
        """Media time; None where it breaks off, which whoever reads on will meet.

        Of all the packets only the last are decoded: some may be tags, and of some a part is padding.
        """
        self._has_read = True
        try:
            last = deque((packet for packet in self._packets if packet.size), maxlen=_PACKETS_A_STEP)
        except DEMUX_ERRORS:
            return None
        for packet in (*last, None):
            self._decode_sound(packet, Batch())
        return sound.reached or None

    def _look_at_end_of_picture(self, video: av.VideoStream) -> None:
        """An MP4 says how long its packets are apart as they are decoded. Pictures that are shown in another order, and
        seldom, as those of a screen that stands still, may come seconds later. One that comes before and lasts longer
        may be cut short by an edit list.
        """
        if video.duration is None:
            return
        stop = (video.start_time or 0) + video.duration
        with suppress(*DEMUX_ERRORS):
            self._container.seek(stop, stream=video)
            for packet in self._container.demux(video):
                if packet.pts is not None and packet.pts >= stop and not packet.is_discard:
                    self._last_stop = max(self._last_stop, packet.pts + (packet.duration or 0))

    def step(self, *, pictures: int | None, sounds: bool | None, start: Fraction) -> Batch:
        """Decodes on until `pictures` frames are there and, if sounds, a second of sound, or the end.

        Four seconds of sound, where no picture is wanted.
        0 or False means enough for now: packets of that kind wait. None means that nobody is interested: they are
        thrown away undecoded; a kind that is wanted again needs a seek.
        start  media time; a picture that is over before, but the last one of all, is neither converted nor returned.
        Raises SourceError when a source that has to be opened again is not there any more.
        """
        self._attend(looking=pictures is not None, listening=sounds is not None)
        batch = Batch([], [])
        if self._target is not None:
            target, self._target = self._target, None
            self._go_to(target, batch, start)
        sound_a_step = self._wanted.rate * (ONLY_SOUND_A_STEP if pictures is None else SOUND_A_STEP)
        heard = 0
        for _ in range(_PACKETS_A_STEP):
            more = len(batch.pictures) < (pictures or 0)
            need_picture = more and self._picture is not None and not self._picture.ended
            more = bool(sounds) and heard < sound_a_step
            need_sound = more and self._sound is not None and not self._sound.ended
            if not need_picture and not need_sound:
                break
            packet = self._next(need_picture=need_picture, need_sound=need_sound)
            if packet is not None and packet.stream is self._video:
                self._decode_picture(packet, batch, start)
            elif packet is not None:
                heard += self._decode_sound(packet, batch)
            elif self._at_end:
                self._drain(batch, start)
                break
            else:
                self._say_absent(batch, start)
                break
        batch.pictures_end = self._picture is None or self._picture.ended
        batch.sounds_end = self._sound is None or self._sound.ended
        if self._failure is not None and (batch.pictures_end or batch.sounds_end):
            batch.error = _broken(self.guid, self._position(), self._failure)
        return batch

    def ease(self) -> None:
        """Decodes pictures with less care, as is enough at half their size or less; before the first step."""
        self._eased = True
        if self._video is not None:
            self._picture = self._track_picture(self._video)

    def seek(self, t: Fraction) -> None:
        """The next step goes on from media time t."""
        self._target = t

    def close(self) -> None:
        """Closes the container; not while a step runs."""
        self._container.close()

    def _attend(self, *, looking: bool, listening: bool) -> None:
        if (looking, listening) == (self._looking, self._listening):
            return
        self._looking, self._listening = looking, listening
        self._discard()
        for stream in self._used:
            if not self._is_wanted(stream):
                self._waiting_bytes -= sum(packet.size for packet in self._waiting[stream.index])
                self._waiting[stream.index].clear()

    def _is_wanted(self, stream: av.stream.Stream) -> bool:
        return self._looking if stream is self._video else self._listening

    def _discard(self) -> None:
        for stream in self._container.streams:
            wanted = stream in self._used and self._is_wanted(stream)
            stream.discard = Discard.default if wanted else Discard.all

    def _go_to(self, t: Fraction, batch: Batch, start: Fraction) -> None:
        """Goes where everything that is wanted can be decoded from media time t on. Raises SourceError.

        What is decoded to see that is in the batch.
        """
        aim = t if self.duration is None else min(t, self.duration)
        if self._sound is not None and self._listening:
            aim -= PREROLL
        for back in _BACKS:
            if self._hides_places(t) or aim - back <= 0:
                break
            if self._lacks_places() and self._has_read and not self._has_learnt:
                self._reopen()
            if self._seek(aim - back) and self._has_landed(t):
                self._reset()
                if self._shows(t, batch, start):
                    return
                batch.pictures, batch.sounds = [], []
        if self._has_read:
            self._reopen()

    def _reopen(self) -> None:
        """Begins anew at the start. Raises SourceError."""
        self._container.close()
        self._open()

    def _hides_places(self, t: Fraction) -> bool:
        """Whether only reading from the start leads to media time t and what holds there.

        libav finds it in a WAV by the bytes per second in its head, which are often wrong where it is not PCM. And by
        now an FLV may have named other parameters than at its start, and an AVI another palette.
        """
        if self._has_jumped or self._is_recoloured or self._goes_back or self._is_beyond(t):
            return True
        if self._container.format.name == "wav":
            return not self._used[0].codec_context.name.startswith("pcm_")
        heads = {stream.index: bytes(stream.codec_context.extradata or b"") for stream in self._used}
        return is_flv(self._container) and any(bytes(sets) != heads[index] for (index, _), sets in self._sets.items())

    @cached_property
    def _goes_back(self) -> bool:
        """Whether it is a local MPEG-TS whose clock goes back, as far as that is seen without reading it."""
        if self._container.format.name != "mpegts" or not self._is_local:
            return False
        try:
            return goes_back(self._container.name.removeprefix("file:"))
        except OSError:  # who reads on finds out, and says so
            return False

    def _is_beyond(self, t: Fraction) -> bool:
        """Whether t lies beyond the duration of a local file that may go on there, behind a jump of time."""
        may_go_on = self._straightener is not None and self._is_local
        return may_go_on and self.duration is not None and t > self.duration

    @property
    def _is_local(self) -> bool:
        return self._container.name.startswith("file:")

    def _seek(self, t: Fraction) -> bool:
        stream = self._video if self._video is not None and self._looking else self._used[-1]
        self._packets = self._container.demux(self._used)
        with suppress(*DEMUX_ERRORS):
            # The read deadline runs from the last packet: from long ago, it would be over at once.
            first = self._tell_sets(next(self._packets))
            if not self._has_read:
                self._learn_places(first)
                self._learn_palette()
            if not self._has_read and self._container.format.name.startswith("mov"):
                self._container.seek(0, stream=stream)  # when it was opened, libav read on, and dropped what it named
                any(packet.stream is stream for packet in map(self._tell_sets, self._packets))
        self._has_read = True
        try:
            self._container.seek(int((t + self._zero) / (stream.time_base or 1)), stream=stream)
        except LIBAV_ERRORS:
            return False
        self._begin()
        self._has_sought = True
        if self._straightener is not None:
            self._straightener = Straightener()
        return True

    def _lacks_places(self) -> bool:
        """Whether a place of the sound that is wanted is not found to the sample yet."""
        return self._sound is not None and self._listening and not self._sound.finds_places

    def _learn_places(self, first: AvPacket) -> None:
        """Decodes the first sound of all, from the first packet on, where only that tells where later blocks lie."""
        for packet in chain([first], islice(map(self._tell_sets, self._packets), _FIRST_PACKETS)):
            if not self._lacks_places():
                return
            self._has_learnt = True
            if packet.stream is self._audio and self._sound is not None:
                self._sound.decode(packet)

    def _learn_palette(self) -> None:
        """Reads on to the first picture of all, which has it; what libav read when it was opened, a seek drops."""
        if self._video is not None and self._video.index not in self._entered:
            any(packet.stream is self._video for packet in islice(map(self._tell_sets, self._packets), _FIRST_PACKETS))

    def _has_landed(self, t: Fraction) -> bool:
        """Whether all that is wanted comes from media time t or before on, the picture from a keyframe on.

        In Ogg that is behind the first page of sound, whose stamps may be wrong: that page's packets are left out.
        """
        begins: dict[int, Fraction] = {}
        page: int | None = None  # where that one is
        wanted = [stream.index for stream in self._used if self._is_wanted(stream)]
        while len(begins) < len(wanted) and (packet := self._demux()) is not None:
            index, begin = packet.stream_index, _time(packet)
            if index not in wanted or (packet.stream is self._video and not packet.is_keyframe and index not in begins):
                continue
            if packet.stream is self._audio and self._container.format.name == "ogg" and page in (None, packet.pos):
                page = packet.pos
                continue
            if begin is None or self._waiting_bytes > MAX_WAITING_BYTES:
                return False
            self._put_by(packet)
            begins.setdefault(index, begin - self._zero)
            if begin - self._zero > t + MAX_BACK:  # a sound that is not here by now is absent here
                break
        first = begins.pop(self._video.index, None) if self._video is not None and self._looking else t
        in_time = first is not None and first <= t and not self._has_jumped
        if page is not None:  # sound there is, though it may be what was left out
            return in_time and any(begin <= t - PREROLL for begin in begins.values())
        return in_time and all(begin <= t or begin > t + MAX_BACK for begin in begins.values())

    def _shows(self, t: Fraction, batch: Batch, start: Fraction) -> bool:
        """Decodes on to the first picture. Whether it begins at media time t or before; true of what is damaged."""
        picture = self._picture
        if picture is None or not self._looking:
            return True
        for _ in range(_PACKETS_A_STEP):
            if picture.began is not None or picture in self._refused:
                break
            packet = self._next(need_picture=True, need_sound=False)
            if packet is None:
                break
            self._decode_picture(packet, batch, start)
        if self._at_end and picture.began is None:
            self._drain(batch, start)
        return picture in self._refused or (not self._at_end if picture.began is None else picture.began <= t)

    def _reset(self) -> None:
        for track in (self._picture, self._sound):
            if track is not None:
                track.reset()

    def _next(self, *, need_picture: bool, need_sound: bool) -> AvPacket | None:
        """The next packet of a kind that is needed; others wait. None at the end, and when too much waits."""
        for stream, need in ((self._video, need_picture), (self._audio, need_sound)):
            if stream is not None and need and (waiting := self._waiting[stream.index]):
                packet = waiting.popleft()
                self._waiting_bytes -= packet.size
                return packet
        while (read := self._demux()) is not None:
            if need_picture if read.stream is self._video else need_sound:
                return read
            if self._is_wanted(read.stream):
                self._put_by(read)
                if self._are_apart(self._waiting[read.stream_index]):
                    return None
        return None

    def _put_by(self, packet: AvPacket) -> None:
        self._waiting[packet.stream_index].append(packet)
        self._waiting_bytes += packet.size

    def _are_apart(self, waiting: deque[AvPacket]) -> bool:
        if self._waiting_bytes > MAX_WAITING_BYTES:
            return True
        first, last = _time(waiting[0]), _time(waiting[-1])
        return first is not None and last is not None and last - max(first, self._said) > MAX_APART

    def _say_absent(self, batch: Batch, start: Fraction) -> None:
        """What does not come is absent up to the middle of what waits for it; for ever where that has no times."""
        waiting = max(self._waiting.values(), key=len)
        track = self._sound if waiting[0].stream is self._video else self._picture
        first, last = _time(waiting[0]), _time(waiting[-1])
        if first is None or last is None:
            assert track is not None
            track.ended = True
            return
        if isinstance(track, PictureTrack) and self._has_read_pictures():
            self._end_picture(track, batch, start)
            return
        self._said = last - MAX_APART / 2
        middle = (first + last) / 2 - self._zero
        if track is self._sound:
            batch.no_sound_before = sample_at(middle, self._wanted.rate)
        elif self._picture is not None:
            inside = self._picture.inside
            if inside is not None and self._waiting_bytes <= MAX_WAITING_BYTES:
                middle = min(middle, inside)  # it comes out with the next packet, however late that is
            batch.no_picture_before = middle
            if middle > start:
                batch.pictures.extend(self._picture.passed())

    def _has_read_pictures(self) -> bool:
        """Whether the last picture that an index names has been read; that of an MP4 in fragments names none ahead."""
        video = self._video
        if video is None or not video.frames or not self._container.format.name.startswith("mov"):
            return False
        entries = video.index_entries
        return len(entries) > 0 and entries[-1].timestamp == self._latest.get(video.index)

    def _demux(self) -> AvPacket | None:
        if self._at_end:
            return None
        self._has_read = True
        try:
            for packet in self._packets:
                if packet.size == 0:  # the demuxer's own flush packet: the end
                    continue
                self._read_to = max(self._read_to, packet.pos or 0)
                self._latest[packet.stream_index] = packet.dts
                end_with_stream(packet)
                straight = self._straightened(packet)
                if straight is not None:
                    return self._tell_sets(straight)
        except IndexError:
            pass  # PyAV at the end of a file in which another stream turned up on the way
        except LIBAV_ERRORS as err:
            self._failure = err.with_traceback(None)
        if self._failure is None and self._is_cut_off():
            self._failure = EOFError("it ends before its index, or its playlist, does")
        self._at_end = True
        return None

    def _straightened(self, packet: AvPacket) -> AvPacket | None:
        if self._straightener is None:
            return packet
        straight = self._straightener.apply(packet)
        self._has_jumped |= self._straightener.jumped
        return straight

    def _tell_sets(self, packet: AvPacket) -> AvPacket:
        """Gives the first packet after a seek the sets and palette that hold there; libav names only what changes."""
        index = packet.stream_index
        for kind in _TOLD:
            if packet.has_sidedata(kind):
                told, before = packet.get_sidedata(kind), self._sets.get((index, kind))
                self._is_recoloured |= kind == PALETTE and before is not None and bytes(before) != bytes(told)
                self._sets[index, kind] = told
            elif (index, kind) in self._sets and index not in self._entered:
                packet.set_sidedata(self._sets[index, kind])
        self._entered.add(index)
        return packet

    def _is_cut_off(self) -> bool:
        """Whether an index names bytes, or a playlist segments, that are not there; libav calls that a plain end.

        Where a server states no length, bytes that did not come. A file cut off that has no index in front (MPEG-TS,
        most FLV) looks like a shorter one, and is taken as such.
        """
        wanted = [stream for stream in self._used if self._is_wanted(stream)]
        if wanted == self._used and not self._has_sought and falls_short(self._container, self._straightener):
            return True
        entries = [entry for stream in wanted for entry in stream.index_entries[-1:]]
        if self._container.size > 0:
            return any(self._container.size < entry.pos + entry.size for entry in entries)
        return any(self._read_to < entry.pos for entry in entries)  # that one may well come in several packets

    def _position(self) -> Fraction:
        reached = [track.reached for track in (self._picture, self._sound) if track is not None]
        return max([Fraction(0), *reached])

    def _decode_picture(self, packet: AvPacket | None, batch: Batch, start: Fraction) -> None:
        assert self._picture is not None
        with self._decoding(self._picture, packet):
            batch.pictures.extend(self._picture.decode(packet, start=start))

    def _decode_sound(self, packet: AvPacket | None, batch: Batch) -> int:
        assert self._sound is not None
        blocks: list[tuple[int, AudioFrame]] = []
        with self._decoding(self._sound, packet):
            blocks = self._sound.decode(packet)
        batch.sounds.extend(blocks)
        return sum(len(block) for _, block in blocks)

    @contextmanager
    def _decoding(self, track: PictureTrack | SoundTrack, packet: AvPacket | None) -> Iterator[None]:
        """Notes when a packet is that is refused, until the track gives something that is later."""
        try:
            yield
        except LIBAV_ERRORS:
            at = None if packet is None else _time(packet)
            if at is not None:
                self._refused[track] = [*self._refused.get(track, [])[:1], at]
        if track in self._refused and track.reached > self._refused[track][-1] - self._zero:
            del self._refused[track]

    def _drain(self, batch: Batch, start: Fraction) -> None:
        """At the end: what still waits in a decoder comes out, once nothing of its kind waits undecoded."""
        waits = [bool(stream is not None and self._waiting[stream.index]) for stream in (self._video, self._audio)]
        if self._picture is not None and not self._picture.ended and not waits[0]:
            self._end_picture(self._picture, batch, start)
        if self._sound is not None and not self._sound.ended and not waits[1]:
            self._decode_sound(None, batch)
            if self._container.format.name not in _BARE:
                self._say_broken(self._sound, "sound")

    def _end_picture(self, track: PictureTrack, batch: Batch, start: Fraction) -> None:
        self._decode_picture(None, batch, start)
        self._say_broken(track, "picture")

    def _say_broken(self, track: PictureTrack | SoundTrack, what: str) -> None:
        """A track breaks off where it gave nothing since the start or a seek, or nothing for the last of `BROKEN`."""
        refused = self._refused.get(track)
        if refused and (not track.reached or refused[-1] - refused[0] >= BROKEN):
            at = float(refused[0] - self._zero)
            sentence = f'source "{self.guid}": no {what} can be decoded from {at:.3f} s on'
            self._failure = self._failure or SourceMalformed(sentence, where=self.guid)


def _choose(guid: str, container: InputContainer, kind: Literal["video", "audio"], *, beside: Any = None) -> Any:
    """The best stream, None when there is none. Raises SourceUnsupported when none can be decoded."""
    best = best_stream(container, kind, beside=beside)
    if best is None and streams_of(container, kind):
        what = "picture" if kind == "video" else "sound"
        raise SourceUnsupported(f'source "{guid}": no decoder for its {what}', where=guid)
    return best


def _time(packet: AvPacket) -> Fraction | None:
    """When a packet is shown, or where only that is known, decoded."""
    stamp = packet.pts if packet.pts is not None else packet.dts
    return None if stamp is None or packet.time_base is None else seconds(stamp, packet.time_base)


def _broken(guid: str, at: Fraction, err: Exception) -> SourceError:
    if isinstance(err, SourceError):
        return err
    error: SourceError = SourceMalformed(f'source "{guid}": breaks off at {float(at):.3f} s', where=guid)
    if isinstance(err, av.error.ExitError):
        error = SourceUnavailable(f'source "{guid}": nothing more came at {float(at):.3f} s', where=guid)
    error.__cause__ = err
    return error
