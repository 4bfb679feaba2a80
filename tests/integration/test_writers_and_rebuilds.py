"""Rebuilds of a single Redis between the scripts of a run, and before them."""

from __future__ import annotations

import pytest
import redis

from pipelines.errors import StoreWentBack
from registry.formats.redis_keys import writer_key
from tests.support.logs import TOPIC_ID, runs
from tests.support.rebuilds import KEPT, SYMBOLS, TOPIC, Stores, both, quiet
from tests.support.sinks import GO_ON, before_each_write, empty, ticks, worker
from tests.support.writers import at

pytestmark = pytest.mark.timeout(120)


PARTS = 5
"""Of nine entities, two at a time."""


@pytest.fixture
def in_parts(stores: Stores) -> None:
    """A run of all symbols is stored in `PARTS` parts."""
    stores.entities_a_call = 2


@pytest.mark.usefixtures("in_parts")
@pytest.mark.parametrize("lost", [(), ("S0", "S8"), tuple(SYMBOLS)])
def test_a_rebuild_puts_what_a_worker_knows_ahead_of_the_watermark(
    stores: Stores, lost: tuple[str, ...]
) -> None:
    """Postgres is farther than Redis, and the worker has loaded what is older, or has written it
    since; some states were lost by hand, so the rebuild writes those that the worker knows too."""
    log = list(runs(ticks(SYMBOLS, 360), (90, 180, 270)))
    both(stores, log)
    expected = stores.rows(), stores.states(SYMBOLS)

    def rebuild() -> None:
        stores.forget(*lost)
        stores.rebuild().refill(KEPT, TOPIC, quiet)

    for moment in (1, 3, PARTS):
        empty(stores.redis_url, stores.postgres)
        sink, offline = stores.sink(), stores.offline()
        online = worker(sink)
        online.materialize(log[0], GO_ON)
        for run in log[:3]:
            offline.materialize(run, GO_ON)
        before_each_write(sink, at(moment, rebuild))
        assert online.materialize(log[1], GO_ON) is None
        assert sink.watermarks(TOPIC_ID, [0]) == {0: 270}
        assert online.materialize(log[2], GO_ON) is None
        online.materialize(log[3], GO_ON)
        assert (stores.rows(), stores.states(SYMBOLS)) == expected


@pytest.mark.usefixtures("in_parts")
@pytest.mark.parametrize("ahead", [0, 1, 2])
def test_redis_is_emptied_and_filled_again_in_the_middle_of_a_run(
    stores: Stores, ahead: int
) -> None:
    """Postgres has no more than the worker has confirmed, or the run too, or the one after it."""
    log = list(runs(ticks(SYMBOLS, 360), (90, 180, 270)))
    both(stores, log)
    expected = stores.rows(), stores.states(SYMBOLS)

    def fill() -> None:
        stores.flush()
        stores.rebuild().fill(KEPT, TOPIC, quiet)

    for moment in (1, 3, PARTS):
        empty(stores.redis_url, stores.postgres)
        both(stores, log[:1])
        sink, offline = stores.sink(), stores.offline()
        sink.watermarks(TOPIC_ID, [0])
        for run in log[1 : 1 + ahead]:
            offline.materialize(run, GO_ON)
        online = worker(sink)
        before_each_write(sink, at(moment, fill))
        is_stored = online.materialize(log[1], GO_ON) is not None
        assert is_stored == (ahead == 0)
        for run in log[2:]:
            online.materialize(run, GO_ON)
        assert (stores.rows(), stores.states(SYMBOLS)) == expected


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
            stores.rebuild().refill(KEPT, TOPIC, quiet)
            assert client.get(key) == (None if is_written else writes)
