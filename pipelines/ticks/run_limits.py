"""How much one run may hold, once it is decoded.

A compressed fetch may hold a hundred times its own bytes, and each element of an array, or of an
array in a field, becomes a tick or a rejection.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from pipelines.kafka.run import Run
from pipelines.kafka.run_fetcher import MAX_RECORDS
from pipelines.runtime.machine_code import compiled
from pipelines.ticks.json_tokens import COMMA, OPEN_ARRAY, after_space
from pipelines.ticks.message_limits import MAX_MESSAGE_BYTES
from pipelines.ticks.wire.formats import KINDS
from registry.definitions import Source

MAX_BYTES, MAX_TICKS = 32 << 20, 8 * MAX_RECORDS
"""Bytes of the messages of a run, and elements of their arrays."""

GROWTH = 16
"""How often the bytes of a message in a binary format are counted: what is read of it is several
times as long, as JSON and with the names of its fields."""

IN_ARRAYS, IN_ALL, BYTES = range(3)
"""What may be an element: of a message that begins as an array each comma, of every message each
comma, of every message each byte."""


def bounded(
    run: Run, sources: Iterable[Source], max_bytes: int = MAX_BYTES, max_ticks: int = MAX_TICKS
) -> list[Run]:
    """A run in pieces that memory can hold as ticks, by whichever of `sources` it is decoded.

    A run of plain messages is one piece, unless its messages are large.
    """
    size = len(run.data)
    if size * GROWTH <= max_bytes and size + len(run) <= max_ticks:
        return [run]  # a byte is part of one element at the most
    elements, growth = IN_ARRAYS, 1
    for source in sources:
        is_binary = source.format in KINDS
        if is_binary:
            growth = GROWTH
        if source.format == "avro" or (is_binary and source.items is not None):
            elements = BYTES  # an Avro value may be an array, a Protobuf message is none
        elif source.items is not None or source.format == "json-schema":
            elements = max(elements, IN_ALL)
    cuts = np.empty(len(run), np.int64)
    many = _cut(run.data, run.values, growth, elements, max_bytes, max_ticks, cuts)
    return run.cut(cuts[:many].tolist())


@compiled("int64(uint8[::1], int64[:,::1], int64, int64, int64, int64, int64[::1])", nogil=False)
def _cut(data, values, growth, elements, max_bytes, max_ticks, cuts):  # type: ignore[no-untyped-def]
    """Cut messages into pieces of at most so many bytes, and of at most so many elements.

    A piece has more only where one message alone does. Fills `cuts` with the index of the first
    message of each piece but the first; returns how many there are.
    """
    n = taken_bytes = taken_ticks = 0
    for message in range(values.shape[0]):
        start, end = values[message, 0], values[message, 1]
        size, ticks = (end - start) * growth, 1
        first = after_space(data, start, end) if start >= 0 else end
        if first < end and end - start <= MAX_MESSAGE_BYTES:
            if elements == BYTES:
                ticks += end - first
            elif elements == IN_ALL or data[first] == OPEN_ARRAY:
                for position in range(first, end):
                    ticks += data[position] == COMMA
        if message > 0 and (taken_bytes + size > max_bytes or taken_ticks + ticks > max_ticks):
            cuts[n] = message
            n += 1
            taken_bytes = taken_ticks = 0
        taken_bytes += size
        taken_ticks += ticks
    return n
