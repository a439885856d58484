"""What a rendering is asked for: the outputs of a request with their defaults, and in how few passes they are made.

It decides what an output is called, how large and how fast it is, and which of them share one mix; it refuses to know
what is mixed, and where files are.

Passes. A mix is as large and fast as its films; images that have its proportions are made smaller from it, sequences
take every n-th of its pictures, sounds and waves take its sound. What fits no mix gets one of its own. Images alone
are a mix of one moment.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from fractions import Fraction
from itertools import permutations
from typing import Any, Final, TypeVar

import msgspec

from api.moviemasher.fields import colour_of, number_of
from engine.errors import InvalidMash, InvalidSpec
from engine.spec import AAC_RATES, MP3_RATES, OPUS_RATES, AudioFormat, EncoderSpec, MixerSpec, OutputSpec, Raster
from engine.timebase import frame_rate

VIDEO, AUDIO, IMAGE, SEQUENCE, WAVEFORM = TYPES = ("video", "audio", "image", "imagesequence", "waveform")
MAX_OUTPUTS: Final = 32
SOUND_RATE: Final = 44_100
GOP: Final = 60
EXTENSIONS: Final = {
    VIDEO: ("mp4", "m4v", "mov", "mkv", "webm"),
    AUDIO: ("mp3", "m4a", "wav"),
    IMAGE: ("jpg", "jpeg", "png"),
    SEQUENCE: ("jpg", "jpeg", "png"),
    WAVEFORM: ("png",),
}
_SOUND_RATES: Final = {"webm": OPUS_RATES, "mp3": MP3_RATES, "wav": None}  # of the others AAC's; None = any
_SIZES: Final = {WAVEFORM: Raster(320, 240)}
_RATES: Final = {SEQUENCE: Fraction(10)}
_FINEST: Final = 1_000_000  # parts that a mash is cut in: 0.3333333333333333 is the third, at a cut and not before it
_ORDER: Final = {VIDEO: 0, SEQUENCE: 1, IMAGE: 2, AUDIO: 3, WAVEFORM: 4}
_BASE: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
T = TypeVar("T", bound=float | None)


class Output(msgspec.Struct, frozen=True, kw_only=True):
    """One output with everything filled in.

    base    the file's name without its extension; of a sequence what stands before the numbers, if it is not its type.
    size    width and height in pixels, even ones of a film.
    offset  0…1 of the mash: which picture an image is.
    """

    type: str
    base: str
    extension: str
    size: tuple[int, int]
    rate: Fraction
    sound: AudioFormat
    encoder: EncoderSpec
    offset: Fraction = Fraction(0)
    optional: bool = False
    mute: bool = False
    colours: tuple[str, str] = ("#000000", "#00000000")

    @property
    def file(self) -> str:
        """The file's name; a sequence's files have numbers."""
        return "" if self.type == SEQUENCE else f"{self.base}.{self.extension}"

    @property
    def prefix(self) -> str:
        """What a sequence's files have before their numbers; nothing where the client pads the numbers itself."""
        return "" if self.base == SEQUENCE else f"{self.base}-"

    @property
    def has_picture(self) -> bool:
        """Whether it is something to see of the mash."""
        return self.type in (VIDEO, IMAGE, SEQUENCE)

    @property
    def has_sound(self) -> bool:
        """Whether it is something to hear, or drawn from it."""
        return self.type in (AUDIO, WAVEFORM) or (self.type == VIDEO and not self.mute)


class Pass(msgspec.Struct, kw_only=True):
    """Outputs that are made from one mix. at: of images alone, the moment; None = the whole mash."""

    mixer: MixerSpec
    outputs: list[Output]
    at: Fraction | None = None

    @property
    def has_picture(self) -> bool:
        """Whether anything of it is seen."""
        return any(output.has_picture for output in self.outputs)

    @property
    def has_sound(self) -> bool:
        """Whether anything of it is heard."""
        return any(output.has_sound for output in self.outputs)


