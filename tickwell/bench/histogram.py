"""How long answers took, in bounded memory: counts of times between bounds that grow evenly."""

from __future__ import annotations

from collections.abc import Iterable
from math import log

import numpy as np
from numpy.typing import NDArray

FIRST_SECONDS = 1e-6
"""Upper bound of the first bucket, in seconds."""

STEP = log(1.01)
"""Each bound is 1 % above the one before: that is how much too long a percentile may be."""

BUCKETS = 2_001
"""The last bound is 446 s; what took longer is in the last bucket too."""


class Histogram:
    """Counts of times by buckets."""

    def __init__(self) -> None:
        self._counts = [0] * BUCKETS

    def add(self, seconds: float) -> None:
        """Count a time."""
        if seconds <= FIRST_SECONDS:
            self._counts[0] += 1
        else:
            bucket = 1 + int(log(seconds / FIRST_SECONDS) / STEP)
            self._counts[bucket if bucket < BUCKETS else -1] += 1

    def counts(self) -> NDArray[np.int64]:
        """(BUCKETS,) How many times are in each bucket."""
        return np.array(self._counts, np.int64)


def bounds() -> NDArray[np.float64]:
    """(BUCKETS,) The upper bound of each bucket, in seconds."""
    found: NDArray[np.float64] = FIRST_SECONDS * np.exp(STEP * np.arange(BUCKETS))
    return found


def percentiles(counts: NDArray[np.int64], shares: Iterable[float]) -> list[float]:
    """Seconds within which each of `shares` (0 to 1) was answered, at most 1 % too long.

    NaN where nothing was counted.
    """
    reached = np.cumsum(counts)
    if not reached[-1]:
        return [float("nan") for _ in shares]
    upper = bounds()
    # the smallest time that at least this share of the counted ones do not exceed
    wanted = (max(1.0, float(np.ceil(share * reached[-1]))) for share in shares)
    return [float(upper[np.searchsorted(reached, count)]) for count in wanted]
