"""What a request reads, and how each of its values is made.

    features, entities ──► Selection ──► member sets ──► Plan ──► rows ──► values
                           (checked)     (from a store)           (from a store)

A plan names rows by source and entity; which store has them, and under which key, is not its
concern. It is the only walk over derived features: what evaluates a plan follows its recipes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from registry.definitions import Arm, Experiment, FeatureVersion, Source
from registry.experiments import arm_of
from registry.formats.entity_name import entity_id
from serving.features.lookup import DerivedFeature, Kind, Names, check_entities
from serving.stores.row_store import Group, Key, MemberSet, RowId, Unavailable

Entity = Mapping[str, str]
"""An entity as requests name it: the value of each key field by the field's name."""

Identity = tuple[str, Key]
"""What is answered once however often it is requested: a feature's `name@version` of an entity."""

Members = Mapping[MemberSet, Sequence[Key] | Unavailable]
Closed = Mapping[Group, Key | Unavailable | None]
"""Of each group of entities that is summed over the one that was closed last."""

Rows = Mapping[str, RowId]
"""The rows of one entity by the names of their sources."""


class StoredRecipe(NamedTuple):
    """Take the feature from a row."""

    feature: FeatureVersion
    row: RowId


class DerivedRecipe(NamedTuple):
    """Compute the feature of parts, each taken from a row of its source.

    `entities` has the rows of each entity that is computed of, in the order of adding; of a sum,
    with its row in the source that is summed over, which says whether it is closed. It is None when
    the store did not say which entities belong to a sum.
    """

    feature: FeatureVersion
    formula: DerivedFeature
    entities: Sequence[Rows] | None


Recipe = StoredRecipe | DerivedRecipe


class _Column(NamedTuple):
    """A name of a request, and what it means."""

    name: str
    ref: str
    feature: FeatureVersion


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
    """Features of entities, known to go together; `select` makes one.

    An entity is answered the features of its kind. Where an experiment decides what a name means
    (`tested`), that depends on the entity, or on the `consumer` who asks.
    """

    names: Names
    versions: Mapping[str, FeatureVersion]
    entities: Sequence[Entity]
    tested: Mapping[str, Experiment] = field(default_factory=dict)
    consumer: Callable[[], str] = lambda: ""

    def member_sets(self) -> list[MemberSet]:
        """The sets whose members have to be known before there can be a plan, each once."""
        return list(dict.fromkeys(_member_set(*summed) for summed in self._summed()))

    def groups(self) -> list[Group]:
        """What sums are over, each once."""
        return list(dict.fromkeys(_group(*summed) for summed in self._summed()))

    def _summed(self) -> Iterator[tuple[Source, Entity]]:
        sources = self.names.catalog.sources
        of_kinds = {
            kind: dict.fromkeys(f.over for f in versions.values() if f.over is not None)
            for kind, versions in self._read_of_kinds().items()
        }
        for entity in self.entities:
            for over in of_kinds[frozenset(entity)]:
                yield sources[over], entity

    def _of_kinds(self) -> dict[Kind, dict[str, FeatureVersion]]:
        """The features of each kind of entity."""
        found: dict[Kind, dict[str, FeatureVersion]] = {}
        for name, feature in self.versions.items():
            found.setdefault(frozenset(feature.entity), {})[name] = feature
        return found

    def _read_of_kinds(self) -> dict[Kind, dict[str, FeatureVersion]]:
        """The same with the versions that any of the entities may be answered."""
        found = self._of_kinds()
        for experiment in self.tested.values():
            for arm in experiment.arms:
                feature = self._version_of(experiment, arm)
                found[frozenset(feature.entity)][feature.ref] = feature
        return found

    def _version_of(self, experiment: Experiment, arm: Arm) -> FeatureVersion:
        return self.names.feature(f"{experiment.feature}@{arm.version}")

    def _chosen(self, columns: Sequence[_Column], entity: Entity) -> list[_Column]:
        """The columns of an entity, of whose features some are decided by experiments."""
        found = []
        for column in columns:
            experiment = self.tested.get(column.name)
            if experiment is not None:
                if experiment.by == "consumer":
                    subject = self.consumer()
                else:
                    subject = entity_id(_key(column.feature.entity, entity))
                feature = self._version_of(experiment, arm_of(experiment, subject))
                column = _Column(column.name, feature.ref, feature)
            found.append(column)
        return found

    def plan(self, members: Members, closed: Closed) -> Plan:
        """The plan, given the members of each of `member_sets` and the last close of `groups`."""
        of_kinds = self._of_kinds()
        planner = _Planner(self.names, members, closed, self._read_of_kinds())
        columns_of = {
            kind: (
                {feature.entity for feature in versions.values()},
                [_Column(name, feature.ref, feature) for name, feature in versions.items()],
            )
            for kind, versions in of_kinds.items()
        }
        recipes: dict[Identity, Recipe] = {}
        answers = []
        for entity in self.entities:
            orders, columns = columns_of[frozenset(entity)]
            keys = {fields: _key(fields, entity) for fields in orders}
            own: Rows | None = None
            values = {}
            if self.tested:
                columns = self._chosen(columns, entity)
            for name, ref, feature in columns:
                identity = values[name] = (ref, keys[feature.entity])
                if identity in recipes:
                    continue
                if own is None:  # else an entity that is named again would cost as much again
                    own = planner.own_rows(entity)
                recipes[identity] = planner.recipe(feature, ref, entity, own)
            answers.append(PlannedAnswer(entity, values))
        return Plan(list(planner.rows), recipes, answers)


