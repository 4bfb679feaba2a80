"""The runs of a range, as the broker gives them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from itertools import chain
from time import monotonic
from typing import Protocol

from aiokafka import TopicPartition

from pipelines.errors import BrokerUnavailable, LogCut, RangeMistaken
from pipelines.kafka.aiokafka_patches import FetcherInternals
from pipelines.kafka.log_offsets import open_consumer
from pipelines.kafka.run import Run
from pipelines.kafka.run_fetcher import RunFetcher
from pipelines.kafka.topics import Topic, describe
from pipelines.replay.ranges import Range
from pipelines.ticks.run_limits import bounded

POLL_SECONDS = 1.0
"""How long to wait for data before looking whether to stop."""

SILENT_SECONDS = 30.0
"""A broker that gives no record for so long before the end is reached is not answering."""

TOPIC_CHECK_SECONDS = 2.0


class Stop(Protocol):
    """A `threading.Event`, or one of `multiprocessing`."""

    def is_set(self) -> bool: ...


async def read_range(kafka: str, part: Range, max_records: int, stop: Stop) -> AsyncGenerator[Run]:
    """The runs of a range, each beginning where the last one ended, cut at `start` and `end`.

    Control markers, aborted transactions and what compaction left out lie inside a run. Raises
    `LogCut` where what comes next is deleted, `RangeMistaken` when the topic was made anew, and
    `BrokerUnavailable`.
    """
    tp = TopicPartition(part.topic.name, part.partition)
    ids = {part.topic.name: part.topic.topic_id}
    async with open_consumer(kafka) as consumer:
        consumer.assign([tp])
        consumer.seek(tp, part.read_from)
        fetcher = RunFetcher(FetcherInternals(consumer))
        following, silent, checked = part.read_from, 0.0, monotonic()
        while following < part.end and not stop.is_set():
            runs = await fetcher.fetch([tp], ids, POLL_SECONDS, max_records)
            if monotonic() - checked > TOPIC_CHECK_SECONDS:
                await _check_incarnation(kafka, part.topic)
                checked = monotonic()
            # a position that the log no longer has is moved to where the log begins
            begins = runs[0].base_offset if runs else await consumer.position(tp)
            if begins > following:
                raise LogCut(tp.topic, tp.partition, following, begins)
            if begins < following:
                raise _made_anew(part.topic)
            silent = 0.0 if runs else silent + POLL_SECONDS
            if silent >= SILENT_SECONDS:
                raise BrokerUnavailable(
                    kafka, f"{tp.topic}[{tp.partition}] gives nothing at {following}"
                )
            for run in chain.from_iterable(map(bounded, runs)):
                following = run.next_offset
                wanted = run.before(part.end)
                for piece in (wanted.before(part.start), wanted.since(part.start)):
                    if piece.next_offset > piece.base_offset:
                        yield piece
        await _check_incarnation(kafka, part.topic)


async def _check_incarnation(kafka: str, topic: Topic) -> None:
    try:
        now = await asyncio.to_thread(describe, kafka, [topic.name])
    except BrokerUnavailable:
        return  # what is read next says so
    if now[topic.name].topic_id != topic.topic_id:
        raise _made_anew(topic)


def _made_anew(topic: Topic) -> RangeMistaken:
    return RangeMistaken(f"{topic.name} was made anew while it was replayed: replay the new one")
