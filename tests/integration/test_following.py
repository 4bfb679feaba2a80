"""Features that are recorded while workers work: nobody restarts, and nothing steps back."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from threading import Event
from typing import Any

import msgspec
import psycopg2
import pytest
from sqlalchemy import Engine
from starlette.testclient import TestClient

from pipelines.errors import SchemaBehind, Stopped
from pipelines.kafka.run import Run
from pipelines.live.following import Following
from pipelines.live.materializer import Materializer
from pipelines.stores.postgres.offline_sink import OfflineSink
from pipelines.stores.sink import Sink
from registry import catalog as recorded
from registry.api_keys import Scope
from registry.database.engine import connect
from registry.definitions import Catalog, RowSchema
from registry.features_file import read
from registry.formats.row import unpack
from registry.lifecycle import api_keys
from registry.lifecycle.activation import move_name
from registry.lifecycle.audit import By
from registry.lifecycle.changing import changing
from registry.lifecycle.recording import record
from registry.lifecycle.registry import Registry
from registry.serial import serial
from tests.support.followers import Follower, compute, mean_of, with_means
from tests.support.logs import runs
from tests.support.pipeline import wait_for
from tests.support.rebuilds import Stores
from tests.support.seeds import seeds
from tests.support.served import online, tick
from tests.support.sinks import GO_ON, ticks, worker
from tests.support.stored import stored_row

SYMBOLS = {0: ["A", "B", "C"], 1: ["X", "Y"]}
"""The entities of each partition."""


@pytest.fixture
def engine(stores: Stores) -> Iterator[Engine]:
    engine = connect(stores.postgres)
    yield engine
    engine.dispose()


def log_of(partition: int, n: int, sizes: random.Random) -> list[Run]:
    records = ticks(SYMBOLS[partition], n)
    cuts = sorted(sizes.sample(range(1, n), 12))
    return [replace(run, partition=partition) for run in runs(records, cuts)]


def rows_of(stores: Stores) -> list[tuple[Any, ...]]:
    """Rows by partition and offset: entity, schema, event time, sequence, features."""
    with psycopg2.connect(stores.postgres) as connection, connection.cursor() as cursor:
        cursor.execute(
            'SELECT partition, "offset", entity, schema_id, event_time, sequence, features, status'
            ' FROM tickwell.feature_rows ORDER BY partition, "offset"'
        )
        found = [(*row[:-1], bytes(row[-1])) for row in cursor.fetchall()]
    connection.close()
    return found


def values_of(catalog: Catalog, schema_id: int, features: Any, status: Any) -> dict[str, Any]:
    """Bits and status of each feature of a row."""
    names = catalog.schemas[schema_id].features
    bits = [float(value).hex() for value in features]
    return dict(zip(names, zip(bits, bytes(status), strict=True), strict=True))


def replayed(stores: Stores, engine: Engine, logs: Mapping[int, Sequence[Run]]) -> dict[Any, Any]:
    """The values of each tick by a worker that knew all features that ever were."""
    stores.execute("TRUNCATE tickwell.feature_rows, tickwell.entities, tickwell.watermarks")
    catalog = recorded.load(engine)
    ever = tuple(ref for ref, one in catalog.features.items() if one.source == "price")
    every = RowSchema(max(catalog.schemas) + 1, "price", ever)
    catalog = msgspec.structs.replace(
        catalog,
        schemas=catalog.schemas | {every.id: every},
        writing=catalog.writing | {"price": every.id},
    )
    alone = Materializer(compute(catalog, "price"), stores.keep(OfflineSink(stores.postgres)))
    for log in logs.values():
        for run in log:
            alone.materialize(run, GO_ON)
    return {row[:2]: values_of(catalog, row[3], *row[6:]) for row in rows_of(stores)}


def replace_version(engine: Engine, window: int) -> None:
    """Another version takes the place of a mean's, which leaves the rows."""
    registry, name = Registry(engine, By("ann")), f"mean_{window}"
    registry.create_feature_version(
        name, "2.0.0", {"expression": f"mean(price, {window + 9})"}, "1.0.0"
    )
    with changing(engine, By("ann")) as change:
        move_name(change, name, "2.0.0", "activate")
    registry.deprecate(f"{name}@1.0.0")
    registry.retire(f"{name}@1.0.0")


