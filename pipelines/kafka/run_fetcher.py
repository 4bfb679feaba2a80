"""Runs straight from the bytes that an aiokafka consumer has fetched.

aiokafka makes an object of eleven attributes of every record. Here a run takes whole record batches
as columns (`kafka.record_batches`), and accounts for every offset: control markers, aborted
transactions and what compaction left out lie inside a run. A record batch is never split, so a run
holds at least `max_records` under load, and at most one batch more.

What aiokafka does with the answer to a fetch, `Fetcher._proc_fetch_request`, is replaced, because
the classes that it puts the bytes into do not give them back; that, and the few private names used
here, are why `pyproject.toml` pins the version. What aiokafka decides about positions, leaders and
pauses stays its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from time import monotonic, time
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka import errors as kafka_errors
from aiokafka.consumer.fetcher import READ_COMMITTED, Fetcher
from aiokafka.errors import ConsumerStoppedError, KafkaError, RecordTooLargeError
from aiokafka.record.control_record import ABORT_MARKER, ControlRecord

from pipelines.kafka.record_batches import RecordBatch, batch_end, index, next_batch
from pipelines.kafka.run import Run

MAX_RECORDS = 16_384
"""Of a run, rounded up to a record batch: larger ones gain nothing and cost memory."""

PREFETCH_BACKOFF = 0.1
"""Seconds that data of one partition, not taken yet, holds up the next fetch from its node."""


async def fetch_runs(
    consumer: AIOKafkaConsumer,
    partitions: Collection[TopicPartition],
    topic_ids: Mapping[str, bytes],
    timeout: float,
    max_records: int = MAX_RECORDS,
    pace: float = 0.0,
) -> list[Run]:
    """The next run of each of `partitions` that has one, waiting up to `timeout` seconds for any.

    A fetch from a node begins `pace`
    seconds after the one before it, as the first call for a consumer has it, unless there is known
    to be more, or that one brought nothing. A run costs about a millisecond however small it is:
    fetched as soon as anything is there, a few ticks at a time keep a core busy, and wait for one
    another for longer than that.

    Raises what aiokafka raises when a partition cannot be read, and `CorruptRecordException` for a
    record batch whose checksum is wrong.
    """
    fetcher = consumer._fetcher
    if not isinstance(fetcher, RunFetcher):
        RunFetcher.take_the_place_of(fetcher, pace)
    deadline = monotonic() + timeout
    while True:
        if consumer._closed or fetcher._closed:
            raise ConsumerStoppedError
        if fetcher._subscriptions.reassignment_in_progress:
            await fetcher._subscriptions.wait_for_assignment()
        runs = _take_fetched(fetcher, partitions, topic_ids, max_records)
        remaining = deadline - monotonic()
        if runs or remaining <= 0:
            return runs
        waiter = fetcher._create_fetch_waiter()
        done, _ = await asyncio.wait([waiter], timeout=remaining)
        if not done:
            waiter.cancel()
            return []
        waiter.result()  # a failed authorization is told here


@dataclass(slots=True)
class Fetched:
    """What was fetched of a partition and not taken yet, from `position` on."""

    tp: TopicPartition
    assignment: Any
    position: int
    data: memoryview
    aborted: list[tuple[int, int]]
    """(producer id, first offset) of each aborted transaction, by offset, that is still ahead."""

    at: int = 0
    aborting: set[int] = field(default_factory=set)
    """Producers whose records are thrown away until the marker that ends their transaction."""

    created: float = field(default_factory=monotonic)

    def calculate_backoff(self) -> float:
        """Asked by aiokafka: how long the next fetch from this node waits for this to be taken."""
        return max(0.0, PREFETCH_BACKOFF - (monotonic() - self.created))

    def is_current(self) -> bool:
        """Whether it continues where the partition is read: not after a seek or a rebalance."""
        if not self.assignment.active:
            return False
        state = self.assignment.state_value(self.tp)
        return not state.paused and bool(state.position == self.position)

    @property
    def holds_batch(self) -> bool:
        """Whether a whole record batch is left: a fetch ends anywhere."""
        return batch_end(self.data, self.at) is not None

    def take(self, topic_id: bytes, max_records: int, committed: bool) -> Run:
        """At least `max_records` records, or all that is left; the position moves on."""
        base, batches, records = self.position, [], 0
        while records < max_records and self.holds_batch:
            batch, self.at = next_batch(self.data, self.at)
            if not committed or self._is_committed(batch):
                batches.append(batch)
                records += min(batch.count, batch.next_offset - self.position)
            # the batch's own end, not its last record's: compaction keeps the one, not the other
            self.position = max(self.position, batch.next_offset)
        if self.position == base:
            raise RecordTooLargeError(
                f"{self.tp.topic}[{self.tp.partition}]: the record batch at offset {base} is "
                "larger than a fetch"
            )
        found = index(batches, base)
        return Run(
            topic=self.tp.topic,
            topic_id=topic_id,
            partition=self.tp.partition,
            base_offset=base,
            next_offset=self.position,
            data=found.data,
            offsets=found.offsets,
            timestamps=found.timestamps,
            keys=found.keys,
            values=found.values,
        )

    def _is_committed(self, batch: RecordBatch) -> bool:
        """Whether a batch holds records to deliver: no marker, nothing that was aborted."""
        while self.aborted and self.aborted[0][1] <= batch.base_offset:
            self.aborting.add(self.aborted.pop(0)[0])
        if batch.is_control:
            markers = index([batch], batch.base_offset)
            for start, end in markers.keys.tolist():  # none where compaction has removed it
                if ControlRecord.parse(markers.data[start:end].tobytes()) == ABORT_MARKER:
                    self.aborting.discard(batch.producer_id)
            return False
        return not (batch.is_transactional and batch.producer_id in self.aborting)


@dataclass(slots=True)
class FetchFailed:
    """Stands where `Fetched` would: a partition cannot be read."""

    error: Exception

    def calculate_backoff(self) -> float:
        """Asked by aiokafka; nothing waits for an error."""
        return 0.0


class RunFetcher(Fetcher):  # type: ignore[misc]
    """aiokafka's fetcher, which keeps what it fetches as bytes."""

    _pace: float
    _due: dict[int, float]
    """By node: when the next fetch may begin, on the monotonic clock."""

    @staticmethod
    def take_the_place_of(fetcher: Fetcher, pace: float) -> None:
        """Become the fetcher of a consumer, which makes it itself when it starts."""
        fetcher.__class__ = RunFetcher
        fetcher._pace, fetcher._due = pace, {}

    async def _proc_fetch_request(self, assignment: Any, node_id: int, request: Any) -> bool:
        """Fetch from one node; returns whether anything came that a waiter should be told of."""
        asked = {
            TopicPartition(topic, partition): offset
            for topic, partitions in request.topics
            for partition, offset, _ in partitions
        }
        try:
            if not _is_behind(assignment, asked):
                await asyncio.sleep(self._due.get(node_id, 0.0) - monotonic())
            self._due[node_id] = monotonic() + self._pace
            response = await self._client.send(node_id, request)
        except KafkaError:
            await asyncio.sleep(self._retry_backoff)
            return False
        except asyncio.CancelledError:
            return False
        if not assignment.active:
            return False
        told = [
            self._take_answer(assignment, TopicPartition(topic, partition), asked, error, *rest)
            for topic, partitions in response.topics
            for partition, error, *rest in partitions
        ]
        if not any(told):
            del self._due[node_id]
        if any(error for _, partitions in response.topics for _, error, *_ in partitions):
            await asyncio.sleep(self._retry_backoff)
        return any(told)

    def _take_answer(
        self,
        assignment: Any,
        tp: TopicPartition,
        asked: Mapping[TopicPartition, int],
        error_code: int,
        highwater: int,
        stable: int,
        *rest: Any,
    ) -> bool:
        """Keep what came of one partition; returns whether a waiter should be told."""
        state = assignment.state_value(tp)
        if not state.has_valid_position or state.position != asked[tp]:
            return False
        if error_code:
            return self._take_error(tp, state, kafka_errors.for_code(error_code), asked[tp])
        # the answer's end is (first offset of the log, aborted, [preferred replica,] records)
        aborted = rest[1] if len(rest) > 2 else rest[0]
        data = rest[-1]
        state.highwater, state.lso, state.timestamp = highwater, stable, int(time() * 1000)
        if not data:
            return False
        self._records[tp] = Fetched(
            tp,
            assignment,
            asked[tp],
            memoryview(data),
            sorted(aborted or [], key=lambda transaction: transaction[1]),
        )
        return True

    def _take_error(self, tp: TopicPartition, state: Any, error: Any, at: int) -> bool:
        """An error that passes is met with fresh metadata, another is told to who fetches."""
        if issubclass(error, kafka_errors.OffsetOutOfRangeError):
            state.await_reset(self._default_reset_strategy)
            return False
        if error.retriable or error.invalid_metadata or error is kafka_errors.UnknownError:
            self._client.force_metadata_update()
            return False
        self._records[tp] = FetchFailed(error(f"{tp.topic}[{tp.partition}] at offset {at}"))
        return True


