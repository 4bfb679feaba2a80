"""Compares what servers have logged that they served with what Postgres says of the same ticks.

A line of the log has the origins of the rows that each value was made of, and what cannot be found
out later: the moment, the tiers, and which sources were behind. The rows are read in Postgres, and
the values and statuses made of them by the code that serves: what differs was stored or served
otherwise.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

from registry.comparisons import Difference, Kind, Place, Tally, bits_text
from registry.definitions import FeatureVersion
from registry.formats.entity_name import entity_id
from registry.formats.origin import Origin
from registry.formats.row import Row
from registry.formats.served_log import Served, ServedRow, ServedValue, read_served
from registry.formats.status import Status, has_value
from registry.language.terms import Part
from registry.resources import sql
from serving.features.lookup import Names
from serving.features.plan import DerivedRecipe, Recipe, StoredRecipe
from serving.features.plan import Rows as EntityRows
from serving.features.values import TIER_NAMES, Evaluation, Moment
from serving.history.snapshot import Snapshot
from serving.stores.row_store import UNAVAILABLE, Key, RowId, Tier, Unavailable

ROWS_BY_ORIGIN = sql(__package__, "rows_by_origin")
NEXT_OFFSETS = sql(__package__, "next_offsets")

LINES = 100
"""Lines of a log that are compared at a time."""

AHEAD_NS = 3_600 * 10**9
"""Nanoseconds by which a tick's time may be ahead of the clock of a server that serves it."""

TIERS = {name: tier for tier, name in zip(Tier, TIER_NAMES, strict=True)}
SeenRow = Row | Unavailable | None


class _Wanted(NamedTuple):
    """A row that is in the log, and by when it was there."""

    source: str
    entity: Key
    schema_id: int
    origin: Origin
    moment: int


class _NotStored(Exception):
    """A row is not in Postgres; `is_gone` where retention may have taken it."""

    def __init__(self, wanted: _Wanted, is_yet_to_come: bool, is_gone: bool) -> None:
        super().__init__(wanted)
        self.wanted, self.is_yet_to_come, self.is_gone = wanted, is_yet_to_come, is_gone


class _Unknown(NamedTuple):
    """A row that Postgres does not have, and what it says of it."""

    is_yet_to_come: bool
    is_gone: bool


