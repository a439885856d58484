"""What a job asks to be rendered, read from its document: a RenderTree with its sources and properties replaced.

It decides which fields of a job mean what, and refuses what would be rendered wrongly; it refuses to know files,
addresses, and how anything is rendered.

Names. `assets` find their place in the tree by ``layerName``: a node's `id`, `streamGuid` or `filename`; or by
``layerIndex``, from 1, in the order of painting, the sound's after the picture's: media count sources of their kind,
``data`` everything that is no group. A video found as a picture takes its sound along: every sound of that streamGuid.
Several may have the same place: ``data`` are set first, then all media find theirs, and take them. Of all that have a
name, a property is set in those that can have it.

What nexrender reads from the composition is in ``template``, or in its ``outputSettings``: `SETTINGS`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import PurePath
from typing import Any, Final, Protocol, TypeVar, get_args

import msgspec

from engine.errors import InvalidJob
from engine.spec import PRESETS
from engine.strictjson import digits_of, parse_json
from engine.structs import ready
from engine.timebase import frame_rate
from engine.tree import MAX_BYTES, AudioNode, RenderTree, VideoNode
from engine.urls import without_query

# A setting of a job → the option of the render command.
SETTINGS: Final[Mapping[str, str]] = {
    "frameRate": "--fps",
    "duration": "--duration",
    "audioSampleRate": "--audio-rate",
    "audioChannels": "--channels",
    "preset": "--preset",
    "bitRate": "--bit-rate",
    "maxBitRate": "--max-bit-rate",
    "quality": "--quality",
    "qpMin": "--qp-min",
    "qpMax": "--qp-max",
    "gop": "--gop",
    "profile": "--profile",
    "audioBitRate": "--audio-bit-rate",
    "onError": "--on-error",
}
SIZE: Final = ("width", "height")
# An option of the render command → what the job calls it.
NAMES: Final[Mapping[str, str]] = {
    **{option: f"template.{name}" for name, option in SETTINGS.items()},
    "--size": f"template.{SIZE[0]}",
    "--start": "template.frameStart",
}
MEDIA: Final = ("image", "video", "audio")
EXTENSION: Final = "mp4"
_PICTURES: Final = ("VideoSourceNode", "ImageSourceNode")
_SOUND: Final = "AudioSourceNode"
_GROUPS: Final = ("CompositorNode", "SumNode")
_MEGABITS: Final = re.compile(r"(\d+(?:\.\d+)?)\s*[Mm]bps")
_ALIASES: Final = {  # what templates of After Effects call it
    "source text": "string",
    "source text.text": "string",
    "source text.font": "font",
    "source text.fontsize": "size",
}
_FIELDS: Final = {
    kind.__name__: frozenset(field.encode_name for field in msgspec.structs.fields(kind))
    for kind in (*get_args(VideoNode), *get_args(AudioNode))
}
MAX_DOCUMENT: Final = 16 << 20  # bytes, of whatever kind; a RenderTree may have less
MAX_NAME: Final = 200  # bytes of a file's name; 255 are possible, and a file that is being made has a longer one
_BAD_PATH: Final = re.compile(r"[\x00-\x1f\x7f/\\]")

Node = dict[str, Any]
T = TypeVar("T")


class Params(msgspec.Struct, frozen=True):
    """How to ask an HTTP server: of what nexrender takes for its ``fetch``, this has a meaning here."""

    headers: dict[str, str] = {}


class Asset(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What is put into the template; `value` and `property` of ``data``, `src` of everything else."""

    type: str
    src: str = ""
    layer_name: Any = None
    layer_index: Any = None
    composition: Any = None
    name: str = ""
    extension: str = ""
    checksum: str = ""
    property: str = ""
    value: Any = None
    params: Params = Params()
    continue_on_missing: bool = False

    def names(self) -> tuple[str, ...]:
        """What a document may call the file of a ``static`` asset; nexrender gives it its name and its extension."""
        dotted = f".{self.extension.lstrip('.')}" if self.extension else ""
        return f"{self.name}{dotted}", self.name, file_name(self.src, "file"), self.src

    def among(self, items: Sequence[T]) -> T | None:
        """The one that ``layerIndex`` counts, the first as 1; None where it counts none of them."""
        index = self.layer_index
        if isinstance(index, str) and index.isascii() and index.isdigit():
            index = int(index)
        return items[index - 1] if isinstance(index, int) and 1 <= index <= len(items) else None


