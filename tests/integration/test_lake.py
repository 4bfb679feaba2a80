"""The lake: its files have what Postgres has, and which days do not is known."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from threading import Event

import pytest
from sqlalchemy import Engine

from pipelines.lake.export import Done, LakeExport
from registry.database.engine import connect
from registry.database.month_partitions import attach_ahead
from tests.support.lakes import (
    LATER,
    History,
    complete,
    exported,
    files_of,
    in_lake,
    in_postgres,
    of_days,
    states,
)
from tests.support.rebuilds import Stores, nothing
from tests.support.seeds import seeds
from tests.support.served import beat
from tests.support.sinks import query


@pytest.fixture
def engine(stores: Stores) -> Iterator[Engine]:
    engine = connect(stores.postgres)
    yield engine
    engine.dispose()


def whole_days(engine: Engine, lake: Path) -> set[date]:
    return {day for (_, day), state in states(engine, lake).items() if state == "whole"}


@pytest.mark.parametrize("seed", seeds(2, 40))
def test_what_is_whole_is_what_postgres_has(
    stores: Stores, engine: Engine, tmp_path: Path, seed: int
) -> None:
    """Whatever stores rows for whatever day, and wherever an export is stopped.

    Live with ticks for last month and across midnight, also while a day is read, replays, rows that
    are carried over, versions that are recorded and backfilled, loads of files.
    """
    chance = random.Random(seed)
    history, lake = History(stores, engine, chance), tmp_path / "lake"
    acts = [
        *[history.live] * 5,
        *(history.replay, history.carry, history.backfill, history.record_version, history.load),
    ]
    for _ in range(14):
        chance.choice(acts)()
        if chance.random() < 0.5:
            continue
        last = exported(
            *(stores.postgres, lake, chance.choice([None, 1, 3])),
            meanwhile=lambda: chance.choice([history.live, *[nothing] * 20])(),
        )
        chance.choice(acts)()
        days, refs = whole_days(engine, lake), complete(engine)
        found, there = in_lake(lake), in_postgres(stores.postgres, refs)
        assert of_days(found, days) == of_days(there, days)
        assert last.refused == ()
    while exported(stores.postgres, lake).of:
        pass
    assert in_lake(lake) == in_postgres(stores.postgres, complete(engine))


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


def test_it_gives_way_to_live(stores: Stores, engine: Engine, tmp_path: Path) -> None:
    history = History(stores, engine, random.Random(3))
    history.live()
    beat(stores.redis_url, behind=60)
    told, stop = list[str](), Event()

    def report(done: Done) -> None:
        if done.waits is not None:
            told.append(done.waits)
            stop.set()

    export = LakeExport(stores.postgres, tmp_path, LATER, heartbeats=(stores.redis_url,))
    assert not export.run(report, stop).finished
    assert str(told[0]).endswith("worker is 60 s behind")
    assert not in_lake(tmp_path)


def test_months_have_an_index_of_times(engine: Engine, stores: Stores, tmp_path: Path) -> None:
    """Those that are attached, by that; others by the first export."""
    attach_ahead(engine, datetime(2026, 11, 24, tzinfo=UTC))
    stores.execute("DROP INDEX tickwell.feature_rows_2026_12_times")
    exported(stores.postgres, tmp_path)
    indexes = query(
        stores.postgres,
        "SELECT tablename FROM pg_indexes WHERE indexdef LIKE '%USING brin (event_time)%'",
    )
    partitions = query(
        stores.postgres,
        "SELECT inhrelid::regclass::text FROM pg_inherits"
        " WHERE inhparent = 'tickwell.feature_rows'::regclass",
    )
    assert len(partitions) > 3
    assert {f"tickwell.{name}" for (name,) in indexes} == {name for (name,) in partitions}
