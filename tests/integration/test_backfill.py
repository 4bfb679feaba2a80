"""A version's values of ticks that were stored without it."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace

import msgspec
import pytest
from sqlalchemy import Engine

from pipelines.compute.run_computation import RunComputation
from pipelines.kafka.run import Run
from pipelines.kafka.topics import Topic
from pipelines.live.materializer import Materializer
from pipelines.stores.postgres.offline_sink import OfflineSink
from registry.database.engine import connect
from registry.definitions import Catalog, FeatureVersion
from registry.features_file import read
from registry.language.program import compile_program
from registry.lifecycle.recording import record
from registry.source_rules import SourceRules
from tests.oracle.messages import Record
from tests.support.backfills import Tick, backfill, blocks, rows
from tests.support.logs import NOW_MS, TOPIC_ID, runs
from tests.support.rebuilds import Stores
from tests.support.sinks import GO_ON

ANEW = bytes(reversed(TOPIC_ID))
EXPRESSIONS = {
    "price": ("last(price)", "mean(size, 3)", "mean(price, 6)", "stddev(log_return(price), 5)"),
    "position": ("last(quantity)", "mean(quantity, 3)"),
}


@pytest.fixture
def stores(redis_database: str, postgres_database: str) -> Iterator[Stores]:
    with ExitStack() as stack:
        yield Stores(redis_database, postgres_database, stack)


@pytest.fixture
def engine(stores: Stores) -> Iterator[Engine]:
    engine = connect(stores.postgres)
    yield engine
    engine.dispose()


def given(engine: Engine, *features: FeatureVersion) -> Catalog:
    """What is recorded once there are such features as well."""
    definitions = read()
    more = msgspec.structs.replace(definitions, features=(*definitions.features, *features))
    return record(engine, more, "test")


def worker(stores: Stores, catalog: Catalog, source: str, topic_id: bytes) -> Materializer:
    """A worker of the newest row schema."""
    rules = SourceRules.of(catalog, source)
    schema = catalog.schemas[catalog.writing[source]]
    computation = RunComputation(rules, schema, compile_program(catalog, schema), 1000)
    sink = stores.keep(OfflineSink(stores.postgres))
    sink.settle(Topic(f"ticks.{source}", topic_id, 2))
    return Materializer(computation, sink)


def log_of(
    source: str, partition: int, topic_id: bytes, chance: random.Random, n: int = 120
) -> list[Run]:
    """Ticks late and at one time, resets and closes, without a field, doubled and broken."""
    begin, records = NOW_MS + (10_000 if topic_id == ANEW else 0), []
    for offset in range(n):
        symbol = f"{'ABCDE'[chance.randrange(5)]}{partition}"
        made = {"symbol": symbol, "ts": begin + offset // 4 - chance.choice([0, 0, 1, 900, 1500])}
        op = chance.choice(["trade"] * 12 + ["reset", "reset"] + ["close"] * 2)
        if source == "position":
            made |= {"portfolio": f"P{partition}", "op": op}
            if op == "trade":
                made["quantity"] = chance.choice([0, -0.0, chance.uniform(-5, 5)])
        else:
            made |= {"price": chance.uniform(1, 2), "op": "trade" if op == "close" else op}
            if chance.random() < 0.7:
                made["size"] = chance.randrange(100)
        if chance.random() < 0.5:
            made["seq"] = chance.randrange(40)
        value = b"{" if chance.random() < 0.05 else json.dumps(made).encode()
        key = made["portfolio"] if source == "position" else symbol
        at = begin + offset // 4
        records.append(Record(f"ticks.{source}", partition, offset, at, key.encode(), value))
    cuts = sorted(chance.sample(range(1, n), 10))
    log = runs(records, cuts)
    return [
        replace(r, partition=partition, topic=f"ticks.{source}", topic_id=topic_id) for r in log
    ]


def store(stores: Stores, catalog: Catalog, source: str, log: Sequence[Run]) -> None:
    for topic_id in (TOPIC_ID, ANEW):
        part = [run for run in log if run.topic_id == topic_id]
        if part:
            work = worker(stores, catalog, source, topic_id)
            for run in part:
                work.materialize(run, GO_ON)


def replayed(
    stores: Stores, catalog: Catalog, source: str, log: Sequence[Run], ref: str
) -> dict[Tick, tuple[str, int]]:
    """The values of a version in rows of one row schema that has it from the beginning."""
    stores.execute(
        "TRUNCATE tickwell.feature_rows, tickwell.entities, tickwell.watermarks, tickwell.topics"
    )
    store(stores, catalog, source, log)
    return dict(rows(stores.postgres, source, ref))


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("source", ["price", "position"])
def test_its_bits_are_those_of_a_replay(
    stores: Stores, engine: Engine, source: str, seed: int
) -> None:
    """Row schemas that come and go, a topic that is made anew, stops: each tick has its value."""
    chance = random.Random(seed)
    log = [
        run
        for topic_id in (TOPIC_ID, ANEW)[: chance.choice([1, 2])]
        for pair in zip(*(log_of(source, p, topic_id, chance) for p in (0, 1)), strict=True)
        for run in pair
    ]
    catalog, begin = given(engine), 0
    last = chance.randrange(len(log) + 1)
    for number, cut in enumerate(sorted(chance.choices(range(last + 1), k=2))):
        store(stores, catalog, source, log[begin:cut])
        begin, field = cut, "price" if source == "price" else "quantity"
        before = [one for one in catalog.features.values() if one.name.startswith("more_")]
        more = FeatureVersion(
            f"more_{number}", "1.0.0", _key(source), f"mean({field}, 4)", source=source
        )
        catalog = given(engine, *before, more)
    store(stores, catalog, source, log[begin:last])
    ref, expression = "tried@1.0.0", chance.choice(EXPRESSIONS[source])
    before = [one for one in catalog.features.values() if one.name.startswith("more_")]
    tried = FeatureVersion("tried", "1.0.0", _key(source), expression, source=source)
    catalog = given(engine, *before, tried)
    if chance.random() < 0.5:
        store(stores, catalog, source, log[last:])
        last = len(log)
    if last:
        while not backfill(
            engine, stores.postgres, ref, chance.choice([1, 7, 100, 1000]), chance.randrange(1, 9)
        ).finished:
            pass
    found, live = blocks(stores.postgres, ref), dict(rows(stores.postgres, source, ref))
    store(stores, catalog, source, log[last:])
    live |= dict(rows(stores.postgres, source, ref))
    expected = replayed(stores, catalog, source, log, ref)
    assert not found.keys() & live.keys()
    assert found | live == expected


def _key(source: str) -> tuple[str, ...]:
    return ("symbol",) if source == "price" else ("portfolio", "symbol")
