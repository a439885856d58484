"""What does a queue of jobs cost, however long it is, and a job beside its render?

`python -m bench.jobs [--smoke] [--only ROW …] [--peers WHO …] [--seconds S] [--renders N]`

Rows: `queue` has 100, 10 000 and 100 000 jobs queued and says how many four clients can create and pick up in a second,
what CPU each costs the server, and how large it is then; nexrender's own server (npm's 1.38.0, installed into the cache
folder; without npm or a registry it is left out) has 10 000. `list` says how long the list of 10 000 jobs takes.
`renders` puts data-driven jobs, each with a film and a colour of its own in one template, 64×36 and 1 s, through two
slots, looks at every picture, and compares with the same renders one after the other in one process that does nothing
else.

How to read it: the clients run on the same machine, in one process, which takes its share. Load is the machine's just
before: where it is not near 0, others are at work, and all figures are worse than they could be. Linux only, as memory
comes from /proc.
"""

import http.client
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import av
import numpy as np
import trio

from bench import measure, media, peers
from bench.live import Row
from bench.measure import OURS, RunError
from bench.onair import PATIENCE, Child, Server, wait_for
from engine import Held, RenderSpec, RenderTree, render
from engine.spec import AudioFormat, MixerSpec, Raster

PEER = "nexrender"
PEER_PACKAGE = "@nexrender/server@1.38.0"
CLIENTS = 4
BATCH = 40  # requests of one kind before the other kind
LENGTHS = (100, 10_000, 100_000)
COMMON = 10_000  # what all contenders have queued
SLOTS = 2
FLAT = 0.8  # what is left of a pace when the queue is a thousand times as long
FPS = 30
WIDTH, HEIGHT = 64, 36
LEVELS = 10  # of red, green and blue: a thousand colours that differ
ASSETS = "https://assets.example/customers/4711/campaigns/spring"
JOB = {  # as large as jobs for templates are: nine assets, with what a server adds 1.6 kB
    "template": {
        "src": f"{ASSETS}/project.aepx",
        "composition": "main",
        "outputModule": "Lossless",
        "outputExt": "mov",
    },
    "assets": [
        *({"type": "image", "layerName": f"photo-{n}.jpg", "src": f"{ASSETS}/photo-{n}.jpg"} for n in range(3)),
        {"type": "audio", "layerName": "music.mp3", "src": f"{ASSETS}/music.mp3"},
        *(
            {
                "type": "data",
                "layerName": f"line {n}",
                "property": "Source Text",
                "value": "A line that is not so short",
            }
            for n in range(4)
        ),
        {"type": "data", "layerName": "box", "property": "Scale", "value": [120, 120]},
    ],
    "actions": {
        "postrender": [
            {"module": "@nexrender/action-encode", "preset": "mp4", "output": "encoded.mp4"},
            {"module": "@nexrender/action-upload", "input": "encoded.mp4", "provider": "s3", "params": {"key": "4711"}},
        ]
    },
}
POST = json.dumps(JOB).encode()


# ---------------------------------------------------------------------------------------------- asking


class Door:
    """The jobs of a server under `address`; one connection, kept."""

    def __init__(self, address: str) -> None:
        self._connection = http.client.HTTPConnection(address, timeout=10 * PATIENCE)

    def __enter__(self) -> "Door":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """The answer's body. Raises RunError."""
        try:
            self._connection.request(method, f"/api/v1{path}", body, {"Content-Type": "application/json"})
            answer = self._connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise RunError(f"{method} {path}: {error!r}") from error
        if answer.status != 200:
            raise RunError(f"{method} {path}: {answer.status} {text[:200]!r}")
        return text

    def create(self) -> None:
        """One job more."""
        self.ask("POST", "/jobs", POST)

    def pick(self) -> None:
        """One job less. Raises RunError when there is none."""
        if self.ask("GET", "/jobs/pickup") == b"{}":
            raise RunError("nothing was queued")


