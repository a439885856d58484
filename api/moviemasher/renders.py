"""A mash, a cast or an upload as renders: what is mixed in which passes, into which files.

It decides which outputs come to nothing, and what is told of the others; it refuses to know who asked, and how a mix is
made. It looks into media files, so that a document need not say what is in them: worker threads and children only.

A document is ``{"mash": …}`` or ``{"cast": …}`` with ``definitions``, whose sources are paths or URLs by now. With
``outputs`` it says itself what is made of it. With ``upload`` it is a file of which a browser is to get something to
show: a type of definition, and the file is the source of the first definition.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import PurePath
from typing import Final, NamedTuple

import msgspec

from api.moviemasher.fields import Object, source_of
from api.moviemasher.mash import FONT, Film, Measure, read_cast, read_mash
from api.moviemasher.options import OUTPUT, PREVIEW
from api.moviemasher.outputs import AUDIO, IMAGE, VIDEO, WAVEFORM, Output, Pass, output_spec, passes_for, read_outputs
from engine.errors import InvalidMash
from engine.media import Facts, ink_measure, length_of, look_into, shrink_image
from engine.program import Held, Program, halved
from engine.spec import Raster, RenderSpec
from engine.tree import AudioSourceNode, CompositorNode, RenderTree, SumNode, VideoSourceNode

WIDEST: Final = 4096  # pixels of what is made of an upload, which may be as flat as a line
TIMED: Final = ("audio", "video", "videosequence")
NO_SOUND: Final = "found no audio"
NO_PICTURE: Final = "found no video"


class Made(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An output when it is there, or why an optional one is not. `file` is empty where there are many."""

    type: str
    file: str
    width: int
    height: int
    warning: str = ""


