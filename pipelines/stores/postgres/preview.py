"""What versions, recorded or not, would say of ticks that are stored.

They are computed by the kernel that live has, from the raw fields that Postgres keeps, and stored
nowhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.compute.entity_names import EntityNames
from pipelines.compute.recomputation import AcceptedTicks, Recomputation
from pipelines.compute.run_computation import RunComputation
from pipelines.errors import StateOfOtherFields
from pipelines.runtime.array_types import Bytes, Floats, Int64s
from pipelines.stores.postgres.connection import Database
from pipelines.stores.postgres.states_from_rows import load_states
from registry.definitions import Catalog, RowSchema
from registry.formats.origin import Origin
from registry.formats.row import ValueStatus
from registry.language.program import compile_program
from registry.resources import sql
from registry.source_rules import SourceRules

RECENT_ENTITIES, LAST_TICKS = sql(__package__, "recent_entities"), sql(__package__, "last_ticks")

CANDIDATES = 1_000
"""Entities of which those are found that have ticked last: the newest row of each is read."""

LATEST_SCHEMAS = 4
"""Row schemas that are looked at for it, those that began last."""

LATEST = Origin(bytes(16), 0, 2**62, 0)
"""An origin of a partition that no row is of: all rows count."""


class PreviewedValue(NamedTuple):
    """What a version has for a value at a tick, None where its status says why."""

    value: float | None
    status: str


class Previewed(NamedTuple):
    """The last ticks of an entity, the oldest first, and what versions have for values there.

    `event_times` are in nanoseconds UTC; `values`, by `name@version`, are in their order.
    """

    entity: str
    event_times: tuple[int, ...]
    values: dict[str, tuple[PreviewedValue, ...]]


class _Ticks(NamedTuple):
    """The newest ticks of an entity, the oldest first."""

    event_time: Int64s
    op: Bytes
    fields: Floats
    closed: NDArray[np.bool_]


class Preview:
    """Computes values of versions of recorded sources; `catalog` has the versions, recorded or not.

    Every method raises `StoreUnavailable` and `StateOfOtherFields`.
    """

    def __init__(self, url: str, catalog: Catalog) -> None:
        self._catalog = catalog
        self._database = Database(url, "tickwell plan")

    def close(self) -> None:
        """Close the connection."""
        self._database.close()

    def recent_entities(self, source: str, most: int) -> list[str]:
        """At most `most` entities of a source that have ticked last, the last one first."""
        wanted = {
            "source": source,
            "schemas": self._schemas(source),
            "candidates": CANDIDATES,
            "latest": LATEST_SCHEMAS,
            "most": most,
        }
        with self._database.transaction() as cursor:
            cursor.execute(RECENT_ENTITIES, wanted)
            return [entity for (entity,) in cursor.fetchall()]

    def last_ticks(
        self, source: str, refs: Sequence[str], entities: Sequence[str], most: int
    ) -> list[Previewed]:
        """The values of versions of a source at the last ticks, at most `most`, of entities.

        An entity without a tick is left out.
        """
        computations = {ref: self._computation(source, ref) for ref in refs}
        depth = most + max((one.before for one in computations.values()), default=0)
        found = []
        for entity in entities:
            ticks = self._read(source, entity, depth)
            shown = min(most, len(ticks.op))
            if shown:
                times = ticks.event_time[-shown:].tolist()
                values = {ref: _values(one, ticks, shown) for ref, one in computations.items()}
                found.append(Previewed(entity, tuple(times), values))
        return found

    def newest(
        self, source: str, refs: Sequence[str], entities: Sequence[str]
    ) -> Mapping[str, tuple[Sequence[float], bytes]]:
        """The values of versions at the newest tick of each of many entities, NaN for none.

        With their statuses (`ValueStatus`), as rows have both; of entities that have ticked.
        """
        schema = RowSchema(0, source, tuple(refs))
        program = compile_program(self._catalog, schema)
        rules = SourceRules.of(self._catalog, source)
        computation = RunComputation(rules, schema, program, capacity=max(1, len(entities)))
        names = EntityNames.of(entities)
        loaded = load_states(self._database, computation.source, names, computation.depth, LATEST)
        if not len(loaded.which):
            return {}
        found = computation.newest(loaded.states)
        rows = zip(found.features.tolist(), found.status, strict=True)
        return {
            names[place]: (values, status.tobytes())
            for place, (values, status) in zip(loaded.which.tolist(), rows, strict=True)
        }

    def _computation(self, source: str, ref: str) -> Recomputation:
        return Recomputation(compile_program(self._catalog, RowSchema(0, source, (ref,))))

    def _schemas(self, source: str) -> list[int]:
        return [each.id for each in self._catalog.schemas.values() if each.source == source]

    def _read(self, source: str, entity: str, depth: int) -> _Ticks:
        wanted = {
            "entity": entity,
            "schemas": self._schemas(source),
            "depth": depth,
            "closed": bytes([ValueStatus.CLOSED]),
        }
        with self._database.transaction() as cursor:
            cursor.execute(LAST_TICKS, wanted)
            rows: list[Any] = cursor.fetchall()[::-1]
        number = len(self._catalog.sources[source].fields)
        if any(len(fields) != number for _, _, fields, _ in rows):
            raise StateOfOtherFields(source, f"rows of {entity} have not the {number} fields")
        return _Ticks(
            event_time=np.array([time for time, _, _, _ in rows], np.int64),
            op=np.array([op for _, op, _, _ in rows], np.uint8),
            fields=np.array([fields for _, _, fields, _ in rows], np.float64).reshape(-1, number),
            closed=np.array([closed for _, _, _, closed in rows], np.bool_),
        )


def _values(computation: Recomputation, ticks: _Ticks, shown: int) -> tuple[PreviewedValue, ...]:
    """What a version has at the newest `shown` of the ticks; those before are in its windows."""
    first = max(0, len(ticks.op) - shown - computation.before)
    computed = computation.compute(
        AcceptedTicks(
            entity=np.zeros(len(ticks.op) - first, np.int32),
            op=ticks.op[first:],
            field=ticks.fields[first:, computation.field].copy(),
            closed=ticks.closed[first : first + 1],
        )
    )
    features, statuses = computed.features[-shown:, 0].tolist(), computed.status[-shown:, 0]
    return tuple(
        PreviewedValue(None if math.isnan(value) else value, ValueStatus(status).name.lower())
        for value, status in zip(features, statuses.tolist(), strict=True)
    )
