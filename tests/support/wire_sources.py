"""Messages as confluent-kafka's own serializers write them, and a registry in memory."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Mapping, Sequence
from typing import Any

from confluent_kafka.schema_registry import (
    Schema,
    SchemaReference,
    SchemaRegistryClient,
    header_schema_id_serializer,
    topic_subject_name_strategy,
)
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufDeserializer, ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import DESCRIPTOR as TIMESTAMP_FILE

from pipelines.ticks.columns import Ticks
from pipelines.ticks.decoder import Decoder
from pipelines.ticks.message_limits import MAX_MESSAGE_BYTES
from pipelines.ticks.wire.schema_registry import SchemaRegistry
from registry.definitions import Field, Format, Place, Source
from tests.support.logs import NOW_MS, run_of

TOPIC = "trades"
BY_TOPIC = {"subject.name.strategy": topic_subject_name_strategy}
FIELD = descriptor_pb2.FieldDescriptorProto


def source_of(form: Format, places: Mapping[str, str] | None = None, **more: Any) -> Source:
    """The source `trades` in a format, with the paths of some of its names."""
    return Source(
        name="trades",
        topic=TOPIC,
        key=("symbol",),
        fields=(Field("price"), Field("size", optional=True)),
        places=tuple(Place(name, path) for name, path in (places or {}).items()),
        format=form,
        **more,
    )


class Registry:
    """confluent-kafka's registry in memory, for producers and for the product."""

    def __init__(self) -> None:
        self.client = SchemaRegistryClient.new_client({"url": "mock://tests"})

    @property
    def asked(self) -> SchemaRegistry:
        """As the product asks it."""
        return SchemaRegistry("mock://tests", lambda: self.client)

    def register(self, schema: Any, kind: str = "AVRO", references: Sequence[Any] = ()) -> int:
        text = schema if isinstance(schema, str) else json.dumps(schema)
        subject = f"subject-{abs(hash(text))}"
        return int(self.client.register_schema(subject, Schema(text, kind, list(references))))

    def avro(self, schema: Any, values: Sequence[Any]) -> list[bytes]:
        """Values written in a schema."""
        write = AvroSerializer(self.client, json.dumps(schema), conf=BY_TOPIC)
        return [write(value, _context([])) for value in values]

    def avro_with_header(self, schema: Any, value: Any) -> tuple[bytes, dict[str, bytes]]:
        """A value, and the header that names its schema."""
        conf = {**BY_TOPIC, "schema.id.serializer": header_schema_id_serializer}
        headers: list[tuple[str, bytes]] = []
        write = AvroSerializer(self.client, json.dumps(schema), conf=conf)
        return write(value, _context(headers)), dict(headers)

    def read_avro(self, message: bytes) -> Any:
        """What confluent-kafka's own deserializer makes of a message."""
        read = AvroDeserializer(self.client, conf={"subject.name.strategy": lambda *_: None})
        return read(message, _context([]))

    def protobuf(self, message: Any) -> bytes:
        write = ProtobufSerializer(
            type(message), self.client, {"use.deprecated.format": False, **BY_TOPIC}
        )
        return bytes(write(message, _context([])))

    def protobuf_with_header(self, message: Any) -> tuple[bytes, dict[str, bytes]]:
        """A message, and the header that names its schema and its type there."""
        conf = {**BY_TOPIC, "schema.id.serializer": header_schema_id_serializer}
        headers: list[tuple[str, bytes]] = []
        write = ProtobufSerializer(type(message), self.client, conf)
        return bytes(write(message, _context(headers))), dict(headers)

    def read_protobuf(self, kind: Any, message: bytes) -> Any:
        """What confluent-kafka's own deserializer makes of a message of a type."""
        conf = {"use.deprecated.format": False, "subject.name.strategy": lambda *_: None}
        return ProtobufDeserializer(kind, conf, self.client)(message, _context([]))


def _context(headers: list[tuple[str, bytes]]) -> SerializationContext:
    return SerializationContext(TOPIC, MessageField.VALUE, headers)


def field(name: str, number: int, kind: int, **more: Any) -> Any:
    """A field of a Protobuf message, singular unless `label` says otherwise."""
    return FIELD(name=name, number=number, type=kind, **{"label": FIELD.LABEL_OPTIONAL, **more})


def protobuf_types(
    *messages: Any, package: str = "feed", imported: Sequence[Any] = ()
) -> Mapping[str, Any]:
    """The classes of the types of a file in proto3, by full name; no compiler is needed.

    It imports the files `imported`, which are descriptors, and Google's of timestamps.
    """
    pool = descriptor_pool.DescriptorPool()
    stamp = descriptor_pb2.FileDescriptorProto()
    TIMESTAMP_FILE.CopyToProto(stamp)
    file = descriptor_pb2.FileDescriptorProto(
        name="feed.proto", package=package, syntax="proto3", message_type=messages
    )
    file.dependency.extend(each.name for each in (stamp, *imported))
    for each in (stamp, *imported, file):
        pool.Add(each)
    return message_factory.GetMessageClassesForFiles(["feed.proto"], pool)


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


def zigzag(number: int) -> bytes:
    number, out = number << 1 ^ number >> 63, bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


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


def assert_refused_in_little_memory(source: Source, registry: Registry, message: bytes) -> None:
    """A message whose JSON would be longer than any may be: it is refused before it is made."""
    tracemalloc.start()
    (found,) = read(source, registry, message)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found == ("too-large", f"over {MAX_MESSAGE_BYTES} bytes as JSON")
    assert peak < 20_000_000


def registry_schema(schema: Any, references: Any = ()) -> Any:
    """The client's schema in Avro; each reference is (name, subject, version)."""
    return Schema(json.dumps(schema), "AVRO", [SchemaReference(*each) for each in references])
