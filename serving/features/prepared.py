"""Questions that are asked again: what does not depend on the rows is worked out once.

The features and the kind of entity decide which rows are read, which bytes of them are wanted, and
how old a value may be. The answers are those of `serving.features.reader`, which defines them. It
answers what is not prepared: sums over entities, and rows that are damaged or in a row schema that
the catalog does not have.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from registry.definitions import FeatureVersion
from registry.formats.layout import Layout
from registry.formats.row import LAYOUT_VERSION, SCHEMA_END, row_layout, some_features
from registry.formats.status import Status, worst
from registry.language.arithmetic import Arithmetic, compile_arithmetic
from registry.language.derived import Derived
from registry.language.terms import Part
from serving.features.lookup import DerivedFeature, Names, check_entities
from serving.features.plan import Entity
from serving.features.values import STATUS, Moment
from serving.stores.row_store import Packed, RowId, Tier, Unavailable

NEVER = (1 << 63) - 1
"""An age, in nanoseconds, that no value reaches."""

Unpack = Callable[[bytes], tuple[float, ...]]


class Uncommon(Exception):
    """This is left to a way that is slower, and takes more."""


class Slot(NamedTuple):
    """Where the answer has what belongs to a feature, by indexes."""

    value: int
    """Of its value and status."""
    time: int
    """Of its event time and tier: stored features of one source share theirs."""


class EntityValues(NamedTuple):
    """What is known of one entity, as `Slot` says; an event time is None where there is none."""

    values: list[float]
    statuses: list[Status]
    times: list[int | None]
    tiers: list[Tier]


class PlainValues(NamedTuple):
    """The same of an entity whose values are all `ok`."""

    values: list[float]
    times: list[int]


class StoredColumns(NamedTuple):
    """Where rows of one row schema have the wanted features."""

    layout: Layout
    stored: slice | list[int]
    """The indexes of those that the rows have, in the order of the wanted ones."""
    had: list[int] | None
    """Which of the wanted ones they are; None where these are all."""


class WantedRows:
    """The features that are wanted of one source's rows, in the order of today's row schema."""

    def __init__(self, names: Names, source: str, features: Iterable[FeatureVersion]) -> None:
        written = names.catalog.writing[source]
        self.source = names.catalog.sources[source]
        self.features = sorted(features, key=lambda f: names.index(written, f.ref) or 0)
        self.max_ages = [NEVER if f.max_age_ns is None else f.max_age_ns for f in self.features]
        self.least_max_age = min(self.max_ages)
        self._names = names
        self.first_value = 1 + len(self.features)
        self._unpacks: dict[bytes, Unpack] = {}
        self._columns: dict[bytes, StoredColumns] = {}
        self._no_values = [math.nan] * len(self.features)
        self._all = {status: [status] * len(self.features) for status in Status}

    def read(
        self, row: Packed, now_ns: int, lagging: bool
    ) -> tuple[int | None, Sequence[float], Sequence[Status]]:
        """The event time of a row, and value and status of each wanted feature.

        Raises `Uncommon`.
        """
        if row is None:
            return None, self._no_values, self._all[Status.MISSING]
        if isinstance(row, Unavailable):
            return None, self._no_values, self._all[Status.UNAVAILABLE]
        schema = row[:SCHEMA_END]
        unpack = self._unpacks.get(schema)
        if unpack is None:
            unpack = self._unpacks[schema] = self._unpack(schema)
        try:
            time, *found = unpack(row)
        except struct.error:  # the row has another size
            raise Uncommon from None
        n = len(self.features)
        stored, values = found[:n], found[n:]
        age = now_ns - int(time)
        if not any(stored) and not lagging and age <= self.least_max_age:
            return int(time), values, self._all[Status.OK]
        statuses = [
            _judged(int(status), age > most, lagging)
            for status, most in zip(stored, self.max_ages, strict=True)
        ]
        return int(time), values, statuses

    def read_plain(self, row: Packed, now_ns: int) -> tuple[float, ...] | None:
        """The event time of a row, statuses and values (from `first_value` on), if all are `ok`.

        None where any is not, or is too old, and where it is not known yet how rows of this row
        schema are read.
        """
        if not isinstance(row, bytes):
            return None
        unpack = self._unpacks.get(row[:SCHEMA_END])
        if unpack is None:
            return None
        try:
            found = unpack(row)
        except struct.error:  # the row has another size
            return None
        if any(found[1 : self.first_value]) or now_ns - found[0] > self.least_max_age:
            return None
        return found

    def indexes(self, schema: bytes) -> tuple[int, list[int | None]]:
        """How many features rows have that begin so, and the indexes of the wanted ones.

        None is of a feature that they do not have. Raises `Uncommon` for an unknown row schema.
        """
        known = self._names.catalog.schemas.get(int.from_bytes(schema[1:]))
        if len(schema) < SCHEMA_END or schema[0] != LAYOUT_VERSION or known is None:
            raise Uncommon
        indexes = [self._names.index(known.id, feature.ref) for feature in self.features]
        return len(known.features), indexes

    def columns(self, schema: bytes) -> StoredColumns:
        """Where many rows that begin so have the wanted features. Raises as `indexes`."""
        known = self._columns.get(schema)
        if known is None:
            known = self._columns[schema] = _stored_columns(*self.indexes(schema))
        return known

    def _unpack(self, schema: bytes) -> Unpack:
        features, indexes = self.indexes(schema)
        ascending = [index for index in indexes if index is not None]
        if len(ascending) < len(indexes) or ascending != sorted(ascending):
            raise Uncommon
        return some_features(features, ascending).unpack


class WantedDerived(NamedTuple):
    """A derived feature, and where its parts are."""

    derived: Derived
    arithmetic: Arithmetic
    """Of the values of an entity."""
    parts: dict[str, Slot]
    times: list[int]
    """The indexes of the event times, and of the tiers, of the parts: each once."""
    max_age_ns: int


class PreparedQuestion:
    """Features, by the names that are requested, of entities of one kind.

    `rows` are the sources that are read, `slots` says where the values of each name are. Raises
    `WrongEntity` and, for a sum over entities, `Uncommon`.
    """

    def __init__(
        self, names: Names, versions: Mapping[str, FeatureVersion], fields: Sequence[str]
    ) -> None:
        check_entities(names, versions, [fields])
        if any(feature.over is not None for feature in versions.values()):
            raise Uncommon
        self.versions = versions
        self.deprecated = names.deprecated
        wanted: dict[str, dict[str, FeatureVersion]] = {}
        for feature in versions.values():
            parts = names.derived[feature.ref].parts.values() if feature.derived else [feature]
            for part in parts:
                assert part.source is not None
                wanted.setdefault(part.source, {})[part.ref] = part
        self.rows = [WantedRows(names, source, of.values()) for source, of in wanted.items()]
        stored: dict[str, Slot] = {}
        for time, one in enumerate(self.rows):
            for feature in one.features:
                stored[feature.ref] = Slot(len(stored), time)
        self.stored = len(stored)
        """How many values are stored ones; those of derived features follow."""
        self.derived: list[WantedDerived] = []
        derived: dict[str, Slot] = {}
        for feature in versions.values():
            if feature.derived and feature.ref not in derived:
                index = len(self.derived)
                derived[feature.ref] = Slot(self.stored + index, len(self.rows) + index)
                self.derived.append(_wanted_derived(feature, names.derived[feature.ref], stored))
        of_ref = stored | derived
        self.slots = {name: of_ref[feature.ref] for name, feature in versions.items()}

    def row_ids(self, entity: Entity) -> list[RowId]:
        """The row of an entity in each source of `rows`."""
        sources = [one.source for one in self.rows]
        return [RowId(s.name, tuple([entity[field] for field in s.key])) for s in sources]

    def plain(self, rows: Sequence[Packed], now_ns: int) -> PlainValues | None:
        """The values of an entity where none is lagging and all are `ok`, None where any is not.

        They are those of `evaluate`, in a third of the time.
        """
        found = PlainValues([], [])
        values, times = found
        for wanted, row in zip(self.rows, rows, strict=True):
            read = wanted.read_plain(row, now_ns)
            if read is None:
                return None
            times.append(int(read[0]))
            values += read[wanted.first_value :]
        for derived in self.derived:
            value = derived.arithmetic.value(values)
            oldest = min([times[index] for index in derived.times])
            if not math.isfinite(value) or now_ns - oldest > derived.max_age_ns:
                return None
            values.append(value)
            times.append(oldest)
        return found

    def evaluate(
        self, rows: Sequence[Packed], tiers: Sequence[Tier], moment: Moment
    ) -> EntityValues:
        """The values of an entity, of which these are the rows and their tiers.

        Raises `Uncommon`.
        """
        now, found = moment.now_ns, EntityValues([], [], [], list(tiers))
        values, statuses, times, _ = found
        for wanted, row, tier in zip(self.rows, rows, tiers, strict=True):
            lagging = moment.lagging(wanted.source.name, tier)
            time, read, judged = wanted.read(row, now, lagging)
            times.append(time)
            values += read
            statuses += judged
        derive = _plain if statuses.count(Status.OK) == len(statuses) else _derived
        for of_parts in self.derived:
            value, status, time = derive(of_parts, found)
            old = time is not None and now - time > of_parts.max_age_ns
            values.append(value)
            statuses.append(worst((status, Status.STALE)) if old else status)
            times.append(time)
            found.tiers.append(max([tiers[index] for index in of_parts.times]))
        return found


def _stored_columns(features: int, indexes: Sequence[int | None]) -> StoredColumns:
    """Of rows with so many features; `indexes` are those of wanted ones, None of one they lack."""
    had = [column for column, index in enumerate(indexes) if index is not None]
    stored = [index for index in indexes if index is not None]
    adjacent = slice(stored[0], stored[0] + len(stored)) if stored else slice(0)
    in_a_row = stored == list(range(features))[adjacent]
    return StoredColumns(
        row_layout(features),
        adjacent if in_a_row else stored,  # numpy takes a slice without a copy
        None if len(had) == len(indexes) else had,
    )


def _wanted_derived(
    feature: FeatureVersion, formula: DerivedFeature, stored: Mapping[str, Slot]
) -> WantedDerived:
    parts = {name: stored[part.ref] for name, part in formula.parts.items()}
    indexes = {name: slot.value for name, slot in parts.items()}
    times = sorted({slot.time for slot in parts.values()})
    most = NEVER if feature.max_age_ns is None else feature.max_age_ns
    arithmetic = compile_arithmetic(feature.expression, feature.ref, indexes)
    return WantedDerived(formula.derived, arithmetic, parts, times, most)


Judged = tuple[float, Status, int | None]
"""A value, its status and its event time."""


def _plain(wanted: WantedDerived, found: EntityValues) -> Judged:
    """A derived feature of parts that are all `ok`: what `_derived` says of them, in less time."""
    value, times = wanted.arithmetic.value(found.values), found.times
    oldest = min([times[index] for index in wanted.times])  # type: ignore[type-var]
    if math.isfinite(value):
        return value, Status.OK, oldest
    return math.nan, Status.UNDEFINED, oldest


def _derived(wanted: WantedDerived, found: EntityValues) -> Judged:
    """A derived feature."""
    values, statuses, times, _ = found
    parts = {
        name: Part(values[slot.value], statuses[slot.value], times[slot.time])
        for name, slot in wanted.parts.items()
    }
    part = wanted.derived.evaluate([parts])
    return part.value, part.status, part.event_time


def _judged(stored: int, old: bool, lagging: bool) -> Status:
    """The status of a stored value by its age and its pipeline's lag. Raises `Uncommon`."""
    status = STATUS.get(stored)
    if status is None:
        raise Uncommon
    found = [status]
    if old:
        found.append(Status.STALE)
    if lagging:
        found.append(Status.LAGGING)
    return worst(found)
