"""The worker's side of hot, step by step, on a real warm and a real hot: when a mark lives."""

from __future__ import annotations

from dataclasses import replace
from time import monotonic
from typing import Any

import pytest
from msgspec import structs

from pipelines.compute.entity_state import EntityState
from pipelines.stores.redis.connection import WarmRedis
from pipelines.stores.redis.restored_states import Restored, RestoredStates
from registry.formats.hot import MARK_MS, mark_key
from registry.formats.redis_keys import incarnations_key, watermark_key
from registry.formats.row import pack, unpack
from tests.support.feeds import MARK, OTHER_TOPIC, TOPIC, FeedingWorker, run_at
from tests.support.hot import Reader
from tests.support.logs import TOPIC_ID
from tests.support.pipeline import wait_for
from tests.support.shipped import SOURCE
from tests.support.sinks import Opened
from tests.support.stored import stored_row

pytestmark = pytest.mark.timeout(60)


def test_a_paused_worker_does_not_renew_a_mark_that_has_ended(
    fed: FeedingWorker, reader: Reader
) -> None:
    """It was stopped for more than a second, and goes on at once."""
    reader.promote("price", "A")
    token = reader.hot.get(MARK)
    wait_for("the mark has ended", lambda: reader.hot.get(MARK) is None, patience=5)
    assert reader.believed("price", "A") is None
    fed.feed.turn()
    fed.feed.turn()
    assert reader.hot.get(MARK) not in (None, token)
    assert reader.believed("price", "A") is None


def test_a_mark_lives_no_longer_than_a_second(fed: FeedingWorker, hot: Any) -> None:
    for _ in range(5):
        fed.feed.turn()
        assert 0 < hot.pttl(MARK) <= MARK_MS


class Stopping:
    """A clock that runs ahead once, by `seconds`, when it is read for the `at`-th time."""

    def __init__(self) -> None:
        self.reads = 0
        self.at = 10**9
        self.seconds = 0.0

    def __call__(self) -> float:
        self.reads += 1
        return monotonic() + (self.seconds if self.reads >= self.at else 0.0)


@pytest.mark.parametrize("read", range(1, 9))
def test_a_worker_that_is_stopped_in_a_turn(
    make: Any, reader: Reader, warm: Any, read: int
) -> None:
    """Between any two of its steps; the mark counts from before the stop, or is given up."""
    clock = Stopping()
    stopped: FeedingWorker = make(clock).take()
    stopped.store(run_at(0))
    stopped.feed.turn()
    assert reader.promote("price", "A")
    stopped.store(run_at(10))
    clock.at, clock.seconds = clock.reads + read, 0.9
    stopped.feed.turn()
    now = stored_row(warm, "price", "A")
    assert reader.believed("price", "A") in (None, now)


def test_the_mark_ends_when_the_watermark_moves_without_the_worker(
    fed: FeedingWorker, reader: Reader, warm: Any
) -> None:
    reader.promote("price", "A")
    token = reader.hot.get(MARK)
    warm.set(watermark_key(TOPIC_ID, 0), 5)
    fed.feed.turn()
    assert reader.hot.get(MARK) is None
    fed.feed.turn()
    assert reader.hot.get(MARK) is None, "another worker seems to write it"
    fed.take()
    fed.feed.turn()
    assert reader.hot.get(MARK) not in (None, token)
    assert reader.believed("price", "A") is None


def test_a_worker_that_another_one_has_replaced_leaves_its_mark_alone(
    fed: FeedingWorker, make: Any, reader: Reader
) -> None:
    """It has not heard of it. Else the two would void each other's marks for ever."""
    other: FeedingWorker = make().take()
    other.store(run_at(10))
    other.feed.turn()
    token = reader.hot.get(MARK)
    for first in (20, 30, 40):
        fed.feed.turn()
        other.store(run_at(first))
        other.feed.turn()
    fed.feed.turn()
    assert reader.hot.get(MARK) == token
    assert (fed.feed.state == "fed", other.feed.state) == (False, "fed")


def test_no_mark_lives_while_warm_is_empty(fed: FeedingWorker, reader: Reader, warm: Any) -> None:
    reader.promote("price", "A")
    warm.flushall()
    for _ in range(3):
        fed.feed.turn()
        assert reader.hot.get(MARK) is None


