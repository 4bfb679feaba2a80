"""Values of Avro and Protobuf in JSON, beside what fastavro and protobuf make of them."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Context, Decimal
from io import BytesIO
from typing import Any
from uuid import UUID

import pytest
from fastavro import schemaless_reader, schemaless_writer
from google.protobuf import descriptor_pb2, json_format
from hypothesis import given
from hypothesis import strategies as st

from pipelines.ticks.event_time import parse_rfc_3339
from pipelines.ticks.wire import avro_values, protobuf_values
from pipelines.ticks.wire.schema_registry import Schema
from pipelines.ticks.wire.values import (
    TooLong,
    Unreadable,
    bytes_value,
    decimal_text,
    json_of,
    time_text,
)
from pipelines.ticks.wire.wanted_values import Wanted
from tests.support.wire_sources import FIELD, Registry, field, protobuf_types

DECIMAL = {"logicalType": "decimal", "precision": 30, "scale": 9}
ALL = {
    "type": "record",
    "name": "All",
    "fields": [
        {"name": "day", "type": {"type": "int", "logicalType": "date"}},
        {
            "name": "at",
            "type": ["null", "int", {"type": "long", "logicalType": "timestamp-micros"}],
        },
        {"name": "paid", "type": {"type": "bytes", **DECIMAL}},
        {"name": "fixed", "type": {"type": "fixed", "name": "F", "size": 13, **DECIMAL}},
        {"name": "again", "type": {"type": "array", "items": "F"}},
        {"name": "id", "type": {"type": "string", "logicalType": "uuid"}},
        {"name": "key", "type": {"type": "fixed", "name": "U", "size": 16, "logicalType": "uuid"}},
        {"name": "raw", "type": ["bytes", {"type": "map", "values": "bytes"}]},
        {"name": "four", "type": {"type": "fixed", "name": "X", "size": 4}},
        {"name": "single", "type": "float"},
        {"name": "flag", "type": {"type": "boolean"}},
        {"name": "daily", "type": {"type": "int", "logicalType": "time-millis"}},
    ],
}
decimals = st.decimals(-(10**20), 10**20, places=9)
values = st.fixed_dictionaries(
    {
        "day": st.dates(),
        "at": st.none() | st.integers(-(2**31), 2**31 - 1) | st.datetimes(timezones=st.just(UTC)),
        "paid": decimals,
        "fixed": decimals,
        "again": st.lists(decimals, max_size=2),
        "id": st.uuids(),
        "key": st.binary(min_size=16, max_size=16),
        "raw": st.binary(max_size=4) | st.dictionaries(st.text(max_size=2), st.binary(max_size=3)),
        "four": st.binary(min_size=4, max_size=4),
        "single": st.floats(width=32, allow_nan=False),
        "flag": st.booleans(),
        "daily": st.times().map(lambda t: t.replace(microsecond=t.microsecond // 1000 * 1000)),
    }
)


def expected(value: Any) -> Any:
    """What fastavro's own reader returns, as it should be in JSON."""
    match value:
        case dict():
            return {name: expected(each) for name, each in value.items()}
        case list():
            return [expected(each) for each in value]
        case bytes():
            return bytes_value(value)
        case datetime():
            return f"{value.replace(tzinfo=None).isoformat(timespec='microseconds')}000Z"
        case date():
            return value.isoformat()
        case Decimal():
            return f"{value:f}"
        case UUID():
            return str(value)
    if hasattr(value, "hour"):
        return ((value.hour * 60 + value.minute) * 60 + value.second) * 1000 + (
            value.microsecond // 1000
        )
    return value


def wanting(*values: Any) -> Wanted:
    """All that values have."""
    many = [value for value in values if isinstance(value, list)]
    objects = [each for value in (values, *many) for each in value if isinstance(each, dict)]
    names = {name for each in objects for name in each}
    return Wanted(
        {name: wanting(*(each[name] for each in objects if name in each)) for name in names},
        is_many=bool(many),
    )


def in_json(value: Any) -> Any:
    return json.loads(json_of(value, 1 << 20))


@given(values)
def test_avro_is_what_fastavro_says(value: Any) -> None:
    stream = BytesIO()
    schemaless_writer(stream, ALL, value)
    own = schemaless_reader(BytesIO(stream.getvalue()), ALL, None)
    read = avro_values.value_reader(Schema("AVRO", json.dumps(ALL), ()), None, wanting(own))
    found = in_json(read(stream.getvalue()))
    wanted = expected(own)
    wanted["key"] = str(UUID(bytes=own["key"]))  # which fastavro leaves as bytes
    for name in ("paid", "fixed"):  # minus zero has no sign of its own
        wanted[name], found[name] = Decimal(wanted[name]), Decimal(found[name])
    wanted["again"], found["again"] = ([*map(Decimal, x["again"])] for x in (wanted, found))
    assert found == wanted
    assert in_json({**found, "paid": 0, "fixed": 0, "again": []})["id"] == found["id"]


