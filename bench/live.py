"""How many films does one live mix carry, how late is it, and what does a server cost at rest?

`python -m bench.live [--smoke] [--only ROW …] [--peers WHO …] [--seconds S] [--sources N …] [--memory MINUTES]`

Rows: `sources` mixes more and more films of 720p30 into a grid of 720p30 with all their sound, until the mix no longer
keeps up, ours, FFmpeg and GStreamer; `half` says how late ticks begin at half of what ours carries; `latency` how long
a picture takes through a server that has nothing else to do, and a change of the tree until it is seen; `idle` what a
server costs that nobody uses; `memory` whether its size stays the same.

How to read it: "in time" is for ours the share of all sources' pictures that were shown when they were due, for a peer
how many seconds it made in a second. Ours keeps up when no slot lagged, none was skipped and 99 % were in time, and of
the sound, a peer when it made 0.995. What does not keep up is tried again, as often as `--rounds` says. The peers have
the easier work: ours is a server, its films are pushed and its mix is read over RTMP, by processes that share the
machine with it; they read files at the clock's speed and throw their mix away, and no picture of theirs has a time at
which it is too late. Therefore ours may be a second late, but in the row `latency`. `ours-files` pulls the films
itself, and nobody reads its mix: the same work as theirs. `codecs` is the floor: FFmpeg decodes the films, mixes their
sound and encodes the first of them; nothing is scaled, nothing composed, so what it does not carry nobody can who
decodes all of every film. Load is the machine's just before: where it is not near 0, others are at work, and what is
carried is less than could be.
Linux only, as CPU and memory come from /proc.
"""

import itertools
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from bench import measure, media, peers
from bench.measure import OURS, RunError
from bench.onair import FPS, Camera, Checked, Child, Server, Sight, Usage, Viewer, pause, wait_for
from bench.peers import Layer, Mix

FILES = "ours-files"
BIT_RATE = 4_000_000
GAIN_DB = -6
FILMS = 9  # different ones; more sources show them again
FIRST, STEP, MOST = 8, 2, 32  # how many sources are tried
GOAL = 12
IN_TIME = 0.99
PEER_IN_TIME = 0.995
LATENCY_MS = 200  # that an event has unless it asks for another
PATIENT_MS = 1000  # that events of `sources` have; their peers may be late by any time
SLOT_MS = 1000 / FPS
QUIET = ("-hide_banner", "-loglevel", "error", "-nostdin")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all rows have in common.

    warm_up  seconds from the first picture of every source to the beginning of a measurement of `seconds`.
    folder   scratch folder.
    """

    films: Sequence[Path]
    folder: Path
    width: int
    height: int
    warm_up: float
    seconds: float

    def mix(self, count: int) -> Mix:
        """So many films in a grid that fills the picture, with even places and sizes."""
        columns = math.ceil(math.sqrt(count))
        rows = math.ceil(count / columns)
        xs = [self.width * n // columns & ~1 for n in range(columns + 1)]
        ys = [self.height * n // rows & ~1 for n in range(rows + 1)]
        layers = [
            Layer(
                file=self.films[n % len(self.films)],
                x=xs[column],
                y=ys[row],
                width=xs[column + 1] - xs[column],
                height=ys[row + 1] - ys[row],
                gain_db=GAIN_DB,
            )
            for n, (row, column) in enumerate(itertools.islice(itertools.product(range(rows), range(columns)), count))
        ]
        return Mix(layers=layers, seconds=self.seconds, folder=self.folder, width=self.width, height=self.height)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One attempt to carry so many sources. `load` is the machine's before it, `cores` are CPU seconds a second."""

    who: str
    sources: int
    load: float
    keeps_up: bool = False
    in_time: float = 0.0
    cores: float = 0.0
    rss_bytes: int = 0
    late_p50_ms: float | None = None
    late_p99_ms: float | None = None
    remark: str = ""
    fault: str = ""


