"""Entities that do not tick get their row in a new row schema, in both stores."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from threading import Event, Thread
from typing import Any, Literal

import pytest
from sqlalchemy import Engine

from pipelines.errors import PartitionHeld
from pipelines.kafka.run import Run
from pipelines.live.materializer import Materializer
from pipelines.stores.carried_rows import CarriedRows, Home
from pipelines.stores.postgres.carried_rows import CarriedOfflineRows
from pipelines.stores.postgres.offline_sink import OfflineSink
from pipelines.stores.postgres.row_copy import copy_rows
from pipelines.stores.redis import scripts
from pipelines.stores.redis.carried_rows import CarriedOnlineRows
from registry import catalog as recorded
from registry.database.engine import connect
from registry.definitions import Catalog
from registry.formats.redis_keys import carried_key
from registry.formats.row import ValueStatus, unpack
from tests.support.cluster import Cluster
from tests.support.followers import Follower, compute, with_means
from tests.support.logs import TOPIC_ID, runs
from tests.support.pipeline import wait_for
from tests.support.rebuilds import TOPIC, Stores, quiet
from tests.support.shipped import SOURCE
from tests.support.sinks import GO_ON, query, ticks
from tests.support.stored import stored_row

SYMBOLS = {0: ["A", "B", "C", "D", "E"], 1: ["V", "W", "X", "Y", "Z"]}
"""The entities of each partition."""

HOMES = {partition: Home("ticks.price", TOPIC_ID, partition) for partition in SYMBOLS}

Kind = Literal["online", "offline", "cluster"]


@pytest.fixture
def kind() -> Kind:
    return "online"


@pytest.fixture
def stores(request: pytest.FixtureRequest, kind: Kind, postgres_database: str) -> Iterator[Stores]:
    """A cluster is started only for the tests of one."""
    is_cluster = kind == "cluster"
    name = "three" if is_cluster else "redis_database"
    service: Cluster | str = request.getfixturevalue(name)
    url = service.url if isinstance(service, Cluster) else service
    with ExitStack() as stack:
        made = Stores(url, postgres_database, stack, cluster=is_cluster)
        made.flush()
        yield made


@pytest.fixture
def engine(stores: Stores) -> Iterator[Engine]:
    engine = connect(stores.postgres)
    yield engine
    engine.dispose()


def worker(stores: Stores, engine: Engine, kind: Kind) -> Follower:
    offline = kind == "offline"
    return Follower(engine, stores.keep(OfflineSink(stores.postgres)) if offline else stores.sink())


def carried_rows(stores: Stores, kind: Kind, a_piece: int = 1) -> CarriedRows:
    """Few entities a piece, so that much can happen between two."""
    if kind == "offline":
        return stores.keep(CarriedOfflineRows(stores.postgres, entities_a_piece=a_piece))
    redis = stores.redis()
    redis.entities_a_call = a_piece
    return CarriedOnlineRows(redis)


def carry(stores: Stores, kind: Kind, catalog: Catalog, *partitions: int) -> int:
    """Carry all rows over; returns how many were written."""
    homes = [HOMES[partition] for partition in partitions or SYMBOLS]
    return sum(carried_rows(stores, kind).carry(compute(catalog, "price"), homes))


def unfinished(stores: Stores, kind: Kind, catalog: Catalog) -> list[int]:
    schema = catalog.schemas[catalog.writing["price"]]
    homes = carried_rows(stores, kind).unfinished(schema, list(HOMES.values()))
    return [home.partition for home in homes]


def log_of(partition: int, chance: random.Random, n: int = 150) -> list[Run]:
    """Runs in which some entities do not tick any more after a while."""
    symbols = SYMBOLS[partition]
    records = [
        record
        for i, record in enumerate(ticks(symbols, n))
        if i % len(symbols) < len(symbols) - 4 * i // n
    ]
    records = [replace(record, offset=number) for number, record in enumerate(records)]
    cuts = sorted(chance.sample(range(1, len(records)), 12))
    return [replace(run, partition=partition) for run in runs(records, cuts)]


Values = dict[str, tuple[str, int]]
"""Bits and status of features, by their versions."""


def values_of(catalog: Catalog, schema_id: int, features: Any, status: Any) -> Values:
    names = catalog.schemas[schema_id].features
    bits = [float(value).hex() for value in features]
    return dict(zip(names, zip(bits, bytes(status), strict=True), strict=True))


def rows_in_postgres(stores: Stores) -> list[tuple[Any, ...]]:
    """Entity, origin, row schema, the rest of the tick; features and status."""
    return query(
        stores.postgres,
        'SELECT entity, partition, "offset", schema_id, (event_time, sequence, tick_time, seq,'
        " seq_text, op, array_send(fields), known_at, topic_id, index, revision)::text, features,"
        ' status FROM tickwell.feature_rows ORDER BY partition, "offset", schema_id',
    )


def rows_in_redis(stores: Stores) -> dict[str, Any]:
    with stores.client() as client:
        found = {
            symbol: stored_row(client, "price", symbol)
            for symbols in SYMBOLS.values()
            for symbol in symbols
        }
    return {symbol: unpack(row) for symbol, row in found.items() if row is not None}


def replayed(
    stores: Stores, engine: Engine, logs: Mapping[int, Sequence[Run]]
) -> dict[tuple[int, int], tuple[str, Values]]:
    """The tick and the values at each origin by a worker that knew all features from the start."""
    stores.execute(
        "TRUNCATE tickwell.feature_rows, tickwell.entities, tickwell.watermarks,"
        " tickwell.carried_over"
    )
    catalog = recorded.load(engine)
    alone = Materializer(compute(catalog, "price"), stores.keep(OfflineSink(stores.postgres)))
    for log in logs.values():
        for run in log:
            alone.materialize(run, GO_ON)
    return {
        row[1:3]: (row[4], values_of(catalog, row[3], *row[5:])) for row in rows_in_postgres(stores)
    }


@pytest.mark.parametrize("seed", range(8))
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
                    pieces = carrying[number] or carried_rows(stores, kind).carry(
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
        rows = rows_in_postgres(stores)
        assert len({row[:4] for row in rows}) == len(rows)
        last = {row[0]: row for row in rows}  # the one of an entity that comes last
        assert len(last) == 10
        assert {row[3] for row in last.values()} == {newest}
        for symbol in last:
            ids = [row[3] for row in rows if row[0] == symbol]
            assert ids == sorted(ids)
        expected = replayed(stores, engine, logs)
        assert {row[1:3] for row in rows} == expected.keys()
        for row in rows:
            tick, values = expected[row[1:3]]
            assert row[4] == tick
            assert values_of(catalog, row[3], *row[5:]).items() <= values.items()
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


@pytest.mark.parametrize("kind", ["online", "cluster"])
def test_a_tick_that_comes_meanwhile_wins(stores: Stores, engine: Engine, kind: Kind) -> None:
    """It is stored between the windows being loaded and the row being written."""
    first, second = runs(ticks(["A"], 40), (30,))
    work = worker(stores, engine, kind)
    work.take(first, ahead=False)
    catalog = with_means(engine, 7)
    redis: Any = stores.redis()
    run, left = redis.run, [second]

    def meanwhile(script: str, *arguments: Any) -> Any:
        if script == scripts.CARRY_OVER and left:
            work.following.look()
            work.take(left.pop(), ahead=False)
        return run(script, *arguments)

    redis.run = meanwhile
    rows = CarriedOnlineRows(redis)
    assert sum(rows.carry(compute(catalog, "price"), [HOMES[0]])) == 0
    row = rows_in_redis(stores)["A"]
    assert (row.origin.offset, row.schema_id) == (39, catalog.writing["price"])


@pytest.mark.parametrize("kind", ["online"])
def test_a_run_in_an_older_row_schema_is_refused_from_the_beginning(
    stores: Stores, engine: Engine, kind: Kind
) -> None:
    """The entity that it would make is seen by nobody who carries rows over."""
    first, second = runs(ticks(["A", "B"], 40), (20,))
    work = worker(stores, engine, kind)
    work.take(first, ahead=False)
    catalog = with_means(engine, 7)
    pieces = carried_rows(stores, kind).carry(compute(catalog, "price"), [HOMES[0]])
    next(pieces)
    work.take(second, ahead=False)
    assert work.work.schema.id == catalog.writing["price"]
    assert sum(pieces) == 0


@pytest.mark.parametrize("how", ["emptied", "another", "restored"])
def test_it_is_not_finished_where_rows_may_have_changed(
    stores: Stores, engine: Engine, how: str
) -> None:
    """Redis was emptied, another process began, or entities were restored from Postgres."""
    (run,) = runs(ticks(["A", "B"], 40), ())
    for kind in ("online", "offline"):
        worker(stores, engine, kind).take(run, ahead=False)
    catalog = with_means(engine, 7)
    pieces = carried_rows(stores, "online").carry(compute(catalog, "price"), [HOMES[0]])
    next(pieces)
    match how:
        case "emptied":
            stores.flush()
        case "another":
            next(carried_rows(stores, "online").carry(compute(catalog, "price"), [HOMES[0]]))
        case _:
            stores.forget("A")
            stores.rebuild().refill(SOURCE, TOPIC, quiet)
    for _ in pieces:
        pass
    assert 0 in unfinished(stores, "online", catalog)


def test_a_newer_note_stays(stores: Stores, engine: Engine) -> None:
    """A worker that has not seen a newer row schema does not say that the older one is the last."""
    before = with_means(engine, 7)
    after = with_means(engine, 7, 8)
    carry(stores, "online", after, 0)
    carry(stores, "online", before, 0)
    with stores.client() as client:
        assert int(client.get(carried_key(TOPIC_ID, 0))) == after.writing["price"]


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


@pytest.mark.parametrize("kind", ["online", "cluster"])
def test_a_newer_row_that_another_worker_has_written_meanwhile_stays(
    stores: Stores, engine: Engine, kind: Kind
) -> None:
    (run,) = runs(ticks(["A"], 30), ())
    worker(stores, engine, kind).take(run, ahead=False)
    before, after = with_means(engine, 7), with_means(engine, 7, 8)
    redis: Any = stores.redis()
    call, calls = redis.run, list[int]()

    def meanwhile(script: str, *arguments: Any) -> Any:
        if script == scripts.CARRY_OVER and not calls:
            calls.append(carry(stores, kind, after, 0))
        return call(script, *arguments)

    redis.run = meanwhile
    for _ in CarriedOnlineRows(redis).carry(compute(before, "price"), [HOMES[0]]):
        pass
    assert calls == [1]
    assert rows_in_redis(stores)["A"].schema_id == after.writing["price"]


@pytest.mark.parametrize("kind", ["offline"])
def test_a_run_that_had_begun_before_is_waited_for(
    stores: Stores, engine: Engine, kind: Kind
) -> None:
    """It is stored in the older row schema, with an entity that nobody has looked at yet."""
    first, second = runs([*ticks(["B"], 20), *ticks(["A"], 10, 20)], (20,))
    copying, go_on = Event(), Event()

    def copy(cursor: Any, rows: memoryview) -> None:
        if copying.is_set():
            go_on.wait(60)
        copy_rows(cursor, rows)

    work = Follower(engine, stores.keep(OfflineSink(stores.postgres, copy=copy)))
    work.take(first, ahead=False)
    copying.set()
    storing = Thread(target=work.take, args=(second, False))
    storing.start()
    held = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1"
    wait_for("the run is being stored", lambda: query(stores.postgres, held))
    catalog = with_means(engine, 7)
    rows = carried_rows(stores, kind)

    def carry_on() -> None:
        while True:
            try:
                for _ in rows.carry(compute(catalog, "price"), [HOMES[0]]):
                    pass
            except PartitionHeld:  # the machine is slow
                continue
            return

    carrying = Thread(target=carry_on)
    carrying.start()
    carrying.join(0.5)
    go_on.set()
    for thread in (storing, carrying):
        thread.join(60)
    assert unfinished(stores, kind, catalog) == [1]
    newest = {row[0]: row[3] for row in rows_in_postgres(stores)}
    assert newest == dict.fromkeys("AB", catalog.writing["price"])


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
