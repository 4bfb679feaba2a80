"""Defaults of an Avro schema as the values that they stand for.

A schema has them in JSON, and fastavro gives them as they are there: of a logical type the number
or text beneath, and for bytes text whose characters are the bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Read = Callable[[Any, Any], Any]
"""From a value without its logical type, and its schema, to what it is."""


def convert_defaults(named: Mapping[str, Any], read: Read) -> None:
    """Convert the defaults in records, which are among the parsed types `named`, in place."""
    fields = [
        field
        for kind in named.values()
        if kind["type"] in ("record", "error")
        for field in kind["fields"]
        if "default" in field
    ]
    # all before any is replaced: a default of a record may be made of its fields' own
    converted = [_value(field["default"], field["type"], named, read) for field in fields]
    for field, value in zip(fields, converted, strict=True):
        field["default"] = value


def _value(default: Any, schema: Any, named: Mapping[str, Any], read: Read) -> Any:
    if isinstance(schema, list):  # of a union it is one of the first branch, or null
        branch = next((branch for branch in schema if branch != "null"), "null")
        return None if default is None else _value(default, branch, named, read)
    if isinstance(schema, str):
        schema = named.get(schema, {"type": schema})
    match schema["type"]:
        case "record" | "error":
            return {
                field["name"]: _value(
                    default[field["name"]] if field["name"] in default else field["default"],
                    field["type"],
                    named,
                    read,
                )
                for field in schema["fields"]
            }
        case "array":
            return [_value(each, schema["items"], named, read) for each in default]
        case "map":
            return {
                name: _value(each, schema["values"], named, read) for name, each in default.items()
            }
        case "bytes" | "fixed":
            return read(default.encode("latin-1"), schema)
    return read(default, schema)