@dataclass
class Row:
    """A row and what came of it: trials, and values by name with the bounds that some are to keep."""

    name: str
    title: str
    trials: list[Trial] = field(default_factory=list)
    values: dict[str, float | None] = field(default_factory=dict)
    bounds: dict[str, tuple[str, float]] = field(default_factory=dict)  # sign and number
    samples: dict[str, list[float]] = field(default_factory=dict)  # kept, not printed
    fault: str = ""

    def add(self, name: str, value: float | None, sign: str = "", bound: float = 0.0) -> None:
        """Add a value; `sign` is "≤", "≥", ">" or, without a bound, nothing."""
        self.values[name] = value
        if sign:
            self.bounds[name] = sign, bound

    def show(self) -> None:
        """Print it."""
        print(f"\n{self.name}: {self.title}")
        if self.trials:
            head = ("", "keeps up", "in time", "cores", "MB", "late p99 ms", "load", "")
            measure.print_columns([head, *map(_cells, self.trials)])
        if self.fault:
            print(f"  {self.fault}", flush=True)
        lines = [
            (name, "–" if value is None else f"{value:.3g}", self._wanted(name)) for name, value in self.values.items()
        ]
        if lines:
            measure.print_columns(lines)

    def _wanted(self, name: str) -> str:
        if name not in self.bounds:
            return ""
        sign, bound = self.bounds[name]
        value = self.values[name]
        met = value is not None and {"≤": value <= bound, "≥": value >= bound, ">": value > bound}[sign]
        return f"({'stay' if sign == '≤' else 'reach'} {sign} {bound:.3g}{'' if met else ', missed'})"


def _cells(trial: Trial) -> Sequence[str]:
    who = f"{trial.who}, {trial.sources}" if trial.sources else trial.who
    if trial.fault:
        return who, trial.fault
    late = "" if trial.late_p99_ms is None else f"{trial.late_p99_ms:.1f}"
    figures = f"{trial.in_time:.1%}", f"{trial.cores:.2f}", f"{trial.rss_bytes / 1e6:.0f}", late, f"{trial.load:.1f}"
    return who, "yes" if trial.keeps_up else "no", *figures, trial.remark


# ---------------------------------------------------------------------------------------------- ours


@contextmanager
def on_air(setting: Setting, count: int, *, pulls: bool = False) -> Iterator[tuple[Server, list[Child]]]:
    """A server that mixes `count` films, all of them seen; and all processes that take part.

    pulls  it reads the films itself and nobody reads its mix; else they are pushed and it is read, over RTMP.
    """
    mix = setting.mix(count)
    names = [f"live/cam{n}" for n in range(count)]
    with Server() as server, ExitStack() as stack:
        server.create(width=mix.width, height=mix.height, bit_rate=BIT_RATE, latency=PATIENT_MS)
        outputs = [
            word
            for n, name in enumerate(names)
            for word in ("-map", str(n), "-c", "copy", "-f", "flv", f"{server.rtmp}/{name}")
        ]
        everybody = [server.child]
        if pulls:
            for name, layer in zip(names, mix.layers, strict=True):
                server.ask("PUT", f"/streams/1.0/{name}", {"url": str(layer.file), "loop": True})
        else:  # one process for all: the less pushing costs, the more is left for who is measured
            everybody.append(stack.enter_context(Child(media.ffmpeg(), *QUIET, *_played(mix), *outputs)))
        sounds = [{"node": "AudioSourceNode", "streamGuid": name, "gain": GAIN_DB} for name in names]
        server.put([_node(name, layer) for name, layer in zip(names, mix.layers, strict=True)], sounds)
        if not pulls:
            watched = ("-i", f"{server.rtmp}/live/mix", "-c", "copy", "-f", "null", "-")
            everybody.append(stack.enter_context(Child(media.ffmpeg(), *QUIET, *watched)))

        def all_seen() -> bool:
            sources = server.event()["subMixes"][0]["sources"].values()
            return len(sources) == count and all(source["shown"] for source in sources)

        wait_for(all_seen, f"the first picture of {count} sources", alive=everybody)
        pause(setting.warm_up, everybody)
        yield server, everybody


def _played(mix: Mix) -> list[str]:
    """FFmpeg's inputs: the films in real time, for ever."""
    return [word for film in _films(mix) for word in film]


def _films(mix: Mix) -> list[tuple[str, ...]]:
    return [("-re", "-stream_loop", "-1", "-i", str(layer.file)) for layer in mix.layers]


def _node(name: str, layer: Layer) -> dict[str, object]:
    place = {"destX": layer.x, "destY": layer.y, "destWidth": layer.width, "destHeight": layer.height}
    return {"node": "VideoSourceNode", "streamGuid": name, **place}


