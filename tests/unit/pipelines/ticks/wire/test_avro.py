"""Messages in Avro are the ticks that they would be in JSON.

They are written by confluent-kafka's own serializer, and read beside us by its deserializer.
"""

from __future__ import annotations

import json
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.examples import examples
from tests.support.logs import NOW_MS, same_double
from tests.support.names import entities_of
from tests.support.wire_sources import (
    NOW_NS,
    SHARED,
    TRADE,
    Registry,
    decoded,
    in_schema,
    read,
    registry_schema,
    source_of,
    trade,
    with_fields,
    zigzag,
)

LOGICAL = {
    "timestamp-millis": 10**6,
    "timestamp-micros": 10**3,
    "timestamp-nanos": 1,
}
"""Logical types of a time, and their nanoseconds."""

numbers = st.one_of(
    st.floats(),
    st.integers(-(2**63), 2**63 - 1),
    st.decimals(-(10**9), 10**9, places=4).map(lambda d: d.quantize(Decimal("0.0001"))),
)

DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 18, "scale": 4}

KINDS: dict[type, Any] = {float: "double", int: "long", Decimal: DECIMAL}


@examples(2)
@given(price=numbers, logical=st.sampled_from(sorted(LOGICAL)), data=st.data())
def test_what_confluents_deserializer_reads_is_what_counts(
    price: Any, logical: str, data: st.DataObject
) -> None:
    registry = SHARED
    nanoseconds = LOGICAL[logical]
    stamp = NOW_NS // nanoseconds + data.draw(st.integers(-999, 999))
    schema = with_fields(price=KINDS[type(price)], ts={"type": "long", "logicalType": logical})
    (message,) = registry.avro(schema, [trade(price=price, ts=stamp)])
    said = registry.read_avro(message)
    ticks = decoded(source_of("avro"), registry, message)
    try:
        expected = float(said["price"])
    except OverflowError:
        expected = float("inf")
    if abs(expected) == float("inf") or expected != expected or said["price"] == 2**63 - 1:
        assert [each.reason for each in ticks.rejected] == ["not-finite"]
        assert ticks.rejected[0].value == message
        return
    assert ticks.rejected == []
    assert same_double(ticks.fields[0, 0], expected) or expected == 0
    assert ticks.tick_time.tolist() == [stamp * nanoseconds]
    if isinstance(said["ts"], datetime):  # as it says all but nanoseconds
        assert said["ts"].timestamp() == pytest.approx(ticks.tick_time[0] / 1e9, abs=1e-6)
    assert ticks.original(0) == message


@examples(1)
@given(st.data())
def test_avro_and_json_are_the_same_ticks(data: st.DataObject) -> None:
    """Nested records, maps, arrays and unions: what the paths lead to."""
    registry = SHARED
    inner = {
        "type": "record",
        "name": "Inner",
        "fields": [
            {"name": "p", "type": ["string", "double"]},
            {"name": "who", "type": {"type": "map", "values": "bytes"}},
            {"name": "side", "type": {"type": "enum", "name": "Side", "symbols": ["buy", "sell"]}},
        ],
    }
    outer = {
        "type": "record",
        "name": "Outer",
        "fields": [
            {"name": "channel", "type": "string"},
            {"name": "ts", "type": "long"},
            {"name": "data", "type": {"type": "array", "items": inner}},
        ],
    }
    items = st.fixed_dictionaries(
        {
            "p": st.sampled_from(["1.25", "x", 2.5, -0.1]),
            "who": st.dictionaries(
                st.just("s"), st.sampled_from([b"A", b"B", "\u00fc".encode(), b""])
            ),
            "side": st.sampled_from(["buy", "sell"]),
        }
    )
    drawn = data.draw(st.lists(items, max_size=4))
    message = {
        "channel": data.draw(st.sampled_from(["trade", "book"])),
        "ts": NOW_MS,
        "data": [{name: item[name] for name in ("who", "p")} for item in drawn],
    }
    places = {"symbol": "who.s", "price": "p", "ts": "^ts"}
    more = {"items": "data", "message_key": "any", "partitioner": "any"}
    (written,) = registry.avro(outer, [{**message, "data": drawn}])
    as_json = json.dumps(
        message, default=lambda value: value.decode(), ensure_ascii=False, separators=(",", ":")
    ).encode()
    one = decoded(source_of("avro", places, **more), registry, written)
    other = decoded(source_of("json", places, **more), registry, as_json)
    # an element keeps what is read of it, in JSON
    assert one.rejected == other.rejected
    assert entities_of(one) == entities_of(other)
    for column in ("tick_time", "fields", "index", "offset"):
        assert repr(getattr(one, column).tolist()) == repr(getattr(other, column).tolist())
    assert [one.original(i) for i in range(len(one))] == [
        other.original(i) for i in range(len(other))
    ]


