"""What painting one frame costs: the picture kernel against those who paint the same pictures, in the same run.

`python -m bench.kernel [--smoke] [--only ROW …] [--peers WHO …] [--rounds N]`

It measures CPU milliseconds in memory, codecs excluded; it refuses to judge whole engines (see the other modules for
those). Beside each peer's cost stands how many times ours, cold, that is: the median over interleaved rounds.

Cold: the sources of successive frames rotate through more memory than the processor caches, as they do behind decoders.
Hot: the same sources every time. swscale and libyuv only scale, each source into its place; `libav` is libavfilter's
whole graph of scaling and putting together, the cheapest there is (`xstack`, `blend`), and `xfade` its filter for
crossfades. All these run on one thread of this process. gst, melt and moviepy are programs; what one more picture
costs them is the difference of two runs (see `painters`). They are asked for a grid, an inset and a crossfade only:
more grids would take minutes and say no more. What a peer cannot do is left blank.
"""

import ctypes
import statistics
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from bench import measure, painters, peers
from bench.measure import Command, RunError, Target
from bench.peers import Mix
from engine_ext.composite import Layer, composite, simd_level, use_simd

ROTATION_BYTES = 80 << 20  # more than twice the last-level cache of the machines at hand
BATCH_NS = 8_000_000  # one measurement lasts about this long: far above the clock's 1 µs
PROGRAM_ROUNDS = 5  # of those that take a second and more for one
PROGRAM_PICTURES = (4, painters.FILM_PICTURES)  # painted in the two runs whose difference counts
BOX = 3  # libyuv's kFilterBox, its best for shrinking; it falls back to bilinear elsewhere

Picture = list[np.ndarray]  # y, u, v, and perhaps alpha
Rect = tuple[int, int, int, int]


@dataclass(frozen=True)
class Place:
    """One source of a case and where it goes. Sizes are those of a 1920×1080 canvas."""

    source: tuple[int, int]
    dest: Rect
    crop: tuple[float, float, float, float] | None = None
    mirror: bool = False
    alpha: int = 255
    masked: bool = False


@dataclass(frozen=True)
class Case:
    """A row of the table. swscale, libyuv, libav: whether that peer can do the whole of it; programs: are asked."""

    name: str
    places: tuple[Place, ...]
    swscale: bool = True
    libyuv: bool = True
    libav: bool = True
    programs: bool = False
    targets: tuple[Target, ...] = ()


FULL, HD = (1920, 1080), (1280, 720)
ALL = (0, 0, 1920, 1080)


def grid(columns: int, source: tuple[int, int]) -> tuple[Place, ...]:
    """columns × columns pictures that fill the canvas."""
    width, height = 1920 // columns, 1080 // columns
    return tuple(
        Place(source, (column * width, row * height, width, height))
        for row in range(columns)
        for column in range(columns)
    )


def reach(**bounds: float) -> tuple[Target, ...]:
    """How many times our cost the peers' are to be at least."""
    return tuple(Target(who=who, metric="cpu", bound=bound) for who, bound in bounds.items())


CASES = (
    Case("2×2 of 1080p", grid(2, FULL), programs=True, targets=reach(swscale=3, libav=4, gst=10, melt=30, moviepy=100)),
    Case("2×2 of 720p", grid(2, HD), targets=reach(swscale=3.5)),
    Case(
        "720p → 800×450, cropped, mirrored",
        (Place(HD, (100, 100, 800, 450), crop=(3.3, 2.7, 1270.4, 714.6), mirror=True),),
        libav=False,
        targets=reach(swscale=3.5),
    ),
    Case("720p → 1080p", (Place(HD, ALL),), targets=reach(swscale=3.5)),
    Case("3×3 of 720p", grid(3, HD)),
    Case("3×3 of 1080p", grid(3, FULL)),
    Case("5×5 of 1080p", grid(5, FULL)),
    Case(
        "copy + half size at 50 %",
        (Place(FULL, ALL), Place(FULL, (900, 500, 960, 540), alpha=128)),
        swscale=False,
        libyuv=False,
        programs=True,
    ),
    Case(
        "crossfade",
        (Place(FULL, ALL), Place(FULL, ALL, alpha=100)),
        swscale=False,
        libyuv=False,
        programs=True,
        targets=reach(xfade=20, libav=3),
    ),
    Case("copy + mask blend", (Place(FULL, ALL), Place(FULL, ALL, masked=True)), False, libav=False),
    Case("copy", (Place(FULL, ALL),), False, libav=False),
)


