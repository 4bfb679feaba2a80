"""Avro: a schema to a function that reads a value written in it.

fastavro, which confluent-kafka's own deserializer is made on, reads the bytes. The logical types
are read by functions of ours, in place of its own: those cut times to microseconds, leave
`timestamp-nanos` an integer, and raise where a time is not in the calendar. They are put under
names of ours, so what else uses fastavro in this process is not touched.

Reading is recursive, in C, and a schema may let a few bytes stand for any number of values; so a
schema that refers to itself, or has an array whose elements may take no byte, is not read.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from io import BytesIO
from typing import Any, Final, NamedTuple
from uuid import UUID

from fastavro import parse_schema, schemaless_reader
from fastavro.read import LOGICAL_READERS, SchemaResolutionError

from pipelines.ticks.message_elements import Rejected, check_depth
from pipelines.ticks.wire.avro_defaults import convert_defaults
from pipelines.ticks.wire.avro_projection import project
from pipelines.ticks.wire.schema_registry import Schema
from pipelines.ticks.wire.values import (
    Unreadable,
    day_text,
    decimal_text,
    time_text,
)
from pipelines.ticks.wire.wanted_values import Wanted

OURS = "tickwell-"
MOST_VALUES = 10_000
"""Values that one value of a schema may hold, arrays and maps aside."""

MOST_TYPES_DEEP = 100
"""Types within each other: far below what Python's limit of calls within each other leaves of it,
which is more or less in each program."""

TOO_DEEP = f"over {MOST_TYPES_DEEP} types are within each other"

MOST_FREE_VALUES = 16
"""Values that an element of an array or a value of a map may hold where any may take no byte."""

PRIMITIVES = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})
RECORDS = ("record", "error")


def _time(per_second: int, value: int, _writer: Any, _reader: Any = None) -> str:
    return time_text(value, per_second)


def _date(value: int, _writer: Any, _reader: Any = None) -> str | int:
    return day_text(value)


def _decimal(value: bytes, writer: Any, _reader: Any = None) -> str:
    return decimal_text(value, writer.get("scale", 0))


def _uuid(value: bytes, _writer: Any, _reader: Any = None) -> str:
    return str(UUID(bytes=value))


READERS: Final[dict[str, Callable[..., Any]]] = {
    "long-timestamp-millis": partial(_time, 10**3),
    "long-timestamp-micros": partial(_time, 10**6),
    "long-timestamp-nanos": partial(_time, 10**9),
    "int-date": _date,
    "bytes-decimal": _decimal,
    "fixed-decimal": _decimal,
    "fixed-uuid": _uuid,
}
"""How the values of logical types are read, by Avro type and logical type. Other logical types are
read as the type that they are made of."""

for _name, _read in READERS.items():
    _kind, _, _logical = _name.partition("-")
    LOGICAL_READERS[f"{_kind}-{OURS}{_logical}"] = _read


def value_reader(
    written_in: Schema, read_in: Schema | None, wanted: Wanted
) -> Callable[[bytes, Any], Any]:
    """A function from the bytes of a value written in a schema to what is `wanted` of it in JSON.

    Its second argument is for formats with several types in a schema. With `read_in`
    the value is resolved to that schema, by Avro's rules. Bytes stay bytes. Raises `Unreadable`;
    the function also raises what the library does, which is anything.
    """
    writer, _ = _parsed(written_in, has_defaults=False)
    reader = None if read_in is None else _to_read_in(read_in, wanted)

    def read(encoded: bytes, _: Any = ()) -> Any:
        stream = BytesIO(encoded)
        try:
            value = schemaless_reader(stream, writer, reader)
        except SchemaResolutionError as error:
            raise Unreadable(f"not readable in the source's `schema_id`: {error}") from None
        left = len(encoded) - stream.tell()
        if left:
            raise Unreadable(f"{left} bytes follow the value")
        return wanted.only(value)

    return read


def _to_read_in(schema: Schema, wanted: Wanted) -> Any:
    """What is wanted of a schema, with defaults that are what values are. Raises `Unreadable`."""
    parsed, named = _parsed(schema, has_defaults=True)
    project(parsed, named, wanted)
    try:
        convert_defaults(named, _without_logical_type)
    except (Unreadable, MemoryError):
        raise
    except Exception as error:  # of any kind, as below
        raise Unreadable(f"a default of it: {type(error).__name__}: {error}") from None
    return parsed


def _without_logical_type(value: Any, schema: Any) -> Any:
    read = READERS.get(f"{schema['type']}-{schema.get('logicalType', '').removeprefix(OURS)}")
    return value if read is None else read(value, schema)


def _parsed(schema: Schema, *, has_defaults: bool) -> tuple[Any, dict[str, Any]]:
    """A schema as fastavro takes it, and the types in it that have names.

    To read what was written in it needs no defaults, and old schemas have some of another type.
    """
    named: dict[str, Any] = {}
    known: dict[str, _Weight | None] = {}
    try:
        for _, text in schema.references:
            parse_schema(_loaded(text, has_defaults), named)
        parsed = parse_schema(_loaded(schema.text, has_defaults), named)
        weight = _weigh(parsed, named, known)
    except (Unreadable, MemoryError):
        raise
    except Rejected as rejected:
        raise Unreadable(rejected.detail) from None
    except RecursionError:
        raise Unreadable(TOO_DEEP) from None
    except Exception as error:  # of any kind: a schema can be wrong in any way
        raise Unreadable(f"is no Avro schema: {type(error).__name__}: {error}") from None
    if weight.deep > MOST_TYPES_DEEP:
        raise Unreadable(TOO_DEEP)
    if weight.values > MOST_VALUES:
        raise Unreadable(f"a value holds over {MOST_VALUES} values")
    return parsed, {name: named[name] for name in known}


def _loaded(text: str, has_defaults: bool) -> Any:
    check_depth(text.encode())
    return _as_read(json.loads(text), has_defaults)


def _as_read(schema: Any, has_defaults: bool) -> Any:
    """A schema whose logical types are read by our functions, with its fields' defaults or none."""
    if isinstance(schema, list):
        return [_as_read(branch, has_defaults) for branch in schema]
    if not isinstance(schema, dict):
        return schema
    kind, logical = schema["type"], schema.get("logicalType")
    ours = {name: value for name, value in schema.items() if name != "logicalType"}
    if kind in RECORDS:
        ours["fields"] = [_field_as_read(field, has_defaults) for field in schema["fields"]]
    elif kind == "array":
        ours["items"] = _as_read(schema["items"], has_defaults)
    elif kind == "map":
        ours["values"] = _as_read(schema["values"], has_defaults)
    elif isinstance(kind, (dict, list)):
        return _as_read(kind, has_defaults)
    elif f"{kind}-{logical}" in READERS:
        ours["logicalType"] = f"{OURS}{logical}"
    return ours


