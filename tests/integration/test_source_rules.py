"""Rules of a source that change: what each store, a replay and a worker of before make of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import redis
from confluent_kafka.admin import AdminClient

from pipelines.compute.run_computation import RunComputation
from pipelines.errors import (
    HomesElsewhere,
    HomesUnknown,
    OtherRules,
    RangeMistaken,
    StoresApart,
    TopicElsewhere,
    WorkersAlive,
)
from pipelines.kafka.run import Run
from pipelines.kafka.topics import existing
from pipelines.live.materializer import Materializer
from pipelines.rebuild.rebuild import Rebuild
from pipelines.replay.ranges import Wanted
from pipelines.stores.postgres.offline_sink import OfflineSink
from pipelines.stores.redis.connection import WarmRedis
from pipelines.stores.redis.online_sink import OnlineSink
from pipelines.stores.sink import Sink
from registry.catalog import decode
from registry.errors import RulesChanged, RulesOfEarlierBuild
from registry.formats.redis_keys import CATALOG_KEY, FILLED_MARK, filled_key, watermark_key
from registry.language.program import compile_program
from registry.source_rules import SourceRules
from tests.support.changed_rules import (
    FIRST,
    OTHER,
    Killed,
    KilledHalfWay,
    declare,
    from_now,
    messages,
    of_other_rules,
)
from tests.support.logs import run_of_columns
from tests.support.pipeline import Pipeline, pipeline, wait_for
from tests.support.replays import (
    GO_ON,
    catalog_of,
    execute,
    live,
    offline_sink,
    online_sink,
    ranges_of,
    replay,
    work_of,
)
from tests.support.served import beat
from tests.support.sinks import before_each_write, redis_dump
from tickwell.migrate import migrate

BOTH = (offline_sink, online_sink)


@pytest.fixture
def both(
    tmp_path: Path, kafka: str, redis_database: str, postgres_database: str
) -> Iterator[Pipeline]:
    """Topics of two partitions, tables and a Redis."""
    with pipeline(tmp_path, kafka, redis_database, "", postgres_database, partitions=2) as made:
        yield made


def stored(running: Pipeline) -> list[tuple[int, ...]]:
    """The watermarks of the price topic in both stores, by partition."""
    topic_id = running.topics[running.topic("price")].topic_id
    known = running.query(
        "SELECT partition, next_offset FROM tickwell.watermarks WHERE topic_id = %s::uuid",
        topic_id.hex(),
    )
    with redis.Redis.from_url(running.settings.redis) as client:
        online = [client.get(f"tw:watermark:{topic_id.hex()}:{n}") for n in range(2)]
    return [(dict(known).get(n, 0), int(online[n] or 0)) for n in range(2)]


def truncate(running: Pipeline) -> None:
    execute(
        running,
        "TRUNCATE tickwell.feature_rows, tickwell.entities, tickwell.watermarks,"
        " tickwell.rejected_ticks, tickwell.replays",
    )


def rejected(running: Pipeline) -> list[tuple[object, ...]]:
    return running.query(
        'SELECT partition, "offset", index, reason, detail FROM tickwell.rejected_ticks'
        " ORDER BY 1, 2, 3"
    )


def test_every_offset_is_decided_by_the_rules_that_held_there(both: Pipeline) -> None:
    """The store that is behind decides what it lacks as the other one did."""
    both.produce("price", messages(300, 1))
    live(both, open_sink=online_sink)
    live(both, Wanted(cold=True, to_offset=60))
    declare(both, OTHER)
    with pytest.raises(RulesChanged, match=r"ts_unit `ms` would become `s`.*--from-now"):
        migrate(both.settings)
    before = stored(both)
    (change,) = from_now(both)
    begins = [online for _, online in before]
    assert all(offline < online for offline, online in before)
    assert [start.offset for start in change.starts] == begins
    assert f"[1] offset {begins[1]}" in str(change)
    assert from_now(both) == []

    both.produce("price", [*of_other_rules(200, 2), *messages(5, 3)])
    for sink in BOTH:
        dump = live(both, open_sink=sink)
    told = rejected(both)
    places = both.query('SELECT partition, "offset" FROM tickwell.feature_rows')
    assert {n for n, offset in places if offset >= begins[n]} == {0, 1}
    assert len(places) + len(told) + passed_over(both, begins) == 505

    assert replay(both).new_rows == 0
    truncate(both)
    assert replay(both).new_rows == len(places)
    assert (both.dump(), rejected(both)) == (dump, told)
    declare(both, 'ts_unit = "ms"')
    with pytest.raises(RulesChanged):  # back to the first ones is a change as well
        migrate(both.settings)


def passed_over(running: Pipeline, begins: list[int]) -> int:
    """How many records after these offsets are of another kind than the second rules'."""
    records = running.records(running.topic("price"))
    after = [record for record in records if record.offset >= begins[record.partition]]
    return sum(b'"trade"' not in (record.value or b"") for record in after)