class Result(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a rendering made, in the order of its outputs; of an upload also what was in it. Times in seconds."""

    outputs: list[Made]
    duration: float | None = None
    width: int | None = None
    height: int | None = None
    has_sound: bool = False


class Renders(NamedTuple):
    """What is to be mixed, one after the other; `finish` is called when all is there, and tells what was made."""

    renders: list[tuple[Program, RenderSpec]]
    finish: Callable[[], Result]


def whole(document: Object) -> Object:
    """The document; a mash alone becomes one."""
    return {"mash": document} if "mash" not in document and "cast" not in document else document


def film_of(document: Object, raster: Raster, *, measure: Measure | None = None) -> Film:
    """The film of a document for an output of that size. Raises InvalidMash."""
    definitions = document.get("definitions") or []
    if "cast" in document:
        return read_cast(document["cast"], definitions, raster=raster, measure=measure)
    return read_mash(document["mash"], definitions, raster=raster, measure=measure)


def complete(document: Object) -> Object:
    """The document with what its media files say of themselves where it does not. Raises SourceError."""
    used = set(ids_used(document))
    definitions = [
        _completed(each) if isinstance(each, dict) and id_of(each) in used else each
        for each in document.get("definitions") or ()
    ]
    return {**document, "definitions": definitions}


def ids_used(value: object) -> list[str]:
    """The ids of definitions that clips name, in their order."""
    found: list[str] = []
    if isinstance(value, dict):
        found += [each for name in ("contentId", "containerId", "fontId") if isinstance(each := value.get(name), str)]
        for name in ("mash", "cast", "layers", "tracks", "clips", "container"):
            found += ids_used(value.get(name))
    elif isinstance(value, list):
        for each in value:
            found += ids_used(each)
    return found


def id_of(definition: Object) -> str:
    """A definition's id; one that is no string is none."""
    name = definition.get("id")
    return name if isinstance(name, str) else ""


def _completed(definition: Object) -> Object:
    kind, source = definition.get("type"), definition.get("source")
    needed = [name for name in ("duration",) if kind in TIMED] + [name for name in ("sourceSize",) if kind != AUDIO]
    if kind not in (*TIMED, "image") or not isinstance(source, str) or all(definition.get(name) for name in needed):
        return definition
    facts = look_into(source, name=str(definition.get("label") or definition.get("id")))
    found: Object = {}
    if facts.size is not None:
        found["sourceSize"] = {"width": facts.size[0], "height": facts.size[1]}
    if facts.duration is not None:
        found |= {"duration": float(facts.duration), "audio": facts.has_sound}
    return found | {key: value for key, value in definition.items() if value is not None}


def fonts_of(document: Object) -> dict[str, str]:
    """The font files of a document's definitions, by id; of two with one id the first counts."""
    return {
        id_of(each): source
        for each in reversed(document.get("definitions") or ())
        if isinstance(each, dict) and each.get("type") == FONT and (source := source_of(each))
    }


# --- a mash ----------------------------------------------------------------------------------------------------------


def renders_of(document: Object, folder: str) -> Renders:
    """What is rendered of a document that says its outputs, into files of a folder.

    Raises InvalidMash: there is nothing to render; SourceError.
    """
    outputs = read_outputs(document.get("outputs"), preview=PREVIEW, output=OUTPUT)
    if document.get("upload"):
        return _upload(document, outputs, folder)
    document = complete(document)
    measure = ink_measure(fonts_of(document))
    films: dict[Raster, Film] = {}

    def film(raster: Raster) -> Film:
        if raster not in films:
            films[raster] = film_of(document, raster, measure=measure)
        return films[raster]

    some = film(PREVIEW)
    duration = length(some)
    warnings = {output: lacks(output, seen=some.seen, heard=some.heard) for output in outputs}
    wanted = [output for output in outputs if not warnings[output]]
    renders = [_render(film(mix.mixer.raster), mix, folder, duration) for mix in passes_for(wanted, duration=duration)]
    made = [_made(output, warnings[output]) for output in outputs]
    return Renders(renders, lambda: Result(outputs=made, duration=float(duration)))


def length(film: Film) -> Fraction:
    """Seconds from where its playhead stands to its end. Raises InvalidMash when there are none."""
    duration = film.duration - film.start
    if duration <= 0:
        raise InvalidMash("$.mash.tracks: there are no clips", where="$.mash.tracks")
    return duration


def lacks(output: Output, *, seen: bool, heard: bool) -> str:
    """Why an optional output is not made, nothing where it is. Raises InvalidMash for one that must be."""
    if output.type in (AUDIO, WAVEFORM):
        missing = "" if heard else NO_SOUND
    elif output.type == VIDEO:
        missing = "" if seen or (heard and not output.mute) else NO_PICTURE
    else:
        missing = "" if seen else NO_PICTURE
    if missing and not output.optional:
        raise InvalidMash(missing, where="$.outputs")
    return missing


def _render(film: Film, mix: Pass, folder: str, duration: Fraction) -> tuple[Program, RenderSpec]:
    sources = film.sources | film.fonts
    spec = _spec(mix, folder, duration, seen=film.seen, heard=film.heard, sources=sources, start=film.start)
    return halved(film.program, picture=mix.has_picture and film.seen, sound=mix.has_sound), spec


def _spec(
    mix: Pass, folder: str, duration: Fraction, *, seen: bool, heard: bool, sources: dict[str, str], start: Fraction
) -> RenderSpec:
    """What one pass makes of `duration` seconds from `start` on."""
    outputs = tuple(output_spec(each, mix, folder, duration=duration, seen=seen, heard=heard) for each in mix.outputs)
    return RenderSpec(
        output=outputs[0].path,
        outputs=outputs,
        mixer=mix.mixer,
        sources=sources,
        start=start + (mix.at or 0),
        duration=duration if mix.at is None else 1 / mix.mixer.fps,
    )


def _made(output: Output, warning: str) -> Made:
    width, height = output.size
    return Made(type=output.type, file=output.file, width=width, height=height, warning=warning)


# --- an upload -------------------------------------------------------------------------------------------------------


def _upload(document: Object, outputs: Sequence[Output], folder: str) -> Renders:
    (definition, *_) = document["definitions"]
    source, kind = str(definition["source"]), document["upload"]
    facts = look_into(source, name="upload")
    png = kind == IMAGE and (PurePath(source).suffix.lower() in (".png", ".svg") or not facts.opaque)
    outputs = [_fitted(each, facts, png=png) for each in outputs]
    warnings = {
        each: lacks(each, seen=facts.size is not None and kind != AUDIO, heard=facts.has_sound) for each in outputs
    }
    wanted = [output for output in outputs if not warnings[output]]
    made = [_made(output, warnings[output]) for output in outputs]
    if kind == IMAGE:
        images = {f"{folder}/{each.file}": each.size for each in wanted}

        def shrink() -> Result:
            shrink_image(source, images, name="upload")
            return _found(facts, made, None)

        return Renders([], shrink)
    duration = facts.duration or length_of(source, name="upload")
    renders = [_reduced(mix, source, folder, duration, facts) for mix in passes_for(wanted, duration=duration)]
    return Renders(renders, lambda: _found(facts, made, duration))


def _fitted(output: Output, facts: Facts, *, png: bool) -> Output:
    """With the proportions of what was sent, as high as is asked for, or as wide as may be.

    A PNG stays one. What can be seen through becomes one, as a JPEG of it would be black there, and so does every SVG,
    although Movie Masher's own server makes a JPEG of that.
    """
    if not output.has_picture or facts.size is None:
        return output
    width, height = facts.size
    widest = max(WIDEST, output.size[0])
    high = min(output.size[1], max(1, widest * height // width))
    size = max(1, min(widest, round(high * width / height))), high
    return msgspec.structs.replace(output, size=size, extension="png" if png else output.extension)


def _reduced(mix: Pass, source: str, folder: str, duration: Fraction, facts: Facts) -> tuple[Program, RenderSpec]:
    node = VideoSourceNode(stream_guid="upload", hold=True) if mix.has_picture else None
    sound = AudioSourceNode(stream_guid="upload") if mix.has_sound and facts.has_sound else None
    tree = RenderTree(
        root_video_node=None if node is None else CompositorNode(nodes=(node,)),
        root_audio_node=None if sound is None else SumNode(nodes=(sound,)),
    )
    sources = {"upload": source}
    return Held(tree), _spec(mix, folder, duration, seen=True, heard=True, sources=sources, start=Fraction(0))


def _found(facts: Facts, made: Sequence[Made], duration: Fraction | None) -> Result:
    width, height = facts.size or (None, None)
    return Result(
        outputs=list(made),
        duration=None if duration is None else float(duration),
        width=width,
        height=height,
        has_sound=facts.has_sound,
    )
