"""The settings of one process, built once and passed down by constructor; nothing else looks at the environment."""

from __future__ import annotations

import msgspec


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for a whole process."""

    open_timeout: float = 10.0  # seconds until a source that does not open is given up
    read_timeout: float = 10.0  # seconds until a source that delivers nothing is given up
    decode_ahead: int = 6  # frames decoded ahead of the mixer, each source; twice a step: decoders run beside the mixer
    decode_ahead_bytes: int = 192 << 20  # of all sources together; few frames ahead where frames are large
    composite_threads: int = 1  # threads painting one picture
