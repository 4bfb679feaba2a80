"""Training sets from files to files: entity rows of any number, a piece at a time.

The file is written beside its place and moved there at the end, so it is whole or not there.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from serving.errors import InvalidRequest
from serving.history.entity_rows import entity_rows
from serving.history.point_in_time import PointInTimeJoin
from serving.history.snapshot import snapshot
from serving.history.training_set import Form, Report, check_columns, table_of

ROWS_A_PIECE = 50_000
"""Entity rows that are joined at a time: about 50 MB with ten features."""

BUFFER_BYTES = 262_144


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
        columns = join.columns(rows, known)
        report.count(columns)
        return table_of(columns, self.form)


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
    with _opened(entities) as source, snapshot(postgres) as seen:
        join = PointInTimeJoin(seen, wanted.features)
        check_columns(source.schema_arrow.names, list(join.versions), wanted.form)
        report, total = Report(), source.metadata.num_rows
        progress(0, total)
        with _written(out) as write:
            for batch in source.iter_batches(ROWS_A_PIECE):
                if stop.is_set():
                    raise Stopped
                table = pa.Table.from_batches([batch])
                write(_beside(table, wanted.joined(join, table, report, report.rows)))
                progress(report.rows, total)
            if total == 0:
                table = source.schema_arrow.empty_table()
                write(_beside(table, wanted.joined(join, table, report)))
    return report


def _beside(table: Any, added: Any) -> Any:
    """The columns of two tables, and what the first says of itself."""
    fields = [*table.schema, *added.schema]
    schema = pa.schema(fields, metadata=table.schema.metadata)
    return pa.table([*table.columns, *added.columns], schema=schema)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        # what is buffered ahead takes as much memory as the file has bytes
        source = pq.ParquetFile(path, pre_buffer=False, buffer_size=BUFFER_BYTES)
    except pa.ArrowInvalid as error:
        raise InvalidRequest(f"{path} is no Parquet file: {error}") from None
    with source:
        yield source


@contextmanager
def _written(path: Path) -> Iterator[Callable[[Any], None]]:
    """Writes tables to a Parquet file, which is at `path` at the end."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    writer: Any = None

    def write(table: Any) -> None:
        nonlocal writer
        if writer is None:
            writer = pq.ParquetWriter(name, table.schema, compression="zstd")
        writer.write_table(table)

    try:
        yield write
        writer.close()
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)
        os.replace(name, path)
    except BaseException:
        if writer is not None and writer.is_open:
            writer.close()
        Path(name).unlink(missing_ok=True)
        raise
