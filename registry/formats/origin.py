"""The origin of a tick: where it stands in the log."""

from __future__ import annotations

from msgspec import Struct

from registry.formats.layout import Field, Layout

ORIGIN = Layout(
    Field("topic_id", "V16"),
    Field("partition", "i4"),
    Field("offset", "i8"),
    Field("index", "i4"),
)


class Origin(Struct, frozen=True, order=True):
    """Where a tick stands in the log: `index` counts the ticks of an array message from 0.

    Of a message that is one tick it is 0.
    """

    topic_id: bytes
    partition: int
    offset: int
    index: int

    def pack(self) -> bytes:
        """The 32 bytes that stores keep (`ORIGIN`)."""
        return ORIGIN.struct.pack(self.topic_id, self.partition, self.offset, self.index)

    @classmethod
    def unpack(cls, packed: bytes) -> Origin:
        """The inverse of `pack`."""
        return cls(*ORIGIN.struct.unpack(packed))
