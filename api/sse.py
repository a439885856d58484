"""Server-sent events: what a message looks like, and what keeps a connection on which nothing happens.

It decides the bytes of the stream; it refuses to know what is told, and when.
"""

from __future__ import annotations

from typing import Final

import msgspec

EVENT_STREAM: Final = "text/event-stream"
COMMENT_EVERY: Final = 15.0  # seconds; proxies close a connection on which nothing comes for a minute or so
RETRY: Final = b"retry: 1000\n\n"  # ms until a client that was cut off connects again
STILL_HERE: Final = b": still here\n\n"


def message(event: str, data: object) -> bytes:
    """A message as text/event-stream has it; JSON has no line breaks."""
    return b"event: %s\ndata: %s\n\n" % (event.encode(), msgspec.json.encode(data))
