"""The result of a run: the rows that a sink stores in one piece."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.compute.entity_names import EntityNames
from pipelines.compute.origins import Origins
from pipelines.compute.state_tails import StateTails
from pipelines.kafka.run import Run
from pipelines.runtime.array_types import Bytes, Floats, Int32s, Int64s
from pipelines.ticks.columns import Rejection
from registry.definitions import RowSchema, Source


@dataclass(frozen=True, slots=True)
class Batch:
    """The result of a run: rows (columns of length n, in the run's order) and rejections.

    One row for each accepted tick. `features` and `status` are (n, features of the schema).
    `names` are the distinct entities of the rows, `name[i]` the index of row i's entity among them.
    By the same index, `expected` are the origins of the states that theirs were computed from, and
    `fill` is the number of ticks in its windows after the batch (or `CLOSED`), `fill_before` that
    before it, and `tails` are their newest ticks, for a store that keeps them. `seq_text` is as of
    `ticks.columns.Ticks`, in `texts`; `passed_over` counts what the run had of other kinds; `rules`
    is as there.
    """

    run: Run
    source: Source
    schema: RowSchema
    names: EntityNames
    expected: Origins
    fill: Int64s
    fill_before: Int64s
    tails: StateTails | None
    name: Int32s
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
