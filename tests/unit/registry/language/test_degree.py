"""The degree of an expression is what scaling every field does to its value."""

from __future__ import annotations

import ast
import math
import operator
from itertools import pairwise

import pytest

from registry.language.degree import degree

FIELDS = {"price": [3.0, 5.0, 4.0, 7.0], "size": [2.0, 9.0, 1.0, 6.0]}
"""Newest last."""

SIGNS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def value(node: ast.expr, c: float) -> list[float]:
    """What an expression comes to at each tick, were all fields c times as large."""
    match node:
        case ast.Name(name):
            return [c * one for one in FIELDS[name]]
        case ast.Constant(number):
            assert isinstance(number, int | float)
            return [float(number)] * 4
        case ast.UnaryOp(operand=operand):
            return [-one for one in value(operand, c)]
        case ast.BinOp(left=left, op=op, right=right):
            return list(map(SIGNS[type(op)], value(left, c), value(right, c)))
        case ast.Call(func=ast.Name(name), args=[argument, *_]):
            inner = value(argument, c)
            match name:
                case "log_return":
                    return [0.0, *(math.log(b / a) for a, b in pairwise(inner))]
                case "mean":
                    return [sum(inner) / 4] * 4
                case "abs":
                    return [abs(one) for one in inner]
                case "stddev":
                    mean = sum(inner) / 4
                    return [math.sqrt(sum((one - mean) ** 2 for one in inner) / 3)] * 4
            return inner
    raise AssertionError(ast.dump(node))


@pytest.mark.parametrize(
    "expression",
    [
        "last(price)",
        "mean(price, 4)",
        "stddev(log_return(price), 3)",
        "price / size",
        "price * size",
        "mean(price, 4) / last(price) - 1",
        "-abs(price - size)",
        "price * size / (price + size)",
        "2 * price",
        "1 / size",
    ],
)
def test_it_is_the_power_to_which_the_scale_is_raised(expression: str) -> None:
    found = degree(expression, "here")
    assert found is not None
    node = ast.parse(expression, mode="eval").body
    one, scaled = value(node, 1.0)[-1], value(node, 10.0)[-1]
    assert scaled == pytest.approx(one * 10.0**found)


@pytest.mark.parametrize("expression", ["price + 1", "price * size + price", "1 - price"])
def test_what_has_none(expression: str) -> None:
    assert degree(expression, "here") is None


def test_parts_have_the_degree_that_they_are_said_to_have() -> None:
    assert degree("fast / slow", "here", {"fast": 1, "slow": 1}) == 0
    assert degree("volatility * 2", "here", {"volatility": 0}) == 0
    assert degree("volatility * odd", "here", {"volatility": 0, "odd": None}) is None
    assert degree("sum(abs(size * price))", "here", {"size": 1, "price": 1}) == 2
