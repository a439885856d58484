"""What is on air, as a function of time: anything with `tree_at(t)` that gives the RenderTree of that moment.

It decides what programs one after the other and over one another show; it refuses to know who plays them, and when.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Protocol, runtime_checkable

import msgspec

from engine.timebase import Stretch
from engine.tree import (
    AudioSourceNode,
    CompositorNode,
    ImageSourceNode,
    RenderTree,
    SolidColorNode,
    SumNode,
    VideoNode,
    VideoSourceNode,
    walk,
)


class Program(Protocol):
    """What a mixer shows. Pure: the same t gives the same tree; t in Fraction seconds on the program's own clock."""

    def tree_at(self, t: Fraction) -> RenderTree:
        """The tree of the frame that starts at t. An unchanged tree should be the same object: its plan is kept."""

    def sources_in(self, start: Fraction, stop: Fraction) -> frozenset[str]:
        """The streamGuids and image names that some tree within [start, stop) uses."""

    def coming(self, start: Fraction, stop: Fraction) -> Sequence[Coming]:
        """What comes on the air within [start, stop), in order of time: it should be open by then."""

    def edges(self, start: Fraction, stop: Fraction) -> Sequence[Fraction]:
        """The moments within (start, stop), in order, at which sound begins or ends that is cut to the sample, or from
        which on its gain moves in another way.
        """


@runtime_checkable
class Foreseeable(Protocol):
    """A program that can say when its picture changes, so that nobody needs to ask for every tick."""

    def stretch(self, t: Fraction) -> Stretch | None:
        """Until when the topmost node of its picture is that of t, but for its media time; None = nobody knows."""


def stretch_of(program: Program, t: Fraction) -> Stretch | None:
    """What a program promises of its picture from t on."""
    return program.stretch(t) if isinstance(program, Foreseeable) else None


Coming = tuple[Fraction, RenderTree]  # the moment at which something comes on the air, and the tree of that moment


def names_in(tree: RenderTree) -> frozenset[str]:
    """The streamGuids and image file names of a tree."""
    names: set[str] = set()
    for _, _, node in walk(tree):
        if isinstance(node, VideoSourceNode | AudioSourceNode):
            names.add(node.stream_guid)
        elif isinstance(node, ImageSourceNode):
            names.add(node.filename)
    return frozenset(names)


class Held(msgspec.Struct, frozen=True):
    """One tree, for ever."""

    tree: RenderTree

    def tree_at(self, t: Fraction) -> RenderTree:
        """The tree."""
        return self.tree

    def sources_in(self, start: Fraction, stop: Fraction) -> frozenset[str]:
        """All of its sources."""
        return names_in(self.tree)

    def coming(self, start: Fraction, stop: Fraction) -> Sequence[Coming]:
        """Nothing: all of it is on already."""
        return ()

    def edges(self, start: Fraction, stop: Fraction) -> Sequence[Fraction]:
        """None."""
        return ()


class Switch:
    """Programs that take over from one another: what a live mixer has on air, from its time 0 on. Not pure: `take`
    changes it.

    A change takes effect at the first tick at or after its time; of several before one tick the last one counts, so any
    number of changes costs no more than one a tick.
    """

    def __init__(self, program: Program) -> None:
        self._programs = [(Fraction(0), program)]  # and when each takes over

    def take(self, program: Program, at: Fraction) -> None:
        """`program` is on from `at` on; what was to take over then or later is not."""
        while len(self._programs) > 1 and self._programs[-1][0] >= at:
            self._programs.pop()
        self._programs.append((at, program))

    def tree_at(self, t: Fraction) -> RenderTree:
        """The tree of whichever program is on at t; t must not decrease between calls."""
        while len(self._programs) > 1 and self._programs[1][0] <= t:
            del self._programs[0]
        return self._programs[0][1].tree_at(t)

    def peek(self, t: Fraction) -> RenderTree:
        """What will be on at t as things are now; t may be any time from that of the last `tree_at` on."""
        program = next(each for start, each in reversed(self._programs) if start <= t)
        return program.tree_at(t)

    def sources_in(self, start: Fraction, stop: Fraction) -> frozenset[str]:
        """Those of every program that is on within [start, stop)."""
        return frozenset().union(*(program.sources_in(start, stop) for *_, program in self._spans(start, stop)))

    def coming(self, start: Fraction, stop: Fraction) -> Sequence[Coming]:
        """That of every program while it is on, and the first tree of those that begin."""
        coming: list[Coming] = []
        for begin, low, high, program in self._spans(start, stop):
            if low == begin:
                coming.append((begin, program.tree_at(begin)))
            coming += program.coming(low, high)
        return coming

    def edges(self, start: Fraction, stop: Fraction) -> Sequence[Fraction]:
        """Those of the program that is on at `start`, until the next one takes over."""
        for _, low, high, program in self._spans(start, stop):
            return program.edges(low, high)
        return ()

    def _spans(self, start: Fraction, stop: Fraction) -> Iterator[tuple[Fraction, Fraction, Fraction, Program]]:
        """Of every program that is on within [start, stop): when it takes over, from when to when it is on there."""
        ends = [*(begin for begin, _ in self._programs[1:]), stop]
        for (begin, program), end in zip(self._programs, ends, strict=True):
            if (low := max(start, begin)) < (high := min(stop, end)):
                yield begin, low, high, program


