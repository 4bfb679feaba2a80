"""How a value came about, step by step: our arithmetic in plain Python, in the kernel's order.

A step is one operation on doubles (edition 1 of all functions). It is not the kernel that is asked
and whose result is shown: what is shown is computed here, a second time, and has to be equal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from registry.definitions import Source
from registry.language.natural_log import log_ratio
from registry.language.program import Function, compile_expression


class Step(NamedTuple):
    """An operation, as a reader would write it, and its result."""

    text: str
    value: float


class Worked(NamedTuple):
    """A result and the steps to it; `value` is NaN where the arithmetic has none."""

    value: float
    steps: tuple[Step, ...]

    @property
    def undefined_by(self) -> Step | None:
        """The first step without a finite result, where the result is none."""
        if math.isfinite(self.value):
            return None
        return next((step for step in self.steps if not math.isfinite(step.value)), None)


class Window(NamedTuple):
    """What an expression of a source is computed of: the last `depth` values of a field."""

    function: Function
    field: int
    """The index of the field among those of the source."""
    n: int
    """Values, or returns between them."""

    @property
    def depth(self) -> int:
        """Ticks: n returns need one more."""
        return self.n + 1 if self.function is Function.STDDEV_LOG_RETURN else self.n

    def worked(self, values: Sequence[float]) -> Worked:
        """The value of a full window, its values the oldest first, and how it came about."""
        assert len(values) == self.depth
        match self.function:
            case Function.LAST:
                return _whole([Step(f"last = {values[-1]!r}", values[-1])])
            case Function.MEAN:
                return _whole(_mean("value", values))
            case Function.STDDEV_LOG_RETURN:
                return _whole(_deviation(values))


def window_of(expression: str, source: Source, where: str) -> Window:
    """The window that an expression is of. Raises as `compile_expression`."""
    function, field, n = compile_expression(expression, source, where)
    return Window(Function(function), field, n)


def _whole(steps: Sequence[Step]) -> Worked:
    value = steps[-1].value
    return Worked(value if math.isfinite(value) else math.nan, tuple(steps))


def _mean(name: str, values: Sequence[float]) -> list[Step]:
    steps, total = list[Step](), 0.0
    for number, value in enumerate(values, 1):
        text = f"{total!r} + {name} {number} = {total!r} + {value!r}"
        total += value
        steps.append(Step(text, total))
    n = len(values)
    steps.append(Step(f"mean = {total!r} / {n}", total / n))
    return steps


def _deviation(values: Sequence[float]) -> list[Step]:
    """Sample deviation (ddof = 1) of log returns, in two passes: the mean, then the squares."""
    steps = list[Step]()
    for number, (before, after) in enumerate(pairwise(values), 1):
        text = f"return {number} = log({after!r} / {before!r})"
        steps.append(Step(text, log_ratio(after, before)))
    returns = [step.value for step in steps]
    steps += _mean("return", returns)
    mean, squares = steps[-1].value, 0.0
    for number, one in enumerate(returns, 1):
        difference = one - mean
        steps.append(Step(f"difference {number} = {one!r} - {mean!r}", difference))
        text = f"{squares!r} + difference {number} squared"
        squares += difference * difference
        steps.append(Step(text, squares))
    variance = squares / (len(returns) - 1)
    steps.append(Step(f"variance = {squares!r} / {len(returns) - 1}", variance))
    root = math.sqrt(variance) if variance >= 0 else math.nan  # it is NaN, or not negative
    steps.append(Step(f"deviation = sqrt({variance!r})", root))
    return steps
