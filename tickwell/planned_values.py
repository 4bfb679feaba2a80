"""The values that the new versions of a plan would have, beside those of the active ones.

Of a version of a source they are those of the last ticks of a few entities. A derived version has
one of now: it is computed as a server would, of the newest rows in Postgres, to which are added the
values of parts that are new themselves.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from msgspec import structs

from pipelines.stores.postgres.preview import Preview
from registry.definitions import Catalog, FeatureVersion, RowSchema
from registry.features_file import Text, read_text
from registry.formats.entity_name import entity_id, key_values
from registry.formats.row import pack, unpack
from registry.lifecycle.changes import changes_of
from registry.lifecycle.plan import Plan
from registry.lifecycle.registry import Registry
from serving.errors import ServingError
from serving.features.lookup import Names
from serving.features.reader import Reader
from serving.features.times import to_rfc_3339
from serving.features.values import Moment, Value
from serving.stores.cold import ColdStore
from serving.stores.row_store import (
    Group,
    Key,
    MemberSet,
    Packed,
    RowId,
    TieredRows,
    Unavailable,
)

MOST_VERSIONS = 20
"""Number of new versions of a plan whose values are shown."""

MOST_ENTITIES = 3
"""Entities that are shown of each: those that have ticked last."""

MOST_TICKS = 5
"""Ticks of each entity."""

MOST_RECENT = 100
"""Entities that have ticked last among which those are that a derived version is of."""

WITH_NEW = 2**31
"""What is added to the id of a row schema with new versions: above all ids that Postgres gives."""


class PlannedValue(NamedTuple):
    """A value at `event_time` (RFC 3339), and that of the active version at the same tick.

    None where the status says why; the active version's status is None where there is none.
    """

    event_time: str | None
    value: float | None
    status: str
    active_value: float | None = None
    active_status: str | None = None


class EntityValues(NamedTuple):
    """The last values of an entity, by key fields, the oldest first."""

    entity: Mapping[str, str]
    values: Sequence[PlannedValue]


class VersionValues(NamedTuple):
    """What a new version would have said, and the active one beside it, if there is one.

    `without` says why there are no entities.
    """

    ref: str
    active: str | None
    entities: Sequence[EntityValues]
    without: str | None = None


def planned_values(postgres: str, registry: Registry, plan: Plan) -> list[VersionValues]:
    """The values of the first new versions of a plan, in its order, of what is in `postgres`.

    Raises `PipelineError` where Postgres does not answer.
    """
    known = registry.known()
    catalog = _with_new(known, plan, registry.rejected_topic)
    preview = Preview(postgres, catalog)
    try:
        shown = [catalog.features[one.ref] for one in plan.page.new[:MOST_VERSIONS]]
        stored = _StoredValues(preview, known, catalog)
        found = {one.ref: one for one in stored.of([f for f in shown if not f.derived])}
        derived = [feature for feature in shown if feature.derived]
        if derived:
            values = _DerivedValues(postgres, preview, known, catalog)
            found |= {one.ref: one for one in asyncio.run(values.of(derived))}
        return [found[feature.ref] for feature in shown]
    finally:
        preview.close()


def _with_new(known: Catalog, plan: Plan, rejected_topic: str | None) -> Catalog:
    """What would be recorded of versions and sources, with all pins."""
    definitions = read_text(Text(plan.file, plan.text), known)
    versions = changes_of(known, definitions, rejected_topic).versions
    return structs.replace(
        known,
        sources={source.name: source for source in definitions.sources} | known.sources,
        features={feature.ref: feature for feature in versions} | known.features,
    )


def _active(known: Catalog, feature: FeatureVersion) -> FeatureVersion | None:
    """The active version beside which a new one is shown."""
    found = known.features.get(f"{feature.name}@{known.active.get(feature.name)}")
    return found if found is not None and found.source == feature.source else None


class _StoredValues:
    """Values of versions of sources at the last ticks."""

    def __init__(self, preview: Preview, known: Catalog, catalog: Catalog) -> None:
        self._preview = preview
        self._known = known
        self._catalog = catalog

    def of(self, features: Sequence[FeatureVersion]) -> Iterator[VersionValues]:
        """The values of versions; the ticks of a source are read once."""
        by_source = defaultdict[str, list[FeatureVersion]](list)
        for feature in features:
            by_source[feature.source or ""].append(feature)
        for source, versions in by_source.items():
            if source in self._known.sources:
                yield from self._of_source(source, versions)
            else:
                for feature in versions:
                    yield VersionValues(feature.ref, None, (), "its source is new")

    def _of_source(
        self, source: str, versions: Sequence[FeatureVersion]
    ) -> Iterator[VersionValues]:
        beside = {feature.ref: _active(self._known, feature) for feature in versions}
        refs = [f.ref for f in (*versions, *beside.values()) if f is not None]
        entities = self._preview.recent_entities(source, MOST_ENTITIES)
        unique = list(dict.fromkeys(refs))
        last = self._preview.last_ticks(source, unique, entities, MOST_TICKS)
        key = self._catalog.sources[source].key
        without = None if last else f"no tick of {source} is stored"
        for feature in versions:
            active, found = beside[feature.ref], []
            for one in last:
                times = map(to_rfc_3339, one.event_times)
                own = one.values[feature.ref]
                other: Iterable[tuple[float | None, str | None]] = (
                    [(None, None)] * len(own) if active is None else one.values[active.ref]
                )
                values = [
                    PlannedValue(at, *value, *beside_it)
                    for at, value, beside_it in zip(times, own, other, strict=True)
                ]
                entity = dict(zip(key, key_values(one.entity), strict=True))
                found.append(EntityValues(entity, values))
            yield VersionValues(feature.ref, None if active is None else active.ref, found, without)


class _DerivedValues:
    """Values of derived versions of now."""

    def __init__(self, url: str, preview: Preview, known: Catalog, catalog: Catalog) -> None:
        self._url = url
        self._preview = preview
        self._known = known
        self._catalog = catalog
        self._new = defaultdict[str, list[str]](list)
        for ref in catalog.features.keys() - known.features.keys():
            source = catalog.features[ref].source
            if source in known.sources:
                self._new[source].append(ref)

    async def of(self, features: Sequence[FeatureVersion]) -> list[VersionValues]:
        """The values of derived versions of the entities that have ticked last."""
        parts = {ref for feature in features for ref in feature.parts}
        new = {source: sorted(parts.intersection(refs)) for source, refs in self._new.items()}
        cold = ColdStore(self._url)
        try:
            store = _RowsWithNew(cold, self._catalog, new, self._preview.newest)
            names = Names(store.catalog)
            return [await self._of(Reader(store), names, feature) for feature in features]
        finally:
            await cold.close()

    async def _of(self, reader: Reader, names: Names, feature: FeatureVersion) -> VersionValues:
        active = _active(self._known, feature)
        refs = [feature.ref] if active is None else [feature.ref, active.ref]
        beside = None if active is None else active.ref
        entities = self._entities(feature)
        if not entities:
            return VersionValues(feature.ref, beside, (), "no entity of it has ticked")
        moment = Moment(time.time_ns(), lambda source, tier: False)
        try:
            answers = await reader.answer(names, refs, entities, lambda: moment)
        except ServingError as error:
            return VersionValues(feature.ref, beside, (), str(error))
        found = [
            EntityValues(answer.entity, [_planned(answer.features, feature.ref, beside)])
            for answer in answers
        ]
        return VersionValues(feature.ref, beside, found)

    def _entities(self, feature: FeatureVersion) -> list[dict[str, str]]:
        """The entities of a derived version that have ticked last, in a source that has them."""
        sources = self._known.sources
        read = (
            [feature.over]
            if feature.over
            else [self._catalog.features[part].source for part in feature.parts]
        )
        for name in read:
            if name in sources and set(feature.entity) <= set(sources[name].key):
                keys = sources[name].key
                recent = map(key_values, self._preview.recent_entities(name, MOST_RECENT))
                whole = (dict(zip(keys, values, strict=True)) for values in recent)
                own = (tuple(one[field] for field in feature.entity) for one in whole)
                first = list(dict.fromkeys(own))[:MOST_ENTITIES]
                return [dict(zip(feature.entity, values, strict=True)) for values in first]
        return []


def _planned(answered: Mapping[str, Value], ref: str, active: str | None) -> PlannedValue:
    own = answered[ref]
    if active is None:
        return PlannedValue(own.event_time, own.value, own.status)
    other = answered[active]
    return PlannedValue(own.event_time, own.value, own.status, other.value, other.status)


Newest = Callable[[str, Sequence[str], Sequence[str]], Mapping[str, tuple[Sequence[float], bytes]]]
"""`Preview.newest`."""


class _RowsWithNew:
    """The `RowStore` of Postgres, in whose rows the versions in `new`, by source, have values too.

    Such a row is in a row schema of its own, which `catalog` has: that of the stored row, and the
    new versions behind it.
    """

    def __init__(
        self, cold: ColdStore, catalog: Catalog, new: Mapping[str, Sequence[str]], newest: Newest
    ) -> None:
        self._cold = cold
        self._new = {source: refs for source, refs in new.items() if refs}
        self._newest = newest
        added = {
            each.id + WITH_NEW: RowSchema(
                each.id + WITH_NEW, each.source, (*each.features, *self._new[each.source])
            )
            for each in catalog.schemas.values()
            if each.source in self._new
        }
        self.catalog = structs.replace(catalog, schemas=catalog.schemas | added)

    def pinned(self) -> _RowsWithNew:
        return self

    async def rows(self, wanted: Sequence[RowId]) -> TieredRows:
        read = await self._cold.rows(wanted)
        rows = list(read.rows)
        for source, refs in self._new.items():
            which = [
                place
                for place, row in enumerate(wanted)
                if row.source == source and isinstance(rows[place], bytes)
            ]
            names = {place: entity_id(wanted[place].entity) for place in which}
            found = self._newest(source, refs, list(names.values()))
            for place, name in names.items():
                rows[place] = _with_values(rows[place], *found.get(name, ((), b"")))
        return TieredRows(rows, read.tier)

    async def members(
        self, wanted: Sequence[MemberSet], most: int
    ) -> list[list[Key] | Unavailable]:
        return await self._cold.members(wanted, most)

    async def last_closed(self, wanted: Sequence[Group]) -> list[Key | Unavailable | None]:
        return await self._cold.last_closed(wanted)

    async def close(self) -> None:
        await self._cold.close()


def _with_values(packed: Packed, values: Sequence[float], status: bytes) -> Packed:
    """A row in which the new versions of its source have values too."""
    if not isinstance(packed, bytes) or not values:
        return packed
    row = unpack(packed)
    return pack(
        structs.replace(
            row,
            schema_id=row.schema_id + WITH_NEW,
            status=row.status + status,
            values=(*row.values, *values),
        )
    )
