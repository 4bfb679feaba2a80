"""What tests of replays share: live and replay without their commands, logs that lose records."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing, closing, contextmanager
from dataclasses import replace
from threading import Event

import msgspec
import psycopg2
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from pipelines.compute.run_computation import RunComputation
from pipelines.errors import PipelineError
from pipelines.kafka.topics import ensure_topics, existing
from pipelines.live.materializer import Materializer
from pipelines.replay.jobs import run_ranges
from pipelines.replay.progress import ReplayProgress
from pipelines.replay.range_reader import read_range
from pipelines.replay.ranges import Range, Wanted, plan
from pipelines.replay.replay import Done, Replay, Report
from pipelines.stores.postgres.offline_sink import OfflineSink
from pipelines.stores.redis.online_sink import OnlineSink
from pipelines.stores.sink import Sink
from registry import catalog as recorded
from registry.database.engine import connect
from registry.definitions import Catalog
from registry.language.program import compile_program
from tests.support.brokers import must_delete_records
from tests.support.pipeline import Pipeline, wait_for
from tickwell.migrate import migrate

GO_ON = Event()
PARTITIONS = 2
EVERYTHING = Wanted()
AS_IT_COMES = Wanted(cold=True)


OpenSink = Callable[[Pipeline], Sink]
"""Opens the store that a worker writes to."""


def offline_sink(running: Pipeline) -> Sink:
    return OfflineSink(running.settings.postgres)


def online_sink(running: Pipeline) -> Sink:
    return OnlineSink(running.settings.redis)


def catalog_of(running: Pipeline) -> Catalog:
    engine = connect(running.settings.postgres)
    try:
        return recorded.load(engine)
    finally:
        engine.dispose()


@contextmanager
def empty_database(running: Pipeline) -> Iterator[Pipeline]:
    """The same topics over a database of its own, without rows."""
    base, name = running.settings.postgres.rsplit("/", 1)
    connection = psycopg2.connect(f"{base}/postgres")
    connection.autocommit = True
    connection.cursor().execute(f"CREATE DATABASE {name}_replay")
    url = f"{base}/{name}_replay"
    settings = msgspec.structs.replace(running.settings, postgres=url)
    migrate(settings)
    try:
        yield replace(running, settings=settings, processes={})
    finally:
        connection.cursor().execute(f"DROP DATABASE {name}_replay WITH (FORCE)")
        connection.close()


def ranges_of(running: Pipeline, wanted: Wanted = EVERYTHING, restart: bool = False) -> list[Range]:
    progress = ReplayProgress(running.settings.postgres)
    try:
        return asyncio.run(
            plan(running.settings.kafka_connection, progress, catalog_of(running), wanted, restart)
        )
    finally:
        progress.close()


def work_of(running: Pipeline, wanted: Wanted = EVERYTHING) -> Replay:
    """Runs of a few records, so that there are many."""
    settings = running.settings
    return Replay(
        settings.kafka_connection, settings.postgres, catalog_of(running), wanted, max_records=50
    )


def replay(
    running: Pipeline,
    wanted: Wanted = EVERYTHING,
    restart: bool = False,
    report: Report = lambda done: None,
    stop: Event = GO_ON,
) -> Done:
    """Plan, run, and finish what was not stopped, as the command does."""
    ranges = ranges_of(running, wanted, restart)
    left = [part for part in ranges if part.offsets]
    done = run_ranges(work_of(running, wanted), left, report, stop)
    if not stop.is_set():
        progress = ReplayProgress(running.settings.postgres)
        for part in ranges:
            progress.finish(part.replay, part.topic.topic_id, part.partition)
        progress.close()
    return done


def live(
    running: Pipeline, wanted: Wanted = AS_IT_COMES, open_sink: OpenSink = offline_sink
) -> bytes:
    """What a worker does, without Faust: every run into its store. Returns the rows of Postgres."""
    catalog = catalog_of(running)
    for part in ranges_of(running, wanted, restart=True):
        schema = catalog.schemas[catalog.writing[part.source.name]]
        with closing(open_sink(running)) as sink:
            program = compile_program(catalog, schema)
            work = Materializer(RunComputation(part.rules, schema, program, 100_000), sink)
            sink.settle(part.topic)
            marks = sink.watermarks(part.topic.topic_id, [part.partition])
            mark = marks.get(part.partition, part.begin)
            start = max(mark, part.begin)  # what was deleted before it was read is lost
            rest = replace(part, start=start, read_from=start)
            asyncio.run(_materialize(running, work, rest, mark))
    return running.dump()


async def _materialize(running: Pipeline, work: Materializer, part: Range, mark: int) -> None:
    kafka = running.settings.kafka_connection
    async with aclosing(read_range(kafka, part, 70, GO_ON)) as runs:
        async for run in runs:
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
    must_delete_records()
    admin = AdminClient({"bootstrap.servers": running.settings.kafka})
    topic = running.topic("price")
    cut = [TopicPartition(topic, number, offset) for number in partitions]
    for deleted in admin.delete_records(cut).values():
        deleted.result()


def delete_topic(running: Pipeline) -> None:
    """Returns once the broker has none of this name."""
    kafka, topic = running.settings.kafka_connection, running.topic("price")
    admin = AdminClient({"bootstrap.servers": running.settings.kafka})
    admin.delete_topics([topic])[topic].result()
    wait_for("the topic is deleted", lambda: not existing(kafka, [topic]))


def recreate(running: Pipeline) -> None:
    admin = AdminClient({"bootstrap.servers": running.settings.kafka})
    topic = running.topic("price")
    old = running.topics[topic].topic_id
    admin.delete_topics([topic])[topic].result()

    def recreated() -> bool:
        try:
            made = ensure_topics(running.settings.kafka_connection, [topic], PARTITIONS)
        except PipelineError:  # while the broker still deletes it
            return False
        return made[topic].topic_id != old

    wait_for("the topic exists again", recreated)


def execute(running: Pipeline, statement: str, *arguments: object) -> None:
    connection = psycopg2.connect(running.settings.postgres)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(statement, arguments)
    connection.close()


def after(runs: int, act: Callable[[], object]) -> Report:
    """Does something once so many runs are stored."""
    rows = [0]

    def report(done: Done) -> None:
        if done.rows > rows[-1]:
            rows.append(done.rows)
            if len(rows) == 1 + runs:
                act()

    return report
