"""How a benchmark measures: commands as child processes, in turns; CPU, wall and memory of each, medians and ratios.

Theory. A machine drifts (other tenants, heat, caches), so commands are never run in blocks but in rounds, A B C A B C
…, after a warm-up round that is thrown away, and a ratio is the median of the ratios within one round. CPU seconds
(of the child and all its children, as wait4 reports them) are the steady figure; wall seconds say what parallelism
made of them; single runs lie by 15 %. What a command has to do, and whether it did it, its `check` knows; this module
knows nothing of media.
"""

import argparse
import contextlib
import json
import os
import platform
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
SMOKE_TIMEOUT = 60  # seconds for one command of a smoke run: melt was seen to wait for itself for good
OURS = "ours"
# As an installed program runs: its byte code is kept, whatever the shell that measures says.
_ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
DECIMALS = 2

Metric = Literal["cpu", "wall"]


class RunError(Exception):
    """A command ended well but did not do its work: a file too short, a picture not in its place."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """One contender of a row.

    who      its name in the table; `OURS` is the one all others are divided by
    argv     program and arguments; it runs in the repository's root
    check    called with what it printed, after each run, outside the timing; raises `RunError`
    share    part of the row's work it does; its seconds are divided by that (for peers too slow to do it all)
    rounds   at most so many rounds; None: as many as the others
    absent   why it cannot run here; such a command is listed, never run
    """

    who: str
    argv: tuple[str, ...] = ()
    check: Callable[[str], None] | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    share: float = 1.0
    rounds: int | None = None
    absent: str = ""


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where to be: a ratio peer ÷ ours to reach, or seconds of ours to stay within."""

    who: str
    metric: Metric
    bound: float

    def text(self, value: float) -> str:
        """The target as printed beside a value, with a remark when it is missed."""
        ratio = self.who != OURS
        missed = value < self.bound if ratio else value > self.bound
        return f"({'reach ≥' if ratio else 'stay ≤'} {self.bound:g}{', missed' if missed else ''})"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One comparison: the same work by every command."""

    name: str
    title: str
    commands: Sequence[Command]
    targets: Sequence[Target] = ()


@dataclass(frozen=True)
class Sample:
    """One run: CPU and wall seconds, and the largest resident size of the whole process tree in bytes."""

    cpu: float
    wall: float
    rss_bytes: int


@dataclass
class Figures:
    """All samples of one command in one row; `fault` says why there are none, or why they do not count."""

    who: str
    share: float = 1.0
    samples: list[Sample] = field(default_factory=list)
    fault: str = ""

    def values(self, metric: Metric) -> list[float]:
        """Seconds for the row's whole work, in the order of the rounds."""
        return [getattr(sample, metric) / self.share for sample in self.samples]

    def ratio(self, ours: "Figures", metric: Metric) -> float | None:
        """Median over the rounds of this ÷ ours; None when either is missing."""
        pairs = list(zip(self.values(metric), ours.values(metric), strict=False))
        if self.fault or ours.fault or not pairs or min(mine for _, mine in pairs) <= 0:
            return None
        return statistics.median(theirs / mine for theirs, mine in pairs)


@dataclass
class Measured:
    """A row and what came of it."""

    row: Row
    figures: list[Figures]

    def of(self, who: str) -> Figures:
        """The figures of one command; empty ones with a fault when the row has no such command."""
        return next((figures for figures in self.figures if figures.who == who), Figures(who, fault="not in this row"))


# ---------------------------------------------------------------------------------------------- running


def arguments(question: str | None) -> argparse.ArgumentParser:
    """The options all benchmarks share; from here on SIGTERM ends the program as an error does, children and all."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    parser = argparse.ArgumentParser(description=question, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="once, at the smallest size: does it work at all?")
    parser.add_argument("--only", nargs="+", metavar="ROW", help="these rows only")
    parser.add_argument("--peers", nargs="*", metavar="WHO", help="ours and these peers only")
    parser.add_argument(
        "--rounds", type=number_of_rounds, default=5, help="rounds after the warm-up (default %(default)s)"
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=600,
        help="seconds for one command, 60 at most in a smoke run (default %(default)s)",
    )
    parser.add_argument("--cache", type=Path, help="folder of the played media (default: in the temporary folder)")
    parser.add_argument("--moviepy-python", default=sys.executable, help="an interpreter that has moviepy")
    return parser


def number_of_rounds(text: str) -> int:
    """The number in an option: one round at least. Raises argparse's error, which ends the program."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no number of rounds: at least 1")
    return int(text)


