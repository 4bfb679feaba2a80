"""Messages in a schema registry's formats are the ticks that they would be in JSON.

They are written by confluent-kafka's own serializers, and read beside them by its deserializer.
"""

from __future__ import annotations

import base64
import json
import re
import struct
from datetime import datetime
from decimal import Decimal
from itertools import pairwise
from typing import Any
from uuid import UUID

import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import FormatUnreadable, SchemaRegistryUnavailable
from pipelines.ticks.columns import NO_SEQ, Ticks
from pipelines.ticks.decoder import Decoder
from pipelines.ticks.message_limits import MAX_MESSAGE_BYTES
from pipelines.ticks.schema_registry import SchemaRegistry
from registry.definitions import Source
from tests.support.examples import examples
from tests.support.logs import NOW_MS, run_of, same_double
from tests.support.wire_sources import FIELD, Registry, field, protobuf_types, source_of

NOW_NS = NOW_MS * 10**6
SHARED = Registry()
"""Where many examples are written: to make a client takes longer than all the rest."""

TRADE = {
    "type": "record",
    "name": "Trade",
    "fields": [
        {"name": "symbol", "type": "string"},
        {"name": "price", "type": "double"},
        {"name": "size", "type": ["null", "double"], "default": None},
        {"name": "ts", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    ],
}


def with_fields(**types: Any) -> dict[str, Any]:
    """The schema of trades with other types of some fields, or more fields."""
    fields = {each["name"]: each["type"] for each in TRADE["fields"]} | types
    return {**TRADE, "fields": [{"name": name, "type": kind} for name, kind in fields.items()]}


def trade(**changes: Any) -> dict[str, Any]:
    return {"symbol": "A", "price": 1.5, "size": None, "ts": NOW_MS, **changes}


def decoded(source: Source, registry: Registry, *values: bytes | None, key: bytes = b"A") -> Ticks:
    return Decoder(source, registry=registry.asked).decode(run_of([(key, v) for v in values]))


def read(source: Source, registry: Registry, *values: bytes | None) -> list[Any]:
    """(time, price, size) of each message, or its reason and detail."""
    ticks = decoded(source, registry, *values)
    found: dict[int, Any] = {each.offset: (each.reason, each.detail) for each in ticks.rejected}
    for i in range(len(ticks)):
        found[int(ticks.offset[i])] = (int(ticks.tick_time[i]), *ticks.fields[i].tolist())
    return [found[record] for record in sorted(found)]


# ---------------------------------------------------------------- Avro

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
    assert one.entities == other.entities
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


def test_a_schema_that_the_source_names_is_waited_for() -> None:
    """It is no message's fault that the source names it wrongly."""
    registry = SHARED
    (message,) = registry.avro(TRADE, [trade()])
    recursive = {"type": "record", "name": "R", "fields": [{"name": "r", "type": ["null", "R"]}]}
    for wrong in (
        99,
        registry.register('{"type": "object"}', "JSON"),
        registry.register(recursive),
    ):
        with pytest.raises(
            SchemaRegistryUnavailable, match=f"trades is read in schema {wrong}, by"
        ):
            read(source_of("avro", schema_id=wrong), registry, message)


def test_the_schema_may_be_named_by_a_header() -> None:
    registry = SHARED
    value, headers = registry.avro_with_header(TRADE, trade(price=7.0))
    assert set(headers) == {"__value_schema_id"}
    (with_prefix,) = registry.avro(TRADE, [trade(price=8.0)])
    decoder = Decoder(source_of("avro"), registry=registry.asked)
    run = run_of([(b"A", value), (b"A", with_prefix)], headers=[headers, {"x": b"y"}])
    ticks = decoder.decode(run)
    assert ticks.rejected == []
    assert ticks.fields[:, 0].tolist() == [7.0, 8.0]
    assert ticks.original(0) == value
    for header in (b"", b"\x01short", b"\x02" * 17):
        (bad,) = decoder.decode(
            run_of([(b"A", value)], headers=[{"__value_schema_id": header}])
        ).rejected
        assert bad.reason == "malformed"
        assert "the header __value_schema_id" in bad.detail
    unknown = {"__value_schema_id": b"\x01" + UUID(int=5).bytes}
    with pytest.raises(SchemaRegistryUnavailable, match="it has no schema 00000000-0000-0000-0000"):
        decoder.decode(run_of([(b"A", value)], headers=[unknown]))


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


def registry_schema(schema: Any, references: Any = ()) -> Any:
    from confluent_kafka.schema_registry import Schema, SchemaReference

    return Schema(json.dumps(schema), "AVRO", [SchemaReference(*each) for each in references])


def zigzag(number: int) -> bytes:
    number, out = number << 1 ^ number >> 63, bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


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


FREE = {"type": "array", "items": {"type": "record", "name": "E", "fields": []}}
HOLLOW = {
    "type": "record",
    "name": "H",
    "fields": [{"name": f"f{n}", "type": "null"} for n in range(100)],
}
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


def test_why_a_message_is_malformed() -> None:
    registry = Registry()
    (good,) = registry.avro(TRADE, [trade()])
    other = registry.register('{"type": "object"}', "JSON")
    values = [
        None,
        b'{"symbol": "A"}',
        b"",
        b"\0\0\0\0\x63" + good[5:],
        b"\0" + other.to_bytes(4, "big") + good[5:],
        good[:-1],
        good + b"\0",
        good[:6] + b"\xff" + good[7:],
        good,
    ]
    source = source_of("avro", reject_schema_ids=(99,))
    found = read(source, registry, *values)
    details = [each[1] for each in found[:-1]]
    assert {each[0] for each in found[:-1]} == {"malformed"}
    for detail, said in zip(
        details,
        [
            "a tombstone",
            "plain JSON is read by a source without `format`",
            "names no schema",
            "its schema 99 is among the source's `reject_schema_ids`",
            f"schema {other}: it is of type JSON, and the source's format is avro",
            "schema 1: the value does not decode: ",
            "schema 1: the value does not decode: 1 bytes follow the value",
            "does not decode: UnicodeDecodeError",
        ],
        strict=True,
    ):
        assert said in detail
    assert found[-1][:2] == (NOW_NS, 1.5)
    ticks = decoded(source, registry, *values)
    assert [each.value for each in ticks.rejected] == values[:-1]


def test_a_rejected_tick_keeps_the_bytes_of_its_producer() -> None:
    registry = SHARED
    values = registry.avro(TRADE, [trade(symbol="B"), trade(price=float("nan")), trade(ts=5)])
    ticks = decoded(source_of("avro"), registry, *values)
    assert [(each.reason, each.value) for each in ticks.rejected] == list(
        zip(["key-mismatch", "not-finite", "out-of-range"], values, strict=True)
    )


def test_limits() -> None:
    registry = SHARED
    message = registry.avro(TRADE, [trade(symbol="\1" * 50_000)])[0]
    long = registry.avro(with_fields(x="bytes"), [trade(x=b"x" * MAX_MESSAGE_BYTES)])[0]
    (one, other) = read(source_of("avro"), registry, message, long)
    assert (one[0], other[0]) == ("too-large", "too-large")
    assert len(message) < 51_000
    assert "bytes as JSON" in one[1]
    assert f"{len(long)} bytes; at most" in other[1]


def test_what_the_source_does_not_read_is_not_written() -> None:
    """A record of few bytes may have thousands of fields; a worker must hold many of them."""
    registry = SHARED
    wide = with_fields(**dict.fromkeys((f"absent{n}" for n in range(3000)), "null"))
    (avro,) = registry.avro(wide, [trade()])
    kind = trade_type()
    kind.field.extend(field(f"absent{n}", 100 + n, FIELD.TYPE_DOUBLE) for n in range(300))
    typed = protobuf_types(OTHER, kind)["feed.Trade"](symbol="A", price=1.5)
    set_stamp(typed, NOW_NS)
    for form, message in (("avro", avro), ("protobuf", registry.protobuf(typed))):
        ticks = decoded(source_of(form), registry, *[message] * 50)  # type: ignore[arg-type]
        assert ticks.fields[:, 0].tolist() == [1.5] * 50
        assert len(message) < 40
        assert len(ticks.data) < 50 * 200


class Counting:
    """A client that notes the schemas that it is asked for."""

    def __init__(self, registry: Registry) -> None:
        self.asked: list[int] = []
        self._client = registry.client

    def get_schema(self, name: int, fmt: str | None = None) -> Any:
        self.asked.append(name)
        return self._client.get_schema(name, fmt=fmt)

    @property
    def registry(self) -> SchemaRegistry:
        return SchemaRegistry("mock://tests", lambda: self)


def in_schema(number: int, message: bytes) -> bytes:
    """A message with another schema id."""
    return b"\0" + number.to_bytes(4, "big") + message[5:]


def test_a_schema_that_the_registry_has_not_is_waited_for() -> None:
    """However long it takes: else a message would be decided by the hour at which it is read."""
    registry = Registry()
    client = Counting(registry)
    (good,) = registry.avro(TRADE, [trade()])
    values = [good, in_schema(3, good), in_schema(2, good), good, in_schema(3, good)]
    run = run_of([(b"A", value) for value in values])
    decoder = Decoder(source_of("avro", reject_schema_ids=(77,)), registry=client.registry)
    said = r"at mock://tests: it has no schema 3, 2 \(ticks.price\[0\] offset 1\); .*"
    for _ in range(3):
        with pytest.raises(
            SchemaRegistryUnavailable,
            match=said + re.escape("`reject_schema_ids = [77, 3, 2]` in the source trades"),
        ):
            decoder.decode(run)
    assert sorted(client.asked) == [1, 2, 2, 2, 3, 3, 3]
    registry.register(with_fields(more="string"))
    with pytest.raises(SchemaRegistryUnavailable, match="it has no schema 3 "):
        decoder.decode(run)
    registry.register({**TRADE, "name": "Other"})
    ticks = decoder.decode(run)
    assert ticks.offset.tolist() == [0, 1, 3, 4]
    assert [each.reason for each in ticks.rejected] == ["malformed"]


def test_schemas_that_the_source_rejects_are_never_asked_for() -> None:
    """A registry that learns of them changes nothing."""
    registry = Registry()
    client = Counting(registry)
    (good,) = registry.avro(TRADE, [trade()])
    (value, headers) = registry.avro_with_header(TRADE, trade())
    guid = UUID(bytes=headers["__value_schema_id"][1:])
    source = source_of("avro", reject_schema_ids=(1, 9, str(guid)))
    run = run_of(
        [(b"A", good), (b"A", in_schema(9, b"12345x")), (b"A", value)], headers=[{}, {}, headers]
    )
    rejected = Decoder(source, registry=client.registry).decode(run).rejected
    assert [(each.reason, each.detail) for each in rejected] == [
        ("malformed", f"its schema {name} is among the source's `reject_schema_ids`")
        for name in (1, 9, guid)
    ]
    assert [each.value for each in rejected] == [good, run.value(1), value]
    assert client.asked == []


def test_the_requests_of_an_attempt_are_bounded() -> None:
    """One after another, each with a limit of its own: the worker says nothing meanwhile."""
    registry = Registry()
    client = Counting(registry)
    (good,) = registry.avro(TRADE, [trade()])
    known = [registry.register({**TRADE, "name": f"T{n}"}) for n in range(300)]
    names = [*known, *range(1000, 3000)]
    run = run_of([(b"A", in_schema(name, good)) for name in names])
    decoder = Decoder(source_of("avro"), registry=client.registry)
    for _ in range(2):
        with pytest.raises(SchemaRegistryUnavailable, match="has no schema"):
            decoder.decode(run)
    assert len(client.asked) <= 300 + 2 * 20
    assert len({name for name in client.asked if name in known}) == len(
        [name for name in client.asked if name in known]
    )


def test_nothing_is_read_without_a_registry() -> None:
    for form in ("avro", "protobuf"):
        with pytest.raises(FormatUnreadable, match=f"{form}: set TICKWELL_SCHEMA_REGISTRY"):
            Decoder(source_of(form))


# ---------------------------------------------------------------- in parts


@examples(2)
@given(st.data(), st.integers(1, 800))
def test_a_run_is_the_same_in_parts(data: st.DataObject, most_bytes: int) -> None:
    """What is JSON at one time is bounded, whatever a schema makes of few bytes."""
    registry = SHARED
    many = {"type": "array", "items": with_fields(seq=["null", "string", "long"])}
    trades = st.fixed_dictionaries(
        {
            "symbol": st.sampled_from(["A", "B", "\u00fc" * 40, ""]),
            "price": st.sampled_from([1.5, -2.0, float("nan")]),
            "size": st.just(1.0),
            "ts": st.just(NOW_MS),
            "seq": st.sampled_from([None, "id", "x" * 30, 7]),
        }
    )
    arrays = data.draw(st.lists(st.lists(trades, max_size=3), max_size=12))
    values: list[bytes | None] = [*registry.avro(many, arrays), None, b"damaged"]
    values = data.draw(st.permutations(values))
    run = run_of([(b"A", value) for value in values])
    source = source_of("avro", message_key="any", partitioner="any")
    whole = Decoder(source, registry=registry.asked).decode(run)
    parts = Decoder(source, registry=registry.asked, most_json_bytes=most_bytes).decode(run)
    assert parts.run is run
    assert parts.rejected == whole.rejected
    assert parts.entities == whole.entities
    texts = [ticks.seq_text.tolist() for ticks in (parts, whole)]
    read = [
        [ticks.data[a:b].tobytes() for a, b in spans]
        for ticks, spans in zip((parts, whole), texts, strict=True)
    ]
    assert read[0] == read[1]
    assert [parts.original(i) for i in range(len(parts))] == [
        whole.original(i) for i in range(len(whole))
    ]
    for column in ("record", "offset", "index", "tick_time", "seq", "op", "known_at"):
        assert getattr(parts, column).tolist() == getattr(whole, column).tolist()
    assert parts.fields.tobytes() == whole.fields.tobytes()


# ---------------------------------------------------------------- Protobuf

STAMP = ".google.protobuf.Timestamp"


def trade_type(**renamed: str) -> Any:
    """The type of a trade, the second in its file, with a type within."""
    message = descriptor_pb2.DescriptorProto(name="Trade")
    message.field.extend(
        [
            field("symbol", 1, FIELD.TYPE_STRING),
            field(renamed.get("price", "price"), 2, FIELD.TYPE_DOUBLE),
            field("size", 3, FIELD.TYPE_FLOAT, proto3_optional=True, oneof_index=0),
            field("ts", 4, FIELD.TYPE_MESSAGE, type_name=STAMP),
            field("seq", 5, FIELD.TYPE_INT64, proto3_optional=True, oneof_index=1),
            field("tags", 6, FIELD.TYPE_STRING, label=FIELD.LABEL_REPEATED),
            field("raw", 7, FIELD.TYPE_BYTES),
        ]
    )
    message.oneof_decl.extend(descriptor_pb2.OneofDescriptorProto(name=n) for n in ("_a", "_b"))
    message.nested_type.add(name="Within").field.append(field("n", 1, FIELD.TYPE_INT32))
    return message


OTHER = descriptor_pb2.DescriptorProto(name="Other")


def set_stamp(message: Message, nanoseconds: int) -> None:
    message.ts.seconds, message.ts.nanos = divmod(nanoseconds, 10**9)  # type: ignore[attr-defined]


@examples(1)
@given(
    price=st.floats(),
    size=st.none() | st.floats(width=32, allow_nan=False, allow_infinity=False),
    seq=st.none() | st.integers(-(2**63) + 1, 2**63 - 1),
    past=st.integers(0, 10**12),
)
def test_protobuf(price: float, size: float | None, seq: int | None, past: int) -> None:
    registry = SHARED
    kinds = protobuf_types(OTHER, trade_type())
    message = kinds["feed.Trade"](symbol="A", price=price, size=size, seq=seq, tags=["x", "y"])
    set_stamp(message, NOW_NS - past)
    written = registry.protobuf(message)
    ticks = decoded(source_of("protobuf"), registry, written)
    if not abs(price) < float("inf"):
        assert [each.reason for each in ticks.rejected] == ["not-finite"]
        return
    assert ticks.rejected == []
    assert ticks.tick_time.tolist() == [NOW_NS - past]
    assert same_double(ticks.fields[0, 0], price)
    assert same_double(ticks.fields[0, 1], float("nan") if size is None else size)
    assert ticks.seq.tolist() == [NO_SEQ if seq is None else seq]
    assert ticks.original(0) == written


def test_protobuf_fields_that_are_not_set_are_zero_or_absent() -> None:
    registry = SHARED
    kinds = protobuf_types(OTHER, trade_type())
    message = kinds["feed.Trade"](symbol="A")
    (found,) = read(source_of("protobuf"), registry, registry.protobuf(message))
    assert found == ("malformed", "ts is missing")
    set_stamp(message, NOW_NS)
    (found,) = read(source_of("protobuf"), registry, registry.protobuf(message))
    assert repr(found) == repr((NOW_NS, 0.0, float("nan")))


def test_a_renamed_field_of_protobuf() -> None:
    registry = SHARED
    old = protobuf_types(OTHER, trade_type())["feed.Trade"](symbol="A", price=1.25)
    new = protobuf_types(OTHER, trade_type(price="px"))["feed.Trade"](symbol="A", px=2.5)
    for message in (old, new):
        set_stamp(message, NOW_NS)
    written = [registry.protobuf(old), registry.protobuf(new)]
    named = int.from_bytes(written[1][1:5], "big")
    source = source_of("protobuf", {"price": "px"}, schema_id=named)
    assert [each[1] for each in read(source, registry, *written)] == [1.25, 2.5]


def test_other_types_of_a_protobuf_file() -> None:
    registry = SHARED
    kinds = protobuf_types(OTHER, trade_type())
    trade_message = kinds["feed.Trade"](symbol="A", price=1.0)
    set_stamp(trade_message, NOW_NS)
    good = registry.protobuf(trade_message)
    assert good[5:8] == b"\x02\x02\x0a"  # one index, which is 1, and the first field
    within = kinds["feed.Trade"].Within(n=5) if hasattr(kinds["feed.Trade"], "Within") else None
    values = [good, good[:6] + b"\x14" + good[7:], good[:5] + b"\x7e" + good[7:], good[:-3]]
    if within is not None:
        values.append(registry.protobuf(within))
    found = read(source_of("protobuf"), registry, *values)
    assert found[0][:2] == (NOW_NS, 1.0)
    assert "has no message type at [10]" in found[1][1]
    assert "names no schema" in found[2][1]
    assert "does not decode" in found[3][1]
    assert "symbol is missing" in found[4][1]


def test_types_of_a_file_are_made_once() -> None:
    """However many types the messages of a run name, there or not."""
    registry = Registry()
    client = Counting(registry)
    kinds = protobuf_types(OTHER, trade_type())
    message = kinds["feed.Trade"](symbol="A", price=1.0)
    set_stamp(message, NOW_NS)
    good = registry.protobuf(message)
    others = [good[:6] + zigzag(index) + good[7:] for index in range(2, 40)]
    decoder = Decoder(source_of("protobuf"), registry=client.registry)
    ticks = decoder.decode(run_of([(b"A", value) for value in (*others, good)]))
    assert ticks.fields[:, 0].tolist() == [1.0]
    assert len(ticks.rejected) == len(others)
    assert len(client.asked) == 1


def test_protobuf_of_few_bytes_and_many_values() -> None:
    registry = SHARED
    item = descriptor_pb2.DescriptorProto(name="Item")
    names = ("symbol", "price", "size", "ts")
    item.field.extend(field(name, n + 1, FIELD.TYPE_INT32) for n, name in enumerate(names))
    many = descriptor_pb2.DescriptorProto(name="Many")
    many.field.append(
        field("item", 1, FIELD.TYPE_MESSAGE, label=FIELD.LABEL_REPEATED, type_name=".feed.Item")
    )
    kinds = protobuf_types(many, item)
    written = registry.protobuf(kinds["feed.Many"](item=[kinds["feed.Item"]()] * 60_000))
    (found,) = read(source_of("protobuf", items="item"), registry, written)
    assert found[0] == "malformed"
    assert "holds over 131072 values" in found[1]
    (found,) = read(source_of("protobuf"), registry, written)  # which reads nothing of them
    assert found == ("malformed", "symbol is missing")


# ---------------------------------------------------------------- no message ends a worker


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


@pytest.mark.parametrize(
    ("package", "name"),
    [
        ("google.protobuf", "Timestamp"),
        ("google.protobuf", "DoubleValue"),
        ("confluent.type", "Decimal"),
    ],
)
def test_a_type_with_the_name_of_a_known_one(package: str, name: str) -> None:
    """Whoever writes schemas may declare it, with other fields."""
    registry = SHARED
    kind = descriptor_pb2.DescriptorProto(name=name)
    kind.field.append(field("other", 1, FIELD.TYPE_INT32))
    file = descriptor_pb2.FileDescriptorProto(
        name="default", package=package, syntax="proto3", message_type=[kind]
    )
    text = base64.b64encode(file.SerializeToString()).decode()
    number = registry.register(text, "PROTOBUF")
    value = b"\0" + number.to_bytes(4, "big") + b"\0\x08\x05"
    (found,) = read(source_of("protobuf"), registry, value)
    assert found[0] == "malformed"
    assert re.match(rf"schema {number}: the value does not decode: \w+Error: ", found[1])


# ---------------------------------------------------------------- JSON Schema


@examples(1)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=4))
def test_json_schema_is_the_text_behind_the_frame(prices: list[float]) -> None:
    """It needs no registry, and every digit stays."""
    registry = SHARED
    texts = [json.dumps(trade(price=price)).encode() for price in prices]
    framed = [struct.pack(">bI", 0, 77) + text for text in texts]
    one = decoded(source_of("json-schema"), registry, *framed)
    other = decoded(source_of("json"), registry, *texts)
    assert one.fields.tobytes() == other.fields.tobytes()
    assert [one.original(i) for i in range(len(one))] == framed
    header = {"__value_schema_id": b"\x01" + bytes(16)}
    with_header = Decoder(source_of("json-schema")).decode(
        run_of([(b"A", text) for text in texts], headers=[header] * len(texts))
    )
    assert with_header.fields.tobytes() == other.fields.tobytes()


