"""A file or URL opened by libav, and which of its streams are taken.

It decides how long opening may take, what is said when it goes wrong, and which picture and sound are meant; it refuses
to know what is read from them. Worker threads only.
"""

from __future__ import annotations

import os
import stat
import time
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import av
from av.audio.codeccontext import AudioCodecContext
from av.container import InputContainer
from av.stream import Disposition

from engine.config import Settings
from engine.errors import SourceMalformed, SourceUnavailable, SourceUnsupported, reason_of
from engine.spec import LISTS

AvPacket: TypeAlias = "av.Packet[Any]"  # as libav gives it; engine.packet has ours
LIBAV_ERRORS: Final = (av.error.FFmpegError, OSError, ValueError)
DEMUX_ERRORS: Final = (*LIBAV_ERRORS, IndexError)  # PyAV's at the end of a file in which another stream turned up late
# A programme of an MPEG-TS whose PIDs change goes on in the streams it had, also where a playlist has it in segments. A
# segment that cannot be fetched is asked for three times more. Formats that do not have an option leave it.
_OWN: Final = {"merge_pmt_versions": "1", "seg_format_options": "merge_pmt_versions=1", "seg_max_retry": "3"}
# By default libav looks through 2500 packets of a WAV for other codecs in PCM's clothes (25 ms), and reads small ones.
_WAV_OPTIONS: Final = {"max_size": "131072", "probesize": "65536"}
# Formats that name other files, or addresses, and open them: whoever wrote one could have this machine's files shown.
_LISTING: Final = {"concat", "dash", "hls", "imf", "sdp", "vobsub", "webm_dash_manifest"}
# In the order in which libav has them (libavutil/channel_layout.h).
_CHANNELS: Final = (
    " FL FR FC LFE BL BR FLC FRC BC SL SR TC TFL TFC TFR TBL TBC TBR "
    "DL DR WL WR SDL SDR LFE2 TSL TSR BFC BFL BFR SSL SSR TTL TTR "
)
MEDIA: Final = {"format_whitelist": ",".join(sorted(av.formats_available - _LISTING))}


def open_container(
    guid: str, url: str, settings: Settings, *, options: dict[str, str] | None = None, glance: bool = False
) -> InputContainer:
    """Opens a path or URL for reading. Raises SourceError with one sentence, within the deadline.

    A file that lists other files is only read where its name says so (`LISTS`): nothing that was fetched or uploaded.

    options  libav's, beside our own, which count more.
    glance   do not decode pictures to learn their format: most of the time that opening takes. They are decoded all the
             same of a Matroska that does not seem to begin at 0: without, libav overlooks those before the first
             sound; and of HLS that does not say how large its pictures are, by which variants are chosen.
    """
    own = _OWN
    if _is_local(url):
        url, own = _local(guid, url)
    options = (options or {}) | own
    began = time.monotonic()
    deadlines = settings.open_timeout, settings.read_timeout
    try:
        opening = partial(av.open, url, "r", timeout=deadlines, container_options=options, metadata_errors="replace")
        container: InputContainer = opening(options={"skip_frame": "all"} if glance else {})
        if glance and _hides(container):
            container.close()
            container = opening()
        refuse_tiles(container, f'source "{guid}"', where=guid)
        return container
    except av.error.ProtocolNotFoundError as err:
        protocol = url.partition(":")[0][:20]
        raise SourceUnsupported(f'source "{guid}": no such protocol as {protocol}', where=guid) from err
    except LIBAV_ERRORS as err:
        # Some protocols say something else than that their time was over.
        if isinstance(err, av.error.ExitError) or time.monotonic() - began >= settings.open_timeout:
            sentence = f'source "{guid}": no answer within {settings.open_timeout:g} s'
            raise SourceUnavailable(sentence, where=guid) from err
        if isinstance(err, av.error.InvalidDataError | av.error.EOFError | av.error.DemuxerNotFoundError):
            raise SourceMalformed(f'source "{guid}": not media that can be read', where=guid) from err
        if "format_whitelist" in options and isinstance(err, av.error.ArgumentError):
            raise SourceMalformed(f'source "{guid}": not media of a format that is taken', where=guid) from err
        raise SourceUnavailable(f'source "{guid}": {reason_of(err)}', where=guid) from err


def _hides(container: InputContainer) -> bool:
    """Whether something must be known of a container that a glance does not show."""
    if container.format.name.startswith("matroska"):
        return container.start_time != 0
    pictures = container.streams.video if container.format.name == "hls" else ()
    return any(each.codec_context and not each.codec_context.width for each in pictures)


def refuse_tiles(container: InputContainer, name: str, *, where: str) -> None:
    """Closes a picture put together of others (HEIC, AVIF) and raises SourceUnsupported; `name` begins the sentence.

    libav gives the tiles one by one, and beside them what is not meant either: a thumbnail, a map of depth. What is
    meant is the default one; where there is none, it is the whole, which libav does not give.
    """
    marks = [stream.disposition for stream in container.streams.video]
    if any(mark & Disposition.dependent for mark in marks) and not any(mark & Disposition.default for mark in marks):
        container.close()
        raise SourceUnsupported(f"{name}: a picture in tiles (HEIC, AVIF) is not read", where=where)


