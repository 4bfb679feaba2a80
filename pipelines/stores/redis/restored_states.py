"""What a rebuild writes to Redis: entities as another store knows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipelines.compute.entity_state import EntityState
from pipelines.stores.redis import scripts
from pipelines.stores.redis.connection import WarmRedis
from pipelines.stores.redis.entity_write import (
    EntityWrite,
    WriteCall,
    identity,
    keys_of,
    ring_pieces,
)
from pipelines.stores.redis.states import load_states
from registry.definitions import Source
from registry.formats.state import MARK, STATE_HEADER


@dataclass(frozen=True, slots=True)
class Restored:
    """An entity as another store knows it: its state, and its newest row (`formats.row`)."""

    entity: str
    state: EntityState
    row: bytes


class RestoredStates:
    """Puts states into Redis, which keeps `history` ticks of each entity.

    Methods raise `StoreUnavailable`.
    """

    def __init__(self, redis: WarmRedis, history: int) -> None:
        self._redis = redis
        self._history = history

    def stored(self, source: Source, entities: Sequence[str]) -> Mapping[str, EntityState]:
        """The states of those of `entities` that have one, with their newest tick."""
        return load_states(self._redis, source, entities, 1)

    def put(
        self, source: Source, restored: Sequence[Restored], stored: Mapping[str, EntityState]
    ) -> set[str]:
        """Put states on top of exactly what is `stored`, as `stored` gave it.

        Returns the entities that hold something else by now; nothing of theirs was written.
        """
        by_entity = {r.entity: r for r in restored}
        refused: set[str] = set()
        for group in self._redis.groups(list(by_entity)):
            call = WriteCall()
            for entity in group:
                write = restored_write(by_entity[entity], stored.get(entity), self._history)
                call.add(source.name, write)
            indexes = self._redis.run(scripts.STORE, call.keys, call.arguments)
            refused.update(group[index - 1] for index in indexes)
        return refused

    def add_members(self, source: Source, entities: Sequence[str]) -> None:
        """Record entities as members of what is summed over them (the positions of a portfolio).

        Those that are stored as closed are none; a store of an earlier build may have them.
        """
        for group in self._redis.groups(entities):
            keys: list[str] = []
            members = []
            for entity in group:
                own, member = keys_of(source.name, entity)
                keys += own
                members.append(member)
            self._redis.run(scripts.MEMBERS, keys, members)


def restored_write(restored: Restored, below: EntityState | None, history: int) -> EntityWrite:
    """What to write to replace the state `below` by the restored one."""
    state, origin = restored.state, restored.state.origin
    n, size = len(state.ticks), state.ticks.itemsize
    ticks = state.ticks.tobytes()
    return EntityWrite(
        entity=restored.entity,
        expected=b"" if below is None else identity(below.origin.pack(), below.count),
        header=STATE_HEADER.struct.pack(
            *(origin.topic_id, origin.partition, origin.offset, origin.index),
            *(state.sequence, state.count, state.fill),
            *(MARK, history, size, -n),  # below zero: the ring replaces what is stored
        ),
        row=restored.row,
        pieces=[
            (STATE_HEADER.size + slot * size, ticks[begin * size : end * size])
            for begin, end, slot in ring_pieces(state.count - n, n, history)
        ],
    )
