"""Rows of a file to ticks.

No type is guessed. A CSV's cells are text; a Parquet's have the types that it declares. An empty
cell, a null or a NaN is a field that the tick does not have.

Memory is bounded whatever the size of the file and of its row groups. One row of a CSV is held, in
lines of at most `MAX_LINE`. Of a Parquet file are held, for each column that is read: `BATCH_ROWS`
rows, a buffer of `BUFFER_BYTES`, and one page with its dictionary, whose size the writer of the
file chose (1 MiB by default).
"""

from __future__ import annotations

import csv
import gzip
import io
import math
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import msgspec
import pyarrow as pa
import pyarrow.parquet

from pipelines.errors import PipelineError
from pipelines.kafka.producer import Tick
from pipelines.produce import cells
from pipelines.ticks.event_time import NANOSECONDS
from pipelines.ticks.reference_decoder import WITHOUT_NUMBERS
from registry.definitions import Source

BATCH_ROWS = 1_000
BUFFER_BYTES = 256 * 1024
MAX_LINE = 1024 * 1024
"""Characters in a line of a CSV, at most."""

UNREADABLE = (pa.ArrowException, OSError, EOFError, zlib.error, csv.Error, UnicodeError)
"""Errors that readers raise for a file that is damaged, or not of the format that its name says."""


class ColumnMissing(PipelineError):
    """The file has no column for a field."""

    def __init__(self, file: Path, column: str, field: str, existing: Sequence[str]) -> None:
        super().__init__(
            f"{file} has no column {column}; it has {', '.join(existing)}. Name the one that holds "
            f"{field}: --map {field}=COLUMN"
        )


class BadRow(PipelineError):
    """A row is not a tick. Rows are counted from 1, which is the first one after a CSV's header."""

    def __init__(self, file: Path, row: int, column: str, problem: str) -> None:
        super().__init__(f"{file}, row {row}, column {column}: {problem}")


class BadFile(PipelineError):
    """A file cannot be read, from its beginning or from some row on."""

    def __init__(self, file: Path, row: int, error: object) -> None:
        position = f" after row {row}" if row else ""
        super().__init__(f"{file} cannot be read{position}: {error}")


@dataclass(frozen=True, slots=True)
class _Use:
    """The field that a column is read for. A row without a `needed` field is not a tick."""

    field: str
    column: str
    value: Callable[[Any], Any]
    needed: bool = False


def count_rows(file: Path) -> int | None:
    """The number of rows of a Parquet file; None for a CSV, which would have to be read."""
    if _kind(file) != "parquet":
        return None
    try:
        with closing(pyarrow.parquet.ParquetFile(file)) as opened:
            rows: int = opened.metadata.num_rows
            return rows
    except UNREADABLE as error:
        raise BadFile(file, 0, error) from None


def read_ticks(
    file: Path, source: Source, columns: Mapping[str, str], as_if_now: bool = False
) -> Iterator[Tick]:
    """The ticks of a file, in its order.

    `columns` names the column of a field where the two differ. With `as_if_now` a tick's time is
    the moment it is read. Raises `ColumnMissing`, `BadRow` and `BadFile`.
    """
    encode = msgspec.json.Encoder().encode
    row = 0
    try:
        with closing(_open(file)) as table:
            uses = _uses(file, table.names, source, columns, as_if_now)
            for found in table.rows([use.column for use in uses]):
                row += 1
                tick = _tick(uses, found, partial(BadRow, file, row))
                if as_if_now:
                    tick["ts"] = time.time_ns() // NANOSECONDS[source.ts_unit]
                yield Tick(tick[source.key[0]].encode(), encode(tick))
    except UNREADABLE as error:
        raise BadFile(file, row, error) from None


def _uses(
    file: Path, existing: Sequence[str], source: Source, columns: Mapping[str, str], as_if_now: bool
) -> list[_Use]:
    """The columns to read, in the order of a tick's fields."""
    known: dict[str, tuple[Callable[[Any], Any], bool]] = {
        **dict.fromkeys(source.key, (cells.key, True)),
        **{field.name: (cells.number, field.required) for field in source.fields},
        "ts": (cells.moment, True),
        "seq": (cells.integer, False),
        "op": (cells.operation, False),
    }
    for field in columns.keys() - known.keys():
        raise PipelineError(f"{source.name} has no field {field} to map; it has {', '.join(known)}")
    twice = {name for name, times in Counter(existing).items() if times > 1}
    uses = []
    for field, (value, needed) in known.items():
        name = columns.get(field, field)
        unread = field == "ts" and as_if_now
        if name not in existing and (field in columns or (needed and not unread)):
            raise ColumnMissing(file, name, field, existing)
        if name in twice and not unread:
            raise PipelineError(f"{file} has the column {name} more than once: rename one of them")
        if name in existing and not unread:
            uses.append(_Use(field, name, value, needed))
    return uses


