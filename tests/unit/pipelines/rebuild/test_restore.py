"""Which stored states a rebuild replaces, and what it does with writes that are refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from pipelines.compute.entity_state import EntityState, tick_dtype
from pipelines.errors import StateConflict
from pipelines.rebuild.restore import CONFLICTS, is_older, restore
from pipelines.stores.redis.restored_states import Restored, RestoredStates
from registry.definitions import Source
from registry.formats.origin import Origin
from tests.support.shipped import SOURCE

OLD_TOPIC, TOPIC = bytes(15) + b"\2", bytes(15) + b"\1"


def state(
    offset: int, event_time: int, topic: bytes = TOPIC, partition: int = 0, sequence: int = 0
) -> EntityState:
    ticks = np.zeros(1, tick_dtype(len(SOURCE.fields)))
    origin = Origin(topic, partition, offset, 0)
    return EntityState(origin, sequence, event_time, 1, 1, ticks)


@pytest.mark.parametrize(
    ("stored", "older"),
    [
        (None, True),
        (state(8, 50), True),
        (state(9, 50), False),
        (state(10, 50), False),
        (state(8, 50, partition=1), False),
        (state(99, 49, OLD_TOPIC, partition=3), True),
        (state(99, 50, OLD_TOPIC), True),
        (state(99, 50, OLD_TOPIC, sequence=1), False),
        (state(0, 51, OLD_TOPIC), False),
    ],
    ids=[
        "nothing is stored",
        "an earlier tick",
        "the same tick",
        "a later tick",
        "another home",
        "an earlier incarnation",
        "an earlier tick of the same time in another incarnation",
        "the same time and sequence in another incarnation",
        "a later incarnation",
    ],
)
def test_an_earlier_state_is_older(stored: EntityState | None, older: bool) -> None:
    assert is_older(stored, state(9, 50, sequence=1)) == older


class Holding(RestoredStates):
    """Holds these states, and takes all others."""

    def __init__(self, states: Mapping[str, EntityState]) -> None:
        self.states = states

    def stored(self, source: Source, entities: Sequence[str]) -> Mapping[str, EntityState]:
        return self.states

    def put(
        self, source: Source, restored: Sequence[Restored], stored: Mapping[str, EntityState]
    ) -> set[str]:
        return set()


def test_entities_with_two_homes_in_one_topic_are_named() -> None:
    stored = {"A": state(9, 50, partition=1), "B": state(9, 50), "C": state(9, 50, OLD_TOPIC, 1)}
    restored = [Restored(name, state(9, 51), b"") for name in ("A", "B", "C", "D")]
    assert restore(Holding(stored), SOURCE, restored) == (2, ["A"])


class Refusing(RestoredStates):
    """Refuses an entity as often as it is told to, as when a worker writes it meanwhile."""

    def __init__(self, times: int) -> None:
        self.times = times
        self.put_states: list[list[str]] = []

    def stored(self, source: Source, entities: Sequence[str]) -> Mapping[str, EntityState]:
        return {}

    def put(
        self, source: Source, restored: Sequence[Restored], stored: Mapping[str, EntityState]
    ) -> set[str]:
        self.put_states.append([r.entity for r in restored])
        return {"B"} if len(self.put_states) <= self.times else set()


def test_what_is_refused_is_compared_and_written_again() -> None:
    target = Refusing(2)
    restored = [Restored(name, state(9, 50), b"") for name in ("A", "B")]
    assert restore(target, SOURCE, restored) == (2, [])
    assert target.put_states == [["A", "B"], ["B"], ["B"]]


def test_what_is_refused_for_ever_is_an_error() -> None:
    with pytest.raises(StateConflict):
        restore(Refusing(CONFLICTS), SOURCE, [Restored("B", state(9, 50), b"")])
