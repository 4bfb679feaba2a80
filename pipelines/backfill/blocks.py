"""Backfilled values as blocks of consecutive ticks, in PostgreSQL's binary COPY format.

    block = backfill, entity, first event time and sequence, last event time, unit, steps, values,
            statuses

What each means stands with the table (migration v0018). A tick takes 8 bytes for its value and 4
for its time; a block takes about 130 beside them.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.runtime.array_types import Bytes, Floats, Int32s, Int64s
from pipelines.stores.postgres.row_copy import CHUNK_BYTES, FLOAT8_OID, HEADER, NULL, TRAILER
from registry.formats.row import ValueStatus

TICKS_A_BLOCK = 152
"""Ticks: with them a row of the table takes a quarter of a page, and stays below 2,032 bytes, from
which Postgres would keep parts of it elsewhere."""

COPY = (
    "COPY tickwell.backfilled_blocks (backfill, entity, first_event_time, first_sequence,"
    " last_event_time, unit, steps, long_steps, values, statuses) FROM STDIN (FORMAT binary)"
)
INT4_OID, INT8_OID = 23, 20
GREATEST_STEP = 2**31 - 1

_ENTITY = struct.Struct(">hiii")
_TIMES = struct.Struct(">iqiqiqiq")
_ARRAY = struct.Struct(">iiiIii")
_SIZE = struct.Struct(">i")
_NULL = _SIZE.pack(NULL)
N_COLUMNS = 10


class BlockTicks(NamedTuple):
    """Values of ticks, those of an entity in the order of its log; `entity` is its index."""

    entity: Int32s
    event_time: Int64s
    sequence: Int64s
    value: Floats
    status: Bytes


def copy_blocks(cursor: Any, blocks: bytes) -> None:
    """Copy what `copy_bytes` packs into the table."""
    cursor.copy_expert(COPY, BytesIO(blocks), CHUNK_BYTES)


def copy_bytes(backfill: int, names: Sequence[str], ticks: BlockTicks) -> bytes:
    """The blocks of ticks of the entities `names`; of an entity none is packed twice."""
    starts = _starts(ticks)
    if not len(starts):
        return HEADER + TRAILER
    sizes = np.diff(np.append(starts, len(ticks.value)))
    ends = starts + sizes - 1
    first = ticks.event_time[starts]
    after_first = np.diff(ticks.event_time, prepend=ticks.event_time[0])
    after_first[starts] = 0
    unit = np.maximum(np.gcd.reduceat(after_first, starts), 1)
    steps = (ticks.event_time - np.repeat(first, sizes)) // np.repeat(unit, sizes)
    columns = _Columns(
        steps=_elements(steps.astype(np.int32), ">i4"),
        long_steps=_elements(steps, ">i8"),
        values=_elements(ticks.value, ">f8"),
        statuses=ticks.status.tobytes(),
    )
    is_long = steps[ends] > GREATEST_STEP
    all_ok = ~np.logical_or.reduceat(ticks.status != ValueStatus.OK, starts)
    encoded = [name.encode() for name in names]
    parts = [HEADER]
    for begin, size, entity, long, ok, *times in zip(
        starts.tolist(),
        sizes.tolist(),
        ticks.entity[starts].tolist(),
        is_long.tolist(),
        all_ok.tolist(),
        first.tolist(),
        ticks.sequence[starts].tolist(),
        ticks.event_time[ends].tolist(),
        unit.tolist(),
        strict=True,
    ):
        name = encoded[entity]
        parts += (_ENTITY.pack(N_COLUMNS, 4, backfill, len(name)), name)
        parts.append(_TIMES.pack(8, times[0], 8, times[1], 8, times[2], 8, times[3]))
        parts += columns.of(begin, size, long, ok)
    parts.append(TRAILER)
    return b"".join(parts)


class _Columns(NamedTuple):
    """All ticks' elements, as they stand in arrays."""

    steps: bytes
    long_steps: bytes
    values: bytes
    statuses: bytes

    def of(self, begin: int, size: int, is_long: bool, all_ok: bool) -> Sequence[bytes]:
        """The last four columns of the block of `size` ticks from the index `begin` on."""
        end = begin + size
        if is_long:
            array = _ARRAY.pack(20 + 12 * size, 1, 0, INT8_OID, size, 1)
            steps = [_NULL, array, self.long_steps[12 * begin : 12 * end]]
        else:
            array = _ARRAY.pack(20 + 8 * size, 1, 0, INT4_OID, size, 1)
            steps = [array, self.steps[8 * begin : 8 * end], _NULL]
        array = _ARRAY.pack(20 + 12 * size, 1, 0, FLOAT8_OID, size, 1)
        statuses = _NULL if all_ok else _SIZE.pack(size) + self.statuses[begin:end]
        return [*steps, array, self.values[12 * begin : 12 * end], statuses]


def _starts(ticks: BlockTicks) -> Int64s:
    """The indexes at which blocks begin."""
    n = len(ticks.value)
    begins = np.ones(n, np.bool_)
    same_time = ticks.event_time[1:] == ticks.event_time[:-1]
    expected = np.where(same_time, ticks.sequence[:-1] + 1, 0)
    begins[1:] = (ticks.entity[1:] != ticks.entity[:-1]) | (ticks.sequence[1:] != expected)
    index = np.arange(n)
    since: NDArray[np.int64] = index - np.maximum.accumulate(np.where(begins, index, 0))
    starts: Int64s = np.flatnonzero(since % TICKS_A_BLOCK == 0)
    return starts


def _elements(column: Any, kind: str) -> bytes:
    made = np.empty(len(column), np.dtype([("size", ">i4"), ("value", kind)]))
    made["size"] = np.dtype(kind).itemsize
    made["value"] = column
    return made.tobytes()
