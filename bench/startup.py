"""How long until the first frame is on disk: what does the command line cost before it does anything?

`python -m bench.startup [--smoke] [--only ROW …] [--peers WHO …] [--rounds N]`

Rows: `small` renders one frame of a 64×36 film, `720p` one of 1280×720, both through x264 into an MP4 file, without
sound; `imports` starts nothing but a Python interpreter, alone and with the libraries a render cannot do without: the
part of our figure that no work of ours can remove. Read the wall seconds; a ratio below 1 says that the peer is there
sooner.
"""

import sys
import tempfile
from argparse import Namespace
from pathlib import Path

from bench import measure, media, peers
from bench.measure import OURS, Command, Row, Target
from bench.peers import Layer, Mix

# melt: ours takes at most half its time.
TARGETS = (Target(who=OURS, metric="wall", bound=0.3), Target(who="melt", metric="wall", bound=2))
FPS = 25  # one frame is exactly the 0.04 s that the command line can say


def rows(options: Namespace, folder: Path) -> list[Row]:
    """All rows; makes the media they need."""
    store = media.Media(options.cache or media.default_cache(), synthetic=options.smoke)
    sizes = {"small": (64, 36), "720p": (64, 36) if options.smoke else (1280, 720)}
    found = []
    for name, (width, height) in sizes.items():
        (film,) = store.films(1, width=width, height=height, seconds=1 if height < 720 else 10)
        layer = Layer(file=film, width=width, height=height)
        mix = Mix(layers=(layer,), seconds=1 / FPS, folder=folder, width=width, height=height, fps=FPS, sound=False)
        title = f"one frame of {width}×{height}, x264 into an MP4"
        found.append(Row(name=name, title=title, commands=first_frame(name, mix), targets=TARGETS))
    imports = [_python("python", "pass"), _python("python + av", "import av"), _python("… + numpy, trio", EVERYTHING)]
    return [*found, Row(name="imports", title="a Python interpreter and its imports", commands=imports)]


# As a render does: without threads for equations, without looking for garbage, and nothing is taken apart at the end.
EVERYTHING = (
    "import gc, os; gc.disable(); os.environ['OPENBLAS_NUM_THREADS'] = '1'; "
    "import av, numpy, trio, msgspec; os._exit(0)"
)


def first_frame(name: str, mix: Mix) -> list[Command]:
    """Everybody who can make a file of one frame."""
    outs = {who: mix.folder / f"{name}-{who}.mp4" for who in (OURS, "ff9", "gst", "melt")}
    return [
        peers.ours(mix, outs[OURS]),
        peers.ff9(mix, outs["ff9"]),
        peers.gst(mix, outs["gst"]),
        peers.melt(mix, outs["melt"]),
    ]


def _python(who: str, program: str) -> Command:
    return Command(who=who, argv=(sys.executable, "-c", program))


def main() -> int:
    """Measure, print, keep. Exit status 1 when ours failed anywhere."""
    options = measure.arguments(__doc__).parse_args()
    with tempfile.TemporaryDirectory(prefix="mashtun-bench-") as folder:
        measured = measure.bench(rows(options, Path(folder)), options)
    measure.write("startup", measured, versions=peers.versions(), options=options)
    return measure.verdict(measured)


if __name__ == "__main__":
    sys.exit(main())
