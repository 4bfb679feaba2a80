"""The distinct slots of the ticks of a run, in order of appearance."""

from __future__ import annotations

import numpy as np

from pipelines.runtime.array_types import Int32s
from pipelines.runtime.machine_code import compiled


def distinct_slots(slot: Int32s, scratch: Int32s) -> tuple[Int32s, Int32s]:
    """The distinct slots in order of appearance, and for each of `slot` its index among them.

    `scratch` has an element for each slot of the table; its contents mean nothing.
    """
    scratch[slot] = -1
    distinct, index = np.empty(len(slot), np.int32), np.empty(len(slot), np.int32)
    count = _number(slot, scratch, distinct, index)
    return distinct[:count], index


@compiled("int64(int32[::1], int32[::1], int32[::1], int32[::1])", nogil=False)
def _number(slot, number, distinct, index):  # type: ignore[no-untyped-def]
    """Number slots in order of appearance; `number` is -1 for each of them, and is changed.

    Fills `distinct` with the slots by number and `index` with the number of each of `slot`; returns
    how many distinct slots there are.
    """
    count = 0
    for i in range(slot.shape[0]):
        s = slot[i]
        if number[s] < 0:
            number[s] = count
            distinct[count] = s
            count += 1
        index[i] = number[s]
    return count
