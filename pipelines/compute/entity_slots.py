"""Which slot an entity has: a hash table over the bytes of names, walked by compiled code.

A tick's key fields are looked up where they are in the run's bytes; no text is made of them. The
table is open-addressed with linear probing: `place = hash & mask`, then the next one. A slot that
is given up leaves a mark; half full of slots and marks, the table is made anew.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import Any

import numpy as np

from pipelines.runtime.array_types import Bytes, Int32s, Int64s
from pipelines.runtime.machine_code import compiled
from registry.formats.redis_keys import SEPARATOR, entity_id

EMPTY, GIVEN_UP = -1, -2
"""In the table, where there is no slot; `EMPTY` also stands for an entity without one."""

FIRST_PLACES = 4096
FNV_PRIME = np.uint64(0x100000001B3)
SEPARATOR_BYTE = np.uint64(ord(SEPARATOR))


class EntitySlots:
    """Slots 0, 1, … of entities; one that is given up goes to the next entity that comes."""

    def __init__(self) -> None:
        # a start that nobody knows: names that collide cannot be made up
        self._start = np.uint64(secrets.randbits(64))
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
        _find(data, keys, self._start, self._table, self._hashes, self._texts, self._spans, slots)
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
                _mark(self._table, self._hashes[slot], slot)

    def give_up_all(self) -> None:
        self._slots.clear()
        self._free = list(range(len(self.names)))
        self._clear()

    def _clear(self, places: int = FIRST_PLACES) -> None:
        self._table = np.full(places, EMPTY, np.int32)
        self._used = 0  # places of the table that are not empty
        self._texts = np.empty(16 * places, np.uint8)
        self._text_end = 0
        # by slot
        self._hashes = np.zeros(max(places // 2, len(self.names)), np.uint64)
        self._spans = np.zeros((len(self._hashes), 2), np.int64)

    def _insert(self, slot: int, name: bytes) -> None:
        if 2 * self._used >= len(self._table):
            self._renew()
            return
        if slot >= len(self._hashes):
            self._hashes = np.concatenate([self._hashes, np.zeros_like(self._hashes)])
            self._spans = np.concatenate([self._spans, np.zeros_like(self._spans)])
        end = self._text_end + len(name)
        while end > len(self._texts):
            self._texts = np.concatenate([self._texts, np.empty_like(self._texts)])
        self._texts[self._text_end : end] = np.frombuffer(name, np.uint8)
        self._spans[slot] = self._text_end, end
        self._hashes[slot] = _put(self._table, slot, self._texts, self._text_end, end, self._start)
        self._text_end = end
        self._used += 1

    def _renew(self) -> None:
        """Make the table anew, with room, without marks and without old texts."""
        taken = dict(self._slots)
        self._clear(max(FIRST_PLACES, 1 << (4 * len(taken)).bit_length()))
        for entity, slot in taken.items():
            self._insert(slot, entity.encode())


@compiled()
def _hash(data, start, end, state):  # type: ignore[no-untyped-def]
    """FNV-1a of bytes, from a state on."""
    for place in range(start, end):
        state = (state ^ np.uint64(data[place])) * FNV_PRIME
    return state


@compiled()
def _home(state, mask):  # type: ignore[no-untyped-def]
    """Where looking for a hash begins: its upper half is mixed best."""
    return np.int64((state ^ (state >> np.uint64(32))) & np.uint64(mask))


@compiled("uint64(int32[::1], int64, uint8[::1], int64, int64, uint64)")
def _put(table, slot, texts, start, end, state):  # type: ignore[no-untyped-def]
    """Enter a slot that is not there; returns the hash of its name."""
    state = _hash(texts, start, end, state)
    mask = table.shape[0] - 1
    place = _home(state, mask)
    while table[place] >= 0:
        place = (place + 1) & mask
    table[place] = slot
    return state


@compiled("void(int32[::1], uint64, int64)")
def _mark(table, state, slot):  # type: ignore[no-untyped-def]
    """Leave a mark in the place of a slot that is given up."""
    mask = table.shape[0] - 1
    place = _home(state, mask)
    while table[place] != slot:
        place = (place + 1) & mask
    table[place] = GIVEN_UP


@compiled()
def _is_named(data, keys, i, texts, start, end):  # type: ignore[no-untyped-def]
    """Whether the key fields of entity `i`, joined, are the text from `start` to `end`."""
    at = start
    for field in range(keys.shape[1]):
        if field:
            if at >= end or texts[at] != SEPARATOR_BYTE:
                return False
            at += 1
        first = keys[i, field, 0]
        size = keys[i, field, 1] - first
        if at + size > end:
            return False
        for place in range(size):
            if texts[at + place] != data[first + place]:
                return False
        at += size
    return at == end


@compiled(
    "void(uint8[::1], int64[:,:,::1], uint64, int32[::1], uint64[::1], uint8[::1], int64[:,::1],"
    " int32[::1])"
)
def _find(data, keys, start, table, hashes, texts, spans, slots):  # type: ignore[no-untyped-def]
    mask = table.shape[0] - 1
    for i in range(keys.shape[0]):
        state = _hash(data, keys[i, 0, 0], keys[i, 0, 1], start)
        for field in range(1, keys.shape[1]):
            state = (state ^ SEPARATOR_BYTE) * FNV_PRIME
            state = _hash(data, keys[i, field, 0], keys[i, field, 1], state)
        place = _home(state, mask)
        slots[i] = EMPTY
        while table[place] != EMPTY:
            slot = table[place]
            if (
                slot >= 0
                and hashes[slot] == state
                and _is_named(data, keys, i, texts, spans[slot, 0], spans[slot, 1])
            ):
                slots[i] = slot
                break
            place = (place + 1) & mask


def name_of(data: Any, keys: Int64s) -> str:
    """The name of the entity whose key fields are at `keys` (key fields, 2) in `data`."""
    return entity_id([data[start:end].tobytes().decode() for start, end in keys.tolist()])
