"""What versions that are not recorded yet would say of the newest ticks that are stored.

They are computed by the function that live calls, from the raw fields that Postgres keeps, and
stored nowhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

from pipelines.compute.entity_names import EntityNames
from pipelines.compute.run_computation import RunComputation
from pipelines.stores.postgres.connection import Database
from pipelines.stores.postgres.states_from_rows import load_states
from registry.definitions import Catalog, RowSchema
from registry.formats.entity_name import key_values
from registry.formats.origin import Origin
from registry.formats.row import ValueStatus
from registry.language.program import compile_program
from registry.resources import sql
from registry.source_rules import SourceRules

SOME_ENTITIES = sql(__package__, "some_entities")
LATEST = 2**62
"""An offset beyond all that is stored."""


class Previewed(NamedTuple):
    """The newest tick of an entity, and what versions have for values there, by `name@version`.

    `event_time` is in nanoseconds UTC; a value is None where its `statuses` says why.
    """

    entity: tuple[str, ...]
    event_time: int
    values: dict[str, float | None]
    statuses: dict[str, str]


def preview(
    url: str, catalog: Catalog, source: str, refs: Sequence[str], most: int
) -> list[Previewed]:
    """The values of versions of a recorded source for at most `most` entities.

    `catalog` has the versions, recorded or not. Raises `StoreUnavailable`.
    """
    schema = RowSchema(0, source, tuple(refs))
    program = compile_program(catalog, schema)
    computation = RunComputation(SourceRules.of(catalog, source), schema, program, capacity=most)
    database = Database(url, "tickwell plan")
    try:
        with database.transaction() as cursor:
            cursor.execute(SOME_ENTITIES, {"source": source, "most": most})
            entities = cursor.fetchall()
        found = []
        for entity, partition, topic_id in entities:
            before = Origin(UUID(topic_id).bytes, partition, LATEST, 0)
            names = EntityNames.of([entity])
            loaded = load_states(database, computation.source, names, computation.depth, before)
            if len(loaded.which):
                found.append(_previewed(computation, entity, loaded.states))
        return found
    finally:
        database.close()


def _previewed(computation: RunComputation, entity: str, states: Any) -> Previewed:
    newest, refs = computation.newest(states), computation.schema.features
    values = [None if math.isnan(value) else value for value in newest.features[0].tolist()]
    statuses = [ValueStatus(status).name.lower() for status in newest.status[0].tolist()]
    return Previewed(
        key_values(entity),
        int(states.event_time[0]),
        dict(zip(refs, values, strict=True)),
        dict(zip(refs, statuses, strict=True)),
    )
