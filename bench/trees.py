"""What does a timeline cost before a pixel is painted: reading it, its tree and its plan at every tick?

`python -m bench.trees [--smoke] [--rounds N]`

Rows: clips of films that move, fade and swell, cut on one track, on three, or all on at once. `tree`, with the edges
of its sound, and `plan` are CPU milliseconds of a tick at 30 fps, the mean and the worst of all; `look` is what looking
2 s ahead takes, twice a second. A live mixer has 33 ms for a tick and does all else in it: a tree must take less than
one.
"""

import time
from argparse import Namespace
from fractions import Fraction
from typing import Any

from api.moviemasher.mash import Film, read_mash
from bench import measure
from engine import plan
from engine.mixer import AHEAD
from engine.plan import PictureSize
from engine.spec import Raster

RASTER = Raster(1920, 1080)
SIZE = PictureSize(1920, 1080)


def document(clips: int, tracks: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A mash and its definitions."""
    size = {"width": 1920, "height": 1080}
    film = {"id": "film", "type": "video", "source": "a.mp4", "duration": 3000, "audio": True, "sourceSize": size}
    container = {"opacity": 0.5, "opacityEnd": 1, "x": 0.1, "xEnd": 0.9, "width": 0.5, "height": 0.5}
    clip = {"contentId": "film", "frames": 20, "content": {"gain": "0,0,0.5,1,1,0"}, "container": container}
    return {"tracks": [{"dense": True, "clips": [clip] * (clips // tracks)} for _ in range(tracks)]}, [film]


def main() -> int:
    """Measures and prints."""
    options = measure.arguments(__doc__).parse_args()
    measure.insist("row", options.only, [])
    measure.insist("peer", options.peers, [])
    print(f"{'clips':>6s} {'tracks':>6s} {'read ms':>9s} {'tree ms':>8s} {'worst':>7s} {'plan ms':>8s} {'look ms':>8s}")
    for clips, tracks in [(12, 3)] if options.smoke else [(100, 1), (100, 3), (100, 100), (10_000, 3)]:
        began = time.process_time()
        film = read_mash(*document(clips, tracks), raster=RASTER)
        read = time.process_time() - began
        trees, plans, looks = ticks(film, options)
        means = [sum(each) / len(each) * 1000 for each in (trees, plans, looks)]
        figures = f"{means[0]:8.3f} {max(trees) * 1000:7.3f} {means[1]:8.3f} {means[2]:8.3f}"
        print(f"{clips:6d} {tracks:6d} {read * 1000:9.1f} {figures}")
    return 0


def ticks(film: Film, options: Namespace) -> tuple[list[float], list[float], list[float]]:
    """CPU seconds of every tree, of every plan, of every look ahead."""
    trees, plans, looks = [], [], []
    for n in range(min(int(film.duration * 30), 30 if options.smoke else 300 * options.rounds)):
        t = Fraction(n, 30)
        began = time.process_time()
        tree = film.program.tree_at(t)
        film.program.edges(t, t + Fraction(1, 30))
        trees.append(time.process_time() - began)
        began = time.process_time()
        plan.compile(tree, RASTER, dict.fromkeys(plan.pictures_named(tree), SIZE))
        plans.append(time.process_time() - began)
        if n % 15 == 0:
            began = time.process_time()
            film.program.coming(t, t + AHEAD)
            looks.append(time.process_time() - began)
    return trees, plans, looks


if __name__ == "__main__":
    raise SystemExit(main())
