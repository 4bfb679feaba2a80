"""What Redis holds, by the documented layouts, read a second time and by other means.

The only place that knows names of keys and layouts of bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from zlib import crc32

SEPARATOR = "\x1f"
BUCKETS = 256
"""Buckets of a cluster; a single server has one."""

LAYOUT = 1
HEADER_BYTES = 61
STATE_LAYOUT = 3
STATE_HEADER_BYTES = 72
BLOCK = 8
"""Ticks of a block."""

MOST_BLOCKS = 32
"""Blocks of the largest chunk."""

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
    tick_time: int
    seq: int | None
    fields: bytes


@dataclass(frozen=True)
class PackedState:
    """The window state: the newest tick's origin, sequence and event time, `count` ticks ever,
    `fill` since the last reset (or `CLOSED_FILL`), the block before which no chunk ends, and the
    newest ticks as bytes."""

    origin: Origin
    count: int
    sequence: int
    event_time: int
    fill: int
    first_block: int
    tail: bytes

    @property
    def blocks(self) -> int:
        """Blocks before the tail."""
        return (self.count - 1) // BLOCK

    @property
    def chunk_names(self) -> range:
        """The blocks that chunks of this state may be named by."""
        return range(self.first_block + 1, self.blocks + 1)


@dataclass(frozen=True)
class Chain:
    """The chunks that a state leads to: the blocks that they are named by, and all ticks as bytes,
    oldest first, with those of the tail."""

    names: frozenset[int]
    ticks: bytes

    def tick(self, back: int, fields: int) -> PackedTick:
        """The tick before `back` others, little-endian: ts, seq, fields. Raises `Corrupt`."""
        size = tick_bytes(fields)
        begin = len(self.ticks) - (back + 1) * size
        if begin < 0:
            raise Corrupt(f"of {len(self.ticks) // size} ticks none is the last but {back}")
        piece = self.ticks[begin : begin + size]
        tick_time, seq = struct.unpack_from("<qq", piece)
        return PackedTick(tick_time, None if seq == NO_SEQ else seq, piece[16:])


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


def read_state(packed: bytes, fields: int) -> PackedState:
    """The state of an entity whose ticks have so many fields. Raises `Corrupt`."""
    if len(packed) < STATE_HEADER_BYTES:
        raise Corrupt(f"{len(packed)} bytes are no state")
    count, sequence, event_time, fill, first_block, serial, has, layout, unused = (
        struct.unpack_from(">qqqiIIBB2s", packed, 32)
    )
    if layout != STATE_LAYOUT:
        raise Corrupt(f"a state of layout {layout}, not {STATE_LAYOUT}")
    if has != fields:
        raise Corrupt(f"ticks of {has} fields, not {fields}")
    if serial or any(unused):
        raise Corrupt(f"serial {serial} and {unused!r} where nothing is yet")
    if count < 1:
        raise Corrupt(f"a state of {count} ticks")
    tail = packed[STATE_HEADER_BYTES:]
    ticks = (count - 1) % BLOCK + 1
    if len(tail) != ticks * tick_bytes(fields):
        raise Corrupt(f"{len(tail)} bytes are no tail of {ticks} ticks")
    return PackedState(_origin(packed[:32]), count, sequence, event_time, fill, first_block, tail)


def read_chain(state: PackedState, chunks: Mapping[int, bytes], fields: int) -> Chain:
    """Walks from the tail back to the first block that is kept. Raises `Corrupt`.

    `chunks` are by the block that they are named by: that before which they end.
    """
    block_bytes = BLOCK * tick_bytes(fields)
    names, pieces, block = set[int](), [state.tail], state.blocks
    while block > state.first_block:
        chunk = chunks.get(block)
        if chunk is None:
            raise Corrupt(f"no chunk ends before block {block}; {state.first_block} is kept")
        blocks, rest = divmod(len(chunk), block_bytes)
        if rest or not 1 <= blocks <= min(MOST_BLOCKS, block):
            raise Corrupt(f"{len(chunk)} bytes are no chunk that ends before block {block}")
        names.add(block)
        pieces.append(chunk)
        block -= blocks
    return Chain(frozenset(names), b"".join(reversed(pieces)))


def tick_bytes(fields: int) -> int:
    """Bytes of a tick that has so many fields."""
    return 16 + 8 * fields


def doubles(values: Sequence[float]) -> bytes:
    """The bytes of feature values, as in a row."""
    return struct.pack(f">{len(values)}d", *values)


def little_doubles(values: Sequence[float]) -> bytes:
    """The bytes of a tick's fields, as in a state."""
    return struct.pack(f"<{len(values)}d", *values)


def entity_name(entity: Sequence[str]) -> str:
    return SEPARATOR.join(entity)


def shown(entity: str) -> str:
    """An entity as people read it."""
    return "/".join(entity.split(SEPARATOR))


def bucket(entity: str, cluster: bool) -> int:
    """The bucket of an entity, by its message key."""
    return crc32(entity.split(SEPARATOR, 1)[0].encode()) % BUCKETS if cluster else 0


def rows_key(source: str, bucket: int) -> str:
    """The key of a hash of rows, by entity."""
    return f"tw:3:{{b{bucket}}}:rows:{source}"


def states_key(source: str, bucket: int) -> str:
    """The key of a hash of states, by entity."""
    return f"tw:3:{{b{bucket}}}:states:{source}"


def chunks_key(source: str, bucket: int) -> str:
    """The key of a hash of chunks, by `chunk_field`."""
    return f"tw:3:{{b{bucket}}}:chunks:{source}"


def chunk_field(entity: str, block: int) -> str:
    """The name of the chunk of an entity that ends before a block."""
    return f"{entity}{SEPARATOR}#{block}"


def split_chunk_field(field: str) -> tuple[str, int] | None:
    """The entity and the block of a chunk's name, None for what is no such name."""
    entity, _, block = field.rpartition(f"{SEPARATOR}#")
    return (entity, int(block)) if entity and block.isascii() and block.isdecimal() else None


def members_key(source: str, message_key: str) -> str:
    return f"tw:3:{{b{bucket(message_key, cluster=True)}}}:members:{source}:{message_key}"


def closed_key(source: str, group: str) -> str:
    return f"tw:3:{{b{bucket(group, cluster=True)}}}:closed:{source}:{group}"


def watermark_key(topic_id: bytes, partition: int) -> str:
    return f"tw:3:watermark:{topic_id.hex()}:{partition}"


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


def _origin(packed: bytes) -> Origin:
    partition, offset, index = struct.unpack_from(">iqi", packed, 16)
    return packed[:16], partition, offset, index
