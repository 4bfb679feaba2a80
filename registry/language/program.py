"""Materialized expressions to the program that the kernel runs.

The kernel knows functions, not features: a program has one row of numbers for each feature,
`(function, field index, n)`. The language is a call over a field of the source:

    last(price)                      the last value
    mean(price, 5)                   mean of the last 5
    stddev(log_return(price), 20)    sample deviation (ddof = 1) of the last 20 log returns
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from registry.definitions import Catalog, RowSchema, Source
from registry.errors import DefinitionError
from registry.language.syntax import parse

LONGEST_WINDOW = 1023
"""Ticks; one less than a source keeps unless declared, so that the first return has its price."""


class Function(IntEnum):
    """What the kernel can compute of a window of one field."""

    LAST = 1
    MEAN = 2
    STDDEV_LOG_RETURN = 3


@dataclass(frozen=True, slots=True)
class Program:
    """What to compute of each tick of `source`.

    `code` is int64 (features, 3): function, field index, n. `lookback` is the longest window, in
    ticks: n returns need n + 1 of them.
    """

    source: Source
    code: NDArray[np.int64]
    lookback: int


def compile_program(catalog: Catalog, schema: RowSchema) -> Program:
    """The program that computes the features of `schema`, in its order."""
    source = catalog.sources[schema.source]
    code = [
        compile_expression(catalog.features[ref].expression, source, ref) for ref in schema.features
    ]
    return Program(
        source=source,
        code=np.array(code, dtype=np.int64).reshape(len(code), 3),
        lookback=max((_depth(function, n) for function, _, n in code), default=1),
    )


def lookback(expression: str, source: Source, where: str) -> int:
    """How many ticks an expression needs. Raises as `compile_expression`."""
    function, _, n = compile_expression(expression, source, where)
    return _depth(function, n)


def compile_expression(expression: str, source: Source, where: str) -> tuple[int, int, int]:
    """`(function, field index, n)` of an expression.

    Raises `DefinitionError`, naming `where`, when it is not of the language above.
    """
    match parse(expression, where):
        case ast.Call(func=ast.Name("last"), args=[ast.Name(field)], keywords=[]):
            return Function.LAST, _field(field, source, where), 1
        case ast.Call(
            func=ast.Name("mean"), args=[ast.Name(field), ast.Constant(int(n))], keywords=[]
        ) if _is_window(n, 1):
            return Function.MEAN, _field(field, source, where), n
        case ast.Call(
            func=ast.Name("stddev"),
            args=[
                ast.Call(func=ast.Name("log_return"), args=[ast.Name(field)], keywords=[]),
                ast.Constant(int(n)),
            ],
            keywords=[],
        ) if _is_window(n, 2):
            return Function.STDDEV_LOG_RETURN, _field(field, source, where), n
    raise DefinitionError(
        where,
        f"`{expression}` is not one of last(field), mean(field, n) and "
        f"stddev(log_return(field), n) with n a whole number up to {LONGEST_WINDOW} "
        "(at least 2 for stddev)",
    )


def _field(name: str, source: Source, where: str) -> int:
    positions: Mapping[str, int] = {field: i for i, field in enumerate(source.field_names)}
    if name not in positions:
        known = ", ".join(source.field_names)
        raise DefinitionError(where, f"source {source.name} has no field {name}; it has {known}")
    return positions[name]


def _is_window(n: int, least: int) -> bool:
    return not isinstance(n, bool) and least <= n <= LONGEST_WINDOW


def _depth(function: int, n: int) -> int:
    return n + 1 if function == Function.STDDEV_LOG_RETURN else n