# -- who comes too late


def worker_of(running: Pipeline, sink: Sink) -> Materializer:
    """A worker that begins now."""
    catalog = catalog_of(running)
    schema = catalog.schemas[catalog.writing["price"]]
    rules, program = SourceRules.of(catalog, "price"), compile_program(catalog, schema)
    return Materializer(RunComputation(rules, schema, program, 1000), sink)


def next_run(running: Pipeline, n: int, sink: Sink | None = None) -> Run:
    """The next records of partition 0 as one run, with ticks of the first rules.

    They follow what `sink` has stored, or Postgres.
    """
    topic = running.topics[running.topic("price")]
    base = stored(running)[0][int(isinstance(sink, OnlineSink))]
    offsets, made = range(base, base + n), messages(n, 9)
    run = run_of_columns(0, (base, base + n), offsets, [10**13] * n, *zip(*made, strict=True))
    return replace(run, topic=topic.name, topic_id=topic.topic_id)


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
    with redis.Redis.from_url(both.settings.redis) as client:
        client.flushall()
    fill(both)
    assert rules_in_redis(both) == known != {}
    with pytest.raises(OtherRules):
        before.materialize(run, GO_ON)
    late.close()


def rules_in_redis(running: Pipeline) -> dict[bytes, bytes]:
    dump = redis_dump(running.settings.redis)
    return {key: rules for key, rules in dump.items() if key.startswith(b"tw:rules:")}


def fill(running: Pipeline) -> None:
    """What a worker does at its start."""
    warm, catalog = WarmRedis(running.settings.redis), catalog_of(running)
    rebuild = Rebuild(running.settings.postgres, warm, catalog, 1024, GO_ON)
    topic = running.topics[running.topic("price")]
    rebuild.fill(catalog.sources["price"], topic, lambda done: None)
    warm.close()


@pytest.mark.parametrize("write", [1, 2])
@pytest.mark.parametrize("ends", [False, True], ids=["stopped", "killed"])
def test_a_run_that_redis_has_in_part_is_decided_by_the_rules_of_before(
    both: Pipeline, write: int, ends: bool
) -> None:
    """A worker was stopped, or killed, while it stored a run in steps; the rules begin after it."""
    both.produce("price", messages(200, 1))

    def hold(number: int) -> None:
        if number == write:
            if ends:
                raise Killed
            declare(both, OTHER)
            from_now(both)

    def before(running: Pipeline) -> Sink:
        sink = OnlineSink(running.settings.redis, entities_a_call=1)
        before_each_write(sink, hold)
        return sink

    with pytest.raises(Killed if ends else OtherRules):
        live(both, open_sink=before)
    if ends:
        declare(both, OTHER)
        from_now(both)
    both.produce("price", of_other_rules(10, 2))
    live(both, open_sink=online_sink)
    served = rows_in_redis(both)
    with redis.Redis.from_url(both.settings.redis) as client:
        client.flushall()
    live(both, open_sink=online_sink)
    assert served == rows_in_redis(both) != {}


def rows_in_redis(running: Pipeline) -> dict[bytes, bytes]:
    rows = redis_dump(running.settings.redis)
    return {key: row for key, row in rows.items() if b":row:" in key}


@pytest.mark.parametrize("back", [FIRST, 'skew = "8s"'], ids=["taken back", "other rules"])
def test_rules_that_redis_knows_and_postgres_has_not_recorded_are_taken_back(
    both: Pipeline, back: str
) -> None:
    """The command was killed, or Postgres restored from a backup; it is run again."""
    both.produce("price", messages(40, 1))
    live(both)
    sink = OnlineSink(both.settings.redis)
    declare(both, 'skew = "7s"')
    with pytest.raises(Killed):
        from_now(both, beginning=KilledHalfWay)
    declare(both, back)
    run = next_run(both, 10)
    live(both, open_sink=online_sink)
    with pytest.raises(OtherRules, match="run `tickwell migrate --from-now`"):
        worker_of(both, sink).materialize(run, GO_ON)
    from_now(both)
    assert worker_of(both, sink).materialize(run, GO_ON) is not None
    sink.close()


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
        assert client.keys("tw:rules:*") == []
    declare(both, 'skew = "7s"', "volume")
    assert len(from_now(both)) == 2