def ours(setting: Setting, count: int, *, pulls: bool = False) -> Trial:
    """The server, by its own figures and those of /proc. Raises RunError."""
    load = os.getloadavg()[0]
    with on_air(setting, count, pulls=pulls) as (server, everybody):
        before, used = server.event(), server.child.usage()
        pause(setting.seconds, everybody)
        after, usage = server.event(), server.child.usage()
    slots = after["slots"] - before["slots"]
    old, new = before["subMixes"][0], after["subMixes"][0]
    lagged = new["mixer"]["lagged"] - old["mixer"]["lagged"]
    skipped = new["encoder"]["skipped"] - old["encoder"]["skipped"]
    shown, missing = (
        sum(source[key] - old["sources"][name][key] for name, source in new["sources"].items())
        for key in ("shown", "missing")
    )
    in_time = min(1.0, shown / (slots * count))
    silent = missing / (slots * count * peers.AUDIO_HZ / FPS)
    return Trial(
        who=FILES if pulls else OURS,
        sources=count,
        load=load,
        keeps_up=lagged == 0 and skipped == 0 and in_time >= IN_TIME and silent <= 1 - IN_TIME,
        in_time=in_time,
        cores=_cores(used, usage),
        rss_bytes=usage.rss_bytes,
        late_p50_ms=new["mixer"]["lateP50Ms"],
        late_p99_ms=new["mixer"]["lateP99Ms"],
        remark=f"{slots} slots, {lagged} lagged, {skipped} skipped, {silent:.1%} of the sound missing",
    )


def _cores(before: Usage, after: Usage) -> float:
    return (after.cpu - before.cpu) / (after.wall - before.wall)


# ---------------------------------------------------------------------------------------------- peers


def ff9(setting: Setting, count: int) -> Trial:
    """FFmpeg: the films with -re, bilinear scaling, xstack, amix; encoded and thrown away. Raises RunError."""
    mix = setting.mix(count)
    argv = [media.ffmpeg(), *QUIET, "-progress", "pipe:1", "-stats_period", "0.2", *_played(mix)]
    argv += ["-filter_complex", f"{peers.xstack(mix)};{peers.amix(mix)}", "-map", "[v]", "-map", "[a]"]
    return _peer(setting, "ff9", count, [*argv, *_ff_encoded(mix)], _ff_made)


def _ff_encoded(mix: Mix) -> list[str]:
    x264 = ["-c:v", "libx264", "-preset", peers.PRESET, "-tune", "zerolatency", "-b:v", str(BIT_RATE)]
    x264 += ["-g", str(mix.gop), "-r", str(FPS), "-pix_fmt", "yuv420p"]
    return [*x264, "-c:a", "aac", "-b:a", str(peers.AUDIO_BIT_RATE), "-f", "null", "-"]


def _ff_made(line: str) -> float | None:
    key, _, value = line.partition("=")
    return int(value) / 1e6 if key == "out_time_us" and value.strip().isdigit() else None


def codecs(setting: Setting, count: int) -> Trial:
    """FFmpeg: what must be decoded and encoded, and nothing else. Raises RunError."""
    mix = setting.mix(count)
    argv = [media.ffmpeg(), *QUIET, "-progress", "pipe:1", "-stats_period", "0.2"]
    argv += [word for film in _films(mix) for word in ("-threads", "1", *film)]
    argv += ["-filter_complex", peers.amix(mix), "-map", "0:v", "-map", "[a]", *_ff_encoded(mix)]
    thrown_away = [word for n in range(1, count) for word in ("-map", f"{n}:v", "-f", "null", "-")]
    return _peer(setting, "codecs", count, [*argv, *thrown_away], _ff_made)


def gst(setting: Setting, count: int) -> Trial:
    """GStreamer: compositor and audiomixer before sinks that keep time; encoded and thrown away. Raises RunError."""
    mix = setting.mix(count)
    raw = f"video/x-raw,format=I420,width={mix.width},height={mix.height},framerate={FPS}/1 ! queue"
    x264 = f"x264enc tune=zerolatency speed-preset={peers.PRESET} bitrate={BIT_RATE // 1000} key-int-max={mix.gop}"
    counted = "fpsdisplaysink video-sink=fakesink text-overlay=false sync=true fps-update-interval=200"
    aac = f"audio/x-raw,rate={peers.AUDIO_HZ},channels=2 ! audioconvert ! avenc_aac bitrate={peers.AUDIO_BIT_RATE}"
    argv = [shutil.which("gst-launch-1.0") or "", "-v", "compositor", "name=c", "background=black"]
    argv += [*peers.gst_pads(mix), *f"! {raw} ! {x264} ! queue ! {counted}".split()]
    argv += f"audiomixer name=m ! {aac} ! queue ! fakesink sync=true".split()
    files = _lengthened(setting, mix)
    for n, layer in enumerate(mix.layers):
        argv += peers.gst_branch(mix, n, Layer(**{**vars(layer), "file": files[layer.file]}), videoscale=True)

    def made(line: str) -> float | None:
        _, found, rest = line.partition("rendered: ")
        return int(rest.partition(",")[0]) / FPS if found else None

    return _peer(setting, "gst", count, argv, made)


