"""How does the cost grow with the number of sources and with the size of the output?

`python -m bench.growth [--smoke] [--only ROW …] [--peers WHO …] [--rounds N]`

Rows: `sources-N` and `sources-N-null` put 1, 4, 9, 16 films of 720p30 into a grid of 1080p; `output-H` and
`output-H-null` put the same four into 360p, 720p, 1080p, 2160p; encoded (4 Mbit/s for 1080p, in proportion for
others) and thrown away. At the end, step by step: CPU milliseconds for one output frame, and what a step adds for one
more source or one more megapixel. A step's price that stays the same down the column means a cost that grows in a
straight line; the encoder's share does not depend on the number of sources, and decoding does not on the output.
"""

import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from bench import measure, media, peers
from bench.measure import OURS, Measured, Row
from bench.peers import Mix

COUNTS = (1, 4, 9, 16)
HEIGHTS = (360, 720, 1080, 2160)
SECONDS = 5


def mixes(options: Namespace, folder: Path) -> dict[str, Mix]:
    """Row name → mix; makes the media they need."""
    store = media.Media(options.cache or media.default_cache(), synthetic=options.smoke)
    counts, heights = ((1, 4), (36, 72)) if options.smoke else (COUNTS, HEIGHTS)
    full, source, seconds = (72, 36, 1) if options.smoke else (1080, 720, SECONDS)

    def mix(count: int, height: int) -> Mix:
        width = height * 16 // 9
        files = store.films(count, width=source * 16 // 9, height=source, seconds=seconds)
        layers = tuple(peers.grid(files, width=width, height=height))
        return Mix(layers=layers, seconds=seconds, folder=folder, width=width, height=height)

    by_count = {f"sources-{count}": mix(count, full) for count in counts}
    return {**by_count, **{f"output-{height}": mix(4, height) for height in heights}}


def rows(named: dict[str, Mix]) -> list[Row]:
    """Two rows a mix: encoded, and thrown away."""
    found = []
    for name, mix in named.items():
        title = f"{len(mix.layers)} of 720p30 → {mix.width}×{mix.height}, {mix.seconds:g} s"
        outs = {who: folder_file(mix, f"{name}-{who}.mp4") for who in (OURS, "ff9")}
        encoded = [peers.ours(mix, outs[OURS]), peers.ff9(mix, outs["ff9"])]
        composed = [peers.ours(mix, peers.NULL), peers.ff9(mix, peers.NULL)]
        found.append(Row(name=name, title=f"{title}, x264 {peers.PRESET} + AAC", commands=encoded))
        found.append(Row(name=f"{name}-null", title=f"{title}, composed and thrown away", commands=composed))
    return found


def folder_file(mix: Mix, name: str) -> Path:
    """A file in the mix's scratch folder."""
    return mix.folder / name


def print_growth(measured: Sequence[Measured], named: dict[str, Mix]) -> None:
    """The steps of each series below one another."""
    found = {each.row.name: each for each in measured}
    series: list[tuple[str, str, Callable[[Mix], float]]] = [
        ("sources-", "source", lambda mix: len(mix.layers)),
        ("output-", "megapixel", lambda mix: mix.width * mix.height / 1e6),
    ]
    for prefix, unit, size in series:
        for sink in ("", "-null"):
            steps = [
                (mix, found[name + sink])
                for name, mix in named.items()
                if name.startswith(prefix) and name + sink in found
            ]
            if steps:
                print(f"\nCPU ms for one output frame, {'composed and thrown away' if sink else 'encoded'}")
                measure.print_columns(_steps(steps, unit, size))


def _steps(steps: Sequence[tuple[Mix, Measured]], unit: str, size: Callable[[Mix], float]) -> list[list[str]]:
    lines = [[f"{unit}s", "ours", f"+ a {unit}", "ff9", f"+ a {unit}", "ff9 ÷ ours"]]
    before: dict[str, tuple[float, float]] = {}
    for mix, each in steps:
        line = [f"{size(mix):.3g}"]
        for who in (OURS, "ff9"):
            figures = each.of(who)
            if figures.fault:
                line += ["–", ""]
                continue
            now = (size(mix), median(figures.values("cpu")) * 1000 / mix.frames)
            step = (now[1] - before[who][1]) / (now[0] - before[who][0]) if who in before else None
            before[who] = now
            line += [f"{now[1]:.1f}", "" if step is None else f"{step:.1f}"]
        ratio = each.of("ff9").ratio(each.of(OURS), "cpu")
        lines.append([*line, "" if ratio is None else f"{ratio:.2f}"])
    return lines


def main() -> int:
    """Measure, print, keep. Exit status 1 when ours failed anywhere."""
    parser = measure.arguments(__doc__)
    parser.set_defaults(rounds=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mashtun-bench-") as folder:
        named = mixes(options, Path(folder))
        measured = measure.bench(rows(named), options)
    print_growth(measured, named)
    measure.write("growth", measured, versions=peers.versions(), options=options)
    return measure.verdict(measured)


if __name__ == "__main__":
    sys.exit(main())
