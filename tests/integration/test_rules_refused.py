"""Rules of a source that change: who comes too late, and when they do not begin."""

from __future__ import annotations

import threading
from contextlib import closing

import psycopg2
import pytest
import redis

from pipelines.errors import (
    HomesElsewhere,
    HomesUnknown,
    OtherRules,
    PartitionHeld,
    ReadTopicMissing,
    StoresApart,
    WorkersAlive,
)
from pipelines.replay.ranges import Wanted
from pipelines.stores.postgres.offline_sink import OfflineSink
from pipelines.stores.redis.online_sink import OnlineSink
from registry.catalog import decode
from registry.errors import RulesChanged
from registry.formats.redis_keys import CATALOG_KEY, watermark_key
from registry.source_rules import SourceRules
from tests.support.changed_rules import (
    FIRST,
    OTHER,
    StoredMeanwhile,
    declare,
    empty_redis,
    fill,
    from_now,
    messages,
    next_run,
    stored,
    worker_of,
)
from tests.support.pipeline import Pipeline
from tests.support.replays import (
    GO_ON,
    catalog_of,
    execute,
    live,
    offline_sink,
    online_sink,
    ranges_of,
    recreate,
    replay,
    work_of,
)
from tests.support.served import beat
from tests.support.sinks import redis_dump
from tickwell.migrate import migrate

BOTH = (offline_sink, online_sink)


# -- who comes too late


@pytest.mark.parametrize("entities_a_call", [500, 1], ids=["at once", "in steps"])
def test_a_worker_of_before_stores_nothing_by_rules_that_are_over(
    both: Pipeline, entities_a_call: int
) -> None:
    """It was stopped in the middle of a run for so long that it counted as dead."""
    both.produce("price", messages(40, 1))
    for sink in BOTH:
        live(both, open_sink=sink)
    sinks = (
        OfflineSink(both.settings.postgres),
        OnlineSink(both.settings.redis, entities_a_call=entities_a_call),
    )
    topic = both.topics[both.topic("price")]
    for sink in sinks:
        sink.watermarks(topic.topic_id, range(2))
    before = [worker_of(both, sink) for sink in sinks]
    run, marks = next_run(both, 10), stored(both)
    declare(both, 'skew = "7s"\npartitioner = "any"')
    from_now(both)
    for worker in before:
        with pytest.raises(OtherRules, match="other rules of price were recorded"):
            worker.materialize(run, GO_ON)
    assert stored(both) == marks
    for sink in sinks:
        assert worker_of(both, sink).materialize(run, GO_ON) is not None
        sink.close()
    assert [mark[0] for mark in stored(both)] == [run.next_offset, marks[1][0]]


@pytest.mark.parametrize("entities_a_call", [500, 1], ids=["at once", "in steps"])
def test_a_worker_of_before_stores_nothing_by_rules_that_changed_twice(
    both: Pipeline, entities_a_call: int
) -> None:
    """Redis was behind at the first change already; the newest rules begin after the run."""
    both.produce("price", messages(300, 1))
    live(both, Wanted(cold=True, to_offset=40), online_sink)
    sink = OnlineSink(both.settings.redis, entities_a_call=entities_a_call)
    before = worker_of(both, sink)
    for offset, rules in ((60, 'skew = "7s"'), (90, 'skew = "8s"')):
        live(both, Wanted(cold=True, to_offset=offset))
        declare(both, rules)
        from_now(both)
    run = next_run(both, 50, sink)
    assert (run.base_offset, run.next_offset) == (40, 90)
    with pytest.raises(OtherRules):
        before.materialize(run, GO_ON)
    # it may start again while Postgres is away
    with redis.Redis.from_url(both.settings.redis) as client:
        assert decode(client.get(CATALOG_KEY)) == catalog_of(both)
    live(both, open_sink=online_sink)
    sink.close()