def test_a_run_of_two_schemas() -> None:
    """Without `schema_id` each message has the names of the schema that it was written in."""
    registry = SHARED
    newer = {
        **TRADE,
        "fields": [
            *TRADE["fields"][:2],
            {"name": "size", "type": "double", "default": 9.0},
            {"name": "ts", "type": {"type": "long", "logicalType": "timestamp-nanos"}},
            {"name": "venue", "type": "string", "default": "X"},
        ],
    }
    old = registry.avro(TRADE, [trade(price=1.0), trade(price=2.0, size=5.0)])
    new = registry.avro(newer, [trade(price=3.0, ts=NOW_NS + 1, size=6.0, venue="Y")])
    values = [old[0], new[0], old[1]]
    (first, second, third) = read(source_of("avro"), registry, *values)
    assert (repr(first), second, third) == (
        repr((NOW_NS, 1.0, float("nan"))),
        (NOW_NS + 1, 3.0, 6.0),
        (NOW_NS, 2.0, 5.0),
    )
    alone = [read(source_of("avro"), registry, value)[0] for value in values]
    assert repr(alone) == repr([first, second, third])


def test_a_renamed_field_is_read_by_the_name_of_the_schema_that_the_source_names() -> None:
    registry = SHARED
    newer = {
        **TRADE,
        "name": "Trade2",
        "aliases": ["Trade"],
        "fields": [
            TRADE["fields"][0],
            {"name": "px", "aliases": ["price"], "type": "double"},
            {"name": "size", "type": "double", "default": 9.0},
            TRADE["fields"][3],
        ],
    }
    old = registry.avro(with_fields(price="float", size="int"), [trade(price=1.5, size=4)])
    absent = registry.avro(
        {**TRADE, "fields": [*TRADE["fields"][:2], TRADE["fields"][3]]}, [trade()]
    )
    new = registry.avro(newer, [{"symbol": "A", "px": 2.5, "size": 3.0, "ts": NOW_MS}])
    source = source_of("avro", {"price": "px"}, schema_id=registry.register(newer))
    assert read(source, registry, old[0], new[0], absent[0]) == [
        (NOW_NS, 1.5, 4.0), (NOW_NS, 2.5, 3.0), (NOW_NS, 1.5, 9.0),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("integer", "scale", "price"), [(18923, 2, 189.23), (-5, -3, -5000.0), (0, 0, 0.0)]
)
def test_a_decimal_that_has_its_own_scale(integer: int, scale: int, price: float) -> None:
    """As Avro's Java library writes it since 1.12; fastavro leaves its bytes."""
    registry = SHARED
    size = integer.bit_length() // 8 + 1
    value = zigzag(size) + integer.to_bytes(size, "big", signed=True) + zigzag(scale)
    schema = with_fields(price={"type": "bytes", "logicalType": "big-decimal"})
    (message,) = registry.avro(schema, [trade(price=value)])
    assert read(source_of("avro"), registry, message)[0][:2] == (NOW_NS, price)


def test_elements_of_which_a_part_takes_no_byte() -> None:
    registry = SHARED
    reserved = with_fields(reserved="null")
    (message,) = registry.avro({"type": "array", "items": reserved}, [[trade(), trade(price=2.5)]])
    ticks = decoded(source_of("avro"), registry, message)
    assert ticks.rejected == []
    assert ticks.fields[:, 0].tolist() == [1.5, 2.5]


def test_a_default_of_another_type_in_a_schema_that_is_not_read_in() -> None:
    """Registries have such schemas since before Avro compared defaults with types."""
    registry = SHARED
    (plain,) = registry.avro(TRADE, [trade()])
    old = {**TRADE, "fields": [{**each, "default": None} for each in TRADE["fields"]]}
    assert read(source_of("avro"), registry, in_schema(registry.register(old), plain)) == [
        (NOW_NS, 1.5, pytest.approx(float("nan"), nan_ok=True))
    ]


def test_types_that_others_declare() -> None:
    registry = SHARED
    money = {
        "type": "record",
        "name": "Money",
        "namespace": "m",
        "fields": [{"name": "v", "type": DECIMAL}],
    }
    registry.client.register_schema("money", registry_schema(money))
    schema = with_fields(price="m.Money")
    written = registry_schema(schema, [("m.Money", "money", 1)])
    number = registry.client.register_schema("trades-value", written)
    # 189.2300 in two's complement, behind symbol and before an absent size
    value = b"\0" + number.to_bytes(4, "big") + b"\x02A" + b"\x06" + (1892300).to_bytes(3, "big")
    value += b"\x00" + zigzag(NOW_MS)
    assert read(source_of("avro", {"price": "price.v"}), registry, value)[0][:2] == (NOW_NS, 189.23)


