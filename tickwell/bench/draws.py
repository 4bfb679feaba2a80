"""Which entities are asked for: by Zipf's law, as a few instruments have most of the interest.

The entity of rank r (1, 2, …) is drawn with a probability proportional to 1 / rˢ (G. K. Zipf, 1935;
s = 0 draws all alike). A cache of k entities can at best hold the k that are drawn most often.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BLOCK = 4_096
"""Draws that are made at once."""


class Draws:
    """Draws the ranks of `entities` entities, from 0."""

    def __init__(self, entities: int, exponent: float, seed: int) -> None:
        weights = np.arange(1, entities + 1, dtype=np.float64) ** -exponent
        self._up_to = np.cumsum(weights) / weights.sum()
        self._up_to[-1] = 1.0
        self._random = np.random.default_rng(seed)
        self._block: list[int] = []

    def __next__(self) -> int:
        if not self._block:
            drawn = np.searchsorted(self._up_to, self._random.random(BLOCK), side="right")
            self._block = drawn.tolist()
        return self._block.pop()


def ideal_hit_ratio(drawn: NDArray[np.int64], entities: float) -> float:
    """The share of draws that a cache answers which holds the `entities` drawn most often.

    `drawn` has how often each was drawn, (n,). That cache holds them from the start and never
    another one. NaN where nothing was drawn.
    """
    total = int(drawn.sum())
    if not total:
        return float("nan")
    held = min(int(entities), len(drawn)) if entities < float("inf") else len(drawn)
    best = np.sort(drawn)[::-1][:held]
    return float(best.sum() / total)
