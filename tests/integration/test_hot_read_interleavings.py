"""Whatever the order of what workers, servers and evictions do, hot answers what it may."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
import redis
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    precondition,
    rule,
    run_state_machine_as_test,
)

from registry.formats.hot import lease_key, row_key
from registry.formats.row import unpack
from serving.stores.hot import HotOptions, HotStore
from serving.stores.row_store import RowId, Tier
from serving.stores.warm import WarmStore
from tests.support.hot_worker import HotWorker
from tests.support.row_stores import HeldStore

ENTITIES = ("A", "B")
PARTITION_OF = {"A": 0, "B": 1}
ALWAYS = HotOptions(marks_seconds=0.0)

entities = st.sampled_from(ENTITIES)
partitions = st.sampled_from([0, 1])
servers = st.sampled_from([0, 1])


def row_of(entity: str) -> RowId:
    return RowId("price", (entity,))


class Interleavings(RuleBasedStateMachine):
    """Two workers of a partition each, two servers that read, and one that is slow to promote.

    A tick is known by its offset. `fed` is the offset that hot knows of each entity, if it has it:
    what a worker has confirmed and not fed may be answered from hot as it was before.
    """

    def __init__(self, warm_url: str, hot_url: str) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.warm = redis.Redis.from_url(warm_url)
        self.hot = redis.Redis.from_url(hot_url)
        self.warm.flushall()
        self.hot.flushall()
        self.workers = [HotWorker(self.warm, self.hot, partition) for partition in (0, 1)]
        self.newest = dict.fromkeys(ENTITIES, 0)
        self.fed = dict.fromkeys(ENTITIES, 0)
        self.served: list[dict[str, int]] = [dict.fromkeys(ENTITIES, 0) for _ in range(2)]
        self.held: HeldStore
        self.promoting: asyncio.Task[Any] | None = None
        self.runner.run(self.open(warm_url, hot_url))

    async def open(self, warm_url: str, hot_url: str) -> None:
        self.servers = []
        for _ in range(2):
            warm = WarmStore(warm_url)
            self.servers.append(HotStore(hot_url, warm, ALWAYS, warm.named))
        self.held = HeldStore(WarmStore(warm_url))
        self.slow = HotStore(hot_url, self.held, ALWAYS)
        for entity in ENTITIES:
            self.worker_of(entity).begin()
            self.write(entity)
        self.held.go_on.set()
        await self.slow.promotion.promote(list(map(row_of, ENTITIES)))  # partitions are known

    def teardown(self) -> None:
        async def close() -> None:
            self.held.go_on.set()
            if self.promoting is not None:
                await self.promoting
            for store in (*self.servers, self.slow):
                await store.close()

        self.runner.run(close())
        self.runner.close()
        self.warm.close()
        self.hot.close()

    # ---------------------------------------------------------------- workers

    def worker_of(self, entity: str) -> HotWorker:
        return self.workers[PARTITION_OF[entity]]

    @rule(entity=entities)
    def store(self, entity: str) -> None:
        """Warm confirms a row; hot is behind until it is fed."""
        packed = self.worker_of(entity).store([entity])
        self.newest[entity] = unpack(packed).origin.offset

    @rule(entity=entities)
    def write(self, entity: str) -> None:
        """Warm confirms a row, and hot is brought up to date."""
        self.store(entity)
        self.feed(PARTITION_OF[entity])

    @rule(partition=partitions)
    def feed(self, partition: int) -> None:
        self.workers[partition].feed()
        self.is_fed(partition)

    @rule(partition=partitions)
    def begin(self, partition: int) -> None:
        """A new token: what was not fed is void with all else."""
        self.workers[partition].begin()
        self.is_fed(partition)

    @rule(partition=partitions)
    def drop(self, partition: int) -> None:
        """The mark ends; nothing may be answered from hot."""
        self.workers[partition].drop()

    def is_fed(self, partition: int) -> None:
        if self.hot.get(self.workers[partition].key) == self.workers[partition].token:
            for entity in ENTITIES:
                if PARTITION_OF[entity] == partition:
                    self.fed[entity] = self.newest[entity]

    # ---------------------------------------------------------------- evictions and ends

    @rule(entity=entities)
    def evict_row(self, entity: str) -> None:
        self.hot.delete(row_key("price", entity))

    @rule(entity=entities)
    def end_lease(self, entity: str) -> None:
        self.hot.delete(lease_key("price", entity))

    @rule(partition=partitions)
    def end_mark(self, partition: int) -> None:
        self.hot.delete(self.workers[partition].key)

    # ---------------------------------------------------------------- servers

    @rule(server=servers, wanted=st.lists(entities, min_size=1, max_size=2, unique=True))
    def read(self, server: int, wanted: Sequence[str]) -> None:
        """Some rows; what is missed comes in before anything else happens."""

        async def ask() -> Any:
            store = self.servers[server]
            found = await store.rows([row_of(entity) for entity in wanted])
            while not store.promotion.is_idle:
                await asyncio.sleep(0)
            return found

        found = self.runner.run(ask())
        for index, entity in enumerate(wanted):
            row, tier = found.rows[index], found.tier_of(index)
            offset = 0 if row is None else unpack(row).origin.offset
            if tier is Tier.HOT:
                assert self.hot.get(self.worker_of(entity).key) is not None
                assert self.fed[entity] <= offset <= self.newest[entity]
            else:
                assert tier is Tier.WARM
                assert offset == self.newest[entity]
            assert offset >= self.served[server][entity], "it has stepped back"
            self.served[server][entity] = offset

    @precondition(lambda self: self.promoting is None)
    @rule(entity=entities)
    def begin_promotion(self, entity: str) -> None:
        """A server takes a lease of a row that was evicted, reads warm, and is paused."""
        self.evict_row(entity)
        self.end_lease(entity)

        async def start() -> asyncio.Task[Any]:
            self.held.go_on.clear()
            self.held.has_read.clear()
            promoting = asyncio.create_task(self.slow.promotion.promote([row_of(entity)]))
            reading = asyncio.create_task(self.held.has_read.wait())
            await asyncio.wait([promoting, reading], return_when=asyncio.FIRST_COMPLETED)
            reading.cancel()
            return promoting

        self.promoting = self.runner.run(start())

    @precondition(lambda self: self.promoting is not None)
    @rule()
    def end_promotion(self) -> None:
        """It goes on, whatever has happened meanwhile."""

        async def end() -> None:
            assert self.promoting is not None
            self.held.go_on.set()
            await self.promoting

        self.runner.run(end())
        self.promoting = None


@pytest.mark.timeout(280)
def test_what_hot_answers_may_be_answered(redis_database: str, hot_redis: str) -> None:
    run_state_machine_as_test(
        lambda: Interleavings(redis_database, hot_redis),
        settings=settings(max_examples=40, stateful_step_count=40),
    )
