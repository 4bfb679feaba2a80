"""The file of a day that Postgres has let go of, written anew: no row of the old one is lost.

Of each key there is one row. A row that both have is the file's, which was compared with Postgres
when that let it go. Columns of versions that were backfilled since are added: with the values that
blocks have, as those that were computed of the log, and `missing` for the other ticks.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.lake.backfilled import backfilled_values
from pipelines.lake.columns import MISSING, STATUSES, LakeSchema, value_arrays
from pipelines.lake.files import UnfinishedFile, WrittenFile
from pipelines.lake.meeting import Meeting, Met, pairs_of, plain, plain_schema
from pipelines.lake.snapshot import DaySnapshot
from registry.formats.lake import SORTED_BY, status_column, value_column


class MergedFile:
    """Writes the rows of an old file with those that are added."""

    def __init__(
        self,
        files: tuple[Path, Path],
        wanted: LakeSchema,
        seen: DaySnapshot,
        rows: int,
        wait: Callable[[], None],
    ) -> None:
        """`files` are the lake and the old file; a row group has so many `rows`.

        `wait` is called now and then. Raises `NotWritten`, OSError and pyarrow's errors.
        """
        lake, old = files
        self._wanted = wanted
        self._seen = seen
        self._schema = _with_others(plain_schema(wanted.arrow()), pq.read_schema(old))
        self._new = UnfinishedFile(lake, self._schema)
        self._most = rows
        self._wait = wait
        self._waiting: list[pa.Table] = []
        self._meeting = Meeting(old, self._take)

    def add(self, table: pa.Table) -> None:
        """Rows of Postgres, none of which lies before those that were added."""
        self._meeting.add(table)

    def finish(self) -> WrittenFile:
        """Write what is left of the old file, and end the new one."""
        self._meeting.end()
        self._write(1)
        return self._new.finish()

    def discard(self) -> None:
        """Remove what was written."""
        self._new.discard()

    def _take(self, met: Met) -> None:
        self._wait()
        of_file = self._with_columns(met.of_file)
        if len(met.of_postgres):
            order, again = pairs_of(met)
            both = pa.concat_tables([of_file, self._without_others(plain(met.of_postgres))])
            of_file = both.take(pa.array(order[~again]))
        self._waiting.append(of_file)
        self._write(self._most)

    def _write(self, least: int) -> None:
        """Write row groups while so many rows wait."""
        if sum(map(len, self._waiting)) < least:
            return
        whole = pa.concat_tables(self._waiting)
        while len(whole) >= least:
            self._new.add(whole.slice(0, self._most).combine_chunks())
            whole = whole.slice(self._most)
        self._waiting = [whole]

    def _with_columns(self, table: pa.Table) -> pa.Table:
        """Rows of the old file with the columns of the new one."""
        if not len(table):
            return self._schema.empty_table()
        found: dict[str, Any] = {}
        if not any(_lacks(table, one.ref) for one in self._wanted.backfilled):
            return table.select(self._schema.names).cast(self._schema)
        keys = _keys(table)
        for backfill, values in zip(
            self._wanted.backfilled,
            backfilled_values(self._seen, self._wanted, keys),
            strict=True,
        ):
            names = value_column(backfill.ref), status_column(backfill.ref)
            found |= zip(names, _filled(table, names, values), strict=True)
        columns = [
            found.get(one.name, table[one.name] if one.name in table.schema.names else None)
            for one in self._schema
        ]
        return pa.table(columns, schema=self._schema)

    def _without_others(self, table: pa.Table) -> pa.Table:
        """Rows of Postgres with the columns of the file, which have no value in them."""
        if table.schema.names == self._schema.names:
            return table
        made = {
            name: [None if pa.types.is_floating(one) else STATUSES[MISSING]] * len(table)
            for name, one in zip(self._schema.names, self._schema.types, strict=True)
            if name not in table.schema.names
        }
        columns = [made[name] if name in made else table[name] for name in self._schema.names]
        return pa.table(columns, schema=self._schema)


def _with_others(schema: pa.Schema, old: pa.Schema) -> pa.Schema:
    """The columns of a file, with those of an old one that are not wanted now.

    A backfill that is begun anew has no values for a while, and will have none of these ticks.
    """
    for one in old:
        if one.name not in schema.names:
            schema = schema.append(pa.field(one.name, one.type))
    return schema


def _lacks(table: pa.Table, ref: str) -> bool:
    """Whether rows of a file have no values of a version, some or all of them."""
    name = status_column(ref)
    if name not in table.schema.names:
        return True
    return bool(pc.any(pc.equal(table[name], STATUSES[MISSING])).as_py())


def _filled(table: pa.Table, names: tuple[str, str], of_blocks: Any) -> tuple[Any, Any]:
    """The values and the statuses of a version: those of the file where it has one."""
    values, statuses = (pa.chunked_array([one]) for one in value_arrays(*of_blocks))
    statuses = statuses.cast(pa.string())
    if names[0] not in table.schema.names:
        return values, statuses
    lacks = pc.equal(table[names[1]], STATUSES[MISSING])
    return tuple(
        pc.if_else(lacks, new, table[name])
        for name, new in zip(names, (values, statuses), strict=True)
    )


def _keys(table: pa.Table) -> Any:
    """The keys of rows in the form of `day_rows.sql`."""
    encoded = [name.encode() for name in table["entity"].to_pylist()]
    numbers = [(name, np.int64) for name in SORTED_BY[1:]]
    dtype: Any = [("entity", f"S{max(map(len, encoded))}"), *numbers]
    keys = np.zeros(len(table), np.dtype(dtype))
    keys["entity"] = encoded
    for name in SORTED_BY[1:]:
        keys[name] = table[name].to_numpy()
    return keys
