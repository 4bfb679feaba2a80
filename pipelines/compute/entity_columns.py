"""What is known of each entity, as columns by slot, and how a stored state comes into them.

A new column is one line of `EntityColumns` and, if stores keep it, one of `restore`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from pipelines.compute.entity_state import EntityState
from pipelines.runtime.array_types import Floats, Int32s, Int64s
from pipelines.runtime.named_columns import column
from registry.formats.origin import ORIGIN

REMEMBERED = 64
"""Ticks of an entity; a tick is a duplicate only of one of them."""


class EntityColumns(NamedTuple):
    """The state of entities, by slot.

    Rings hold an entity's tick number o at index o % their length, which is a power of two:
    `remembered` ticks to find duplicates, `lookback` ticks for the longest window.
    """

    home_topic: Int32s = column(np.int32)
    """Topic incarnation of the newest tick, by the small number that stands for it."""
    home_partition: Int32s = column(np.int32)
    newest_offset: Int64s = column(np.int64)
    newest_index: Int32s = column(np.int32)
    """Index of the newest tick in its array message, else 0."""
    newest_sequence: Int64s = column(np.int64)
    newest_time: Int64s = column(np.int64)
    """Event time of the newest tick, nanoseconds UTC."""
    accepted: Int64s = column(np.int64)
    """Ticks that were ever accepted; 0 where nothing else is known."""
    fill: Int64s = column(np.int64)
    """Ticks since the last reset, or `registry.formats.state.CLOSED`."""
    ring_time: Int64s = column(np.int64, "remembered")
    """Times as the ticks gave them, nanoseconds UTC."""
    ring_seq: Int64s = column(np.int64, "remembered")
    ring_fields: Floats = column(np.float64, "lookback", "fields")
    ring_returns: Floats = column(np.float64, "lookback", "returns")
    """Log returns from the previous tick, of the fields that need them (`compute.instructions`)."""

    def clear(self, slot: int) -> None:
        """The entity of a slot has no tick."""
        self.accepted[slot] = 0
        self.fill[slot] = 0

    def restore(self, slot: int, state: EntityState, topic: int) -> int:
        """Take over a stored state, but for the returns; `topic` is the number of its topic.

        Returns the number of the oldest tick whose fields are remembered now.
        """
        self.home_topic[slot] = topic
        self.home_partition[slot] = state.origin.partition
        self.newest_offset[slot] = state.origin.offset
        self.newest_index[slot] = state.origin.index
        self.newest_sequence[slot] = state.sequence
        self.newest_time[slot] = state.ticks["event_time"][-1]
        self.accepted[slot] = state.count
        self.fill[slot] = state.fill

        def put(ring: Any, newest: Any) -> int:
            newest = newest[-ring.shape[1] :]
            oldest: int = state.count - len(newest)
            ring[slot, np.arange(oldest, state.count) & (ring.shape[1] - 1)] = newest
            return oldest

        put(self.ring_time, state.ticks["tick_time"])
        put(self.ring_seq, state.ticks["seq"])
        return put(self.ring_fields, state.ticks["fields"])

    def origins(self, slots: Int32s, topics: Sequence[bytes]) -> list[bytes]:
        """The packed origins of slots, b"" for an entity without a tick; `topics` by number."""
        origins = np.zeros(len(slots), ORIGIN.dtype)
        ids = np.frombuffer(b"".join(topics) or bytes(16), "V16")
        origins["topic_id"] = ids[self.home_topic[slots]]
        origins["partition"] = self.home_partition[slots]
        origins["offset"] = self.newest_offset[slots]
        origins["index"] = self.newest_index[slots]
        packed, size = origins.tobytes(), ORIGIN.size
        known = (self.accepted[slots] > 0).tolist()
        return [packed[i * size : (i + 1) * size] if k else b"" for i, k in enumerate(known)]
