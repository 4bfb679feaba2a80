"""Postgres through PgBouncer: what a session of ours would have kept is another's by then."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from pipelines.compute.batch import Batch
from pipelines.kafka.connection import KafkaConnection
from pipelines.kafka.run import Run
from pipelines.kafka.topics import Topic, ensure_topics
from pipelines.live.rejected_relay import Relay
from pipelines.replay.backfill_sink import BackfillSink
from pipelines.replay.progress import Progress, ReplayProgress
from pipelines.stores.postgres.connection import Database
from pipelines.stores.postgres.offline_sink import OfflineSink
from pipelines.ticks.decoder import Decoder
from registry import catalog
from registry.database import migrations
from registry.database.engine import connect
from registry.database.month_partitions import attach_ahead
from registry.features_file import read
from registry.lifecycle.recording import record
from tests.support.logs import TOPIC_ID, runs
from tests.support.servers import pgbouncer
from tests.support.shipped import SOURCE
from tests.support.sinks import BEGIN, GO_ON, Opened, postgres_dump, ticks, worker
from tests.support.states import loaded
from tests.support.windows import apply_new, table

TOPIC = Topic("ticks.price", TOPIC_ID, 1)
SESSIONS = 3
"""Sessions of the server that the pool has from the start; they are used in turn."""


@pytest.fixture(params=["transaction", "session"])
def pooled(postgres: str, data: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of an empty database through PgBouncer."""
    name = f"pooled_{uuid.uuid4().hex[:8]}"
    with closing(psycopg2.connect(postgres)) as connection:
        connection.autocommit = True
        connection.cursor().execute(f"CREATE DATABASE {name}")
        behind = f"{postgres.rsplit('/', 1)[0]}/{name}"
        with pgbouncer(data / name, behind, request.param) as url:
            _open_sessions(url)
            yield url
        connection.cursor().execute(f"DROP DATABASE {name} WITH (FORCE)")


def _open_sessions(url: str) -> None:
    """Transactions at the same time make the pool connect as often to the server."""
    clients = [psycopg2.connect(url) for _ in range(SESSIONS)]
    for client in clients:
        client.cursor().execute("SELECT 1")
    for client in clients:
        client.rollback()  # the pool closes the session of a client that leaves in a transaction
        client.close()


def sessions(url: str, query: str) -> set[Any]:
    """What a query answers in each session of the server, which are used in turn."""
    found = set()
    for _ in range(2 * SESSIONS):
        with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
            connection.autocommit = True
            cursor.execute(query)
            found.add(cursor.fetchone()[0])
    return found


def prepared(url: str) -> None:
    """Tables and definitions, by the pool."""
    engine = connect(url)
    migrations.upgrade(engine)
    attach_ahead(engine, datetime.now(UTC))
    recorded = record(engine, read(), "test")
    assert catalog.load(engine) == recorded
    engine.dispose()


def test_migrations_stores_and_replays_through_a_pool(pooled: str, opened: Opened) -> None:
    prepared(pooled)
    first, second = runs(ticks(["A", "B"], 60), (30,))
    worker(opened(OfflineSink(pooled))).materialize(first, GO_ON)
    sink = opened(OfflineSink(pooled))  # a worker that knows only what is stored
    assert sink.watermarks(TOPIC_ID, [0]) == {0: 30}
    assert loaded(sink, SOURCE, ["A"], 64, BEGIN)["A"].count == 15
    worker(sink).materialize(second, GO_ON)
    rows, rejected = postgres_dump(pooled)
    assert (len(rows), rejected) == (60, [])

    batch = batch_of(first)
    assert replayed(pooled, batch, opened) == 0  # compared
    with closing(psycopg2.connect(pooled)) as connection:
        connection.autocommit = True
        connection.cursor().execute("DELETE FROM tickwell.feature_rows WHERE entity = 'A'")
    assert replayed(pooled, batch, opened) == 15
    assert postgres_dump(pooled)[0][0] == rows[0]
    nothing_is_left(pooled)


def batch_of(run: Run) -> Batch:
    """What a run comes to without a state before it."""
    return apply_new(table(), Decoder(SOURCE).decode(run))


def replayed(url: str, batch: Batch, opened: Opened) -> int:
    """How many rows a replay of a batch, whose rows are staged, has added."""
    progress = opened(ReplayProgress(url))
    progress.begin("pooled", TOPIC, 0, "", True, Progress(0, 0, 0))
    added: int = opened(BackfillSink(url, "pooled", 0)).store(batch)
    assert progress.reached("pooled", TOPIC_ID, 0) == batch.run.next_offset
    return added


def nothing_is_left(url: str) -> None:
    """No session keeps a lock, a table or a setting for whoever gets it next."""
    assert sessions(url, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == {0}
    assert sessions(url, "SELECT count(*) FROM pg_class WHERE relpersistence = 't'") == {0}
    for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
        assert sessions(url, f"SHOW {name}") == {"0"}


def test_limits_hold_in_every_transaction(pooled: str) -> None:
    database = Database(pooled, "tickwell test", lock_timeout_ms=7_000, idle_timeout_ms=8_000)
    shown = "SELECT current_setting('lock_timeout'), current_setting('statement_timeout'), "
    for _ in range(2 * SESSIONS):
        with database.transaction() as cursor:
            cursor.execute(shown + "current_setting('idle_in_transaction_session_timeout')")
            assert cursor.fetchone() == ("7s", "1min", "8s")
    database.close()
    engine = connect(pooled, statement_timeout_ms=9_000)
    for _ in range(2 * SESSIONS):
        with engine.connect() as connection:
            assert connection.exec_driver_sql("SHOW statement_timeout").scalar() == "9s"
    engine.dispose()
    nothing_is_left(pooled)


def test_the_lock_of_the_relay_stays_in_no_session(pooled: str, kafka: str) -> None:
    """A session that the pool kept would have it for good, and nobody could relay any more."""
    prepared(pooled)
    broker, topic = KafkaConnection(kafka), f"rejected-{uuid.uuid4().hex[:8]}"
    ensure_topics(broker, [topic], 1)
    for relay in [Relay(pooled, broker, topic) for _ in range(SESSIONS)]:
        assert not relay.relay()
        relay.close()
    nothing_is_left(pooled)
