"""Derived features: arithmetic over other features, computed when they are read.

    price_sma_5 / price_sma_20 - 1
    sum(abs(position_size * position_multiplier * current_price))

The same code serves an online read and a training set. Operations are doubles in the order in
which they are written; `sum` adds to 0.0 from left to right over the entities in the order given
(symbol order), so the same parts give the same bits. `registry.language.terms` says which status
and event time a result has, and what a factor of exactly 0 does in a sum.
"""

from __future__ import annotations

import ast
import math
import operator
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from registry.errors import DefinitionError
from registry.formats.status import Status, has_value, worst
from registry.language import terms
from registry.language.syntax import parse
from registry.language.terms import Evaluate, Part

ADDED = {ast.Add: operator.add, ast.Sub: operator.sub}


@dataclass(frozen=True, slots=True)
class Derived:
    """A compiled expression; `names` are the features that it reads, in order of appearance.

    With `sums` it adds up over entities; else it is computed of one entity's features.
    """

    names: tuple[str, ...]
    sums: bool
    term: Evaluate

    def evaluate(self, entities: Sequence[Mapping[str, Part]], closed: Sequence[Part] = ()) -> Part:
        """The value over `entities`, each a mapping of `names` to parts, in the order of adding.

        The worst status and the oldest event time of the terms are the result's. A term without a
        value leaves the result without one: there are no partial sums.

        `closed` has a part for each entity that belongs to the sum and is closed: the time of its
        close, and `ok` or what is wrong with its pipeline. Such an entity has no term, and when it
        was closed does not count while another is open. A sum of closed entities only is 0 at the
        last close. A sum of no entity at all is `missing`.
        """
        found = [self.term(entity) for entity in entities]
        status = worst({*(status for _, status, _, _ in found), *(part.status for part in closed)})
        if found:
            total = self._total([value for value, _, _, _ in found])
            event_time = min((time for _, _, time, _ in found if time is not None), default=None)
        elif closed:
            total = 0.0
            event_time = max(
                (part.event_time for part in closed if part.event_time is not None), default=None
            )
        else:
            return Part(math.nan, Status.MISSING, None)
        if not has_value(status):
            return Part(math.nan, status, event_time)
        if not math.isfinite(total):
            return Part(math.nan, Status.UNDEFINED, event_time)
        return Part(total, status, event_time)

    def _total(self, values: Sequence[float]) -> float:
        if not self.sums:
            return values[0]
        total = 0.0
        for value in values:  # `sum` compensates since Python 3.12, which gives other bits
            total += value
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
    return Derived(names=names, sums=sums, term=_Compiler(expression, where, sums).compile(body))


def _names(node: ast.expr) -> Iterator[str]:
    called = {id(call.func) for call in ast.walk(node) if isinstance(call, ast.Call)}
    for child in ast.walk(node):
        if isinstance(child, ast.Name) and id(child) not in called:
            yield child.id


@dataclass(frozen=True, slots=True)
class _Compiler:
    expression: str
    where: str
    sums: bool

    def compile(self, node: ast.expr) -> Evaluate:
        match node:
            case ast.Name(name):
                return terms.feature(name)
            case ast.Constant(float() | int() as number) if _is_double(number):
                return terms.constant(float(number))
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return terms.signed(operator.neg, self.compile(operand))
            case ast.Call(func=ast.Name("abs"), args=[argument], keywords=[]):
                return terms.signed(abs, self.compile(argument))
            case ast.BinOp(left=left, op=op, right=right) if type(op) in ADDED:
                return terms.added(ADDED[type(op)], self.compile(left), self.compile(right))
            case ast.BinOp(left=left, op=ast.Mult(), right=right):
                product = terms.absorbing_product if self.sums else terms.multiplied
                return product(operator.mul, self.compile(left), self.compile(right))
            case ast.BinOp(left=left, op=ast.Div(), right=right):
                quotient = terms.absorbing_quotient if self.sums else terms.multiplied
                return quotient(operator.truediv, self.compile(left), self.compile(right))
        raise DefinitionError(
            self.where,
            f"`{self.expression}` may hold names of features, finite numbers, + - * /, abs(...) "
            f"and one sum(...) around it all, not `{ast.unparse(node)}`",
        )


def _is_double(number: float) -> bool:
    return not isinstance(number, bool) and abs(number) <= sys.float_info.max
