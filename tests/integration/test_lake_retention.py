"""Months that Postgres let go of: the lake and Postgres together lose nothing, and states stay."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from pipelines.compute.entity_names import EntityNames
from pipelines.lake.retention import Dropped, Retention
from pipelines.lake.verification import LakeVerification
from pipelines.stores.postgres.connection import Database
from pipelines.stores.postgres.states_from_rows import load_states
from registry import catalog as recorded
from registry.database.engine import connect
from registry.database.month_partitions import attach, month_of
from registry.formats.origin import Origin
from registry.formats.status import Status
from tests.support.lakes import (
    SILENT,
    SYMBOLS,
    Cells,
    History,
    Row,
    complete,
    exported,
    in_lake,
    in_postgres,
    states,
)
from tests.support.logs import NOW_MS, TOPIC_ID
from tests.support.rebuilds import TOPIC, Stores, quiet
from tests.support.seeds import seeds
from tests.support.sinks import GO_ON, query

KEPT_TICKS = 25
"""The history of the source: a few ticks more than are in the longest window."""

BEGIN = datetime.fromtimestamp(NOW_MS / 1000, UTC)
WEEK_HOURS = 7 * 24


@pytest.fixture
def engine(stores: Stores) -> Iterator[Engine]:
    """Of a database with a partition for each month."""
    engine = connect(stores.postgres)
    attach(engine, range(month_of(BEGIN) - 3, month_of(BEGIN) + 12))
    yield engine
    engine.dispose()


def keep_few_ticks(stores: Stores) -> None:
    """Of an entity, as the recorded source says; to record versions says otherwise again."""
    stores.execute(
        "UPDATE tickwell.sources SET definition = definition || %s::jsonb WHERE name = 'price'",
        f'{{"history": {KEPT_TICKS}}}',
    )


def let_go(postgres: str, lake: Path, before: date, **how: Any) -> Dropped:
    asked = Retention(postgres, lake, before, rows_a_group=7, pause_seconds=0.01, **how)
    return asked.run(quiet, GO_ON)


def month_behind(history: History, months: int = 0) -> date:
    """The first day of the month of the newest tick, or of an earlier one."""
    number = month_of(datetime.fromtimestamp(history.at_ms / 1000, UTC)) - months
    return date(number // 12, number % 12 + 1, 1)


def states_now(stores: Stores, engine: Engine) -> Any:
    """The states from which a worker would go on."""
    database = Database(stores.postgres, "test")
    ((end,),) = query(stores.postgres, "SELECT next_offset FROM tickwell.watermarks")
    source = recorded.load(engine).sources["price"]
    names = EntityNames.of([*SYMBOLS, *SILENT])
    try:
        loaded = load_states(database, source, names, KEPT_TICKS, Origin(TOPIC_ID, 0, end, 0))
    finally:
        database.close()
    columns = [column.tobytes() for column in loaded.states]
    return loaded.which.tolist(), columns


def in_redis(stores: Stores, engine: Engine) -> Any:
    """What a rebuild puts into an empty Redis."""
    stores.flush()
    source = recorded.load(engine).sources["price"]
    rebuild = stores.rebuild()
    rebuild.refill(source, TOPIC, quiet)
    return stores.rows(), stores.states([*SYMBOLS, *SILENT])


def known(cells: Cells) -> Cells:
    """Without the values that were not computed."""
    refs = [name for name, value in cells.items() if value == Status.MISSING.value]
    lost = {*refs, *(name.removesuffix("__status") for name in refs)}
    return {name: value for name, value in cells.items() if name not in lost}


class Truth:
    """All rows that were ever in Postgres."""

    def __init__(self, stores: Stores, engine: Engine) -> None:
        self._stores, self._engine = stores, engine
        self.rows: dict[Row, Cells] = {}

    def look(self) -> None:
        for row, cells in in_postgres(self._stores.postgres, complete(self._engine)).items():
            self.rows[row] = self.rows.get(row, {}) | known(cells)

    def check(self, lake: Path) -> None:
        """The files have each of them, with all that was known of it, and no others."""
        found = in_lake(lake)
        assert found.keys() == self.rows.keys()
        for row, cells in self.rows.items():
            assert found[row] | cells == found[row]


@pytest.mark.parametrize("seed", seeds(2, 30))
def test_nothing_is_lost_and_states_stay(
    stores: Stores, engine: Engine, tmp_path: Path, seed: int
) -> None:
    """Whatever stores rows, also for days that were let go of, before, between and after."""
    chance = random.Random(seed)
    history, truth = History(stores, engine, chance), Truth(stores, engine)

    def live() -> None:
        history.live(60, WEEK_HOURS)

    acts = [
        *[live] * 6,
        *(history.replay, history.carry, history.backfill, history.record_version, history.load),
    ]
    went = 0
    for _ in range(4):
        for _ in range(4):
            chance.choice(acts)()
        live()
        truth.look()
        exported(stores.postgres, tmp_path)
        keep_few_ticks(stores)
        before = states_now(stores, engine), in_redis(stores, engine)
        done = let_go(stores.postgres, tmp_path, month_behind(history, chance.randrange(2)))
        assert [one.reason for one in done.months if one.reason] == []
        went += sum(one.rows - one.kept for one in done.months)
        assert (states_now(stores, engine), in_redis(stores, engine)) == before
        truth.check(tmp_path)
        found = LakeVerification(stores.postgres, tmp_path, rows_a_group=5).run(quiet, GO_ON)
        assert (found.differences, found.changed) == ((), 0)
    assert went > 0
    live()
    history.replay()
    truth.look()
    exported(stores.postgres, tmp_path)
    truth.check(tmp_path)
    assert set(states(engine, tmp_path).values()) == {"whole"}
