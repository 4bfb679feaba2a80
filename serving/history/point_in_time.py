"""Point-in-time joins: features of entities as a model would have been given them at moments.

    rows ──► ticks as of each moment ──► stored features ──► derived features
             (one look-up a source)      (judged by age)     (of the same rows)

Values, statuses and event times are those that `serving.features.reader` would have answered at
that moment from stores that are not behind: so nothing is `lagging`, and nothing `unavailable`. A
sum over entities is over those that were open then.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from registry.definitions import FeatureVersion
from registry.formats.entity_name import SEPARATOR, key_values
from registry.formats.status import RANK, Status
from registry.language.arithmetic import compile_arithmetic
from registry.language.terms import Part
from registry.resources import sql
from serving.errors import InvalidRequest, UnknownFeature
from serving.features.columns import LAGGING, MISSING, NO_TIME, OK, STALE, UNDEFINED
from serving.features.lookup import DerivedFeature, Names
from serving.features.prepared import NEVER
from serving.history.entity_rows import EntityRows
from serving.history.snapshot import Snapshot
from serving.history.ticks_as_of import Asked, TicksAsOf, backfills_of

MEMBERS = sql(__package__, "members")
UNSETTLED_REPAIRS = sql(__package__, "unsettled_repairs")
PAST_SEPARATOR = chr(ord(SEPARATOR) + 1)
"""What names begin with that come after all of a group, in place of the separator."""

MEMBER_ROWS = 50_000
"""Members of sums, each at one moment, that are read at a time: 20 MB."""

STATUSES = list(Status)

Int64s = NDArray[np.int64]
Floats = NDArray[np.float64]
Ranks = NDArray[np.uint8]
Flags = NDArray[np.bool_]


class PastColumn(NamedTuple):
    """A feature of n rows."""

    version: FeatureVersion
    values: Floats
    """(n,) NaN where there is none."""
    ranks: Ranks
    """(n,) The rank of each status (`registry.formats.status.RANK`)."""
    event_times: Int64s
    """(n,) Nanoseconds UTC, `NO_TIME` where there is none."""
    lacks: Flags
    """(n,) Where there was a tick of which the version was never computed."""


class PointInTimeJoin:
    """Joins rows with features, in one snapshot of the database.

    `versions` are the features by the names that their columns get; `of_names` and `of_pins` find
    them. What a name means is what it means in the snapshot, for all moments.
    """

    def __init__(
        self, snapshot: Snapshot, names: Names, versions: Mapping[str, FeatureVersion]
    ) -> None:
        self._snapshot = snapshot
        self._names = names
        self._backfills = backfills_of(snapshot)
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

    def columns(
        self, rows: EntityRows, known: Int64s | None = None, repaired: bool = False
    ) -> dict[str, PastColumn]:
        """The features of rows, by requested name.

        `known` (n,) is when each row's ticks had to be there, nanoseconds UTC; by default at the
        row's own moment. With `repaired` the ticks are as repairs have left them that were known by
        then, else as they were served. Raises `InvalidRequest` where a repair is not done by then.
        """
        if repaired and known is not None and len(known):
            self._check_repaired(int(known.max()))
        of_rows = _OfRows(rows, rows.moments if known is None else known, repaired)
        found: dict[str, PastColumn] = {}
        stored = _Stored(self, of_rows)
        for name, version in self.versions.items():
            if version.source is not None:
                found[name] = stored.column(version)
            elif version.over is None:
                found[name] = self._derived(version, stored)
            else:
                found[name] = self._summed(version, of_rows)
        return found

    def _check_repaired(self, known: int) -> None:
        """Raises `InvalidRequest` unless repairs have done all that was known by a moment."""
        asked = {"sources": sorted(self._sources()), "known": known}
        for (source,) in self._snapshot.rows(UNSETTLED_REPAIRS, asked):
            raise InvalidRequest(
                f"a repair of {source} is under way, or has not reached the newest ticks yet: ask "
                "as of a moment before it, or a little later"
            )

    def _sources(self) -> set[str]:
        """The sources that the features are made of."""
        found: set[str | None] = set()
        for version in self.versions.values():
            found |= {version.source, version.over}
            if version.derived:
                found |= {one.source for one in self._names.derived[version.ref].parts.values()}
        return {one for one in found if one is not None}

    def key_of(self, source: str) -> tuple[str, ...]:
        """The key fields of a source, in the order in which entities are named."""
        return self._names.catalog.sources[source].key

    def ticks(self, source: str, asked: Asked, refs: Collection[str]) -> TicksAsOf:
        """The ticks of one source that questions ask for, with what they have of these versions."""
        return TicksAsOf(self._snapshot, self._names, source, asked, refs, self._backfills)

    def stored_of_rows(self) -> list[FeatureVersion]:
        """The stored features of the rows' own entities, and those of derived ones."""
        found: list[FeatureVersion] = []
        for version in self.versions.values():
            if version.source is not None:
                found.append(version)
            elif version.over is None:
                found += self._names.derived[version.ref].parts.values()
        return found

    # ------------------------------------------------------------ of one entity

    def _derived(self, version: FeatureVersion, stored: _Stored) -> PastColumn:
        formula = self._names.derived[version.ref]
        parts = [stored.column(part) for part in formula.parts.values()]
        indexes = {name: number for number, name in enumerate(formula.parts)}
        arithmetic = compile_arithmetic(version.expression, version.ref, indexes)
        ranks = np.maximum.reduce([part.ranks for part in parts])
        times = np.minimum.reduce([part.event_times for part in parts])
        values = arithmetic.column(np.array([part.values for part in parts]))
        has_value = (ranks <= LAGGING) & np.isfinite(values)
        ranks = np.where((ranks <= LAGGING) & ~has_value, UNDEFINED, ranks).astype(np.uint8)
        values = np.where(has_value, values, np.nan)
        lacks = np.logical_or.reduce([part.lacks for part in parts])
        ranks = judged(ranks, times, stored.moments, version)
        return PastColumn(version, values, ranks, times, lacks)

    # ------------------------------------------------------------ sums over entities

    def _summed(self, version: FeatureVersion, of_rows: _OfRows) -> PastColumn:
        assert version.over is not None
        of_group = [field for field in self.key_of(version.over) if field in version.entity]
        groups, group = of_rows.rows.entities(of_group)
        members = self.members(version.over, groups)
        n = len(of_rows.moments)
        sizes = np.array([len(one) for one in members], np.int64)[group] if n else np.zeros(0, int)
        parts = [
            self._sums(version, members, group[part], of_rows.part(part))
            for part in _cut(sizes, MEMBER_ROWS)
        ]
        whole = _Sums(*(np.concatenate(column) for column in zip(*parts, strict=True)))
        ranks = judged(whole.ranks, whole.event_times, of_rows.moments, version)
        return PastColumn(version, whole.values, ranks, whole.event_times, whole.lacks)

    def members(self, over: str, groups: Sequence[str]) -> list[list[str]]:
        """The entities that ever were in each group, in the order of their names."""
        found: list[list[str]] = [[] for _ in groups]
        wanted = {
            "source": over,
            "numbers": list(range(len(groups))),
            "firsts": [group + SEPARATOR for group in groups],
            "ends": [group + PAST_SEPARATOR for group in groups],
        }
        for number, entity in self._snapshot.rows(MEMBERS, wanted):
            found[number].append(entity)
        return found

    def _sums(
        self,
        version: FeatureVersion,
        members: Sequence[Sequence[str]],
        group: NDArray[np.int32],
        of_rows: _OfRows,
    ) -> _Sums:
        formula, over = self._names.derived[version.ref], version.over
        assert over is not None
        source = self._names.catalog.sources[over]
        own = [members[number] for number in group.tolist()]
        row = np.repeat(np.arange(len(own)), [len(one) for one in own])
        flat = [member for one in own for member in one]
        moments, known = of_rows.moments[row], of_rows.known[row]
        stored = formula.parts.values()
        refs = [part.ref for part in stored if part.source == over]
        repaired = of_rows.repaired
        ticks = self.ticks(over, _asked(flat, moments, known, repaired), refs)
        ends = np.cumsum([0, *map(len, own)])
        columns = _PartColumns(formula)
        for name, part in formula.parts.items():
            if part.source == over:
                of_part = ticks
            else:
                keys = [dict(zip(source.key, key_values(member), strict=True)) for member in flat]
                assert part.source is not None
                fields = self.key_of(part.source)
                entities = [SEPARATOR.join([key[field] for field in fields]) for key in keys]
                asked = _asked(entities, moments, known, repaired)
                of_part = self.ticks(part.source, asked, [part.ref])
            columns.add(name, past_column(part, of_part, moments))
        is_there, is_closed = ticks.event_times != NO_TIME, ticks.closed
        closes = ticks.event_times
        sums = _Sums.empty(len(own))
        for number, (begin, end) in enumerate(pairwise(ends.tolist())):
            there = [i for i in range(begin, end) if is_there[i]]
            opened = [i for i in there if not is_closed[i]]
            closed = [Part(0.0, Status.OK, int(closes[i])) for i in there if is_closed[i]]
            result = formula.derived.evaluate([columns.parts(i) for i in opened], closed)
            sums.put(number, result, any(columns.lacks[i] for i in opened))
        return sums


