"""The backfill of one version beside what Postgres gives and takes.

All are of the same ticks, and all but the last of the same rows, which the offline worker wrote:

- the raw fields of the rows out of Postgres by binary COPY, with the entity, time, sequence and
  operation that say whose they are, to a client in Python: as the table is stored, and by entity
  and event time, as a backfill must have them. One server process gives them, and the client
  computes nothing of them;
- the backfill from Postgres, over both cores, from its beginning to its last block, and the one
  from Kafka, which one process computes;
- a replay into rows, which `offline` measures too: `replay, one job`.

Before each a checkpoint settles what the one before has written.
"""

from __future__ import annotations

import os
import time
from contextlib import closing
from io import BytesIO
from threading import Event
from typing import Any

import psycopg2

from benchmarks.backlog import Backlog
from benchmarks.offline import LIMIT_SECONDS
from benchmarks.processes import processor_seconds
from benchmarks.results import Failed, Run
from benchmarks.services import Services, execute
from benchmarks.timing import span
from benchmarks.workers import offline_done, worker
from pipelines.backfill.backfill import BackfillWork
from pipelines.backfill.from_kafka import LogBackfillWork
from pipelines.kafka.connection import KafkaConnection
from pipelines.stores.postgres.row_copy import CHUNK_BYTES
from registry.database.engine import connect
from registry.lifecycle.audit import By
from registry.lifecycle.registry import Registry

FIELDS = """
COPY (SELECT entity, event_time, sequence, op, fields FROM tickwell.feature_rows{})
TO STDOUT (FORMAT binary)
"""
IN_ORDER = " ORDER BY entity, schema_id, event_time, sequence"
FEATURE, VERSION = "price_sma_20", "2.0.0"
BYTES = """
SELECT pg_total_relation_size('tickwell.backfilled_blocks')::float8
    / sum(cardinality(values)) FROM tickwell.backfilled_blocks
"""
VERSION_TABLES = """
TRUNCATE tickwell.backfilled_blocks, tickwell.backfill_ranges, tickwell.backfill_reads,
    tickwell.backfills CASCADE
"""


def stored(services: Services, backlog: Backlog) -> Run:
    """Has a database with the rows of a backlog, and a version of a feature that they lack.

    Gives the rate of the worker that wrote them.
    """
    settings = services.fresh(backlog.settings)
    with worker(services, settings, "offline") as child:
        found = span(offline_done(settings), backlog.ticks, LIMIT_SECONDS, [child], dict)
    if not found.complete:
        raise Failed(f"the rows were not stored in {LIMIT_SECONDS:g} s")
    engine = connect(settings.postgres)
    try:
        Registry(engine, By("bench")).create_feature_version(
            FEATURE, VERSION, {"expression": "mean(price, 19)"}, "1.0.0"
        )
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("VACUUM ANALYZE tickwell.feature_rows")
    finally:
        engine.dispose()
    return Run(value=found.rate, ticks=found.ticks, seconds=found.seconds)


def fields(services: Services, ticks: int, in_order: bool) -> Run:
    """Ticks a second whose raw fields come out by binary COPY."""
    out = BytesIO()
    execute(services.postgres, "CHECKPOINT")
    before = _processor(services)
    with closing(psycopg2.connect(services.postgres)) as connection, connection.cursor() as cursor:
        began = time.monotonic()
        cursor.copy_expert(FIELDS.format(IN_ORDER if in_order else ""), out, CHUNK_BYTES)
        seconds = time.monotonic() - began
        if cursor.rowcount not in (-1, ticks):
            raise Failed(f"{cursor.rowcount:,} rows of {ticks:,} ticks")
        cpu = _since(services, before)  # while the server process is there that gave them
    return Run(value=ticks / seconds, ticks=ticks, seconds=seconds, cpu=cpu)


def backfill(services: Services, ticks: int, kafka: KafkaConnection | None = None) -> Run:
    """Ticks a second of a backfill, to committed blocks; bytes a tick in `detail`.

    It is from Postgres, or from the log in `kafka`.
    """
    execute(services.postgres, VERSION_TABLES)
    execute(services.postgres, "CHECKPOINT")
    engine = connect(services.postgres)
    try:
        registry, ref = Registry(engine, By("bench")), f"{FEATURE}@{VERSION}"
        found = registry.begin_backfill(ref, ticks_from="postgres" if kafka is None else "kafka")
        if found is None:
            raise Failed("there is nothing to backfill")
        work: BackfillWork | LogBackfillWork
        if kafka is None:
            work = BackfillWork(services.postgres, registry.catalog(), found)
        else:
            work = LogBackfillWork(kafka, services.postgres, registry.catalog(), found)
        before, began = _processor(services), time.monotonic()
        done = work.run(lambda _: None, Event())
        seconds, cpu = time.monotonic() - began, _since(services, before)
    finally:
        engine.dispose()
    if done.ticks != ticks:
        raise Failed(f"{done.ticks:,} values of {ticks:,} ticks")
    detail: dict[str, Any] = {"bytes_a_tick": execute(services.postgres, BYTES)}
    return Run(value=ticks / seconds, ticks=ticks, seconds=seconds, cpu=cpu, detail=detail)


def _since(services: Services, before: dict[str, float]) -> dict[str, float]:
    """The processor time that was taken since `before`, by process."""
    after = _processor(services)
    return {name: round(after[name] - before[name], 3) for name in before}


def _processor(services: Services) -> dict[str, float]:
    return {"bench": processor_seconds(os.getpid(), alone=True), **services.processor_seconds()}
