"""The rows of a file beside those that Postgres has: they are the same to the bit.

Of a day that Postgres has as a whole each row of either is compared with the one in its place. Of
one that Postgres let go of those are compared that it still has.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.lake.columns import MISSING, STATUSES, LakeSchema
from pipelines.lake.meeting import Meeting, Met, pairs_of, plain
from registry.formats.lake import status_column, value_column


class ComparedFile(Protocol):
    """A file whose rows are compared, some at a time; both methods give what is different."""

    def __init__(self, path: Path, wanted: LakeSchema) -> None: ...

    def compare(self, expected: pa.Table) -> list[str]:
        """Compare with the next rows of Postgres."""
        ...

    def end(self) -> list[str]:
        """No row of Postgres is left."""
        ...


class AllRows:
    """A file that has the rows of Postgres, and no others."""

    def __init__(self, path: Path, wanted: LakeSchema) -> None:
        self._wanted = wanted
        file = pq.ParquetFile(path, pre_buffer=False)
        self._batches: Iterator[Any] = file.iter_batches()
        self._rest = file.schema_arrow.empty_table()
        self._left = file.metadata.num_rows

    def compare(self, expected: pa.Table) -> list[str]:
        """Compare with the next rows of Postgres."""
        there = self._take(len(expected))
        what = _columns_differ(expected, there) or _nan(there, self._wanted)
        if what is None and len(there) != len(expected):
            what = f"it has {len(expected) - len(there)} rows less than Postgres"
        what = what or _values_differ(expected, there)
        return [] if what is None else [what]

    def end(self) -> list[str]:
        """No row of Postgres is left."""
        return [f"it has {self._left} rows that Postgres lacks"] if self._left else []

    def _take(self, n: int) -> pa.Table:
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


class SomeRows:
    """A file that has the rows of Postgres, and others that Postgres let go of.

    A value that was backfilled went with its block: where Postgres has none, the file's counts.
    """

    def __init__(self, path: Path, wanted: LakeSchema) -> None:
        self._wanted = wanted
        self._found: list[str] = []
        self._meeting = Meeting(path, self._take)

    def compare(self, expected: pa.Table) -> list[str]:
        """Compare with the next rows of Postgres."""
        self._meeting.add(expected)
        return self._said()

    def end(self) -> list[str]:
        """No row of Postgres is left; the others of the file are looked at alone."""
        self._meeting.end()
        return self._said()

    def _said(self) -> list[str]:
        found, self._found = self._found, []
        return found

    def _take(self, met: Met) -> None:
        there, expected = met.of_file, plain(met.of_postgres)
        missing = set(expected.schema.names).difference(there.schema.names)
        what = "its columns are others" if missing else _nan(there, self._wanted)
        if what is None and len(expected):
            order, again = pairs_of(met)
            alone = len(expected) - int(again.sum())
            if alone:
                what = f"it lacks {alone} rows that Postgres has"
            else:
                pairs = np.flatnonzero(again)
                there = there.take(pa.array(order[pairs - 1]))
                expected = self._without_lost(expected, there)
                what = _values_differ(expected, there)
        if what is not None:
            self._found.append(what)

    def _without_lost(self, expected: pa.Table, there: pa.Table) -> pa.Table:
        """Rows of Postgres, with values of the file where blocks have none any more."""
        for backfill in self._wanted.backfilled:
            status = status_column(backfill.ref)
            lost = pc.equal(expected[status], STATUSES[MISSING])
            for name in (value_column(backfill.ref), status):
                index = expected.schema.get_field_index(name)
                filled = pc.if_else(lost, there[name], expected[name])
                expected = expected.set_column(index, name, filled)
        return expected


def _columns_differ(expected: pa.Table, there: pa.Table) -> str | None:
    same = there.schema.names == expected.schema.names
    return None if same else "its columns are others"


def _nan(there: pa.Table, wanted: LakeSchema) -> str | None:
    nans = nan_count(there, wanted.float_columns)
    return f"it has {nans} NaN" if nans else None


def nan_count(table: pa.Table, columns: list[str]) -> int:
    """How many NaN are in columns of floats."""
    return sum(pc.sum(pc.is_nan(table[name])).as_py() or 0 for name in columns)


def _values_differ(expected: pa.Table, there: pa.Table) -> str | None:
    """What is different in rows that should be the same, to the bit."""
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
