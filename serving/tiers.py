"""The stores that rows are read from: hot in front of warm, and cold while warm fails.

hot ──► warm ──► cold
(what is asked for)   (while warm's breaker is open)
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from serving.breaker_metrics import breaker_families
from serving.hot_metrics import hot_families
from serving.metrics import Metrics
from serving.stores.breakers import Breaker, probing
from serving.stores.cold import ColdStore
from serving.stores.fallback import Fallback, HeardFallback
from serving.stores.heard_rows import HeardRows
from serving.stores.row_store import NamedRows, RowStore
from serving.stores.warm import WarmStore
from serving.watch.catalog import CatalogWatch
from serving.watch.hot_tier import HotTier


class Tiers:
    """The stores at three URLs, which connect at the first read; without `hot` there are two."""

    def __init__(
        self,
        redis: str,
        postgres: str,
        hot: str,
        catalog: CatalogWatch,
        metrics: Metrics,
        cluster: bool = False,
    ) -> None:
        """With `cluster` the Redis at `redis` is a Redis Cluster."""
        self._warm = WarmStore(redis, metrics.read, cluster)
        self._cold = ColdStore(postgres)
        behind = Fallback(self._warm, self._cold)
        warm = self._warm.breaker
        self.hot = (
            HotTier(hot, behind, behind.named, catalog, lambda: not warm.is_open) if hot else None
        )
        self.store: RowStore = behind if self.hot is None else self.hot.store
        self.named: NamedRows | None = behind.named if self.hot is None else self.hot.store
        warm_rows = self._warm.named
        self.heard: HeardRows | None = None if warm_rows is None else HeardFallback(warm, warm_rows)
        """Rows for who hears them; none of a cluster."""
        if self.hot is not None:
            self.heard = self.hot.store
        metrics.add(breaker_families(self.breakers))
        if self.hot is not None:
            metrics.add(hot_families(self.hot.store))

    def breakers(self) -> list[Breaker]:
        """Those of the stores, and of a cluster those of its nodes that were asked."""
        return [*self._warm.breakers, self._cold.breaker]

    @asynccontextmanager
    async def kept(self, most_read: Path | None) -> AsyncIterator[None]:
        """While the context lasts, stores that failed are probed, and hot is kept filled.

        `most_read` is the directory in which servers keep what is read most.
        """
        async with AsyncExitStack() as stack:
            for store in (self._warm, self._cold):
                await stack.enter_async_context(_probed(store.breaker, store.answers))
            if self.hot is not None:
                await stack.enter_async_context(self.hot.kept_warm(most_read))
            yield

    async def close(self) -> None:
        """Close the connections."""
        await self.store.close()


@asynccontextmanager
async def _probed(breaker: Breaker, probe: Callable[[], Awaitable[bool]]) -> AsyncIterator[None]:
    """While the context lasts, the store is probed whenever its breaker is open."""
    task = asyncio.create_task(probing(breaker, probe))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
