"""The settings of one process, built once and passed down by constructor; nothing else looks at the environment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Final

import msgspec
from msgspec import Meta
from msgspec.structs import FieldInfo

from engine.errors import InvalidSpec

Seconds = Annotated[float, Meta(gt=0, le=1e9)]
Span = Annotated[float, Meta(ge=0, le=1e9)]  # seconds, or none
Megabytes = Annotated[float, Meta(ge=0, le=1e9)]
Count = Annotated[int, Meta(ge=0, le=100_000)]
Port = Annotated[int, Meta(ge=0, le=65_535)]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for a whole process."""

    open_timeout: Seconds = 10.0  # seconds until a source that does not open is given up
    read_timeout: Seconds = 10.0  # seconds until a source that delivers nothing is given up
    # frames decoded ahead of the mixer, each source: decoders run beside the mixer
    decode_ahead: Annotated[int, Meta(ge=1, le=1000)] = 5
    # of all sources together; few frames ahead where frames are large
    decode_ahead_bytes: Annotated[int, Meta(ge=0)] = 192 << 20
    composite_threads: Annotated[int, Meta(ge=1, le=256)] = 1  # threads painting one picture
    # the server
    host: str = "127.0.0.1"
    port: Port = 8570  # 0 = a free one
    rtmp_port: Annotated[int, Meta(ge=-1, le=65_535)] = 1935  # 0 = a free one, -1 = none
    data: str = "data"  # folder of images, recordings, documents
    insecure: bool = False  # listen on other addresses than loopback without credentials
    username: str = ""  # HTTP Basic, together with password; empty = open
    password: str = ""
    publish_key: str = ""  # publishers must give ?key=…; empty = open
    cluster_secret: str = ""  # signs creations of events; empty = unsigned
    # live mixing
    patience: Span = 3.0  # seconds a stalled source's last picture is held
    forward_port: Port = 1935
    max_streams: Count = 256
    max_recordings: Count = 64
    max_pushes: Count = 64
    # jobs
    secret: str = ""  # of /api/v1, in the header nexrender-secret; empty = as everything else
    ordering: str = "oldest-first"  # or newest-first, priority, random; anything else is oldest-first
    worker: Count = 1  # renders at a time; 0 = none here
    allow_private: bool = False  # jobs may fetch from private addresses, and send there
    pick_lease: Seconds = 90.0  # seconds from the pick of a job to its worker's first report
    silence: Span = 3600.0  # seconds without a report until a worker counts as gone; 0 = never
    unique_workers: bool = False  # who asks for a job under a name holds none any more
    # Movie Masher's servers
    masher_auth: str = "basic"  # or none: everybody is masher_user
    masher_user: str = "user"
    masher_password: str = ""  # of every user; empty = password; that empty too = any but an empty one
    users: str = ""  # a JSON file {"name": "scrypt$…"}: only these may enter
    preview_size: str = ""  # WIDTHxHEIGHT of previews; empty = 480x270
    output_size: str = ""  # WIDTHxHEIGHT of renderings and streams; empty = 1920x1080 and 320x240
    output_rate: Annotated[float, Meta(ge=1, le=120)] = 30.0  # of streams, as far as a mixer goes; 29.97 = 30000/1001
    upload_audio: Megabytes = 50.0  # MB of one file
    upload_font: Megabytes = 5.0
    upload_image: Megabytes = 5.0
    upload_video: Megabytes = 100.0
    quota: Megabytes = 0.0  # MB of files of one user, and as many of documents; 0 = as much as there is room
    private_media: bool = False  # media only under addresses that were given out to their user
    media_life: Seconds = 86_400.0  # seconds until such an address ends
    web: str = ""  # folder of the site at /; empty = our own page


_LINK: Final = re.compile("(tcp|udp)://")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_CONTROL: Final = re.compile(r"[\0-\x1f\x7f]")
OTHER_NAMES: Final = {"ordering": "NEXRENDER_ORDERING"}  # of the server whose place is taken; ours come first


def from_env(environment: Mapping[str, str]) -> dict[str, object]:
    """The settings that an environment gives, by field name: MASHTUN_RTMP_PORT=1936. Raises InvalidSpec.

    A variable that is empty is not set: files of container compositions have such. Nor is one that links to a service
    of our name: Kubernetes gives every container MASHTUN_PORT=tcp://10.0.0.1:8570 where one is called mashtun.
    """
    given: dict[str, object] = {}
    for field in msgspec.structs.fields(Settings):
        variable = f"MASHTUN_{field.name.upper()}"
        if not environment.get(variable):
            variable = OTHER_NAMES.get(field.name, variable)
        if (text := environment.get(variable)) and not _LINK.match(text):
            given[field.name] = _converted(variable, text, field)
    return given


def read_settings(environment: Mapping[str, str], arguments: Mapping[str, object]) -> Settings:
    """Arguments, where they are not None, over the environment over the defaults. Raises InvalidSpec."""
    given = from_env(environment)
    for field in msgspec.structs.fields(Settings):
        value = arguments.get(field.name)
        if value is not None:
            given[field.name] = _converted(field.name, value, field)
    return Settings(**given)  # type: ignore[arg-type]


def _converted(name: str, value: object, field: FieldInfo) -> object:
    if isinstance(value, str):
        _check_text(name, value, field.name)
    try:
        return msgspec.convert(value, field.type, strict=False)
    except msgspec.ValidationError as err:
        raise InvalidSpec(f"{name} is {str(value)[:80]!r}: {err}", where=name) from err


def _check_text(name: str, text: str, setting: str) -> None:
    """Raises InvalidSpec: nobody could ever give what is set here. The text is not told: it may be a password."""
    _check_utf8(name, text)
    if setting == "secret":
        check_header(name, text)
    elif setting in ("username", "password", "masher_password"):
        check_password(name, text)
    if setting == "username" and ":" in text:
        raise InvalidSpec(f"{name} has a colon, behind which everybody looks for the password", where=name)


def _check_utf8(name: str, text: str) -> None:
    """Raises InvalidSpec for what an environment, or a command line, of other bytes has become."""
    if _SURROGATE.search(text):
        raise InvalidSpec(f"{name} is not UTF-8", where=name)


def check_header(name: str, text: str) -> None:
    """Raises InvalidSpec when a text cannot be sent in a header (RFC 9110 5.5)."""
    if not text.isprintable() or text != text.strip():
        raise InvalidSpec(f"{name} has characters that cannot be sent", where=name)


def check_password(name: str, text: str) -> None:
    """Raises InvalidSpec when nobody can send it as a password, or as the name that has one (RFC 7617 2)."""
    _check_utf8(name, text)
    if _CONTROL.search(text):
        raise InvalidSpec(f"{name} has characters that cannot be sent", where=name)
