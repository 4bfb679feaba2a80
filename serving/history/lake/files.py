"""The rows of a day's files, some entities of them at a time.

A file is read in row groups, of which those are passed over whose statistics say that they have
none of the entities, and no columns whose statistics say that they have one value. Nothing of it is
buffered ahead, so what is in memory is bounded by the row groups that are read at once.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from registry.formats.lake import day_of, status_column, value_column
from registry.formats.loaded_rows import row_schema_of
from registry.formats.row import ValueStatus
from serving.errors import StoresUnavailable
from serving.history.files import one_line
from serving.history.lake.day_ticks import LACKS, DayRows
from serving.history.lake.days import DayFile

BUFFER_BYTES = 262_144
CODES = {status.name.lower(): int(status) for status in ValueStatus}
CANCEL = "cancel"


class OtherFile(Exception):
    """The file is not there, or not the one of the manifest."""


class Columns(NamedTuple):
    """What is read of the files of a row schema."""

    own: Sequence[str]
    """The versions that the row schema has, `name@version`; the first says what is closed."""
    refs: Sequence[str]
    """The versions that are asked for."""
    backfilled: Collection[str]
    """Those of which a file's columns count where the row schema does not have them."""


class OpenFile:
    """A file of a day that is being read; used as a context. Raises `OtherFile`."""

    def __init__(self, file: DayFile, columns: Columns) -> None:
        self._file = file
        self._closed = [status_column(ref) for ref in columns.own[:1]]
        texts = {"entity", "op", *self._closed, *map(status_column, columns.refs)}
        try:
            # all of it is read of the one file that is opened, whatever takes its place
            self._source = pa.OSFile(str(file.path))
            self._metadata = pq.read_metadata(self._source)
            present = self._metadata.schema.names
            self._opened = pq.ParquetFile(
                self._source,
                metadata=self._metadata,
                read_dictionary=[name for name in present if name in texts],
                pre_buffer=False,
                buffer_size=BUFFER_BYTES,
            )
        except (OSError, pa.ArrowException) as error:
            raise OtherFile(one_line(error)) from None
        if self._metadata.num_rows != file.rows or self._source.size() != file.bytes:
            self.close()
            raise OtherFile("it has other rows than the manifest says, or another size")
        self._index = {name: number for number, name in enumerate(present)}
        own = set(columns.own)
        self._refs = columns.refs
        self._has = {
            ref: ref in own or (ref in columns.backfilled and value_column(ref) in present)
            for ref in columns.refs
        }

    def close(self) -> None:
        """Close it."""
        with suppress(OSError):
            self._opened.close()
            self._source.close()

    def __enter__(self) -> OpenFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def groups(self) -> list[tuple[str, str, int]]:
        """The first and the last entity of each row group, and its rows."""
        return [
            (*self._ends(number, "entity"), self._metadata.row_group(number).num_rows)
            for number in range(self._metadata.num_row_groups)
        ]

    def _ends(self, group: int, column: str) -> tuple[Any, Any]:
        found = self._metadata.row_group(group).column(self._index[column]).statistics
        return (None, None) if found is None or not found.has_min_max else (found.min, found.max)

    def _is_zero(self, groups: Sequence[int], column: str) -> bool:
        return all(self._ends(group, column) == (0, 0) for group in groups)

    def rows(self, groups: Sequence[int], numbers: EntityNumbers, repaired: bool) -> DayRows | None:
        """The rows of entities that have numbers, of some row groups; None of none."""
        if not groups:
            return None
        constant = [c for c in ("revision", "sequence") if self._is_zero(groups, c)]
        wanted = ["entity", "event_time", "known_at"]
        wanted += [c for c in ("revision", "sequence") if c not in constant]
        if repaired and "revision" not in constant:
            wanted.append("op")
        having = [ref for ref in self._refs if self._has[ref]]
        wanted += [*self._closed, *map(value_column, having), *map(status_column, having)]
        columns = list(dict.fromkeys(wanted))
        try:
            table = self._opened.read_row_groups(list(groups), columns=columns, use_threads=True)
        except (OSError, pa.ArrowException) as error:
            raise OtherFile(one_line(error)) from None
        rows = self._of_table(table, numbers)
        keep = rows.entity >= 0
        if not repaired:
            keep &= rows.revision == 0
        return rows if keep.all() else rows.some(keep)

    def _of_table(self, table: Any, numbers: EntityNumbers) -> DayRows:
        n, names = table.num_rows, set(table.schema.names)
        whole = {
            c: table.column(c).to_numpy().astype(dtype, copy=False)
            if c in names
            else np.zeros(n, dtype)
            for c, dtype in (
                ("event_time", np.int64),
                ("sequence", np.int64),
                ("revision", np.int16),
                ("known_at", np.int64),
            )
        }
        cancels = (
            _coded(table.column("op"), {CANCEL: 1}) == 1 if "op" in names else np.zeros(n, bool)
        )
        closed = np.zeros(n, np.bool_)
        for column in self._closed:
            closed = _coded(table.column(column), CODES) == ValueStatus.CLOSED
        values, statuses = [], []
        for ref in self._refs:
            if self._has[ref]:
                values.append(_doubles(table.column(value_column(ref))))
                statuses.append(_coded(table.column(status_column(ref)), CODES))
            else:
                values.append(np.full(n, np.nan))
                statuses.append(np.full(n, LACKS, np.uint8))
        return DayRows(
            numbers.of(table.column("entity")),
            whole["event_time"],
            whole["sequence"],
            whole["revision"],
            np.full(n, self._file.schema_id, np.int32),
            whole["known_at"],
            cancels,
            closed,
            values,
            statuses,
        )


