"""Avro: a schema to a function that reads a value written in it.

fastavro, which confluent-kafka's own deserializer is made on, reads the bytes. The logical types
are read by functions of ours, in place of its own: those cut times to microseconds, leave
`timestamp-nanos` an integer, and raise where a time is not in the calendar. They are put under
names of ours, so what else uses fastavro in this process is not touched.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from io import BytesIO
from typing import Any, Final
from uuid import UUID

from fastavro import parse_schema, schemaless_reader
from fastavro.read import LOGICAL_READERS, SchemaResolutionError

from pipelines.ticks.message_elements import Rejected, check_depth
from pipelines.ticks.wire.avro_bounds import TOO_DEEP, check_bounds
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
RECORDS = ("record", "error")
NO_VALUE = "its bytes end too early, or name a branch or a symbol that the schema does not have"
"""What fastavro's errors mean; they show the address of an object, or only an index."""


def _time(per_second: int, value: int, _writer: Any, _reader: Any = None) -> str:
    return time_text(value, per_second)


def _date(value: int, _writer: Any, _reader: Any = None) -> str | int:
    return day_text(value)


def _decimal(value: bytes, writer: Any, _reader: Any = None) -> str:
    return decimal_text(value, writer.get("scale", 0))


def _big_decimal(value: bytes, _writer: Any, _reader: Any = None) -> str:
    """A decimal that has its own scale: an integer as bytes, and the scale, each as Avro has it."""
    stream = BytesIO(value)
    integer: Any = schemaless_reader(stream, "bytes", None)
    scale: Any = schemaless_reader(stream, "int", None)
    return decimal_text(integer, scale)


def _uuid(value: bytes, _writer: Any, _reader: Any = None) -> str:
    return str(UUID(bytes=value))


READERS: Final[dict[str, Callable[..., Any]]] = {
    "long-timestamp-millis": partial(_time, 10**3),
    "long-timestamp-micros": partial(_time, 10**6),
    "long-timestamp-nanos": partial(_time, 10**9),
    "int-date": _date,
    "bytes-decimal": _decimal,
    "bytes-big-decimal": _big_decimal,
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
    if read_in == written_in:  # nothing to resolve
        reader = None

    def read(encoded: bytes, _: Any = ()) -> Any:
        stream = BytesIO(encoded)
        try:
            value = schemaless_reader(stream, writer, reader)
        except SchemaResolutionError as error:
            raise Unreadable(f"not readable in the source's `schema_id`: {error}") from None
        except (EOFError, IndexError):
            raise Unreadable(NO_VALUE) from None
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
    try:
        for _, text in schema.references:
            parse_schema(_loaded(text, has_defaults), named)
        parsed = parse_schema(_loaded(schema.text, has_defaults), named)
        held = check_bounds(parsed, named)
    except (Unreadable, MemoryError):
        raise
    except Rejected as rejected:
        raise Unreadable(rejected.detail) from None
    except RecursionError:
        raise Unreadable(TOO_DEEP) from None
    except Exception as error:  # of any kind: a schema can be wrong in any way
        raise Unreadable(f"is no Avro schema: {type(error).__name__}: {error}") from None
    return parsed, {name: named[name] for name in held}


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
