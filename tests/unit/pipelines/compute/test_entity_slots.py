"""The table of entities against a dict."""

from __future__ import annotations

import sys

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pipelines.compute.entity_slots import EntitySlots, Touched
from registry.formats.entity_name import SEPARATOR, entity_id

parts = st.text(st.characters(min_codepoint=32, exclude_categories=["Cs"]), min_size=1, max_size=9)
names = st.sampled_from(["A", "B", "AAPL", "\u00e9", "CC"]) | parts


def touch(slots: EntitySlots, entities: list[str], run: int, capacity: int) -> Touched:
    """A run with a tick of each of `entities`, which have the same number of key fields."""
    data, keys = bytearray(b"other bytes"), []
    for entity in entities:
        spans = []
        for part in entity.split(SEPARATOR):
            spans.append((len(data), len(data) + len(part.encode())))
            data += part.encode()
        keys.append(spans)
    fields = 1 + entities[0].count(SEPARATOR) if entities else 1
    columns = np.array(keys, np.int64).reshape(len(entities), fields, 2)
    return slots.touch(np.frombuffer(data, np.uint8).copy(), columns, run, capacity)


class Slots(RuleBasedStateMachine):
    """Any order of touching and giving up, below and above the capacity."""

    def __init__(self) -> None:
        super().__init__()
        self.slots = EntitySlots()
        self.known: dict[str, int] = {}
        self.needed: set[str] = set()
        """By the run before."""
        self.run = 0

    @rule(entities=st.lists(names), capacity=st.sampled_from([0, 3, 10, 10_000]))
    def touch(self, entities: list[str], capacity: int) -> None:
        before, needed = len(self.known), self.needed | set(entities)
        self.run += 1
        touched = touch(self.slots, entities, self.run, capacity)
        new = set(self.slots.names(touched.taken))
        self.forget_what_is_gone(new)
        assert new == set(entities) - self.known.keys()
        for name, slot in zip(entities, touched.slot.tolist(), strict=True):
            assert self.known.setdefault(name, slot) == slot
        assert list(self.slots.names(touched.distinct)) == list(dict.fromkeys(entities))
        assert touched.distinct[touched.place].tolist() == touched.slot.tolist()
        assert len(self.slots) <= (max(capacity, len(needed), 1) if new else before)
        self.needed = set(entities)

    @rule(first=st.integers(0, 5), many=st.integers(1, 6000))
    def touch_many(self, first: int, many: int) -> None:
        """Past the sizes at which the table and the columns are built again."""
        self.touch([f"{first}-{number}" for number in range(many)], sys.maxsize)

    @rule()
    def give_up_all(self) -> None:
        self.slots.give_up_all()
        self.known.clear()
        self.needed.clear()

    def forget_what_is_gone(self, new: set[str]) -> None:
        """What the run before did not need may have lost its slot; nothing else may."""
        slots = np.array(list(self.known.values()), np.int32)
        holders = self.slots.names(slots)
        still = self.taken()
        for holder, (name, slot) in zip(holders, list(self.known.items()), strict=True):
            if slot not in still or holder != name or name in new:
                assert name not in self.needed
                del self.known[name]

    def taken(self) -> set[int]:
        return set(self.slots.taken().tolist())

    @invariant()
    def is_the_dict(self) -> None:
        assert len(self.slots) == len(self.known)
        assert self.taken() == set(self.known.values())
        slots = np.array(list(self.known.values()), np.int32)
        assert list(self.slots.names(slots)) == list(self.known)


TestSlots = Slots.TestCase

pairs = st.lists(st.tuples(parts, parts), max_size=20)


@given(pairs, pairs)
def test_key_fields_are_not_confused(
    first: list[tuple[str, str]], second: list[tuple[str, str]]
) -> None:
    """("AB", "C") is not ("A", "BC")."""
    slots, known = EntitySlots(), dict[str, int]()
    for run, keys in enumerate((first, second), 1):
        entities = [entity_id(key) for key in keys]
        touched = touch(slots, entities, run, sys.maxsize)
        for entity, slot in zip(entities, touched.slot.tolist(), strict=True):
            assert known.setdefault(entity, slot) == slot
    assert len(slots) == len(known) == len(set(known.values()))
