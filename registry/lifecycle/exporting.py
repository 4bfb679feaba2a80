"""What of the registry a features file says: all that an empty registry would need."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from registry.definitions import Catalog, Definitions
from registry.lifecycle.states import name_of


def exported(known: Catalog, names: Iterable[str] = ()) -> Definitions:
    """All that is recorded and not retired, in an order in which a file can declare it.

    With `names` these features, their parts and their sources alone, and no sets. The active
    version of a feature is the last one, so that an empty registry activates it. Raises
    `UnknownVersion`.
    """
    wanted = {name_of(known, name) for name in names}
    for feature in known.features.values():
        if feature.name in wanted:
            wanted |= feature.pins.keys()
    features = [
        feature
        for feature in known.features.values()
        if not known.is_retired(feature.ref) and (not wanted or feature.name in wanted)
    ]
    features.sort(key=lambda feature: known.active.get(feature.name) == feature.version)
    refs = {feature.ref for feature in features}
    features = [
        one if f"{one.name}@{one.parent}" in refs else replace(one, parent=None) for one in features
    ]
    of_these = {f.source for f in features} | {f.over for f in features}
    sources = [s for s in known.sources.values() if not wanted or s.name in of_these]
    sets = [] if wanted else [s for s in known.sets.values() if not known.is_retired(s.ref)]
    return Definitions(tuple(sources), tuple(features), "", tuple(sets))
