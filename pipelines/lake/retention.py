"""Lets Postgres go of months that the lake has.

Of a month all days of all sources are in files that are whole, there, and the same as Postgres to
the bit, which is verified before it goes. What Postgres keeps of it are the rows from which a
worker or a rebuild of Redis takes states (`keep_newest.sql`), and what live has not read yet.
Months go from the oldest on, and the first one that cannot go keeps the later ones, too: so there
is one time from which on Postgres has all rows of a source (`tickwell.rows_since`).

A day that was let go of is what its files and Postgres have together. Rows that come for it later
make it a changed one, its next export adds them to its files, and the next run lets go of them.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from threading import Event
from typing import NamedTuple

from sqlalchemy import Engine

from pipelines.lake.day_rows import ROWS_A_GROUP, DayRows
from pipelines.lake.days import DayState, LakeDay, days_of_lake, schemas_of
from pipelines.lake.errors import NoLake, Stopped
from pipelines.lake.export import CONNECT_SECONDS, SILENCE_MS, alone, find_days
from pipelines.lake.files import is_lake
from pipelines.lake.month_swap import (
    Month,
    MonthChanged,
    MonthHeld,
    Prepared,
    discard,
    forget_blocks,
    in_the_way,
    months_of,
    prepare,
    remove_left,
    swap,
)
from pipelines.lake.verification import DayVerification, Verified
from registry import catalog
from registry.database.engine import connect
from registry.definitions import Catalog

logger = logging.getLogger(__name__)

ATTEMPTS = 20
PAUSE_SECONDS = 1.0
"""Attempts to get the lock of a month, and the mean pause between two, in which live goes on."""

SHOWN = 5
"""Days or differences that a reason names."""


class MonthDone(NamedTuple):
    """What became of a month: `reason` says why it stays, None where it went, or would go."""

    month: Month
    rows: int = 0
    """Rows of it in the lake."""
    kept: int = 0
    """Rows of it that Postgres keeps; not known beforehand."""
    reason: str | None = None


class Dropped(NamedTuple):
    """How far a run is: of `of` days so many are verified; the months that are done."""

    days: int = 0
    of: int = 0
    rows: int = 0
    """Rows that were compared with Postgres."""
    months: tuple[MonthDone, ...] = ()
    waits: str | None = None
    finished: bool = False


Report = Callable[[Dropped], None]


@dataclass(frozen=True, slots=True)
class Retention:
    """Lets the database at `postgres` go of the months before `before` that `lake` has."""

    postgres: str = field(repr=False)
    lake: Path
    before: date
    dry_run: bool = False
    rows_a_group: int = ROWS_A_GROUP
    attempts: int = ATTEMPTS
    pause_seconds: float = PAUSE_SECONDS

    def run(self, report: Report, stop: Event) -> Dropped:
        """Let go of month after month until all are done, one stays, or `stop` is set.

        With `dry_run` nothing is verified or changed. Raises `NoLake`, `ExportElsewhere` where
        another process writes the lake, SQLAlchemy's `DBAPIError`, `RegistryEmpty` and OSError.
        """
        if not is_lake(self.lake):
            raise NoLake(self.lake)
        engine = connect(self.postgres, CONNECT_SECONDS, silence_ms=SILENCE_MS)
        try:
            with alone(engine) as check_alone:
                return _Run(self, engine, report, stop, check_alone).run()
        finally:
            engine.dispose()


class _Run:
    """One run over the months."""

    def __init__(
        self,
        asked: Retention,
        engine: Engine,
        report: Report,
        stop: Event,
        check_alone: Callable[[], None],
    ) -> None:
        self._asked = asked
        self._engine = engine
        self._report = report
        self._stop = stop
        self._check_alone = check_alone
        self._done = Dropped()

    def run(self) -> Dropped:
        if not self._asked.dry_run:
            remove_left(self._engine)
        find_days(self._engine)
        known = catalog.load(self._engine)
        by_month = self._days()
        self._done = Dropped(of=sum(map(len, by_month.values())))
        self._report(self._done)
        for month, days in by_month.items():
            try:
                done = self._month(known, month, days)
            except Stopped:
                return self._done
            self._done = self._done._replace(months=(*self._done.months, done))
            self._report(self._done)
            if done.reason is not None:
                break
        if not self._asked.dry_run:
            self._forget_blocks(known)
        return self._done._replace(finished=True)

    def _forget_blocks(self, known: Catalog) -> None:
        """Also those that a process would have removed that was killed."""
        with self._engine.connect() as connection:
            schemas = schemas_of(connection, known)
            days = [day for day in days_of_lake(connection) if day.dropped]
        lacking = {d.source for d in days if d.state(schemas, None) is not DayState.WHOLE}
        for source in sorted({day.source for day in days} - lacking):
            forget_blocks(self._engine, source)

    def _days(self) -> dict[Month, list[LakeDay]]:
        """The days of months that have something to let go of, the oldest first."""
        with self._engine.connect() as connection:
            found: dict[Month, list[LakeDay]] = {
                month: []
                for month in months_of(connection)
                if month.following <= self._asked.before
            }
            for day in days_of_lake(connection):
                month = Month.of(day.day)
                if month in found:
                    found[month].append(day)
        return {month: days for month, days in found.items() if not _is_done(days)}

    def _month(self, known: Catalog, month: Month, days: Sequence[LakeDay]) -> MonthDone:
        """Let go of a month, or say why it stays. Raises `Stopped`."""
        rows = sum(day.rows for day in days)
        reason = self._reason(known, month, days)
        if reason is None and not self._asked.dry_run:
            reason = self._verify(days)
        if reason is not None or self._asked.dry_run:
            return MonthDone(month, rows, reason=reason)
        self._check_stop()
        prepared = prepare(self._engine, known, month)
        try:
            self._check_alone()
            self._swap(prepared)
        except (MonthChanged, MonthHeld) as error:
            discard(self._engine, prepared)
            return MonthDone(month, rows, reason=str(error))
        except BaseException:
            discard(self._engine, prepared)
            raise
        return MonthDone(month, rows, prepared.kept)

    def _reason(self, known: Catalog, month: Month, days: Sequence[LakeDay]) -> str | None:
        with self._engine.connect() as connection:
            schemas = schemas_of(connection, known)
            states = [(day, day.state(schemas, self._asked.lake)) for day in days]
            sources = sorted({day.source for day in days})
            others = in_the_way(connection, month, sources)
        lacking = [f"{d.day} of {d.source} is {s}" for d, s in states if s is not DayState.WHOLE]
        if lacking:
            others.append(f"{_some(lacking)}: `tickwell lake export` first")
        return "; ".join(others) or None

    def _verify(self, days: Sequence[LakeDay]) -> str | None:
        """Compare the files of days with Postgres; says what is different."""
        reader = DayRows(self._asked.rows_a_group)
        for day in days:
            verification = DayVerification(self._engine, self._asked.lake, reader, self._stop)
            found = verification.verify(day)
            reason = _reason_of(day, found)
            if reason is not None:
                return reason
            done = self._done
            self._done = done._replace(days=done.days + 1, rows=done.rows + found.rows)
            self._report(self._done)
        return None

    def _swap(self, prepared: Prepared) -> None:
        """Raises `MonthHeld` where readers never leave, `MonthChanged`, and `Stopped`."""
        for _ in range(self._asked.attempts):
            try:
                swap(self._engine, prepared)
            except MonthHeld:
                waits = f"{prepared.month}: a query reads the months, and live goes on meanwhile"
                self._report(self._done._replace(waits=waits))
                self._stop.wait(random.uniform(0, 2 * self._asked.pause_seconds))
                self._check_stop()
            else:
                return
        raise MonthHeld(
            "queries read the months all the time, or a vacuum is at work there, and live would "
            "have to wait behind this: run the same command again later"
        )

    def _check_stop(self) -> None:
        if self._stop.is_set():
            raise Stopped


def _is_done(days: Sequence[LakeDay]) -> bool:
    """Whether nothing came for a month since it was let go of."""
    return all(
        day.dropped and day.written == day.changes and not day.exported_since for day in days
    )


def _reason_of(day: LakeDay, found: Verified) -> str | None:
    if found.differences:
        said = _some([f"{one.path}: {one.what}" for one in found.differences])
        return f"its files are not the same as Postgres: {said}"
    if found.changed:
        return f"{day.day} of {day.source} was changed meanwhile: `tickwell lake export` first"
    if found.unverifiable and not day.dropped:
        return f"Postgres has no rows of {day.day} of {day.source}, which nobody let go of"
    return None


def _some(texts: Sequence[str]) -> str:
    more = f", and {len(texts) - SHOWN} more" if len(texts) > SHOWN else ""
    return ", ".join(texts[:SHOWN]) + more
