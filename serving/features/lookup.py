"""Which version of a feature a name in a request means, and whether it fits the entities."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from registry.definitions import Catalog, FeatureVersion
from registry.language.derived import Derived, compile_derived
from serving.errors import UnknownFeature, WrongEntity

Kind = frozenset[str]
"""A kind of entity: the names of its key fields."""


@dataclass(frozen=True, slots=True)
class DerivedFeature:
    """A derived feature, compiled, with the versions of its parts."""

    derived: Derived
    parts: Mapping[str, FeatureVersion]


class Names:
    """The names of one catalog; a changed catalog gets another object."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self._by_name: dict[str, FeatureVersion] = dict(catalog.features)
        active = {name: catalog.features[f"{name}@{v}"] for name, v in catalog.active.items()}
        for name, feature in active.items():
            for alias in (name, *feature.aliases):
                self._by_name[alias] = feature
                for version in catalog.features.values():
                    if version.name == name:
                        self._by_name[f"{alias}@{version.version}"] = version
        self.derived = {
            feature.ref: self._compile(feature)
            for feature in catalog.features.values()
            if feature.derived
        }
        self._indexes = {
            (schema.id, ref): index
            for schema in catalog.schemas.values()
            for index, ref in enumerate(schema.features)
        }

    def feature(self, name: str) -> FeatureVersion:
        """The version that a name, `name@version` or alias means. Raises `UnknownFeature`."""
        feature = self._by_name.get(name)
        if feature is None:
            near = get_close_matches(name, self._by_name, n=3)
            hint = f"; near it are {', '.join(near)}" if near else ""
            raise UnknownFeature(f"there is no feature {name!r}{hint}", feature=name)
        return feature

    def index(self, schema_id: int, ref: str) -> int | None:
        """The index of a feature in rows of a schema, None when they do not hold it."""
        return self._indexes.get((schema_id, ref))

    def _compile(self, feature: FeatureVersion) -> DerivedFeature:
        derived = compile_derived(feature.expression, feature.ref)
        return DerivedFeature(derived, {name: self.feature(name) for name in derived.names})


def check_entities(
    names: Names, versions: Mapping[str, FeatureVersion], entities: Iterable[Collection[str]]
) -> None:
    """Raises `WrongEntity` unless features and entities go together.

    Each of the features, by requested name, must be of the kind of one of the entities, and each
    entity, of which only the key fields count, of the kind of one of the features.
    """
    asked: dict[Kind, str] = {}
    for name, feature in versions.items():
        asked.setdefault(frozenset(feature.entity), name)
    given: dict[Kind, Collection[str]] = {}
    for entity in entities:
        given.setdefault(frozenset(entity), entity)
    for kind, name in asked.items():
        if kind not in given:
            right = ", ".join(versions[name].entity)
            others = " or ".join(f"({', '.join(entity)})" for entity in given.values())
            raise WrongEntity(
                f"{name} is a feature of ({right}), not of {others}: name {right}",
                feature=name,
                entity=list(versions[name].entity),
            )
    for kind, entity in given.items():
        if kind not in asked:
            raise WrongEntity(
                f"none of these features is of ({', '.join(entity)}): {_way_out(names, kind)}",
                entity=list(entity),
            )


def _way_out(names: Names, kind: Kind) -> str:
    """What to do with an entity of a kind that no requested feature is of."""
    active = [names.feature(name) for name in sorted(names.catalog.active)]
    fitting = [feature.name for feature in active if frozenset(feature.entity) == kind]
    if fitting:
        return f"ask for one that is, as {' or '.join(fitting[:3])}, or leave the entity out"
    kinds = {frozenset(feature.entity): f"({', '.join(feature.entity)})" for feature in active}
    return f"features are of {', '.join(sorted(kinds.values()))}"
