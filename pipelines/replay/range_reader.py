"""The runs of a range, read from the broker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from itertools import chain
from time import monotonic

from aiokafka import TopicPartition

from pipelines.errors import BrokerUnavailable, LogCut, RangeMistaken
from pipelines.kafka.aiokafka_patches import FetcherInternals
from pipelines.kafka.connection import KafkaConnection
from pipelines.kafka.log_offsets import open_consumer
from pipelines.kafka.run import Run
from pipelines.kafka.run_fetcher import RunFetcher
from pipelines.kafka.topics import Topic, describe
from pipelines.replay.ranges import Range
from pipelines.replay.stop import Stop
from pipelines.ticks.rules_decoder import decodable

POLL_SECONDS = 1.0
"""Seconds to wait for records before `stop` is checked."""

SILENT_SECONDS = 30.0
"""Seconds without a record before the end of the range, after which the broker is unavailable."""

TOPIC_CHECK_SECONDS = 2.0
"""Seconds between two checks that the topic was not recreated."""


async def read_range(
    kafka: KafkaConnection, part: Range, max_records: int, stop: Stop
) -> AsyncGenerator[Run]:
    """The runs of a range, each beginning where the last one ended, cut at `start` and `end`, and
    where other rules begin.

    Control markers, aborted transactions and records that compaction removed lie inside a run.
    Raises `LogCut` when the next records were deleted, `RangeMistaken` when the topic was
    recreated, and `BrokerUnavailable`.
    """
    tp = TopicPartition(part.topic.name, part.partition)
    ids = {part.topic.name: part.topic.topic_id}
    async with open_consumer(kafka) as consumer:
        consumer.assign([tp])
        consumer.seek(tp, part.read_from)
        fetcher = RunFetcher(FetcherInternals(consumer), ids)
        following, silent, checked = part.read_from, 0.0, monotonic()
        while following < part.end and not stop.is_set():
            runs = await fetcher.fetch([tp], POLL_SECONDS, max_records)
            if monotonic() - checked > TOPIC_CHECK_SECONDS:
                await _check_incarnation(kafka, part.topic)
                checked = monotonic()
            # the consumer moves a position that the log no longer has to the log's beginning
            begins = runs[0].base_offset if runs else await consumer.position(tp)
            if begins > following:
                raise LogCut(tp.topic, tp.partition, following, begins)
            if begins < following:
                raise _recreated(part.topic)
            silent = 0.0 if runs else silent + POLL_SECONDS
            if silent >= SILENT_SECONDS:
                raise BrokerUnavailable(
                    kafka.servers,
                    f"{tp.topic}[{tp.partition}] returns no records at offset {following}",
                )
            for run in chain.from_iterable(decodable(run, part.rules) for run in runs):
                following = run.next_offset
                wanted = run.before(part.end)
                for piece in (wanted.before(part.start), wanted.since(part.start)):
                    if piece.next_offset > piece.base_offset:
                        yield piece
        await _check_incarnation(kafka, part.topic)


async def _check_incarnation(kafka: KafkaConnection, topic: Topic) -> None:
    try:
        now = await asyncio.to_thread(describe, kafka, [topic.name])
    except BrokerUnavailable:
        return  # the next read of the log raises it
    if now[topic.name].topic_id != topic.topic_id:
        raise _recreated(topic)


def _recreated(topic: Topic) -> RangeMistaken:
    return RangeMistaken(f"{topic.name} was recreated during the replay: replay the new topic")
