"""What runs under this process, or another one, as the kernel tells it."""

import os
import re
from contextlib import suppress
from pathlib import Path

CHILD = re.compile(rb"\0-m\0(engine|api)\.child\0")


def _parent(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def warm(of=None):
    """The children of a process (None: this one) that renders are forked from."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if CHILD.search(path.read_bytes()) and _parent(path.parent.name) == (of or os.getpid()):
                found.append(int(path.parent.name))
    return found


def _renders(pid):
    """Whether it has begun to: its errors go to a log of its own. Imports run something too: Trio asks ldconfig."""
    inputs, errors = (Path(f"/proc/{pid}/fd/{n}").readlink() for n in (0, 2))
    nobody, others = Path(os.devnull), Path(f"/proc/{_parent(pid)}/fd/2").readlink()
    return inputs == nobody and errors not in (nobody, others)


def renders(of=None):
    """(pid, state, parent) of the renders forked from these."""
    parents = warm(of)
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parent = _parent(path.parent.name)
            if parent in parents and _renders(path.parent.name):
                found.append((int(path.parent.name), path.read_text().rpartition(")")[2].split()[0], parent))
    return found
