"""Offsets in the logs of partitions: the first, the end and that of a time, as the broker says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, KafkaTimeoutError

from pipelines.errors import BrokerUnavailable, TimesUnknown
from pipelines.kafka import aiokafka_patches
from pipelines.kafka.aiokafka_patches import FetcherInternals
from pipelines.kafka.connection import ANSWER_SECONDS, KafkaConnection
from pipelines.kafka.rights import refused_to_read
from pipelines.kafka.run import Run
from pipelines.kafka.run_fetcher import FETCH_WAIT_MS, RunFetcher
from pipelines.kafka.topics import Topic
from registry.definitions import Source

RESPONSE_SECONDS = 10.0
"""Seconds in which what a partition holds now is read; it takes `FETCH_WAIT_MS` where there is no
data."""

SILENCE_SECONDS = 30.0
"""Seconds for a partition to have a leader that answers: time for two requests to be given up, and
for the leaders of a node that is gone to move."""


@dataclass(frozen=True, slots=True)
class Log:
    """A partition as the broker has it: from `earliest` up to, not including, `end`."""

    source: Source
    topic: Topic
    earliest: int
    end: int


@asynccontextmanager
async def open_consumer(kafka: KafkaConnection) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer without a group, which reads what is committed.

    Raises `BrokerUnavailable` for every error of aiokafka, also in the body of the context.
    """
    consumer = AIOKafkaConsumer(
        **kafka.aiokafka(),
        enable_auto_commit=False,
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        fetch_max_wait_ms=FETCH_WAIT_MS,
        request_timeout_ms=int(1000 * ANSWER_SECONDS),
    )
    aiokafka_patches.allow_calls(consumer, int(1000 * SILENCE_SECONDS))
    try:
        await consumer.start()
        yield consumer
    except KafkaError as error:
        refused = refused_to_read(error, kafka.servers)
        raise refused or BrokerUnavailable(kafka.servers, str(error)) from None
    finally:
        await consumer.stop()


async def logs_of(
    consumer: AIOKafkaConsumer,
    sources: Sequence[Source],
    topics: Mapping[str, Topic],
    partitions: Collection[TopicPartition],
) -> dict[TopicPartition, Log]:
    """The logs of partitions now."""
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

    A broker may name the last batch instead of the end (Tansu does), so the records from there on
    are read.
    """
    named: dict[TopicPartition, int] = await consumer.end_offsets(partitions)
    runs = await _runs_from(consumer, named, topics)
    return {tp: runs[tp][-1].next_offset if tp in runs else named[tp] for tp in partitions}


async def offsets_at(
    consumer: AIOKafkaConsumer, logs: Mapping[TopicPartition, Log], time_ms: int
) -> dict[TopicPartition, int]:
    """The first offsets with a record timestamp of at least `time_ms`, the end if none has it.

    Raises `TimesUnknown` when the record that the broker names is earlier.
    """
    answers: Mapping[TopicPartition, Any] = await consumer.offsets_for_times(
        dict.fromkeys(logs, time_ms)
    )
    named = {tp: answer.offset for tp, answer in answers.items() if answer is not None}
    topics = {log.topic.name: log.topic for log in logs.values()}
    for tp, runs in (await _runs_from(consumer, named, topics)).items():
        timestamps = runs[0].timestamps
        if len(timestamps) and timestamps[0] < time_ms:
            raise TimesUnknown(tp.topic, tp.partition)
    return {tp: named.get(tp, log.end) for tp, log in logs.items()}


async def _runs_from(
    consumer: AIOKafkaConsumer,
    offsets: Mapping[TopicPartition, int],
    topics: Mapping[str, Topic],
) -> dict[TopicPartition, list[Run]]:
    """What partitions hold now from `offsets` on; one that holds nothing there is left out."""
    ids = {name: topic.topic_id for name, topic in topics.items()}
    found: dict[TopicPartition, list[Run]] = {}
    if not offsets:
        return found
    consumer.assign(list(offsets))
    for tp, offset in offsets.items():
        consumer.seek(tp, offset)
    fetcher = RunFetcher(FetcherInternals(consumer), ids)
    begun = monotonic()
    while True:
        # The first response to a fetch, even an empty one, has the high watermark.
        answered = all(consumer.highwater(tp) is not None for tp in offsets)
        runs = await fetcher.fetch(offsets.keys(), 0 if answered else 0.01)
        for run in runs:
            found.setdefault(TopicPartition(run.topic, run.partition), []).append(run)
        if answered and not runs:
            return found
        if answered and monotonic() > begun + RESPONSE_SECONDS:
            return found
        if monotonic() > begun + SILENCE_SECONDS:
            silent = [tp for tp in offsets if consumer.highwater(tp) is None]
            raise KafkaTimeoutError(
                f"no response to a fetch from {silent[0].topic}[{silent[0].partition}] in "
                f"{SILENCE_SECONDS:g} s"
            )