def is_special(status: os.stat_result) -> bool:
    """Whether it is a pipe, a socket or a device: whoever opens or reads one may wait for ever."""
    return not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode)


def check_file(guid: str, url: str) -> None:
    """Raises what `open_container` raises of a local file that is not there, empty, or may not be read."""
    if _is_local(url):
        _local(guid, url)


def _is_local(url: str) -> bool:
    return url.startswith("file:") or ("://" not in url and not url.startswith("pipe:"))


def _local(guid: str, path: str) -> tuple[str, dict[str, str]]:
    """URL and options of a file that can be read; of others libav says nothing clear, or waits for ever."""
    name = path.removeprefix("file:")
    try:
        status = Path(name).stat()
        if is_special(status):
            raise SourceUnsupported(f'source "{guid}": not a file', where=guid)
        with Path(name).open("rb") as file:
            head = file.read(12)
    except (OSError, ValueError) as err:
        raise SourceUnavailable(f'source "{guid}": {reason_of(err)}', where=guid) from err
    if status.st_size == 0:
        raise SourceMalformed(f'source "{guid}": the file is empty', where=guid)
    is_wav = head[:4] in (b"RIFF", b"RF64") and head[8:] == b"WAVE"
    taken = {} if name.lower().endswith(LISTS) else MEDIA
    # Without "file:" a colon in a name would end a protocol's.
    return f"file:{name}", taken | (_WAV_OPTIONS if is_wav else _OWN)


def settle_layout(context: AudioCodecContext) -> str:
    """Names a sound's channels as libav does, those in an order of their own by their number; so they are from now on.

    The memory that such an order takes is freed twice by PyAV 18, with each frame and with the context, and the process
    aborts (PyAV pull request 2284).
    """
    shared = context.layout  # what it frees belongs to the context too, which has another one before that
    names = [channel.name for channel in shared.channels]
    places = [_CHANNELS.find(f" {name} ") for name in names]
    is_known = all(a < b for a, b in pairwise([-1, *places])) or all(name.startswith("AMBI") for name in names)
    name = shared.name if is_known else f"{len(names)} channels"
    if names:
        context.layout = name
    return name


def is_flv(container: InputContainer) -> bool:
    """Whether it is FLV; what nginx-rtmp says it has made is of a format of its own to libav."""
    return container.format.name in ("flv", "live_flv")


def is_from_mp4(stream: Any) -> bool:
    """Whether a stream of a playlist is in MP4, where codecs have names; in MPEG-TS they have numbers."""
    tag: str = stream.codec_context.codec_tag
    return tag.isprintable()


def expect_streams(container: InputContainer) -> None:
    """Has `has_new_stream` tell of streams that turn up from now on; `best_stream` says nothing useful any more."""
    for stream in container.streams:
        stream.disposition = Disposition.hearing_impaired  # libav chooses any other stream sooner


def has_new_stream(beside: Any) -> bool:
    """Whether another stream of a stream's kind has turned up since `expect_streams`; PyAV itself tells of none.

    Not of sound whose format libav does not know without decoding it: AC-3 and FLAC in FLV.
    """
    try:
        beside.container.streams.best(beside.type)
    except IndexError:
        return True
    return False


def best_stream(container: InputContainer, kind: Literal["video", "audio"], *, beside: Any = None) -> Any:
    """libav's choice, or the first stream that it knows the codec of; never a cover picture. None = there is none.

    Of the variants of an HLS master playlist the largest picture, and of these the one of the highest rate: libav takes
    the first, which is often the smallest, for players that begin slowly.
    Of sounds that differ in nothing but their bit rates the first: libav takes the one whose first packets are larger,
    which in two recordings of one programme is not always the same language. One of which nothing came has no rate.

    beside  a stream whose programme, or variant, is preferred.
    """
    streams = [each for each in streams_of(container, kind) if each.codec_context is not None]
    if kind == "video" and container.format.name == "hls":
        return max(streams, key=_quality, default=None)
    best = container.streams.best(kind, related=beside)
    if best not in streams:
        return next(iter(streams), None)
    if kind == "video" or len(streams) == 1:
        return best

    def is_as_good(each: Any) -> bool:
        is_beside = each.codec_context.bit_rate and container.streams.best(kind, related=each) is best
        return is_beside and _heard_as(each) == _heard_as(best)

    return next(each for each in streams if each is best or is_as_good(each))


def _quality(picture: Any) -> tuple[int, int]:
    """Pixels and rate of a variant; 0 where they are unknown, as those of one that cannot be fetched."""
    context = picture.codec_context
    return context.width * context.height, int(picture.metadata.get("variant_bitrate", 0))


def _heard_as(stream: Any) -> tuple[Any, ...]:
    """What a listener may choose a sound by."""
    return stream.disposition, stream.codec_context.name, settle_layout(stream.codec_context)


def streams_of(container: InputContainer, kind: Literal["video", "audio"]) -> list[Any]:
    """All streams of a kind, but for cover pictures; the codec of some may be one that libav does not know."""
    streams = container.streams.video if kind == "video" else container.streams.audio
    return [each for each in streams if not each.disposition & Disposition.attached_pic]