def at_once(doors: Sequence[Door], count: int, step: Callable[[Door], None]) -> float:
    """Seconds that a step takes so many times, shared by all doors. Raises RunError."""
    faults: list[RunError] = []

    def work(door: Door) -> None:
        try:
            for _ in range(count // len(doors)):
                step(door)
        except RunError as error:
            faults.append(error)

    threads = [threading.Thread(target=work, args=[door]) for door in doors]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if faults:
        raise faults[0]
    return time.perf_counter() - begun


# ---------------------------------------------------------------------------------------------- contenders


@contextmanager
def ours(options: Namespace, length: int) -> Iterator[tuple[Child, str]]:
    """(process, address) of our server with so many jobs queued. Raises RunError."""
    with Server("--worker", "0") as server, Door(server.http) as door:
        for n in range(0, length, 500):
            many = b"[" + b",".join([POST] * min(500, length - n)) + b"]"
            door.ask("POST", "/jobs", many)
            measure.progress(f"{n} of {length} jobs")
        yield server.child, server.http


@contextmanager
def theirs(options: Namespace, length: int) -> Iterator[tuple[Child, str]]:
    """As `ours`, of nexrender's server; it begins with a file of these jobs."""
    program = installed(options.cache or media.default_cache())
    with tempfile.TemporaryDirectory(prefix="mashtun-bench-") as folder, socket.socket() as free:
        file = Path(folder) / "database.js"
        now = "2026-01-01T00:00:00.000Z"
        known = {"state": "queued", "type": "default", "createdAt": now, "updatedAt": now, "creator": "127.0.0.1"}
        file.write_text(json.dumps([{"uid": f"{n:021}", **known, **JOB} for n in range(length)]))
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        argv = ("env", f"NEXRENDER_DATABASE={file}", "node", str(program), "--port", str(port))
        with Child(*argv) as child:
            wait_for(partial(_answers, port), "nexrender's start", alive=[child])
            yield child, f"127.0.0.1:{port}"


def _answers(port: int) -> bool:
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", port)) == 0


CONTENDERS = {OURS: ours, PEER: theirs}


def installed(cache: Path) -> Path:
    """nexrender's server, installed when it is not there yet. Raises RunError."""
    folder = cache / PEER_PACKAGE.replace("/", "-").strip("@")
    program = folder / "node_modules" / "@nexrender" / "server" / "src" / "bin.js"
    if not program.exists():
        if shutil.which("npm") is None:
            raise RunError("absent: no npm")
        folder.mkdir(parents=True, exist_ok=True)
        quiet = ("--ignore-scripts", "--no-audit", "--no-fund", "--silent")
        done = subprocess.run(
            ["npm", "install", "--prefix", str(folder), *quiet, PEER_PACKAGE],
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        if done.returncode or not program.exists():
            raise RunError(f"absent: npm does not install it: {measure.last_line(done.stdout + done.stderr)}")
    return program


# ---------------------------------------------------------------------------------------------- queue


@dataclass(kw_only=True)
class Paces:
    """A contender with so many jobs queued; lists have a value for each round: of creates, of pickups.

    rates  requests in a second
    costs  ms of the server's CPU for one
    """

    who: str
    queued: int
    rates: tuple[list[float], list[float]] = field(default_factory=lambda: ([], []))
    costs: tuple[list[float], list[float]] = field(default_factory=lambda: ([], []))
    rss_bytes: int = 0
    fault: str = ""

    def cells(self) -> Sequence[str]:
        """A line of the table."""
        who = f"{self.who}, {self.queued}"
        if self.fault:
            return who, self.fault
        rates = (f"{statistics.median(each):.0f} ({min(each):.0f}–{max(each):.0f})" for each in self.rates)
        return who, *rates, *(f"{statistics.median(each):.1f}" for each in self.costs), f"{self.rss_bytes / 1e6:.0f}"


@dataclass
class Lengths(Row):
    """The row of the queue."""

    paces: list[Paces] = field(default_factory=list)

    def show(self) -> None:
        """Print it."""
        super().show()
        head = ("", "creates/s", "pickups/s", "CPU ms of a create", "of a pickup", "MB")
        measure.print_columns([head, *(each.cells() for each in self.paces)])


STEPS = (Door.create, Door.pick)


def turn(paces: Paces, child: Child, address: str, options: Namespace) -> None:
    """One contender's part of a round: creates and pickups by turns, so that the queue stays as long as it is."""
    batch = CLIENTS if options.smoke else BATCH
    taken, used, count = [0.0, 0.0], [0.0, 0.0], 0
    with ExitStack() as stack:  # connections end while the others have their turns
        doors = [stack.enter_context(Door(address)) for _ in range(CLIENTS)]
        for step in STEPS:
            at_once(doors, CLIENTS, step)
        end = time.monotonic() + options.seconds / options.rounds
        while not count or time.monotonic() < end:
            count += batch
            for n, step in enumerate(STEPS):
                before = child.usage().cpu
                taken[n] += at_once(doors, batch, step)
                used[n] += child.usage().cpu - before
    for n in range(len(STEPS)):
        paces.rates[n].append(count / taken[n])
        paces.costs[n].append(1000 * used[n] / count)
    paces.rss_bytes = child.usage().rss_bytes


def queue(options: Namespace) -> Row:
    """How many creates and pickups in a second, at every length; all servers are there, and take turns."""
    lengths = (20, 40) if options.smoke else LENGTHS
    row = Lengths("queue", f"{CLIENTS} clients create and pick up jobs while so many are queued, {_load()}")
    row.paces = [Paces(who=OURS, queued=length) for length in lengths]
    row.paces += [Paces(who=PEER, queued=lengths[1])] if is_asked(options) else []
    with ExitStack() as stack:
        running = {}
        for n, each in enumerate(row.paces):
            try:
                running[n] = stack.enter_context(CONTENDERS[each.who](options, each.queued))
            except (RunError, OSError) as error:
                each.fault = str(error)
        for _ in range(options.rounds):
            for n, (child, address) in running.items():
                measure.progress(f"queue: {row.paces[n].who}, {row.paces[n].queued}")
                turn(row.paces[n], child, address, options)
    measure.progress("")
    row.fault = next((each.fault for each in row.paces if each.who == OURS and each.fault), "")
    if not row.fault:
        _compare(row, lengths)
    return row


def _compare(row: Lengths, lengths: Sequence[int]) -> None:
    first, mine, last = row.paces[0], row.paces[1], row.paces[len(lengths) - 1]
    if len(row.paces) > len(lengths) and not row.paces[-1].fault:
        peer = row.paces[-1]
        row.add(f"pickups, ours ÷ {PEER}'s at {peer.queued}", _ratio(mine.rates[1], peer.rates[1]), "≥", 20)
        row.add(f"creates, ours ÷ {PEER}'s at {peer.queued}", _ratio(mine.rates[0], peer.rates[0]))
        row.add(f"CPU of a pickup, {PEER}'s ÷ ours", _ratio(peer.costs[1], mine.costs[1]))
    for n, name in enumerate(("creates", "pickups")):
        row.add(f"{name} at {last.queued} ÷ at {first.queued}", _ratio(last.rates[n], first.rates[n]), "≥", FLAT)


def _ratio(ones: Sequence[float], others: Sequence[float]) -> float:
    """The median of the ratios within a round."""
    return statistics.median(one / max(other, 1e-3) for one, other in zip(ones, others, strict=True))


def _load() -> str:
    return f"load {os.getloadavg()[0]:.1f}"


def is_asked(options: Namespace) -> bool:
    """Whether the peer takes part."""
    return options.peers is None or PEER in options.peers


# ---------------------------------------------------------------------------------------------- list


def lists(options: Namespace) -> Row:
    """How long the lists take."""
    length = 40 if options.smoke else COMMON
    row = Row("list", f"the list of {length} jobs, {_load()}")
    for who, path in ((OURS, "/jobs"), (OURS, "/jobs/status"), (PEER, "/jobs")):
        if who == PEER and not is_asked(options):
            continue
        try:
            with CONTENDERS[who](options, length) as (_, address), Door(address) as door:
                taken = []
                for _ in range(3 if options.smoke else 11):
                    begun = time.perf_counter()
                    text = door.ask("GET", path)
                    taken.append((time.perf_counter() - begun) * 1000)
        except (RunError, OSError) as error:
            row.fault = str(error) if who == OURS else row.fault
            print(f"  {who}: {error}")
            continue
        finally:
            measure.progress("")
        if len(json.loads(text)) != length:
            raise RunError(f"{path} has {len(json.loads(text))} jobs")
        name = f"{who}, {path}, {len(text) / 1e6:.1f} MB, ms"
        row.samples[name] = taken
        row.add(name, statistics.median(taken), *(("≤", 200.0) if who == OURS else ()))
        row.add(f"{name}, the first time", taken[0])
    return row


# ---------------------------------------------------------------------------------------------- renders

BOX = {"destX": WIDTH // 2, "destY": 0, "destWidth": WIDTH // 2, "destHeight": HEIGHT}
TREE = {
    "rootVideoNode": {
        "node": "CompositorNode",
        "nodes": [
            {"node": "VideoSourceNode", "id": "shot", "streamGuid": "placeholder"},
            {"node": "SolidColorNode", "id": "box", "red": 0, "green": 0, "blue": 0, **BOX},
        ],
    }
}
FILMS = {"dark": 40, "dim": 90, "grey": 140, "light": 200}  # luma; without colour no conversion changes them
TOLERANCE = 4  # of 255; the steps of a colour are larger in one plane at least


def shoot(folder: Path) -> dict[str, Path]:
    """Films of one colour each."""
    made = {}
    for name, luma in FILMS.items():
        made[name] = folder / f"{name}.mp4"
        with av.open(str(made[name]), "w") as container:
            stream: Any = container.add_stream("libx264", rate=FPS, options={"crf": "10", "preset": "veryfast"})
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
            frame = av.VideoFrame(WIDTH, HEIGHT, "yuv420p")
            for plane, value in zip(frame.planes, (luma, 128, 128), strict=True):
                plane.update(bytes([value]) * plane.buffer_size)
            for n in range(FPS):
                frame.pts = n
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
    return made


def colour_of(n: int) -> tuple[float, float, float]:
    """Red, green and blue of the n-th job, each 0…1."""
    red, green, blue = (n // LEVELS**place % LEVELS / (LEVELS - 1) for place in range(3))
    return red, green, blue


def planes_of(red: float, green: float, blue: float) -> tuple[float, float, float]:
    """Y, Cb, Cr of a colour (ITU-R BT.709-6, limited range)."""
    luma = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return 16 + 219 * luma, 128 + 224 * (blue - luma) / 1.8556, 128 + 224 * (red - luma) / 1.5748


def check_film(path: Path, n: int) -> None:
    """Raises RunError when any picture of a job's film is not what the job asked for."""
    shot = (FILMS[list(FILMS)[n % len(FILMS)]], 128, 128)
    count = 0
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            count += 1
            for plane, left, right in zip(frame.planes, shot, planes_of(*colour_of(n)), strict=True):
                pixels = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]
                for part, wanted in ((pixels[:, : plane.width // 2], left), (pixels[:, plane.width // 2 :], right)):
                    if abs(np.median(part) - wanted) > TOLERANCE:
                        raise RunError(f"job {n}: {np.median(part)} instead of {wanted:.0f} in picture {count}")
    if count != FPS:
        raise RunError(f"job {n}: {count} pictures instead of {FPS}")


def job_of(n: int, films: dict[str, Path]) -> dict[str, object]:
    """The n-th data-driven job."""
    size = {"width": WIDTH, "height": HEIGHT, "frameRate": FPS, "duration": 1}
    colour = zip(("red", "green", "blue"), colour_of(n), strict=True)
    shot = films[list(FILMS)[n % len(FILMS)]]
    return {
        "uid": f"film-{n}",
        "template": {"src": "data:application/json," + quote(json.dumps(TREE)), "composition": "main", **size},
        "assets": [
            {"type": "video", "layerName": "placeholder", "src": shot.as_uri()},
            *({"type": "data", "layerName": "box", "property": key, "value": value} for key, value in colour),
        ],
    }


def pure(films: dict[str, Path], count: int, folder: Path) -> tuple[float, float]:
    """(wall, CPU) seconds of one render of these, in one process that does nothing else."""
    mixer = MixerSpec(raster=Raster(WIDTH, HEIGHT), fps=Fraction(FPS), audio=AudioFormat())
    walls, cpus = [], []
    for n in range(-2, count):  # the first ones load what all need
        tree = json.loads(json.dumps(TREE))
        tree["rootVideoNode"]["nodes"][1] |= dict(zip(("red", "green", "blue"), colour_of(n % 1000), strict=True))
        spec = RenderSpec(
            output=str(folder / "pure.mp4"),
            mixer=mixer,
            duration=Fraction(1),
            sources={"placeholder": str(films[list(FILMS)[n % len(FILMS)]])},
        )
        wall, cpu = time.perf_counter(), time.process_time()
        trio.run(render, Held(RenderTree.from_json(json.dumps(tree).encode())), spec)
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
        check_film(Path(spec.output), n % 1000)
    return statistics.mean(walls[2:]), statistics.mean(cpus[2:])


def renders(options: Namespace) -> Row:
    """Data-driven films through the queue, and without it."""
    count = 4 if options.smoke else options.renders
    row = Row("renders", f"{count} films of {WIDTH}×{HEIGHT}, 1 s, by {SLOTS} slots, {_load()}")
    with tempfile.TemporaryDirectory(prefix="mashtun-bench-") as place:
        films = shoot(Path(place))
        wall, cpu = pure(films, 4 if options.smoke else 60, Path(place))
        with Server("--worker", str(SLOTS)) as server, Door(server.http) as door:
            begun, used = time.monotonic(), server.child.usage().cpu
            for n in range(0, count, 100):
                door.ask(
                    "POST",
                    "/jobs",
                    json.dumps([job_of(each, films) for each in range(n, min(n + 100, count))]).encode(),
                )
            while left := json.loads(door.ask("GET", "/jobs/status?state=queued,picked,started,render:dorender")):
                measure.progress(f"renders: {len(left)} to do")
                server.child.check()
                time.sleep(0.1)
            taken = time.monotonic() - begun
            served = server.child.usage().cpu - used
            jobs = json.loads(door.ask("GET", "/jobs"))
            measure.progress("")
            for n, job in enumerate(jobs):
                if job["state"] != "finished":
                    raise RunError(f"job {n} is {job['state']}: {job.get('error')}")
                check_film(Path(job["output"]), n)
    row.add("finished with every picture right, %", 100 * len(jobs) / count, "≥", 100.0)  # or it would have raised
    row.add("jobs a minute", 60 * count / taken)
    row.add("s of a slot for a job", SLOTS * taken / count)
    row.add("s for a pure render", wall)
    row.add("overhead, s a job", SLOTS * taken / count - wall, "≤", 0.5)
    row.add("CPU s for a pure render", cpu)
    row.add("CPU s of the server for a job", served / count)
    return row


# ---------------------------------------------------------------------------------------------- the program


def main() -> int:
    """Measure, print, keep. Exit status 1 when ours failed anywhere."""
    parser = measure.arguments(__doc__)
    parser.add_argument("--seconds", type=float, help="of each contender of `queue` (default 20)")
    parser.add_argument(
        "--renders", type=int, default=1000, metavar="N", help="jobs of `renders` (default %(default)s)"
    )
    options = parser.parse_args()
    options.seconds = options.seconds or (0.5 if options.smoke else 20.0)
    options.rounds = 1 if options.smoke else options.rounds
    makers = {"queue": queue, "list": lists, "renders": renders}
    measure.insist("row", options.only, makers)
    measure.insist("peer", options.peers, CONTENDERS)
    rows = []
    for name, make in makers.items():
        if not options.only or name in options.only:
            try:
                row = make(options)
            except (RunError, OSError) as error:
                row = Row(name, "", fault=f"failed: {error}")
            if options.smoke:
                row.bounds.clear()  # they are about real sizes
            row.show()
            rows.append(asdict(row))
    measure.keep("jobs", rows, versions=peers.versions() | {PEER: PEER_PACKAGE.rpartition("@")[2]}, options=options)
    return int(any(row["fault"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