def test_a_redis_that_was_lost_knows_the_rules_again(both: Pipeline) -> None:
    """A worker of before comes back when Redis was emptied, and filled from Postgres."""
    both.produce("price", messages(40, 1))
    for sink in BOTH:
        live(both, open_sink=sink)
    late = OnlineSink(both.settings.redis)
    before, run = worker_of(both, late), next_run(both, 10)
    for rules in ('skew = "7s"', 'skew = "8s"'):
        declare(both, rules)
        from_now(both)
    known = rules_in_redis(both)
    empty_redis(both)
    fill(both)
    assert rules_in_redis(both) == known != {}
    with pytest.raises(OtherRules):
        before.materialize(run, GO_ON)
    late.close()


def rules_in_redis(running: Pipeline) -> dict[bytes, bytes]:
    dump = redis_dump(running.settings.redis)
    return {key: rules for key, rules in dump.items() if key.startswith(b"tw:3:rules:")}


@pytest.mark.parametrize("stored_before", [0, 20], ids=["copied", "staged"])
def test_a_replay_of_before_stores_nothing_by_rules_that_are_over(
    both: Pipeline, stored_before: int
) -> None:
    """It was planned before the rules changed, beside what live has stored or alone."""
    both.produce("price", messages(100, 1))
    if stored_before:
        live(both, Wanted(cold=True, to_offset=stored_before))
    work, (part, _) = work_of(both), ranges_of(both)
    declare(both, 'skew = "7s"')
    (change,) = from_now(both)
    assert change.starts[0].offset == stored_before
    with pytest.raises(OtherRules):
        work.run(part, lambda done: None, GO_ON)
    newest = both.query('SELECT max("offset") FROM tickwell.feature_rows WHERE partition = 0')
    assert (newest[0][0] or 0) < max(stored_before, 1)
    assert replay(both).new_rows > 0


# -- when rules do not begin


def test_workers_that_are_alive_hold_up_other_rules(both: Pipeline) -> None:
    declare(both, OTHER)
    ended = threading.Event()

    def beats() -> None:
        while not ended.wait(0.1):
            beat(both.settings.redis, partitions=0)

    beat(both.settings.redis, partitions=0)  # or the first look could come before the first one
    alive = threading.Thread(target=beats)
    alive.start()
    try:
        with pytest.raises(WorkersAlive, match=r"alive are (offline|online) one.*: stop them"):
            from_now(both)
    finally:
        ended.set()
        alive.join()
    with pytest.raises(RulesChanged):
        migrate(both.settings)
    # the last heartbeat of one that has ended is waited for
    assert len(from_now(both, silent=1.0)) == 1


def test_rules_that_are_refused_for_one_source_begin_for_none(both: Pipeline) -> None:
    both.produce("price", messages(40, 1))
    live(both)
    topic_id = both.topics[both.topic("volume")].topic_id
    with redis.Redis.from_url(both.settings.redis) as client:
        client.set(watermark_key(topic_id, 0), 20)
    declare(both, 'skew = "7s"')
    declare(both, 'skew = "7s"\npartitioner = "crc32"', "volume")
    with pytest.raises(StoresApart):
        from_now(both)
    with redis.Redis.from_url(both.settings.redis) as client:
        assert client.keys("tw:3:rules:*") == []
    declare(both, 'skew = "7s"', "volume")
    assert len(from_now(both)) == 2


# -- who is at work meanwhile


def test_a_worker_that_turns_out_to_be_alive_works_on(both: Pipeline) -> None:
    """It stores a run of one partition when Redis was told of the other one already."""
    both.produce("price", messages(40, 1))
    live(both)
    live(both, open_sink=online_sink)
    from_now(both)  # writes the copy of the catalog
    sink = OnlineSink(both.settings.redis)
    worker, run = worker_of(both, sink), next_run(both, 10, sink)
    before = catalog_of(both)
    declare(both, 'skew = "7s"')
    with pytest.raises(WorkersAlive, match=r"has just stored a run of .*\[1\]"):
        from_now(both, warm=StoredMeanwhile(both, 1))
    assert catalog_of(both) == before
    assert rules_in_redis(both) == {}
    with redis.Redis.from_url(both.settings.redis) as client:
        assert decode(client.get(CATALOG_KEY)) == before
    assert worker.materialize(run, GO_ON) is not None
    sink.close()


