"""Reads of packed rows, coalesced: all that wait in the same moment go in one MGET.

One MGET for many requests costs little more than one for each, and while one is under way the next
collects. A read that fails says so for each of its keys; nobody waits longer than the timeout.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

from redis.exceptions import RedisError

from registry import redis_clients
from serving.errors import TooLarge

logger = logging.getLogger(__name__)

MAX_KEYS = 5_000
"""Keys of one MGET: Redis does nothing else meanwhile."""


class Unavailable:
    """The store did not answer."""


UNAVAILABLE = Unavailable()
Packed = bytes | None | Unavailable


class Rows:
    """Reads packed rows and members from one Redis."""

    def __init__(self, url: str, on_read: Callable[[int], None] = lambda keys: None) -> None:
        self._redis: Any = redis_clients.rows(url)
        self._on_read = on_read
        self._waiting: dict[str, asyncio.Future[Packed]] = {}
        self._reading: asyncio.Task[None] | None = None

    async def get(self, keys: Sequence[str]) -> list[Packed]:
        """The bytes of each key, None for none, `UNAVAILABLE` when the store did not answer."""
        loop = asyncio.get_running_loop()
        futures = []
        for key in keys:
            future = self._waiting.get(key)
            if future is None:
                future = self._waiting[key] = loop.create_future()
            futures.append(future)
        if self._waiting and self._reading is None:
            self._reading = asyncio.create_task(self._read())
        return [await asyncio.shield(future) for future in futures]

    async def members(self, keys: Sequence[str], most: int) -> list[list[str] | Unavailable]:
        """The members of each set in order, `UNAVAILABLE` when the store did not answer.

        Raises `TooLarge`, before any is read, when the sets have more than `most` together.
        """
        if not keys:
            return []
        try:
            counts = await self._each("SCARD", keys)
            if sum(counts) > most:
                count, key = max(zip(counts, keys, strict=True))
                raise TooLarge(
                    f"there are {sum(counts)} members to add up, {count} of them in "
                    f"{key.split(':', 4)[-1]}; a request may add up {most}: ask for less"
                )
            sets = await self._each("SMEMBERS", keys)
        except (RedisError, OSError) as error:
            logger.warning("members could not be read: %s", error)
            return [UNAVAILABLE] * len(keys)
        return [sorted(member.decode() for member in members) for members in sets]

    async def close(self) -> None:
        await self._redis.aclose()

    async def _each(self, command: str, keys: Sequence[str]) -> list[Any]:
        async with self._redis.pipeline(transaction=False) as pipeline:
            for key in keys:
                pipeline.execute_command(command, key)
            answers: list[Any] = await pipeline.execute()
            return answers

    async def _read(self) -> None:
        # one turn of the loop: all requests that have arrived put their keys in
        await asyncio.sleep(0)
        try:
            while self._waiting:
                batch = dict(list(self._waiting.items())[:MAX_KEYS])
                for key in batch:
                    del self._waiting[key]
                await self._read_batch(batch)
        finally:
            self._reading = None

    async def _read_batch(self, batch: dict[str, asyncio.Future[Packed]]) -> None:
        self._on_read(len(batch))
        values: Sequence[Packed] = [UNAVAILABLE] * len(batch)
        try:
            values = await self._redis.mget(list(batch))
        except (RedisError, OSError) as error:
            logger.warning("rows could not be read: %s", error)
        finally:  # whatever happened, nobody may wait for ever
            for future, value in zip(batch.values(), values, strict=True):
                if not future.done():
                    future.set_result(value)
