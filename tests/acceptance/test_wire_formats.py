"""Topics in Avro and Protobuf, from Kafka to both stores and back, while their registry goes and
returns.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fastavro import schemaless_writer
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    timestamp_pb2,
)

from tests.support.pipeline import Pipeline, wait_for
from tests.support.registry_server import RegistryServer

SOURCE = """
[[source]]
name = "trades"
topic = "{prefix}.trades"
key = ["symbol"]
fields = [{{ name = "price" }}]
format = "avro"
schema_id = {schema_id}
where = {{ kind = "trade" }}
[source.map]
price = "quote.px"

[[source]]
name = "quotes"
topic = "{prefix}.quotes"
key = ["symbol"]
fields = [{{ name = "price" }}]
format = "protobuf"

[[feature]]
name = "trade_mean"
version = "1.0.0"
source = "trades"
expression = "mean(price, 3)"

[[feature]]
name = "quote_mean"
version = "1.0.0"
source = "quotes"
expression = "mean(price, 3)"
"""
PASSWORD = "not-to-be-seen"
FIELD = descriptor_pb2.FieldDescriptorProto


def schema(*, name: str, unit: str, **more: Any) -> dict[str, Any]:
    """A schema of trades whose price has this name, and whose time this unit."""
    price = {"name": name, "type": "double", **more}
    quote = {"type": "record", "name": "Quote", "fields": [price]}
    return {
        "type": "record",
        "name": "Trade",
        "fields": [
            {"name": "symbol", "type": "string"},
            {"name": "ts", "type": {"type": "long", "logicalType": f"timestamp-{unit}"}},
            {"name": "quote", "type": quote},
            {"name": "kind", "type": "string", "default": "trade"},
        ],
    }


def quotes_file() -> Any:
    """The descriptor of a file in Protobuf with quotes, whose times are Google's."""
    stamp = {"type": FIELD.TYPE_MESSAGE, "type_name": ".google.protobuf.Timestamp"}
    kinds = {"symbol": {"type": FIELD.TYPE_STRING}, "price": {"type": FIELD.TYPE_DOUBLE}}
    file = descriptor_pb2.FileDescriptorProto(name="quotes.proto", syntax="proto3")
    file.dependency.append("google/protobuf/timestamp.proto")
    quote = file.message_type.add(name="Quote")
    for number, (name, kind) in enumerate({**kinds, "ts": stamp}.items(), 1):
        quote.field.add(name=name, number=number, label=FIELD.LABEL_OPTIONAL, **kind)
    return file


