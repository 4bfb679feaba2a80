"""Replays against real stores: what they restore, where they go on, and what stops them."""

from __future__ import annotations

import asyncio
import json
import pickle
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event

import psycopg2
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from pipelines.errors import LogBegins, LogCut, ParityViolation, PipelineError, RangeMistaken
from pipelines.jobs import run_ranges
from pipelines.materializer import Materializer
from pipelines.offline import OfflineSink
from pipelines.progress import ReplayProgress
from pipelines.ranges import Range, Wanted, plan
from pipelines.reading import read_range
from pipelines.replay import Done, Replay, Tell
from pipelines.topics import ensure_topics
from registry import catalog as recorded
from registry.database import connect
from registry.definitions import Catalog
from registry.program import compile_program
from tests.acceptance.pipeline import Pipeline, pipeline, wait_for
from tests.acceptance.test_parity import empty_database

GO_ON = Event()
PARTITIONS = 2
EVERYTHING = Wanted()


@pytest.fixture
def running(tmp_path: Path, kafka: str, postgres_database: str) -> Iterator[Pipeline]:
    """Topics and tables; a replay needs no Redis."""
    with pipeline(tmp_path, kafka, "", "", postgres_database, PARTITIONS) as made:
        yield made


def catalog_of(running: Pipeline) -> Catalog:
    engine = connect(running.settings.postgres)
    try:
        return recorded.load(engine)
    finally:
        engine.dispose()


def ranges_of(running: Pipeline, wanted: Wanted = EVERYTHING, restart: bool = False) -> list[Range]:
    progress = ReplayProgress(running.settings.postgres)
    try:
        return asyncio.run(
            plan(running.settings.kafka, progress, catalog_of(running), wanted, restart)
        )
    finally:
        progress.close()


def work_of(running: Pipeline, wanted: Wanted = EVERYTHING) -> Replay:
    """Runs of a few records, so that there are many."""
    settings = running.settings
    return Replay(settings.kafka, settings.postgres, catalog_of(running), wanted, max_records=50)


def replay(
    running: Pipeline,
    wanted: Wanted = EVERYTHING,
    restart: bool = False,
    tell: Tell = lambda done: None,
    stop: Event = GO_ON,
) -> Done:
    """Plan, run, and finish what was not stopped, as the command does."""
    ranges = ranges_of(running, wanted, restart)
    left = [part for part in ranges if part.offsets]
    done = run_ranges(work_of(running, wanted), left, tell, stop)
    if not stop.is_set():
        progress = ReplayProgress(running.settings.postgres)
        for part in ranges:
            progress.finish(part.replay, part.topic.topic_id, part.partition)
        progress.close()
    return done


def live(running: Pipeline) -> bytes:
    """What the offline worker does, without Faust: every run into Postgres. Returns the rows."""
    catalog = catalog_of(running)
    for part in ranges_of(running, Wanted(cold=True), restart=True):
        schema = catalog.schemas[catalog.writing[part.source.name]]
        sink = OfflineSink(running.settings.postgres)
        work = Materializer(part.source, schema, compile_program(catalog, schema), sink, 100_000)
        sink.settle(part.topic)
        marks = sink.watermarks(part.topic.topic_id, [part.partition])
        mark = marks.get(part.partition, part.begin)
        start = max(mark, part.begin)  # what was deleted before it was read is lost
        rest = replace(part, start=start, read_from=start)
        asyncio.run(_materialize(running, work, rest, mark))
        sink.close()
    return running.dump()


async def _materialize(running: Pipeline, work: Materializer, part: Range, mark: int) -> None:
    async for run in read_range(running.settings.kafka, part, 70, GO_ON):
        await asyncio.to_thread(work.materialize, replace(run, base_offset=mark), GO_ON)
        mark = run.next_offset


