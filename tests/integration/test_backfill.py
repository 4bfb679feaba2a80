"""A version's values of ticks that were stored without it."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import msgspec
import pytest
from sqlalchemy import Engine

from pipelines.compute.run_computation import RunComputation
from pipelines.kafka.run import Run
from pipelines.kafka.topics import Topic
from pipelines.live.materializer import Materializer
from pipelines.stores.postgres.offline_sink import OfflineSink
from registry.database.engine import connect
from registry.database.views import create_views
from registry.definitions import Catalog, FeatureVersion
from registry.features_file import read
from registry.formats.row import ValueStatus
from registry.language.program import compile_program
from registry.lifecycle.audit import By
from registry.lifecycle.recording import record
from registry.lifecycle.registry import Registry
from registry.source_rules import SourceRules
from tests.oracle.messages import Record
from tests.support.backfills import Tick, backfill, blocks, rows
from tests.support.carried import carry
from tests.support.logs import NOW_MS, TOPIC_ID, runs
from tests.support.rebuilds import Stores
from tests.support.seeds import seeds
from tests.support.sinks import GO_ON, query

MADE = "SELECT xmin::text FROM pg_rewrite WHERE ev_class = 'features.price'::regclass"
"""Which transaction has made the view."""

ANEW = bytes(reversed(TOPIC_ID))
EXPRESSIONS = {
    "price": ("last(price)", "mean(size, 3)", "mean(price, 6)", "stddev(log_return(price), 5)"),
    "position": ("last(quantity)", "mean(quantity, 3)"),
}


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


def in_the_view(stores: Stores, engine: Engine, source: str, name: str) -> dict[Tick, str | None]:
    """What people read of the active version: each tick once, its bits where it has a value."""
    create_views(engine)
    found = query(
        stores.postgres, f"SELECT entity, event_time, sequence, {name} FROM features.{source}"
    )
    assert len({row[:3] for row in found}) == len(found)
    return {Tick(*tick): None if v is None else float(v).hex() for *tick, v in found}


@pytest.mark.parametrize("seed", seeds(1, 12))
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
    shown = in_the_view(stores, engine, source, "tried")
    expected = replayed(stores, catalog, source, log, ref)
    assert shown == {
        tick: bits if status == ValueStatus.OK else None
        for tick, (bits, status) in expected.items()
    }
    assert not found.keys() & live.keys()
    assert found | live == expected


def _key(source: str) -> tuple[str, ...]:
    return ("symbol",) if source == "price" else ("portfolio", "symbol")


def test_an_activation_moves_a_view_to_what_was_backfilled_and_back(
    stores: Stores, engine: Engine
) -> None:
    """No view is replaced for it, so nobody who reads one is waited for."""
    catalog = given(engine)
    log = log_of("price", 0, TOPIC_ID, random.Random(3))
    store(stores, catalog, "price", log)
    registry = Registry(engine, By("ann"))
    registry.create_feature_version(
        "price_sma_5", "2.0.0", {"expression": "mean(price, 6)"}, "1.0.0"
    )
    before = in_the_view(stores, engine, "price", "price_sma_5")
    assert backfill(engine, stores.postgres, "price_sma_5@2.0.0").finished
    assert in_the_view(stores, engine, "price", "price_sma_5") == before
    carry(stores, "offline", registry.catalog())
    made = query(stores.postgres, MADE)
    registry.activate("price_sma_5@2.0.0")
    shown = in_the_view(stores, engine, "price", "price_sma_5")
    stored = blocks(stores.postgres, "price_sma_5@2.0.0")
    assert shown == {tick: bits if status == 0 else None for tick, (bits, status) in stored.items()}
    assert shown != before
    registry.roll_back("price_sma_5")
    assert in_the_view(stores, engine, "price", "price_sma_5") == before
    assert query(stores.postgres, MADE) == made


def test_a_view_shows_no_backfill_of_a_version_that_is_not_active(
    stores: Stores, engine: Engine
) -> None:
    """Rows that lack the active version, and blocks of another one for all of them."""
    store(stores, given(engine), "price", log_of("price", 0, TOPIC_ID, random.Random(3)))
    registry = Registry(engine, By("ann"))
    tried = FeatureVersion("tried", "1.0.0", ("symbol",), "mean(price, 3)", source="price")
    given(engine, tried)
    registry.create_feature_version("tried", "2.0.0", {"expression": "mean(price, 4)"}, "1.0.0")
    assert backfill(engine, stores.postgres, "tried@2.0.0").finished
    assert set(in_the_view(stores, engine, "price", "tried").values()) == {None}
    assert backfill(engine, stores.postgres, "tried@1.0.0").finished
    shown = in_the_view(stores, engine, "price", "tried")
    stored = blocks(stores.postgres, tried.ref)
    assert shown == {tick: bits if status == 0 else None for tick, (bits, status) in stored.items()}
    assert blocks(stores.postgres, "tried@2.0.0") != stored


def test_a_tick_beside_those_of_a_block_has_no_value_of_it(stores: Stores, engine: Engine) -> None:
    catalog = given(engine)
    store(stores, catalog, "price", log_of("price", 0, TOPIC_ID, random.Random(5)))
    ref = "price_sma_5@2.0.0"
    registry = Registry(engine, By("ann"))
    registry.create_feature_version("price_sma_5", "2.0.0", {"expression": "last(price)"}, "1.0.0")
    backfill(engine, stores.postgres, ref)
    carry(stores, "offline", registry.catalog())
    registry.activate(ref)
    stores.execute("DELETE FROM tickwell.feature_rows WHERE schema_id > 1")
    stores.execute(
        "INSERT INTO tickwell.feature_rows SELECT schema_id, entity, event_time + moved.by,"
        " sequence + moved.more, revision, tick_time, NULL, op, fields, features, status, known_at,"
        ' topic_id, partition, "offset", index, NULL FROM tickwell.feature_rows'
        " CROSS JOIN (VALUES (1, 0), (0, 1), (1000000000000000, 0)) AS moved (by, more)"
        " ON CONFLICT DO NOTHING"
    )
    known = blocks(stores.postgres, ref)
    shown = in_the_view(stores, engine, "price", "price_sma_5")
    assert len(shown) > 3 * len(known)
    assert {tick for tick, value in shown.items() if value is not None} <= known.keys()


def test_ticks_that_are_far_apart_to_the_nanosecond(stores: Stores, engine: Engine) -> None:
    """A block of steps that need 64 bits, between blocks of steps that need 32."""
    records, at = [], NOW_MS * 10**6
    for offset in range(400):
        at += 10**12 + 1 if 152 <= offset < 300 else 1
        moment = datetime.fromtimestamp(at // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        tick = {"symbol": "A", "price": offset, "ts": f"{moment}.{at % 10**9:09}Z"}
        value = json.dumps(tick).encode()
        records.append(Record("ticks.price", 0, offset, at // 10**6, b"A", value))
    log = list(runs(records, [100]))
    store(stores, given(engine), "price", log)
    tried = FeatureVersion("tried", "1.0.0", ("symbol",), "mean(price, 3)", source="price")
    catalog = given(engine, tried)
    assert backfill(engine, stores.postgres, tried.ref).ticks == 400
    kinds = "SELECT count(steps), count(long_steps) FROM tickwell.backfilled_blocks"
    assert query(stores.postgres, kinds) == [(2, 1)]
    found, shown = (
        blocks(stores.postgres, tried.ref),
        in_the_view(stores, engine, "price", "tried"),
    )
    assert found == replayed(stores, catalog, "price", log, tried.ref)
    assert shown == {tick: bits if status == 0 else None for tick, (bits, status) in found.items()}


@pytest.mark.parametrize("is_beyond", [True, False])
def test_what_only_a_replay_has_stored_is_none_of_it(
    stores: Stores, engine: Engine, is_beyond: bool
) -> None:
    """Live takes those ticks later, in a row schema that holds the version."""
    catalog, log = given(engine), log_of("price", 0, TOPIC_ID, random.Random(2))
    store(stores, catalog, "price", log)
    if is_beyond:
        stores.execute("UPDATE tickwell.watermarks SET next_offset = %s", log[5].base_offset)
        stores.execute(
            "INSERT INTO tickwell.replays (replay, topic_id, partition, topic, arguments,"
            " every_entity, start_offset, next_offset, stored_to)"
            " SELECT 'one', topic_id, partition, topic, '', true, 0, 120, 120"
            " FROM tickwell.watermarks"
        )
    tried = FeatureVersion("tried", "1.0.0", ("symbol",), "mean(price, 3)", source="price")
    given(engine, tried)
    assert backfill(engine, stores.postgres, tried.ref).finished
    end = log[5].base_offset if is_beyond else 120
    ticks = query(
        stores.postgres,
        f'SELECT entity, event_time, sequence FROM tickwell.feature_rows WHERE "offset" < {end}',
    )
    assert blocks(stores.postgres, tried.ref).keys() == {Tick(*tick) for tick in ticks}


@pytest.mark.parametrize("expression", EXPRESSIONS["position"])
def test_what_is_closed_stays_so_from_piece_to_piece(
    stores: Stores, engine: Engine, expression: str
) -> None:
    ops = ["trade", "close", *["reset"] * 6, "trade", "reset", "reset", "trade", "close", "reset"]
    records = []
    for offset, op in enumerate(ops):
        tick = {"portfolio": "P", "symbol": "A", "quantity": 1, "ts": NOW_MS + offset, "op": op}
        value = json.dumps(tick).encode()
        records.append(Record("ticks.position", 0, offset, NOW_MS + offset, b"P", value))
    log = [replace(run, topic="ticks.position") for run in runs(records, [])]
    store(stores, given(engine), "position", log)
    tried = FeatureVersion("tried", "1.0.0", ("portfolio", "symbol"), expression, source="position")
    catalog = given(engine, tried)
    assert backfill(engine, stores.postgres, tried.ref, rows_a_piece=1).ticks == len(ops)
    found = blocks(stores.postgres, tried.ref)
    assert found == replayed(stores, catalog, "position", log, tried.ref)
    assert [status for _, status in found.values()].count(ValueStatus.CLOSED) == 9
