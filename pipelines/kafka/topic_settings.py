"""What the settings of a topic that somebody else made do to ticks before a worker sees them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from confluent_kafka import KafkaException

from pipelines.kafka.connection import KafkaConnection
from pipelines.kafka.topics import topic_configs

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
    """A sentence for each topic that loses whole batches of ticks, and for what cannot be read.

    Raises `BrokerUnavailable`.
    """
    remarks = []
    for topic, settings in topic_configs(kafka, names).items():
        if isinstance(settings, KafkaException):
            remarks.append(
                f"the settings of {topic} cannot be read ({settings.args[0].str()}): give the "
                "user DescribeConfigs on it, to be told when it loses ticks"
            )
            continue
        remarks += remarks_on(topic, {name: s.value for name, s in settings.items()})
    return remarks


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
