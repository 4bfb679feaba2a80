"""The worker's side of hot, step by step, on a real warm and a real hot."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from time import monotonic
from typing import Any

import pytest
import redis
from msgspec import structs

from pipelines.compute.entity_state import EntityState
from pipelines.kafka.run import Run
from pipelines.stores.redis.connection import WarmRedis
from pipelines.stores.redis.hot_feed import BEHIND_SECONDS
from pipelines.stores.redis.hot_redis import FEW_ENTITIES, Fed
from pipelines.stores.redis.restored_states import Restored, RestoredStates
from registry.formats.hot import MARK_MS, TOKEN_BYTES, lease_key, mark_key, row_key
from registry.formats.redis_keys import incarnations_key, watermark_key
from registry.formats.row import pack, unpack
from tests.support.cluster import Cluster
from tests.support.feeds import TOPIC, FeedingWorker
from tests.support.hot import Reader
from tests.support.logs import TOPIC_ID, runs
from tests.support.pipeline import wait_for
from tests.support.shipped import SOURCE
from tests.support.sinks import Opened, ticks
from tests.support.stored import stored_row

pytestmark = pytest.mark.timeout(60)

SYMBOLS = ["A", "B", "C", "D", "E"]
MARK = mark_key(TOPIC_ID, 0)
OTHER_TOPIC = bytes(range(16, 32))


def run_at(first: int, n: int = 10) -> Run:
    """Ticks of all symbols at the offsets from `first` on."""
    (run,) = runs(ticks(SYMBOLS, n, first), (), first)
    return run


@pytest.fixture
def warm(redis_database: str) -> Iterator[Any]:
    with redis.Redis.from_url(redis_database) as client:
        yield client


@pytest.fixture
def hot(hot_redis: str) -> Iterator[Any]:
    with redis.Redis.from_url(hot_redis) as client:
        client.flushall()
        yield client


@pytest.fixture(params=[0, FEW_ENTITIES], ids=["as of many rows", "as of few rows"])
def make(
    request: pytest.FixtureRequest, opened: Opened, redis_database: str, hot_redis: str, hot: Any
) -> Any:
    """Makes workers."""

    def one(clock: Callable[[], float] = monotonic) -> FeedingWorker:
        return FeedingWorker(opened, redis_database, hot_redis, clock=clock, few=request.param)

    return one


@pytest.fixture
def fed(make: Any) -> FeedingWorker:
    """A worker that has stored and fed one run, and whose mark lives."""
    made: FeedingWorker = make().take()
    made.store(run_at(0))
    made.feed.turn()
    return made


@pytest.fixture
def reader(hot: Any, warm: Any) -> Reader:
    return Reader(hot, warm, TOPIC_ID)


def test_a_row_in_hot_follows_warm(fed: FeedingWorker, reader: Reader, warm: Any) -> None:
    assert reader.promote("price", "A")
    before = reader.believed("price", "A")
    assert before == stored_row(warm, "price", "A")
    for first in (10, 20, 30):
        fed.store(run_at(first))
        fed.feed.turn()
        assert reader.believed("price", "A") == stored_row(warm, "price", "A") != before
    assert fed.feed.state == "fed"


def test_a_row_that_is_not_there_is_not_made(fed: FeedingWorker, reader: Reader) -> None:
    reader.promote("price", "A")
    fed.store(run_at(10))
    fed.feed.turn()
    assert sorted(reader.hot.keys("th:*")) == sorted([MARK.encode(), b"th:row:price:A"])


def test_a_row_that_was_evicted_is_not_made_again(fed: FeedingWorker, reader: Reader) -> None:
    reader.promote("price", "A")
    reader.hot.delete(row_key("price", "A"))
    fed.store(run_at(10))
    fed.feed.turn()
    assert reader.believed("price", "A") is None
    assert reader.promote("price", "A")


def test_a_promotion_is_refused_once_the_row_was_fed(
    fed: FeedingWorker, reader: Reader, warm: Any
) -> None:
    """The lease is taken, and warm is read, before the run."""
    late = reader.begin("price", "A")
    fed.store(run_at(10))
    fed.feed.turn()
    assert not reader.hot.exists(lease_key("price", "A"))
    assert not reader.finish(late)
    assert reader.believed("price", "A") == stored_row(warm, "price", "A")


def test_what_a_reader_wants_is_brought_in_with_the_next_run(
    fed: FeedingWorker, reader: Reader, warm: Any
) -> None:
    """However slow it is: of two runs the later one counts, and no other entity comes in."""
    reader.begin("price", "A")
    fed.store(run_at(10))
    fed.store(run_at(20))
    fed.feed.turn()
    assert reader.believed("price", "A") == stored_row(warm, "price", "A")
    assert sorted(reader.hot.keys("th:*")) == sorted([MARK.encode(), b"th:row:price:A"])


def test_what_was_wanted_and_is_not_any_more_is_not_made(
    fed: FeedingWorker, reader: Reader, hot: Any
) -> None:
    """Two rows are wanted; the lease of one ends."""
    for symbol in "AB":
        reader.begin("price", symbol)
    hot.delete(lease_key("price", "A"))
    fed.store(run_at(10))
    fed.feed.turn()
    assert reader.believed("price", "A") is None
    assert reader.believed("price", "B") is not None


def test_a_promotion_before_the_feed_is_overwritten(
    fed: FeedingWorker, reader: Reader, warm: Any
) -> None:
    late = reader.begin("price", "A")
    fed.store(run_at(10))
    assert reader.finish(late)
    assert reader.believed("price", "A") != stored_row(warm, "price", "A")
    fed.feed.turn()
    assert reader.believed("price", "A") == stored_row(warm, "price", "A")


def test_an_older_row_does_not_replace_a_newer_one(
    fed: FeedingWorker, reader: Reader, warm: Any
) -> None:
    """A reader has brought in what the second run stored, before the first one is fed."""
    fed.store(run_at(10))
    late = fed.hot_rows[-1]
    fed.store(run_at(20))
    fed.feed.turn()
    assert reader.promote("price", "B")
    assert fed.hot.feed([Fed(MARK, reader.hot.get(MARK), [late])]) == [True]
    assert reader.believed("price", "B") == stored_row(warm, "price", "B")


def test_a_paused_worker_writes_nothing_once_another_one_has_begun(
    fed: FeedingWorker, make: Any, reader: Reader, warm: Any
) -> None:
    fed.store(run_at(10))
    other: FeedingWorker = make().take()
    other.feed.turn()
    other.store(run_at(20))
    other.feed.turn()
    assert reader.promote("price", "A")
    held = reader.hot.get(MARK)
    fed.feed.turn()
    assert reader.hot.get(MARK) == held
    assert reader.believed("price", "A") == stored_row(warm, "price", "A")


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


class Ahead:
    """A clock that is ahead by some seconds."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return monotonic() + self.seconds


