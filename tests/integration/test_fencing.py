"""Sessions in Postgres that hold what others wait for, and runs of a topic that was recreated."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any
from uuid import UUID

import psycopg2
import pytest

from pipelines.compute.batch import Batch
from pipelines.errors import PartitionHeld, TopicRecreated, WatermarkMoved
from pipelines.kafka.run import Run
from pipelines.kafka.topics import Topic
from pipelines.replay.backfill_sink import BackfillSink
from pipelines.replay.progress import Progress, ReplayProgress
from pipelines.stores.postgres.connection import LOCK_TIMEOUT_MS
from pipelines.stores.postgres.offline_sink import OfflineSink
from pipelines.ticks.decoder import Decoder
from registry.database.engine import connect
from registry.features_file import read
from registry.lifecycle.recording import record
from tests.support.logs import TOPIC_ID, runs
from tests.support.shipped import SOURCE
from tests.support.sinks import GO_ON, postgres_dump, ticks, worker
from tests.support.windows import apply_new, table

OLD = Topic("ticks.price", TOPIC_ID, 2)
NEW = Topic("ticks.price", bytes(16), 2)


class Database:
    """A database that knows the shipped features, and the sinks on it."""

    def __init__(self, url: str, stack: ExitStack) -> None:
        self.url, self._stack = url, stack
        engine = connect(url)
        record(engine, read(), "test")
        engine.dispose()

    def sink(self, lock_timeout_ms: int = LOCK_TIMEOUT_MS) -> OfflineSink:
        sink = OfflineSink(self.url, lock_timeout_ms=lock_timeout_ms)
        self._stack.callback(sink.close)
        return sink

    def replay(self, name: str, topic: Topic, copies: bool = True) -> BackfillSink:
        progress = ReplayProgress(self.url)
        progress.begin(name, topic, 0, "", True, Progress(0, 0, 0))
        progress.close()
        sink = BackfillSink(self.url, name, 0, copies=copies)
        self._stack.callback(sink.close)
        return sink

    @contextmanager
    def in_a_transaction(self, statement: str, *arguments: Any) -> Iterator[Any]:
        """As a worker that was stopped in the middle: it holds what the statement took."""
        connection = psycopg2.connect(self.url)
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement, arguments)
                yield connection
        finally:
            connection.close()

    def homes(self) -> set[tuple[str, UUID, int]]:
        connection = psycopg2.connect(self.url)
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT entity, topic_id, partition FROM tickwell.entities")
                return {(name, UUID(topic), number) for name, topic, number in cursor.fetchall()}
        finally:
            connection.close()


@pytest.fixture
def database(postgres_database: str) -> Iterator[Database]:
    with ExitStack() as stack:
        yield Database(postgres_database, stack)


def batch_of(run: Run) -> Batch:
    """What a run comes to without a state before it."""
    return apply_new(table(), Decoder(SOURCE).decode(run))


LOCK = "SELECT tickwell.lock_partition(%s::uuid, %s, 1000)"


def test_who_stores_a_run_of_the_topic_before_is_ended(database: Database) -> None:
    """Its rows would come to be before those that were computed without them."""
    database.sink().settle(OLD)
    with database.in_a_transaction(LOCK, OLD.topic_id.hex(), 1) as stopped:
        database.sink().settle(NEW)
        with pytest.raises(psycopg2.OperationalError):
            stopped.commit()
    with pytest.raises(TopicRecreated):
        worker(database.sink()).materialize(next(iter(runs(ticks(["A"], 5), ()))), GO_ON)


def test_an_entity_settles_once_in_each_incarnation(database: Database) -> None:
    (run,), (later,) = (runs(ticks(["A"], 5, first), ()) for first in (0, 5))
    database.sink().settle(OLD)
    worker(database.sink()).materialize(run, GO_ON)
    assert {number for _, _, number in database.homes()} == {0}
    database.sink().settle(NEW)
    of_new = replace(later, topic_id=NEW.topic_id, partition=1)
    worker(database.sink()).materialize(of_new, GO_ON)
    home = (UUID(bytes=NEW.topic_id), 1)
    assert {(topic, number) for _, topic, number in database.homes()} == {home}
    # what comes from another partition, and knows nothing of the home, is a conflict
    assert database.sink().store(batch_of(replace(of_new, partition=0))) == ["A"]
    assert {(topic, number) for _, topic, number in database.homes()} == {home}


def test_who_stores_a_run_of_this_topic_is_not(database: Database) -> None:
    database.sink().settle(OLD)
    with database.in_a_transaction(LOCK, OLD.topic_id.hex(), 1) as working:
        database.sink().settle(OLD)
        working.commit()


def test_a_replay_of_the_topic_before_takes_no_entity_back(database: Database) -> None:
    """It had a run when the topic was recreated; live has settled the entity since."""
    sink = database.sink()
    sink.settle(OLD)
    (run,) = runs(ticks(["A"], 5), ())
    copying = database.replay("copying", OLD)
    comparing = database.replay("comparing", OLD, copies=False)
    sink.settle(NEW)
    worker(sink).materialize(replace(run, topic_id=NEW.topic_id, partition=1), GO_ON)
    before = database.homes(), postgres_dump(database.url)
    for replay in (copying, comparing):
        with pytest.raises(TopicRecreated):
            replay.store(batch_of(run))
        assert (database.homes(), postgres_dump(database.url)) == before


def test_a_replay_that_was_moved_meanwhile_stores_nothing(database: Database) -> None:
    """Another process of the same replay has stored the run, and the one after it."""
    database.sink().settle(OLD)
    (first,), (second,) = (runs(ticks([name], 5, n), (), n) for name, n in (("A", 0), ("B", 5)))
    ahead, behind = (database.replay("the same", OLD, copies=False) for _ in range(2))
    for run in (first, second):
        ahead.store(batch_of(run))
    before = postgres_dump(database.url)
    with pytest.raises(WatermarkMoved):
        behind.store(batch_of(first))
    progress = ReplayProgress(database.url)
    assert progress.reached("the same", OLD.topic_id, 0) == second.next_offset
    progress.close()
    assert postgres_dump(database.url) == before


def test_who_holds_an_entity_in_another_partition_is_ended(database: Database) -> None:
    """Stopped in the middle, it has settled an entity that comes from here too."""
    sink = database.sink(lock_timeout_ms=100)
    sink.settle(OLD)
    settle = "SELECT tickwell.settle_entities('price', %s::uuid, 0, ARRAY['A'])"
    lock = LOCK.replace("1000", "1000), pg_sleep(5.2")
    with database.in_a_transaction(lock, OLD.topic_id.hex(), 0) as stopped:
        with stopped.cursor() as cursor:
            cursor.execute(settle, (OLD.topic_id.hex(),))
        run = replace(next(iter(runs(ticks(["A"], 5), ()))), partition=1)
        with pytest.raises(PartitionHeld):
            sink.store(batch_of(run))
        assert sink.store(batch_of(run)) == []
    assert database.homes() == {("A", UUID(bytes=OLD.topic_id), 1)}


def test_who_has_just_settled_an_entity_is_waited_for(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """And is not told from who records rules, whom this message is about as well."""
    sink = database.sink(lock_timeout_ms=100)
    sink.settle(OLD)
    settle = "SELECT tickwell.settle_entities('price', %s::uuid, 0, ARRAY['A'])"
    run = replace(next(iter(runs(ticks(["A"], 5), ()))), partition=1)
    with database.in_a_transaction(settle, OLD.topic_id.hex()) as working:
        with caplog.at_level("INFO"), pytest.raises(PartitionHeld):
            sink.store(batch_of(run))
        working.commit()
    assert "records rules, or has not held them for long" in caplog.text
    assert sink.store(batch_of(run)) == ["A"]
