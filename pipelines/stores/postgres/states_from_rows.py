"""The window states of entities, read from their rows in Postgres: a row holds its tick."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import numpy as np

from pipelines.compute.entity_state import EntityState, fill_of, tick_dtype
from pipelines.stores.postgres.connection import Database
from pipelines.ticks.columns import NO_SEQ
from registry.definitions import Source
from registry.formats.origin import Origin
from registry.resources import sql

LOAD = sql(__package__, "load_states")

ENTITIES_A_STATEMENT = 100
"""Entities that one statement loads. It must be short, and may have to skip all rows that a replay
has stored beyond the offset."""


def load_states(
    database: Database,
    source: Source,
    entities: Sequence[str],
    depth: int,
    before: Origin,
    since: int = 0,
) -> dict[str, EntityState]:
    """The states that those of `entities` with rows had when a partition was at `before`.

    At most `depth` ticks each, of all row schemas: another worker may write one that this process
    does not know yet. Of that partition only rows from offset `since` on count. Raises
    `StoreUnavailable`.
    """
    wanted = {
        "source": source.name,
        "depth": depth,
        "topic_id": str(UUID(bytes=before.topic_id)),
        "partition": before.partition,
        "since": since,
        "before": before.offset,
    }
    by_entity: dict[str, list[Any]] = {}
    for start in range(0, len(entities), ENTITIES_A_STATEMENT):
        piece = list(entities[start : start + ENTITIES_A_STATEMENT])
        with database.transaction() as cursor:
            cursor.execute(LOAD, {**wanted, "entities": piece})
            for entity, *row in cursor.fetchall():
                by_entity.setdefault(entity, []).append(row)
    dtype = tick_dtype(len(source.fields))
    return {entity: _state(newest, dtype) for entity, newest in by_entity.items()}


def _state(newest: Sequence[Sequence[Any]], dtype: np.dtype[np.void]) -> EntityState:
    """The state of an entity after its rows, which come newest first."""
    _, sequence, _, _, _, _, topic_id, partition, offset, index, status = newest[0]
    ticks = np.empty(len(newest), dtype)
    for i, (event_time, _, tick_time, seq, _, fields, *_) in enumerate(reversed(newest)):
        ticks[i] = (event_time, tick_time, NO_SEQ if seq is None else seq, tuple(fields))
    ops = np.array([row[4] for row in reversed(newest)])
    return EntityState(
        origin=Origin(UUID(topic_id).bytes, partition, offset, index),
        sequence=sequence,
        count=len(newest),
        fill=fill_of(ops, bytes(status)),
        ticks=ticks,
    )
