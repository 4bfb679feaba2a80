"""The sources of a join: the ticks that rows ask of each, in one snapshot of the database."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from registry.definitions import FeatureVersion
from serving.features.lookup import Names
from serving.history.entity_rows import EntityRows
from serving.history.past_columns import Int64s, PastColumn, past_column
from serving.history.ranges import Ranges
from serving.history.snapshot import Snapshot
from serving.history.ticks_as_of import Asked, Plan, TicksAsOf, backfills_of


class OfRows(NamedTuple):
    """Rows, and by when their ticks had to be known."""

    rows: EntityRows
    known: Int64s
    """(n,) Nanoseconds UTC."""
    repaired: bool = False
    """Whether repairs count that were known by then; else it is what was served."""

    @property
    def moments(self) -> Int64s:
        """(n,) Nanoseconds UTC."""
        return self.rows.moments

    def part(self, which: slice) -> OfRows:
        """Some of the rows."""
        keys = {field: column[which] for field, column in self.rows.keys.items()}
        return self._replace(rows=EntityRows(keys, self.moments[which]), known=self.known[which])


class Sources:
    """Reads ticks of each source in a snapshot, whose names are `names`."""

    def __init__(self, snapshot: Snapshot, names: Names) -> None:
        self.snapshot = snapshot
        self.names = names
        self._backfills = backfills_of(snapshot)
        self.plans: dict[str, Plan] = {}
        """How the ticks of each source were read; of several ways a scan is told."""
        self.ranges: Ranges | None = None
        """Where it is noted which entities are asked for."""

    def key_of(self, source: str) -> tuple[str, ...]:
        """The key fields of a source, in the order in which entities are named."""
        return self.names.catalog.sources[source].key

    def ticks(self, source: str, asked: Asked, refs: Collection[str]) -> TicksAsOf:
        """The ticks of one source that questions ask for, with what they have of these versions."""
        if self.ranges is not None:
            self.ranges.add(source, asked)
        found = TicksAsOf(self.snapshot, self.names, source, asked, refs, self._backfills)
        if self.plans.get(source) != "scan":
            self.plans[source] = found.plan
        return found


class StoredColumns:
    """Stored features of rows; each source is read once, with what `versions` need of it."""

    def __init__(
        self, sources: Sources, of_rows: OfRows, versions: Sequence[FeatureVersion]
    ) -> None:
        self._sources = sources
        self._of_rows = of_rows
        self._versions = versions
        self._ticks: dict[str, TicksAsOf] = {}
        self._columns: dict[str, PastColumn] = {}
        self.moments = of_rows.moments

    def column(self, version: FeatureVersion) -> PastColumn:
        """A stored feature."""
        if version.ref not in self._columns:
            assert version.source is not None
            ticks = self._ticks_of(version.source)
            self._columns[version.ref] = past_column(version, ticks, self.moments)
        return self._columns[version.ref]

    def _ticks_of(self, source: str) -> TicksAsOf:
        if source not in self._ticks:
            names, entity = self._of_rows.rows.entities(self._sources.key_of(source))
            of_rows = self._of_rows
            asked = Asked(names, entity, self.moments, of_rows.known, of_rows.repaired)
            refs = [one.ref for one in self._versions if one.source == source]
            self._ticks[source] = self._sources.ticks(source, asked, refs)
        return self._ticks[source]