def _tick(
    uses: Sequence[_Use], row: Sequence[Any], bad: Callable[[str, str], BadRow]
) -> dict[str, Any]:
    tick, absent = {}, []
    for use, cell in zip(uses, row, strict=True):
        if cell is None or cell == "" or (isinstance(cell, float) and math.isnan(cell)):
            absent.append(use)
            continue
        try:
            tick[use.field] = use.value(cell)
        except ValueError as error:
            shown = repr(cell) if isinstance(cell, str) else str(cell)
            raise bad(use.column, f"{shown[:60]} {error}") from None
    for use in absent:
        # a reset or a close has no values
        if use.needed and not (use.value is cells.number and tick.get("op") in WITHOUT_NUMBERS):
            raise bad(use.column, f"is empty, and a tick needs its {use.field}")
    return tick


class _Table(Protocol):
    """An open file: the `names` of its columns, and its rows with the cells of `columns`."""

    names: Sequence[str]

    def rows(self, columns: Sequence[str]) -> Iterator[Sequence[Any]]: ...

    def close(self) -> None: ...


def _kind(file: Path) -> str:
    for ending, kind in ((".csv", "csv"), (".csv.gz", "csv.gz"), (".parquet", "parquet")):
        if file.name.lower().endswith(ending):
            return kind
    raise PipelineError(f"{file}: its name must end in .csv, .csv.gz or .parquet")


def _open(file: Path) -> _Table:
    kind = _kind(file)
    return _Parquet(file) if kind == "parquet" else _Csv(file, gzipped=kind == "csv.gz")


class _Csv:
    def __init__(self, file: Path, gzipped: bool) -> None:
        opened: Any = gzip.GzipFile(file) if gzipped else io.BufferedReader(io.FileIO(file))
        # spreadsheets put a byte order mark before the header
        self._text = io.TextIOWrapper(opened, "utf-8-sig", newline="")
        self._rows = csv.reader(self._lines(), strict=True)
        try:
            self.names: Sequence[str] = next(self._rows, [])
            if not self.names:
                raise csv.Error("it has no header; its first line must name the columns")
        except UNREADABLE:
            self.close()
            raise

    def rows(self, columns: Sequence[str]) -> Iterator[Sequence[str]]:
        indexes = [self.names.index(column) for column in columns]
        for row in self._rows:
            if len(row) != len(self.names):
                if not row:  # an empty line
                    continue
                raise csv.Error(
                    f"line {self._rows.line_num} has {len(row)} cells and the header "
                    f"{len(self.names)}"
                )
            yield [row[index] for index in indexes]

    def close(self) -> None:
        self._text.close()

    def _lines(self) -> Iterator[str]:
        while line := self._text.readline(MAX_LINE):
            if len(line) == MAX_LINE and line[-1] not in "\r\n":
                raise csv.Error(f"a line has more than {MAX_LINE} characters")
            yield line


class _Parquet:
    def __init__(self, file: Path) -> None:
        # without a buffer, or with pre_buffer, a row group's columns are read whole
        self._file = pyarrow.parquet.ParquetFile(file, buffer_size=BUFFER_BYTES, pre_buffer=False)
        self.names: Sequence[str] = self._file.schema_arrow.names

    def rows(self, columns: Sequence[str]) -> Iterator[Sequence[Any]]:
        batches = self._file.iter_batches(BATCH_ROWS, columns=list(columns), use_threads=False)
        for batch in batches:
            yield from zip(*(_cells(batch.column(name)) for name in columns), strict=True)

    def close(self) -> None:
        self._file.close()


def _cells(column: Any) -> list[Any]:
    """A column's cells. Times and dates become text with all their digits, zones become UTC."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = column.type
    if pa.types.is_timestamp(kind):
        # without its zone it is UTC; Python's datetime would lose nanoseconds
        column = column.cast(pa.int64()).cast(pa.timestamp(kind.unit)).cast(pa.string())
    elif pa.types.is_date(kind):
        column = column.cast(pa.date32()).cast(pa.string())
    elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        column = column.cast(pa.string())  # text that was written without the type of text
    elif pa.types.is_float16(kind):
        column = column.cast(pa.float32())
    listed: list[Any] = column.to_pylist()
    return listed
