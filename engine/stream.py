"""Streams: named flows of packets, one publisher and any number of readers each, and the hub that knows them by name.

They decide what a reader gets when it comes in the middle, and what it loses when it is slow; they refuse to know who
publishes and what readers do. Everything here is called in the Trio thread and never waits, but for `Reader.receive`.

Theory of operation
-------------------
* A packet names its `Track`: codec, extradata, time base. A new configuration is a new Track object from there on.
* Time stamps are the publisher's, in the track's time base; sound and picture of one publisher share one zero.
  `arrival` is when the packet came, on the engine's clock, or when it is due if it came before: decoders put sources
  in step by it, and sinks know by it what paused.
* **GOP cache.** A stream keeps its packets since the last keyframe, so that a reader who comes in the middle has a
  picture at once. It is bounded: beyond GOP_PACKETS or GOP_BYTES it is emptied, and new readers wait for a keyframe. So
  it is when sound goes on for GOP_PAUSE_NS without a picture (a camera is off, its microphone is not): who came then
  would be behind by as much.
* **Slow readers.** Every reader has a queue of its own, bounded in bytes and packets. When it is full, what waits is
  thrown away, counted, and the reader goes on at the next keyframe (with sound alone: at the next packet). Nobody else
  notices. The packets in queues are the same for all; who makes bytes of its own of them takes them in portions.
* **Publishers come and go**; a stream is the same while it has a publisher or readers. When a publisher goes, its
  readers get END in their queue; those who stay get the next publisher's packets.
"""

from __future__ import annotations

import enum
import math
from collections import deque
from collections.abc import Callable
from typing import Final

import msgspec
import trio

from engine.errors import AlreadyExists, InvalidSpec, NotFound
from engine.packet import Packet, Track

GOP_PACKETS: Final = 2000
GOP_BYTES: Final = 32 << 20
GOP_PAUSE_NS: Final = 12_000_000_000  # as long as keyframes may be apart
QUEUE_PACKETS: Final = GOP_PACKETS + 500  # a new reader begins with a whole GOP
QUEUE_BYTES: Final = 16 << 20  # ten seconds at 12 Mbit/s
MAX_NAME: Final = 1024
PORTION: Final = 256 << 10  # bytes at a time for who makes others of them for one client
RATE_WINDOW_NS: Final = 1_000_000_000
KEPT_NS: Final = 3 * RATE_WINDOW_NS  # of what is counted; the sound of a mix of 1 fps is sent 1.9 s ahead of its time


class End(enum.Enum):
    """The type of `END`."""

    END = "end"


END: Final = End.END  # in a reader's queue: the publisher has gone

Item = Packet | End


