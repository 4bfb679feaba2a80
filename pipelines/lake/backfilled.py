"""Backfilled values of the ticks that rows are of."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipelines.lake.columns import MISSING, Backfilled, CompleteBackfill, LakeSchema, entity_runs
from pipelines.lake.snapshot import DaySnapshot
from pipelines.runtime.array_types import Bytes, Floats, Int64s
from registry.formats.row import ValueStatus
from registry.resources import sql

BLOCKS_OF_TICKS = sql(__package__, "blocks_of_ticks")
ARRAY_HEADER_BYTES = 20
WHOLE = np.dtype([("size", ">i4"), ("value", ">i8")])
FLOAT = np.dtype([("size", ">i4"), ("value", ">f8")])


def backfilled_values(snapshot: DaySnapshot, wanted: LakeSchema, rows: Any) -> Backfilled:
    """Of each backfilled version what the blocks have of the ticks of rows.

    The rows are those of `day_rows.sql`, in their order. A revision that a repair has added to a
    tick has no backfilled value. Raises SQLAlchemy's `DBAPIError`.
    """
    if not wanted.backfilled:
        return []
    names, number = entity_runs(rows)
    times, sequences = rows["event_time"].astype(np.int64), rows["sequence"].astype(np.int64)
    first = np.flatnonzero(np.diff(number, prepend=-1))
    asked = {
        "entities": names,
        "firsts": times[first].tolist(),
        "lasts": times[np.append(first[1:], len(rows)) - 1].tolist(),
    }
    served = np.flatnonzero(rows["revision"] == 0)
    ticks = number[served].astype(np.int64), times[served], sequences[served]
    found = []
    for backfill in wanted.backfilled:
        values, statuses = np.full(len(rows), np.nan), np.full(len(rows), MISSING, np.uint8)
        of_blocks = _block_ticks(snapshot, backfill, asked)
        if of_blocks is not None:
            *keys, block_values, block_statuses = of_blocks
            which, block_tick = _matched(ticks, keys)
            values[served[which]] = block_values[block_tick]
            statuses[served[which]] = block_statuses[block_tick]
        found.append((values, statuses))
    return found


def _block_ticks(
    snapshot: DaySnapshot, backfill: CompleteBackfill, asked: Any
) -> tuple[Int64s, Int64s, Int64s, Floats, Bytes] | None:
    """The entity, event time, sequence, value and status of each tick of blocks, None of none."""
    columns: list[list[Any]] = [[], [], [], [], []]
    for number, begin, sequence, unit, steps, values, statuses in snapshot.rows(
        BLOCKS_OF_TICKS, {**asked, "backfill": backfill.id}
    ):
        times = begin + unit * _elements(steps, WHOLE).astype(np.int64)
        n = len(times)
        columns[0].append(np.full(n, number - 1))
        columns[1].append(times)
        columns[2].append(_sequences(times, sequence))
        columns[3].append(_elements(values, FLOAT).astype(np.float64))
        ok = np.full(n, ValueStatus.OK, np.uint8)
        columns[4].append(ok if statuses is None else np.frombuffer(statuses, np.uint8))
    if not columns[0]:
        return None
    entity, times, sequences, values, statuses = (np.concatenate(column) for column in columns)
    return entity, times, sequences, values, statuses


def _sequences(times: Int64s, first: int) -> Int64s:
    """The sequences of consecutive ticks, of which the first one has `first`."""
    index = np.arange(len(times))
    begins = np.ones(len(times), np.bool_)
    begins[1:] = times[1:] != times[:-1]
    since: Int64s = index - np.maximum.accumulate(np.where(begins, index, 0))
    return since + np.where(times == times[0], first, 0)


def _elements(sent: Any, dtype: np.dtype[np.void]) -> Any:
    return np.frombuffer(bytes(sent)[ARRAY_HEADER_BYTES:], dtype)["value"]


def _matched(ticks: Any, others: Any) -> tuple[Any, Any]:
    """The indexes of ticks that are in both, in the one and in the other; none is in one twice."""
    n = len(ticks[0])
    keys = [np.concatenate(pair) for pair in zip(ticks, others, strict=True)]
    order = np.lexsort(keys[::-1])
    alike = np.logical_and.reduce([key[order][1:] == key[order][:-1] for key in keys])
    pair = np.sort(np.stack([order[:-1][alike], order[1:][alike]]), axis=0)
    return pair[0], pair[1] - n
