"""A program as the kernel runs it: one instruction a feature, as columns."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pipelines.runtime.array_types import Int64s
from pipelines.runtime.named_columns import column
from registry.language.program import Function, Program


class Instructions(NamedTuple):
    """What to compute of each tick, by feature: a function of a window of a field.

    Returns are remembered by field, and features of the same field share them: `returns` is the
    index of the field's returns in the ring of returns, 0 where the function needs none.
    """

    function: Int64s = column(np.int64)
    field: Int64s = column(np.int64)
    """Among `fields_of` the program."""
    window: Int64s = column(np.int64)
    """Ticks, or returns between ticks."""
    returns: Int64s = column(np.int64)


def instructions_of(program: Program) -> Instructions:
    """The instructions of a program."""
    function, field, window = (np.ascontiguousarray(column) for column in program.code.T)
    fields, with_returns = fields_of(program).tolist(), _fields_with_returns(program)
    returns = [with_returns.index(f) if f in with_returns else 0 for f in field.tolist()]
    remembered = [fields.index(f) for f in field.tolist()]
    return Instructions(
        function, np.array(remembered, np.int64), window, np.array(returns, np.int64)
    )


def fields_of(program: Program) -> Int64s:
    """The fields of a tick that are remembered, by their indexes: those that windows are of."""
    return np.unique(program.code[:, 1])


def returns_of(program: Program) -> int:
    """How many returns of each tick are remembered; at least 1, so that the ring has elements."""
    return max(1, len(_fields_with_returns(program)))


def longest_returns_of(program: Program) -> int:
    """How many returns of a field a window reaches back; at least 1, as for `returns_of`."""
    is_of_returns = program.code[:, 0] == Function.STDDEV_LOG_RETURN
    longest: int = max([1, *program.code[is_of_returns, 2].tolist()])
    return longest


def _fields_with_returns(program: Program) -> list[int]:
    return list(
        dict.fromkeys(
            int(field)
            for function, field, _ in program.code
            if function == Function.STDDEV_LOG_RETURN
        )
    )
