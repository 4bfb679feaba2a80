"""`features.toml` to definitions, checked as a whole before anything is recorded."""

from __future__ import annotations

import sys
import tomllib
from datetime import UTC, date, datetime, time
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
from msgspec import Struct

from registry.consistency import check
from registry.definitions import (
    HISTORY,
    Catalog,
    Definitions,
    Field,
    Format,
    MessageKey,
    Partitioner,
    Source,
    TimeUnit,
)
from registry.durations import skew_ns
from registry.errors import DefinitionError
from registry.feature_tables import Versions, converted, feature_of, set_of
from registry.naming import (
    check_name,
    check_readable,
    check_source_name,
    check_topic,
    check_unique,
)
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
LEAST_HISTORY, MOST_HISTORY = 64, 65_536
"""Ticks of an entity: fewer would not hold those that may come again, of which 64 are remembered.
More take over 2 MB an entity."""

MOST_BYTES = 16_000_000
"""Bytes of a file: what a parser takes for it is many times as much."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
YEAR_2201 = datetime(2201, 1, 1, tzinfo=UTC)


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
    history: int = HISTORY


class _File(Struct, forbid_unknown_fields=True):
    source: list[dict[str, Any]] = []
    feature: list[dict[str, Any]] = []
    sets: list[dict[str, Any]] = msgspec.field(name="set", default_factory=list)


def read(path: Path | None = None, known: Catalog | None = None) -> Definitions:
    """The definitions of a file, or those that ship with Tickwell.

    A version may leave out what its parent says, and be of a source, that the file declares or that
    is `known`. Raises `DefinitionError`, which names the file and the definition, for any mistake.
    """
    return read_text(text_of(path), known)


class Text(NamedTuple):
    """The text of a features file, and the name that errors give it."""

    name: str
    text: str


def read_text(given: Text, known: Catalog | None = None) -> Definitions:
    """The definitions of the text of a file. Raises as `read`."""
    tables, name = _tables(given), given.name
    declared = _sources(tables, name)
    sources = declared if known is None else known.sources | declared
    recorded = {} if known is None else known.features
    versions = Versions(tables.feature, recorded, name)
    features = tuple(feature_of(versions.whole(table), sources, name) for table in tables.feature)
    if not features:
        raise DefinitionError(name, "declares no [[feature]]; without one there is nothing to do")
    check_unique([feature.ref for feature in features], f"{name}: feature")
    sets = tuple(set_of(table, name) for table in tables.sets)
    check_unique([one.ref for one in sets], name)
    every = recorded | {feature.ref: feature for feature in features}
    check(sources, every.values(), name, recorded.values())
    return Definitions(tuple(declared.values()), features, name, sets)


def read_sources(path: Path | None = None) -> Definitions:
    """The sources of a file alone. Raises `DefinitionError`."""
    return sources_in(text_of(path))


def sources_in(given: Text) -> Definitions:
    """The sources that the text of a file declares alone. Raises `DefinitionError`."""
    name, sources = given.name, _sources(_tables(given), given.name)
    check(sources, (), name)
    return Definitions(tuple(sources.values()), (), name)


def text_of(path: Path | None) -> Text:
    """The text of a file, or of the one that ships. Raises `DefinitionError`."""
    name = "registry/features.toml" if path is None else str(path)
    shipped = files("registry").joinpath("features.toml")
    try:
        raw = (shipped if path is None else path).read_bytes()
        if len(raw) > MOST_BYTES:
            raise DefinitionError(
                name, f"has {len(raw)} bytes: at most {MOST_BYTES} are read; split it"
            )
        return Text(name, raw.decode("utf-8-sig"))
    except OSError as error:
        raise DefinitionError(name, f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise DefinitionError(name, f"is not text in UTF-8: {error}") from None


def _tables(given: Text) -> _File:
    name = given.name
    try:
        return msgspec.convert(tomllib.loads(given.text), _File)
    except RecursionError:
        raise DefinitionError(name, "is nested too deeply to be read") from None
    except (ValueError, msgspec.ValidationError) as error:  # tomllib's errors are ValueErrors
        raise DefinitionError(name, str(error)) from None


def _sources(tables: _File, file: str) -> dict[str, Source]:
    given = [converted(table, _Source, f"{file}: source") for table in tables.source]
    check_unique([source.name for source in given], f"{file}: source")
    return {source.name: _source(source, file) for source in given}


def _source(given: _Source, file: str) -> Source:
    where = f"{file}: source {given.name}"
    names = [field.name for field in given.fields]
    check_source_name(given.name, where)
    for name in (*given.key, *names):
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
        history=_history(given.history, where),
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


def _history(given: int, where: str) -> int:
    if not LEAST_HISTORY <= given <= MOST_HISTORY:
        raise DefinitionError(
            where,
            f"history {given} must be {LEAST_HISTORY} to {MOST_HISTORY}: the ticks of an entity "
            f"that Redis keeps; without `history` it is {HISTORY}",
        )
    return given


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