ready(Params, Asset)


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What a job asks for: which document, with what in it, rendered with which options."""

    src: str
    composition: str
    checksum: str
    params: Params
    assets: tuple[Asset, ...]
    options: dict[str, str]
    extension: str
    skips_missing: bool

    def refuse_options(self) -> None:
        """Raises InvalidJob if there are any: the document or its composition says itself what is made."""
        for option in self.options:
            where = NAMES[option]
            raise InvalidJob(
                f"{where} has no meaning: the document or its composition says itself what is made", where=f"$.{where}"
            )


class Scene(msgspec.Struct, frozen=True, kw_only=True):
    """A document that can be rendered: its tree as JSON, and of every source the name there and where it is.

    A document of another dialect may have options of the render command and an extension where the job has none, or
    say itself which files it makes, and how: `several`; `numbered` if the first of them are the images of a sequence.
    """

    tree: bytes
    sources: dict[str, str]
    options: dict[str, str] = {}
    extension: str = ""
    several: bool = False
    numbered: bool = False


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """A document that somebody keeps here. What it names is below `folders` or at a URL, and nowhere else.

    results  the folder where what is made of it goes; None: that of the job.
    """

    document: bytes
    folders: tuple[str, ...]
    results: str | None = None


class Dialect(Protocol):
    """How documents of a kind become scenes. This module is ours, of RenderTrees."""

    def reads(self, document: bytes) -> bool:
        """Whether a document is of this kind."""

    def place(self, document: bytes, order: Order, files: Sequence[str | None]) -> Scene:
        """The document with the assets in their places, and only them located. Raises InvalidTree, InvalidJob."""

    def unlocated(self, scene: Scene) -> list[str]:
        """The sources that no asset replaced, each once."""

    def locate(self, scene: Scene, places: Mapping[str, str]) -> Scene:
        """The scene with these sources located too."""


def read_order(job: Mapping[str, Any]) -> Order:
    """The order of a job's document. Raises InvalidJob: what has no meaning, or only After Effects can do."""
    template = job.get("template")
    if not isinstance(template, dict) or not isinstance(template.get("src"), str):
        raise InvalidJob("template.src is missing", where="$.template.src")
    for name in ("imageSequence", "incrementFrame", "frameIncrement"):
        value = template.get(name)
        if value is True or value not in (None, False, 0, 1, "", "1"):
            raise InvalidJob(f"template.{name} is not supported", where=f"$.template.{name}")
    extension = str(template.get("outputExt") or EXTENSION).lstrip(".").lower()
    if not re.fullmatch(r"[a-z0-9]{1,8}", extension):
        raise InvalidJob(f"template.outputExt {extension[:80]!r} is no extension", where="$.template.outputExt")
    assets = job.get("assets") or []
    return Order(
        src=template["src"],
        composition=str(template.get("composition") or ""),
        checksum=str(template.get("checksum") or ""),
        params=_as(Params, _params(template), "template.params"),
        assets=tuple(_asset(each, f"assets[{n}]") for n, each in enumerate(assets)),
        options=_options(template),
        extension=extension,
        skips_missing=template.get("continueOnMissing") is True,
    )