def _lengthened(setting: Setting, mix: Mix) -> dict[Path, Path]:
    """The films again and again, longer than any trial, for who cannot loop."""
    seconds = setting.warm_up + setting.seconds + 30
    longer = {layer.file: setting.folder / f"{seconds:g}s-{layer.file.name}" for layer in mix.layers}
    for film, file in longer.items():
        if not file.exists():
            loop = ("-stream_loop", "-1", "-i", str(film), "-t", f"{seconds:g}", "-c", "copy", str(file))
            subprocess.run([media.ffmpeg(), *QUIET, *loop], check=True)
    return longer


def _peer(setting: Setting, who: str, count: int, argv: Sequence[str], made: Callable[[str], float | None]) -> Trial:
    """Run a peer; `made` says which media second a line that it printed speaks of."""
    load = os.getloadavg()[0]
    points: list[tuple[float, float]] = []  # wall and media seconds

    def heard(line: str) -> None:
        if (seconds := made(line)) is not None:
            points.append((time.monotonic(), seconds))

    with Child(*argv, heard=heard) as child:
        wait_for(lambda: points and points[-1][1] > 0, f"the first picture of {who}", alive=[child])
        pause(setting.warm_up, [child])
        used, first = child.usage(), len(points)
        pause(setting.seconds, [child])
        usage, last = child.usage(), len(points) - 1
    if last <= first:
        raise RunError(f"it was stuck for {setting.seconds:g} s")
    pace = (points[last][1] - points[first][1]) / (points[last][0] - points[first][0])
    return Trial(
        who=who,
        sources=count,
        load=load,
        keeps_up=pace >= PEER_IN_TIME,
        in_time=pace,
        cores=_cores(used, usage),
        rss_bytes=usage.rss_bytes,
    )


CONTENDERS: dict[str, Callable[[Setting, int], Trial]] = {
    OURS: ours,
    FILES: partial(ours, pulls=True),
    "ff9": ff9,
    "gst": gst,
    "codecs": codecs,
}


def absence(who: str) -> str:
    """Why a contender cannot run here; "" when it can."""
    if who == "gst" and shutil.which("gst-launch-1.0") is None:
        return "absent: no gst-launch-1.0 (Debian: gstreamer1.0-tools and its plugins, see the README)"
    return ""


# ---------------------------------------------------------------------------------------------- rows


def search(attempt: Callable[[int], Trial], counts: Sequence[int], *, tries: int) -> tuple[list[Trial], int | None]:
    """All attempts, and the largest number of sources that was carried; None when none was.

    counts  the only ones to try; without, upwards from FIRST, or downwards where that is too many.
    """
    trials: list[Trial] = []

    def carries(count: int) -> bool:
        for _ in range(tries):
            trials.append(attempt(count))
            if trials[-1].keeps_up or trials[-1].fault:
                break
        return trials[-1].keeps_up

    if counts:
        return trials, max(filter(carries, counts), default=None)
    best = FIRST
    if carries(best):
        while best < MOST and carries(best + STEP):
            best += STEP
    else:
        best -= STEP
        while best > 0 and not carries(best):
            best -= STEP
    if best and carries(best + 1):
        best += 1
    return trials, best or None


def sources(setting: Setting, options: Namespace) -> Row:
    """How many films each of us carries."""
    size = f"{setting.width}×{setting.height} at {FPS}"
    title = f"films of {size} → one of {size}, x264 {peers.PRESET} zerolatency + AAC, {setting.seconds:g} s each"
    row = Row("sources", title)
    carried: dict[str, int | None] = {}
    for who, contender in CONTENDERS.items():
        if who not in (OURS, FILES) and options.peers is not None and who not in options.peers:
            continue
        if absence(who):
            row.trials.append(Trial(who=who, sources=0, load=0.0, fault=absence(who)))
            continue
        attempt = partial(_attempt, contender, who, setting)
        trials, carried[who] = search(attempt, options.sources, tries=options.rounds)
        row.trials += trials
    for mine in (OURS, FILES):
        row.add(f"{mine} carries", carried[mine], "≥", GOAL)
    for who, sign, bound in (("ff9", ">", 1.0), ("gst", "≥", 1.4), ("codecs", "", 0.0)):
        if who in carried:
            row.add(f"{who} carries", carried[who])
            for mine in (OURS, FILES):
                few, many = carried[mine], carried[who]
                row.add(f"{mine} ÷ {who}", few / many if few and many else None, sign, bound)
    return row


