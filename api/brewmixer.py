"""Door 1: the dialect of Red5's Brew Mixer, under ``/brewmixer/1.0`` and ``/brewmixer/2.0/mixers``.

It decides which documents create an event and which trees it shows, as the vendor's pages send them; it refuses to know
how anything is mixed. Unmodified clients work: numbers may be strings, may have fractions where whole numbers are meant
(they are rounded), fields that nobody knows are ignored, null is absent.

Ours: ``latency`` in the body of a creation, ``?transition=MS&easing=NAME`` on PUT, and the slot number in its answer.
"""

from __future__ import annotations

import ipaddress
import re
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import msgspec
import trio
from msgspec import Meta
from quart import Blueprint, Response, request

from api.auth import Signatures
from api.wire import FormBody, Parameter, Route, created_response, decode, json_response, read_body, read_upload
from engine import ImageInfo
from engine.errors import InvalidSpec
from engine.morph import EASING, EASINGS
from engine.spec import (
    AAC_RATES,
    MAX_AUDIO_RATE,
    MAX_BIT_RATE,
    MAX_FPS,
    MAX_HEIGHT,
    MAX_LATENCY_MS,
    MAX_SUB_MIXES,
    MAX_WIDTH,
    MIN_AUDIO_RATE,
    MIN_BIT_RATE,
    VP9_MAX_QP,
    AudioFormat,
    EncoderSpec,
    EventSpec,
    MixerSpec,
    Raster,
)
from engine.threads import in_thread
from engine.timebase import frame_rate
from engine.tree import RenderTree, trees_from_json
from engine.urls import has_spaces

if TYPE_CHECKING:
    from engine import Engine

PREFIXES: Final = ("/brewmixer/1.0", "/brewmixer/2.0/mixers")
IMAGES: Final = "/brewmixer/2.0/images"
MAX_GUID: Final = 1024
MAX_TRANSITION_MS: Final = 60_000
BIT_RATE: Final = 4_000_000
LATENCY_MS: Final = EventSpec(name="", path="", stream_name="").latency_ms
LARGE: Final = 64 << 10  # bytes of JSON that take about a millisecond to read; larger ones are read in a thread

