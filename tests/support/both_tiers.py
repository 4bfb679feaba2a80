"""Both tiers as a server reads them, for tests that do something to either."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from serving.stores.hot import HotOptions, HotStore
from serving.stores.row_batch import Found
from serving.stores.row_store import RowId, RowStore, Tier
from serving.stores.warm import WarmStore
from tests.support.hot_worker import HotWorker

A, B = RowId("price", ("A",)), RowId("price", ("B",))
ALWAYS = HotOptions(marks_seconds=0.0)
"""Marks are read with every read, so that what a test does to a mark is seen at once."""


class BothTiers(NamedTuple):
    """Both tiers: their URLs, and clients to look into them and to do to them what tests do."""

    warm_url: str
    hot_url: str
    warm: Any
    hot: Any

    def worker(self, partition: int = 0, topic_id: bytes = bytes(16)) -> HotWorker:
        made = HotWorker(self.warm, self.hot, partition, topic_id)
        made.begin()
        return made


def using(
    tiers: BothTiers,
    act: Callable[[HotStore], Awaitable[None]],
    options: HotOptions = ALWAYS,
    behind: Callable[[RowStore], RowStore] | None = None,
) -> None:
    """Does something with a store over both tiers, which is closed then."""

    async def run() -> None:
        warm = WarmStore(tiers.warm_url)
        store = (
            HotStore(tiers.hot_url, behind(warm), options)
            if behind
            else HotStore(tiers.hot_url, warm, options, warm.named)
        )
        try:
            async with asyncio.timeout(50):
                await act(store)
        finally:
            await store.close()

    asyncio.run(run())


async def read(store: HotStore, *wanted: RowId) -> list[tuple[Any, Tier]]:
    """Each row, and its tier. What is heard of them at once must be the same."""
    at_once = await heard(store, *wanted) if all(len(row.entity) == 1 for row in wanted) else None
    found = await store.rows(wanted)
    assert at_once is None or at_once == list(found.rows)
    return [(row, found.tier_of(index)) for index, row in enumerate(found.rows)]


async def heard(store: HotStore, *wanted: RowId) -> list[Any] | None:
    """The rows, where all are heard from hot."""
    told: Found = asyncio.get_running_loop().create_future()
    judge = store.ask([(row.source, [store.name(row)]) for row in wanted], told)
    found = None if judge is None else judge(await told)
    assert found is None or found.tier is Tier.HOT
    return None if found is None else [row for of in found.rows for row in of]


async def until(store: HotStore, tier: Tier, *wanted: RowId) -> list[Any]:
    """The rows, once all of them are from a tier."""
    while True:
        found = await read(store, *wanted)
        if all(of is tier for _, of in found):
            return [row for row, _ in found]
        await asyncio.sleep(0.001)


async def settled(store: HotStore) -> None:
    """Returns once nothing is being brought in."""
    while not store.promotion.is_idle:
        await asyncio.sleep(0.001)
