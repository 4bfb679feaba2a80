"""Point-in-time joins: features of entities as a model would have been given them at moments.

    rows ──► ticks as of each moment ──► stored features ──► derived features
             (one look-up a source)      (judged by age)     (of the same rows)

Values, statuses and event times are those that `serving.features.reader` would have answered at
that moment from stores that are not behind: so nothing is `lagging`, and nothing `unavailable`. A
sum over entities is over those that were open then.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from registry.definitions import FeatureVersion
from registry.language.arithmetic import compile_arithmetic
from serving.errors import InvalidRequest, UnknownFeature
from serving.features.columns import LAGGING, UNDEFINED
from serving.features.lookup import Names
from serving.history.entity_rows import EntityRows
from serving.history.past_columns import Int64s, PastColumn, judged
from serving.history.snapshot import Snapshot
from serving.history.sources import OfRows, Sources, StoredColumns
from serving.history.sums import summed


class PointInTimeJoin:
    """Joins rows with features, in one snapshot of the database.

    `versions` are the features by the names that their columns get; `of_names` and `of_pins` find
    them. What a name means is what it means in the snapshot, for all moments.
    """

    def __init__(
        self, snapshot: Snapshot, names: Names, versions: Mapping[str, FeatureVersion]
    ) -> None:
        self._names = names
        self._sources = Sources(snapshot, names)
        self.versions = versions

    @classmethod
    def of_names(cls, snapshot: Snapshot, features: Sequence[str]) -> PointInTimeJoin:
        """A join with features as requests name them.

        Raises as `Names.versions`, and `InvalidRequest` where an experiment decides what a name
        means.
        """
        names = Names(snapshot.catalog)
        versions = names.versions(features)
        for name, experiment in names.tested(features).items():
            raise InvalidRequest(
                f"{name} means several versions, as the experiment {experiment.name} decides: name "
                f"one, as {versions[name].ref}",
                feature=name,
            )
        return cls(snapshot, names, versions)

    @classmethod
    def of_pins(cls, snapshot: Snapshot, pins: Mapping[str, str]) -> PointInTimeJoin:
        """A join with versions, each `name@version`, retired or not. Raises `UnknownFeature`."""
        known = snapshot.catalog.features
        for pin in pins.values():
            if pin not in known:
                raise UnknownFeature(f"{pin} was never recorded here", feature=pin)
        versions = {name: known[pin] for name, pin in pins.items()}
        return cls(snapshot, Names(snapshot.catalog), versions)

    @property
    def key_fields(self) -> list[str]:
        """The key fields that rows have to name."""
        fields = (field for version in self.versions.values() for field in version.entity)
        return list(dict.fromkeys(fields))

    def columns(self, rows: EntityRows, known: Int64s | None = None) -> dict[str, PastColumn]:
        """The features of rows, by requested name.

        `known` (n,) is when each row's ticks had to be there, nanoseconds UTC; by default at the
        row's own moment.
        """
        of_rows = OfRows(rows, rows.moments if known is None else known)
        stored = StoredColumns(self._sources, of_rows, self._stored(self.versions.values()))
        return {name: self._column(one, stored, of_rows) for name, one in self.versions.items()}

    def _column(
        self, version: FeatureVersion, stored: StoredColumns, of_rows: OfRows
    ) -> PastColumn:
        if version.source is not None:
            return stored.column(version)
        parts = self._names.derived[version.ref].parts
        if version.over is not None:
            return summed(self._sources, version, parts, of_rows)
        return _derived(version, parts, stored)

    def _stored(self, versions: Iterable[FeatureVersion]) -> list[FeatureVersion]:
        """The stored features of the rows' own entities, and those of derived ones."""
        found: list[FeatureVersion] = []
        for version in versions:
            if version.source is not None:
                found.append(version)
            elif version.over is None:
                found += self._names.derived[version.ref].parts.values()
        return found


def _derived(
    version: FeatureVersion, formula: Mapping[str, FeatureVersion], stored: StoredColumns
) -> PastColumn:
    """A feature that is computed of the stored ones of the same entity."""
    parts = [stored.column(part) for part in formula.values()]
    indexes = {name: number for number, name in enumerate(formula)}
    arithmetic = compile_arithmetic(version.expression, version.ref, indexes)
    ranks = np.maximum.reduce([part.ranks for part in parts])
    times = np.minimum.reduce([part.event_times for part in parts])
    values = arithmetic.column(np.array([part.values for part in parts]))
    has_value = (ranks <= LAGGING) & np.isfinite(values)
    ranks = np.where((ranks <= LAGGING) & ~has_value, UNDEFINED, ranks).astype(np.uint8)
    values = np.where(has_value, values, np.nan)
    lacks = np.logical_or.reduce([part.lacks for part in parts])
    return PastColumn(version, values, judged(ranks, times, stored.moments, version), times, lacks)
