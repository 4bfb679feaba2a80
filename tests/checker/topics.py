"""Topics as any Kafka client sees them: their ids, their ends, their committed records."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient

from tests.checker.findings import NotCheckable
from tests.oracle.messages import Record

SECONDS = 30
POLL_SECONDS = 0.05
"""A call waits so long even when fewer than `AT_ONCE` records are left."""

AT_ONCE = 2_000


@dataclass(frozen=True)
class Topic:
    """An incarnation, and by partition the first and the next offset."""

    name: str
    topic_id: bytes
    begins: tuple[int, ...]
    ends: tuple[int, ...]

    @property
    def offsets(self) -> int:
        return sum(end - begin for begin, end in zip(self.begins, self.ends, strict=True))


@dataclass(frozen=True)
class Message:
    """A record with its headers."""

    record: Record
    headers: dict[str, str]


class Kafka:
    """Reads with a plain consumer, `read_committed`, in no group of anybody's."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap

    def describe(self, name: str) -> Topic:
        """Raises `NotCheckable` when the topic or the broker is not there."""
        admin = AdminClient({"bootstrap.servers": self._bootstrap, "log_level": 0})
        consumer = self._consumer()
        try:
            described = admin.describe_topics(TopicCollection([name]), request_timeout=SECONDS)
            topic = described[name].result(SECONDS)
            partitions = [TopicPartition(name, p.id) for p in topic.partitions]
            ranges = [_range(consumer, p) for p in partitions]
        except KafkaException as error:
            raise NotCheckable(f"{name} at {self._bootstrap}: {error.args[0].str()}") from None
        finally:
            consumer.close()
        return Topic(
            name, _id(topic.topic_id), tuple(low for low, _ in ranges), tuple(e for _, e in ranges)
        )

    def messages(
        self, topic: Topic, progress: Callable[[int], None] = lambda offsets: None
    ) -> Iterator[Message]:
        """Every committed record, partition after partition, each in its order.

        `progress` is called with the number of offsets that were passed.
        """
        consumer = self._consumer()
        try:
            for partition, (begin, end) in enumerate(zip(topic.begins, topic.ends, strict=True)):
                if begin < end:
                    consumer.assign([TopicPartition(topic.name, partition, begin)])
                    yield from _until_end(consumer, begin, progress)
        finally:
            consumer.close()

    def _consumer(self) -> Consumer:
        return Consumer(
            {
                "bootstrap.servers": self._bootstrap,
                "group.id": f"tickwell-checker-{uuid.uuid4()}",
                "log_level": 0,  # what goes wrong is raised, and not printed beside
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 10,  # or a partition that is read holds up the next one
                "auto.offset.reset": "error",
            }
        )


def _range(consumer: Consumer, partition: TopicPartition) -> tuple[int, int]:
    first, named = consumer.get_watermark_offsets(partition, timeout=SECONDS)
    return first, named if named == first else read_end(consumer, partition, named)


def read_end(consumer: Consumer, partition: TopicPartition, named: int) -> int:
    """The end of a partition, as its last records say, for which the broker names `named`.

    Tansu names the begin of the last batch. The consumer must have `enable.partition.eof`. Raises
    `NotCheckable`.
    """
    consumer.assign([TopicPartition(partition.topic, partition.partition, named - 1)])
    records = _until_end(consumer, named - 1, lambda offsets: None)
    return max((each.record.offset + 1 for each in records), default=named)


def _until_end(consumer: Consumer, at: int, progress: Callable[[int], None]) -> Iterator[Message]:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        passed: Any = at - 1
        for message in consumer.consume(AT_ONCE, POLL_SECONDS):
            passed = message.offset()
            error = message.error()
            if error is None:
                yield _message(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                progress(passed - at)
                return
            else:
                raise NotCheckable(f"the log cannot be read: {error.str()}")
        if passed >= at:
            progress(passed + 1 - at)
            at, deadline = passed + 1, time.monotonic() + SECONDS
    raise NotCheckable(f"the broker gave nothing in {SECONDS} s")


def _message(message: Any) -> Message:
    record = Record(
        message.topic(),
        message.partition(),
        message.offset(),
        message.timestamp()[1],
        message.key(),
        message.value(),
        {name: value for name, value in message.headers() or () if value is not None},
    )
    return Message(record, {name: (v or b"").decode() for name, v in message.headers() or ()})


def _id(topic_id: Any) -> bytes:
    parts = (topic_id.get_most_significant_bits(), topic_id.get_least_significant_bits())
    return b"".join((part % 2**64).to_bytes(8, "big") for part in parts)
