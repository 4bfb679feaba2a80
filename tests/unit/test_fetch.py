"""Runs cut from record batches: every offset once, whatever the batches hold."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import READ_COMMITTED, PartitionRecords
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import given
from hypothesis import strategies as st

from pipelines.fetch import _take_run

TP = TopicPartition("t", 0)


def batch(base: int, records: int, compression: int) -> bytes:
    """A record batch of `records` at the offsets from `base`."""
    builder = DefaultRecordBatchBuilder(2, compression, 0, -1, -1, -1, 1 << 20)
    for place in range(records):
        builder.append(place, 1000 + place, b"k", b"v%d" % (base + place), [])
    built = bytearray(builder.build())
    built[:8] = base.to_bytes(8, "big")
    return bytes(built)


def fetched(parts: list[bytes], offset: int) -> PartitionRecords:
    return PartitionRecords(
        TP, MemoryRecords(b"".join(parts)), [], offset, None, None, True, READ_COMMITTED
    )


layouts = st.lists(st.tuples(st.integers(1, 6), st.integers(0, 3)), min_size=1, max_size=6)


@given(layouts, st.sampled_from([0, 1, 2, 3, 4]), st.integers(0, 4), st.integers(1, 10))
def test_runs_meet_and_hold_every_record_once(
    layout: list[tuple[int, int]], compression: int, skipped: int, max_records: int
) -> None:
    parts, base, expected = [], 0, []
    for records, gap in layout:
        parts.append(batch(base, records, compression))
        expected += range(base, base + records)
        base += records + gap
    start = min(skipped, layout[0][0] - 1)  # a fetch may begin inside a batch
    records_left = fetched(parts, start)
    runs = []
    while records_left._records.has_next():
        runs.append(_take_run(TP, records_left, bytes(16), max_records))
    assert [offset for run in runs for offset in run.offsets.tolist()] == expected[start:]
    assert [value for run in runs for value in run.values] == [b"v%d" % i for i in expected[start:]]
    assert runs[0].base_offset == start
    for before, after in pairwise(runs):
        assert before.next_offset == after.base_offset
        assert len(before.offsets) >= max_records
    assert runs[-1].next_offset == expected[-1] + 1


class _Batches:
    """Batches as `MemoryRecords` gives them, for kinds that only a broker writes."""

    def __init__(self, batches: list[Any]) -> None:
        self._left = batches

    def has_next(self) -> bool:
        return bool(self._left)

    def next_batch(self) -> Any:
        return self._left.pop(0)


def transactional(base: int, producer: int, values: int, kind: str) -> Any:
    """A transaction's records, or one of its markers (`commit`, `abort`)."""
    marker = kind in ("commit", "abort")
    size = 1 if marker else values
    records = [
        SimpleNamespace(
            offset=base + i,
            timestamp=1,
            key=b"\x00\x00\x00\x00" if kind == "abort" else b"\x00\x00\x00\x01",
            value=b"%d" % (base + i),
        )
        for i in range(size)
    ]

    class Batch:
        producer_id = producer
        base_offset = base
        next_offset = base + size
        is_control_batch = marker
        is_transactional = True

        def __iter__(self) -> Any:
            return iter(records)

        def __next__(self) -> Any:
            return records[0]

        def validate_crc(self) -> bool:
            return True

    return Batch()


@given(st.lists(st.tuples(st.integers(1, 3), st.booleans()), min_size=1, max_size=8))
def test_aborted_transactions_and_markers_lie_inside_runs(
    transactions: list[tuple[int, bool]],
) -> None:
    batches, aborted, expected, base = [], [], [], 0
    for values, commits in transactions:
        batches.append(transactional(base, 7, values, "data"))
        if commits:
            expected += range(base, base + values)
        else:
            aborted.append((7, base))
        batches.append(transactional(base + values, 7, 1, "commit" if commits else "abort"))
        base += values + 1
    records = fetched([], 0)
    records._aborted_transactions = aborted
    records._records = _Batches(batches)
    run = _take_run(TP, records, bytes(16), 1000)
    assert run.offsets.tolist() == expected
    assert (run.base_offset, run.next_offset) == (0, base)
