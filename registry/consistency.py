"""What must hold among definitions: within a file, and of a file with what is recorded."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from registry.definitions import Catalog, Definitions, FeatureSet, FeatureVersion, Source
from registry.errors import DefinitionError, VersionChanged
from registry.formats.lake import check_source_name
from registry.language.canonical import digest
from registry.language.derived import compile_derived
from registry.naming import check_not_function, folded
from registry.wording import differences

MEANING = ("entity", "expression", "source", "over", "parts", "max_age_ns")
"""Fields of a version that decide its values and statuses; the others may be reworded."""


def check(
    sources: Mapping[str, Source],
    features: Collection[FeatureVersion],
    file: str,
    recorded: Iterable[FeatureVersion] = (),
) -> None:
    """Check sources by name and all versions of all features.

    Names of `recorded` versions are not held against what earlier builds did not ask of them.
    Raises `DefinitionError`, which names the file and the feature.
    """
    _check_sources(sources.values(), file)
    taken = {name for one in recorded for name in (one.name, *one.aliases)}
    _check_names(sources, features, file, taken)
    _check_kinds(features, file)
    _check_derived(sources, features, file)


def check_against(known: Catalog, definitions: Definitions, rejected_topic: str | None) -> None:
    """Check a file's definitions together with what is recorded; not the rules of its sources.

    Derived features and sets have all their pins.

    Raises `VersionChanged` for a recorded version with another meaning, and `DefinitionError` for
    anything else that contradicts; both name the file and the feature or source.
    """
    file = definitions.file
    for feature in definitions.features:
        recorded = known.features.get(feature.ref)
        if recorded is not None and digest(recorded) != digest(feature):
            changed = differences(recorded, feature, MEANING)
            raise VersionChanged(f"{file}: feature {feature.name}", feature.ref, changed)
    for source in definitions.sources:
        if source.name not in known.sources:
            check_source_name(source.name, f"{file}: source {source.name}")
    every_source = known.sources | {source.name: source for source in definitions.sources}
    features = known.features | {feature.ref: feature for feature in definitions.features}
    check(every_source, features.values(), file, known.features.values())
    check_sets(features, definitions.sets, file)
    if rejected_topic is not None:
        check_rejected_topic(every_source.values(), rejected_topic, file)


def check_sets(features: Collection[str], sets: Iterable[FeatureSet], file: str) -> None:
    """Check sets, all pinned, against the versions that there are, as `name@version`.

    Raises `DefinitionError`.
    """
    for one in sets:
        for ref in one.features:
            if ref not in features:
                raise DefinitionError(
                    f"{file}: {one.ref}", f"there is no {ref}: name a version that is declared"
                )


def check_rejected_topic(sources: Iterable[Source], rejected_topic: str, file: str) -> None:
    """Raises `DefinitionError` for a source that reads what the relay of rejected ticks writes."""
    for source in sources:
        if source.topic == rejected_topic:
            raise DefinitionError(
                f"{file}: source {source.name}",
                f"reads {rejected_topic}, where rejected ticks are published, and would reject "
                "them again for ever; read another topic, or set TICKWELL_REJECTED_TOPIC to "
                "another one",
            )


def _check_sources(sources: Iterable[Source], file: str) -> None:
    readers: dict[str, str] = {}
    for source in sources:
        other = readers.setdefault(source.topic, source.name)
        if other != source.name:
            raise DefinitionError(
                f"{file}: source {source.name}",
                f"source {other} reads the topic {source.topic} already; a topic has one source, "
                "so give this one a topic of its own",
            )


def _check_names(
    sources: Mapping[str, Source],
    features: Iterable[FeatureVersion],
    file: str,
    recorded: Collection[str],
) -> None:
    owners: dict[str, FeatureVersion] = {}
    alike: dict[str, str] = {}
    for feature in features:
        where = f"{file}: feature {feature.name}"
        taken = set(feature.entity)
        if feature.source is not None:
            taken.update(sources[feature.source].field_names)
        for name in (feature.name, *feature.aliases):
            if name in taken:
                raise DefinitionError(
                    where,
                    f"{name} is a field of its ticks, and one view has columns of both; name the "
                    f"feature otherwise, such as current_{name}",
                )
            owner = owners.setdefault(name, feature).name
            if owner != feature.name:
                raise DefinitionError(
                    where,
                    f"{name} names both {owner} and {feature.name}; names and aliases that are "
                    "recorded stay taken, so choose another one",
                )
            other = alike.setdefault(folded(name), name)
            if name in recorded:
                continue
            check_not_function(name, where)
            if owners[other].name != feature.name:
                raise DefinitionError(
                    where,
                    f"{name} and {other} differ only in `_`, and are of {feature.name} and "
                    f"{owners[other].name}: choose another one",
                )


def _check_kinds(features: Iterable[FeatureVersion], file: str) -> None:
    first: dict[str, FeatureVersion] = {}
    for feature in features:
        other = first.setdefault(feature.name, feature)
        if other.entity != feature.entity or other.derived != feature.derived:
            raise DefinitionError(
                f"{file}: feature {feature.name}",
                f"version {other.version} is {_kind(other)} and version {feature.version} is "
                f"{_kind(feature)}: a request for {feature.name} would have to name another "
                "entity; give the other kind a name of its own",
            )


def _kind(feature: FeatureVersion) -> str:
    kind = "derived" if feature.derived else "computed from ticks"
    return f"{kind}, of ({', '.join(feature.entity)}),"


def _check_derived(
    sources: Mapping[str, Source], features: Iterable[FeatureVersion], file: str
) -> None:
    by_name = {feature.name: feature for feature in features}
    refs = {feature.ref for feature in features}
    for feature in features:
        if not feature.derived:
            continue
        where = f"{file}: feature {feature.name}"
        derived = compile_derived(feature.expression, where)
        if derived.sums != (feature.over is not None):
            raise DefinitionError(where, "`over` names the source whose entities sum(...) adds up")
        key = feature.entity if feature.over is None else sources[feature.over].key
        if feature.over is not None and key[: len(feature.entity)] != feature.entity:
            raise DefinitionError(where, f"the entity must begin {feature.over}'s key {list(key)}")
        for name, ref in feature.pins.items():
            if name not in derived.names or ref not in refs:
                why = "the expression does not read it" if ref in refs else "it is not there"
                raise DefinitionError(where, f"has {ref} among its `parts`, and {why}")
        for name in derived.names:
            part = by_name.get(name)
            if part is None:
                raise DefinitionError(
                    where,
                    f"there is no feature {name}; there are {', '.join(sorted(by_name))}, and an "
                    "expression names none by alias or version",
                )
            if part.derived:
                raise DefinitionError(where, f"{name} is derived itself; write its expression out")
            if not set(part.entity) <= set(key):
                raise DefinitionError(
                    where, f"{name} is of {list(part.entity)}, which {list(key)} does not hold"
                )
