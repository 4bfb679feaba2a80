"""Commands of Redis as bytes, written by compiled code: one or two buffers, whatever is in it.

redis-py sends them and reads the answers, so connections, TLS, passwords and timeouts stay its own.
What is saved is a Python object for each argument. Arguments are bulk strings of the protocol RESP:
`$<bytes>\\r\\n<text>\\r\\n`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numba
import numpy as np

from pipelines.runtime.array_types import Bytes, Int64s
from pipelines.runtime.machine_code import compiled
from pipelines.runtime.named_columns import numba_type
from registry.formats.entity_name import SEPARATOR

HEAD_BYTES = 16
"""The most bytes that a bulk string has beside its text."""

BLOCK_BYTES = 24
"""The most bytes that the name of a chunk has beside its entity."""


FIRST_BYTES = 4096
"""Size of the buffer of arguments, while they take no more."""

COPIED_BYTES = 1 << 16
"""Up to this size a copy of what is sent costs less than another call that sends."""


class Texts(NamedTuple):
    """Byte strings in `data`, read-only: number i is from `ends[i]` up to `ends[i + 1]`."""

    data: Bytes
    ends: Int64s

    def __len__(self) -> int:
        return len(self.ends) - 1

    def part(self, which: slice) -> Texts:
        """Some that follow each other."""
        ends = self.ends[which.start : which.stop + 1]
        return Texts(self.data[ends[0] : ends[-1]], ends - ends[0])

    def only(self, which: Int64s) -> Texts:
        """Those that have these indexes."""
        ends = np.zeros(len(which) + 1, np.int64)
        np.cumsum(self.ends[which + 1] - self.ends[which], out=ends[1:])
        data = np.empty(int(ends[-1]), np.uint8)
        _gather(self, which, data)
        return Texts.of(data, ends)

    @classmethod
    def of(cls, data: bytes | Bytes, ends: Int64s) -> Texts:
        """The same of bytes, or of an array that may be written: compiled code takes one kind."""
        read_only = np.frombuffer(data, np.uint8).view()
        read_only.flags.writeable = False
        return cls(read_only, ends)


class Arguments:
    """Arguments of a command, appended in their order; `count` of them until now."""

    def __init__(self, *first: bytes | str | int) -> None:
        self._buffer = np.empty(FIRST_BYTES, np.uint8)
        self._end = 0
        self.count = 0
        if first:
            self.add(*first)

    def add(self, *arguments: bytes | str | int) -> None:
        """Append arguments."""
        self.put(bulk(*arguments), len(arguments))

    def put(self, packed: bytes, count: int) -> None:
        """Append so many arguments that `bulk` has made."""
        end = self._end + len(packed)
        self._room(len(packed)).data[self._end : end] = packed
        self._end = end
        self.count += count

    def texts(self, texts: Texts, prefix: bytes = b"") -> None:
        """Append each of the texts, with `prefix` before it."""
        if not len(texts):
            return
        self.count += len(texts)
        size = len(texts.data) + (HEAD_BYTES + len(prefix)) * len(texts)
        before = np.frombuffer(prefix, np.uint8)
        self._end = _put_texts(self._room(size), self._end, before, texts)

    def rows(self, rows: Bytes) -> None:
        """Append each row of a matrix (n, bytes of one), contiguous."""
        self.count += len(rows)
        room = self._room(rows.size + HEAD_BYTES * len(rows))
        read_only = rows.view()
        read_only.flags.writeable = False
        self._end = _put_rows(room, self._end, read_only)

    def pairs(self, names: Texts, heads: Bytes, tails: Texts) -> None:
        """Append each name, and after it its value: `heads[i]` and `tails[i]` joined."""
        if not len(names):
            return
        self.count += 2 * len(names)
        size = len(names.data) + heads.size + len(tails.data) + 2 * HEAD_BYTES * len(names)
        self._end = _put_pairs(self._room(size), self._end, names, heads, tails)

    def chunks(self, names: Texts, of: Int64s, blocks: Int64s, values: Texts) -> None:
        """Append the names of chunks (`redis_keys.chunk_field`), and after each its value.

        `of` is the index among `names` of each chunk's entity, `blocks` is where the chunks end.
        """
        if not len(of):
            return
        self.count += 2 * len(of)
        size = _names_size(names, of) + len(values.data) + HEAD_BYTES * len(of)
        self._end = _put_chunks(self._room(size), self._end, names, of, blocks, values, 1)

    def chunk_names(self, names: Texts, of: Int64s, blocks: Int64s) -> None:
        """Append the names of chunks, as `chunks` does."""
        if not len(of):
            return
        self.count += len(of)
        room = self._room(_names_size(names, of))
        self._end = _put_chunks(room, self._end, names, of, blocks, NO_TEXTS, 0)

    @property
    def data(self) -> memoryview:
        """The bytes of the arguments."""
        return self._buffer[: self._end].data

    def _room(self, size: int) -> Bytes:
        """The buffer, with room for so many bytes more."""
        if self._end + size > len(self._buffer):
            longer = np.empty(2 * (self._end + size), np.uint8)
            longer[: self._end] = self._buffer[: self._end]
            self._buffer = longer
        return self._buffer


def bulk(*arguments: bytes | str | int) -> bytes:
    """Arguments as the protocol writes them."""
    texts = [a if isinstance(a, bytes) else str(a).encode() for a in arguments]
    return b"".join([b"$%d\r\n%b\r\n" % (len(text), text) for text in texts])


Command = Sequence[Arguments]
"""All arguments of a command, in pieces of which the last one may be large."""


def packed(command: Command) -> list[bytes | memoryview]:
    """The bytes of a command, in one or two pieces: each is sent by a call of its own."""
    *first, last = command
    size = b"*%d\r\n" % sum(part.count for part in command)
    if len(last.data) <= COPIED_BYTES:
        return [b"".join([size, *(part.data for part in command)])]
    return [b"".join([size, *(part.data for part in first)]), last.data]


def no_texts(n: int) -> Texts:
    """So many empty texts."""
    return Texts.of(b"", np.zeros(n + 1, np.int64))


NO_TEXTS = no_texts(0)


def _names_size(names: Texts, of: Int64s) -> int:
    sizes = np.diff(names.ends)
    return int(sizes[of].sum()) + (HEAD_BYTES + BLOCK_BYTES) * len(of)


DOLLAR, CR, LF, ZERO, HASH = (np.uint8(ord(c)) for c in "$\r\n0#")
SEPARATOR_BYTE = np.uint8(ord(SEPARATOR))
BYTES, INT64S = numba.uint8[::1], numba.int64[::1]
READ_ONLY = numba.types.Array(numba.uint8, 1, "C", readonly=True)
READ_ONLY_ROWS = numba.types.Array(numba.uint8, 2, "C", readonly=True)
TEXTS = numba_type(NO_TEXTS)


@compiled()
def _digits(value):  # type: ignore[no-untyped-def]
    digits = 1
    while value >= 10:
        value //= 10
        digits += 1
    return digits


@compiled()
def _put_number(out, end, value):  # type: ignore[no-untyped-def]
    digits = _digits(value)
    for position in range(end + digits - 1, end - 1, -1):
        out[position] = ZERO + np.uint8(value % 10)
        value //= 10
    return end + digits


@compiled()
def _put_line(out, end):  # type: ignore[no-untyped-def]
    out[end] = CR
    out[end + 1] = LF
    return end + 2


@compiled()
def _put_head(out, end, size):  # type: ignore[no-untyped-def]
    out[end] = DOLLAR
    return _put_line(out, _put_number(out, end + 1, size))


@compiled()
def _put_bytes(out, end, data, first, last):  # type: ignore[no-untyped-def]
    for position in range(first, last):
        out[end + position - first] = data[position]
    return end + last - first


@compiled(numba.int64(BYTES, numba.int64, READ_ONLY, TEXTS))
def _put_texts(out, end, prefix, texts):  # type: ignore[no-untyped-def]
    """Append texts as arguments, the prefix before each; returns where they end."""
    before = prefix.shape[0]
    for i in range(texts.ends.shape[0] - 1):
        first, last = texts.ends[i], texts.ends[i + 1]
        end = _put_head(out, end, before + last - first)
        end = _put_bytes(out, end, prefix, 0, before)
        end = _put_line(out, _put_bytes(out, end, texts.data, first, last))
    return end


@compiled(numba.int64(BYTES, numba.int64, READ_ONLY_ROWS))
def _put_rows(out, end, rows):  # type: ignore[no-untyped-def]
    """Append the rows of a matrix as arguments."""
    size = rows.shape[1]
    for i in range(rows.shape[0]):
        end = _put_head(out, end, size)
        for position in range(size):
            out[end + position] = rows[i, position]
        end = _put_line(out, end + size)
    return end


@compiled(numba.void(TEXTS, INT64S, BYTES))
def _gather(texts, which, out):  # type: ignore[no-untyped-def]
    """Fill `out` with the texts of these indexes."""
    end = 0
    for k in range(which.shape[0]):
        end = _put_bytes(out, end, texts.data, texts.ends[which[k]], texts.ends[which[k] + 1])


@compiled(numba.int64(BYTES, numba.int64, TEXTS, numba.uint8[:, ::1], TEXTS))
def _put_pairs(out, end, names, heads, tails):  # type: ignore[no-untyped-def]
    """Append names, each followed by its value."""
    size = heads.shape[1]
    for i in range(names.ends.shape[0] - 1):
        first, last = names.ends[i], names.ends[i + 1]
        end = _put_head(out, end, last - first)
        end = _put_line(out, _put_bytes(out, end, names.data, first, last))
        first, last = tails.ends[i], tails.ends[i + 1]
        end = _put_head(out, end, size + last - first)
        for position in range(size):
            out[end + position] = heads[i, position]
        end = _put_line(out, _put_bytes(out, end + size, tails.data, first, last))
    return end


@compiled(numba.int64(BYTES, numba.int64, TEXTS, INT64S, INT64S, TEXTS, numba.int64))
def _put_chunks(out, end, names, of, blocks, values, with_values):  # type: ignore[no-untyped-def]
    """Append the names of chunks, each followed by its value if `with_values` is not 0."""
    for c in range(of.shape[0]):
        first, last = names.ends[of[c]], names.ends[of[c] + 1]
        end = _put_head(out, end, last - first + 2 + _digits(blocks[c]))
        end = _put_bytes(out, end, names.data, first, last)
        out[end] = SEPARATOR_BYTE
        out[end + 1] = HASH
        end = _put_line(out, _put_number(out, end + 2, blocks[c]))
        if with_values != 0:
            first, last = values.ends[c], values.ends[c + 1]
            end = _put_head(out, end, last - first)
            end = _put_line(out, _put_bytes(out, end, values.data, first, last))
    return end
