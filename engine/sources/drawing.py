"""The texts and shapes of trees as pictures: drawn when a tree first names them, once for each size, and kept.

What is drawn and kept is a *form*: a text or shape in white. Its alpha is what takes long; in another colour it is the
same alpha beside one row of each colour plane, and there at once.

It decides what is drawn when, what stands in for it until then, and how much is kept; it refuses to know how letters
and paths become pixels. What does is loaded with the first text or shape, so that whoever shows none does not wait for
it.

What changes its size in a transition is another picture at every tick, and passed when it is drawn where that takes
longer than a tick. Until one is drawn, the nearest of its other sizes is shown, stretched to its place, in its own
colour; those that are farthest from what they should be are drawn first, so that of several each gets its turn.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Final

import msgspec
import trio

from engine.color import rgba, yuv_of
from engine.errors import EngineError, SourceUnsupported
from engine.frame import VideoFrame, flat
from engine.plan import Drawn, pictures_named
from engine.program import Coming
from engine.spec import MAX_SIDE, Raster
from engine.threads import in_thread
from engine.tree import RenderTree, ShapeNode, TextNode

if TYPE_CHECKING:
    from engine.sources.fonts import Fonts

log = logging.getLogger(__name__)

MAX_BYTES: Final = 256 << 20  # of all pictures together
MAX_PICTURES: Final = 1024
RECENT: Final = 256  # pictures used last, as many as a tree has nodes: what may stand in for others is among them
ALIKE: Final = 8  # sizes of one text or shape, of those, that are looked at: of one that moves the last are nearest


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
        # read by anyone (snapshot): forms
        self._frames: dict[Drawn, VideoFrame | EngineError] = {}  # in the order of their last use
        self._asked: set[Drawn] = set()
        self._named: set[Drawn] = set()  # by the tree that is on
        self._coming: dict[Fraction, set[Drawn]] = {}  # named by what comes, and when that does
        self._instead: dict[Drawn, Drawn] = {}  # of what is named and was not drawn in time: what stands in for it
        # and what of the tree that is on they are
        self._forms: dict[Drawn, Drawn] = {}
        self._coloured: dict[Drawn, tuple[VideoFrame, VideoFrame]] = {}  # a form's picture, and that in its colour

    async def run(self) -> None:
        """Draws what is asked for, until cancelled."""
        async for drawn in self._receive:
            if self._is_wanted(drawn):  # else it was on for a moment, or another tree came in the place of its own
                self._keep(drawn, await self._made(drawn))
            self._asked.discard(drawn)
            self._changed.set()
            self._changed = trio.Event()

    def _is_wanted(self, drawn: Drawn) -> bool:
        return drawn in self._named or any(drawn in names for names in self._coming.values())

    def expect(self, coming: Iterable[Coming]) -> None:
        """Asks for what trees name that come on the air, beside what others do that come at other times."""
        news: dict[Fraction, set[Drawn]] = {}
        for t, tree in coming:
            named = [_form(drawn) for drawn in _drawn_in(tree)]
            news.setdefault(t, set()).update(named)
            self._ask(named)
        self._coming |= news

    def _ask(self, named: Sequence[Drawn]) -> list[Drawn]:
        """What of it is not drawn yet; it will be."""
        missing = [each for each in dict.fromkeys(named) if each not in self._frames and min(self._size(each)) > 0]
        far = {drawn: self._apart(drawn, self._nearest(drawn)) for drawn in missing}
        for drawn in sorted(missing, key=far.__getitem__, reverse=True):
            if drawn not in self._asked:
                self._asked.add(drawn)
                self._send.send_nowait(drawn)
        return missing

    async def prepare(self, tree: RenderTree, t: Fraction = Fraction(0), *, patience: float = math.inf) -> None:
        """Asks for what a tree names and is not drawn yet, and waits for it; after `patience` seconds it comes later.

        What is not drawn by then has something standing in for it from now on, where something can.

        t       its time: what was to come by then does so no more.
        Raises  SourceError, where there is no end to the patience: something cannot be drawn.
        """
        self._forms = {drawn: self._forms.get(drawn) or _form(drawn) for drawn in _drawn_in(tree)}
        self._coloured = {drawn: self._coloured[drawn] for drawn in self._forms if drawn in self._coloured}
        named = list(self._forms.values())
        self._named = set(named)
        self._coming = {at: names for at, names in self._coming.items() if at > t}
        self._touch(drawn for drawn in named if drawn in self._frames)
        missing = self._ask(named)
        with trio.move_on_after(patience):
            while not self._asked.isdisjoint(self._named):
                await self._changed.wait()
        late = [drawn for drawn in missing if drawn not in self._frames]
        self._instead = {drawn: near for drawn in late if (near := self._nearest(drawn)) is not None}
        self._touch(self._instead.values())
        for drawn in named if patience == math.inf else ():
            if isinstance(failed := self._frames.get(drawn), EngineError):
                raise failed

    async def idle(self) -> None:
        """Waits until all that was asked for is drawn."""
        while self._asked:
            await self._changed.wait()

    def get(self, drawn: Drawn) -> VideoFrame | None:
        """The picture; while it is not drawn the nearest of its other sizes, or None. While it stays, the very same."""
        form = self._forms.get(drawn) or _form(drawn)
        if form not in self._frames and form in self._instead:
            form = self._instead[form]
        found = self._frames.get(form)
        if not isinstance(found, VideoFrame):
            return None
        if drawn not in self._coloured or self._coloured[drawn][0] is not found:
            yuv = yuv_of(*rgba(drawn.color)[:3])
            self._coloured[drawn] = found, flat(yuv, found.width, found.height, found.a)
        return self._coloured[drawn][1]

    def _touch(self, used: Iterable[Drawn]) -> None:
        """They are the last that are dropped."""
        for drawn in list(used):
            self._frames[drawn] = self._frames.pop(drawn)

    def _nearest(self, drawn: Drawn) -> Drawn | None:
        """What may stand in for a picture, where something may."""
        recent = islice(reversed(self._frames.items()), RECENT)
        others = (each for each, made in recent if _same(each, drawn) and isinstance(made, VideoFrame))
        near = min(islice(others, ALIKE), key=partial(self._apart, drawn), default=None)
        return near if self._apart(drawn, near) < math.inf else None

    def _apart(self, drawn: Drawn, other: Drawn | None) -> float:
        """How far two sizes of one text or shape are apart, in powers of two; inf where one cannot stand in.

        Letters that are not as much larger as their rectangle are distorted: to half or twice their shape at most. An
        edge of what is shown of a shape may be off by half of that: what is beside it shows nothing of it.
        """
        if other is None:
            return math.inf
        x, y = (math.log2(a / b) for a, b in zip(self._size(drawn), self._size(other), strict=True))
        if isinstance(drawn, ShapeNode) and isinstance(other, ShapeNode):
            off = _off(drawn, other)
            return math.inf if off > 0.5 else abs(x) + abs(y) + off
        if not isinstance(drawn, TextNode) or not isinstance(other, TextNode) or drawn.fit == "fill":
            return abs(x) + abs(y)
        letters = math.log2(drawn.size / other.size)
        return math.inf if max(abs(x - letters), abs(y - letters)) > 1 else abs(x) + abs(y) + abs(letters)

    def _size(self, drawn: Drawn) -> tuple[int, int]:
        width = self._raster.width if drawn.dest_width is None else int(drawn.dest_width)
        height = self._raster.height if drawn.dest_height is None else int(drawn.dest_height)
        return width, height

    async def _made(self, drawn: Drawn) -> VideoFrame | EngineError:
        width, height = self._size(drawn)
        beside = self._named if drawn in self._named else set()  # what only comes may come when they are gone
        try:
            if max(width, height) > MAX_SIDE or width * height > MAX_BYTES - self._bytes(beside):
                raise SourceUnsupported(f"{_called(drawn)}: {width}×{height} pixels are too many", where=_called(drawn))
            return await in_thread(self._draw, drawn, width, height, limiter=self._limiter)
        except EngineError as err:
            failed, bug = err, None
        except Exception as err:  # noqa: BLE001 – a bug in drawing one thing must not end the show; it is logged below
            failed, bug = SourceUnsupported(f"{_called(drawn)}: a bug in drawing it", where=_called(drawn)), err
        if _called(drawn) != self._said:
            log.warning("%s; it is not drawn", failed, exc_info=bug)
        self._said = _called(drawn)
        return failed

    def _draw(self, drawn: Drawn, width: int, height: int) -> VideoFrame:
        from engine.sources.outline import Intricate

        try:
            if isinstance(drawn, TextNode):
                from engine.sources.fonts import Fonts
                from engine.sources.text import draw_text

                self._fonts = self._fonts or Fonts(self._files)
                return draw_text(drawn, width, height, self._fonts)
            from engine.sources.shape import draw_shape

            return draw_shape(drawn, width, height)
        except Intricate as err:
            field = "string" if isinstance(drawn, TextNode) else "path"
            raise SourceUnsupported(f"{_called(drawn)}: its {field} {err}", where=_called(drawn)) from err

    def _keep(self, drawn: Drawn, made: VideoFrame | EngineError) -> None:
        self._frames[drawn] = made
        for other in [each for each in self._frames if each not in self._named and each != drawn]:
            if self._bytes(self._frames) <= MAX_BYTES and len(self._frames) <= MAX_PICTURES:
                break
            del self._frames[other]

    def _bytes(self, some: Mapping[Drawn, object] | set[Drawn]) -> int:
        frames = (self._frames.get(drawn) for drawn in some)
        return sum(frame.a.nbytes for frame in frames if isinstance(frame, VideoFrame) and frame.a is not None)


def _drawn_in(tree: RenderTree) -> list[Drawn]:
    """What of a tree is drawn, in the order of its nodes."""
    return [picture.drawn for picture in pictures_named(tree) if picture.drawn is not None]


def _form(drawn: Drawn) -> Drawn:
    """It in white, as far as it can be seen through at all."""
    return msgspec.structs.replace(drawn, color=f"#ffffff{round(255 * rgba(drawn.color)[3]):02x}")


def _same(one: Drawn, other: Drawn) -> bool:
    """Whether they are one text or shape, of whatever sizes and colours, whatever is shown of it."""
    looks = {"dest_width": other.dest_width, "dest_height": other.dest_height, "color": other.color}
    if isinstance(one, TextNode) and isinstance(other, TextNode) and one.string == other.string:
        return msgspec.structs.replace(one, size=other.size, **looks) == other
    if isinstance(one, ShapeNode) and isinstance(other, ShapeNode) and one.path == other.path:
        view = {name: getattr(other, name) for name in ("path_x", "path_y", "path_width", "path_height")}
        return msgspec.structs.replace(one, **looks, **view) == other
    return False


def _off(one: ShapeNode, other: ShapeNode) -> float:
    """How far the edges of what two pictures show of a shape are apart at most, in widths and heights of the first."""
    across, right = other.path_x - one.path_x, other.path_width - one.path_width
    down, bottom = other.path_y - one.path_y, other.path_height - one.path_height
    x, y = max(abs(across), abs(across + right)), max(abs(down), abs(down + bottom))
    return max(x / one.path_width, y / one.path_height)


def _called(drawn: Drawn) -> str:
    return f'text "{drawn.string[:40]}"' if isinstance(drawn, TextNode) else f'shape "{drawn.path[:40]}"'
