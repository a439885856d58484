"""What painting one frame costs: the picture kernel against swscale and libyuv on the same pictures, in the same run.

It measures CPU milliseconds of one thread in memory, codecs excluded; it refuses to judge whole engines (see the other
modules for those). Run `python -m bench.kernel`; `--smoke` runs everything once at the smallest size.

Cold: the sources of successive frames rotate through more memory than the processor caches, as they do behind decoders.
Hot: the same sources every time. The peers only scale, each source into its place; what they cannot do is left blank.
"""

import argparse
import ctypes
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from bench.measure import number_of_rounds
from engine_ext.composite import Layer, composite, simd_level, use_simd

ROTATION_BYTES = 80 << 20  # more than twice the last-level cache of the machines at hand
BATCH_NS = 8_000_000  # one measurement lasts about this long: far above the clock's 1 µs
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
    """A row of the table. swscale, libyuv: whether that peer can do the whole of it."""

    name: str
    places: tuple[Place, ...]
    swscale: bool = True
    libyuv: bool = True


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


CASES = (
    Case("2×2 of 1080p", grid(2, FULL)),
    Case("2×2 of 720p", grid(2, HD)),
    Case(
        "720p → 800×450, cropped, mirrored",
        (Place(HD, (100, 100, 800, 450), crop=(3.3, 2.7, 1270.4, 714.6), mirror=True),),
    ),
    Case("720p → 1080p", (Place(HD, ALL),)),
    Case("3×3 of 720p", grid(3, HD)),
    Case("3×3 of 1080p", grid(3, FULL)),
    Case("5×5 of 1080p", grid(5, FULL)),
    Case("copy + half size at 50 %", (Place(FULL, ALL), Place(FULL, (900, 500, 960, 540), alpha=128)), False, False),
    Case("crossfade", (Place(FULL, ALL), Place(FULL, ALL, alpha=100)), False, False),
    Case("copy + mask blend", (Place(FULL, ALL), Place(FULL, ALL, masked=True)), False),
    Case("copy", (Place(FULL, ALL),), False),
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
        width, height = width // self._scale // 2 * 2, height // self._scale // 2 * 2
        memory = self._random.integers(0, 256, height * 5 // 2 * width, np.uint8)
        luma, chroma = height * width, height * width // 4
        y, rest = memory[:luma].reshape(height, width), memory[luma:]
        u, v = rest[: 2 * chroma].reshape(2, height // 2, width // 2)
        return [y, u, v, rest[2 * chroma :].reshape(height, width)]


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
            height, width = picture[0].shape
            flat = np.lib.stride_tricks.as_strided(picture[0], (height * 3 // 2, width), (width, 1))
            frame = av.VideoFrame.from_numpy_buffer(flat, "yuv420p")
            scaler.reformat(
                frame,
                width=place.dest[2] // scale,
                height=place.dest[3] // scale,
                interpolation=Interpolation.BILINEAR,
                threads=1,
            )

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
class Runner:
    """One cell of the table: what to run on which pictures, and the milliseconds of each round."""

    case: str
    column: str
    run: Run
    pictures: Iterator[list[Picture]]
    clock: Clock
    simd: bool = True
    repeats: int = 1
    samples: list[float] = field(default_factory=list)

    def measure(self) -> float:
        """Milliseconds of one frame."""
        use_simd(self.simd)
        frames = [next(self.pictures) for _ in range(self.repeats)]
        start = self.clock()
        for pictures in frames:
            self.run(pictures)
        spent = self.clock() - start
        use_simd(True)
        return spent / self.repeats / 1e6


def cells_of(case: Case, pictures: Pictures, canvas: Picture, scale: int) -> Iterator[Runner]:
    """The row of a case: ourselves in every way, and the peers that can do it."""

    def cell(
        column: str, run: Run, *, hot: bool = False, clock: Clock = time.thread_time_ns, simd: bool = True
    ) -> Runner:
        return Runner(case.name, column, run, pictures.rotation(case.places, hot=hot), clock, simd)

    library = libyuv() if case.libyuv else None
    yield cell("cold", engine(case, canvas, scale))
    yield cell("hot", engine(case, canvas, scale), hot=True)
    yield cell("plain C", engine(case, canvas, scale), simd=False)
    yield cell("2 threads, wall", engine(case, canvas, scale, threads=2), clock=time.perf_counter_ns)
    if case.swscale:
        yield cell("swscale", swscale(case, scale))
    if library:
        yield cell("libyuv", yuv(library, case, canvas, scale))


def measure(cells: list[Runner], rounds: int) -> dict[str, dict[str, float]]:
    """{case: {column: milliseconds}}, medians; the cells take turns, so that a disturbance hits all alike."""
    if rounds > 1:
        for cell in cells:
            cell.measure()
            cell.repeats = max(1, min(400, round(BATCH_NS / 1e6 / cell.measure())))
    for _ in range(rounds):
        for cell in cells:
            cell.samples.append(cell.measure())
    table: dict[str, dict[str, float]] = {}
    for cell in cells:
        table.setdefault(cell.case, {})[cell.column] = statistics.median(cell.samples)
    return table


def machine() -> dict[str, str | int | None]:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "pyav": av.__version__,
        "libyuv": "present" if libyuv() else "absent",
        "rows": simd_level(),
    }


COLUMNS = ("cold", "hot", "2 threads, wall", "plain C", "swscale", "libyuv")


def show(table: dict[str, dict[str, float]]) -> None:
    titles = (*COLUMNS, "swscale / us", "libyuv / us")
    print(f"{'CPU ms per 1920×1080 frame':<36}" + "".join(f"{name:>16}" for name in titles))
    for case, row in table.items():
        cells = [f"{row[name]:.2f}" if name in row else "–" for name in COLUMNS]
        cells += [f"{row[name] / row['cold']:.1f}" if name in row else "–" for name in ("swscale", "libyuv")]
        print(f"{case:<36}" + "".join(f"{text:>16}" for text in cells))
    if libyuv() is None:
        print("libyuv: absent (its shared library is not installed)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="everything once, at an eighth of the size")
    parser.add_argument("--json", type=Path, help="write the numbers here as well")
    parser.add_argument("--rounds", type=number_of_rounds, default=15)
    options = parser.parse_args()
    scale = 8 if options.smoke else 1
    pictures = Pictures(scale)
    canvas = pictures.canvas()
    cells = [cell for case in CASES for cell in cells_of(case, pictures, canvas, scale)]
    table = measure(cells, 1 if options.smoke else options.rounds)
    show(table)
    if options.json:
        result = {"machine": machine(), "ms_per_frame": table}
        options.json.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
