"""Which slot an entity has: a hash table over the bytes of names, walked by compiled code.

A tick's key fields are looked up as they stand in the run's bytes; no text is made of them. The
table is open-addressed with linear probing: the first cell is `hash & mask`, then the next one. A
slot that is given up leaves a mark. When half of the cells hold slots and marks, the table is
rebuilt.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import Any, NamedTuple

import numba
import numpy as np

from pipelines.runtime.array_types import Bytes, Int32s, Int64s
from pipelines.runtime.machine_code import compiled, inlined
from pipelines.runtime.named_columns import numba_type
from registry.formats.redis_keys import SEPARATOR, entity_id

EMPTY, GIVEN_UP = -1, -2
"""Cells without a slot; `EMPTY` also stands for the slot of an entity that has none."""

FIRST_CELLS = 4096
FNV_PRIME = np.uint64(0x100000001B3)
SEPARATOR_BYTE = np.uint64(ord(SEPARATOR))


class SlotTable(NamedTuple):
    """The hash table. A name is the bytes of `texts` from `spans[slot, 0]` up to `spans[slot, 1]`.

    `seed` begins every hash: names that collide cannot be made up without it.
    """

    seed: np.uint64
    cells: Int32s
    """By cell: a slot, `EMPTY` or `GIVEN_UP`. Their number is a power of two."""
    texts: Bytes
    hashes: Any
    """By slot, uint64."""
    spans: Int64s
    """By slot."""

    @classmethod
    def empty(cls, seed: np.uint64, cells: int, slots: int) -> SlotTable:
        """A table without entities, with room for `slots` of them."""
        return cls(
            seed=seed,
            cells=np.full(cells, EMPTY, np.int32),
            texts=np.empty(16 * cells, np.uint8),
            hashes=np.zeros(slots, np.uint64),
            spans=np.zeros((slots, 2), np.int64),
        )


TABLE = numba_type(SlotTable.empty(np.uint64(0), 1, 0))


class EntitySlots:
    """Slots 0, 1, … of entities; a slot that is given up is taken by the next new entity."""

    def __init__(self) -> None:
        self._seed = np.uint64(secrets.randbits(64))
        self._slots: dict[str, int] = {}
        self._free: list[int] = []
        self.names: list[str] = []
        """By slot; those of slots that were given up mean nothing."""
        self._clear()

    def __len__(self) -> int:
        return len(self._slots)

    def find(self, data: Bytes, keys: Int64s) -> Int32s:
        """The slots of n entities, `EMPTY` for one that has none.

        `keys` (n, key fields, 2) are where the values of the key fields begin and end in `data`.
        """
        slots = np.empty(len(keys), np.int32)
        _find(data, keys, self._table, slots)
        return slots

    def slots(self) -> Int32s:
        """The slots that are taken."""
        return np.fromiter(self._slots.values(), np.int32, len(self._slots))

    def take(self, entity: str) -> int:
        """The slot of an entity, a new one if it has none."""
        slot = self._slots.get(entity)
        if slot is not None:
            return slot
        if self._free:
            slot = self._free.pop()
            self.names[slot] = entity
        else:
            slot = len(self.names)
            self.names.append(entity)
        self._slots[entity] = slot
        self._insert(slot, entity.encode())
        return slot

    def give_up(self, entities: Iterable[str]) -> None:
        """Free the slots of those of `entities` that have one."""
        for entity in entities:
            slot = self._slots.pop(entity, None)
            if slot is not None:
                self._free.append(slot)
                _mark(self._table, slot)

    def give_up_all(self) -> None:
        self._slots.clear()
        self._free = list(range(len(self.names)))
        self._clear()

    def _clear(self, cells: int = FIRST_CELLS) -> None:
        self._table = SlotTable.empty(self._seed, cells, max(cells // 2, len(self.names)))
        self._used = 0  # cells that are not empty
        self._text_end = 0

    def _insert(self, slot: int, name: bytes) -> None:
        table = self._table
        if 2 * self._used >= len(table.cells):
            self._rebuild()
            return
        if slot >= len(table.hashes):
            table = table._replace(hashes=_doubled(table.hashes), spans=_doubled(table.spans))
        end = self._text_end + len(name)
        while end > len(table.texts):
            table = table._replace(texts=_doubled(table.texts))
        table.texts[self._text_end : end] = np.frombuffer(name, np.uint8)
        table.spans[slot] = self._text_end, end
        _put(table, slot)
        self._table = table
        self._text_end = end
        self._used += 1

    def _rebuild(self) -> None:
        """Build the table again, with room, without marks and without old texts."""
        taken = dict(self._slots)
        self._clear(max(FIRST_CELLS, 1 << (4 * len(taken)).bit_length()))
        for entity, slot in taken.items():
            self._insert(slot, entity.encode())


def _doubled(column: Any) -> Any:
    return np.concatenate([column, np.zeros_like(column)])


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


@compiled(numba.void(TABLE, numba.int64), nogil=False)
def _put(table, slot):  # type: ignore[no-untyped-def]
    """Enter a slot that is not in the table, and the hash of its name."""
    state = _hash(table.texts, table.spans[slot, 0], table.spans[slot, 1], table.seed)
    table.hashes[slot] = state
    mask = table.cells.shape[0] - 1
    cell = _first_cell(state, mask)
    while table.cells[cell] >= 0:
        cell = (cell + 1) & mask
    table.cells[cell] = slot


@compiled(numba.void(TABLE, numba.int64), nogil=False)
def _mark(table, slot):  # type: ignore[no-untyped-def]
    """Leave a mark in the cell of a slot that is given up."""
    mask = table.cells.shape[0] - 1
    cell = _first_cell(table.hashes[slot], mask)
    while table.cells[cell] != slot:
        cell = (cell + 1) & mask
    table.cells[cell] = GIVEN_UP


@inlined
def _is_named(data, keys, i, table, slot):  # type: ignore[no-untyped-def]
    """Whether the key fields of entity `i`, joined, are the name of a slot."""
    texts, position, end = table.texts, table.spans[slot, 0], table.spans[slot, 1]
    for field in range(keys.shape[1]):
        if field:
            if position >= end or texts[position] != SEPARATOR_BYTE:
                return False
            position += 1
        first = keys[i, field, 0]
        size = keys[i, field, 1] - first
        if position + size > end:
            return False
        for k in range(size):
            if texts[position + k] != data[first + k]:
                return False
        position += size
    return position == end


@compiled(numba.void(numba.uint8[::1], numba.int64[:, :, ::1], TABLE, numba.int32[::1]))
def _find(data, keys, table, slots):  # type: ignore[no-untyped-def]
    mask = table.cells.shape[0] - 1
    for i in range(keys.shape[0]):
        state = _hash(data, keys[i, 0, 0], keys[i, 0, 1], table.seed)
        for field in range(1, keys.shape[1]):
            state = (state ^ SEPARATOR_BYTE) * FNV_PRIME
            state = _hash(data, keys[i, field, 0], keys[i, field, 1], state)
        cell = _first_cell(state, mask)
        slots[i] = EMPTY
        while table.cells[cell] != EMPTY:
            slot = table.cells[cell]
            if slot >= 0 and table.hashes[slot] == state and _is_named(data, keys, i, table, slot):
                slots[i] = slot
                break
            cell = (cell + 1) & mask


def name_of(data: Bytes, keys: Int64s) -> str:
    """The name of the entity whose key fields are at `keys` (key fields, 2) in `data`."""
    return entity_id([data[start:end].tobytes().decode() for start, end in keys.tolist()])
