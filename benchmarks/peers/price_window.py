"""The four price features from a window of plain floats, as short and as fast as Python has them.

Logarithms are remembered, so a tick costs one; sums are over the window and never run on, so an
old price leaves no trace in the last digits.
"""

from __future__ import annotations

from math import log, sqrt

SHORT, LONG = 5, 20

Features = tuple[float, float | None, float | None, float | None]


def advance(prices: list[float], returns: list[float], price: float) -> Features:
    """current_price, price_sma_5, price_sma_20 and price_volatility after one more price.

    `prices` and `returns` are the last 20 of each, oldest first, and are brought up to date.
    """
    if prices:
        returns.append(log(price / prices[-1]))
        if len(returns) > LONG:
            del returns[0]
    prices.append(price)
    if len(prices) > LONG:
        del prices[0]
    filled = len(prices)
    return (
        price,
        sum(prices[-SHORT:]) / SHORT if filled >= SHORT else None,
        sum(prices) / LONG if filled == LONG else None,
        _deviation(returns) if len(returns) == LONG else None,
    )


def _deviation(values: list[float]) -> float:
    mean = sum(values) / LONG
    return sqrt(sum([(value - mean) * (value - mean) for value in values]) / (LONG - 1))
