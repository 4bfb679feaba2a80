"""What is known of each entity, as columns by slot, and how a stored state comes into them.

A new column is one line of `EntityColumns` and, if stores keep it, one of `restore_states`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pipelines.compute.origins import Origins
from pipelines.runtime.array_types import Floats, Int32s, Int64s
from pipelines.runtime.named_columns import column
from registry.formats.origin import ORIGIN

REMEMBERED = 64
"""Ticks of an entity; a tick is a duplicate only of one of them."""


UNKNOWN = -1
"""The `accepted` of an entity whose state was not restored yet."""


class EntityColumns(NamedTuple):
    """The state of entities, by slot.

    Rings hold an entity's tick number o at index o % their length: the fields of `lookback` ticks
    for the longest window, fewer returns, and in `SeqRings` what finds duplicates. The
    tail is kept where the store is given it with the rows (`compute.state_tails`), else untouched:
    then it takes no memory.
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
    """Ticks that were ever accepted; `UNKNOWN` until it is known what a store has."""
    fill: Int64s = column(np.int64)
    """Ticks since the last reset, or `registry.formats.state.CLOSED`."""
    seq_ring: Int32s = column(np.int32)
    """The entity's ring among `SeqRings`, 0 while no tick of it had a `seq`."""
    first_block: Int64s = column(np.int64)
    """The block to which the stored chunks lead back; see `registry.formats.state`."""
    tail_time: Int64s = column(np.int64, "block")
    """Of the newest ticks, times as the ticks gave them, the oldest one first."""
    tail_fields: Floats = column(np.float64, "block", "tick_fields")
    """Of the same ticks, all fields of the source."""
    ring_fields: Floats = column(np.float64, "lookback", "fields")
    ring_returns: Floats = column(np.float64, "longest_returns", "returns")
    """Log returns from the previous tick, of the fields that need them (`compute.instructions`)."""

    def origins(self, slots: Int32s, topics: Sequence[bytes]) -> Origins:
        """The origins of slots; `topics` are the topic incarnations by number."""
        origins = np.zeros(len(slots), ORIGIN.dtype)
        ids = np.frombuffer(b"".join(topics) or bytes(16), "V16")
        origins["topic_id"] = ids[self.home_topic[slots]]
        origins["partition"] = self.home_partition[slots]
        origins["offset"] = self.newest_offset[slots]
        origins["index"] = self.newest_index[slots]
        accepted = self.accepted[slots]
        return Origins(origins, accepted > 0, accepted)


class SeqRings(NamedTuple):
    """What ticks are told apart by, of entities whose ticks have a `seq`: their newest ticks.

    Ring 0 is nobody's.
    """

    time: Int64s = column(np.int64, "remembered")
    """Times as the ticks gave them, nanoseconds UTC."""
    seq: Int64s = column(np.int64, "remembered")
    tail_seq: Int64s = column(np.int64, "block")
    """Of the ticks of `EntityColumns.tail_time`."""
