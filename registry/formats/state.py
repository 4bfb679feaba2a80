"""The window state of an entity: one string of Redis, a header and a ring of ticks.

Tick number o of the entity, counted from 0 since it was first seen, stands at o % `room` in the
ring.

In the layout before this one the header ended before the mark, and the ring's room was that of the
reader. The eight bytes of the mark are then an event time, and none is so large: the two layouts
cannot be taken for each other. The room of an old ring follows from the length of the string,
because it was never larger than the ticks that were written, nor smaller unless it had wrapped.
"""

from __future__ import annotations

from functools import lru_cache

from registry.formats.layout import Field, Layout
from registry.formats.origin import ORIGIN

MARK = b"layout2\xff"
"""The mark of this layout. As an event time, which is little-endian, it is below zero."""

CLOSED = -1
"""The `fill` of an entity that was closed and has had no trade since; a reset leaves it closed."""

CLOSED_BYTES = CLOSED.to_bytes(8, "big", signed=True)
"""`CLOSED` as the header has it."""

STATE_HEADER = Layout(
    *ORIGIN.fields,  # of the newest accepted tick
    Field("sequence", "i8"),  # of the same tick
    Field("count", "i8"),  # how many ticks were ever accepted
    Field("fill", "i8"),  # how many were accepted since the last reset, or `CLOSED`
    Field("mark", "V8"),
    Field("room", "u4"),  # ticks that the ring has room for
    Field("tick_bytes", "u4"),  # the size of a tick
    Field("held", "i8"),  # how many ticks the ring holds, the newest ones
)


@lru_cache
def tick_layout(fields: int) -> Layout:
    """The layout of a tick in the ring, of a source with so many fields; little-endian.

    `event_time` is the time at which the tick counts, `tick_time` the one that it carried; both are
    nanoseconds UTC.
    """
    return Layout(
        Field("event_time", "i8"),
        Field("tick_time", "i8"),
        Field("seq", "i8"),
        Field("fields", "f8", fields),
        order="<",
    )
