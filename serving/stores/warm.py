"""Warm: the Redis that holds every entity. All rows that are wanted in a moment are one MGET.

One MGET for many requests costs little more than one for each of them. While one is under way, the
rows of the next are collected. A read that fails is answered as such for each of its rows, and no
request waits longer than the timeout.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

from redis.exceptions import RedisError

from registry import redis_clients
from registry.formats.last_close import closed_member
from registry.formats.redis_keys import closed_key, entity_id, key_values, members_key, row_key
from serving.errors import TooLarge
from serving.stores.row_store import (
    UNAVAILABLE,
    Group,
    Key,
    MemberSet,
    Packed,
    RowId,
    Unavailable,
)

logger = logging.getLogger(__name__)

MAX_KEYS = 5_000
"""Number of keys in one MGET: Redis serves no other client meanwhile."""


class WarmStore:
    """The `RowStore` of the Redis that holds every entity."""

    def __init__(self, url: str, on_read: Callable[[int], None] = lambda keys: None) -> None:
        self._redis: Any = redis_clients.rows(url)
        self._on_read = on_read
        self._waiting: dict[RowId, asyncio.Future[Packed]] = {}
        self._reading: asyncio.Task[None] | None = None

    async def rows(self, wanted: Sequence[RowId]) -> list[Packed]:
        """The packed rows, read together with those of all requests that wait in this moment."""
        loop = asyncio.get_running_loop()
        futures = []
        for row in wanted:
            future = self._waiting.get(row)
            if future is None:
                future = self._waiting[row] = loop.create_future()
            futures.append(future)
        if self._waiting and self._reading is None:
            self._reading = asyncio.create_task(self._read())
        return [await asyncio.shield(future) for future in futures]

    async def members(
        self, wanted: Sequence[MemberSet], most: int
    ) -> list[list[Key] | Unavailable]:
        """The entities of each set. Raises `TooLarge` when there are more than `most`."""
        if not wanted:
            return []
        keys = [members_key(one.source, one.message_key) for one in wanted]
        try:
            counts = await self._each("SCARD", keys)
            if sum(counts) > most:
                count, _, largest = max(zip(counts, keys, wanted, strict=True))
                raise TooLarge(
                    f"there are {sum(counts)} members to add up, {count} of them in "
                    f"{largest.message_key}; a request may add up {most}: ask for less (closed "
                    "ones of an earlier build count until `tickwell rebuild-online` has run)"
                )
            sets = await self._each("SMEMBERS", keys)
        except (RedisError, OSError) as error:
            logger.warning("members could not be read: %s", error)
            return [UNAVAILABLE] * len(wanted)
        return [
            [(one.message_key, *key_values(name)) for name in sorted(m.decode() for m in members)]
            for one, members in zip(wanted, sets, strict=True)
        ]

    async def last_closed(self, wanted: Sequence[Group]) -> list[Key | Unavailable | None]:
        """The entity of each group that was closed last."""
        if not wanted:
            return []
        keys = [closed_key(group.source, entity_id(group.key)) for group in wanted]
        try:
            found = await self._each("GET", keys)
        except (RedisError, OSError) as error:
            logger.warning("last closes could not be read: %s", error)
            return [UNAVAILABLE] * len(wanted)
        return [
            None if packed is None else (group.key[0], *key_values(closed_member(packed)))
            for group, packed in zip(wanted, found, strict=True)
        ]

    async def close(self) -> None:
        await self._redis.aclose()

    async def _each(self, command: str, keys: Sequence[str]) -> list[Any]:
        async with self._redis.pipeline(transaction=False) as pipeline:
            for key in keys:
                pipeline.execute_command(command, key)
            answers: list[Any] = await pipeline.execute()
            return answers

    async def _read(self) -> None:
        # In one turn of the loop all requests that have arrived add their rows.
        await asyncio.sleep(0)
        try:
            while self._waiting:
                batch = dict(islice(self._waiting.items(), MAX_KEYS))
                for row in batch:
                    del self._waiting[row]
                await self._read_batch(batch)
        finally:
            self._reading = None

    async def _read_batch(self, batch: dict[RowId, asyncio.Future[Packed]]) -> None:
        self._on_read(len(batch))
        values: Sequence[Packed] = [UNAVAILABLE] * len(batch)
        try:
            values = await self._redis.mget(
                [row_key(row.source, entity_id(row.entity)) for row in batch]
            )
        except (RedisError, OSError) as error:
            logger.warning("rows could not be read: %s", error)
        finally:  # whatever happened, no request may wait for ever
            for future, value in zip(batch.values(), values, strict=True):
                if not future.done():
                    future.set_result(value)