@pytest.mark.parametrize("seed", seeds(1, 12))
@pytest.mark.parametrize("kind", ["online", "offline"])
def test_rollouts_at_random(stores: Stores, engine: Engine, kind: str, seed: int) -> None:
    """Two workers share two partitions, and see what is recorded at moments of their own."""
    chance = random.Random(seed)

    def sink() -> Sink:
        return stores.sink() if kind == "online" else stores.keep(OfflineSink(stores.postgres))

    def begun() -> Follower:
        return Follower(engine, sink())

    logs = {partition: log_of(partition, 150, chance) for partition in SYMBOLS}
    left = {partition: list(log) for partition, log in logs.items()}
    workers, owner, windows = [begun(), begun()], {0: 0, 1: 1}, [2]
    replaceable: list[int] = []
    online_schemas = defaultdict[str, list[int]](list)
    while any(left.values()):
        match chance.randrange(8):
            case 0 if len(windows) < 6:
                windows.append(windows[-1] + 1)
                with_means(engine, *windows)
                replaceable.append(windows[-1])
            case 7 if replaceable:
                replace_version(engine, replaceable.pop())
            case 1:
                chance.choice(workers).following.look()
            case 2:
                workers[chance.randrange(2)] = begun()
            case 3:  # a rebalance, after which nothing that is cached is valid
                owner = {partition: chance.randrange(2) for partition in SYMBOLS}
                for one in workers:
                    one.work.forget()
            case _:
                partition = chance.choice([p for p, runs in left.items() if runs])
                run = left[partition].pop(0)
                workers[owner[partition]].take(run, ahead=chance.random() < 0.5)
                if kind == "online":
                    with stores.client() as client:
                        for symbol in SYMBOLS[partition]:
                            packed = stored_row(client, "price", symbol)
                            if packed is not None:
                                online_schemas[symbol].append(unpack(packed).schema_id)
    catalog = recorded.load(engine)
    if kind == "online":
        newest = {}
        with stores.client() as client:
            for symbol in [*SYMBOLS[0], *SYMBOLS[1]]:
                row = unpack(stored_row(client, "price", symbol))
                at = (row.origin.partition, row.origin.offset)
                newest[at] = values_of(catalog, row.schema_id, row.values, row.status)
        assert all(ids == sorted(ids) for ids in online_schemas.values())
        expected = replayed(stores, engine, logs)
        found = newest
    else:
        rows = rows_of(stores)
        for partition in SYMBOLS:
            schemas = [row[3] for row in rows if row[0] == partition]
            assert schemas == sorted(schemas), "a tick without a feature after a tick with it"
        found = {row[:2]: values_of(catalog, row[3], *row[6:]) for row in rows}
        assert len(found) == len(rows) == 300
        expected = replayed(stores, engine, logs)
        assert found.keys() == expected.keys()
    for at, values in found.items():
        assert values.items() <= expected[at].items()


def test_a_new_feature_has_its_value_at_the_first_tick(stores: Stores, engine: Engine) -> None:
    first, second = runs(ticks(["A"], 60), (59,))
    follower = Follower(engine, stores.sink())
    follower.take(first, ahead=True)
    catalog = with_means(engine, 7)
    follower.following.look()
    follower.take(second, ahead=True)
    with stores.client() as client:
        row = unpack(stored_row(client, "price", "A"))
    values = values_of(catalog, row.schema_id, row.values, row.status)
    prices = [1.0 + i % 7 for i in range(53, 60)]
    assert values["mean_7@1.0.0"] == ((sum(prices) / 7).hex(), 0)


def test_a_run_that_is_not_stored_yet_is_computed_again(stores: Stores, engine: Engine) -> None:
    """It was computed ahead when nobody had recorded the feature."""
    first, second = runs(ticks(["A", "B"], 60), (30,))
    follower = Follower(engine, stores.sink())
    computed = follower.work.compute_ahead(first)
    assert computed is None  # the sink has just begun
    follower.work.materialize_again(first, GO_ON)
    computed = follower.work.compute_ahead(second)
    assert computed is not None
    with_means(engine, 7)
    follower.following.look()
    assert follower.work.compute_ahead(second) is None
    assert not follower.work.is_current(computed)
    assert follower.work.store(computed) is None


def test_a_worker_that_does_not_follow_is_refused(stores: Stores, engine: Engine) -> None:
    first, second = runs(ticks(["A"], 60), (30,))
    behind = worker(stores.keep(OfflineSink(stores.postgres)))
    behind.materialize(first, GO_ON)
    before = rows_of(stores)
    with_means(engine, 7)
    with pytest.raises(SchemaBehind, match="newer row schema than 1"):
        behind.materialize(second, GO_ON)
    assert repr(rows_of(stores)) == repr(before)  # some values are NaN


