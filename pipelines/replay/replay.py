"""Replay: the live pipeline over a bounded range of one partition, into Postgres.

It has a consumer of its own without a group, moves no watermark and writes nothing online. Rows
that are stored already are compared: a row that is computed with other bits is an error.

    fetch ─► decode ─► restore what is missing ─► compute ─► store, with the progress
                                                       └── the next run meanwhile

A failure that may pass (a store that is unavailable, an entity that another job has settled in
another partition) ends the pass over the range. The next pass begins at the recorded progress, with
the state that the stored rows give: the same as after a kill.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from time import monotonic

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from pipelines.compute.batch import Batch
from pipelines.compute.run_computation import RunComputation
from pipelines.errors import (
    BrokerUnavailable,
    StateConflict,
    StoreUnavailable,
    WatermarkMoved,
)
from pipelines.kafka.connection import KafkaConnection
from pipelines.kafka.run import Run
from pipelines.kafka.run_fetcher import MAX_RECORDS
from pipelines.replay.backfill_sink import BackfillSink
from pipelines.replay.progress import Progress, ReplayProgress
from pipelines.replay.range_reader import read_range
from pipelines.replay.ranges import Range, Wanted
from pipelines.replay.stop import Stop
from pipelines.replay.throttle import Throttle
from pipelines.ticks.wire.formats import registry_of
from pipelines.ticks.wire.schema_registry import RegistryConnection
from registry.definitions import Catalog
from registry.formats.entity_name import key_values
from registry.language.program import compile_program

CAPACITY = 100_000
"""Number of entities whose windows are cached."""

FAILURES = 20
"""Failures without progress that may be a coincidence; a replay gives up after more of them, and
not before `PATIENCE_SECONDS`."""

PATIENCE_SECONDS = 300.0
"""Seconds of failures without progress: longer than a store takes to start again."""

PASSING = (StoreUnavailable, BrokerUnavailable, WatermarkMoved, StateConflict)


@dataclass(slots=True)
class Done:
    """Progress over ranges: `offsets` read, rows computed, and how many of those are new.

    `keys` are the message keys that were found, when only some are wanted. `waits` says what the
    replay waits for. `bytes` are those of the rows, where they are counted.
    """

    offsets: int = 0
    rows: int = 0
    new_rows: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    passed_over: int = 0
    keys: set[str] = field(default_factory=set)
    waits: str | None = None
    bytes: int = 0

    @classmethod
    def sum(cls, parts: Sequence[Done]) -> Done:
        """The sum of several ranges' progress."""
        total = cls()
        for part in parts:
            total.offsets += part.offsets
            total.rows += part.rows
            total.new_rows += part.new_rows
            total.rejected += part.rejected
            total.passed_over += part.passed_over
            total.keys |= part.keys
            total.waits = total.waits or part.waits
            total.bytes += part.bytes
        return total


Report = Callable[[Done], None]
"""Takes the progress; it is called after each run, and when the replay begins to wait."""


@dataclass(frozen=True, slots=True)
class Replay:
    """Replays ranges of what `kafka` holds into the database at `postgres`.

    It pauses while the workers are behind whose heartbeats are in the Redis servers `heartbeats`,
    of which the one at `cluster` is a Redis Cluster.
    `schema_registry` is needed by sources whose format is Avro or Protobuf.
    """

    kafka: KafkaConnection
    postgres: str = field(repr=False)
    catalog: Catalog
    wanted: Wanted
    heartbeats: tuple[str, ...] = ()
    max_records: int = MAX_RECORDS
    schema_registry: RegistryConnection | None = None
    cluster: str | None = None

    def run(self, part: Range, report: Report, stop: Stop) -> Done:
        """Replay a range until it is done or `stop` is set; calls `report` after each run.

        Raises errors that do not pass by themselves, and those that have not passed in
        `PATIENCE_SECONDS`.
        """
        return asyncio.run(_RangeReplay(self, part, report, stop).run())

    def sink(self, part: Range) -> BackfillSink:
        """The sink of a range's rows."""
        unseen = CAPACITY if part.blank else 0
        return BackfillSink(
            *(self.postgres, part.replay, part.restores_since, unseen), let_go_to=part.let_go_to
        )


