"""Messages in Protobuf, as confluent-kafka's own serializer writes them."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2
from hypothesis import given
from hypothesis import strategies as st

from pipelines.ticks.columns import NO_SEQ
from pipelines.ticks.decoder import Decoder
from registry.definitions import Condition
from tests.support.examples import examples
from tests.support.logs import run_of, same_double
from tests.support.wire_sources import (
    FIELD,
    NOW_NS,
    OTHER,
    SHARED,
    STAMP,
    Counting,
    Registry,
    decoded,
    field,
    protobuf_types,
    read,
    set_stamp,
    source_of,
    trade_type,
    zigzag,
)


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
    values += [good[:5] + b"\x01\x01" + good[7:], good[:6]]  # as older serializers wrote, and less
    if within is not None:
        values.append(registry.protobuf(within))
    found = read(source_of("protobuf"), registry, *values)
    assert found[0][:2] == (NOW_NS, 1.0)
    assert "has no message type at [10]" in found[1][1]
    assert "does not decode" in found[3][1]
    for each in (found[2], found[4], found[5]):
        assert "`use.deprecated.format` is to be false" in each[1]
    assert "symbol is missing" in found[-1][1]


def money_file() -> Any:
    """A file that others import, and one that it imports."""
    scale = descriptor_pb2.FileDescriptorProto(
        name="shared/scale.proto", package="shared", syntax="proto3"
    )
    scale.enum_type.add(name="Side").value.extend(
        descriptor_pb2.EnumValueDescriptorProto(name=name, number=number)
        for number, name in enumerate(("NONE", "BUY", "SELL"))
    )
    money = descriptor_pb2.FileDescriptorProto(
        name="shared/money.proto", package="shared", syntax="proto3", dependency=[scale.name]
    )
    kind = money.message_type.add(name="Money")
    kind.field.extend(
        [
            field("px", 1, FIELD.TYPE_SINT64),
            field("side", 2, FIELD.TYPE_ENUM, type_name=".shared.Side"),
        ]
    )
    return scale, money


@examples(1)
@given(price=st.integers(-(2**53), 2**53), side=st.sampled_from([0, 1, 2, 7]))
def test_imported_types_as_confluents_deserializer_reads_them(price: int, side: int) -> None:
    """A type in another, of types of other files; its schema in front, or in a header."""
    registry = SHARED
    outer = descriptor_pb2.DescriptorProto(name="Outer")
    for name in ("First", "Trade"):
        outer.nested_type.add(name=name).field.extend(
            [
                field("symbol", 1, FIELD.TYPE_STRING),
                field("money", 2, FIELD.TYPE_MESSAGE, type_name=".shared.Money"),
                field("ts", 3, FIELD.TYPE_MESSAGE, type_name=STAMP),
            ]
        )
    kind = protobuf_types(OTHER, outer, imported=money_file())["feed.Outer"].Trade
    message = kind(symbol="A", money={"px": price, "side": side})
    set_stamp(message, NOW_NS)
    written = registry.protobuf(message)
    said = registry.read_protobuf(kind, written)
    value, headers = registry.protobuf_with_header(message)
    assert value == message.SerializeToString()
    sells = Condition("money.side", ("SELL",))
    run = run_of([(b"A", written), (b"A", value)], headers=[{}, headers])
    for where, many in (((), 2), ((sells,), 2 if said.money.side == 2 else 0)):
        source = source_of("protobuf", {"price": "money.px"}, where=where)
        ticks = Decoder(source, registry=registry.asked).decode(run)
        assert ticks.rejected == []
        assert ticks.fields[:, 0].tolist() == [said.money.px] * many
        assert ticks.passed_over == 2 - many


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


def test_protobuf_of_few_bytes_and_much_memory() -> None:
    """An element of two bytes takes the memory of all fields of its type."""
    registry = SHARED
    wide = descriptor_pb2.DescriptorProto(name="Wide")
    wide.field.extend(field(f"f{n}", n + 1, FIELD.TYPE_DOUBLE) for n in range(2000))
    around = descriptor_pb2.DescriptorProto(name="Around")
    around.field.append(field("wide", 1, FIELD.TYPE_MESSAGE, type_name=".feed.Wide"))
    kind = trade_type()
    kind.field.append(
        field("item", 9, FIELD.TYPE_MESSAGE, label=FIELD.LABEL_REPEATED, type_name=".feed.Around")
    )
    kinds = protobuf_types(OTHER, kind, around, wide)
    one = kinds["feed.Around"](wide=kinds["feed.Wide"]())
    message = kinds["feed.Trade"](symbol="A", price=1.5, item=[one] * 1000)
    set_stamp(message, NOW_NS)
    short = registry.protobuf(message)
    message.item.extend([one] * 20_000)
    (first, second) = read(source_of("protobuf"), registry, short, registry.protobuf(message))
    assert first[:2] == (NOW_NS, 1.5)
    assert second[0] == "malformed"
    assert "of a type whose elements take much memory; at most 33554 are taken" in second[1]
    alone = kinds["feed.Wide"](**{f"f{n}": 1.5 for n in range(2000)})
    (found,) = read(source_of("protobuf"), registry, registry.protobuf(alone))
    assert found == ("malformed", "symbol is missing")


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


ALONE = """
import sys
from pipelines.ticks.wire.protobuf_values import value_reader
from pipelines.ticks.wire.schema_registry import Schema
from pipelines.ticks.wire.wanted_values import Wanted

for text in sys.argv[1:]:
    read = value_reader(Schema("PROTOBUF", text, ()), None, Wanted({"seen": Wanted()}))
    print(read(b"\\x08\\x05", (0,)))
"""


def test_files_that_serializers_do_not_register_are_known() -> None:
    """In a program that imports no more than the product: confluent-kafka's serializers, which
    these tests use, import them all."""
    names = [
        *("any", "api", "descriptor", "duration", "empty", "field_mask", "source_context"),
        *("struct", "timestamp", "type", "wrappers"),
    ]
    of_types = ("date", "datetime", "decimal", "latlng", "money", "timeofday")
    imported = [
        *(f"google/protobuf/{name}.proto" for name in names),
        *(f"google/type/{name}.proto" for name in of_types),
        "confluent/meta.proto",
        "confluent/type/decimal.proto",
    ]
    texts = []
    for name in imported:
        kind = descriptor_pb2.DescriptorProto(name="Trade")
        kind.field.append(field("seen", 1, FIELD.TYPE_INT32))
        file = descriptor_pb2.FileDescriptorProto(
            name="x", package="feed", syntax="proto3", message_type=[kind], dependency=[name]
        )
        texts.append(base64.b64encode(file.SerializeToString()).decode())
    done = subprocess.run(
        [sys.executable, "-c", ALONE, *texts],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[5],
    )
    assert done.stderr == ""
    assert done.stdout == "{'seen': 5}\n" * len(imported)
