"""Compares the lake with its manifest, and with Postgres while that has the rows.

Of each day that is whole the files are as long, and have the digest, that was put on record; no
value is NaN; and every row has the bits of Postgres. A day that was changed since it was written is
not compared: its next export writes it anew. What Postgres does not have any more, of days that it
let go of, is compared with the manifest alone, and counted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple

from sqlalchemy import Engine

from pipelines.lake.backfilled import backfilled_values
from pipelines.lake.columns import LakeSchema, arrow_table
from pipelines.lake.compared_file import AllRows, ComparedFile, SomeRows
from pipelines.lake.day_rows import ROWS_A_GROUP, DayRows, Take
from pipelines.lake.days import DayState, LakeDay, day_in, days_of_lake, schemas_of
from pipelines.lake.errors import NoLake, Stopped
from pipelines.lake.export import CONNECT_SECONDS, SILENCE_MS
from pipelines.lake.files import is_lake, sha256_of
from pipelines.lake.snapshot import DaySnapshot, day_snapshot
from registry.database.engine import connect
from registry.formats.lake import day_number


class Difference(NamedTuple):
    """A file that has something else than it should."""

    path: str
    what: str


class Verified(NamedTuple):
    """What was compared."""

    days: int = 0
    of: int = 0
    rows: int = 0
    """Rows that were compared with those of Postgres."""
    values: int = 0
    unverifiable: int = 0
    """Rows that Postgres does not have any more."""
    changed: int = 0
    """Days that are to be written anew, and were not compared."""
    differences: tuple[Difference, ...] = ()
    finished: bool = False

    def with_day(self, one: Verified) -> Verified:
        """What was compared, with one day more."""
        return Verified(
            self.days + 1,
            self.of,
            self.rows + one.rows,
            self.values + one.values,
            self.unverifiable + one.unverifiable,
            self.changed + one.changed,
            self.differences + one.differences,
        )


Report = Callable[[Verified], None]


@dataclass(frozen=True, slots=True)
class LakeVerification:
    """Compares the folder `lake` with the database at `postgres`."""

    postgres: str = field(repr=False)
    lake: Path
    since: date = date.min
    until: date = date.max
    rows_a_group: int = ROWS_A_GROUP

    def run(self, report: Report, stop: Event) -> Verified:
        """Compare until all is compared or `stop` is set.

        Raises `NoLake`, SQLAlchemy's `DBAPIError`, `RegistryEmpty` and OSError.
        """
        if not is_lake(self.lake):
            raise NoLake(self.lake)
        engine = connect(self.postgres, CONNECT_SECONDS, silence_ms=SILENCE_MS)
        try:
            return self._run(engine, report, stop)
        finally:
            engine.dispose()

    def _run(self, engine: Engine, report: Report, stop: Event) -> Verified:
        with engine.connect() as connection:
            days = [
                day
                for day in days_of_lake(connection)
                if day.written is not None and self.since <= day.day < self.until
            ]
        found, reader = Verified(of=len(days)), DayRows(self.rows_a_group)
        report(found)
        for day in days:
            try:
                one = DayVerification(engine, self.lake, reader, stop).verify(day)
            except Stopped:
                return found
            found = found.with_day(one)
            report(found)
        return found._replace(finished=True)


class DayVerification:
    """Compares the files of a day, in one snapshot."""

    def __init__(self, engine: Engine, lake: Path, reader: DayRows, stop: Event) -> None:
        self._engine = engine
        self._lake = lake
        self._reader = reader
        self._stop = stop
        self._differences: list[Difference] = []
        self._rows = self._values = 0

    def verify(self, day: LakeDay) -> Verified:
        """What is found in a day; raises `Stopped`."""
        with day_snapshot(self._engine) as seen:
            now = day_in(seen, day.source, day.day)
            schemas = schemas_of(seen.asking, seen.catalog)
            if now is None or now.state(schemas, None) is not DayState.WHOLE:
                return Verified(changed=1)
            same = [one for one in now.files if self._has_digest(one.path, one.sha256)]
            if len(same) < len(now.files):
                return self._found(0)
            unverifiable = self._compare(seen, now, schemas)
        return self._found(unverifiable)

    def _found(self, unverifiable: int) -> Verified:
        return Verified(
            rows=self._rows,
            values=self._values,
            unverifiable=unverifiable,
            differences=tuple(self._differences),
        )

    def _has_digest(self, path: str, digest: bytes) -> bool:
        try:
            same = sha256_of(self._lake / path) == digest
        except FileNotFoundError:
            self._differences.append(Difference(path, "the file is gone"))
            return False
        if not same:
            self._differences.append(Difference(path, "its digest is another one"))
        return same

    def _compare(self, seen: DaySnapshot, day: LakeDay, schemas: dict[int, LakeSchema]) -> int:
        """Compare the rows of a day; returns how many Postgres does not have any more."""
        paths = {one.schema_id: one.path for one in day.files}
        files = dict[int, ComparedFile]()

        def begin() -> Take:
            for schema_id, path in paths.items():
                made: type[ComparedFile] = SomeRows if day.dropped else AllRows
                files[schema_id] = made(self._lake / path, schemas[schema_id])
            self._rows = self._values = 0
            self._differences.clear()
            return take

        def take(schema_id: int, rows: Any) -> None:
            if self._stop.is_set():
                raise Stopped
            wanted = schemas[schema_id]
            table = arrow_table(wanted, rows, backfilled_values(seen, wanted, rows))
            if schema_id not in files:
                missing = f"row schema {schema_id} of {day.source} on {day.day}"
                self._differences.append(Difference(missing, "Postgres has rows, and no file does"))
                return
            self._rows += len(table)
            self._values += len(table) * len(wanted.value_columns)
            for what in files[schema_id].compare(table):
                self._differences.append(Difference(paths[schema_id], what))

        self._reader.copy(seen, seen.catalog.sources[day.source], day_number(day.day), begin)
        if not self._rows and not day.dropped:  # nobody said so, and all of it is gone
            return day.rows
        for schema_id, file in files.items():
            self._differences += [Difference(paths[schema_id], what) for what in file.end()]
        return day.rows - self._rows if day.dropped else 0
