"""In which state of its life a version is, and what refers to it."""

from __future__ import annotations

from collections import defaultdict
from difflib import get_close_matches
from typing import Literal

from registry.definitions import SET_PREFIX, Catalog, FeatureVersion
from registry.errors import NotAllowed, UnknownVersion

State = Literal["active", "standby", "deprecated", "retired"]
"""`active`: what the name means. `standby`: computed, and read by its pin. `deprecated`: the same,
and to be given up. `retired`: in no new row, and not read any more."""


def state_of(catalog: Catalog, ref: str) -> State:
    """The state of a version, `name@version`, or of a set, `set:name@version`.

    A set is never active: only its pins are asked for.
    """
    name, _, version = ref.partition("@")
    if catalog.active.get(name) == version:
        return "active"
    withdrawal = catalog.withdrawn.get(ref)
    if withdrawal is None:
        return "standby"
    return "deprecated" if withdrawal.retired_at is None else "retired"


def version_of(catalog: Catalog, ref: str) -> FeatureVersion:
    """The version that `name@version` names. Raises `UnknownVersion`."""
    feature = catalog.features.get(ref)
    if feature is not None:
        return feature
    name = ref.partition("@")[0]
    versions = versions_of(catalog, name)
    if versions:
        known = ", ".join(f.version for f in versions)
        raise UnknownVersion(f"there is no {ref}: {name} has the versions {known}")
    raise UnknownVersion(_unknown(catalog, name))


def active_or_newest(catalog: Catalog, text: str) -> str:
    """The version, as `name@version`, that a name, an alias or a pin names.

    Of a name without an active version it is the highest one. Raises `UnknownVersion`.
    """
    if "@" in text:
        return version_of(catalog, text).ref
    name = name_of(catalog, text)
    active = catalog.active.get(name)
    return versions_of(catalog, name)[-1].ref if active is None else f"{name}@{active}"


def versions_of(catalog: Catalog, name: str) -> list[FeatureVersion]:
    """The versions of a feature by their numbers, the lowest first; none of an unknown one."""
    found = [feature for feature in catalog.features.values() if feature.name == name]
    return sorted(found, key=lambda feature: numbers(feature.version))


def name_of(catalog: Catalog, text: str) -> str:
    """The name of the feature that a name, an alias or a pin names. Raises `UnknownVersion`."""
    name = text.partition("@")[0]
    for feature in catalog.features.values():
        if name == feature.name or name in feature.aliases:
            return feature.name
    raise UnknownVersion(_unknown(catalog, name))


def set_named(catalog: Catalog, ref: str) -> str:
    """A set, as `set:name@version`, that is recorded. Raises `UnknownVersion`."""
    if ref in catalog.sets:
        return ref
    known = ", ".join(catalog.sets) or "none is recorded"
    raise UnknownVersion(f"there is no set {ref}: {known}")


def numbers(version: str) -> list[int]:
    """The numbers of a version, by which versions are in order."""
    return [int(number) for number in version.split(".")]


def users_of(catalog: Catalog, ref: str) -> list[str]:
    """The sets, derived versions and experiments that read a version and are not over."""
    return users(catalog).get(ref, [])


def users(catalog: Catalog) -> dict[str, list[str]]:
    """Of each version that anything reads what `users_of` says of it, in one walk."""
    found = defaultdict[str, list[str]](list)
    reading = {feature.ref: feature.parts for feature in catalog.features.values()}
    reading |= {one.ref: one.features for one in catalog.sets.values()}
    for user, read in reading.items():
        if read and not catalog.is_retired(user):
            for ref in dict.fromkeys(read):
                found[ref].append(user)
    for name, running in catalog.experiments.items():
        for version in dict.fromkeys(arm.version for arm in running.arms):
            found[f"{name}@{version}"].append(f"experiment {running.name}")
    return dict(found)


def check_no_experiment(catalog: Catalog, name: str) -> None:
    """Raises `NotAllowed` where a feature's name means several versions."""
    running = catalog.experiments.get(name)
    if running is not None:
        raise NotAllowed(
            f"experiment {running.name} runs with {name}, so its name means several versions: stop "
            f"that by `tickwell experiment stop {running.name}`, with --winner for one of them"
        )


def check_not_retired(catalog: Catalog, ref: str) -> None:
    """Raises `NotAllowed` for what is retired, with its replacement."""
    withdrawal = catalog.withdrawn.get(ref)
    if withdrawal is not None and withdrawal.retired_at is not None:
        raise NotAllowed(retired_text(catalog, ref))


def retired_text(catalog: Catalog, ref: str) -> str:
    """What a person is told of a version that is retired."""
    withdrawal = catalog.withdrawn[ref]
    assert withdrawal.retired_at is not None
    name = ref.partition("@")[0]
    instead = withdrawal.replacement
    if instead is not None and catalog.is_retired(instead):
        instead = None
    if instead is None and name in catalog.active:
        instead = f"{name}@{catalog.active[name]}"
    hint = "" if instead is None else f": take {instead}"
    return f"{ref} is retired since {withdrawal.retired_at:%Y-%m-%d}{hint}"


def _unknown(catalog: Catalog, name: str) -> str:
    if name.startswith(SET_PREFIX):
        return f"{name} is a set, and this is of features: name one"
    near = get_close_matches(name, catalog.active, n=3)
    hint = f"; near it are {', '.join(near)}" if near else ""
    return f"there is no feature {name!r}{hint}"
