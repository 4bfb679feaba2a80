"""What a load of window states costs, and what it refuses."""

from __future__ import annotations

import random
import tracemalloc
from dataclasses import replace
from itertools import count
from typing import Any

import numpy as np
import pytest
import redis

from pipelines.compute.entity_names import EntityNames
from pipelines.errors import StateDamaged
from pipelines.stores.postgres.offline_sink import OfflineSink
from pipelines.stores.redis.online_sink import OnlineSink
from registry.formats.redis_keys import chunk_field, chunks_key
from registry.formats.state import BLOCK, STATE_HEADER
from tests.support.logs import runs
from tests.support.shipped import SCHEMA, SOURCE
from tests.support.sinks import BEGIN, GO_ON, Opened, query, ticks, worker
from tests.support.states import by_name, loaded
from tests.support.stored import hash_of, store_state, stored_chunks, stored_state

DEPTH = 64


@pytest.mark.parametrize("store", ["redis", "postgres"])
def test_a_load_holds_little_more_than_its_states(
    opened: Opened, redis_database: str, database: str, store: str
) -> None:
    """The first run after a rebalance may need the states of as many entities as it has ticks."""
    names = [f"E{number}" for number in range(1500)]
    (log,) = runs(ticks(names, DEPTH * len(names), seq=False), ())
    sink = opened(OnlineSink(redis_database) if store == "redis" else OfflineSink(database))
    worker(sink, capacity=10_000).materialize(log, GO_ON)
    entities = EntityNames.of(names)
    sink.load(SOURCE, entities[:10], DEPTH, BEGIN)
    tracemalloc.start()
    try:
        loaded = sink.load(SOURCE, entities, DEPTH, BEGIN)
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(loaded.states.seq) == DEPTH * len(names)
    some = names[::499]
    alone = sink.load(SOURCE, EntityNames.of(some), DEPTH, BEGIN)
    states = by_name(names, loaded)
    assert by_name(some, alone) == {name: states[name] for name in some}
    # parts and whole, and one answer beside them; all answers of Postgres at once are 16 times it
    assert peak < 6 * held


ROW = (
    "entity, event_time, sequence, revision, tick_time, seq, seq_text, op, fields, features,"
    ' status, known_at, topic_id, partition, "offset", index'
)


def more_schemas(database: str, n: int) -> list[int]:
    """Row schemas of the source that are newer, and which no row is in."""
    added = query(
        database,
        "INSERT INTO tickwell.row_schemas (source, features) SELECT source, features FROM"
        " tickwell.row_schemas, generate_series(1, %s) WHERE source = 'price' RETURNING id",
        n,
    )
    return [schema for (schema,) in added]


def also_in(database: str, schema: int, offsets: list[int]) -> None:
    """Store ticks in a row schema as well, as a replay does, or who carries rows over."""
    query(
        database,
        f"INSERT INTO tickwell.feature_rows (schema_id, {ROW}) SELECT %s, {ROW}"
        ' FROM tickwell.feature_rows WHERE schema_id = %s AND "offset" = ANY (%s)'
        " RETURNING schema_id",
        *(schema, SCHEMA.id, offsets),
    )


@pytest.mark.parametrize("seed", range(8))
def test_ticks_may_be_in_any_row_schemas(opened: Opened, database: str, seed: int) -> None:
    """A replay stores old ticks in the newest one."""
    chance, names = random.Random(seed), ["A", "B"]
    (log,) = runs(ticks(names, 400), ())
    sink = opened(OfflineSink(database))
    worker(sink).materialize(log, GO_ON)
    for schema in more_schemas(database, 5):  # few have most rows, and some only the newest
        share, since = chance.random() ** 3, chance.choice([0, 100, 380])
        also_in(database, schema, [n for n in range(since, 400) if chance.random() < share])
    # those that another one has need not be where they were stored first
    gone = [n for n in range(400) if chance.random() < 0.7]
    query(
        database,
        'DELETE FROM tickwell.feature_rows AS gone WHERE schema_id = %s AND "offset" = ANY (%s)'
        " AND EXISTS (SELECT FROM tickwell.feature_rows AS other WHERE other.schema_id > %s"
        ' AND other."offset" = gone."offset") RETURNING schema_id',
        *(SCHEMA.id, gone, SCHEMA.id),
    )
    for depth in (1, DEPTH, 150, 500):
        states = loaded(sink, SOURCE, names, depth, BEGIN)
        for number, name in enumerate(names):
            expected = list(range(number, 400, 2))[-depth:]
            assert [tick.seq for tick in states[name].ticks] == expected


def test_a_tick_that_is_in_many_row_schemas_is_one(opened: Opened, database: str) -> None:
    """The newest one of an entity that does not tick is carried over each time."""
    (log,) = runs(ticks(["A"], 40), ())
    sink = opened(OfflineSink(database))
    worker(sink).materialize(log, GO_ON)
    for schema in more_schemas(database, 30):
        also_in(database, schema, [38, 39])
    state = loaded(sink, SOURCE, ["A"], 20, BEGIN)["A"]
    assert [tick.seq for tick in state.ticks] == list(range(20, 40))