def read_outputs(value: object, *, preview: Raster, output: Raster) -> list[Output]:
    """The outputs of a request: at least one.

    preview  the size of images that say none, output that of films.
    Raises   InvalidMash: an unknown type, a size or rate that cannot be, names of which one file would be two.
    """
    if not isinstance(value, list) or not value or len(value) > MAX_OUTPUTS:
        raise InvalidMash(f"$.outputs: expected an array of 1…{MAX_OUTPUTS} outputs", where="$.outputs")
    sizes = {VIDEO: output, IMAGE: preview, SEQUENCE: preview, AUDIO: preview, **_SIZES}
    read: list[Output] = []
    for n, each in enumerate(value):
        where = f"$.outputs[{n}]"
        if not isinstance(each, dict):
            raise InvalidMash(f"{where}: expected an object", where=where)
        kind = each.get("outputType")
        if kind not in TYPES:
            raise InvalidMash(f"{where}.outputType: {str(kind)[:40]!r} is not one of {', '.join(TYPES)}", where=where)
        try:
            found = _output(each, str(kind), sizes[str(kind)])
        except InvalidSpec as err:
            raise InvalidMash(f"{where}: {err}", where=where) from None
        read.append(msgspec.structs.replace(found, base=_free_name(found, read, each.get("basename"))))
    _check_numbers(read)
    return read


def _output(given: dict[str, Any], kind: str, default: Raster) -> Output:
    raw = given.get("options")
    options: dict[str, Any] = raw if isinstance(raw, dict) else {}
    extension = str(given.get("extension") or given.get("format") or EXTENSIONS[kind][0]).lower()
    if kind == SEQUENCE and extension == "image2":  # which is how the numbering is called
        extension = EXTENSIONS[kind][0]
    if extension not in EXTENSIONS[kind]:
        raise InvalidSpec(
            f"extension {extension[:20]!r} is not one of {', '.join(EXTENSIONS[kind])}", where="extension"
        )
    bit_rate = _number(given, "audioBitrate", 160)
    size = round(_number(given, "width", default.width)), round(_number(given, "height", default.height))
    if kind == VIDEO or min(size) < 1:  # of the others it only says what is wrong
        raster = Raster.of(*size)
        size = raster.width, raster.height
    OutputSpec(path="", size=size)
    return Output(
        type=kind,
        base=kind,
        extension=extension,
        size=size,
        rate=_rate(given, _RATES.get(kind, Fraction(30))),
        sound=AudioFormat(_sound_rate(given, kind, extension), round(_number(given, "audioChannels", 2))),
        encoder=EncoderSpec(
            quality=_number(options, "crf", None),  # else 20: with our preset as near to the picture as 23 with theirs
            gop=round(_number(options, "g", GOP)),
            profile="high" if extension != "webm" else None,
            audio_bit_rate=round(bit_rate * 1000 if abs(bit_rate) < 1000 else bit_rate),
        ),
        offset=Fraction(min(1.0, max(0.0, _number(given, "offset", 0)))).limit_denominator(_FINEST),
        optional=given.get("optional") is True,
        mute=given.get("mute") is True,
        colours=(_colour(given, "forecolor", "#000000"), _colour(given, "backcolor", "#00000000")),
    )


def _sound_rate(given: dict[str, Any], kind: str, extension: str) -> int:
    """Samples a second: the dialect's default, or the most there is where the codec has no such rate."""
    rates = _SOUND_RATES.get(extension, AAC_RATES) if kind in (VIDEO, AUDIO) else None
    rate = round(_number(given, "audioRate", SOUND_RATE if rates is None or SOUND_RATE in rates else max(rates)))
    if rates is not None and rate not in rates:
        raise InvalidSpec(
            f"audioRate {rate} of {extension} is not one of {', '.join(map(str, rates))}", where="audioRate"
        )
    return rate


def _number(given: dict[str, Any], name: str, default: T) -> float | T:
    """A number, also one in a string. Raises InvalidSpec."""
    value = given.get(name)
    if value is None or value == "":
        return default
    number = number_of(value)
    if number is None:
        raise InvalidSpec(f"{name} {str(value)[:40]!r} is no number", where=name)
    return number


def _rate(given: dict[str, Any], default: Fraction) -> Fraction:
    value = given.get("videoRate")
    if value is None or value == "":
        return default
    try:
        rate = frame_rate(value)
    except (ValueError, TypeError, ZeroDivisionError, OverflowError):
        raise InvalidSpec(f"videoRate {str(value)[:40]!r} is no number", where="videoRate") from None
    return MixerSpec(fps=rate).fps


def _colour(given: dict[str, Any], name: str, default: str) -> str:
    value = given.get(name) or default
    if not isinstance(value, str) or colour_of(value) is None:
        raise InvalidSpec(f"{name} {str(value)[:40]!r} is no colour like #rrggbb", where=name)
    return value


