"""What does it cost to mix sound: sixteen stereo recordings with gain and pan summed into one?

`python -m bench.audio [--seconds N] [--smoke] [--only ROW …] [--peers WHO …] [--rounds N]`

Rows: `file` writes a WAV file, `null` throws the sum away, both for recordings so long (two minutes) that starting
the programs does not matter much; `start` is the same with one second, which is nearly all start-up; `net` is `file`
minus `start`: what one more second of sound costs. No codec but PCM is in the way, so the ratios are those of the
mixers; judge by `file` and `net`. A ratio says how many times the cost of ours the peer has.
"""

import sys
import tempfile
from argparse import Namespace
from pathlib import Path

from bench import measure, media, peers
from bench.measure import OURS, Command, Figures, Measured, Row, Sample, Target
from bench.peers import Layer, Mix

SOURCES = 16
TARGETS = (Target(who="ff9", metric="cpu", bound=3), Target(who="gst", metric="cpu", bound=1.5))


def rows(options: Namespace, folder: Path) -> list[Row]:
    """All rows that are measured; makes the media they need."""
    store = media.Media(options.cache or media.default_cache(), synthetic=options.smoke)
    seconds = 2 if options.smoke else options.seconds

    def mix(seconds: int) -> Mix:
        files = store.recordings(SOURCES, seconds=seconds)
        layers = [Layer(file=file, gain_db=-12 - n / 2, pan=(n * 25) % 201 - 100) for n, file in enumerate(files)]
        return Mix(layers=tuple(layers), seconds=seconds, folder=folder, picture=False)

    def title(seconds: int, sink: str) -> str:
        return f"{SOURCES} stereo WAVs of {seconds} s at 48 kHz, gain and pan, {sink}"

    long, short = mix(seconds), mix(1)
    return [
        Row(name="file", title=title(seconds, "into a WAV"), commands=_to_file("file", long), targets=TARGETS),
        Row(name="null", title=title(seconds, "thrown away"), commands=_to_null(long), targets=TARGETS),
        Row(name="start", title=title(1, "into a WAV"), commands=_to_file("start", short)),
    ]


def _to_file(name: str, mix: Mix) -> list[Command]:
    outs = {who: mix.folder / f"{name}-{who}.wav" for who in (OURS, "ff9", "gst")}
    return [peers.ours(mix, outs[OURS]), peers.ff9(mix, outs["ff9"]), peers.gst(mix, outs["gst"])]


def _to_null(mix: Mix) -> list[Command]:
    return [peers.ours(mix, peers.NULL), peers.ff9(mix, peers.NULL), peers.gst(mix, peers.NULL)]


def net(measured: list[Measured]) -> list[Measured]:
    """A row of differences, `file` minus `start`; [] unless both were measured."""
    found = {each.row.name: each for each in measured}
    if not {"file", "start"} <= found.keys():
        return []
    long, short = found["file"], found["start"]
    figures = []
    for figure in long.figures:
        other = short.of(figure.who)
        pairs = zip(figure.samples, other.samples, strict=False)
        rest = [Sample(a.cpu - b.cpu, a.wall - b.wall, a.rss_bytes) for a, b in pairs]
        figures.append(Figures(figure.who, samples=rest, fault=figure.fault or other.fault))
    row = Row(name="net", title="`file` without start-up (minus `start`)", commands=(), targets=long.row.targets)
    return [Measured(row, figures)]


def main() -> int:
    """Measure, print, keep. Exit status 1 when ours failed anywhere."""
    parser = measure.arguments(__doc__)
    parser.add_argument("--seconds", type=int, default=120, help="length of the recordings (default %(default)s)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mashtun-bench-") as folder:
        measured = measure.bench(rows(options, Path(folder)), options)
    for each in net(measured):
        measure.print_table(each)
        measured.append(each)
    measure.write("audio", measured, versions=peers.versions(), options=options)
    return measure.verdict(measured)


if __name__ == "__main__":
    sys.exit(main())
