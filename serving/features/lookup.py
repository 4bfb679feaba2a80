"""Which version of a feature a name in a request means, and whether it fits the entities."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC
from difflib import get_close_matches

from registry.definitions import SET_PREFIX, Catalog, Experiment, FeatureVersion
from registry.language.derived import Derived, compile_derived
from registry.lifecycle.states import retired_text
from serving.errors import InvalidRequest, RetiredFeature, TooLarge, UnknownFeature, WrongEntity

MAX_FEATURES = 100
"""Number of features that a request may ask for, those of its sets among them."""

MOST_COMPARED = 200
"""Number of names that one that is not known is compared with, about 2 ms."""

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
        of_name: dict[str, list[FeatureVersion]] = {}
        for version in catalog.features.values():
            of_name.setdefault(version.name, []).append(version)
        self.of_name = of_name
        """The versions of each feature, in the order in which they were recorded."""
        active = {name: catalog.features[f"{name}@{v}"] for name, v in catalog.active.items()}
        for name, feature in active.items():
            for alias in (name, *feature.aliases):
                self._by_name[alias] = feature
                for version in of_name[name]:
                    self._by_name[f"{alias}@{version.version}"] = version
        self.deprecated = {
            ref: f"{withdrawal.since.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
            for ref, withdrawal in catalog.withdrawn.items()
        }
        """Since when a version is deprecated, RFC 3339, by `name@version`."""
        self._tested = {
            name: experiment
            for feature, experiment in catalog.experiments.items()
            if feature in active
            for name in (feature, *active[feature].aliases)
        }
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
        """The version that a name, `name@version` or alias means.

        Raises `UnknownFeature` and `RetiredFeature`.
        """
        feature = self._by_name.get(name)
        if feature is None:
            near = get_close_matches(name, self._candidates(name), n=3)
            hint = f"; near it are {', '.join(near)}" if near else ""
            raise UnknownFeature(f"there is no feature {name!r}{hint}", feature=name)
        self._check_not_retired(feature.ref)
        return feature

    def name_of(self, name: str) -> str:
        """The name of the feature that a name, `name@version` or alias is of, retired or not.

        Raises `UnknownFeature`.
        """
        feature = self._by_name.get(name)
        return self.feature(name).name if feature is None else feature.name

    def _candidates(self, name: str) -> list[str]:
        """Names that a name may be meant for; comparing them all would take others' time."""
        names = [one for one in self._by_name if "@" not in one]
        if len(names) > MOST_COMPARED:
            names = [one for one in names if one[:2] == name[:2]]
        return names[:MOST_COMPARED]

    def versions(self, requested: Collection[str]) -> dict[str, FeatureVersion]:
        """The versions that a request asks for, by the names under which they are answered.

        The features of a set, `set:momentum@1`, are answered under their names. Raises
        `UnknownFeature`, `RetiredFeature`, `TooLarge`, and `InvalidRequest` where two versions
        would have one name.
        """
        found: dict[str, FeatureVersion] = {}
        has_sets = False
        for name in requested:
            if name.startswith(SET_PREFIX):
                named, has_sets = self.of_set(name), True
            else:
                named = {name: self.feature(name)}
            for answered, feature in named.items():
                other = found.setdefault(answered, feature)
                if other is not feature or (has_sets and self._is_twofold(answered, requested)):
                    raise InvalidRequest(
                        f"{answered} would be {other.ref} and {self._meaning(answered, feature)}: "
                        "ask for one of them, or pin the one that is not in the set",
                        feature=answered,
                    )
        if has_sets and len(found) > MAX_FEATURES:
            raise TooLarge(
                f"the sets have {len(found)} features; at most {MAX_FEATURES} are answered at once"
            )
        return found

    def _is_twofold(self, name: str, requested: Collection[str]) -> bool:
        """Whether a name is asked for beside a set, and means what an experiment decides."""
        if name not in self._tested or name not in requested:
            return False
        return any(name in self.of_set(one) for one in requested if one.startswith(SET_PREFIX))

    def _meaning(self, name: str, feature: FeatureVersion) -> str:
        experiment = self._tested.get(name)
        return feature.ref if experiment is None else f"what experiment {experiment.name} decides"

    def tested(self, requested: Iterable[str]) -> dict[str, Experiment]:
        """The experiments that decide what some of the requested names mean, by these names."""
        return {name: self._tested[name] for name in requested if name in self._tested}

    def of_set(self, ref: str) -> dict[str, FeatureVersion]:
        """The versions in a set by their names. Raises `UnknownFeature` and `RetiredFeature`."""
        one = self.catalog.sets.get(ref)
        if one is None:
            sets = ", ".join(self.catalog.sets) or "none is recorded"
            raise UnknownFeature(f"there is no set {ref!r}: {sets}", feature=ref)
        self._check_not_retired(ref)
        return {pin.partition("@")[0]: self.feature(pin) for pin in one.features}

    def _check_not_retired(self, ref: str) -> None:
        if self.catalog.is_retired(ref):
            replacement = self.catalog.withdrawn[ref].replacement
            text = f"{retired_text(self.catalog, ref)}. What was stored of it stays in Postgres"
            raise RetiredFeature(text, feature=ref, replacement=replacement)

    def index(self, schema_id: int, ref: str) -> int | None:
        """The index of a feature in rows of a schema, None when they do not hold it."""
        return self._indexes.get((schema_id, ref))

    def _compile(self, feature: FeatureVersion) -> DerivedFeature:
        derived = compile_derived(feature.expression, feature.ref)
        pins = feature.pins  # an earlier build has recorded none, and meant what is active
        return DerivedFeature(
            derived, {name: self._by_name[pins.get(name, name)] for name in derived.names}
        )


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
