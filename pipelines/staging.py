"""Rows of a batch as PostgreSQL's binary COPY format, built by whole columns.

All rows of a batch are of one size: arrays of a source's fields and a schema's features have a
fixed length, an absent number is NaN, and the entity is its place in the batch's names. So the
copy is one numpy array of big-endian records.
"""

from __future__ import annotations

from importlib.resources import files
from io import BytesIO
from typing import Any

import numpy as np

from pipelines.runs import Batch

CREATE = files("pipelines").joinpath("sql/staging.sql").read_text("utf-8")
COPY = "COPY pg_temp.staging_rows FROM STDIN (FORMAT binary)"

HEADER = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
TRAILER = b"\xff\xff"
FLOAT8_OID = 701

Column = tuple[str, str, int]


def stage(cursor: Any, batch: Batch) -> None:
    """Copy the rows of a batch into the session's staging table, in place of what it held."""
    cursor.execute(CREATE)
    cursor.execute("TRUNCATE pg_temp.staging_rows")
    cursor.copy_expert(COPY, BytesIO(copy_bytes(batch)))


def copy_bytes(batch: Batch) -> bytes:
    """The rows of a batch in binary COPY format."""
    numbers: list[tuple[str, str, Any]] = [
        ("name", ">i4", batch.name),
        ("event_time", ">i8", batch.event_time),
        ("sequence", ">i8", batch.sequence),
        ("tick_time", ">i8", batch.tick_time),
        ("seq", ">i8", batch.seq),
        ("op", ">i2", batch.op),
        ("known_at", ">i8", batch.known_at),
        ("offset", ">i8", batch.offset),
        ("index", ">i4", batch.index),
    ]
    fields, features = batch.fields.shape[1], batch.features.shape[1]
    scalar = {name: kind for name, kind, _ in numbers}
    layout: list[tuple[Any, ...]] = [("columns", ">i2")]
    order = ["name", "event_time", "sequence", "tick_time", "seq", "op"]
    layout += [part for name in order for part in _sized(name, scalar[name])]
    layout += _array("fields", fields) + _array("features", features)
    layout += [("status_size", ">i4"), ("status", "u1", (features,))]
    layout += [
        part for name in ("known_at", "offset", "index") for part in _sized(name, scalar[name])
    ]

    rows = np.zeros(len(batch), np.dtype(layout))
    rows["columns"] = 12
    for name, kind, column in numbers:
        rows[f"{name}_size"] = np.dtype(kind).itemsize
        rows[name] = column
    for name, values in (("fields", batch.fields), ("features", batch.features)):
        rows[f"{name}_size"] = 20 + 12 * values.shape[1]
        rows[f"{name}_dimensions"] = 1
        rows[f"{name}_oid"] = FLOAT8_OID
        rows[f"{name}_length"] = values.shape[1]
        rows[f"{name}_lower"] = 1
        rows[name]["size"] = 8
        rows[name]["value"] = values
    rows["status_size"] = features
    rows["status"] = batch.status
    return HEADER + rows.tobytes() + TRAILER


def _sized(name: str, kind: str) -> list[tuple[Any, ...]]:
    return [(f"{name}_size", ">i4"), (name, kind)]


def _array(name: str, length: int) -> list[tuple[Any, ...]]:
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
