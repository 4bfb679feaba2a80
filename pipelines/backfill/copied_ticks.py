"""Ticks as Postgres copies them out in binary format, an array of each column for many ticks.

row   = number of columns, number (bigint), arrays
array = size, dimensions, whether there are nulls, type, length, lower bound, elements
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from pipelines.runtime.array_types import Bytes, Floats, Int64s
from pipelines.stores.postgres.row_copy import HEADER, TRAILER, sized

OP_BITS = 3
"""Bits of a sequence, the last ones, that have the operation of its tick."""

_ROW = struct.Struct(">hiq")
_ARRAY = struct.Struct(">iiiIii")
_SIZE = 4
"""Bytes of the size of an array."""

WHOLE = np.dtype(sized("value", ">i8"))
FLOAT = np.dtype(sized("value", ">f8"))
"""An element of an array of whole numbers, and of one of floats."""


class CopiedTicks(NamedTuple):
    """Columns of ticks; `number` is the one of the row that a tick is of, from 0 on."""

    number: Int64s
    event_time: Int64s
    sequence: Int64s
    op: Bytes
    value: Floats


def copied_ticks(copied: memoryview) -> CopiedTicks | None:
    """The ticks of what `read_ticks.sql` gives, None where one of them has no value.

    That is one with another number of fields than its source.
    """
    rows = list(copied_rows(copied, (WHOLE, WHOLE, FLOAT)))
    if any(array is None for _, arrays in rows for array in arrays):
        return None
    if not rows:
        nothing = np.zeros(0, np.int64)
        return CopiedTicks(nothing, nothing, nothing, nothing.astype(np.uint8), np.zeros(0))
    numbers = [number for number, _ in rows]
    columns = list(zip(*(arrays for _, arrays in rows), strict=True))
    event_time, sequence_and_op, value = (np.concatenate(column) for column in columns)
    sequence_and_op = sequence_and_op.astype(np.int64)
    return CopiedTicks(
        number=np.repeat(np.array(numbers, np.int64) - 1, [len(times) for times in columns[0]]),
        event_time=event_time.astype(np.int64),
        sequence=sequence_and_op >> OP_BITS,
        op=(sequence_and_op & (1 << OP_BITS) - 1).astype(np.uint8),
        value=value.astype(np.float64),
    )


def copied_rows(
    copied: memoryview, dtypes: Sequence[np.dtype[np.void]]
) -> Iterator[tuple[int, list[Any]]]:
    """The number and the arrays of each row, None for an array that has a null in it."""
    begin, end = len(HEADER), len(copied) - len(TRAILER)
    while begin < end:
        _, _, number = _ROW.unpack_from(copied, begin)
        begin += _ROW.size
        arrays: list[Any] = []
        for dtype in dtypes:
            size, _, has_nulls, _, length, _ = _ARRAY.unpack_from(copied, begin)
            elements = None
            if not has_nulls:
                elements = np.frombuffer(copied, dtype, length, begin + _ARRAY.size)["value"]
            arrays.append(elements)
            begin += _SIZE + size
        yield number, arrays
