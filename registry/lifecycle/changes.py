"""What recording a file would change, worked out before anything is changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from msgspec import structs

from registry.consistency import check_against
from registry.definitions import Catalog, Definitions, FeatureSet, FeatureVersion, Source
from registry.errors import DefinitionError
from registry.language.derived import compile_derived
from registry.lifecycle import histories

MOST_VERSIONS = 200
"""Number of versions of a feature."""


class Changes(NamedTuple):
    """What is to be recorded, each in the order of the file.

    `reworded_sources` are recorded sources with another history. `reworded` are recorded versions
    whose words change, or whose pins an earlier build did not record. `activated` has the version
    that the name of each new feature will mean, and `rows` the versions in the new row schema of
    each source that needs one.
    """

    sources: tuple[Source, ...]
    reworded_sources: tuple[Source, ...]
    versions: tuple[FeatureVersion, ...]
    reworded: tuple[FeatureVersion, ...]
    unchanged: tuple[FeatureVersion, ...]
    activated: dict[str, str]
    sets: tuple[FeatureSet, ...]
    rows: dict[str, tuple[str, ...]]
    undeclared: tuple[str, ...]
    """Versions that are computed on although the file does not declare them."""

    @property
    def are_none(self) -> bool:
        """Whether nothing is to be recorded; rules of sources apart."""
        sources = self.sources or self.reworded_sources
        versions = self.versions or self.reworded or self.activated
        return not (sources or versions or self.sets or self.rows)


def changes_of(known: Catalog, definitions: Definitions, rejected_topic: str | None) -> Changes:
    """What recording a file would change, with every pin.

    Raises `VersionChanged` when the file defines a recorded version or set otherwise, and
    `DefinitionError` when it contradicts what is recorded, or a source reads `rejected_topic`.
    """
    latest = {feature.name: feature.version for feature in definitions.features}
    activated = {name: version for name, version in latest.items() if name not in known.active}
    meant = {name: f"{name}@{version}" for name, version in (activated | known.active).items()}
    features = [
        _of_parent(pinned(feature, known, meant), known) for feature in definitions.features
    ]
    sets = [_pinned_set(one, known, meant) for one in definitions.sets]
    whole = structs.replace(definitions, features=tuple(features), sets=tuple(sets))
    check_against(known, whole, rejected_topic)
    _check_sets_unchanged(known, sets, definitions.file)
    new = tuple(feature for feature in features if feature.ref not in known.features)
    _check_not_retired(known, new, sets, definitions.file)
    _check_number(known, new, definitions.file)
    declared = {feature.ref: feature for feature in features if feature.ref in known.features}
    reworded = tuple(one for ref, one in declared.items() if one != known.features[ref])
    return Changes(
        sources=tuple(one for one in definitions.sources if one.name not in known.sources),
        reworded_sources=histories.reworded(known, definitions),
        versions=new,
        reworded=reworded,
        unchanged=tuple(f for f in features if known.features.get(f.ref) == f),
        activated=activated,
        sets=tuple(one for one in sets if known.sets.get(one.ref) != one),
        rows=_rows(known, definitions, [*features], activated),
        undeclared=_undeclared(known, features),
    )


def rows_of(known: Catalog, source: str, wanted: Iterable[str] = ()) -> tuple[str, ...]:
    """The versions that rows of a source should hold: what they hold, then what is wanted too.

    Those that are retired are not among them.
    """
    writing = known.writing.get(source)
    held = () if writing is None else known.schemas[writing].features
    return tuple(ref for ref in dict.fromkeys([*held, *wanted]) if not known.is_retired(ref))


def _rows(
    known: Catalog,
    definitions: Definitions,
    features: list[FeatureVersion],
    activated: Mapping[str, str],
) -> dict[str, tuple[str, ...]]:
    """The new row schemas. New sources follow in the file's order, which decides their ids."""
    active = [known.features[f"{name}@{version}"] for name, version in known.active.items()]
    found = {}
    for name in dict.fromkeys([*known.sources, *(s.name for s in definitions.sources)]):
        rows = rows_of(known, name, [f.ref for f in (*features, *active) if f.source == name])
        writing = known.writing.get(name)
        held = () if writing is None else known.schemas[writing].features
        if set(rows) != set(held):
            found[name] = rows
    return found


def _undeclared(known: Catalog, features: Iterable[FeatureVersion]) -> tuple[str, ...]:
    declared = {feature.ref for feature in features}
    return tuple(ref for ref in known.features if ref not in declared and not known.is_retired(ref))


def _of_parent(feature: FeatureVersion, known: Catalog) -> FeatureVersion:
    """A version with the parent that is recorded, where a file names none: it decides nothing."""
    recorded = known.features.get(feature.ref)
    if recorded is None or feature.parent is not None:
        return feature
    return structs.replace(feature, parent=recorded.parent)


def pinned(feature: FeatureVersion, known: Catalog, meant: Mapping[str, str]) -> FeatureVersion:
    """A derived version with the pin of each part; `meant` has the refs that names mean.

    Those that it leaves out are as they are recorded, or else what the names mean now.
    """
    if not feature.derived:
        return feature
    recorded = known.features.get(feature.ref)
    pins = ({} if recorded is None else recorded.pins) | feature.pins
    names = compile_derived(feature.expression, feature.ref).names
    parts = [pins.get(name) or meant.get(name) for name in names]
    strange = [ref for name, ref in feature.pins.items() if name not in names]
    return structs.replace(feature, parts=(*filter(None, parts), *strange))


def _pinned_set(one: FeatureSet, known: Catalog, meant: Mapping[str, str]) -> FeatureSet:
    recorded = known.sets.get(one.ref)
    pins = {} if recorded is None else {ref.partition("@")[0]: ref for ref in recorded.features}
    features = tuple(
        ref if "@" in ref else pins.get(ref) or meant.get(ref) or ref for ref in one.features
    )
    if recorded is not None and set(features) == set(recorded.features):
        features = recorded.features  # models may read it by position
    return structs.replace(one, features=features)


def _check_number(known: Catalog, new: Iterable[FeatureVersion], file: str) -> None:
    """Each version is read by all processes, whenever anything changes."""
    counts = Counter(feature.name for feature in (*known.features.values(), *new))
    for feature in new:
        if counts[feature.name] > MOST_VERSIONS:
            raise DefinitionError(
                f"{file}: feature {feature.name}",
                f"would have {counts[feature.name]} versions, and may have {MOST_VERSIONS}: give "
                "what is new another name",
            )


def _check_not_retired(
    known: Catalog, new: Iterable[FeatureVersion], sets: Iterable[FeatureSet], file: str
) -> None:
    """What is recorded from now on may not read what is in no new row."""
    pinned = [(f"feature {feature.name}", ref) for feature in new for ref in feature.parts]
    pinned += [(s.ref, ref) for s in sets if s.ref not in known.sets for ref in s.features]
    for where, ref in pinned:
        if known.is_retired(ref):
            raise DefinitionError(f"{file}: {where}", f"reads {ref}, which is retired")


def _check_sets_unchanged(known: Catalog, sets: Iterable[FeatureSet], file: str) -> None:
    for one in sets:
        recorded = known.sets.get(one.ref)
        if recorded is not None and set(recorded.features) != set(one.features):
            raise DefinitionError(
                f"{file}: {one.ref}",
                f"is recorded as {', '.join(recorded.features)}: a set never changes; give this "
                "one the next version",
            )
