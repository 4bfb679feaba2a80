"""What all formats of a schema registry have in common, and JSON Schema."""

from __future__ import annotations

import json
import re
import struct
from itertools import pairwise
from uuid import UUID

import pytest
from google.protobuf import descriptor_pb2
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import FormatUnreadable, SchemaRegistryUnavailable
from pipelines.ticks.decoder import Decoder
from pipelines.ticks.message_limits import MAX_MESSAGE_BYTES
from tests.support.examples import examples
from tests.support.logs import NOW_MS, run_of
from tests.support.names import entities_of
from tests.support.wire_sources import (
    FIELD,
    NOW_NS,
    OTHER,
    SHARED,
    TRADE,
    Counting,
    Registry,
    assert_refused_in_little_memory,
    decoded,
    field,
    in_schema,
    protobuf_types,
    read,
    set_stamp,
    source_of,
    trade,
    trade_type,
    with_fields,
)


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


def test_bytes_are_no_number() -> None:
    """The two's complement of a decimal may be digits, as that of 131.07 is `33`."""
    registry = SHARED
    (avro,) = registry.avro(with_fields(price="bytes"), [trade(price=(13107).to_bytes(2, "big"))])
    kind = trade_type()
    typed = protobuf_types(OTHER, kind)["feed.Trade"](symbol="A", raw=b"33")
    set_stamp(typed, NOW_NS)
    for form, message, name in (
        ("avro", avro, "price"),
        ("protobuf", registry.protobuf(typed), "raw"),
    ):
        source = source_of(form, {"price": name})  # type: ignore[arg-type]
        (found,) = read(source, registry, message)
        assert found == ("unknown-field-type", "price is {'bytes': '3333'}, not a number")


def test_limits() -> None:
    registry = SHARED
    message = registry.avro(TRADE, [trade(symbol="\1" * 50_000)])[0]
    long = registry.avro(with_fields(x="bytes"), [trade(x=b"x" * MAX_MESSAGE_BYTES)])[0]
    (one, other) = read(source_of("avro"), registry, message, long)
    assert (one[0], other[0]) == ("too-large", "too-large")
    assert len(message) < 51_000
    assert "bytes as JSON" in one[1]
    assert f"{len(long)} bytes; at most" in other[1]


def test_a_long_name_that_each_element_repeats() -> None:
    """A byte of each may stand for a name of a schema: as JSON it would be a hundred megabytes."""
    registry, name, many = Registry(), "x" * 100_000, 1000
    venue = {"type": "enum", "name": "Venue", "symbols": [name]}
    element = {"type": "record", "name": "E", "fields": [{"name": "symbol", "type": venue}]}
    elements = {"type": "array", "items": element}
    record = {"type": "record", "name": "M", "fields": [{"name": "data", "type": elements}]}
    (avro,) = registry.avro(record, [{"data": [{"symbol": name}] * many}])
    kind = descriptor_pb2.DescriptorProto(name="M")
    kind.enum_type.add(name="Venue").value.add(name=name, number=0)
    kind.nested_type.add(name="E").field.append(
        field("symbol", 1, FIELD.TYPE_ENUM, type_name=".feed.M.Venue")
    )
    kind.field.append(
        field("data", 1, FIELD.TYPE_MESSAGE, type_name=".feed.M.E", label=FIELD.LABEL_REPEATED)
    )
    typed = protobuf_types(kind)["feed.M"]
    typed_message = typed(data=[typed.E()] * many)
    for form, message in (("avro", avro), ("protobuf", registry.protobuf(typed_message))):
        source = source_of(form, items="data")  # type: ignore[arg-type]
        assert len(message) < 3000
        assert_refused_in_little_memory(source, registry, message)


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
    assert entities_of(parts) == entities_of(whole)
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
