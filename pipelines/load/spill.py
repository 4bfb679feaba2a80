"""The rows of files as ticks on disk, by partition, before they are sorted.

    files ─► TickRows ─► messages ─► one Arrow file a partition, and a summary of its entities
                 └► rows that are no ticks ─► a file of their own, as rejected ticks

Which partition an entity belongs to is a hash of its name over a number that never changes: it is
part of the origin of every loaded tick.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.errors import Stopped
from pipelines.produce.arrow_arrays import binaries, int64s, integers, strings
from pipelines.produce.cell_columns import texts
from pipelines.produce.checking import TickFiles
from pipelines.produce.errors import BadRow, Mistaken, Problem
from pipelines.produce.messages import Messages
from pipelines.produce.read_ahead import ahead
from pipelines.produce.tick_rows import TickRows
from pipelines.replay.stop import Stop
from pipelines.runtime.array_types import Int64s

PARTITIONS = 16
"""Partitions of a load; the number is in the origin of every loaded tick and never changes."""

MALFORMED = PARTITIONS
"""The partition of rows that are no ticks, and may have no entity: they come in their order."""

TICKS = pa.schema(
    [
        *(("entity", pa.string()), ("time", pa.int64()), ("seq", pa.int64())),
        *(("place", pa.int64()), ("known_ms", pa.int64())),
        *(("key", pa.string()), ("value", pa.binary())),
    ]
)
"""A tick: what it is sorted by, when it became known, and its message."""

ENTITIES = pa.schema(
    [("entity", pa.string()), ("first", pa.int64()), ("last", pa.int64()), ("ticks", pa.int64())]
)
"""An entity in a block of rows: its first and last event time, and how many ticks it has."""

REFUSED = pa.schema([("place", pa.int64()), ("detail", pa.string()), ("value", pa.binary())])
"""A row that is no tick: why, and its cells as a JSON object."""

MONTH = np.dtype("datetime64[M]")
YEAR_1970 = 1970 * 12
MILLISECOND_NS = 10**6


class KnownAt(NamedTuple):
    """When ticks became known: `delay_ns` after their time, or as a column says where None."""

    delay_ns: int | None

    def milliseconds(self, rows: TickRows) -> Int64s:
        """Of each row the first millisecond in which it was known: none is known too early."""
        assert rows.times is not None
        if self.delay_ns is not None:
            known = rows.times + self.delay_ns
        else:
            assert rows.known_at is not None, "options name no column"
            known = rows.known_at
        return -(-known // MILLISECOND_NS)


@dataclass(slots=True)
class Spilled:
    """What was found: ticks by partition, the months and times that they are in, other rows.

    Times are nanoseconds UTC; `empty` rows were passed over because they hold no value.
    """

    ticks: list[int] = field(default_factory=lambda: [0] * (PARTITIONS + 1))
    months: set[int] = field(default_factory=set)
    first: int | None = None
    last: int | None = None
    empty: int = 0

    @property
    def rows(self) -> int:
        """All rows that are loaded or rejected."""
        return sum(self.ticks)


def ticks_file(directory: Path, partition: int) -> Path:
    """Where the ticks of a partition are, or the rows that are none."""
    return directory / f"ticks-{partition}.arrows"


def entities_file(directory: Path, partition: int) -> Path:
    """Where the entities of a partition are."""
    return directory / f"entities-{partition}.arrows"


def spill(
    files: TickFiles,
    known_at: KnownAt,
    directory: Path,
    progress: Callable[[int], None],
    stop: Stop,
) -> Spilled:
    """Write all rows of files by partition. `progress` is told how many there are so far.

    Raises `BadFile`, `BadRow` for a row whose time is unclear, `Mistaken` where the directory is
    full, and `Stopped`.
    """
    found = Spilled()
    with _Writers(directory) as writers:
        place = 0
        for index, rows in ahead(files.blocks()):
            if stop.is_set():
                raise Stopped("nothing was stored")
            for problem in rows.unclear:
                raise BadRow(files.files[index], problem, "; nothing was stored")
            if rows.problems:
                writers.refused(place, files.files[index], rows)
                found.ticks[MALFORMED] += len(rows.problems)
                place += len(rows.problems)
            if len(rows):
                _note(found, rows)
                writers.ticks(place, rows, known_at.milliseconds(rows), found)
                place += len(rows)
            found.empty += rows.empty
            progress(place)
    return found


def partition_of(entity: str) -> int:
    """The partition of an entity: a CRC-32 of its name."""
    return zlib.crc32(entity.encode()) % PARTITIONS


def _note(found: Spilled, rows: TickRows) -> None:
    times = rows.times
    assert times is not None
    first, last = int(times.min()), int(times.max())
    found.first = first if found.first is None else min(first, found.first)
    found.last = last if found.last is None else max(last, found.last)
    months = np.unique(times.view("datetime64[ns]").astype(MONTH)).astype(np.int64)
    found.months.update((months + YEAR_1970).tolist())


class _Writers:
    """The open files of partitions."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files: dict[Path, Any] = {}

    def __enter__(self) -> _Writers:
        return self

    def __exit__(self, *_: object) -> None:
        for writer in self._files.values():
            writer.close()

    def ticks(self, place: int, rows: TickRows, known_ms: Int64s, found: Spilled) -> None:
        """Write ticks, the first of which stands at `place` among all rows."""
        made = rows.messages(0)
        coded = pc.dictionary_encode(rows.entities)
        names = coded.dictionary.to_pylist()
        codes = integers(coded.indices, np.int32)
        partition = np.array([partition_of(name) for name in names], np.int64)[codes]
        batch = pa.record_batch(
            [
                *(rows.entities, int64s(_times(rows)), _seqs(rows)),
                int64s(np.arange(place, place + len(rows))),
                *(int64s(known_ms), rows.keys, _values(made)),
            ],
            schema=TICKS,
        )
        order = np.argsort(partition, kind="stable")
        ordered = batch.take(int64s(order))
        counts = np.bincount(partition, minlength=PARTITIONS)
        ends = np.cumsum(counts)
        for number in np.flatnonzero(counts).tolist():
            end, many = int(ends[number]), int(counts[number])
            part = ordered.slice(end - many, many)
            self._write(ticks_file(self._directory, number), TICKS, part)
            self._write(entities_file(self._directory, number), ENTITIES, _summary(part))
            found.ticks[number] += many

    def refused(self, place: int, file: Path, rows: TickRows) -> None:
        """Write rows that are no ticks."""
        cells = _Cells(rows)
        problems = rows.problems
        batch = pa.record_batch(
            [
                int64s(np.arange(place, place + len(problems))),
                strings([f"{file.name}, {problem}" for problem in problems]),
                binaries([cells.of(problem) for problem in problems]),
            ],
            schema=REFUSED,
        )
        self._write(ticks_file(self._directory, MALFORMED), REFUSED, batch)

    def _write(self, file: Path, schema: Any, batch: Any) -> None:
        try:
            if file not in self._files:
                options = pa.ipc.IpcWriteOptions(compression="lz4")
                self._files[file] = pa.ipc.new_stream(str(file), schema, options=options)
            self._files[file].write_batch(batch)
        except OSError as error:
            raise Mistaken(
                f"{self._directory.parent} cannot take the sorted rows: {error}. Make room there, "
                "or name another directory by TMPDIR"
            ) from None


