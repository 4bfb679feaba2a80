"""What the kernel does not accept, as rejections with their reasons."""

from __future__ import annotations

import numpy as np

from pipelines.compute import kernel
from pipelines.compute.entity_columns import EntityColumns
from pipelines.runtime.array_types import Bytes, Int32s
from pipelines.ticks import rejection_reasons as reasons
from pipelines.ticks.columns import Rejection, Ticks
from pipelines.ticks.homes import elsewhere

REASON = {
    kernel.WRONG_PARTITION: reasons.WRONG_PARTITION,
    kernel.DUPLICATE: reasons.DUPLICATE,
    kernel.LATE: reasons.LATE,
}


def rejections(
    ticks: Ticks, slot: Int32s, verdict: Bytes, entities: EntityColumns
) -> list[Rejection]:
    """The rejections of ticks in their order; `slot` and `verdict` are by tick."""
    return [
        Rejection(
            offset=int(ticks.offset[i]),
            index=int(ticks.index[i]),
            reason=REASON[int(verdict[i])],
            detail=_detail(int(verdict[i]), ticks, i, int(entities.home_partition[slot[i]])),
            key=ticks.run.key(int(ticks.record[i])),
            value=ticks.original(i),
            known_at=int(ticks.known_at[i]),
        )
        for i in np.flatnonzero(verdict > kernel.APPLIED).tolist()
    ]


def _detail(verdict: int, ticks: Ticks, i: int, home_partition: int) -> str:
    if verdict == kernel.WRONG_PARTITION:
        return elsewhere(ticks.source, ticks.run.partition, home_partition)
    if verdict == kernel.DUPLICATE:
        return f"ts and seq {int(ticks.seq[i])} are those of an earlier tick"
    return f"more than {ticks.source.skew_ns / 1e9:g} s behind the newest tick of its entity"
