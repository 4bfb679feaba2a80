"""The lake: its files have what Postgres has, and which days do not is known."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
from sqlalchemy import Engine

from registry.database.engine import connect
from tests.support.lakes import (
    History,
    complete,
    exported,
    files_of,
    in_lake,
    in_postgres,
    of_days,
    states,
)
from tests.support.rebuilds import Stores
from tests.support.seeds import seeds


@pytest.fixture
def engine(stores: Stores) -> Iterator[Engine]:
    engine = connect(stores.postgres)
    yield engine
    engine.dispose()


def whole_days(engine: Engine, lake: Path) -> set[date]:
    return {day for (_, day), state in states(engine, lake).items() if state == "whole"}


@pytest.mark.parametrize("seed", seeds(5, 40))
def test_what_is_whole_is_what_postgres_has(
    stores: Stores, engine: Engine, tmp_path: Path, seed: int
) -> None:
    """Whatever stores rows for whatever day, and wherever an export is stopped.

    Live with ticks for last month and across midnight, replays, rows that are carried over,
    versions that are recorded and backfilled.
    """
    chance = random.Random(seed)
    history, lake = History(stores, engine, chance), tmp_path / "lake"
    acts = [
        *[history.live] * 5,
        *(history.replay, history.carry, history.backfill, history.record_version),
    ]
    for _ in range(14):
        chance.choice(acts)()
        if chance.random() < 0.5:
            continue
        last = exported(stores.postgres, lake, chance.choice([None, 1, 3]))
        chance.choice(acts)()
        days, refs = whole_days(engine, lake), complete(engine)
        found, there = in_lake(lake), in_postgres(stores.postgres, refs)
        assert of_days(found, days) == of_days(there, days)
        assert last.refused == ()
    assert exported(stores.postgres, lake).finished
    assert in_lake(lake) == in_postgres(stores.postgres, complete(engine))
    again = exported(stores.postgres, lake)
    assert (again.days, again.finished) == (0, True)


def test_only_days_that_were_changed_are_written_anew(
    stores: Stores, engine: Engine, tmp_path: Path
) -> None:
    history = History(stores, engine, random.Random(3))
    for _ in range(12):
        history.live()
    exported(stores.postgres, tmp_path)
    before = {path: path.stat().st_ino for path in files_of(tmp_path)}
    rows = in_lake(tmp_path)
    history.live()
    history.replay()  # stores nothing new
    changed = {row for row in in_postgres(stores.postgres) if row not in rows}
    assert changed
    done = exported(stores.postgres, tmp_path)
    assert 0 < done.days < len(before)
    rewritten = {path for path in files_of(tmp_path) if before.get(path) != path.stat().st_ino}
    days = {path.parent.name for path in rewritten}
    assert days == {f"day={date.fromtimestamp(row.event_time / 1e9)}" for row in changed}
