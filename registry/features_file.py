"""`features.toml` to definitions, checked as a whole before anything is recorded."""

from __future__ import annotations

import re
import sys
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from importlib.resources import files
from keyword import iskeyword
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from registry import consistency as rules
from registry.definitions import FeatureVersion, Field, Source, TimeUnit
from registry.errors import DefinitionError
from registry.language.program import compile_expression

NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
"""At most 63 characters: Postgres cuts off longer names of views and columns."""

TOPIC = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,249}")
VERSION = re.compile(r"(0|[1-9][0-9]{0,5})\.(0|[1-9][0-9]{0,5})\.(0|[1-9][0-9]{0,5})")
DURATION = re.compile(r"([0-9]{1,12})(ns|us|ms|s|m|h|d)")
NANOSECONDS = {
    "ns": 1,
    "us": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
    "d": 86_400 * 10**9,
}
LARGEST_SKEW = "1d"
"""One wrong clock can freeze an entity for as long."""

LARGEST_AGE = "36500d"
MOST_KEYS = 8
"""Of 255 bytes each: an entry of a Postgres index holds 2,704."""

MOST_FIELDS = 100
ROUTES = frozenset(
    """online offline batch search versions lineage usage audit activate rollback health metrics
    docs openapi""".split()  # noqa: SIM905
)
"""Path segments of the HTTP interface; a feature of that name could not be asked for."""

COLUMNS = frozenset(
    "ts event_time sequence known_at partition offset entity op seq".split()  # noqa: SIM905
)
"""What every tick or every view has beside the source's own."""

T = TypeVar("T")


class Definitions(Struct, frozen=True):
    """What a features file declares, in its order; `file` names it in errors."""

    sources: tuple[Source, ...]
    features: tuple[FeatureVersion, ...]
    file: str


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
    source: list[dict[str, Any]]
    feature: list[dict[str, Any]]


def read(path: Path | None = None) -> Definitions:
    """The definitions of a file, or those that ship with Tickwell.

    Raises `DefinitionError`, which names the file and the place, for anything that is not right.
    """
    name = "registry/features.toml" if path is None else str(path)
    shipped = files("registry").joinpath("features.toml")
    try:
        text = (shipped if path is None else path).read_text("utf-8-sig")
        tables = msgspec.convert(tomllib.loads(text), _File)
    except OSError as error:
        raise DefinitionError(name, f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise DefinitionError(name, f"is not text in UTF-8: {error}") from None
    except RecursionError:
        raise DefinitionError(name, "is nested too deep to be read") from None
    except (ValueError, msgspec.ValidationError) as error:  # tomllib's errors are ValueErrors
        raise DefinitionError(name, str(error)) from None
    given = [_converted(table, _Source, f"{name}: source") for table in tables.source]
    _unique([source.name for source in given], f"{name}: source")
    sources = {source.name: _source(source, name) for source in given}
    features = tuple(
        _feature(_converted(table, _Feature, f"{name}: feature"), sources, name)
        for table in tables.feature
    )
    if not features:
        raise DefinitionError(name, "declares no [[feature]]; without one there is nothing to do")
    _unique([feature.ref for feature in features], f"{name}: feature")
    rules.check(sources, features, name)
    return Definitions(tuple(sources.values()), features, name)


def _converted(table: dict[str, Any], kind: type[T], where: str) -> T:
    where = f"{where} {table.get('name', 'without a name')}"
    for text in _texts(table):
        if "\0" in text:
            raise DefinitionError(
                where, f"{text!r} holds the character NUL, which Postgres stores in no text"
            )
    try:
        return msgspec.convert(table, kind)
    except (msgspec.ValidationError, OverflowError) as error:
        raise DefinitionError(where, str(error)) from None


def _texts(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case list():
            for item in value:
                yield from _texts(item)
        case dict():
            for item in value.values():
                yield from _texts(item)


def _source(given: _Source, file: str) -> Source:
    where = f"{file}: source {given.name}"
    names = [field.name for field in given.fields]
    for name in (given.name, *given.key, *names):
        _check_name(name, where)
    _check_words(names, where)
    if not TOPIC.fullmatch(given.topic):
        raise DefinitionError(
            where,
            f"{given.topic!r} cannot be a topic's name: Kafka takes 1 to 249 of a-z, A-Z, 0-9, "
            "'.', '_' and '-'",
        )
    _unique([*given.key, *names], f"{where}: field")
    if not (1 <= len(given.key) <= MOST_KEYS and 1 <= len(names) <= MOST_FIELDS):
        raise DefinitionError(
            where,
            f"has {len(given.key)} key fields and {len(names)} numeric fields: it must have 1 to "
            f"{MOST_KEYS} and 1 to {MOST_FIELDS}",
        )
    for field in given.fields:
        _check_default(field, given.positive, where)
    return Source(
        name=given.name,
        topic=given.topic,
        key=tuple(given.key),
        fields=tuple(given.fields),
        ts_unit=given.ts_unit,
        skew_ns=_duration(given.skew, "skew", LARGEST_SKEW, where),
        positive=given.positive,
    )


def _check_default(field: Field, positive: bool, where: str) -> None:
    default = field.default
    if default is None:
        return
    if not abs(default) <= sys.float_info.max or (positive and default <= 0):
        kind = "a positive" if positive else "a finite"
        raise DefinitionError(
            where,
            f"field {field.name} has the default {default}, which must be {kind} number; for a "
            "field without a value say `optional = true` and no default",
        )


def _feature(given: _Feature, sources: dict[str, Source], file: str) -> FeatureVersion:
    where = f"{file}: feature {given.name}"
    for name in (given.name, *given.aliases):
        _check_name(name, where)
    _check_words([given.name], where)
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
    _unique(given.entity, f"{where}: entity")
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
        max_age_ns=_max_age(given.max_age, where),
        description=given.description,
        owner=given.owner,
        tags=tuple(given.tags),
        aliases=tuple(given.aliases),
    )


def _check_name(name: str, where: str) -> None:
    if not NAME.fullmatch(name) or name in ROUTES or name in COLUMNS:
        raise DefinitionError(
            where,
            f"{name!r} cannot be a name: use a-z, 0-9 and _, begin with a letter, at most 63, and "
            "none of " + ", ".join(sorted(ROUTES | COLUMNS)),
        )


def _check_words(names: Iterable[str], where: str) -> None:
    for name in names:
        if iskeyword(name):
            raise DefinitionError(
                where,
                f"{name!r} cannot be read in an expression, where it is a word of the language; "
                f"choose another name, such as {name}_",
            )


def _max_age(text: str | None, where: str) -> int | None:
    if text is None:
        return None
    age = _duration(text, "max_age", LARGEST_AGE, where)
    if age == 0:
        raise DefinitionError(
            where, "a max_age of 0 makes every value stale; leave it out for a value of any age"
        )
    return age


def _duration(text: str, what: str, largest: str, where: str) -> int:
    match = DURATION.fullmatch(text)
    if match is None:
        raise DefinitionError(
            where, f"{what} {text!r} is not a duration such as 500ms, 1s, 5m or 1h"
        )
    nanoseconds = int(match[1]) * NANOSECONDS[match[2]]
    if text != largest and nanoseconds > _duration(largest, what, largest, where):
        raise DefinitionError(where, f"{what} {text!r} is too long: at most {largest}")
    return nanoseconds


def _unique(names: Sequence[str], where: str) -> None:
    twice = sorted(name for name, times in Counter(names).items() if times > 1)
    if twice:
        raise DefinitionError(where, f"{', '.join(twice)} is there twice")