class Pictures:
    """Sources of every size, enough of them to leave the caches between two uses. `scale` divides all sizes."""

    def __init__(self, scale: int) -> None:
        self._scale = scale
        self._random = np.random.default_rng(1)
        self._pools: dict[tuple[int, int], list[Picture]] = {}

    def rotation(self, places: tuple[Place, ...], *, hot: bool) -> Iterator[list[Picture]]:
        """For ever: one picture for every place; when hot, the same ones."""
        sizes = {place.source for place in places}
        pools = {size: self._pool(size) for size in sizes}
        at = dict.fromkeys(sizes, 0)
        while True:
            chosen = []
            for place in places:
                pool = pools[place.source]
                chosen.append(pool[at[place.source] % len(pool)])
                at[place.source] += 1
            if hot:
                at = dict.fromkeys(sizes, 0)
            yield chosen

    def canvas(self) -> Picture:
        return self._picture(*FULL)

    def _pool(self, size: tuple[int, int]) -> list[Picture]:
        if size not in self._pools:
            count = 2 if self._scale > 1 else ROTATION_BYTES // (size[0] * size[1] * 3 // 2) + 1
            self._pools[size] = [self._picture(*size) for _ in range(count)]
        return self._pools[size]

    def _picture(self, width: int, height: int) -> Picture:
        width, height = sized((width, height), self._scale)
        memory = self._random.integers(0, 256, height * 5 // 2 * width, np.uint8)
        luma, chroma = height * width, height * width // 4
        y, rest = memory[:luma].reshape(height, width), memory[luma:]
        u, v = rest[: 2 * chroma].reshape(2, height // 2, width // 2)
        return [y, u, v, rest[2 * chroma :].reshape(height, width)]


def sized(size: tuple[int, int], scale: int) -> tuple[int, int]:
    """Width and height, or a place, divided, and even."""
    return size[0] // scale // 2 * 2, size[1] // scale // 2 * 2


def mix_of(case: Case, film: Path, scale: int) -> Mix:
    """A case as the other benches say it, every source being the film."""
    layers = []
    for place in case.places:
        (x, y), (width, height) = sized(place.dest[:2], scale), sized(place.dest[2:], scale)
        layers.append(peers.Layer(file=film, x=x, y=y, width=width, height=height, opacity=place.alpha / 255))
    width, height = sized(FULL, scale)
    return Mix(layers=tuple(layers), seconds=1, folder=film.parent, width=width, height=height, sound=False)


Run = Callable[[list[Picture]], None]
Clock = Callable[[], int]  # nanoseconds


def engine(case: Case, canvas: Picture, scale: int, *, threads: int = 1) -> Run:
    """The kernel, layers built anew for every frame."""

    def run(pictures: list[Picture]) -> None:
        layers = [
            Layer(
                picture[: 4 if place.masked else 3],
                tuple(value // scale for value in place.dest),
                place.crop and tuple(value / scale for value in place.crop),
                mirror_x=place.mirror,
                alpha=place.alpha,
            )
            for place, picture in zip(case.places, pictures, strict=True)
        ]
        composite(*canvas[:3], layers, threads=threads)

    return run


def swscale(case: Case, scale: int) -> Run:
    """FFmpeg's scaler: every source to its size, in frames of their own; composing them would come on top."""
    scaler = VideoReformatter()

    def run(pictures: list[Picture]) -> None:
        for place, picture in zip(case.places, pictures, strict=True):
            scaler.reformat(
                frame_of(picture),
                width=place.dest[2] // scale,
                height=place.dest[3] // scale,
                interpolation=Interpolation.BILINEAR,
                threads=1,
            )

    return run


def frame_of(picture: Picture) -> av.VideoFrame:
    """libav's view of a picture, not a copy."""
    height, width = picture[0].shape
    flat = np.lib.stride_tricks.as_strided(picture[0], (height * 3 // 2, width), (width, 1))
    return av.VideoFrame.from_numpy_buffer(flat, "yuv420p")


def libav(case: Case, graph: str, scale: int) -> Run:
    """libavfilter: the whole picture by a filter graph, in frames of its own."""
    sizes = [sized(place.source, scale) for place in case.places]
    filters = painters.FilterGraph(graph, sizes)

    def run(pictures: list[Picture]) -> None:
        filters.paint([frame_of(picture) for picture in pictures])

    return run


def libyuv() -> ctypes.CDLL | None:
    for name in ("libyuv.so.0", "libyuv.so", "libyuv.dylib"):
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


def yuv(library: ctypes.CDLL, case: Case, canvas: Picture, scale: int) -> Run:
    """libyuv: every source scaled into its place on the canvas, or blended onto it by its mask; no crop, no mirror."""

    def run(pictures: list[Picture]) -> None:
        for place, picture in zip(case.places, pictures, strict=True):
            x, y, width, height = (value // scale for value in place.dest)
            parts = [canvas[0][y:, x:], *(plane[y // 2 :, x // 2 :] for plane in canvas[1:3])]
            targets, sources = _planes(parts), _planes(picture[:3])
            rows, columns = picture[0].shape
            if place.masked:
                mask = _planes([picture[3]])
                library.I420Blend(*sources, *targets, *mask, *targets, width, height)
            elif (columns, rows) == (width, height):
                library.I420Copy(*sources, *targets, width, height)
            else:
                library.I420Scale(*sources, columns, rows, *targets, width, height, BOX)

    return run


def _planes(planes: Picture) -> list[ctypes.c_void_p | int]:
    """Address and stride of each, as libyuv takes them."""
    return [part for plane in planes for part in (ctypes.c_void_p(plane.ctypes.data), plane.strides[0])]


@dataclass
class Cell:
    """One cell of the table: the milliseconds of each round, or a `fault` that says why there are none."""

    case: str
    column: str
    samples: list[float] = field(default_factory=list)
    fault: str = ""
    rounds: int | None = None  # at most so many; None: as many as the others

    def prepare(self) -> None:
        """Whatever the first measurements should not have to do."""

    def measure(self) -> float:
        """Milliseconds of one frame. Raises RunError when it was not painted."""
        raise NotImplementedError


@dataclass(kw_only=True)
class Call(Cell):
    """What is called in this process, on which pictures."""

    run: Run
    pictures: Iterator[list[Picture]]
    clock: Clock = time.thread_time_ns
    simd: bool = True
    repeats: int = 1

    def prepare(self) -> None:
        self.measure()
        self.repeats = max(1, min(400, round(BATCH_NS / 1e6 / self.measure())))

    def measure(self) -> float:
        use_simd(self.simd)
        frames = [next(self.pictures) for _ in range(self.repeats)]
        start = self.clock()
        for pictures in frames:
            self.run(pictures)
        spent = self.clock() - start
        use_simd(True)
        return spent / self.repeats / 1e6


@dataclass(kw_only=True)
class Program(Cell):
    """What runs as a process of its own: CPU of all its threads, for more pictures less that for fewer, if any."""

    command: Callable[[int], Command]
    pictures: tuple[int, int]
    timeout: float

    def measure(self) -> float:
        few, many = self.pictures
        spent = [measure.run(self.command(count), timeout=self.timeout).cpu for count in (many, few) if count]
        return (spent[0] - sum(spent[1:])) / (many - few) * 1000


def cells_of(case: Case, pictures: Pictures, canvas: Picture, scale: int) -> Iterator[Cell]:
    """The row of a case: ourselves in every way, and the peers in this process that can do it."""

    def cell(column: str, run: Run, *, hot: bool = False, **more: Any) -> Cell:
        return Call(case.name, column, run=run, pictures=pictures.rotation(case.places, hot=hot), **more)

    yield cell("cold", engine(case, canvas, scale))
    yield cell("hot", engine(case, canvas, scale), hot=True)
    yield cell("2 threads, wall", engine(case, canvas, scale, threads=2), clock=time.perf_counter_ns)
    yield cell("plain C", engine(case, canvas, scale), simd=False)
    if case.swscale:
        yield cell("swscale", swscale(case, scale))
    if case.libyuv:
        library = libyuv()
        absent = "" if library else "absent: its shared library is not installed"
        yield cell("libyuv", yuv(library, case, canvas, scale), fault=absent)
    if case.libav:
        mix = mix_of(case, Path(), scale)
        yield cell("libav", libav(case, painters.filters(mix), scale))
        if case.name == "crossfade":
            yield cell("xfade", libav(case, painters.xfade(mix), scale))


def programs_of(case: Case, film: Path, scale: int, options: Namespace) -> Iterator[Cell]:
    """The programs that are asked for a case."""
    mix, source = mix_of(case, film, scale), sized(case.places[0].source, scale)
    commands: tuple[Callable[[int], Command], ...] = (
        lambda pictures: painters.gst(mix, pictures, source=source),
        lambda pictures: painters.melt(mix, pictures),
        lambda pictures: painters.moviepy(mix, pictures, source=source, python=options.moviepy_python),
    )
    counts = (0, 1) if options.smoke else PROGRAM_PICTURES
    for command in commands:
        one = command(1)
        yield Program(
            case.name,
            one.who,
            fault=f"absent: {one.absent}" if one.absent else "",
            rounds=PROGRAM_ROUNDS,
            command=command,
            pictures=counts,
            timeout=min(options.timeout, measure.SMOKE_TIMEOUT) if options.smoke else options.timeout,
        )


def take_turns(cells: list[Cell], options: Namespace) -> None:
    """Fill the cells with samples; they take turns, so that a disturbance hits all alike."""
    if not options.smoke:
        for cell in cells:
            if not cell.fault:
                cell.prepare()
    for number in range(1 if options.smoke else options.rounds):
        for cell in cells:
            if cell.fault or number >= (options.rounds if cell.rounds is None else cell.rounds):
                continue
            measure.progress(f"round {number + 1}: {cell.case}, {cell.column}")
            try:
                cell.samples.append(cell.measure())
            except (RunError, OSError) as error:
                cell.fault = f"failed: {error}"
    measure.progress("")


OURS = ("cold", "hot", "2 threads, wall", "plain C")
PEERS = ("swscale", "libyuv", "libav", "xfade", "gst", "melt", "moviepy")

Table = dict[str, dict[str, Cell]]  # by case and column


def ratio(row: dict[str, Cell], peer: str) -> float | None:
    """How many times our cost a peer's is: the median over the rounds; None where it was not measured."""
    if peer not in row or row[peer].fault:
        return None
    return statistics.median(
        theirs / ours for theirs, ours in zip(row[peer].samples, row["cold"].samples, strict=False)
    )


def show(table: Table, options: Namespace) -> None:
    """The table, what is to be reached, and why peers are missing."""
    lines = [["CPU ms (times ours, cold)", *OURS, *PEERS]]
    for name, row in table.items():
        line = [name]
        for column in (*OURS, *PEERS):
            times = ratio(row, column) if column in PEERS else None
            text = f"{statistics.median(row[column].samples):.2f}" if column in row and not row[column].fault else ""
            line.append(text if times is None else f"{text} ({times:.1f}×)")
        lines.append(line)
    measure.print_columns(lines)
    print()
    for case in CASES:
        for target in () if options.smoke else case.targets:  # they are about real sizes
            times = ratio(table.get(case.name, {}), target.who)
            if times is not None:
                print(f"{case.name}: {times:.1f} times by {target.who} {target.text(times)}")
    for sentence in dict.fromkeys(f"{cell.column}: {cell.fault}" for row in table.values() for cell in row.values()):
        if not sentence.endswith(": "):
            print(sentence)


def record(name: str, row: dict[str, Cell]) -> dict[str, object]:
    """A row as it is kept, every sample too."""
    cells = {
        column: {"ms": cell.samples, "ratio": ratio(row, column), "fault": cell.fault} for column, cell in row.items()
    }
    return {"name": name, "cells": cells}


def main() -> int:
    """Measure, print, keep."""
    parser = measure.arguments(__doc__)
    parser.set_defaults(rounds=15)
    options = parser.parse_args()
    measure.insist("row", options.only, (case.name for case in CASES))
    measure.insist("peer", options.peers, PEERS)
    scale = 8 if options.smoke else 1
    pictures = Pictures(scale)
    canvas = pictures.canvas()
    width, height = sized(FULL, scale)
    with tempfile.TemporaryDirectory(prefix="mashtun-bench-") as folder:
        film = painters.film(Path(folder, "noise.nut"), width=width, height=height)
        cells = []
        for case in CASES:
            if not options.only or case.name in options.only:
                cells += cells_of(case, pictures, canvas, scale)
                cells += programs_of(case, film, scale, options) if case.programs else ()
        cells = [cell for cell in cells if options.peers is None or cell.column in (*OURS, *options.peers)]
        take_turns(cells, options)
    table: Table = {}
    for cell in cells:
        table.setdefault(cell.case, {})[cell.column] = cell
    show(table, options)
    versions = peers.versions(moviepy_python=options.moviepy_python) | {"rows": simd_level()}
    measure.keep("kernel", [record(name, row) for name, row in table.items()], versions=versions, options=options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
