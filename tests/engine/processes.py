"""What runs under this process, as the kernel tells it."""

import os
from pathlib import Path


def _parent(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def renders():
    """(pid, state, parent) of the renders under this process's children."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, parent = int(path.parent.name), _parent(path.parent.name)
            if _parent(parent) == os.getpid() and b"engine.child" in Path(f"/proc/{parent}/cmdline").read_bytes():
                found.append((pid, path.read_text().rpartition(")")[2].split()[0], parent))
        except OSError:
            continue
    return found
