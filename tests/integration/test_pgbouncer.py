"""Postgres through a PgBouncer in session mode: migrations, the catalog, rows.

PgBouncer before 1.20 drops the timeouts that our connections ask for (`options`).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest

from pipelines.stores.postgres.offline_sink import OfflineSink
from registry import catalog
from registry.database import migrations
from registry.database.engine import connect
from registry.features_file import read
from registry.lifecycle.recording import record
from tests.support.logs import TOPIC_ID, runs
from tests.support.servers import pgbouncer
from tests.support.shipped import SOURCE
from tests.support.sinks import BEGIN, GO_ON, Opened, postgres_dump, ticks, worker


@pytest.fixture
def pooled(postgres: str, data: Path) -> Iterator[str]:
    """The URL of an empty database through PgBouncer."""
    name = f"pooled_{uuid.uuid4().hex[:8]}"
    with closing(psycopg2.connect(postgres)) as connection:
        connection.autocommit = True
        connection.cursor().execute(f"CREATE DATABASE {name}")
        with pgbouncer(data / name, f"{postgres.rsplit('/', 1)[0]}/{name}") as url:
            yield url
        connection.cursor().execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_migrations_and_stores_through_a_pool(pooled: str, opened: Opened) -> None:
    engine = connect(pooled)
    migrations.upgrade(engine)
    recorded = record(engine, read(), "test")
    assert catalog.load(engine) == recorded
    engine.dispose()

    first, second = runs(ticks(["A", "B"], 60), (30,))
    worker(opened(OfflineSink(pooled))).materialize(first, GO_ON)
    sink = opened(OfflineSink(pooled))  # a worker that knows only what is stored
    assert sink.watermarks(TOPIC_ID, [0]) == {0: 30}
    assert sink.load(SOURCE, ["A"], 64, BEGIN)["A"].count == 15
    worker(sink).materialize(second, GO_ON)
    rows, rejected = postgres_dump(pooled)
    assert (len(rows), rejected) == (60, [])
