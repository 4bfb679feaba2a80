"""Checked rows to messages, as they are sent: at once, at a rate, or in the order of time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event

import numpy as np
import pyarrow as pa

from pipelines.produce.arrow_arrays import binaries, int64s
from pipelines.produce.errors import CannotSort
from pipelines.produce.messages import MOST_BYTES, MOST_TICKS, Batch
from pipelines.produce.read_ahead import ahead
from pipelines.produce.tick_rows import TickRows

SLICE = 5_000
"""Ticks between two looks at progress and signals, at most."""

SLICE_SECONDS = 0.05
"""Seconds that one slice takes at a rate."""

SORT_MEMORY = "128MB"
"""Memory of a sort; what is more goes to the disk."""


def at_once(blocks: Iterator[TickRows]) -> Iterator[Batch]:
    """The messages of rows that have times of their own; the next block is made meanwhile.

    Ticks of one key are joined: their order is kept, and nothing depends on that of other keys.
    """
    yield from ahead(rows.batch() for rows in blocks)


def paced(blocks: Iterator[TickRows], rate: float | None, stop: Event) -> Iterator[Batch]:
    """One message a row, at most `rate` a second, each made at the moment it is sent."""
    size = SLICE if rate is None else max(1, min(SLICE, int(rate * SLICE_SECONDS)))
    began, sent = time.monotonic(), 0
    for rows in blocks:
        for start in range(0, len(rows), size):
            if rate is not None and (early := sent / rate - (time.monotonic() - began)) > 0:
                stop.wait(early)
            if stop.is_set():
                return
            part = rows.slice(start, min(start + size, len(rows)))
            sent += len(part)
            yield Batch(*part.messages(time.time_ns()).lists(), len(part))


def in_order_of_time(blocks: Iterator[TickRows], stop: Event) -> Iterator[Batch]:
    """The messages of rows sorted by time, rows of one time in the order of the files.

    The sort is DuckDB's, which writes to the directory for temporary files what memory does not
    hold. Raises `CannotSort` where that directory is full, and what `blocks` raises.
    """
    import duckdb

    schema = pa.schema(
        [("time", pa.int64()), ("place", pa.int64()), ("key", pa.binary()), ("value", pa.binary())]
    )

    failed: list[Exception] = []

    def batches() -> Iterator[pa.RecordBatch]:
        try:
            yield from made()
        except Exception as error:  # DuckDB would make another one of it
            failed.append(error)
            raise

    def made() -> Iterator[pa.RecordBatch]:
        place = 0
        for rows in blocks:
            if stop.is_set():
                return
            keys, values = rows.messages(0).lists()
            assert rows.times is not None, "rows that get the time of sending are not sorted"
            places = np.arange(place, place + len(keys))
            place += len(keys)
            columns = [int64s(rows.times), int64s(places), binaries(keys)]
            yield pa.record_batch([*columns, binaries(values)], schema=schema)

    with TemporaryDirectory(prefix="tickwell-sort-") as directory:
        connection = duckdb.connect(
            config={"memory_limit": SORT_MEMORY, "temp_directory": directory, "threads": 2}
        )
        try:
            rows = pa.RecordBatchReader.from_batches(schema, batches())
            connection.register("rows", rows)
            ordered = connection.sql("SELECT key, value FROM rows ORDER BY time, place")
            for batch in ordered.to_arrow_reader(SLICE):
                if stop.is_set():  # and the sort may lack rows
                    return
                yield _joined(batch.column(0).to_pylist(), batch.column(1).to_pylist())
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            if failed:
                raise failed[0] from None
            raise CannotSort(Path(directory).parent, error) from None
        finally:
            connection.close()


def _joined(keys: list[bytes], ticks: list[bytes]) -> Batch:
    """Messages that hold the ticks of one key, in their order."""
    by_key: dict[bytes, list[bytes]] = {}
    for key, tick in zip(keys, ticks, strict=True):
        by_key.setdefault(key, []).append(tick)
    found = Batch([], [], len(ticks))
    for key, own in by_key.items():
        together = max(1, min(MOST_TICKS, MOST_BYTES // max(map(len, own))))
        for start in range(0, len(own), together):
            some = own[start : start + together]
            found.keys.append(key)
            found.values.append(some[0] if len(some) == 1 else b"[%b]" % b",".join(some))
    return found
