"""Feature values fast, with a bound of the error; exact where the bound does not decide.

The mean adds with `math.fsum`, which rounds once. A log return is `log1p((after - before) /
before)` for prices within a factor of two of each other, where the difference is exact, and
`log(after / before)` elsewhere; either is within a few units in the last place of the return. The
deviation is a Lipschitz function of the returns (its constant is below 1.1), and `fsum` adds their
mean and their squares. So both are within `BOUND` of the largest magnitude in the window; what is
nearer to the tolerance than that is decided by `tests.oracle`, in exact arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from tests.oracle.features import Feature, Value, evaluate

TOLERANCE = 1e-12
"""Of the largest magnitude in the window; the contract's."""

BOUND = 1e-14
"""A hundred times what the analysis gives for windows of up to a thousand ticks."""

SUM_OVERFLOWS = 1e306
"""From here a sum may pass the largest double on its way; the value is then undefined."""

STATUS = {0: "ok", 1: "warming", 2: "undefined", 3: "closed"}


def explain(
    feature: Feature,
    window: list[tuple[float, ...]],
    value: float,
    status: str,
    closed: bool = False,
) -> tuple[str | None, bool]:
    """What is wrong with a stored value, None when it is right; and whether exactness was needed.

    `window` are the fields of the ticks since the last reset or close, oldest first; `closed` is
    whether no trade has followed a close.
    """
    if closed or status == "closed":
        return _exactly(evaluate(feature, window, closed), value, status), False
    near = estimate(feature, window)
    if near is not None and status == "ok":
        if feature.function == "last":
            return (None if value == near[0] else f"{value!r}, must be {near[0]!r}"), False
        if abs(value - near[0]) <= (TOLERANCE - BOUND) * near[1]:
            return None, False
    elif near is None and len(window) < feature.depth and status == "warming":
        return (None if math.isnan(value) else f"{value!r} while warming"), False
    return _exactly(evaluate(feature, window), value, status), True


def _exactly(exact: Value, value: float, status: str) -> str | None:
    if status == "undefined" and exact.status == "ok" and exact.magnitude > SUM_OVERFLOWS:
        return None if math.isnan(value) else f"{value!r} while undefined"
    if status != exact.status:
        return f"status {status}, must be {exact.status} ({exact.value!r})"
    if exact.value is None:
        return None if math.isnan(value) else f"{value!r} while {status}"
    if abs(value - exact.value) <= TOLERANCE * exact.magnitude:
        return None
    return f"{value!r}, must be {exact.value!r} (largest magnitude {exact.magnitude!r})"


def estimate(feature: Feature, window: list[tuple[float, ...]]) -> tuple[float, float] | None:
    """The value and the largest magnitude; None where there is no value or no estimate."""
    if len(window) < feature.depth:
        return None
    values = [fields[feature.field] for fields in window[-feature.depth :]]
    if feature.function == "volatility":
        return _deviation(values)
    magnitude = max(map(abs, values))
    if feature.function == "last":
        return (values[-1], magnitude) if math.isfinite(magnitude) else None
    if not magnitude < SUM_OVERFLOWS:  # also where one is NaN
        return None
    return math.fsum(values) / feature.n, magnitude


def _deviation(prices: Sequence[float]) -> tuple[float, float] | None:
    if not all(1e-290 < price < 1e290 for price in prices):
        return None
    returns = []
    before = prices[0]
    for after in prices[1:]:
        ratio = after / before
        near = 0.5 <= ratio <= 2
        if not 1e-290 < ratio < 1e290:
            return None
        returns.append(math.log1p((after - before) / before) if near else math.log(ratio))
        before = after
    magnitude = max(map(abs, returns))
    if not (magnitude == 0.0 or magnitude > 1e-140):  # squares would vanish
        return None
    mean = math.fsum(returns) / len(returns)
    squares = math.fsum([(each - mean) ** 2 for each in returns])
    return math.sqrt(squares / (len(returns) - 1)), magnitude
