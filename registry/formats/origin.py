"""Where a tick was in the log, as stores keep it.

offset  size  what (big-endian)
     0    16  topic id
    16     4  partition, i32
    20     8  offset, i64
    28     4  index in an array message, i32; 0 for a message that is one tick
"""

from __future__ import annotations

import struct

from msgspec import Struct

ORIGIN = struct.Struct(">16siqi")


class Origin(Struct, frozen=True, order=True):
    """Where a tick was in the log: `index` is its place in an array message, else 0."""

    topic_id: bytes
    partition: int
    offset: int
    index: int

    def pack(self) -> bytes:
        return ORIGIN.pack(self.topic_id, self.partition, self.offset, self.index)

    @classmethod
    def unpack(cls, packed: bytes) -> Origin:
        return cls(*ORIGIN.unpack(packed))