def test_no_mark_lives_while_the_topic_is_another_one(
    fed: FeedingWorker, reader: Reader, warm: Any
) -> None:
    reader.promote("price", "A")
    warm.rpush(incarnations_key(TOPIC), OTHER_TOPIC.hex())
    for _ in range(3):
        fed.feed.turn()
        assert reader.hot.get(MARK) is None


def test_a_late_worker_of_a_topic_that_was_recreated(
    fed: FeedingWorker, make: Any, reader: Reader, warm: Any
) -> None:
    """It has confirmed a run, and feeds it once the new topic's row is in hot."""
    fed.store(run_at(10))
    other: FeedingWorker = make().take(topic_id=OTHER_TOPIC)
    other.store(replace(run_at(20), topic_id=OTHER_TOPIC))
    other.feed.turn()
    newer = Reader(reader.hot, warm, OTHER_TOPIC)
    assert newer.promote("price", "A")
    fed.feed.turn()
    assert reader.believed("price", "A") in (None, stored_row(warm, "price", "A"))


def test_after_a_refused_run_no_mark_lives_until_one_is_stored(
    fed: FeedingWorker, reader: Reader, warm: Any
) -> None:
    reader.promote("price", "A")
    token = reader.hot.get(MARK)
    computed = fed.work.compute_ahead(run_at(10))
    assert computed is not None
    warm.config_set("maxmemory", 1)
    try:
        assert fed.work.store(computed) is None
    finally:
        warm.config_set("maxmemory", 0)
    for _ in range(3):
        fed.feed.turn()
        assert reader.hot.get(MARK) is None
    fed.store(run_at(10))
    fed.feed.turn()
    assert reader.hot.get(MARK) not in (None, token)
    assert reader.believed("price", "A") is None
    assert reader.promote("price", "A")
    assert reader.believed("price", "A") == stored_row(warm, "price", "A")


def test_a_hot_that_was_emptied_gets_a_new_token(fed: FeedingWorker, reader: Reader) -> None:
    token = reader.hot.get(MARK)
    reader.hot.flushall()
    fed.store(run_at(10))
    fed.feed.turn()
    fed.feed.turn()
    assert reader.hot.get(MARK) not in (None, token)
    assert reader.promote("price", "A")


def test_each_assignment_has_a_new_token(fed: FeedingWorker, reader: Reader) -> None:
    reader.promote("price", "A")
    token = reader.hot.get(MARK)
    fed.take()
    fed.feed.turn()
    assert reader.hot.get(MARK) not in (None, token)
    assert reader.believed("price", "A") is None
    fed.feed.assigned([])
    fed.feed.turn()
    assert reader.hot.get(MARK) is None
    assert fed.feed.state == ""


def test_a_partition_without_ticks_has_a_mark(make: Any, fed: FeedingWorker, hot: Any) -> None:
    """Its rows are served from hot too. It was stored by a worker before."""
    other: FeedingWorker = make().take()
    for _ in range(3):
        other.feed.turn()
        assert hot.get(MARK) is not None
    fresh = mark_key(TOPIC_ID, 1)
    other.take(0, 1)
    other.feed.turn()
    assert hot.get(fresh) is None, "warm has nothing of that partition"


def test_another_sink_that_writes_ends_the_mark_before_the_watermark_moves(
    fed: FeedingWorker, make: Any, reader: Reader
) -> None:
    other: FeedingWorker = make()
    assert other.sink.begin(TOPIC_ID, 0)
    fed.feed.turn()
    assert reader.hot.get(MARK) is None


def test_a_rebuild_that_writes_ends_the_mark(
    fed: FeedingWorker, reader: Reader, opened: Opened, redis_database: str, warm: Any
) -> None:
    """On top of exactly what is stored; the worker's watermark does not move."""
    reader.promote("price", "A")
    target = RestoredStates(opened(WarmRedis(redis_database)))
    restore_newer(target, warm)
    for _ in range(3):
        fed.feed.turn()
        assert reader.hot.get(MARK) is None
        assert fed.feed.state == "a rebuild writes its entities"
    assert reader.believed("price", "A") is None


def restore_newer(target: RestoredStates, warm: Any) -> None:
    """Puts a row and a state of A there that are ahead of the watermark."""
    stored: EntityState = target.stored(SOURCE, ["A"])["A"]
    row = unpack(stored_row(warm, "price", "A"))
    origin = structs.replace(row.origin, offset=15)
    state, newer = replace(stored, origin=origin), structs.replace(row, origin=origin)
    assert target.put(SOURCE, [Restored("A", state, pack(newer))], {"A": stored}) == set()