class ServedCheck:
    """Compares lines of logs, in one snapshot of the database."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._names = Names(snapshot.catalog)
        self._offsets = {
            (UUID(topic).bytes, partition): following
            for topic, partition, following in snapshot.rows(NEXT_OFFSETS, {})
        }

    def compare(self, lines: Sequence[Served]) -> Tally:
        """Compare all values of some lines. Raises SQLAlchemy's `DBAPIError`."""
        tally = Tally()
        known = self._rows(lines)
        for line in lines:
            for value in line.values:
                self._compare(line, value, known, tally)
        return tally

    def _compare(
        self,
        line: Served,
        value: ServedValue,
        known: Mapping[_Wanted, Row | _Unknown],
        tally: Tally,
    ) -> None:
        version = self._names.catalog.features.get(value.feature)
        if version is None:  # it was recorded after this catalog was read
            tally.unverifiable += 1
            return
        made_of = [line.rows[number] for number in value.rows]
        if any(row.tier is None for row in made_of):  # which rows there were nobody knows
            tally.unverifiable += 1
            return
        try:
            part, row = self._part(line, version, value, made_of, known)
        except _NotStored as error:
            if error.is_yet_to_come:
                tally.not_yet_stored += 1
            elif error.is_gone:
                tally.unverifiable += 1
            else:
                told = (_where(error.wanted.origin), "no such tick is stored")
                tally.differs(self._difference(Kind.ABSENT, value, version, None, told))
            return
        tally.values += 1
        expected = _Shown(part.status, part.value if has_value(part.status) else math.nan)
        found = _Shown(value.status, math.nan if value.value is None else value.value)
        if value.tier is None and value.bits is None and expected.status is not Status.OK:
            expected = expected._replace(value=math.nan)  # to clients of Feast none is shown
        if not _is_summed_of_nothing(version, value) and found.text != expected.text:
            kind = Kind.VALUE if found.status is expected.status else Kind.STATUS
            told = (found.text, expected.text)
            tally.differs(self._difference(kind, value, version, row, told))

    def _part(
        self,
        line: Served,
        version: FeatureVersion,
        value: ServedValue,
        made_of: Sequence[ServedRow],
        known: Mapping[_Wanted, Row | _Unknown],
    ) -> tuple[Part, Row | None]:
        """What the value should be, and the row of a stored one. Raises `_NotStored`."""
        rows: dict[RowId, SeenRow] = {}
        tiers: dict[RowId, Tier] = {}
        lagging: dict[tuple[str, Tier], bool] = {}
        for row in made_of:
            id, tier = RowId(row.source, row.entity), TIERS[row.tier]
            rows[id], tiers[id] = self._seen(row, line.moment, known), tier
            lagging[row.source, tier] = row.lagging
        recipe = self._recipe(version, value, made_of)
        for id in _ids(recipe):
            rows.setdefault(id, UNAVAILABLE)
            tiers.setdefault(id, Tier.NONE)
        behind = Moment(line.moment, lambda source, tier: lagging.get((source, tier), False))
        part = Evaluation(self._names, rows, tiers, behind).part(recipe)
        own = rows[recipe.row] if isinstance(recipe, StoredRecipe) else None
        return part, own if isinstance(own, Row) else None

    def _seen(
        self, row: ServedRow, moment: int, known: Mapping[_Wanted, Row | _Unknown]
    ) -> Row | None:
        wanted = _wanted(row, moment)
        if wanted is None:
            return None
        found = known[wanted]
        if isinstance(found, _Unknown):
            raise _NotStored(wanted, found.is_yet_to_come, found.is_gone)
        return found

    def _recipe(
        self, version: FeatureVersion, value: ServedValue, made_of: Sequence[ServedRow]
    ) -> Recipe:
        if version.source is not None:
            return StoredRecipe(version, self._row_id(version.source, value.entity))
        formula = self._names.derived[version.ref]
        sources = {part.source for part in formula.parts.values() if part.source is not None}
        if version.over is None:
            own = {source: self._row_id(source, value.entity) for source in sources}
            return DerivedRecipe(version, formula, [own])
        members = dict.fromkeys(row.entity for row in made_of if row.source == version.over)
        fields = self._names.catalog.sources[version.over].key
        entities: list[EntityRows] = []
        for member in sorted(members):
            entity = dict(zip(fields, member, strict=True))
            read = {*sources, version.over}
            entities.append({source: self._row_id(source, entity) for source in read})
        return DerivedRecipe(version, formula, entities)

    def _row_id(self, source: str, entity: Mapping[str, str]) -> RowId:
        fields = self._names.catalog.sources[source].key
        return RowId(source, tuple(entity[field] for field in fields))

    def _difference(
        self,
        kind: Kind,
        value: ServedValue,
        version: FeatureVersion,
        row: Row | None,
        told: tuple[str, str],
    ) -> Difference:
        source = version.source or version.over or "derived"
        entity = tuple(value.entity[field] for field in version.entity)
        time, sequence = (None, None) if row is None else (row.event_time, row.sequence)
        return Difference(Place.SERVED, kind, source, entity, time, sequence, version.ref, *told)

    # ------------------------------------------------------------ rows

    def _rows(self, lines: Sequence[Served]) -> dict[_Wanted, Row | _Unknown]:
        """The rows that lines name: in their row schema, or as another one of the tick has them."""
        named = (_wanted(row, line.moment) for line in lines for row in line.rows)
        wanted = dict.fromkeys(one for one in named if one is not None)
        found: dict[_Wanted, Row | _Unknown] = {}
        for one, rows in self._read([(one, one.schema_id) for one in wanted]).items():
            if isinstance(rows[0], Row):
                found[one] = rows[0]
        schemas = self._names.catalog.schemas.values()
        others = [
            (one, schema.id)
            for one in wanted
            if one not in found
            for schema in schemas
            if schema.source == one.source
        ]
        for one, rows in self._read(others).items():
            stored = [row for row in rows if isinstance(row, Row)]
            firsts = [row for row in rows if isinstance(row, Origin)]
            found[one] = self._unknown(one, firsts) if not stored else self._as_served(one, stored)
        return found

    def _read(
        self, asked: Sequence[tuple[_Wanted, int]]
    ) -> dict[_Wanted, list[Row | Origin | None]]:
        """Each row, or the origin of the first tick of its entity where it is not stored."""
        if not asked:
            return {}
        parameters = {
            "numbers": list(range(len(asked))),
            "schemas": [schema for _, schema in asked],
            "entities": [entity_id(one.entity) for one, _ in asked],
            "topics": [str(UUID(bytes=one.origin.topic_id)) for one, _ in asked],
            "partitions": [one.origin.partition for one, _ in asked],
            "offsets": [one.origin.offset for one, _ in asked],
            "indexes": [one.origin.index for one, _ in asked],
            "times": [one.moment + AHEAD_NS for one, _ in asked],
        }
        found: dict[_Wanted, list[Row | Origin | None]] = {one: [] for one, _ in asked}
        for row in self._snapshot.rows(ROWS_BY_ORIGIN, parameters):
            one = asked[row.number][0]
            found[one].append(_row(one, row))
        return found

    def _unknown(self, wanted: _Wanted, firsts: Sequence[Origin]) -> _Unknown:
        origin = wanted.origin
        following = self._offsets.get((origin.topic_id, origin.partition), 0)
        home = origin.topic_id, origin.partition
        is_gone = all(
            (first.topic_id, first.partition) != home or origin.offset < first.offset
            for first in firsts
        )
        return _Unknown(origin.offset >= following, is_gone)

    def _as_served(self, wanted: _Wanted, stored: Sequence[Row]) -> Row | _Unknown:
        """The row in the row schema that was served, made of others of the same tick.

        Redis may have it in a newer one, in which Postgres will have it as well.
        """
        catalog = self._names.catalog
        served = catalog.schemas.get(wanted.schema_id)
        if served is None:
            return _Unknown(is_yet_to_come=True, is_gone=False)
        values: list[float] = []
        statuses = bytearray()
        for ref in served.features:
            for row in stored:
                features = catalog.schemas[row.schema_id].features
                if ref in features and len(features) == len(row.values) == len(row.status):
                    values.append(row.values[features.index(ref)])
                    statuses.append(row.status[features.index(ref)])
                    break
            else:
                return _Unknown(is_yet_to_come=True, is_gone=False)
        first = stored[0]
        return Row(
            wanted.schema_id,
            *(first.event_time, first.sequence, first.known_at, wanted.origin),
            status=bytes(statuses),
            values=tuple(values),
        )


