"""What does a timeline cost, against FFmpeg, melt and moviepy: cuts, crossfades with a picture in the picture, slides?

`python -m bench.timeline [--smoke] [--only ROW …] [--peers WHO …] [--rounds N]`

Rows, 1080p30, x264 veryfast (cuts at the films' own 5 Mbit/s, the others at 4) and AAC for everybody:
`cuts-key`    ten cuts of 2 s from three films, each on a keyframe: ours copies all pictures and encodes the sound once
`cuts-any`    three cuts of 10 s anywhere: ours copies what is between the first keyframe and the end of each
`cuts-short`  ten cuts of 1 s within a GOP each, so nothing can be copied: what does it cost to have tried?
`blend`       three films crossfaded, a fourth one small in the picture, a text over all; 20 s
`blend-null`  the same, composed and thrown away: with x264 inside, which is most of the work, no ratio can be large
`slides`      20 photos of 12 megapixels, 3 s each, panned over
`clips-N`     N cuts of 1 s from as many films of 360p (copying forbidden): does memory grow with the number of clips?

How to read it: a ratio says how many times the cost of ours the peer has. `ours-plain` is ours without copying
packets. `ff9-copy` is FFmpeg's copy of the packets of picture and sound, right on keyframes only; `ff9-copy-aac`
encodes the sound, as ours does. `ff9-overlay` fades by overlays with alpha instead of xfade.
`codecs` decodes and encodes the same films and composes nothing: what it costs, nobody is below. moviepy does a part of
the work, and is scaled up. In `slides` ours pans by parts of a pixel, which moves evenly and is dear to encode; the
peers pan by whole ones. What a tree of a timeline costs, `bench.trees` shows.
"""

import sys
import tempfile
from argparse import Namespace
from pathlib import Path

from bench import edits, measure, media, peers
from bench.edits import FPS, Blend, Cuts, Edit, Shot, Slides
from bench.measure import OURS, Command, Metric, Row, Target

METRICS: tuple[Metric, ...] = ("cpu", "wall")
COPIED = (
    *(Target(who="ff9", metric=metric, bound=30) for metric in METRICS),
    *(Target(who="melt", metric=metric, bound=40) for metric in METRICS),
    Target(who="moviepy", metric="cpu", bound=60),
    *(Target(who="ff9-copy", metric=metric, bound=0.67) for metric in METRICS),
)
SPLICED = tuple(Target(who="ff9", metric=metric, bound=3.5) for metric in METRICS)
TRIED = tuple(Target(who="ours-plain", metric=metric, bound=0.97) for metric in METRICS)
BLENDED = (
    *(Target(who=who, metric="cpu", bound=1.3) for who in ("ff9", "ff9-overlay")),
    Target(who="melt", metric="cpu", bound=1.8),
    Target(who="moviepy", metric="cpu", bound=4),
)
COUNTS = (10, 50, 200)
PHOTO = (4000, 3000)


class Stage:
    """The size of everything, and the media to play on it."""

    def __init__(self, options: Namespace, folder: Path) -> None:
        self.options = options
        self.folder = folder
        self.smoke = options.smoke
        self.store = media.Media(options.cache or media.default_cache(), synthetic=options.smoke)
        self.width, self.height = (64, 36) if options.smoke else (1920, 1080)
        self.bit_rate = 500_000 if options.smoke else 4_000_000

    def films(self, count: int, seconds: int) -> list[Path]:
        """Films as large as the picture."""
        return self.store.films(count, width=self.width, height=self.height, seconds=seconds)

    def photos(self, count: int) -> list[Path]:
        """JPEGs of 4:3, made of the first film."""
        width, height = (80, 60) if self.smoke else PHOTO
        film = self.films(1, 1 if self.smoke else 10)[0]
        kind = film.name.partition("-")[0]
        paths = [film.with_name(f"{kind}-photo-{n}-{width}x{height}.jpg") for n in range(count)]
        for n, path in enumerate(paths):
            if not path.exists():
                shot = f"crop=ih*4/3:ih,scale={width}:{height}:flags=lanczos,hue=h={18 * n},noise=alls=4"
                at = ["-ss", f"{0.04 * n if self.smoke else 0.4 * n:g}", "-i", str(film)]
                media.make(path, [*at, "-vf", shot, "-frames:v", "1", "-q:v", "3"])
        return paths

    def cuts(self, name: str, shots: list[Shot]) -> Cuts:
        """Cuts of that size."""
        size = {"width": self.width, "height": self.height}
        size["bit_rate"] = self.bit_rate if self.smoke else media.BIT_RATE
        return Cuts(name=name, folder=self.folder, shots=tuple(shots), **size)


