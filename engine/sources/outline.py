"""Outlines of letters and shapes → how much of each pixel they cover, and that in a colour as a picture.

It decides how curves become pixels; it refuses to know what is drawn. Worker threads only.

Theory of operation
-------------------
Curves become short straight edges. Every edge is cut at rows and then at columns into pieces that lie in one pixel
each. A piece that goes down by dy adds dy to all that is right of it, and to its own pixel what lies right of it there;
one that goes up takes as much away. Sums along the rows are then the exact area covered, times how often the outline
goes round it: whatever is gone round at all is inside (the nonzero rule), so its absolute value is cut at 1.

That is wrong for a pixel that is gone round both ways, which cancels, or in part more than once. A few level lines
through its row, and one above and below, tell which pixels are doubtful; of them LINES lines a row tell what the sum is
and what is inside, and where these differ the latter is taken. Rows without a doubtful pixel are not looked at closer:
what these lines meet tells them. So no pixel depends on what else is in its row. What is thinner than a quarter of a
row may go unnoticed.

The work grows with the pixels, and with the rows and columns that edges cross. It is done in bands of rows, each of as
much work as there is memory for, and not at all where there would be minutes of it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from engine.color import rgba, yuv_of
from engine.frame import Plane, VideoFrame, flat

Floats = NDArray[np.float64]
Point = tuple[float, float]

TOLERANCE: Final = 0.01  # pixels between a curve and its edges: 3 of 255 at most
MAX_EDGES: Final = 1024  # of one curve
FARTHEST: Final = 1e6  # pixels; beyond, numbers are cut: nobody sees it
FLATTEST: Final = 1e-9  # pixels from an edge's one end down to its other; less covers nothing, and has no slope
LINES: Final = 16  # through a doubtful row: each level edge in a doubtful pixel is off by 8 of 255 at most
FEW: Final = 4  # through every row
_SLIGHT: Final = 1e-6  # of a pixel; what sums of the same numbers may differ by
_BAND: Final = 1 << 20  # pixels and crossings that are summed at a time, or those of one row: 100 MB, or up to 1 GB
MOST: Final = 8_000_000  # rows and columns that all edges cross together: half a minute if all of them overlap
MOST_EDGES: Final = 3_000_000  # of all curves: 500 MB
MOST_PARTS: Final = 2_000_000  # lines and curves that are placed together: more than 10,000 letters of dense fonts have
_PIECE: Final = 1 << 16  # edges that are cut at a time: their curves are in memory once for each


class Intricate(ValueError):  # noqa: N818 - the outline is so; what is drawn of it is refused by its name
    """An outline is too much work; it says of what there is how much of it."""


class Outline(NamedTuple):
    """Closed contours: straight lines (N, 4), x and y of both ends, and cubic curves (M, 8) with two control points."""

    lines: Floats
    curves: Floats

    @property
    def parts(self) -> int:
        """How many lines and curves it has."""
        return len(self.lines) + len(self.curves)

    def box(self) -> tuple[float, float, float, float] | None:
        """Least x and y, greatest x and y of it; None when it is empty."""
        if not self.parts:
            return None
        lines, curves = _within_reach(self)
        bends = curves.reshape(-1, 4, 2)
        ends = np.concatenate((lines.reshape(-1, 2), bends[:, 0], bends[:, 3]))
        beyond = (bends < ends.min(axis=0)) | (bends > ends.max(axis=0))  # no curve is where its control points are not
        if beyond.any():
            ends = np.concatenate((ends, *_turns(bends[beyond.any(axis=(1, 2))])))
        (left, low), (right, high) = ends.min(axis=0).tolist(), ends.max(axis=0).tolist()
        return left, low, right, high


def check_parts(parts: int) -> None:
    """Raises Intricate: these are too many lines and curves to be placed together."""
    if parts > MOST_PARTS:
        raise Intricate(f"has {parts} lines and curves, more than {MOST_PARTS}")


def placed(outlines: Sequence[Outline], scale: Point, at: Sequence[Point]) -> Outline:
    """All of them as one: each scaled about its origin, which then lies where `at` says."""
    if not outlines:
        return Outline(np.empty((0, 4)), np.empty((0, 8)))
    places, factors = np.array(at, np.float64), np.array(scale, np.float64)
    parts = []
    for given in ([outline.lines for outline in outlines], [outline.curves for outline in outlines]):
        part = np.concatenate(given)
        points = part.reshape(-1, part.shape[1] // 2, 2)
        with np.errstate(over="ignore", invalid="ignore"):  # what is infinitely far away is seen nowhere
            points *= factors
            points += np.repeat(places, [len(each) for each in given], axis=0)[:, np.newaxis]
        parts.append(part)
    return Outline(*parts)


class Pen:
    """Draws contours one after another; what is not closed is closed by a straight line."""

    def __init__(self) -> None:
        self._lines: list[tuple[float, ...]] = []
        self._curves: list[tuple[float, ...]] = []
        self._start = self.at = (0.0, 0.0)

    def move(self, to: Point) -> None:
        """Begins a contour."""
        self.close()
        self._start = self.at = to

    def line(self, to: Point) -> None:
        """A straight line."""
        self._lines.append((*self.at, *to))
        self.at = to

    def quadratic(self, control: Point, to: Point) -> None:
        """A quadratic curve."""
        (x0, y0), (x1, y1), (x2, y2) = self.at, control, to
        first = (x0 + 2 * x1) / 3, (y0 + 2 * y1) / 3
        self.cubic(first, ((x2 + 2 * x1) / 3, (y2 + 2 * y1) / 3), to)

    def cubic(self, first: Point, second: Point, to: Point) -> None:
        """A cubic curve."""
        self._curves.append((*self.at, *first, *second, *to))
        self.at = to

    def close(self) -> None:
        """Back to where the contour began."""
        if self.at != self._start:
            self.line(self._start)

    def outline(self) -> Outline:
        """What was drawn; the pen is done."""
        self.close()
        lines, curves = (np.array(part, np.float64) for part in (self._lines, self._curves))
        return Outline(lines.reshape(-1, 4), curves.reshape(-1, 8))


def painted(outline: Outline, color: str, width: int, height: int) -> VideoFrame:
    """The inside of an outline (in pixels, y down) in a colour, on a see-through picture of that size.

    Raises ValueError: a colour that is none; Intricate.
    """
    red, green, blue, alpha = rgba(color)
    a = coverage(outline, width, height)
    if alpha < 1:
        a = (a * alpha + 0.5).astype(np.uint8)
    return flat(yuv_of(red, green, blue), width, height, None if a.min() == 255 else a)


def coverage(outline: Outline, width: int, height: int) -> Plane:
    """(height, width) uint8: 255 where a pixel lies wholly inside, rounded half up.

    Raises Intricate, before the work.
    """
    edges = _downwards(_edges(outline))
    out = np.empty((height, width), np.uint8)
    for top, count in _bands(edges, width, height):
        near = edges[(edges[:, 1] < top + count + 1) & (edges[:, 3] > top - 1)]
        index, weight = _in_pixels(*_in_rows(near, width, top, count), width)
        sums = np.bincount(index, weight, minlength=count * (width + 2)).reshape(count, width + 2)[:, :width]
        np.cumsum(sums, axis=1, out=sums)
        covered = np.minimum(np.abs(sums), 1, out=sums)
        if len(again := _doubtful(near, top, count, width)):
            covered[again] = _looked_closer(covered[again], near, again + top)
        out[top : top + count] = covered * 255 + 0.5
    return out


def _bands(edges: Floats, width: int, height: int) -> list[tuple[int, int]]:
    """The rows that are summed at a time: the first, and how many. Raises Intricate."""
    x0, y0, x1, y1, _ = edges[edges[:, 3] - edges[:, 1] > FLATTEST].T
    first, stop = (np.clip(y, 0, height).astype(np.int64) for y in (np.floor(y0), np.ceil(y1)))
    slope = (x1 - x0) / (y1 - y0)
    begin, end = (np.clip(x0 + slope * (np.clip(y, 0, height) - y0), 0, width) for y in (y0, y1))
    rows, columns = stop - first, np.abs(end - begin)
    crossed = int(rows.sum() + columns[rows > 0].sum())
    if crossed > MOST:
        raise Intricate(f"crosses {crossed} rows and columns of pixels, more than {MOST}")
    work = np.where(rows > 0, FEW + columns / np.maximum(rows, 1), 0)
    begins, ends = (np.bincount(row, work, minlength=height + 1) for row in (first, stop))
    band = np.cumsum(np.cumsum(begins - ends)[:height] + width + 2) // _BAND
    tops = np.flatnonzero(np.diff(band, prepend=-1)).tolist()
    return [(top, stop - top) for top, stop in itertools.pairwise([*tops, height])]


def _doubtful(edges: Floats, top: int, count: int, width: int) -> NDArray[np.int64]:
    """Which of so many rows from the top one on may have pixels that are gone round both ways, or in part twice."""
    lines = top + (np.arange(-1, FEW * count + 1) + 0.5) / FEW
    at, sign = _crossings(edges, lines, width)
    ends = np.zeros((2, len(lines)))
    line, rounds = at.astype(np.int64) // (width + 2), np.cumsum(sign)
    np.minimum.at(ends[0], line, rounds)
    np.maximum.at(ends[1], line, rounds)
    least, most = sliding_window_view(ends, FEW + 2, axis=1)[:, ::FEW]
    return np.flatnonzero(most.max(axis=1) - least.min(axis=1) > 1)


def _looked_closer(covered: Floats, edges: Floats, rows: NDArray[np.int64]) -> Floats:
    """How much of each pixel in these rows is covered; `covered` says it where the sum is right."""
    width = covered.shape[1]
    sums, insides = _counted(edges, rows + (np.arange(-1, FEW + 1)[:, np.newaxis] + 0.5) / FEW, width)
    doubtful = np.abs(np.abs(sums) - insides) > _SLIGHT
    sums, insides = _counted(edges, rows + np.arange(0.5, LINES)[:, np.newaxis] / LINES, width)
    wrong = doubtful & (np.abs(np.minimum(np.abs(sums), 1) - insides) > _SLIGHT)
    return np.where(wrong, insides, covered)


def _counted(edges: Floats, lines: Floats, width: int) -> tuple[Floats, Floats]:
    """How often each pixel is gone round, and how much of it is inside: means over the first axis of `lines`."""
    count, height = lines.shape
    sums, insides = np.zeros((2, height * (width + 2) + 1))
    for each in lines:
        at, sign = _crossings(edges, each, width)
        rounds = np.cumsum(sign)  # contours are closed: every line ends with 0, as the next one begins
        enters = (rounds != 0) * 1.0 - (rounds != sign)
        place = at.astype(np.int64)
        for total, weight in ((sums, sign / count), (insides, enters / count)):
            np.add.at(total, place, weight * (place + 1 - at))
            np.add.at(total, place + 1, weight * (at - place))
    sums, insides = (np.cumsum(each[:-1].reshape(height, -1), axis=1)[:, 1:-1] for each in (sums, insides))
    return sums, insides


def _crossings(edges: Floats, lines: Floats, width: int) -> tuple[Floats, Floats]:
    """Where edges cross level lines, from left to right, line by line, and which way: 1 down, -1 up.

    x is counted from -1 to `width`, beyond which it is cut, with width + 2 more for each line.
    """
    x0, y0, x1, y1, sign = edges.T
    first, stop = np.searchsorted(lines, y0), np.searchsorted(lines, y1)
    which, step = _repeated(stop - first)
    line = first[which] + step
    share = (lines[line] - y0[which]) / (y1 - y0)[which]
    at = line * (width + 2) + 1 + np.clip(x0[which] + share * (x1 - x0)[which], -1, width)
    order = np.argsort(at)
    return at[order], sign[which][order]


def _within_reach(outline: Outline) -> tuple[Floats, Floats]:
    """Its lines and curves in numbers that can be reckoned with."""
    lines, curves = map(np.nan_to_num, outline)
    return np.clip(lines, -FARTHEST, FARTHEST, out=lines), np.clip(curves, -FARTHEST, FARTHEST, out=curves)


def _edges(outline: Outline) -> Floats:
    """(N, 4): straight edges, curves cut into as many as they need to be off by TOLERANCE. Raises Intricate."""
    lines, curves = _within_reach(outline)
    if not len(curves):
        return lines
    points = curves.reshape(-1, 4, 2)
    # A curve is off its chord by at most 3/4 of the larger second difference of its points.
    bend = np.abs(np.diff(points, 2, axis=1)).sum(axis=2).max(axis=1)
    count = np.clip(np.ceil(np.sqrt(0.75 / TOLERANCE * bend)), 1, MAX_EDGES).astype(np.int64)
    if count.sum() > MOST_EDGES:
        raise Intricate(f"has curves of {count.sum()} straight edges, more than {MOST_EDGES}")
    which, step = _repeated(count)
    edges = np.empty((len(lines) + len(which), 4))
    edges[: len(lines)] = lines
    for first in range(0, len(which), _PIECE):
        piece = slice(first, first + _PIECE)
        given, of = points[which[piece]], count[which[piece]]
        made = edges[len(lines) :][piece]
        made[:, :2], made[:, 2:] = (_on_curves(given, (step[piece] + k) / of) for k in (0, 1))
    return edges


def _repeated(count: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Every index as often as `count` says, and which time it is."""
    which = np.repeat(np.arange(len(count)), count)
    return which, np.arange(len(which)) - np.repeat(np.cumsum(count) - count, count)


