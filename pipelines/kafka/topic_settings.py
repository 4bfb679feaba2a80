"""What the settings of a topic that somebody else made do to ticks before a worker sees them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from confluent_kafka import KafkaException

from pipelines.kafka.admin import ask
from pipelines.kafka.connection import KafkaConnection
from pipelines.kafka.topics import fewest_replicas, topic_configs

NO_LIMIT_MS = 2**63 - 1
"""Milliseconds that Kafka takes for no limit."""

LIMITS = (
    "message.timestamp.after.max.ms",
    "message.timestamp.before.max.ms",
    "message.timestamp.difference.max.ms",
)
"""How far a record's own time may be ahead of the broker's clock, behind it, and either; the last
one is of brokers before 4.0."""


def topic_remarks(kafka: KafkaConnection, names: Sequence[str]) -> list[str]:
    """A sentence for each topic that loses ticks, or may, and for what cannot be read.

    Raises `BrokerUnavailable`.
    """
    remarks = replica_remarks(kafka, names)
    for topic, settings in topic_configs(kafka, names).items():
        if isinstance(settings, KafkaException):
            remarks.append(
                f"the settings of {topic} cannot be read ({settings.args[0].str()}): give the "
                "user DescribeConfigs on it, to be told when it loses ticks"
            )
            continue
        remarks += remarks_on(topic, {name: s.value for name, s in settings.items()})
    return remarks


def replica_remarks(kafka: KafkaConnection, names: Sequence[str]) -> list[str]:
    """A sentence for each topic with one replica, where brokers could have more of them.

    Raises `BrokerUnavailable`.
    """
    answers = ask(
        kafka, lambda admin, seconds: {"": admin.describe_cluster(request_timeout=seconds)}
    )
    cluster = answers[""]
    brokers = 0 if isinstance(cluster, KafkaException) else len(cluster.nodes)
    if brokers < 2:
        return []
    return [
        f"{topic} has one replica of a partition, on a cluster of {brokers} brokers: while that "
        "broker is away its ticks wait, and they are lost with its disk. Give it more "
        "(kafka-reassign-partitions), and set TICKWELL_REPLICATION for topics that are made"
        for topic, replicas in fewest_replicas(kafka, names).items()
        if replicas == 1
    ]


def remarks_on(topic: str, settings: Mapping[str, Any]) -> list[str]:
    """What is to be said of a topic with these settings; a broker may leave some out."""
    if settings.get("message.timestamp.type") != "CreateTime":
        return []
    given = {name: int(settings.get(name) or NO_LIMIT_MS) for name in LIMITS}
    limits = [f"{name}={limit}" for name, limit in given.items() if limit < NO_LIMIT_MS]
    if not limits:
        return []
    return [
        f"{topic} loses ticks before any worker sees them: it keeps the time that a producer gives "
        f"(CreateTime) within limits ({', '.join(limits)}), and the broker refuses a whole batch, "
        "the good ticks of other symbols with it, for one record beyond them. Set its "
        "message.timestamp.type to LogAppendTime"
    ]
