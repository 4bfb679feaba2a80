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
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from threading import Event
from typing import NamedTuple

from sqlalchemy import Connection, Engine, select, text

from pipelines.lake.day_export import DayExport, NotExported
from pipelines.lake.day_rows import ROWS_A_GROUP, DayRows
from pipelines.lake.days import DayState, LakeDay, days_of_lake, schemas_of
from pipelines.lake.errors import ExportElsewhere, Stopped
from pipelines.lake.files import remove_unfinished
from pipelines.lake.time_indexes import make_time_indexes
from pipelines.replay.throttle import Throttle
from registry import catalog
from registry.database.engine import connect
from registry.database.lake_tables import day_scans
from registry.formats.lake import DAY_NS
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
    """Days whose files stay as they are, and why."""
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
            with alone(engine) as check_alone:
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
                written = DayExport(engine, self.lake, reader, wait).write(day, steps.check_alone)
            except Stopped:
                return done
            except NotExported as error:
                logger.warning("%s of %s was not exported: %s", day.day, day.source, error)
                refused = (*done.refused, f"{day.source} {day.day}: {error}")
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


@contextmanager
def alone(engine: Engine) -> Iterator[Callable[[], None]]:
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
