"""Mashes as templates of jobs: assets in their places, and what is to be made of them (see engine.template.Dialect).

It decides which clips an asset is for and what its property means there; it refuses to know files, and how anything is
rendered.

Names. ``layerName`` is the label of clips, or the id or label of a definition, whose clips all are meant; the mash's
own label means its background. ``layerIndex`` counts clips from 1 in the order of painting. Media become the content of
the clip, or take the place of the definition by whose name it was found; its properties stay. ``composition`` is a kind
of output, or the base name of one of the document's ``outputs``; ``*`` all of these, or a film where there are none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final

import msgspec

from api.moviemasher.fields import Object, is_built_in, is_document, source_of
from api.moviemasher.mash import FONT, TEXT_ID
from api.moviemasher.options import OUTPUT, PREVIEW
from api.moviemasher.outputs import AUDIO, EXTENSIONS, IMAGE, SEQUENCE, TYPES, VIDEO, Output, read_outputs
from api.moviemasher.renders import id_of, ids_used, whole
from engine.errors import InvalidJob
from engine.strictjson import parse_json
from engine.template import MAX_DOCUMENT, Asset, Order, Scene, item, places_of

LOCATED: Final = "located"  # our mark at a definition whose source is where it says
MEDIA: Final = ("audio", FONT, "image", "video", "videosequence")
_CLIP: Final = ("frame", "frames", "timing", "sizing", "label", "contentId", "containerId")
_CONTENT: Final = ("color", "gain", "speed", "muted", "startTrim", "endTrim", "loops", "effects")
_CONTAINER: Final = ("string", "fontId", "x", "y", "width", "height", "opacity", "lock", "offN", "offE", "offS", "offW")
_MASH: Final = ("color", "label", "quantize")
_ALIASES: Final = {  # what templates of After Effects call it
    "source text": "string",
    "source text.text": "string",
    "source text.font": "fontId",
    "opacity": "container.opacity",
}


def reads(document: bytes) -> bool:
    """Whether it is a mash or a cast."""
    return is_document(document)


def place(document: bytes, order: Order, files: Sequence[str | None]) -> Scene:
    """The document with the assets in their places, and only them located. Raises InvalidTree, InvalidJob."""
    value = whole(parse_json(document, limit_bytes=MAX_DOCUMENT))
    value["definitions"] = without_built_in(value.get("definitions"))
    for name, asset, file, found in places_of(order, files, partial(_found, value), "clip"):
        if found and file is not None:
            definition = {"id": name, "type": asset.type, "label": name, "source": file}
            value["definitions"].append(definition | {LOCATED: True})
        for owner, kinds in found:
            _put(owner, kinds, asset, name)
    outputs, chosen = _chosen(value, order)
    value["outputs"] = outputs
    if chosen is None:
        order.refuse_options()
    return Scene(
        tree=msgspec.json.encode(value),
        sources={},
        several=chosen is None,
        numbered=chosen is None and outputs[0].get("outputType") == SEQUENCE,
        options={} if chosen is None else _options(chosen),
        extension="" if chosen is None else chosen.extension,
    )


def unlocated(scene: Scene) -> list[str]:
    """The sources of definitions that clips use, and that no asset replaced."""
    return list(dict.fromkeys(source for _, source in definitions_used(msgspec.json.decode(scene.tree))))


def locate(scene: Scene, places: Mapping[str, str]) -> Scene:
    """The scene with these sources located too."""
    value = located(msgspec.json.decode(scene.tree), places)
    return msgspec.structs.replace(scene, tree=msgspec.json.encode(value))


def located(value: Object, places: Mapping[str, str]) -> Object:
    """The document with these sources of definitions that clips use located; a source not among them is what it says.

    Definitions of media that no clip uses are left out: whoever reads it finds no file that was not looked for.
    """
    for definition, source in definitions_used(value):
        definition |= {"source": places.get(source, source), LOCATED: True}
    definitions = [each for each in _list(value.get("definitions")) if each.get(LOCATED) or not file_of(each)]
    return {**value, "definitions": definitions}


def without_built_in(definitions: object) -> list[Object]:
    """The definitions without fonts that are built in here, whose addresses would be fetched, and without our marks."""
    found = [each for each in _list(definitions) if isinstance(each, dict)]
    return [{key: value for key, value in each.items() if key != LOCATED} for each in found if not is_built_in(each)]


def definitions_used(value: Object) -> Iterator[tuple[Object, str]]:
    """The definitions of media that clips use and that are not located yet, and where each says that it is."""
    used = set(ids_used(value))
    for definition in _list(value.get("definitions")):
        source = file_of(definition)
        if id_of(definition) in used and source and not definition.get(LOCATED):
            yield definition, source


def file_of(definition: Object) -> str:
    """Where its file is; nothing for what has no file."""
    return source_of(definition) if definition.get("type") in MEDIA else ""


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


# --- what is made ----------------------------------------------------------------------------------------------------


def _chosen(value: Object, order: Order) -> tuple[list[Object], Output | None]:
    """(outputs that the document says itself, or the one whose file is the job's)."""
    name, given = order.composition or "*", _list(value.get("outputs"))
    if given:
        outputs = read_outputs(given, preview=PREVIEW, output=OUTPUT)
        if name == "*":
            return given, None
        found = [each for each, output in zip(given, outputs, strict=True) if output.base == name]
        if found:
            return found, None
    mash = value.get("mash") or value.get("cast")
    kind = VIDEO if name == "*" or (isinstance(mash, dict) and name == mash.get("label")) else name
    if kind not in TYPES:
        known = ", ".join((*TYPES, *(str(each.get("basename")) for each in given if each.get("basename"))))
        raise InvalidJob(f"template.composition {name[:80]!r} is not one of {known}", where="$.template.composition")
    asked: Object = {"outputType": kind}
    if order.extension in EXTENSIONS[kind]:
        asked["extension"] = order.extension
    (output,) = read_outputs([asked], preview=PREVIEW, output=OUTPUT)
    return ([], output) if kind in (VIDEO, AUDIO, IMAGE) else ([{"outputType": kind}], None)


def _options(output: Output) -> dict[str, str]:
    """An output's settings as options of the render command, but for the profile: films are high or less anyway."""
    encoder, (width, height) = output.encoder, output.size
    return {
        "--size": f"{width}x{height}",
        "--fps": str(output.rate),
        "--audio-rate": str(output.sound.rate),
        "--channels": str(output.sound.channels),
        "--audio-bit-rate": str(encoder.audio_bit_rate),
        "--gop": str(encoder.gop),
    }


# --- assets ----------------------------------------------------------------------------------------------------------


def _put(owner: Object, kinds: Sequence[str], asset: Asset, where: str) -> None:
    """A property into a clip or the mash; or a definition, called `where`, for what of a clip `kinds` says."""
    if asset.type != "data":
        for kind in kinds:
            owner[f"{kind}Id"] = where
            owner.setdefault(kind, {})
    elif kinds:
        _set_property(owner, asset, where)
    else:
        _set(owner, _MASH, asset, where)


def _found(value: Object, asset: Asset) -> list[tuple[Object, Sequence[str]]]:
    """The clips that an asset is for, and what of each a file becomes: its content, its container, or both.

    Or the mash, of which a file becomes nothing.
    """
    clips = list(clips_of(value))
    if asset.layer_name in (None, ""):
        chosen = asset.among(clips)
        return [] if chosen is None else [(chosen, ("content",))]
    called = [clip for clip in clips if clip.get("label") == asset.layer_name]
    if called:
        return [(clip, ("content",)) for clip in called]
    meant = [id_of(each) for each in value["definitions"] if asset.layer_name in (each.get("id"), each.get("label"))]
    using = [(clip, _kinds(clip, meant)) for clip in clips if set(meant).intersection(ids_used(clip))]
    mash = value.get("mash") or value.get("cast")
    if using or asset.type != "data" or not isinstance(mash, dict):
        return using
    return [(mash, ())] if asset.layer_name in ("mash", mash.get("label")) else []


def _kinds(clip: Object, meant: Sequence[str]) -> Sequence[str]:
    """What of a clip one of these definitions is; its content, if it is only the font."""
    return [kind for kind in ("content", "container") if clip.get(f"{kind}Id") in meant] or ["content"]


def clips_of(value: Any) -> Iterator[Object]:
    """The clips of a document in the order of painting: of a cast the last layer first."""
    if isinstance(value, dict):
        for name in ("mash", "cast"):
            yield from clips_of(value.get(name))
        for layer in reversed(_list(value.get("layers"))):
            yield from clips_of(layer)
        for track in _list(value.get("tracks")):
            if isinstance(track, dict):
                yield from (clip for clip in _list(track.get("clips")) if isinstance(clip, dict))


def _set_property(clip: Object, asset: Asset, where: str) -> None:
    """Sets a property, ``string``, ``content.color`` or ``effects[0].similarity``; null gives it its default."""
    path = _ALIASES.get(asset.property.lower(), asset.property)
    name = re.split(r"[.\[]", path)[0].removesuffix("End")
    allowed: Sequence[str] = (*_CONTENT, *_CONTAINER)
    if name in _CLIP:
        kind, allowed = "", _CLIP
    elif name in ("content", "container"):
        kind, path = name, path.partition(".")[2]
    else:
        kind = "content" if name in _CONTENT else "container"
    owner = clip.setdefault(kind, {}) if kind else clip
    if not isinstance(owner, dict):
        raise InvalidJob(f"{where}: the clip has no {kind}", where=f"$.{where}")
    if kind == "container" and path in ("string", "fontId"):
        owner.pop("intrinsic", None)  # the client measured it for what was there
        if path == "string":
            clip.setdefault("containerId", TEXT_ID)
    _set(owner, allowed, asset, where, path=path)


def _set(owner: Object, allowed: Sequence[str], asset: Asset, where: str, *, path: str | None = None) -> None:
    *above, last = [key for key in re.split(r"[.\[\]]+", asset.property if path is None else path) if key] or [""]
    if (above or [last])[0].removesuffix("End") not in allowed:
        raise InvalidJob(f"{where}.property {asset.property[:80]!r} is none of a clip", where=f"$.{where}.property")
    at: Any = owner
    for key in above:
        at = at.get(key) if isinstance(at, dict) else item(at, key)
    if not isinstance(at, dict):
        raise InvalidJob(f"{where}.property {asset.property[:80]!r} is not there", where=f"$.{where}.property")
    at[last] = asset.value
    if asset.value is None:
        del at[last]
