"""The offline worker, and a replay, beside what this Postgres can take.

The limit is the rate at which Postgres takes the same rows from memory, in runs of the same size,
over one connection: COPY to a staging table, then insert on conflict, one transaction a run, in the
order of the primary key and in pieces of the size that the worker hands over. The rows are those
that a worker wrote, and its runs are told by the transactions that they were written in. Beside it
the limit of a plain COPY straight into the table, which compares nothing.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import psycopg2

from benchmarks.backlog import Backlog
from benchmarks.processes import ROOT, processor_seconds, resident_mb, running
from benchmarks.results import Failed, Run
from benchmarks.services import Services, environment, execute
from benchmarks.timing import span
from benchmarks.workers import check_counted, offline_done, worker
from pipelines.stores.postgres.row_copy import CHUNK_BYTES

LIMIT_SECONDS = 300.0
READABLE = 'CREATE INDEX ON tickwell.feature_rows (partition, "offset")'
RUNS = """
SELECT partition, min("offset"), max("offset") FROM tickwell.feature_rows
GROUP BY partition, xmin ORDER BY xmin::text::bigint
"""
RUN = """
COPY (
    SELECT * FROM tickwell.feature_rows
    WHERE partition = {} AND "offset" BETWEEN {} AND {} ORDER BY entity, event_time, sequence
) TO STDOUT (FORMAT binary)
"""
STAGING = "CREATE TEMPORARY TABLE staging (LIKE tickwell.feature_rows)"
EMPTY = "TRUNCATE staging"
STAGE = "COPY staging FROM STDIN (FORMAT binary)"
INSERT = "INSERT INTO tickwell.feature_rows SELECT * FROM staging ON CONFLICT DO NOTHING"
DIRECT = "COPY tickwell.feature_rows FROM STDIN (FORMAT binary)"
ROWS = "SELECT count(*) FROM tickwell.feature_rows"


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of the feature table as binary COPY takes them, one piece for each run."""

    pieces: list[bytes]
    rows: int


def offline(services: Services, backlog: Backlog, limit: float = LIMIT_SECONDS) -> Run:
    """Ticks a second of one offline worker, to committed rows."""
    settings = services.fresh(backlog.settings)
    with worker(services, settings, "offline") as child:
        found = span(
            offline_done(settings),
            backlog.ticks,
            limit,
            [child],
            lambda: {"worker": processor_seconds(child.pid), **services.processor_seconds()},
        )
        memory = resident_mb(child.pid)
        if found.complete:
            check_counted(settings, "offline", backlog.ticks, "one")
    return _run(found.ticks, found.seconds, found.cpu, memory)


def rows_of(postgres: str) -> Rows:
    """The rows of a database, in the pieces and the order in which they were written."""
    execute(postgres, READABLE)
    pieces = []
    with closing(psycopg2.connect(postgres)) as connection, connection.cursor() as cursor:
        cursor.execute(RUNS)
        for partition, first, last in cursor.fetchall():
            piece = BytesIO()
            cursor.copy_expert(RUN.format(partition, first, last), piece)
            pieces.append(piece.getvalue())
        cursor.execute(ROWS)
        row = cursor.fetchone()
    return Rows(pieces, int(row[0]) if row else 0)


def limit(services: Services, backlog: Backlog, rows: Rows, staged: bool) -> Run:
    """Rows a second that Postgres takes from memory, through a staging table or straight."""
    settings = services.fresh(backlog.settings)
    with closing(psycopg2.connect(settings.postgres)) as connection, connection.cursor() as cursor:
        cursor.execute(STAGING)
        connection.commit()
        before, began = _processor(services), time.monotonic()
        for piece in rows.pieces:
            if staged:
                cursor.execute(EMPTY)
                cursor.copy_expert(STAGE, BytesIO(piece), CHUNK_BYTES)
                cursor.execute(INSERT)
            else:
                cursor.copy_expert(DIRECT, BytesIO(piece), CHUNK_BYTES)
            connection.commit()
        seconds, after = time.monotonic() - began, _processor(services)
        cursor.execute(ROWS)
        row = cursor.fetchone()
    if row is None or row[0] != rows.rows:
        raise Failed(f"{row} rows are there, and {rows.rows} were sent")
    cpu = {name: round(after[name] - before[name], 3) for name in before}
    return _run(rows.rows, seconds, cpu, None, runs=len(rows.pieces))


def replay(services: Services, backlog: Backlog) -> Run:
    """Ticks a second of `tickwell replay` into an empty database, from its first rows to its end.

    With `--jobs 1` where it has that option.
    """
    settings = services.fresh(backlog.settings)
    command = ["-m", "tickwell", "replay", "--source", "price", *_jobs()]
    deadline = time.monotonic() + LIMIT_SECONDS
    with running("replay", command, environment(settings), services.place) as child:
        while not (first := execute(settings.postgres, ROWS)):
            child.check()
            time.sleep(0.02)
        began, before, asked = time.monotonic(), _processor(services, child.pid), 0.0
        while child.popen.poll() is None:
            if (now := time.monotonic()) > deadline:
                raise Failed(f"the replay did not end in {LIMIT_SECONDS:g} s")
            if now > asked + 0.5:  # once it has ended it cannot be asked
                after, memory, asked = _processor(services, child.pid), resident_mb(child.pid), now
            time.sleep(0.01)
        seconds = time.monotonic() - began
        if child.popen.returncode != 0:
            child.check()
    rows = execute(settings.postgres, ROWS)
    if rows != backlog.ticks:
        raise Failed(f"{rows:,} rows of {backlog.ticks:,} ticks")
    cpu = {name: round(after[name] - before[name], 3) for name in before}
    return _run(rows - first, seconds, cpu, memory)


def _jobs() -> list[str]:
    told = subprocess.run(
        [sys.executable, "-m", "tickwell", "replay", "--help"],
        cwd=ROOT,
        env={**os.environ, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return ["--jobs", "1"] if "--jobs" in told else []


def _processor(services: Services, pid: int | None = None) -> dict[str, float]:
    name = "bench" if pid is None else "replay"
    return {name: processor_seconds(pid or os.getpid(), alone=pid is None)} | (
        services.processor_seconds()
    )


def _run(
    ticks: int, seconds: float, cpu: dict[str, float], memory: float | None, **detail: Any
) -> Run:
    return Run(
        value=ticks / seconds,
        ticks=ticks,
        seconds=seconds,
        cpu=cpu,
        memory_mb=memory,
        detail=detail,
    )
