"""What is decoded in several threads is made ready by one of them: where its module is imported.

It knows one weakness of msgspec (0.22), and refuses to know any struct. What is needed to decode a struct msgspec makes
when that is decoded first, and other threads see it before it is whole: one that decodes the same struct meanwhile ends
the process by a segmentation fault.
"""

from __future__ import annotations

import msgspec


def ready(*kinds: type) -> None:
    """From now on any threads may decode these, and what they hold."""
    for kind in kinds:
        msgspec.json.Decoder(kind)
