"""How a derived value came about: its expression, evaluated node by node.

What a node comes to, and what a factor of exactly 0 does in a sum, `registry.language.terms` says;
here it is computed a second time, by walking the syntax tree, and each operation is a step.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from registry.formats.status import RANK, Status, has_value, worst
from registry.language.syntax import parse
from registry.language.terms import Part
from registry.language.worked import Step, Worked

Operation = Callable[[float, float], float]
SIGNS: Mapping[type[ast.operator], tuple[str, Operation]] = {
    ast.Add: ("+", operator.add),
    ast.Sub: ("-", operator.sub),
    ast.Mult: ("*", operator.mul),
    ast.Div: ("/", operator.truediv),
}


class _Node(NamedTuple):
    """What a node comes to. It means nothing where the status says that there is no value."""

    value: float
    status: Status
    event_time: int | None
    is_zero: bool


class WorkedTerm(NamedTuple):
    """What an expression comes to of one entity, with the steps to it."""

    worked: Worked
    status: Status
    event_time: int | None


def worked_term(expression: str, where: str, parts: Mapping[str, Part]) -> WorkedTerm:
    """The expression, or what it sums up, of an entity whose features are `parts`, by name.

    Raises `DefinitionError` for what is no expression.
    """
    body, sums = _summed(parse(expression, where))
    steps: list[Step] = []
    node = _Walker(parts, sums, steps).node(body)
    if not steps:
        steps.append(Step(ast.unparse(body), node.value))
    return WorkedTerm(Worked(node.value, tuple(steps)), node.status, node.event_time)


def worked_sum(values: Sequence[float]) -> Worked:
    """A sum of terms, added to 0.0 from left to right: the running sum after each."""
    steps, total = list[Step](), 0.0
    for number, value in enumerate(values, 1):
        text = f"{total!r} + term {number} = {total!r} + {value!r}"
        total += value
        steps.append(Step(text, total))
    return Worked(total if math.isfinite(total) else math.nan, tuple(steps))


def _summed(body: ast.expr) -> tuple[ast.expr, bool]:
    match body:
        case ast.Call(func=ast.Name("sum"), args=[inner], keywords=[]):
            return inner, True
    return body, False


class _Walker:
    """Walks the tree from the leaves on, in the order in which doubles are computed."""

    def __init__(self, parts: Mapping[str, Part], sums: bool, steps: list[Step]) -> None:
        self._parts = parts
        self._sums = sums
        self._steps = steps

    def node(self, node: ast.expr) -> _Node:
        match node:
            case ast.Name(name):
                part = self._parts[name]
                is_zero = part.value == 0 and has_value(part.status)
                return _Node(part.value, part.status, part.event_time, is_zero)
            case ast.Constant(float() | int() as number):
                return _Node(float(number), Status.OK, None, False)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                inner = self.node(operand)
                return self._stepped(node, f"-({inner.value!r})", inner, -inner.value)
            case ast.Call(func=ast.Name("abs"), args=[argument]):
                inner = self.node(argument)
                return self._stepped(node, f"abs({inner.value!r})", inner, abs(inner.value))
            case ast.BinOp(left=left, op=op, right=right):
                return self._operation(node, op, self.node(left), self.node(right))
        raise AssertionError(f"`compile_derived` takes no {ast.unparse(node)}")

    def _stepped(self, node: ast.expr, text: str, inner: _Node, value: float) -> _Node:
        self._steps.append(Step(f"{ast.unparse(node)} = {text}", value))
        return inner._replace(value=value)

    def _operation(self, node: ast.expr, op: ast.operator, left: _Node, right: _Node) -> _Node:
        sign, operation = SIGNS[type(op)]
        zero = self._zero_factor(op, left, right)
        if zero is not None:
            text = f"{ast.unparse(node)} = 0.0, as a factor of a sum is exactly 0"
            self._steps.append(Step(text, zero.value))
            return zero
        try:
            value = operation(left.value, right.value)
        except ZeroDivisionError:
            value = math.nan
        text = f"{ast.unparse(node)} = {left.value!r} {sign} {right.value!r}"
        self._steps.append(Step(text, value))
        status = worst((left.status, right.status))
        times = [time for time in (left.event_time, right.event_time) if time is not None]
        event_time = min(times, default=None)
        adds = isinstance(op, ast.Add | ast.Sub)
        is_zero = adds and value == 0 and event_time is not None and has_value(status)
        return _Node(value, status, event_time, is_zero)

    def _zero_factor(self, op: ast.operator, left: _Node, right: _Node) -> _Node | None:
        """The factor that stands for the product: of two zeros the one that is known better."""
        if not self._sums or isinstance(op, ast.Add | ast.Sub):
            return None
        factors = [left, right] if isinstance(op, ast.Mult) else [left]
        zeros = [factor for factor in factors if factor.is_zero]
        return min(zeros, key=_doubt, default=None)


def _doubt(zero: _Node) -> tuple[int, int]:
    assert zero.event_time is not None, "what is exactly 0 reads a feature that has a value"
    return RANK[zero.status], -zero.event_time
