"""What a catalog says of its features, for people and programs that look for one."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from msgspec import Struct

from registry.definitions import FeatureVersion
from registry.lifecycle.states import State, state_of
from serving.features.lookup import Names


class FeatureDescription(Struct):
    """A version of a feature: what it is of, where it comes from, and what is said of it.

    `source` is null of a derived feature. `max_age_seconds` is the age from which a value is
    `stale`; where it is null none is too old. `unit` is that of its values.
    """

    name: str
    version: str
    entity: tuple[str, ...]
    source: str | None
    description: str
    owner: str
    tags: tuple[str, ...]
    aliases: tuple[str, ...]
    max_age_seconds: float | None
    unit: str


class FeatureDefinition(FeatureDescription):
    """A version of a feature with all that its values depend on.

    `parts` are the versions that a derived feature is computed from; with `over` it is a sum over
    the entities of that source. `active` says whether the name alone means this version, `state` is
    its state, `replacement` what to take instead of one that is deprecated.
    """

    expression: str
    over: str | None
    parts: tuple[str, ...]
    active: bool
    parent: str | None
    state: State
    replacement: str | None


class FeatureList(Struct):
    """The active version of each feature, by name."""

    features: list[FeatureDescription]


class FeatureVersionList(Struct):
    """All recorded versions of a feature, the oldest first; `active` is what its name means."""

    name: str
    active: str | None
    versions: list[FeatureDefinition]


def features_of(names: Names, entity: Collection[str], tags: Collection[str]) -> FeatureList:
    """The features of a kind of entity, given by its key fields, which have all of `tags`.

    Without `entity` features of every kind are meant.
    """
    active = [names.catalog.features[f"{n}@{v}"] for n, v in sorted(names.catalog.active.items())]
    return FeatureList(
        [
            FeatureDescription(**_said(feature))
            for feature in active
            if (not entity or set(feature.entity) == set(entity)) and set(tags) <= set(feature.tags)
        ]
    )


def definition_of(names: Names, name: str) -> FeatureDefinition:
    """The version that a name, pin or alias means. Raises `UnknownFeature`."""
    return described(names, names.feature(name))


def versions_of(names: Names, name: str) -> FeatureVersionList:
    """The versions of the feature that a name, pin or alias means. Raises `UnknownFeature`."""
    return all_versions(names, names.name_of(name))


def all_versions(names: Names, found: str) -> FeatureVersionList:
    """The versions of a feature, by its name, retired ones too."""
    versions = list(names.of_name[found])
    versions.sort(key=lambda one: [int(number) for number in one.version.split(".")])
    active = names.catalog.active.get(found)
    return FeatureVersionList(found, active, [described(names, version) for version in versions])


def described(names: Names, feature: FeatureVersion) -> FeatureDefinition:
    """A version with its definition, also one that is retired."""
    derived = names.derived.get(feature.ref)
    withdrawal = names.catalog.withdrawn.get(feature.ref)
    return FeatureDefinition(
        **_said(feature),
        expression=feature.expression,
        over=feature.over,
        parts=tuple(part.ref for part in derived.parts.values()) if derived else (),
        active=names.catalog.active.get(feature.name) == feature.version,
        parent=feature.parent,
        state=state_of(names.catalog, feature.ref),
        replacement=None if withdrawal is None else withdrawal.replacement,
    )


def _said(feature: FeatureVersion) -> dict[str, Any]:
    """The fields of a `FeatureDescription`."""
    most = feature.max_age_ns
    return {
        "name": feature.name,
        "version": feature.version,
        "entity": feature.entity,
        "source": feature.source,
        "description": feature.description,
        "owner": feature.owner,
        "tags": feature.tags,
        "aliases": feature.aliases,
        "max_age_seconds": None if most is None else most / 1e9,
        "unit": feature.unit,
    }
