"""What a worker of a single Redis remembers of entities, and whether it may."""

from __future__ import annotations

import json

import pytest
import redis

from pipelines.compute.run_computation import RunComputation
from pipelines.errors import SchemaBehind
from pipelines.live.materializer import Materializer
from pipelines.stores.redis.online_sink import OnlineSink
from registry.definitions import RowSchema
from registry.formats.redis_keys import states_key, writer_key
from registry.formats.row import unpack
from tests.oracle.messages import Record
from tests.support.logs import NOW_MS, TOPIC_ID, runs
from tests.support.shipped import PROGRAM, RULES, SCHEMA
from tests.support.sinks import (
    GO_ON,
    Opened,
    before_each_write,
    clean_dump,
    redis_dump,
    ticks,
    worker,
)
from tests.support.stored import stored_row
from tests.support.writers import PARTS, SYMBOLS, at, in_partition, in_parts, of_entities

pytestmark = pytest.mark.timeout(60)


def arrays(symbols: str, first: int = 0) -> list[Record]:
    """A message for each letter, of two ticks of that symbol."""
    made = []
    for offset, symbol in enumerate(symbols, first):
        each = [
            {"symbol": symbol, "price": 1.0 + offset % 7 + index, "ts": NOW_MS + offset // 3}
            for index in range(2)
        ]
        value = json.dumps(each).encode()
        made.append(Record("ticks.price", 0, offset, NOW_MS + offset, symbol.encode(), value))
    return made


@pytest.mark.parametrize("capacity", [1, 3])
@pytest.mark.parametrize("is_ahead", [False, True])
def test_an_entity_that_is_given_up_and_needed_again_in_one_run(
    opened: Opened, redis_database: str, capacity: int, is_ahead: bool
) -> None:
    """More entities are touched than there is room for, so that some lose their place in between;
    each has two ticks in a message, and several messages in a run."""
    records = arrays("ABCABCDEFGABHIJKLMNACAAACDEMLKJIHGFEDCBANNNMOPQRSTABCA" * 3)
    log = list(runs(records, range(11, 160, 11)))
    work = worker(in_parts(opened, redis_database), capacity)
    before = None
    for run in log:
        if not is_ahead:
            work.materialize(run, GO_ON)
            continue
        computed = work.compute_ahead(run)
        if before is not None and (before[1] is None or work.store(before[1]) is None):
            work.materialize_again(before[0], GO_ON)
        before = run, computed
    if before is not None and (before[1] is None or work.store(before[1]) is None):
        work.materialize_again(before[0], GO_ON)
    found = redis_dump(redis_database)
    assert found == clean_dump(opened, redis_database, log)


@pytest.mark.parametrize("is_cached", [True, False])
def test_a_state_that_is_lost_by_hand(opened: Opened, redis_database: str, is_cached: bool) -> None:
    """Who has it writes it again, whole, with the next tick; else the entity begins anew."""
    log = list(runs(ticks(SYMBOLS, 150, seq=False), (50, 100)))
    work = worker(in_parts(opened, redis_database))
    work.materialize(log[0], GO_ON)
    work.materialize(log[1], GO_ON)
    with redis.Redis.from_url(redis_database) as client:
        client.hdel(states_key("price", 0), "A")
    if not is_cached:
        work.forget()
    work.materialize(log[2], GO_ON)
    found = redis_dump(redis_database)
    clean = clean_dump(opened, redis_database, log)
    if not is_cached:
        found, clean = (of_entities(dump, SYMBOLS[1:]) for dump in (found, clean))
    assert found == clean


def test_a_row_schema_that_is_refused_while_runs_are_under_way(
    opened: Opened, redis_database: str
) -> None:
    """Nothing more of them is stored, in no partition of the source."""
    log = list(runs(ticks(SYMBOLS, 150, seq=False), (50, 100)))
    there = [in_partition(run, 1) for run in runs(ticks(["X", "Y"], 40, seq=False), (20,))]
    sink = in_parts(opened, redis_database)
    behind = worker(sink)
    behind.materialize(log[0], GO_ON)
    behind.materialize(there[0], GO_ON)
    newer = RowSchema(2, "price", SCHEMA.features)
    ahead = Materializer(
        RunComputation(RULES, newer, PROGRAM, 1000), in_parts(opened, redis_database)
    )
    computed = [behind.compute_ahead(run) for run in (log[1], there[1])]
    assert None not in computed
    dumps: list[dict[bytes, bytes]] = []

    (other,) = runs(ticks(["Z"], 1), ())
    before_each_write(sink, at(2, lambda: ahead.materialize(in_partition(other, 2), GO_ON)))
    for each in computed:
        assert each is not None
        assert behind.store(each) is None
        dumps.append(redis_dump(redis_database))
    with pytest.raises(SchemaBehind):
        behind.materialize_again(log[1], GO_ON)
    dumps.append(redis_dump(redis_database))
    assert dumps[0] == dumps[1] == dumps[2]
    with redis.Redis.from_url(redis_database) as client:
        offsets = [unpack(stored_row(client, "price", name)).origin.offset for name in "ABCDEXY"]
    assert offsets == [95, 96, 47, 48, 49, 18, 19]


def test_an_entity_of_a_partition_that_is_taken_over_was_known_before(
    opened: Opened, redis_database: str
) -> None:
    """By a tick in the wrong partition; since then the one before has stored more of it."""
    log = list(runs(ticks(SYMBOLS, 150, seq=False), (50, 100)))
    (run,) = runs(ticks(["A"], 5), ())
    stray = in_partition(run, 1)
    before, after = (worker(in_parts(opened, redis_database)) for _ in range(2))
    before.materialize(log[0], GO_ON)
    after.materialize(stray, GO_ON)
    before.materialize(log[1], GO_ON)
    after.materialize(log[2], GO_ON)
    found = redis_dump(redis_database)
    assert found == clean_dump(opened, redis_database, [log[0], stray, *log[1:]])


def test_a_sink_goes_on_with_its_own_number(opened: Opened, redis_database: str) -> None:
    """It begins to write a partition once, however many parts its runs have."""
    log = list(runs(ticks(SYMBOLS, 150), (50, 100)))
    sink = in_parts(opened, redis_database)
    work = worker(sink)
    for number, run in enumerate(log):
        computed = work.compute_ahead(run)
        assert (computed is None) == (number == 0)
        assert computed is None or work.store(computed) is not None
        if computed is None:
            work.materialize_again(run, GO_ON)
    with redis.Redis.from_url(redis_database) as client:
        token, number_of_next = client.get(writer_key(TOPIC_ID, 0)).split(b":")
        assert (len(token), int(number_of_next)) == (16, PARTS * len(log))
    assert not sink.begin(TOPIC_ID, 0)
    assert in_parts(opened, redis_database).begin(TOPIC_ID, 0)


def test_lists_that_are_too_long_for_one_command(opened: Opened, redis_database: str) -> None:
    """A script takes a list apart: of entities that are compared, of rows, and of chunks. One of
    the last entities is at home in another partition."""
    symbols = [f"S{number}" for number in range(8_000)]
    elsewhere = symbols[-7]
    (run,) = runs(ticks([elsewhere], 3), ())
    there = in_partition(run, 1)
    first = ticks(symbols, 8_000)
    second = ticks(symbols[-4_000:], 40_000, first=8_000)
    log = list(runs(first + second, (8_000,)))
    dumps = []
    for entities_a_call in (20_000, 500):
        with redis.Redis.from_url(redis_database) as client:
            client.flushall()
        sink = opened(OnlineSink(redis_database, entities_a_call=entities_a_call))
        others = worker(opened(OnlineSink(redis_database)))
        before_each_write(sink, at(1, lambda others=others: others.materialize(there, GO_ON)))
        work = worker(sink, capacity=10_000)
        for run in log:
            work.materialize(run, GO_ON)
        dumps.append(redis_dump(redis_database))
        with redis.Redis.from_url(redis_database) as client:
            assert unpack(stored_row(client, "price", elsewhere)).origin.partition == 1
    assert dumps[0] == dumps[1]
    assert len(of_entities(dumps[0], symbols)) == 3 * 8_000 - 4_001
