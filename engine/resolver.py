"""Resolver: the addresses of host names, looked up in one thread for each name, however often it is asked for.

It decides how many lookups there are at a time; it refuses to know how one is made. A lookup cannot be ended: one that
no server of names answers keeps its thread for up to half a minute after whoever asked has given up. Trio would take
these threads from those that all other work shares.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import trio

from engine.threads import in_thread

T = TypeVar("T")


class Resolver(trio.abc.HostnameResolver):
    """What trio.socket.set_custom_hostname_resolver takes. Lookups of one name come one after another.

    look_up  as socket.getaddrinfo.
    """

    def __init__(self, look_up: Callable[..., list[Any]] = socket.getaddrinfo) -> None:
        self._look_up = look_up
        # By name; each lives for as long as somebody waits for it, or its thread is at work.
        self._limiters: WeakValueDictionary[object, trio.CapacityLimiter] = WeakValueDictionary()

    async def getaddrinfo(
        self,
        host: bytes | None,
        port: bytes | str | int | None,
        family: int = 0,
        type: int = 0,  # noqa: A002
        proto: int = 0,
        flags: int = 0,
    ) -> list[Any]:
        """As socket.getaddrinfo."""
        return await self._run(host, self._look_up, host, port, family, type, proto, flags)

    async def getnameinfo(self, sockaddr: tuple[Any, ...], flags: int) -> tuple[str, str]:
        """As socket.getnameinfo."""
        return await self._run(sockaddr[0], socket.getnameinfo, sockaddr, flags)

    async def _run(self, name: object, call: Callable[..., T], *arguments: object) -> T:
        limiter = self._limiters.setdefault(name, trio.CapacityLimiter(1))
        return await in_thread(call, *arguments, limiter=limiter, abandon_on_cancel=True)