def test_json_schema_without_a_frame() -> None:
    text = json.dumps(trade()).encode()
    array = struct.pack(">bI", 0, 7) + b"[" + text + b", " + text[:-1] + b"]"
    both = struct.pack(">bI", 0, 7) + b"[" + text + b"," + text.replace(b"1.5", b'"x"') + b"]"
    ticks = decoded(source_of("json-schema"), Registry(), text, array, both, None)
    assert [each.detail[:12] for each in ticks.rejected if each.offset in (0, 3)] == [
        "names no sch", "no value: a ",
    ]  # fmt: skip
    values = {each.offset: each.value for each in ticks.rejected}
    assert values == {0: text, 1: array, 2: text.replace(b"1.5", b'"x"'), 3: None}
    assert [ticks.original(i) for i in range(len(ticks))] == [text]


# ---------------------------------------------------------------- what a message is alone


def test_a_message_does_not_depend_on_the_others_of_its_run() -> None:
    registry = SHARED
    values: list[bytes | None] = [*registry.avro(TRADE, [trade(price=p) for p in (1.0, 2.0)])]
    values += [None, b"x", values[0], b"\0\0\0\0\x63x"]
    values += registry.avro(with_fields(price="string"), [trade(price="3.5"), trade(price="x")])
    source = source_of("avro", reject_schema_ids=(99,))
    together = read(source, registry, *values)
    assert repr(together) == repr([read(source, registry, each)[0] for each in values])
    decoder = Decoder(source, registry=registry.asked)
    run = run_of([(b"A", value) for value in values])
    parts = [decoder.decode(run.since(a).before(b)) for a, b in pairwise(range(len(values) + 1))]
    assert [r.detail for part in parts for r in part.rejected] == [
        each[1] for each in together if isinstance(each[0], str)
    ]
