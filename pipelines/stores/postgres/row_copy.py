"""Rows of a batch into PostgreSQL, in its binary COPY format.

    row = number of columns, entity, seq, seq_text (of varying size), the rest, which is of one size

The rest is one numpy array of big-endian records: arrays of a source's fields and a schema's
features have a fixed length, and an absent number is NaN. A compiled pass joins the two. Rows are
copied in the order of the primary key, so that its index grows in few of its pages.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any, NamedTuple

import numba
import numpy as np

from pipelines.compute.batch import Batch
from pipelines.runtime.array_types import Bytes, Int32s, Int64s
from pipelines.runtime.machine_code import compiled
from pipelines.runtime.named_columns import numba_type
from pipelines.ticks.columns import NO_SEQ
from registry.resources import sql

CREATE = sql(__package__, "staging")
COLUMNS = (
    "entity, seq, seq_text, schema_id, event_time, sequence, revision, tick_time, op, fields,"
    ' features, status, known_at, topic_id, partition, "offset", index'
)
COPY = f"COPY tickwell.feature_rows ({COLUMNS}) FROM STDIN (FORMAT binary)"
STAGE = f"COPY pg_temp.staging_rows ({COLUMNS}) FROM STDIN (FORMAT binary)"

N_COLUMNS = 17
HEADER = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
TRAILER = b"\xff\xff"
FLOAT8_OID = 701
NULL = -1
"""The size of a null."""
CHUNK_BYTES = 1 << 20
"""Bytes that psycopg2 sends at a time; between two chunks it waits for the interpreter's lock."""

Column = tuple[Any, ...]


def copy_rows(cursor: Any, rows: memoryview) -> None:
    """Copy the rows of a batch, as `copy_bytes` packs them, into the table.

    Raises psycopg2's `UniqueViolation` where one exists already.
    """
    cursor.copy_expert(COPY, BytesIO(rows), CHUNK_BYTES)


def stage_rows(cursor: Any, rows: memoryview) -> None:
    """Copy the same into a staging table, which is gone when the transaction ends."""
    cursor.execute(CREATE)
    cursor.copy_expert(STAGE, BytesIO(rows), CHUNK_BYTES)


def copy_bytes(batch: Batch) -> memoryview:
    """The rows of a batch in binary COPY format, by entity and then in the batch's order."""
    names = batch.names.encoded()
    rank = np.empty(len(names), np.int32)
    rank[sorted(range(len(names)), key=names.__getitem__)] = np.arange(len(names), dtype=np.int32)
    order = np.argsort(rank[batch.name], kind="stable")
    texts, ends = np.frombuffer(bytearray(batch.names.data), np.uint8), batch.names.ends
    rest = _rest(batch, order)
    name, seq, seq_text = batch.name[order], batch.seq[order], batch.seq_text[order]
    size = len(HEADER) + len(TRAILER) + len(batch) * (22 + rest.shape[1])
    size += int((ends[name + 1] - ends[name]).sum() + (seq_text[:, 1] - seq_text[:, 0]).sum())
    copied = np.empty(size, np.uint8)
    copied[: len(HEADER)] = np.frombuffer(HEADER, np.uint8)
    varying = Varying(name, texts, ends, seq, batch.texts, seq_text)
    end = _assemble(varying, rest, copied, len(HEADER))
    copied[end : end + len(TRAILER)] = np.frombuffer(TRAILER, np.uint8)
    packed: memoryview = copied[: end + len(TRAILER)].data
    return packed


