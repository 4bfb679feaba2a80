"""Warm: the Redis that holds every entity. All rows that are wanted in a moment are one read.

A read is one HMGET a source, on a cluster one for each of the hashes that the rows are in, in one
pipeline. One for many requests costs little more than one for each of them. While one is under way,
the rows of the next are collected. Each node of a cluster is read by itself: while one does not
answer, the rows of the others are not waited for any longer. A read that fails is answered as such
for each of its rows, and no request waits longer than the timeout.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any

from registry import redis_clients
from registry.formats.last_close import closed_member
from registry.formats.redis_keys import (
    bucket,
    closed_key,
    entity_id,
    key_values,
    members_key,
    rows_key,
)
from serving.errors import TooLarge
from serving.stores.cluster_reads import reads_of
from serving.stores.redis_reads import Command
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

MAX_ROWS = 5_000
"""Rows of one read of a server: it serves no other client meanwhile."""

Waiting = dict[RowId, "asyncio.Future[Packed]"]


class WarmStore:
    """The `RowStore` of the Redis, or of the Redis Cluster, that holds every entity."""

    def __init__(
        self,
        url: str,
        on_read: Callable[[int], None] = lambda rows: None,
        cluster: bool = False,
    ) -> None:
        self._reads = reads_of(url, cluster, redis_clients.rows)
        self._on_read = on_read
        self._cluster = cluster
        self._waiting: dict[str, Waiting] = {}
        self._reading: dict[str, asyncio.Task[None]] = {}

    async def rows(self, wanted: Sequence[RowId]) -> list[Packed]:
        """The packed rows, read together with those of all requests that wait in this moment."""
        loop = asyncio.get_running_loop()
        futures = []
        for row in wanted:
            server = self._reads.server_of(self._hash_of(row)) if self._cluster else ""
            waiting = self._waiting.setdefault(server, {})
            future = waiting.get(row)
            if future is None:
                future = waiting[row] = loop.create_future()
                if server not in self._reading:
                    self._reading[server] = asyncio.create_task(self._read(server, waiting))
            futures.append(future)
        return [await asyncio.shield(future) for future in futures]

    async def members(
        self, wanted: Sequence[MemberSet], most: int
    ) -> list[list[Key] | Unavailable]:
        """The entities of each set. Raises `TooLarge` when there are more than `most`."""
        keys = [members_key(one.source, one.message_key) for one in wanted]
        counts = await self._each([("SCARD", key) for key in keys])
        counted = [n for n, count in enumerate(counts) if not isinstance(count, Unavailable)]
        total = sum(counts[n] for n in counted)
        if total > most:
            largest = max(counted, key=lambda n: counts[n])
            raise TooLarge(
                f"there are {total} members to add up, {counts[largest]} of them in "
                f"{wanted[largest].message_key}; a request may add up {most}: ask for less"
            )
        sets = await self._each([("SMEMBERS", keys[n]) for n in counted])
        found: list[list[Key] | Unavailable] = [UNAVAILABLE] * len(wanted)
        for n, members in zip(counted, sets, strict=True):
            if not isinstance(members, Unavailable):
                names = sorted(member.decode() for member in members)
                found[n] = [(wanted[n].message_key, *key_values(name)) for name in names]
        return found

    async def last_closed(self, wanted: Sequence[Group]) -> list[Key | Unavailable | None]:
        """The entity of each group that was closed last."""
        keys = [closed_key(group.source, entity_id(group.key)) for group in wanted]
        found = await self._each([("GET", key) for key in keys])
        return [
            (group.key[0], *key_values(closed_member(packed)))
            if isinstance(packed, bytes)
            else packed
            for group, packed in zip(wanted, found, strict=True)
        ]

    async def close(self) -> None:
        await self._reads.close()

    def _hash_of(self, row: RowId) -> str:
        """The key of the hash that a row is in."""
        return rows_key(row.source, bucket(row.entity[0], self._cluster))

    async def _each(self, commands: Sequence[Command]) -> list[Any]:
        """An answer to each command, `UNAVAILABLE` where its server gave none."""
        if not commands:
            return []
        answers = await self._reads.each(commands)
        failed = [answer for answer in answers if isinstance(answer, Exception)]
        if failed:
            what = commands[0][0]
            logger.warning("%d of %d %s failed: %s", len(failed), len(commands), what, failed[0])
        return [UNAVAILABLE if isinstance(answer, Exception) else answer for answer in answers]

    async def _read(self, server: str, waiting: Waiting) -> None:
        # In one turn of the loop all requests that have arrived add their rows.
        await asyncio.sleep(0)
        try:
            while waiting:
                batch = dict(islice(waiting.items(), MAX_ROWS))
                for row in batch:
                    del waiting[row]
                await self._read_batch(batch)
        finally:
            del self._reading[server], self._waiting[server]
            _answer(waiting.values())

    async def _read_batch(self, batch: Waiting) -> None:
        self._on_read(len(batch))
        by_hash: dict[str, list[RowId]] = {}
        for row in batch:
            by_hash.setdefault(self._hash_of(row), []).append(row)
        try:
            found = await self._each(
                [
                    ("HMGET", key, *(entity_id(row.entity) for row in rows))
                    for key, rows in by_hash.items()
                ]
            )
            for rows, values in zip(by_hash.values(), found, strict=True):
                if not isinstance(values, Unavailable):
                    for row, value in zip(rows, values, strict=True):
                        batch[row].set_result(value)
        finally:
            _answer(batch.values())


def _answer(futures: Iterable[asyncio.Future[Packed]]) -> None:
    """Whatever happened, no request may wait for ever."""
    for future in futures:
        if not future.done():
            future.set_result(UNAVAILABLE)
