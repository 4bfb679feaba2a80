"""The packed row: what Redis holds for an entity and a source.

offset  size  what (big-endian)
     0     1  layout version, 1
     1     4  row schema id, u32
     5     8  event time, i64, nanoseconds UTC
    13     8  sequence, i64
    21     8  known at, i64, nanoseconds UTC
    29    32  origin: topic id 16, partition i32, offset i64, index i32
    61     k  feature status, a byte each
  61+k    8k  feature values, f64 each; NaN where the status says there is no value
"""

from __future__ import annotations

import struct
from enum import IntEnum

from msgspec import Struct

from registry.errors import CorruptRow
from registry.formats.origin import Origin

LAYOUT = 1
HEADER = struct.Struct(">BIqqq16siqi")


class ValueStatus(IntEnum):
    """What a stored value says of itself; age and lag are judged by who reads it."""

    OK = 0
    WARMING = 1
    UNDEFINED = 2


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
    header = HEADER.pack(
        LAYOUT,
        row.schema_id,
        row.event_time,
        row.sequence,
        row.known_at,
        row.origin.topic_id,
        row.origin.partition,
        row.origin.offset,
        row.origin.index,
    )
    return header + row.status + struct.pack(f">{len(row.values)}d", *row.values)


def unpack(packed: bytes) -> Row:
    """The row of its bytes.

    Raises `CorruptRow` where the length or the layout version is not one that `pack` makes.
    """
    features, rest = divmod(len(packed) - HEADER.size, 9)
    if features < 0 or rest or packed[0] != LAYOUT:
        raise CorruptRow(packed[:64])
    _, schema_id, event_time, sequence, known_at, *origin = HEADER.unpack_from(packed)
    values_at = HEADER.size + features
    return Row(
        schema_id=schema_id,
        event_time=event_time,
        sequence=sequence,
        known_at=known_at,
        origin=Origin(*origin),
        status=packed[HEADER.size : values_at],
        values=struct.unpack_from(f">{features}d", packed, values_at),
    )
