"""Computes a backfill of what Kafka has of its ticks, so that Postgres need not read its rows.

    fetch ─► decode ─► restore ─► compute ─► hold ─► which have rows ─► pack ─► store
                          └── states from rows, only where a log is begun

A run is decided as live and a replay decide it: by the rules of its offsets, with the windows that
the rows before it give. A row schema in which the version is alone makes its values. A value is
stored for a tick that has a row without the version, as the backfill from Postgres does: nothing
else is shown of a tick that has no row. Of a row only the primary key is read.

How far each partition was read, from which offset on, is stored with the blocks. What the log has
lost before it was read lies in no such stretch, and the backfill is not of it once it is complete.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import AsyncGenerator
from contextlib import ExitStack, aclosing, closing
from dataclasses import dataclass, field
from threading import Event
from typing import Any, NamedTuple
from uuid import UUID

import numpy as np
from aiokafka import TopicPartition

from pipelines.backfill.blocks import copy_blocks, copy_bytes
from pipelines.backfill.computing import (
    APPLICATION,
    Done,
    Report,
    alone,
    program_of,
    schema_of,
    wait_for_live,
)
from pipelines.backfill.held_ticks import Held, HeldTicks, with_rows
from pipelines.compute.batch import Batch
from pipelines.compute.run_computation import RunComputation
from pipelines.errors import (
    BackfillElsewhere,
    BackfillEnded,
    BackfillUnread,
    LogCut,
    PartitionsChanged,
    PipelineError,
    RangeMistaken,
    TopicMissing,
)
from pipelines.kafka.connection import KafkaConnection
from pipelines.kafka.log_offsets import logs_of, open_consumer
from pipelines.kafka.run import Run
from pipelines.kafka.run_fetcher import MAX_RECORDS
from pipelines.kafka.topics import Topic, describe
from pipelines.replay.backfill_sink import BackfillSink
from pipelines.replay.progress import ReplayProgress
from pipelines.replay.range_reader import read_range
from pipelines.replay.ranges import Range
from pipelines.replay.replay import CAPACITY
from pipelines.replay.throttle import Throttle
from pipelines.stores.postgres.connection import Database
from pipelines.ticks.wire.formats import registry_of
from pipelines.ticks.wire.schema_registry import RegistryConnection
from registry.definitions import Catalog
from registry.lifecycle.backfills import Backfill, schemas_to_read
from registry.lifecycle.states import version_of
from registry.resources import sql
from registry.source_rules import SourceRules

ADVANCE_READ, BEGIN_READ = sql(__package__, "advance_read"), sql(__package__, "begin_read")
NEWEST_READ, PROGRESS = sql(__package__, "newest_read"), sql(__package__, "progress")

TICKS_A_PIECE = 262_144
"""Ticks that are held before they are stored: 10 MB, and the more of an entity, the fuller its
blocks."""


@dataclass(frozen=True, slots=True)
class LogBackfillWork:
    """Computes `backfill` of the log in `kafka` into the database at `postgres`.

    As `backfill.BackfillWork`, whose `heartbeats` and `cluster` it has. At most `max_records` are
    fetched, and about `ticks_a_piece` stored at a time. `schema_registry` is needed by sources
    whose format is Avro or Protobuf.
    """

    kafka: KafkaConnection
    postgres: str = field(repr=False)
    catalog: Catalog
    backfill: Backfill
    heartbeats: tuple[str, ...] = ()
    cluster: str | None = None
    schema_registry: RegistryConnection | None = None
    max_records: int = MAX_RECORDS
    ticks_a_piece: int = TICKS_A_PIECE

    def run(self, report: Report, stop: Event) -> Done:
        """Compute what is left of the log until all is done or `stop` is set.

        Raises `BackfillElsewhere`, `BackfillEnded`, `BackfillUnread` where the topic is gone or was
        made anew, `PartitionsChanged`, `BrokerUnavailable`, `StoreUnavailable` and other errors of
        `pipelines.errors`.
        """
        with alone(self.postgres, self.backfill):
            return asyncio.run(_LogBackfill(self, report, stop).run())

    def offsets(self) -> int:
        """How many offsets are to be read, those that are lost or read already among them."""
        return sum(_ends(self.backfill).values())


def _ends(backfill: Backfill) -> dict[tuple[bytes, int], int]:
    """The offset before which each partition is to be read."""
    ends: dict[tuple[bytes, int], int] = {}
    for one in backfill.ranges:
        where = one.topic_id, one.partition
        ends[where] = max(one.end, ends.get(where, 0))
    return ends


class _Stretch(NamedTuple):
    """Offsets of a partition from `begin` on, of which `part` is to be read."""

    begin: int
    part: Range


class _LogBackfill:
    """Reads what the log has of every partition, one after the other."""

    def __init__(self, work: LogBackfillWork, report: Report, stop: Event) -> None:
        self._work = work
        self._report = report
        self._stop = stop
        self._done = Done()
        self._source = version_of(work.catalog, work.backfill.ref).source or ""
        self._rules = SourceRules.of(work.catalog, self._source)
        schemas = schemas_to_read(work.catalog, work.backfill.ref)
        self._lacking = [schema for schema, is_computed in schemas.items() if is_computed]

    async def run(self) -> Done:
        work = self._work
        with ExitStack() as stack:
            database = stack.enter_context(closing(Database(work.postgres, APPLICATION)))
            self._throttle = stack.enter_context(closing(Throttle(work.heartbeats, work.cluster)))
            self._progress = stack.enter_context(closing(ReplayProgress(work.postgres)))
            self._database = database
            topic = await asyncio.to_thread(self._topic)
            await asyncio.to_thread(
                wait_for_live, self._throttle, self._done, self._report, self._stop
            )
            for (topic_id, partition), end in sorted(_ends(work.backfill).items()):
                if topic_id == topic.topic_id:
                    await self._partition(topic, partition, end)
            return self._done._replace(finished=not self._stop.is_set())

    def _topic(self) -> Topic:
        """The topic, if it has any of the offsets."""
        work, name = self._work, self._rules.source.topic
        try:
            topic = describe(work.kafka, [name])[name]
        except TopicMissing:
            raise BackfillUnread(work.backfill.ref, name, "there is no such topic") from None
        if all(topic.topic_id != one.topic_id for one in work.backfill.ranges):
            raise BackfillUnread(
                work.backfill.ref, name, "the topic was made anew, and its ticks are later ones"
            )
        settled = self._progress.settled_partitions(topic.topic_id)
        if settled not in (None, topic.partitions):
            raise PartitionsChanged(name, settled, topic.partitions)
        return topic

    async def _partition(self, topic: Topic, partition: int, end: int) -> None:
        """Read a partition; where records are deleted meanwhile, what comes after them."""
        before = self._done.offsets
        while not self._stop.is_set():
            earliest = await self._earliest(topic, partition)
            stretch = await asyncio.to_thread(self._stretch, topic, partition, earliest, end)
            self._done = self._done._replace(offsets=before + min(stretch.part.start, end))
            if stretch.part.start >= end:
                return
            try:
                await self._read(stretch)
            except LogCut:
                continue
            except RangeMistaken as error:
                ref = self._work.backfill.ref
                raise BackfillUnread(ref, topic.name, str(error)) from None

    async def _earliest(self, topic: Topic, partition: int) -> int:
        tp = TopicPartition(topic.name, partition)
        async with open_consumer(self._work.kafka) as consumer:
            logs = await logs_of(consumer, [self._rules.source], {topic.name: topic}, [tp])
        known = self._rules.known_from(topic.topic_id, partition)
        return max(logs[tp].earliest, known)

    def _stretch(self, topic: Topic, partition: int, earliest: int, end: int) -> _Stretch:
        """Where to go on; a new stretch begins where the log has lost what would come next."""
        where = self._where(topic.topic_id, partition)
        with self._database.transaction() as cursor:
            cursor.execute(NEWEST_READ, where)
            begin, start = cursor.fetchone() or (None, 0)
            if begin is None or start < earliest:
                begin = start = min(max(start, earliest), end)
                cursor.execute(BEGIN_READ, {**where, "from": begin})
        others = self._progress.older_incarnations({topic.topic_id})
        part = Range(
            rules=self._rules,
            topic=topic,
            partition=partition,
            replay="",
            begin=begin,
            start=start,
            end=end,
            read_from=start,
            restores_since=0,
            blank=start == 0 and not others,
        )
        return _Stretch(begin, part)

    def _where(self, topic_id: bytes, partition: int) -> dict[str, Any]:
        topic = str(UUID(bytes=topic_id))
        return {"backfill": self._work.backfill.id, "topic": topic, "partition": partition}

    async def _read(self, stretch: _Stretch) -> None:
        """Read a stretch to its end, or until it is stopped."""
        work, part, held = self._work, stretch.part, HeldTicks()
        computation = RunComputation(
            part.rules,
            schema_of(work.catalog, work.backfill.ref),
            program_of(work.catalog, work.backfill.ref),
            CAPACITY,
            part.topic.partitions,
            registry_of(part.rules.sources, work.schema_registry),
        )
        unseen = CAPACITY if part.blank else 0
        storing: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        storing.set_result(None)
        base = following = part.start
        with closing(BackfillSink(work.postgres, "", part.restores_since, unseen)) as rows:
            try:
                async with aclosing(self._runs(part)) as runs:
                    async for run in runs:
                        batch = await asyncio.to_thread(self._computed, computation, run, rows)
                        if batch is None:
                            break
                        held.add(batch)
                        following = run.next_offset
                        if len(held) >= work.ticks_a_piece or following >= part.end:
                            await storing
                            if self._stop.is_set():
                                break
                            ticks, position = held.take(), (base, following)
                            storing = asyncio.ensure_future(self._store(stretch, position, ticks))
                            base = following
                await storing
            except LogCut:
                await storing
                await self._store(stretch, (base, following), held.take())
                raise
            finally:
                await asyncio.gather(storing, return_exceptions=True)

    def _runs(self, part: Range) -> AsyncGenerator[Run]:
        work = self._work
        return read_range(work.kafka, part, work.max_records, self._stop)

    def _computed(self, computation: RunComputation, run: Run, rows: BackfillSink) -> Batch | None:
        """The values of a run, None once it is to stop; it waits while live suffers."""
        wait_for_live(self._throttle, self._done, self._report, self._stop)
        if self._stop.is_set():
            return None
        decoded = computation.decode(run)
        if decoded.missing:
            computation.restore(decoded, rows.load)
        return computation.compute(decoded)

    async def _store(self, stretch: _Stretch, offsets: tuple[int, int], held: Held | None) -> None:
        stored, without = await asyncio.to_thread(self._stored, stretch, offsets, held)
        done, (base, following) = self._done, offsets
        self._done = done._replace(
            ticks=done.ticks + stored,
            without_row=done.without_row + without,
            offsets=done.offsets + following - base,
        )
        self._report(self._done)

    def _stored(
        self, stretch: _Stretch, offsets: tuple[int, int], held: Held | None
    ) -> tuple[int, int]:
        """Store the blocks of ticks with how far the log is read.

        Returns how many ticks have a value now, and how many have none for want of a row.
        """
        part, (base, following) = stretch.part, offsets
        moved = {
            **self._where(part.topic.topic_id, part.partition),
            "from": stretch.begin,
            "base": base,
            "following": following,
            "ticks": 0,
        }
        blocks, without = b"", 0
        if held is not None:
            with self._database.transaction() as cursor:
                has_row = with_rows(cursor, held, self._lacking)
            which = np.flatnonzero(has_row)
            moved["ticks"] = len(which)
            blocks = copy_bytes(self._work.backfill.id, held.names, held.only(which))
            without = self._in_ranges(part, held.offset[~has_row])
        with self._database.transaction() as cursor:
            cursor.execute(ADVANCE_READ, moved)
            if not cursor.rowcount:
                raise self._overtaken(cursor)
            if blocks:
                copy_blocks(cursor, blocks)
        return moved["ticks"], without

    def _in_ranges(self, part: Range, offsets: Any) -> int:
        """How many offsets of a partition are in the ranges of the backfill."""
        ranges = sorted(
            (one.begin, one.end)
            for one in self._work.backfill.ranges
            if (one.topic_id, one.partition) == (part.topic.topic_id, part.partition)
        )
        begins = [begin for begin, _ in ranges]
        found = 0
        for offset in offsets.tolist():
            number = bisect_right(begins, offset) - 1
            found += number >= 0 and offset < ranges[number][1]
        return found

    def _overtaken(self, cursor: Any) -> PipelineError:
        """Why the progress is not where this process left it."""
        cursor.execute(PROGRESS, {"backfill": self._work.backfill.id})
        ref = self._work.backfill.ref
        return BackfillEnded(ref) if cursor.fetchone() is None else BackfillElsewhere(ref)
