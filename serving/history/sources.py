"""The sources of a join: the ticks that rows ask of each, in one snapshot of the database."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, NamedTuple

from registry.definitions import FeatureVersion
from serving.features.lookup import Names
from serving.history.entity_rows import EntityRows
from serving.history.found_ticks import PLANS, About, Asked, FoundTicks, Plan, backfills_of
from serving.history.past_columns import Int64s, PastColumn, past_column
from serving.history.ranges import Ranges
from serving.history.snapshot import Snapshot
from serving.history.ticks_as_of import ticks_as_of

if TYPE_CHECKING:
    from serving.history.set_sweep import SetSweep


class OfRows(NamedTuple):
    """Rows, and by when their ticks had to be known."""

    rows: EntityRows
    known: Int64s
    """(n,) Nanoseconds UTC."""
    repaired: bool = False
    """Whether repairs count that were known by then; else it is what was served."""
    first: int = 0
    """The number of the first row in the set."""

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
        self.backfills = backfills_of(snapshot)
        self.plans: dict[str, Plan] = {}
        """How the ticks of each source were read; of several ways that of most rows is told."""
        self.ranges: Ranges | None = None
        """Where it is noted which entities are asked for."""
        self.swept: SetSweep | None = None
        """What all rows of a set have been answered by, before they are joined."""

    def key_of(self, source: str) -> tuple[str, ...]:
        """The key fields of a source, in the order in which entities are named."""
        return self.names.catalog.sources[source].key

    def ticks(self, source: str, asked: Asked, refs: Collection[str]) -> FoundTicks:
        """The ticks of one source that questions ask for, with what they have of these versions."""
        self._note_ranges(source, asked)
        found = ticks_as_of(self.snapshot, self.names, source, asked, refs, self.backfills)
        self._note(source, found.plan)
        return found

    def ticks_of_rows(
        self, source: str, asked: Asked, refs: Collection[str], first: int
    ) -> FoundTicks:
        """The ticks of rows of a set, the first of which is row `first`, a question a row."""
        if self.swept is not None:
            about = About(asked.names, asked.entity)
            empty = FoundTicks(self.snapshot, self.names, self.backfills, about, refs)
            found = self.swept.found(source, first, about, empty)
            if found is not None:
                self._note_ranges(source, asked)
                self._note(source, found.plan)
                return found
        return self.ticks(source, asked, refs)

    def _note_ranges(self, source: str, asked: Asked) -> None:
        if self.ranges is not None:
            self.ranges.add(source, asked)

    def _note(self, source: str, plan: Plan) -> None:
        self.plans[source] = max(self.plans.get(source, plan), plan, key=PLANS.index)


class StoredColumns:
    """Stored features of rows; each source is read once, with what `versions` need of it."""

    def __init__(
        self, sources: Sources, of_rows: OfRows, versions: Sequence[FeatureVersion]
    ) -> None:
        self._sources = sources
        self._of_rows = of_rows
        self._versions = versions
        self._ticks: dict[str, FoundTicks] = {}
        self._columns: dict[str, PastColumn] = {}
        self.moments = of_rows.moments

    def column(self, version: FeatureVersion) -> PastColumn:
        """A stored feature."""
        if version.ref not in self._columns:
            assert version.source is not None
            ticks = self._ticks_of(version.source)
            self._columns[version.ref] = past_column(version, ticks, self.moments)
        return self._columns[version.ref]

    def _ticks_of(self, source: str) -> FoundTicks:
        if source not in self._ticks:
            names, entity = self._of_rows.rows.entities(self._sources.key_of(source))
            of_rows = self._of_rows
            asked = Asked(names, entity, self.moments, of_rows.known, of_rows.repaired)
            refs = refs_of(self._versions)[source]
            self._ticks[source] = self._sources.ticks_of_rows(source, asked, refs, of_rows.first)
        return self._ticks[source]


def refs_of(versions: Sequence[FeatureVersion]) -> dict[str, list[str]]:
    """Stored versions by their sources, each once, `name@version`."""
    found: dict[str, dict[str, None]] = {}
    for version in versions:
        assert version.source is not None
        found.setdefault(version.source, {})[version.ref] = None
    return {source: list(refs) for source, refs in found.items()}
