"""What bounds a schema in Avro: few bytes may stand for any number of values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.support.wire_sources import (
    NOW_NS,
    TRADE,
    Registry,
    assert_refused_in_little_memory,
    read,
    registry_schema,
    source_of,
    trade,
    with_fields,
)


@pytest.mark.parametrize(("levels", "is_read"), [(31, True), (33, False), (310, False)])
def test_depth_is_judged_alike_however_deep_the_program_is(levels: int, is_read: bool) -> None:
    """Three schemas refer to each other, so that they are deeper than any text of one may be."""
    registry = Registry()

    def within(name: str, inner: str) -> Any:
        kind: Any = inner
        for _ in range(levels):
            kind = {"type": "array", "items": kind}
        return {"type": "record", "name": name, "fields": [{"name": "x", "type": kind}]}

    for name, inner, references in (("X", "long", []), ("Y", "X", [("X", "x", 1)])):
        schema = registry_schema(within(name, inner), references)
        registry.client.register_schema(name.lower(), schema)
    top = within("Trade", "Y")
    top["fields"] += TRADE["fields"]
    number = registry.client.register_schema("t", registry_schema(top, [("Y", "y", 1)]))
    arrays = b"\2" * (3 * levels) + b"\4" + b"\0" * (3 * levels)
    (plain,) = registry.avro(TRADE, [trade()])
    value = b"\0" + number.to_bytes(4, "big") + arrays + plain[5:]
    found = [deeper(calls, lambda: read(source_of("avro"), registry, value)[0]) for calls in CALLS]
    if is_read:
        assert [each[:2] for each in found] == [(NOW_NS, 1.5)] * len(CALLS)
    else:
        expected = ("malformed", f"schema {number}: over 100 types are within each other")
        assert found == [expected] * len(CALLS)


CALLS = (0, 60, 120, 400)


def deeper(calls: int, do: Callable[[], Any]) -> Any:
    """The result of `do`, called within so many more calls."""
    return deeper(calls - 1, do) if calls else do()


FREE = {"type": "array", "items": {"type": "record", "name": "E", "fields": []}}

HOLLOW = {
    "type": "record",
    "name": "H",
    "fields": [{"name": f"f{n}", "type": "null"} for n in range(100)],
}

FULLER = {**HOLLOW, "fields": [*HOLLOW["fields"], {"name": "n", "type": "int"}]}

SELF = {
    "type": "record",
    "name": "R",
    "fields": [{"name": "r", "type": ["null", {"type": "array", "items": "R"}]}],
}

MANY = [
    {"type": "record", "name": f"M{i}", "fields": [{"name": n, "type": f"M{i - 1}"} for n in "ab"]}
    for i in range(1, 40)
]


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        (with_fields(x=FREE), "the elements of an array may take no byte"),
        (with_fields(x={"type": "array", "items": ["null", FREE]}), "may take no byte"),
        (with_fields(x={"type": "array", "items": "null"}), "may take no byte"),
        (with_fields(x={"type": "map", "values": HOLLOW}), "hold many values in few bytes"),
        (with_fields(x={"type": "array", "items": FULLER}), "hold many values in few bytes"),
        (with_fields(x=SELF), "its type R refers to itself"),
        ([{"type": "record", "name": "M0", "fields": []}, *MANY], "holds over 10000 values"),
        ({"type": "record"}, "is no Avro schema: KeyError"),
        ("[" * 600 + "]" * 600, "nested deeper than 500"),
        ("{", "is no Avro schema"),
        ('"' + "x" * (1 << 20) + '"', "over 1048576 bytes"),
    ],
)
def test_a_schema_that_is_not_read_is_no_end(schema: Any, said: str) -> None:
    """A few bytes may stand for any number of values, and reading is recursive."""
    registry = Registry()
    number = registry.register(schema)
    value = b"\0" + number.to_bytes(4, "big") + b"\x02A" * 9
    (found,) = read(source_of("avro"), registry, value)
    assert found[0] == "malformed"
    assert f"schema {number}: " in found[1]
    assert said in found[1]


def test_defaults_that_nobody_reads_take_no_memory() -> None:
    """Each element of a byte would have all of the fields that the schema to read in adds."""
    registry = Registry()
    flag = {"name": "flag", "type": "boolean"}
    more = [{"name": f"f{n}", "type": "double", "default": 0} for n in range(200)]
    text = {"name": "symbol", "type": "string", "default": "A"}

    def schema(*fields: Any) -> Any:
        element = {"type": "record", "name": "E", "fields": list(fields)}
        elements = {"name": "data", "type": {"type": "array", "items": element}}
        return {"type": "record", "name": "M", "fields": [elements]}

    (message,) = registry.avro(schema(flag), [{"data": [{"flag": True}] * 20_000}])
    source = source_of("avro", items="data", schema_id=registry.register(schema(text, *more)))
    read(source, registry, registry.avro(schema(flag), [{"data": [{"flag": True}]}])[0])
    assert_refused_in_little_memory(source, registry, message)
