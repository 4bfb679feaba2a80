"""A database whose transactions see what was there when they began, unless they say otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from uuid import UUID

import psycopg2
import pytest
from sqlalchemy import Engine

from pipelines.kafka.topics import Topic
from pipelines.stores.postgres.offline_sink import OfflineSink
from registry.database.engine import connect
from registry.features_file import read
from registry.lifecycle.audit import By
from registry.lifecycle.recording import record
from registry.lifecycle.registry import Registry
from tests.support.followers import Follower
from tests.support.lifecycles import NEW, OLD, SMA, with_new_version
from tests.support.logs import TOPIC_ID, runs
from tests.support.rebuilds import Stores
from tests.support.sinks import ticks


@pytest.fixture(params=["repeatable read", "serializable"])
def engine(stores: Stores, request: pytest.FixtureRequest) -> Iterator[Engine]:
    name = stores.postgres.rpartition("/")[2]
    stores.execute(f"ALTER DATABASE {name} SET default_transaction_isolation = '{request.param}'")
    engine = connect(stores.postgres)
    record(engine, read(), "ann")
    yield engine
    engine.dispose()


def test_of_two_changes_the_second_sees_what_the_first_has_recorded(engine: Engine) -> None:
    registry = Registry(engine, By("ann"))
    with_new_version(registry)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(registry.activate, [NEW, OLD] * 10))
    for later, earlier in pairwise(registry.history(SMA)):
        assert later.previous == earlier.version


def test_a_run_that_waits_for_its_partition_is_stored_in_the_row_schema_of_then(
    stores: Stores, engine: Engine
) -> None:
    sink = stores.keep(OfflineSink(stores.postgres))
    sink.settle(Topic("ticks.price", TOPIC_ID, 1))
    work = Follower(engine, sink)
    first, second = runs(ticks(["A", "B"], 40), [20])
    work.take(first, ahead=False)
    holder = psycopg2.connect(stores.postgres)
    watching = psycopg2.connect(stores.postgres)
    watching.autocommit = True
    try:
        hold = "SELECT tickwell.lock_partition(%s::uuid, 0, 100)"
        holder.cursor().execute(hold, [str(UUID(bytes=TOPIC_ID))])
        with ThreadPoolExecutor(1) as threads, watching.cursor() as cursor:
            storing = threads.submit(work.take, second, ahead=False)
            waiting: tuple[int, ...] | None = (0,)
            while waiting == (0,) and not storing.done():
                cursor.execute(
                    "SELECT count(*) FROM pg_stat_activity"
                    " WHERE wait_event = 'advisory' AND query LIKE '%begin_run%'"
                )
                waiting = cursor.fetchone()
            newest = with_new_version(Registry(engine, By("ann"))).writing["price"]
            holder.close()
            batch = storing.result()
    finally:
        holder.close()
        watching.close()
    assert batch is not None
    assert batch.schema.id == newest
