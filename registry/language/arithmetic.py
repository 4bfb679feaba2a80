"""The arithmetic of derived features alone, without statuses and times: of parts with values.

Only of what is computed of one entity: a sum over entities also depends on statuses. The results
are, to the bit, those of `Derived.evaluate`: of one entity as floats, of many as arrays.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from registry.language.syntax import parse

Floats = NDArray[np.float64]
Evaluate = Callable[[Mapping[str, Any]], Any]


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
    """An expression that `compile_derived` takes, without `sum`, compiled.

    What is not finite is no value, as a division by zero, which makes NaN whatever follows.
    """

    of_floats: Evaluate
    of_arrays: Evaluate

    def value(self, parts: Mapping[str, float]) -> float:
        """The value of one entity, from those of its parts by name."""
        try:
            found: float = self.of_floats(parts)
        except ZeroDivisionError:
            return math.nan
        return found

    def column(self, parts: Mapping[str, Floats]) -> Floats:
        """The values of n entities, (n,), from those of their parts by name, (n,) each."""
        with np.errstate(all="ignore"):
            found: Floats = self.of_arrays(parts)
        return found


def compile_arithmetic(expression: str, where: str) -> Arithmetic:
    """The arithmetic of an expression. Raises `DefinitionError` for what is none."""
    body = parse(expression, where)
    return Arithmetic(_compile(body, OF_FLOATS), _compile(body, OF_ARRAYS))


def _compile(node: ast.expr, operations: _Operations) -> Evaluate:
    match node:
        case ast.Name(name):
            return operator.itemgetter(name)
        case ast.Constant(float() | int() as number):
            value = operations.constant(number)
            return lambda parts: value
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            negative, negated = operations.negative, _compile(operand, operations)
            return lambda parts: negative(negated(parts))
        case ast.Call(func=ast.Name("abs"), args=[argument]):
            absolute, inner = operations.absolute, _compile(argument, operations)
            return lambda parts: absolute(inner(parts))
        case ast.BinOp(left=left, op=op, right=right):
            one, other = _compile(left, operations), _compile(right, operations)
            binary = operations.binary[type(op)]
            return lambda parts: binary(one(parts), other(parts))
    raise AssertionError(f"`compile_derived` takes no {ast.unparse(node)}")