def _field_as_read(field: Any, has_defaults: bool) -> Any:
    kept = {name: value for name, value in field.items() if has_defaults or name != "default"}
    return {**kept, "type": _as_read(field["type"], has_defaults)}


class _Weight(NamedTuple):
    """How many values one of a schema holds, the fewest bytes that it takes, whether any of the
    values may take none, and how many types of the schema are within each other."""

    values: int
    fewest_bytes: int
    is_free: bool
    deep: int = 1


def _weigh(schema: Any, named: dict[str, Any], known: dict[str, _Weight | None]) -> _Weight:
    """The weight of a parsed schema; `known` are those of named types, None for one within itself.

    Raises `Unreadable` for what cannot be read in bounds.
    """
    if isinstance(schema, list):  # the number of its branch takes a byte
        weights = [_weigh(branch, named, known) for branch in schema]
        inner = [w for w, branch in zip(weights, schema, strict=True) if branch != "null"]
        return _Weight(
            1 + max((weight.values for weight in weights), default=0),
            1,
            any(weight.is_free for weight in inner),
            1 + max((weight.deep for weight in weights), default=0),
        )
    if isinstance(schema, str) and schema not in PRIMITIVES:
        return _weigh_named(schema, named, known)
    if isinstance(schema, dict) and "name" in schema and schema["name"] not in known:
        return _weigh_named(schema["name"], named, known)
    match schema if isinstance(schema, str) else schema["type"]:
        case "null":
            return _Weight(1, 0, True)
        case "fixed":
            return _Weight(1, schema["size"], schema["size"] < 1)
        case "record" | "error":
            fields = [_weigh(field["type"], named, known) for field in schema["fields"]]
            return _Weight(
                1 + sum(field.values for field in fields),
                sum(field.fewest_bytes for field in fields),
                not fields or any(field.is_free for field in fields),
                1 + max((field.deep for field in fields), default=0),
            )
        case "array":
            item = _weigh(schema["items"], named, known)
            if item.fewest_bytes < 1:
                raise Unreadable("the elements of an array may take no byte")
            if item.is_free and item.values > MOST_FREE_VALUES:
                raise Unreadable("the elements of an array may hold many values in few bytes")
            return _Weight(1 + item.values, 1, False, 1 + item.deep)
        case "map":  # each of its keys takes a byte
            value = _weigh(schema["values"], named, known)
            if value.is_free and value.values > MOST_FREE_VALUES:
                raise Unreadable("the values of a map may hold many values in few bytes")
            return _Weight(1 + value.values, 1, False, 1 + value.deep)
        case dict() | list() as written:
            return _weigh(written, named, known)
        case str() as kind if kind in named:
            return _weigh_named(kind, named, known)
    return _Weight(1, 1, False)


def _weigh_named(name: str, named: dict[str, Any], known: dict[str, _Weight | None]) -> _Weight:
    if name in known:
        weight = known[name]
        if weight is None:
            raise Unreadable(f"its type {name} refers to itself")
        return weight
    known[name] = None
    known[name] = weight = _weigh(named[name], named, known)
    return weight
