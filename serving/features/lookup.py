"""Which version of a feature a name in a request means, and whether it fits the entity."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from registry.definitions import Catalog, FeatureVersion
from registry.language.arithmetic import Arithmetic, compile_arithmetic
from registry.language.derived import Derived, compile_derived
from serving.errors import UnknownFeature, WrongEntity


@dataclass(frozen=True, slots=True)
class DerivedFeature:
    """A derived feature, compiled, with the versions of its parts.

    `arithmetic` computes it where all parts have values; a sum over entities has none.
    """

    derived: Derived
    parts: Mapping[str, FeatureVersion]
    arithmetic: Arithmetic | None


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
        expression, where = feature.expression, feature.ref
        derived = compile_derived(expression, where)
        arithmetic = None if derived.sums else compile_arithmetic(expression, where)
        parts = {name: self.feature(name) for name in derived.names}
        return DerivedFeature(derived, parts, arithmetic)


def check_entities(
    versions: Mapping[str, FeatureVersion], entities: Iterable[Mapping[str, str]]
) -> None:
    """Raises `WrongEntity` unless all features, by requested name, are of the entities' kind."""
    kinds: dict[frozenset[str], str] = {}
    for name, feature in versions.items():
        kinds.setdefault(frozenset(feature.entity), name)
    for entity in entities:
        for fields, name in kinds.items():
            if fields != entity.keys():
                right = ", ".join(versions[name].entity)
                raise WrongEntity(
                    f"{name} is a feature of ({right}), not of ({', '.join(entity)}): name {right}",
                    feature=name,
                    entity=list(versions[name].entity),
                )