def insist(kind: str, asked: Iterable[str] | None, there: Iterable[str]) -> None:
    """End the program with a sentence where rows or peers are asked for that are not there."""
    there = list(dict.fromkeys(there))
    unknown = set(asked or ()) - set(there)
    if unknown:
        sys.exit(f"no {kind} {', '.join(sorted(unknown))}; there are: {', '.join(there) or 'none'}")


def run(command: Command, *, timeout: float) -> Sample:
    """Run it once and measure it.

    Raises `RunError` when it fails, takes longer than `timeout` seconds, or did not do its work. Main thread only.
    """
    with tempfile.TemporaryFile() as output:
        started = time.perf_counter()
        child = subprocess.Popen(
            command.argv,
            cwd=ROOT,
            env={**_ENVIRONMENT, **command.env},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that a late child dies with all of its own children
        )
        memory = Memory(child.pid)
        alarm = threading.Timer(timeout, _kill, [child.pid])
        alarm.start()
        try:
            _, status, usage = os.wait4(child.pid, 0)
            wall = time.perf_counter() - started
        except BaseException:
            _kill(child.pid)
            raise
        finally:
            alarm.cancel()
            peak = memory.stop()
        child.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        printed = output.read().decode(errors="replace")
    if child.returncode == -signal.SIGKILL and wall >= timeout:
        raise RunError(f"not done after {timeout:g} s")
    if child.returncode != 0:
        raise RunError(f"exit status {child.returncode}: {last_line(printed)}")
    if command.check is not None:
        command.check(printed)
    return Sample(usage.ru_utime + usage.ru_stime, wall, max(peak, _own_peak(usage)))


class Memory:
    """Watches the peak resident size of a process tree from a thread, ten times a second.

    Each process counts with its own peak while it lives; pages shared between processes count in each. Where there is
    no /proc it sees nothing, and wait4's figure for the largest single process has to do.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._peak = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> int:
        """End watching; the peak in bytes."""
        self._over.set()
        self._thread.join()
        return self._peak

    def _watch(self) -> None:
        pause = 0.01  # quick commands are over before the first tenth of a second
        while not self._over.wait(pause):
            self._peak = max(self._peak, sum(_peak_bytes(pid) for pid in _family(self._pid)))
            pause = min(2 * pause, 0.1)


def _family(pid: int) -> list[int]:
    """A process and all its living descendants."""
    try:
        lists = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:
        lists = []
    return [pid, *(member for child in " ".join(lists).split() for member in _family(int(child)))]


def _peak_bytes(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def _own_peak(usage: resource.struct_rusage) -> int:
    """Peak of the largest process as wait4 has it; 0 when that may be our own size, inherited before the exec."""
    unit = 1 if sys.platform == "darwin" else 1024
    mine = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return usage.ru_maxrss * unit if usage.ru_maxrss > mine else 0


def _kill(session: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(session, signal.SIGKILL)


def last_line(text: str) -> str:
    """The last line that is not empty, for a sentence."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else "(it printed nothing)"


def compare(row: Row, *, rounds: int, timeout: float, warm_up: bool = True) -> Measured:
    """All commands of a row in turn, round after round. A command that fails once is out; the others go on."""
    measured = Measured(row, [Figures(each.who, share=each.share, fault=_absence(each)) for each in row.commands])
    for number in range(-1 if warm_up else 0, rounds):
        for command, figures in zip(row.commands, measured.figures, strict=True):
            if figures.fault or number >= (rounds if command.rounds is None else command.rounds):
                continue
            progress(f"{row.name}: {'warm-up' if number < 0 else f'round {number + 1} of {rounds}'}, {command.who}")
            try:
                sample = run(command, timeout=timeout)
            except (RunError, OSError) as error:
                figures.fault = f"failed: {error}"
            else:
                figures.samples += [sample] if number >= 0 else []
    progress("")
    return measured


def _absence(command: Command) -> str:
    return f"absent: {command.absent}" if command.absent else ""