def produce(running: Pipeline, n: int, seed: int = 1, **where: int) -> None:
    """Ticks of all kinds, `n` of them: out of order, doubled, resets, and a few broken."""
    chance = random.Random(seed)
    now = time.time_ns() // 10**6
    made = []
    for number in range(n):
        symbol = f"S{chance.randrange(8)}"
        tick = {
            "symbol": symbol,
            "price": chance.uniform(1, 2),
            "ts": now - n + number - chance.randrange(1200),
        }
        if chance.random() < 0.5:
            tick["seq"] = chance.randrange(50)
        if chance.random() < 0.01:
            tick["op"] = "reset"
        value = b"{" if chance.random() < 0.01 else json.dumps(tick).encode()
        made.append((symbol.encode(), value))
    # small record batches: a run ends at the end of one
    running.produce("price", made, running.producer(**{"batch.num.messages": 40}), **where)


def delete_before(
    running: Pipeline, offset: int, partitions: Sequence[int] = range(PARTITIONS)
) -> None:
    """What retention does: the log begins at `offset`."""
    admin = AdminClient({"bootstrap.servers": running.settings.kafka})
    topic = running.topic("price")
    cut = [TopicPartition(topic, number, offset) for number in partitions]
    for deleted in admin.delete_records(cut).values():
        deleted.result()


def make_anew(running: Pipeline) -> None:
    admin = AdminClient({"bootstrap.servers": running.settings.kafka})
    topic = running.topic("price")
    old = running.topics[topic].topic_id
    admin.delete_topics([topic])[topic].result()

    def made_anew() -> bool:
        try:
            made = ensure_topics(running.settings.kafka, [topic], PARTITIONS)
        except PipelineError:  # while the broker still deletes it
            return False
        return made[topic].topic_id != old

    wait_for("the topic is there again", made_anew)


def execute(running: Pipeline, statement: str, *arguments: object) -> None:
    connection = psycopg2.connect(running.settings.postgres)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(statement, arguments)
    connection.close()


def after(runs: int, act: Callable[[], object]) -> Tell:
    """Does something once so many runs are stored."""
    rows = [0]

    def tell(done: Done) -> None:
        if done.rows > rows[-1]:
            rows.append(done.rows)
            if len(rows) == 1 + runs:
                act()

    return tell


# -- incarnations


def test_a_new_incarnation_begins_with_the_state_of_the_old_one(running: Pipeline) -> None:
    produce(running, 600)
    live(running)
    old = running.topics[running.topic("price")].topic_id
    make_anew(running)
    produce(running, 600, seed=2)
    dump = live(running)
    assert replay(running).new_rows == 0
    # from rows of the old one alone, and stopped on the way
    execute(running, "DELETE FROM tickwell.feature_rows WHERE topic_id <> %s::uuid", old.hex())
    execute(running, "DELETE FROM tickwell.watermarks WHERE topic_id <> %s::uuid", old.hex())
    stop = Event()
    assert replay(running, restart=True, tell=after(4, stop.set), stop=stop).new_rows > 0
    assert replay(running).new_rows > 0
    assert running.dump() == dump


# -- a log whose beginning is gone


def test_where_retention_took_the_beginning_the_rows_of_live_are_the_state(
    running: Pipeline,
) -> None:
    produce(running, 1200)
    dump = live(running)
    delete_before(running, 150)
    done = replay(running)
    since = running.query('SELECT count(*) FROM tickwell.feature_rows WHERE "offset" >= 150')
    assert (done.new_rows, [(done.rows,)]) == (0, since)
    assert running.dump() == dump

    with empty_database(running) as empty:
        with pytest.raises(LogBegins, match="begins at offset 150: the ticks before it are delet"):
            ranges_of(empty)
        # no offset that the log has is known by itself
        with pytest.raises(LogBegins):
            ranges_of(empty, Wanted(from_offset=200))
        assert empty.query("SELECT count(*) FROM tickwell.feature_rows") == [(0,)]


