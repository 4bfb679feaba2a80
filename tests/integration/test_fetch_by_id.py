"""Fetches of a real broker: by id none brings the records of another incarnation of a topic."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from uuid import uuid4

from aiokafka import TopicPartition
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from pipelines.errors import PipelineError
from pipelines.kafka.aiokafka_patches import FetcherInternals
from pipelines.kafka.connection import KafkaConnection
from pipelines.kafka.log_offsets import open_consumer
from pipelines.kafka.run_fetcher import RunFetcher
from pipelines.kafka.topics import Topic, ensure_topics
from tests.support.brokers import needs_kafka
from tests.support.pipeline import wait_for


def produce(kafka: str, topic: str, values: range) -> None:
    producer = Producer({"bootstrap.servers": kafka})
    for value in values:
        producer.produce(topic, partition=0, value=str(value))
    assert producer.flush(30) == 0


def recreate(kafka: str, old: Topic) -> None:
    admin = AdminClient({"bootstrap.servers": kafka})
    admin.delete_topics([old.name])[old.name].result(30)

    def recreated() -> bool:
        try:
            new = ensure_topics(KafkaConnection(kafka), [old.name], 1)[old.name]
        except PipelineError:  # while the broker still deletes it
            return False
        return new.topic_id != old.topic_id

    wait_for("the topic exists again", recreated)


async def fetched(kafka: str, topic: Topic, meanwhile: Callable[[], None]) -> list[bytes | None]:
    """The values that a reader of a topic gets before `meanwhile`, and in a second after it."""
    tp, values = TopicPartition(topic.name, 0), list[bytes | None]()
    async with open_consumer(KafkaConnection(kafka)) as consumer:
        consumer.assign([tp])
        consumer.seek(tp, 0)
        fetcher = RunFetcher(FetcherInternals(consumer), {topic.name: topic.topic_id})

        async def take(seconds: float) -> None:
            for run in await fetcher.fetch([tp], seconds):
                values.extend(run.value(record) for record in range(len(run)))

        while len(values) < 30:
            await take(1.0)
        meanwhile()  # blocks the loop: nothing is fetched that could be refused
        for _ in range(10):
            await take(0.1)
    return values


@needs_kafka("Tansu cannot recreate a topic at once")
def test_a_recreated_topic_is_not_read_as_the_old_one(kafka: str) -> None:
    """At once, and with more records than the old one had."""
    name = f"by-id-{uuid4().hex[:8]}"
    topic = ensure_topics(KafkaConnection(kafka), [name], 1)[name]
    produce(kafka, name, range(30))

    def meanwhile() -> None:
        recreate(kafka, topic)
        produce(kafka, name, range(30, 90))

    values = asyncio.run(fetched(kafka, topic, meanwhile))
    assert values == [str(value).encode() for value in range(30)]
