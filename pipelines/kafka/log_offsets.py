"""Where the logs of partitions begin and end, and where a time is in them, as the broker says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from pipelines.errors import BrokerUnavailable, TimesUnknown
from pipelines.kafka.run import Run
from pipelines.kafka.run_fetcher import fetch_runs
from pipelines.kafka.topics import Topic
from registry.definitions import Source

FETCH_WAIT_MS = 50
"""How long the broker may hold a fetch where there is no data."""

ANSWER_SECONDS = 10.0
"""For a broker to answer what is at an offset; it takes `FETCH_WAIT_MS` where nothing is."""


@dataclass(frozen=True, slots=True)
class Log:
    """A partition as the broker has it: from `earliest` up to, not including, `end`."""

    source: Source
    topic: Topic
    earliest: int
    end: int


@asynccontextmanager
async def open_consumer(kafka: str) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer without a group, which reads what is committed. Raises `BrokerUnavailable`."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=kafka,
        enable_auto_commit=False,
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        fetch_max_wait_ms=FETCH_WAIT_MS,
    )
    try:
        await consumer.start()
        yield consumer
    except KafkaError as error:
        raise BrokerUnavailable(kafka, str(error)) from None
    finally:
        await consumer.stop()


async def logs_of(
    consumer: AIOKafkaConsumer,
    sources: Sequence[Source],
    topics: Mapping[str, Topic],
    partitions: Collection[TopicPartition],
) -> dict[TopicPartition, Log]:
    by_topic = {source.topic: source for source in sources}
    earliest = await consumer.beginning_offsets(partitions)
    ends = await _ends(consumer, partitions, topics)
    return {
        tp: Log(by_topic[tp.topic], topics[tp.topic], earliest[tp], ends[tp]) for tp in partitions
    }


async def _ends(
    consumer: AIOKafkaConsumer,
    partitions: Collection[TopicPartition],
    topics: Mapping[str, Topic],
) -> dict[TopicPartition, int]:
    """The ends of partitions now.

    A broker may name the last batch instead of the end (Tansu does), so what is there is read.
    """
    told: dict[TopicPartition, int] = await consumer.end_offsets(partitions)
    runs = await _peek(consumer, told, topics)
    return {tp: runs[tp][-1].next_offset if tp in runs else told[tp] for tp in partitions}


async def offsets_at(
    consumer: AIOKafkaConsumer, logs: Mapping[TopicPartition, Log], at_ms: int
) -> dict[TopicPartition, int]:
    """The first offsets with a record timestamp of at least `at_ms`, the end if there is none.

    Raises `TimesUnknown` when the record that the broker names is from before.
    """
    found: Mapping[TopicPartition, Any] = await consumer.offsets_for_times(
        dict.fromkeys(logs, at_ms)
    )
    named = {tp: place.offset for tp, place in found.items() if place is not None}
    runs = await _peek(consumer, named, {log.topic.name: log.topic for log in logs.values()})
    for tp, there in runs.items():
        timestamps = there[0].timestamps
        if len(timestamps) and timestamps[0] < at_ms:
            raise TimesUnknown(tp.topic, tp.partition)
    return {tp: named.get(tp, log.end) for tp, log in logs.items()}


async def _peek(
    consumer: AIOKafkaConsumer,
    offsets: Mapping[TopicPartition, int],
    topics: Mapping[str, Topic],
) -> dict[TopicPartition, list[Run]]:
    """What is at offsets now; of a partition that has nothing there, nothing."""
    ids = {name: topic.topic_id for name, topic in topics.items()}
    found: dict[TopicPartition, list[Run]] = {}
    if not offsets:
        return found
    consumer.assign(list(offsets))
    for tp, offset in offsets.items():
        consumer.seek(tp, offset)
    deadline = monotonic() + ANSWER_SECONDS
    while True:
        # the first answer to a fetch, even an empty one, tells the high watermark
        answered = all(consumer.highwater(tp) is not None for tp in offsets)
        runs = await fetch_runs(consumer, offsets.keys(), ids, 0 if answered else 0.01)
        for run in runs:
            found.setdefault(TopicPartition(run.topic, run.partition), []).append(run)
        if answered and not runs:
            return found
        if monotonic() > deadline:
            if answered:
                return found
            silent = [tp for tp in offsets if consumer.highwater(tp) is None]
            raise BrokerUnavailable(
                consumer._client._bootstrap_servers, f"no answer of what is in {silent[0]}"
            )
