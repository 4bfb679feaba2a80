"""Derived features of many entities at once: the arithmetic of `derived`, over arrays.

Only of what is computed of one entity: sums over entities are never this many. Where all parts have
values the results are, to the bit, those of `Derived.evaluate`.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from registry.language.syntax import parse

Floats = NDArray[np.float64]

Column = Callable[[Mapping[str, Floats]], Floats]
"""From the values of the parts, by name, (n,) each, to (n,) values; NaN where there is none."""

OPERATIONS: Mapping[type[ast.operator], Callable[[Floats, Floats], Floats]] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: lambda one, other: np.where(other == 0, np.nan, np.divide(one, other)),
}


def compile_column(expression: str, where: str) -> Column:
    """The column of an expression that `compile_derived` takes, and that has no `sum`."""
    body = _compile(parse(expression, where))

    def column(parts: Mapping[str, Floats]) -> Floats:
        with np.errstate(all="ignore"):  # what is not finite is judged by the caller
            return body(parts)

    return column


def _compile(node: ast.expr) -> Column:
    match node:
        case ast.Name(name):
            return lambda parts: parts[name]
        case ast.Constant(float() | int() as number):
            value = np.array(number, np.float64)
            return lambda parts: value
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            negated = _compile(operand)
            return lambda parts: np.negative(negated(parts))
        case ast.Call(func=ast.Name("abs"), args=[argument]):
            inner = _compile(argument)
            return lambda parts: np.abs(inner(parts))
        case ast.BinOp(left=left, op=op, right=right):
            one, other, operation = _compile(left), _compile(right), OPERATIONS[type(op)]
            return lambda parts: operation(one(parts), other(parts))
    raise AssertionError(f"`compile_derived` takes no {ast.unparse(node)}")
