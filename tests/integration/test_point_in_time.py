"""What features were at moments of the past: what was served then, and nothing that came later."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from registry.database.engine import connect
from registry.definitions import Catalog, FeatureVersion
from registry.formats.entity_name import SEPARATOR
from registry.formats.row import ValueStatus
from registry.lifecycle.audit import By
from registry.lifecycle.registry import Registry
from serving.features.lookup import Names
from serving.features.reader import Reader
from serving.features.times import to_rfc_3339
from serving.features.values import Moment
from serving.history.snapshot import ROW_BYTES
from serving.stores.warm import WarmStore
from tests.oracle.derived import STATUSES, Known, expect_sum
from tests.support.backfills import Tick, backfill, blocks
from tests.support.carried import carry
from tests.support.past import ALWAYS, PORTFOLIOS, SYMBOLS, Cell, Market, asked, cells, joining
from tests.support.rebuilds import Stores
from tests.support.seeds import seeds
from tests.support.sinks import query

OF_SYMBOLS = ["current_price", "price_sma_5", "price_volatility", "spread"]
OF_PORTFOLIOS = ["portfolio_exposure", "portfolio_exposure_net"]
SPREAD = FeatureVersion(
    "spread", "1.0.0", ("symbol",), "current_price / price_sma_5 - 1", max_age_ns=90 * 10**9
)
BEFORE_ALL = 1


def recorded(stores: Stores) -> Registry:
    return Registry(connect(stores.postgres, pool_size=1), By("ann"))


def with_spread(registry: Registry) -> Catalog:
    registry.create_feature_version(
        SPREAD.name,
        SPREAD.version,
        {"expression": SPREAD.expression, "entity": ["symbol"], "max_age": "90s"},
    )
    return registry.catalog()


Question = tuple[str, int]
"""An entity, and a moment."""


def served(
    stores: Stores, catalog: Catalog, moment: int, features: Sequence[str], kind: str
) -> dict[tuple[str, str], Cell]:
    """What the reader answers at a moment, by feature and entity."""
    entities = [{kind: one} for one in (SYMBOLS if kind == "symbol" else PORTFOLIOS)]

    async def answer() -> Any:
        store = WarmStore(stores.redis_url)
        try:
            now = Moment(moment, lambda source, tier: False)
            return await Reader(store).answer(Names(catalog), features, entities, lambda: now)
        finally:
            await store.close()

    found = {}
    for one in asyncio.run(answer()):
        for name, value in one.features.items():
            bits = None if value.value is None else float(value.value).hex()
            found[name, one.entity[kind]] = bits, value.status.value, value.event_time
    return found


@pytest.mark.parametrize("seed", seeds(2, 8))
def test_a_row_has_what_was_served_at_its_moment(stores: Stores, seed: int) -> None:
    """Ticks that come late, at one time, ahead of their time; closes; two row schemas."""
    chance = random.Random(seed)
    registry = recorded(stores)
    catalog = with_spread(registry)
    market = Market(stores, chance, catalog)
    expected: dict[tuple[str, str, int], Cell] = {}
    for step in range(24):
        if step == 12:
            registry.create_feature_version(
                "price_sma_5", "2.0.0", {"expression": "mean(price, 6)"}, "1.0.0"
            )
            catalog = registry.catalog()
            market.work_by(catalog)
        market.tick(chance.choice(["price", "price", "position"]), chance.randrange(1, 7))
        wait = chance.choice([0, 1, 5_000, 61_000, 95_000])
        moment = max(market.at_ms, market.newest_ms) + wait
        for kind, features in (("symbol", OF_SYMBOLS), ("portfolio", OF_PORTFOLIOS)):
            for (name, entity), cell in served(
                stores, catalog, moment * 10**6, features, kind
            ).items():
                expected[name, entity, moment * 10**6] = cell
        market.at_ms = moment + chance.choice([1, 1, 20_000])
    for kind, features in (("symbol", OF_SYMBOLS), ("portfolio", OF_PORTFOLIOS)):
        questions = list(dict.fromkeys((e, t) for name, e, t in expected if (name in features)))
        chance.shuffle(questions)
        moments = [moment for _, moment in questions]
        rows = asked(moments, **{kind: [entity for entity, _ in questions]})
        with joining(stores.postgres, features) as join:
            columns = join.columns(rows)
        for name in features:
            found = [
                (b, s, None if t is None else to_rfc_3339(t)) for b, s, t in cells(columns[name])
            ]
            assert found == [expected[name, entity, moment] for entity, moment in questions]


# ---------------------------------------------------------------- by brute force


class Past:
    """All rows as they are stored, searched from end to end for each question."""

    def __init__(self, stores: Stores, catalog: Catalog) -> None:
        self._catalog = catalog
        self._rows: dict[tuple[str, str], list[tuple[Any, ...]]] = {}
        for schema, entity, time, sequence, known, values, status in query(
            stores.postgres,
            "SELECT schema_id, entity, event_time, sequence, known_at, features, status"
            " FROM tickwell.feature_rows",
        ):
            source = catalog.schemas[schema].source
            self._rows.setdefault((source, entity), []).append(
                (time, sequence, known, schema, values, bytes(status))
            )
        self._blocks = {ref: blocks(stores.postgres, ref) for ref in catalog.features}

    def members(self, portfolio: str) -> list[str]:
        of = (entity for source, entity in self._rows if source == "position")
        return sorted(one for one in of if one.startswith(portfolio + SEPARATOR))

    def newest(self, source: str, entity: str, moment: int, known: int) -> list[tuple[Any, ...]]:
        """The rows of the newest tick, one a row schema."""
        seen = [
            row
            for row in self._rows.get((source, entity), ())
            if row[0] <= moment and row[2] <= known
        ]
        last = max((row[:2] for row in seen), default=None)
        return [row for row in seen if row[:2] == last]

    def known(self, ref: str, entity: str, moment: int, known: int) -> Known:
        version = self._catalog.features[ref]
        assert version.source is not None
        rows = self.newest(version.source, entity, moment, known)
        if not rows:
            return Known(None, "missing", None)
        time, sequence = rows[0][:2]
        for *_, schema, values, status in rows:
            features = self._catalog.schemas[schema].features
            if ref in features:
                index = features.index(ref)
                return self._judged(version, values[index], status[index], time, moment)
        found = self._blocks[ref].get(Tick(entity, time, sequence))
        if found is None:
            return Known(None, "missing", None)
        return self._judged(version, float.fromhex(found[0]), found[1], time, moment)

    def _judged(
        self, version: FeatureVersion, value: float, status: int, time: int, moment: int
    ) -> Known:
        said = {
            ValueStatus.OK: "ok",
            ValueStatus.WARMING: "warming",
            ValueStatus.UNDEFINED: "undefined",
            ValueStatus.CLOSED: "missing",
        }[ValueStatus(status)]
        if said == "ok" and version.max_age_ns is not None and moment - time > version.max_age_ns:
            said = "stale"
        return Known(value if said in ("ok", "stale") else None, said, time)

    def derived(self, version: FeatureVersion, entity: str, moment: int, known: int) -> Known:
        pins = version.pins
        if version.over is None:
            parts = {n: self.known(ref, entity, moment, known) for n, ref in pins.items()}
            found = _evaluated(version.expression, parts)
        else:
            found = self._summed(version, pins, entity, moment, known)
        value, status, time = found.value, found.status, found.event_time
        if value is not None and not math.isfinite(value):
            value, status = None, "undefined"
        age = version.max_age_ns
        if status == "ok" and age is not None and time is not None and moment - time > age:
            status = "stale"
        return Known(value, status, time)

    def _summed(
        self, version: FeatureVersion, pins: Mapping[str, str], entity: str, moment: int, known: int
    ) -> Known:
        terms, closed = [], []
        for member in self.members(entity):
            rows = self.newest("position", member, moment, known)
            if not rows:
                continue
            if rows[0][5][0] == ValueStatus.CLOSED:
                closed.append(Known(0.0, "ok", rows[0][0]))
                continue
            symbol = member.split(SEPARATOR)[1]
            of = {"price": symbol, "position": member}
            terms.append(
                {
                    name: self.known(
                        ref, of[str(self._catalog.features[ref].source)], moment, known
                    )
                    for name, ref in pins.items()
                }
            )
        inner = version.expression.removeprefix("sum(").removesuffix(")")
        return expect_sum(inner, terms, closed)

    def cell(self, ref: str, entity: str, moment: int, known: int) -> Cell:
        version = self._catalog.features[ref]
        of = self.derived if version.derived else None
        found = of(version, entity, moment, known) if of else self.known(ref, entity, moment, known)
        bits = None if found.value is None else float(found.value).hex()
        return bits, found.status, found.event_time


def _evaluated(expression: str, parts: Mapping[str, Known]) -> Known:
    """An expression of one entity's features, as Python computes it."""
    status = max((part.status for part in parts.values()), key=STATUSES.index)
    times = [part.event_time for part in parts.values() if part.event_time is not None]
    value = None
    if status in ("ok", "stale"):
        try:
            value = eval(expression, {name: part.value for name, part in parts.items()})
        except ZeroDivisionError:
            value = math.nan
    return Known(value, status, min(times, default=None))


