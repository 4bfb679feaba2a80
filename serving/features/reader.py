"""From packed rows to values with a status: interpret, combine, judge.

A request's features of an entity become keys to read; what is read becomes a part for each feature
(`registry.language.derived.Part`); derived features combine parts; age and lag judge what is left.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from msgspec import Struct

from registry.definitions import FeatureVersion
from registry.errors import CorruptRow
from registry.formats.redis_keys import entity_id, key_values, members_key, row_key
from registry.formats.row import Row, ValueStatus, unpack
from registry.formats.status import Status, worst
from registry.language.derived import Part
from serving.features.lookup import Names, check_entity
from serving.features.times import to_rfc_3339
from serving.stores.warm import UNAVAILABLE, Packed, Rows, Unavailable

logger = logging.getLogger(__name__)

MAX_MEMBERS = 5_000
"""Entities that the sums of a request may add up, each counted once however often it is asked."""

STATUS = {
    int(ValueStatus.OK): Status.OK,
    int(ValueStatus.WARMING): Status.WARMING,
    int(ValueStatus.UNDEFINED): Status.UNDEFINED,
}
MISSING = Part(math.nan, Status.MISSING, None)
NOT_ANSWERED = Part(math.nan, Status.UNAVAILABLE, None)


class Value(Struct):
    """A served value; `value` is null where the status says that there is none."""

    value: float | None
    status: Status
    version: str
    event_time: str | None
    age_seconds: float | None


class Answer(Struct):
    """The features of one entity, by the names that were asked."""

    entity: dict[str, str]
    features: dict[str, Value]


@dataclass(frozen=True, slots=True)
class Moment:
    """What an answer is judged by: the time, and which sources are behind."""

    now_ns: int
    lagging: Callable[[str], bool]


class Reader:
    """Answers questions about entities from one store.

    In three steps: find the members of what is summed up, read every row once, work out values.
    """

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    async def answer(
        self,
        names: Names,
        features: Sequence[str],
        entities: Sequence[Mapping[str, str]],
        moment: Moment,
    ) -> list[Answer]:
        """The features of each entity, each worked out once however often it is asked.

        Raises `UnknownFeature`, `WrongEntity` and `TooLarge`.
        """
        versions = {name: names.feature(name) for name in features}
        for entity in entities:
            for name, feature in versions.items():
                check_entity(name, feature, entity)
        wanted = {
            _identity(feature, entity): (feature, entity)
            for entity in entities
            for feature in versions.values()
        }
        members = await self._members(names, wanted.values())
        rows = await self._read(names, wanted.values(), members)
        look = _Look(names, members, rows, moment)
        values = {
            identity: _value(look.part(feature, entity), feature, moment)
            for identity, (feature, entity) in wanted.items()
        }
        return [
            Answer(
                entity=dict(entity),
                features={
                    name: values[_identity(feature, entity)] for name, feature in versions.items()
                },
            )
            for entity in entities
        ]

    async def _members(self, names: Names, wanted: Collection[Wanted]) -> Members:
        """The entities of each source that is summed up, by the set that holds them."""
        keys = {
            key
            for feature, entity in wanted
            if (key := _members_key(names, feature, entity)) is not None
        }
        found = await self._rows.members(list(keys), MAX_MEMBERS)
        return dict(zip(keys, found, strict=True))

    async def _read(
        self, names: Names, wanted: Collection[Wanted], members: Members
    ) -> dict[str, Row | Unavailable | None]:
        """Every row that the answers need, by its key."""
        keys: dict[str, None] = {}
        for feature, entity in wanted:
            for part, one in _parts(names, feature, entity, members):
                keys[_row_key(names, part, one)] = None
        packed = await self._rows.get(list(keys))
        return {key: _unpacked(row) for key, row in zip(keys, packed, strict=True)}


Wanted = tuple[FeatureVersion, Mapping[str, str]]
Members = Mapping[str, list[str] | Unavailable]


@dataclass(frozen=True, slots=True)
class _Look:
    """Works values out of what was read."""

    names: Names
    members: Members
    rows: Mapping[str, Row | Unavailable | None]
    moment: Moment

    def part(self, feature: FeatureVersion, entity: Mapping[str, str]) -> Part:
        if not feature.derived:
            return self._materialized(feature, entity)
        compiled = self.names.derived[feature.ref]
        over = _entities(self.names, feature, entity, self.members)
        if over is None:
            return NOT_ANSWERED
        return compiled.derived.evaluate(
            [
                {name: self._materialized(part, one) for name, part in compiled.parts.items()}
                for one in over
            ]
        )

    def _materialized(self, feature: FeatureVersion, entity: Mapping[str, str]) -> Part:
        row = self.rows[_row_key(self.names, feature, entity)]
        if isinstance(row, Unavailable):
            return NOT_ANSWERED
        if row is None:
            return MISSING
        schema = self.names.catalog.schemas.get(row.schema_id)
        if schema is None or len(schema.features) != len(row.values):
            logger.error("a row of unknown schema %d: the registry is read anew", row.schema_id)
            return NOT_ANSWERED
        place = self.names.place(row.schema_id, feature.ref)
        if place is None:  # the row is of an older schema, which does not have the feature
            return MISSING
        status = STATUS.get(row.status[place])
        if status is None:
            logger.error("a row has the status byte %d, which means nothing", row.status[place])
            return NOT_ANSWERED
        return _judged(Part(row.values[place], status, row.event_time), feature, self.moment)


def _identity(feature: FeatureVersion, entity: Mapping[str, str]) -> tuple[str, ...]:
    return (feature.ref, *(entity[field] for field in feature.entity))


def _parts(
    names: Names, feature: FeatureVersion, entity: Mapping[str, str], members: Members
) -> Iterator[Wanted]:
    """The materialized features that a feature is made of, with their entities."""
    if not feature.derived:
        yield feature, entity
        return
    for one in _entities(names, feature, entity, members) or ():
        for part in names.derived[feature.ref].parts.values():
            yield part, one


def _entities(
    names: Names, feature: FeatureVersion, entity: Mapping[str, str], members: Members
) -> Sequence[Mapping[str, str]] | None:
    """The entities that a derived feature is computed of, in order; None when that is not known."""
    key = _members_key(names, feature, entity)
    if key is None or feature.over is None:
        return [entity]
    found = members[key]
    if isinstance(found, Unavailable):
        return None
    fields = names.catalog.sources[feature.over].key
    given = [entity[field] for field in fields if field in entity]
    keys = [(given[0], *key_values(member)) for member in found]
    return [dict(zip(fields, key, strict=True)) for key in keys if list(key[: len(given)]) == given]


def _members_key(names: Names, feature: FeatureVersion, entity: Mapping[str, str]) -> str | None:
    """Where the entities are that a derived feature sums up, None when it does not."""
    if feature.over is None:
        return None
    source = names.catalog.sources[feature.over]
    return members_key(source.name, entity[source.key[0]])


def _row_key(names: Names, feature: FeatureVersion, entity: Mapping[str, str]) -> str:
    assert feature.source is not None, "a derived feature has no row"
    source = names.catalog.sources[feature.source]
    return row_key(source.name, entity_id([entity[field] for field in source.key]))


def _unpacked(packed: Packed) -> Row | Unavailable | None:
    if packed is None or isinstance(packed, Unavailable):
        return packed
    try:
        return unpack(packed)
    except CorruptRow as error:
        logger.error("%s", error)
        return UNAVAILABLE


def _judged(part: Part, feature: FeatureVersion, moment: Moment) -> Part:
    """The part with what its age and its pipeline's lag make of its status."""
    status = part.status
    if (
        feature.max_age_ns is not None
        and part.event_time is not None
        and moment.now_ns - part.event_time > feature.max_age_ns
    ):
        status = worst((status, Status.STALE))
    if feature.source is not None and moment.lagging(feature.source):
        status = worst((status, Status.LAGGING))
    return Part(part.value, status, part.event_time)


def _value(part: Part, feature: FeatureVersion, moment: Moment) -> Value:
    judged = _judged(part, feature, moment) if feature.derived else part
    time = judged.event_time
    return Value(
        value=None if math.isnan(judged.value) else judged.value,
        status=judged.status,
        version=feature.version,
        event_time=None if time is None else to_rfc_3339(time),
        age_seconds=None if time is None else (moment.now_ns - time) / 1e9,
    )
