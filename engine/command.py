"""The render command: arguments → a program and a RenderSpec → render → an exit code and at most one sentence.

It decides exit codes (0 whole, 1 refused or broken, 2 usage, 75 no process or thread to be had, 128 + n when signal n
ended it) and how progress is shown; it refuses to know what a render does. Used by `mashtun render` and by
`python -m engine.child`. What renders is imported when there is something to render, so help and a misspelt option are
answered at once.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn, TypeVar

import msgspec

from engine.config import Settings
from engine.errors import TRY_AGAIN, EngineError, Exhausted, InvalidSpec, SinkUnavailable, one_line, reason_of
from engine.program import Held, Program
from engine.smart import untouched
from engine.spec import MAX_SECONDS, PRESETS, PROFILES, AudioFormat, EncoderSpec, MixerSpec, Raster, RenderSpec
from engine.timebase import frame_rate, tick_count
from engine.tree import MAX_BYTES, AudioSourceNode, CompositorNode, RenderTree, SumNode, nodes_of

if TYPE_CHECKING:
    from engine.offline import Progress, Rendered

    _Report = Callable[[Progress], None]

USAGE: Final = 2
INTERRUPTED: Final = 128 + signal.SIGINT
MAX_THREADS: Final = 64
MAX_TIMEOUT: Final = 3600.0
M_ARENA_MAX, M_MMAP_THRESHOLD, M_TRIM_THRESHOLD = -8, -3, -1  # malloc.h
# All threads allocate from one heap, and what is free stays. There would be one for each thread, and what is free at
# the end of each would be returned to the system, again and again: blocks of sound that one thread makes and another
# drops then cost a third more CPU and a quarter more memory.
_HEAP: Final = {M_ARENA_MAX: 1, M_MMAP_THRESHOLD: 8 << 20, M_TRIM_THRESHOLD: 64 << 20}
_STANDARD: Final = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))  # by number
_BAR_WIDTH: Final = 30
_CLEAR_LINE: Final = "\r\x1b[K"

T = TypeVar("T")


class Parser(argparse.ArgumentParser):
    """Says what is wrong with an argument in one sentence, exit code 2."""

    def error(self, message: str) -> NoReturn:
        """One sentence, no usage text."""
        self.exit(USAGE, f"{self.prog}: {one_line(message)}\n")


def add_render_arguments(parser: argparse.ArgumentParser) -> None:
    """What every command that renders takes."""
    mix = parser.add_argument_group("the mix")
    mix.add_argument(
        "--size", type=_by(Raster.parse), default="1280x720", metavar="WxH", help="pixels (default 1280x720)"
    )
    mix.add_argument(
        "--scale",
        type=_by(Raster.parse),
        metavar="WxH",
        help="pixels of the output, which the picture is scaled to (those of --size); a mash is laid out anew",
    )
    mix.add_argument("--fps", type=_by(frame_rate), default="30", metavar="RATE", help="25, 29.97, 30000/1001 ... (30)")
    mix.add_argument(
        "--start", type=_by(_seconds), metavar="S", help="time of the first picture (0, or where a mash's playhead is)"
    )
    mix.add_argument("--duration", type=_by(_seconds), metavar="S", help="seconds (default: the longest source)")
    mix.add_argument("--limit", type=_by(_seconds), metavar="S", help="seconds at most (default: none)")
    mix.add_argument("--audio-rate", type=int, default=48000, metavar="HZ", help="sample rate (default 48000)")
    mix.add_argument("--channels", type=int, default=2, metavar="N", help="1 or 2 (default 2)")
    code = parser.add_argument_group("encoding")
    code.add_argument("--preset", default="veryfast", metavar="NAME", help=f"{', '.join(PRESETS)} (default veryfast)")
    code.add_argument("--bit-rate", type=int, metavar="B", help="bits per second (default: constant quality)")
    code.add_argument("--max-bit-rate", type=int, metavar="B", help="highest rate over a second")
    code.add_argument("--quality", type=float, metavar="CRF", help="constant quality 0 (lossless) ... 51 (default 20)")
    code.add_argument("--qp-min", type=int, metavar="QP", help="0 to 51, VP9: 0 to 63")
    code.add_argument("--qp-max", type=int, metavar="QP", help="0 to 51, VP9: 0 to 63")
    code.add_argument("--gop", type=int, metavar="N", help="frames between keyframes at most (default 2 s)")
    code.add_argument("--profile", metavar="NAME", help=", ".join(PROFILES))
    code.add_argument("--audio-bit-rate", type=int, default=160_000, metavar="B", help="bits per second (160000)")
    run = parser.add_argument_group("running")
    run.add_argument("--threads", type=int, default=1, metavar="N", help="threads that paint a picture (default 1)")
    run.add_argument("--timeout", type=float, default=10.0, metavar="S", help="patience with a silent source (10)")
    run.add_argument("--on-error", default="fail", metavar="fail|hold", help="what a source that breaks does (fail)")
    run.add_argument("--exact", action="store_true", help="deblock every picture, also where it is shown small")
    run.add_argument("--smart", choices=("auto", "never"), default="auto", help="copy what needs no encoding (auto)")
    run.add_argument("--check", action="store_true", help="tell what would be refused at once, and render nothing")
    run.add_argument("--progress", choices=("auto", "json", "none"), default="auto", help="(default auto)")


def add_document_arguments(parser: argparse.ArgumentParser) -> None:
    """What rendering a document takes besides."""
    parser.add_argument(
        "document", metavar="DOCUMENT", help="a file with one RenderTree as JSON, or a mash; or - for standard input"
    )
    parser.add_argument(
        "out",
        metavar="OUT",
        help=".mp4 .mov .mkv .webm .m4a .mp3 .wav .png .jpg, %%04d.png for all pictures, or null: for nothing",
    )
    parser.add_argument(
        "--source",
        type=_by(_source),
        action="append",
        default=[],
        metavar="GUID=URL",
        help="where the media of a streamGuid is; a guid without one is a path or URL itself",
    )
    parser.add_argument("--images", metavar="DIR", help="where images are (default: the document's folder)")
    add_render_arguments(parser)


def run_document(arguments: argparse.Namespace, document: bytes | None = None) -> int:
    """Renders a document: a file, standard input, or what was read of them already. Returns the exit code."""
    path = arguments.document
    try:
        tree = RenderTree.from_json(read_document(path) if document is None else document)
    except (EngineError, OSError, ValueError) as err:
        return fail(f'document "{path}": {reason_of(err)}')
    if arguments.scale is not None and _fills(tree, arguments.size, arguments.scale):
        arguments.size, arguments.scale = arguments.scale, None  # scaled once at most, and it may be copied
    folder = "." if path == "-" else str(Path(path).parent)
    return run_program(Held(tree), arguments, sources=dict(arguments.source), images=arguments.images or folder)


def _fills(tree: RenderTree, one: Raster, other: Raster) -> bool:
    """Whether all that is seen is a film as it is, over the whole of a frame of either size, and alike in both."""
    film = untouched(tree.root_video_node, one)
    seen = sum(not isinstance(node, CompositorNode | AudioSourceNode | SumNode) for node in nodes_of(tree))
    if film is None or seen > 1 or untouched(tree.root_video_node, other) is None:
        return False
    return film.fit == "fill" or one.width * other.height == other.width * one.height


def run_program(program: Program, arguments: argparse.Namespace, *, sources: dict[str, str], images: str = ".") -> int:
    """Renders a program as the arguments say. Returns the exit code; errors are one sentence on standard error."""
    try:
        spec = read_spec(arguments, sources=sources, images=images)
    except InvalidSpec as err:
        return fail(str(err), USAGE)
    return run_renders([(program, spec)], arguments)


def run_renders(renders: Sequence[tuple[Program, RenderSpec]], arguments: argparse.Namespace) -> int:
    """Renders programs one after the other, as one: of several all durations are known. Returns as `run_program`."""
    try:
        settings = _settings(arguments)
    except InvalidSpec as err:
        return fail(str(err), USAGE)
    if arguments.check:
        return _check(renders)
    display = _Bar(renders[0][1]) if arguments.progress == "auto" and os.isatty(2) else _Display()
    if arguments.progress == "json":
        display = _Lines()
    _log_to_stderr(clear=isinstance(display, _Bar))
    return _run(renders, settings, display)


@contextmanager
def loading() -> Iterator[None]:
    """What is imported within stays: to look through it for garbage, again and again, is a tenth of a start."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def begin() -> None:
    """What of standard input, output and error was closed before we were started leads nowhere from now on.

    Else what is opened next has its number, and gets what is meant for it; a child that writes there would fail.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) < len(_STANDARD):
        os.set_inheritable(number, True)
        name, mode = _STANDARD[number]
        setattr(sys, name, os.fdopen(number, mode, errors="backslashreplace"))
    os.close(number)


def leave(code: int) -> NoReturn:
    """Ends the process; what was imported is not taken apart, which would be a tenth of a short render."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # a full disk, or nobody reads
            code = code or 1
    os._exit(code)


