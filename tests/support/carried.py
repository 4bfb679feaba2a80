"""Rows that are carried over in the stores of tests, and what the stores then hold."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, Literal

import pytest
from sqlalchemy import Engine

from pipelines.kafka.run import Run
from pipelines.live.materializer import Materializer
from pipelines.stores.carried_rows import CarriedRows, Home
from pipelines.stores.postgres.carried_rows import CarriedOfflineRows
from pipelines.stores.postgres.offline_sink import OfflineSink
from pipelines.stores.redis.carried_rows import CarriedOnlineRows
from registry import catalog as recorded
from registry.definitions import Catalog
from registry.formats.row import unpack
from tests.support.cluster import Cluster
from tests.support.followers import Follower, compute
from tests.support.logs import TOPIC_ID, runs
from tests.support.rebuilds import Stores
from tests.support.sinks import GO_ON, query, ticks
from tests.support.stored import stored_row

SYMBOLS = {0: ["A", "B", "C", "D", "E"], 1: ["V", "W", "X", "Y", "Z"]}
"""The entities of each partition."""

HOMES = {partition: Home("ticks.price", TOPIC_ID, partition) for partition in SYMBOLS}

Kind = Literal["online", "offline", "cluster"]


@contextmanager
def opened_stores(request: pytest.FixtureRequest, kind: Kind, postgres: str) -> Iterator[Stores]:
    """Stores for a test of one kind; a cluster is started only for that of one."""
    is_cluster = kind == "cluster"
    service: Cluster | str = request.getfixturevalue("three" if is_cluster else "redis_database")
    url = service.url if isinstance(service, Cluster) else service
    with ExitStack() as stack:
        made = Stores(url, postgres, stack, cluster=is_cluster)
        made.flush()
        yield made


def worker(stores: Stores, engine: Engine, kind: Kind) -> Follower:
    offline = kind == "offline"
    return Follower(engine, stores.keep(OfflineSink(stores.postgres)) if offline else stores.sink())


def carried_rows(stores: Stores, kind: Kind, a_piece: int = 1) -> CarriedRows:
    """With few entities a piece much can happen between two."""
    if kind == "offline":
        return stores.keep(CarriedOfflineRows(stores.postgres, entities_a_piece=a_piece))
    redis = stores.redis()
    redis.entities_a_call = a_piece
    return CarriedOnlineRows(redis)


def carry(stores: Stores, kind: Kind, catalog: Catalog, *partitions: int) -> int:
    """Carry all rows over, those of several entities together; returns how many were written."""
    homes = [HOMES[partition] for partition in partitions or SYMBOLS]
    return sum(carried_rows(stores, kind, 3).carry(compute(catalog, "price"), homes))


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
