"""Columns that travel together: a NamedTuple of arrays, each declared once.

    class Prices(NamedTuple):
        time: Int64s = column(np.int64)
        fields: Floats = column(np.float64, "fields")

The arrays of a new tuple, longer ones, and the type by which compiled code takes them all come from
that declaration, so a new column is added by one line. Compiled code reads a column by its name.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, TypeVar, cast

import numba
import numpy as np
from numpy.typing import DTypeLike

numba_type: Any = numba.typeof
Columns = TypeVar("Columns", bound=tuple[Any, ...])


class _Column(NamedTuple):
    dtype: np.dtype[Any]
    dimensions: tuple[str, ...]


def column(dtype: DTypeLike, *dimensions: str) -> Any:
    """The declaration of a column: its element type, and the names of its dimensions but the first.

    Of a tuple that `allocate` makes, the first dimension of all columns is the same: its length.
    """
    return _Column(np.dtype(dtype), dimensions)


def allocate(columns: type[Columns], length: int, **sizes: int) -> Columns:
    """A tuple of columns of zeros; `sizes` are those of the dimensions that the columns name."""
    return _make(
        columns,
        [
            np.zeros(
                (length, *[sizes[name] for name in dimensions]) if dimensions else length, dtype
            )
            for dtype, dimensions in _declarations(columns)
        ],
    )


def grown(columns: type[Columns], arrays: list[Any], length: int) -> Columns:
    """A tuple of these arrays with zeros behind them, up to `length`; empties the list.

    Where the list is the only one to hold the arrays, each is freed before the next one grows: a
    table of hundreds of megabytes never has all of its old columns beside all of its new ones.
    """

    def longer(column: Any) -> Any:
        # new zeros take no memory before they are written
        grown = np.zeros((length, *column.shape[1:]), column.dtype)
        grown[: len(column)] = column
        return grown

    arrays.reverse()
    return _make(columns, [longer(arrays.pop()) for _ in range(len(arrays))])


def sliced(columns: Columns, which: Any) -> Columns:
    """The same elements of every column; `which` is a slice or an index of the first dimension."""
    return _make(type(columns), [column[which] for column in columns])


def type_of(columns: type[Columns]) -> Any:
    """The numba type of such a tuple, for the signature of a compiled function."""
    names = {name for _, dimensions in _declarations(columns) for name in dimensions}
    return numba_type(allocate(columns, 0, **dict.fromkeys(names, 1)))


def _declarations(columns: type[Any]) -> Iterable[_Column]:
    return cast("Iterable[_Column]", columns._field_defaults.values())


def _make(columns: type[Columns], arrays: list[Any]) -> Columns:
    return cast("Columns", cast("Any", columns)._make(arrays))
