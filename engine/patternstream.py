"""Pattern streams: pictures and a tone that the engine publishes itself, as if somebody pushed them.

It decides which raster and rate such a stream has; it refuses to know what is in its pictures (`sources.pattern`) and
who may have its name.
"""

from __future__ import annotations

import trio

from engine.errors import InvalidSpec, SourceUnsupported, reason_of
from engine.sinks.publish import publish_steps
from engine.sources.pattern import PatternSource
from engine.sources.pull import PullState, PullStatus
from engine.spec import AudioFormat, MixerSpec
from engine.stream import Hub, Publisher


class PatternStream:
    """A pattern as a stream. `run` is its actor; like a Pull it says how it is doing.

    Raises, when made, InvalidSpec: an unknown pattern, option or value, or a rate that no stream has.
    """

    def __init__(self, hub: Hub, name: str, pattern: str, *, limiter: trio.CapacityLimiter) -> None:
        try:
            self._steps = PatternSource(name, f"pattern:{pattern}", sound=AudioFormat())
            self._mixer = MixerSpec(raster=self._steps.raster, fps=self._steps.rate, audio=AudioFormat(channels=1))
        except SourceUnsupported as err:
            raise InvalidSpec(str(err), where="pattern") from err
        except InvalidSpec as err:
            raise InvalidSpec(f"pattern: {err}", where="pattern") from err
        self._hub, self._name, self._pattern, self._limiter = hub, name, pattern, limiter
        self._state: PullState = "connecting"
        self._error = ""

    def status(self) -> PullStatus:
        """How it is doing."""
        url = f"pattern:{self._pattern}"
        return PullStatus(name=self._name, url=url, state=self._state, error=self._error, retries=0)

    async def run(self) -> None:
        """Publishes until cancelled. Raises AlreadyExists, SinkError; with any error its state is "failed"."""
        try:
            publication = self._hub.publish(self._name, Publisher(kind="pattern", peer=self._pattern))
            self._state = "publishing"
            now, limiter = self._hub.now, self._limiter
            await publish_steps(publication, self._steps, mixer=self._mixer, now=now, limiter=limiter)
        except Exception as err:
            self._state, self._error = "failed", reason_of(err)
            raise