def rows(options: Namespace, folder: Path) -> list[Row]:
    """All rows asked for; makes the media they need."""
    stage = Stage(options, folder)
    makers = {"cuts-key": cuts_key, "cuts-any": cuts_any, "cuts-short": cuts_short, "blend": blend}
    makers |= {"blend-null": blend_null, "slides": slides}
    counts = (2, 10) if options.smoke else COUNTS
    makers |= {f"clips-{count}": lambda stage, count=count: clips(stage, count) for count in counts}
    measure.insist("row", options.only, makers)
    return [make(stage) for name, make in makers.items() if not options.only or name in options.only]


def cuts_key(stage: Stage) -> Row:
    """Films have a keyframe every 2 s; the smallest only one."""
    films = stage.films(3, 1 if stage.smoke else 10)
    length = 30 if stage.smoke else 60
    shots = [Shot(file=films[n % 3], trim=length * n % (30 if stage.smoke else 300), length=length) for n in range(10)]
    edit = stage.cuts("cuts-key", shots)
    commands = [
        *_everybody(edit, moviepy=(0, 2 * length / FPS), options=stage.options),
        _without_copying(edit),
        edits.ff9_copy(edit, _out(edit, "ff9-copy")),
        edits.ff9_copy(edit, _out(edit, "ff9-copy-aac"), who="ff9-copy-aac", sound=True),
    ]
    return Row(name=edit.name, title="10 cuts of 2 s on keyframes", commands=commands, targets=COPIED)


def cuts_any(stage: Stage) -> Row:
    """Each begins between two keyframes, and ends there."""
    films = stage.films(3, 1 if stage.smoke else 15)
    length = 25 if stage.smoke else 300
    trims = (1, 3, 5) if stage.smoke else (37, 71, 13)
    shots = [Shot(file=file, trim=trim, length=length) for file, trim in zip(films, trims, strict=True)]
    edit = stage.cuts("cuts-any", shots)
    span = (0, min(3, length / FPS))
    commands = [*_everybody(edit, moviepy=span, options=stage.options), _without_copying(edit)]
    return Row(name=edit.name, title="3 cuts of 10 s anywhere", commands=commands, targets=SPLICED)


def cuts_short(stage: Stage) -> Row:
    """Each lies within a GOP and begins after its keyframe."""
    films = stage.films(3, 1 if stage.smoke else 10)
    length, step = (10, 0) if stage.smoke else (30, 60)
    shots = [Shot(file=films[n % 3], trim=15 + step * n % 300, length=length) for n in range(10)]
    edit = stage.cuts("cuts-short", shots)
    commands = [
        edits.ours(edit, _out(edit, OURS)),
        _without_copying(edit),
        edits.ff9(edit, _out(edit, "ff9")),
    ]
    return Row(name=edit.name, title="10 cuts of 1 s within GOPs", commands=commands, targets=TRIED)


def blend(stage: Stage) -> Row:
    """Everybody's film of it."""
    edit = blended(stage)
    span = (0, edit.seconds) if stage.smoke else (5, 4)
    overlay = edits.ff9(edit, _out(edit, "ff9-overlay"), who="ff9-overlay", graph=edit.ff_overlays())
    floor = edits.codecs(edit, _out(edit, "codecs"))
    commands = [*_everybody(edit, moviepy=span, options=stage.options), overlay, floor]
    return Row(name=edit.name, title="crossfades, inset and text, 20 s", commands=commands, targets=BLENDED)