def test_a_worker_that_is_behind_feeds_nothing_until_it_has_caught_up(make: Any, hot: Any) -> None:
    clock = Ahead()
    late: FeedingWorker = make(clock).take()
    run = run_at(0)
    late.store(run)
    late.feed.turn()
    token = hot.get(MARK)
    assert token is not None
    late.now = float(run.timestamps[-1]) / 1_000 + BEHIND_SECONDS + 1
    late.store(run_at(10))
    late.feed.turn()
    assert (hot.get(MARK), late.feed.state) == (None, "the worker is behind")
    late.now = 0.0
    late.store(run_at(20))
    late.feed.turn()
    assert hot.get(MARK) is None
    clock.seconds = BEHIND_SECONDS
    late.feed.turn()
    assert hot.get(MARK) not in (None, token)
    assert late.feed.state == "fed"


def test_a_run_is_as_old_as_its_newest_record(make: Any, hot: Any) -> None:
    """Producers stamp records, so the last one may have the oldest time."""
    late: FeedingWorker = make().take()
    run = run_at(0)
    late.now = float(run.timestamps[0]) / 1_000 + 1
    run.timestamps[-1] -= int(1_000 * BEHIND_SECONDS) + 2_000
    late.store(run)
    late.feed.turn()
    assert (hot.get(MARK) is not None, late.feed.state) == (True, "fed")


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


def test_a_hot_that_forgot_its_scripts_is_fed_again(fed: FeedingWorker, reader: Reader) -> None:
    token = reader.hot.get(MARK)
    reader.hot.script_flush()
    fed.feed.turn()
    fed.feed.turn()
    assert reader.hot.get(MARK) not in (None, token)
    assert fed.feed.state == "fed"


def test_a_hot_that_does_not_answer_says_so(make: Any, opened: Opened, redis_database: str) -> None:
    nobody = FeedingWorker(opened, redis_database, "redis://127.0.0.1:1/0").take()
    nobody.store(run_at(0))
    nobody.feed.turn()
    assert "hot Redis" in nobody.feed.state


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


def test_feeding_does_not_count_as_use(fed: FeedingWorker, reader: Reader, hot: Any) -> None:
    """Else a bounded hot would keep what ticks often, and not what is asked for."""
    policy = hot.config_get("maxmemory-policy")["maxmemory-policy"]
    reader.promote("price", "A")
    reader.promote("price", "B")
    hot.config_set("maxmemory-policy", "allkeys-lfu")
    try:
        key = row_key("price", "A")
        hot.execute_command("OBJECT", "FREQ", key)
        before = hot.object("freq", key)
        for first in range(10, 400, 10):
            fed.store(run_at(first))
            fed.feed.turn()
        assert hot.object("freq", key) <= before
    finally:
        hot.config_set("maxmemory-policy", policy)


def test_a_row_of_the_wrong_length_is_removed(fed: FeedingWorker, hot: Any, reader: Reader) -> None:
    hot.set(row_key("price", "A"), hot.get(MARK) + b"short")
    fed.store(run_at(10))
    fed.feed.turn()
    assert hot.get(row_key("price", "A")) is None


def test_a_cluster_as_warm_is_fed_from(
    three: Cluster, opened: Opened, hot_redis: str, hot: Any
) -> None:
    work = FeedingWorker(opened, three.url, hot_redis, cluster=True).take()
    with redis.RedisCluster.from_url(three.url) as client:
        client.flushall(target_nodes="primaries")
        reader = Reader(hot, client, TOPIC_ID)
        work.store(run_at(0))
        work.feed.turn()
        assert reader.promote("price", "A")
        work.store(run_at(10))
        work.feed.turn()
        assert reader.believed("price", "A") == stored_row(client, "price", "A")
        assert len(hot.get(MARK)) == TOKEN_BYTES
