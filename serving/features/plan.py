"""What a request reads, and how each of its values is made.

    features, entities ──► Selection ──► member sets ──► Plan ──► rows ──► values
                           (checked)     (from a store)           (from a store)

A plan names rows by source and entity; which store has them, and under which key, is not its
concern. It is the only walk over derived features: what evaluates a plan follows its recipes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from registry.definitions import FeatureVersion, Source
from registry.language.derived import Derived
from serving.features.lookup import Names, check_entities
from serving.stores.row_store import Key, MemberSet, RowId, Unavailable

Entity = Mapping[str, str]
"""An entity as requests name it: the value of each key field by the field's name."""

Identity = tuple[str, Key]
"""What is answered once however often it is requested: a feature's `name@version` of an entity."""

Members = Mapping[MemberSet, Sequence[Key] | Unavailable]


class StoredRecipe(NamedTuple):
    """Take the feature from a row."""

    feature: FeatureVersion
    row: RowId


class DerivedRecipe(NamedTuple):
    """Compute the feature of others.

    `inputs` has a mapping of names to recipes for each entity, in the order of adding; it is None
    when the store did not say which entities there are.
    """

    feature: FeatureVersion
    derived: Derived
    inputs: Sequence[Mapping[str, StoredRecipe]] | None


Recipe = StoredRecipe | DerivedRecipe


class PlannedAnswer(NamedTuple):
    """One entity of the request with what it is answered, by the names that were requested."""

    entity: Entity
    values: Mapping[str, Identity]


@dataclass(frozen=True, slots=True)
class Plan:
    """Rows to read, each once, the recipe of each value, and the answers that they go into."""

    rows: Sequence[RowId]
    recipes: Mapping[Identity, Recipe]
    answers: Sequence[PlannedAnswer]


@dataclass(frozen=True, slots=True)
class Selection:
    """Features of entities, known to go together; `select` makes one."""

    names: Names
    versions: Mapping[str, FeatureVersion]
    entities: Sequence[Entity]

    def member_sets(self) -> list[MemberSet]:
        """The sets whose members have to be known before there can be a plan, each once."""
        sources = [
            self.names.catalog.sources[feature.over]
            for feature in self.versions.values()
            if feature.over is not None
        ]
        return list(
            dict.fromkeys(
                _member_set(source, entity) for entity in self.entities for source in sources
            )
        )

    def plan(self, members: Members) -> Plan:
        """The plan, given the members of each of `member_sets`."""
        columns = [(name, feature.ref, feature) for name, feature in self.versions.items()]
        kinds = {feature.entity for feature in self.versions.values()}
        sources = self._sources(self._read_directly())
        rows: dict[RowId, None] = {}
        recipes: dict[Identity, Recipe] = {}
        answers = []
        for entity in self.entities:
            keys = {fields: _key(fields, entity) for fields in kinds}
            own: dict[str, RowId] = {}
            values = {}
            for name, ref, feature in columns:
                identity = values[name] = (ref, keys[feature.entity])
                if identity in recipes:
                    continue
                if not own:  # else an entity that is named again would cost as much again
                    own = _row_ids(sources, entity, rows)
                if feature.source is not None:
                    recipes[identity] = StoredRecipe(feature, own[feature.source])
                else:
                    inputs = self._inputs(feature, entity, own, members, rows)
                    derived = self.names.derived[ref].derived
                    recipes[identity] = DerivedRecipe(feature, derived, inputs)
            answers.append(PlannedAnswer(entity, values))
        return Plan(list(rows), recipes, answers)

    def _read_directly(self) -> Iterator[FeatureVersion]:
        """The stored features that are read for the requested entities themselves."""
        for feature in self.versions.values():
            if not feature.derived:
                yield feature
            elif feature.over is None:
                yield from self.names.derived[feature.ref].parts.values()

    def _inputs(
        self,
        feature: FeatureVersion,
        entity: Entity,
        own: Mapping[str, RowId],
        members: Members,
        rows: dict[RowId, None],
    ) -> list[Mapping[str, StoredRecipe]] | None:
        """The inputs of a derived feature; the rows of members are added to `rows`."""
        parts = self.names.derived[feature.ref].parts
        if feature.over is None:
            return [_from_rows(parts, own)]
        over = self.names.catalog.sources[feature.over]
        found = members[_member_set(over, entity)]
        if isinstance(found, Unavailable):
            return None
        sources = self._sources(parts.values())
        # An entity may name more key fields than the message key, which the set belongs to.
        given = tuple(entity[field] for field in over.key if field in entity)
        return [
            _from_rows(parts, _row_ids(sources, dict(zip(over.key, key, strict=True)), rows))
            for key in found
            if key[: len(given)] == given
        ]

    def _sources(self, features: Iterable[FeatureVersion]) -> list[Source]:
        """The sources of stored features, each once."""
        names = dict.fromkeys(feature.source for feature in features)
        return [self.names.catalog.sources[name] for name in names if name is not None]


def select(names: Names, features: Iterable[str], entities: Sequence[Entity]) -> Selection:
    """The features of the entities. Raises `UnknownFeature` and `WrongEntity`."""
    versions = {name: names.feature(name) for name in features}
    check_entities(versions, entities)
    return Selection(names, versions, entities)


def _key(fields: Iterable[str], entity: Entity) -> Key:
    return tuple([entity[field] for field in fields])  # faster than of a generator


def _member_set(source: Source, entity: Entity) -> MemberSet:
    return MemberSet(source.name, entity[source.key[0]])


def _row_ids(
    sources: Iterable[Source], entity: Entity, rows: dict[RowId, None]
) -> dict[str, RowId]:
    """The row of the entity in each source, by the source's name; they are added to `rows`."""
    found = {source.name: RowId(source.name, _key(source.key, entity)) for source in sources}
    for row in found.values():
        rows[row] = None
    return found


def _from_rows(
    parts: Mapping[str, FeatureVersion], rows: Mapping[str, RowId]
) -> dict[str, StoredRecipe]:
    """The recipe of each part, taken from the entity's row in the part's source."""
    return {
        name: StoredRecipe(part, rows[part.source])
        for name, part in parts.items()
        if part.source is not None
    }
