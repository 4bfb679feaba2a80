"""What a worker is started with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from pipelines.kafka.connection import KafkaConnection
from pipelines.ticks.wire.schema_registry import RegistryConnection
from pipelines.verify.continual import Continual
from registry.definitions import Definitions


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """Addresses, the consumer group and the worker's name in it, and sizes.

    A static member of its group gets its partitions back when it starts again; it loses them after
    `session` seconds without a heartbeat to the broker. `declared` is a features file, whose
    sources must be as they are recorded; None for no file. `capacity` is the number of entities
    whose windows are cached. With `metrics_port` Prometheus metrics are served on `metrics_host`.
    `schema_registry` is needed by sources whose format is Avro or Protobuf. `verifying` is what an
    offline worker verifies beside its work; None for nothing.
    """

    sink: Literal["online", "offline"]
    kafka: KafkaConnection
    redis: str = field(repr=False)
    redis_hot: str = field(repr=False)
    postgres: str = field(repr=False)
    group: str
    instance: str
    rejected_topic: str
    declared: Definitions | None = None
    static_member: bool = True
    session: float = 6.0
    capacity: int = 100_000
    cluster: bool = False
    metrics_port: int | None = None
    metrics_host: str = "127.0.0.1"
    schema_registry: RegistryConnection | None = None
    verifying: Continual | None = None
