"""Rows of a file and of Postgres, both in the order of the files, brought together by their keys.

A day of which Postgres has let go is what its file and Postgres have together. Both are read once,
from the first row to the last, some at a time, so a day of any size needs the memory of a few
batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from registry.formats.lake import SORTED_BY

ROWS_A_BATCH = 65_536
BUFFER_BYTES = 256 * 1024

Key = tuple[bytes, int, int, int]
"""What rows are sorted by: entity, event time, sequence, revision."""


class Met(NamedTuple):
    """Rows of a file and of Postgres between two keys; either may have none."""

    of_file: pa.Table
    of_postgres: pa.Table


class Meeting:
    """Gives `take` the rows of a file, and those that are added, stretch by stretch."""

    def __init__(self, path: Path, take: Callable[[Met], None]) -> None:
        """Raises OSError, and pyarrow's errors."""
        self._batches = _batches(path)
        self._take = take
        self._file: pa.Table | None = None

    def add(self, rows: pa.Table) -> None:
        """Rows of Postgres, none of which lies before those that were added."""
        while len(rows):
            if self._file is None:
                self._file = next(self._batches, None)
            if self._file is None:
                self._take(Met(rows.slice(0, 0), rows))
                return
            until = min(_key(rows, -1), _key(self._file, -1))
            of_file, left = _split(self._file, until)
            of_postgres, rows = _split(rows, until)
            self._file = left if len(left) else None
            self._take(Met(of_file, of_postgres))

    def end(self) -> None:
        """The rows of the file behind all that were added."""
        left = () if self._file is None else (self._file,)
        for rows in chain(left, self._batches):
            self._take(Met(rows, rows.slice(0, 0)))
        self._file = None


def _batches(path: Path) -> Iterator[pa.Table]:
    with pq.ParquetFile(path, pre_buffer=False, buffer_size=BUFFER_BYTES) as file:
        for batch in file.iter_batches(ROWS_A_BATCH):
            if len(batch):
                yield pa.Table.from_batches([batch])


def _key(table: pa.Table, index: int) -> Key:
    entity, *rest = (table[name][index].as_py() for name in SORTED_BY)
    return (entity.encode(), *rest)


def _split(table: pa.Table, until: Key) -> tuple[pa.Table, pa.Table]:
    """The rows up to a key, and those behind it."""
    low, high = 0, len(table)
    while low < high:
        middle = (low + high) // 2
        if _key(table, middle) <= until:
            low = middle + 1
        else:
            high = middle
    return table.slice(0, low), table.slice(low)


class Pairs(NamedTuple):
    """The order in which rows of both are by their keys; those of the file come first."""

    order: Any
    """The indexes of all rows, of the file's and then of those of Postgres."""
    again: Any
    """Of each in that order whether it has the key of the one before."""


def pairs_of(met: Met) -> Pairs:
    """Which rows have the same key."""
    names = [*SORTED_BY, "which"]
    both = [
        table.select(SORTED_BY).append_column("which", pa.array(np.full(len(table), which)))
        for which, table in enumerate(met)
    ]
    joined = pa.concat_tables(plain(one) for one in both)
    order = pc.sort_indices(joined, sort_keys=[(name, "ascending") for name in names])
    placed = joined.take(order)
    again = np.zeros(len(order), np.bool_)
    if len(order) > 1:
        same = np.ones(len(order) - 1, np.bool_)
        for name in SORTED_BY:
            column = placed[name].combine_chunks()
            same &= pc.equal(column[1:], column[:-1]).to_numpy(zero_copy_only=False)
        again[1:] = same
    return Pairs(order.to_numpy(), again)


def plain(table: pa.Table) -> pa.Table:
    """A table whose texts are plain, as those of a file are."""
    return table.cast(plain_schema(table.schema))


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """The columns of a file as it is read."""
    return pa.schema(
        [
            (one.name, one.type.value_type if pa.types.is_dictionary(one.type) else one.type)
            for one in schema
        ]
    )
