"""Reads that are collected while others are under way: however many ask, statements are few.

What waits is read together, each item once. It is bounded in items, and what is more is told at
once that it was not read; what only those have asked who have given up is not read.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Generic, NamedTuple, TypeVar

from serving.stores.row_store import UNAVAILABLE, Unavailable

Item = TypeVar("Item")
Found = TypeVar("Found")


class BatchLimits(NamedTuple):
    """What is read at once, and may wait."""

    reads: int
    """Reads under way."""
    items: int
    """Items of a read, unless a single request asks more."""
    waiting: int
    """Items that wait."""
    seconds: float
    """How long a request waits, whatever has to be read before."""


class _Asked(NamedTuple, Generic[Item, Found]):
    items: Sequence[Item]
    found: asyncio.Future[list[Found | Unavailable | None]]


class Batches(Generic[Item, Found]):
    """Reads by `read`: what it knows of items, or None where it was not answered."""

    def __init__(
        self,
        read: Callable[[list[Item]], Awaitable[Mapping[Item, Found] | None]],
        limits: BatchLimits,
    ) -> None:
        self._read = read
        self._limits = limits
        self._asked: deque[_Asked[Item, Found]] = deque()
        self._waiting = 0
        self._reading: set[asyncio.Task[None]] = set()
        self._is_closed = False

    async def find(self, items: Sequence[Item]) -> list[Found | Unavailable | None]:
        """What is known of each item, None where nothing is; `UNAVAILABLE` if it was not read."""
        if self._is_closed or self._waiting + len(items) > self._limits.waiting:
            return [UNAVAILABLE] * len(items)
        asked = _Asked[Item, Found](items, asyncio.get_running_loop().create_future())
        self._asked.append(asked)
        self._waiting += len(items)
        if len(self._reading) < self._limits.reads:
            self._reading.add(asyncio.create_task(self._read_all()))
        try:
            async with asyncio.timeout(self._limits.seconds):
                return await asked.found
        except TimeoutError:
            return [UNAVAILABLE] * len(items)

    async def close(self) -> None:
        """End what is under way; all that wait are told that it was not read."""
        self._is_closed = True
        reading = list(self._reading)
        for task in reading:
            task.cancel()
        await asyncio.gather(*reading, return_exceptions=True)
        _fail(self._asked)

    async def _read_all(self) -> None:
        """Read until nothing waits; in the turn in which it ends another one may begin."""
        try:
            await asyncio.sleep(0)  # in one turn of the loop all requests that have arrived ask
            await self._read_batches()
        finally:
            task = asyncio.current_task()
            assert task is not None
            self._reading.discard(task)

    async def _read_batches(self) -> None:
        while batch := self._next():
            try:
                found = await self._read(list(dict.fromkeys(i for one in batch for i in one.items)))
                if found is None:
                    continue
                for one in batch:
                    if not one.found.done():  # it is when its request was cancelled
                        one.found.set_result([found.get(item) for item in one.items])
            finally:
                _fail(batch)

    def _next(self) -> list[_Asked[Item, Found]]:
        """Requests for one read, the oldest first."""
        batch: list[_Asked[Item, Found]] = []
        size = 0
        while self._asked and (not batch or size + len(self._asked[0].items) <= self._limits.items):
            asked = self._asked.popleft()
            self._waiting -= len(asked.items)
            if not asked.found.done():
                batch.append(asked)
                size += len(asked.items)
        return batch


def _fail(asked: Iterable[_Asked[Item, Found]]) -> None:
    """Tell requests that wait still."""
    for one in asked:
        if not one.found.done():
            one.found.set_result([UNAVAILABLE] * len(one.items))
