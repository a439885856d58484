"""Webhooks: what happened to a job is told to who wants to know, signed, and again until it is taken.

It decides how a message looks, how often it is tried, and when it is given up; it refuses to know what happened. What
is not taken yet is in the database: a restart loses nothing. A receiver may hear of a thing twice, never out of order.

A message is a POST of JSON ``{"event": state, "time": …, "job": status record}``. Its signature, in the header
``X-Hub-Signature-256``, is ``sha256=`` and the hex HMAC-SHA256 of the body under the webhook's secret; without a secret
there is none. Any answer 2xx within `TIMEOUT` takes it; redirects are not followed.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import logging
import re
import ssl
from collections.abc import Collection
from typing import Final, Protocol
from urllib.parse import urlsplit

import trio

from api.store import Delivery
from engine.errors import EngineError

log = logging.getLogger(__name__)

TIMEOUT: Final = 10.0  # seconds for each step of a delivery
AT_ONCE: Final = 16
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 300.0  # seconds; each try doubles it
GIVE_UP: Final = 86_400_000  # ms after it happened
POLL: Final = 1.0  # seconds between two looks for what is due
SETTLE: Final = 0.02  # seconds in which further news are waited for


class Ledger(Protocol):
    """Where deliveries are kept."""

    def now(self) -> int:
        """ms since 1970."""

    async def undelivered(self, besides: Collection[int], limit: int) -> list[Delivery]:
        """What is due, without those."""

    async def delivered(self, delivery: Delivery) -> None:
        """It is done with."""

    async def deliver_again(self, delivery: Delivery, due: int) -> None:
        """Not now."""


class Courier:
    """Delivers what is due."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._limiter = trio.CapacityLimiter(AT_ONCE)
        self._under_way: set[int] = set()
        self._news = trio.Event()

    def wake(self) -> None:
        """There may be something to deliver."""
        self._news.set()

    async def run(self) -> None:
        """Until cancelled; what is under way then will be delivered again."""
        async with trio.open_nursery() as nursery:
            while True:
                self._news = trio.Event()
                for delivery in await self._due():
                    self._under_way.add(delivery.id)
                    nursery.start_soon(self._deliver, delivery)
                with trio.move_on_after(POLL):
                    await self._news.wait()
                    await trio.sleep(SETTLE)

    async def _due(self) -> list[Delivery]:
        free = AT_ONCE - len(self._under_way)
        try:
            # As it is now: what ends while the ledger is read may still stand there, and would be told twice.
            return await self._ledger.undelivered(frozenset(self._under_way), free) if free else []
        except EngineError as err:
            log.warning("webhooks: %s", err)
            return []

    async def _deliver(self, delivery: Delivery) -> None:
        try:
            problem = await trio.to_thread.run_sync(send, delivery, limiter=self._limiter, abandon_on_cancel=True)
            await self._note(delivery, problem)
        except EngineError as err:  # it will be told twice
            log.warning("job %s: webhook: %s", delivery.uid, err)
        finally:
            self._under_way.discard(delivery.id)
            self.wake()

    async def _note(self, delivery: Delivery, problem: str) -> None:
        now = self._ledger.now()
        if problem and now - delivery.created < GIVE_UP:
            pause = min(FIRST_PAUSE * 2.0 ** min(delivery.tries, 20), LONGEST_PAUSE)
            log.info("job %s: %s takes no webhook: %s; again in %g s", delivery.uid, delivery.url, problem, pause)
            await self._ledger.deliver_again(delivery, now + round(pause * 1000))
        else:
            if problem:
                log.warning("job %s: %s took no webhook: %s; given up", delivery.uid, delivery.url, problem)
            await self._ledger.delivered(delivery)


def signature(secret: str, body: bytes) -> str:
    """What stands in ``X-Hub-Signature-256``."""
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def send(delivery: Delivery) -> str:
    """Tells it; returns what went wrong, "" when it was taken. Worker thread."""
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "mashtun",
        "X-Mashtun-Event": re.sub("[^ -~]", "?", delivery.event)[:100],
        "X-Mashtun-Delivery": str(delivery.id),
        "Connection": "close",
    }
    if delivery.secret:
        headers["X-Hub-Signature-256"] = signature(delivery.secret, delivery.body)
    try:
        parts = urlsplit(delivery.url)
        host = parts.hostname or ""
        connection = (
            http.client.HTTPSConnection(host, parts.port, timeout=TIMEOUT, context=ssl.create_default_context())
            if parts.scheme == "https"
            else http.client.HTTPConnection(host, parts.port, timeout=TIMEOUT)
        )
        try:
            path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            connection.request("POST", path, delivery.body, headers)
            status = connection.getresponse().status
        finally:
            connection.close()
    except (OSError, http.client.HTTPException, ValueError) as err:
        return str(err) or type(err).__name__
    return "" if 200 <= status < 300 else f"status {status}"
