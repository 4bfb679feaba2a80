"""The result of a run: the rows that a sink stores in one piece."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.compute.entity_names import EntityNames
from pipelines.kafka.run import Run
from pipelines.runtime.array_types import Bytes, Floats, Int32s, Int64s
from pipelines.ticks.columns import Rejection
from registry.definitions import RowSchema, Source


class Origins(NamedTuple):
    """The origins of n entities' states: what a state was computed from."""

    packed: NDArray[np.void]
    """(n,) of `registry.formats.origin.ORIGIN`."""
    known: NDArray[np.bool_]
    """Whether an entity had a state; without one its origin means nothing."""

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
        return Origins(self.packed[which], self.known[which])


@dataclass(frozen=True, slots=True)
class Batch:
    """The result of a run: rows (columns of length n, in the run's order) and rejections.

    One row for each accepted tick. `features` and `status` are (n, features of the schema).
    `ordinal` numbers an entity's accepted ticks from 0 for as long as it has state. `names` are the
    distinct entities of the rows, `name[i]` the index of row i's entity among them. By the same
    index, `expected` are the origins of the states that theirs were computed from, and `fill` is
    the number of ticks in its windows after the batch (or `CLOSED`). `seq_text` is as of
    `ticks.columns.Ticks`, in `texts`; `passed_over` counts what the run had of other kinds; `rules`
    is as there.
    """

    run: Run
    source: Source
    schema: RowSchema
    names: EntityNames
    expected: Origins
    fill: Int64s
    name: Int32s
    ordinal: Int64s
    offset: Int64s
    index: Int32s
    event_time: Int64s
    sequence: Int64s
    tick_time: Int64s
    seq: Int64s
    op: Bytes
    fields: Floats
    known_at: Int64s
    features: Floats
    status: Bytes
    rejected: Sequence[Rejection]
    texts: Bytes
    seq_text: Int64s
    passed_over: int
    rules: int = 0

    def __len__(self) -> int:
        return len(self.name)
