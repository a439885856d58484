"""A stream into a file: fragmented MP4 that plays whenever and wherever it is cut off, by a kill or by a full disk.

It decides when a fragment is written and what ends a recording; it refuses to know what files are called.

Theory of operation
-------------------
* A fragment is written at every keyframe, and at least every FRAGMENT seconds, straight to the operating system: when
  the process dies, all but the last second is there. Nothing is ever rewritten.
* The disk has a thread of its own. While it is slow, packets wait in the stream's own queue, which is bounded; when it
  is full, the recording goes on at the next keyframe, and time has a gap (a long one is cut out). Nobody else waits.
* Other tracks begin another file: `name.mp4`, `name_2.mp4`, …
"""

from __future__ import annotations

import logging
from collections import deque
from contextlib import suppress
from fractions import Fraction
from io import FileIO
from pathlib import Path
from typing import Final, Literal, NamedTuple

import msgspec
import trio

from engine import boxes, fmp4
from engine.errors import SinkError, SinkUnavailable, reason_of
from engine.packet import Packet
from engine.stream import END, Hub, Reader
from engine.threads import in_thread

log = logging.getLogger(__name__)

FRAGMENT: Final = Fraction(1)
STOPPING: Final = 2.0  # s that a disk gets for the last fragment; then its thread is left behind
CLOSING: Final = 0.5  # s to close the file; then that is left to the thread


class _Piece(NamedTuple):
    """Bytes that play once they are there as a whole; the first of a file begin with an init segment."""

    data: bytes
    begins_file: bool
    stop: Fraction  # s since the recording began


State = Literal["waiting", "recording", "done", "failed"]


class RecordingStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A recording at a moment.

    file         the name of the first file, without a folder; it is known before the file is there.
    files        the names of those that are there, in order: other tracks begin another file.
    duration_ms  of what is written.
    dropped      packets lost because the disk was slow.
    waiting      packets that wait until the disk has taken those before them.
    left_out     what of the stream is not in it, as an MP4 cannot hold it; "" = nothing.
    error        why it failed; "" otherwise.
    """

    id: str
    stream: str
    file: str
    files: list[str]
    state: State
    bytes: int
    duration_ms: int
    dropped: int
    waiting: int
    left_out: str
    error: str


class _Disk:
    """The files of a recording. Blocking: worker threads only."""

    def __init__(self, path: Path) -> None:
        self.files: list[str] = []  # their names
        self.bytes = 0
        self.stop = Fraction(0)  # s
        self.is_abandoned = False  # nobody waits any more: a write that goes on closes the file
        self._path = path
        self._file: FileIO | None = None

    def write(self, pieces: deque[_Piece]) -> None:
        """Takes all pieces; they go to the end of the last file, or into a new one.

        Raises SinkUnavailable, when the file ends with a whole piece; one that would have none is removed.
        """
        try:
            while pieces:
                piece = pieces.popleft()
                if piece.begins_file:
                    self._open()
                self._append(piece)
                self.stop = piece.stop
        except OSError as err:
            pieces.clear()  # the recording ends here
            name = self.files[-1] if self.files else self._path.name
            raise SinkUnavailable(f'recording "{name}": {reason_of(err)} after {self.bytes} bytes', where=name) from err
        finally:
            if self.is_abandoned:
                self.close()

    def _open(self) -> None:
        self.close()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        n = len(self.files) + 1
        path = self._path if n == 1 else self._path.with_stem(f"{self._path.stem}_{n}")
        self._file = FileIO(path, "xb")
        self.files.append(path.name)

    def _append(self, piece: _Piece) -> None:
        assert self._file is not None
        whole, rest = self._file.tell(), memoryview(piece.data)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]  # less than all where the disk is nearly full
        except OSError:
            with suppress(OSError):
                self._file.truncate(whole)
                if piece.begins_file:
                    self._path.with_name(self.files.pop()).unlink()
            raise
        self.bytes += len(piece.data)

    def close(self) -> None:
        """Any number of times."""
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):  # what was written is with the operating system
                file.close()


class Recording:
    """Records one stream from its present keyframe on; `run` is its actor.

    Promises: `run` raises nothing but bugs, and ends after `stop`, when the publisher goes, or when the disk takes no
    more: what was written until then plays. A file that exists is never overwritten.

    path     of the first file; missing folders are made
    id       for the status
    limiter  how many recordings write at a time; a wedged disk keeps its token until the recording is stopped
    """

    def __init__(
        self,
        hub: Hub,
        name: str,
        path: Path,
        *,
        id: str,  # noqa: A002
        limiter: trio.CapacityLimiter,
    ) -> None:
        # given
        self.id = id
        self._hub = hub
        self._name = name
        self._path = path
        self._limiter = limiter
        self._thread = trio.CapacityLimiter(1)  # kept by a write that nobody waits for: the next one comes after it
        # owned by run()
        self._opening = fmp4.Opening()
        self._tracks: fmp4.Tracks = ()
        self._fragmenter: fmp4.Fragmenter | None = None
        self._pieces: deque[_Piece] = deque()  # the disk's thread takes them: until there is one, they are here
        self._init = b""  # for the next piece
        self._start = self._stop = Fraction(0)  # s; of the file, and of its last piece
        self._disk = _Disk(path)
        self._scope = trio.CancelScope()
        # read by anyone (snapshot)
        self._reader: Reader | None = None
        self._is_stopping = False
        self._state: State = "waiting"
        self._error = ""

    def status(self) -> RecordingStatus:
        """The recording as it is now."""
        return RecordingStatus(
            id=self.id,
            stream=self._name,
            file=self._path.name,
            files=list(self._disk.files),
            state=self._state,
            bytes=self._disk.bytes,
            duration_ms=int(1000 * self._disk.stop),
            dropped=0 if self._reader is None else self._reader.dropped,
            waiting=0 if self._reader is None or self._is_over else self._reader.waiting,
            left_out="; ".join(self._opening.refused.values()),
            error=self._error,
        )

    @property
    def _is_over(self) -> bool:
        return self._state in ("done", "failed")

    def stop(self) -> None:
        """Ends the recording with all that has come so far; `run` returns at most STOPPING seconds later."""
        if not self._is_stopping:
            self._is_stopping = True
            self._scope.deadline = trio.current_time() + STOPPING
            if self._reader is not None:
                self._reader.close()

    async def run(self) -> None:
        """Records until the end."""
        try:
            with self._hub.read(self._name) as self._reader, self._scope:
                if not self._is_stopping:
                    await self._record(self._reader)
            if self._scope.cancelled_caught:
                raise SinkUnavailable(f'recording "{self._path.name}": the disk took no data for {STOPPING:g} s')
            self._state = "done"
        except SinkError as err:
            self._state, self._error = "failed", str(err)
            log.warning("%s: %s", self._name, err)
        except trio.Cancelled:
            await self._save()
            raise
        except Exception as err:
            self._state, self._error = "failed", f"{type(err).__name__}: {err}"
            raise
        finally:
            await self._close()

    async def _record(self, reader: Reader) -> None:
        if not reader.waiting:
            reader.stream.request_keyframe()
        ended = False
        while not ended:
            for item in await reader.receive():
                if item is END:
                    ended = True
                    break
                for packet in self._opening.take(item):
                    self._take(packet)
            for what in self._opening.refused.report():
                log.warning('%s: %s is left out of recording "%s"', self._name, what, self._path.name)
            await self._write()
        self._end()
        await self._write()

    def _take(self, packet: Packet) -> None:
        if self._opening.tracks is not self._tracks:
            self._begin()
        assert self._fragmenter is not None
        self._fragmenter.push(packet)
        if packet.starts_gop or self._fragmenter.longest >= FRAGMENT:
            self._cut()

    def _begin(self) -> None:
        """The next piece begins a file."""
        self._state = "recording"
        self._finish()
        self._tracks = self._opening.tracks
        self._init, self._start = boxes.init_segment(self._tracks), self._stop
        self._fragmenter = fmp4.Fragmenter(self._tracks)

    def _cut(self) -> None:
        if self._fragmenter is not None:
            self._add(self._fragmenter.cut())

    def _end(self) -> None:
        """Nothing follows."""
        for packet in self._opening.rest():
            self._take(packet)
        self._finish()

    def _finish(self) -> None:
        """The file ends here, with a last picture that stays as long as there is sound."""
        if self._fragmenter is not None:
            self._add(self._fragmenter.finish())

    def _add(self, fragment: fmp4.Fragment | None) -> None:
        if fragment is not None:
            self._stop = max(self._stop, self._start + fragment.stop)
            self._pieces.append(_Piece(self._init + fragment.data, bool(self._init), self._stop))
            self._init = b""

    async def _write(self) -> None:
        if self._pieces:
            async with self._limiter:
                await in_thread(self._disk.write, self._pieces, abandon_on_cancel=True, limiter=self._thread)

    async def _save(self) -> None:
        """Writes what has come: the engine is being shut down."""
        with trio.move_on_after(STOPPING, shield=True), suppress(SinkUnavailable):
            self._end()
            await self._write()
        self._state = "done"

    async def _close(self) -> None:
        self._disk.is_abandoned = True
        with trio.move_on_after(CLOSING, shield=True):
            await in_thread(self._disk.close, abandon_on_cancel=True, limiter=self._thread)
