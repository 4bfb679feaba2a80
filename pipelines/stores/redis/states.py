"""The window states in Redis, read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipelines.compute.entity_state import EntityState, LoadedStates, StateColumns, tick_dtype
from pipelines.errors import StateDamaged, StateOfOtherFields
from pipelines.stores.redis import scripts
from pipelines.stores.redis.connection import WarmRedis
from registry.definitions import Source
from registry.formats.origin import Origin
from registry.formats.redis_keys import state_key
from registry.formats.state import STATE_HEADER


def load_columns(
    redis: WarmRedis, source: Source, entities: Sequence[str], depth: int
) -> LoadedStates:
    """The states of those of `entities` that have one, with their `depth` newest ticks.

    Raises `StoreUnavailable`, `StateOfOtherFields` and `StateDamaged`.
    """
    size, dtype = STATE_HEADER.size, tick_dtype(len(source.fields))
    packed = _packed(redis, source, entities, depth)
    which = np.flatnonzero([bool(state) for state in packed])
    stored = [packed[i] for i in which.tolist()]
    headers = np.frombuffer(b"".join([state[:size] for state in stored]), STATE_HEADER.dtype)
    others = np.flatnonzero(headers["tick_bytes"] != dtype.itemsize)
    if len(others):
        found = int(headers["tick_bytes"][others[0]])
        raise _other_fields(source, entities[which[others[0]]], found)
    held = np.minimum(headers["held"].astype(np.int64), depth)
    bytes_of_ticks = np.array([len(state) - size for state in stored], np.int64)
    damaged = np.flatnonzero((bytes_of_ticks != held * dtype.itemsize) | (held < 1))
    if len(damaged):
        found, declared = bytes_of_ticks[damaged[0]], held[damaged[0]] * dtype.itemsize
        raise StateDamaged(entities[which[damaged[0]]], int(found), int(declared))
    ticks = np.frombuffer(b"".join([state[size:] for state in stored]), dtype)
    ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(held)])

    def column(name: str, kind: Any = np.int64) -> Any:
        return headers[name].astype(kind)

    return LoadedStates(
        which.astype(np.int64),
        headers["topic_id"],
        StateColumns(
            partition=column("partition", np.int32),
            offset=column("offset"),
            message_index=column("index", np.int32),
            sequence=column("sequence"),
            event_time=ticks["event_time"][ends[1:] - 1],
            accepted=column("count"),
            fill=_seen(column("fill"), held, depth),
            ends=ends,
            tick_time=ticks["tick_time"].copy(),
            seq=ticks["seq"].copy(),
            fields=ticks["fields"].copy(),
        ),
    )


def load_states(
    redis: WarmRedis, source: Source, entities: Sequence[str], depth: int
) -> dict[str, EntityState]:
    """The same, entity by entity."""
    packed = _packed(redis, source, entities, depth)
    return {
        entity: _unpacked(state, source, entity, depth)
        for entity, state in zip(entities, packed, strict=True)
        if state
    }


def _packed(
    redis: WarmRedis, source: Source, entities: Sequence[str], depth: int
) -> Sequence[bytes]:
    """What `load.lua` gives of each entity, b"" for one without a state."""
    tick_bytes = tick_dtype(len(source.fields)).itemsize
    packed: dict[str, bytes] = {}
    for group in redis.groups(entities):
        keys = [state_key(source.name, entity) for entity in group]
        states = redis.run(scripts.LOAD, keys, [tick_bytes, depth])
        packed.update(zip(group, states, strict=True))
    return [packed[entity] for entity in entities]


def _unpacked(packed: bytes, source: Source, entity: str, depth: int) -> EntityState:
    """The state of a header and its newest ticks, oldest first, as `load.lua` gives them."""
    dtype = tick_dtype(len(source.fields))
    *origin, sequence, count, fill, _, _, tick_bytes, _ = STATE_HEADER.struct.unpack_from(packed)
    if tick_bytes != dtype.itemsize:
        raise _other_fields(source, entity, tick_bytes)
    ticks = np.frombuffer(packed, dtype, offset=STATE_HEADER.size)
    return EntityState(
        origin=Origin(*origin),
        sequence=sequence,
        count=count,
        fill=int(_seen(fill, len(ticks), depth)),
        ticks=ticks,
    )


def _seen(fill: Any, held: Any, depth: int) -> Any:
    """How many ticks windows may see, of states of which so many ticks were read.

    They see no further back than the ring: when it was kept shorter until now, those that need more
    than it holds fill up first.
    """
    return np.where(held == depth, fill, np.minimum(fill, held))


def _other_fields(source: Source, entity: str, tick_bytes: int) -> StateOfOtherFields:
    needed = tick_dtype(len(source.fields)).itemsize
    found = f"the state of {entity!r} in Redis has {tick_bytes} bytes a tick"
    return StateOfOtherFields(source.name, f"{found}, and {source.name} needs {needed}")
