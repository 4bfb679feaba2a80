"""Whether the values of an Avro schema can be read in bounded memory and depth.

Reading is recursive, in C, and a schema may let a few bytes stand for any number of values; so a
schema that refers to itself, or has an array whose elements may take no byte, is not read.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from pipelines.ticks.wire.values import Unreadable

MOST_VALUES = 10_000
"""Values that one value of a schema may hold, arrays and maps aside."""

MOST_TYPES_DEEP = 100
"""Types within each other: far below what Python's limit of calls within each other leaves of it,
which is more or less in each program."""

TOO_DEEP = f"over {MOST_TYPES_DEEP} types are within each other"

MOST_FREE_VALUES = 16
"""Values that an element of an array or a value of a map may hold where any may take no byte."""

PRIMITIVES = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})


def check_bounds(schema: Any, named: dict[str, Any]) -> Iterable[str]:
    """The names of the types that a parsed schema holds, which are among `named`.

    Raises `Unreadable` for what cannot be read in bounds, and `RecursionError`.
    """
    known: dict[str, _Weight | None] = {}
    weight = _weigh(schema, named, known)
    if weight.deep > MOST_TYPES_DEEP:
        raise Unreadable(TOO_DEEP)
    if weight.values > MOST_VALUES:
        raise Unreadable(f"a value holds over {MOST_VALUES} values")
    return known


class _Weight(NamedTuple):
    """How many values one of a schema holds, the fewest bytes that it takes, whether any of the
    values may take none, and how many types of the schema are within each other."""

    values: int
    fewest_bytes: int
    is_free: bool
    deep: int = 1


def _weigh(schema: Any, named: dict[str, Any], known: dict[str, _Weight | None]) -> _Weight:
    """The weight of a parsed schema; `known` are those of named types, None for one within itself.

    Raises `Unreadable`.
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
