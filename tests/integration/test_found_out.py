"""What a worker finds out of its store: that it lost something, or that others know more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec
import pytest
import redis

from pipelines.compute.entity_names import EntityNames
from pipelines.compute.run_computation import RunComputation
from pipelines.compute.window_table import depth_of
from pipelines.errors import SchemaBehind, StoreUnavailable, StoreWentBack
from pipelines.live.materializer import Materializer
from pipelines.stores.postgres.offline_sink import OfflineSink
from pipelines.stores.postgres.states_from_rows import FIRST_TICKS
from pipelines.stores.redis import earlier_layout
from pipelines.stores.redis.fill_marks import FillMarks
from pipelines.stores.redis.online_sink import OnlineSink
from registry.database.engine import connect
from registry.definitions import Catalog, FeatureVersion
from registry.features_file import read
from registry.formats.origin import Origin
from registry.formats.redis_keys import watermark_key, writer_key
from registry.formats.row import unpack
from registry.language.program import compile_program
from registry.lifecycle.recording import record
from tests.support.logs import TOPIC_ID, runs
from tests.support.rebuilds import KEPT, TOPIC, Stores, quiet
from tests.support.shipped import PROGRAM, RULES, SCHEMA, SOURCE
from tests.support.sinks import (
    GO_ON,
    before_each_write,
    postgres_dump,
    put_back,
    redis_dump,
    ticks,
    worker,
)
from tests.support.stored import stored_row

SYMBOLS = ["A", "B", "C"]


def with_a_feature_more(stores: Stores) -> Catalog:
    engine = connect(stores.postgres)
    definitions = read()
    seven = FeatureVersion("price_sma_7", "1.0.0", ("symbol",), "mean(price, 7)", source="price")
    more = (*definitions.features, seven)
    recorded = record(engine, msgspec.structs.replace(definitions, features=more), "test")
    engine.dispose()
    return recorded


def upgraded(stores: Stores, sink: OnlineSink | OfflineSink) -> Materializer:
    """A worker that began when a feature more was recorded."""
    recorded = with_a_feature_more(stores)
    schema = recorded.schemas[recorded.writing["price"]]
    assert schema.id > SCHEMA.id
    program = compile_program(recorded, schema)
    return Materializer(RunComputation(RULES, schema, program, 1000), sink)


# -- newer row schemas


def test_rows_in_any_row_schema_are_a_workers_windows(stores: Stores) -> None:
    """Of more entities than one statement loads."""
    entities = FIRST_TICKS // depth_of(PROGRAM) + 1
    n = 3 * entities
    symbols = [f"S{number}" for number in range(entities)]
    log = list(runs(ticks(symbols, 3 * n), (n, 2 * n)))
    stores.offline().materialize(log[0], GO_ON)
    after = upgraded(stores, stores.keep(OfflineSink(stores.postgres)))
    after.materialize(log[1], GO_ON)
    after.forget()  # a generation of its own
    after.materialize(log[2], GO_ON)
    rows = postgres_dump(stores.postgres)
    stores.execute("TRUNCATE tickwell.feature_rows, tickwell.entities, tickwell.watermarks")

    alone = upgraded(stores, stores.keep(OfflineSink(stores.postgres)))
    for run in log:
        alone.materialize(run, GO_ON)
    expected = postgres_dump(stores.postgres)
    last = slice(-2 * n, None)
    by_offset = [sorted(dump[0], key=lambda row: row[11])[last] for dump in (rows, expected)]
    assert by_offset[0] == by_offset[1]


@pytest.mark.usefixtures("either_way")
def test_an_online_row_never_steps_back_to_an_earlier_row_schema(stores: Stores) -> None:
    first, second, third = runs(ticks(SYMBOLS, 90), (30, 60))
    behind = stores.online()
    behind.materialize(first, GO_ON)
    ahead = upgraded(stores, stores.sink())
    ahead.materialize(second, GO_ON)
    stored = redis_dump(stores.redis_url)
    behind.forget()
    with pytest.raises(SchemaBehind, match="recorded since this worker read the registry"):
        behind.materialize(third, GO_ON)
    assert redis_dump(stores.redis_url) == stored
    ahead.materialize(third, GO_ON)
    with redis.Redis.from_url(stores.redis_url) as client:
        assert unpack(stored_row(client, "price", "A")).schema_id > SCHEMA.id


@pytest.mark.usefixtures("either_way")
def test_a_rebuilt_row_never_steps_back_to_an_earlier_row_schema(stores: Stores) -> None:
    """Redis was emptied, so it has forgotten too which row schema was the newest one. The offline
    worker was restarted with it; the online worker was not, and goes on where the rebuild ends."""
    first, second, third = runs(ticks(SYMBOLS, 90), (30, 60))
    behind = stores.online()
    behind.materialize(first, GO_ON)
    behind.materialize(second, GO_ON)
    stores.offline().materialize(first, GO_ON)
    upgraded(stores, stores.keep(OfflineSink(stores.postgres))).materialize(second, GO_ON)
    stores.flush()
    stores.rebuild().fill(KEPT, TOPIC, quiet)
    stored = redis_dump(stores.redis_url)
    with pytest.raises(SchemaBehind, match="recorded since this worker read the registry"):
        behind.materialize(third, GO_ON)
    assert redis_dump(stores.redis_url) == stored


# -- what Redis has lost


def filled_without_a_tick(stores: Stores) -> OnlineSink:
    """The sink of a partition that was filled and has no watermark."""
    stores.rebuild().fill(KEPT, TOPIC, quiet)
    sink = stores.sink()
    assert sink.watermarks(TOPIC_ID, [0]) == {}
    return sink


def assert_found_out(stores: Stores, sink: OnlineSink) -> None:
    with pytest.raises(StoreWentBack):
        worker(sink).materialize(next(iter(runs(ticks(SYMBOLS, 30), ()))), GO_ON)
    with redis.Redis.from_url(stores.redis_url) as client:
        assert client.get(watermark_key(TOPIC_ID, 0)) is None


@pytest.mark.usefixtures("either_way")
def test_a_redis_emptied_before_a_partition_has_its_first_tick(stores: Stores) -> None:
    """It has no watermark that would be missed; it has the mark that it was filled."""
    sink = filled_without_a_tick(stores)
    stores.flush()
    assert_found_out(stores, sink)


@pytest.mark.usefixtures("in_steps")
def test_a_redis_emptied_within_a_partitions_first_run(stores: Stores) -> None:
    sink = filled_without_a_tick(stores)
    before_each_write(sink, lambda number: stores.flush() if number == 1 else None)
    assert_found_out(stores, sink)


@pytest.mark.usefixtures("either_way")
def test_a_watermark_that_was_only_heard_of_is_missed(stores: Stores) -> None:
    """The first run of a partition was stored already when it was to be stored; then it is lost."""
    first, second = runs(ticks(SYMBOLS, 60), (30,))
    sink = filled_without_a_tick(stores)
    before = redis_dump(stores.redis_url)
    work = worker(sink)
    stores.online().materialize(first, GO_ON)
    assert work.materialize(first, GO_ON) is None
    set_back(stores, before)
    with pytest.raises(StoreWentBack):
        work.materialize(second, GO_ON)


def test_what_a_run_passes_over_is_read_again_where_it_is_lost(
    stores: Stores, entities_a_call: int
) -> None:
    """A worker died between two parts; the next one has read what was written, and then Redis is
    started again without it. Nothing compares an entity to which a run adds nothing."""
    log = list(runs(ticks(SYMBOLS, 90), (30, 60)))
    stores.online().materialize(log[0], GO_ON)
    before = redis_dump(stores.redis_url)
    stores.entities_a_call = 1
    dies = stores.sink()
    advanced = worker(dies)
    dies.watermarks(TOPIC_ID, [0])

    def killed(number: int) -> None:
        if number == 2:
            raise KeyboardInterrupt

    before_each_write(dies, killed)
    with pytest.raises(KeyboardInterrupt):
        advanced.materialize(log[1], GO_ON)

    stores.entities_a_call = entities_a_call
    sink: Any = stores.sink()
    sink.watermarks(TOPIC_ID, [0])
    load = sink.load

    def load_and_lose(*given: Any) -> Any:
        found = load(*given)
        sink.load = load
        set_back(stores, before)
        return found

    sink.load = load_and_lose
    work = worker(sink)
    for run in log[1:]:
        work.materialize(run, GO_ON)
    found = redis_dump(stores.redis_url)
    stores.flush()
    alone = stores.online()
    for run in log:
        alone.materialize(run, GO_ON)
    assert found == redis_dump(stores.redis_url)


@pytest.mark.parametrize("is_stray", [False, True])
def test_what_another_worker_wrote_is_loaded_and_lost(stores: Stores, is_stray: bool) -> None:
    """The partition was taken over by a worker that did not last, and then Redis is started again
    without what that one wrote. Who writes is then told as the worker knows it: but what it has
    loaded meanwhile is of the other one. Nothing compares an entity that is known to be at home.
    It may be loaded for a run of another partition, which has a tick of it too."""
    log = list(runs(ticks(SYMBOLS, 90, seq=False), (30, 60)))
    stray = replace(next(iter(runs(ticks(SYMBOLS, 3), ()))), partition=1)
    stores.online().materialize(log[0], GO_ON)
    sink: Any = stores.sink()
    sink.watermarks(TOPIC_ID, [0, 1])
    sink.begin(TOPIC_ID, 0)
    sink.begin(TOPIC_ID, 1)
    with redis.Redis.from_url(stores.redis_url) as client:
        writers = {writer_key(TOPIC_ID, n): client.get(writer_key(TOPIC_ID, n)) for n in range(2)}
    before = redis_dump(stores.redis_url)
    stores.online().materialize(log[1], GO_ON)
    load, loads = sink.load, []

    def load_and_lose(*given: Any) -> Any:
        try:
            return load(*given)
        finally:
            loads.append(given)
            if len(loads) == 1:
                set_back(stores, before)
                with redis.Redis.from_url(stores.redis_url) as client:
                    client.mset(writers)

    sink.load = load_and_lose
    work = worker(sink)
    if is_stray:
        log.insert(1, stray)
    for run in log[1:]:
        work.materialize(run, GO_ON)
    found = redis_dump(stores.redis_url)
    assert len(loads) > 1
    stores.flush()
    alone = stores.online()
    for run in log:
        alone.materialize(run, GO_ON)
    assert found == redis_dump(stores.redis_url)


def test_a_partition_is_taken_over_while_chunks_are_read(stores: Stores) -> None:
    """The states were read before that."""
    log = list(runs(ticks(SYMBOLS, 400, seq=False), (300,)))
    sink: Any = stores.sink()
    work = worker(sink)
    work.materialize(log[0], GO_ON)
    work.forget()
    exchange, exchanged = sink.redis.exchange, []

    def exchange_and_lose(commands: Any) -> Any:
        found = exchange(commands)
        exchanged.append(found)
        if len(exchanged) == 1:
            stores.sink().begin(TOPIC_ID, 0)
        return found

    sink.redis.exchange = exchange_and_lose
    names = EntityNames.of(SYMBOLS)
    with pytest.raises(StoreUnavailable, match="another worker"):
        sink.load(SOURCE, names, depth_of(PROGRAM), Origin(TOPIC_ID, 0, 300, 0))
    assert len(exchanged) == 2


@pytest.mark.usefixtures("either_way")
def test_a_partition_that_is_being_filled_is_not_stored_to(stores: Stores) -> None:
    """Redis was emptied, and another worker has begun to fill it, before this one noticed."""
    sink = filled_without_a_tick(stores)
    stores.flush()
    FillMarks(stores.redis()).claim(TOPIC, [0])
    assert_found_out(stores, sink)


def set_back(stores: Stores, before: Mapping[bytes, bytes]) -> None:
    """As a server that was started again without its last second: who writes is told as then."""
    with redis.Redis.from_url(stores.redis_url) as client:
        client.flushall()
        put_back(client, before)


def test_what_an_earlier_version_kept_is_filled_anew_and_then_removed(stores: Stores) -> None:
    """In another layout, up to another offset; its keys stay until somebody removes them."""
    (log,) = runs(ticks(SYMBOLS, 90), ())
    stores.offline().materialize(log, GO_ON)
    left = {
        f"tw:watermark:{TOPIC_ID.hex()}:0": b"30",
        f"tw:filled:{{tw:watermark:{TOPIC_ID.hex()}:0}}": b"filled",
        "tw:{b7}:row:price:A": b"a row",
        "tw:{b7}:state:price:A": b"a state",
    }
    redis = stores.redis()
    assert not earlier_layout.is_left(redis, [TOPIC])
    with stores.client() as client:
        client.mset(left)
        client.set("tw:catalog", "{}")
    assert earlier_layout.is_left(redis, [TOPIC])
    stores.rebuild().fill(KEPT, TOPIC, quiet)
    assert stores.sink().watermarks(TOPIC_ID, [0]) == {0: 90}
    assert stores.states(SYMBOLS).keys() == set(SYMBOLS)
    with stores.client() as client:
        filled = set(client.keys())
        assert filled >= {key.encode() for key in left}
        assert earlier_layout.remove(redis, GO_ON) == len(left)
        assert set(client.keys()) == filled - {key.encode() for key in left}