class _Shown(NamedTuple):
    """A value as it is, or should be, shown."""

    status: Status
    value: float

    @property
    def text(self) -> str:
        """Its bits and its status."""
        return f"{bits_text(self.value)}, {self.status.value}"


def lines_of(
    directory: Path, number: int | None, seed: str, since: int | None
) -> Iterator[list[Served]]:
    """The lines of logs, or so many of them that a seed draws, some at a time.

    Those of moments before `since`, nanoseconds UTC, are left out. Raises OSError.
    """
    every = read_served(directory)
    lines = (line for line in every if since is None or line.moment >= since)
    if number is not None:
        drawn = _drawn(lines, number, random.Random(f"{seed}/served"))
        lines = (line for line in drawn)
    while some := list(islice(lines, LINES)):
        yield some


def _drawn(lines: Iterator[Served], number: int, chance: random.Random) -> list[Served]:
    """So many lines, each as likely as another."""
    kept = list(islice(lines, number))
    for count, line in enumerate(lines, number + 1):
        which = chance.randrange(count)
        if which < number:
            kept[which] = line
    return kept


def _wanted(row: ServedRow, moment: int) -> _Wanted | None:
    if row.origin is None or row.schema_id is None:
        return None
    return _Wanted(row.source, row.entity, row.schema_id, row.origin, moment)


def _ids(recipe: Recipe) -> Iterator[RowId]:
    if isinstance(recipe, StoredRecipe):
        yield recipe.row
    else:
        for rows in recipe.entities or ():
            yield from rows.values()


def _row(wanted: _Wanted, found: Any) -> Row | Origin | None:
    if found.schema_id is not None:
        return Row(
            *(found.schema_id, found.event_time, found.sequence, found.known_at, wanted.origin),
            status=bytes(found.status),
            values=tuple(found.features),
        )
    if found.first_topic_id is None:
        return None
    topic = UUID(found.first_topic_id).bytes
    return Origin(topic, found.first_partition, found.first_offset, 0)


def _is_summed_of_nothing(version: FeatureVersion, value: ServedValue) -> bool:
    """Whether a sum had no members, or they could not be read: the log does not say which."""
    unknown = value.status in (Status.MISSING, Status.UNAVAILABLE)
    return version.over is not None and not value.rows and unknown


def _where(origin: Origin) -> str:
    topic = UUID(bytes=origin.topic_id)
    return f"{topic}[{origin.partition}]@{origin.offset}.{origin.index}"
