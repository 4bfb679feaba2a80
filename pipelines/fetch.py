"""Runs straight from the record batches that an aiokafka consumer has fetched.

aiokafka makes an object of eleven attributes of every record. Here a run takes offsets, timestamps,
keys and values of whole record batches, and accounts for every offset: control markers, aborted
transactions and what compaction left out lie inside a run. A record batch is never split, so a run
holds at least `max_records` under load, and at most one batch more.

The parts of aiokafka's fetcher that are used are private to it; `pyproject.toml` pins the version,
and `tests/integration/test_fetch.py` reads the same records through the public interface.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from time import monotonic
from typing import Any

import numpy as np
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.consumer.fetcher import READ_COMMITTED, FetchResult
from aiokafka.errors import ConsumerStoppedError, CorruptRecordException

from pipelines.runs import Run

MAX_RECORDS = 16_384
"""Of a run, rounded up to a record batch: larger ones gain nothing and cost memory."""


async def fetch_runs(
    consumer: AIOKafkaConsumer,
    partitions: Collection[TopicPartition],
    topic_ids: Mapping[str, bytes],
    timeout: float,
    max_records: int = MAX_RECORDS,
) -> list[Run]:
    """The next run of each of `partitions` that has one, waiting up to `timeout` seconds for any.

    Raises what aiokafka raises when a partition cannot be read, and `CorruptRecordException` for a
    record batch whose checksum is wrong.
    """
    fetcher = consumer._fetcher
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


def _take_fetched(
    fetcher: Any,
    partitions: Collection[TopicPartition],
    topic_ids: Mapping[str, bytes],
    max_records: int,
) -> list[Run]:
    runs = []
    for tp in list(fetcher._records):
        if tp not in partitions:
            if not fetcher._subscriptions.is_assigned(tp):
                del fetcher._records[tp]
            continue
        fetched = fetcher._records[tp]
        if isinstance(fetched, FetchResult):
            run = None
            # false after a seek: what was fetched for the old position is thrown away
            if fetched.check_assignment(tp):
                records = fetched._partition_records
                run = _take_run(tp, records, topic_ids[tp.topic], max_records)
                fetched._assignment.state_value(tp).consumed_to(run.next_offset)
            if run is None or not records._records.has_next():
                del fetcher._records[tp]
                fetcher._notify(fetcher._wait_consume_future)
            if run is not None and run.next_offset > run.base_offset:
                runs.append(run)
        elif not runs:
            del fetcher._records[tp]
            fetcher._notify(fetcher._wait_consume_future)
            fetched.check_raise()
    return runs


def _take_run(tp: TopicPartition, records: Any, topic_id: bytes, max_records: int) -> Run:
    """At least `max_records` records of what was fetched of a partition, or all that is left."""
    base = records.next_fetch_offset
    offsets: list[int] = []
    timestamps: list[int] = []
    keys: list[bytes | None] = []
    values: list[bytes | None] = []
    while len(offsets) < max_records and records._records.has_next():
        batch = records._records.next_batch()
        if records._check_crcs and not batch.validate_crc():
            raise CorruptRecordException(f"wrong checksum in {tp} at {records.next_fetch_offset}")
        if not _is_data(records, batch):
            records.next_fetch_offset = batch.next_offset
            continue
        first = records.next_fetch_offset
        for record in batch:
            # a fetch gives whole batches: the first may begin before the offset asked for
            if record.offset >= first:
                offsets.append(record.offset)
                timestamps.append(record.timestamp)
                keys.append(record.key)
                values.append(record.value)
        # the batch's own end, not its last record's: compaction keeps the one and not the other
        records.next_fetch_offset = max(first, batch.next_offset)
    return Run(
        topic=tp.topic,
        topic_id=topic_id,
        partition=tp.partition,
        base_offset=base,
        next_offset=records.next_fetch_offset,
        offsets=np.array(offsets, np.int64),
        timestamps=np.array(timestamps, np.int64),
        keys=keys,
        values=values,
    )


def _is_data(records: Any, batch: Any) -> bool:
    """Whether a record batch holds records to deliver: no markers, nothing that was aborted."""
    if records._isolation_level == READ_COMMITTED and batch.producer_id is not None:
        records._consume_aborted_up_to(batch.base_offset)
        if batch.is_control_batch:
            if records._contains_abort_marker(batch):
                records._aborted_producers.discard(batch.producer_id)
            return False
        if batch.is_transactional and batch.producer_id in records._aborted_producers:
            return False
    return not batch.is_control_batch
