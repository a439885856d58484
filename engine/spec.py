"""What can be asked for: the size and rate of a mix, where sources come from, how an output is encoded.

The working format is decided here once: picture planar YUV 4:2:0, 8 bit, BT.709, limited range, with an optional
full-size alpha plane; sound planar float32 at the mixer's rate, one or two channels. Sources convert on the way in,
sinks on the way out, kernels never.
"""

from __future__ import annotations

import re
from fractions import Fraction
from math import ceil
from typing import Final

import msgspec

from engine.errors import InvalidSpec

MAX_WIDTH: Final = 7680
MAX_HEIGHT: Final = 4320
MAX_SIDE: Final = 8192  # pixels, of a picture that is mixed: what the kernels take
MAX_FPS: Final = 120
MAX_SECONDS: Final = Fraction(7 * 86400)  # of a render
MIN_BIT_RATE: Final = 100  # of a picture, bits per second
MAX_BIT_RATE: Final = 1_048_576_000
MIN_AUDIO_RATE: Final = 8000  # Hz
MAX_AUDIO_RATE: Final = 96_000
MAX_SUB_MIXES: Final = 10
MAX_LATENCY_MS: Final = 10_000
AAC_RATES: Final = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)
MP3_RATES: Final = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
OPUS_RATES: Final = (8000, 12000, 16000, 24000, 48000)
PRESETS: Final = (
    "ultrafast",
    "superfast",
    "veryfast",
    "faster",
    "fast",
    "medium",
    "slow",
    "slower",
    "veryslow",
    "placebo",
)
ARRIVAL_MS: Final = 60  # packets of sound last for 20, and a decoder lets them gather for up to 40
PROFILES: Final = ("baseline", "main", "high")
H264_MAX_QP: Final = 51
VP9_MAX_QP: Final = 63  # no codec has more
LISTS: Final = (".m3u8", ".m3u", ".mpd", ".ffconcat")  # what files are called that list others and are read as that
_HUGE: Final = Fraction(10**300)


def _short(number: Fraction) -> str:
    """A number for a sentence; one that no float can hold as the nearest that can."""
    return f"{float(max(-_HUGE, min(number, _HUGE))):g}"


def _require(ok: bool, sentence: str, where: str) -> None:
    if not ok:
        raise InvalidSpec(sentence, where=where)


class Raster(msgspec.Struct, frozen=True):
    """A canvas: width and height in pixels, both even (4:2:0)."""

    width: int
    height: int

    @classmethod
    def of(cls, width: int, height: int) -> Raster:
        """The raster asked for, odd sizes rounded down to even ones.

        Raises InvalidSpec outside 2…7680 × 2…4320.
        """
        _require(2 <= width <= MAX_WIDTH, f"width {width} is not within 2…{MAX_WIDTH}", "width")
        _require(2 <= height <= MAX_HEIGHT, f"height {height} is not within 2…{MAX_HEIGHT}", "height")
        return cls(width & ~1, height & ~1)

    @classmethod
    def parse(cls, text: str) -> Raster:
        """The raster that a text like ``640x360`` asks for. Raises InvalidSpec."""
        found = re.fullmatch(r"([0-9]{1,9})[xX×]([0-9]{1,9})", text)
        if found is None:
            raise InvalidSpec(f'"{text[:80]}" is not WIDTHxHEIGHT')
        return cls.of(int(found[1]), int(found[2]))

    @property
    def frame_bytes(self) -> int:
        """Size of one picture in the working format, without alpha."""
        return self.width * self.height * 3 // 2


class AudioFormat(msgspec.Struct, frozen=True):
    """Planar float32 at `rate` Hz with `channels` 1 or 2."""

    rate: int = 48000
    channels: int = 2

    def __post_init__(self) -> None:
        ok = MIN_AUDIO_RATE <= self.rate <= MAX_AUDIO_RATE
        sentence = f"audio rate {self.rate} is not within {MIN_AUDIO_RATE}…{MAX_AUDIO_RATE} Hz"
        _require(ok, sentence, "audioSampleRate")
        _require(self.channels in (1, 2), f"{self.channels} audio channels: only 1 or 2", "audioChannels")


class MixerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a mixer makes: picture size and exact rate, sound format."""

    raster: Raster = Raster(1280, 720)
    fps: Fraction = Fraction(30)
    audio: AudioFormat = AudioFormat()

    def __post_init__(self) -> None:
        ok = 1 <= self.fps <= MAX_FPS
        _require(ok, f"frame rate {_short(self.fps)} is not within 1…{MAX_FPS}", "frameRate")


class EncoderSpec(msgspec.Struct, frozen=True, kw_only=True):
    """How picture and sound are encoded. Rates in bits per second; None leaves the choice to the encoder.

    With neither `bit_rate` nor `quality` the picture is encoded at constant quality 20.
    """

    preset: str = "veryfast"
    bit_rate: int | None = None
    max_bit_rate: int | None = None  # VBV maximum; buffer of one second
    qp_min: int | None = None
    qp_max: int | None = None
    quality: float | None = None  # constant rate factor 0…51, 0 lossless; not together with bit_rate
    gop: int | None = None  # frames between keyframes at most; default 2 s
    profile: str | None = None
    audio_bit_rate: int = 160_000

    def __post_init__(self) -> None:
        _require(self.preset in PRESETS, f'preset "{self.preset}" is not one of {", ".join(PRESETS)}', "preset")
        for name, rate in (("bitRate", self.bit_rate), ("maxBitRate", self.max_bit_rate)):
            ok = rate is None or MIN_BIT_RATE <= rate <= MAX_BIT_RATE
            _require(ok, f"{name} {rate} is not within {MIN_BIT_RATE}…{MAX_BIT_RATE} bits per second", name)
        if self.max_bit_rate is not None:
            _require(self.bit_rate is not None, f"maxBitRate {self.max_bit_rate} without a bitRate", "maxBitRate")
            ok = self.max_bit_rate >= (self.bit_rate or 0)
            _require(ok, f"maxBitRate {self.max_bit_rate} is less than bitRate {self.bit_rate}", "maxBitRate")
        for name, qp in (("qpMin", self.qp_min), ("qpMax", self.qp_max)):
            _require(qp is None or 0 <= qp <= VP9_MAX_QP, f"{name} {qp} is not within 0…{VP9_MAX_QP}", name)
        low, high = self.qp_min, self.qp_max
        _require(low is None or high is None or low <= high, f"qpMin {low} is more than qpMax {high}", "qpMin")
        ok = self.quality is None or 0 <= self.quality <= H264_MAX_QP
        _require(ok, f"quality {self.quality} is not within 0…51", "quality")
        ok = self.quality is None or self.bit_rate is None
        _require(ok, f"quality {self.quality} and bitRate {self.bit_rate} exclude each other", "quality")
        _require(self.gop is None or 1 <= self.gop <= 1000, f"gop {self.gop} is not within 1…1000 frames", "gop")
        ok = self.profile is None or self.profile in PROFILES
        _require(ok, f'profile "{self.profile}" is not one of {", ".join(PROFILES)}', "profile")
        ok = 8_000 <= self.audio_bit_rate <= 512_000
        _require(ok, f"audio bit rate {self.audio_bit_rate} is not within 8000…512000", "audioBitRate")


class OutputSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One of several outputs of one mix.

    path      its extension says what it is; with %03d in its name it is images, numbered from 1 in three digits.
    picture   False: a film without its picture. sound: likewise.
    size      of the pictures in it, in pixels, even ones in a film; None = the mix's.
    at        seconds after the start: the image is the first picture from then on; beyond the end the last one.
    every     of so many pictures the first is a numbered image.
    waveform  colours of a wave and of what is behind it, ``#rrggbb[aa]``: the image is of the sound.
    """

    path: str
    encoder: EncoderSpec = EncoderSpec()
    picture: bool = True
    sound: bool = True
    size: tuple[int, int] | None = None
    at: Fraction = Fraction(0)
    every: int = 1
    waveform: tuple[str, str] | None = None

    def __post_init__(self) -> None:
        width, height = self.size or (1, 1)
        ok = 1 <= width <= MAX_WIDTH and 1 <= height <= MAX_HEIGHT
        _require(ok, f"size {width}x{height} is not within 1x1…{MAX_WIDTH}x{MAX_HEIGHT}", "size")
        _require(self.at >= 0, f"offset {_short(self.at)} s is negative", "at")
        _require(self.every >= 1, f"every {self.every} is less than 1", "every")


class RenderSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One offline render: what is made, from which sources, how long, and where it goes.

    scale     the size of the output, which the mixed picture is scaled to; None = the mix's.
    sources   streamGuid → where its media is; a guid that is not listed is taken as a path or URL itself.
    duration  seconds; None = the longest source.
    limit     seconds at most, however long it would be; None = none.
    start     seconds; the first tick shows this time of the program.
    on_error  what a source that breaks in the middle does: "fail" the render, or "hold" its last picture.
    outputs   all of them made in one pass, in place of `output` and `encoder`; they need a duration.
    exact     decode every picture with all care, also one that is shown at half its size or less throughout.
    smart     "auto": packets of a film that is seen as it is are copied where the output may have them; or "never".
    """

    output: str
    mixer: MixerSpec = MixerSpec()
    encoder: EncoderSpec = EncoderSpec()
    scale: Raster | None = None
    sources: dict[str, str] = {}
    images: str = "."  # folder that an ImageSourceNode's filename is looked up in
    start: Fraction = Fraction(0)
    duration: Fraction | None = None
    limit: Fraction | None = None
    on_error: str = "fail"
    outputs: tuple[OutputSpec, ...] = ()
    exact: bool = False
    smart: str = "auto"

    def __post_init__(self) -> None:
        _require(self.smart in ("auto", "never"), f'smart "{self.smart}" is not auto or never', "smart")
        _require(self.start >= 0, f"start {_short(self.start)} s is negative", "start")
        for name, length in (("duration", self.duration), ("limit", self.limit)):
            ok = length is None or 0 < length <= MAX_SECONDS
            problem = f"{name} {_short(length or Fraction(0))} s is not more than 0 and at most {MAX_SECONDS}"
            _require(ok, problem, name)
        _require(self.on_error in ("fail", "hold"), f'on_error "{self.on_error}" is not fail or hold', "onError")
        _require(not self.outputs or self.duration is not None, "several outputs need a duration", "duration")

    @property
    def length(self) -> Fraction | None:
        """Seconds that are made, whatever the sources do; None = the longest source, and no more than `limit`."""
        if self.duration is None or self.limit is None:
            return self.duration
        return min(self.duration, self.limit)

    @property
    def made(self) -> tuple[OutputSpec, ...]:
        """All that is made."""
        scaled = None if self.scale in (None, self.mixer.raster) else self.scale
        size = None if scaled is None else (scaled.width, scaled.height)
        return self.outputs or (OutputSpec(path=self.output, encoder=self.encoder, size=size),)


class EventSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A live event: one mixer for each sub-mix, all with the same size, rate and encoding, on the same slots.

    Sub-mix 0 publishes `path/stream_name`, sub-mix i the same name with `_i` behind it.

    forward     None, or where sub-mixes are pushed to: the host of an RTMP origin.
    latency_ms  from a slot's time to its mixing: what sources may be late; as it is asked for, see `latency`.
    """

    name: str
    path: str
    stream_name: str
    mixer: MixerSpec = MixerSpec()
    encoder: EncoderSpec = EncoderSpec()
    sub_mixes: int = 1
    forward: str | None = None
    latency_ms: int = 200

    def __post_init__(self) -> None:
        ok = 1 <= self.sub_mixes <= MAX_SUB_MIXES
        _require(ok, f"subMixes {self.sub_mixes} is not within 1…{MAX_SUB_MIXES}", "subMixes")
        ok = 0 <= self.latency_ms <= MAX_LATENCY_MS
        _require(ok, f"latency {self.latency_ms} ms is not within 0…{MAX_LATENCY_MS}", "latency")

    @property
    def latency(self) -> Fraction:
        """From a slot's time to its mixing, in seconds: the sound of the whole slot must have come by then."""
        least = ceil(1000 / self.mixer.fps) + ARRIVAL_MS
        return Fraction(max(self.latency_ms, least), 1000)

    def stream(self, n: int = 0) -> str:
        """The stream that sub-mix n publishes."""
        return f"{self.path}/{self.stream_name}" + (f"_{n}" if n else "")


class PullSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A stream that the engine fetches or makes by itself: from a URL that libav opens, or a pattern.

    loop  begin again at the end of a file.
    """

    url: str | None = None
    pattern: str | None = None  # "bars", "count?size=640x360&rate=25&tone=440": see sources/pattern.py
    loop: bool = False

    def __post_init__(self) -> None:
        _require((self.url is None) != (self.pattern is None), "either url or pattern must be given", "url")
        for name, text in (("url", self.url), ("pattern", self.pattern)):
            _require(text is None or 0 < len(text) <= 4096, f"{name} must have 1…4096 characters", name)
            _require("\0" not in (text or ""), f"{name} has a NUL character", name)
