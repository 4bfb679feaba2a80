"""Rows of a Redis Cluster. All that are wanted of a node in a moment are one read of it.

A read is one HMGET for each of the hashes that the rows are in, in one pipeline. While one is under
way, the rows of the next are collected. Each node is read by itself: while one does not answer, the
rows of the others are not waited for any longer. A read that fails is answered as such for each of
its rows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from itertools import islice

from registry.formats.entity_name import entity_id
from registry.formats.redis_keys import bucket, rows_key
from serving.stores.cluster_reads import ANSWER_SECONDS
from serving.stores.redis_reads import MAX_ROWS, RedisReads, ask_all
from serving.stores.row_store import UNAVAILABLE, Packed, RowId, Unavailable

WAIT_SECONDS = ANSWER_SECONDS + 0.05
"""Seconds that a request waits for its rows, whatever has to be read before: no longer than if they
were read at once, and until the breaker of a node that does not answer knows that."""

Waiting = dict[RowId, "asyncio.Future[Packed]"]


class ClusterRows:
    """Reads of rows by their names; `on_read` is told the number of rows of each read."""

    def __init__(self, reads: RedisReads, on_read: Callable[[int], None]) -> None:
        self._reads = reads
        self._on_read = on_read
        self._waiting: dict[str, Waiting] = {}
        self._reading: dict[str, asyncio.Task[None]] = {}

    async def read(self, wanted: Sequence[RowId]) -> list[Packed]:
        """The packed rows, read together with those of all requests that wait in this moment."""
        loop = asyncio.get_running_loop()
        futures = []
        for row in wanted:
            server = self._reads.server_of(hash_of(row))
            waiting = self._waiting.setdefault(server, {})
            future = waiting.get(row)
            if future is None:
                future = waiting[row] = loop.create_future()
                if server not in self._reading:
                    self._reading[server] = asyncio.create_task(self._read(server, waiting))
            futures.append(future)
        if futures:
            await asyncio.wait(futures, timeout=WAIT_SECONDS)
        return [future.result() if future.done() else UNAVAILABLE for future in futures]

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
            by_hash.setdefault(hash_of(row), []).append(row)
        try:
            found = await ask_all(
                self._reads,
                [
                    ("HMGET", key, *(entity_id(row.entity) for row in rows))
                    for key, rows in by_hash.items()
                ],
            )
            for rows, values in zip(by_hash.values(), found, strict=True):
                if not isinstance(values, Unavailable):
                    for row, value in zip(rows, values, strict=True):
                        batch[row].set_result(value)
        finally:
            _answer(batch.values())


def hash_of(row: RowId) -> str:
    """The key of the hash that a row is in."""
    return rows_key(row.source, bucket(row.entity[0], cluster=True))


def _answer(futures: Iterable[asyncio.Future[Packed]]) -> None:
    """Whatever happened, no request may wait for ever."""
    for future in futures:
        if not future.done():
            future.set_result(UNAVAILABLE)
