"""Addresses of this machine that swallow every packet, and names that have several addresses."""

import socket
from contextlib import ExitStack, contextmanager

HOST = "127.0.0.2"  # so that a port of 127.0.0.1 is free there


@contextmanager
def silent(port=0):
    """The port of HOST at which nobody says anything, not even no."""
    with ExitStack() as stack:
        full = stack.enter_context(socket.create_server((HOST, port), backlog=0))  # which drops all but a few
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        yield full.getsockname()[1]


def named(monkeypatch, **addresses):
    """Names that have these addresses, in this order."""
    look_up = socket.getaddrinfo

    def found(host, *arguments, **options):
        each = addresses.get(host, [host])
        return [info for address in each for info in look_up(address, *arguments, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", found)
