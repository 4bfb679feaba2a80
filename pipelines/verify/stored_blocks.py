"""Backfilled values of some ticks as their blocks have them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.runtime.array_types import Bytes, Floats, Int64s
from pipelines.verify.stored_rows import StoredTicks
from registry.definitions import Catalog
from registry.resources import sql

BLOCKS, BACKFILLS = sql(__package__, "blocks"), sql(__package__, "backfills")

WHOLE, FLOAT = (
    np.dtype([("size", ">i4"), ("value", ">i8")]),
    np.dtype([("size", ">i4"), ("value", ">f8")]),
)
"""An element of an array of whole numbers, and of one of doubles."""

ARRAY_BYTES = 20
"""Bytes before the elements of an array."""


class Backfilled(NamedTuple):
    """The version that a backfill is of, as `name@version`.

    One from Kafka is not `whole`: it has no values of ticks that the log had lost.
    """

    ref: str
    whole: bool


class BlockValues(NamedTuple):
    """What blocks of one version say of m ticks."""

    ref: str
    whole: bool
    """Whether no tick between these lacks a value."""
    part: Int64s
    event_time: Int64s
    sequence: Int64s
    value: Floats
    status: Bytes
    tick: Int64s
    """(m,) Which of the stored ticks each is of, -1 for none."""


def backfills(cursor: Any, catalog: Catalog) -> Mapping[str, Mapping[int, Backfilled]]:
    """The complete backfills of each source, by id."""
    cursor.execute(BACKFILLS)
    found: dict[str, dict[int, Backfilled]] = {}
    for number, ref, is_whole in cursor.fetchall():
        version = catalog.features.get(ref)
        if version is not None and version.source is not None:
            found.setdefault(version.source, {})[number] = Backfilled(ref, is_whole)
    return found


def read_blocks(
    cursor: Any, ticks: StoredTicks, made: Mapping[int, Backfilled]
) -> list[BlockValues]:
    """The backfilled values of the stretches that some ticks are of, by version."""
    if not made:
        return []
    wanted = {
        "entities": [part.entity for part in ticks.parts],
        "after_times": [part.after_time for part in ticks.parts],
        "past_times": [part.past_time for part in ticks.parts],
        "backfills": list(made),
    }
    cursor.execute(BLOCKS, wanted)
    by_backfill: dict[int, list[Any]] = {}
    for row in cursor.fetchall():
        by_backfill.setdefault(row[1], []).append(row)
    return [_of_version(made[number], rows, ticks) for number, rows in by_backfill.items()]


def _of_version(made: Backfilled, rows: list[Any], ticks: StoredTicks) -> BlockValues:
    columns = zip(*(_block(row) for row in rows), strict=True)
    part, time, sequence, value, status = (np.concatenate(column) for column in columns)
    wanted = _is_within(part, time, sequence, ticks)
    part, time, sequence = part[wanted], time[wanted], sequence[wanted]
    tick = _found(ticks, part, time, sequence)
    return BlockValues(*made, part, time, sequence, value[wanted], status[wanted], tick)


def _block(row: Any) -> tuple[Int64s, Int64s, Int64s, Floats, Bytes]:
    """The ticks of a block: their part, event times, sequences, values and statuses."""
    number, _, first_time, first_sequence, unit, steps, values, statuses = row
    step = np.frombuffer(steps, WHOLE, offset=ARRAY_BYTES)["value"].astype(np.int64)
    value = np.frombuffer(values, FLOAT, offset=ARRAY_BYTES)["value"].astype(np.float64)
    n = len(step)
    time = first_time + step * unit
    index = np.arange(n)
    begins = np.ones(n, np.bool_)
    begins[1:] = time[1:] != time[:-1]
    sequence = index - np.maximum.accumulate(np.where(begins, index, 0))
    sequence[time == first_time] += first_sequence
    status = np.zeros(n, np.uint8) if statuses is None else np.frombuffer(statuses, np.uint8)
    return np.full(n, number - 1, np.int64), time, sequence, value, status


def _is_within(
    part: Int64s, time: Int64s, sequence: Int64s, ticks: StoredTicks
) -> NDArray[np.bool_]:
    """Which ticks lie in the stretch of their part, as far as it was read."""
    after_time = np.array([one.after_time for one in ticks.parts], np.int64)[part]
    after_sequence = np.array([one.after_sequence for one in ticks.parts], np.int64)[part]
    past_time = np.array([one.past_time for one in ticks.parts], np.int64)[part]
    within: NDArray[np.bool_] = (time > after_time) | (
        (time == after_time) & (sequence > after_sequence)
    )
    within &= time < past_time
    if ticks.left and ticks.left[0].entity == ticks.parts[-1].entity:
        cut = ticks.left[0]
        beyond = (time > cut.after_time) | (
            (time == cut.after_time) & (sequence > cut.after_sequence)
        )
        within &= ~((part == len(ticks.parts) - 1) & beyond)
    return within


def _found(ticks: StoredTicks, part: Int64s, time: Int64s, sequence: Int64s) -> Int64s:
    """The index of each of some ticks among those that are stored, -1 where it is not."""
    n = len(ticks.part)
    columns = (
        np.concatenate([ticks.sequence, sequence]),
        np.concatenate([ticks.event_time, time]),
        np.concatenate([ticks.part, part]),
    )
    order = np.lexsort(columns)  # stable: what is stored comes before what is looked for
    starts = np.ones(len(order), np.bool_)
    starts[1:] = np.logical_or.reduce([np.diff(column[order]) != 0 for column in columns])
    first = order[np.maximum.accumulate(np.where(starts, np.arange(len(order)), 0))]
    found = np.empty(len(order), np.int64)
    found[order] = np.where(first < n, first, -1)
    return found[n:]
