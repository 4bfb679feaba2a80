"""The window state of an entity, as stores keep and restore it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.runtime.array_types import Floats, Int32s, Int64s
from pipelines.runtime.named_columns import allocate, column
from pipelines.ticks.columns import TRADE
from registry.formats.origin import Origin
from registry.formats.row import is_closed
from registry.formats.state import CLOSED, tick_layout


def tick_dtype(fields: int) -> np.dtype[np.void]:
    """The type of one remembered tick of a source with so many fields."""
    return tick_layout(fields).dtype


@dataclass(frozen=True, slots=True)
class EntityState:
    """What the kernel must know of an entity to continue.

    `origin` is its newest accepted tick's (whose partition is its home), `sequence` and
    `event_time` are that tick's, `count` is how many ticks it ever accepted, `fill` how many since
    its last reset, or `registry.formats.state.CLOSED`.
    `ticks` are the newest ones (`tick_dtype`), oldest first, at most as many as were requested.
    `first_block` is that of its chunks, in a store that has some.
    """

    origin: Origin
    sequence: int
    event_time: int
    count: int
    fill: int
    ticks: NDArray[np.void]
    first_block: int = 0


def fill_of(ops: NDArray[np.integer[Any]], status: bytes) -> int:
    """The `fill` of an entity, of the ops of its ticks, oldest first, and its newest row's status.

    Resets may have followed a close until it is beyond what is read, so the status decides.
    """
    if is_closed(status):
        return CLOSED
    emptied = np.flatnonzero(ops != TRADE)
    return len(ops) - 1 - int(emptied[-1]) if len(emptied) else len(ops)


class StateColumns(NamedTuple):
    """The states of n entities as columns, and their ticks one behind the other."""

    partition: Int32s = column(np.int32)
    """Of the origin, as are the next two."""
    offset: Int64s = column(np.int64)
    message_index: Int32s = column(np.int32)
    sequence: Int64s = column(np.int64)
    event_time: Int64s = column(np.int64)
    """Of the newest tick, nanoseconds UTC."""
    accepted: Int64s = column(np.int64)
    """How many ticks there ever were, or as many as the store knows of."""
    fill: Int64s = column(np.int64)
    ends: Int64s = column(np.int64)
    """(n + 1); the ticks of state i are those from `ends[i]` up to `ends[i + 1]`, oldest first."""
    tick_time: Int64s = column(np.int64)
    seq: Int64s = column(np.int64)
    fields: Floats = column(np.float64, "fields")


class LoadedStates(NamedTuple):
    """What a store knows of entities that it was asked for."""

    which: Int64s
    """The indexes of those that it knows, growing."""
    topic_id: NDArray[np.void]
    """The topic incarnations of their origins, 16 bytes each."""
    states: StateColumns
    first_block: Int64s | None = None
    """Of their chunks, in a store that is given tails; the tails are among the ticks then."""


def joined(parts: Sequence[LoadedStates], fields: int) -> LoadedStates:
    """What several answers of a store without tails say together; a tick has so many `fields`.

    The indexes of each are greater than those of the one before.
    """
    none = LoadedStates(
        np.empty(0, np.int64),
        np.empty(0, "V16"),
        # it has an end more than states
        allocate(StateColumns, 0, fields=fields)._replace(ends=np.zeros(1, np.int64)),
    )
    which, topic_id, states, _ = zip(none, *parts, strict=True)
    columns = {
        name: np.concatenate([getattr(part, name) for part in states])
        for name in StateColumns._fields
        if name != "ends"
    }
    counts = np.concatenate([np.diff(part.ends) for part in states])
    ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    return LoadedStates(
        np.concatenate(which), np.concatenate(topic_id), StateColumns(**columns, ends=ends)
    )
