"""SVG drawings as PNG files of their own size, see-through where nothing is drawn.

It decides what a drawing may cost; it refuses to know what is in one: that is read and drawn in a process of its own
(`svgchild`), for there are drawings that overflow the drawer's stack or ask for more memory than there is, and such a
process ends without the one that asked. Text has the fonts that come with the engine, so that a picture is the same on
every machine, but for letters that the default one lacks, and for text that asks for DejaVu Sans or Noto Sans: as in
any text the machine's are taken, where they are there. Worker threads only.
"""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Final

from engine.errors import SourceMalformed, SourceUnavailable, SourceUnsupported, reason_of
from engine.spec import MAX_SIDE

log = logging.getLogger(__name__)

HEAD: Final = 16 << 10  # bytes in which a drawing begins, after what its editor says of itself
MAX_BYTES: Final = 8 << 20
MAX_MEMORY: Final = 2 << 30  # bytes; the largest picture has 256 MiB, and a group with an opacity is one more
SECONDS: Final = 30  # of work; the largest picture takes 9
PATIENCE: Final = 60.0  # seconds, on a machine that has other work
FAMILY: Final = "League Spartan"  # of the default font: instead of those that are not there
MALFORMED: Final = 3  # exit codes of `svgchild`, which says why
UNSUPPORTED: Final = 4
_ROOT: Final = re.compile(rb"<(?:\w+:)?svg[\s>/]")


def is_svg(head: bytes) -> bool:
    """Whether a file that begins so is an SVG, or at least a text with one in it."""
    return head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"<") and _ROOT.search(head) is not None


def draw_svg(name: str, data: bytes) -> bytes:
    """The PNG. Raises SourceMalformed, SourceUnsupported; SourceUnavailable: there is no process to be had."""
    if len(data) > MAX_BYTES:
        raise SourceUnsupported(f'image "{name}": an SVG of {len(data)} bytes, more than {MAX_BYTES}', where=name)
    program = Path(__file__).with_name("svgchild.py")
    limits = (str(each) for each in (MAX_SIDE, MAX_MEMORY, SECONDS))
    command = [sys.executable, "-P", str(program), *limits, FAMILY, *_fonts()]
    try:
        done = subprocess.run(command, input=data, capture_output=True, cwd="/", timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired as err:
        raise SourceUnsupported(f'image "{name}": not drawn within {PATIENCE:g} s', where=name) from err
    except OSError as err:
        raise SourceUnavailable(f'image "{name}": no process to draw it: {reason_of(err)}', where=name) from err
    if done.returncode == 0:
        return done.stdout
    if done.returncode in (MALFORMED, UNSUPPORTED):
        error = SourceMalformed if done.returncode == MALFORMED else SourceUnsupported
        raise error(f'image "{name}": {done.stdout.decode()}', where=name)
    log.warning('image "%s": the drawer ended with %d: %s', name, done.returncode, done.stderr[-400:].decode("latin-1"))
    sentence = f"an SVG that cannot be drawn with {MAX_MEMORY >> 20} MiB within {SECONDS} s"
    raise SourceUnsupported(f'image "{name}": {sentence}', where=name)


@cache
def _fonts() -> tuple[str, ...]:
    """Files of fonts. For what a font lacks, all of a text is in the first that has it: a plain one if there is any."""
    from engine.sources.fonts import Fonts, carried  # loads what shapes text: only now, since few need it

    likeliest = (face.path for face in Fonts().likeliest())
    return tuple(dict.fromkeys(map(str, (*likeliest, *carried()))))
