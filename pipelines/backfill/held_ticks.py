"""Values of ticks as a log gives them, run after run, made into blocks entity by entity."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.backfill.blocks import BlockTicks
from pipelines.backfill.copied_ticks import WHOLE, copied_rows
from pipelines.compute.batch import Batch
from pipelines.runtime.array_types import Bytes, Floats, Int32s, Int64s
from pipelines.stores.postgres.row_copy import CHUNK_BYTES
from registry.resources import sql

STORED_TICKS, IN_KEY_ORDER = sql(__package__, "stored_ticks"), sql(__package__, "in_key_order")
COPY = "COPY ({}) TO STDOUT (FORMAT binary)"


class Held(NamedTuple):
    """Ticks by entity, whose index among `names` is `entity`, each in the order of its log."""

    names: Sequence[str]
    entity: Int32s
    event_time: Int64s
    sequence: Int64s
    value: Floats
    status: Bytes
    offset: Int64s

    def only(self, which: Any) -> BlockTicks:
        """Those of some indexes."""
        columns = self.entity, self.event_time, self.sequence, self.value, self.status
        return BlockTicks(*(column[which] for column in columns))


class HeldTicks:
    """Holds the ticks of batches until they are enough for blocks of several ticks an entity."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._parts: list[tuple[Any, ...]] = []
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, batch: Batch) -> None:
        """Hold the ticks of a batch in whose row schema a version is alone."""
        numbers = self._numbers
        of_name = np.array(
            [numbers.setdefault(name, len(numbers)) for name in batch.names], np.int32
        )
        columns = batch.event_time, batch.sequence, batch.features[:, 0], batch.status[:, 0]
        if len(batch):
            self._parts.append((of_name[batch.name], *columns, batch.offset))
            self._size += len(batch)

    def take(self) -> Held | None:
        """What is held, None for nothing; nothing is held any more."""
        if not self._parts:
            return None
        entity, *columns = (np.concatenate(column) for column in zip(*self._parts, strict=True))
        encoded = [name.encode() for name in self._numbers]
        ranked = sorted(range(len(encoded)), key=encoded.__getitem__)
        rank = np.empty(len(ranked), np.int32)
        rank[ranked] = np.arange(len(ranked), dtype=np.int32)
        entity = rank[entity]
        order = np.argsort(entity, kind="stable")
        names = list(self._numbers)
        self._numbers, self._parts, self._size = {}, [], 0
        return Held([names[i] for i in ranked], entity[order], *(each[order] for each in columns))


def with_rows(cursor: Any, held: Held, schemas: Sequence[int]) -> NDArray[np.bool_]:
    """Of each tick whether it has a row in one of some row schemas, asked in a transaction."""
    starts = np.flatnonzero(np.diff(held.entity, prepend=-1))
    ends = np.append(starts[1:], len(held.entity)) - 1
    wanted = {
        "entities": list(held.names),
        "schemas": list(schemas),
        "first_times": held.event_time[starts].tolist(),
        "first_sequences": held.sequence[starts].tolist(),
        "last_times": held.event_time[ends].tolist(),
        "last_sequences": held.sequence[ends].tolist(),
    }
    sent = BytesIO()
    cursor.execute(IN_KEY_ORDER)
    made = cursor.mogrify(STORED_TICKS, wanted).decode()
    cursor.copy_expert(COPY.format(made), sent, CHUNK_BYTES)
    rows = [(number, columns) for number, columns in copied_rows(sent.getbuffer(), (WHOLE, WHOLE))]
    times = [columns[0].astype(np.int64) for _, columns in rows]
    sequences = [columns[1].astype(np.int64) for _, columns in rows]
    entity = np.repeat(
        np.array([number - 1 for number, _ in rows], np.int32), list(map(len, times))
    )
    nothing = np.zeros(0, np.int64)
    time, sequence = np.concatenate([nothing, *times]), np.concatenate([nothing, *sequences])
    same = (
        np.array_equal(entity, held.entity)
        and np.array_equal(time, held.event_time)
        and np.array_equal(sequence, held.sequence)
    )
    if same:
        return np.ones(len(entity), np.bool_)
    return _found(held, entity.astype(np.int32), time, sequence)


def _found(held: Held, entity: Int32s, time: Int64s, sequence: Int64s) -> NDArray[np.bool_]:
    """Of each tick whether it is among others."""
    n = len(held.entity)
    columns = (
        np.concatenate([held.sequence, sequence]),
        np.concatenate([held.event_time, time]),
        np.concatenate([held.entity, entity]),
    )
    order = np.lexsort(columns)
    starts = np.ones(len(order), np.bool_)
    starts[1:] = False
    for column in columns:
        starts[1:] |= np.diff(column[order]) != 0
    group = np.cumsum(starts) - 1
    has_row = np.zeros(int(group[-1]) + 1, np.bool_)
    has_row[group[order >= n]] = True
    found = np.empty(len(order), np.bool_)
    found[order] = has_row[group]
    answer: NDArray[np.bool_] = found[:n]
    return answer
