"""Replay: the live pipeline over a bounded range of a topic, into Postgres.

It has a consumer of its own without a group, moves no watermark and writes nothing online. Rows
that are there already are compared, so a replay can be stopped and run again, and one that
computes other bits says so.

A replay that begins in the middle of the log first restores each entity's state as it was there:
from the rows of the database, if its watermark says that it knows all before; else by computing
from the log's beginning without storing.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from threading import Event
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from pipelines.backfill import BackfillSink
from pipelines.decode import Decoder
from pipelines.errors import BrokerUnavailable, PipelineError, StateConflict
from pipelines.fetch import MAX_RECORDS, fetch_runs
from pipelines.offline import OfflineSink
from pipelines.runs import Batch, Run
from pipelines.topics import Topic, describe
from pipelines.windows import WindowTable
from registry.definitions import Catalog, Source
from registry.program import compile_program
from registry.row import Origin

POLL_SECONDS = 1.0
PEEK_SECONDS = 0.2
"""How long to look for records at an offset where there may be none."""

CAPACITY = 100_000
SILENT_SECONDS = 30.0
"""A broker that gives no record for so long before the end is reached is not answering."""


class TimesUnknown(PipelineError):
    """The broker does not know where a time is in the log."""

    def __init__(self, topic: str, partition: int) -> None:
        super().__init__(
            f"{topic}[{partition}]: this broker does not find offsets by time; name the range by "
            "--from-offset and --to-offset"
        )


class LogBegins(PipelineError):
    """The state at the range's start cannot be known."""

    def __init__(self, topic: str, partition: int, start: int, earliest: int) -> None:
        super().__init__(
            f"{topic}[{partition}]: the state before offset {start} is not in the database, and "
            f"the log begins at {earliest}, after its ticks began: begin at {earliest} with "
            "--from-offset, into a database without these rows, or use a database that has them"
        )


