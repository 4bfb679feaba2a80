"""The window state of an entity: its newest ticks in one value, and those before in chunks.

    state   `STATE_HEADER`, then the tail: 1 to 8 ticks, oldest first
    chunk   blocks of 8 ticks, oldest first; written once

An entity's accepted ticks are numbered from 0, and 8 of them are a block: tick o is in block
o // 8.
The tail holds what follows the last full block, or that block (`tail_of`), so it follows from the
count of ticks. A chunk is named by the number of its last block plus one, which is where the next
chunk, or the tail, begins; its size tells where it begins itself. So the chunks before a tail form
a chain that is walked backwards by names, and a chunk that is not of the chain is not looked at.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from registry.formats.layout import Field, Layout
from registry.formats.origin import ORIGIN

LAYOUT_VERSION = 3

BLOCK = 8
"""Ticks of a block."""

CHUNK_BLOCKS = 32
"""Blocks of the largest chunk."""

CLOSED = -1
"""The `fill` of an entity that was closed and has had no trade since; a reset leaves it closed."""

CLOSED_BYTES = CLOSED.to_bytes(4, "big", signed=True)
"""`CLOSED` as the header has it."""

MOST_FILL = 2**31 - 1
"""The greatest `fill` that is stored; no window is longer."""

STATE_HEADER = Layout(
    *ORIGIN.fields,  # of the newest accepted tick
    Field("count", "i8"),  # how many ticks were ever accepted, or a rebuild found
    Field("sequence", "i8"),  # of the newest tick
    Field("event_time", "i8"),  # the same, nanoseconds UTC
    Field("fill", "i4"),  # how many ticks were accepted since the last reset, or `CLOSED`
    Field("first_block", "u4"),  # no chunk ends with it or before it; the chain leads back to it
    Field("serial", "u4"),  # of the registry; 0 until it has one
    Field("fields", "u1"),  # how many fields a tick has
    Field("layout_version", "u1"),
    Field("unused", "V2"),
)

IDENTITY = Layout(*ORIGIN.fields, Field("count", "i8"))
"""What a state is recognised by: its packed origin and its count of ticks, the first bytes.

The origin alone would not do: a state that was rebuilt from Postgres has the same one, and its
ticks in other blocks.
"""


def tail_of(count: Any) -> Any:
    """How many of `count` ticks, at least 1 (an integer, or an array of them), are in the tail."""
    return (count - 1) % BLOCK + 1


@lru_cache
def tick_layout(fields: int) -> Layout:
    """The layout of a tick of a source with so many fields; little-endian.

    `tick_time` is the time that it carried, nanoseconds UTC.
    """
    return Layout(
        Field("tick_time", "i8"),
        Field("seq", "i8"),
        Field("fields", "f8", fields),
        order="<",
    )
