"""The worker's side of hot, step by step, on a real warm and a real hot: which rows come in."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
import redis

from pipelines.stores.redis.hot_feed import BEHIND_SECONDS
from pipelines.stores.redis.hot_redis import Fed, Rows
from pipelines.stores.redis.resp import Texts
from registry.formats.hot import TOKEN_BYTES, lease_key, row_key
from registry.formats.row import pack, unpack
from tests.support.cluster import Cluster
from tests.support.feeds import MARK, Ahead, FeedingWorker, run_at
from tests.support.hot import Reader
from tests.support.logs import TOPIC_ID
from tests.support.sinks import Opened
from tests.support.stored import store_row, stored_row

pytestmark = pytest.mark.timeout(60)


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


# -- rows of the same tick in a newer row schema


def carried(warm: Any, symbol: str, schema_id: int = 9) -> Rows:
    """Has warm hold the row of a symbol in a newer row schema; gives what is fed of it."""
    row = pack(
        msgspec.structs.replace(unpack(stored_row(warm, "price", symbol)), schema_id=schema_id)
    )
    store_row(warm, "price", symbol, row)
    names = Texts.of(symbol.encode(), np.array([0, len(symbol)]))
    return Rows("price", names, np.frombuffer(row, np.uint8).reshape(1, -1))


def test_a_row_in_a_newer_row_schema_replaces_that_of_the_same_tick(
    fed: FeedingWorker, reader: Reader, warm: Any
) -> None:
    """Also where a reader has a lease, and has read the older one."""
    assert reader.promote("price", "A")
    late = reader.begin("price", "B")
    for symbol in "AB":
        rows = carried(warm, symbol)
        fed.feed.carried("ticks.price", TOPIC_ID, 0, rows, fed.feed.now())
    fed.feed.turn()
    assert not reader.finish(late)
    for symbol in "AB":
        assert reader.believed("price", symbol) == stored_row(warm, "price", symbol)
    assert fed.feed.state == "fed"


def test_a_row_in_an_older_row_schema_that_is_fed_late_is_left_out(
    fed: FeedingWorker, reader: Reader, warm: Any
) -> None:
    """A reader has put in what warm has now."""
    older = carried(warm, "A", 8)
    carried(warm, "A")
    assert reader.promote("price", "A")
    fed.feed.carried("ticks.price", TOPIC_ID, 0, older, fed.feed.now())
    fed.feed.turn()
    assert reader.believed("price", "A") == stored_row(warm, "price", "A")


def test_a_row_of_a_partition_that_another_worker_feeds_is_removed(
    make: Any, fed: FeedingWorker, reader: Reader, warm: Any
) -> None:
    """That worker does not know of the newer one."""
    assert reader.promote("price", "A")
    late = reader.begin("price", "B")
    lost = make()
    for symbol in "AB":
        rows = carried(warm, symbol)
        lost.feed.carried("ticks.price", TOPIC_ID, 0, rows, lost.feed.now())
    lost.feed.turn()
    assert reader.believed("price", "A") is None
    assert not reader.finish(late)
    assert fed.feed.state == "fed"
    assert reader.promote("price", "A")
    assert reader.believed("price", "A") == stored_row(warm, "price", "A")
