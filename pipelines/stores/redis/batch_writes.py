"""A batch as the bytes that Redis keeps (`registry.formats`)."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipelines.compute.batch import Batch
from pipelines.compute.entity_state import tick_dtype
from pipelines.stores.redis.entity_write import EntityWrite, identity, ring_pieces
from registry.formats.row import LAYOUT_VERSION, row_layout
from registry.formats.state import MARK, STATE_HEADER

HEADER_BYTES = STATE_HEADER.size


class BatchWrites:
    """What to write of each entity of a batch, as bytes cut from whole columns."""

    def __init__(self, batch: Batch, history: int) -> None:
        self._names = list(batch.names)
        self._expected = batch.expected.to_list()
        self._history = history
        ticks = _ticks(batch)
        self._tick_bytes = ticks.itemsize
        order = np.argsort(batch.name, kind="stable")
        ends = np.searchsorted(batch.name[order], np.arange(len(batch.names)), "right")
        starts = np.concatenate([[0], ends])[:-1]
        newest = order[ends - 1] if len(batch.names) else order
        self._sorted_ticks = ticks[order].tobytes()
        self._rows = _rows(batch, newest).tobytes()
        self._row_bytes = row_layout(len(batch.schema.features)).size
        headers = _headers(batch, newest)
        headers["room"] = history
        headers["tick_bytes"] = self._tick_bytes
        # how many the ring then holds depends on how many it held: the script adds the two
        headers["held"] = ends - starts
        self._headers = headers.tobytes()
        # of each entity: begin and end of its ticks among the sorted ones, the number of the first
        self._starts, self._ends = starts.tolist(), ends.tolist()
        self._first = batch.ordinal[order[starts]].tolist() if len(batch.names) else []

    def write(self, index: int) -> EntityWrite:
        """What to write of the entity `batch.names[index]`."""
        size, row_size = HEADER_BYTES, self._row_bytes
        expected = self._expected[index]
        return EntityWrite(
            self._names[index],
            identity(expected, self._first[index]) if expected else b"",
            self._headers[index * size : (index + 1) * size],
            self._rows[index * row_size : (index + 1) * row_size],
            self._pieces(index),
        )

    def _pieces(self, index: int) -> list[tuple[int, bytes]]:
        """The entity's ticks; only those that its ring will still hold."""
        start, end, size = self._starts[index], self._ends[index], self._tick_bytes
        passed_over = max(0, end - start - self._history)
        start += passed_over
        first, ticks = self._first[index] + passed_over, self._sorted_ticks
        return [
            (HEADER_BYTES + slot * size, ticks[(start + begin) * size : (start + after) * size])
            for begin, after, slot in ring_pieces(first, end - start, self._history)
        ]


def _ticks(batch: Batch) -> Any:
    """The accepted ticks as a column of `tick_dtype`."""
    ticks = np.empty(len(batch), tick_dtype(len(batch.source.fields)))
    ticks["event_time"] = batch.event_time
    ticks["tick_time"] = batch.tick_time
    ticks["seq"] = batch.seq
    ticks["fields"] = batch.fields
    return ticks


def _headers(batch: Batch, newest: Any) -> Any:
    """The state header of each entity without its ring; `newest` indexes their newest ticks."""
    headers = np.empty(len(newest), STATE_HEADER.dtype)
    _put_origins(headers, batch, newest)
    headers["sequence"] = batch.sequence[newest]
    headers["count"] = batch.ordinal[newest] + 1
    headers["fill"] = batch.fill
    headers["mark"] = np.void(MARK)
    return headers


def _rows(batch: Batch, newest: Any) -> Any:
    """The row of each entity as `formats.row.pack` makes it; `newest` as for `_headers`."""
    rows = np.empty(len(newest), row_layout(len(batch.schema.features)).dtype)
    rows["layout_version"] = LAYOUT_VERSION
    rows["schema_id"] = batch.schema.id
    rows["event_time"] = batch.event_time[newest]
    rows["sequence"] = batch.sequence[newest]
    rows["known_at"] = batch.known_at[newest]
    _put_origins(rows, batch, newest)
    rows["status"] = batch.status[newest]
    rows["values"] = batch.features[newest]
    return rows


def _put_origins(column: Any, batch: Batch, newest: Any) -> None:
    column["topic_id"] = np.void(batch.run.topic_id)
    column["partition"] = batch.run.partition
    column["offset"] = batch.offset[newest]
    column["index"] = batch.index[newest]
