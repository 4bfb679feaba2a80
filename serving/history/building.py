"""Training sets from files to files: entity rows of any number, a piece at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np

from serving.history.entity_rows import entity_rows
from serving.history.files import Made, beside, opened, pieces, written
from serving.history.point_in_time import PointInTimeJoin
from serving.history.snapshot import snapshot
from serving.history.training_set import Form, Report, check_columns, table_of


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a training set is to have.

    `time_column` has the moments; naive ones are local times of `timezone`. With `as_known_at`,
    nanoseconds UTC, each row has what was known of its moment then; else what was known at it.
    """

    features: Sequence[str]
    time_column: str = "timestamp"
    timezone: str | None = None
    as_known_at: int | None = None
    form: Form = field(default_factory=Form)

    def joined(self, join: PointInTimeJoin, table: Any, report: Report, first: int = 0) -> Any:
        """The columns that are added to the rows of a table, counted from `first`.

        Raises `InvalidRequest`.
        """
        rows = entity_rows(table, join.key_fields, self.time_column, self.timezone, first)
        known = None
        if self.as_known_at is not None:
            known = np.full(len(rows), self.as_known_at, np.int64)
        columns = join.columns(rows, known, repaired=self.as_known_at is not None)
        report.count(columns)
        return table_of(columns, self.form)

    def made(self, join: PointInTimeJoin) -> Made:
        """What the set says of how it was made."""
        return Made(
            pins={name: version.ref for name, version in join.versions.items()},
            time_column=self.time_column,
            timezone=self.timezone,
            as_known_at=self.as_known_at,
            stale=self.form.stale,
            event_times=self.form.event_times,
            made_at=time.time_ns(),
        )


class Stopped(Exception):
    """It was stopped before its end."""


def build(
    postgres: str,
    entities: Path,
    out: Path,
    wanted: Wanted,
    progress: Callable[[int, int], None],
    stop: Event,
) -> Report:
    """Write the rows of a Parquet file, with features joined to them, to another one.

    `progress` takes the number of rows that are done, and of all. Raises `InvalidRequest`,
    `UnknownFeature`, SQLAlchemy's `DBAPIError`, OSError, and `Stopped`.
    """
    with opened(entities) as source, snapshot(postgres) as seen:
        join = PointInTimeJoin.of_names(seen, wanted.features)
        check_columns(source.schema_arrow.names, list(join.versions), wanted.form)
        report, total, made = Report(), source.metadata.num_rows, wanted.made(join)
        progress(0, total)
        with written(out) as write:
            for table in pieces(source):
                if stop.is_set():
                    raise Stopped
                added = wanted.joined(join, table, report, report.rows)
                write(beside(table, added, made))
                progress(report.rows, total)
            if total == 0:
                table = source.schema_arrow.empty_table()
                write(beside(table, wanted.joined(join, table, report), made))
    return report
