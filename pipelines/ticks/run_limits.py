"""How much one run may hold, once it is decoded.

A compressed fetch may hold a hundred times its own bytes, and each element of an array becomes a
tick or a rejection.
"""

from __future__ import annotations

import numpy as np

from pipelines.kafka.run import Run
from pipelines.kafka.run_fetcher import MAX_RECORDS
from pipelines.runtime.machine_code import compiled
from pipelines.ticks.json_tokens import COMMA, OPEN_ARRAY, after_space
from pipelines.ticks.message_limits import MAX_MESSAGE_BYTES

MAX_BYTES, MAX_TICKS = 32 << 20, 8 * MAX_RECORDS
"""Bytes of the messages of a run, and elements of their arrays."""

FRAMED, GROWTH = 0, 16
"""The first byte of a message in a binary format of a schema registry, and how often its bytes are
counted: with the names of its fields, as JSON, it is several times as long."""


def bounded(run: Run, max_bytes: int = MAX_BYTES, max_ticks: int = MAX_TICKS) -> list[Run]:
    """A run in pieces that memory can hold as ticks.

    A run of plain messages is one piece, unless its messages are large.
    """
    cuts = np.empty(len(run), np.int64)
    many = _cut(run.data, run.values, max_bytes, max_ticks, cuts)
    return run.cut(cuts[:many].tolist())


@compiled("int64(uint8[::1], int64[:,::1], int64, int64, int64[::1])")
def _cut(data, values, max_bytes, max_ticks, cuts):  # type: ignore[no-untyped-def]
    """Cut messages into pieces of at most so many bytes, and elements of arrays, by their commas.

    A piece has more only where one message alone does. Fills `cuts` with the index of the first
    message of each piece but the first; returns how many there are.
    """
    n = taken_bytes = taken_ticks = 0
    for message in range(values.shape[0]):
        start, end = values[message, 0], values[message, 1]
        ticks = 1
        size = end - start
        if size > 0 and data[start] == FRAMED:
            size *= GROWTH
        first = after_space(data, start, end) if start >= 0 else end
        if first < end and data[first] == OPEN_ARRAY and end - start <= MAX_MESSAGE_BYTES:
            for position in range(first, end):
                ticks += data[position] == COMMA
        if message > 0 and (taken_bytes + size > max_bytes or taken_ticks + ticks > max_ticks):
            cuts[n] = message
            n += 1
            taken_bytes = taken_ticks = 0
        taken_bytes += size
        taken_ticks += ticks
    return n