def test_cold_begins_with_empty_windows_and_is_remembered(running: Pipeline) -> None:
    produce(running, 1200)
    delete_before(running, 150)
    stop = Event()
    replay(running, Wanted(cold=True), tell=after(3, stop.set), stop=stop)
    replay(running, Wanted(cold=True))
    dump = running.dump()
    first = running.query(
        'SELECT min("offset"), min(get_byte(status, 1)) FROM ('
        ' SELECT DISTINCT ON (entity) "offset", status FROM tickwell.feature_rows'
        " ORDER BY entity, event_time, sequence) AS firsts"
    )
    assert first[0][0] >= 150
    assert first[0][1] == 1, "the mean of five warms up"
    # cut again: what was replayed is the state now, and nobody need begin cold
    delete_before(running, 300)
    assert replay(running).new_rows == 0
    assert running.dump() == dump


def test_where_live_misses_the_same_ticks_it_is_followed(running: Pipeline) -> None:
    """Live was off for longer than retention: it goes on at the log's beginning, with its rows."""
    produce(running, 600)
    live(running)
    produce(running, 600, seed=2)
    delete_before(running, 400)  # live is at about 300
    with pytest.raises(LogBegins, match="once live has passed the place"):
        ranges_of(running, Wanted(from_offset=450, cold=True))
    with pytest.raises(LogBegins):
        ranges_of(running, Wanted(from_offset=450))
    assert replay(running).new_rows > 0
    dump = running.dump()
    assert live(running) == dump, "and finds the rows that it would have written"


def test_cold_is_refused_where_live_would_go_on_from_rows(running: Pipeline) -> None:
    """Those of another replay; what it wrote with empty windows live would contradict for ever."""
    produce(running, 600)
    replay(running, Wanted(to_offset=200))
    delete_before(running, 250)
    with pytest.raises(LogBegins):
        ranges_of(running, Wanted(cold=True))


def test_of_two_equal_replays_the_slower_one_ends_with_the_faster(running: Pipeline) -> None:
    produce(running, 600)
    part = next(part for part in ranges_of(running) if part.offsets)
    faster: list[Done] = []
    with ThreadPoolExecutor() as pool:

        def be_faster() -> None:
            faster.append(pool.submit(replay, running).result())

        done = run_ranges(work_of(running), [part], after(2, be_faster), GO_ON)
    assert 0 < done.rows < faster[0].rows


def test_records_deleted_before_their_turn_are_an_error(running: Pipeline) -> None:
    produce(running, 600)
    ranges = ranges_of(running)
    delete_before(running, 100)
    with pytest.raises(LogCut, match="offsets 0 to 99 were deleted"):
        run_ranges(work_of(running), ranges, lambda done: None, GO_ON)
    assert running.query("SELECT count(*) FROM tickwell.feature_rows") == [(0,)]


def test_records_deleted_while_others_are_read_are_an_error(running: Pipeline) -> None:
    """More than a fetch brings at once, so that what comes next is asked for after the cut."""
    tick = json.dumps({"symbol": "A", "price": 1, "ts": 1, "padding": "x" * 2000}).encode()
    running.produce("price", [(b"A", tick)] * 2000, partition=0)
    with pytest.raises(LogCut):
        replay(running, tell=after(1, lambda: delete_before(running, 1900, [0])))
    stored = running.query('SELECT max("offset") + 1, count(*) FROM tickwell.feature_rows')
    assert stored[0][0] == stored[0][1] < 1900, "right up to the cut"


# -- in any order of partitions


def test_partitions_read_in_another_order_give_the_same_rows(running: Pipeline) -> None:
    """Live's order is the log's; here it is turned round, and partitions take turns."""
    produce(running, 800)
    running.produce("position", [(b"P%d" % (n % 8), position(n)) for n in range(60)])
    dump = live(running)
    ranges = [part for part in ranges_of(running, restart=True) if part.offsets]
    assert len(ranges) == 2 * PARTITIONS, "every partition of both has ticks"
    with empty_database(running) as empty:
        reversed_ranges = [part for part in ranges_of(empty) if part.offsets][::-1]
        run_ranges(work_of(empty), reversed_ranges, lambda done: None, GO_ON)
        assert empty.dump() == dump
    with empty_database(running) as empty:
        by_halves(empty)
        assert empty.dump() == dump

    # where homes are known, also of what other partitioners sent elsewhere
    for partition in range(PARTITIONS):
        produce(running, 200, seed=9, partition=partition)
    dump = live(running)
    rejected = running.query(REJECTED)
    assert sum(reason == "wrong-partition" for *_, reason in rejected) > 100
    ranges = [part for part in ranges_of(running, restart=True) if part.offsets]
    done = run_ranges(work_of(running), ranges[::-1], lambda done: None, GO_ON)
    rows = running.query("SELECT count(*) FROM tickwell.feature_rows")
    assert ([(done.rows,)], done.new_rows) == (rows, 0)
    assert (running.dump(), running.query(REJECTED)) == (dump, rejected)


