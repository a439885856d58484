"""The render command: arguments → a program and a RenderSpec → render → an exit code and at most one sentence.

It decides exit codes (0 whole, 1 refused or broken, 2 usage, 130 interrupted) and how progress is shown; it refuses to
know what a render does. Used by `mashtun render` and by `python -m engine.render`.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from fractions import Fraction
from typing import NoReturn

import msgspec
import trio

from engine.config import Settings
from engine.errors import EngineError, InvalidSpec, InvalidTree
from engine.program import Held, Program
from engine.render import Progress, Report, render
from engine.spec import PRESETS, PROFILES, AudioFormat, EncoderSpec, MixerSpec, Raster, RenderSpec
from engine.timebase import frame_rate
from engine.tree import MAX_BYTES, RenderTree

INTERRUPTED = 130


class Parser(argparse.ArgumentParser):
    """Says what is wrong with an argument in one sentence, exit code 2."""

    def error(self, message: str) -> NoReturn:
        """One sentence, no usage text."""
        self.exit(2, f"{self.prog}: {message}\n")


def add_render_arguments(parser: argparse.ArgumentParser) -> None:
    """What every command that renders takes."""
    mix = parser.add_argument_group("the mix")
    mix.add_argument("--size", default="1280x720", metavar="WxH", help="picture size in pixels (default 1280x720)")
    mix.add_argument("--fps", default="30", metavar="RATE", help="frame rate: 25, 29.97, 30000/1001 … (default 30)")
    mix.add_argument("--start", default="0", metavar="S", help="time of the first picture, in seconds (default 0)")
    mix.add_argument("--duration", metavar="S", help="seconds (default: the longest source)")
    mix.add_argument("--audio-rate", type=int, default=48000, metavar="HZ", help="sample rate (default 48000)")
    mix.add_argument("--channels", type=int, default=2, metavar="N", help="1 or 2 (default 2)")
    code = parser.add_argument_group("encoding")
    code.add_argument("--preset", default="veryfast", metavar="NAME", help=f"{', '.join(PRESETS)} (default veryfast)")
    code.add_argument("--bit-rate", type=int, metavar="B", help="bits per second (default: constant quality)")
    code.add_argument("--max-bit-rate", type=int, metavar="B", help="highest rate over a second")
    code.add_argument("--quality", type=float, metavar="CRF", help="constant quality 0 (lossless) … 51 (default 20)")
    code.add_argument("--qp-min", type=int, metavar="QP", help="0…63")
    code.add_argument("--qp-max", type=int, metavar="QP", help="0…63")
    code.add_argument("--gop", type=int, metavar="N", help="frames between keyframes at most (default 2 s)")
    code.add_argument("--profile", metavar="NAME", help=", ".join(PROFILES))
    code.add_argument("--audio-bit-rate", type=int, default=160_000, metavar="B", help="bits per second (160000)")
    run = parser.add_argument_group("running")
    run.add_argument("--threads", type=int, default=1, metavar="N", help="threads that paint a picture (default 1)")
    run.add_argument("--timeout", type=float, default=10.0, metavar="S", help="patience with a silent source (10)")
    run.add_argument("--on-error", default="fail", metavar="fail|hold", help="what a source that breaks does (fail)")
    run.add_argument("--progress", choices=("auto", "json", "none"), default="auto", help="(default auto)")


def add_document_arguments(parser: argparse.ArgumentParser) -> None:
    """What rendering a document takes besides."""
    parser.add_argument("document", metavar="DOCUMENT", help="a file with one RenderTree as JSON, or - for standard input")
    parser.add_argument("out", metavar="OUT", help=".mp4 .mov .mkv .webm .m4a .mp3 .wav .png .jpg, or null: for nothing")
    parser.add_argument(
        "--source",
        action="append",
        default=[],
        metavar="GUID=URL",
        help="where the media of a streamGuid is; a guid without one is a path or URL itself",
    )
    parser.add_argument("--images", metavar="DIR", help="where images are (default: the document's folder)")
    add_render_arguments(parser)


def run_document(arguments: argparse.Namespace) -> int:
    """Renders a document file. Returns the exit code."""
    try:
        tree = RenderTree.from_json(_read(arguments.document))
        sources = dict(_source(each) for each in arguments.source)
    except EngineError as err:
        return _fail(err)
    folder = "." if arguments.document == "-" else os.path.dirname(arguments.document) or "."
    return run_program(Held(tree), arguments, sources=sources, images=arguments.images or folder)


def run_program(
    program: Program, arguments: argparse.Namespace, *, sources: dict[str, str], images: str = "."
) -> int:
    """Renders a program as the arguments say. Returns the exit code; errors are one sentence on standard error."""
    try:
        spec = _spec(arguments, sources=sources, images=images)
        if arguments.timeout <= 0 or not 1 <= arguments.threads <= 64:
            raise InvalidSpec(f"--timeout {arguments.timeout:g} and --threads {arguments.threads}: more than 0, 1…64")
        settings = Settings(
            open_timeout=arguments.timeout, read_timeout=arguments.timeout, composite_threads=arguments.threads
        )
        return trio.run(_interruptible, program, spec, settings, _reporter(arguments.progress))
    except EngineError as err:
        return _fail(err)


async def _interruptible(program: Program, spec: RenderSpec, settings: Settings, report: Report | None) -> int:
    code = 0
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                nonlocal code
                async for number in signals:
                    code = 128 + number
                    nursery.cancel_scope.cancel()

            nursery.start_soon(watch)
            try:
                await render(program, spec, settings=settings, report=report)
            except EngineError as err:
                code = _fail(err)
            nursery.cancel_scope.cancel()
    return code


def _fail(err: EngineError) -> int:
    print(f"mashtun: {err}", file=sys.stderr)
    return 1


def _read(path: str) -> bytes:
    try:
        if path == "-":
            return sys.stdin.buffer.read(MAX_BYTES + 1)
        with open(path, "rb") as file:
            return file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as err:
        reason = getattr(err, "strerror", None) or str(err)
        raise InvalidTree(f'document "{path}": {reason.lower()}', where=path) from err


def _source(text: str) -> tuple[str, str]:
    guid, found, url = text.partition("=")
    if not found or not guid or not url:
        raise InvalidSpec(f'--source "{text}" is not GUID=URL', where="source")
    return guid, url


def _spec(arguments: argparse.Namespace, *, sources: dict[str, str], images: str) -> RenderSpec:
    width, height = _size(arguments.size)
    duration = None if arguments.duration is None else _seconds(arguments.duration, "duration")
    try:
        fps = frame_rate(arguments.fps)
    except ValueError:
        raise InvalidSpec(f'--fps "{arguments.fps}" is not a frame rate', where="fps") from None
    mixer = MixerSpec(
        raster=Raster.of(width, height), fps=fps, audio=AudioFormat(arguments.audio_rate, arguments.channels)
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
        sources=sources,
        images=images,
        start=_seconds(arguments.start, "start"),
        duration=duration,
        on_error=arguments.on_error,
    )


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    try:
        return int(width), int(height)
    except ValueError:
        raise InvalidSpec(f'--size "{text}" is not WIDTHxHEIGHT', where="size") from None


def _seconds(text: str, name: str) -> Fraction:
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise InvalidSpec(f'--{name} "{text}" is not a number of seconds', where=name) from None


def _reporter(kind: str) -> Report | None:
    if kind == "json":
        return _report_json
    return _report_bar if kind == "auto" and sys.stderr.isatty() else None


def _report_json(progress: Progress) -> None:
    line = {"done": progress.done, "total": progress.total, "elapsed": round(progress.elapsed, 3)}
    print(msgspec.json.encode(line).decode(), flush=True)


def _report_bar(progress: Progress) -> None:
    done, total, elapsed = progress.done, progress.total, progress.elapsed
    rate = done / elapsed if elapsed else 0.0
    if total:
        share = min(1.0, done / total)
        bar = "█" * int(share * 30)
        eta = f"ETA {(total - done) / rate:.0f} s" if rate and done < total else ""
        line = f"{bar:░<30} {share:4.0%}  {done}/{total} frames  {rate:.0f} fps  {eta}"
    else:
        line = f"{done} frames  {rate:.0f} fps"
    print(f"\r{line:<90}", end="\n" if done == total else "", file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m engine.render`: renders a document."""
    parser = Parser(prog="mashtun render", description="Render a RenderTree into a film.")
    add_document_arguments(parser)
    try:
        return run_document(parser.parse_args(argv))
    except KeyboardInterrupt:
        return INTERRUPTED
