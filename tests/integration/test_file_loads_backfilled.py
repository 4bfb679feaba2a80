"""Values of a later version for loaded ticks, and for those of live beside them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from sqlalchemy import Engine

from pipelines.stores.postgres.offline_sink import OfflineSink
from registry.database.engine import connect
from registry.database.views import create_views
from registry.errors import NotCovered
from registry.lifecycle.audit import By
from registry.lifecycle.coverage import coverage
from registry.lifecycle.registry import Registry
from tests.oracle.features import Feature, expect
from tests.support.backfills import backfill
from tests.support.file_loads import Tick, as_csv, load_files, records_of, runs_of, ticks
from tests.support.logs import PRICE
from tests.support.past import asked, joining
from tests.support.rebuilds import TOPIC, Stores, both
from tests.support.sinks import query
from tests.support.tick_files import TS

DAY = 86_400_000
"""Milliseconds."""

REF = "price_sma_5@2.0.0"
AS_NEW = (Feature("price_sma_5", "mean", 0, 6),)

Means = dict[tuple[str, int, int], float | None]
"""By entity, event time and sequence."""


@pytest.fixture
def engine(stores: Stores) -> Iterator[Engine]:
    engine = connect(stores.postgres)
    yield engine
    engine.dispose()


def with_a_new_version(engine: Engine) -> Registry:
    registry = Registry(engine, By("ann"))
    registry.create_feature_version(
        "price_sma_5", "2.0.0", {"expression": "mean(price, 6)"}, "1.0.0"
    )
    return registry


def means(made: Sequence[Tick]) -> Means:
    """The mean of the last six prices of each tick, by the oracle."""
    found = expect(records_of(list(made)), PRICE, AS_NEW)
    return {
        (row.entity[0], row.event_time, row.sequence): row.values[0].value
        for rows in found.rows.values()
        for row in rows
    }


def assert_means(postgres: str, expected: Means) -> None:
    """A view and a join have them."""
    of_view = query(
        postgres, "SELECT symbol, event_time, sequence, price_sma_5 FROM features.price"
    )
    found = {row[:3]: row[3] for row in of_view}
    assert found.keys() == expected.keys()
    for tick, value in expected.items():
        assert (found[tick] is None) == (value is None), tick
        assert value is None or abs(found[tick] - value) < 1e-12
    of_symbol: dict[str, tuple[str, int, int]] = {}
    for tick in sorted(expected, key=lambda tick: tick[1:]):
        of_symbol[tick[0]] = tick
    with joining(postgres, [REF]) as join:
        moments = [tick[1] + 10**9 for tick in of_symbol.values()]
        column = join.columns(asked(moments, symbol=list(of_symbol)))[REF]
    values = [None if math.isnan(value) else value for value in column.values.tolist()]
    assert values == [found[tick] for tick in of_symbol.values()]


@pytest.mark.parametrize("rows_a_piece", [7, 1000])
def test_windows_do_not_run_from_loaded_ticks_into_live_ones(
    stores: Stores, engine: Engine, tmp_path: Path, rows_a_piece: int
) -> None:
    """Also where Kafka brings ticks of the times that were loaded before."""
    old, of_live = ticks(300, 1, "ABC"), ticks(200, 2, "ABD", TS + DAY)
    stores.keep(OfflineSink(stores.postgres)).settle(TOPIC)
    both(stores, runs_of(of_live))
    load_files(stores.postgres, [as_csv(tmp_path, old)])
    load_files(stores.postgres, [as_csv(tmp_path, ticks(100, 3, "E"))])
    both(stores, runs_of(ticks(100, 4, "E", TS + 500), 200))
    registry = with_a_new_version(engine)
    with pytest.raises(NotCovered, match="load:price"):
        registry.activate(REF)
    steps = 0
    while not backfill(engine, stores.postgres, REF, rows_a_piece, 3).finished:
        steps += 1
    assert steps > (10 if rows_a_piece == 7 else 0)
    with engine.connect() as connection:
        covered = coverage(connection, registry.catalog(), REF)
    assert {part.partition.topic for part in covered} == {"ticks.price", "load:price"}
    assert all(sum(e - b for b, e in part.covered) == part.stored.end for part in covered)
    stores.execute("UPDATE tickwell.active_versions SET version = '2.0.0' WHERE name = %s", NAME)
    registry.finish_backfill(REF)
    create_views(engine)
    stores.execute("DELETE FROM tickwell.feature_rows WHERE entity = 'E'")
    assert_means(stores.postgres, means(old) | means(of_live))


NAME = "price_sma_5"


def test_a_load_in_the_newest_row_schema_needs_no_backfill(
    stores: Stores, engine: Engine, tmp_path: Path
) -> None:
    """The ticks of the load before it lack the version, and say so."""
    old, older = ticks(200, 1, "AB", TS + DAY), ticks(200, 2, "AB")
    load_files(stores.postgres, [as_csv(tmp_path, old)])
    registry = with_a_new_version(engine)
    load_files(stores.postgres, [as_csv(tmp_path, older)])
    registry.activate(REF, without_history=True)
    create_views(engine)
    assert_means(stores.postgres, means(older) | dict.fromkeys(means(old)))
