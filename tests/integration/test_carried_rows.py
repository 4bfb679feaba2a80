"""Entities that do not tick get their row in a new row schema, in both stores."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Engine

from pipelines.kafka.run import Run
from registry import catalog as recorded
from registry.database.engine import connect
from registry.formats.row import ValueStatus
from tests.support.carried import (
    HOMES,
    SYMBOLS,
    Kind,
    carried_rows,
    carry,
    log_of,
    opened_stores,
    replayed,
    rows_in_postgres,
    rows_in_redis,
    unfinished,
    values_of,
    worker,
)
from tests.support.followers import with_means
from tests.support.logs import TOPIC_ID, runs
from tests.support.rebuilds import Stores
from tests.support.seeds import seeds
from tests.support.sinks import ticks


@pytest.fixture
def kind() -> Kind:
    return "online"


@pytest.fixture
def stores(request: pytest.FixtureRequest, kind: Kind, postgres_database: str) -> Iterator[Stores]:
    with opened_stores(request, kind, postgres_database) as made:
        yield made


@pytest.fixture
def engine(stores: Stores) -> Iterator[Engine]:
    engine = connect(stores.postgres)
    yield engine
    engine.dispose()


@pytest.mark.parametrize("seed", seeds(1, 8))
@pytest.mark.parametrize("kind", ["online", "offline", "cluster"])
def test_rollouts_at_random(stores: Stores, engine: Engine, kind: Kind, seed: int) -> None:
    """Two workers, which see what is recorded at moments of their own, carry rows over meanwhile.

    One that is killed leaves what it did half done; one that lost its partitions goes on with it.
    """
    chance = random.Random(seed)
    logs = {partition: log_of(partition, chance) for partition in SYMBOLS}
    left = {partition: list(log) for partition, log in logs.items()}
    workers = [worker(stores, engine, kind) for _ in range(2)]
    carrying: list[Generator[int, None, None] | None] = [None, None]
    owner, windows = {0: 0, 1: 1}, [2]
    schemas, origins = defaultdict[str, list[int]](list), defaultdict[str, list[int]](list)
    while any(left.values()):
        number = chance.randrange(2)
        match chance.randrange(9):
            case 0 if len(windows) < 6:
                windows.append(windows[-1] + 1)
                with_means(engine, *windows)
            case 1:
                workers[number].following.look()
            case 2:
                workers[number], carrying[number] = worker(stores, engine, kind), None
            case 3:
                owner = {partition: chance.randrange(2) for partition in SYMBOLS}
                for one in workers:
                    one.work.forget()
            case 4 | 5 | 6:
                for _ in range(chance.randrange(4)):
                    rows = carried_rows(stores, kind, chance.choice([1, 2, 100]))
                    pieces = carrying[number] or rows.carry(
                        workers[number].work.computation, list(HOMES.values())
                    )
                    carrying[number] = None if next(pieces, None) is None else pieces
            case _:
                partition = chance.choice([p for p, log in left.items() if log])
                run = left[partition].pop(0)
                workers[owner[partition]].take(run, ahead=chance.random() < 0.5)
        if kind != "offline":
            for symbol, row in rows_in_redis(stores).items():
                schemas[symbol].append(row.schema_id)
                origins[symbol].append(row.origin.offset)
    catalog = with_means(engine, *windows, windows[-1] + 1)
    newest = catalog.writing["price"]
    assert unfinished(stores, kind, catalog) == [0, 1]
    assert carry(stores, kind, catalog) == 10
    assert unfinished(stores, kind, catalog) == []
    assert carry(stores, kind, catalog) == 0
    if kind == "offline":
        assert_rows_in_postgres(stores, engine, logs)
        return
    found = rows_in_redis(stores)
    for symbol, row in found.items():
        assert schemas[symbol] == sorted(schemas[symbol])
        assert origins[symbol] == sorted(origins[symbol])
        assert row.schema_id == newest
    expected = replayed(stores, engine, logs)
    assert len(found) == 10
    for row in found.values():
        values = values_of(catalog, row.schema_id, row.values, row.status)
        assert values == expected[row.origin.partition, row.origin.offset][1]


def assert_rows_in_postgres(
    stores: Stores, engine: Engine, logs: Mapping[int, Sequence[Run]]
) -> None:
    """One row a tick and row schema, as a replay has them; the newest ones in the newest schema."""
    catalog = recorded.load(engine)
    rows = rows_in_postgres(stores)
    assert len({row[:4] for row in rows}) == len(rows)
    last = {row[0]: row for row in rows}  # the one of an entity that comes last
    assert len(last) == 10
    assert {row[3] for row in last.values()} == {catalog.writing["price"]}
    for symbol in last:
        ids = [row[3] for row in rows if row[0] == symbol]
        assert ids == sorted(ids)
    expected = replayed(stores, engine, logs)
    assert {row[1:3] for row in rows} == expected.keys()
    for row in rows:
        tick, values = expected[row[1:3]]
        assert row[4] == tick
        assert values_of(catalog, row[3], *row[5:]).items() <= values.items()


@pytest.mark.parametrize("kind", ["online", "offline", "cluster"])
def test_only_what_belongs_to_a_partition_is_carried_over(
    stores: Stores, engine: Engine, kind: Kind
) -> None:
    chance, work = random.Random(1), worker(stores, engine, kind)
    for partition in SYMBOLS:
        for run in log_of(partition, chance):
            work.take(run, ahead=False)
    catalog = with_means(engine, 7)
    assert carry(stores, kind, catalog, 1) == 5
    assert unfinished(stores, kind, catalog) == [0]
    assert carry(stores, kind, catalog, 0) == 5
    assert unfinished(stores, kind, catalog) == []


@pytest.mark.parametrize("kind", ["online", "offline"])
def test_a_window_that_is_longer_than_what_there_is_is_warming(
    stores: Stores, engine: Engine, kind: Kind
) -> None:
    (run,) = runs(ticks(["A"], 30), ())
    worker(stores, engine, kind).take(run, ahead=False)
    catalog = with_means(engine, 30, 31)
    assert carry(stores, kind, catalog, 0) == 1
    if kind == "online":
        row = rows_in_redis(stores)["A"]
        values = values_of(catalog, row.schema_id, row.values, row.status)
    else:
        row = rows_in_postgres(stores)[-1]
        values = values_of(catalog, row[3], *row[5:])
    prices = [1.0 + i % 7 for i in range(30)]
    assert values["mean_30@1.0.0"] == ((sum(prices) / 30).hex(), ValueStatus.OK)
    assert values["mean_31@1.0.0"] == ("nan", ValueStatus.WARMING)


@pytest.mark.parametrize("kind", ["online", "offline"])
def test_entities_of_an_incarnation_that_is_over_are_partition_0s(
    stores: Stores, engine: Engine, kind: Kind
) -> None:
    (run,) = runs(ticks(["X"], 40), ())
    worker(stores, engine, kind).take(
        replace(run, partition=1, topic_id=bytes(reversed(TOPIC_ID))), ahead=False
    )
    catalog = with_means(engine, 7)
    assert carry(stores, kind, catalog, 1) == 0
    assert carry(stores, kind, catalog, 0) == 1


@pytest.mark.parametrize("kind", ["offline"])
def test_a_replay_finds_the_same_bits(stores: Stores, engine: Engine, kind: Kind) -> None:
    """It compares each row that is there, absent values too."""
    work, log = worker(stores, engine, kind), log_of(0, random.Random(1))
    for run in log:
        work.take(run, ahead=False)
    catalog = with_means(engine, 3, 200)
    assert carry(stores, kind, catalog, 0) == 5

    def in_the_newest() -> list[tuple[Any, ...]]:
        rows = [row for row in rows_in_postgres(stores) if row[3] == catalog.writing["price"]]
        return [(row[:5], values_of(catalog, row[3], *row[5:])) for row in rows]

    carried = in_the_newest()
    stores.execute("DELETE FROM tickwell.watermarks")
    again = worker(stores, engine, kind)
    for run in log:
        again.take(run, ahead=False)
    rows = in_the_newest()
    assert len(rows) == log[-1].next_offset
    assert [row for row in rows if row in carried] == carried
