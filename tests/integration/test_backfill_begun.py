"""A backfill begins while a worker stores a run: every tick is in one or in the other."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace
from threading import Event
from typing import Any
from uuid import UUID

import psycopg2
import pytest
from sqlalchemy import Engine

from pipelines.kafka.topics import Topic
from pipelines.stores.postgres.offline_sink import Copy, OfflineSink
from pipelines.stores.postgres.row_copy import copy_rows
from registry.database.engine import connect
from registry.errors import NotAllowed
from registry.features_file import read
from registry.lifecycle.audit import By
from registry.lifecycle.recording import record
from registry.lifecycle.registry import Registry
from tests.support.backfills import backfill, blocks
from tests.support.followers import Follower
from tests.support.logs import TOPIC_ID, runs
from tests.support.rebuilds import Stores
from tests.support.sinks import query, ticks

NEW = "price_sma_5@2.0.0"


@pytest.fixture
def engine(stores: Stores) -> Iterator[Engine]:
    engine = connect(stores.postgres)
    record(engine, read(), "ann")
    yield engine
    engine.dispose()


def worker(stores: Stores, engine: Engine, copy: Copy = copy_rows) -> Follower:
    sink = stores.keep(OfflineSink(stores.postgres, copy=copy))
    sink.settle(Topic("ticks.price", TOPIC_ID, 2))
    return Follower(engine, sink)


def create(registry: Registry) -> None:
    registry.create_feature_version(
        "price_sma_5", "2.0.0", {"expression": "mean(price, 6)"}, "1.0.0"
    )


@contextmanager
def session(stores: Stores, statement: str, *arguments: Any) -> Iterator[None]:
    """A transaction that is open meanwhile."""
    connection = psycopg2.connect(stores.postgres)
    try:
        connection.cursor().execute(statement, arguments)
        yield
    finally:
        connection.close()


@pytest.mark.parametrize("stored", [False, True], ids=["the first run", "a later run"])
def test_a_run_that_is_being_stored_in_the_old_row_schema_is_waited_for(
    stores: Stores, engine: Engine, stored: bool
) -> None:
    """It has checked its row schema before the version was recorded."""
    copies, go_on = Event(), Event()

    def copy(cursor: Any, packed: memoryview) -> None:
        copies.set()
        assert go_on.wait(60)
        copy_rows(cursor, packed)

    registry = Registry(engine, By("ann"))
    first, second = (replace(run, partition=1) for run in runs(ticks(["A", "B"], 40), [20]))
    if stored:
        worker(stores, engine).take(first, ahead=False)
    work = worker(stores, engine, copy)
    with ThreadPoolExecutor(2) as pool:
        storing = pool.submit(work.take, second if stored else first, ahead=False)
        assert copies.wait(60)
        create(registry)
        begins = pool.submit(registry.begin_backfill, NEW)
        wait([begins], 2)  # it ends only where it does not wait
        go_on.set()
        batch, begun = storing.result(), begins.result()
    assert batch is not None
    assert batch.schema.id == 1
    assert begun is not None
    assert begun.ranges == ((TOPIC_ID, 1, 0, 40 if stored else 20),)
    assert backfill(engine, stores.postgres, NEW).finished
    found = query(stores.postgres, "SELECT entity, event_time, sequence FROM tickwell.feature_rows")
    assert blocks(stores.postgres, NEW).keys() == set(found)


def test_a_worker_that_holds_a_partition_for_good_is_named(stores: Stores, engine: Engine) -> None:
    registry, work = Registry(engine, By("ann")), worker(stores, engine)
    (run,) = runs(ticks(["A", "B"], 20), [])
    work.take(run, ahead=False)
    create(registry)
    hold = "SELECT tickwell.lock_partition(%s::uuid, 0, 100)"
    with (
        session(stores, hold, str(UUID(bytes=TOPIC_ID))),
        pytest.raises(NotAllowed, match=r"ticks\.price\[0\] was held for longer than 10 s"),
    ):
        registry.begin_backfill(NEW)
    assert registry.begin_backfill(NEW) is not None