class EntityNumbers:
    """The numbers of entities by name; others have none."""

    def __init__(self, names: Any, numbers: Any) -> None:
        """The names are an array of Arrow's texts; the numbers are beside them."""
        self._names = names
        self._numbers = numbers

    def of(self, column: Any) -> Any:
        """(n,) The numbers of a column's entities, -1 for others."""
        parts = []
        for chunk in column.chunks:
            which = pc.index_in(chunk.dictionary, value_set=self._names)
            found = which.fill_null(-1).to_numpy()
            own = np.where(found >= 0, self._numbers[np.maximum(found, 0)], -1).astype(np.int32)
            parts.append(own[chunk.indices.to_numpy()])
        return np.concatenate(parts) if parts else np.empty(0, np.int32)


def _coded(column: Any, codes: Mapping[str, int]) -> Any:
    """(n,) The codes of a column's texts, `LACKS` for others."""
    parts = []
    for chunk in column.chunks:
        of = np.array([codes.get(text, LACKS) for text in chunk.dictionary.to_pylist()], np.uint8)
        if len(of) == 1 and not chunk.null_count:
            parts.append(np.full(len(chunk), of[0], np.uint8))
        else:
            parts.append(of[chunk.indices.to_numpy(zero_copy_only=False)])
    return np.concatenate(parts) if parts else np.empty(0, np.uint8)


def _doubles(column: Any) -> Any:
    """(n,) The numbers of a column, NaN where there is none."""
    return column.to_numpy()


def error_of(file: DayFile, source: str, day: int, why: str) -> StoresUnavailable:
    """What is said of a file that is needed, because Postgres has let go of its day."""
    return StoresUnavailable(
        f"{file.path} has the ticks of {source} on {day_of(day)}, of which Postgres has let go, "
        f"and cannot be read: {why}. If an export has just written it anew, ask again; if the lake "
        "is elsewhere, name its folder (TICKWELL_LAKE); else restore the file"
    )


def columns_of(
    schema_id: int, features: Mapping[int, Sequence[str]], refs: Sequence[str], backfilled: Any
) -> Columns:
    """What is read of a file of a row schema, loaded or not."""
    return Columns(features[row_schema_of(schema_id)], refs, backfilled)