def test_a_worker_that_begins_meanwhile_waits(both: Pipeline) -> None:
    both.produce("price", messages(40, 1))
    live(both)
    topic = both.topics[both.topic("price")]

    def begin() -> None:
        with closing(OfflineSink(both.settings.postgres)) as sink, pytest.raises(PartitionHeld):
            sink.watermarks(topic.topic_id, range(2))

    declare(both, 'skew = "7s"')
    (change,) = from_now(both, before_the_end=begin)
    newest = SourceRules.of(catalog_of(both), "price").newest
    assert (newest.source.skew_ns, newest.starts) == (7 * 10**9, change.starts)


def test_a_replay_that_is_stopped_with_a_partition_is_ended(both: Pipeline) -> None:
    """Also in a database that live never wrote to."""
    topic = both.topics[both.topic("price")]
    stopped = psycopg2.connect(both.settings.postgres)
    with stopped.cursor() as cursor:
        lock = "SELECT pg_advisory_xact_lock(tickwell.partition_lock(%s::uuid, 0))"
        cursor.execute(lock, (topic.topic_id.hex(),))
        declare(both, 'skew = "7s"')
        assert len(from_now(both)) == 1
        with pytest.raises(psycopg2.OperationalError):
            cursor.execute("SELECT 1")
    stopped.close()


def test_heartbeats_are_waited_for_longer_than_a_transaction_may_idle(both: Pipeline) -> None:
    name = both.settings.postgres.rsplit("/", 1)[1]
    execute(both, f"ALTER DATABASE \"{name}\" SET idle_in_transaction_session_timeout = '300ms'")
    beat(both.settings.redis, partitions=0)
    declare(both, 'skew = "7s"')
    assert len(from_now(both, silent=1.5)) == 1


# -- entities stay at home


def test_keys_that_would_move_are_told_before_their_ticks_are_refused(both: Pipeline) -> None:
    declare(both, 'partitioner = "any"')
    from_now(both)
    both.produce("price", messages(40, 1), both.producer(partitioner="consistent_random"))
    live(both, open_sink=online_sink)
    declare(both, 'partitioner = "murmur2"')
    with pytest.raises(StoresApart, match=r"in Redis and 0 in Postgres.*at home"):
        from_now(both)
    live(both)
    with pytest.raises(HomesElsewhere, match=r"by murmur2 \d of 8 keys belong.*'S\d' would move"):
        from_now(both)
    declare(both, 'partitioner = "fnv1a"\nmessage_key = "any"')
    with pytest.raises(HomesUnknown, match=r'message_key = "any".*where fnv1a puts'):
        from_now(both)
    declare(both, 'partitioner = "crc32"')
    assert "partitioner `any` became `crc32`" in str(from_now(both)[0])


def test_keys_of_a_topic_that_the_broker_lacks_would_move(both: Pipeline) -> None:
    """It may be at another broker: nothing begins that would spoil it there."""
    both.produce("price", messages(40, 1))
    live(both)
    recorded = SourceRules.of(catalog_of(both), "price").newest.id
    recreate(both)
    declare(both, 'partitioner = "crc32"')
    with pytest.raises(ReadTopicMissing, match=r"TICKWELL_KAFKA.*by crc32 \d of 8 keys.*deleted"):
        from_now(both)
    assert SourceRules.of(catalog_of(both), "price").newest.id == recorded


@pytest.mark.parametrize("until_then", [FIRST, 'partitioner = "any"'])
def test_keys_may_move_once_a_topic_that_was_made_anew_is_read(
    both: Pipeline, until_then: str
) -> None:
    both.produce("price", messages(40, 1))
    live(both)
    recreate(both)
    if until_then != FIRST:
        both.produce("price", messages(40, 2), both.producer(partitioner="consistent_random"))
    declare(both, until_then)
    from_now(both)
    with closing(offline_sink(both)) as sink:
        sink.settle(both.topics[both.topic("price")])  # as a worker does before it reads
    live(both)
    declare(both, 'partitioner = "crc32"')
    (change,) = from_now(both)
    assert "right?" not in str(change)
