"""What Redis holds, by the documented layouts, read a second time and by other means.

The only place that knows names of keys and layouts of bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from zlib import crc32

SEPARATOR = "\x1f"
BUCKETS = 256
LAYOUT = 1
HEADER_BYTES = 61
STATE_HEADER_BYTES = 56
MARK = b"layout2\xff"
"""Follows the header in states that tell the size of their ring; others have their ring there."""

MARKED_HEADER_BYTES = 80
CLOSED_FILL = -1
"""The `fill` of an entity that is closed."""

NO_SEQ = -(2**63)

Origin = tuple[bytes, int, int, int]
"""(topic id, partition, offset, index)"""


class Corrupt(Exception):
    """Bytes that no worker writes; says why."""


@dataclass(frozen=True)
class PackedRow:
    """The row that is served; `features` are the bytes of the values, big-endian doubles."""

    schema: int
    event_time: int
    sequence: int
    known_at: int
    origin: Origin
    status: bytes
    features: bytes


@dataclass(frozen=True)
class PackedTick:
    event_time: int
    tick_time: int
    seq: int | None
    fields: bytes


@dataclass(frozen=True)
class PackedState:
    """The window state: the newest tick's origin and sequence, `count` ticks ever, `fill` since the
    last reset (or `CLOSED_FILL`), and the ring of `room` ticks as bytes, of which the `held` newest
    are there."""

    origin: Origin
    sequence: int
    count: int
    fill: int
    room: int
    held: int
    ring: bytes

    def tick(self, back: int, fields: int) -> PackedTick:
        """The tick before `back` others, little-endian: event time, ts, seq, fields."""
        size = 24 + 8 * fields
        at = (self.count - 1 - back) % self.room * size
        piece = self.ring[at : at + size]
        if len(piece) < size or back >= self.held:
            raise Corrupt(f"of {self.count} ticks the ring does not hold the last but {back}")
        event_time, tick_time, seq = struct.unpack_from("<qqq", piece)
        return PackedTick(event_time, tick_time, None if seq == NO_SEQ else seq, piece[24:])


def read_row(packed: bytes) -> PackedRow:
    """Raises `Corrupt`."""
    features, rest = divmod(len(packed) - HEADER_BYTES, 9)
    if features < 0 or rest:
        raise Corrupt(f"{len(packed)} bytes are no row")
    if packed[0] != LAYOUT:
        raise Corrupt(f"layout {packed[0]}, not {LAYOUT}")
    schema, event_time, sequence, known_at = struct.unpack_from(">Iqqq", packed, 1)
    return PackedRow(
        schema=schema,
        event_time=event_time,
        sequence=sequence,
        known_at=known_at,
        origin=_origin(packed[29:61]),
        status=packed[61 : 61 + features],
        features=packed[61 + features :],
    )


def read_state(packed: bytes, history: int) -> PackedState:
    """`history` is the room of a ring that does not tell it. Raises `Corrupt`."""
    if len(packed) < STATE_HEADER_BYTES:
        raise Corrupt(f"{len(packed)} bytes are no state")
    sequence, count, fill = struct.unpack_from(">qqq", packed, 32)
    room, held, ring = history, min(count, history), packed[STATE_HEADER_BYTES:]
    if ring.startswith(MARK):
        if len(packed) < MARKED_HEADER_BYTES:
            raise Corrupt(f"{len(packed)} bytes are no marked state")
        room, _, held = struct.unpack_from(">IIq", packed, 64)
        ring = packed[MARKED_HEADER_BYTES:]
    if room < 1:
        raise Corrupt(f"a ring of {room} ticks")
    return PackedState(_origin(packed[:32]), sequence, count, fill, room, held, ring)


def doubles(values: Sequence[float]) -> bytes:
    """The bytes of feature values, as in a row."""
    return struct.pack(f">{len(values)}d", *values)


def little_doubles(values: Sequence[float]) -> bytes:
    """The bytes of a tick's fields, as in a ring."""
    return struct.pack(f"<{len(values)}d", *values)


def entity_name(entity: Sequence[str]) -> str:
    return SEPARATOR.join(entity)


def shown(entity: str) -> str:
    """An entity as people read it."""
    return "/".join(entity.split(SEPARATOR))


def row_key(source: str, entity: str) -> str:
    return _key("row", source, entity)


def state_key(source: str, entity: str) -> str:
    return _key("state", source, entity)


def members_key(source: str, message_key: str) -> str:
    return _key("members", source, message_key)


def closed_key(source: str, group: str) -> str:
    return _key("closed", source, group)


def watermark_key(topic_id: bytes, partition: int) -> str:
    return f"tw:watermark:{topic_id.hex()}:{partition}"


def split_member(entity: str) -> tuple[str, str]:
    """(message key, what the members set holds of the entity: "" where the key is all)."""
    message_key, _, member = entity.partition(SEPARATOR)
    return message_key, member


def groups_of(entity: str) -> list[str]:
    """The beginnings of an entity's name, without the whole."""
    parts = entity.split(SEPARATOR)
    return [SEPARATOR.join(parts[:many]) for many in range(1, len(parts))]


def read_close(packed: bytes, message_key: str) -> tuple[int, str]:
    """(event time, entity) of the last close under a message key. Raises `Corrupt`."""
    if len(packed) <= 8:
        raise Corrupt(f"{len(packed)} bytes are no close")
    member = packed[8:].decode("utf-8", "replace")
    return struct.unpack_from(">q", packed)[0], SEPARATOR.join([message_key, member])


def _key(kind: str, source: str, entity: str) -> str:
    bucket = crc32(entity.split(SEPARATOR, 1)[0].encode()) % BUCKETS
    return f"tw:{{b{bucket}}}:{kind}:{source}:{entity}"


def _origin(packed: bytes) -> Origin:
    partition, offset, index = struct.unpack_from(">iqi", packed, 16)
    return packed[:16], partition, offset, index
