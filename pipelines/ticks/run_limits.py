"""How much one run may hold, once it is decoded.

Compressed, a fetch may hold a hundred times more than its bytes say, and each element of an array
becomes a tick or a rejection.
"""

from __future__ import annotations

import numpy as np

from pipelines.kafka.run import Run
from pipelines.kafka.run_fetcher import MAX_RECORDS
from pipelines.runtime.machine_code import compiled
from pipelines.ticks.json_tokens import after_space
from pipelines.ticks.reference_decoder import MAX_MESSAGE_BYTES

MAX_BYTES, MAX_TICKS = 32 << 20, 8 * MAX_RECORDS
"""Of the messages of a run, and of the elements of their arrays."""

OPEN_ARRAY, COMMA = ord("["), ord(",")


def bounded(run: Run, max_bytes: int = MAX_BYTES, max_ticks: int = MAX_TICKS) -> list[Run]:
    """A run in parts that can be held as ticks: compressed, a fetch may hold a hundred times more.

    Runs of plain messages are one part, unless their messages are large.
    """
    cuts = np.empty(len(run), np.int64)
    many = _cut(run.data, run.values, max_bytes, max_ticks, cuts)
    return run.cut(cuts[:many].tolist())


@compiled("int64(uint8[::1], int64[:,::1], int64, int64, int64[::1])")
def _cut(data, values, most_bytes, most_ticks, cuts):  # type: ignore[no-untyped-def]
    """Part messages so that none of the parts is too much to be held as ticks, or rejected ones.

    Fills `cuts` with the places of the first messages of parts but the first; returns how many
    there are. A part holds at most so many bytes, and so many elements of arrays, counted by
    commas: more only where one message alone does.
    """
    n = taken_bytes = taken_ticks = 0
    for message in range(values.shape[0]):
        start, end = values[message, 0], values[message, 1]
        ticks = 1
        at = after_space(data, start, end) if start >= 0 else end
        if at < end and data[at] == OPEN_ARRAY and end - start <= MAX_MESSAGE_BYTES:
            for place in range(at, end):
                ticks += data[place] == COMMA
        if message > 0 and (
            taken_bytes + end - start > most_bytes or taken_ticks + ticks > most_ticks
        ):
            cuts[n] = message
            n += 1
            taken_bytes = taken_ticks = 0
        taken_bytes += end - start
        taken_ticks += ticks
    return n
