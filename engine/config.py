"""The settings of one process, built once and passed down by constructor; nothing else looks at the environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from engine.errors import InvalidSpec


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for a whole process."""

    open_timeout: float = 10.0  # seconds until a source that does not open is given up
    read_timeout: float = 10.0  # seconds until a source that delivers nothing is given up
    decode_ahead: int = 5  # frames decoded ahead of the mixer, each source: decoders run beside the mixer
    decode_ahead_bytes: int = 192 << 20  # of all sources together; few frames ahead where frames are large
    composite_threads: int = 1  # threads painting one picture
    # the server
    host: str = "127.0.0.1"
    port: int = 8570
    rtmp_port: int = 1935  # 0 = no RTMP
    data: str = "data"  # folder of images, recordings, documents
    insecure: bool = False  # listen on other addresses than loopback without credentials
    username: str = ""  # HTTP Basic, together with password; empty = open
    password: str = ""
    publish_key: str = ""  # publishers must give ?key=…; empty = open
    cluster_secret: str = ""  # signs creations of events; empty = unsigned
    # live mixing
    patience: float = 3.0  # seconds a stalled source's last picture is held
    forward_port: int = 1935
    max_streams: int = 256
    max_recordings: int = 64
    max_pushes: int = 64
    # jobs
    secret: str = ""  # of /api/v1, in the header nexrender-secret; empty = as everything else
    ordering: str = "oldest-first"  # or newest-first, priority, random; anything else is oldest-first
    worker: int = 1  # renders at a time; 0 = none here
    allow_private: bool = False  # fetch sources from private addresses, and tell webhooks there
    pick_lease: float = 90.0  # seconds from the pick of a job to its worker's first report
    silence: float = 3600.0  # seconds without a report until a worker counts as gone; 0 = never
    unique_workers: bool = False  # who asks for a job under a name holds none any more
    # Movie Masher's servers
    masher_auth: str = "basic"  # or none: everybody is masher_user
    masher_user: str = "user"
    masher_password: str = ""  # of every user; empty = password; that empty too = any but an empty one
    users: str = ""  # a JSON file {"name": "scrypt$…"}: only these may enter
    preview_size: str = ""  # WIDTHxHEIGHT of previews; empty = 480x270
    output_size: str = ""  # WIDTHxHEIGHT of renderings and streams; empty = 1920x1080
    upload_audio: float = 50.0  # MB of one file
    upload_font: float = 5.0
    upload_image: float = 5.0
    upload_video: float = 100.0
    quota: float = 0.0  # MB of files of one user; 0 = as much as there is room
    private_media: bool = False  # media only under addresses that were given out to their user
    media_life: float = 86_400.0  # seconds until such an address ends
    web: str = ""  # folder of the site at /; empty = our own page


OTHER_NAMES: Final = {"ordering": "NEXRENDER_ORDERING"}  # of the server whose place is taken; ours come first


def from_env(environment: Mapping[str, str], *, prefix: str = "MASHTUN_") -> dict[str, object]:
    """The settings that an environment gives, by field name: MASHTUN_RTMP_PORT=1936. Raises InvalidSpec."""
    given: dict[str, object] = {}
    for field in msgspec.structs.fields(Settings):
        variable = prefix + field.name.upper()
        if variable not in environment:
            variable = OTHER_NAMES.get(field.name, variable)
        if variable in environment:
            text = environment[variable]
            try:
                given[field.name] = msgspec.convert(text, field.type, strict=False)
            except msgspec.ValidationError as err:
                raise InvalidSpec(f"{variable} is {text[:80]!r}: {err}", where=variable) from err
    return given
