"""Which slot an entity has: a hash table over the bytes of names, walked by compiled code.

One pass over a run finds the slots of its entities, and gives those a slot that have none. A tick's
key fields are looked up as they stand in the run's bytes; no text is made of them. The table is
open-addressed with linear probing: the first cell is `hash & mask`, then the next one. A slot that
is given up leaves a mark. When half of the cells hold slots and marks, the table is rebuilt.
"""

from __future__ import annotations

import secrets
from typing import Any, NamedTuple

import numba
import numpy as np

from pipelines.compute.entity_names import EntityNames
from pipelines.runtime.array_types import Bytes, Int32s, Int64s
from pipelines.runtime.machine_code import compiled, inlined
from pipelines.runtime.named_columns import allocate, column, grown, numba_type, type_of
from registry.formats.entity_name import SEPARATOR

EMPTY, GIVEN_UP = -1, -2
"""Cells without a slot."""

FIRST_SLOTS = 1024
FIRST_CELLS = 4096
FNV_PRIME = np.uint64(0x100000001B3)
SEPARATOR_BYTE = np.uint8(ord(SEPARATOR))

FREE, TEXT_END, MARKS, HAND = range(4)
"""Of `SlotTable.counts`: free slots, the end of the names in `texts`, cells that are `GIVEN_UP`,
and the slot at which the next search for unused ones begins."""


class SlotColumns(NamedTuple):
    """What is known of each slot."""

    hash: Any = column(np.uint64)
    """Of the entity's name."""
    begin: Int64s = column(np.int64)
    """Where the name begins in `SlotTable.texts`."""
    end: Int64s = column(np.int64)
    last_run: Int64s = column(np.int64)
    """The run that last needed the entity, counted from 1; 0 for a slot that is free."""
    free: Int32s = column(np.int32)
    """A stack of free slots, `counts[FREE]` of them."""
    number: Int32s = column(np.int32)
    """During a pass the entity's number among those of the run, counted from 1; else 0."""


class SlotTable(NamedTuple):
    """The hash table, and the names. `seed` begins every hash.

    Names that collide cannot be made up without it.
    """

    seed: np.uint64
    cells: Int32s
    """By cell: a slot, `EMPTY` or `GIVEN_UP`. Their number is a power of two."""
    texts: Bytes
    counts: Int64s

    @classmethod
    def empty(cls, seed: np.uint64, cells: int, text_bytes: int, free: int) -> SlotTable:
        """A table without entities, with `free` slots."""
        return cls(
            seed=seed,
            cells=np.full(cells, EMPTY, np.int32),
            texts=np.empty(text_bytes, np.uint8),
            counts=np.array([free, 0, 0, 0], np.int64),
        )


class Touched(NamedTuple):
    """The entities of a run of n ticks."""

    slot: Int32s
    """Of each tick's entity."""
    place: Int32s
    """The index of each tick's entity in `distinct`."""
    distinct: Int32s
    """The slots of the entities, once each, in order of appearance."""
    taken: Int32s
    """Those of `distinct` that had no slot before."""


NOBODY = EntityNames.of([])


