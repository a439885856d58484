"""Reel: the files that one program brings into a live mix: its films and sounds, its stills, its fonts.

It decides what of a tree comes from them, and that nobody waits for them; it refuses to know what else a tree names.
A file that is late shows what was on before it, or nothing; one that is broken is said to be so, once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import partial

import trio

from engine.config import Settings
from engine.frame import VideoFrame
from engine.plan import Place
from engine.program import Coming
from engine.sources import Reader, load_still, open_source
from engine.sources.drawing import Drawings
from engine.sources.places import Key, Places, Use, name_of, uses
from engine.sources.reader import decode_ahead
from engine.spec import MixerSpec
from engine.threads import Threads, in_thread


class Reel:
    """The files of a program that is on from `start` on, on the mixer's clock.

    sources  what names are files, and which; every other name is none of its business.
    fonts    files of font names.
    """

    def __init__(
        self,
        spec: MixerSpec,
        *,
        start: Fraction,
        sources: Mapping[str, str],
        fonts: Mapping[str, str],
        settings: Settings,
        threads: Threads,
    ) -> None:
        self.start = start
        self.sources = sources
        self.fonts = fonts
        self.drawings = Drawings(spec.raster, fonts)
        self._spec = spec
        self._settings = settings
        self._threads = threads
        self._scope = trio.CancelScope()
        self._places: Places | None = None  # while it runs
        self._running = trio.Event()

    async def run(self, coming: Sequence[Coming]) -> None:
        """Reads and draws until closed; what the program begins with at once."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self.drawings.run)
                    rate = self._spec.audio.rate
                    self._places = Places(read=self._read, load=self._load, rate=rate, nursery=nursery)
                    self._running.set()
                    self.expect(coming)
                    await trio.sleep_forever()
        finally:
            self._places = None  # it knows this: both would stay until the garbage is collected

    def close(self) -> None:
        """Closes everything."""
        self._scope.cancel()

    def expect(self, coming: Sequence[Coming]) -> None:
        """Opens and draws what comes on the air soon."""
        self.drawings.expect(coming)
        if self._places is not None:
            self._places.expect((t, self._own(uses(tree))) for t, tree in coming)

    def name(self, used: Mapping[Key, Use]) -> None:
        """Opens what a tree uses, and closes what is over."""
        if self._places is not None:
            self._places.name(self._own(used))
            self._places.warn()

    def _own(self, used: Mapping[Key, Use]) -> dict[Key, Use]:
        """What of it comes from its files. What has no media time is nowhere in a file."""
        return {
            key: use
            for key, use in used.items()
            if name_of(key) in self.sources and (isinstance(key, str) or key.timed)
        }

    async def _read(self, place: Place) -> Reader:
        audio, url = self._spec.audio, self.sources[place.name]
        opening = partial(open_source, place.name, url, sound=audio, settings=self._settings, speed=place.speed)
        steps = await in_thread(opening, abandon_on_cancel=True)
        ahead = decode_ahead(steps, self._settings, readers=1 if self._places is None else len(self._places))
        tick = 1 / self._spec.fps
        return Reader(steps, rate=audio.rate, ahead=ahead, limiter=self._threads, tick=tick)

    async def _load(self, name: str) -> VideoFrame:
        return await in_thread(load_still, name, self.sources[name], abandon_on_cancel=True)

    def still(self, name: str) -> VideoFrame | None:
        """A still, once it is loaded."""
        return None if self._places is None else self._places.still(name)

    def active(self) -> Mapping[Place, Reader]:
        """The readers of what is, or was, on."""
        return {} if self._places is None else self._places.active()

    async def idle(self) -> None:
        """Waits until everything is decoded as far ahead as may be, and drawn."""
        await self._running.wait()
        await self.drawings.idle()
        if self._places is not None:
            await self._places.idle()
