"""Arrow arrays of Python's and numpy's values, from their bytes.

`pyarrow.array`, `pyarrow.scalar` (which compute functions call for a Python value as well) and
`to_numpy` import pandas wherever it is installed: that takes 20 MB and a third of a
second.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.runtime.array_types import Int64s


def strings(values: Sequence[str]) -> Any:
    """Texts, of at most 2 GiB together."""
    return _texts(pa.string(), [value.encode() for value in values])


def binaries(values: Sequence[bytes]) -> Any:
    """Bytes, of at most 2 GiB together."""
    return _texts(pa.binary(), values)


@cache
def text(value: str) -> Any:
    """A text as a scalar."""
    return strings([value])[0]


def repeated(value: str, rows: int) -> Any:
    """One text in each of some rows."""
    encoded = value.encode()
    offsets = np.arange(rows + 1, dtype=np.int32) * len(encoded)
    return _of(pa.string(), rows, offsets, encoded * rows)


def int64s(values: Int64s) -> Any:
    """Integers."""
    return _of(pa.int64(), len(values), np.ascontiguousarray(values))


def booleans(values: Any) -> Any:
    """A mask."""
    return _of(pa.bool_(), len(values), np.packbits(values, bitorder="little"))


def mask(found: Any) -> Any:
    """An Arrow array of booleans without nulls as numpy's."""
    if not len(found):
        return np.zeros(0, np.bool_)
    bits = np.frombuffer(found.buffers()[1], np.uint8)
    end = found.offset + len(found)
    return np.unpackbits(bits, count=end, bitorder="little")[found.offset :].view(np.bool_)


def integers(found: Any, kind: type[np.integer[Any]] = np.int64) -> Any:
    """An Arrow array of integers without nulls as numpy's; `kind` is the type that it has."""
    if not len(found):
        return np.zeros(0, kind)
    values = np.frombuffer(found.buffers()[1], kind)
    return values[found.offset : found.offset + len(found)]


def _texts(kind: Any, values: Iterable[bytes]) -> Any:
    found = list(values)
    offsets = np.zeros(len(found) + 1, np.int32)
    np.cumsum([len(value) for value in found], out=offsets[1:])
    return _of(kind, len(found), offsets, b"".join(found))


def _of(kind: Any, length: int, *buffers: Any) -> Any:
    return pa.Array.from_buffers(kind, length, [None, *map(pa.py_buffer, buffers)])
