"""How often hot has what is asked for, beside the best that a cache of its size could do.

Entities are drawn by Zipf's law among all of them, and of each one source in turn by chance, as by
models that ask for features of one source each. Nothing else is asked meanwhile, and hot has room
for a tenth of the rows. Two caches take turns: one that brings in an entity's rows in its other
sources with the one that was missed, and one that does not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import redis

from benchmarks.market import SOURCES, market
from benchmarks.results import Failed, Run
from benchmarks.services import Services
from serving.stores.hot import HotOptions, HotStore
from serving.stores.row_store import RowId, Tier, Unavailable
from serving.stores.warm import WarmStore
from tickwell.bench import known
from tickwell.settings import Settings

SKEWS = (0.8, 0.99, 1.1, 1.2, 1.4)
PART = 10
"""Of so many rows hot has room for one."""

WARM_UP, COUNTED = 5, 2
"""Reads that fill hot, and then those that count, each for one row that it has room for."""

READS_AT_ONCE = 100
SAMPLED_ROWS = 20_000
TRUST_SECONDS = 30.0
SEED = 14

Turn = Sequence[tuple[str, Sequence[bytes]]]
"""What one request reads: names of rows of each source."""


def hits(services: Services, entities: int, skew: float, prefetch: bool) -> Run:
    """The part of the reads that hot answers, once it is full."""
    settings = services.fresh(services.settings)
    with market(settings, entities), redis.Redis.from_url(settings.redis_hot) as hot:
        bound = int(hot.config_get("maxmemory")["maxmemory"])
        try:
            return asyncio.run(_measured(settings, hot, entities, skew, prefetch))
        finally:
            hot.config_set("maxmemory", bound)


async def _measured(
    settings: Settings, hot: redis.Redis, entities: int, skew: float, prefetch: bool
) -> Run:
    warm = WarmStore(settings.redis)
    siblings = {one: tuple(other for other in SOURCES if other != one) for one in SOURCES}
    options = HotOptions(siblings=siblings.__getitem__ if prefetch else lambda source: ())
    store = HotStore(settings.redis_hot, warm, options, warm.named)
    room = len(SOURCES) * entities // PART
    draws = _Draws(store, entities, skew)
    try:
        await _believed(store, draws)
        sampled = min(SAMPLED_ROWS, room // 2)
        while known.hot(settings.redis_hot).keys < sampled:
            await _read(store, draws.turn())
        now = known.hot(settings.redis_hot)
        row = (now.used_bytes - now.empty_bytes) / now.keys
        hot.config_set("maxmemory", int(now.empty_bytes + row * room))
        for _ in range(WARM_UP * room // READS_AT_ONCE):
            await _read(store, draws.turn())
        asked, found = store.counts.rows, store.counts.found[Tier.HOT]
        for _ in range(max(1, COUNTED * room // READS_AT_ONCE)):
            await _read(store, draws.turn())
        asked, found = store.counts.rows - asked, store.counts.found[Tier.HOT] - found
    finally:
        await store.close()
    held = known.hot(settings.redis_hot).keys
    detail = {"skew": skew, "prefetch": prefetch, "ideal": draws.ideal(held), "rows": held}
    return Run(value=found / asked, unit="of the reads", ticks=asked, detail=detail)


async def _believed(store: HotStore, draws: _Draws) -> None:
    """Read until hot answers for a row: its partitions are known then, and fed."""
    async with asyncio.timeout(TRUST_SECONDS):
        while not store.counts.found[Tier.HOT]:
            await _read(store, draws.turn())
            await asyncio.sleep(0.01)


async def _read(store: HotStore, turn: Turn) -> None:
    """Read, and wait until what was missed is in: a cache is measured, and not how busy it is."""
    if isinstance(await store.named_rows(turn), Unavailable):
        raise Failed("a store did not answer")
    while not store.promotion.is_idle:
        await asyncio.sleep(0)


class _Draws:
    """Draws entities and sources."""

    def __init__(self, store: HotStore, entities: int, skew: float) -> None:
        weights = np.arange(1, entities + 1, dtype=np.float64) ** -skew
        self._up_to = np.cumsum(weights) / weights.sum()
        self._random = np.random.default_rng(SEED)
        self._up_to[-1] = 1.0
        self._store = store

    def ideal(self, rows: int) -> float:
        """What a cache answers that holds so many rows, those that are drawn most often."""
        return float(self._up_to[rows // len(SOURCES) - 1])

    def turn(self) -> Turn:
        entities = np.searchsorted(self._up_to, self._random.random(READS_AT_ONCE), side="right")
        sources = self._random.integers(0, len(SOURCES), READS_AT_ONCE)
        return [
            (source, [self._name(source, entity) for entity in entities[sources == n].tolist()])
            for n, source in enumerate(SOURCES)
        ]

    def _name(self, source: str, entity: int) -> bytes:
        return self._store.name(RowId(source, (f"S{entity}",)))


def table(runs: Sequence[Run]) -> list[str]:
    """What hot had at each skew, with the other sources brought in too and without."""
    lines = [
        "| Zipf's s | reads | rows in hot | ideal | hits | hits / ideal | without other sources |",
        "|---|---|---|---|---|---|---|",
    ]
    good = [run for run in runs if run.value is not None]
    for skew in dict.fromkeys(run.detail["skew"] for run in good):
        of = {run.detail["prefetch"]: run for run in good if run.detail["skew"] == skew}
        if True not in of:
            continue
        run, without = of[True], of.get(False)
        assert run.value is not None
        ideal = run.detail["ideal"]
        alone = "" if without is None or without.value is None else f"{without.value:.3f}"
        lines.append(
            f"| {skew} | {run.ticks:,} | {run.detail['rows']:,} | {ideal:.3f} | {run.value:.3f} "
            f"| {run.value / ideal:.3f} | {alone} |"
        )
    return lines
