"""Columns of JSON tokens to messages, compiled: the bytes of many messages, end to end.

    {"symbol":"AAPL","price":189.23,"ts":1700000000123}

An absent field is left out. The same bytes are what the decoder is asked about and what is sent;
rows of one key that are sent at once are joined into arrays, which is what makes sending fast.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numba
import numpy as np
import pyarrow as pa

from pipelines.kafka.run import Run
from pipelines.runtime.array_types import Bytes, Int32s, Int64s
from pipelines.runtime.machine_code import compiled
from pipelines.ticks.json_tokens import CLOSE_ARRAY, COMMA, OPEN_ARRAY

BYTES = numba.types.Array(numba.uint8, 1, "C", readonly=True)
OFFSETS = numba.types.Array(numba.int32, 1, "C", readonly=True)


class Member(NamedTuple):
    """A member of each object: its name, and the JSON of its value, "" where it is left out.

    `tokens` is an Arrow array of text; `suffix` ends each token that is not "".
    """

    name: str
    tokens: Any
    suffix: bytes = b""


MOST_TICKS, MOST_BYTES = 500, 32_768
"""Ticks of a message, and its bytes but for the last tick: far below what workers take."""


class Batch(NamedTuple):
    """Messages to send: keys and values, and the number of ticks in all of them."""

    keys: list[bytes]
    values: list[bytes]
    ticks: int


class Messages(NamedTuple):
    """n messages: where each key and each value begins and ends in `data`, as in a `Run`."""

    data: Bytes
    keys: Int64s
    values: Int64s

    def run(self, timestamp_ms: int) -> Run:
        """The messages as records that a broker takes at `timestamp_ms`, in partition 0."""
        n = len(self.values)
        return Run(
            topic="",
            topic_id=bytes(16),
            partition=0,
            base_offset=0,
            next_offset=n,
            data=self.data,
            offsets=np.arange(n, dtype=np.int64),
            timestamps=np.full(n, timestamp_ms, np.int64),
            keys=self.keys,
            values=self.values,
        )

    def lists(self) -> tuple[list[bytes], list[bytes]]:
        """The keys and the values as Python's bytes."""
        return self._bytes(self.keys), self._bytes(self.values)

    def joined(self, codes: Int32s) -> Batch:
        """The ticks as messages that hold several of one key each, in their order.

        `codes` are numbers of the keys: equal ones for equal keys.
        """
        n = len(self.values)
        order = np.argsort(codes, kind="stable")
        bounds, firsts = np.empty((n, 2), np.int64), np.empty(n, np.int64)
        out = np.empty(int((self.values[:, 1] - self.values[:, 0]).sum()) + 2 * n + 2, np.uint8)
        many = _join(self.data, self.values, order, codes, out, bounds, firsts)
        written = out.tobytes()
        keys = [self.data[start:end].tobytes() for start, end in self.keys[firsts[:many]].tolist()]
        return Batch(keys, [written[start:end] for start, end in bounds[:many].tolist()], n)

    def _bytes(self, spans: Int64s) -> list[bytes]:
        """Texts that follow one another in `data`."""
        if not len(spans):
            return []
        offsets = np.append(spans[:, 0], spans[-1, 1])
        buffers = [None, pa.py_buffer(offsets), pa.py_buffer(self.data)]
        listed: list[bytes] = pa.LargeBinaryArray.from_buffers(
            pa.large_binary(), len(spans), buffers
        ).to_pylist()
        return listed


def messages(keys: Any, members: Sequence[Member]) -> Messages:
    """Messages with these keys and members; the first member is never left out.

    `keys` is an Arrow array of text. All have the same length.
    """
    key_bytes, key_offsets = _parts(keys)
    n = len(key_offsets) - 1
    written = []
    sizes = np.full(n, 1, np.int64)  # the brace at the end
    for number, member in enumerate(members):
        cells, offsets = _parts(member.tokens)
        prefix = np.frombuffer(f'{"," if number else "{"}"{member.name}":'.encode(), np.uint8)
        suffix = np.frombuffer(member.suffix, np.uint8)
        lengths = np.diff(offsets)
        sizes += np.where(lengths > 0, lengths + len(prefix) + len(suffix), 0)
        written.append((cells, offsets, prefix, suffix))
    ends = np.cumsum(sizes)
    begins = ends - sizes
    total = int(ends[-1]) if n else 0
    first, last = int(key_offsets[0]), int(key_offsets[-1])
    data = np.empty(total + last - first, np.uint8)
    cursors = begins.copy()
    for cells, offsets, prefix, suffix in written:
        _write(data, cursors, cells, offsets, prefix, suffix)
    data[ends - 1] = ord("}")
    data[total:] = key_bytes[first:last]
    key_ends = key_offsets.astype(np.int64) - first + total
    return Messages(
        data=data,
        keys=np.stack([key_ends[:-1], key_ends[1:]], axis=1),
        values=np.stack([begins, ends], axis=1),
    )


def _parts(text: Any) -> tuple[Any, Any]:
    """The bytes of an Arrow array of text, and where each begins, and the last one ends."""
    _, offsets, data = text.buffers()
    bounds = np.frombuffer(offsets, np.int32)[text.offset : text.offset + len(text) + 1]
    return np.frombuffer(data, np.uint8) if data else np.empty(0, np.uint8), bounds


@compiled(numba.void(numba.uint8[::1], numba.int64[::1], BYTES, OFFSETS, BYTES, BYTES))
def _write(data, cursors, cells, offsets, prefix, suffix):  # type: ignore[no-untyped-def]
    """Write one member of every message at its cursor, which moves on."""
    for row in range(cursors.shape[0]):
        start, end = offsets[row], offsets[row + 1]
        if start == end:
            continue
        position = cursors[row]
        for i in range(prefix.shape[0]):
            data[position] = prefix[i]
            position += 1
        for i in range(start, end):
            data[position] = cells[i]
            position += 1
        for i in range(suffix.shape[0]):
            data[position] = suffix[i]
            position += 1
        cursors[row] = position


@compiled()
def _close(out, bounds, message, position, ticks):  # type: ignore[no-untyped-def]
    """End a message; returns the position behind it."""
    if ticks == 1:
        bounds[message, 0] += 1
    else:
        out[position] = CLOSE_ARRAY
        position += 1
    bounds[message, 1] = position
    return position


@compiled(
    numba.int64(
        *(numba.uint8[::1], numba.int64[:, ::1], numba.int64[::1], OFFSETS),
        *(numba.uint8[::1], numba.int64[:, ::1], numba.int64[::1]),
    )
)
def _join(data, values, order, codes, out, bounds, firsts):  # type: ignore[no-untyped-def]
    """Write arrays of the objects of one code; returns how many messages there are.

    Fills in where each begins and ends, and the index of its first object. One object alone is
    written without brackets.
    """
    n = position = ticks = 0
    for i in range(order.shape[0]):
        row = order[i]
        new = (
            i == 0
            or codes[row] != codes[order[i - 1]]
            or ticks == MOST_TICKS
            or position - bounds[n - 1, 0] > MOST_BYTES
        )
        if new:
            if n > 0:
                position = _close(out, bounds, n - 1, position, ticks)
            bounds[n, 0] = position
            firsts[n] = row
            n += 1
            ticks = 0
        out[position] = OPEN_ARRAY if new else COMMA
        position += 1
        for byte in range(values[row, 0], values[row, 1]):
            out[position] = data[byte]
            position += 1
        ticks += 1
    if n > 0:
        _close(out, bounds, n - 1, position, ticks)
    return n