def _is_behind(assignment: Any, asked: Mapping[TopicPartition, int]) -> bool:
    """Whether any partition is known to have more that may be read than what was fetched of it."""
    states = ((assignment.state_value(tp), offset) for tp, offset in asked.items())
    return any(
        state.highwater is not None and offset < min(state.highwater, state.lso)
        for state, offset in states
    )


def _take_fetched(
    fetcher: Any,
    partitions: Collection[TopicPartition],
    topic_ids: Mapping[str, bytes],
    max_records: int,
) -> list[Run]:
    runs: list[Run] = []
    committed = fetcher._isolation_level == READ_COMMITTED
    for tp in list(fetcher._records):
        fetched = fetcher._records[tp]
        if tp not in partitions:
            if not fetcher._subscriptions.is_assigned(tp):
                del fetcher._records[tp]
            continue
        if isinstance(fetched, FetchFailed):
            if runs:
                continue
            _drop(fetcher, tp)
            raise fetched.error
        # what another kind of fetcher left, or was fetched for another position, comes again
        if not isinstance(fetched, Fetched) or not fetched.is_current():
            _drop(fetcher, tp)
            continue
        run = fetched.take(topic_ids[tp.topic], max_records, committed)
        fetched.assignment.state_value(tp).consumed_to(run.next_offset)
        if not fetched.holds_batch:
            _drop(fetcher, tp)
        runs.append(run)
    return runs


def _drop(fetcher: Any, tp: TopicPartition) -> None:
    """Make room for the next fetch of a partition."""
    del fetcher._records[tp]
    fetcher._notify(fetcher._wait_consume_future)
