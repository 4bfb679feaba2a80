"""Compares the lake with its manifest, and with Postgres while that has the rows.

Of each day that is whole the files are as long, and have the digest, that was put on record; no
value is NaN; and every row has the bits of Postgres. A day that was changed since it was written is
not compared: its next export writes it anew. What Postgres does not have any more is compared with
the manifest alone, and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from sqlalchemy import Engine, select

from pipelines.lake.backfilled import backfilled_values
from pipelines.lake.columns import LakeSchema, arrow_table
from pipelines.lake.day_rows import ROWS_A_GROUP, DayRows, Take
from pipelines.lake.days import DayState, LakeDay, day_in, days_of_lake, schemas_of
from pipelines.lake.errors import NoLake, Stopped
from pipelines.lake.export import CONNECT_SECONDS, SILENCE_MS
from pipelines.lake.files import is_lake, sha256_of
from pipelines.lake.snapshot import DaySnapshot, day_snapshot
from registry.database.engine import connect
from registry.database.lake_tables import lake_files
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
                one = _DayVerification(engine, self.lake, reader, stop).verify(day)
            except Stopped:
                return found
            found = Verified(
                found.days + 1,
                found.of,
                found.rows + one.rows,
                found.values + one.values,
                found.unverifiable + one.unverifiable,
                found.changed + one.changed,
                found.differences + one.differences,
            )
            report(found)
        return found._replace(finished=True)


class _DayVerification:
    """Compares the files of a day."""

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
            digests = self._digests(seen, now)
            same = [one for one in now.files if self._has_digest(one.path, digests[one.path])]
            if len(same) < len(now.files):
                return self._found(0)
            in_postgres = self._compare(seen, now, schemas)
        if not in_postgres:  # the month was dropped, and the files are what there is
            return self._found(now.rows)
        return self._found(0)

    def _found(self, unverifiable: int) -> Verified:
        return Verified(
            rows=self._rows,
            values=self._values,
            unverifiable=unverifiable,
            differences=tuple(self._differences),
        )

    def _digests(self, seen: DaySnapshot, day: LakeDay) -> dict[str, bytes]:
        of = lake_files.c
        wanted = select(of.path, of.sha256).where(of.source == day.source, of.day == day.day)
        return {row.path: bytes(row.sha256) for row in seen.asking.execute(wanted)}

    def _has_digest(self, path: str, digest: bytes) -> bool:
        try:
            same = sha256_of(self._lake / path) == digest
        except FileNotFoundError:
            self._differences.append(Difference(path, "the file is gone"))
            return False
        if not same:
            self._differences.append(Difference(path, "its digest is another one"))
        return same

    def _compare(self, seen: DaySnapshot, day: LakeDay, schemas: dict[int, LakeSchema]) -> bool:
        """Compare the rows of a day; returns whether Postgres has any."""
        files = {one.schema_id: _Rows(self._lake / one.path) for one in day.files}
        paths = {one.schema_id: one.path for one in day.files}
        compared = dict.fromkeys(files, 0)

        def begin() -> Take:
            for schema_id, file in files.items():
                file.begin()
                compared[schema_id] = 0
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
            compared[schema_id] += len(table)
            self._rows += len(table)
            self._values += len(table) * len(wanted.value_columns)
            there = files[schema_id].take(len(table))
            what = _difference(table, there, wanted)
            if what is not None:
                self._differences.append(Difference(paths[schema_id], what))

        self._reader.copy(seen, seen.catalog.sources[day.source], day_number(day.day), begin)
        if not any(compared.values()):
            return False
        self._differences += [
            Difference(paths[schema_id], f"it has {file.left()} rows that Postgres lacks")
            for schema_id, file in files.items()
            if file.left()
        ]
        return True


class _Rows:
    """The rows of a file, some at a time."""

    def __init__(self, path: Path) -> None:
        self._file = pq.ParquetFile(path, pre_buffer=False)
        self.begin()

    def begin(self) -> None:
        """Begin with the first row again."""
        self._batches: Iterator[Any] = self._file.iter_batches()
        self._rest = self._file.schema_arrow.empty_table()
        self._left = self._file.metadata.num_rows

    def left(self) -> int:
        """How many rows were not taken."""
        return int(self._left)

    def take(self, n: int) -> pa.Table:
        """The next rows, fewer at the file's end."""
        parts = [self._rest]
        while sum(map(len, parts)) < n:
            batch = next(self._batches, None)
            if batch is None:
                break
            parts.append(pa.Table.from_batches([batch]))
        whole = pa.concat_tables(parts)
        self._rest = whole.slice(n)
        self._left -= min(n, len(whole))
        return whole.slice(0, n)


def nan_count(table: pa.Table, columns: list[str]) -> int:
    """How many NaN are in columns of floats."""
    return sum(pc.sum(pc.is_nan(table[name])).as_py() or 0 for name in columns)


def _difference(expected: pa.Table, there: pa.Table, wanted: LakeSchema) -> str | None:
    """What is different in rows that should be the same, to the bit."""
    if there.schema.names != expected.schema.names:
        return "its columns are others"
    nans = nan_count(there, wanted.float_columns)
    if nans:
        return f"it has {nans} NaN"
    if len(there) != len(expected):
        return f"it has {len(expected) - len(there)} rows less than Postgres"
    for name in expected.schema.names:
        one, other = _comparable(expected[name]), _comparable(there[name])
        if not one.equals(other):
            different = np.flatnonzero(
                ~pc.fill_null(pc.equal(one, other), False).to_numpy()
                & ~(one.is_null().to_numpy() & other.is_null().to_numpy())
            )
            entity = there["entity"][int(different[0])].as_py() if len(different) else "?"
            return f"{len(different)} rows differ in {name}, the first one is of {entity}"
    return None


def _comparable(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column whose values are equal where their bits are."""
    if pa.types.is_dictionary(column.type):
        return column.cast(pa.string())
    if pa.types.is_float64(column.type):  # 0.0 is not -0.0
        whole = column.combine_chunks()
        bits = whole.fill_null(0.0).to_numpy(zero_copy_only=False).view(np.int64)
        mask = whole.is_null().to_numpy(zero_copy_only=False)
        return pa.chunked_array([pa.array(bits, mask=mask)])
    return column