def _free_name(output: Output, before: Iterable[Output], given: object) -> str:
    """What it is called: as is asked for, or as its type, numbered from the second one on."""
    taken = {(each.base, each.extension) for each in before}
    if given not in (None, ""):
        base = str(given)
        if not _BASE.fullmatch(base) or (base, output.extension) in taken:
            raise InvalidMash(f"$.outputs: basename {base[:40]!r} is taken, or no plain word", where="$.outputs")
        return base
    names = (output.type, *(f"{output.type}-{n}" for n in range(1, MAX_OUTPUTS + 1)))
    return next(name for name in names if (name, output.extension) not in taken)


def _check_numbers(outputs: Iterable[Output]) -> None:
    """Raises InvalidMash: a file is called as one of a sequence's."""
    for sequence, other in permutations(outputs, 2):
        is_beside = sequence.type == SEQUENCE != other.type and sequence.extension == other.extension
        if is_beside and re.fullmatch(rf"{sequence.prefix}\d+", other.base):
            raise InvalidMash(f"$.outputs: basename {other.base!r} is that of a sequence's file", where="$.outputs")


# --- passes ----------------------------------------------------------------------------------------------------------


def passes_for(outputs: Iterable[Output], *, duration: Fraction) -> list[Pass]:
    """In which mixes outputs of a mash of so many seconds are made."""
    passes: list[Pass] = []
    for output in sorted(outputs, key=lambda each: (_ORDER[each.type], -each.size[0] * each.size[1], -each.rate)):
        found = next((each for each in passes if _joins(each, output, duration)), None)
        if found is None:
            at = moment(output, duration) if output.type == IMAGE else None
            passes.append(Pass(mixer=_mixer(output), outputs=[output], at=at))
        else:
            if not found.has_sound and output.has_sound:
                found.mixer = msgspec.structs.replace(found.mixer, audio=output.sound)
            found.outputs.append(output)
    return passes


def moment(output: Output, duration: Fraction) -> Fraction:
    """Seconds after the start: the picture of an image; at most the last one."""
    return max(Fraction(0), min(output.offset * duration, duration - 1 / output.rate))


def _mixer(output: Output) -> MixerSpec:
    width, height = ((side + 1) & ~1 for side in output.size)
    return MixerSpec(raster=Raster.of(width, height), fps=output.rate, audio=output.sound)


def _joins(mix: Pass, output: Output, duration: Fraction) -> bool:
    if output.has_sound and (mix.at is not None or (mix.has_sound and mix.mixer.audio != output.sound)):
        return False
    if not output.has_picture:
        return mix.at is None
    if not mix.has_picture:
        return False
    (width, height), raster = output.size, mix.mixer.raster
    if output.type == VIDEO:
        return raster == _mixer(output).raster and mix.mixer.fps == output.rate
    if (
        width > raster.width
        or height > raster.height
        or abs(width * raster.height - height * raster.width) > raster.width
    ):
        return False
    if output.type == SEQUENCE:
        return (mix.mixer.fps / output.rate).denominator == 1
    at = moment(output, duration)
    return mix.at == at if mix.at is not None else (at * mix.mixer.fps).denominator == 1


def output_spec(output: Output, mix: Pass, folder: str, *, duration: Fraction, seen: bool, heard: bool) -> OutputSpec:
    """The engine's words for it: in `folder`, of a mash in which something is seen, or heard."""
    number = f"{output.prefix}%0{digits(duration, output.rate)}d.{output.extension}"
    same = output.size == (mix.mixer.raster.width, mix.mixer.raster.height)
    return OutputSpec(
        path=f"{folder}/{output.file or number}",
        encoder=output.encoder,
        picture=seen,
        sound=heard and not output.mute,
        size=None if same and output.type != WAVEFORM else output.size,
        at=moment(output, duration) if output.type == IMAGE and mix.at is None else Fraction(0),
        every=int(mix.mixer.fps / output.rate) if output.type == SEQUENCE else 1,
        waveform=output.colours if output.type == WAVEFORM else None,
    )


def digits(duration: Fraction, rate: Fraction) -> int:
    """How many digits the numbers of a sequence have: as many as the client thinks, from the same two numbers."""
    last = math.floor(float(duration) * float(rate)) - 2
    return len(str(max(0, last)))
