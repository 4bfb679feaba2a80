"""Whether hot may be believed: not while it does not answer, nor for a moment after.

While it is not, requests do not ask it. One probe does, so that nothing rushes at it once it is
back.

That hot is silent is told by its link, too: a request with a short deadline has ended before it is
known, and if all of them are short, each would wait for hot until then.
"""

from __future__ import annotations

import asyncio

from registry.redis_clients import Limits
from serving.stores.resp import bulk
from serving.stores.row_batch import KEYS
from serving.stores.row_link import RowLink
from serving.stores.row_store import Unavailable

DISTRUST_SECONDS = 1.5
"""Seconds after it last did not answer in which hot is not believed: a mark lives for one. By then
one that was not renewed meanwhile has ended, so what it has is not from before."""

PROBE_SECONDS = 0.25
"""Seconds between two probes."""

PROBE = [(KEYS, [bulk("th:probe")])]
"""A key that nobody writes."""


class Trust:
    """Whether the hot at `url`, which is reached over `link`, is believed.

    Raises ValueError for a URL that redis-py cannot read.
    """

    def __init__(self, url: str, limits: Limits, seconds: float = DISTRUST_SECONDS) -> None:
        self.link = RowLink(url, limits=limits, breaker=self)
        self._seconds = seconds
        self._lost_at = 0.0
        self._probing: asyncio.Task[None] | None = None
        self.is_given = True
        self.times_lost = 0

    def succeeded(self) -> None:
        """The link was answered: the probe tells when that is enough."""

    def failed(self, reason: str, decisive: bool = False) -> None:
        """The link was not answered; what waited for it may have been told, or be gone."""
        if decisive:
            self.lose()

    def lose(self) -> None:
        """Hot did not answer."""
        self.times_lost += self.is_given
        self.is_given = False
        self._lost_at = asyncio.get_running_loop().time()
        if self._probing is None:
            self._probing = asyncio.create_task(self._regain())

    async def close(self) -> None:
        """Stop probing."""
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.gather(self._probing, return_exceptions=True)

    async def _regain(self) -> None:
        loop = asyncio.get_running_loop()
        lost_at = None
        while lost_at != self._lost_at:  # else it was lost again since it answered
            while not await self._answers():
                self.lose()
            lost_at = self._lost_at
            await asyncio.sleep(max(0.0, self._lost_at + self._seconds - loop.time()))
        self._probing = None
        self.is_given = True

    async def _answers(self) -> bool:
        """Whether hot answers the next probe."""
        await asyncio.sleep(PROBE_SECONDS)
        found = await self.link.read(PROBE)
        return not isinstance(found, Unavailable) and found[0] == [None]
