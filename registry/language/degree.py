"""How a feature grows with the numbers it is made of: its degree.

If every field of every tick were c times as large, a feature of degree d would be c**d times as
large (a homogeneous function, as Euler has it). A mean of prices is of degree 1, as are all levels;
a return, a volatility and the ratio of two means are of degree 0: they can be compared between
years in which prices were others.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping

from registry.language.syntax import parse

OF_FUNCTIONS = {"log_return": 0}
"""Degree of a function whatever its argument's; all others have that of their argument."""

Degree = int | None
"""None of what has no degree, as `price + 1`."""


def degree(expression: str, where: str, of_names: Mapping[str, Degree] | None = None) -> Degree:
    """The degree of an expression; names that are not in `of_names` are fields, of degree 1.

    Raises `DefinitionError`, naming `where`, for what cannot be read.
    """
    return _degree(parse(expression, where), {} if of_names is None else of_names)


def _degree(node: ast.expr, of_names: Mapping[str, Degree]) -> Degree:
    match node:
        case ast.Name(name):
            return of_names.get(name, 1)
        case ast.Constant():
            return 0
        case ast.UnaryOp(operand=operand):
            return _degree(operand, of_names)
        case ast.Call(func=ast.Name(name), args=[argument, *_]):
            return OF_FUNCTIONS.get(name, _degree(argument, of_names))
        case ast.BinOp(left=left, op=op, right=right):
            one, other = _degree(left, of_names), _degree(right, of_names)
            if one is None or other is None:
                return None
            match op:
                case ast.Mult():
                    return one + other
                case ast.Div():
                    return one - other
            return one if one == other else None
    return None