def quoted(number: int, price: float) -> bytes:
    """A quote of A, framed with the id of its schema."""
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(timestamp_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(quotes_file())
    kind = message_factory.GetMessageClass(pool.FindMessageTypeByName("Quote"))
    quote = kind(symbol="A", price=price)
    quote.ts.seconds, quote.ts.nanos = divmod(time.time_ns(), 10**9)
    return b"\0" + number.to_bytes(4, "big") + b"\0" + bytes(quote.SerializeToString())


OLD, NEW = schema(name="price", unit="millis"), schema(name="px", unit="nanos", aliases=["price"])


@pytest.fixture
def registry() -> Iterator[RegistryServer]:
    server = RegistryServer()
    yield server
    server.stop()


def written(number: int, schema: Any, symbol: str, price: float, **more: Any) -> bytes:
    stream = BytesIO()
    inner = schema["fields"][2]["type"]["fields"][0]["name"]
    per_second = 10**9 if schema is NEW else 10**3
    value = {"symbol": symbol, "ts": time.time_ns() * per_second // 10**9, "kind": "trade"}
    # as integers: fastavro's own writer takes times of microseconds
    plain = json.loads(json.dumps(schema).replace("logicalType", "was"))
    schemaless_writer(stream, plain, {**value, "quote": {inner: price}, **more})
    return b"\0" + number.to_bytes(4, "big") + stream.getvalue()


def begin(running: Pipeline, registry: RegistryServer, schema_id: int) -> None:
    """Declare the source, and start a worker of each sink."""
    with Path(running.settings.features).open("a") as file:
        file.write(SOURCE.format(prefix=running.prefix, schema_id=schema_id))
    running.settings = msgspec.structs.replace(
        running.settings,
        schema_registry=registry.url,
        schema_registry_username="reader",
        schema_registry_password=PASSWORD,
    )
    running.run_tickwell("features", "apply", "--yes")
    running.start_both()


@pytest.mark.timeout(240)
def test_a_registry_that_goes_and_returns(running: Pipeline, registry: RegistryServer) -> None:
    old, new = registry.register(OLD), registry.register(NEW)
    text = base64.b64encode(quotes_file().SerializeToString()).decode()
    quotes = registry.register(text, "PROTOBUF")
    begin(running, registry, new)
    running.produce("quotes", [(b"A", quoted(quotes, 2.5))])
    messages = [written(old, OLD, "A", price, kind=kind) for price in (1.0, 2.0) for kind in
                ("trade", "quote")]  # fmt: skip
    running.produce("trades", [(b"A", message) for message in messages])
    features = "SELECT price, trade_mean FROM features.trades ORDER BY event_time, sequence"
    wait_for("they are stored", lambda: len(running.query(features)) == 2)
    in_protobuf = "SELECT price FROM features.quotes"
    wait_for("the quote is stored", lambda: running.query(in_protobuf) == [(2.5,)])

    registry.stop()
    third = registry.register(NEW)  # the same schema by another id, which no worker has met
    running.produce("trades", [(b"A", written(old, OLD, "A", 3.0)), (b"A", b"damaged")])
    running.produce("trades", [(b"A", written(third, NEW, "A", 4.0))])

    def all_wait() -> bool:
        said = [beat.error for beat in running.heartbeats() if beat.state == "retrying"]
        return len(said) == 2 and all(f"the schema registry at {registry.url}" in x for x in said)

    wait_for("both workers say what they wait for", all_wait)
    others_go_on(running, old)
    registry.start()
    wait_for("the rest is stored", lambda: len(running.query(features)) == 9)
    assert [price for price, _ in running.query(features)] == [float(n) for n in range(1, 10)]
    assert running.query(features)[3][1] == 3.0
    wait_for(
        "nobody waits",
        lambda: (
            [(beat.state, beat.rows, beat.passed_over) for beat in running.heartbeats()]
            == [("running", 13, 2)] * 2
        ),
    )
    rejected = "SELECT reason, value FROM tickwell.rejected_ticks"
    assert [(reason, bytes(value)) for reason, value in running.query(rejected)] == [
        ("malformed", b"damaged")
    ]
    running.stop()
    before = running.dump()
    for source in ("trades", "quotes"):
        assert " 0 of them new" in running.run_tickwell("replay", "--source", source)
    assert running.dump() == before
    logs = "".join(file.read_text(errors="replace") for file in running.logs.glob("*.log"))
    assert PASSWORD not in logs
    assert {authorization is not None for _, authorization in registry.asked} == {True}


def others_go_on(running: Pipeline, number: int) -> None:
    """More runs of the source come than are buffered, and then three prices."""
    before = {beat.sink: beat.rows for beat in running.heartbeats()}
    for price in (5.0, 6.0, 7.0, 8.0, 9.0):
        running.produce("trades", [(b"A", written(number, OLD, "A", price))])
        time.sleep(0.3)  # else they are one run
    for price in (1.0, 2.0, 3.0):
        tick = {"symbol": "AAPL", "price": price, "ts": time.time_ns() // 10**6}
        running.produce("price", [(b"AAPL", json.dumps(tick).encode())])

    def are_stored() -> bool:
        now = {beat.sink: beat.rows for beat in running.heartbeats() if beat.state == "retrying"}
        return now == {sink: rows + 3 for sink, rows in before.items()}

    wait_for("both workers store the prices meanwhile", are_stored)


@pytest.mark.long
@pytest.mark.timeout(240)
def test_a_schema_that_is_never_registered(running: Pipeline, registry: RegistryServer) -> None:
    """It is decided by a rule, whose offset is recorded, and not by what the registry has when."""
    number, never = registry.register(NEW), 99
    begin(running, registry, number)
    lost = written(never, NEW, "A", 2.0)
    running.produce("trades", [(b"A", written(number, NEW, "A", 1.0)), (b"A", lost)])
    running.produce("trades", [(b"A", written(number, NEW, "A", 3.0))])
    said = f"the schema registry at {registry.url}: it has no schema {never} "
    asked_for = f"`reject_schema_ids = [{never}]` in the source trades"

    def all_wait() -> bool:
        errors = [beat.error for beat in running.heartbeats() if beat.state == "retrying"]
        return len(errors) == 2 and all(said in x and asked_for in x for x in errors)

    wait_for("both workers say what they wait for, and the way out", all_wait)
    running.stop()
    with_registry = running.settings
    running.settings = msgspec.structs.replace(
        with_registry, schema_registry="", schema_registry_username="", schema_registry_password=""
    )
    assert running.start_worker("offline", "lacking").wait(60) != 0
    (ended,) = running.logs.glob("*lacking*.log")
    assert "set TICKWELL_SCHEMA_REGISTRY" in ended.read_text().splitlines()[-1]
    running.processes.clear()
    running.settings = with_registry
    features = Path(running.settings.features)
    rule = f"schema_id = {number}\nreject_schema_ids = [{never}]\n"
    features.write_text(features.read_text().replace(f"schema_id = {number}\n", rule))
    assert "reject_schema_ids" in running.run_tickwell("migrate", "--from-now")
    running.start_both()
    prices = "SELECT price FROM features.trades ORDER BY event_time, sequence"
    wait_for("the rest is stored", lambda: running.query(prices) == [(1.0,), (3.0,)])
    wait_for(
        "by both",
        lambda: [beat.rejected for beat in running.heartbeats()] == [{"malformed": 1}] * 2,
    )
    rejected = "SELECT reason, value FROM tickwell.rejected_ticks"
    assert [(reason, bytes(value)) for reason, value in running.query(rejected)] == [
        ("malformed", lost)
    ]
    running.stop()
    registry.schemas[never] = registry.schemas[number]  # it is registered after all
    before = running.dump()
    assert " 0 of them new" in running.run_tickwell("replay", "--source", "trades")
    assert running.dump() == before
