"""The ticks of a partition in the order of entity, time, sequence number and input, as runs.

    ticks of a partition ─► sort on disk ─► runs of offsets, cut where windows begin anew

An offset is the rank of a tick in this order, so it is the same however often, and from wherever,
the partition is read. The sort is DuckDB's, which writes to a directory what memory does not hold;
it compares no two ticks as equal, since their places in the input differ, and it sees neither a
number nor a time as text.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.kafka.run import Run
from pipelines.load.spill import ticks_file
from pipelines.produce.arrow_arrays import booleans, integers, strings
from pipelines.produce.errors import CannotSort
from pipelines.runtime.array_types import Int64s

if TYPE_CHECKING:
    import duckdb

RUN_TICKS = 16_384
"""Ticks of a run: what a transaction stores."""

SORT_MEMORY = "192MB"
"""Memory of a sort; what is more goes to the disk."""

ORDERED = (
    "SELECT entity, time, known_ms, key, value FROM ticks {} "
    "ORDER BY entity, time, seq NULLS FIRST, place"
)
ONLY = "WHERE entity IN (SELECT entity FROM wanted)"


class Span(NamedTuple):
    """Event times of an entity, nanoseconds, both included."""

    first: int
    last: int


class SortedRun(NamedTuple):
    """A run, and of each of its entities the time of the first tick.

    `begins_anew` says that the windows of its first entity are those of stored rows.
    """

    run: Run
    firsts: Mapping[str, int]
    begins_anew: bool
    passed_over: int
    """Ticks of its offsets that are stored already, and not in the run."""


class Partition(NamedTuple):
    """A partition of a load, on disk in a directory; `topic` and `topic_id` name the load."""

    directory: Path
    topic: str
    topic_id: bytes
    number: int


def sorted_runs(
    partition: Partition,
    start: int,
    passed_over: Mapping[str, Span],
    only: Collection[str] | None = None,
    run_ticks: int = RUN_TICKS,
) -> Iterator[SortedRun]:
    """The runs of a partition from offset `start` on, which meet.

    Ticks of entities in `passed_over` are left out of the runs where their times are; with `only`
    those of other entities are, and have no offsets. Raises `CannotSort`.
    """
    offset = 0
    for batch in _ordered(partition, only, run_ticks):
        base, offset = offset, offset + len(batch)
        if offset <= start:
            continue
        if base < start:
            batch, base = batch.slice(start - base), start
        yield from _runs(partition, base, batch, passed_over)


def sorter(directory: Path) -> duckdb.DuckDBPyConnection:
    """An engine that sorts and groups, with bounded memory and the rest in a directory."""
    import duckdb

    return duckdb.connect(
        config={"memory_limit": SORT_MEMORY, "temp_directory": str(directory), "threads": 2}
    )


def _ordered(
    partition: Partition, only: Collection[str] | None, run_ticks: int
) -> Iterator[pa.RecordBatch]:
    import duckdb

    file = ticks_file(partition.directory, partition.number)
    if not file.exists():
        return
    connection = sorter(partition.directory / f"sort-{partition.number}")
    try:
        with pa.OSFile(str(file)) as opened, pa.ipc.open_stream(opened) as ticks:
            connection.register("ticks", ticks)
            if only is not None:
                wanted = pa.table([strings(sorted(only))], names=["entity"])
                connection.register("wanted", wanted)
            statement = ORDERED.format("" if only is None else ONLY)
            yield from connection.sql(statement).to_arrow_reader(run_ticks)
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        raise CannotSort(partition.directory.parent, error) from None
    finally:
        connection.close()


def _runs(
    partition: Partition, base: int, batch: pa.RecordBatch, passed_over: Mapping[str, Span]
) -> Iterator[SortedRun]:
    """A batch of sorted ticks as runs, cut where an entity goes on after what is passed over."""
    coded = pc.dictionary_encode(batch.column("entity"))
    names: list[str] = coded.dictionary.to_pylist()
    codes, times = integers(coded.indices, np.int32), integers(batch.column("time"))
    kept, cuts = _passed_over(names, codes, times, passed_over)
    bounds = [0, *cuts, len(batch)]
    for begin, end in pairwise(bounds):
        if begin == end:
            continue
        some = kept[begin:end]
        rows = batch.slice(begin, end - begin)
        own_codes, own_times = codes[begin:end][some], times[begin:end][some]
        offsets = np.arange(base + begin, base + end)[some]
        if not some.all():
            rows = rows.filter(booleans(some))
        starts = np.flatnonzero(np.diff(own_codes, prepend=-1))
        yield SortedRun(
            run=_run(partition, rows, offsets, (base + begin, base + end)),
            firsts={names[own_codes[i]]: int(own_times[i]) for i in starts.tolist()},
            begins_anew=begin in cuts,
            passed_over=int((~some).sum()),
        )


def _passed_over(
    names: list[str], codes: Any, times: Int64s, passed_over: Mapping[str, Span]
) -> tuple[Any, list[int]]:
    """Which ticks are in the runs, and the indexes at which windows begin anew."""
    kept, cuts = np.ones(len(codes), np.bool_), set[int]()
    for code, name in enumerate(names):
        span = passed_over.get(name)
        if span is None:
            continue
        first, end = np.searchsorted(codes, [code, code + 1]).tolist()
        begin = first + int(np.searchsorted(times[first:end], span.first))
        behind = first + int(np.searchsorted(times[first:end], span.last, side="right"))
        kept[begin:behind] = False
        if behind < end:
            cuts.add(behind)
    return kept, sorted(cuts)


def _run(partition: Partition, rows: pa.RecordBatch, offsets: Int64s, over: tuple[int, int]) -> Run:
    values, value_bytes = _spans(rows.column("value"))
    keys, key_bytes = _spans(rows.column("key"))
    return Run(
        topic=partition.topic,
        topic_id=partition.topic_id,
        partition=partition.number,
        base_offset=over[0],
        next_offset=over[1],
        data=np.concatenate([value_bytes, key_bytes]),
        offsets=offsets,
        timestamps=integers(rows.column("known_ms")).copy(),
        keys=keys + len(value_bytes),
        values=values,
    )


def _spans(column: Any) -> tuple[Int64s, Any]:
    """Where each text begins and ends in the bytes of all."""
    _, offsets, data = column.buffers()
    whole = np.frombuffer(offsets, np.int32)[column.offset : column.offset + len(column) + 1]
    bounds: Int64s = whole.astype(np.int64)
    first, last = (int(bounds[0]), int(bounds[-1])) if len(column) else (0, 0)
    found = np.frombuffer(data, np.uint8)[first:last] if data else np.empty(0, np.uint8)
    return np.stack([bounds[:-1], bounds[1:]], axis=1) - first, found
