"""What live has of entities already: the newest event time of each, from Redis."""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.stores.redis.connection import WarmRedis
from pipelines.stores.redis.states import load_states
from registry.definitions import Source


def newest_times(redis: WarmRedis, source: Source, entities: Sequence[str]) -> dict[str, int]:
    """The newest event times of those of `entities` that have ticks, in nanoseconds.

    Raises `StoreUnavailable` and `StateOfOtherFields`.
    """
    states = load_states(redis, source, entities, 1)
    return {entity: state.event_time for entity, state in states.items()}
