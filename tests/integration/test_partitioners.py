"""Where real clients put keys, and what the records that they write hold beside values."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from uuid import uuid4

import msgspec
import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from confluent_kafka import Producer

from pipelines.kafka.aiokafka_patches import FetcherInternals
from pipelines.kafka.connection import KafkaConnection
from pipelines.kafka.log_offsets import open_consumer
from pipelines.kafka.run import Run
from pipelines.kafka.run_fetcher import RunFetcher
from pipelines.kafka.topics import Topic, ensure_topics
from pipelines.ticks.decoder import Decoder
from registry.definitions import Partitioner
from tests.support.mapped_sources import source_of
from tests.support.names import entities_of

PARTITIONS = 7
KEYS = [f"SYM{number}".encode() for number in range(200)] + [b"\xc3\xa9", b"a" * 255, b"AB", b"ABC"]
HEADERS = [("kind", b"old"), ("kind", b"trade"), ("px", b"1.25"), ("none", None)]


async def read_all(kafka: KafkaConnection, topic: Topic, records: int) -> list[Run]:
    """Every run of a topic, by partition."""
    partitions = [TopicPartition(topic.name, number) for number in range(PARTITIONS)]
    found: list[Run] = []
    async with open_consumer(kafka) as consumer:
        consumer.assign(partitions)
        for partition in partitions:
            consumer.seek(partition, 0)
        fetcher = RunFetcher(FetcherInternals(consumer), {topic.name: topic.topic_id})
        deadline = time.monotonic() + 30
        while sum(map(len, found)) < records and time.monotonic() < deadline:
            found += await fetcher.fetch(partitions, 1.0, 1000)
    return found


def by_confluent(partitioner: str) -> Callable[[str, str], None]:
    def send(kafka: str, topic: str) -> None:
        producer = Producer({"bootstrap.servers": kafka, "partitioner": partitioner})
        for key in KEYS:
            producer.produce(topic, key=key, value=b"{}", headers=HEADERS)
        assert producer.flush(30) == 0

    return send


def by_aiokafka(kafka: str, topic: str) -> None:
    async def send() -> None:
        async with AIOKafkaProducer(bootstrap_servers=kafka) as producer:
            for key in KEYS:
                await producer.send_and_wait(topic, key=key, value=b"{}", headers=HEADERS[:3])

    asyncio.run(send())


@pytest.mark.parametrize(
    ("partitioner", "send"),
    [
        ("murmur2", by_confluent("murmur2_random")),
        ("murmur2", by_aiokafka),
        ("crc32", by_confluent("consistent_random")),
        ("fnv1a", by_confluent("fnv1a_random")),
    ],
)
def test_where_clients_put_a_key(
    kafka: str, partitioner: Partitioner, send: Callable[[str, str], None]
) -> None:
    """The decoder finds all of them in their partitions, and reads the headers."""
    name = f"partitioners-{uuid4().hex[:8]}"
    topic = ensure_topics(KafkaConnection(kafka), [name], PARTITIONS)[name]
    send(kafka, name)
    runs = asyncio.run(read_all(KafkaConnection(kafka), topic, len(KEYS)))
    source = source_of(f"""
partitioner = "{partitioner}"
where = {{ "@header.kind" = "trade" }}
[source.map]
symbol = "@key"
price = "@header.px"
ts = "@timestamp"
""")
    decoded = [Decoder(source, PARTITIONS).decode(run) for run in runs]
    assert [rejected for ticks in decoded for rejected in ticks.rejected] == []
    assert sorted(name for ticks in decoded for name in entities_of(ticks)) == sorted(
        key.decode() for key in KEYS
    )
    assert {price for ticks in decoded for price in ticks.fields[:, 0].tolist()} == {1.25}
    others = {"murmur2", "crc32", "fnv1a"} - {partitioner}
    for other in others:
        wrong = msgspec.structs.replace(source, partitioner=other)
        rejected = [r for run in runs for r in Decoder(wrong, PARTITIONS).decode(run).rejected]
        assert len(rejected) > len(KEYS) // 2
        assert all(f"{partitioner} (" in each.detail for each in rejected)
