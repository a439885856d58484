"""Webhooks: what happened to a job is told to who wants to know, signed, and again until it is taken.

It decides how a message looks, how often it is tried, and when it is given up; it refuses to know what happened. What
is not taken yet is in the database: a restart loses nothing. A receiver may hear of a thing twice, never out of order.
While the database cannot be written, only that is tried again: nobody is told a second time because of it.
A receiver that does not answer keeps only itself waiting: whose last try was slow is told one thing at a time, and all
such together have half of the places. A place is taken until its thread has ended. A receiver that is not there is left
alone for a while, the longer the more often, whatever else it is to be told. Of one that is there, or takes longer
than `TIMEOUT`, only the URL that failed is left alone, whatever its query, since others of that host may be somebody
else's. What is a day old by then has its last try all the same.

A message is a POST of JSON ``{"event": state, "time": …, "job": status record}``. Its signature, in the header
``X-Hub-Signature-256``, is ``sha256=`` and the hex HMAC-SHA256 of the body under the webhook's secret; without a secret
there is none. Any answer 2xx within `TIMEOUT` takes it; redirects are not followed. Where strangers may post jobs
(``--insecure``), private addresses are told nothing unless that is allowed (`engine.fetch`).
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import math
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from itertools import count
from pathlib import Path
from typing import Final, Protocol

import trio

from api.store import Delivery, LeftOut
from engine.errors import EngineError
from engine.fetch import Fetcher, Limits
from engine.urls import before_query

log = logging.getLogger(__name__)

TIMEOUT: Final = 10.0  # seconds for a delivery
AT_ONCE: Final = 64  # each a thread, which mostly waits
SHARE: Final = 4  # of them, for one receiver
SLOW: Final = 0.5  # of TIMEOUT
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 300.0  # seconds; each try doubles it
GIVE_UP: Final = 86_400_000  # ms after it happened
MAX_AWAY: Final = 250  # receivers that are left alone, and as many URLs; SQLite takes 1000 terms, one for each length
POLL: Final = 1.0  # seconds between two looks for what is due, if there are no news; and for last tries
SETTLE: Final = 0.02  # seconds in which further news are waited for
_THERE: Final = (ConnectionResetError, BrokenPipeError)  # somebody was, and hung up, maybe without an answer


class Ledger(Protocol):
    """Where deliveries are kept."""

    def now(self) -> int:
        """ms since 1970."""

    def passed(self) -> int:
        """ms of a clock that nobody sets."""

    async def undelivered(self, besides: Collection[int], limit: int, left_out: LeftOut) -> list[Delivery]:
        """What is due, without those of these ids; left out are hosts by `receiver_of` and URLs by `endpoint_of`."""

    async def delivered(self, delivery: Delivery) -> None:
        """It is done with."""

    async def deliver_again(self, delivery: Delivery, due: int) -> None:
        """Not now."""


class Pauses:
    """Who has failed, and is left alone until when; the first of more than `MAX_AWAY` is forgotten.

    `now` is always ms of a clock that nobody sets.
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[int, int]] = {}  # who → (failures in a row, ms: not before)

    def lasting(self, now: int) -> set[str]:
        """Who is left alone now."""
        return {who for who, (_, until) in self._known.items() if until > now}

    def begin(self, who: str, now: int) -> None:
        """It has failed: not before its pause is over."""
        failures, until = self._known.pop(who, (0, now))
        if until <= now:  # else it was under way when another one failed
            if now - until > LONGEST_PAUSE * 1000:  # that was another time
                failures = 0
            failures, until = failures + 1, now + _pause(failures)
        self._known[who] = failures, until
        if len(self._known) > MAX_AWAY:
            del self._known[next(iter(self._known))]

    def end(self, who: str) -> None:
        """It has taken something."""
        self._known.pop(who, None)