@pytest.mark.parametrize("seed", seeds(2, 10))
def test_every_cell_is_what_a_search_of_all_rows_finds(stores: Stores, seed: int) -> None:
    """Rows that became known long after, versions with and without a backfill, moments on ticks."""
    chance = random.Random(seed)
    registry = recorded(stores)
    market = Market(stores, chance, with_spread(registry))

    def go_on(steps: int) -> None:
        for _ in range(steps):
            market.tick(chance.choice(["price", "price", "position"]), chance.randrange(1, 9))
            market.at_ms += chance.choice([0, 1, 1_000, 40_000])

    go_on(6)
    registry.create_feature_version(
        "price_sma_5", "2.0.0", {"expression": "mean(price, 3)"}, "1.0.0"
    )
    market.work_by(registry.catalog())
    go_on(3)
    registry.create_feature_version(
        "price_sma_5", "3.0.0", {"expression": "mean(price, 2)"}, "1.0.0"
    )
    carry(stores, "offline", registry.catalog(), 0)  # the newest ticks are in two row schemas
    market.work_by(registry.catalog())
    go_on(6)
    if chance.random() < 0.7 and registry.begin_backfill("price_sma_5@2.0.0") is not None:
        engine = connect(stores.postgres)
        assert backfill(engine, stores.postgres, "price_sma_5@2.0.0").finished
        engine.dispose()
    stores.execute(
        "UPDATE tickwell.feature_rows SET known_at = known_at + %s WHERE abs(hashint8(event_time"
        " + %s)) %% 4 = 0",
        *(chance.choice([10**6, 50 * 10**9]), seed),
    )
    catalog = registry.catalog()
    past = Past(stores, catalog)
    features = ["current_price", "price_sma_5@2.0.0", "price_sma_5@3.0.0", "spread"]
    times = [
        int(t) for (t,) in query(stores.postgres, "SELECT event_time FROM tickwell.feature_rows")
    ]
    known = [
        int(t) for (t,) in query(stores.postgres, "SELECT known_at FROM tickwell.feature_rows")
    ]
    for kind, names in (("symbol", features), ("portfolio", OF_PORTFOLIOS)):
        entities = [*(SYMBOLS if kind == "symbol" else PORTFOLIOS), "nobody"]
        questions = [
            (
                chance.choice(entities),
                chance.choice(times + known) + chance.choice([-1, 0, 0, 1, 10**11]),
            )
            for _ in range(300)
        ]
        questions += [*chance.choices(questions, k=50), (entities[0], BEFORE_ALL)]
        moments = [moment for _, moment in questions]
        rows = asked(moments, **{kind: [entity for entity, _ in questions]})
        last = max(known) + 1
        in_pieces = chance.choice([1, 1_000, 10_000, ROW_BYTES])
        with joining(stores.postgres, names, in_pieces) as join:
            columns = join.columns(rows)
            then = join.columns(rows, rows.moments * 0 + last)
            versions = join.versions
            assert set(join.plans.values()) == {"lateral"}
        with joining(stores.postgres, names, in_pieces, ALWAYS) as join:
            for again, first in (
                (join.columns(rows), columns),
                (join.columns(rows, rows.moments * 0 + last), then),
            ):
                assert {n: cells(c) for n, c in again.items()} == {
                    n: cells(c) for n, c in first.items()
                }
            assert set(join.plans.values()) == {"scan"}
        for name in names:
            ref = versions[name].ref
            assert cells(columns[name]) == [past.cell(ref, e, t, t) for e, t in questions]
            assert cells(then[name]) == [past.cell(ref, e, t, last) for e, t in questions]
