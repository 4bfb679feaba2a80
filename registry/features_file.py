"""`features.toml` to definitions, checked as a whole before anything is recorded."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from datetime import UTC, date, datetime, time
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import msgspec
from msgspec import Struct

from registry.consistency import check
from registry.definitions import (
    Definitions,
    FeatureVersion,
    Field,
    Format,
    MessageKey,
    Partitioner,
    Source,
    TimeUnit,
)
from registry.durations import max_age_ns, skew_ns
from registry.errors import DefinitionError
from registry.language.program import compile_expression
from registry.naming import check_name, check_readable, check_topic, check_unique, check_version
from registry.source_mapping import (
    GivenPlace,
    Shape,
    Value,
    check_paths,
    conditions_of,
    items_of,
    places_of,
)

MOST_KEYS = 8
"""Number of key fields, of 255 bytes each: an entry of a Postgres index holds 2,704."""

MOST_FIELDS = 100
MOST_SCHEMA_IDS = 10_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
YEAR_2201 = datetime(2201, 1, 1, tzinfo=UTC)
T = TypeVar("T")


class _Source(Struct, forbid_unknown_fields=True):
    name: str
    topic: str
    key: list[str]
    fields: list[Field]
    ts_unit: TimeUnit = "ms"
    skew: str = "1s"
    positive: bool = False
    map: dict[str, str | GivenPlace] = {}
    items: str | None = None
    where: dict[str, Value | list[Value]] = {}
    message_key: MessageKey = "first"
    partitioner: Partitioner = "murmur2"
    earliest: Any = date(1971, 1, 1)  # a union of both is not taken
    format: Format = "json"
    schema_id: int | None = None
    reject_schema_ids: list[int | str] = []


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

    Raises `DefinitionError`, which names the file and the definition, for any mistake.
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
        raise DefinitionError(name, "is nested too deeply to be read") from None
    except (ValueError, msgspec.ValidationError) as error:  # tomllib's errors are ValueErrors
        raise DefinitionError(name, str(error)) from None
    given = [_converted(table, _Source, f"{name}: source") for table in tables.source]
    check_unique([source.name for source in given], f"{name}: source")
    sources = {source.name: _source(source, name) for source in given}
    features = tuple(
        _feature(_converted(table, _Feature, f"{name}: feature"), sources, name)
        for table in tables.feature
    )
    if not features:
        raise DefinitionError(name, "declares no [[feature]]; without one there is nothing to do")
    check_unique([feature.ref for feature in features], f"{name}: feature")
    check(sources, features, name)
    return Definitions(tuple(sources.values()), features, name)


def _converted(table: dict[str, Any], kind: type[T], where: str) -> T:
    where = f"{where} {table.get('name', 'without a name')}"
    for text in _texts(table):
        if "\0" in text:
            raise DefinitionError(
                where, f"{text!r} holds the character NUL, which no text in Postgres can hold"
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
            yield from value
            for item in value.values():
                yield from _texts(item)


def _source(given: _Source, file: str) -> Source:
    where = f"{file}: source {given.name}"
    names = [field.name for field in given.fields]
    for name in (given.name, *given.key, *names):
        check_name(name, where)
    check_readable(names, where)
    check_topic(given.topic, where)
    check_unique([*given.key, *names], f"{where}: field")
    if not (1 <= len(given.key) <= MOST_KEYS and 1 <= len(names) <= MOST_FIELDS):
        raise DefinitionError(
            where,
            f"has {len(given.key)} key fields and {len(names)} numeric fields: it must have 1 to "
            f"{MOST_KEYS} and 1 to {MOST_FIELDS}",
        )
    for field in given.fields:
        _check_default(field, given.positive, where)
    shape = Shape(given.key, given.fields, given.positive, given.map, given.items, given.where)
    source = Source(
        name=given.name,
        topic=given.topic,
        key=tuple(given.key),
        fields=tuple(given.fields),
        ts_unit=given.ts_unit,
        skew_ns=skew_ns(given.skew, where),
        positive=given.positive,
        places=places_of(shape, where),
        items=items_of(shape, where),
        where=conditions_of(shape, where),
        message_key=given.message_key,
        partitioner=given.partitioner,
        earliest_ns=_earliest_ns(given.earliest, where),
        format=given.format,
        schema_id=given.schema_id,
        reject_schema_ids=_schema_ids(given.reject_schema_ids, where),
    )
    _check_schema(source, where)
    check_paths(source.paths, source.where, source.items, where)
    return source


def _check_schema(source: Source, where: str) -> None:
    for name, given in (
        ("schema_id", source.schema_id is not None),
        ("reject_schema_ids", bool(source.reject_schema_ids)),
    ):
        if given and source.format not in ("avro", "protobuf"):
            raise DefinitionError(
                where,
                f"`{name}` is of schemas that Avro and Protobuf are read in; with format = "
                f'"{source.format}" it has no use',
            )
    if source.schema_id is not None:
        _check_id("schema_id", source.schema_id, where)


def _check_id(name: str, number: int, where: str) -> None:
    if not 0 <= number < 2**32:
        raise DefinitionError(
            where, f"{name} {number} must be an id of the schema registry, 0 to 2^32"
        )


def _schema_ids(given: list[int | str], where: str) -> tuple[int | str, ...]:
    """Ids and GUIDs of schemas, each once and in an order of their own, the ids first."""
    if len(given) > MOST_SCHEMA_IDS:
        raise DefinitionError(
            where, f"reject_schema_ids has {len(given)} ids: at most {MOST_SCHEMA_IDS} are taken"
        )
    ids, guids = set[int](), set[str]()
    for each in given:
        if isinstance(each, int):
            _check_id("reject_schema_ids:", each, where)
            ids.add(each)
            continue
        try:
            guids.add(str(UUID(each)))
        except ValueError:
            raise DefinitionError(
                where,
                f"reject_schema_ids: {each!r} is neither an id (a number) nor a GUID, such as "
                '"6ba7b810-9dad-11d1-80b4-00c04fd430c8"',
            ) from None
    return (*sorted(ids), *sorted(guids))


def _earliest_ns(given: Any, where: str) -> int:
    """A date is its first instant in UTC, and a time without a zone is UTC."""
    if not isinstance(given, date):
        raise DefinitionError(
            where, f"earliest {given!r} must be a date or a time without quotes, as 1971-01-01"
        )
    moment = given if isinstance(given, datetime) else datetime.combine(given, time())
    moment = moment.replace(tzinfo=moment.tzinfo or UTC)
    if not EPOCH <= moment < YEAR_2201:
        raise DefinitionError(where, f"earliest {given} must be from 1970 to 2200")
    since = moment - EPOCH
    return (since.days * 86_400 + since.seconds) * 10**9 + since.microseconds * 1_000


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
        check_name(name, where)
    check_readable([given.name], where)
    check_version(given.version, where)
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
    check_unique(given.entity, f"{where}: entity")
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
        max_age_ns=max_age_ns(given.max_age, where),
        description=given.description,
        owner=given.owner,
        tags=tuple(given.tags),
        aliases=tuple(given.aliases),
    )