_EVENT: Final = re.compile(r"(?!\.+$)[A-Za-z0-9._-]{1,256}")
_HOST: Final = re.compile(r"(?!.*\.\.)[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_MILLISECONDS: Final = re.compile(r"[0-9]{1,6}(\.[0-9]{1,6})?")

# A bound is set on both: a number may come as an integer or with a fraction.
_WIDTH, _HEIGHT, _RATE = Meta(ge=2, le=MAX_WIDTH), Meta(ge=2, le=MAX_HEIGHT), Meta(ge=1, le=MAX_FPS)
_BITS, _QP = Meta(ge=MIN_BIT_RATE, le=MAX_BIT_RATE), Meta(ge=0, le=VP9_MAX_QP)
_HZ, _CHANNELS = Meta(ge=MIN_AUDIO_RATE, le=MAX_AUDIO_RATE), Meta(ge=1, le=2)
_SUB_MIXES, _LATENCY = Meta(ge=1, le=MAX_SUB_MIXES), Meta(ge=0, le=MAX_LATENCY_MS)
Width = Annotated[int, _WIDTH] | Annotated[float, _WIDTH]
Height = Annotated[int, _HEIGHT] | Annotated[float, _HEIGHT]
FrameRate = Annotated[int, _RATE] | Annotated[float, _RATE]
BitRate = Annotated[int, _BITS] | Annotated[float, _BITS]
Qp = Annotated[int, _QP] | Annotated[float, _QP]
Hertz = Annotated[int, _HZ] | Annotated[float, _HZ]
Channels = Annotated[int, _CHANNELS] | Annotated[float, _CHANNELS]
SubMixes = Annotated[int, _SUB_MIXES] | Annotated[float, _SUB_MIXES]
Latency = Annotated[int, _LATENCY] | Annotated[float, _LATENCY]
Name = Annotated[str, Meta(min_length=1, max_length=MAX_GUID)]
Timestamp = Annotated[int, Meta(ge=0, le=10**15)]


class CreateRequest(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """An event to create. `path`/`streamName` is the stream it publishes; rates in bits per second, latency in ms.

    The latency is at least the length of a picture and 60 ms: all its sound must have come. The status says what it is.
    """

    path: Name
    stream_name: Name
    event: str | None = None
    do_forward: bool | None = None
    origin_ip: Annotated[str, Meta(max_length=45)] | None = None
    width: Width | None = None
    height: Height | None = None
    frame_rate: FrameRate | None = None
    bit_rate: BitRate | None = None
    max_bit_rate: BitRate | None = None
    qp_min: Qp | None = None
    qp_max: Qp | None = None
    audio_sample_rate: Hertz | None = None
    audio_channels: Channels | None = None
    sub_mixes: SubMixes | None = None
    latency: Latency | None = None
    action: Annotated[str, Meta(max_length=256)] | None = None
    digest: Annotated[str, Meta(max_length=2048)] | None = None
    timestamp: Timestamp | None = None  # ms since 1970


class PutTrees(msgspec.Struct, frozen=True, rename="camel"):
    """Trees in the shape that the vendor's pages send."""

    root_nodes: list[RenderTree]


class PutAnswer(msgspec.Struct, frozen=True):
    """The number of the frame interval from which on the trees are shown."""

    slot: int


class ImageAnswer(msgspec.Struct, frozen=True):
    """The name that an uploaded image got."""

    filename: str
    message: str


NO_TRANSITION: Final = (Fraction(0), EASING)
_TRANSITION: Final = (
    Parameter(
        "transition", Annotated[float, Meta(ge=0, le=MAX_TRANSITION_MS)], "How long the way to the new trees is, ms"
    ),
    Parameter("easing", Literal[tuple(EASINGS)], f"How it begins and ends; {EASING} if it is not said"),
)
_MIXER_ROUTES: Final = (  # method, below the prefix, name, summary, request, response, parameters
    ("GET", "/", "names", "The stream of each event", None, list[str]),
    ("POST", "/{event}", "create", "Create an event", CreateRequest, None),
    ("GET", "/{event}", "trees", "The trees that an event shows, one a sub-mix", None, list[RenderTree]),
    ("PUT", "/{event}", "put", "Show other trees", RenderTree | list[RenderTree] | PutTrees, PutAnswer, _TRANSITION),
    ("DELETE", "/{event}", "delete", "End an event", None, dict[str, Any]),
)
_IMAGE_ROUTES: Final = (
    ("POST", "/", "upload", "Upload an image", FormBody(), ImageAnswer),
    ("GET", "/", "images", "The uploaded images", None, list[ImageInfo]),
    ("DELETE", "/{filename}", "remove", "Remove an image", None, dict[str, Any]),
)
_TABLES: Final = (*((prefix, _MIXER_ROUTES) for prefix in PREFIXES), (IMAGES, _IMAGE_ROUTES))
ROUTES: Final = [Route(row[0], prefix + row[1], *row[3:]) for prefix, table in _TABLES for row in table]


def blueprint(engine: Engine, signatures: Signatures) -> Blueprint:
    """The door over an engine."""
    door = BrewMixer(engine, signatures)
    made = Blueprint("brewmixer", __name__)
    for n, (prefix, table) in enumerate(_TABLES):
        for method, path, name, *_ in table:
            rule = (prefix + path).replace("{", "<").replace("}", ">")
            for spelling in {rule, rule.removesuffix("/")}:
                made.add_url_rule(spelling, f"{name}_{n}", getattr(door, name), methods=[method])
    return made


class BrewMixer:
    """The handlers, one for each route."""

    def __init__(self, engine: Engine, signatures: Signatures) -> None:
        self._engine = engine
        self._signatures = signatures
        self._reading = trio.CapacityLimiter(2)

    async def names(self) -> Response:
        """``["live/program", …]``."""
        return json_response([event.spec.stream() for event in self._engine.events()])

    async def create(self, event: str) -> Response:
        """201 as soon as the event's streams are published."""
        asked = decode(await read_body(request), CreateRequest)
        spec = event_spec(event, asked)
        if self._signatures.required:
            if asked.action != "create":
                raise InvalidSpec('action is not "create"', where="action")
            signed = ("create", spec.name, spec.path, spec.stream_name)
            self._signatures.check(signed, timestamp_ms=asked.timestamp, digest=asked.digest)
        await self._engine.create_event(spec)
        return created_response()

    async def trees(self, event: str) -> Response:
        """The trees as they were put."""
        return json_response(self._engine.event(event).trees)

    async def put(self, event: str) -> Response:
        """All trees of the body take effect at one slot, or none of them."""
        mixed = self._engine.event(event)
        transition, easing = transition_of(request.args) if request.query_string else NO_TRANSITION
        body = await read_body(request)
        if len(body) > LARGE:
            trees = await in_thread(trees_from_json, body, limiter=self._reading)
        else:
            trees = trees_from_json(body)
        return json_response(PutAnswer(mixed.put(trees, transition=transition, easing=easing)))

    async def delete(self, event: str) -> Response:
        """Returns when what was mixed has been given out."""
        await self._engine.delete_event(event)
        return json_response({})

    async def upload(self) -> Response:
        """Keeps an image."""
        filename, data = await read_upload(request, limiter=self._reading)
        filename = await self._engine.add_image(filename, data)
        return json_response(ImageAnswer(filename, f'image "{filename}" is stored'), 201)

    async def images(self) -> Response:
        """All images."""
        return json_response(await self._engine.images())

    async def remove(self, filename: str) -> Response:
        """Forgets an image."""
        await self._engine.remove_image(filename)
        return json_response({})


def transition_of(arguments: Any) -> tuple[Fraction, str]:
    """(seconds, name of the easing) of a query, a mapping of strings. Raises InvalidSpec: not so many seconds."""
    text, easing = arguments.get("transition", "0"), arguments.get("easing", EASING)
    if not _MILLISECONDS.fullmatch(text) or Fraction(text) > MAX_TRANSITION_MS:
        sentence = f'transition "{text[:40]}" is not a number of ms within 0…{MAX_TRANSITION_MS}'
        raise InvalidSpec(sentence, where="transition")
    return Fraction(text) / 1000, easing


def event_spec(name: str, asked: CreateRequest) -> EventSpec:
    """What is to be mixed. Raises InvalidSpec with the field's name and its limit."""
    if not _EVENT.fullmatch(name):
        sentence = f'event "{name[:80]}" is not 1…256 letters, digits, ".", "_" and "-"'
        raise InvalidSpec(sentence, where="event")
    if asked.event is not None and asked.event != name:
        raise InvalidSpec(f'event "{asked.event[:80]}" in the body is not "{name}" of the path', where="event")
    sub_mixes = _whole(asked.sub_mixes, 1)
    _check_guid(asked.path, asked.stream_name, sub_mixes, forwards=bool(asked.do_forward))
    return EventSpec(
        name=name,
        path=asked.path,
        stream_name=asked.stream_name,
        mixer=MixerSpec(
            raster=Raster.of(_whole(asked.width, 1280), _whole(asked.height, 720)),
            fps=frame_rate(30 if asked.frame_rate is None else asked.frame_rate),
            audio=AudioFormat(_aac_rate(_whole(asked.audio_sample_rate, 48000)), _whole(asked.audio_channels, 2)),
        ),
        encoder=_encoder(asked),
        sub_mixes=sub_mixes,
        forward=_origin(asked),
        latency_ms=_whole(asked.latency, LATENCY_MS),
    )


def _whole(number: float | None, default: int) -> int:
    return default if number is None else round(number)


def _aac_rate(hertz: int) -> int:
    return min(AAC_RATES, key=lambda rate: abs(rate - hertz))


def _check_guid(path: str, stream_name: str, sub_mixes: int, *, forwards: bool) -> None:
    guid = f"{path}/{stream_name}"
    length = len(guid) + (len(f"_{sub_mixes - 1}") if sub_mixes > 1 else 0)
    if length > MAX_GUID:
        raise InvalidSpec(f"path and streamName have {length} characters together, more than {MAX_GUID}", where="path")
    for field, text in (("path", path), ("streamName", stream_name)):
        if any(segment in ("", ".", "..") for segment in text.split("/")):
            raise InvalidSpec(f'{field} "{text[:80]}" has an empty, "." or ".." segment', where=field)
        if forwards and has_spaces(text):
            raise InvalidSpec(f'{field} "{text[:80]}" has spaces, which doForward has no URL for', where=field)


def _encoder(asked: CreateRequest) -> EncoderSpec:
    maximum = None if asked.max_bit_rate is None else round(asked.max_bit_rate)
    # A maximum alone is no contradiction, however low it is.
    bit_rate = _whole(asked.bit_rate, BIT_RATE if maximum is None else min(BIT_RATE, maximum))
    return EncoderSpec(
        bit_rate=bit_rate,
        max_bit_rate=min(bit_rate * 3 // 2, MAX_BIT_RATE) if maximum is None else maximum,
        qp_min=None if asked.qp_min is None else round(asked.qp_min),
        qp_max=None if asked.qp_max is None else round(asked.qp_max),
    )


def _origin(asked: CreateRequest) -> str | None:
    """The host that sub-mixes are pushed to, as it stands in a URL; None without forwarding."""
    text = asked.origin_ip or ""
    if not text:
        if asked.do_forward:
            raise InvalidSpec("originIp is required with doForward", where="originIp")
        return None
    try:
        address = ipaddress.ip_address(text)
        host = f"[{address}]" if address.version == 6 else str(address)
    except ValueError:
        if not _HOST.fullmatch(text):
            raise InvalidSpec(f'originIp "{text}" is neither an IP address nor a host name', where="originIp") from None
        host = text
    return host if asked.do_forward else None
