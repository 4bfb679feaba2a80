"""The hot tier of a server: put together, filled at its start, and what is read most kept."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from serving.features.lookup import Names
from serving.stores.hot import HotOptions, HotStore, row_id
from serving.stores.hot_promotion import Outcome
from serving.stores.most_read import MostRead, Read
from serving.stores.most_read_files import MostReadFile, most_read
from serving.stores.row_store import NamedRows, RowId, RowStore, Tier
from serving.stores.warming import SHARE, warm
from serving.watch.catalog import CatalogWatch

logger = logging.getLogger(__name__)

SAVE_SECONDS = 60.0
"""Seconds between two times at which what is read most is saved."""

CATALOG_SECONDS = 0.5
"""Seconds between two looks whether there is a catalog, and warm, before hot is filled."""

AT_ONCE = 1_000
"""Entities that are worked on before requests are served again."""


class HotTier:
    """Hot in front of a store; the catalog says which sources have rows of the same entities."""

    def __init__(
        self,
        url: str,
        behind: RowStore,
        named: NamedRows | None,
        catalog: CatalogWatch,
        has_warm: Callable[[], bool] = lambda: True,
    ) -> None:
        """`named` is how the store behind hot reads rows by names, where it does.

        `has_warm` says whether that store is warm now, and not what stands in for it.
        """
        self._catalog = catalog
        self._siblings = Siblings(catalog)
        self._most_read = MostRead()
        self._times_lost = -1
        """How often hot was lost before it was filled last; -1 before it has been filled."""
        options = HotOptions(siblings=self._siblings, most_read=self._most_read, has_warm=has_warm)
        self.store = HotStore(url, behind, options, named)

    def told(self, total: Callable[..., float]) -> dict[str, Any]:
        """How many rows each tier was asked for and had, since the server's start.

        `total` says what a metric (`hot_metrics`) adds up to over all processes of the server. That
        hot is believed is said of this process.
        """
        tiers: dict[str, Any] = {}
        for tier in (Tier.HOT, Tier.WARM, Tier.COLD):
            name = tier.name.lower()
            asked = int(total("tickwell_tier_rows_asked_total", tier=name))
            tiers[name] = _rows(asked, int(total("tickwell_tier_rows_found_total", tier=name)))
        found = sum(of["rows_found"] for of in tiers.values())
        tiers["all"] = _rows(int(total("tickwell_rows_total")), found)
        tiers["hot"]["believed"] = self.store.trust.is_given
        return tiers

    @asynccontextmanager
    async def kept_warm(
        self, directory: Path | None, save_seconds: float = SAVE_SECONDS
    ) -> AsyncIterator[None]:
        """Fills hot with what the files of `directory` say, and saves what is read most there.

        Without one nothing is saved. Nobody waits for either; what fails is logged.
        """
        task = asyncio.create_task(self._keep_warm(directory, save_seconds))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _keep_warm(self, directory: Path | None, save_seconds: float) -> None:
        file = await _opened(directory)
        try:
            if directory is not None:
                await self._remember(await asyncio.to_thread(most_read, directory))
            while True:
                try:
                    if self._times_lost != self.store.trust.times_lost:  # it may be back empty
                        await self._fill()
                    await asyncio.sleep(save_seconds)
                    if file is not None:
                        await _save(file, self._most_read.reads())
                except Exception:  # else nothing would be saved or filled until the next start
                    logger.exception("hot was not filled, or what is read most was not kept")
                    await asyncio.sleep(save_seconds)
        finally:
            if file is not None:
                file.close()

    async def _remember(self, counted: Sequence[tuple[RowId, float]]) -> None:
        """Begin with what servers have counted before this one started."""
        for begin in range(0, len(counted), AT_ONCE):
            for row, reads in counted[begin : begin + AT_ONCE]:
                self._most_read.add(self.store.name(row), reads)
            await asyncio.sleep(0)

    async def _fill(self) -> None:
        """Bring in what is read most, and the rows of the same entities in other sources."""
        while not (self._catalog.ready and self.store.promotion.has_source()):
            await asyncio.sleep(CATALOG_SECONDS)
        self._times_lost = self.store.trust.times_lost
        rows = self._siblings.whole(self._most_read.names())
        if rows:
            outcomes = await warm(self.store.promotion, rows, share=SHARE)
            logger.info("hot is filled: %s", dict(outcomes))
            if 2 * outcomes[Outcome.UNANSWERED] > len(rows):  # warm, or hot, was lost meanwhile
                self._times_lost = -1


def _rows(asked: int, found: int) -> dict[str, Any]:
    return {
        "rows_asked": asked,
        "rows_found": found,
        "hit_ratio": found / asked if asked else None,
    }


class Siblings:
    """Which sources have rows of the same entities: those with the same key fields."""

    def __init__(self, catalog: CatalogWatch) -> None:
        self._catalog = catalog
        self._names: Names | None = None
        self._of: dict[str, tuple[str, ...]] = {}

    def __call__(self, source: str) -> tuple[str, ...]:
        """The others beside a source."""
        if self._catalog.ready and self._catalog.names is not self._names:
            self._names = self._catalog.names
            sources = self._names.catalog.sources
            self._of = {
                own.name: tuple(
                    one.name for one in sources.values() if one.key == own.key and one is not own
                )
                for own in sources.values()
            }
        return self._of.get(source, ())

    def whole(self, names: Iterable[bytes]) -> list[RowId]:
        """The rows of entities in all sources, each once, given the name of one row of each."""
        rows: dict[RowId, None] = {}
        for source, entity in map(row_id, names):
            for one in (source, *self(source)):
                rows[RowId(one, entity)] = None
        return list(rows)


async def _opened(directory: Path | None) -> MostReadFile | None:
    if directory is None:
        return None
    try:
        return await asyncio.to_thread(MostReadFile, directory)
    except OSError as error:
        logger.warning("what is read most cannot be kept in %s: %s", directory, error)
        return None


async def _save(file: MostReadFile, reads: Sequence[Read]) -> None:
    try:
        await file.save([(row_id(name), count) for name, count in reads])
    except OSError as error:
        logger.warning("what is read most cannot be kept: %s", error)