def test_a_replay_that_is_ahead_of_live_has_decided(both: Pipeline) -> None:
    """And one that began before the rules changed goes no further by the old ones."""
    both.produce("price", messages(200, 1))
    late = ranges_of(both, Wanted(partition=1))
    replay(both, Wanted(partition=0))
    declare(both, OTHER)
    (change,) = from_now(both)
    ends = [part.end for part in ranges_of(both)]
    assert [start.offset for start in change.starts] == [ends[0], 0]
    assert late[0].rules.newest.id < ranges_of(both)[1].rules.newest.id
    assert replay(both, Wanted(partition=0)).new_rows == 0


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


def test_rules_begin_after_what_a_replay_had_stored_before_it_began_anew(both: Pipeline) -> None:
    """Its range begins inside the log, and it was stopped at once."""
    both.produce("price", messages(100, 1))
    wanted, stopped = Wanted(partition=0, from_offset=10, to_offset=30), threading.Event()
    assert replay(both, wanted).new_rows > 10
    stopped.set()
    (part,) = ranges_of(both, wanted, restart=True)
    work_of(both, wanted).run(part, lambda done: None, stopped)
    declare(both, OTHER)
    (change,) = from_now(both)
    assert [start.offset for start in change.starts] == [30, 0]
    assert 0 < replay(both, Wanted(partition=0)).new_rows <= 10  # the others are the same


def test_a_topic_that_the_broker_lacks_was_read_elsewhere(both: Pipeline) -> None:
    """Its offsets are unknown, and the rules would decide all of them."""
    both.produce("price", messages(40, 1))
    live(both)
    delete_topic(both)
    declare(both, 'skew = "7s"')
    with pytest.raises(TopicElsewhere, match="name the broker that has it"):
        from_now(both)
    declare(both, FIRST)
    migrate(both.settings)
    declare(both, 'skew = "7s"')
    (change,) = from_now(both)
    assert [start.offset for start in change.starts] == [0, 0]


def delete_topic(running: Pipeline) -> None:
    """Returns once the broker has none of this name."""
    kafka, topic = running.settings.kafka_connection, running.topic("price")
    admin = AdminClient({"bootstrap.servers": running.settings.kafka})
    admin.delete_topics([topic])[topic].result()
    wait_for("the topic is deleted", lambda: not existing(kafka, [topic]))


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


# -- an earlier build


def test_a_database_of_an_earlier_build_goes_on_from_what_it_has(both: Pipeline) -> None:
    both.produce("price", messages(60, 1))
    live(both)
    for column in ("tickwell.sources", "tickwell.source_rules"):
        execute(
            both,
            f"UPDATE {column} SET definition = definition - 'partitioner' - 'earliest_ns'",
        )
    with pytest.raises(RulesOfEarlierBuild, match=r"which `partitioner`.* --from-now`"):
        migrate(both.settings)
    with pytest.raises(RulesOfEarlierBuild):
        ranges_of(both, Wanted(partition=0))
    live_online_as_before(both, 20)
    with pytest.raises(StoresApart, match="only the earlier build knows"):
        from_now(both)
    topic_id = both.topics[both.topic("price")].topic_id
    with redis.Redis.from_url(both.settings.redis) as client:
        client.flushall()
        client.set(filled_key(topic_id, 0), FILLED_MARK)  # a worker would read from the beginning
        with pytest.raises(StoresApart, match=r"\[0\] is stored up to offset 0 in Redis"):
            from_now(both)
        client.flushall()  # it is filled from Postgres
    changes = {change.now.name: change for change in from_now(both)}
    begins = [start.offset for start in changes["price"].starts]
    assert begins == [offline for offline, _ in stored(both)]
    assert set(changes) == {"price", "volume", "position"}
    assert migrate(both.settings).rules["price"][-1].of_earlier_build is False

    both.produce("price", messages(60, 2))
    live(both)
    said = rf"\[1\] before offset {begins[1]} was decided by an earlier build"
    with pytest.raises(RulesOfEarlierBuild, match=said):
        ranges_of(both, Wanted(partition=1, from_offset=begins[1] - 1))
    with pytest.raises(RulesOfEarlierBuild, match=said):
        ranges_of(both, Wanted(partition=1, to_offset=begins[1]))
    assert [part.begin for part in ranges_of(both, Wanted(to_offset=max(begins) + 1))] == begins
    declare(both, 'message_key = "any"')
    from_now(both)
    with pytest.raises(RangeMistaken, match="--entity finds messages by their keys"):
        ranges_of(both, Wanted(entities=("S1",)))
    assert [part.begin for part in ranges_of(both)] == begins
    done = replay(both)
    assert (done.new_rows, done.rows > 0) == (0, True)


def live_online_as_before(running: Pipeline, offset: int) -> None:
    """Redis is where a worker of the earlier build has left it."""
    topic_id = running.topics[running.topic("price")].topic_id.hex()
    with redis.Redis.from_url(running.settings.redis) as client:
        client.set(f"tw:watermark:{topic_id}:0", offset)