class Courier:
    """Delivers what is due."""

    def __init__(self, ledger: Ledger, *, allow_private: bool) -> None:
        self._ledger = ledger
        limits = Limits(seconds=TIMEOUT)
        self._fetcher = Fetcher(base=Path(), cache=Path(), allow_private=allow_private, limits=limits)
        self._under_way: dict[int, str] = {}  # id of a delivery, until its end is noted → who receives it
        self._noting = trio.Lock()
        self._slow: set[str] = set()  # receivers whose last try was
        self._hosts, self._urls = Pauses(), Pauses()  # by `receiver_of`, by `endpoint_of`
        self._news = trio.Event()

    def wake(self) -> None:
        """There may be something to deliver."""
        self._news.set()

    async def run(self) -> None:
        """Until cancelled; what is under way then will be delivered again."""
        asked = -math.inf  # for last tries: to look goes over all that is due to who is left alone
        async with trio.open_nursery() as nursery:
            while True:
                if self._news.is_set():  # else somebody may wait for it
                    self._news = trio.Event()
                try:
                    await self._begin(nursery)
                    if trio.current_time() >= asked + POLL:
                        asked = trio.current_time()
                        await self._begin(nursery, last_tries=True)
                except EngineError as err:
                    log.warning("webhooks: %s", err)
                with trio.move_on_after(POLL):
                    await self._news.wait()
                    await trio.sleep(SETTLE)

    async def _begin(self, nursery: trio.Nursery, *, last_tries: bool = False) -> None:
        """Begins what is due, as far as there are places.

        last_tries  what is a day old, also to those who are left alone; else whatever is to others.
        """
        while (places := AT_ONCE - len(self._under_way)) > 0:
            if last_tries:
                left_out = LeftOut(self._busy(), after=self._ledger.now() - GIVE_UP)
            else:
                now = self._ledger.passed()
                left_out = LeftOut(self._busy() | self._hosts.lasting(now), self._urls.lasting(now))
            # As it is now: what ends while the ledger is read may still stand there, and would be told twice.
            found = await self._ledger.undelivered(frozenset(self._under_way), places, left_out)
            for delivery in found:
                who = receiver_of(delivery.url)
                if who not in self._busy():
                    self._under_way[delivery.id] = who
                    nursery.start_soon(self._deliver, delivery)
            if len(found) < places:  # else there may be more, to others
                return

    def _busy(self) -> set[str]:
        """Receivers that have as many places as they may."""
        counted = Counter(self._under_way.values())
        busy = {who for who, count in counted.items() if count >= (1 if who in self._slow else SHARE)}
        return busy | self._slow if sum(counted[who] for who in self._slow) >= AT_ONCE // 2 else busy

    async def _deliver(self, delivery: Delivery) -> None:
        limiter = trio.CapacityLimiter(1)  # of one try: a thread that is left alone keeps it
        begun = trio.current_time()
        problem = await self._send(delivery, limiter)
        is_slow = trio.current_time() - begun > SLOW * TIMEOUT
        (self._slow.add if is_slow else self._slow.discard)(self._under_way[delivery.id])
        async with self._noting:  # one tries whether anything can be noted, for all
            await self._note(delivery, problem)
        async with limiter:
            del self._under_way[delivery.id]
        self.wake()

    async def _send(self, delivery: Delivery, limiter: trio.CapacityLimiter) -> str:
        """Tells it; returns what went wrong, "" when it was taken."""
        headers = {
            "Content-Type": "application/json",
            "X-Mashtun-Event": re.sub("[^ -~]", "?", delivery.event)[:100],
            "X-Mashtun-Delivery": str(delivery.id),
        }
        if delivery.secret:
            headers["X-Hub-Signature-256"] = signature(delivery.secret, delivery.body)
        try:
            await self._fetcher.send("POST", delivery.url, headers=headers, body=delivery.body, limiter=limiter)
        except EngineError as err:
            if isinstance(err.__cause__, OSError) and not isinstance(err.__cause__, _THERE):
                self._hosts.begin(receiver_of(delivery.url), self._ledger.passed())
            else:
                self._urls.begin(endpoint_of(delivery.url), self._ledger.passed())
            return str(err)
        self._hosts.end(receiver_of(delivery.url))
        self._urls.end(endpoint_of(delivery.url))
        return ""

    async def _note(self, delivery: Delivery, problem: str) -> None:
        """Again until the ledger takes it: after a pause, or, since there is news only of what it took, soon after."""
        note = self._outcome(delivery, problem)
        for failures in count():
            news = self._news  # before: what comes from now on counts
            try:
                await note()
                return
            except EngineError as err:
                log.warning("job %s: webhook: %s", delivery.uid, err)
            await trio.sleep(FIRST_PAUSE)
            with trio.move_on_after(_pause(failures) / 1000 - FIRST_PAUSE):
                await news.wait()

    def _outcome(self, delivery: Delivery, problem: str) -> Callable[[], Awaitable[None]]:
        """What is to be noted."""
        now = self._ledger.now()
        if problem and now - delivery.created < GIVE_UP:
            pause = _pause(delivery.tries)
            log.info("job %s: webhook: %s; again in %g s", delivery.uid, problem, pause / 1000)
            return partial(self._ledger.deliver_again, delivery, now + pause)
        if problem:
            log.warning("job %s: webhook: %s; given up", delivery.uid, problem)
        return partial(self._ledger.delivered, delivery)


def signature(secret: str, body: bytes) -> str:
    """What stands in ``X-Hub-Signature-256``."""
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def receiver_of(url: str) -> str:
    """Scheme, host and port of an ``http(s):`` URL, as they stand there."""
    scheme, _, rest = url.partition("//")
    return f"{scheme}//{re.split('[/?#]', rest, maxsplit=1)[0]}"


def endpoint_of(url: str) -> str:
    """A URL without what follows its path."""
    return before_query(url)


def _pause(failures: int) -> int:
    """ms until another try."""
    return round(1000 * min(FIRST_PAUSE * 2.0 ** min(failures, 20), LONGEST_PAUSE))
