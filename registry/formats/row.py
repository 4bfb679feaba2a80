"""The packed row: what Redis holds for an entity and a source."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from enum import IntEnum
from functools import lru_cache

from msgspec import Struct

from registry.errors import CorruptRow
from registry.formats.layout import Field, Layout
from registry.formats.origin import ORIGIN, Origin

LAYOUT_VERSION = 1

HEADER = Layout(
    Field("layout_version", "u1"),
    Field("schema_id", "u4"),
    Field("event_time", "i8"),  # nanoseconds UTC
    Field("sequence", "i8"),
    Field("known_at", "i8"),  # nanoseconds UTC
    *ORIGIN.fields,
)


@lru_cache
def row_layout(features: int) -> Layout:
    """The layout of a row with so many features: the header, their statuses, their values.

    A status is a `ValueStatus`. A value is NaN where the status says that there is none.
    """
    return Layout(*HEADER.fields, Field("status", "u1", features), Field("values", "f8", features))


SCHEMA_END = HEADER.offset("event_time")
"""Rows whose first bytes up to here are equal are of the same layout and row schema."""


def some_features(features: int, indexes: Iterable[int]) -> struct.Struct:
    """Unpacks a part of a row with so many features, and refuses a row of another size.

    Gives the event time, then the statuses, then the values of the features at `indexes`, which
    ascend.
    """
    layout, chosen = row_layout(features), list(indexes)
    first_status, first_value = layout.offset("status"), layout.offset("values")
    wanted = [(SCHEMA_END, "q", 8), *((first_status + i, "B", 1) for i in chosen)]
    wanted += [(first_value + 8 * i, "d", 8) for i in chosen]
    end, codes = 0, str(layout.order)
    for begin, code, size in wanted:
        codes += f"{begin - end}x{code}"
        end = begin + size
    return struct.Struct(f"{codes}{layout.size - end}x")


FEATURE_BYTES = row_layout(1).size - HEADER.size
"""Bytes of a row for each feature: its status and its value."""


class ValueStatus(IntEnum):
    """The status of a stored value. Age and lag come on top of it when the value is read."""

    OK = 0
    WARMING = 1
    UNDEFINED = 2
    CLOSED = 3
    """The entity was closed and has had no trade since; all values of such a row have it."""


def is_closed(status: bytes) -> bool:
    """Whether a row with these statuses, in whatever row schema, is of an entity that is closed."""
    return status[:1] == bytes([ValueStatus.CLOSED])


class Row(Struct, frozen=True):
    """A row as it is served. `status[i]` and `values[i]` belong to feature i of the schema."""

    schema_id: int
    event_time: int
    sequence: int
    known_at: int
    origin: Origin
    status: bytes
    values: tuple[float, ...]


def pack(row: Row) -> bytes:
    """The bytes of a row."""
    return row_layout(len(row.values)).struct.pack(
        LAYOUT_VERSION,
        row.schema_id,
        row.event_time,
        row.sequence,
        row.known_at,
        row.origin.topic_id,
        row.origin.partition,
        row.origin.offset,
        row.origin.index,
        row.status,
        *row.values,
    )


def unpack(packed: bytes) -> Row:
    """The row of its bytes.

    Raises `CorruptRow` where the length or the layout version is not one that `pack` makes.
    """
    features, rest = divmod(len(packed) - HEADER.size, FEATURE_BYTES)
    if features < 0 or rest or packed[0] != LAYOUT_VERSION:
        raise CorruptRow(packed[:64])
    fields = row_layout(features).struct.unpack(packed)
    _, schema_id, event_time, sequence, known_at, topic_id, partition, offset, index = fields[:9]
    return Row(
        schema_id=schema_id,
        event_time=event_time,
        sequence=sequence,
        known_at=known_at,
        origin=Origin(topic_id, partition, offset, index),
        status=fields[9],
        values=fields[10:],
    )