class EntitySlots:
    """Slots 0, 1, … of entities; a slot that is given up is taken by the next new entity.

    There are `size` slots, more when more entities are needed at once.
    """

    def __init__(self) -> None:
        self._seed = np.uint64(secrets.randbits(64))
        self._slots = allocate(SlotColumns, FIRST_SLOTS)
        self._free_all()

    def __len__(self) -> int:
        return self.size - int(self._table.counts[FREE])

    @property
    def size(self) -> int:
        """How many slots there are, taken or free."""
        return len(self._slots.last_run)

    def touch(self, data: Bytes, keys: Int64s, run: int, capacity: int) -> Touched:
        """The slots of the entities of a run's n ticks; those that have none get one.

        `keys` (n, key fields, 2) are where the values of the key fields begin and end in `data`.
        `run` counts the calls. More than `capacity` slots are taken only for what this run and the
        run before need; other entities lose theirs, an eighth at a time. One of them may be in the
        run, and is new then. An entity of the run before is never lost: that run may be stored
        after this one is restored.
        """
        n, limit = len(keys), max(capacity, 1)
        slot, place, distinct, taken = (np.empty(n, np.int32) for _ in range(4))
        columns = RunSlots(slot, place, distinct, taken)
        at = np.zeros(3, np.int64)  # ticks, distinct entities, and new ones so far
        while not _touch(data, keys, run, limit, self._table, self._slots, columns, at):
            name_bytes = int(np.diff(keys[at[0]]).sum()) + keys.shape[1]
            limit = self._make_room(run, limit, capacity, name_bytes)
        return Touched(slot, place, distinct[: at[1]], taken[: at[2]])

    def taken(self) -> Int32s:
        """The slots of all entities."""
        return np.flatnonzero(self._slots.last_run).astype(np.int32)

    def names(self, slots: Int32s) -> EntityNames:
        """The names of entities by their slots."""
        if not len(slots):
            return NOBODY
        ends = np.zeros(len(slots) + 1, np.int64)
        np.cumsum(self._slots.end[slots] - self._slots.begin[slots], out=ends[1:])
        data = np.empty(int(ends[-1]), np.uint8)
        _gather(self._table.texts, self._slots.begin[slots], ends, data)
        return EntityNames(data.tobytes(), ends)

    def give_up_all(self) -> None:
        """Free every slot."""
        self._slots.last_run[:] = 0
        self._free_all()

    def _free_all(self) -> None:
        self._slots.free[:] = np.arange(self.size - 1, -1, -1)
        cells = _cells_for(self.size)
        self._table = SlotTable.empty(self._seed, cells, 16 * cells, self.size)

    def _make_room(self, run: int, limit: int, capacity: int, name_bytes: int) -> int:
        """Make room for at least one more entity, with a name of `name_bytes` or less.

        Returns the new limit of slots that may be taken.
        """
        taken = len(self)
        if taken >= limit:
            wanted = taken - capacity + max(1, capacity // 8)
            _sweep(wanted, run, self._table, self._slots)
            if len(self) == taken:  # all of them are needed
                limit = 2 * taken
        if not self._table.counts[FREE]:
            self._grow()
        table = self._table
        is_crowded = 2 * (len(self) + table.counts[MARKS] + 1) >= len(table.cells)
        if is_crowded or table.counts[TEXT_END] + name_bytes > len(table.texts):
            self._rebuild(name_bytes)
        return limit

    def _grow(self) -> None:
        before, size = self.size, 2 * self.size
        columns = list(self._slots)
        del self._slots  # so that each array is freed as soon as it is copied
        self._slots = grown(SlotColumns, columns, size)
        self._slots.free[: size - before] = np.arange(size - 1, before - 1, -1)
        self._table.counts[FREE] = size - before

    def _rebuild(self, name_bytes: int) -> None:
        """Build the table again: with room for more, without marks and without old names."""
        old = self._table
        slots = self.taken()
        names = self.names(slots)
        cells, text_bytes = max(_cells_for(self.size), len(old.cells)), len(old.texts)
        while 2 * (len(names.data) + name_bytes) > text_bytes:
            text_bytes *= 2
        self._table = SlotTable.empty(self._seed, cells, text_bytes, int(old.counts[FREE]))
        self._table.counts[HAND] = old.counts[HAND]
        self._table.texts[: len(names.data)] = np.frombuffer(names.data, np.uint8)
        self._table.counts[TEXT_END] = len(names.data)
        self._slots.begin[slots], self._slots.end[slots] = names.ends[:-1], names.ends[1:]
        _enter(slots, self._table, self._slots)


def _cells_for(slots: int) -> int:
    """A power of two of which so many slots fill a quarter to a half."""
    return max(FIRST_CELLS, 1 << (2 * slots).bit_length())


class RunSlots(NamedTuple):
    """What a pass finds of a run's ticks and entities; see `Touched`."""

    slot: Int32s = column(np.int32)
    place: Int32s = column(np.int32)
    distinct: Int32s = column(np.int32)
    taken: Int32s = column(np.int32)


TABLE = numba_type(SlotTable.empty(np.uint64(0), 1, 1, 0))
SLOTS, RUN_SLOTS = type_of(SlotColumns), type_of(RunSlots)


@compiled()
def _hash(data, start, end, state):  # type: ignore[no-untyped-def]
    """FNV-1a of the bytes from `start` to `end`; `state` is the seed, or the hash before them."""
    for position in range(start, end):
        state = (state ^ np.uint64(data[position])) * FNV_PRIME
    return state


@compiled()
def _first_cell(state, mask):  # type: ignore[no-untyped-def]
    """The cell where the search for a hash begins: its upper half is mixed best."""
    return np.int64((state ^ (state >> np.uint64(32))) & np.uint64(mask))


@inlined
def _enter_one(slot, table, slots):  # type: ignore[no-untyped-def]
    """Put a slot that is not in the table into the first cell that is empty."""
    mask = table.cells.shape[0] - 1
    cell = _first_cell(slots.hash[slot], mask)
    while table.cells[cell] != EMPTY:
        cell = (cell + 1) & mask
    table.cells[cell] = slot


@compiled(numba.void(numba.int32[::1], TABLE, SLOTS))
def _enter(which, table, slots):  # type: ignore[no-untyped-def]
    """Put slots into a table that has none of them, and no marks."""
    for k in range(which.shape[0]):
        _enter_one(which[k], table, slots)


@inlined
def _give_up_one(slot, table, slots):  # type: ignore[no-untyped-def]
    mask = table.cells.shape[0] - 1
    cell = _first_cell(slots.hash[slot], mask)
    while table.cells[cell] != slot:
        cell = (cell + 1) & mask
    table.cells[cell] = GIVEN_UP
    table.counts[MARKS] += 1
    slots.last_run[slot] = 0
    slots.free[table.counts[FREE]] = slot
    table.counts[FREE] += 1


@compiled(numba.void(numba.int64, numba.int64, TABLE, SLOTS))
def _sweep(wanted, run, table, slots):  # type: ignore[no-untyped-def]
    """Free up to `wanted` slots whose entities neither `run` nor the run before has needed.

    First those that were not needed for eight runs, as a hand finds them that goes round, then any.
    """
    size = slots.last_run.shape[0]
    for unused_since in (run - 8, run - 1):
        for _ in range(size):
            if wanted <= 0:
                return
            slot = table.counts[HAND]
            table.counts[HAND] = (slot + 1) % size
            if 0 < slots.last_run[slot] < unused_since:
                _give_up_one(np.int32(slot), table, slots)
                wanted -= 1


@inlined
def _is_named(data, keys, i, table, begin, end):  # type: ignore[no-untyped-def]
    """Whether the name from `begin` to `end` is the one that entity `i` of `keys` has in `data`."""
    for field in range(keys.shape[1]):
        if field > 0:
            if begin >= end or table.texts[begin] != SEPARATOR_BYTE:
                return False
            begin += 1
        for position in range(keys[i, field, 0], keys[i, field, 1]):
            if begin >= end or table.texts[begin] != data[position]:
                return False
            begin += 1
    return begin == end


@inlined
def _find(data, keys, i, state, table, slots):  # type: ignore[no-untyped-def]
    """The slot of entity `i` of `keys`, whose name has the hash `state`; `EMPTY` if it has none."""
    mask = table.cells.shape[0] - 1
    cell = _first_cell(state, mask)
    while table.cells[cell] != EMPTY:
        slot = table.cells[cell]
        if (
            slot >= 0
            and slots.hash[slot] == state
            and _is_named(data, keys, i, table, slots.begin[slot], slots.end[slot])
        ):
            return slot
        cell = (cell + 1) & mask
    return np.int32(EMPTY)


@inlined
def _copy_name(data, keys, i, table):  # type: ignore[no-untyped-def]
    """Copy the name of entity `i` of `keys` behind the others; returns False without room."""
    end = table.counts[TEXT_END]
    size = keys.shape[1] - 1
    for field in range(keys.shape[1]):
        size += keys[i, field, 1] - keys[i, field, 0]
    if end + size > table.texts.shape[0]:
        return False
    for field in range(keys.shape[1]):
        if field > 0:
            table.texts[end] = SEPARATOR_BYTE
            end += 1
        for position in range(keys[i, field, 0], keys[i, field, 1]):
            table.texts[end] = data[position]
            end += 1
    table.counts[TEXT_END] = end
    return True


@inlined
def _take(data, keys, i, state, limit, table, slots):  # type: ignore[no-untyped-def]
    """Give entity `i` of `keys` a free slot; `EMPTY` where there is no room for it."""
    free, cells = table.counts[FREE], table.cells.shape[0]
    taken = slots.last_run.shape[0] - free
    if free == 0 or taken >= limit or 2 * (taken + table.counts[MARKS] + 1) >= cells:
        return np.int32(EMPTY)
    begin = table.counts[TEXT_END]
    if not _copy_name(data, keys, i, table):
        return np.int32(EMPTY)
    slot = slots.free[free - 1]
    table.counts[FREE] = free - 1
    slots.hash[slot] = state
    slots.begin[slot], slots.end[slot] = begin, table.counts[TEXT_END]
    _enter_one(slot, table, slots)
    return slot


PASS = (numba.uint8[::1], numba.int64[:, :, ::1], numba.int64, numba.int64)


@compiled(numba.boolean(*PASS, TABLE, SLOTS, RUN_SLOTS, numba.int64[::1]))
def _touch(data, keys, run, limit, table, slots, found, at):  # type: ignore[no-untyped-def]
    """Go on with a pass over a run, from tick `at[0]`; returns False where there is no more room.

    `at` counts the ticks, the distinct entities and the new ones so far.
    """
    for i in range(at[0], keys.shape[0]):
        state = _hash(data, keys[i, 0, 0], keys[i, 0, 1], table.seed)
        for field in range(1, keys.shape[1]):
            state = (state ^ np.uint64(SEPARATOR_BYTE)) * FNV_PRIME
            state = _hash(data, keys[i, field, 0], keys[i, field, 1], state)
        slot = _find(data, keys, i, state, table, slots)
        if slot == EMPTY:
            slot = _take(data, keys, i, state, limit, table, slots)
            if slot == EMPTY:
                at[0] = i
                return False
            found.taken[at[2]] = slot
            at[2] += 1
        if slots.number[slot] == 0:
            slots.last_run[slot] = run
            found.distinct[at[1]] = slot
            at[1] += 1
            slots.number[slot] = at[1]
        found.slot[i] = slot
        found.place[i] = slots.number[slot] - 1
    for k in range(at[1]):
        slots.number[found.distinct[k]] = 0
    at[0] = keys.shape[0]
    return True


@compiled(numba.void(numba.uint8[::1], numba.int64[::1], numba.int64[::1], numba.uint8[::1]))
def _gather(texts, begins, ends, out):  # type: ignore[no-untyped-def]
    """Copy texts that begin at `begins` one behind the other; number k ends at `ends[k + 1]`."""
    for k in range(begins.shape[0]):
        for position in range(ends[k + 1] - ends[k]):
            out[ends[k] + position] = texts[begins[k] + position]
