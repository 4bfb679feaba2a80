"""Point-in-time joins: features of entities as a model would have been given them at moments.

    rows ──► ticks as of each moment ──► stored features ──► derived features
             (one look-up a source)      (judged by age)     (of the same rows)

Values, statuses and event times are those that `serving.features.reader` would have answered at
that moment from stores that are not behind: so nothing is `lagging`, and nothing `unavailable`. A
sum over entities is over those that were open then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from registry.definitions import FeatureVersion
from registry.language.arithmetic import compile_arithmetic
from registry.resources import sql
from serving.errors import InvalidRequest, UnknownFeature
from serving.features.columns import LAGGING, MISSING, NO_TIME, UNDEFINED
from serving.features.lookup import Names
from serving.history.entity_rows import EntityRows
from serving.history.found_ticks import Plan
from serving.history.lake.questions import KnownOf
from serving.history.past_columns import Int64s, PastColumn, judged
from serving.history.ranges import Ranges
from serving.history.served_versions import AS_SERVED, Meanings, meanings
from serving.history.snapshot import Snapshot
from serving.history.sources import OfRows, Sources, StoredColumns, refs_of
from serving.history.sums import summed

if TYPE_CHECKING:
    from serving.history.set_sweep import SetSweep

UNSETTLED_REPAIRS = sql(__package__, "unsettled_repairs")


class PointInTimeJoin:
    """Joins rows with features, in one snapshot of the database.

    `versions` are the features by the names that their columns get; `of_names` and `of_pins` find
    them. What a name means is what it means in the snapshot, for all moments; but those in `served`
    mean in each row what was served at its moment.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        names: Names,
        versions: Mapping[str, FeatureVersion],
        served: Mapping[str, Meanings] = MappingProxyType({}),
    ) -> None:
        self._names = names
        self._sources = Sources(snapshot, names)
        self.versions = versions
        self.served = served
        self._all = [one for name in versions for one in self._meant(name)]

    @classmethod
    def of_names(
        cls, snapshot: Snapshot, features: Sequence[str], as_served: bool = False
    ) -> PointInTimeJoin:
        """A join with features as requests name them.

        With `as_served` a name without a version means in each row what was served then. Raises as
        `Names.versions`, and `InvalidRequest` where an experiment decides what a name means, and
        as `meanings`.
        """
        names = Names(snapshot.catalog)
        versions = names.versions(features)
        if as_served:
            of = {n: names.name_of(n) for n in features if n in versions and "@" not in n}
            meant = meanings(snapshot, set(of.values()))
            return cls(snapshot, names, versions, {n: meant[one] for n, one in of.items()})
        for name, experiment in names.tested(features).items():
            raise InvalidRequest(
                f"{name} means several versions, as the experiment {experiment.name} decides: name "
                f"one, as {versions[name].ref}, or take them as served (versions='as_served', "
                "--versions as_served)",
                feature=name,
            )
        return cls(snapshot, names, versions)

    @classmethod
    def of_pins(cls, snapshot: Snapshot, pins: Mapping[str, str]) -> PointInTimeJoin:
        """A join with versions, each `name@version`, retired or not, or `name@as_served`.

        Raises `UnknownFeature`, and as `meanings`.
        """
        known, active = snapshot.catalog.features, snapshot.catalog.active
        versions, of = {}, {}
        for name, pin in pins.items():
            feature, _, version = pin.partition("@")
            if version == AS_SERVED:
                of[name] = feature
                pin = f"{feature}@{active.get(feature)}"
            if pin not in known:
                raise UnknownFeature(f"{pin} was never recorded here", feature=pin)
            versions[name] = known[pin]
        meant = meanings(snapshot, set(of.values()))
        served = {name: meant[feature] for name, feature in of.items()}
        return cls(snapshot, Names(snapshot.catalog), versions, served)

    @property
    def pins(self) -> dict[str, str]:
        """What `of_pins` makes this join of, by the names of columns."""
        return {
            name: f"{version.name}@{AS_SERVED}" if name in self.served else version.ref
            for name, version in self.versions.items()
        }

    @property
    def snapshot(self) -> Snapshot:
        """The snapshot in which it reads."""
        return self._sources.snapshot

    @property
    def refs(self) -> list[str]:
        """The versions that columns have values of, and those of their parts, each once."""
        derived = self._names.derived
        parts = [
            part.ref
            for version in self._all
            if version.derived
            for part in derived[version.ref].parts.values()
        ]
        return list(dict.fromkeys([*(version.ref for version in self._all), *parts]))

    @property
    def plans(self) -> Mapping[str, Plan]:
        """How the ticks of each source were read so far; of several ways a scan is told."""
        return self._sources.plans

    def note(self, ranges: Ranges | None) -> None:
        """Note in `ranges` of which entities ticks are asked for from now on."""
        self._sources.ranges = ranges

    def set_sweep(self, known_of: KnownOf, repaired: bool, folder: Path | None) -> SetSweep:
        """What answers all rows of a set at once, where that is quicker; later rows have it.

        `known_of` says of moments by when ticks had to be known; files are in `folder`.
        """
        # it compiles what it needs, which most processes never do
        from serving.history.set_sweep import SetSweep

        refs, sources = refs_of(self._stored(self._all)), self._sources
        how = known_of, repaired, folder
        sources.swept = SetSweep(sources.snapshot, refs, sources.backfills, *how)
        return sources.swept

    @property
    def key_fields(self) -> list[str]:
        """The key fields that rows have to name."""
        fields = (field for version in self._all for field in version.entity)
        return list(dict.fromkeys(fields))

    @property
    def topics(self) -> set[str]:
        """The topics of which the features are made."""
        sources = self._names.catalog.sources
        return {sources[source].topic for source in self._sources_of_all()}

    def _sources_of_all(self) -> set[str]:
        return {
            source
            for version in self._all
            for source in (version.source, version.over, *self._sources_of_parts(version))
            if source is not None
        }

    def _schemas_of_all(self) -> dict[str, int]:
        """The sources, each with the first row schema that has all versions that are read of it."""
        found = dict.fromkeys(sorted(self._sources_of_all()), 0)
        catalog = self._sources.snapshot.catalog
        for ref in self.refs:
            source = catalog.features[ref].source
            having = [n for n in catalog.schemas if self._names.index(n, ref) is not None]
            if source is not None and having:
                found[source] = max(found[source], min(having))
        return found

    def _check_repaired(self, known: int) -> None:
        """Raises `InvalidRequest` unless repairs have done all that was known by a moment."""
        schemas = self._schemas_of_all()
        asked = {"sources": [*schemas], "schemas": [*schemas.values()], "known": known}
        for (source,) in self._sources.snapshot.rows(UNSETTLED_REPAIRS, asked):
            raise InvalidRequest(
                f"a repair of {source} is under way, or has not reached the newest ticks yet: ask "
                "as of a moment before it, or a little later"
            )

    def _sources_of_parts(self, version: FeatureVersion) -> list[str | None]:
        if not version.derived:
            return []
        return [part.source for part in self._names.derived[version.ref].parts.values()]

    def _meant(self, name: str) -> list[FeatureVersion]:
        """The versions that a column may have values of."""
        if name not in self.served:
            return [self.versions[name]]
        feature, known = self.versions[name].name, self._names.catalog.features
        return [known[f"{feature}@{number}"] for number in self.served[name].versions]

    def columns(
        self,
        rows: EntityRows,
        known: Int64s | None = None,
        first: int = 0,
        repaired: bool = False,
    ) -> dict[str, PastColumn]:
        """The features of rows, by requested name.

        `known` (n,) is when each row's ticks had to be there, nanoseconds UTC; by default at the
        row's own moment. With `repaired` the ticks are as repairs have left them that were known by
        then, else as they were served. Raises `InvalidRequest` where it is not known which version
        was served in a row, and where a repair is not done; rows are counted from `first`.
        """
        if repaired and known is not None and len(known):
            self._check_repaired(int(known.max()))
        of_rows = OfRows(rows, rows.moments if known is None else known, repaired, first)
        stored = StoredColumns(self._sources, of_rows, self._stored(self._all))
        return {
            name: self._served(name, stored, of_rows, first)
            if name in self.served
            else self._column(version, stored, of_rows)
            for name, version in self.versions.items()
        }

    def _served(self, name: str, stored: StoredColumns, of_rows: OfRows, first: int) -> PastColumn:
        """A column with the version of each row that was served then."""
        version, n = self.versions[name], len(of_rows.rows)
        entities, entity = of_rows.rows.entities(version.entity)
        served = self.served[name].served(of_rows.moments, entities, entity, first)
        found = PastColumn(
            version,
            np.full(n, np.nan),
            np.full(n, MISSING, np.uint8),
            np.full(n, NO_TIME, np.int64),
            np.zeros(n, np.bool_),
            served,
        )
        for number, one in enumerate(self._meant(name)):
            has = served.which == number
            if not has.any():
                continue
            column = self._column(one, stored, of_rows)
            found.values[has], found.ranks[has] = column.values[has], column.ranks[has]
            found.event_times[has], found.lacks[has] = column.event_times[has], column.lacks[has]
        return found

    def _column(
        self, version: FeatureVersion, stored: StoredColumns, of_rows: OfRows
    ) -> PastColumn:
        if version.source is not None:
            return stored.column(version)
        parts = self._names.derived[version.ref].parts
        if version.over is not None:
            return summed(self._sources, version, parts, of_rows)
        return _derived(version, parts, stored)

    def _stored(self, versions: Sequence[FeatureVersion]) -> list[FeatureVersion]:
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
