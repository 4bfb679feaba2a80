"""Rebuilds of a single Redis between the scripts of a run, and before them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis

from pipelines.errors import StoreWentBack
from registry.formats.redis_keys import writer_key
from tests.support.logs import TOPIC_ID, runs
from tests.support.rebuilds import SYMBOLS, TOPIC, Stores, both, quiet
from tests.support.shipped import SOURCE
from tests.support.sinks import GO_ON, before_each_write, empty, ticks, worker


def at(moment: int, act: Callable[[], object]) -> Callable[[int], None]:
    """Acts before the script of this number, counted from 1."""
    return lambda number: (act(), None)[1] if number == moment else None


PARTS = 5
"""Of nine entities, two at a time."""


@pytest.fixture
def in_parts(stores: Stores) -> None:
    """A run of all symbols is stored in `PARTS` parts."""
    stores.entities_a_call = 2


@pytest.mark.usefixtures("in_parts")
@pytest.mark.parametrize("moment", [1, 3, PARTS])
@pytest.mark.parametrize("lost", [(), ("S0",), ("S8",), tuple(SYMBOLS)])
def test_a_rebuild_puts_what_a_worker_knows_ahead_of_the_watermark(
    stores: Stores, moment: int, lost: tuple[str, ...]
) -> None:
    """Postgres is farther than Redis, and the worker has loaded what is older, or has written it
    since; some states were lost by hand, so the rebuild writes those that the worker knows too."""
    log = list(runs(ticks(SYMBOLS, 360), (90, 180, 270)))
    sink, offline = stores.sink(), stores.offline()
    online = worker(sink)
    online.materialize(log[0], GO_ON)
    for run in log[:3]:
        offline.materialize(run, GO_ON)

    def rebuild() -> None:
        stores.forget(*lost)
        stores.rebuild().refill(SOURCE, TOPIC, quiet)

    before_each_write(sink, at(moment, rebuild))
    assert online.materialize(log[1], GO_ON) is None
    assert sink.watermarks(TOPIC_ID, [0]) == {0: 270}
    assert online.materialize(log[2], GO_ON) is None
    online.materialize(log[3], GO_ON)
    offline.materialize(log[3], GO_ON)
    found = stores.rows(), stores.states(SYMBOLS)
    empty(stores.redis_url, stores.postgres)
    both(stores, log)
    assert (stores.rows(), stores.states(SYMBOLS)) == found


@pytest.mark.usefixtures("in_parts")
@pytest.mark.parametrize("moment", range(1, PARTS + 1))
@pytest.mark.parametrize("ahead", [0, 1, 2])
def test_redis_is_emptied_and_filled_again_in_the_middle_of_a_run(
    stores: Stores, moment: int, ahead: int
) -> None:
    """Postgres has no more than the worker has confirmed, or the run too, or the one after it."""
    log = list(runs(ticks(SYMBOLS, 360), (90, 180, 270)))
    both(stores, log[:1])
    sink, offline = stores.sink(), stores.offline()
    sink.watermarks(TOPIC_ID, [0])
    online = worker(sink)
    for run in log[1 : 1 + ahead]:
        offline.materialize(run, GO_ON)

    def fill() -> None:
        stores.flush()
        stores.rebuild().fill(SOURCE, TOPIC, quiet)

    before_each_write(sink, at(moment, fill))
    is_stored = online.materialize(log[1], GO_ON) is not None
    assert is_stored == (ahead == 0)
    for run in log[2:]:
        online.materialize(run, GO_ON)
    for run in log[1 + ahead :]:
        offline.materialize(run, GO_ON)
    found = stores.rows(), stores.states(SYMBOLS)
    empty(stores.redis_url, stores.postgres)
    both(stores, log)
    assert (stores.rows(), stores.states(SYMBOLS)) == found


@pytest.mark.usefixtures("in_parts")
def test_redis_is_emptied_in_the_middle_of_a_run(stores: Stores) -> None:
    """It is not filled yet: nothing is written to it."""
    log = list(runs(ticks(SYMBOLS, 180), (90,)))
    both(stores, log[:1])
    sink = stores.sink()
    sink.watermarks(TOPIC_ID, [0])
    before_each_write(sink, at(3, stores.flush))
    with pytest.raises(StoreWentBack):
        worker(sink).materialize(log[1], GO_ON)
    with redis.Redis.from_url(stores.redis_url) as client:
        assert [key for key in client.keys("*") if b":writer:" not in key] == []


def test_a_rebuild_ends_the_writing_of_the_partitions_that_it_writes(stores: Stores) -> None:
    log = list(runs(ticks(SYMBOLS, 180), (90,)))
    both(stores, log)
    key = writer_key(TOPIC_ID, 0)
    with redis.Redis.from_url(stores.redis_url) as client:
        for lost, is_written in ((), False), (("S1",), True):
            stores.forget(*lost)
            writes = client.get(key)
            stores.rebuild().refill(SOURCE, TOPIC, quiet)
            assert client.get(key) == (None if is_written else writes)
