"""Terms of derived features: arithmetic on values that carry a status and an event time.

A result has the worst status and the oldest event time of its parts, with one exception: **in a sum
over entities a factor that is exactly 0 makes its product 0**, with that factor's status and event
time, whatever the other factors are (missing, stale, undefined, infinite). A position of nothing
contributes nothing, and how old its symbol's price is does not count. To the letter:

- A *factor* is an operand of `*`, or the dividend of `/`: a / b is a times 1 / b, so 0 / b is 0 for
  any b, also for 0. A divisor is no factor. What is in `abs(...)` or after a minus sign is a factor
  as it would be without.
- It is *exactly 0* when it has a value, and that is 0.0 or -0.0. Its stored status is `ok` then;
  age and lag, which come on top when it is read, stay with it: a stale 0 makes a stale 0.
- A feature can be exactly 0, and so can a sum or a difference that reads one (`price - strike`). A
  constant is not, as it has no event time, nor is a product of two small numbers that is 0 because
  doubles end there.
- Where both factors are, the one that is known better counts: with the better status, and of equal
  ones the newer.
- The product is one summand: `size * price + fee` still reads the fee. Which sign its 0 has shows
  nowhere, as a sum over entities begins with 0.0.

Outside of a sum over entities 0 is a number like any other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from registry.formats.status import RANK, Status, has_value, worst


@dataclass(frozen=True, slots=True)
class Part:
    """A feature's value as an input or a result; `event_time` is None where nothing is known."""

    value: float
    status: Status
    event_time: int | None


Term = tuple[float, Status, int | None, bool]
"""What a piece of an expression comes to, of one entity: value, status, event time, and whether it
is exactly 0. The value means nothing where the status says that there is none."""

Evaluate = Callable[[Mapping[str, Part]], Term]
"""From the parts of an entity, by name, to a term."""

Arithmetic = Callable[[float, float], float]


def feature(name: str) -> Evaluate:
    """The feature `name`."""

    def evaluate(parts: Mapping[str, Part]) -> Term:
        part = parts[name]
        value, status = part.value, part.status
        return value, status, part.event_time, value == 0 and has_value(status)

    return evaluate


def constant(value: float) -> Evaluate:
    """A number, which has no event time."""
    term = value, Status.OK, None, False
    return lambda parts: term


def signed(function: Callable[[float], float], inner: Evaluate) -> Evaluate:
    """A term with another sign; one that is exactly 0 stays that."""

    def evaluate(parts: Mapping[str, Part]) -> Term:
        value, status, event_time, zero = inner(parts)
        return function(value), status, event_time, zero

    return evaluate


def added(arithmetic: Arithmetic, left: Evaluate, right: Evaluate) -> Evaluate:
    """A sum or a difference of two terms."""

    def evaluate(parts: Mapping[str, Part]) -> Term:
        one, other = left(parts), right(parts)
        value = arithmetic(one[0], other[0])
        status, event_time = _together(one, other)
        zero = value == 0 and event_time is not None and has_value(status)
        return value, status, event_time, zero

    return evaluate


def multiplied(arithmetic: Arithmetic, left: Evaluate, right: Evaluate) -> Evaluate:
    """A product or a quotient of two terms; NaN for a division by zero."""

    def evaluate(parts: Mapping[str, Part]) -> Term:
        return _multiplied(arithmetic, left(parts), right(parts))

    return evaluate


def absorbing_product(arithmetic: Arithmetic, left: Evaluate, right: Evaluate) -> Evaluate:
    """A product in a sum over entities: a factor that is exactly 0 stands for it."""

    def evaluate(parts: Mapping[str, Part]) -> Term:
        one, other = left(parts), right(parts)
        if one[3]:
            return min(one, other, key=_doubt) if other[3] else one
        return other if other[3] else _multiplied(arithmetic, one, other)

    return evaluate


def absorbing_quotient(arithmetic: Arithmetic, left: Evaluate, right: Evaluate) -> Evaluate:
    """A quotient in a sum over entities: a dividend that is exactly 0 stands for it."""

    def evaluate(parts: Mapping[str, Part]) -> Term:
        dividend = left(parts)
        if dividend[3]:
            return dividend
        return _multiplied(arithmetic, dividend, right(parts))

    return evaluate


def _multiplied(arithmetic: Arithmetic, left: Term, right: Term) -> Term:
    try:
        value = arithmetic(left[0], right[0])
    except ZeroDivisionError:
        value = math.nan
    status, event_time = _together(left, right)
    return value, status, event_time, False


def _doubt(zero: Term) -> tuple[int, int]:
    """The smaller, the better it is known that a term is exactly 0."""
    _, status, event_time, _ = zero
    assert event_time is not None, "what is exactly 0 reads a feature that has a value"
    return RANK[status], -event_time


def _together(left: Term, right: Term) -> tuple[Status, int | None]:
    """The worse status and the older event time of two terms."""
    _, status, event_time, _ = left
    _, other_status, other_time, _ = right
    if status is not other_status:
        status = worst((status, other_status))
    if event_time is None or (other_time is not None and other_time < event_time):
        event_time = other_time
    return status, event_time
