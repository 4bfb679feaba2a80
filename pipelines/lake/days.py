"""The days of the lake: what is in files, what was changed since, what is not there yet."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Connection, delete, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from pipelines.lake.columns import CompleteBackfill, LakeSchema, lake_schemas
from pipelines.lake.files import WrittenFile
from pipelines.lake.snapshot import DaySnapshot
from registry.database.backfill_tables import backfills
from registry.database.lake_tables import lake_days, lake_files
from registry.definitions import Catalog
from registry.formats.lake import file_path
from registry.resources import sql

DAYS, WATERMARKS = sql(__package__, "days"), sql(__package__, "watermarks")
LOADS = sql(__package__, "loads")


class DayState(StrEnum):
    """Whether the files of a day have what Postgres has."""

    WHOLE = "whole"
    NOT_EXPORTED = "not exported"
    CHANGED = "changed"
    """Rows of it were stored since."""
    OTHER_COLUMNS = "other columns"
    """A backfill has ended since, or this build writes other columns."""
    FILE_GONE = "file gone"


class DayFile(NamedTuple):
    """A file as the manifest has it."""

    schema_id: int
    path: str
    columns: bytes
    sha256: bytes
    moving: bytes | None
    """The digest of a file that was to take its place when a process was killed."""
    rows: int
    bytes: int


class LakeDay(NamedTuple):
    """A day of a source that has rows; `written` are the changes that the files have.

    Of one that is `dropped` Postgres has let go: it is what its files and Postgres have together.
    `exported_since` says that its files were written once more after that.
    """

    source: str
    day: date
    changes: int
    written: int | None
    dropped: bool
    exported_since: bool
    files: tuple[DayFile, ...]

    @property
    def rows(self) -> int:
        return sum(file.rows for file in self.files)

    def state(self, schemas: Mapping[int, LakeSchema], lake: Path | None) -> DayState:
        """Whether its files have all; with `lake` they are looked for."""
        if self.written is None:
            return DayState.NOT_EXPORTED
        if self.written != self.changes:
            return DayState.CHANGED
        if any(schemas[one.schema_id].digest() != one.columns for one in self.files):
            return DayState.OTHER_COLUMNS
        if lake is not None and not all((lake / one.path).is_file() for one in self.files):
            return DayState.FILE_GONE
        return DayState.WHOLE


def read_days(
    rows: Sequence[Any],
) -> list[LakeDay]:
    """The days of what `days.sql` gives, the oldest first."""
    return [
        LakeDay(
            source,
            day,
            int(changes),
            None if written is None else int(written),
            dropped,
            since,
            tuple(
                DayFile(
                    *(schema, path, bytes.fromhex(columns), bytes.fromhex(sha256)),
                    *(bytes.fromhex(moving) or None, int(n), int(size)),
                )
                for schema, path, columns, n, size, sha256, moving in zip(*files, strict=True)
            ),
        )
        for source, day, changes, written, dropped, since, *files in rows
    ]


def days_of_lake(connection: Connection) -> list[LakeDay]:
    """The days of all sources that have rows. Raises SQLAlchemy's `DBAPIError`."""
    found = connection.exec_driver_sql(DAYS, {"source": None, "day": None})
    return read_days(found.fetchall())


def day_in(snapshot: DaySnapshot, source: str, day: date) -> LakeDay | None:
    """A day of a source as a snapshot has it."""
    found = read_days(snapshot.rows(DAYS, {"source": source, "day": day}))
    return found[0] if found else None


def schemas_of(connection: Connection, catalog: Catalog) -> dict[int, LakeSchema]:
    """What the files of each row schema have now."""
    of = backfills.c
    complete = select(of.id, of.name, of.version, of.finished_at).where(of.state == "complete")
    return lake_schemas(
        catalog,
        [
            CompleteBackfill(row.id, f"{row.name}@{row.version}", row.finished_at.isoformat())
            for row in connection.execute(complete)
        ],
    )


def watermarks_in(snapshot: DaySnapshot, source: str) -> dict[str, int]:
    """How far the partitions of a source's topic are stored, by topic id and partition."""
    ((found,),) = snapshot.rows(WATERMARKS, {"source": source})
    return dict(json.loads(found) if isinstance(found, str) else found)


def loads_in(snapshot: DaySnapshot, source: str) -> frozenset[str]:
    """The loads of a source, as their rows name them, without those that were given up."""
    return frozenset(load for (load,) in snapshot.rows(LOADS, {"source": source}))


def record_moves(
    connection: Connection, day: LakeDay, files: Mapping[int, tuple[LakeSchema, WrittenFile]]
) -> None:
    """Put on record which files are about to take the place of those of a day."""
    of = lake_files.c
    for schema_id, (_, file) in files.items():
        connection.execute(
            update(lake_files)
            .where(of.source == day.source, of.day == day.day, of.schema_id == schema_id)
            .values(moving=file.sha256)
        )


def record_day(
    connection: Connection,
    seen: LakeDay,
    watermarks: Mapping[str, int],
    files: Mapping[int, tuple[LakeSchema, WrittenFile]],
) -> None:
    """Put on record that files have a day as it was seen."""
    of_day = {"source": seen.source, "day": seen.day}
    written = {"changes": seen.changes, "watermarks": dict(watermarks)}
    made = upsert(lake_days).values(**of_day, **written)
    connection.execute(
        made.on_conflict_do_update(
            index_elements=[lake_days.c.source, lake_days.c.day],
            set_={**written, "exported_at": func.now()},
        )
    )
    of = lake_files.c
    connection.execute(delete(lake_files).where(of.source == seen.source, of.day == seen.day))
    for schema_id, (schema, file) in files.items():
        connection.execute(
            insert(lake_files).values(
                **of_day,
                schema_id=schema_id,
                path=str(file_path(seen.source, schema_id, seen.day)),
                rows=file.rows,
                bytes=file.size,
                sha256=file.sha256,
                columns=schema.digest(),
            )
        )
