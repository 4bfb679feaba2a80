"""A circuit breaker: a store that does not answer is not asked, and so nobody waits for it.

    closed ── failures in a row, or a decisive one ──► open ── it is time for a probe ──► half-open
      ▲                                                  ▲                                  │  │
      │                                                  └─────── it is not answered ───────┘  │
      └──────────────────────────────── it is answered ────────────────────────────────────────┘

While it is open the store is asked nothing but probes, one at a time, with pauses that grow and
differ between processes. A probe is a read of our own, never a request of a client: nobody waits
for a store that may still be silent, and when it is back, it is one read that comes first.

No library does that. In circuitbreaker, aiobreaker and purgatory a breaker that is half-open lets
everything through, a late success of a call from before closes it (in circuitbreaker a cancelled
call does, too), the last two go by the clock on the wall, and pybreaker's asynchronous calls are
Tornado's, one at a time. All want an exception from each call, and here none is raised.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum

logger = logging.getLogger(__name__)

FAILURES = 2
"""Failures in a row that open a breaker: of one alone, a connection that was lost, a new connection
may know nothing."""

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.1, 2.0
"""Seconds before the first probe, and at most before a later one; each is up to half shorter."""


class State(StrEnum):
    """What a breaker does with calls."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Breaker:
    """The breaker of the store that is called `store`; for use in one thread.

    It is told how calls end. A call that can end after others that began later says in which `era`
    it began, and counts only in that: what was asked before the breaker opened says nothing of the
    store as it is after it has closed again.
    """

    def __init__(
        self,
        store: str,
        failures: int = FAILURES,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """`clock` gives seconds, `jitter` a number from 0 up to 1."""
        self.store = store
        self.state = State.CLOSED
        self.is_open = False
        """Whether the store must not be asked: all but `CLOSED`."""
        self.era = 0
        """How often the breaker has opened or closed."""
        self.times_opened = 0
        self.reason = ""
        """Why it opened last."""
        self._failures, self._needed = 0, failures
        self._clock, self._jitter = clock, jitter
        self._probes = 0
        self._probe_at = 0.0
        self._has_opened = asyncio.Event()

    def succeeded(self, era: int | None = None) -> None:
        """The store has answered a call."""
        if self._failures and (era is None or era == self.era):
            self._failures = 0

    def failed(self, reason: str, decisive: bool = False, era: int | None = None) -> None:
        """The store has not answered a call; with `decisive` it is known not to answer others."""
        if self.is_open or (era is not None and era != self.era):
            return
        self._failures += 1
        if decisive or self._failures >= self._needed:
            self._open(reason)

    def told(self) -> str:
        """The state, and why it is that."""
        return f"{self.state}: {self.reason}" if self.is_open else str(self.state)

    def probe_in(self) -> float:
        """Seconds until the next probe is due."""
        return max(0.0, self._probe_at - self._clock())

    def begin_probe(self) -> bool:
        """Whether to probe now: it is due, and no other one is under way."""
        if self.state is not State.OPEN or self._clock() < self._probe_at:
            return False
        self.state = State.HALF_OPEN
        return True

    def end_probe(self, answered: bool) -> None:
        """The probe that was begun has ended; without an answer there will be another one."""
        assert self.state is State.HALF_OPEN, "a probe ends once, after it has begun"
        if answered:
            self._close()
        else:
            self.state = State.OPEN
            self._plan_probe()

    async def opening(self) -> None:
        """Returns once the breaker is open."""
        await self._has_opened.wait()

    def _open(self, reason: str) -> None:
        self.state, self.is_open, self.reason = State.OPEN, True, reason
        self.era += 1
        self.times_opened += 1
        self._probes = 0
        self._plan_probe()
        self._has_opened.set()
        logger.warning("%s is not asked any more until it answers again: %s", self.store, reason)

    def _close(self) -> None:
        self.state, self.is_open = State.CLOSED, False
        self.era += 1
        self._failures = 0
        self._has_opened.clear()
        logger.warning("%s answers again", self.store)

    def _plan_probe(self) -> None:
        pause = min(FIRST_PAUSE_SECONDS * 2**self._probes, LONGEST_PAUSE_SECONDS)
        self._probes += 1
        self._probe_at = self._clock() + pause * (1 - self._jitter() / 2)


Breakers = Callable[[], Sequence[Breaker]]
"""Gives the breakers that there are now: nodes of a cluster come and go."""


async def probing(
    breaker: Breaker,
    probe: Callable[[], Awaitable[bool]],
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> None:
    """Probes whenever the breaker is open, until it is cancelled.

    `probe` says whether the store answers. It has a time limit of its own.
    """
    while True:
        await breaker.opening()
        await sleep(breaker.probe_in())
        if not breaker.begin_probe():  # the sleep was a little too short
            continue
        answered = False
        try:
            answered = await probe()
        except Exception:
            logger.exception("a probe of %s failed; it will be repeated", breaker.store)
        finally:
            breaker.end_probe(answered)
