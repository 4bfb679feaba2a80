"""What states were computed from: the origins of the states before."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.runtime.array_types import Int32s, Int64s


class Origins(NamedTuple):
    """The origins of n entities' states: what a state was computed from."""

    packed: NDArray[np.void]
    """(n,) of `registry.formats.origin.ORIGIN`."""
    known: NDArray[np.bool_]
    """Whether an entity had a state; without one its origin means nothing."""
    accepted: Int64s
    """How many ticks each state counted."""

    def at_home(self, topic_id: bytes, partition: int) -> NDArray[np.bool_]:
        """Which of the entities have their home in a partition."""
        same_topic = self.packed["topic_id"] == np.void(topic_id)
        here: NDArray[np.bool_] = same_topic & (self.packed["partition"] == partition)
        return self.known & here

    def to_list(self) -> list[bytes]:
        """Each as bytes, b"" for an entity without a state."""
        packed, size = self.packed.tobytes(), self.packed.itemsize
        known = self.known.tolist()
        return [packed[i * size : (i + 1) * size] if k else b"" for i, k in enumerate(known)]

    def only(self, which: Int32s) -> Origins:
        """Those of some entities, by their indexes."""
        return Origins(self.packed[which], self.known[which], self.accepted[which])
