"""What do the kernels of engine_ext.effect cost for one picture, against libavfilter's filters of the same kind?

`python -m bench.effect [--smoke] [--only ROW …] [--rounds N]`

Rows: `convolve` a 3×3 blur of the luma, `recolour` a matrix over the whole picture, `key` a chroma key, each of a 1080p
picture in 4:2:0. A ratio says how many times the CPU of ours libavfilter takes in the same run; its colour mixer works
in RGB, so the way there and back is its cost, as it is in a filter graph. Medians of interleaved rounds.
"""

import statistics
import time
from collections.abc import Callable
from fractions import Fraction

import av
import numpy as np
from av.filter import Graph

from bench import measure
from engine_ext import effect

BLUR = (1.0, 2.0, 1.0, 2.0, 4.0, 2.0, 1.0, 2.0, 1.0)
SEPIA = ((0.9, 0.1, 0.0, 0.0), (0.0, 0.8, 0.1, 0.0), (0.1, 0.0, 0.8, 0.0), (0.0, 0.0, 0.0, 1.0))


def filtered(frame: av.VideoFrame, *filters: tuple[str, str]) -> Callable[[], None]:
    """A filter graph that takes the frame, once a call."""
    graph = Graph()
    chain = [graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base)]
    chain += [graph.add(name, arguments) if arguments else graph.add(name) for name, arguments in filters]
    graph.link_nodes(*chain, graph.add("buffersink")).configure()

    def once() -> None:
        graph.push(frame)
        graph.pull()

    return once


def main() -> int:
    """Measures and prints."""
    options = measure.arguments(__doc__).parse_args()
    measure.insist("peer", options.peers, ["libav"])
    height, width = (36, 64) if options.smoke else (1080, 1920)
    rng = np.random.default_rng(1)
    y = rng.integers(16, 236, (height, width), np.uint8)
    u, v = (rng.integers(16, 241, (height // 2, width // 2), np.uint8) for _ in range(2))
    out = tuple(np.empty_like(plane) for plane in (y, u, v))
    alpha = np.full((height, width), 255, np.uint8)
    frame = av.VideoFrame.from_ndarray(np.concatenate([y.ravel(), u.ravel(), v.ravel()]).reshape(-1, width), "yuv420p")
    frame.pts, frame.time_base = 0, Fraction(1, 25)
    weights = [value / 16 for value in BLUR]
    kernel = " ".join(f"{value:g}" for value in BLUR)
    rows: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "convolve": (
            lambda: effect.convolve(out[0], y, weights, 16, 0.0),
            filtered(frame, ("convolution", f"0m={kernel}:0rdiv=0.0625")),
        ),
        "recolour": (
            lambda: effect.recolour((*out, None), (y, u, v, None), SEPIA),
            filtered(frame, ("colorchannelmixer", "rr=.9:rg=.1:gg=.8:gb=.1:br=.1:bb=.8"), ("format", "yuv420p")),
        ),
        "key": (lambda: effect.key(alpha, u, v, 54, 34, 0.2, 0.1), filtered(frame, ("chromakey", "green:0.2:0.1"))),
    }
    measure.insist("row", options.only, rows)
    print(f"{'':10s} {'ours ms':>9s} {'libav ms':>9s} {'ratio':>6s}   one picture of {width}×{height}, CPU")
    for name, both in rows.items():
        if options.only and name not in options.only:
            continue
        found = [[cost(call) for call in both] for _ in range(1 if options.smoke else 4 * options.rounds)]
        ours, theirs = (statistics.median(each[n] for each in found) for n in range(2))
        print(f"{name:10s} {ours * 1000:9.3f} {theirs * 1000:9.3f} {theirs / max(ours, 1e-9):6.1f}")
    return 0


def cost(call: Callable[[], object]) -> float:
    """CPU seconds of the process for one call."""
    began = time.process_time()
    call()
    return time.process_time() - began


if __name__ == "__main__":
    raise SystemExit(main())
