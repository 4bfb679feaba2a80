"""Features of ticks that were accepted long ago, computed by the kernel that live has.

Nothing is decided here: whether a tick is accepted, and at which event time it counts, is stored.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.compute.entity_columns import REMEMBERED, EntityColumns, SeqRings
from pipelines.compute.instructions import (
    fields_of,
    instructions_of,
    longest_returns_of,
    returns_of,
)
from pipelines.compute.kernel import RowColumns, RunContext, TickColumns, advance_accepted
from pipelines.compute.window_table import NewestValues
from pipelines.runtime.array_types import Bytes, Floats, Int32s
from pipelines.runtime.named_columns import allocate
from pipelines.ticks.columns import NO_SEQ
from registry.formats.state import BLOCK, CLOSED
from registry.language.program import Program


class AcceptedTicks(NamedTuple):
    """Ticks of some entities, by number; those of each are in the order of their log.

    The first ones of an entity may be there only to be in the windows of the others: as many as
    `Recomputation.before`, unless it has fewer. `closed` says of each entity whether the first of
    its ticks left it closed, as its row says: it may be a reset after a close.
    """

    entity: Int32s
    op: Bytes
    field: Floats
    """(n,) The field of the program, or (n, fields) all of them; NaN where a tick has none."""
    closed: NDArray[np.bool_]


class Recomputation:
    """Computes the features of a program."""

    def __init__(self, program: Program) -> None:
        self.fields: list[int] = fields_of(program).tolist()
        """The indexes of the fields that the features are of."""
        self.before = max(1, program.lookback - 1)
        """Ticks of an entity that are in the window of the next one; one tells if it is closed."""
        self.source = program.source
        self._code = instructions_of(program)
        self._sizes = {
            "lookback": program.lookback,
            "longest_returns": longest_returns_of(program),
            "fields": len(self.fields),
            "returns": returns_of(program),
            "block": BLOCK,
            "tick_fields": len(program.source.fields),
        }

    @property
    def field(self) -> int:
        """The index of the field, of a program that is of one."""
        (found,) = self.fields
        return found

    def compute(self, ticks: AcceptedTicks) -> NewestValues:
        """The features of each tick, with their statuses."""
        n = len(ticks.entity)
        entities = allocate(EntityColumns, len(ticks.closed), **self._sizes)
        entities.fill[ticks.closed] = CLOSED
        rings = allocate(SeqRings, 1, remembered=REMEMBERED, block=BLOCK)  # nobody's
        rows = allocate(RowColumns, n, features=len(self._code.function))
        nothing = np.zeros(n, np.int64)
        columns = TickColumns(
            slot=ticks.entity,
            offset=nothing,
            message_index=nothing.astype(np.int32),
            time=nothing,
            seq=np.full(n, NO_SEQ, np.int64),
            op=ticks.op,
            fields=np.ascontiguousarray(ticks.field).reshape(n, len(self.fields)),
        )
        context = RunContext(topic=0, partition=0, skew=0)
        advance_accepted(columns, context, self._code, entities, rings, rows)
        return NewestValues(rows.features, rows.status)
