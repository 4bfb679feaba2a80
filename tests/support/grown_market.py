"""A market whose versions were recorded one after the other, with a backfill and a derived one."""

from __future__ import annotations

import random
from typing import NamedTuple

from registry.database.engine import connect
from registry.definitions import Catalog
from registry.lifecycle.audit import By
from registry.lifecycle.registry import Registry
from tests.support.backfills import backfill
from tests.support.past import Market
from tests.support.rebuilds import Stores

BACKFILLED = "filled@1.0.0"


class Grown(NamedTuple):
    """The market, what its versions are recorded in, and moments in nanoseconds UTC."""

    market: Market
    registry: Registry
    moments: list[int]

    @property
    def catalog(self) -> Catalog:
        return self.registry.catalog()


def recorded(stores: Stores) -> Registry:
    """A registry with a derived version, and with one of each field of prices."""
    registry = Registry(connect(stores.postgres, pool_size=1), By("ann"))
    spread = {"expression": "current_price / price_sma_5 - 1", "entity": ["symbol"]}
    registry.create_feature_version("spread", "1.0.0", {**spread, "max_age": "90s"})
    for name, expression in (
        ("short", "stddev(log_return(price), 2)"),
        ("sizes", "mean(size, 3)"),
    ):
        definition = {"expression": expression, "source": "price"}
        registry.create_feature_version(name, "1.0.0", definition)
    return registry


def grown(stores: Stores, chance: random.Random, steps: int = 30) -> Grown:
    """Ticks that come late, at one time, ahead of their time; resets, closes, a backfill."""
    registry = recorded(stores)
    market, moments = Market(stores, chance, registry.catalog(), 0.2), []
    for step in range(steps):
        if step == steps // 2:
            definition = {"expression": "mean(price, 3)", "source": "price"}
            registry.create_feature_version("filled", "1.0.0", definition)
            market.work_by(registry.catalog())
        market.tick(chance.choice(["price", "price", "position"]), chance.randrange(1, 7))
        moments.append((market.at_ms + chance.choice([0, 1, 5_000, 61_000])) * 10**6)
        market.at_ms += chance.choice([1, 1, 20_000])
    backfill(registry.engine, stores.postgres, BACKFILLED)
    return Grown(market, registry, moments)
