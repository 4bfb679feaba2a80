"""Runs cut from record batches: every offset once, whatever the batches hold."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import CorruptRecordException, RecordTooLargeError
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c
from hypothesis import given
from hypothesis import strategies as st

from pipelines.kafka.fetched_data import FetchedData
from pipelines.kafka.record_batches import CHECKED_OFFSET, CONTROL, LOG_APPEND_TIME
from pipelines.kafka.run import Run

TP = TopicPartition("t", 0)
COMMIT, ABORT = b"\x00\x00\x00\x01", b"\x00\x00\x00\x00"
Record = tuple[int, int, bytes | None, bytes | None]


def batch(
    base: int,
    records: list[tuple[bytes | None, bytes | None]],
    compression: int = 0,
    producer: int = -1,
    attributes: int = 0,
) -> bytes:
    """A record batch at the offsets from `base`, as aiokafka's producer makes it."""
    transactional = int(producer >= 0)
    builder = DefaultRecordBatchBuilder(2, compression, transactional, producer, 0, 0, 1 << 20)
    for number, (key, value) in enumerate(records):
        headers = [("h", b"x" * number), ("none", None)][: number % 3]
        builder.append(number, 1000 + 7 * number, key, value, headers)
    built = bytearray(builder.build())
    built[:8] = base.to_bytes(8, "big")
    built[22] |= attributes
    built[17:21] = calc_crc32c(bytes(built[CHECKED_OFFSET:])).to_bytes(4, "big")
    return bytes(built)


def values(base: int, n: int) -> list[tuple[bytes | None, bytes | None]]:
    return [(b"k", b"v%d" % offset) for offset in range(base, base + n)]


def fetched(
    parts: list[bytes], offset: int = 0, aborted: list[tuple[int, int]] | None = None
) -> FetchedData:
    assignment = SimpleNamespace(active=True)
    return FetchedData(TP, assignment, offset, memoryview(b"".join(parts)), aborted or [])


def take_all(left: FetchedData, max_records: int = 1000) -> list[Run]:
    runs = []
    while left.holds_batch or not runs:
        runs.append(left.take(bytes(16), max_records, committed=True))
    return runs


def read(run: Run) -> list[Record]:
    return [
        (int(run.offsets[record]), int(run.timestamps[record]), run.key(record), run.value(record))
        for record in range(len(run))
    ]


texts = st.none() | st.binary(max_size=200)


@given(
    st.lists(st.lists(st.tuples(texts, texts), min_size=1, max_size=8), min_size=1, max_size=5),
    st.sampled_from([0, 1, 2, 3, 4]),
    st.booleans(),
)
def test_records_are_those_that_aiokafka_reads(
    batches: list[list[tuple[bytes | None, bytes | None]]], compression: int, appended: bool
) -> None:
    """Keys, values, offsets and timestamps, with every compression and with headers."""
    parts, base = [], 0
    for records in batches:
        attributes = LOG_APPEND_TIME if appended else 0
        parts.append(batch(base, records, compression, attributes=attributes))
        base += len(records)
    expected: list[Record] = []
    memory = MemoryRecords(b"".join(parts))
    while memory.has_next():
        expected += [(r.offset, r.timestamp, r.key, r.value) for r in memory.next_batch()]
    (run,) = take_all(fetched(parts))
    assert read(run) == expected


layouts = st.lists(st.tuples(st.integers(1, 6), st.integers(0, 3)), min_size=1, max_size=6)