def _attempt(contender: Callable[[Setting, int], Trial], who: str, setting: Setting, count: int) -> Trial:
    measure.progress(f"sources: {who}, {count}")
    load = os.getloadavg()[0]
    try:
        return contender(setting, count)
    except (RunError, OSError, subprocess.CalledProcessError) as error:
        return Trial(who=who, sources=count, load=load, fault=f"failed: {error}")
    finally:
        measure.progress("")


def half(setting: Setting, carried: int | None, known: Sequence[Trial]) -> Row:
    """How late ticks begin at half of what can be carried, or of the goal where that was not measured.

    known  a trial of that many films among these serves.
    """
    count = max(1, (carried or GOAL) // 2)
    what = carried or f"the goal, {GOAL}, as nothing that was carried was measured"
    row = Row("half", f"{count} films, half of {what}: how late a tick begins")
    found = [trial for trial in known if (trial.who, trial.sources, trial.fault) == (OURS, count, "")]
    row.trials.append(found[-1] if found else _attempt(ours, OURS, setting, count))
    row.add("late p50, ms", row.trials[0].late_p50_ms)
    row.add("late p99, ms", row.trials[0].late_p99_ms, "≤", 5.0)
    return row


def latency(setting: Setting, options: Namespace) -> Row:
    """How long a picture takes from its sending to the mix's player, and a change of the tree until it is seen."""
    row = Row(
        "latency", f"one camera, {LATENCY_MS} ms asked for: from push to player, and from PUT to its first picture"
    )
    camera_node: dict[str, object] = {"node": "VideoSourceNode", "streamGuid": "live/camera"}
    width, height = setting.width // 4, setting.height // 4
    lamp_node = {"node": "SolidColorNode", "destX": 3 * width, "destY": 0, "destWidth": width, "destHeight": height}
    waited, slots = [], []
    with Server() as server, ExitStack() as stack:
        server.create(width=setting.width, height=setting.height, bit_rate=BIT_RATE)
        server.put([camera_node])
        camera = stack.enter_context(Camera(f"{server.rtmp}/live/camera", width=2 * width, height=2 * height))
        viewer = stack.enter_context(Viewer(f"{server.rtmp}/live/mix"))
        both: list[Checked] = [server.child, camera, viewer]
        wait_for(lambda: viewer.seen and viewer.seen[-1].number > 0, "the first picture of the camera", alive=both)
        pause(setting.warm_up, both)
        begun = len(viewer.seen)
        for n in range(4 if options.smoke else 40):
            pause(0.1 + 0.3 * (n * 0.618 % 1), both)  # at any moment within a slot
            light = 1 - n % 2
            known, asked = len(viewer.seen), time.monotonic()
            slot = server.put([camera_node, {**lamp_node, "red": light, "green": light, "blue": light}])
            lit = partial(_first_lit, viewer, known, light)
            wait_for(lit, "a change of the tree", alive=both)
            sight = lit()
            assert sight is not None
            waited.append((sight.when - asked) * 1000)
            slots.append(float(sight.slot - slot))
        firsts = {sight.number: sight.when for sight in reversed(viewer.seen[begun:])}
        taken = [(when - camera.sent[number]) * 1000 for number, when in firsts.items() if number in camera.sent]
    row.add("push to player p50, ms", _percentile(taken, 50), "≤", 350.0)
    row.add("push to player p95, ms", _percentile(taken, 95))
    row.add("PUT to picture p50, ms", _percentile(waited, 50))
    row.add("PUT to picture p95, ms", _percentile(waited, 95), "≤", LATENCY_MS + 2 * SLOT_MS)
    row.add("slots after the answered one, most", max(slots), "≤", 0.0)
    row.samples = {"push to player, ms": taken, "PUT to picture, ms": waited, "slots after the answered one": slots}
    return row


def _first_lit(viewer: Viewer, known: int, light: int) -> Sight | None:
    return next((sight for sight in viewer.seen[known:] if (sight.corner > 200) == light == (sight.corner > 60)), None)


def _percentile(values: Sequence[float], percent: int) -> float:
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]


