"""What the compiled pass over messages reads and fills: a source's layout, messages and ticks."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from pipelines.runtime.array_types import Bytes, Floats, Int32s, Int64s
from pipelines.runtime.named_columns import column, numba_type, type_of
from pipelines.ticks.event_time import NANOSECONDS
from registry.definitions import Source


class Layout(NamedTuple):
    """A source as the compiled pass sees it.

    `names` are the names of its key fields, its numeric fields, `ts`, `seq` and `op`, end to end,
    and `ends` the positions where each of them ends; the index of a name stands for it.
    """

    names: Bytes
    ends: Int64s
    required: Any
    """By numeric field, bool."""
    default: Floats
    """By numeric field, NaN for none."""
    factor: int
    """Nanoseconds of a unit of `ts`."""
    skew: int
    """Nanoseconds that a tick may be ahead of its record."""
    positive: bool

    @classmethod
    def of(cls, source: Source) -> Layout:
        names = [name.encode() for name in (*source.key, *source.field_names, "ts", "seq", "op")]
        return cls(
            names=np.frombuffer(bytearray().join(names), np.uint8),
            ends=np.cumsum([len(name) for name in names], dtype=np.int64),
            required=np.array([field.required for field in source.fields], np.bool_),
            default=np.array(
                [math.nan if field.default is None else field.default for field in source.fields]
            ),
            factor=NANOSECONDS[source.ts_unit],
            skew=source.skew_ns,
            positive=source.positive,
        )


class Messages(NamedTuple):
    """The messages of a run as columns; `known_at` is nanoseconds UTC, the rest as in `Run`."""

    data: Bytes = column(np.uint8)
    values: Int64s = column(np.int64, "bounds")
    keys: Int64s = column(np.int64, "bounds")
    known_at: Int64s = column(np.int64)


class ScannedTicks(NamedTuple):
    """Ticks as columns of length n, as of `ticks.columns.Ticks`."""

    record: Int64s = column(np.int64)
    index_in_message: Int32s = column(np.int32)
    keys: Int64s = column(np.int64, "keys", "bounds")
    raw: Int64s = column(np.int64, "bounds")
    tick_time: Int64s = column(np.int64)
    seq: Int64s = column(np.int64)
    op: Bytes = column(np.uint8)
    fields: Floats = column(np.float64, "fields")


class Scanned(NamedTuple):
    """What the pass took of a run, and the records whose messages are left, as a whole."""

    ticks: ScannedTicks
    left: Int64s


LAYOUT = numba_type(Layout.of(Source("", "", ("",), ())))
MESSAGES, TICKS = type_of(Messages), type_of(ScannedTicks)
"""The types of the arguments of compiled functions."""
