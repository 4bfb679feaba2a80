"""The table of entities against a dict."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pipelines.compute.entity_slots import EMPTY, EntitySlots, name_of
from registry.formats.redis_keys import entity_id

parts = st.text(st.characters(min_codepoint=32, exclude_categories=["Cs"]), min_size=1, max_size=9)
names = st.sampled_from(["A", "B", "AAPL", "é", "A\x1fB", "AA\x1fB", "A\x1fBB"]) | parts


def found(slots: EntitySlots, entity: str) -> int:
    """What the compiled look-up gives for an entity."""
    data, spans = bytearray(b"other bytes"), []
    for part in entity.split("\x1f"):
        spans.append((len(data), len(data) + len(part.encode())))
        data += part.encode()
    keys = np.array([spans], np.int64)
    assert name_of(np.frombuffer(data, np.uint8), keys[0]) == entity
    return int(slots.find(np.frombuffer(data, np.uint8), keys)[0])


class Slots(RuleBasedStateMachine):
    """Any order of taking and giving up."""

    def __init__(self) -> None:
        super().__init__()
        self.slots = EntitySlots()
        self.known: dict[str, int] = {}
        self.seen: set[str] = set()

    @rule(entity=names)
    def take(self, entity: str) -> None:
        slot = self.slots.take(entity)
        assert self.known.setdefault(entity, slot) == slot
        self.seen.add(entity)

    @rule(first=st.integers(0, 5), many=st.integers(1, 6000))
    def take_many(self, first: int, many: int) -> None:
        """Past the size at which the table is rebuilt."""
        for number in range(many):
            self.take(f"{first}-{number}")

    @rule(entities=st.lists(names))
    def give_up(self, entities: list[str]) -> None:
        self.slots.give_up(entities)
        for entity in entities:
            self.known.pop(entity, None)

    @rule()
    def give_up_all(self) -> None:
        self.slots.give_up_all()
        self.known.clear()

    @invariant()
    def is_the_dict(self) -> None:
        assert len(self.slots) == len(self.known)
        assert len(set(self.known.values())) == len(self.known)
        for entity in list(self.seen)[:50]:
            assert found(self.slots, entity) == self.known.get(entity, EMPTY)
            if entity in self.known:
                assert self.slots.names[self.known[entity]] == entity


TestSlots = Slots.TestCase


@given(st.lists(st.tuples(parts, parts), max_size=20), st.tuples(parts, parts))
def test_key_fields_are_not_confused(taken: list[tuple[str, str]], asked: tuple[str, str]) -> None:
    """("AB", "C") is not ("A", "BC")."""
    slots = EntitySlots()
    expected = {key: slots.take(entity_id(key)) for key in taken}
    assert found(slots, entity_id(asked)) == expected.get(asked, EMPTY)