def idle(setting: Setting, options: Namespace) -> Row:
    """What a server costs that has nothing to do."""
    seconds = 0.5 if options.smoke else 10.0
    row = Row("idle", f"a server without streams, {seconds:g} s")
    with Server() as server:
        server.ask("GET", "/status")
        pause(setting.warm_up, [server.child])
        used = server.child.usage()
        pause(seconds, [server.child])
        usage = server.child.usage()
    row.add("CPU, % of a core", 100 * _cores(used, usage), "≤", 1.0)
    row.add("resident, MB", usage.rss_bytes / 1e6)
    return row


def memory(setting: Setting, options: Namespace) -> Row:
    """Whether a server with four films stays as large as it was after a minute."""
    minutes, count = options.memory, 4
    row = Row("memory", f"{count} films for {minutes:g} minutes")
    sizes: list[float] = []
    with on_air(setting, count) as (server, everybody):
        end = time.monotonic() + 60 * minutes
        while time.monotonic() < end:
            measure.progress(f"memory: {(end - time.monotonic()) / 60:.0f} minutes left")
            pause(min(2.0, max(0.0, end - time.monotonic())), everybody)
            sizes.append(server.child.usage().rss_bytes / 1e6)
        server.event()
    measure.progress("")
    rest = sizes[len(sizes) // 10 :]  # queues and pools fill first
    quarter = max(1, len(rest) // 4)
    before, after = statistics.median(rest[:quarter]), statistics.median(rest[-quarter:])
    row.add("first quarter, MB", before)
    row.add("last quarter, MB", after)
    row.add("most, MB", max(sizes))
    row.add("growth, %", 100 * (after / before - 1), "≤", 3.0)
    row.samples = {"resident, MB": sizes}
    return row


# ---------------------------------------------------------------------------------------------- the program


def main() -> int:
    """Measure, print, keep. Exit status 1 when ours failed anywhere."""
    options = arguments()
    store = media.Media(options.cache or media.default_cache(), synthetic=options.smoke)
    width, height = (128, 72) if options.smoke else (1280, 720)
    count = 2 if options.smoke else FILMS
    with tempfile.TemporaryDirectory(prefix="mashtun-bench-") as folder:
        setting = Setting(
            films=store.films(count, width=width, height=height, seconds=10),
            folder=Path(folder),
            width=width,
            height=height,
            warm_up=0.3 if options.smoke else 5.0,
            seconds=options.seconds,
        )
        rows = list(measured(setting, options))
    measure.keep("live", [asdict(row) for row in rows], versions=peers.versions(), options=options)
    return int(any(row.fault or any(t.fault for t in row.trials if t.who in (OURS, FILES)) for row in rows))


def arguments() -> Namespace:
    """The options of all benchmarks, and ours."""
    parser = measure.arguments(__doc__)
    parser.add_argument("--seconds", type=float, help="of one measurement (default 20)")
    parser.add_argument("--sources", type=int, nargs="+", default=[], metavar="N", help="only so many sources")
    parser.add_argument("--memory", type=float, default=10, metavar="MINUTES", help="of that row; 0 leaves it out")
    parser.set_defaults(rounds=2)
    options = parser.parse_args()
    measure.insist("peer", options.peers, CONTENDERS)
    options.seconds = options.seconds or (1.0 if options.smoke else 20.0)
    if options.smoke:
        options.rounds, options.memory, options.sources = 1, 0, [2]
    return options


def measured(setting: Setting, options: Namespace) -> Iterator[Row]:
    """The rows that are asked for, each shown when it is done."""
    done: dict[str, Row] = {}

    def half_of_that() -> Row:
        first = done.get("sources", Row("sources", ""))
        carried = 4.0 if options.smoke else first.values.get("ours carries")
        return half(setting, int(carried) if carried else None, first.trials)

    makers: dict[str, Callable[[], Row]] = {
        "sources": lambda: sources(setting, options),
        "half": half_of_that,
        "latency": lambda: latency(setting, options),
        "idle": lambda: idle(setting, options),
        **({"memory": lambda: memory(setting, options)} if options.memory else {}),
    }
    measure.insist("row", options.only, makers)
    for name, make in makers.items():
        if not options.only or name in options.only:
            try:
                row = done[name] = make()
            except (RunError, OSError) as error:
                row = Row(name, "", fault=f"failed: {error}")
            if options.smoke:
                row.bounds.clear()  # they are about real sizes
            row.show()
            yield row


if __name__ == "__main__":
    sys.exit(main())
