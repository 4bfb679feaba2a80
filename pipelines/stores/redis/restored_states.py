"""What a rebuild writes to Redis: entities as another store knows them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipelines.compute.entity_state import EntityState
from pipelines.stores.redis import scripts
from pipelines.stores.redis.client import answers
from pipelines.stores.redis.connection import WarmRedis
from pipelines.stores.redis.entity_write import EntityWrite, WriteCall, member_keys
from pipelines.stores.redis.states import load_states
from registry.definitions import Source
from registry.formats.origin import Origin
from registry.formats.redis_keys import (
    carried_key,
    chunk_field,
    restoring_key,
    schema_key,
    states_key,
    writer_key,
)
from registry.formats.row import HEADER
from registry.formats.state import (
    BLOCK,
    CHUNK_BLOCKS,
    CLOSED,
    IDENTITY,
    LAYOUT_VERSION,
    MOST_FILL,
    STATE_HEADER,
    tail_of,
)

RESTORING_MS = 5_000
"""Milliseconds for which hot is not believed after a piece of a rebuild began to be written; more
than that takes."""


@dataclass(frozen=True, slots=True)
class Restored:
    """An entity as another store knows it: its state, and its newest row (`formats.row`)."""

    entity: str
    state: EntityState
    row: bytes


class RestoredStates:
    """Puts states into Redis. Methods raise `StoreUnavailable`."""

    def __init__(self, redis: WarmRedis) -> None:
        self._redis = redis

    def stored(self, source: Source, entities: Sequence[str]) -> Mapping[str, EntityState]:
        """The states of those of `entities` that have one, with their newest tick."""
        return load_states(self._redis, source, entities, 1)

    def put(
        self, source: Source, restored: Sequence[Restored], stored: Mapping[str, EntityState]
    ) -> set[str]:
        """Put states on top of exactly what is `stored`, as `stored` gave it.

        Returns the entities that hold something else by now; nothing of theirs was written.
        """
        homes: dict[tuple[bytes, int], dict[str, Restored]] = defaultdict(dict)
        for one in restored:
            homes[one.state.origin.topic_id, one.state.origin.partition][one.entity] = one
        refused: set[str] = set()
        for home, by_entity in homes.items():
            for bucket, group in self._redis.groups(by_entity):
                with answers():  # before anything is written: a worker may be feeding hot
                    self._redis.connect().set(restoring_key(*home), b"", px=RESTORING_MS)
                self._note_older(home)
                script, keys = scripts.RESTORE, [writer_key(*home), schema_key(source.name)]
                schemas = [_schema_id(by_entity[entity].row) for entity in group]
                arguments = [max(schemas)]
                if self._redis.cluster:  # a worker compares every entity; the keys are elsewhere
                    script, keys, arguments = scripts.RESTORE_SLOT, [], []
                call = WriteCall(source.name, bucket, keys, arguments)
                for entity in group:
                    call.add(restored_write(by_entity[entity], stored.get(entity)))
                indexes = self._redis.run(script, call.keys, call.arguments)
                refused.update(group[index - 1] for index in indexes)
                self._note_older(home)
        return refused

    def _note_older(self, home: tuple[bytes, int]) -> None:
        """Rows of a partition may be in an older row schema from now on.

        Before they are written, as this process may be killed then; and after that, as another one
        may have found all in the newest one in between.
        """
        with answers():
            self._redis.connect().delete(carried_key(*home))

    def add_members(self, source: Source, entities: Sequence[str]) -> None:
        """Record entities as members of what is summed over them (the positions of a portfolio).

        Those that are stored as closed are none, and are taken out.
        """
        for bucket, group in self._redis.groups(entities):
            keys, arguments = [states_key(source.name, bucket)], list[str]()
            for entity in group:
                own, member = member_keys(source.name, entity)
                keys += own
                arguments += (entity, member)
            self._redis.run(scripts.MEMBERS, keys, arguments)


def restored_write(restored: Restored, below: EntityState | None) -> EntityWrite:
    """What to write to replace the state `below` by the restored one."""
    state, entity, ticks = restored.state, restored.entity, restored.state.ticks
    tail = tail_of(state.count)
    kept = min(len(ticks) - tail, state.count - tail) // BLOCK * BLOCK
    first_block = (state.count - tail - kept) // BLOCK
    chunks, chunk_ticks = [], CHUNK_BLOCKS * BLOCK
    before_tail = ticks[len(ticks) - tail - kept : len(ticks) - tail]
    for begin in range(0, kept, chunk_ticks):
        chunk = before_tail[begin : begin + chunk_ticks]
        field = chunk_field(entity, first_block + (begin + len(chunk)) // BLOCK)
        chunks.append((field, chunk.tobytes()))
    written = {field for field, _ in chunks}
    return EntityWrite(
        entity=entity,
        expected=b"" if below is None else identity(below.origin, below.count),
        row=restored.row,
        state=packed_header(state, first_block) + ticks[len(ticks) - tail :].tobytes(),
        chunks=chunks,
        dropped=[field for field in _chunk_fields(entity, below) if field not in written],
        closed=state.event_time.to_bytes(8, "big", signed=True) if state.fill == CLOSED else b"",
    )


def _chunk_fields(entity: str, below: EntityState | None) -> list[str]:
    """The fields that the chunks of a state may have."""
    if below is None:
        return []
    blocks = (below.count - tail_of(below.count)) // BLOCK
    return [chunk_field(entity, block) for block in range(below.first_block + 1, blocks + 1)]


def _schema_id(row: bytes) -> int:
    """The row schema of a packed row."""
    schema_id: int = HEADER.struct.unpack_from(row)[1]
    return schema_id


def identity(origin: Origin, count: int) -> bytes:
    """What a script recognises a state by (`registry.formats.state`)."""
    return IDENTITY.struct.pack(*_fields(origin), count)


def packed_header(state: EntityState, first_block: int) -> bytes:
    """The header of a state whose chunks begin with a block."""
    fields = state.ticks.dtype["fields"].shape[0]
    fill = min(state.fill, MOST_FILL)
    times = (state.count, state.sequence, state.event_time, fill)
    rest = (first_block, 0, fields, LAYOUT_VERSION, b"")
    return STATE_HEADER.struct.pack(*_fields(state.origin), *times, *rest)


def _fields(origin: Origin) -> tuple[bytes, int, int, int]:
    return (origin.topic_id, origin.partition, origin.offset, origin.index)
