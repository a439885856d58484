"""The texts and shapes of trees as pictures: drawn when a tree first names them, once for each size, and kept.

It decides what is drawn when and how much is kept; it refuses to know how letters and paths become pixels. What does
is loaded with the first text or shape, so that whoever shows none does not wait for it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

import trio

from engine.errors import EngineError, SourceUnsupported
from engine.frame import VideoFrame
from engine.plan import Drawn, pictures_named
from engine.spec import Raster
from engine.tree import RenderTree, TextNode

if TYPE_CHECKING:
    from engine.sources.fonts import Fonts

log = logging.getLogger(__name__)

MAX_BYTES: Final = 256 << 20  # of all pictures together
MAX_PICTURES: Final = 1024
MAX_SIDE: Final = 8192  # pixels: what the compositor takes


class Drawings:
    """The drawn pictures of one mixer. `run` is its actor; the rest belongs to the mixer's task.

    files  what font names mean before anything else: path by name.
    """

    def __init__(self, raster: Raster, files: Mapping[str, str] | None = None) -> None:
        # given
        self._raster = raster
        self._files = files
        # owned by run()
        self._fonts: Fonts | None = None
        self._send, self._receive = trio.open_memory_channel[Drawn](math.inf)
        self._limiter = trio.CapacityLimiter(1)  # fonts are used by one thread at a time
        self._changed = trio.Event()
        self._said = ""  # of which the last warning was: one that moves is another picture at every tick
        # read by anyone (snapshot)
        self._frames: dict[Drawn, VideoFrame | EngineError] = {}  # in the order of their last use
        self._asked: set[Drawn] = set()
        self._named: set[Drawn] = set()  # by the tree that is on
        self._coming: set[Drawn] = set()  # named by what comes

    async def run(self) -> None:
        """Draws what is asked for, until closed."""
        async for drawn in self._receive:
            if drawn in self._named or drawn in self._coming:  # else it was on for a moment and is not wanted any more
                self._keep(drawn, await self._made(drawn))
            self._asked.discard(drawn)
            self._changed.set()
            self._changed = trio.Event()

    def close(self) -> None:
        """Nothing more will be asked for."""
        self._send.close()

    def expect(self, trees: Iterable[RenderTree]) -> None:
        """Asks for what trees name that come on the air soon."""
        self._coming = {
            picture.drawn for tree in trees for picture in pictures_named(tree) if picture.drawn is not None
        }
        for drawn in self._coming - self._frames.keys():
            self._ask(drawn)

    def _ask(self, drawn: Drawn) -> None:
        if drawn not in self._asked and min(self._size(drawn)) > 0:
            self._asked.add(drawn)
            self._send.send_nowait(drawn)

    async def prepare(self, tree: RenderTree, *, patience: float = math.inf) -> None:
        """Asks for what a tree names and is not drawn yet, and waits for it; after `patience` seconds it comes later.

        Raises SourceError, where there is no end to the patience: something cannot be drawn.
        """
        named = [picture.drawn for picture in pictures_named(tree) if picture.drawn is not None]
        self._named = set(named)
        for drawn in named:
            if drawn in self._frames:
                self._frames[drawn] = self._frames.pop(drawn)
            else:
                self._ask(drawn)
        with trio.move_on_after(patience):
            while not self._asked.isdisjoint(self._named):
                await self._changed.wait()
        for drawn in named if patience == math.inf else ():
            if isinstance(failed := self._frames.get(drawn), EngineError):
                raise failed

    async def idle(self) -> None:
        """Waits until all that was asked for is drawn."""
        while self._asked:
            await self._changed.wait()

    def get(self, drawn: Drawn) -> VideoFrame | None:
        """The picture, or None while it is not drawn."""
        found = self._frames.get(drawn)
        return found if isinstance(found, VideoFrame) else None

    def _size(self, drawn: Drawn) -> tuple[int, int]:
        width = self._raster.width if drawn.dest_width is None else int(drawn.dest_width)
        height = self._raster.height if drawn.dest_height is None else int(drawn.dest_height)
        return width, height

    async def _made(self, drawn: Drawn) -> VideoFrame | EngineError:
        width, height = self._size(drawn)
        try:
            if max(width, height) > MAX_SIDE or width * height > MAX_BYTES - self._bytes(self._named):
                raise SourceUnsupported(f"{_called(drawn)}: {width}×{height} pixels are too many", where=_called(drawn))
            return await trio.to_thread.run_sync(self._draw, drawn, width, height, limiter=self._limiter)
        except EngineError as err:
            if _called(drawn) != self._said:
                log.warning("%s; it is not drawn", err)
            self._said = _called(drawn)
            return err

    def _draw(self, drawn: Drawn, width: int, height: int) -> VideoFrame:
        if isinstance(drawn, TextNode):
            from engine.sources.fonts import Fonts
            from engine.sources.text import draw_text

            self._fonts = self._fonts or Fonts(self._files)
            return draw_text(drawn, width, height, self._fonts)
        from engine.sources.shape import draw_shape

        return draw_shape(drawn, width, height)

    def _keep(self, drawn: Drawn, made: VideoFrame | EngineError) -> None:
        self._frames[drawn] = made
        for other in [each for each in self._frames if each not in self._named and each != drawn]:
            if self._bytes(self._frames) <= MAX_BYTES and len(self._frames) <= MAX_PICTURES:
                break
            del self._frames[other]

    def _bytes(self, some: Mapping[Drawn, object] | set[Drawn]) -> int:
        frames = (self._frames.get(drawn) for drawn in some)
        return sum(frame.a.nbytes for frame in frames if isinstance(frame, VideoFrame) and frame.a is not None)


def _called(drawn: Drawn) -> str:
    return f'text "{drawn.string[:40]}"' if isinstance(drawn, TextNode) else f'shape "{drawn.path[:40]}"'
