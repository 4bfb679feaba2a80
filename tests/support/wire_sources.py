"""Messages as confluent-kafka's own serializers write them, and a registry in memory."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from confluent_kafka.schema_registry import (
    Schema,
    SchemaRegistryClient,
    header_schema_id_serializer,
    topic_subject_name_strategy,
)
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.timestamp_pb2 import DESCRIPTOR as TIMESTAMP_FILE

from pipelines.ticks.schema_registry import SchemaRegistry
from registry.definitions import Field, Format, Place, Source

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


def _context(headers: list[tuple[str, bytes]]) -> SerializationContext:
    return SerializationContext(TOPIC, MessageField.VALUE, headers)


def field(name: str, number: int, kind: int, **more: Any) -> Any:
    """A field of a Protobuf message, singular unless `label` says otherwise."""
    return FIELD(name=name, number=number, type=kind, **{"label": FIELD.LABEL_OPTIONAL, **more})


def protobuf_types(*messages: Any, package: str = "feed") -> Mapping[str, Any]:
    """The classes of the types of a file in proto3, by full name; no compiler is needed."""
    pool = descriptor_pool.DescriptorPool()
    stamp = descriptor_pb2.FileDescriptorProto()
    TIMESTAMP_FILE.CopyToProto(stamp)
    pool.Add(stamp)
    file = descriptor_pb2.FileDescriptorProto(
        name="feed.proto", package=package, syntax="proto3", message_type=messages
    )
    file.dependency.append("google/protobuf/timestamp.proto")
    pool.Add(file)
    return message_factory.GetMessageClassesForFiles(["feed.proto"], pool)