def _on_curves(points: Floats, t: Floats) -> Floats:
    """(N, 2): where N cubic curves (N, 4, 2) are at t."""
    t = t[:, np.newaxis]
    s = 1 - t
    where: Floats = s * s * s * points[:, 0] + 3 * s * s * t * points[:, 1] + 3 * s * t * t * points[:, 2]
    return where + t * t * t * points[:, 3]


def _turns(curves: Floats) -> list[Floats]:
    """Four times (N, 2): where cubic curves (N, 4, 2) may turn back in x and y; where none does, any of its points.

    A third of a curve's slope is a t² + b t + c; its roots are q / a and c / q, of which no digits are lost.
    """
    p0, p1, p2, p3 = np.moveaxis(curves, 1, 0)
    a, b, c = p3 - p0 + 3 * (p1 - p2), 2 * (p0 - 2 * p1 + p2), p1 - p0
    with np.errstate(divide="ignore", invalid="ignore"):
        q = -(b + np.copysign(np.sqrt(b * b - 4 * a * c), b)) / 2
        roots = [np.clip(np.nan_to_num(root), 0, 1) for root in (q / a, c / q)]
    return [_on_curves(curves, root[:, axis]) for root in roots for axis in (0, 1)]


def _downwards(edges: Floats) -> Floats:
    """(N, 5): edges from their upper ends to their lower ones, and which way they go: 1 down, -1 up."""
    down = edges[:, 1] <= edges[:, 3]
    made = np.empty((len(edges), 5))
    for n in range(4):
        made[:, n] = np.where(down, edges[:, n], edges[:, n - 2])
    made[:, 4] = np.where(down, 1.0, -1.0)
    return made


