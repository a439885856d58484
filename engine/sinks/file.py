"""A mix into a file: written under a temporary name beside it, renamed when whole, removed when it is not.

It decides which extension means which format; it refuses to know what is mixed. Encoding runs in its own thread with a
short queue before it: whoever mixes waits when it is full.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Final

import av
import msgspec
import trio
from av.container import OutputContainer

from engine.errors import EngineError, SinkRejected
from engine.frame import AudioFrame, VideoFrame
from engine.sinks.encode import Encoder, Encoding, check_picture
from engine.sinks.partial import ERRORS, Item, Partial, Writing
from engine.sinks.pictures import IMAGE_CODECS, Numbered, Single, check_digits, is_numbered
from engine.sinks.splice import Splice, Splicer
from engine.sinks.waveform import Waveform
from engine.spec import AAC_RATES, MP3_RATES, OPUS_RATES, EncoderSpec, MixerSpec, OutputSpec, Raster
from engine.threads import in_thread
from engine.timebase import tick_count

_FASTSTART: Final = {"movflags": "+faststart"}
_LARGE: Final = {"rf64": "auto"}  # what is longer than 4 GiB tells its sizes in 64 bits (EBU Tech 3306)
FORMATS: Final = MappingProxyType(
    {
        ".mp4": Encoding("mp4", "libx264", "aac", _FASTSTART),
        ".m4v": Encoding("mp4", "libx264", "aac", _FASTSTART),
        ".mov": Encoding("mov", "libx264", "aac", _FASTSTART),
        ".mkv": Encoding("matroska", "libx264", "aac"),
        ".webm": Encoding("webm", "libvpx-vp9", "libopus"),
        ".m4a": Encoding("ipod", None, "aac", _FASTSTART),
        ".mp3": Encoding("mp3", None, "libmp3lame"),
        ".wav": Encoding("wav", None, "pcm_s16le", _LARGE),
    }
)
NULL: Final = "null:"  # mixed, not encoded: for measuring
_RATES: Final = {"aac": AAC_RATES, "libopus": OPUS_RATES, "libmp3lame": MP3_RATES}
QUEUE: Final = 2  # ticks between the mixer and the encoder


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
        self._error: EngineError | None = None

    async def put(self, n: int, picture: VideoFrame, sound: AudioFrame, span: int = 1) -> None:
        """Hands the picture of ticks [n, n + span) and their sound over. Raises what `run` does."""
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
        """Writes until `end`. Raises SinkError; SourceError where packets are copied."""
        whole = False
        try:
            async for item in self._receive:
                await self._in_thread(partial(self._writing.write, [item, *self._waiting()]))
            await self._in_thread(self._writing.finish)  # long: it is not interrupted, but what it made can go
            await trio.lowlevel.checkpoint_if_cancelled()
            await self._in_thread(self._writing.keep)
            whole = True
        except EngineError as err:  # of the output, or of a source that is copied
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
        await in_thread(call, limiter=self._limiter)


def check_output(output: OutputSpec, mixer: MixerSpec) -> None:
    """Raises SinkRejected: an extension we do not write, what its codec does not have, digits without end."""
    path, suffix = output.path, Path(output.path).suffix.lower()
    if suffix in IMAGE_CODECS:
        check_digits(path)
    if path == NULL or suffix in IMAGE_CODECS:
        return
    encoding = FORMATS.get(suffix)
    if encoding is None:
        known = " ".join([*FORMATS, *IMAGE_CODECS])
        raise SinkRejected(f'output "{path}": extension "{suffix}" is not one of {known}', where=path)
    rates = sound_rates(path)
    if output.sound and rates is not None and mixer.audio.rate not in rates:
        listed = ", ".join(map(str, rates))
        sentence = f'output "{path}": {encoding.audio} has no rate of {mixer.audio.rate} Hz, only {listed}'
        raise SinkRejected(sentence, where=path)
    if output.picture and encoding.video is not None:
        check_picture(encoding.video, mixer, output.encoder, what=f'output "{path}"', where=path)


def sound_rates(path: str) -> Sequence[int] | None:
    """The sample rates that the sound of a file can have, in Hz; None: any, or it has no sound."""
    encoding = FORMATS.get(Path(path).suffix.lower())
    return None if encoding is None else _RATES.get(encoding.audio or "")


def has_h264(output: OutputSpec) -> bool:
    """Whether an output has a picture in H.264."""
    encoding = FORMATS.get(Path(output.path).suffix.lower())
    return encoding is not None and encoding.video == "libx264" and output.picture and output.waveform is None


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
    outputs: Sequence[OutputSpec], mixer: MixerSpec, *, limiter: trio.CapacityLimiter, splice: Splice | None = None
) -> FileSink | NullSink:
    """The one sink for all outputs of a mix, as their names ask for: all of them are whole at the end, or none is.

    outputs  such as `check_output` takes.
    splice   what of a film's picture is copied.
    Blocks a little: worker threads only. Raises SinkError.
    """
    if all(output.path == NULL for output in outputs):
        return NullSink()
    opened: list[Writing] = []
    try:
        for output in outputs:
            opened.append(_open(output, mixer, splice))
    except BaseException:
        for each in opened:
            each.discard()
        raise
    return FileSink(opened[0] if len(opened) == 1 else _Several(opened), limiter=limiter)


def _open(output: OutputSpec, mixer: MixerSpec, splice: Splice | None) -> Writing:
    path, suffix = output.path, Path(output.path).suffix.lower()
    raster = mixer.raster
    if output.waveform is not None:
        size = output.size or (raster.width, raster.height)
        return Waveform(path, size=size, forecolor=output.waveform[0], backcolor=output.waveform[1])
    if suffix in IMAGE_CODECS and is_numbered(path):
        return Numbered(path, every=output.every, size=output.size)
    if suffix in IMAGE_CODECS:
        return Single(path, n=tick_count(output.at, mixer.fps), size=output.size)
    encoding = FORMATS[suffix]
    left_out = {name: None for name, wanted in (("video", output.picture), ("audio", output.sound)) if not wanted}
    if output.size is not None:
        mixer = msgspec.structs.replace(mixer, raster=Raster(*output.size))
    return _Film(path, msgspec.structs.replace(encoding, **left_out), mixer, output.encoder, splice)


class _Several:
    """Writes one mix into several outputs, one after the other."""

    def __init__(self, writings: Sequence[Writing]) -> None:
        self._writings = writings

    def write(self, items: list[Item]) -> None:
        for each in self._writings:
            each.write(items)

    def finish(self) -> None:
        for each in self._writings:
            each.finish()

    def keep(self) -> None:
        for each in self._writings:
            each.keep()

    def discard(self) -> None:
        for each in self._writings:
            each.discard()


class _Film:
    """A container with encoded picture and sound."""

    def __init__(
        self, path: str, encoding: Encoding, mixer: MixerSpec, spec: EncoderSpec, splice: Splice | None
    ) -> None:
        self._partial = Partial(path)
        self._container: OutputContainer | None = None
        self._encoder: Encoder | Splicer
        try:
            self._container = av.open(
                self._partial.temporary, "w", format=encoding.muxer, container_options=dict(encoding.options)
            )
            if splice is None or encoding.video is None:
                self._encoder = Encoder(self._container, encoding, mixer, spec)
            else:
                self._encoder = Splicer(self._container, encoding, mixer, spec, splice)
        except BaseException as err:
            self.discard()
            if isinstance(err, ERRORS):
                raise self._partial.error(err) from err
            raise

    def write(self, items: list[Item]) -> None:
        try:
            for n, picture, sound, span in items:
                self._encoder.encode(n, picture, sound, span)
        except ERRORS as err:
            raise self._partial.error(err) from err

    def finish(self) -> None:
        assert self._container is not None
        try:
            self._encoder.flush()
            self._container.close()
            self._container = None
        except ERRORS as err:
            raise self._partial.error(err) from err

    def keep(self) -> None:
        self._partial.keep()

    def discard(self) -> None:
        """Removed first: a muxer that is closed would otherwise still make a long film fit for streaming."""
        self._partial.remove()
        container, self._container = self._container, None
        if container is not None:
            with suppress(*ERRORS):
                container.close()
