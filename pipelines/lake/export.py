"""Writes the days of rows that the lake does not have yet, and those that were changed since.

    snapshot ─► COPY ─► arrays ─► Arrow ─► file in `unfinished` ─► moved ─► manifest

No day is ever final: a symbol that was silent may tick for last month today. `day_changes` counts,
in the transactions of the rows, how often rows of a day were stored. A snapshot that has the rows
has the count, so the files of a day are whole as long as its count is the one that they were
written with. A day that was changed is written anew as a whole and moved in place of the old one.

Killed at any instant, files are whole or not there. One that was moved before the manifest knew is
of a day that counts as changed, and is written once more.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine, select, text

from pipelines.lake.backfilled import backfilled_values
from pipelines.lake.columns import LakeSchema, arrow_table
from pipelines.lake.day_rows import ROWS_A_GROUP, DayRows, Take
from pipelines.lake.days import (
    DayState,
    LakeDay,
    day_in,
    days_of_lake,
    record_day,
    schemas_of,
    watermarks_in,
)
from pipelines.lake.errors import ExportElsewhere, Stopped
from pipelines.lake.files import (
    UnfinishedFile,
    WrittenFile,
    move_to,
    remove_unfinished,
)
from pipelines.lake.snapshot import DaySnapshot, day_snapshot
from pipelines.lake.time_indexes import make_time_indexes
from pipelines.replay.throttle import Throttle
from registry import catalog
from registry.database.engine import connect
from registry.database.lake_tables import day_scans
from registry.definitions import RowSchema
from registry.formats.lake import DAY_NS, day_number, file_path
from registry.resources import sql

logger = logging.getLogger(__name__)

FIND_DAYS = sql(__package__, "find_days")
LOCK = 7_242_019_024
"""Advisory lock of whoever writes the lake of this database."""

CONNECT_SECONDS, SILENCE_MS = 5, 15_000


class Done(NamedTuple):
    """What an export has done; `waits` says what it waits for."""

    days: int = 0
    of: int = 0
    rows: int = 0
    bytes: int = 0
    refused: tuple[str, ...] = ()
    """Days of which Postgres has fewer rows than the lake: their files stay."""
    waits: str | None = None
    finished: bool = False


Report = Callable[[Done], None]


class _Steps(NamedTuple):
    """What is called between the steps of an export."""

    report: Report
    check_alone: Callable[[], None]
    """Raises where another process may have begun to write."""


@dataclass(frozen=True, slots=True)
class LakeExport:
    """Exports the database at `postgres` to the folder `lake`.

    Of days from `since` up to, not including, `until`. It pauses while the workers are behind whose
    heartbeats are in the Redis servers `heartbeats`, of which the one at `cluster` is a Redis
    Cluster.
    """

    postgres: str = field(repr=False)
    lake: Path
    until: date
    since: date = date.min
    heartbeats: tuple[str, ...] = ()
    cluster: str | None = None
    rows_a_group: int = ROWS_A_GROUP

    def run(self, report: Report, stop: Event) -> Done:
        """Write what is missing until all is there or `stop` is set.

        Raises `ExportElsewhere` where another process writes the lake, `ColumnsAlike`,
        `OtherFields`, SQLAlchemy's `DBAPIError`, `RegistryEmpty` and OSError.
        """
        engine = connect(self.postgres, CONNECT_SECONDS, silence_ms=SILENCE_MS)
        throttle = Throttle(self.heartbeats, self.cluster)
        try:
            with _alone(engine) as check_alone:
                return self._run(engine, throttle, _Steps(report, check_alone), stop)
        finally:
            throttle.close()
            engine.dispose()

    def _run(self, engine: Engine, throttle: Throttle, steps: _Steps, stop: Event) -> Done:
        report = steps.report
        remove_unfinished(self.lake)
        make_time_indexes(engine)
        find_days(engine)
        wanted = self._wanted(engine)
        done, reader = Done(of=len(wanted)), DayRows(self.rows_a_group)
        report(done)

        def wait() -> None:
            throttle.wait(stop, lambda why: report(done._replace(waits=why)))
            if stop.is_set():
                raise Stopped

        for day in wanted:
            try:
                wait()
                written = _DayExport(engine, self.lake, reader, wait).write(day, steps.check_alone)
            except Stopped:
                return done
            if written is None:
                refused = (*done.refused, f"{day.source} {day.day}")
                done = done._replace(days=done.days + 1, refused=refused)
            else:
                done = done._replace(
                    days=done.days + 1,
                    rows=done.rows + sum(file.rows for file in written),
                    bytes=done.bytes + sum(file.size for file in written),
                )
            report(done)
        return done._replace(finished=True)

    def _wanted(self, engine: Engine) -> list[LakeDay]:
        known = catalog.load(engine)
        with engine.connect() as connection:
            schemas = schemas_of(connection, known)
            return [
                day
                for day in days_of_lake(connection)
                if self.since <= day.day < self.until
                and day.state(schemas, self.lake) is not DayState.WHOLE
            ]


def find_days(engine: Engine) -> None:
    """Look up, once, the days of rows that were stored before their changes were counted."""
    with engine.begin() as connection:
        if connection.execute(select(day_scans)).first() is None:
            connection.exec_driver_sql(FIND_DAYS, {"day": DAY_NS})
            connection.execute(day_scans.insert())


class _DayExport:
    """Writes the files of a day."""

    def __init__(
        self, engine: Engine, lake: Path, reader: DayRows, wait: Callable[[], None]
    ) -> None:
        self._engine = engine
        self._lake = lake
        self._reader = reader
        self._wait = wait
        self._open: dict[int, UnfinishedFile] = {}
        self._writing: Future[None] | None = None

    def write(self, wanted: LakeDay, check_alone: Callable[[], None]) -> list[WrittenFile] | None:
        """The files of a day, written and put on record; None where they would have fewer rows."""
        written: dict[int, tuple[LakeSchema, WrittenFile]] = {}
        try:
            with day_snapshot(self._engine) as seen:
                day = day_in(seen, wanted.source, wanted.day)
                assert day is not None, "what is counted once stays counted"
                watermarks = watermarks_in(seen, day.source)
                schemas = schemas_of(seen.asking, seen.catalog)
                source = seen.catalog.sources[day.source]
                number = day_number(day.day)
                with ThreadPoolExecutor(1, "lake") as pool:
                    begin = partial(self._begin, seen, schemas, pool)
                    self._reader.copy(seen, source, number, begin)
                    self._written()
            for schema_id, file in self._open.items():
                written[schema_id] = schemas[schema_id], file.finish()
            check_alone()
        except BaseException:
            self._discard()
            raise
        if any(_rows_of(written, one.schema_id) < one.rows for one in day.files):
            self._discard()
            logger.warning(
                "Postgres has fewer rows of %s on %s than the lake: its files stay as they are",
                *(day.source, day.day),
            )
            return None
        for schema_id, (_, whole) in written.items():
            move_to(whole, self._lake / file_path(day.source, schema_id, day.day))
        with self._engine.begin() as connection:
            record_day(connection, day, watermarks, written)
        return [file for _, file in written.values()]

    def _begin(
        self, seen: DaySnapshot, schemas: dict[int, LakeSchema], pool: ThreadPoolExecutor
    ) -> Take:
        """What writes rows while the next ones are copied."""
        self._written()
        self._discard()

        def take(schema: RowSchema, rows: Any) -> None:
            self._wait()
            self._written()
            self._writing = pool.submit(self._add, seen, schemas[schema.id], rows)

        return take

    def _add(self, seen: DaySnapshot, wanted: LakeSchema, rows: Any) -> None:
        number = wanted.schema.id
        if number not in self._open:
            self._open[number] = UnfinishedFile(self._lake, wanted.arrow())
        self._open[number].add(arrow_table(wanted, rows, backfilled_values(seen, wanted, rows)))

    def _written(self) -> None:
        """Wait for the rows that are being written, and raise what that raised."""
        if self._writing is not None:
            self._writing.result()
            self._writing = None

    def _discard(self) -> None:
        for file in self._open.values():
            file.discard()
        self._open.clear()


def _rows_of(written: dict[int, tuple[LakeSchema, WrittenFile]], schema_id: int) -> int:
    found = written.get(schema_id)
    return 0 if found is None else found[1].rows


@contextmanager
def _alone(engine: Engine) -> Iterator[Callable[[], None]]:
    """One process at a time writes; gives what raises once the session of the lock is lost.

    Raises `ExportElsewhere`.
    """
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        mine = text("SELECT pg_try_advisory_lock(:lock)")
        if not connection.execute(mine, {"lock": LOCK}).scalar_one():
            raise ExportElsewhere
        yield lambda: _ask(connection)
        connection.execute(text("SELECT pg_advisory_unlock(:lock)"), {"lock": LOCK})


def _ask(connection: Connection) -> None:
    connection.execute(text("SELECT 1"))