class _OfRows(NamedTuple):
    """Rows, and by when their ticks had to be known."""

    rows: EntityRows
    known: Int64s
    repaired: bool
    """Whether repairs count that were known by then."""

    @property
    def moments(self) -> Int64s:
        return self.rows.moments

    def part(self, which: slice) -> _OfRows:
        keys = {field: column[which] for field, column in self.rows.keys.items()}
        return self._replace(rows=EntityRows(keys, self.moments[which]), known=self.known[which])


class _Stored:
    """Stored features of rows; each source is read once."""

    def __init__(self, join: PointInTimeJoin, of_rows: _OfRows) -> None:
        self._join = join
        self._of_rows = of_rows
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
            names, entity = self._of_rows.rows.entities(self._join.key_of(source))
            of_rows = self._of_rows
            asked = Asked(names, entity, self.moments, of_rows.known, of_rows.repaired)
            refs = [one.ref for one in self._join.stored_of_rows() if one.source == source]
            self._ticks[source] = self._join.ticks(source, asked, refs)
        return self._ticks[source]


class _PartColumns:
    """The parts of a sum, by their members."""

    def __init__(self, formula: DerivedFeature) -> None:
        self._columns: list[tuple[str, list[float], list[int], list[int]]] = []
        self._lacks: list[Flags] = []

    def add(self, name: str, column: PastColumn) -> None:
        lists = column.values.tolist(), column.ranks.tolist(), column.event_times.tolist()
        self._columns.append((name, *lists))
        self._lacks.append(column.lacks)

    @property
    def lacks(self) -> Flags:
        found: Flags = np.logical_or.reduce(self._lacks)
        return found

    def parts(self, member: int) -> dict[str, Part]:
        return {
            name: Part(
                values[member],
                STATUSES[ranks[member]],
                None if times[member] == NO_TIME else times[member],
            )
            for name, values, ranks, times in self._columns
        }