def _rest(batch: Batch, order: Any) -> Bytes:
    """The columns of fixed size, (n, bytes of a row)."""
    fields, features = batch.fields.shape[1], batch.features.shape[1]
    layout = [
        *sized("schema_id", ">i4"),
        *sized("event_time", ">i8"),
        *sized("sequence", ">i8"),
        *sized("revision", ">i2"),
        *sized("tick_time", ">i8"),
        *sized("op", ">i2"),
        *array_of("fields", fields),
        *array_of("features", features),
        ("status_size", ">i4"),
        ("status", "u1", (features,)),
        *sized("known_at", ">i8"),
        *sized("topic_id", "V16"),
        *sized("partition", ">i4"),
        *sized("offset", ">i8"),
        *sized("index", ">i4"),
    ]
    rows = np.zeros(len(batch), np.dtype(layout))
    columns: dict[str, Any] = {
        "schema_id": batch.schema.id,
        "event_time": batch.event_time[order],
        "sequence": batch.sequence[order],
        "revision": 0,
        "tick_time": batch.tick_time[order],
        "op": batch.op[order],
        "known_at": batch.known_at[order],
        "topic_id": np.void(batch.run.topic_id),
        "partition": batch.run.partition,
        "offset": batch.offset[order],
        "index": batch.index[order],
    }
    for name, column in columns.items():
        rows[f"{name}_size"] = rows.dtype[name].itemsize
        rows[name] = column
    for name, values in (("fields", batch.fields), ("features", batch.features)):
        rows[f"{name}_size"] = 20 + 12 * values.shape[1]
        rows[f"{name}_dimensions"] = 1
        rows[f"{name}_oid"] = FLOAT8_OID
        rows[f"{name}_length"] = values.shape[1]
        rows[f"{name}_lower"] = 1
        rows[name]["size"] = 8
        rows[name]["value"] = values[order]
    rows["status_size"] = features
    rows["status"] = batch.status[order]
    return rows.view(np.uint8).reshape(len(batch), rows.itemsize)


def sized(name: str, kind: str) -> list[Column]:
    """A value of a fixed size, as dtype fields: its size, and itself."""
    return [(f"{name}_size", ">i4"), (name, kind)]


def array_of(name: str, length: int) -> list[Column]:
    """A one-dimensional float8[] without nulls, as `array_recv` reads it."""
    return [
        (f"{name}_size", ">i4"),
        (f"{name}_dimensions", ">i4"),
        (f"{name}_has_nulls", ">i4"),
        (f"{name}_oid", ">u4"),
        (f"{name}_length", ">i4"),
        (f"{name}_lower", ">i4"),
        (name, [("size", ">i4"), ("value", ">f8")], (length,)),
    ]


@compiled()
def _big_endian(out, byte_offset, value, size):  # type: ignore[no-untyped-def]
    """Write an integer of `size` bytes at `byte_offset`; returns the byte offset of its end."""
    for i in range(size):
        out[byte_offset + i] = (value >> (8 * (size - 1 - i))) & 0xFF
    return byte_offset + size


class Varying(NamedTuple):
    """The columns of varying size, by row; the entity is `name`, whose texts end at `ends`."""

    name: Int32s
    texts: Bytes
    ends: Int64s
    seq: Int64s
    seq_texts: Bytes
    seq_text: Int64s
    """Begin and end in `seq_texts`, both 0 for none."""


NOTHING = np.zeros(1, np.int64)
VARYING = numba_type(
    Varying(
        NOTHING.astype(np.int32),
        NOTHING.astype(np.uint8),
        NOTHING,
        NOTHING,
        NOTHING.astype(np.uint8),
        np.zeros((1, 2), np.int64),
    )
)


@compiled()
def _text(out, byte_offset, texts, first, last):  # type: ignore[no-untyped-def]
    """Write a text with its size; returns the byte offset of its end."""
    byte_offset = _big_endian(out, byte_offset, last - first, 4)
    for i in range(first, last):
        out[byte_offset] = texts[i]
        byte_offset += 1
    return byte_offset


@compiled((VARYING, numba.uint8[:, ::1], numba.uint8[::1], numba.int64))
def _assemble(varying, rest, out, byte_offset):  # type: ignore[no-untyped-def]
    """Write the rows from `byte_offset` on; returns the byte offset of the last one's end."""
    name, ends, seq_text = varying.name, varying.ends, varying.seq_text
    for row in range(name.shape[0]):
        byte_offset = _big_endian(out, byte_offset, N_COLUMNS, 2)
        first, last = ends[name[row]], ends[name[row] + 1]
        byte_offset = _text(out, byte_offset, varying.texts, first, last)
        if varying.seq[row] == NO_SEQ:
            byte_offset = _big_endian(out, byte_offset, NULL, 4)
        else:
            byte_offset = _big_endian(out, byte_offset, 8, 4)
            byte_offset = _big_endian(out, byte_offset, varying.seq[row], 8)
        if seq_text[row, 1] == 0:
            byte_offset = _big_endian(out, byte_offset, NULL, 4)
        else:
            byte_offset = _text(
                out, byte_offset, varying.seq_texts, seq_text[row, 0], seq_text[row, 1]
            )
        for i in range(rest.shape[1]):
            out[byte_offset + i] = rest[row, i]
        byte_offset += rest.shape[1]
    return byte_offset