class Publisher(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Who publishes: "rtmp", "pull", "pattern", "mix"; where it comes from; how to end it and to ask for a keyframe.

    is_absent  whether it has said nothing for so long that another one may publish in its place; None: never.

    All three are called in the Trio thread and return at once.
    """

    kind: str
    peer: str = ""
    stop: Callable[[], None] | None = None
    request_keyframe: Callable[[], None] | None = None
    is_absent: Callable[[], bool] | None = None


class TrackStatus(msgspec.Struct, frozen=True, rename="camel"):
    """One kind of a stream, as a status shows it. Rates over the last second; frames of picture a second."""

    codec: str
    packets: int
    bytes: int
    bit_rate: int
    frame_rate: float
    width: int
    height: int
    sample_rate: int
    channels: int


class StreamStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A stream at a moment; age_ms of the last picture or, without pictures, sound; None before the first packet.

    dropped  packets that slow readers lost, all together.
    waiting  packets in the longest of its readers' queues: of players, pushes, recordings, playlists and mixes.
    """

    name: str
    publisher: str | None  # its kind; None: nobody publishes
    peer: str
    uptime_ms: int
    video: TrackStatus | None
    audio: TrackStatus | None
    age_ms: int | None
    readers: int
    dropped: int
    waiting: int
    publications: int  # how often somebody began to publish


class _Flow:
    """Counters of one kind of packets."""

    def __init__(self) -> None:
        self.track: Track | None = None
        self.packets = self.bytes = 0
        self.last: int | None = None  # arrival
        self._window = deque[tuple[int, int]]()  # arrival, which may be ahead of now (a file's), and bytes

    def count(self, packet: Packet) -> None:
        size = len(packet.data)
        self.track, self.last = packet.track, packet.arrival
        self.packets += 1
        self.bytes += size
        self._window.append((packet.arrival, size))
        while self._window[0][0] <= packet.arrival - KEPT_NS:
            self._window.popleft()

    def status(self, now: int) -> TrackStatus | None:
        track = self.track
        if track is None:
            return None
        sizes = [size for arrival, size in self._window if now - RATE_WINDOW_NS < arrival <= now]
        return TrackStatus(
            codec=track.codec,
            packets=self.packets,
            bytes=self.bytes,
            bit_rate=8 * sum(sizes),
            frame_rate=float(len(sizes)),
            width=track.width,
            height=track.height,
            sample_rate=track.rate,
            channels=track.channels,
        )


class Publication:
    """The right to send into a stream; ends with `close`, or when somebody removes the stream.

    publisher  until then.
    """

    def __init__(self, stream: Stream, publisher: Publisher, *, began: int) -> None:
        self.stream, self.publisher, self.began = stream, publisher, began

    def send(self, packet: Packet) -> None:
        """Gives a packet to all readers. Nothing happens after the end."""
        if self.stream.publication is self:
            self.stream._deliver(packet)

    def close(self) -> None:
        """Ends it: readers get END. Any number of times."""
        if self.stream.publication is self:
            self.stream._end()
            del self.publisher  # it may know who has this: both would stay until the garbage is collected


class Stream:
    """One named flow; made and kept by the Hub."""

    def __init__(self, name: str, hub: Hub) -> None:
        self.name = name
        self.publication: Publication | None = None
        self._hub = hub
        self._flows = {"video": _Flow(), "audio": _Flow()}
        self._readers: dict[Reader, None] = {}
        self._gop: list[Packet] = []
        self._gop_bytes = 0
        self._publications = 0
        # read by anyone (snapshot)
        self.dropped = 0  # packets that slow readers lost, all together

    @property
    def video(self) -> Track | None:
        """The track of the last picture."""
        return self._flows["video"].track

    @property
    def audio(self) -> Track | None:
        """The track of the last sound."""
        return self._flows["audio"].track

    @property
    def gop(self) -> list[Packet]:
        """The packets since the last keyframe; empty while there is none."""
        return list(self._gop)

    @property
    def is_idle(self) -> bool:
        """Whether nobody publishes and nobody reads."""
        return self.publication is None and not self._readers

    def request_keyframe(self) -> None:
        """Asks the publisher for a keyframe, where it can make one."""
        if self.publication is not None and self.publication.publisher.request_keyframe is not None:
            self.publication.publisher.request_keyframe()

    def status(self) -> StreamStatus:
        """The stream as it is now."""
        now = self._hub.now()
        publication = self.publication
        last = self._flows["video"].last or self._flows["audio"].last
        return StreamStatus(
            name=self.name,
            publisher=None if publication is None else publication.publisher.kind,
            peer="" if publication is None else publication.publisher.peer,
            uptime_ms=0 if publication is None else (now - publication.began) // 1_000_000,
            video=self._flows["video"].status(now),
            audio=self._flows["audio"].status(now),
            age_ms=None if last is None else max(0, now - last) // 1_000_000,
            readers=len(self._readers),
            dropped=self.dropped,
            waiting=max((reader.waiting for reader in self._readers), default=0),
            publications=self._publications,
        )

    def _begin(self, publisher: Publisher) -> Publication:
        self._flows = {"video": _Flow(), "audio": _Flow()}
        self._publications += 1
        self.publication = Publication(self, publisher, began=self._hub.now())
        return self.publication

    def _deliver(self, packet: Packet) -> None:
        self._flows[packet.track.kind].count(packet)
        self._remember(packet)
        for reader in self._readers:
            self.dropped += reader._push(packet)

    def _remember(self, packet: Packet) -> None:
        if packet.starts_gop:
            self._gop, self._gop_bytes = [packet], len(packet.data)
        elif self._gop:
            self._gop.append(packet)
            self._gop_bytes += len(packet.data)
            seen = self._flows["video"].last
            assert seen is not None  # the keyframe
            pauses = packet.arrival - seen > GOP_PAUSE_NS
            if len(self._gop) > GOP_PACKETS or self._gop_bytes > GOP_BYTES or pauses:
                self._gop, self._gop_bytes = [], 0

    def _end(self) -> None:
        self.publication = None
        self._gop, self._gop_bytes = [], 0
        for reader in self._readers:
            reader._push_end()
        self._hub._tidy(self)
        self._hub.changed(self)

    def _leave(self, reader: Reader) -> None:
        self._readers.pop(reader, None)
        self._hub._tidy(self)


class Reader:
    """Follows one stream. A context manager: `with hub.read("live/cam1") as reader`.

    Promises: packets come in the publisher's order; the first picture is a keyframe, and so is the first after a loss.
    """

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.dropped = 0  # packets lost because this reader was slow
        self._items: deque[Item] = deque()
        self._bytes = 0  # of the items, but for …
        self._given = 0  # … the first ones, which are the stream's own, and bounded there
        self._needs_keyframe = True
        self._lost = False
        self._parked = trio.lowlevel.ParkingLot()
        self._closed = False
        if stream._gop:
            self._items.extend(stream._gop)
            self._given = len(stream._gop)
            self._needs_keyframe = False
        stream._readers[self] = None

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leaves the stream; a `receive` that waits gets END. Any number of times."""
        if not self._closed:
            self._closed = True
            self.stream._leave(self)
            self._push_end()

    async def receive(self, *, most: float = math.inf) -> list[Item]:
        """What waits, at least one item; waits for it. END means that the publisher has gone, or `close`.

        most  bytes after which the rest is left in the queue.
        """
        while not self._items:
            await self._parked.park()
        items: list[Item] = []
        size = 0
        while self._items and size < most:
            item = self._items.popleft()
            items.append(item)
            size += self._count_out(item)
        return items

    def _count_out(self, item: Item) -> int:
        """The bytes of the first item, which leaves the queue."""
        size = 0 if item is END else len(item.data)
        if self._given:
            self._given -= 1
        else:
            self._bytes -= size
        return size

    @property
    def waiting(self) -> int:
        """Packets in the queue."""
        return len(self._items)

    def _push(self, packet: Packet) -> int:
        """Queues a packet; returns how many were lost by it."""
        lost = 0
        if len(self._items) >= QUEUE_PACKETS or self._bytes + len(packet.data) > QUEUE_BYTES:
            lost = self._empty()
        if packet.is_video:
            if self._needs_keyframe and not packet.keyframe:
                if self._lost:  # before the first keyframe nothing is lost: it just has not begun
                    lost += 1
                    self.dropped += 1
                return lost
            self._needs_keyframe = self._lost = False
        self._items.append(packet)
        self._bytes += len(packet.data)
        if self._parked:
            self._parked.unpark_all()
        return lost

    def _empty(self) -> int:
        lost = sum(item is not END for item in self._items)
        ends = [item for item in self._items if item is END]
        self._items.clear()
        self._items.extend(ends[-1:])
        self._bytes = self._given = 0
        self._needs_keyframe = self._lost = True
        self.dropped += lost
        return lost

    def _push_end(self) -> None:
        self._needs_keyframe = True
        self._lost = False
        self._items.append(END)
        self._parked.unpark_all()


class Hub:
    """All streams of an engine, by name.

    now      the engine's clock, ns.
    changed  called with a stream whenever it got or lost its publisher.
    """

    def __init__(self, now: Callable[[], int], *, changed: Callable[[Stream], None] | None = None) -> None:
        self.now = now
        self.changed = changed or (lambda stream: None)
        self._streams: dict[str, Stream] = {}

    def publish(self, name: str, publisher: Publisher) -> Publication:
        """Begins to publish. Raises InvalidSpec for a bad name, AlreadyExists while somebody else publishes it."""
        check_name(name)
        stream = self._stream(name)
        if stream.publication is not None:
            kind = stream.publication.publisher.kind
            raise AlreadyExists(f'stream "{name}" is already published ({kind})', where=name)
        publication = stream._begin(publisher)
        self.changed(stream)
        return publication

    def read(self, name: str, *, must_exist: bool = False) -> Reader:
        """Follows a stream, published or not yet. Raises InvalidSpec; NotFound if `must_exist` and nobody publishes."""
        check_name(name)
        if must_exist:
            self.published(name)
        return Reader(self._stream(name))

    def published(self, name: str) -> Stream:
        """The stream of that name. Raises NotFound when nobody publishes it."""
        if not self.is_published(name):
            raise NotFound("stream", name)
        return self._streams[name]

    def is_published(self, name: str) -> bool:
        """Whether somebody publishes it."""
        stream = self._streams.get(name)
        return stream is not None and stream.publication is not None

    def streams(self) -> list[Stream]:
        """All that have a publisher or readers, by name."""
        return [self._streams[name] for name in sorted(self._streams)]

    def _stream(self, name: str) -> Stream:
        if name not in self._streams:
            self._streams[name] = Stream(name, self)
        return self._streams[name]

    def _tidy(self, stream: Stream) -> None:
        if stream.is_idle and self._streams.get(stream.name) is stream:
            del self._streams[stream.name]


def check_name(name: str) -> None:
    """Raises InvalidSpec unless a name is like ``live/stream1``: segments without control characters, none empty or
    "..", 1024 characters at most."""
    if not 0 < len(name) <= MAX_NAME:
        raise InvalidSpec(f"a stream name of {len(name)} characters is not within 1…{MAX_NAME}", where="streamName")
    segments = name.split("/")
    if any(segment in ("", ".", "..") for segment in segments):
        raise InvalidSpec(f'stream name "{name[:80]}" has an empty, "." or ".." segment', where="streamName")
    if any(ord(letter) < 32 or letter in "\\\x7f" for letter in name):
        raise InvalidSpec("a stream name has a control character or a backslash", where="streamName")
