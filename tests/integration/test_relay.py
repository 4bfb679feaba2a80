"""The relay of rejected ticks: every one is published, and none holds up the others."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg2
import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
)

from pipelines.errors import BrokerUnavailable
from pipelines.kafka.connection import KafkaConnection
from pipelines.kafka.topics import DEFAULT_MESSAGE_BYTES, find_topics, max_message_bytes
from pipelines.live.rejected_relay import Relay
from tests.support.brokers import needs_kafka

TOPIC_ID = uuid.UUID(int=7)
SMALL = b"not a tick"


@dataclass
class Outbox:
    """Rejected ticks of a database, and the topic that they go to."""

    database: str
    kafka: str
    topic: str

    def execute(self, statement: str, arguments: Sequence[Any] = ()) -> list[Any]:
        connection = psycopg2.connect(self.database)
        connection.autocommit = True
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement, arguments)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def reject(self, offset: int, value: bytes | None, detail: str = "why") -> None:
        """A rejected tick, as the sink stores it."""
        self.execute(
            'INSERT INTO tickwell.rejected_ticks (topic_id, partition, "offset", index, topic,'
            " reason, detail, value, known_at) VALUES (%s, 0, %s, 0, 't', 'malformed', %s, %s, 1)",
            (str(TOPIC_ID), offset, detail, value),
        )

    def make_topic(self, **settings: str) -> None:
        admin = AdminClient({"bootstrap.servers": self.kafka})
        made = admin.create_topics([NewTopic(self.topic, 1, 1, config=settings)])
        made[self.topic].result(15)
        find_topics(KafkaConnection(self.kafka), [self.topic])

    def waiting(self) -> int:
        return int(
            self.execute("SELECT count(*) FROM tickwell.rejected_ticks WHERE relayed_at IS NULL")[
                0
            ][0]
        )

    def never_published(self) -> list[int]:
        rows = self.execute(
            'SELECT "offset" FROM tickwell.rejected_ticks WHERE relayed_at = %s', ("epoch",)
        )
        return [offset for (offset,) in rows]

    def published(self) -> dict[int, tuple[bytes | None, dict[str, str]]]:
        """(value, headers) by the offset of the rejected tick."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.kafka,
                "group.id": "reader",
                "enable.partition.eof": True,
                "fetch.message.max.bytes": 10_000_000,
            }
        )
        consumer.assign([TopicPartition(self.topic, 0, 0)])
        found = {}
        while (message := consumer.poll(15)) is not None and message.error() is None:
            headers = {name: text.decode() for name, text in message.headers()}
            assert message.key() == f"{TOPIC_ID}/0/{headers['offset']}/0".encode()
            found[int(headers["offset"])] = (message.value(), headers)
        consumer.close()
        return found


@pytest.fixture
def outbox(postgres_database: str, kafka: str) -> Outbox:
    return Outbox(postgres_database, kafka, f"rejected-{uuid.uuid4().hex[:8]}")


@pytest.fixture
def relay_all(outbox: Outbox) -> Iterator[Callable[[], None]]:
    """Relays until nothing is waiting."""
    # as many bytes as two or three of the large messages
    relay = Relay(
        outbox.database, KafkaConnection(outbox.kafka), outbox.topic, batch_bytes=2_000_000
    )

    def relay_all() -> None:
        while relay.relay():
            pass

    yield relay_all
    relay.close()


@needs_kafka("Tansu has no limit of a message's size")
def test_large_messages_between_small_ones(outbox: Outbox, relay_all: Callable[[], None]) -> None:
    """Bytes that do not compress, as large as brokers take them, and around the limit."""
    outbox.make_topic()
    limit = max_message_bytes(KafkaConnection(outbox.kafka), outbox.topic)
    sizes = [1_000_000, 3_000_000, *range(limit - 400, limit - 160, 30), limit]
    values: list[bytes | None] = []
    for size in sizes:
        values += [SMALL, os.urandom(size)]
    values += [None, b"", SMALL]
    for offset, value in enumerate(values):
        outbox.reject(offset, value)
    relay_all()
    assert outbox.waiting() == 0
    assert outbox.never_published() == []
    published = outbox.published()
    assert sorted(published) == list(range(len(values)))
    whole = set()
    for offset, (value, headers) in published.items():
        original = values[offset]
        if original is None:
            assert value is None
            assert "truncated" not in headers
            continue
        assert headers["value_bytes"] == str(len(original))
        if headers["truncated"] == "false":
            assert value == original
            whole.add(len(original))
        else:
            assert value
            assert original.startswith(value)
            assert len(value) > limit - 500
    # what fits is published whole, and both sides of the limit were tried
    assert {len(SMALL), 1_000_000, limit - 400} <= whole
    assert whole < {len(value) for value in values if value is not None}


def test_what_the_broker_never_takes_holds_up_nothing(
    outbox: Outbox, relay_all: Callable[[], None]
) -> None:
    """A topic that has no room for the longest headers, even without a value."""
    outbox.make_topic(**{"max.message.bytes": "600"})
    if max_message_bytes(KafkaConnection(outbox.kafka), outbox.topic) != 600:
        pytest.skip("this broker takes any size")
    outbox.reject(0, SMALL, detail="x" * 5000)
    for offset in range(1, 40):
        outbox.reject(offset, SMALL if offset % 2 else os.urandom(5000))
    relay_all()
    assert outbox.waiting() == 0
    assert outbox.never_published() == [0]
    published = outbox.published()
    assert sorted(published) == list(range(1, 40))
    assert all(published[offset][0] == SMALL for offset in range(1, 40, 2))
    assert all(published[offset][1]["truncated"] == "true" for offset in range(2, 40, 2))


def test_a_limit_that_is_lowered(outbox: Outbox, relay_all: Callable[[], None]) -> None:
    outbox.make_topic()
    outbox.reject(0, os.urandom(5000))
    relay_all()
    resource = ConfigResource(
        ConfigResource.Type.TOPIC,
        outbox.topic,
        incremental_configs=[
            ConfigEntry("max.message.bytes", "2000", incremental_operation=AlterConfigOpType.SET)
        ],
    )
    admin = AdminClient({"bootstrap.servers": outbox.kafka})
    if max_message_bytes(KafkaConnection(outbox.kafka), outbox.topic) == DEFAULT_MESSAGE_BYTES:
        pytest.skip("this broker takes any size")
    for answer in admin.incremental_alter_configs([resource]).values():
        answer.result(15)
    outbox.reject(1, os.urandom(5000))
    relay_all()
    outbox.reject(2, os.urandom(5000))
    relay_all()
    assert outbox.waiting() == 0
    found = {offset: len(value or b"") for offset, (value, _) in outbox.published().items()}
    assert found[0] == 5000
    assert found[1] == 0  # the broker had refused it: published at once, without its value
    assert 1000 < found[2] < 2000


@needs_kafka("Tansu takes messages for a topic that does not exist")
def test_an_error_that_passes_is_waited_for(outbox: Outbox, relay_all: Callable[[], None]) -> None:
    outbox.reject(0, SMALL)
    with pytest.raises(BrokerUnavailable):
        relay_all()
    assert outbox.waiting() == 1
    outbox.make_topic()
    relay_all()
    assert outbox.waiting() == 0
    assert outbox.published()[0][0] == SMALL