def blend_null(stage: Stage) -> Row:
    """Those who can throw it away."""
    edit = blended(stage)
    overlay = edits.ff9(edit, peers.NULL, who="ff9-overlay", graph=edit.ff_overlays())
    commands = [edits.ours(edit, peers.NULL), edits.ff9(edit, peers.NULL), overlay]
    return Row(name=f"{edit.name}-null", title="the same, composed and thrown away", commands=commands)


def blended(stage: Stage) -> Blend:
    """20 s; the smallest is 2.5 s long."""
    films = stage.films(4, 1 if stage.smoke else 10)
    lengths, inset = ((30, 75, 30), 30) if stage.smoke else ((225, 225, 210), 300)
    if stage.smoke:  # the middle one begins and ends in a fade
        lengths = (30, 75, 30)
        films[1] = stage.films(2, 3)[1]
    shots = tuple(Shot(file=file, trim=0, length=length) for file, length in zip(films, lengths, strict=False))
    return Blend(
        name="blend",
        folder=stage.folder,
        width=stage.width,
        height=stage.height,
        bit_rate=stage.bit_rate,
        shots=shots,
        inset=Shot(file=films[3], trim=0, length=inset),
        inset_at=15 if stage.smoke else 60,
    )


def slides(stage: Stage) -> Row:
    """60 s; the smallest is 1 s long."""
    photos, length = (stage.photos(2), 15) if stage.smoke else (stage.photos(20), 90)
    edit = Slides(
        name="slides",
        folder=stage.folder,
        width=stage.width,
        height=stage.height,
        bit_rate=stage.bit_rate,
        photos=tuple(photos),
        size=(80, 60) if stage.smoke else PHOTO,
        length=length,
    )
    commands = _everybody(edit, moviepy=(0, length / FPS), options=stage.options)
    return Row(name=edit.name, title="20 photos panned over, 60 s", commands=commands)


def clips(stage: Stage, count: int) -> Row:
    """As many films as clips: what each of them takes shows."""
    width, height, seconds = (64, 36, 1) if stage.smoke else (640, 360, 2)
    films = stage.store.films(min(count, 20), width=width, height=height, seconds=seconds)
    shots = tuple(Shot(file=films[n % len(films)], trim=n % 20, length=10 if stage.smoke else 30) for n in range(count))
    edit = Cuts(name=f"clips-{count}", folder=stage.folder, width=width, height=height, bit_rate=1_000_000, shots=shots)
    commands = [edits.ours(edit, _out(edit, OURS), smart="never"), edits.ff9(edit, _out(edit, "ff9"))]
    return Row(name=edit.name, title=f"{count} cuts of 1 s", commands=commands)


def _everybody(edit: Edit, *, moviepy: tuple[float, float], options: Namespace) -> list[Command]:
    """Ours, FFmpeg, melt, and moviepy for (start, seconds)."""
    start, seconds = moviepy
    return [
        edits.ours(edit, _out(edit, OURS)),
        edits.ff9(edit, _out(edit, "ff9")),
        edits.melt(edit, _out(edit, "melt")),
        edits.moviepy(edit, _out(edit, "moviepy"), python=options.moviepy_python, start=start, seconds=seconds),
    ]


def _without_copying(edit: Edit) -> Command:
    return edits.ours(edit, _out(edit, "ours-plain"), who="ours-plain", smart="never")


def _out(edit: Edit, who: str) -> Path:
    return edit.folder / f"{edit.name}-{who}.mp4"


def main() -> int:
    """Measure, print, keep. Exit status 1 when ours failed anywhere."""
    parser = measure.arguments(__doc__)
    parser.set_defaults(rounds=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mashtun-bench-") as folder:
        measured = measure.bench(rows(options, Path(folder)), options)
    measure.write("timeline", measured, versions=peers.versions(moviepy_python=options.moviepy_python), options=options)
    return measure.verdict(measured)


if __name__ == "__main__":
    sys.exit(main())
