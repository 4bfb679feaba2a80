"""A backlog of price ticks, produced before anyone is timed.

Random walks, the symbols in turn, lz4 as most producers send. A price is `rounded` to four decimals
or has the `full` 17 digits of a computed one: decoders may treat the two differently.
"""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from typing import Literal

import msgspec
import numpy as np
from confluent_kafka import Consumer, Producer, TopicPartition

from benchmarks.results import Failed
from benchmarks.services import Services
from pipelines.kafka.topics import Topic, ensure_topics
from tickwell.settings import Settings

Prices = Literal["rounded", "full"]
Messages = Literal["plain", "mapped"]
"""The fields of the definitions that ship; or nested ones, with numbers as text."""

MAP = 'map = { symbol = "data.s", price = "data.p", ts = "data.T" }'
DECIMALS = 4
A_MILLISECOND = 1000
"""Ticks with one time; more than a producer of Python sends, so none is from the future."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """Ticks in a topic of their own; `settings` name definitions that read it."""

    settings: Settings
    topic: Topic
    ticks: int
    symbols: int
    prices: Prices
    ends: list[int]
    """The end of each partition."""


def produce(
    services: Services,
    ticks: int,
    symbols: int,
    prices: Prices = "rounded",
    messages: Messages = "plain",
) -> Backlog:
    """Make topics, and fill the one of prices."""
    settings, topic = new_topics(services, messages)
    print(f"producing {ticks:,} ticks of {symbols:,} symbols ...", file=sys.stderr, flush=True)
    began = time.monotonic()
    producer = Producer(
        {
            "bootstrap.servers": settings.kafka,
            "partitioner": "murmur2_random",
            "compression.type": "lz4",
            "linger.ms": 20,
            "batch.size": 262_144,
            "queue.buffering.max.messages": 500_000,
        }
    )
    for number, (key, value) in enumerate(_messages(ticks, symbols, prices, messages)):
        while True:
            try:
                producer.produce(topic.name, value, key)
                break
            except BufferError:
                producer.poll(0.05)
        if number % 10_000 == 0:
            producer.poll(0)
    if producer.flush(120):
        raise Failed(f"{topic.name}: the broker did not take the backlog")
    print(f"... in {time.monotonic() - began:.1f} s", file=sys.stderr, flush=True)
    return Backlog(settings, topic, ticks, symbols, prices, _ends(settings.kafka, topic))


def new_topics(services: Services, messages: Messages = "plain") -> tuple[Settings, Topic]:
    """The definitions that ship, over topics that nobody else uses; the one of prices."""
    prefix = f"bench-{uuid.uuid4().hex[:8]}"
    shipped = files("registry").joinpath("features.toml").read_text("utf-8")
    definitions = services.place / f"{prefix}.toml"
    declared = shipped.replace('topic = "ticks.', f'topic = "{prefix}.')
    if messages == "mapped":
        topic = f'topic = "{prefix}.price"'
        declared = declared.replace(topic, f"{topic}\n{MAP}")
    definitions.write_text(declared)
    settings = msgspec.structs.replace(
        services.settings, features=str(definitions), rejected_topic=f"{prefix}.rejected"
    )
    names = [f"{prefix}.{source}" for source in ("price", "volume", "position")]
    topics = ensure_topics(settings.kafka_connection, names, settings.partitions)
    return settings, topics[names[0]]


def _ends(kafka: str, topic: Topic) -> list[int]:
    consumer = Consumer({"bootstrap.servers": kafka, "group.id": "ends"})
    try:
        partitions = [TopicPartition(topic.name, number) for number in range(topic.partitions)]
        return [consumer.get_watermark_offsets(partition, 10)[1] for partition in partitions]
    finally:
        consumer.close()


def _messages(
    ticks: int, symbols: int, prices: Prices, messages: Messages
) -> Iterator[tuple[str, str]]:
    """Keys and values as `json.dumps` would write them."""
    random = np.random.default_rng(7)
    names = [f"S{place}" for place in range(symbols)]
    if messages == "mapped":
        heads = [f'{{"data": {{"s": "{name}", "p": "' for name in names]
        middle, end = '", "T": ', "}}"
    else:
        heads = [f'{{"symbol": "{name}", "price": ' for name in names]
        middle, end = ', "ts": ', "}"
    walk = random.uniform(10, 1000, symbols)
    now, sent = time.time_ns() // 10**6, 0
    while sent < ticks:
        walk *= 1 + random.uniform(-1e-3, 1e-3, symbols)
        shown = np.round(walk, DECIMALS) if prices == "rounded" else walk
        for name, head, price in zip(names, heads, shown.tolist(), strict=True):
            yield name, f"{head}{price!r}{middle}{now + sent // A_MILLISECOND}{end}"
            sent += 1
            if sent == ticks:
                return