class _Planner:
    """Makes the recipes of a plan and collects the `rows` that they name, each once."""

    def __init__(
        self,
        names: Names,
        members: Members,
        closed: Closed,
        features: Mapping[Kind, Mapping[str, FeatureVersion]],
    ) -> None:
        self._names = names
        self._members = members
        self._closed = closed
        self._own = {
            kind: self._sources(self._direct(versions.values()))
            for kind, versions in features.items()
        }
        self._sums: dict[tuple[str, tuple[str, ...], Key], list[Rows]] = {}
        self.rows: dict[RowId, RowId] = {}

    def own_rows(self, entity: Entity) -> Rows:
        """The rows that are read of the entity itself, and not of the members of a sum."""
        return self._rows(self._own[frozenset(entity)], entity)

    def recipe(self, feature: FeatureVersion, ref: str, entity: Entity, own: Rows) -> Recipe:
        """The recipe of a feature, `ref`, of an entity, whose own rows are `own`."""
        if feature.source is not None:
            return StoredRecipe(feature, own[feature.source])
        formula = self._names.derived[ref]
        if feature.over is None:
            return DerivedRecipe(feature, formula, [own])
        return DerivedRecipe(feature, formula, self._summed(feature.over, formula, entity))

    def _summed(self, over: str, formula: DerivedFeature, entity: Entity) -> list[Rows] | None:
        """The rows of each entity of a sum; sums of the same entities and sources share them.

        The one that was closed last is among them: if there are no others, the sum is 0 since then.
        """
        source = self._names.catalog.sources[over]
        group = _group(source, entity)
        found, closed = self._members[_member_set(source, entity)], self._closed.get(group)
        if isinstance(found, Unavailable) or isinstance(closed, Unavailable):
            return None
        given = group.key
        sources = self._sources(formula.parts.values())
        if source not in sources:
            sources.append(source)
        shared = (over, tuple(one.name for one in sources), given)
        if shared not in self._sums:
            # An entity may name more key fields than the message key, which the set belongs to.
            summed = [key for key in found if key[: len(given)] == given]
            if closed is not None and closed not in summed:
                summed = sorted([*summed, closed])
            self._sums[shared] = [
                self._rows(sources, dict(zip(source.key, key, strict=True))) for key in summed
            ]
        return self._sums[shared]

    def _rows(self, sources: Iterable[Source], entity: Entity) -> dict[str, RowId]:
        """The row of the entity in each source; equal rows of a plan are the same object."""
        found = {}
        for source in sources:
            row = RowId(source.name, _key(source.key, entity))
            found[source.name] = self.rows.setdefault(row, row)
        return found

    def _direct(self, features: Iterable[FeatureVersion]) -> Iterator[FeatureVersion]:
        """The stored features that are read of the requested entities themselves."""
        for feature in features:
            if not feature.derived:
                yield feature
            elif feature.over is None:
                yield from self._names.derived[feature.ref].parts.values()

    def _sources(self, features: Iterable[FeatureVersion]) -> list[Source]:
        """The sources of stored features, each once."""
        names = dict.fromkeys(feature.source for feature in features)
        return [self._names.catalog.sources[name] for name in names if name is not None]


def select(
    names: Names,
    features: Sequence[str],
    entities: Sequence[Entity],
    consumer: Callable[[], str] = lambda: "",
) -> Selection:
    """The features of the entities. Raises as `Names.versions`, and `WrongEntity`."""
    versions = names.versions(features)
    check_entities(names, versions, entities)
    return Selection(names, versions, entities, names.tested(features), consumer)


def _key(fields: Iterable[str], entity: Entity) -> Key:
    return tuple([entity[field] for field in fields])  # faster than of a generator


def _member_set(source: Source, entity: Entity) -> MemberSet:
    return MemberSet(source.name, entity[source.key[0]])


def _group(source: Source, entity: Entity) -> Group:
    return Group(source.name, tuple(entity[field] for field in source.key if field in entity))
