"""Columns declared once: their arrays, longer ones, and the type that compiled code takes."""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np
import pytest

from pipelines.runtime.array_types import Floats, Int64s
from pipelines.runtime.machine_code import compiled
from pipelines.runtime.named_columns import allocate, column, grown, numba_type, sliced, type_of


class Prices(NamedTuple):
    time: Int64s = column(np.int64)
    fields: Floats = column(np.float64, "fields")
    ring: Any = column(np.uint8, "lookback", "fields")


@compiled(numba.int64(type_of(Prices)))
def total(prices):  # type: ignore[no-untyped-def]
    found = 0
    for i in range(prices.time.shape[0]):
        found += prices.time[i]
    return found


def test_the_arrays_are_as_declared() -> None:
    prices = allocate(Prices, 5, fields=2, lookback=8)
    assert type(prices) is Prices
    assert [column.shape for column in prices] == [(5,), (5, 2), (5, 8, 2)]
    assert [column.dtype for column in prices] == [np.int64, np.float64, np.uint8]
    assert not any(column.any() for column in prices)


def test_longer_columns_begin_with_the_values_of_the_shorter() -> None:
    prices = allocate(Prices, 3, fields=1, lookback=2)
    prices.time[:], prices.fields[:], prices.ring[:] = 7, 0.5, 9
    longer = grown(type(prices), list(prices), 6)
    assert longer.time.tolist() == [7, 7, 7, 0, 0, 0]
    assert longer.ring.shape == (6, 2, 1)
    assert all((new[:3] == old).all() for new, old in zip(longer, prices, strict=True))


@pytest.mark.parametrize("which", [slice(1, 3), np.array([1, 2])])
def test_the_same_elements_of_every_column(which: Any) -> None:
    prices = allocate(Prices, 4, fields=1, lookback=1)
    prices.time[:], prices.fields[:, 0] = range(4), range(4)
    some = sliced(prices, which)
    assert (some.time.tolist(), some.fields.tolist()) == ([1, 2], [[1.0], [2.0]])


def test_the_type_is_that_of_any_length_and_size() -> None:
    """Else a compiled function would refuse the tuple: nothing is compiled at a call."""
    for length, sizes in ((0, 0), (1, 1), (2, 3)):
        prices = allocate(Prices, length, fields=sizes, lookback=sizes)
        assert numba_type(prices) == type_of(Prices)
        assert total(prices) == 0
    prices.time[:] = (3, 4)
    assert total(prices) == 7
