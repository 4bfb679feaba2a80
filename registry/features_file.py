"""`features.toml` to definitions, checked as a whole before anything is recorded."""

from __future__ import annotations

import re
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from registry.definitions import FeatureVersion, Field, Source, TimeUnit
from registry.derived import compile_derived
from registry.errors import DefinitionError
from registry.program import compile_expression

NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
VERSION = re.compile(r"(0|[1-9]\d{0,5})\.(0|[1-9]\d{0,5})\.(0|[1-9]\d{0,5})")
DURATION = re.compile(r"(\d+)(ns|us|ms|s|m|h|d)")
NANOSECONDS = {
    "ns": 1,
    "us": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
    "d": 86_400 * 10**9,
}
ROUTES = frozenset(
    """online offline batch search versions lineage usage audit activate rollback health metrics
    docs openapi""".split()  # noqa: SIM905
)
"""Path segments of the HTTP interface; a feature of that name could not be asked for."""

COLUMNS = frozenset(
    "ts event_time sequence known_at partition offset entity op".split()  # noqa: SIM905
)
"""Columns that every view has beside the source's own."""


class Definitions(Struct, frozen=True):
    """What a features file declares, in its order."""

    sources: tuple[Source, ...]
    features: tuple[FeatureVersion, ...]


class _Source(Struct, forbid_unknown_fields=True):
    name: str
    topic: str
    key: list[str]
    fields: list[Field]
    ts_unit: TimeUnit = "ms"
    skew: str = "1s"
    positive: bool = False


class _Feature(Struct, forbid_unknown_fields=True):
    name: str
    version: str
    expression: str
    source: str | None = None
    over: str | None = None
    entity: list[str] = []
    max_age: str | None = None
    description: str = ""
    owner: str = ""
    tags: list[str] = []
    aliases: list[str] = []


class _File(Struct, forbid_unknown_fields=True):
    source: list[_Source]
    feature: list[_Feature]


def read(path: Path | None = None) -> Definitions:
    """The definitions of a file, or those that ship with Tickwell.

    Raises `DefinitionError`, which names the file and the place, for anything that is not right.
    """
    name = "registry/features.toml" if path is None else str(path)
    try:
        text = (
            files("registry").joinpath("features.toml").read_text("utf-8")
            if path is None
            else path.read_text("utf-8")
        )
        parsed = msgspec.convert(tomllib.loads(text), _File)
    except OSError as error:
        raise DefinitionError(name, f"cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise DefinitionError(name, str(error)) from None
    sources = tuple(_source(source, name) for source in parsed.source)
    _unique([source.name for source in sources], f"{name}: source")
    _unique([source.topic for source in sources], f"{name}: topic")
    by_name = {source.name: source for source in sources}
    features = tuple(_feature(feature, by_name, name) for feature in parsed.feature)
    _check_names(features, name)
    _check_derived(features, by_name, name)
    return Definitions(sources, features)


def _source(given: _Source, file: str) -> Source:
    where = f"{file}: source {given.name}"
    for name in (given.name, *given.key, *(field.name for field in given.fields)):
        _check_name(name, where)
    columns = [*given.key, *(field.name for field in given.fields)]
    _unique([*columns, "ts", "seq", "op"], f"{where}: field")
    if not given.key or not given.fields:
        raise DefinitionError(where, "needs at least one key field and one numeric field")
    return Source(
        name=given.name,
        topic=given.topic,
        key=tuple(given.key),
        fields=tuple(given.fields),
        ts_unit=given.ts_unit,
        skew_ns=_duration(given.skew, where),
        positive=given.positive,
    )


def _feature(given: _Feature, sources: dict[str, Source], file: str) -> FeatureVersion:
    where = f"{file}: feature {given.name}"
    for name in (given.name, *given.aliases):
        _check_name(name, where)
    if not VERSION.fullmatch(given.version):
        raise DefinitionError(where, f"version {given.version!r} is not of the form 1.0.0")
    for reference in (given.source, given.over):
        if reference is not None and reference not in sources:
            raise DefinitionError(
                where, f"there is no source {reference}; there are {', '.join(sources)}"
            )
    if given.source is not None and given.over is not None:
        raise DefinitionError(
            where, "has both `source` and `over`; a derived feature has no source"
        )
    entity = tuple(given.entity)
    if given.source is not None:
        entity = sources[given.source].key
        if given.entity and tuple(given.entity) != entity:
            raise DefinitionError(where, f"the entity of source {given.source} is {list(entity)}")
        compile_expression(given.expression, sources[given.source], where)
    elif not entity:
        raise DefinitionError(where, "needs a `source`, or as a derived feature its `entity`")
    return FeatureVersion(
        name=given.name,
        version=given.version,
        entity=entity,
        expression=given.expression,
        source=given.source,
        over=given.over,
        max_age_ns=None if given.max_age is None else _duration(given.max_age, where),
        description=given.description,
        owner=given.owner,
        tags=tuple(given.tags),
        aliases=tuple(given.aliases),
    )


def _check_names(features: tuple[FeatureVersion, ...], file: str) -> None:
    _unique([feature.ref for feature in features], f"{file}: feature")
    owners: dict[str, str] = {}
    for feature in features:
        for name in (feature.name, *feature.aliases):
            if owners.setdefault(name, feature.name) != feature.name:
                raise DefinitionError(file, f"{name} names both {owners[name]} and {feature.name}")


def _check_derived(
    features: tuple[FeatureVersion, ...], sources: dict[str, Source], file: str
) -> None:
    by_name = {feature.name: feature for feature in features}
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
        for name in derived.names:
            part = by_name.get(name)
            if part is None:
                raise DefinitionError(where, f"there is no feature {name}")
            if part.derived:
                raise DefinitionError(where, f"{name} is derived itself; write its expression out")
            if not set(part.entity) <= set(key):
                raise DefinitionError(
                    where, f"{name} is of {list(part.entity)}, which {list(key)} does not hold"
                )


def _check_name(name: str, where: str) -> None:
    if not NAME.fullmatch(name) or name in ROUTES or name in COLUMNS:
        raise DefinitionError(
            where,
            f"{name!r} cannot be a name: use a-z, 0-9 and _, begin with a letter, at most 63, and "
            "none of " + ", ".join(sorted(ROUTES | COLUMNS)),
        )


def _duration(text: str, where: str) -> int:
    match = DURATION.fullmatch(text)
    if match is None:
        raise DefinitionError(where, f"{text!r} is not a duration such as 500ms, 1s, 5m or 1h")
    return int(match[1]) * NANOSECONDS[match[2]]


def _unique(names: list[Any], where: str) -> None:
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise DefinitionError(where, f"{', '.join(sorted(twice))} is there twice")
