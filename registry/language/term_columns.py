"""Terms of derived features by columns: what `registry.language.terms` says, of n entities at once.

Only of what is added up over entities. Values, statuses and event times are, to the bit, those that
`Derived.evaluate` finds of each row, which a test compares.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from registry.errors import DefinitionError
from registry.formats.status import RANK, Status
from registry.language.syntax import parse

NO_TIME = np.iinfo(np.int64).max
"""The event time where there is none: later than any."""

LAST_WITH_VALUE = RANK[Status.LAGGING]
OK, UNDEFINED, MISSING = RANK[Status.OK], RANK[Status.UNDEFINED], RANK[Status.MISSING]


class Terms(NamedTuple):
    """What a piece of an expression comes to, of n entities; each is (n,), or one for all."""

    values: Any
    ranks: Any
    """The rank of each status (`registry.formats.status.RANK`)."""
    times: Any
    """Nanoseconds UTC, `NO_TIME` where there is none."""
    zeros: Any
    """Whether it is exactly 0."""

    @classmethod
    def of_feature(cls, values: Any, ranks: Any, times: Any) -> Terms:
        """The values of a feature, with ranks and times."""
        return cls(values, ranks, times, (values == 0) & (ranks <= LAST_WITH_VALUE))


Evaluate = Callable[[Mapping[str, Terms]], Terms]
"""From the parts of n entities, by name, to terms."""


class Sums(NamedTuple):
    """Sums of m rows, before their own age counts; each is (m,)."""

    values: NDArray[np.float64]
    """NaN where there is none."""
    ranks: NDArray[np.uint8]
    times: NDArray[np.int64]


def compile_terms(expression: str, where: str) -> Evaluate:
    """The terms of an expression `sum(...)` that `compile_derived` takes.

    Raises `DefinitionError` for one that is no sum.
    """
    match parse(expression, where):
        case ast.Call(func=ast.Name("sum"), args=[inner], keywords=[]):
            return _compile(inner)
    raise DefinitionError(where, f"`{expression}` is no sum over entities")


def add_up(terms: Terms, row: NDArray[np.intp], rows: int, last_close: NDArray[np.int64]) -> Sums:
    """The sums of `rows` rows, as `Derived.evaluate` makes them.

    `row` (n,) says to which row each term belongs; terms of a row are added in their order.
    `last_close` (rows,) is the event time of the last close of an entity that belongs to the row
    and is closed, the lowest number where there is none.
    """
    n = len(row)
    values = np.broadcast_to(terms.values, n)
    ranks, times = np.broadcast_to(terms.ranks, n), np.broadcast_to(terms.times, n)
    worst, oldest = np.zeros(rows, np.uint8), np.full(rows, NO_TIME, np.int64)
    np.maximum.at(worst, row, ranks)
    np.minimum.at(oldest, row, times)
    with np.errstate(all="ignore"):
        totals = np.bincount(row, weights=values, minlength=rows)  # from left to right
    is_empty = np.bincount(row, minlength=rows) == 0
    has_closed = last_close > np.iinfo(np.int64).min
    oldest = np.where(is_empty & has_closed, last_close, oldest)
    worst = np.where(is_empty & ~has_closed, MISSING, worst)
    has_value = worst <= LAST_WITH_VALUE
    worst = np.where(has_value & ~np.isfinite(totals), UNDEFINED, worst).astype(np.uint8)
    return Sums(np.where(worst <= LAST_WITH_VALUE, totals, np.nan), worst, oldest)


def _compile(node: ast.expr) -> Evaluate:
    match node:
        case ast.Name(name):
            return lambda parts: parts[name]
        case ast.Constant(float() | int() as number):
            constant = Terms(np.float64(number), np.uint8(OK), np.int64(NO_TIME), np.False_)
            return lambda parts: constant
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return _signed(np.negative, _compile(operand))
        case ast.Call(func=ast.Name("abs"), args=[argument]):
            return _signed(np.abs, _compile(argument))
        case ast.BinOp(left=left, op=op, right=right):
            one, other = _compile(left), _compile(right)
            combine = COMBINED[type(op)]
            return lambda parts: combine(one(parts), other(parts))
    raise AssertionError(f"`compile_derived` takes no {ast.unparse(node)}")


def _signed(function: Callable[[Any], Any], inner: Evaluate) -> Evaluate:
    def evaluate(parts: Mapping[str, Terms]) -> Terms:
        terms = inner(parts)
        return terms._replace(values=function(terms.values))

    return evaluate


def _added(values: Any, one: Terms, other: Terms) -> Terms:
    ranks, times = np.maximum(one.ranks, other.ranks), np.minimum(one.times, other.times)
    zeros = (values == 0) & (times != NO_TIME) & (ranks <= LAST_WITH_VALUE)
    return Terms(values, ranks, times, zeros)


def _multiplied(values: Any, one: Terms, other: Terms) -> Terms:
    ranks, times = np.maximum(one.ranks, other.ranks), np.minimum(one.times, other.times)
    return Terms(values, ranks, times, np.False_)


def _sum(one: Terms, other: Terms) -> Terms:
    with np.errstate(all="ignore"):
        return _added(one.values + other.values, one, other)


def _difference(one: Terms, other: Terms) -> Terms:
    with np.errstate(all="ignore"):
        return _added(one.values - other.values, one, other)


def _product(one: Terms, other: Terms) -> Terms:
    """A factor that is exactly 0 stands for the product: of two the one that is known better."""
    with np.errstate(all="ignore"):
        product = _multiplied(one.values * other.values, one, other)
    if not (np.any(one.zeros) or np.any(other.zeros)):
        return product
    is_better = (one.ranks < other.ranks) | (
        (one.ranks == other.ranks) & (one.times >= other.times)
    )
    takes_one = one.zeros & (~other.zeros | is_better)
    return _where(takes_one, one, _where(other.zeros, other, product))


def _quotient(one: Terms, other: Terms) -> Terms:
    """A dividend that is exactly 0 stands for the quotient."""
    with np.errstate(all="ignore"):
        values = np.where(other.values == 0, np.nan, np.divide(one.values, other.values))
    return _where(one.zeros, one, _multiplied(values, one, other))


def _where(which: Any, one: Terms, other: Terms) -> Terms:
    return Terms(*(np.where(which, a, b) for a, b in zip(one, other, strict=True)))


COMBINED: Mapping[type[ast.operator], Callable[[Terms, Terms], Terms]] = {
    ast.Add: _sum,
    ast.Sub: _difference,
    ast.Mult: _product,
    ast.Div: _quotient,
}