@pytest.mark.parametrize("kept", [0, 1, 7 * 32, 7 * 32 + 20])
def test_a_state_that_was_cut_short_is_refused(
    opened: Opened, redis_database: str, kept: int
) -> None:
    """Its newest time would be that of another entity, and what it remembers not its own."""
    (log,) = runs(ticks(["A", "B"], 2 * DEPTH), ())
    sink = opened(OnlineSink(redis_database))
    worker(sink).materialize(log, GO_ON)
    with redis.Redis.from_url(redis_database) as client:
        for entity in ("A", "B"):
            state = stored_state(client, "price", entity)
            store_state(client, "price", entity, state[: STATE_HEADER.size + kept])
    with pytest.raises(StateDamaged, match="the state of 'A' in Redis has"):
        sink.load(SOURCE, EntityNames.of(["A", "B"]), DEPTH, BEGIN)


def test_a_state_that_keeps_blocks_which_it_has_not_is_refused(
    opened: Opened, redis_database: str
) -> None:
    """What becomes of its chunks is worked out from both."""
    (log,) = runs(ticks(["A", "B"], 2 * DEPTH), ())
    sink = opened(OnlineSink(redis_database))
    worker(sink).materialize(log, GO_ON)
    with redis.Redis.from_url(redis_database) as client:
        state = np.frombuffer(stored_state(client, "price", "A"), np.uint8).copy()
        state[: STATE_HEADER.size].view(STATE_HEADER.dtype)["first_block"] = 9
        store_state(client, "price", "A", state.tobytes())
    with pytest.raises(StateDamaged, match="'A' in Redis has 7 blocks, and keeps them from 9 on"):
        sink.load(SOURCE, EntityNames.of(["A", "B"]), DEPTH, BEGIN)


@pytest.mark.parametrize("left", [None, 100])
def test_a_chunk_that_is_missing_or_cut_short_is_refused(
    opened: Opened, redis_database: str, left: int | None
) -> None:
    """Windows that are computed without its ticks would be wrong."""
    (log,) = runs(ticks(["A", "B"], 2 * DEPTH), ())
    sink = opened(OnlineSink(redis_database))
    worker(sink).materialize(log, GO_ON)
    with redis.Redis.from_url(redis_database) as client:
        ((block, chunk),) = stored_chunks(client, "price", "A").items()
        key, field = hash_of(client, chunks_key, "price", "A"), chunk_field("A", block)
        client.hdel(key, field) if left is None else client.hset(key, field, chunk[:left])
    with pytest.raises(StateDamaged, match="the state of 'A' in Redis"):
        sink.load(SOURCE, EntityNames.of(["A", "B"]), DEPTH, BEGIN)
    assert by_name(["B"], sink.load(SOURCE, EntityNames.of(["B"]), DEPTH, BEGIN))


def test_a_chunk_that_is_not_of_the_chain_is_not_read(opened: Opened, redis_database: str) -> None:
    """It is left of a state that was lost by hand, and has a name between those that are walked."""
    sink = opened(OnlineSink(redis_database))
    work = worker(sink)
    for run in runs(ticks(["A"], 2 * DEPTH), range(24, 2 * DEPTH, 24)):
        work.materialize(run, GO_ON)
    names = EntityNames.of(["A"])
    before = by_name(["A"], sink.load(SOURCE, names, DEPTH, BEGIN))
    with redis.Redis.from_url(redis_database) as client:
        chunks = stored_chunks(client, "price", "A")
        key = hash_of(client, chunks_key, "price", "A")
        others = [block for block in range(1, max(chunks)) if block not in chunks]
        assert min(chunks) < 3 < len(others)
        for block in others:
            client.hset(key, chunk_field("A", block), bytes(BLOCK * 32))
    assert by_name(["A"], sink.load(SOURCE, names, DEPTH, BEGIN)) == before


def test_a_state_that_was_replaced_before_its_chunks_were_read(
    opened: Opened, redis_database: str
) -> None:
    """As by another worker that keeps less: the state is read again."""
    first, second = runs(ticks(["A"], 4 * DEPTH), (2 * DEPTH,))
    sink = opened(OnlineSink(redis_database))
    other = worker(opened(OnlineSink(redis_database)), history=DEPTH)
    other.materialize(first, GO_ON)
    exchange, calls = sink.redis.exchange, count()

    def exchanged(commands: Any) -> Any:
        if next(calls) == 1:
            other.materialize(second, GO_ON)
        return exchange(commands)

    sink.redis.exchange = exchanged
    state = by_name(["A"], sink.load(SOURCE, EntityNames.of(["A"]), DEPTH, BEGIN))["A"]
    assert [tick.seq for tick in state.ticks] == list(range(3 * DEPTH, 4 * DEPTH))
    assert next(calls) == 4


def test_a_store_that_failed_may_be_another_server(opened: Opened, database: str) -> None:
    """States of the server before, which is still there, are not what the new one has."""
    (log,) = runs(ticks(["A"], 3), ())
    sink = opened(OfflineSink(database, "one"))
    work = worker(sink)
    work.materialize(log, GO_ON)
    sessions = (
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'one' ORDER BY backend_start"
    )
    (loads,), (stores,) = query(database, sessions)
    query(database, f"SELECT pg_terminate_backend({stores})")
    computed = work.compute_ahead(replace(log, base_offset=3, next_offset=4))
    assert computed is not None
    assert work.store(computed) is None
    sink.load(SOURCE, EntityNames.of(["A"]), DEPTH, BEGIN)
    assert loads not in [pid for (pid,) in query(database, sessions)]
