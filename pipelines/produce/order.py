"""The order of rows, seen as a worker sees it: entity by entity, before anything is sent.

A row that lies more than `skew` behind the newest row of its entity is late, and so is one that
lies so far behind what live has of the entity. What is kept of an entity is its newest time and a
few numbers beside it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numba
import numpy as np

from pipelines.compute.entity_slots import EntitySlots
from pipelines.runtime.array_types import Int32s, Int64s
from pipelines.runtime.machine_code import compiled
from pipelines.runtime.named_columns import allocate, column, grown, type_of
from pipelines.ticks.columns import Ticks

NEVER = np.iinfo(np.int64).min // 2
"""A time before every time, from which a skew can be taken off."""

FIRST_SLOTS = 1024
ROW_BITS = 40
"""Bits of a row's number in its place; those above are its file's."""

Newest = Callable[[Sequence[str]], Mapping[str, int]]
"""The newest event times that live has of entities, nanoseconds; those it knows."""


class _Entities(NamedTuple):
    """By slot; times in nanoseconds, rows by their places."""

    newest: Int64s = column(np.int64)
    newest_row: Int64s = column(np.int64)
    before: Int64s = column(np.int64)
    """The newest time without the newest row."""
    held_up: Int64s = column(np.int64)
    """Rows that are late because of the newest row alone."""
    previous: Int64s = column(np.int64)
    live: Int64s = column(np.int64)


class _Counts(NamedTuple):
    """Numbers of rows, and places; arrays of one element, which compiled code can change."""

    late: Int64s = column(np.int64)
    first_late: Int64s = column(np.int64)
    first_late_by: Int64s = column(np.int64)
    steps_back: Int64s = column(np.int64)
    held_up: Int64s = column(np.int64)
    held_up_by: Int64s = column(np.int64)
    held_up_time: Int64s = column(np.int64)
    older: Int64s = column(np.int64)
    first_older: Int64s = column(np.int64)
    first_older_by: Int64s = column(np.int64)


ENTITIES, COUNTS = type_of(_Entities), type_of(_Counts)


class Order:
    """The order of the rows so far. `newest` says what live has; without it nothing is compared."""

    def __init__(self, skew_ns: int, newest: Newest | None) -> None:
        self.skew_ns = skew_ns
        self._newest = newest
        self._slots = EntitySlots()
        self._entities = self._more(allocate(_Entities, 0))
        self._counts = allocate(_Counts, 1)
        self._calls = 0
        self.rows = 0

    def add(self, ticks: Ticks, places: Int64s) -> None:
        """Look at the ticks of rows; `places` are those of the rows, in the order of the ticks."""
        self._calls += 1
        touched = self._slots.touch(ticks.data, ticks.keys, self._calls, sys.maxsize)
        if len(touched.taken):
            self._take(touched.taken)
        self.rows += len(ticks)
        _advance(touched.slot, ticks.tick_time, places, self.skew_ns, self._entities, self._counts)

    @property
    def entities(self) -> int:
        return len(self._slots)

    @property
    def late(self) -> int:
        """How many rows are late."""
        return int(self._counts.late[0])

    @property
    def first_late(self) -> tuple[int, int]:
        """The place of the first late row, and by how much it is behind, nanoseconds."""
        return int(self._counts.first_late[0]), int(self._counts.first_late_by[0])

    @property
    def is_newest_first(self) -> bool:
        """Whether nearly every row steps back from the one before it of its entity."""
        steps = self.rows - self.entities
        return 10 * int(self._counts.steps_back[0]) >= 9 * max(1, steps)

    @property
    def far_ahead(self) -> tuple[int, int, int] | None:
        """A row because of which alone most late rows are: its place, time, and their number."""
        many = int(self._counts.held_up[0])
        if 2 * many < max(2, self.late):
            return None
        return int(self._counts.held_up_by[0]), int(self._counts.held_up_time[0]), many

    @property
    def older_than_live(self) -> tuple[int, int, int]:
        """How many rows are late for what live has; the first one's place, and by how much."""
        counts = self._counts
        return int(counts.older[0]), int(counts.first_older[0]), int(counts.first_older_by[0])

    def _take(self, slots: Int32s) -> None:
        """Learn what live has of entities that are new."""
        while self._slots.size > len(self._entities.newest):
            self._entities = self._more(self._entities)
        if self._newest is not None:
            names = self._slots.names(slots)
            known = self._newest(names)
            self._entities.live[slots] = [known.get(name, NEVER) for name in names]

    @staticmethod
    def _more(entities: _Entities) -> _Entities:
        had = len(entities.newest)
        more = grown(_Entities, list(entities), max(FIRST_SLOTS, 2 * had))
        for times in (more.newest, more.before, more.previous, more.live):
            times[had:] = NEVER
        return more


@compiled(
    numba.void(numba.int32[::1], numba.int64[::1], numba.int64[::1], numba.int64, ENTITIES, COUNTS)
)
def _advance(slots, times, places, skew, entities, counts):  # type: ignore[no-untyped-def]
    for i in range(slots.shape[0]):
        slot, time = slots[i], times[i]
        counts.steps_back[0] += time < entities.previous[slot]
        entities.previous[slot] = time
        if time < entities.live[slot] - skew:
            if counts.older[0] == 0:
                counts.first_older[0] = places[i]
                counts.first_older_by[0] = entities.live[slot] - time
            counts.older[0] += 1
        newest = entities.newest[slot]
        if time >= newest:
            entities.before[slot] = newest
            entities.newest[slot] = time
            entities.newest_row[slot] = places[i]
            entities.held_up[slot] = 0
        elif time < newest - skew:
            if counts.late[0] == 0:
                counts.first_late[0] = places[i]
                counts.first_late_by[0] = newest - time
            counts.late[0] += 1
            if time >= entities.before[slot] - skew:
                entities.before[slot] = max(entities.before[slot], time)
                entities.held_up[slot] += 1
                if entities.held_up[slot] > counts.held_up[0]:
                    counts.held_up[0] = entities.held_up[slot]
                    counts.held_up_by[0] = entities.newest_row[slot]
                    counts.held_up_time[0] = newest