class _Sums(NamedTuple):
    """Sums of n rows, before their own age counts."""

    values: Floats
    ranks: Ranks
    event_times: Int64s
    lacks: Flags

    @classmethod
    def empty(cls, n: int) -> _Sums:
        ranks, times = np.full(n, MISSING, np.uint8), np.full(n, NO_TIME, np.int64)
        return cls(np.full(n, np.nan), ranks, times, np.zeros(n, np.bool_))

    def put(self, number: int, part: Part, lacks: bool) -> None:
        self.values[number] = part.value
        self.ranks[number] = RANK[part.status]
        self.event_times[number] = NO_TIME if part.event_time is None else part.event_time
        self.lacks[number] = lacks


def past_column(version: FeatureVersion, ticks: TicksAsOf, moments: Int64s) -> PastColumn:
    """A stored feature, as old as it was at the moments."""
    values, ranks, lacks = ticks.column(version.ref)
    times = np.where(lacks, NO_TIME, ticks.event_times)
    return PastColumn(version, values, judged(ranks, times, moments, version), times, lacks)


def judged(ranks: Ranks, times: Int64s, moments: Int64s, version: FeatureVersion) -> Ranks:
    """The ranks that are left of values that may have been too old."""
    max_age = version.max_age_ns
    if max_age is None or max_age == NEVER:
        return ranks
    known = times != NO_TIME
    age = moments - np.where(known, times, moments)
    least = np.where(age > max_age, STALE, OK).astype(np.uint8)
    worse: Ranks = np.maximum(ranks, least)
    return worse


def _asked(entities: Sequence[str], moments: Int64s, known: Int64s, repaired: bool) -> Asked:
    numbers: dict[str, int] = {}
    entity = [numbers.setdefault(one, len(numbers)) for one in entities]
    return Asked(list(numbers), np.array(entity, np.int32), moments, known, repaired)


def _cut(sizes: Int64s, most: int) -> Iterator[slice]:
    """Rows that together have at most so many members; a row of more stands alone."""
    begin, sum_of = 0, 0
    for number, size in enumerate(sizes.tolist()):
        if number > begin and sum_of + size > most:
            yield slice(begin, number)
            begin, sum_of = number, 0
        sum_of += size
    yield slice(begin, len(sizes))
