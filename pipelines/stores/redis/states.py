"""The window states in Redis, read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipelines.compute.entity_state import EntityState, tick_dtype
from pipelines.errors import StateOfOtherFields
from pipelines.stores.redis import scripts
from pipelines.stores.redis.connection import WarmRedis
from registry.definitions import Source
from registry.formats.origin import Origin
from registry.formats.redis_keys import state_key
from registry.formats.state import STATE_HEADER


def load_states(
    redis: WarmRedis, source: Source, entities: Sequence[str], depth: int
) -> dict[str, EntityState]:
    """The states of those of `entities` that have one, with their `depth` newest ticks.

    Raises `StoreUnavailable` and `StateOfOtherFields`.
    """
    tick_bytes = tick_dtype(len(source.fields)).itemsize
    states = {}
    for group in redis.groups(entities):
        keys = [state_key(source.name, entity) for entity in group]
        packed = redis.run(scripts.LOAD, keys, [tick_bytes, depth])
        for entity, state in zip(group, packed, strict=True):
            if state:
                states[entity] = _unpacked(state, source, entity, depth)
    return states


def _unpacked(packed: bytes, source: Source, entity: str, depth: int) -> EntityState:
    """The state of a header and the `depth` newest ticks, oldest first, as `load.lua` gives them.

    Windows see no further back than the ring: when it was kept shorter until now, those that need
    more than it holds fill up first.
    """
    dtype = tick_dtype(len(source.fields))
    *origin, sequence, count, fill, _, _, tick_bytes, _ = STATE_HEADER.struct.unpack_from(packed)
    if tick_bytes != dtype.itemsize:
        raise StateOfOtherFields(source.name, entity, tick_bytes, dtype.itemsize)
    ticks = np.frombuffer(packed, dtype, offset=STATE_HEADER.size)
    return EntityState(
        origin=Origin(*origin),
        sequence=sequence,
        count=count,
        fill=fill if len(ticks) == depth else min(fill, len(ticks)),
        ticks=ticks,
    )