def set_heap(options: Mapping[int, int]) -> None:
    """Says how memory is allocated, where the C library is glibc (mallopt(3)): values by the numbers of malloc.h."""
    import ctypes

    with suppress(AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in options.items():
            mallopt(option, value)


def _check(renders: Sequence[tuple[Program, RenderSpec]]) -> int:
    with loading():
        from engine.offline import check

    try:
        for program, spec in renders:
            check(program, spec)
    except EngineError as err:
        return fail(str(err))
    return 0


def _run(renders: Sequence[tuple[Program, RenderSpec]], settings: Settings, display: _Display) -> int:
    set_heap(_HEAP)
    with loading():
        import trio

        from engine.offline import render

    ticks = [tick_count(spec.length or Fraction(0), spec.mixer.fps) for _, spec in renders]

    async def interruptible() -> int:
        code = 0
        with trio.open_signal_receiver(*heeded_signals()) as signals:
            async with trio.open_nursery() as nursery:

                async def watch() -> None:
                    nonlocal code
                    async for number in signals:
                        code = 128 + number
                        nursery.cancel_scope.cancel()

                nursery.start_soon(watch)
                try:
                    for n, (program, spec) in enumerate(renders):
                        report = _share(display.report, sum(ticks[:n]), sum(ticks[n + 1 :]))
                        rendered = await render(program, spec, settings=settings, report=report)
                    display.close(rendered)
                except EngineError as err:
                    display.close()
                    code = fail(str(err), TRY_AGAIN if isinstance(err, Exhausted) else 1)
                nursery.cancel_scope.cancel()
        return code

    code = trio.run(interruptible)
    display.close()
    return code


def _share(report: _Report | None, before: int, after: int) -> _Report | None:
    """Tells how far all of it is, of a render with so many ticks before and after its own."""
    if report is None or not (before or after):
        return report

    def told(progress: Progress) -> None:
        total = None if progress.total is None else before + progress.total + after
        report(msgspec.structs.replace(progress, done=before + progress.done, total=total))

    return told


def heeded_signals() -> list[signal.Signals]:
    """Those that end a command in good order: all that ask for it but what whoever started us has ignored (nohup)."""
    asking = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    return [each for each in asking if signal.getsignal(each) != signal.SIG_IGN]


def fail(sentence: str, code: int = 1) -> int:
    """Says one sentence on standard error; returns the exit code."""
    print(f"mashtun: {one_line(sentence)}", file=sys.stderr)
    return code


def say(line: str) -> None:
    """Says a line on standard output; it does not matter whether anybody reads it."""
    try:
        print(line, flush=True)
    except OSError:
        _silence()


def _silence() -> None:
    with suppress(OSError):  # or the interpreter would complain again when it flushes at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


class _OneLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return f"{self._fmt}{one_line(record.getMessage())}"


def _log_to_stderr(*, clear: bool) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine(f"{_CLEAR_LINE if clear else ''}mashtun: ", validate=False))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)