class _Cells:
    """The cells of rows of a block by the names of their columns, as JSON."""

    def __init__(self, rows: TickRows) -> None:
        self._rows = rows
        self._names = [name or f"#{n}" for n, name in enumerate(rows.plan.table, 1)]
        numbers = [] if rows.original is None else rows.original.numbers.tolist()
        self._index = {number: index for index, number in enumerate(numbers)}

    def of(self, problem: Problem) -> bytes:
        """The row that a problem is about."""
        cells: Sequence[Any] = problem.cells
        index = self._index.get(problem.row)
        if index is not None and self._rows.original is not None:
            cells = [_shown(column.slice(index, 1)) for column in self._rows.original.columns]
        named = dict(zip(self._names, cells, strict=False))
        if len(cells) > len(self._names):
            named[""] = cells[len(self._names) :]
        return msgspec.json.encode(named)


def _shown(cell: Any) -> str:
    try:
        return str(texts(cell, "")[0].as_py())
    except Mistaken:
        return str(cell[0].as_py())


def _times(rows: TickRows) -> Int64s:
    assert rows.times is not None
    return rows.times


def _seqs(rows: TickRows) -> Any:
    """The sequence numbers of ticks, null where they have none."""
    for member in rows.members:
        if member.name == "seq":
            nothing = pc.equal(member.tokens, strings([""])[0])
            null = pa.nulls(1, pa.string())[0]
            return pc.if_else(nothing, null, member.tokens).cast(pa.int64())
    return pa.nulls(len(rows), pa.int64())


def _values(made: Messages) -> Any:
    """The values of messages, which follow one another, as an Arrow array."""
    starts, end = made.values[:, 0], made.values[-1:, 1]
    offsets = np.concatenate([starts, end]).astype(np.int32)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(made.data)]
    return pa.Array.from_buffers(pa.binary(), len(starts), buffers)


def _summary(part: Any) -> Any:
    """The entities of some ticks."""
    table = pa.Table.from_batches([part.select(["entity", "time"])])
    grouped = table.group_by("entity").aggregate(
        [("time", "min"), ("time", "max"), ("time", "count")]
    )
    columns = ["entity", "time_min", "time_max", "time_count"]
    return grouped.select(columns).rename_columns(ENTITIES.names).combine_chunks().to_batches()[0]
