"""What does it cost to put films side by side, against FFmpeg, GStreamer, melt and moviepy, encoded or not?

`python -m bench.compose [--smoke] [--only ROW …] [--peers WHO …] [--rounds N]`

Rows: `grid2` four 1080p films in a 2×2 grid of 1080p, `pip` a full picture with a half-size one at 50 % over it,
`grid3` nine 720p films in a 3×3 grid; each encoded (x264 veryfast 4 Mbit/s, AAC) and, as `…-null`, thrown away after
composing.

How to read it: a ratio says how many times the cost of ours the peer has; above 1 is good. With x264 inside no ratio
can be large, as encoder and decoders are the same everywhere: the `-null` rows show the difference. There `decode` is
decoding alone, the floor, and its ratio says which part of our cost that is: the rest to 1 is what composing adds
(above 1: layers shrunk to half are decoded with less care than `decode` takes). FFmpeg decodes all with full care by
default (`ff9`), ours what is shown at half its size or less without smoothing B-frames; in `ff9-eased` FFmpeg is told
to do that too, and is about as fast. `gst` and `moviepy` scale as their manuals show; `gst-scale` is the fastest
pipeline found for it, with bilinear videoscale before its compositor, and `moviepy-scale` has FFmpeg scale for it while
reading.
"""

import sys
import tempfile
from argparse import Namespace
from pathlib import Path

from bench import measure, media, peers
from bench.measure import Command, Row, Target
from bench.peers import Layer, Mix

ENCODED = (
    *(Target(who="ff9", metric=metric, bound=1.05) for metric in ("cpu", "wall")),
    *(Target(who=who, metric="cpu", bound=bound) for who, bound in (("gst", 1.25), ("melt", 1.7), ("moviepy", 8))),
)
COMPOSED = (
    Target(who="ff9", metric="wall", bound=1.12),
    Target(who="decode", metric="cpu", bound=0.95),  # ours ≤ 1.05 × decoding alone
    Target(who="gst", metric="cpu", bound=1.5),
    Target(who="melt", metric="cpu", bound=3),
)


def rows(options: Namespace, folder: Path) -> list[Row]:
    """All rows that are asked for; makes the media they need."""
    names = ("grid2", "pip", "grid3")
    measure.insist("row", options.only, (name + sink for name in names for sink in ("", "-null")))
    store = media.Media(options.cache or media.default_cache(), synthetic=options.smoke)
    seconds = 1 if options.smoke else 10
    wanted = {name.removesuffix("-null") for name in options.only or names}

    def films(count: int, height: int) -> list[Path]:
        height = 36 if options.smoke else height
        return store.films(count, width=height * 16 // 9, height=height, seconds=seconds)

    def mix(layers: list[Layer], width: int, height: int) -> Mix:
        return Mix(layers=tuple(layers), width=width, height=height, seconds=seconds, folder=folder)

    found = []
    if "grid2" in wanted:
        size = (64, 36) if options.smoke else (1920, 1080)
        grid2 = mix(peers.grid(films(4, 1080), width=size[0], height=size[1]), *size)
        found += _rows("grid2", "2×2 of 1080p30 → 1080p30", grid2, options, targets=(ENCODED, COMPOSED))
    if "pip" in wanted:
        size = (64, 36) if options.smoke else (1920, 1080)
        below, above = films(2, 1080)
        x, y = size[0] // 2, size[1] // 2
        inset = Layer(file=above, x=x, y=y, width=x, height=y, opacity=0.5)
        pip = mix([Layer(file=below, width=size[0], height=size[1]), inset], *size)
        found += _rows("pip", "full 1080p30 and a half-size picture at 50 % over it", pip, options)
    if "grid3" in wanted:
        size = (96, 54) if options.smoke else (1920, 1080)
        grid3 = mix(peers.grid(films(9, 720), width=size[0], height=size[1]), *size)
        found += _rows("grid3", "3×3 of 720p30 → 1080p30", grid3, options)
    return found


def _rows(
    name: str, title: str, mix: Mix, options: Namespace, targets: tuple[tuple[Target, ...], ...] = ((), ())
) -> list[Row]:
    title = f"{title}, {mix.seconds:g} s"
    file, null = f"{title}, x264 {peers.PRESET} + AAC", f"{title}, composed and thrown away"
    return [
        Row(name=name, title=file, commands=encoded(name, mix, options), targets=targets[0]),
        Row(name=f"{name}-null", title=null, commands=composed(mix), targets=targets[1]),
    ]


def encoded(name: str, mix: Mix, options: Namespace) -> list[Command]:
    """Everybody who can make the file."""

    def out(who: str) -> Path:
        return mix.folder / f"{name}-{who}.mp4"

    return [
        peers.ours(mix, out("ours")),
        peers.ff9(mix, out("ff9")),
        peers.ff9(mix, out("ff9-eased"), who="ff9-eased", eased=True),
        *([peers.ff9(mix, out("ff9-overlay"), who="ff9-overlay", overlay=True)] if _opaque(mix) else []),
        peers.gst(mix, out("gst")),
        peers.gst(mix, out("gst-scale"), who="gst-scale", videoscale=True),
        peers.melt(mix, out("melt")),
        peers.moviepy(mix, out("moviepy"), python=options.moviepy_python, seconds=2),
        peers.moviepy(mix, out("moviepy-scale"), python=options.moviepy_python, seconds=2, scaled=True),
    ]


def composed(mix: Mix) -> list[Command]:
    """Everybody who can throw the picture away, and the floor."""
    return [
        peers.ours(mix, peers.NULL),
        peers.decode_alone(mix),
        peers.ff9(mix, peers.NULL),
        peers.ff9(mix, peers.NULL, who="ff9-eased", eased=True),
        *([peers.ff9(mix, peers.NULL, who="ff9-overlay", overlay=True)] if _opaque(mix) else []),
        peers.gst(mix, peers.NULL),
        peers.gst(mix, peers.NULL, who="gst-scale", videoscale=True),
        peers.melt(mix, peers.NULL),
    ]


def _opaque(mix: Mix) -> bool:
    """Whether FFmpeg has two ways: what shines through can only be overlaid."""
    return all(layer.opacity == 1 for layer in mix.layers)


def main() -> int:
    """Measure, print, keep. Exit status 1 when ours failed anywhere."""
    options = measure.arguments(__doc__).parse_args()
    with tempfile.TemporaryDirectory(prefix="mashtun-bench-") as folder:
        measured = measure.bench(rows(options, Path(folder)), options)
    measure.write("compose", measured, versions=peers.versions(moviepy_python=options.moviepy_python), options=options)
    return measure.verdict(measured)


if __name__ == "__main__":
    sys.exit(main())