def read_document(path: str, most: int = MAX_BYTES) -> bytes:
    """A file, or standard input for -; one byte more than it may have, when it has more. Raises OSError."""
    with open(0 if path == "-" else path, "rb", closefd=path != "-") as file:
        return file.read(most + 1)


def _by(parse: Callable[[str], T]) -> Callable[[str], T]:
    """A type for argparse that keeps the sentence of `parse`."""

    def typed(text: str) -> T:
        try:
            return parse(text)
        except (InvalidSpec, ValueError) as err:
            raise argparse.ArgumentTypeError(str(err)) from err

    return typed


def _seconds(text: str) -> Fraction:
    number = re.fullmatch(r"-?([0-9]{1,30}(\.[0-9]{0,30}|/[1-9][0-9]{0,29})?|\.[0-9]{1,30})", text)
    if not number or abs(seconds := Fraction(text)) >= 10**9:
        raise InvalidSpec(f'"{text}" is not a number of seconds')
    return seconds


def _source(text: str) -> tuple[str, str]:
    guid, found, url = text.partition("=")
    if not found or not guid or not url:
        raise InvalidSpec(f'"{text}" is not GUID=URL')
    return guid, url


def read_spec(arguments: argparse.Namespace, *, sources: dict[str, str] | None = None, images: str = ".") -> RenderSpec:
    """What the arguments ask for. Raises InvalidSpec."""
    mixer = MixerSpec(
        raster=arguments.size, fps=arguments.fps, audio=AudioFormat(arguments.audio_rate, arguments.channels)
    )
    encoder = EncoderSpec(
        preset=arguments.preset,
        bit_rate=arguments.bit_rate,
        max_bit_rate=arguments.max_bit_rate,
        qp_min=arguments.qp_min,
        qp_max=arguments.qp_max,
        quality=arguments.quality,
        gop=arguments.gop,
        profile=arguments.profile,
        audio_bit_rate=arguments.audio_bit_rate,
    )
    return RenderSpec(
        output=arguments.out,
        mixer=mixer,
        encoder=encoder,
        scale=arguments.scale,
        sources=sources or {},
        images=images,
        start=arguments.start or Fraction(0),
        duration=arguments.duration,
        limit=None if arguments.limit is None else min(arguments.limit, MAX_SECONDS),  # 999999: all of it
        on_error=arguments.on_error,
        exact=arguments.exact,
        smart=arguments.smart,
    )


