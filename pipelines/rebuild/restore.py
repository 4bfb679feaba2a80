"""Putting entities back into Redis without disturbing who works there.

An entity is written if nothing is stored of it or what is stored is what it was earlier, and only
on top of exactly that: whoever else writes it meanwhile wins, and is looked at again.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.compute.entity_state import EntityState
from pipelines.errors import StateConflict
from pipelines.stores.redis.online_sink import OnlineSink
from pipelines.stores.redis.state_bytes import Restored
from registry.definitions import Source

CONFLICTS = 20
"""One is settled by looking again. This many in a row are no coincidence."""


def restore(sink: OnlineSink, source: Source, restored: Sequence[Restored]) -> int:
    """Store entities that are not stored, or as they were earlier; returns how many.

    What is stored and newer, or of another home in the same topic, stays.
    """
    written, waiting = 0, list(restored)
    for _ in range(CONFLICTS):
        if not waiting:
            return written
        # the newest tick of each; where a run begins is for stores that keep history
        stored = sink.load(source, [r.entity for r in waiting], 1, waiting[0].state.origin)
        older = [r for r in waiting if is_older(stored.get(r.entity), r.state)]
        refused = sink.put(source, older, stored)
        written += len(older) - len(refused)
        waiting = [r for r in older if r.entity in refused]
    raise StateConflict(len(waiting), source.topic, waiting[0].state.origin.partition)


def is_older(stored: EntityState | None, state: EntityState) -> bool:
    """Whether `stored` is what an entity was before it came to `state`.

    Within one incarnation of its topic it has one home, and its origin only grows. From one to the
    next its event time, and within that its sequence, only grow.
    """
    if stored is None:
        return True
    if stored.origin.topic_id == state.origin.topic_id:
        return stored.origin.partition == state.origin.partition and stored.origin < state.origin
    return _at(stored) < _at(state)


def _at(state: EntityState) -> tuple[int, int]:
    return int(state.ticks["event_time"][-1]), state.sequence