def test_a_registry_of_before_is_waited_for(stores: Stores, engine: Engine) -> None:
    """It was restored from an older copy: the store has what it does not know."""
    first, second = runs(ticks(["A"], 60), (30,))
    follower = Follower(engine, stores.sink())
    ahead = Follower(engine, stores.sink())
    with_means(engine, 7)
    ahead.following.look()
    ahead.take(first, ahead=False)
    stores.execute("DELETE FROM tickwell.row_schemas WHERE id > 3")
    stop = Event()
    stop.set()
    with pytest.raises(Stopped):
        follower.work.materialize(second, stop)
    assert "newer row schema than 1" in str(follower.work.retrying)
    assert "restored from an older copy" in str(follower.work.retrying)
    with_means(engine, 7)
    assert follower.work.materialize(second, GO_ON) is not None
    assert follower.work.retrying is None


def test_a_change_that_commits_after_a_later_one_is_seen(stores: Stores, engine: Engine) -> None:
    """A key is made, and a worker looks, while a recording has not committed yet."""
    follower = Follower(engine, stores.sink())
    follower.following.look()
    looked: list[int] = []

    def meanwhile(*_: object) -> list[Any]:
        api_keys.create(engine, "service", {Scope.READ}, "test")
        follower.following.look()
        looked.append(follower.work.schema.id)
        return []

    definitions = read()
    more = msgspec.structs.replace(definitions, features=(*definitions.features, mean_of(7)))
    catalog = record(engine, more, "test", begin=meanwhile)
    follower.following.look()
    assert (looked, follower.work.schema.id) == ([1], catalog.writing["price"])


def test_what_changes_nothing_moves_no_serial(engine: Engine) -> None:
    before = serial(engine)
    with_means(engine)
    assert serial(engine) == before
    with_means(engine, 7)
    after = serial(engine)
    assert before is not None
    assert after is not None
    assert after.number == before.number + 1
    assert after.moved_at > before.moved_at


def test_a_registry_that_does_not_answer_stops_nobody(stores: Stores, engine: Engine) -> None:
    """And what was recorded before it went away is taken over once it is back."""
    first, second = runs(ticks(["A"], 60), (30,))
    away = connect("postgresql://127.0.0.1:1/none")
    follower = Follower(engine, stores.sink())
    following = Following(partial(serial, away), partial(recorded.load, away), compute)
    following.materializers = follower.following.materializers
    following.look()
    follower.take(first, ahead=False)
    with_means(engine, 7)
    following.look()
    assert follower.work.schema.id == 1
    follower.following.look()
    assert follower.work.schema.id > 1
    follower.take(second, ahead=False)


def test_a_server_answers_from_a_row_schema_that_is_new(
    client: TestClient, recorded: Catalog, redis_database: str, postgres_database: str
) -> None:
    """It reads the catalog each second, and a worker may be faster."""
    engine = connect(postgres_database)
    features = ["current_price", "price_sma_5", "portfolio_exposure"]
    try:
        tick(
            redis_database, recorded, "position", [{"portfolio": "P", "symbol": "A", "quantity": 2}]
        )
        for number in range(2, 8):
            catalog = with_means(engine, *range(2, number + 1))
            tick(redis_database, catalog, "price", [{"symbol": "A", "price": number}] * number)
            answer = online(client, "current_price", symbol="A")
            assert (answer["status"], answer["value"]) == ("ok", number)
            entities = [{"symbol": "A"}, {"portfolio": "P"}]
            body = {"features": features, "entities": entities}
            results = client.post("/features/batch", json=body).json()["results"]
            found = [value for result in results for value in result["features"].values()]
            assert [value["status"] for value in found][-1] == "ok"
            assert found[-1]["value"] == 2 * number
            new = online(client, f"mean_{number}", symbol="A")
            assert (new["status"], new["version"]) == ("ok", "1.0.0")
    finally:
        engine.dispose()


def test_it_is_seen_without_a_row(client: TestClient, postgres_database: str) -> None:
    engine = connect(postgres_database)
    with_means(engine, 9)
    engine.dispose()
    wait_for(
        "the catalog was read",
        lambda: client.get("/features/mean_9").status_code == 200,
    )