def _settings(arguments: argparse.Namespace) -> Settings:
    if not 0 < arguments.timeout <= MAX_TIMEOUT:
        raise InvalidSpec(f"timeout {arguments.timeout:g} s is not more than 0 and at most {MAX_TIMEOUT:g}")
    if not 1 <= arguments.threads <= MAX_THREADS:
        raise InvalidSpec(f"{arguments.threads} threads are not within 1…{MAX_THREADS}")
    return Settings(open_timeout=arguments.timeout, read_timeout=arguments.timeout, composite_threads=arguments.threads)


class _Display:
    """Shows how far a render is: not at all."""

    report: _Report | None = None

    def close(self, rendered: Rendered | None = None) -> None:
        """Nothing more will be reported; `rendered` when all went well. A second call does nothing."""


class _Lines(_Display):
    """One JSON object per line on standard output."""

    def report(self, progress: Progress) -> None:
        line = {"done": progress.done, "total": progress.total, "elapsed": round(progress.elapsed, 3)}
        try:
            print(msgspec.json.encode(line).decode(), flush=True)
        except OSError as err:
            _silence()
            raise SinkUnavailable(f"progress: {reason_of(err)}") from err


class _Bar(_Display):
    """A bar on the terminal, and a line about the result at the end."""

    def __init__(self, spec: RenderSpec) -> None:
        self._fps = spec.mixer.fps
        self._begun = False

    def report(self, progress: Progress) -> None:
        self._begun = True
        columns = shutil.get_terminal_size().columns - 1
        print(f"{_CLEAR_LINE}{self._line(progress)[:columns]}", end="", file=sys.stderr, flush=True)

    def _line(self, progress: Progress) -> str:
        done, total, elapsed = progress.done, progress.total, progress.elapsed
        rate = done / elapsed if elapsed else 0.0
        if total is None:
            return f"{done} frames  {self._speed(done, elapsed)}"
        share = min(1.0, done / total) if total else 1.0
        left = f"  ETA {(total - done) / rate:.0f} s" if rate and done < total else ""
        bar = "█" * int(share * _BAR_WIDTH)
        return f"{bar:░<{_BAR_WIDTH}} {share:4.0%}  {done}/{total} frames  {self._speed(done, elapsed)}{left}"

    def _speed(self, done: int, elapsed: float) -> str:
        """How much faster than a player would show it."""
        return f"{float(done / self._fps) / elapsed:.2f}×" if elapsed else ""

    def close(self, rendered: Rendered | None = None) -> None:
        if not self._begun:
            return
        self._begun = False
        print(file=sys.stderr)
        if rendered is not None:
            seconds = float(rendered.ticks / self._fps)
            clipped = f", {rendered.clipped} samples clipped" if rendered.clipped else ""
            clipped += f", {rendered.copied} of {rendered.ticks} pictures copied" if rendered.copied else ""
            print(f"{one_line(rendered.output)}: {seconds:.2f} s in {rendered.elapsed:.2f} s{clipped}", file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    """Renders a document as the arguments say; returns the exit code."""
    parser = Parser(prog="mashtun render", description="Render a RenderTree into a film.")
    add_document_arguments(parser)
    try:
        return run_document(parser.parse_args(argv))
    except KeyboardInterrupt:
        return INTERRUPTED
