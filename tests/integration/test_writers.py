"""Attacks on the protocol by which a run is stored in a single Redis (`single_server`).

Whatever happens between two scripts, the rows and states are those of one worker that was never
disturbed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

import pytest
import redis

from pipelines.compute.run_computation import RunComputation
from pipelines.errors import SchemaBehind, StoreUnavailable
from pipelines.kafka.run import Run
from pipelines.live.materializer import Materializer
from pipelines.stores.redis.online_sink import OnlineSink
from registry.definitions import RowSchema
from registry.formats.redis_keys import states_key
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

SYMBOLS = ["A", "B", "C", "D", "E"]


def in_parts(opened: Opened, url: str, history: int = 1024) -> OnlineSink:
    """A sink that stores two entities with each script."""
    sink: OnlineSink = opened(OnlineSink(url, history, entities_a_call=2))
    return sink


def at(moment: int, act: Callable[[], object]) -> Callable[[int], None]:
    """Acts before the script of this number, counted from 1."""
    return lambda number: act() if number == moment else None  # type: ignore[func-returns-value]


def elsewhere(run: Run) -> Run:
    return replace(run, partition=1)


class Killed(BaseException):
    """Stands for a signal that ends the process."""


def dies() -> None:
    raise Killed


def loses_connection() -> None:
    raise StoreUnavailable("the connection is gone")


@pytest.mark.parametrize("moment", range(1, 8))
def test_a_kill_between_any_two_sends(opened: Opened, redis_database: str, moment: int) -> None:
    """Three scripts for each of two runs; the seventh is never sent."""
    log = list(runs(ticks(SYMBOLS, 150, seq=False), (50, 100)))
    sink = in_parts(opened, redis_database)
    killed = worker(sink)
    killed.materialize(log[0], GO_ON)
    before_each_write(sink, at(moment, dies))
    begun = 1
    try:
        for run in log[1:]:
            begun += 1
            killed.materialize(run, GO_ON)
    except Killed:
        pass
    assert begun == (2 if moment <= 3 else 3)
    stored = sink.watermarks(TOPIC_ID, [0])[0]
    assert stored == (50, 50, 50, 100, 100, 100, 150)[moment - 1]
    fresh = worker(in_parts(opened, redis_database))
    for run in log:
        if run.next_offset > stored:
            fresh.materialize(run, GO_ON)
    found = redis_dump(redis_database)
    assert found == clean_dump(opened, redis_database, log)


@pytest.mark.parametrize("moment", [1, 2, 3])
def test_a_worker_paused_between_two_parts(
    opened: Opened, redis_database: str, moment: int
) -> None:
    """Another worker takes the partition over, and goes farther; the rest of the run is refused."""
    log = list(runs(ticks(SYMBOLS, 200, seq=False), (50, 100, 150)))
    sink = in_parts(opened, redis_database)
    paused, other = worker(sink), worker(in_parts(opened, redis_database))
    paused.materialize(log[0], GO_ON)
    seen: list[dict[bytes, bytes]] = []

    def meanwhile() -> None:
        for run in log[1:3]:
            other.materialize(run, GO_ON)
        seen.append(redis_dump(redis_database))

    before_each_write(sink, at(moment, meanwhile))
    assert paused.materialize(log[1], GO_ON) is None
    assert [redis_dump(redis_database)] == seen
    paused.materialize(log[3], GO_ON)
    found = redis_dump(redis_database)
    assert found == clean_dump(opened, redis_database, log)


@pytest.mark.parametrize("moment", [2, 3])
@pytest.mark.parametrize("how", ["refused", "cut", "unknown script"])
def test_a_part_is_lost_in_one_of_two_partitions(
    opened: Opened, redis_database: str, how: str, moment: int
) -> None:
    """The parts after it are not stored; the run is, in the end, and that of the other one too."""
    log = list(runs(ticks(SYMBOLS, 150, seq=False), (50, 100)))
    others = [elsewhere(run) for run in runs(ticks(["X", "Y", "Z"], 90, seq=False), (30, 60))]
    sink = in_parts(opened, redis_database)
    work = worker(sink)
    with redis.Redis.from_url(redis_database) as client:
        acts: dict[str, Callable[[], object]] = {
            "refused": lambda: client.config_set("maxmemory", 1),
            "cut": loses_connection,
            "unknown script": client.script_flush,
        }

        def act(number: int) -> None:
            if number == 6 + moment:  # two runs were stored in five scripts, and there is one more
                acts[how]()
            elif number > 6 + moment:
                client.config_set("maxmemory", 0)

        before_each_write(sink, act)
        try:
            work.materialize(others[0], GO_ON)
            work.materialize(log[0], GO_ON)
            computed = [work.compute_ahead(run, GO_ON) for run in (others[1], log[1])]
            for run, ahead in zip((others[1], log[1]), computed, strict=True):
                assert ahead is not None
                if work.store(ahead) is None:
                    client.config_set("maxmemory", 0)
                    work.materialize_again(run, GO_ON)
        finally:
            client.config_set("maxmemory", 0)
    for run in (others[2], log[2]):
        work.materialize(run, GO_ON)
    found = redis_dump(redis_database)
    assert found == clean_dump(opened, redis_database, [*log, *others])


def test_a_partition_is_begun_while_a_run_of_another_one_is_stored(
    opened: Opened, redis_database: str
) -> None:
    """Everything is forgotten then. A, which has a tick in the wrong partition, must not be loaded
    as it was before the run that is being stored."""
    log = list(runs(ticks(SYMBOLS, 150, seq=False), (50, 100)))
    (stray,) = map(elsewhere, runs(ticks(["A"], 5), ()))
    sink = in_parts(opened, redis_database)
    work = worker(sink)
    work.materialize(log[0], GO_ON)
    computed = work.compute_ahead(log[1], GO_ON)
    assert computed is not None
    ahead: list[Any] = []
    before_each_write(sink, at(1, lambda: ahead.append(work.compute_ahead(stray, GO_ON))))
    assert work.store(computed) is not None
    if ahead[0] is None or work.store(ahead[0]) is None:
        work.materialize_again(stray, GO_ON)
    work.materialize(log[2], GO_ON)
    found = redis_dump(redis_database)
    assert found == clean_dump(opened, redis_database, [*log[:2], stray, log[2]])


@pytest.mark.parametrize("moment", [1, 2, 3])
def test_an_entity_that_is_new_in_two_partitions(
    opened: Opened, redis_database: str, moment: int
) -> None:
    """The partition that stores it first is its home; the other one has begun to store its run."""
    (here,) = runs(ticks(SYMBOLS, 50, seq=False), ())
    (there,) = map(elsewhere, runs(ticks(["A", "C", "E"], 30, seq=False), ()))
    sink = in_parts(opened, redis_database)
    first, second = worker(sink), worker(in_parts(opened, redis_database))
    before_each_write(sink, at(moment, lambda: second.materialize(there, GO_ON)))
    first.materialize(here, GO_ON)
    home = {name: int(name in ["A", "C", "E"][moment - 1 :]) for name in SYMBOLS}
    found = redis_dump(redis_database)
    for partition, run in enumerate((here, there)):
        clean = clean_dump(opened, redis_database, [run])
        entities = {name.encode() for name in SYMBOLS if home[name] == partition}
        assert _of(found, entities) == _of(clean, entities) != {}


def _of(dump: Mapping[bytes, bytes], entities: Collection[bytes]) -> dict[bytes, bytes]:
    """What is stored of some entities."""
    parts = {key: key.partition(b" ")[2].partition(b"\x1f")[0] for key in dump}
    return {key: value for key, value in dump.items() if parts[key] in entities}


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
        computed = work.compute_ahead(run, GO_ON)
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
        found, clean = (_of(d, {b"B", b"C", b"D", b"E"}) for d in (found, clean))
    assert found == clean


def test_a_row_schema_that_is_refused_while_runs_are_under_way(
    opened: Opened, redis_database: str
) -> None:
    """Nothing more of them is stored, in no partition of the source."""
    log = list(runs(ticks(SYMBOLS, 150, seq=False), (50, 100)))
    there = [elsewhere(run) for run in runs(ticks(["X", "Y"], 40, seq=False), (20,))]
    sink = in_parts(opened, redis_database)
    behind = worker(sink)
    behind.materialize(log[0], GO_ON)
    behind.materialize(there[0], GO_ON)
    newer = RowSchema(2, "price", SCHEMA.features)
    ahead = Materializer(
        RunComputation(RULES, newer, PROGRAM, 1000), in_parts(opened, redis_database)
    )
    computed = [behind.compute_ahead(run, GO_ON) for run in (log[1], there[1])]
    assert None not in computed
    dumps: list[dict[bytes, bytes]] = []

    (other,) = runs(ticks(["Z"], 1), ())
    before_each_write(sink, at(2, lambda: ahead.materialize(replace(other, partition=2), GO_ON)))
    for each in computed:
        assert each is not None
        with pytest.raises(SchemaBehind):
            behind.store(each)
        dumps.append(redis_dump(redis_database))
    assert dumps[0] == dumps[1]
    with redis.Redis.from_url(redis_database) as client:
        offsets = [unpack(stored_row(client, "price", name)).origin.offset for name in "ABCDEXY"]
    assert offsets == [95, 96, 47, 48, 49, 18, 19]
