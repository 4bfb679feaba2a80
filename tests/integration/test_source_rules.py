"""Rules of a source that change: by which ones each store and a replay decide an offset."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace

import pytest
import redis

from pipelines.errors import (
    OtherRules,
    ReadTopicMissing,
    RulesLost,
    TopicElsewhere,
    WorkersAlive,
)
from pipelines.replay.ranges import Wanted
from pipelines.stores.redis import scripts
from pipelines.stores.redis.connection import WarmRedis
from pipelines.stores.redis.known_rules import KnownRules
from pipelines.stores.redis.online_sink import MARKS, OnlineSink
from pipelines.stores.sink import Sink
from registry.errors import RulesChanged
from registry.formats.redis_keys import (
    CATALOG_KEY,
    FILLED_MARK,
    begun_key,
    filled_key,
    watermark_key,
)
from registry.source_rules import SourceRules
from tests.support.changed_rules import (
    FIRST,
    OTHER,
    Killed,
    StoredMeanwhile,
    declare,
    empty_redis,
    fill,
    from_now,
    killed,
    messages,
    next_run,
    of_other_rules,
    rows_in_redis,
    stored,
    worker_of,
)
from tests.support.logs import TOPIC_ID
from tests.support.pipeline import Pipeline
from tests.support.replays import (
    GO_ON,
    catalog_of,
    delete_topic,
    execute,
    live,
    offline_sink,
    online_sink,
    ranges_of,
    recreate,
    replay,
    work_of,
)
from tests.support.sinks import before_each_write
from tickwell.migrate import migrate

BOTH = (offline_sink, online_sink)


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
    empty_redis(both)
    live(both, open_sink=online_sink)
    assert served == rows_in_redis(both) != {}


def test_a_run_of_which_redis_refused_an_entity_is_decided_by_the_rules_of_before(
    both: Pipeline,
) -> None:
    """It was stored but for this one, and its worker was killed before it tried again."""
    declare(both, 'partitioner = "any"')
    from_now(both)
    in_one_batch = both.producer(**{"linger.ms": 200})
    both.produce("price", messages(30, 1), in_one_batch, partition=0)
    both.produce("price", [one for one in messages(30, 2) if one[0] == b"S1"], partition=1)
    elsewhere = Wanted(partition=1, cold=True)

    parts = len({key for key, *_ in messages(30, 1)})

    def hold(number: int) -> None:
        if number > parts:
            raise Killed
        if number == 1:
            live(both, elsewhere, online_sink)  # S1 is at home there before its state is compared

    def before(running: Pipeline) -> Sink:
        sink = OnlineSink(running.settings.redis, entities_a_call=1)
        before_each_write(sink, hold)
        return sink

    with pytest.raises(Killed):
        live(both, Wanted(partition=0, cold=True), before)
    assert stored(both)[0] == (0, 0)
    declare(both, f'partitioner = "any"\n{OTHER}')
    (change,) = from_now(both)
    assert change.starts[0].offset == 30
    live(both, open_sink=online_sink)
    served = rows_in_redis(both)
    empty_redis(both)
    for wanted in (elsewhere, Wanted(cold=True)):
        live(both, wanted, online_sink)
    assert served == rows_in_redis(both) != {}


def test_a_partition_that_redis_lost_in_part_is_decided_by_the_rules_of_before(
    both: Pipeline,
) -> None:
    """It is to be filled from Postgres, which is behind; what was not lost is ahead."""
    sink = OnlineSink(both.settings.redis)
    first = next_run(both, 10, sink)
    worker_of(both, sink).materialize(first, GO_ON)
    marks = [key(first.topic_id, first.partition) for key in MARKS]
    sink.redis.run(scripts.LOSE, marks, [])  # as where an entity's state turns out to be earlier
    sink.close()
    declare(both, 'skew = "7s"')
    (change,) = from_now(both)
    assert change.starts[0].offset >= first.next_offset


@pytest.mark.parametrize("file", [FIRST, OTHER], ids=["taken back", "declared again"])
def test_what_redis_has_by_rules_that_postgres_lost_is_not_kept(both: Pipeline, file: str) -> None:
    """Postgres was restored from a backup of before the rules changed; Redis has gone on."""
    both.produce("price", messages(40, 1))
    for sink in BOTH:
        live(both, open_sink=sink)
    declare(both, OTHER)
    from_now(both)
    both.produce("price", of_other_rules(40, 2))
    live(both, open_sink=online_sink)
    lose_newest_rules(both)
    declare(both, file)
    with pytest.raises(RulesLost, match=r"by rules that are not in Postgres.*FLUSHALL"):
        from_now(both)
    empty_redis(both)
    from_now(both)
    for sink in BOTH:
        live(both, open_sink=sink)
    served = rows_in_redis(both)
    empty_redis(both)
    fill(both)
    assert served == rows_in_redis(both) != {}


def test_what_redis_uses_when_its_worker_turns_out_to_be_alive_is_not_forgotten(
    both: Pipeline,
) -> None:
    """Postgres has lost its rules, and it stores a run by them while others are to begin."""
    both.produce("price", messages(40, 1))
    for sink in BOTH:
        live(both, open_sink=sink)
    declare(both, OTHER)
    from_now(both)
    lose_newest_rules(both)
    declare(both, 'skew = "7s"')
    with pytest.raises(WorkersAlive):
        from_now(both, warm=StoredMeanwhile(both, 1))
    with pytest.raises(RulesLost, match=r"\[1\] from offset \d+ on by rules that are not in"):
        from_now(both)


def lose_newest_rules(running: Pipeline) -> None:
    for statement in (
        "DELETE FROM tickwell.rules_starts",
        "DELETE FROM tickwell.source_rules WHERE id = (SELECT max(id) FROM tickwell.source_rules)",
        "UPDATE tickwell.sources SET definition = (SELECT definition FROM tickwell.source_rules"
        " WHERE source = name ORDER BY id DESC LIMIT 1)",
    ):
        execute(running, statement)


@pytest.mark.parametrize("back", [FIRST, 'skew = "8s"'], ids=["taken back", "other rules"])
def test_rules_that_redis_knows_and_postgres_has_not_recorded_are_taken_back(
    both: Pipeline, back: str
) -> None:
    """The command was killed, or Postgres restored from a backup; it is run again."""
    both.produce("price", messages(40, 1))
    live(both)
    sink = OnlineSink(both.settings.redis)
    from_now(both)
    declare(both, 'skew = "7s"')
    with pytest.raises(Killed):
        from_now(both, before_the_end=killed)
    with redis.Redis.from_url(both.settings.redis) as client:
        assert client.get(CATALOG_KEY) is None  # by which a worker could start
    declare(both, back)
    run = next_run(both, 10)
    live(both, open_sink=online_sink)
    with pytest.raises(OtherRules, match="run `tickwell migrate --from-now`"):
        worker_of(both, sink).materialize(run, GO_ON)
    from_now(both)
    assert worker_of(both, sink).materialize(run, GO_ON) is not None
    sink.close()


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


@pytest.mark.parametrize("change_topic", [delete_topic, recreate])
def test_the_rules_of_a_topic_that_the_broker_lacks(
    both: Pipeline, change_topic: Callable[[Pipeline], None]
) -> None:
    """It is gone, or elsewhere: what was decided of it stays so, and it holds nothing up."""
    both.produce("price", messages(40, 1))
    live(both)
    before = both.topics[both.topic("price")].topic_id
    marks = [offline for offline, _ in stored(both)]
    change_topic(both)
    declare(both, 'skew = "7s"')
    (change,) = from_now(both)
    assert f"TICKWELL_KAFKA right?), where they begin at [0] offset {marks[0]}, " in str(change)
    rules = SourceRules.of(catalog_of(both), "price")
    assert [rules.starts(before, number) for number in range(2)] == [[mark] for mark in marks]
    now = both.topics[both.topic("price")].topic_id
    assert [span.rules.id for span in rules.spans(now, 0)] == [rules.newest.id]


@pytest.mark.parametrize("replayed", [False, True])
def test_the_rules_of_a_topic_that_the_broker_lacks_and_only_the_online_worker_has_read(
    both: Pipeline, replayed: bool
) -> None:
    """The offline worker, which is to read it as well, knows the one before."""
    topics = []
    for seed, sink in ((1, offline_sink), (2, online_sink)):
        both.produce("price", messages(40, seed))
        live(both, open_sink=sink)
        marks = [max(one) for one in stored(both)]
        topics.append((both.topics[both.topic("price")].topic_id, marks))
        if replayed:
            replay(both)
        recreate(both)
    declare(both, 'skew = "7s"')
    (change,) = from_now(both)
    rules = SourceRules.of(catalog_of(both), "price")
    for topic_id, marks in topics:
        assert [rules.starts(topic_id, number) for number in range(2)] == [[m] for m in marks]
        assert f"at [0] offset {marks[0]}, [1] offset {marks[1]}" in str(change)


def test_the_rules_of_a_topic_that_the_broker_lacks_and_only_a_replay_has_read(
    both: Pipeline,
) -> None:
    both.produce("price", messages(40, 1))
    assert replay(both, Wanted(partition=1)).new_rows > 0
    before, end = both.topics[both.topic("price")].topic_id, ranges_of(both)[1].end
    recreate(both)
    declare(both, 'partitioner = "crc32"')
    with pytest.raises(ReadTopicMissing, match="only a replay has read it"):
        from_now(both)
    declare(both, 'skew = "7s"')
    (change,) = from_now(both)
    assert f"right?), where they begin at [0] offset 0, [1] offset {end}" in str(change)
    assert SourceRules.of(catalog_of(both), "price").starts(before, 1) == [end]
    with closing(offline_sink(both)) as sink:
        sink.settle(both.topics[both.topic("price")])  # as a worker does before it reads
    declare(both, 'partitioner = "crc32"')
    assert len(from_now(both)) == 1


@pytest.mark.parametrize("knows", ["Postgres", "Redis"])
def test_a_broker_with_an_earlier_topic_is_another_one(both: Pipeline, knows: str) -> None:
    both.produce("price", messages(40, 1))
    live(both)
    topic = both.topic("price")
    if knows == "Postgres":
        execute(
            both,
            "INSERT INTO tickwell.topics (topic_id, topic, partitions)"
            " VALUES (gen_random_uuid(), %s, 2)",
            topic,
        )
    else:
        with closing(online_sink(both)) as sink:
            sink.settle(both.topics[topic])
            sink.settle(replace(both.topics[topic], topic_id=bytes(16)))
    declare(both, 'skew = "7s"')
    with pytest.raises(TopicElsewhere, match="name the broker that has the later one"):
        from_now(both)


def test_a_filled_partition_without_ticks_is_stored_to_its_beginning(redis_database: str) -> None:
    """Other rules begin no earlier there than where a worker has begun to read."""
    redis_of_worker = WarmRedis(redis_database)
    known = KnownRules(redis_of_worker)
    with closing(redis_of_worker), redis.Redis.from_url(redis_database) as client:
        assert known.stored_to(TOPIC_ID, 3) is None
        client.set(filled_key(TOPIC_ID, 3), "a token of who fills it")
        assert known.stored_to(TOPIC_ID, 3) is None
        client.set(filled_key(TOPIC_ID, 3), FILLED_MARK)
        assert known.stored_to(TOPIC_ID, 3) == 0
        client.set(watermark_key(TOPIC_ID, 3), 7)
        assert known.stored_to(TOPIC_ID, 3) == 7
        client.set(begun_key(TOPIC_ID, 3), 9)
        assert known.stored_to(TOPIC_ID, 3) == 9
