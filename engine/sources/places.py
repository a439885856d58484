"""The places that one mixer has in files, and its stills: opened before they come on the air, closed when they are off.

It decides what is open and from when on; it refuses to know what is read there, and how it is opened. So a program may
have any number of clips: only what is on, and the little that comes next, has a decoder and pictures in memory.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from fractions import Fraction
from typing import Final, NamedTuple

import trio

from engine.errors import EngineError
from engine.frame import VideoFrame
from engine.plan import Place, place_of
from engine.sources.reader import Reader
from engine.tree import AudioSourceNode, ImageSourceNode, RenderTree, VideoSourceNode, nodes_of

log = logging.getLogger(__name__)

MAX_COMING: Final = 8  # places and stills open before their time; more only where they begin almost at once
AT_ONCE: Final = 1  # second: who looked ahead once less would find the last of them too late

Key = Place | str  # a string is the name of a still


def name_of(key: Key) -> str:
    """What a tree calls the source, or the still."""
    return key if isinstance(key, str) else key.name


class Use(NamedTuple):
    """What a tree does with a place: whether it shows and plays it, and the media time, where it has one."""

    looked: bool = False
    listened: bool = False
    at: float | None = None


def uses(tree: RenderTree) -> dict[Key, Use]:
    """All places and stills of a tree."""
    found: dict[Key, Use] = {}
    for node in nodes_of(tree):
        if isinstance(node, ImageSourceNode):
            found[node.filename] = Use(looked=True)
        elif isinstance(node, VideoSourceNode | AudioSourceNode):
            place, looked = place_of(node), isinstance(node, VideoSourceNode)
            before = found.get(place, Use())
            at = None if node.at is None else float(node.at)
            found[place] = Use(before.looked or looked, before.listened or not looked, at)
    return found


class _Opened:
    """One that is open, or being opened."""

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self.done = trio.Event()
        self.reader: Reader | None = None
        self.still: VideoFrame | None = None
        self.error: EngineError | None = None


class Places:
    """What one mixer has open. Belongs to the mixer's task; what is read is read, and closed, in tasks of the nursery.

    read, load  open a place, load a still; they raise SourceError.
    rate        of the sound, Hz.
    """

    def __init__(
        self,
        *,
        read: Callable[[Place], Awaitable[Reader]],
        load: Callable[[str], Awaitable[VideoFrame]],
        rate: int,
        nursery: trio.Nursery,
    ) -> None:
        # given
        self._read, self._load = read, load
        self._rate = rate
        self._nursery = nursery
        # owned by the mixer's task
        self._opened: dict[Key, _Opened] = {}
        self._named: set[Key] = set()  # by the tree that is on
        self._coming: set[Key] = set()
        self._active: dict[Place, Reader] = {}
        self._said: set[tuple[str, bool]] = set()  # what a warning was logged of: a name, and whether it was open

    def __len__(self) -> int:
        """How many places are open, or being opened."""
        return sum(isinstance(key, Place) for key in self._opened)

    def expect(self, coming: Iterable[tuple[Fraction, Mapping[Key, Use]]]) -> None:
        """Opens what comes on the air soon, the first of it first, and goes to the media time it begins at.

        coming  moments, in order of time, and what is on then.
        """
        soon: dict[Key, Use] = {}
        begin: list[tuple[Fraction, Key]] = []
        for t, used in coming:
            begin += [(t, key) for key in used if key not in soon and key not in self._named]
            soon = {**used, **soon}
        self._coming = set(soon)
        self._close_others()
        for n, (t, key) in enumerate(begin):
            if key not in self._opened and (n < MAX_COMING or t < begin[0][0] + AT_ONCE):
                self._open(key, soon[key])

    def name(self, used: Mapping[Key, Use]) -> None:
        """Opens what a tree uses, and closes what neither it nor what comes needs."""
        self._named = set(used)
        self._close_others()
        for key in sorted(used.keys() - self._opened.keys(), key=str):
            self._open(key, None)
        for key in used:
            self._activate(key)

    async def settle(self) -> None:
        """Waits until all that is named is open. Raises SourceError, that of the first one that is not."""
        for key in sorted(self._named, key=str):
            opened = self._opened[key]
            await opened.done.wait()
            if opened.error is not None:
                raise opened.error

    async def idle(self) -> None:
        """Waits until all that is open, or being opened, is decoded as far ahead as may be."""
        for opened in list(self._opened.values()):
            await opened.done.wait()
            if opened.reader is not None:
                await opened.reader.idle()

    def reader(self, place: Place) -> Reader | None:
        """The reader of a place that is named; None where there is none, or not yet."""
        return self._active.get(place)

    def still(self, name: str) -> VideoFrame | None:
        """A still; None where there is none, or not yet."""
        opened = self._opened.get(name)
        return None if opened is None else opened.still

    def active(self) -> Mapping[Place, Reader]:
        """The readers of what is, or was, named; what only comes is left alone."""
        return self._active

    def warn(self) -> None:
        """Says once of every name that could not be opened, or that broke off, why; and again if it could meanwhile.

        Not once a place: each turn of what loops is another one.
        """
        for key in self._named:
            opened = self._opened[key]
            error = opened.error or (opened.reader.error if opened.reader is not None else None)
            if error is not None and (said := (name_of(key), opened.error is None)) not in self._said:
                self._said.add(said)
                log.warning("%s", error)

    def _close_others(self) -> None:
        """Closes what is over: what has no media time may be named again and must have gone on meanwhile."""
        for key in self._opened.keys() - self._named - self._coming:
            if isinstance(key, str) or key.timed:
                self._close(key)

    def _close(self, key: Key) -> None:
        self._opened.pop(key).scope.cancel()
        if isinstance(key, Place):
            self._active.pop(key, None)

    def _open(self, key: Key, use: Use | None) -> None:
        opened = self._opened[key] = _Opened()
        self._nursery.start_soon(self._run, key, opened, use)

    async def _run(self, key: Key, opened: _Opened, use: Use | None) -> None:
        with opened.scope:
            try:
                if isinstance(key, str):
                    opened.still = await self._load(key)
                else:
                    opened.reader = await self._read(key)
                self._said.discard((name_of(key), False))
            except EngineError as err:
                opened.error = err
            opened.done.set()
            if opened.reader is None or not isinstance(key, Place):
                return
            if use is not None and use.at is not None and key not in self._active:
                sound = round(use.at * self._rate / key.speed) if use.listened else None
                opened.reader.attend(picture=Fraction(use.at) if use.looked else None, sound=sound)
            if key in self._named:
                self._activate(key)
            await opened.reader.run()

    def _activate(self, key: Key) -> None:
        """From now on the mixer says what is read there."""
        if isinstance(key, Place) and (reader := self._opened[key].reader) is not None:
            self._active[key] = reader
