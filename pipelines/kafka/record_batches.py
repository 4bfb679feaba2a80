"""Kafka's record batches, format 2: headers by `struct`, the records in them by a compiled pass.

No object is made of a record. A run needs its offset, its timestamp, and the ranges of its key and
its value in the decompressed bytes:

    record = length, attributes, timestamp delta, offset delta, key, value, headers

all of them zig-zag varints except the attributes, which are a byte. The formats before 2 (of
producers older than Kafka 0.11) are refused; brokers have not written them since 4.0.
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
LENGTH_OFFSET = 8
"""Byte offset of the length in a batch."""

CHECKED_OFFSET = 21
"""Byte offset from which the checksum counts."""

UNCOUNTED_BYTES = 12
"""Bytes of a batch that its length does not count."""

CODECS = {1: codec.gzip_decode, 2: codec.snappy_decode, 3: codec.lz4_decode, 4: codec.zstd_decode}
LOG_APPEND_TIME, TRANSACTIONAL, CONTROL = 0x08, 0x10, 0x20
"""Bits of a batch's attributes."""

SMALLEST_RECORD = 7
"""Bytes of the smallest record, by which the number of records in a header is checked."""

NONE = -1
"""The begin of a key or a value that is null, and the append time of a batch without one."""


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


def batch_end(fetched: memoryview, begin: int) -> int | None:
    """The byte offset at which the record batch at `begin` ends, None when it is cut off."""
    if len(fetched) - begin < HEADER.size:
        return None
    (length,) = LENGTH.unpack_from(fetched, begin + LENGTH_OFFSET)
    end: int = begin + UNCOUNTED_BYTES + length
    return end if end <= len(fetched) else None


def next_batch(fetched: memoryview, begin: int) -> tuple[RecordBatch, int]:
    """The whole record batch at byte offset `begin`, and the byte offset of the next one.

    Raises `CorruptRecordException` for a wrong checksum and for a format before 2.
    """
    end = batch_end(fetched, begin)
    assert end is not None, "called only for a whole batch"
    (base, _, _, magic, checksum, attributes, delta, first, newest, producer, _, _, count) = (
        HEADER.unpack_from(fetched, begin)
    )
    if magic != 2:
        raise CorruptRecordException(
            f"the record batch at offset {base} has format {magic}: only 2 is read, which clients "
            "write since Kafka 0.11"
        )
    if calc_crc32c(fetched[begin + CHECKED_OFFSET : end]) != checksum:
        raise CorruptRecordException(f"the record batch at offset {base} has a wrong checksum")
    return RecordBatch(
        base_offset=base,
        next_offset=base + delta + 1,
        attributes=attributes,
        first_timestamp=first,
        newest_timestamp=newest,
        producer_id=producer,
        count=count,
        payload=fetched[begin + HEADER.size : end],
    ), end


@dataclass(frozen=True, slots=True)
class Records:
    """The records of some batches as columns of length n.

    `keys` and `values` are (n, 2): begin and end in `data`; the begin of null is `NONE`. Timestamps
    are milliseconds UTC.
    """

    data: Bytes
    offsets: Int64s
    timestamps: Int64s
    keys: Int64s
    values: Int64s


def index(batches: Sequence[RecordBatch], first_offset: int) -> Records:
    """The records of batches from `first_offset` on. Raises `CorruptRecordException`."""
    pieces = [batch.records() for batch in batches]
    data = np.frombuffer(bytearray().join(pieces), np.uint8)
    headers = np.empty((len(batches), 5), np.int64)
    headers[:, END] = np.cumsum([len(piece) for piece in pieces], dtype=np.int64)
    headers[:, COUNT] = [batch.count for batch in batches]
    headers[:, BASE_OFFSET] = [batch.base_offset for batch in batches]
    headers[:, FIRST_TIMESTAMP] = [batch.first_timestamp for batch in batches]
    headers[:, APPEND_TIME] = [
        batch.newest_timestamp if batch.attributes & LOG_APPEND_TIME else NONE for batch in batches
    ]
    n = int(headers[:, COUNT].sum())
    if (headers[:, COUNT] < 0).any() or n * SMALLEST_RECORD > len(data):
        raise CorruptRecordException(f"{n} records cannot be in {len(data)} bytes")
    columns = [np.empty(shape, np.int64) for shape in (n, n, (n, 2), (n, 2))]
    kept = _index(data, headers, first_offset, *columns)
    if kept < 0:
        raise CorruptRecordException(f"a record after offset {batches[0].base_offset} is broken")
    return Records(data, *(column[:kept] for column in columns))


END, COUNT, BASE_OFFSET, FIRST_TIMESTAMP, APPEND_TIME = range(5)
"""Columns of the headers of batches, as compiled code takes them: the end of the records in the
data, their number, the base offset, and milliseconds UTC, `NONE` for records with times of their
own."""


@compiled()
def _varint(data, begin, end):  # type: ignore[no-untyped-def]
    """A zig-zag varint and where it ends; an end past `end` when it is cut off or too long."""
    value = np.uint64(0)
    shift = np.uint64(0)
    while begin < end and shift < np.uint64(64):
        byte = np.uint64(data[begin])
        begin += 1
        value |= (byte & np.uint64(0x7F)) << shift
        if byte < np.uint64(0x80):
            return np.int64(value >> np.uint64(1)) ^ -np.int64(value & np.uint64(1)), begin
        shift += np.uint64(7)
    return 0, end + 1


@compiled()
def _range(data, begin, end, ranges, n):  # type: ignore[no-untyped-def]
    """Note the range of a key or a value; returns where it ends, past `end` when it is cut off."""
    length, begin = _varint(data, begin, end)
    if length < 0:
        ranges[n, 0], ranges[n, 1] = NONE, NONE
        return begin
    if begin > end or length > end - begin:
        return end + 1
    ranges[n, 0], ranges[n, 1] = begin, begin + length
    return begin + length


@compiled(
    "int64(uint8[::1], int64[:,::1], int64, int64[::1], int64[::1], int64[:,::1], int64[:,::1])"
)
def _index(data, headers, first_offset, offsets, timestamps, keys, values):  # type: ignore[no-untyped-def]
    """Fill the columns of the records from `first_offset` on; returns how many, -1 when broken."""
    n = 0
    cursor = 0
    for batch in range(headers.shape[0]):
        end = headers[batch, END]
        base = headers[batch, BASE_OFFSET]
        first_timestamp = headers[batch, FIRST_TIMESTAMP]
        append_time = headers[batch, APPEND_TIME]
        for _ in range(headers[batch, COUNT]):
            length, cursor = _varint(data, cursor, end)
            if cursor > end or length < 0 or length > end - cursor:
                return -1
            record_end = cursor + length
            delta, cursor = _varint(data, cursor + 1, record_end)
            offset, cursor = _varint(data, cursor, record_end)
            cursor = _range(data, cursor, record_end, keys, n)
            cursor = _range(data, cursor, record_end, values, n)
            if cursor > record_end:
                return -1
            cursor = record_end  # the headers of a record are not used
            offsets[n] = base + offset
            timestamps[n] = first_timestamp + delta
            if append_time != NONE:
                timestamps[n] = append_time
            # A fetch returns whole batches: the first may begin before the offset that was wanted.
            if offsets[n] >= first_offset:
                n += 1
        if cursor != end:
            return -1
    return n