@given(layouts, st.integers(0, 4), st.integers(1, 10), st.integers(0, 60))
def test_runs_meet_and_hold_every_record_once(
    layout: list[tuple[int, int]], skipped: int, max_records: int, cut_off: int
) -> None:
    parts, base, expected = [], 0, []
    for records, gap in layout:
        parts.append(batch(base, values(base, records)))
        expected += range(base, base + records)
        base += records + gap
    start = min(skipped, layout[0][0] - 1)  # a fetch may begin inside a batch
    parts.append(batch(base, values(base, 1))[:cut_off])  # and end inside one
    runs = take_all(fetched(parts, start), max_records)
    assert [offset for run in runs for offset in run.offsets.tolist()] == expected[start:]
    assert [value for run in runs for *_, value in read(run)] == [
        b"v%d" % offset for offset in expected[start:]
    ]
    assert runs[0].base_offset == start
    for before, after in pairwise(runs):
        assert before.next_offset == after.base_offset
        assert len(before) >= max_records
    assert runs[-1].next_offset == expected[-1] + 1


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=8))
def test_aborted_transactions_and_markers_lie_inside_runs(
    transactions: list[tuple[int, bool]],
) -> None:
    parts, aborted, expected, base = [], [], [], 0
    for n, commits in transactions:
        if n:
            parts.append(batch(base, values(base, n), producer=7))
        if commits:
            expected += range(base, base + n)
        elif n:
            aborted.append((7, base))
        marker = [(COMMIT if commits else ABORT, b"")]
        parts.append(batch(base + n, marker, producer=7, attributes=CONTROL))
        base += n + 1
    (run,) = take_all(fetched(parts, 0, aborted))
    assert run.offsets.tolist() == expected
    assert (run.base_offset, run.next_offset) == (0, base)


def test_a_marker_that_compaction_has_emptied_is_passed_over() -> None:
    """The cleaner keeps the last batch of a producer, without its marker."""
    emptied = bytearray(batch(2, [(ABORT, b"")], producer=7, attributes=CONTROL)[:61])
    emptied[8:12] = (len(emptied) - 12).to_bytes(4, "big")
    emptied[57:61] = bytes(4)
    emptied[17:21] = calc_crc32c(bytes(emptied[CHECKED_OFFSET:])).to_bytes(4, "big")
    (run,) = take_all(fetched([batch(0, values(0, 2)), bytes(emptied), batch(3, values(3, 1))]))
    assert run.offsets.tolist() == [0, 1, 3]
    assert run.next_offset == 4
    # the emptied batch still covers offset 2, also where nothing follows it yet
    (run,) = take_all(fetched([batch(0, values(0, 2)), bytes(emptied)]))
    assert run.next_offset == 3


@pytest.mark.parametrize(
    ("active", "paused", "position", "current"),
    [
        (True, False, 5, True),
        (True, False, 4, False),
        (True, True, 5, False),
        (False, False, 5, False),
    ],
)
def test_data_is_current_where_the_consumer_reads(
    active: bool, paused: bool, position: int, current: bool
) -> None:
    """Not after a seek, a pause or a rebalance: it is fetched again then."""
    data = fetched([batch(5, values(5, 1))], offset=5)
    state = SimpleNamespace(paused=paused, position=position)
    data.assignment = SimpleNamespace(active=active, state_value=lambda tp: state)
    assert data.is_current() is current


def test_a_broken_batch_is_an_error() -> None:
    whole = batch(0, values(0, 3))
    flipped = bytearray(whole)
    flipped[-1] ^= 1
    with pytest.raises(CorruptRecordException, match="wrong checksum"):
        take_all(fetched([bytes(flipped)]))
    old = bytearray(whole)
    old[16] = 1
    with pytest.raises(CorruptRecordException, match="format 1"):
        take_all(fetched([bytes(old)]))
    with pytest.raises(RecordTooLargeError, match="at offset 0"):
        take_all(fetched([whole[:-1]]))
    lies = bytearray(whole)
    lies[57:61] = (1 << 30).to_bytes(4, "big")
    lies[17:21] = calc_crc32c(bytes(lies[CHECKED_OFFSET:])).to_bytes(4, "big")
    with pytest.raises(CorruptRecordException, match="cannot be in"):
        take_all(fetched([bytes(lies)]))
