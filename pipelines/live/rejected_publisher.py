"""Publishes rejected ticks to a topic, and reports of each whether the broker has it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from pipelines.kafka.connection import KafkaConnection
from pipelines.kafka.topics import max_message_bytes
from pipelines.live.rejected_tick import RejectedTick

DELIVERY_SECONDS = 30
"""Seconds for the broker to take a message, with all retries; a healthy one takes milliseconds."""

REFUSALS = frozenset(
    {
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.INVALID_MSG_SIZE,
        KafkaError.INVALID_RECORD,
        KafkaError.INVALID_TIMESTAMP,
        KafkaError.POLICY_VIOLATION,
    }
)
"""Errors of the message itself. Any other error passes, or concerns all messages."""


def is_refused(error: KafkaError | None) -> bool:
    """Whether the broker will never take this message."""
    return error is not None and error.code() in REFUSALS


class RejectedPublisher:
    """A producer to one topic; `limit` is the number of bytes that a batch may have in it.

    Raises `BrokerUnavailable` when the broker does not report the limit.
    """

    def __init__(self, kafka: KafkaConnection, topic: str) -> None:
        self._topic = topic
        self.limit = max_message_bytes(kafka, topic)
        self._producer = Producer(
            {
                **kafka.librdkafka(),
                # Without idempotence: the order does not matter, and after one refused message the
                # broker would refuse those behind it.
                "compression.type": "lz4",
                "partitioner": "murmur2_random",
                "message.max.bytes": max(1000, self.limit),
                # The broker's limit is on batches: several small messages must not exceed it.
                "batch.size": max(1, self.limit // 2),
                "message.timeout.ms": DELIVERY_SECONDS * 1000,
            }
        )

    def publish(self, ticks: Sequence[RejectedTick]) -> list[KafkaError | None]:
        """Publish ticks; returns the error of each, None where the broker has it."""
        errors: list[KafkaError | None] = [
            KafkaError(KafkaError._TIMED_OUT)  # until the broker answers
        ] * len(ticks)

        def answer_of(index: int) -> Callable[[KafkaError | None, Any], None]:
            def delivered(error: KafkaError | None, _: Any) -> None:
                errors[index] = error

            return delivered

        for index, tick in enumerate(ticks):
            try:
                self._producer.produce(
                    self._topic,
                    key=tick.key,
                    value=None if tick.value is None else bytes(tick.value),
                    headers=tick.headers,
                    on_delivery=answer_of(index),
                )
            except KafkaException as error:
                errors[index] = error.args[0]
        if self._producer.flush(2 * DELIVERY_SECONDS):
            self._producer.purge()
        return list(errors)