def _in_rows(edges: Floats, width: int, top: int, count: int) -> tuple[NDArray[np.int64], Floats, Floats, Floats]:
    """Edges cut at so many pixel rows, of which the top one is row 0.

    Row, x at the upper and at the lower end, how far down it goes (negative: up).
    """
    x0, y0, x1, y1, sign = edges.T
    seen = (y1 - y0 > FLATTEST) & (y1 > top) & (y0 < top + count) & (np.minimum(x0, x1) < width)
    x0, y0, x1, y1, sign = (each[seen] for each in (x0, y0, x1, y1, sign))
    slope = (x1 - x0) / (y1 - y0)
    first = np.maximum(np.floor(y0), top).astype(np.int64)
    which, step = _repeated(np.minimum(np.ceil(y1), top + count).astype(np.int64) - first)
    row = first[which] + step
    upper, lower = np.maximum(y0[which], row), np.minimum(y1[which], row + 1)
    begin, end = (x0[which] + (y - y0[which]) * slope[which] for y in (upper, lower))
    return row - top, begin, end, (lower - upper) * sign[which]


def _in_pixels(
    row: NDArray[np.int64], x0: Floats, x1: Floats, dy: Floats, width: int
) -> tuple[NDArray[np.int64], Floats]:
    """Pieces of rows cut at pixel columns: places in rows of width + 2 sums, and what is added there."""
    left, right = np.minimum(x0, x1), np.maximum(x0, x1)
    seen = left < width
    row, left, right, dy = row[seen], left[seen], right[seen], dy[seen]
    first = np.maximum(np.floor(left), -1).astype(np.int64)  # column -1: all that lies left of the picture
    which, step = _repeated(np.maximum(np.minimum(np.ceil(right), width).astype(np.int64) - first, 1))
    column = first[which] + step
    begin = np.where(column < 0, left[which], np.maximum(left[which], column))
    end = np.minimum(right[which], column + 1)
    length = (right - left)[which]
    share = np.divide(end - begin, length, out=np.ones_like(length), where=length > 0)
    down = dy[which] * share
    inside = np.where(column < 0, 1.0, (begin + end) / 2 - column)  # the part of it that belongs to the next column
    place = row[which] * (width + 2) + column
    own = column >= 0
    return (
        np.concatenate((place[own], place + 1)),
        np.concatenate(((down * (1 - inside))[own], down * inside)),
    )