class Stack:
    """Programs over one another, the first lowest; their sound is summed.

    background  a colour under them all; None = black.
    start       the time at which theirs is 0.
    """

    def __init__(
        self, programs: Sequence[Program], *, background: SolidColorNode | None = None, start: Fraction = Fraction(0)
    ) -> None:
        self._programs = tuple(programs)
        self._background = background
        self._start = start
        self._last: tuple[tuple[RenderTree, ...], RenderTree] | None = None

    def tree_at(self, t: Fraction) -> RenderTree:
        """The trees of that moment as one; the same object while theirs are the same objects."""
        trees = tuple(program.tree_at(t - self._start) for program in self._programs)
        if self._last is None or any(a is not b for a, b in zip(trees, self._last[0], strict=True)):
            self._last = trees, self._stacked(trees)
        return self._last[1]

    def sources_in(self, start: Fraction, stop: Fraction) -> frozenset[str]:
        """Those of all of them."""
        begin, end = start - self._start, stop - self._start
        return frozenset[str]().union(*(program.sources_in(begin, end) for program in self._programs))

    def coming(self, start: Fraction, stop: Fraction) -> Sequence[Coming]:
        """That of all of them."""
        begin, end = start - self._start, stop - self._start
        coming = [each for program in self._programs for each in program.coming(begin, end)]
        return [(t + self._start, tree) for t, tree in sorted(coming, key=lambda each: each[0])]

    def edges(self, start: Fraction, stop: Fraction) -> Sequence[Fraction]:
        """Those of all of them."""
        begin, end = start - self._start, stop - self._start
        return sorted({t + self._start for program in self._programs for t in program.edges(begin, end)})

    def _stacked(self, trees: tuple[RenderTree, ...]) -> RenderTree:
        pictures: list[VideoNode] = [] if self._background is None else [self._background]
        pictures += [tree.root_video_node for tree in trees if tree.root_video_node is not None]
        sounds = [tree.root_audio_node for tree in trees if tree.root_audio_node is not None]
        return RenderTree(
            root_video_node=CompositorNode(nodes=tuple(pictures)) if pictures else None,
            root_audio_node=SumNode(nodes=tuple(sounds)) if sounds else None,
        )


class Half:
    """The picture of a program without its sound, or the sound without the picture."""

    def __init__(self, program: Program, *, picture: bool, sound: bool) -> None:
        self._program = program
        self._picture = picture
        self._sound = sound
        self._whole = self._half = RenderTree()

    def tree_at(self, t: Fraction) -> RenderTree:
        """The half of the program's tree; the same object while that is the same."""
        return self._halved(self._program.tree_at(t))

    def stretch(self, t: Fraction) -> Stretch | None:
        """What the whole program promises of its picture, as far as there is one."""
        return stretch_of(self._program, t) if self._picture else None

    def sources_in(self, start: Fraction, stop: Fraction) -> frozenset[str]:
        """Those of the whole program, although some may not be asked for."""
        return self._program.sources_in(start, stop)

    def coming(self, start: Fraction, stop: Fraction) -> Sequence[Coming]:
        """The halves of what comes."""
        return [(t, self._halved(tree)) for t, tree in self._program.coming(start, stop)]

    def edges(self, start: Fraction, stop: Fraction) -> Sequence[Fraction]:
        """Those of the whole program, as far as there is sound."""
        return self._program.edges(start, stop) if self._sound else ()

    def _halved(self, tree: RenderTree) -> RenderTree:
        if tree is not self._whole:
            picture = tree.root_video_node if self._picture else None
            sound = tree.root_audio_node if self._sound else None
            self._whole, self._half = tree, RenderTree(root_video_node=picture, root_audio_node=sound)
        return self._half


def halved(program: Program, *, picture: bool, sound: bool) -> Program:
    """The program with its picture, its sound, or both."""
    return program if picture and sound else Half(program, picture=picture, sound=sound)