@given(values, st.sets(st.sampled_from([each["name"] for each in ALL["fields"]])))  # type: ignore[misc]
def test_of_a_schema_to_read_in_only_what_is_wanted_is_read(value: Any, names: set[str]) -> None:
    stream = BytesIO()
    schemaless_writer(stream, ALL, value)
    schema = Schema("AVRO", json.dumps(ALL), ())
    own = schemaless_reader(BytesIO(stream.getvalue()), ALL, None)
    every = wanting(own)
    whole = avro_values.value_reader(schema, None, every)(stream.getvalue(), ())
    some = Wanted({name: every.fields[name] for name in names})
    for read_in in (None, schema, schema._replace(text=json.dumps(ALL, indent=1))):
        read = avro_values.value_reader(schema, read_in, some)
        assert read(stream.getvalue(), ()) == {name: whole[name] for name in names}


@given(st.integers(-62_135_596_800 * 10**9, 253_402_300_799 * 10**9))
def test_a_time_is_read_back_to_the_nanosecond(nanoseconds: int) -> None:
    assert parse_rfc_3339(time_text(nanoseconds, 10**9)) == nanoseconds
    for per_second in (10**3, 10**6):
        value = nanoseconds * per_second // 10**9
        assert parse_rfc_3339(time_text(value, per_second)) == value * (10**9 // per_second)


@given(st.integers(-(2**200), 2**200), st.integers(-40, 40))
def test_a_decimal_has_all_its_digits(integer: int, scale: int) -> None:
    text = decimal_text(integer.to_bytes(26, "big", signed=True), scale)
    assert Decimal(text) == Decimal(integer).scaleb(-scale, context=EXACT)
    assert json.loads(text, parse_float=Decimal, parse_int=Decimal) == Decimal(text)


EXACT = Context(prec=200)


def test_a_text_of_as_many_bytes_as_are_taken() -> None:
    value = {"a": ["\u00fc" * 20, b"x", None, -1.5]}
    size = len(json_of(value, 1 << 20))
    assert json_of(value, size).decode() == '{"a":["' + "\u00fc" * 20 + '","x",null,-1.5]}'
    for most in (size - 1, 10):
        with pytest.raises(TooLong):
            json_of(value, most)


@pytest.mark.parametrize(("size", "scale"), [(1001, 0), (1, 1001), (1, -1001)])
def test_a_decimal_beyond_all_bounds(size: int, scale: int) -> None:
    with pytest.raises(Unreadable, match=f"a decimal of {size} bytes with scale {scale}"):
        decimal_text(bytes(size), scale)


def test_a_reason_is_text_that_can_be_stored() -> None:
    assert str(Unreadable("a\0\n\ud800ü" + "x" * 999)) == "a???ü" + "x" * 195
    assert str(Unreadable.of(ValueError(object()))) == "ValueError: <object object>"


DEFAULTS = {
    "ts": ({"type": "long", "logicalType": "timestamp-millis"}, 5),
    "either": ([{"type": "long", "logicalType": "timestamp-nanos"}, "null"], 7),
    "neither": (["null", {"type": "long", "logicalType": "timestamp-nanos"}], None),
    "paid": ({"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}, "\1\u00ff"),
    "raw": ("bytes", "\u00c3\u00bc"),
    "days": ({"type": "array", "items": {"type": "int", "logicalType": "date"}}, [0, 1]),
    "inner": (
        {
            "type": "record",
            "name": "Inner",
            "fields": [
                {"name": "at", "type": {"type": "int", "logicalType": "date"}, "default": 2},
                {"name": "by", "type": {"type": "map", "values": "bytes"}},
            ],
        },
        {"by": {"a": "\u00ff"}},
    ),
    "again": ("Inner", {"at": 3, "by": {}}),
}


def test_a_default_is_read_as_a_value_is() -> None:
    """A schema has it in JSON, where bytes are the characters up to 255."""
    start = {"type": "record", "name": "Start", "fields": [{"name": "n", "type": "int"}]}
    more = [
        {"name": name, "type": kind, "default": default}
        for name, (kind, default) in DEFAULTS.items()
    ]
    read_in = {**start, "fields": [*start["fields"], *more]}  # type: ignore[misc]
    expected = {
        "n": 1,
        "ts": "1970-01-01T00:00:00.005000000Z",
        "either": "1970-01-01T00:00:00.000000007Z",
        "neither": None,
        "paid": "5.11",
        "raw": "\u00fc",
        "days": ["1970-01-01", "1970-01-02"],
        "inner": {"at": "1970-01-03", "by": {"a": {"bytes": "ff"}}},
        "again": {"at": "1970-01-04", "by": {}},
    }
    wanted = wanting({**expected, "inner": {"at": 0, "by": {"a": 0}}})
    schemas = [Schema("AVRO", json.dumps(schema), ()) for schema in (start, read_in)]
    read = avro_values.value_reader(schemas[0], schemas[1], wanted)
    assert in_json(read(b"\2", ())) == expected


# ---------------------------------------------------------------- Protobuf


def rich_types() -> Any:
    """A message with a field of every kind, in a package, with types within."""
    message = descriptor_pb2.DescriptorProto(name="Rich")
    repeated = {"label": FIELD.LABEL_REPEATED}
    message.field.extend(
        [
            field("i64", 1, FIELD.TYPE_SINT64),
            field("u64", 2, FIELD.TYPE_FIXED64),
            field("i32", 3, FIELD.TYPE_SFIXED32),
            field("flag", 4, FIELD.TYPE_BOOL),
            field("side", 5, FIELD.TYPE_ENUM, type_name=".feed.Rich.Side"),
            field("inner", 6, FIELD.TYPE_MESSAGE, type_name=".feed.Rich.Inner"),
            field("many", 7, FIELD.TYPE_MESSAGE, type_name=".feed.Rich.Inner", **repeated),
            field("by", 8, FIELD.TYPE_MESSAGE, type_name=".feed.Rich.ByEntry", **repeated),
            field("text", 9, FIELD.TYPE_STRING, oneof_index=0),
            field("number", 10, FIELD.TYPE_INT32, oneof_index=0),
            field("maybe", 11, FIELD.TYPE_DOUBLE, proto3_optional=True, oneof_index=1),
            field("doubles", 12, FIELD.TYPE_DOUBLE, **repeated),
            field("held", 13, FIELD.TYPE_MESSAGE, type_name=".feed.Rich.HeldEntry", **repeated),
        ]
    )
    message.oneof_decl.add(name="one")
    message.oneof_decl.add(name="_maybe")
    inner = message.nested_type.add(name="Inner")
    inner.field.extend([field("n", 1, FIELD.TYPE_INT64), field("s", 2, FIELD.TYPE_STRING)])
    entry = message.nested_type.add(name="ByEntry")
    entry.options.map_entry = True
    entry.field.extend(
        [
            field("key", 1, FIELD.TYPE_INT32),
            field("value", 2, FIELD.TYPE_MESSAGE, type_name=".feed.Rich.Inner"),
        ]
    )
    held = message.nested_type.add(name="HeldEntry")
    held.options.map_entry = True
    held.field.extend([field("key", 1, FIELD.TYPE_BOOL), field("value", 2, FIELD.TYPE_SINT32)])
    side = message.enum_type.add(name="Side")
    side.value.extend(
        descriptor_pb2.EnumValueDescriptorProto(name=name, number=number)
        for number, name in enumerate(("NONE", "BUY", "SELL"))
    )
    return protobuf_types(message)["feed.Rich"]


RICH, REGISTRY = rich_types(), Registry()
inners = st.fixed_dictionaries(
    {}, optional={"n": st.integers(-(2**63), 2**63 - 1), "s": st.text(max_size=3)}
)
riches = st.fixed_dictionaries(
    {},
    optional={
        "i64": st.integers(-(2**63), 2**63 - 1),
        "u64": st.integers(0, 2**64 - 1),
        "i32": st.integers(-(2**31), 2**31 - 1),
        "flag": st.booleans(),
        "side": st.integers(0, 5),
        "inner": inners,
        "many": st.lists(inners, max_size=2),
        "by": st.dictionaries(st.integers(-9, 9), inners, max_size=2),
        "held": st.dictionaries(st.booleans(), st.integers(-9, 9)),
        "maybe": st.floats(allow_nan=False, allow_infinity=False),
        "doubles": st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=2),
    },
)
WIDE = {"i64", "u64", "n"}
"""Fields of 64 bits, which Protobuf's own JSON writes as text."""


def plain(value: Any) -> Any:
    match value:
        case dict():
            return {
                name: int(each) if name in WIDE else plain(each) for name, each in value.items()
            }
        case list():
            return [plain(each) for each in value]
    return value


@given(riches, st.sampled_from([{}, {"text": ""}, {"text": "x"}, {"number": 0}]))
def test_protobuf_is_what_its_own_json_says(value: Any, one: Any) -> None:
    by = value.pop("by", {})
    message = RICH(**value, **one)
    for key, inner in by.items():
        message.by[key].SetInParent()
        for name, each in inner.items():
            setattr(message.by[key], name, each)
    own = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    written = REGISTRY.protobuf(message)
    schema = REGISTRY.client.get_schema(int.from_bytes(written[1:5], "big"))
    read = protobuf_values.value_reader(
        Schema("PROTOBUF", schema.schema_str, ()), None, wanting(own)
    )
    found = read(message.SerializeToString(), (0,))
    assert in_json(found) == plain(own)
