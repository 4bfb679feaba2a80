"""What a fetch has brought of one partition, until it is taken as runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import RecordTooLargeError
from aiokafka.record.control_record import ABORT_MARKER, ControlRecord

from pipelines.kafka.record_batches import RecordBatch, batch_end, index, next_batch
from pipelines.kafka.run import Run

PREFETCH_BACKOFF = 0.1
"""Seconds for which data of one partition that is not taken yet delays the next fetch from its
node."""


@dataclass(slots=True)
class FetchedData:
    """Record batches of a partition; the offsets before `position` are taken.

    `aborted` is (producer id, first offset) of each aborted transaction that begins later, in the
    order of offsets. `byte_offset` is where in `data` the next record batch begins.
    """

    tp: TopicPartition
    assignment: Any
    position: int
    data: memoryview
    aborted: list[tuple[int, int]]
    byte_offset: int = 0
    aborting: set[int] = field(default_factory=set)
    """Producers whose records are left out until the marker that ends their transaction."""

    created: float = field(default_factory=monotonic)

    def calculate_backoff(self) -> float:
        """Seconds for which the next fetch from this node waits; aiokafka calls it."""
        return max(0.0, PREFETCH_BACKOFF - (monotonic() - self.created))

    def is_current(self) -> bool:
        """Whether the consumer's position is still here: not after a seek or a rebalance."""
        if not self.assignment.active:
            return False
        state = self.assignment.state_value(self.tp)
        return not state.paused and bool(state.position == self.position)

    @property
    def holds_batch(self) -> bool:
        """Whether a whole record batch is left: a fetch may end inside one."""
        return batch_end(self.data, self.byte_offset) is not None

    def take(self, topic_id: bytes, max_records: int, committed: bool) -> Run:
        """At least `max_records` records, or all that is left; moves the position on.

        With `committed` the records of aborted transactions are left out. Raises
        `RecordTooLargeError` where not even one record batch is whole, and
        `CorruptRecordException`.
        """
        base, batches, records = self.position, [], 0
        while records < max_records and self.holds_batch:
            batch, self.byte_offset = next_batch(self.data, self.byte_offset)
            if not committed or self._is_committed(batch):
                batches.append(batch)
                records += min(batch.count, batch.next_offset - self.position)
            # Compaction keeps the end of a batch, and may remove its last record.
            self.position = max(self.position, batch.next_offset)
        if self.position == base:
            raise RecordTooLargeError(
                f"{self.tp.topic}[{self.tp.partition}]: the record batch at offset {base} is "
                "larger than a fetch"
            )
        columns = index(batches, base)
        return Run(
            topic=self.tp.topic,
            topic_id=topic_id,
            partition=self.tp.partition,
            base_offset=base,
            next_offset=self.position,
            data=columns.data,
            offsets=columns.offsets,
            timestamps=columns.timestamps,
            keys=columns.keys,
            values=columns.values,
            headers=columns.values[:, 1],  # they follow the value
        )

    def _is_committed(self, batch: RecordBatch) -> bool:
        """Whether the batch has records to deliver: it is no marker and was not aborted."""
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
class FetchError:
    """Takes the position of `FetchedData` in the buffer: a partition cannot be read."""

    error: Exception

    def calculate_backoff(self) -> float:
        """0: no fetch waits for an error to be raised; aiokafka calls it."""
        return 0.0
