"""A mix into a file: written under a temporary name beside it, renamed when whole, removed when it is not.

It decides which extension means which format; it refuses to know what is mixed. Encoding runs in its own thread with a
short queue before it: whoever mixes waits when it is full.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Final, Protocol

import av
import trio
from av.codec.codec import UnknownCodecError
from av.container import OutputContainer

from engine.errors import SinkError, SinkRejected, SinkUnavailable
from engine.frame import AudioFrame, VideoFrame
from engine.sinks.encode import Encoder, Encoding, check_picture
from engine.sinks.still import encode_still
from engine.spec import AAC_RATES, EncoderSpec, MixerSpec

_FASTSTART: Final = {"movflags": "+faststart"}
FORMATS: Final = MappingProxyType(
    {
        ".mp4": Encoding("mp4", "libx264", "aac", _FASTSTART),
        ".m4v": Encoding("mp4", "libx264", "aac", _FASTSTART),
        ".mov": Encoding("mov", "libx264", "aac", _FASTSTART),
        ".mkv": Encoding("matroska", "libx264", "aac"),
        ".webm": Encoding("webm", "libvpx-vp9", "libopus"),
        ".m4a": Encoding("ipod", None, "aac", _FASTSTART),
        ".mp3": Encoding("mp3", None, "libmp3lame"),
        ".wav": Encoding("wav", None, "pcm_s16le"),
    }
)
STILLS: Final = MappingProxyType({".png": "png", ".jpg": "mjpeg", ".jpeg": "mjpeg"})
NULL: Final = "null:"  # mixed, not encoded: for measuring
_RATES: Final = {
    "aac": AAC_RATES,
    "libopus": (8000, 12000, 16000, 24000, 48000),
    "libmp3lame": (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000),
}
QUEUE: Final = 4  # ticks between the mixer and the encoder
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_ERRORS: Final = (av.error.FFmpegError, OSError, ValueError)

Item = tuple[int, VideoFrame, AudioFrame, int]  # of ticks [n, n + span)


class Writing(Protocol):
    """What a FileSink drives; blocking, worker threads only."""

    def write(self, items: list[Item]) -> None:
        """Takes ticks in order."""

    def finish(self) -> None:
        """All ticks are there: makes the output whole, still under its temporary name."""

    def keep(self) -> None:
        """Gives the whole output its name."""

    def discard(self) -> None:
        """Leaves nothing behind."""


class FileSink:
    """Queue and thread before a writer. `run` is its actor; it ends, with the output whole, after `end`.

    Promises: `put` waits while the queue is full, and raises the writer's error; when `run` ends in any other way than
    after `end`, no partial output is left.
    """

    def __init__(self, writing: Writing, *, limiter: trio.CapacityLimiter) -> None:
        # given
        self._writing = writing
        self._limiter = limiter
        # owned by run()
        self._send, self._receive = trio.open_memory_channel[Item](QUEUE)
        self._error: SinkError | None = None

    async def put(self, n: int, picture: VideoFrame, sound: AudioFrame, span: int = 1) -> None:
        """Hands the picture of ticks [n, n + span) and their sound over. Raises SinkError."""
        try:
            await self._send.send((n, picture, sound, span))
        except trio.BrokenResourceError:
            if self._error is None:
                raise  # `run` was cancelled or has a bug: its nursery knows
            raise self._error from None

    def end(self) -> None:
        """No more ticks will come."""
        self._send.close()

    async def run(self) -> None:
        """Writes until `end`. Raises SinkError."""
        whole = False
        try:
            async for item in self._receive:
                await self._in_thread(partial(self._writing.write, [item, *self._waiting()]))
            await self._in_thread(self._writing.finish)  # long: it is not interrupted, but what it made can go
            await trio.lowlevel.checkpoint_if_cancelled()
            await self._in_thread(self._writing.keep)
            whole = True
        except SinkError as err:
            self._error = err
            raise
        finally:
            self._receive.close()
            if not whole:
                with trio.CancelScope(shield=True):
                    await self._in_thread(self._writing.discard)

    def _waiting(self) -> list[Item]:
        items = []
        while True:
            try:
                items.append(self._receive.receive_nowait())
            except (trio.WouldBlock, trio.EndOfChannel):
                return items

    async def _in_thread(self, call: Callable[[], None]) -> None:
        await trio.to_thread.run_sync(call, limiter=self._limiter)


def check_output(path: str, mixer: MixerSpec, encoder: EncoderSpec) -> None:
    """Raises SinkRejected: an extension we do not write, a rate or a profile that its codec does not have."""
    suffix = Path(path).suffix.lower()
    if path == NULL or suffix in STILLS:
        return
    encoding = FORMATS.get(suffix)
    if encoding is None:
        known = " ".join([*FORMATS, *STILLS])
        raise SinkRejected(f'output "{path}": extension "{suffix}" is not one of {known}', where=path)
    rates = _RATES.get(encoding.audio or "")
    if rates is not None and mixer.audio.rate not in rates:
        listed = ", ".join(map(str, rates))
        sentence = f'output "{path}": {encoding.audio} has no rate of {mixer.audio.rate} Hz, only {listed}'
        raise SinkRejected(sentence, where=path)
    if encoding.video is not None:
        check_picture(encoding.video, mixer, encoder, what=f'output "{path}"', where=path)


class NullSink:
    """Takes a mix and makes nothing of it; `run` ends after `end`."""

    def __init__(self) -> None:
        self._ended = trio.Event()

    async def put(self, n: int, picture: VideoFrame, sound: AudioFrame, span: int = 1) -> None:
        """Lets the tick go."""
        await trio.lowlevel.checkpoint()

    def end(self) -> None:
        """No more ticks will come."""
        self._ended.set()

    async def run(self) -> None:
        """Waits for `end`."""
        await self._ended.wait()


def open_sink(
    path: str, mixer: MixerSpec, encoder: EncoderSpec, *, limiter: trio.CapacityLimiter
) -> FileSink | NullSink:
    """The sink that a file name asks for. Blocks a little: worker threads only. Raises SinkError."""
    check_output(path, mixer, encoder)
    if path == NULL:
        return NullSink()
    suffix = Path(path).suffix.lower()
    if suffix in STILLS:
        return FileSink(_Still(path, STILLS[suffix]), limiter=limiter)
    return FileSink(_Film(path, FORMATS[suffix], mixer, encoder), limiter=limiter)


class _Partial:
    """A file under a temporary name of its own, in the same folder so that the rename is atomic."""

    def __init__(self, path: str) -> None:
        self.path = path
        target = Path(path)
        # Not made of the target's name: that may be as long as a name can be.
        self.temporary = str(target.with_name(f".mashtun-{os.urandom(8).hex()}.part"))
        try:
            if target.is_dir():
                raise SinkRejected(f'output "{path}": is a directory', where=path)
            if not target.parent.is_dir():
                raise SinkRejected(f'output "{path}": there is no folder "{target.parent}"', where=path)
            os.close(os.open(self.temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        except (OSError, ValueError) as err:
            raise self.error(err) from err

    def error(self, err: Exception) -> SinkError:
        """libav's or the system's error in one sentence."""
        number = getattr(err, "errno", None)
        if number in _FULL:
            return SinkUnavailable(f'output "{self.path}": no space left', where=self.path)
        if isinstance(err, UnknownCodecError):
            return SinkRejected(f'output "{self.path}": there is no encoder {err} here', where=self.path)
        reason = getattr(err, "strerror", None) or str(err) or type(err).__name__
        return SinkRejected(f'output "{self.path}": {reason[:1].lower()}{reason[1:]}', where=self.path)

    def keep(self) -> None:
        """Gives it its name. Raises SinkError."""
        try:
            Path(self.temporary).replace(self.path)
        except OSError as err:
            raise self.error(err) from err

    def remove(self) -> None:
        """Takes it away, as far as that is possible: a file system may have become read-only."""
        with suppress(OSError):
            Path(self.temporary).unlink()


class _Film:
    """A container with encoded picture and sound."""

    def __init__(self, path: str, encoding: Encoding, mixer: MixerSpec, spec: EncoderSpec) -> None:
        self._partial = _Partial(path)
        self._container: OutputContainer | None = None
        try:
            self._container = av.open(
                self._partial.temporary, "w", format=encoding.muxer, container_options=dict(encoding.options)
            )
            self._encoder = Encoder(self._container, encoding, mixer, spec)
        except BaseException as err:
            self.discard()
            if isinstance(err, _ERRORS):
                raise self._partial.error(err) from err
            raise

    def write(self, items: list[Item]) -> None:
        try:
            for n, picture, sound, span in items:
                self._encoder.encode(n, picture, sound, span)
        except _ERRORS as err:
            raise self._partial.error(err) from err

    def finish(self) -> None:
        assert self._container is not None
        try:
            self._encoder.flush()
            self._container.close()
            self._container = None
        except _ERRORS as err:
            raise self._partial.error(err) from err

    def keep(self) -> None:
        self._partial.keep()

    def discard(self) -> None:
        """Removed first: a muxer that is closed would otherwise still make a long film fit for streaming."""
        self._partial.remove()
        container, self._container = self._container, None
        if container is not None:
            with suppress(*_ERRORS):
                container.close()


class _Still:
    """The first picture, as an image."""

    def __init__(self, path: str, codec: str) -> None:
        self._partial = _Partial(path)
        self._codec = codec
        self._data: bytes | None = None

    def write(self, items: list[Item]) -> None:
        try:
            if self._data is None:
                self._data = encode_still(items[0][1], self._codec)
        except _ERRORS as err:
            raise self._partial.error(err) from err

    def finish(self) -> None:
        try:
            Path(self._partial.temporary).write_bytes(self._data or b"")
        except OSError as err:
            raise self._partial.error(err) from err

    def keep(self) -> None:
        self._partial.keep()

    def discard(self) -> None:
        self._partial.remove()
