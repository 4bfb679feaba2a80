"""A derived feature by rewriting it: products with a factor of nothing are struck out, then Python
evaluates what is left.

The product computes a status beside each value and walks the expression once. Here a term becomes
another text, and a list of the parts that still count in it.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

STATUSES = ("ok", "stale", "lagging", "warming", "undefined", "missing", "unavailable")
"""From best to worst; the first three have a value."""

SIGNS = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}


@dataclass(frozen=True)
class Known:
    """A value (None for none), its status and its event time (None where nothing is known)."""

    value: float | None
    status: str
    event_time: int | None


@dataclass(frozen=True)
class Reduced:
    """What is left of a piece of an expression, and the parts that count in it."""

    text: str
    counted: tuple[Known, ...]

    @property
    def known(self) -> Known:
        status = max((part.status for part in self.counted), key=STATUSES.index, default="ok")
        times = [part.event_time for part in self.counted if part.event_time is not None]
        value: float | None = None
        if STATUSES.index(status) < 3:
            try:
                value = eval(self.text, {"abs": abs})
            except ZeroDivisionError:
                value = math.nan
        return Known(value, status, min(times, default=None))


def expect_sum(
    term: str, entities: Sequence[Mapping[str, Known]], closed: Sequence[Known] = ()
) -> Known:
    """sum(term) over entities; `closed` are those that are closed, at the times of their closes."""
    found = [reduce(ast.parse(term, mode="eval").body, entity).known for entity in entities]
    statuses = [known.status for known in (*found, *closed)]
    if not statuses:
        return Known(None, "missing", None)
    status = max(statuses, key=STATUSES.index)
    times = [known.event_time for known in found or closed if known.event_time is not None]
    time = min(times, default=None) if found else max(times, default=None)
    if STATUSES.index(status) >= 3:
        return Known(None, status, time)
    total = 0.0
    for known in found:
        assert known.value is not None
        total = total + known.value
    if not math.isfinite(total):
        return Known(None, "undefined", time)
    return Known(total, status, time)


def reduce(node: ast.expr, parts: Mapping[str, Known]) -> Reduced:
    """A term without the products that have a factor of exactly 0."""
    if _is_product(node):
        zeros = [zero for factor in _factors(node) if (zero := _zero(factor, parts)) is not None]
        if zeros:
            best = min(zeros, key=lambda zero: (STATUSES.index(zero.status), -_time(zero)))
            return Reduced("0.0", (best,))
    match node:
        case ast.Name(name):
            return Reduced(repr(parts[name].value), (parts[name],))
        case ast.Constant(number):
            return Reduced(repr(number), ())
        case ast.BinOp(left=left, op=op, right=right):
            one, other = reduce(left, parts), reduce(right, parts)
            text = f"({one.text} {SIGNS[type(op)]} {other.text})"
            return Reduced(text, one.counted + other.counted)
        case ast.UnaryOp(operand=inner):
            reduced = reduce(inner, parts)
            return Reduced(f"(-{reduced.text})", reduced.counted)
        case ast.Call(args=[inner]):
            reduced = reduce(inner, parts)
            return Reduced(f"abs({reduced.text})", reduced.counted)
    raise AssertionError(ast.dump(node))


def _zero(factor: ast.expr, parts: Mapping[str, Known]) -> Known | None:
    """The factor, if it is exactly 0 and reads a feature."""
    known = reduce(factor, parts).known
    return known if known.value == 0 and known.event_time is not None else None


def _is_product(node: ast.expr) -> bool:
    return isinstance(_bare(node), ast.BinOp) and _factors(node) != [_bare(node)]


def _factors(node: ast.expr) -> list[ast.expr]:
    """The factors of a product, however it is nested; a divisor is none."""
    match _bare(node):
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            return _factors(left) + _factors(right)
        case ast.BinOp(left=left, op=ast.Div()):
            return _factors(left)
        case bare:
            return [bare]


def _bare(node: ast.expr) -> ast.expr:
    """Without signs and `abs`."""
    match node:
        case ast.UnaryOp(operand=inner) | ast.Call(args=[inner]):
            return _bare(inner)
    return node


def _time(known: Known) -> int:
    assert known.event_time is not None
    return known.event_time