@pytest.mark.parametrize(
    ("stamp", "logical", "said"),
    [
        (NOW_MS, None, ""),
        (2**63 - 1, "timestamp-millis", "is not an RFC 3339 time"),
        (-(2**63), "timestamp-micros", "is not an RFC 3339 time"),
        (2**63 - 1, "timestamp-nanos", "ts 2262-04-11T23:47:16.854775807Z is not from 1971"),
        (5, "timestamp-millis", "ts 1970-01-01T00:00:00.005000000Z is not from 1971"),
        (NOW_MS, "local-timestamp-millis", ""),
    ],
)
def test_times_at_the_edge(stamp: int, logical: str | None, said: str) -> None:
    """A time without a zone, and a plain integer, are in the unit of the source."""
    registry = Registry()
    kind: Any = "long" if logical is None else {"type": "long", "logicalType": logical}
    plain = with_fields(ts="long", size="int")
    (message,) = registry.avro(plain, [trade(size=0, ts=stamp)])
    number = registry.register(with_fields(ts=kind, size="int"))
    (found,) = read(source_of("avro"), registry, b"\0" + number.to_bytes(4, "big") + message[5:])
    assert said in found[1] if said else found == (NOW_NS, 1.5, 0.0)


def test_a_field_that_nobody_reads_may_be_of_another_type() -> None:
    registry = SHARED
    (message,) = registry.avro(with_fields(venue="int"), [trade(venue=7)])
    inner = {"type": "record", "name": "V", "fields": [{"name": "n", "type": "string"}]}
    for venue in ("string", inner):
        source = source_of("avro", schema_id=registry.register(with_fields(venue=venue)))
        assert read(source, registry, message)[0][:2] == (NOW_NS, 1.5)
    source = source_of("avro", {"size": "venue"}, schema_id=source.schema_id)
    (found,) = read(source, registry, message)
    assert found[0] == "malformed"
    assert "not readable in the source's `schema_id`: Schema mismatch" in found[1]


@examples(2)
@given(st.data())
def test_bytes_that_are_damaged_are_ticks_or_rejections(data: st.DataObject) -> None:
    registry = SHARED
    schema = with_fields(seq=["null", "string", "long"], x={"type": "map", "values": DECIMAL})
    (whole,) = registry.avro(schema, [trade(seq="id", x={"a": Decimal("1.0000")})])
    place = data.draw(st.integers(5, len(whole)))
    damaged = whole[:place] + data.draw(st.binary(max_size=8)) + whole[place + 1 :]
    ticks = decoded(source_of("avro"), registry, damaged, whole)
    assert len(ticks) + len(ticks.rejected) == 2
    for rejected in ticks.rejected:
        assert rejected.value == (damaged, whole)[rejected.offset]


def test_what_is_said_of_bytes_that_end_too_early() -> None:
    """The same of the same message, in every process."""
    registry = SHARED
    (whole,) = registry.avro(TRADE, [trade(size=2.0)])
    cut = [whole[:end] for end in range(5, len(whole))]
    found = read(source_of("avro"), registry, *cut, whole[:15] + b"\x0a" + whole[16:])
    assert {each[0] for each in found} == {"malformed"}
    assert {each[1].partition("decode: ")[2] for each in found} == {
        "its bytes end too early, or name a branch or a symbol that the schema does not have"
    }


def test_bytes_that_follow_a_value_are_no_part_of_it() -> None:
    """Two messages that were joined, or a value of another schema."""
    registry = SHARED
    whole, other = registry.avro(TRADE, [trade(size=2.0), trade(size=3.0)])
    found = read(source_of("avro"), registry, whole + b"\0", whole + other)
    assert [each[0] for each in found] == ["malformed"] * 2
    assert found[0][1].endswith("1 bytes follow the value")
    assert found[1][1].endswith(f"{len(other)} bytes follow the value")


def test_text_that_is_read_as_bytes() -> None:
    """Avro lets a reader's schema have bytes where the writer's has text, and the other way."""
    registry = SHARED
    values = registry.avro(TRADE, [trade(symbol="A")])
    values += registry.avro(with_fields(symbol="bytes"), [trade(symbol=b"A")])
    for kind in ("bytes", "string"):
        source = source_of("avro", schema_id=registry.register(with_fields(symbol=kind)))
        assert [each[:2] for each in read(source, registry, *values)] == [(NOW_NS, 1.5)] * 2


def test_a_text_that_is_none() -> None:
    """Half of a surrogate pair, which JSON can write and UTF-8 cannot: as a name, as a value."""
    registry = SHARED
    (good,) = registry.avro(TRADE, [trade()])
    number = registry.register(with_fields(**{"\ud800": "int"}))
    assert read(source_of("avro"), registry, in_schema(number, good + b"\x02"))[0][1] == 1.5
    venue = {"name": "venue", "type": "string", "default": "\ud800"}
    source = source_of(
        "avro",
        {"size": "venue"},
        schema_id=registry.register({**TRADE, "fields": [*TRADE["fields"], venue]}),
    )
    (found,) = read(source, registry, good)
    assert found[0] == "malformed"
    assert "does not decode: UnicodeEncodeError" in found[1]
