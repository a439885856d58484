"""A process that is out of file descriptors, for a while."""

import resource
from contextlib import contextmanager


@contextmanager
def no_descriptors():
    """No file can be opened: the process has as many as it may."""
    usual = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, usual[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, usual)
