"""Loads that were given up, whose rows a lake had, and readers of months that went."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from pipelines.lake.verification import LakeVerification
from pipelines.load.forgetting import Forgetting
from pipelines.load.loads import Loads
from registry.database.engine import connect
from registry.database.month_partitions import attach, month_of
from registry.lifecycle.audit import By
from tests.support.file_loads import Tick, as_csv, load_files, loads_at
from tests.support.lakes import DAY_MS, exported, in_lake, in_postgres, states
from tests.support.logs import NOW_MS
from tests.support.rebuilds import Stores
from tests.support.sinks import GO_ON


@pytest.fixture
def engine(stores: Stores) -> Iterator[Engine]:
    """Of a database with a partition for each month."""
    engine = connect(stores.postgres)
    month = month_of(datetime.fromtimestamp(NOW_MS / 1000, UTC))
    attach(engine, range(month - 3, month + 7))
    yield engine
    engine.dispose()


def ticks(name: str, first: int, n: int, step: int = 1_000) -> list[Tick]:
    return [(name, 1.5 + number, first + number * step, None) for number in range(n)]


def test_rows_of_a_load_that_was_given_up_leave_the_lake(
    stores: Stores, engine: Engine, tmp_path: Path
) -> None:
    """And no others do: also where an export dies between a file's move and its record."""
    lake = tmp_path / "lake"
    first = NOW_MS - 10 * DAY_MS
    load_files(stores.postgres, [as_csv(tmp_path, ticks("K", first, 20), "kept.csv")])
    given_up = as_csv(tmp_path, [*ticks("L", first, 20), *ticks("M", first - DAY_MS, 20)], "l.csv")
    stop = Event()

    def report(done: Any) -> None:
        if done.rows:
            stop.set()

    load_files(stores.postgres, [given_up], report=report, stop=stop)
    begun = next(one for one in loads_at(stores.postgres) if one.finished_at is None)
    assert exported(stores.postgres, lake).refused == ()
    assert len(in_lake(lake)) > 20
    with Loads.at(stores.postgres) as loads:
        Forgetting(stores.postgres, loads).forget(begun.load_id, By("ann"), lambda _: None, GO_ON)

    stores.execute(
        "CREATE FUNCTION public.dies() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'the export dies'; END $$"
    )
    stores.execute(
        "CREATE TRIGGER dies BEFORE UPDATE ON tickwell.lake_days FOR EACH ROW"
        " EXECUTE FUNCTION public.dies()"
    )
    with pytest.raises(DBAPIError, match="the export dies"):
        exported(stores.postgres, lake)
    stores.execute("DROP TRIGGER dies ON tickwell.lake_days")
    assert exported(stores.postgres, lake).refused == ()
    assert in_lake(lake) == in_postgres(stores.postgres)
    assert len(in_lake(lake)) == 20
    assert set(states(engine, lake).values()) == {"whole"}
    found = LakeVerification(stores.postgres, lake).run(lambda _: None, GO_ON)
    assert (found.differences, found.changed) == ((), 0)

    stores.execute("DELETE FROM tickwell.feature_rows WHERE entity = 'K' AND features[1] < 3")
    stores.execute("UPDATE tickwell.day_changes SET changes = changes + 1")
    assert len(exported(stores.postgres, lake).refused) == 1
    assert len(in_lake(lake)) == 20