def _as(kind: type[T], value: object, where: str) -> T:
    """The value as that, unknown fields left out. Raises InvalidJob."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as err:
        raise InvalidJob(f"{where}: {str(err)[:200]}", where=f"$.{where}") from None


def _params(given: Mapping[str, Any]) -> Any:
    """The `params` of a template or an asset, without what says nothing: null, or [], as PHP writes {}."""
    params = given.get("params") or {}
    return {key: each for key, each in params.items() if each} if isinstance(params, dict) else params


def _asset(value: object, where: str) -> Asset:
    if not isinstance(value, dict):
        raise InvalidJob(f"{where} is not an object", where=f"$.{where}")
    given = {key: each for key, each in value.items() if each is not None}
    asset = _as(Asset, given | {"params": _params(given)}, where)
    if asset.type not in (*MEDIA, "data", "static"):
        reason = "only runs in After Effects" if asset.type == "script" else "is unknown"
        raise InvalidJob(f"{where}.type {asset.type[:80]!r} {reason}", where=f"$.{where}.type")
    if asset.type == "data" and value.get("expression"):
        raise InvalidJob(f"{where}.expression only runs in After Effects", where=f"$.{where}.expression")
    if asset.type in MEDIA and value.get("sequence"):
        raise InvalidJob(f"{where}.sequence is not supported", where=f"$.{where}.sequence")
    field = "property" if asset.type == "data" else "src"
    if not getattr(asset, field):
        raise InvalidJob(f"{where}.{field} is missing", where=f"$.{where}.{field}")
    return asset


# --- options ---------------------------------------------------------------------------------------------------------


def _options(template: Mapping[str, Any]) -> dict[str, str]:
    """Option of the render command → its value."""
    given = {name: template[name] for name in (*SIZE, *SETTINGS) if template.get(name) is not None}
    for name in ("outputModule", "outputSettings"):
        value = template.get(name)
        if isinstance(value, dict):
            unknown = sorted(value.keys() - {*SIZE, *SETTINGS})
            if unknown:
                raise InvalidJob(f"template.{name}.{unknown[0]} is unknown", where=f"$.template.{name}.{unknown[0]}")
            given |= {key: each for key, each in value.items() if each is not None}
        elif value:
            given = _preset(value, f"template.{name}") | given
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, str | int | float) or value == "":
            raise InvalidJob(f"template.{name} is not a number or a word", where=f"$.template.{name}")
    options = {SETTINGS[name]: digits_of(value) for name, value in given.items() if name in SETTINGS}
    if "width" in given or "height" in given:
        if not ("width" in given and "height" in given):
            raise InvalidJob("template.width and height go together", where="$.template.width")
        options["--size"] = f"{digits_of(given['width'])}x{digits_of(given['height'])}"
    return options | _frames(template, options)


def _preset(name: object, where: str) -> dict[str, Any]:
    """The settings that a word stands for: a speed of the encoder, or an output module of After Effects by its rate."""
    text = str(name)
    if text.lower() in PRESETS:
        return {"preset": text.lower()}
    if text.lower() == "lossless":
        return {"quality": 0}
    if text.lower() == "high quality":
        return {"quality": 12}
    if found := _MEGABITS.search(text):
        rate = round(float(found[1]) * 1e6)
        return {"bitRate": rate, "maxBitRate": rate * 2}
    known = f'{", ".join(PRESETS)}, "Lossless", "High Quality", "… 15 Mbps"'
    raise InvalidJob(f"{where} {text[:80]!r} is not one of {known}", where=f"$.{where}")


def _frames(template: Mapping[str, Any], options: Mapping[str, str]) -> dict[str, str]:
    """The part of the film between frameStart and frameEnd, which is rendered too."""
    first, last = (_frame(template, name) for name in ("frameStart", "frameEnd"))
    if first is None and last is None:
        return {}
    try:
        fps = frame_rate(options.get("--fps", "30"))
        whole = Fraction(options["--duration"]) if "--duration" in options else None
    except (ValueError, ZeroDivisionError) as err:
        raise InvalidJob(f"template: {err}", where="$.template") from None
    first = first or 0
    found = {"--start": _seconds(first / fps)}
    if last is not None and last < first:
        raise InvalidJob(f"template.frameEnd {last} is before frameStart {first}", where="$.template.frameEnd")
    if last is not None:
        found["--duration"] = _seconds((last - first + 1) / fps)
    elif whole is not None:
        found["--duration"] = _seconds(whole - first / fps)
    return found


def _frame(template: Mapping[str, Any], name: str) -> int | None:
    value = template.get(name)
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not re.fullmatch(r"\d{1,9}(\.0)?", str(value)):
        raise InvalidJob(f"template.{name} {str(value)[:80]!r} is not a number of a frame", where=f"$.template.{name}")
    return int(float(value))


def _seconds(value: Fraction) -> str:
    return f"{value.numerator}/{value.denominator}"


# --- the tree --------------------------------------------------------------------------------------------------------


def reads(document: bytes) -> bool:
    """Whether it is a RenderTree: whatever nobody else reads; what is wrong with it `place` says."""
    return True


def place(document: bytes, order: Order, files: Sequence[str | None]) -> Scene:
    """The document with the assets in their places, and only them located.

    files   of each asset where it is now; None for ``data``.
    Raises  InvalidTree; InvalidJob: an asset without a place, a property that cannot be.
    """
    value = parse_json(document, limit_bytes=MAX_BYTES)
    sources: dict[str, str] = {}
    for name, asset, file, found in places_of(order, files, lambda asset: list(_found(value, asset, order)), "layer"):
        if file is None:
            path = _path(asset)
            for node in [node for node in found if _has(node, path[0])] or found:
                _set(node, path, asset, name)
            continue
        for node in found:
            _replace(node, asset, name)
            sources[name] = file
    return Scene(tree=RenderTree.from_json(msgspec.json.encode(value)).to_json(), sources=sources)


def places_of(
    order: Order, files: Sequence[str | None], find: Callable[[Asset], list[T]], kind: str
) -> Iterator[tuple[str, Asset, str | None, list[T]]]:
    """The assets that go somewhere: the name of each, itself, its file, and all places that `find` has for it.

    What ``data`` assets say comes first, and of media all places are found before one changes another's name. Raises
    InvalidJob: of an asset that must not be left out there is no place; `kind` is what it is called.
    """

    def placed(n: int) -> tuple[str, Asset, str | None, list[T]]:
        asset = order.assets[n]
        found = find(asset)
        if not found and not (asset.continue_on_missing or order.skips_missing):
            layer = asset.layer_name or asset.layer_index
            raise InvalidJob(f"assets[{n}]: no {kind} {str(layer)[:80]!r} in the template", where=f"$.assets[{n}]")
        return f"assets[{n}]", asset, files[n], found

    yield from (placed(n) for n, asset in enumerate(order.assets) if asset.type == "data")
    yield from [placed(n) for n, asset in enumerate(order.assets) if asset.type not in ("data", "static")]


def unlocated(scene: Scene) -> list[str]:
    """The sources that no asset replaced, each once."""
    names = (node.get(_key(node)) for node in _nodes(msgspec.json.decode(scene.tree)))
    return list(dict.fromkeys(name for name in names if name and name not in scene.sources))


def locate(scene: Scene, places: Mapping[str, str]) -> Scene:
    """The scene with these sources and fonts located too; a source that is not among them is what its name says."""
    value = msgspec.json.decode(scene.tree)
    sources = dict(scene.sources)
    short = {
        name: name if "=" not in name else f"source {n}" for n, name in enumerate(places)
    }  # options are NAME=PLACE
    for node in _nodes(value):
        key = "font" if node.get("node") == "TextNode" else _key(node)
        name: str = node.get(key, "")
        if name and name in places:
            node[key] = short[name]
            sources[short[name]] = places[name]
    return Scene(tree=RenderTree.from_json(msgspec.json.encode(value)).to_json(), sources=sources)


def _key(node: Node) -> str:
    return "filename" if node.get("node") == "ImageSourceNode" else "streamGuid"


def _nodes(value: Any) -> Iterator[Node]:
    """Nodes in the order of painting, a group before what is in it, masks behind what they mask."""
    if isinstance(value, dict):
        if "node" in value:
            yield value
        for key in ("rootVideoNode", "rootAudioNode", "nodes", "mask"):
            yield from _nodes(value.get(key))
    elif isinstance(value, list):
        for each in value:
            yield from _nodes(each)


def _found(document: Any, asset: Asset, order: Order) -> Iterator[Node]:
    nodes = list(_nodes(_composition(document, asset, order)))
    kinds = {"audio": (_SOUND,), "image": _PICTURES, "video": (*_PICTURES, _SOUND)}.get(asset.type)
    fitting = [node for node in nodes if (node.get("node") in kinds if kinds else True)]
    if asset.layer_name not in (None, ""):
        yield from [node for node in fitting if asset.layer_name in _names(node)]
        return
    counted = [
        node
        for node in fitting
        if node.get("node") not in _GROUPS and not (asset.type == "video" and node.get("node") == _SOUND)
    ]
    chosen = asset.among(counted)
    if chosen is not None:
        yield chosen
        if asset.type == "video":
            guid = chosen.get("streamGuid")
            yield from [n for n in fitting if n.get("node") == _SOUND and guid and n.get("streamGuid") == guid]


def _names(node: Node) -> tuple[object, ...]:
    return node.get("id"), node.get("streamGuid"), node.get("filename")


def _composition(document: Any, asset: Asset, order: Order) -> Any:
    """The part of the document that an asset is for: below the node that the last word of its path is the `id` of."""
    name = str(asset.composition or "*").rpartition("->")[2].strip()
    if name in ("*", order.composition):
        return document
    return [node for node in _nodes(document) if node.get("id") == name]


def _replace(node: Node, asset: Asset, name: str) -> None:
    """What only nodes of the other kind have stays, and no tree reads it."""
    if node["node"] != _SOUND:
        node["node"] = "ImageSourceNode" if asset.type == "image" else "VideoSourceNode"
    node[_key(node)] = name


def _path(asset: Asset) -> list[str]:
    """The keys to its property: ``opacity``, or ``effects[0].parameters.radius``; at least one."""
    path = _ALIASES.get(asset.property.lower(), asset.property)
    return [key for key in re.split(r"[.\[\]]+", path) if key] or [""]


def _set(node: Node, path: Sequence[str], asset: Asset, where: str) -> None:
    """Sets a property; null takes an optional one away."""
    *above, last = path
    at: Any = node
    for key in above:
        at = at.setdefault(key, {}) if isinstance(at, dict) and _has(at, key) else item(at, key)
    if isinstance(at, dict) and _has(at, last):
        is_text = (at.get("node"), last) == ("TextNode", "string")
        at[last] = digits_of(asset.value) if is_text and type(asset.value) in (int, float) else asset.value
        if asset.value is None:
            del at[last]
    elif item(at, last) is not None:
        at[int(last)] = asset.value
    else:
        problem = f"{where}.property {asset.property[:80]!r} is none of {str(node.get('node'))[:80]}"
        raise InvalidJob(problem, where=f"$.{where}.property")


def _has(value: Node, key: str) -> bool:
    fields = _FIELDS.get(str(value.get("node")))
    return bool(key) if fields is None else key in fields


def item(value: object, key: str) -> Any:
    """What is at a place of an array, counted from 0; None: no array, or no such place."""
    return (
        value[int(key)] if isinstance(value, list) and re.fullmatch(r"\d{1,4}", key) and int(key) < len(value) else None
    )


def is_file_name(text: str) -> bool:
    """Whether an output may have this name."""
    return text not in ("", ".", "..") and not _BAD_PATH.search(text) and len(text.encode()) <= MAX_NAME


def file_name(text: str, otherwise: str) -> str:
    """A name for a file: the last part of a path or URL, without what no name may have; of a long one its end."""
    name = _BAD_PATH.sub("_", PurePath(without_query(text)).name)
    name = name.encode()[-MAX_NAME:].decode(errors="ignore")  # without the rest of a letter that is cut
    return name if name not in ("", ".", "..") else otherwise
