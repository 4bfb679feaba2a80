"""Keys of many entities, and some of many texts, put together by compiled code."""

from __future__ import annotations

import numba
import numpy as np

from pipelines.runtime.array_types import Bytes, Int64s
from pipelines.runtime.machine_code import compiled
from pipelines.stores.redis.resp import TEXTS, Texts


def prefixed(prefix: bytes, texts: Texts) -> Texts:
    """The texts with `prefix` before each."""
    ends = texts.ends + len(prefix) * np.arange(len(texts.ends))
    data = np.empty(int(ends[-1]), np.uint8)
    _prefix(Texts.of(prefix, np.zeros(1, np.int64)).data, texts, data)
    return Texts.of(data, ends)


def some(texts: Texts, which: Int64s) -> Texts:
    """Those of the texts that have these indexes."""
    ends = np.zeros(len(which) + 1, np.int64)
    np.cumsum(texts.ends[which + 1] - texts.ends[which], out=ends[1:])
    data = np.empty(int(ends[-1]), np.uint8)
    _gather(texts, which, data)
    return Texts.of(data, ends)


def rows_of(matrix: Bytes) -> Texts:
    """The rows of a matrix (n, bytes of one) as texts."""
    n, size = matrix.shape
    return Texts.of(np.ascontiguousarray(matrix).reshape(-1), size * np.arange(n + 1))


READ_ONLY = numba.types.Array(numba.uint8, 1, "C", readonly=True)


@compiled(numba.void(READ_ONLY, TEXTS, numba.uint8[::1]))
def _prefix(prefix, texts, out):  # type: ignore[no-untyped-def]
    """Fill `out` with the texts, each after the prefix."""
    end = 0
    for i in range(texts.ends.shape[0] - 1):
        for position in range(prefix.shape[0]):
            out[end + position] = prefix[position]
        end += prefix.shape[0]
        first, last = texts.ends[i], texts.ends[i + 1]
        for position in range(last - first):
            out[end + position] = texts.data[first + position]
        end += last - first


@compiled(numba.void(TEXTS, numba.int64[::1], numba.uint8[::1]))
def _gather(texts, which, out):  # type: ignore[no-untyped-def]
    """Fill `out` with the texts of these indexes."""
    end = 0
    for k in range(which.shape[0]):
        first, last = texts.ends[which[k]], texts.ends[which[k] + 1]
        for position in range(last - first):
            out[end + position] = texts.data[first + position]
        end += last - first
