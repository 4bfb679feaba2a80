"""Kafka's record batches, format 2: headers by `struct`, the records in them by a compiled pass.

A record is not made an object. What a run needs of it is its offset, its timestamp, and where its
key and its value are in the decompressed bytes:

    record = length, attributes, timestamp delta, offset delta, key, value, headers

all of them as zig-zag varints, but for the attributes, a byte. The formats before 2 (of producers
older than Kafka 0.11) are refused; brokers have not written them since 4.0.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from aiokafka import codec
from aiokafka.errors import CorruptRecordException, UnsupportedCodecError
from aiokafka.record.util import calc_crc32c

from pipelines.runtime.array_types import Bytes, Int64s
from pipelines.runtime.machine_code import compiled

HEADER = struct.Struct(">qiibIhiqqqhii")
"""Base offset, length, leader epoch, magic, checksum, attributes, last offset delta, first and
newest timestamp, producer id, producer epoch, base sequence, number of records."""

LENGTH = struct.Struct(">i")
LENGTH_AT, CHECKED_FROM = 8, 21
BEFORE_LENGTH = 12
"""Bytes of a batch that its length does not count."""

CODECS = {1: codec.gzip_decode, 2: codec.snappy_decode, 3: codec.lz4_decode, 4: codec.zstd_decode}
LOG_APPEND_TIME, TRANSACTIONAL, CONTROL = 0x08, 0x10, 0x20
LEAST_RECORD = 7
"""Bytes of the smallest record: what a batch says of its number is held against its size."""

NONE = -1
"""Where a key or a value begins that is null."""


@dataclass(frozen=True, slots=True)
class RecordBatch:
    """One batch as it was fetched; `next_offset` is the batch's own, not its last record's."""

    base_offset: int
    next_offset: int
    attributes: int
    first_timestamp: int
    newest_timestamp: int
    producer_id: int
    count: int
    payload: memoryview

    @property
    def is_control(self) -> bool:
        return bool(self.attributes & CONTROL)

    @property
    def is_transactional(self) -> bool:
        return bool(self.attributes & TRANSACTIONAL)

    def records(self) -> bytes | memoryview:
        """The records, decompressed. Raises `UnsupportedCodecError`."""
        compression = self.attributes & 0x07
        if compression == 0:
            return self.payload
        if compression not in CODECS:
            raise UnsupportedCodecError(f"compression {compression} is not known")
        records: bytes = CODECS[compression](self.payload)
        return records


def batch_end(fetched: memoryview, at: int) -> int | None:
    """Where the record batch at a place ends, None when not all of it is there."""
    if len(fetched) - at < HEADER.size:
        return None
    (length,) = LENGTH.unpack_from(fetched, at + LENGTH_AT)
    end: int = at + BEFORE_LENGTH + length
    return end if end <= len(fetched) else None


def next_batch(fetched: memoryview, at: int) -> tuple[RecordBatch, int]:
    """The record batch at a place, all of which is there, and where the next one begins.

    Raises `CorruptRecordException` for a wrong checksum and for a format before 2.
    """
    end = batch_end(fetched, at)
    assert end is not None, "asked only where a whole batch is"
    (base, _, _, magic, checksum, attributes, delta, first, newest, producer, _, _, count) = (
        HEADER.unpack_from(fetched, at)
    )
    if magic != 2:
        raise CorruptRecordException(
            f"the record batch at offset {base} has format {magic}: only 2 is read, which clients "
            "write since Kafka 0.11"
        )
    if calc_crc32c(fetched[at + CHECKED_FROM : end]) != checksum:
        raise CorruptRecordException(f"the record batch at offset {base} has a wrong checksum")
    return RecordBatch(
        base_offset=base,
        next_offset=base + delta + 1,
        attributes=attributes,
        first_timestamp=first,
        newest_timestamp=newest,
        producer_id=producer,
        count=count,
        payload=fetched[at + HEADER.size : end],
    ), end


@dataclass(frozen=True, slots=True)
class Records:
    """The records of some batches as columns; `keys` and `values` are (n, 2), begin and end in
    `data`, begin `NONE` for null; timestamps are milliseconds UTC."""

    data: Bytes
    offsets: Int64s
    timestamps: Int64s
    keys: Int64s
    values: Int64s


def index(batches: Sequence[RecordBatch], first_offset: int) -> Records:
    """The records of batches from `first_offset` on. Raises `CorruptRecordException`."""
    parts = [batch.records() for batch in batches]
    data = np.frombuffer(bytearray().join(parts), np.uint8)
    ends = np.cumsum([len(part) for part in parts], dtype=np.int64)
    counts = np.array([batch.count for batch in batches], np.int64)
    offsets = np.array([batch.base_offset for batch in batches], np.int64)
    timestamps = np.array([batch.first_timestamp for batch in batches], np.int64)
    appended = np.array(
        [
            batch.newest_timestamp if batch.attributes & LOG_APPEND_TIME else NONE
            for batch in batches
        ],
        np.int64,
    )
    n = int(counts.sum())
    if (counts < 0).any() or n * LEAST_RECORD > len(data):
        raise CorruptRecordException(f"{n} records cannot be in {len(data)} bytes")
    columns = [np.empty(shape, np.int64) for shape in (n, n, (n, 2), (n, 2))]
    kept = _index(data, ends, counts, offsets, timestamps, appended, first_offset, *columns)
    if kept < 0:
        raise CorruptRecordException(f"a record after offset {batches[0].base_offset} is broken")
    return Records(data, *(column[:kept] for column in columns))


@compiled()
def _varint(data, at, end):  # type: ignore[no-untyped-def]
    """A zig-zag varint and where it ends; an end past `end` when it is cut off or too long."""
    value = np.uint64(0)
    shift = np.uint64(0)
    while at < end and shift < np.uint64(64):
        byte = np.uint64(data[at])
        at += 1
        value |= (byte & np.uint64(0x7F)) << shift
        if byte < np.uint64(0x80):
            return np.int64(value >> np.uint64(1)) ^ -np.int64(value & np.uint64(1)), at
        shift += np.uint64(7)
    return 0, end + 1


@compiled()
def _span(data, at, end, spans, n):  # type: ignore[no-untyped-def]
    """Note where a key or value is; returns where it ends, past `end` when it is cut off."""
    length, at = _varint(data, at, end)
    if length < 0:
        spans[n, 0], spans[n, 1] = NONE, NONE
        return at
    if at > end or length > end - at:
        return end + 1
    spans[n, 0], spans[n, 1] = at, at + length
    return at + length


@compiled(
    "int64(uint8[::1], int64[::1], int64[::1], int64[::1], int64[::1], int64[::1], int64,"
    " int64[::1], int64[::1], int64[:,::1], int64[:,::1])"
)
def _index(  # type: ignore[no-untyped-def]
    data,
    ends,
    counts,
    base,
    first_timestamp,
    appended,
    first_offset,
    offsets,
    timestamps,
    keys,
    values,
):
    """Fill the columns of the records from `first_offset` on; returns how many, -1 when broken."""
    n = 0
    at = 0
    for batch in range(ends.shape[0]):
        end = ends[batch]
        for _ in range(counts[batch]):
            length, at = _varint(data, at, end)
            if at > end or length < 0 or length > end - at:
                return -1
            record_end = at + length
            delta, at = _varint(data, at + 1, record_end)
            offset, at = _varint(data, at, record_end)
            at = _span(data, at, record_end, keys, n)
            at = _span(data, at, record_end, values, n)
            if at > record_end:
                return -1
            at = record_end  # headers mean nothing here
            offsets[n] = base[batch] + offset
            timestamps[n] = first_timestamp[batch] + delta
            if appended[batch] != NONE:
                timestamps[n] = appended[batch]
            # a fetch gives whole batches: the first may begin before the offset asked for
            if offsets[n] >= first_offset:
                n += 1
        if at != end:
            return -1
    return n
