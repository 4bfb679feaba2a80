"""Attacks on the protocol by which a run is stored in a single Redis (`single_server`).

Whatever happens between two scripts, the rows and states are those of one worker that was never
disturbed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import redis

from pipelines.errors import StoreUnavailable
from tests.support.logs import TOPIC_ID, runs
from tests.support.sinks import (
    GO_ON,
    Opened,
    before_each_write,
    clean_dump,
    redis_dump,
    ticks,
    worker,
)
from tests.support.writers import SYMBOLS, at, in_partition, in_parts, of_entities

pytestmark = pytest.mark.timeout(60)


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
    others = [in_partition(run, 1) for run in runs(ticks(["X", "Y", "Z"], 90, seq=False), (30, 60))]
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
            computed = [work.compute_ahead(run) for run in (others[1], log[1])]
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
    (run,) = runs(ticks(["A"], 5), ())
    stray = in_partition(run, 1)
    sink = in_parts(opened, redis_database)
    work = worker(sink)
    work.materialize(log[0], GO_ON)
    computed = work.compute_ahead(log[1])
    assert computed is not None
    ahead: list[Any] = []
    before_each_write(sink, at(1, lambda: ahead.append(work.compute_ahead(stray))))
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
    (run,) = runs(ticks(["A", "C", "E"], 30, seq=False), ())
    there = in_partition(run, 1)
    sink = in_parts(opened, redis_database)
    first, second = worker(sink), worker(in_parts(opened, redis_database))
    before_each_write(sink, at(moment, lambda: second.materialize(there, GO_ON)))
    first.materialize(here, GO_ON)
    home = {name: int(name in ["A", "C", "E"][moment - 1 :]) for name in SYMBOLS}
    found = redis_dump(redis_database)
    for partition, run in enumerate((here, there)):
        clean = clean_dump(opened, redis_database, [run])
        entities = [name for name in SYMBOLS if home[name] == partition]
        assert of_entities(found, entities) == of_entities(clean, entities)


def test_what_was_cached_before_another_writer_is_forgotten(
    opened: Opened, redis_database: str
) -> None:
    """That there was one is seen when an entity of another partition is loaded."""
    log = list(runs(ticks(SYMBOLS, 150, seq=False), (50, 100)))
    (known,), (new,) = (runs(ticks([name], 5, n), (), n) for name, n in (("X", 0), ("Y", 5)))
    work, other = worker(in_parts(opened, redis_database)), worker(in_parts(opened, redis_database))
    work.materialize(log[0], GO_ON)
    work.materialize(in_partition(known, 1), GO_ON)
    other.materialize(log[1], GO_ON)
    work.materialize(in_partition(new, 1), GO_ON)
    work.materialize(log[2], GO_ON)
    found = redis_dump(redis_database)
    others = [in_partition(run, 1) for run in (known, new)]
    assert found == clean_dump(opened, redis_database, [*log, *others])
