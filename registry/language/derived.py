"""Derived features: arithmetic over other features, computed when they are read.

    price_sma_5 / price_sma_20 - 1
    sum(abs(position_size * position_multiplier * current_price))

The same code serves an online read and a training set. Operations are doubles in the order in
which they are written; `sum` adds from left to right over the entities in the order given (symbol
order), so the same parts give the same bits.
"""

from __future__ import annotations

import ast
import math
import operator
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from registry.errors import DefinitionError
from registry.formats.status import Status, has_value, worst
from registry.language.syntax import parse

Binary = Callable[[float, float], float]
Evaluate = Callable[[Mapping[str, float]], float]

OPERATIONS: Mapping[type[ast.operator], Binary] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


@dataclass(frozen=True, slots=True)
class Part:
    """A feature's value as an input or a result; `event_time` is None where nothing is known."""

    value: float
    status: Status
    event_time: int | None


@dataclass(frozen=True, slots=True)
class Derived:
    """A compiled expression; `names` are the features that it reads, in order of appearance.

    With `sums` it adds up over entities; else it is computed of one entity's features.
    """

    names: tuple[str, ...]
    sums: bool
    term: Evaluate

    def evaluate(self, entities: Sequence[Mapping[str, Part]]) -> Part:
        """The value over `entities`, each a mapping of `names` to parts, in the order of adding.

        The worst status and the oldest event time of the parts are the result's. No entity at all
        is `missing`, and so is a missing part: there are no partial sums.
        """
        parts = [entity[name] for entity in entities for name in self.names]
        if not parts:
            return Part(math.nan, Status.MISSING, None)
        status = worst(part.status for part in parts)
        times = [part.event_time for part in parts if part.event_time is not None]
        oldest = min(times, default=None)
        if not has_value(status):
            return Part(math.nan, status, oldest)
        try:
            total = self._total(entities)
        except (ZeroDivisionError, OverflowError):
            total = math.nan
        if not math.isfinite(total):
            return Part(math.nan, Status.UNDEFINED, oldest)
        return Part(total, status, oldest)

    def _total(self, entities: Sequence[Mapping[str, Part]]) -> float:
        terms = (
            self.term({name: entity[name].value for name in self.names}) for entity in entities
        )
        total = next(terms)
        for term in terms:
            total += term
        return total


def compile_derived(expression: str, where: str) -> Derived:
    """Compile an expression of names, numbers, `+ - * /`, `abs` and one outermost `sum`.

    Raises `DefinitionError`, naming `where`, for anything else.
    """
    body = parse(expression, where)
    sums = False
    match body:
        case ast.Call(func=ast.Name("sum"), args=[inner], keywords=[]):
            body, sums = inner, True
    names = tuple(dict.fromkeys(_names(body)))
    if not names:
        raise DefinitionError(where, f"`{expression}` reads no feature")
    return Derived(names=names, sums=sums, term=_compile(body, where, expression))


def _names(node: ast.expr) -> Iterator[str]:
    called = {id(call.func) for call in ast.walk(node) if isinstance(call, ast.Call)}
    for child in ast.walk(node):
        if isinstance(child, ast.Name) and id(child) not in called:
            yield child.id


def _compile(node: ast.expr, where: str, expression: str) -> Evaluate:
    match node:
        case ast.Name(name):
            return lambda values: values[name]
        case ast.Constant(float() | int() as number) if _is_double(number):
            constant = float(number)
            return lambda values: constant
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            inner = _compile(operand, where, expression)
            return lambda values: -inner(values)
        case ast.Call(func=ast.Name("abs"), args=[argument], keywords=[]):
            inner = _compile(argument, where, expression)
            return lambda values: abs(inner(values))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATIONS:
            operation = OPERATIONS[type(op)]
            first, second = _compile(left, where, expression), _compile(right, where, expression)
            return lambda values: operation(first(values), second(values))
    raise DefinitionError(
        where,
        f"`{expression}` may hold names of features, finite numbers, + - * /, abs(...) and one "
        f"sum(...) around it all, not `{ast.unparse(node)}`",
    )


def _is_double(number: float) -> bool:
    return not isinstance(number, bool) and abs(number) <= sys.float_info.max