@dataclass(frozen=True, slots=True)
class Range:
    """Offsets of one partition, from `start` up to, not including, `end`.

    `warm_from` is where reading begins: before `start` when the state has to be computed.
    """

    source: Source
    topic: Topic
    partition: int
    start: int
    end: int
    warm_from: int

    @property
    def offsets(self) -> int:
        return max(0, self.end - self.warm_from)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to replay; times are record timestamps in milliseconds UTC, None for no bound."""

    sources: Collection[str] = ()
    entities: Collection[str] = ()
    partition: int | None = None
    from_offset: int | None = None
    to_offset: int | None = None
    from_ms: int | None = None
    to_ms: int | None = None


@dataclass(slots=True)
class Done:
    """What a replay has done; `offsets` of the ranges it has read."""

    offsets: int = 0
    rows: int = 0
    new_rows: int = 0
    rejected: Counter[str] = field(default_factory=Counter)


Progress = Callable[[Done], None]


class Replay:
    """Replays into the database at `postgres` what `kafka` holds."""

    def __init__(
        self, kafka: str, postgres: str, catalog: Catalog, max_records: int = MAX_RECORDS
    ) -> None:
        self._kafka = kafka
        self._postgres = postgres
        self._catalog = catalog
        self._max_records = max_records

    async def ranges(self, wanted: Wanted) -> list[Range]:
        """The ranges of each partition. Raises `PipelineError` where a state cannot be known."""
        sources = [
            source
            for source in self._catalog.sources.values()
            if not wanted.sources or source.name in wanted.sources
        ]
        topics = await asyncio.to_thread(describe, self._kafka, [s.topic for s in sources])
        ranges = []
        async with self._consumer() as consumer:
            for source in sources:
                topic = topics[source.topic]
                partitions = range(topic.partitions)
                for partition in partitions if wanted.partition is None else [wanted.partition]:
                    found = await self._range(consumer, source, topic, partition, wanted)
                    if found.end > found.start:
                        ranges.append(found)
        return ranges

    async def run(
        self, ranges: Sequence[Range], wanted: Wanted, progress: Progress, stop: Event
    ) -> Done:
        """Replay ranges one after the other, until done or `stop` is set."""
        done = Done()
        for part in ranges:
            if stop.is_set():
                break
            await self._replay(part, wanted, done, progress, stop)
        return done

    async def _range(
        self,
        consumer: AIOKafkaConsumer,
        source: Source,
        topic: Topic,
        partition: int,
        wanted: Wanted,
    ) -> Range:
        tp = TopicPartition(topic.name, partition)
        earliest = (await consumer.beginning_offsets([tp]))[tp]
        end = await self._end(consumer, tp, topic)
        start = max(earliest, wanted.from_offset or 0)
        if wanted.from_ms is not None:
            start = max(start, await self._at(consumer, tp, topic, wanted.from_ms, end))
        if wanted.to_offset is not None:
            end = min(end, wanted.to_offset)
        if wanted.to_ms is not None:
            end = min(end, await self._at(consumer, tp, topic, wanted.to_ms, end))
        warm_from = start
        if start > earliest and not self._known_up_to(source, topic, partition, start):
            if earliest > 0:
                raise LogBegins(topic.name, partition, start, earliest)
            warm_from = earliest
        return Range(source, topic, partition, start, end, warm_from)

    async def _end(self, consumer: AIOKafkaConsumer, tp: TopicPartition, topic: Topic) -> int:
        """The end of a partition now.

        A broker may name the last batch instead of the end (Tansu does), so what is there is read.
        """
        told: int = (await consumer.end_offsets([tp]))[tp]
        runs = await self._peek(consumer, tp, topic, told)
        return runs[-1].next_offset if runs else told

    async def _at(
        self, consumer: AIOKafkaConsumer, tp: TopicPartition, topic: Topic, at_ms: int, end: int
    ) -> int:
        """The first offset with a record timestamp of at least `at_ms`, `end` if there is none.

        Raises `TimesUnknown` when the record that the broker names is from before.
        """
        found: Mapping[TopicPartition, Any] = await consumer.offsets_for_times({tp: at_ms})
        if found[tp] is None:
            return end
        offset: int = found[tp].offset
        runs = await self._peek(consumer, tp, topic, offset)
        if runs and len(runs[0].timestamps) and runs[0].timestamps[0] < at_ms:
            raise TimesUnknown(tp.topic, tp.partition)
        return offset

    async def _peek(
        self, consumer: AIOKafkaConsumer, tp: TopicPartition, topic: Topic, offset: int
    ) -> list[Run]:
        """What is at an offset, as far as it comes at once."""
        consumer.assign([tp])
        consumer.seek(tp, offset)
        ids = {topic.name: topic.topic_id}
        return await fetch_runs(consumer, [tp], ids, PEEK_SECONDS, MAX_RECORDS)

    def _known_up_to(self, source: Source, topic: Topic, partition: int, start: int) -> bool:
        """Whether the database has every row from before `start`."""
        sink = OfflineSink(self._postgres, self._schemas(source))
        try:
            watermark = sink.watermarks(topic.topic_id, [partition]).get(partition, 0)
        finally:
            sink.close()
        return watermark >= start

    async def _replay(
        self, part: Range, wanted: Wanted, done: Done, progress: Progress, stop: Event
    ) -> None:
        schema = self._catalog.schemas[self._catalog.writing[part.source.name]]
        program = compile_program(self._catalog, schema)
        restores = part.warm_from == part.start and part.start > 0
        sink = BackfillSink(self._postgres, self._schemas(part.source), restores)
        decoder = Decoder(part.source)
        # states that cannot be restored must not be forgotten
        capacity = CAPACITY if restores else sys.maxsize
        windows = WindowTable(part.source, schema, program, capacity)
        keys = {entity.encode() for entity in wanted.entities}

        def store(run: Run) -> Batch:
            ticks = decoder.decode(run.only(keys) if keys else run)
            missing = windows.missing(ticks)
            before = Origin(run.topic_id, run.partition, run.base_offset, 0)
            windows.restore(missing, sink.load(part.source, missing, windows.depth, before))
            batch = windows.apply(ticks)
            if run.base_offset >= part.start:
                conflicts = sink.store(batch)
                if conflicts:
                    raise StateConflict(len(conflicts), run.topic, run.partition)
            return batch

        try:
            async for run in self._read(part, stop):
                batch = await asyncio.to_thread(store, run)
                done.offsets += run.next_offset - run.base_offset
                if run.base_offset >= part.start:
                    done.rows += len(batch)
                    done.rejected.update(tick.reason for tick in batch.rejected)
                done.new_rows += sink.inserted
                sink.inserted = 0
                progress(done)
        finally:
            sink.close()

    async def _read(self, part: Range, stop: Event) -> AsyncIterator[Run]:
        """The runs of a range, cut at its start and its end."""
        tp = TopicPartition(part.topic.name, part.partition)
        ids = {part.topic.name: part.topic.topic_id}
        async with self._consumer() as consumer:
            consumer.assign([tp])
            consumer.seek(tp, part.warm_from)
            following, silent = part.warm_from, 0.0
            while following < part.end and not stop.is_set():
                runs = await fetch_runs(consumer, [tp], ids, POLL_SECONDS, self._max_records)
                silent = 0.0 if runs else silent + POLL_SECONDS
                if silent >= SILENT_SECONDS:
                    raise BrokerUnavailable(
                        self._kafka, f"{tp.topic}[{tp.partition}] gives nothing at {following}"
                    )
                for run in runs:
                    following = run.next_offset
                    wanted = run.before(part.end)
                    for piece in (wanted.before(part.start), wanted.since(part.start)):
                        if piece.next_offset > piece.base_offset:
                            yield piece

    @asynccontextmanager
    async def _consumer(self) -> AsyncIterator[AIOKafkaConsumer]:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._kafka,
            enable_auto_commit=False,
            isolation_level="read_committed",
            auto_offset_reset="earliest",
            fetch_max_wait_ms=50,
        )
        try:
            await consumer.start()
        except KafkaError as error:
            await consumer.stop()
            raise BrokerUnavailable(self._kafka, str(error)) from None
        try:
            yield consumer
        finally:
            await consumer.stop()

    def _schemas(self, source: Source) -> list[int]:
        return [
            schema.id for schema in self._catalog.schemas.values() if schema.source == source.name
        ]