class _RangeReplay:
    """The replay of one range, in as many passes as it takes."""

    def __init__(self, replay: Replay, part: Range, report: Report, stop: Stop) -> None:
        self._replay = replay
        self._part = part
        self._report = report
        self._stop = stop
        self._keys = {key.encode() for key in replay.wanted.entities}
        self._progress = ReplayProgress(replay.postgres)
        self._throttle = Throttle(replay.heartbeats, replay.cluster)
        self._registry = registry_of(part.rules.sources, replay.schema_registry)
        self._done = Done()
        self._read_from = part.read_from
        self._begun = part.resumed
        self._failures, self._failing_since = 0, 0.0

    async def run(self) -> Done:
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(PASSING),
            wait=wait_random_exponential(0.1, max=5),
            stop=self._gives_up,
            before_sleep=self._report_failure,
            reraise=True,
        )
        try:
            async for attempt in retrying:
                with attempt:
                    await asyncio.to_thread(self._go_back if self._begun else self._begin)
                    # There are none left when another process with the same replay was faster.
                    if self._part.offsets:
                        await self._pass()
        except PASSING:
            if not self._stop.is_set():
                raise
        finally:
            self._throttle.close()
            self._progress.close()
        return self._done

    def _begin(self) -> None:
        part, wanted = self._part, self._replay.wanted
        self._progress.begin(
            part.replay,
            part.topic,
            part.partition,
            wanted.arguments,
            not wanted.entities,
            Progress(part.start, part.start, part.restores_since),
        )
        self._begun = True

    def _go_back(self) -> None:
        """Return to the recorded progress; what was read beyond it is read again."""
        part = self._part
        reached = self._progress.reached(part.replay, part.topic.topic_id, part.partition)
        self._part = part.since(part.start if reached is None else reached)
        self._done.offsets = self._part.read_from - self._read_from

    def _gives_up(self, state: RetryCallState) -> bool:
        patience = monotonic() - self._failing_since < PATIENCE_SECONDS
        return self._stop.is_set() or (self._failures > FAILURES and not patience)

    def _report_failure(self, state: RetryCallState) -> None:
        if not self._failures:
            self._failing_since = monotonic()
        self._failures += 1
        error = None if state.outcome is None else state.outcome.exception()
        self._done.waits = f"waiting: {error}"
        self._report(self._done)

    # -- a pass over what is left of the range

    async def _pass(self) -> None:
        part, catalog = self._part, self._replay.catalog
        schema = catalog.schemas[catalog.writing[part.source.name]]
        # states that cannot be restored must not be forgotten
        capacity = sys.maxsize if part.restores_since is None else CAPACITY
        program = compile_program(catalog, schema)
        computation = RunComputation(
            part.rules, schema, program, capacity, part.topic.partitions, self._registry
        )
        sink = self._replay.sink(part)
        storing: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        storing.set_result(None)
        try:
            async with aclosing(self._read()) as runs:
                async for run in runs:
                    await self._wait_for_live()
                    if self._stop.is_set():
                        break
                    wanted = run.only(self._keys) if self._keys else run
                    decoded = await asyncio.to_thread(computation.decode, wanted)
                    if decoded.missing:
                        await storing  # what is restored may have to be stored first
                        await asyncio.to_thread(computation.restore, decoded, sink.load)
                    batch = await asyncio.to_thread(computation.compute, decoded)
                    await storing
                    storing = asyncio.create_task(self._store(sink, batch))
            await storing
        finally:
            await asyncio.gather(storing, return_exceptions=True)
            sink.close()

    async def _store(self, sink: BackfillSink, batch: Batch) -> None:
        done, run = self._done, batch.run
        if run.base_offset >= self._part.start:
            done.new_rows += await asyncio.to_thread(sink.store, batch)
            done.rows += len(batch)
            done.rejected.update(tick.reason for tick in batch.rejected)
            done.passed_over += batch.passed_over
            self._failures = 0
        if self._keys:
            done.keys |= {key_values(name)[0] for name in batch.names}
            done.keys |= {(tick.key or b"").decode(errors="replace") for tick in batch.rejected}
        done.offsets += run.next_offset - run.base_offset
        done.waits = None
        self._report(done)

    def _read(self) -> AsyncGenerator[Run]:
        replay = self._replay
        return read_range(replay.kafka, self._part, replay.max_records, self._stop)

    async def _wait_for_live(self) -> None:
        """Wait while live suffers."""
        await asyncio.to_thread(self._throttle.wait, self._stop, self._tell)

    def _tell(self, why: str) -> None:
        self._done.waits = why
        self._report(self._done)