REJECTED = """\
SELECT topic_id::text, partition, "offset", index, reason FROM tickwell.rejected_ticks
ORDER BY 1, 2, 3, 4"""


def by_halves(running: Pipeline) -> None:
    """Half of every partition, the last one first; then the other halves, the first one first."""
    ranges = [part for part in ranges_of(running) if part.offsets]
    halves = [(part.begin + part.end) // 2 for part in ranges]
    work = work_of(running)
    for part, half in zip(reversed(ranges), reversed(halves), strict=True):
        work.run(replace(part, end=half), lambda done: None, GO_ON)
    going_on = [part for part in ranges_of(running) if part.offsets]
    assert [part.start for part in going_on] == halves
    run_ranges(work, going_on, lambda done: None, GO_ON)


def position(number: int) -> bytes:
    tick = {"portfolio": f"P{number % 8}", "symbol": f"S{number % 3}", "quantity": number}
    return json.dumps(tick | {"ts": time.time_ns() // 10**6}).encode()


# -- going on


@pytest.mark.parametrize(
    "wanted",
    [
        Wanted(),
        Wanted(entities=("S1", "S5")),
        Wanted(from_offset=100),  # computed from the log's beginning
        Wanted(to_offset=250),
    ],
    ids=["all", "entities", "from the middle", "to the middle"],
)
def test_a_stopped_replay_goes_on_where_it_was(running: Pipeline, wanted: Wanted) -> None:
    produce(running, 800)
    dump = live(running)
    with empty_database(running) as empty:
        steps = 0
        while True:
            stop = Event()
            begun = ranges_of(empty, wanted)
            done = replay(empty, wanted, tell=after(2, stop.set), stop=stop)
            steps += 1
            if not stop.is_set():
                break
            went_on = ranges_of(empty, wanted)
            assert sum(part.start for part in went_on) > sum(part.start for part in begun)
            assert done.new_rows <= 500
        assert steps > 2
        assert not any(part.resumed for part in ranges_of(empty, wanted)), "it was finished"
        assert replay(empty).new_rows > 0 or wanted == Wanted()
        assert empty.dump() == dump


KILLED = """
import pickle, sys
from threading import Event
from pipelines.jobs import run_in_jobs, run_ranges

replay, ranges, jobs = pickle.load(sys.stdin.buffer)
if jobs == 1:
    run_ranges(replay, ranges, lambda done: None, Event())
else:
    run_in_jobs(replay, ranges, jobs, lambda done: None, Event())
"""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("jobs", [1, 2])
def test_killed_at_any_instant_it_goes_on(running: Pipeline, jobs: int) -> None:
    chance = random.Random(jobs)
    for seed in range(12):
        produce(running, 1000, seed)
    dump = live(running)
    with empty_database(running) as empty:
        kills = 0
        while kills < 6 and (left := [part for part in ranges_of(empty) if part.offsets]):
            before = progress_of(empty)
            process = subprocess.Popen([sys.executable, "-c", KILLED], stdin=subprocess.PIPE)
            assert process.stdin is not None
            with process.stdin as stdin:
                pickle.dump((work_of(empty), left, jobs), stdin)
            wait_for("progress", lambda n=before: progress_of(empty) > n)
            time.sleep(chance.uniform(0, 0.05))
            kills += process.poll() is None
            process.kill()
            process.wait()
        assert kills > 2
        said = empty.run_tickwell("replay", "--jobs", str(jobs))
        assert "resumes at offset" in said
        assert "% was done" in said
        assert empty.dump() == dump
        again = empty.run_tickwell("replay", "--jobs", str(jobs))
        assert "resumes" not in again, "it was finished"
        assert " 0 of them new" in again


def progress_of(running: Pipeline) -> int:
    ((offsets,),) = running.query("SELECT coalesce(sum(next_offset), 0) FROM tickwell.replays")
    return int(offsets)


def test_restart_begins_anew(running: Pipeline) -> None:
    produce(running, 400)
    stop = Event()
    replay(running, tell=after(2, stop.set), stop=stop)
    assert any(part.resumed for part in ranges_of(running))
    assert not any(part.resumed for part in ranges_of(running, restart=True))
    assert not any(part.resumed for part in ranges_of(running, Wanted(to_offset=50)))
    done = replay(running, restart=True)
    assert done.rows > done.new_rows > 0


def test_live_in_the_middle_of_a_replay(running: Pipeline) -> None:
    produce(running, 600)
    with empty_database(running) as alone:
        dump = live(alone)
    with ThreadPoolExecutor() as pool:
        working: list[Future[bytes]] = []
        replay(running, tell=after(3, lambda: working.append(pool.submit(live, running))))
        working[0].result()
    assert running.dump() == dump


def test_a_lost_connection_is_mended(running: Pipeline) -> None:
    produce(running, 800)
    with empty_database(running) as alone:
        dump = live(alone)
    lose = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'tickwell replay' AND datname = current_database()"
    )
    for wanted in (Wanted(from_offset=100), Wanted()):  # computed, and restored
        replay(running, wanted, tell=after(4, lambda: execute(running, lose)))
    assert running.dump() == dump


def test_two_jobs_that_meet_an_entity_at_once_give_it_one_home(running: Pipeline) -> None:
    for partition in range(PARTITIONS):
        produce(running, 400, seed=partition, partition=partition)
    ranges = ranges_of(running)
    with ThreadPoolExecutor() as pool:
        jobs = [
            pool.submit(work_of(running).run, part, lambda done: None, GO_ON) for part in ranges
        ]
        for job in jobs:
            job.result()
    homes = running.query(
        "SELECT entity, count(DISTINCT partition) FROM tickwell.feature_rows GROUP BY entity"
    )
    assert [number for _, number in homes] == [1] * 8
    ((rows,),) = running.query("SELECT count(*) FROM tickwell.feature_rows")
    ((rejected,),) = running.query("SELECT count(*) FROM tickwell.rejected_ticks")
    assert rows + rejected == 800


def test_other_bits_are_an_error_and_nothing_is_overwritten(running: Pipeline) -> None:
    produce(running, 100)
    live(running)
    execute(running, "UPDATE tickwell.feature_rows SET known_at = 7 WHERE entity = 'S3'")
    changed = running.dump()
    with pytest.raises(ParityViolation, match="'S3'"):
        replay(running)
    assert running.dump() == changed


# -- what cannot be meant


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        (Wanted(partition=99), r"no partition 99: .*price has 0 to 1"),
        (Wanted(from_offset=10_000), r"--from-offset 10000: the log holds .*price\[0\] 20 to "),
        (Wanted(to_offset=10_000), r"--to-offset 10000: the log holds"),
        (Wanted(from_offset=5), r"--from-offset 5: the log holds"),
    ],
)
def test_what_the_log_does_not_have(running: Pipeline, wanted: Wanted, says: str) -> None:
    produce(running, 100)
    for source in ("volume", "position"):
        for number in range(PARTITIONS):
            running.produce(source, [(b"A", b"{")] * 20, partition=number)
    delete_before(running, 20)
    only = replace(wanted, sources=("price",), cold=True)
    with pytest.raises(RangeMistaken, match=says):
        ranges_of(running, only)


def test_a_range_that_ends_before_it_begins() -> None:
    with pytest.raises(RangeMistaken, match="--from-offset is not before --to-offset"):
        Wanted(from_offset=7, to_offset=7)
    with pytest.raises(RangeMistaken, match="--from-time is not before --to-time"):
        Wanted(from_ms=2, to_ms=1)
