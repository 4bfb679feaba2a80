"""Putting entities back into Redis while workers may write them.

An entity is written if nothing of it is stored, or if an earlier state of it is stored, and only on
top of exactly that: a process that writes the entity meanwhile wins, and its state is compared
again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pipelines.compute.entity_state import EntityState
from pipelines.errors import StateConflict
from pipelines.stores.redis.restored_states import Restored, RestoredStates
from registry.definitions import Source

CONFLICTS = 20
"""Comparisons of an entity. A second one settles a conflict; so many are no coincidence."""


class Compared(NamedTuple):
    """What became of entities: how many were `written`, and which are at home `elsewhere`.

    These have one home in Redis and another in Postgres: what is served of them, and what is
    stored, stem from ticks of different partitions.
    """

    written: int
    elsewhere: Sequence[str]


def restore(target: RestoredStates, source: Source, restored: Sequence[Restored]) -> Compared:
    """Store the entities that are not stored, or in an earlier state.

    A stored state that is newer, or of another home in the same topic, stays. Raises
    `StateConflict` and `StoreUnavailable`.
    """
    written, waiting, elsewhere = 0, list(restored), list[str]()
    for _ in range(CONFLICTS):
        if not waiting:
            return Compared(written, elsewhere)
        stored = target.stored(source, [r.entity for r in waiting])
        elsewhere += [r.entity for r in waiting if _is_elsewhere(stored.get(r.entity), r.state)]
        older = [r for r in waiting if is_older(stored.get(r.entity), r.state)]
        refused = target.put(source, older, stored)
        written += len(older) - len(refused)
        waiting = [r for r in older if r.entity in refused]
    raise StateConflict(len(waiting), source.topic, waiting[0].state.origin.partition)


def is_older(stored: EntityState | None, state: EntityState) -> bool:
    """Whether `stored` is a state that an entity had before `state`, or none.

    Within one incarnation of its topic an entity has one home, and its origin only grows. From one
    incarnation to the next its event time grows, and within one event time its sequence.
    """
    if stored is None:
        return True
    if stored.origin.topic_id == state.origin.topic_id:
        return stored.origin.partition == state.origin.partition and stored.origin < state.origin
    return _time_of(stored) < _time_of(state)


def _is_elsewhere(stored: EntityState | None, state: EntityState) -> bool:
    """Whether two states have different homes in one incarnation of their topic."""
    return (
        stored is not None
        and stored.origin.topic_id == state.origin.topic_id
        and stored.origin.partition != state.origin.partition
    )


def _time_of(state: EntityState) -> tuple[int, int]:
    """The event time and sequence of the newest tick."""
    return state.event_time, state.sequence
