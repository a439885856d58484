"""`python -m tests.engine.crowded` is `engine.child` of a user who has as many processes as he may."""

import ctypes
import os
import resource
import sys

from engine import child

ANYBODY = 65534
CAPABILITIES = 0x20080522  # _LINUX_CAPABILITY_VERSION_3


def crowd():
    """This process gets no other one, and no thread. Those of root get any number: it is his no more, but its files."""
    if os.getuid() == 0:
        os.setresuid(ANYBODY, 0, 0)
        ctypes.CDLL(None).capset((ctypes.c_uint32 * 2)(CAPABILITIES, 0), (ctypes.c_uint32 * 6)())
    resource.setrlimit(resource.RLIMIT_NPROC, (1, resource.getrlimit(resource.RLIMIT_NPROC)[1]))


if __name__ == "__main__":
    crowd()
    sys.exit(child.main())
