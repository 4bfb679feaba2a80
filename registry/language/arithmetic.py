"""The arithmetic of derived features alone, without statuses and times: of parts with values.

Only of what is computed of one entity: a sum over entities also depends on statuses. The results
are, to the bit, those of `Derived.evaluate`: of one entity as floats, of many as arrays.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from registry.language.syntax import parse

Floats = NDArray[np.float64]
Evaluate = Callable[[Sequence[Any]], Any]


class _Operations(NamedTuple):
    """What the signs of an expression do."""

    binary: Mapping[type[ast.operator], Callable[[Any, Any], Any]]
    negative: Callable[[Any], Any]
    absolute: Callable[[Any], Any]
    constant: Callable[[float], Any]


OF_FLOATS = _Operations(
    {
        ast.Add: operator.add,
        ast.Sub: operator.sub,
        ast.Mult: operator.mul,
        ast.Div: operator.truediv,
    },
    operator.neg,
    abs,
    float,
)
OF_ARRAYS = _Operations(
    {
        ast.Add: np.add,
        ast.Sub: np.subtract,
        ast.Mult: np.multiply,
        ast.Div: lambda one, other: np.where(other == 0, np.nan, np.divide(one, other)),
    },
    np.negative,
    np.abs,
    lambda value: np.array(value, np.float64),
)


class Arithmetic(NamedTuple):
    """An expression that `compile_derived` takes, without `sum`, compiled for values in an order.

    What is not finite is no value, as a division by zero, which makes NaN whatever follows.
    """

    of_floats: Evaluate
    of_arrays: Evaluate

    def value(self, values: Sequence[float]) -> float:
        """The value of one entity, from its values."""
        try:
            found: float = self.of_floats(values)
        except ZeroDivisionError:
            return math.nan
        return found

    def column(self, values: Floats) -> Floats:
        """The values of n entities, (n,), from theirs, (values, n)."""
        with np.errstate(all="ignore"):
            found: Floats = self.of_arrays(values)  # type: ignore[arg-type]
        return found


def compile_arithmetic(expression: str, where: str, indexes: Mapping[str, int]) -> Arithmetic:
    """The arithmetic of an expression, whose names have these indexes among the values.

    Raises `DefinitionError` for what is none.
    """
    body = parse(expression, where)
    return Arithmetic(_compile(body, OF_FLOATS, indexes), _compile(body, OF_ARRAYS, indexes))


def _compile(node: ast.expr, operations: _Operations, indexes: Mapping[str, int]) -> Evaluate:
    match node:
        case ast.Name(name):
            return operator.itemgetter(indexes[name])
        case ast.Constant(float() | int() as number):
            value = operations.constant(number)
            return lambda values: value
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            negative, negated = operations.negative, _compile(operand, operations, indexes)
            return lambda values: negative(negated(values))
        case ast.Call(func=ast.Name("abs"), args=[argument]):
            absolute, inner = operations.absolute, _compile(argument, operations, indexes)
            return lambda values: absolute(inner(values))
        case ast.BinOp(left=left, op=op, right=right):
            one, other = _compile(left, operations, indexes), _compile(right, operations, indexes)
            binary = operations.binary[type(op)]
            return lambda values: binary(one(values), other(values))
    raise AssertionError(f"`compile_derived` takes no {ast.unparse(node)}")
