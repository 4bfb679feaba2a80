"""The two stores: what two workers with stale memories can do to them, and what they give back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from threading import Barrier, Thread
from types import SimpleNamespace
from typing import Any

import numpy as np
import psycopg2
import pytest
import redis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from pipelines.compute.batch import Batch
from pipelines.errors import StoreWentBack, TopicRecreated, WatermarkContended
from pipelines.kafka.topics import Topic
from pipelines.live.source_agent import SourceAgent
from pipelines.stores.postgres.offline_sink import OfflineSink
from pipelines.stores.redis.online_sink import OnlineSink
from registry.formats.row import pack, unpack
from registry.formats.state import BLOCK, STATE_HEADER, tail_of
from tests.oracle.messages import Record
from tests.support.logs import TOPIC_ID, logs, runs
from tests.support.shipped import SOURCE
from tests.support.sinks import (
    BEGIN,
    GO_ON,
    Opened,
    before_each_write,
    clean_dump,
    closing,
    empty,
    empty_postgres,
    postgres_dump,
    put_back,
    redis_dump,
    ticks,
    worker,
)
from tests.support.states import State, loaded
from tests.support.stored import stored_chunks, stored_row, stored_state

BACK, ON, EMPTY = "seeks the store's watermark", "continues", "continues with an empty cache"
steps = st.lists(
    st.tuples(st.integers(0, 1), st.sampled_from([BACK, BACK, BACK, ON, EMPTY])),
    min_size=15,
    max_size=25,
)


@settings(
    max_examples=10,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.reuse, Phase.generate),  # to shrink a log takes minutes
)
@given(logs(least=30), st.lists(st.integers(1, 40), min_size=8, max_size=12), steps)
def test_two_workers_with_stale_memories(
    redis_database: str,
    database: str,
    entities_a_call: int,
    records: list[Record],
    cuts: list[int],
    interleaving: list[tuple[int, str]],
) -> None:
    """Whoever stores which run, and whatever they remember of before: the stores end the same.

    Who gets a partition back goes to the store's watermark. Redis must refuse what comes of an old
    ring then; Postgres compares watermarks alone, and relies on it that a worker forgets.
    """
    all_runs = list(runs(records, cuts))
    ends = []
    for steps_of_two in ([], interleaving):
        empty(redis_database, database)
        for make, must_forget in (
            (lambda: OnlineSink(redis_database, entities_a_call=entities_a_call), False),
            (lambda: OfflineSink(database), True),
        ):
            with closing() as opened:
                two = [worker(opened(make())) for _ in range(2)]
                at = [0, 0]
                for number, how in [*steps_of_two, *[(0, BACK)] * len(all_runs)]:
                    if how == BACK:
                        at[number] = max(at)
                    if how == EMPTY or (how == BACK and must_forget):
                        two[number].forget()
                    if at[number] < len(all_runs):
                        two[number].materialize(all_runs[at[number]], GO_ON)
                        at[number] += 1
        ends.append((redis_dump(redis_database), postgres_dump(database)))
    assert ends[0] == ends[1]


def test_a_worker_that_comes_back_with_an_old_ring(
    opened: Opened, redis_database: str, entities_a_call: int
) -> None:
    """Its run begins at the watermark and all ticks are newer than those that it remembers: only
    the origin of the stored state tells that another worker was there."""
    first, second, third = runs(ticks(["A", "B"], 120), (40, 80))
    paused, other = (
        worker(opened(OnlineSink(redis_database, entities_a_call=entities_a_call)))
        for _ in range(2)
    )
    paused.materialize(first, GO_ON)
    other.materialize(second, GO_ON)
    assert paused.materialize(third, GO_ON) is not None
    found = redis_dump(redis_database)
    assert found == clean_dump(opened, redis_database, (first, second, third))


@pytest.mark.parametrize("small_run", [0, 1_000])
def test_a_new_generation_forgets_what_postgres_does_not_compare(
    opened: Opened, database: str, small_run: int
) -> None:
    """The run begins at the watermark; what is remembered of before is not what is stored."""
    log = list(runs(ticks(["A", "B"], 120), (40, 80)))
    paused, other = (worker(opened(OfflineSink(database))) for _ in range(2))

    batches: list[Batch] = []

    async def events() -> AsyncIterator[Any]:
        for generation, run in ((1, log[0]), (2, log[2])):
            message = SimpleNamespace(generation_id=generation)
            yield SimpleNamespace(message=message, value=(run,), ack=lambda: None)
            if generation == 1:
                while not batches:
                    await asyncio.sleep(0.01)
                other.materialize(log[1], GO_ON)

    failures: list[BaseException] = []
    app: Any = SimpleNamespace(stopping=True, fail=failures.append)
    stream = SimpleNamespace(noack=lambda: SimpleNamespace(events=events))
    agent = SourceAgent(app, paused, GO_ON, batches.append, small_run)
    asyncio.run(agent.consume(stream))
    assert failures == []
    found = postgres_dump(database)
    empty_postgres(database)
    alone = worker(opened(OfflineSink(database)))
    for run in log:
        alone.materialize(run, GO_ON)
    assert found == postgres_dump(database)


class Killed(Exception):
    """Stands for a signal that ends the process."""


def test_killed_between_two_groups_of_entities(opened: Opened, redis_database: str) -> None:
    """The watermark moves when every group is written, and the run is read again: who comes next
    passes over the ticks of those that were, and counts the others."""
    symbols = ["A", "B", "C", "D", "E"]
    log = list(runs(ticks(symbols, 300, seq=False), (150, 200)))
    sink = opened(OnlineSink(redis_database, entities_a_call=2))
    dies = worker(sink)
    dies.materialize(log[0], GO_ON)

    def second_dies(number: int) -> None:
        if number == 2:
            raise Killed

    before_each_write(sink, second_dies)
    with pytest.raises(Killed):
        dies.materialize(log[1], GO_ON)
    fresh = opened(OnlineSink(redis_database, entities_a_call=2))
    assert fresh.watermarks(TOPIC_ID, [0]) == {0: 150}
    stored = loaded(fresh, SOURCE, symbols, 64, BEGIN)
    assert [stored[symbol].count for symbol in symbols] == [40, 40, 30, 30, 30]
    goes_on = worker(fresh)
    for run in log[1:]:
        goes_on.materialize(run, GO_ON)
    found = redis_dump(redis_database)
    assert found == clean_dump(opened, redis_database, log)


@settings(max_examples=25, suppress_health_check=list(HealthCheck))
@given(logs(), st.lists(st.integers(0, 60), max_size=4))
def test_both_stores_give_back_the_same_state(
    opened: Opened, redis_database: str, database: str, records: list[Record], cuts: list[int]
) -> None:
    empty(redis_database, database)
    online, offline = opened(OnlineSink(redis_database)), opened(OfflineSink(database))
    for run in runs(records, cuts):
        worker(online).materialize(run, GO_ON)
        worker(offline).materialize(run, GO_ON)
    found: list[dict[str, State]] = []
    for sink in (online, offline):
        states = loaded(sink, SOURCE, ["A", "B"], 64, BEGIN)
        # Postgres counts what it has loaded; Redis all that there ever was
        found.append({n: s._replace(count=0, fill=min(s.fill, 64)) for n, s in states.items()})
    assert found[0] == found[1]


def test_the_ring_wraps(opened: Opened, redis_database: str) -> None:
    for size in (1, 64, 99, 100, 101, 250, 7):
        with redis.Redis.from_url(redis_database) as client:
            client.flushall()
        sink = opened(OnlineSink(redis_database))
        everything = ticks(["A"], 700)
        for run in runs(everything, range(0, 700, size)):
            worker(sink, history=100).materialize(run, GO_ON)
        state = loaded(sink, SOURCE, ["A"], 64, BEGIN)["A"]
        assert (state.count, state.fill) == (700, 700)
        assert [tick.seq for tick in state.ticks] == list(range(636, 700))
        with redis.Redis.from_url(redis_database) as client:
            assert len(stored_state(client, "price", "A")) == STATE_HEADER.size + tail_of(700) * 32
            chunks = stored_chunks(client, "price", "A").values()
        # whole chunks are dropped, so up to one more than what is kept is there
        assert 100 <= tail_of(700) + sum(map(len, chunks)) // 32 <= 100 + max(size, 2 * BLOCK)


def test_rows_are_those_of_the_row_format(opened: Opened, redis_database: str) -> None:
    sink = opened(OnlineSink(redis_database))
    (run,) = runs(ticks(["A", "B", "C"], 90), ())
    batch = worker(sink).materialize(run, GO_ON)
    assert batch is not None
    with redis.Redis.from_url(redis_database) as client:
        for index, name in enumerate(batch.names):
            packed = stored_row(client, "price", name)
            newest = int(np.flatnonzero(batch.name == index)[-1])
            row = unpack(packed)
            assert pack(row) == packed
            assert row.values == tuple(batch.features[newest].tolist())
            assert row.origin.offset == batch.offset[newest]


def test_a_redis_that_lost_its_last_second_is_found_out(
    opened: Opened, redis_database: str, entities_a_call: int
) -> None:
    first, second, third = runs(ticks(["A", "B"], 30), (10, 20))
    work = worker(opened(OnlineSink(redis_database, entities_a_call=entities_a_call)))
    work.materialize(first, GO_ON)
    before = redis_dump(redis_database)
    work.materialize(second, GO_ON)
    with redis.Redis.from_url(redis_database) as client:
        client.flushall()
        put_back(client, before)
    with pytest.raises(StoreWentBack):
        work.materialize(third, GO_ON)
    with redis.Redis.from_url(redis_database) as client:
        client.flushall()
    with pytest.raises(StoreWentBack):
        work.materialize(third, GO_ON)


def test_another_worker_writes_between_the_check_and_the_script(
    opened: Opened, redis_database: str
) -> None:
    """The watermark was right when it was looked at; the origins are what refuses then."""
    first, second, third = runs(ticks(["A", "B"], 30), (10, 20))
    sink = opened(OnlineSink(redis_database, entities_a_call=1))
    paused, other = worker(sink), worker(opened(OnlineSink(redis_database, entities_a_call=1)))
    paused.materialize(first, GO_ON)

    def meanwhile(number: int) -> None:
        if number == 1:
            other.materialize(second, GO_ON)
            other.materialize(third, GO_ON)

    before_each_write(sink, meanwhile)
    assert paused.materialize(second, GO_ON) is None
    state = loaded(sink, SOURCE, ["A"], 64, BEGIN)["A"]
    assert [tick.seq for tick in state.ticks] == list(range(0, 30, 2))
    with redis.Redis.from_url(redis_database) as client:
        assert unpack(stored_row(client, "price", "B")).origin.offset == 29


def test_a_postgres_that_lost_rows_is_found_out(opened: Opened, database: str) -> None:
    """As after a restore of a backup: to go on would leave a hole."""
    first, second, third = runs(ticks(["A", "B"], 30), (10, 20))
    work = worker(opened(OfflineSink(database)))
    work.materialize(first, GO_ON)
    work.materialize(second, GO_ON)
    connection = psycopg2.connect(database)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute('DELETE FROM tickwell.feature_rows WHERE "offset" >= 10')
        cursor.execute("UPDATE tickwell.watermarks SET next_offset = 10")
    connection.close()
    with pytest.raises(StoreWentBack):
        work.materialize(third, GO_ON)
    assert opened(OfflineSink(database)).watermarks(TOPIC_ID, [0]) == {0: 10}
    assert len(postgres_dump(database)[0]) == 10


class LoadsTogether:
    """A store whose first states are those from before two workers have both loaded theirs."""

    def __init__(self, sink: OfflineSink, both: Barrier) -> None:
        self._sink = sink
        self._first: Barrier | None = both
        self.name = sink.name
        self.keeps_states = sink.keeps_states
        self.begin = sink.begin
        self.store = sink.store

    def load(self, *wanted: Any) -> Any:
        states = self._sink.load(*wanted)
        if self._first is not None:
            self._first.wait(60)
            self._first = None
        return states


def test_an_entity_seen_in_two_partitions_at_once_gets_one_home(
    opened: Opened, database: str
) -> None:
    """Neither worker knows of the other's home when it computes; the store does."""
    (run,) = runs(ticks(["A"], 5), ())
    both = Barrier(2)
    threads = [
        Thread(
            target=worker(LoadsTogether(opened(OfflineSink(database)), both)).materialize,
            args=(of_partition, GO_ON),
        )
        for of_partition in (run, replace(run, partition=1))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows, rejected = postgres_dump(database)
    assert len({row[10] for row in rows}) == 1
    assert [reason for _, _, reason in rejected] == ["wrong-partition"] * 5


@pytest.mark.parametrize("store", ["redis", "postgres"])
def test_a_state_is_of_the_newest_ticks(
    opened: Opened, redis_database: str, database: str, store: str
) -> None:
    sink = opened(OnlineSink(redis_database) if store == "redis" else OfflineSink(database))
    for run in runs(ticks(["A"], 200), ()):
        worker(sink).materialize(run, GO_ON)
    state = loaded(sink, SOURCE, ["A"], 64, BEGIN)["A"]
    assert [tick.seq for tick in state.ticks] == list(range(136, 200))


def test_a_run_moves_the_watermark_of_its_partition_alone(opened: Opened, database: str) -> None:
    sink = opened(OfflineSink(database))
    for partition, many in ((0, 5), (1, 3)):
        (run,) = runs(ticks([f"of {partition}"], many), ())
        worker(sink).materialize(replace(run, partition=partition), GO_ON)
    assert sink.watermarks(TOPIC_ID, range(3)) == {0: 5, 1: 3}


class Contended:
    """A store whose watermark another worker moves by one each time that this one has computed."""

    def __init__(self, sink: OnlineSink) -> None:
        self._sink = sink
        self.name = sink.name
        self.keeps_states = sink.keeps_states
        self.begin = sink.begin
        self.load = sink.load

    def store(self, batch: Any) -> Any:
        offset = batch.run.base_offset
        other = worker(self._sink)
        other.materialize(batch.run.before(offset + 1), GO_ON)
        return self._sink.store(batch)


def test_a_watermark_that_never_stands_still_is_told(opened: Opened, redis_database: str) -> None:
    (run,) = runs(ticks(["A"], 100), ())
    sink: Any = Contended(opened(OnlineSink(redis_database)))
    with pytest.raises(WatermarkContended, match=r"ticks.price\[0\] moved 20 times"):
        worker(sink).materialize(run, GO_ON)


NEW_ID = bytes(reversed(TOPIC_ID))


def settled(sink: Any, topic_id: bytes) -> int:
    partitions: int = sink.settle(Topic("ticks.price", topic_id, 1))
    return partitions


def test_a_run_of_an_incarnation_that_is_over_is_refused(
    opened: Opened, redis_database: str, entities_a_call: int
) -> None:
    """A worker was paused with a fetched run while its topic was recreated and read again."""
    first, second = runs(ticks(["A", "B"], 20), (10,))
    paused = opened(OnlineSink(redis_database, entities_a_call=entities_a_call))
    assert settled(paused, TOPIC_ID) == 1
    stale = worker(paused)
    stale.materialize(first, GO_ON)

    other = opened(OnlineSink(redis_database, entities_a_call=entities_a_call))
    assert settled(other, NEW_ID) == 1
    (recreated,) = runs(ticks(["A"], 6, first=40), ())
    worker(other).materialize(
        replace(recreated, topic_id=NEW_ID, base_offset=0, next_offset=6, offsets=np.arange(6)),
        GO_ON,
    )
    before = redis_dump(redis_database)
    with pytest.raises(TopicRecreated):
        stale.materialize(second, GO_ON)
    stale.forget()
    with pytest.raises(TopicRecreated):
        stale.materialize(second, GO_ON)
    with pytest.raises(TopicRecreated):
        settled(paused, TOPIC_ID)
    assert redis_dump(redis_database) == before
    assert settled(other, NEW_ID) == 1
