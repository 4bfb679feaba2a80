"""Which schema a message was written in: what the serializers of a schema registry put before a
value, or into a header.

    0, schema id (4 bytes, big-endian)                 before the value; both forms may also be
    1, the schema's GUID (16 bytes)                    the value of the header `__value_schema_id`
    … and for Protobuf: how many indexes, and the index of the message type in its file, then of the
      one nested in it, and so on, as zig-zag varints; none stands for the first type of the file

The form is Confluent's; Karapace, Redpanda and Apicurio write the first one.
"""

from __future__ import annotations

from typing import NamedTuple
from uuid import UUID

from pipelines.ticks import rejection_reasons as reasons
from pipelines.ticks.message_elements import Rejected

SCHEMA_HEADER = "__value_schema_id"
ID, GUID = 0, 1
ID_END, GUID_END = 5, 17
"""Bytes of a frame up to, and with, the schema's name."""

MOST_INDEXES = 32
"""Types nested in each other: far more than anybody writes."""

SchemaName = int | UUID
"""The id or the GUID of a schema: either names one schema for ever."""


class Frame(NamedTuple):
    """The schema of a message, the Protobuf type in it, and where the encoded value begins."""

    schema: SchemaName
    indexes: tuple[int, ...]
    begin: int


def frame_of(value: bytes, header: bytes | None, *, has_indexes: bool) -> Frame:
    """The frame of a message; `header` is its header `__value_schema_id`, which wins.

    Raises `Rejected` where neither names a schema.
    """
    begin_of_frame = value if header is None else header
    frame = _read(begin_of_frame, has_indexes=has_indexes)
    if frame is not None:
        return frame if header is None else frame._replace(begin=0)
    if header is not None:
        raise Rejected(
            reasons.MALFORMED,
            f"the header {SCHEMA_HEADER} ({len(header)} bytes) is neither 0 with a schema id nor "
            "1 with a GUID",
        )
    raise Rejected(
        reasons.MALFORMED,
        "names no schema: it does not begin as the serializers of a schema registry write, and has "
        f"no header {SCHEMA_HEADER}; plain JSON is read by a source without `format`",
    )


def _read(frame: bytes, *, has_indexes: bool) -> Frame | None:
    name: SchemaName
    if frame[:1] == bytes([ID]) and len(frame) >= ID_END:
        name, begin = int.from_bytes(frame[1:ID_END], "big"), ID_END
    elif frame[:1] == bytes([GUID]) and len(frame) >= GUID_END:
        name, begin = UUID(bytes=frame[1:GUID_END]), GUID_END
    else:
        return None
    if not has_indexes:
        return Frame(name, (), begin)
    indexes, begin = _indexes(frame, begin)
    if min(indexes) < 0:
        raise Rejected(
            reasons.MALFORMED,
            f"names schema {name}, and no type in it as serializers of today do; older ones can be "
            "set to do so: `use.deprecated.format` is to be false",
        )
    return Frame(name, indexes, begin)


def _indexes(frame: bytes, begin: int) -> tuple[tuple[int, ...], int]:
    """The indexes of a Protobuf type, and where they end; one below 0 where there are none."""
    try:
        many, begin = _varint(frame, begin)
        if not 0 <= many <= MOST_INDEXES:
            return (-1,), begin
        indexes = []
        for _ in range(many):
            index, begin = _varint(frame, begin)
            indexes.append(index)
    except IndexError:
        return (-1,), begin
    return tuple(indexes) or (0,), begin


def _varint(frame: bytes, begin: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 64:
        byte = frame[begin]
        begin += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value >> 1 ^ -(value & 1), begin
        shift += 7
    raise IndexError