def progress(text: str) -> None:
    """What is being done, on a terminal; the next one takes its place."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def bench(rows: Iterable[Row], options: argparse.Namespace) -> list[Measured]:
    """Measure the rows the options ask for, one after the other, printing a table for each."""
    rounds, warm_up = (1, False) if options.smoke else (options.rounds, True)
    timeout = min(options.timeout, SMOKE_TIMEOUT) if options.smoke else options.timeout
    done = []
    for row in selected(rows, options):
        done.append(compare(row, rounds=rounds, timeout=timeout, warm_up=warm_up))
        print_table(done[-1])
    return done


def selected(rows: Iterable[Row], options: argparse.Namespace) -> list[Row]:
    """The rows and peers that `--only` and `--peers` leave over; an unknown name ends the program."""
    rows = list(rows)
    insist("row", options.only, (row.name for row in rows))
    insist("peer", options.peers, (each.who for row in rows for each in row.commands))
    keep = None if options.peers is None else {OURS, *options.peers}
    return [
        Row(
            name=row.name,
            title=row.title + (" (a smoke run: smallest size instead)" if options.smoke else ""),
            commands=[each for each in row.commands if keep is None or each.who in keep],
            targets=() if options.smoke else row.targets,  # they are about real sizes
        )
        for row in rows
        if not options.only or row.name in options.only
    ]


def verdict(measured: Iterable[Measured]) -> int:
    """Exit status: 1 when our own command failed anywhere. Peers may fail or be absent."""
    return int(any(figures.fault for each in measured for figures in each.figures if figures.who == OURS))


# ---------------------------------------------------------------------------------------------- showing


def print_table(measured: Measured) -> None:
    """One line a command: seconds as median (min–max), memory, and ratios to ours with their targets."""
    row = measured.row
    ours = measured.of(OURS)
    lines: list[Sequence[str]] = [("", "CPU s", "wall s", "peak MB", "CPU ÷ ours", "wall ÷ ours")]
    for figures in measured.figures:
        if figures.fault:
            lines.append((figures.who, figures.fault))
            continue
        targets = {target.metric: target for target in row.targets if target.who == figures.who}
        cells = [_seconds(figures, metric, targets) for metric in ("cpu", "wall")]
        ratios = [_ratio(figures, ours, metric, targets) for metric in ("cpu", "wall")]
        scaled = f" (of {figures.share:.0%}, scaled)" if figures.share != 1 else ""
        peak = max(sample.rss_bytes for sample in figures.samples) / 1e6
        lines.append((figures.who + scaled, *cells, f"{peak:.0f}", *ratios))
    print(f"\n{row.name}: {row.title}")
    print_columns(lines)


def print_columns(lines: Sequence[Sequence[str]]) -> None:
    """Left-aligned columns; a line with two cells only (a name and a remark) does not widen them."""
    full = [line for line in lines if len(line) != 2]
    widths = [max(len(line[n]) for line in full) for n in range(len(full[0]))]
    widths[0] = max(len(line[0]) for line in lines)
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=False))
        print("  " + "  ".join(cells).rstrip(), flush=True)


def _seconds(figures: Figures, metric: Metric, targets: Mapping[Metric, Target]) -> str:
    values = figures.values(metric)
    text = f"{statistics.median(values):.{DECIMALS}f}"
    if len(values) > 1:
        text += f" ({min(values):.{DECIMALS}f}–{max(values):.{DECIMALS}f})"
    if figures.who == OURS and metric in targets:
        text += f" {targets[metric].text(statistics.median(values))}"
    return text


def _ratio(figures: Figures, ours: Figures, metric: Metric, targets: Mapping[Metric, Target]) -> str:
    value = figures.ratio(ours, metric)
    if figures.who == OURS or value is None:
        return ""
    return f"{value:.2f}" + (f" {targets[metric].text(value)}" if metric in targets else "")


def write(name: str, measured: Sequence[Measured], *, versions: Mapping[str, str], options: argparse.Namespace) -> Path:
    """Keep everything, every sample too."""
    return keep(name, [_record(each) for each in measured], versions=versions, options=options)


def keep(
    name: str, rows: Sequence[Mapping[str, object]], *, versions: Mapping[str, str], options: argparse.Namespace
) -> Path:
    """Write rows, and what they were measured on, to bench/results/NAME.json (not under version control)."""
    content = {
        "bench": name,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": dict(versions),
        "options": {key: str(value) for key, value in vars(options).items() if value is not None},
        "rows": list(rows),
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}{'-smoke' if options.smoke else ''}.json"
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    print(f"\nall samples: {path.relative_to(ROOT)}")
    return path


def _record(measured: Measured) -> dict[str, object]:
    ours = measured.of(OURS)
    commands = {command.who: command for command in measured.row.commands}
    return {
        "name": measured.row.name,
        "title": measured.row.title,
        "targets": [asdict(target) for target in measured.row.targets],
        "commands": [
            {
                **asdict(figures),
                "argv": list(commands[figures.who].argv) if figures.who in commands else [],
                "ratio": {metric: figures.ratio(ours, metric) for metric in ("cpu", "wall")},
            }
            for figures in measured.figures
        ],
    }


def machine() -> dict[str, str | int]:
    """What the figures were measured on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "system": f"{platform.system()} {platform.release()}",
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "memory_bytes": memory,
        "load": " ".join(f"{load:.1f}" for load in os.getloadavg()),
    }


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
